//! Order: tasks and pipelines that wait for each other exist, and nothing waits for itself.

use std::collections::{HashMap, HashSet, VecDeque};

use petgraph::{
    algo::kosaraju_scc,
    graph::{DiGraph, NodeIndex},
};
use xene_schemas::{
    connector::{Connector, Names, On},
    map::UniqueMap,
    meta::Name,
    pipeline::PipelineSpec,
    workflow::WorkflowSpec,
};

use super::{Path, Report, Rule, each_pipeline, suggest};

pub(super) const UNKNOWN_TASK: Rule = rule!(Error "XE0040", "unknown task", "name a task of this pipeline");
pub(super) const TASK_CYCLE: Rule = rule!(Error "XE0041", "tasks wait for each other", "take one of these arrows out");
pub(super) const FINALLY_JOINED: Rule = rule!(
    Error "XE0042", "task of finally joined to others",
    "take it out: `when` of a task of `finally` can look at how the others ended"
);
pub(super) const UNKNOWN_PIPELINE: Rule = rule!(Error "XE0043", "unknown pipeline", "name a pipeline of this workflow");
pub(super) const PIPELINE_CYCLE: Rule =
    rule!(Error "XE0044", "pipelines wait for each other", "take one of these arrows out");

pub(super) const CANCELLED_HANDLER: Rule =
    rule!(Warning "XE0045", "handler that failFast cancels", "put it into `finally`, or take `failFast` out");

/// What follows a failure, where a failure cancels all that has not ended.
pub(super) fn check_handlers(spec: &WorkflowSpec, report: &mut Report) {
    each_pipeline(spec, |at, _, pipeline| {
        if !pipeline.fail_fast {
            return;
        }
        // A failure that is allowed cancels nothing.
        let fatal = |name: &&Name| pipeline.tasks.get(*name).is_some_and(|task| !task.allow_failure);
        let connectors = at.key("connectors");
        for (index, connector) in pipeline.connectors.iter().enumerate() {
            let Some(from) = connector.from.0.iter().find(fatal).filter(|_| connector.on != On::Success) else {
                continue;
            };
            let message = format!("if `{from}` fails, `failFast` cancels what follows it, too");
            let hint = "put it into `finally`, with a `when` that looks at how the task ended, or take `failFast` out";
            let at = connectors.index(index);
            report.add(&CANCELLED_HANDLER, &at.key("on"), message).hint(hint.to_owned());
        }
    });
}

pub(super) fn check(spec: &WorkflowSpec, report: &mut Report) {
    check_after(report, spec);
    each_pipeline(spec, |at, _, pipeline| {
        check_names(report, at, pipeline);
        let tasks = Tasks::of(pipeline);
        for cycle in cycles(&tasks.graph) {
            if let [alone] = cycle[..] {
                check_alone(report, at, pipeline, alone);
                continue;
            }
            let at = at.key("tasks");
            let message = format!("these tasks wait for each other: {}", round(&cycle));
            report.add(&TASK_CYCLE, &at.key(cycle[0]), message).at_key().hint(TAKE_OUT.to_owned());
        }
    });
}

/// How a cycle is mended.
const TAKE_OUT: &str = "take one of these arrows out";

/// A task that waits for itself, told where that is written.
fn check_alone(report: &mut Report, at: &Path<'_>, pipeline: &PipelineSpec, name: &str) {
    let message = format!("task `{name}` waits for itself");
    let hint = "take it out, or name another task".to_owned();
    let names_it = |names: &Names| names.0.iter().any(|other| other.as_str() == name);
    let depends = pipeline.tasks.get(name).is_some_and(|task| names_it(&task.dependencies));
    let by_itself = |connector: &Connector| names_it(&connector.from) && names_it(&connector.to);
    match pipeline.connectors.iter().position(by_itself).filter(|_| !depends) {
        Some(index) => report.add(&TASK_CYCLE, &at.key("connectors").index(index), message).hint(hint),
        None => report.add(&TASK_CYCLE, &at.key("tasks").key(name), message).at_key().hint(hint),
    };
}

/// `after` of pipelines.
fn check_after(report: &mut Report, spec: &WorkflowSpec) {
    let mut graph = DiGraph::new();
    let nodes: HashMap<&str, NodeIndex> =
        spec.pipelines.keys().map(|name| (name.as_str(), graph.add_node(name.as_str()))).collect();
    each_pipeline(spec, |at, name, pipeline| {
        let at = at.key("after");
        for (index, before) in pipeline.after.0.iter().enumerate() {
            if let Some(before) = nodes.get(before.as_str()) {
                graph.update_edge(*before, nodes[name.as_str()], ());
            } else {
                let message = format!("this workflow has no pipeline `{before}`");
                let hint = suggest(before.as_str(), spec.pipelines.keys().map(Name::as_str));
                report.add(&UNKNOWN_PIPELINE, &at.index(index), message).hint(hint);
            }
        }
    });
    for cycle in cycles(&graph) {
        let root = Path::ROOT.key("spec");
        let pipelines = root.key("pipelines");
        let message = match cycle[..] {
            [alone] => format!("pipeline `{alone}` waits for itself"),
            _ => format!("these pipelines wait for each other: {}", round(&cycle)),
        };
        report.add(&PIPELINE_CYCLE, &pipelines.key(cycle[0]), message).at_key().hint(TAKE_OUT.to_owned());
    }
}

