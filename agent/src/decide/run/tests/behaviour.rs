//! One rule of the language each.

use xene_schemas::phase::StepPhase;

use super::*;
use crate::decide::event::{OutputsError, Program};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn tasks_follow_their_dependencies_in_the_order_of_the_file() {
    let mut sim = Sim::started(tasks(json!({
        "z": {"steps": ["one", "two"]},
        "a": {"steps": ["x"]},
        "m": {"dependencies": ["a", "z"], "steps": ["x"]},
    })));
    assert_eq!(
        sim.lines(),
        [
            "started",
            "z asks",
            "a asks",
            "z started, attempt 1",
            "z.0 started",
            "spawn z.0 (1.1)",
            "a started, attempt 1",
            "a.0 started",
            "spawn a.0 (1.1)"
        ]
    );
    sim.exit("a", 0);
    sim.exit("z", 0);
    assert_eq!(sim.lines(), ["a.0 Success", "a returns", "a Success", "z.0 Success", "z.1 started", "spawn z.1 (1.1)"]);
    sim.exit("z", 0);
    sim.exit("m", 0);
    assert_eq!(sim.lines()[..4], ["z.1 Success", "z returns", "z Success", "m asks"]);
    assert_eq!(sim.verdict(), "Success");
    assert_eq!(sim.record.status.tasks["m"].dependencies, ["z", "a"]);
}

#[test]
fn an_error_blocks_what_depends_on_it_and_nothing_else() {
    let mut sim = Sim::started(tasks(json!({
        "build": {"steps": [{"name": "compile", "run": "x"}, "never"]},
        "ship": {"dependencies": "build", "steps": ["x"]},
        "tell": {"dependencies": "ship", "steps": ["x"]},
        "lint": {"steps": ["x"]},
    })));
    sim.exit("build", 2);
    assert_eq!(sim.task("ship"), "NotExecuted UpstreamFailed");
    assert_eq!(sim.record.status.tasks["tell"].message.as_deref(), Some("upstream task ship was not executed"));
    assert!(!sim.machine.is_ended(), "lint runs on");
    sim.exit("lint", 0);
    assert_eq!(sim.verdict(), "Error | TaskFailed | step compile of task build exited with code 2");
    let build = &sim.record.status.tasks["build"];
    assert_eq!((build.steps[0].exit_code, build.steps[1].phase), (Some(2), StepPhase::NotExecuted));
}

#[test]
fn connectors_pass_on_success_failure_or_always() {
    for (code, tolerated, expected) in [
        (0, false, ["Success", "NotExecuted UpstreamFailed", "Success", "NotExecuted UpstreamFailed", "Success"]),
        (1, false, ["NotExecuted UpstreamFailed", "Success", "Success", "NotExecuted UpstreamFailed", "Success"]),
        (1, true, ["Success", "NotExecuted UpstreamFailed", "Success", "NotExecuted UpstreamFailed", "Success"]),
    ] {
        let mut sim = Sim::started(pipeline(json!({
            "tasks": {
                "a": {"steps": ["x"], "allowFailure": tolerated},
                "good": {"steps": ["x"]}, "bad": {"steps": ["x"]}, "any": {"steps": ["x"]},
                "both": {"steps": ["x"]}, "after": {"steps": ["x"]},
            },
            "connectors": [
                {"from": "a", "to": "good"},
                {"from": "a", "to": "bad", "on": "Failure"},
                {"from": "a", "to": "any", "on": "Always"},
                {"from": ["good", "bad"], "to": "both"},
                {"from": ["good", "bad"], "to": "after", "on": "Always"},
            ],
        })));
        sim.exit("a", code);
        while let Some(id) = sim.processes.keys().next().cloned() {
            sim.end(id, ExitStatus::Code(0), &[]);
        }
        let ends = ["good", "bad", "any", "both", "after"].map(|task| sim.task(task));
        assert_eq!(ends, expected, "exit code {code}, allowFailure {tolerated}");
        assert_eq!(sim.record.status.phase == RunPhase::Success, code == 0 || tolerated);
        assert_eq!(sim.record.status.warnings, u32::from(tolerated));
    }
}

