//! What the controller keeps: rows of the store, and changes of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use indexmap::IndexMap;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use xene_agent::decide::time::BootTime;
use xene_schemas::{
    access::Role,
    controller::Pause,
    diagnostic::Diagnostic,
    duration::Duration,
    event::EventType,
    meta::{
        AgentName, Epoch, FileHash, Generation, Labels, Name, ObjectMeta, PipelineKey, Revision, RunName, SpecHash,
    },
    notifier::{Notice, NotifierSpec},
    phase::{Reason, RunPhase},
    pipeline::{Autonomy, PipelineSpec},
    run::Run,
    source::SourceStatus,
    suspension::Suspension,
    wire::control::Decision,
    workflow::WorkflowSpec,
};

/// One atomic set of changes.
pub type Batch = Vec<Change>;

/// One change of the store.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// A workflow, new or changed.
    PutWorkflow(Box<WorkflowRow>),
    /// A workflow is gone.
    DeleteWorkflow(Name),
    /// A pipeline, new or changed.
    PutPipeline(Box<PipelineRow>),
    /// A pipeline is gone.
    DeletePipeline(PipelineKey),
    /// A compiled spec, by its hash.
    PutSpec(SpecHash, Arc<[u8]>),
    /// Who owns a pipeline. Rows outlive the pipeline: epochs and watermarks never fall.
    PutOwner(PipelineKey, OwnerRow),
    /// An agent, new or changed.
    PutAgent(Box<AgentRow>),
    /// An agent is forgotten.
    DeleteAgent(AgentName),
    /// All agents that were forgotten, and until when a certificate of theirs may be valid.
    PutForgotten(BTreeMap<AgentName, Timestamp>),
    /// A run, new or changed.
    PutRun(Box<RunRow>),
    /// A run is past its retention.
    DeleteRun(RunName),
    /// Something happened; the store numbers it.
    AddEvent(NewEvent),
    /// How the source goes.
    PutSource(Box<SourceStatus>),
    /// What a file last gave; `None`: it is gone.
    PutFile(String, Option<Box<FileRow>>),
    /// A join token.
    PutJoinToken(JoinTokenRow),
    /// A join token is spent or revoked.
    DeleteJoinToken(String),
    /// An API token.
    PutApiToken(ApiTokenRow),
    /// An API token is revoked, by its id.
    DeleteApiToken(String),
    /// What became of a due time; passed over if the row [yields](LedgerRow::yields_to) to the one that is there.
    PutLedger(LedgerRow),
    /// A webhook delivery that made a run.
    PutDelivery(PipelineKey, String, RunName),
    /// The controller's own counters.
    PutController(ControllerRow),
    /// What a pipeline with `after` has still to follow; `None`: nothing.
    PutAfter(PipelineKey, Option<AfterRow>),
    /// Something is suspended by command.
    PutSuspension(SuspensionRow),
    /// It is not any more.
    DeleteSuspension(Suspendable),
    /// A notifier, new or changed.
    PutNotifier(Box<NotifierRow>),
    /// A notifier is gone, and with it how it went; what it had to deliver goes by itself.
    DeleteNotifier(Name),
    /// A message waits to be delivered.
    PutMessage(Box<MessageRow>),
    /// It waits no more.
    DeleteMessage(Name, u64, Fate),
    /// How a notifier goes.
    PutNotifierHealth(Name, NotifierHealth),
    /// What the rows say is desired is what was written: their digest begins anew.
    Redigest,
}

/// The controller's own counters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControllerRow {
    /// Random, for the life of the store.
    pub store_id: String,
    /// Unix seconds of the store's creation or restore, and above any that an agent reports.
    pub generation: u64,
    /// +1 at each start.
    pub incarnation: u64,
    /// The highest wall time ever given to an agent: slots never go back behind it.
    pub wall_high: Timestamp,
    /// True while nobody can tell which agents own what: the store was restored, or made anew under agents.
    #[serde(default)]
    pub recovering: bool,
    /// True from the restore of a backup until the recovery that follows from it has begun.
    #[serde(default)]
    pub restored: bool,
    /// When the last recovery began, by the guarded clock: of due times up to then, nobody can tell what they led to.
    #[serde(default)]
    pub recovered_at: Option<Timestamp>,
    /// True while it recovers on a person's word: agents that it does not know are let in by their certificates.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub readmits: bool,
    /// While it recovers: the longest L that agents have told of, which the store may know nothing of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub longest: Option<Duration>,
    /// Set while agents were told to go on alone for longer.
    #[serde(default)]
    pub pause: Option<Pause>,
    /// The wall clock by elapsed time, as of the last mark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<ClockRow>,
}

