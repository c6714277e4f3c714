//! What a plan would do, told before it happens: the plan of reconciliation, with what its objects say, field by field.

pub mod fields;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use xene_agent::decide::cron::Schedule;
use xene_schemas::{
    map::UniqueMap,
    meta::{Name, ObjectMeta, PipelineKey},
    pipeline::PipelineFile,
    plan::{Action, DueTime, FieldChange, Fires, HeldWorkflow, PlanReport, PlanSide, PlannedChange},
    trigger::Trigger,
    workflow::WorkflowSpec,
};

use super::{
    desired::{Desired, Observed, ObservedWorkflow},
    plan::{Plan, PlanChange},
    rows::{NotifierRow, PipelineRow, WorkflowRow},
};

/// So many due times are told of each trigger of a pipeline.
const DUE_TIMES: usize = 3;

/// What is in effect, with what it says.
#[derive(Debug, Clone, Default)]
pub struct InEffect {
    observed: Observed,
    said: BTreeMap<Name, (ObjectMeta, WorkflowSpec)>,
    /// What travels with each workflow, where that is known.
    files: BTreeMap<Name, Vec<PipelineFile>>,
}

impl InEffect {
    /// What a store holds.
    pub fn of_rows(workflows: Vec<WorkflowRow>, pipelines: &[PipelineRow], notifiers: Vec<NotifierRow>) -> Self {
        let mut observed = Observed::of_rows(&workflows, pipelines);
        observed.notifiers = notifiers.into_iter().map(|row| (row.metadata.name.clone(), row)).collect();
        let said = workflows.into_iter().map(|row| (row.metadata.name.clone(), (row.metadata, row.spec)));
        Self { observed, said: said.collect(), files: BTreeMap::new() }
    }

    /// With the files that travel with each workflow, which its row does not hold.
    #[must_use]
    pub fn with_files(mut self, files: BTreeMap<Name, Vec<PipelineFile>>) -> Self {
        self.files = files;
        self
    }

    /// What would be in effect if `desired` took effect where nothing was.
    pub fn of_desired(desired: &Desired) -> Self {
        let mut in_effect = Self::default();
        for (name, wanted) in &desired.workflows {
            let Some(body) = &wanted.body else { continue };
            let pipelines = body.pipelines.iter().map(|(name, pipeline)| (name.clone(), pipeline.encode().0));
            let observed = ObservedWorkflow {
                hash: wanted.hash,
                path: wanted.path.clone(),
                line: wanted.line,
                valid: wanted.valid,
                pipelines: pipelines.collect(),
                keep: body.metadata.annotations.get("xene/prune").is_some_and(|prune| prune == "disabled"),
                blocked_among: None,
            };
            in_effect.observed.workflows.insert(name.clone(), observed);
            in_effect.said.insert(name.clone(), (body.metadata.clone(), body.spec.clone()));
            in_effect.files.insert(name.clone(), body.files().to_vec());
        }
        for (name, wanted) in &desired.notifiers {
            in_effect.observed.notifiers.insert(name.clone(), NotifierRow::new(wanted, &desired.revision, None));
        }
        in_effect
    }
}

/// The plan from `before` to `desired`, as people read it. Due times are those after `now`.
pub fn preview(before: &InEffect, desired: &Desired, from: PlanSide, to: PlanSide, now: Timestamp) -> PlanReport {
    let plan = Plan::build(desired, &before.observed);
    let changes = plan.changes.iter().map(|change| planned(change, before, desired, now)).collect();
    let held = plan.held.into_iter().map(|(name, hold)| HeldWorkflow {
        name,
        reason: hold.reason().into(),
        message: hold.to_string(),
    });
    PlanReport { from, to, changes, held: held.collect(), withheld: false, problems: desired.problems.clone() }
}

/// A pipeline of a plan that an agent must be found for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToPlace {
    /// Which.
    pub key: PipelineKey,
    /// The labels that it asks for.
    pub labels: UniqueMap<String, String>,
    /// Its group of `concurrency`.
    pub group: Option<Name>,
}

