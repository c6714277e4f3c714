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
    check(
        text,
        expect![[r#"
            a.yaml:8:13: error[XE0074]: a matrix needs an axis: a name with a list of values
              |
            8 |         a: {matrix: {}, steps: [x]}
              |             ^^^^^^
              = hint: a matrix is written as {os: [linux, mac], go: ["1.22"]}

            a.yaml:9:22: error[XE0074]: axis `os` is not a list of values
              |
            9 |         b: {matrix: {os: linux, go: [], n: [[1]], maxParallel: 0, exclude: {}}, steps: [x]}
              |                      ^^
              = hint: a matrix is written as {os: [linux, mac], go: ["1.22"]}

            a.yaml:9:33: error[XE0074]: axis `go` has no value
              |
            9 |         b: {matrix: {os: linux, go: [], n: [[1]], maxParallel: 0, exclude: {}}, steps: [x]}
              |                                 ^^
              = hint: a matrix is written as {os: [linux, mac], go: ["1.22"]}

            a.yaml:9:45: error[XE0074]: a value of axis `n` is a list or a map; only text, numbers and booleans are taken
              |
            9 |         b: {matrix: {os: linux, go: [], n: [[1]], maxParallel: 0, exclude: {}}, steps: [x]}
              |                                             ^^
              = hint: a matrix is written as {os: [linux, mac], go: ["1.22"]}

            a.yaml:9:51: error[XE0074]: `maxParallel` is a whole number above 0
              |
            9 |         b: {matrix: {os: linux, go: [], n: [[1]], maxParallel: 0, exclude: {}}, steps: [x]}
              |                                                   ^^^^^^^^^^^
              = hint: a matrix is written as {os: [linux, mac], go: ["1.22"]}

            a.yaml:9:67: error[XE0074]: `exclude` is not a list of maps, axis by value
              |
            9 |         b: {matrix: {os: linux, go: [], n: [[1]], maxParallel: 0, exclude: {}}, steps: [x]}
              |                                                                   ^^^^^^^
              = hint: a matrix is written as {os: [linux, mac], go: ["1.22"]}

            a.yaml:10:53: error[XE0075]: there is no axis `arhc`
               |
            10 |         c: {matrix: {os: [linux], include: [{os: a, arhc: b}, {}], exclude: [{so: linux}]}, steps: [x]}
               |                                                     ^^^^
               = hint: there is: os

            a.yaml:10:63: error[XE0074]: an entry of `include` is not a map, axis by value
               |
            10 |         c: {matrix: {os: [linux], include: [{os: a, arhc: b}, {}], exclude: [{so: linux}]}, steps: [x]}
               |                                                               ^
               = hint: a matrix is written as {os: [linux, mac], go: ["1.22"]}

            a.yaml:10:79: error[XE0075]: there is no axis `so`
               |
            10 |         c: {matrix: {os: [linux], include: [{os: a, arhc: b}, {}], exclude: [{so: linux}]}, steps: [x]}
               |                                                                               ^^
               = hint: did you mean `os`?

            a.yaml:11:55: error[XE0075]: an entry of `include` is a whole combination, and this one has no `arch`
               |
            11 |         d: {matrix: {os: [a, b], arch: [x], include: [{os: c}]}, steps: [x]}
               |                                                       ^^^
               = hint: an entry names the axes of its matrix, and no others

            a.yaml:12:31: error[XE0076]: `exclude` leaves no combination
               |
            12 |         e: {matrix: {os: [a], exclude: [{os: a}]}, steps: [x]}
               |                               ^^^^^^^
               = hint: take values out, or make several pipelines of it

            a.yaml:13:13: error[XE0077]: there are two instances [os=a]
               |
            13 |         f: {matrix: {os: [a, a]}, steps: [x]}
               |             ^^^^^^
               = hint: take one of them out, or rename it

            a.yaml:14:39: error[XE0077]: axes `go-version` and `go_version` would share the variable XENE_MATRIX_GO_VERSION
               |
            14 |         g: {matrix: {go-version: [1], go_version: [2]}, steps: [x]}
               |                                       ^^^^^^^^^^
               = hint: take one of them out, or rename it
        "#]],
    );
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
    check(
        &text,
        expect![[r#"
            a.yaml:7:7: error[XE0076]: each instance of one task waits for each of another: 200000 connectors; at most 100000 are run
              |
            7 |       tasks:
              |       ^^^^^
              = hint: let a task without a matrix stand between them

            a.yaml:8:13: error[XE0076]: there are more than 256 combinations
              |
            8 |         b: {matrix: {n: &n [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35…
              |             ^^^^^^
              = hint: take values out, or make several pipelines of it
        "#]],
    );
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
    check(
        text,
        expect![[r#"
            a.yaml:9:55: error[XE0078]: `onTimeout` says what silence means, but without a `timeout` it never counts
              |
            9 |         - {from: a, to: b, approval: {message: Sure?, onTimeout: Approve}}
              |                                                       ^^^^^^^^^
              = hint: add a `timeout`

            a.yaml:10:48: error[XE0078]: with a `timeout` of 0 nobody can answer in time
               |
            10 |         - {from: a, to: b, approval: {timeout: 0s}}
               |                                                ^^
               = hint: leave time to answer, such as `timeout: 1d`
        "#]],
    );
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
    check(
        text,
        expect![[r#"
            a.yaml:6:18: error[XE0079]: the pattern can't be read: unclosed group
              |
            6 |     a: {pattern: "("}
              |                  ^^^
              = hint: see https://docs.rs/regex/latest/regex/#syntax for what a pattern may hold

            a.yaml:7:18: error[XE0079]: the pattern is too large; repeat less often
              |
            7 |     b: {pattern: "(a{1000}){1000}"}
              |                  ^^^^^^^^^^^^^^^^^
              = hint: see https://docs.rs/regex/latest/regex/#syntax for what a pattern may hold

            a.yaml:8:37: error[XE0050]: the default does not fit: param c takes text that matches [a-z]+, not "Main"
              |
            8 |     c: {pattern: "[a-z]+", default: Main}
              |                                     ^^^^
              = hint: let the declaration fit itself: `type`, `choices`, `default`

            a.yaml:10:62: error[XE0052]: param d takes text that matches v[0-9]+, not "1", as pipeline `p` declares it
               |
            10 |   triggers: {t: {type: cron, schedule: "@daily", params: {d: 1}}}
               |                                                              ^
               = hint: mend the value, or the declaration of the param
        "#]],
    );
}
