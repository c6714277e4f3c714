use std::{fs, os::unix::net::UnixStream, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::sync::mpsc::{Receiver, channel};
use xene_schemas::{
    meta::RunName,
    wire::logs::{RecordKind, split_record},
};

use super::*;
use crate::{
    content::ContentStore,
    decide::event::{ExitStatus, Program, Signal as Sent, StepCommand},
    exec::{Exec, ExecConfig, ExecEvent, Held, processes, sweep_stale},
    logs::{Limits, Logs, RunLog},
};

/// Not a test: what `parent.rs` runs this program for.
#[test]
fn parent_of_shims() {
    let is_asked = std::env::args().any(|word| word == "--exact");
    if is_asked && rustix::net::sockopt::socket_type(io::stdin()).is_ok() {
        parent::serve().unwrap();
    }
}

/// An agent's folder, and the executor of one process of the agent after the other.
struct Host {
    dir: tempfile::TempDir,
}

/// What one process of the agent has of steps.
struct Agent {
    exec: Exec,
    events: Receiver<ExecEvent>,
    log: Arc<RunLog>,
}

const DEADLINE: Duration = Duration::from_secs(30);

fn run() -> RunName {
    RunName::new(Timestamp::UNIX_EPOCH, 1)
}

fn step(number: usize, script: &str) -> StepCommand {
    let shell = vec!["sh".to_owned(), "-e".to_owned()];
    StepCommand {
        id: StepId { run: run(), task: "t".into(), attempt: 1, step: number, step_attempt: 1 },
        pipeline: "w/p".parse().unwrap(),
        step_name: format!("step-{number}"),
        program: Program::Script { shell, script: script.to_owned() },
        env: Vec::new(),
        context: "default".into(),
        working_dir: None,
        payload: None,
        files: [].into(),
        artifacts: Vec::new(),
        exclusive: false,
    }
}

impl Host {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn config(&self, outlives: bool) -> ExecConfig {
        let dir = self.dir.path().canonicalize().unwrap();
        let files = ContentStore::open(&dir.join("files")).unwrap();
        let (work_dir, cache_dir, bounds) = (dir.join("work"), dir.join("cache"), Some(dir.join("bounds")));
        ExecConfig { work_dir, cache_dir, files, cgroup: None, outlives, bounds }
    }

    fn agent(&self, outlives: bool) -> Agent {
        self.agent_of(self.config(outlives))
    }

    fn agent_of(&self, config: ExecConfig) -> Agent {
        let (sender, events) = channel(16);
        let exec = Exec::new(config, sender).unwrap();
        let log = Logs::open(&self.dir.path().join("logs"), Limits::default()).unwrap().create(run());
        Agent { exec, events, log }
    }

    /// What is left of an agent that has started a step and was killed at once: the way to its shim.
    fn begin(&self, number: usize, script: &str, outlives: bool) -> Result<UnixStream, Refused> {
        let work = self.config(outlives).work_dir;
        let (folder, dir) = (self.state().with_file_name(""), self.dir.path().to_owned());
        fs::create_dir_all(&folder).unwrap();
        let output = folder.join("t.output");
        let order = Order {
            file: self.state(),
            kept: Kept::new(step(number, "").id, 1, output.clone(), None),
            program: "/bin/sh".into(),
            name: "sh".into(),
            arguments: ["-ec", script].map(Into::into).into(),
            variables: vec![
                ("PATH".into(), "/usr/bin:/bin".into()),
                ("XENE_OUTPUT".into(), output.into()),
                ("XENE_WORKSPACE".into(), folder.join("workspace/default").into()),
            ],
            dir,
            outlives,
            until: None,
        };
        order.send(Parent::new(&work).fork().unwrap().0)
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("work").join(run().to_string()).join("t.step")
    }

    fn alive(&self, number: usize) -> Shim {
        match find(&self.state(), &step(number, "").id).unwrap() {
            Found::Alive(shim) => *shim,
            other => panic!("{other:?}"),
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Whatever a test that failed has left.
        let _ = sweep_stale(&self.config(true), |_| false);
    }
}

impl Agent {
    fn start(&self, step: StepCommand) {
        self.exec.spawn(step, self.log.clone());
    }

    async fn end(&mut self) -> (ExitStatus, Option<Held>) {
        let event = tokio::time::timeout(DEADLINE, self.events.recv()).await.expect("the step ends").unwrap();
        (event.exit.status, event.held)
    }

    fn output(&self) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(self.log.len()).unwrap()];
        assert_eq!(self.log.read_at(0, &mut bytes).unwrap(), bytes.len());
        let (mut rest, mut output) = (&bytes[..], Vec::new());
        while let Some((record, used)) = split_record(rest).unwrap() {
            if record.kind == Some(RecordKind::Stdout) {
                output.extend_from_slice(record.data);
            }
            rest = &rest[used..];
        }
        output
    }

    async fn says(&self, text: &str) {
        within(|| String::from_utf8_lossy(&self.output()).contains(text)).await;
    }
}

