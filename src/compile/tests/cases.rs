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
fn approvals_of_what_asks_for_none() {
    check_cases(
        "    - {name: a, pipeline: main, approvals: {build: Approve}, expect: {phase: Success}}
    - {name: b, pipeline: main, approvals: {ship: Reject}, expect: {phase: Success}}
",
        expect![[r#"
            a.yaml:17:45: error[XE0153]: no connector of task `build` has an `approval`
               |
            17 |     - {name: a, pipeline: main, approvals: {build: Approve}, expect: {phase: Success}}
               |                                             ^^^^^
               = hint: mend the name

            a.yaml:18:45: error[XE0153]: there is no task `ship`
               |
            18 |     - {name: b, pipeline: main, approvals: {ship: Reject}, expect: {phase: Success}}
               |                                             ^^^^
               = hint: there is: build, tidy
        "#]],
    );
    check_cases(
        "    - {name: c, trigger: nightly, from: 2026-03-29, until: 2026-03-30, approvals: {build: Reject}, expect: {firings: []}}
",
        expect![[r#"
            a.yaml:17:72: error[XE0151]: `approvals` belongs to a case of a run, which names a pipeline
               |
            17 |     - {name: c, trigger: nightly, from: 2026-03-29, until: 2026-03-30, approvals: {build: Reject}, expect: {firings: []}}
               |                                                                        ^^^^^^^^^
               = hint: docs/guide/testing-workflows.md shows how a case is written
        "#]],
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
        expect![[r#"
            a.yaml:6:10: error[XE0151]: a test has at least one case
              |
            6 |   cases: []
              |          ^
              = hint: docs/guide/testing-workflows.md shows how a case is written
        "#]],
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
        expect![[r#"
            a.yaml:5:13: error[XE0150]: there is no workflow `shop` in these files
              |
            5 |   workflow: shop
              |             ^^^^
              = hint: name its file too, or the folder of both
        "#]],
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
        expect![[r#"
            a.yaml:17:7: error[XE0151]: this case names nothing that could be tried
               |
            17 |     - {name: a, expect: {phase: Success}}
               |       ^^^^^
               = hint: name a `pipeline` for a run, or a `trigger` with `from` and `until` for due times

            a.yaml:18:14: error[XE0152]: case 2 has the name of case 1
               |
            18 |     - {name: a, pipeline: main, expect: {}}
               |              ^
               = hint: rename one of them

            a.yaml:18:33: warning[XE0156]: this case passes whatever happens
               |
            18 |     - {name: a, pipeline: main, expect: {}}
               |                                 ^^^^^^
               = hint: expect something: `phase`, `tasks`, `notExecuted`

            a.yaml:19:33: error[XE0151]: `from` belongs to a case of due times, which names a trigger and no pipeline
               |
            19 |     - {name: c, pipeline: main, from: 2026-03-29, slots: 0, expect: {firings: []}}
               |                                 ^^^^
               = hint: docs/guide/testing-workflows.md shows how a case is written

            a.yaml:19:58: error[XE0151]: without a slot no task can run
               |
            19 |     - {name: c, pipeline: main, from: 2026-03-29, slots: 0, expect: {firings: []}}
               |                                                          ^
               = hint: docs/guide/testing-workflows.md shows how a case is written

            a.yaml:19:70: error[XE0151]: `firings` belong to a case of due times, which names a trigger and no pipeline
               |
            19 |     - {name: c, pipeline: main, from: 2026-03-29, slots: 0, expect: {firings: []}}
               |                                                                      ^^^^^^^
               = hint: docs/guide/testing-workflows.md shows how a case is written

            a.yaml:20:7: error[XE0151]: a case of due times needs `from`
               |
            20 |     - {name: d, trigger: nightly, stubs: {build: {}}, until: 2026-03-29, expect: {phase: Success}}
               |       ^^^^^
               = hint: docs/guide/testing-workflows.md shows how a case is written

            a.yaml:20:35: error[XE0151]: `stubs` belongs to a case of a run, which names a pipeline
               |
            20 |     - {name: d, trigger: nightly, stubs: {build: {}}, until: 2026-03-29, expect: {phase: Success}}
               |                                   ^^^^^
               = hint: docs/guide/testing-workflows.md shows how a case is written

            a.yaml:20:74: error[XE0151]: a case of due times expects `firings`
               |
            20 |     - {name: d, trigger: nightly, stubs: {build: {}}, until: 2026-03-29, expect: {phase: Success}}
               |                                                                          ^^^^^^
               = hint: docs/guide/testing-workflows.md shows how a case is written

            a.yaml:21:48: error[XE0151]: a stub that is a list has at least one entry
               |
            21 |     - {name: e, pipeline: main, stubs: {build: []}, expect: {phase: Success}}
               |                                                ^
               = hint: docs/guide/testing-workflows.md shows how a case is written
        "#]],
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
        expect![[r#"
            a.yaml:17:17: error[XE0153]: there is no pipeline `mian`
               |
            17 |     - {name: a, pipeline: mian, expect: {phase: Success}}
               |                 ^^^^^^^^
               = hint: did you mean `main`?

            a.yaml:18:17: error[XE0153]: there is no trigger `nightlie`
               |
            18 |     - {name: b, trigger: nightlie, from: 2026-03-29, until: 2026-03-30, expect: {firings: []}}
               |                 ^^^^^^^
               = hint: did you mean `nightly`?

            a.yaml:19:26: error[XE0153]: only a cron trigger has due times
               |
            19 |     - {name: c, trigger: hook, from: 2026-03-29, until: 2026-03-30, expect: {firings: []}}
               |                          ^^^^
               = hint: mend the name

            a.yaml:20:42: error[XE0153]: pipeline `main` does not name trigger `hook`
               |
            20 |     - {name: d, pipeline: main, trigger: hook, stubs: {biuld: {}, build/link: {}}, expect: {tasks: {tydy: Success}, order: [x]}}
               |                                          ^^^^
               = hint: mend the name

            a.yaml:20:56: error[XE0153]: there is no task `biuld`
               |
            20 |     - {name: d, pipeline: main, trigger: hook, stubs: {biuld: {}, build/link: {}}, expect: {tasks: {tydy: Success}, order: [x]}}
               |                                                        ^^^^^
               = hint: did you mean `build`?

            a.yaml:20:67: error[XE0153]: task `build` has no step `link`
               |
            20 |     - {name: d, pipeline: main, trigger: hook, stubs: {biuld: {}, build/link: {}}, expect: {tasks: {tydy: Success}, order: [x]}}
               |                                                                   ^^^^^^^^^^
               = hint: there is: compile

            a.yaml:20:101: error[XE0153]: there is no task `tydy`
               |
            20 |     - {name: d, pipeline: main, trigger: hook, stubs: {biuld: {}, build/link: {}}, expect: {tasks: {tydy: Success}, order: [x]}}
               |                                                                                                     ^^^^
               = hint: did you mean `tidy`?

            a.yaml:20:125: error[XE0153]: there is no task `x`
               |
            20 |     - {name: d, pipeline: main, trigger: hook, stubs: {biuld: {}, build/link: {}}, expect: {tasks: {tydy: Success}, order: [x]}}
               |                                                                                                                             ^
               = hint: there is: build, tidy
        "#]],
    );
}

#[test]
fn params_and_times() {
    check_cases(
        "    - {name: a, pipeline: main, at: noon, params: {keep: some, kept: 1}, expect: {phase: Success}}
    - {name: b, trigger: nightly, from: 2026-02-30, until: 2026-03-30, expect: {firings: ['25:00']}}
",
        expect![[r#"
            a.yaml:17:37: error[XE0155]: "noon" is no time
               |
            17 |     - {name: a, pipeline: main, at: noon, params: {keep: some, kept: 1}, expect: {phase: Success}}
               |                                     ^^^^
               = hint: a time is written like 2026-03-29T02:00:00Z, or 2026-03-29T02:00 by the trigger's clock

            a.yaml:17:43: error[XE0154]: param keep takes a whole number, not "some"
               |
            17 |     - {name: a, pipeline: main, at: noon, params: {keep: some, kept: 1}, expect: {phase: Success}}
               |                                           ^^^^^^
               = hint: give what the pipeline declares

            a.yaml:17:43: error[XE0154]: there is no param kept; declared are: keep
               |
            17 |     - {name: a, pipeline: main, at: noon, params: {keep: some, kept: 1}, expect: {phase: Success}}
               |                                           ^^^^^^
               = hint: give what the pipeline declares

            a.yaml:18:41: error[XE0155]: "2026-02-30" is no time
               |
            18 |     - {name: b, trigger: nightly, from: 2026-02-30, until: 2026-03-30, expect: {firings: ['25:00']}}
               |                                         ^^^^^^^^^^
               = hint: a time is written like 2026-03-29T02:00:00Z, or 2026-03-29T02:00 by the trigger's clock

            a.yaml:18:91: error[XE0155]: "25:00" is no time
               |
            18 |     - {name: b, trigger: nightly, from: 2026-02-30, until: 2026-03-30, expect: {firings: ['25:00']}}
               |                                                                                           ^^^^^^^
               = hint: a time is written like 2026-03-29T02:00:00Z, or 2026-03-29T02:00 by the trigger's clock
        "#]],
    );
}

#[test]
fn fields_are_known() {
    check_cases(
        "    - {name: a, pipeline: main, stub: {}, expect: {phase: Done}}
",
        expect![[r#"
            a.yaml:17:33: error[XE0011]: unknown field `stub`
               |
            17 |     - {name: a, pipeline: main, stub: {}, expect: {phase: Done}}
               |                                 ^^^^
               = hint: did you mean `stubs`?

            a.yaml:17:59: error[XE0013]: `Done` is not one of the values that this takes
               |
            17 |     - {name: a, pipeline: main, stub: {}, expect: {phase: Done}}
               |                                                           ^^^^
               = hint: there is: StartingUp, Running, ShuttingDown, Success, Error, Unknown
        "#]],
    );
}
