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
mod reread;
pub mod rules;

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc};

use xene_agent::glob::Globs;
use xene_schemas::{
    diagnostic::Diagnostic,
    duration::Duration,
    meta::{Name, SpecHash},
};

use self::{
    cases::TestDocument,
    rules::group::{self, Grouped},
};
pub use self::{parse::MAX_FILE_BYTES, path::Segment};
use crate::{
    decide::{desired::WorkflowBody, rows::NotifierClaim},
    source::{
        snapshot::{Snapshot, Travelling},
        travel::Wanted,
    },
};

/// The most files that may travel with a workflow.
pub const MAX_TRAVELLING_FILES: usize = 4096;
/// The most bytes that may travel with a workflow: 32 MiB.
pub const MAX_TRAVELLING_BYTES: u64 = 32 << 20;

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

/// What the workflows of a file want to travel with them; `None` if nothing.
pub fn wanted_files(path: &str, bytes: &[u8]) -> Option<Wanted> {
    const FIELD: &[u8] = b"files";
    // Most files have none, and need not be read twice.
    if !bytes.windows(FIELD.len()).any(|window| window == FIELD) {
        return None;
    }
    let workflows = parse::parse(path, bytes, None, Limits::default()).workflows;
    let wanting = workflows.iter().map(|(workflow, _)| &workflow.spec.files).filter(|files| !files.is_empty());
    let count = wanting.clone().count() as u64;
    // Patterns that can't be used are told by the rules.
    let usable = wanting.flatten().filter(|glob| Globs::new(std::slice::from_ref(*glob)).is_ok());
    // What one workflow leaves out another may take.
    let patterns: Vec<String> = usable.filter(|glob| count == 1 || !glob.starts_with('!')).cloned().collect();
    let globs = Globs::new(&patterns).ok()?;
    (count > 0).then(|| Wanted { globs, budget: MAX_TRAVELLING_BYTES * count })
}

/// True if a file that came with bytes has an error: in a folder it may be half written.
pub fn is_doubtful(snapshot: &Snapshot) -> bool {
    let limits = Limits::default();
    snapshot.files.iter().any(|(path, file)| {
        file.bytes.as_ref().is_some_and(|bytes| {
            build::is_broken(&build::compile_file(path, bytes, file.files.as_deref(), limits).problems)
        })
    })
}

/// True if a file declares a workflow. One that came without bytes is taken for such a file.
pub fn declares_workflows(snapshot: &Snapshot) -> bool {
    let limits = Limits::default();
    snapshot.files.iter().any(|(path, file)| match &file.bytes {
        Some(bytes) => !build::compile_file(path, bytes, file.files.as_deref(), limits).workflows.is_empty(),
        None => true,
    })
}

/// A file with each document of the format `v1alpha1` written as `xene/v1`; `None` if it can't be read, which
/// [`validate`] explains.
pub fn convert(path: &str, bytes: &[u8]) -> Option<String> {
    parse::convert(path, bytes)
}

/// What one file, by itself, says of a workflow, and the hash of that; `None` if it does not declare it.
///
/// # Errors
/// If the file has an error: then it counts for nothing.
pub fn workflow_of(
    path: &str,
    bytes: &[u8],
    name: &Name,
) -> Result<Option<(SpecHash, Arc<WorkflowBody>)>, Vec<Diagnostic>> {
    let file = build::compile_file(path, bytes, None, Limits::default());
    if build::is_broken(&file.problems) {
        return Err(file.problems);
    }
    let found = file.workflows.into_iter().find(|workflow| workflow.name == *name);
    Ok(found.map(|workflow| (workflow.hash, workflow.body)))
}

/// What a set of files says.
#[derive(Debug, Default)]
pub struct Compiled {
    /// The workflows that are good, in the order of files.
    pub workflows: Vec<LocatedWorkflow>,
    /// The notifiers that are good, likewise.
    pub notifiers: Vec<(String, NotifierClaim)>,
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
    compile_travelling(files.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice(), None)))
}

/// [`compile`], with what the patterns of each file took, if anybody looked.
pub fn compile_travelling<'f>(files: impl Iterator<Item = (&'f str, &'f [u8], Option<&'f [Travelling]>)>) -> Compiled {
    let mut compiled = Compiled::default();
    for (path, bytes, found) in files {
        let file = build::compile_file(path, bytes, found, Limits::default());
        compiled.problems.extend(file.problems);
        compiled.tests.extend(file.tests);
        compiled.notifiers.extend(file.notifiers.into_iter().map(|notifier| (path.to_owned(), notifier)));
        let located =
            |w: build::CompiledWorkflow| LocatedWorkflow { path: path.to_owned(), line: w.line, body: w.body };
        compiled.workflows.extend(file.workflows.into_iter().map(located));
    }
    let mut claims: BTreeMap<&Name, Vec<(&str, u32)>> = BTreeMap::new();
    for workflow in &compiled.workflows {
        claims.entry(&workflow.body.metadata.name).or_default().push((&workflow.path, workflow.line));
    }
    let twice = claims.iter().flat_map(|(name, places)| catalog::duplicates("workflow", name, places, None));
    let twice = twice.collect::<Vec<_>>();
    let by_name: BTreeMap<&Name, &LocatedWorkflow> =
        compiled.workflows.iter().map(|workflow| (&workflow.body.metadata.name, workflow)).collect();
    let single = by_name.into_iter().filter(|(name, _)| claims.get(name).is_some_and(|places| places.len() == 1));
    let members: Vec<_> = single.map(|(name, found)| (name, found, group::members(&found.body.spec))).collect();
    let grouped = group::across(members.iter().map(|(workflow, found, members)| Grouped {
        workflow,
        path: &found.path,
        line: found.line,
        members,
    }));
    let mut claims: BTreeMap<&Name, Vec<(&str, u32)>> = BTreeMap::new();
    for (path, notifier) in &compiled.notifiers {
        claims.entry(&notifier.metadata.name).or_default().push((path, notifier.line));
    }
    let notifiers = claims.iter().flat_map(|(name, places)| catalog::duplicates("notifier", name, places, None));
    let twice = twice.into_iter().chain(notifiers).chain(grouped).collect::<Vec<_>>();
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
