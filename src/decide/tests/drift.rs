//! Rows that were changed behind the controller's back.

use super::world::{World, key};
use crate::decide::{desired::Found, event::Event};

pub(super) fn found(world: &World) -> Found {
    let pipelines = world.store.pipelines.iter().map(|(key, row)| (key.clone(), Some(row.clone())));
    let workflows = world.store.workflows.clone().into_iter().collect();
    let notifiers = world.store.notifiers.clone().into_iter().collect();
    Found { workflows, pipelines: pipelines.collect(), notifiers }
}

/// The source says what it said, all of it; the store is what it is.
pub(super) fn repair(world: &mut World, found: Found) {
    let mut desired = world.compile();
    desired.revision = world.store.loaded.source.as_ref().unwrap().revision.clone().unwrap();
    world.tell(Event::Drifted(Box::new(desired), Box::new(found)));
    world.settle();
}

#[test]
fn what_was_changed_removed_or_added_is_put_back() {
    let mut world = World::new(&["x"]);
    world.commit_all("w", &[("a", ""), ("b", ""), ("c", "")], None, "{}");
    world.commit_all("v", &[("a", "")], None, "{}");
    world.commit_all("untouched", &[("a", "")], None, "{}");
    let (workflows, pipelines) = (world.store.workflows.clone(), world.store.pipelines.clone());
    let epochs: Vec<_> = ["w/a", "w/b", "w/c"].map(|of| world.store.owners[&key(of)].epoch).into();
    let events = world.store.events.len();

    world.store.workflows.get_mut("w").unwrap().spec.suspend = true;
    world.store.pipelines.get_mut(&key("w/a")).unwrap().suspend = true;
    world.store.pipelines.remove(&key("w/b"));
    world.store.workflows.remove("v");
    let mut alien = workflows["untouched"].clone();
    alien.metadata.name = "alien".parse().unwrap();
    world.store.workflows.insert(alien.metadata.name.clone(), alien);
    for of in ["alien/p", "w/extra"] {
        let mut row = pipelines[&key("w/c")].clone();
        row.key = key(of);
        world.store.pipelines.insert(row.key.clone(), row);
    }
    let mut found = found(&world);
    // Its compiled spec is gone.
    found.pipelines.insert(key("v/a"), None);
    repair(&mut world, found);

    assert_eq!(world.store.workflows, workflows);
    assert_eq!(world.store.pipelines, pipelines);
    let now: Vec<_> = ["w/a", "w/b", "w/c"].map(|of| world.store.owners[&key(of)].epoch).into();
    assert_eq!(now, epochs, "nobody loses a pipeline over it");
    let told: Vec<_> = world.store.events[events..].iter().filter(|event| event.reason == "DriftRepaired").collect();
    assert_eq!(told.len(), 1);
    let names = "pipeline/v/a, pipeline/w/a, pipeline/w/b, pipeline/w/extra, workflow/alien, workflow/v, workflow/w";
    assert!(told[0].message.contains(names), "{}", told[0].message);
    assert!(world.store.events[events..].iter().all(|event| !event.regarding.contains("untouched")));
    world.start("w/b", 1).unwrap();
}

#[test]
fn without_a_difference_nothing_is_written() {
    let mut world = World::new(&["x"]);
    world.commit_all("w", &[("a", "")], None, "{}");
    let (workflows, owners) = (world.store.workflows.clone(), world.store.owners.clone());
    let found = found(&world);
    repair(&mut world, found);
    assert_eq!((&world.store.workflows, &world.store.owners), (&workflows, &owners));
    let last = world.store.events.last().unwrap();
    assert!(last.message.contains("what it keeps of files"), "{}", last.message);
}
