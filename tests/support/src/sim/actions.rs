//! What happens to a world from outside: people, commits, power, cables, clocks.

use indexmap::IndexMap;
use xene::decide::{
    event::{Again, Command, RunOrder},
    rows::{RunRow, Suspendable},
};
use xene_agent::decide::event::Event;
use xene_schemas::{
    meta::RunName,
    pipeline::Autonomy,
    run::{RunTrigger, TaskStatus, TriggerType},
    suspension::Suspension,
    wire::control::Decision,
};

use super::{
    clock::{MILLISECOND, SECOND},
    invariants::Violation,
    setup::Action,
    world::{What, World},
};

impl World {
    /// Something happens, and something more later.
    pub(super) fn act(&mut self) -> Result<(), Violation> {
        let wait = self.random.between(SECOND / 5, self.setup.calm * SECOND);
        self.later(wait, What::Act);
        let all: u64 = self.setup.actions.iter().map(|(_, weight)| weight).sum();
        let mut at = self.random.between(0, all.saturating_sub(1));
        let chosen = self.setup.actions.iter().find(|(_, weight)| {
            let chosen = at < *weight;
            at = at.saturating_sub(*weight);
            chosen
        });
        match chosen {
            Some((action, _)) => self.perform(*action),
            None => Ok(()),
        }
    }

    fn perform(&mut self, action: Action) -> Result<(), Violation> {
        let agent = self.random.index(self.setup.agents);
        let outage = self.random.between(SECOND / 2, self.setup.outage * SECOND);
        match action {
            Action::Commit => {
                let said = self.source.commit(&self.setup, &mut self.random);
                if self.mail.changes() {
                    self.source.notifiers = self.mail.draw();
                }
                self.history.note(self.at, "source", || said);
                self.compile()
            }
            Action::Trigger => self.trigger(),
            Action::Cancel => {
                let runs: Vec<RunName> = self.witness.starts.keys().rev().take(5).copied().collect();
                if runs.is_empty() {
                    return Ok(());
                }
                let run = self.random.pick(&runs);
                self.ask(Command::CancelRun { run, by: "me".into() })
            }
            Action::Rerun => self.rerun(),
            Action::Approve => self.approve(),
            Action::Suspend => {
                let until = self.random.chance(500).then(|| self.at + self.random.between(SECOND, 60 * SECOND));
                let suspension =
                    Suspension { by: "me".into(), since: self.at.wall(), why: None, until: until.map(|at| at.wall()) };
                match self.suspendable() {
                    Some(what) => self.ask(Command::Suspend { what, suspension }),
                    None => Ok(()),
                }
            }
            Action::Resume => match self.suspendable() {
                Some(what) => self.ask(Command::Resume { what, by: "me".into() }),
                None => Ok(()),
            },
            Action::Cut => {
                self.cut(agent, outage);
                Ok(())
            }
            Action::Break => {
                self.break_session(agent, SECOND);
                Ok(())
            }
            Action::CrashAgent => {
                self.later(outage.min(5 * SECOND), What::StartAgent { agent });
                self.crash_agent(agent)
            }
            Action::Reboot => {
                self.crash_agent(agent)?;
                self.later(outage, What::StartAgent { agent });
                self.reboot(agent);
                Ok(())
            }
            Action::Wipe => {
                self.wipe(agent)?;
                self.history.note(self.at, &self.agents[agent].name, || "loses its data folder".into());
                self.later(outage, What::StartAgent { agent });
                Ok(())
            }
            Action::CrashController => self.crash_controller(),
            Action::PauseAgent => {
                self.pause_agent(agent, outage);
                Ok(())
            }
            Action::PauseController => {
                if self.controller.machine.is_some() && self.controller.paused <= self.at {
                    self.pause_controller(outage);
                    self.history.mark(self.at, "controller", || "stands still".into());
                }
                Ok(())
            }
            Action::StepClock => {
                let step = self.random.pick(&[2, 7, 30, 3600]) * SECOND as i64;
                let step = if self.random.chance(500) { step } else { -step };
                let node = &mut self.agents[agent];
                let (clock, name) = match self.random.chance(300) {
                    true => (&mut self.controller.clock, "controller"),
                    false => (&mut node.clock, node.name.as_str()),
                };
                clock.set_offset(step);
                self.history.note(self.at, name, || format!("its clock is {} s off", step / SECOND as i64));
                Ok(())
            }
            Action::Drain => self.drain(agent),
            Action::Terminate => {
                if self.agents[agent].paused > self.at {
                    return Ok(());
                }
                self.agent_takes(agent, Event::DrainRequested)
            }
            Action::Backup => {
                self.backup = Some(self.controller.store.clone());
                self.history.note(self.at, "controller", || "is copied".into());
                Ok(())
            }
            Action::Restore => self.restore(),
            Action::Copy => {
                self.copy(agent, outage);
                Ok(())
            }
            Action::FillDisk => self.fill_disk(outage),
            Action::Forget => self.forget(agent),
            Action::Revoke => self.revoke(agent),
            Action::Fence => self.power_off_and_fence(agent, outage),
            Action::Pause => {
                let lasts = self.random_pause();
                self.announce(lasts)
            }
            Action::Partition => {
                let spared = self.random.index(self.agents.len());
                for agent in (0..self.agents.len()).filter(|agent| *agent != spared) {
                    self.cut(agent, outage);
                }
                Ok(())
            }
            Action::JournalFails => {
                if self.agents[agent].paused > self.at {
                    return Ok(());
                }
                let process = self.agents[agent].process;
                self.agents[agent].able.clear();
                self.later(outage.min(10 * SECOND), What::JournalWorks { agent, process });
                self.agent_takes(agent, Event::JournalFailed)
            }
        }
    }

