//! What a pipeline says of its runs: how many at once and who waits how long, which are kept, and their workspaces.

use std::{fmt::Write as _, fs, path::Path};

use serde_json::Value;
use xene_test_support::{cluster::Cluster, eventually};

/// A cluster, and a run of this pipeline that goes on until the file is there.
fn busy(pipeline: &str) -> (Cluster, String, String) {
    let mut cluster = Cluster::start(&[]);
    cluster.start_agent("one", &[]);
    let mut text = "apiVersion: xene/v1\nkind: Workflow\nmetadata: {name: gated}\nspec:\n  \
                    params: {gate: {default: /}}\n  pipelines:\n"
        .to_owned();
    let limits = ["concurrency: {policy: Queue}", "concurrency: {policy: Skip}", "concurrency: {policy: Replace}"];
    for (name, limit) in ["queue", "skip", "replace", "hurried"].iter().zip(limits.iter().chain(&["queueTimeout: 1s"]))
    {
        let step = "until [ -e \"$XENE_PARAM_GATE\" ]; do sleep 0.05; done";
        writeln!(text, "    {name}: {{{limit}, tasks: {{wait: {{steps: ['{step}']}}}}}}").unwrap();
    }
    cluster.repository.write("xene.d/gated.yaml", &text);
    cluster.commit("a gate");
    cluster.scheduled(pipeline);
    let gate = cluster.folder().join("gate").display().to_string();
    let run = trigger(&cluster, pipeline, &["-p", &format!("gate={gate}")]);
    until_phase(&cluster, &run, "Running");
    (cluster, run, gate)
}

fn trigger(cluster: &Cluster, pipeline: &str, arguments: &[&str]) -> String {
    let mut all = vec!["trigger", pipeline];
    all.extend(arguments);
    cluster.run(&all).expect(0).stdout.trim().to_owned()
}

fn until_phase(cluster: &Cluster, run: &str, phase: &str) -> Value {
    cluster.until(&format!("{run} is {phase}"), &["get", "runs", run], |run| run["status"]["phase"] == phase)
}

/// Phase and reason.
fn told(run: &Value) -> (Option<&str>, Option<&str>) {
    (run["status"]["phase"].as_str(), run["status"]["reason"].as_str())
}

#[test]
fn queue_has_a_run_wait_until_the_one_before_has_ended() {
    let (cluster, first, gate) = busy("gated/queue");
    let second = trigger(&cluster, "gated/queue", &[]);
    let third = trigger(&cluster, "gated/queue", &[]);
    for waits in [&second, &third] {
        cluster.until("it is queued", &["get", "runs", waits], |run| told(run) == (Some("StartingUp"), Some("Queued")));
    }
    fs::write(gate, "").unwrap();
    let times: Vec<(String, String)> = [&first, &second, &third]
        .iter()
        .map(|run| {
            let run = until_phase(&cluster, run, "Success");
            let at = |field: &str| run["status"][field].as_str().unwrap_or_default().to_owned();
            (at("startedAt"), at("finishedAt"))
        })
        .collect();
    assert!(
        times.windows(2).all(|pair| pair[0].1 <= pair[1].0),
        "one after another, first come first served: {times:?}"
    );
}

#[test]
fn skip_does_not_run_beside_another() {
    let (cluster, first, gate) = busy("gated/skip");
    let second = trigger(&cluster, "gated/skip", &[]);
    let skipped = cluster.until("it is skipped", &["get", "runs", &second], |run| {
        told(run).1 == Some("Overlap") && run["status"]["finishedAt"].is_string()
    });
    assert!(skipped["status"]["startedAt"].is_null(), "{skipped:#}");
    fs::write(gate, "").unwrap();
    until_phase(&cluster, &first, "Success");
}

#[test]
fn replace_cancels_the_one_that_runs() {
    let (cluster, first, _) = busy("gated/replace");
    let second = trigger(&cluster, "gated/replace", &[]);
    let replaced = until_phase(&cluster, &first, "Error");
    assert_eq!(told(&replaced).1, Some("Cancelled"), "{replaced:#}");
    let second = until_phase(&cluster, &second, "Success");
    assert!(replaced["status"]["finishedAt"].as_str() <= second["status"]["startedAt"].as_str(), "{second:#}");
}

