//! What can be read: lists, page by page, and single objects.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use axum::{
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use xene_schemas::{
    agent::Agent,
    controller::Controller,
    event::Event,
    meta::{AgentName, Name, ObjectMeta, PipelineKey, RunName},
    object::WorkflowObject,
    phase::{AgentPhase, PipelinePhase, RunPhase, WorkflowPhase},
    run::Run,
    source::{Source, SourceStatus},
};

use super::{
    Api,
    identity::{Identity, Role, Scope},
    objects::{self, Object, Suspensions, list},
    problem::Problem,
    query::{Query, Selector},
};
use crate::{
    decide::rows::{PipelineRow, RunRow, WorkflowRow},
    store::RunFilter,
};

/// So many events are looked through at a time for who sees only some.
const LOOKED_AT: usize = 500;

type Answer = Result<Response, Problem>;

pub(super) async fn source(State(api): State<Arc<Api>>, identity: Identity) -> Answer {
    match api.handle.store().source()? {
        Some(status) => {
            let mut status = status;
            api.handle.view(|controller, now| controller.last_look(now)).await?.add_to(&mut status);
            let mut status = visible_source(&api, &identity.scope, status)?;
            status.webhook = Some("/hooks/source".to_owned());
            // Whoever has it may do what operators may.
            status.webhook_token =
                (identity.role >= Role::Operator && identity.scope.is_all()).then(|| api.config.hooks.source_token());
            Ok(Object::new("Source", Source { status }).into_response())
        }
        None => Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the source has not been looked at yet")),
    }
}

/// Without the problems of files, and the names of workflows, that are out of sight.
pub(super) fn visible_source(api: &Api, scope: &Scope, mut status: SourceStatus) -> Result<SourceStatus, Problem> {
    if let Scope::Workflows(names) = scope {
        let mut paths = BTreeSet::new();
        for name in &**names {
            paths.extend(api.handle.store().workflow(name)?.map(|row| row.path));
        }
        status.problems.retain(|problem| paths.contains(&problem.path));
        for condition in &mut status.conditions {
            if matches!(condition.reason.as_str(), "PruneBlocked" | "PruneHeld") {
                condition.message = "workflows that no file declares any more stay".into();
            }
        }
    }
    Ok(status)
}

/// Without the pipelines that are out of sight.
pub(super) fn visible_agent(scope: &Scope, mut agent: Agent) -> Agent {
    agent.status.pipelines.retain(|key| scope.has(&key.workflow));
    agent
}

pub(super) async fn controller(State(api): State<Arc<Api>>) -> Answer {
    let status = api.handle.view(|controller, _| controller.status()).await?;
    Ok(Object::new("Controller", Controller { status }).into_response())
}

pub(super) async fn workflows(State(api): State<Arc<Api>>, identity: Identity, mut query: Query) -> Answer {
    let (limit, labels) = (query.limit()?, query.labels()?);
    let after: Option<Name> = query.parse("after", "a name")?;
    let only: Option<Name> = query.parse("workflow", "a name")?;
    let phase: Option<WorkflowPhase> = query.parse("phase", "Ready, Invalid or Suspended")?;
    query.finish()?;
    let suspensions = Suspensions::read(&api)?;
    let rows = api.handle.store().workflows(after.as_ref(), limit, |row| {
        let name = &row.metadata.name;
        identity.scope.has(name)
            && only.as_ref().is_none_or(|only| only == name)
            && labels.matches(|key| row.metadata.labels.get(key))
            && phase.is_none_or(|phase| objects::workflow_phase(row, &suspensions) == phase)
    })?;
    Ok(list("Workflow", rows.into_iter().map(|row| objects::workflow(row, &suspensions)).collect()))
}

pub(super) async fn workflow(State(api): State<Arc<Api>>, Path(name): Path<String>) -> Answer {
    let item = match name.parse() {
        Ok(parsed) => workflow_object(&api, &parsed)?,
        Err(_) => None,
    };
    Ok(item.ok_or_else(|| absent("workflow", &name))?.into_response())
}

/// One workflow, if it is there.
pub(super) fn workflow_object(api: &Api, name: &Name) -> Result<Option<Object<WorkflowObject>>, Problem> {
    let Some(row) = api.handle.store().workflow(name)? else { return Ok(None) };
    Ok(Some(Object::new("Workflow", objects::workflow(row, &Suspensions::read(api)?))))
}

