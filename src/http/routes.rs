//! All routes of the API in one table: method, path, who may, and what answers.

use std::sync::Arc;

use axum::{
    Router,
    extract::DefaultBodyLimit,
    handler::Handler,
    middleware::from_fn_with_state,
    routing::{MethodFilter, MethodRouter, on},
};

use super::{
    Api, agents, artifacts, backup, firings, history,
    identity::{
        Guard,
        Role::{self, Admin, Operator, Viewer},
        authorize,
    },
    lists, logs, operate, plan, runs, sync, tokens, watch, why,
};

/// One call.
pub(super) struct Route {
    guard: Guard,
    handler: MethodRouter<Arc<Api>>,
}

impl Route {
    fn new<T: 'static>(
        filter: MethodFilter,
        path: &'static str,
        role: Role,
        handler: impl Handler<T, Arc<Api>>,
    ) -> Self {
        Self { guard: Guard { path, role, whole: false }, handler: on(filter, handler) }
    }

    /// It is about all workflows at once: whoever sees only some may not call it.
    fn whole(mut self) -> Self {
        self.guard.whole = true;
        self
    }

    /// Takes longer bodies than others.
    fn body_limit(self, bytes: usize) -> Self {
        Self { handler: self.handler.layer(DefaultBodyLimit::max(bytes)), ..self }
    }
}

fn get<T: 'static>(path: &'static str, role: Role, handler: impl Handler<T, Arc<Api>>) -> Route {
    Route::new(MethodFilter::GET, path, role, handler)
}

fn post<T: 'static>(path: &'static str, role: Role, handler: impl Handler<T, Arc<Api>>) -> Route {
    Route::new(MethodFilter::POST, path, role, handler)
}

/// All of `/api/v1`.
pub(super) fn v1() -> Vec<Route> {
    vec![
        get("/controller", Viewer, lists::controller),
        post("/controller/pause", Admin, operate::pause_controller).whole(),
        post("/controller/resume", Admin, operate::resume_controller).whole(),
        get("/source", Viewer, lists::source),
        post("/source/suspend", Admin, operate::suspend_source).whole(),
        post("/source/resume", Admin, operate::resume_source).whole(),
        post("/source/approve-prune", Admin, operate::approve_prune).whole(),
        get("/workflows", Viewer, lists::workflows),
        get("/workflows/{name}", Viewer, lists::workflow),
        get("/workflows/{name}/history", Viewer, history::history),
        post("/workflows/{name}/suspend", Operator, operate::suspend_workflow),
        post("/workflows/{name}/resume", Operator, operate::resume_workflow),
        get("/pipelines", Viewer, lists::pipelines),
        get("/pipelines/{workflow}/{pipeline}", Viewer, lists::pipeline),
        get("/pipelines/{workflow}/{pipeline}/firings", Viewer, firings::firings),
        get("/pipelines/{workflow}/{pipeline}/why", Viewer, why::pipeline),
        post("/pipelines/{workflow}/{pipeline}/suspend", Operator, operate::suspend_pipeline),
        post("/pipelines/{workflow}/{pipeline}/resume", Operator, operate::resume_pipeline),
        get("/plan", Viewer, plan::of_commit).whole(),
        post("/plan", Viewer, plan::of_files).whole().body_limit(plan::MAX_BODY),
        get("/runs", Viewer, lists::runs),
        post("/runs", Operator, runs::start),
        get("/runs/{name}", Viewer, lists::run),
        post("/runs/{name}/cancel", Operator, runs::cancel),
        post("/runs/{name}/approve", Operator, operate::approve),
        post("/runs/{name}/rerun", Operator, operate::rerun),
        get("/runs/{name}/logs", Viewer, logs::logs),
        get("/runs/{name}/artifacts", Viewer, artifacts::list),
        get("/runs/{name}/artifacts/{task}/{*path}", Viewer, artifacts::download),
        get("/runs/{name}/why", Viewer, why::run),
        get("/agents", Viewer, lists::agents),
        post("/agents/tokens", Admin, agents::create_token).whole(),
        get("/agents/{name}", Viewer, lists::agent),
        post("/agents/{name}/fence", Admin, agents::fence).whole(),
        post("/agents/{name}/{action}", Admin, agents::act).whole(),
        get("/tokens", Admin, tokens::tokens).whole(),
        post("/tokens", Admin, tokens::create).whole(),
        post("/tokens/{name}/revoke", Admin, tokens::revoke).whole(),
        get("/events", Viewer, lists::events),
        get("/events/{id}", Viewer, lists::event),
        get("/watch", Viewer, watch::watch),
        post("/sync", Operator, sync),
        get("/backup", Admin, backup::backup).whole(),
    ]
}

/// A router of these, each behind its guard.
pub(super) fn router(api: &Arc<Api>, routes: Vec<Route>) -> Router<Arc<Api>> {
    routes.into_iter().fold(Router::new(), |router, route| {
        let guard = route.guard;
        let guarded = from_fn_with_state(api.clone(), move |state, params, request, next| {
            authorize(guard, state, params, request, next)
        });
        router.route(guard.path, route.handler.route_layer(guarded))
    })
}
