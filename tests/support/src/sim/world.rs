//! A world: one controller, several agents, what lies between them, and time. Everything from one seed.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use jiff::Timestamp;
use xene::decide::{
    event::{Authority, Command, Event, SessionId},
    rows::JoinTokenRow,
};
use xene_agent::decide::event::{Event as AgentEvent, Recovered, StepExit, StepId};
use xene_schemas::{
    meta::RunName,
    phase::Transport,
    wire::control::{AgentMessage, ControllerMessage},
};

use super::{
    clock::{Clock, Instant, MILLISECOND, SECOND},
    history::History,
    invariants::{Violation, Witness},
    network::{Link, Payload},
    node::{AgentNode, ControllerNode, Todo},
    notices::{Letter, Mail},
    random::Random,
    setup::Setup,
    source::Source,
    store::Store,
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
    JournalWorks { agent: usize, process: u64 },
    StartAgent { agent: usize },
    StartController,
    Room { process: u64 },
    Compile { process: u64 },
    Heal { agent: usize },
    Forget { agent: usize },
    Fence { agent: usize },
    StartCopy { agent: usize, journal: Box<Recovered> },
    Part { agent: usize },
    Certificate { agent: usize, process: u64 },
    Delivered { process: u64, letter: Box<Letter> },
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
    pub(super) sessions: u64,
    /// All up to this one were with a controller process that is gone.
    pub(super) dead_sessions: u64,
    pub(super) requests: u64,
    pub(super) source: Source,
    pub(super) witness: Witness,
    /// What happened.
    pub history: History,
    pub(super) acting: bool,
    /// A copy of the store, taken at some time.
    pub(super) backup: Option<Store>,
    /// The controller starts next on a backup.
    pub(super) recover: bool,
    /// Some backup was restored.
    pub(super) restored: bool,
    /// Some downtime was announced.
    pub(super) announced: bool,
    /// Messages are lost, or were.
    pub(super) lossy: bool,
    /// Where messages of notifiers go.
    pub(super) mail: Mail,
    /// The certificate authority.
    pub(super) authority: Authority,
    idle: u32,
    pub(super) outcome: Outcome,
}

