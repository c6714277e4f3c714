//! The controller's process: what its machine is told, and how what it wants is carried out.

use std::collections::VecDeque;

use xene::decide::{
    Config, Controller,
    desired::SourceOrigin,
    event::{Answer, Command, Effect, Effects, Event, RequestId, SessionId},
    rows::{Change, OwnerRow},
};
use xene_schemas::{
    meta::{Epoch, PipelineKey, RunName},
    phase::{Reason, RunPhase},
    pipeline::{OnAgentLost, OnAmbiguous},
    run::{Run, TriggerType},
    source::SourceKind,
    wire::control::{AgentMessage, ControllerMessage, Specs},
};

use super::{
    clock::{Instant, MILLISECOND, SECOND},
    history::{self, tail, time_of_day},
    invariants::Violation,
    network::Payload,
    world::{What, World},
};

impl World {
    pub(super) fn start_controller(&mut self) -> Result<(), Violation> {
        let node = &mut self.controller;
        if node.machine.is_some() {
            return Ok(());
        }
        node.process += 1;
        let config = self.config();
        let node = &mut self.controller;
        let (machine, fx) = Controller::new(node.clock.now(self.at), config, node.store.load());
        (node.machine, node.awake_since) = (Some(machine), self.at);
        let does = if self.history.is_kept() { history::controller_does(&fx) } else { String::new() };
        self.history.mark(self.at, "controller", || format!("starts{does}"));
        self.controller_does(fx)?;
        let wait = self.random.between(MILLISECOND, 100 * MILLISECOND);
        self.later(wait, What::Compile { process: self.controller.process });
        Ok(())
    }

    /// Something else fills the disk of the store: commits wait until there is room.
    pub(super) fn fill_disk(&mut self, outage: u64) -> Result<(), Violation> {
        if self.controller.full_until > self.at || self.controller.paused > self.at {
            return Ok(());
        }
        self.controller.full_until = self.at + outage;
        self.history.mark(self.at, "controller", || "has a full disk".into());
        self.later(outage, What::Room { process: self.controller.process });
        self.controller_takes(Event::StoreFull(true))
    }

    /// What the next process of the controller is told of itself.
    pub(super) fn config(&mut self) -> Config {
        let nonce = self.random.draw();
        Config {
            pause_margin: std::time::Duration::from_secs(self.setup.pause_margin),
            min_autonomy: std::time::Duration::from_secs(30),
            nonce,
            secret: [nonce.to_le_bytes()[0]; 32],
            recover: self.recover,
            software: String::new(),
            store_id: "store".into(),
            boot_id: "boot".into(),
            source: SourceOrigin { kind: SourceKind::Git, url: "repository".into(), branch: None, path: None },
            authority: self.authority.clone(),
            mutant: self.setup.mutant,
        }
    }

    /// The process ends, at once, and is started again.
    pub(super) fn crash_controller(&mut self) -> Result<(), Violation> {
        if self.controller.machine.is_some() {
            let wait = self.random.between(MILLISECOND, self.setup.outage * SECOND);
            self.later(wait, What::StartController);
        }
        self.stop_controller()
    }

    pub(super) fn stop_controller(&mut self) -> Result<(), Violation> {
        let node = &mut self.controller;
        if node.machine.take().is_none() {
            return Ok(());
        }
        node.process += 1;
        (node.wake, node.paused) = (Instant(u64::MAX), Instant::default());
        let kept = node.commits.lose(&mut self.random);
        node.sessions.clear();
        self.dead_sessions = self.sessions;
        self.history.mark(self.at, "controller", || format!("dies, {} changes get to the disk", kept.len()));
        self.write_store(kept)?;
        for agent in 0..self.agents.len() {
            let Some(session) = self.agents[agent].session else { continue };
            let wait = self.random.pick(&[10 * MILLISECOND, SECOND, 30 * SECOND]);
            self.later(wait, What::AgentClosed { agent, session });
        }
        Ok(())
    }

