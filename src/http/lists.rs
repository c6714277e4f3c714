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
use xene_agent::clock;
use xene_schemas::{
    controller::Controller,
    meta::{Name, ObjectMeta, PipelineKey, RunName},
    object::WorkflowObject,
    phase::{AgentPhase, PipelinePhase, RunPhase, WorkflowPhase},
    source::Source,
};

use super::{
    Api,
    objects::{self, Object, Suspensions, list},
    problem::Problem,
    query::{Query, Selector},
};
use crate::{
    decide::rows::{PipelineRow, RunRow, WorkflowRow},
    store::RunFilter,
};

type Answer = Result<Response, Problem>;

pub(super) async fn source(State(api): State<Arc<Api>>) -> Answer {
    match api.handle.store().source()? {
        Some(mut status) => {
            status.webhook = Some("/hooks/source".to_owned());
            status.webhook_token = Some(api.config.hooks.source_token());
            Ok(Object::new("Source", Source { status }).into_response())
        }
        None => Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the source has not been looked at yet")),
    }
}

pub(super) async fn controller(State(api): State<Arc<Api>>) -> Answer {
    let status = api.handle.view(|controller, _| controller.status()).await?;
    Ok(Object::new("Controller", Controller { status }).into_response())
}

pub(super) async fn workflows(State(api): State<Arc<Api>>, mut query: Query) -> Answer {
    let (limit, labels) = (query.limit()?, query.labels()?);
    let after: Option<Name> = query.parse("after", "a name")?;
    let only: Option<Name> = query.parse("workflow", "a name")?;
    let phase: Option<WorkflowPhase> = query.parse("phase", "Ready, Invalid or Suspended")?;
    query.finish()?;
    let suspensions = Suspensions::read(&api)?;
    let rows = api.handle.store().workflows(after.as_ref(), limit, |row| {
        let name = &row.metadata.name;
        only.as_ref().is_none_or(|only| only == name)
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

pub(super) async fn pipelines(State(api): State<Arc<Api>>, mut query: Query) -> Answer {
    let (limit, labels) = (query.limit()?, query.labels()?);
    let mut after: Option<PipelineKey> = query.parse("after", "WORKFLOW/PIPELINE")?;
    let (workflow, pipeline) = pipeline_filter(&mut query)?;
    let phase: Option<PipelinePhase> = query.parse("phase", "Scheduled or NotScheduled")?;
    query.finish()?;
    let (store, now) = (api.handle.store(), clock::now().wall);
    let suspensions = Suspensions::read(&api)?;
    let labels = PipelineLabels::load(&api, labels)?;
    let (mut items, mut last_workflow): (Vec<_>, Option<WorkflowRow>) = (Vec::new(), None);
    // A phase is not in the row: pages are read until enough objects have it.
    loop {
        let rows = store.pipelines(workflow.as_ref(), after.as_ref(), limit, |row| {
            pipeline.as_ref().is_none_or(|pipeline| *pipeline == row.key.pipeline) && labels.select(row)
        })?;
        let is_last = rows.len() < limit;
        after = rows.last().map(|row| row.key.clone());
        for row in rows {
            if last_workflow.as_ref().is_none_or(|last| last.metadata.name != row.key.workflow) {
                last_workflow = store.workflow(&row.key.workflow)?;
            }
            let item = objects::pipeline(&api, row, last_workflow.as_ref(), &suspensions, now)?;
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
    Path((workflow, pipeline)): Path<(String, String)>,
) -> Answer {
    let name = format!("{workflow}/{pipeline}");
    let key = name.parse::<PipelineKey>().ok();
    let item = match key {
        Some(key) => pipeline_object(&api, &key)?,
        None => None,
    };
    Ok(item.ok_or_else(|| absent("pipeline", &name))?.into_response())
}

/// One pipeline, if it is there.
pub(super) fn pipeline_object(
    api: &Api,
    key: &PipelineKey,
) -> Result<Option<Object<xene_schemas::object::PipelineObject>>, Problem> {
    let store = api.handle.store();
    let Some(row) = store.pipeline(key)? else { return Ok(None) };
    let workflow = store.workflow(&key.workflow)?;
    let item = objects::pipeline(api, row, workflow.as_ref(), &Suspensions::read(api)?, clock::now().wall)?;
    Ok(Some(Object::new("Pipeline", item)))
}

pub(super) async fn runs(State(api): State<Arc<Api>>, mut query: Query) -> Answer {
    let (limit, labels, since) = (query.limit()?, query.labels()?, query.since()?);
    let after: Option<RunName> = query.parse("after", "a run's name")?;
    let (workflow, pipeline) = pipeline_filter(&mut query)?;
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
    let filter = RunFilter { workflow, pipeline, phase, active, since, among };
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

pub(super) async fn agents(State(api): State<Arc<Api>>, mut query: Query) -> Answer {
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
    Ok(list("Agent", agents))
}

pub(super) async fn agent(State(api): State<Arc<Api>>, Path(name): Path<String>) -> Answer {
    let agent = match name.parse::<Name>() {
        Ok(parsed) => api.handle.view(move |controller, now| controller.agent(now, &parsed)).await?,
        Err(_) => None,
    };
    Ok(Object::new("Agent", agent.ok_or_else(|| absent("agent", &name))?).into_response())
}

/// Newest first, as runs are.
pub(super) async fn events(State(api): State<Arc<Api>>, mut query: Query) -> Answer {
    let (limit, since) = (query.limit()?, query.since()?);
    let after: Option<u64> = query.parse("after", "an event's number")?;
    let regarding = query.take("regarding");
    query.finish()?;
    let events = api.handle.store().events(after, limit, |event| {
        regarding.as_ref().is_none_or(|regarding| *regarding == event.regarding)
            && since.is_none_or(|since| event.at >= since)
    })?;
    Ok(list("Event", events))
}

pub(super) async fn event(State(api): State<Arc<Api>>, Path(id): Path<String>) -> Answer {
    let found = match id.parse::<u64>() {
        Ok(id) => api.handle.store().events(id.checked_add(1), 1, |_| true)?.pop().filter(|event| event.id == id),
        Err(_) => None,
    };
    Ok(Object::new("Event", found.ok_or_else(|| absent("event", &id))?).into_response())
}

/// `workflow` and `pipeline`; the latter may hold both.
fn pipeline_filter(query: &mut Query) -> Result<(Option<Name>, Option<Name>), Problem> {
    let workflow: Option<Name> = query.parse("workflow", "a name")?;
    let Some(pipeline) = query.take("pipeline") else { return Ok((workflow, None)) };
    let refuse = |_| Problem::bad_request(format!("pipeline takes a name or WORKFLOW/PIPELINE, not {pipeline:?}"));
    if pipeline.contains('/') && workflow.is_none() {
        let key: PipelineKey = pipeline.parse().map_err(refuse)?;
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
