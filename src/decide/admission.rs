//! Who is let in by a Hello. Whose certificate it shows is judged first, and only then what it says of the store.
//!
//! The handshake checks that the authority signed a certificate, and the list of an agent's row whether it is one of
//! its own. A restored store may lack rows, and every store that went back lacks certificates; while it recovers, the
//! signature stands in for what it lacks. Of an agent that was forgotten nothing is left to compare with, so its name is
//! kept for as long as a certificate of it can be valid: for that time only the list counts.

use std::time::Duration;

use jiff::Timestamp;
use xene_agent::decide::time::{Now, after};
use xene_schemas::{
    event::EventType,
    meta::AgentName,
    wire::control::{Certificate, ControllerMessage, Hello, Refused},
};

use super::{
    Controller,
    agents::AgentState,
    event::{Effect, Effects, Refusal, SessionId},
    note,
    rows::{AgentRow, Change},
    twins::{Opening, twin_message},
};

/// How long an agent's certificate is valid.
pub const CERTIFICATE_LIFE: Duration = Duration::from_secs(24 * 60 * 60);
/// Certificates that are valid at once: the newest, and those that it replaces.
const CERTIFICATES: usize = 4;

impl Controller {
    /// Why this Hello gets no Welcome, if it gets none.
    pub(super) fn refusal(&mut self, now: Now, opening: &Opening, fx: &mut Effects) -> Option<Refused> {
        let Opening { agent, fingerprint, hello, .. } = opening;
        let refused =
            |reason: &str, retry: bool, message: String| Some(Refused { reason: reason.to_owned(), message, retry });
        let is_forgotten = self.is_forgotten(now, agent);
        match self.row_of(agent) {
            None if is_forgotten || !self.readmits_unknown() => {
                let message = "this controller does not know this agent: enrol it anew";
                return refused("Forgotten", false, message.to_owned());
            }
            Some(row) if row.revoked => {
                return refused("Revoked", false, "the identity of this agent was revoked".to_owned());
            }
            Some(row) if is_forgotten && !row.certificates.contains(fingerprint) => {
                let message = "this certificate is not of the agent that has this name now: enrol anew";
                return refused("Revoked", false, message.to_owned());
            }
            _ => {}
        }
        if !self.compare_store(now, agent, hello, fx) {
            let message = "it says once more that it knows a newer state of this controller's store: not believed";
            return refused("Store", true, message.to_owned());
        }
        self.readmit(now, agent, fingerprint, hello, fx);
        let row = self.row_of(agent)?;
        if !row.certificates.contains(fingerprint) {
            // What it runs goes on: it has done nothing that it should end for.
            let message = "this certificate is none that this controller knows of this agent; if that stays so, \
                           forget the agent and enrol it anew";
            return refused("Certificate", true, message.to_owned());
        }
        if hello.version == 0 {
            return refused("Version", false, "the agent's version is not one of this language".to_owned());
        }
        let why = row.twin.as_ref()?;
        refused("Duplicate", true, twin_message(agent, why))
    }

    fn row_of(&self, agent: &AgentName) -> Option<&AgentRow> {
        self.agents.get(agent).and_then(|state| state.row.as_ref())
    }

    /// Keeps the fingerprint of a certificate; it must not be handed over before that is durable.
    pub(super) fn certify(&mut self, agent: &AgentName, fingerprint: String, fx: &mut Effects) -> Result<(), Refusal> {
        let state = self.agents.get(agent).and_then(|state| state.session.as_ref());
        let shown = state.map(|session| session.fingerprint.clone());
        self.change_agent(agent, fx, |row| {
            row.certificates.push(fingerprint);
            // Who can't store new ones comes again by the one that it showed.
            let dropped = |of: &String| Some(of) != shown.as_ref();
            while row.certificates.len() > CERTIFICATES
                && let Some(oldest) = row.certificates.iter().position(dropped)
            {
                row.certificates.remove(oldest);
            }
        })
    }

    /// A certificate was signed for the agent of a session.
    pub(super) fn certificate_issued(
        &mut self,
        session: SessionId,
        agent: &AgentName,
        fingerprint: String,
        chain: String,
        fx: &mut Effects,
    ) {
        // An agent that was forgotten meanwhile has no row, and its certificate no use.
        if self.certify(agent, fingerprint, fx).is_ok() {
            let message = ControllerMessage::Certificate(Certificate { chain });
            fx.then.push(Effect::Send { session, message });
        }
    }

    /// True while a certificate that was given to an agent of this name, before that was forgotten, may be valid.
    fn is_forgotten(&self, now: Now, agent: &AgentName) -> bool {
        self.forgotten.get(agent).is_some_and(|until| *until > now.wall)
    }

    /// The name of an agent that is forgotten is kept while it may have a valid certificate.
    pub(super) fn note_forgotten(&mut self, now: Now, agent: &AgentName, fx: &mut Effects) {
        self.forgotten.retain(|_, until: &mut Timestamp| *until > now.wall);
        self.forgotten.insert(agent.clone(), after(now.wall, CERTIFICATE_LIFE));
        fx.commit.push(Change::PutForgotten(self.forgotten.clone()));
    }

    /// True while a person's word says that the store may lack agents. An agent's word is not enough for that: it would
    /// let in whom the controller has forgotten.
    fn readmits_unknown(&self) -> bool {
        self.recovering.is_some() && self.row.readmits
    }

    /// While the store may have forgotten agents or certificates, the signature of the authority is enough.
    fn readmit(&mut self, now: Now, agent: &AgentName, fingerprint: &str, hello: &Hello, fx: &mut Effects) {
        if self.recovering.is_none() || self.is_forgotten(now, agent) {
            return;
        }
        let readmits_unknown = self.readmits_unknown();
        let state = self.agents.entry(agent.clone()).or_insert_with(|| AgentState::new(None));
        if state.row.is_none() && readmits_unknown {
            state.row = Some(AgentRow::new(agent.clone(), hello.labels.clone(), now.wall));
            let message = "the recovered store did not know it; its certificate is of this authority, its labels are its own word";
            note(fx, now, EventType::Warning, "Readmitted", format!("agent/{agent}"), message.into());
        }
        let lacks = |row: &&mut AgentRow| !row.certificates.iter().any(|known| known == fingerprint);
        if let Some(row) = state.row.as_mut().filter(lacks) {
            // Who is refused as a copy gets no certificate: since then it has enrolled anew.
            row.twin = None;
            // It is there, so it is kept.
            let _ = self.certify(agent, fingerprint.to_owned(), fx);
        }
    }
}