/// A reading of both clocks, for another process under the same boot of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockRow {
    /// Which boot.
    pub boot_id: String,
    /// When.
    pub boot: BootTime,
    /// What the wall clock said then, but for a leap that nobody confirmed.
    pub wall: Timestamp,
}

/// A workflow in effect.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkflowRow {
    /// As committed.
    pub metadata: ObjectMeta,
    /// As committed.
    pub spec: WorkflowSpec,
    /// The revision that this spec was first read from.
    pub revision: Revision,
    /// Its file.
    pub path: String,
    /// Where its document begins.
    pub line: u32,
    /// How often its spec has changed.
    pub generation: Generation,
    /// Of metadata and spec.
    pub hash: SpecHash,
    /// False if its file is broken and this is what it last gave.
    pub valid: bool,
    /// Why it is still here, if its file asks for it no more.
    pub held: Option<String>,
    /// Among how many workflows its removal was blocked, if it is.
    #[serde(default)]
    pub blocked_among: Option<u32>,
}

/// A pipeline in effect.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PipelineRow {
    /// Its key.
    pub key: PipelineKey,
    /// As committed.
    pub spec: PipelineSpec,
    /// The hash of its compiled spec; the bytes are in the table of specs.
    pub spec_hash: SpecHash,
    /// The revision that this spec was first read from.
    pub revision: Revision,
    /// True if it or its workflow is suspended.
    pub suspend: bool,
}

/// Who owns a pipeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnerRow {
    /// Nobody between two owners.
    pub owner: Option<AgentName>,
    /// Never falls.
    pub epoch: Epoch,
    /// L as granted.
    pub autonomy: Autonomy,
    /// An earlier, longer L of this epoch, which its owner may still go by.
    #[serde(default)]
    pub longer: Option<Duration>,
    /// The first slot of the owner.
    pub not_before: Timestamp,
    /// The highest slot known started or given away. Never falls.
    pub watermark: Timestamp,
    /// True if the last owner gave it back and said how far it came.
    pub clean: bool,
    /// True while it is being taken back from its owner.
    pub revoking: bool,
    /// True once the owner came back without its journal: it is never told of this epoch again, since it could start
    /// a slot twice; the claim is waited out.
    #[serde(default)]
    pub void: bool,
    /// True from a recovery until it has an owner again: an agent that nobody knows of may have a claim.
    #[serde(default)]
    pub unsure: bool,
    /// Who had it, oldest first, the owner last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holders: Vec<Holder>,
    /// When its triggers were last edited, or resumed, since it was granted: nothing that was due before is started anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edited: Option<Timestamp>,
    /// What the owner was given.
    pub spec_hash: SpecHash,
    /// The revision of that.
    pub revision: Revision,
    /// Why this agent, or why none, in a sentence.
    pub message: String,
    /// Why none, in a word.
    pub reason: Option<Reason>,
}

/// An agent that has, or had, a pipeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Which.
    pub agent: AgentName,
    /// Under which epoch.
    pub epoch: Epoch,
    /// Its first slot.
    pub since: Timestamp,
}

/// An agent that has enrolled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentRow {
    /// From its certificate.
    pub name: AgentName,
    /// What placement goes by.
    pub labels: Labels,
    /// True if a join token fixed the labels: its own words do not count.
    pub labels_fixed: bool,
    /// How many tasks it runs at once.
    pub slots: u32,
    /// Of its binary.
    pub version: String,
    /// It gives its pipelines away and gets no new ones.
    pub draining: bool,
    /// Its identity is refused for good.
    pub revoked: bool,
    /// When it was last heard, as of the last change of this row.
    pub last_seen: Option<Timestamp>,
    /// The fingerprints (SHA-256, hex) of its valid certificates, newest last.
    pub certificates: Vec<String>,
    /// The fingerprint of the authority that signed the one that it showed last; empty: nobody looked.
    #[serde(default)]
    pub authority: String,
    /// When it enrolled.
    pub enrolled_at: Timestamp,
    /// The newest token of a Welcome. They rise, so that a store that was rolled back is told from a copied agent.
    #[serde(default)]
    pub newest_token: u64,
    /// What Welcome gave it for its next Hello, oldest first: the newest that it has shown to have, and those since.
    #[serde(default)]
    pub tokens: Vec<u64>,
    /// True since a lease of it ran out in silence, until it is heard again.
    #[serde(default)]
    pub lost: bool,
    /// Why two agents are thought to have this identity, in a sentence: then none is let in.
    #[serde(default)]
    pub twin: Option<String>,
    /// A digest of what it joined by, until it is welcomed: so long its certificate may not have come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub joined_by: Option<String>,
}

