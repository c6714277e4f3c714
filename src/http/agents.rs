//! Join tokens, and the life of an agent. Of a join token only a hash is kept; it is shown once.

use std::sync::Arc;

use axum::{
    body::Bytes,
    extract::{Path, State, rejection::BytesRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use xene_agent::session::{tls::hex, token::secret_hash};
use xene_schemas::{
    access::{JoinToken, TokenPhase},
    duration::Duration,
    meta::{AgentName, Labels},
};

use super::{
    Api,
    audit::about,
    identity::Identity,
    lists::absent,
    objects::{Object, json, list},
    problem::Problem,
    query::Query,
    runs::{body_of, parse_json},
};
use crate::decide::{event::Command, rows::JoinTokenRow};

/// What an agent can be told.
pub(super) const ACTIONS: [&str; 4] = ["drain", "undrain", "revoke", "forget"];
/// A join token lives no longer.
const MAX_TTL: Duration = Duration::from_secs(30 * 86_400);

/// The body of `POST /api/v1/agents/tokens`.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct TokenBody {
    #[serde(default = "hour")]
    ttl: Duration,
    #[serde(default = "one")]
    uses: u32,
    #[serde(default)]
    labels: Option<Labels>,
    #[serde(default)]
    name: Option<AgentName>,
}

fn hour() -> Duration {
    Duration::from_secs(3600)
}

fn one() -> u32 {
    1
}

/// A new join token: the only time that its secret is shown.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct NewToken {
    token: String,
    #[serde(flatten)]
    shown: JoinToken,
}

pub(super) async fn create_token(
    State(api): State<Arc<Api>>,
    identity: Identity,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let body = body_of(body)?;
    let TokenBody { ttl, uses, labels, name } = parse_json(if body.is_empty() { b"{}" } else { &body })?;
    if uses == 0 || ttl.as_millis() == 0 || ttl > MAX_TTL {
        return Err(Problem::bad_request("a token has at least one use, and lives longer than 0 and at most 30d"));
    }
    if let Some((key, value)) = labels.iter().flatten().find(|(key, value)| !is_label(key, value)) {
        return Err(Problem::bad_request(format!("no agent can have the label {key}={value:?}"))
            .hint("a key is not empty and holds no `=`; neither it nor a value holds `,` or has spaces at its ends"));
    }
    let (mut id, mut secret) = ([0; 8], [0; 32]);
    getrandom::fill(&mut id)
        .and_then(|()| getrandom::fill(&mut secret))
        .map_err(|_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the system gives no random bytes"))?;
    let (id, secret) = (hex(&id), hex(&secret));
    let ttl = std::time::Duration::from_millis(ttl.as_millis());
    let created_at = api.handle.wall();
    let expires_at =
        created_at.checked_add(ttl).map_err(|_| Problem::bad_request("the token would outlive the calendar"))?;
    let row = JoinTokenRow {
        secret_hash: secret_hash(&secret),
        created_at: Some(created_at),
        created_by: Some(identity.name.clone()),
        expires_at,
        uses_left: uses,
        labels,
        name,
        id,
    };
    api.ask(&identity, Command::CreateJoinToken(row.clone())).await?;
    let authority = api.handle.view(|controller, _| controller.authority().fingerprint.clone()).await?;
    let token = format!("xene-join.{authority}.{}.{secret}", row.id);
    let regarding = format!("join-token/{}", row.id);
    let shown = NewToken { token, shown: show(row, created_at) };
    Ok(about(regarding, json(StatusCode::CREATED, &Object::new("JoinToken", shown))))
}

pub(super) async fn join_tokens(State(api): State<Arc<Api>>, mut query: Query) -> Result<Response, Problem> {
    let limit = query.limit()?;
    let after = query.take("after");
    query.finish()?;
    let (rows, now) = (api.handle.store().join_tokens()?, api.handle.wall());
    let rows = rows.into_iter().filter(|row| after.as_ref().is_none_or(|after| row.id > *after));
    Ok(list("JoinToken", rows.take(limit).map(|row| show(row, now)).collect()))
}

pub(super) async fn revoke_token(
    State(api): State<Arc<Api>>,
    identity: Identity,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    api.ask(&identity, Command::RevokeJoinToken(id)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

fn show(row: JoinTokenRow, now: Timestamp) -> JoinToken {
    let phase = if row.is_expired(now) { TokenPhase::Expired } else { TokenPhase::Active };
    let JoinTokenRow { id, created_at, created_by, expires_at, uses_left, labels, name, .. } = row;
    JoinToken { id, created_at, created_by, expires_at, uses_left, phase, labels, name }
}

/// True if `--label KEY=VALUE,…` could give it.
fn is_label(key: &str, value: &str) -> bool {
    let fits = |text: &str| !text.contains(',') && text.trim() == text && !text.chars().any(char::is_control);
    !key.is_empty() && !key.contains('=') && fits(key) && fits(value)
}

pub(super) async fn act(
    State(api): State<Arc<Api>>,
    identity: Identity,
    Path((name, action)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let agent: AgentName = name.parse().map_err(|_| absent("agent", &name))?;
    let command = match action.as_str() {
        "drain" => Command::Drain(agent.clone()),
        "undrain" => Command::Undrain(agent.clone()),
        "revoke" => Command::Revoke(agent.clone()),
        "forget" => {
            let named = agent.clone();
            if api.handle.view(move |controller, _| controller.is_connected(&named)).await? {
                let detail = format!("agent {agent} is connected, and would come back in vain: stop it first");
                let hint = "revoke ends its session; if it was stopped this minute, ask again in half a minute";
                return Err(Problem::new(StatusCode::CONFLICT, detail).hint(hint));
            }
            Command::Forget(agent.clone())
        }
        _ => return Err(Problem::not_found(format!("an agent can be told one of {}", ACTIONS.join(", ")))),
    };
    api.ask(&identity, command).await?;
    let now = api.handle.view(move |controller, now| controller.agent(now, &agent)).await?;
    Ok(match now {
        Some(agent) => Object::new("Agent", agent).into_response(),
        None => StatusCode::NO_CONTENT.into_response(),
    })
}

/// The body of `POST …/fence`.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct FenceBody {
    #[serde(default)]
    machine_is_off: bool,
}

pub(super) async fn fence(
    State(api): State<Arc<Api>>,
    identity: Identity,
    Path(name): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let body = body_of(body)?;
    let FenceBody { machine_is_off } = parse_json(if body.is_empty() { b"{}" } else { &body })?;
    if !machine_is_off {
        let message = "fencing an agent whose machine runs lets due times start twice: say machineIsOff if it is off";
        return Err(Problem::bad_request(message).hint("drain moves the pipelines of one that runs"));
    }
    let agent: AgentName = name.parse().map_err(|_| absent("agent", &name))?;
    api.handle.ask(Command::Fence { agent: agent.clone(), by: identity.name }).await??;
    let now = api.handle.view(move |controller, now| controller.agent(now, &agent)).await?;
    Ok(match now {
        Some(agent) => Object::new("Agent", agent).into_response(),
        None => StatusCode::NO_CONTENT.into_response(),
    })
}
