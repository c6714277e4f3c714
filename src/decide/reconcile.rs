//! Reconciling: from the plan to rows, in one commit with the pointer and the events; then placement of what changed.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use xene_agent::decide::time::Now;
use xene_schemas::{
    duration::Duration as Span,
    event::EventType,
    map::UniqueMap,
    meta::{Generation, Name, PipelineKey, Revision, SpecHash},
    pipeline::{Autonomy, CompiledPipeline, History, PipelineSpec},
};

use super::{
    Controller,
    desired::{Desired, DesiredWorkflow, ObservedWorkflow, WorkflowBody},
    event::Effects,
    note,
    plan::{Plan, PlanChange},
    rows::{Change, PipelineRow, WorkflowRow},
};

/// What the machine needs of a pipeline in effect.
#[derive(Debug)]
pub(super) struct Pipeline {
    /// What an agent must have.
    pub(super) labels: UniqueMap<String, String>,
    /// L, not below the smallest that the operator allows.
    pub(super) autonomy: Autonomy,
    pub(super) spec_hash: SpecHash,
    pub(super) revision: Revision,
    pub(super) suspend: bool,
    pub(super) history: Option<History>,
    pub(super) timeout: Option<Duration>,
    pub(super) max_runs: u32,
}

impl Pipeline {
    fn new(spec: &PipelineSpec, spec_hash: SpecHash, revision: Revision, suspend: bool, smallest: Duration) -> Self {
        let smallest = Span::from_millis(u64::try_from(smallest.as_millis()).unwrap_or(u64::MAX));
        Self {
            labels: spec.agents.labels.clone(),
            autonomy: spec.autonomy.unwrap_or(Autonomy::DEFAULT).max(Autonomy::For(smallest)),
            spec_hash,
            revision,
            suspend,
            history: spec.history.clone(),
            timeout: spec.timeout.map(Into::into),
            max_runs: spec.concurrency.max,
        }
    }
}

impl Controller {
    pub(super) fn load_workflows(&mut self, workflows: Vec<WorkflowRow>, pipelines: Vec<PipelineRow>) {
        for row in workflows {
            let name = row.metadata.name.clone();
            self.observed.workflows.insert(name.clone(), observe(&row));
            self.workflows.insert(name, row);
        }
        for row in pipelines {
            if let Some(workflow) = self.observed.workflows.get_mut(&row.key.workflow) {
                workflow.pipelines.insert(row.key.pipeline.clone(), row.spec_hash);
            }
            let smallest = self.config.min_autonomy;
            let pipeline = Pipeline::new(&row.spec, row.spec_hash, row.revision, row.suspend, smallest);
            self.pipelines.insert(row.key, pipeline);
        }
    }

    /// The source asks for this: one commit for all of it.
    pub(super) fn compiled(&mut self, now: Now, desired: Desired, fx: &mut Effects) {
        let plan = Plan::build(&desired, &self.observed);
        let mut touched: BTreeSet<PipelineKey> = BTreeSet::new();
        for change in plan.changes {
            match change {
                PlanChange::CreateWorkflow(name) => self.put_workflow(now, &desired, &name, "WorkflowCreated", fx),
                PlanChange::UpdateWorkflow(name) => self.put_workflow(now, &desired, &name, "WorkflowUpdated", fx),
                PlanChange::MoveWorkflow(name) => self.move_workflow(&desired, &name, fx),
                PlanChange::RemoveWorkflow(name) => {
                    self.workflows.remove(&name);
                    self.observed.workflows.remove(&name);
                    fx.commit.push(Change::DeleteWorkflow(name.clone()));
                    let message = format!("{} asks for it no more", desired.revision);
                    note(fx, now, EventType::Normal, "WorkflowRemoved", format!("workflow/{name}"), message);
                }
                PlanChange::CreatePipeline(key) => {
                    self.put_pipeline(&desired, &key, fx);
                    self.begin_watermark(now, &key, fx);
                    touched.insert(key);
                }
                PlanChange::UpdatePipeline(key) => {
                    self.put_pipeline(&desired, &key, fx);
                    self.respec(now, &key, fx);
                    touched.insert(key);
                }
                PlanChange::RemovePipeline(key) => self.remove_pipeline(now, &key, fx),
            }
        }
        self.hold(&desired, &plan.held, plan.prune_blocked, fx);
        for (path, row) in &desired.files {
            fx.commit.push(Change::PutFile(path.clone(), row.clone().map(Box::new)));
        }
        self.source_applied(now, &desired, fx);
        for key in touched {
            self.keep_or_revoke(now, &key, fx);
        }
    }

