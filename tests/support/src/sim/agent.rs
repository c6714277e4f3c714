//! An agent's process: what its machine is told, and how what it wants is carried out.

use std::collections::BTreeSet;

use indexmap::IndexMap;
use xene_agent::decide::{
    Agent, Config,
    event::{Effect, Effects, Event, ExitStatus, JournalChange, Recovered, Signal, StepExit, StepId},
    mutant::Mutant,
};
use xene_schemas::{
    meta::{PipelineKey, RunName},
    pipeline::CompiledPipeline,
    wire::control::ControllerMessage,
};

use super::{
    clock::{Instant, MILLISECOND, SECOND},
    history::{self, tail, time_of_day},
    invariants::{Violation, Witness},
    network::Payload,
    node::Todo,
    store::apply_to_journal,
    world::{What, World},
};

/// What was committed before the last so many commits is on the disk though nobody syncs it.
const UNSYNCED: usize = 20;

impl World {
    pub(super) fn start_agent(&mut self, agent: usize) -> Result<(), Violation> {
        let node = &self.agents[agent];
        if node.machine.is_some() || node.forgotten || node.off_until > self.at {
            return Ok(());
        }
        self.start_process(agent)
    }

    pub(super) fn start_process(&mut self, agent: usize) -> Result<(), Violation> {
        let zone = if agent.is_multiple_of(2) { "a" } else { "b" };
        let node = &mut self.agents[agent];
        node.process += 1;
        let config = Config {
            name: node.name.clone(),
            labels: IndexMap::from([("zone".to_owned(), zone.to_owned())]),
            slots: 8,
            software: String::new(),
            instance: self.random.draw(),
            boot_id: format!("{}-{}", node.name, node.boots),
            seed: self.random.draw(),
            mutant: self.setup.mutant,
        };
        let (machine, fx) = Agent::new(node.clock.now(self.at), config, node.journal.clone());
        node.machine = Some(machine);
        let does = if self.history.is_kept() { history::agent_does(&fx) } else { String::new() };
        self.history.mark(self.at, &node.name, || format!("starts{does}"));
        self.agent_does(agent, fx)?;
        let wait = self.random.between(MILLISECOND, SECOND);
        self.later(wait, What::Dial { agent, process: self.agents[agent].process });
        Ok(())
    }

    /// The process ends, at once.
    pub(super) fn crash_agent(&mut self, agent: usize) -> Result<(), Violation> {
        let node = &mut self.agents[agent];
        if node.machine.take().is_none() {
            return Ok(());
        }
        node.process += 1;
        (node.wake, node.paused, node.starting) = (Instant(u64::MAX), Instant::default(), None);
        node.todo.clear();
        node.running.clear();
        node.bounds.clear();
        node.exclusive.clear();
        node.able.clear();
        node.slot_clock = None;
        let kept = node.commits.lose(&mut self.random);
        self.history.mark(self.at, &node.name, || format!("dies, {} changes get to the disk", kept.len()));
        if let Some(session) = self.agents[agent].session.take() {
            let wait = self.random.pick(&[10 * MILLISECOND, SECOND, 30 * SECOND]);
            self.later(wait, What::ControllerClosed { session });
        }
        self.write_journal(agent, kept)
    }

    pub(super) fn wipe(&mut self, agent: usize) -> Result<(), Violation> {
        self.crash_agent(agent)?;
        self.agents[agent].journal = Recovered::default();
        self.agents[agent].unsynced.clear();
        self.witness.wiped(agent);
        Ok(())
    }

    pub(super) fn agent_takes(&mut self, agent: usize, event: Event) -> Result<(), Violation> {
        let fx = match self.agent_decides(agent, event)? {
            Some(fx) => fx,
            None => return Ok(()),
        };
        self.agent_does(agent, fx)
    }

