//! The router without sockets, over a real store and a machine that only starts runs; and one look through a socket.

mod access;
mod hooks;
mod limits;
mod long_lists;
mod metrics;
mod notifiers;
mod openid;
mod parts;
mod watch;

use std::{
    collections::HashSet,
    path::PathBuf,
    sync::{Mutex as StdMutex, mpsc::channel},
};

use axum::body::{Body, Bytes, HttpBody};
use jiff::Timestamp;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::watch::Sender,
};
use tower::ServiceExt as _;
use xene_schemas::{
    event::EventType,
    meta::{FileHash, Generation, PipelineKey, Revision, RunName},
    phase::RunPhase,
    pipeline::CompiledPipeline,
    run::{Run, RunSpec},
    wire::logs::{RecordKind, record_head},
};

mod pages;

use super::*;
use crate::{
    decide::{
        event::{Answer, Command, Refusal, RunOrder},
        rows::{
            Batch, Change, JoinTokenRow, Loaded, NewEvent, PipelineRow, RunRow, Suspendable, SuspensionRow, WorkflowRow,
        },
    },
    store::{Store, logs::LogStore},
};

const ADMIN: &str = "s3cret";
const DEADLINE: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy)]
enum Trouble {
    DiskFull,
    /// It has ended.
    Gone,
}

struct World {
    router: Router,
    store: Store,
    logs: LogStore,
    files: ContentStore,
    asked: Arc<StdMutex<Vec<Command>>>,
    announced: Arc<StdMutex<Vec<Option<String>>>>,
    /// What keeps the machine from carrying out anything.
    trouble: Arc<StdMutex<Option<Trouble>>>,
    stop: Sender<bool>,
    audit: PathBuf,
    _data: TempDir,
}

fn commit(store: &Store, batch: Batch) {
    let (done, wait) = channel();
    store.commit(batch, move |result| done.send(result).unwrap());
    wait.recv().unwrap().unwrap();
}

/// A row of a run, as a machine would make it.
fn row(key: &PipelineKey, name: RunName, command: Option<&Command>, phase: RunPhase) -> RunRow {
    let (trigger, params) = match command {
        Some(Command::StartRun(RunOrder { trigger, params, .. })) => (json!(trigger), json!(params)),
        _ => (json!({"type": "manual"}), json!({})),
    };
    let spec: RunSpec = serde_json::from_value(json!({
        "workflow": key.workflow, "pipeline": key.pipeline, "trigger": trigger, "params": params, "revision": "r1",
        "specHash": "00".repeat(32),
    }))
    .unwrap();
    let mut run = Run::new(name, Timestamp::from_second(5).unwrap(), spec);
    run.status.phase = phase;
    RunRow::new(run, true)
}

/// A workflow with two pipelines, of which only `slow` is started by the trigger `push`.
fn seed(store: &Store, workflow: &str) {
    let spec = json!({
        "triggers": {"push": {"type": "webhook"}},
        "pipelines": {
            "build": {"labels": {"tier": "fast"}, "tasks": {"t": {"steps": ["true"]}}},
            "slow": {"triggers": ["push"], "tasks": {"t": {"steps": ["true"]}},
                     "params": {"level": {"type": "integer", "default": 3}}},
        },
    });
    seed_spec(store, workflow, spec);
}

fn seed_spec(store: &Store, workflow: &str, spec: Value) {
    let row: WorkflowRow = WorkflowRow {
        metadata: serde_json::from_value(json!({"name": workflow, "labels": {"team": "a"}})).unwrap(),
        spec: serde_json::from_value(spec).unwrap(),
        revision: Revision("r1".to_owned()),
        path: "w.yaml".to_owned(),
        line: 1,
        generation: Generation(1),
        hash: xene_schemas::meta::SpecHash([1; 32]),
        valid: true,
        held: None,
        blocked_among: None,
    };
    let mut batch = Vec::new();
    for (name, spec) in &row.spec.pipelines {
        let compiled = CompiledPipeline {
            key: PipelineKey { workflow: row.metadata.name.clone(), pipeline: name.clone() },
            suspend: false,
            env: row.spec.env.clone(),
            params: spec.params.clone(),
            triggers: row.spec.triggers.clone(),
            spec: spec.clone(),
            files: vec![],
        };
        let (spec_hash, bytes) = compiled.encode();
        batch.push(Change::PutSpec(spec_hash, bytes.into()));
        batch.push(Change::PutPipeline(Box::new(PipelineRow {
            key: compiled.key,
            spec: spec.clone(),
            spec_hash,
            revision: Revision("r1".to_owned()),
            suspend: false,
        })));
    }
    batch.push(Change::PutWorkflow(Box::new(row)));
    commit(store, batch);
}

impl World {
    fn new() -> Self {
        Self::configured(|_| {})
    }

    /// One that `change` makes its own.
    fn configured(change: impl FnOnce(&mut Config)) -> Self {
        Self::holding(Loaded::default(), change)
    }

