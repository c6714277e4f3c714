//! Worlds by chance: whatever happens in whatever order, the invariants hold, and in the end all is well again.

use std::time::Duration;

use proptest::{collection::vec, prelude::*};
use xene_agent::decide::event::Recovered;

use super::world::{MINUTE, World, key};
use crate::decide::event::Command;

#[derive(Debug, Clone)]
enum Act {
    Pass(u64),
    Cut(usize),
    Deafen(usize),
    Heal(usize),
    Crash(usize),
    Reboot(usize),
    Wipe(usize),
    StopController,
    StartController,
    Drain(usize),
    Undrain(usize),
    Commit(usize, usize),
    Remove(usize),
    Start(usize),
    Slow(bool),
}

const AGENTS: [&str; 3] = ["a", "b", "c"];
const WORKFLOWS: [&str; 2] = ["v", "w"];
const SPECS: [&str; 4] = [
    r#","timeout":"5m","autonomy":"30s""#,
    r#","timeout":"5m","autonomy":"2m","concurrency":{"max":2}"#,
    r#","timeout":"5m","autonomy":"1m","concurrency":{"policy":"Replace"}"#,
    r#","timeout":"5m","autonomy":"1m","suspend":true"#,
];
const CRONS: [&str; 4] = [
    r#""schedule":"* * * * *""#,
    r#""schedule":"*/20 * * * * *","catchUp":"All""#,
    r#""schedule":"* * * * *","jitter":"40s""#,
    r#""schedule":"*/2 * * * *","catchUp":"Skip""#,
];

fn act() -> impl Strategy<Value = Act> {
    let agent = 0..AGENTS.len();
    prop_oneof![
        8 => (1u64..200).prop_map(Act::Pass),
        2 => agent.clone().prop_map(Act::Cut),
        1 => agent.clone().prop_map(Act::Deafen),
        3 => agent.clone().prop_map(Act::Heal),
        2 => agent.clone().prop_map(Act::Crash),
        1 => agent.clone().prop_map(Act::Reboot),
        1 => agent.clone().prop_map(Act::Wipe),
        1 => Just(Act::StopController),
        2 => Just(Act::StartController),
        2 => agent.clone().prop_map(Act::Drain),
        2 => agent.prop_map(Act::Undrain),
        3 => (0..WORKFLOWS.len(), 0..SPECS.len()).prop_map(|(w, s)| Act::Commit(w, s)),
        1 => (0..WORKFLOWS.len()).prop_map(Act::Remove),
        3 => (0..WORKFLOWS.len()).prop_map(Act::Start),
        2 => any::<bool>().prop_map(Act::Slow),
    ]
}

fn perform(world: &mut World, act: Act, n: u128) {
    match act {
        Act::Pass(seconds) => world.pass(Duration::from_secs(seconds)),
        Act::Cut(agent) => world.cut(AGENTS[agent]),
        Act::Deafen(agent) => world.nodes.get_mut(AGENTS[agent]).unwrap().deaf = true,
        Act::Heal(agent) => world.heal(AGENTS[agent]),
        Act::Crash(agent) => {
            world.crash(AGENTS[agent]);
            world.start_agent(AGENTS[agent]);
        }
        Act::Reboot(agent) => {
            world.crash(AGENTS[agent]);
            world.nodes.get_mut(AGENTS[agent]).unwrap().boot_id = format!("boot-{n}");
            world.start_agent(AGENTS[agent]);
        }
        Act::Wipe(agent) => {
            world.crash(AGENTS[agent]);
            world.nodes.get_mut(AGENTS[agent]).unwrap().journal = Recovered::default();
            world.start_agent(AGENTS[agent]);
        }
        Act::StopController => world.stop_controller(),
        Act::StartController => {
            world.stop_controller();
            world.start_controller();
        }
        Act::Slow(slow) => {
            world.slow = slow;
            AGENTS.iter().filter(|_| !slow).for_each(|agent| world.end_steps(agent));
            world.settle();
        }
        _ if world.controller.is_none() => {}
        Act::Drain(agent) => _ = world.ask(Command::Drain(AGENTS[agent].parse().unwrap())),
        Act::Undrain(agent) => _ = world.ask(Command::Undrain(AGENTS[agent].parse().unwrap())),
        Act::Commit(workflow, spec) => {
            world.commit(WORKFLOWS[workflow], SPECS[spec], Some(CRONS[(workflow + spec) % 4]))
        }
        Act::Remove(workflow) => world.remove(WORKFLOWS[workflow]),
        Act::Start(workflow) => _ = world.start(&format!("{}/p", WORKFLOWS[workflow]), n),
    }
}

