//! What expressions see, and what they decide.

use super::*;

/// A pipeline with these tasks and params, and what a cron run of it is given.
fn given(params: Value, values: &[(&str, &str)], tasks: Value) -> Sim {
    let pipeline = CompiledPipeline { params: serde_json::from_value(params).unwrap(), ..self::tasks(tasks) };
    let spec = RunSpec {
        trigger: RunTrigger {
            kind: TriggerType::Cron,
            name: Some("nightly".parse().unwrap()),
            scheduled_time: Some(Timestamp::from_second(1_800_000_000).unwrap()),
            by: None,
        },
        params: values.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
        ..run_spec()
    };
    let mut sim = Sim::of(spec, pipeline);
    sim.input(Input::Start);
    sim
}

#[test]
fn a_task_that_its_when_leaves_out_counts_as_success() {
    let mut sim = given(
        json!({"deploy": {"type": "boolean", "default": false}}),
        &[],
        json!({
            "a": {"when": "params.deploy", "steps": ["x"]},
            "b": {"dependencies": "a", "steps": ["x"]},
            "c": {"dependencies": "b", "when": "tasks.a.phase == 'NotExecuted' && tasks.a.reason == 'Skipped'", "steps": ["x"]},
        }),
    );
    assert_eq!(sim.task("a"), "NotExecuted Skipped");
    sim.exit("b", 0);
    sim.exit("c", 0);
    assert_eq!(sim.verdict(), "Success");
}

