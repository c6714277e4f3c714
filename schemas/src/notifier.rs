//! Notifiers: who is told of what, and what they are told.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    map::UniqueMap,
    meta::{AgentName, Generation, Name, ObjectMeta, Revision, RunName, SpecHash},
    phase::{Reason, RunPhase},
    run::{millis, optional_millis},
    workflow::ApiVersion,
};

/// A notifier document of `xene/v1`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Notifier {
    /// `xene/v1`.
    pub api_version: ApiVersion,
    /// `Notifier`.
    pub kind: NotifierKind,
    /// Name, description, labels.
    pub metadata: ObjectMeta,
    /// What is told, and to whom.
    pub spec: NotifierSpec,
}

/// The kind of a notifier document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum NotifierKind {
    /// The only one.
    Notifier,
}

/// What a notifier tells, and to whom: exactly one destination.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NotifierSpec {
    /// The transitions that are told; with `commitStatus` by default `[StartingUp, Running, Success, Error]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub on: Vec<Transition>,
    /// Whose runs are told of; default all. Says nothing of the source and of agents.
    #[serde(default, skip_serializing_if = "Select::is_all")]
    pub select: Select,
    /// CloudEvents 1.0 by HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloud_events: Option<CloudEvents>,
    /// A message to an incoming webhook of Slack, Mattermost, or what takes the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slack: Option<Slack>,
    /// Mail, by SMTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<Email>,
    /// The status of the commit that a run is of, at a git server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit_status: Option<CommitStatus>,
}

/// What a commit's status is told of by default: where a run stands.
const OF_COMMITS: [Transition; 4] =
    [Transition::StartingUp, Transition::Running, Transition::Success, Transition::Error];

impl NotifierSpec {
    /// True if it tells of this transition.
    pub fn tells(&self, transition: Transition) -> bool {
        let default = self.on.is_empty() && self.commit_status.is_some();
        if default { OF_COMMITS.contains(&transition) } else { self.on.contains(&transition) }
    }

    /// The destinations that are given, by their fields; of a good notifier there is one.
    pub fn destinations(&self) -> Vec<&'static str> {
        let given = [
            ("cloudEvents", self.cloud_events.is_some()),
            ("slack", self.slack.is_some()),
            ("email", self.email.is_some()),
            ("commitStatus", self.commit_status.is_some()),
        ];
        given.into_iter().filter(|(_, given)| *given).map(|(field, _)| field).collect()
    }
}

/// Whose runs are told of: all that is given must hold.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Select {
    /// Patterns of names of workflows; `!` before one leaves out what it names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub workflows: Vec<String>,
    /// Patterns of names of pipelines, likewise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pipelines: Vec<String>,
    /// Labels that the workflow has.
    #[serde(default, skip_serializing_if = "UniqueMap::is_empty")]
    pub labels: UniqueMap<String, String>,
}

impl Select {
    /// True if nothing is given.
    pub fn is_all(&self) -> bool {
        *self == Self::default()
    }
}

/// CloudEvents by HTTP POST.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CloudEvents {
    /// The controller's credential that says where they go.
    pub credential: Name,
    /// How an event is written.
    #[serde(default, skip_serializing_if = "is_structured")]
    pub mode: CloudEventsMode,
}

fn is_structured(mode: &CloudEventsMode) -> bool {
    *mode == CloudEventsMode::Structured
}

/// How an event is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum CloudEventsMode {
    /// All of it in the body.
    #[default]
    Structured,
    /// Its attributes as headers, its data as the body.
    Binary,
}

/// A message to an incoming webhook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Slack {
    /// The controller's credential that holds the webhook's URL.
    pub credential: Name,
}

/// Mail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Email {
    /// The controller's credential that says by which server, from whom, and who may be written to.
    pub credential: Name,
    /// Who is written to: at least one address.
    pub to: Vec<String>,
}

/// A commit's status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CommitStatus {
    /// Whose API it is.
    pub provider: Provider,
    /// The controller's credential that says where the API is, holds its token, and names the repositories that it is for.
    pub credential: Name,
    /// `OWNER/NAME`; at GitLab the path of the project, which may have more parts.
    pub repository: String,
}

/// A git server's API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum Provider {
    /// GitHub's.
    Github,
    /// GitLab's.
    Gitlab,
    /// Gitea's, which is Forgejo's too.
    Gitea,
}

