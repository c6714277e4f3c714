//! Workflow tests: each case can be tried, and names what there is.

use std::collections::HashMap;

use indexmap::IndexMap;
use jiff::tz::TimeZone;
use xene_agent::decide::cron::{Schedule, read_time};
use xene_schemas::{
    connector::Connector,
    meta::Name,
    pipeline::PipelineSpec,
    task::Task,
    trigger::Trigger,
    workflow_test::{Expect, TestCase, WorkflowTest},
};

use super::{Path, Problem, Report, Rule, suggest};
use crate::{compile::params::resolve, decide::desired::WorkflowBody};

pub(super) const UNKNOWN_WORKFLOW: Rule =
    rule!(Error "XE0150", "test of an unknown workflow", "name a workflow of these files");
pub(super) const CASE: Rule = rule!(
    Error "XE0151", "test case that can't be tried",
    "docs/guide/testing-workflows.md shows how a case is written"
);
pub(super) const CASE_TWICE: Rule = rule!(Error "XE0152", "test case named twice", "rename one of them");
pub(super) const UNKNOWN_IN_TEST: Rule = rule!(Error "XE0153", "test names what is not there", "mend the name");
pub(super) const TEST_PARAM: Rule = rule!(Error "XE0154", "test gives wrong params", "give what the pipeline declares");
pub(super) const TEST_TIME: Rule = rule!(Error "XE0155", "bad time in a test", "write it as 2026-03-29T02:30:00Z");
pub(super) const EXPECTS_NOTHING: Rule =
    rule!(Warning "XE0156", "test case that expects nothing", "expect something: `phase`, `tasks`, `notExecuted`");

/// What is wrong with a test whatever its workflow says.
pub(in crate::compile) fn check(test: &WorkflowTest) -> Vec<Problem> {
    let mut report = Report::default();
    let spec = Path::ROOT.key("spec");
    let cases = spec.key("cases");
    if test.spec.cases.is_empty() {
        report.add(&CASE, &cases, "a test has at least one case");
    }
    let mut names: HashMap<&str, usize> = HashMap::new();
    for (index, case) in test.spec.cases.iter().enumerate() {
        let at = cases.index(index);
        if let Some(first) = names.insert(&case.name, index) {
            let message = format!("case {} has the name of case {}", index + 1, first + 1);
            report.add(&CASE_TWICE, &at.key("name"), message);
        }
        check_case(&mut report, &at, case);
    }
    report.0
}

fn check_case(report: &mut Report, at: &Path<'_>, case: &TestCase) {
    let expect_at = at.key("expect");
    if case.expect == Expect::default() {
        report.add(&EXPECTS_NOTHING, &expect_at, "this case passes whatever happens").at_key();
    }
    let run_only = [
        ("at", case.at.is_some()),
        ("params", !case.params.is_empty()),
        ("slots", case.slots.is_some()),
        ("stubs", !case.stubs.is_empty()),
        ("approvals", !case.approvals.is_empty()),
        ("cancelAfter", case.cancel_after.is_some()),
    ];
    let firings_only = [("from", case.from.is_some()), ("until", case.until.is_some())];
    let mut misplaced = |fields: &[(&str, bool)], why: &str| {
        for (field, _) in fields.iter().filter(|(_, given)| *given) {
            report.add(&CASE, &at.key(field), format!("`{field}` {why}")).at_key();
        }
    };
    if case.pipeline.is_some() {
        misplaced(&firings_only, "belongs to a case of due times, which names a trigger and no pipeline");
        if case.expect.firings.is_some() {
            let message = "`firings` belong to a case of due times, which names a trigger and no pipeline";
            report.add(&CASE, &expect_at.key("firings"), message).at_key();
        }
        if case.slots == Some(0) {
            report.add(&CASE, &at.key("slots"), "without a slot no task can run");
        }
        for (name, stubs) in &case.stubs {
            let stubs_at = at.key("stubs");
            if stubs.0.is_empty() {
                report.add(&CASE, &stubs_at.key(name), "a stub that is a list has at least one entry");
            }
        }
    } else if case.trigger.is_some() {
        misplaced(&run_only, "belongs to a case of a run, which names a pipeline");
        for (field, _) in firings_only.iter().filter(|(_, given)| !given) {
            report.add(&CASE, at, format!("a case of due times needs `{field}`"));
        }
        if case.expect.firings.is_none() && case.expect != Expect::default() {
            report.add(&CASE, &expect_at, "a case of due times expects `firings`").at_key();
        }
    } else {
        report
            .add(&CASE, at, "this case names nothing that could be tried")
            .hint("name a `pipeline` for a run, or a `trigger` with `from` and `until` for due times".to_owned());
    }
}

/// A test of a workflow that is in none of the files.
pub(in crate::compile) fn unknown_workflow(test: &WorkflowTest) -> Problem {
    let mut report = Report::default();
    let spec = Path::ROOT.key("spec");
    let message = format!("there is no workflow `{}` in these files", test.spec.workflow);
    report
        .add(&UNKNOWN_WORKFLOW, &spec.key("workflow"), message)
        .hint("name its file too, or the folder of both".to_owned());
    report.0.remove(0)
}

/// What does not fit the workflow.
pub(in crate::compile) fn check_against(test: &WorkflowTest, workflow: &WorkflowBody) -> Vec<Problem> {
    let mut report = Report::default();
    let spec = Path::ROOT.key("spec");
    let cases = spec.key("cases");
    for (index, case) in test.spec.cases.iter().enumerate() {
        fits(&mut report, &cases.index(index), case, workflow);
    }
    report.0
}

