//! Runs on this agent: waiting for their turn, intent before start, driving each run's machine, the end.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use indexmap::IndexMap;
use xene_schemas::{
    meta::{PipelineKey, RunName, SpecHash},
    phase::{Reason, RunPhase},
    pipeline::CompiledPipeline,
    run::{RunEvent, RunSpec, RunTrigger, TriggerType},
    wire::control::StartRun,
};

use super::{
    Agent, Timer,
    admission::{Admission, Shared},
    artifacts::RunArtifacts,
    event::{Effect, Effects, JournalChange, RunRow, RunState, keeps_workspace},
    exclusive::Bound,
    mutant::Mutant,
    outbox::Outbox,
    resume::Told,
    run::{Input, Output, RunMachine},
    spec::{ReadSpec, Spec},
    time::{BootTime, Now},
    triggers::{Hosted, Passed, Slot},
};

/// After so many acknowledged facts the journal may forget them, though the run goes on.
const TRIM: u64 = 64;

/// A run that waits for its turn. It has no record on this agent yet: after a crash or a hand-over the slot is
/// still above the watermark, and the controller sends its own runs again, to whoever owns the pipeline by then.
#[derive(Debug)]
pub(super) struct Waiting {
    since: BootTime,
    /// Since when it, or a tick whose place it took, is in the queue.
    queued: BootTime,
    /// An earlier run was cancelled for it: the turn that this frees is its own.
    replaces: bool,
    what: What,
}

/// What the controller gives a run to begin with, besides its record.
#[derive(Debug, Default)]
pub(super) struct Given {
    payload: Option<Arc<[u8]>>,
    /// Tasks that count as succeeded, with what they published.
    reused: IndexMap<String, IndexMap<String, String>>,
}

#[derive(Debug)]
enum What {
    Tick(Slot),
    /// `spec` is held from when it is at hand, so that it stays though the pipeline goes on to another.
    Run {
        name: RunName,
        row: Box<RunRow>,
        given: Given,
        spec: Option<Arc<Spec>>,
    },
}

impl Waiting {
    pub(super) fn tick(since: BootTime, slot: Slot) -> Self {
        Self::new(since, What::Tick(slot))
    }

    fn new(since: BootTime, what: What) -> Self {
        Self { since, queued: since, replaces: false, what }
    }

    /// A newer due time of the same trigger takes its place; gives the older one.
    pub(super) fn come_again(&mut self, since: BootTime, slot: Slot) -> Option<Slot> {
        self.since = since;
        match std::mem::replace(&mut self.what, What::Tick(slot)) {
            What::Tick(older) => Some(older),
            What::Run { .. } => None,
        }
    }

    pub(super) fn slot(&self) -> Option<&Slot> {
        match &self.what {
            What::Tick(slot) => Some(slot),
            What::Run { .. } => None,
        }
    }

    pub(super) fn spec_hash(&self) -> Option<SpecHash> {
        match &self.what {
            What::Tick(_) => None,
            What::Run { row, .. } => Some(row.spec.spec_hash),
        }
    }

    /// The spec that it was made for has come.
    pub(super) fn provide(&mut self, hash: SpecHash, found: &Arc<Spec>) {
        if let What::Run { row, spec, .. } = &mut self.what
            && row.spec.spec_hash == hash
        {
            *spec = Some(found.clone());
        }
    }

    /// The spec that it was made for, if that is not at hand.
    pub(super) fn lacks(&self) -> Option<SpecHash> {
        match &self.what {
            What::Run { row, spec: None, .. } => Some(row.spec.spec_hash),
            What::Run { .. } | What::Tick(_) => None,
        }
    }

    /// Whose turn is before whose: what replaces another, then first come, first served, by creation where that is
    /// one moment.
    fn turn(&self) -> (bool, BootTime, RunName) {
        let name = match &self.what {
            What::Tick(slot) => RunName::new(slot.due, 0),
            What::Run { name, .. } => *name,
        };
        (!self.replaces, self.queued, name)
    }

