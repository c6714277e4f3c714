//! The control stream: claims, leases, assignments, runs.

use indexmap::IndexMap;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::messages;
use crate::{
    duration::Duration,
    meta::{Epoch, FileHash, Labels, PipelineKey, Revision, RunName, SpecHash},
    pipeline::Autonomy,
    run::{RunEvent, RunSpec, is_zero},
};

messages! {
    /// What an agent says. Tags 1 to 99.
    AgentMessage {
        /// First on every session.
        1 = Hello(Hello),
        /// The heartbeat: asks for the lease to go on.
        2 = Renew(Renew),
        /// Gives a pipeline back; repeated until the pipeline leaves the set.
        3 = Released(Released),
        /// Facts about runs.
        4 = Report(Report),
        /// Specs that it lacks.
        5 = SpecsWanted(SpecsWanted),
        /// The last delta did not fit: send the whole set.
        6 = SetWanted(SetWanted),
        /// Asks for a new certificate for the same name.
        7 = CertificateWanted(CertificateWanted),
        /// Due times that gave no run, with the reason.
        8 = Skipped(Skipped),
        /// Files of a spec that it lacks; each comes on a stream of its own ([`super::files`]).
        9 = FilesWanted(FilesWanted),
        /// Answers Ping.
        10 = Pong(Ping),
    }
}

messages! {
    /// What a controller says. Tags 101 to 199.
    ControllerMessage {
        /// Answers Hello.
        101 = Welcome(Welcome),
        /// Answers Hello with no; the session ends.
        102 = Refused(Refused),
        /// What the agent should own.
        103 = Assignments(Assignments),
        /// Answers Renew.
        104 = Renewed(Renewed),
        /// A run that the controller made.
        105 = StartRun(StartRun),
        /// Ends a run.
        106 = CancelRun(CancelRun),
        /// Facts are durable up to here.
        107 = Acknowledged(Acknowledged),
        /// Log bytes are durable up to here.
        108 = LogAcknowledged(LogAcknowledged),
        /// Specs that were wanted.
        109 = Specs(Specs),
        /// A new certificate.
        110 = Certificate(Certificate),
        /// Someone's decision on a task that waits for approval.
        111 = Decide(Decision),
        /// An artifact is durable.
        112 = ArtifactStored(ArtifactStored),
        /// Due times without a run are on record up to here.
        115 = SkippedAcknowledged(SkippedAcknowledged),
        /// Asks whether this session's agent is still there. An agent that does not know it does not answer.
        116 = Ping(Ping),
        /// Whom to trust as the controller. An agent that does not know it goes by what it has: the certificates that the
        /// controller shows lead there, too.
        117 = Roots(Roots),
    }
}

/// First on every session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// The newest version of the conversation that the agent speaks.
    pub version: u16,
    /// Of its binary, for people.
    pub software: String,
    /// Random for each agent process.
    pub instance: u64,
    /// Of the host's boot.
    pub boot_id: String,
    /// Its own, with `os`, `arch`, `hostname`.
    pub labels: Labels,
    /// How many tasks it runs at once.
    pub slots: u32,
    /// What its journal holds.
    pub claims: Vec<Claim>,
    /// Its wall clock, for the alert only.
    pub wall: Timestamp,
    /// The store it last spoke to, and the highest generation and incarnation seen of it.
    #[serde(default)]
    pub store: Option<StoreSeen>,
    /// The runs of which it still has unacknowledged facts or log bytes.
    #[serde(default)]
    pub runs: Vec<RunName>,
    /// What tells it from a copy of itself; absent: it was welcomed by nobody yet, or does not know tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<Tokens>,
}

/// What an agent was given last: a copy of it that was made before has older ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tokens {
    /// By the last Welcome. It is durable before the first Renew that follows.
    pub session: u64,
    /// By the last answered Renew; absent if the host was booted since, as that outlives a process alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewal: Option<u64>,
}

/// Whether an agent is still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ping {
    /// The answer repeats it.
    pub number: u64,
}

/// A store as an agent remembers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreSeen {
    /// Random, for the life of the store.
    pub store_id: String,
    /// Raised by restore or rebuild.
    pub generation: u64,
    /// Raised at each start of the controller.
    pub incarnation: u64,
    /// The longest L that agents may go by, as far as the controller that told it knew: for as long nobody is to take
    /// over from agents that a store has forgotten.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub longest: Option<Duration>,
}

/// One claim of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The pipeline.
    pub pipeline: PipelineKey,
    /// Under which ownership.
    pub epoch: Epoch,
    /// The highest slot known started or given away.
    pub watermark: Timestamp,
    /// True while its lease runs.
    pub live: bool,
    /// The L that the agent goes by: until it has heard of another, that one counts.
    #[serde(default)]
    pub autonomy: Option<Autonomy>,
}

