//! Recovery, story by story: backups, lost stores, images that were rolled back.

use std::time::Duration;

use xene_schemas::{
    meta::{Epoch, RunName},
    phase::{AgentPhase, Reason, RunPhase},
};

use super::world::{MINUTE, Store, World, key};
use crate::decide::event::Command;

const EVERY_MINUTE: &str = r#""schedule":"* * * * *""#;
/// Moves 1.05·60 + 60 = 123 s after a renewal; a recovery waits for the default L: 1.05·300 + 60 = 375 s.
const SHORT: &str = r#","autonomy":"1m""#;
const WAIT: Duration = Duration::from_secs(380);

fn epoch(world: &World, pipeline: &str) -> Epoch {
    world.store.owners[&key(pipeline)].epoch
}

fn restore(world: &mut World, store: Store) {
    world.stop_controller();
    world.store = store;
    world.recover = true;
    world.start_controller();
    world.recover = false;
}

#[test]
fn a_live_claim_is_adopted_under_its_own_epoch() {
    let mut world = World::new(&["a", "b"]);
    world.commit("w", SHORT, Some(EVERY_MINUTE));
    world.pass(MINUTE);
    let backup = world.store.clone();
    world.ask(Command::Drain("a".parse().unwrap())).unwrap();
    assert_eq!(world.owner("w/p").as_deref(), Some("b"));
    world.pass(MINUTE);
    let moved = epoch(&world, "w/p");
    assert!(moved > backup.owners[&key("w/p")].epoch);

    restore(&mut world, backup);
    assert_eq!((world.owner("w/p").as_deref(), epoch(&world, "w/p")), (Some("b"), moved), "not a, as the backup says");
    world.pass(2 * MINUTE);
    assert_eq!((world.started("a"), world.started("b")), (vec![1020], vec![1080, 1140, 1200]), "no slot is left out");
    world.pass(WAIT);
    assert_eq!(epoch(&world, "w/p"), moved);
    assert!(!world.store.loaded.controller.as_ref().unwrap().recovering);
    world.ask(Command::Undrain("a".parse().unwrap())).unwrap();
    world.ask(Command::Drain("b".parse().unwrap())).unwrap();
    assert_eq!(world.owner("w/p").as_deref(), Some("a"));
    let generation = world.store.loaded.controller.as_ref().unwrap().generation;
    assert_eq!(
        epoch(&world, "w/p"),
        Epoch::before_first(generation).next(generation),
        "the first of the new generation"
    );
}

#[test]
fn a_claim_that_nobody_shows_is_granted_after_the_longest_wait() {
    let mut world = World::new(&["a", "b"]);
    world.commit("w", SHORT, Some(EVERY_MINUTE));
    world.pass(MINUTE);
    world.cut("a");
    let backup = world.store.clone();
    restore(&mut world, backup);
    assert_eq!(world.owner("w/p"), None, "b is here, but a may go on");
    let row = &world.store.owners[&key("w/p")];
    assert_eq!((row.reason.clone(), row.unsure), (Some(Reason::OWNER_SILENT), true));
    world.pass(Duration::from_secs(300));
    assert_eq!(world.owner("w/p"), None);
    // A restart loses nothing of it but time.
    world.stop_controller();
    world.start_controller();
    world.pass(Duration::from_secs(300));
    assert_eq!(world.owner("w/p"), None);
    let missed = world.starts.len();
    world.pass(Duration::from_secs(90));
    assert_eq!(world.owner("w/p").as_deref(), Some("b"));
    assert_eq!(world.starts.len(), missed + 1, "nothing is caught up");
    world.heal("a");
    world.pass(2 * MINUTE);
    assert_eq!(world.owner("w/p").as_deref(), Some("b"));
}

#[test]
fn a_claim_whose_lease_is_over_is_not_adopted() {
    let mut world = World::new(&["a", "b"]);
    world.commit("w", SHORT, Some(EVERY_MINUTE));
    world.pass(MINUTE);
    let backup = world.store.clone();
    world.stop_controller();
    world.pass(2 * MINUTE);
    restore(&mut world, backup);
    assert_eq!(world.owner("w/p"), None, "a is here, and shows an old claim");
    world.pass(WAIT);
    assert!(world.owner("w/p").is_some());
}

