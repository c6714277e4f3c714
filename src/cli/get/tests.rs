use expect_test::{Expect, expect};
use serde_json::json;

use super::*;
use crate::cli::{
    fake::{Fake, Reply},
    fixtures,
    output::testing,
};

fn args(line: &str) -> Args {
    use clap::Parser;
    let line = format!("xene get {line}");
    match crate::cli::Cli::try_parse_from(line.split(' ')).unwrap().command {
        crate::cli::Command::Get(args) => args,
        other => panic!("{other:?}"),
    }
}

fn items(kind: Kind) -> Vec<Value> {
    match kind {
        Kind::Workflows => vec![fixtures::workflow()],
        Kind::Pipelines => fixtures::pipelines(),
        Kind::Runs => fixtures::runs(),
        Kind::Agents => fixtures::agents(),
        Kind::Notifiers => fixtures::notifiers(),
        Kind::Events => fixtures::events(),
    }
}

fn check(line: &str, format: Format, expected: &Expect) {
    let args = args(line);
    let list = fixtures::list(&items(args.kind));
    let fake = Fake::start(move |_, _| Reply::Json(200, list.clone()));
    let (mut ui, out, _) = testing::ui(format);
    run(&args, &fake.client(), &mut ui).unwrap();
    expected.assert_eq(&out.text());
}

