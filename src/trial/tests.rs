//! Workflow tests: what they assert and how they fail.

use expect_test::{Expect, expect};

use super::*;
use crate::compile::compile;

const WORKFLOW: &str = "apiVersion: xene/v1
kind: Workflow
metadata: {name: shop}
spec:
  params: {keep: {type: integer, default: 3}}
  triggers:
    nightly: {type: cron, schedule: '30 2 * * *', timeZone: Europe/Berlin}
  pipelines:
    main:
      triggers: nightly
      timeout: 2h
      tasks:
        build:
          retry: {attempts: 2, delay: 10s}
          outputs: [id]
          steps: [{name: compile, run: x, timeout: 1m}, {name: link, run: x}]
        test: {dependencies: build, steps: [x], allowFailure: true}
        deploy: {dependencies: [build, test], env: {ID: {output: build.id}}, steps: [x]}
        rescue: {steps: [x]}
      connectors: [{from: deploy, to: rescue, on: Failure}]
      finally:
        tidy: {steps: [x]}
";

/// Tries one case, given without its name: what is wrong, else what happened.
fn check(case: &str, expected: Expect) {
    check_of(WORKFLOW, case, expected);
}

#[expect(clippy::needless_pass_by_value, reason = "as `expect!` is written at the place of use")]
fn check_of(workflow: &str, case: &str, expected: Expect) {
    let test = format!(
        "---\napiVersion: xene/v1\nkind: WorkflowTest\nmetadata: {{name: t}}\nspec: {{workflow: shop, cases: [{{name: c, {case}}}]}}\n"
    );
    let compiled = compile(&[("w.yaml".into(), format!("{workflow}{test}").into_bytes())]);
    assert!(compiled.problems.is_empty(), "{:#?}", compiled.problems);
    let verdict = try_case(&compiled.workflows[0].body, &compiled.tests[0].test.spec.cases[0]);
    let told: String = if verdict.mismatches.is_empty() {
        verdict.course.iter().map(|line| format!("{}\n", line.trim_start())).collect()
    } else {
        let line = |m: &Mismatch| format!("{}: expected {}, got {}\n", m.what, m.expected, m.got);
        verdict.mismatches.iter().map(line).collect()
    };
    expected.assert_eq(&told);
}

