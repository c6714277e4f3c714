//! Agents: labels, draining, loss, life without a controller.

use std::{
    fs,
    process::Command,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use xene_test_support::{
    cluster::Cluster,
    eventually,
    process::{Process, run, xene},
};

const TWO_PLACES: &str = r#"
apiVersion: xene/v1
kind: Workflow
metadata: {name: places}
spec:
  pipelines:
    red:
      agents: {labels: {colour: red}}
      tasks: {say: {steps: ['echo "$XENE_AGENT"']}}
    blue:
      agents: {labels: {colour: blue}}
      tasks: {say: {steps: ['echo "$XENE_AGENT"']}}
    any:
      tasks: {say: {steps: ['echo "$XENE_AGENT"']}}
"#;

/// Short times, so that a takeover takes seconds: L may be 2 s and processes pause for at most 1 s.
const SHORT: &[&str] = &["--min-autonomy", "2s", "--pause-margin", "1s"];

fn ticking(autonomy: &str, file: &str) -> String {
    format!(
        r#"
apiVersion: xene/v1
kind: Workflow
metadata: {{name: clock}}
spec:
  triggers: {{second: {{type: cron, schedule: "* * * * * *", catchUp: Skip}}}}
  pipelines:
    tick:
      triggers: second
      autonomy: {autonomy}
      concurrency: {{max: 5}}
      tasks: {{note: {{steps: ['echo "$XENE_SCHEDULED_TIME $XENE_AGENT $XENE_EPOCH" >> {file}']}}}}
"#
    )
}

/// The lines that steps wrote: slot, agent, epoch.
fn ticks(file: &std::path::Path) -> Vec<(String, String, u64)> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let mut lines = Vec::new();
    for line in text.lines() {
        let words: Vec<_> = line.split(' ').collect();
        if let [slot, agent, epoch] = words[..] {
            lines.push((slot.to_owned(), agent.to_owned(), epoch.parse().unwrap()));
        }
    }
    lines
}

fn assert_no_slot_twice(ticks: &[(String, String, u64)]) {
    let mut slots: Vec<_> = ticks.iter().map(|tick| &tick.0).collect();
    slots.sort();
    let all = slots.len();
    slots.dedup();
    assert_eq!(slots.len(), all, "a slot was started twice: {ticks:?}");
}

#[test]
fn pipelines_land_by_label_and_move_when_drained() {
    let mut cluster = Cluster::start(&[]);
    cluster.start_agent("r1", &["--label", "colour=red"]);
    cluster.repository.write("xene.d/places.yaml", TWO_PLACES);
    cluster.commit("places");
    assert_eq!(cluster.scheduled("places/red")["status"]["agent"], "r1");
    let blue = cluster.json(&["get", "pipelines", "places/blue"]);
    assert_eq!(blue["status"]["phase"], "NotScheduled", "{blue:#}");
    assert_eq!(blue["status"]["reason"], "NoMatchingAgent", "{blue:#}");
    assert!(blue["status"]["message"].as_str().unwrap_or_default().contains("colour=blue"), "{blue:#}");

    cluster.start_agent("b1", &["--label", "colour=blue"]);
    assert_eq!(
        cluster.scheduled("places/blue")["status"]["agent"],
        "b1",
        "an agent that joins gets what waited for it"
    );
    let any = cluster.json(&["get", "pipelines", "places/any"]);
    assert_eq!(any["status"]["agent"], "r1", "an assignment stays put");

    cluster.run(&["agents", "drain", "r1"]).expect(0);
    cluster.until("any moves", &["get", "pipelines", "places/any"], |p| p["status"]["agent"] == "b1");
    cluster.until("red has no agent", &["get", "pipelines", "places/red"], |p| p["status"]["phase"] == "NotScheduled");
    assert_eq!(cluster.json(&["get", "agents", "r1"])["status"]["phase"], "Draining");
    cluster.run(&["agents", "undrain", "r1"]).expect(0);
    cluster.until("red comes back", &["get", "pipelines", "places/red"], |p| p["status"]["agent"] == "r1");

    let started = cluster.run(&["trigger", "places/any", "--wait"]).expect(0);
    assert_eq!(cluster.run(&["logs", started.stdout.trim()]).stdout, "b1\n");
}

