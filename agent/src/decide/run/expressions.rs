//! What the expressions of a run see, and what they come to.

use std::{
    collections::HashMap,
    ops::Range,
    sync::{Arc, LazyLock, OnceLock},
};

use indexmap::{IndexMap, IndexSet};
use xene_schemas::{env::EnvValue, param::ParamType, phase::TaskPhase, pipeline::CompiledPipeline, run::RunSpec};

use super::{
    RunMachine,
    task::{End, State},
};
use crate::expr::{Expr, ExprError, Scope, Value};

/// The expressions of a run, and what they see that does not change.
#[derive(Debug)]
pub(super) struct Expressions {
    /// Each parsed once, when it is first needed.
    parsed: HashMap<String, OnceLock<Result<Expr, ExprError>>>,
    params: Value,
    trigger: Value,
}

impl Expressions {
    pub(super) fn new(pipeline: &CompiledPipeline, run: &RunSpec, payload: Option<&[u8]>) -> Self {
        let parsed: HashMap<String, _> = texts(pipeline).map(|text| (text.clone(), OnceLock::new())).collect();
        let reads_payload = parsed.keys().any(|text| text.contains("payload"));
        let payload = payload.filter(|_| reads_payload).and_then(|payload| serde_json::from_slice(payload).ok());
        // What is no JSON, or too much of it, is as if there were none: an expression that needs it says so.
        let payload = payload.and_then(|payload: serde_json::Value| Value::from_json(&payload).ok());
        let text = |text: Option<String>| text.map_or(Value::Null, Value::from);
        let trigger = Value::map([
            ("type", Value::from(run.trigger.kind.as_str())),
            ("name", text(run.trigger.name.as_ref().map(ToString::to_string))),
            ("scheduledTime", text(run.trigger.scheduled_time.map(|at| at.to_string()))),
            ("payload", payload.unwrap_or(Value::Null)),
        ]);
        let param = |(name, param): (&String, &xene_schemas::param::Param)| {
            let value = run.params.get(name).cloned().or_else(|| param.default.as_ref().map(ToString::to_string));
            (name.clone(), value.map_or(Value::Null, |value| typed(param.kind, value)))
        };
        Self { parsed, params: Value::map(pipeline.params.iter().map(param)), trigger }
    }
}

/// All that a pipeline writes as expressions.
fn texts(pipeline: &CompiledPipeline) -> impl Iterator<Item = &String> {
    let spec = &pipeline.spec;
    let tasks = || spec.tasks.values().chain(spec.finally.values());
    let steps = || tasks().flat_map(|task| &task.steps);
    let layers = [&pipeline.env, &spec.env].into_iter().chain(tasks().map(|task| &task.env));
    let layers = layers.chain(steps().map(|step| &step.env));
    let of_env = layers.flat_map(|layer| layer.values()).filter_map(|value| match value {
        EnvValue::Expr(text) => Some(text),
        EnvValue::Literal(_) | EnvValue::Param(_) | EnvValue::Output { .. } | EnvValue::Secret(_) => None,
    });
    let of_tasks = tasks().filter_map(|task| task.when.as_ref());
    let of_steps = steps().filter_map(|step| step.when.as_ref());
    let of_connectors = spec.connectors.iter().filter_map(|connector| connector.when.as_ref());
    of_env.chain(of_tasks).chain(of_steps).chain(of_connectors)
}

/// A param as its declaration says. What does not fit, which no start lets through, stays text.
fn typed(kind: ParamType, text: String) -> Value {
    let value = match kind {
        ParamType::String | ParamType::Choice => None,
        ParamType::Integer => text.parse().ok().map(Value::Int),
        ParamType::Number => text.parse().ok().map(Value::Double),
        ParamType::Boolean => text.parse().ok().map(Value::Bool),
    };
    value.unwrap_or_else(|| Value::from(text))
}

impl RunMachine {
    /// The value of an expression that a task, one of its steps or one of its connectors has; `upstream` is the task
    /// that the connector comes from.
    ///
    /// # Errors
    /// A sentence, if it has none.
    pub(super) fn evaluate(&self, text: &str, task: usize, upstream: Option<usize>) -> Result<Value, String> {
        let expr = self.expressions.parsed.get(text).ok_or("there is no such expression")?;
        let expr = expr.get_or_init(|| Expr::parse(text)).as_ref().map_err(ToString::to_string)?;
        expr.eval(&self.scope(expr, task, upstream)).map_err(|error| error.to_string())
    }

    /// As [`Self::evaluate`], of a condition.
    pub(super) fn holds(&self, text: &str, task: usize, upstream: Option<usize>) -> Result<bool, String> {
        match self.evaluate(text, task, upstream)? {
            Value::Bool(truth) => Ok(truth),
            other => Err(format!("it gives {}, not true or false", other.describe())),
        }
    }

    fn scope(&self, expr: &Expr, task: usize, upstream: Option<usize>) -> Scope {
        let mut scope = Scope::new()
            .with("params", self.expressions.params.clone())
            .with("trigger", self.expressions.trigger.clone());
        if expr.paths().iter().any(|path| path.segments[0] == "tasks") {
            scope = scope.with("tasks", self.tasks_value(expr));
        }
        let combination = self.tasks.combination(task);
        if !combination.is_empty() {
            let values = combination.iter().map(|(axis, value)| (axis.clone(), Value::from(value.as_str())));
            scope = scope.with("matrix", Value::map(values));
        }
        if let Some(upstream) = upstream {
            let end = self.end_of(upstream);
            scope =
                scope.with("phase", end.phase.as_str()).with("exitCode", end.exit_code).with("outputs", end.outputs);
        }
        scope
    }

