//! Tasks: the nodes of a pipeline's DAG.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::{
    connector::Names, duration::Duration, env::EnvValue, executor::Executor, map::UniqueMap, meta::Name, step::Step,
};

/// A task: steps that run in order on one agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Task {
    /// One sentence for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Tasks that must end in Success first.
    #[serde(default, skip_serializing_if = "names_is_empty")]
    pub dependencies: Names,
    /// Tasks with the same context share one workspace folder; default `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<Name>,
    /// Relative to the workspace (created if missing) or absolute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// A CEL expression; false: NotExecuted, reason Skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// One instance for each combination of the axes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matrix: Option<Matrix>,
    /// How long one attempt may run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// How long after SIGTERM comes SIGKILL; default the pipeline's, which is 10s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_period: Option<Duration>,
    /// Whether and how often it is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// True: its Error leaves the run's verdict, as a warning.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_failure: bool,
    /// Variables of its steps.
    #[serde(default, skip_serializing_if = "UniqueMap::is_empty")]
    pub env: UniqueMap<String, EnvValue>,
    /// Where its steps run; default the pipeline's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub executor: Option<Executor>,
    /// At least one, run in order.
    #[cfg_attr(feature = "schema", schemars(length(min = 1)))]
    pub steps: Vec<Step>,
    /// The only names that steps may publish, if given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<Vec<OutputName>>"))]
    pub outputs: Option<Vec<String>>,
    /// Files kept with the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifacts: Option<Artifacts>,
}

fn names_is_empty(names: &Names) -> bool {
    names.0.is_empty()
}

/// How an Error is tried again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Retry {
    /// How often after the first try; 1 to 100.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 100)))]
    pub attempts: u32,
    /// Before the first retry; default 1s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<Duration>,
    /// What the delay is multiplied by each time; default 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 100)))]
    pub backoff: Option<f64>,
    /// The longest delay; default 5m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_delay: Option<Duration>,
    /// Only these exit codes are tried again; default all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub on_exit_codes: Vec<i32>,
}

/// Axes of a matrix: name by values, and what to add, leave out, and run at once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Matrix(pub IndexMap<String, serde_json::Value>);

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Matrix {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Matrix".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let value = serde_json::json!({"type": ["string", "number", "boolean"]});
        let entries = |about: &str| {
            let entry = serde_json::json!({"type": "object", "minProperties": 1, "additionalProperties": value});
            serde_json::json!({"description": about, "type": "array", "items": entry})
        };
        schemars::json_schema!({
            "description": "Axes of a matrix: name by values, and what to add, leave out, and run at once.",
            "type": "object",
            "minProperties": 1,
            "properties": {
                "include": entries("Combinations to add, each whole."),
                "exclude": entries("Combinations to leave out: those that have all of these values."),
                "maxParallel": {"description": "How many run at once.", "type": "integer", "minimum": 1}
            },
            "additionalProperties": {"type": "array", "minItems": 1, "items": value}
        })
    }
}

/// What can name an output, for the schema.
#[cfg(feature = "schema")]
struct OutputName;

#[cfg(feature = "schema")]
impl schemars::JsonSchema for OutputName {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "OutputName".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_-]*$"})
    }
}

/// Files kept with the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Artifacts {
    /// Globs, relative to the workspace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub save: Vec<String>,
    /// Tasks whose artifacts are laid into the workspace first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<Name>,
}

/// True for what can name an output: a letter or `_`, then letters, digits, `_` and `-`.
pub fn is_output_name(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
}
