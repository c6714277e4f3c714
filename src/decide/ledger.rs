//! The firing ledger: one row for each due time of a cron trigger, whatever became of it.
//!
//! The owner of a pipeline looks at every due time: a run's record brings its row along, and every other due time has
//! its reason. What a lost owner may have done nobody can tell; that is a row too.

use std::time::Duration;

use jiff::Timestamp;
use xene_agent::decide::{
    cron::Schedule,
    time::{Now, after, before},
};
use xene_schemas::{
    meta::{AgentName, Name, PipelineKey},
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

impl Controller {
    /// A due time made a run: its row goes into the same commit.
    pub(super) fn fired(&mut self, agent: &AgentName, run: &Run, fx: &mut Effects) {
        let trigger = &run.spec.trigger;
        let slot = trigger.name.clone().zip(trigger.scheduled_time);
        let Some((name, slot)) = slot.filter(|_| trigger.kind == TriggerType::Cron) else { return };
        self.told_of(&run.spec.key(), slot);
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
    pub(super) fn skipped(&mut self, session: SessionId, agent: &AgentName, skipped: Skipped, fx: &mut Effects) {
        let next = skipped.first.map(|first| first + skipped.rows.len() as u64);
        for row in skipped.rows {
            let Some(owned) = self.owners.get(&row.pipeline).filter(|owned| owned.row.epoch >= row.epoch) else {
                continue;
            };
            if owned.row.epoch == row.epoch && owned.row.owner.as_ref().is_some_and(|owner| owner != agent) {
                continue;
            }
            self.told_of(&row.pipeline, row.until.unwrap_or(row.slot));
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
            fx.then.push(Effect::Send { session, message });
        }
    }

    fn told_of(&mut self, key: &PipelineKey, slot: Timestamp) {
        if let Some(owned) = self.owners.get_mut(key) {
            owned.told_upto = owned.told_upto.max(slot);
        }
    }

    /// What is due of a pipeline that nobody looks after means something else from now on: its triggers are edited, or
    /// are no longer suspended. What has come by now never fires.
    pub(super) fn pass_over(&mut self, now: Now, key: &PipelineKey, fx: &mut Effects) {
        let until = self.slot_now(now, fx);
        let Some(owned) = self.owners.get(key).filter(|owned| owned.row.owner.is_none() || owned.row.revoking) else {
            // Its owner sees to it once it hears.
            return;
        };
        // Of a lost owner nobody can tell what it started.
        let is_known = owned.row.clean || owned.row.revoking;
        for due in self.due(key, until) {
            let reason = if is_known { Reason::TRIGGER_EDITED } else { Reason::UNKNOWN };
            fx.commit.push(due.row(key, due.first, reason, until, None));
        }
        if let Some(owned) = self.owners.get_mut(key) {
            owned.row.watermark = owned.row.watermark.max(until);
            fx.commit.push(Change::PutOwner(key.clone(), owned.row.clone()));
        }
    }

    /// Rule 6: due times up to `until` that the last owner may have fired unseen, one row for each trigger that has any.
    /// Gives those that are to be started, as their pipeline says.
    pub(super) fn lose_sight(&self, key: &PipelineKey, until: Timestamp, fx: &mut Effects) -> Vec<Ambiguous> {
        let owner = self.owners.get(key).and_then(|owned| owned.row.owner.clone());
        let mut started = Vec::new();
        for due in self.due(key, until) {
            // Just before it, so that there is a place for its own row, should the old owner come back and tell.
            let slot = before(due.first, Duration::from_millis(1));
            // What was suspended nobody has started.
            if self.runs_ambiguous(key) && !due.suspended {
                started.extend(Ambiguous::between(&due.trigger, &due.cron, due.since, until));
            }
            fx.commit.push(due.row(key, slot, Reason::UNKNOWN, until, owner.clone()));
        }
        started
    }

    /// The triggers of a pipeline that have come by `until` since somebody last told what became of them.
    fn due(&self, key: &PipelineKey, until: Timestamp) -> Vec<Due> {
        let since = self.owners.get(key).map(|owned| owned.told_upto.max(owned.row.watermark));
        let workflow = self.workflow_row(&key.workflow);
        let (Some(since), Some(workflow)) = (since, workflow) else { return Vec::new() };
        let by_command = self.suspension(key).is_some();
        let due = crons(&workflow.spec, &key.pipeline).filter_map(|(trigger, cron, suspended)| {
            let first = Schedule::parse(cron).ok()?.next_after(since)?;
            // A due time comes as much later as its jitter says: what has not come yet is the next owner's.
            let has_come = after(first, cron.jitter.into()) <= until;
            let (trigger, cron, suspended) = (trigger.clone(), cron.clone(), suspended || by_command);
            has_come.then_some(Due { trigger, cron, suspended, since, first })
        });
        due.collect()
    }

    /// A workflow is edited: pipelines whose cron triggers are others now, and that nobody looks after.
    pub(super) fn edit_triggers(&mut self, now: Now, name: &Name, new: &WorkflowSpec, fx: &mut Effects) {
        let Some(old) = self.workflow_row(name).map(|row| row.spec) else { return };
        for pipeline in old.pipelines.keys() {
            if new.pipelines.contains_key(pipeline) && !crons(&old, pipeline).eq(crons(new, pipeline)) {
                let key = PipelineKey { workflow: name.clone(), pipeline: pipeline.clone() };
                self.pass_over(now, &key, fx);
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
            count: None,
            agent,
        })
    }
}
