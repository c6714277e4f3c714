//! Hosts of a world: the process on each (a real machine, if it is up), its clocks, and what it has on disk.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use jiff::Timestamp;
use xene::decide::{Controller, event as controller, rows::Change};
use xene_agent::decide::{
    Agent,
    event::{self as agent, JournalChange, Recovered, StepId},
    time::BootTime,
};
use xene_schemas::meta::{AgentName, PipelineKey, RunName};

use super::{
    clock::{Clock, Instant},
    random::Random,
    store::Store,
};

/// Commits that are on their way to the disk, in order.
#[derive(Debug)]
pub(super) struct Commits<C, E> {
    queue: VecDeque<(u64, Vec<C>, Vec<E>)>,
    numbers: u64,
    last: Instant,
}

impl<C, E> Default for Commits<C, E> {
    fn default() -> Self {
        Self { queue: VecDeque::new(), numbers: 0, last: Instant::default() }
    }
}

impl<C, E> Commits<C, E> {
    /// One more: its number, and when it is durable at the earliest.
    pub(super) fn push(&mut self, at: Instant, changes: Vec<C>, then: Vec<E>) -> (u64, Instant) {
        self.numbers += 1;
        self.last = self.last.max(at);
        self.queue.push_back((self.numbers, changes, then));
        (self.numbers, self.last)
    }

    /// Takes the next of those up to `number`.
    pub(super) fn durable(&mut self, number: u64) -> Option<(Vec<C>, Vec<E>)> {
        let (first, ..) = self.queue.front()?;
        if *first > number {
            return None;
        }
        self.queue.pop_front().map(|(_, changes, then)| (changes, then))
    }

    /// True if nothing is on its way.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The process dies: some of the first are on the disk although nobody heard of it, the others never were.
    pub(super) fn lose(&mut self, random: &mut Random) -> Vec<C> {
        let kept = random.index(self.queue.len() + 1);
        std::mem::take(&mut self.queue).into_iter().take(kept).flat_map(|(_, changes, _)| changes).collect()
    }
}

/// The next thing that an agent's process does.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "what is to be done is moved once")]
pub(super) enum Todo {
    /// Carry this out.
    Effect(agent::Effect),
    /// Hand this to the journal.
    Commit(Vec<JournalChange>, Vec<agent::Effect>),
}

/// A host with an agent.
#[derive(Debug)]
pub(super) struct AgentNode {
    /// Its name.
    pub(super) name: AgentName,
    /// Its clocks.
    pub(super) clock: Clock,
    /// How often the host has booted.
    pub(super) boots: u32,
    /// Which process this is: things that happen to an earlier one do not matter.
    pub(super) process: u64,
    /// The process, if it is up.
    pub(super) machine: Option<Agent>,
    /// On disk.
    pub(super) journal: Recovered,
    /// On its way there.
    pub(super) commits: Commits<JournalChange, agent::Effect>,
    /// What a disk that syncs nothing held before each of the last commits: a reboot may bring back any of them.
    pub(super) unsynced: VecDeque<Recovered>,
    /// How much longer than others its disk takes, in nanoseconds.
    pub(super) slow_disk: u64,
    /// The authority that signed its certificate.
    pub(super) authority: String,
    /// What it is about to do.
    pub(super) todo: VecDeque<Todo>,
    /// It stands still until then.
    pub(super) paused: Instant,
    /// It has checked that it may start a run of this pipeline, and stands still before it does.
    pub(super) starting: Option<PipelineKey>,
    /// When its timer fires.
    pub(super) wake: Instant,
    /// Its end of a session.
    pub(super) session: Option<u64>,
    /// Steps that run.
    pub(super) running: BTreeSet<StepId>,
    /// Until when the processes of runs may live, by what shims are told.
    pub(super) bounds: BTreeMap<RunName, BootTime>,
    /// Runs of exclusive pipelines that have started, with these.
    pub(super) exclusive: BTreeMap<RunName, PipelineKey>,
    /// Since when, by its slot clock, it can start what without a break.
    pub(super) able: BTreeMap<PipelineKey, Timestamp>,
    /// What its slot clock showed last, and when.
    pub(super) slot_clock: Option<(BootTime, Timestamp)>,
    /// Since when the store says that it is revoked.
    pub(super) revoked_at: Option<Instant>,
    /// When the controller last heard a renewal of it.
    pub(super) heard: Instant,
    /// Its host is off until then.
    pub(super) off_until: Instant,
    /// When a person last said that its machine is off.
    pub(super) fenced_at: Instant,
    /// A person forgot it.
    pub(super) forgotten: bool,
    /// A person drained it.
    pub(super) drained: bool,
    /// Its host is a copy of that of this agent, and has its name.
    pub(super) copy_of: Option<usize>,
}