pub(super) async fn pipelines(State(api): State<Arc<Api>>, identity: Identity, mut query: Query) -> Answer {
    let (limit, labels) = (query.limit()?, query.labels()?);
    let mut after: Option<PipelineKey> = query.parse("after", "WORKFLOW/PIPELINE")?;
    let (workflow, pipeline) = pipeline_filter(&mut query)?;
    let phase: Option<PipelinePhase> = query.parse("phase", "Scheduled or NotScheduled")?;
    query.finish()?;
    let (store, now) = (api.handle.store(), api.handle.wall());
    let suspensions = Suspensions::read(&api)?;
    let labels = PipelineLabels::load(&api, labels)?;
    let (mut items, mut last_workflow): (Vec<_>, Option<WorkflowRow>) = (Vec::new(), None);
    // A phase is not in the row: pages are read until enough objects have it.
    loop {
        let rows = store.pipelines(workflow.as_ref(), after.as_ref(), limit, |row| {
            identity.scope.has(&row.key.workflow)
                && pipeline.as_ref().is_none_or(|pipeline| *pipeline == row.key.pipeline)
                && labels.select(row)
        })?;
        let is_last = rows.len() < limit;
        after = rows.last().map(|row| row.key.clone());
        for row in rows {
            if last_workflow.as_ref().is_none_or(|last| last.metadata.name != row.key.workflow) {
                last_workflow = store.workflow(&row.key.workflow)?;
            }
            let item = objects::pipeline(&api, &identity, row, last_workflow.as_ref(), &suspensions, now)?;
            if phase.is_none_or(|phase| phase == item.status.phase) {
                items.push(item);
            }
        }
        if is_last || items.len() >= limit {
            items.truncate(limit);
            return Ok(list("Pipeline", items));
        }
    }
}

pub(super) async fn pipeline(
    State(api): State<Arc<Api>>,
    identity: Identity,
    Path((workflow, pipeline)): Path<(String, String)>,
) -> Answer {
    let name = format!("{workflow}/{pipeline}");
    let key = name.parse::<PipelineKey>().ok();
    let item = match key {
        Some(key) => pipeline_object(&api, &identity, &key)?,
        None => None,
    };
    Ok(item.ok_or_else(|| absent("pipeline", &name))?.into_response())
}

/// One pipeline, if it is there.
pub(super) fn pipeline_object(
    api: &Api,
    identity: &Identity,
    key: &PipelineKey,
) -> Result<Option<Object<xene_schemas::object::PipelineObject>>, Problem> {
    let store = api.handle.store();
    let Some(row) = store.pipeline(key)? else { return Ok(None) };
    let workflow = store.workflow(&key.workflow)?;
    let item = objects::pipeline(api, identity, row, workflow.as_ref(), &Suspensions::read(api)?, api.handle.wall())?;
    Ok(Some(Object::new("Pipeline", item)))
}

pub(super) async fn runs(State(api): State<Arc<Api>>, identity: Identity, mut query: Query) -> Answer {
    let (limit, labels, since) = (query.limit()?, query.labels()?, query.since()?);
    let after: Option<RunName> = query.parse("after", "a run's name")?;
    let (workflow, pipeline) = pipeline_filter(&mut query)?;
    let agent: Option<AgentName> = query.parse("agent", "an agent's name")?;
    let phase: Option<RunPhase> =
        query.parse("phase", "StartingUp, Running, ShuttingDown, Success, Error or Unknown")?;
    let active = query.flag("active")?;
    query.finish()?;
    let store = api.handle.store();
    // Runs have no labels of their own: those of their pipeline count.
    let among = if labels.is_empty() {
        None
    } else {
        let labels = PipelineLabels::load(&api, labels)?;
        let rows = store.pipelines(workflow.as_ref(), None, usize::MAX, |row| labels.select(row))?;
        Some(rows.into_iter().map(|row| row.key).collect::<BTreeSet<_>>())
    };
    let within = identity.scope.workflows().cloned();
    let filter = RunFilter { workflow, pipeline, agent, phase, active, since, within, among };
    let rows = store.runs(&filter, after, limit)?;
    Ok(list("Run", rows.into_iter().map(|row| row.run).collect()))
}