/// The heartbeat.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Renew {
    /// Counts up within the session; the answer names it.
    pub seq: u64,
    /// The `nonce` of the last Welcome.
    pub nonce: u64,
    /// The seq of the last answer that came, so that the controller sees whether its answers arrive.
    pub answered: u64,
    /// Counts up when the list of claims changes.
    pub claims_version: u64,
    /// The list, unless the answer to an earlier Renew of this session has confirmed this version.
    pub claims: Option<Vec<Claim>>,
    /// How many slots are taken.
    pub busy: u32,
    /// Its wall clock, for the alert only.
    pub wall: Timestamp,
    /// The version of the assignments that it goes by; 0: none, or an agent that does not say.
    #[serde(default)]
    pub assignments: u64,
    /// The token of the last answer; absent: there was none yet, or an agent that does not know tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<u64>,
    /// True while it starts nothing, as its journal can't be written; absent: false, or an agent that does not say.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub disk_full: bool,
}

/// Gives a pipeline back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Released {
    /// The pipeline.
    pub pipeline: PipelineKey,
    /// Under which ownership it was held.
    pub epoch: Epoch,
    /// The highest slot started or given away.
    pub watermark: Timestamp,
    /// Its runs that have begun and are not acknowledged to their end.
    pub running: Vec<RunName>,
    /// True if the agent is about to stop and wants nothing new.
    #[serde(default)]
    pub draining: bool,
}

/// Facts about runs, in order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The facts.
    pub facts: Vec<RunFact>,
    /// True if of each run that it names it begins with the oldest fact that is not acknowledged: then a run that
    /// the controller does not know, and that does not begin with its first fact, ended long since.
    #[serde(default)]
    pub whole: bool,
}

/// One fact about one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunFact {
    /// The run.
    pub run: RunName,
    /// Whose it is.
    pub pipeline: PipelineKey,
    /// Under which ownership it started.
    pub epoch: Epoch,
    /// The fact's number within its run, from 0.
    pub index: u64,
    /// The fact.
    pub event: RunEvent,
}

/// Specs that the agent lacks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SpecsWanted {
    /// Their hashes.
    pub hashes: Vec<SpecHash>,
}

/// Files that the agent lacks. What is not a file of that spec, or of a spec that the agent has no use for, is not
/// sent, and not answered either.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FilesWanted {
    /// The spec whose files they are.
    pub spec: SpecHash,
    /// Their hashes.
    pub hashes: Vec<FileHash>,
}

/// The last delta did not fit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SetWanted {
    /// The version that the agent has; 0 for none.
    pub have: u64,
}

/// Asks for a new certificate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CertificateWanted {
    /// A PKCS #10 request, PEM; its names are ignored.
    pub csr: String,
}

/// Due times that gave no run; said again at each session until they are acknowledged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Skipped {
    /// The number of the first row, from 0; the others follow. Absent: the agent wants no acknowledgement.
    #[serde(default)]
    pub first: Option<u64>,
    /// One row each.
    pub rows: Vec<SkippedSlot>,
}

/// A due time that gave no run, or several in a row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SkippedSlot {
    /// The pipeline.
    pub pipeline: PipelineKey,
    /// Under which ownership.
    pub epoch: Epoch,
    /// The trigger's name.
    pub trigger: crate::meta::Name,
    /// The due time; of several, the first.
    pub slot: Timestamp,
    /// Why, in a word.
    pub reason: crate::phase::Reason,
    /// All due times up to this one, itself included, gave no run either.
    #[serde(default)]
    pub until: Option<Timestamp>,
    /// How many they are, if somebody counted.
    #[serde(default)]
    pub count: Option<u32>,
}

/// Answers Hello.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Welcome {
    /// The version of the conversation that both speak.
    pub version: u16,
    /// Of the controller's binary, for people.
    pub software: String,
    /// Which store this is.
    pub store: StoreSeen,
    /// Random for each controller process; Renew names it.
    pub nonce: u64,
    /// ε in milliseconds: how long a process may be paused between check and exec.
    pub pause_margin_ms: u64,
    /// Over which span reconnects are spread, in milliseconds.
    pub reconnect_span_ms: u64,
    /// The agent's name, from its certificate.
    pub name: crate::meta::AgentName,
    /// For the next Hello; absent: a controller that does not know tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<u64>,
}

/// Answers Hello with no.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Refused {
    /// In a word: `Revoked`, `Version`, `Duplicate`, `ClockSkew`, `Forgotten`.
    pub reason: String,
    /// In a sentence.
    pub message: String,
    /// True if trying again later may succeed.
    pub retry: bool,
}

/// What the agent should own: the whole set, or what changed since the version before.
///
/// On its own ordered stream each delta fits the one before; where it does not (`base` is not the version that
/// the agent has), the agent asks for the whole set. So the set is level-triggered, and a change costs what changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Assignments {
    /// Counts up within the session.
    pub version: u64,
    /// The version that this changes; `None`: this is the whole set.
    pub base: Option<u64>,
    /// New or changed entries.
    pub set: Vec<Assignment>,
    /// Entries that are gone.
    pub gone: Vec<PipelineKey>,
}

