//! The firing ledger: one row for each due time of a cron trigger, whatever became of it.
//!
//! The owner of a pipeline looks at every due time: a run's record brings its row along, and every other due time has
//! its reason. What a lost owner may have done nobody can tell; that is a row too.

use std::time::Duration;

use jiff::Timestamp;
use xene_agent::decide::{
    cron::Schedule,
    time::{after, before},
};
use xene_schemas::{
    meta::{AgentName, PipelineKey},
    phase::Reason,
    run::{Run, TriggerType},
    trigger::Trigger,
    wire::control::{ControllerMessage, Skipped, SkippedAcknowledged},
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

    /// Rule 6: due times up to `until` that the last owner may have fired unseen, one row for each trigger that has any.
    /// Gives those that are to be started, as their pipeline says.
    pub(super) fn lose_sight(&self, key: &PipelineKey, until: Timestamp, fx: &mut Effects) -> Vec<Ambiguous> {
        let mut started = Vec::new();
        let Some(since) = self.owners.get(key).map(|owned| owned.told_upto.max(owned.row.watermark)) else {
            return started;
        };
        let Some(workflow) = self.workflow_row(&key.workflow) else { return started };
        let Some(pipeline) = workflow.spec.pipelines.get(&key.pipeline) else { return started };
        for name in &pipeline.triggers.0 {
            let Some(Trigger::Cron(cron)) = workflow.spec.triggers.get(name) else { continue };
            let first = Schedule::parse(cron).ok().and_then(|schedule| schedule.next_after(since));
            // A due time comes as much later as its jitter says: what has not come yet is the new owner's.
            let Some(first) = first.filter(|first| after(*first, cron.jitter.into()) <= until) else { continue };
            // Just before it, so that there is a place for its own row, should the old owner come back and tell.
            let slot = before(first, Duration::from_millis(1));
            // What was suspended nobody has started.
            let by_command = self.suspension(key).is_some();
            let suspended = workflow.spec.suspend || pipeline.suspend || cron.suspend || by_command;
            if self.runs_ambiguous(key) && !suspended {
                started.extend(Ambiguous::between(name, cron, since, until));
            }
            fx.commit.push(Change::PutLedger(LedgerRow {
                pipeline: key.clone(),
                trigger: name.clone(),
                slot,
                reason: Some(if suspended { Reason::SUSPENDED } else { Reason::UNKNOWN }),
                run: None,
                until: Some(until),
                count: None,
                agent: self.owners.get(key).and_then(|owned| owned.row.owner.clone()),
            }));
        }
        started
    }
}
