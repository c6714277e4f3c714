//! Expressions: that they can be read, within bounds, and that what they read is there by then.

use std::cell::OnceCell;

use xene_agent::expr::{Expr, ExprError, ExprErrorKind, FUNCTIONS, Path as Read};
use xene_schemas::{
    env::EnvValue, map::UniqueMap, meta::Name, param::Param, pipeline::PipelineSpec, task::Task, workflow::WorkflowSpec,
};

use super::{
    Path, Report, Rule, each_pipeline, each_task,
    graph::Tasks,
    matrix::{axes, task_named},
    suggest,
};
use crate::compile::params::overlay;

pub(super) const EXPR_SYNTAX: Rule = rule!(
    Error "XE0070", "expression that can't be read",
    "docs/reference/language.md#expressions has the operators and functions"
);
pub(super) const EXPR_TOO_LARGE: Rule =
    rule!(Error "XE0071", "expression too large", "compute it in a step, and publish the result as an output");
pub(super) const EXPR_UNKNOWN: Rule = rule!(
    Error "XE0072", "expression reads what there is not",
    "docs/reference/language.md#expressions has what an expression reads"
);
pub(super) const EXPR_TOO_EARLY: Rule =
    rule!(Error "XE0073", "expression reads a task too early", "add that task to the dependencies of this one");

/// Of `trigger`.
const TRIGGER: &[&str] = &["type", "name", "scheduledTime", "payload"];
/// Of `tasks.NAME`.
const TASK: &[&str] = &["phase", "reason", "exitCode", "outputs"];
/// Of a connector, about the task it comes from.
const UPSTREAM: &[&str] = &["phase", "exitCode", "outputs"];

type Env = UniqueMap<String, EnvValue>;

/// Where an expression stands, and so what it sees.
struct Scope<'s, 'p> {
    params: &'s UniqueMap<String, Param>,
    /// Absent above tasks.
    place: Option<Place<'s, 'p>>,
}

#[derive(Clone, Copy)]
struct Place<'s, 'p> {
    pipeline: &'p PipelineSpec,
    /// Laid out once for each pipeline, when the first task is read.
    tasks: &'s OnceCell<Tasks<'p>>,
    who: Who<'p>,
}

#[derive(Clone, Copy)]
enum Who<'p> {
    /// A task, before it begins.
    Task(&'p Name, &'p Task),
    /// A step of it, which sees its own task too.
    Step(&'p Name, &'p Task),
    /// A task of `finally`, or a step of it: all others have ended.
    Finally(&'p Task),
    /// A connector, once this task has ended.
    Connector { from: &'p Name, to: Option<&'p Task> },
}

pub(super) fn check(spec: &WorkflowSpec, report: &mut Report) {
    let root = Path::ROOT.key("spec");
    env(report, &root, &spec.env, &Scope { params: &spec.params, place: None });
    each_pipeline(spec, |at, _, pipeline| {
        if !has_expressions(pipeline) {
            return;
        }
        let params = overlay(&spec.params, &pipeline.params);
        env(report, at, &pipeline.env, &Scope { params: &params, place: None });
        let tasks = OnceCell::new();
        let scope = |who| Scope { params: &params, place: Some(Place { pipeline, tasks: &tasks, who }) };
        each_task(at, pipeline, |at, name, task| {
            let in_finally = !pipeline.tasks.get(name).is_some_and(|other| std::ptr::eq(other, task));
            let before = scope(if in_finally { Who::Finally(task) } else { Who::Task(name, task) });
            let within = scope(if in_finally { Who::Finally(task) } else { Who::Step(name, task) });
            if let Some(when) = &task.when {
                expression(report, &at.key("when"), when, &before);
            }
            env(report, at, &task.env, &within);
            let steps = at.key("steps");
            for (index, step) in task.steps.iter().enumerate() {
                let at = steps.index(index);
                if let Some(when) = &step.when {
                    expression(report, &at.key("when"), when, &within);
                }
                env(report, &at, &step.env, &within);
            }
        });
        let connectors = at.key("connectors");
        for (index, connector) in pipeline.connectors.iter().enumerate() {
            let Some(when) = &connector.when else { continue };
            let at = connectors.index(index);
            // What is wrong for one of several tasks is said once.
            let before = report.0.len();
            for from in &connector.from.0 {
                let to = connector.to.0.first().and_then(|to| pipeline.tasks.get(to));
                if report.0.len() == before {
                    expression(report, &at.key("when"), when, &scope(Who::Connector { from, to }));
                }
            }
        }
    });
}