#[test]
fn a_tolerated_step_does_not_end_its_task() {
    let mut sim = Sim::started(tasks(json!({"a": {"steps": [{"run": "x", "allowFailure": true}, "y"]}})));
    sim.exit("a", 3);
    sim.exit("a", 0);
    assert_eq!(sim.verdict(), "Success");
    assert_eq!(sim.record.status.tasks["a"].steps[0].phase, StepPhase::Error);
}

#[test]
fn a_task_waits_for_its_slot() {
    let mut sim = Sim::new(tasks(json!({"a": {"steps": ["x"]}, "b": {"steps": ["x"]}})));
    sim.free = false;
    sim.input(Input::Start);
    assert_eq!(sim.lines(), ["started", "a asks", "b asks"]);
    sim.input(Input::SlotGranted("nobody".into()));
    assert!(sim.grant());
    assert_eq!(sim.lines(), ["a started, attempt 1", "a.0 started", "spawn a.0 (1.1)"]);
    sim.input(Input::Cancel("by me".into()));
    assert_eq!(sim.lines(), ["shutting down Cancelled", "Terminate a.0 (1.1)", "b returns", "b NotExecuted Cancelled"]);
    sim.input(Input::SlotGranted("b".into()));
    assert_eq!(sim.lines(), [""; 0], "a grant that comes too late does nothing");
}

#[test]
fn a_step_that_takes_too_long_gets_sigterm_then_sigkill() {
    let mut sim = Sim::started(pipeline(json!({
        "gracePeriod": "3s",
        "tasks": {"a": {"steps": [{"name": "s", "run": "x", "timeout": "5s"}]}},
    })));
    sim.pass(SECOND * 4);
    sim.lines();
    sim.pass(SECOND);
    assert_eq!(sim.lines(), ["Terminate a.0 (1.1)"]);
    sim.pass(SECOND * 2);
    assert_eq!(sim.lines(), [""; 0]);
    sim.pass(SECOND);
    assert_eq!(sim.lines(), ["Kill a.0 (1.1)"]);
    sim.end(sim.running("a"), ExitStatus::Signal(9), &[]);
    assert_eq!(sim.lines(), ["a.0 Error TimedOut", "a returns", "a Error StepFailed", "ended Error TaskFailed"]);
    assert_eq!(sim.verdict(), "Error | TaskFailed | step s of task a took longer than 5s");
    assert_eq!(sim.record.status.tasks["a"].steps[0].signal, Some(9));
}

#[test]
fn a_task_timeout_bounds_an_attempt_with_all_of_its_steps() {
    let mut sim = Sim::started(pipeline(json!({
        "gracePeriod": "9s",
        "tasks": {"a": {
            "timeout": "10s", "gracePeriod": "1s", "retry": {"attempts": 1, "delay": "4s"},
            "steps": ["x", {"run": "y", "allowFailure": true, "retry": {"attempts": 9}}, "z"],
        }},
    })));
    sim.pass(SECOND * 6);
    sim.exit("a", 0);
    sim.lines();
    sim.pass(SECOND * 4);
    assert_eq!(sim.lines(), ["Terminate a.1 (1.1)"]);
    sim.pass(SECOND);
    assert_eq!(sim.lines(), ["Kill a.1 (1.1)"]);
    sim.end(sim.running("a"), ExitStatus::Code(0), &[]);
    assert_eq!(sim.lines(), ["a.1 Error TimedOut", "a returns"]);
    sim.pass(SECOND * 4);
    assert_eq!(sim.lines(), ["a asks", "a started, attempt 2", "a.0 started", "spawn a.0 (2.1)"]);
    // The second attempt has all of its time again. It runs out while a step waits to be tried again.
    sim.pass(SECOND * 8);
    sim.exit("a", 0);
    sim.exit("a", 1);
    sim.exit_after(SECOND, "a", 1);
    sim.lines();
    sim.pass(SECOND * 2);
    assert_eq!(sim.lines(), ["a.1 Error TimedOut", "a returns", "a Error TimedOut", "ended Error TaskFailed"]);
    assert_eq!(sim.verdict(), "Error | TaskFailed | task a took longer than 10s");
}