    pub(super) fn ask(&mut self, command: Command) -> Result<(), Violation> {
        if self.controller.paused > self.at {
            // Whoever asks gives up before there is an answer.
            return Ok(());
        }
        self.requests += 1;
        self.controller_takes(Event::Asked { request: RequestId(self.requests), command })
    }

    pub(super) fn compile(&mut self) -> Result<(), Violation> {
        if self.controller.paused > self.at {
            self.later(0, What::Compile { process: self.controller.process });
            return Ok(());
        }
        let desired = Box::new(self.source.desired());
        self.controller_takes(Event::Compiled(desired))?;
        if self.acting { Ok(()) } else { self.approve_prune() }
    }

    /// What a controller that was away is asked to remove at once may be much: a person looks at it.
    pub(super) fn approve_prune(&mut self) -> Result<(), Violation> {
        let commit = self.source.desired().revision.0;
        self.ask(Command::ApprovePrune { commit, by: "me".into() })
    }

    pub(super) fn controller_takes(&mut self, event: Event) -> Result<(), Violation> {
        let node = &mut self.controller;
        let Some(machine) = &mut node.machine else { return Ok(()) };
        self.outcome.events += 1;
        let stale = stale_claims(machine, &event);
        let tells = match &event {
            Event::Message { session, message: AgentMessage::Skipped(_) } => Some(*session),
            _ => None,
        };
        let said = self.history.is_kept().then(|| history::controller_hears(&event, &self.agents, &node.sessions));
        let fx = machine.handle(node.clock.now(self.at), event);
        self.history.note(self.at, "controller", || said.unwrap_or_default() + &history::controller_does(&fx));
        if let Some(session) = tells {
            self.note_told(session, &fx);
        }
        // I4: what was said under an epoch that is over changes nothing under the one that is not, but for what people
        // are told of it.
        for change in &fx.commit {
            if let Change::PutOwner(key, row) = change
                && stale.iter().any(|(of, current)| {
                    let told = (row.message.clone(), row.reason.clone());
                    let current = OwnerRow { message: told.0, reason: told.1, ..current.clone() };
                    of == key && current.epoch == row.epoch && current != *row
                })
            {
                return Violation::of("I4 a stale epoch changes no current state", format!("controller: {key}"));
            }
        }
        self.controller_does(fx)
    }

    pub(super) fn wake_controller(&mut self) -> Result<(), Violation> {
        let node = &mut self.controller;
        node.wake = Instant(u64::MAX);
        let Some(machine) = &mut node.machine else { return Ok(()) };
        self.outcome.events += 1;
        let fx = machine.handle_timeout(node.clock.now(self.at));
        self.history.note(self.at, "controller", || format!("timer{}", history::controller_does(&fx)));
        self.controller_does(fx)
    }

    pub(super) fn controller_does(&mut self, fx: Effects) -> Result<(), Violation> {
        for effect in fx.now {
            self.controller_effect(effect)?;
            if self.random.chance(self.setup.crashes.min(2)) {
                return self.crash_controller();
            }
        }
        let node = &mut self.controller;
        if let Some(machine) = &node.machine {
            node.wake = machine.next_timeout().map_or(Instant(u64::MAX), |boot| node.clock.when(boot).max(self.at));
        }
        if fx.commit.is_empty() && fx.then.is_empty() {
            return Ok(());
        }
        self.outcome.grants += fx.commit.iter().filter(|change| matches!(change, Change::PutOwner(_, row) if row.owner.is_some() && row.reason.is_none() && !row.revoking)).count() as u64;
        if fx.commit.is_empty() && node.commits.is_empty() {
            for effect in fx.then {
                self.controller_effect(effect)?;
            }
            return Ok(());
        }
        let sync = if fx.commit.is_empty() { 0 } else { self.random.between(MILLISECOND / 5, 10 * MILLISECOND) };
        let durable = (self.at + sync).max(node.full_until);
        let decided = fx.commit.into_iter().map(|change| (self.at, change)).collect();
        let (number, at) = node.commits.push(durable, decided, fx.then);
        let process = node.process;
        self.schedule(at, What::ControllerDurable { process, number });
        Ok(())
    }

