//! The wall clock of the controller's host leaps.

use std::time::Duration;

use jiff::SignedDuration;

use super::world::{MINUTE, World};
use crate::decide::event::{Command, Event, Refusal};

const EVERY_MINUTE: &str = r#""schedule":"* * * * *""#;
const HOUR: SignedDuration = SignedDuration::from_hours(1);

fn told(world: &World) -> Vec<&str> {
    let ours = world.store.events.iter().filter(|event| event.reason.starts_with("Clock"));
    ours.map(|event| event.reason.as_str()).collect()
}

fn leap(world: &World) -> Option<i64> {
    Some(world.controller.as_ref().unwrap().status().clock_leap?.ahead_seconds)
}

#[test]
fn nothing_goes_by_a_leap_that_nobody_confirmed() {
    let mut world = World::new(&["a"]);
    world.commit("w", "", Some(EVERY_MINUTE));
    world.pass(5 * MINUTE);
    let runs = world.store.runs.len();
    world.leapt = 24 * 40 * HOUR;
    world.pass(5 * MINUTE);
    assert_eq!(world.store.runs.len(), runs + 5, "one a minute, and none that was kept is too old");
    assert_eq!((leap(&world), told(&world)), (Some(40 * 86_400), vec!["ClockLeapt"]));
    let agent = world.controller.as_ref().unwrap().agents(world.now()).remove(0);
    assert_eq!(agent.status.reason, None, "the agent's clock is right");
    // Neither is it believed because the process is another one.
    world.stop_controller();
    world.start_controller();
    world.pass(5 * MINUTE);
    assert_eq!((world.store.runs.len(), leap(&world)), (runs + 10, Some(40 * 86_400)));
    world.leapt = SignedDuration::ZERO;
    world.pass(5 * MINUTE);
    assert_eq!((world.store.runs.len(), leap(&world)), (runs + 15, None));
    assert_eq!(told(&world), ["ClockLeapt", "ClockLeapt", "ClockCameBack"]);
    let confirm = Command::ConfirmClock { by: "me".into() };
    assert_eq!(world.ask(confirm), Err(Refusal::NoClockLeap));
}

#[test]
fn schedules_follow_a_leap_that_is_confirmed() {
    for by_hand in [true, false] {
        let mut world = World::new(&["a"]);
        world.commit("w", "", Some(EVERY_MINUTE));
        world.pass(5 * MINUTE);
        world.leapt = 2 * HOUR;
        world.pass(MINUTE);
        let before = world.starts.len();
        if by_hand {
            world.ask(Command::ConfirmClock { by: "me".into() }).unwrap();
        } else {
            world.tell(Event::ClockSynchronized);
        }
        assert_eq!((leap(&world), told(&world)), (None, vec!["ClockLeapt", "ClockConfirmed"]));
        // Whoever starts anew goes on from there, too.
        world.stop_controller();
        world.start_controller();
        world.pass(3 * MINUTE);
        assert_eq!(leap(&world), None);
        let newest = world.store.runs.values().filter_map(|row| row.run.spec.trigger.scheduled_time).max().unwrap();
        let late = (world.now().wall + world.leapt).duration_since(newest);
        assert!(late < SignedDuration::from_secs(61), "{late:?}");
        // What was due meanwhile is caught up by one run, as it would be after a time without anybody.
        assert!((4..=5).contains(&(world.starts.len() - before)), "{}", world.starts.len() - before);
    }
}

#[test]
fn a_clock_that_was_set_back_is_waited_for() {
    let mut world = World::new(&["a"]);
    world.commit("w", "", Some(EVERY_MINUTE));
    world.pass(5 * MINUTE);
    world.leapt = -HOUR;
    world.pass(2 * MINUTE);
    assert_eq!(leap(&world), Some(-3600));
    world.ask(Command::ConfirmClock { by: "me".into() }).unwrap();
    let before = world.starts.len();
    world.pass(Duration::from_secs(20 * 60));
    assert_eq!(world.starts.len() - before, 19, "a twentieth slower");
    assert_eq!(leap(&world), None);
}