#[test]
fn a_run_waits_no_longer_than_its_queue_timeout() {
    let (cluster, first, gate) = busy("gated/hurried");
    let second = trigger(&cluster, "gated/hurried", &[]);
    let gave_up = until_phase(&cluster, &second, "Error");
    assert_eq!(told(&gave_up).1, Some("QueueTimedOut"), "{gave_up:#}");
    fs::write(gate, "").unwrap();
    until_phase(&cluster, &first, "Success");
    let third = trigger(&cluster, "gated/hurried", &["--wait"]);
    until_phase(&cluster, &third, "Success");
}

#[test]
fn history_keeps_so_many_runs_and_the_last_good_one() {
    let mut cluster = Cluster::start(&[]);
    cluster.start_agent("one", &[]);
    cluster.repository.write(
        "xene.d/kept.yaml",
        "apiVersion: xene/v1\nkind: Workflow\nmetadata: {name: kept}\nspec:\n  params: {code: {default: \"1\"}}\n  \
         pipelines:\n    p: {history: {runs: 2}, tasks: {t: {steps: ['echo said; exit $XENE_PARAM_CODE']}}}\n",
    );
    cluster.commit("keep two");
    cluster.scheduled("kept/p");
    let run = |code: &str| {
        let ended = cluster.run(&["trigger", "kept/p", "--wait", "-p", &format!("code={code}")]);
        ended.stdout.trim().to_owned()
    };
    let [old, good, bad, worse, worst] = ["0", "0", "1", "1", "1"].map(run);
    let list = cluster.until("the rest is gone", &["get", "runs", "--pipeline", "kept/p"], |list| {
        list["items"].as_array().map(Vec::len) == Some(3)
    });
    let kept: Vec<&str> =
        list["items"].as_array().unwrap().iter().filter_map(|r| r["metadata"]["name"].as_str()).collect();
    assert_eq!(kept, [&*worst, &*worse, &*good], "newest first");
    for gone in [&old, &bad] {
        cluster.run(&["get", "runs", gone]).expect(4);
        cluster.run(&["logs", gone]).expect(4);
    }
    assert_eq!(cluster.run(&["logs", &good]).expect(0).stdout, "said\n");
}

#[test]
fn workspaces_are_kept_as_asked_also_over_a_restart() {
    let mut cluster = Cluster::start(&[]);
    cluster.start_agent("one", &[]);
    let pipeline = |name: &str, keep: &str| {
        format!(
            "    {name}: {{{keep}tasks: {{t: {{steps: ['echo $XENE_PARAM_CODE > made; exit $XENE_PARAM_CODE']}}}}}}\n"
        )
    };
    let pipelines = [("never", ""), ("on-error", "keepWorkspace: OnError, "), ("always", "keepWorkspace: Always, ")];
    let pipelines: String = pipelines.iter().map(|(name, keep)| pipeline(name, keep)).collect();
    cluster.repository.write(
        "xene.d/kept.yaml",
        &format!(
            "apiVersion: xene/v1\nkind: Workflow\nmetadata: {{name: kept}}\nspec:\n  params: {{code: {{default: \"0\"}}}}\n  \
             pipelines:\n{pipelines}"
        ),
    );
    cluster.commit("keep some");
    let mut runs = Vec::new();
    for (pipeline, code, kept) in [
        ("never", "0", false),
        ("never", "1", false),
        ("on-error", "0", false),
        ("on-error", "1", true),
        ("always", "0", true),
        ("always", "1", true),
    ] {
        let pipeline = format!("kept/{pipeline}");
        cluster.scheduled(&pipeline);
        let ended = cluster.run(&["trigger", &pipeline, "--wait", "-p", &format!("code={code}")]);
        runs.push((pipeline, code, ended.stdout.trim().to_owned(), kept));
    }
    let work = cluster.folder().join("agent-one/work");
    let check = || {
        eventually("what is kept is kept, and no more", || {
            let told: Vec<_> = runs
                .iter()
                .map(|(pipeline, code, run, kept)| (pipeline, *code, *kept, holds(&work.join(run))))
                .collect();
            if told.iter().all(|(_, _, kept, found)| kept == found) { Ok(()) } else { Err(format!("{told:?}")) }
        });
    };
    check();
    cluster.kill_agent("one");
    cluster.restart_agent("one", &[]);
    check();
}

/// True if what the steps made is somewhere in this folder.
fn holds(folder: &Path) -> bool {
    let mut found = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    found.any(|entry| entry.file_name() == "made" || holds(&entry.path()))
}
