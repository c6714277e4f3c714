//! Hostile and broken files: refused with a sentence, soon, and in little memory.

use std::time::Duration;

use expect_test::{Expect, expect};

use crate::compile::{
    convert,
    render::{Lines, render},
    validate,
};

/// CPU time of the thread, which a loaded machine does not stretch as it does the wall's.
fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap())
}

fn refuse(text: impl AsRef<[u8]>, expected: Expect) {
    let began = cpu();
    let (count, problems) = validate(&[("a.yaml".to_owned(), text.as_ref().to_vec())]);
    let took = cpu() - began;
    assert_eq!(count, 0);
    expected.assert_eq(&problems.iter().map(|problem| render(problem, None)).collect::<String>());
    assert!(took < Duration::from_millis(200), "took {took:?}");
}

#[test]
fn files_above_a_mebibyte() {
    refuse(
        vec![b'a'; 10 << 20],
        expect![[r#"
            a.yaml: error[XE0002]: this file has more than 1 MiB, and so is not read
              = hint: make several files of it
        "#]],
    );
}

/// 80,000 documents with a problem each.
#[test]
fn many_problems_take_little_time_and_few_are_told() {
    let text = "---\nkind: x\n".repeat(80_000);
    let began = cpu();
    let (_, problems) = validate(&[("a.yaml".to_owned(), text.clone().into_bytes())]);
    let lines = Lines::of(&text);
    let shown: Vec<String> = problems.iter().map(|problem| lines.render(problem)).collect();
    let took = cpu() - began;
    assert_eq!(shown.len(), 200);
    assert!(shown[199].contains("; and 79800 more problems in this file\n"), "{}", shown[199]);
    assert!(shown[199].contains("\n400 | kind: x\n"), "{}", shown[199]);
    assert!(took < Duration::from_secs(20), "took {took:?}");
}

#[test]
fn text_that_is_not_utf8() {
    refuse(
        b"apiVersion: xene/v1\nkind: W\xff\n",
        expect![[r#"
        a.yaml:2:1: error[XE0003]: this line is not UTF-8 text
          = hint: save the file as UTF-8
    "#]],
    );
}

#[test]
fn alias_bombs() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..10 {
        let before = format!("*a{}", i - 1);
        let list = [before.as_str(); 9].join(", ");
        text = format!("{text}a{i}: &a{i} [{list}]\n");
    }
    refuse(
        text,
        expect![[r#"
            a.yaml:5:15: error[XE0008]: the aliases of this document expand to far more than it says
              = hint: write out what is meant
        "#]],
    );
}

#[test]
fn long_texts_aliased_often() {
    let text = format!("a: &a {}\nb: [{}]\n", "x".repeat(500_000), ["*a"; 1000].join(","));
    refuse(
        text,
        expect![[r#"
            a.yaml:2:11: error[XE0008]: the aliases of this document expand to far more than it says
              = hint: write out what is meant
        "#]],
    );
}

#[test]
fn deep_nesting_of_every_form() {
    refuse(
        "[".repeat(20_000),
        expect![[r#"
            a.yaml:1:256: error[XE0007]: this is nested more than 64 levels deep
              = hint: a workflow needs far fewer levels: this is most often data
        "#]],
    );
    refuse(
        "a: {".repeat(20_000),
        expect![[r#"
            a.yaml:1:256: error[XE0007]: this is nested more than 64 levels deep
              = hint: a workflow needs far fewer levels: this is most often data
        "#]],
    );
    refuse(
        "- ".repeat(20_000),
        expect![[r#"
            a.yaml:1:129: error[XE0007]: this is nested more than 64 levels deep
              = hint: a workflow needs far fewer levels: this is most often data
        "#]],
    );
    refuse(
        (0..1000).map(|n| format!("{}a:\n", " ".repeat(n))).collect::<String>(),
        expect![[r#"
            a.yaml:65:65: error[XE0007]: this is nested more than 64 levels deep
               = hint: a workflow needs far fewer levels: this is most often data
        "#]],
    );
    let aliases = (1..70).map(|n| format!("a{n}: &a{n} [*a{}]\n", n - 1)).collect::<String>();
    refuse(
        format!("a0: &a0 x\n{aliases}"),
        expect![[r#"
            a.yaml:65:12: error[XE0007]: this is nested more than 64 levels deep
               = hint: a workflow needs far fewer levels: this is most often data
        "#]],
    );
}

#[test]
fn brackets_without_end() {
    refuse(
        "[".repeat(1 << 20),
        expect![[r#"
            a.yaml:1:256: error[XE0007]: this is nested more than 64 levels deep
              = hint: a workflow needs far fewer levels: this is most often data
        "#]],
    );
    refuse(
        "[]".repeat(1 << 16),
        expect![[r#"
            a.yaml:1:3: error[XE0004]: this is not YAML: did not find expected <document start>
              = hint: look at the line above, too: most often a quote, a bracket or an indentation is to blame
        "#]],
    );
    refuse(
        format!("{}{}", "[".repeat(60), "a,".repeat(10_000)),
        expect![[r#"
            a.yaml:2:1: error[XE0004]: this is not YAML: did not find expected node content, while parsing a flow node
              = hint: look at the line above, too: most often a quote, a bracket or an indentation is to blame
        "#]],
    );
}

#[test]
fn ten_thousand_problems_in_one_file() {
    let tasks = (0..5_000).map(|n| format!("      t{n}: {{steps: [echo], dependencies: [t{}]}}\n", (n + 1) % 5_000));
    let head = "apiVersion: xene/v1\nkind: Workflow\nmetadata: {name: w}\nspec:\n  pipelines:\n    p:\n     tasks:\n";
    let (_, problems) = validate(&[("a.yaml".to_owned(), (head.to_owned() + &tasks.collect::<String>()).into_bytes())]);
    let [problem] = &problems[..] else { panic!("{} problems", problems.len()) };
    assert_eq!((problem.code.as_str(), problem.line), ("XE0041", 8));
}

#[test]
fn sixty_four_levels_pass() {
    let (open, close) = ("[".repeat(63), "]".repeat(63));
    assert_eq!(validate(&[("a.yaml".to_owned(), format!("a: {open}{close}").into_bytes())]), (0, Vec::new()));
}

/// What hostile files hold, each in another way.
fn hostile() -> Vec<(&'static str, Vec<u8>)> {
    let mut bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n".to_owned();
    for (before, now) in "abcdefghijk".chars().zip("bcdefghijkl".chars()) {
        let list = [format!("*{before}").as_str(); 9].join(",");
        bomb = format!("{bomb}{now}: &{now} [{list}]\n");
    }
    assert!(bomb.len() < 430);
    let fields = "x: 1\n".repeat(4_000);
    let header = "apiVersion: xene/v1\nkind: Workflow\n";
    [
        bomb,
        "[".repeat(20_000),
        "a: {".repeat(20_000),
        "- ".repeat(20_000),
        "x".repeat(10 << 20),
        format!("{header}{fields}"),
        format!("{header}metadata: {{name: w}}\nspec: {{pipelines: [{}]}}", "1,".repeat(20_000)),
        format!("{header}spec: \"{}\"", "\\u0041".repeat(20_000)),
    ]
    .map(|text| ("a.yaml", text.into_bytes()))
    .into_iter()
    .chain(["1", "{}"].map(|value| {
        let count = (1 << 20) / (value.len() + 1) - 1;
        ("a.json", format!("[{}]", vec![value; count].join(",")).into_bytes())
    }))
    .collect()
}

/// Runs in a process of its own, whose memory nothing else uses.
#[test]
fn hostile_files_take_little_time_and_memory() {
    const INSIDE: &str = "XENE_TEST_INSIDE";
    if std::env::var_os(INSIDE).is_none() {
        let name = "compile::tests::limits::hostile_files_take_little_time_and_memory";
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        let ended = child.args([name, "--exact", "--test-threads=1"]).env(INSIDE, "1").output().unwrap();
        let said = String::from_utf8_lossy(&ended.stdout);
        assert!(ended.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    for (path, bytes) in hostile() {
        let began = cpu();
        let (count, problems) = validate(&[(path.to_owned(), bytes)]);
        let took = cpu() - began;
        assert!(count == 0 && !problems.is_empty());
        assert!(took < Duration::from_millis(200), "took {took:?}: {:?}", problems[0]);
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kib: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(kib < 64 << 10, "{kib} KiB at most");
}

#[test]
fn what_the_fuzzer_found_once_gives_an_answer() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/yaml");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        validate(&[("a.yaml".to_owned(), bytes.clone()), ("b.json".to_owned(), bytes.clone())]);
        if let Some(converted) = convert("a.yaml", &bytes) {
            validate(&[("a.yaml".to_owned(), converted.into_bytes())]);
        }
        count += 1;
    }
    assert!(count > 10, "{count}");
}

proptest::proptest! {
    #[test]
    fn any_bytes_give_an_answer(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
        validate(&[("a.yaml".to_owned(), bytes.clone()), ("b.json".to_owned(), bytes)]);
    }

    #[test]
    fn any_text_of_yaml_signs_gives_an_answer(text in "[-a:?&*!|>'\"%@`{}\\[\\],# \t\n.0<x]{0,200}") {
        validate(&[("a.yaml".to_owned(), text.clone().into_bytes()), ("b.json".to_owned(), text.into_bytes())]);
    }

    #[test]
    fn any_damage_to_a_workflow_gives_an_answer(at in 0usize..400, cut in 0usize..40, put in "[-a:&*!{}\\[\\] \n]{0,6}") {
        let text = include_str!("../catalog/example.yaml");
        let (start, end) = (at.min(text.len()), (at + cut).min(text.len()));
        let damaged = format!("{}{put}{}", &text[..start], &text[end..]);
        let (_, problems) = validate(&[("a.yaml".to_owned(), damaged.clone().into_bytes())]);
        for problem in problems {
            proptest::prop_assert!(problem.line as usize <= damaged.lines().count() + 1, "{}", problem);
            render(&problem, Some(&damaged));
        }
    }
}
