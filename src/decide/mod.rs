//! The controller's machine: every rule, no I/O. Reconciling, scheduling, ownership, sessions, runs.

pub mod desired;
pub mod event;
pub mod plan;
pub mod rows;

use std::time::Duration;

use xene_agent::decide::time::{BootTime, Now};
use xene_schemas::{agent::Agent, meta::AgentName};

use self::{
    event::{Effects, Event},
    rows::Loaded,
};

/// What an operator sets, and what a process draws at its start.
#[derive(Debug, Clone)]
pub struct Config {
    /// ε: the longest pause of a process between check and exec.
    pub pause_margin: Duration,
    /// The smallest L that a pipeline may ask for.
    pub min_autonomy: Duration,
    /// Random for each process; Renew names it.
    pub nonce: u64,
    /// Of this binary, for people.
    pub software: String,
}

/// The controller's machine.
#[derive(Debug)]
pub struct Controller {}

impl Controller {
    /// A machine that starts with what the store held. The effects raise the incarnation, durably, before
    /// anything is said.
    pub fn new(_now: Now, _config: Config, _loaded: Loaded) -> (Self, Effects) {
        unimplemented!()
    }

    /// Takes what happened, gives what is to be done.
    pub fn handle(&mut self, _now: Now, _event: Event) -> Effects {
        unimplemented!()
    }

    /// To be called when [`Self::next_timeout`] has come.
    pub fn handle_timeout(&mut self, _now: Now) -> Effects {
        unimplemented!()
    }

    /// When the machine wants to be asked again at the latest.
    pub fn next_timeout(&self) -> Option<BootTime> {
        unimplemented!()
    }

    /// All agents, as the API shows them, by name.
    pub fn agents(&self, _now: Now) -> Vec<Agent> {
        unimplemented!()
    }

    /// One agent, as the API shows it.
    pub fn agent(&self, _now: Now, _name: &AgentName) -> Option<Agent> {
        unimplemented!()
    }
}
