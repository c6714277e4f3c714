use expect_test::{Expect, expect};
use serde_json::json;

use super::*;
use crate::cli::{
    fake::{Fake, Reply},
    fixtures,
    output::{Format, testing},
};

fn check(kind: Kind, name: &str, expected: &Expect) {
    expected.assert_eq(&page(kind, name));
}

fn page(kind: Kind, name: &str) -> String {
    let fake = Fake::start(|request, _| {
        let list = |items: &[Value]| Reply::Json(200, fixtures::list(items));
        match request.path() {
            "/api/v1/workflows/site" => Reply::Json(200, fixtures::workflow()),
            "/api/v1/pipelines/site/build" => Reply::Json(200, fixtures::pipelines()[0].clone()),
            "/api/v1/pipelines/site/hooked" => Reply::Json(200, hooked()),
            "/api/v1/runs/01m8991xq0000000000000000a" => Reply::Json(200, fixtures::runs()[0].clone()),
            "/api/v1/agents/agent-1" => Reply::Json(200, fixtures::agents()[0].clone()),
            "/api/v1/notifiers/team" => Reply::Json(200, fixtures::notifiers()[1].clone()),
            "/api/v1/pipelines" => list(&fixtures::pipelines()),
            "/api/v1/pipelines/site/build/firings" => list(&fixtures::firings()),
            "/api/v1/runs" => list(&fixtures::runs()),
            "/api/v1/events" => list(&fixtures::events()),
            _ => Reply::Json(404, Value::Null),
        }
    });
    let client = fake.client();
    let object = client.get(&kind.path_of(name).unwrap(), &[]).unwrap();
    let story = tell(kind, kind.bare(name), object, &client).unwrap();
    let in_three_hours: NextFire = |_, now| now.checked_add(jiff::SignedDuration::from_hours(3)).ok();
    render(kind, &story, testing::fixed_now(), in_three_hours, false).unwrap()
}

/// One that a signed webhook starts.
fn hooked() -> Value {
    let mut pipeline = fixtures::pipelines()[0].clone();
    pipeline["spec"]["triggers"] = json!(["push"]);
    pipeline["status"]["webhooks"] =
        json!([{"trigger": "push", "path": "/hooks/site/triggers/push", "auth": "github", "secret": "s3cret"}]);
    pipeline
}

#[test]
fn a_pipeline_shows_where_its_webhooks_are_and_not_their_secrets() {
    let page = page(Kind::Pipelines, "site/hooked");
    assert!(page.contains("  push: webhook, suspended, github at /hooks/site/triggers/push\n"), "{page}");
    assert!(!page.contains("s3cret"), "{page}");
}

