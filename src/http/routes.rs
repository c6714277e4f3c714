//! All routes in one table: method, path, who may, what answers, and what is said of it in the API's description.

use std::sync::Arc;

use axum::{
    Router,
    extract::DefaultBodyLimit,
    handler::Handler,
    middleware::from_fn_with_state,
    routing::{MethodFilter, MethodRouter, on},
};

use super::{
    Api, agents, artifacts, backup, firings, history, hooks,
    identity::{
        Guard,
        Role::{self, Admin, Operator, Viewer},
        authorize,
    },
    lists, logs, metrics, notifiers, openapi, operate, plan, ready, runs, sync, tokens,
    ui::session::create_code,
    watch, why,
};

/// One call.
pub(super) struct Route {
    /// `None`: it looks itself at who calls, or anybody may.
    guard: Option<Guard>,
    path: &'static str,
    handler: MethodRouter<Arc<Api>>,
    pub(super) said: Said,
}

/// What the description says of a call.
#[cfg_attr(not(test), expect(dead_code, reason = "the test that writes schemas/openapi.json reads it"))]
pub(super) struct Said {
    pub(super) method: &'static str,
    pub(super) path: String,
    pub(super) role: Option<Role>,
    pub(super) summary: &'static str,
    pub(super) query: &'static [Param],
    /// Headers that it looks at, beside `Authorization` and `Content-Type`.
    pub(super) headers: &'static [Header],
    /// The schema of the body, and whether there must be one.
    pub(super) body: Option<(&'static str, bool)>,
    pub(super) answer: Answer,
    pub(super) status: u16,
    /// What else may come: other statuses than those that all of its kind have.
    pub(super) also: &'static [(u16, &'static str)],
}

/// A parameter of the query: its name, its JSON type (or `time`), what it means.
pub(super) type Param = (&'static str, &'static str, &'static str);

/// A header: its name, what it means.
pub(super) type Header = (&'static str, &'static str);

/// What comes back.
#[cfg_attr(not(test), expect(dead_code, reason = "the test that writes schemas/openapi.json reads it"))]
#[derive(Clone, Copy)]
pub(super) enum Answer {
    /// An object of this kind.
    One(&'static str),
    /// A list of such objects.
    List(&'static str),
    /// One of these kinds.
    Either(&'static [&'static str]),
    /// By this schema, without a kind.
    Plain(&'static str),
    /// Something else, of one of these types.
    Bytes(&'static [&'static str]),
    Nothing,
}

use Answer::{Bytes, Either, List, Nothing, One, Plain};

const LIMIT: Param = ("limit", "integer", "1 to 10000, default 100");
const AFTER: Param = ("after", "string", "begin after this one, for the next page");
const LABELS: Param = ("labels", "string", "key=value,…: all of them");
const WORKFLOW: Param = ("workflow", "string", "only of this workflow");
const PIPELINE: Param = ("pipeline", "string", "only of this pipeline: a name, or WORKFLOW/PIPELINE");
const PHASE: Param = ("phase", "string", "only in this phase");
const SINCE: Param = ("since", "string", "not before this time (RFC 3339), or a duration ago");

const NOT_SUSPENDED: (u16, &str) = (409, "It is not suspended by command");

const IDEMPOTENCY_KEY: Header = ("Idempotency-Key", "a request that comes again with it gives the same run");
const DELIVERY_ID: Header = ("X-Delivery-Id", "a delivery that comes again with it gives the same run");
const LAST_EVENT_ID: Header = ("Last-Event-ID", "the id of the last event that was seen: what came after it follows");
pub(super) const IF_NONE_MATCH: Header = ("If-None-Match", "an ETag: 304 if it is still that");
const RANGE: Header = ("Range", "bytes=FIRST-LAST: only this part");
const IF_RANGE: Header = ("If-Range", "an ETag: all of it if it is not that any more");

impl Route {
    fn new<T: 'static>(
        (method, filter): (&'static str, MethodFilter),
        path: &'static str,
        role: Option<Role>,
        handler: impl Handler<T, Arc<Api>>,
    ) -> Self {
        let below = if role.is_some() { "/api/v1" } else { "" };
        // A rest of several segments is one parameter, as far as OpenAPI knows.
        let path_said = format!("{below}{path}").replace("{*", "{");
        Self {
            guard: role.map(|role| Guard { path, role, whole: false }),
            path,
            handler: on(filter, handler),
            said: Said {
                method,
                path: path_said,
                role,
                summary: "",
                query: &[],
                headers: &[],
                body: None,
                answer: Nothing,
                status: 200,
                also: &[],
            },
        }
    }

    /// It is about all workflows at once: whoever sees only some may not call it.
    fn whole(mut self) -> Self {
        if let Some(guard) = &mut self.guard {
            guard.whole = true;
        }
        self
    }

    /// Takes longer bodies than others.
    fn body_limit(self, bytes: usize) -> Self {
        Self { handler: self.handler.layer(DefaultBodyLimit::max(bytes)), ..self }
    }

    fn says(mut self, summary: &'static str, answer: Answer) -> Self {
        (self.said.summary, self.said.answer) = (summary, answer);
        self
    }

    fn query(mut self, query: &'static [Param]) -> Self {
        self.said.query = query;
        self
    }

    fn headers(mut self, headers: &'static [Header]) -> Self {
        self.said.headers = headers;
        self
    }

    fn also(mut self, also: &'static [(u16, &'static str)]) -> Self {
        self.said.also = also;
        self
    }

    fn takes(mut self, body: &'static str) -> Self {
        self.said.body = Some((body, true));
        self
    }

    fn may_take(mut self, body: &'static str) -> Self {
        self.said.body = Some((body, false));
        self
    }

    fn status(mut self, status: u16) -> Self {
        self.said.status = status;
        self
    }
}