#[test]
fn params_have_their_types_and_triggers_their_fields() {
    let sim = given(
        json!({
            "n": {"type": "integer"}, "d": {"type": "number", "default": 1.5}, "t": {"type": "boolean"},
            "s": {}, "none": {},
        }),
        &[("n", "41"), ("t", "true"), ("s", "x")],
        json!({"a": {"steps": ["x"], "env": {
            "SUM": {"expr": "params.n + 1"},
            "ALL": {"expr": "[params.n, params.d, params.t, params.s, params.none]"},
            "TRIGGER": {"expr": "trigger.type + ' ' + trigger.name + ' ' + trigger.scheduledTime"},
            "YES": {"expr": "params.t && params.d < 2.0 && params.none == null && trigger.payload == null"},
        }}}),
    );
    let variable = |name: &str| sim.variable("a", name).unwrap();
    assert_eq!(variable("SUM"), "42");
    assert_eq!(variable("ALL"), r#"[41,1.5,true,"x",null]"#);
    assert_eq!(variable("TRIGGER"), "cron nightly 2027-01-15T08:00:00Z");
    assert_eq!(variable("YES"), "true");
}

#[test]
fn the_payload_is_there_if_it_is_json() {
    for (payload, branch) in
        [(r#"{"ref": "refs/heads/$(touch x)"}"#, "$(touch x)"), ("no json", "none"), ("[1]", "none")]
    {
        let pipeline = tasks(json!({"a": {"steps": ["x"], "env": {"BRANCH": {"expr":
            "has(trigger.payload.ref) ? trigger.payload.ref.replace('refs/heads/', '') : 'none'"}}}}));
        let mut sim = Sim::given(run_spec(), pipeline, Some(payload), IndexMap::new());
        sim.input(Input::Start);
        if payload.starts_with('{') {
            assert_eq!(sim.variable("a", "BRANCH").as_deref(), Some(branch));
            assert!(matches!(
                &sim.processes[&sim.running("a")].program,
                crate::decide::event::Program::Script { script, .. } if script == "x"
            ));
        } else {
            assert_eq!(sim.task("a"), "Error ExprFailed", "{payload}");
        }
    }
}

#[test]
fn an_expression_without_a_value_ends_its_task_in_error() {
    for (task, message) in [
        (
            json!({"when": "tasks.up.outputs.no == ''", "steps": ["x"]}),
            "task a can't be run: its `when` has no value: there is no key \"no\"; has(…) asks whether there is one",
        ),
        (
            json!({"when": "1 + 1", "steps": ["x"]}),
            "task a can't be run: its `when` has no value: it gives a whole number, not true or false",
        ),
        (
            json!({"when": "1 +", "steps": ["x"]}),
            "task a can't be run: its `when` has no value: the expression ends too early",
        ),
        (
            json!({"steps": [{"name": "s", "run": "x", "when": "phase == ''"}]}),
            "step s of task a can't be run: its `when` has no value: there is no phase here",
        ),
        (
            json!({"steps": ["x"], "env": {"V": {"expr": "tasks.up.outputs.id / 2"}}, "retry": {"attempts": 3}}),
            "step step-1 of task a can't be run: the expression of variable V has no value: `/` does not take text and a whole number",
        ),
        (
            json!({"steps": ["x"], "env": {"V": {"expr": "'a\\u0000b'"}}}),
            "step step-1 of task a can't be run: the expression of variable V gives a NUL character",
        ),
        (
            json!({"steps": ["x"], "env": {"V": {"expr": "trigger.name"}}}),
            "step step-1 of task a can't be run: the expression of variable V has no value: it gives null, where text is needed",
        ),
    ] {
        let mut a = task;
        a["dependencies"] = json!("up");
        let mut sim =
            Sim::started(tasks(json!({"up": {"steps": ["x"]}, "a": a, "b": {"dependencies": "a", "steps": ["x"]}})));
        sim.end(sim.running("up"), ExitStatus::Code(0), &[("id", "7")]);
        assert_eq!(sim.task("a"), "Error ExprFailed");
        assert_eq!(sim.message("a"), message);
        assert_eq!(sim.task("b"), "NotExecuted UpstreamFailed");
        assert_eq!(sim.record.status.phase, RunPhase::Error);
    }
}

#[test]
fn a_step_that_its_when_leaves_out_is_passed_over() {
    let mut sim = Sim::started(tasks(json!({"a": {"steps": [
        {"run": "x"},
        {"run": "y", "when": "tasks.a.outputs.changed == 'yes'"},
        {"run": "z", "when": "has(tasks.a.outputs.changed) && tasks.a.phase == 'Running'"},
    ]}})));
    sim.lines();
    sim.end(sim.running("a"), ExitStatus::Code(0), &[("changed", "no")]);
    assert_eq!(sim.lines(), ["a.0 Success", "a.1 NotExecuted Skipped", "a.2 started", "spawn a.2 (1.1)"]);
    sim.exit("a", 0);
    assert_eq!(sim.verdict(), "Success");
    let step = &sim.record.status.tasks["a"].steps[1];
    assert_eq!((step.message.as_deref(), step.started_at), (Some("its `when` is false"), None));
}

#[test]
fn all_steps_may_be_left_out() {
    let mut sim = Sim::started(tasks(json!({"a": {"steps": [{"run": "x", "when": "false"}]}})));
    assert_eq!(sim.verdict(), "Success");
    assert_eq!(sim.task("a"), "Success");
    assert!(sim.lines().contains(&"a returns".to_owned()));
}

#[test]
fn connectors_ask_the_upstream_task() {
    let mut sim = Sim::started(pipeline(json!({
        "tasks": {
            "test": {"steps": ["x"], "allowFailure": true},
            "flaky": {"steps": ["x"]}, "broken": {"steps": ["x"]}, "fine": {"steps": ["x"]}, "odd": {"steps": ["x"]},
        },
        "connectors": [
            {"from": "test", "to": "flaky", "on": "Always", "when": "exitCode == 75 && phase == 'Error'"},
            {"from": "test", "to": "broken", "on": "Always", "when": "exitCode == 1"},
            {"from": "test", "to": "fine", "on": "Always", "when": "has(outputs.log) && outputs.log.endsWith('.txt')"},
            {"from": "test", "to": "odd", "when": "outputs.none"},
        ],
    })));
    sim.end(sim.running("test"), ExitStatus::Code(75), &[("log", "a.txt")]);
    assert_eq!(sim.task("broken"), "NotExecuted UpstreamFailed");
    assert_eq!(sim.message("broken"), "the `when` of its connector from task test is false");
    assert_eq!(sim.task("odd"), "Error ExprFailed");
    assert_eq!(sim.processes.len(), 2);
    sim.finish();
    assert_eq!((sim.task("flaky"), sim.task("fine")), ("Success".into(), "Success".into()));
}

#[test]
fn tasks_of_finally_can_ask_how_it_went() {
    for (code, expected) in [(0, "NotExecuted Skipped"), (1, "Success")] {
        let mut sim = Sim::started(pipeline(json!({
            "tasks": {"a": {"steps": ["x"]}},
            "finally": {"tell": {"when": "tasks.a.phase == 'Error'", "steps": ["x"]}, "tidy": {"steps": ["x"]}},
        })));
        sim.exit("a", code);
        sim.finish();
        assert_eq!(sim.task("tell"), expected);
        assert_eq!(sim.task("tidy"), "Success");
        assert_eq!(sim.record.status.phase == RunPhase::Success, code == 0);
    }
}

#[test]
fn what_a_repeated_run_reuses_does_not_run() {
    let pipeline = tasks(json!({
        "a": {"steps": ["x"], "matrix": {"n": [1, 2]}},
        "b": {"dependencies": "a", "steps": ["x"]},
        "c": {"dependencies": "b", "steps": ["x"], "env": {"ID": {"output": "b.id"}}},
    }));
    let reused = |task: &str, id: &str| (task.to_owned(), IndexMap::from([("id".to_owned(), id.to_owned())]));
    let reused = IndexMap::from([reused("a[n=1]", "1"), reused("b", "7"), reused("nobody", "0")]);
    let mut sim = Sim::given(run_spec(), pipeline, None, reused);
    sim.input(Input::Start);
    assert_eq!(sim.lines()[..4], ["started", "a[n=1] Success Reused", "b Success Reused", "a[n=2] asks"]);
    assert_eq!(sim.variable("c", "ID").as_deref(), Some("7"));
    sim.exit("c", 0);
    sim.exit("a[n=2]", 1);
    assert_eq!(sim.task("b"), "Success Reused");
    assert_eq!(sim.record.status.phase, RunPhase::Error);
}
