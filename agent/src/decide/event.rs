//! What happens to an agent (facts, past tense) and what it does about it (effects, imperative).

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use xene_schemas::{
    meta::{AgentName, Epoch, FileHash, PipelineKey, Revision, RunName, SpecHash},
    pipeline::{Autonomy, KeepWorkspace, PipelineFile},
    run::{Artifact, RunEvent, RunSpec},
    wire::control::{AgentMessage, ControllerMessage, SkippedSlot, StoreSeen},
};

use super::{
    resume::Told,
    time::{BootTime, Now},
};

/// One process of a run: which step of which attempt of which task. Of one task, a later one is greater.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StepId {
    /// The run.
    pub run: RunName,
    /// The task.
    pub task: String,
    /// The task's attempt, from 1.
    pub attempt: u32,
    /// The step, from 0.
    pub step: usize,
    /// The step's own attempt, from 1.
    pub step_attempt: u32,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "an event is moved a few times and never kept")]
pub enum Event {
    /// A session stands; nothing has been said yet.
    Connected,
    /// It ended, or an attempt to dial failed.
    Disconnected,
    /// The controller said something.
    Message(ControllerMessage),
    /// The journal holds the intent to start this run: now check the lease and begin.
    IntentDurable(RunName),
    /// A step's process ended and its tree is gone.
    StepExited {
        /// Which.
        id: StepId,
        /// How.
        exit: StepExit,
    },
    /// The log of a run that has ended is complete at the controller.
    LogDelivered(RunName),
    /// All files of a spec that were asked for by [`Effect::FetchFiles`] are here.
    FilesReady(SpecHash),
    /// The operator wants the agent to stop: give everything back, finish what runs (SIGTERM).
    DrainRequested,
    /// The operator wants it now: cancel what runs (second SIGTERM).
    StopRequested,
    /// The journal can't be written: start nothing, until it can be.
    JournalFailed,
    /// It can be written again.
    JournalWorks,
}

/// How a step's process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepExit {
    /// How the leader ended.
    pub status: ExitStatus,
    /// What it published, or why that can't be read (a sentence, and whether it was too large).
    pub outputs: Result<Vec<(String, String)>, OutputsError>,
    /// Names of processes that outlived the leader and were swept.
    pub leftovers: Vec<String>,
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitStatus {
    /// It exited with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// It could not be started; a sentence says why.
    StartFailed(String),
    /// An earlier process of the agent has started it, and nobody knows how it ended.
    Lost,
    /// These files were saved: the end of [`Program::Save`].
    Saved(Vec<Artifact>),
    /// Files could not be saved; a sentence without its subject says why.
    NotSaved(String),
}

/// Why outputs can't be taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum OutputsError {
    /// A value or the whole is above its cap.
    #[error("{what} is {size} bytes, above the limit of {limit}")]
    TooLarge {
        /// The output's name, or the whole file.
        what: String,
        /// Real size in bytes.
        size: u64,
        /// In bytes.
        limit: u64,
    },
    /// A line is neither `name=value` nor the start of a block.
    #[error("line {line} of $XENE_OUTPUT is neither name=value nor name<<EOF")]
    Malformed {
        /// From 1.
        line: usize,
    },
    /// A block has no end.
    #[error("the block begun in line {line} of $XENE_OUTPUT has no line `{end}`")]
    Unterminated {
        /// The line of its `name<<END`, from 1.
        line: usize,
        /// What ends it.
        end: String,
    },
    /// A value that no variable can hold.
    #[error("line {line} of $XENE_OUTPUT: the value of {name} {why}")]
    BadValue {
        /// The output's name.
        name: String,
        /// Where it begins, from 1.
        line: usize,
        /// `is not UTF-8 text`, or `holds a NUL character`.
        why: String,
    },
    /// The step put something else in the file's place, or the system can't read it.
    #[error("can't read $XENE_OUTPUT: {0}")]
    Unreadable(String),
}

