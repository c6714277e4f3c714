//! Explanations, as the API shows them: why a run ran or waits, why a pipeline has its agent or none, and what became
//! of a due time. Every "no" and every "wait" has a word of its own.

use indexmap::IndexMap;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    firing::Firing,
    meta::{AgentName, Epoch, Name, PipelineKey, Revision, RunName},
    object::PipelineMeta,
    phase::{PipelinePhase, Reason, RunPhase, TaskPhase},
    plan::DueTime,
    run::{RunTrigger, millis, optional_millis},
};

/// Why a run ran, or waits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct RunWhy {
    /// Its name.
    pub metadata: RunWhyMeta,
    /// The pipeline.
    pub pipeline: PipelineKey,
    /// How it goes.
    pub phase: RunPhase,
    /// Why, in a word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// Why, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// What started it.
    pub trigger: RunTrigger,
    /// What it is a run of.
    pub commit: CommitWhy,
    /// Who runs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentName>,
    /// Under which ownership.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
    /// Why this agent, if it still owns the pipeline under that epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<String>,
    /// What it waits for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waits: Vec<Wait>,
    /// Tasks that were tried more than once, or that have something to say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tasks: Vec<TaskWhy>,
}

/// A run's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct RunWhyMeta {
    /// See [`RunName`].
    pub name: RunName,
}

/// The commit that something stems from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct CommitWhy {
    /// The revision.
    pub revision: Revision,
    /// When it was committed.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional_millis")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<crate::run::TimeText>"))]
    pub at: Option<Timestamp>,
    /// As `Name <mail>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// The first line of its message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The workflow's file, as in effect now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Where in the file it begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
}

/// Something that a run waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Wait {
    /// What kind of thing.
    #[serde(rename = "for")]
    pub on: WaitOn,
    /// The earlier run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunName>,
    /// The agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentName>,
    /// The task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// Since when.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional_millis")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<crate::run::TimeText>"))]
    pub since: Option<Timestamp>,
    /// Until when at the latest.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional_millis")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<crate::run::TimeText>"))]
    pub until: Option<Timestamp>,
    /// Why that is not there, in a word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// All of it in a sentence.
    pub message: String,
}

/// What a run waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum WaitOn {
    /// An earlier run, which has its turn.
    Run,
    /// An agent that owns the pipeline: it has none.
    Placement,
    /// Its agent, which is not connected.
    Agent,
    /// Its agent, which was asked to start it and has not said so yet.
    Start,
    /// A free slot of its agent.
    Slots,
    /// A lost agent, which may still report.
    Report,
    /// What a task waits for by itself, such as an approval or the delay of a retry.
    Task,
}

/// A task that has something to say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct TaskWhy {
    /// Its name.
    pub name: String,
    /// How it goes.
    pub phase: TaskPhase,
    /// Why, in a word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// Why, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Which attempt, from 1.
    pub attempt: u32,
}

/// Why a pipeline has its agent, or none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct PipelineWhy {
    /// Its name.
    pub metadata: PipelineMeta,
    /// Whether an agent has it.
    pub phase: PipelinePhase,
    /// Why not, in a word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// Why, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Who has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentName>,
    /// Under which ownership.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
    /// The commit that its spec stems from.
    pub commit: CommitWhy,
    /// True if it or its workflow is suspended.
    pub suspended: bool,
    /// The labels that an agent must have.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub labels: IndexMap<String, String>,
    /// Every agent, and what speaks for or against it.
    pub agents: Vec<Considered>,
    /// Its triggers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub triggers: Vec<TriggerWhy>,
    /// The pipelines that it follows: once each has ended in Success since it last did so, it starts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<AfterWhy>,
    /// Its runs that have not ended, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub runs: Vec<RunName>,
    /// What became of its last due times, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub firings: Vec<Firing>,
}

/// A pipeline that another one follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct AfterWhy {
    /// Its name.
    pub pipeline: Name,
    /// Its newest run that ended in Success and was not followed yet; it is waited for if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunName>,
    /// When that ended.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional_millis")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<crate::run::TimeText>"))]
    pub finished_at: Option<Timestamp>,
}

/// An agent that was looked at for a pipeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Considered {
    /// The agent.
    pub agent: AgentName,
    /// What came of it.
    pub verdict: Verdict,
    /// Labels that it lacks, or has with another value: what is asked for.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub missing: IndexMap<String, String>,
    /// When a disconnected one was last heard.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional_millis")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<crate::run::TimeText>"))]
    pub since: Option<Timestamp>,
    /// How many pipelines it owns.
    pub pipelines: u32,
    /// How many tasks it runs at once.
    pub slots: u32,
    /// All of it in a sentence.
    pub message: String,
}

/// What came of looking at an agent for a pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Verdict {
    /// It has the pipeline.
    Owner,
    /// It would be next: of those that could have it, it has the fewest pipelines per slot.
    Next,
    /// It could have it, and has more pipelines per slot than another.
    MoreLoaded,
    /// It lacks labels.
    MissingLabels,
    /// It has no session.
    Disconnected,
    /// It gives its pipelines away.
    Draining,
    /// Its identity is refused.
    Revoked,
    /// Its clock is too far off.
    ClockSkew,
}

/// A trigger of a pipeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct TriggerWhy {
    /// Its name.
    pub name: Name,
    /// `cron` or `webhook`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Of cron: the schedule with its zone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    /// True if it does not fire.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspended: bool,
    /// Of cron: when it is due next.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional_millis")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<crate::run::TimeText>"))]
    pub next_fire: Option<Timestamp>,
}

/// What became of an instant of a pipeline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct InstantWhy {
    /// The pipeline.
    pub metadata: PipelineMeta,
    /// The instant that was asked for.
    #[serde(with = "millis")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::run::TimeText"))]
    pub at: Timestamp,
    /// What is to be said of it.
    pub verdict: InstantVerdict,
    /// The same in a sentence.
    pub message: String,
    /// The rows of the ledger for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub firings: Vec<Firing>,
    /// The due time before it, as the triggers are now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<DueTime>,
    /// The due time after it, as the triggers are now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<DueTime>,
}

/// What is to be said of an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum InstantVerdict {
    /// The ledger has it.
    Recorded,
    /// No trigger is due then.
    NotDue,
    /// It is still to come.
    NotYet,
    /// It came, and no agent has looked at it yet.
    Pending,
    /// The pipeline was not there then.
    NotThere,
    /// It was due, as the triggers are now, and no row is kept.
    NotRecorded,
    /// The pipeline has no cron trigger.
    NoSchedule,
}
