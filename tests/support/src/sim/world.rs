//! A world: one controller, several agents, what lies between them, and time. Everything from one seed.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use jiff::Timestamp;
use xene::decide::{
    Config as ControllerConfig, Controller,
    desired::SourceOrigin,
    event::{Answer, Command, Effect, Effects, Event, RequestId, SessionId},
    rows::Change,
};
use xene_agent::decide::{
    Agent, Config as AgentConfig,
    event::{
        Effect as AgentEffect, Effects as AgentEffects, Event as AgentEvent, ExitStatus, JournalChange, Recovered,
        Signal, StepExit, StepId,
    },
};
use xene_schemas::{
    meta::{Epoch, PipelineKey, RunName},
    source::SourceKind,
    wire::control::{AgentMessage, ControllerMessage, Specs},
};

use super::{
    clock::{Clock, Instant, MILLISECOND, SECOND},
    history::{self, History, tail},
    invariants::{Violation, Witness},
    network::{Link, Payload},
    node::{AgentNode, ControllerNode, Todo},
    random::Random,
    setup::Setup,
    source::Source,
    store::apply_to_journal,
};

/// Something that is going to happen.
#[derive(Debug)]
pub(super) enum What {
    Arrives { agent: usize, session: u64, payload: Box<Payload> },
    AgentClosed { agent: usize, session: u64 },
    ControllerClosed { session: u64 },
    Dial { agent: usize, process: u64 },
    AgentDurable { agent: usize, process: u64, number: u64 },
    ControllerDurable { process: u64, number: u64 },
    Resume { agent: usize, process: u64 },
    StepExited { agent: usize, process: u64, id: StepId, exit: Box<StepExit> },
    LogDelivered { agent: usize, process: u64, run: RunName },
    StartAgent { agent: usize },
    StartController,
    Compile { process: u64 },
    Heal { agent: usize },
    Act,
}

/// What came of a world.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcome {
    /// How many events its machines took.
    pub events: u64,
    /// How many runs were started.
    pub starts: u64,
    /// How many epochs were granted.
    pub grants: u64,
}

/// A world.
#[derive(Debug)]
pub struct World {
    pub(super) setup: Setup,
    pub(super) random: Random,
    pub(super) at: Instant,
    order: u64,
    queue: BTreeMap<(Instant, u64), What>,
    pub(super) controller: ControllerNode,
    pub(super) agents: Vec<AgentNode>,
    pub(super) links: Vec<Link>,
    sessions: u64,
    /// All up to this one were with a controller process that is gone.
    dead_sessions: u64,
    requests: u64,
    pub(super) source: Source,
    pub(super) witness: Witness,
    /// What happened.
    pub history: History,
    pub(super) acting: bool,
    idle: u32,
    pub(super) outcome: Outcome,
}

impl World {
    /// A world that has not begun.
    pub fn new(setup: Setup, random: Random, history: History) -> Self {
        let mut random = random;
        let mut source = Source::default();
        source.begin(&setup, &mut random);
        let mut rate = || random.pick(&[950, 970, 1000, 1000, 1030, 1050]);
        let controller = ControllerNode::new(Clock::boot(Instant::default(), rate()));
        let agents = (0..setup.agents).map(|at| {
            #[expect(clippy::unwrap_used, reason = "a letter is a name")]
            let name = char::from(b'a' + at as u8).to_string().parse().unwrap();
            AgentNode::new(name, Clock::boot(Instant::default(), rate()))
        });
        let agents: Vec<AgentNode> = agents.collect();
        Self {
            links: agents.iter().map(|_| Link::default()).collect(),
            setup,
            random,
            at: Instant(100 * SECOND),
            order: 0,
            queue: BTreeMap::new(),
            controller,
            agents,
            sessions: 0,
            dead_sessions: 0,
            requests: 0,
            source,
            witness: Witness::default(),
            history,
            acting: false,
            idle: 0,
            outcome: Outcome::default(),
        }
    }

    /// Starts the controller, lets all agents in, starts them.
    pub fn begin(&mut self) -> Result<(), Violation> {
        self.start_controller()?;
        let (id, secret_hash) = ("first".to_owned(), "secret".to_owned());
        let expires_at = Timestamp::MAX;
        let uses = u32::try_from(self.agents.len()).unwrap_or(u32::MAX);
        self.ask(Command::CreateJoinToken {
            id: id.clone(),
            secret_hash: secret_hash.clone(),
            expires_at,
            uses,
            labels: None,
            name: None,
        })?;
        for at in 0..self.agents.len() {
            let (name, labels) = (self.agents[at].name.clone(), IndexMap::new());
            self.ask(Command::Enrol { id: id.clone(), secret_hash: secret_hash.clone(), name, labels })?;
        }
        for agent in 0..self.agents.len() {
            let wait = self.random.between(0, 2 * SECOND);
            self.later(wait, What::StartAgent { agent });
        }
        Ok(())
    }