/// All faults are mended: each pipeline has an owner that fires it, and every run an end.
fn mend(world: &mut World) {
    world.slow = false;
    if world.controller.is_none() {
        world.start_controller();
    }
    for agent in AGENTS {
        world.end_steps(agent);
        world.heal(agent);
        world.ask(Command::Undrain(agent.parse().unwrap())).unwrap();
    }
    for workflow in WORKFLOWS {
        world.commit(workflow, SPECS[0], Some(CRONS[0]));
    }
    // The longest W here, and what an Unknown run is waited for.
    world.pass(15 * MINUTE);
    let before = world.starts.len();
    world.pass(2 * MINUTE);
    assert_eq!(world.starts.len(), before + 4, "both pipelines fire each minute");
    for workflow in WORKFLOWS {
        let key = key(&format!("{workflow}/p"));
        let now = world.now();
        let able = world.nodes.values().filter(|node| node.machine.as_ref().unwrap().may_start(now, &key));
        assert_eq!(able.count(), 1, "I7: one agent may start {key}");
    }
    for (run, row) in &world.store.runs {
        // A lost run of a pipeline that was removed is waited for as long as any run may take.
        let waited_for = row.give_up_at.is_some_and(|at| at > world.now().wall);
        assert!(row.run.status.phase.is_final() || waited_for, "I6: {run} is {:?}", row.run.status);
    }
    for (name, node) in &world.nodes {
        assert!(node.journal.runs.is_empty(), "{name} keeps {:?}", node.journal.runs);
        let set = world.controller.as_ref().unwrap().assignment_set(&name.parse().unwrap());
        let claims: Vec<_> = node.machine.as_ref().unwrap().claims().filter(|(_, row)| row.claimed).collect();
        let claims: Vec<_> = claims.into_iter().map(|(key, row)| (key.clone(), row.epoch, row.spec_hash)).collect();
        let set: Vec<_> = set.into_iter().map(|a| (a.pipeline, a.epoch, a.spec_hash)).collect();
        assert_eq!(claims, set, "I13: {name} hosts what it is assigned");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn invariants_hold_and_all_is_well_in_the_end(acts in vec(act(), 1..40)) {
        live(World::new(&AGENTS), acts);
    }
}

fn live(mut world: World, acts: Vec<Act>) {
    for workflow in 0..WORKFLOWS.len() {
        perform(&mut world, Act::Commit(workflow, workflow), 0);
    }
    for (n, act) in acts.into_iter().enumerate() {
        perform(&mut world, act, n as u128 + 1);
    }
    mend(&mut world);
}

/// These worlds have no delays and no crash between an intent and its start: the simulator looks for the others.
#[cfg(feature = "mutants")]
#[test]
fn mutants_are_noticed() {
    use proptest::test_runner::TestRunner;
    use xene_agent::decide::mutant::Mutant;

    for mutant in [Mutant::RestartWithoutWaiting, Mutant::LeaseKeptOverReboot, Mutant::CatchUpAfterTakeover] {
        let config = ProptestConfig {
            cases: 2_000,
            failure_persistence: None,
            max_shrink_iters: 0,
            ..ProptestConfig::default()
        };
        let outcome = TestRunner::new(config).run(&vec(act(), 1..40), |acts| {
            let mut world = World::empty();
            world.mutant = Some(mutant);
            AGENTS.iter().for_each(|agent| world.add(agent));
            live(world, acts);
            Ok(())
        });
        assert!(outcome.is_err(), "{mutant:?} lives");
    }
}

#[test]
fn a_deaf_agent_that_reboots_and_crashes_is_no_copy_of_itself() {
    let mut world = World::new(&AGENTS);
    for workflow in 0..WORKFLOWS.len() {
        perform(&mut world, Act::Commit(workflow, workflow), 0);
    }
    let acts = [Act::Deafen(1), Act::Reboot(1), Act::Crash(1), Act::Reboot(1), Act::StartController, Act::Crash(1)];
    for (n, act) in acts.into_iter().enumerate() {
        perform(&mut world, act, n as u128 + 1);
    }
    mend(&mut world);
}
