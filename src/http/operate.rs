//! What operators say beside desired state: run it again, let it rest, let a removal pass.

use std::sync::Arc;

use axum::{
    body::Bytes,
    extract::{Path, State, rejection::BytesRejection},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use xene_schemas::{
    duration::Duration,
    meta::{PipelineKey, RunName},
    suspension::Suspension,
    wire::control::Decision,
};

use super::{
    Api, Rotate,
    audit::about,
    identity::{Identity, Role},
    lists,
    lists::{absent, find_run},
    objects::{Object, json},
    problem::Problem,
    runs::{Started, body_of, idempotency_key, once, parse_json, random_bits},
};
use crate::decide::{
    event::{Again, Answer, Command},
    rows::Suspendable,
};

/// Nothing is suspended for longer, unless without end.
const MAX_SUSPENSION: Duration = Duration::from_secs(366 * 86_400);
/// No planned downtime is longer.
const MAX_PAUSE: Duration = Duration::from_secs(7 * 86_400);
/// A commit is named by at least so many characters.
const MIN_COMMIT: usize = 7;

/// The body of `POST …/rerun`.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RerunBody {
    /// Without the tasks that succeeded.
    #[serde(default)]
    failed: bool,
    /// Start it even if suspended.
    #[serde(default)]
    force: bool,
}

/// The body of `POST …/approve` of a run.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct DecisionBody {
    task: String,
    #[serde(default = "yes")]
    approved: bool,
    /// On whose behalf.
    #[serde(default)]
    by: Option<String>,
}

fn yes() -> bool {
    true
}

/// The body of `POST …/suspend`.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct SuspendBody {
    #[serde(default)]
    why: Option<String>,
    /// After this it ends by itself.
    #[serde(default, rename = "for")]
    lasts: Option<Duration>,
}

/// The body of `POST /api/v1/source/approve-prune`.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ApproveBody {
    commit: String,
}

type Body = Result<Bytes, BytesRejection>;
type Reply = Result<Response, Problem>;

/// An empty body stands for `{}`.
fn parse<T: serde::de::DeserializeOwned>(body: Body) -> Result<T, Problem> {
    let body = body_of(body)?;
    parse_json(if body.is_empty() { b"{}" } else { &body })
}

pub(super) async fn rerun(
    State(api): State<Arc<Api>>,
    identity: Identity,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Reply {
    let RerunBody { failed, force } = parse(body)?;
    let original = find_run(&api, &name)?;
    let key = original.run.spec.key();
    if api.handle.store().spec(&original.run.spec.spec_hash)?.is_none() {
        let message = format!("what run {name} ran is not kept any more, so it can't be started again");
        return Err(Problem::new(StatusCode::GONE, message));
    }
    let delivery = idempotency_key(&headers, &(&name, failed, force))?;
    let start = async {
        let run = RunName::new(api.handle.wall(), random_bits()?);
        let again = Again { original, run, failed, by: identity.name.clone(), delivery: delivery.clone(), force };
        match api.ask(&identity, Command::Rerun(Box::new(again))).await? {
            Answer::Run(run) => Ok(Started::Run(run)),
            Answer::Done | Answer::Runs(_) | Answer::Enrolled(_) => {
                Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the controller answers something else"))
            }
        }
    };
    once(&api, &key, delivery.as_ref(), start).await?.created()
}

pub(super) async fn approve(
    State(api): State<Arc<Api>>,
    identity: Identity,
    Path(name): Path<String>,
    body: Body,
) -> Reply {
    let DecisionBody { task, approved, by } = parse_json(&body_of(body)?)?;
    let run = name.parse::<RunName>().map_err(|_| absent("run", &name))?;
    let by = match by.filter(|by| !by.is_empty()) {
        // The admin's token has no name of its own, so whoever holds it may say whose word it is.
        Some(by) if identity.role == Role::Admin => by,
        Some(_) => {
            let detail =
                format!("only an admin may decide in another's name, and {} is {}", identity.name, identity.role);
            return Err(Problem::new(StatusCode::FORBIDDEN, detail));
        }
        None => identity.name.clone(),
    };
    api.ask(&identity, Command::Approve(Decision { run, task, approved, by })).await?;
    Ok(json(StatusCode::ACCEPTED, &Object::new("Run", find_run(&api, &name)?.run)))
}

/// The body of `POST /api/v1/controller/pause`.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct PauseBody {
    #[serde(rename = "for")]
    lasts: Duration,
}

pub(super) async fn pause_controller(State(api): State<Arc<Api>>, identity: Identity, body: Body) -> Reply {
    let PauseBody { lasts } = parse(body)?;
    if lasts.as_millis() == 0 || lasts > MAX_PAUSE {
        return Err(Problem::bad_request("for takes a duration above 0 and of at most 7d"));
    }
    api.handle.ask(Command::Pause { lasts: lasts.into(), by: identity.name.clone() }).await??;
    lists::controller(State(api)).await
}

pub(super) async fn resume_controller(State(api): State<Arc<Api>>, identity: Identity) -> Reply {
    api.handle.ask(Command::Unpause { by: identity.name.clone() }).await??;
    lists::controller(State(api)).await
}

