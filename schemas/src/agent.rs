//! Agents, as the API shows them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    meta::{AgentName, Labels, PipelineKey},
    phase::{AgentPhase, Reason, Transport},
    run::optional_millis,
};

/// One agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Agent {
    /// Its name and labels.
    pub metadata: AgentMeta,
    /// How it goes.
    pub status: AgentStatus,
}

/// An agent's name and labels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct AgentMeta {
    /// From its certificate.
    pub name: AgentName,
    /// Always with `os`, `arch`, `hostname`.
    pub labels: Labels,
}

/// How an agent goes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct AgentStatus {
    /// The phase.
    pub phase: AgentPhase,
    /// Where its session comes from; for people, never for trust.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// What carries its session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport: Option<Transport>,
    /// Of its binary.
    pub version: String,
    /// How many tasks it runs at once.
    pub slots: u32,
    /// How many of them are taken.
    pub busy: u32,
    /// When it was last heard.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional_millis")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<crate::run::TimeText>"))]
    pub last_seen: Option<Timestamp>,
    /// Until when it may start runs by itself, at the latest; absent with `Forever` alone.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional_millis")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<crate::run::TimeText>"))]
    pub lease_until: Option<Timestamp>,
    /// What it owns.
    pub pipelines: Vec<PipelineKey>,
    /// What is unusual about it, in a word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// What is unusual about it, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}
