//! The source of desired state, as the API shows it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    diagnostic::Diagnostic,
    meta::Revision,
    run::{millis, optional_millis},
    suspension::Suspension,
};

/// The source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// How it goes.
    pub status: SourceStatus,
}

/// How a source goes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct SourceStatus {
    /// What it is.
    pub kind: SourceKind,
    /// Where it is; credentials are never shown.
    pub url: String,
    /// The branch that is followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// The folder within it.
    pub path: String,
    /// What is in effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<Revision>,
    /// What was last found at the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<Revision>,
    /// What was last tried; differs from `revision` where it could not be applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempted: Option<Revision>,
    /// The author of `revision`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// The first line of its message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// When the source was last looked at with success.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional_millis")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<crate::run::TimeText>"))]
    pub observed_at: Option<Timestamp>,
    /// When `revision` took effect.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional_millis")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<crate::run::TimeText>"))]
    pub synced_at: Option<Timestamp>,
    /// How many workflows are in effect.
    pub workflows: u32,
    /// How many documents are not ours.
    pub ignored: u32,
    /// How many files of the work tree differ from the commit; they do not count.
    pub dirty: u32,
    /// Who suspended it by command, if somebody did: then `seen` waits, and does not take effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspension: Option<Suspension>,
    /// The path by which pushes to it are announced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<String>,
    /// The hook token that this takes, or the secret of its signatures: shown to those who may start things.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook_token: Option<String>,
    /// Its health, condition by condition.
    pub conditions: Vec<Condition>,
    /// What is wrong with its files.
    pub problems: Vec<Diagnostic>,
}

/// What a source is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum SourceKind {
    /// Only commits count.
    Git,
    /// Files as they lie.
    Directory,
}

/// One aspect of health, as in Kubernetes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// `Ready`, `Reconciling`, `Degraded`, `Stalled`, `Fetched`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: ConditionStatus,
    /// Why, in a word.
    pub reason: String,
    /// Why, in a sentence.
    pub message: String,
    /// Since when it has this status.
    #[serde(with = "millis")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::run::TimeText"))]
    pub since: Timestamp,
}

/// Whether a condition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not.
    False,
    /// Nobody can tell.
    Unknown,
}
