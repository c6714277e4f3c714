//! The protocol, story by story.

use std::time::Duration;

use jiff::SignedDuration;
use xene_agent::decide::event::{Event as AgentEvent, Recovered, RunState};
use xene_schemas::{
    meta::RunName,
    phase::{AgentPhase, Reason, RunPhase},
    source::ConditionStatus,
};

use super::world::{MINUTE, World, key};
use crate::decide::{
    event::{Command, Event, Refusal, RequestId},
    rows::{Change, Suspendable},
};

const EVERY_MINUTE: &str = r#""schedule":"* * * * *""#;
/// `autonomy: 1m` may start until 0.95·60 − 10 = 47 s after a renewal, and moves 1.05·60 + 60 = 123 s after one.
const SHORT: &str = r#","autonomy":"1m""#;

fn phase(world: &World, run: RunName) -> (RunPhase, Option<Reason>) {
    let status = &world.run(run).status;
    (status.phase, status.reason.clone())
}

#[test]
fn a_commit_reaches_an_agent_and_its_cron_fires_on_time() {
    let mut world = World::new(&["a"]);
    world.commit("w", "", Some(EVERY_MINUTE));
    world.pass(5 * MINUTE);
    assert_eq!(world.started("a"), [1020, 1080, 1140, 1200, 1260], "at each full minute, not a second late");
    assert!(world.store.runs.values().all(|row| row.run.status.phase == RunPhase::Success));
    assert_eq!(world.store.runs.len(), 5);
    assert!(world.nodes["a"].journal.runs.is_empty(), "acknowledged runs leave the journal");
    let agent = world.controller.as_ref().unwrap().agent(world.now(), &"a".parse().unwrap()).unwrap();
    assert_eq!((agent.status.phase, agent.status.pipelines), (AgentPhase::Connected, vec![key("w/p")]));
    let ready = &world.store.loaded.source.as_ref().unwrap().conditions[0];
    assert_eq!((ready.kind.as_str(), ready.status), ("Ready", ConditionStatus::True));
}

#[test]
fn a_manual_run_starts_at_once_and_the_same_name_is_the_same_run() {
    let mut world = World::new(&["a"]);
    world.commit("w", "", None);
    let run = world.start("w/p", 1).unwrap();
    assert_eq!(phase(&world, run), (RunPhase::Success, None));
    assert_eq!(world.start("w/p", 1).unwrap(), run);
    assert_eq!(world.starts.len(), 1);
    assert!(matches!(world.start("nobody/p", 2), Err(Refusal::NotFound { kind: "pipeline", .. })));
    assert_eq!(world.ask(Command::CancelRun { run, by: "me".into() }), Err(Refusal::Ended(run)));
}

#[test]
fn a_cut_off_owner_fires_for_its_lease_and_then_another_takes_over() {
    let mut world = World::new(&["a", "b"]);
    world.commit("w", SHORT, Some(EVERY_MINUTE));
    assert_eq!(world.owner("w/p").as_deref(), Some("a"));
    world.pass(Duration::from_secs(75));
    world.cut("a");
    world.pass(Duration::from_secs(400));
    assert_eq!(world.started("a"), [1020, 1080], "1080 comes alone; by 1140 its lease is over");
    assert_eq!(world.owner("w/p").as_deref(), Some("b"));
    let first = world.started("b")[0];
    // Renewed last between 1065 and 1075, so b may have it from 1188 to 1198 on, and its first slot is 1200.
    assert_eq!(first, 1200);
    world.heal("a");
    world.pass(2 * MINUTE);
    assert_eq!(world.started("a").len(), 2, "the old owner is told no");
    assert_eq!(world.store.runs.len(), world.starts.len(), "what it did alone is in the history");
    assert!(world.store.runs.values().all(|row| row.run.status.phase == RunPhase::Success));
}

#[test]
fn an_owner_that_nobody_can_replace_goes_on_when_it_is_back() {
    let mut world = World::new(&["a"]);
    world.commit("w", SHORT, Some(EVERY_MINUTE));
    world.pass(MINUTE);
    let epoch = world.store.owners[&key("w/p")].epoch;
    world.cut("a");
    world.pass(10 * MINUTE);
    assert_eq!(world.store.owners[&key("w/p")].reason, Some(Reason::OWNER_SILENT));
    let before = world.starts.len();
    world.heal("a");
    world.settle();
    let row = &world.store.owners[&key("w/p")];
    assert_eq!((row.reason.clone(), row.epoch), (None, epoch), "the same ownership");
    assert_eq!(world.starts.len(), before + 1, "catchUp: Latest starts the newest missed slot, and only that");
    let coalesced = world.store.ledger.iter().filter(|row| row.reason == Some(Reason::COALESCED)).count();
    assert_eq!(coalesced, 8, "the other missed slots are on record: {:?}", world.store.ledger);
}

