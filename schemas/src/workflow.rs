//! Workflows: what one YAML document declares.

use serde::{Deserialize, Serialize};

use crate::{
    env::EnvValue,
    map::UniqueMap,
    meta::{Name, ObjectMeta},
    param::Param,
    pipeline::PipelineSpec,
    trigger::Trigger,
};

/// A workflow document of `xene/v1`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Workflow {
    /// `xene/v1`.
    pub api_version: ApiVersion,
    /// `Workflow`.
    pub kind: WorkflowKind,
    /// Name, description, labels.
    pub metadata: ObjectMeta,
    /// What is desired.
    pub spec: WorkflowSpec,
}

/// The version of the language.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum ApiVersion {
    /// This one.
    #[serde(rename = "xene/v1")]
    V1,
}

/// The kind of a workflow document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum WorkflowKind {
    /// The only one.
    Workflow,
}

/// What a workflow declares.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkflowSpec {
    /// True: triggers do not fire; manual starts are refused unless forced.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspend: bool,
    /// Variables that pipelines, tasks and steps inherit; the innermost wins.
    #[serde(default, skip_serializing_if = "UniqueMap::is_empty")]
    pub env: UniqueMap<String, EnvValue>,
    /// Typed inputs of a run.
    #[serde(default, skip_serializing_if = "UniqueMap::is_empty")]
    pub params: UniqueMap<String, Param>,
    /// Committed files that travel with the workflow: globs relative to this file's folder.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<String>,
    /// What starts pipelines.
    #[serde(default, skip_serializing_if = "UniqueMap::is_empty")]
    pub triggers: UniqueMap<Name, Trigger>,
    /// At least one.
    #[cfg_attr(feature = "schema", schemars(extend("minProperties" = 1)))]
    pub pipelines: UniqueMap<Name, PipelineSpec>,
}