const GET: (&str, MethodFilter) = ("get", MethodFilter::GET);
const POST: (&str, MethodFilter) = ("post", MethodFilter::POST);

fn get<T: 'static>(path: &'static str, role: Role, handler: impl Handler<T, Arc<Api>>) -> Route {
    Route::new(GET, path, Some(role), handler)
}

fn post<T: 'static>(path: &'static str, role: Role, handler: impl Handler<T, Arc<Api>>) -> Route {
    Route::new(POST, path, Some(role), handler)
}

/// All of `/api/v1`.
pub(super) fn v1() -> Vec<Route> {
    let mut routes = reading();
    routes.extend(doing());
    routes
}

fn reading() -> Vec<Route> {
    vec![
        get("/controller", Viewer, lists::controller)
            .says("The controller: its version, what is unusual about it", One("Controller")),
        get("/source", Viewer, lists::source).says("The source: its revision, conditions, problems", One("Source")),
        get("/workflows", Viewer, lists::workflows)
            .says("All workflows", List("Workflow"))
            .query(&[LIMIT, AFTER, LABELS, WORKFLOW, PHASE]),
        get("/workflows/{name}", Viewer, lists::workflow).says("One workflow", One("Workflow")),
        get("/workflows/{name}/history", Viewer, history::history)
            .says("The commits that changed it, newest first", List("WorkflowChange"))
            .query(&[LIMIT]),
        get("/pipelines", Viewer, lists::pipelines)
            .says("All pipelines", List("Pipeline"))
            .query(&[LIMIT, AFTER, LABELS, WORKFLOW, PIPELINE, PHASE]),
        get("/pipelines/{workflow}/{pipeline}", Viewer, lists::pipeline).says("One pipeline", One("Pipeline")),
        get("/pipelines/{workflow}/{pipeline}/firings", Viewer, firings::firings)
            .says("What became of its due times, newest first", List("Firing"))
            .query(&[LIMIT, AFTER, SINCE, ("until", "string", "not after this time, or a duration ago")]),
        get("/pipelines/{workflow}/{pipeline}/why", Viewer, why::pipeline)
            .says("Why it has its agent, or none; what became of an instant", Either(&["PipelineWhy", "InstantWhy"]))
            .query(&[("at", "time", "the instant")]),
        get("/plan", Viewer, plan::of_commit).whole().says("What a commit would change", One("Plan")).query(&[
            ("rev", "string", "the commit, or a branch"),
            ("against", "string", "another one, in the place of what is in effect"),
        ]),
        get("/runs", Viewer, lists::runs).says("All runs, newest first", List("Run")).query(&[
            LIMIT,
            AFTER,
            LABELS,
            WORKFLOW,
            PIPELINE,
            PHASE,
            SINCE,
            ("agent", "string", "only those that this agent has, or had"),
            ("active", "boolean", "only those that have not ended"),
        ]),
        get("/runs/{name}", Viewer, lists::run).says("One run", One("Run")),
        get("/runs/{name}/logs", Viewer, logs::logs)
            .says("Its output", Bytes(&["text/plain", "application/x-ndjson"]))
            .query(&[
                ("task", "string", "only of this task"),
                ("step", "string", "only of this step"),
                ("follow", "boolean", "go on until the run's end"),
                ("timestamps", "boolean", "the time before each line"),
                ("tail", "integer", "the last so many lines"),
                ("format", "string", "text or ndjson"),
                ("offset", "integer", "without the first so many bytes of what would come"),
            ]),
        get("/runs/{name}/artifacts", Viewer, artifacts::list)
            .says("What its tasks saved", List("Artifact"))
            .query(&[("task", "string", "only of this task")]),
        get("/runs/{name}/artifacts/{task}/{*path}", Viewer, artifacts::download)
            .says("The bytes of one", Bytes(&["application/octet-stream"]))
            .headers(&[IF_NONE_MATCH, RANGE, IF_RANGE])
            .also(&[
                (206, "The part that Range asks for"),
                (304, "The client has it"),
                (409, "It is on its way from the agent"),
                (416, "It has no such part"),
            ]),
        get("/runs/{name}/why", Viewer, why::run).says("What started it, and what it waits for", One("RunWhy")),
        get("/agents", Viewer, lists::agents).says("All agents", List("Agent")).query(&[LIMIT, AFTER, LABELS, PHASE]),
        get("/agents/tokens", Admin, agents::join_tokens)
            .whole()
            .says("All join tokens that are neither spent nor revoked", List("JoinToken"))
            .query(&[LIMIT, AFTER]),
        get("/agents/{name}", Viewer, lists::agent).says("One agent", One("Agent")),
        get("/notifiers", Viewer, notifiers::notifiers)
            .whole()
            .says("All notifiers, and how they go", List("Notifier"))
            .query(&[LIMIT, AFTER, LABELS, PHASE]),
        get("/notifiers/{name}", Viewer, notifiers::notifier).whole().says("One notifier", One("Notifier")),
        get("/events", Viewer, lists::events).says("Events, newest first", List("Event")).query(&[
            LIMIT,
            AFTER,
            SINCE,
            ("workflow", "string", "only about this workflow, its pipelines and their runs"),
            ("pipeline", "string", "only about this pipeline and its runs: a name, or WORKFLOW/PIPELINE"),
            (
                "regarding",
                "string",
                "only about this: workflow/NAME, pipeline/W/P, run/NAME, agent/NAME, notifier/NAME, source",
            ),
        ]),
        get("/events/{id}", Viewer, lists::event).says("One event", One("Event")),
        get("/watch", Viewer, watch::watch)
            .says("Changes as they are committed, as server-sent events", Bytes(&["text/event-stream"]))
            .headers(&[LAST_EVENT_ID])
            .query(&[("kinds", "string", "workflow,pipeline,run,agent,notifier,source,event: only these")]),
        get("/tokens", Admin, tokens::tokens).whole().says("All API tokens", List("Token")).query(&[LIMIT, AFTER]),
        get("/backup", Admin, backup::backup).whole().says("The store as it is now", Bytes(&["application/zstd"])),
    ]
}

