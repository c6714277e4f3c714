//! Files → objects and diagnostics. Pure: no I/O, no clock, no random source.
//!
//! - the reader turns bytes into documents, with limits that hold before anything is built;
//! - [`rules`] owns what a workflow must keep: one diagnostic, one code;
//! - [`catalog`] remembers files by content, so that a pass costs what changed, and settles who has a name;
//! - [`cases`] are workflow tests, which only `xene test` looks into;
//! - [`params`] checks the values of one run; [`render`] shows problems to people.

mod build;
pub mod cases;
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

use xene_schemas::{diagnostic::Diagnostic, duration::Duration, meta::Name};

use self::cases::TestDocument;
pub use self::{parse::MAX_FILE_BYTES, path::Segment};
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

/// What a set of files says.
#[derive(Debug, Default)]
pub struct Compiled {
    /// The workflows that are good, in the order of files.
    pub workflows: Vec<LocatedWorkflow>,
    /// The tests that can be tried, likewise.
    pub tests: Vec<TestDocument>,
    /// All that is wrong, sorted.
    pub problems: Vec<Diagnostic>,
}

/// A workflow and where it stands.
#[derive(Debug, Clone)]
pub struct LocatedWorkflow {
    /// Its file.
    pub path: String,
    /// Where its document begins, from 1.
    pub line: u32,
    /// What it says.
    pub body: Arc<WorkflowBody>,
}

/// Compiles a set of files by themselves, without an earlier state. A name that two files declare is a problem of
/// both; tests are held against the workflows that they name.
pub fn compile(files: &[(String, Vec<u8>)]) -> Compiled {
    let mut compiled = Compiled::default();
    for (path, bytes) in files {
        let file = build::compile_file(path, bytes, Limits::default());
        compiled.problems.extend(file.problems);
        compiled.tests.extend(file.tests);
        let located = |w: build::CompiledWorkflow| LocatedWorkflow { path: path.clone(), line: w.line, body: w.body };
        compiled.workflows.extend(file.workflows.into_iter().map(located));
    }
    let mut claims: BTreeMap<&Name, Vec<(&str, u32)>> = BTreeMap::new();
    for workflow in &compiled.workflows {
        claims.entry(&workflow.body.metadata.name).or_default().push((&workflow.path, workflow.line));
    }
    let twice = claims.iter().flat_map(|(name, places)| catalog::duplicates(name, places, None)).collect::<Vec<_>>();
    // A workflow that is not among the good ones may be among the broken ones.
    let complete = !build::is_broken(&compiled.problems);
    let of_tests = compiled.tests.iter().flat_map(|test| {
        let named = |workflow: &&LocatedWorkflow| workflow.body.metadata.name == test.test.spec.workflow;
        match compiled.workflows.iter().find(named) {
            Some(workflow) => test.check(Some(&workflow.body)),
            None if complete => vec![test.without_workflow()],
            None => Vec::new(),
        }
    });
    let of_tests = of_tests.collect::<Vec<_>>();
    compiled.problems.extend(twice.into_iter().chain(of_tests));
    compiled.problems.sort();
    compiled
}

/// Checks a set of files by themselves: how many workflows they declare, and all that is wrong, sorted.
pub fn validate(files: &[(String, Vec<u8>)]) -> (usize, Vec<Diagnostic>) {
    let Compiled { workflows, problems, .. } = compile(files);
    (workflows.len(), problems)
}
