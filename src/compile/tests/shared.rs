//! What pipelines share, and what webhooks read.

use expect_test::expect;

use super::check;

#[test]
fn pipelines_of_a_group_agree() {
    check(
        "apiVersion: xene/v1
kind: Workflow
metadata: {name: w}
spec:
  pipelines:
    a:
      agents: {labels: {disk: fast}}
      concurrency: {group: g, max: 2}
      tasks: {t: {steps: [echo]}}
    b:
      agents: {labels: {disk: slow}}
      concurrency: {group: g}
      tasks: {t: {steps: [echo]}}
",
        expect![[r#"
            a.yaml:11:31: error[XE0091]: group `g` goes to one agent, and pipeline `a` wants it to have disk=fast
               |
            11 |       agents: {labels: {disk: slow}}
               |                               ^^^^
               = hint: ask for the same labels, or take one of them out of the group

            a.yaml:12:20: warning[XE0090]: `max` of group `g` is 1 here and 2 in pipeline `a`: the smallest counts
               |
            12 |       concurrency: {group: g}
               |                    ^^^^^^
               = hint: write the same `max` in each of them
        "#]],
    );
}

#[test]
fn expressions_of_webhooks_can_be_read_and_give_what_is_declared() {
    check(
        "apiVersion: xene/v1
kind: Workflow
metadata: {name: w}
spec:
  params: {tag: {}}
  triggers:
    hook: {type: webhook, when: payload.ref ==, params: {tag: payloud.tag, tga: query.tag}}
  pipelines:
    a: {triggers: hook, tasks: {t: {steps: [echo]}}}
",
        expect![[r#"
            a.yaml:7:33: error[XE0095]: the expression ends too early (line 1, column 15 of it)
              |
            7 |     hook: {type: webhook, when: payload.ref ==, params: {tag: payloud.tag, tga: query.tag}}
              |                                 ^^^^^^^^^^^
              = hint: a webhook reads `payload`, `headers` and `query`

            a.yaml:7:63: error[XE0095]: a webhook has no `payloud`
              |
            7 |     hook: {type: webhook, when: payload.ref ==, params: {tag: payloud.tag, tga: query.tag}}
              |                                                               ^^^^^^^^^^^
              = hint: did you mean `payload`?

            a.yaml:7:76: error[XE0052]: pipeline `a` has no param `tga`
              |
            7 |     hook: {type: webhook, when: payload.ref ==, params: {tag: payloud.tag, tga: query.tag}}
              |                                                                            ^^^
              = hint: did you mean `tag`?
        "#]],
    );
}
