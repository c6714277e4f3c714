//! Diagnostics: what is wrong with a file, where, and how to mend it. Data only.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One problem of one file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Diagnostic {
    /// Relative to the source's root, with `/`.
    pub path: String,
    /// From 1; 0 if the whole file is meant.
    pub line: u32,
    /// In characters, from 1; 0 if the whole line is meant.
    pub column: u32,
    /// Such as `XE0012`.
    pub code: String,
    /// How bad.
    #[serde(default)]
    pub severity: Severity,
    /// One sentence.
    pub message: String,
    /// How to mend it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum Severity {
    /// The file's objects can't take effect.
    #[default]
    Error,
    /// They can, but a person should look.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

impl fmt::Display for Diagnostic {
    /// `path:line:column: error[XE0012]: message`, the form that editors and CI systems recognise.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}[{}]: {}", self.place(), self.severity, self.code, self.message)
    }
}

impl Diagnostic {
    /// `path:line:column`, as far as that is more than the whole file or line.
    pub fn place(&self) -> String {
        match (self.line, self.column) {
            (0, _) => self.path.clone(),
            (line, 0) => format!("{}:{line}", self.path),
            (line, column) => format!("{}:{line}:{column}", self.path),
        }
    }
}