    fn run(&self) -> Option<RunName> {
        match &self.what {
            What::Tick(_) => None,
            What::Run { name, .. } => Some(*name),
        }
    }
}

/// A run from its intent until the controller has all of it.
#[derive(Debug)]
pub(super) struct RunEntry {
    pub(super) key: PipelineKey,
    pub(super) row: RunRow,
    pub(super) outbox: Outbox,
    pub(super) spec: Option<ReadSpec>,
    given: Given,
    pub(super) machine: Option<RunMachine>,
    /// The slot that it starts for.
    pub(super) slot: Option<Slot>,
    pub(super) cancelled_by: Option<String>,
    log_delivered: bool,
    pub(super) artifacts: RunArtifacts,
    /// Until when it may go on, if it is bound to the lease.
    pub(super) bound: Option<Bound>,
}

impl RunEntry {
    /// Its pipeline was exclusive when it started.
    pub(super) fn is_exclusive(&self) -> bool {
        self.spec.as_ref().is_some_and(|spec| spec.spec.exclusive)
    }

    /// It is about to start.
    pub(super) fn is_intent(&self) -> bool {
        self.row.state == RunState::Intent
    }

    /// It began and has not ended.
    pub(super) fn is_running(&self) -> bool {
        self.row.state == RunState::Started
    }

    pub(super) fn is_ended(&self) -> bool {
        self.row.state == RunState::Ended
    }
}

impl Agent {
    /// What the journal held of a run that an earlier process had: it goes on if its machine was `told` enough, which
    /// gives the tasks that want a slot; otherwise it ends.
    pub(super) fn recover_run(
        &mut self,
        now: Now,
        run: RunName,
        row: RunRow,
        facts: BTreeMap<u64, RunEvent>,
        (told, bound): (Vec<Told>, Option<BootTime>),
        fx: &mut Effects,
    ) -> Vec<String> {
        let key = row.spec.key();
        let spec = self.specs.get(&row.spec.spec_hash).cloned();
        let state = row.state;
        if state == RunState::Queued {
            let what = What::Run { name: run, row: Box::new(row), given: Given::default(), spec };
            if let Some(claim) = self.claims.get_mut(&key) {
                claim.waiting.push_back(Waiting::new(now.boot, what));
                self.parked.insert(key);
            }
            return Vec::new();
        }
        let (epoch, from_controller) = (row.epoch, row.from_controller);
        let outbox = Outbox::recovered(row.acknowledged, facts);
        let entry = RunEntry {
            key: key.clone(),
            row,
            outbox,
            spec: spec.as_ref().and_then(Spec::read),
            given: Given::default(),
            machine: None,
            slot: None,
            cancelled_by: None,
            log_delivered: false,
            artifacts: RunArtifacts::default(),
            bound: None,
        };
        self.runs.insert(run, entry);
        self.recover_artifacts(run, fx);
        if let RunState::Intent | RunState::Started = state
            && let Some(wanted) = self.resume_run(now, run, told, fx)
        {
            self.rebind(now, run, bound.filter(|_| self.is_claimed(&key, epoch)));
            return wanted;
        }
        match state {
            // Given back before it could start, so that the controller has it again.
            RunState::Intent if from_controller && !self.is_claimed(&key, epoch) => {
                self.abandon(now, run, Reason::LEASE_EXPIRED, fx);
            }
            RunState::Intent => {
                let message = "the agent ended between the intent to start it and the record that it started";
                self.end_unstarted(now, run, Reason::START_UNCERTAIN, message, fx);
            }
            RunState::Started => {
                let message = Some("the agent was restarted under it".to_owned());
                let reason = Some(Reason::AGENT_RESTARTED);
                self.push_fact(run, RunEvent::Ended { phase: RunPhase::Error, reason, message, at: now.wall }, fx);
                self.finish(now, run, false, fx);
            }
            RunState::Ended | RunState::Queued => {
                let settled = self.runs.get(&run).is_some_and(|entry| entry.outbox.is_empty());
                fx.then.push(Effect::FinishRun { run, keep_workspace: true });
                fx.then.extend(settled.then_some(Effect::SettleRun(run)));
            }
        }
        Vec::new()
    }