fn doing() -> Vec<Route> {
    vec![
        post("/controller/pause", Admin, operate::pause_controller)
            .whole()
            .says("Lets agents go on alone for a while", One("Controller"))
            .takes("PauseRequest"),
        post("/controller/resume", Admin, operate::resume_controller)
            .whole()
            .says("Ends that", One("Controller"))
            .also(&[(409, "It is not paused")]),
        post("/controller/confirm-clock", Admin, operate::confirm_clock)
            .whole()
            .says("Says that the host's clock, which leapt, is right", One("Controller"))
            .also(&[(409, "It did not leap")]),
        post("/controller/ca/rotate", Admin, operate::rotate_ca)
            .whole()
            .says("Makes a new certificate authority beside the old one", One("Controller"))
            .also(&[(409, "There are two already")]),
        post("/controller/ca/finish", Admin, operate::finish_ca_rotation)
            .whole()
            .says("Trusts the old one no more", One("Controller"))
            .also(&[(409, "There is only one")]),
        post("/source/suspend", Admin, operate::suspend_source)
            .whole()
            .says("Keeps what is found at the source from taking effect", One("Source"))
            .may_take("SuspendRequest"),
        post("/source/resume", Admin, operate::resume_source)
            .whole()
            .says("Ends that", One("Source"))
            .also(&[NOT_SUSPENDED]),
        post("/source/approve-prune", Admin, operate::approve_prune)
            .whole()
            .says("Lets a commit remove what it was kept from removing", One("Source"))
            .takes("ApprovePruneRequest")
            .also(&[(409, "Nothing waits for that, or it is another commit's")]),
        post("/workflows/{name}/suspend", Operator, operate::suspend_workflow)
            .says("Keeps its triggers from firing", One("Workflow"))
            .may_take("SuspendRequest"),
        post("/workflows/{name}/resume", Operator, operate::resume_workflow)
            .says("Ends that", One("Workflow"))
            .also(&[NOT_SUSPENDED]),
        post("/pipelines/{workflow}/{pipeline}/suspend", Operator, operate::suspend_pipeline)
            .says("Keeps its triggers from firing", One("Pipeline"))
            .may_take("SuspendRequest"),
        post("/pipelines/{workflow}/{pipeline}/resume", Operator, operate::resume_pipeline)
            .says("Ends that", One("Pipeline"))
            .also(&[NOT_SUSPENDED]),
        post("/plan", Viewer, plan::of_files)
            .whole()
            .body_limit(plan::MAX_BODY)
            .says("What files that are sent along would change; changes nothing", One("Plan"))
            .takes("Upload"),
        post("/runs", Operator, runs::start)
            .says("Starts a run", One("Run"))
            .takes("StartRequest")
            .status(201)
            .headers(&[IDEMPOTENCY_KEY])
            .also(&[
                (409, "Suspended"),
                (410, "The run of that key is past its retention"),
                (422, "Params are wrong, or the key stands for another request"),
            ]),
        post("/runs/{name}/cancel", Operator, runs::cancel)
            .says("Cancels it", One("Run"))
            .status(202)
            .also(&[(409, "It has ended")]),
        post("/runs/{name}/approve", Operator, operate::approve)
            .says("Decides about a task that waits for approval", One("Run"))
            .takes("DecisionRequest")
            .status(202)
            .also(&[(409, "Nothing of that name waits, or somebody decided otherwise before")]),
        post("/runs/{name}/rerun", Operator, operate::rerun)
            .says("Starts a run that has ended again", One("Run"))
            .may_take("RerunRequest")
            .status(201)
            .headers(&[IDEMPOTENCY_KEY])
            .also(&[
                (409, "It has not ended, or its pipeline is suspended"),
                (410, "What it ran is not kept any more"),
                (422, "The key stands for another request"),
            ]),
        post("/notifiers/{name}/test", Operator, notifiers::test)
            .whole()
            .says("Sends a message now that says that it is a test, and waits for the answer", Plain("NotifierTest")),
        post("/agents/tokens", Admin, agents::create_token)
            .whole()
            .says("Makes a join token", Plain("NewJoinToken"))
            .may_take("JoinTokenRequest")
            .status(201),
        post("/agents/tokens/{id}/revoke", Admin, agents::revoke_token)
            .whole()
            .says("Lets nobody in by it any more", Nothing)
            .status(204),
        post("/agents/{name}/fence", Admin, agents::fence)
            .whole()
            .says("Gives its pipelines to others at once; its machine must be off", One("Agent"))
            .takes("FenceRequest")
            .also(&[(409, "It is connected")]),
        post("/agents/{name}/{action}", Admin, agents::act)
            .whole()
            .says("drain, undrain, revoke or forget", One("Agent"))
            .also(&[(204, "It is forgotten"), (409, "It is connected, and so can't be forgotten")]),
        post("/tokens", Admin, tokens::create)
            .whole()
            .says("Makes an API token", Plain("NewToken"))
            .takes("TokenRequest")
            .status(201)
            .also(&[(409, "The name is taken")]),
        post("/tokens/{name}/revoke", Admin, tokens::revoke)
            .whole()
            .says("Refuses it from now on", Nothing)
            .status(204),
        post("/sign-in-codes", Viewer, create_code)
            .says("Makes a code that signs a browser in to the web UI, once", One("SignInCode"))
            .status(201),
        post("/sync", Operator, sync).says("Looks at the source now, waits until that is in effect", One("Source")),
    ]
}

