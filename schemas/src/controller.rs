//! The controller, as the API shows it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{meta::AgentName, run::millis};

/// The controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Controller {
    /// How it goes.
    pub status: ControllerStatus,
}

/// How a controller goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ControllerStatus {
    /// Of its binary.
    pub version: String,
    /// Set while no pipeline is taken from an agent that fell silent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breaker: Option<Breaker>,
}

/// Most agents fell silent at once: nothing is taken from them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Breaker {
    /// Since when.
    #[serde(with = "millis")]
    pub since: Timestamp,
    /// Those that are silent still.
    pub agents: Vec<AgentName>,
    /// What it means and what ends it, in a sentence.
    pub message: String,
}