    pub(super) fn later(&mut self, wait: u64, what: What) {
        self.schedule(self.at + wait, what);
    }

    fn schedule(&mut self, at: Instant, what: What) {
        self.order += 1;
        self.queue.insert((at, self.order), what);
    }

    /// Lets everything happen that happens up to then.
    pub fn run_until(&mut self, end: Instant) -> Result<(), Violation> {
        loop {
            let next = self.queue.first_key_value().map_or(Instant(u64::MAX), |((at, _), _)| *at);
            let timer = self.agents.iter().enumerate().map(|(at, node)| (node.wake.max(node.paused), Some(at)));
            let timer = timer.chain([(self.controller.wake.max(self.controller.paused), None)]).min_by_key(|(at, _)| *at);
            match timer {
                Some((at, who)) if at < next => {
                    if at > end {
                        break;
                    }
                    self.advance(at)?;
                    match who {
                        Some(agent) => self.wake_agent(agent)?,
                        None => self.wake_controller()?,
                    }
                }
                _ => {
                    if next > end {
                        break;
                    }
                    let Some(((at, _), what)) = self.queue.pop_first() else { break };
                    self.advance(at)?;
                    self.happen(what)?;
                }
            }
        }
        self.at = end;
        Ok(())
    }

    fn advance(&mut self, at: Instant) -> Result<(), Violation> {
        self.idle = if at == self.at { self.idle + 1 } else { 0 };
        self.at = at.max(self.at);
        if self.idle > 10_000 {
            return Violation::of("a machine spins", format!("nothing ends at {at}"));
        }
        Ok(())
    }

    fn happen(&mut self, what: What) -> Result<(), Violation> {
        let paused = match &what {
            What::Arrives { agent, payload, .. } => match **payload {
                Payload::Up(_) => self.controller.paused,
                Payload::Down(_) => self.agents[*agent].paused,
            },
            What::AgentClosed { agent, .. }
            | What::Dial { agent, .. }
            | What::AgentDurable { agent, .. }
            | What::StepExited { agent, .. }
            | What::LogDelivered { agent, .. } => self.agents[*agent].paused,
            What::ControllerClosed { .. } | What::ControllerDurable { .. } | What::Compile { .. } => {
                self.controller.paused
            }
            _ => Instant::default(),
        };
        if paused > self.at {
            self.schedule(paused, what);
            return Ok(());
        }
        let current = |world: &Self, agent: usize, process: u64| world.agents[agent].process == process;
        match what {
            What::Arrives { agent, session, payload } => self.arrives(agent, session, *payload),
            What::AgentClosed { agent, session } => self.close_agents_end(agent, session),
            What::ControllerClosed { session } => self.close_controllers_end(session),
            What::Dial { agent, process } if current(self, agent, process) => self.dial(agent),
            What::AgentDurable { agent, process, number } if current(self, agent, process) => {
                while let Some((changes, then)) = self.agents[agent].commits.durable(number) {
                    self.write_journal(agent, changes)?;
                    self.agents[agent].todo.extend(then.into_iter().map(Todo::Effect));
                }
                self.go_on(agent)
            }
            What::ControllerDurable { process, number } if self.controller.process == process => {
                while let Some((changes, then)) = self.controller.commits.durable(number) {
                    self.write_store(changes)?;
                    for effect in then {
                        self.controller_effect(effect)?;
                    }
                }
                Ok(())
            }
            What::Resume { agent, process } if current(self, agent, process) => {
                self.history.note(self.at, &self.agents[agent].name, || "goes on".into());
                self.agents[agent].starting = None;
                self.go_on(agent)
            }
            What::StepExited { agent, process, id, exit } if current(self, agent, process) => {
                if self.agents[agent].running.remove(&id) {
                    self.agent_takes(agent, AgentEvent::StepExited { id, exit: *exit })?;
                }
                Ok(())
            }
            What::LogDelivered { agent, process, run } if current(self, agent, process) => {
                if self.agents[agent].session.is_none() {
                    let wait = self.random.between(SECOND, 5 * SECOND);
                    self.later(wait, What::LogDelivered { agent, process, run });
                    return Ok(());
                }
                self.agent_takes(agent, AgentEvent::LogDelivered(run))
            }
            What::StartAgent { agent } => self.start_agent(agent),
            What::StartController => self.start_controller(),
            What::Compile { process } if self.controller.process == process => self.compile(),
            What::Heal { agent } => {
                self.heal(agent);
                Ok(())
            }
            What::Act if self.acting => self.act(),
            _ => Ok(()),
        }
    }

