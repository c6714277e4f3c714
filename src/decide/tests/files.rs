//! Files that travel and artifacts, as both machines see them.

use xene_schemas::{
    meta::{FileHash, SpecHash},
    phase::{Reason, RunPhase},
    wire::control::{AgentMessage, ArtifactStored, ControllerMessage, FilesWanted},
};

use super::world::{MINUTE, World, key};
use crate::decide::event::{Effect, Event};

const EVERY_MINUTE: &str = r#""schedule":"* * * * *""#;
const FOREVER: &str = r#","autonomy":"Forever""#;
const TWO_MINUTES: &str = r#","autonomy":"2m""#;
const SAVES: &str = r#","finally":{"f":{"steps":["true"],"artifacts":{"save":["*"]}}}"#;

/// A pipeline that has run each minute for two, and then the files of its new spec do not come; the old spec and the new.
fn replaced_by_what_does_not_come(autonomy: &str) -> (World, [SpecHash; 2]) {
    let mut world = World::new(&["a"]);
    world.commit("w", autonomy, Some(EVERY_MINUTE));
    world.commit_file("w", "one");
    let one = world.store.owners[&key("w/p")].spec_hash;
    world.pass(2 * MINUTE);
    world.hold_files = true;
    world.commit_file("w", "two");
    let two = world.store.owners[&key("w/p")].spec_hash;
    assert_ne!(one, two, "a file is part of the spec");
    (world, [one, two])
}

#[test]
fn the_old_spec_runs_until_the_files_of_the_new_one_are_there() {
    let (mut world, [one, two]) = replaced_by_what_does_not_come(FOREVER);
    world.pass(2 * MINUTE);
    let specs = |world: &World| world.store.runs.values().map(|row| row.run.spec.spec_hash).collect::<Vec<_>>();
    assert_eq!(specs(&world), [one; 4]);
    // A run of the new spec waits for them; what comes after it does not overtake it.
    let waiting = world.start("w/p", 1).unwrap();
    assert!(!world.starts.iter().any(|start| start.run == waiting));
    world.bring_files();
    assert!(world.starts.iter().any(|start| start.run == waiting));
    world.pass(2 * MINUTE);
    let count = |spec| specs(&world).iter().filter(|of| **of == spec).count();
    assert_eq!((count(one), count(two)), (4, 3));
    world.commit_file("w", "one");
    assert_eq!(world.store.owners[&key("w/p")].spec_hash, one, "a revert brings back the very same");
}

#[test]
fn what_was_replaced_is_started_no_longer_than_if_nothing_had_been_heard_of_it() {
    let (mut world, [one, two]) = replaced_by_what_does_not_come(TWO_MINUTES);
    let before = world.starts.len();
    world.pass(2 * MINUTE);
    let alone = world.starts.len();
    assert!(alone > before, "as if it were cut off");
    // Renewals are answered, but not for what was replaced; nor does another process know better.
    world.pass(5 * MINUTE);
    world.crash("a");
    world.start_agent("a");
    world.pass(5 * MINUTE);
    world.crash("a");
    world.nodes.get_mut("a").unwrap().reachable = false;
    world.start_agent("a");
    world.pass(MINUTE);
    assert_eq!(world.starts.len(), alone);
    world.heal("a");
    world.pass(MINUTE);
    let count = |world: &World, spec| {
        let specs = world.store.runs.values().map(|row| row.run.spec.spec_hash);
        specs.filter(|of| *of == spec).count()
    };
    assert_eq!((world.starts.len(), count(&world, two)), (alone, 0));
    let of_one = count(&world, one);
    world.bring_files();
    world.pass(2 * MINUTE);
    assert_eq!(count(&world, one), of_one);
    assert!(count(&world, two) >= 2);
}

