//! Workflows and pipelines, as the API shows them: what is desired and how it goes.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    meta::{AgentName, Epoch, Generation, Name, ObjectMeta, PipelineKey, Revision, RunName, SpecHash},
    phase::{PipelinePhase, Reason, RunPhase, WorkflowPhase},
    pipeline::PipelineSpec,
    run::optional_millis,
    suspension::Suspension,
    workflow::WorkflowSpec,
};

/// A workflow in effect.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct WorkflowObject {
    /// As committed.
    pub metadata: ObjectMeta,
    /// As committed.
    pub spec: WorkflowSpec,
    /// How it goes.
    pub status: WorkflowStatus,
}

/// How a workflow goes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct WorkflowStatus {
    /// The phase.
    pub phase: WorkflowPhase,
    /// The revision that `spec` was first read from in this form: it stays where the file did not change.
    pub revision: Revision,
    /// Its file.
    pub path: String,
    /// Where in the file its document begins, from 1.
    pub line: u32,
    /// How often its spec has changed.
    pub generation: Generation,
    /// The hash of metadata and spec.
    pub spec_hash: SpecHash,
    /// What a person should know, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Who suspended it by command, if somebody did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspension: Option<Suspension>,
}

/// A pipeline in effect.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct PipelineObject {
    /// Its key.
    pub metadata: PipelineMeta,
    /// As committed.
    pub spec: PipelineSpec,
    /// How it goes.
    pub status: PipelineStatus,
}

/// A pipeline's key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct PipelineMeta {
    /// `WORKFLOW/PIPELINE`.
    pub name: PipelineKey,
}

/// How a pipeline goes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct PipelineStatus {
    /// The phase.
    pub phase: PipelinePhase,
    /// Why, in a word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// Why, in a sentence: for a scheduled one, why this agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Its owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentName>,
    /// Of its ownership.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
    /// The revision in effect.
    pub revision: Revision,
    /// The spec in effect.
    pub spec_hash: SpecHash,
    /// Who suspended it or its workflow by command, if somebody did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspension: Option<Suspension>,
    /// When its cron triggers fire next.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional_millis")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<crate::run::TimeText>"))]
    pub next_fire: Option<Timestamp>,
    /// Its newest run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_run: Option<LastRun>,
    /// The path of its own webhook.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<String>,
    /// The hook token that its webhook takes, as bearer or `X-Xene-Token`: shown to those who may start it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook_token: Option<String>,
    /// The webhook triggers that start it and have an `auth` of their own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub webhooks: Vec<TriggerWebhook>,
}

/// What the sender of a webhook trigger must know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct TriggerWebhook {
    /// The trigger.
    pub trigger: Name,
    /// Its path.
    pub path: String,
    /// How the sender proves itself, as its `auth` names it.
    pub auth: String,
    /// The secret that both sides know: shown to those who may start the pipeline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
}

/// A pipeline's newest run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct LastRun {
    /// Its name.
    pub name: RunName,
    /// Its phase.
    pub phase: RunPhase,
}