pub(super) async fn run(State(api): State<Arc<Api>>, Path(name): Path<String>) -> Answer {
    Ok(Object::new("Run", find_run(&api, &name)?.run).into_response())
}

/// One run.
pub(super) fn find_run(api: &Api, name: &str) -> Result<RunRow, Problem> {
    let row = match name.parse() {
        Ok(parsed) => api.handle.store().run(parsed)?,
        Err(_) => None,
    };
    row.ok_or_else(|| absent("run", name))
}

/// Whether a task is the one asked for, or an instance of it: `test[os=linux]` is one of `test`.
pub(super) fn is_task(name: &str, asked: &str) -> bool {
    name.strip_prefix(asked).is_some_and(|rest| rest.is_empty() || rest.starts_with('['))
}

/// # Errors
/// If no task of the run is named so, or if it has ended without such a step: then nothing of it will ever come.
pub(super) fn check_names(run: &Run, task: Option<&str>, step: Option<&str>) -> Result<(), Problem> {
    let tasks = &run.status.tasks;
    if tasks.is_empty() {
        return Ok(());
    }
    let refuse = |kind: &str, name: &str, names: BTreeSet<&str>| {
        let name: String = name.chars().take(130).collect();
        let there = if names.is_empty() {
            "none ran".to_owned()
        } else {
            format!("there are: {}", names.into_iter().collect::<Vec<_>>().join(", "))
        };
        let detail = format!("run {} has no {kind} named {name}; {there}", run.metadata.name);
        Err(Problem::not_found(detail))
    };
    let of = || tasks.iter().filter(|(name, _)| task.is_none_or(|task| is_task(name, task)));
    if let Some(task) = task.filter(|_| of().next().is_none()) {
        return refuse("task", task, tasks.keys().map(String::as_str).collect());
    }
    if !run.status.phase.is_final() {
        return Ok(());
    }
    let steps: BTreeSet<&str> = of().flat_map(|(_, task)| &task.steps).map(|step| step.name.as_str()).collect();
    match step.filter(|step| !steps.contains(step)) {
        Some(step) => refuse("step", step, steps),
        None => Ok(()),
    }
}

pub(super) async fn agents(State(api): State<Arc<Api>>, identity: Identity, mut query: Query) -> Answer {
    let (limit, labels) = (query.limit()?, query.labels()?);
    let after: Option<Name> = query.parse("after", "a name")?;
    let phase: Option<AgentPhase> = query.parse("phase", "Connected, Disconnected, Draining or Revoked")?;
    query.finish()?;
    let mut agents = api.handle.view(|controller, now| controller.agents(now)).await?;
    agents.retain(|agent| {
        after.as_ref().is_none_or(|after| agent.metadata.name > *after)
            && labels.matches(|key| agent.metadata.labels.get(key))
            && phase.is_none_or(|phase| agent.status.phase == phase)
    });
    agents.truncate(limit);
    Ok(list("Agent", agents.into_iter().map(|agent| visible_agent(&identity.scope, agent)).collect()))
}

pub(super) async fn agent(State(api): State<Arc<Api>>, identity: Identity, Path(name): Path<String>) -> Answer {
    let agent = match name.parse::<Name>() {
        Ok(parsed) => api.handle.view(move |controller, now| controller.agent(now, &parsed)).await?,
        Err(_) => None,
    };
    let agent = agent.ok_or_else(|| absent("agent", &name))?;
    Ok(Object::new("Agent", visible_agent(&identity.scope, agent)).into_response())
}