    /// The controller made a run. Repeated until its first fact has come, so a known one is no news.
    pub(super) fn start_run(&mut self, now: Now, start: StartRun, fx: &mut Effects) {
        let key = start.spec.key();
        let Some(claim) = self.claims.get_mut(&key) else { return };
        let known =
            self.runs.contains_key(&start.run) || claim.waiting.iter().any(|waiting| waiting.run() == Some(start.run));
        if known || !claim.row.claimed || claim.row.epoch != start.epoch {
            return;
        }
        let row = Box::new(RunRow {
            epoch: start.epoch,
            state: RunState::Queued,
            acknowledged: 0,
            from_controller: true,
            created_at: start.created_at,
            artifacts: Vec::new(),
            spec: start.spec,
        });
        let spec = self.specs.get(&row.spec.spec_hash).cloned();
        if spec.is_none() {
            self.wanted.insert(row.spec.spec_hash);
        }
        let given = Given { payload: start.payload.map(Arc::from), reused: start.reused };
        let what = What::Run { name: start.run, row, given, spec };
        claim.waiting.push_back(Waiting::new(now.boot, what));
        self.start_waiting(now, &key, fx);
    }

    /// Starts what waits, in order, as far as lease, spec and `concurrency` let it.
    pub(super) fn start_waiting(&mut self, now: Now, key: &PipelineKey, fx: &mut Effects) {
        while self.start_next(now, key, fx) {}
    }

    /// Starts what waits longest, or says why it gets no run; false if it goes on waiting, or nothing waits.
    fn start_next(&mut self, now: Now, key: &PipelineKey, fx: &mut Effects) -> bool {
        let slot_now = self.lease.slot_now(now);
        let live = self.may_start(now, key);
        let Some(claim) = self.claims.get_mut(key) else { return false };
        let Some(waiting) = claim.waiting.front() else { return false };
        let spec = match &waiting.what {
            What::Run { spec, .. } => spec.clone(),
            What::Tick(_) => claim.spec.clone().filter(|_| claim.is_in_effect(now)),
        };
        let hosted = waiting.slot().map(|slot| claim.hosted(slot));
        let Some(spec) = spec.filter(|_| live).as_ref().and_then(Spec::read) else {
            self.parked.insert(key.clone());
            return false;
        };
        let expired = match (waiting.slot(), hosted, slot_now) {
            (Some(_), Some(None), _) => Some(Reason::TOO_LATE),
            (Some(slot), Some(Some(hosted)), Some(slot_now)) if hosted.too_late(slot, slot_now) => {
                Some(Reason::TOO_LATE)
            }
            _ => None,
        };
        let expired = match (expired, self.journal_failed) {
            (Some(_), true) => Some(Reason::AGENT_DISK),
            (None, true) => {
                self.parked.insert(key.clone());
                return false;
            }
            (expired, false) => expired,
        };
        // Runs were cancelled for it: it starts when they have ended.
        let patience = spec.spec.queue_timeout.filter(|_| !waiting.replaces).map(Duration::from);
        let gives_up = patience.map(|patience| waiting.since + patience);
        let expired =
            expired.or_else(|| gives_up.filter(|gives_up| *gives_up <= now.boot).map(|_| Reason::QUEUE_TIMED_OUT));
        let admission =
            if expired.is_some() { Admission::Skip } else { self.holders.admit(&spec, claim.row.elsewhere) };
        match admission {
            Admission::Start | Admission::Skip => {
                let Some(waiting) = claim.waiting.pop_front() else { return false };
                let skip = (admission == Admission::Skip).then(|| expired.unwrap_or(Reason::OVERLAP));
                self.begin(now, key, waiting, spec, skip, fx);
            }
            Admission::Wait => {
                if let Some(gives_up) = gives_up {
                    self.timers.arm_by(Timer::Queue(key.clone()), gives_up);
                }
                return false;
            }
            Admission::Replace(oldest) => {
                if let Some(front) = claim.waiting.front_mut() {
                    front.replaces = true;
                }
                self.cancel_run(now, oldest, "a newer run takes its place", fx);
                let ended = self.runs.get(&oldest).is_none_or(RunEntry::is_ended);
                if !ended {
                    return false;
                }
            }
        }
        true
    }

