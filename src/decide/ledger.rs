//! The firing ledger: one row for each due time of a cron trigger, whatever became of it.
//!
//! The owner of a pipeline looks at every due time: a run's record brings its row along, and every other due time has
//! its reason. What a lost owner may have done nobody can tell; that is a row too.

use std::time::Duration;

use jiff::Timestamp;
use xene_agent::decide::{
    cron::Schedule,
    mutant::Mutant,
    time::{Now, before},
};
use xene_schemas::{
    meta::{AgentName, Epoch, Name, PipelineKey},
    phase::Reason,
    run::{Run, TriggerType},
    trigger::{Cron, Trigger},
    wire::control::{ControllerMessage, Skipped, SkippedAcknowledged},
    workflow::WorkflowSpec,
};

use super::{
    Controller,
    event::{Effect, Effects, SessionId},
    lost::Ambiguous,
    rows::{Change, LedgerRow},
};

/// Of a stretch of due times that is told in one row, so many are counted.
const COUNTED: usize = 1_000;

impl Controller {
    /// A due time made a run: its row goes into the same commit.
    pub(super) fn fired(&mut self, agent: &AgentName, run: &Run, fx: &mut Effects) {
        let trigger = &run.spec.trigger;
        let slot = trigger.name.clone().zip(trigger.scheduled_time);
        let Some((name, slot)) = slot.filter(|_| trigger.kind == TriggerType::Cron) else { return };
        self.told_of(agent, &run.spec.key(), run.status.epoch, slot);
        fx.commit.push(Change::PutLedger(LedgerRow {
            pipeline: run.spec.key(),
            trigger: name,
            slot,
            reason: None,
            run: Some(run.metadata.name),
            until: None,
            count: None,
            agent: Some(agent.clone()),
        }));
    }

    /// Due times that gave no run. Only the owner of an epoch can say so, of pipelines that it had.
    pub(super) fn skipped(
        &mut self,
        now: Now,
        session: SessionId,
        agent: &AgentName,
        skipped: Skipped,
        fx: &mut Effects,
    ) {
        let next = skipped.first.map(|first| first + skipped.rows.len() as u64);
        for row in skipped.rows {
            let last = row.slot.max(row.until.unwrap_or(row.slot));
            let is_known = self.owners.contains_key(&row.pipeline);
            if !is_known || self.cannot_tell(now, agent, (&row.pipeline, row.epoch), last).is_some() {
                continue;
            }
            self.told_of(agent, &row.pipeline, Some(row.epoch), last);
            fx.commit.push(Change::PutLedger(LedgerRow {
                pipeline: row.pipeline,
                trigger: row.trigger,
                slot: row.slot,
                reason: Some(row.reason),
                run: None,
                until: row.until,
                count: row.count,
                agent: Some(agent.clone()),
            }));
        }
        // Also of rows that are not taken: they never will be.
        if let Some(next) = next {
            let message = ControllerMessage::SkippedAcknowledged(SkippedAcknowledged { next });
            self.acknowledge(session, message, fx);
        }
    }

    /// What an agent has told is durable by the time that it hears so.
    pub(super) fn acknowledge(&self, session: SessionId, message: ControllerMessage, fx: &mut Effects) {
        let says = if self.mutants.is(Mutant::AcknowledgedEarly) { &mut fx.now } else { &mut fx.then };
        says.push(Effect::Send { session, message });
    }

    /// Who had it before tells of its own time, which is over.
    fn told_of(&mut self, agent: &AgentName, key: &PipelineKey, epoch: Option<Epoch>, slot: Timestamp) {
        if let Some(owned) = self.owners.get_mut(key)
            && epoch.is_some_and(|epoch| owned.row.is_last_held_by(agent, epoch))
        {
            owned.told_upto = owned.told_upto.max(slot);
        }
    }

    /// What is due of a pipeline that nobody looks after means something else from now on: its triggers are edited, or
    /// are no longer suspended. What has come by now never fires.
    pub(super) fn pass_over(&mut self, until: Timestamp, key: &PipelineKey, fx: &mut Effects) {
        let Some(owned) = self.owners.get_mut(key) else { return };
        owned.row.edited = owned.row.edited.max(Some(until));
        let row = owned.row.clone();
        // Its owner sees to the rest once it hears.
        if row.owner.is_none() || row.revoking {
            let is_known = row.owner.is_none() && row.clean;
            for due in self.due(key, until) {
                fx.commit.push(if is_known {
                    due.row(key, due.first, Reason::TRIGGER_EDITED, until, None)
                } else {
                    // Of a lost owner, or one that has not heard yet, nobody can tell what it started.
                    due.row(key, due.just_before(), Reason::UNKNOWN, until, row.owner.clone())
                });
            }
            if let Some(owned) = self.owners.get_mut(key) {
                owned.row.watermark = owned.row.watermark.max(until);
            }
        }
        if let Some(owned) = self.owners.get(key) {
            fx.commit.push(Change::PutOwner(key.clone(), owned.row.clone()));
        }
    }

