//! Events: what happened, kept for people.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::run::millis;

/// Something that happened to an object. Written on transitions only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// Its place in the order of all events; the store numbers them.
    pub id: u64,
    /// When.
    #[serde(with = "millis")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::run::TimeText"))]
    pub at: Timestamp,
    /// `Normal` or `Warning`.
    #[serde(rename = "type")]
    pub kind: EventType,
    /// What, in a word.
    pub reason: String,
    /// What, in a sentence.
    pub message: String,
    /// About what: `workflow/NAME`, `pipeline/WORKFLOW/PIPELINE`, `run/NAME`, `agent/NAME`, `notifier/NAME`, `source`.
    pub regarding: String,
}

/// Whether a person should look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum EventType {
    /// No.
    Normal,
    /// Yes.
    Warning,
}