    /// Rule 7: the intent and the watermark first, durably; or the reason why there is no run.
    fn begin(
        &mut self,
        now: Now,
        key: &PipelineKey,
        waiting: Waiting,
        spec: ReadSpec,
        skip: Option<Reason>,
        fx: &mut Effects,
    ) {
        let Some(claim) = self.claims.get_mut(key) else { return };
        let (run, row, given, slot) = match waiting.what {
            What::Run { name, row, given, .. } => (name, *row, given, None),
            What::Tick(slot) => {
                claim.row.watermark = claim.row.watermark.max(slot.due);
                fx.commit.push(JournalChange::PutClaim(key.clone(), claim.row.clone()));
                if let Some(reason) = skip {
                    self.skip(key, Passed::one(slot, reason), fx);
                    return;
                }
                // By the clock that says when it is due, as of runs that the controller makes: the agent's own may be behind.
                let created_at = self.lease.slot_now(now).unwrap_or(now.wall).max(slot.due);
                let row = RunRow {
                    spec: RunSpec {
                        workflow: key.workflow.clone(),
                        pipeline: key.pipeline.clone(),
                        trigger: RunTrigger {
                            kind: TriggerType::Cron,
                            name: Some(slot.trigger.clone()),
                            scheduled_time: Some(slot.at),
                            by: None,
                        },
                        params: claim.hosted(&slot).map_or_else(IndexMap::new, |hosted| params(&spec, hosted)),
                        revision: claim.row.revision.clone(),
                        spec_hash: claim.row.spec_hash,
                        rerun_of: None,
                    },
                    epoch: claim.row.epoch,
                    state: RunState::Queued,
                    acknowledged: 0,
                    from_controller: false,
                    created_at,
                    artifacts: Vec::new(),
                };
                (RunName::of_slot(key, &slot.trigger, slot.at), row, Given::default(), Some(slot))
            }
        };
        if self.runs.contains_key(&run) {
            return;
        }
        let row = RunRow { state: RunState::Intent, ..row };
        let entry = RunEntry {
            key: key.clone(),
            row: row.clone(),
            outbox: Outbox::default(),
            spec: Some(spec.clone()),
            given,
            machine: None,
            slot,
            cancelled_by: None,
            log_delivered: false,
            artifacts: RunArtifacts::default(),
            bound: None,
        };
        self.runs.insert(run, entry);
        if let Some(reason) = skip {
            let message = if reason == Reason::OVERLAP { "an earlier run was running" } else { "it waited too long" };
            self.end_unstarted(now, run, reason, message, fx);
            return;
        }
        self.holders.hold(&spec, run);
        if self.mutants.is(Mutant::IntentAfterStart) {
            self.intent_durable(now, run, fx);
            return;
        }
        fx.commit.push(JournalChange::PutRun(run, row));
        fx.then.push(Effect::ConfirmIntent(run));
    }

