//! One step, from its folders to the end of its last process. Blocks: each step has a thread of its own meanwhile, so
//! a slow disk holds up neither the session nor other steps.

use std::{
    fs::File,
    io::{self, Read as _},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{
            ffi::OsStrExt as _,
            process::{CommandExt as _, ExitStatusExt as _},
        },
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    process::{Pid, PidfdFlags, kill_process_group, pidfd_open},
};
use xene_schemas::wire::logs::{RecordKind, StepHead};

use super::{
    Shared,
    cgroup::StepGroup,
    environment,
    folders::{self, Needs, StepFolders},
    lay, outputs,
    processes::{self, Tree, kill_each, signal_each, timespec},
    save,
};
use crate::{
    clock,
    decide::{
        event::{ExitStatus, Program, Signal, StepCommand, StepExit},
        time::BootTime,
    },
    logs::RunLog,
};

/// How long pipes may stay open after the leader's end, for a descendant that still has something to say.
const PIPE_GRACE: Duration = Duration::from_millis(100);
/// How long killed processes may take to go. One that hangs in the kernel is left, and logged.
const KILL_LIMIT: Duration = Duration::from_secs(5);
/// What one read takes at most: all that a pipe holds by default.
const CHUNK: usize = 64 << 10;

/// A step as others see it while it runs.
#[derive(Debug)]
pub(super) struct Running {
    state: Mutex<State>,
    log: Arc<RunLog>,
}

#[derive(Debug)]
enum State {
    /// Not started; then this signal is taken as its end.
    Waiting(Option<Signal>),
    /// Its processes can be signalled. `Some` if they were.
    Started(Arc<Live>, Option<Signal>),
    /// The leader's number means nothing any more.
    Over,
}

/// The processes of a started step.
#[derive(Debug)]
struct Live {
    tree: Tree,
    group: Option<StepGroup>,
}

impl Live {
    fn members(&self) -> Vec<processes::Process> {
        self.tree.members(&self.group.as_ref().map(StepGroup::pids).unwrap_or_default())
    }

    /// Kills all there are, and waits until they have ended. One round: what they have started meanwhile is left.
    fn kill(&self, members: &[processes::Process]) {
        if let Some(group) = &self.group {
            group.kill();
        }
        if let Some(leader) = Pid::from_raw(self.tree.leader) {
            let _ = kill_process_group(leader, rustix::process::Signal::KILL);
        }
        kill_each(members, KILL_LIMIT);
    }

    /// Kills rounds on rounds until nothing is left; gives the names of what there was.
    fn sweep(&self) -> Vec<String> {
        let (begun, mut names) = (clock::now().boot, Vec::new());
        let mut seen = std::collections::BTreeSet::new();
        loop {
            let members = self.members();
            if members.is_empty() {
                return names;
            }
            names.extend(members.iter().filter(|p| seen.insert(p.pid)).map(|p| p.name.clone()));
            if clock::now().boot.since(begun) > KILL_LIMIT {
                tracing::error!(?names, "processes of a step can't be killed");
                return names;
            }
            self.kill(&members);
        }
    }
}

