//! Files that travel, and artifacts.

use xene_schemas::meta::FileHash;

use crate::{
    compile::{
        Limits,
        build::{CompiledFile, compile_file},
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

/// The problems of a file: code, line, and what they say.
fn problems(text: &str, found: &[Travelling]) -> Vec<(String, u32, String)> {
    let problems = compile(text, found).problems.into_iter();
    problems.map(|problem| (problem.code, problem.line, problem.message)).collect()
}

#[test]
fn too_much_travels() {
    let many: Vec<_> = (0..4097).map(|n| kept(&format!("scripts/{n}.sh"), 1)).collect();
    let told = problems(SHIP, &[many, vec![kept("x.sql", 1)]].concat());
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].0 == "XE0101" && told[0].2.contains("more than 4096 files"), "{told:?}");
    let big = [kept("scripts/a", 20 << 20), file("x.sql", What::TooMany { size: 20 << 20 })];
    let told = problems(SHIP, &big);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].0 == "XE0101" && told[0].2.contains("2 files with 40 MiB"), "{told:?}");
    assert_eq!(problems(SHIP, &[kept("scripts/a", 31 << 20), kept("x.sql", 1 << 20)]), []);
}

#[test]
fn files_that_cannot_travel_and_patterns_that_take_none() {
    let found = [file("scripts/sub", What::Refused("is a link that leads to a folder".into()))];
    let told = problems(SHIP, &found);
    let codes: Vec<_> = told.iter().map(|(code, line, _)| (code.as_str(), *line)).collect();
    assert_eq!(codes, [("XE0102", 5), ("XE0103", 5)], "{told:?}");
    assert!(told[0].2.contains("`scripts/sub` is a link that leads to a folder"), "{told:?}");
    assert!(told[1].2.contains("`*.sql` takes no file"), "{told:?}");
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