/// Most pipelines have none, and then nothing needs to be laid out.
fn has_expressions(pipeline: &PipelineSpec) -> bool {
    let in_env = |env: &Env| env.values().any(|value| matches!(value, EnvValue::Expr(_)));
    let mut tasks = pipeline.tasks.values().chain(pipeline.finally.values());
    in_env(&pipeline.env)
        || pipeline.connectors.iter().any(|connector| connector.when.is_some())
        || tasks.any(|task| {
            task.when.is_some()
                || in_env(&task.env)
                || task.steps.iter().any(|step| step.when.is_some() || in_env(&step.env))
        })
}

fn env(report: &mut Report, at: &Path<'_>, env: &Env, scope: &Scope<'_, '_>) {
    let at = at.key("env");
    for (name, value) in env {
        if let EnvValue::Expr(text) = value {
            let at = at.key(name);
            expression(report, &at.key("expr"), text, scope);
        }
    }
}

fn expression(report: &mut Report, at: &Path<'_>, text: &str, scope: &Scope<'_, '_>) {
    match Expr::parse(text) {
        Ok(expr) => {
            for read in expr.paths() {
                check_read(report, at, text, read, scope);
            }
        }
        Err(error) => refused(report, at, text, &error),
    }
}

/// Says why a text is no expression.
pub(super) fn refused(report: &mut Report, at: &Path<'_>, text: &str, error: &ExprError) {
    let rule = match error.kind {
        ExprErrorKind::TooLarge | ExprErrorKind::TooCostly => &EXPR_TOO_LARGE,
        ExprErrorKind::UnknownFunction => &EXPR_UNKNOWN,
        ExprErrorKind::Syntax | ExprErrorKind::Value => &EXPR_SYNTAX,
    };
    let hint = match error.kind {
        ExprErrorKind::UnknownFunction => {
            suggest(error.message.rsplit(' ').next().unwrap_or_default(), FUNCTIONS.iter().copied())
        }
        _ => None,
    };
    report.add(rule, at, format!("{error}{}", place(text, error.offset))).hint(hint);
}

/// Where in the expression, for its readers.
fn place(text: &str, offset: Option<usize>) -> String {
    let Some(before) = offset.and_then(|offset| text.get(..offset)) else { return String::new() };
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    if text.trim_end().contains('\n') {
        format!(" (line {line}, character {column} of the expression)")
    } else {
        format!(" (character {column} of the expression)")
    }
}

