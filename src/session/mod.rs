//! The controller's end of the conversation with its agents: quinn on one side, the machine on the other.
//!
//! [`Listener`] takes connections; each becomes a session (`connection`, `logs`) or an enrolment (`enrol`). What an
//! agent says reaches the machine by [`Driver`], its log bytes reach [`LogSink`], and what the machine wants said goes
//! out by [`Sessions`], and so do files. Who an agent is, its certificate says ([`pki`]) and nothing else does.

use std::{
    collections::HashMap,
    fmt::Debug,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::mpsc;
use xene_agent::session::Outgoing;
use xene_schemas::{
    meta::{AgentName, RunName},
    pipeline::PipelineFile,
    wire::{
        control::ControllerMessage,
        logs::{ArtifactHeader, LogHeader},
    },
};

use crate::{
    decide::event::{Answer, Command, Event, Refusal, SessionId},
    driver::{Closed, Handle},
};

mod artifacts;
mod connection;
mod enrol;
mod files;
mod listener;
mod logs;
pub mod pki;

#[cfg(test)]
mod tests;

pub use self::{
    listener::{Listener, ListenerConfig, ListenerError},
    pki::{Pki, PkiError, Signed},
};

/// Where facts go, and who is asked to let an agent in.
pub trait Driver: Debug + Clone + Send + Sync + 'static {
    /// Tells the machine what happened; waits while it is busy.
    fn tell(&self, event: Event) -> impl Future<Output = Result<(), Closed>> + Send;

    /// Asks for something, and waits until it is durable, or refused.
    fn ask(&self, command: Command) -> impl Future<Output = Result<Result<Answer, Refusal>, Closed>> + Send;

    /// The time that the machine goes by, which does not follow a leap of the host's clock: certificates are signed and
    /// judged by it.
    fn wall(&self) -> Timestamp;
}

impl Driver for Handle {
    fn tell(&self, event: Event) -> impl Future<Output = Result<(), Closed>> + Send {
        self.tell(event)
    }

    fn ask(&self, command: Command) -> impl Future<Output = Result<Result<Answer, Refusal>, Closed>> + Send {
        self.ask(command)
    }

    fn wall(&self) -> Timestamp {
        self.wall()
    }
}

/// Whether an artifact may be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MayStore {
    /// A run of this agent names it.
    Yes,
    /// Nothing names it any more, so the agent need not keep it either.
    Unwanted,
    /// The run is another agent's, or keeps too much.
    No,
}

/// Whether a log is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Append {
    /// It is.
    Yes,
    /// Not now; the agent asks again later.
    NotYet,
    /// Never: there is no record of the run, and none will come.
    Never,
}

/// Where log bytes go. Calls for one run may overlap when an agent has just come back: they must not mix.
pub trait LogSink: Clone + Send + Sync + 'static {
    /// Whether this agent may append to this log: the run exists, is of that pipeline, and was started by this agent
    /// under that ownership.
    fn may_append(&self, agent: &AgentName, header: &LogHeader) -> impl Future<Output = Append> + Send;

    /// Whether this agent may store this artifact. Asked once the fact that names it is acknowledged.
    fn may_store(&self, agent: &AgentName, header: &ArtifactHeader) -> impl Future<Output = MayStore> + Send;

    /// Appends bytes that belong at `offset` of the run's log. What it has of them already is passed over.
    ///
    /// # Errors
    /// If `offset` is beyond what it has, or the bytes can't be written.
    fn append(&self, run: RunName, offset: u64, bytes: Bytes) -> impl Future<Output = io::Result<()>> + Send;

    /// Makes what was appended durable, and says how many bytes of the log are.
    ///
    /// # Errors
    /// If that can't be done.
    fn sync(&self, run: RunName) -> impl Future<Output = io::Result<u64>> + Send;
}

/// The sessions that stand. Cheap to clone; no call blocks.
#[derive(Debug, Clone, Default)]
pub struct Sessions(Arc<Mutex<HashMap<SessionId, Peer>>>);

/// The ways to one agent.
#[derive(Debug, Clone)]
struct Peer {
    outgoing: Outgoing<ControllerMessage>,
    files: mpsc::Sender<Vec<PipelineFile>>,
}

impl Sessions {
    fn map(&self) -> MutexGuard<'_, HashMap<SessionId, Peer>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says this to an agent; dropped if the session is gone or ending. A session whose agent does not read is ended.
    pub fn send(&self, session: SessionId, message: &ControllerMessage) {
        let outgoing = self.map().get(&session).map(|peer| peer.outgoing.clone());
        if let Some(outgoing) = outgoing
            && outgoing.send(message).is_err()
        {
            tracing::debug!(?session, "a message for a session that is ending");
        }
    }

    /// Ends a session once what was said is out; a sentence says why.
    pub fn close(&self, session: SessionId, reason: &str) {
        if let Some(peer) = self.map().get(&session) {
            peer.outgoing.close(reason);
        }
    }

    /// Sends files, one after another. An agent that asks for more than it takes is not served: it asks again.
    pub fn send_files(&self, session: SessionId, wanted: Vec<PipelineFile>) {
        if let Some(peer) = self.map().get(&session)
            && peer.files.try_send(wanted).is_err()
        {
            tracing::debug!(?session, "an agent asks for more files than it takes");
        }
    }

    fn close_all(&self, reason: &str) {
        self.map().values().for_each(|peer| peer.outgoing.close(reason));
    }

    fn insert(&self, session: SessionId, outgoing: Outgoing<ControllerMessage>) -> mpsc::Receiver<Vec<PipelineFile>> {
        let (files, wanted) = mpsc::channel(files::REQUESTS);
        self.map().insert(session, Peer { outgoing, files });
        wanted
    }

    fn remove(&self, session: SessionId) {
        self.map().remove(&session);
    }
}
