//! The agent's machine: every rule, no I/O. Claims and leases, cron, the DAG, runs, the outbox.

pub mod cron;
pub mod event;
pub mod run;
pub mod time;

use xene_schemas::meta::{AgentName, Labels};

use self::{
    event::{Effects, Event, Recovered},
    time::{BootTime, Now},
};

/// What an operator sets, and what a process draws at its start.
#[derive(Debug, Clone)]
pub struct Config {
    /// From its certificate.
    pub name: AgentName,
    /// Its own labels, with `os`, `arch`, `hostname`.
    pub labels: Labels,
    /// How many tasks it runs at once.
    pub slots: u32,
    /// Of this binary, for people.
    pub software: String,
    /// Random for each process.
    pub instance: u64,
    /// Of the host's boot.
    pub boot_id: String,
    /// Where jitter comes from.
    pub seed: u64,
}

/// The agent's machine.
#[derive(Debug)]
pub struct Agent {}

impl Agent {
    /// A machine that starts with what the journal held.
    pub fn new(_now: Now, _config: Config, _recovered: Recovered) -> (Self, Effects) {
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
}
