//! Documents that are no workflows: not YAML, wrong fields, wrong values, other kinds.

use expect_test::expect;

use super::{check, check_file};

#[test]
fn yaml_that_is_none() {
    let text = r#"apiVersion: xene/v1
kind: Workflow
metadata: {name: w
spec: 1
"#;
    check(
        text,
        expect![[r#"
            a.yaml:4:5: error[XE0004]: this is not YAML: did not find expected ',' or '}', while parsing a flow mapping
              |
            4 | spec: 1
              |     ^
              = hint: look at the line above, too: most often a quote, a bracket or an indentation is to blame
        "#]],
    );
}

#[test]
fn json_that_is_none() {
    let text = r#"{"apiVersion": "xene/v1",
 "kind": }
"#;
    check_file(
        "a.json",
        text.as_bytes(),
        expect![[r#"
            a.json:2:10: error[XE0004]: this is not JSON: expected value
              |
            2 |  "kind": }
              |          ^
              = hint: look at the line above, too: most often a quote, a bracket or an indentation is to blame
        "#]],
    );
}

#[test]
fn tabs_in_indentation() {
    let text = r#"apiVersion: xene/v1
kind: Workflow
spec:
	pipelines: {}
"#;
    check(
        text,
        expect![[r#"
            a.yaml:4:1: error[XE0005]: a tab stands in the indentation, where YAML takes only spaces
              |
            4 |   pipelines: {}
              | ^^
              = hint: indent with spaces
        "#]],
    );
}

#[test]
fn merge_conflicts() {
    let text = r#"apiVersion: xene/v1
<<<<<<< HEAD
kind: Workflow
=======
kind: workflow
>>>>>>> other
"#;
    check(
        text,
        expect![[r#"
        a.yaml:2:1: error[XE0006]: a merge conflict stands here
          |
        2 | <<<<<<< HEAD
          | ^^^^^^^
          = hint: resolve it, and commit the file again
    "#]],
    );
}

#[test]
fn keys_written_twice() {
    let text = r#"apiVersion: xene/v1
kind: Workflow
metadata: {name: w}
spec:
  pipelines:
    p: {tasks: {t: {steps: [echo]}}}
    p: {tasks: {t: {steps: [echo]}}}
"#;
    check(
        text,
        expect![[r#"
            a.yaml:7:5: error[XE0010]: the key `p` stands twice in this map
              |
            7 |     p: {tasks: {t: {steps: [echo]}}}
              |     ^
              = hint: take one of the two out
        "#]],
    );
}

#[test]
fn fields_written_twice() {
    let text = r#"apiVersion: xene/v1
kind: Workflow
metadata: {name: w}
spec:
  suspend: true
  pipelines: {p: {tasks: {t: {steps: [echo]}}}}
  suspend: false
"#;
    check(
        text,
        expect![[r#"
            a.yaml:7:3: error[XE0010]: the key `suspend` stands twice in this map
              |
            7 |   suspend: false
              |   ^^^^^^^
              = hint: take one of the two out
        "#]],
    );
}

#[test]
fn unknown_fields() {
    let text = r#"apiVersion: xene/v1
kind: Workflow
metadata: {name: w}
spec:
  pipelines:
    p:
      tasks:
        t:
          step: [echo]
"#;
    check(
        text,
        expect![[r#"
        a.yaml:9:11: error[XE0011]: unknown field `step`
          |
        9 |           step: [echo]
          |           ^^^^
          = hint: did you mean `steps`?
    "#]],
    );
}

#[test]
fn unknown_fields_of_triggers() {
    let text = r#"apiVersion: xene/v1
kind: Workflow
metadata: {name: w}
spec:
  triggers:
    nightly: {type: cron, schedul: '@daily'}
  pipelines: {p: {tasks: {t: {steps: [echo]}}}}
"#;
    check(
        text,
        expect![[r#"
        a.yaml:6:27: error[XE0011]: unknown field `schedul`
          |
        6 |     nightly: {type: cron, schedul: '@daily'}
          |                           ^^^^^^^
          = hint: did you mean `schedule`?
    "#]],
    );
}

#[test]
fn unknown_fields_of_steps() {
    let text = r#"apiVersion: xene/v1
kind: Workflow
metadata: {name: w}
spec:
  pipelines:
    p:
      tasks:
        t:
          steps:
            - echo
            - run: echo
              enviroment: {A: b}
"#;
    check(
        text,
        expect![[r#"
        a.yaml:12:15: error[XE0011]: unknown field `enviroment`
           |
        12 |               enviroment: {A: b}
           |               ^^^^^^^^^^
           = hint: there is: name, run, shell, env, workingDir, timeout, retry, allowFailure, when
    "#]],
    );
}

#[test]
fn what_is_in_form_is_held_against_the_rules_besides() {
    let text = r#"apiVersion: xene/v1
kind: Workflow
metadata: {name: w}
spec:
  trigers:
    nightly: {type: cron, schedule: "@daily"}
  triggers:
    often: {type: cron, schedule: "61 * * * *"}
  pipelines:
    p:
      triggers: [often, nightly, never]
      tasks:
        broken: {steps: 7}
        a: {dependancies: [b], outputs: [x], steps: [echo]}
        b: {dependencies: [broken, missing], steps: [echo]}
        c:
          dependencies: [a]
          steps:
            - {runn: echo}
            - {run: echo, env: {A-B: 1, X: {output: a.x}}, timeout: 0s}
"#;
    check(
        text,
        expect![[r#"
        a.yaml:5:3: error[XE0011]: unknown field `trigers`
          |
        5 |   trigers:
          |   ^^^^^^^
          = hint: did you mean `triggers`?

        a.yaml:8:35: error[XE0032]: minute "61" is out of range; allowed is 0 to 59
          |
        8 |     often: {type: cron, schedule: "61 * * * *"}
          |                                   ^^^^^^^^^^^^
          = hint: `xene cron` shows what a schedule does

        a.yaml:11:34: error[XE0030]: this workflow has no trigger `never`
           |
        11 |       triggers: [often, nightly, never]
           |                                  ^^^^^
           = hint: declare it under `triggers` of the workflow

        a.yaml:13:25: error[XE0013]: expected a list, found 7
           |
        13 |         broken: {steps: 7}
           |                         ^
           = hint: `xene explain XE0013` shows what is written how

        a.yaml:14:13: error[XE0011]: unknown field `dependancies`
           |
        14 |         a: {dependancies: [b], outputs: [x], steps: [echo]}
           |             ^^^^^^^^^^^^
           = hint: did you mean `dependencies`?

        a.yaml:15:36: error[XE0040]: this pipeline has no task `missing`
           |
        15 |         b: {dependencies: [broken, missing], steps: [echo]}
           |                                    ^^^^^^^
           = hint: name a task of this pipeline

        a.yaml:19:16: error[XE0011]: unknown field `runn`
           |
        19 |             - {runn: echo}
           |                ^^^^
           = hint: did you mean `run`?

        a.yaml:20:33: error[XE0053]: "A-B" can't name a variable: letters, digits and _ can, not beginning with a digit
           |
        20 |             - {run: echo, env: {A-B: 1, X: {output: a.x}}, timeout: 0s}
           |                                 ^^^
           = hint: choose another name, or another value

        a.yaml:20:69: error[XE0060]: a timeout of 0 leaves no time at all
           |
        20 |             - {run: echo, env: {A-B: 1, X: {output: a.x}}, timeout: 0s}
           |                                                                     ^^
           = hint: choose a value within the range
    "#]],
    );
}

#[test]
fn unknown_fields_in_json() {
    let text = r#"{"apiVersion": "xene/v1", "kind": "Workflow", "metadata": {"name": "w"},
 "spec": {"pipeline": {}}}
"#;
    check_file(
        "a.json",
        text.as_bytes(),
        expect![[r#"
        a.json:2:11: error[XE0011]: unknown field `pipeline`
          |
        2 |  "spec": {"pipeline": {}}}
          |           ^^^^^^^^^^
          = hint: did you mean `pipelines`?
    "#]],
    );
}

#[test]
fn missing_fields() {
    let text = r#"apiVersion: xene/v1
kind: Workflow
metadata: {}
spec:
  pipelines: {p: {tasks: {t: {steps: [echo]}}}}
"#;
    check(
        text,
        expect![[r#"
            a.yaml:3:1: error[XE0012]: `name` is missing
              |
            3 | metadata: {}
              | ^^^^^^^^
              = hint: add it
        "#]],
    );
}

#[test]
fn missing_pipelines() {
    let text = r#"apiVersion: xene/v1
kind: Workflow
metadata: {name: w}
spec:
  suspend: true
"#;
    check(
        text,
        expect![[r#"
            a.yaml:4:1: error[XE0012]: `pipelines` is missing
              |
            4 | spec:
              | ^^^^
              = hint: add it
        "#]],
    );
}

#[test]
fn values_of_the_wrong_type() {
    let text = r#"apiVersion: xene/v1
kind: Workflow
metadata: {name: w}
spec:
  pipelines:
    p:
      timeout: 5
      tasks:
        t: {steps: [echo]}
"#;
    check(
        text,
        expect![[r#"
            a.yaml:7:16: error[XE0013]: a duration is written like 500ms, 30s, 5m, 1h30m or 7d, unlike "5"
              |
            7 |       timeout: 5
              |                ^
              = hint: `xene explain XE0013` shows what is written how
        "#]],
    );
}

#[test]
fn nothing_where_a_map_belongs() {
    let text = r#"apiVersion: xene/v1
kind: Workflow
metadata: {name: w}
spec:
  pipelines:
"#;
    check(
        text,
        expect![[r#"
            a.yaml:5:3: error[XE0020]: a workflow needs at least one pipeline
              |
            5 |   pipelines:
              |   ^^^^^^^^^
              = hint: add something to do, or take the whole out
        "#]],
    );
}

#[test]
fn unknown_words() {
    let text = r#"apiVersion: xene/v1
kind: Workflow
metadata: {name: w}
spec:
  pipelines:
    p:
      concurrency: {policy: queue}
      tasks:
        t: {steps: [echo]}
"#;
    check(
        text,
        expect![[r#"
        a.yaml:7:29: error[XE0013]: `queue` is not one of the values that this takes
          |
        7 |       concurrency: {policy: queue}
          |                             ^^^^^
          = hint: did you mean `Queue`?
    "#]],
    );
}

#[test]
fn durations_that_are_none() {
    let text = r#"apiVersion: xene/v1
kind: Workflow
metadata: {name: w}
spec:
  pipelines:
    p:
      tasks:
        t: {steps: [echo], timeout: 5 minutes}
"#;
    check(
        text,
        expect![[r#"
            a.yaml:8:37: error[XE0013]: a duration is written like 500ms, 30s, 5m, 1h30m or 7d, unlike "5 minutes"
              |
            8 |         t: {steps: [echo], timeout: 5 minutes}
              |                                     ^
              = hint: `xene explain XE0013` shows what is written how
        "#]],
    );
}

#[test]
fn bad_names_of_tasks() {
    let text = r#"apiVersion: xene/v1
kind: Workflow
metadata: {name: w}
spec:
  pipelines:
    p:
      tasks:
        build_: {steps: [echo]}
"#;
    check(
        text,
        expect![[r#"
            a.yaml:8:9: error[XE0014]: a name holds only A-Z a-z 0-9 - _ . and begins and ends with a letter or digit, unlike "build_"
              |
            8 |         build_: {steps: [echo]}
              |         ^^^^^^
              = hint: a name has letters, digits, - _ and ., and begins and ends with a letter or digit
        "#]],
    );
}

#[test]
fn bad_names_of_workflows() {
    let text = r#"apiVersion: xene/v1
kind: Workflow
metadata: {name: my/workflow}
spec:
  pipelines: {p: {tasks: {t: {steps: [echo]}}}}
"#;
    check(
        text,
        expect![[r#"
            a.yaml:3:18: error[XE0014]: a name holds only A-Z a-z 0-9 - _ . and begins and ends with a letter or digit, unlike "my/workflow"
              |
            3 | metadata: {name: my/workflow}
              |                  ^^^^^^^^^^^
              = hint: a name has letters, digits, - _ and ., and begins and ends with a letter or digit
        "#]],
    );
}

#[test]
fn bad_names_of_params() {
    let text = r#"apiVersion: xene/v1
kind: Workflow
metadata: {name: w}
spec:
  params: {-x: {}}
  pipelines: {p: {tasks: {t: {steps: [echo]}}}}
"#;
    check(
        text,
        expect![[r#"
            a.yaml:5:12: error[XE0014]: a name holds only A-Z a-z 0-9 - _ . and begins and ends with a letter or digit, unlike "-x"
              |
            5 |   params: {-x: {}}
              |            ^^
              = hint: a name has letters, digits, - _ and ., and begins and ends with a letter or digit
        "#]],
    );
}

#[test]
fn unknown_versions() {
    let text = r#"apiVersion: v1
kind: Pod
"#;
    check(
        text,
        expect![[r#"
        a.yaml:1:13: error[XE0015]: `apiVersion: v1` is not one of xene's
          |
        1 | apiVersion: v1
          |             ^^
          = hint: a workflow begins with `apiVersion: xene/v1` and `kind: Workflow`; list other files in .xeneignore
    "#]],
    );
}

#[test]
fn unknown_kinds() {
    let text = r#"apiVersion: xene/v1
kind: Workflows
"#;
    check(
        text,
        expect![[r#"
        a.yaml:2:7: error[XE0015]: there is no kind `Workflows`
          |
        2 | kind: Workflows
          |       ^^^^^^^^^
          = hint: a workflow begins with `apiVersion: xene/v1` and `kind: Workflow`
    "#]],
    );
}

#[test]
fn a_kind_without_version() {
    let text = r#"kind: Deployment
"#;
    check(
        text,
        expect![[r#"
        a.yaml:1:7: error[XE0015]: `apiVersion` is missing
          |
        1 | kind: Deployment
          |       ^^^^^^^^^^
          = hint: a workflow begins with `apiVersion: xene/v1` and `kind: Workflow`; list other files in .xeneignore
    "#]],
    );
}

#[test]
fn secrets() {
    let text = r#"apiVersion: xene/v1
kind: Secret
metadata: {name: s}
spec: {}
"#;
    check(
        text,
        expect![[r#"
        a.yaml:2:7: error[XE0016]: secrets can't be read by this version yet
          |
        2 | kind: Secret
          |       ^^^^^^
          = hint: keep it out of the folder for now, or list it in .xeneignore
    "#]],
    );
}

#[test]
fn two_documents_of_one_name() {
    let text = r#"apiVersion: xene/v1
kind: Workflow
metadata: {name: w}
spec:
  pipelines: {p: {tasks: {t: {steps: [echo]}}}}
---
apiVersion: xene/v1
kind: Workflow
metadata: {name: w}
spec:
  pipelines: {p: {tasks: {t: {steps: [echo]}}}}
"#;
    check(
        text,
        expect![[r#"
            a.yaml:7:1: error[XE0017]: workflow `w` stands twice in this file, first in line 1
              |
            7 | apiVersion: xene/v1
              | ^^^^^^^^^^
              = hint: give one of them another name
        "#]],
    );
}

#[test]
fn custom_tags() {
    let text = r#"apiVersion: xene/v1
kind: Workflow
metadata: {name: w}
spec:
  pipelines:
    p:
      tasks:
        a: {steps: [!run echo]}
"#;
    check(
        text,
        expect![[r#"
            a.yaml:8:21: error[XE0009]: the tag `!run` means nothing here
              |
            8 |         a: {steps: [!run echo]}
              |                     ^^^^
              = hint: take it out; a text that begins with `!` stands in quotes
        "#]],
    );
}

#[test]
fn aliases_within_themselves() {
    let text = r#"apiVersion: xene/v1
kind: Workflow
metadata: {name: w}
spec:
  pipelines:
    p:
      tasks:
        a: &a {steps: [*a]}
"#;
    check(
        text,
        expect![[r#"
            a.yaml:8:24: error[XE0008]: an alias stands within what it names
              |
            8 |         a: &a {steps: [*a]}
              |                        ^^
              = hint: write out what is meant
        "#]],
    );
}