    /// Rule 6: due times up to `until` that the last owner may have fired unseen, one row for each trigger that has any.
    /// Gives those that are to be started, as their pipeline says.
    pub(super) fn lose_sight(&self, key: &PipelineKey, until: Timestamp, fx: &mut Effects) -> Vec<Ambiguous> {
        let row = self.owners.get(key).map(|owned| &owned.row);
        let (owner, edited) =
            (row.and_then(|row| row.owner.clone()), row.and_then(|row| row.edited).unwrap_or_default());
        let mut started = Vec::new();
        for due in self.due(key, until) {
            // What was suspended nobody has started.
            if self.runs_ambiguous(key) && !due.suspended {
                started.extend(Ambiguous::between(&due.trigger, &due.cron, due.since.max(edited), until));
            }
            fx.commit.push(due.row(key, due.just_before(), Reason::UNKNOWN, until, owner.clone()));
        }
        started
    }

    /// The triggers of a pipeline that have come by `until` since somebody last told what became of them.
    fn due(&self, key: &PipelineKey, until: Timestamp) -> Vec<Due> {
        let since = self.owners.get(key).map(|owned| owned.told_upto.max(owned.row.watermark));
        // What was heard before a restart is known by the runs that it made.
        let since = since.max(since.and_then(|_| self.newest_start(key, until)));
        let workflow = self.workflow_row(&key.workflow);
        let (Some(since), Some(workflow)) = (since, workflow) else { return Vec::new() };
        let by_command = self.suspension(key).is_some();
        let due = crons(&workflow.spec, &key.pipeline).filter_map(|(trigger, cron, suspended)| {
            let first = Schedule::parse(cron).ok()?.next_after(since)?;
            // Also of those that come later by their jitter: the next owner begins with due times after `until`.
            let has_come = first <= until;
            let (trigger, cron, suspended) = (trigger.clone(), cron.clone(), suspended || by_command);
            has_come.then_some(Due { trigger, cron, suspended, since, first })
        });
        due.collect()
    }

    /// A workflow is edited: pipelines whose cron triggers are others now, and that nobody looks after.
    pub(super) fn edit_triggers(&mut self, name: &Name, new: &WorkflowSpec, fx: &mut Effects) {
        let Some(old) = self.workflow_row(name).map(|row| row.spec) else { return };
        let until = self.slot_now(fx);
        for pipeline in old.pipelines.keys() {
            if new.pipelines.contains_key(pipeline) && !crons(&old, pipeline).eq(crons(new, pipeline)) {
                let key = PipelineKey { workflow: name.clone(), pipeline: pipeline.clone() };
                self.pass_over(until, &key, fx);
            }
        }
    }
}

/// The cron triggers that a pipeline names, and whether they are suspended.
fn crons<'a>(workflow: &'a WorkflowSpec, pipeline: &Name) -> impl Iterator<Item = (&'a Name, &'a Cron, bool)> {
    let pipeline = workflow.pipelines.get(pipeline);
    pipeline.into_iter().flat_map(move |pipeline| {
        let suspended = workflow.suspend || pipeline.suspend;
        pipeline.triggers.0.iter().filter_map(move |name| match workflow.triggers.get(name)? {
            Trigger::Cron(cron) => Some((name, cron, suspended || cron.suspend)),
            Trigger::Webhook(_) => None,
        })
    })
}

/// A cron trigger that has come unseen.
struct Due {
    trigger: Name,
    cron: Cron,
    suspended: bool,
    /// After this.
    since: Timestamp,
    /// For the first time.
    first: Timestamp,
}

impl Due {
    /// A place for what stands for it, so that there is one for its own row, should the old owner come back and tell.
    fn just_before(&self) -> Timestamp {
        before(self.first, Duration::from_millis(1))
    }

    fn row(
        &self,
        key: &PipelineKey,
        slot: Timestamp,
        reason: Reason,
        until: Timestamp,
        agent: Option<AgentName>,
    ) -> Change {
        Change::PutLedger(LedgerRow {
            pipeline: key.clone(),
            trigger: self.trigger.clone(),
            slot,
            reason: Some(if self.suspended { Reason::SUSPENDED } else { reason }),
            run: None,
            until: Some(until),
            count: self.count(until),
            agent,
        })
    }

    /// How often it has come by `until`, unless that takes long to tell.
    fn count(&self, until: Timestamp) -> Option<u32> {
        let schedule = Schedule::parse(&self.cron).ok()?;
        let slots = std::iter::successors(Some(self.first), |slot| schedule.next_after(*slot));
        let count = slots.take_while(|slot| *slot <= until).take(COUNTED + 1).count();
        u32::try_from(count).ok().filter(|_| count <= COUNTED)
    }
}
