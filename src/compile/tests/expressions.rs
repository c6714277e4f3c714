//! Expressions: what can't be read, what is too large, and what reads what there is not.

use expect_test::expect;

use super::check;

#[test]
fn sound_expressions() {
    let text = r#"apiVersion: xene/v1
kind: Workflow
metadata: {name: w}
spec:
  params: {deploy: {type: boolean, default: false}}
  env: {WHO: {expr: "trigger.type + (params.deploy ? '!' : '')"}}
  pipelines:
    p:
      params: {level: {type: integer, default: 1}}
      tasks:
        build-all: {outputs: [tag], steps: [{run: x, when: "!has(tasks['build-all'].outputs.tag)"}]}
        test: {dependencies: build-all, matrix: {os: [a, b]}, when: matrix.os != 'c', steps: [x]}
        ship:
          dependencies: test
          when: params.deploy && params.level > 1 && tasks['build-all'].outputs.tag.matches('^v[0-9]+$')
          env:
            ONE: {expr: "tasks['test[os=a]'].phase + tasks.test.phase"}
            TWO: {output: "test[os=b].log", default: ""}
          steps: [x]
      connectors:
        - {from: test, to: ship, when: "phase == 'Success' && exitCode == 0 && size(outputs) == 0 && tasks['build-all'].exitCode == 0"}
      finally:
        tell: {when: "tasks.exists(t, tasks[t].phase == 'Error')", steps: [x]}
"#;
    check(text, expect![[""]]);
}

#[test]
fn expressions_that_can_not_be_read() {
    let text = r#"apiVersion: xene/v1
kind: Workflow
metadata: {name: w}
spec:
  env: {A: {expr: "${{ params.x }}"}, B: {expr: "trigger.type.startWith('c')"}}
  pipelines:
    p:
      tasks:
        a: {when: "trigger.type = 'cron'", steps: [x]}
        b: {steps: [{run: x, when: "trigger.type == 'cron"}]}
        c: {env: {N: {expr: "trigger.type.matches('(')"}}, steps: [x]}
        d:
          when: |
            trigger.type == 'cron' &&
              size()
          steps: [x]
"#;
    check(text, expect![[""]]);
}

#[test]
fn expressions_that_are_too_large() {
    let nested = format!("{}true{}", "(".repeat(20), ")".repeat(20));
    let text = format!(
        r#"apiVersion: xene/v1
kind: Workflow
metadata: {{name: w}}
spec:
  params: {{l: {{}}}}
  pipelines:
    p:
      tasks:
        a: {{when: "{nested}", steps: [x]}}
        b: {{when: "[1].all(x, [2].all(y, x < y))", steps: [x]}}
"#
    );
    check(&text, expect![[""]]);
}

#[test]
fn expressions_that_read_what_there_is_not() {
    let text = r#"apiVersion: xene/v1
kind: Workflow
metadata: {name: w}
spec:
  params: {deploy: {}}
  env: {A: {expr: params.deplyo}}
  pipelines:
    p:
      tasks:
        build: {outputs: [tag], matrix: {os: [a]}, env: {M: {expr: matrix.so}}, steps: [x]}
        build-all: {steps: [x]}
        a:
          dependencies: [build, build-all]
          env:
            A: {expr: trigger.nam}
            B: {expr: tasks.biuld.phase}
            C: {expr: tasks.build-all.phase}
            D: {expr: tasks.build.outputs.tga}
            E: {expr: tasks.build.status}
            F: {expr: matrix.os}
            G: {expr: param.deploy}
            H: {expr: "tasks['build[os=b]'].phase"}
          steps: [x]
      connectors:
        - {from: build, to: a, when: exitcode == 0}
"#;
    check(text, expect![[""]]);
}

#[test]
fn expressions_that_read_too_early() {
    let text = r#"apiVersion: xene/v1
kind: Workflow
metadata: {name: w}
spec:
  env: {A: {expr: tasks.a.phase}}
  pipelines:
    p:
      tasks:
        a: {when: "tasks.a.phase == ''", steps: [x]}
        b: {when: "tasks.a.phase == 'Error'", steps: [x]}
        c: {dependencies: b, steps: [x]}
      connectors:
        - {from: a, to: c, when: tasks.b.phase == 'Success'}
"#;
    check(text, expect![[""]]);
}
