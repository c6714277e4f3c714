//! Suspension by command: what a person said must not start for a while, apart from what is committed.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::run::{millis, optional_millis};

/// Who suspended something, when, why and until when. A committed `suspend: true` has none of this: git knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Suspension {
    /// Who said so.
    pub by: String,
    /// When.
    #[serde(with = "millis")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::run::TimeText"))]
    pub since: Timestamp,
    /// Why, in their words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// When it ends by itself; absent: when somebody resumes it.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional_millis")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<crate::run::TimeText>"))]
    pub until: Option<Timestamp>,
}

impl std::fmt::Display for Suspension {
    /// `suspended by admin until 2026-11-26T10:00:00Z: we move`
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "suspended by {}", self.by)?;
        if let Some(until) = self.until {
            write!(f, " until {until:.0}")?;
        }
        self.why.as_ref().map_or(Ok(()), |why| write!(f, ": {why}"))
    }
}
