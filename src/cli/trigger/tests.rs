use serde_json::json;

use super::*;
use crate::cli::{
    fake::{Fake, Reply, Request},
    output::testing,
};

const NAME: &str = "01ka0000000000000000000001";

fn a_run(phase: &str) -> Value {
    json!({
        "metadata": {"name": NAME, "createdAt": "2026-11-25T11:59:00.000Z"},
        "spec": {"workflow": "w", "pipeline": "p", "trigger": {"type": "manual"}, "revision": "abc",
                 "specHash": "00".repeat(32)},
        "status": {"phase": phase, "tasks": {}}
    })
}

fn args(line: &str) -> Args {
    use clap::Parser;
    let line = format!("xene trigger {line}");
    match crate::cli::Cli::try_parse_from(line.split(' ')).unwrap().command {
        crate::cli::Command::Trigger(args) => args,
        other => panic!("{other:?}"),
    }
}

fn event(run: &Value) -> Vec<u8> {
    format!("id: 7\nevent: run\ndata: {run}\n\n").into_bytes()
}

/// A controller whose run is Running when asked, and ends as `end` by an event.
fn controller(end: &'static str) -> Fake {
    Fake::start(move |request: &Request, _| match (request.method.as_str(), request.path()) {
        ("POST", _) => Reply::Json(201, a_run("StartingUp")),
        (_, "/api/v1/watch") => {
            let mut other = a_run("Error");
            other["metadata"]["name"] = json!("01ka0000000000000000000002");
            Reply::Stream(vec![b": hi\n\n".to_vec(), event(&other), event(&a_run(end))], true)
        }
        (_, path) if path.ends_with("/logs") => {
            let line = |text| format!("{}\n", json!({"task": "t", "step": "s", "stream": "stdout", "text": text}));
            Reply::Stream(vec![line("one").into_bytes(), line("two").into_bytes()], true)
        }
        _ => Reply::Json(200, a_run("Running")),
    })
}

#[test]
fn only_the_name_is_printed() {
    let (mut ui, out, err) = testing::ui(Format::Table);
    let fake = controller("Success");
    run(&args("w/p -p who=me -p empty= --force --idempotency-key k1"), &fake.client(), &mut ui).unwrap();
    assert_eq!((out.text(), err.text()), (format!("{NAME}\n"), String::new()));
    let request = &fake.requests()[0];
    assert_eq!(request.target, "/api/v1/runs");
    assert_eq!(
        request.body,
        json!({"workflow": "w", "pipeline": "p", "params": {"who": "me", "empty": ""}, "force": true})
    );
    assert_eq!(request.header("idempotency-key"), Some("k1"));
}

#[test]
fn wait_ends_as_the_run_does() {
    let (mut ui, out, _) = testing::ui(Format::Table);
    run(&args("w/p --wait"), &controller("Success").client(), &mut ui).unwrap();
    assert_eq!(out.text(), format!("{NAME}\n"));
    let error = run(&args("w/p --wait"), &controller("Error").client(), &mut ui).unwrap_err();
    assert_eq!(error.status(), 1);
    assert_eq!(error.to_string(), format!("run {NAME} ended in Error"));
}

#[test]
fn wait_sees_an_end_that_came_before_the_watch() {
    let fake = Fake::start(|request, _| match (request.method.as_str(), request.path()) {
        ("POST", _) => Reply::Json(201, a_run("StartingUp")),
        (_, "/api/v1/watch") => Reply::Stream(vec![], false),
        _ => Reply::Json(200, a_run("Success")),
    });
    let (mut ui, _, _) = testing::ui(Format::Table);
    run(&args("w/p --wait"), &fake.client(), &mut ui).unwrap();
}

#[test]
fn wait_outlives_a_broken_watch_and_asks_for_what_it_missed() {
    let fake = Fake::start(|request, before| match (request.method.as_str(), request.path()) {
        ("POST", _) => Reply::Json(201, a_run("StartingUp")),
        (_, "/api/v1/watch") if request.header("last-event-id").is_none() => {
            Reply::Stream(vec![event(&a_run("Running")), b"id: 8\nevent: run\nda".to_vec()], false)
        }
        (_, "/api/v1/watch") => Reply::Stream(vec![event(&a_run("Success"))], true),
        // Each look comes before the event that ends it.
        _ => Reply::Json(200, a_run(if before > 20 { "Error" } else { "Running" })),
    });
    let (mut ui, _, _) = testing::ui(Format::Table);
    run(&args("w/p --wait"), &fake.client(), &mut ui).unwrap();
    let watches: Vec<_> = fake.requests().into_iter().filter(|request| request.path() == "/api/v1/watch").collect();
    assert_eq!(watches[1].header("last-event-id"), Some("7"));
}

#[test]
fn follow_prints_output_by_line_where_there_is_no_terminal() {
    let (mut ui, out, err) = testing::ui(Format::Table);
    run(&args("w/p --follow"), &controller("Success").client(), &mut ui).unwrap();
    assert_eq!(out.text(), format!("{NAME}\n"));
    assert_eq!(err.text(), "t/s | one\nt/s | two\n");
}

#[test]
fn with_json_the_run_as_it_ended_is_the_result() {
    let (mut ui, out, _) = testing::ui(Format::Json);
    run(&args("w/p --wait"), &controller("Success").client(), &mut ui).unwrap();
    let printed: Value = serde_json::from_str(&out.text()).unwrap();
    assert_eq!(printed["metadata"]["name"], NAME);
}

#[test]
fn what_is_no_pipeline_is_refused_here() {
    let (mut ui, _, _) = testing::ui(Format::Table);
    let fake = controller("Success");
    assert_eq!(run(&args("w"), &fake.client(), &mut ui).unwrap_err().status(), 2);
    assert!(fake.requests().is_empty());
}
