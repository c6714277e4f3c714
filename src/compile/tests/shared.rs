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
        expect![[r#""#]],
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
        expect![[r#""#]],
    );
}
