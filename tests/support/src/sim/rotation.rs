//! The certificate authority is replaced, and agents come by certificates of the new one.

use xene::decide::event::{Authority, Event};

use super::{
    clock::SECOND,
    invariants::Violation,
    world::{What, World},
};

impl World {
    /// A person has the authority replaced.
    pub(super) fn rotate(&mut self) -> Result<(), Violation> {
        let fingerprint = format!("after {}", self.authority.fingerprint);
        let old = std::mem::take(&mut self.authority.fingerprint);
        self.authority = Authority { fingerprint, before: Some((old, self.at.wall())) };
        self.history.mark(self.at, "controller", || "has a new authority beside the old one".into());
        self.controller_takes(Event::Authority { authority: self.authority.clone(), by: "me".into() })?;
        for agent in 0..self.agents.len() {
            self.renew_certificate(agent);
        }
        Ok(())
    }

    /// The machine wants the old one to be trusted no more.
    pub(super) fn finish_rotation(&mut self, newest: &str, why: &str) -> Result<(), Violation> {
        if self.authority.fingerprint != newest || self.authority.before.take().is_none() {
            return Ok(());
        }
        self.history.mark(self.at, "controller", || why.to_owned());
        self.controller_takes(Event::Authority { authority: self.authority.clone(), by: why.into() })
    }

    /// True if a handshake with this agent's certificate succeeds.
    pub(super) fn is_trusted(&mut self, agent: usize) -> bool {
        let node = &self.agents[agent];
        let before = self.authority.before.as_ref().map(|(fingerprint, _)| fingerprint);
        let trusted = node.authority == self.authority.fingerprint || Some(&node.authority) == before;
        if !trusted {
            self.history.mark(self.at, &node.name, || "is not let in: nobody trusts its authority any more".into());
        }
        trusted
    }

    /// It hears which authorities are trusted, and asks for a certificate if its own is not of the newest.
    pub(super) fn renew_certificate(&mut self, agent: usize) {
        let node = &self.agents[agent];
        if node.session.is_some() && node.authority != self.authority.fingerprint {
            self.later(SECOND, What::Certificate { agent, process: node.process });
        }
    }

    /// It has one, and comes by it.
    pub(super) fn takes_certificate(&mut self, agent: usize) {
        let node = &mut self.agents[agent];
        if node.session.is_none() || node.authority == self.authority.fingerprint {
            return;
        }
        node.authority.clone_from(&self.authority.fingerprint);
        self.history.mark(self.at, &node.name, || "has a certificate of the new authority".into());
        self.break_session(agent, SECOND);
    }
}
