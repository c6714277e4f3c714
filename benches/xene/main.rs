//! What xene costs, measured on real processes: each figure beside a yardstick of the same run and the CPU time it took.
//!
//! `cargo bench` prints the table; `cargo bench -- latency logs` runs the parts that are named: `latency`, `steps`,
//! `throughput`, `logs`, `cron`, `scale`, `idle`, `size`, `pages`; the last needs Chromium with its driver. Wall time on a
//! shared machine is noise: read ratios and CPU.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a bench prints and measures"
)]

mod measure;
mod pages;
mod yardstick;

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use measure::{Api, Spread, Usage, row};
use serde_json::{Value, json};
use xene_test_support::{cluster::Cluster, process::binary, within};

const LONG: Duration = Duration::from_secs(300);

/// Measures and prints one part of the table.
type Part = fn(&yardstick::Yardsticks);

fn main() {
    if std::env::args().nth(1).is_some_and(|argument| argument == yardstick::WAKE) {
        return yardstick::wake_each_second();
    }
    let named: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let wanted = |part: &str| named.is_empty() || named.iter().any(|n| n == part);
    println!("{:<44} {:>22} {:>28} {:>14}", "what", "measured", "yardstick (ratio)", "CPU");
    let yard = yardstick::measure();
    let parts: [(&str, Part); 9] = [
        ("size", |_| size()),
        ("latency", latency),
        ("steps", steps),
        ("throughput", throughput),
        ("logs", logs),
        ("cron", |_| cron()),
        ("idle", |_| idle()),
        ("scale", scale),
        ("pages", pages::pages),
    ];
    for (name, part) in parts {
        if wanted(name) {
            part(&yard);
        }
    }
}

fn workflow(name: &str, body: &str) -> String {
    format!("apiVersion: xene/v1\nkind: Workflow\nmetadata: {{name: {name}}}\nspec:\n{body}")
}

/// A pipe that steps write to: the reader knows when a step ran, to the microsecond, without asking anybody.
struct Signal {
    path: PathBuf,
    lines: std::sync::mpsc::Receiver<(Instant, jiff::Timestamp, String)>,
}

impl Signal {
    fn new(folder: &Path) -> Self {
        let path = folder.join("signal");
        let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success());
        // Open for both, so that the end of one writer is not the end of the pipe.
        let pipe = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let (sender, lines) = std::sync::mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                if sender.send((Instant::now(), jiff::Timestamp::now(), line)).is_err() {
                    return;
                }
            }
        });
        Self { path, lines }
    }

    fn next(&self) -> (Instant, jiff::Timestamp, String) {
        self.lines.recv_timeout(Duration::from_secs(60)).expect("a step writes to the pipe")
    }
}

/// A controller and one agent with two slots.
fn cluster() -> (Cluster, Api) {
    let mut cluster = Cluster::start(&[]);
    cluster.start_agent("a", &["--slots", "2"]);
    let api = Api::new(cluster.server(), cluster.token());
    (cluster, api)
}

fn usage(cluster: &Cluster) -> Usage {
    let pids = [cluster.controller.as_ref().unwrap().id(), cluster.agents["a"].id()];
    Usage::of(&pids)
}

/// Waits until what was loaded has been digested: half a second that cost less than 1 % of a CPU.
fn settle(cluster: &Cluster) {
    loop {
        let before = usage(cluster);
        thread::sleep(Duration::from_millis(500));
        if usage(cluster).since(before) < Duration::from_millis(5) {
            return;
        }
    }
}

