//! Plans, as the API shows them: what a commit, or a work tree, would change.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    diagnostic::Diagnostic,
    meta::{AgentName, Name, Revision, RunName},
    phase::Reason,
    run::millis,
};

/// What would change from one state to another. Nothing of it has happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct PlanReport {
    /// What is compared with.
    pub from: PlanSide,
    /// What is planned.
    pub to: PlanSide,
    /// The changes in their order: each is one event once `to` takes effect.
    pub changes: Vec<PlannedChange>,
    /// Workflows that no file declares any more, and that stay all the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held: Vec<HeldWorkflow>,
    /// True if nothing of `to` would take effect: its files have errors, and the controller wants all or nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub withheld: bool,
    /// What is wrong with the files of `to`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Diagnostic>,
}

/// One side of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct PlanSide {
    /// What it is, for people: `the work tree`, `commit main`, `what is in effect`.
    pub what: String,
    /// Its revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<Revision>,
    /// Who wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// The first line of its message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
}

/// One change of one object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct PlannedChange {
    /// What happens to it.
    pub action: Action,
    /// `Workflow`, `Pipeline` or `Notifier`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// The reason of the event that tells of it.
    pub reason: String,
    /// Of a workflow or a notifier: its file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Where in the file its document begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// Of a workflow that changes: field by field, pipelines included; of a notifier likewise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<FieldChange>,
    /// Of a pipeline: its next due times, if they change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fires: Option<Fires>,
    /// Of a pipeline: who would get it, where a controller is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<PlannedPlacement>,
    /// Of a pipeline: its runs in flight, which finish on what they started with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub runs: Vec<RunName>,
}

/// What happens to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Action {
    /// It is new.
    Create,
    /// What it says changes.
    Update,
    /// Only its file or its line change.
    Move,
    /// Its file can be read no more; what it last gave stays in effect.
    Invalidate,
    /// Its file can be read again, and says what it last gave.
    Validate,
    /// It goes.
    Remove,
}

/// One field that changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct FieldChange {
    /// Where it is, such as `spec.pipelines.build.tasks.test.steps[0].run`.
    pub path: String,
    /// What it says now; absent if it is new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old: Option<Value>,
    /// What it will say; absent if it goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new: Option<Value>,
}

/// The next due times of a pipeline: up to three of each of its triggers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Fires {
    /// As it is.
    pub before: Vec<DueTime>,
    /// As it would be.
    pub after: Vec<DueTime>,
}

impl Fires {
    /// Those of each trigger whose due times change, by themselves.
    pub fn of_each_trigger(&self) -> Vec<Self> {
        let triggers: BTreeSet<&Name> = self.before.iter().chain(&self.after).map(|due| &due.trigger).collect();
        let of =
            |times: &[DueTime], trigger: &Name| times.iter().filter(|due| due.trigger == *trigger).cloned().collect();
        let fires = triggers
            .into_iter()
            .map(|trigger| Self { before: of(&self.before, trigger), after: of(&self.after, trigger) });
        fires.filter(|fires| fires.before != fires.after).collect()
    }
}

/// A due time of a trigger.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct DueTime {
    /// When.
    #[serde(with = "millis")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::run::TimeText"))]
    pub at: Timestamp,
    /// The trigger.
    pub trigger: Name,
}

/// Who would get a pipeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct PlannedPlacement {
    /// Who has it now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<AgentName>,
    /// Who would have it; absent: nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<AgentName>,
    /// Why nobody, in a word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// Why, in a sentence.
    pub message: String,
}

/// A workflow that vanished and stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct HeldWorkflow {
    /// Its name.
    pub name: Name,
    /// Why, in a word: `PruneBlocked`, `PruneDisabled`, `Incomplete`, `NotAtHand`.
    pub reason: String,
    /// Why, in a sentence.
    pub message: String,
}

/// One change of a workflow in the history of its source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct WorkflowChange {
    /// Its name.
    pub metadata: WorkflowChangeMeta,
    /// The revision that changed it.
    pub revision: Revision,
    /// When that was committed or, in directory mode, taken over.
    #[serde(with = "millis")]
    #[cfg_attr(feature = "schema", schemars(with = "crate::run::TimeText"))]
    pub at: Timestamp,
    /// As `Name <mail>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// The first line of its message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// `Created`, `Updated`, `Moved`, `Removed`, `Invalid` where its file can't be read, and in directory mode `Valid` where it
    /// can be read again.
    pub change: String,
    /// Its file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// What a person should know, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// What changed, field by field.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<FieldChange>,
    /// The runs of this version that are kept.
    pub runs: RunCounts,
}

/// The name of a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct WorkflowChangeMeta {
    /// `WORKFLOW@REVISION`.
    pub name: String,
}

/// Runs by phase.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct RunCounts {
    /// All.
    pub total: u32,
    /// By phase; phases without a run are left out.
    pub phases: indexmap::IndexMap<String, u32>,
    /// The newest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<crate::object::LastRun>,
}
