//! The first xene's manifest, `v1alpha1`, and the way from it to `xene/v1`. There is no way back.
//!
//! It is read as tolerantly as it was written: `steps` as a list or a map, `cronConfig` as text or a map.

use std::fmt;

use indexmap::IndexMap;
use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer},
};

use crate::{
    connector::Names,
    duration::Duration,
    executor,
    map::UniqueMap,
    meta::{Name, ObjectMeta},
    pipeline::{self, PipelineSpec},
    step, task,
    trigger::{self, CatchUp, Cron},
    workflow::{ApiVersion, WorkflowKind, WorkflowSpec},
};

/// A workflow document of `v1alpha1`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Workflow {
    /// `v1alpha1`.
    pub api_version: String,
    /// `Workflow`.
    pub kind: WorkflowKind,
    /// Name and description.
    pub metadata: ObjectMeta,
    /// What is desired.
    pub spec: Spec,
}

/// What a workflow declares.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spec {
    /// What starts pipelines.
    #[serde(default)]
    pub triggers: UniqueMap<Name, Trigger>,
    /// At least one.
    pub pipelines: UniqueMap<Name, Pipeline>,
}

/// What starts a pipeline.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Trigger {
    /// Default: cron with a `cronConfig`, else nothing.
    #[serde(rename = "type")]
    pub kind: Option<TriggerType>,
    /// One sentence for people.
    pub description: Option<String>,
    /// The schedule of a cron trigger.
    pub cron_config: Option<CronConfig>,
}

/// The type of a trigger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum TriggerType {
    /// At times.
    Cron,
    /// By a request.
    Webhook,
    /// By hand only.
    #[serde(alias = "none", alias = "manual")]
    Null,
}

/// A schedule: text, or a map with `schedule` (or `expression`) and `timeZone`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CronConfig {
    /// As in `xene/v1`.
    pub schedule: String,
    /// IANA zone.
    pub time_zone: Option<String>,
}

impl<'de> Deserialize<'de> for CronConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        struct Fields {
            #[serde(alias = "expression")]
            schedule: String,
            #[serde(alias = "timezone")]
            time_zone: Option<String>,
        }
        struct CronVisitor;
        impl<'de> Visitor<'de> for CronVisitor {
            type Value = CronConfig;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a schedule as text, or a map with `schedule`")
            }

            fn visit_str<E>(self, text: &str) -> Result<CronConfig, E> {
                Ok(CronConfig { schedule: text.into(), time_zone: None })
            }

            fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<CronConfig, A::Error> {
                let Fields { schedule, time_zone } = Fields::deserialize(MapAccessDeserializer::new(access))?;
                Ok(CronConfig { schedule, time_zone })
            }
        }
        deserializer.deserialize_any(CronVisitor)
    }
}

/// A pipeline.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Pipeline {
    /// One sentence for people.
    pub description: Option<String>,
    /// The name of a trigger.
    #[serde(alias = "triggers", default)]
    pub trigger: Names,
    /// Where steps run.
    pub executor: Option<Executor>,
    /// At least one.
    pub tasks: UniqueMap<Name, Task>,
}

/// Where steps run.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Executor {
    /// The type.
    #[serde(rename = "type")]
    pub kind: ExecutorType,
    /// Of a container.
    pub container_config: Option<ContainerConfig>,
}

/// The type of an executor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ExecutorType {
    /// The machine itself.
    Shell,
    /// A container.
    #[serde(alias = "docker")]
    Container,
}

/// What a container is made of.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ContainerConfig {
    /// The image's reference.
    pub image: String,
}

/// A task.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Task {
    /// One sentence for people.
    pub description: Option<String>,
    /// Where its steps begin.
    pub working_dir: Option<String>,
    /// Tasks that must end in Success first.
    #[serde(default)]
    pub dependencies: Names,
    /// In order.
    pub steps: Steps,
}

/// Steps: a list, or a map from name to step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Steps(pub Vec<Step>);

/// A step.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Step {
    /// Default `step-N`.
    pub name: Option<Name>,
    /// One sentence for people.
    pub description: Option<String>,
    /// Only a shell.
    #[serde(rename = "type")]
    pub kind: Option<StepType>,
    /// A script for `sh`.
    pub cmd: String,
}

/// The type of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum StepType {
    /// A script.
    Shell,
}

impl<'de> Deserialize<'de> for Steps {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct StepsVisitor;
        impl<'de> Visitor<'de> for StepsVisitor {
            type Value = Steps;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of steps, or a map from name to step")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Steps, A::Error> {
                let mut steps = Vec::new();
                while let Some(step) = access.next_element()? {
                    steps.push(step);
                }
                Ok(Steps(steps))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Steps, A::Error> {
                let mut steps: IndexMap<Name, Step> = IndexMap::new();
                while let Some(name) = access.next_key::<Name>()? {
                    if steps.contains_key(&name) {
                        return Err(A::Error::custom(format_args!("duplicate key {:?}", name.to_string())));
                    }
                    let step: Step = access.next_value()?;
                    steps.insert(name, step);
                }
                let named = steps.into_iter().map(|(name, step)| Step { name: step.name.or(Some(name)), ..step });
                Ok(Steps(named.collect()))
            }
        }
        deserializer.deserialize_any(StepsVisitor)
    }
}

