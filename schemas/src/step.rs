//! Steps: one process each.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer},
};

use crate::{duration::Duration, env::EnvValue, map::UniqueMap, meta::Name, task::Retry};

/// One step: text (short for `run`) or a map.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Default `step-N`, N counting from 1.
    pub name: Option<Name>,
    /// What runs.
    pub run: Run,
    /// Which shell takes `run` as text; default `sh -e`.
    pub shell: Option<Shell>,
    /// The innermost variables.
    pub env: UniqueMap<String, EnvValue>,
    /// As on the task.
    pub working_dir: Option<String>,
    /// How long one attempt may run.
    pub timeout: Option<Duration>,
    /// Whether and how often it is tried again.
    pub retry: Option<Retry>,
    /// True: its Error does not end the task.
    pub allow_failure: bool,
    /// A CEL expression; false: the step is not executed.
    pub when: Option<String>,
}

/// What a step runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Run {
    /// A script for the shell.
    Script(String),
    /// A program and its arguments, without a shell.
    Argv(Vec<String>),
}

/// Which shell takes a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shell {
    /// By name: `sh` means `sh -e`, `bash` means `bash -eo pipefail`.
    Named(String),
    /// A program and its arguments; the script follows as a file.
    Argv(Vec<String>),
}

impl Step {
    /// The step's name, `index` counting from 0.
    pub fn name_at(&self, index: usize) -> String {
        self.name.as_ref().map_or_else(|| format!("step-{}", index + 1), ToString::to_string)
    }
}

/// The map form, as written.
#[derive(Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct StepMap {
    /// Default `step-N`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<Name>,
    /// Text for the shell, or a program and its arguments.
    run: Run,
    /// `sh` (default: `sh -e`), `bash` (`bash -eo pipefail`), or a program that takes the script as a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    shell: Option<Shell>,
    /// Variables of this step alone.
    #[serde(default, skip_serializing_if = "UniqueMap::is_empty")]
    env: UniqueMap<String, EnvValue>,
    /// Relative to the workspace (created if missing) or absolute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    working_dir: Option<String>,
    /// How long one attempt may run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timeout: Option<Duration>,
    /// Whether and how often it is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry: Option<Retry>,
    /// True: its Error does not end the task.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    allow_failure: bool,
    /// A CEL expression; false: not executed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    when: Option<String>,
}

impl From<StepMap> for Step {
    fn from(map: StepMap) -> Self {
        let StepMap { name, run, shell, env, working_dir, timeout, retry, allow_failure, when } = map;
        Self { name, run, shell, env, working_dir, timeout, retry, allow_failure, when }
    }
}

impl Serialize for Step {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { name, run, shell, env, working_dir, timeout, retry, allow_failure, when } = self.clone();
        StepMap { name, run, shell, env, working_dir, timeout, retry, allow_failure, when }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Step {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct StepVisitor;
        impl<'de> Visitor<'de> for StepVisitor {
            type Value = Step;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a script, or a map with `run`")
            }

            fn visit_str<E>(self, script: &str) -> Result<Step, E> {
                Ok(Step {
                    name: None,
                    run: Run::Script(script.into()),
                    shell: None,
                    env: UniqueMap::default(),
                    working_dir: None,
                    timeout: None,
                    retry: None,
                    allow_failure: false,
                    when: None,
                })
            }

            fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<Step, A::Error> {
                StepMap::deserialize(MapAccessDeserializer::new(access)).map(Step::from)
            }
        }
        deserializer.deserialize_any(StepVisitor)
    }
}

/// Reads text or a list of texts.
struct TextOrList(&'static str);

enum Text {
    One(String),
    List(Vec<String>),
}

impl<'de> Visitor<'de> for TextOrList {
    type Value = Text;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E>(self, text: &str) -> Result<Text, E> {
        Ok(Text::One(text.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Text, A::Error> {
        let mut list = Vec::new();
        while let Some(text) = access.next_element()? {
            list.push(text);
        }
        Ok(Text::List(list))
    }
}

macro_rules! text_or_list {
    ($type:ident, $one:ident, $expecting:literal, $text:tt) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match self {
                    Self::$one(text) => serializer.serialize_str(text),
                    Self::Argv(list) => list.serialize(serializer),
                }
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Ok(match deserializer.deserialize_any(TextOrList($expecting))? {
                    Text::One(text) => Self::$one(text),
                    Text::List(list) => Self::Argv(list),
                })
            }
        }

        #[cfg(feature = "schema")]
        impl schemars::JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({
                    "description": $expecting,
                    "anyOf": [
                        $text,
                        {"type": "array", "minItems": 1, "items": {"type": "string"}}
                    ]
                })
            }
        }
    };
}

text_or_list!(Run, Script, "a script, or a program and its arguments as a list", {"type": "string"});
text_or_list!(Shell, Named, "`sh`, `bash`, or a program and its arguments as a list", {"enum": ["sh", "bash"]});

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Step {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Step".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let map = generator.subschema_for::<StepMap>();
        schemars::json_schema!({"anyOf": [{"type": "string", "description": "A script for `sh -e`."}, map]})
    }
}