impl Running {
    pub(super) fn new(log: Arc<RunLog>) -> Self {
        Self { state: Mutex::new(State::Waiting(None)), log }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Signals all processes of the step. Takes a look at all processes of the host: call it where blocking is allowed.
    pub(super) fn signal(&self, signal: Signal) {
        let begun = clock::now().boot;
        loop {
            // Locked, so that the leader is not reaped and its number given to another meanwhile.
            let mut state = self.lock();
            let live = match &mut *state {
                State::Waiting(given) => {
                    *given = Some(signal);
                    return;
                }
                State::Started(live, given) => {
                    *given = Some(signal);
                    live.clone()
                }
                State::Over => return,
            };
            let members = live.members();
            match signal {
                Signal::Terminate => signal_each(&members, rustix::process::Signal::TERM),
                Signal::Kill => live.kill(&members),
            }
            drop(state);
            // Nobody waits for its output any more.
            self.log.wake();
            if signal == Signal::Terminate || members.is_empty() || clock::now().boot.since(begun) > KILL_LIMIT {
                return;
            }
        }
    }

    /// True if it was told to end before a process of it started.
    pub(super) fn is_signalled(&self) -> bool {
        matches!(&*self.lock(), State::Waiting(Some(_)))
    }

    /// A sentence of xene's own in the run's log.
    pub(super) fn note(&self, text: &str) {
        self.log.note(text);
    }

    fn signalled(&self) -> Option<Signal> {
        match &*self.lock() {
            State::Started(_, signal) => *signal,
            _ => None,
        }
    }
}

/// Runs a step to the end of its last process.
pub(super) fn run(shared: &Shared, command: &StepCommand, running: &Running) -> StepExit {
    let id = &command.id;
    let nothing = |status| StepExit { status, outputs: Ok(Vec::new()), leftovers: Vec::new() };
    if let Program::Save(patterns) = &command.program {
        return nothing(save::run(&shared.config, command, patterns, running));
    }
    let head = StepHead { task: id.task.clone(), step: command.step_name.clone(), attempt: id.attempt };
    let number = running.log.step(&head);
    let mut process = match start(shared, command, running) {
        Ok(Start::Started(process)) => process,
        Ok(Start::Signalled(signal)) => return nothing(ExitStatus::Signal(number_of(signal))),
        Err(sentence) => return nothing(ExitStatus::StartFailed(sentence)),
    };
    let mut pump = Pump::new(&mut process.child, running, number);
    pump.until_ended(&process.ended);
    pump.until_obeyed(&process.live);
    // Not reaped yet, the leader's number still means its process group. What it left has been adopted by now.
    let leftovers = if processes::adopted().is_empty() { Vec::new() } else { process.live.sweep() };
    pump.drain();
    *running.lock() = State::Over;
    let status = match processes::reap_leader(&mut process.child) {
        Ok(status) => status.code().map(ExitStatus::Code).or_else(|| status.signal().map(ExitStatus::Signal)),
        Err(error) => {
            tracing::error!(%error, run = %id.run, "can't wait for a step's process");
            None
        }
    };
    StepExit {
        status: status.unwrap_or_else(|| ExitStatus::StartFailed("its end could not be observed".to_owned())),
        outputs: outputs::read(&process.output),
        leftovers,
    }
}

fn number_of(signal: Signal) -> i32 {
    match signal {
        Signal::Terminate => rustix::process::Signal::TERM.as_raw(),
        Signal::Kill => rustix::process::Signal::KILL.as_raw(),
    }
}

/// A step that was asked for.
enum Start {
    Started(Box<Process>),
    /// A signal came first.
    Signalled(Signal),
}

/// A process that runs.
struct Process {
    child: Child,
    /// Readable once the leader has ended.
    ended: OwnedFd,
    live: Arc<Live>,
    output: PathBuf,
}

/// Starts the step, or says in a sentence why it can't.
fn start(shared: &Shared, command: &StepCommand, running: &Running) -> Result<Start, String> {
    let script = match &command.program {
        Program::Script { script, .. } => Some(script.as_str()),
        Program::Argv(_) | Program::Save(_) => None,
    };
    let needs = Needs {
        run: command.id.run,
        task: &command.id.task,
        context: &command.context,
        pipeline: &command.pipeline,
        script,
        payload: command.payload.as_deref(),
    };
    let config = &shared.config;
    lay::workspace(config, command)?;
    lay::artifacts(config, command)?;
    let folders = StepFolders::make(&config.work_dir, &config.cache_dir, &needs)
        .map_err(|error| format!("can't make the step's folders: {error}"))?;
    let dir = working_dir(command.working_dir.as_deref(), &folders.workspace)?;
    let variables = environment::variables(command, &shared.account, &folders);
    let (words, script) = match &command.program {
        Program::Script { shell, .. } => (shell, Some(&folders.script)),
        Program::Argv(words) => (words, None),
        Program::Save(_) => return Err("it is no process".to_owned()),
    };
    let Some((name, arguments)) = words.split_first() else { return Err("the step has no program".to_owned()) };
    let mut process = Command::new(environment::program(name, &variables, &dir)?);
    process.arg0(name).args(arguments).args(script).env_clear().envs(variables).current_dir(dir).process_group(0);
    process.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let group = config.cgroup.as_deref().and_then(|parent| {
        StepGroup::new(parent, &format!("{}-{}", command.id.run, folders.number))
            .inspect_err(|error| tracing::warn!(%error, "can't make a step's cgroup"))
            .ok()
    });

    let mut state = running.lock();
    if let State::Waiting(Some(signal)) = *state {
        return Ok(Start::Signalled(signal));
    }
    let mut child = processes::spawn_leader(&mut process).map_err(|error| format!("can't run {name}: {error}"))?;
    let ended = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).map_err(|error| {
        let _ = child.kill();
        let _ = processes::reap_leader(&mut child);
        format!("can't watch {name}: {error}")
    })?;
    let leader = processes::pid_of(&child);
    if let Some(group) = &group
        && let Err(error) = group.add(leader)
    {
        tracing::warn!(%error, "can't move a step into its cgroup");
    }
    let output = folders.output.as_os_str().as_bytes().to_vec();
    let live = Arc::new(Live { tree: Tree { leader, output }, group });
    *state = State::Started(live.clone(), None);
    Ok(Start::Started(Box::new(Process { child, ended, live, output: folders.output })))
}

