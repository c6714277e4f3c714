//! What the source's status says of it, and when.

use std::time::Duration;

use xene_schemas::{
    meta::Revision,
    source::{Condition, ConditionStatus, SourceStatus},
};

use super::world::World;
use crate::decide::{
    desired::SourceHealth,
    event::{Command, Event},
};

fn stored(world: &World) -> SourceStatus {
    world.store.loaded.source.clone().unwrap()
}

/// As people read it.
fn shown(world: &World) -> SourceStatus {
    let mut status = stored(world);
    world.controller.as_ref().unwrap().last_look(world.now()).add_to(&mut status);
    status
}

fn condition(status: &SourceStatus, kind: &str) -> Condition {
    status.conditions.iter().find(|condition| condition.kind == kind).unwrap().clone()
}

fn looked(world: &mut World, revision: &str) {
    let (seen, at) = (Revision(revision.to_owned()), world.now().wall);
    world.tell(Event::Source(SourceHealth::Looked { seen, at }));
}

fn failed(world: &mut World, reason: &str, message: &str, stale: bool) {
    let since = world.now().wall;
    let (reason, message) = (reason.to_owned(), message.to_owned());
    world.tell(Event::Source(SourceHealth::Failed { reason, message, since, stale }));
}

fn told(world: &World, reason: &str) -> Vec<String> {
    world.store.events.iter().filter(|event| event.reason == reason).map(|event| event.message.clone()).collect()
}

#[test]
fn a_look_that_finds_nothing_new_is_told_and_writes_nothing() {
    let mut world = World::new(&["a"]);
    world.commit("w", "", None);
    world.observe();
    let before = (stored(&world), world.store.events.len());
    world.pass(Duration::from_secs(19));
    looked(&mut world, "r1");
    assert_eq!((stored(&world), world.store.events.len()), before);
    assert_eq!(shown(&world).observed_at, Some(world.now().wall));
    assert_eq!(world.controller.as_ref().unwrap().gauges(world.now()).source.lag, Duration::ZERO);
}

#[test]
fn a_commit_that_takes_effect_at_once_never_looks_late() {
    let mut world = World::new(&["a"]);
    world.commit("w", "", None);
    world.observe();
    looked(&mut world, "r2");
    assert_eq!(condition(&shown(&world), "Ready").status, ConditionStatus::True);
    world.commit("w", "", Some(r#""schedule":"* * * * *""#));
    let status = stored(&world);
    assert_eq!((status.seen.as_ref(), status.revision.as_ref().unwrap().0.as_str()), (status.revision.as_ref(), "r2"));
    assert_eq!(condition(&status, "Ready").status, ConditionStatus::True);
    // Without a look before, too.
    world.commit("v", "", None);
    let status = stored(&world);
    assert_eq!((status.seen.as_ref(), status.revision.as_ref().unwrap().0.as_str()), (status.revision.as_ref(), "r3"));
    assert_eq!(condition(&status, "Ready").status, ConditionStatus::True);
}

#[test]
fn a_commit_that_takes_its_time_is_seen_before_it_is_in_effect() {
    let mut world = World::new(&["a"]);
    world.commit("w", "", None);
    world.observe();
    looked(&mut world, "r2");
    world.pass(Duration::from_secs(5));
    looked(&mut world, "r2");
    let status = shown(&world);
    assert_eq!((status.seen.as_ref().unwrap().0.as_str(), status.revision.as_ref().unwrap().0.as_str()), ("r2", "r1"));
    let ready = condition(&status, "Ready");
    assert_eq!((ready.status, ready.reason.as_str()), (ConditionStatus::False, "Progressing"));
    let lag = |world: &World| world.controller.as_ref().unwrap().gauges(world.now()).source.lag;
    assert_eq!(lag(&world), Duration::from_secs(5));
    failed(&mut world, "ApplyFailed", "the disk is full", false);
    world.stop_controller();
    world.start_controller();
    world.pass(Duration::from_secs(5));
    assert!(lag(&world) >= Duration::from_secs(5), "it goes on over a restart");
    world.commit("v", "", None);
    assert_eq!(lag(&world), Duration::ZERO);
}

#[test]
fn what_keeps_a_commit_from_taking_effect_is_the_reason() {
    let mut world = World::new(&["a"]);
    world.commit("w", "", None);
    world.observe();
    looked(&mut world, "amended");
    failed(&mut world, "HistoryRewritten", "amended does not descend from r1", false);
    let status = stored(&world);
    assert_eq!(status.seen.as_ref().unwrap().0, "amended");
    let ready = condition(&status, "Ready");
    assert_eq!((ready.status, ready.reason.as_str()), (ConditionStatus::False, "HistoryRewritten"));
    let stalled = condition(&status, "Stalled");
    assert_eq!((stalled.status, stalled.reason.as_str()), (ConditionStatus::True, "HistoryRewritten"));
    failed(&mut world, "HistoryRewritten", "amended does not descend from r1", true);
    assert_eq!(told(&world, "HistoryRewritten").len(), 1);
    failed(&mut world, "HistoryRewritten", "another does not descend from r1", true);
    assert_eq!(told(&world, "HistoryRewritten").len(), 2, "each is one of its own");
}

#[test]
fn a_failure_that_lasts_keeps_its_reason() {
    let mut world = World::new(&["a"]);
    world.commit("w", "", None);
    world.observe();
    for reason in ["RefMissing", "ForeignOwner", "GitMissing", "AuthFailed"] {
        failed(&mut world, reason, "it can't be read", false);
        failed(&mut world, reason, "it can't be read", true);
        let status = stored(&world);
        let stalled = condition(&status, "Stalled");
        assert_eq!((stalled.status, stalled.reason.as_str()), (ConditionStatus::True, reason));
        let message = condition(&status, "Fetched").message;
        assert!(message.starts_with("it can't be read; this has lasted since "), "{message}");
    }
    let stale = told(&world, "Stale");
    assert!(stale[0].starts_with("nothing could be read for ") && stale[0].ends_with("it can't be read"), "{stale:?}");
}

#[test]
fn a_blocked_removal_is_told_as_that() {
    let mut world = World::new(&["a"]);
    for workflow in ["a", "b", "c", "d"] {
        world.commit(workflow, "", None);
    }
    world.remove_all(&["a", "b", "c"]);
    let blocked = told(&world, "PruneBlocked");
    assert_eq!(blocked.len(), 1);
    assert!(blocked[0].contains("a, b, c") && blocked[0].contains("xene approve-prune r5"), "{blocked:?}");
    assert!(told(&world, "Degraded").is_empty());
    world.sync();
    assert_eq!(told(&world, "PruneBlocked").len(), 1);
    world.ask(Command::ApprovePrune { commit: "r".into(), by: "me".into() }).unwrap();
    assert_eq!(condition(&stored(&world), "Degraded").status, ConditionStatus::False);
}

#[test]
fn an_orphan_that_is_kept_on_purpose_degrades_nothing() {
    let mut world = World::new(&["a"]);
    world.commit("v", "", None);
    world.commit("w", "", None);
    world.keep("w");
    world.remove("w");
    assert_eq!(world.store.pipelines_known(), 2);
    assert_eq!(condition(&stored(&world), "Degraded").status, ConditionStatus::False);
    world.stop_controller();
    world.start_controller();
    world.sync();
    assert_eq!(condition(&stored(&world), "Degraded").status, ConditionStatus::False, "also after a restart");
}
