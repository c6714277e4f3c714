//! Many agents that fall silent at once, a person who says that a machine is off, a controller that stood still.

use std::time::Duration;

use xene_schemas::phase::{Reason, RunPhase};

use super::world::{MINUTE, World, key};
use crate::decide::event::Command;

/// Taken over 123 s after the last renewal.
const SHORT: &str = r#","autonomy":"1m""#;
const PIPELINES: [&str; 5] = ["w0/p", "w1/p", "w2/p", "w3/p", "w4/p"];
const AGENTS: [&str; 5] = ["a", "b", "c", "d", "e"];

/// Five agents with a pipeline each.
fn five() -> World {
    let mut world = World::new(&AGENTS);
    (0..5).for_each(|at| world.commit(&format!("w{at}"), SHORT, None));
    world.pass(MINUTE);
    assert_eq!(owners(&world), AGENTS);
    world
}

fn owners(world: &World) -> [String; 5] {
    PIPELINES.map(|pipeline| world.owner(pipeline).unwrap_or_default())
}

fn breaker(world: &World) -> Option<Vec<String>> {
    let open = world.controller.as_ref().unwrap().status().breaker?;
    Some(open.agents.iter().map(ToString::to_string).collect())
}

fn told(world: &World, reason: &str) -> usize {
    world.store.events.iter().filter(|event| event.reason == reason && event.regarding == "controller").count()
}

#[test]
fn where_most_agents_fall_silent_at_once_nothing_is_taken_from_them() {
    let mut world = five();
    for (agent, wait) in [("a", 5), ("b", 5), ("c", 0)] {
        world.cut(agent);
        world.pass(Duration::from_secs(wait));
    }
    world.pass(30 * MINUTE);
    assert_eq!(owners(&world), AGENTS, "however long it takes");
    assert_eq!(breaker(&world), Some(["a", "b", "c"].map(String::from).to_vec()));
    assert_eq!(told(&world, "TakeoversHeld"), 1, "{:?}", world.store.events);
    assert!(world.alerts.iter().any(|alert| alert.contains("more than half")), "{:?}", world.alerts);
    let row = &world.store.owners[&key("w0/p")];
    assert_eq!(row.reason, Some(Reason::OWNER_SILENT));
    assert!(row.message.contains("most of the agents"), "{}", row.message);

    world.heal("a");
    world.pass(MINUTE);
    assert_eq!((breaker(&world), told(&world, "TakeoversResumed")), (None, 1));
    assert_eq!(owners(&world), AGENTS, "the others may be on their way, too: they get a fresh wait");
    assert_eq!(world.store.owners[&key("w0/p")].reason, None);
    world.heal("b");
    world.pass(4 * MINUTE);
    let [a, b, c, d, e] = owners(&world);
    assert_eq!([a, b, d, e].map(|owner| owner.len()), [1; 4]);
    assert_ne!(c, "c", "who is silent still is one of few");
}

#[test]
fn runs_of_agents_that_nothing_is_taken_from_are_unknown_meanwhile() {
    let mut world = five();
    world.slow = true;
    let run = world.start("w0/p", 1).unwrap();
    ["a", "b", "c"].iter().for_each(|agent| world.cut(agent));
    world.pass(30 * MINUTE);
    assert_eq!(owners(&world), AGENTS);
    assert_eq!(world.run(run).status.phase, RunPhase::Unknown);
    world.heal("a");
    world.pass(MINUTE);
    assert_eq!(world.run(run).status.phase, RunPhase::Running);
}

#[test]
fn two_of_three_and_three_one_after_the_other_are_replaced() {
    let mut world = World::new(&["a", "b", "c"]);
    (0..3).for_each(|at| world.commit(&format!("w{at}"), SHORT, None));
    world.pass(MINUTE);
    world.cut("a");
    world.cut("b");
    world.pass(5 * MINUTE);
    assert_eq!(["w0/p", "w1/p"].map(|p| world.owner(p).unwrap()), ["c", "c"], "two are too few to be the network");

    let mut world = five();
    for agent in ["a", "b", "c"] {
        world.cut(agent);
        world.pass(5 * MINUTE);
    }
    assert!(owners(&world).iter().all(|owner| owner == "d" || owner == "e"), "{:?}", owners(&world));
    assert_eq!(told(&world, "TakeoversHeld"), 0);
}

#[test]
fn who_has_only_what_was_removed_is_silent_like_the_others() {
    let mut world = five();
    ["a", "b", "c"].iter().for_each(|agent| world.cut(agent));
    world.remove("w0");
    world.pass(10 * MINUTE);
    assert_eq!(owners(&world)[1..], AGENTS[1..]);
    assert_eq!(breaker(&world), Some(["a", "b", "c"].map(String::from).to_vec()));
}