#[test]
fn a_failed_task_is_tried_again_and_waits_without_a_slot() {
    let mut sim = Sim::started(tasks(json!({
        "a": {"steps": ["x", "y"], "retry": {"attempts": 2}, "outputs": ["n"]},
    })));
    sim.end(sim.running("a"), ExitStatus::Code(0), &[("n", "1")]);
    sim.lines();
    sim.exit("a", 1);
    assert_eq!(sim.lines(), ["a.1 Error ExitCode", "a returns"]);
    assert!(sim.holding.is_empty());
    sim.pass(SECOND);
    assert_eq!(sim.lines(), ["a asks", "a started, attempt 2", "a.0 started", "spawn a.0 (2.1)"]);
    sim.exit("a", 1);
    sim.pass(SECOND * 2);
    sim.exit("a", 0);
    sim.exit("a", 0);
    assert_eq!(sim.verdict(), "Success");
    let a = &sim.record.status.tasks["a"];
    assert_eq!((a.attempt, a.outputs.len()), (3, 0), "outputs of an earlier attempt are gone");
    assert_eq!(
        sim.notes,
        [
            "step step-2 of task a exited with code 1; task a is tried again in 1s",
            "step step-1 of task a exited with code 1; task a is tried again in 2s"
        ]
    );
}

#[test]
fn a_failed_step_is_tried_again_without_a_fact() {
    let mut sim = Sim::started(tasks(json!({
        "a": {"steps": [{"run": "x", "retry": {"attempts": 2, "delay": "3s", "onExitCodes": [75]}}]},
    })));
    sim.lines();
    sim.exit("a", 75);
    assert_eq!(sim.lines(), [""; 0]);
    assert_eq!(sim.holding.len(), 1, "the attempt of its task goes on");
    sim.pass(SECOND * 3);
    assert_eq!(sim.lines(), ["spawn a.0 (1.2)"]);
    sim.exit("a", 1);
    assert_eq!(sim.lines(), ["a.0 Error ExitCode", "a returns", "a Error StepFailed", "ended Error TaskFailed"]);
}

#[test]
fn a_run_that_takes_too_long_is_stopped_and_not_tried_again() {
    let mut sim = Sim::started(pipeline(json!({
        "tasks": {
            "a": {"steps": ["x"], "retry": {"attempts": 5}, "allowFailure": true},
            "b": {"steps": ["x"], "retry": {"attempts": 5, "delay": "5m", "backoff": 1}},
            "c": {"steps": ["x"], "dependencies": ["b"]},
        },
        "finally": {"f": {"steps": ["x"]}},
    })));
    sim.pass(HOUR * 6 - SECOND);
    sim.exit("b", 1);
    sim.lines();
    sim.pass(SECOND);
    assert_eq!(
        sim.lines(),
        ["shutting down TimedOut", "Terminate a.0 (1.1)", "b Error TimedOut", "c NotExecuted TimedOut"]
    );
    sim.exit("a", 0);
    assert_eq!(
        sim.lines(),
        [
            "a.0 Error TimedOut",
            "a returns",
            "a Error TimedOut",
            "f asks",
            "f started, attempt 1",
            "f.0 started",
            "spawn f.0 (1.1)"
        ]
    );
    sim.exit("f", 0);
    assert_eq!(sim.verdict(), "Error | TimedOut | the run took longer than 6h");
    assert_eq!(sim.record.status.warnings, 0);
}