#[test]
fn a_notifier_shows_how_it_goes() {
    check(
        Kind::Notifiers,
        "notifier/team",
        &expect![[r#"
        Name:         team
        Description:  the team's channel
        Labels:       team=web
        Phase:        Failing
        File:         xene.d/notify.yaml:1
        Revision:     1a2b3c4d5e6f
        Generation:   1
        To:           slack chat
        On:           Broken, Recovered
        Select:       {"workflows":["site*"]}
        Waiting:      3
        Next try:     in 1m (2026-11-25T12:01:00.000Z)
        Delivered:    0
        Lost:         1
        Failed:       1m ago (2026-11-25T11:59:00.000Z)
        Error:        404 was answered: no_service\x1b[2J
    "#]],
    );
}

#[test]
fn a_workflow_shows_its_triggers_pipelines_and_runs() {
    check(
        Kind::Workflows,
        "site",
        &expect![[r#"
            Name:         site
            Description:  Builds the site.
            Labels:       team=web
            Phase:        Invalid
            Message:      xene.d/site.yaml:9:3: unknown field `step`
            File:         xene.d/site.yaml:1
            Revision:     1a2b3c4d5e6f
            Generation:   3
            Spec:         abababababababababababababababababababababababababababababababab
            History:      xene history site

            Triggers
              nightly: cron 0 3 * * * (Europe/Berlin), next in 3h (2026-11-25T15:00:00.000Z)
              push: webhook, suspended

            Pipelines
              NAME          PHASE          REASON            AGENT     NEXT     LAST RUN   WHEN
              site/build    Scheduled                        agent-1   in 42s   Success    3m ago
              site/deploy   NotScheduled   NoMatchingAgent   -         -        -          -

            Recent runs
              NAME                         PIPELINE     PHASE        REASON       TRIGGER        AGENT     AGE   TOOK
              01m8991xq0000000000000000a   site/build   Error        TaskFailed   cron nightly   agent-1   3m    1m05s
              01m89973qg000000000000000b   site/build   StartingUp   Queued       manual         -         10s   -
        "#]],
    );
}

#[test]
fn a_pipeline_shows_where_it_lives_and_when_it_fires() {
    check(
        Kind::Pipelines,
        "site/build",
        &expect![[r#"
            Name:         site/build
            Description:  Compiles.
            Phase:        Scheduled
            Message:      the least loaded of 2 agents
            Agent:        agent-1
            Epoch:        1800000001
            Revision:     1a2b3c4d5e6f
            Spec:         cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd
            Next:         in 42s (2026-11-25T12:00:42.000Z)
            Webhook:      /hooks/site/pipelines/build

            Triggers
              nightly: cron 0 3 * * * (Europe/Berlin), next in 3h (2026-11-25T15:00:00.000Z)

            Tasks
              checkout: 1 step
              compile: 2 steps after checkout

            Recent runs
              NAME                         PIPELINE     PHASE        REASON       TRIGGER        AGENT     AGE   TOOK
              01m8991xq0000000000000000a   site/build   Error        TaskFailed   cron nightly   agent-1   3m    1m05s
              01m89973qg000000000000000b   site/build   StartingUp   Queued       manual         -         10s   -

            Last due times
              2026-11-25T11:57:00.000Z nightly: Fired 01m8991xq0000000000000000a
              2026-11-25T11:56:00.000Z nightly: Skipped (Overlap)
              2026-11-25T09:00:00.000Z nightly: Missed, and all up to 2026-11-25T11:55:00.000Z, 76 in all

            Events
                4h ago  Normal   Scheduled: agent-1 owns it\x1b[2J
        "#]],
    );
}

#[test]
fn a_run_shows_its_tasks_and_outputs() {
    check(
        Kind::Runs,
        "run/01m8991xq0000000000000000a",
        &expect![[r#"
        Name:         01m8991xq0000000000000000a
        Pipeline:     site/build
        Phase:        Error (TaskFailed)
        Message:      task compile ended in Error
        Trigger:      cron nightly
        Due:          2026-11-25T11:57:00.000Z (3m ago)
        Agent:        agent-1
        Epoch:        1800000001
        Revision:     1a2b3c4d5e6f
        Created:      2026-11-25T11:57:00.000Z (3m ago)
        Started:      2026-11-25T11:57:01.000Z (2m ago)
        Finished:     2026-11-25T11:58:06.500Z (1m ago)
        Took:         1m05s
        Warnings:     1

        Params
          target=all

        Tasks
          ✓ checkout       1.3s
            ✓ step-1       1.3s
          ✗ compile       1m04s  StepFailed
            ✗ configure   1m04s  exit code 77
            · make

        Outputs
          checkout.commit=1a2b3c4

        Events
            1m ago  Warning  RunFailed: task compile ended in Error
    "#]],
    );
}

#[test]
fn an_agent_shows_what_it_owns() {
    check(
        Kind::Agents,
        "agent-1",
        &expect![[r#"
        Name:         agent-1
        Labels:       os=linux,arch=x86_64,hostname=a1
        Phase:        Connected
        Address:      10.0.0.7:40112
        Version:      0.1.0
        Slots:        1 of 4 taken
        Seen:         2s ago
        Lease:        ends in 4m

        Owns
          site/build
    "#]],
    );
}

#[test]
fn json_is_the_object_and_an_event_has_no_page() {
    let fake = Fake::start(|_, _| Reply::Json(200, fixtures::workflow()));
    let (mut ui, out, _) = testing::ui(Format::Json);
    run(&Args { kind: Kind::Workflows, name: "site".into() }, &fake.client(), &mut ui).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&out.text()).unwrap(), fixtures::workflow());
    let error = run(&Args { kind: Kind::Events, name: "1".into() }, &fake.client(), &mut ui).unwrap_err();
    assert_eq!(error.status(), 2);
}