/// What to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Say this to the controller; dropped if there is no session.
    Send(AgentMessage),
    /// End the session and dial again later.
    Disconnect,
    /// Feed [`Event::IntentDurable`] back at once.
    ConfirmIntent(RunName),
    /// Write down what the machine of a run is told, before anything that follows from it.
    Remember {
        /// Which run's.
        run: RunName,
        /// What.
        told: Told,
    },
    /// Write down what an answered renewal gave, before the next is sent. It need not outlive the host's boot.
    KeepRenewal(Renewal),
    /// Until then a run's processes may live, whoever ends them; before each start of one, and put off now and then.
    BoundRun {
        /// Which run's.
        run: RunName,
        /// By the time since the host's boot.
        until: BootTime,
    },
    /// Start a process, or go on with one that an earlier process of the agent has started.
    SpawnStep(Box<StepCommand>),
    /// Signal every process of a step.
    SignalStep {
        /// Which.
        id: StepId,
        /// Which signal.
        signal: Signal,
    },
    /// Get these files of a spec, as far as they are not here, and feed [`Event::FilesReady`] back.
    FetchFiles {
        /// Of which spec.
        spec: SpecHash,
        /// Which.
        files: Vec<PipelineFile>,
    },
    /// The files of this spec are not needed any more.
    ForgetFiles(SpecHash),
    /// Write a sentence of xene's own into a run's log.
    LogNote {
        /// Which run's.
        run: RunName,
        /// The sentence.
        text: String,
    },
    /// A run has ended: complete its log, remove its workspace or keep it.
    FinishRun {
        /// Which.
        run: RunName,
        /// Whether the workspace stays.
        keep_workspace: bool,
    },
    /// Every fact about this run, which has ended, is at the controller: its log may be told so.
    SettleRun(RunName),
    /// Everything of this run is at the controller: remove its log.
    ForgetRun(RunName),
    /// Install a renewed certificate chain (PEM) and use it from the next session on.
    InstallCertificate(String),
    /// Send these artifacts of a run to the controller; some may be under way.
    UploadArtifacts {
        /// Of which run.
        run: RunName,
        /// Which.
        artifacts: Vec<Artifact>,
    },
    /// The controller has an artifact of a run.
    ArtifactStored {
        /// Of which run.
        run: RunName,
        /// Which.
        hash: FileHash,
    },
    /// Log bytes of this run are durable at the controller up to here.
    LogAcknowledged {
        /// Which run's.
        run: RunName,
        /// Bytes.
        offset: u64,
    },
    /// Drained: nothing runs, everything is given back and acknowledged. The process may end.
    Exit,
    /// Tell the operator.
    Alert(String),
}

/// A signal for a whole process tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM.
    Terminate,
    /// SIGKILL.
    Kill,
}

/// A process to start.
#[derive(Debug, Clone, PartialEq)]
pub struct StepCommand {
    /// Which step.
    pub id: StepId,
    /// Whose: names the cache folder.
    pub pipeline: PipelineKey,
    /// The step's name.
    pub step_name: String,
    /// What to run.
    pub program: Program,
    /// All variables that the workflow and the run set, in order; the executor adds those that depend on the
    /// machine (`PATH HOME USER LANG TMPDIR XENE_WORKSPACE XENE_OUTPUT XENE_CACHE XENE_PAYLOAD`), which win
    /// over these where the name begins with `XENE_`.
    pub env: Vec<(String, String)>,
    /// Tasks of one context share one workspace folder.
    pub context: String,
    /// Relative to the workspace, or absolute.
    pub working_dir: Option<String>,
    /// The webhook's body, if the run has one.
    pub payload: Option<std::sync::Arc<[u8]>>,
    /// What lies in the workspace when the run begins.
    pub files: std::sync::Arc<[PipelineFile]>,
    /// Artifacts of other tasks to be laid into the workspace first.
    pub artifacts: Vec<Artifact>,
    /// True: it lives no longer than its run was bound to ([`Effect::BoundRun`]), whether the agent is there or not.
    pub exclusive: bool,
}

/// What a process runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Program {
    /// `argv[0]` with its arguments, the script's path last: `sh -e`, `bash -eo pipefail`, or the step's own.
    Script {
        /// The interpreter and its arguments.
        shell: Vec<String>,
        /// The text.
        script: String,
    },
    /// A program and its arguments, without a shell.
    Argv(Vec<String>),
    /// No process: the executor saves the files of the workspace that these patterns take.
    Save(Vec<String>),
}

/// What the machine wants done, in this order: `now` at once; then `commit` made durable; then, and only then, `then`.
///
/// "Durable before spoken" is this type: what must follow the commit travels with it.
#[derive(Debug, Default, PartialEq)]
#[must_use]
pub struct Effects {
    /// Needs no durability.
    pub now: Vec<Effect>,
    /// One atomic journal transaction; empty: nothing to write.
    pub commit: Vec<JournalChange>,
    /// Follows the commit.
    pub then: Vec<Effect>,
}

/// One change of the journal.
#[derive(Debug, Clone, PartialEq)]
pub enum JournalChange {
    /// A claim, new or changed. Rows outlive the claim: they hold the highest epoch ever seen, and the watermark.
    PutClaim(PipelineKey, ClaimRow),
    /// The run's row: intent, then started.
    PutRun(RunName, RunRow),
    /// The next fact of a run.
    PutFact(RunName, u64, RunEvent),
    /// The run is acknowledged, log included: its row and its facts go.
    DeleteRun(RunName),
    /// A spec, by hash.
    PutSpec(SpecHash, Vec<u8>),
    /// No claim and no run needs it.
    DeleteSpec(SpecHash),
    /// A due time without a run, by number, until the controller has it.
    PutSkipped(u64, SkippedSlot),
    /// The controller has all such due times below this number.
    DeleteSkipped(u64),
    /// The store that the agent speaks to.
    PutStore(StoreSeen),
    /// The host's boot that the claims were last live in.
    PutBoot(String),
    /// The name that the controller calls this agent.
    PutName(AgentName),
    /// The token of the last Welcome.
    PutToken(u64),
}

