//! The closed list of phases, and reasons: what a phase can't say, in one CamelCase word.

use std::{borrow::Cow, fmt};

use serde::{Deserialize, Serialize};

macro_rules! phase {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        pub enum $name { $($(#[$variant_doc])* $variant),+ }

        impl $name {
            /// All of them, in the order they are passed through.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The word that the API shows.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => stringify!($variant)),+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = ();

            fn from_str(text: &str) -> Result<Self, ()> {
                match text { $(stringify!($variant) => Ok(Self::$variant),)+ _ => Err(()) }
            }
        }
    };
}

phase! {
    /// A pipeline, as the controller sees it.
    PipelinePhase {
        /// An agent owns it.
        Scheduled,
        /// None does; the reason says why.
        NotScheduled,
    }
}

phase! {
    /// A run.
    RunPhase {
        /// Created; waits for its turn or its agent.
        StartingUp,
        /// Tasks run.
        Running,
        /// Its tasks have ended or are being stopped; `finally` runs.
        ShuttingDown,
        /// Ended well.
        Success,
        /// Ended badly.
        Error,
        /// Its agent is lost and may still report.
        Unknown,
    }
}

impl RunPhase {
    /// True for the phases that are never left.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Success | Self::Error)
    }
}

phase! {
    /// A task or a step of one.
    TaskPhase {
        /// Not begun, or never will be.
        NotExecuted,
        /// Under way.
        Running,
        /// Ended well.
        Success,
        /// Ended badly.
        Error,
    }
}

/// A step's phases are a task's.
pub type StepPhase = TaskPhase;

phase! {
    /// A workflow.
    WorkflowPhase {
        /// In effect as committed.
        Ready,
        /// Its file has a problem; the last good spec is in effect.
        Invalid,
        /// Its triggers do not fire.
        Suspended,
    }
}

phase! {
    /// An agent.
    AgentPhase {
        /// It has a session.
        Connected,
        /// It has none.
        Disconnected,
        /// It gives its pipelines away and gets no new ones.
        Draining,
        /// Its identity is refused for good.
        Revoked,
    }
}

phase! {
    /// What carries an agent's session.
    Transport {
        /// UDP.
        Quic,
        /// TLS over TCP, where UDP does not pass.
        Tcp,
    }
}

/// Why, in one CamelCase word. Open: a newer peer may send words that this version does not know.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct Reason(Cow<'static, str>);

macro_rules! reasons {
    ($($(#[$doc:meta])* $const:ident = $word:literal),+ $(,)?) => {
        impl Reason {
            $($(#[$doc])* pub const $const: Self = Self(Cow::Borrowed($word));)+

            /// True for the words of this version.
            pub fn is_known(&self) -> bool {
                [$($word),+].contains(&&*self.0)
            }
        }
    };
}

reasons! {
    /// Waits for an earlier run of the same pipeline.
    QUEUED = "Queued",
    /// Waits for its agent.
    WAITING_FOR_AGENT = "WaitingForAgent",
    /// Its agent waits for files that travel with its workflow.
    WAITING_FOR_FILES = "WaitingForFiles",
    /// Its own `when` was false.
    SKIPPED = "Skipped",
    /// A person, `failFast`, or `concurrency: Replace` ended it.
    CANCELLED = "Cancelled",
    /// It took longer than it may.
    TIMED_OUT = "TimedOut",
    /// It waited longer than it may.
    QUEUE_TIMED_OUT = "QueueTimedOut",
    /// A step ended with Error.
    STEP_FAILED = "StepFailed",
    /// A task ended with Error.
    TASK_FAILED = "TaskFailed",
    /// A task of `finally` ended with Error.
    FINALLY_FAILED = "FinallyFailed",
    /// What it waits for can't pass any more.
    UPSTREAM_FAILED = "UpstreamFailed",
    /// One of its expressions has no value.
    EXPR_FAILED = "ExprFailed",
    /// Someone has to approve it first.
    WAITING_FOR_APPROVAL = "WaitingForApproval",
    /// Someone did not approve it, or nobody did in time.
    REJECTED = "Rejected",
    /// It succeeded in the run that this one repeats.
    REUSED = "Reused",
    /// The process ended with an exit code other than 0.
    EXIT_CODE = "ExitCode",
    /// A signal ended the process.
    SIGNAL = "Signal",
    /// The process could not be started.
    START_FAILED = "StartFailed",
    /// Its outputs are above the caps.
    OUTPUT_TOO_LARGE = "OutputTooLarge",
    /// Its outputs can't be read.
    OUTPUT_INVALID = "OutputInvalid",
    /// Its artifacts can't be saved.
    ARTIFACTS_NOT_SAVED = "ArtifactsNotSaved",
    /// Its agent crashed between the intent to start it and the record that it started.
    START_UNCERTAIN = "StartUncertain",
    /// Its agent restarted under it.
    AGENT_RESTARTED = "AgentRestarted",
    /// Its agent is lost.
    AGENT_LOST = "AgentLost",
    /// Its agent was told to stop.
    AGENT_STOPPING = "AgentStopping",
    /// No agent has the labels.
    NO_MATCHING_AGENT = "NoMatchingAgent",
    /// The agents that have the labels are away or draining.
    NO_AGENT_AVAILABLE = "NoAgentAvailable",
    /// The owner has been silent, and may still start runs.
    OWNER_SILENT = "OwnerSilent",
    /// It is on its way from one agent to another.
    MOVING = "Moving",
    /// Of an agent: two processes have its identity.
    DUPLICATE_IDENTITY = "DuplicateIdentity",
    /// Of an agent: its clock is too far off.
    CLOCK_SKEW = "ClockSkew",
    /// Its triggers do not fire.
    SUSPENDED = "Suspended",
    /// An earlier run was still running.
    OVERLAP = "Overlap",
    /// A newer tick took its place in the queue.
    COALESCED = "Coalesced",
    /// Later than `startingDeadline`.
    TOO_LATE = "TooLate",
    /// More were missed than are started at once.
    MISSED = "Missed",
    /// Its owner was lost, and nobody can tell whether it started.
    UNKNOWN = "Unknown",
    /// Its trigger was edited before anybody looked at it.
    TRIGGER_EDITED = "TriggerEdited",
    /// Its pipeline was removed before it started.
    PIPELINE_REMOVED = "PipelineRemoved",
    /// Its agent's lease ended before it could start.
    LEASE_EXPIRED = "LeaseExpired",
    /// The spec can't be used.
    SPEC_INVALID = "SpecInvalid",
    /// The agent's disk refuses.
    AGENT_DISK = "AgentDisk",
}

impl Reason {
    /// A reason from a newer peer.
    pub fn other(word: impl Into<String>) -> Self {
        Self(Cow::Owned(word.into()))
    }

    /// The word.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}