fn check_read(report: &mut Report, at: &Path<'_>, text: &str, read: &Read, scope: &Scope<'_, '_>) {
    let mut segments = read.segments.iter().map(String::as_str);
    let (Some(variable), key) = (segments.next(), segments.next()) else { return };
    let mut unknown = |message: String, hint: Option<String>| {
        report.add(&EXPR_UNKNOWN, at, message + &place(text, Some(read.offset))).hint(hint);
    };
    let one_of = |known: &[&str], key: &str| suggest(key, known.iter().copied());
    let matrix = scope.place.map(|place| place.who.axes()).unwrap_or_default();
    let upstream = matches!(scope.place, Some(Place { who: Who::Connector { .. }, .. }));
    match (variable, key) {
        ("params", None) | ("trigger", None) => {}
        ("params", Some(key)) if scope.params.contains_key(key) => {}
        ("params", Some(key)) => {
            let hint = suggest(key, scope.params.keys().map(String::as_str))
                .unwrap_or_else(|| "declare it in `params`".into());
            unknown(format!("there is no param `{key}`"), Some(hint));
        }
        ("trigger", Some(key)) if TRIGGER.contains(&key) => {}
        ("trigger", Some(key)) => unknown(format!("`trigger` has no `{key}`"), one_of(TRIGGER, key)),
        ("matrix", None) if !matrix.is_empty() => {}
        ("matrix", Some(key)) if !matrix.is_empty() => {
            if !matrix.iter().any(|axis| axis == key) {
                unknown(format!("the matrix has no axis `{key}`"), suggest(key, matrix.iter().map(String::as_str)));
            }
        }
        ("tasks", key) if scope.place.is_some() => {
            if let (Some(place), Some(task)) = (scope.place, key) {
                check_task(report, at, text, read, place, task);
            }
        }
        (variable, _) if upstream && UPSTREAM.contains(&variable) => {}
        ("tasks", _) => {
            let message = "tasks are known only within a run: read them in a task, a step or a connector";
            report.add(&EXPR_TOO_EARLY, at, format!("{message}{}", place(text, Some(read.offset))));
        }
        ("matrix", _) => unknown("this task has no `matrix`".into(), None),
        (variable, _) => {
            let mut known = vec!["params", "trigger"];
            known.extend(scope.place.map(|_| "tasks"));
            known.extend((!matrix.is_empty()).then_some("matrix"));
            known.extend(UPSTREAM.iter().filter(|_| upstream).copied());
            unknown(format!("there is no variable `{variable}`"), suggest(variable, known));
        }
    }
}

impl Who<'_> {
    fn axes(self) -> Vec<String> {
        match self {
            Self::Task(_, task) | Self::Step(_, task) | Self::Finally(task) => axes(task),
            Self::Connector { to, .. } => to.map(axes).unwrap_or_default(),
        }
    }
}

fn check_task(report: &mut Report, at: &Path<'_>, text: &str, read: &Read, here: Place<'_, '_>, wanted: &str) {
    let where_ = place(text, Some(read.offset));
    let Some((name, task)) = task_named(here.pipeline, wanted) else {
        let mut known = here.pipeline.tasks.keys().map(Name::as_str);
        // `tasks.build-all` is `tasks.build` minus `all`.
        let cut_off =
            known.clone().find(|name| name.strip_prefix(wanted).is_some_and(|rest| rest.starts_with(['-', '.'])));
        let hint = match cut_off {
            Some(whole) => Some(format!("a name with - or . is written tasks[\"{whole}\"]")),
            None => suggest(wanted, known.by_ref()),
        };
        report.add(&EXPR_UNKNOWN, at, format!("this pipeline has no task `{wanted}`{where_}")).hint(hint);
        return;
    };
    let tasks = || here.tasks.get_or_init(|| Tasks::of(here.pipeline));
    let (ended, reader) = match here.who {
        Who::Finally(_) => (true, None),
        Who::Step(own, _) if own == name => (true, None),
        Who::Task(own, _) | Who::Step(own, _) => (tasks().precedes(name.as_str(), own.as_str()).is_some(), Some(own)),
        Who::Connector { from, .. } => {
            (from == name || tasks().precedes(name.as_str(), from.as_str()).is_some(), Some(from))
        }
    };
    if !ended {
        let message = format!("task `{name}` need not have ended by then{where_}");
        let hint = reader
            .filter(|reader| *reader != name)
            .map(|reader| format!("add `{name}` to the dependencies of `{reader}`"));
        report.add(&EXPR_TOO_EARLY, at, message).hint(hint);
        return;
    }
    let (field, output) = (read.segments.get(2), read.segments.get(3));
    let Some(field) = field else { return };
    if !TASK.contains(&field.as_str()) {
        let message = format!("a task has no `{field}`{where_}");
        report.add(&EXPR_UNKNOWN, at, message).hint(suggest(field, TASK.iter().copied()));
    } else if let ("outputs", Some(output), Some(declared)) = (field.as_str(), output, &task.outputs)
        && !declared.contains(output)
    {
        let message = format!("task `{name}` declares no output `{output}`{where_}");
        report.add(&EXPR_UNKNOWN, at, message).hint(suggest(output, declared.iter().map(String::as_str)));
    }
}
