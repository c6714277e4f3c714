//! Runs at the controller: those that it makes, facts that agents report, and runs whose agent is lost.

use std::{collections::BTreeMap, time::Duration};

use indexmap::IndexMap;
use xene_agent::decide::{
    mutant::Mutant,
    time::{BootTime, Now, Timers, after},
};
use xene_schemas::{
    event::EventType,
    meta::{AgentName, PipelineKey, Revision, RunName, SpecHash},
    phase::{Reason, RunPhase, TaskPhase},
    pipeline::Autonomy,
    run::{Run, RunEvent, RunSpec, RunTrigger, TriggerType},
    wire::control::{Acknowledged, ControllerMessage, Report, RunFact, StartRun},
};

use super::{
    Controller, Timer,
    event::{Again, Answer, Effect, Effects, Refusal, RequestKey, RunOrder, SessionId},
    note,
    reconcile::Pipeline,
    rows::{Change, RunRow},
};

/// How long a run may take that does not say.
const TIMEOUT: Duration = Duration::from_secs(6 * 3600);

/// A run that somebody asks for.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) pipeline: PipelineKey,
    pub(super) spec_hash: SpecHash,
    pub(super) run: RunName,
    pub(super) trigger: RunTrigger,
    pub(super) params: IndexMap<String, String>,
    pub(super) payload: Option<Vec<u8>>,
    pub(super) delivery: Option<RequestKey>,
    pub(super) force: bool,
    /// The run that it repeats: then its spec need not be the one in effect.
    pub(super) repeats: Option<Repeat>,
}

/// What is taken over from a run that is repeated, beside what any order has.
#[derive(Debug)]
pub(super) struct Repeat {
    of: RunName,
    revision: Revision,
    /// Tasks that need not run again, with what they published.
    reused: IndexMap<String, IndexMap<String, String>>,
}

impl From<RunOrder> for Order {
    fn from(order: RunOrder) -> Self {
        let RunOrder { pipeline, spec_hash, run, trigger, params, payload, delivery, force } = order;
        Self { pipeline, spec_hash, run, trigger, params, payload, delivery, force, repeats: None }
    }
}

/// What the agent of a run is told until its first fact has come.
pub(super) fn start_message(row: &RunRow) -> Option<StartRun> {
    if !row.from_controller || row.facts > 0 || row.run.status.phase == RunPhase::Unknown {
        return None;
    }
    Some(StartRun {
        run: row.run.metadata.name,
        epoch: row.run.status.epoch?,
        spec: row.run.spec.clone(),
        created_at: row.run.metadata.created_at,
        payload: row.payload.clone(),
        extra: IndexMap::new(),
        reused: row.reused.clone(),
    })
}

impl Controller {
    pub(super) fn load_run(&mut self, now: Now, row: RunRow) {
        let (run, key) = (row.run.metadata.name, row.run.spec.key());
        self.active.entry(key.clone()).or_default().insert(run);
        match &row.run.status.agent {
            Some(agent) => {
                let state = self.agents.entry(agent.clone());
                let state = state.or_insert_with(|| super::agents::AgentState::new(None));
                state.runs.insert(run);
                state.silent |= row.run.status.phase == RunPhase::Unknown;
                let agent = agent.clone();
                self.arm_agent(&agent);
            }
            None if row.run.status.phase == RunPhase::Unknown => {}
            None => self.wait_for_agent(&key, run),
        }
        if let Some(at) = row.give_up_at {
            let left = Duration::try_from(at.duration_since(now.wall)).unwrap_or_default();
            self.timers.arm(Timer::GiveUp(run), now.boot + left);
        }
        self.runs.insert(run, row);
    }