    /// Rule 7, second half: the lease is checked now, and nothing lies between this and the start.
    pub(super) fn intent_durable(&mut self, now: Now, run: RunName, fx: &mut Effects) {
        let Some(entry) = self.runs.get_mut(&run).filter(|entry| entry.is_intent()) else { return };
        let (key, epoch, cancelled_by) = (entry.key.clone(), entry.row.epoch, entry.cancelled_by.take());
        let is_due = entry.slot.is_some();
        let claimed = self.is_claimed(&key, epoch);
        // Given back meanwhile: also its end is the next owner's to tell.
        if let Some(by) = cancelled_by.filter(|_| claimed) {
            self.end_unstarted(now, run, Reason::CANCELLED, &by, fx);
            return;
        }
        // Also while the pipeline is being given back: this is the start in hand, and the next owner's slots are later.
        let live = self.claims.get(&key).is_some_and(|claim| {
            self.is_live(now, claim) && !self.doubts(now, claim) && (!is_due || claim.is_in_effect(now))
        });
        if !claimed || !live {
            self.abandon(now, run, Reason::LEASE_EXPIRED, fx);
            return;
        }
        if let Some(reason) = self.passed_meanwhile(now, run) {
            self.abandon(now, run, reason, fx);
            return;
        }
        let Some(entry) = self.runs.get_mut(&run) else { return };
        let Some(spec) = entry.spec.as_ref().map(ReadSpec::pipeline) else { return };
        entry.row.state = RunState::Started;
        fx.commit.push(JournalChange::PutRun(run, entry.row.clone()));
        let (row, given) = (entry.row.clone(), std::mem::take(&mut entry.given));
        let (agent, Given { payload, reused }) = (self.config.name.clone(), given);
        let told = Told::Made { payload: payload.clone(), reused: reused.clone() };
        fx.now.push(Effect::Remember { run, told });
        let machine = RunMachine::new(run, row.spec.clone(), spec, agent, row.epoch, payload, reused);
        entry.machine = Some(machine);
        self.bind(now, run, fx);
        if !row.from_controller {
            self.push_fact(run, RunEvent::Created { spec: row.spec, at: row.created_at }, fx);
        }
        self.drive(now, run, Input::Start, fx);
        self.release_if_due(&key, fx);
    }

    /// Why a due time starts nothing any more, since its intent took long to become durable.
    fn passed_meanwhile(&self, now: Now, run: RunName) -> Option<Reason> {
        let entry = self.runs.get(&run)?;
        let slot = entry.slot.as_ref()?;
        let hosted = self.claims.get(&entry.key)?.hosted(slot)?;
        if hosted.is_suspended() {
            return Some(Reason::SUSPENDED);
        }
        self.lease.slot_now(now).filter(|slot_now| hosted.too_late(slot, *slot_now)).map(|_| Reason::TOO_LATE)
    }

    /// The start was not to be: a slot leaves its reason, the controller's own run goes back to it.
    pub(super) fn abandon(&mut self, now: Now, run: RunName, reason: Reason, fx: &mut Effects) {
        let Some(entry) = self.runs.remove(&run) else { return };
        let key = entry.key.clone();
        fx.commit.push(JournalChange::DeleteRun(run));
        if let Some(slot) = entry.slot {
            self.skip(&entry.key, Passed::one(slot, reason), fx);
        } else if let Some(claim) = self.claims.get_mut(&entry.key)
            && claim.row.claimed
            && claim.row.epoch == entry.row.epoch
        {
            let row = Box::new(RunRow { state: RunState::Queued, ..entry.row.clone() });
            let what = What::Run { name: run, row, given: entry.given, spec: entry.spec.as_ref().map(ReadSpec::kept) };
            claim.waiting.push_front(Waiting::new(now.boot, what));
            self.parked.insert(entry.key);
        }
        if let Some(spec) = entry.spec {
            let shared = self.holders.let_go(&spec, run);
            drop(spec);
            self.remove_if_unused(entry.row.spec.spec_hash, fx);
            self.go_on(now, &shared, fx);
        }
        self.release_if_due(&key, fx);
    }

