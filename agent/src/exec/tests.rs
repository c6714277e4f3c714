use std::{fs, time::Duration};

use jiff::Timestamp;
use tokio::sync::mpsc::{Receiver, channel};
use xene_schemas::{
    meta::FileHash,
    pipeline::PipelineFile,
    wire::logs::{RecordKind, split_record},
};

use super::*;
use crate::{
    decide::event::{ExitStatus, OutputsError, Program},
    logs::{Limits, Logs},
};

struct Bench {
    dir: tempfile::TempDir,
    exec: Exec,
    events: Receiver<ExecEvent>,
    logs: Logs,
    started: std::cell::Cell<u32>,
}

fn run_name(n: u128) -> RunName {
    RunName::new(Timestamp::UNIX_EPOCH, n)
}

fn config(dir: &Path, cgroup: Option<PathBuf>) -> ExecConfig {
    let files = ContentStore::open(&dir.join("files")).unwrap();
    let (work_dir, cache_dir) = (dir.join("work"), dir.join("cache"));
    ExecConfig { work_dir, cache_dir, files, cgroup, outlives: true, bounds: None }
}

fn command(step: usize, program: Program) -> StepCommand {
    StepCommand {
        id: StepId { run: run_name(1), task: "t".into(), attempt: 1, step, step_attempt: 1 },
        pipeline: "w/p".parse().unwrap(),
        step_name: format!("step-{step}"),
        program,
        env: vec![("XENE_RUN_ID".into(), run_name(1).to_string()), ("GREETING".into(), "hello".into())],
        context: "default".into(),
        working_dir: None,
        payload: None,
        files: [].into(),
        artifacts: Vec::new(),
        exclusive: false,
    }
}

fn sh(script: &str) -> StepCommand {
    let shell = vec!["sh".to_owned(), "-e".to_owned()];
    command(0, Program::Script { shell, script: script.to_owned() })
}

fn argv(words: &[&str]) -> StepCommand {
    command(0, Program::Argv(words.iter().map(|&word| word.to_owned()).collect()))
}

impl Bench {
    async fn new() -> Self {
        Self::with(|_| None).await
    }

    async fn with(cgroup: impl FnOnce(&Path) -> Option<PathBuf>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (sender, events) = channel(16);
        let exec = Exec::new(config(dir.path(), cgroup(&dir.path().join("work"))), sender).unwrap();
        let logs = Logs::open(&dir.path().join("logs"), Limits::default()).unwrap();
        Self { dir, exec, events, logs, started: 0.into() }
    }

    /// Each is an attempt of its own: one that was started is not started again.
    fn start(&self, command: StepCommand) -> StepId {
        self.started.update(|count| count + 1);
        let id = StepId { attempt: self.started.get(), ..command.id };
        self.exec.spawn(StepCommand { id: id.clone(), ..command }, self.logs.create(id.run));
        id
    }

    async fn end(&mut self) -> StepExit {
        let event = tokio::time::timeout(Duration::from_secs(30), self.events.recv()).await;
        let ExecEvent { exit, held, .. } = event.expect("the step ends").unwrap();
        held.inspect(Held::release);
        exit
    }

    async fn run(&mut self, command: StepCommand) -> StepExit {
        self.start(command);
        self.end().await
    }

    fn output(&self, kind: RecordKind) -> Vec<u8> {
        let log = self.logs.create(run_name(1));
        let mut bytes = vec![0; usize::try_from(log.len()).unwrap()];
        assert_eq!(log.read_at(0, &mut bytes).unwrap(), bytes.len());
        let (mut rest, mut output) = (&bytes[..], Vec::new());
        while let Some((record, used)) = split_record(rest).unwrap() {
            if record.kind == Some(kind) {
                output.extend_from_slice(record.data);
            }
            rest = &rest[used..];
        }
        output
    }

    fn stdout(&self) -> String {
        String::from_utf8(self.output(RecordKind::Stdout)).unwrap()
    }

    /// Waits until the step has said all of this.
    async fn said(&self, text: &str) {
        let log = self.logs.create(run_name(1));
        let mut len = 0;
        while !self.stdout().contains(text) {
            let grown = tokio::time::timeout(Duration::from_secs(30), log.wait_for(len)).await;
            len = grown.expect("the step speaks").0;
        }
    }
}

