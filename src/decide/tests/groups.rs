//! Groups of `concurrency`: together on one agent, and one `max` for all.

use xene_schemas::{
    meta::RunName,
    phase::{Reason, RunPhase},
};

use super::world::{MINUTE, World, key};
use crate::decide::{event::Command, preview::ToPlace};

const GROUP: &str = r#","autonomy":"1m","concurrency":{"group":"g"}"#;

fn phase(world: &World, run: RunName) -> RunPhase {
    world.run(run).status.phase
}

/// Two workflows of one group.
fn two(agents: &[&str]) -> World {
    let mut world = World::new(agents);
    world.commit("v", GROUP, None);
    world.commit("w", GROUP, None);
    world
}

#[test]
fn runs_of_a_group_take_turns_first_come_first_served() {
    let mut world = two(&["a", "b"]);
    assert_eq!((world.owner("v/p"), world.owner("w/p")), (Some("a".into()), Some("a".into())), "together");
    world.slow = true;
    let runs: Vec<RunName> =
        ["v/p", "w/p", "v/p"].iter().zip(1..).map(|(pipeline, n)| world.start(pipeline, n).unwrap()).collect();
    for done in 0..runs.len() {
        let phases: Vec<RunPhase> = runs.iter().map(|run| phase(&world, *run)).collect();
        assert_eq!(phases[done], RunPhase::Running, "{phases:?}");
        assert!(phases[done + 1..].iter().all(|phase| *phase == RunPhase::StartingUp), "{phases:?}");
        if done == 0 {
            assert_eq!(world.run(runs[1]).status.reason, Some(Reason::QUEUED));
        }
        world.end_steps("a");
        world.settle();
    }
}