/// Trigger → first step, with few and with many workflows loaded: turn by turn, so that both meet the same machine.
fn latency(yard: &yardstick::Yardsticks) {
    let others = [5, 10_000];
    let loaded = others.map(|others| {
        let (cluster, api) = cluster();
        let signal = Signal::new(cluster.folder());
        fill(&cluster, others);
        let body =
            format!("  pipelines:\n    p:\n      tasks: {{t: {{steps: ['echo x > {}']}}}}\n", signal.path.display());
        cluster.repository.write("xene.d/w.yaml", &workflow("w", &body));
        cluster.repository.commit("w");
        within(LONG, "w/p is scheduled", || api.scheduled("w/p"));
        (cluster, api, signal)
    });
    loaded.iter().for_each(|(cluster, ..)| settle(cluster));
    let before = loaded.each_ref().map(|(cluster, ..)| usage(cluster));
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..100 {
        for ((_, api, signal), times) in loaded.iter().zip(&mut times) {
            let start = Instant::now();
            let run = api.start("w", "p");
            times.push(signal.next().0.duration_since(start));
            api.ended(&run);
        }
    }
    let spreads = times.map(Spread::of);
    for (at, spread) in spreads.iter().enumerate() {
        let cpu = usage(&loaded[at].0).since(before[at]) / 100;
        let title = format!("trigger → first step, {} workflows", others[at]);
        row(&title, spread, ("sh -c true", yard.spawn), cpu);
    }
    let ratio = spreads[1].median.as_secs_f64() / spreads[0].median.as_secs_f64();
    println!("{:<44} {ratio:>22.2}", "  ratio 10,000 : 5");
}

/// Steps one after another, and tasks side by side.
fn steps(yard: &yardstick::Yardsticks) {
    let (cluster, api) = cluster();
    let hundred: String = (0..100).map(|_| "          - ':'\n").collect();
    let sequence = format!("  pipelines:\n    p:\n      tasks:\n        t:\n         steps:\n{hundred}");
    cluster.repository.write("xene.d/seq.yaml", &workflow("seq", &sequence));
    let tasks: String = (0..100).map(|i| format!("        t{i}: {{steps: [':']}}\n")).collect();
    cluster
        .repository
        .write("xene.d/wide.yaml", &workflow("wide", &format!("  pipelines:\n    p:\n      tasks:\n{tasks}")));
    cluster.repository.commit("both");
    for (name, title, yardstick) in [
        ("seq", "100 steps one after another", ("shell loop of 100", yard.loop_of_100)),
        ("wide", "100 tasks on 2 slots", ("xargs -P2 of 100", yard.xargs_of_100)),
    ] {
        within(LONG, "it is scheduled", || api.scheduled(&format!("{name}/p")));
        let before = usage(&cluster);
        let times = (0..5).map(|_| {
            let run = api.start(name, "p");
            let record = api.ended(&run);
            let at = |field: &str| record["status"][field].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
            at("finishedAt").duration_since(at("startedAt")).unsigned_abs()
        });
        let spread = Spread::of(times.collect());
        row(title, &spread, yardstick, usage(&cluster).since(before) / 5);
        if name == "seq" {
            let each = spread.map(|time| time / 100);
            row("  the next step of a task", &each, ("sh -c true", yard.spawn), Duration::ZERO);
        }
    }
}

/// No-op runs a minute, each recorded durably.
fn throughput(yard: &yardstick::Yardsticks) {
    const RUNS: usize = 1_000;
    let (cluster, api) = cluster();
    let body = "  pipelines:\n    p:\n      concurrency: {max: 2}\n      tasks: {t: {steps: [':']}}\n";
    cluster.repository.write("xene.d/w.yaml", &workflow("w", body));
    cluster.repository.commit("w");
    within(LONG, "it is scheduled", || api.scheduled("w/p"));
    let before = usage(&cluster);
    let start = Instant::now();
    run_many(&api, RUNS);
    let took = start.elapsed();
    let cpu = usage(&cluster).since(before) / u32::try_from(RUNS).unwrap();
    let each = took / u32::try_from(RUNS).unwrap();
    println!(
        "{:<44} {:>15.0} /min {:>20} ({:>4.1}) {:>11.2} ms",
        "no-op runs, each durable; CPU of one",
        60.0 / each.as_secs_f64(),
        "sh -c true",
        each.as_secs_f64() / yard.spawn.as_secs_f64(),
        cpu.as_secs_f64() * 1e3
    );
}

