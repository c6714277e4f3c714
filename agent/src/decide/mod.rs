//! The agent's machine: every rule, no I/O. Claims and leases, cron, the DAG, runs, the outbox.

pub mod admission;
mod artifacts;
mod claims;
pub mod cron;
pub mod event;
mod exclusive;
mod lease;
pub mod mutant;
mod outbox;
mod renewal;
pub mod resume;
pub mod run;
mod runs;
mod skipped;
mod spec;
pub mod time;
mod triggers;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use xene_schemas::{
    meta::{AgentName, FileHash, Labels, PipelineKey, RunName, SpecHash},
    pipeline::{Autonomy, CompiledPipeline},
    run::RunEvent,
    wire::{
        VERSION,
        control::{
            AgentMessage, Claim as ClaimMessage, ControllerMessage, Decision, Hello, Renew, Renewed, Report, RunFact,
            SpecsWanted, StoreSeen, Tokens, Welcome,
        },
    },
};

use self::{
    admission::{Holders, Slots},
    claims::Claim,
    event::{ClaimRow, Effect, Effects, Event, JournalChange, Recovered, Renewal},
    lease::{Lease, guard},
    mutant::{Mutant, Mutants},
    runs::RunEntry,
    skipped::SkippedRows,
    spec::Spec,
    time::{BootTime, Now, Timers},
};

/// How far the local wall clock may be from the slot clock before the operator hears of it.
const SKEW: Duration = Duration::from_secs(5);
/// How long a process that starts waits for the controller, before it goes by what an earlier process was given: whoever
/// took its pipelines from it, having seen that the machine was off, can tell it so.
const ALONE_AFTER: Duration = Duration::from_secs(5);

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

/// How far the conversation with the controller is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Session {
    Down,
    /// Hello was said.
    Greeting,
    /// Welcome was heard.
    Up,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Renew,
    /// The controller is waited for no more.
    Alone,
    Run(RunName),
    /// A run that is bound to the lease.
    Bound(RunName),
    /// A waiting run of this pipeline has waited for too long.
    Queue(PipelineKey),
}

/// The agent's machine.
#[derive(Debug)]
pub struct Agent {
    config: Config,
    mutants: Mutants,
    random: u64,
    last: Now,
    session: Session,
    store: Option<StoreSeen>,
    /// What tells it from a copy of itself.
    tokens: Option<Tokens>,
    lease: Lease,
    /// Rows outlive claims: they hold the highest epoch seen, and the watermark.
    claims: BTreeMap<PipelineKey, Claim>,
    /// Counts up when the list of claims changes.
    claims_version: u64,
    /// The digest of this version of the list.
    claims_digest: Option<(u64, [u8; 32])>,
    /// Nothing starts before, unless a renewal was answered.
    alone_from: Option<BootTime>,
    /// Claims of which no Renew was answered yet.
    unconfirmed: BTreeSet<PipelineKey>,
    /// The version of the assignments of this session; 0: none came yet.
    set_version: u64,
    specs: BTreeMap<SpecHash, Arc<Spec>>,
    /// Specs that have come, and some of whose files have not.
    arriving: BTreeMap<SpecHash, Vec<u8>>,
    runs: BTreeMap<RunName, RunEntry>,
    holders: Holders,
    slots: Slots,
    /// When the next slot of each hosted pipeline comes, by slot clock.
    due: BTreeSet<(Timestamp, PipelineKey)>,
    /// Pipelines with something to start and no lease or spec to start it with.
    parked: BTreeSet<PipelineKey>,
    /// Pipelines that are not suspended any more, as soon as it is known what was due while they were.
    resuming: BTreeSet<PipelineKey>,
    timers: Timers<Timer>,
    draining: bool,
    exited: bool,
    skewed: bool,
    journal_failed: bool,
    skipped: SkippedRows,
    // What one call gathers, and `flush` sends.
    outgoing: Vec<RunFact>,
    outgoing_whole: bool,
    wanted: BTreeSet<SpecHash>,
    renew_soon: bool,
}