#[test]
fn a_task_that_is_cancelled_while_its_time_runs_out_is_not_tried_again() {
    let mut sim = Sim::started(tasks(json!({
        "a": {"steps": [{"run": "x", "timeout": "4s", "retry": {"attempts": 9}}], "timeout": "5s", "retry": {"attempts": 9}},
    })));
    sim.pass(SECOND * 3);
    sim.input(Input::Cancel("cancelled by ann".into()));
    sim.pass(SECOND * 3);
    sim.exit("a", 143);
    assert_eq!(sim.task("a"), "Error Cancelled");
    assert_eq!(sim.verdict(), "Error | Cancelled | cancelled by ann");
}

#[test]
fn a_step_that_ends_within_its_grace_leaves_no_sigkill_behind() {
    let mut sim = Sim::started(tasks(json!({
        "a": {"steps": [{"run": "x", "timeout": "30s", "retry": {"attempts": 1, "delay": "0s"}}]},
    })));
    sim.pass(SECOND * 31);
    sim.exit("a", 143);
    sim.lines();
    sim.pass(SECOND * 29);
    assert_eq!(sim.lines(), ["spawn a.0 (1.2)"]);
    sim.exit("a", 0);
    assert_eq!(sim.verdict(), "Success");
}

#[test]
fn fail_fast_cancels_the_others_on_the_first_failure_that_counts() {
    let mut sim = Sim::started(pipeline(json!({
        "failFast": true,
        "tasks": {
            "ok": {"steps": ["x"], "allowFailure": true},
            "a": {"steps": ["x"]}, "b": {"steps": ["x"]},
            "mend": {"steps": ["x"]},
        },
        "connectors": [{"from": "a", "to": "mend", "on": "Failure"}],
        "finally": {"f": {"steps": ["x"]}},
    })));
    sim.exit("ok", 1);
    sim.lines();
    sim.exit("a", 1);
    assert_eq!(
        sim.lines(),
        ["a.0 Error ExitCode", "a returns", "a Error StepFailed", "Terminate b.0 (1.1)", "mend NotExecuted Cancelled"]
    );
    sim.end(sim.running("b"), ExitStatus::Signal(15), &[]);
    assert_eq!(sim.task("b"), "Error Cancelled");
    sim.exit("f", 0);
    assert_eq!(sim.verdict(), "Error | TaskFailed | step step-1 of task a exited with code 1");
}

#[test]
fn finally_runs_after_all_others_whatever_the_outcome() {
    let finally = || {
        pipeline(json!({
            "tasks": {"a": {"steps": ["x"]}},
            "finally": {"f": {"steps": ["x"]}, "g": {"steps": ["x"], "dependencies": ["f"]}},
        }))
    };
    for (task, code, verdict) in [
        (0, 0, "Success"),
        (1, 0, "Error | TaskFailed | step step-1 of task a exited with code 1"),
        (0, 4, "Error | FinallyFailed | step step-1 of task f exited with code 4"),
        (1, 4, "Error | TaskFailed | step step-1 of task a exited with code 1"),
    ] {
        let mut sim = Sim::started(finally());
        sim.lines();
        sim.exit("a", task);
        assert_eq!(
            sim.lines()[3..],
            ["shutting down", "f asks", "f started, attempt 1", "f.0 started", "spawn f.0 (1.1)"]
        );
        sim.exit("f", code);
        if code == 0 {
            sim.exit("g", 0);
        } else {
            assert_eq!(sim.task("g"), "NotExecuted UpstreamFailed");
        }
        assert_eq!(sim.verdict(), verdict);
    }
}

#[test]
fn finally_has_its_own_time() {
    let mut sim = Sim::started(pipeline(json!({
        "timeout": "1m", "finallyTimeout": "10m",
        "tasks": {"a": {"steps": ["x"]}},
        "finally": {"f": {"steps": ["x"]}, "g": {"steps": ["x"], "dependencies": ["f"]}},
    })));
    sim.exit("a", 0);
    sim.pass(SECOND * 599);
    sim.lines();
    sim.pass(SECOND);
    assert_eq!(sim.lines(), ["Terminate f.0 (1.1)", "g NotExecuted TimedOut"]);
    sim.exit("f", 0);
    assert_eq!(sim.verdict(), "Error | FinallyFailed | finally took longer than 10m");
}

