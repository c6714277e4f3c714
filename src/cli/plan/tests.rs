//! Plans as people read them.

use expect_test::expect;
use serde_json::json;

use super::*;
use crate::cli::output::{Output, testing};

fn report() -> PlanReport {
    serde_json::from_value(json!({
        "from": {"what": "what http://127.0.0.1:7420 has in effect", "revision": "1a2b3c4d5e6f"},
        "to": {"what": "the work tree", "revision": "dir-9f8e7d6c5b4a"},
        "changes": [
            {"action": "Create", "kind": "Workflow", "name": "new", "reason": "WorkflowCreated", "path": "xene.d/new.yaml", "line": 1},
            {"action": "Update", "kind": "Workflow", "name": "site", "reason": "WorkflowUpdated", "path": "xene.d/site.yaml", "line": 4,
             "fields": [
                 {"path": "metadata.description", "old": "a | b ` c\n\u{202e}</details>", "new": "@everyone"},
                 {"path": "spec.triggers.nightly.schedule", "old": "0 3 * * *", "new": "0 4 * * *"},
                 {"path": "spec.pipelines.build.tasks.t.steps[1]", "new": "x".repeat(200)},
             ]},
            {"action": "Move", "kind": "Workflow", "name": "moved", "reason": "WorkflowMoved", "path": "b.yaml", "line": 1,
             "fields": [{"path": "file", "old": "a.yaml:1", "new": "b.yaml:1"}]},
            {"action": "Create", "kind": "Pipeline", "name": "new/p", "reason": "PipelineCreated",
             "fires": {"before": [], "after": [{"trigger": "t", "at": "2026-11-25T13:00:00.000Z"}]},
             "placement": {"reason": "NoMatchingAgent", "message": "no agent has the labels zone=moon"}},
            {"action": "Update", "kind": "Pipeline", "name": "site/build", "reason": "PipelineUpdated",
             "fires": {"before": [{"trigger": "hourly", "at": "2026-11-25T13:00:00.000Z"},
                                  {"trigger": "nightly", "at": "2026-11-26T03:00:00.000Z"}],
                       "after": [{"trigger": "hourly", "at": "2026-11-25T13:00:00.000Z"},
                                 {"trigger": "nightly", "at": "2026-11-26T04:00:00.000Z"},
                                 {"trigger": "weekly", "at": "2026-11-29T00:00:00.000Z"}]},
             "placement": {"before": "agent-1", "after": "agent-1", "message": "agent-1 has what it takes"},
             "runs": ["01m8991xq0000000000000000a"]},
            {"action": "Remove", "kind": "Pipeline", "name": "old/p", "reason": "PipelineRemoved"},
            {"action": "Remove", "kind": "Workflow", "name": "old", "reason": "WorkflowRemoved", "path": "old.yaml", "line": 1},
        ],
        "held": [{"name": "kept", "reason": "PruneDisabled", "message": "no file declares it any more; its annotation keeps it"}],
        "problems": [{"path": "xene.d/bad.yaml", "line": 3, "column": 7, "code": "XE0005", "severity": "error", "message": "unknown `x`"}],
    }))
    .unwrap()
}