/// What is not below `/api/v1`: each of them looks itself at who calls, or answers anybody.
pub(super) fn outer() -> Vec<Route> {
    vec![
        Route::new(POST, "/hooks/source", None, hooks::source)
            .says("Says that something was pushed to the source", Nothing)
            .also(&[(401, "No valid proof")])
            .status(202),
        Route::new(POST, "/hooks/{workflow}/pipelines/{pipeline}", None, hooks::pipeline)
            .says("A pipeline's own webhook", Plain("Accepted"))
            .headers(&[DELIVERY_ID])
            .also(&[(401, "No such hook, or no valid proof"), (409, "Suspended"), (422, "Params are wrong")])
            .status(202),
        Route::new(POST, "/hooks/{workflow}/triggers/{trigger}", None, hooks::trigger)
            .says("A webhook trigger", Plain("Accepted"))
            .headers(&[DELIVERY_ID])
            .also(&[(401, "No such hook, or no valid proof"), (409, "Suspended"), (422, "Params are wrong")])
            .status(202),
        Route::new(GET, "/metrics", None, metrics::metrics)
            .says("Metrics in OpenMetrics text", Bytes(&["application/openmetrics-text"]))
            .also(&[(401, "No token, or one that is not valid")]),
        Route::new(GET, "/openapi.json", None, openapi::document)
            .says("This description", Bytes(&["application/json"])),
        Route::new(GET, "/healthz", None, || async { "ok\n" })
            .says("200 while the process lives", Bytes(&["text/plain"])),
        Route::new(GET, "/readyz", None, ready)
            .says("200 while the controller answers and its store can be read", Bytes(&["text/plain"]))
            .also(&[(503, "It does not answer")]),
    ]
}

/// A router of these, each behind its guard.
pub(super) fn router(api: &Arc<Api>, routes: Vec<Route>) -> Router<Arc<Api>> {
    routes.into_iter().fold(Router::new(), |router, route| {
        let handler = match route.guard {
            None => route.handler,
            Some(guard) => {
                let guarded = from_fn_with_state(api.clone(), move |state, params, request, next| {
                    authorize(guard, state, params, request, next)
                });
                route.handler.route_layer(guarded)
            }
        };
        router.route(route.path, handler)
    })
}