#[test]
fn a_drain_moves_everything_at_once_and_loses_no_slot() {
    let mut world = World::new(&["a", "b"]);
    world.commit("w", "", Some(EVERY_MINUTE));
    world.pass(MINUTE);
    world.ask(Command::Drain("a".parse().unwrap())).unwrap();
    assert_eq!(world.owner("w/p").as_deref(), Some("b"), "no second has passed");
    world.pass(2 * MINUTE);
    world.ask(Command::Drain("b".parse().unwrap())).unwrap();
    let row = &world.store.owners[&key("w/p")];
    assert_eq!((row.owner.clone(), row.reason.clone()), (None, Some(Reason::NO_AGENT_AVAILABLE)));
    assert!(row.message.contains("a (draining), b (draining)"), "{}", row.message);
    world.ask(Command::Undrain("a".parse().unwrap())).unwrap();
    world.pass(MINUTE);
    assert_eq!(world.started("a"), [1020, 1200]);
    assert_eq!(world.started("b"), [1080, 1140]);
}

#[test]
fn a_run_in_flight_stays_where_it_is_when_its_pipeline_moves() {
    let mut world = World::new(&["a", "b"]);
    world.commit("w", r#","concurrency":{"max":2}"#, None);
    world.slow = true;
    let run = world.start("w/p", 1).unwrap();
    world.ask(Command::Drain("a".parse().unwrap())).unwrap();
    assert_eq!(world.owner("w/p").as_deref(), Some("b"));
    assert_eq!(phase(&world, run).0, RunPhase::Running);
    world.end_steps("a");
    world.settle();
    assert_eq!(phase(&world, run), (RunPhase::Success, None));
    assert_eq!(world.run(run).status.agent, Some("a".parse().unwrap()));
}

#[test]
fn a_run_that_waits_its_turn_goes_to_the_next_owner() {
    let mut world = World::new(&["a", "b"]);
    world.commit("w", "", None);
    world.slow = true;
    let first = world.start("w/p", 1).unwrap();
    let second = world.start("w/p", 2).unwrap();
    assert_eq!(phase(&world, second), (RunPhase::StartingUp, Some(Reason::QUEUED)));
    world.ask(Command::Drain("a".parse().unwrap())).unwrap();
    assert_eq!((world.owner("w/p").as_deref(), world.started("b").len()), (Some("b"), 0), "its turn has not come");
    world.end_steps("a");
    world.settle();
    assert_eq!(world.started("b").len(), 1, "b begins what a never began");
    world.end_steps("b");
    world.settle();
    assert_eq!((phase(&world, first).0, phase(&world, second).0), (RunPhase::Success, RunPhase::Success));
}

#[test]
fn a_new_spec_keeps_the_epoch_and_never_fires_the_past() {
    let mut world = World::new(&["a"]);
    world.commit("w", "", Some(r#""schedule":"0 0 1 1 *""#));
    let epoch = world.store.owners[&key("w/p")].epoch;
    world.pass(5 * MINUTE);
    world.commit("w", "", Some(EVERY_MINUTE));
    assert!(world.starts.is_empty(), "nothing that the new schedule would have fired before it was there");
    world.pass(MINUTE);
    assert_eq!(world.started("a"), [1320]);
    let row = &world.store.owners[&key("w/p")];
    assert_eq!((row.epoch, row.revision.0.as_str()), (epoch, "r2"));
    assert_eq!(world.nodes["a"].journal.specs.len(), 1, "the old spec is gone");
}

#[test]
fn a_removed_pipeline_stops_and_its_run_ends_by_itself() {
    let mut world = World::new(&["a"]);
    world.commit("w", "", Some(EVERY_MINUTE));
    world.slow = true;
    let running = world.start("w/p", 1).unwrap();
    let waiting = world.start("w/p", 2).unwrap();
    world.remove("w");
    assert_eq!(phase(&world, running).0, RunPhase::Running);
    assert_eq!(phase(&world, waiting), (RunPhase::Error, Some(Reason::PIPELINE_REMOVED)));
    world.end_steps("a");
    world.pass(3 * MINUTE);
    assert_eq!((phase(&world, running).0, world.starts.len()), (RunPhase::Success, 1));
    let old = world.store.owners[&key("w/p")].epoch;
    assert!(world.nodes["a"].journal.specs.is_empty());
    world.commit("w", "", Some(EVERY_MINUTE));
    world.pass(MINUTE);
    assert!(world.store.owners[&key("w/p")].epoch > old, "its epochs go on");
    assert_eq!(world.starts.len(), 2, "what was due while it was gone is not caught up");
}

#[test]
fn the_controller_may_restart_and_waits_before_it_judges() {
    let mut world = World::new(&["a", "b"]);
    world.commit("w", SHORT, Some(EVERY_MINUTE));
    world.slow = true;
    world.pass(MINUTE);
    world.stop_controller();
    world.pass(MINUTE);
    world.end_steps("a");
    world.nodes.get_mut("a").unwrap().reachable = false;
    world.start_controller();
    world.pass(2 * MINUTE);
    assert_eq!(world.owner("w/p").as_deref(), Some("a"), "123 s have not passed since the start");
    world.heal("a");
    world.pass(5 * MINUTE);
    assert_eq!(world.owner("w/p").as_deref(), Some("a"));
    assert_eq!(world.store.loaded.controller.as_ref().unwrap().incarnation, 2);
}

#[test]
fn an_agent_that_restarts_ends_its_runs_and_goes_on_under_its_lease() {
    let mut world = World::new(&["a"]);
    world.commit("w", "", Some(EVERY_MINUTE));
    world.slow = true;
    world.pass(MINUTE);
    let run = world.starts[0].run;
    world.crash("a");
    world.nodes.get_mut("a").unwrap().reachable = false;
    world.slow = false;
    world.start_agent("a");
    world.pass(10 * MINUTE);
    assert_eq!(world.started("a"), [1020, 1080, 1140, 1200, 1260, 1320], "275 s from the last renewal, and no longer");
    world.heal("a");
    assert_eq!(phase(&world, run), (RunPhase::Error, Some(Reason::AGENT_RESTARTED)));
    assert_eq!(world.starts.len(), 7, "the newest of what was missed");
}

#[test]
fn a_lease_goes_on_only_in_the_same_boot_with_the_same_claims_and_clocks() {
    type Change = fn(&mut World);
    let cases: [(&str, bool, Change); 6] = [
        ("nothing", true, |_| {}),
        ("another boot", false, |world| world.nodes.get_mut("a").unwrap().boot_id = "boot-2".into()),
        ("a step of the clock", false, |world| world.nodes.get_mut("a").unwrap().ahead = SignedDuration::from_mins(1)),
        ("no file", false, |world| world.nodes.get_mut("a").unwrap().journal.renewal = None),
        ("another epoch", false, |world| {
            let row = world.nodes.get_mut("a").unwrap().journal.claims.get_mut(&key("w/p")).unwrap();
            row.epoch = row.epoch.next(0);
        }),
        ("one claim less", false, |world| {
            let row = world.nodes.get_mut("a").unwrap().journal.claims.get_mut(&key("v/p")).unwrap();
            row.claimed = false;
        }),
    ];
    for (what, goes_on, change) in cases {
        let mut world = World::new(&["a"]);
        world.commit("w", "", None);
        world.commit("v", "", None);
        world.pass(MINUTE);
        world.crash("a");
        world.nodes.get_mut("a").unwrap().reachable = false;
        change(&mut world);
        for process in 0..2 {
            world.start_agent("a");
            let may_start = |world: &World| {
                let agent = world.nodes["a"].machine.as_ref().unwrap();
                agent.may_start(world.now(), &key("w/p"))
            };
            assert!(!may_start(&world), "{what}, {process}: the controller is waited for");
            world.pass(Duration::from_secs(5));
            let agent = world.nodes["a"].machine.as_ref().unwrap();
            assert_eq!(agent.may_start(world.now(), &key("w/p")), goes_on, "{what}, {process}");
            world.crash("a");
        }
    }
}

#[test]
fn the_slot_clock_goes_on_over_a_restart() {
    let mut world = World::new(&["a"]);
    world.commit("w", r#","autonomy":"Forever""#, Some(EVERY_MINUTE));
    world.pass(MINUTE);
    world.stop_controller();
    world.crash("a");
    world.nodes.get_mut("a").unwrap().ahead = SignedDuration::from_mins(10);
    world.start_agent("a");
    world.pass(2 * MINUTE);
    assert_eq!(world.started("a"), [1020, 1080, 1140]);
}

#[test]
fn a_start_whose_intent_takes_long_to_become_durable_is_looked_at_again() {
    let soon = r#""schedule":"* * * * *","startingDeadline":"5s""#;
    let mut world = World::new(&["a"]);
    world.commit("w", "", Some(soon));
    world.commit("v", "", Some(EVERY_MINUTE));
    world.commit("u", "", Some(EVERY_MINUTE));
    world.hold_intents = true;
    world.pass(Duration::from_secs(50));
    world.suspend(Suspendable::Workflow("u".parse().unwrap()), None);
    world.let_intents();
    assert_eq!(world.starts.len(), 1, "that of v");
    let reason = |pipeline: &str| {
        let row = world.store.ledger.iter().find(|row| row.pipeline == key(pipeline) && row.run.is_none());
        row.and_then(|row| row.reason.clone())
    };
    assert_eq!((reason("w/p"), reason("u/p")), (Some(Reason::TOO_LATE), Some(Reason::SUSPENDED)));
    world.pass(MINUTE);
    assert_eq!(world.started("a"), [1050, 1080, 1080]);
}

#[test]
fn while_the_journal_can_not_be_written_nothing_starts_and_afterwards_what_is_not_too_late() {
    let soon = r#""schedule":"* * * * *","startingDeadline":"5s""#;
    let mut world = World::new(&["a"]);
    world.commit("w", "", Some(soon));
    world.commit("v", "", Some(EVERY_MINUTE));
    world.hold_intents = true;
    world.pass(Duration::from_secs(30));
    let status = |world: &World| {
        let status = world.controller.as_ref().unwrap().agent(world.now(), &"a".parse().unwrap()).unwrap().status;
        (status.reason, status.message)
    };
    assert_eq!(status(&world), (None, None));
    world.tell_agent("a", AgentEvent::JournalFailed);
    world.settle();
    assert_eq!(status(&world).0, Some(Reason::AGENT_DISK));
    world.pass(3 * MINUTE);
    world.let_intents();
    assert!(world.starts.is_empty());
    world.tell_agent("a", AgentEvent::JournalWorks);
    world.settle();
    assert_eq!(world.started("a"), [1210], "the newest of v");
    let skipped = |pipeline: &str, reason: Reason| {
        let rows = world.store.ledger.iter().filter(|row| row.pipeline == key(pipeline));
        rows.filter(|row| row.run.is_none() && row.reason == Some(reason.clone())).count()
    };
    assert_eq!(skipped("v/p", Reason::AGENT_DISK), 1, "what was about to start");
    assert_eq!(skipped("v/p", Reason::COALESCED), 2);
    assert_eq!(skipped("w/p", Reason::AGENT_DISK) + skipped("w/p", Reason::COALESCED), 4);
    assert!(skipped("w/p", Reason::AGENT_DISK) >= 2);
    world.pass(MINUTE);
    assert_eq!(world.started("a"), [1210, 1260, 1260]);
    assert_eq!(status(&world), (None, None));
}

#[test]
fn an_agent_whose_steps_outlive_it_goes_on_with_its_runs() {
    let mut world = World::new(&["a"]);
    world.commit("w", "", Some(EVERY_MINUTE));
    world.slow = true;
    world.pass(MINUTE);
    let run = world.starts[0].run;
    world.kill("a");
    world.start_agent("a");
    assert_eq!(phase(&world, run).0, RunPhase::Running);
    world.kill("a");
    // What a crash may take from the journal after the intent: it is said again, in the same words.
    let journal = &mut world.nodes.get_mut("a").unwrap().journal;
    journal.runs.get_mut(&run).unwrap().state = RunState::Intent;
    let said = journal.facts.remove(&run).unwrap_or_default();
    world.start_agent("a");
    let again = &world.nodes["a"].journal.facts[&run];
    assert!(said.iter().all(|(index, fact)| again.get(index) == Some(fact)), "{said:?} {again:?}");
    world.end_steps("a");
    world.settle();
    assert_eq!((phase(&world, run), world.starts.len()), ((RunPhase::Success, None), 1));
}

#[test]
fn nothing_goes_on_over_a_reboot() {
    let mut world = World::new(&["a"]);
    world.commit("w", "", Some(EVERY_MINUTE));
    world.slow = true;
    world.pass(MINUTE);
    let run = world.starts[0].run;
    world.kill("a");
    world.nodes.get_mut("a").unwrap().boot_id = "another".into();
    world.start_agent("a");
    assert_eq!(phase(&world, run), (RunPhase::Error, Some(Reason::AGENT_RESTARTED)));
}

#[test]
fn a_claim_without_end_fires_after_a_reboot_without_any_controller() {
    let mut world = World::new(&["a", "b"]);
    world.commit("w", r#","autonomy":"Forever""#, Some(EVERY_MINUTE));
    world.commit("v", "", Some(EVERY_MINUTE));
    world.pass(MINUTE);
    world.stop_controller();
    world.crash("a");
    world.nodes.get_mut("a").unwrap().boot_id = "boot-2".into();
    world.start_agent("a");
    world.pass(60 * MINUTE);
    assert_eq!(world.started("a").len(), 61);
    world.start_controller();
    world.cut("a");
    world.pass(60 * MINUTE);
    assert_eq!(world.owner("w/p").as_deref(), Some("a"), "it never moves by itself");
    world.crash("a");
    world.ask(Command::Forget("a".parse().unwrap())).unwrap();
    assert_eq!(world.owner("w/p").as_deref(), Some("b"), "a person said so");
}

#[test]
fn what_an_owner_has_started_ahead_of_time_is_not_started_again() {
    let mut world = World::new(&["a", "b"]);
    world.commit("w", r#","autonomy":"Forever""#, Some(EVERY_MINUTE));
    world.pass(MINUTE);
    world.stop_controller();
    world.crash("a");
    let node = world.nodes.get_mut("a").unwrap();
    (node.boot_id, node.ahead) = ("boot-2".into(), SignedDuration::from_mins(10));
    world.start_agent("a");
    world.pass(MINUTE);
    let ahead = world.starts.len();
    assert!(ahead >= 2, "without a controller its own clock counts");
    world.start_controller();
    world.connect("a");
    world.settle();
    world.crash("a");
    world.ask(Command::Forget("a".parse().unwrap())).unwrap();
    assert_eq!(world.owner("w/p").as_deref(), Some("b"));
    // That no due time starts twice is asserted at each start.
    world.pass(5 * MINUTE);
    assert_eq!(world.starts.len(), ahead);
    world.pass(10 * MINUTE);
    assert!(world.starts.len() > ahead, "{:?}", world.starts);
}

#[test]
fn an_agent_without_its_journal_is_waited_out() {
    let mut world = World::new(&["a", "b"]);
    world.commit("w", SHORT, Some(EVERY_MINUTE));
    world.pass(MINUTE);
    world.crash("a");
    world.nodes.get_mut("a").unwrap().journal = Recovered::default();
    world.start_agent("a");
    assert!(world.store.owners[&key("w/p")].void);
    world.pass(MINUTE);
    assert_eq!(world.starts.len(), 1, "nobody knows what it had started");
    world.pass(3 * MINUTE);
    assert!(!world.store.owners[&key("w/p")].void);
    assert!(world.starts.len() >= 2, "{:?}", world.starts);
}

#[test]
fn a_claim_without_end_whose_journal_is_lost_waits_for_a_person() {
    let mut world = World::new(&["a", "b"]);
    world.commit("w", r#","autonomy":"Forever""#, Some(EVERY_MINUTE));
    world.pass(MINUTE);
    world.crash("a");
    world.nodes.get_mut("a").unwrap().journal = Recovered::default();
    world.start_agent("a");
    world.ask(Command::Drain("a".parse().unwrap())).unwrap();
    world.pass(60 * MINUTE);
    let row = &world.store.owners[&key("w/p")];
    assert_eq!((row.void, row.reason.clone()), (true, Some(Reason::OWNER_SILENT)));
    assert!(row.message.contains("stop a, then `xene agents fence a"), "{}", row.message);
    let fence = || Command::Fence { agent: "a".parse().unwrap(), by: "me".into() };
    let refused = world.ask(fence()).unwrap_err().to_string();
    assert!(refused.contains("stop it first"), "{refused}");
    world.crash("a");
    world.ask(fence()).unwrap();
    assert_eq!(world.owner("w/p").as_deref(), Some("b"));
    world.ask(Command::Undrain("a".parse().unwrap())).unwrap();
    world.start_agent("a");
    world.pass(2 * MINUTE);
    assert_eq!(world.started("b").len(), 2);
}

#[test]
fn answers_that_get_lost_end_the_lease_on_both_sides() {
    let mut world = World::new(&["a", "b"]);
    world.commit("w", SHORT, Some(EVERY_MINUTE));
    world.pass(MINUTE);
    world.nodes.get_mut("a").unwrap().deaf = true;
    world.pass(5 * MINUTE);
    assert_eq!(world.owner("w/p").as_deref(), Some("b"));
    assert_eq!(world.started("a"), [1020, 1080], "the last answer came up to 10 s before 1060: 47 s from there");
    world.heal("a");
    world.pass(MINUTE);
    assert_eq!(world.owner("w/p").as_deref(), Some("b"), "an owner stays where it is");
}

#[test]
fn runs_of_a_lost_agent_are_unknown_until_it_reports_or_is_given_up() {
    for comes_back in [true, false] {
        let mut world = World::new(&["a", "b"]);
        world.commit("w", SHORT, None);
        world.slow = true;
        let run = world.start("w/p", 1).unwrap();
        world.cut("a");
        world.pass(5 * MINUTE);
        assert_eq!(phase(&world, run), (RunPhase::Unknown, Some(Reason::AGENT_LOST)));
        world.end_steps("a");
        if comes_back {
            world.heal("a");
            assert_eq!(phase(&world, run), (RunPhase::Success, None));
        } else {
            world.pass(7 * 60 * MINUTE);
            assert_eq!(phase(&world, run), (RunPhase::Error, Some(Reason::AGENT_LOST)));
            world.heal("a");
            assert_eq!(phase(&world, run), (RunPhase::Error, Some(Reason::AGENT_LOST)), "an end is final");
            assert!(world.nodes["a"].journal.runs.is_empty(), "and the agent need not keep it");
        }
        assert_eq!(world.starts.len(), 1, "nobody else started it");
    }
}

#[test]
fn labels_decide_and_the_reason_says_so() {
    let mut world = World::new(&["a", "b"]);
    world.commit("w", r#","agents":{"labels":{"gpu":"yes"}}"#, None);
    let row = &world.store.owners[&key("w/p")];
    assert_eq!(row.reason, Some(Reason::NO_MATCHING_AGENT));
    assert_eq!(row.message, "no agent has the labels gpu=yes");
    let run = world.start("w/p", 1).unwrap();
    assert_eq!(phase(&world, run), (RunPhase::StartingUp, Some(Reason::WAITING_FOR_AGENT)));
    world.label("b", "gpu", "yes");
    assert_eq!(world.owner("w/p").as_deref(), Some("b"));
    assert_eq!(phase(&world, run).0, RunPhase::Success, "what waited begins");
    world.label("b", "gpu", "no");
    assert_eq!(world.owner("w/p"), None, "it gave it back");
}

#[test]
fn no_run_is_made_before_it_was_due_also_where_its_agents_clock_is_behind() {
    let mut world = World::new(&["a"]);
    world.nodes.get_mut("a").unwrap().ahead = SignedDuration::from_millis(-1);
    world.crash("a");
    world.start_agent("a");
    world.commit("w", "", Some(EVERY_MINUTE));
    world.pass(3 * MINUTE);
    assert_eq!(world.started("a"), [1020, 1080, 1140]);
    for row in world.store.runs.values() {
        let (made, due) = (row.run.metadata.created_at, row.run.spec.trigger.scheduled_time.unwrap());
        assert!(made >= due, "due at {due}, made at {made}");
    }
}

#[test]
fn an_agent_whose_clock_is_an_hour_off_is_told_of_and_given_nothing_until_it_is_mended() {
    let mut world = World::new(&["a"]);
    world.nodes.get_mut("a").unwrap().ahead = SignedDuration::from_hours(1);
    world.crash("a");
    world.start_agent("a");
    world.commit("w", "", Some(EVERY_MINUTE));
    assert_eq!(world.owner("w/p"), None);
    let message = &world.store.owners[&key("w/p")].message;
    assert!(message.contains("a") && message.contains("its clock is wrong"), "{message}");
    let (now, name) = (world.now(), "a".parse().unwrap());
    let shown = world.controller.as_ref().unwrap().agent(now, &name).unwrap().status.message;
    assert_eq!(shown.as_deref(), Some("its clock is 3600 s off: it gets nothing new until that is mended"));
    world.nodes.get_mut("a").unwrap().ahead = SignedDuration::ZERO;
    world.pass(MINUTE);
    assert_eq!(world.owner("w/p").as_deref(), Some("a"), "by the next renewal");
    world.pass(2 * MINUTE);
    assert!(!world.starts.is_empty(), "its triggers fire by the controller's clock");
}

#[test]
fn an_agent_that_stops_gives_everything_back_first() {
    let mut world = World::new(&["a", "b"]);
    world.commit("w", "", None);
    world.slow = true;
    let run = world.start("w/p", 1).unwrap();
    world.tell_agent("a", AgentEvent::DrainRequested);
    world.settle();
    assert_eq!(world.owner("w/p").as_deref(), Some("b"));
    assert!(!world.nodes["a"].exited, "a run is in flight");
    world.end_steps("a");
    world.settle();
    assert!(world.nodes["a"].exited);
    assert_eq!(phase(&world, run).0, RunPhase::Success);
}

#[test]
fn ticks_of_a_busy_pipeline_coalesce() {
    let mut world = World::new(&["a"]);
    world.commit("w", "", Some(EVERY_MINUTE));
    world.slow = true;
    world.pass(4 * MINUTE);
    assert_eq!(world.starts.len(), 1);
    world.slow = false;
    world.end_steps("a");
    world.settle();
    assert_eq!(world.starts.len(), 2, "the newest tick only");
    let reasons = world.store.ledger.iter().filter_map(|row| row.reason.as_ref());
    let reasons: Vec<&str> = reasons.map(Reason::as_str).collect();
    assert_eq!(reasons, ["Coalesced", "Coalesced"]);
}

#[test]
fn suspended_triggers_leave_their_due_times_on_record() {
    let mut world = World::new(&["a"]);
    world.commit("w", r#","suspend":true"#, Some(EVERY_MINUTE));
    world.pass(2 * MINUTE);
    assert!(world.starts.is_empty());
    assert!(
        world.store.ledger.iter().all(|row| row.reason == Some(Reason::SUSPENDED)) && world.store.ledger.len() == 2
    );
    assert_eq!(world.start("w/p", 1), Err(Refusal::Suspended(key("w/p"))));
    world.commit("w", "", Some(EVERY_MINUTE));
    assert!(world.starts.is_empty(), "what passed while it was suspended stays passed");
}

#[test]
fn a_cancelled_run_ends_wherever_it_is() {
    let mut world = World::new(&["a"]);
    world.commit("w", "", None);
    world.slow = true;
    let running = world.start("w/p", 1).unwrap();
    let waiting = world.start("w/p", 2).unwrap();
    for run in [waiting, running] {
        world.ask(Command::CancelRun { run, by: "me".into() }).unwrap();
        assert_eq!(phase(&world, run), (RunPhase::Error, Some(Reason::CANCELLED)));
    }
    world.commit("v", r#","agents":{"labels":{"no":"one"}}"#, None);
    let run = world.start("v/p", 3).unwrap();
    world.ask(Command::CancelRun { run, by: "me".into() }).unwrap();
    assert_eq!(phase(&world, run), (RunPhase::Error, Some(Reason::CANCELLED)), "nobody had it");
}

#[test]
fn a_revoked_agent_is_closed_and_waited_out() {
    let mut world = World::new(&["a", "b"]);
    world.commit("w", SHORT, Some(EVERY_MINUTE));
    world.ask(Command::Revoke("a".parse().unwrap())).unwrap();
    world.heal("a");
    assert!(world.nodes["a"].session.is_none(), "and refused when it comes again");
    world.pass(5 * MINUTE);
    assert_eq!(world.owner("w/p").as_deref(), Some("b"));
}

#[test]
fn what_a_revoked_agent_had_is_nobodys_where_nobody_else_fits() {
    let mut world = World::new(&["a"]);
    world.commit("w", SHORT, Some(EVERY_MINUTE));
    world.ask(Command::Revoke("a".parse().unwrap())).unwrap();
    world.pass(5 * MINUTE);
    assert_eq!(world.owner("w/p"), None, "it never comes back");
    assert_eq!(world.store.owners[&key("w/p")].reason, Some(Reason::NO_MATCHING_AGENT));
    world.add("b");
    world.pass(MINUTE);
    assert_eq!(world.owner("w/p").as_deref(), Some("b"));
}

#[test]
fn a_shorter_autonomy_counts_only_after_the_longer_one() {
    let mut world = World::new(&["a", "b"]);
    world.commit("w", r#","autonomy":"10m""#, Some(EVERY_MINUTE));
    world.pass(MINUTE);
    world.cut("a");
    world.commit("w", SHORT, Some(EVERY_MINUTE));
    world.pass(10 * MINUTE);
    assert_eq!(world.owner("w/p").as_deref(), Some("a"), "a has not heard of it");
    world.pass(2 * MINUTE);
    assert_eq!(world.owner("w/p").as_deref(), Some("b"));
}

#[test]
fn a_run_that_waits_keeps_the_spec_that_it_was_made_for() {
    let mut world = World::new(&["a"]);
    world.commit("w", "", None);
    world.slow = true;
    let first = world.start("w/p", 1).unwrap();
    let second = world.start("w/p", 2).unwrap();
    world.commit("w", r#","description":"another""#, None);
    assert_ne!(world.run(second).spec.spec_hash, world.store.owners[&key("w/p")].spec_hash);
    for run in [first, second] {
        world.end_steps("a");
        world.settle();
        assert_eq!(phase(&world, run).0, RunPhase::Success);
    }
    assert_eq!(world.nodes["a"].journal.specs.len(), 1, "and then lets it go");
}

#[test]
fn pipelines_that_come_while_agents_are_there_are_spread_by_load() {
    let mut world = World::new(&["a", "b", "c"]);
    for n in 0..6 {
        world.commit(&format!("w{n}"), "", None);
    }
    let owned = |agent: &str| (0..6).filter(|n| world.owner(&format!("w{n}/p")).as_deref() == Some(agent)).count();
    assert_eq!(["a", "b", "c"].map(owned), [2, 2, 2]);
}

#[test]
fn a_run_says_what_it_waits_for() {
    let mut world = World::new(&["a"]);
    world.commit("w", SHORT, None);
    world.slow = true;
    world.cut("a");
    let run = world.start("w/p", 1).unwrap();
    let says = |world: &World, run: RunName| world.run(run).status.message.clone().unwrap();
    assert_eq!(phase(&world, run), (RunPhase::StartingUp, Some(Reason::WAITING_FOR_AGENT)));
    assert_eq!(says(&world, run), "its agent is not connected");
    // It hears of the run, and none of its answers come through.
    world.pass(2 * MINUTE);
    let node = world.nodes.get_mut("a").unwrap();
    (node.deaf, node.reachable) = (true, true);
    world.connect("a");
    world.settle();
    assert_eq!(phase(&world, run), (RunPhase::StartingUp, Some(Reason::WAITING_FOR_AGENT)));
    assert_eq!(says(&world, run), "a was asked to start it");
    world.heal("a");
    world.pass(MINUTE);
    assert_eq!(phase(&world, run), (RunPhase::Running, None));
    let second = world.start("w/p", 2).unwrap();
    assert_eq!(phase(&world, second), (RunPhase::StartingUp, Some(Reason::QUEUED)));
    assert_eq!(says(&world, second), "it waits for an earlier run of this pipeline");
    world.end_steps("a");
    world.pass(MINUTE);
    world.end_steps("a");
    world.pass(MINUTE);

    // It is written once, with its agent, so nobody is told that there is none.
    let now = world.now();
    let command = Command::StartRun(world.order("w/p", 3, &[]));
    let event = Event::Asked { request: RequestId(9_000), command };
    let fx = world.controller.as_mut().unwrap().handle(now, event);
    let rows = fx.commit.iter().filter_map(|change| match change {
        Change::PutRun(row) => row.run.status.message.clone(),
        _ => None,
    });
    assert_eq!(rows.collect::<Vec<_>>(), ["a was asked to start it"]);
}

#[test]
fn a_revoked_agent_is_refused_for_good_until_it_is_forgotten_and_enrols_anew() {
    let mut world = World::new(&["a"]);
    let name: xene_schemas::meta::AgentName = "a".parse().unwrap();
    let issued = |world: &mut World, fingerprint: &str| {
        world.ask(Command::Certify { agent: "a".parse().unwrap(), fingerprint: fingerprint.into() }).unwrap();
    };
    issued(&mut world, "first");
    issued(&mut world, "renewed");
    for (fingerprint, lets_in) in [("first", true), ("renewed", true), ("foreign", false)] {
        assert_eq!(world.refuses("a", fingerprint).is_none(), lets_in, "{fingerprint}");
    }
    world.ask(Command::Revoke(name.clone())).unwrap();
    let refused = world.refuses("a", "renewed").expect("refused");
    assert_eq!((refused.reason.as_str(), refused.retry), ("Revoked", false));
    world.ask(Command::Forget(name)).unwrap();
    let refused = world.refuses("a", "renewed").expect("refused");
    assert_eq!((refused.reason.as_str(), refused.retry), ("Forgotten", false));
    world.nodes.remove("a");
    world.add("a");
    assert!(world.refuses("a", "").is_none(), "enrolled anew");
    issued(&mut world, "anew");
    assert!(world.refuses("a", "renewed").is_some() && world.refuses("a", "anew").is_none());
}
