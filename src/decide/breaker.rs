//! Rule 10, the breaker: where most agents fall silent at once, the network is more likely gone than they are.
//!
//! Nothing is taken from a silent agent then: it may be well, and what is left of the others could hardly carry it all.
//! It ends once enough are back, or a person says of enough that they will not be. Those that are silent still get a
//! fresh wait, since they may be on their way back with the others.

use std::{collections::BTreeSet, time::Duration};

use jiff::Timestamp;
use xene_agent::decide::{mutant::Mutant, time::Now};
use xene_schemas::{
    controller::{self as shown, ControllerStatus},
    event::EventType,
    meta::{AgentName, PipelineKey},
    phase::Reason,
};

use super::{
    Controller,
    agents::AgentState,
    event::{Effect, Effects},
    note,
    ownership::Owned,
};

/// Fewer that fall silent are always replaced.
const FEWEST: usize = 3;

/// It is open: nothing is taken from agents that are silent.
#[derive(Debug)]
pub(super) struct Breaker {
    since: Timestamp,
    lost: BTreeSet<AgentName>,
}

impl AgentState {
    /// Neither forgotten nor revoked: nobody has said that it will not come back.
    fn is_expected(&self) -> bool {
        self.row.as_ref().is_some_and(|row| !row.revoked)
    }
}

impl Controller {
    /// True if nothing may be taken from this owner, though its lease has run out.
    pub(super) fn is_held(&self, owned: &Owned) -> bool {
        let Some(open) = &self.breaker else { return false };
        let Some(owner) = &owned.row.owner else { return false };
        let away = |agent: &AgentState| {
            agent.is_expected() && !agent.fenced && (agent.session.is_none() || open.lost.contains(owner))
        };
        self.agents.get(owner).is_some_and(away)
    }

    /// What this agent claims may have run out. Opens the breaker if that happens to most at once; before anything is
    /// taken from it, also for the sake of others.
    pub(super) fn count_lost(&mut self, now: Now, agent: &AgentName, fx: &mut Effects) {
        let (floor, boot) = (self.floor, now.boot);
        let silent =
            |state: &AgentState, least: Duration| boot.since(state.renewed_at.unwrap_or_default().max(floor)) >= least;
        // No wait is shorter, whatever L was when it was granted: who was heard since is not looked at claim by claim.
        let least = self.config.pause_margin / 2;
        let counts = |state: &&AgentState| {
            state.is_expected() && !state.fenced && state.expired != Some(boot) && silent(state, least)
        };
        let Some(state) = self.agents.get(agent).filter(counts) else { return };
        let expires = |owned: &&Owned| self.lease_end(owned).is_some_and(|end| end <= boot);
        let over = || state.owned.iter().filter_map(|key| self.owners.get(key)).filter(expires);
        let waits = || over().filter_map(|owned| self.wait_of(owned));
        let (Some(shortest), Some(longest)) = (waits().min(), waits().max()) else { return };
        // Its own renewals come at other moments than the others': who is silent for half the wait goes with it.
        let least = shortest / 2;
        if !silent(state, least) {
            return;
        }
        if let Some(state) = self.agents.get_mut(agent) {
            state.expired = Some(boot);
        }
        if let Some(open) = &mut self.breaker {
            open.lost.insert(agent.clone());
            return;
        }
        let expires = |key: &PipelineKey| self.owners.get(key).is_some_and(|owned| self.lease_end(owned).is_some());
        let is_lost = |state: &AgentState| {
            let expired = state.expired.is_some_and(|at| boot.since(at) <= longest);
            state.is_expected() && (expired || (silent(state, least) && state.owned.iter().any(expires)))
        };
        let lost: BTreeSet<AgentName> =
            self.agents.iter().filter(|(_, state)| is_lost(state)).map(|(name, _)| name.clone()).collect();
        if !self.are_most(&lost) || self.mutants.is(Mutant::BreakerOff) {
            return;
        }
        self.breaker = Some(Breaker { since: now.wall, lost });
        let message = self.breaker_message();
        fx.now.push(Effect::Alert(message.clone()));
        note(fx, now, EventType::Warning, "TakeoversHeld", "controller".into(), message);
    }

    /// More than half of the agents, of those that are there and those that were a wait ago.
    fn are_most(&self, lost: &BTreeSet<AgentName>) -> bool {
        let there = self.agents.iter().filter(|(name, state)| state.session.is_some() && !lost.contains(*name));
        lost.len() >= FEWEST && lost.len() > there.count()
    }

    /// The agent is heard again, or a person has said that it will not be.
    pub(super) fn count_found(&mut self, now: Now, agent: &AgentName, fx: &mut Effects) {
        if let Some(state) = self.agents.get_mut(agent) {
            state.expired = None;
        }
        if self.breaker.as_mut().is_some_and(|open| open.lost.remove(agent)) {
            self.close_breaker_if_few(now, fx);
        }
    }

    /// Closes the breaker once it is not most of them any more.
    pub(super) fn close_breaker_if_few(&mut self, now: Now, fx: &mut Effects) {
        let Some(open) = self.breaker.take() else { return };
        if self.are_most(&open.lost) {
            self.breaker = Some(open);
            return;
        }
        self.floor = now.boot;
        let still = match open.lost.len() {
            0 => "all agents are heard again".to_owned(),
            count => format!("{count} agents are silent still, and are waited for anew"),
        };
        note(fx, now, EventType::Normal, "TakeoversResumed", "controller".into(), still);
        for agent in &open.lost {
            let owned = self.agents.get(agent).map(|state| state.owned.clone()).unwrap_or_default();
            for key in &owned {
                if self.waiting.contains(key) {
                    let message = format!("{agent} is silent, and is waited for anew");
                    self.explain(key, Reason::OWNER_SILENT, message, fx);
                }
                self.arm_lease(key);
            }
        }
    }

    fn breaker_message(&self) -> String {
        let lost = self.breaker.as_ref().map_or(0, |open| open.lost.len());
        format!(
            "{lost} agents fell silent at once, more than half: nothing is taken from them; it ends when enough are \
             back, or are forgotten or fenced"
        )
    }

    /// How the controller goes, as the API shows it.
    pub fn status(&self) -> ControllerStatus {
        let breaker = self.breaker.as_ref().map(|open| shown::Breaker {
            since: open.since,
            agents: open.lost.iter().cloned().collect(),
            message: self.breaker_message(),
        });
        let (version, pause) = (self.config.software.clone(), self.row.pause.clone());
        let (store_filling_up, clock_leap) = (self.store_filling_up(), self.clock_leap());
        let (ca_rotation, unheard) = (self.rotation(), self.unheard());
        ControllerStatus { version, breaker, pause, ca_rotation, store_filling_up, clock_leap, unheard }
    }
}
