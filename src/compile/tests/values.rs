//! Params, variables, outputs and numbers.

use expect_test::expect;

use super::check;

#[test]
fn unknown_pipelines_and_cycles_of_them() {
    let text = r#"apiVersion: xene/v1
kind: Workflow
metadata: {name: w}
spec:
  pipelines:
    a: {after: b, tasks: {t: {steps: [echo]}}}
    b: {after: [a, c], tasks: {t: {steps: [echo]}}}
"#;
    check(
        text,
        expect![[r#"
            a.yaml:6:5: error[XE0044]: these pipelines wait for each other: a → b → a
              |
            6 |     a: {after: b, tasks: {t: {steps: [echo]}}}
              |     ^
              = hint: take one of these arrows out

            a.yaml:7:20: error[XE0043]: this workflow has no pipeline `c`
              |
            7 |     b: {after: [a, c], tasks: {t: {steps: [echo]}}}
              |                    ^
              = hint: there is: a, b
        "#]],
    );
}

#[test]
fn params_declared_wrongly() {
    let text = r#"apiVersion: xene/v1
kind: Workflow
metadata: {name: w}
spec:
  params:
    n: {type: integer, default: many}
    c: {type: choice}
    d: {choices: [a]}
    e: {type: choice, choices: [a, b], default: c}
  pipelines: {p: {tasks: {t: {steps: [echo]}}}}
"#;
    check(
        text,
        expect![[r#"
            a.yaml:6:33: error[XE0050]: the default does not fit: param n takes a whole number, not "many"
              |
            6 |     n: {type: integer, default: many}
              |                                 ^^^^
              = hint: let the declaration fit itself: `type`, `choices`, `default`

            a.yaml:7:5: error[XE0050]: param `c` has no `choices` to choose from
              |
            7 |     c: {type: choice}
              |     ^
              = hint: let the declaration fit itself: `type`, `choices`, `default`

            a.yaml:8:9: error[XE0050]: `choices` belong to `type: choice`
              |
            8 |     d: {choices: [a]}
              |         ^^^^^^^
              = hint: write `type: choice`

            a.yaml:9:49: error[XE0050]: the default does not fit: param e takes one of a, b, not "c"
              |
            9 |     e: {type: choice, choices: [a, b], default: c}
              |                                                 ^
              = hint: let the declaration fit itself: `type`, `choices`, `default`
        "#]],
    );
}

#[test]
fn params_that_share_a_variable() {
    let text = r#"apiVersion: xene/v1
kind: Workflow
metadata: {name: w}
spec:
  params: {a-b: {}, a.b: {}}
  pipelines: {p: {params: {A-B: {}}, tasks: {t: {steps: [echo]}}}}
"#;
    check(
        text,
        expect![[r#"
            a.yaml:5:21: error[XE0051]: params `a-b` and `a.b` would share the variable XENE_PARAM_A_B
              |
            5 |   params: {a-b: {}, a.b: {}}
              |                     ^^^
              = hint: rename one of them

            a.yaml:6:28: error[XE0051]: params `a.b` and `A-B` would share the variable XENE_PARAM_A_B
              |
            6 |   pipelines: {p: {params: {A-B: {}}, tasks: {t: {steps: [echo]}}}}
              |                            ^^^
              = hint: rename one of them
        "#]],
    );
}

#[test]
fn triggers_that_give_wrong_params() {
    let text = r#"apiVersion: xene/v1
kind: Workflow
metadata: {name: w}
spec:
  params: {level: {type: integer}, who: {required: true}}
  triggers:
    nightly: {type: cron, schedule: '@daily', params: {level: high, leve: 3}}
    push: {type: webhook}
  pipelines:
    p: {triggers: [nightly, push], tasks: {t: {steps: [echo]}}}
"#;
    check(
        text,
        expect![[r#"
            a.yaml:7:63: error[XE0052]: param level takes a whole number, not "high", as pipeline `p` declares it
              |
            7 |     nightly: {type: cron, schedule: '@daily', params: {level: high, leve: 3}}
              |                                                               ^^^^
              = hint: mend the value, or the declaration of the param

            a.yaml:7:69: error[XE0052]: pipeline `p` has no param `leve`
              |
            7 |     nightly: {type: cron, schedule: '@daily', params: {level: high, leve: 3}}
              |                                                                     ^^^^
              = hint: did you mean `level`?

            a.yaml:10:20: error[XE0052]: param `who` is required, and trigger `nightly` does not give it
               |
            10 |     p: {triggers: [nightly, push], tasks: {t: {steps: [echo]}}}
               |                    ^^^^^^^
               = hint: give it a default, or let the trigger give it

            a.yaml:10:29: error[XE0052]: param `who` is required, and trigger `push` does not give it
               |
            10 |     p: {triggers: [nightly, push], tasks: {t: {steps: [echo]}}}
               |                             ^^^^
               = hint: give it a default, or let the trigger give it
        "#]],
    );
}

#[test]
fn variables_that_can_not_be() {
    let text = r#"apiVersion: xene/v1
kind: Workflow
metadata: {name: w}
spec:
  env: {1A: b, XENE_RUN_ID: c, XENE_PARAM_X: d, 'A B': e, OK: "a\0b"}
  pipelines: {p: {tasks: {t: {steps: [echo]}}}}
"#;
    check(
        text,
        expect![[r#"
            a.yaml:5:9: error[XE0053]: "1A" can't name a variable: letters, digits and _ can, not beginning with a digit
              |
            5 |   env: {1A: b, XENE_RUN_ID: c, XENE_PARAM_X: d, 'A B': e, OK: "a\0b"}
              |         ^^
              = hint: choose another name, or another value

            a.yaml:5:16: error[XE0053]: XENE_RUN_ID is set by xene itself
              |
            5 |   env: {1A: b, XENE_RUN_ID: c, XENE_PARAM_X: d, 'A B': e, OK: "a\0b"}
              |                ^^^^^^^^^^^
              = hint: choose another name, or another value

            a.yaml:5:32: error[XE0053]: XENE_PARAM_X is set by xene itself
              |
            5 |   env: {1A: b, XENE_RUN_ID: c, XENE_PARAM_X: d, 'A B': e, OK: "a\0b"}
              |                                ^^^^^^^^^^^^
              = hint: choose another name, or another value

            a.yaml:5:49: error[XE0053]: "A B" can't name a variable: letters, digits and _ can, not beginning with a digit
              |
            5 |   env: {1A: b, XENE_RUN_ID: c, XENE_PARAM_X: d, 'A B': e, OK: "a\0b"}
              |                                                 ^^^^^
              = hint: choose another name, or another value

            a.yaml:5:63: error[XE0053]: a variable can't hold a NUL character
              |
            5 |   env: {1A: b, XENE_RUN_ID: c, XENE_PARAM_X: d, 'A B': e, OK: "a\0b"}
              |                                                               ^^^^^^
              = hint: choose another name, or another value
        "#]],
    );
}

#[test]
fn unknown_params() {
    let text = r#"apiVersion: xene/v1
kind: Workflow
metadata: {name: w}
spec:
  params: {branch: {}}
  env: {A: {param: brunch}}
  pipelines: {p: {params: {x: {}}, tasks: {t: {env: {B: {param: x}, C: {param: branch}}, steps: [{run: echo, env: {D: {param: y}}}]}}}}
"#;
    check(
        text,
        expect![[r#"
        a.yaml:6:20: error[XE0054]: there is no param `brunch`
          |
        6 |   env: {A: {param: brunch}}
          |                    ^^^^^^
          = hint: did you mean `branch`?

        a.yaml:7:127: error[XE0054]: there is no param `y`
          |
        7 |   pipelines: {p: {params: {x: {}}, tasks: {t: {env: {B: {param: x}, C: {param: branch}}, steps: [{run: echo, env: {D: {param: y}}}]}}}}
          |                                                                                                                               ^
          = hint: there is: branch, x
    "#]],
    );
}

#[test]
fn unknown_outputs() {
    let text = r#"apiVersion: xene/v1
kind: Workflow
metadata: {name: w}
spec:
  pipelines:
    p:
      connectors: [{from: a, to: c2, outputs: {X: verion}}]
      tasks:
        a: {steps: [echo], outputs: [version]}
        b:
          dependencies: a
          env: {V: {output: a.vresion}, W: {output: c.x}}
          steps: [echo]
        c2: {steps: [echo]}
"#;
    check(
        text,
        expect![[r#"
        a.yaml:7:51: error[XE0055]: task `a` declares no output `verion`
          |
        7 |       connectors: [{from: a, to: c2, outputs: {X: verion}}]
          |                                                   ^^^^^^
          = hint: did you mean `version`?

        a.yaml:12:29: error[XE0055]: task `a` declares no output `vresion`
           |
        12 |           env: {V: {output: a.vresion}, W: {output: c.x}}
           |                             ^^^^^^^^^
           = hint: did you mean `version`?

        a.yaml:12:53: error[XE0055]: this pipeline has no task `c`
           |
        12 |           env: {V: {output: a.vresion}, W: {output: c.x}}
           |                                                     ^^^
           = hint: there is: a, b, c2
    "#]],
    );
}

#[test]
fn outputs_read_too_early() {
    let text = r#"apiVersion: xene/v1
kind: Workflow
metadata: {name: w}
spec:
  env: {V: {output: a.v}}
  pipelines:
    p:
      tasks:
        a: {steps: [echo]}
        b: {steps: [{run: echo, env: {V: {output: a.v, default: x}}}]}
"#;
    check(
        text,
        expect![[r#"
            a.yaml:5:21: error[XE0056]: outputs are known only within a run: refer to them in a task or step
              |
            5 |   env: {V: {output: a.v}}
              |                     ^^^
              = hint: write it in `env` of a task or step that depends on the publisher

            a.yaml:10:51: error[XE0056]: task `a` need not have run when `b` starts
               |
            10 |         b: {steps: [{run: echo, env: {V: {output: a.v, default: x}}}]}
               |                                                   ^^^
               = hint: add `a` to the dependencies of `b`
        "#]],
    );
}

#[test]
fn outputs_that_need_a_default() {
    let text = r#"apiVersion: xene/v1
kind: Workflow
metadata: {name: w}
spec:
  pipelines:
    p:
      connectors: [{from: a, to: b, on: Always}]
      finally:
        f: {steps: [echo], env: {V: {output: a.v}, W: {output: a.v, default: none}}}
      tasks:
        a: {steps: [echo]}
        b: {steps: [echo], env: {V: {output: a.v}}}
"#;
    check(
        text,
        expect![[r#"
        a.yaml:9:46: error[XE0057]: task `a` may fail or be left out, and then there is no `v`
          |
        9 |         f: {steps: [echo], env: {V: {output: a.v}, W: {output: a.v, default: none}}}
          |                                              ^^^
          = hint: write {output: a.v, default: …}

        a.yaml:12:46: error[XE0057]: task `a` may fail or be left out, and then there is no `v`
           |
        12 |         b: {steps: [echo], env: {V: {output: a.v}}}
           |                                              ^^^
           = hint: write {output: a.v, default: …}
    "#]],
    );
}

#[test]
fn numbers_out_of_range() {
    let text = r#"apiVersion: xene/v1
kind: Workflow
metadata: {name: w}
spec:
  pipelines:
    p:
      autonomy: 10s
      concurrency: {max: 0}
      queueTimeout: 0s
      tasks:
        a: {steps: [{run: echo, retry: {attempts: 0}}], retry: {attempts: 101, backoff: 0.5}, timeout: 0s}
"#;
    check(
        text,
        expect![[r#"
            a.yaml:7:17: error[XE0060]: autonomy is from 30s to 24h, or Forever, not 10s
              |
            7 |       autonomy: 10s
              |                 ^^^
              = hint: choose a value within the range

            a.yaml:8:26: error[XE0060]: `max` is at least 1
              |
            8 |       concurrency: {max: 0}
              |                          ^
              = hint: to keep a pipeline from running, write `suspend: true`

            a.yaml:9:21: error[XE0060]: a timeout of 0 leaves no time at all
              |
            9 |       queueTimeout: 0s
              |                     ^^
              = hint: choose a value within the range

            a.yaml:11:51: error[XE0060]: `attempts` is from 1 to 100, not 0
               |
            11 |         a: {steps: [{run: echo, retry: {attempts: 0}}], retry: {attempts: 101, backoff: 0.5}, timeout: 0s}
               |                                                   ^
               = hint: choose a value within the range

            a.yaml:11:75: error[XE0060]: `attempts` is from 1 to 100, not 101
               |
            11 |         a: {steps: [{run: echo, retry: {attempts: 0}}], retry: {attempts: 101, backoff: 0.5}, timeout: 0s}
               |                                                                           ^^^
               = hint: choose a value within the range

            a.yaml:11:89: error[XE0060]: `backoff` is from 1 to 100
               |
            11 |         a: {steps: [{run: echo, retry: {attempts: 0}}], retry: {attempts: 101, backoff: 0.5}, timeout: 0s}
               |                                                                                         ^^^
               = hint: choose a value within the range

            a.yaml:11:104: error[XE0060]: a timeout of 0 leaves no time at all
               |
            11 |         a: {steps: [{run: echo, retry: {attempts: 0}}], retry: {attempts: 101, backoff: 0.5}, timeout: 0s}
               |                                                                                                        ^^
               = hint: choose a value within the range
        "#]],
    );
}

#[test]
fn autonomy_above_a_day() {
    let text = r#"apiVersion: xene/v1
kind: Workflow
metadata: {name: w}
spec:
  pipelines:
    p:
      autonomy: 25h
      tasks:
        a: {steps: [echo]}
"#;
    check(
        text,
        expect![[r#"
            a.yaml:7:17: error[XE0060]: autonomy is from 30s to 24h, or Forever, not 1d1h
              |
            7 |       autonomy: 25h
              |                 ^^^
              = hint: choose a value within the range
        "#]],
    );
}
