//! Typed inputs of a run.

use serde::{Deserialize, Serialize};

use crate::env::Scalar;

/// One declared input; values come from a manual start, a trigger's `params`, or the default, in that order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Param {
    /// What values it takes; default `string`.
    #[serde(default, rename = "type")]
    pub kind: ParamType,
    /// Used when nobody gives a value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<Scalar>,
    /// A start without a value is refused.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub required: bool,
    /// With `type: choice`, the values to choose from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(with = "Vec<Scalar>"))]
    pub choices: Vec<String>,
    /// A regular expression that the whole text must match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// One sentence for the person who fills it in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// The type of a param.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum ParamType {
    /// Any text.
    #[default]
    String,
    /// A whole number that fits 64 bits.
    Integer,
    /// A number.
    Number,
    /// `true` or `false`.
    Boolean,
    /// One of `choices`.
    Choice,
}

/// Why a value is refused for a param.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParamError {
    /// The text is not of the type.
    #[error("param {name} takes {expected}, not {value:?}")]
    Type {
        /// The param.
        name: String,
        /// What it takes.
        expected: String,
        /// What was given.
        value: String,
    },
    /// The text does not match the pattern.
    #[error("param {name} takes text that matches {pattern}, not {value:?}")]
    Pattern {
        /// The param.
        name: String,
        /// What the whole text must match.
        pattern: String,
        /// What was given.
        value: String,
    },
    /// No value, no default.
    #[error("param {0} is required")]
    Missing(String),
    /// A value for a name that is not declared.
    #[error("there is no param {name}; declared are: {declared}")]
    Unknown {
        /// What was given.
        name: String,
        /// What is declared, comma-separated.
        declared: String,
    },
}

impl Param {
    /// Checks one value given as text, but for `pattern`: that needs a regular-expression engine.
    pub fn check(&self, name: &str, value: &str) -> Result<(), ParamError> {
        let refuse = |expected: &str| {
            Err(ParamError::Type {
                name: name.into(),
                expected: expected.into(),
                value: value.chars().take(200).collect(),
            })
        };
        match self.kind {
            ParamType::String => Ok(()),
            ParamType::Integer if value.parse::<i64>().is_err() => refuse("a whole number"),
            ParamType::Number if !value.parse::<f64>().is_ok_and(f64::is_finite) => refuse("a number"),
            ParamType::Boolean if !matches!(value, "true" | "false") => refuse("true or false"),
            ParamType::Choice if !self.choices.iter().any(|c| c == value) => {
                refuse(&format!("one of {}", self.choices.join(", ")))
            }
            ParamType::Integer | ParamType::Number | ParamType::Boolean | ParamType::Choice => Ok(()),
        }
    }
}
