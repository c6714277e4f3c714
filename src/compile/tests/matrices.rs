//! Matrices, approvals and patterns.

use expect_test::expect;

use super::check;

#[test]
fn matrices_written_wrongly() {
    let text = r#"apiVersion: xene/v1
kind: Workflow
metadata: {name: w}
spec:
  pipelines:
    p:
      tasks:
        a: {matrix: {}, steps: [x]}
        b: {matrix: {os: linux, go: [], n: [[1]], maxParallel: 0, exclude: {}}, steps: [x]}
        c: {matrix: {os: [linux], include: [{os: a, arhc: b}, {}], exclude: [{so: linux}]}, steps: [x]}
        d: {matrix: {os: [a, b], arch: [x], include: [{os: c}]}, steps: [x]}
        e: {matrix: {os: [a], exclude: [{os: a}]}, steps: [x]}
        f: {matrix: {os: [a, a]}, steps: [x]}
        g: {matrix: {go-version: [1], go_version: [2]}, steps: [x]}
"#;
    check(text, expect![[""]]);
}

#[test]
fn matrices_that_are_too_large() {
    let axis: Vec<String> = (0..100).map(|n| n.to_string()).collect();
    let axis = axis.join(", ");
    let pairs: String = (0..21).map(|n| format!("        a{n}: {{matrix: {{n: [{axis}]}}, steps: [x]}}\n")).collect();
    let joins: String = (0..20).map(|n| format!("        - {{from: a{n}, to: a{}}}\n", n + 1)).collect();
    let text = format!(
        "apiVersion: xene/v1\nkind: Workflow\nmetadata: {{name: w}}\nspec:\n  pipelines:\n    p:\n      tasks:\n        \
         b: {{matrix: {{n: &n [{axis}], m: *n}}, steps: [x]}}\n{pairs}      connectors:\n{joins}"
    );
    check(&text, expect![[""]]);
}

#[test]
fn approvals_that_ask_nobody() {
    let text = r#"apiVersion: xene/v1
kind: Workflow
metadata: {name: w}
spec:
  pipelines:
    p:
      tasks: {a: {steps: [x]}, b: {steps: [x]}}
      connectors:
        - {from: a, to: b, approval: {message: Sure?, onTimeout: Approve}}
        - {from: a, to: b, approval: {timeout: 0s}}
"#;
    check(text, expect![[""]]);
}

#[test]
fn patterns_and_what_they_refuse() {
    let text = r#"apiVersion: xene/v1
kind: Workflow
metadata: {name: w}
spec:
  params:
    a: {pattern: "("}
    b: {pattern: "(a{1000}){1000}"}
    c: {pattern: "[a-z]+", default: Main}
    d: {pattern: "v[0-9]+", default: v1}
  triggers: {t: {type: cron, schedule: "@daily", params: {d: 1}}}
  pipelines: {p: {triggers: t, tasks: {t: {steps: [x]}}}}
"#;
    check(text, expect![[""]]);
}