    /// All of these, or none: what speaks against one of them is looked for before another is made. But a pipeline that
    /// is suspended keeps only itself from starting, as one with a schedule does.
    pub(super) fn order_runs(
        &mut self,
        now: Now,
        orders: Vec<RunOrder>,
        fx: &mut Effects,
    ) -> Result<Vec<Run>, Refusal> {
        let is_suspended = |order: &Order| matches!(self.check_order(order), Err(Refusal::Suspended(_)));
        let (suspended, orders): (Vec<Order>, Vec<Order>) = orders.into_iter().map(Order::from).partition(is_suspended);
        if let (true, Some(order)) = (orders.is_empty(), suspended.first()) {
            return Err(Refusal::Suspended(order.pipeline.clone()));
        }
        orders.iter().try_for_each(|order| self.check_order(order).map(drop))?;
        for Order { pipeline, trigger, .. } in suspended {
            let by = trigger.by.unwrap_or_else(|| "a trigger".into());
            let message = format!("not started by {by}: it is suspended");
            note(fx, now, EventType::Normal, "Suspended", format!("pipeline/{pipeline}"), message);
        }
        orders.into_iter().map(|order| self.order_run(now, order, fx)).collect()
    }

    /// Whether it can be carried out now, as it can be if it was before.
    fn check_order(&self, order: &Order) -> Result<&Pipeline, Refusal> {
        let key = &order.pipeline;
        let pipeline = self.pipelines.get(key);
        let pipeline = pipeline.ok_or_else(|| Refusal::NotFound { kind: "pipeline", name: key.to_string() })?;
        if self.runs.contains_key(&order.run) || self.ended_run(key, order.run).is_some() {
            return Ok(pipeline);
        }
        if pipeline.spec_hash != order.spec_hash && order.repeats.is_none() {
            return Err(Refusal::SpecChanged);
        }
        if (pipeline.suspend || self.suspension(key).is_some()) && !order.force {
            return Err(Refusal::Suspended(key.clone()));
        }
        Ok(pipeline)
    }

    /// Rule 12: durable before it is sent, and the same run for the same name.
    pub(super) fn order_run(&mut self, now: Now, order: Order, fx: &mut Effects) -> Result<Run, Refusal> {
        let pipeline = self.check_order(&order)?;
        let key = order.pipeline;
        if let Some(row) = self.runs.get(&order.run) {
            return Ok(row.run.clone());
        }
        let (mut rerun_of, mut revision, mut reused) = (None, None, IndexMap::new());
        if let Some(repeat) = order.repeats {
            (rerun_of, revision, reused) = (Some(repeat.of), Some(repeat.revision), repeat.reused);
        }
        let spec = RunSpec {
            workflow: key.workflow.clone(),
            pipeline: key.pipeline.clone(),
            trigger: order.trigger,
            params: order.params,
            revision: revision.unwrap_or_else(|| pipeline.revision.clone()),
            spec_hash: order.spec_hash,
            rerun_of,
        };
        if let Some(ended) = self.ended_run(&key, order.run) {
            // The record is in the store; what is known here is that it ended, and how.
            let mut run = Run::new(order.run, order.run.at(), spec);
            run.status.phase = if ended.success { RunPhase::Success } else { RunPhase::Error };
            return Ok(run);
        }
        let busy = self.is_busy(&key);
        let mut run = Run::new(order.run, now.wall, spec);
        let owner = self.owners.get(&key).and_then(|owned| owned.row.owner.as_ref());
        let waits = match owner {
            Some(owner) if self.is_connected(owner) => "its pipeline moves to another agent",
            Some(_) => "its agent is not connected",
            None => "no agent has its pipeline",
        };
        (run.status.reason, run.status.message) = (Some(Reason::WAITING_FOR_AGENT), Some(waits.to_owned()));
        if busy {
            run.status.reason = Some(Reason::QUEUED);
            run.status.message = Some("it waits for an earlier run of this pipeline".to_owned());
        }
        let mut row = RunRow { payload: order.payload, reused, ..RunRow::new(run, true) };
        if let Some(delivery) = order.delivery {
            row.request = delivery.request;
            fx.commit.push(Change::PutDelivery(key.clone(), delivery.id, order.run));
        }
        self.runs.insert(order.run, row);
        self.active.entry(key.clone()).or_default().insert(order.run);
        self.wait_for_agent(&key, order.run);
        self.address_runs(&key, fx);
        let row = &self.runs[&order.run];
        // Else it was written with its agent.
        if row.run.status.agent.is_none() {
            fx.commit.push(Change::PutRun(Box::new(row.clone())));
        }
        Ok(row.run.clone())
    }

