//! What is said twice, or so much like something else that people mistake one for the other.

use std::collections::{HashMap, HashSet};

use xene_schemas::{connector::On, meta::Name, pipeline::PipelineSpec, workflow::WorkflowSpec};

use super::{Path, Report, Rule, each_pipeline, each_task};

pub(super) const ALIKE: Rule = rule!(Warning "XE0113", "names alike", "rename one of them");
pub(super) const NAMED_TWICE: Rule = rule!(Warning "XE0114", "named twice", "take one of them out");
pub(super) const JOINED_TWICE: Rule = rule!(Warning "XE0115", "joined twice", "leave one of them");
pub(super) const NEVER_STARTS: Rule =
    rule!(Warning "XE0129", "task that never starts", "leave one of the two conditions");

pub(super) fn check(spec: &WorkflowSpec, report: &mut Report) {
    let root = Path::ROOT.key("spec");
    alike(report, "trigger", spec.triggers.keys().map(|name| (root.key("triggers"), name)));
    alike(report, "pipeline", spec.pipelines.keys().map(|name| (root.key("pipelines"), name)));
    each_pipeline(spec, |at, _, pipeline| {
        let groups = [("tasks", &pipeline.tasks), ("finally", &pipeline.finally)];
        let tasks = groups.into_iter().flat_map(|(group, tasks)| tasks.keys().map(move |name| (group, name)));
        alike(report, "task", tasks.map(|(group, name)| (at.key(group), name)));
        repeated(report, &at.key("triggers"), &pipeline.triggers.0);
        repeated(report, &at.key("after"), &pipeline.after.0);
        each_task(at, pipeline, |at, _, task| repeated(report, &at.key("dependencies"), &task.dependencies.0));
        for (index, connector) in pipeline.connectors.iter().enumerate() {
            let connectors = at.key("connectors");
            let at = connectors.index(index);
            repeated(report, &at.key("from"), &connector.from.0);
            repeated(report, &at.key("to"), &connector.to.0);
        }
        check_joins(report, at, pipeline);
    });
}

/// Names that differ only in their capitals, `-`, `_` and `.`.
fn alike<'a>(report: &mut Report, what: &str, names: impl Iterator<Item = (Path<'a>, &'a Name)>) {
    let mut seen: HashMap<String, &Name> = HashMap::new();
    for (at, name) in names {
        let plain: String = name.as_str().to_lowercase().replace(['-', '_', '.'], "-");
        match seen.get(&plain) {
            // A task of both groups is an error of its own.
            Some(other) if *other != name => {
                let message = format!("{what} `{name}` is easily mistaken for {what} `{other}`");
                report.add(&ALIKE, &at.key(name.as_str()), message).at_key().hint("rename one of them".to_owned());
            }
            _ => drop(seen.insert(plain, name)),
        }
    }
}

fn repeated(report: &mut Report, at: &Path<'_>, names: &[Name]) {
    let mut seen = HashSet::new();
    for (index, name) in names.iter().enumerate() {
        if !seen.insert(name) {
            report.add(&NAMED_TWICE, &at.index(index), format!("`{name}` is named twice in this list"));
        }
    }
}

/// Between two tasks one connector is enough, and two that contradict each other are one too many.
fn check_joins(report: &mut Report, at: &Path<'_>, pipeline: &PipelineSpec) {
    let mut joins: HashMap<(&Name, &Name), On> = HashMap::new();
    for (name, task) in &pipeline.tasks {
        joins.extend(task.dependencies.0.iter().map(|before| ((before, name), On::Success)));
    }
    let connectors = at.key("connectors");
    for (index, connector) in pipeline.connectors.iter().enumerate() {
        let at = connectors.index(index);
        let Some(on) = plain_on(connector) else { continue };
        for from in &connector.from.0 {
            if on == On::Failure && pipeline.tasks.get(from).is_some_and(|task| task.allow_failure) {
                let message = format!("task `{from}` has `allowFailure`, so that its failure counts as Success here");
                let hint = format!("remove `allowFailure` from `{from}`, or join by `on: Always`");
                report.add(&NEVER_STARTS, &at.key("on"), message).hint(hint);
            }
            for to in &connector.to.0 {
                match joins.insert((from, to), on) {
                    None => {}
                    Some(before) if before == on && connector.outputs.is_empty() => {
                        let message = format!("`{to}` waits for `{from}` already");
                        let hint = "remove this connector, or the dependency that says the same".to_owned();
                        report.add(&JOINED_TWICE, &at, message).hint(hint);
                    }
                    Some(On::Success) if on == On::Failure => contradicts(report, &at, from, to),
                    Some(On::Failure) if on == On::Success => contradicts(report, &at, from, to),
                    Some(_) => {}
                }
            }
        }
    }
}

/// What a connector asks for, if it asks for nothing besides.
fn plain_on(connector: &xene_schemas::connector::Connector) -> Option<On> {
    (connector.when.is_none() && connector.approval.is_none()).then_some(connector.on)
}

fn contradicts(report: &mut Report, at: &Path<'_>, from: &Name, to: &Name) {
    let message = format!("`{to}` would start only if `{from}` has ended in Success and in Error");
    let hint = "a task starts when all of its connectors have passed; for either end write `on: Always`".to_owned();
    report.add(&NEVER_STARTS, at, message).hint(hint);
}
