//! What every workflow has: something to do, each thing named once.

use std::collections::HashSet;

use xene_schemas::{
    step::{Run, Shell, Step},
    task::Task,
    workflow::WorkflowSpec,
};

use super::{Path, Report, Rule, each_pipeline, each_task};

pub(super) const EMPTY: Rule = rule!(Error "XE0020", "nothing there", "add something to do, or take the whole out");
pub(super) const TWICE: Rule = rule!(Error "XE0021", "name used twice", "rename one of them");
pub(super) const SHELL: Rule = rule!(
    Error "XE0022", "unknown shell",
    "write `sh`, `bash`, or a program with its arguments as a list: shell: [python3]"
);

pub(super) fn check(spec: &WorkflowSpec, report: &mut Report) {
    if spec.pipelines.is_empty() {
        let root = Path::ROOT.key("spec");
        report.add(&EMPTY, &root.key("pipelines"), "a workflow needs at least one pipeline").at_key();
    }
    each_pipeline(spec, |at, name, pipeline| {
        if pipeline.tasks.is_empty() {
            report.add(&EMPTY, &at.key("tasks"), format!("pipeline `{name}` needs at least one task")).at_key();
        }
        let finally = at.key("finally");
        for task in pipeline.finally.keys().filter(|task| pipeline.tasks.contains_key(*task)) {
            let message = format!("task `{task}` stands in both `tasks` and `finally`");
            report.add(&TWICE, &finally.key(task.as_str()), message).at_key();
        }
        each_task(at, pipeline, |at, name, task| {
            if task.steps.is_empty() {
                report.add(&EMPTY, &at.key("steps"), format!("task `{name}` needs at least one step")).at_key();
            }
            check_steps(report, &at.key("steps"), task);
        });
    });
}

fn check_steps(report: &mut Report, at: &Path<'_>, task: &Task) {
    let mut names = HashSet::new();
    for (index, step) in task.steps.iter().enumerate() {
        let at = at.index(index);
        let name = step.name_at(index);
        if names.contains(&name) {
            let message = format!("another step of this task is named `{name}`");
            report.add(&TWICE, &at.key("name"), message);
        }
        names.insert(name);
        check_run(report, &at, step);
    }
}

fn check_run(report: &mut Report, at: &Path<'_>, step: &Step) {
    match &step.run {
        Run::Script(script) if script.trim().is_empty() => {
            report.add(&EMPTY, &at.key("run"), "this step runs nothing");
        }
        Run::Argv(argv) if argv.first().is_none_or(String::is_empty) => {
            report.add(&EMPTY, &at.key("run"), "a list to run begins with a program");
        }
        Run::Script(_) | Run::Argv(_) => {}
    }
    let at_shell = at.key("shell");
    match &step.shell {
        None => {}
        Some(_) if matches!(step.run, Run::Argv(_)) => {
            let message = "a list is run without a shell";
            report.add(&SHELL, &at_shell, message).hint("remove `shell`, or write `run` as text".to_owned());
        }
        Some(Shell::Named(name)) if matches!(name.as_str(), "sh" | "bash") => {}
        Some(Shell::Named(name)) => {
            let message = format!("there is no shell named `{name}`: by name there are `sh` and `bash`");
            let hint = format!("a program that takes the script as a file is written as a list: shell: [{name}]");
            report.add(&SHELL, &at_shell, message).hint(hint);
        }
        Some(Shell::Argv(argv)) if argv.first().is_none_or(String::is_empty) => {
            report.add(&SHELL, &at_shell, "a list for `shell` begins with a program");
        }
        Some(Shell::Argv(_)) => {}
    }
}