    /// Those tasks that the expression names; all of them if it could mean any.
    fn tasks_value(&self, expr: &Expr) -> Value {
        let paths = || expr.paths().iter().filter(|path| path.segments[0] == "tasks");
        if paths().any(|path| path.segments.len() == 1) {
            return Value::map(
                self.tasks.names_of_file().filter_map(|name| Some((name.to_owned(), self.task_value(name)?))),
            );
        }
        let named = paths().map(|path| &path.segments[1]);
        Value::map(named.filter_map(|name| Some((name.clone(), self.task_value(name)?))))
    }

    /// A task of the file, or an instance of one, as `tasks.NAME` shows it.
    fn task_value(&self, name: &str) -> Option<Value> {
        let end = match self.tasks.find(name) {
            Some(task) => self.end_of(task),
            None => self.end_of_all(self.tasks.of_name(name)?),
        };
        Some(Value::map([
            ("phase", Value::from(end.phase.as_str())),
            ("reason", end.reason.into()),
            ("exitCode", end.exit_code.into()),
            ("outputs", end.outputs),
        ]))
    }

    /// How far a task is.
    fn end_of(&self, task: usize) -> Shown {
        let outputs = |outputs: &IndexMap<String, String>| {
            Value::map(outputs.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))))
        };
        let (phase, reason, exit_code, outputs) = match &self.states[task] {
            State::Ended(End { phase, reason, exit_code, outputs: published }) => {
                (*phase, reason.as_ref().map(ToString::to_string), *exit_code, outputs(published))
            }
            State::Running(attempt) => (TaskPhase::Running, None, None, outputs(attempt.outputs())),
            State::Backoff(_) => (TaskPhase::Running, None, None, Value::map::<String>([])),
            State::Waiting | State::Approving { .. } | State::Held | State::Asking(_) => {
                (TaskPhase::NotExecuted, None, None, Value::map::<String>([]))
            }
        };
        Shown { phase, reason, exit_code: exit_code.map(i64::from), outputs }
    }

    /// How far all instances of a task with a matrix are: Error if one is, Success once all are that were not left
    /// out. Its outputs are lists: what its instances have published, in their order.
    fn end_of_all(&self, of: usize) -> Shown {
        let ends: Vec<Shown> = self.tasks.members(of).0.map(|task| self.end_of(task)).collect();
        let any = |phase: TaskPhase| ends.iter().any(|end| end.phase == phase);
        let members = self.tasks.members(of).0;
        let all_ended = members.clone().all(|task| matches!(self.states[task], State::Ended(_)));
        let phase = if any(TaskPhase::Error) {
            TaskPhase::Error
        } else if any(TaskPhase::Running) || (any(TaskPhase::Success) && !all_ended) {
            TaskPhase::Running
        } else if any(TaskPhase::Success) {
            TaskPhase::Success
        } else {
            TaskPhase::NotExecuted
        };
        let exit_code = ends.iter().filter_map(|end| end.exit_code).max_by_key(|code| *code != 0);
        let names: IndexSet<&String> = members.clone().flat_map(|task| self.published(task).keys()).collect();
        let outputs = names.into_iter().map(|name| (name.clone(), self.outputs_of_all(members.clone(), name)));
        Shown { phase, reason: None, exit_code, outputs: Value::map(outputs) }
    }

    fn published(&self, task: usize) -> &IndexMap<String, String> {
        static NONE: LazyLock<IndexMap<String, String>> = LazyLock::new(Default::default);
        match &self.states[task] {
            State::Ended(end) => &end.outputs,
            State::Running(attempt) => attempt.outputs(),
            State::Waiting | State::Approving { .. } | State::Held | State::Asking(_) | State::Backoff(_) => &NONE,
        }
    }

    fn outputs_of_all(&self, members: Range<usize>, name: &str) -> Value {
        let values = members.filter_map(|task| self.published(task).get(name));
        Value::List(Arc::new(values.map(|value| Value::from(value.as_str())).collect()))
    }

    /// An output as a variable takes it: that of a task with a matrix is a list, as JSON.
    pub(super) fn output(&self, task: &str, name: &str) -> Result<Option<String>, String> {
        if let Some(task) = self.tasks.find(task) {
            return Ok(self.published(task).get(name).cloned());
        }
        let Some(of) = self.tasks.of_name(task) else { return Ok(None) };
        let members = self.tasks.members(of).0;
        if members.clone().all(|task| !self.published(task).contains_key(name)) {
            return Ok(None);
        }
        let list = self.outputs_of_all(members, name);
        list.to_text().map(Some).map_err(|error| format!("output {name} of all instances of task {task}: {error}"))
    }
}

/// What `tasks.NAME` shows.
struct Shown {
    phase: TaskPhase,
    reason: Option<String>,
    exit_code: Option<i64>,
    outputs: Value,
}