    /// The host of an agent that is down has a new boot.
    pub(super) fn reboot(&mut self, agent: usize) {
        let node = &mut self.agents[agent];
        node.boots += 1;
        node.clock.reboot(self.at);
        self.history.mark(self.at, &node.name, || "its host reboots".into());
        let mut unsynced = std::mem::take(&mut node.unsynced);
        if !unsynced.is_empty() {
            node.journal = unsynced.swap_remove_back(self.random.index(unsynced.len())).unwrap_or_default();
            self.history.mark(self.at, &node.name, || "its journal is what it was".into());
        }
    }

    pub(super) fn pause_agent(&mut self, agent: usize, outage: u64) {
        let node = &mut self.agents[agent];
        if node.machine.is_some() && node.paused <= self.at {
            node.paused = self.at + outage;
            node.able.clear();
            let process = node.process;
            self.history.mark(self.at, &node.name, || "stands still".into());
            self.later(outage, What::Resume { agent, process });
        }
    }

    fn trigger(&mut self) -> Result<(), Violation> {
        let known: Vec<_> = self.controller.store.pipelines.values().collect();
        if known.is_empty() {
            return Ok(());
        }
        let row = known[self.random.index(known.len())];
        let (pipeline, spec_hash) = (row.key.clone(), row.spec_hash);
        let run = RunName::new(self.at.wall(), u128::from(self.random.draw()));
        let force = self.random.chance(200);
        self.ask(Command::StartRun(RunOrder {
            pipeline,
            spec_hash,
            run,
            trigger: RunTrigger { kind: TriggerType::Manual, name: None, scheduled_time: None, by: Some("me".into()) },
            params: IndexMap::new(),
            payload: None,
            delivery: None,
            force,
        }))
    }

    /// Something that waits for approval.
    fn approve(&mut self) -> Result<(), Violation> {
        let waiting = self.waiting_for_approval();
        if waiting.is_empty() {
            return Ok(());
        }
        let (run, task) = waiting[self.random.index(waiting.len())].clone();
        let approved = self.random.chance(700);
        self.ask(Command::Approve(Decision { run, task, approved, by: "me".into() }))
    }

    /// All that waits for approval gets it.
    pub(super) fn approve_all(&mut self) -> Result<(), Violation> {
        for (run, task) in self.waiting_for_approval() {
            self.ask(Command::Approve(Decision { run, task, approved: true, by: "me".into() }))?;
        }
        Ok(())
    }