#[test]
fn a_revert_before_the_files_came_starts_what_is_at_hand_again() {
    let (mut world, _) = replaced_by_what_does_not_come(TWO_MINUTES);
    world.pass(5 * MINUTE);
    let before = world.starts.len();
    world.commit_file("w", "one");
    world.pass(3 * MINUTE);
    assert!(world.starts.len() >= before + 3);
}

#[test]
fn a_cut_off_agent_has_the_files_that_it_runs_with_over_a_restart() {
    let mut world = World::new(&["a"]);
    world.commit("w", FOREVER, Some(EVERY_MINUTE));
    world.commit_file("w", "one");
    world.pass(MINUTE);
    world.cut("a");
    world.crash("a");
    world.start_agent("a");
    let before = world.starts.len();
    world.pass(3 * MINUTE);
    assert!(world.starts.len() >= before + 3);
    let used = world.nodes["a"].machine.as_ref().unwrap().files_in_use();
    assert_eq!(used, [FileHash::of(b"one")].into());
}

#[test]
fn an_agent_gets_only_files_of_specs_that_it_owns_or_runs() {
    let mut world = World::new(&["a", "b"]);
    world.commit("w", "", None);
    world.commit_file("w", "one");
    let owner = world.owner("w/p").unwrap();
    let spec = world.store.owners[&key("w/p")].spec_hash;
    let (hashes, now) = (vec![FileHash::of(b"one")], world.now());
    for (name, node) in &world.nodes {
        let message = AgentMessage::FilesWanted(FilesWanted { spec, hashes: hashes.clone() });
        let event = Event::Message { session: node.session.unwrap(), message };
        let fx = world.controller.as_mut().unwrap().handle(now, event);
        let sends = fx.now.iter().any(|effect| matches!(effect, Effect::SendFiles { .. }));
        let alerts =
            fx.now.iter().any(|effect| matches!(effect, Effect::Alert(text) if text.contains("not one of its")));
        assert_eq!((sends, alerts), (*name == owner, *name != owner), "{name}");
    }
}

#[test]
fn a_run_that_waits_for_files_says_so() {
    let mut world = World::new(&["a"]);
    world.commit("w", "", None);
    world.hold_files = true;
    world.commit_file("w", "one");
    let run = world.start("w/p", 1).unwrap();
    let spec = world.store.owners[&key("w/p")].spec_hash;
    let message = AgentMessage::FilesWanted(FilesWanted { spec, hashes: vec![FileHash::of(b"one")] });
    world.tell(Event::Message { session: world.nodes["a"].session.unwrap(), message });
    assert_eq!(world.run(run).status.reason, Some(Reason::WAITING_FOR_FILES));
    world.bring_files();
    let status = &world.run(run).status;
    assert_eq!((status.phase, status.reason.clone()), (RunPhase::Success, None));
}

#[test]
fn a_run_is_kept_until_its_artifacts_are_at_the_controller() {
    let mut world = World::new(&["a"]);
    world.commit("w", SAVES, None);
    let run = world.start("w/p", 1).unwrap();
    world.settle();
    let hash = FileHash::of(b"saved");
    assert_eq!(world.run(run).status.tasks["f"].artifacts[0].hash, hash);
    assert_eq!(world.uploads, [("a".to_owned(), run, hash)], "sent once the controller knows of it");
    assert!(world.nodes["a"].journal.runs.contains_key(&run));
    assert!(world.nodes["a"].machine.as_ref().unwrap().files_in_use().contains(&hash));
    world.crash("a");
    world.uploads.clear();
    world.start_agent("a");
    world.connect("a");
    world.settle();
    assert_eq!(world.uploads, [("a".to_owned(), run, hash)], "and again after a restart");
    let stored = ControllerMessage::ArtifactStored(ArtifactStored { run, hash });
    world.tell_agent("a", xene_agent::decide::event::Event::Message(stored));
    world.settle();
    assert!(world.nodes["a"].journal.runs.is_empty(), "{:?}", world.nodes["a"].journal.runs);
    assert!(world.nodes["a"].machine.as_ref().unwrap().files_in_use().is_empty());
}