impl From<Workflow> for crate::workflow::Workflow {
    fn from(Workflow { metadata, spec, .. }: Workflow) -> Self {
        let Spec { triggers: declared, pipelines } = spec;
        let triggers = declared.iter().filter_map(|(name, trigger)| Some((name.clone(), trigger.clone().into_v1()?)));
        let triggers: UniqueMap<Name, trigger::Trigger> = triggers.collect();
        // One that starts nothing is gone; one that was never declared is an error, told of what we give.
        let starts_nothing = |name: &Name| declared.contains_key(name) && !triggers.contains_key(name);
        let pipelines = pipelines.into_inner().into_iter().map(|(name, mut pipeline)| {
            pipeline.trigger.0.retain(|name| !starts_nothing(name));
            (name, pipeline.into_v1())
        });
        let pipelines = pipelines.collect();
        let spec = WorkflowSpec {
            suspend: false,
            env: UniqueMap::default(),
            params: UniqueMap::default(),
            files: Vec::new(),
            triggers,
            pipelines,
        };
        Self { api_version: ApiVersion::V1, kind: WorkflowKind::Workflow, metadata, spec }
    }
}

impl Trigger {
    /// `None` for one that starts nothing: each pipeline can be started by hand.
    fn into_v1(self) -> Option<trigger::Trigger> {
        let cron = |CronConfig { schedule, time_zone }: CronConfig| {
            trigger::Trigger::Cron(Cron {
                schedule,
                time_zone,
                catch_up: CatchUp::default(),
                starting_deadline: Duration::from_secs(3600),
                jitter: Duration::default(),
                params: UniqueMap::default(),
                suspend: false,
            })
        };
        match self.kind {
            Some(TriggerType::Webhook) => Some(trigger::Trigger::Webhook(trigger::Webhook::default())),
            Some(TriggerType::Null) => None,
            // A cron trigger without a schedule is told by what reads schedules.
            Some(TriggerType::Cron) => {
                let nothing = CronConfig { schedule: String::new(), time_zone: None };
                Some(cron(self.cron_config.unwrap_or(nothing)))
            }
            None => self.cron_config.map(cron),
        }
    }
}

impl Pipeline {
    fn into_v1(self) -> PipelineSpec {
        let Self { description, trigger, executor, tasks } = self;
        PipelineSpec {
            description,
            labels: UniqueMap::default(),
            triggers: trigger,
            after: Names::default(),
            agents: pipeline::AgentSelector::default(),
            autonomy: None,
            exclusive: false,
            executor: executor.and_then(Executor::into_v1),
            concurrency: pipeline::Concurrency::default(),
            on_agent_lost: None,
            on_ambiguous: None,
            timeout: None,
            queue_timeout: None,
            finally_timeout: None,
            grace_period: None,
            fail_fast: false,
            env: UniqueMap::default(),
            params: UniqueMap::default(),
            suspend: false,
            history: None,
            keep_workspace: None,
            tasks: tasks.into_inner().into_iter().map(|(name, task)| (name, task.into_v1())).collect(),
            connectors: Vec::new(),
            finally: UniqueMap::default(),
        }
    }
}

impl Executor {
    /// `None` for the shell, which needs no word.
    fn into_v1(self) -> Option<executor::Executor> {
        let image = self.container_config.map(|config| config.image).unwrap_or_default();
        match self.kind {
            ExecutorType::Shell => None,
            ExecutorType::Container => Some(executor::Executor::Container {
                image,
                pull: None,
                user: None,
                network: None,
                mounts: Vec::new(),
                cpus: None,
                memory: None,
            }),
        }
    }
}

impl Task {
    fn into_v1(self) -> task::Task {
        let Self { description, working_dir, dependencies, steps: Steps(steps) } = self;
        let steps = steps.into_iter().map(|Step { name, cmd, .. }| step::Step {
            name,
            run: step::Run::Script(cmd),
            shell: None,
            env: UniqueMap::default(),
            working_dir: None,
            timeout: None,
            retry: None,
            allow_failure: false,
            when: None,
        });
        task::Task {
            description,
            dependencies,
            context: None,
            working_dir,
            when: None,
            matrix: None,
            timeout: None,
            grace_period: None,
            retry: None,
            allow_failure: false,
            env: UniqueMap::default(),
            executor: None,
            steps: steps.collect(),
            outputs: None,
            artifacts: None,
        }
    }
}