    fn waiting_for_approval(&self) -> Vec<(RunName, String)> {
        let under_way = self.controller.store.runs.values().filter(|row| !row.run.status.phase.is_final());
        let waiting = under_way.flat_map(|row| {
            let waits = |task: &TaskStatus| task.approval.as_ref().is_some_and(|approval| approval.approved.is_none());
            let tasks = row.run.status.tasks.iter().filter(move |(_, task)| waits(task));
            tasks.map(|(task, _)| (row.run.metadata.name, task.clone()))
        });
        waiting.collect()
    }

    /// Any run that is over, as it was.
    fn rerun(&mut self) -> Result<(), Violation> {
        // Of what a restored store has heard of since, it may lack the spec; then the API refuses.
        let store = &self.controller.store;
        let kept = |row: &&RunRow| store.specs.contains_key(&row.run.spec.spec_hash);
        let ended = store.runs.values().filter(|row| row.run.status.phase.is_final()).filter(kept);
        let ended: Vec<_> = ended.rev().take(5).collect();
        if ended.is_empty() {
            return Ok(());
        }
        let original = ended[self.random.index(ended.len())].clone();
        let run = RunName::new(self.at.wall(), u128::from(self.random.draw()));
        let failed = self.random.chance(300);
        let again = Again { original, run, failed, by: "me".into(), delivery: None, force: true };
        self.ask(Command::Rerun(Box::new(again)))
    }

    /// The source, or any workflow or pipeline in effect.
    fn suspendable(&mut self) -> Option<Suspendable> {
        let store = &self.controller.store;
        let workflows = store.workflows.keys().cloned().map(Suspendable::Workflow);
        let pipelines = store.pipelines.keys().cloned().map(Suspendable::Pipeline);
        let all: Vec<_> = [Suspendable::Source].into_iter().chain(workflows).chain(pipelines).collect();
        Some(all[self.random.index(all.len())].clone())
    }

    /// Cuts one direction or both; the session may break of it, noticed at each end for itself.
    pub(super) fn cut(&mut self, agent: usize, outage: u64) {
        let link = &mut self.links[agent];
        let which = self.random.index(5);
        link.up.cut |= which != 0;
        link.down.cut |= which != 1;
        let how = ["cut off from the controller's words", "cut off from the controller's ears"].get(which);
        self.history.note(self.at, &self.agents[agent].name, || (*how.unwrap_or(&"cut off")).into());
        self.later(outage, What::Heal { agent });
        if self.random.chance(600) {
            // However long the cut: an end that hears nothing gives its session up.
            self.break_session(agent, outage.min(200 * SECOND));
        }
    }

    /// Cuts both directions, and the session breaks of it.
    pub(super) fn cut_off(&mut self, agent: usize, outage: u64) {
        (self.links[agent].up.cut, self.links[agent].down.cut) = (true, true);
        self.history.mark(self.at, &self.agents[agent].name, || "is cut off".into());
        self.later(outage, What::Heal { agent });
        self.break_session(agent, SECOND);
    }

    /// Both ends of a session end within a time, each when it likes.
    pub(super) fn break_session(&mut self, agent: usize, within: u64) {
        let Some(session) = self.agents[agent].session else { return };
        let (first, second) = (self.random.between(MILLISECOND, within), self.random.between(MILLISECOND, within));
        self.later(first, What::AgentClosed { agent, session });
        self.later(second, What::ControllerClosed { session });
    }

    /// The store is lost, and its last copy is put in its place.
    fn restore(&mut self) -> Result<(), Violation> {
        let Some(backup) = self.backup.clone().filter(|_| self.controller.machine.is_some()) else { return Ok(()) };
        self.crash_controller()?;
        let lost = std::mem::replace(&mut self.controller.store, backup);
        self.mail.restored();
        self.witness.restored(lost.runs.into_keys().chain(lost.retired));
        for (key, row) in &lost.pipelines {
            self.witness.replaced.insert((key.clone(), row.spec_hash), self.at);
        }
        for node in &mut self.agents {
            let row = self.controller.store.agents.get(&node.name);
            node.drained = row.is_some_and(|row| row.draining);
            node.revoked_at = node.revoked_at.filter(|_| row.is_some_and(|row| row.revoked));
        }
        (self.recover, self.restored) = (true, true);
        self.history.note(self.at, "controller", || "has its copy restored".into());
        Ok(())
    }