    /// Feeds a run's machine, and others that its slots go to, until all have said what they want.
    pub(super) fn drive(&mut self, now: Now, run: RunName, input: Input, fx: &mut Effects) {
        let mut inputs = VecDeque::from([(run, input)]);
        while let Some((run, input)) = inputs.pop_front() {
            let Some(machine) = self.runs.get_mut(&run).and_then(|entry| entry.machine.as_mut()) else { continue };
            fx.now.push(Effect::Remember { run, told: Told::Happened { now, input: input.clone() } });
            let outputs = machine.handle(now, input);
            let (ended, ending) = (machine.is_ended(), machine.is_in_finally());
            match machine.next_timeout().filter(|_| !ended) {
                Some(at) => self.timers.arm(Timer::Run(run), at),
                None => self.timers.disarm(&Timer::Run(run)),
            }
            let mut success = false;
            for output in outputs {
                match output {
                    Output::Fact(event) => {
                        success |= matches!(event, RunEvent::Ended { phase: RunPhase::Success, .. });
                        self.keep_artifacts(run, &event, fx);
                        self.push_fact(run, event, fx);
                    }
                    Output::TaskReady(task) => {
                        if self.slots.want(run, task.clone(), ending) {
                            inputs.push_back((run, Input::SlotGranted(task)));
                        }
                    }
                    Output::SlotReturned(task) => {
                        let next = self.slots.give_back(run, &task);
                        inputs.extend(next.map(|(run, task)| (run, Input::SlotGranted(task))));
                    }
                    Output::Spawn(command) => fx.now.push(Effect::SpawnStep(command)),
                    Output::Signal(id, signal) => fx.now.push(Effect::SignalStep { id, signal }),
                    Output::Note(text) => fx.now.push(Effect::LogNote { run, text }),
                }
            }
            if ended {
                let freed = self.slots.give_all_back(run);
                inputs.extend(freed.into_iter().map(|(run, task)| (run, Input::SlotGranted(task))));
                self.finish(now, run, success, fx);
            }
        }
    }

    /// A task asks for a slot again.
    pub(super) fn want_slot(&mut self, now: Now, run: RunName, task: String, fx: &mut Effects) {
        let machine = self.runs.get(&run).and_then(|entry| entry.machine.as_ref());
        let ending = machine.is_some_and(RunMachine::is_in_finally);
        if self.slots.want(run, task.clone(), ending) {
            self.drive(now, run, Input::SlotGranted(task), fx);
        }
    }

    /// A run that never began ends.
    fn end_unstarted(&mut self, now: Now, run: RunName, reason: Reason, message: &str, fx: &mut Effects) {
        let Some(entry) = self.runs.get(&run) else { return };
        if !entry.row.from_controller && entry.outbox.is_new() {
            let created = RunEvent::Created { spec: entry.row.spec.clone(), at: entry.row.created_at };
            self.push_fact(run, created, fx);
        }
        let (reason, message) = (Some(reason), Some(message.to_owned()));
        self.push_fact(run, RunEvent::Ended { phase: RunPhase::Error, reason, message, at: now.wall }, fx);
        self.finish(now, run, false, fx);
    }

    /// The last fact of a run is out.
    pub(super) fn finish(&mut self, now: Now, run: RunName, success: bool, fx: &mut Effects) {
        let Some(entry) = self.runs.get_mut(&run) else { return };
        entry.row.state = RunState::Ended;
        entry.machine = None;
        let key = entry.key.clone();
        self.timers.disarm(&Timer::Bound(run));
        fx.commit.push(JournalChange::PutRun(run, entry.row.clone()));
        let spec = entry.spec.take();
        let hash = entry.row.spec.spec_hash;
        let keep = spec.as_ref().is_some_and(|spec| keeps_workspace(spec.spec.keep_workspace, success));
        fx.then.push(Effect::FinishRun { run, keep_workspace: keep });
        if let Some(spec) = spec {
            let shared = self.holders.let_go(&spec, run);
            drop(spec);
            self.remove_if_unused(hash, fx);
            self.go_on(now, &shared, fx);
        }
        self.release_if_due(&key, fx);
    }

