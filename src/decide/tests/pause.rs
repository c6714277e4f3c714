//! Planned downtime: a longer L for a while, and how it becomes shorter again.

use std::time::Duration;

use xene_schemas::pipeline::Autonomy;

use super::world::{MINUTE, World, key};
use crate::decide::event::{Command, Refusal};

const EVERY_MINUTE: &str = r#""schedule":"* * * * *""#;
const SHORT: &str = r#","autonomy":"1m""#;
const HOUR: Duration = Duration::from_secs(3600);

fn pause(world: &mut World, lasts: Duration) {
    world.ask(Command::Pause { lasts, by: "me".into() }).unwrap();
}

#[test]
fn cron_goes_on_for_as_long_as_was_announced() {
    let mut world = World::new(&["a", "b"]);
    world.commit("w", SHORT, Some(EVERY_MINUTE));
    world.pass(MINUTE);
    pause(&mut world, 4 * HOUR);
    let status = world.controller.as_ref().unwrap().status();
    assert_eq!((status.pause.unwrap().by.as_str(), status.unheard.len()), ("me", 0), "all have heard");
    let before = world.starts.len();
    world.stop_controller();
    world.pass(4 * HOUR - MINUTE);
    assert_eq!(world.starts.len() - before, 239, "each minute");
    world.start_controller();
    world.pass(10 * MINUTE);
    assert!(world.controller.as_ref().unwrap().status().pause.is_none(), "it ends by itself");
    let row = &world.store.owners[&key("w/p")];
    assert_eq!((row.autonomy, row.longer), ("1m".parse::<Autonomy>().unwrap(), None));
    assert!(world.store.events.iter().any(|event| event.reason == "PauseEnded"));
    world.cut("a");
    world.pass(3 * MINUTE);
    assert_eq!(world.owner("w/p").as_deref(), Some("b"), "W is short again, since a has shown that it knows");
}

#[test]
fn who_has_not_heard_that_it_is_shorter_again_is_waited_for() {
    let mut world = World::new(&["a", "b"]);
    world.commit("w", SHORT, Some(EVERY_MINUTE));
    world.pass(MINUTE);
    pause(&mut world, HOUR);
    world.cut("a");
    world.ask(Command::Unpause { by: "me".into() }).unwrap();
    let status = world.controller.as_ref().unwrap().status();
    assert_eq!((status.pause, status.unheard.len()), (None, 1));
    world.pass(30 * MINUTE);
    assert_eq!(world.owner("w/p").as_deref(), Some("a"), "its lease runs for an hour");
    assert_eq!(world.started("a").len(), 31);
    world.pass(HOUR);
    assert_eq!(world.owner("w/p").as_deref(), Some("b"));
    assert_eq!(world.ask(Command::Unpause { by: "me".into() }), Err(Refusal::NotPaused));
}

#[test]
fn a_new_pipeline_and_a_restart_keep_the_pause() {
    let mut world = World::new(&["a"]);
    pause(&mut world, HOUR);
    world.stop_controller();
    world.start_controller();
    world.commit("w", SHORT, None);
    let Autonomy::For(l) = world.store.owners[&key("w/p")].autonomy else { panic!() };
    assert!(Duration::from(l) >= HOUR);
    world.commit("forever", r#","autonomy":"Forever""#, None);
    assert_eq!(world.store.owners[&key("forever/p")].autonomy, Autonomy::Forever);
}
