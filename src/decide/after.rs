//! `after`: a pipeline starts once all pipelines that it follows have ended in Success since it last did so.
//!
//! What has arrived is a row of the store, written in the transaction that ends the upstream run; the run that follows
//! is made in that same transaction, and takes the row away. So neither a crash nor a restart loses a start, and none
//! happens twice for one set of upstream runs, from which moreover the run's name is derived.
//!
//! A restored store may have forgotten that a start happened. What was under way then, or due before, is therefore
//! followed by nothing, and an event says so.

use std::collections::BTreeSet;

use indexmap::IndexMap;
use xene_agent::decide::time::Now;
use xene_schemas::{
    event::EventType,
    meta::{Name, PipelineKey, RunName},
    run::{RunTrigger, TriggerType},
    why::AfterWhy,
};

use super::{
    Controller,
    event::{Effects, Refusal},
    note,
    rows::{Arrived, Change, RunRow},
    runs::Order,
};
use crate::compile::params;

impl Controller {
    /// A run ended in Success: those that follow its pipeline hear of it.
    pub(super) fn succeeded(&mut self, now: Now, row: &RunRow, fx: &mut Effects) {
        let upstream = row.run.spec.key();
        let Some(dependents) = self.dependents.get(&upstream).cloned() else { return };
        // They run anew after this run: how they ended before is no part of what follows them and this one.
        let renewed = self.followers(&upstream);
        let run = row.run.metadata.name;
        for name in dependents {
            let key = PipelineKey { workflow: upstream.workflow.clone(), pipeline: name };
            if row.unsure {
                let message = format!(
                    "not started after run {run} of {upstream}: the store was restored while that was under way, and \
                     it may have been followed already"
                );
                note(fx, now, EventType::Warning, "AfterUncertain", format!("pipeline/{key}"), message);
                continue;
            }
            let arrived = &mut self.after.entry(key.clone()).or_default().arrived;
            arrived.retain(|arrived| arrived.pipeline != upstream.pipeline && !renewed.contains(&arrived.pipeline));
            arrived.push(Arrived {
                pipeline: upstream.pipeline.clone(),
                run,
                finished_at: row.run.status.finished_at.unwrap_or(now.wall),
                params: row.run.spec.params.clone(),
            });
            self.follow(now, &key, fx);
        }
    }

    /// What a pipeline follows, and which of that has arrived.
    pub fn arrivals(&self, key: &PipelineKey) -> Vec<AfterWhy> {
        let Some(pipeline) = self.pipelines.get(key) else { return Vec::new() };
        let arrived = self.after.get(key).map(|row| &row.arrived[..]).unwrap_or_default();
        let of = |name: &Name| {
            let found = arrived.iter().find(|arrived| arrived.pipeline == *name);
            let (run, finished_at) = found.map(|arrived| (arrived.run, arrived.finished_at)).unzip();
            AfterWhy { pipeline: name.clone(), run, finished_at }
        };
        pipeline.after.iter().map(of).collect()
    }

    /// The pipelines that follow one, and those that follow them.
    fn followers(&self, upstream: &PipelineKey) -> BTreeSet<Name> {
        let (mut found, mut open) = (BTreeSet::new(), vec![upstream.clone()]);
        while let Some(key) = open.pop() {
            for name in self.dependents.get(&key).into_iter().flatten().filter(|name| found.insert((*name).clone())) {
                open.push(PipelineKey { workflow: upstream.workflow.clone(), pipeline: name.clone() });
            }
        }
        found
    }

    /// Starts a pipeline if all that it follows have arrived; else what has is kept.
    pub(super) fn follow(&mut self, now: Now, key: &PipelineKey, fx: &mut Effects) {
        let Some(mut row) = self.after.remove(key) else { return };
        let names = self.pipelines.get(key).map(|pipeline| pipeline.after.clone()).unwrap_or_default();
        row.arrived.retain(|arrived| names.contains(&arrived.pipeline));
        let of = |name: &Name| row.arrived.iter().find(|arrived| arrived.pipeline == *name).cloned();
        let all: Option<Vec<Arrived>> = names.iter().map(of).collect();
        match all.filter(|all| !all.is_empty()) {
            Some(all) => {
                fx.commit.push(Change::PutAfter(key.clone(), None));
                self.start_after(now, key, &all, fx);
            }
            None if row.arrived.is_empty() => fx.commit.push(Change::PutAfter(key.clone(), None)),
            None => {
                fx.commit.push(Change::PutAfter(key.clone(), Some(row.clone())));
                self.after.insert(key.clone(), row);
            }
        }
    }

    fn start_after(&mut self, now: Now, key: &PipelineKey, upstream: &[Arrived], fx: &mut Effects) {
        let Some(pipeline) = self.pipelines.get(key) else { return };
        let spec_hash = pipeline.spec_hash;
        let runs: Vec<RunName> = upstream.iter().map(|arrived| arrived.run).collect();
        let at = upstream.iter().map(|arrived| arrived.finished_at).max().unwrap_or(now.wall);
        let told: Vec<String> =
            upstream.iter().map(|a| format!("run {} of {}/{}", a.run, key.workflow, a.pipeline)).collect();
        let told = told.join(", ");
        let params = match self.params_after(key, upstream) {
            Ok(params) => params,
            Err(message) => {
                let message = format!("not started after {told}: {message}");
                note(fx, now, EventType::Warning, "ParamsRefused", format!("pipeline/{key}"), message);
                return;
            }
        };
        let order = Order {
            pipeline: key.clone(),
            spec_hash,
            run: RunName::of_upstream(key, &runs, at),
            trigger: RunTrigger { kind: TriggerType::After, name: None, scheduled_time: None, by: Some(told.clone()) },
            params,
            payload: None,
            delivery: None,
            force: false,
            repeats: None,
        };
        if let Err(refusal) = self.order_run(now, order, fx) {
            let (kind, reason) = match refusal {
                Refusal::Suspended(_) => (EventType::Normal, "Suspended"),
                _ => (EventType::Warning, "NotStarted"),
            };
            let message = format!("not started after {told}: {refusal}");
            note(fx, now, kind, reason, format!("pipeline/{key}"), message);
        }
    }

    /// What the upstream runs were given, as far as the pipeline declares it, the first in the order of `after` first;
    /// defaults for the rest.
    fn params_after(&self, key: &PipelineKey, upstream: &[Arrived]) -> Result<IndexMap<String, String>, String> {
        let row = self.workflows.get(&key.workflow).and_then(super::reconcile::Workflow::row);
        let Some(row) = row else { return Ok(IndexMap::new()) };
        let own = row.spec.pipelines.get(&key.pipeline).map(|pipeline| pipeline.params.clone()).unwrap_or_default();
        let declared = params::overlay(&row.spec.params, &own);
        let value = |name: &String| {
            let given = upstream.iter().find_map(|arrived| arrived.params.get(name));
            given.map(|value| (name.clone(), value.clone()))
        };
        let given: IndexMap<String, String> = declared.keys().filter_map(value).collect();
        params::resolve(&declared, &given)
            .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
    }
}
