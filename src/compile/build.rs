//! Documents → objects: workflows with their compiled pipelines and content hashes.

use std::sync::Arc;

use xene_agent::glob::Globs;
use xene_schemas::{
    diagnostic::{Diagnostic, Severity},
    meta::{Name, PipelineKey, SpecHash},
    notifier::Notifier,
    pipeline::{CompiledPipeline, PipelineFile},
    trigger::Trigger,
    workflow::{Workflow, WorkflowSpec},
};

use super::{Limits, cases::TestDocument, params::overlay, parse::parse, rules::file::NEEDS_CONTAINER};
use crate::{
    decide::{desired::WorkflowBody, rows::NotifierClaim},
    source::snapshot::{Travelling, What},
};

/// What one file gives.
#[derive(Debug)]
pub(super) struct CompiledFile {
    /// Its workflows; none if anything is wrong with it.
    pub(super) workflows: Vec<CompiledWorkflow>,
    /// Workflows that are refused by themselves: they keep what they last gave.
    pub(super) refused: Vec<Name>,
    /// Its notifiers; likewise.
    pub(super) notifiers: Vec<NotifierClaim>,
    /// Its workflow tests; likewise.
    pub(super) tests: Vec<TestDocument>,
    /// How many of its documents are not ours.
    pub(super) ignored: u32,
    /// What is wrong with it.
    pub(super) problems: Vec<Diagnostic>,
}

/// One workflow of a file.
#[derive(Debug)]
pub(super) struct CompiledWorkflow {
    pub(super) name: Name,
    pub(super) hash: SpecHash,
    pub(super) line: u32,
    pub(super) body: Arc<WorkflowBody>,
}

/// Compiles one file; `found` is what its workflows' patterns took, if anybody looked. A file counts whole or not at
/// all: with an error anywhere in it, none of its workflows do.
pub(super) fn compile_file(path: &str, bytes: &[u8], found: Option<&[Travelling]>, limits: Limits) -> CompiledFile {
    let parsed = parse(path, bytes, found, limits);
    let (workflows, notifiers, tests) = if is_broken(&parsed.problems) {
        (Vec::new(), Vec::new(), Vec::new())
    } else {
        let found = found.unwrap_or_default();
        let compile = |(workflow, line)| compile_workflow(workflow, line, found);
        let claim = |(notifier, line): (Notifier, u32)| NotifierClaim {
            line,
            metadata: notifier.metadata,
            spec: notifier.spec,
        };
        let notifiers = parsed.notifiers.into_iter().map(claim).collect();
        (parsed.workflows.into_iter().map(compile).collect(), notifiers, parsed.tests)
    };
    let (refused, ignored) = (parsed.refused, parsed.ignored);
    CompiledFile { workflows, notifiers, tests, refused, ignored, problems: parsed.problems }
}

/// True if these problems keep a file from counting.
pub(super) fn is_broken(problems: &[Diagnostic]) -> bool {
    // What needs a container was an error once, and a store may hold it as one: it keeps nothing else from counting.
    problems.iter().any(|problem| problem.severity == Severity::Error && problem.code != NEEDS_CONTAINER.code)
}

fn compile_workflow(workflow: Workflow, line: u32, found: &[Travelling]) -> CompiledWorkflow {
    let Workflow { metadata, spec, .. } = workflow;
    let files = travelling(&spec, found);
    // In field order, so equal content gives equal bytes.
    let bytes = if files.is_empty() {
        serde_json::to_vec(&(&metadata, &spec))
    } else {
        serde_json::to_vec(&(&metadata, &spec, &files))
    };
    let hash = SpecHash::of(&bytes.unwrap_or_default());
    let compile = |name| compile_pipeline(&metadata.name, &spec, name, &files);
    let pipelines = spec.pipelines.keys().map(|name| (name.clone(), compile(name)));
    let pipelines = pipelines.collect();
    let name = metadata.name.clone();
    CompiledWorkflow { name, hash, line, body: Arc::new(WorkflowBody { metadata, spec, pipelines }) }
}

/// The files that travel with a workflow, of all that those of its file take.
fn travelling(spec: &WorkflowSpec, found: &[Travelling]) -> Vec<PipelineFile> {
    let Ok(globs) = Globs::new(&spec.files) else { return Vec::new() };
    let file = |found: &Travelling| match found.what {
        What::File { hash, size } if globs.matches(&found.path) => {
            Some(PipelineFile { path: found.path.clone(), hash, size, executable: found.executable })
        }
        // With these the file is broken.
        _ => None,
    };
    found.iter().filter_map(file).collect()
}

fn compile_pipeline(workflow: &Name, spec: &WorkflowSpec, name: &Name, files: &[PipelineFile]) -> CompiledPipeline {
    let pipeline = &spec.pipelines[name];
    let trigger = |name: &Name| -> Option<(Name, Trigger)> { Some((name.clone(), spec.triggers.get(name)?.clone())) };
    CompiledPipeline {
        key: PipelineKey { workflow: workflow.clone(), pipeline: name.clone() },
        suspend: spec.suspend || pipeline.suspend,
        env: spec.env.clone(),
        params: overlay(&spec.params, &pipeline.params),
        triggers: pipeline.triggers.0.iter().filter_map(trigger).collect(),
        spec: pipeline.clone(),
        files: files.to_vec(),
    }
}