/// The pipelines of a plan that an agent must be found for, in their order, and those that go.
pub fn to_place(report: &PlanReport, desired: &Desired) -> (Vec<ToPlace>, BTreeSet<PipelineKey>) {
    let pipelines = report.changes.iter().filter(|change| change.kind == "Pipeline");
    let (removed, placed): (Vec<_>, Vec<_>) = pipelines.partition(|change| change.action == Action::Remove);
    let keys = |changes: Vec<&PlannedChange>| -> BTreeSet<PipelineKey> {
        changes.into_iter().filter_map(|change| change.name.parse().ok()).collect()
    };
    let place = |key: PipelineKey| {
        let body = desired.workflows.get(&key.workflow)?.body.as_ref()?;
        let spec = &body.pipelines.get(&key.pipeline)?.spec;
        Some(ToPlace { labels: spec.agents.labels.clone(), group: spec.concurrency.group.clone(), key })
    };
    (keys(placed).into_iter().filter_map(place).collect(), keys(removed))
}

fn planned(change: &PlanChange, before: &InEffect, desired: &Desired, now: Timestamp) -> PlannedChange {
    let (action, kind, name) = match change {
        PlanChange::CreateWorkflow(name) => (Action::Create, "Workflow", name.to_string()),
        PlanChange::UpdateWorkflow(name) => (Action::Update, "Workflow", name.to_string()),
        PlanChange::MoveWorkflow(name) => (Action::Move, "Workflow", name.to_string()),
        PlanChange::InvalidateWorkflow(name) => (Action::Invalidate, "Workflow", name.to_string()),
        PlanChange::ValidateWorkflow(name) => (Action::Validate, "Workflow", name.to_string()),
        PlanChange::RemoveWorkflow(name) => (Action::Remove, "Workflow", name.to_string()),
        PlanChange::CreatePipeline(key) => (Action::Create, "Pipeline", key.to_string()),
        PlanChange::UpdatePipeline(key) => (Action::Update, "Pipeline", key.to_string()),
        PlanChange::RemovePipeline(key) => (Action::Remove, "Pipeline", key.to_string()),
        PlanChange::CreateNotifier(name) => (Action::Create, "Notifier", name.to_string()),
        PlanChange::UpdateNotifier(name) => (Action::Update, "Notifier", name.to_string()),
        PlanChange::MoveNotifier(name) => (Action::Move, "Notifier", name.to_string()),
        PlanChange::InvalidateNotifier(name) => (Action::Invalidate, "Notifier", name.to_string()),
        PlanChange::ValidateNotifier(name) => (Action::Validate, "Notifier", name.to_string()),
        PlanChange::RemoveNotifier(name) => (Action::Remove, "Notifier", name.to_string()),
    };
    let mut planned = PlannedChange {
        action,
        kind: kind.into(),
        name,
        reason: change.reason().into(),
        path: None,
        line: None,
        fields: Vec::new(),
        fires: None,
        placement: None,
        runs: Vec::new(),
    };
    match change {
        PlanChange::CreateWorkflow(name)
        | PlanChange::UpdateWorkflow(name)
        | PlanChange::MoveWorkflow(name)
        | PlanChange::InvalidateWorkflow(name)
        | PlanChange::ValidateWorkflow(name)
        | PlanChange::RemoveWorkflow(name) => {
            let wanted = desired.workflows.get(name).map(|wanted| (&wanted.path, wanted.line));
            let found = before.observed.workflows.get(name).map(|found| (&found.path, found.line));
            if let Some((path, line)) = wanted.or(found) {
                (planned.path, planned.line) = (Some(path.clone()), Some(line));
            }
            planned.fields = fields_of(change, name, before, desired);
        }
        PlanChange::CreatePipeline(key) | PlanChange::UpdatePipeline(key) | PlanChange::RemovePipeline(key) => {
            let old = before.said.get(&key.workflow).map(|(_, spec)| spec);
            let body = desired.workflows.get(&key.workflow).and_then(|wanted| wanted.body.as_ref());
            let due = |spec: Option<&WorkflowSpec>| spec.map(|spec| due_times(spec, &key.pipeline, now));
            let fires = Fires {
                before: due(old).unwrap_or_default(),
                after: due(body.map(|body| &body.spec)).unwrap_or_default(),
            };
            planned.fires = (fires.before != fires.after).then_some(fires);
        }
        PlanChange::CreateNotifier(name)
        | PlanChange::UpdateNotifier(name)
        | PlanChange::MoveNotifier(name)
        | PlanChange::InvalidateNotifier(name)
        | PlanChange::ValidateNotifier(name)
        | PlanChange::RemoveNotifier(name) => {
            let (found, wanted) = (before.observed.notifiers.get(name), desired.notifiers.get(name));
            let place = wanted.map(|wanted| (&wanted.path, wanted.claim.line));
            if let Some((path, line)) = place.or_else(|| found.map(|found| (&found.path, found.line))) {
                (planned.path, planned.line) = (Some(path.clone()), Some(line));
            }
            if let (Some(found), Some(wanted)) = (found, wanted) {
                let new = NotifierRow::new(wanted, &desired.revision, Some(found));
                planned.fields = match action {
                    Action::Move | Action::Invalidate | Action::Validate => {
                        moved((&found.path, found.line, found.valid), (&new.path, new.line, new.valid))
                    }
                    _ => fields::between((&found.metadata, &found.spec), (&new.metadata, &new.spec)),
                };
            }
        }
    }
    planned
}

