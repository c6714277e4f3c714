//! Objects as the API gives them, for tests of what is printed. The time is that of `testing::fixed_now`, noon.

use serde_json::{Value, json};

/// A list.
pub(super) fn list(items: &[Value]) -> Value {
    json!({"apiVersion": "xene/v1", "kind": "List", "items": items})
}

pub(super) fn workflow() -> Value {
    json!({
        "metadata": {"name": "site", "description": "Builds the site.", "labels": {"team": "web"}},
        "spec": {
            "triggers": {
                "nightly": {"type": "cron", "schedule": "0 3 * * *", "timeZone": "Europe/Berlin"},
                "push": {"type": "webhook", "suspend": true}
            },
            "aFieldOfANewerVersion": true,
            "pipelines": {"build": {"tasks": {}}, "deploy": {"tasks": {}}}
        },
        "status": {"phase": "Invalid", "revision": "1a2b3c4d5e6f", "path": "xene.d/site.yaml", "line": 1, "generation": 3,
                   "specHash": "ab".repeat(32), "message": "xene.d/site.yaml:9:3: unknown field `step`"}
    })
}

pub(super) fn pipelines() -> Vec<Value> {
    vec![
        json!({
            "metadata": {"name": "site/build"},
            "spec": {
                "description": "Compiles.", "triggers": ["nightly"],
                "tasks": {
                    "checkout": {"steps": ["git clone"]},
                    "compile": {"dependencies": ["checkout"], "steps": ["./configure", "make"]}
                }
            },
            "status": {"phase": "Scheduled", "message": "the least loaded of 2 agents", "agent": "agent-1",
                       "epoch": 1_800_000_001, "revision": "1a2b3c4d5e6f", "specHash": "cd".repeat(32),
                       "nextFire": "2026-11-25T12:00:42.000Z",
                       "lastRun": {"name": "01m8991xq0000000000000000a", "phase": "Success"},
                       "webhook": "/hooks/site/pipelines/build"}
        }),
        json!({
            "metadata": {"name": "site/deploy"}, "spec": {"after": "build", "tasks": {}},
            "status": {"phase": "NotScheduled", "reason": "NoMatchingAgent", "message": "no agent has the label zone=dmz",
                       "revision": "1a2b3c4d5e6f", "specHash": "cd".repeat(32)}
        }),
    ]
}

pub(super) fn runs() -> Vec<Value> {
    vec![
        json!({
            "metadata": {"name": "01m8991xq0000000000000000a", "createdAt": "2026-11-25T11:57:00.000Z"},
            "spec": {"workflow": "site", "pipeline": "build",
                     "trigger": {"type": "cron", "name": "nightly", "scheduledTime": "2026-11-25T11:57:00.000Z"},
                     "params": {"target": "all"}, "revision": "1a2b3c4d5e6f", "specHash": "cd".repeat(32)},
            "status": {"phase": "Error", "reason": "TaskFailed", "message": "task compile ended in Error",
                       "agent": "agent-1", "epoch": 1_800_000_001, "startedAt": "2026-11-25T11:57:01.000Z",
                       "finishedAt": "2026-11-25T11:58:06.500Z", "warnings": 1,
                       "tasks": {
                           "checkout": {"phase": "Success", "attempt": 1, "startedAt": "2026-11-25T11:57:01.000Z",
                                        "finishedAt": "2026-11-25T11:57:02.300Z", "outputs": {"commit": "1a2b3c4"},
                                        "steps": [{"name": "step-1", "phase": "Success", "exitCode": 0,
                                                   "startedAt": "2026-11-25T11:57:01.000Z",
                                                   "finishedAt": "2026-11-25T11:57:02.300Z"}]},
                           "compile": {"phase": "Error", "reason": "StepFailed", "attempt": 1,
                                       "startedAt": "2026-11-25T11:57:02.300Z", "finishedAt": "2026-11-25T11:58:06.500Z",
                                       "dependencies": ["checkout"],
                                       "steps": [{"name": "configure", "phase": "Error", "reason": "ExitCode", "exitCode": 77,
                                                  "startedAt": "2026-11-25T11:57:02.300Z",
                                                  "finishedAt": "2026-11-25T11:58:06.500Z"},
                                                 {"name": "make", "phase": "NotExecuted"}]}
                       }}
        }),
        json!({
            "metadata": {"name": "01m89973qg000000000000000b", "createdAt": "2026-11-25T11:59:50.000Z"},
            "spec": {"workflow": "site", "pipeline": "build", "trigger": {"type": "manual", "by": "admin"},
                     "revision": "1a2b3c4d5e6f", "specHash": "cd".repeat(32)},
            "status": {"phase": "StartingUp", "reason": "Queued", "tasks": {}}
        }),
    ]
}