#[test]
fn a_step_that_is_lost_ends_the_run_in_order() {
    let mut sim = Sim::started(pipeline(json!({
        "tasks": {"a": {"steps": ["x", "y"], "allowFailure": true}, "b": {"steps": ["x"]}},
        "finally": {"f": {"steps": ["x"]}},
    })));
    let lost = sim.running("a");
    sim.lines();
    sim.end(lost, ExitStatus::Lost, &[]);
    assert_eq!(sim.task("a"), "Error AgentRestarted");
    assert!(sim.lines().contains(&"Terminate b.0 (1.1)".to_owned()));
    sim.exit("b", 143);
    sim.exit("f", 0);
    assert_eq!(sim.verdict(), "Error | AgentRestarted | step step-1 of task a was lost when its agent ended");
}

#[test]
fn a_second_cancel_ends_finally() {
    let mut sim = Sim::started(pipeline(json!({
        "tasks": {"a": {"steps": ["x"]}},
        "finally": {"f": {"steps": ["x"]}},
    })));
    sim.input(Input::Cancel("cancelled by ann".into()));
    sim.input(Input::Cancel("cancelled by ben".into()));
    sim.exit("a", 143);
    sim.lines();
    sim.input(Input::Cancel("cancelled by carl".into()));
    assert_eq!(sim.lines(), ["Terminate f.0 (1.1)"]);
    sim.exit("f", 143);
    assert_eq!(sim.task("f"), "Error Cancelled");
    assert_eq!(sim.verdict(), "Error | Cancelled | cancelled by ann");
    // The first one leaves a finally alone that has begun.
    let mut sim = Sim::started(pipeline(json!({
        "tasks": {"a": {"steps": ["x"]}},
        "finally": {"f": {"steps": ["x"]}},
    })));
    sim.exit("a", 0);
    sim.lines();
    sim.input(Input::Cancel("cancelled by ann".into()));
    assert_eq!(sim.lines(), ["shutting down Cancelled"]);
    sim.exit("f", 0);
    assert_eq!(sim.verdict(), "Error | Cancelled | cancelled by ann");
}

#[test]
fn a_cancelled_run_ends_at_every_point() {
    let make = || {
        pipeline(json!({
            "failFast": true,
            "tasks": {
                "a": {"steps": ["x", {"run": "y", "retry": {"attempts": 1}}]},
                "b": {"steps": ["x"], "retry": {"attempts": 1}},
                "c": {"steps": ["x"], "dependencies": ["a", "b"]},
            },
            "finally": {"f": {"steps": ["x"]}},
        }))
    };
    let script: [fn(&mut Sim); 12] = [
        |sim| sim.input(Input::Start),
        |sim| assert!(sim.grant()),
        |sim| sim.exit("a", 0),
        |sim| sim.exit("a", 1),
        |sim| assert!(sim.grant()),
        |sim| sim.exit("b", 1),
        |sim| sim.pass(SECOND),
        |sim| assert!(sim.grant()),
        |sim| sim.exit("a", 0),
        |sim| sim.exit("b", 0),
        |sim| assert!(sim.grant()),
        |sim| sim.exit("c", 0),
    ];
    for point in 0..=script.len() {
        let mut sim = Sim::new(make());
        sim.free = false;
        script[..point].iter().for_each(|step| step(&mut sim));
        sim.input(Input::Cancel("cancelled by ann".into()));
        let begun = point > 0;
        for _ in 0..10 {
            while sim.grant() {}
            if let Some(id) = sim.processes.keys().next().cloned() {
                sim.end(id, ExitStatus::Signal(15), &[]);
            }
        }
        assert!(sim.machine.is_ended(), "cancel after {point} inputs");
        assert_eq!(sim.verdict(), "Error | Cancelled | cancelled by ann");
        assert_eq!(sim.spawned.iter().any(|id| id.task == "f"), begun, "finally after {point} inputs");
        sim.input(Input::Start);
        sim.input(Input::Cancel("too late".into()));
    }
}

