//! What the source's status says of it, and when.

use xene_schemas::source::{Condition, ConditionStatus, SourceStatus};

use super::world::World;
use crate::decide::event::Command;

fn stored(world: &World) -> SourceStatus {
    world.store.loaded.source.clone().unwrap()
}

fn condition(status: &SourceStatus, kind: &str) -> Condition {
    status.conditions.iter().find(|condition| condition.kind == kind).unwrap().clone()
}

fn told(world: &World, reason: &str) -> Vec<String> {
    world.store.events.iter().filter(|event| event.reason == reason).map(|event| event.message.clone()).collect()
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
