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
    check(
        text,
        expect![[r#"
            a.yaml:5:19: error[XE0070]: `$` is not known; an expression stands by itself, without ${{ }} (character 1 of the expression)
              |
            5 |   env: {A: {expr: "${{ params.x }}"}, B: {expr: "trigger.type.startWith('c')"}}
              |                   ^^^^^^^^^^^^^^^^^
              = hint: docs/reference/language.md#expressions has the operators and functions

            a.yaml:5:49: error[XE0072]: there is no function startWith (character 23 of the expression)
              |
            5 |   env: {A: {expr: "${{ params.x }}"}, B: {expr: "trigger.type.startWith('c')"}}
              |                                                 ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
              = hint: did you mean `startsWith`?

            a.yaml:9:19: error[XE0070]: `=` does not compare; write `==` (character 14 of the expression)
              |
            9 |         a: {when: "trigger.type = 'cron'", steps: [x]}
              |                   ^^^^^^^^^^^^^^^^^^^^^^^
              = hint: docs/reference/language.md#expressions has the operators and functions

            a.yaml:10:36: error[XE0070]: the quotes that open here are not closed (character 17 of the expression)
               |
            10 |         b: {steps: [{run: x, when: "trigger.type == 'cron"}]}
               |                                    ^^^^^^^^^^^^^^^^^^^^^^^
               = hint: docs/reference/language.md#expressions has the operators and functions

            a.yaml:11:29: error[XE0070]: the pattern can't be read: unclosed group (character 22 of the expression)
               |
            11 |         c: {env: {N: {expr: "trigger.type.matches('(')"}}, steps: [x]}
               |                             ^^^^^^^^^^^^^^^^^^^^^^^^^^^
               = hint: docs/reference/language.md#expressions has the operators and functions

            a.yaml:14:13: error[XE0070]: size is called like this: size(list) (line 2, character 7 of the expression)
               |
            14 |             trigger.type == 'cron' &&
               |             ^^^^^^^^^^^^
               = hint: docs/reference/language.md#expressions has the operators and functions
        "#]],
    );
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
    check(
        &text,
        expect![[r#"
            a.yaml:9:19: error[XE0071]: too many operations and brackets take each other's results; split the expression (character 17 of the expression)
              |
            9 |         a: {when: "((((((((((((((((((((true))))))))))))))))))))", steps: [x]}
              |                   ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
              = hint: compute it in a step, and publish the result as an output

            a.yaml:10:19: error[XE0071]: a list is gone through within going through another; only one at a time is allowed (character 19 of the expression)
               |
            10 |         b: {when: "[1].all(x, [2].all(y, x < y))", steps: [x]}
               |                   ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
               = hint: compute it in a step, and publish the result as an output
        "#]],
    );
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
    check(
        text,
        expect![[r#"
            a.yaml:6:19: error[XE0072]: there is no param `deplyo` (character 1 of the expression)
              |
            6 |   env: {A: {expr: params.deplyo}}
              |                   ^^^^^^^^^^^^^
              = hint: did you mean `deploy`?

            a.yaml:10:68: error[XE0072]: the matrix has no axis `so` (character 1 of the expression)
               |
            10 |         build: {outputs: [tag], matrix: {os: [a]}, env: {M: {expr: matrix.so}}, steps: [x]}
               |                                                                    ^^^^^^^^^
               = hint: did you mean `os`?

            a.yaml:15:23: error[XE0072]: `trigger` has no `nam` (character 1 of the expression)
               |
            15 |             A: {expr: trigger.nam}
               |                       ^^^^^^^^^^^
               = hint: did you mean `name`?

            a.yaml:16:23: error[XE0072]: this pipeline has no task `biuld` (character 1 of the expression)
               |
            16 |             B: {expr: tasks.biuld.phase}
               |                       ^^^^^^^^^^^^^^^^^
               = hint: did you mean `build`?

            a.yaml:17:23: error[XE0072]: there is no variable `all` (character 13 of the expression)
               |
            17 |             C: {expr: tasks.build-all.phase}
               |                       ^^^^^^^^^^^^^^^^^^^^^
               = hint: there is: params, trigger, tasks

            a.yaml:18:23: error[XE0072]: task `build` declares no output `tga` (character 1 of the expression)
               |
            18 |             D: {expr: tasks.build.outputs.tga}
               |                       ^^^^^^^^^^^^^^^^^^^^^^^
               = hint: did you mean `tag`?

            a.yaml:19:23: error[XE0072]: a task has no `status` (character 1 of the expression)
               |
            19 |             E: {expr: tasks.build.status}
               |                       ^^^^^^^^^^^^^^^^^^
               = hint: there is: phase, reason, exitCode, outputs

            a.yaml:20:23: error[XE0072]: this task has no `matrix` (character 1 of the expression)
               |
            20 |             F: {expr: matrix.os}
               |                       ^^^^^^^^^
               = hint: docs/reference/language.md#expressions has what an expression reads

            a.yaml:21:23: error[XE0072]: there is no variable `param` (character 1 of the expression)
               |
            21 |             G: {expr: param.deploy}
               |                       ^^^^^^^^^^^^
               = hint: did you mean `params`?

            a.yaml:22:23: error[XE0072]: this pipeline has no task `build[os=b]` (character 1 of the expression)
               |
            22 |             H: {expr: "tasks['build[os=b]'].phase"}
               |                       ^^^^^^^^^^^^^^^^^^^^^^^^^^^^
               = hint: there is: build, build-all, a

            a.yaml:25:38: error[XE0072]: there is no variable `exitcode` (character 1 of the expression)
               |
            25 |         - {from: build, to: a, when: exitcode == 0}
               |                                      ^^^^^^^^
               = hint: did you mean `exitCode`?
        "#]],
    );
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
    check(
        text,
        expect![[r#"
            a.yaml:5:19: error[XE0073]: tasks are known only within a run: read them in a task, a step or a connector (character 1 of the expression)
              |
            5 |   env: {A: {expr: tasks.a.phase}}
              |                   ^^^^^^^^^^^^^
              = hint: add that task to the dependencies of this one

            a.yaml:9:19: error[XE0073]: task `a` need not have ended by then (character 1 of the expression)
              |
            9 |         a: {when: "tasks.a.phase == ''", steps: [x]}
              |                   ^^^^^^^^^^^^^^^^^^^^^
              = hint: add that task to the dependencies of this one

            a.yaml:10:19: error[XE0073]: task `a` need not have ended by then (character 1 of the expression)
               |
            10 |         b: {when: "tasks.a.phase == 'Error'", steps: [x]}
               |                   ^^^^^^^^^^^^^^^^^^^^^^^^^^
               = hint: add `a` to the dependencies of `b`

            a.yaml:13:34: error[XE0073]: task `b` need not have ended by then (character 1 of the expression)
               |
            13 |         - {from: a, to: c, when: tasks.b.phase == 'Success'}
               |                                  ^^^^^^^^^^^^^
               = hint: add `b` to the dependencies of `a`
        "#]],
    );
}
