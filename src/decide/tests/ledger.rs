//! The firing ledger: every due time has its row, whatever happens to whom.

use std::collections::BTreeMap;

use jiff::Timestamp;
use xene_agent::decide::{event::Event as AgentEvent, time::after};
use xene_schemas::phase::Reason;

use super::world::{MINUTE, World, key};
use crate::decide::{
    event::Command,
    rows::{LedgerRow, Suspendable},
};

const EVERY_MINUTE: &str = r#""schedule":"* * * * *""#;

/// The rows as a store keeps them: whoever knows less is passed over.
fn rows(world: &World) -> BTreeMap<Timestamp, LedgerRow> {
    let mut rows: BTreeMap<Timestamp, LedgerRow> = BTreeMap::new();
    for row in &world.store.ledger {
        if rows.get(&row.slot).is_none_or(|known| !row.yields_to(known)) {
            rows.insert(row.slot, row.clone());
        }
    }
    rows
}

/// What became of each minute from the first on: its own row's reason, or that of a row that covers it.
fn minutes(world: &World, first: Timestamp, last: Timestamp) -> Vec<String> {
    let rows = rows(world);
    let slots = std::iter::successors(Some(first), |slot| Some(after(*slot, MINUTE))).take_while(|slot| *slot <= last);
    let told = |row: &LedgerRow| row.reason.as_ref().map_or("Fired", Reason::as_str).to_owned();
    slots
        .map(|slot| match rows.get(&slot) {
            Some(row) => told(row),
            None => {
                let covers = |row: &&LedgerRow| row.slot < slot && row.until.is_some_and(|until| slot <= until);
                let covering: Vec<&LedgerRow> = rows.values().filter(covers).collect();
                assert!(covering.len() <= 1, "{slot}: {covering:?}");
                covering.first().map_or_else(|| "nothing".into(), |row| format!("in {}", told(row)))
            }
        })
        .collect()
}

fn first_slot(world: &World) -> Timestamp {
    let now = world.now().wall.as_second();
    Timestamp::from_second(now - now.rem_euclid(60) + 60).unwrap()
}

#[test]
fn a_run_brings_its_row_along() {
    let mut world = World::new(&["a"]);
    world.commit("w", "", Some(EVERY_MINUTE));
    let first = first_slot(&world);
    world.pass(3 * MINUTE);
    assert_eq!(minutes(&world, first, after(first, 2 * MINUTE)), ["Fired", "Fired", "Fired"]);
    for row in rows(&world).values() {
        let run = row.run.unwrap();
        assert_eq!(world.run(run).spec.trigger.scheduled_time, Some(row.slot));
        assert_eq!(row.agent.as_ref().map(ToString::to_string).as_deref(), Some("a"));
    }
}

