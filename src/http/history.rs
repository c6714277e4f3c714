//! The history of a workflow: the commits that changed it, and the runs of each version.

use std::{collections::HashMap, sync::Arc};

use axum::{
    extract::{Path, State},
    response::Response,
};
use jiff::Timestamp;
use xene_schemas::{
    event::Event,
    meta::{Name, Revision, RunName},
    object::LastRun,
    plan::{RunCounts, WorkflowChange, WorkflowChangeMeta},
};

use super::{Api, lists::absent, objects::list, problem::Problem, query::Query};
use crate::{
    decide::rows::RunMark,
    history::{Past, follow},
};

pub(super) async fn history(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    mut query: Query,
) -> Result<Response, Problem> {
    let limit = query.limit()?;
    query.finish()?;
    let workflow = name.parse::<Name>().map_err(|_| absent("workflow", &name))?;
    let shared = api.clone();
    let changes = api
        .blocking(move || match shared.config.browser.clone() {
            Some(browser) => of_commits(&shared, &browser, &workflow, limit),
            None => of_events(&shared, &workflow, limit),
        })
        .await??;
    if changes.is_empty() {
        return Err(absent("workflow", &name).hint("the history of a removed workflow goes back to the first commit"));
    }
    Ok(list("WorkflowChange", changes))
}

fn of_commits(
    api: &Api,
    browser: &crate::source::Browser,
    name: &Name,
    limit: usize,
) -> Result<Vec<WorkflowChange>, Problem> {
    let store = api.handle.store();
    let path = store.workflow(name)?.filter(|row| row.held.is_none()).map(|row| row.path);
    let Some(tip) = store.source()?.and_then(|source| source.revision) else { return Ok(Vec::new()) };
    let past = follow(browser, name, path.as_deref(), &tip, limit)
        .map_err(|failure| Problem::new(axum::http::StatusCode::BAD_GATEWAY, failure.to_string()))?;
    let mut counts = count_runs(&past, store.marks(name)?);
    let changes = past.changes.into_iter().enumerate().map(|(at, change)| WorkflowChange {
        metadata: WorkflowChangeMeta { name: format!("{name}@{}", change.commit.revision) },
        revision: change.commit.revision,
        at: change.commit.at,
        author: change.commit.author,
        subject: change.commit.subject,
        change: change.change.to_owned(),
        path: change.path,
        message: change.message,
        fields: change.fields,
        runs: counts.remove(&at).unwrap_or_default(),
    });
    Ok(changes.collect())
}

/// Runs by the change that they ran: a commit that was taken over together with later ones counts for the last of them.
fn count_runs(past: &Past, runs: Vec<(RunName, RunMark)>) -> HashMap<usize, RunCounts> {
    let mut counts: HashMap<usize, RunCounts> = HashMap::new();
    // Newest first.
    for (name, mark) in runs {
        let Some(position) = past.positions.get(&mark.revision) else { continue };
        // The newest change that is not newer than what it ran.
        let at = past.changes.partition_point(|change| change.position < *position);
        if at < past.changes.len() {
            add(counts.entry(at).or_default(), name, &mark);
        }
    }
    counts
}

fn add(counts: &mut RunCounts, name: RunName, mark: &RunMark) {
    counts.total += 1;
    *counts.phases.entry(mark.phase.to_string()).or_default() += 1;
    counts.last.get_or_insert(LastRun { name, phase: mark.phase });
}

/// In directory mode nobody keeps old files: what is left is when the workflow changed.
fn of_events(api: &Api, name: &Name, limit: usize) -> Result<Vec<WorkflowChange>, Problem> {
    let store = api.handle.store();
    let regarding = format!("workflow/{name}");
    let word = |event: &Event| event.reason.strip_prefix("Workflow").map(str::to_owned);
    let events = store.events(None, limit, |event| event.regarding == regarding && word(event).is_some())?;
    let marks = store.marks(name)?;
    let mut newer: Option<Timestamp> = None;
    let mut changes = Vec::new();
    for event in events {
        // `by REVISION at PATH:LINE`, or `REVISION asks for it no more`.
        let mut words = event.message.split(' ').filter(|word| *word != "by");
        let revision = Revision(words.next().unwrap_or_default().to_owned());
        let path = words.nth(1).filter(|_| event.message.starts_with("by ")).and_then(|place| place.rsplit_once(':'));
        let mut runs = RunCounts::default();
        let is_of_it = |mark: &RunMark| mark.made >= event.at && newer.is_none_or(|newer| mark.made < newer);
        marks.iter().filter(|(_, mark)| is_of_it(mark)).for_each(|(name, mark)| add(&mut runs, *name, mark));
        newer = Some(event.at);
        changes.push(WorkflowChange {
            metadata: WorkflowChangeMeta { name: format!("{name}@{revision}") },
            path: path.map(|(path, _)| path.to_owned()),
            revision,
            at: event.at,
            author: None,
            subject: None,
            change: word(&event).unwrap_or_default(),
            message: None,
            fields: Vec::new(),
            runs,
        });
    }
    Ok(changes)
}
