//! Notifications: each transition once, whatever happens to the controller, its agents and the destinations.

use std::time::Duration;

use jiff::Timestamp;
use xene_schemas::{
    event::EventType,
    meta::{Revision, RunName, SpecHash},
    notifier::{Notice, NotifierPhase, Transition},
};

use super::world::{MINUTE, World};
use crate::decide::{
    desired::{DesiredNotifier, SourceHealth},
    event::{Command, Delivery, Effects, Event, Outcome},
    rows::{Fate, NotifierClaim},
};

const HOUR: Duration = Duration::from_secs(3_600);

/// Commits a notifier.
fn notifier(world: &mut World, name: &str, spec: &str) {
    let claim = NotifierClaim {
        line: 1,
        metadata: serde_json::from_str(&format!(r#"{{"name":"{name}"}}"#)).unwrap(),
        spec: serde_yaml::from_str(spec).unwrap(),
    };
    let hash = SpecHash::of(&serde_json::to_vec(&(&claim.metadata, &claim.spec)).unwrap());
    let wanted = DesiredNotifier { hash, path: "notify.yaml".into(), valid: true, claim };
    world.notifiers.insert(name.parse().unwrap(), wanted);
    world.sync();
}

fn chat(on: &str) -> String {
    format!("{{on: [{on}], slack: {{credential: c}}}}")
}

/// What has set out by now.
fn sent(world: &mut World) -> Vec<Delivery> {
    world.pass(Duration::ZERO);
    std::mem::take(&mut world.deliveries)
}

fn answer(world: &mut World, delivery: &Delivery, outcome: Outcome) {
    world.tell(Event::Delivered { notifier: delivery.notifier.clone(), number: delivery.number, outcome });
}

/// All that is told, by destinations that take it.
fn told(world: &mut World) -> Vec<Notice> {
    let mut all = Vec::new();
    loop {
        let deliveries = sent(world);
        if deliveries.is_empty() {
            return all;
        }
        for delivery in deliveries {
            answer(world, &delivery, Outcome::Delivered);
            all.push(delivery.notice);
        }
    }
}

fn words(world: &mut World) -> Vec<&'static str> {
    told(world).iter().map(|notice| notice.transition.as_str()).collect()
}

fn failed() -> Outcome {
    Outcome::Failed { why: "no".into(), retry_after: None }
}

/// A run that ends so.
fn run(world: &mut World, n: u128, success: bool) -> RunName {
    world.fails = !success;
    world.pass(Duration::from_secs(2));
    world.start("w/p", n).unwrap()
}

fn restart(world: &mut World) {
    world.stop_controller();
    world.start_controller();
}

#[test]
fn a_run_is_told_by_its_phases_each_once() {
    let mut world = World::new(&["a"]);
    notifier(&mut world, "n", &chat("StartingUp, Running, ShuttingDown, Success, Error, Unknown"));
    world.commit("w", "", None);
    assert!(told(&mut world).is_empty());
    world.slow = true;
    let name = world.start("w/p", 1).unwrap();
    let notices = told(&mut world);
    let first: Vec<_> = notices.iter().map(|notice| notice.transition.as_str()).collect();
    assert_eq!(first, ["StartingUp", "Running"]);
    assert_eq!(notices[0].regarding, format!("run/{name}"));
    restart(&mut world);
    world.heal("a");
    assert!(told(&mut world).is_empty(), "what was told stays told");
    world.slow = false;
    world.end_steps("a");
    world.settle();
    let last = told(&mut world);
    assert_eq!(last.len(), 1, "{last:?}");
    let ids: std::collections::BTreeSet<_> = notices.iter().chain(&last).map(|notice| &notice.id).collect();
    assert_eq!(ids.len(), 3);
    restart(&mut world);
    world.sync();
    world.heal("a");
    world.pass(HOUR);
    assert!(told(&mut world).is_empty());
    let status = world.controller.as_ref().unwrap().notifier(&"n".parse().unwrap()).unwrap().status;
    assert_eq!((status.phase, status.pending), (NotifierPhase::Ready, 0));
    assert!(status.delivered >= 3 && world.store.messages.is_empty());
}

#[test]
fn a_pipeline_breaks_and_recovers_at_the_edges() {
    let mut world = World::new(&["a"]);
    notifier(&mut world, "n", &chat("Broken, Recovered"));
    world.commit("w", "", None);
    run(&mut world, 1, false);
    assert!(told(&mut world).is_empty(), "nothing was there to break");
    run(&mut world, 2, true);
    assert_eq!(words(&mut world), ["Recovered"]);
    run(&mut world, 3, true);
    run(&mut world, 4, false);
    let broken = told(&mut world);
    assert_eq!(broken.len(), 1);
    assert_eq!((broken[0].transition, broken[0].run.unwrap()), (Transition::Broken, world_run(4)));
    run(&mut world, 5, false);
    // Of one that was cancelled nobody can tell.
    world.slow = true;
    let cancelled = run(&mut world, 6, true);
    world.ask(Command::CancelRun { run: cancelled, by: "ada".into() }).unwrap();
    world.slow = false;
    world.end_steps("a");
    world.settle();
    assert!(world.run(cancelled).status.phase.is_final());
    restart(&mut world);
    assert!(told(&mut world).is_empty());
    run(&mut world, 7, true);
    assert_eq!(words(&mut world), ["Recovered"]);
}

#[test]
fn edges_are_seen_also_where_ends_come_together_or_little_is_kept() {
    let mut world = World::new(&["a"]);
    notifier(&mut world, "n", &chat("Broken, Recovered"));
    world.commit("w", "", None);
    run(&mut world, 1, true);
    // Two end while nobody hears of it, and are reported at once.
    world.slow = true;
    let both = [run(&mut world, 2, false), run(&mut world, 3, false)];
    world.cut("a");
    world.slow = false;
    for _ in 0..2 {
        world.end_steps("a");
        world.pass(Duration::from_secs(1));
    }
    world.heal("a");
    world.pass(MINUTE);
    assert!(both.iter().all(|run| world.run(*run).status.phase.is_final()));
    assert_eq!(words(&mut world), ["Broken"]);

    let mut world = World::new(&["a"]);
    notifier(&mut world, "n", &chat("Broken, Recovered"));
    world.commit("w", r#","history":{"runs":1}"#, None);
    run(&mut world, 1, false);
    run(&mut world, 2, true);
    assert_eq!(words(&mut world), ["Recovered"]);
}

fn world_run(n: u128) -> RunName {
    RunName::new(Timestamp::from_second(1_800_000_000).unwrap(), n)
}

#[test]
fn approvals_are_told_once_with_what_is_asked() {
    let mut world = World::new(&["a"]);
    notifier(&mut world, "n", &chat("WaitingForApproval"));
    let pipeline = r#","tasks":{"t":{"steps":["true"]},"deploy":{"steps":["true"]}},
        "connectors":[{"from":"t","to":"deploy","approval":{"message":"ship it?","timeout":"5m"}}]"#;
    world.commit("w", pipeline, None);
    world.start("w/p", 1).unwrap();
    let notices = told(&mut world);
    assert_eq!(notices.len(), 1, "{notices:?}");
    assert_eq!((notices[0].task.as_deref(), notices[0].message.as_deref()), (Some("deploy"), Some("ship it?")));
    restart(&mut world);
    world.pass(10 * MINUTE);
    assert!(told(&mut world).is_empty());
}

#[test]
fn only_what_is_selected_is_told() {
    let mut world = World::new(&["a"]);
    let select = |select: &str| format!("{{on: [Success], select: {select}, slack: {{credential: c}}}}");
    notifier(&mut world, "all", &chat("Success"));
    notifier(&mut world, "by-workflow", &select("{workflows: ['w*', '!w2']}"));
    notifier(&mut world, "by-pipeline", &select("{pipelines: [q]}"));
    notifier(&mut world, "by-label", &select("{labels: {team: data}}"));
    for workflow in ["w1", "w2", "v"] {
        world.commit_all(workflow, &[("p", ""), ("q", "")], None, "{}");
    }
    let mut told_of = |pipeline: &str, n| {
        world.start(pipeline, n).unwrap();
        let mut names: Vec<_> = sent(&mut world).iter().map(|delivery| delivery.notifier.to_string()).collect();
        told(&mut world);
        // Those that were sent are answered by nobody: the next controller sends them again.
        restart(&mut world);
        told(&mut world);
        names.sort();
        names.join(" ")
    };
    assert_eq!(told_of("w1/p", 1), "all by-workflow");
    assert_eq!(told_of("w1/q", 2), "all by-pipeline by-workflow");
    assert_eq!(told_of("w2/p", 3), "all");
    assert_eq!(told_of("v/q", 4), "all by-pipeline");
}

#[test]
fn what_was_not_delivered_is_after_a_restart_under_the_same_id() {
    let mut world = World::new(&["a"]);
    notifier(&mut world, "n", &chat("Success"));
    world.commit("w", "", None);
    for n in 1..=3 {
        world.start("w/p", n).unwrap();
    }
    let first = sent(&mut world);
    assert_eq!(first.len(), 1, "one at a time, in their order");
    restart(&mut world);
    // Of a process that is gone.
    let again = sent(&mut world);
    assert_eq!((&again[0].notice, &again[0].source), (&first[0].notice, &first[0].source));
    answer(&mut world, &again[0], Outcome::Delivered);
    answer(&mut world, &again[0], Outcome::Delivered);
    let rest: Vec<_> = told(&mut world).iter().map(|notice| notice.run.unwrap()).collect();
    assert_eq!(rest, [world_run(2), world_run(3)]);
    assert!(world.store.messages.is_empty());
    assert_eq!(world.store.fates, [Fate::Delivered; 3]);
}

#[test]
fn a_destination_that_fails_is_asked_again_later_and_later_and_given_up_after_a_day() {
    let mut world = World::new(&["a"]);
    notifier(&mut world, "n", &chat("Success"));
    world.commit("w", "", None);
    world.start("w/p", 1).unwrap();
    let start = world.now().boot;
    let mut tries = 0;
    let mut longest = Duration::ZERO;
    let mut last = start;
    while !world.store.messages.is_empty() {
        for delivery in sent(&mut world) {
            let now = world.now().boot;
            longest = longest.max(now.since(last));
            (last, tries) = (now, tries + 1);
            answer(&mut world, &delivery, failed());
        }
        world.pass(Duration::from_secs(1));
        assert!(world.now().boot.since(start) < 26 * HOUR);
    }
    let lasted = world.now().boot.since(start);
    assert!(lasted >= 24 * HOUR && lasted < 25 * HOUR, "{lasted:?}");
    assert!((100..2_000).contains(&tries), "{tries}");
    assert!(longest > 2 * MINUTE && longest <= 10 * MINUTE + Duration::from_secs(1), "{longest:?}");
    let warnings: Vec<_> = world.store.events.iter().filter(|event| event.regarding == "notifier/n").collect();
    let told: Vec<_> = warnings.iter().filter(|event| event.kind == EventType::Warning).map(|e| &*e.reason).collect();
    assert_eq!(told, ["NotifierFailing", "NotificationGivenUp"]);
    assert_eq!(world.store.fates, [Fate::GivenUp]);
    let status = world.controller.as_ref().unwrap().notifier(&"n".parse().unwrap()).unwrap().status;
    assert_eq!((status.phase, status.lost, status.error.as_deref()), (NotifierPhase::Failing, 1, Some("no")));
    // The next one gets there.
    world.start("w/p", 2).unwrap();
    world.pass(11 * MINUTE);
    assert_eq!(words(&mut world), ["Success"]);
    assert!(world.store.events.iter().any(|event| event.reason == "NotifierDelivers"));
}

#[test]
fn a_destination_is_heard_when_it_asks_for_patience_or_refuses() {
    let mut world = World::new(&["a"]);
    notifier(&mut world, "n", &chat("Success"));
    world.commit("w", "", None);
    world.start("w/p", 1).unwrap();
    world.start("w/p", 2).unwrap();
    let first = sent(&mut world).remove(0);
    answer(&mut world, &first, Outcome::Failed { why: "slow".into(), retry_after: Some(5 * MINUTE) });
    world.pass(4 * MINUTE);
    assert!(sent(&mut world).is_empty());
    world.pass(MINUTE);
    let again = sent(&mut world).remove(0);
    assert_eq!(again.notice, first.notice);
    answer(&mut world, &again, Outcome::Refused("400 was answered".into()));
    let next = sent(&mut world).remove(0);
    assert_eq!(next.notice.run, Some(world_run(2)));
    answer(&mut world, &next, Outcome::Delivered);
    assert_eq!(world.store.fates, [Fate::GivenUp, Fate::Delivered]);
}

fn announce(world: &mut World, transition: Transition, n: u128, revision: &str) {
    let mut notice = Notice::new(transition, format!("run/{n}"), format!("{n}/{transition}"), world.now().wall);
    notice.revision = Some(Revision(revision.into()));
    (notice.workflow, notice.pipeline) = (Some("w".parse().unwrap()), Some("p".parse().unwrap()));
    let (now, mut fx) = (world.now(), Effects::default());
    world.controller.as_mut().unwrap().announce(now, &notice, &mut fx);
    world.carry_out(fx);
}

#[test]
fn a_thousand_messages_wait_and_no_more() {
    let mut world = World::new(&[]);
    notifier(&mut world, "n", &chat("Success"));
    announce(&mut world, Transition::Success, 0, "r1");
    let first = sent(&mut world).remove(0);
    for n in 1..=1_002 {
        announce(&mut world, Transition::Success, n, "r1");
    }
    assert_eq!(world.store.messages.len(), 1_000);
    assert_eq!(world.store.fates, [Fate::Dropped; 3]);
    assert!(world.store.messages.contains_key(&first.number), "what is on its way is not dropped");
    assert_eq!(world.store.events.iter().filter(|event| event.reason == "NotificationsDropped").count(), 1);
    answer(&mut world, &first, Outcome::Delivered);
    assert_eq!(sent(&mut world)[0].notice.id, "4/Success");
}

#[test]
fn of_a_commit_only_the_newest_state_is_told() {
    let mut world = World::new(&[]);
    let spec = "{commitStatus: {provider: github, credential: c, repository: a/b}}";
    notifier(&mut world, "n", spec);
    let sha = "1a2b3c4d5e6f1a2b3c4d5e6f1a2b3c4d5e6f1a2b";
    announce(&mut world, Transition::StartingUp, 1, "dir-0123456789abcdef");
    announce(&mut world, Transition::Broken, 1, sha);
    assert!(sent(&mut world).is_empty(), "no commit, and no state");
    for transition in [Transition::StartingUp, Transition::Running] {
        announce(&mut world, transition, 1, sha);
    }
    let running = sent(&mut world).remove(0);
    assert_eq!(running.notice.transition, Transition::Running);
    announce(&mut world, Transition::Success, 1, sha);
    // It need not be told again what has changed since.
    answer(&mut world, &running, failed());
    world.pass(MINUTE);
    assert_eq!(words(&mut world), ["Success"]);
    assert_eq!(world.store.fates, [Fate::Superseded, Fate::Superseded, Fate::Delivered]);
}

#[test]
fn the_source_fails_and_recovers_once_also_over_a_restart() {
    let mut world = World::new(&["a"]);
    notifier(&mut world, "n", &chat("SourceFailing, SourceRecovered"));
    world.observe();
    let fails = |world: &mut World, reason: &str| {
        let since = world.now().wall;
        let (reason, message) = (reason.to_owned(), "it can't be read".to_owned());
        world.tell(Event::Source(SourceHealth::Failed { reason, message, since, stale: false }));
    };
    fails(&mut world, "Unreachable");
    fails(&mut world, "Unreachable");
    fails(&mut world, "AuthFailed");
    assert_eq!(words(&mut world), ["SourceFailing"]);
    restart(&mut world);
    // Before it is known how it goes.
    world.sync();
    fails(&mut world, "AuthFailed");
    assert!(told(&mut world).is_empty());
    restart(&mut world);
    world.observe();
    assert_eq!(words(&mut world), ["SourceRecovered"]);
    restart(&mut world);
    world.observe();
    assert!(told(&mut world).is_empty());
}

#[test]
fn a_lost_agent_is_told_once_and_when_it_is_back() {
    let mut world = World::new(&["a", "b"]);
    notifier(&mut world, "n", &chat("AgentLost, AgentReturned"));
    world.commit("w", r#","autonomy":"1m""#, None);
    world.commit("v", r#","autonomy":"2m""#, None);
    assert_eq!(world.owner("w/p").as_deref(), Some("a"));
    world.cut("a");
    world.pass(10 * MINUTE);
    let lost = told(&mut world);
    assert_eq!(lost.len(), 1, "{lost:?}");
    assert_eq!((lost[0].transition, lost[0].regarding.as_str()), (Transition::AgentLost, "agent/a"));
    restart(&mut world);
    world.pass(10 * MINUTE);
    assert!(told(&mut world).is_empty());
    world.heal("a");
    assert_eq!(words(&mut world), ["AgentReturned"]);
    restart(&mut world);
    world.pass(10 * MINUTE);
    assert!(told(&mut world).is_empty());
}

#[test]
fn nothing_sets_out_beside_what_a_removed_notifier_left_on_its_way() {
    let mut world = World::new(&[]);
    notifier(&mut world, "n", &chat("Success"));
    announce(&mut world, Transition::Success, 1, "r1");
    announce(&mut world, Transition::Success, 2, "r1");
    let first = sent(&mut world).remove(0);
    world.notifiers.clear();
    world.sync();
    assert_eq!(world.store.fates, [Fate::Superseded; 2]);
    notifier(&mut world, "n", &chat("Success"));
    announce(&mut world, Transition::Success, 3, "r1");
    assert!(sent(&mut world).is_empty(), "one is on its way");
    answer(&mut world, &first, failed());
    let third = sent(&mut world).remove(0);
    assert_eq!(third.notice.id, "3/Success");
    answer(&mut world, &third, Outcome::Delivered);
    assert!(world.store.messages.is_empty());
    // One that did not come back leaves nothing behind.
    announce(&mut world, Transition::Success, 4, "r1");
    let last = sent(&mut world).remove(0);
    world.notifiers.clear();
    world.sync();
    answer(&mut world, &last, Outcome::Delivered);
    let told = world.store.events.iter().rfind(|event| event.regarding == "notifier/n");
    assert_eq!(told.unwrap().reason, "NotifierRemoved");
}

#[test]
fn a_notifier_is_committed_changed_and_removed() {
    let mut world = World::new(&["a"]);
    world.commit("w", "", None);
    notifier(&mut world, "n", &chat("Success"));
    world.start("w/p", 1).unwrap();
    let first = sent(&mut world).remove(0);
    answer(&mut world, &first, failed());
    // What kept it from its destination may be mended.
    notifier(&mut world, "n", "{on: [Success], slack: {credential: other}}");
    let again = sent(&mut world).remove(0);
    assert_eq!((again.number, again.spec.slack.as_ref().unwrap().credential.as_str()), (first.number, "other"));
    let row = &world.store.notifiers["n"];
    assert_eq!(row.generation.0, 2);
    let before = row.clone();
    world.sync();
    assert_eq!(world.store.notifiers["n"], before, "nothing changed");

    let mut found = super::drift::found(&world);
    world.store.notifiers.remove("n");
    found.notifiers.clear();
    super::drift::repair(&mut world, found);
    assert_eq!(world.store.notifiers["n"], before, "put back as old as it was");

    world.notifiers.clear();
    world.sync();
    assert!(world.store.notifiers.is_empty() && world.store.messages.is_empty());
    answer(&mut world, &again, Outcome::Delivered);
    world.start("w/p", 2).unwrap();
    world.pass(HOUR);
    assert!(sent(&mut world).is_empty());
    let told: Vec<_> = world.store.events.iter().filter(|event| event.regarding == "notifier/n").collect();
    let told: Vec<_> = told.iter().map(|event| &*event.reason).collect();
    assert_eq!(told, ["NotifierCreated", "NotifierFailing", "NotifierUpdated", "NotifierUpdated", "NotifierRemoved"]);
}
