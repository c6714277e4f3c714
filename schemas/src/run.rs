//! Runs: the record that the API shows, and the facts that fold into it.

use indexmap::IndexMap;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    meta::{AgentName, Epoch, FileHash, Name, PipelineKey, Revision, RunName, SpecHash},
    phase::{Reason, RunPhase, StepPhase, TaskPhase},
};

/// One run of a pipeline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Run {
    /// Its name and age.
    pub metadata: RunMeta,
    /// What it is a run of; fixed at creation.
    pub spec: RunSpec,
    /// How it goes.
    pub status: RunStatus,
}

/// A run's name and age.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct RunMeta {
    /// See [`RunName`].
    pub name: RunName,
    /// When the record was made, by the controller's clock: not before the time that it was due.
    #[serde(with = "millis")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::run::TimeText"))]
    pub created_at: Timestamp,
}

/// What a run is a run of: commit and spec are pinned here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct RunSpec {
    /// The workflow.
    pub workflow: Name,
    /// The pipeline within it.
    pub pipeline: Name,
    /// What started it.
    pub trigger: RunTrigger,
    /// Checked values, as text.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub params: IndexMap<String, String>,
    /// The revision that was applied when it was made.
    pub revision: Revision,
    /// The spec it runs, to its end.
    pub spec_hash: SpecHash,
    /// The run that this one repeats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rerun_of: Option<RunName>,
}

impl RunSpec {
    /// The pipeline's key.
    pub fn key(&self) -> PipelineKey {
        PipelineKey { workflow: self.workflow.clone(), pipeline: self.pipeline.clone() }
    }
}

/// What started a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct RunTrigger {
    /// The kind.
    #[serde(rename = "type")]
    pub kind: TriggerType,
    /// The trigger's name, for cron and webhook triggers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// The due time, for cron.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional_millis")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<crate::run::TimeText>"))]
    pub scheduled_time: Option<Timestamp>,
    /// Who asked, for manual starts, webhooks and reruns; for `after`, the runs that it follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

impl RunTrigger {
    /// True for what an agent started for a due time: its run's name has that time.
    pub fn is_slot(&self) -> bool {
        self.kind == TriggerType::Cron && self.by.is_none()
    }
}

/// The kind of what started a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum TriggerType {
    /// A person or program, by API.
    Manual,
    /// A time.
    Cron,
    /// A request.
    Webhook,
    /// Another pipeline's Success.
    After,
}

impl TriggerType {
    /// The word that the API and `XENE_TRIGGER` show.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Manual => "manual",
            Self::Cron => "cron",
            Self::Webhook => "webhook",
            Self::After => "after",
        }
    }
}

/// How a run goes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct RunStatus {
    /// The phase.
    pub phase: RunPhase,
    /// Why, in a word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// Why, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Who runs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentName>,
    /// Under which ownership.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
    /// When its first task could start.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional_millis")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<crate::run::TimeText>"))]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional_millis")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<crate::run::TimeText>"))]
    pub finished_at: Option<Timestamp>,
    /// Tolerated failures.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub warnings: u32,
    /// Its tasks in the order of the file, `finally` last; empty until it starts.
    #[serde(default)]
    pub tasks: IndexMap<String, TaskStatus>,
}

pub(crate) fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// How a task goes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct TaskStatus {
    /// The phase.
    pub phase: TaskPhase,
    /// Why, in a word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// Why, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When its first attempt began.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional_millis")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<crate::run::TimeText>"))]
    pub started_at: Option<Timestamp>,
    /// When its last attempt ended.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional_millis")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<crate::run::TimeText>"))]
    pub finished_at: Option<Timestamp>,
    /// Which attempt, from 1; 0 before the first.
    #[serde(default)]
    pub attempt: u32,
    /// What it published.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub outputs: IndexMap<String, String>,
    /// What it saved, sorted by path.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<Artifact>,
    /// The tasks it waits for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dependencies: Vec<String>,
    /// True for a task of `finally`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub finally: bool,
    /// The consent that it waits for, or has waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<ApprovalStatus>,
    /// Its steps in order.
    pub steps: Vec<StepStatus>,
}

