//! What happens to a controller (facts, past tense) and what it does about it (effects, imperative).

use std::time::Duration;

use indexmap::IndexMap;
use jiff::Timestamp;
use xene_schemas::{
    meta::{AgentName, FileHash, Labels, Name, PipelineKey, Revision, RunName, SpecHash},
    notifier::{Notice, NotifierSpec},
    phase::Transport,
    run::{Run, RunTrigger},
    suspension::Suspension,
    wire::control::{AgentMessage, ControllerMessage, Decision, Hello},
};

use super::{
    desired::{Desired, Found, SourceHealth},
    rows::{ApiTokenRow, Batch, JoinTokenRow, RunRow, Suspendable},
};

/// One session of one agent; counted up for the life of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

/// Somebody waits for an answer; counted up for the life of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// The certificate authority.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Authority {
    /// SHA-256 of its certificate, hex.
    pub fingerprint: String,
    /// That of the one before, while it is trusted too, and since when both are.
    pub before: Option<(String, Timestamp)>,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The source asks for this.
    Compiled(Box<Desired>),
    /// The source asks for this, all of it was read again, and rows of the store were changed by somebody else.
    Drifted(Box<Desired>, Box<Found>),
    /// The source asks for this, and it has errors, where the operator wants all or nothing.
    Withheld(Box<Desired>),
    /// How the source goes changed.
    Source(SourceHealth),
    /// An agent proved its name and said Hello.
    SessionOpened {
        /// Its session.
        session: SessionId,
        /// From its certificate.
        agent: AgentName,
        /// SHA-256 of its certificate, hex.
        fingerprint: String,
        /// Of the authority that signed that.
        authority: String,
        /// Where it comes from; for people.
        address: String,
        /// What carries the session.
        transport: Transport,
        /// What it said.
        hello: Box<Hello>,
    },
    /// An agent said something more.
    Message {
        /// Its session.
        session: SessionId,
        /// What.
        message: AgentMessage,
    },
    /// A session ended.
    SessionClosed(SessionId),
    /// Somebody asks for something and waits.
    Asked {
        /// Who.
        request: RequestId,
        /// For what.
        command: Command,
    },
    /// The certificate authority was changed.
    Authority {
        /// To what.
        authority: Authority,
        /// Who said so.
        by: String,
    },
    /// A certificate request that the machine let pass was signed.
    CertificateIssued {
        /// Whose session gets it, once its fingerprint is durable.
        session: SessionId,
        /// For whom.
        agent: AgentName,
        /// Its SHA-256, hex.
        fingerprint: String,
        /// PEM, its own certificate first.
        chain: String,
    },
    /// The system says that the wall clock is synchronized; counts only while a leap of it is not followed.
    ClockSynchronized,
    /// The disk of the store has no room, so commits wait for some; or it has room again.
    StoreFull(bool),
    /// The store was measured.
    StoreSize {
        /// Bytes that hold something.
        used: u64,
        /// Bytes that it may come to, on the disk where it is.
        limit: u64,
    },
    /// A message of a notifier was on its way.
    Delivered {
        /// Whose.
        notifier: Name,
        /// Which.
        number: u64,
        /// What came of it.
        outcome: Outcome,
    },
}

/// What came of a message on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Its destination took it.
    Delivered,
    /// Its destination will never take it; a sentence says why.
    Refused(String),
    /// It may be taken later.
    Failed {
        /// Why, in a sentence.
        why: String,
        /// How long the destination asks to wait.
        retry_after: Option<Duration>,
    },
}

/// A message that sets out.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivery {
    /// Whose.
    pub notifier: Name,
    /// Which.
    pub number: u64,
    /// Where it goes, and how.
    pub spec: NotifierSpec,
    /// What is told.
    pub notice: Notice,
    /// Who tells it: the same for the life of the store.
    pub source: String,
    /// True if nothing happened, and somebody only tries the notifier.
    pub trial: bool,
}

