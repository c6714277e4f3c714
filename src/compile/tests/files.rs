//! Files that travel, and artifacts.

use expect_test::{Expect, expect};
use xene_schemas::{diagnostic::Diagnostic, meta::FileHash};

use super::check;
use crate::{
    compile::{
        Limits,
        build::{CompiledFile, compile_file},
        render::render,
        wanted_files,
    },
    source::snapshot::{Travelling, What},
};

const SHIP: &str = r#"apiVersion: xene/v1
kind: Workflow
metadata: {name: w}
spec:
  files: ["scripts/**", "*.sql", "!**/*.tmp"]
  pipelines:
    p: {tasks: {a: {steps: [scripts/a.sh]}}}
"#;

fn file(path: &str, what: What) -> Travelling {
    Travelling { path: path.into(), executable: path.ends_with(".sh"), what }
}

fn kept(path: &str, size: u64) -> Travelling {
    file(path, What::File { hash: FileHash::of(path.as_bytes()), size })
}

fn compile(text: &str, found: &[Travelling]) -> CompiledFile {
    compile_file("a.yaml", text.as_bytes(), Some(found), Limits::default())
}

#[expect(clippy::needless_pass_by_value, reason = "as `expect!` is written at the place of use")]
fn check_found(text: &str, found: &[Travelling], expected: Expect) {
    let problems = compile(text, found).problems;
    let shown: Vec<String> = problems.iter().map(|problem: &Diagnostic| render(problem, Some(text))).collect();
    expected.assert_eq(&shown.join("\n"));
}

#[test]
fn patterns_that_lead_out() {
    let text = r#"apiVersion: xene/v1
kind: Workflow
metadata: {name: w}
spec:
  files: ["../secrets/**", ok]
  pipelines:
    p: {tasks: {a: {steps: [echo], artifacts: {save: [/etc/passwd, "[z-a]"]}}}}
"#;
    check(text, expect![[""]]);
}

#[test]
fn too_much_travels() {
    let many: Vec<_> = (0..4097).map(|n| kept(&format!("scripts/{n}.sh"), 1)).collect();
    check_found(SHIP, &many, expect![[""]]);
    let big = [kept("scripts/a", 20 << 20), file("x.sql", What::TooMany { size: 20 << 20 })];
    check_found(SHIP, &big, expect![[""]]);
}

#[test]
fn files_that_cannot_travel_and_patterns_that_take_none() {
    let found = [file("scripts/sub", What::Refused("is a link that leads to a folder".into()))];
    check_found(SHIP, &found, expect![[""]]);
}

#[test]
fn artifacts_that_are_not_there() {
    let text = r#"apiVersion: xene/v1
kind: Workflow
metadata: {name: w}
spec:
  pipelines:
    p:
      finally:
        sum: {steps: [echo], artifacts: {from: [build]}}
      tasks:
        build: {steps: [echo], artifacts: {save: [out], from: [build]}}
        lint: {steps: [echo], artifacts: {from: [buidl, test]}}
        test: {steps: [echo], dependencies: lint, artifacts: {from: [build]}}
        ship: {steps: [echo], dependencies: build, artifacts: {from: [build]}}
"#;
    check(text, expect![[""]]);
}

#[test]
fn a_file_is_part_of_the_workflow_and_a_revert_brings_back_the_same() {
    let found = |text: &str| {
        [
            file("scripts/a.sh", What::File { hash: FileHash::of(text.as_bytes()), size: 3 }),
            kept("x.sql", 1),
            kept("y.other", 1),
        ]
    };
    let one = compile(SHIP, &found("one"));
    assert!(one.problems.is_empty(), "{:?}", one.problems);
    let (one, two, again) =
        (&one.workflows[0], &compile(SHIP, &found("two")).workflows[0], &compile(SHIP, &found("one")).workflows[0]);
    let spec = |workflow: &super::super::build::CompiledWorkflow| workflow.body.pipelines["p"].encode().0;
    assert!(one.hash != two.hash && spec(one) != spec(two));
    assert!(one.hash == again.hash && spec(one) == spec(again));
    let files = &one.body.pipelines["p"].files;
    let shown: Vec<_> = files.iter().map(|file| (file.path.as_str(), file.executable)).collect();
    assert_eq!(shown, [("scripts/a.sh", true), ("x.sql", false)]);
}

#[test]
fn a_file_wants_what_all_of_its_workflows_do() {
    let second = SHIP.replace("name: w", "name: v").replace("scripts/**", "data/**");
    let wanted = wanted_files("a.yaml", format!("{SHIP}---\n{second}").as_bytes()).unwrap();
    assert_eq!(wanted.budget, 64 << 20);
    for path in ["scripts/a", "data/a", "x.sql", "data/x.tmp"] {
        assert!(wanted.globs.matches(path), "{path}");
    }
    assert!(wanted_files("a.yaml", SHIP.as_bytes()).is_some_and(|wanted| !wanted.globs.matches("scripts/x.tmp")));
    assert!(wanted_files("a.yaml", b"files: [x]").is_none(), "not ours");
    assert!(wanted_files("a.yaml", b"{files: [").is_none());
    let none = SHIP.replace("  files: [\"scripts/**\", \"*.sql\", \"!**/*.tmp\"]\n", "");
    assert!(wanted_files("a.yaml", none.as_bytes()).is_none());
}
