//! Which pipelines of a set of files are run, and which tasks of them.

use std::{collections::BTreeSet, sync::Arc};

use indexmap::IndexSet;
use xene_schemas::{
    connector::Names,
    meta::Name,
    pipeline::{CompiledPipeline, PipelineSpec},
};

use super::{
    Args,
    approve::{ALL, base},
};
use crate::{cli::Error, compile::LocatedWorkflow, decide::desired::WorkflowBody};

/// What is run, in this order.
#[derive(Debug)]
pub(super) struct Chosen {
    pub(super) pipelines: Vec<Arc<CompiledPipeline>>,
}

/// Chooses by `--workflow`, `--pipeline` and `--task`.
pub(super) fn select(args: &Args, workflows: &[LocatedWorkflow]) -> Result<Chosen, Error> {
    // A pipeline's name has no slash.
    let (of_pipeline, pipeline) = match args.pipeline.as_deref().map(|name| name.split_once('/').unwrap_or(("", name)))
    {
        Some(("", name)) => (None, Some(name)),
        Some((workflow, name)) => (Some(workflow), Some(name)),
        None => (None, None),
    };
    let workflow = workflow(args.workflow.as_deref().or(of_pipeline), workflows)?;
    if let (Some(one), Some(other)) = (args.workflow.as_deref(), of_pipeline)
        && one != other
    {
        return Err(Error::usage(format!("--workflow {one} and --pipeline {other}/… name two workflows")));
    }
    let names: Vec<&Name> = match pipeline {
        Some(name) => {
            let found = workflow.pipelines.get_key_value(name).map(|(name, _)| name);
            vec![found.ok_or_else(|| not_found("pipeline", name, workflow.spec.pipelines.keys()))?]
        }
        None => in_order(workflow),
    };
    let task = args.task.as_deref();
    let mut pipelines = Vec::new();
    for name in names {
        let compiled = &workflow.pipelines[name];
        match task {
            None => pipelines.push(Arc::new(compiled.clone())),
            Some(task) if compiled.spec.tasks.contains_key(task) => pipelines.push(Arc::new(only(compiled, task))),
            // Another pipeline may have it.
            Some(_) => {}
        }
    }
    match task {
        Some(task) if pipelines.is_empty() => {
            let known = workflow.pipelines.values().flat_map(|pipeline| pipeline.spec.tasks.keys());
            Err(not_found("task", task, known))
        }
        Some(task) if pipelines.len() > 1 => {
            let names: Vec<_> = pipelines.iter().map(|pipeline| pipeline.key.pipeline.as_str()).collect();
            Err(Error::usage_with_hint(
                format!("pipelines {} each have a task {task}", names.join(", ")),
                "choose one with --pipeline",
            ))
        }
        _ => Ok(Chosen { pipelines }),
    }
}

/// What `--approve` names, each of it a task of what is run, or all of them.
pub(super) fn approved(args: &Args, chosen: &Chosen) -> Result<Vec<String>, Error> {
    let tasks = || chosen.pipelines.iter().flat_map(|pipeline| pipeline.spec.tasks.keys());
    let absent = |name: &&String| *name != ALL && !tasks().any(|task| task.as_str() == base(name));
    match args.approve.iter().find(absent) {
        Some(name) => Err(not_found("task", name, tasks())),
        None => Ok(args.approve.clone()),
    }
}

fn workflow<'w>(name: Option<&str>, workflows: &'w [LocatedWorkflow]) -> Result<&'w WorkflowBody, Error> {
    let names = || workflows.iter().map(|workflow| &workflow.body.metadata.name);
    match (name, workflows) {
        (_, []) => Err(Error::usage_with_hint(
            "there is no workflow in these files",
            "a workflow begins with `apiVersion: xene/v1` and `kind: Workflow`",
        )),
        (None, [one]) => Ok(&one.body),
        (None, _) => {
            let names: Vec<_> = names().map(Name::as_str).collect();
            Err(Error::usage_with_hint(
                format!("there are {} workflows: {}", names.len(), names.join(", ")),
                "choose one with --workflow, or with --pipeline WORKFLOW/PIPELINE",
            ))
        }
        (Some(name), _) => match workflows.iter().find(|workflow| workflow.body.metadata.name.as_str() == name) {
            Some(workflow) => Ok(&workflow.body),
            None => Err(not_found("workflow", name, names())),
        },
    }
}

fn not_found<'n>(kind: &str, name: &str, known: impl Iterator<Item = &'n Name>) -> Error {
    // Pipelines may name their tasks alike.
    let known: Vec<_> = known.map(Name::as_str).collect::<IndexSet<_>>().into_iter().collect();
    Error::NotFound {
        message: format!("there is no {kind} {name} in these files"),
        hint: Some(format!("there is: {}", known.join(", "))),
    }
}

/// All pipelines, each after those that it comes after, otherwise in the order of the file. There is no cycle: the
/// compiler refuses one.
fn in_order(workflow: &WorkflowBody) -> Vec<&Name> {
    let pipelines = &workflow.spec.pipelines;
    let mut order: Vec<&Name> = Vec::new();
    while order.len() < pipelines.len() {
        let ready = |(name, pipeline): &(&Name, &PipelineSpec)| {
            !order.contains(name) && pipeline.after.0.iter().all(|before| order.contains(&before))
        };
        let Some((name, _)) = pipelines.iter().find(ready) else { break };
        order.push(name);
    }
    order
}

/// The pipeline with nothing but `task` and what it depends on.
fn only(pipeline: &CompiledPipeline, task: &str) -> CompiledPipeline {
    let mut pipeline = pipeline.clone();
    let spec = &mut pipeline.spec;
    let mut needed: BTreeSet<Name> = BTreeSet::new();
    let mut next: Vec<Name> = spec.tasks.get_key_value(task).map(|(name, _)| name.clone()).into_iter().collect();
    while let Some(name) = next.pop() {
        if !needed.insert(name.clone()) {
            continue;
        }
        next.extend(spec.tasks.get(&name).into_iter().flat_map(|task| task.dependencies.0.clone()));
        let leads_here = spec.connectors.iter().filter(|connector| connector.to.0.contains(&name));
        next.extend(leads_here.flat_map(|connector| connector.from.0.clone()));
    }
    let kept = |tasks: &Names| Names(tasks.0.iter().filter(|name| needed.contains(*name)).cloned().collect());
    spec.tasks =
        spec.tasks.iter().filter(|(name, _)| needed.contains(*name)).map(|(n, t)| (n.clone(), t.clone())).collect();
    spec.connectors = (spec.connectors.iter())
        .map(|connector| {
            let mut connector = connector.clone();
            (connector.from, connector.to) = (kept(&connector.from), kept(&connector.to));
            connector
        })
        .filter(|connector| !connector.from.0.is_empty() && !connector.to.0.is_empty())
        .collect();
    spec.finally = Default::default();
    pipeline
}