#[test]
fn who_comes_often_takes_turns_with_the_others() {
    let mut world = World::new(&["a"]);
    world.commit_all("w", &[("p", GROUP), ("q", GROUP)], Some(r#""schedule":"* * * * *""#), "{}");
    world.slow = true;
    for _ in 0..12 {
        world.pass(MINUTE * 3 / 2);
        world.end_steps("a");
        world.settle();
    }
    let of = |pipeline: &str| world.store.runs.values().filter(|row| row.run.spec.key() == key(pipeline)).count();
    assert!(of("w/p") >= 5 && of("w/q") >= 5, "{} and {}", of("w/p"), of("w/q"));
}

#[test]
fn policies_look_at_the_whole_group_and_the_smallest_max_counts() {
    let mut world = World::new(&["a"]);
    world.commit("u", r#","concurrency":{"group":"g","max":3}"#, None);
    world.commit("v", r#","concurrency":{"group":"g","max":2,"policy":"Skip"}"#, None);
    world.commit("w", r#","concurrency":{"group":"g","max":2,"policy":"Replace"}"#, None);
    world.slow = true;
    let (first, second) = (world.start("u/p", 1).unwrap(), world.start("u/p", 2).unwrap());
    let third = world.start("u/p", 3).unwrap();
    assert_eq!(phase(&world, third), RunPhase::StartingUp, "two at once, though it would take three");
    let skipped = world.start("v/p", 4).unwrap();
    assert_eq!(world.run(skipped).status.reason, Some(Reason::OVERLAP));
    world.start("w/p", 5).unwrap();
    assert_eq!(world.run(first).status.reason, Some(Reason::CANCELLED), "the oldest of the group");
    assert_eq!(phase(&world, second), RunPhase::Running);
}

#[test]
fn a_group_waits_for_an_agent_that_fits_all() {
    let mut world = World::new(&["a", "b"]);
    let with = |label: &str| format!(r#","agents":{{"labels":{{"{label}":"yes"}}}},"concurrency":{{"group":"g"}}"#);
    world.label("a", "gpu", "yes");
    world.commit("v", &with("gpu"), None);
    assert_eq!(world.owner("v/p").as_deref(), Some("a"));
    world.commit("w", &with("disk"), None);
    assert_eq!((world.owner("v/p"), world.owner("w/p")), (None, None));
    let row = &world.store.owners[&key("w/p")];
    assert_eq!(row.reason, Some(Reason::NO_MATCHING_AGENT));
    assert_eq!(row.message, "no agent has the labels gpu=yes, disk=yes; all pipelines of group g go to one agent");
    world.label("b", "gpu", "yes");
    world.label("b", "disk", "yes");
    assert_eq!((world.owner("v/p").as_deref(), world.owner("w/p").as_deref()), (Some("b"), Some("b")));
    world.remove("w");
    assert_eq!(world.owner("v/p").as_deref(), Some("b"), "what fits stays");
}

#[test]
fn a_group_moves_as_a_whole_once_its_runs_have_ended() {
    let mut world = two(&["a", "b"]);
    world.slow = true;
    let run = world.start("v/p", 1).unwrap();
    let waiting = world.start("w/p", 2).unwrap();
    world.ask(Command::Drain("a".parse().unwrap())).unwrap();
    assert_eq!((world.owner("v/p"), world.owner("w/p")), (None, None));
    let row = &world.store.owners[&key("w/p")];
    assert_eq!(row.reason, Some(Reason::MOVING));
    assert_eq!(
        row.message,
        format!(
            "run {run} of v/p goes on on a, and not available: a (draining); all pipelines of group g go to one agent"
        )
    );
    assert_eq!(phase(&world, waiting), RunPhase::StartingUp);
    world.end_steps("a");
    world.settle();
    assert_eq!((world.owner("v/p").as_deref(), world.owner("w/p").as_deref()), (Some("b"), Some("b")));
    assert_eq!(phase(&world, waiting), RunPhase::Running, "on b");
}

#[test]
fn pipelines_that_form_a_group_come_together() {
    let mut world = World::new(&["a", "b"]);
    world.commit("v", "", None);
    world.commit("w", "", None);
    assert_ne!(world.owner("v/p"), world.owner("w/p"), "spread");
    world.commit("v", GROUP, None);
    world.commit("w", GROUP, None);
    assert!(world.owner("v/p").is_some());
    assert_eq!(world.owner("v/p"), world.owner("w/p"));
}

#[test]
fn a_lost_agent_hands_the_whole_group_on() {
    let mut world = World::new(&["a", "b"]);
    world.commit("v", r#","autonomy":"30s","concurrency":{"group":"g"}"#, None);
    world.commit("w", r#","autonomy":"3m","concurrency":{"group":"g"}"#, None);
    world.slow = true;
    let run = world.start("v/p", 1).unwrap();
    world.cut("a");
    world.pass(2 * MINUTE);
    assert_eq!(world.owner("v/p").as_deref(), Some("a"), "v could move; w may still be started by a");
    world.pass(4 * MINUTE);
    assert_eq!((world.owner("v/p").as_deref(), world.owner("w/p").as_deref()), (Some("b"), Some("b")));
    assert_eq!(phase(&world, run), RunPhase::Unknown, "which holds up nobody");
}

#[test]
fn a_group_leaves_a_drained_agent_that_died_with_a_run() {
    for restart in [false, true] {
        let mut world = two(&["a", "b"]);
        world.slow = true;
        let run = world.start("v/p", 1).unwrap();
        world.ask(Command::Drain("a".parse().unwrap())).unwrap();
        world.cut("a");
        if restart {
            world.stop_controller();
            world.start_controller();
        }
        world.pass(2 * MINUTE);
        assert_eq!((world.owner("v/p"), world.owner("w/p")), (None, None), "{run} may go on");
        assert_eq!(phase(&world, run), RunPhase::Running);
        world.pass(MINUTE);
        assert_eq!((world.owner("v/p").as_deref(), world.owner("w/p").as_deref()), (Some("b"), Some("b")));
        assert_eq!(phase(&world, run), RunPhase::Unknown);
        world.heal("a");
        world.end_steps("a");
        world.settle();
        assert_eq!(phase(&world, run), RunPhase::Success, "it was alive after all");
    }
}

#[test]
fn what_is_planned_for_a_group_is_what_comes_of_it() {
    let grouped = |key: &str, labels: &str| ToPlace {
        key: key.parse().unwrap(),
        labels: serde_json::from_str(labels).unwrap(),
        group: Some("g".parse().unwrap()),
    };
    let preview = |world: &World, pipelines: &[ToPlace], removed: &[&str]| -> Vec<(Option<String>, String)> {
        let removed = removed.iter().map(|removed| key(removed)).collect();
        let planned = world.controller.as_ref().unwrap().preview(pipelines, &removed);
        planned.into_values().map(|p| (p.after.map(|agent| agent.to_string()), p.message)).collect()
    };
    let mut world = World::new(&["a", "b"]);
    world.label("b", "gpu", "yes");
    world.commit("v", "", None);
    world.commit("w", "", None);
    world.commit("x", "", None);
    assert_ne!(world.owner("v/p"), world.owner("w/p"), "spread");

    // Two that are there form a group, and one comes to it.
    let pipelines = [grouped("v/p", "{}"), grouped("w/p", "{}"), grouped("y/p", "{}")];
    let planned = preview(&world, &pipelines, &[]);
    for workflow in ["v", "w", "y"] {
        world.commit(workflow, r#","concurrency":{"group":"g"}"#, None);
    }
    for ((agent, message), of) in planned.iter().zip(["v/p", "w/p", "y/p"]) {
        assert_eq!(*agent, world.owner(of), "{of}: {message}");
    }

    // What one of them asks for, all of them need.
    let planned = preview(&world, &[grouped("v/p", r#"{"gpu":"yes"}"#)], &[]);
    world.commit("v", r#","agents":{"labels":{"gpu":"yes"}},"concurrency":{"group":"g"}"#, None);
    assert_eq!(planned[0].0, world.owner("v/p"));
    assert_eq!(world.owner("w/p").as_deref(), Some("b"));
    let nowhere =
        [(None, "no agent has the labels gpu=yes, disk=yes; all pipelines of group g go to one agent".into())];
    assert_eq!(preview(&world, &[grouped("z/p", r#"{"disk":"yes"}"#)], &[]), nowhere);
    assert_eq!(preview(&world, &[grouped("z/p", r#"{"os":"linux"}"#)], &["v/p"])[0].0.as_deref(), Some("b"));
    world.remove("v");
    world.commit("z", r#","agents":{"labels":{"os":"linux"}},"concurrency":{"group":"g"}"#, None);
    assert_eq!(world.owner("z/p").as_deref(), Some("b"), "to the rest of its group");
}
