//! The controller's machine: every rule, no I/O. Reconciling, scheduling, ownership, sessions, runs.

mod admission;
mod after;
mod agents;
mod approve;
mod authority;
mod breaker;
pub mod desired;
pub mod event;
mod fence;
mod filling_up;
pub mod gauges;
mod group;
mod holders;
mod ledger;
mod lost;
mod notices;
mod outbox;
mod ownership;
mod pause;
pub mod plan;
pub mod preview;
mod reconcile;
mod recovery;
mod retention;
pub mod rows;
mod runs;
mod schedule;
mod session;
mod source;
mod suspend;
mod tokens;
mod twins;
mod wall;
mod why;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;
use xene_agent::decide::{
    mutant::{Mutant, Mutants},
    time::{BootTime, Now, Timers},
};
use xene_schemas::{
    agent::Agent,
    event::EventType,
    meta::{AgentName, Name, PipelineKey, RunName},
    notifier::Transition,
    suspension::Suspension,
    wire::control::Assignment,
};

pub use self::{admission::CERTIFICATE_LIFE, wall::wall_at_start};
use self::{
    agents::AgentState,
    breaker::Breaker,
    desired::{Desired, Observed, SourceOrigin},
    event::{Authority, Effect, Effects, Event, SessionId},
    filling_up::FillingUp,
    notices::Told,
    outbox::Outbox,
    ownership::Owned,
    reconcile::{Pipeline, Workflow},
    rows::{
        AfterRow, ApiTokenRow, Change, ControllerRow, EndedRun, JoinTokenRow, Loaded, NewEvent, OwnerRow, RunRow,
        Suspendable,
    },
    source::SourceState,
    twins::Opening,
    wall::Wall,
};

/// A machine that nobody asked for so long, though it ticks, stood still: rule 11.
const STALL: Duration = Duration::from_secs(5);
/// How often it ticks, while a lease is counted.
const BEAT: Duration = Duration::from_secs(2);
/// How often old runs are looked for, beside the ends of runs.
const SWEEP: Duration = Duration::from_secs(3600);

/// What an operator sets, and what a process draws at its start.
#[derive(Debug, Clone)]
pub struct Config {
    /// ε: the longest pause of a process between check and exec.
    pub pause_margin: Duration,
    /// The smallest L that a pipeline may ask for.
    pub min_autonomy: Duration,
    /// Random for each process; Renew names it.
    pub nonce: u64,
    /// Random for each process; what agents are given to tell them from copies of them is drawn from it.
    pub secret: [u8; 32],
    /// Of this binary, for people.
    pub software: String,
    /// Random; becomes the store's if the store is new.
    pub store_id: String,
    /// Which boot of the host this is.
    pub boot_id: String,
    /// What the source is.
    pub source: SourceOrigin,
    /// The certificate authority.
    pub authority: Authority,
    /// True if the store is a backup, or new where agents hold claims.
    pub recover: bool,
    /// The rule to leave out, for the simulator.
    #[cfg(feature = "mutants")]
    pub mutant: Option<Mutant>,
}

impl Config {
    #[cfg(feature = "mutants")]
    const fn mutants(&self) -> Mutants {
        Mutants::new(self.mutant)
    }