/// The most files that a task may save.
pub const MAX_ARTIFACTS: usize = 1_000;
/// The most bytes that a task may save: 1 GiB.
pub const MAX_ARTIFACT_BYTES: u64 = 1 << 30;

/// A file that a task saved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "SavedArtifact"))]
#[serde(rename_all = "camelCase")]
pub struct Artifact {
    /// Relative to the workspace, `/` separated.
    pub path: String,
    /// In bytes.
    pub size: u64,
    /// Of its bytes.
    pub hash: FileHash,
    /// True if it may be executed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub executable: bool,
}

/// A person's consent to a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ApprovalStatus {
    /// What the person is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When it was asked for.
    #[serde(with = "millis")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::run::TimeText"))]
    pub wanted_at: Timestamp,
    /// When silence decides.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional_millis")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<crate::run::TimeText>"))]
    pub until: Option<Timestamp>,
    /// What was decided; absent while nobody has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved: Option<bool>,
    /// Who decided; `timeout` if nobody did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// When it was decided.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional_millis")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<crate::run::TimeText>"))]
    pub decided_at: Option<Timestamp>,
}

/// How a step goes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct StepStatus {
    /// Its name.
    pub name: String,
    /// The phase.
    pub phase: StepPhase,
    /// Why, in a word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// Why, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Only if the process exited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The number of the signal that ended it, otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// When it began.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional_millis")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<crate::run::TimeText>"))]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional_millis")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<crate::run::TimeText>"))]
    pub finished_at: Option<Timestamp>,
}

/// A task as a run begins with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TaskPlan {
    /// Its name.
    pub name: String,
    /// The names of its steps.
    pub steps: Vec<String>,
    /// The tasks it waits for.
    #[serde(default)]
    pub dependencies: Vec<String>,
    /// True for a task of `finally`.
    #[serde(default)]
    pub finally: bool,
}

/// A fact about a run, in the past tense. Facts of one run are numbered from 0 and fold in that order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum RunEvent {
    /// The agent made the run, for a cron slot.
    Created {
        /// What it is a run of.
        spec: RunSpec,
        /// When.
        at: Timestamp,
    },
    /// It waits.
    Queued {
        /// For what, in a word.
        reason: Reason,
        /// For what, in a sentence.
        message: String,
    },
    /// It began.
    Started {
        /// When.
        at: Timestamp,
        /// All of its tasks, `finally` last.
        tasks: Vec<TaskPlan>,
    },
    /// An attempt of a task began.
    TaskStarted {
        /// The task.
        task: String,
        /// From 1.
        attempt: u32,
        /// When.
        at: Timestamp,
    },
    /// A step began.
    StepStarted {
        /// The task.
        task: String,
        /// From 0.
        step: usize,
        /// When.
        at: Timestamp,
    },
    /// A step ended, or was passed over.
    StepEnded {
        /// The task.
        task: String,
        /// From 0.
        step: usize,
        /// How.
        end: StepEnd,
        /// When.
        at: Timestamp,
    },
    /// A task ended, or never will run.
    TaskEnded {
        /// The task.
        task: String,
        /// How.
        phase: TaskPhase,
        /// Why, in a word.
        reason: Option<Reason>,
        /// Why, in a sentence.
        message: Option<String>,
        /// What it published.
        outputs: IndexMap<String, String>,
        /// What it saved, sorted by path.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        artifacts: Vec<Artifact>,
        /// True if its Error leaves the run's verdict.
        tolerated: bool,
        /// When.
        at: Timestamp,
    },
    /// All that a task waits for has passed, but for someone's consent.
    ApprovalWanted {
        /// The task.
        task: String,
        /// What is asked.
        message: Option<String>,
        /// When silence decides.
        until: Option<Timestamp>,
        /// When.
        at: Timestamp,
    },
    /// Someone consented, or not.
    ApprovalDecided {
        /// The task.
        task: String,
        /// Whether it may run.
        approved: bool,
        /// Who; `timeout` if nobody did.
        by: String,
        /// When.
        at: Timestamp,
    },
    /// Its tasks have ended or are being stopped.
    ShuttingDown {
        /// Why, in a word.
        reason: Option<Reason>,
        /// Why, in a sentence.
        message: Option<String>,
        /// When.
        at: Timestamp,
    },
    /// It ended.
    Ended {
        /// `Success` or `Error`.
        phase: RunPhase,
        /// Why, in a word.
        reason: Option<Reason>,
        /// Why, in a sentence.
        message: Option<String>,
        /// When.
        at: Timestamp,
    },
}

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct StepEnd {
    /// `Success`, `Error`, or `NotExecuted` for a step passed over.
    pub phase: StepPhase,
    /// Why, in a word.
    pub reason: Option<Reason>,
    /// Why, in a sentence.
    pub message: Option<String>,
    /// Only if the process exited.
    pub exit_code: Option<i32>,
    /// The signal that ended it, otherwise.
    pub signal: Option<i32>,
}

