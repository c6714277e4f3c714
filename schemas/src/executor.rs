//! Where a task's steps run.

use serde::{Deserialize, Serialize};

/// How steps are run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Executor {
    /// As processes of the agent's machine.
    Shell {},
    /// In a container.
    Container {
        /// The image's reference.
        image: String,
        /// When to fetch the image.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pull: Option<Pull>,
        /// User within the container.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        user: Option<String>,
        /// Network's name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        network: Option<String>,
        /// Host folders, `HOST:CONTAINER[:ro]`.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        mounts: Vec<String>,
        /// How many cores at most.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cpus: Option<f64>,
        /// Memory limit, such as `512Mi`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        memory: Option<String>,
    },
}

impl Default for Executor {
    fn default() -> Self {
        Self::Shell {}
    }
}

/// When an image is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Pull {
    /// Before every run.
    Always,
    /// If the machine lacks it.
    IfNotPresent,
    /// Never: it must be there.
    Never,
}
