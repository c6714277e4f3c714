//! The DAG of a run: which tasks may start when one has settled, by counters, never by a look at all tasks.

use indexmap::IndexSet;
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

/// How a task ended, as its connectors see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Success, or an Error that `allowFailure` tolerates: as with GitHub's `continue-on-error`, what follows such
    /// a task goes on as after a Success.
    Passed,
    /// Error.
    Failed,
    /// It never ran: what it waited for could not pass any more, or the run was being stopped.
    NotExecuted,
}

/// What a settled task means for one that waits for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Consequence {
    /// All of its connectors have passed.
    Ready,
    /// One can't pass any more; a sentence names the upstream.
    Blocked(String),
}

/// One connector between two tasks.
#[derive(Debug, Clone, Copy)]
struct Edge {
    on: On,
    /// Its place in `connectors`; a plain dependency has none.
    connector: Option<usize>,
}

/// Tasks by their place in the file, those of `finally` last.
#[derive(Debug, Default)]
pub(super) struct Dag {
    graph: DiGraph<(), Edge, usize>,
    names: IndexSet<Name>,
    /// Connectors of each task that have not passed yet. A task of `finally` has one more: the end of all others.
    open: Vec<usize>,
}

impl Dag {
    /// Builds the graph, and says in a sentence why that can't be done: such a spec was never compiled.
    pub(super) fn build(spec: &PipelineSpec) -> Result<Self, String> {
        let mut names = IndexSet::new();
        let mut graph = DiGraph::default();
        for name in spec.tasks.keys().chain(spec.finally.keys()) {
            graph.add_node(());
            if !names.insert(name.clone()) {
                return Err(format!("task {name} is in both tasks and finally"));
            }
        }
        let find = |name: &Name| match names.get_index_of(name.as_str()) {
            Some(index) => Ok(NodeIndex::new(index)),
            None => Err(format!("there is no task {name}")),
        };
        for (to, task) in spec.tasks.iter().chain(&*spec.finally) {
            for from in &task.dependencies.0 {
                graph.add_edge(find(from)?, find(to)?, Edge { on: On::Success, connector: None });
            }
        }
        for (index, connector) in spec.connectors.iter().enumerate() {
            for from in &connector.from.0 {
                for to in &connector.to.0 {
                    graph.add_edge(find(from)?, find(to)?, Edge { on: connector.on, connector: Some(index) });
                }
            }
        }
        let tasks = spec.tasks.len();
        if let Some(edge) = graph.edge_references().find(|e| e.source().index() >= tasks && e.target().index() < tasks)
        {
            return Err(format!("task {} waits for a task of finally", names[edge.target().index()]));
        }
        if let Err(cycle) = toposort(&graph, None) {
            return Err(format!("task {} waits for itself", names[cycle.node_id().index()]));
        }
        let open = graph.node_indices().map(|task| graph.edges_directed(task, Direction::Incoming).count());
        let open = open.enumerate().map(|(task, count)| count + usize::from(task >= tasks)).collect();
        Ok(Self { graph, names, open })
    }

    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    pub(super) fn name(&self, task: usize) -> &Name {
        &self.names[task]
    }

    pub(super) fn find(&self, name: &str) -> Option<usize> {
        self.names.get_index_of(name)
    }

    /// True if nothing holds the task.
    pub(super) fn is_free(&self, task: usize) -> bool {
        self.open[task] == 0
    }

    /// All tasks but those of `finally` have ended: true if nothing else holds this one.
    pub(super) fn release(&mut self, task: usize) -> bool {
        self.open[task] -= 1;
        self.is_free(task)
    }

    /// Settles a task's outgoing connectors; to be called once for each task. Tasks in the order of the file.
    pub(super) fn settle(&mut self, task: usize, outcome: Outcome) -> Vec<(usize, Consequence)> {
        let mut consequences = Vec::new();
        for edge in self.graph.edges_directed(NodeIndex::new(task), Direction::Outgoing) {
            let to = edge.target().index();
            if passes(edge.weight().on, outcome) {
                self.open[to] -= 1;
                if self.open[to] == 0 {
                    consequences.push((to, Consequence::Ready));
                }
            } else {
                let how = match outcome {
                    Outcome::Passed => "did not fail",
                    Outcome::Failed => "ended in Error",
                    Outcome::NotExecuted => "was not executed",
                };
                consequences.push((to, Consequence::Blocked(format!("upstream task {} {how}", self.names[task]))));
            }
        }
        consequences.sort_by_key(|(to, _)| *to);
        consequences
    }

    /// The tasks that a task waits for, each once, in the order of the file.
    pub(super) fn upstream(&self, task: usize) -> Vec<String> {
        let mut from: Vec<usize> =
            self.graph.neighbors_directed(NodeIndex::new(task), Direction::Incoming).map(NodeIndex::index).collect();
        from.sort_unstable();
        from.dedup();
        from.into_iter().map(|task| self.names[task].to_string()).collect()
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

fn passes(on: On, outcome: Outcome) -> bool {
    match on {
        On::Success => outcome == Outcome::Passed,
        On::Failure => outcome == Outcome::Failed,
        On::Always => true,
    }
}

/// What the language has and this version does not run yet. Compiling refuses it; to run a task in spite of its
/// `when`, or outside of its container, would be worse than not to run it.
pub(super) fn unsupported(spec: &PipelineSpec) -> Option<String> {
    use xene_schemas::executor::Executor;
    let container = |executor: &Option<Executor>| matches!(executor, Some(Executor::Container { .. }));
    let of_task = |task: &Task| {
        [
            (task.when.is_some() || task.steps.iter().any(|step| step.when.is_some()), "when"),
            (task.matrix.is_some(), "matrix"),
            (container(&task.executor), "the container executor"),
        ]
        .into_iter()
        .find_map(|(used, what)| used.then_some(what))
    };
    if container(&spec.executor) {
        return Some("this version does not run the container executor".into());
    }
    let mut tasks = spec.tasks.iter().chain(&*spec.finally);
    if let Some((name, what)) = tasks.find_map(|(name, task)| of_task(task).map(|what| (name, what))) {
        return Some(format!("task {name} uses {what}, which this version does not run"));
    }
    let held = spec.connectors.iter().any(|connector| connector.when.is_some() || connector.approval.is_some());
    held.then(|| "a connector uses when or approval, which this version does not run".into())
}
