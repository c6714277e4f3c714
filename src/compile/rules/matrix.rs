//! Matrices: axes with values, combinations that are meant, and no more of them than can be run.

use xene_agent::matrix::{CONNECTORS, Expanded, MatrixErrorKind, TASKS, expand, idle_excludes, instance_name};
use xene_schemas::{meta::Name, pipeline::PipelineSpec, task::Task, workflow::WorkflowSpec};

use super::{Path, Report, Rule, each_pipeline, each_task, suggest};

pub(super) const MATRIX_SHAPE: Rule =
    rule!(Error "XE0074", "matrix written wrongly", "a matrix is written as {os: [linux, mac], go: [\"1.22\"]}");
pub(super) const MATRIX_AXIS: Rule = rule!(
    Error "XE0075", "combination that does not fit its matrix",
    "an entry names the axes of its matrix, and no others"
);
pub(super) const MATRIX_SIZE: Rule =
    rule!(Error "XE0076", "too many instances", "take values out, or make several pipelines of it");
pub(super) const MATRIX_COLLISION: Rule =
    rule!(Error "XE0077", "instances or axes share a name", "take one of them out, or rename it");

pub(super) const EXCLUDES_NOTHING: Rule =
    rule!(Warning "XE0134", "exclude that leaves nothing out", "mend its values, or take it out");

pub(super) fn check(spec: &WorkflowSpec, report: &mut Report) {
    each_pipeline(spec, |at, _, pipeline| {
        let has_matrix = pipeline.tasks.values().chain(pipeline.finally.values()).any(|task| task.matrix.is_some());
        if !has_matrix {
            return;
        }
        let mut sizes = std::collections::HashMap::new();
        each_task(at, pipeline, |at, name, task| {
            let size = check_task(report, at, task).map_or(1, |expanded| expanded.combinations.len());
            sizes.insert(name.as_str(), size);
        });
        let size = |name: &Name| sizes.get(name.as_str()).copied().unwrap_or(1);
        let tasks: usize = sizes.values().sum();
        if tasks > TASKS {
            let message = format!("with all instances these are {tasks} tasks; at most {TASKS} are run");
            report.add(&MATRIX_SIZE, &at.key("tasks"), message).at_key();
        }
        let plain = pipeline.tasks.iter().flat_map(|(to, task)| task.dependencies.0.iter().map(move |from| (from, to)));
        let listed = pipeline.connectors.iter().flat_map(|connector| {
            connector.from.0.iter().flat_map(|from| connector.to.0.iter().map(move |to| (from, to)))
        });
        let connectors: usize = plain.chain(listed).map(|(from, to)| size(from) * size(to)).sum();
        if connectors > CONNECTORS {
            let message = format!(
                "each instance of one task waits for each of another: {connectors} connectors; at most {CONNECTORS} are run"
            );
            let hint = "let a task without a matrix stand between them".to_owned();
            report.add(&MATRIX_SIZE, &at.key("tasks"), message).at_key().hint(hint);
        }
    });
}

/// Entries of `exclude` without effect.
pub(super) fn check_effect(spec: &WorkflowSpec, report: &mut Report) {
    each_pipeline(spec, |at, _, pipeline| {
        each_task(at, pipeline, |at, _, task| {
            let Some(matrix) = &task.matrix else { return };
            let at = at.key("matrix");
            for index in idle_excludes(matrix) {
                let message = "this leaves nothing out: no combination of the axes is like it";
                report.add(&EXCLUDES_NOTHING, &at.key("exclude").index(index), message);
            }
        });
    });
}

fn check_task(report: &mut Report, at: &Path<'_>, task: &Task) -> Option<Expanded> {
    let matrix = task.matrix.as_ref()?;
    let at = at.key("matrix");
    match expand(matrix) {
        Ok(expanded) => Some(expanded),
        Err(errors) => {
            for error in errors {
                let rule = match error.kind {
                    MatrixErrorKind::Shape => &MATRIX_SHAPE,
                    MatrixErrorKind::Axis => &MATRIX_AXIS,
                    MatrixErrorKind::Count => &MATRIX_SIZE,
                    MatrixErrorKind::Collision => &MATRIX_COLLISION,
                };
                let axes = matrix.0.keys().map(String::as_str).filter(|key| !is_field(key));
                let hint = error.unknown.as_ref().and_then(|unknown| suggest(unknown, axes));
                match (&error.key, error.index, &error.inner) {
                    (None, _, _) => report.add(rule, &at, error.message).at_key(),
                    (Some(key), None, _) => report.add(rule, &at.key(key), error.message).at_key(),
                    (Some(key), Some(index), None) => report.add(rule, &at.key(key).index(index), error.message),
                    (Some(key), Some(index), Some(inner)) => {
                        report.add(rule, &at.key(key).index(index).key(inner), error.message).at_key()
                    }
                }
                .hint(hint);
            }
            None
        }
    }
}

/// True for what in a matrix is no axis.
pub(super) fn is_field(key: &str) -> bool {
    matches!(key, "include" | "exclude" | "maxParallel")
}

/// The axes of a task; those of a matrix that only lists combinations are the first one's.
pub(super) fn axes(task: &Task) -> Vec<String> {
    let Some(matrix) = &task.matrix else { return Vec::new() };
    let expanded = expand(matrix).unwrap_or_default();
    let of_combination =
        expanded.combinations.first().map(|combination| combination.iter().map(|(axis, _)| axis.clone()));
    match of_combination {
        Some(axes) => axes.collect(),
        None => matrix.0.keys().filter(|key| !is_field(key)).cloned().collect(),
    }
}

/// A task by its name, or by that of an instance of it.
pub(super) fn task_named<'p>(pipeline: &'p PipelineSpec, name: &str) -> Option<(&'p Name, &'p Task)> {
    if let Some(found) = pipeline.tasks.get_key_value(name) {
        return Some(found);
    }
    let (base, _) = name.split_once('[')?;
    let (base, task) = pipeline.tasks.get_key_value(base)?;
    let expanded = expand(task.matrix.as_ref()?).ok()?;
    let is_meant = |combination: &Vec<(String, String)>| instance_name(base.as_str(), combination) == name;
    expanded.combinations.iter().any(is_meant).then_some((base, task))
}