impl Run {
    /// A run that waits to start.
    pub fn new(name: RunName, created_at: Timestamp, spec: RunSpec) -> Self {
        Self {
            metadata: RunMeta { name, created_at },
            spec,
            status: RunStatus {
                phase: RunPhase::StartingUp,
                reason: None,
                message: None,
                agent: None,
                epoch: None,
                started_at: None,
                finished_at: None,
                warnings: 0,
                tasks: IndexMap::new(),
            },
        }
    }

    /// Folds one fact into the record. A fact about an unknown task or step changes nothing; after the end
    /// nothing changes any more.
    pub fn apply(&mut self, event: &RunEvent) {
        let status = &mut self.status;
        if status.phase.is_final() {
            return;
        }
        match event {
            RunEvent::Created { .. } => {}
            RunEvent::Queued { reason, message } => {
                (status.reason, status.message) = (Some(reason.clone()), Some(message.clone()));
            }
            RunEvent::Started { at, tasks } => {
                status.phase = RunPhase::Running;
                (status.reason, status.message, status.started_at) = (None, None, Some(*at));
                status.tasks = tasks.iter().map(|plan| (plan.name.clone(), TaskStatus::planned(plan))).collect();
            }
            RunEvent::TaskStarted { task, attempt, at } => {
                let Some(task) = status.tasks.get_mut(task) else { return };
                task.phase = TaskPhase::Running;
                task.attempt = *attempt;
                task.started_at.get_or_insert(*at);
                (task.reason, task.message) = (None, None);
                for step in &mut task.steps {
                    *step = StepStatus::planned(std::mem::take(&mut step.name));
                }
            }
            RunEvent::StepStarted { task, step, at } => {
                let Some(step) = status.tasks.get_mut(task).and_then(|t| t.steps.get_mut(*step)) else { return };
                step.phase = StepPhase::Running;
                step.started_at = Some(*at);
            }
            RunEvent::StepEnded { task, step, end, at } => {
                let Some(step) = status.tasks.get_mut(task).and_then(|t| t.steps.get_mut(*step)) else { return };
                step.phase = end.phase;
                step.reason.clone_from(&end.reason);
                step.message.clone_from(&end.message);
                (step.exit_code, step.signal) = (end.exit_code, end.signal);
                step.finished_at = step.started_at.and(Some(*at));
            }
            RunEvent::TaskEnded { task, phase, reason, message, outputs, artifacts, tolerated, at } => {
                let Some(task) = status.tasks.get_mut(task) else { return };
                task.phase = *phase;
                task.reason.clone_from(reason);
                task.message.clone_from(message);
                task.outputs.clone_from(outputs);
                task.artifacts.clone_from(artifacts);
                task.finished_at = task.started_at.and(Some(*at));
                status.warnings += u32::from(*tolerated);
            }
            RunEvent::ApprovalWanted { task, message, until, at } => {
                let Some(task) = status.tasks.get_mut(task) else { return };
                task.reason = Some(Reason::WAITING_FOR_APPROVAL);
                task.message.clone_from(message);
                let (message, until) = (message.clone(), *until);
                task.approval =
                    Some(ApprovalStatus { message, wanted_at: *at, until, approved: None, by: None, decided_at: None });
            }
            RunEvent::ApprovalDecided { task, approved, by, at } => {
                let Some(task) = status.tasks.get_mut(task) else { return };
                (task.reason, task.message) = (None, None);
                if let Some(approval) = &mut task.approval {
                    (approval.approved, approval.by, approval.decided_at) =
                        (Some(*approved), Some(by.clone()), Some(*at));
                }
            }
            RunEvent::ShuttingDown { reason, message, .. } => {
                status.phase = RunPhase::ShuttingDown;
                (status.reason, status.message) = (reason.clone(), message.clone());
            }
            RunEvent::Ended { phase, reason, message, at } => {
                status.phase = *phase;
                (status.reason, status.message) = (reason.clone(), message.clone());
                status.finished_at = Some(*at);
                for task in status.tasks.values_mut() {
                    // Whatever was open when the run ended is open no more.
                    if task.reason == Some(Reason::WAITING_FOR_APPROVAL) {
                        (task.reason, task.message) = (reason.clone(), None);
                    }
                    if task.phase == TaskPhase::Running {
                        (task.phase, task.finished_at) = (TaskPhase::Error, Some(*at));
                        task.reason.clone_from(reason);
                    }
                    for step in task.steps.iter_mut().filter(|step| step.phase == StepPhase::Running) {
                        (step.phase, step.finished_at) = (StepPhase::Error, Some(*at));
                        step.reason.clone_from(reason);
                    }
                }
            }
        }
    }
}

