//! The plan: the smallest set of changes from what is in effect to what is desired, as a value.

use std::fmt;

use xene_schemas::meta::{Name, PipelineKey, Revision};

use super::desired::{Desired, Observed, ObservedWorkflow, WorkflowBody};

/// One change, with its reason.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum PlanChange {
    /// A workflow that was not there.
    CreateWorkflow(Name),
    /// Its spec or metadata changed.
    UpdateWorkflow(Name),
    /// Only its file, line or validity changed.
    MoveWorkflow(Name),
    /// A pipeline that was not there.
    CreatePipeline(PipelineKey),
    /// Its compiled spec changed.
    UpdatePipeline(PipelineKey),
    /// It is asked for no more.
    RemovePipeline(PipelineKey),
    /// It is asked for no more.
    RemoveWorkflow(Name),
    /// A notifier that was not there.
    CreateNotifier(Name),
    /// Its spec or metadata changed.
    UpdateNotifier(Name),
    /// Only its file, line or validity changed.
    MoveNotifier(Name),
    /// It is asked for no more.
    RemoveNotifier(Name),
}

impl fmt::Display for PlanChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateWorkflow(name) => write!(f, "create workflow {name}"),
            Self::UpdateWorkflow(name) => write!(f, "update workflow {name}"),
            Self::MoveWorkflow(name) => write!(f, "move workflow {name}"),
            Self::RemoveWorkflow(name) => write!(f, "remove workflow {name}"),
            Self::CreatePipeline(key) => write!(f, "create pipeline {key}"),
            Self::UpdatePipeline(key) => write!(f, "update pipeline {key}"),
            Self::RemovePipeline(key) => write!(f, "remove pipeline {key}"),
            Self::CreateNotifier(name) => write!(f, "create notifier {name}"),
            Self::UpdateNotifier(name) => write!(f, "update notifier {name}"),
            Self::MoveNotifier(name) => write!(f, "move notifier {name}"),
            Self::RemoveNotifier(name) => write!(f, "remove notifier {name}"),
        }
    }
}

impl PlanChange {
    /// The reason of the event that tells of it.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::CreateWorkflow(_) => "WorkflowCreated",
            Self::UpdateWorkflow(_) => "WorkflowUpdated",
            Self::MoveWorkflow(_) => "WorkflowMoved",
            Self::RemoveWorkflow(_) => "WorkflowRemoved",
            Self::CreatePipeline(_) => "PipelineCreated",
            Self::UpdatePipeline(_) => "PipelineUpdated",
            Self::RemovePipeline(_) => "PipelineRemoved",
            Self::CreateNotifier(_) => "NotifierCreated",
            Self::UpdateNotifier(_) => "NotifierUpdated",
            Self::MoveNotifier(_) => "NotifierMoved",
            Self::RemoveNotifier(_) => "NotifierRemoved",
        }
    }

    /// What that event regards.
    pub fn regarding(&self) -> String {
        match self {
            Self::CreateWorkflow(name)
            | Self::UpdateWorkflow(name)
            | Self::MoveWorkflow(name)
            | Self::RemoveWorkflow(name) => format!("workflow/{name}"),
            Self::CreatePipeline(key) | Self::UpdatePipeline(key) | Self::RemovePipeline(key) => {
                format!("pipeline/{key}")
            }
            Self::CreateNotifier(name)
            | Self::UpdateNotifier(name)
            | Self::MoveNotifier(name)
            | Self::RemoveNotifier(name) => format!("notifier/{name}"),
        }
    }
}

/// Why a workflow that vanished stays.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hold {
    /// Its annotation says so.
    PruneDisabled,
    /// Not every file can be read: it may have moved.
    Incomplete,
    /// Too many would go at once.
    PruneBlocked {
        /// The revision that asks for it.
        revision: Revision,
        /// How many would go…
        gone: usize,
        /// …of how many.
        all: usize,
    },
    /// It is asked for, and its content is not at hand.
    NotAtHand,
}

impl Hold {
    /// In a word.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::PruneDisabled => "PruneDisabled",
            Self::Incomplete => "Incomplete",
            Self::PruneBlocked { .. } => BLOCKED,
            Self::NotAtHand => "NotAtHand",
        }
    }
}

impl fmt::Display for Hold {
    /// In a sentence.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PruneDisabled => {
                f.write_str("no file declares it any more; its annotation `xene/prune: disabled` keeps it")
            }
            Self::Incomplete => f.write_str(
                "no file declares it any more; it stays until every file can be read, since it may have moved",
            ),
            Self::PruneBlocked { revision, gone, all } => write!(
                f,
                "{BLOCKED}: {revision} would remove {gone} of {all} workflows at once; if that is meant, `xene \
                 approve-prune {revision}`, else revert it"
            ),
            Self::NotAtHand => f.write_str("its content is not at hand and is read again"),
        }
    }
}

/// What reconciliation does: sorted, creates before removals.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use]
pub struct Plan {
    /// The changes.
    pub changes: Vec<PlanChange>,
    /// Workflows that vanished but stay, and why.
    pub held: Vec<(Name, Hold)>,
    /// Among how many workflows, if the removal of more than half of them at once is held.
    pub prune_blocked: Option<u32>,
}

