//! Webhooks: a request starts a pipeline, once for each delivery id, and is answered when the run is durable.

use std::sync::Arc;

use axum::{
    body::Bytes,
    extract::{FromRequest as _, Path, Request, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use xene_agent::clock;
use xene_schemas::{
    meta::{Name, PipelineKey, RunName},
    run::{RunTrigger, TriggerType},
    trigger::{Trigger, Webhook, WebhookAuth},
    workflow::WorkflowSpec,
};

use super::{
    Api,
    audit::about,
    auth::{HookProof, hook_proof, hook_refused, may_announce},
    body::Proven,
    objects::json,
    problem::Problem,
    proof::{delivery_headers, is_ping, is_proven, is_signed, proven_id},
    query::Query,
    runs::{Start, body_of, delivery_id, start_all},
    webhook,
};
use crate::decide::event::RequestKey;

/// Where senders put the id of a delivery, which stays when they try again.
const DELIVERY_HEADERS: &[&str] = &[
    "x-delivery-id",
    "x-github-delivery",
    "idempotency-key",
    "x-gitlab-event-uuid",
    "x-gitea-delivery",
    "x-forgejo-delivery",
    "x-request-uuid",
];

/// What a sender is answered.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Accepted {
    run: RunName,
    /// All of them, where a trigger starts several pipelines.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    runs: Vec<RunName>,
}

/// What a sender is answered whose request the trigger's `when` does not let pass.
#[derive(Serialize)]
struct Filtered {
    reason: &'static str,
}

/// A pipeline's own webhook.
pub(super) async fn pipeline(
    State(api): State<Arc<Api>>,
    Path((workflow, pipeline)): Path<(String, String)>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Problem> {
    let proof = hook_proof(&api, &headers)?;
    let key: PipelineKey = format!("{workflow}/{pipeline}").parse().map_err(|_| hook_refused())?;
    if !proof.is_for(&api, &key) {
        return Err(hook_refused());
    }
    let body = read_proven(request).await?;
    let delivery = delivery_id(&headers, DELIVERY_HEADERS)?;
    let started = start(&api, delivery, &body, (None, proof.by()), IndexMap::new(), vec![key]).await?;
    Ok(proof.sign(started))
}

/// A webhook trigger: starts the pipelines that name it, as far as the proof is good for them.
pub(super) async fn trigger(
    State(api): State<Arc<Api>>,
    Path((workflow, trigger)): Path<(String, String)>,
    headers: HeaderMap,
    query: Query,
    request: Request,
) -> Result<Response, Problem> {
    // Whether a body is waited for is for its headers to say alone: its size is answered alike whether there is such a
    // trigger or not.
    let (found, body) = if is_signed(&headers) {
        let body = read(request).await?;
        (find(&api, &headers, &workflow, &trigger, &body)?, body)
    } else {
        let found = find(&api, &headers, &workflow, &trigger, b"")?;
        (found, read_proven(request).await?)
    };
    let Found { trigger, webhook, proof, keys } = found;
    if webhook.suspend {
        return Err(Problem::new(StatusCode::CONFLICT, format!("trigger {trigger} is suspended")));
    }
    let scheme = webhook.auth.as_ref().map(|auth| auth.kind);
    if scheme.is_some_and(|scheme| is_ping(scheme, &headers)) {
        return Ok(proof.sign(json(StatusCode::ACCEPTED, &Filtered { reason: "Ping" })));
    }
    let answer = match webhook::evaluate(&trigger, &webhook, &headers, &query.into_pairs(), &body)? {
        Some(given) => {
            let names = scheme.map_or(DELIVERY_HEADERS, delivery_headers);
            let delivery = delivery_id(&headers, names)?.map(|id| proven_id(scheme, &headers, id));
            // Two senders that know nothing of each other may count alike.
            let delivery = delivery.map(|id| if scheme.is_some() { format!("{trigger}: {id}") } else { id });
            start(&api, delivery, &body, (Some(trigger), proof.by()), given, keys).await?
        }
        None => json(StatusCode::ACCEPTED, &Filtered { reason: "Filtered" }),
    };
    Ok(proof.sign(answer))
}

/// A trigger, and what of it a request may start.
struct Found<'a> {
    trigger: Name,
    webhook: Webhook,
    proof: HookProof<'a>,
    keys: Vec<PipelineKey>,
}

/// # Errors
/// If there is no such trigger, or the request may not start anything by it.
fn find<'a>(
    api: &Api,
    headers: &'a HeaderMap,
    workflow: &str,
    trigger: &str,
    body: &[u8],
) -> Result<Found<'a>, Problem> {
    let (Ok(workflow), Ok(trigger)) = (workflow.parse::<Name>(), trigger.parse::<Name>()) else {
        return Err(hook_refused());
    };
    let row = api.handle.store().workflow(&workflow)?.ok_or_else(hook_refused)?;
    let Some(Trigger::Webhook(webhook)) = row.spec.triggers.get(&trigger) else { return Err(hook_refused()) };
    let mut keys = pipelines_of(&row.spec, &workflow, &trigger);
    let proof = match &webhook.auth {
        Some(auth) => trigger_proof(api, headers, body, (&workflow, &trigger), auth)?,
        None => hook_proof(api, headers)?,
    };
    keys.retain(|key| proof.is_for(api, key));
    if keys.is_empty() {
        return Err(hook_refused());
    }
    Ok(Found { trigger, webhook: webhook.clone(), proof, keys })
}

