//! Random pipelines and random worlds, against brute force and against the machine's promises.

use proptest::prelude::*;
use xene_schemas::{
    connector::{Connector, Names, On},
    meta::Name,
};

use super::*;

#[derive(Debug, Clone)]
struct RandomDag {
    edges: Vec<RandomEdge>,
    tasks: Vec<RandomTask>,
    /// Which of the processes that run, or of the tasks that ask for approval, is next.
    order: Vec<usize>,
}

#[derive(Debug, Clone)]
struct RandomTask {
    succeeds: bool,
    tolerated: bool,
    /// What its `when` says.
    when: Option<bool>,
    /// What people say, if they are asked.
    approved: bool,
    /// Instances of its matrix; without one 0.
    instances: usize,
}

/// From an earlier task to a later one.
#[derive(Debug, Clone)]
struct RandomEdge {
    from: usize,
    to: usize,
    on: On,
    when: Option<bool>,
    approval: bool,
}

/// Where an instance must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Waiting,
    Asking,
    Running,
    Success,
    Error,
    Skipped,
    Rejected,
    Blocked,
}

fn name(task: usize) -> Name {
    format!("t{task}").parse().unwrap()
}

fn on() -> impl Strategy<Value = On> {
    prop_oneof![3 => Just(On::Success), 2 => Just(On::Failure), 2 => Just(On::Always)]
}

/// Mostly absent.
fn condition() -> impl Strategy<Value = Option<bool>> {
    prop_oneof![4 => Just(None), 1 => Just(Some(true)), 1 => Just(Some(false))]
}

fn random_dag_task() -> impl Strategy<Value = RandomTask> {
    use proptest::bool::weighted;
    (weighted(0.6), weighted(0.2), condition(), weighted(0.7), prop_oneof![3 => Just(0), 1 => 1_usize..4]).prop_map(
        |(succeeds, tolerated, when, approved, instances)| RandomTask {
            succeeds,
            tolerated,
            when,
            approved,
            instances,
        },
    )
}

fn random_dag() -> impl Strategy<Value = RandomDag> {
    use proptest::bool::weighted;
    (2usize..9).prop_flat_map(|count| {
        let edge = (0..count, 0..count, on(), condition(), weighted(0.2)).prop_filter_map(
            "an edge joins two",
            |(a, b, on, when, approval)| {
                (a != b).then(|| RandomEdge { from: a.min(b), to: a.max(b), on, when, approval })
            },
        );
        (
            proptest::collection::vec(edge, 0..count * 2),
            proptest::collection::vec(random_dag_task(), count),
            proptest::collection::vec(any::<usize>(), count),
        )
            .prop_map(|(edges, tasks, order)| RandomDag { edges, tasks, order })
    })
}

impl RandomDag {
    fn pipeline(&self) -> CompiledPipeline {
        let when = |when: Option<bool>| when.map(|truth| truth.to_string());
        let tasks: serde_json::Map<String, Value> = (self.tasks.iter().enumerate())
            .map(|(i, task)| {
                let values: Vec<usize> = (0..task.instances).collect();
                let matrix = (task.instances > 0).then(|| json!({"k": values}));
                let task = json!({
                    "steps": ["x"], "allowFailure": task.tolerated, "when": when(task.when), "matrix": matrix,
                });
                (name(i).to_string(), task)
            })
            .collect();
        let mut spec: PipelineSpec = serde_json::from_value(json!({ "tasks": tasks })).unwrap();
        spec.connectors = (self.edges.iter())
            .map(|edge| Connector {
                from: Names(vec![name(edge.from)]),
                to: Names(vec![name(edge.to)]),
                on: edge.on,
                when: when(edge.when),
                outputs: Default::default(),
                approval: edge.approval.then(|| serde_json::from_str("{}").unwrap()),
            })
            .collect();
        compiled(spec)
    }

    fn instances(&self, task: usize) -> Vec<String> {
        match self.tasks[task].instances {
            0 => vec![format!("t{task}")],
            count => (0..count).map(|k| format!("t{task}[k={k}]")).collect(),
        }
    }

