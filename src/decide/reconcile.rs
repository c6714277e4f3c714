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
    desired::{Desired, Observed, ObservedWorkflow},
    event::Effects,
    note,
    plan::{Hold, Plan, PlanChange},
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

/// A workflow in effect: its row as bytes, which take a tenth of its memory and are seldom looked into.
#[derive(Debug)]
pub(super) struct Workflow {
    generation: Generation,
    held: Option<String>,
    blocked_among: Option<u32>,
    row: Box<[u8]>,
}

impl Workflow {
    fn new(row: &WorkflowRow) -> Self {
        // Its fields are texts and numbers, and its keys texts: it can be written.
        let bytes = serde_json::to_vec(row).unwrap_or_default();
        Self { generation: row.generation, held: row.held.clone(), blocked_among: row.blocked_among, row: bytes.into() }
    }

    fn row(&self) -> Option<WorkflowRow> {
        serde_json::from_slice(&self.row).ok()
    }
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
        self.observed = Observed::of_rows(&workflows, &pipelines);
        self.workflows = workflows.iter().map(|row| (row.metadata.name.clone(), Workflow::new(row))).collect();
        drop(workflows);
        for row in pipelines {
            let smallest = self.config.min_autonomy;
            let pipeline = Pipeline::new(&row.spec, row.spec_hash, row.revision, row.suspend, smallest);
            self.pipelines.insert(row.key, pipeline);
        }
    }

    /// The source asks for this: one commit for all of it.
    pub(super) fn compiled(&mut self, now: Now, desired: Desired, fx: &mut Effects) {
        let plan = Plan::build(&desired, &self.observed);
        // All rows before anything that stays: after a first look they are many, and their memory, which goes back
        // once they are written, must not lie between what is kept.
        for change in &plan.changes {
            self.write(now, &desired, change, fx);
        }
        let mut touched: BTreeSet<PipelineKey> = BTreeSet::new();
        for change in plan.changes {
            match change {
                PlanChange::CreateWorkflow(name)
                | PlanChange::UpdateWorkflow(name)
                | PlanChange::MoveWorkflow(name) => self.keep_workflow(&desired, &name),
                PlanChange::RemoveWorkflow(name) => {
                    self.workflows.remove(&name);
                    self.observed.workflows.remove(&name);
                }
                PlanChange::CreatePipeline(key) => {
                    self.keep_pipeline(&desired, &key);
                    self.begin_watermark(now, &key, fx);
                    touched.insert(key);
                }
                PlanChange::UpdatePipeline(key) => {
                    self.keep_pipeline(&desired, &key);
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

    /// A workflow in effect, as stored.
    pub(super) fn workflow_row(&self, name: &Name) -> Option<WorkflowRow> {
        self.workflows.get(name)?.row()
    }

    /// Adds the rows and the event of one change.
    fn write(&self, now: Now, desired: &Desired, change: &PlanChange, fx: &mut Effects) {
        let mut tell = |message| note(fx, now, EventType::Normal, change.reason(), change.regarding(), message);
        match change {
            PlanChange::CreateWorkflow(name) | PlanChange::UpdateWorkflow(name) | PlanChange::MoveWorkflow(name) => {
                let Some(row) = self.wanted_row(desired, name) else { return };
                tell(format!("by {} at {}:{}", desired.revision, row.path, row.line));
                fx.commit.push(Change::PutWorkflow(Box::new(row)));
            }
            PlanChange::RemoveWorkflow(name) => {
                tell(format!("{} asks for it no more", desired.revision));
                fx.commit.push(Change::DeleteWorkflow(name.clone()));
            }
            PlanChange::CreatePipeline(key) | PlanChange::UpdatePipeline(key) => {
                let Some(compiled) = compiled(desired, key) else { return };
                tell(format!("by {}", desired.revision));
                let (spec_hash, bytes) = compiled.encode();
                fx.commit.push(Change::PutSpec(spec_hash, Arc::from(bytes)));
                fx.commit.push(Change::PutPipeline(Box::new(PipelineRow {
                    key: key.clone(),
                    spec: compiled.spec.clone(),
                    spec_hash,
                    revision: desired.revision.clone(),
                    suspend: compiled.suspend,
                })));
            }
            PlanChange::RemovePipeline(_) => tell(format!("{} asks for it no more", desired.revision)),
        }
    }

    /// The row of a workflow as it is asked for: with the body that came, or what is kept in another place.
    fn wanted_row(&self, desired: &Desired, name: &Name) -> Option<WorkflowRow> {
        let wanted = desired.workflows.get(name)?;
        let known = self.workflows.get(name);
        if self.observed.workflows.get(name).is_some_and(|observed| observed.hash == wanted.hash) {
            let row = known?.row()?;
            return Some(WorkflowRow {
                path: wanted.path.clone(),
                line: wanted.line,
                valid: wanted.valid,
                held: None,
                ..row
            });
        }
        let body = wanted.body.as_deref()?;
        Some(WorkflowRow {
            metadata: body.metadata.clone(),
            spec: body.spec.clone(),
            revision: desired.revision.clone(),
            path: wanted.path.clone(),
            line: wanted.line,
            generation: Generation(known.map_or(0, |known| known.generation.0) + 1),
            hash: wanted.hash,
            valid: wanted.valid,
            held: None,
            blocked_among: None,
        })
    }

    fn keep_workflow(&mut self, desired: &Desired, name: &Name) {
        let Some(row) = self.wanted_row(desired, name) else { return };
        let pipelines = self.observed.workflows.remove(name).map(|observed| observed.pipelines).unwrap_or_default();
        self.observed.workflows.insert(name.clone(), ObservedWorkflow { pipelines, ..observe(&row) });
        self.workflows.insert(name.clone(), Workflow::new(&row));
    }

    fn keep_pipeline(&mut self, desired: &Desired, key: &PipelineKey) {
        let Some(compiled) = compiled(desired, key) else { return };
        let (spec_hash, revision) = (compiled.encode().0, desired.revision.clone());
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
    fn hold(&mut self, desired: &Desired, held: &[(Name, Hold)], blocked: Option<u32>, fx: &mut Effects) {
        for (name, workflow) in &mut self.workflows {
            let Some(observed) = self.observed.workflows.get_mut(name) else { continue };
            // `held` is sorted.
            let why = held.binary_search_by(|(of, _)| of.cmp(name)).ok().map(|at| held[at].1.to_string());
            let stays = why.is_some() && !observed.keep && !desired.workflows.contains_key(name);
            // While a file is broken nothing is counted, and what was blocked before stays so.
            observed.blocked_among = blocked.or(workflow.blocked_among).filter(|_| stays);
            let changed = workflow.held != why || workflow.blocked_among != observed.blocked_among;
            if changed && let Some(row) = workflow.row() {
                let row = WorkflowRow { held: why, blocked_among: observed.blocked_among, ..row };
                *workflow = Workflow::new(&row);
                fx.commit.push(Change::PutWorkflow(Box::new(row)));
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

fn compiled<'a>(desired: &'a Desired, key: &PipelineKey) -> Option<&'a CompiledPipeline> {
    desired.workflows.get(&key.workflow)?.body.as_deref()?.pipelines.get(&key.pipeline)
}

impl Observed {
    /// What the rows of a store say is in effect.
    pub fn of_rows(workflows: &[WorkflowRow], pipelines: &[PipelineRow]) -> Self {
        let mut observed =
            Self { workflows: workflows.iter().map(|row| (row.metadata.name.clone(), observe(row))).collect() };
        for row in pipelines {
            if let Some(workflow) = observed.workflows.get_mut(&row.key.workflow) {
                workflow.pipelines.insert(row.key.pipeline.clone(), row.spec_hash);
            }
        }
        observed
    }
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