/// What the journal holds of a pipeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimRow {
    /// The highest epoch ever seen.
    pub epoch: Epoch,
    /// True while it is claimed under that epoch; false: released or lost.
    pub claimed: bool,
    /// L.
    pub autonomy: Autonomy,
    /// The highest slot known started or given away. Never falls.
    pub watermark: Timestamp,
    /// Only due times after this are its to start: earlier ones belong to another owner, or to triggers that were
    /// edited since. Never falls.
    pub slots_after: Timestamp,
    /// What to run.
    pub spec_hash: SpecHash,
    /// The revision of that spec.
    pub revision: Revision,
    /// True once a Renew of this epoch was answered: a `Forever` claim then stays live over a reboot.
    pub confirmed: bool,
    /// True: a person suspended it; its triggers do not fire.
    #[serde(default)]
    pub suspended: bool,
    /// How many runs of it go on at agents that had it before: they count for `concurrency.max`.
    #[serde(default)]
    pub elsewhere: u32,
    /// True: another spec has taken the place of this one, and is not here yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replaced: bool,
    /// True: it is to be given back once its exclusive runs have ended and starts in hand are finished; no other starts.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub releasing: bool,
}

/// What the journal holds of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRow {
    /// What it is a run of.
    pub spec: RunSpec,
    /// Under which ownership it starts.
    pub epoch: Epoch,
    /// How far it got.
    pub state: RunState,
    /// How many facts the controller has acknowledged: the first fact kept has this index.
    pub acknowledged: u64,
    /// True if a controller made it.
    pub from_controller: bool,
    /// When its record was made.
    pub created_at: Timestamp,
    /// What its tasks saved and the controller does not have yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<Artifact>,
}

/// How far a run got, durably.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RunState {
    /// Accepted; waits for its turn.
    Queued,
    /// It is about to start: after a crash from here on nobody can say whether it did.
    Intent,
    /// It started.
    Started,
    /// It ended.
    Ended,
}

/// What a journal held when it was opened.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Recovered {
    /// All claim rows.
    pub claims: BTreeMap<PipelineKey, ClaimRow>,
    /// All runs that are not acknowledged to the end.
    pub runs: BTreeMap<RunName, RunRow>,
    /// Their facts that are not acknowledged, by index.
    pub facts: BTreeMap<RunName, BTreeMap<u64, RunEvent>>,
    /// Specs by hash.
    pub specs: BTreeMap<SpecHash, Vec<u8>>,
    /// Due times without a run that the controller may not have, by number.
    pub skipped: BTreeMap<u64, SkippedSlot>,
    /// What the machines of runs that had not ended were told. Not of the journal, and of no use after a reboot.
    pub told: BTreeMap<RunName, Vec<Told>>,
    /// Until when the processes of runs may live that are bound to the lease. Not of the journal, as the above.
    pub bounds: BTreeMap<RunName, BootTime>,
    /// The store last spoken to.
    pub store: Option<StoreSeen>,
    /// The boot that the claims were last live in.
    pub boot_id: Option<String>,
    /// The agent's name.
    pub name: Option<AgentName>,
    /// The token of the last Welcome.
    pub token: Option<u64>,
    /// What the last answered renewal gave. Not of the journal, and of no use after a reboot.
    pub renewal: Option<Renewal>,
}

/// What the last answered renewal gave, for the next process of the agent within the same boot of its host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renewal {
    /// The boot.
    pub boot_id: String,
    /// When this was written down: a step of one clock against the other since voids the lease.
    pub at: Now,
    /// The token of the answer.
    pub token: Option<u64>,
    /// The lease; `None`: there is none.
    pub lease: Option<KeptLease>,
    /// The slot clock: what it showed when.
    pub clock: Option<(BootTime, Timestamp)>,
}

/// A lease that goes on in the next process, if that has the same claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptLease {
    /// When the renewal was sent.
    pub from: BootTime,
    /// Digest of the pipelines and epochs that it listed.
    pub claims: [u8; 32],
}

/// Whether a run's workspace stays.
pub fn keeps_workspace(keep: Option<KeepWorkspace>, success: bool) -> bool {
    match keep.unwrap_or(KeepWorkspace::Never) {
        KeepWorkspace::Never => false,
        KeepWorkspace::OnError => !success,
        KeepWorkspace::Always => true,
    }
}
