//! What a step's process gets to see of its run: variables, innermost wins, and `XENE_*` above all.

use indexmap::IndexMap;
use xene_schemas::{env::EnvValue, map::UniqueMap, meta::AgentName, pipeline::CompiledPipeline, run::RunSpec};

use super::{Epoch, Reason, RunName};
use crate::matrix::{self, Combination};

/// The part that is the same for all steps of a run.
#[derive(Debug)]
pub(super) struct Environment {
    /// `XENE_*` of the run and of its params.
    fixed: Vec<(String, String)>,
    /// Values of params, those that nobody gave by their defaults; none for a declared one that has neither.
    params: IndexMap<String, Option<String>>,
}

/// Variables of one place in the workflow.
pub(super) type Layer<'a> = &'a UniqueMap<String, EnvValue>;

/// A variable's value before it is looked up: only those that win are.
enum Value<'a> {
    Written(&'a EnvValue),
    Handed(String),
}

/// An output by task and name; none if there is none, and a sentence if it can't be had.
pub(super) type OutputOf<'a> = &'a dyn Fn(&str, &str) -> Result<Option<String>, String>;

/// Where values come from that only the run knows; an error is a sentence.
pub(super) struct Sources<'a> {
    pub(super) output: OutputOf<'a>,
    /// The value of an expression, as text.
    pub(super) expr: &'a dyn Fn(&str) -> Result<String, String>,
}

/// Where one step stands.
#[derive(Debug)]
pub(super) struct Place<'a> {
    pub(super) task: &'a str,
    pub(super) step: &'a str,
    pub(super) attempt: u32,
    /// Of its matrix; empty without one.
    pub(super) combination: &'a Combination,
}

impl Environment {
    pub(super) fn new(
        name: RunName,
        spec: &RunSpec,
        pipeline: &CompiledPipeline,
        agent: &AgentName,
        epoch: Epoch,
    ) -> Self {
        let mut params: IndexMap<String, Option<String>> = (pipeline.params.iter())
            .map(|(name, param)| (name.clone(), param.default.as_ref().map(ToString::to_string)))
            .collect();
        params.extend(spec.params.iter().map(|(name, value)| (name.clone(), Some(value.clone()))));
        let mut fixed: Vec<(String, String)> = [
            ("XENE_RUN_ID", name.to_string()),
            ("XENE_WORKFLOW", spec.workflow.to_string()),
            ("XENE_PIPELINE", spec.pipeline.to_string()),
            ("XENE_TRIGGER", spec.trigger.kind.as_str().into()),
            ("XENE_REVISION", spec.revision.to_string()),
            ("XENE_AGENT", agent.to_string()),
            ("XENE_EPOCH", epoch.to_string()),
        ]
        .map(|(name, value)| (name.into(), value))
        .into();
        fixed.extend(spec.trigger.scheduled_time.map(|at| ("XENE_SCHEDULED_TIME".into(), at.to_string())));
        let given = params.iter().filter_map(|(name, value)| Some((param_variable(name), value.clone()?)));
        fixed.extend(given);
        Self { fixed, params }
    }

    /// All variables of a step. Layers go from the outermost to the innermost; `handed` are what connectors hand to
    /// the task: they win over the task's own, which may so be defaults, but not over the step's.
    ///
    /// # Errors
    /// A reason and a sentence, if a value can't be had.
    pub(super) fn of_step<'a>(
        &self,
        place: Place<'_>,
        [workflow, pipeline, task, step]: [Layer<'a>; 4],
        handed: Vec<(&'a str, String)>,
        sources: &Sources<'_>,
    ) -> Result<Vec<(String, String)>, (Reason, String)> {
        let mut winners: IndexMap<&str, Value<'_>> = IndexMap::new();
        for layer in [workflow, pipeline, task] {
            winners.extend(layer.iter().map(|(name, value)| (name.as_str(), Value::Written(value))));
        }
        winners.extend(handed.into_iter().map(|(name, value)| (name, Value::Handed(value))));
        winners.extend(step.iter().map(|(name, value)| (name.as_str(), Value::Written(value))));
        let mut variables = Vec::with_capacity(winners.len() + self.fixed.len() + 3);
        for (name, value) in winners.into_iter().filter(|(name, _)| !name.starts_with("XENE_")) {
            let value = match value {
                Value::Handed(value) => Some(value),
                Value::Written(value) => self.value(name, value, sources)?,
            };
            variables.extend(value.map(|value| (name.to_owned(), value)));
        }
        variables.extend_from_slice(&self.fixed);
        variables.extend(place.combination.iter().map(|(axis, value)| (matrix::variable(axis), value.clone())));
        let here = [("XENE_TASK", place.task), ("XENE_STEP", place.step), ("XENE_ATTEMPT", &place.attempt.to_string())]
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        variables.extend(here);
        Ok(variables)
    }

    /// A variable's value; none for a declared param that has no value.
    fn value(&self, name: &str, value: &EnvValue, sources: &Sources<'_>) -> Result<Option<String>, (Reason, String)> {
        let invalid = |message: String| Err((Reason::SPEC_INVALID, message));
        match value {
            EnvValue::Literal(scalar) => Ok(Some(scalar.to_string())),
            EnvValue::Param(param) => match self.params.get(param) {
                Some(value) => Ok(value.clone()),
                None => invalid(format!("variable {name} needs param {param}, which is not declared")),
            },
            EnvValue::Output { task, name: output_name, default } => {
                match (sources.output)(task, output_name) {
                    Ok(Some(value)) => Ok(Some(value)),
                    Err(why) => invalid(format!("variable {name} has no value: {why}")),
                    Ok(None) => match default {
                        Some(default) => Ok(Some(default.clone())),
                        // An empty value in its place would make `rm -rf "$DIR"/*` of a slip of the pen.
                        None => invalid(format!(
                            "variable {name} needs output {output_name} of task {task}, which did not publish it"
                        )),
                    },
                }
            }
            EnvValue::Secret(_) => invalid(format!("variable {name} is a secret, which this version does not open")),
            // No variable can hold it, and what follows it would be lost.
            EnvValue::Expr(text) => match (sources.expr)(text) {
                Ok(value) if value.contains('\0') => {
                    Err((Reason::EXPR_FAILED, format!("the expression of variable {name} gives a NUL character")))
                }
                Ok(value) => Ok(Some(value)),
                Err(why) => {
                    Err((Reason::EXPR_FAILED, format!("the expression of variable {name} has no value: {why}")))
                }
            },
        }
    }
}

/// `dry-run` → `XENE_PARAM_DRY_RUN`.
fn param_variable(name: &str) -> String {
    let upper = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    name.chars().map(upper).fold("XENE_PARAM_".to_owned(), |mut name, c| {
        name.push(c);
        name
    })
}