/// Runs w/p so often, as quickly as it goes.
fn run_many(api: &Api, runs: usize) {
    let left = Arc::new(AtomicUsize::new(runs));
    let last: Vec<String> = thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let (api, left) = (api.clone(), Arc::clone(&left));
                scope.spawn(move || {
                    let mut last = String::new();
                    while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok() {
                        last = api.start("w", "p");
                    }
                    last
                })
            })
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).filter(|run| !run.is_empty()).collect()
    });
    for run in last {
        api.ended(&run);
    }
    within(LONG, "all have ended", || {
        let open = api.get("/api/v1/runs?phase=StartingUp&limit=1")["items"].as_array().map_or(0, Vec::len);
        let running = api.get("/api/v1/runs?phase=Running&limit=1")["items"].as_array().map_or(0, Vec::len);
        if open + running == 0 { Ok(()) } else { Err(String::new()) }
    });
}

/// 100 MB of log, stored at the controller and read back equal.
fn logs(yard: &yardstick::Yardsticks) {
    let (cluster, api) = cluster();
    let file = cluster.folder().join("big");
    let mut out = std::io::BufWriter::new(fs::File::create(&file).unwrap());
    let mut size = 0;
    for i in 0u64.. {
        let line =
            format!("2026-01-01T00:00:00Z worker-{} request {i} took {} µs, status 200\n", i % 17, i * 7919 % 99_991);
        size += line.len();
        out.write_all(line.as_bytes()).unwrap();
        if size >= 100_000_000 {
            break;
        }
    }
    out.into_inner().unwrap();
    let body = format!("  pipelines:\n    p:\n      tasks: {{t: {{steps: ['cat {}']}}}}\n", file.display());
    cluster.repository.write("xene.d/w.yaml", &workflow("w", &body));
    cluster.repository.commit("w");
    within(LONG, "it is scheduled", || api.scheduled("w/p"));
    let mut times = Vec::new();
    let before = usage(&cluster);
    let mut run = String::new();
    for _ in 0..3 {
        let start = Instant::now();
        run = api.start("w", "p");
        // The follower ends when the whole log is at the controller.
        let bytes = api.read_log(&run, true, &mut std::io::sink());
        assert_eq!(bytes, size as u64);
        times.push(start.elapsed());
    }
    let cpu = usage(&cluster).since(before) / 3;
    row(
        "100 MB of log, at the controller and back",
        &Spread::of(times),
        ("pipe, file and back", yard.pipe_100_mb),
        cpu,
    );
    let copy = cluster.folder().join("copy");
    api.read_log(&run, false, &mut fs::File::create(&copy).unwrap());
    assert!(fs::read(&copy).unwrap() == fs::read(&file).unwrap(), "the log is what was printed");
}

/// How late cron is after its second.
fn cron() {
    let (mut late, cpu) = yardstick::Waker::start().watch(30);
    late.sort_unstable();
    let unit = late[late.len() / 2];
    row("yardstick: sh -c true each second, late by", &Spread::of(late), ("itself", unit), cpu);
    let (cluster, _api) = cluster();
    let signal = Signal::new(cluster.folder());
    let body = format!(
        "  triggers: {{s: {{type: cron, schedule: \"* * * * * *\"}}}}\n  pipelines:\n    p:\n      triggers: s\n      concurrency: {{max: 4}}\n      tasks: {{t: {{steps: ['echo $XENE_SCHEDULED_TIME > {}']}}}}\n",
        signal.path.display()
    );
    cluster.repository.write("xene.d/w.yaml", &workflow("w", &body));
    cluster.repository.commit("w");
    signal.next();
    let before = usage(&cluster);
    let late = (0..30).map(|_| {
        let (_, at, slot) = signal.next();
        at.duration_since(slot.parse::<jiff::Timestamp>().unwrap()).unsigned_abs()
    });
    let spread = Spread::of(late.collect());
    row("cron, late by", &spread, ("sh each second", unit), usage(&cluster).since(before) / 30);
}

/// Memory and CPU of processes that have nothing to do.
fn idle() {
    for workflows in [0, 1_000, 10_000] {
        let (mut cluster, api) = cluster();
        fill(&cluster, workflows);
        within(LONG, "all are in effect", || api.workflows_are(workflows));
        settle(&cluster);
        // Memory is given back in rest.
        thread::sleep(Duration::from_secs(3));
        settle(&cluster);
        for again in [false, true] {
            if again {
                cluster.controller.as_mut().unwrap().terminate();
                cluster.start_controller();
                cluster.agents.get_mut("a").unwrap().kill();
                cluster.restart_agent("a", &["--slots", "2"]);
                settle(&cluster);
                thread::sleep(Duration::from_secs(3));
                settle(&cluster);
            }
            idle_once(&cluster, workflows, if again { ", restarted" } else { "" });
        }
    }
}

