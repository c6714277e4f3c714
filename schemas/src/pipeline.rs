//! Pipelines: what an agent owns, and what a run is a run of.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{
    connector::{Connector, Names},
    duration::{Duration, DurationError},
    env::EnvValue,
    executor::Executor,
    map::UniqueMap,
    meta::{FileHash, Name, PipelineKey, SpecHash},
    param::Param,
    task::Task,
    trigger::Trigger,
};

/// A pipeline as committed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(transform = other_spelling))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PipelineSpec {
    /// One sentence for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// For selection in CLI, API and UI.
    #[serde(default, skip_serializing_if = "UniqueMap::is_empty")]
    pub labels: UniqueMap<String, String>,
    /// Names of this workflow's triggers.
    #[serde(default, alias = "trigger", skip_serializing_if = "names_is_empty")]
    pub triggers: Names,
    /// Pipelines of this workflow that must end in Success; then this one starts.
    #[serde(default, skip_serializing_if = "names_is_empty")]
    pub after: Names,
    /// Which agents may have it.
    #[serde(default, skip_serializing_if = "AgentSelector::is_empty")]
    pub agents: AgentSelector,
    /// How long its agent may start runs without the controller; default 5m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autonomy: Option<Autonomy>,
    /// True: its agent also ends runs before another may take over.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub exclusive: bool,
    /// Where steps run; default the shell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub executor: Option<Executor>,
    /// How many runs at once, and what becomes of one too many.
    #[serde(default)]
    pub concurrency: Concurrency,
    /// What becomes of a run whose agent is lost for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_agent_lost: Option<OnAgentLost>,
    /// What becomes of due times that a lost agent may have started unseen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_ambiguous: Option<OnAmbiguous>,
    /// How long a run may take; default 6h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// How long a run may wait to start; default without limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_timeout: Option<Duration>,
    /// How long `finally` may take; default 5m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finally_timeout: Option<Duration>,
    /// How long after SIGTERM comes SIGKILL; default 10s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_period: Option<Duration>,
    /// True: the first failed task cancels the others.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fail_fast: bool,
    /// Variables of its steps.
    #[serde(default, skip_serializing_if = "UniqueMap::is_empty")]
    pub env: UniqueMap<String, EnvValue>,
    /// Typed inputs of a run, beside the workflow's.
    #[serde(default, skip_serializing_if = "UniqueMap::is_empty")]
    pub params: UniqueMap<String, Param>,
    /// True: triggers do not fire; manual starts are refused unless forced.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspend: bool,
    /// Which ended runs are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<History>,
    /// Whether a run's workspace folder is kept; default never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_workspace: Option<KeepWorkspace>,
    /// At least one; acyclic.
    #[cfg_attr(feature = "schema", schemars(extend("minProperties" = 1)))]
    pub tasks: UniqueMap<Name, Task>,
    /// What joins tasks, beside their `dependencies`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub connectors: Vec<Connector>,
    /// Run after all others have ended, whatever the outcome.
    #[serde(default, skip_serializing_if = "UniqueMap::is_empty")]
    pub finally: UniqueMap<Name, Task>,
}

fn names_is_empty(names: &Names) -> bool {
    names.0.is_empty()
}

/// `trigger` is taken for `triggers`.
#[cfg(feature = "schema")]
fn other_spelling(schema: &mut schemars::Schema) {
    if let Some(properties) = schema.get_mut("properties").and_then(|properties| properties.as_object_mut())
        && let Some(triggers) = properties.get("triggers").cloned()
    {
        properties.insert("trigger".into(), triggers);
    }
}

/// Which agents may have a pipeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AgentSelector {
    /// Labels that an agent must have, all of them.
    #[serde(default, skip_serializing_if = "UniqueMap::is_empty")]
    pub labels: UniqueMap<String, String>,
}

impl AgentSelector {
    fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }
}

/// L: how long an agent may start runs after its last answered renewal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Autonomy {
    /// This long; the pipeline moves W later.
    For(Duration),
    /// Without end: it never moves unless a person says so.
    Forever,
}

impl Autonomy {
    /// What a pipeline has that does not say.
    pub const DEFAULT: Self = Self::For(Duration::from_secs(300));
}

impl FromStr for Autonomy {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, DurationError> {
        if text == "Forever" { Ok(Self::Forever) } else { text.parse().map(Self::For) }
    }
}