    pub(super) fn agent_decides(&mut self, agent: usize, event: Event) -> Result<Option<Effects>, Violation> {
        let node = &mut self.agents[agent];
        let Some(machine) = &mut node.machine else { return Ok(None) };
        self.outcome.events += 1;
        node.able.retain(|key, _| machine.may_fire(node.clock.now(self.at), key));
        let stale = stale_assignments(machine, &event);
        let said = self.history.is_kept().then(|| history::agent_hears(&event));
        let fx = machine.handle(node.clock.now(self.at), event);
        self.history.note(self.at, &node.name, || said.unwrap_or_default() + &history::agent_does(&fx));
        for change in &fx.commit {
            if let JournalChange::PutClaim(key, _) = change
                && stale.contains(key)
            {
                return Violation::of("I4 a stale epoch changes no current state", format!("{}: {key}", node.name));
            }
        }
        Ok(Some(fx))
    }

    pub(super) fn wake_agent(&mut self, agent: usize) -> Result<(), Violation> {
        let node = &mut self.agents[agent];
        node.wake = Instant(u64::MAX);
        let Some(machine) = &mut node.machine else { return Ok(()) };
        self.outcome.events += 1;
        node.able.retain(|key, _| machine.may_fire(node.clock.now(self.at), key));
        let fx = machine.handle_timeout(node.clock.now(self.at));
        self.history.note(self.at, &node.name, || format!("timer{}", history::agent_does(&fx)));
        self.agent_does(agent, fx)
    }

    pub(super) fn agent_does(&mut self, agent: usize, fx: Effects) -> Result<(), Violation> {
        self.keeps_due_times(agent, &fx)?;
        let node = &mut self.agents[agent];
        if let Some(machine) = &node.machine {
            node.wake = machine.next_timeout().map_or(Instant(u64::MAX), |boot| node.clock.when(boot).max(self.at));
        }
        // Before everything else that it was about to do, as nested calls are.
        if !fx.commit.is_empty() || !fx.then.is_empty() {
            node.todo.push_front(Todo::Commit(fx.commit, fx.then));
        }
        // In these worlds steps end with their process, so nothing is gained by what it would remember.
        let remembers = |effect: &Effect| matches!(effect, Effect::Remember { .. });
        for effect in fx.now.into_iter().filter(|effect| !remembers(effect)).rev() {
            node.todo.push_front(Todo::Effect(effect));
        }
        self.go_on(agent)?;
        self.one_may_start(agent)
    }

    /// The process does what it is about to do, until it stands still or dies.
    pub(super) fn go_on(&mut self, agent: usize) -> Result<(), Violation> {
        while self.agents[agent].paused <= self.at
            && let Some(todo) = self.agents[agent].todo.pop_front()
        {
            if self.setup.crashes > 0 && self.random.between(0, 9_999) < self.setup.crashes {
                self.crash_agent(agent)?;
                let wait = self.random.between(MILLISECOND, self.setup.outage * SECOND);
                self.later(wait, What::StartAgent { agent });
                return Ok(());
            }
            match todo {
                Todo::Effect(effect) => self.agent_effect(agent, effect)?,
                Todo::Commit(changes, then) => {
                    let node = &mut self.agents[agent];
                    if changes.is_empty() && node.commits.is_empty() {
                        node.todo.extend(then.into_iter().map(Todo::Effect));
                        continue;
                    }
                    let sync =
                        if changes.is_empty() { 0 } else { self.random.between(MILLISECOND / 5, 10 * MILLISECOND) };
                    let (number, at) = node.commits.push(self.at + sync + node.slow_disk, changes, then);
                    let process = node.process;
                    self.schedule(at, What::AgentDurable { agent, process, number });
                }
            }
        }
        Ok(())
    }

    pub(super) fn write_journal(&mut self, agent: usize, changes: Vec<JournalChange>) -> Result<(), Violation> {
        let node = &mut self.agents[agent];
        if self.setup.mutant == Some(Mutant::JournalUnsynced) {
            node.unsynced.push_back(node.journal.clone());
            if node.unsynced.len() > UNSYNCED {
                node.unsynced.pop_front();
            }
        }
        changes.into_iter().try_for_each(|change| apply_to_journal(&mut node.journal, &node.name, change))
    }

