//! Parts of the language that this version reads but does not carry out: refused, never silently ignored.

use xene_schemas::{
    env::EnvValue, executor::Executor, map::UniqueMap, pipeline::PipelineSpec, task::Task, workflow::WorkflowSpec,
};

use super::{Path, Report, Rule, each_pipeline, each_task};

pub(super) const UNSUPPORTED: Rule =
    rule!(Error "XE0018", "not carried out by this version", "take it out until a version carries it out");

type Env = UniqueMap<String, EnvValue>;

pub(super) fn check(spec: &WorkflowSpec, report: &mut Report) {
    let root = Path::ROOT.key("spec");
    env(report, &root, &spec.env);
    each_pipeline(spec, |at, _, pipeline| {
        check_pipeline(report, at, pipeline);
        each_task(at, pipeline, |at, _, task| check_task(report, at, task));
    });
}

fn refuse(report: &mut Report, at: &Path<'_>, what: &str) {
    let message = format!("`{what}` is part of the language, but this version does not carry it out yet");
    report.add(&UNSUPPORTED, at, message).at_key();
}

fn check_pipeline(report: &mut Report, at: &Path<'_>, pipeline: &PipelineSpec) {
    executor(report, at, pipeline.executor.as_ref());
    env(report, at, &pipeline.env);
}

fn check_task(report: &mut Report, at: &Path<'_>, task: &Task) {
    executor(report, at, task.executor.as_ref());
    env(report, at, &task.env);
    let steps = at.key("steps");
    for (index, step) in task.steps.iter().enumerate() {
        let at = steps.index(index);
        env(report, &at, &step.env);
    }
}

fn executor(report: &mut Report, at: &Path<'_>, executor: Option<&Executor>) {
    match executor {
        None | Some(Executor::Shell {}) => {}
        Some(Executor::Container { .. }) => refuse(report, &at.key("executor"), "type: container"),
    }
}

fn env(report: &mut Report, at: &Path<'_>, env: &Env) {
    let at = at.key("env");
    for (name, value) in env {
        if let EnvValue::Secret(_) = value {
            refuse(report, &at.key(name).key("secret"), "secret");
        }
    }
}