#[test]
fn reasons_survive_the_crash_of_an_agent_that_is_cut_off() {
    let mut world = World::new(&["a"]);
    world.slow = true;
    world.commit("w", r#","concurrency":{"policy":"Skip"}"#, Some(EVERY_MINUTE));
    let first = first_slot(&world);
    world.pass(MINUTE);
    world.cut("a");
    world.pass(3 * MINUTE);
    assert_eq!(rows(&world).len(), 1, "nobody heard of the others yet");
    world.crash("a");
    world.start_agent("a");
    world.heal("a");
    world.pass(MINUTE / 60);
    assert_eq!(minutes(&world, first, after(first, 3 * MINUTE)), ["Fired", "Overlap", "Overlap", "Overlap"]);
    let before = world.store.ledger.len();
    world.cut("a");
    world.heal("a");
    world.pass(MINUTE / 60);
    assert_eq!(world.store.ledger.len(), before, "what is acknowledged is not said again");
}

#[test]
fn what_a_lost_owner_may_have_started_is_one_row() {
    let mut world = World::new(&["a", "b"]);
    world.commit("w", "", Some(EVERY_MINUTE));
    let first = first_slot(&world);
    world.pass(3 * MINUTE);
    let owner = world.owner("w/p").unwrap();
    world.cut(&owner);
    world.pass(12 * MINUTE);
    assert_ne!(world.owner("w/p").unwrap(), owner, "the other has taken over");
    let told = minutes(&world, first, after(first, 14 * MINUTE));
    assert!(!told.contains(&"nothing".to_owned()), "{told:?}");
    let doubts = rows(&world).values().filter(|row| row.reason == Some(Reason::UNKNOWN)).count();
    assert_eq!(doubts, 1, "{told:?}");
    assert_eq!((told[2].as_str(), told[3].as_str(), told[14].as_str()), ("Fired", "in Unknown", "Fired"));
    // The old owner comes back, and tells what it did start.
    world.heal(&owner);
    world.pass(MINUTE / 60);
    let told = minutes(&world, first, after(first, 14 * MINUTE));
    assert_eq!(told[3..7], ["Fired", "Fired", "Fired", "Fired"], "{told:?}");
    assert!(told.iter().all(|told| told == "Fired" || told == "in Unknown"), "{told:?}");
}

#[test]
fn an_edit_while_the_agent_is_away_leaves_no_due_time_without_a_row() {
    let mut world = World::new(&["a"]);
    world.commit("w", "", Some(EVERY_MINUTE));
    let first = first_slot(&world);
    world.pass(2 * MINUTE);
    world.cut("a");
    // The lease ends after five minutes: from then on nobody looks.
    world.pass(10 * MINUTE);
    world.commit("w", "", Some(r#""schedule":"0 0 1 1 *""#));
    world.heal("a");
    world.pass(MINUTE / 2);
    let told = minutes(&world, first, after(first, 11 * MINUTE));
    assert!(!told.contains(&"nothing".to_owned()), "{told:?}");
}

#[test]
fn a_removed_pipeline_leaves_no_tick_without_a_row() {
    let mut world = World::new(&["a"]);
    world.slow = true;
    world.commit("w", "", Some(EVERY_MINUTE));
    let first = first_slot(&world);
    world.pass(3 * MINUTE);
    world.remove("w");
    world.pass(MINUTE);
    assert_eq!(minutes(&world, first, after(first, 2 * MINUTE)), ["Fired", "Coalesced", "Moving"]);
}

const ONCE_A_YEAR: &str = r#""schedule":"0 0 1 1 *""#;

/// The due times that were fired.
fn fired(world: &World) -> Vec<Timestamp> {
    rows(world).values().filter(|row| row.run.is_some()).map(|row| row.slot).collect()
}

#[test]
fn an_edit_that_no_agent_looks_at_never_fires_the_past() {
    // Nobody ever had it.
    let mut world = World::empty();
    world.commit("w", "", Some(EVERY_MINUTE));
    let first = first_slot(&world);
    world.pass(5 * MINUTE);
    world.commit("w", "", Some(ONCE_A_YEAR));
    world.pass(5 * MINUTE);
    world.commit("w", "", Some(EVERY_MINUTE));
    let edited = first_slot(&world);
    world.add("a");
    world.pass(2 * MINUTE);
    assert_eq!(fired(&world), [edited, after(edited, MINUTE)]);
    let told = minutes(&world, first, after(first, 2 * MINUTE));
    assert_eq!(told, ["TriggerEdited", "in TriggerEdited", "in TriggerEdited"]);

    // It was given back.
    let mut world = World::new(&["a"]);
    world.commit("w", "", Some(ONCE_A_YEAR));
    world.tell_agent("a", AgentEvent::DrainRequested);
    world.settle();
    assert!(world.nodes["a"].exited);
    world.pass(5 * MINUTE);
    world.commit("w", "", Some(EVERY_MINUTE));
    let edited = first_slot(&world);
    world.add("b");
    world.pass(2 * MINUTE);
    assert_eq!(fired(&world), [edited, after(edited, MINUTE)]);
}

#[test]
fn what_passes_while_it_is_edited_for_another_reason_is_caught_up() {
    let mut world = World::empty();
    world.commit("w", "", Some(EVERY_MINUTE));
    let first = first_slot(&world);
    world.pass(3 * MINUTE);
    world.commit("w", r#","timeout":"1h""#, Some(EVERY_MINUTE));
    world.add("a");
    assert_eq!(fired(&world).len(), 1, "one start for all that was missed");
    assert_eq!(minutes(&world, first, after(first, 2 * MINUTE)).iter().filter(|told| *told == "Fired").count(), 1);
}

#[test]
fn what_nobody_looked_at_while_it_was_suspended_does_not_fire_afterwards() {
    for what in [Suspendable::Pipeline(key("w/p")), Suspendable::Workflow("w".parse().unwrap())] {
        let mut world = World::empty();
        world.commit("w", "", Some(EVERY_MINUTE));
        let first = first_slot(&world);
        world.suspend(what.clone(), None);
        world.pass(3 * MINUTE);
        world.ask(Command::Resume { what, by: "me".into() }).unwrap();
        let resumed = first_slot(&world);
        world.add("a");
        world.pass(MINUTE);
        assert_eq!(fired(&world), [resumed]);
        assert_eq!(minutes(&world, first, first), ["Suspended"]);
    }
}
