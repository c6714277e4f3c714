//! `xene test`: what it prints, and what its exit status says.

use std::{fs, path::Path};

use xene_test_support::process::{Ended, run, xene};

const WORKFLOW: &str = "apiVersion: xene/v1\nkind: Workflow\nmetadata: {name: w}\nspec: {pipelines: {p: {tasks: {a: {steps: [x]}, b: {dependencies: a, steps: [x]}}}}}\n";

fn test(cases: &str) -> String {
    format!("apiVersion: xene/v1\nkind: WorkflowTest\nmetadata: {{name: t}}\nspec:\n  workflow: w\n  cases:\n{cases}")
}

fn xene_test(folder: &Path, arguments: &[&str]) -> Ended {
    let mut command = xene(folder);
    command.arg("test");
    run(command, arguments)
}

const GOOD: &str = "    - {name: fine, pipeline: p, expect: {phase: Success}}\n";
const BAD: &str = "    - name: <wrong> & \"odd\"\n      pipeline: p\n      stubs: {a: {exitCode: 1}}\n      expect:\n        phase: Success\n        tasks:\n          b: Success\n";

#[test]
fn failures_are_told_with_their_place() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path();
    fs::write(place.join("w.yaml"), WORKFLOW).unwrap();
    fs::write(place.join("w.test.yaml"), test(GOOD)).unwrap();
    let good = xene_test(place, &["."]).expect(0);
    assert_eq!((good.stdout.as_str(), good.stderr.as_str()), ("ok   t: fine\n", "1 case: all passed\n"));
    // The file alone is tried against the workflows beside it.
    xene_test(place, &["w.test.yaml"]).expect(0);

    fs::write(place.join("w.test.yaml"), test(&format!("{GOOD}{BAD}"))).unwrap();
    let bad = xene_test(place, &["w.test.yaml", "--junit", "out.xml"]).expect(1);
    for line in [
        "FAIL t: <wrong> & \"odd\"",
        "  w.test.yaml:12:16: phase: expected Success, got Error (TaskFailed: step step-1 of task a exited with code 1)",
        "  w.test.yaml:14:14: task b: expected Success, got NotExecuted (UpstreamFailed: upstream task a ended in Error)",
    ] {
        assert!(bad.stdout.lines().any(|printed| printed == line), "{line:?} is missing:\n{}", bad.stdout);
    }
    assert_eq!(bad.stderr, "2 cases: 1 passed, 1 failed\n");
    let xml = fs::read_to_string(place.join("out.xml")).unwrap();
    assert!(xml.contains("<testsuite name=\"t\" tests=\"2\" failures=\"1\">"), "{xml}");
    assert!(
        xml.contains("name=\"&lt;wrong&gt; &amp; &quot;odd&quot;\"") && xml.contains("file=\"w.test.yaml\""),
        "{xml}"
    );
    let json = xene_test(place, &["w.test.yaml", "-o", "json"]).expect(1).json();
    assert_eq!((&json["passed"], &json["failed"]), (&1.into(), &1.into()), "{json:#}");
    assert_eq!(json["items"][1]["failures"][0]["line"], 12, "{json:#}");
}

#[test]
fn approvals_are_part_of_a_case() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path();
    let connectors = "connectors: [{from: a, to: b, approval: {}}], tasks: {a: {steps: [x]}, b: {steps: [x]}}";
    let workflow = WORKFLOW.replace("tasks: {a: {steps: [x]}, b: {dependencies: a, steps: [x]}}", connectors);
    fs::write(place.join("w.yaml"), workflow).unwrap();
    let case = |name: &str, approvals: &str, then: &str| {
        let phase = if name == "no" { "Error" } else { "Success" };
        format!("    - {{name: {name}, pipeline: p, {approvals}expect: {{phase: {phase}, tasks: {{b: {then}}}}}}}\n")
    };
    let yes = case("yes", "approvals: {b: Approve}, ", "Success");
    let no = case("no", "approvals: {b: Reject}, ", "{phase: NotExecuted, reason: Rejected}");
    fs::write(place.join("w.test.yaml"), test(&format!("{yes}{no}"))).unwrap();
    assert_eq!(xene_test(place, &["."]).expect(0).stdout, "ok   t: yes\nok   t: no\n");
    fs::write(place.join("w.test.yaml"), test(&case("silence", "", "Success"))).unwrap();
    let silent = xene_test(place, &["."]).expect(1);
    assert!(silent.stdout.contains("nobody decided on b: say so under `approvals`"), "{silent:#?}");
    assert!(silent.stdout.contains("task b waits for approval"), "{silent:#?}");
}

#[test]
fn tests_that_cannot_be_tried_are_diagnostics() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path();
    fs::write(place.join("w.yaml"), WORKFLOW).unwrap();
    let none = xene_test(place, &["w.yaml"]).expect(2);
    assert!(none.stderr.contains("kind: WorkflowTest"), "{none:#?}");
    fs::write(
        place.join("w.test.yaml"),
        test("    - {name: c, pipeline: p, stubs: {build: {}}, expect: {phase: Success}}\n"),
    )
    .unwrap();
    let wrong = xene_test(place, &["."]).expect(1);
    assert!(wrong.stderr.contains("w.test.yaml:7:38: error[XE0153]: there is no task `build`"), "{wrong:#?}");
    xene_test(place, &["absent"]).expect(2);
}

#[test]
fn the_tests_of_the_examples_pass() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let passed = xene_test(&examples, &["."]).expect(0);
    for name in
        ["nightly-backup: once a night, also when clocks change", "data-pipeline: one at a time if there is one slot"]
    {
        assert!(passed.stdout.contains(&format!("ok   {name}\n")), "{passed:#?}");
    }
}