#[test]
fn an_exit_of_another_attempt_is_passed_over() {
    let mut sim = Sim::started(tasks(json!({"a": {"steps": ["x"], "retry": {"attempts": 1, "delay": "0s"}}})));
    let first = sim.running("a");
    sim.exit("a", 1);
    sim.pass(Duration::ZERO);
    sim.lines();
    let exit = StepExit { status: ExitStatus::Code(0), outputs: Ok(vec![]), leftovers: vec![] };
    sim.input(Input::StepExited(first, exit));
    assert_eq!(sim.lines(), [""; 0]);
    sim.exit("a", 0);
    assert_eq!(sim.verdict(), "Success");
}

#[test]
fn how_a_process_ended_is_on_record() {
    let too_large = OutputsError::TooLarge { what: "output n".into(), size: 70_000, limit: 65_536 };
    for (status, outputs, step, message) in [
        (ExitStatus::Code(2), Ok(vec![]), "ExitCode", "exited with code 2"),
        (ExitStatus::Signal(11), Ok(vec![]), "Signal", "was ended by signal 11"),
        (ExitStatus::Signal(9), Ok(vec![]), "Signal", "was ended by signal 9, as when memory runs out"),
        (
            ExitStatus::StartFailed("no such file".into()),
            Ok(vec![]),
            "StartFailed",
            "could not be started: no such file",
        ),
        (
            ExitStatus::Code(0),
            Err(too_large.clone()),
            "OutputTooLarge",
            "published too much: output n is 70000 bytes, above the limit of 65536",
        ),
        (ExitStatus::Code(1), Err(too_large), "ExitCode", "exited with code 1"),
        (
            ExitStatus::Code(0),
            Ok(vec![("n".into(), "x".repeat(65_537))]),
            "OutputTooLarge",
            "published too much: output n is 65537 bytes, above the limit of 65536",
        ),
        (
            ExitStatus::Code(0),
            Err(OutputsError::Malformed { line: 3 }),
            "OutputInvalid",
            "published what can't be read: line 3 of $XENE_OUTPUT is neither name=value nor name<<EOF",
        ),
        (
            ExitStatus::Code(0),
            Ok(vec![("a b".into(), String::new())]),
            "OutputInvalid",
            "published what can't be read: \"a b\" is not the name of an output: a letter or _, then letters, digits, _ and -",
        ),
    ] {
        let mut sim = Sim::started(tasks(json!({"a": {"steps": ["x"]}})));
        let id = sim.running("a");
        sim.processes.clear();
        sim.input(Input::StepExited(id, StepExit { status, outputs, leftovers: vec!["sleep".into(), "nc".into()] }));
        let record = &sim.record.status.tasks["a"].steps[0];
        assert_eq!((record.phase, record.reason.as_ref().unwrap().as_str()), (StepPhase::Error, step));
        assert_eq!(record.message.as_deref(), Some(message));
        assert_eq!(sim.verdict(), format!("Error | TaskFailed | step step-1 of task a {message}"));
        assert_eq!(sim.notes, ["step step-1 of task a left processes behind, which were ended: sleep, nc"]);
    }
}

