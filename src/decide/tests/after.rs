//! `after`: a pipeline follows others.

use xene_schemas::{
    meta::RunName,
    phase::{Reason, RunPhase},
    run::{Run, TriggerType},
};

use super::world::{MINUTE, World, key};
use crate::decide::{
    event::Command,
    rows::{RunRow, Suspendable},
};

const AFTER_A: &str = r#","after":["a"]"#;
const AFTER_BOTH: &str = r#","after":["a","b"]"#;

/// The runs of a pipeline, oldest first.
fn runs(world: &World, pipeline: &str) -> Vec<Run> {
    let key = key(pipeline);
    world.store.runs.values().filter(|row| row.run.spec.key() == key).map(|row| row.run.clone()).collect()
}

fn reasons(world: &World, regarding: &str) -> Vec<String> {
    let of = world.store.events.iter().filter(|event| event.regarding == regarding);
    of.map(|event| event.reason.clone()).collect()
}

#[test]
fn a_success_is_followed_by_a_run_that_names_it() {
    let mut world = World::new(&["x"]);
    world.commit_all("w", &[("a", ""), ("c", AFTER_A)], None, "{}");
    assert!(runs(&world, "w/c").is_empty());
    let first = world.start("w/a", 1).unwrap();
    let followed = runs(&world, "w/c");
    assert_eq!(followed.len(), 1);
    let trigger = &followed[0].spec.trigger;
    assert_eq!((trigger.kind, trigger.by.clone()), (TriggerType::After, Some(format!("run {first} of w/a"))));
    assert_eq!(followed[0].status.phase, RunPhase::Success);
    let at = world.run(first).status.finished_at.unwrap();
    assert_eq!(followed[0].metadata.name, RunName::of_upstream(&key("w/c"), &[first], at));
    world.start("w/a", 2).unwrap();
    assert_eq!(runs(&world, "w/c").len(), 2, "each success");
}

#[test]
fn all_must_have_ended_in_success_since_the_last_time() {
    let mut world = World::new(&["x"]);
    world.commit_all("w", &[("a", ""), ("b", ""), ("c", AFTER_BOTH)], None, "{}");
    world.start("w/a", 1).unwrap();
    let newest = world.start("w/a", 2).unwrap();
    assert!(runs(&world, "w/c").is_empty(), "b is waited for");
    world.stop_controller();
    world.start_controller();
    let b = world.start("w/b", 3).unwrap();
    let followed = runs(&world, "w/c");
    assert_eq!(followed.len(), 1, "also over a restart");
    assert_eq!(followed[0].spec.trigger.by.as_deref(), Some(&*format!("run {newest} of w/a, run {b} of w/b")));
    world.start("w/b", 4).unwrap();
    assert_eq!(runs(&world, "w/c").len(), 1, "a is waited for again");
    world.start("w/a", 5).unwrap();
    assert_eq!(runs(&world, "w/c").len(), 2);
    assert!(world.store.loaded.after.is_empty(), "{:?}", world.store.loaded.after);
}

#[test]
fn failures_and_what_went_before_are_not_followed() {
    let mut world = World::new(&["x"]);
    world.commit_all("w", &[("a", "")], None, "{}");
    world.start("w/a", 1).unwrap();
    world.commit_all("w", &[("a", ""), ("c", AFTER_A)], None, "{}");
    assert!(runs(&world, "w/c").is_empty(), "a new pipeline does not follow the past");
    world.slow = true;
    let run = world.start("w/a", 2).unwrap();
    world.ask(Command::CancelRun { run, by: "me".into() }).unwrap();
    assert_eq!(world.run(run).status.phase, RunPhase::Error);
    assert!(runs(&world, "w/c").is_empty());
}

#[test]
fn one_that_is_not_waited_for_any_more_sets_it_free() {
    let mut world = World::new(&["x"]);
    world.commit_all("w", &[("a", ""), ("b", ""), ("c", AFTER_BOTH)], None, "{}");
    world.start("w/a", 1).unwrap();
    world.commit_all("w", &[("a", ""), ("b", ""), ("c", AFTER_A)], None, "{}");
    assert_eq!(runs(&world, "w/c").len(), 1);
}

