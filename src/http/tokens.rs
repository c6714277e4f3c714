//! API tokens: made, listed, revoked. Of a token only a hash is kept; it is shown once.

use std::{collections::BTreeSet, sync::Arc};

use axum::{
    body::Bytes,
    extract::{Path, State, rejection::BytesRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;
use xene_agent::session::{tls::hex, token::secret_hash};
use xene_schemas::{
    access::{ApiToken, ApiTokenMeta, ApiTokenSpec, ApiTokenStatus, Role, TokenPhase},
    duration::Duration,
    meta::Name,
};

use super::{
    Api,
    audit::about,
    identity::{Identity, RESERVED, Scope},
    lists::absent,
    objects::{Object, json, list},
    problem::Problem,
    query::Query,
    runs::{body_of, parse_json},
};
use crate::decide::{event::Command, rows::ApiTokenRow};

/// How every API token begins.
const PREFIX: &str = "xene-api";
/// A token with an end lives no longer.
const MAX_TTL: Duration = Duration::from_secs(10 * 366 * 86_400);

/// The body of `POST /api/v1/tokens`.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct TokenBody {
    role: Role,
    #[serde(default)]
    name: Option<Name>,
    #[serde(default)]
    ttl: Option<Duration>,
    #[serde(default)]
    scope: BTreeSet<Name>,
}

/// A new token: the only time that its secret is shown.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct NewToken {
    token: String,
    #[serde(flatten)]
    shown: ApiToken,
}

pub(super) async fn create(
    State(api): State<Arc<Api>>,
    identity: Identity,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let TokenBody { role, name, ttl, scope } = parse_json(&body_of(body)?)?;
    let created_at = api.handle.wall();
    let expires_at = match ttl {
        Some(ttl) if ttl.as_millis() == 0 || ttl > MAX_TTL => {
            return Err(Problem::bad_request("ttl takes a duration above 0 and of at most 3660d"));
        }
        Some(ttl) => Some(created_at + std::time::Duration::from(ttl)),
        None => None,
    };
    if role == Role::Admin && !scope.is_empty() {
        let problem = Problem::bad_request("what an admin does reaches beyond single workflows, so it takes no scope");
        return Err(problem.hint("an operator may start, cancel and approve within a scope"));
    }
    let (mut id, mut secret) = ([0; 8], [0; 32]);
    getrandom::fill(&mut id)
        .and_then(|()| getrandom::fill(&mut secret))
        .map_err(|_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the system gives no random bytes"))?;
    let (id, secret) = (hex(&id), hex(&secret));
    let name = match name {
        Some(name) if RESERVED.contains(&name.as_str()) => {
            return Err(Problem::bad_request(format!("{name} is the name of somebody else; choose another")));
        }
        Some(name) => name,
        None => format!("token-{id}")
            .parse()
            .map_err(|_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the token has no name"))?,
    };
    let row = ApiTokenRow {
        name,
        secret_hash: secret_hash(&secret),
        role,
        scope: Some(scope).filter(|scope| !scope.is_empty()),
        created_at,
        created_by: identity.name.clone(),
        expires_at,
        id,
    };
    let token = format!("{PREFIX}.{}.{secret}", row.id);
    api.ask(&identity, Command::CreateApiToken(row.clone())).await?;
    let regarding = format!("token/{}", row.name);
    let shown = NewToken { token, shown: show(row, created_at) };
    Ok(about(regarding, json(StatusCode::CREATED, &Object::new("Token", shown))))
}

pub(super) async fn tokens(State(api): State<Arc<Api>>, mut query: Query) -> Result<Response, Problem> {
    let limit = query.limit()?;
    let after: Option<Name> = query.parse("after", "a name")?;
    query.finish()?;
    let (rows, now) = (api.handle.store().api_tokens()?, api.handle.wall());
    let rows = rows.into_iter().filter(|row| after.as_ref().is_none_or(|after| row.name > *after));
    Ok(list("Token", rows.take(limit).map(|row| show(row, now)).collect()))
}

pub(super) async fn revoke(
    State(api): State<Arc<Api>>,
    identity: Identity,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let parsed = name.parse::<Name>().map_err(|_| absent("token", &name))?;
    api.ask(&identity, Command::RevokeApiToken(parsed)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

fn show(row: ApiTokenRow, now: Timestamp) -> ApiToken {
    let phase = if row.is_expired(now) { TokenPhase::Expired } else { TokenPhase::Active };
    let ApiTokenRow { id, name, role, scope, created_at, created_by, expires_at, .. } = row;
    ApiToken {
        metadata: ApiTokenMeta { name, created_at },
        spec: ApiTokenSpec { role, scope, expires_at },
        status: ApiTokenStatus { id, phase, created_by },
    }
}

/// Whose API token it is, if it is one.
pub(super) fn find(api: &Api, shown: &str) -> Result<Option<Identity>, Problem> {
    let mut parts = shown.split('.');
    let (Some(PREFIX), Some(id), Some(secret), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return Ok(None);
    };
    let row = api.handle.store().api_token(id)?.filter(|row| !row.is_expired(api.handle.wall()));
    // Compared also if there is none, so that an id can't be found out by time.
    let kept = row.as_ref().map_or("", |row| &row.secret_hash);
    let same: bool = secret_hash(secret).as_bytes().ct_eq(kept.as_bytes()).into();
    Ok(row.filter(|_| same).map(|row| Identity {
        name: row.name.to_string(),
        role: row.role,
        scope: row.scope.map_or(Scope::All, |names| Scope::Workflows(Arc::new(names))),
        token: Some(row.id),
    }))
}