#[test]
fn a_terminal_shows_what_changes_and_what_comes_of_it() {
    expect![[r#"
        what http://127.0.0.1:7420 has in effect (1a2b3c4) → the work tree (dir-9f8e7d6)

        + workflow new  xene.d/new.yaml:1
        ~ workflow site  xene.d/site.yaml:4
            metadata.description: "a | b ` c\n\u{202e}</details>" → "@everyone"
            spec.triggers.nightly.schedule: "0 3 * * *" → "0 4 * * *"
            spec.pipelines.build.tasks.t.steps[1]: – → "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…
        > workflow moved  b.yaml:1
            file: "a.yaml:1" → "b.yaml:1"
        + pipeline new/p
            fires  in 1h (t, 2026-11-25T13:00:00.000Z)
            agent  none: NoMatchingAgent (no agent has the labels zone=moon)
        ~ pipeline site/build
            fires  in 15h (nightly, 2026-11-26T03:00:00.000Z) → in 16h (nightly, 2026-11-26T04:00:00.000Z)
            fires  never → in 3d (weekly, 2026-11-29T00:00:00.000Z)
            agent  stays on agent-1
            run    01m8991xq0000000000000000a finishes on what it started with
        - pipeline old/p
        - workflow old  old.yaml:1
        ! workflow kept stays  no file declares it any more; its annotation keeps it

        xene.d/bad.yaml:3:7: error[XE0005]: unknown `x`

        2 to create, 2 to update, 1 to move, 2 to remove, 1 held, 1 problem in the files
    "#]].assert_eq(&text::render(&report(), testing::fixed_now(), false, false));
}

#[test]
fn markdown_is_short_and_nothing_in_it_acts() {
    expect![[r####"
        ### xene plan: 2 to create, 2 to update, 1 to move, 2 to remove, 1 held, 1 problem in the files

        From `what http://127.0.0.1:7420 has in effect (1a2b3c4)` to `the work tree (dir-9f8e7d6)`.

        | | object | |
        |---|---|---|
        | ➕ | workflow `new` | `xene.d/new.yaml:1` |
        | ✏️ | workflow `site` | `xene.d/site.yaml:4` |
        | ↪️ | workflow `moved` | `b.yaml:1` |
        | ➕ | pipeline `new/p` | fires `t 2026-11-25T13:00:00.000Z` · on no agent: `no agent has the labels zone=moon` |
        | ✏️ | pipeline `site/build` | fires `nightly 2026-11-26T03:00:00.000Z` → `nightly 2026-11-26T04:00:00.000Z` · fires `never` → `weekly 2026-11-29T00:00:00.000Z` · stays on `agent-1` · 1 run finishes on what it started with |
        | ➖ | pipeline `old/p` |  |
        | ➖ | workflow `old` | `old.yaml:1` |

        > ⚠️ workflow `kept` stays: `no file declares it any more; its annotation keeps it`

        <details><summary>Fields (4)</summary>

        | workflow | field | old | new |
        |---|---|---|---|
        | `site` | `metadata.description` | ``"a \| b ` c\n\u{202e}</details>"`` | `"@everyone"` |
        | `site` | `spec.triggers.nightly.schedule` | `"0 3 * * *"` | `"0 4 * * *"` |
        | `site` | `spec.pipelines.build.tasks.t.steps[1]` | `–` | `"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…` |
        | `moved` | `file` | `"a.yaml:1"` | `"b.yaml:1"` |

        </details>

        <details open><summary>Problems in the files (1)</summary>

        | place | problem |
        |---|---|
        | `xene.d/bad.yaml:3:7` | `` error[XE0005]: unknown `x` `` |

        </details>

    "####]].assert_eq(&markdown::render(&report()));
}

#[test]
fn nothing_is_said_so() {
    let nothing = PlanReport { changes: vec![], held: vec![], problems: vec![], ..report() };
    let text = text::render(&nothing, testing::fixed_now(), false, false);
    assert!(text.ends_with("\nnothing would change\n"), "{text}");
    let withheld = PlanReport { changes: vec![], held: vec![], withheld: true, ..report() };
    let text = text::render(&withheld, testing::fixed_now(), false, false);
    let end = "\nnothing would take effect, since the controller runs with --strict, 1 problem in the files\n";
    assert!(text.ends_with(end), "{text}");
    let (mut ui, out, _) = testing::ui(Format::Json);
    print(&nothing, Output::Table, &mut ui).unwrap();
    let value: serde_json::Value = serde_json::from_str(&out.text()).unwrap();
    assert_eq!((&value["kind"], &value["changes"]), (&"Plan".into(), &json!([])));
}
