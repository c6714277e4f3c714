//! Workflow tests that can't be tried, or name what is not there.

use expect_test::{Expect, expect};

use super::check;

/// Checks a workflow and these cases of a test of it, in one file.
fn check_cases(cases: &str, expected: Expect) {
    let text = "apiVersion: xene/v1
kind: Workflow
metadata: {name: shop}
spec:
  params: {keep: {type: integer, default: 3}}
  triggers: {nightly: {type: cron, schedule: '30 2 * * *'}, hook: {type: webhook}}
  pipelines:
    main: {triggers: nightly, tasks: {build: {steps: [{name: compile, run: x}]}}, finally: {tidy: {steps: [x]}}}
    other: {triggers: hook, tasks: {t: {steps: [x]}}}
---
apiVersion: xene/v1
kind: WorkflowTest
metadata: {name: t}
spec:
  workflow: shop
  cases:
";
    check(&format!("{text}{cases}"), expected);
}

#[test]
fn a_good_test_is_no_problem() {
    check_cases(
        "    - name: a
      pipeline: main
      trigger: nightly
      at: 2026-03-29T02:30
      params: {keep: 7}
      stubs: {build/compile: [{exitCode: 1}, {}], tidy: {duration: 5s}, 'build[os=linux]': {}}
      expect: {phase: Success, notExecuted: [], order: [build, tidy], tasks: {build: Success, tidy: {phase: Success}}}
    - {name: b, trigger: nightly, from: 2026-03-29, until: 2026-03-30T00:00:00Z, expect: {firings: []}}
",
        expect![[""]],
    );
}

#[test]
fn tests_of_nothing() {
    check(
        "apiVersion: xene/v1
kind: WorkflowTest
metadata: {name: t}
spec:
  workflow: shop
  cases: []
",
        expect![[""]],
    );
    check(
        "apiVersion: xene/v1
kind: WorkflowTest
metadata: {name: t}
spec:
  workflow: shop
  cases:
    - {name: a, pipeline: main, expect: {phase: Success}}
",
        expect![[""]],
    );
}

#[test]
fn cases_that_cannot_be_tried() {
    check_cases(
        "    - {name: a, expect: {phase: Success}}
    - {name: a, pipeline: main, expect: {}}
    - {name: c, pipeline: main, from: 2026-03-29, slots: 0, expect: {firings: []}}
    - {name: d, trigger: nightly, stubs: {build: {}}, until: 2026-03-29, expect: {phase: Success}}
    - {name: e, pipeline: main, stubs: {build: []}, expect: {phase: Success}}
",
        expect![[""]],
    );
}

#[test]
fn what_is_not_there() {
    check_cases(
        "    - {name: a, pipeline: mian, expect: {phase: Success}}
    - {name: b, trigger: nightlie, from: 2026-03-29, until: 2026-03-30, expect: {firings: []}}
    - {name: c, trigger: hook, from: 2026-03-29, until: 2026-03-30, expect: {firings: []}}
    - {name: d, pipeline: main, trigger: hook, stubs: {biuld: {}, build/link: {}}, expect: {tasks: {tydy: Success}, order: [x]}}
",
        expect![[""]],
    );
}

#[test]
fn params_and_times() {
    check_cases(
        "    - {name: a, pipeline: main, at: noon, params: {keep: some, kept: 1}, expect: {phase: Success}}
    - {name: b, trigger: nightly, from: 2026-02-30, until: 2026-03-30, expect: {firings: ['25:00']}}
",
        expect![[""]],
    );
}

#[test]
fn fields_are_known() {
    check_cases(
        "    - {name: a, pipeline: main, stub: {}, expect: {phase: Done}}
",
        expect![[""]],
    );
}