#[test]
fn outputs_reach_later_tasks_as_variables() {
    let mut sim = Sim::started(pipeline(json!({
        "tasks": {
            "a": {"steps": ["x", "y"], "outputs": ["version", "empty"]},
            "b": {
                "dependencies": ["a"],
                "env": {"V": {"output": "a.version"}, "NONE": {"output": "a.none", "default": 7}, "TAG": "dev"},
                "steps": ["x", {"run": "y", "env": {"TAG": "mine"}}],
            },
        },
        "connectors": [{"from": "a", "to": "b", "outputs": {"TAG": "version", "ABSENT": "nothing"}}],
    })));
    sim.end(sim.running("a"), ExitStatus::Code(0), &[("version", "1"), ("other", "x")]);
    sim.end(sim.running("a"), ExitStatus::Code(0), &[("version", "2"), ("empty", "")]);
    assert_eq!(
        sim.notes,
        ["step step-1 of task a published outputs that the task does not declare, which were dropped: other"]
    );
    let outputs = &sim.record.status.tasks["a"].outputs;
    assert_eq!(outputs.iter().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>(), ["version=2", "empty="]);
    assert_eq!(own_variables(&sim, "b"), ["V=2", "NONE=7", "TAG=2"]);
    sim.exit("b", 0);
    assert_eq!(own_variables(&sim, "b"), ["V=2", "NONE=7", "TAG=mine"]);
}

fn own_variables(sim: &Sim, task: &str) -> Vec<String> {
    let command = &sim.processes[&sim.running(task)];
    let own = command.env.iter().filter(|(name, _)| !name.starts_with("XENE_"));
    own.map(|(name, value)| format!("{name}={value}")).collect()
}

#[test]
fn the_innermost_variable_wins_and_xene_wins_over_all() {
    let mut pipeline = pipeline(json!({
        "env": {"A": "pipeline", "B": "pipeline", "C": "pipeline"},
        "params": {},
        "tasks": {"a": {
            "env": {"B": "task", "C": "task", "XENE_RUN_ID": "forged"},
            "steps": [{"name": "s", "run": "x", "env": {"C": 3, "P": {"param": "dry-run"}, "Q": {"param": "who"}, "R": {"param": "unset"}}}],
        }},
    }));
    pipeline.env =
        serde_json::from_value(json!({"A": "workflow", "W": true, "S": {"secret": "a/b"}, "B": {"expr": "1"}}))
            .unwrap();
    pipeline.params = serde_json::from_value(
        json!({"dry-run": {"type": "boolean", "default": false}, "who": {"default": "me"}, "unset": {}}),
    )
    .unwrap();
    pipeline.spec.env =
        serde_json::from_value(json!({"A": "pipeline", "B": "pipeline", "C": "pipeline", "S": "open"})).unwrap();
    let mut spec = run_spec();
    spec.trigger.kind = TriggerType::Cron;
    spec.trigger.scheduled_time = Some("2027-01-15T08:00:00Z".parse().unwrap());
    spec.params = [("dry-run".to_owned(), "true".to_owned())].into();
    let mut sim = Sim::of(spec, pipeline);
    sim.input(Input::Start);
    let command = &sim.processes[&sim.running("a")];
    let env: Vec<String> = command.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let run = format!("XENE_RUN_ID={}", sim.record.metadata.name);
    assert_eq!(
        env,
        [
            "A=pipeline",
            "W=true",
            "S=open",
            "B=task",
            "C=3",
            "P=true",
            "Q=me",
            &run,
            "XENE_WORKFLOW=shop",
            "XENE_PIPELINE=deploy",
            "XENE_TRIGGER=cron",
            "XENE_REVISION=0123abc",
            "XENE_AGENT=agent-1",
            "XENE_EPOCH=5",
            "XENE_SCHEDULED_TIME=2027-01-15T08:00:00Z",
            "XENE_PARAM_DRY_RUN=true",
            "XENE_PARAM_WHO=me",
            "XENE_TASK=a",
            "XENE_STEP=s",
            "XENE_ATTEMPT=1",
        ]
    );
}

