//! Exclusive pipelines: their runs end before another agent may have them.

use std::time::Duration;

use xene_schemas::phase::{Reason, RunPhase};

use super::world::{MINUTE, World, key};
use crate::decide::event::Command;

/// Asked to end 47 s after the last renewal, and killed 5 s later; taken over 123 s after it.
const SHORT: &str = r#","autonomy":"1m","exclusive":true,"gracePeriod":"1h""#;

/// Two agents; steps end only when they are told to.
fn two(pipeline: &str) -> World {
    let mut world = World::new(&["a", "b"]);
    world.slow = true;
    world.commit("w", pipeline, None);
    world.pass(MINUTE);
    assert_eq!(world.owner("w/p").as_deref(), Some("a"));
    world
}

#[test]
fn a_run_goes_on_for_as_long_as_the_lease_is_renewed_and_ends_with_it() {
    let mut world = two(SHORT);
    let run = world.start("w/p", 1).unwrap();
    world.pass(10 * MINUTE);
    assert_eq!(world.run(run).status.phase, RunPhase::Running);
    world.cut("a");
    world.pass(Duration::from_secs(30));
    assert!(world.runs_on("a"), "the lease has not ended");
    world.pass(Duration::from_secs(30));
    assert!(!world.runs_on("a"), "nobody else can have it yet");
    assert_eq!(world.owner("w/p").as_deref(), Some("a"));
    world.pass(2 * MINUTE);
    assert_eq!(world.owner("w/p").as_deref(), Some("b"));
    world.heal("a");
    let status = &world.run(run).status;
    assert_eq!((status.phase, status.reason.clone()), (RunPhase::Error, Some(Reason::LEASE_EXPIRED)));
}

#[test]
fn a_shorter_autonomy_bounds_what_runs_before_the_controller_counts_on_it() {
    for paused in [false, true] {
        let long = if paused { SHORT } else { r#","autonomy":"20m","exclusive":true,"gracePeriod":"1h""# };
        let mut world = two(long);
        if paused {
            world.ask(Command::Pause { lasts: 20 * MINUTE, by: "me".into() }).unwrap();
        }
        let run = world.start("w/p", 1).unwrap();
        world.pass(MINUTE);
        if paused {
            world.ask(Command::Unpause { by: "me".into() }).unwrap();
        } else {
            world.commit("w", SHORT, None);
        }
        world.settle();
        assert_eq!(world.store.owners[&key("w/p")].longer, None, "a has said that it goes by the shorter one");
        assert_eq!(world.run(run).status.phase, RunPhase::Running, "which is no reason to end");
        world.cut("a");
        world.pass(2 * MINUTE);
        assert_eq!(world.owner("w/p").as_deref(), Some("a"));
        assert!(!world.runs_on("a"));
        world.pass(MINUTE);
        assert_eq!(world.owner("w/p").as_deref(), Some("b"));
    }
}

#[test]
fn what_is_not_exclusive_goes_on() {
    let mut world = two(r#","autonomy":"1m""#);
    world.start("w/p", 1).unwrap();
    world.cut("a");
    world.pass(10 * MINUTE);
    assert!(world.runs_on("a"));
}

#[test]
fn a_pipeline_is_given_back_when_its_run_has_ended_and_starts_nothing_before() {
    let mut world = two(SHORT);
    let first = world.start("w/p", 1).unwrap();
    world.ask(Command::Drain("a".parse().unwrap())).unwrap();
    let second = world.start("w/p", 2).unwrap();
    world.pass(10 * MINUTE);
    assert_eq!(world.owner("w/p").as_deref(), Some("a"), "however long it takes");
    assert_eq!(world.run(first).status.phase, RunPhase::Running);
    world.end_steps("a");
    world.settle();
    assert_eq!(world.owner("w/p").as_deref(), Some("b"));
    assert_eq!(world.run(first).status.phase, RunPhase::Success);
    assert_eq!(world.run(second).status.agent.as_ref().map(ToString::to_string).as_deref(), Some("b"));
    assert!(world.runs_on("b") && !world.runs_on("a"));
}

#[test]
fn without_end_only_planned_moves_matter() {
    let mut world = two(r#","autonomy":"Forever","exclusive":true"#);
    world.start("w/p", 1).unwrap();
    world.cut("a");
    world.pass(100 * MINUTE);
    assert!(world.runs_on("a"));
    world.heal("a");
    world.ask(Command::Drain("a".parse().unwrap())).unwrap();
    world.pass(MINUTE);
    assert_eq!(world.owner("w/p").as_deref(), Some("a"));
    world.end_steps("a");
    world.settle();
    assert_eq!(world.owner("w/p").as_deref(), Some("b"));
}

#[test]
fn an_agent_that_comes_back_knows_until_when_its_run_may_go_on() {
    let mut world = two(SHORT);
    let run = world.start("w/p", 1).unwrap();
    world.nodes.get_mut("a").unwrap().reachable = false;
    world.kill("a");
    world.pass(Duration::from_secs(20));
    world.start_agent("a");
    assert!(world.runs_on("a"), "the lease that was has not ended");
    world.pass(Duration::from_secs(40));
    assert!(!world.runs_on("a"));
    world.heal("a");
    assert_eq!(world.run(run).status.reason, Some(Reason::LEASE_EXPIRED));

    let mut world = two(SHORT);
    let run = world.start("w/p", 1).unwrap();
    world.kill("a");
    world.pass(Duration::from_secs(20));
    world.start_agent("a");
    world.pass(10 * MINUTE);
    assert_eq!(world.run(run).status.phase, RunPhase::Running, "its renewals put it off");
}

#[test]
fn a_run_that_was_ended_while_its_agent_stood_still_ended_for_its_lease() {
    let mut world = two(SHORT);
    let run = world.start("w/p", 1).unwrap();
    world.cut("a");
    // What stands above the step ended it in time, and the agent hears of that before it looks at a clock.
    world.seconds += 60;
    world.fails = true;
    world.end_steps("a");
    world.settle();
    world.heal("a");
    world.pass(MINUTE);
    assert_eq!(world.run(run).status.reason, Some(Reason::LEASE_EXPIRED));
}

#[test]
fn an_agent_that_is_killed_and_cut_off_still_gives_back_what_it_was_to() {
    for drained in [false, true] {
        let mut world = World::new(&["a", "b"]);
        world.slow = true;
        let fields = SHORT.replace("1m", "5m") + r#","concurrency":{"max":2}"#;
        world.commit("w", &fields, Some(r#""schedule":"30 * * * * *""#));
        let run = world.start("w/p", 1).unwrap();
        if drained {
            world.ask(Command::Drain("a".parse().unwrap())).unwrap();
        }
        world.nodes.get_mut("a").unwrap().reachable = false;
        world.kill("a");
        world.start_agent("a");
        world.pass(2 * MINUTE);
        assert!(world.runs_on("a"), "its lease goes on");
        assert_eq!(world.starts.len(), if drained { 1 } else { 2 }, "{:?}", world.starts);
        world.end_steps("a");
        world.heal("a");
        world.pass(MINUTE);
        assert_eq!(world.run(run).status.phase, RunPhase::Success);
        assert_eq!(world.owner("w/p").as_deref(), Some(if drained { "b" } else { "a" }));
    }
}