fn travelling(bench: &Bench, path: &str, text: &str, executable: bool) -> PipelineFile {
    let hash = bench.exec.shared.config.files.keep(text.as_bytes()).unwrap();
    PipelineFile { path: path.into(), hash, size: text.len() as u64, executable }
}

#[tokio::test]
async fn files_that_travel_lie_in_each_context_and_an_altered_copy_alters_nothing_else() {
    let mut bench = Bench::new().await;
    let files: Arc<[PipelineFile]> = [
        travelling(&bench, "scripts/say.sh", "#!/bin/sh\necho hello\n", true),
        travelling(&bench, "scripts/deep/data", "data", false),
    ]
    .into();
    let step = |n: usize, context: &str, script: &str| StepCommand {
        files: files.clone(),
        context: context.into(),
        id: StepId { step: n, ..sh("").id },
        ..sh(script)
    };
    let script = "scripts/say.sh; cat scripts/deep/data; test ! -x scripts/deep/data; echo x > scripts/say.sh";
    assert_eq!(bench.run(step(0, "a", script)).await, success());
    assert_eq!(bench.stdout(), "hello\ndata");
    assert_eq!(bench.run(step(1, "a", "cat scripts/say.sh")).await, success(), "what a step leaves stays");
    assert_eq!(bench.stdout(), "hello\ndatax\n");
    assert_eq!(bench.run(step(2, "b", "scripts/say.sh")).await, success());
    assert_eq!(bench.stdout(), "hello\ndatax\nhello\n");
    for (n, bad) in ["../out", "/tmp/out", "a/../../out"].into_iter().enumerate() {
        let file = PipelineFile { path: bad.into(), ..files[0].clone() };
        let context = format!("c{n}");
        let exit = bench.run(StepCommand { files: [file].into(), ..step(3, &context, "true") }).await;
        let ExitStatus::StartFailed(why) = exit.status else { panic!("{exit:?}") };
        assert!(why.contains("leads out of the workspace"), "{why}");
    }
    let gone = PipelineFile { hash: FileHash::of(b"gone"), ..files[0].clone() };
    let exit = bench.run(StepCommand { files: [gone].into(), ..step(4, "d", "true") }).await;
    assert!(matches!(exit.status, ExitStatus::StartFailed(why) if why.contains("scripts/say.sh")));
}

fn save(patterns: &[&str]) -> StepCommand {
    let patterns = patterns.iter().map(ToString::to_string).collect();
    StepCommand { id: StepId { step: 9, ..sh("").id }, ..command(9, Program::Save(patterns)) }
}