#[test]
fn losing_an_agent_moves_its_pipelines_after_w_and_no_slot_fires_twice() {
    let mut cluster = Cluster::start(SHORT);
    cluster.start_agent("a", &[]);
    let file = cluster.folder().join("ticks");
    cluster.repository.write("xene.d/clock.yaml", &ticking("2s", &file.display().to_string()));
    cluster.commit("tick");
    assert_eq!(cluster.scheduled("clock/tick")["status"]["agent"], "a");
    cluster.start_agent("b", &[]);
    eventually("it ticks on a", || if ticks(&file).len() >= 2 { Ok(()) } else { Err(format!("{:?}", ticks(&file))) });
    cluster.kill_agent("a");
    cluster.until("b takes over", &["get", "pipelines", "clock/tick"], |p| p["status"]["agent"] == "b");
    eventually("it ticks on b", || {
        let ticks = ticks(&file);
        if ticks.iter().filter(|t| t.1 == "b").count() >= 2 { Ok(()) } else { Err(format!("{ticks:?}")) }
    });
    let ticks = ticks(&file);
    assert_no_slot_twice(&ticks);
    let last_of_a = ticks.iter().filter(|t| t.1 == "a").map(|t| t.2).max().unwrap();
    let first_of_b = ticks.iter().filter(|t| t.1 == "b").map(|t| t.2).min().unwrap();
    assert!(first_of_b > last_of_a, "the epoch rises: {ticks:?}");
}

#[test]
fn a_forever_pipeline_goes_on_while_the_controller_is_down() {
    let mut cluster = Cluster::start(SHORT);
    cluster.start_agent("a", &[]);
    let file = cluster.folder().join("ticks");
    cluster.repository.write("xene.d/clock.yaml", &ticking("Forever", &file.display().to_string()));
    cluster.commit("tick");
    cluster.scheduled("clock/tick");
    eventually("it ticks", || if ticks(&file).is_empty() { Err("no tick yet".into()) } else { Ok(()) });
    cluster.kill_controller();
    let before = ticks(&file).len();
    eventually("it goes on", || {
        let now = ticks(&file).len();
        if now >= before + 6 { Ok(()) } else { Err(format!("{before} then {now}")) }
    });
    cluster.start_controller();
    let recorded = ticks(&file);
    assert_no_slot_twice(&recorded);
    cluster.until("every run is at the controller", &["get", "runs", "--limit", "500"], |list| {
        let runs = list["items"].as_array().cloned().unwrap_or_default();
        let slots: Vec<_> = runs.iter().filter_map(|r| r["spec"]["trigger"]["scheduledTime"].as_str()).collect();
        recorded.iter().all(|(slot, ..)| {
            let slot: jiff::Timestamp = slot.parse().unwrap();
            slots.iter().any(|s| s.parse::<jiff::Timestamp>().unwrap() == slot)
        })
    });
}

#[test]
fn an_agent_that_is_revoked_or_forgotten_is_refused() {
    let mut cluster = Cluster::start(SHORT);
    cluster.start_agent("a", &[]);
    cluster.run(&["agents", "revoke", "a"]).expect(0);
    cluster.until("a is revoked", &["get", "agents", "a"], |a| a["status"]["phase"] == "Revoked");
    let mut agent = cluster.agents.remove("a").unwrap();
    let status = agent.wait();
    assert_eq!(status.code(), Some(5), "{}", agent.output());
    assert!(agent.output().contains("revoked"), "{}", agent.output());
    cluster.run(&["agents", "forget", "a"]).expect(0);
    cluster.run(&["get", "agents", "a"]).expect(4);
    let again = run(cluster.agent_command("a", &[]), &[] as &[&str]);
    assert_eq!(again.code, 5, "{again:?}");
}

