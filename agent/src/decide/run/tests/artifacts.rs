//! Artifacts: saved after the last step, laid before the first one of whoever wants them.

use xene_schemas::{meta::FileHash, run::Artifact};

use super::*;
use crate::decide::event::Program;

fn artifact(path: &str) -> Artifact {
    Artifact { path: path.into(), size: 1, hash: FileHash::of(path.as_bytes()), executable: false }
}

fn fan(make: &Value) -> CompiledPipeline {
    let mut make = make.clone();
    make["steps"] = json!(["true"]);
    make["artifacts"] = json!({"save": ["out/**"]});
    tasks(json!({
        "make": make,
        "use": {"context": "other", "dependencies": ["make"], "steps": ["true", "true"], "artifacts": {"from": ["make"]}},
        "same": {"dependencies": ["make"], "steps": ["true"], "artifacts": {"from": ["make"]}},
    }))
}

/// What the running step of a task finds in its workspace.
fn laid(sim: &Sim, task: &str) -> Vec<Artifact> {
    sim.processes[&sim.running(task)].artifacts.clone()
}

#[test]
fn a_task_ends_once_its_artifacts_are_saved_and_others_get_them_before_their_first_step() {
    let mut sim = Sim::new(fan(&json!({})));
    sim.input(Input::Start);
    sim.exit("make", 0);
    let saving = sim.running("make");
    assert_eq!(sim.processes[&saving].program, Program::Save(vec!["out/**".into()]));
    assert_eq!(sim.task("make"), "Running");
    sim.end(saving, ExitStatus::Saved(vec![artifact("out/x")]), &[]);
    assert_eq!(sim.task("make"), "Success");
    assert_eq!(sim.record.status.tasks["make"].artifacts, [artifact("out/x")]);
    assert_eq!((laid(&sim, "use"), laid(&sim, "same")), (vec![artifact("out/x")], vec![]), "there it lies already");
    sim.exit("use", 0);
    assert_eq!(laid(&sim, "use"), [], "once is enough");
    sim.exit("use", 0);
    sim.exit("same", 0);
    assert_eq!(sim.verdict(), "Success");
}

#[test]
fn artifacts_that_cannot_be_saved_make_the_task_an_error_that_is_tried_again() {
    let mut sim = Sim::new(fan(&json!({"retry": {"attempts": 1, "delay": "1s"}})));
    sim.input(Input::Start);
    for attempt in 1..=2 {
        sim.exit("make", 0);
        sim.end(sim.running("make"), ExitStatus::NotSaved("the disk is full".into()), &[]);
        if attempt == 1 {
            sim.pass(Duration::from_secs(1));
        }
    }
    assert_eq!(sim.task("make"), "Error ArtifactsNotSaved");
    let message = "Error | TaskFailed | task make could not save its artifacts: the disk is full";
    assert_eq!(sim.verdict(), message);
    assert_eq!(sim.record.status.tasks["make"].artifacts, []);
    assert_eq!(sim.task("use"), "NotExecuted UpstreamFailed");
}

#[test]
fn a_failed_task_saves_nothing() {
    let mut sim = Sim::new(fan(&json!({"allowFailure": true})));
    sim.input(Input::Start);
    sim.exit("make", 1);
    assert_eq!(sim.task("make"), "Error StepFailed");
    assert_eq!(laid(&sim, "use"), []);
}

#[test]
fn a_cancel_interrupts_what_saves() {
    let mut sim = Sim::new(fan(&json!({})));
    sim.input(Input::Start);
    sim.exit("make", 0);
    sim.input(Input::Cancel("enough".into()));
    sim.end(sim.running("make"), ExitStatus::NotSaved("it was interrupted".into()), &[]);
    assert_eq!(sim.task("make"), "Error Cancelled");
    assert_eq!(sim.verdict(), "Error | Cancelled | enough");
}