macro_rules! transitions {
    ($($(#[$doc:meta])* $variant:ident = $word:literal),+ $(,)?) => {
        /// From one state to another: what can be told.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        pub enum Transition { $($(#[$doc])* $variant),+ }

        impl Transition {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// As it is written in a notifier.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => stringify!($variant)),+ }
            }

            /// The type of its CloudEvent.
            pub const fn event_type(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }
    };
}

transitions! {
    /// A run was made, and waits for its turn or its agent.
    StartingUp = "xene.run.starting-up",
    /// A run began.
    Running = "xene.run.running",
    /// A run's `finally` began.
    ShuttingDown = "xene.run.shutting-down",
    /// A run ended well.
    Success = "xene.run.success",
    /// A run ended badly.
    Error = "xene.run.error",
    /// A run's agent is lost.
    Unknown = "xene.run.unknown",
    /// A run ended badly, and the one before it well.
    Broken = "xene.pipeline.broken",
    /// A run ended well, and the one before it badly.
    Recovered = "xene.pipeline.recovered",
    /// A task waits for a person's consent.
    WaitingForApproval = "xene.task.waiting-for-approval",
    /// The source can't be read any more.
    SourceFailing = "xene.source.failing",
    /// It can be read again.
    SourceRecovered = "xene.source.recovered",
    /// Files of the source have errors.
    FilesBroken = "xene.files.broken",
    /// None has any more.
    FilesMended = "xene.files.mended",
    /// An agent was silent until a lease of it ran out.
    AgentLost = "xene.agent.lost",
    /// It is heard again.
    AgentReturned = "xene.agent.returned",
}

impl Transition {
    /// The run's phase that it leads to, if it is one.
    pub const fn phase(self) -> Option<RunPhase> {
        Some(match self {
            Self::StartingUp => RunPhase::StartingUp,
            Self::Running => RunPhase::Running,
            Self::ShuttingDown => RunPhase::ShuttingDown,
            Self::Success => RunPhase::Success,
            Self::Error => RunPhase::Error,
            Self::Unknown => RunPhase::Unknown,
            _ => return None,
        })
    }
}

impl From<RunPhase> for Transition {
    fn from(phase: RunPhase) -> Self {
        match phase {
            RunPhase::StartingUp => Self::StartingUp,
            RunPhase::Running => Self::Running,
            RunPhase::ShuttingDown => Self::ShuttingDown,
            RunPhase::Success => Self::Success,
            RunPhase::Error => Self::Error,
            RunPhase::Unknown => Self::Unknown,
        }
    }
}

impl fmt::Display for Transition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One transition that happened: what is told of it. The data of its CloudEvent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Notice {
    /// The same whenever this transition is told, to whomever.
    pub id: String,
    /// When it happened.
    #[serde(with = "millis")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::run::TimeText"))]
    pub at: Timestamp,
    /// What it is.
    pub transition: Transition,
    /// About what: `run/NAME`, `agent/NAME`, `source`.
    pub regarding: String,
    /// The run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunName>,
    /// Its workflow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow: Option<Name>,
    /// Its pipeline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pipeline: Option<Name>,
    /// The task that waits for approval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// The commit that the run is of; of the source the one in effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<Revision>,
    /// What started the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger: Option<String>,
    /// The run's phase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<RunPhase>,
    /// Why, in a word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// Why, in a sentence; or what a person is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentName>,
    /// When the run began.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional_millis")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<crate::run::TimeText>"))]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional_millis")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<crate::run::TimeText>"))]
    pub finished_at: Option<Timestamp>,
}

impl Notice {
    /// Of a transition that happened now.
    pub fn new(transition: Transition, regarding: String, id: String, at: Timestamp) -> Self {
        Self {
            id,
            at,
            transition,
            regarding,
            run: None,
            workflow: None,
            pipeline: None,
            task: None,
            revision: None,
            trigger: None,
            phase: None,
            reason: None,
            message: None,
            agent: None,
            started_at: None,
            finished_at: None,
        }
    }
}

/// A notifier in effect, as the API shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct NotifierObject {
    /// As committed.
    pub metadata: ObjectMeta,
    /// As committed.
    pub spec: NotifierSpec,
    /// How it goes.
    pub status: NotifierStatus,
}

/// How a notifier goes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct NotifierStatus {
    /// The phase.
    pub phase: NotifierPhase,
    /// The revision that `spec` was first read from in this form.
    pub revision: Revision,
    /// Its file.
    pub path: String,
    /// Where in the file its document begins, from 1.
    pub line: u32,
    /// How often its spec has changed.
    pub generation: Generation,
    /// The hash of metadata and spec.
    pub spec_hash: SpecHash,
    /// How many messages wait to be delivered.
    pub pending: u32,
    /// How many were delivered.
    #[serde(default)]
    pub delivered: u64,
    /// How many were given up or dropped.
    #[serde(default)]
    pub lost: u64,
    /// When one was last delivered.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional_millis")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<crate::run::TimeText>"))]
    pub delivered_at: Option<Timestamp>,
    /// When one last failed.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional_millis")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<crate::run::TimeText>"))]
    pub failed_at: Option<Timestamp>,
    /// Why the last one failed, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// When the next one is tried, if that is not now.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional_millis")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<crate::run::TimeText>"))]
    pub next_attempt: Option<Timestamp>,
}

/// A notifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum NotifierPhase {
    /// In effect as committed; its last message was delivered, or there was none.
    Ready,
    /// Its last message was not delivered.
    Failing,
    /// Its file has a problem; the last good spec is in effect.
    Invalid,
}

impl NotifierPhase {
    /// The word that the API shows.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::Failing => "Failing",
            Self::Invalid => "Invalid",
        }
    }
}

/// What came of a message that was sent to try a notifier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct NotifierTest {
    /// True if the destination took it.
    pub delivered: bool,
    /// What the destination said, or why it was not reached.
    pub message: String,
}
