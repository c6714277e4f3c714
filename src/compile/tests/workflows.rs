//! Workflows whose parts do not fit together: triggers, tasks, order, what is not carried out.

use expect_test::expect;

use super::check;

#[test]
fn unsupported_parts_of_workflows() {
    let text = r#"apiVersion: xene/v1
kind: Workflow
metadata: {name: w}
spec:
  files: ["scripts/**"]
  env: {TOKEN: {secret: deploy/token}, N: {expr: 1 + 1}}
  params: {branch: {pattern: "^[a-z]+$"}}
  triggers:
    push:
      type: webhook
      auth: {type: github, secret: a/b}
      when: payload.ref == 'x'
      params: {branch: payload.ref}
  pipelines:
    p: {triggers: push, tasks: {t: {steps: [echo]}}}
"#;
    check(
        text,
        expect![[r#"
            a.yaml:6:17: error[XE0018]: `secret` is part of the language, but this version does not carry it out yet
              |
            6 |   env: {TOKEN: {secret: deploy/token}, N: {expr: 1 + 1}}
              |                 ^^^^^^
              = hint: take it out until a version carries it out
        "#]],
    );
}

#[test]
fn unsupported_parts_of_pipelines() {
    let text = r#"apiVersion: xene/v1
kind: Workflow
metadata: {name: w}
spec:
  pipelines:
    first: {tasks: {t: {steps: [echo]}}}
    p:
      after: first
      exclusive: true
      onAgentLost: Retry
      concurrency: {max: 1, group: g}
      executor: {type: container, image: alpine}
      tasks:
        a:
          when: "true"
          matrix: {os: [a, b]}
          artifacts: {save: ["*.txt"]}
          steps:
            - run: echo
              when: "true"
        b: {steps: [echo], executor: {type: container, image: alpine}}
      connectors:
        - {from: a, to: b, when: "true", approval: {message: really?}}
"#;
    check(
        text,
        expect![[r#"
            a.yaml:12:7: error[XE0018]: `type: container` is part of the language, but this version does not carry it out yet
               |
            12 |       executor: {type: container, image: alpine}
               |       ^^^^^^^^
               = hint: take it out until a version carries it out

            a.yaml:21:28: error[XE0018]: `type: container` is part of the language, but this version does not carry it out yet
               |
            21 |         b: {steps: [echo], executor: {type: container, image: alpine}}
               |                            ^^^^^^^^
               = hint: take it out until a version carries it out
        "#]],
    );
}

#[test]
fn empty_things() {
    let text = r#"apiVersion: xene/v1
kind: Workflow
metadata: {name: w}
spec:
  pipelines:
    p: {tasks: {}}
    q: {tasks: {t: {steps: []}, u: {steps: [' ', {run: []}]}}}
"#;
    check(
        text,
        expect![[r#"
            a.yaml:6:9: error[XE0020]: pipeline `p` needs at least one task
              |
            6 |     p: {tasks: {}}
              |         ^^^^^
              = hint: add something to do, or take the whole out

            a.yaml:7:21: error[XE0020]: task `t` needs at least one step
              |
            7 |     q: {tasks: {t: {steps: []}, u: {steps: [' ', {run: []}]}}}
              |                     ^^^^^
              = hint: add something to do, or take the whole out

            a.yaml:7:45: error[XE0020]: this step runs nothing
              |
            7 |     q: {tasks: {t: {steps: []}, u: {steps: [' ', {run: []}]}}}
              |                                             ^^^
              = hint: add something to do, or take the whole out

            a.yaml:7:56: error[XE0020]: a list to run begins with a program
              |
            7 |     q: {tasks: {t: {steps: []}, u: {steps: [' ', {run: []}]}}}
              |                                                        ^
              = hint: add something to do, or take the whole out
        "#]],
    );
}

#[test]
fn no_pipelines() {
    let text = r#"apiVersion: xene/v1
kind: Workflow
metadata: {name: w}
spec:
  pipelines: {}
"#;
    check(
        text,
        expect![[r#"
            a.yaml:5:3: error[XE0020]: a workflow needs at least one pipeline
              |
            5 |   pipelines: {}
              |   ^^^^^^^^^
              = hint: add something to do, or take the whole out
        "#]],
    );
}

#[test]
fn tasks_in_both_groups() {
    let text = r#"apiVersion: xene/v1
kind: Workflow
metadata: {name: w}
spec:
  pipelines:
    p:
      finally: {t: {steps: [echo]}}
      tasks:
        t: {steps: [echo]}
"#;
    check(
        text,
        expect![[r#"
            a.yaml:7:17: error[XE0021]: task `t` stands in both `tasks` and `finally`
              |
            7 |       finally: {t: {steps: [echo]}}
              |                 ^
              = hint: rename one of them
        "#]],
    );
}

#[test]
fn steps_of_one_name() {
    let text = r#"apiVersion: xene/v1
kind: Workflow
metadata: {name: w}
spec:
  pipelines:
    p:
      tasks:
        t:
          steps:
            - {name: a, run: echo}
            - {name: a, run: echo}
"#;
    check(
        text,
        expect![[r#"
            a.yaml:11:22: error[XE0021]: another step of this task is named `a`
               |
            11 |             - {name: a, run: echo}
               |                      ^
               = hint: rename one of them
        "#]],
    );
}

#[test]
fn unknown_shells() {
    let text = r#"apiVersion: xene/v1
kind: Workflow
metadata: {name: w}
spec:
  pipelines:
    p:
      tasks:
        t:
          steps:
            - {run: print(), shell: python3}
            - {run: [ls], shell: bash}
            - {run: print(), shell: []}
"#;
    check(
        text,
        expect![[r#"
            a.yaml:10:37: error[XE0022]: there is no shell named `python3`: by name there are `sh` and `bash`
               |
            10 |             - {run: print(), shell: python3}
               |                                     ^^^^^^^
               = hint: a program that takes the script as a file is written as a list: shell: [python3]

            a.yaml:11:34: error[XE0022]: a list is run without a shell
               |
            11 |             - {run: [ls], shell: bash}
               |                                  ^^^^
               = hint: remove `shell`, or write `run` as text

            a.yaml:12:37: error[XE0022]: a list for `shell` begins with a program
               |
            12 |             - {run: print(), shell: []}
               |                                     ^
               = hint: write `sh`, `bash`, or a program with its arguments as a list: shell: [python3]
        "#]],
    );
}

#[test]
fn unknown_triggers() {
    let text = r#"apiVersion: xene/v1
kind: Workflow
metadata: {name: w}
spec:
  triggers: {nightly: {type: cron, schedule: '@daily'}}
  pipelines:
    p: {triggers: [nightli], tasks: {t: {steps: [echo]}}}
    q: {trigger: push, tasks: {t: {steps: [echo]}}}
"#;
    check(
        text,
        expect![[r#"
        a.yaml:5:14: warning[XE0031]: no pipeline names trigger `nightly`: it starts nothing
          |
        5 |   triggers: {nightly: {type: cron, schedule: '@daily'}}
          |              ^^^^^^^
          = hint: add `triggers: nightly` to a pipeline

        a.yaml:7:20: error[XE0030]: this workflow has no trigger `nightli`
          |
        7 |     p: {triggers: [nightli], tasks: {t: {steps: [echo]}}}
          |                    ^^^^^^^
          = hint: did you mean `nightly`?

        a.yaml:8:18: error[XE0030]: this workflow has no trigger `push`
          |
        8 |     q: {trigger: push, tasks: {t: {steps: [echo]}}}
          |                  ^^^^
          = hint: there is: nightly
    "#]],
    );
}

#[test]
fn bad_schedules() {
    let text = r#"apiVersion: xene/v1
kind: Workflow
metadata: {name: w}
spec:
  triggers:
    a: {type: cron, schedule: '61 * * * *'}
    b: {type: cron, schedule: '@daily', timeZone: Europe/Atlantis}
  pipelines: {p: {triggers: [a, b], tasks: {t: {steps: [echo]}}}}
"#;
    check(
        text,
        expect![[r#"
            a.yaml:6:31: error[XE0032]: minute "61" is out of range; allowed is 0 to 59
              |
            6 |     a: {type: cron, schedule: '61 * * * *'}
              |                               ^^^^^^^^^^^^
              = hint: `xene cron` shows what a schedule does

            a.yaml:7:51: error[XE0032]: "Europe/Atlantis" is not a time zone of the IANA database; write a name such as Europe/Berlin or UTC
              |
            7 |     b: {type: cron, schedule: '@daily', timeZone: Europe/Atlantis}
              |                                                   ^^^^^^^^^^^^^^^
              = hint: `xene cron` shows what a schedule does
        "#]],
    );
}

#[test]
fn unknown_tasks() {
    let text = r#"apiVersion: xene/v1
kind: Workflow
metadata: {name: w}
spec:
  pipelines:
    p:
      connectors:
        - {from: test, to: deploy}
        - {from: [], to: test}
      tasks:
        build: {steps: [echo]}
        test: {steps: [echo], dependencies: [biuld]}
"#;
    check(
        text,
        expect![[r#"
            a.yaml:8:28: error[XE0040]: this pipeline has no task `deploy`
              |
            8 |         - {from: test, to: deploy}
              |                            ^^^^^^
              = hint: there is: build, test

            a.yaml:9:12: error[XE0040]: `from` names no task
              |
            9 |         - {from: [], to: test}
              |            ^^^^
              = hint: name a task of this pipeline

            a.yaml:12:46: error[XE0040]: this pipeline has no task `biuld`
               |
            12 |         test: {steps: [echo], dependencies: [biuld]}
               |                                              ^^^^^
               = hint: did you mean `build`?
        "#]],
    );
}

#[test]
fn cycles_of_tasks_printed_whole() {
    let text = r#"apiVersion: xene/v1
kind: Workflow
metadata: {name: w}
spec:
  pipelines:
    p:
      connectors: [{from: b, to: c, on: Failure}]
      tasks:
        z: {steps: [echo]}
        a: {steps: [echo], dependencies: [c, z]}
        b: {steps: [echo], dependencies: a}
        c: {steps: [echo]}
"#;
    check(
        text,
        expect![[r#"
            a.yaml:10:9: error[XE0041]: these tasks wait for each other: a → b → c → a
               |
            10 |         a: {steps: [echo], dependencies: [c, z]}
               |         ^
               = hint: take one of these arrows out
        "#]],
    );
}

#[test]
fn a_task_that_waits_for_itself() {
    let text = r#"apiVersion: xene/v1
kind: Workflow
metadata: {name: w}
spec:
  pipelines:
    p:
      tasks:
        a: {steps: [echo], dependencies: a}
"#;
    check(
        text,
        expect![[r#"
            a.yaml:8:9: error[XE0041]: task `a` waits for itself
              |
            8 |         a: {steps: [echo], dependencies: a}
              |         ^
              = hint: take it out, or name another task
        "#]],
    );
}

#[test]
fn finally_joined_to_others() {
    let text = r#"apiVersion: xene/v1
kind: Workflow
metadata: {name: w}
spec:
  pipelines:
    p:
      finally: {f: {steps: [echo], dependencies: a}}
      connectors: [{from: a, to: f}]
      tasks:
        a: {steps: [echo], dependencies: f}
"#;
    check(
        text,
        expect![[r#"
            a.yaml:7:36: error[XE0042]: tasks of `finally` wait for all others, and not for each other
              |
            7 |       finally: {f: {steps: [echo], dependencies: a}}
              |                                    ^^^^^^^^^^^^
              = hint: take it out: `when` of a task of `finally` can look at how the others ended

            a.yaml:8:34: error[XE0042]: task `f` is of `finally`, which runs after all others: nothing joins it
              |
            8 |       connectors: [{from: a, to: f}]
              |                                  ^
              = hint: take it out: `when` of a task of `finally` can look at how the others ended

            a.yaml:10:42: error[XE0042]: task `f` is of `finally`, which runs after all others: nothing joins it
               |
            10 |         a: {steps: [echo], dependencies: f}
               |                                          ^
               = hint: take it out: `when` of a task of `finally` can look at how the others ended
        "#]],
    );
}

#[test]
fn what_is_wrong_in_a_script_is_shown_in_its_line() {
    check(
        r#"apiVersion: xene/v1
kind: Workflow
metadata: {name: w}
spec:
  pipelines:
    a:
      tasks:
        t:
          steps:
            - |
              echo é begin

              if true; then
                [[ -n "$XENE_PARAM_WHO" ]] && pg_dump db | gzip > dump
              fi
              wait
            - run: |-
                make ${{ github.ref }}
            - >
              make

              echo "$XENE_PARAM_WHO"
            - {run: 'make; echo "$XENE_PARAM_WHO"'}
            - make && echo $XENE_PARAM_WHO
            - env | grep -c XENE_PARAM
"#,
        expect![[r#"
            a.yaml:14:17: warning[XE0136]: `[[` is of bash, and this script goes to `sh`
               |
            14 |                 [[ -n "$XENE_PARAM_WHO" ]] && pg_dump db | gzip > dump
               |                 ^^
               = hint: write `shell: bash`, or what `sh` has: `[`, `.`, `f() {`

            a.yaml:14:25: warning[XE0131]: nobody sets XENE_PARAM_WHO
               |
            14 |                 [[ -n "$XENE_PARAM_WHO" ]] && pg_dump db | gzip > dump
               |                         ^^^^^^^^^^^^^^^
               = hint: docs/reference/language.md has the variables that xene sets

            a.yaml:14:47: warning[XE0122]: if `pg_dump` fails here nobody notices: of a pipe, `sh` heeds only the last command
               |
            14 |                 [[ -n "$XENE_PARAM_WHO" ]] && pg_dump db | gzip > dump
               |                                               ^^^^^^^
               = hint: write `shell: bash`, which has pipefail set

            a.yaml:18:22: warning[XE0119]: `${{ github.ref }}` stands as it is: nothing is ever put into a text
               |
            18 |                 make ${{ github.ref }}
               |                      ^^^
               = hint: give the value to a variable, as in env: {WHO: {param: who}}, and write "$WHO" in the script

            a.yaml:20:15: warning[XE0131]: nobody sets XENE_PARAM_WHO
               |
            20 |               make
               |               ^^^^
               = hint: docs/reference/language.md has the variables that xene sets

            a.yaml:23:21: warning[XE0131]: nobody sets XENE_PARAM_WHO
               |
            23 |             - {run: 'make; echo "$XENE_PARAM_WHO"'}
               |                     ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
               = hint: docs/reference/language.md has the variables that xene sets

            a.yaml:24:29: warning[XE0131]: nobody sets XENE_PARAM_WHO
               |
            24 |             - make && echo $XENE_PARAM_WHO
               |                             ^^^^^^^^^^^^^^
               = hint: docs/reference/language.md has the variables that xene sets
        "#]],
    );
}

#[test]
fn handlers_of_failures_do_not_go_with_fail_fast() {
    check(
        "apiVersion: xene/v1
kind: Workflow
metadata: {name: w}
spec:
  pipelines:
    a:
      failFast: true
      tasks:
        t: {steps: [echo]}
        lax: {allowFailure: true, steps: [echo]}
        undo: {steps: [echo]}
      connectors:
        - {from: t, to: undo, on: Failure}
        - {from: [lax, t], to: undo, on: Always}
        - {from: lax, to: undo, on: Failure}
        - {from: t, to: lax}
",
        expect![[r#"
            a.yaml:13:35: warning[XE0045]: if `t` fails, `failFast` cancels what follows it, too
               |
            13 |         - {from: t, to: undo, on: Failure}
               |                                   ^^^^^^^
               = hint: put it into `finally`, with a `when` that looks at how the task ended, or take `failFast` out

            a.yaml:14:42: warning[XE0045]: if `t` fails, `failFast` cancels what follows it, too
               |
            14 |         - {from: [lax, t], to: undo, on: Always}
               |                                          ^^^^^^
               = hint: put it into `finally`, with a `when` that looks at how the task ended, or take `failFast` out

            a.yaml:15:37: warning[XE0129]: task `lax` has `allowFailure`, so that its failure counts as Success here
               |
            15 |         - {from: lax, to: undo, on: Failure}
               |                                     ^^^^^^^
               = hint: remove `allowFailure` from `lax`, or join by `on: Always`
        "#]],
    );
}