    /// The same again, whatever is in effect by now; with `failed`, without the tasks that succeeded.
    pub(super) fn rerun(&mut self, now: Now, again: Again, fx: &mut Effects) -> Result<Run, Refusal> {
        let RunRow { run: Run { metadata, spec, status }, payload, .. } = again.original;
        if !status.phase.is_final() {
            return Err(Refusal::NotEnded(metadata.name));
        }
        if again.failed && status.phase == RunPhase::Success {
            return Err(Refusal::NothingFailed(metadata.name));
        }
        let succeeded = status.tasks.into_iter().filter(|(_, task)| {
            // What others may want of it is on the agent that had the run: such a task runs again.
            let reusable = task.phase == TaskPhase::Success && task.artifacts.is_empty();
            again.failed && reusable && !task.finally
        });
        let reused = succeeded.map(|(name, task)| (name, task.outputs)).collect();
        let order = Order {
            pipeline: spec.key(),
            spec_hash: spec.spec_hash,
            run: again.run,
            trigger: RunTrigger { by: Some(again.by), ..spec.trigger },
            params: spec.params,
            payload,
            delivery: again.delivery,
            force: again.force,
            repeats: Some(Repeat { of: metadata.name, revision: spec.revision, reused }),
        };
        self.order_run(now, order, fx)
    }

    /// No agent is to have the run yet; there may be a limit to that.
    fn wait_for_agent(&mut self, key: &PipelineKey, run: RunName) {
        self.unaddressed.insert((key.clone(), run));
        if self.pipelines.get(key).is_some_and(|pipeline| pipeline.queue_timeout.is_some()) {
            self.timers.arm(Timer::Queue(run), self.asked);
        }
    }

    /// Ends a run that no agent has once it has waited for `queueTimeout`. Who has it counts by itself.
    pub(super) fn queue_due(&mut self, now: Now, run: RunName, fx: &mut Effects) {
        let Some(row) = self.runs.get(&run) else { return };
        let key = row.run.spec.key();
        let limit = self.pipelines.get(&key).and_then(|pipeline| pipeline.queue_timeout);
        let Some(limit) = limit.filter(|_| self.unaddressed.contains(&(key, run))) else { return };
        let due = after(row.run.metadata.created_at, limit.into());
        match Duration::try_from(due.duration_since(now.wall)) {
            Ok(left) if !left.is_zero() => self.timers.arm(Timer::Queue(run), now.boot + left),
            _ => self.end(now, run, Reason::QUEUE_TIMED_OUT, format!("no agent could start it within {limit}"), fx),
        }
    }

    /// Runs that wait for an agent go to the owner of the current epoch, if it is there to hear of them.
    pub(super) fn address_runs(&mut self, key: &PipelineKey, fx: &mut Effects) {
        let Some(owned) = self.owners.get(key).filter(|owned| !owned.row.revoking && !owned.row.void) else { return };
        let Some(owner) = &owned.row.owner else { return };
        let Some(state) = self.agents.get_mut(owner).filter(|state| state.session.is_some()) else { return };
        let first = (key.clone(), RunName::from_bytes([0; 16]));
        let waiting = self.unaddressed.range(first..).take_while(|(of, _)| of == key);
        for entry in waiting.cloned().collect::<Vec<_>>() {
            self.unaddressed.remove(&entry);
            let run = entry.1;
            let Some(row) = self.runs.get_mut(&run) else { continue };
            let status = &mut row.run.status;
            (status.agent, status.epoch) = (Some(owner.clone()), Some(owned.row.epoch));
            if status.reason == Some(Reason::WAITING_FOR_AGENT) {
                status.message = Some(format!("{owner} was asked to start it"));
            }
            state.runs.insert(run);
            fx.commit.push(Change::PutRun(Box::new(row.clone())));
            self.to_start.insert((owner.clone(), run));
        }
    }

