//! What is told of a run, and that a collector gets it whatever happens in between.

use std::{
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
};

use axum::{Router, body::Bytes, extract::State, http::HeaderMap, routing::post};
use expect_test::expect;
use tokio::{net::TcpListener, sync::watch, time::timeout};
use xene_schemas::{
    meta::{AgentName, Epoch},
    run::{StepStatus, TaskStatus},
};

use super::{
    export::{Exporter, Settings},
    *,
};
use crate::{
    decide::rows::{Change, RunRow},
    store::Store,
};

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(millis).unwrap()
}

fn run(n: u128) -> Run {
    let spec = serde_json::from_value(json!({
        "workflow": "w", "pipeline": "build", "trigger": {"type": "manual"}, "params": {"secret": "s3cret"},
        "revision": "r1", "specHash": "00".repeat(32),
    }));
    let mut run = Run::new(RunName::new(at(1_000), n), at(1_000), spec.unwrap());
    let status = &mut run.status;
    status.agent = Some("oak".parse::<AgentName>().unwrap());
    status.epoch = Some(Epoch(7));
    status.phase = RunPhase::Error;
    status.message = Some("task a failed".to_owned());
    status.started_at = Some(at(1_500));
    status.finished_at = Some(at(9_000));
    let step = |name: &str, from, to| StepStatus {
        name: name.to_owned(),
        phase: StepPhase::Error,
        reason: None,
        message: Some("exit status 3".to_owned()),
        exit_code: Some(3),
        signal: None,
        started_at: Some(at(from)),
        finished_at: to,
    };
    let task = |steps: Vec<StepStatus>, started_at| TaskStatus {
        phase: TaskPhase::Error,
        reason: None,
        message: None,
        started_at,
        finished_at: Some(at(8_000)),
        attempt: 2,
        outputs: indexmap::IndexMap::new(),
        artifacts: vec![],
        dependencies: vec![],
        finally: false,
        approval: None,
        steps,
    };
    // A step whose end nobody told ends with its run.
    let steps = vec![step("one", 2_000, Some(at(3_000))), step("two", 3_000, None)];
    status.tasks = [("a".to_owned(), task(steps, Some(at(2_000)))), ("never".to_owned(), task(vec![], None))].into();
    run
}