    /// Changes get to the disk, each decided at its time.
    pub(super) fn write_store(&mut self, changes: Vec<(Instant, Change)>) -> Result<(), Violation> {
        let owners = self.finite_owners();
        let (notified, mut ends) = (self.notified(), Vec::new());
        for (decided, change) in changes {
            self.history.store(self.at, &change);
            match &change {
                Change::PutAgent(row) => {
                    for node in self.agents.iter_mut().filter(|node| row.revoked && node.name == row.name) {
                        node.revoked_at.get_or_insert(self.at);
                    }
                    self.notice_twin(row);
                }
                // Until the store says so itself, whoever starts the controller does.
                Change::PutController(row) if row.recovering => self.recover = false,
                _ => {}
            }
            if let Change::PutOwner(key, row) = &change {
                self.may_take(decided, &owners, key, row)?;
            }
            if let Change::PutRun(row) = &change {
                self.may_start_again(&row.run)?;
            }
            self.note_replaced(&change);
            self.may_tell(&change, &mut ends)?;
            let started = match &change {
                Change::PutRun(row) if row.run.spec.trigger.kind == TriggerType::After && row.facts == 0 => {
                    Some(row.run.clone()).filter(|run| run.spec.rerun_of.is_none())
                }
                _ => None,
            };
            self.controller.store.apply(change)?;
            if let Some(run) = started {
                let store = &self.controller.store;
                self.witness.follows(&run, |upstream| {
                    let phase = store.runs.get(&upstream).map(|row| row.run.status.phase);
                    phase.is_none_or(|phase| phase == RunPhase::Success)
                })?;
            }
        }
        self.are_told(&notified, &ends)
    }

    /// What a lost agent did is done once more only where the pipeline says that it may be, and by rule.
    fn may_start_again(&mut self, run: &Run) -> Result<(), Violation> {
        let store = &self.controller.store;
        let name = run.metadata.name;
        if store.runs.contains_key(&name) || store.retired.contains(&name) {
            return Ok(());
        }
        let spec = store.pipelines.get(&run.spec.key()).map(|row| &row.spec);
        let law = "once more only where it does no harm";
        match run.spec.trigger.by.as_deref() {
            Some("onAmbiguous: Run") if spec.is_some_and(|spec| spec.on_ambiguous != Some(OnAmbiguous::Run)) => {
                Violation::of(law, format!("{} of {}", tail(&name), run.spec.key()))
            }
            Some("onAgentLost: Retry") if spec.is_some_and(|spec| spec.on_agent_lost != Some(OnAgentLost::Retry)) => {
                Violation::of(law, format!("{} of {}", tail(&name), run.spec.key()))
            }
            Some("onAgentLost: Retry") => {
                let lost = run.spec.rerun_of.and_then(|lost| store.runs.get(&lost));
                let ended = lost.is_none_or(|lost| {
                    lost.run.status.reason == Some(Reason::AGENT_LOST) && lost.run.status.phase.is_final()
                });
                self.witness.retried(run, ended)
            }
            _ => Ok(()),
        }
    }

    pub(super) fn controller_effect(&mut self, effect: Effect) -> Result<(), Violation> {
        match effect {
            Effect::Send { session, message } => self.tell(session.0, message),
            Effect::Close { session, .. } => {
                if let Some(agent) = self.controller.sessions.get(&session.0).copied() {
                    let at = self.links[agent].end(self.at);
                    self.schedule(at, What::AgentClosed { agent, session: session.0 });
                    self.later(MILLISECOND, What::ControllerClosed { session: session.0 });
                }
                Ok(())
            }
            Effect::SendSpecs { session, hashes } => {
                let found = hashes.iter().filter_map(|hash| self.controller.store.specs.get(hash));
                let specs = found.map(|spec| spec.to_vec()).collect();
                self.tell(session.0, ControllerMessage::Specs(Specs { specs }))
            }
            Effect::Reply { result, .. } => match *result {
                Ok(Answer::Run(run)) => self.kept(run.metadata.name, 0),
                _ => Ok(()),
            },
            Effect::Deliver(delivery) => self.send_out(delivery),
            Effect::FinishRotation { newest, why } => self.finish_rotation(&newest, why),
            Effect::SendFiles { .. }
            | Effect::SignCertificate { .. }
            | Effect::SendRoots(_)
            | Effect::DeleteLogs(_)
            | Effect::Alert(_) => Ok(()),
        }
    }

