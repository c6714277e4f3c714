//! Disks that are full for long, and one that is slow: who has what keeps it, and nothing acknowledged is lost.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use rustix::process::Signal;
use serde_json::{Value, json};
use xene_test_support::{cluster::Cluster, disk::SmallDisk, eventually, within};

use crate::{
    client::Api,
    tools::tamper,
    world::{Start, note, starts},
};

const SHORT: [&str; 4] = ["--min-autonomy", "2s", "--pause-margin", "1s"];

fn by(cluster: &Cluster, pipeline: &str) -> Vec<Start> {
    starts(cluster.folder()).into_iter().filter(|start| start.pipeline == pipeline).collect()
}

fn until_starts(cluster: &Cluster, pipeline: &str, more: usize) {
    let seen = by(cluster, pipeline).len();
    eventually(&format!("{pipeline} starts on"), || match by(cluster, pipeline).len() {
        now if now >= seen + more => Ok(()),
        now => Err(format!("{seen} then {now}")),
    });
}

/// The agent of a pipeline, and its epoch.
fn owner(cluster: &Cluster, pipeline: &str) -> (String, u64) {
    let status = &cluster.json(&["get", "pipelines", pipeline])["status"];
    (status["agent"].as_str().unwrap().to_owned(), status["epoch"].as_u64().unwrap())
}

fn ended(cluster: &Cluster, run: &str) -> Value {
    cluster.until("it ends", &["get", "runs", run], |run| run["status"]["finishedAt"].is_string())
}

/// When the newest renewal of an agent came that counts.
fn heard(agent: &Value) -> Timestamp {
    agent["status"]["lastSeen"].as_str().unwrap().parse().unwrap()
}

