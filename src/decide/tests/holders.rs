//! What an agent says of due times of a pipeline that it has not, or never had.

use jiff::Timestamp;
use xene_agent::decide::time::after;
use xene_schemas::{
    meta::{Epoch, Name, Revision, RunName, SpecHash},
    phase::Reason,
    run::{RunEvent, RunSpec, RunTrigger, TriggerType},
    wire::control::{AgentMessage, Released, Report, RunFact, Skipped, SkippedSlot},
};

use super::world::{MINUTE, World, key};
use crate::decide::event::{Command, Event};

const EVERY_MINUTE: &str = r#""schedule":"* * * * *""#;

fn epoch(world: &World) -> Epoch {
    world.store.owners[&key("w/p")].epoch
}

/// The due time that is so many minutes ahead.
fn slot(world: &World, minutes: i64) -> Timestamp {
    let now = world.now().wall.as_second();
    Timestamp::from_second(now - now.rem_euclid(60) + 60 * minutes).unwrap()
}

fn says(world: &mut World, agent: &str, message: AgentMessage) {
    let session = world.nodes[agent].session.unwrap();
    world.tell(Event::Message { session, message });
    world.settle();
}

/// An agent reports a run of a due time; true if there is a record of it then.
fn reports(world: &mut World, agent: &str, epoch: Epoch, slot: Timestamp) -> bool {
    let (pipeline, trigger): (_, Name) = (key("w/p"), "tick".parse().unwrap());
    let run = RunName::of_slot(&pipeline, &trigger, slot);
    let spec = RunSpec {
        workflow: pipeline.workflow.clone(),
        pipeline: pipeline.pipeline.clone(),
        trigger: RunTrigger { kind: TriggerType::Cron, name: Some(trigger), scheduled_time: Some(slot), by: None },
        params: Default::default(),
        revision: Revision("r".into()),
        spec_hash: SpecHash([0; 32]),
        rerun_of: None,
    };
    let event = RunEvent::Created { spec, at: world.now().wall };
    let fact = RunFact { run, pipeline, epoch, index: 0, event };
    says(world, agent, AgentMessage::Report(Report { facts: vec![fact], whole: true }));
    world.store.runs.contains_key(&run)
}

fn skips(world: &mut World, agent: &str, epoch: Epoch, slot: Timestamp, until: Option<Timestamp>) -> bool {
    let before = world.store.ledger.len();
    let trigger = "tick".parse().unwrap();
    let row = SkippedSlot { pipeline: key("w/p"), epoch, trigger, slot, reason: Reason::OVERLAP, until, count: None };
    says(world, agent, AgentMessage::Skipped(Skipped { first: Some(0), rows: vec![row] }));
    world.store.ledger.len() > before
}

#[test]
fn who_never_had_a_pipeline_tells_nothing_of_it() {
    let mut world = World::new(&["a", "b"]);
    world.commit("w", "", Some(EVERY_MINUTE));
    world.pass(3 * MINUTE);
    assert_eq!(world.owner("w/p").as_deref(), Some("a"));
    let current = epoch(&world);
    for epoch in [current, Epoch(current.0 - 1), Epoch(current.0 + 1), Epoch(1)] {
        for minutes in [-1, 0, 2, 60] {
            let at = after(slot(&world, minutes), MINUTE / 60);
            assert!(!reports(&mut world, "b", epoch, at), "{epoch} {minutes}");
            assert!(!skips(&mut world, "b", epoch, at, None), "{epoch} {minutes}");
        }
    }
    let started = world.starts.len();
    world.pass(3 * MINUTE);
    assert_eq!(world.starts.len(), started + 3);
    let recorded = world.store.runs.values().filter(|row| row.run.status.agent == Some("a".parse().unwrap())).count();
    assert_eq!(recorded, world.starts.len());
}