    #[cfg(not(feature = "mutants"))]
    #[expect(clippy::unused_self, reason = "with the feature it is used")]
    fn mutants(&self) -> Mutants {
        Mutants::default()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// Nothing is to be done but to notice that no tick was missed.
    Tick,
    /// Some claim of this agent may have run out.
    Lease(AgentName),
    /// Who has the session before of this agent has not answered.
    Knock(AgentName),
    /// An Unknown run is given up.
    GiveUp(RunName),
    /// A run has waited for an agent for as long as it may.
    Queue(RunName),
    /// Old runs go.
    Sweep,
    /// Claims that nobody showed since the recovery have run out.
    Recovered,
    /// Planned downtime is over.
    PauseEnds,
    /// Who has not shown a certificate of the new authority by now is not waited for.
    RotationEnds,
    /// A suspension by command ends.
    Suspension(Suspendable),
    /// The next message of this notifier is to be delivered.
    Deliver(Name),
}

/// The controller's machine.
#[derive(Debug)]
pub struct Controller {
    config: Config,
    mutants: Mutants,
    row: ControllerRow,
    wall: Wall,
    /// No claim is judged as if it had been renewed before this.
    floor: BootTime,
    /// When it was asked last.
    asked: BootTime,
    /// Set while nothing is taken from silent agents.
    breaker: Option<Breaker>,
    /// Commits wait for room on the disk.
    full: bool,
    /// Set while the store has not much room left.
    filling_up: Option<FillingUp>,
    /// When the recovery that is under way began.
    recovering: Option<BootTime>,
    /// No agent goes by a longer L than this, but for those without end.
    longest: Duration,
    workflows: BTreeMap<Name, Workflow>,
    observed: Observed,
    pipelines: BTreeMap<PipelineKey, Pipeline>,
    owners: BTreeMap<PipelineKey, Owned>,
    agents: BTreeMap<AgentName, AgentState>,
    sessions: BTreeMap<SessionId, AgentName>,
    /// Names of agents that were forgotten, and until when a certificate of theirs may be valid.
    forgotten: BTreeMap<AgentName, Timestamp>,
    /// Who said Hello while another session of theirs is open, and waits until that has answered, or not.
    knocking: BTreeMap<AgentName, Opening>,
    /// How many tokens were drawn.
    drawn: u64,
    /// Pipelines that could be given to an agent if there were one.
    waiting: BTreeSet<PipelineKey>,
    /// Runs that are not final.
    runs: BTreeMap<RunName, RunRow>,
    active: BTreeMap<PipelineKey, BTreeSet<RunName>>,
    /// Runs of the controller that wait for an agent.
    unaddressed: BTreeSet<(PipelineKey, RunName)>,
    ended: BTreeMap<PipelineKey, Vec<EndedRun>>,
    /// The pipelines that name this one in their `after`.
    dependents: BTreeMap<PipelineKey, BTreeSet<Name>>,
    /// What these have still to follow.
    after: BTreeMap<PipelineKey, AfterRow>,
    /// The pipelines of each group of `concurrency`.
    groups: BTreeMap<Name, BTreeSet<PipelineKey>>,
    /// What is suspended by command.
    suspensions: BTreeMap<Suspendable, Suspension>,
    /// True once it was told that the store was changed by somebody else, and can't be repaired yet.
    drift_told: bool,
    /// The newest that was found while the source is suspended.
    pending: Option<Box<Desired>>,
    /// What was told of runs that are not final.
    told: BTreeMap<RunName, Told>,
    /// Runs that have just ended otherwise than those before them.
    edges: BTreeMap<RunName, Transition>,
    /// What notifiers have to deliver.
    outboxes: BTreeMap<Name, Outbox>,
    /// The number of the newest message.
    messages: u64,
    tokens: BTreeMap<String, JoinTokenRow>,
    api_tokens: BTreeMap<Name, ApiTokenRow>,
    source: SourceState,
    timers: Timers<Timer>,
    // What one call gathers, and `flush` sends.
    changed: BTreeSet<(AgentName, PipelineKey)>,
    /// These are sent their whole set.
    fresh: BTreeSet<AgentName>,
    to_start: BTreeSet<(AgentName, RunName)>,
}

impl Controller {
    /// A machine that starts with what the store held. The effects raise the incarnation, durably, before
    /// anything is said.
    pub fn new(now: Now, config: Config, loaded: Loaded) -> (Self, Effects) {
        let mut fx = Effects::default();
        let mut row = loaded.controller.unwrap_or_else(|| ControllerRow {
            store_id: config.store_id.clone(),
            generation: now.wall.as_second().unsigned_abs(),
            incarnation: 0,
            wall_high: Timestamp::UNIX_EPOCH,
            recovering: false,
            restored: false,
            recovered_at: None,
            readmits: false,
            longest: None,
            pause: None,
            clock: None,
        });
        row.incarnation += 1;
        let mut wall = Wall::new(now, &row, &config.boot_id, config.pause_margin);
        let now = Now { wall: wall.given(), ..now };
        if let Some(high) = wall.mark() {
            row.wall_high = high;
        }
        row.clock = Some(wall.row(config.boot_id.clone()));
        fx.commit.push(Change::PutController(row.clone()));
        let mut controller = Self {
            mutants: config.mutants(),
            row,
            wall,
            floor: now.boot,
            asked: now.boot,
            breaker: None,
            full: false,
            filling_up: None,
            recovering: None,
            longest: Duration::ZERO,
            workflows: BTreeMap::new(),
            observed: Observed::default(),
            pipelines: BTreeMap::new(),
            owners: BTreeMap::new(),
            agents: BTreeMap::new(),
            sessions: BTreeMap::new(),
            forgotten: loaded.forgotten,
            knocking: BTreeMap::new(),
            drawn: 0,
            waiting: BTreeSet::new(),
            runs: BTreeMap::new(),
            active: BTreeMap::new(),
            unaddressed: BTreeSet::new(),
            ended: loaded.ended_runs,
            dependents: BTreeMap::new(),
            after: loaded.after.into_iter().collect(),
            groups: BTreeMap::new(),
            suspensions: BTreeMap::new(),
            drift_told: false,
            pending: None,
            told: BTreeMap::new(),
            edges: BTreeMap::new(),
            outboxes: BTreeMap::new(),
            messages: 0,
            tokens: loaded.join_tokens.into_iter().map(|token| (token.id.clone(), token)).collect(),
            api_tokens: loaded.api_tokens.into_iter().map(|token| (token.name.clone(), token)).collect(),
            source: SourceState::new(&config.source, loaded.source),
            timers: Timers::default(),
            changed: BTreeSet::new(),
            fresh: BTreeSet::new(),
            to_start: BTreeSet::new(),
            config,
        };
        controller.load_workflows(loaded.workflows, loaded.pipelines);
        controller.count_held();
        for row in loaded.suspensions {
            controller.load_suspension(now, row);
        }
        for agent in loaded.agents {
            controller.agents.insert(agent.name.clone(), AgentState::new(Some(agent)));
        }
        for (key, owner) in loaded.owners {
            controller.load_owner(now, key, owner);
        }
        controller.load_notifiers(now, loaded.notifiers, loaded.messages, loaded.notifier_health);
        for run in loaded.active_runs {
            controller.load_told(&run.run);
            controller.load_run(now, run);
        }
        controller.timers.arm(Timer::Sweep, now.boot + SWEEP);
        controller.longest = controller.longest_given();
        controller.load_pause(now);
        controller.load_rotation(now, &mut fx);
        if controller.config.recover {
            controller.recover(now, "the operator said so", &mut fx);
        } else if controller.row.restored {
            controller.recover(now, "the store was restored from a backup", &mut fx);
        } else if controller.row.recovering {
            controller.resume_recovery(now);
        }
        controller.tell_runs(now, &mut fx);
        (controller, fx)
    }

