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
          steps: [{name: compile, run: x, timeout: 1m}, link]
        test: {dependencies: build, steps: [x], allowFailure: true}
        deploy: {dependencies: [build, test], env: {ID: {output: build.id}}, steps: [x]}
        rescue: {steps: [x]}
      connectors: [{from: deploy, to: rescue, on: Failure}]
      finally:
        tidy: {steps: [x]}
";

/// Tries one case, given without its name: what is wrong, else what happened.
#[expect(clippy::needless_pass_by_value, reason = "as `expect!` is written at the place of use")]
fn check(case: &str, expected: Expect) {
    let test = format!(
        "---\napiVersion: xene/v1\nkind: WorkflowTest\nmetadata: {{name: t}}\nspec: {{workflow: shop, cases: [{{name: c, {case}}}]}}\n"
    );
    let compiled = compile(&[("w.yaml".into(), format!("{WORKFLOW}{test}").into_bytes())]);
    assert!(compiled.problems.is_empty(), "{:#?}", compiled.problems);
    let verdict = try_case(&compiled.workflows[0].body, &compiled.tests[0].test.spec.cases[0]);
    let told: String = if verdict.mismatches.is_empty() {
        verdict.course.iter().map(|line| format!("{line}\n")).collect()
    } else {
        let line = |m: &Mismatch| format!("{}: expected {}, got {}\n", m.what, m.expected, m.got);
        verdict.mismatches.iter().map(line).collect()
    };
    expected.assert_eq(&told);
}

#[test]
fn without_stubs_all_goes_well() {
    check(
        "pipeline: main, expect: {phase: Success, notExecuted: [rescue], order: [build, test, deploy, tidy]}",
        expect![[""]],
    );
}

#[test]
fn stubs_fail_publish_and_take_their_time() {
    check(
        "pipeline: main, stubs: {build/compile: [{exitCode: 7, duration: 5s}, {duration: 1s}], build/link: {outputs: {id: 9}}, test: {exitCode: 1}}, \
         expect: {phase: Success, warnings: 1, duration: 16s, tasks: {build: {attempt: 2, outputs: {id: '9'}}, test: {phase: Error, reason: StepFailed}}}",
        expect![[""]],
    );
}

#[test]
fn timeouts_and_cancels_come_on_the_virtual_clock() {
    check(
        "pipeline: main, stubs: {build/compile: {duration: 3h}}, expect: {phase: Error, reason: TaskFailed}",
        expect![[""]],
    );
    check(
        "pipeline: main, cancelAfter: 30s, stubs: {build/link: {duration: 1h}}, expect: {reason: Cancelled, tasks: {tidy: Success}, duration: 30s}",
        expect![[""]],
    );
}

#[test]
fn whatever_is_not_as_expected_is_told() {
    check(
        "pipeline: main, stubs: {deploy: {signal: 9}}, expect: {phase: Success, reason: TimedOut, warnings: 2, duration: 1m, \
         tasks: {build: {phase: Error, attempt: 2, outputs: {id: 1}}, rescue: NotExecuted}, notExecuted: [tidy], order: [test, build]}",
        expect![[""]],
    );
}

#[test]
fn due_times_are_those_of_the_zone() {
    check(
        "trigger: nightly, from: 2026-03-28, until: 2026-03-31, expect: {firings: ['2026-03-28T02:30', '2026-03-29T03:00', '2026-03-30T00:30:00Z']}",
        expect![[""]],
    );
    check(
        "trigger: nightly, from: 2026-10-24, until: 2026-10-26, expect: {firings: ['2026-10-24T02:30', '2026-10-25T02:30+01:00']}",
        expect![[""]],
    );
}

#[test]
fn slots_bound_what_runs_at_once() {
    check(
        "pipeline: main, slots: 1, trigger: nightly, at: 2026-03-29T02:30, params: {keep: 1}, stubs: {rescue: {duration: 5s}, build/link: {outputs: {id: x}, duration: 1s}}, expect: {duration: 1s}",
        expect![[""]],
    );
}