    fn agent_effect(&mut self, agent: usize, effect: Effect) -> Result<(), Violation> {
        let process = self.agents[agent].process;
        match effect {
            Effect::Send(message) => {
                if let Some(session) = self.agents[agent].session {
                    self.post(agent, session, Payload::Up(message));
                }
            }
            Effect::Disconnect => {
                if let Some(session) = self.agents[agent].session {
                    self.later(MILLISECOND, What::AgentClosed { agent, session });
                    let wait = self.random.between(MILLISECOND, SECOND);
                    self.later(wait, What::ControllerClosed { session });
                }
            }
            Effect::ConfirmIntent(run) => {
                self.witness.began.entry(run).or_insert(self.at);
                let Some(fx) = self.agent_decides(agent, Event::IntentDurable(run))? else { return Ok(()) };
                // A2: between the check and the start the process may stand still, for ε at most.
                let starts = fx.now.iter().find_map(|effect| match effect {
                    Effect::SpawnStep(command) => Some(command.pipeline.clone()),
                    _ => None,
                });
                if starts.is_some() && self.random.chance(self.setup.pauses) {
                    let pause = self.random.between(SECOND / 2, self.setup.pause_margin * SECOND);
                    let node = &mut self.agents[agent];
                    (node.paused, node.starting) = (self.at + pause, starts);
                    node.able.clear();
                    self.history
                        .note(self.at, &node.name, || format!("stands still before the start of {}", tail(&run)));
                    self.later(pause, What::Resume { agent, process });
                }
                self.agent_does(agent, fx)?;
            }
            Effect::SpawnStep(command) if self.agents[agent].is_over(self.at, &command.id.run) => {
                // A shim starts nothing whose time is over.
                self.agents[agent].running.insert(command.id.clone());
                let status = ExitStatus::StartFailed("its time is over".into());
                self.exits(agent, MILLISECOND, command.id, status);
            }
            Effect::SpawnStep(command) => {
                if command.exclusive {
                    self.is_alone(agent, &command.id.run, &command.pipeline)?;
                    self.agents[agent].exclusive.insert(command.id.run, command.pipeline.clone());
                }
                let begins = !self.witness.starts.contains_key(&command.id.run);
                self.witness.started(&command.id, agent, &command.pipeline)?;
                if begins {
                    self.was_in_effect(agent, &command.id.run)?;
                    self.has_room(agent, &command.id)?;
                }
                self.history.mark(self.at, &self.agents[agent].name, || {
                    format!("starts the run of {} that is due {}", command.pipeline, time_of_day(command.id.run.at()))
                });
                self.agents[agent].running.insert(command.id.clone());
                let code = i32::from(self.random.chance(100));
                let longest =
                    if command.exclusive && self.acting { self.setup.lasts * SECOND } else { 1_500 * MILLISECOND };
                let wait = self.random.between(20 * MILLISECOND, longest);
                self.exits(agent, wait, command.id, ExitStatus::Code(code));
            }
            Effect::SignalStep { id, signal } => {
                let wait = self.random.between(MILLISECOND, 100 * MILLISECOND);
                let number = if signal == Signal::Kill { 9 } else { 15 };
                self.exits(agent, wait, id, ExitStatus::Signal(number));
            }
            Effect::FinishRun { run, .. } => {
                let wait = self.random.between(MILLISECOND, SECOND);
                self.later(wait, What::LogDelivered { agent, process, run });
            }
            Effect::Exit => {
                self.crash_agent(agent)?;
                let outage = if self.acting { self.setup.outage } else { 5 };
                let wait = self.random.between(SECOND, outage * SECOND);
                self.later(wait, What::StartAgent { agent });
            }
            Effect::BoundRun { run, until } => _ = self.agents[agent].bounds.insert(run, until),
            // As far as the disk goes it is written at once; what counts is that the host is not booted since.
            Effect::KeepRenewal(renewal) => self.agents[agent].journal.renewal = Some(renewal),
            // Specs of these worlds have no files.
            Effect::FetchFiles { .. }
            | Effect::ForgetFiles(_)
            | Effect::UploadArtifacts { .. }
            | Effect::ArtifactStored { .. }
            | Effect::LogNote { .. }
            | Effect::Remember { .. }
            | Effect::SettleRun(_)
            | Effect::ForgetRun(_)
            | Effect::InstallCertificate(_)
            | Effect::LogAcknowledged { .. }
            | Effect::Alert(_) => {}
        }
        Ok(())
    }