#[test]
fn a_run_is_its_wait_its_tasks_and_their_steps() {
    let mut text = String::new();
    let spans = of_run(&run(1));
    for span in &spans {
        let depth = spans.iter().position(|other| Some(other.id) == span.parent);
        let took = span.end.duration_since(span.start).as_millis();
        writeln!(text, "{depth:?} {} {took} ms {:?}", span.name, span.error).unwrap();
    }
    expect![[r#"
        None run w/build 8000 ms Some("task a failed")
        Some(0) wait 500 ms None
        Some(0) task a 6000 ms Some("")
        Some(2) step one 1000 ms Some("exit status 3")
        Some(2) step two 6000 ms Some("exit status 3")
    "#]]
    .assert_eq(&text);
    let told = request(&spans).to_string();
    assert!(!told.contains("s3cret"), "values of params stay here");
    let ids: std::collections::BTreeSet<_> = spans.iter().map(|span| span.id).collect();
    assert_eq!(ids.len(), spans.len());
    assert!(spans.iter().all(|span| span.trace == RunName::new(at(1_000), 1).to_bytes()));
}

#[test]
fn the_first_span_is_told_as_otlp_has_it() {
    let told = request(&of_run(&run(1))[..1]);
    let span = &told["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
    let [(trace, root)] = [of_revision(&Revision("r1".to_owned()))];
    assert_eq!(span["links"], json!([{"traceId": hex(&trace), "spanId": hex(&root)}]));
    assert_eq!(span["traceId"], "0000000003e800000000000000000001");
    assert_eq!((&span["startTimeUnixNano"], &span["endTimeUnixNano"]), (&json!("1000000000"), &json!("9000000000")));
    assert_eq!(span["status"], json!({"code": 2, "message": "task a failed"}));
    let attributes = span["attributes"].as_array().unwrap();
    assert!(attributes.contains(&json!({"key": "xene.agent", "value": {"stringValue": "oak"}})));
    assert!(attributes.contains(&json!({"key": "xene.epoch", "value": {"intValue": "7"}})));
    let service = &told["resourceSpans"][0]["resource"]["attributes"][0];
    assert_eq!(*service, json!({"key": "service.name", "value": {"stringValue": "xene"}}));
}

#[test]
fn a_commit_is_what_it_took_until_it_was_in_effect() {
    let source = serde_json::from_value::<SourceStatus>(json!({
        "kind": "git", "url": "/srv/flows", "branch": "main", "path": "", "revision": "r1",
        "observedAt": "1970-01-01T00:00:01.000Z", "syncedAt": "1970-01-01T00:00:03.000Z",
        "workflows": 1, "ignored": 0, "dirty": 0, "conditions": [], "problems": [],
    }));
    let spans = of_commit(&source.unwrap(), at(3_200));
    let told: Vec<_> = spans.iter().map(|s| (s.name.as_str(), s.end.duration_since(s.start).as_millis())).collect();
    assert_eq!(told, [("commit", 2_200), ("reconcile", 200)]);
    assert_eq!(spans[1].parent, Some(spans[0].id));
    assert_eq!((spans[0].trace, spans[0].id), of_revision(&Revision("r1".to_owned())));
}

/// A collector that answers `status` and keeps what it took.
#[derive(Clone)]
struct Collector {
    status: Arc<AtomicU16>,
    /// How often it was asked, and the names of the spans that it took.
    heard: watch::Sender<(usize, Vec<String>)>,
}

async fn take(State(collector): State<Collector>, headers: HeaderMap, body: Bytes) -> axum::http::StatusCode {
    let status = collector.status.load(Ordering::SeqCst);
    let mut names = Vec::new();
    if status == 200 {
        assert_eq!(
            (&headers["content-type"], &headers["x-team"]),
            (&"application/json".parse().unwrap(), &"a b".parse().unwrap())
        );
        let body: Value = serde_json::from_slice(&body).unwrap();
        let spans = body["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap().clone();
        names.extend(spans.iter().map(|span| span["name"].as_str().unwrap().to_owned()));
    }
    collector.heard.send_modify(|(asked, taken)| {
        *asked += 1;
        taken.extend(names);
    });
    axum::http::StatusCode::from_u16(status).unwrap()
}

fn commit(store: &Store, change: Change) {
    let (done, wait) = std::sync::mpsc::channel();
    store.commit(vec![change], move |result| done.send(result).unwrap());
    wait.recv().unwrap().unwrap();
}

impl Collector {
    async fn until(&self, what: &str, holds: impl Fn(usize, usize) -> bool) {
        let mut heard = self.heard.subscribe();
        let waits = heard.wait_for(|(asked, taken)| holds(*asked, taken.len()));
        let came = timeout(std::time::Duration::from_secs(30), waits).await;
        assert!(came.is_ok_and(|heard| heard.is_ok()), "{what}");
    }

    fn taken(&self) -> usize {
        self.heard.borrow().1.len()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_was_away_gets_what_it_missed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let collector = Collector { status: Arc::new(AtomicU16::new(503)), heard: watch::Sender::default() };
    let router = Router::new().route("/v1/traces", post(take)).with_state(collector.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });

    let folder = tempfile::tempdir().unwrap();
    let headers = folder.path().join("headers");
    std::fs::write(&headers, "X-Team: a b\n").unwrap();
    let store = Store::open(folder.path()).unwrap();
    let settings = Settings { endpoint, headers: Some(headers), ca: None };
    let exporter = Exporter::new(settings, None, []).unwrap();
    let (stop, stopping) = watch::channel(false);
    let exporting = tokio::spawn(exporter.run(store.committed().subscribe(), stopping));

    commit(&store, Change::PutRun(Box::new(RunRow::new(run(1), true))));
    collector.until("it is tried again", |asked, _| asked >= 2).await;
    assert_eq!(collector.taken(), 0);
    collector.status.store(200, Ordering::SeqCst);
    collector.until("what it missed comes", |_, taken| taken == 5).await;

    // A row that is written again tells nothing new; what waits at the end still goes.
    commit(&store, Change::PutRun(Box::new(RunRow::new(run(1), true))));
    commit(&store, Change::PutRun(Box::new(RunRow::new(run(2), true))));
    let mut more = run(3);
    more.status.phase = RunPhase::Running;
    commit(&store, Change::PutRun(Box::new(RunRow::new(more, true))));
    collector.until("the second comes", |_, taken| taken == 10).await;
    // What is refused for good is not sent again.
    collector.status.store(400, Ordering::SeqCst);
    let before = collector.heard.borrow().0;
    commit(&store, Change::PutRun(Box::new(RunRow::new(run(4), true))));
    collector.until("it is refused", |asked, _| asked > before).await;
    collector.status.store(200, Ordering::SeqCst);
    commit(&store, Change::PutRun(Box::new(RunRow::new(run(5), true))));
    collector.until("the next comes", |_, taken| taken == 15).await;
    stop.send_replace(true);
    timeout(std::time::Duration::from_secs(30), exporting).await.unwrap().unwrap();
    assert_eq!(collector.taken(), 15);
}