#[test]
fn without_failures_all_goes_well() {
    check(
        "pipeline: main, stubs: {build/link: {outputs: {id: 9}}}, \
         expect: {phase: Success, notExecuted: [rescue], order: [build, test, deploy, tidy]}",
        expect![[r#"
            0s  task build starts
            0s  task build: Success
            0s  task test starts
            0s  task test: Success
            0s  task deploy starts
            0s  task deploy: Success
            0s  task rescue: NotExecuted (UpstreamFailed: upstream task deploy did not fail)
            0s  shutting down
            0s  task tidy starts
            0s  task tidy: Success
            0s  run: Success
        "#]],
    );
}

#[test]
fn stubs_fail_publish_and_take_their_time() {
    check(
        "pipeline: main, stubs: {build/compile: [{exitCode: 7, duration: 5s}, {duration: 1s}], build/link: {outputs: {id: 9}}, test: {exitCode: 1}}, \
         expect: {phase: Success, warnings: 1, duration: 16s, tasks: {build: {attempt: 2, outputs: {id: '9'}}, test: {phase: Error, reason: StepFailed}}}",
        expect![[r#"
            0s  task build starts
            15s  task build starts, attempt 2
            16s  task build: Success
            16s  task test starts
            16s  task test: Error (StepFailed: step step-1 of task test exited with code 1)
            16s  task deploy starts
            16s  task deploy: Success
            16s  task rescue: NotExecuted (UpstreamFailed: upstream task deploy did not fail)
            16s  shutting down
            16s  task tidy starts
            16s  task tidy: Success
            16s  run: Success
        "#]],
    );
}

#[test]
fn timeouts_and_cancels_come_on_the_virtual_clock() {
    check(
        "pipeline: main, stubs: {build/compile: {duration: 3h}}, expect: {phase: Error, reason: TaskFailed}",
        expect![[r#"
            0s  task build starts
            1m10s  task build starts, attempt 2
            2m30s  task build starts, attempt 3
            3m30s  task build: Error (StepFailed: step compile of task build took longer than 1m)
            3m30s  task test: NotExecuted (UpstreamFailed: upstream task build ended in Error)
            3m30s  task deploy: NotExecuted (UpstreamFailed: upstream task build ended in Error)
            3m30s  task rescue: NotExecuted (UpstreamFailed: upstream task deploy was not executed)
            3m30s  shutting down
            3m30s  task tidy starts
            3m30s  task tidy: Success
            3m30s  run: Error (TaskFailed: step compile of task build took longer than 1m)
        "#]],
    );
    check(
        "pipeline: main, cancelAfter: 30s, stubs: {build/link: {duration: 1h}}, expect: {reason: Cancelled, tasks: {tidy: Success}, duration: 30s}",
        expect![[r#"
            0s  task build starts
            30s  shutting down (Cancelled: the test cancels it)
            30s  task test: NotExecuted (Cancelled: the test cancels it)
            30s  task deploy: NotExecuted (Cancelled: the test cancels it)
            30s  task rescue: NotExecuted (Cancelled: the test cancels it)
            30s  task build: Error (Cancelled: step link of task build was stopped: the test cancels it)
            30s  task tidy starts
            30s  task tidy: Success
            30s  run: Error (Cancelled: the test cancels it)
        "#]],
    );
}

#[test]
fn whatever_is_not_as_expected_is_told() {
    check(
        "pipeline: main, stubs: {build/link: {outputs: {id: 9}}, deploy: {signal: 9}}, expect: {phase: Success, reason: TimedOut, warnings: 2, duration: 1m, \
         tasks: {build: {phase: Error, attempt: 2, outputs: {id: 1}}, rescue: NotExecuted}, notExecuted: [tidy], order: [test, build]}",
        expect![[r#"
            phase: expected Success, got Error (TaskFailed: step step-1 of task deploy was ended by signal 9, as when memory runs out)
            reason: expected TimedOut, got TaskFailed
            warnings: expected 2, got 0
            duration: expected 1m, got 0s
            task build: expected Error, got Success
            task build: attempt: expected 2, got 1
            task build: output id: expected "1", got "9"
            task rescue: expected NotExecuted, got Success
            tasks not executed: expected tidy, got none
            order of starts: expected test, build, got build, test, deploy, rescue, tidy
        "#]],
    );
}

#[test]
fn due_times_are_those_of_the_zone() {
    check(
        "trigger: nightly, from: 2026-03-28, until: 2026-03-31, expect: {firings: ['2026-03-28T02:30', '2026-03-29T03:00', '2026-03-30T00:30:00Z']}",
        expect![[r#"
            2026-03-28T02:30:00+01:00
            2026-03-29T03:00:00+02:00
            2026-03-30T02:30:00+02:00
        "#]],
    );
    check(
        "trigger: nightly, from: 2026-10-24, until: 2026-10-26, expect: {firings: ['2026-10-24T02:30', '2026-10-25T02:30+01:00']}",
        expect![[r#"
            due times (2 expected, 2 come): expected beside the others 2026-10-25T02:30:00+01:00, got instead 2026-10-25T02:30:00+02:00
        "#]],
    );
}

#[test]
fn a_cron_run_has_a_time_and_params() {
    check(
        "pipeline: main, slots: 1, trigger: nightly, at: 2026-03-29T02:30, params: {keep: 1}, stubs: {rescue: {duration: 5s}, build/link: {outputs: {id: x}, duration: 1s}}, expect: {duration: 1s}",
        expect![[r#"
            0s  task build starts
            1s  task build: Success
            1s  task test starts
            1s  task test: Success
            1s  task deploy starts
            1s  task deploy: Success
            1s  task rescue: NotExecuted (UpstreamFailed: upstream task deploy did not fail)
            1s  shutting down
            1s  task tidy starts
            1s  task tidy: Success
            1s  run: Success
        "#]],
    );
}

/// Somebody has to approve `ship`, within a time, and `sign`, at some time; `build` saves artifacts.
const GATED: &str = "apiVersion: xene/v1
kind: Workflow
metadata: {name: shop}
spec:
  pipelines:
    ship:
      timeout: 24h
      tasks: {build: {steps: [x], artifacts: {save: [out]}}, ship: {steps: [x], matrix: {to: [a, b]}}}
      connectors: [{from: build, to: ship, approval: {timeout: 12h}}]
    sign:
      tasks: {build: {steps: [x]}, sign: {steps: [x]}}
      connectors: [{from: build, to: sign, approval: {}}]
";

#[test]
fn approvals_are_decided_at_once_and_artifacts_take_no_time() {
    check_of(
        GATED,
        "pipeline: ship, approvals: {ship: Approve, 'ship[to=b]': Reject}, stubs: {build: {duration: 5s}}, \
         expect: {phase: Error, reason: Rejected, duration: 5s, notExecuted: ['ship[to=b]'], tasks: {'ship[to=b]': {reason: Rejected}}}",
        expect![[r#"
            0s  task build starts
            5s  task build: Success
            5s  task ship[to=a] waits for approval
            5s  task ship[to=b] waits for approval
            5s  task ship[to=a]: approved by the test
            5s  task ship[to=b]: rejected by the test
            5s  task ship[to=b]: NotExecuted (Rejected: rejected by the test)
            5s  task ship[to=a] starts
            5s  task ship[to=a]: Success
            5s  run: Error (Rejected: task ship[to=b]: rejected by the test)
        "#]],
    );
}

#[test]
fn silence_lasts_until_the_timeout() {
    check_of(
        GATED,
        "pipeline: ship, expect: {phase: Error, duration: 12h, tasks: {'ship[to=a]': {reason: Rejected}}}",
        expect![[r#"
            0s  task build starts
            0s  task build: Success
            0s  task ship[to=a] waits for approval
            0s  task ship[to=b] waits for approval
            12h  task ship[to=a]: rejected by timeout
            12h  task ship[to=a]: NotExecuted (Rejected: nobody approved it in time)
            12h  task ship[to=b]: rejected by timeout
            12h  task ship[to=b]: NotExecuted (Rejected: nobody approved it in time)
            12h  run: Error (Rejected: task ship[to=a]: nobody approved it in time)
        "#]],
    );
}

#[test]
fn a_decision_that_nobody_makes_is_told() {
    check_of(
        GATED,
        "pipeline: sign, expect: {phase: Success}",
        expect![[r#"
        phase: expected Success, got Error (TimedOut: the run took longer than 6h); nobody decided on sign: say so under `approvals`
    "#]],
    );
    check_of(
        GATED,
        "pipeline: sign, cancelAfter: 1h, expect: {phase: Error, reason: Cancelled, duration: 1h}",
        expect![[r#"
            0s  task build starts
            0s  task build: Success
            0s  task sign waits for approval
            1h  shutting down (Cancelled: the test cancels it)
            1h  task sign: NotExecuted (Cancelled: the test cancels it)
            1h  run: Error (Cancelled: the test cancels it)
        "#]],
    );
}

#[test]
fn a_task_with_a_matrix_is_expected_by_its_own_name() {
    let workflow = "apiVersion: xene/v1
kind: Workflow
metadata: {name: shop}
spec:
  pipelines:
    main:
      tasks:
        test: {matrix: {os: [linux, macos]}, outputs: [id], steps: [{name: s, run: x}]}
        after: {dependencies: test, steps: [x]}
        never: {matrix: {n: [1, 2]}, when: 'false', steps: [x]}
";
    check_of(
        workflow,
        "pipeline: main, stubs: {test/s: {outputs: {id: 9}}}, expect: {phase: Success, order: [test, after], \
         notExecuted: [never], tasks: {test: {phase: Success, attempt: 1, outputs: {id: '[\"9\",\"9\"]'}}, \
         'test[os=linux]': {outputs: {id: 9}}}}",
        expect![[r#"
            0s  task never[n=1]: NotExecuted (Skipped: its `when` is false)
            0s  task never[n=2]: NotExecuted (Skipped: its `when` is false)
            0s  task test[os=linux] starts
            0s  task test[os=macos] starts
            0s  task test[os=linux]: Success
            0s  task test[os=macos]: Success
            0s  task after starts
            0s  task after: Success
            0s  run: Success
        "#]],
    );
    check_of(
        workflow,
        "pipeline: main, stubs: {'test[os=macos]/s': {exitCode: 1}}, expect: {tasks: {test: {phase: Success}}}",
        expect![[r#"
            task test: expected Success, got Error (StepFailed: step s of task test[os=macos] exited with code 1)
        "#]],
    );
}
