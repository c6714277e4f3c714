//! What a lost agent did nobody can tell, and some pipelines have it done once more.

use std::time::Duration;

use xene_schemas::{
    meta::RunName,
    phase::{Reason, RunPhase},
    run::Run,
};

use super::world::{MINUTE, World};
use crate::decide::event::Command;

const SECOND: Duration = Duration::from_secs(1);
const RETRY: &str = r#","autonomy":"1m","timeout":"10m","onAgentLost":"Retry""#;
const EVERY_MINUTE: &str = r#""schedule":"* * * * *""#;

fn two(pipeline: &str, cron: Option<&str>) -> World {
    let mut world = World::new(&["a", "b"]);
    world.slow = true;
    world.commit("w", pipeline, cron);
    world.pass(MINUTE);
    world
}

fn by(world: &World, by: &str) -> Vec<Run> {
    let runs = world.store.runs.values().map(|row| row.run.clone());
    runs.filter(|run| run.spec.trigger.by.as_deref() == Some(by)).collect()
}

fn fence(world: &mut World, agent: &str) {
    world.crash(agent);
    world.nodes.get_mut(agent).unwrap().reachable = false;
    world.ask(Command::Fence { agent: agent.parse().unwrap(), by: "me".into() }).unwrap();
}

fn ended(world: &World, run: RunName) -> Option<Reason> {
    let status = &world.run(run).status;
    (status.phase == RunPhase::Error).then(|| status.reason.clone()).flatten()
}

#[test]
fn a_run_that_nobody_can_report_any_more_is_started_again_on_another_agent() {
    let mut world = two(RETRY, None);
    let lost = world.start("w/p", 1).unwrap();
    fence(&mut world, "a");
    world.settle();
    assert_eq!(ended(&world, lost), Some(Reason::AGENT_LOST));
    let [again] = &by(&world, "onAgentLost: Retry")[..] else { panic!("{:?}", world.store.runs) };
    assert_eq!((again.spec.rerun_of, again.status.phase), (Some(lost), RunPhase::Running));
    assert!(world.runs_on("b"));

    // The same once its agent has been silent for the run's timeout and W.
    let mut world = two(RETRY, None);
    let lost = world.start("w/p", 1).unwrap();
    world.cut("a");
    world.pass(5 * MINUTE);
    assert_eq!(world.run(lost).status.phase, RunPhase::Unknown);
    assert!(by(&world, "onAgentLost: Retry").is_empty(), "it may still report");
    world.pass(20 * MINUTE);
    assert_eq!(ended(&world, lost), Some(Reason::AGENT_LOST));
    assert_eq!(by(&world, "onAgentLost: Retry").len(), 1);
}