#[test]
fn a_token_lets_in_as_many_as_it_says_and_fixes_labels() {
    let mut cluster = Cluster::start(&[]);
    let token = cluster.join_token(&["--label", "zone=inner"]);
    cluster.restart_agent("a", &["--token", &token, "--label", "zone=outer"]);
    let agent = cluster.json(&["get", "agents", "a"]);
    assert_eq!(agent["metadata"]["labels"]["zone"], "inner", "an agent can't label itself past its token: {agent:#}");
    for label in ["os", "arch", "hostname"] {
        assert!(agent["metadata"]["labels"][label].is_string(), "what the machine is, it says itself: {agent:#}");
    }
    let spent = run(cluster.agent_command("b", &["--token", &token]), &[] as &[&str]);
    assert_eq!(spent.code, 5, "{spent:?}");
    assert!(spent.stderr.contains("token"), "{spent:?}");
    // The stored identity serves from now on.
    cluster.agents.get_mut("a").unwrap().terminate();
    cluster.until("a has gone", &["get", "agents", "a"], |a| a["status"]["phase"] == "Disconnected");
    cluster.restart_agent("a", &[]);
}

#[test]
fn a_revoked_token_lets_nobody_in() {
    let mut cluster = Cluster::start(&[]);
    let token = cluster.join_token(&["--uses", "2"]);
    cluster.restart_agent("a", &["--token", &token]);
    let listed = cluster.json(&["agents", "token", "list"]);
    let listed = &listed["items"][0];
    assert_eq!((&listed["usesLeft"], &listed["phase"]), (&1.into(), &"Active".into()), "{listed:#}");
    let id = listed["id"].as_str().unwrap();
    cluster.run(&["agents", "token", "revoke", id]).expect(0);
    let late = run(cluster.agent_command("b", &["--token", &token]), &[] as &[&str]);
    assert_eq!(late.code, 5, "{late:?}");
    let again = cluster.run(&["agents", "token", "revoke", id]).expect(4);
    assert!(again.stderr.contains(&format!("there is no join token named {id}")), "{again:?}");
    let connected = cluster.json(&["get", "agents", "a"]);
    assert_eq!(connected["status"]["phase"], "Connected", "whoever joined by it stays");
}

#[test]
fn sigterm_gives_everything_back_and_waits_for_what_runs() {
    let mut cluster = Cluster::start(SHORT);
    cluster.start_agent("a", &[]);
    let gate = cluster.folder().join("gate");
    let text = format!(
        "apiVersion: xene/v1\nkind: Workflow\nmetadata: {{name: w}}\nspec:\n  pipelines:\n    p:\n      tasks:\n        t:\n          steps: ['while [ ! -e {} ]; do sleep 0.05; done; echo done']\n",
        gate.display()
    );
    cluster.repository.write("xene.d/w.yaml", &text);
    cluster.commit("w");
    cluster.scheduled("w/p");
    cluster.start_agent("b", &[]);
    let name = cluster.run(&["trigger", "w/p"]).expect(0).stdout.trim().to_owned();
    cluster.until("it runs", &["get", "runs", &name], |r| r["status"]["phase"] == "Running");
    let mut a = cluster.agents.remove("a").unwrap();
    a.signal(Signal::TERM);
    cluster.until("its pipeline moves at once", &["get", "pipelines", "w/p"], |p| p["status"]["agent"] == "b");
    assert_eq!(cluster.json(&["get", "runs", &name])["status"]["phase"], "Running", "the run goes on");
    fs::write(&gate, "").unwrap();
    assert!(a.wait().success(), "{}", a.output());
    let ended = cluster.until("it ended", &["get", "runs", &name], |r| r["status"]["finishedAt"].is_string());
    assert_eq!(ended["status"]["phase"], "Success");
    assert_eq!(cluster.run(&["logs", &name]).stdout, "done\n");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "how long it stands still, which no suspend matters to")]
