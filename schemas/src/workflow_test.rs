//! Workflow tests: what a workflow is expected to do, stated beside it and tried on a virtual clock.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{
        MapAccess, SeqAccess, Visitor,
        value::{MapAccessDeserializer, SeqAccessDeserializer},
    },
};

use crate::{
    duration::Duration,
    env::Scalar,
    map::UniqueMap,
    meta::{Name, ObjectMeta},
    phase::{RunPhase, TaskPhase},
    workflow::ApiVersion,
};

/// A document of workflow tests. It takes effect nowhere: only `xene test` looks into it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkflowTest {
    /// `xene/v1`.
    pub api_version: ApiVersion,
    /// `WorkflowTest`.
    pub kind: WorkflowTestKind,
    /// Name, description, labels.
    pub metadata: ObjectMeta,
    /// What is tried.
    pub spec: WorkflowTestSpec,
}

/// The kind of a document of workflow tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum WorkflowTestKind {
    /// The only one.
    WorkflowTest,
}

/// What a test tries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkflowTestSpec {
    /// The workflow that is tested.
    pub workflow: Name,
    /// At least one.
    pub cases: Vec<TestCase>,
}

/// One case: a run with stubbed steps, or the due times of a cron trigger.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TestCase {
    /// What is expected, in a few words; unique within the document.
    pub name: String,
    /// The pipeline that runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pipeline: Option<Name>,
    /// With `pipeline`: what starts the run; default a start by hand. Without: the cron trigger whose due times are
    /// looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger: Option<Name>,
    /// When the run starts; default 2026-01-01T00:00:00Z. Like all times: RFC 3339, or what the clock of the trigger's
    /// zone shows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// The first instant at which due times count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The first instant at which they count no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// Params of the run.
    #[serde(default, skip_serializing_if = "UniqueMap::is_empty")]
    pub params: UniqueMap<String, Scalar>,
    /// How many tasks run at once; default without limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slots: Option<u32>,
    /// What steps come to, by `TASK` or `TASK/STEP`; others exit with code 0 at once.
    #[serde(default, skip_serializing_if = "UniqueMap::is_empty")]
    pub stubs: UniqueMap<String, Stubs>,
    /// What is decided on tasks that wait for approval, as soon as they do; others wait until their timeout.
    #[serde(default, skip_serializing_if = "UniqueMap::is_empty")]
    pub approvals: UniqueMap<String, Decision>,
    /// When the run is cancelled, counted from its start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel_after: Option<Duration>,
    /// What must then be so; at least one thing.
    pub expect: Expect,
}

/// What is decided on a task that waits for approval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Decision {
    /// It runs.
    Approve,
    /// It does not.
    Reject,
}

/// What one step comes to, each time that it runs; the last stays for all further times.
#[derive(Debug, Clone, PartialEq)]
pub struct Stubs(pub Vec<Stub>);

/// What a step comes to once.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Stub {
    /// Its exit code; default 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The number of the signal that ends it instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// What it publishes.
    #[serde(default, skip_serializing_if = "UniqueMap::is_empty")]
    pub outputs: UniqueMap<String, Scalar>,
    /// How long it takes; default no time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<Duration>,
}

/// What must be so. What is left out is not looked at.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Expect {
    /// The run's phase in the end: `Success` or `Error`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<RunPhase>,
    /// The run's reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How many failures are tolerated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warnings: Option<u32>,
    /// How tasks end, by name.
    #[serde(default, skip_serializing_if = "UniqueMap::is_empty")]
    pub tasks: UniqueMap<String, TaskExpect>,
    /// All tasks that are not executed; `[]` says that each is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_executed: Option<Vec<String>>,
    /// These tasks start in this order; others may stand between.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub order: Vec<String>,
    /// How long the run takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<Duration>,
    /// All due times from `from` until `until`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firings: Option<Vec<String>>,
}

/// How a task ends.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TaskExpect {
    /// Its phase.
    pub phase: Option<TaskPhase>,
    /// Its reason.
    pub reason: Option<String>,
    /// Its last attempt, from 1; 0 if it never began.
    pub attempt: Option<u32>,
    /// What it publishes, among other things.
    pub outputs: UniqueMap<String, Scalar>,
}

/// The map form, as written.
#[derive(Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct TaskExpectMap {
    /// Its phase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    phase: Option<TaskPhase>,
    /// Its reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Its last attempt, from 1; 0 if it never began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    attempt: Option<u32>,
    /// What it publishes, among other things.
    #[serde(default, skip_serializing_if = "UniqueMap::is_empty")]
    outputs: UniqueMap<String, Scalar>,
}

impl Serialize for TaskExpect {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { phase, reason, attempt, outputs } = self.clone();
        TaskExpectMap { phase, reason, attempt, outputs }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for TaskExpect {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TaskVisitor;
        impl<'de> Visitor<'de> for TaskVisitor {
            type Value = TaskExpect;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a phase, or a map")
            }

            fn visit_str<E: serde::de::Error>(self, phase: &str) -> Result<TaskExpect, E> {
                let phase = TaskPhase::deserialize(serde::de::value::StrDeserializer::<E>::new(phase))?;
                Ok(TaskExpect { phase: Some(phase), ..TaskExpect::default() })
            }

            fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<TaskExpect, A::Error> {
                let map = TaskExpectMap::deserialize(MapAccessDeserializer::new(access))?;
                let TaskExpectMap { phase, reason, attempt, outputs } = map;
                Ok(TaskExpect { phase, reason, attempt, outputs })
            }
        }
        deserializer.deserialize_any(TaskVisitor)
    }
}

impl Serialize for Stubs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0[..] {
            [one] => one.serialize(serializer),
            all => all.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Stubs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct StubsVisitor;
        impl<'de> Visitor<'de> for StubsVisitor {
            type Value = Stubs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map, or a list of maps")
            }

            fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<Stubs, A::Error> {
                Ok(Stubs(vec![Stub::deserialize(MapAccessDeserializer::new(access))?]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, access: A) -> Result<Stubs, A::Error> {
                Ok(Stubs(Vec::deserialize(SeqAccessDeserializer::new(access))?))
            }
        }
        deserializer.deserialize_any(StubsVisitor)
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for TaskExpect {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "TaskExpect".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let phase = generator.subschema_for::<TaskPhase>();
        let map = generator.subschema_for::<TaskExpectMap>();
        schemars::json_schema!({"anyOf": [phase, map]})
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Stubs {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Stubs".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let stub = generator.subschema_for::<Stub>();
        schemars::json_schema!({"anyOf": [stub, {"type": "array", "minItems": 1, "items": stub}]})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_long_forms_read_alike() {
        let read = |text: &str| serde_yaml::from_str::<Expect>(text).unwrap();
        assert_eq!(read("tasks: {a: Success}"), read("tasks: {a: {phase: Success}}"));
        let stubs = |text: &str| serde_yaml::from_str::<Stubs>(text).unwrap();
        assert_eq!(stubs("{exitCode: 1}"), stubs("[{exitCode: 1}]"));
        assert_eq!(stubs("[{exitCode: 1}, {}]").0.len(), 2);
        let wrong = serde_yaml::from_str::<Expect>("tasks: {a: Done}").unwrap_err().to_string();
        assert!(wrong.contains("unknown variant `Done`"), "{wrong}");
    }
}
