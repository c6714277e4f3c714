//! Desired state as the compiler hands it over: what one revision asks for.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use xene_schemas::{
    diagnostic::{Diagnostic, Severity},
    meta::{Name, ObjectMeta, PipelineKey, Revision, SpecHash},
    pipeline::{CompiledPipeline, PipelineFile},
    source::SourceKind,
    workflow::WorkflowSpec,
};

use super::rows::{FileRow, NotifierClaim, NotifierRow, PipelineRow, WorkflowRow};

/// What one revision asks for. Unchanged parts are named by hash only, so a change costs what changed.
#[derive(Debug, Clone, PartialEq)]
pub struct Desired {
    /// The revision.
    pub revision: Revision,
    /// What was in effect when it was compiled, and is where the bodies are that were left out; `None`: none were.
    pub base: Option<Revision>,
    /// Its author, as `Name <mail>`.
    pub author: Option<String>,
    /// The first line of its message.
    pub subject: Option<String>,
    /// The folder that was read, relative to the source's root; empty for the root itself.
    pub folder: String,
    /// Every workflow that is to be in effect, last-good ones of broken files included.
    pub workflows: BTreeMap<Name, DesiredWorkflow>,
    /// Every notifier that is to be in effect, likewise.
    pub notifiers: BTreeMap<Name, DesiredNotifier>,
    /// False while something of the scope could not be read or parsed: then a workflow that vanished may have moved
    /// into what was not read, and nothing is pruned.
    pub complete: bool,
    /// Rows of files that changed; `None` for a file that is gone.
    pub files: BTreeMap<String, Option<FileRow>>,
    /// All problems of all files, sorted.
    pub problems: Vec<Diagnostic>,
    /// How many documents are not ours.
    pub ignored: u32,
}

/// How many keep files from taking effect: a warning is no reason to call a source degraded.
pub fn errors(problems: &[Diagnostic]) -> usize {
    problems.iter().filter(|problem| problem.severity == Severity::Error).count()
}

/// One workflow that is to be in effect.
#[derive(Debug, Clone, PartialEq)]
pub struct DesiredWorkflow {
    /// Of metadata and spec: equal hash, equal workflow.
    pub hash: SpecHash,
    /// Its file.
    pub path: String,
    /// Where its document begins, from 1.
    pub line: u32,
    /// False if its file is broken and this is what it last gave.
    pub valid: bool,
    /// What it says; absent if `hash` is in effect already.
    pub body: Option<Arc<WorkflowBody>>,
}

/// One notifier that is to be in effect.
#[derive(Debug, Clone, PartialEq)]
pub struct DesiredNotifier {
    /// Of metadata and spec.
    pub hash: SpecHash,
    /// Its file.
    pub path: String,
    /// False if its file is broken and this is what it last gave.
    pub valid: bool,
    /// What it says, and where.
    pub claim: NotifierClaim,
}

/// What a workflow says, compiled.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkflowBody {
    /// As committed.
    pub metadata: ObjectMeta,
    /// As committed.
    pub spec: WorkflowSpec,
    /// Its pipelines with what the workflow gives them.
    pub pipelines: BTreeMap<Name, CompiledPipeline>,
}

impl WorkflowBody {
    /// The files that travel with it, the same ones with each of its pipelines.
    pub fn files(&self) -> &[PipelineFile] {
        self.pipelines.values().next().map_or(&[], |pipeline| &pipeline.files)
    }
}

/// What is in effect, as far as planning needs it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Observed {
    /// The workflows.
    pub workflows: BTreeMap<Name, ObservedWorkflow>,
    /// The notifiers.
    pub notifiers: BTreeMap<Name, NotifierRow>,
}

/// One workflow in effect.
#[derive(Debug, Clone, PartialEq)]
pub struct ObservedWorkflow {
    /// Of metadata and spec.
    pub hash: SpecHash,
    /// Its file.
    pub path: String,
    /// Where its document begins.
    pub line: u32,
    /// False if its file was broken.
    pub valid: bool,
    /// Its pipelines and the hashes of their compiled specs.
    pub pipelines: BTreeMap<Name, SpecHash>,
    /// True with `metadata.annotations["xene/prune"]: disabled`.
    pub keep: bool,
    /// Among how many workflows its removal was blocked, if it is: those that came since do not count.
    pub blocked_among: Option<u32>,
}

/// What the rows of a store say is desired, if somebody else may have changed them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Found {
    /// The workflows.
    pub workflows: BTreeMap<Name, WorkflowRow>,
    /// The notifiers.
    pub notifiers: BTreeMap<Name, NotifierRow>,
    /// The pipelines; `None` for a row that can't be read or whose compiled spec is not there.
    pub pipelines: BTreeMap<PipelineKey, Option<PipelineRow>>,
}

/// What a source is and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceOrigin {
    /// What it is.
    pub kind: SourceKind,
    /// Where it is, without credentials.
    pub url: String,
    /// The branch that is followed.
    pub branch: Option<String>,
    /// The folder within it, if a person named one.
    pub path: Option<String>,
}

/// How a source goes, apart from what it asks for. All but [`Self::Looked`] are sent on transitions only.
#[derive(Debug, Clone, PartialEq)]
pub enum SourceHealth {
    /// It was looked at, and this is its newest revision, which may not be in effect yet. Sent after each look, and
    /// before what it found is handed over; kept in memory.
    Looked {
        /// The revision.
        seen: Revision,
        /// When.
        at: Timestamp,
    },
    /// It was looked at; this is its newest revision.
    Observed {
        /// The revision, if there is one.
        seen: Option<Revision>,
        /// When.
        at: Timestamp,
        /// Files of the work tree that differ from the commit.
        dirty: u32,
    },
    /// It can't be read; the last state goes on.
    Failed {
        /// Such as `RefMissing`, `PathMissing`, `Empty`, `Unreachable`, `AuthFailed`, `UnsupportedFormat`.
        reason: String,
        /// A sentence with the remedy.
        message: String,
        /// Since when.
        since: Timestamp,
        /// True if this has lasted for longer than the operator takes for normal.
        stale: bool,
    },
    /// History was rewritten: the new tip does not descend from the old one.
    Rewritten {
        /// The old tip.
        from: Revision,
        /// The new tip.
        to: Revision,
    },
    /// Commits that were overtaken by a newer one before anybody looked, oldest first: they never took effect by themselves.
    Superseded {
        /// How many.
        count: usize,
        /// The newest of them.
        commits: Vec<Revision>,
        /// What took effect instead.
        by: Revision,
    },
    /// Something that limits how it is watched, such as the watch limit: a sentence, empty when it is over.
    Degraded(String),
}
