//! Rows of the matrix of faults that want a story of their own: floods, forks, a stopped agent, a disk that fails once.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use rustix::process::Signal;
use xene_test_support::{
    cluster::Cluster,
    disk::SmallDisk,
    eventually,
    process::{Process, processes_with},
    within,
};

use crate::{tools::tamper, world::Start};

const SHORT: [&str; 4] = ["--min-autonomy", "2s", "--pause-margin", "1s"];

fn workflow(pipelines: &str) -> String {
    format!(
        "apiVersion: xene/v1\nkind: Workflow\nmetadata: {{name: w}}\nspec:\n  triggers:\n    second: {{type: cron, \
         schedule: \"* * * * * *\", catchUp: Skip}}\n  pipelines:\n{pipelines}"
    )
}

/// Memory of its own, in bytes: without the pages of files that it has mapped.
fn anonymous_memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap_or("0 kB");
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) * 1024
}

#[test]
fn a_flood_of_output_neither_fills_the_memory_nor_holds_up_other_logs() {
    // In the long form more than is kept of one run, 1 GiB.
    let long = std::env::var("XENE_FAULTS").is_ok();
    let bytes: u64 = if long { 1200 << 20 } else { 200 << 20 };
    let mut cluster = Cluster::start(&[]);
    cluster.start_agent("a", &["--slots", "4"]);
    let pipelines = format!(
        "    flood: {{tasks: {{t: {{steps: ['yes 0123456789012345678901234567890123456789012345678901234567890 | head -c {bytes}; echo; echo end']}}}}}}\n    \
         other: {{tasks: {{t: {{steps: ['until test -e {}; do date +%s%N; sleep 0.2; done']}}}}}}\n",
        cluster.folder().join("over").display()
    );
    cluster.repository.write("xene.d/w.yaml", &workflow(&pipelines));
    cluster.commit("flood");
    cluster.scheduled("w/flood");
    cluster.scheduled("w/other");
    let other = cluster.run(&["trigger", "w/other"]).expect(0).stdout.trim().to_owned();
    let mut follow = cluster.command();
    let mut child = follow.args(["logs", &other, "-f"]).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let delays = std::thread::spawn(move || {
        let mut delays = Vec::new();
        for line in lines {
            let printed: i128 = line.unwrap().parse().unwrap();
            delays.push((jiff::Timestamp::now().as_nanosecond() - printed) / 1_000_000);
        }
        delays
    });
    let pids = [cluster.controller.as_ref().unwrap().id(), cluster.agents["a"].id()];
    let before = pids.map(anonymous_memory);
    let mut most = before;
    let flood = cluster.run(&["trigger", "w/flood"]).expect(0).stdout.trim().to_owned();
    let record = within(Duration::from_secs(if long { 600 } else { 180 }), "the flood ends", || {
        for (most, pid) in most.iter_mut().zip(pids) {
            *most = anonymous_memory(pid).max(*most);
        }
        let record = cluster.json(&["get", "runs", &flood]);
        if record["status"]["finishedAt"].is_string() { Ok(record) } else { Err(format!("{record:#}")) }
    });
    fs::write(cluster.folder().join("over"), "").unwrap();
    assert!(child.wait().unwrap().success());
    let delays = delays.join().unwrap();
    assert_eq!(record["status"]["phase"], "Success", "{record:#}");
    let worst = delays.iter().max().copied().unwrap_or_default();
    println!("{} lines of the other run, at most {worst} ms late; memory {before:?}, at most {most:?}", delays.len());
    // Beside other tests of this binary, on few processors, it is slower than the flood makes it.
    assert!(worst < if long { 2_000 } else { 10_000 }, "another run's lines are late: {delays:?}");
    for (before, most) in before.iter().zip(most) {
        assert!(most < before + (96 << 20), "memory grew from {before} to {most} bytes");
    }
    let tail = eventually("the end of the log is there", || {
        let log = cluster.run(&["logs", &flood, "--tail", "3"]).expect(0).stdout;
        if log.contains("end\n") || log.contains("xene: ") { Ok(log) } else { Err(log) }
    });
    assert_eq!(tail.contains("xene: "), long, "what is beyond the limit is cut, and that is said: {tail}");
}

