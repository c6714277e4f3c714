//! Plans: what a commit of the source, or files that are sent along, would change. Nothing is changed by asking.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{
    body::Bytes,
    extract::{FromRequest as _, FromRequestParts, Request, State},
    http::{StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use tokio::{sync::OwnedSemaphorePermit, time::timeout};
use xene_agent::clock;
use xene_schemas::{
    meta::PipelineKey,
    plan::{Action, PlanReport},
};

use super::{
    Api,
    objects::Object,
    problem::Problem,
    query::Query,
    runs::{body_of, parse_json},
};
use crate::{
    decide::{
        desired::{Desired, errors},
        preview::to_place,
    },
    planning::{PlanError, Upload, against_store, between},
    source::{Failure, Reason},
    store::RunFilter,
};

/// The longest body that is taken, in bytes: a whole folder of files.
pub(super) const MAX_BODY: usize = 64 << 20;
/// So much of such bodies is in memory at a time, in megabytes.
pub(super) const ROOM: usize = 2 * (MAX_BODY >> 20);
/// Whoever finds no room waits for it so long.
const ROOM_WITHIN: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 10 });
/// All of an upload must have come within this.
const SENT_WITHIN: Duration = Duration::from_secs(60);
/// So many runs in flight are named of each pipeline.
const RUNS: usize = 100;

const IN_EFFECT: &str = "what is in effect";

/// `GET /api/v1/plan?rev=&against=`: a commit of the controller's own repository.
pub(super) async fn of_commit(State(api): State<Arc<Api>>, mut query: Query) -> Result<Response, Problem> {
    let (rev, against) = (query.take("rev"), query.take("against"));
    query.finish()?;
    let browser = api.config.browser.clone().ok_or_else(|| {
        Problem::bad_request("the source is a folder, which has no commits")
            .hint("send its files: run `xene plan` in a checkout")
    })?;
    let rev = rev.ok_or_else(|| Problem::bad_request("rev names the commit to plan"))?;
    let _one_at_a_time = api.planning.lock().await;
    let in_effect = against.is_none();
    let (store, limits, now) = (api.handle.store().clone(), api.config.limits, api.handle.wall());
    let planned = api
        .blocking(move || {
            let to = format!("commit {rev}");
            match against {
                Some(against) => {
                    let known = crate::source::Known::new();
                    let before = browser.snapshot(&against, &known)?;
                    let after = browser.snapshot(&rev, &known)?;
                    Ok(between((format!("commit {against}"), before), (to, after), limits, now))
                }
                None => {
                    let what = (IN_EFFECT.to_owned(), to);
                    against_store(&store, limits, now, what, |known| browser.snapshot(&rev, known))
                }
            }
        })
        .await?;
    answer(&api, in_effect, planned).await
}

/// Room for a body, taken before any of it is read.
pub(super) struct Room(#[expect(dead_code, reason = "it is held")] OwnedSemaphorePermit);

impl FromRequestParts<Arc<Api>> for Room {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, Problem> {
        let length = parts.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let megabytes = length.map_or(MAX_BODY, |length: usize| length.min(MAX_BODY)).div_ceil(1 << 20);
        let permits = u32::try_from(megabytes).unwrap_or(u32::MAX);
        match timeout(ROOM_WITHIN, api.plan_room.clone().acquire_many_owned(permits)).await {
            Ok(Ok(room)) => Ok(Self(room)),
            Ok(Err(_)) | Err(_) => Err(Problem::of_status(StatusCode::SERVICE_UNAVAILABLE)),
        }
    }
}

/// `POST /api/v1/plan`: files that are sent along.
pub(super) async fn of_files(State(api): State<Arc<Api>>, _room: Room, request: Request) -> Result<Response, Problem> {
    // Whoever is slow does not keep the room from others.
    let body = timeout(SENT_WITHIN, Bytes::from_request(request, &()));
    let body = body_of(body.await.map_err(|_| Problem::of_status(StatusCode::REQUEST_TIMEOUT))?)?;
    // What is read of it is longer than itself, so that is done one at a time, too.
    let _one_at_a_time = api.planning.lock().await;
    let (store, limits) = (api.handle.store().clone(), api.config.limits);
    let planned = api
        .blocking(move || {
            let upload: Upload = parse_json(&body)?;
            drop(body);
            let what = (IN_EFFECT.to_owned(), upload.what.clone());
            Ok::<_, Problem>(against_store(&store, limits, clock::now().wall, what, |known| {
                Ok(upload.into_snapshot(known))
            }))
        })
        .await??;
    answer(&api, true, planned).await
}

/// Adds what only the controller knows: whether anything would take effect, who would get a pipeline, and which of its
/// runs are in flight.
async fn answer(
    api: &Api,
    in_effect: bool,
    planned: Result<(PlanReport, Desired), PlanError>,
) -> Result<Response, Problem> {
    let (mut report, desired) = planned?;
    if in_effect && api.config.strict && errors(&report.problems) > 0 {
        (report.withheld, report.changes, report.held) = (true, Vec::new(), Vec::new());
    }
    let (pipelines, removed) = to_place(&report, &desired);
    let mut placements: BTreeMap<PipelineKey, _> = if pipelines.is_empty() {
        BTreeMap::new()
    } else {
        api.handle.view(move |controller, _| controller.preview(&pipelines, &removed)).await?
    };
    for change in report.changes.iter_mut().filter(|change| change.kind == "Pipeline") {
        let Ok(key) = change.name.parse::<PipelineKey>() else { continue };
        change.placement = placements.remove(&key);
        if change.action != Action::Create {
            let (workflow, pipeline) = (Some(key.workflow), Some(key.pipeline));
            let filter = RunFilter { workflow, pipeline, active: true, ..RunFilter::default() };
            let rows = api.handle.store().runs(&filter, None, RUNS)?;
            change.runs = rows.into_iter().map(|row| row.run.metadata.name).collect();
        }
    }
    Ok(Object::new("Plan", report).into_response())
}

impl From<PlanError> for Problem {
    fn from(error: PlanError) -> Self {
        match error {
            PlanError::Source(failure) => failure.into(),
            PlanError::Store(error) => error.into(),
        }
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        let status = match failure.reason {
            Reason::RefMissing | Reason::PathMissing | Reason::Empty => StatusCode::BAD_REQUEST,
            _ => StatusCode::BAD_GATEWAY,
        };
        Self::new(status, failure.to_string())
    }
}
