//! All processes are restarted one after the other while there is work, as an upgrade does it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use rustix::process::Signal;
use xene_test_support::{cluster::Cluster, eventually};

use crate::{
    client::Api,
    world::{AGENT, AGENTS, due, gaps, note, starts},
};

/// Due each second.
const TICKING: [&str; 6] = ["t0", "t1", "t2", "t3", "t4", "t5"];
/// Their runs outlast all restarts.
const LONG: [&str; 3] = ["l0", "l1", "l2"];

fn workflow(folder: &Path) -> String {
    let note = note(folder);
    let end = format!("until test -e {}; do sleep 0.05; done", folder.join("go").display());
    let common = "autonomy: 1m, history: {runs: 200000}, concurrency: {max: 8}";
    let ticking = TICKING
        .map(|name| format!("    {name}: {{trigger: second, {common}, tasks: {{t: {{steps: ['{note}']}}}}}}\n"))
        .concat();
    let long = LONG
        .map(|name| {
            let tasks = format!(r#"t: {{steps: ['{note}', '{end}']}}, u: {{dependencies: t, steps: ["true"]}}"#);
            format!("    {name}: {{{common}, tasks: {{{tasks}}}}}\n")
        })
        .concat();
    format!(
        "apiVersion: xene/v1\nkind: Workflow\nmetadata: {{name: w}}\nspec:\n  triggers:\n    \
         second: {{type: cron, schedule: \"* * * * * *\", catchUp: All}}\n  pipelines:\n    \
         hand: {{tasks: {{t: {{steps: [\"true\"]}}}}}}\n{ticking}{long}"
    )
}

/// Which agent has each of them, and under which epoch.
fn owners(cluster: &Cluster) -> BTreeMap<&'static str, (String, u64)> {
    let owner = |name: &&'static str| {
        let status = cluster.scheduled(&format!("w/{name}"))["status"].clone();
        (*name, (status["agent"].as_str().unwrap().to_owned(), status["epoch"].as_u64().unwrap()))
    };
    TICKING.iter().chain(&LONG).map(owner).collect()
}

/// Each of these ticks twice more.
fn tick_on(cluster: &Cluster, names: &[&str]) {
    let count = || names.iter().map(|name| due(cluster.folder(), name).len()).collect::<Vec<_>>();
    let seen = count();
    eventually("all tick on", || {
        let now = count();
        if now.iter().zip(&seen).all(|(now, seen)| *now >= seen + 2) {
            Ok(())
        } else {
            Err(format!("{seen:?}, {now:?}"))
        }
    });
}

#[test]
fn nothing_is_missed_or_moved_while_all_are_restarted_one_after_the_other() {
    let mut cluster = Cluster::start(&[]);
    AGENTS.iter().for_each(|name| cluster.start_agent(name, &AGENT));
    cluster.repository.write("xene.d/w.yaml", &workflow(cluster.folder()));
    cluster.commit("w");
    let before = owners(&cluster);
    let busy: BTreeSet<&str> = before.values().map(|(agent, _)| agent.as_str()).collect();
    assert_eq!(busy, AGENTS.into(), "each has something to do");
    let long = LONG.map(|name| cluster.run(&["trigger", &format!("w/{name}")]).expect(0).stdout.trim().to_owned());
    for run in &long {
        cluster.until("it runs", &["get", "runs", run], |run| run["status"]["phase"] == "Running");
    }

    let mut controller = cluster.controller.take().unwrap();
    assert!(controller.terminate().success(), "{}", controller.output());
    tick_on(&cluster, &TICKING);
    cluster.start_controller();
    for name in AGENTS {
        cluster.until("it is back", &["get", "agents", name], |agent| agent["status"]["phase"] == "Connected");
    }
    for name in AGENTS {
        let mut agent = cluster.agents.remove(name).unwrap();
        agent.signal(Signal::HUP);
        assert!(agent.wait().success(), "{}", agent.output());
        let of_others = |ticking: &&str| before[ticking].0 != name;
        tick_on(&cluster, &TICKING.into_iter().filter(of_others).collect::<Vec<_>>());
        cluster.restart_agent(name, &AGENT);
        tick_on(&cluster, &TICKING);
        cluster.run(&["trigger", "w/hand", "--wait"]).expect(0);
    }

    assert_eq!(owners(&cluster), before, "nothing moved");
    fs::write(cluster.folder().join("go"), "").unwrap();
    for run in &long {
        let record = cluster.until("it ends", &["get", "runs", run], |run| run["status"]["finishedAt"].is_string());
        assert_eq!(record["status"]["phase"], "Success", "{record:#}");
        assert_eq!(starts(cluster.folder()).iter().filter(|start| start.run == *run).count(), 1, "{run}");
    }
    for name in TICKING {
        // Of two steps that start at nearly the same time the later may be the first that leaves word.
        eventually("no due time is left out", || match &gaps(cluster.folder(), name)[..] {
            [] => Ok(()),
            gaps => Err(format!("{name}: {gaps:?}")),
        });
    }
    cluster.run(&["suspend", "w", "--why", "it is over"]).expect(0);
    let api = Api::of(&cluster);
    eventually("each start has a record, and ended well", || {
        let runs = api.all("/api/v1/runs?")?;
        let ended = runs.iter().filter(|run| run["status"]["phase"] == "Success");
        let ended: BTreeSet<_> = ended.filter_map(|run| run["metadata"]["name"].as_str()).collect();
        let starts = starts(cluster.folder());
        let lost: Vec<_> = starts.iter().filter(|start| !ended.contains(start.run.as_str())).collect();
        if lost.is_empty() && ended.len() == runs.len() { Ok(()) } else { Err(format!("{lost:?}")) }
    });
}