    /// Where everything must be, given those that have run to their end and those that were decided on.
    fn brute_force(&self, ran: &BTreeSet<String>, decided: &BTreeSet<String>) -> BTreeMap<String, Place> {
        let mut known: BTreeMap<String, Place> = BTreeMap::new();
        for (index, task) in self.tasks.iter().enumerate() {
            let incoming = || self.edges.iter().filter(|edge| edge.to == index);
            let connectors = incoming().flat_map(|edge| {
                let each = self.instances(edge.from).into_iter().map(|from| {
                    let good = match known[&from] {
                        Place::Success | Place::Skipped => Some(true),
                        Place::Error => Some(self.tasks[edge.from].tolerated),
                        Place::Rejected | Place::Blocked => None,
                        Place::Waiting | Place::Asking | Place::Running => return None,
                    };
                    let passes = match edge.on {
                        On::Success => good == Some(true),
                        On::Failure => good == Some(false),
                        On::Always => true,
                    };
                    Some(passes && edge.when != Some(false))
                });
                let each: Vec<Option<bool>> = each.collect();
                match edge.on {
                    // Of several instances one that failed is enough, once all have ended.
                    On::Failure if each.contains(&None) => vec![None],
                    On::Failure => vec![Some(each.contains(&Some(true)))],
                    On::Success | On::Always => each,
                }
            });
            let connectors: Vec<Option<bool>> = connectors.collect();
            let asked = incoming().any(|edge| edge.approval);
            for instance in self.instances(index) {
                let place = if connectors.contains(&Some(false)) {
                    Place::Blocked
                } else if connectors.contains(&None) {
                    Place::Waiting
                } else if task.when == Some(false) {
                    Place::Skipped
                } else if asked && !decided.contains(&instance) {
                    Place::Asking
                } else if asked && !task.approved {
                    Place::Rejected
                } else if !ran.contains(&instance) {
                    Place::Running
                } else if task.succeeds {
                    Place::Success
                } else {
                    Place::Error
                };
                known.insert(instance, place);
            }
        }
        known
    }
}

/// Random choices: first those that the test can shrink, then any, without end.
struct Choices(std::vec::IntoIter<u8>, u64);

impl Choices {
    fn of(&mut self, count: usize) -> usize {
        self.1 = self.1.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0.next().map_or((self.1 >> 33) as usize, usize::from) % count
    }
}

fn random_task(choices: &mut Choices, earlier: &[String]) -> Value {
    let retry = |choices: &mut Choices| match choices.of(3) {
        0 => json!({"attempts": 1 + choices.of(2), "delay": format!("{}s", choices.of(4))}),
        1 => json!({"attempts": 2, "onExitCodes": [1]}),
        _ => Value::Null,
    };
    let timeout = |choices: &mut Choices| match choices.of(3) {
        0 => json!(format!("{}s", 1 + choices.of(20))),
        _ => Value::Null,
    };
    let steps: Vec<Value> = (0..1 + choices.of(3))
        .map(|_| {
            json!({
                "run": "x", "allowFailure": choices.of(5) == 0, "retry": retry(choices), "timeout": timeout(choices),
                "env": if choices.of(12) == 0 { json!({"S": {"secret": "a/b"}}) } else { json!({}) },
            })
        })
        .collect();
    let dependencies: Vec<&String> = earlier.iter().filter(|_| choices.of(3) == 0).collect();
    json!({
        "steps": steps, "allowFailure": choices.of(5) == 0, "retry": retry(choices), "timeout": timeout(choices),
        "dependencies": dependencies, "gracePeriod": format!("{}s", choices.of(4)),
        "when": match choices.of(12) { 0 => json!("false"), 1 => json!("tasks.size() / 0 == 1"), _ => Value::Null },
        "matrix": match choices.of(6) { 0 => json!({"k": [1, 2, 3], "maxParallel": 1 + choices.of(3)}), _ => Value::Null },
    })
}

fn random_tasks(choices: &mut Choices, prefix: &str, count: usize) -> Value {
    let mut names: Vec<String> = Vec::new();
    let mut tasks = serde_json::Map::new();
    for i in 0..count {
        let task = random_task(choices, &names);
        names.push(format!("{prefix}{i}"));
        tasks.insert(format!("{prefix}{i}"), task);
    }
    Value::Object(tasks)
}