impl AgentRow {
    /// One that enrols now, and has not been heard.
    pub fn new(name: AgentName, labels: Labels, enrolled_at: Timestamp) -> Self {
        Self {
            name,
            labels,
            labels_fixed: false,
            slots: 1,
            version: String::new(),
            draining: false,
            revoked: false,
            last_seen: None,
            certificates: Vec::new(),
            authority: String::new(),
            enrolled_at,
            newest_token: 0,
            tokens: Vec::new(),
            lost: false,
            twin: None,
            joined_by: None,
        }
    }
}

/// A run, and what only the controller needs to know of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRow {
    /// The record.
    pub run: Run,
    /// How many facts have been folded in.
    pub facts: u64,
    /// True if a controller made it.
    pub from_controller: bool,
    /// Who asked to end it.
    pub cancel_by: Option<String>,
    /// The webhook's body.
    pub payload: Option<Vec<u8>>,
    /// When an Unknown run is given up.
    pub give_up_at: Option<Timestamp>,
    /// True if it was under way when the store was restored: what followed from its end may have happened already.
    #[serde(default)]
    pub unsure: bool,
    /// What people decided, until the fact of it has come.
    #[serde(default)]
    pub decisions: Vec<Decision>,
    /// Of a run that repeats another: tasks that succeeded there, with what they published.
    #[serde(default)]
    pub reused: IndexMap<String, IndexMap<String, String>>,
    /// How many runs before it, one in place of the other, lost their agents.
    #[serde(default)]
    pub lost: u32,
    /// A hash of the request with an `Idempotency-Key` that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
}

/// What the index of a pipeline's runs tells of one, so that whoever counts many need not read them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunMark {
    /// The phase.
    pub phase: RunPhase,
    /// The revision that was applied when it was made.
    pub revision: Revision,
    /// When it was made, to the millisecond.
    #[serde(with = "jiff::fmt::serde::timestamp::millisecond::required")]
    pub made: Timestamp,
}

/// As much of a [`RunRow`] as filters look at. Read from a row, it skips over the rest.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct RunBrief {
    /// The record.
    pub run: BriefRun,
}

/// As much of a [`Run`].
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct BriefRun {
    /// What it is a run of.
    pub spec: BriefSpec,
    /// How it goes.
    pub status: BriefStatus,
}

/// As much of a run's spec.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct BriefSpec {
    /// The workflow.
    pub workflow: Name,
    /// The pipeline within it.
    pub pipeline: Name,
}

/// As much of a run's status.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct BriefStatus {
    /// The phase.
    pub phase: RunPhase,
    /// Who runs it.
    #[serde(default)]
    pub agent: Option<AgentName>,
}

impl RunRow {
    /// Of a run of which no fact is known.
    pub fn new(run: Run, from_controller: bool) -> Self {
        Self {
            run,
            facts: 0,
            from_controller,
            cancel_by: None,
            payload: None,
            give_up_at: None,
            unsure: false,
            decisions: Vec::new(),
            reused: IndexMap::new(),
            lost: 0,
            request: None,
        }
    }

    /// What the index tells of it.
    pub fn mark(&self) -> RunMark {
        let Run { metadata, spec, status } = &self.run;
        RunMark { phase: status.phase, revision: spec.revision.clone(), made: metadata.created_at }
    }
}

/// Successes of upstream pipelines that a pipeline with `after` has not followed yet, in the order in which they came;
/// of each pipeline the newest.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct AfterRow {
    /// The successes.
    pub arrived: Vec<Arrived>,
}

/// A success that waits to be followed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Arrived {
    /// The pipeline, of the same workflow.
    pub pipeline: Name,
    /// Its run.
    pub run: RunName,
    /// When that ended.
    pub finished_at: Timestamp,
    /// What it was given.
    pub params: IndexMap<String, String>,
}