fn fits(report: &mut Report, at: &Path<'_>, case: &TestCase, workflow: &WorkflowBody) {
    let trigger = case.trigger.as_ref().and_then(|name| match workflow.spec.triggers.get(name) {
        Some(trigger) => Some(trigger),
        None => {
            unknown(report, &at.key("trigger"), "trigger", name.as_str(), workflow.spec.triggers.keys());
            None
        }
    });
    let zone = trigger.and_then(zone_of).unwrap_or(TimeZone::UTC);
    let mut times: Vec<(Path<'_>, &str)> = Vec::new();
    for (field, text) in [("at", &case.at), ("from", &case.from), ("until", &case.until)] {
        times.extend(text.as_deref().map(|text| (at.key(field), text)));
    }
    let (expect_at, stubs_at) = (at.key("expect"), at.key("stubs"));
    let firings_at = expect_at.key("firings");
    for (index, text) in case.expect.firings.iter().flatten().enumerate() {
        times.push((firings_at.index(index), text));
    }
    for (at, text) in times {
        if read_time(text, &zone).is_none() {
            report.add(&TEST_TIME, &at, format!("{text:?} is no time")).hint(
                "a time is written like 2026-03-29T02:00:00Z, or 2026-03-29T02:00 by the trigger's clock".to_owned(),
            );
        }
    }
    let Some(name) = &case.pipeline else {
        if let Some(Trigger::Webhook(_)) = trigger {
            report.add(&UNKNOWN_IN_TEST, &at.key("trigger"), "only a cron trigger has due times");
        }
        return;
    };
    let Some(pipeline) = workflow.pipelines.get(name.as_str()) else {
        return unknown(report, &at.key("pipeline"), "pipeline", name.as_str(), workflow.pipelines.keys());
    };
    if let Some(trigger) = &case.trigger
        && workflow.spec.triggers.contains_key(trigger)
        && !pipeline.spec.triggers.0.contains(trigger)
    {
        let message = format!("pipeline `{name}` does not name trigger `{trigger}`");
        report.add(&UNKNOWN_IN_TEST, &at.key("trigger"), message);
    }
    let params_at = at.key("params");
    let mut given: IndexMap<String, String> = IndexMap::new();
    if let Some(Trigger::Cron(cron)) = trigger {
        given.extend(cron.params.iter().map(|(name, value)| (name.clone(), value.to_string())));
    }
    given.extend(case.params.iter().map(|(name, value)| (name.clone(), value.to_string())));
    for error in resolve(&pipeline.params, &given).err().into_iter().flatten() {
        report.add(&TEST_PARAM, &params_at, error.to_string()).at_key();
    }
    for key in case.stubs.keys() {
        known(report, &stubs_at.key(key), key, &pipeline.spec, true);
    }
    let approvals_at = at.key("approvals");
    for name in case.approvals.keys() {
        let name_at = approvals_at.key(name);
        let Some(base) = known(report, &name_at, name, &pipeline.spec, false) else { continue };
        let asks =
            |connector: &Connector| connector.approval.is_some() && connector.to.0.iter().any(|to| to.as_str() == base);
        if !pipeline.spec.connectors.iter().any(asks) {
            let message = format!("no connector of task `{base}` has an `approval`");
            report.add(&UNKNOWN_IN_TEST, &name_at, message).at_key();
        }
    }
    let tasks_at = expect_at.key("tasks");
    for name in case.expect.tasks.keys() {
        known(report, &tasks_at.key(name), name, &pipeline.spec, false);
    }
    for (field, names) in [("notExecuted", case.expect.not_executed.as_ref()), ("order", Some(&case.expect.order))] {
        let field_at = expect_at.key(field);
        for (index, name) in names.into_iter().flatten().enumerate() {
            known(report, &field_at.index(index), name, &pipeline.spec, false);
        }
    }
}

/// The name of a task, or with `steps` that of `TASK/STEP`, if it is there. `TASK[…]` is one of a matrix.
fn known<'n>(report: &mut Report, at: &Path<'_>, name: &'n str, spec: &PipelineSpec, steps: bool) -> Option<&'n str> {
    let (task_name, step) = match name.split_once('/').filter(|_| steps) {
        Some((task, step)) => (task, Some(step)),
        None => (name, None),
    };
    let base = task_name.split('[').next().unwrap_or_default();
    let task: Option<&Task> = spec.tasks.get(base).or_else(|| spec.finally.get(base));
    let Some(task) = task else {
        unknown(report, at, "task", base, spec.tasks.keys().chain(spec.finally.keys()));
        return None;
    };
    if let Some(step) = step {
        let names: Vec<String> = task.steps.iter().enumerate().map(|(index, step)| step.name_at(index)).collect();
        if !names.iter().any(|name| name == step) {
            let hint = suggest(step, names.iter().map(String::as_str));
            report.add(&UNKNOWN_IN_TEST, at, format!("task `{base}` has no step `{step}`")).at_key().hint(hint);
        }
    }
    Some(base)
}

fn unknown<'n>(report: &mut Report, at: &Path<'_>, kind: &str, name: &str, known: impl Iterator<Item = &'n Name>) {
    let hint = suggest(name, known.map(Name::as_str));
    let message = format!("there is no {kind} `{name}`");
    report.add(&UNKNOWN_IN_TEST, at, message).at_key().hint(hint);
}

/// The zone of a trigger's clock.
fn zone_of(trigger: &Trigger) -> Option<TimeZone> {
    match trigger {
        Trigger::Cron(cron) => Schedule::parse(cron).ok().map(|schedule| schedule.zone().clone()),
        Trigger::Webhook(_) => None,
    }
}