impl World {
    /// A world that has not begun.
    pub fn new(setup: Setup, random: Random, history: History) -> Self {
        let mut random = random;
        let mut mail = Mail::new(&random, setup.notified);
        let mut source = Source::default();
        (source.ids, source.notifiers) = (mail.on, mail.draw());
        source.begin(&setup, &mut random);
        let mut rate = || random.pick(setup.rates);
        let controller = ControllerNode::new(Clock::boot(Instant::default(), rate()));
        let agents = (0..setup.agents).map(|at| {
            #[expect(clippy::unwrap_used, reason = "a letter is a name")]
            let name = char::from(b'a' + at as u8).to_string().parse().unwrap();
            AgentNode::new(name, Clock::boot(Instant::default(), rate()))
        });
        let agents: Vec<AgentNode> = agents.collect();
        let lossy = setup.hostile;
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
            backup: None,
            recover: false,
            restored: false,
            announced: false,
            lossy,
            mail,
            authority: Authority::default(),
            idle: 0,
            outcome: Outcome::default(),
        }
    }

    /// Starts the controller and lets all agents in.
    pub fn begin(&mut self) -> Result<(), Violation> {
        self.start_controller()?;
        let (id, secret_hash) = ("first".to_owned(), "secret".to_owned());
        let expires_at = Timestamp::MAX;
        let uses_left = u32::try_from(self.agents.len()).unwrap_or(u32::MAX);
        self.ask(Command::CreateJoinToken(JoinTokenRow {
            id: id.clone(),
            secret_hash: secret_hash.clone(),
            created_at: None,
            created_by: None,
            expires_at,
            uses_left,
            labels: None,
            name: None,
        }))?;
        for at in 0..self.agents.len() {
            let (name, labels) = (self.agents[at].name.clone(), IndexMap::new());
            let agent = name.clone();
            let (id, secret_hash, key) = (id.clone(), secret_hash.clone(), format!("key of {name}"));
            let enrol = Command::Enrol { id, secret_hash, key, name, labels };
            // The first answer was lost. Spent twice, the token would not be enough for all.
            self.ask(enrol.clone())?;
            self.ask(enrol)?;
            self.ask(Command::Certify { agent, fingerprint: String::new() })?;
        }
        Ok(())
    }

    /// Starts all agents within a moment.
    pub(super) fn start_agents(&mut self) {
        for agent in 0..self.agents.len() {
            let wait = self.random.between(0, 2 * SECOND);
            self.later(wait, What::StartAgent { agent });
        }
    }

    pub(super) fn later(&mut self, wait: u64, what: What) {
        self.schedule(self.at + wait, what);
    }

    pub(super) fn schedule(&mut self, at: Instant, what: What) {
        self.order += 1;
        self.queue.insert((at, self.order), what);
    }

    /// Lets everything happen that happens up to then.
    pub fn run_until(&mut self, end: Instant) -> Result<(), Violation> {
        loop {
            let next = self.queue.first_key_value().map_or(Instant(u64::MAX), |((at, _), _)| *at);
            let timer = self.agents.iter().enumerate().map(|(at, node)| (node.wake.max(node.paused), Some(at)));
            let timer =
                timer.chain([(self.controller.wake.max(self.controller.paused), None)]).min_by_key(|(at, _)| *at);
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
            | What::LogDelivered { agent, .. }
            | What::JournalWorks { agent, .. } => self.agents[*agent].paused,
            What::ControllerClosed { .. }
            | What::ControllerDurable { .. }
            | What::Room { .. }
            | What::Compile { .. }
            | What::Delivered { .. } => self.controller.paused,
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
                self.history.mark(self.at, &self.agents[agent].name, || "goes on".into());
                self.agents[agent].starting = None;
                self.agents[agent].able.clear();
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
            What::JournalWorks { agent, process } if current(self, agent, process) => {
                self.agents[agent].able.clear();
                self.agent_takes(agent, AgentEvent::JournalWorks)
            }
            What::StartAgent { agent } => self.start_agent(agent),
            What::StartController => self.start_controller(),
            What::Room { process } if self.controller.process == process => {
                self.history.mark(self.at, "controller", || "has room again".into());
                self.controller_takes(Event::StoreFull(false))
            }
            What::Compile { process } if self.controller.process == process => self.compile(),
            What::Heal { agent } => {
                self.heal(agent);
                Ok(())
            }
            What::Forget { agent } => self.give_up(agent),
            What::Fence { agent } => self.fence(agent),
            What::StartCopy { agent, journal } => self.start_copy(agent, *journal),
            What::Part { agent } => self.part(agent),
            What::Delivered { process, letter } => self.comes_in(*letter, self.controller.process == process),
            What::Certificate { agent, process } if current(self, agent, process) => {
                self.takes_certificate(agent);
                Ok(())
            }
            What::Act if self.acting => self.act(),
            _ => Ok(()),
        }
    }

    fn dial(&mut self, agent: usize) -> Result<(), Violation> {
        if self.agents[agent].session.is_some() || self.agents[agent].machine.is_none() {
            return Ok(());
        }
        if !self.is_trusted(agent) {
            // Who joins anew does so by hand.
            return Ok(());
        }
        if !self.links[agent].is_whole() || self.controller.machine.is_none() {
            let wait = self.random.between(SECOND, 5 * SECOND);
            self.later(wait, What::Dial { agent, process: self.agents[agent].process });
            return Ok(());
        }
        self.sessions += 1;
        self.agents[agent].session = Some(self.sessions);
        self.renew_certificate(agent);
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
                        let (hello, authority) = (Box::new(hello), self.agents[agent].authority.clone());
                        self.controller_takes(Event::SessionOpened {
                            session: id,
                            agent: name,
                            fingerprint,
                            authority,
                            address,
                            transport: Transport::Quic,
                            hello,
                        })
                    }
                    message if open => {
                        if matches!(message, AgentMessage::Renew(_)) {
                            self.agents[agent].heard = self.at;
                        }
                        self.controller_takes(Event::Message { session: SessionId(session), message })
                    }
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
}
