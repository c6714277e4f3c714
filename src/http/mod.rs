//! The HTTP API: what people and programs see of the controller, and the few things they may ask of it.
//!
//! Desired state can't be written here: no call creates, changes or deletes a workflow. Every error is a problem
//! document of RFC 9457.

mod agents;
mod artifacts;
pub mod audit;
pub mod auth;
mod backup;
mod body;
mod firings;
mod history;
mod hooks;
mod identity;
mod lists;
mod logs;
mod metrics;
mod notifiers;
mod objects;
mod openapi;
pub mod openid;
mod operate;
mod pack;
mod plan;
mod problem;
mod proof;
mod query;
mod range;
mod routes;
mod runs;
mod serve;
mod stream;
#[cfg(test)]
mod tests;
pub mod tls;
mod tokens;
pub mod ui;
mod unproven;
mod watch;
mod webhook;
mod why;

use std::{fmt, pin::Pin, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use tokio::{
    sync::{Mutex, Semaphore, watch as tokio_watch},
    time::timeout,
};
use xene_agent::content::ContentStore;

pub use self::serve::serve;
use self::{
    audit::{AuditLog, Guesses},
    auth::{AdminToken, HookSecret},
    identity::Identity,
    problem::Problem,
    unproven::Unproven,
};
use crate::{
    compile::Limits,
    decide::event::{Answer, Command, Refusal},
    driver::Handle,
    notify::Outgoing,
    source::Browser,
};

/// The longest body that is taken, in bytes.
const MAX_BODY: usize = 1 << 20;
/// A controller whose machine does not answer for so long is not ready.
const READY_WITHIN: Duration = Duration::from_secs(2);
/// So many deliveries can be looked up and started at a time; equal ids always meet in the same place.
const DELIVERY_LOCKS: usize = 64;

/// Looks at the source now; done once what it found is in effect.
pub type SyncHook = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> + Send + Sync>;

/// Replaces the certificate authority, in the name of somebody; done once the controller goes by what came of it.
pub type RotateHook =
    Arc<dyn Fn(Rotate, String) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> + Send + Sync>;

/// What to do about the certificate authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotate {
    /// Make a new one, and trust both.
    Begin,
    /// Trust the old one no more, whoever has not come by the new one.
    Finish,
}

/// Looks at the source soon: a push was announced, perhaps of this commit.
pub type AnnounceHook = Arc<dyn Fn(Option<String>) + Send + Sync>;

/// What the router needs besides the controller.
#[derive(Clone)]
pub struct Config {
    /// Whoever shows it may do everything.
    pub admin: AdminToken,
    /// What pipelines' hook tokens are derived from.
    pub hooks: HookSecret,
    /// The names that the server answers to, besides `localhost` and literal addresses.
    pub hosts: Vec<String>,
    /// Behind `POST /api/v1/controller/ca/…`.
    pub rotate: RotateHook,
    /// Where the bytes of artifacts are.
    pub files: ContentStore,
    /// Behind `POST /api/v1/sync`.
    pub sync: SyncHook,
    /// Behind `POST /hooks/source`.
    pub announce: AnnounceHook,
    /// The source's commits; `None` in directory mode.
    pub browser: Option<Browser>,
    /// What plans are compiled with.
    pub limits: Limits,
    /// True if a revision with errors in its files takes no effect at all.
    pub strict: bool,
    /// Who is signed in to the UI.
    pub sessions: ui::session::Sessions,
    /// Who else says who somebody is.
    pub openid: Option<Arc<openid::OpenId>>,
    /// Where it is written who changed what; in the store it is kept in any case.
    pub audit: Option<AuditLog>,
    /// True if `/metrics` asks nobody who they are.
    pub metrics_public: bool,
    /// How messages of notifiers are delivered.
    pub outgoing: Outgoing,
    /// True once the process stops: streams without end then end.
    pub stopping: tokio_watch::Receiver<bool>,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("hosts", &self.hosts).finish_non_exhaustive()
    }
}

/// What every request can reach.
#[derive(Debug)]
struct Api {
    handle: Handle,
    config: Config,
    /// Held from looking a delivery up until its run is durable, so that equal ones make one run.
    deliveries: [Mutex<()>; DELIVERY_LOCKS],
    /// Wrong proofs of late.
    guesses: Guesses,
    /// Wrong names for this server of late.
    misnamed: Guesses,
    /// One plan at a time: it compiles what it is given.
    planning: Mutex<()>,
    /// Room for the files of plans, by megabytes: they are in memory while they come and while they wait.
    plan_room: Arc<Semaphore>,
    /// Memory for the bodies of who has not shown who they are.
    bodies: Arc<Unproven>,
}