    fn exits(&mut self, agent: usize, wait: u64, id: StepId, status: ExitStatus) {
        let exit = Box::new(StepExit { status, outputs: Ok(Vec::new()), leftovers: Vec::new() });
        let process = self.agents[agent].process;
        self.later(wait, What::StepExited { agent, process, id, exit });
    }

    /// I14, as far as one agent's processes go: a run counts by the spec that it runs.
    fn has_room(&self, agent: usize, id: &StepId) -> Result<(), Violation> {
        let node = &self.agents[agent];
        let concurrency = |run: &RunName| {
            let spec = &node.journal.runs.get(run)?.spec;
            let bytes = self.controller.store.specs.get(&spec.spec_hash)?;
            Some((spec.key(), CompiledPipeline::decode(bytes).ok()?.spec.concurrency))
        };
        let Some((key, own)) = concurrency(&id.run) else { return Ok(()) };
        // One that began after it was let in beside it: its own spec may allow more.
        let began = |run: &RunName| self.witness.began.get(run);
        let before = |run: &RunName| *run != id.run && began(run) <= began(&id.run);
        let running: BTreeSet<RunName> = node.running.iter().map(|id| id.run).filter(before).collect();
        let shares = |run: &&RunName| {
            concurrency(run).is_some_and(|(of, other)| {
                if own.group.is_some() { other.group == own.group } else { other.group.is_none() && of == key }
            })
        };
        Witness::has_room(own.max, running.iter().filter(shares).count(), &id.run)
    }

    /// I14: runs of an exclusive pipeline never overlap, on whatever agents they are.
    fn is_alone(&self, agent: usize, run: &RunName, pipeline: &PipelineKey) -> Result<(), Violation> {
        for (at, node) in self.agents.iter().enumerate().filter(|(at, _)| *at != agent) {
            if let Some(other) = node.exclusive_run(self.at, pipeline) {
                let what = format!("{} of {pipeline} beside {} on agent {at}", tail(run), tail(&other));
                return Violation::of("I14 exclusive runs never overlap", what);
            }
        }
        Ok(())
    }

    /// I1: at most one agent may start runs of a pipeline.
    fn one_may_start(&self, agent: usize) -> Result<(), Violation> {
        let node = &self.agents[agent];
        let Some(machine) = &node.machine else { return Ok(()) };
        for (key, row) in machine.claims() {
            if !(row.claimed || node.starting.is_some()) || !node.may_start(self.at, key) {
                continue;
            }
            let other =
                self.agents.iter().enumerate().find(|(at, other)| *at != agent && other.may_start(self.at, key));
            if let Some((_, other)) = other {
                let what = format!("{} and {} may start {key}", node.name, other.name);
                return Violation::of("I1 at most one agent may start a pipeline", what);
            }
        }
        Ok(())
    }
}

/// Pipelines of which an assignment speaks under an epoch below the highest seen.
fn stale_assignments(machine: &Agent, event: &Event) -> Vec<PipelineKey> {
    let Event::Message(ControllerMessage::Assignments(assignments)) = event else { return Vec::new() };
    let seen = |key: &PipelineKey| machine.claims().find(|(of, _)| *of == key).map(|(_, row)| row.epoch);
    let stale = assignments.set.iter().filter(|entry| seen(&entry.pipeline).is_some_and(|seen| entry.epoch < seen));
    stale.map(|entry| entry.pipeline.clone()).collect()
}