    // Processes.

    pub(super) fn start_controller(&mut self) -> Result<(), Violation> {
        let node = &mut self.controller;
        if node.machine.is_some() {
            return Ok(());
        }
        node.process += 1;
        let config = ControllerConfig {
            pause_margin: std::time::Duration::from_secs(self.setup.pause_margin),
            min_autonomy: std::time::Duration::from_secs(30),
            nonce: self.random.draw(),
            software: String::new(),
            store_id: "store".into(),
            source: SourceOrigin { kind: SourceKind::Git, url: "repository".into(), branch: None, path: String::new() },
            mutant: self.setup.mutant,
        };
        let (machine, fx) = Controller::new(node.clock.now(self.at), config, node.store.load());
        node.machine = Some(machine);
        self.history.note(self.at, "controller", || format!("starts{}", history::controller_does(&fx)));
        self.controller_does(fx)?;
        let wait = self.random.between(MILLISECOND, 100 * MILLISECOND);
        self.later(wait, What::Compile { process: self.controller.process });
        Ok(())
    }

    pub(super) fn crash_controller(&mut self) -> Result<(), Violation> {
        let node = &mut self.controller;
        if node.machine.take().is_none() {
            return Ok(());
        }
        node.process += 1;
        (node.wake, node.paused) = (Instant(u64::MAX), Instant::default());
        let kept = node.commits.lose(&mut self.random);
        node.sessions.clear();
        self.dead_sessions = self.sessions;
        self.history.note(self.at, "controller", || format!("dies, {} changes get to the disk", kept.len()));
        self.write_store(kept)?;
        for agent in 0..self.agents.len() {
            let Some(session) = self.agents[agent].session else { continue };
            let wait = self.random.pick(&[10 * MILLISECOND, SECOND, 30 * SECOND]);
            self.later(wait, What::AgentClosed { agent, session });
        }
        let wait = self.random.between(MILLISECOND, self.setup.outage * SECOND);
        self.later(wait, What::StartController);
        Ok(())
    }