#[test]
fn a_controller_whose_disk_is_full_for_longer_than_w_takes_nothing_away_and_loses_nothing() {
    let mut cluster = Cluster::start(&SHORT);
    cluster.controller.take().unwrap().terminate();
    fs::remove_dir_all(cluster.data()).unwrap();
    let Some(disk) = SmallDisk::mount(&cluster.data(), "24m") else {
        println!("no file system can be mounted here: no disk becomes full");
        return;
    };
    cluster.start_controller();
    cluster.start_agent("a", &["--slots", "8"]);
    let (note, gate) = (note(cluster.folder()), cluster.folder().join("gate"));
    // Who was not heard for want of room comes again within 5 s of the end of it: leases have to last for so long.
    let text = format!(
        "apiVersion: xene/v1\nkind: Workflow\nmetadata: {{name: w}}\nspec:\n  triggers:\n    \
         second: {{type: cron, schedule: \"* * * * * *\", catchUp: All}}\n    request: {{type: webhook}}\n  pipelines:\n    \
         tick: {{trigger: second, autonomy: 8s, concurrency: {{max: 4}}, tasks: {{t: {{steps: ['{note}']}}}}}}\n    \
         hand: {{autonomy: 8s, concurrency: {{max: 4}}, tasks: {{t: {{steps: ['{note}', 'until test -e {0}; do sleep 0.05; done; echo over']}}}}}}\n    \
         hook: {{trigger: request, autonomy: 8s, concurrency: {{max: 4}}, tasks: {{t: {{steps: ['{note}']}}}}}}\n",
        gate.display()
    );
    cluster.repository.write("xene.d/w.yaml", &text);
    cluster.commit("w");
    let pipelines = ["w/tick", "w/hand", "w/hook"];
    for pipeline in pipelines {
        assert_eq!(cluster.scheduled(pipeline)["status"]["agent"], "a");
    }
    let owners = pipelines.map(|pipeline| owner(&cluster, pipeline));
    // Who could take over.
    cluster.start_agent("b", &[]);
    let api = Api::of(&cluster);
    let deliver = |id: &str| api.post("/hooks/w/triggers/request", ("X-Delivery-Id", id), &json!({}));
    let delivered = deliver("one").unwrap()["run"].as_str().unwrap().to_owned();
    let goes_on = cluster.run(&["trigger", "w/hand"]).expect(0).stdout.trim().to_owned();
    cluster.until("it runs", &["get", "runs", &goes_on], |run| run["status"]["phase"] == "Running");
    until_starts(&cluster, "tick", 1);

    disk.fill();
    cluster.controller.as_mut().unwrap().line_after("nothing is committed until there is room");
    let full = Timestamp::now();
    let refused = cluster.run(&["trigger", "w/hand"]).expect(1);
    assert!(refused.stderr.contains("the controller's disk is full"), "{refused:#?}");
    assert!(refused.stderr.contains("takes nothing new until there is room"), "{refused:#?}");
    let refused = deliver("two").unwrap_err();
    assert!(refused.contains("507"), "{refused}");
    let other = "apiVersion: xene/v1\nkind: Workflow\nmetadata: {name: later}\nspec: {pipelines: {p: {tasks: {t: {steps: [a]}}}}}\n";
    cluster.repository.write("xene.d/later.yaml", other);
    let revision = cluster.repository.commit("later");
    until_starts(&cluster, "tick", 12);
    for name in ["a", "b"] {
        let agent = cluster.json(&["get", "agents", name]);
        let (heard, now) = (heard(&agent), Timestamp::now());
        assert_eq!(agent["status"]["phase"], "Connected", "{agent:#}");
        let least = if name == "a" { now - SignedDuration::from_secs(4) } else { full };
        assert!(heard > least, "renewals of {name} count: {heard} at {now}");
    }
    let (lasted, w) = (Timestamp::now().duration_since(full), SignedDuration::from_millis(9_400));
    assert!(lasted > w, "W is over, had nobody been heard: {lasted:?}");
    assert_ne!(cluster.json(&["status"])["status"]["revision"], revision.as_str(), "nothing can be in effect");
    // What runs ends, though that can't be kept yet.
    fs::write(&gate, "").unwrap();
    let refused = cluster.run(&["trigger", "w/hand"]).expect(1);
    assert!(refused.stderr.contains("disk is full"), "{refused:#?}");
    assert_eq!(pipelines.map(|pipeline| owner(&cluster, pipeline)), owners);

    disk.free();
    eventually("it takes deliveries again", || deliver("two"));
    cluster.until("the commit is in effect", &["status"], |s| s["status"]["revision"] == revision.as_str());
    let last = cluster.run(&["trigger", "w/hand", "--wait"]).expect(0).stdout.trim().to_owned();
    assert_eq!(ended(&cluster, &goes_on)["status"]["phase"], "Success");
    assert_eq!(cluster.run(&["logs", &goes_on]).expect(0).stdout, "over\n");
    assert_eq!(ended(&cluster, &delivered)["status"]["phase"], "Success");
    assert_eq!(pipelines.map(|pipeline| owner(&cluster, pipeline)), owners);
    let started = starts(cluster.folder());
    assert!(started.iter().all(|start| start.agent == "a"), "{started:?}");
    let runs: BTreeSet<_> = started.iter().map(|start| start.run.clone()).collect();
    assert_eq!(runs.len(), started.len(), "each once: {started:?}");
    let by_hand: BTreeSet<_> = by(&cluster, "hand").into_iter().map(|start| start.run).collect();
    assert_eq!(by_hand, [goes_on, last].into(), "what was refused is no run");
    assert_eq!(by(&cluster, "hook").len(), 2);
    eventually("every start is a run that has ended", || {
        let known = api.all("/api/v1/runs?workflow=w&")?;
        let known: BTreeMap<_, _> = known.iter().map(|run| (run["metadata"]["name"].as_str().unwrap(), run)).collect();
        let is_whole = |run: &Value| run["status"]["phase"] == "Success";
        match runs.iter().find(|run| !known.get(run.as_str()).copied().is_some_and(is_whole)) {
            Some(lost) => Err(format!("{lost}: {:#?}", known.get(lost.as_str()))),
            None => Ok(()),
        }
    });
    cluster.agents.clear();
    cluster.controller.take().unwrap().terminate();
}

