//! Approvals: a person decides once, in time, about what waits; and the run's agent hears of it.

use xene_schemas::{
    meta::RunName,
    phase::{Reason, RunPhase, TaskPhase},
    wire::control::Decision,
};

use super::world::{MINUTE, World};
use crate::decide::event::{Answer, Command, Refusal};

/// `t`, then `deploy` once somebody approves it within five minutes.
fn gated(on_timeout: &str) -> (World, RunName) {
    let pipeline = format!(
        r#","tasks":{{"t":{{"steps":["true"]}},"deploy":{{"steps":["true"]}}}},
        "connectors":[{{"from":"t","to":"deploy","approval":{{"timeout":"5m","onTimeout":"{on_timeout}"}}}}]"#
    );
    let mut world = World::new(&["a"]);
    world.commit("w", &pipeline, None);
    let run = world.start("w/p", 1).unwrap();
    (world, run)
}

fn decide(world: &mut World, run: RunName, task: &str, approved: bool, by: &str) -> Result<Answer, Refusal> {
    world.ask(Command::Approve(Decision { run, task: task.into(), approved, by: by.into() }))
}

/// The run, and the gated task: its phase and reason, and who decided what.
fn told(world: &World, run: RunName) -> (RunPhase, TaskPhase, Option<Reason>, Option<(bool, String)>) {
    let status = &world.run(run).status;
    let task = &status.tasks["deploy"];
    let decided = task.approval.as_ref().and_then(|approval| approval.approved.zip(approval.by.clone()));
    (status.phase, task.phase, task.reason.clone(), decided)
}

#[test]
fn what_is_approved_runs_and_what_is_rejected_does_not() {
    for approved in [true, false] {
        let (mut world, run) = gated("Reject");
        assert_eq!(told(&world, run), (RunPhase::Running, TaskPhase::NotExecuted, told(&world, run).2, None));
        assert_eq!(decide(&mut world, run, "deploy", approved, "ada"), Ok(Answer::Done));
        let decided = Some((approved, "ada".to_owned()));
        let expected = match approved {
            true => (RunPhase::Success, TaskPhase::Success, None, decided),
            false => (RunPhase::Error, TaskPhase::NotExecuted, Some(Reason::REJECTED), decided),
        };
        assert_eq!(told(&world, run), expected);
        assert!(world.store.runs[&run].decisions.is_empty(), "said, and told");
        assert_eq!(decide(&mut world, run, "deploy", approved, "ada"), Err(Refusal::Ended(run)));
    }
}

#[test]
fn silence_decides_when_its_time_is_over() {
    for (on_timeout, phase) in [("Reject", TaskPhase::NotExecuted), ("Approve", TaskPhase::Success)] {
        let (mut world, run) = gated(on_timeout);
        world.pass(4 * MINUTE);
        assert_eq!(told(&world, run).3, None);
        world.pass(2 * MINUTE);
        assert_eq!(told(&world, run).1, phase);
        assert_eq!(told(&world, run).3, Some((on_timeout == "Approve", "timeout".to_owned())));
        assert_eq!(decide(&mut world, run, "deploy", true, "ada"), Err(Refusal::Ended(run)));
    }
}

#[test]
fn what_does_not_wait_is_not_decided() {
    let (mut world, run) = gated("Reject");
    let nobody = RunName::new(world.now().wall, 99);
    assert_eq!(
        decide(&mut world, nobody, "deploy", true, "ada"),
        Err(Refusal::NotFound { kind: "run", name: nobody.to_string() })
    );
    assert_eq!(
        decide(&mut world, run, "deply", true, "ada"),
        Err(Refusal::NotFound { kind: "task", name: "deply".into() })
    );
    let others = vec!["deploy".to_owned()];
    assert_eq!(decide(&mut world, run, "t", true, "ada"), Err(Refusal::NotWaiting { run, task: "t".into(), others }));
    assert_eq!(told(&world, run).3, None);
}

#[test]
fn the_first_decision_holds_while_its_agent_is_away_and_is_said_when_it_is_back() {
    let (mut world, run) = gated("Reject");
    world.cut("a");
    assert_eq!(decide(&mut world, run, "deploy", true, "ada"), Ok(Answer::Done));
    assert_eq!(decide(&mut world, run, "deploy", true, "bob"), Ok(Answer::Done), "as was decided");
    assert_eq!(
        decide(&mut world, run, "deploy", false, "bob"),
        Err(Refusal::Decided { run, task: "deploy".into(), by: "ada".into(), approved: true })
    );
    world.stop_controller();
    world.start_controller();
    assert_eq!(told(&world, run).3, None, "nobody has told it");
    world.heal("a");
    assert_eq!(told(&world, run).3, Some((true, "ada".to_owned())));
    assert_eq!(told(&world, run).0, RunPhase::Success);
}

#[test]
fn a_decision_that_comes_too_late_changes_nothing() {
    let (mut world, run) = gated("Reject");
    world.cut("a");
    world.pass(3 * MINUTE);
    assert_eq!(decide(&mut world, run, "deploy", true, "ada"), Ok(Answer::Done));
    world.pass(3 * MINUTE);
    world.heal("a");
    assert_eq!(told(&world, run).3, Some((false, "timeout".to_owned())));
    assert!(world.store.runs[&run].decisions.is_empty());
}

#[test]
fn the_name_of_a_matrix_means_all_instances_that_wait() {
    let mut world = World::new(&["a"]);
    world.commit(
        "w",
        r#","tasks":{"t":{"steps":["true"]},"deploy":{"matrix":{"to":["x","y"]},"steps":["true"]}},
        "connectors":[{"from":"t","to":"deploy","approval":{}}]"#,
        None,
    );
    let run = world.start("w/p", 1).unwrap();
    assert_eq!(decide(&mut world, run, "deploy[to=x]", false, "ada"), Ok(Answer::Done));
    assert_eq!(decide(&mut world, run, "deploy", true, "bob"), Ok(Answer::Done), "the other");
    let phases: Vec<TaskPhase> = world.run(run).status.tasks.values().map(|task| task.phase).collect();
    assert_eq!(phases, [TaskPhase::Success, TaskPhase::NotExecuted, TaskPhase::Success]);
}