pub(super) async fn confirm_clock(State(api): State<Arc<Api>>, identity: Identity) -> Reply {
    api.handle.ask(Command::ConfirmClock { by: identity.name.clone() }).await??;
    lists::controller(State(api)).await
}

pub(super) async fn rotate_ca(State(api): State<Arc<Api>>, identity: Identity) -> Reply {
    rotate(api, &identity, Rotate::Begin).await
}

pub(super) async fn finish_ca_rotation(State(api): State<Arc<Api>>, identity: Identity) -> Reply {
    rotate(api, &identity, Rotate::Finish).await
}

async fn rotate(api: Arc<Api>, identity: &Identity, rotate: Rotate) -> Reply {
    let rotated = (api.config.rotate)(rotate, identity.name.to_string()).await;
    rotated.map_err(|refusal| Problem::new(StatusCode::CONFLICT, refusal))?;
    lists::controller(State(api)).await
}

pub(super) async fn suspend_source(State(api): State<Arc<Api>>, identity: Identity, body: Body) -> Reply {
    suspend(&api, &identity, Suspendable::Source, body).await?;
    lists::source(State(api), identity).await
}

pub(super) async fn resume_source(State(api): State<Arc<Api>>, identity: Identity) -> Reply {
    resume(&api, &identity, Suspendable::Source).await?;
    lists::source(State(api), identity).await
}

pub(super) async fn suspend_workflow(
    State(api): State<Arc<Api>>,
    identity: Identity,
    Path(name): Path<String>,
    body: Body,
) -> Reply {
    suspend(&api, &identity, workflow(&name)?, body).await?;
    lists::workflow(State(api), Path(name)).await
}

pub(super) async fn resume_workflow(
    State(api): State<Arc<Api>>,
    identity: Identity,
    Path(name): Path<String>,
) -> Reply {
    resume(&api, &identity, workflow(&name)?).await?;
    lists::workflow(State(api), Path(name)).await
}

pub(super) async fn suspend_pipeline(
    State(api): State<Arc<Api>>,
    identity: Identity,
    Path(name): Path<(String, String)>,
    body: Body,
) -> Reply {
    suspend(&api, &identity, pipeline(&name)?, body).await?;
    lists::pipeline(State(api), identity, Path(name)).await
}

pub(super) async fn resume_pipeline(
    State(api): State<Arc<Api>>,
    identity: Identity,
    Path(name): Path<(String, String)>,
) -> Reply {
    resume(&api, &identity, pipeline(&name)?).await?;
    lists::pipeline(State(api), identity, Path(name)).await
}

pub(super) async fn approve_prune(State(api): State<Arc<Api>>, identity: Identity, body: Body) -> Reply {
    let ApproveBody { commit } = parse_json(&body_of(body)?)?;
    if commit.chars().count() < MIN_COMMIT {
        return Err(Problem::bad_request(format!("commit takes at least {MIN_COMMIT} characters of its name")));
    }
    api.handle.ask(Command::ApprovePrune { commit, by: identity.name.clone() }).await??;
    Ok(lists::source(State(api), identity).await?.into_response())
}

fn workflow(name: &str) -> Result<Suspendable, Problem> {
    name.parse().map(Suspendable::Workflow).map_err(|_| absent("workflow", name))
}

fn pipeline((workflow, pipeline): &(String, String)) -> Result<Suspendable, Problem> {
    let name = format!("{workflow}/{pipeline}");
    name.parse::<PipelineKey>().map(Suspendable::Pipeline).map_err(|_| absent("pipeline", &name))
}

async fn suspend(api: &Api, identity: &Identity, what: Suspendable, body: Body) -> Result<(), Problem> {
    let SuspendBody { why, lasts } = parse(body)?;
    if lasts.is_some_and(|lasts| lasts.as_millis() == 0 || lasts > MAX_SUSPENSION) {
        return Err(Problem::bad_request("for takes a duration above 0 and of at most 366d"));
    }
    let since = api.handle.wall();
    let until = lasts.map(|lasts| since + std::time::Duration::from_millis(lasts.as_millis()));
    let suspension = Suspension { by: identity.name.clone(), since, why: why.filter(|why| !why.is_empty()), until };
    api.handle.ask(Command::Suspend { what, suspension }).await??;
    Ok(())
}

async fn resume(api: &Api, identity: &Identity, what: Suspendable) -> Result<(), Problem> {
    api.handle.ask(Command::Resume { what, by: identity.name.clone() }).await??;
    Ok(())
}

impl Started {
    /// As a call that creates it answers.
    pub(super) fn created(self) -> Reply {
        match self {
            Self::Run(run) => {
                let regarding = format!("run/{}", run.metadata.name);
                let mut response = json(StatusCode::CREATED, &Object::new("Run", &*run));
                if let Ok(at) = HeaderValue::from_str(&format!("/api/v1/runs/{}", run.metadata.name)) {
                    response.headers_mut().insert(header::LOCATION, at);
                }
                Ok(about(regarding, response))
            }
            Self::Gone(name) => Err(Problem::new(
                StatusCode::GONE,
                format!("this Idempotency-Key started run {name}, which is past its retention"),
            )),
        }
    }
}