/// What people and programs ask for.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Start a pipeline.
    StartRun(RunOrder),
    /// Start several pipelines, or none of them.
    StartRuns(Vec<RunOrder>),
    /// Start a run again, as it was.
    Rerun(Box<Again>),
    /// A person decides about a task that waits for approval.
    Approve(Decision),
    /// Keep triggers from firing, or commits from taking effect.
    Suspend {
        /// Which.
        what: Suspendable,
        /// Who, when, why, until when.
        suspension: Suspension,
    },
    /// The opposite.
    Resume {
        /// Which.
        what: Suspendable,
        /// Who asks.
        by: String,
    },
    /// Let the commit in effect remove what it was kept from removing.
    ApprovePrune {
        /// The commit, or how it begins.
        commit: String,
        /// Who approves.
        by: String,
    },
    /// End a run.
    CancelRun {
        /// Which.
        run: RunName,
        /// Who asks.
        by: String,
    },
    /// Let agents go on alone for so long, whatever their pipelines' autonomy.
    Pause {
        /// How long.
        lasts: Duration,
        /// Who asks.
        by: String,
    },
    /// The opposite.
    Unpause {
        /// Who asks.
        by: String,
    },
    /// The host's clock, which leapt, is right.
    ConfirmClock {
        /// Who says so.
        by: String,
    },
    /// Give an agent's pipelines away, give it no new ones.
    Drain(AgentName),
    /// The opposite.
    Undrain(AgentName),
    /// Refuse an agent's identity for good.
    Revoke(AgentName),
    /// Forget an agent that will not come back: what it owned is granted anew after W; `Forever` claims at once.
    Forget(AgentName),
    /// Give what an agent owns to others at once: its machine is off, as somebody who can tell says.
    Fence {
        /// Which.
        agent: AgentName,
        /// Who says so.
        by: String,
    },
    /// Keep a new join token.
    CreateJoinToken(JoinTokenRow),
    /// Let nobody in any more by the join token with this id.
    RevokeJoinToken(String),
    /// Keep a new API token.
    CreateApiToken(ApiTokenRow),
    /// Refuse an API token from now on.
    RevokeApiToken(Name),
    /// One of these, and whose word it is: kept as an event, if it is carried out.
    By {
        /// Who asks.
        by: String,
        /// For what.
        command: Box<Self>,
    },
    /// Let an agent in: checks and spends a token. Who asks the same again is answered the same, and spends nothing.
    Enrol {
        /// The token's id.
        id: String,
        /// blake3 of the secret that was shown, hex.
        secret_hash: String,
        /// The public key that the agent has proved to hold, hex.
        key: String,
        /// The name that the agent would like.
        name: AgentName,
        /// Its own labels.
        labels: Labels,
    },
    /// Keep the first certificate of an agent that was let in; it is handed over once that is durable.
    Certify {
        /// Whose.
        agent: AgentName,
        /// Its SHA-256, hex.
        fingerprint: String,
    },
}

impl Command {
    /// True if it is carried out even on a full disk: whoever shuts an agent out can't wait for room.
    pub fn is_urgent(&self) -> bool {
        match self {
            Self::Revoke(_) | Self::Forget(_) | Self::Fence { .. } => true,
            Self::By { command, .. } => command.is_urgent(),
            _ => false,
        }
    }
}

/// A run that is to be made of a pipeline.
#[derive(Debug, Clone, PartialEq)]
pub struct RunOrder {
    /// Of which pipeline.
    pub pipeline: PipelineKey,
    /// The spec that `params` were checked against; if another is in effect by now: [`Refusal::SpecChanged`].
    pub spec_hash: SpecHash,
    /// The run's name: random for manual runs, hashed from the delivery for webhooks.
    pub run: RunName,
    /// What starts it.
    pub trigger: RunTrigger,
    /// Checked, defaults filled in.
    pub params: IndexMap<String, String>,
    /// The webhook's body.
    pub payload: Option<Vec<u8>>,
    /// The webhook's delivery id, or the Idempotency-Key.
    pub delivery: Option<RequestKey>,
    /// Start even if suspended.
    pub force: bool,
}

/// What makes a request that comes again the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestKey {
    /// As its sender calls it.
    pub id: String,
    /// A hash of what it asks for, where another request under the same id is a mistake.
    pub request: Option<String>,
}

/// A run that is to be started again: of the same commit, with the same params, due time and payload.
#[derive(Debug, Clone, PartialEq)]
pub struct Again {
    /// The run that is repeated, which has ended.
    pub original: RunRow,
    /// The new run's name.
    pub run: RunName,
    /// True: tasks that succeeded are not run again, and count with what they published.
    pub failed: bool,
    /// Who asks.
    pub by: String,
    /// The Idempotency-Key.
    pub delivery: Option<RequestKey>,
    /// Start even if suspended.
    pub force: bool,
}

/// What came of a command.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// It is durable.
    Done,
    /// The run, as it stands: the same for a repeated delivery.
    Run(Box<Run>),
    /// The runs, in the order in which they were asked for.
    Runs(Vec<Run>),
    /// The agent may be given a certificate for this name.
    Enrolled(AgentName),
}