/// One pipeline that the agent should own, or give back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Assignment {
    /// The pipeline.
    pub pipeline: PipelineKey,
    /// Under which ownership.
    pub epoch: Epoch,
    /// L.
    pub autonomy: Autonomy,
    /// The first slot that is the agent's to start.
    pub not_before: Timestamp,
    /// What to run.
    pub spec_hash: SpecHash,
    /// The revision that this spec is in effect from.
    pub revision: Revision,
    /// True: stop starting, and answer Released.
    pub revoked: bool,
    /// True: a person suspended it; its triggers do not fire. An agent that does not know the field fires them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspended: bool,
    /// How many runs of it go on at agents that had it before: they count for `concurrency.max`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub elsewhere: u32,
}

/// Answers Renew.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Renewed {
    /// The Renew's.
    pub seq: u64,
    /// The controller's wall clock.
    pub wall: Timestamp,
    /// The version of the claims that the controller holds; older than the agent's if it needs the list again.
    pub claims_version: u64,
    /// Claims that are not the agent's any more: drop them. All others are renewed.
    pub nacks: Vec<(PipelineKey, Epoch)>,
    /// For the next Renew, and the next Hello; absent: a controller that does not know tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<u64>,
    /// Some agent was given a longer L than any that this one was told of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub longest: Option<Duration>,
}

/// A run that the controller made; repeated at each session until its first fact has come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StartRun {
    /// The run.
    pub run: RunName,
    /// For whom it is meant.
    pub epoch: Epoch,
    /// What it is a run of.
    pub spec: RunSpec,
    /// When its record was made.
    pub created_at: Timestamp,
    /// The webhook's body, for `XENE_PAYLOAD`.
    #[serde(default)]
    pub payload: Option<Vec<u8>>,
    /// More variables, for later versions.
    #[serde(default)]
    pub extra: IndexMap<String, String>,
    /// Tasks that count as succeeded, with what they published: those of the run that this one repeats.
    #[serde(default)]
    pub reused: IndexMap<String, IndexMap<String, String>>,
}

/// Ends a run; repeated at each session until its end has come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CancelRun {
    /// The run.
    pub run: RunName,
    /// Who asked.
    pub by: String,
}

/// Someone's decision on a task that waits for approval; repeated at each session until the fact of it has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// The run.
    pub run: RunName,
    /// The task; the name of a task with a matrix means all of its instances that wait.
    pub task: String,
    /// Whether it may run.
    pub approved: bool,
    /// Who decided.
    pub by: String,
}

/// Facts are durable up to here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Acknowledged {
    /// By run: how many facts the controller has. Repeated facts are acknowledged again.
    pub runs: Vec<(RunName, u64)>,
}

/// Due times without a run are durable up to here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SkippedAcknowledged {
    /// The number of the first row that the controller does not have.
    pub next: u64,
}

/// Log bytes are durable up to here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogAcknowledged {
    /// The run.
    pub run: RunName,
    /// How many bytes of its log the controller has.
    pub offset: u64,
    /// True: the controller has no record of the run any more, and wants none of its log. An agent that does not know
    /// the field goes on offering it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unwanted: bool,
}

/// Specs that were wanted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Specs {
    /// [`crate::pipeline::CompiledPipeline::encode`]d; the agent checks the hash.
    pub specs: Vec<Vec<u8>>,
}

/// An artifact is durable, or nobody has a use for it any more: the agent need not keep it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ArtifactStored {
    /// The run.
    pub run: RunName,
    /// Of the artifact's bytes.
    pub hash: FileHash,
}

/// A new certificate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Certificate {
    /// The chain, PEM, leaf first.
    pub chain: String,
}

/// The certificate authorities of the controller.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Roots {
    /// Their certificates, PEM, newest first: these, and no others. A certificate that is not of the newest is to be
    /// renewed at once.
    pub roots: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{MAX_FRAME, Message, split_frame};

    #[test]
    fn frames_read_back_and_unknown_tags_survive() {
        let message = AgentMessage::SetWanted(SetWanted { have: 7 });
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        for cut in 0..bytes.len() {
            assert!(split_frame(&bytes[..cut], MAX_FRAME).unwrap().is_none(), "{cut}");
        }
        let (frame, used) = split_frame(&bytes, MAX_FRAME).unwrap().unwrap();
        assert_eq!((used, AgentMessage::decode(frame).unwrap()), (bytes.len(), Some(message)));
        assert!(ControllerMessage::decode(frame).unwrap().is_none(), "a tag of the other direction is unknown");
        assert!(split_frame(&[0xff; 8], MAX_FRAME).is_err());
    }

    #[test]
    fn a_field_from_a_newer_peer_is_passed_over() {
        let body = serde_json::json!({"have": 1, "fromTheFuture": [1, 2, 3]});
        let body = rmp_serde::to_vec_named(&body).unwrap();
        let frame = crate::wire::Frame { tag: 6, body: &body };
        assert_eq!(AgentMessage::decode(frame).unwrap(), Some(AgentMessage::SetWanted(SetWanted { have: 1 })));
    }
}