#[test]
fn tables_show_what_matters() {
    check(
        "workflows",
        Format::Table,
        &expect![[r#"
        NAME   PHASE     PIPELINES   REVISION   FILE                 MESSAGE
        site   Invalid   2           1a2b3c4    xene.d/site.yaml:1   xene.d/site.yaml:9:3: unknown field `step`
    "#]],
    );
    check(
        "pl",
        Format::Table,
        &expect![[r#"
            NAME          PHASE          REASON            AGENT     NEXT     LAST RUN   WHEN
            site/build    Scheduled                        agent-1   in 42s   Success    3m ago
            site/deploy   NotScheduled   NoMatchingAgent   -         -        -          -
        "#]],
    );
    check(
        "runs",
        Format::Table,
        &expect![[r#"
        NAME                         PIPELINE     PHASE        REASON       TRIGGER        AGENT     AGE   TOOK
        01m8991xq0000000000000000a   site/build   Error        TaskFailed   cron nightly   agent-1   3m    1m05s
        01m89973qg000000000000000b   site/build   StartingUp   Queued       manual         -         10s   -
    "#]],
    );
    check(
        "agents",
        Format::Table,
        &expect![[r#"
        NAME      PHASE          BUSY   PIPELINES   SEEN     VERSION   MESSAGE
        agent-1   Connected      1/4    1           2s ago   0.1.0
        agent-2   Disconnected   0/2    0           3h ago   0.1.0     its clock is 61 s late
    "#]],
    );
    check(
        "notifiers",
        Format::Table,
        &expect![[r#"
        NAME      PHASE     TO                              WAITING   DELIVERED   LAST     ERROR
        commits   Ready     commitStatus github acme/site   0         12          1m ago
        team      Failing   slack chat                      3         0           -        404 was answered: no_service\x1b[2J
    "#]],
    );
    check(
        "events",
        Format::Table,
        &expect![[r#"
        AGE   TYPE      REASON      REGARDING                        MESSAGE
        1m    Warning   RunFailed   run/01m8991xq0000000000000000a   task compile ended in Error
        4h    Normal    Scheduled   pipeline/site/build              agent-1 owns it\x1b[2J
    "#]],
    );
}

#[test]
fn wide_tables_show_more() {
    check(
        "notifiers",
        Format::Wide,
        &expect![[r#"
        NAME      PHASE     TO                              WAITING   DELIVERED   LAST     LOST   ON                 FILE                   LABELS     ERROR
        commits   Ready     commitStatus github acme/site   0         12          1m ago   0                         xene.d/notify.yaml:1
        team      Failing   slack chat                      3         0           -        1      Broken,Recovered   xene.d/notify.yaml:1   team=web   404 was answered: no_service\x1b[2J
    "#]],
    );
    check(
        "wf",
        Format::Wide,
        &expect![[r#"
        NAME   PHASE     PIPELINES   REVISION   FILE                 GENERATION   SPEC           LABELS     MESSAGE
        site   Invalid   2           1a2b3c4    xene.d/site.yaml:1   3            abababababab   team=web   xene.d/site.yaml:9:3: unknown field `step`
    "#]],
    );
    check(
        "pipelines",
        Format::Wide,
        &expect![[r#"
            NAME          PHASE          REASON            AGENT     NEXT     LAST RUN   WHEN     RUN                          REVISION   EPOCH        MESSAGE
            site/build    Scheduled                        agent-1   in 42s   Success    3m ago   01m8991xq0000000000000000a   1a2b3c4    1800000001   the least loaded of 2 agents
            site/deploy   NotScheduled   NoMatchingAgent   -         -        -          -        -                            1a2b3c4    -            no agent has the label zone=dmz
        "#]],
    );
    check(
        "run",
        Format::Wide,
        &expect![[r#"
        NAME                         PIPELINE     PHASE        REASON       TRIGGER        AGENT     AGE   TOOK    REVISION   TASKS   DUE                        BY      WARNINGS   MESSAGE
        01m8991xq0000000000000000a   site/build   Error        TaskFailed   cron nightly   agent-1   3m    1m05s   1a2b3c4    1/2     2026-11-25T11:57:00.000Z           1          task compile ended in Error
        01m89973qg000000000000000b   site/build   StartingUp   Queued       manual         -         10s   -       1a2b3c4    0/0                                admin
    "#]],
    );
    check(
        "agent",
        Format::Wide,
        &expect![[r#"
            NAME      PHASE          BUSY   PIPELINES   SEEN     VERSION   ADDRESS          TRANSPORT   LEASE   LABELS                             MESSAGE
            agent-1   Connected      1/4    1           2s ago   0.1.0     10.0.0.7:40112   -           in 4m   os=linux,arch=x86_64,hostname=a1
            agent-2   Disconnected   0/2    0           3h ago   0.1.0     -                -           -       os=linux                           its clock is 61 s late
        "#]],
    );
    check(
        "event",
        Format::Wide,
        &expect![[r#"
        AGE   TYPE      REASON      REGARDING                        MESSAGE                       AT                         ID
        1m    Warning   RunFailed   run/01m8991xq0000000000000000a   task compile ended in Error   2026-11-25T11:58:06.500Z   42
        4h    Normal    Scheduled   pipeline/site/build              agent-1 owns it\x1b[2J        2026-11-25T08:00:00.000Z   41
    "#]],
    );
}

#[test]
fn names_are_what_other_commands_take() {
    check(
        "pipelines",
        Format::Name,
        &expect![[r#"
        pipeline/site/build
        pipeline/site/deploy
    "#]],
    );
    check(
        "events",
        Format::Name,
        &expect![[r#"
        event/42
        event/41
    "#]],
    );
}

#[test]
fn json_and_yaml_are_what_the_api_gave() {
    for format in [Format::Json, Format::Yaml] {
        let list = fixtures::list(&fixtures::runs());
        let answer = list.clone();
        let fake = Fake::start(move |_, _| Reply::Json(200, answer.clone()));
        let (mut ui, out, _) = testing::ui(format);
        run(&args("runs --limit 2"), &fake.client(), &mut ui).unwrap();
        let printed: Value = match format {
            Format::Yaml => serde_yaml::from_str(&out.text()).unwrap(),
            _ => serde_json::from_str(&out.text()).unwrap(),
        };
        assert_eq!(printed, list);
        assert_eq!(printed.to_string(), list.to_string(), "also in its order");
    }
}

#[test]
fn filters_are_asked_for() {
    let fake = Fake::start(|request, _| match request.path() {
        "/api/v1/runs" => Reply::Json(200, fixtures::list(&[])),
        _ => Reply::Json(404, Value::Null),
    });
    let (mut ui, out, err) = testing::ui(Format::Table);
    run(&args("runs --pipeline site/build --phase Error -l a=b -l c=d"), &fake.client(), &mut ui).unwrap();
    assert_eq!(run(&args("run x"), &fake.client(), &mut ui).unwrap_err().status(), 4);
    let targets: Vec<_> = fake.requests().into_iter().map(|request| request.target).collect();
    assert_eq!(
        targets,
        ["/api/v1/runs?workflow=site&pipeline=build&phase=Error&labels=a%3Db%2Cc%3Dd&limit=50", "/api/v1/runs/x",]
    );
    assert_eq!((out.text().as_str(), err.text().as_str()), ("", "no runs\n"));
}

#[test]
fn watch_asks_for_labels_that_objects_do_not_show() {
    let event = |data: &Value| format!("event: run\ndata: {data}\n\n").into_bytes();
    let fake = Fake::start(move |request, before| match request.path() {
        "/api/v1/watch" if before == 0 => {
            let run = |workflow: &str, name: &str| {
                let mut run = fixtures::runs()[1].clone();
                (run["spec"]["workflow"], run["metadata"]["name"]) = (json!(workflow), json!(name));
                event(&run)
            };
            let [other, site] = ["01m89973qg000000000000000c", "01m89973qg000000000000000d"];
            Reply::Stream(vec![run("other", other), run("site", site)], true)
        }
        "/api/v1/watch" => Reply::Json(401, json!({"detail": "enough"})),
        "/api/v1/pipelines"
            if request.target.contains("workflow=site") && request.target.contains("labels=team%3Ddata") =>
        {
            Reply::Json(200, fixtures::list(&[json!({"kind": "Pipeline"})]))
        }
        _ => Reply::Json(200, fixtures::list(&[])),
    });
    let (mut ui, out, _) = testing::ui(Format::Name);
    assert_eq!(run(&args("runs --watch -l team=data"), &fake.client(), &mut ui).unwrap_err().status(), 5);
    assert_eq!(out.text(), "run/01m89973qg000000000000000d\n");
}

#[test]
fn watch_asks_whose_an_event_is() {
    let fake = Fake::start(move |request, before| match request.path() {
        "/api/v1/watch" if before == 0 => {
            let event = |data: &Value| format!("event: event\ndata: {data}\n\n").into_bytes();
            Reply::Stream(fixtures::events().iter().map(event).collect(), true)
        }
        "/api/v1/watch" => Reply::Json(401, json!({"detail": "enough"})),
        // The run's row says that it is of the pipeline; the other event is about another one.
        _ if request.target.contains("regarding=run%2F") => Reply::Json(200, fixtures::list(&fixtures::events()[..1])),
        _ => Reply::Json(200, fixtures::list(&[])),
    });
    let (mut ui, out, _) = testing::ui(Format::Name);
    assert_eq!(run(&args("events --watch --pipeline site/test"), &fake.client(), &mut ui).unwrap_err().status(), 5);
    assert_eq!(out.text(), "event/42\n");
    let targets: Vec<_> = fake.requests().into_iter().map(|request| request.target).collect();
    assert!(
        targets.iter().any(|target| target == "/api/v1/events?workflow=site&pipeline=test&limit=50"),
        "{targets:?}"
    );
    let asked = "/api/v1/events?workflow=site&pipeline=test&regarding=pipeline%2Fsite%2Fbuild&limit=1";
    assert!(targets.iter().any(|target| target == asked), "{targets:?}");
}

#[test]
fn watch_prints_each_change_once() {
    let event = |kind: &str, data: &Value| format!("event: {kind}\ndata: {data}\n\n").into_bytes();
    let fake = Fake::start(move |request, before| match request.path() {
        "/api/v1/watch" if before == 0 => {
            let mut ended = fixtures::runs()[1].clone();
            ended["status"]["phase"] = json!("Success");
            let mut other = ended.clone();
            other["spec"]["workflow"] = json!("other");
            other["metadata"]["name"] = json!("01m89973qg000000000000000c");
            let gone = json!({"deleted": "01m8991xq0000000000000000a"});
            let events =
                [event("run", &fixtures::runs()[1]), event("run", &other), event("run", &ended), event("run", &gone)];
            Reply::Stream(events.to_vec(), true)
        }
        // Ends the test: a watch has no other end.
        "/api/v1/watch" => Reply::Json(401, json!({"detail": "enough"})),
        _ => Reply::Json(200, fixtures::list(&fixtures::runs())),
    });
    let (mut ui, out, err) = testing::ui(Format::Table);
    assert_eq!(run(&args("runs --watch --workflow site"), &fake.client(), &mut ui).unwrap_err().status(), 5);
    expect![[r#"
        NAME                         PIPELINE     PHASE        REASON       TRIGGER        AGENT     AGE   TOOK
        01m8991xq0000000000000000a   site/build   Error        TaskFailed   cron nightly   agent-1   3m    1m05s
        01m89973qg000000000000000b   site/build   StartingUp   Queued       manual         -         10s   -
        01m89973qg000000000000000b   site/build   Success      Queued       manual         -         10s   -
    "#]]
    .assert_eq(&out.text());
    assert_eq!(err.text(), "run 01m8991xq0000000000000000a is gone\n");
}