fn a_controller_that_stood_still_takes_no_pipeline_away() {
    let mut cluster = Cluster::start(SHORT);
    cluster.start_agent("a", &[]);
    let file = cluster.folder().join("ticks");
    // W is 1.05 · 6 s + 1 s.
    cluster.repository.write("xene.d/clock.yaml", &ticking("6s", &file.display().to_string()));
    cluster.commit("tick");
    let before = cluster.scheduled("clock/tick");
    cluster.start_agent("b", &[]);
    let controller = cluster.controller.as_ref().unwrap();
    let began = Instant::now();
    controller.signal(Signal::STOP);
    eventually("it stands still for longer than W", || {
        let lasted = began.elapsed();
        if lasted > Duration::from_secs(9) { Ok(()) } else { Err(format!("{lasted:?}")) }
    });
    controller.signal(Signal::CONT);
    let seen = ticks(&file).len();
    eventually("it ticks on", || {
        let now = ticks(&file).len();
        if now >= seen + 3 { Ok(()) } else { Err(format!("{seen} then {now}")) }
    });
    let after = cluster.json(&["get", "pipelines", "clock/tick"]);
    assert_eq!((&after["status"]["agent"], &after["status"]["epoch"]), (&"a".into(), &before["status"]["epoch"]));
    assert!(cluster.controller.as_ref().unwrap().output().contains("stood still"));
    assert_no_slot_twice(&ticks(&file));
}

#[test]
fn whoever_knows_that_a_machine_is_off_moves_its_pipelines_at_once() {
    let mut cluster = Cluster::start(SHORT);
    cluster.start_agent("a", &[]);
    let file = cluster.folder().join("ticks");
    cluster.repository.write("xene.d/clock.yaml", &ticking("10m", &file.display().to_string()));
    cluster.commit("tick");
    assert_eq!(cluster.scheduled("clock/tick")["status"]["agent"], "a");
    cluster.start_agent("b", &[]);
    let refused = cluster.run(&["agents", "fence", "a"]).expect(2);
    assert!(refused.stderr.contains("--machine-is-off"), "{refused:?}");
    let connected = cluster.run(&["agents", "fence", "a", "--machine-is-off"]).expect(1);
    assert!(connected.stderr.contains("connected"), "{connected:?}");

    cluster.kill_agent("a");
    cluster.until("a is gone", &["get", "agents", "a"], |agent| agent["status"]["phase"] == "Disconnected");
    cluster.run(&["agents", "fence", "a", "--machine-is-off"]).expect(0);
    assert_eq!(cluster.json(&["get", "pipelines", "clock/tick"])["status"]["agent"], "b", "no wait");
    let events = cluster.json(&["get", "events"]);
    let fenced = events["items"].as_array().unwrap().iter().find(|event| event["reason"] == "Fenced").unwrap().clone();
    assert!(fenced["message"].as_str().unwrap().contains("admin says"), "{fenced:#}");
    eventually("it ticks on b", || {
        let ticks = ticks(&file);
        if ticks.iter().any(|tick| tick.1 == "b") { Ok(()) } else { Err(format!("{ticks:?}")) }
    });
    cluster.restart_agent("a", &[]);
    let seen = ticks(&file).len();
    eventually("it goes on", || {
        let now = ticks(&file).len();
        if now >= seen + 2 { Ok(()) } else { Err(format!("{seen} then {now}")) }
    });
    let ticks = ticks(&file);
    assert!(ticks[seen..].iter().all(|tick| tick.1 == "b"), "a has nothing under its old epoch: {ticks:?}");
    assert_no_slot_twice(&ticks);
}