    /// One whose machine holds this.
    fn holding(loaded: Loaded, change: impl FnOnce(&mut Config)) -> Self {
        let data = tempfile::tempdir().unwrap();
        let store = Store::open(data.path()).unwrap();
        let logs = LogStore::open(&data.path().join("logs")).unwrap();
        seed(&store, "w");
        let asked = Arc::new(StdMutex::new(Vec::new()));
        let announced = Arc::new(StdMutex::new(Vec::new()));
        let told = announced.clone();
        let trouble = Arc::new(StdMutex::new(None));
        let troubled = trouble.clone();
        let (machine, seen) = (store.clone(), asked.clone());
        let handle = Handle::for_tests(store.clone(), logs.clone(), loaded, move |command| {
            let command = match command {
                Command::By { command, .. } => *command,
                command => command,
            };
            match *troubled.lock().unwrap() {
                None => {}
                Some(Trouble::DiskFull) => return Err(Refusal::DiskFull),
                Some(Trouble::Gone) => panic!("the machine has ended"),
            }
            seen.lock().unwrap().push(command.clone());
            let (pipeline, run, delivery) = match &command {
                Command::StartRun(RunOrder { pipeline, run, delivery, .. }) => (pipeline, run, delivery),
                Command::StartRuns(orders) => return hooks::start_all(&machine, orders),
                Command::Rerun(again) => (&again.original.run.spec.key(), &again.run, &again.delivery),
                Command::CreateApiToken(row) => {
                    commit(&machine, vec![Change::PutApiToken(row.clone())]);
                    return Ok(Answer::Done);
                }
                Command::CreateJoinToken(row) => {
                    commit(&machine, vec![Change::PutJoinToken(row.clone())]);
                    return Ok(Answer::Done);
                }
                Command::RevokeJoinToken(id) => {
                    if !machine.join_tokens().unwrap().iter().any(|row| row.id == *id) {
                        return Err(Refusal::NotFound { kind: "join token", name: id.clone() });
                    }
                    commit(&machine, vec![Change::DeleteJoinToken(id.clone())]);
                    return Ok(Answer::Done);
                }
                Command::RevokeApiToken(name) => {
                    let row = machine.api_tokens().unwrap().into_iter().find(|row| row.name == *name);
                    let id = row.ok_or_else(|| Refusal::NotFound { kind: "token", name: name.to_string() })?.id;
                    commit(&machine, vec![Change::DeleteApiToken(id)]);
                    return Ok(Answer::Done);
                }
                Command::CancelRun { run, .. } => return Err(Refusal::Ended(*run)),
                _ => return Ok(Answer::Done),
            };
            let row = row(pipeline, *run, Some(&command), RunPhase::StartingUp);
            let answer = Answer::Run(Box::new(row.run.clone()));
            let request = delivery.as_ref().and_then(|delivery| delivery.request.clone());
            let row = RunRow { request, ..row };
            let delivery = delivery.clone().map(|it| Change::PutDelivery(pipeline.clone(), it.id, *run));
            commit(&machine, [Change::PutRun(Box::new(row))].into_iter().chain(delivery).collect());
            Ok(answer)
        });
        let (stop, stopping) = tokio_watch::channel(false);
        let files = ContentStore::open(&data.path().join("files")).unwrap();
        let audit = data.path().join("audit.jsonl");
        let mut config = Config {
            admin: AdminToken::new(ADMIN),
            hooks: HookSecret([7; 32]),
            hosts: vec!["xene.example".to_owned()],
            rotate: Arc::new(|_, _| Box::pin(async { Err("it is being replaced already".to_owned()) })),
            files: files.clone(),
            sync: Arc::new(|| Box::pin(async { Err("the source is gone".to_owned()) })),
            announce: Arc::new(move |commit| told.lock().unwrap().push(commit)),
            browser: None,
            limits: Limits::default(),
            strict: false,
            sessions: ui::session::Sessions::new(false),
            metrics_public: false,
            openid: None,
            outgoing: Outgoing::new(crate::notify::Config::default()),
            audit: Some(AuditLog::open(audit.clone()).unwrap()),
            stopping,
        };
        change(&mut config);
        Self { router: router(handle, config), store, logs, files, asked, announced, trouble, stop, audit, _data: data }
    }

    async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Response {
        let mut request = Request::builder().method(method).uri(path);
        if !headers.iter().any(|(name, _)| *name == "host") {
            request = request.header("host", "localhost:7420");
        }
        if path.starts_with("/api/v1") && !headers.iter().any(|(name, _)| *name == "content-type") {
            request = request.header("content-type", "application/json");
        }
        // An empty one stands for none.
        for (name, value) in headers.iter().filter(|(name, value)| *name != "content-type" || !value.is_empty()) {
            request = request.header(*name, *value);
        }
        self.router.clone().oneshot(request.body(body.into()).unwrap()).await.unwrap()
    }

    async fn get(&self, path: &str) -> Response {
        self.ask("GET", path, &[("authorization", "Bearer s3cret")], "").await
    }

    async fn items(&self, path: &str) -> Vec<String> {
        let (status, list) = read(self.get(path).await).await;
        assert_eq!(status, 200, "{path}: {list}");
        assert_eq!((&list["apiVersion"], &list["kind"]), (&json!("xene/v1"), &json!("List")));
        let name = |item: &Value| {
            item.pointer("/metadata/name")
                .map_or_else(|| item["id"].to_string(), |name| name.as_str().unwrap().to_owned())
        };
        list["items"].as_array().unwrap().iter().map(name).collect()
    }

    async fn start(&self, headers: &[(&str, &str)], body: &Value) -> (u16, Value) {
        let headers = [&[("authorization", "Bearer s3cret")], headers].concat();
        read(self.ask("POST", "/api/v1/runs", &headers, body.to_string()).await).await
    }
}

