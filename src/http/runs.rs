//! Starting and ending runs.

use std::{collections::BTreeSet, sync::Arc};

use axum::{
    body::Bytes,
    extract::{Path, State, rejection::BytesRejection},
    http::{HeaderMap, StatusCode},
    response::Response,
};
use indexmap::IndexMap;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use xene_schemas::{
    env::Scalar,
    meta::{Name, PipelineKey, RunName},
    pipeline::CompiledPipeline,
    run::{Run, RunTrigger, TriggerType},
};

use super::{
    Api, body,
    identity::Identity,
    lists::{absent, find_run},
    objects::{Object, json},
    problem::Problem,
};
use crate::{
    compile::params,
    decide::event::{Answer, Command, Refusal, RequestKey, RunOrder},
};

/// A spec that changes between check and start is looked at again, so often.
const TRIES: usize = 3;
/// The longest delivery id, in bytes.
const MAX_DELIVERY: usize = 512;

/// The body of `POST /api/v1/runs`.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct StartBody {
    workflow: Name,
    pipeline: Name,
    #[serde(default)]
    params: IndexMap<String, Scalar>,
    /// Start it even if suspended.
    #[serde(default)]
    force: bool,
}

/// A wish for a run.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) key: PipelineKey,
    pub(super) trigger: RunTrigger,
    pub(super) given: IndexMap<String, String>,
    pub(super) payload: Option<Vec<u8>>,
    pub(super) delivery: Option<RequestKey>,
    pub(super) force: bool,
}

pub(super) async fn start(
    State(api): State<Arc<Api>>,
    identity: Identity,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let StartBody { workflow, pipeline, params, force } = parse_json(&body_of(body)?)?;
    let key = PipelineKey { workflow, pipeline };
    if !identity.scope.has(&key.workflow) {
        return Err(absent("pipeline", &key.to_string()));
    }
    let mut given: Vec<_> = params.iter().map(|(name, value)| (name, value.to_string())).collect();
    given.sort();
    let delivery = idempotency_key(&headers, &(&key, given, force))?;
    let wish = Start {
        key,
        trigger: RunTrigger { kind: TriggerType::Manual, name: None, scheduled_time: None, by: Some(identity.name) },
        given: params.into_iter().map(|(name, value)| (name, value.to_string())).collect(),
        payload: None,
        delivery,
        force,
    };
    wish.carry_out(&api).await?.created()
}

pub(super) async fn cancel(
    State(api): State<Arc<Api>>,
    identity: Identity,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let run = name.parse::<RunName>().map_err(|_| absent("run", &name))?;
    api.ask(&identity, Command::CancelRun { run, by: identity.name.clone() }).await?;
    Ok(json(StatusCode::ACCEPTED, &Object::new("Run", find_run(&api, &name)?.run)))
}

/// What came of a [`Start`].
#[derive(Debug)]
pub(super) enum Started {
    /// The run, new or of an equal delivery before.
    Run(Box<Run>),
    /// An equal delivery made this run, of which nothing is kept any more.
    Gone(RunName),
}

impl Started {
    pub(super) fn name(&self) -> RunName {
        match self {
            Self::Run(run) => run.metadata.name,
            Self::Gone(name) => *name,
        }
    }
}

impl Start {
    /// Starts a run, or finds the one that an equal delivery made; it is durable then.
    pub(super) async fn carry_out(self, api: &Api) -> Result<Started, Problem> {
        let (key, delivery) = (self.key.clone(), self.delivery.clone());
        once(api, &key, delivery.as_ref(), self.start(api)).await
    }

    async fn start(self, api: &Api) -> Result<Started, Problem> {
        let by = self.trigger.by.clone().unwrap_or_default();
        match ask_until_checked(api, &by, || Ok(Command::StartRun(self.order(api)?))).await? {
            Answer::Run(run) => Ok(Started::Run(run)),
            Answer::Done | Answer::Runs(_) | Answer::Enrolled(_) => Err(Refusal::SpecChanged.into()),
        }
    }

    /// Checks the params against the spec that is in effect now.
    fn order(&self, api: &Api) -> Result<RunOrder, Problem> {
        let store = api.handle.store();
        let row = store.pipeline(&self.key)?.ok_or_else(|| absent("pipeline", &self.key.to_string()))?;
        let compiled = store.spec(&row.spec_hash)?.and_then(|bytes| CompiledPipeline::decode(&bytes).ok());
        let Some(compiled) = compiled else {
            return Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the pipeline's spec can't be read"));
        };
        let params = params::resolve(&compiled.params, &self.given).map_err(|errors| {
            let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, errors.join("; "))
        })?;
        let now = api.handle.wall();
        let run = match &self.delivery {
            Some(delivery) => RunName::of_delivery(&self.key, &delivery.id, now),
            None => RunName::new(now, random_bits()?),
        };
        Ok(RunOrder {
            pipeline: self.key.clone(),
            spec_hash: row.spec_hash,
            run,
            trigger: self.trigger.clone(),
            params,
            payload: self.payload.clone(),
            delivery: self.delivery.clone(),
            force: self.force,
        })
    }
}

/// Asks for what `command` makes of the specs that are in effect, and anew if one of them changed meanwhile.
async fn ask_until_checked(
    api: &Api,
    by: &str,
    command: impl Fn() -> Result<Command, Problem>,
) -> Result<Answer, Problem> {
    for _ in 0..TRIES {
        let command = Command::By { by: by.to_owned(), command: Box::new(command()?) };
        match api.handle.ask(command).await? {
            Err(Refusal::SpecChanged) => {}
            answer => return Ok(answer?),
        }
    }
    Err(Refusal::SpecChanged.into())
}