fn fields_of(change: &PlanChange, name: &Name, before: &InEffect, desired: &Desired) -> Vec<FieldChange> {
    let (Some(found), Some(wanted)) = (before.observed.workflows.get(name), desired.workflows.get(name)) else {
        return Vec::new();
    };
    match change {
        PlanChange::UpdateWorkflow(_) => {
            let (Some((metadata, spec)), Some(body)) = (before.said.get(name), &wanted.body) else { return Vec::new() };
            let mut changes = fields::between((metadata, spec), (&body.metadata, &body.spec));
            changes.extend(fields::of_files(before.files.get(name).map_or(&[], Vec::as_slice), body.files()));
            changes
        }
        PlanChange::MoveWorkflow(_) | PlanChange::InvalidateWorkflow(_) | PlanChange::ValidateWorkflow(_) => {
            moved((&found.path, found.line, found.valid), (&wanted.path, wanted.line, wanted.valid))
        }
        _ => Vec::new(),
    }
}

/// Where an object was, and where it is, as fields: file, line, whether its file is good.
fn moved(old: (&str, u32, bool), new: (&str, u32, bool)) -> Vec<FieldChange> {
    let place = |path: &str, line: u32| serde_json::Value::from(format!("{path}:{line}"));
    let mut changes = Vec::new();
    let (was, is) = (place(old.0, old.1), place(new.0, new.1));
    if was != is {
        changes.push(FieldChange { path: "file".into(), old: Some(was), new: Some(is) });
    }
    if old.2 != new.2 {
        changes.push(FieldChange { path: "valid".into(), old: Some(old.2.into()), new: Some(new.2.into()) });
    }
    changes
}

/// The next due times of each trigger of a pipeline, in their order; none if it is suspended, or has no cron trigger.
pub fn due_times(workflow: &WorkflowSpec, pipeline: &Name, now: Timestamp) -> Vec<DueTime> {
    let Some(spec) = workflow.pipelines.get(pipeline).filter(|spec| !spec.suspend && !workflow.suspend) else {
        return Vec::new();
    };
    let mut due = Vec::new();
    for name in &spec.triggers.0 {
        let Some(Trigger::Cron(cron)) = workflow.triggers.get(name) else { continue };
        let Some(schedule) = Schedule::parse(cron).ok().filter(|_| !cron.suspend) else { continue };
        let times = std::iter::successors(schedule.next_after(now), |at| schedule.next_after(*at));
        due.extend(times.take(DUE_TIMES).map(|at| DueTime { at, trigger: name.clone() }));
    }
    due.sort();
    due
}

#[cfg(test)]
mod tests;