proptest! {
    #[test]
    fn readiness_agrees_with_brute_force(dag in random_dag()) {
        let mut sim = Sim::started(dag.pipeline());
        let (mut ran, mut decided) = (BTreeSet::new(), BTreeSet::new());
        for choice in dag.order.iter().cycle() {
            let expected = dag.brute_force(&ran, &decided);
            for (task, place) in &expected {
                let shown = match place {
                    Place::Waiting => "NotExecuted",
                    Place::Asking => "NotExecuted WaitingForApproval",
                    Place::Running => "Running",
                    Place::Success => "Success",
                    Place::Error => "Error StepFailed",
                    Place::Skipped => "NotExecuted Skipped",
                    Place::Rejected => "NotExecuted Rejected",
                    Place::Blocked => "NotExecuted UpstreamFailed",
                };
                prop_assert_eq!(&sim.task(task), shown, "{} after {:?} and {:?}", task, ran, decided);
                let runs = sim.processes.keys().any(|id| id.task == *task);
                prop_assert_eq!(runs, *place == Place::Running);
            }
            let open: Vec<(&String, &Place)> =
                expected.iter().filter(|(_, place)| matches!(place, Place::Running | Place::Asking)).collect();
            let Some((task, place)) = open.get(choice % open.len().max(1)) else { break };
            let index: usize = task[1..].split('[').next().unwrap().parse().unwrap();
            if **place == Place::Asking {
                sim.decide(task, dag.tasks[index].approved);
                decided.insert((*task).clone());
            } else {
                sim.exit(task, i32::from(!dag.tasks[index].succeeds));
                ran.insert((*task).clone());
            }
        }
        prop_assert!(sim.machine.is_ended());
        let index = |task: &String| task[1..].split('[').next().unwrap().parse::<usize>().unwrap();
        let of = |task: &String| &dag.tasks[index(task)];
        let failed = ran.iter().map(of).any(|task| !task.succeeds && !task.tolerated)
            || decided.iter().map(of).any(|task| !task.approved && !task.tolerated);
        prop_assert_eq!(sim.record.status.phase == RunPhase::Error, failed);
    }

    #[test]
    fn every_run_ends_once_with_all_slots_returned(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let mut choices = Choices(bytes.into_iter(), 1);
        let (tasks, finally) = (choices.of(6), choices.of(3));
        let spec = json!({
            "failFast": choices.of(3) == 0, "timeout": format!("{}s", 20 + choices.of(200)), "finallyTimeout": "15s",
            "tasks": random_tasks(&mut choices, "t", tasks), "finally": random_tasks(&mut choices, "f", finally),
        });
        let mut sim = Sim::new(pipeline(spec));
        sim.free = false;
        let (mut cancels, mut killed) = (0, BTreeSet::new());
        if choices.of(40) != 0 {
            sim.input(Input::Start);
        } else {
            sim.input(Input::Cancel("before it began".into()));
        }
        for turn in 0.. {
            // Sim checks every output; here only that the end comes, in time.
            if sim.machine.is_ended() {
                break;
            }
            prop_assert!(turn < 5_000, "no end in sight");
            for line in sim.lines() {
                killed.extend(line.strip_prefix("Kill ").map(ToOwned::to_owned));
            }
            match choices.of(8) {
                0 | 1 if sim.holding.len() < 3 => { sim.grant(); }
                2 if cancels < 3 && choices.of(8) == 0 => {
                    cancels += 1;
                    sim.input(Input::Cancel(format!("cancel {cancels}")));
                }
                3..=5 if !sim.processes.is_empty() => {
                    let at = choices.of(sim.processes.len());
                    let id = sim.processes.keys().nth(at).cloned().unwrap();
                    let code = [0, 0, 0, 1, 2][choices.of(5)];
                    sim.end(id, ExitStatus::Code(code), &[("n", "v")]);
                }
                _ => {
                    sim.pass(Duration::from_millis(500 * choices.of(6) as u64 + 1));
                    // What was killed is gone.
                    let dead: Vec<StepId> = (sim.processes.keys())
                        .filter(|id| killed.contains(&format!("{}.{} ({}.{})", id.task, id.step, id.attempt, id.step_attempt)))
                        .cloned()
                        .collect();
                    for id in dead {
                        sim.end(id, ExitStatus::Signal(9), &[]);
                    }
                }
            }
        }
        let status = &sim.record.status;
        if cancels > 0 && status.reason == Some(Reason::CANCELLED) {
            prop_assert_eq!(status.message.as_deref(), Some("cancel 1"));
        }
        let failed = |name: &&String| {
            let task = &status.tasks[*name];
            task.phase == TaskPhase::Error
        };
        let tolerated = status.warnings as usize;
        if status.phase == RunPhase::Success {
            prop_assert_eq!(status.tasks.keys().filter(failed).count(), tolerated);
            prop_assert_eq!(cancels, 0);
        } else {
            prop_assert!(status.reason.is_some() && status.message.is_some());
        }
    }
}
