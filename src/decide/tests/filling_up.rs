//! A store that has not much room left.

use super::world::{MINUTE, World};
use crate::decide::event::Event;

fn events(world: &World) -> Vec<(&str, &str)> {
    let ours = world.store.events.iter().filter(|event| event.reason.starts_with("Store"));
    ours.map(|event| (event.reason.as_str(), event.message.as_str())).collect()
}

fn measure(world: &mut World, used: u64, limit: u64) -> bool {
    world.tell(Event::StoreSize { used: used << 20, limit: limit << 20 });
    world.controller.as_ref().unwrap().status().store_filling_up.is_some()
}

#[test]
fn a_store_that_fills_up_is_told_once_and_goes_away_by_itself() {
    let mut world = World::new(&["a"]);
    assert!(!measure(&mut world, 799, 1000));
    assert!(measure(&mut world, 800, 1000));
    world.pass(MINUTE);
    assert!(measure(&mut world, 900, 1000), "it goes on");
    assert!(measure(&mut world, 751, 1000), "a little less is no end");
    assert!(measure(&mut world, 1000, 1000));
    assert!(!measure(&mut world, 749, 1000));
    assert!(!measure(&mut world, 790, 1000), "nor a little more a beginning");
    assert!(measure(&mut world, 3_000, 3_000));
    let told = [
        "the store fills up: 800.0 MiB are used of the 1000.0 MiB that it may come to on its disk; make room there, or \
         keep fewer runs: once it is full nothing new is taken",
        "the store has room again: 749.0 MiB of 1000.0 MiB are used",
        "the store fills up: 2.9 GiB are used of the 2.9 GiB that it may come to on its disk; make room there, or keep \
         fewer runs: once it is full nothing new is taken",
    ];
    assert_eq!(events(&world), [("StoreFillingUp", told[0]), ("StoreHasRoom", told[1]), ("StoreFillingUp", told[2])]);
    let status = world.controller.as_ref().unwrap().status().store_filling_up.unwrap();
    assert_eq!((status.used, status.limit), (3_000 << 20, 3_000 << 20));
    assert_eq!(world.alerts.len(), 2, "{:?}", world.alerts);
}