/// What can be suspended by command.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Suspendable {
    /// What is found at the source does not take effect.
    Source,
    /// Its triggers do not fire, those of all its pipelines.
    Workflow(Name),
    /// Its triggers do not fire.
    Pipeline(PipelineKey),
}

impl fmt::Display for Suspendable {
    /// As an event's `regarding` names it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source => f.write_str("source"),
            Self::Workflow(name) => write!(f, "workflow/{name}"),
            Self::Pipeline(key) => write!(f, "pipeline/{key}"),
        }
    }
}

/// Something that a person suspended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SuspensionRow {
    /// What.
    pub what: Suspendable,
    /// Who, when, why, until when.
    pub suspension: Suspension,
}

/// A run that has ended, as far as retention needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndedRun {
    /// Its name.
    pub name: RunName,
    /// When it ended, in unix seconds.
    pub finished_at: i64,
    /// True if it ended in Success.
    pub success: bool,
    /// True if it was started for a due time.
    pub scheduled: bool,
    /// True if somebody or something ended it: that says nothing of its pipeline.
    pub cancelled: bool,
}

impl EndedRun {
    /// What retention needs of a run that has ended, now or when it says.
    pub fn new(run: &Run, now: Timestamp) -> Self {
        let status = &run.status;
        let ended_for = |reasons: &[Reason]| status.reason.as_ref().is_some_and(|reason| reasons.contains(reason));
        Self {
            name: run.metadata.name,
            finished_at: status.finished_at.unwrap_or(now).as_second(),
            success: status.phase == RunPhase::Success,
            scheduled: run.spec.trigger.is_slot(),
            cancelled: ended_for(&[Reason::CANCELLED, Reason::COALESCED, Reason::OVERLAP, Reason::PIPELINE_REMOVED]),
        }
    }
}

/// What a file last gave.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FileRow {
    /// The blob's object id, or in directory mode the content's hash.
    pub content: String,
    /// The workflows that its last good form gave: name, hash, line.
    pub workflows: Vec<(Name, SpecHash, u32)>,
    /// The notifiers that its last good form gave.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notifiers: Vec<NotifierClaim>,
    /// Workflows whose document is refused by itself now; those of them that were in effect stay so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<Name>,
    /// How many of its documents are not ours.
    pub ignored: u32,
    /// What is wrong with it now.
    pub problems: Vec<Diagnostic>,
    /// Files that travel with its workflows: they must stay in the store.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub travelling: Vec<FileHash>,
}

/// A notifier as a file declares it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NotifierClaim {
    /// Where its document begins.
    pub line: u32,
    /// As committed.
    pub metadata: ObjectMeta,
    /// As committed.
    pub spec: NotifierSpec,
}

/// A notifier in effect.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NotifierRow {
    /// As committed.
    pub metadata: ObjectMeta,
    /// As committed.
    pub spec: NotifierSpec,
    /// The revision that this spec was first read from.
    pub revision: Revision,
    /// Its file.
    pub path: String,
    /// Where its document begins.
    pub line: u32,
    /// How often its spec has changed.
    pub generation: Generation,
    /// Of metadata and spec.
    pub hash: SpecHash,
    /// False if its file is broken and this is what it last gave.
    pub valid: bool,
}

/// A message that waits to be delivered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MessageRow {
    /// Whose.
    pub notifier: Name,
    /// Its place among those of all notifiers.
    pub number: u64,
    /// What is told.
    pub notice: Notice,
}

/// How a notifier goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotifierHealth {
    /// How many messages were delivered.
    pub delivered: u64,
    /// How many were given up or dropped.
    pub lost: u64,
    /// When one was last delivered.
    pub delivered_at: Option<Timestamp>,
    /// When one last failed.
    pub failed_at: Option<Timestamp>,
    /// Why the last one failed; absent if it did not.
    pub error: Option<String>,
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fate {
    /// Its destination took it.
    Delivered,
    /// Its destination refused it, or took nothing for too long.
    GivenUp,
    /// Too many waited.
    Dropped,
    /// A newer one says all that it said, or nobody wants it any more.
    Superseded,
}