impl AgentNode {
    /// A host whose agent was not started yet.
    pub(super) fn new(name: AgentName, clock: Clock) -> Self {
        Self {
            name,
            clock,
            boots: 0,
            process: 0,
            machine: None,
            journal: Recovered::default(),
            commits: Commits::default(),
            unsynced: VecDeque::new(),
            slow_disk: 0,
            authority: String::new(),
            todo: VecDeque::new(),
            paused: Instant::default(),
            starting: None,
            wake: Instant(u64::MAX),
            session: None,
            running: BTreeSet::new(),
            bounds: BTreeMap::new(),
            exclusive: BTreeMap::new(),
            able: BTreeMap::new(),
            slot_clock: None,
            revoked_at: None,
            heard: Instant::default(),
            off_until: Instant::default(),
            fenced_at: Instant::default(),
            forgotten: false,
            drained: false,
            copy_of: None,
        }
    }

    /// True if shims have killed what there was of a run.
    pub(super) fn is_over(&self, at: Instant, run: &RunName) -> bool {
        self.bounds.get(run).is_some_and(|until| *until <= self.clock.now(at).boot)
    }

    /// A run of an exclusive pipeline of which a process lives.
    pub(super) fn exclusive_run(&self, at: Instant, key: &PipelineKey) -> Option<RunName> {
        let of = |run: &RunName| self.exclusive.get(run) == Some(key) && !self.is_over(at, run);
        self.running.iter().map(|id| id.run).find(of)
    }

    /// True if it may start a run of this pipeline at this true time, or has checked that and is about to.
    pub(super) fn may_start(&self, at: Instant, key: &PipelineKey) -> bool {
        let live = |machine: &Agent| machine.may_start(self.clock.now(at), key);
        self.machine.as_ref().is_some_and(live) || self.starting.as_ref() == Some(key)
    }
}

/// The host with the controller.
#[derive(Debug)]
pub(super) struct ControllerNode {
    /// Its clocks.
    pub(super) clock: Clock,
    /// Which process this is.
    pub(super) process: u64,
    /// The process, if it is up.
    pub(super) machine: Option<Controller>,
    /// On disk.
    pub(super) store: Store,
    /// On its way there, with when each was decided.
    pub(super) commits: Commits<(Instant, Change), controller::Effect>,
    /// Its disk has no room until then.
    pub(super) full_until: Instant,
    /// It stands still until then.
    pub(super) paused: Instant,
    /// Since when it listens without a break that it must notice.
    pub(super) awake_since: Instant,
    /// When its timer fires.
    pub(super) wake: Instant,
    /// Its ends of sessions, by which agent has the other.
    pub(super) sessions: BTreeMap<u64, usize>,
}

impl ControllerNode {
    /// A host whose controller was not started yet.
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            clock,
            process: 0,
            machine: None,
            store: Store::default(),
            commits: Commits::default(),
            full_until: Instant::default(),
            paused: Instant::default(),
            awake_since: Instant::default(),
            wake: Instant(u64::MAX),
            sessions: BTreeMap::new(),
        }
    }
}
