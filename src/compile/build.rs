//! Documents → objects: workflows with their compiled pipelines and content hashes.

use std::sync::Arc;

use xene_schemas::{
    diagnostic::{Diagnostic, Severity},
    meta::{Name, PipelineKey, SpecHash},
    pipeline::CompiledPipeline,
    trigger::Trigger,
    workflow::{Workflow, WorkflowSpec},
};

use super::{Limits, cases::TestDocument, params::overlay, parse::parse};
use crate::decide::desired::WorkflowBody;

/// What one file gives.
#[derive(Debug)]
pub(super) struct CompiledFile {
    /// Its workflows; none if anything is wrong with it.
    pub(super) workflows: Vec<CompiledWorkflow>,
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

/// Compiles one file. A file counts whole or not at all: with an error anywhere in it, none of its workflows do.
pub(super) fn compile_file(path: &str, bytes: &[u8], limits: Limits) -> CompiledFile {
    let parsed = parse(path, bytes, limits);
    let (workflows, tests) = if is_broken(&parsed.problems) {
        (Vec::new(), Vec::new())
    } else {
        let compile = |(workflow, line)| compile_workflow(workflow, line);
        (parsed.workflows.into_iter().map(compile).collect(), parsed.tests)
    };
    CompiledFile { workflows, tests, ignored: parsed.ignored, problems: parsed.problems }
}

/// True if these problems keep a file from counting.
pub(super) fn is_broken(problems: &[Diagnostic]) -> bool {
    problems.iter().any(|problem| problem.severity == Severity::Error)
}

fn compile_workflow(workflow: Workflow, line: u32) -> CompiledWorkflow {
    let Workflow { metadata, spec, .. } = workflow;
    // In field order, so equal content gives equal bytes.
    let hash = SpecHash::of(&serde_json::to_vec(&(&metadata, &spec)).unwrap_or_default());
    let pipelines = spec.pipelines.keys().map(|name| (name.clone(), compile_pipeline(&metadata.name, &spec, name)));
    let pipelines = pipelines.collect();
    let name = metadata.name.clone();
    CompiledWorkflow { name, hash, line, body: Arc::new(WorkflowBody { metadata, spec, pipelines }) }
}

fn compile_pipeline(workflow: &Name, spec: &WorkflowSpec, name: &Name) -> CompiledPipeline {
    let pipeline = &spec.pipelines[name];
    let trigger = |name: &Name| -> Option<(Name, Trigger)> { Some((name.clone(), spec.triggers.get(name)?.clone())) };
    CompiledPipeline {
        key: PipelineKey { workflow: workflow.clone(), pipeline: name.clone() },
        suspend: spec.suspend || pipeline.suspend,
        env: spec.env.clone(),
        params: overlay(&spec.params, &pipeline.params),
        triggers: pipeline.triggers.0.iter().filter_map(trigger).collect(),
        spec: pipeline.clone(),
    }
}
