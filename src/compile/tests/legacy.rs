//! Manifests of the first xene, `v1alpha1`: they load, as far as they need no container.

use expect_test::expect;
use xene_schemas::{diagnostic::Severity, trigger::Trigger, workflow::Workflow};

use super::check;
use crate::compile::{Compiled, Limits, compile, convert, parse::parse, validate};

fn read(text: &str) -> Vec<Workflow> {
    let parsed = parse("old.yaml", text.as_bytes(), None, Limits::default());
    assert_eq!(parsed.problems, []);
    parsed.workflows.into_iter().map(|(workflow, _)| workflow).collect()
}

/// A manifest with this trigger and these steps.
fn manifest(trigger: &str, steps: &str) -> String {
    format!(
        "apiVersion: v1alpha1\nkind: Workflow\nmetadata: {{name: old}}\nspec:\n  triggers: {{t: {trigger}}}\n  pipelines:\n    \
         main: {{trigger: t, tasks: {{say: {{steps: {steps}}}}}}}\n"
    )
}

#[test]
fn schedules_are_taken_however_they_were_written() {
    for config in ["'0 3 * * *'", "{schedule: '0 3 * * *'}", "{expression: '0 3 * * *'}"] {
        let [workflow] = &read(&manifest(&format!("{{type: cron, cronConfig: {config}}}"), "[{cmd: echo}]"))[..] else {
            panic!("{config}")
        };
        let Trigger::Cron(cron) = &workflow.spec.triggers["t"] else { panic!("{config}") };
        assert_eq!((cron.schedule.as_str(), cron.time_zone.as_deref()), ("0 3 * * *", None));
    }
    let zoned = manifest("{cronConfig: {schedule: '0 3 * * *', timezone: Europe/Berlin}}", "[{cmd: echo}]");
    let Trigger::Cron(cron) = &read(&zoned)[0].spec.triggers["t"] else { panic!() };
    assert_eq!(cron.time_zone.as_deref(), Some("Europe/Berlin"));
}

#[test]
fn a_trigger_of_nothing_leaves_the_pipeline_to_people() {
    let workflow = &read(&manifest("{type: 'null'}", "[{cmd: echo}]"))[0];
    assert!(workflow.spec.triggers.is_empty() && workflow.spec.pipelines["main"].triggers.0.is_empty());
    let workflow = &read(&manifest("{type: webhook}", "[{cmd: echo}]"))[0];
    assert!(matches!(workflow.spec.triggers["t"], Trigger::Webhook(_)));
}

#[test]
fn steps_may_be_a_list_or_a_map() {
    let trigger = "{type: cron, cronConfig: '@daily'}";
    let list = read(&manifest(trigger, "[{name: one, type: shell, cmd: echo 1}, {name: two, cmd: echo 2}]"));
    let map = read(&manifest(trigger, "{one: {type: shell, cmd: echo 1}, two: {cmd: echo 2}}"));
    assert_eq!(list, map);
}

#[test]
fn mistakes_have_their_place() {
    let trigger = "{type: cron, cronConfig: '61 * * * *'}";
    check(
        &manifest(trigger, "[{cmd: echo}]"),
        expect![[r#"
            a.yaml:5:42: error[XE0032]: minute "61" is out of range; allowed is 0 to 59
              |
            5 |   triggers: {t: {type: cron, cronConfig: '61 * * * *'}}
              |                                          ^^^^^^^^^^^^
              = hint: `xene cron` shows what a schedule does
        "#]],
    );
    check(
        &manifest("{type: corn}", "[{command: echo}, {cmd: ''}]"),
        expect![[r#"
            a.yaml:5:24: error[XE0013]: `corn` is not one of the values that this takes
              |
            5 |   triggers: {t: {type: corn}}
              |                        ^^^^
              = hint: did you mean `cron`?

            a.yaml:7:47: error[XE0011]: unknown field `command`
              |
            7 |     main: {trigger: t, tasks: {say: {steps: [{command: echo}, {cmd: ''}]}}}
              |                                               ^^^^^^^
              = hint: there is: name, description, type, cmd
        "#]],
    );
    check(
        "apiVersion: v1alpha1\nkind: Agent\n",
        expect![[r#"
            a.yaml:1:13: error[XE0015]: of `v1alpha1` only `kind: Workflow` belongs into a file
              |
            1 | apiVersion: v1alpha1
              |             ^^^^^^^^
              = hint: list the file in .xeneignore
        "#]],
    );
}

#[test]
fn what_needs_a_container_is_left_out_alone() {
    let container = manifest("{cronConfig: '@daily'}", "[{cmd: go test}]")
        .replace("trigger: t", "trigger: t, executor: {type: container, containerConfig: {image: golang}}");
    let plain = manifest("{cronConfig: '@daily'}", "[{cmd: make}]").replace("name: old", "name: other");
    let beside = "    beside: {trigger: t, tasks: {say: {steps: [{cmd: make}]}}}\n";
    let names = |text: &str| {
        let Compiled { workflows, problems, .. } = compile(&[("a.yaml".into(), text.as_bytes().to_vec())]);
        let told: Vec<_> = problems.iter().map(|problem| (problem.code.clone(), problem.severity)).collect();
        assert_eq!(told, [("XE0133".to_owned(), Severity::Warning)], "{problems:?}");
        let keys = workflows.iter().flat_map(|workflow| workflow.body.pipelines.values().map(|p| p.key.to_string()));
        keys.collect::<Vec<_>>()
    };
    let text = format!("{container}---\n{plain}");
    assert_eq!(names(&text), ["other/main"], "a workflow without any other pipeline is none");
    assert_eq!(names(&format!("{container}{beside}---\n{plain}")), ["old/beside", "other/main"]);
    // Converted, it says so in today's words, and the whole file is refused.
    let converted = convert("a.yaml", text.as_bytes()).unwrap();
    let (count, problems) = validate(&[("a.yaml".into(), converted.into_bytes())]);
    assert_eq!((count, problems.len(), problems[0].code.as_str()), (0, 1, "XE0018"));
}

#[test]
fn conversion_changes_nothing_but_the_words() {
    let old = manifest("{type: cron, cronConfig: '*/10 * * * *'}", "[{name: a, cmd: echo}, {cmd: \"echo\\necho\"}]");
    let new = convert("a.yaml", old.as_bytes()).unwrap();
    assert_eq!(read(&new), read(&old));
    assert_eq!(convert("a.yaml", new.as_bytes()).as_ref(), Some(&new), "what is today's stays as it is");
}
