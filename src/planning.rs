//! Plans of what is not in effect: a snapshot is compiled as reconciliation would compile it, and compared.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use xene_schemas::{
    diagnostic::Diagnostic,
    meta::{Name, Revision},
    pipeline::{CompiledPipeline, PipelineFile},
    plan::{PlanReport, PlanSide},
};

use crate::{
    compile::{Limits, catalog::Catalog},
    decide::{
        desired::Desired,
        preview::{InEffect, preview},
        rows::{PipelineRow, WorkflowRow},
    },
    source::{Failure, FileEntry, Known, Snapshot, snapshot::Travelling},
    store::{self, Store, StoreError},
};

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The commit can't be read.
    #[error(transparent)]
    Source(#[from] Failure),
    /// What is in effect can't be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What to compare with what a store holds: `snapshot` is told which content is known. Changes nothing.
///
/// # Errors
/// If one of them can't be read.
pub fn against_store(
    store: &Store,
    limits: Limits,
    now: Timestamp,
    what: (String, String),
    snapshot: impl FnOnce(&Known) -> Result<Snapshot, Failure>,
) -> Result<(PlanReport, Desired), PlanError> {
    let store::InEffect { workflows, pipelines, notifiers, files } = store.in_effect()?;
    let source = store.source()?;
    let mut catalog = Catalog::recover(files, &workflows, limits).with_notifiers(&notifiers);
    let snapshot = snapshot(catalog.known())?;
    // As reconciliation would; a person who names a folder gets a snapshot of it, or none.
    let applied = source.as_ref().filter(|source| source.revision.is_some());
    snapshot.check_folder(applied.map(|source| source.path.as_str()))?;
    let (from, to) = what;
    let from = PlanSide {
        what: from,
        revision: source.as_ref().and_then(|source| source.revision.clone()),
        author: source.as_ref().and_then(|source| source.author.clone()),
        subject: source.and_then(|source| source.subject),
    };
    let to = side(to, &snapshot);
    let desired = catalog.apply(from.revision.clone(), snapshot);
    let files = travelling(store, &workflows, &pipelines)?;
    let before = InEffect::of_rows(workflows, &pipelines, notifiers).with_files(files);
    Ok((preview(&before, &desired, from, to, now), desired))
}

/// The files that travel with each workflow, as the compiled specs of its pipelines name them; all of them name the same.
fn travelling(
    store: &Store,
    workflows: &[WorkflowRow],
    pipelines: &[PipelineRow],
) -> Result<BTreeMap<Name, Vec<PipelineFile>>, StoreError> {
    let mut files = BTreeMap::new();
    for workflow in workflows.iter().filter(|workflow| !workflow.spec.files.is_empty()) {
        let name = &workflow.metadata.name;
        let Some(one) = pipelines.iter().find(|pipeline| pipeline.key.workflow == *name) else { continue };
        let spec = store.spec(&one.spec_hash)?;
        if let Some(compiled) = spec.and_then(|bytes| serde_json::from_slice::<CompiledPipeline>(&bytes).ok()) {
            files.insert(name.clone(), compiled.files);
        }
    }
    Ok(files)
}

/// Compares two snapshots, as if the first had taken effect where nothing was.
pub fn between(
    before: (String, Snapshot),
    after: (String, Snapshot),
    limits: Limits,
    now: Timestamp,
) -> (PlanReport, Desired) {
    let mut catalog = Catalog::recover(Vec::new(), &[], limits);
    let (from, to) = (side(before.0, &before.1), side(after.0, &after.1));
    let revision = before.1.revision.clone();
    let in_effect = InEffect::of_desired(&catalog.apply(None, before.1));
    catalog.applied(&revision);
    let desired = catalog.apply(Some(revision), after.1);
    (preview(&in_effect, &desired, from, to, now), desired)
}

fn side(what: String, snapshot: &Snapshot) -> PlanSide {
    let Snapshot { revision, author, subject, .. } = snapshot;
    PlanSide { what, revision: Some(revision.clone()), author: author.clone(), subject: subject.clone() }
}

/// A snapshot on its way to a controller, which plans it.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Upload {
    /// What it is, for people.
    pub what: String,
    /// Its revision.
    pub revision: Revision,
    /// Its author.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// The first line of its message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The folder that was read.
    #[serde(default)]
    pub folder: String,
    /// False if part of it could not be read.
    pub complete: bool,
    /// Files that can't be read, and the like.
    #[serde(default)]
    pub problems: Vec<Diagnostic>,
    /// Its files by path.
    pub files: BTreeMap<String, UploadedFile>,
}

/// A file on its way to a controller.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UploadedFile {
    /// Its content, if it is text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Its bytes, if it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<Vec<u8>>,
    /// The files that travel with its workflows, if any do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub travelling: Option<Vec<Travelling>>,
}

impl Upload {
    /// All of a snapshot that carries its bytes.
    pub fn of(what: String, snapshot: Snapshot) -> Self {
        let Snapshot { revision, author, subject, folder, files, complete, problems } = snapshot;
        let files = files.into_iter().filter_map(|(path, file)| {
            let travelling = file.files;
            let file = match String::from_utf8(file.bytes?) {
                Ok(text) => UploadedFile { text: Some(text), bytes: None, travelling },
                Err(error) => UploadedFile { text: None, bytes: Some(error.into_bytes()), travelling },
            };
            Some((path, file))
        });
        Self { what, revision, author, subject, folder, complete, problems, files: files.collect() }
    }

    /// What it is, and the snapshot. What `known` has by the same content carries no bytes.
    pub fn into_snapshot(self, known: &Known) -> Snapshot {
        let Self { revision, author, subject, folder, complete, problems, files, .. } = self;
        let files = files.into_iter().map(|(path, file)| {
            let bytes = file.text.map_or_else(|| file.bytes.unwrap_or_default(), String::into_bytes);
            let content = content_like(known.get(&path), &bytes);
            let bytes = (known.get(&path) != Some(&content)).then_some(bytes);
            (path, FileEntry { content, bytes, files: file.travelling })
        });
        Snapshot { revision, author, subject, folder, files: files.collect(), complete, problems }
    }
}

/// The content's id, in the form that the known one has: a blob's id, or a hash of a folder's file.
fn content_like(known: Option<&String>, bytes: &[u8]) -> String {
    let is_blob = known.is_some_and(|known| known.len() == 40);
    let blob = is_blob.then(|| crate::source::browse::blob_id(bytes)).flatten();
    blob.unwrap_or_else(|| blake3::hash(bytes).to_hex().to_string())
}