    pub(super) fn start_agent(&mut self, agent: usize) -> Result<(), Violation> {
        let zone = if agent.is_multiple_of(2) { "a" } else { "b" };
        let node = &mut self.agents[agent];
        if node.machine.is_some() || node.forgotten {
            return Ok(());
        }
        node.process += 1;
        let config = AgentConfig {
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
        self.history.note(self.at, &node.name, || format!("starts{}", history::agent_does(&fx)));
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
        let kept = node.commits.lose(&mut self.random);
        self.history.note(self.at, &node.name, || format!("dies, {} changes get to the disk", kept.len()));
        if let Some(session) = self.agents[agent].session.take() {
            let wait = self.random.pick(&[10 * MILLISECOND, SECOND, 30 * SECOND]);
            self.later(wait, What::ControllerClosed { session });
        }
        self.write_journal(agent, kept)
    }

    pub(super) fn wipe(&mut self, agent: usize) -> Result<(), Violation> {
        self.crash_agent(agent)?;
        self.agents[agent].journal = Recovered::default();
        self.witness.wiped(agent);
        Ok(())
    }

    // Sessions.

    fn dial(&mut self, agent: usize) -> Result<(), Violation> {
        if self.agents[agent].session.is_some() || self.agents[agent].machine.is_none() {
            return Ok(());
        }
        if !self.links[agent].is_whole() || self.controller.machine.is_none() {
            let wait = self.random.between(SECOND, 5 * SECOND);
            self.later(wait, What::Dial { agent, process: self.agents[agent].process });
            return Ok(());
        }
        self.sessions += 1;
        self.agents[agent].session = Some(self.sessions);
        self.agent_takes(agent, AgentEvent::Connected)
    }

    pub(super) fn post(&mut self, agent: usize, session: u64, payload: Payload) {
        let arrivals = self.links[agent].arrivals(self.at, &self.setup, &mut self.random, session, &payload);
        let [first, second] = arrivals;
        if let Some(at) = second {
            self.schedule(at, What::Arrives { agent, session, payload: Box::new(payload.clone()) });
        }
        if let Some(at) = first {
            self.schedule(at, What::Arrives { agent, session, payload: Box::new(payload) });
        }
    }

    pub(super) fn heal(&mut self, agent: usize) {
        self.history.note(self.at, &self.agents[agent].name, || "is within reach".into());
        for (session, payload) in self.links[agent].heal() {
            self.post(agent, session, payload);
        }
    }

    fn arrives(&mut self, agent: usize, session: u64, payload: Payload) -> Result<(), Violation> {
        match payload {
            Payload::Down(message) if self.agents[agent].session == Some(session) => {
                let refused = matches!(&message, ControllerMessage::Refused(refused) if !refused.retry);
                self.agent_takes(agent, AgentEvent::Message(message))?;
                if refused {
                    self.crash_agent(agent)?;
                    let wait = self.random.between(10 * SECOND, 60 * SECOND);
                    self.later(wait, What::StartAgent { agent });
                }
                Ok(())
            }
            Payload::Up(message) if self.controller.machine.is_some() && session > self.dead_sessions => {
                let open = self.controller.sessions.contains_key(&session);
                match message {
                    AgentMessage::Hello(hello) if !open => {
                        self.controller.sessions.insert(session, agent);
                        let (name, id) = (self.agents[agent].name.clone(), SessionId(session));
                        let (fingerprint, address) = (String::new(), String::new());
                        let hello = Box::new(hello);
                        self.controller_takes(Event::SessionOpened { session: id, agent: name, fingerprint, address, hello })
                    }
                    message if open => self.controller_takes(Event::Message { session: SessionId(session), message }),
                    _ => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    pub(super) fn close_agents_end(&mut self, agent: usize, session: u64) -> Result<(), Violation> {
        if self.agents[agent].session != Some(session) {
            return Ok(());
        }
        self.agents[agent].session = None;
        self.agent_takes(agent, AgentEvent::Disconnected)?;
        let wait = self.random.between(100 * MILLISECOND, 5 * SECOND);
        self.later(wait, What::Dial { agent, process: self.agents[agent].process });
        Ok(())
    }

    pub(super) fn close_controllers_end(&mut self, session: u64) -> Result<(), Violation> {
        if self.controller.sessions.remove(&session).is_none() {
            return Ok(());
        }
        self.controller_takes(Event::SessionClosed(SessionId(session)))
    }

    // The controller.

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
        self.controller_takes(Event::Compiled(desired))
    }

    fn controller_takes(&mut self, event: Event) -> Result<(), Violation> {
        let node = &mut self.controller;
        let Some(machine) = &mut node.machine else { return Ok(()) };
        self.outcome.events += 1;
        let stale = stale_claims(machine, &event);
        let said = self.history.is_kept().then(|| history::controller_hears(&event, &self.agents, &node.sessions));
        let fx = machine.handle(node.clock.now(self.at), event);
        self.history.note(self.at, "controller", || said.unwrap_or_default() + &history::controller_does(&fx));
        // I4: what was said under an epoch that is over changes nobody's ownership.
        for change in &fx.commit {
            if let Change::PutOwner(key, _) = change
                && stale.contains(key)
            {
                return Violation::of("I4 a stale epoch changes no current state", format!("controller: {key}"));
            }
        }
        self.controller_does(fx)
    }

    fn wake_controller(&mut self) -> Result<(), Violation> {
        let node = &mut self.controller;
        node.wake = Instant(u64::MAX);
        let Some(machine) = &mut node.machine else { return Ok(()) };
        self.outcome.events += 1;
        let fx = machine.handle_timeout(node.clock.now(self.at));
        self.history.note(self.at, "controller", || format!("timer{}", history::controller_does(&fx)));
        self.controller_does(fx)
    }

    fn controller_does(&mut self, fx: Effects) -> Result<(), Violation> {
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
        let (number, at) = node.commits.push(self.at + sync, fx.commit, fx.then);
        let process = node.process;
        self.schedule(at, What::ControllerDurable { process, number });
        Ok(())
    }

    fn write_store(&mut self, changes: Vec<Change>) -> Result<(), Violation> {
        changes.into_iter().try_for_each(|change| self.controller.store.apply(change))
    }

    fn controller_effect(&mut self, effect: Effect) -> Result<(), Violation> {
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
            Effect::SignCertificate { .. } | Effect::DeleteLogs(_) | Effect::Alert(_) => Ok(()),
        }
    }

    fn tell(&mut self, session: u64, message: ControllerMessage) -> Result<(), Violation> {
        if let ControllerMessage::Acknowledged(acknowledged) = &message {
            for (run, count) in &acknowledged.runs {
                self.kept(*run, *count)?;
            }
        }
        if let Some(agent) = self.controller.sessions.get(&session).copied() {
            self.post(agent, session, Payload::Down(message));
        }
        Ok(())
    }

    /// I5: what the controller acknowledges is durable by then.
    fn kept(&self, run: RunName, count: u64) -> Result<(), Violation> {
        let store = &self.controller.store;
        let kept = match store.runs.get(&run) {
            Some(row) => row.facts >= count || row.run.status.phase.is_final(),
            None => store.retired.contains(&run),
        };
        if kept {
            return Ok(());
        }
        Violation::of("I5 what is acknowledged is durable", format!("run {}: {count} facts", tail(&run)))
    }

    // An agent.

    pub(super) fn agent_takes(&mut self, agent: usize, event: AgentEvent) -> Result<(), Violation> {
        let fx = match self.agent_decides(agent, event)? {
            Some(fx) => fx,
            None => return Ok(()),
        };
        self.agent_does(agent, fx)
    }

    fn agent_decides(&mut self, agent: usize, event: AgentEvent) -> Result<Option<AgentEffects>, Violation> {
        let node = &mut self.agents[agent];
        let Some(machine) = &mut node.machine else { return Ok(None) };
        self.outcome.events += 1;
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

    fn wake_agent(&mut self, agent: usize) -> Result<(), Violation> {
        let node = &mut self.agents[agent];
        node.wake = Instant(u64::MAX);
        let Some(machine) = &mut node.machine else { return Ok(()) };
        self.outcome.events += 1;
        let fx = machine.handle_timeout(node.clock.now(self.at));
        self.history.note(self.at, &node.name, || format!("timer{}", history::agent_does(&fx)));
        self.agent_does(agent, fx)
    }

    fn agent_does(&mut self, agent: usize, fx: AgentEffects) -> Result<(), Violation> {
        let node = &mut self.agents[agent];
        if let Some(machine) = &node.machine {
            node.wake = machine.next_timeout().map_or(Instant(u64::MAX), |boot| node.clock.when(boot).max(self.at));
        }
        // Before everything else that it was about to do, as nested calls are.
        if !fx.commit.is_empty() || !fx.then.is_empty() {
            node.todo.push_front(Todo::Commit(fx.commit, fx.then));
        }
        for effect in fx.now.into_iter().rev() {
            node.todo.push_front(Todo::Effect(effect));
        }
        self.go_on(agent)?;
        self.one_may_start(agent)
    }

    /// The process does what it is about to do, until it stands still or dies.
    fn go_on(&mut self, agent: usize) -> Result<(), Violation> {
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
                    let sync = if changes.is_empty() { 0 } else { self.random.between(MILLISECOND / 5, 10 * MILLISECOND) };
                    let (number, at) = node.commits.push(self.at + sync, changes, then);
                    let process = node.process;
                    self.schedule(at, What::AgentDurable { agent, process, number });
                }
            }
        }
        Ok(())
    }

    fn write_journal(&mut self, agent: usize, changes: Vec<JournalChange>) -> Result<(), Violation> {
        let node = &mut self.agents[agent];
        changes.into_iter().try_for_each(|change| apply_to_journal(&mut node.journal, &node.name, change))
    }

    fn agent_effect(&mut self, agent: usize, effect: AgentEffect) -> Result<(), Violation> {
        let process = self.agents[agent].process;
        match effect {
            AgentEffect::Send(message) => {
                if let Some(session) = self.agents[agent].session {
                    self.post(agent, session, Payload::Up(message));
                }
            }
            AgentEffect::Disconnect => {
                if let Some(session) = self.agents[agent].session {
                    self.later(MILLISECOND, What::AgentClosed { agent, session });
                    let wait = self.random.between(MILLISECOND, SECOND);
                    self.later(wait, What::ControllerClosed { session });
                }
            }
            AgentEffect::ConfirmIntent(run) => {
                let Some(fx) = self.agent_decides(agent, AgentEvent::IntentDurable(run))? else { return Ok(()) };
                // A2: between the check and the start the process may stand still, for ε at most.
                let starts = fx.now.iter().find_map(|effect| match effect {
                    AgentEffect::SpawnStep(command) => Some(command.pipeline.clone()),
                    _ => None,
                });
                if starts.is_some() && self.random.chance(self.setup.pauses) {
                    let pause = self.random.between(SECOND / 2, self.setup.pause_margin * SECOND);
                    let node = &mut self.agents[agent];
                    (node.paused, node.starting) = (self.at + pause, starts);
                    self.history.note(self.at, &node.name, || format!("stands still before the start of {}", tail(&run)));
                    self.later(pause, What::Resume { agent, process });
                }
                self.agent_does(agent, fx)?;
            }
            AgentEffect::SpawnStep(command) => {
                self.witness.started(&command.id, agent, &command.pipeline)?;
                self.agents[agent].running.insert(command.id.clone());
                let code = i32::from(self.random.chance(100));
                let wait = self.random.between(20 * MILLISECOND, 1_500 * MILLISECOND);
                self.exits(agent, wait, command.id, ExitStatus::Code(code));
            }
            AgentEffect::SignalStep { id, signal } => {
                let wait = self.random.between(MILLISECOND, 100 * MILLISECOND);
                let number = if signal == Signal::Kill { 9 } else { 15 };
                self.exits(agent, wait, id, ExitStatus::Signal(number));
            }
            AgentEffect::FinishRun { run, .. } => {
                let wait = self.random.between(MILLISECOND, SECOND);
                self.later(wait, What::LogDelivered { agent, process, run });
            }
            AgentEffect::Exit => {
                self.crash_agent(agent)?;
                let wait = self.random.between(SECOND, self.setup.outage * SECOND);
                self.later(wait, What::StartAgent { agent });
            }
            AgentEffect::LogNote { .. }
            | AgentEffect::ForgetRun(_)
            | AgentEffect::InstallCertificate(_)
            | AgentEffect::LogAcknowledged { .. }
            | AgentEffect::Alert(_) => {}
        }
        Ok(())
    }

    fn exits(&mut self, agent: usize, wait: u64, id: StepId, status: ExitStatus) {
        let exit = Box::new(StepExit { status, outputs: Ok(Vec::new()), leftovers: Vec::new() });
        let process = self.agents[agent].process;
        self.later(wait, What::StepExited { agent, process, id, exit });
    }

    /// I1: at most one agent may start runs of a pipeline.
    fn one_may_start(&self, agent: usize) -> Result<(), Violation> {
        let node = &self.agents[agent];
        let Some(machine) = &node.machine else { return Ok(()) };
        for (key, row) in machine.claims() {
            if !(row.claimed || node.starting.is_some()) || !node.may_start(self.at, key) {
                continue;
            }
            let other = self.agents.iter().enumerate().find(|(at, other)| *at != agent && other.may_start(self.at, key));
            if let Some((_, other)) = other {
                let what = format!("{} and {} may start {key}", node.name, other.name);
                return Violation::of("I1 at most one agent may start a pipeline", what);
            }
        }
        Ok(())
    }
}

/// Pipelines of which a message speaks under an epoch that is over.
fn stale_claims(machine: &Controller, event: &Event) -> Vec<PipelineKey> {
    let Event::Message { message, .. } = event else { return Vec::new() };
    let current = |key: &PipelineKey| machine.owner(key).map_or(Epoch::default(), |row| row.epoch);
    let stale = |(key, epoch): (&PipelineKey, Epoch)| (epoch < current(key)).then(|| key.clone());
    match message {
        AgentMessage::Released(released) => stale((&released.pipeline, released.epoch)).into_iter().collect(),
        AgentMessage::Report(report) => {
            report.facts.iter().filter_map(|fact| stale((&fact.pipeline, fact.epoch))).collect()
        }
        AgentMessage::Renew(renew) => {
            let claims = renew.claims.iter().flatten();
            claims.filter_map(|claim| stale((&claim.pipeline, claim.epoch))).collect()
        }
        _ => Vec::new(),
    }
}

/// Pipelines of which an assignment speaks under an epoch below the highest seen.
fn stale_assignments(machine: &Agent, event: &AgentEvent) -> Vec<PipelineKey> {
    let AgentEvent::Message(ControllerMessage::Assignments(assignments)) = event else { return Vec::new() };
    let seen = |key: &PipelineKey| machine.claims().find(|(of, _)| *of == key).map(|(_, row)| row.epoch);
    let stale = assignments.set.iter().filter(|entry| seen(&entry.pipeline).is_some_and(|seen| entry.epoch < seen));
    stale.map(|entry| entry.pipeline.clone()).collect()
}
