//! Reconciling: from the plan to rows, in one commit with the pointer and the events; then placement of what changed.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use xene_agent::decide::{mutant::Mutant, time::Now};
use xene_schemas::{
    duration::Duration as Span,
    event::EventType,
    map::UniqueMap,
    meta::{Generation, Name, PipelineKey, Revision, SpecHash},
    pipeline::{Autonomy, CompiledPipeline, History, OnAgentLost, OnAmbiguous, PipelineSpec},
};

use super::{
    Controller,
    desired::{Desired, Found, Observed, ObservedWorkflow},
    event::{Answer, Effect, Effects, Refusal},
    note,
    plan::{BLOCKED, Hold, Plan, PlanChange},
    rows::{Change, NotifierRow, PipelineRow, Suspendable, WorkflowRow},
};

/// Of no content.
const NO_HASH: SpecHash = SpecHash([0; 32]);
/// What the event of a file that is broken adds.
const STAYS: &str = ", and what it last gave stays in effect";
/// How many objects an event names.
const NAMED: usize = 10;

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
    pub(super) queue_timeout: Option<Span>,
    pub(super) max_runs: u32,
    /// The group of `concurrency`.
    pub(super) group: Option<Name>,
    /// The pipelines of its workflow that it follows.
    pub(super) after: Vec<Name>,
    pub(super) on_agent_lost: OnAgentLost,
    pub(super) on_ambiguous: OnAmbiguous,
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

    pub(super) fn row(&self) -> Option<WorkflowRow> {
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
            queue_timeout: spec.queue_timeout,
            max_runs: spec.concurrency.max,
            group: spec.concurrency.group.clone(),
            after: spec.after.0.clone(),
            on_agent_lost: spec.on_agent_lost.unwrap_or(OnAgentLost::Error),
            on_ambiguous: spec.on_ambiguous.unwrap_or(OnAmbiguous::Skip),
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
            self.enter(row.key, pipeline);
        }
    }

    /// Keeps a pipeline, and who is to look at it when something happens to another.
    fn enter(&mut self, key: PipelineKey, pipeline: Pipeline) {
        self.leave(&key);
        for before in &pipeline.after {
            let before = PipelineKey { workflow: key.workflow.clone(), pipeline: before.clone() };
            self.dependents.entry(before).or_default().insert(key.pipeline.clone());
        }
        if let Some(group) = &pipeline.group {
            self.groups.entry(group.clone()).or_default().insert(key.clone());
        }
        self.pipelines.insert(key, pipeline);
    }

    /// The opposite; the group that it leaves, if it had one.
    fn leave(&mut self, key: &PipelineKey) -> Option<Name> {
        let pipeline = self.pipelines.remove(key)?;
        for before in pipeline.after {
            let before = PipelineKey { workflow: key.workflow.clone(), pipeline: before };
            if let Some(dependents) = self.dependents.get_mut(&before) {
                dependents.remove(&key.pipeline);
                if dependents.is_empty() {
                    self.dependents.remove(&before);
                }
            }
        }
        let group = pipeline.group?;
        if let Some(members) = self.groups.get_mut(&group) {
            members.remove(key);
            if members.is_empty() {
                self.groups.remove(&group);
            }
        }
        Some(group)
    }

    /// True if another revision came into effect since it was compiled: what waited while the source was suspended.
    pub(super) fn is_stale(&self, desired: &Desired) -> bool {
        let in_effect = self.source.revision();
        desired.base.is_some() && desired.base.as_ref() != in_effect && Some(&desired.revision) != in_effect
    }

    /// True if the source is suspended, and this is news.
    pub(super) fn must_wait(&self, desired: &Desired) -> bool {
        self.source_suspension().is_some() && self.source.revision() != Some(&desired.revision)
    }

    /// The source is suspended: what it asks for waits, and the newest takes the place of what waited before.
    pub(super) fn wait_with(&mut self, now: Now, desired: Box<Desired>, fx: &mut Effects) {
        self.pending = Some(desired);
        self.put_source(now, fx);
    }

    /// The source asks for this: one commit for all of it.
    pub(super) fn compiled(&mut self, now: Now, desired: Desired, fx: &mut Effects) {
        self.pending = None;
        let plan = Plan::build(&desired, &self.observed);
        // All rows before anything that stays: after a first look they are many, and their memory, which goes back
        // once they are written, must not lie between what is kept.
        for change in &plan.changes {
            self.write(now, &desired, change, fx);
        }
        let mut touched: BTreeSet<PipelineKey> = BTreeSet::new();
        let mut regrouped: BTreeSet<Name> = BTreeSet::new();
        for change in plan.changes {
            match change {
                PlanChange::UpdateWorkflow(name) => {
                    if let Some(body) = desired.workflows.get(&name).and_then(|wanted| wanted.body.as_ref()) {
                        self.edit_triggers(&name, &body.spec, fx);
                    }
                    self.keep_workflow(&desired, &name);
                }
                PlanChange::CreateWorkflow(name)
                | PlanChange::MoveWorkflow(name)
                | PlanChange::InvalidateWorkflow(name)
                | PlanChange::ValidateWorkflow(name) => self.keep_workflow(&desired, &name),
                PlanChange::RemoveWorkflow(name) => self.remove_workflow(&name, fx),
                PlanChange::CreatePipeline(key) => {
                    self.keep_pipeline(&desired, &key);
                    self.begin_watermark(&key, fx);
                    touched.insert(key);
                }
                PlanChange::UpdatePipeline(key) => {
                    regrouped.extend(self.group(&key).cloned());
                    self.keep_pipeline(&desired, &key);
                    self.respec(now, &key, fx);
                    touched.insert(key);
                }
                PlanChange::RemovePipeline(key) => regrouped.extend(self.remove_pipeline(now, &key, fx)),
                PlanChange::CreateNotifier(_)
                | PlanChange::UpdateNotifier(_)
                | PlanChange::MoveNotifier(_)
                | PlanChange::InvalidateNotifier(_)
                | PlanChange::ValidateNotifier(_)
                | PlanChange::RemoveNotifier(_) => self.change_notifier(now, &desired, &change, fx),
            }
        }
        self.hold(&desired, &plan.held, plan.prune_blocked, fx);
        for (path, row) in &desired.files {
            fx.commit.push(Change::PutFile(path.clone(), row.clone().map(Box::new)));
        }
        self.source_applied(now, &desired, fx);
        for key in &touched {
            self.follow(now, key, fx);
            regrouped.extend(self.group(key).cloned());
        }
        let members = regrouped.iter().filter_map(|group| self.groups.get(group));
        touched.extend(members.flatten().cloned().collect::<Vec<_>>());
        for key in touched {
            self.keep_or_revoke(now, &key, fx);
        }
    }

    /// Rows were changed behind our back: what differs from what the source asks for is put back, whatever its hash
    /// says.
    pub(super) fn drifted(&mut self, now: Now, desired: Desired, found: Found, fx: &mut Effects) {
        let mut drifted = BTreeSet::new();
        for (name, wanted) in &desired.workflows {
            let Some(body) = &wanted.body else { continue };
            let Some(observed) = self.observed.workflows.get_mut(name).filter(|known| known.hash == wanted.hash) else {
                // It is written anyway.
                continue;
            };
            let kept = found.workflows.get(name);
            let mut is_whole = kept.is_some_and(|row| row.metadata == body.metadata && row.spec == body.spec);
            if !is_whole {
                drifted.insert(format!("workflow/{name}"));
            }
            for (pipeline, compiled) in &body.pipelines {
                let (hash, _) = compiled.encode();
                let kept = found.pipelines.get(&compiled.key).and_then(Option::as_ref);
                let of_source = |row: &&PipelineRow| {
                    row.spec_hash == hash && row.spec == compiled.spec && row.suspend == compiled.suspend
                };
                if kept.filter(of_source).is_none() {
                    drifted.insert(format!("pipeline/{}", compiled.key));
                    observed.pipelines.insert(pipeline.clone(), NO_HASH);
                    is_whole = false;
                }
            }
            if !is_whole {
                observed.hash = NO_HASH;
            }
        }
        for (name, row) in &found.workflows {
            self.observed.workflows.entry(name.clone()).or_insert_with(|| {
                drifted.insert(format!("workflow/{name}"));
                ObservedWorkflow { hash: NO_HASH, ..observe(row) }
            });
        }
        for key in found.pipelines.keys() {
            let Some(observed) = self.observed.workflows.get_mut(&key.workflow) else {
                fx.commit.push(Change::DeletePipeline(key.clone()));
                continue;
            };
            if !observed.pipelines.contains_key(&key.pipeline) {
                drifted.insert(format!("pipeline/{key}"));
                observed.pipelines.insert(key.pipeline.clone(), NO_HASH);
                observed.hash = NO_HASH;
            }
        }
        for (name, row) in &found.notifiers {
            if self.observed.notifiers.get(name) != Some(row) {
                drifted.insert(format!("notifier/{name}"));
                let row = NotifierRow { hash: NO_HASH, ..row.clone() };
                self.observed.notifiers.entry(name.clone()).and_modify(|row| row.hash = NO_HASH).or_insert(row);
            }
        }
        for (name, row) in self.observed.notifiers.iter_mut().filter(|(name, _)| !found.notifiers.contains_key(*name)) {
            drifted.insert(format!("notifier/{name}"));
            row.hash = NO_HASH;
        }
        let shown: Vec<&str> = drifted.iter().take(NAMED).map(String::as_str).collect();
        let more = if drifted.len() > NAMED { format!(" and {} more", drifted.len() - NAMED) } else { String::new() };
        let what = if shown.is_empty() { "what it keeps of files".into() } else { shown.join(", ") };
        let message = format!(
            "the store was changed behind the controller's back ({what}{more}), and says again what {} says",
            desired.revision
        );
        fx.now.push(Effect::Alert(message.clone()));
        note(fx, now, EventType::Warning, "DriftRepaired", "source".into(), message);
        self.compiled(now, desired, fx);
        self.drift_told = false;
        // What was not put back stands in no relation to the source, and would be found for ever.
        fx.commit.push(Change::Redigest);
    }

    /// The same, while the source is suspended and something waits: only told.
    pub(super) fn drifted_in_wait(&mut self, now: Now, desired: Box<Desired>, fx: &mut Effects) {
        self.wait_with(now, desired, fx);
        if !std::mem::replace(&mut self.drift_told, true) {
            let message = "the store was changed behind the controller's back; what the source says is put back once it is resumed";
            fx.now.push(Effect::Alert(message.into()));
            note(fx, now, EventType::Warning, "Drifted", "source".into(), message.into());
        }
    }

    /// A workflow in effect, as stored.
    pub(super) fn workflow_row(&self, name: &Name) -> Option<WorkflowRow> {
        self.workflows.get(name)?.row()
    }

    fn remove_workflow(&mut self, name: &Name, fx: &mut Effects) {
        self.workflows.remove(name);
        self.observed.workflows.remove(name);
        self.drop_suspension(&Suspendable::Workflow(name.clone()), fx);
    }

    /// A person lets a commit remove what it was kept from removing: all of that, at once.
    pub(super) fn approve_prune(
        &mut self,
        now: Now,
        commit: &str,
        by: &str,
        fx: &mut Effects,
    ) -> Result<Answer, Refusal> {
        let blocked = self.workflows.iter().filter(|(_, workflow)| {
            workflow.blocked_among.is_some() && workflow.held.as_ref().is_some_and(|held| held.starts_with(BLOCKED))
        });
        let blocked: Vec<Name> = blocked.map(|(name, _)| name.clone()).collect();
        let revision = self.source.revision().cloned().filter(|_| !blocked.is_empty());
        let revision = revision.ok_or(Refusal::NothingBlocked)?;
        if !revision.0.starts_with(commit) {
            return Err(Refusal::OtherCommit(revision));
        }
        let removed: Vec<&str> = blocked.iter().map(Name::as_str).collect();
        let message = format!("{by} lets {revision} remove {}", removed.join(", "));
        note(fx, now, EventType::Normal, "PruneApproved", "source".into(), message);
        let mut regrouped: BTreeSet<Name> = BTreeSet::new();
        for name in blocked {
            let message = format!("{revision} asks for it no more, and {by} approved");
            note(fx, now, EventType::Normal, "WorkflowRemoved", format!("workflow/{name}"), message);
            fx.commit.push(Change::DeleteWorkflow(name.clone()));
            let pipelines = self.observed.workflows.get(&name).map(|observed| observed.pipelines.clone());
            for pipeline in pipelines.unwrap_or_default().into_keys() {
                let key = PipelineKey { workflow: name.clone(), pipeline };
                let message = format!("{revision} asks for it no more, and {by} approved");
                note(fx, now, EventType::Normal, "PipelineRemoved", format!("pipeline/{key}"), message);
                regrouped.extend(self.remove_pipeline(now, &key, fx));
            }
            self.remove_workflow(&name, fx);
        }
        for member in regrouped.iter().filter_map(|group| self.groups.get(group)).flatten().cloned().collect::<Vec<_>>()
        {
            self.keep_or_revoke(now, &member, fx);
        }
        self.count_held();
        self.put_source(now, fx);
        Ok(Answer::Done)
    }

    /// Adds the rows and the event of one change.
    fn write(&self, now: Now, desired: &Desired, change: &PlanChange, fx: &mut Effects) {
        let mut tell = |message| note(fx, now, change.event_type(), change.reason(), change.regarding(), message);
        match change {
            PlanChange::CreateWorkflow(name)
            | PlanChange::UpdateWorkflow(name)
            | PlanChange::MoveWorkflow(name)
            | PlanChange::InvalidateWorkflow(name)
            | PlanChange::ValidateWorkflow(name) => {
                let Some(row) = self.wanted_row(desired, name) else { return };
                let stays = if matches!(change, PlanChange::InvalidateWorkflow(_)) { STAYS } else { "" };
                tell(format!("by {} at {}:{}{stays}", desired.revision, row.path, row.line));
                let is_left =
                    matches!(change, PlanChange::UpdateWorkflow(_)) && self.mutants.is(Mutant::WorkflowRowStays);
                if !is_left {
                    fx.commit.push(Change::PutWorkflow(Box::new(row)));
                }
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
                    revision: self.first_read(desired, key, spec_hash),
                    suspend: compiled.suspend,
                })));
            }
            PlanChange::RemovePipeline(_) => tell(format!("{} asks for it no more", desired.revision)),
            // Written where they are kept.
            PlanChange::CreateNotifier(_)
            | PlanChange::UpdateNotifier(_)
            | PlanChange::MoveNotifier(_)
            | PlanChange::InvalidateNotifier(_)
            | PlanChange::ValidateNotifier(_)
            | PlanChange::RemoveNotifier(_) => {}
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
        // What is only put back is as old as it was.
        let (revision, generation) = match known.and_then(Workflow::row).filter(|row| row.hash == wanted.hash) {
            Some(row) => (row.revision, row.generation),
            None => (desired.revision.clone(), Generation(known.map_or(0, |known| known.generation.0) + 1)),
        };
        Some(WorkflowRow {
            metadata: body.metadata.clone(),
            spec: body.spec.clone(),
            revision,
            path: wanted.path.clone(),
            line: wanted.line,
            generation,
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

    /// The revision that a pipeline's spec was first read from: what is only put back is as old as it was.
    fn first_read(&self, desired: &Desired, key: &PipelineKey, spec_hash: SpecHash) -> Revision {
        let same = self.pipelines.get(key).filter(|known| known.spec_hash == spec_hash);
        same.map_or(&desired.revision, |known| &known.revision).clone()
    }

    fn keep_pipeline(&mut self, desired: &Desired, key: &PipelineKey) {
        let Some(compiled) = compiled(desired, key) else { return };
        let spec_hash = compiled.encode().0;
        let revision = self.first_read(desired, key, spec_hash);
        let smallest = self.config.min_autonomy;
        let pipeline = Pipeline::new(&compiled.spec, spec_hash, revision, compiled.suspend, smallest);
        self.enter(key.clone(), pipeline);
        if let Some(observed) = self.observed.workflows.get_mut(&key.workflow) {
            observed.pipelines.insert(key.pipeline.clone(), spec_hash);
        }
    }

    /// Its triggers stop, its runs go on, its history stays until retention takes it.
    /// Returns the group that it leaves.
    fn remove_pipeline(&mut self, now: Now, key: &PipelineKey, fx: &mut Effects) -> Option<Name> {
        let group = self.leave(key);
        self.waiting.remove(key);
        if self.after.remove(key).is_some() {
            fx.commit.push(Change::PutAfter(key.clone(), None));
        }
        self.drop_suspension(&Suspendable::Pipeline(key.clone()), fx);
        if let Some(observed) = self.observed.workflows.get_mut(&key.workflow) {
            observed.pipelines.remove(&key.pipeline);
        }
        fx.commit.push(Change::DeletePipeline(key.clone()));
        self.revoke(key, "the pipeline was removed".into(), fx);
        self.end_unaddressed(now, key, fx);
        group
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

    /// What the source's conditions say of workflows that vanished but stay. One that its annotation keeps is as it was
    /// asked to be.
    pub(super) fn count_held(&mut self) {
        let is_kept = |name: &Name| self.observed.workflows.get(name).is_some_and(|observed| observed.keep);
        let held = self.workflows.iter().filter(|(name, row)| row.held.is_some() && !is_kept(name));
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
        let mut observed = Self {
            workflows: workflows.iter().map(|row| (row.metadata.name.clone(), observe(row))).collect(),
            ..Self::default()
        };
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