/// How the reason of a workflow that is blocked begins.
pub(super) const BLOCKED: &str = "PruneBlocked";
/// With fewer workflows than that, a commit may remove any number.
const MIN_TO_BLOCK: usize = 4;

impl Plan {
    /// Compares. Deterministic: depends on the two states alone.
    pub fn build(desired: &Desired, observed: &Observed) -> Self {
        let mut plan = Self::default();
        for (name, wanted) in &desired.workflows {
            match (observed.workflows.get(name), &wanted.body) {
                (Some(found), _) if found.hash == wanted.hash => {
                    if (&found.path, found.line, found.valid) != (&wanted.path, wanted.line, wanted.valid) {
                        plan.changes.push(PlanChange::MoveWorkflow(name.clone()));
                    }
                }
                (Some(found), Some(body)) => {
                    plan.changes.push(PlanChange::UpdateWorkflow(name.clone()));
                    plan.compare_pipelines(name, body, found);
                }
                (None, Some(body)) => {
                    plan.changes.push(PlanChange::CreateWorkflow(name.clone()));
                    plan.changes.extend(body.pipelines.values().map(|p| PlanChange::CreatePipeline(p.key.clone())));
                }
                (_, None) => plan.held.push((name.clone(), Hold::NotAtHand)),
            }
        }
        plan.prune(desired, observed);
        plan.compare_notifiers(desired, observed);
        plan.changes.sort();
        plan.held.sort();
        plan
    }

    /// True if there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    fn compare_pipelines(&mut self, workflow: &Name, body: &WorkflowBody, found: &ObservedWorkflow) {
        for (name, pipeline) in &body.pipelines {
            match found.pipelines.get(name) {
                None => self.changes.push(PlanChange::CreatePipeline(pipeline.key.clone())),
                Some(hash) if *hash != pipeline.encode().0 => {
                    self.changes.push(PlanChange::UpdatePipeline(pipeline.key.clone()));
                }
                Some(_) => {}
            }
        }
        let gone = found.pipelines.keys().filter(|name| !body.pipelines.contains_key(*name));
        self.changes.extend(gone.map(|name| PlanChange::RemovePipeline(key(workflow, name))));
    }

    fn compare_notifiers(&mut self, desired: &Desired, observed: &Observed) {
        for (name, wanted) in &desired.notifiers {
            match observed.notifiers.get(name) {
                None => self.changes.push(PlanChange::CreateNotifier(name.clone())),
                Some(found) if found.hash != wanted.hash => {
                    self.changes.push(PlanChange::UpdateNotifier(name.clone()));
                }
                Some(found)
                    if (&found.path, found.line, found.valid) != (&wanted.path, wanted.claim.line, wanted.valid) =>
                {
                    self.changes.push(PlanChange::MoveNotifier(name.clone()));
                }
                Some(_) => {}
            }
        }
        // While something can't be read, one that vanished may have moved there.
        let vanished = observed.notifiers.iter().filter(|(name, row)| {
            let keep = row.metadata.annotations.get("xene/prune").is_some_and(|prune| prune == "disabled");
            desired.complete && !keep && !desired.notifiers.contains_key(*name)
        });
        self.changes.extend(vanished.map(|(name, _)| PlanChange::RemoveNotifier(name.clone())));
    }

    /// What is in effect and asked for no more: removed, if nothing speaks for it.
    fn prune(&mut self, desired: &Desired, observed: &Observed) {
        let vanished = observed.workflows.iter().filter(|(name, _)| !desired.workflows.contains_key(*name));
        let (kept, vanished): (Vec<_>, Vec<_>) = vanished.partition(|(_, workflow)| workflow.keep);
        self.held.extend(kept.into_iter().map(|(name, _)| (name.clone(), Hold::PruneDisabled)));

        // Of those that were in effect before: what replaces them does not count, also when it is in effect by now.
        let blocked = observed.workflows.values().filter_map(|workflow| workflow.blocked_among).min();
        let (gone, all) = (vanished.len(), blocked.map_or(observed.workflows.len(), |all| all as usize));
        let all = all.max(gone);
        let hold = if !desired.complete {
            Some(Hold::Incomplete)
        } else if all >= MIN_TO_BLOCK && gone * 2 > all {
            self.prune_blocked = u32::try_from(all).ok();
            Some(Hold::PruneBlocked { revision: desired.revision.clone(), gone, all })
        } else {
            None
        };
        for (name, workflow) in vanished {
            if let Some(hold) = &hold {
                self.held.push((name.clone(), hold.clone()));
                continue;
            }
            self.changes.push(PlanChange::RemoveWorkflow(name.clone()));
            let pipelines = workflow.pipelines.keys();
            self.changes.extend(pipelines.map(|pipeline| PlanChange::RemovePipeline(key(name, pipeline))));
        }
    }
}

fn key(workflow: &Name, pipeline: &Name) -> PipelineKey {
    PipelineKey { workflow: workflow.clone(), pipeline: pipeline.clone() }
}

impl fmt::Display for Plan {
    /// One line for each change, then one for each workflow that is held.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.changes.iter().try_for_each(|change| writeln!(f, "{change}"))?;
        self.held.iter().try_for_each(|(name, reason)| writeln!(f, "hold workflow {name}: {reason}"))
    }
}

#[cfg(test)]
pub(super) mod tests;