#[test]
fn what_does_not_ask_for_it_or_was_cancelled_ends_for_good() {
    let mut world = two(r#","autonomy":"1m""#, None);
    world.start("w/p", 1).unwrap();
    fence(&mut world, "a");
    assert!(by(&world, "onAgentLost: Retry").is_empty());

    let mut world = two(RETRY, None);
    let lost = world.start("w/p", 1).unwrap();
    world.cut("a");
    world.ask(Command::CancelRun { run: lost, by: "me".into() }).unwrap();
    fence(&mut world, "a");
    assert_eq!(ended(&world, lost), Some(Reason::AGENT_LOST));
    assert!(by(&world, "onAgentLost: Retry").is_empty());
}

#[test]
fn a_run_that_ends_all_its_agents_is_given_up() {
    let mut world = two(RETRY, None);
    world.start("w/p", 1).unwrap();
    for _ in 0..6 {
        for agent in ["a", "b"] {
            fence(&mut world, agent);
            world.heal(agent);
            world.start_agent(agent);
            world.pass(MINUTE);
        }
    }
    assert_eq!(by(&world, "onAgentLost: Retry").len(), 3);
}

#[test]
fn due_times_that_a_lost_agent_may_have_started_are_started_where_that_does_no_harm() {
    for (fields, catch_up, expected) in [
        (r#","autonomy":"1m","onAmbiguous":"Run""#, "Latest", 1),
        (r#","autonomy":"1m","onAmbiguous":"Run""#, "All", 2),
        (r#","autonomy":"1m","onAmbiguous":"Run""#, "Skip", 0),
        (r#","autonomy":"1m","onAmbiguous":"Skip""#, "All", 0),
        (r#","autonomy":"1m""#, "All", 0),
    ] {
        let mut world = two(fields, Some(&format!(r#"{EVERY_MINUTE},"catchUp":"{catch_up}""#)));
        world.slow = false;
        assert_eq!(world.owner("w/p").as_deref(), Some("a"));
        world.end_steps("a");
        world.pass(2 * MINUTE);
        world.crash("a");
        world.nodes.get_mut("a").unwrap().reachable = false;
        world.pass(5 * MINUTE);
        assert_eq!(world.owner("w/p").as_deref(), Some("b"));
        let runs = by(&world, "onAmbiguous: Run");
        assert_eq!(runs.len(), expected, "{fields} {catch_up}: {runs:?}");
        for run in &runs {
            let slot = run.spec.trigger.scheduled_time.unwrap();
            assert_eq!(run.status.phase, RunPhase::Success);
            assert_eq!(run.metadata.name.at().as_second(), slot.as_second());
            assert_ne!(
                run.metadata.name,
                RunName::of_slot(&run.spec.key(), run.spec.trigger.name.as_ref().unwrap(), slot)
            );
        }
    }
}

#[test]
fn what_was_told_before_a_restart_of_the_controller_is_not_started_again() {
    let mut world = two(r#","autonomy":"1m","onAmbiguous":"Run""#, Some(&format!(r#"{EVERY_MINUTE},"catchUp":"All""#)));
    world.slow = false;
    world.end_steps("a");
    world.pass(2 * MINUTE);
    world.stop_controller();
    world.start_controller();
    world.crash("a");
    world.nodes.get_mut("a").unwrap().reachable = false;
    world.pass(5 * MINUTE);
    assert_eq!(world.owner("w/p").as_deref(), Some("b"));
    let told: Vec<_> = world.starts.iter().filter(|start| start.agent == "a").map(|start| start.run).collect();
    let told: Vec<_> = told.iter().filter_map(|run| world.run(*run).spec.trigger.scheduled_time).collect();
    for run in by(&world, "onAmbiguous: Run") {
        let slot = run.spec.trigger.scheduled_time.unwrap();
        assert!(!told.contains(&slot), "{slot} was started by a, and that was told");
    }
}

#[test]
fn what_a_lost_agent_may_have_started_before_an_edit_is_not_started_by_the_edited_trigger() {
    let once_a_year = r#""schedule":"0 0 1 1 *""#;
    let fields = r#","autonomy":"1m","onAmbiguous":"Run""#;
    let mut world = two(fields, Some(once_a_year));
    world.slow = false;
    world.end_steps("a");
    world.pass(2 * MINUTE);
    let owner = world.owner("w/p").unwrap();
    world.crash(&owner);
    world.nodes.get_mut(&owner).unwrap().reachable = false;
    world.pass(MINUTE);
    let edited = world.now().wall;
    world.commit("w", fields, Some(&format!(r#"{EVERY_MINUTE},"catchUp":"All""#)));
    world.pass(5 * MINUTE);
    assert_ne!(world.owner("w/p").unwrap(), owner);
    for run in by(&world, "onAmbiguous: Run") {
        assert!(run.spec.trigger.scheduled_time.unwrap() >= edited, "{run:?}");
    }
}

#[test]
fn what_a_silent_owner_runs_is_unknown_until_it_is_back_though_it_keeps_its_pipeline() {
    for autonomy in ["1m", "Forever"] {
        let mut world = World::new(&["a"]);
        world.slow = true;
        world.commit("w", &format!(r#","autonomy":"{autonomy}","concurrency":{{"max":2}}"#), None);
        let run = world.start("w/p", 1).unwrap();
        world.cut("a");
        let waits = world.start("w/p", 2).unwrap();
        world.pass(30 * SECOND);
        assert_eq!(world.run(run).status.phase, RunPhase::Running, "{autonomy}: it may come again at once");
        world.pass(5 * MINUTE);
        let status = &world.run(run).status;
        assert_eq!((status.phase, status.reason.clone()), (RunPhase::Unknown, Some(Reason::AGENT_LOST)), "{autonomy}");
        assert_eq!(world.run(waits).status.phase, RunPhase::StartingUp, "{autonomy}: it never heard of that");
        world.stop_controller();
        world.start_controller();
        world.heal("a");
        world.pass(MINUTE);
        assert_eq!(world.owner("w/p").as_deref(), Some("a"));
        for run in [run, waits] {
            let status = &world.run(run).status;
            assert_eq!((status.phase, status.reason.clone()), (RunPhase::Running, None), "{autonomy}");
        }
        world.end_steps("a");
        world.settle();
        assert!([run, waits].iter().all(|run| world.run(*run).status.phase == RunPhase::Success));
    }
}

#[test]
fn a_run_is_given_up_unless_its_owner_may_come_back_at_any_time() {
    let mut world = World::new(&["a"]);
    world.slow = true;
    world.commit("w", r#","autonomy":"1m","timeout":"1h""#, None);
    world.commit("ever", r#","autonomy":"Forever","timeout":"1h""#, None);
    let (run, kept) = (world.start("w/p", 1).unwrap(), world.start("ever/p", 2).unwrap());
    world.cut("a");
    world.pass(200 * MINUTE);
    assert_eq!(ended(&world, run), Some(Reason::AGENT_LOST));
    assert_eq!(world.run(kept).status.phase, RunPhase::Unknown, "it may still tell");
    world.stop_controller();
    world.start_controller();
    world.pass(200 * MINUTE);
    assert_eq!(world.run(kept).status.phase, RunPhase::Unknown);
    world.ask(Command::Forget("a".parse().unwrap())).unwrap();
    world.pass(200 * MINUTE);
    assert_eq!(ended(&world, kept), Some(Reason::AGENT_LOST), "nobody tells any more");
}

#[test]
fn a_run_that_no_agent_can_start_in_time_is_not_started() {
    let fields = r#","queueTimeout":"5m","autonomy":"Forever""#;
    for comes_back in [3, 7] {
        let mut world = World::new(&["a"]);
        world.commit("w", fields, None);
        world.cut("a");
        let run = world.start("w/p", 1).unwrap();
        world.pass(2 * MINUTE);
        // What is left of the time survives the controller.
        world.stop_controller();
        world.start_controller();
        world.pass((comes_back - 2) * MINUTE);
        let in_time = comes_back < 5;
        assert_eq!(ended(&world, run), (!in_time).then_some(Reason::QUEUE_TIMED_OUT));
        world.heal("a");
        world.pass(MINUTE);
        assert_eq!(world.starts.len(), usize::from(in_time));
    }

    let mut world = World::new(&["a"]);
    world.commit("w", r#","queueTimeout":"5m","agents":{"labels":{"gpu":"yes"}}"#, None);
    let run = world.start("w/p", 1).unwrap();
    world.pass(4 * MINUTE);
    assert_eq!(world.run(run).status.phase, RunPhase::StartingUp);
    world.pass(2 * MINUTE);
    assert_eq!(ended(&world, run), Some(Reason::QUEUE_TIMED_OUT));
    assert_eq!(world.run(run).status.message.as_deref(), Some("no agent could start it within 5m"));
}
