//! Agents that are killed or restarted while steps run: the steps go on, and so do their runs.

use std::{collections::BTreeSet, fs, path::Path};

use rustix::process::{Pid, Signal, kill_process};
use xene_test_support::{
    cluster::Cluster,
    eventually,
    process::{processes_with, shims_below},
};

/// Two tasks, the first of which runs `script`.
fn workflow(script: &str, more: &str) -> String {
    format!(
        "apiVersion: xene/v1\nkind: Workflow\nmetadata: {{name: w}}\nspec:\n  pipelines:\n    p:\n{more}      tasks:\n        \
         first:\n          steps:\n            - |\n              {}\n        second: {{dependencies: first, steps: ['echo second']}}\n",
        script.replace('\n', "\n              ")
    )
}

fn started(cluster: &mut Cluster, script: &str, more: &str) -> String {
    cluster.start_agent("a", &[]);
    cluster.repository.write("xene.d/w.yaml", &workflow(script, more));
    cluster.commit("w");
    cluster.scheduled("w/p");
    cluster.run(&["trigger", "w/p"]).expect(0).stdout.trim().to_owned()
}

fn exists(path: &Path) {
    eventually(&format!("{} is there", path.display()), || if path.exists() { Ok(()) } else { Err(String::new()) });
}

fn steps(run: &str) -> BTreeSet<u32> {
    processes_with(&format!("XENE_RUN_ID={run}")).into_keys().collect()
}

fn shims(cluster: &Cluster) -> BTreeSet<u32> {
    shims_below(cluster.folder())
}

fn nothing_is_left(cluster: &Cluster, run: &str) {
    eventually("nothing is left", || {
        // The agent's own, which starts shims, stays.
        let (steps, shims) = (steps(run), shims(cluster));
        if steps.is_empty() && shims.len() <= 1 { Ok(()) } else { Err(format!("{steps:?} {shims:?}")) }
    });
}

fn ended(cluster: &Cluster, run: &str) -> serde_json::Value {
    cluster.until("it ends", &["get", "runs", run], |run| run["status"]["finishedAt"].is_string())
}