    /// A clean hand-over: runs that the old owner does not list as running it never began, so they go on.
    pub(super) fn take_back_runs(
        &mut self,
        now: Now,
        key: &PipelineKey,
        old: &AgentName,
        running: &[RunName],
        fx: &mut Effects,
    ) {
        for run in self.active.get(key).cloned().unwrap_or_default() {
            let Some(row) = self.runs.get_mut(&run) else { continue };
            let status = &mut row.run.status;
            // Of a lost run nobody can say that it never began.
            let lost = status.phase == RunPhase::Unknown;
            if lost
                || row.facts > 0
                || !row.from_controller
                || status.agent.as_ref() != Some(old)
                || running.contains(&run)
            {
                continue;
            }
            (status.agent, status.epoch) = (None, None);
            status.reason = Some(Reason::WAITING_FOR_AGENT);
            status.message = Some(format!("{old} gave its pipeline back"));
            fx.commit.push(Change::PutRun(Box::new(row.clone())));
            self.forget_agent_run(old, run);
            self.wait_for_agent(key, run);
        }
        if !self.pipelines.contains_key(key) {
            self.end_unaddressed(now, key, fx);
        }
    }

    /// Runs that nobody began, of a pipeline that is gone.
    pub(super) fn end_unaddressed(&mut self, now: Now, key: &PipelineKey, fx: &mut Effects) {
        let runs: Vec<RunName> = self.unaddressed.iter().filter(|(of, _)| of == key).map(|(_, run)| *run).collect();
        for run in runs {
            let message = "its pipeline was removed before it started".to_owned();
            self.end(now, run, Reason::PIPELINE_REMOVED, message, fx);
        }
    }

    pub(super) fn cancel_run(
        &mut self,
        now: Now,
        run: RunName,
        by: String,
        fx: &mut Effects,
    ) -> Result<Answer, Refusal> {
        let Some(row) = self.runs.get_mut(&run) else {
            return Err(self.no_such_run(run));
        };
        if row.run.status.agent.is_none() {
            let message = format!("cancelled by {by}");
            self.end(now, run, Reason::CANCELLED, message, fx);
            return Ok(Answer::Done);
        }
        row.cancel_by.get_or_insert(by);
        fx.commit.push(Change::PutRun(Box::new(row.clone())));
        let agent = row.run.status.agent.clone();
        self.to_start.extend(agent.map(|agent| (agent, run)));
        Ok(Answer::Done)
    }

    /// Facts fold into their runs, each once, in order; then they are acknowledged.
    pub(super) fn report(&mut self, now: Now, session: SessionId, agent: &AgentName, report: Report, fx: &mut Effects) {
        let mut acknowledged: BTreeMap<RunName, u64> = BTreeMap::new();
        let mut changed: BTreeMap<RunName, ()> = BTreeMap::new();
        for fact in report.facts {
            let run = fact.run;
            // A run that is not known, and not from its first fact: only a whole report says that the facts before
            // are not on their way, so that the run was known once.
            if fact.index > 0
                && !report.whole
                && !self.runs.contains_key(&run)
                && self.ended_run(&fact.pipeline, run).is_none()
            {
                continue;
            }
            let count = match self.fold(now, agent, fact, fx) {
                Folded::Changed(count) => {
                    changed.insert(run, ());
                    count
                }
                Folded::Known(count) => count,
            };
            let entry = acknowledged.entry(run).or_default();
            *entry = count.max(*entry);
        }
        for run in changed.into_keys() {
            let Some(row) = self.runs.get(&run) else { continue };
            fx.commit.push(Change::PutRun(Box::new(row.clone())));
            let is_final = row.run.status.phase.is_final();
            self.recount(run);
            if is_final {
                self.retire(now, run, fx);
            }
        }
        if !acknowledged.is_empty() {
            let message = ControllerMessage::Acknowledged(Acknowledged { runs: acknowledged.into_iter().collect() });
            self.acknowledge(session, message, fx);
        }
    }

