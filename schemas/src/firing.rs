//! Firings: what became of each due time of a cron trigger.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    meta::{AgentName, Name, PipelineKey, RunName},
    phase::Reason,
    run::{millis, optional_millis},
};

/// One row of the firing ledger: a due time and its end. Rows without a run may stand for several due times.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Firing {
    /// Its name.
    pub metadata: FiringMeta,
    /// The pipeline.
    pub pipeline: PipelineKey,
    /// The trigger.
    pub trigger: Name,
    /// The due time; of several, the first.
    #[serde(with = "millis")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::run::TimeText"))]
    pub scheduled_time: Timestamp,
    /// The row stands for all due times up to this instant that have no row of their own.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional_millis")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<crate::run::TimeText>"))]
    pub until: Option<Timestamp>,
    /// How many they are, if somebody counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// What became of it.
    pub outcome: Outcome,
    /// Why there is no run, in a word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// The same in a sentence.
    pub message: String,
    /// The run, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunName>,
    /// The agent that looked at it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentName>,
}

/// A firing's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct FiringMeta {
    /// `TRIGGER@TIME`: unique within its pipeline, and what `after` takes.
    pub name: String,
}

/// What became of a due time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Outcome {
    /// It made a run.
    Fired,
    /// A newer one took its place.
    Coalesced,
    /// It was passed over, for the reason that is named.
    Skipped,
    /// Nobody looked at it in time, since there were too many.
    Missed,
    /// Nobody can tell.
    Unknown,
}

impl Outcome {
    /// Of a due time without a run, by its reason.
    pub fn of(reason: &Reason) -> Self {
        match reason.as_str() {
            word if word == Reason::COALESCED.as_str() => Self::Coalesced,
            word if word == Reason::MISSED.as_str() => Self::Missed,
            word if word == Reason::UNKNOWN.as_str() => Self::Unknown,
            _ => Self::Skipped,
        }
    }

    /// The word that the API shows.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fired => "Fired",
            Self::Coalesced => "Coalesced",
            Self::Skipped => "Skipped",
            Self::Missed => "Missed",
            Self::Unknown => "Unknown",
        }
    }
}

/// Why a due time has no run, in a sentence.
pub fn sentence(reason: &Reason) -> &'static str {
    const KNOWN: &[(Reason, &str)] = &[
        (Reason::COALESCED, "a newer due time of the trigger took its place while it waited"),
        (Reason::MISSED, "more due times had passed than are started at once; the newest were"),
        (Reason::UNKNOWN, "the agent that owned the pipeline was lost, and nobody can tell what it started"),
        (Reason::TRIGGER_EDITED, "the trigger was edited before anybody looked at it, and edits never fire the past"),
        (Reason::SUSPENDED, "the trigger, its pipeline or its workflow was suspended"),
        (Reason::OVERLAP, "an earlier run was still running, and `concurrency.policy: Skip` passes it over"),
        (Reason::TOO_LATE, "it could have started only later than `startingDeadline` or `catchUp` allow"),
        (Reason::QUEUE_TIMED_OUT, "it waited for its turn longer than `queueTimeout`"),
        (Reason::LEASE_EXPIRED, "its agent's lease ended before it could start"),
        (Reason::MOVING, "its pipeline was on its way to another agent"),
        (Reason::AGENT_DISK, "its agent could not write its journal"),
        (Reason::PIPELINE_REMOVED, "its pipeline was removed before it started"),
    ];
    KNOWN.iter().find(|(known, _)| known == reason).map_or("its agent names the reason", |(_, sentence)| sentence)
}