impl TaskStatus {
    fn planned(plan: &TaskPlan) -> Self {
        Self {
            phase: TaskPhase::NotExecuted,
            reason: None,
            message: None,
            started_at: None,
            finished_at: None,
            attempt: 0,
            outputs: IndexMap::new(),
            artifacts: Vec::new(),
            dependencies: plan.dependencies.clone(),
            finally: plan.finally,
            approval: None,
            steps: plan.steps.iter().cloned().map(StepStatus::planned).collect(),
        }
    }
}

impl StepStatus {
    fn planned(name: String) -> Self {
        Self {
            name,
            phase: StepPhase::NotExecuted,
            reason: None,
            message: None,
            exit_code: None,
            signal: None,
            started_at: None,
            finished_at: None,
        }
    }
}

/// Times as the API writes them: RFC 3339 in UTC with milliseconds.
pub mod millis {
    use jiff::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes a time with exactly three decimals.
    pub fn serialize<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{at:.3}"))
    }

    /// Reads any RFC 3339 time.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        Timestamp::deserialize(deserializer)
    }
}

/// How a time reads, for schemas.
#[cfg(feature = "schema")]
#[derive(Debug)]
pub enum TimeText {}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for TimeText {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Time".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "format": "date-time"})
    }
}

/// [`millis`] for what may be absent.
pub mod optional_millis {
    use jiff::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes a time with exactly three decimals.
    pub fn serialize<S: Serializer>(at: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
        match at {
            Some(at) => super::millis::serialize(at, serializer),
            None => serializer.serialize_none(),
        }
    }