#[test]
fn a_step_that_forks_ignores_sigterm_and_leaves_its_session_is_ended_whole() {
    let mut cluster = Cluster::start(&[]);
    cluster.start_agent("a", &[]);
    // Root has no limit of processes, so the bomb has one of its own.
    let bomb =
        "trap '' TERM; f() { [ $1 -eq 0 ] || { f $(($1 - 1)) & f $(($1 - 1)) & }; setsid sleep 1000; }; f 7; wait";
    let pipelines = format!(
        "    bomb: {{timeout: 2s, gracePeriod: 1s, tasks: {{t: {{steps: [\"{bomb}\"]}}}}}}\n    \
         left: {{tasks: {{t: {{steps: [\"for i in 1 2 3 4 5 6 7 8 9; do (setsid sleep 1000 > /dev/null 2>&1 &) ; done\"]}}}}}}\n"
    );
    cluster.repository.write("xene.d/w.yaml", &workflow(&pipelines));
    cluster.commit("bomb");
    for (pipeline, reason) in [("w/bomb", "TimedOut"), ("w/left", "")] {
        cluster.scheduled(pipeline);
        let run = cluster.run(&["trigger", pipeline]).expect(0).stdout.trim().to_owned();
        let marker = format!("XENE_RUN_ID={run}");
        if !reason.is_empty() {
            eventually("it has forked", || {
                let count = processes_with(&marker).len();
                if count > 200 { Ok(()) } else { Err(count.to_string()) }
            });
        }
        let record = cluster.until("it ends", &["get", "runs", &run], |run| run["status"]["finishedAt"].is_string());
        assert_eq!(record["status"]["reason"].as_str().unwrap_or_default(), reason, "{record:#}");
        eventually("nothing is left of it", || {
            let left = processes_with(&marker);
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
        });
    }
    assert!(cluster.agents.get_mut("a").unwrap().ended().is_none(), "the agent lives");
}

/// A group whose processes may have so many bytes of memory between them. `None` where none can be made.
fn small_memory(name: &str, bytes: u64) -> Option<MemoryGroup> {
    let (old, new) = (Path::new("/sys/fs/cgroup/memory"), Path::new("/sys/fs/cgroup"));
    let (parent, limit) = if old.is_dir() { (old, "memory.limit_in_bytes") } else { (new, "memory.max") };
    let group = MemoryGroup(parent.join(format!("xene-{name}-{}", std::process::id())));
    let made = fs::create_dir(&group.0).and_then(|()| fs::write(group.0.join(limit), bytes.to_string()));
    if let Err(error) = &made {
        println!("no group of processes with little memory can be made here: {error}");
    }
    made.is_ok().then_some(group)
}

struct MemoryGroup(PathBuf);

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn a_step_that_eats_all_memory_is_killed_and_its_agent_is_not() {
    let Some(group) = small_memory("eater", 256 << 20) else { return };
    let mut cluster = Cluster::start(&[]);
    cluster.start_agent("a", &[]);
    fs::write(group.0.join("cgroup.procs"), cluster.agents["a"].id().to_string()).unwrap();
    let gate = cluster.folder().join("gate");
    // Looks for the end of a line without end.
    let pipelines = format!(
        "    eats: {{tasks: {{t: {{steps: ['exec tail /dev/zero']}}}}}}\n    \
         other: {{tasks: {{t: {{steps: ['until test -e {}; do sleep 0.05; done']}}}}}}\n",
        gate.display()
    );
    cluster.repository.write("xene.d/w.yaml", &workflow(&pipelines));
    cluster.commit("w");
    cluster.scheduled("w/eats");
    cluster.scheduled("w/other");
    let other = cluster.run(&["trigger", "w/other"]).expect(0).stdout.trim().to_owned();
    cluster.until("it runs", &["get", "runs", &other], |run| run["status"]["phase"] == "Running");
    let eats = cluster.run(&["trigger", "w/eats"]).expect(0).stdout.trim().to_owned();
    let record = cluster.until("it ends", &["get", "runs", &eats], |run| run["status"]["finishedAt"].is_string());
    let message = record["status"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("was ended by signal 9, as when memory runs out"), "{record:#}");
    assert!(cluster.agents.get_mut("a").unwrap().ended().is_none(), "the agent lives");
    fs::write(&gate, "").unwrap();
    let record = cluster.until("it ends", &["get", "runs", &other], |run| run["status"]["finishedAt"].is_string());
    assert_eq!(record["status"]["phase"], "Success", "{record:#}");
}