#[test]
fn a_copy_of_a_data_folder_is_refused_and_so_is_the_agent_and_no_slot_fires_twice() {
    let mut cluster = Cluster::start(SHORT);
    cluster.start_agent("a", &[]);
    let file = cluster.folder().join("ticks");
    cluster.repository.write("xene.d/clock.yaml", &ticking("2s", &file.display().to_string()));
    cluster.commit("tick");
    assert_eq!(cluster.scheduled("clock/tick")["status"]["agent"], "a");
    cluster.start_agent("b", &[]);
    eventually("it ticks on a", || if ticks(&file).len() >= 2 { Ok(()) } else { Err(format!("{:?}", ticks(&file))) });
    let copy = cluster.folder().join("copy");
    // What a run leaves may vanish under the copy's hands.
    eventually("it is copied whole", || {
        let _ = fs::remove_dir_all(&copy);
        let copied = Command::new("cp").arg("-a").arg(cluster.folder().join("agent-a")).arg(&copy).output().unwrap();
        if copied.status.success() { Ok(()) } else { Err(format!("{copied:?}")) }
    });
    // A copy of this moment, on this machine, has a lease that lives: for as long as that it is the agent, restarted.
    let before = ticks(&file).len();
    eventually("the lease in the copy runs out", || match ticks(&file).len() {
        now if now >= before + 6 => Ok(()),
        now => Err(format!("{now} after {before}")),
    });
    let mut command = xene(cluster.folder());
    command.args(["agent", "--controller", cluster.quic(), "--name", "a", "--data-dir"]).arg(&copy);
    let mut second = Process::spawn("copy", command);
    let agent = cluster.until("both are refused", &["get", "agents", "a"], |agent| {
        agent["status"]["reason"] == "DuplicateIdentity" && agent["status"]["phase"] == "Disconnected"
    });
    let message = agent["status"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("xene agents forget a"), "{message}");
    assert!(cluster.run(&["describe", "agent", "a"]).expect(0).stdout.contains("DuplicateIdentity"));
    assert!(cluster.run(&["get", "events"]).expect(0).stdout.contains("DuplicateIdentity"));
    cluster.until("b takes over", &["get", "pipelines", "clock/tick"], |p| p["status"]["agent"] == "b");
    eventually("it ticks on b", || {
        let ticks = ticks(&file);
        if ticks.iter().filter(|t| t.1 == "b").count() >= 2 { Ok(()) } else { Err(format!("{ticks:?}")) }
    });
    assert_no_slot_twice(&ticks(&file));
    second.line_after("xene agents forget a");
    second.kill();
    cluster.kill_agent("a");
    cluster.run(&["agents", "forget", "a"]).expect(0);
    fs::remove_dir_all(cluster.folder().join("agent-a")).unwrap();
    cluster.start_agent("a", &[]);
    assert!(cluster.json(&["get", "agents", "a"])["status"].get("reason").is_none());
}

#[test]
fn an_agent_that_was_killed_is_the_same_one_when_it_is_started_again() {
    let mut cluster = Cluster::start(&[]);
    cluster.start_agent("a", &[]);
    cluster.repository.write("xene.d/places.yaml", TWO_PLACES);
    cluster.commit("places");
    for _ in 0..3 {
        cluster.kill_agent("a");
        cluster.restart_agent("a", &[]);
        // It is told so in the session of the new process alone.
        cluster.run(&["trigger", "places/any", "--wait"]).expect(0);
    }
    let agent = cluster.json(&["get", "agents", "a"]);
    assert!(agent["status"].get("reason").is_none(), "{agent:#}");
}

#[test]
fn an_exclusive_run_has_ended_before_another_agent_starts_one_though_its_own_agent_was_killed() {
    let mut cluster = Cluster::start(SHORT);
    cluster.start_agent("a", &[]);
    let file = cluster.folder().join("beats");
    let step = format!("while :; do echo $XENE_AGENT >> {}; sleep 0.05; done", file.display());
    let workflow = format!(
        r#"
apiVersion: xene/v1
kind: Workflow
metadata: {{name: alone}}
spec:
  triggers: {{second: {{type: cron, schedule: "* * * * * *", catchUp: Skip}}}}
  pipelines:
    beat:
      triggers: second
      autonomy: 6s
      exclusive: true
      tasks: {{beat: {{steps: ['{step}']}}}}
"#
    );
    cluster.repository.write("xene.d/alone.yaml", &workflow);
    cluster.commit("alone");
    let beats = || fs::read_to_string(&file).unwrap_or_default();
    // Longer than the lease: renewals put its end off.
    eventually("it beats on a", || {
        let count = beats().lines().count();
        if count >= 160 { Ok(()) } else { Err(count.to_string()) }
    });
    assert_eq!(cluster.json(&["get", "runs"])["items"][0]["status"]["phase"], "Running");
    cluster.start_agent("b", &[]);
    cluster.kill_agent("a");
    eventually("it beats on b", || if beats().contains('b') { Ok(()) } else { Err(beats().len().to_string()) });
    cluster.run(&["agents", "drain", "b"]).expect(0);
    let text = beats();
    let (before, after) = text.split_at(text.find('b').unwrap());
    assert!(before.lines().all(|line| line == "a") && after.lines().all(|line| line == "b"), "{text}");
}