/// Starts what is not started by an equal delivery yet: all of it in one commit, or none.
pub(super) async fn start_all(api: &Api, by: &str, wishes: Vec<Start>) -> Result<Vec<RunName>, Problem> {
    // In their order, so that two who want some of the same never wait for each other.
    let keys = wishes.iter().filter_map(|wish| Some(lock_of(api, &wish.key, wish.delivery.as_ref()?)));
    let mut locked = Vec::new();
    for lock in keys.collect::<BTreeSet<_>>() {
        locked.push(api.deliveries[lock].lock().await);
    }
    let mut names = Vec::with_capacity(wishes.len());
    for wish in &wishes {
        let known = wish.delivery.as_ref().map(|delivery| made_by(api, &wish.key, delivery)).transpose()?.flatten();
        names.push(known.map(|started| started.name()));
    }
    let missing = || wishes.iter().zip(&names).filter(|(_, name)| name.is_none()).map(|(wish, _)| wish);
    let mut made = match missing().count() {
        0 => Vec::new(),
        _ => {
            let command = || Ok(Command::StartRuns(missing().map(|wish| wish.order(api)).collect::<Result<_, _>>()?));
            match ask_until_checked(api, by, command).await? {
                Answer::Runs(runs) => runs,
                Answer::Done | Answer::Run(_) | Answer::Enrolled(_) => return Err(Refusal::SpecChanged.into()),
            }
        }
    }
    .into_iter();
    Ok(names.into_iter().filter_map(|name| name.or_else(|| made.next().map(|run| run.metadata.name))).collect())
}

/// Starts a run, or finds the one that an equal delivery made.
pub(super) async fn once(
    api: &Api,
    key: &PipelineKey,
    delivery: Option<&RequestKey>,
    start: impl Future<Output = Result<Started, Problem>>,
) -> Result<Started, Problem> {
    let Some(delivery) = delivery else { return start.await };
    let _only_one = api.deliveries[lock_of(api, key, delivery)].lock().await;
    match made_by(api, key, delivery)? {
        Some(started) => Ok(started),
        None => start.await,
    }
}

/// Which lock equal deliveries share.
fn lock_of(api: &Api, key: &PipelineKey, delivery: &RequestKey) -> usize {
    let place = blake3::hash(format!("{key}/{}", delivery.id).as_bytes()).as_bytes()[0];
    usize::from(place) % api.deliveries.len()
}

/// What an equal delivery started before.
fn made_by(api: &Api, key: &PipelineKey, delivery: &RequestKey) -> Result<Option<Started>, Problem> {
    let Some(name) = api.handle.store().delivery(key, &delivery.id)? else { return Ok(None) };
    match api.handle.store().run(name)? {
        Some(row) if row.request.is_some() && delivery.request.is_some() && row.request != delivery.request => {
            let detail = format!("this Idempotency-Key started run {name}, for another request than this one");
            Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail).hint("give each request a key of its own"))
        }
        Some(row) => Ok(Some(Started::Run(Box::new(row.run)))),
        None => Ok(Some(Started::Gone(name))),
    }
}

pub(super) fn random_bits() -> Result<u128, Problem> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the system gives no random bytes"))?;
    Ok(u128::from_le_bytes(bytes))
}

/// The first of these headers that is there.
pub(super) fn delivery_id(headers: &HeaderMap, names: &[&'static str]) -> Result<Option<String>, Problem> {
    let Some((name, value)) = names.iter().find_map(|name| Some((name, headers.get(*name)?))) else { return Ok(None) };
    match value.to_str() {
        Ok(id) if (1..=MAX_DELIVERY).contains(&id.len()) => Ok(Some(id.to_owned())),
        _ => Err(Problem::bad_request(format!("{name} takes 1 to {MAX_DELIVERY} plain characters"))),
    }
}

/// What the header `Idempotency-Key` makes of a request that asks for this.
pub(super) fn idempotency_key(headers: &HeaderMap, asks: &impl Serialize) -> Result<Option<RequestKey>, Problem> {
    let Some(id) = delivery_id(headers, &["idempotency-key"])? else { return Ok(None) };
    // What was parsed is written again, so that spaces and the order of fields are no difference.
    let asks = serde_json::to_vec(asks).unwrap_or_default();
    Ok(Some(RequestKey { id, request: Some(blake3::hash(&asks).to_hex()[..32].to_owned()) }))
}

/// The body, if it could be read.
pub(super) fn body_of(whole: Result<Bytes, BytesRejection>) -> Result<Bytes, Problem> {
    whole.map_err(unread)
}

/// Why a body could not be read.
pub(super) fn unread(rejection: BytesRejection) -> Problem {
    match body::status_of(&rejection).unwrap_or_else(|| rejection.status()) {
        StatusCode::BAD_REQUEST => Problem::bad_request("the body broke off"),
        status => Problem::of_status(status),
    }
}

/// A body of JSON.
pub(super) fn parse_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    // Else serde would take a list for an object, field by field.
    if body.trim_ascii_start().first() == Some(&b'[') {
        return Err(Problem::bad_request("the body can't be read: it is a list, and an object is expected"));
    }
    serde_json::from_slice(body).map_err(|error| Problem::bad_request(format!("the body can't be read: {error}")))
}