impl Agent {
    /// A machine that starts with what the journal held. Its first effects ask again for the steps that were running.
    pub fn new(now: Now, config: Config, mut recovered: Recovered) -> (Self, Effects) {
        let mut fx = Effects::default();
        let mutants = config.mutants();
        let rebooted = recovered.boot_id.as_ref().is_some_and(|boot| *boot != config.boot_id);
        if recovered.boot_id.as_ref() != Some(&config.boot_id) {
            // No process outlives the host's boot, and nothing that was not synced.
            recovered.told.clear();
            fx.commit.push(JournalChange::PutBoot(config.boot_id.clone()));
        }
        let same_boot = |renewal: &Renewal| renewal.boot_id == config.boot_id && renewal.at.boot <= now.boot;
        let renewal = recovered.renewal.filter(same_boot);
        let specs =
            recovered.specs.iter().filter_map(|(hash, bytes)| Spec::new(bytes).ok().map(|(spec, _)| (*hash, spec)));
        let mut agent = Self {
            mutants,
            random: config.seed | 1,
            last: now,
            session: Session::Down,
            store: recovered.store,
            tokens: recovered
                .token
                .map(|session| Tokens { session, renewal: renewal.as_ref().and_then(|renewal| renewal.token) }),
            lease: Lease::resumed(renewal.as_ref().and_then(|renewal| renewal.clock)),
            claims: BTreeMap::new(),
            claims_version: 1,
            claims_digest: None,
            alone_from: None,
            unconfirmed: BTreeSet::new(),
            set_version: 0,
            specs: specs.collect(),
            arriving: BTreeMap::new(),
            runs: BTreeMap::new(),
            holders: Holders::default(),
            slots: Slots::new(config.slots),
            due: BTreeSet::new(),
            parked: BTreeSet::new(),
            resuming: BTreeSet::new(),
            timers: Timers::default(),
            draining: false,
            exited: false,
            skewed: false,
            journal_failed: false,
            skipped: SkippedRows::recovered(recovered.skipped),
            outgoing: Vec::new(),
            outgoing_whole: false,
            wanted: BTreeSet::new(),
            renew_soon: false,
            config,
        };
        let last_slot = recovered.claims.values().map(|row| row.watermark).max();
        let forever = |row: &ClaimRow| row.claimed && row.confirmed && row.autonomy == Autonomy::Forever;
        if recovered.claims.values().any(forever) && last_slot.is_none_or(|slot| slot < now.wall) {
            agent.lease.begin_clock(now);
        }
        if rebooted && agent.mutants.is(Mutant::LeaseKeptOverReboot) {
            agent.lease.assume(now);
        }
        for (key, row) in recovered.claims {
            agent.recover_claim(key, row);
        }
        if !agent.claims.is_empty() {
            let at = now.boot + ALONE_AFTER;
            agent.alone_from = Some(at);
            agent.timers.arm(Timer::Alone, at);
        }
        if let Some(renewal) = renewal {
            agent.recover_lease(now, &renewal, &mut fx);
        }
        let mut wanted = Vec::new();
        for (run, row) in recovered.runs {
            let facts = recovered.facts.get(&run).cloned().unwrap_or_default();
            let told = recovered.told.remove(&run).unwrap_or_default();
            let bound = recovered.bounds.get(&run).copied();
            wanted.extend(
                agent.recover_run(now, run, row, facts, (told, bound), &mut fx).into_iter().map(|task| (run, task)),
            );
        }
        // Once all have back what they had.
        for (run, task) in wanted {
            agent.want_slot(now, run, task, &mut fx);
        }
        agent.remove_unused_specs(&mut fx);
        agent.advance(now, &mut fx);
        agent.flush(now, &mut fx);
        (agent, fx)
    }

    /// Takes what happened, gives what is to be done.
    pub fn handle(&mut self, now: Now, event: Event) -> Effects {
        let mut fx = Effects::default();
        self.watch_clock(now, &mut fx);
        match event {
            Event::Connected => self.greet(now, &mut fx),
            Event::Disconnected => {
                self.session = Session::Down;
                self.timers.disarm(&Timer::Renew);
            }
            Event::Message(message) => self.message(now, message, &mut fx),
            Event::IntentDurable(run) => self.intent_durable(now, run, &mut fx),
            Event::StepExited { id, exit } => {
                let run = id.run;
                // What was to end it by now may have: that, and not how its step ended, is why.
                self.bound_due(now, run, &mut fx);
                self.drive(now, run, run::Input::StepExited(id, exit), &mut fx);
            }
            Event::LogDelivered(run) => self.log_delivered(run, &mut fx),
            Event::FilesReady(spec) => self.files_ready(now, spec, &mut fx),
            Event::DrainRequested => self.drain(&mut fx),
            Event::StopRequested => {
                self.drain(&mut fx);
                self.cancel_all(now, "the agent is stopping", &mut fx);
            }
            Event::JournalFailed => self.journal_failed(now, &mut fx),
            Event::JournalWorks => self.journal_works(now, &mut fx),
        }
        self.advance(now, &mut fx);
        self.flush(now, &mut fx);
        fx
    }

