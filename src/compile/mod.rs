//! Files → objects and diagnostics. Pure: no I/O, no clock, no random source.
//!
//! - the reader turns bytes into documents, with limits that hold before anything is built;
//! - [`rules`] owns what a workflow must keep: one diagnostic, one code;
//! - [`catalog`] remembers files by content, so that a pass costs what changed, and settles who has a name;
//! - [`params`] checks the values of one run; [`render`] shows problems to people.

mod build;
pub mod catalog;
mod explain;
mod outline;
pub mod params;
mod parse;
mod path;
pub mod render;
pub mod rules;

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc};

use xene_schemas::{
    diagnostic::Diagnostic,
    duration::Duration,
    meta::{Name, SpecHash},
};

pub use self::parse::MAX_FILE_BYTES;
use crate::{decide::desired::WorkflowBody, source::snapshot::Snapshot};

/// What an operator may set of the rules.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The smallest `autonomy`: a lease is renewed several times within it.
    pub min_autonomy: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { min_autonomy: Duration::from_secs(30) }
    }
}

/// True if a file that came with bytes has an error: in a folder it may be half written.
pub fn is_doubtful(snapshot: &Snapshot) -> bool {
    let limits = Limits::default();
    snapshot.files.iter().any(|(path, file)| {
        file.bytes.as_ref().is_some_and(|bytes| build::is_broken(&build::compile_file(path, bytes, limits).problems))
    })
}

/// What one file declares, by itself: each workflow's name, hash, line, and what it says.
///
/// # Errors
/// If the file has an error: then it counts for nothing.
pub fn workflows_of(
    path: &str,
    bytes: &[u8],
) -> Result<Vec<(Name, SpecHash, u32, Arc<WorkflowBody>)>, Vec<Diagnostic>> {
    let file = build::compile_file(path, bytes, Limits::default());
    if build::is_broken(&file.problems) {
        return Err(file.problems);
    }
    Ok(file
        .workflows
        .into_iter()
        .map(|workflow| (workflow.name, workflow.hash, workflow.line, workflow.body))
        .collect())
}

/// Checks a set of files by themselves, without an earlier state: how many workflows they declare, and all that is
/// wrong, sorted. A name that two files declare is a problem of both.
pub fn validate(files: &[(String, Vec<u8>)]) -> (usize, Vec<Diagnostic>) {
    let (mut count, mut problems) = (0, Vec::new());
    let mut claims: BTreeMap<Name, Vec<(&str, u32)>> = BTreeMap::new();
    for (path, bytes) in files {
        let compiled = build::compile_file(path, bytes, Limits::default());
        problems.extend(compiled.problems);
        count += compiled.workflows.len();
        for workflow in compiled.workflows {
            claims.entry(workflow.name).or_default().push((path, workflow.line));
        }
    }
    for (name, places) in &claims {
        problems.extend(catalog::duplicates(name, places, None));
    }
    problems.sort();
    (count, problems)
}