#[test]
fn a_step_outlives_its_agent_and_its_run_goes_on() {
    let mut cluster = Cluster::start(&[]);
    let folder = cluster.folder().to_owned();
    let script = format!(
        "cd {}\necho $$ >> starts\nseq 1000\ntouch before\nuntil test -e go; do sleep 0.01; done\nseq 30000\ntouch during\n\
         until test -e end; do sleep 0.01; done\necho after",
        folder.display()
    );
    let run = started(&mut cluster, &script, "");
    exists(&folder.join("before"));
    let step: u32 = fs::read_to_string(folder.join("starts")).unwrap().trim().parse().unwrap();
    cluster.kill_agent("a");
    fs::write(folder.join("go"), "").unwrap();
    assert!(steps(&run).contains(&step));
    // More than a pipe holds: it waits for an agent.
    assert!(!folder.join("during").exists());
    cluster.restart_agent("a", &[]);
    exists(&folder.join("during"));
    // The session before was that of a process that was killed: the next is let in once it does not answer.
    cluster.until("it runs", &["get", "runs", &run], |record| record["status"]["phase"] == "Running");
    cluster.kill_agent("a");
    fs::write(folder.join("end"), "").unwrap();
    eventually("the step ends without an agent", || {
        let left = steps(&run);
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
    assert_eq!(cluster.json(&["get", "runs", &run])["status"]["phase"], "Running");
    cluster.restart_agent("a", &[]);
    let record = ended(&cluster, &run);
    assert_eq!(record["status"]["phase"], "Success", "{record:#}");
    assert_eq!(record["status"]["tasks"]["second"]["phase"], "Success", "{record:#}");
    assert_eq!(fs::read_to_string(folder.join("starts")).unwrap().lines().count(), 1);
    let lines = |to: u32| (1..=to).map(|n| format!("{n}\n")).collect::<String>();
    let expected = lines(1000) + &lines(30_000) + "after\n";
    let log = cluster.run(&["logs", &run, "--task", "first"]).expect(0).stdout;
    let said: String = log.lines().map(|line| format!("{}\n", line.rsplit(' ').next().unwrap())).collect();
    assert!(said == expected, "{} of {} lines", said.lines().count(), expected.lines().count());
    nothing_is_left(&cluster, &run);
}

#[test]
fn a_step_that_is_lost_with_its_agent_ends_the_run() {
    let mut cluster = Cluster::start(&[]);
    let folder = cluster.folder().to_owned();
    let script = format!("touch {}/up; setsid sleep 1000 & sleep 1000", folder.display());
    let run = started(&mut cluster, &script, "");
    exists(&folder.join("up"));
    cluster.kill_agent("a");
    for shim in shims(&cluster) {
        let _ = kill_process(Pid::from_raw(shim.cast_signed()).unwrap(), Signal::KILL);
    }
    cluster.restart_agent("a", &[]);
    let record = ended(&cluster, &run);
    assert_eq!((&record["status"]["phase"], &record["status"]["reason"]), (&"Error".into(), &"AgentRestarted".into()));
    nothing_is_left(&cluster, &run);
}

#[test]
fn timeouts_count_over_a_restart_and_a_cancel_reaches_what_was_found_again() {
    let mut cluster = Cluster::start(&[]);
    let folder = cluster.folder().to_owned();
    let script = format!("touch {}/up; sleep 1000", folder.display());
    let run = started(&mut cluster, &script, "      timeout: 3s\n");
    exists(&folder.join("up"));
    cluster.kill_agent("a");
    cluster.restart_agent("a", &[]);
    let record = ended(&cluster, &run);
    assert_eq!(record["status"]["reason"], "TimedOut", "{record:#}");
    let at = |field: &str| record["status"][field].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let took = at("finishedAt").duration_since(at("startedAt")).as_secs_f64();
    assert!((2.9..6.0).contains(&took), "{took} s");
    nothing_is_left(&cluster, &run);

    fs::remove_file(folder.join("up")).unwrap();
    cluster.repository.write("xene.d/w.yaml", &workflow(&script, ""));
    cluster.commit("without a timeout");
    let run = cluster.run(&["trigger", "w/p"]).expect(0).stdout.trim().to_owned();
    exists(&folder.join("up"));
    // SIGHUP is for this: the agent ends at once.
    let mut agent = cluster.agents.remove("a").unwrap();
    agent.signal(Signal::HUP);
    assert!(agent.wait().success(), "{}", agent.output());
    assert!(!steps(&run).is_empty());
    cluster.restart_agent("a", &[]);
    cluster.run(&["cancel", &run]).expect(0);
    let record = ended(&cluster, &run);
    assert_eq!(record["status"]["reason"], "Cancelled", "{record:#}");
    nothing_is_left(&cluster, &run);
}

#[test]
fn the_first_sigterm_drains_and_the_second_cancels() {
    let mut cluster = Cluster::start(&[]);
    let folder = cluster.folder().to_owned();
    let script = format!("touch {0}/up; until test -e {0}/go; do sleep 0.01; done", folder.display());
    let run = started(&mut cluster, &script, "");
    exists(&folder.join("up"));
    let mut agent = cluster.agents.remove("a").unwrap();
    agent.signal(Signal::TERM);
    agent.line_after("draining");
    fs::write(folder.join("go"), "").unwrap();
    assert!(agent.wait().success(), "{}", agent.output());
    assert_eq!(ended(&cluster, &run)["status"]["phase"], "Success");

    fs::remove_file(folder.join("go")).unwrap();
    fs::remove_file(folder.join("up")).unwrap();
    cluster.restart_agent("a", &[]);
    cluster.scheduled("w/p");
    let run = cluster.run(&["trigger", "w/p"]).expect(0).stdout.trim().to_owned();
    exists(&folder.join("up"));
    let mut agent = cluster.agents.remove("a").unwrap();
    agent.signal(Signal::TERM);
    agent.line_after("draining");
    agent.signal(Signal::TERM);
    assert!(agent.wait().success(), "{}", agent.output());
    assert_eq!(ended(&cluster, &run)["status"]["reason"], "Cancelled");
    eventually("nothing is left", || {
        let left = (steps(&run), shims(&cluster));
        if left.0.is_empty() && left.1.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
}