fn idle_once(cluster: &Cluster, workflows: usize, when: &str) {
    let pids = [cluster.controller.as_ref().unwrap().id(), cluster.agents["a"].id()];
    let before = pids.map(|pid| Usage::of(&[pid]));
    let watched = Duration::from_secs(12);
    thread::sleep(watched);
    for (name, pid, before) in [("controller", pids[0], before[0]), ("agent", pids[1], before[1])] {
        let cpu = Usage::of(&[pid]).since(before).as_secs_f64() / watched.as_secs_f64() * 100.0;
        let title = format!("idle {name}, {workflows} workflows{when}");
        println!("{title:<44} {:>15.1} MB PSS {:>20} {cpu:>22.3} %", measure::pss_mb(pid), "");
    }
}

/// Commit → scheduled, one file of many changed.
fn scale(yard: &yardstick::Yardsticks) {
    for workflows in [1, 1_000, 10_000] {
        let (cluster, api) = cluster();
        fill(&cluster, workflows);
        within(LONG, "all are in effect", || api.workflows_are(workflows));
        settle(&cluster);
        let before = usage(&cluster);
        let mut times = Vec::new();
        for round in 0..10 {
            let old = api.get("/api/v1/pipelines/w0/p")["status"]["specHash"].clone();
            cluster.repository.write("xene.d/d0/w0.yaml", &filler(0, round + 1));
            // Only the update of the ref is timed, not git's own work before it.
            cluster.repository.git(&["add", "xene.d/d0/w0.yaml"]);
            let tree = cluster.repository.git(&["write-tree"]);
            let commit = cluster.repository.git(&["commit-tree", &tree, "-p", "HEAD", "-m", "one file"]);
            cluster.repository.git(&["update-ref", "refs/heads/main", &commit]);
            let start = Instant::now();
            within(LONG, "it is in effect", || {
                let pipeline = api.get("/api/v1/pipelines/w0/p");
                let done = pipeline["status"]["specHash"] != old && pipeline["status"]["phase"] == "Scheduled";
                if done { Ok(()) } else { Err(pipeline.to_string()) }
            });
            times.push(start.elapsed());
        }
        let cpu = usage(&cluster).since(before) / 10;
        let title = format!("commit → scheduled, 1 of {workflows} files");
        row(&title, &Spread::of(times), ("append + fdatasync", yard.sync), cpu);
    }
}

fn size() {
    for name in ["xene", "xene-agent"] {
        let title = format!("binary {name}, stripped");
        match fs::metadata(binary().with_file_name(name)) {
            Ok(file) => println!("{title:<44} {:>15.1} MB", file.len() as f64 / 1e6),
            Err(_) => println!("{title:<44} not there: `cargo build --release -p {name}` makes it"),
        }
    }
}

fn filler(i: usize, round: usize) -> String {
    workflow(
        &format!("w{i}"),
        &format!(
            "  triggers: {{t: {{type: cron, schedule: \"{} 4 1 1 *\"}}}}\n  pipelines:\n    p:\n      triggers: t\n      tasks:\n        a: {{steps: ['echo {round}', 'echo two']}}\n        b: {{dependencies: a, steps: ['echo three']}}\n",
            i % 60
        ),
    )
}

/// Commits this many workflows that never fire, a hundred to a folder.
fn fill(cluster: &Cluster, workflows: usize) {
    for i in 0..workflows {
        cluster.repository.write(&format!("xene.d/d{}/w{i}.yaml", i / 100), &filler(i, 0));
    }
    cluster.repository.commit("many");
}

/// What starts a run.
pub(crate) fn start_body(workflow: &str, pipeline: &str) -> Value {
    json!({"workflow": workflow, "pipeline": pipeline})
}
