//! Variables: names that a process can have, and references that have a value when they are read.

use std::cell::OnceCell;

use xene_schemas::{
    env::EnvValue,
    map::UniqueMap,
    meta::Name,
    param::Param,
    pipeline::PipelineSpec,
    task::{Task, is_output_name},
    workflow::WorkflowSpec,
};

use super::{
    Path, Report, Rule, each_pipeline, each_task, file::BAD_NAME, graph::Tasks, matrix::task_named, suggest,
    twice::NAMED_TWICE,
};
use crate::compile::params::overlay;

pub(super) const BAD_VARIABLE: Rule = rule!(Error "XE0053", "bad variable", "choose another name, or another value");
pub(super) const UNKNOWN_PARAM: Rule = rule!(Error "XE0054", "unknown param", "declare it in `params`");
pub(super) const UNKNOWN_OUTPUT: Rule =
    rule!(Error "XE0055", "unknown output", "mend the name, or add it to `outputs` of the task");
pub(super) const OUTPUT_TOO_EARLY: Rule =
    rule!(Error "XE0056", "output read too early", "write it in `env` of a task or step that depends on the publisher");
pub(super) const KEPT_NAME: Rule =
    rule!(Warning "XE0130", "name kept for xene", "choose a name that does not begin with XENE_");
pub(super) const OUTPUT_NEEDS_DEFAULT: Rule =
    rule!(Error "XE0057", "output without default", "write `default:` beside it");

/// What the agent itself sets for every step.
pub(super) const RESERVED: &[&str] = &[
    "XENE_RUN_ID",
    "XENE_WORKFLOW",
    "XENE_PIPELINE",
    "XENE_TASK",
    "XENE_STEP",
    "XENE_TRIGGER",
    "XENE_SCHEDULED_TIME",
    "XENE_REVISION",
    "XENE_ATTEMPT",
    "XENE_AGENT",
    "XENE_EPOCH",
    "XENE_WORKSPACE",
    "XENE_OUTPUT",
    "XENE_CACHE",
    "XENE_PAYLOAD",
];

type Env = UniqueMap<String, EnvValue>;

/// Where variables are written, and what they may refer to.
struct Scope<'s, 'p> {
    params: &'s UniqueMap<String, Param>,
    /// The task that reads them; absent above tasks, where no output is known.
    reader: Option<Reader<'s, 'p>>,
}

struct Reader<'s, 'p> {
    pipeline: &'p PipelineSpec,
    /// Laid out once for each pipeline, when the first output is referred to.
    tasks: &'s OnceCell<Tasks<'p>>,
    name: &'p Name,
    in_finally: bool,
}

pub(super) fn check(spec: &WorkflowSpec, report: &mut Report) {
    let root = Path::ROOT.key("spec");
    check_env(report, &root.key("env"), &spec.env, &Scope { params: &spec.params, reader: None });
    each_pipeline(spec, |at, _, pipeline| {
        let params = overlay(&spec.params, &pipeline.params);
        check_env(report, &at.key("env"), &pipeline.env, &Scope { params: &params, reader: None });
        let tasks = OnceCell::new();
        each_task(at, pipeline, |at, name, task| {
            let in_finally = !pipeline.tasks.get(name).is_some_and(|other| std::ptr::eq(other, task));
            let reader = Reader { pipeline, tasks: &tasks, name, in_finally };
            let scope = Scope { params: &params, reader: Some(reader) };
            check_declared(report, at, task);
            check_env(report, &at.key("env"), &task.env, &scope);
            let steps = at.key("steps");
            for (index, step) in task.steps.iter().enumerate() {
                let at = steps.index(index);
                check_env(report, &at.key("env"), &step.env, &scope);
            }
        });
        check_connector_outputs(report, at, pipeline);
    });
}

fn check_env(report: &mut Report, at: &Path<'_>, env: &Env, scope: &Scope<'_, '_>) {
    for (name, value) in env {
        let at = at.key(name);
        check_name(report, &at, name);
        match value {
            EnvValue::Literal(literal) if literal.to_string().contains('\0') => {
                report.add(&BAD_VARIABLE, &at, "a variable can't hold a NUL character");
            }
            EnvValue::Literal(_) | EnvValue::Secret(_) | EnvValue::Expr(_) => {}
            EnvValue::Param(param) if scope.params.contains_key(param) => {}
            EnvValue::Param(param) => {
                let hint = suggest(param, scope.params.keys().map(String::as_str))
                    .unwrap_or_else(|| "declare it in `params`".into());
                report.add(&UNKNOWN_PARAM, &at.key("param"), format!("there is no param `{param}`")).hint(hint);
            }
            EnvValue::Output { task, name, default } => {
                let at = at.key("output");
                match &scope.reader {
                    None => {
                        let message = "outputs are known only within a run: refer to them in a task or step";
                        report.add(&OUTPUT_TOO_EARLY, &at, message);
                    }
                    Some(reader) => check_output(report, &at, reader, (task, name), default.is_some()),
                }
            }
        }
    }
}