#[test]
fn who_had_a_pipeline_tells_of_its_own_time_alone() {
    let mut world = World::new(&["a", "b", "c"]);
    world.commit("w", "", Some(EVERY_MINUTE));
    world.pass(3 * MINUTE);
    let former = epoch(&world);
    world.ask(Command::Drain("a".parse().unwrap())).unwrap();
    let owner = world.owner("w/p").unwrap();
    let other = if owner == "b" { "c" } else { "b" };
    world.pass(MINUTE);
    world.stop_controller();
    world.start_controller();
    let past = after(slot(&world, -3), MINUTE / 60);
    assert!(!reports(&mut world, other, former, past), "it never had that epoch");
    assert!(reports(&mut world, "a", former, past), "late, but true as far as anybody knows");
    let ahead = slot(&world, 3);
    assert!(!reports(&mut world, "a", former, ahead) && !skips(&mut world, "a", former, ahead, None));
    assert!(skips(&mut world, "a", former, after(past, MINUTE / 60), None));
    // Even the owner does not tell of next year.
    let current = epoch(&world);
    let year = after(slot(&world, 0), 365 * 24 * 60 * MINUTE);
    assert!(!skips(&mut world, &owner, current, past, Some(year)) && !reports(&mut world, &owner, current, year));
    assert!(skips(&mut world, &owner, current, past, Some(after(past, MINUTE))));
}

/// An agent that is about to stop gives the pipeline back, with all that was due up to then.
fn gives_back(world: &mut World, agent: &str, epoch: Epoch, watermark: Timestamp) {
    let released = Released { pipeline: key("w/p"), epoch, watermark, running: Vec::new(), draining: true };
    says(world, agent, AgentMessage::Released(released));
}

#[test]
fn a_pipeline_that_is_given_back_up_to_next_year_is_due_within_a_day() {
    let mut world = World::new(&["a", "b"]);
    world.commit("w", "", Some(EVERY_MINUTE));
    world.pass(3 * MINUTE);
    let year = slot(&world, 365 * 24 * 60);
    let former = epoch(&world);
    gives_back(&mut world, "a", former, year);
    assert_eq!(world.owner("w/p").as_deref(), Some("b"));
    world.pass(24 * 60 * MINUTE + 2 * MINUTE);
    assert!(!world.started("b").is_empty());
}

#[test]
fn who_gave_a_pipeline_back_tells_of_what_a_clock_that_was_ahead_started() {
    let mut world = World::new(&["a"]);
    world.commit("w", "", Some(EVERY_MINUTE));
    world.pass(3 * MINUTE);
    let former = epoch(&world);
    let told = slot(&world, 30);
    gives_back(&mut world, "a", former, told);
    assert_eq!(world.owner("w/p"), None);
    let later = after(told, MINUTE);
    assert!(!reports(&mut world, "a", former, later), "it told that it got no further");
    assert!(reports(&mut world, "a", former, told));
    world.add("b");
    world.pass(MINUTE);
    assert_eq!(world.owner("w/p").as_deref(), Some("b"));
    let earlier = slot(&world, 20);
    assert!(reports(&mut world, "a", former, earlier) && !reports(&mut world, "a", former, later));
}

#[test]
fn what_a_former_owner_skipped_hides_nothing_of_the_next_one() {
    let mut world = World::new(&["a", "b"]);
    world.commit("w", r#","autonomy":"1m""#, Some(EVERY_MINUTE));
    world.pass(3 * MINUTE);
    let former = epoch(&world);
    world.ask(Command::Drain("a".parse().unwrap())).unwrap();
    assert_eq!(world.owner("w/p").as_deref(), Some("b"));
    world.pass(MINUTE);
    world.cut("b");
    world.pass(2 * MINUTE);
    let (past, now) = (slot(&world, -5), world.now().wall);
    skips(&mut world, "a", former, past, Some(now));
    world.ask(Command::Undrain("a".parse().unwrap())).unwrap();
    world.pass(3 * MINUTE);
    assert_eq!(world.owner("w/p").as_deref(), Some("a"));
    let doubt = world.store.ledger.iter().find(|row| row.reason == Some(Reason::UNKNOWN)).unwrap();
    assert!(doubt.slot < now, "from when b was heard last, not from what a says: {doubt:?}");
}