#[test]
fn an_agent_whose_disk_is_full_says_so_starts_nothing_and_heals() {
    let mut cluster = Cluster::start(&SHORT);
    let Some(disk) = SmallDisk::mount(&cluster.folder().join("agent-a"), "24m") else {
        println!("no file system can be mounted here: no disk becomes full");
        return;
    };
    cluster.start_agent("a", &["--label", "disk=small", "--slots", "8"]);
    cluster.start_agent("b", &["--label", "disk=large"]);
    let (note, gate) = (note(cluster.folder()), cluster.folder().join("gate"));
    let text = format!(
        "apiVersion: xene/v1\nkind: Workflow\nmetadata: {{name: w}}\nspec:\n  triggers:\n    \
         second: {{type: cron, schedule: \"* * * * * *\", catchUp: All, startingDeadline: 2s}}\n  pipelines:\n    \
         here: {{trigger: second, autonomy: 4s, agents: {{labels: {{disk: small}}}}, concurrency: {{max: 4}}, tasks: {{t: {{steps: ['{note}']}}}}}}\n    \
         there: {{trigger: second, autonomy: 4s, agents: {{labels: {{disk: large}}}}, concurrency: {{max: 4}}, tasks: {{t: {{steps: ['{note}']}}}}}}\n    \
         hand: {{autonomy: 4s, agents: {{labels: {{disk: small}}}}, concurrency: {{max: 4}}, tasks: {{t: {{steps: ['{note}', 'until test -e {}; do sleep 0.05; done']}}}}}}\n",
        gate.display()
    );
    cluster.repository.write("xene.d/w.yaml", &text);
    cluster.commit("w");
    for pipeline in ["w/here", "w/there", "w/hand"] {
        cluster.scheduled(pipeline);
    }
    let before = owner(&cluster, "w/here");
    let goes_on = cluster.run(&["trigger", "w/hand"]).expect(0).stdout.trim().to_owned();
    cluster.until("it runs", &["get", "runs", &goes_on], |run| run["status"]["phase"] == "Running");
    until_starts(&cluster, "here", 2);

    disk.fill();
    let full = cluster.until("it says so", &["get", "agents", "a"], |agent| agent["status"]["reason"] == "AgentDisk");
    assert!(full["status"]["message"].as_str().unwrap().contains("its disk is full"), "{full:#}");
    let (since, seen) = (Timestamp::now(), by(&cluster, "here").len());
    let waits = cluster.run(&["trigger", "w/hand"]).expect(0).stdout.trim().to_owned();
    // The other agent is the clock: for so long, which is longer than W, nothing starts here.
    until_starts(&cluster, "there", 8);
    let now = by(&cluster, "here").len();
    assert_eq!(now, seen, "with a full disk it starts nothing");
    assert_eq!(by(&cluster, "hand").len(), 1);
    assert_eq!(owner(&cluster, "w/here"), before, "its leases are renewed");
    fs::write(&gate, "").unwrap();

    let until = Timestamp::now();
    disk.free();
    cluster.until("it says nothing any more", &["get", "agents", "a"], |a| a["status"].get("reason").is_none());
    until_starts(&cluster, "here", 3);
    for run in [&goes_on, &waits] {
        assert_eq!(ended(&cluster, run)["status"]["phase"], "Success");
    }
    assert_eq!(owner(&cluster, "w/here"), before);
    let starts = by(&cluster, "here");
    let slots: BTreeSet<_> = starts.iter().map(|start| start.slot).collect();
    assert_eq!(slots.len(), starts.len(), "each once: {starts:?}");
    // Of each due time that was too late when there was room the ledger tells why nothing started.
    let api = Api::of(&cluster);
    let (first, last) = (since.as_second() + 1, until.as_second() - 3);
    eventually("each due time is told", || {
        let rows = api.all("/api/v1/pipelines/w/here/firings?")?;
        let time = |value: &Value| Some(value.as_str()?.parse::<Timestamp>().unwrap().as_second());
        let row = |slot: i64| {
            let stands_for = |row: &&Value| {
                let from = time(&row["scheduledTime"]);
                from == Some(slot) || from < Some(slot) && time(&row["until"]) >= Some(slot)
            };
            rows.iter().find(stands_for)
        };
        let mut told: BTreeMap<String, u32> = BTreeMap::new();
        for slot in first..=last {
            let row = row(slot).ok_or_else(|| format!("nothing of {slot}: {rows:#?}"))?;
            *told.entry(format!("{} {}", row["outcome"], row["reason"])).or_default() += 1;
        }
        let all = told.values().sum::<u32>();
        if told.get("\"Skipped\" \"AgentDisk\"") == Some(&all) { Ok(()) } else { Err(format!("{told:?}")) }
    });
    cluster.agents.clear();
}