    /// A turn is free: whoever shares it goes on; first come, first served, over all of a group.
    fn go_on(&mut self, now: Now, shared: &Shared, fx: &mut Effects) {
        let mut keys = self.holders.sharing(shared);
        loop {
            let turn = |key: &PipelineKey| self.claims.get(key)?.waiting.front().map(Waiting::turn);
            let first = keys.iter().enumerate().filter_map(|(at, key)| Some((turn(key)?, at))).min();
            let Some((_, at)) = first else { return };
            if !self.start_next(now, &keys[at].clone(), fx) {
                keys.swap_remove(at);
            }
        }
    }

    /// Somebody wants a run to end.
    pub(super) fn cancel_run(&mut self, now: Now, run: RunName, by: &str, fx: &mut Effects) {
        if let Some(entry) = self.runs.get_mut(&run) {
            let first = entry.cancelled_by.is_none();
            entry.cancelled_by.get_or_insert_with(|| by.to_owned());
            // Before the start, the intent's confirmation finds it.
            if first && entry.machine.is_some() {
                self.drive(now, run, Input::Cancel(by.to_owned()), fx);
            }
            return;
        }
        let waits = |waiting: &Waiting| waiting.run() == Some(run);
        let Some((key, claim)) = self.claims.iter_mut().find(|(_, claim)| claim.waiting.iter().any(waits)) else {
            return;
        };
        let at = claim.waiting.iter().position(waits);
        let Some(What::Run { row, spec, .. }) = at.and_then(|at| claim.waiting.remove(at)).map(|waiting| waiting.what)
        else {
            return;
        };
        let entry = RunEntry {
            key: key.clone(),
            row: *row,
            outbox: Outbox::default(),
            spec: spec.as_ref().and_then(Spec::read),
            given: Given::default(),
            machine: None,
            slot: None,
            cancelled_by: None,
            log_delivered: false,
            artifacts: RunArtifacts::default(),
            bound: None,
        };
        self.runs.insert(run, entry);
        self.end_unstarted(now, run, Reason::CANCELLED, by, fx);
    }

    pub(super) fn cancel_all(&mut self, now: Now, by: &str, fx: &mut Effects) {
        for run in self.running() {
            self.cancel_run(now, run, by, fx);
        }
    }

    /// The controller has `count` facts of a run.
    pub(super) fn acknowledged(&mut self, run: RunName, count: u64, fx: &mut Effects) {
        let Some(entry) = self.runs.get_mut(&run) else { return };
        let had = !entry.outbox.is_empty();
        entry.outbox.acknowledge(count);
        let acknowledged = entry.outbox.acknowledged();
        if had && entry.is_ended() && entry.outbox.is_empty() {
            fx.then.push(Effect::SettleRun(run));
        }
        if acknowledged >= entry.row.acknowledged + TRIM && !entry.is_ended() {
            entry.row.acknowledged = acknowledged;
            fx.commit.push(JournalChange::PutRun(run, entry.row.clone()));
        }
        self.upload_artifacts(run, fx);
        self.forget_if_done(run, fx);
    }

    pub(super) fn log_delivered(&mut self, run: RunName, fx: &mut Effects) {
        if let Some(entry) = self.runs.get_mut(&run) {
            entry.log_delivered = true;
            self.forget_if_done(run, fx);
        }
    }

    pub(super) fn forget_if_done(&mut self, run: RunName, fx: &mut Effects) {
        let done = |entry: &RunEntry| {
            let all_out = entry.outbox.is_empty() && entry.log_delivered && entry.row.artifacts.is_empty();
            entry.is_ended() && all_out
        };
        if self.runs.get(&run).is_some_and(done) {
            self.runs.remove(&run);
            fx.commit.push(JournalChange::DeleteRun(run));
            fx.then.push(Effect::ForgetRun(run));
        }
    }
}

/// What a cron run is given: the trigger's params over the defaults.
fn params(spec: &CompiledPipeline, hosted: &Hosted) -> IndexMap<String, String> {
    let given = &hosted.cron().params;
    let value = |(name, param): (&String, &xene_schemas::param::Param)| {
        let value = given.get(name).or(param.default.as_ref())?;
        Some((name.clone(), value.to_string()))
    };
    spec.params.iter().filter_map(value).collect()
}