pub(super) fn agents() -> Vec<Value> {
    vec![
        json!({
            "metadata": {"name": "agent-1", "labels": {"os": "linux", "arch": "x86_64", "hostname": "a1"}},
            "status": {"phase": "Connected", "address": "10.0.0.7:40112", "version": "0.1.0", "slots": 4, "busy": 1,
                       "lastSeen": "2026-11-25T11:59:58.000Z", "leaseUntil": "2026-11-25T12:04:33.000Z",
                       "pipelines": ["site/build"]}
        }),
        json!({
            "metadata": {"name": "agent-2", "labels": {"os": "linux"}},
            "status": {"phase": "Disconnected", "version": "0.1.0", "slots": 2, "busy": 0,
                       "lastSeen": "2026-11-25T09:00:00.000Z", "pipelines": [], "message": "its clock is 61 s late"}
        }),
    ]
}

pub(super) fn notifiers() -> Vec<Value> {
    let status = |phase: &str, rest: Value| {
        let mut status = json!({"phase": phase, "revision": "1a2b3c4d5e6f", "path": "xene.d/notify.yaml", "line": 1,
                                "generation": 1, "specHash": "ab".repeat(32)});
        status.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        status
    };
    vec![
        json!({"metadata": {"name": "commits"},
               "spec": {"commitStatus": {"provider": "github", "credential": "github", "repository": "acme/site"}},
               "status": status("Ready", json!({"pending": 0, "delivered": 12, "deliveredAt": "2026-11-25T11:59:00.000Z"}))}),
        json!({"metadata": {"name": "team", "description": "the team's channel", "labels": {"team": "web"}},
        "spec": {"on": ["Broken", "Recovered"], "select": {"workflows": ["site*"]}, "slack": {"credential": "chat"}},
        "status": status("Failing", json!({
            "pending": 3, "delivered": 0, "lost": 1, "failedAt": "2026-11-25T11:59:00.000Z",
            "error": "404 was answered: no_service\u{1b}[2J", "nextAttempt": "2026-11-25T12:01:00.000Z",
        }))}),
    ]
}

pub(super) fn events() -> Vec<Value> {
    vec![
        json!({"id": 42, "at": "2026-11-25T11:58:06.500Z", "type": "Warning", "reason": "RunFailed",
               "message": "task compile ended in Error", "regarding": "run/01m8991xq0000000000000000a"}),
        json!({"id": 41, "at": "2026-11-25T08:00:00.000Z", "type": "Normal", "reason": "Scheduled",
               "message": "agent-1 owns it\u{1b}[2J", "regarding": "pipeline/site/build"}),
    ]
}

pub(super) fn firings() -> Vec<Value> {
    let firing = |at: &str, outcome: &str, rest: Value| {
        let mut value = json!({"metadata": {"name": format!("nightly@{at}")}, "pipeline": "site/build", "trigger": "nightly",
                               "scheduledTime": at, "outcome": outcome, "message": "a sentence"});
        value.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        value
    };
    vec![
        firing("2026-11-25T11:57:00.000Z", "Fired", json!({"run": "01m8991xq0000000000000000a", "agent": "agent-1"})),
        firing("2026-11-25T11:56:00.000Z", "Skipped", json!({"reason": "Overlap"})),
        firing(
            "2026-11-25T09:00:00.000Z",
            "Missed",
            json!({"reason": "Missed", "until": "2026-11-25T11:55:00.000Z", "count": 76}),
        ),
    ]
}

pub(super) fn source() -> Value {
    json!({"status": {
        "kind": "git", "url": "https://git.example/site.git", "branch": "main", "path": "xene.d",
        "revision": "1a2b3c4d5e6f", "seen": "ffffffff0000", "attempted": "ffffffff0000", "author": "Ada", "subject": "Build nightly",
        "observedAt": "2026-11-25T11:59:55.000Z", "syncedAt": "2026-11-25T11:00:00.000Z", "workflows": 1, "ignored": 2, "dirty": 1,
        "conditions": [
            {"type": "Ready", "status": "False", "reason": "Invalid", "message": "1 file has a problem", "since": "2026-11-25T11:30:00.000Z"},
            {"type": "Fetched", "status": "True", "reason": "Ok", "message": "", "since": "2026-11-25T11:30:00.000Z"},
            {"type": "Stalled", "status": "False", "reason": "Ok", "message": "", "since": "2026-11-25T11:30:00.000Z"},
            {"type": "Degraded", "status": "True", "reason": "LastGood", "message": "site is kept as of 1a2b3c4", "since": "2026-11-25T11:30:00.000Z"}
        ],
        "problems": [{"path": "xene.d/site.yaml", "line": 9, "column": 3, "code": "XE0003", "severity": "error",
                      "message": "unknown field `step`", "hint": "did you mean `steps`?"}]
    }})
}