impl Api {
    /// Has the controller carry out what somebody asks for; it is durable then, and kept as theirs.
    async fn ask(&self, identity: &Identity, command: Command) -> Result<Answer, Problem> {
        let command = Command::By { by: identity.name.clone(), command: Box::new(command) };
        Ok(self.handle.ask(command).await??)
    }

    /// Does what may block, such as to look into a repository.
    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
        let ended = tokio::task::spawn_blocking(work).await;
        ended.map_err(|_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the request failed"))
    }
}

/// The API's routes.
pub fn router(handle: Handle, config: Config) -> Router {
    let api = Arc::new(Api {
        handle,
        config,
        deliveries: std::array::from_fn(|_| Mutex::default()),
        guesses: Guesses::default(),
        misnamed: Guesses::default(),
        planning: Mutex::default(),
        plan_room: Arc::new(Semaphore::new(plan::ROOM)),
        bodies: Unproven::new(body::UNPROVEN),
    });
    let v1 = routes::router(&api, routes::v1()).fallback(nothing_here);
    // The UI's own way into the API: whoever comes by it has signed in.
    let pages = ui::router(api.clone(), Router::new().nest("/api/v1", v1.clone()).with_state(api.clone()));
    let v1 = v1.layer(middleware::from_fn_with_state(api.clone(), identity::authenticate));
    routes::router(&api, routes::outer())
        .nest("/api/v1", v1)
        .merge(pages)
        .fallback(nothing_here)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn_with_state(api.clone(), body::in_time))
        .layer(middleware::from_fn(pack::pack))
        .layer(middleware::from_fn_with_state(api.clone(), auth::require_own_host))
        .layer(middleware::from_fn_with_state(api.clone(), audit::record))
        .layer(middleware::from_fn_with_state(api.clone(), finish))
        .with_state(api)
}

/// Waits until the process stops.
async fn stopped(mut stopping: tokio_watch::Receiver<bool>) {
    // Without a sender nobody is left to serve for.
    drop(stopping.wait_for(|stopping| *stopping).await);
}

async fn nothing_here() -> Problem {
    Problem::not_found("there is nothing at this address")
}

async fn ready(State(api): State<Arc<Api>>) -> Response {
    let concern = |controller: &crate::decide::Controller| {
        let status = controller.status();
        let filling_up = status.store_filling_up.map(|filling_up| filling_up.message);
        filling_up.or_else(|| status.clock_leap.map(|leap| leap.message))
    };
    let answered = timeout(READY_WITHIN, api.handle.view(move |controller, _| concern(controller))).await;
    if api.handle.store().is_full() {
        return Problem::new(StatusCode::SERVICE_UNAVAILABLE, Refusal::DiskFull.to_string()).into_response();
    }
    match (answered, api.handle.store().revision()) {
        (Ok(Ok(None)), Ok(_)) => "ready\n".into_response(),
        // No reason to send requests elsewhere, but whoever reads it should know.
        (Ok(Ok(Some(concern))), Ok(_)) => format!("ready, but {concern}\n").into_response(),
        _ => Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the controller does not answer").into_response(),
    }
}

async fn sync(State(api): State<Arc<Api>>, identity: Identity) -> Result<Response, Problem> {
    (api.config.sync)().await.map_err(|message| Problem::new(StatusCode::BAD_GATEWAY, message))?;
    lists::source(State(api), identity).await
}

/// Makes every error a problem document, also those of the router and of its extractors; sets the headers that keep
/// browsers from doing more with an answer than showing it, and over TLS from coming without it again.
async fn finish(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let is_secure = api.config.sessions.is_secure(request.headers());
    let mut response = next.run(request).await;
    let status = response.status();
    let is_problem = response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == problem::CONTENT_TYPE);
    if (status.is_client_error() || status.is_server_error()) && !is_problem && !ui::is_page(&response) {
        let allow = response.headers_mut().remove(header::ALLOW);
        response = Problem::of_status(status).into_response();
        response.headers_mut().extend(allow.map(|allow| (header::ALLOW, allow)));
    }
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(header::REFERRER_POLICY).or_insert(HeaderValue::from_static("no-referrer"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers
        .entry(header::CONTENT_SECURITY_POLICY)
        .or_insert(HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
    if is_secure {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000"));
    }
    response
}
