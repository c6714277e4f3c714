//! The plan: the smallest set of changes from what is in effect to what is desired, as a value.

use xene_schemas::meta::{Name, PipelineKey};

use super::desired::{Desired, Observed};

/// One change, with its reason.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum PlanChange {
    /// A workflow that was not there.
    CreateWorkflow(Name),
    /// Its spec or metadata changed.
    UpdateWorkflow(Name),
    /// Only its file, line or validity changed.
    MoveWorkflow(Name),
    /// It is asked for no more.
    RemoveWorkflow(Name),
    /// A pipeline that was not there.
    CreatePipeline(PipelineKey),
    /// Its compiled spec changed.
    UpdatePipeline(PipelineKey),
    /// It is asked for no more.
    RemovePipeline(PipelineKey),
}

/// What reconciliation does: sorted, creates before removals.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use]
pub struct Plan {
    /// The changes.
    pub changes: Vec<PlanChange>,
    /// Workflows that vanished but stay, with the reason in a sentence.
    pub held: Vec<(Name, String)>,
}

impl Plan {
    /// Compares. Deterministic: depends on the two states alone.
    pub fn build(_desired: &Desired, _observed: &Observed) -> Self {
        unimplemented!()
    }
}
