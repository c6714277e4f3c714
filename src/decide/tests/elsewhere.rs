//! `concurrency.max` where runs go on at the agent that had the pipeline before.

use xene_schemas::{meta::RunName, phase::RunPhase};

use super::world::{MINUTE, World};
use crate::decide::event::Command;

fn phase(world: &World, run: RunName) -> RunPhase {
    world.run(run).status.phase
}

/// A run goes on at a, which is drained; b has the pipeline, and is asked for another.
fn moved(pipeline: &str) -> (World, RunName) {
    let mut world = World::new(&["a", "b"]);
    world.commit("w", pipeline, None);
    world.slow = true;
    world.start("w/p", 1).unwrap();
    assert!(world.runs_on("a"));
    world.ask(Command::Drain("a".parse().unwrap())).unwrap();
    assert_eq!(world.owner("w/p").as_deref(), Some("b"), "at once");
    let second = world.start("w/p", 2).unwrap();
    (world, second)
}

#[test]
fn a_run_waits_for_those_that_go_on_elsewhere() {
    let (mut world, second) = moved("");
    assert_eq!((phase(&world, second), world.runs_on("b")), (RunPhase::StartingUp, false));
    // Another process of b knows it from its journal.
    world.crash("b");
    world.stop_controller();
    world.start_agent("b");
    world.start_controller();
    assert_eq!((phase(&world, second), world.runs_on("b")), (RunPhase::StartingUp, false));
    world.end_steps("a");
    world.settle();
    assert_eq!((phase(&world, second), world.runs_on("b")), (RunPhase::Running, true));
}

#[test]
fn there_is_room_beside_them_where_more_may_run() {
    let (mut world, second) = moved(r#","concurrency":{"max":2}"#);
    assert_eq!(phase(&world, second), RunPhase::Running);
    let third = world.start("w/p", 3).unwrap();
    assert_eq!(phase(&world, third), RunPhase::StartingUp, "two at once, on whatever agents");
}

#[test]
fn who_skips_what_overlaps_skips_it() {
    let (world, second) = moved(r#","concurrency":{"policy":"Skip"}"#);
    assert_eq!(phase(&world, second), RunPhase::Error);
}

#[test]
fn nobody_waits_for_a_run_whose_agent_is_lost() {
    let (mut world, second) = moved(r#","autonomy":"1m""#);
    world.crash("a");
    world.pass(MINUTE);
    assert_eq!(phase(&world, second), RunPhase::StartingUp);
    world.pass(2 * MINUTE);
    assert_eq!(phase(&world, second), RunPhase::Running);
}
