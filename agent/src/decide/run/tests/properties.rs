//! Random pipelines and random worlds, against brute force and against the machine's promises.

use proptest::prelude::*;
use xene_schemas::{
    connector::{Connector, Names, On},
    meta::Name,
};

use super::*;

#[derive(Debug, Clone)]
struct RandomDag {
    /// From an earlier task to a later one.
    edges: Vec<(usize, usize, On)>,
    /// Whether each task succeeds, and whether its failure is tolerated.
    tasks: Vec<(bool, bool)>,
    /// Which of the processes that run ends next.
    order: Vec<usize>,
}

fn name(task: usize) -> Name {
    format!("t{task}").parse().unwrap()
}

fn on() -> impl Strategy<Value = On> {
    prop_oneof![3 => Just(On::Success), 2 => Just(On::Failure), 2 => Just(On::Always)]
}

fn random_dag() -> impl Strategy<Value = RandomDag> {
    (2usize..9).prop_flat_map(|count| {
        let edge = (0..count, 0..count, on())
            .prop_filter_map("an edge joins two", |(a, b, on)| (a != b).then(|| (a.min(b), a.max(b), on)));
        (
            proptest::collection::vec(edge, 0..count * 2),
            proptest::collection::vec((proptest::bool::weighted(0.6), proptest::bool::weighted(0.2)), count),
            proptest::collection::vec(any::<usize>(), count),
        )
            .prop_map(|(edges, tasks, order)| RandomDag { edges, tasks, order })
    })
}

impl RandomDag {
    fn pipeline(&self) -> CompiledPipeline {
        let tasks: serde_json::Map<String, Value> = (self.tasks.iter().enumerate())
            .map(|(i, (_, tolerated))| (name(i).to_string(), json!({"steps": ["x"], "allowFailure": tolerated})))
            .collect();
        let mut spec: PipelineSpec = serde_json::from_value(json!({ "tasks": tasks })).unwrap();
        spec.connectors = (self.edges.iter())
            .map(|(from, to, on)| Connector {
                from: Names(vec![name(*from)]),
                to: Names(vec![name(*to)]),
                on: *on,
                when: None,
                outputs: Default::default(),
                approval: None,
            })
            .collect();
        compiled(spec)
    }

    /// Where every task must be, given those that have run to their end: `Some(end)` for one that has ended or
    /// never will run, else whether it is to run.
    fn brute_force(&self, ran: &BTreeSet<usize>) -> Vec<(Option<&'static str>, bool)> {
        let mut known: Vec<(Option<&'static str>, bool)> = Vec::new();
        for task in 0..self.tasks.len() {
            let connectors: Vec<Option<bool>> = (self.edges.iter())
                .filter(|(_, to, _)| *to == task)
                .map(|(from, _, on)| {
                    let success = |end: &str| end == "Success" || (end == "Error" && self.tasks[*from].1);
                    known[*from].0.map(|end| match on {
                        On::Success => success(end),
                        On::Failure => end == "Error" && !success(end),
                        On::Always => true,
                    })
                })
                .collect();
            known.push(if connectors.contains(&Some(false)) {
                (Some("NotExecuted"), false)
            } else if ran.contains(&task) {
                (Some(if self.tasks[task].0 { "Success" } else { "Error" }), false)
            } else {
                (None, connectors.iter().all(|passed| *passed == Some(true)))
            });
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
        let mut ran = BTreeSet::new();
        for choice in dag.order.iter().cycle() {
            let expected = dag.brute_force(&ran);
            for (task, (end, runs)) in expected.iter().enumerate() {
                let task = name(task).to_string();
                let phase = match (end, runs) {
                    (Some(end), _) => *end,
                    (None, true) => "Running",
                    (None, false) => "NotExecuted",
                };
                prop_assert_eq!(sim.record.status.tasks[&task].phase.as_str(), phase, "{} after {:?}", task, ran);
                prop_assert_eq!(sim.processes.keys().any(|id| id.task == task), *runs);
            }
            let Some(id) = sim.processes.keys().nth(choice % sim.processes.len().max(1)).cloned() else { break };
            let task: usize = id.task[1..].parse().unwrap();
            sim.end(id, ExitStatus::Code(i32::from(!dag.tasks[task].0)), &[]);
            ran.insert(task);
        }
        prop_assert!(sim.machine.is_ended());
        let failed = ran.iter().any(|task| dag.tasks[*task] == (false, false));
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