/// Every name in `dependencies` and connectors.
fn check_names(report: &mut Report, at: &Path<'_>, pipeline: &PipelineSpec) {
    let tasks = at.key("tasks");
    for (name, task) in &pipeline.tasks {
        let at = tasks.key(name.as_str());
        let at = at.key("dependencies");
        for (index, before) in task.dependencies.0.iter().enumerate() {
            check_name(report, &at.index(index), pipeline, before);
        }
    }
    let finally = at.key("finally");
    for (name, task) in &pipeline.finally {
        if !task.dependencies.0.is_empty() {
            let message = "tasks of `finally` wait for all others, and not for each other";
            let at = finally.key(name.as_str());
            report.add(&FINALLY_JOINED, &at.key("dependencies"), message).at_key();
        }
    }
    let connectors = at.key("connectors");
    for (index, connector) in pipeline.connectors.iter().enumerate() {
        let at = connectors.index(index);
        for (names, field) in [(&connector.from, "from"), (&connector.to, "to")] {
            let at = at.key(field);
            if names.0.is_empty() {
                report.add(&UNKNOWN_TASK, &at, format!("`{field}` names no task")).at_key();
            }
            for (index, name) in names.0.iter().enumerate() {
                check_name(report, &at.index(index), pipeline, name);
            }
        }
    }
}

fn check_name(report: &mut Report, at: &Path<'_>, pipeline: &PipelineSpec, name: &Name) {
    if pipeline.tasks.contains_key(name) {
        return;
    }
    if pipeline.finally.contains_key(name) {
        let message = format!("task `{name}` is of `finally`, which runs after all others: nothing joins it");
        report.add(&FINALLY_JOINED, at, message);
        return;
    }
    let hint = suggest(name.as_str(), pipeline.tasks.keys().map(Name::as_str));
    report.add(&UNKNOWN_TASK, at, format!("this pipeline has no task `{name}`")).hint(hint);
}

/// The tasks of a pipeline, and what joins them; unknown names are left out.
pub(super) struct Tasks<'p> {
    graph: DiGraph<&'p str, On>,
    nodes: HashMap<&'p str, NodeIndex>,
}

impl<'p> Tasks<'p> {
    pub(super) fn of(pipeline: &'p PipelineSpec) -> Self {
        let mut graph = DiGraph::new();
        let names: &UniqueMap<Name, _> = &pipeline.tasks;
        let nodes: HashMap<&str, NodeIndex> =
            names.keys().map(|name| (name.as_str(), graph.add_node(name.as_str()))).collect();
        let mut join = |from: &Name, to: &Name, on| {
            if let (Some(from), Some(to)) = (nodes.get(from.as_str()), nodes.get(to.as_str())) {
                graph.add_edge(*from, *to, on);
            }
        };
        for (name, task) in &pipeline.tasks {
            task.dependencies.0.iter().for_each(|before| join(before, name, On::Success));
        }
        for connector in &pipeline.connectors {
            for from in &connector.from.0 {
                connector.to.0.iter().for_each(|to| join(from, to, connector.on));
            }
        }
        Self { graph, nodes }
    }

    /// How sure it is that `before` has ended when `task` starts: `None` if it is not,
    /// `Some(true)` if it has ended in Success, `Some(false)` if it may also have failed or not run.
    pub(super) fn precedes(&self, before: &str, task: &str) -> Option<bool> {
        let (from, to) = (*self.nodes.get(before)?, *self.nodes.get(task)?);
        // A state is a task, and whether only Success was met on the way back to it.
        let mut seen = [vec![false; self.graph.node_count()], vec![false; self.graph.node_count()]];
        let mut queue = VecDeque::from([(to, true)]);
        while let Some((node, sure)) = queue.pop_front() {
            let edges = self.graph.edges_directed(node, petgraph::Direction::Incoming);
            for edge in edges {
                use petgraph::visit::EdgeRef;
                let next = (edge.source(), sure && *edge.weight() == On::Success);
                if !std::mem::replace(&mut seen[usize::from(next.1)][next.0.index()], true) {
                    queue.push_back(next);
                }
            }
        }
        let reached = |sure: bool| seen[usize::from(sure)][from.index()];
        if reached(true) { Some(true) } else { reached(false).then_some(false) }
    }
}

/// One whole cycle of each part of the graph in which all wait for all, from the node that is declared first on.
///
/// Neither algorithm recurses: a file may declare a chain of thousands.
fn cycles<'n, E>(graph: &DiGraph<&'n str, E>) -> Vec<Vec<&'n str>> {
    let mut parts: Vec<Vec<NodeIndex>> = kosaraju_scc(graph)
        .into_iter()
        .filter(|nodes| nodes.len() > 1 || graph.contains_edge(nodes[0], nodes[0]))
        .collect();
    parts.iter_mut().for_each(|nodes| nodes.sort());
    parts.sort();
    parts.iter().filter_map(|nodes| cycle_within(graph, nodes)).collect()
}

/// The shortest way from the first of these nodes back to it.
fn cycle_within<'n, E>(graph: &DiGraph<&'n str, E>, nodes: &[NodeIndex]) -> Option<Vec<&'n str>> {
    let start = *nodes.first()?;
    let inside: HashSet<NodeIndex> = nodes.iter().copied().collect();
    let mut came_from: HashMap<NodeIndex, NodeIndex> = HashMap::new();
    let mut queue = VecDeque::from([start]);
    while let Some(node) = queue.pop_front() {
        let mut next: Vec<NodeIndex> = graph.neighbors(node).filter(|next| inside.contains(next)).collect();
        next.sort();
        for next in next {
            if next == start {
                let mut way = vec![graph[node]];
                let mut at = node;
                while at != start {
                    at = came_from[&at];
                    way.push(graph[at]);
                }
                way.reverse();
                return Some(way);
            }
            if let std::collections::hash_map::Entry::Vacant(vacant) = came_from.entry(next) {
                vacant.insert(node);
                queue.push_back(next);
            }
        }
    }
    None
}

fn round(cycle: &[&str]) -> String {
    format!("{} → {}", cycle.join(" → "), cycle[0])
}
