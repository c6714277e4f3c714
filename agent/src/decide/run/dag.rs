//! The DAG of a run: which tasks may start when one has settled, by counters, never by a look at all tasks.

use petgraph::{
    Direction,
    algo::toposort,
    graph::{DiGraph, NodeIndex},
    visit::EdgeRef,
};
use xene_schemas::{
    connector::{Connector, On},
    meta::Name,
    pipeline::PipelineSpec,
    task::Task,
};

use super::tasks::Tasks;
use crate::matrix::CONNECTORS;

/// How a task ended, as its connectors see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Success, or an Error that `allowFailure` tolerates: as with GitHub's `continue-on-error`, what follows such
    /// a task goes on as after a Success. Or skipped by its own `when`.
    Passed,
    /// Error.
    Failed,
    /// It never ran: what it waited for could not pass any more, or the run was being stopped.
    NotExecuted,
}

/// One connector between two tasks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Edge {
    on: On,
    /// Its place in `connectors`; a plain dependency has none.
    pub(super) connector: Option<usize>,
}

/// What joins the tasks of a run, by their places.
#[derive(Debug, Default)]
pub(super) struct Dag {
    graph: DiGraph<(), Edge, usize>,
    /// Connectors of each task that have not passed yet. A task of `finally` has one more: the end of all others.
    open: Vec<usize>,
}

impl Dag {
    /// Builds the graph, and says in a sentence why that can't be done: such a spec was never compiled.
    pub(super) fn build(spec: &PipelineSpec, tasks: &Tasks) -> Result<Self, String> {
        let mut graph = DiGraph::default();
        for _ in 0..tasks.len() {
            graph.add_node(());
        }
        let find = |name: &Name| tasks.of_name(name.as_str()).ok_or_else(|| format!("there is no task {name}"));
        let mut join = |from: usize, to: usize, edge: Edge| {
            let (from, to) = (tasks.members(from).0, tasks.members(to).0);
            if graph.edge_count() + from.len() * to.len() > CONNECTORS {
                return Err(format!("more than {CONNECTORS} connectors join the tasks, with all instances"));
            }
            for from in from {
                for to in to.clone() {
                    graph.add_edge(NodeIndex::new(from), NodeIndex::new(to), edge);
                }
            }
            Ok(())
        };
        for (to, (_, task)) in spec.tasks.iter().chain(&*spec.finally).enumerate() {
            for from in &task.dependencies.0 {
                join(find(from)?, to, Edge { on: On::Success, connector: None })?;
            }
        }
        for (index, connector) in spec.connectors.iter().enumerate() {
            for from in &connector.from.0 {
                for to in &connector.to.0 {
                    join(find(from)?, find(to)?, Edge { on: connector.on, connector: Some(index) })?;
                }
            }
        }
        let ordinary = tasks.ordinary();
        let ends = |node: NodeIndex<usize>| ordinary.contains(&node.index());
        if let Some(edge) = graph.edge_references().find(|edge| !ends(edge.source()) && ends(edge.target())) {
            return Err(format!("task {} waits for a task of finally", tasks.name(edge.target().index())));
        }
        if let Err(cycle) = toposort(&graph, None) {
            return Err(format!("task {} waits for itself", tasks.name(cycle.node_id().index())));
        }
        let open = graph.node_indices().map(|task| graph.edges_directed(task, Direction::Incoming).count());
        let open = open.enumerate().map(|(task, count)| count + usize::from(!ordinary.contains(&task))).collect();
        Ok(Self { graph, open })
    }

    /// True if nothing holds the task.
    pub(super) fn is_free(&self, task: usize) -> bool {
        self.open[task] == 0
    }

    /// One of the connectors that lead to a task has passed; or, for one of `finally`, all others have ended. True if
    /// nothing else holds it.
    pub(super) fn release(&mut self, task: usize) -> bool {
        self.open[task] -= 1;
        self.is_free(task)
    }

    /// The connectors that lead from a task, with the task they lead to, in the order of the file.
    pub(super) fn outgoing(&self, task: usize) -> Vec<(usize, Edge)> {
        let edges = self.graph.edges_directed(NodeIndex::new(task), Direction::Outgoing);
        let mut outgoing: Vec<_> = edges.map(|edge| (edge.target().index(), *edge.weight())).collect();
        outgoing.sort_by_key(|(to, edge)| (*to, edge.connector));
        outgoing
    }

    /// The tasks that a task waits for, each once, in the order of the file.
    pub(super) fn upstream(&self, task: usize) -> Vec<usize> {
        let mut from: Vec<usize> =
            self.graph.neighbors_directed(NodeIndex::new(task), Direction::Incoming).map(NodeIndex::index).collect();
        from.sort_unstable();
        from.dedup();
        from
    }

    /// The connectors of the list that lead to a task, with the task they come from, in the order of the file.
    pub(super) fn connectors<'a>(&self, task: usize, spec: &'a PipelineSpec) -> Vec<(usize, &'a Connector)> {
        let mut incoming: Vec<(usize, usize)> = self
            .graph
            .edges_directed(NodeIndex::new(task), Direction::Incoming)
            .filter_map(|edge| edge.weight().connector.map(|connector| (connector, edge.source().index())))
            .collect();
        incoming.sort_unstable();
        incoming.into_iter().map(|(connector, from)| (from, &spec.connectors[connector])).collect()
    }
}

impl Edge {
    /// The connector's place in the file, if it takes failures: of a matrix it asks whether any instance failed.
    pub(super) fn of_failures(self) -> Option<usize> {
        self.connector.filter(|_| self.on == On::Failure)
    }

    /// Whether this end passes it, or why not, said of the upstream task.
    pub(super) fn takes(self, outcome: Outcome) -> Result<(), &'static str> {
        let passes = match self.on {
            On::Success => outcome == Outcome::Passed,
            On::Failure => outcome == Outcome::Failed,
            On::Always => true,
        };
        match outcome {
            _ if passes => Ok(()),
            Outcome::Passed => Err("did not fail"),
            Outcome::Failed => Err("ended in Error"),
            Outcome::NotExecuted => Err("was not executed"),
        }
    }
}

/// What the language has and this version does not run yet. Compiling refuses it; to run a task in spite of its
/// `when`, or outside of its container, would be worse than not to run it.
pub(super) fn unsupported(spec: &PipelineSpec) -> Option<String> {
    use xene_schemas::executor::Executor;
    let container = |executor: &Option<Executor>| matches!(executor, Some(Executor::Container { .. }));
    let of_task = |task: &Task| container(&task.executor).then_some("the container executor");
    if container(&spec.executor) {
        return Some("this version does not run the container executor".into());
    }
    let mut tasks = spec.tasks.iter().chain(&*spec.finally);
    let (name, what) = tasks.find_map(|(name, task)| of_task(task).map(|what| (name, what)))?;
    Some(format!("task {name} uses {what}, which this version does not run"))
}