    /// How many runs of a pipeline go on at agents other than this one, which had it before. A group moves when there
    /// are none; of those that are Unknown nobody can tell.
    pub(super) fn elsewhere(&self, agent: &AgentName, key: &PipelineKey) -> u32 {
        let goes_on = |run: &&RunName| {
            let status = self.runs.get(run).map(|row| &row.run.status);
            let known = status.filter(|status| status.phase != RunPhase::Unknown && !status.phase.is_final());
            known.and_then(|status| status.agent.as_ref()).is_some_and(|on| on != agent)
        };
        let active = self.active.get(key).filter(|_| self.group(key).is_none());
        active.map_or(0, |runs| u32::try_from(runs.iter().filter(goes_on).count()).unwrap_or(u32::MAX))
    }

    /// A run began, ended, or is Unknown: if that is elsewhere, the owner of its pipeline is told how many there are.
    fn recount(&mut self, run: RunName) {
        let Some(row) = self.runs.get(&run) else { return };
        let key = row.run.spec.key();
        let owner = self.owners.get(&key).and_then(|owned| owned.row.owner.as_ref());
        if let Some(owner) = owner.filter(|owner| row.run.status.agent.as_ref().is_some_and(|on| on != *owner)) {
            self.changed.insert((owner.clone(), key));
        }
    }

    fn fold(&mut self, now: Now, agent: &AgentName, fact: RunFact, fx: &mut Effects) -> Folded {
        let (run, past) = (fact.run, fact.index + 1);
        if !self.runs.contains_key(&run) {
            // It ended long since, or was never ours: either way its agent need not keep it.
            if fact.index > 0 || self.ended_run(&fact.pipeline, run).is_some() {
                return Folded::Known(past);
            }
            let RunEvent::Created { spec, at } = &fact.event else { return Folded::Known(past) };
            if let Some(wrong) = self.refuses_slot(now, agent, &fact, spec) {
                fx.now.push(Effect::Alert(format!("{agent} reported run {run}, {wrong}: not taken")));
                return Folded::Known(past);
            }
            let mut record = Run::new(run, *at, spec.clone());
            (record.status.agent, record.status.epoch) = (Some(agent.clone()), Some(fact.epoch));
            // Due before the store was restored: it may have been followed already, and forgotten with its end.
            let unsure = self.row.recovered_at.is_some_and(|at| run.at() <= at);
            let row = RunRow { facts: 1, unsure, ..RunRow::new(record, false) };
            self.fired(agent, &row.run, fx);
            self.runs.insert(run, row);
            self.active.entry(fact.pipeline).or_default().insert(run);
            if let Some(state) = self.agents.get_mut(agent) {
                state.runs.insert(run);
            }
            return Folded::Changed(past);
        }
        let Some(row) = self.runs.get_mut(&run) else { return Folded::Known(past) };
        if row.run.status.phase == RunPhase::Unknown && row.run.status.agent.is_none() {
            // In doubt since a recovery: this is who has it.
            (row.run.status.agent, row.run.status.epoch) = (Some(agent.clone()), Some(fact.epoch));
            if let Some(state) = self.agents.get_mut(agent) {
                state.runs.insert(run);
            }
        }
        // Rule 8: only the agent that holds the intent adds to a run, under the epoch of its start.
        let status = &row.run.status;
        if status.agent.as_ref() != Some(agent)
            || status.epoch != Some(fact.epoch)
            || row.run.spec.key() != fact.pipeline
        {
            fx.now.push(Effect::Alert(format!("{agent} reported run {run}, which is another's: not taken")));
            return Folded::Known(past);
        }
        if fact.index != row.facts {
            return Folded::Known(row.facts);
        }
        row.facts += 1;
        if row.run.status.phase == RunPhase::Unknown {
            found(row, &mut self.timers);
        }
        row.run.apply(&fact.event);
        super::approve::retain(&mut row.decisions, &row.run);
        if row.run.status.phase.is_final() {
            row.run.status.finished_at.get_or_insert(now.wall);
        }
        Folded::Changed(row.facts)
    }