#[tokio::test]
async fn artifacts_are_regular_files_and_nothing_that_only_looks_like_one() {
    let mut bench = Bench::new().await;
    let script = "mkdir -p out/deep && echo one > out/deep/one && printf x > out/run && chmod +x out/run && \
                  ln -s /etc/passwd out/link && ln -s / out/root && mkfifo out/fifo && echo no > other";
    assert_eq!(bench.run(sh(script)).await, success());
    let exit = bench.run(save(&["out/**", "none/*"])).await;
    let ExitStatus::Saved(saved) = exit.status else { panic!("{exit:?}") };
    let shown: Vec<_> = saved.iter().map(|saved| (saved.path.as_str(), saved.size, saved.executable)).collect();
    assert_eq!(shown, [("out/deep/one", 4, false), ("out/run", 1, true)]);
    assert_eq!(saved[0].hash, FileHash::of(b"one\n"));
    assert!(bench.exec.shared.config.files.has(&saved[0].hash));
    let notes = String::from_utf8(bench.output(RecordKind::Note)).unwrap();
    assert!(notes.contains("out/fifo") && notes.contains("out/link") && notes.contains("out/root"), "{notes}");
    assert!(notes.contains("none/*"), "{notes}");

    let laid = StepCommand { context: "other".into(), artifacts: saved, ..sh("cat out/deep/one; test -x out/run") };
    assert_eq!(bench.run(laid.clone()).await, success());
    assert_eq!(bench.stdout(), "one\n");
    // A link that a step left where an artifact belongs leads nowhere.
    let outside = bench.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let trap = format!("rm -r out && ln -s {} out", outside.display());
    assert_eq!(bench.run(StepCommand { context: "other".into(), ..sh(&trap) }).await, success());
    let exit = bench.run(laid).await;
    assert!(matches!(&exit.status, ExitStatus::StartFailed(why) if why.contains("out/deep/one")), "{exit:?}");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

#[tokio::test]
async fn files_that_are_swapped_while_they_are_saved_do_no_harm() {
    let mut bench = Bench::new().await;
    assert_eq!(bench.run(sh("mkdir out; echo good > out/x; echo good > out/y")).await, success());
    let workspace = bench.exec.workspace(run_name(1)).join("default/out");
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (swapped, ended) = (workspace.clone(), stop.clone());
    let swapper = std::thread::spawn(move || {
        let path = swapped.join("x");
        let mut count = 0;
        while !ended.load(std::sync::atomic::Ordering::Acquire) || count < 100 {
            let next = swapped.join(".next");
            let _ = fs::remove_file(&next);
            match count % 3 {
                0 => std::os::unix::fs::symlink("/etc/passwd", &next).unwrap(),
                1 => rustix::fs::mkfifoat(rustix::fs::CWD, &next, rustix::fs::Mode::RUSR).unwrap(),
                _ => fs::write(&next, "good\n").unwrap(),
            }
            fs::rename(&next, &path).unwrap();
            count += 1;
        }
    });
    for _ in 0..50 {
        let exit = bench.run(save(&["out/*"])).await;
        let ExitStatus::Saved(saved) = exit.status else { panic!("{exit:?}") };
        assert!(saved.iter().all(|saved| saved.hash == FileHash::of(b"good\n")), "{saved:?}");
        assert!(saved.iter().any(|saved| saved.path == "out/y"));
    }
    stop.store(true, std::sync::atomic::Ordering::Release);
    swapper.join().unwrap();
}

fn success() -> StepExit {
    StepExit { status: ExitStatus::Code(0), outputs: Ok(Vec::new()), leftovers: Vec::new() }
}

/// True while a process lives. One that has ended but is not reaped does not.
fn lives(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    stat.rsplit(')')
        .next()
        .is_some_and(|rest| !rest.is_empty() && ![" Z", " X", " x"].iter().any(|end| rest.starts_with(end)))
}

#[tokio::test(flavor = "multi_thread")]
async fn environment_is_clean_and_complete() {
    let mut bench = Bench::new().await;
    let payload: Arc<[u8]> = Arc::from(&b"{\"a\":1}"[..]);
    let command = StepCommand { payload: Some(payload), ..argv(&["env"]) };
    let exit = bench.run(command).await;
    assert_eq!(exit, success());
    let output = bench.stdout();
    let names: Vec<_> = output.lines().map(|line| line.split_once('=').unwrap().0).collect();
    let expected = [
        "GREETING",
        "HOME",
        "LANG",
        "PATH",
        "TMPDIR",
        "USER",
        "XENE_CACHE",
        "XENE_OUTPUT",
        "XENE_PAYLOAD",
        "XENE_RUN_ID",
        "XENE_WORKSPACE",
    ];
    assert_eq!(names, expected);
    bench
        .run(StepCommand {
            env: vec![("PATH".into(), "/x".into()), ("XENE_OUTPUT".into(), "/y".into())],
            ..argv(&["/usr/bin/env"])
        })
        .await;
    let output = bench.stdout();
    assert!(output.contains("\nPATH=/x\n") && !output.contains("/y"), "the workflow sets PATH, but not XENE_OUTPUT");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_finds_its_folders_and_publishes_outputs() {
    let mut bench = Bench::new().await;
    let script = "test \"$PWD\" = \"$XENE_WORKSPACE/a/b\"\ncat \"$XENE_PAYLOAD\"\ntest -d \"$TMPDIR\"\n\
                  echo kept > \"$XENE_CACHE/file\"\necho \"v=$GREETING\" >> \"$XENE_OUTPUT\"\necho \"$0\" >&2\n";
    let payload: Arc<[u8]> = Arc::from(&b"body"[..]);
    let command = StepCommand { working_dir: Some("a/b".into()), payload: Some(payload), ..sh(script) };
    let exit = bench.run(command).await;
    assert_eq!(exit, StepExit { outputs: Ok(vec![("v".into(), "hello".into())]), ..success() });
    assert_eq!(bench.stdout(), "body");
    let error = String::from_utf8(bench.output(RecordKind::Stderr)).unwrap();
    assert!(error.ends_with(".script\n"), "{error}");
    assert_eq!(fs::read_to_string(bench.dir.path().join("cache/w/p/file")).unwrap(), "kept\n");
    let workspace = bench.exec.workspace(run_name(1));
    assert!(workspace.is_dir());
    bench.exec.finish_run(run_name(1), true);
    let folder = workspace.parent().unwrap().to_owned();
    until(|| folder.join("kept").exists()).await;
    bench.exec.finish_run(run_name(1), false);
    until(|| !folder.exists()).await;
}

async fn until(condition: impl Fn() -> bool) {
    let begun = crate::clock::now().boot;
    while !condition() {
        assert!(crate::clock::now().boot.since(begun) < Duration::from_secs(30), "it comes true");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_begins_with_no_signal_blocked_and_may_wait_for_what_it_started() {
    let mut bench = Bench::new().await;
    assert_eq!(bench.run(argv(&["grep", "SigBlk", "/proc/self/status"])).await, success());
    assert_eq!(bench.stdout(), "SigBlk:\t0000000000000000\n");
    let waiting = tokio::time::timeout(Duration::from_secs(20), bench.run(sh("true & trap 'exit 1' TERM; wait")));
    assert_eq!(waiting.await, Ok(success()));
}

#[tokio::test(flavor = "multi_thread")]
async fn ends_are_told_apart() {
    let mut bench = Bench::new().await;
    assert_eq!(bench.run(sh("exit 7")).await.status, ExitStatus::Code(7));
    assert_eq!(bench.run(sh("false; exit 0")).await.status, ExitStatus::Code(1), "sh -e");
    assert_eq!(bench.run(sh("kill -KILL $$")).await.status, ExitStatus::Signal(9));
    let exit = bench.run(sh("ln -sf /etc/passwd \"$XENE_OUTPUT\"")).await;
    assert!(matches!(exit.outputs, Err(OutputsError::Unreadable(_))));
    let exit = bench.run(sh("yes a=1 | head -c 2000000 > \"$XENE_OUTPUT\"")).await;
    assert!(matches!(exit.outputs, Err(OutputsError::TooLarge { size: 2_000_000, .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_start_says_why() {
    let mut bench = Bench::new().await;
    let plain = bench.dir.path().join("plain");
    fs::write(&plain, "").unwrap();
    let huge = vec![("HUGE".to_owned(), "x".repeat(3 << 20))];
    let odd = vec![("ODD".to_owned(), "a\0b".to_owned())];
    let missing = "/nonexistent/folder";
    let blocked = plain.join("below").display().to_string();
    let cases = [
        (argv(&["no-such-program"]), "not found on PATH"),
        (argv(&[plain.to_str().unwrap()]), "not an executable file"),
        (argv(&[]), "no program"),
        (StepCommand { env: huge, ..argv(&["true"]) }, "can't run true: Argument list too long"),
        (StepCommand { env: odd, ..argv(&["true"]) }, "nul byte"),
        (StepCommand { working_dir: Some(missing.into()), ..argv(&["true"]) }, "is not a folder of this host"),
        (StepCommand { working_dir: Some(blocked), ..argv(&["true"]) }, "is not a folder of this host"),
        (StepCommand { working_dir: Some("a\0b".into()), ..argv(&["true"]) }, "can't make the working directory"),
    ];
    for (command, sentence) in cases {
        let status = bench.run(command).await.status;
        assert!(matches!(&status, ExitStatus::StartFailed(why) if why.contains(sentence)), "{status:?}");
    }
    fs::set_permissions(&plain, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    fs::write(&plain, "no interpreter").unwrap();
    let status = bench.run(argv(&[plain.to_str().unwrap()])).await.status;
    assert!(matches!(&status, ExitStatus::StartFailed(why) if why.contains("Exec format")), "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_byte_of_output_arrives() {
    let mut bench = Bench::new().await;
    bench.run(sh(r"printf '\000\377half'; printf ' a line'; printf 'error' >&2; exec 1>&-; sleep 0.01")).await;
    assert_eq!(bench.output(RecordKind::Stdout), b"\0\xffhalf a line");
    assert_eq!(bench.output(RecordKind::Stderr), b"error");
    let script = "head -c 104857600 /dev/urandom | tee \"$XENE_CACHE/copy\"";
    let before = bench.output(RecordKind::Stdout).len();
    assert_eq!(bench.run(sh(script)).await, success());
    let copy = fs::read(bench.dir.path().join("cache/w/p/copy")).unwrap();
    let output = bench.output(RecordKind::Stdout);
    assert_eq!(output.len() - before, 100 << 20);
    assert!(blake3::hash(&output[before..]) == blake3::hash(&copy));
}

/// Children that want to stay, with the number of each printed to standard output.
const NASTY: [(&str, &str); 6] = [
    ("in the background", "sleep 1000 & echo $!"),
    ("in a session of its own", "setsid sh -c 'echo $$; exec sleep 1000' & sleep 0.05"),
    ("forked twice", "(setsid sh -c 'echo $$; exec sleep 1000 >&- 2>&-' &) ; sleep 0.05"),
    ("deaf to SIGTERM", "sh -c 'trap \"\" TERM; echo $$; while :; do sleep 0.01; done' & sleep 0.05"),
    ("without output", "sh -c 'echo $$; exec sleep 1000 >&- 2>&- <&-' & sleep 0.05"),
    ("without environment", "(env -i setsid sh -c 'echo $$; exec sleep 1000 >&- 2>&-' &) ; sleep 0.05"),
];

async fn sweeps_all(bench: &mut Bench) {
    for (what, script) in NASTY {
        let said = bench.stdout().len();
        let exit = bench.run(sh(script)).await;
        assert_eq!(exit.status, ExitStatus::Code(0), "{what}");
        let pid = bench.stdout().split_off(said);
        assert!(pid.trim().parse::<i32>().is_ok(), "{what}: {pid:?}");
        assert!(!lives(&pid), "{what}");
        assert!(exit.leftovers.iter().any(|name| name == "sleep" || name == "sh"), "{what}: {exit:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_descendant_outlives_its_step() {
    sweeps_all(&mut Bench::new().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_descendant_outlives_its_step_with_cgroups() {
    let mut bench = Bench::with(find_cgroup).await;
    sweeps_all(&mut bench).await;
    if let Some(parent) = &bench.exec.shared.config.cgroup {
        fs::remove_dir(parent).expect("each step's cgroup is gone");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fan_of_processes_is_swept_whole() {
    let mut bench = Bench::new().await;
    let script = "for i in $(seq 50); do (setsid sh -c 'sleep 1000 & echo $$ $!; wait' &) ; done; sleep 0.3";
    let exit = bench.run(sh(script)).await;
    let pids = bench.stdout();
    assert_eq!(pids.split_whitespace().count(), 100);
    assert!(!pids.split_whitespace().any(lives));
    assert_eq!(exit.leftovers.len(), 100);
}

#[tokio::test]
async fn steps_and_not_what_looks_after_them_go_first_when_memory_runs_out() {
    let mut bench = Bench::new().await;
    let own = fs::read_to_string("/proc/self/oom_score_adj").unwrap();
    // The process above it may be a moment later than the step.
    let script = format!(
        "cat /proc/self/oom_score_adj; until [ $(cat /proc/$PPID/oom_score_adj) = {} ]; do sleep 0.01; done",
        own.trim()
    );
    assert_eq!(bench.run(sh(&script)).await, success());
    assert_eq!(bench.stdout(), "500\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_steps_are_left_alone() {
    let mut bench = Bench::new().await;
    let script = "(setsid sh -c 'echo $$; exec sleep 1000' &) ; sleep 1000";
    bench.start(StepCommand { id: StepId { task: "other".into(), ..sh("").id }, ..sh(script) });
    bench.said("\n").await;
    let daemon = bench.stdout();
    assert_eq!(bench.run(sh("true")).await, success());
    let exit = bench.run(sh("(setsid sleep 1000 >&- 2>&- &) ; sleep 0.05")).await;
    assert_eq!(exit.leftovers, ["sleep"]);
    assert!(lives(&daemon));
    bench.exec.kill_all();
    assert_eq!(bench.end().await.status, ExitStatus::Signal(9));
    assert!(!lives(&daemon));
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_reach_every_process_of_a_step() {
    let mut bench = Bench::new().await;
    let script = "trap 'echo leader; exit 3' TERM\n\
                  (setsid sh -c 'trap \"sleep 0.2; echo daemon; exit\" TERM; echo up; while :; do sleep 0.01; done' &)\n\
                  while :; do sleep 0.01; done";
    let id = bench.start(sh(script));
    bench.said("up").await;
    bench.exec.signal(&id, Signal::Terminate);
    assert_eq!(bench.end().await, StepExit { status: ExitStatus::Code(3), ..success() });
    let output = bench.stdout();
    assert!(output.contains("leader") && output.contains("daemon"), "{output}");

    let id = bench.start(sh("trap '' TERM; echo deaf; while :; do sleep 0.01; done"));
    bench.said("deaf").await;
    bench.exec.signal(&id, Signal::Terminate);
    bench.exec.signal(&id, Signal::Kill);
    assert_eq!(bench.end().await.status, ExitStatus::Signal(9));
    bench.exec.signal(&id, Signal::Kill);
    assert_eq!(bench.run(sh("true")).await, success(), "a signal for the past hits nobody");
}

#[tokio::test(flavor = "multi_thread")]
async fn orphans_that_end_early_leave_no_zombie() {
    let mut bench = Bench::new().await;
    bench.start(sh("for i in $(seq 20); do (setsid true &) ; done; sleep 0.2; echo up; sleep 1000"));
    bench.said("up").await;
    let own = rustix::process::getpid().as_raw_pid().to_string();
    let zombies = || {
        let stats =
            fs::read_dir("/proc").unwrap().filter_map(|entry| fs::read_to_string(entry.ok()?.path().join("stat")).ok());
        stats.filter(|stat| stat.contains(&format!(") Z {own} "))).count()
    };
    until(|| zombies() == 0).await;
    bench.exec.kill_all();
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_crashed_agent_left_is_swept() {
    let bench = Bench::new().await;
    let config = config(bench.dir.path(), None);
    let workspace = config.work_dir.canonicalize().unwrap().join(run_name(1).to_string()).join("workspace/default");
    fs::create_dir_all(&workspace).unwrap();
    // As the crashed one had started it, but the child of this test.
    let mut stale = std::process::Command::new("sleep").arg("1000").env("XENE_WORKSPACE", &workspace).spawn().unwrap();
    let elsewhere = bench.dir.path().join("work-of-another");
    let mut other = std::process::Command::new("sleep").arg("1000").env("XENE_WORKSPACE", elsewhere).spawn().unwrap();
    assert_eq!(sweep_stale(&config, |_| false).unwrap(), ["sleep"]);
    assert!(!stale.wait().unwrap().success() && !workspace.exists());
    assert!(other.try_wait().unwrap().is_none());
    other.kill().unwrap();
    other.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_step_that_goes_on_is_swept() {
    let mut bench = Bench::new().await;
    let config = config(bench.dir.path(), None);
    let work_dir = config.work_dir.canonicalize().unwrap();
    // It starts others all the time, and would tell if one of them was killed. They, and itself, have a shim's command line
    // for a moment, as each step has between its fork and its exec.
    let go = bench.dir.path().join("go");
    let script = format!("echo up; until [ -e {} ]; do sleep 0.001 || exit 9; done; exit 7", go.display());
    bench.start(argv(&["sh", "-c", &script, shim::MARK, work_dir.to_str().unwrap()]));
    bench.said("up").await;
    let swept: Vec<_> = (0..30).map(|_| sweep_stale(&config, |_| true)).collect();
    fs::write(&go, "").unwrap();
    assert_eq!(bench.end().await.status, ExitStatus::Code(7));
    assert!(swept.iter().all(Result::is_ok));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_costs_little_more_than_its_process() {
    let mut bench = Bench::new().await;
    let script = bench.dir.path().join("script");
    fs::write(&script, ":").unwrap();
    let (mut bare, mut step) = (Duration::MAX, Duration::MAX);
    for at in 0..100 {
        let begun = crate::clock::now().boot;
        std::process::Command::new("/bin/sh").arg("-e").arg(&script).output().unwrap();
        bare = bare.min(crate::clock::now().boot.since(begun));
        let begun = crate::clock::now().boot;
        let shell = vec!["sh".to_owned(), "-e".to_owned()];
        assert_eq!(bench.run(command(at, Program::Script { shell, script: ":".into() })).await, success());
        step = step.min(crate::clock::now().boot.since(begun));
    }
    eprintln!("bare {bare:?}, as a step {step:?}");
    // On a quiet machine it is less than one more.
    assert!(step < bare + Duration::from_millis(10), "bare {bare:?}, as a step {step:?}");
}