    /// Takes what happened, gives what is to be done.
    pub fn handle(&mut self, now: Now, event: Event) -> Effects {
        let mut fx = Effects::default();
        let now = self.watch_clock(now, &mut fx);
        match event {
            // What it leaves out is not what is in effect by now: it is compiled again.
            Event::Compiled(desired) if self.is_stale(&desired) => {}
            Event::Compiled(desired) if self.must_wait(&desired) => self.wait_with(now, desired, &mut fx),
            Event::Compiled(desired) => self.compiled(now, *desired, &mut fx),
            Event::Drifted(desired, _) if self.is_stale(&desired) => {}
            Event::Drifted(desired, _) if self.must_wait(&desired) => self.drifted_in_wait(now, desired, &mut fx),
            Event::Drifted(desired, found) => self.drifted(now, *desired, *found, &mut fx),
            Event::Withheld(desired) => self.source_withheld(now, *desired, &mut fx),
            Event::Source(health) => self.source_health(now, health, &mut fx),
            Event::SessionOpened { session, agent, fingerprint, authority, address, transport, hello } => {
                let opening = Opening { session, agent, fingerprint, authority, address, transport, hello: *hello };
                self.session_opened(now, opening, &mut fx);
            }
            Event::Message { session, message } => self.message(now, session, message, &mut fx),
            Event::SessionClosed(session) => self.session_closed(now, session, &mut fx),
            Event::Asked { request, command } => {
                fx.urgent = command.is_urgent();
                let result = self.command(now, command, &mut fx);
                // What is refused waits for no disk.
                let refused = result.is_err() && fx.commit.is_empty();
                let reply = Effect::Reply { request, result: Box::new(result) };
                if refused { fx.now.push(reply) } else { fx.then.push(reply) }
            }
            Event::Authority { authority, by } => self.authority_changed(now, authority, &by, &mut fx),
            Event::CertificateIssued { session, agent, fingerprint, chain } => {
                self.certificate_issued(session, &agent, fingerprint, chain, &mut fx);
            }
            Event::StoreFull(full) => self.full = full,
            Event::StoreSize { used, limit } => self.store_size(now, used, limit, &mut fx),
            Event::ClockSynchronized => drop(self.clock_confirmed(now, "the system's time service", &mut fx)),
            Event::Delivered { notifier, number, outcome } => {
                self.delivered(now, &notifier, number, outcome, &mut fx);
            }
        }
        self.tell_runs(now, &mut fx);
        self.flush(&mut fx);
        fx
    }