async fn within(condition: impl Fn() -> bool) {
    let begun = crate::clock::now().boot;
    while !condition() {
        assert!(crate::clock::now().boot.since(begun) < DEADLINE, "it comes true");
        tokio::task::yield_now().await;
    }
}

/// The numbers of processes that live and whose `XENE_OUTPUT` is below a folder.
fn left_below(folder: &Path) -> Vec<i32> {
    let folder = folder.as_os_str().as_encoded_bytes();
    processes::with_variable("XENE_OUTPUT", |value| value.starts_with(folder)).iter().map(|p| p.pid).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_inherits_nothing_but_three_descriptors() {
    let host = Host::new();
    let mut agent = host.agent(true);
    // One of them is the folder that is listed.
    agent.start(step(0, "exec ls /proc/self/fd"));
    let (status, held) = agent.end().await;
    held.unwrap().release();
    assert_eq!(status, ExitStatus::Code(0));
    assert_eq!(String::from_utf8(agent.output()).unwrap(), "0\n1\n2\n3\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_goes_on_without_an_agent_and_nothing_of_it_is_lost() {
    let host = Host::new();
    let go = host.dir.path().join("go");
    let script = format!(
        "printf 'before\\000\\377'; until test -e {}; do sleep 0.01; done; seq 30000; echo v=1 > $XENE_OUTPUT; exit 7",
        go.display()
    );
    host.begin(0, &script, true).unwrap();
    fs::write(&go, "").unwrap();
    let mut agent = host.agent(true);
    agent.start(step(0, "this is not started"));
    let (status, held) = agent.end().await;
    assert_eq!(status, ExitStatus::Code(7));
    let mut expected = b"before\0\xff".to_vec();
    expected.extend((1..=30_000).flat_map(|n| format!("{n}\n").into_bytes()));
    assert!(agent.output() == expected, "{} of {} bytes", agent.output().len(), expected.len());
    // Not released, the step ends so for the next agent too.
    drop((held, agent));
    let mut agent = host.agent(true);
    agent.start(step(0, "nor is this"));
    let (status, held) = agent.end().await;
    assert_eq!(status, ExitStatus::Code(7));
    held.unwrap().release();
    within(|| matches!(find(&host.state(), &step(0, "").id), Ok(Found::Lost(_)))).await;
    agent.start(step(0, "nor is this"));
    assert_eq!(agent.end().await.0, ExitStatus::Lost);
    agent.start(step(1, "exit 3"));
    let (status, held) = agent.end().await;
    assert_eq!(status, ExitStatus::Code(3));
    held.unwrap().release();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_is_started_once() {
    let host = Host::new();
    host.begin(5, "sleep 1000", true).unwrap();
    let refused = host.begin(5, "sleep 1000", true).unwrap_err();
    assert_eq!(refused, Refused("it was started before".into()));
    host.alive(5).release();
    within(|| matches!(find(&host.state(), &step(5, "").id), Ok(Found::Lost(_)))).await;
    for (number, is_later) in [(4, false), (5, false), (6, true)] {
        let begun = host.begin(number, "true", true);
        assert_eq!(begun.is_ok(), is_later, "{number}: {begun:?}");
    }
    // As a version that nobody knows yet would have it.
    host.alive(6).release();
    fs::write(host.state(), [2; 100]).unwrap();
    assert!(matches!(find(&host.state(), &step(7, "").id), Ok(Found::Lost(_))));
    assert_eq!(host.begin(7, "true", true).unwrap_err(), refused);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_reaches_a_step_that_an_earlier_agent_has_started() {
    let host = Host::new();
    host.begin(0, "trap 'echo told; exit 3' TERM; echo up; while :; do sleep 0.01; done", true).unwrap();
    let mut agent = host.agent(true);
    agent.start(step(0, ""));
    agent.says("up").await;
    agent.exec.signal(&step(0, "").id, Sent::Terminate);
    let (status, held) = agent.end().await;
    held.unwrap().release();
    assert_eq!((status, agent.output()), (ExitStatus::Code(3), b"up\ntold\n".to_vec()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_ends_with_its_shim() {
    let host = Host::new();
    let mut agent = host.agent(true);
    agent.start(step(0, "(setsid sleep 1000 &); echo up; sleep 1000"));
    agent.says("up").await;
    within(|| left_below(host.dir.path()).len() >= 3).await;
    host.alive(0).release();
    let (status, held) = agent.end().await;
    held.unwrap().release();
    assert_eq!(status, ExitStatus::Signal(9));
    assert_eq!(left_below(host.dir.path()), [0; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shim_whose_file_is_removed_goes_once_its_step_has_ended() {
    let host = Host::new();
    let end = host.dir.path().join("end");
    let later = host.dir.path().join("later");
    // Many times as long as it waits between two looks.
    let script = format!("sleep 0.5; touch {}; while [ ! -e {} ]; do sleep 0.01; done", later.display(), end.display());
    let _way = host.begin(0, &script, true).unwrap();
    let shim = host.alive(0);
    fs::remove_file(host.state()).unwrap();
    within(|| later.exists()).await;
    assert!(!shim.is_gone(), "its step runs");
    fs::write(end, "").unwrap();
    within(|| shim.is_gone()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_does_not_outlive_whoever_asked_for_it_ends_then() {
    let host = Host::new();
    let way = host.begin(0, "(setsid sleep 1000 &); sleep 1000", false).unwrap();
    within(|| left_below(host.dir.path()).len() >= 3).await;
    drop(way);
    within(|| left_below(host.dir.path()).is_empty()).await;
    within(|| matches!(find(&host.state(), &step(0, "").id), Ok(Found::Lost(_)))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_goes_on_is_spared() {
    let host = Host::new();
    host.begin(0, "(env -i setsid sleep 1000 &); sleep 1000", true).unwrap();
    within(|| processes::below(host.alive(0).pid, &[]).len() == 3).await;
    assert_eq!(sweep_stale(&host.config(true), |name| name == run()).unwrap(), [""; 0]);
    let shim = host.alive(0);
    assert_eq!(processes::below(shim.pid, &[]).len(), 3);
    let mut swept = sweep_stale(&host.config(true), |_| false).unwrap();
    swept.sort();
    assert_eq!(swept, ["sh", "sleep", "sleep"]);
    assert!(shim.is_gone() && processes::below(shim.pid, &[]).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parent_of_shims_that_was_killed_is_started_again() {
    let host = Host::new();
    let mut agent = host.agent(true);
    let work = host.config(true).work_dir;
    let parents = || processes::with_command_line(|line| is_of(&work, line));
    assert!(parents().is_empty(), "it is started for the first step");
    for n in [0, 1] {
        agent.start(step(n, "exit 4"));
        let (status, held) = agent.end().await;
        held.unwrap().release();
        assert_eq!(status, ExitStatus::Code(4));
        within(|| parents().len() == 1).await;
        processes::kill_each(&parents(), DEADLINE);
    }
}

#[test]
fn a_parent_of_shims_ends_once_it_was_not_used_for_a_while() {
    let work = tempfile::tempdir().unwrap();
    let parents = || processes::with_command_line(|line| is_of(work.path(), line)).len();
    let parent = Parent::new(work.path());
    assert!(parent.rest(), "there was none yet");
    for _ in 0..2 {
        assert!(parent.fork().unwrap().1);
        assert!(!parent.rest(), "it was just used");
        assert!(!parent.fork().unwrap().1);
        assert!(!parent.rest());
        assert_eq!(parents(), 1);
        assert!(parent.rest());
        assert_eq!(parents(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shim_that_was_not_let_go_before_a_crash_holds_up_nothing() {
    let host = Host::new();
    let _way = host.begin(0, "true", true).unwrap();
    let mut agent = host.agent(true);
    agent.start(step(1, "exit 3"));
    let (status, held) = agent.end().await;
    held.unwrap().release();
    assert_eq!(status, ExitStatus::Code(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_is_bound_ends_by_itself_unless_that_is_put_off() {
    use crate::{bounds::BoundFiles, clock};
    let host = Host::new();
    let (bounds, _) = BoundFiles::open(&host.dir.path().join("bounds")).unwrap();
    let bound = |script| StepCommand { exclusive: true, ..step(0, script) };
    let mut agent = host.agent(true);
    agent.start(bound("true"));
    let ExitStatus::StartFailed(why) = agent.end().await.0 else { panic!("nobody said for how long") };
    assert!(why.contains("until when it may live"), "{why}");
    let begun = clock::now().boot;
    bounds.bound(run(), begun + Duration::from_millis(300));
    // Also what left its process group, and ignores what can be ignored.
    agent.start(bound("trap '' TERM; (setsid sleep 1000 &); echo up; sleep 1000"));
    agent.says("up").await;
    bounds.bound(run(), begun + Duration::from_millis(900));
    // Nobody is there to kill it.
    drop(agent);
    within(|| left_below(host.dir.path()).is_empty()).await;
    let lived = clock::now().boot.since(begun);
    assert!(lived >= Duration::from_millis(850), "{lived:?}");
    // Its end is known to who comes back.
    let mut agent = host.agent(true);
    agent.start(bound("this is not started"));
    let (status, held) = agent.end().await;
    held.unwrap().release();
    assert_eq!(status, ExitStatus::Signal(9));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bound_that_comes_nearer_is_noticed_by_the_shim_alone() {
    use crate::{bounds::BoundFiles, clock};
    let host = Host::new();
    let (bounds, _) = BoundFiles::open(&host.dir.path().join("bounds")).unwrap();
    bounds.bound(run(), clock::now().boot + Duration::from_secs(3600));
    let agent = host.agent(true);
    agent.start(StepCommand { exclusive: true, ..step(0, "echo up; sleep 1000") });
    agent.says("up").await;
    drop(agent);
    bounds.bound(run(), clock::now().boot + Duration::from_millis(100));
    within(|| left_below(host.dir.path()).is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_is_bound_runs_below_a_folder_that_is_relative() {
    use crate::{bounds::BoundFiles, clock};
    let host = Host::new();
    let up: PathBuf = std::env::current_dir().unwrap().components().skip(1).map(|_| "..").collect();
    let below = |folder: &str| up.join(host.dir.path().strip_prefix("/").unwrap()).join(folder);
    let (bounds, _) = BoundFiles::open(&below("bounds")).unwrap();
    bounds.bound(run(), clock::now().boot + Duration::from_secs(3600));
    let config = host.config(true);
    let config =
        ExecConfig { work_dir: below("work"), cache_dir: below("cache"), bounds: Some(below("bounds")), ..config };
    let mut agent = host.agent_of(config);
    agent.start(StepCommand { exclusive: true, ..step(0, "exit 3") });
    let (status, held) = agent.end().await;
    assert_eq!(status, ExitStatus::Code(3));
    held.unwrap().release();
}
