//! The certificate authority is replaced while agents come and go.

use std::time::Duration;

use xene_schemas::controller::CaRotation;

use super::world::{MINUTE, World};
use crate::decide::event::{Authority, Command};

const HOUR: Duration = Duration::from_secs(3600);

/// Two agents, and an authority that has just replaced the one that both come from.
fn rotated() -> World {
    let mut world = World::new(&["a", "b"]);
    world.outdated = ["a".to_owned(), "b".to_owned()].into();
    let authority = Authority { fingerprint: "new".into(), before: Some((String::new(), world.now().wall)) };
    world.set_authority(authority, "me");
    world
}

fn rotation(world: &World) -> Option<CaRotation> {
    world.controller.as_ref().unwrap().status().ca_rotation
}

fn waiting(world: &World) -> Vec<String> {
    rotation(world).map(|rotation| rotation.waiting.iter().map(ToString::to_string).collect()).unwrap_or_default()
}

/// The agent comes by a certificate of the new authority.
fn comes(world: &mut World, name: &str) {
    world.outdated.remove(name);
    world.cut(name);
    world.heal(name);
    world.settle();
}

fn ended(world: &World) -> Vec<&str> {
    let ends = world.store.events.iter().filter(|event| event.reason == "CaRotationEnded");
    ends.map(|event| event.message.as_str()).collect()
}

#[test]
fn both_are_trusted_until_all_have_come_over_a_restart() {
    let mut world = rotated();
    assert_eq!(waiting(&world), ["a", "b"]);
    comes(&mut world, "a");
    assert_eq!(waiting(&world), ["b"]);
    world.stop_controller();
    world.start_controller();
    world.pass(MINUTE);
    assert_eq!(waiting(&world), ["b"], "who has come is known for good, and who has not is waited for");
    comes(&mut world, "b");
    assert_eq!((rotation(&world), &world.authority.before), (None, &None));
    assert_eq!(ended(&world), ["all agents have come by the new one: the old authority is trusted no more"]);
}

#[test]
fn nobody_waits_for_who_was_revoked_or_forgotten() {
    let mut world = rotated();
    world.ask(Command::Revoke("a".parse().unwrap())).unwrap();
    assert_eq!(waiting(&world), ["b"]);
    world.ask(Command::Forget("b".parse().unwrap())).unwrap();
    assert_eq!(rotation(&world), None);
}

#[test]
fn who_has_not_come_after_two_days_is_left_behind_and_told_of() {
    let mut world = rotated();
    comes(&mut world, "a");
    world.cut("b");
    world.pass(47 * HOUR);
    assert_eq!(waiting(&world), ["b"]);
    world.stop_controller();
    world.start_controller();
    world.pass(HOUR + MINUTE);
    assert_eq!(rotation(&world), None);
    assert_eq!(ended(&world), ["its time is over: the old authority is trusted no more, and 1 agent must join anew"]);
}

#[test]
fn a_connected_agent_that_has_not_come_is_cut_off_when_a_person_finishes_it() {
    let mut world = rotated();
    comes(&mut world, "b");
    world.set_authority(Authority { fingerprint: "new".into(), before: None }, "me");
    assert!(world.nodes["a"].session.is_none() && world.nodes["b"].session.is_some());
}