    /// Why a run that an agent says it made for a slot can't be that.
    fn refuses_slot(&mut self, now: Now, agent: &AgentName, fact: &RunFact, spec: &RunSpec) -> Option<&'static str> {
        let trigger = &spec.trigger;
        let slot = trigger.name.as_ref().zip(trigger.scheduled_time);
        let Some((name, at)) = slot.filter(|_| trigger.kind == TriggerType::Cron && spec.key() == fact.pipeline) else {
            return Some("which is not one of a cron trigger of its pipeline");
        };
        if RunName::of_slot(&fact.pipeline, name, at) != fact.run {
            return Some("whose name is not that of its slot");
        }
        self.cannot_tell(now, agent, (&fact.pipeline, fact.epoch), at)
    }

    /// An owner is lost for good: what it had begun, or may have, nobody can tell.
    pub(super) fn lose_runs(&mut self, now: Now, key: &PipelineKey, old: &AgentName, fx: &mut Effects) {
        for run in self.runs_of(key, old, |_| true) {
            self.lose_run(now, run, fx);
        }
    }

    /// An owner is silent, and keeps its pipeline: of what it had begun nothing is known. What it was asked to start, as far
    /// as is known in vain, it starts once it is back.
    pub(super) fn miss_runs(&mut self, now: Now, key: &PipelineKey, owner: &AgentName, fx: &mut Effects) {
        for run in self.runs_of(key, owner, |row| !is_to_start(row)) {
            self.lose_run(now, run, fx);
        }
    }

    /// The owner answers again, and has its claim: what it had goes on there, or it tells how that ended.
    pub(super) fn find_runs(&mut self, key: &PipelineKey, owner: &AgentName, fx: &mut Effects) {
        let epoch = self.owners.get(key).map(|owned| owned.row.epoch);
        // Of an earlier claim of its nobody knows whether it was begun. And since a recovery it may be forgotten how it
        // ended: then nobody tells it again.
        let is_back =
            |row: &RunRow| row.run.status.phase == RunPhase::Unknown && row.run.status.epoch == epoch && !row.unsure;
        for run in self.runs_of(key, owner, is_back) {
            let Some(row) = self.runs.get_mut(&run) else { continue };
            found(row, &mut self.timers);
            fx.commit.push(Change::PutRun(Box::new(row.clone())));
            self.recount(run);
        }
    }

    /// Active runs of a pipeline that an agent has, as far as they are `like` that.
    fn runs_of(&self, key: &PipelineKey, agent: &AgentName, like: impl Fn(&RunRow) -> bool) -> Vec<RunName> {
        let theirs = |run: &&RunName| {
            let row = self.runs.get(run).filter(|row| row.run.status.agent.as_ref() == Some(agent));
            row.is_some_and(&like)
        };
        self.active.get(key).into_iter().flatten().filter(theirs).copied().collect()
    }

    /// When an agent is lost as far as this run of it goes, if its pipeline is another's by now, or the agent's without end:
    /// W after it was last heard. `None` if the pipeline itself is judged.
    pub(super) fn left_alone_at(&self, agent: &AgentName, run: RunName) -> Option<BootTime> {
        let row = self.runs.get(&run).filter(|row| row.run.status.phase != RunPhase::Unknown)?;
        let key = row.run.spec.key();
        if let Some(owned) = self.owners.get(&key).filter(|owned| owned.row.owner.as_ref() == Some(agent))
            && (is_to_start(row) || self.lease_end(owned).is_some())
        {
            return None;
        }
        let heard = self.agents.get(agent)?.renewed_at.unwrap_or_default().max(self.floor);
        Some(heard + self.wait(&key))
    }

    /// W: how long an agent that was not heard may go on with a pipeline; of `Forever`, once it gave that up.
    fn wait(&self, key: &PipelineKey) -> Duration {
        let l = match self.pipelines.get(key).map_or(Autonomy::DEFAULT, |pipeline| pipeline.autonomy) {
            Autonomy::For(l) => l.into(),
            Autonomy::Forever => Duration::ZERO,
        };
        l * 21 / 20 + self.config.pause_margin
    }

    pub(super) fn lose_run(&mut self, now: Now, run: RunName, fx: &mut Effects) {
        let Some(row) = self.runs.get(&run) else { return };
        let key = row.run.spec.key();
        let timeout = self.pipelines.get(&key).and_then(|pipeline| pipeline.timeout).unwrap_or(TIMEOUT);
        let patience = timeout + self.wait(&key);
        // An owner whose claim has no end may come back at any time, and tell.
        let may_tell = self.owners.get(&key).is_some_and(|owned| {
            !row.unsure && owned.row.owner == row.run.status.agent && self.lease_end(owned).is_none()
        });
        let Some(row) = self.runs.get_mut(&run) else { return };
        let phase = row.run.status.phase;
        // One that has just ended may not have been retired yet.
        if phase.is_final() || phase == RunPhase::Unknown && (may_tell || row.give_up_at.is_some()) {
            return;
        }
        row.run.status.phase = RunPhase::Unknown;
        row.run.status.reason = Some(Reason::AGENT_LOST);
        row.run.status.message = Some("its agent is lost; if it comes back, so does the run".to_owned());
        if !may_tell {
            row.give_up_at = Some(after(now.wall, patience));
            self.timers.arm(Timer::GiveUp(run), now.boot + patience);
        }
        let row = row.clone();
        fx.commit.push(Change::PutRun(Box::new(row.clone())));
        self.recount(run);
        if self.mutants.is(Mutant::RetryTooEarly) && self.is_retried(&row) {
            self.retry_lost(now, row, fx);
        }
    }

    /// After a recovery: if it did not begin, as the store remembers, any agent may have begun it since.
    pub(super) fn doubt_run(&mut self, now: Now, run: RunName, fx: &mut Effects) {
        let Some(row) = self.runs.get_mut(&run) else { return };
        row.unsure = true;
        fx.commit.push(Change::PutRun(Box::new(row.clone())));
        if row.from_controller && row.facts == 0 {
            self.unaddressed.remove(&(row.run.spec.key(), run));
            row.run.status.epoch = None;
            if let Some(agent) = row.run.status.agent.take() {
                self.forget_agent_run(&agent, run);
            }
        }
        self.lose_run(now, run, fx);
    }

    /// An Unknown run whose agent has not come back.
    pub(super) fn give_up(&mut self, now: Now, run: RunName, fx: &mut Effects) {
        self.lose_for_good(now, run, "its agent is lost, and had the time to report".into(), fx);
    }

    /// Nobody will report of it any more.
    pub(super) fn lose_for_good(&mut self, now: Now, run: RunName, message: String, fx: &mut Effects) {
        let retried = self.runs.get(&run).filter(|row| self.is_retried(row)).cloned();
        self.end(now, run, Reason::AGENT_LOST, message, fx);
        if let Some(row) = retried {
            self.retry_lost(now, row, fx);
        }
    }

    /// The controller ends a run by itself.
    fn end(&mut self, now: Now, run: RunName, reason: Reason, message: String, fx: &mut Effects) {
        let at = now.wall;
        let Some(row) = self.runs.get_mut(&run) else { return };
        row.run.apply(&RunEvent::Ended { phase: RunPhase::Error, reason: Some(reason), message: Some(message), at });
        row.give_up_at = None;
        fx.commit.push(Change::PutRun(Box::new(row.clone())));
        self.retire(now, run, fx);
    }

    pub(super) fn forget_agent_run(&mut self, agent: &AgentName, run: RunName) {
        if let Some(state) = self.agents.get_mut(agent) {
            state.runs.remove(&run);
        }
    }
}

/// Its agent is to start it, and has not said that it did.
fn is_to_start(row: &RunRow) -> bool {
    row.from_controller && row.facts == 0
}

/// Its agent is back, and so is the run.
fn found(row: &mut RunRow, timers: &mut Timers<Timer>) {
    let status = &mut row.run.status;
    status.phase = if status.started_at.is_some() { RunPhase::Running } else { RunPhase::StartingUp };
    (status.reason, status.message) = (None, None);
    row.give_up_at = None;
    timers.disarm(&Timer::GiveUp(row.run.metadata.name));
}

/// What became of a fact, and how many of its run's facts are held.
enum Folded {
    Changed(u64),
    Known(u64),
}