fn check_name(report: &mut Report, at: &Path<'_>, name: &str) {
    let sound = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !sound {
        let message = format!("{name:?} can't name a variable: letters, digits and _ can, not beginning with a digit");
        report.add(&BAD_VARIABLE, at, message).at_key();
    } else if RESERVED.contains(&name) || name.starts_with("XENE_PARAM_") || name.starts_with("XENE_MATRIX_") {
        report.add(&BAD_VARIABLE, at, format!("{name} is set by xene itself")).at_key();
    } else if name.starts_with("XENE_") {
        let hint = suggest(name, RESERVED.iter().copied()).filter(|hint| hint.starts_with("did"));
        let message =
            format!("{name} means nothing to xene, and is not set: names that begin with XENE_ are kept for it");
        report.add(&KEPT_NAME, at, message).at_key().hint(hint);
    }
}

fn check_output(
    report: &mut Report,
    at: &Path<'_>,
    reader: &Reader<'_, '_>,
    (task, output): (&str, &str),
    has_default: bool,
) {
    let Some((name, publisher)) = task_named(reader.pipeline, task) else {
        let hint = suggest(task, reader.pipeline.tasks.keys().map(Name::as_str));
        report.add(&UNKNOWN_OUTPUT, at, format!("this pipeline has no task `{task}`")).hint(hint);
        return;
    };
    if !publishes(report, at, publisher, (task, output)) {
        return;
    }
    if name == reader.name {
        let message = format!("task `{name}` can't read what it publishes itself this way: it has not ended yet");
        let hint =
            format!("in a later step of it write {{expr: tasks{}.outputs{}}}", member(name.as_str()), member(output));
        report.add(&OUTPUT_TOO_EARLY, at, message).hint(hint);
        return;
    }
    let sure = if reader.in_finally {
        Some(false)
    } else {
        reader.tasks.get_or_init(|| Tasks::of(reader.pipeline)).precedes(name.as_str(), reader.name.as_str())
    };
    match sure {
        None => {
            let message = format!("task `{name}` need not have run when `{}` starts", reader.name);
            let hint = format!("add `{name}` to the dependencies of `{}`", reader.name);
            report.add(&OUTPUT_TOO_EARLY, at, message).hint(hint);
        }
        Some(true) if publisher.when.is_none() => {}
        Some(_) if has_default => {}
        Some(_) => {
            let message = format!("task `{task}` may fail or be left out, and then there is no `{output}`");
            let hint = format!("write {{output: {task}.{output}, default: …}}");
            report.add(&OUTPUT_NEEDS_DEFAULT, at, message).hint(hint);
        }
    }
}

/// How an expression names an entry of a map: `.NAME`, or in brackets what is no word.
fn member(name: &str) -> String {
    let is_word = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if is_word { format!(".{name}") } else { format!("[{name:?}]") }
}

/// Names of outputs that a step can publish, each once.
fn check_declared(report: &mut Report, at: &Path<'_>, task: &Task) {
    let Some(declared) = &task.outputs else { return };
    let at = at.key("outputs");
    for (index, name) in declared.iter().enumerate() {
        if !is_output_name(name) {
            let message = format!("{name:?} can't name an output: a letter or _, then letters, digits, _ and -");
            report.add(&BAD_NAME, &at.index(index), message).hint("as in `image-tag`".to_owned());
        } else if declared[..index].contains(name) {
            let message = format!("output `{name}` is declared twice");
            report.add(&NAMED_TWICE, &at.index(index), message).hint("take one of them out".to_owned());
        }
    }
}

/// Whether a task may publish an output of that name.
fn publishes(report: &mut Report, at: &Path<'_>, publisher: &Task, (task, output): (&str, &str)) -> bool {
    match &publisher.outputs {
        Some(declared) if !declared.iter().any(|name| name == output) => {
            let hint = suggest(output, declared.iter().map(String::as_str));
            report.add(&UNKNOWN_OUTPUT, at, format!("task `{task}` declares no output `{output}`")).hint(hint);
            false
        }
        _ => true,
    }
}

fn check_connector_outputs(report: &mut Report, at: &Path<'_>, pipeline: &PipelineSpec) {
    let connectors = at.key("connectors");
    for (index, connector) in pipeline.connectors.iter().enumerate() {
        let at = connectors.index(index);
        let at = at.key("outputs");
        for (variable, output) in &connector.outputs {
            let at = at.key(variable);
            check_name(report, &at, variable);
            for name in &connector.from.0 {
                if let Some(publisher) = pipeline.tasks.get(name) {
                    publishes(report, &at, publisher, (name.as_str(), output));
                }
            }
        }
    }
}