async fn read(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
    (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

async fn text(response: Response) -> String {
    assert_eq!(response.status(), 200);
    let bytes = timeout(DEADLINE, axum::body::to_bytes(response.into_body(), usize::MAX)).await.unwrap().unwrap();
    String::from_utf8(bytes.into()).unwrap()
}

/// The next chunk of an answer without end; `None` at its end.
async fn chunk(body: &mut Body) -> Option<Bytes> {
    let frame = std::future::poll_fn(|context| Pin::new(&mut *body).poll_frame(context));
    timeout(DEADLINE, frame).await.unwrap().map(|frame| frame.unwrap().into_data().unwrap())
}

fn assert_no_nulls(value: &Value) {
    match value {
        Value::Null => panic!("null"),
        Value::Array(items) => items.iter().for_each(assert_no_nulls),
        Value::Object(fields) => fields.values().for_each(assert_no_nulls),
        _ => {}
    }
}

/// Method, path, headers, body, expected status.
type Case<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], &'a str, u16);

fn run_name(n: u128) -> RunName {
    RunName::new(Timestamp::from_second(1_700_000_000).unwrap(), n)
}

#[tokio::test]
async fn every_error_is_a_problem_with_safe_headers() {
    let world = World::new();
    let auth = ("authorization", "Bearer s3cret");
    let big = "x".repeat(MAX_BODY + 1);
    let cases: [Case<'_>; 28] = [
        ("GET", "/api/v1/runs", &[], "", 401),
        ("GET", "/api/v1/runs", &[("authorization", "Bearer wrong")], "", 401),
        ("GET", "/api/v1/nothing", &[], "", 401),
        ("GET", "/api/v1/nothing", &[auth], "", 404),
        ("GET", "/nothing", &[], "", 404),
        ("DELETE", "/api/v1/workflows/w", &[auth], "", 405),
        ("PUT", "/api/v1/workflows", &[auth], "{}", 405),
        ("GET", "/api/v1/workflows/absent", &[auth], "", 404),
        ("GET", "/api/v1/workflows/..%2Fw", &[auth], "", 404),
        ("GET", "/api/v1/runs/%FF", &[auth], "", 400),
        ("GET", "/api/v1/runs?limit=0", &[auth], "", 400),
        ("GET", "/api/v1/runs?color=red", &[auth], "", 400),
        ("POST", "/api/v1/runs", &[auth], &big, 413),
        ("POST", "/api/v1/workflows/w/suspend", &[auth], " []", 400),
        ("POST", "/api/v1/sync", &[auth], "", 502),
        ("POST", "/api/v1/sync", &[auth, ("content-type", "")], "", 502),
        ("POST", "/api/v1/runs", &[auth, ("content-type", "")], "{}", 415),
        ("GET", "/healthz", &[("host", "evil.example:7420")], "", 421),
        ("GET", "/healthz", &[("host", "localhost"), ("host", "localhost")], "", 400),
        ("GET", "/api/v1/runs/%F0%9F", &[auth], "", 400),
        ("GET", "/api/v1/runs?limit=1&limit=2", &[auth], "", 400),
        ("POST", "/api/v1/runs", &[auth, ("content-type", "text/plain")], "{}", 415),
        ("POST", "/api/v1/runs", &[auth, ("content-type", "application/x-www-form-urlencoded")], "{}", 415),
        ("POST", "/api/v1/sync", &[auth, ("sec-fetch-site", "cross-site")], "", 403),
        ("POST", "/api/v1/sync", &[auth, ("origin", "https://evil.example")], "", 403),
        ("POST", "/api/v1/sync", &[auth, ("origin", "null")], "", 403),
        (
            "POST",
            "/api/v1/sync",
            &[auth, ("origin", "http://localhost:7420"), ("sec-fetch-site", "same-origin")],
            "",
            502,
        ),
        ("POST", "/api/v1/sync", &[auth, ("origin", "http://localhost:7420")], "", 502),
    ];
    for (method, path, headers, body, expected) in cases {
        let response = world.ask(method, path, headers, body.to_owned()).await;
        assert_eq!(response.headers()["content-type"], "application/problem+json", "{method} {path}");
        assert_eq!(response.headers()["x-content-type-options"], "nosniff");
        assert!(!response.headers().contains_key("access-control-allow-origin"));
        assert_eq!(response.headers().contains_key("www-authenticate"), expected == 401, "{method} {path}");
        let (status, problem) = read(response).await;
        assert_eq!((status, &problem["status"]), (expected, &json!(expected)), "{method} {path}: {problem}");
        assert!(problem["detail"].as_str().unwrap().len() > 5, "{problem}");
    }
    let healthy = world.ask("GET", "/healthz", &[("host", "XENE.example")], "").await;
    assert_eq!(
        (healthy.status().as_u16(), &healthy.headers()["x-content-type-options"]),
        (200, &"nosniff".parse().unwrap())
    );
}

#[tokio::test]
async fn lists_are_paged_filtered_and_without_nulls() {
    let world = World::new();
    seed(&world.store, "v");
    let (build, slow): (PipelineKey, PipelineKey) = ("w/build".parse().unwrap(), "v/slow".parse().unwrap());
    let event = |n: i64, regarding: &str| {
        Change::AddEvent(NewEvent {
            at: Timestamp::from_second(n).unwrap(),
            kind: EventType::Normal,
            reason: "Created".to_owned(),
            message: "it is new".to_owned(),
            regarding: regarding.to_owned(),
        })
    };
    let mut batch = vec![event(1, "workflow/w"), event(2, "source"), event(3, "workflow/w")];
    for n in 0..5 {
        let (key, phase) = if n % 2 == 0 { (&build, RunPhase::Success) } else { (&slow, RunPhase::Running) };
        batch.push(Change::PutRun(Box::new(row(key, run_name(n), None, phase))));
    }
    commit(&world.store, batch);

    assert_eq!(world.items("/api/v1/workflows").await, ["v", "w"]);
    assert_eq!(world.items("/api/v1/workflows?limit=1&after=v").await, ["w"]);
    assert_eq!(world.items("/api/v1/workflows?phase=Invalid").await, [""; 0]);
    assert_eq!(world.items("/api/v1/workflows?labels=team%3Da").await.len(), 2);
    assert_eq!(world.items("/api/v1/workflows?labels=team%3Db").await.len(), 0);
    assert_eq!(world.items("/api/v1/pipelines").await, ["v/build", "v/slow", "w/build", "w/slow"]);
    assert_eq!(world.items("/api/v1/pipelines?limit=2&after=v/build").await, ["v/slow", "w/build"]);
    assert_eq!(world.items("/api/v1/pipelines?workflow=w&labels=tier=fast").await, ["w/build"]);
    assert_eq!(world.items("/api/v1/pipelines?workflow=w&labels=team=a,tier=fast").await, ["w/build"], "inherited");
    assert_eq!(world.items("/api/v1/pipelines?labels=team=b").await.len(), 0);
    assert_eq!(world.items("/api/v1/pipelines?phase=NotScheduled&pipeline=slow").await, ["v/slow", "w/slow"]);
    assert_eq!(world.items("/api/v1/pipelines?phase=Scheduled&limit=1").await, [""; 0]);
    let names = |ns: &[u128]| ns.iter().map(|n| run_name(*n).to_string()).collect::<Vec<_>>();
    assert_eq!(world.items("/api/v1/runs?limit=3").await, names(&[4, 3, 2]));
    assert_eq!(world.items(&format!("/api/v1/runs?after={}", run_name(2))).await, names(&[1, 0]));
    assert_eq!(world.items("/api/v1/runs?pipeline=w/build").await, names(&[4, 2, 0]));
    assert_eq!(world.items("/api/v1/runs?active=true&workflow=v").await, names(&[3, 1]));
    assert_eq!(world.items("/api/v1/runs?labels=tier=fast&phase=Success").await, names(&[4, 2, 0]));
    assert_eq!(world.items("/api/v1/runs?since=2099-01-01T00:00:00Z").await, [""; 0]);
    assert_eq!(world.items("/api/v1/events?regarding=workflow/w").await, ["3", "1"]);
    assert_eq!(world.items("/api/v1/events?after=3&limit=1").await, ["2"]);

    let (_, pipeline) = read(world.get("/api/v1/pipelines/w/build").await).await;
    assert_eq!((&pipeline["apiVersion"], &pipeline["kind"]), (&json!("xene/v1"), &json!("Pipeline")));
    assert_eq!(pipeline["metadata"], json!({"name": "w/build"}));
    assert_eq!(pipeline["status"]["phase"], "NotScheduled");
    assert_eq!(pipeline["status"]["lastRun"], json!({"name": run_name(4), "phase": "Success"}));
    assert_eq!(pipeline["status"]["webhook"], "/hooks/w/pipelines/build");
    let (_, run) = read(world.get(&format!("/api/v1/runs/{}", run_name(1))).await).await;
    assert_eq!(run["metadata"]["createdAt"], "1970-01-01T00:00:05.000Z");
    let (_, event) = read(world.get("/api/v1/events/2").await).await;
    assert_eq!((&event["kind"], &event["regarding"]), (&json!("Event"), &json!("source")));
    for object in [pipeline, run, event, read(world.get("/api/v1/workflows/w").await).await.1] {
        assert_no_nulls(&object);
    }
}

#[tokio::test]
async fn a_run_starts_with_checked_params_once_for_each_key() {
    let world = World::new();
    let body = json!({"workflow": "w", "pipeline": "slow", "params": {"level": 7}});
    let (status, run) = world.start(&[], &body).await;
    assert_eq!((status, &run["kind"], &run["spec"]["params"]), (201, &json!("Run"), &json!({"level": "7"})));
    assert_eq!(run["spec"]["trigger"], json!({"type": "manual", "by": "admin"}));

    let (status, problem) =
        world.start(&[], &json!({"workflow": "w", "pipeline": "slow", "params": {"level": "x"}})).await;
    assert_eq!((status, &problem["detail"]), (422, &json!("param level takes a whole number, not \"x\"")));
    for (body, expected) in [
        (json!({"workflow": "w", "pipeline": "absent"}), 404),
        (json!({"workflow": "w"}), 400),
        (json!({"workflow": "w", "pipeline": "slow", "extra": 1}), 400),
    ] {
        assert_eq!(world.start(&[], &body).await.0, expected, "{body}");
    }

    let key = [("idempotency-key", "k1")];
    let (first, second) = tokio::join!(world.start(&key, &body), world.start(&key, &body));
    assert_eq!((first.0, second.0), (201, 201));
    assert_eq!(first.1["metadata"]["name"], second.1["metadata"]["name"]);
    assert_eq!(world.asked.lock().unwrap().len(), 2, "one without a key, one for two with it");

    let path = format!("/api/v1/runs/{}/cancel", run_name(1));
    let (status, problem) = read(world.ask("POST", &path, &[("authorization", "Bearer s3cret")], "").await).await;
    assert_eq!((status, problem["detail"].as_str()), (409, Some(&*format!("run {} has ended", run_name(1)))));
}

#[tokio::test]
async fn webhooks_need_their_own_token_and_take_each_delivery_once() {
    let world = World::new();
    let (_, pipeline) = read(world.get("/api/v1/pipelines/w/slow").await).await;
    let token = pipeline["status"]["webhookToken"].as_str().unwrap();
    let bearer = format!("Bearer {token}");
    let before = world.store.revision().unwrap();
    for (path, headers) in [
        ("/hooks/w/pipelines/slow", vec![]),
        ("/hooks/w/pipelines/slow", vec![("x-xene-token", "wrong")]),
        ("/hooks/w/pipelines/build", vec![("x-xene-token", token)]),
        ("/hooks/w/pipelines/absent", vec![("x-xene-token", token)]),
        ("/hooks/w/triggers/absent", vec![("x-xene-token", token)]),
        ("/hooks/absent/triggers/push", vec![("x-xene-token", token)]),
    ] {
        let (status, problem) = read(world.ask("POST", path, &headers, "{}").await).await;
        assert_eq!((status, &problem["detail"]), (401, &json!("a valid hook token or signature is needed")), "{path}");
    }
    assert_eq!(world.store.revision().unwrap(), before, "nothing was written");

    let mut runs = HashSet::new();
    for (path, headers) in [
        ("/hooks/w/pipelines/slow", [("authorization", &*bearer), ("x-github-delivery", "d1")]),
        ("/hooks/w/pipelines/slow", [("x-xene-token", token), ("x-delivery-id", "d1")]),
        ("/hooks/w/triggers/push", [("x-xene-token", token), ("x-delivery-id", "d1")]),
        ("/hooks/w/triggers/push", [("authorization", "Bearer s3cret"), ("x-delivery-id", "d2")]),
    ] {
        let (status, answer) = read(world.ask("POST", path, &headers, "\0payload").await).await;
        assert_eq!(status, 202, "{path}: {answer}");
        let run: RunName = answer["run"].as_str().unwrap().parse().unwrap();
        assert!(world.store.run(run).unwrap().is_some(), "durable when answered");
        runs.insert(run);
    }
    assert_eq!(runs.len(), 2);
    let asked = world.asked.lock().unwrap();
    let [Command::StartRuns(by_pipeline), Command::StartRuns(by_trigger)] = &asked[..] else { panic!("{asked:?}") };
    let RunOrder { payload, trigger, .. } = &by_pipeline[0];
    assert_eq!((payload.as_deref(), trigger.name.as_ref()), (Some(&b"\0payload"[..]), None));
    assert_eq!(by_trigger[0].trigger.name.as_ref().map(|name| name.as_str()), Some("push"));
}

#[tokio::test]
async fn a_push_is_announced_by_token_or_signature_alone() {
    let world = World::new();
    let source = json!({"kind": "git", "url": "u", "branch": "main", "path": "", "workflows": 0, "ignored": 0,
                        "dirty": 0, "conditions": [], "problems": []});
    commit(&world.store, vec![Change::PutSource(Box::new(serde_json::from_value(source).unwrap()))]);
    let (_, source) = read(world.get("/api/v1/source").await).await;
    let path = source["status"]["webhook"].as_str().unwrap();
    let token = source["status"]["webhookToken"].as_str().unwrap();
    let signed = |body: &str| {
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, token.as_bytes());
        ring::hmac::sign(&key, body.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let push = r#"{"ref": "refs/heads/main", "after": "abc1"}"#;
    let (signature, foreign) = (signed(push), signed("another body"));
    let (github, forged) = (format!("sha256={signature}"), format!("sha256={foreign}"));
    for headers in [
        vec![],
        vec![("x-gitlab-token", "wrong")],
        vec![("x-hub-signature-256", &*forged)],
        vec![("x-hub-signature-256", "sha256=")],
        vec![("x-hub-signature-256", &*signature)],
        vec![("x-gitea-signature", &*foreign)],
        vec![("authorization", "Bearer wrong"), ("x-hub-signature-256", &*github)],
    ] {
        assert_eq!(world.ask("POST", path, &headers, push).await.status(), 401, "{headers:?}");
    }
    assert!(world.announced.lock().unwrap().is_empty());
    for (header, value) in [
        ("x-hub-signature-256", &*github),
        ("x-gitea-signature", &*signature),
        ("x-gitlab-token", token),
        ("x-xene-token", token),
        ("authorization", "Bearer s3cret"),
    ] {
        assert_eq!(world.ask("POST", path, &[(header, value)], push).await.status(), 202, "{header}");
        assert_eq!(world.announced.lock().unwrap().pop().unwrap().as_deref(), Some("abc1"), "{header}");
    }
    // Of another branch, of one that was deleted, or of a sender that says nothing: only that something changed.
    let gone = format!(r#"{{"ref": "refs/heads/main", "after": "{}"}}"#, "0".repeat(40));
    for body in [r#"{"ref": "refs/heads/x", "after": "abc1"}"#, &gone, "", "[]", "{\"ref\": 7}"] {
        assert_eq!(world.ask("POST", path, &[("x-xene-token", token)], body.to_owned()).await.status(), 202, "{body}");
        assert_eq!(world.announced.lock().unwrap().pop(), Some(None), "{body}");
    }
}

#[tokio::test]
async fn a_run_that_ended_is_started_again_once_for_each_key() {
    let world = World::new();
    let auth = ("authorization", "Bearer s3cret");
    let (_, run) = world.start(&[], &json!({"workflow": "w", "pipeline": "slow"})).await;
    let name = run["metadata"]["name"].as_str().unwrap().to_owned();
    let path = format!("/api/v1/runs/{name}/rerun");
    let spec_hash = world.store.run(name.parse().unwrap()).unwrap().unwrap().run.spec.spec_hash;
    assert_eq!(read(world.ask("POST", &path, &[auth], "").await).await.0, 410, "what it ran is not kept");
    commit(&world.store, vec![Change::PutSpec(spec_hash, b"{}".to_vec().into())]);
    let (status, again) = read(world.ask("POST", &path, &[auth, ("idempotency-key", "1")], "").await).await;
    assert_eq!((status, again["spec"]["pipeline"].as_str()), (201, Some("slow")), "{again}");
    let (_, same) = read(world.ask("POST", &path, &[auth, ("idempotency-key", "1")], "{}").await).await;
    assert_eq!(same["metadata"]["name"], again["metadata"]["name"]);
    let (_, other) = read(world.ask("POST", &path, &[auth], r#"{"force": true}"#).await).await;
    assert_ne!(other["metadata"]["name"], again["metadata"]["name"]);
    let asked = world.asked.lock().unwrap().clone();
    let [_, Command::Rerun(first), Command::Rerun(second)] = &asked[..] else { panic!("{asked:?}") };
    assert_eq!((first.original.run.metadata.name.to_string(), first.by.as_str()), (name, "admin"));
    assert_eq!((first.force, second.force, first.failed), (false, true, false));
    let (status, _) = read(world.ask("POST", "/api/v1/runs/nobody/rerun", &[auth], "").await).await;
    assert_eq!(status, 404);
}

#[tokio::test]
async fn what_is_suspended_by_command_is_shown_with_who_and_why() {
    let world = World::new();
    let auth = ("authorization", "Bearer s3cret");
    let post = async |path: &str, body: &str| read(world.ask("POST", path, &[auth], body.to_owned()).await).await;
    let (status, _) = post("/api/v1/workflows/w/suspend", r#"{"why": "we move", "for": "2h"}"#).await;
    assert_eq!(status, 200);
    assert_eq!(post("/api/v1/pipelines/w/build/resume", "").await.0, 200);
    let asked = world.asked.lock().unwrap().clone();
    let [Command::Suspend { what, suspension }, Command::Resume { what: resumed, by }] = &asked[..] else {
        panic!("{asked:?}")
    };
    assert_eq!(*what, Suspendable::Workflow("w".parse().unwrap()));
    assert_eq!((suspension.by.as_str(), suspension.why.as_deref()), ("admin", Some("we move")));
    let lasts = suspension.until.unwrap().duration_since(suspension.since);
    assert_eq!(lasts, jiff::SignedDuration::from_hours(2));
    assert_eq!((resumed, by.as_str()), (&Suspendable::Pipeline("w/build".parse().unwrap()), "admin"));

    let row = SuspensionRow { what: what.clone(), suspension: suspension.clone() };
    commit(&world.store, vec![Change::PutSuspension(row)]);
    let (_, workflow) = read(world.get("/api/v1/workflows/w").await).await;
    assert_eq!(
        (&workflow["status"]["phase"], &workflow["status"]["suspension"]["why"]),
        (&json!("Suspended"), &json!("we move"))
    );
    assert_eq!(world.items("/api/v1/workflows?phase=Suspended").await, ["w"]);
    let (_, pipeline) = read(world.get("/api/v1/pipelines/w/build").await).await;
    assert_eq!(pipeline["status"]["suspension"]["by"], "admin");

    for (path, body) in [
        ("/api/v1/workflows/w/suspend", r#"{"for": "0s"}"#),
        ("/api/v1/workflows/w/suspend", r#"{"until": "tomorrow"}"#),
        ("/api/v1/source/approve-prune", r#"{"commit": "abc"}"#),
    ] {
        assert_eq!(post(path, body).await.0, 400, "{path} {body}");
    }
    assert_eq!(post("/api/v1/workflows/-/suspend", "").await.0, 404);
}

#[tokio::test]
async fn a_join_token_is_shown_once_and_kept_as_a_hash() {
    let world = World::new();
    let auth = [("authorization", "Bearer s3cret")];
    let body = json!({"ttl": "10m", "uses": 2, "labels": {"zone": "a"}, "name": "box"}).to_string();
    let (status, answer) = read(world.ask("POST", "/api/v1/agents/tokens", &auth, body).await).await;
    assert_eq!(status, 201, "{answer}");
    let parts: Vec<_> = answer["token"].as_str().unwrap().split('.').collect();
    assert_eq!((parts.len(), parts[0], parts[1]), (4, "xene-join", &*"ab".repeat(32)));
    let asked = world.asked.lock().unwrap().clone();
    let [Command::CreateJoinToken(row)] = &asked[..] else { panic!("{asked:?}") };
    assert_eq!((row.uses_left, row.labels.is_some(), row.name.is_some()), (2, true, true));
    let JoinTokenRow { id, secret_hash, .. } = row;
    assert_eq!((id.as_str(), secret_hash.as_str()), (parts[2], &*blake3::hash(parts[3].as_bytes()).to_hex()));
    for refused in [
        r#"{"ttl": "0s"}"#,
        r#"{"ttl": "31d"}"#,
        r#"{"uses": 0}"#,
        r#"{"use": 1}"#,
        "nonsense",
        r#"{"labels": {"": "x"}}"#,
        r#"{"labels": {"a=b": "x"}}"#,
        r#"{"labels": {"a": "x,b=y"}}"#,
        r#"{"labels": {"a": "x\n"}}"#,
    ] {
        assert_eq!(world.ask("POST", "/api/v1/agents/tokens", &auth, refused).await.status(), 400, "{refused}");
    }
    assert_eq!(world.ask("POST", "/api/v1/agents/box/dance", &auth, "").await.status(), 404);
}

fn record(kind: RecordKind, step: u16, micros: u64, data: &[u8]) -> Vec<u8> {
    [&record_head(kind, step, micros, data.len())[..], data].concat()
}

fn a_log() -> Vec<u8> {
    [
        record(RecordKind::Step, 1, 0, br#"{"task": "a", "step": "one", "attempt": 1}"#),
        record(RecordKind::Step, 2, 0, br#"{"task": "b", "step": "two", "attempt": 2}"#),
        record(RecordKind::Stdout, 1, 1_000_000, b"hello\nwor"),
        record(RecordKind::Stderr, 1, 2_000_000, b"ld\n"),
        record(RecordKind::Stdout, 2, 3_000_000, b"\xff\xfe\nhalf"),
        record(RecordKind::Note, 0, 4_000_000, b"the agent stopped"),
    ]
    .concat()
}

#[tokio::test]
async fn logs_read_as_text_and_as_lines_of_json() {
    let world = World::new();
    let name = run_name(1);
    let run = row(&"w/build".parse().unwrap(), name, None, RunPhase::Success);
    commit(&world.store, vec![Change::PutRun(Box::new(run))]);
    world.logs.append(name, 0, a_log().into()).await.unwrap();
    let path = |query: &str| format!("/api/v1/runs/{name}/logs?{query}");
    let raw = world.get(&path("")).await;
    let raw = axum::body::to_bytes(raw.into_body(), usize::MAX).await.unwrap();
    assert_eq!(&raw[..], b"hello\nworld\n\xff\xfe\nhalf\nxene: the agent stopped\n");
    assert_eq!(text(world.get(&path("task=a")).await).await, "hello\nworld\n");
    assert_eq!(text(world.get(&path("step=two&tail=1")).await).await, "half");
    assert_eq!(text(world.get(&path("tail=2")).await).await, "half\nxene: the agent stopped\n");
    assert_eq!(
        text(world.get(&path("task=a&step=one&timestamps=true")).await).await,
        "1970-01-01T00:00:01.000Z hello\n1970-01-01T00:00:01.000Z world\n"
    );
    let lines = text(world.get(&path("format=ndjson")).await).await;
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let line = |second: u32, task: &str, step: &str, attempt: u32, stream: &str, text: &str| {
        json!({"time": format!("1970-01-01T00:00:0{second}.000Z"), "task": task, "step": step, "attempt": attempt,
               "stream": stream, "text": text})
    };
    assert_eq!(
        lines,
        [
            line(1, "a", "one", 1, "stdout", "hello\n"),
            line(1, "a", "one", 1, "stdout", "wor"),
            line(2, "a", "one", 1, "stderr", "ld\n"),
            json!({"time": "1970-01-01T00:00:03.000Z", "task": "b", "step": "two", "attempt": 2, "stream": "stdout",
               "base64": "//4K"}),
            line(3, "b", "two", 2, "stdout", "half"),
            json!({"time": "1970-01-01T00:00:04.000Z", "stream": "note", "text": "the agent stopped"}),
        ]
    );
    for (query, status) in [("format=xml", 400), ("tail=-1", 400), ("lines=1", 400)] {
        assert_eq!(world.get(&path(query)).await.status(), status, "{query}");
    }
    assert_eq!(world.get(&format!("/api/v1/runs/{}/logs", run_name(9))).await.status(), 404);
}

#[tokio::test]
async fn artifacts_are_listed_and_given_as_attachments_without_rights() {
    let world = World::new();
    let name = run_name(1);
    let mut run = row(&"w/build".parse().unwrap(), name, None, RunPhase::Success);
    let hash = world.files.keep(b"<script>alert(1)</script>").unwrap();
    let late = FileHash::of(b"late");
    let task = json!({"phase": "Success", "steps": [], "artifacts": [
        {"path": "out/page one.html", "size": 25, "hash": hash.to_string()},
        {"path": "late", "size": 4, "hash": late.to_string()}]});
    run.run.status.tasks.insert("t[os=linux]".into(), serde_json::from_value(task).unwrap());
    commit(&world.store, vec![Change::PutRun(Box::new(run))]);
    let base = format!("/api/v1/runs/{name}/artifacts");
    let list: Value = serde_json::from_str(&text(world.get(&base).await).await).unwrap();
    assert_eq!(list["items"][0]["path"], "out/page one.html");
    assert_eq!(list["items"][0]["task"], "t[os=linux]");
    assert_eq!((&list["items"][0]["pending"], &list["items"][1]["pending"]), (&Value::Null, &json!(true)));
    let answer = world.get(&format!("{base}/t%5Bos%3Dlinux%5D/out/page%20one.html")).await;
    assert_eq!(answer.status(), 200);
    let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
    assert_eq!(header("content-disposition"), "attachment; filename*=UTF-8''page%20one.html");
    assert_eq!(header("content-type"), "application/octet-stream");
    assert_eq!(header("x-content-type-options"), "nosniff");
    assert_eq!(header("content-security-policy"), "sandbox; default-src 'none'");
    assert_eq!(header("content-length"), "25");
    assert_eq!(text(answer).await, "<script>alert(1)</script>");
    assert_eq!(world.get(&format!("{base}/t%5Bos%3Dlinux%5D/late")).await.status(), 409, "still on its way");
    for absent in ["t/late", "t%5Bos%3Dlinux%5D/..%2F..%2Fadmin.token", "t%5Bos%3Dlinux%5D/%2Fetc%2Fpasswd"] {
        assert_eq!(world.get(&format!("{base}/{absent}")).await.status(), 404, "{absent}");
    }
    assert_eq!(world.get(&format!("/api/v1/runs/{}/artifacts", run_name(9))).await.status(), 404);
}

#[tokio::test]
async fn a_followed_log_comes_line_by_line_and_ends_with_its_run() {
    let world = World::new();
    let name = run_name(1);
    let run = row(&"w/build".parse().unwrap(), name, None, RunPhase::Running);
    commit(&world.store, vec![Change::PutRun(Box::new(run))]);
    let mut body = world.get(&format!("/api/v1/runs/{name}/logs?follow=true")).await.into_body();
    let mut offset = 0;
    for line in ["one\n", "two\n"] {
        let bytes = record(RecordKind::Stdout, 1, 0, line.as_bytes());
        // Cut in the middle of a record: nothing is printed before it is whole.
        let (first, second) = bytes.split_at(9);
        world.logs.append(name, offset, first.to_vec().into()).await.unwrap();
        offset = world.logs.append(name, offset + 9, second.to_vec().into()).await.unwrap();
        assert_eq!(chunk(&mut body).await.unwrap(), line);
    }
    world.logs.append(name, offset, record(RecordKind::End, 0, 0, b"").into()).await.unwrap();
    assert_eq!(chunk(&mut body).await, None);
}

#[tokio::test]
async fn watchers_see_what_is_committed_and_end_with_the_process() {
    let world = World::new();
    let response = world.ask(
        "GET",
        "/api/v1/watch?kinds=run,pipelines",
        &[("authorization", "Bearer s3cret"), ("last-event-id", "x")],
        "",
    );
    let mut body = response.await.into_body();
    let hello = chunk(&mut body).await.unwrap();
    assert_eq!(hello, ": changes from here on\n\nevent: resync\ndata: {\"revision\":1}\nid: 1\n\n");
    let run = row(&"w/build".parse().unwrap(), run_name(1), None, RunPhase::Running);
    commit(
        &world.store,
        vec![
            Change::DeleteWorkflow("w".parse().unwrap()),
            Change::PutRun(Box::new(run)),
            Change::DeletePipeline("w/build".parse().unwrap()),
        ],
    );
    let seen = String::from_utf8(chunk(&mut body).await.unwrap().to_vec()).unwrap();
    let [run, pipeline] = seen.trim_end().split("\n\n").collect::<Vec<_>>()[..] else { panic!("{seen}") };
    let data = run.strip_prefix("event: run\ndata: ").unwrap();
    let object: Value = serde_json::from_str(data).unwrap();
    assert_eq!((&object["kind"], &object["metadata"]["name"]), (&json!("Run"), &json!(run_name(1))));
    assert_eq!(pipeline, "event: pipeline\ndata: {\"deleted\":\"w/build\"}\nid: 2");
    world.stop.send(true).unwrap();
    assert_eq!(chunk(&mut body).await, None);
    assert_eq!(world.get("/api/v1/watch?kinds=cats").await.status(), 400);
}

#[tokio::test]
async fn serves_a_socket_until_told_to_stop() {
    let world = World::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(serve(listener, None, world.router.clone(), world.stop.subscribe()));
    let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
    client.write_all(format!("GET /healthz HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = [0; 15];
    client.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
    for beginning in ["", "PRI * HT", "GET / HT", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let mut silent = tokio::net::TcpStream::connect(address).await.unwrap();
        silent.write_all(beginning.as_bytes()).await.unwrap();
        // Closed, or reset if it had sent what nobody read.
        let closed = timeout(DEADLINE, silent.read_to_end(&mut Vec::new())).await;
        assert!(closed.is_ok(), "who says {beginning:?} and no more is waited for");
    }
    world.stop.send(true).unwrap();
    timeout(DEADLINE, server).await.unwrap().unwrap().unwrap();
    let mut rest = Vec::new();
    timeout(DEADLINE, client.read_to_end(&mut rest)).await.unwrap().unwrap();
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}