#[test]
fn params_of_the_same_name_are_handed_on_and_checked() {
    let params = r#"{"version":{"default":"1"}}"#;
    let strict = r#","after":["a"],"params":{"version":{"type":"integer"}}"#;
    let mut world = World::new(&["x"]);
    world.commit_all("w", &[("a", r#","params":{"own":{}}"#), ("c", AFTER_A), ("d", strict)], None, params);
    world.start_with("w/a", 1, &[("version", "2"), ("own", "x")]).unwrap();
    assert_eq!(runs(&world, "w/c")[0].spec.params, [("version".to_owned(), "2".to_owned())].into());
    world.start_with("w/a", 2, &[("version", "two")]).unwrap();
    assert_eq!((runs(&world, "w/c").len(), runs(&world, "w/d").len()), (2, 1));
    assert!(reasons(&world, "pipeline/w/d").contains(&"ParamsRefused".to_owned()));
}

#[test]
fn a_suspended_pipeline_follows_nothing_and_an_event_says_so() {
    let mut world = World::new(&["x"]);
    world.commit_all("w", &[("a", ""), ("c", r#","after":["a"],"suspend":true"#), ("d", AFTER_A)], None, "{}");
    let what = Suspendable::Pipeline(key("w/d"));
    world.suspend(what.clone(), None);
    world.start("w/a", 1).unwrap();
    for pipeline in ["w/c", "w/d"] {
        assert!(runs(&world, pipeline).is_empty());
        assert!(reasons(&world, &format!("pipeline/{pipeline}")).contains(&"Suspended".to_owned()));
    }
    world.ask(Command::Resume { what, by: "me".into() }).unwrap();
    assert!(runs(&world, "w/d").is_empty(), "resuming replays nothing");
    world.start("w/a", 2).unwrap();
    assert_eq!(runs(&world, "w/d").len(), 1);
}

#[test]
fn what_ended_while_the_controller_was_away_is_followed_when_it_is_heard_of() {
    let mut world = World::new(&["x"]);
    world.commit_all("w", &[("a", ""), ("c", AFTER_A)], None, "{}");
    world.slow = true;
    world.start("w/a", 1).unwrap();
    world.stop_controller();
    world.end_steps("x");
    world.settle();
    world.slow = false;
    world.start_controller();
    assert_eq!(runs(&world, "w/c").len(), 1);
}

#[test]
fn a_rerun_counts_as_any_run() {
    let mut world = World::new(&["x"]);
    world.commit_all("w", &[("a", ""), ("c", AFTER_A)], None, "{}");
    let first = world.start("w/a", 1).unwrap();
    let again = world.rerun(first, 2).unwrap();
    assert_eq!(world.run(again).spec.rerun_of, Some(first));
    assert_eq!(runs(&world, "w/c").len(), 2);
}

#[test]
fn what_was_under_way_when_the_store_was_restored_is_not_followed() {
    let mut world = World::new(&["x"]);
    world.commit_all("w", &[("a", ""), ("c", AFTER_A)], None, "{}");
    world.slow = true;
    let run = world.start("w/a", 1).unwrap();
    let backup: RunRow = world.store.runs[&run].clone();
    assert!(!backup.unsure);
    world.stop_controller();
    world.recover = true;
    world.start_controller();
    world.end_steps("x");
    world.settle();
    assert_eq!(
        (world.run(run).status.phase, world.run(run).status.reason.clone()),
        (RunPhase::Success, None::<Reason>)
    );
    assert!(runs(&world, "w/c").is_empty(), "it may have been followed in what is lost");
    assert_eq!(reasons(&world, "pipeline/w/c").last().map(String::as_str), Some("AfterUncertain"));
}

#[test]
fn what_follows_a_pipeline_and_its_follower_waits_for_the_new_run_of_that() {
    let mut world = World::new(&["x"]);
    world.commit_all("w", &[("a", ""), ("b", AFTER_A), ("e", AFTER_BOTH)], None, "{}");
    world.start("w/b", 1).unwrap();
    for n in 2..4 {
        world.pass(MINUTE);
        world.start("w/a", n).unwrap();
        let (b, e) = (runs(&world, "w/b"), runs(&world, "w/e"));
        assert_eq!(e.len(), n as usize - 1, "one each time");
        let newest = b.iter().max_by_key(|run| run.status.finished_at).unwrap().metadata.name;
        let by = e.iter().max_by_key(|run| run.status.finished_at).unwrap().spec.trigger.by.clone().unwrap();
        assert!(by.contains(&newest.to_string()), "{by}: the newest of b is {newest}");
    }
}