/// Newest first, as runs are.
pub(super) async fn events(State(api): State<Arc<Api>>, identity: Identity, mut query: Query) -> Answer {
    let (limit, since) = (query.limit()?, query.since()?);
    let mut after: Option<u64> = query.parse("after", "an event's number")?;
    let regarding = query.take("regarding");
    let (workflow, pipeline) = pipeline_filter(&mut query)?;
    query.finish()?;
    let mut found = Vec::new();
    let takes_all = identity.scope.is_all() && workflow.is_none() && pipeline.is_none();
    let takes = |event: &Event| {
        takes_all
            || belongs_to(&api, &event.regarding).is_some_and(|(of, within)| {
                identity.scope.has(&of)
                    && workflow.as_ref().is_none_or(|workflow| *workflow == of)
                    && (pipeline.is_none() || pipeline == within)
            })
    };
    // Who sees little looks through much.
    let page_size = if takes_all { limit } else { limit.max(LOOKED_AT) };
    // What a run belongs to is no part of the event: pages are read until enough of them are in sight.
    loop {
        let page = api.handle.store().events(after, page_size, |event| {
            regarding.as_ref().is_none_or(|regarding| *regarding == event.regarding)
                && since.is_none_or(|since| event.at >= since)
        })?;
        let is_last = page.len() < page_size;
        after = page.last().map(|event| event.id);
        found.extend(page.into_iter().filter(&takes));
        if is_last || found.len() >= limit {
            found.truncate(limit);
            return Ok(list("Event", found));
        }
    }
}

pub(super) async fn event(State(api): State<Arc<Api>>, identity: Identity, Path(id): Path<String>) -> Answer {
    let found = match id.parse::<u64>() {
        Ok(id) => api.handle.store().events(id.checked_add(1), 1, |_| true)?.pop().filter(|event| event.id == id),
        Err(_) => None,
    };
    let found = found.filter(|event| identity.scope.has_event(&api, &event.regarding));
    Ok(Object::new("Event", found.ok_or_else(|| absent("event", &id))?).into_response())
}

/// The workflow that an event is about, and the pipeline if it is about one or about a run of it. A run whose row is gone
/// belongs to nothing any more.
pub(super) fn belongs_to(api: &Api, regarding: &str) -> Option<(Name, Option<Name>)> {
    match regarding.split_once('/')? {
        ("workflow", name) => Some((name.parse().ok()?, None)),
        ("pipeline", key) => key.parse::<PipelineKey>().ok().map(|key| (key.workflow, Some(key.pipeline))),
        ("run", name) => find_run(api, name).ok().map(|row| (row.run.spec.workflow, Some(row.run.spec.pipeline))),
        _ => None,
    }
}

/// `workflow` and `pipeline`; the latter may hold both.
fn pipeline_filter(query: &mut Query) -> Result<(Option<Name>, Option<Name>), Problem> {
    let workflow: Option<Name> = query.parse("workflow", "a name")?;
    let Some(pipeline) = query.take("pipeline") else { return Ok((workflow, None)) };
    let refuse = |_| Problem::bad_request(format!("pipeline takes a name or WORKFLOW/PIPELINE, not {pipeline:?}"));
    if pipeline.contains('/') {
        let key: PipelineKey = pipeline.parse().map_err(refuse)?;
        if let Some(workflow) = workflow.filter(|workflow| *workflow != key.workflow) {
            let detail = format!("pipeline {key} is none of workflow {workflow}: leave one of the two parameters out");
            return Err(Problem::bad_request(detail));
        }
        return Ok((Some(key.workflow), Some(key.pipeline)));
    }
    Ok((workflow, Some(pipeline.parse().map_err(refuse)?)))
}

/// Selects pipelines by their labels, those of their workflow included; their own win.
struct PipelineLabels {
    selector: Selector,
    /// Empty if everything is selected.
    of_workflows: HashMap<Name, ObjectMeta>,
}

impl PipelineLabels {
    fn load(api: &Api, selector: Selector) -> Result<Self, Problem> {
        let of_workflows = if selector.is_empty() {
            HashMap::new()
        } else {
            let rows = api.handle.store().workflows(None, usize::MAX, |row| !row.metadata.labels.is_empty())?;
            rows.into_iter().map(|row| (row.metadata.name.clone(), row.metadata)).collect()
        };
        Ok(Self { selector, of_workflows })
    }

    fn select(&self, row: &PipelineRow) -> bool {
        let inherited = self.of_workflows.get(&row.key.workflow);
        self.selector.matches(|key| row.spec.labels.get(key).or_else(|| inherited?.labels.get(key)))
    }
}

pub(super) fn absent(kind: &str, name: &str) -> Problem {
    let name: String = name.chars().take(130).collect();
    Problem::not_found(format!("there is no {kind} named {name}"))
}