/// Why a command was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no such object.
    #[error("there is no {kind} named {name}")]
    NotFound {
        /// `pipeline`, `run`, `agent`.
        kind: &'static str,
        /// As asked for.
        name: String,
    },
    /// The spec changed since the params were checked.
    #[error("the pipeline changed in the meantime")]
    SpecChanged,
    /// Its triggers do not fire, and nobody insisted.
    #[error("{0} is suspended; start it anyway with --force")]
    Suspended(PipelineKey),
    /// The join token is absent, spent, expired or wrong: answered alike.
    #[error("this join token is not valid: make a new one with `xene agents token create`")]
    Token,
    /// An API token of that name is there.
    #[error("an API token named {0} exists: choose another name, or `xene token revoke {0}` first")]
    TokenNameTaken(Name),
    /// An agent of that name is enrolled.
    #[error("an agent named {0} exists; choose another --name, or `xene agents forget {0}` first")]
    NameTaken(AgentName),
    /// It answers, so its machine is not off.
    #[error(
        "agent {0} is connected, so its machine is not off: `xene agents drain {0}` moves its pipelines, but for those \
         whose journal it lost: for them stop it first; if it was switched off this minute, ask again in half a minute"
    )]
    Connected(AgentName),
    /// The run has ended.
    #[error("run {0} has ended")]
    Ended(RunName),
    /// The run has not ended, so it can't be repeated yet.
    #[error("run {0} has not ended: cancel it, or wait for its end, and then start it again")]
    NotEnded(RunName),
    /// The run ended in Success, so no task of it failed.
    #[error("run {0} ended in Success: no task of it failed; without --failed all of it is started again")]
    NothingFailed(RunName),
    /// Nothing of that name waits for approval.
    #[error("task {task} of run {run} does not wait for approval; {}", waiting(.others))]
    NotWaiting {
        /// The run.
        run: RunName,
        /// As asked for.
        task: String,
        /// What does.
        others: Vec<String>,
    },
    /// Somebody was faster, and decided otherwise.
    #[error("task {task} of run {run} was {} by {by} already", if *.approved { "approved" } else { "rejected" })]
    Decided {
        /// The run.
        run: RunName,
        /// The task.
        task: String,
        /// Who.
        by: String,
        /// What.
        approved: bool,
    },
    /// Nobody suspended it by command.
    #[error("{0} is not suspended by command; what is committed as `suspend: true` is resumed by a commit")]
    NotSuspended(String),
    /// Nothing new can be made durable.
    #[error("the controller's disk is full: it takes nothing new until there is room; what runs goes on")]
    DiskFull,
    /// There is no pause.
    #[error("the controller is not paused")]
    NotPaused,
    /// There is nothing to confirm.
    #[error("the controller's clock did not leap")]
    NoClockLeap,
    /// No removal waits for approval.
    #[error("no removal waits for approval")]
    NothingBlocked,
    /// The removal that waits for approval is another commit's.
    #[error("the removal that waits for approval is that of {0}")]
    OtherCommit(Revision),
}

/// `these do: a, b`, or that none does.
fn waiting(others: &[String]) -> String {
    if others.is_empty() { "no task of it does".to_owned() } else { format!("these do: {}", others.join(", ")) }
}

/// What to do.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "an effect is moved once, to where it is carried out")]
pub enum Effect {
    /// Say this to an agent; dropped if the session is gone.
    Send {
        /// To whom.
        session: SessionId,
        /// What.
        message: ControllerMessage,
    },
    /// End a session once what was sent is out; a sentence says why.
    Close {
        /// Which.
        session: SessionId,
        /// Why.
        reason: String,
    },
    /// Send specs by hash, from the store.
    SendSpecs {
        /// To whom.
        session: SessionId,
        /// Which.
        hashes: Vec<SpecHash>,
    },
    /// Send files of a spec, as far as they are its files, from the store.
    SendFiles {
        /// To whom.
        session: SessionId,
        /// Of which spec.
        spec: SpecHash,
        /// Which.
        hashes: Vec<FileHash>,
    },
    /// Sign this request for this name, feed `CertificateIssued` back.
    SignCertificate {
        /// To whom.
        session: SessionId,
        /// For whom.
        agent: AgentName,
        /// PEM.
        csr: String,
    },
    /// Say which authorities are trusted.
    SendRoots(SessionId),
    /// Trust this authority alone if it is the newest, and feed `Authority` back.
    FinishRotation {
        /// Its fingerprint.
        newest: String,
        /// What people are told.
        why: &'static str,
    },
    /// Answer a command.
    Reply {
        /// Whose.
        request: RequestId,
        /// What.
        result: Box<Result<Answer, Refusal>>,
    },
    /// Deliver a message, feed `Delivered` back.
    Deliver(Box<Delivery>),
    /// Remove the logs of runs past retention.
    DeleteLogs(Vec<RunName>),
    /// Tell the operator.
    Alert(String),
}

/// What the machine wants done, in this order: `now` at once; then `commit` made durable; then, and only then, `then`.
///
/// "Durable before spoken" is this type: what must follow the commit travels with it.
#[derive(Debug, Default, PartialEq)]
#[must_use]
pub struct Effects {
    /// Needs no durability: answers to renewals.
    pub now: Vec<Effect>,
    /// One atomic transaction; empty: nothing to write.
    pub commit: Batch,
    /// Follows the commit.
    pub then: Vec<Effect>,
    /// True if the commit does not wait for room on a full disk: some is kept free for it.
    pub urgent: bool,
}