/// A request's body.
async fn read(request: Request) -> Result<Bytes, Problem> {
    body_of(Bytes::from_request(request, &()).await)
}

/// The body of a request that has shown who sends it.
async fn read_proven(request: Request) -> Result<Bytes, Problem> {
    if let Some(proven) = request.extensions().get::<Proven>() {
        proven.now();
    }
    read(request).await
}

/// # Errors
/// If a request is proven neither as the trigger asks for, nor by a token of the API.
fn trigger_proof<'a>(
    api: &Api,
    headers: &'a HeaderMap,
    body: &[u8],
    (workflow, trigger): (&Name, &Name),
    auth: &WebhookAuth,
) -> Result<HookProof<'a>, Problem> {
    let secret = api.config.hooks.trigger_secret(workflow, trigger, &auth.secret);
    if is_proven(auth.kind, &secret, headers, body, clock::now().wall) {
        return Ok(HookProof::Trigger);
    }
    match hook_proof(api, headers)? {
        proof @ HookProof::Identity(_) => Ok(proof),
        HookProof::Token(_) | HookProof::Trigger => Err(hook_refused()),
    }
}

/// What GitHub, GitLab and Gitea say of a push; others may say nothing.
#[derive(Default, Deserialize)]
struct Push {
    #[serde(default, rename = "ref")]
    name: String,
    #[serde(default)]
    after: Option<String>,
}

/// A push to the source: a hint, so it is looked at soon, and what it finds there counts.
pub(super) async fn source(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Problem> {
    let refuse = || hook_refused().hint("`xene status -o json` shows the token as status.webhookToken");
    let (proof, body) = if is_signed(&headers) {
        let body = read(request).await?;
        (may_announce(&api, &headers, &body)?.ok_or_else(refuse)?, body)
    } else {
        let proof = may_announce(&api, &headers, b"")?.ok_or_else(refuse)?;
        (proof, read_proven(request).await?)
    };
    let push: Push = serde_json::from_slice(&body).unwrap_or_default();
    let branch = api.handle.store().source()?.and_then(|source| source.branch);
    let is_ours = branch.is_some_and(|branch| push.name.strip_prefix("refs/heads/") == Some(&branch));
    // All zeros where the branch was deleted.
    let is_commit = |after: &String| after.bytes().any(|digit| digit != b'0');
    (api.config.announce)(push.after.filter(|after| is_ours && is_commit(after)));
    Ok(proof.sign(StatusCode::ACCEPTED.into_response()))
}

fn pipelines_of(spec: &WorkflowSpec, workflow: &Name, trigger: &Name) -> Vec<PipelineKey> {
    let named = spec.pipelines.iter().filter(|(_, pipeline)| pipeline.triggers.0.contains(trigger));
    named.map(|(name, _)| PipelineKey { workflow: workflow.clone(), pipeline: name.clone() }).collect()
}

async fn start(
    api: &Api,
    delivery: Option<String>,
    body: &Bytes,
    (trigger, by): (Option<Name>, String),
    given: IndexMap<String, String>,
    keys: Vec<PipelineKey>,
) -> Result<Response, Problem> {
    let mut wishes = Vec::with_capacity(keys.len());
    for key in keys {
        wishes.push(Start {
            key,
            trigger: RunTrigger {
                kind: TriggerType::Webhook,
                name: trigger.clone(),
                scheduled_time: None,
                by: Some(by.clone()),
            },
            given: given.clone(),
            payload: Some(body.to_vec()),
            delivery: delivery.clone().map(|id| RequestKey { id, request: None }),
            force: false,
        });
    }
    // In one go: what one of them refuses, or a crash, or a full disk, leaves none of them started.
    let mut runs = start_all(api, &by, wishes).await?;
    let Some(run) = runs.first().copied() else { return Err(hook_refused()) };
    if runs.len() == 1 {
        runs.clear();
    }
    Ok(about(format!("run/{run}"), json(StatusCode::ACCEPTED, &Accepted { run, runs })))
}
