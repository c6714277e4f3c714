//! What a lost agent did nobody can tell: runs that are started again, and due times that are, where their pipeline says
//! that once more does no harm (`onAgentLost: Retry`, `onAmbiguous: Run`).
//!
//! Either has a name that is made from what it stands for, so it is made once, whoever decides that again.

use std::collections::VecDeque;

use indexmap::IndexMap;
use jiff::Timestamp;
use xene_agent::decide::{
    cron::Schedule,
    mutant::Mutant,
    time::{Now, after, before},
};
use xene_schemas::{
    meta::{Name, PipelineKey, RunName},
    phase::RunPhase,
    pipeline::{OnAgentLost, OnAmbiguous},
    run::{RunTrigger, TriggerType},
    trigger::{CatchUp, Cron},
};

use super::{
    Controller,
    event::{Again, Effects},
    rows::{Change, RunRow},
    runs::Order,
};

/// How often a run is started again that loses each of its agents: it may be what ends them.
const RETRIES: u32 = 3;
/// The most due times that are started again at once.
const MOST: usize = 100;

/// Due times of a trigger that may have been started by a lost agent, oldest first.
#[derive(Debug)]
pub(super) struct Ambiguous {
    pub(super) trigger: Name,
    pub(super) cron: Cron,
    pub(super) slots: Vec<Timestamp>,
}

impl Ambiguous {
    /// Those of `catchUp`, as if they had been missed: after `since`, and come by `until`.
    pub(super) fn between(trigger: &Name, cron: &Cron, since: Timestamp, until: Timestamp) -> Option<Self> {
        let schedule = Schedule::parse(cron).ok()?;
        let most = match cron.catch_up {
            CatchUp::Skip => return None,
            CatchUp::Latest => 1,
            CatchUp::All => MOST,
        };
        // What is too late by now would be skipped anyway.
        let since = since.max(before(until, cron.starting_deadline.into()));
        let mut slots = VecDeque::new();
        let mut next = schedule.next_after(since);
        while let Some(slot) = next.filter(|slot| after(*slot, cron.jitter.into()) <= until) {
            if slots.len() == most {
                slots.pop_front();
            }
            slots.push_back(slot);
            next = schedule.next_after(slot);
        }
        Some(Self { trigger: trigger.clone(), cron: cron.clone(), slots: slots.into() })
    }
}

impl Controller {
    /// True if due times of a pipeline that a lost agent may have started are started again.
    pub(super) fn runs_ambiguous(&self, key: &PipelineKey) -> bool {
        let asks = self.pipelines.get(key).is_some_and(|pipeline| pipeline.on_ambiguous == OnAmbiguous::Run);
        asks || self.mutants.is(Mutant::AmbiguousByDefault)
    }

    /// Orders runs for due times that may have been started.
    pub(super) fn run_ambiguous(&mut self, now: Now, key: &PipelineKey, all: Vec<Ambiguous>, fx: &mut Effects) {
        let Some(spec_hash) = self.pipelines.get(key).map(|pipeline| pipeline.spec_hash) else { return };
        let Some(workflow) = self.workflow_row(&key.workflow) else { return };
        let pipeline = workflow.spec.pipelines.get(&key.pipeline);
        let params = workflow.spec.params.iter().chain(pipeline.iter().flat_map(|pipeline| &pipeline.params));
        for Ambiguous { trigger, cron, slots } in all {
            let value = |(name, param): (&String, &xene_schemas::param::Param)| {
                let value = cron.params.get(name).or(param.default.as_ref())?;
                Some((name.clone(), value.to_string()))
            };
            let params: IndexMap<String, String> = params.clone().filter_map(value).collect();
            for slot in slots {
                let run = match self.mutants.is(Mutant::AmbiguousUnderItsName) {
                    true => RunName::of_slot(key, &trigger, slot),
                    false => RunName::of_ambiguous(key, &trigger, slot),
                };
                let order = Order {
                    pipeline: key.clone(),
                    spec_hash,
                    run,
                    trigger: RunTrigger {
                        kind: TriggerType::Cron,
                        name: Some(trigger.clone()),
                        scheduled_time: Some(slot),
                        by: Some("onAmbiguous: Run".into()),
                    },
                    params: params.clone(),
                    payload: None,
                    delivery: None,
                    force: false,
                    repeats: None,
                };
                // What is suspended by now does not start, as no due time of it does.
                let _ = self.order_run(now, order, fx);
            }
        }
    }

    /// True if a run that nobody will report of any more is to be started again.
    pub(super) fn is_retried(&self, row: &RunRow) -> bool {
        let key = row.run.spec.key();
        let wants = self.pipelines.get(&key).is_some_and(|pipeline| pipeline.on_agent_lost == OnAgentLost::Retry);
        // What was in doubt since a recovery may have ended well, and been followed.
        wants && row.cancel_by.is_none() && !row.unsure && row.lost < RETRIES
    }

    /// Starts it again, elsewhere.
    pub(super) fn retry_lost(&mut self, now: Now, mut row: RunRow, fx: &mut Effects) {
        row.run.status.phase = RunPhase::Error;
        let (lost, run) = (row.lost + 1, RunName::of_lost(row.run.metadata.name, now.wall));
        let by = "onAgentLost: Retry".to_owned();
        let again = Again { original: row, run, failed: false, by, delivery: None, force: false };
        if self.rerun(now, again, fx).is_ok()
            && let Some(row) = self.runs.get_mut(&run)
        {
            row.lost = if self.mutants.is(Mutant::RetryUncounted) { 0 } else { lost };
            fx.commit.push(Change::PutRun(Box::new(row.clone())));
        }
    }
}