#[test]
fn a_variable_that_cannot_be_had_ends_its_step() {
    for (env, why) in [
        (json!({"S": {"secret": "a/b"}}), "variable S is a secret, which this version does not open"),
        (json!({"O": {"output": "b.n"}}), "variable O needs output n of task b, which did not publish it"),
        (json!({"P": {"param": "nobody"}}), "variable P needs param nobody, which is not declared"),
    ] {
        let mut sim = Sim::started(tasks(json!({
            "a": {"steps": [{"run": "x", "env": env}], "retry": {"attempts": 3}}, "b": {"steps": ["x"]},
        })));
        assert_eq!(sim.task("a"), "Error SpecInvalid");
        assert_eq!(sim.record.status.tasks["a"].steps[0].reason, Some(Reason::SPEC_INVALID));
        sim.exit("b", 0);
        assert_eq!(sim.verdict(), format!("Error | TaskFailed | step step-1 of task a can't be run: {why}"));
    }
}

#[test]
fn programs_are_as_the_language_says() {
    let script = |shell: &[&str]| Program::Script {
        shell: shell.iter().map(|word| (*word).into()).collect(),
        script: "echo".into(),
    };
    for (step, program) in [
        (json!("echo"), script(&["sh", "-e"])),
        (json!({"run": "echo", "shell": "sh"}), script(&["sh", "-e"])),
        (json!({"run": "echo", "shell": "bash"}), script(&["bash", "-eo", "pipefail"])),
        (json!({"run": "echo", "shell": "fish"}), script(&["fish"])),
        (json!({"run": "echo", "shell": ["python3", "-u"]}), script(&["python3", "-u"])),
        (json!({"run": ["echo", "a b"]}), Program::Argv(vec!["echo".into(), "a b".into()])),
    ] {
        let sim = Sim::started(tasks(json!({"a": {"steps": [step], "workingDir": "sub"}})));
        let command = &sim.processes[&sim.running("a")];
        assert_eq!(command.program, program);
        assert_eq!((command.context.as_str(), command.working_dir.as_deref()), ("default", Some("sub")));
    }
    let sim = Sim::started(tasks(json!({"a": {"steps": [{"run": []}]}})));
    assert_eq!(sim.verdict(), "Error | TaskFailed | step step-1 of task a can't be run: run is an empty list");
}

#[test]
fn a_spec_that_was_never_compiled_ends_at_once() {
    let one = json!({"steps": ["x"]});
    for (spec, why) in [
        (json!({"tasks": {"a": {"steps": ["x"], "dependencies": ["b"]}}}), "there is no task b"),
        (
            json!({"tasks": {"a": {"steps": ["x"], "dependencies": ["b"]}, "b": {"steps": ["x"], "dependencies": ["a"]}}}),
            "waits for itself",
        ),
        (json!({"tasks": {"a": one}, "finally": {"a": one}}), "task a is in both tasks and finally"),
        (
            json!({"tasks": {"a": {"steps": ["x"], "dependencies": ["f"]}}, "finally": {"f": one}}),
            "task a waits for a task of finally",
        ),
    ] {
        let sim = Sim::started(pipeline(spec));
        let verdict = sim.verdict();
        assert!(verdict.starts_with("Error | SpecInvalid | ") && verdict.ends_with(why), "{verdict}");
        assert!(sim.spawned.is_empty());
    }
}

#[test]
fn thousands_of_tasks_are_no_trouble() {
    const TASKS: usize = 5_000;
    let chain: serde_json::Map<String, Value> = (0..TASKS)
        .map(|i| {
            let dependencies: Vec<String> = i.checked_sub(1).map(|i| format!("t{i}")).into_iter().collect();
            (format!("t{i}"), json!({"steps": ["x"], "dependencies": dependencies}))
        })
        .collect();
    // One failure at the top reaches the bottom, without recursion.
    let mut sim = Sim::started(tasks(Value::Object(chain.clone())));
    sim.exit("t0", 1);
    assert_eq!(sim.task("t4999"), "NotExecuted UpstreamFailed");
    let mut sim = Sim::started(tasks(Value::Object(chain)));
    for i in 0..TASKS {
        sim.exit(&format!("t{i}"), 0);
    }
    assert_eq!(sim.verdict(), "Success");
}

impl Sim {
    fn exit_after(&mut self, duration: Duration, task: &str, code: i32) {
        self.pass(duration);
        self.exit(task, code);
    }
}