impl fmt::Display for Autonomy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::For(duration) => duration.fmt(f),
            Self::Forever => f.pad("Forever"),
        }
    }
}

impl Serialize for Autonomy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Autonomy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|_| {
            de::Error::custom(format_args!("autonomy is a duration such as 5m, or Forever, unlike {text:?}"))
        })
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Autonomy {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Autonomy".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let duration = generator.subschema_for::<Duration>();
        schemars::json_schema!({"anyOf": [{"const": "Forever"}, duration]})
    }
}

/// How many runs at once, and what becomes of one too many.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Concurrency {
    /// At least 1; default 1.
    #[serde(default = "one")]
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub max: u32,
    /// What becomes of one too many.
    #[serde(default)]
    pub policy: ConcurrencyPolicy,
    /// Pipelines with the same group share `max`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<Name>,
}

fn one() -> u32 {
    1
}

impl Default for Concurrency {
    fn default() -> Self {
        Self { max: 1, policy: ConcurrencyPolicy::Queue, group: None }
    }
}

/// What becomes of one run too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum ConcurrencyPolicy {
    /// It waits, first come first served.
    #[default]
    Queue,
    /// It does not run.
    Skip,
    /// The oldest running one is cancelled.
    Replace,
}

/// What becomes of a run whose agent is lost for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum OnAgentLost {
    /// It ends in Error.
    Error,
    /// It starts again elsewhere, as a new attempt.
    Retry,
}

/// What becomes of due times that a lost agent may have started unseen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum OnAmbiguous {
    /// They are not started again.
    Skip,
    /// They are, as `catchUp` says; some may have been started before.
    Run,
}

/// Which ended runs are kept; running ones and the last good one always are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct History {
    /// At most this many, at least 1; default 100.
    #[serde(default = "default_runs")]
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub runs: u32,
    /// At most this old; default 30d.
    #[serde(default = "default_max_age")]
    pub max_age: Duration,
    /// At least this many in Success; default 1.
    #[serde(default = "one")]
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub keep_successes: u32,
}

fn default_runs() -> u32 {
    100
}

fn default_max_age() -> Duration {
    Duration::from_secs(30 * 86_400)
}

impl Default for History {
    fn default() -> Self {
        Self { runs: default_runs(), max_age: default_max_age(), keep_successes: 1 }
    }
}

/// Whether a run's workspace folder is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum KeepWorkspace {
    /// It is removed.
    Never,
    /// It stays if the run ended in Error.
    OnError,
    /// It stays.
    Always,
}

/// All that an agent needs to host a pipeline: the pipeline with what its workflow gives it.
///
/// Its serialised form is content-addressed ([`CompiledPipeline::encode`]): equal content, equal hash, so a
/// revert brings back the very same spec.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CompiledPipeline {
    /// Whose it is.
    pub key: PipelineKey,
    /// True if workflow or pipeline is suspended.
    pub suspend: bool,
    /// The workflow's variables, outermost.
    pub env: UniqueMap<String, EnvValue>,
    /// The workflow's params, overlaid by the pipeline's.
    pub params: UniqueMap<String, Param>,
    /// The triggers that the pipeline names.
    pub triggers: UniqueMap<Name, Trigger>,
    /// The pipeline as committed.
    pub spec: PipelineSpec,
    /// The files that travel with its workflow, sorted by path.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<PipelineFile>,
}

/// A file that travels with a workflow: named here, delivered apart, by its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PipelineFile {
    /// Relative to the workflow file's folder, and so to the workspace; `/` separated, without `.` and `..`.
    pub path: String,
    /// Of its bytes.
    pub hash: FileHash,
    /// In bytes.
    pub size: u64,
    /// True if it may be executed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub executable: bool,
}

impl CompiledPipeline {
    /// The bytes that travel and are hashed: JSON, in field order, so equal content gives equal bytes.
    pub fn encode(&self) -> (SpecHash, Vec<u8>) {
        let bytes = serde_json::to_vec(self).unwrap_or_default();
        (SpecHash::of(&bytes), bytes)
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// If the bytes are not a compiled pipeline of this or the previous version.
    pub fn decode(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// L of this pipeline.
    pub fn autonomy(&self) -> Autonomy {
        self.spec.autonomy.unwrap_or(Autonomy::DEFAULT)
    }
}
