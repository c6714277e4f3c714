//! Matrices: instances, what joins them, and how many run at once.

use super::*;

fn spec(matrix: Value) -> CompiledPipeline {
    tasks(json!({
        "prepare": {"steps": ["x"]},
        "test": {"dependencies": "prepare", "matrix": matrix, "steps": ["x"], "env": {"OS": {"expr": "matrix.os"}}},
        "publish": {"dependencies": "test", "steps": ["x"], "env": {
            "ONE": {"output": "test[os=macos,go=2].log", "default": "none"},
            "ALL": {"output": "test.log", "default": "none"},
            "COUNT": {"expr": "string(size(tasks.test.outputs.log)) + tasks['test[os=linux,go=1]'].phase + tasks.test.phase"},
        }},
    }))
}

#[test]
fn connectors_mean_all_instances() {
    let mut sim =
        Sim::started(spec(json!({"os": ["linux", "macos"], "go": [1, 2], "exclude": [{"os": "macos", "go": 1}]})));
    let names = ["test[os=linux,go=1]", "test[os=linux,go=2]", "test[os=macos,go=2]"];
    assert_eq!(sim.record.status.tasks.keys().map(String::as_str).collect::<Vec<_>>()[1..4], names);
    assert_eq!(sim.record.status.tasks["publish"].dependencies, names);
    sim.exit("prepare", 0);
    assert_eq!(sim.processes.len(), 3);
    for (name, os, go) in [(names[0], "linux", "1"), (names[2], "macos", "2")] {
        assert_eq!(sim.variable(name, "XENE_MATRIX_OS").as_deref(), Some(os));
        assert_eq!(sim.variable(name, "XENE_MATRIX_GO").as_deref(), Some(go));
        assert_eq!(sim.variable(name, "XENE_TASK").as_deref(), Some(name));
        assert_eq!(sim.variable(name, "OS").as_deref(), Some(os));
    }
    for (index, name) in names.iter().enumerate().rev() {
        assert_eq!(sim.task("publish"), "NotExecuted");
        let log = format!("{index}\n\"`id`");
        let outputs: &[(&str, &str)] = if index == 1 { &[] } else { &[("log", &log)] };
        sim.end(sim.running(name), ExitStatus::Code(0), outputs);
    }
    assert_eq!(sim.variable("publish", "ONE").as_deref(), Some("2\n\"`id`"));
    assert_eq!(sim.variable("publish", "ALL").as_deref(), Some(r#"["0\n\"`id`","2\n\"`id`"]"#));
    assert_eq!(sim.variable("publish", "COUNT").as_deref(), Some("2SuccessSuccess"));
    sim.exit("publish", 0);
    assert_eq!(sim.verdict(), "Success");
}

#[test]
fn one_failed_instance_blocks_what_follows_and_not_the_others() {
    let mut sim = Sim::started(spec(json!({"os": ["linux", "macos"], "go": [1]})));
    sim.exit("prepare", 0);
    sim.exit("test[os=linux,go=1]", 3);
    assert_eq!(sim.task("publish"), "NotExecuted UpstreamFailed");
    assert_eq!(sim.message("publish"), "upstream task test[os=linux,go=1] ended in Error");
    sim.exit("test[os=macos,go=1]", 0);
    assert_eq!(sim.verdict(), "Error | TaskFailed | step step-1 of task test[os=linux,go=1] exited with code 3");
}

#[test]
fn one_failed_instance_is_a_failure_of_the_task_once_all_have_ended() {
    let spec = || {
        pipeline(json!({
            "tasks": {
                "build": {"matrix": {"n": [1, 2, 3]}, "steps": ["x"]},
                "other": {"steps": ["x"]},
                "undo": {"steps": ["x"]},
                "retry": {"steps": ["x"]},
            },
            "connectors": [
                {"from": ["build", "other"], "to": "undo", "on": "Failure"},
                {"from": "build", "to": "retry", "on": "Failure", "when": "exitCode == 75"},
            ],
        }))
    };
    let mut sim = Sim::started(spec());
    sim.exit("other", 1);
    sim.exit("build[n=2]", 1);
    sim.exit("build[n=1]", 0);
    assert_eq!(sim.task("undo"), "NotExecuted", "it waits for all of them");
    sim.exit("build[n=3]", 75);
    assert_eq!((sim.task("undo"), sim.task("retry")), ("Running".into(), "Running".into()));
    sim.finish();

    let mut sim = Sim::started(spec());
    sim.exit("other", 1);
    for n in 1..=3 {
        sim.exit(&format!("build[n={n}]"), 0);
    }
    assert_eq!(sim.task("undo"), "NotExecuted UpstreamFailed");
    assert_eq!(sim.message("undo"), "no instance of upstream task build failed so that its connector passes");
    assert_eq!(sim.task("retry"), "NotExecuted UpstreamFailed");
}

#[test]
fn max_parallel_bounds_how_many_run() {
    let mut sim = Sim::started(tasks(json!({
        "t": {"matrix": {"n": [1, 2, 3, 4, 5], "maxParallel": 2}, "when": "matrix.n != '2'", "steps": ["x"],
              "retry": {"attempts": 1, "delay": "1s"}},
    })));
    let running = |sim: &Sim| sim.processes.keys().map(|id| id.task.clone()).collect::<Vec<_>>();
    assert_eq!(running(&sim), ["t[n=1]", "t[n=3]"], "one that is left out takes no place");
    sim.exit("t[n=1]", 1);
    assert_eq!(running(&sim), ["t[n=3]"], "one that is to be tried again keeps its place");
    sim.pass(Duration::from_secs(1));
    sim.exit("t[n=3]", 0);
    assert_eq!(running(&sim), ["t[n=1]", "t[n=4]"]);
    sim.exit("t[n=1]", 1);
    assert_eq!(running(&sim), ["t[n=4]", "t[n=5]"]);
    sim.input(Input::Cancel("enough".into()));
    sim.exit("t[n=4]", 0);
    sim.exit("t[n=5]", 0);
    assert_eq!(sim.verdict(), "Error | Cancelled | enough");
}

#[test]
fn held_instances_end_with_the_run() {
    let mut sim = Sim::started(pipeline(json!({
        "failFast": true,
        "tasks": {"t": {"matrix": {"n": [1, 2, 3], "maxParallel": 1}, "steps": ["x"]}},
    })));
    sim.exit("t[n=1]", 1);
    assert_eq!(
        (sim.task("t[n=2]"), sim.task("t[n=3]")),
        ("NotExecuted Cancelled".into(), "NotExecuted Cancelled".into())
    );
    assert!(sim.machine.is_ended());
}

#[test]
fn matrices_join_matrices_and_ask_for_each_instance() {
    let mut sim = Sim::started(pipeline(json!({
        "tasks": {
            "a": {"matrix": {"n": [1, 2]}, "steps": ["x"]},
            "b": {"matrix": {"m": [1, 2]}, "steps": ["x"]},
        },
        "connectors": [{"from": "a", "to": "b", "approval": {}, "outputs": {"IDS": "id"}}],
        "finally": {"f": {"matrix": {"k": [1, 2]}, "when": "tasks.b.phase == 'Success'", "steps": ["x"]}},
    })));
    for name in ["a[n=2]", "a[n=1]"] {
        sim.end(sim.running(name), ExitStatus::Code(0), &[("id", name)]);
    }
    assert_eq!(sim.task("b[m=1]"), "NotExecuted WaitingForApproval");
    sim.decide("b[m=2]", true);
    assert_eq!(sim.variable("b[m=2]", "IDS").as_deref(), Some(r#"["a[n=1]","a[n=2]"]"#));
    sim.decide("b", true);
    sim.finish();
    assert_eq!(sim.task("f[k=2]"), "Success");
    assert_eq!(sim.verdict(), "Success");
}

#[test]
fn a_matrix_that_can_not_be_expanded_is_refused() {
    let sim = Sim::started(tasks(json!({"t": {"matrix": {"n": []}, "steps": ["x"]}})));
    assert_eq!(sim.verdict(), "Error | SpecInvalid | the matrix of task t can't be run: axis `n` has no value");
    let mut many = serde_json::Map::new();
    let values: Vec<u32> = (0..250).collect();
    for n in 0..30 {
        many.insert(format!("t{n}"), json!({"matrix": {"n": values}, "steps": ["x"]}));
    }
    let sim = Sim::started(tasks(Value::Object(many)));
    assert_eq!(sim.verdict(), "Error | SpecInvalid | with all instances there are more than 5000 tasks");
}