#[test]
fn an_agent_that_stood_still_for_longer_than_its_lease_starts_nothing_when_it_goes_on() {
    let mut cluster = Cluster::start(&SHORT);
    cluster.start_agent("a", &[]);
    let folder = cluster.folder().to_owned();
    let note = "echo \"$XENE_PIPELINE $XENE_SCHEDULED_TIME $XENE_RUN_ID $XENE_EPOCH $XENE_AGENT\" >> starts";
    let pipelines = format!(
        "    tick: {{trigger: second, autonomy: 2s, tasks: {{t: {{steps: ['cd {}; {note}']}}}}}}\n",
        folder.display()
    );
    cluster.repository.write("xene.d/w.yaml", &workflow(&pipelines));
    cluster.commit("tick");
    assert_eq!(cluster.scheduled("w/tick")["status"]["agent"], "a");
    cluster.start_agent("b", &[]);
    let starts = || crate::world::starts(&folder);
    let by = |agent: &str, starts: &[Start]| starts.iter().filter(|start| start.agent == agent).count();
    let until = |agent: &str, count: usize| {
        eventually(&format!("{agent} has started {count}"), || {
            let starts = starts();
            if by(agent, &starts) >= count { Ok(()) } else { Err(format!("{starts:?}")) }
        });
    };
    until("a", 2);
    // Just after a start: it is idle.
    let seen = by("a", &starts());
    until("a", seen + 1);
    cluster.agents["a"].signal(Signal::STOP);
    until("b", 3);
    let before = by("a", &starts());
    cluster.agents["a"].signal(Signal::CONT);
    cluster.until("a is back", &["get", "agents", "a"], |agent| agent["status"]["phase"] == "Connected");
    let seen = by("b", &starts());
    until("b", seen + 3);
    let starts = starts();
    assert_eq!(by("a", &starts), before, "{starts:?}");
    let mut slots: Vec<_> = starts.iter().map(|start| start.slot).collect();
    slots.dedup();
    assert_eq!(slots.len(), starts.len(), "{starts:?}");
}

#[test]
fn agents_of_a_controller_that_was_killed_are_told_so_by_the_next() {
    let mut cluster = Cluster::start(&[]);
    cluster.start_agent("a", &[]);
    cluster.kill_controller();
    cluster.start_controller();
    // It keeps the session alive by a word every 5 s; without an answer it would wait for 20.
    within(Duration::from_secs(17), "the agent is connected again", || {
        let agent = cluster.json(&["get", "agents", "a"]);
        if agent["status"]["phase"] == "Connected" { Ok(()) } else { Err(format!("{agent:#}")) }
    });
    cluster.agents.get_mut("a").unwrap().line_after("the controller was restarted");
}