    /// To be called when [`Self::next_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Now) -> Effects {
        let mut fx = Effects::default();
        self.watch_clock(now, &mut fx);
        while let Some(timer) = self.timers.pop(now.boot) {
            match timer {
                Timer::Renew => self.send_renew(now, &mut fx),
                Timer::Alone => self.go_on_alone(now, &mut fx),
                Timer::Run(run) => self.drive(now, run, run::Input::Timeout, &mut fx),
                Timer::Bound(run) => self.bound_due(now, run, &mut fx),
                Timer::Queue(key) => self.start_waiting(now, &key, &mut fx),
            }
        }
        self.advance(now, &mut fx);
        self.flush(now, &mut fx);
        fx
    }

    /// When the machine wants to be asked again at the latest.
    pub fn next_timeout(&self) -> Option<BootTime> {
        let slot = self.due.first().and_then(|(slot, _)| self.lease.boot_of(*slot));
        self.timers.next().into_iter().chain(slot).min()
    }

    /// True if a run of this pipeline may be started now: claimed, and its lease runs.
    pub fn may_start(&self, now: Now, key: &PipelineKey) -> bool {
        self.claims.get(key).is_some_and(|claim| !claim.row.releasing && self.is_live(now, claim))
    }

    /// True if a due time of this pipeline may start a run now: it may start runs, and what it runs was not replaced too
    /// long ago.
    pub fn may_fire(&self, now: Now, key: &PipelineKey) -> bool {
        self.may_start(now, key) && self.claims.get(key).is_some_and(|claim| claim.is_in_effect(now))
    }

    /// What the journal holds of each pipeline ever seen, or will once the last effects are committed.
    pub fn claims(&self) -> impl Iterator<Item = (&PipelineKey, &ClaimRow)> {
        self.claims.iter().map(|(key, claim)| (key, &claim.row))
    }

    /// The files of all specs that are kept or on their way, and artifacts: what must stay.
    pub fn files_in_use(&self) -> BTreeSet<FileHash> {
        let kept = self.specs.values().flat_map(|spec| spec.files());
        let arriving = self.arriving.values().filter_map(|bytes| CompiledPipeline::decode(bytes).ok());
        let travelling = kept.chain(arriving.flat_map(|spec| spec.files)).map(|file| file.hash);
        let unsent = self.runs.values().flat_map(|run| &run.row.artifacts).map(|artifact| artifact.hash);
        let saved = self.runs.values().filter(|run| run.is_running()).flat_map(|run| &run.artifacts.saved).copied();
        travelling.chain(unsent).chain(saved).collect()
    }

    /// The slot clock; `None` before the first answer.
    pub fn slot_now(&self, now: Now) -> Option<Timestamp> {
        self.lease.slot_now(now)
    }

    fn is_live(&self, now: Now, claim: &Claim) -> bool {
        claim.row.claimed
            && self.alone_from.is_none_or(|from| from <= now.boot)
            && self.limit_of(now, claim).is_some_and(|limit| now.boot < limit)
    }

    /// Less than half of a lease is left; only mutants care.
    fn doubts(&self, now: Now, claim: &Claim) -> bool {
        let half = |limit: BootTime| now.boot + l_of(claim.row.autonomy) / 2 >= limit;
        self.mutants.is(Mutant::LastCheckDoubts) && self.limit_of(now, claim).is_some_and(half)
    }

    /// The controller has not answered: what an earlier process was given counts.
    fn go_on_alone(&mut self, now: Now, fx: &mut Effects) {
        self.alone_from = None;
        self.unpark(now, fx);
    }

    /// When the lease of a claim ends; `None`: it has none.
    fn limit_of(&self, now: Now, claim: &Claim) -> Option<BootTime> {
        let row = &claim.row;
        let mut limit = self.lease.limit(row.autonomy, claim.since);
        if row.autonomy == Autonomy::Forever && row.confirmed && self.lease.slot_now(now).is_some() {
            limit = Some(BootTime::from_nanos(u64::MAX));
        }
        if self.mutants.is(Mutant::GrantStartsLease) {
            limit = limit.max(claim.granted_at.map(|at| at + l_of(row.autonomy)));
        }
        limit
    }

    /// A step of the wall clock against elapsed time is a virtual machine that was paused or restored: what it
    /// knew of its lease is worth nothing until the next answer.
    fn watch_clock(&mut self, now: Now, fx: &mut Effects) {
        if is_step(self.last, now) {
            self.void_lease(now, fx);
            self.doubt_bounds(now, None, fx);
            self.renew_soon = true;
            fx.now.push(Effect::Alert("the wall clock was moved: no run starts until the lease is renewed".into()));
        }
        self.last = now;
    }

    fn greet(&mut self, now: Now, fx: &mut Effects) {
        self.session = Session::Greeting;
        self.set_version = 0;
        fx.now.push(Effect::Send(AgentMessage::Hello(Hello {
            version: VERSION,
            software: self.config.software.clone(),
            instance: self.config.instance,
            boot_id: self.config.boot_id.clone(),
            labels: self.config.labels.clone(),
            slots: self.config.slots,
            claims: self.claim_list(now),
            wall: now.wall,
            store: self.store.clone(),
            runs: self.runs.keys().copied().collect(),
            tokens: self.tokens,
        })));
    }

    fn message(&mut self, now: Now, message: ControllerMessage, fx: &mut Effects) {
        match message {
            ControllerMessage::Welcome(welcome) => self.welcome(now, welcome, fx),
            ControllerMessage::Refused(refused) => {
                if !refused.retry {
                    // The process ends by this, and the next one is not to go on as if nobody had said it.
                    self.void_lease(now, fx);
                }
                fx.now.push(Effect::Alert(refused.message));
                fx.now.push(Effect::Disconnect);
            }
            ControllerMessage::Assignments(assignments) => self.assign(now, assignments, fx),
            ControllerMessage::Renewed(renewed) => self.renewed(now, renewed, fx),
            ControllerMessage::StartRun(start) => self.start_run(now, start, fx),
            ControllerMessage::Decide(Decision { run, task, approved, by }) => {
                self.drive(now, run, run::Input::Decided { task, approved, by }, fx);
            }
            ControllerMessage::CancelRun(cancel) => {
                self.cancel_run(now, cancel.run, &format!("cancelled by {}", cancel.by), fx);
            }
            ControllerMessage::Acknowledged(acknowledged) => {
                for (run, count) in acknowledged.runs {
                    self.acknowledged(run, count, fx);
                }
            }
            ControllerMessage::LogAcknowledged(log) if log.unwanted => {
                // Nobody will read it: as good as delivered.
                self.log_delivered(log.run, fx);
            }
            ControllerMessage::LogAcknowledged(log) => {
                fx.now.push(Effect::LogAcknowledged { run: log.run, offset: log.offset });
            }
            ControllerMessage::ArtifactStored(stored) => self.artifact_stored(stored.run, stored.hash, fx),
            ControllerMessage::Specs(specs) => self.specs_came(now, specs.specs, fx),
            ControllerMessage::SkippedAcknowledged(skipped) => self.skipped.acknowledge(skipped.next),
            ControllerMessage::Ping(ping) => fx.now.push(Effect::Send(AgentMessage::Pong(ping))),
            ControllerMessage::Certificate(certificate) => {
                fx.now.push(Effect::InstallCertificate(certificate.chain));
            }
            // The session has installed them.
            ControllerMessage::Roots(_) => {}
        }
    }

    fn welcome(&mut self, now: Now, welcome: Welcome, fx: &mut Effects) {
        let age = |store: &StoreSeen| (store.generation, store.incarnation);
        let seen = self.store.as_ref().filter(|seen| seen.store_id == welcome.store.store_id);
        if seen.is_some_and(|seen| age(&welcome.store) < age(seen)) {
            fx.now.push(Effect::Alert("the controller's store is older than the one seen before: it was rolled back, or there are two controllers".into()));
            fx.now.push(Effect::Disconnect);
            return;
        }
        self.session = Session::Up;
        self.lease.open(welcome.nonce);
        // Written each time, so that what follows it follows every fact that is on its way into the journal.
        fx.commit.push(JournalChange::PutStore(welcome.store.clone()));
        fx.commit.push(JournalChange::PutName(welcome.name));
        if let Some(session) = welcome.token {
            fx.commit.push(JournalChange::PutToken(session));
            self.tokens = Some(Tokens { session, renewal: self.tokens.and_then(|tokens| tokens.renewal) });
        }
        self.store = Some(welcome.store);
        let facts: Vec<RunFact> =
            self.runs.iter().flat_map(|(run, entry)| entry.outbox.facts(*run, &entry.key, &entry.row)).collect();
        self.outgoing = facts;
        self.outgoing_whole = true;
        self.skipped.say_again();
        self.renew_soon = true;
        self.wanted.extend(self.claims.values().flat_map(Claim::lacks));
        self.send_renew(now, fx);
    }

    fn renewed(&mut self, now: Now, answer: Renewed, fx: &mut Effects) {
        if let (Some(token), Some(tokens)) = (answer.token, &mut self.tokens)
            && self.lease.is_newest(&answer)
        {
            tokens.renewal = Some(token);
        }
        if let Some(store) = self.store.as_mut().filter(|store| answer.longest > store.longest) {
            store.longest = answer.longest;
            fx.commit.push(JournalChange::PutStore(store.clone()));
        }
        let version = self.lease.renewed(now, &answer, self.mutants);
        for (key, epoch) in &answer.nacks {
            self.drop_claim(now, key, Some(*epoch), fx);
        }
        // Without those that it does not renew.
        self.keep_renewal(now, fx);
        if self.alone_from.take().is_some() {
            self.timers.disarm(&Timer::Alone);
        }
        let resuming =
            if self.lease.slot_now(now).is_some() { std::mem::take(&mut self.resuming) } else { BTreeSet::new() };
        for key in resuming {
            if self.claims.get(&key).is_some_and(|claim| claim.row.claimed && claim.row.suspended) {
                self.suspend(now, &key, false, fx);
            }
        }
        if let Some(skew) = self.lease.skew(now) {
            if skew > SKEW && !self.skewed {
                let seconds = skew.as_secs();
                fx.now.push(Effect::Alert(format!("this host's clock is {seconds} s away from the controller's")));
            }
            self.skewed = skew > SKEW;
        }
        match version {
            Some(version) => {
                self.confirm(version, fx);
                self.put_off(now, fx);
                self.unpark(now, fx);
            }
            // The controller lacks the list: say it at once, not a heartbeat later.
            None => self.renew_soon |= self.lease.wants_list(self.claims_version),
        }
    }

    /// Starts what has come due.
    fn advance(&mut self, now: Now, fx: &mut Effects) {
        let Some(slot_now) = self.lease.slot_now(now) else { return };
        while let Some((_, key)) = self.due.first().filter(|(due, _)| *due <= slot_now).cloned() {
            self.tick(now, slot_now, &key, fx);
        }
    }

    /// Gives another chance to whatever could not start for want of a lease or a spec.
    fn unpark(&mut self, now: Now, fx: &mut Effects) {
        for key in std::mem::take(&mut self.parked) {
            self.schedule(&key);
            self.start_waiting(now, &key, fx);
        }
    }

    fn journal_failed(&mut self, now: Now, fx: &mut Effects) {
        self.journal_failed = true;
        self.renew_soon = true;
        fx.now.push(Effect::Alert("the journal can't be written: no run starts".into()));
        let intents: Vec<RunName> = self.runs.iter().filter(|(_, run)| run.is_intent()).map(|(run, _)| *run).collect();
        for run in intents {
            self.abandon(now, run, xene_schemas::phase::Reason::AGENT_DISK, fx);
        }
    }

    fn journal_works(&mut self, now: Now, fx: &mut Effects) {
        // What has become too late has by that, and says so.
        self.unpark(now, fx);
        self.journal_failed = false;
        self.renew_soon = true;
        self.unpark(now, fx);
    }

    fn claim_list(&self, now: Now) -> Vec<ClaimMessage> {
        let claimed = self.claims.iter().filter(|(_, claim)| claim.row.claimed);
        let message = |(key, claim): (&PipelineKey, &Claim)| ClaimMessage {
            pipeline: key.clone(),
            epoch: claim.row.epoch,
            watermark: claim.row.watermark,
            live: self.is_live(now, claim),
            autonomy: Some(claim.row.autonomy),
        };
        claimed.map(message).collect()
    }

    fn send_renew(&mut self, now: Now, fx: &mut Effects) {
        if self.session != Session::Up {
            return;
        }
        self.renew_soon = false;
        let next = self.lease.renew(now, self.claims_version);
        let renew = Renew {
            seq: next.seq,
            nonce: next.nonce,
            answered: next.answered,
            claims_version: self.claims_version,
            claims: next.with_claims.then(|| self.claim_list(now)),
            busy: self.slots.busy(),
            wall: now.wall,
            assignments: self.set_version,
            token: self.tokens.and_then(|tokens| tokens.renewal),
            disk_full: self.journal_failed,
        };
        // What lists claims follows the journal: the next process of the agent goes by what that says, and the
        // controller by the list.
        let says = if next.with_claims { &mut fx.then } else { &mut fx.now };
        says.push(Effect::Send(AgentMessage::Renew(renew)));
        let claimed = self.claims.values().filter(|claim| claim.row.claimed);
        let shortest = claimed.map(|claim| guard(claim.row.autonomy)).min();
        let heartbeat = shortest.unwrap_or_else(|| guard(Autonomy::Forever));
        // ±20 %, so that agents that came together do not stay together.
        let jitter = 80 + u32::try_from(self.draw() % 41).unwrap_or(0);
        self.timers.arm(Timer::Renew, now.boot + heartbeat * jitter / 100);
    }

    /// The next pseudo-random number (xorshift64*).
    fn draw(&mut self) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }

    /// Sends what one call gathered; all of it follows the commit.
    fn flush(&mut self, now: Now, fx: &mut Effects) {
        let mut wanted = std::mem::take(&mut self.wanted);
        wanted.retain(|hash| !self.specs.contains_key(hash) && !self.arriving.contains_key(hash));
        if self.session == Session::Up && self.renew_soon {
            self.send_renew(now, fx);
        }
        self.say_facts(fx);
        if self.session == Session::Up {
            fx.then.extend(self.skipped.unsaid().map(|rows| Effect::Send(AgentMessage::Skipped(rows))));
            if !wanted.is_empty() {
                let hashes = wanted.into_iter().collect();
                fx.then.push(Effect::Send(AgentMessage::SpecsWanted(SpecsWanted { hashes })));
            }
        }
        // What need not be kept goes with what is written anyway.
        if !fx.commit.is_empty() {
            fx.commit.extend(self.skipped.forgotten());
        }
        let done = self.runs.values().all(RunEntry::is_ended);
        if self.draining && !self.exited && done && (self.runs.is_empty() || self.session == Session::Down) {
            self.exited = true;
            fx.then.push(Effect::Exit);
        }
    }

    /// Reports what one call has gathered so far.
    fn say_facts(&mut self, fx: &mut Effects) {
        let facts = std::mem::take(&mut self.outgoing);
        let whole = std::mem::take(&mut self.outgoing_whole);
        if self.session == Session::Up && !facts.is_empty() {
            fx.then.push(Effect::Send(AgentMessage::Report(Report { facts, whole })));
        }
    }

    /// Keeps the next fact of a run.
    fn push_fact(&mut self, run: RunName, event: RunEvent, fx: &mut Effects) {
        let Some(entry) = self.runs.get_mut(&run) else { return };
        let (change, fact) = entry.outbox.push(run, &entry.key, &entry.row, event);
        fx.commit.push(change);
        self.outgoing.push(fact);
    }
}

/// True if one clock was moved against the other between the two.
fn is_step(before: Now, now: Now) -> bool {
    let elapsed = now.boot.since(before.boot);
    let wall = now.wall.duration_since(before.wall);
    let step = (wall.as_nanos() - i128::try_from(elapsed.as_nanos()).unwrap_or(i128::MAX)).unsigned_abs();
    // Both clocks may drift against each other: a long silence is not a step.
    step > (SKEW + elapsed / 10).as_nanos()
}

/// L as a duration; `Forever` is longer than any test of a mutant.
fn l_of(autonomy: Autonomy) -> Duration {
    match autonomy {
        Autonomy::For(l) => l.into(),
        Autonomy::Forever => Duration::from_secs(1 << 32),
    }
}
