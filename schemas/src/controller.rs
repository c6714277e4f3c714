//! The controller, as the API shows it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{meta::AgentName, run::millis};

/// The controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Controller {
    /// How it goes.
    pub status: ControllerStatus,
}

/// How a controller goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ControllerStatus {
    /// Of its binary.
    pub version: String,
    /// Set while no pipeline is taken from an agent that fell silent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breaker: Option<Breaker>,
    /// Set while agents were told to go on alone for longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause: Option<Pause>,
    /// Set while two certificate authorities are trusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_rotation: Option<CaRotation>,
    /// Set while the store has not much room left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store_filling_up: Option<StoreFillingUp>,
    /// Set while the host's clock says something else than elapsed time does, and is not followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_leap: Option<ClockLeap>,
    /// Agents that have not shown yet to go by the autonomy that is in effect, of all that they own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unheard: Vec<AgentName>,
}

/// The certificate authority is being replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct CaRotation {
    /// SHA-256 of the new authority's certificate, in hex.
    pub fingerprint: String,
    /// Of the one before, which is trusted until the rotation ends.
    pub previous: String,
    /// When it began.
    #[serde(with = "millis")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::run::TimeText"))]
    pub since: Timestamp,
    /// When it ends, whoever has not come by then; earlier once all have.
    #[serde(with = "millis")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::run::TimeText"))]
    pub until: Timestamp,
    /// Agents that have not shown a certificate of the new one.
    pub waiting: Vec<AgentName>,
}

/// Planned downtime: agents go on alone until it is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Pause {
    /// Who said so.
    pub by: String,
    /// When.
    #[serde(with = "millis")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::run::TimeText"))]
    pub since: Timestamp,
    /// When it ends by itself.
    #[serde(with = "millis")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::run::TimeText"))]
    pub until: Timestamp,
}

/// Most agents fell silent at once: nothing is taken from them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Breaker {
    /// Since when.
    #[serde(with = "millis")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::run::TimeText"))]
    pub since: Timestamp,
    /// Those that are silent still.
    pub agents: Vec<AgentName>,
    /// What it means and what ends it, in a sentence.
    pub message: String,
}

/// The store has not much room left: four fifths of what it may grow to, or more, are used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct StoreFillingUp {
    /// Since when.
    #[serde(with = "millis")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::run::TimeText"))]
    pub since: Timestamp,
    /// Bytes that hold something.
    pub used: u64,
    /// Bytes that it may come to, on the disk where it is.
    pub limit: u64,
    /// What it means and what ends it, in a sentence.
    pub message: String,
}

/// The host's clock leapt by more than a minute: it is not followed until the system says that its time is synchronized, or
/// a person that it is right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ClockLeap {
    /// Since when, by elapsed time.
    #[serde(with = "millis")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::run::TimeText"))]
    pub since: Timestamp,
    /// By how many seconds it is ahead of elapsed time; negative if it went back.
    pub ahead_seconds: i64,
    /// What it means and what ends it, in a sentence.
    pub message: String,
}