/// A join token: what is kept of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinTokenRow {
    /// Public.
    pub id: String,
    /// blake3 of the secret, hex.
    pub secret_hash: String,
    /// When it was made; absent: before this was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Timestamp>,
    /// Who made it; absent: before this was kept, or nobody did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// After this it is refused.
    pub expires_at: Timestamp,
    /// How many more agents it lets in.
    pub uses_left: u32,
    /// The labels that it fixes, if it does.
    pub labels: Option<Labels>,
    /// The name that it fixes, if it does.
    pub name: Option<AgentName>,
}

impl JoinTokenRow {
    /// True if its time is over.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at <= now
    }
}

/// An API token: what is kept of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiTokenRow {
    /// Public.
    pub id: String,
    /// Whose name what is done with it is kept under; no two tokens have the same.
    pub name: Name,
    /// blake3 of the secret, hex.
    pub secret_hash: String,
    /// What whoever shows it may do.
    pub role: Role,
    /// The workflows that it sees; `None`: all.
    pub scope: Option<BTreeSet<Name>>,
    /// When it was made.
    pub created_at: Timestamp,
    /// Who made it.
    pub created_by: String,
    /// After this it is refused.
    pub expires_at: Option<Timestamp>,
}

impl ApiTokenRow {
    /// True if its time is over.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }
}

/// What became of a due time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerRow {
    /// The pipeline.
    pub pipeline: PipelineKey,
    /// The trigger.
    pub trigger: Name,
    /// The due time; of several, the first.
    pub slot: Timestamp,
    /// Why there is no run; absent if there is one.
    pub reason: Option<Reason>,
    /// The run that it made.
    #[serde(default)]
    pub run: Option<RunName>,
    /// It stands for all due times up to here that have no row of their own.
    #[serde(default)]
    pub until: Option<Timestamp>,
    /// How many they are, if somebody counted.
    #[serde(default)]
    pub count: Option<u32>,
    /// Who says so.
    #[serde(default)]
    pub agent: Option<AgentName>,
}

impl LedgerRow {
    /// True if `known`, of the same due time, says more: a run beats every reason, and a due time that was handed on
    /// or is in doubt is told by whoever had it then.
    pub fn yields_to(&self, known: &Self) -> bool {
        let vague = |reason: &Reason| *reason == Reason::MOVING || *reason == Reason::UNKNOWN;
        self.run.is_none() && (known.run.is_some() || self.reason.as_ref().is_none_or(vague))
    }
}

/// Something that happened, before the store numbers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// When.
    pub at: Timestamp,
    /// Whether a person should look.
    pub kind: EventType,
    /// What, in a word.
    pub reason: String,
    /// What, in a sentence.
    pub message: String,
    /// About what.
    pub regarding: String,
}

/// What a store held when it was opened: the working set of the machine.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Loaded {
    /// Its counters; `None` for a new store.
    pub controller: Option<ControllerRow>,
    /// All workflows: name, and what planning needs.
    pub workflows: Vec<WorkflowRow>,
    /// All pipelines.
    pub pipelines: Vec<PipelineRow>,
    /// All owner rows, also of pipelines that are gone.
    pub owners: Vec<(PipelineKey, OwnerRow)>,
    /// All agents.
    pub agents: Vec<AgentRow>,
    /// Names of agents that were forgotten, and until when a certificate of theirs may be valid.
    pub forgotten: BTreeMap<AgentName, Timestamp>,
    /// All runs that are not final.
    pub active_runs: Vec<RunRow>,
    /// All runs that are final, by pipeline, oldest end first: what retention goes by.
    pub ended_runs: BTreeMap<PipelineKey, Vec<EndedRun>>,
    /// All join tokens.
    pub join_tokens: Vec<JoinTokenRow>,
    /// All API tokens.
    pub api_tokens: Vec<ApiTokenRow>,
    /// What pipelines with `after` have still to follow.
    pub after: Vec<(PipelineKey, AfterRow)>,
    /// What is suspended by command.
    pub suspensions: Vec<SuspensionRow>,
    /// All notifiers.
    pub notifiers: Vec<NotifierRow>,
    /// What they have to deliver, in its order.
    pub messages: Vec<MessageRow>,
    /// How they go.
    pub notifier_health: Vec<(Name, NotifierHealth)>,
    /// How the source went.
    pub source: Option<SourceStatus>,
    /// What each file last gave.
    pub files: Vec<(String, FileRow)>,
}