#[test]
fn a_slow_disk_of_the_controller_holds_up_what_is_new_and_no_renewal() {
    let mut cluster = Cluster::start(&SHORT);
    cluster.start_agent("a", &["--slots", "8"]);
    let note = note(cluster.folder());
    let tick = |name: &str| {
        format!(
            "    {name}: {{trigger: second, autonomy: 4s, concurrency: {{max: 4}}, tasks: {{t: {{steps: ['{note}']}}}}}}\n"
        )
    };
    let names = ["one", "two", "three"];
    let text = format!(
        "apiVersion: xene/v1\nkind: Workflow\nmetadata: {{name: w}}\nspec:\n  triggers:\n    \
         second: {{type: cron, schedule: \"* * * * * *\", catchUp: All}}\n  pipelines:\n{}    \
         hand: {{autonomy: 4s, concurrency: {{max: 4}}, tasks: {{t: {{steps: ['{note}']}}}}}}\n",
        names.map(tick).concat()
    );
    cluster.repository.write("xene.d/w.yaml", &text);
    cluster.commit("w");
    let pipelines = ["w/one", "w/two", "w/three", "w/hand"];
    for pipeline in pipelines {
        assert_eq!(cluster.scheduled(pipeline)["status"]["agent"], "a");
    }
    let owners = pipelines.map(|pipeline| owner(&cluster, pipeline));
    // Who could take over.
    cluster.start_agent("b", &[]);
    until_starts(&cluster, "one", 1);

    let w = Duration::from_millis(5_200);
    let Some(mut tracer) = tamper(cluster.controller.as_ref().unwrap(), "fdatasync,fsync", "delay_enter=500000") else {
        return;
    };
    let began = Instant::now();
    let waited = cluster.run(&["trigger", "w/hand"]).expect(0).stdout.trim().to_owned();
    assert!(began.elapsed() > Duration::from_millis(500), "its word is durable, and that takes as long as it does");
    let seen = names.map(|name| by(&cluster, name).len());
    let (mut acknowledged, mut worst) = (vec![waited], SignedDuration::ZERO);
    within(Duration::from_secs(60), "it goes on for twice W", || {
        let agents = cluster.json(&["get", "agents"]);
        let now = Timestamp::now();
        for agent in agents["items"].as_array().unwrap() {
            assert_eq!(agent["status"]["phase"], "Connected", "{agent:#}");
            if agent["metadata"]["name"] == "a" {
                worst = worst.max(now.duration_since(heard(agent)));
            }
        }
        acknowledged.push(cluster.run(&["trigger", "w/hand"]).expect(0).stdout.trim().to_owned());
        let ticks: Vec<_> = names.iter().zip(seen).map(|(name, seen)| by(&cluster, name).len() - seen).collect();
        if began.elapsed() > 2 * w && ticks.iter().all(|ticks| *ticks >= 10) {
            Ok(())
        } else {
            Err(format!("{ticks:?}"))
        }
    });
    println!("{} runs by hand; renewals at most {worst:?} old", acknowledged.len());
    assert!(worst < SignedDuration::from_secs(4), "renewals don't wait for the disk: {worst:?}");
    assert_eq!(pipelines.map(|pipeline| owner(&cluster, pipeline)), owners, "its own slowness takes from nobody");
    tracer.signal(Signal::TERM);
    tracer.wait();

    for run in &acknowledged {
        assert_eq!(ended(&cluster, run)["status"]["phase"], "Success");
    }
    for name in names {
        let mut slots: Vec<_> = by(&cluster, name).into_iter().map(|start| start.slot.unwrap()).collect();
        slots.sort();
        let seconds: Vec<_> = slots.windows(2).map(|pair| pair[1].duration_since(pair[0]).as_secs()).collect();
        assert!(seconds.iter().all(|second| *second == 1), "{name}: each second once: {slots:?}");
    }
    let started = starts(cluster.folder());
    assert!(started.iter().all(|start| start.agent == "a"), "{started:?}");
}