    fn tell(&mut self, session: u64, message: ControllerMessage) -> Result<(), Violation> {
        if let ControllerMessage::Acknowledged(acknowledged) = &message {
            for (run, count) in &acknowledged.runs {
                self.kept(*run, *count)?;
            }
        }
        if let ControllerMessage::SkippedAcknowledged(acknowledged) = &message {
            self.kept_due_times(session, acknowledged.next)?;
        }
        if let Some(agent) = self.controller.sessions.get(&session).copied() {
            self.may_answer(agent, &message)?;
            self.post(agent, session, Payload::Down(message));
        }
        Ok(())
    }

    /// What the controller takes of the due times that an agent tells of, until it says that it has.
    fn note_told(&mut self, session: SessionId, fx: &Effects) {
        let answers = fx.now.iter().chain(&fx.then).filter_map(|effect| match effect {
            Effect::Send { message: ControllerMessage::SkippedAcknowledged(answer), .. } => Some(answer.next),
            _ => None,
        });
        let rows = fx.commit.iter().filter_map(|change| match change {
            Change::PutLedger(row) => Some((row.pipeline.clone(), row.trigger.clone(), row.slot)),
            _ => None,
        });
        let rows: Vec<_> = rows.collect();
        for next in answers {
            self.witness.told.entry((session.0, next)).or_default().push_back(rows.clone());
        }
    }

    /// I5, of due times without a run.
    fn kept_due_times(&mut self, session: u64, next: u64) -> Result<(), Violation> {
        let told = self.witness.told.get_mut(&(session, next)).and_then(VecDeque::pop_front);
        let lost = told.into_iter().flatten().find(|row| !self.controller.store.ledger.contains_key(row));
        lost.map_or(Ok(()), |(pipeline, _, slot)| {
            let what = format!("{pipeline} at {} has no row", time_of_day(slot));
            Violation::of("I5 what is acknowledged is durable", what)
        })
    }

    /// I5: what the controller acknowledges is durable by then.
    fn kept(&self, run: RunName, count: u64) -> Result<(), Violation> {
        let store = &self.controller.store;
        let kept = match store.runs.get(&run) {
            Some(row) => row.facts >= count || row.run.status.phase.is_final(),
            None => store.retired.contains(&run),
        };
        if kept || self.witness.forgotten.contains(&run) {
            return Ok(());
        }
        Violation::of("I5 what is acknowledged is durable", format!("run {}: {count} facts", tail(&run)))
    }
}

/// Pipelines of which a message speaks under an epoch that is over, with what is current.
fn stale_claims(machine: &Controller, event: &Event) -> Vec<(PipelineKey, OwnerRow)> {
    let Event::Message { message, .. } = event else { return Vec::new() };
    let stale = |key: &PipelineKey, epoch: Epoch| {
        let current = machine.owner(key)?;
        (epoch < current.epoch).then(|| (key.clone(), current.clone()))
    };
    match message {
        AgentMessage::Released(released) => stale(&released.pipeline, released.epoch).into_iter().collect(),
        AgentMessage::Report(report) => {
            report.facts.iter().filter_map(|fact| stale(&fact.pipeline, fact.epoch)).collect()
        }
        AgentMessage::Renew(renew) => {
            let claims = renew.claims.iter().flatten();
            claims.filter_map(|claim| stale(&claim.pipeline, claim.epoch)).collect()
        }
        _ => Vec::new(),
    }
}