    /// To be called when [`Self::next_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Now) -> Effects {
        let mut fx = Effects::default();
        let now = self.watch_clock(now, &mut fx);
        while let Some(timer) = self.timers.pop(now.boot) {
            match timer {
                Timer::Tick => self.tick(),
                Timer::Lease(agent) => self.judge(now, &agent, &mut fx),
                Timer::Knock(agent) => self.let_in(now, &agent, &mut fx),
                Timer::GiveUp(run) => self.give_up(now, run, &mut fx),
                Timer::Queue(run) => self.queue_due(now, run, &mut fx),
                Timer::Recovered => self.end_recovery(now, &mut fx),
                Timer::PauseEnds => self.end_pause(now, "its time is over", &mut fx),
                Timer::RotationEnds => self.end_rotation(now, &mut fx),
                Timer::Deliver(notifier) => self.deliver(&notifier, &mut fx),
                Timer::Suspension(what) => self.suspension_ended(now, &what, &mut fx),
                Timer::Sweep => {
                    self.timers.arm(Timer::Sweep, now.boot + SWEEP);
                    self.sweep(now, &mut fx);
                    self.longest = self.longest_given();
                }
            }
        }
        self.tell_runs(now, &mut fx);
        self.flush(&mut fx);
        fx
    }

    /// When the machine wants to be asked again at the latest.
    pub fn next_timeout(&self) -> Option<BootTime> {
        self.timers.next()
    }

    /// All agents, as the API shows them, by name.
    pub fn agents(&self, now: Now) -> Vec<Agent> {
        self.agents.values().filter_map(|agent| self.show(now, agent)).collect()
    }

    /// One agent, as the API shows it.
    pub fn agent(&self, now: Now, name: &AgentName) -> Option<Agent> {
        self.agents.get(name).and_then(|agent| self.show(now, agent))
    }

    /// True while an agent has a session.
    pub fn is_connected(&self, name: &AgentName) -> bool {
        self.agents.get(name).is_some_and(|agent| agent.session.is_some())
    }

    /// Who owns a pipeline, as stored, or will be once the last effects are committed.
    pub fn owner(&self, key: &PipelineKey) -> Option<&OwnerRow> {
        self.owners.get(key).map(|owned| &owned.row)
    }

    /// What an agent should own, as the whole set says it.
    pub fn assignment_set(&self, agent: &AgentName) -> Vec<Assignment> {
        let Some(state) = self.agents.get(agent) else { return Vec::new() };
        state.owned.iter().filter_map(|key| self.assignment(agent, key)).collect()
    }

    /// Rule 11, and the guarded wall clock: what it gives is the time that all else goes by.
    fn watch_clock(&mut self, now: Now, fx: &mut Effects) -> Now {
        let stood_still = now.boot.since(std::mem::replace(&mut self.asked, now.boot)) > STALL;
        if stood_still && self.timers.is_armed(&Timer::Tick) && !self.mutants.is(Mutant::StallUnnoticed) {
            fx.now.push(Effect::Alert("the controller stood still: every owner gets a fresh wait".into()));
            self.floor = now.boot;
        }
        self.read_clock(now, fx)
    }

    /// Ticks on while there is a lease to count: a gap between ticks is a time when it heard nobody.
    fn tick(&mut self) {
        if self.agents.values().any(|agent| !agent.owned.is_empty()) {
            self.tick_soon();
        }
    }

    fn tick_soon(&mut self) {
        self.timers.arm_by(Timer::Tick, self.asked + BEAT);
    }
}

/// Adds an event about an object.
fn note(fx: &mut Effects, now: Now, kind: EventType, reason: &str, regarding: String, message: String) {
    let reason = reason.to_owned();
    fx.commit.push(Change::AddEvent(NewEvent { at: now.wall, kind, reason, message, regarding }));
}

#[cfg(test)]
mod tests;