    /// A person drains an agent, or takes that back.
    pub(super) fn drain(&mut self, agent: usize) -> Result<(), Violation> {
        if self.controller.machine.is_none() || self.controller.paused > self.at {
            return Ok(());
        }
        let node = &mut self.agents[agent];
        node.drained = !node.drained;
        let (name, drained) = (node.name.clone(), node.drained);
        self.history.mark(self.at, &name, || (if drained { "is drained" } else { "is undrained" }).into());
        self.ask(if drained { Command::Drain(name) } else { Command::Undrain(name) })
    }

    /// A person says that a host will not come back. Without end, a claim is freed by that word, which must be true.
    fn forget(&mut self, agent: usize) -> Result<(), Violation> {
        let left = self.agents.iter().filter(|node| !node.forgotten).count();
        let node = &self.agents[agent];
        if left < 3 || node.forgotten || self.controller.machine.is_none() || self.controller.paused > self.at {
            return Ok(());
        }
        let name = node.name.clone();
        let endless = self.controller.store.owners.values().any(|row| row.autonomy == Autonomy::Forever);
        self.agents[agent].forgotten = true;
        if endless {
            // Nor does anybody say so at once: its slot clock may have been ahead of the controller's.
            self.crash_agent(agent)?;
            let wait = self.random.between(70 * SECOND, 100 * SECOND);
            self.later(wait, What::Forget { agent });
            return Ok(());
        }
        if self.random.chance(500) {
            self.crash_agent(agent)?;
        }
        self.ask(Command::Forget(name))
    }

    /// A person lets agents go on alone for so many seconds, or takes that back.
    pub(super) fn announce(&mut self, lasts: Option<u64>) -> Result<(), Violation> {
        let by = "me".to_owned();
        self.history.mark(self.at, "controller", || match lasts {
            Some(lasts) => format!("may be away for {lasts} s"),
            None => "is not to be away any more".into(),
        });
        self.announced |= lasts.is_some();
        match lasts.map(std::time::Duration::from_secs) {
            Some(lasts) => self.ask(Command::Pause { lasts, by }),
            None => self.ask(Command::Unpause { by }),
        }
    }

    fn random_pause(&mut self) -> Option<u64> {
        self.random.chance(700).then(|| self.random.between(5, 200))
    }

    pub(super) fn pause_controller(&mut self, outage: u64) {
        self.controller.paused = self.at + outage;
        // Shorter gaps between ticks are no reason for anything.
        if outage > 6 * SECOND {
            self.controller.awake_since = self.controller.paused;
        }
    }

    /// A host is off, and a person sees that and says so. Not at once: its slot clock may have been ahead.
    pub(super) fn power_off_and_fence(&mut self, agent: usize, outage: u64) -> Result<(), Violation> {
        self.crash_agent(agent)?;
        // What it has without end it would start as soon as it is on: such a host is not switched on as it was.
        if self.agents[agent].journal.claims.values().any(|row| row.claimed && row.autonomy == Autonomy::Forever) {
            self.wipe(agent)?;
        }
        let wait = self.random.between(70 * SECOND, 100 * SECOND);
        // What is off boots when it is on again.
        self.reboot(agent);
        self.agents[agent].off_until = self.at + wait + outage;
        self.later(wait, What::Fence { agent });
        self.later(wait + outage, What::StartAgent { agent });
        Ok(())
    }

    /// A person says that the machine of an agent that is off is off.
    pub(super) fn fence(&mut self, agent: usize) -> Result<(), Violation> {
        let node = &self.agents[agent];
        if node.machine.is_some() || node.forgotten {
            return Ok(());
        }
        let name = node.name.clone();
        self.history.mark(self.at, &name, || "is fenced".into());
        self.agents[agent].fenced_at = self.at;
        self.ask(Command::Fence { agent: name, by: "me".into() })
    }

    /// A person says that a host that is gone will not come back, as soon as somebody listens.
    pub(super) fn give_up(&mut self, agent: usize) -> Result<(), Violation> {
        if self.controller.machine.is_none() || self.controller.paused > self.at {
            self.later(SECOND, What::Forget { agent });
            return Ok(());
        }
        self.ask(Command::Forget(self.agents[agent].name.clone()))
    }
}