    fn put_workflow(&mut self, now: Now, desired: &Desired, name: &Name, reason: &str, fx: &mut Effects) {
        let Some((wanted, body)) = body(desired, name) else { return };
        let generation = self.workflows.get(name).map_or(0, |row| row.generation.0) + 1;
        let row = WorkflowRow {
            metadata: body.metadata.clone(),
            spec: body.spec.clone(),
            revision: desired.revision.clone(),
            path: wanted.path.clone(),
            line: wanted.line,
            generation: Generation(generation),
            hash: wanted.hash,
            valid: wanted.valid,
            held: None,
            blocked_among: None,
        };
        let pipelines = self.observed.workflows.remove(name).map(|observed| observed.pipelines).unwrap_or_default();
        self.observed.workflows.insert(name.clone(), ObservedWorkflow { pipelines, ..observe(&row) });
        let message = format!("by {} at {}:{}", desired.revision, wanted.path, wanted.line);
        note(fx, now, EventType::Normal, reason, format!("workflow/{name}"), message);
        fx.commit.push(Change::PutWorkflow(Box::new(row.clone())));
        self.workflows.insert(name.clone(), row);
    }

    fn move_workflow(&mut self, desired: &Desired, name: &Name, fx: &mut Effects) {
        let Some(wanted) = desired.workflows.get(name) else { return };
        let Some(row) = self.workflows.get_mut(name) else { return };
        row.path.clone_from(&wanted.path);
        (row.line, row.valid, row.held) = (wanted.line, wanted.valid, None);
        if let Some(observed) = self.observed.workflows.get_mut(name) {
            observed.path.clone_from(&wanted.path);
            (observed.line, observed.valid) = (wanted.line, wanted.valid);
        }
        fx.commit.push(Change::PutWorkflow(Box::new(row.clone())));
    }

    fn put_pipeline(&mut self, desired: &Desired, key: &PipelineKey, fx: &mut Effects) {
        let Some((_, body)) = body(desired, &key.workflow) else { return };
        let Some(compiled): Option<&CompiledPipeline> = body.pipelines.get(&key.pipeline) else { return };
        let (spec_hash, bytes) = compiled.encode();
        let revision = desired.revision.clone();
        fx.commit.push(Change::PutSpec(spec_hash, Arc::from(bytes)));
        fx.commit.push(Change::PutPipeline(Box::new(PipelineRow {
            key: key.clone(),
            spec: compiled.spec.clone(),
            spec_hash,
            revision: revision.clone(),
            suspend: compiled.suspend,
        })));
        let smallest = self.config.min_autonomy;
        let pipeline = Pipeline::new(&compiled.spec, spec_hash, revision, compiled.suspend, smallest);
        self.pipelines.insert(key.clone(), pipeline);
        if let Some(observed) = self.observed.workflows.get_mut(&key.workflow) {
            observed.pipelines.insert(key.pipeline.clone(), spec_hash);
        }
    }

    /// Its triggers stop, its runs go on, its history stays until retention takes it.
    fn remove_pipeline(&mut self, now: Now, key: &PipelineKey, fx: &mut Effects) {
        self.pipelines.remove(key);
        self.waiting.remove(key);
        if let Some(observed) = self.observed.workflows.get_mut(&key.workflow) {
            observed.pipelines.remove(&key.pipeline);
        }
        fx.commit.push(Change::DeletePipeline(key.clone()));
        self.revoke(key, "the pipeline was removed".into(), fx);
        self.end_unaddressed(now, key, fx);
    }

    /// Workflows that vanished but stay, and those that are asked for again.
    fn hold(&mut self, desired: &Desired, held: &[(Name, String)], blocked: Option<u32>, fx: &mut Effects) {
        for (name, row) in &mut self.workflows {
            let Some(observed) = self.observed.workflows.get_mut(name) else { continue };
            // `held` is sorted.
            let why = held.binary_search_by(|(of, _)| of.cmp(name)).ok().map(|at| &held[at].1);
            let stays = why.is_some() && !observed.keep && !desired.workflows.contains_key(name);
            // While a file is broken nothing is counted, and what was blocked before stays so.
            observed.blocked_among = blocked.or(row.blocked_among).filter(|_| stays);
            if row.held.as_ref() != why || row.blocked_among != observed.blocked_among {
                (row.held, row.blocked_among) = (why.cloned(), observed.blocked_among);
                fx.commit.push(Change::PutWorkflow(Box::new(row.clone())));
            }
        }
        self.count_held();
    }

    /// What the source's conditions say of workflows that vanished but stay.
    pub(super) fn count_held(&mut self) {
        let held = self.workflows.iter().filter(|(_, row)| row.held.is_some());
        self.source.held = held.clone().map(|(name, _)| name.clone()).collect();
        self.source.blocked =
            held.filter(|(_, row)| row.blocked_among.is_some()).map(|(name, _)| name.clone()).collect();
    }
}

fn body<'a>(desired: &'a Desired, name: &Name) -> Option<(&'a DesiredWorkflow, &'a WorkflowBody)> {
    let wanted = desired.workflows.get(name)?;
    Some((wanted, wanted.body.as_deref()?))
}

/// A row as planning sees it, without its pipelines.
fn observe(row: &WorkflowRow) -> ObservedWorkflow {
    ObservedWorkflow {
        hash: row.hash,
        path: row.path.clone(),
        line: row.line,
        valid: row.valid,
        pipelines: std::collections::BTreeMap::new(),
        blocked_among: row.blocked_among,
        keep: row.metadata.annotations.get("xene/prune").is_some_and(|prune| prune == "disabled"),
    }
}
