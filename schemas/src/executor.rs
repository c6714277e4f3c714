//! Where a task's steps run.

use serde::{Deserialize, Deserializer, Serialize, de::Error};

/// How steps are run.
#[derive(Debug, Clone, PartialEq, Serialize)]
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

/// The fields of all types, read as they come, so that an error knows its place.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Fields {
    #[serde(rename = "type")]
    kind: Kind,
    image: Option<String>,
    pull: Option<Pull>,
    user: Option<String>,
    network: Option<String>,
    mounts: Option<Vec<String>>,
    cpus: Option<f64>,
    memory: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
enum Kind {
    Shell,
    Container,
}

impl<'de> Deserialize<'de> for Executor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Fields { kind, image, pull, user, network, mounts, cpus, memory } = Fields::deserialize(deserializer)?;
        if matches!(kind, Kind::Container) {
            let image = image.ok_or_else(|| D::Error::missing_field("image"))?;
            return Ok(Self::Container {
                image,
                pull,
                user,
                network,
                mounts: mounts.unwrap_or_default(),
                cpus,
                memory,
            });
        }
        let given = [
            ("image", image.is_some()),
            ("pull", pull.is_some()),
            ("user", user.is_some()),
            ("network", network.is_some()),
            ("mounts", mounts.is_some()),
            ("cpus", cpus.is_some()),
            ("memory", memory.is_some()),
        ];
        match given.iter().find(|(_, is_given)| *is_given) {
            Some((field, _)) => Err(D::Error::unknown_field(field, &["type"])),
            None => Ok(Self::Shell {}),
        }
    }
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