    /// Reads any RFC 3339 time.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
        Option::deserialize(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run() -> Run {
        let at = Timestamp::from_millisecond(1_000).unwrap();
        let spec = RunSpec {
            workflow: "w".parse().unwrap(),
            pipeline: "p".parse().unwrap(),
            trigger: RunTrigger { kind: TriggerType::Manual, name: None, scheduled_time: None, by: Some("me".into()) },
            params: IndexMap::new(),
            revision: Revision("abc".into()),
            spec_hash: SpecHash([7; 32]),
            rerun_of: None,
        };
        Run::new(RunName::new(at, 1), at, spec)
    }

    #[test]
    fn facts_fold_into_the_record() {
        let at = Timestamp::from_millisecond(2_000).unwrap();
        let mut run = run();
        let plan = TaskPlan { name: "t".into(), steps: vec!["step-1".into()], dependencies: vec![], finally: false };
        run.apply(&RunEvent::Started { at, tasks: vec![plan] });
        run.apply(&RunEvent::TaskStarted { task: "t".into(), attempt: 1, at });
        run.apply(&RunEvent::StepStarted { task: "t".into(), step: 0, at });
        run.apply(&RunEvent::StepStarted { task: "nobody".into(), step: 9, at });
        run.apply(&RunEvent::Ended { phase: RunPhase::Error, reason: Some(Reason::TIMED_OUT), message: None, at });
        assert_eq!(run.status.tasks["t"].steps[0].phase, StepPhase::Error, "nothing stays open");
        let ended = run.clone();
        run.apply(&RunEvent::Started { at, tasks: vec![] });
        assert_eq!(run, ended, "an end is final");
    }

    #[test]
    fn an_approval_is_part_of_its_task() {
        let at = Timestamp::from_millisecond(2_000).unwrap();
        let mut run = run();
        let plan = TaskPlan { name: "t".into(), steps: vec![], dependencies: vec![], finally: false };
        run.apply(&RunEvent::Started { at, tasks: vec![plan] });
        assert!(!serde_json::to_string(&run).unwrap().contains("approval"), "absent means absent");
        let (task, message) = ("t".to_owned(), Some("Sure?".to_owned()));
        run.apply(&RunEvent::ApprovalWanted { task: task.clone(), message, until: Some(at), at });
        let waiting = &run.status.tasks["t"];
        assert_eq!(
            (waiting.phase, waiting.reason.clone()),
            (TaskPhase::NotExecuted, Some(Reason::WAITING_FOR_APPROVAL))
        );
        let json = serde_json::to_string(waiting).unwrap();
        let approval = r#""approval":{"message":"Sure?","wantedAt":"1970-01-01T00:00:02.000Z","until":"1970-01-01T00:00:02.000Z"}"#;
        assert!(json.contains(approval), "{json}");
        let mut lost = run.clone();
        lost.apply(&RunEvent::Ended { phase: RunPhase::Error, reason: Some(Reason::AGENT_LOST), message: None, at });
        assert_eq!(lost.status.tasks["t"].reason, Some(Reason::AGENT_LOST), "nobody is asked any more");
        run.apply(&RunEvent::ApprovalDecided { task, approved: true, by: "ann".into(), at });
        let decided = &run.status.tasks["t"];
        assert_eq!(decided.reason, None);
        assert_eq!(
            decided.approval.as_ref().map(|approval| (approval.approved, approval.by.as_deref())),
            Some((Some(true), Some("ann")))
        );
    }

    #[test]
    fn json_has_milliseconds_and_no_nulls() {
        let json = serde_json::to_string(&run()).unwrap();
        assert!(json.contains(r#""createdAt":"1970-01-01T00:00:01.000Z""#), "{json}");
        assert!(!json.contains("null"), "{json}");
        assert_eq!(serde_json::from_str::<Run>(&json).unwrap(), run());
        let packed = rmp_serde::to_vec_named(&run()).unwrap();
        assert_eq!(rmp_serde::from_slice::<Run>(&packed).unwrap(), run());
    }
}