#[test]
fn agents_bring_back_what_a_lost_store_knew() {
    let mut world = World::new(&["a"]);
    world.commit("w", SHORT, Some(EVERY_MINUTE));
    world.commit("x", r#","autonomy":"Forever""#, None);
    world.pass(MINUTE);
    let before = (epoch(&world, "w/p"), epoch(&world, "x/p"));
    restore(&mut world, Store::default());
    assert_eq!((epoch(&world, "w/p"), epoch(&world, "x/p")), before);
    // Nothing was compiled yet: what no file asks for is given back, and what one asks for is granted again.
    world.sync();
    world.pass(MINUTE);
    assert_eq!((world.owner("w/p").as_deref(), world.owner("x/p").as_deref()), (Some("a"), Some("a")));
    assert!(epoch(&world, "w/p") > before.0);
    assert_eq!(world.started("a"), [1020, 1080]);
}

#[test]
fn an_image_rolled_back_behind_our_back_is_noticed_at_hello() {
    let mut world = World::new(&["a", "b"]);
    world.commit("w", SHORT, Some(EVERY_MINUTE));
    world.pass(MINUTE);
    world.cut("b");
    let image = world.store.clone();
    world.stop_controller();
    world.start_controller();
    let epoch_before = epoch(&world, "w/p");
    // Once more from the image: this incarnation was met by a already, in another process.
    world.stop_controller();
    world.store = image;
    world.start_controller();
    assert!(world.store.loaded.controller.as_ref().unwrap().recovering);
    assert!(world.alerts.iter().any(|alert| alert.contains("rolled back")), "{:?}", world.alerts);
    assert_eq!((world.owner("w/p").as_deref(), epoch(&world, "w/p")), (Some("a"), epoch_before));
    world.pass(WAIT);
    assert!(!world.store.loaded.controller.as_ref().unwrap().recovering);
    let alerts = world.alerts.len();
    world.heal("b");
    assert_eq!(world.alerts.len(), alerts, "an agent that was away for all of it knows nothing newer");
}

#[test]
fn a_claim_without_end_waits_for_its_agent_or_a_person() {
    let mut world = World::new(&["a", "b"]);
    world.commit("w", r#","autonomy":"Forever""#, Some(EVERY_MINUTE));
    world.commit("x", r#","autonomy":"Forever""#, None);
    world.pass(MINUTE);
    assert_eq!((world.owner("w/p").as_deref(), world.owner("x/p").as_deref()), (Some("a"), Some("b")));
    world.cut("a");
    world.cut("b");
    let backup = world.store.clone();
    restore(&mut world, backup);
    world.add("c");
    world.pass(10 * WAIT);
    assert_eq!((world.owner("w/p"), world.owner("x/p")), (None, None));
    assert!(world.store.owners[&key("w/p")].message.contains("without end"));
    world.heal("a");
    assert_eq!(world.owner("w/p").as_deref(), Some("a"), "however late");
    world.crash("b");
    world.commit("x", SHORT, None);
    assert!(world.owner("x/p").is_some_and(|owner| owner != "b"), "a person said so");
}

#[test]
fn runs_under_way_are_in_doubt_and_never_started_again() {
    let mut world = World::new(&["a"]);
    world.commit("w", SHORT, None);
    world.slow = true;
    world.cut("a");
    let waits = world.start("w/p", 1).unwrap();
    let backup = world.store.clone();
    world.heal("a");
    assert_eq!(world.starts.len(), 1);
    world.end_steps("a");
    world.settle();
    assert_eq!(world.run(waits).status.phase, RunPhase::Success);
    let second = world.start("w/p", 2).unwrap();
    restore(&mut world, backup);
    let status = |world: &World, run: RunName| world.store.runs.get(&run).map(|row| row.run.status.phase);
    assert_eq!(status(&world, waits), Some(RunPhase::Unknown), "whether it began, this store does not know");
    assert_eq!(status(&world, second), None, "and of this one it never heard");
    world.end_steps("a");
    world.pass(WAIT);
    assert_eq!(world.starts.len(), 2, "neither starts again");
    world.pass(Duration::from_secs(7 * 3600));
    assert_eq!(status(&world, waits), Some(RunPhase::Error));
    assert_eq!(world.run(waits).status.reason, Some(Reason::AGENT_LOST));
}

#[test]
fn a_recovering_controller_lets_in_agents_that_the_backup_does_not_know() {
    let mut world = World::new(&["a"]);
    let backup = world.store.clone();
    world.add("b");
    restore(&mut world, backup);
    assert!(world.store.agents.contains_key("b"));
    world.ask(Command::Revoke("b".parse().unwrap())).unwrap();
    let backup = world.store.clone();
    restore(&mut world, backup);
    assert!(world.store.agents["b"].revoked);
    let b = world.controller.as_ref().unwrap().agent(world.now(), &"b".parse().unwrap()).unwrap();
    assert_eq!((b.status.phase, b.status.address), (AgentPhase::Revoked, None), "who was revoked stays so");
}

#[test]
fn a_lost_store_waits_for_the_longest_lease_that_was_given() {
    let mut world = World::new(&["a", "b"]);
    world.commit("w", r#","autonomy":"10m""#, Some(EVERY_MINUTE));
    world.pass(MINUTE);
    assert_eq!(world.owner("w/p").as_deref(), Some("a"));
    world.cut("a");
    // a does not hear of it, and the files say nothing of ten minutes any more.
    world.commit("w", SHORT, Some(EVERY_MINUTE));
    restore(&mut world, Store::default());
    world.sync();
    world.pass(WAIT);
    assert_eq!(world.owner("w/p"), None, "b was told of them");
    // A restart forgets it as little, and begins to wait again.
    world.stop_controller();
    world.cut("b");
    world.start_controller();
    world.pass(Duration::from_secs(680));
    assert!(world.store.loaded.controller.as_ref().unwrap().recovering);
    world.pass(Duration::from_secs(20));
    world.heal("b");
    assert_eq!(world.owner("w/p").as_deref(), Some("b"));
    let row = world.store.loaded.controller.as_ref().unwrap();
    assert_eq!((row.recovering, row.longest), (false, None));
}