#[test]
fn how_long_others_are_silent_is_judged_by_the_shortest_wait_that_ran_out() {
    let mut world = five();
    world.label("a", "gpu", "yes");
    world.label("a", "disk", "yes");
    world.commit("l", r#","agents":{"labels":{"disk":"yes"}},"autonomy":"5m""#, None);
    world.commit("x", r#","agents":{"labels":{"gpu":"yes"}},"autonomy":"1m""#, None);
    world.pass(MINUTE);
    world.label("d", "disk", "yes");
    world.pass(MINUTE);
    world.cut("a");
    // Until 85 s before the last renewal of a is 375 s old.
    world.pass(Duration::from_secs(290));
    assert_eq!(world.owner("x/p").as_deref(), Some("a"), "nobody else has its label");
    assert_eq!(breaker(&world), None);
    ["b", "c"].iter().for_each(|agent| world.cut(agent));
    world.pass(Duration::from_secs(100));
    assert_eq!(breaker(&world), Some(["a", "b", "c"].map(String::from).to_vec()));
    assert_eq!(world.owner("l/p").as_deref(), Some("a"));
}

#[test]
fn what_waits_for_the_group_of_what_is_held_waits_on() {
    let mut world = World::new(&AGENTS);
    let of = |at: usize| format!(r#"{SHORT},"concurrency":{{"group":"g{at}"}}"#);
    (0..5).for_each(|at| world.commit(&format!("w{at}"), &of(at), None));
    world.commit("x", &of(0), None);
    world.pass(MINUTE);
    assert_eq!((owners(&world), world.owner("x/p").as_deref()), (AGENTS.map(String::from), Some("a")));
    world.slow = true;
    world.start("x/p", 1).unwrap();
    world.remove("x");
    world.pass(MINUTE);
    assert_eq!(world.owner("x/p"), None);
    // The first whose lease ends is a.
    world.cut("a");
    world.pass(Duration::from_secs(15));
    ["b", "c"].iter().for_each(|agent| world.cut(agent));
    world.pass(Duration::from_secs(60));
    world.commit("x", &of(0), None);
    // The run of before, which goes on at a as far as is known, is lost in the moment in which the lease of w0 ends.
    world.pass(10 * MINUTE);
    assert_eq!((owners(&world), world.owner("x/p")), (AGENTS.map(String::from), None));
    ["a", "b", "c"].iter().for_each(|agent| world.heal(agent));
    world.pass(5 * MINUTE);
    assert_eq!(world.owner("x/p").as_deref(), Some("a"), "where the rest of its group is");
}

#[test]
fn a_person_ends_the_breaker_by_forgetting() {
    let mut world = five();
    ["a", "b", "c"].iter().for_each(|agent| world.cut(agent));
    world.pass(10 * MINUTE);
    assert_eq!(owners(&world), AGENTS);
    world.ask(Command::Forget("a".parse().unwrap())).unwrap();
    assert!(["d", "e"].contains(&owners(&world)[0].as_str()), "{:?}", owners(&world));
    assert_eq!((breaker(&world), owners(&world)[1].as_str()), (None, "b"));
    world.pass(3 * MINUTE);
    assert!(owners(&world).iter().all(|owner| owner == "d" || owner == "e"), "{:?}", owners(&world));
}

#[test]
fn a_restart_does_not_close_the_breaker() {
    let mut world = five();
    ["a", "b", "c"].iter().for_each(|agent| world.cut(agent));
    world.pass(10 * MINUTE);
    world.stop_controller();
    world.pass(MINUTE);
    world.start_controller();
    world.pass(10 * MINUTE);
    assert_eq!(owners(&world), AGENTS);
    assert!(breaker(&world).is_some());
}

#[test]
fn a_controller_that_stood_still_gives_every_owner_a_fresh_wait() {
    let mut world = World::new(&["a", "b"]);
    world.commit("w", SHORT, None);
    world.pass(MINUTE);
    // It stands still until just after the lease has run out, as it has not heard a's renewals.
    world.seconds += 125;
    let now = world.now();
    let fx = world.controller.as_mut().unwrap().handle_timeout(now);
    assert!(fx.commit.is_empty(), "{fx:?}");
    assert_eq!(world.owner("w/p").as_deref(), Some("a"));
    world.pass(MINUTE);
    assert_eq!(world.owner("w/p").as_deref(), Some("a"));
    assert!(world.alerts.iter().all(|alert| !alert.contains("takes over")));
}