#[test]
fn a_controller_whose_disk_is_full_can_be_ended_and_started() {
    let mut cluster = Cluster::start(&SHORT);
    cluster.controller.take().unwrap().terminate();
    fs::remove_dir_all(cluster.data()).unwrap();
    let Some(disk) = SmallDisk::mount(&cluster.data(), "24m") else {
        println!("no file system can be mounted here: no disk becomes full");
        return;
    };
    cluster.start_controller();
    cluster.start_agent("a", &[]);
    let pipelines = "    tick: {trigger: second, tasks: {t: {steps: [\"true\"]}}}\n";
    cluster.repository.write("xene.d/w.yaml", &workflow(pipelines));
    cluster.commit("tick");
    cluster.scheduled("w/tick");
    disk.fill();
    let mut controller = cluster.controller.take().unwrap();
    controller.line_after("nothing is committed until there is room");
    // Commits wait for room, and it does not.
    let status = controller.terminate();
    assert_eq!(status.code(), Some(1), "{}", controller.output());
    assert!(controller.output().contains("is full"), "it says what it did not keep: {}", controller.output());
    cluster.start_controller();
    disk.free();
    let last = cluster.json(&["get", "runs"])["items"][0]["metadata"]["name"].clone();
    cluster.until("runs come in again", &["get", "runs"], |runs| runs["items"][0]["metadata"]["name"] != last);
    cluster.agents.clear();
    cluster.controller.take().unwrap().terminate();
}

/// Has the next sync of a process fail, once. `None` where nothing can be tampered with.
fn fail_next_sync(process: &Process) -> Option<Process> {
    tamper(process, "fdatasync", "error=EIO:when=1")
}

#[test]
fn a_controller_ends_when_a_sync_fails_once_and_has_acknowledged_nothing_that_it_lost() {
    let mut cluster = Cluster::start(&[]);
    cluster.start_agent("a", &[]);
    let pipelines = "    hand: {concurrency: {max: 4}, tasks: {t: {steps: [\"true\"]}}}\n";
    cluster.repository.write("xene.d/w.yaml", &workflow(pipelines));
    cluster.commit("hand");
    cluster.scheduled("w/hand");
    let first = cluster.run(&["trigger", "w/hand", "--wait"]).expect(0).stdout.trim().to_owned();
    let mut acknowledged = vec![first];
    let Some(tracer) = fail_next_sync(cluster.controller.as_ref().unwrap()) else { return };
    for _ in 0..3 {
        let started = cluster.run(&["trigger", "w/hand"]);
        if started.code == 0 {
            acknowledged.push(started.stdout.trim().to_owned());
        }
    }
    let mut controller = cluster.controller.take().unwrap();
    let status = controller.wait();
    assert_eq!(status.code(), Some(1), "{}", controller.output());
    assert!(controller.output().contains("can't be written") || controller.output().contains("can't write"));
    drop(tracer);
    assert_eq!(acknowledged.len(), 1, "none of those was durable");
    cluster.start_controller();
    for run in &acknowledged {
        cluster.until("it is there, and has ended", &["get", "runs", run], |run| run["status"]["phase"] == "Success");
    }
    cluster.run(&["trigger", "w/hand", "--wait"]).expect(0);
}

#[test]
fn an_agent_ends_when_a_sync_fails_once_and_its_runs_go_on_with_the_next() {
    let mut cluster = Cluster::start(&[]);
    cluster.start_agent("a", &[]);
    let gate = cluster.folder().join("gate");
    let pipelines = format!(
        "    hand: {{concurrency: {{max: 4}}, tasks: {{t: {{steps: ['until test -e {}; do sleep 0.05; done']}}}}}}\n",
        gate.display()
    );
    cluster.repository.write("xene.d/w.yaml", &workflow(&pipelines));
    cluster.commit("hand");
    cluster.scheduled("w/hand");
    let first = cluster.run(&["trigger", "w/hand"]).expect(0).stdout.trim().to_owned();
    cluster.until("it runs", &["get", "runs", &first], |run| run["status"]["phase"] == "Running");
    let Some(tracer) = fail_next_sync(&cluster.agents["a"]) else { return };
    let second = cluster.run(&["trigger", "w/hand"]).expect(0).stdout.trim().to_owned();
    let mut agent = cluster.agents.remove("a").unwrap();
    let status = agent.wait();
    assert_eq!(status.code(), Some(1), "{}", agent.output());
    drop(tracer);
    fs::write(&gate, "").unwrap();
    cluster.restart_agent("a", &[]);
    for run in [first, second] {
        let record = cluster.until("it ends", &["get", "runs", &run], |run| run["status"]["finishedAt"].is_string());
        assert_eq!(record["status"]["phase"], "Success", "{record:#}");
    }
}