fn working_dir(wanted: Option<&str>, workspace: &Path) -> Result<PathBuf, String> {
    let Some(wanted) = wanted else { return Ok(workspace.to_owned()) };
    let dir = workspace.join(wanted);
    if Path::new(wanted).is_relative() {
        folders::make_folder(&dir).map_err(|error| format!("can't make the working directory {wanted}: {error}"))?;
    } else if !dir.is_dir() {
        return Err(format!("the working directory {wanted} is not a folder of this host"));
    }
    Ok(dir)
}

/// What carries a step's output from its pipes into the run's log.
struct Pump<'a> {
    /// Those that are open.
    pipes: Vec<(File, RecordKind)>,
    buffer: Vec<u8>,
    running: &'a Running,
    step: u16,
}

impl<'a> Pump<'a> {
    fn new(child: &mut Child, running: &'a Running, step: u16) -> Self {
        let stdout = child.stdout.take().map(|pipe| (OwnedFd::from(pipe).into(), RecordKind::Stdout));
        let stderr = child.stderr.take().map(|pipe| (OwnedFd::from(pipe).into(), RecordKind::Stderr));
        Self { pipes: stdout.into_iter().chain(stderr).collect(), buffer: vec![0; CHUNK], running, step }
    }

    /// Carries until the leader has ended and no pipe is open, or [`PIPE_GRACE`] has passed since its end.
    fn until_ended(&mut self, leader: &OwnedFd) {
        let mut ended_at: Option<BootTime> = None;
        loop {
            let wait = match ended_at {
                Some(_) if self.pipes.is_empty() => return,
                Some(at) => Some(PIPE_GRACE.saturating_sub(clock::now().boot.since(at))),
                None => None,
            };
            let watched = ended_at.is_none().then_some(leader);
            let ended = self.once(watched.as_slice(), wait);
            match ended {
                Polled::Ended => ended_at = Some(clock::now().boot),
                Polled::Nothing if ended_at.is_some() => return,
                Polled::Nothing | Polled::Output => {}
            }
        }
    }

    /// After SIGTERM, carries on until all others have followed the leader, or SIGKILL has come.
    fn until_obeyed(&mut self, live: &Live) {
        while self.running.signalled() == Some(Signal::Terminate) && !processes::adopted().is_empty() {
            let members: Vec<_> = live.members().iter().filter_map(processes::Process::pin).collect();
            if members.is_empty() {
                return;
            }
            // Their end, by themselves or by SIGKILL, ends the wait; the limit is for one that hangs in the kernel.
            self.once(&members.iter().collect::<Vec<_>>(), Some(KILL_LIMIT));
        }
    }

    /// Carries what is there, then lets go of the pipes. For when nobody of the step is left to write.
    fn drain(&mut self) {
        while !self.pipes.is_empty() && self.once(&[], Some(Duration::ZERO)) == Polled::Output {}
        self.pipes.clear();
    }

    /// Waits for output or the end of one of `processes`, and carries the output.
    fn once(&mut self, processes: &[&OwnedFd], wait: Option<Duration>) -> Polled {
        let wait = wait.map(timespec);
        let watched = self.pipes.iter().map(|(pipe, _)| pipe.as_fd()).chain(processes.iter().map(AsFd::as_fd));
        let mut watched: Vec<_> = watched.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        match poll(&mut watched, wait.as_ref()) {
            Ok(0) => return Polled::Nothing,
            Ok(_) => {}
            // Only a signal to this thread, which changes nothing.
            Err(_) => return Polled::Output,
        }
        let ready: Vec<bool> = watched.iter().map(|fd| !fd.revents().is_empty()).collect();
        let (ready, ended) = ready.split_at(self.pipes.len());
        // Backwards, so that closed ones can be taken out.
        for at in (0..self.pipes.len()).rev().filter(|at| ready[*at]) {
            let (pipe, kind) = &mut self.pipes[at];
            match pipe.read(&mut self.buffer) {
                Ok(0) => drop(self.pipes.remove(at)),
                Ok(n) => {
                    self.running.log.append(*kind, self.step, &self.buffer[..n]);
                    self.running.log.wait_ready(|| self.running.signalled().is_some());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => drop(self.pipes.remove(at)),
            }
        }
        if ended.contains(&true) { Polled::Ended } else { Polled::Output }
    }
}

/// What a wait of the pump gave.
#[derive(Debug, PartialEq, Eq)]
enum Polled {
    Nothing,
    Output,
    Ended,
}
