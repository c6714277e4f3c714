//! One step, from its folders to the end of its last process. Blocks: each step has a thread of its own meanwhile, so
//! a slow disk holds up neither the session nor other steps.

use std::{
    io::{self, Read as _},
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    process::{Pid, kill_process_group},
};
use xene_schemas::wire::logs::{RecordKind, StepHead};

use super::{
    Shared,
    cgroup::StepGroup,
    environment,
    folders::{self, Needs, StepFolders, state_of},
    lay, outputs,
    processes::{self, KILL_LIMIT, kill_each, signal_each, timespec},
    save,
    shim::{self, Ended, Found, Kept, Order, Refused, Shim},
};
use crate::{
    clock,
    decide::event::{ExitStatus, Program, Signal, StepCommand, StepExit},
    logs::RunLog,
};

/// How long after the leader's end its descendants may go on, for one that still has something to say.
const GRACE: Duration = Duration::from_millis(100);
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
    /// Nothing of it lives.
    Over,
}

/// A started step.
#[derive(Debug)]
pub(super) struct Live {
    shim: Shim,
    group: Option<StepGroup>,
    /// What a step that does not outlive this process is held by.
    _way: Option<std::os::unix::net::UnixStream>,
}

impl Live {
    /// True if anything but the leader lives.
    fn has_others(&self) -> bool {
        if self.shim.is_gone() {
            !self.members().is_empty()
        } else {
            processes::lives_below(self.shim.pid, self.shim.leader)
        }
    }

    /// All its processes that live. Without a shim they are those that carry its `XENE_OUTPUT`, which no other step that
    /// runs has.
    fn members(&self) -> Vec<processes::Process> {
        let grouped = self.group.as_ref().map(StepGroup::pids).unwrap_or_default();
        if self.shim.is_gone() {
            let output = self.shim.kept.output.as_os_str().as_encoded_bytes();
            return processes::with_variable("XENE_OUTPUT", |value| value == output);
        }
        processes::below(self.shim.pid, &grouped)
    }

    /// Kills all there are, and waits until they have ended. One round: what they have started meanwhile is left.
    fn kill(&self, members: &[processes::Process]) {
        if let Some(group) = &self.group {
            group.kill();
        }
        // The shim keeps the leader's number from being given to another.
        if let Some(leader) = Pid::from_raw(self.shim.leader).filter(|_| !self.shim.is_gone()) {
            let _ = kill_process_group(leader, rustix::process::Signal::KILL);
        }
        kill_each(members, KILL_LIMIT);
    }

    /// Kills whatever there is until nothing is left; gives the names of what there was.
    fn sweep(&self) -> Vec<String> {
        processes::end_all(|| self.members(), |members| self.kill(members))
    }

    /// Lets go of the shim of a step that has ended.
    pub(super) fn release(&self) {
        self.shim.release();
    }

    /// How the leader ended. One whose shim was killed is taken for killed with it.
    fn ended(&self, running: &Running, name: &str) -> ExitStatus {
        match self.shim.ended() {
            Some(Ended::Code(code)) => ExitStatus::Code(code),
            Some(Ended::Signal(signal)) => ExitStatus::Signal(signal),
            None => {
                running
                    .note(&format!("the process that xene keeps above step {name} was killed, and the step with it"));
                ExitStatus::Signal(rustix::process::Signal::KILL.as_raw())
            }
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
            let live = match &mut *self.lock() {
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

    /// Takes what was started, or found; a signal that came before is not forgotten.
    fn started(&self, live: Arc<Live>) {
        let mut state = self.lock();
        let State::Waiting(given) = *state else { return };
        *state = State::Started(live, None);
        drop(state);
        if let Some(signal) = given {
            self.signal(signal);
        }
    }
}

/// Runs a step to the end of its last process, or goes on with one that an earlier process of the agent has started. As
/// long as the answer's second part is kept, the next one can do the same.
pub(super) fn run(shared: &Arc<Shared>, command: &StepCommand, running: &Running) -> (StepExit, Option<Arc<Live>>) {
    let nothing = |status| (StepExit { status, outputs: Ok(Vec::new()), leftovers: Vec::new() }, None);
    if let Program::Save(patterns) = &command.program {
        return nothing(save::run(&shared.config, command, patterns, running));
    }
    let live = match started(shared, command, running) {
        Ok(Start::Started(live)) => live,
        Ok(Start::Signalled(signal)) => return nothing(ExitStatus::Signal(number_of(signal))),
        Ok(Start::Lost) => return nothing(ExitStatus::Lost),
        Err(sentence) => return nothing(ExitStatus::StartFailed(sentence)),
    };
    running.started(live.clone());
    let mut pump = Pump::new(&live, running);
    pump.until_ended();
    pump.until_obeyed();
    let leftovers = if live.has_others() { live.sweep() } else { Vec::new() };
    pump.drain();
    *running.lock() = State::Over;
    let (status, outputs) = (live.ended(running, &command.step_name), outputs::read(&live.shim.kept.output));
    (StepExit { status, outputs, leftovers }, Some(live))
}

fn number_of(signal: Signal) -> i32 {
    match signal {
        Signal::Terminate => rustix::process::Signal::TERM.as_raw(),
        Signal::Kill => rustix::process::Signal::KILL.as_raw(),
    }
}

/// A step that was asked for.
enum Start {
    Started(Arc<Live>),
    /// A signal came first.
    Signalled(Signal),
    /// An earlier process of the agent has started it, and nobody knows what became of it.
    Lost,
}

/// Starts the step, or finds it running; or says in a sentence why it can't.
fn started(shared: &Arc<Shared>, command: &StepCommand, running: &Running) -> Result<Start, String> {
    let state = state_of(&shared.config.work_dir, command.id.run, &command.id.task);
    let unknown = |error: io::Error| format!("can't tell whether it has been started: {error}");
    match shim::find(&state, &command.id).map_err(unknown)? {
        Found::Nothing => start(shared, command, running, &state),
        Found::Lost(cgroup) => {
            if let Some(group) = cgroup.map(StepGroup::at) {
                group.kill();
            }
            let output = state.with_extension("output");
            let output = output.as_os_str().as_encoded_bytes();
            let left = || processes::with_variable("XENE_OUTPUT", |value| value == output);
            processes::end_all(left, |found| kill_each(found, KILL_LIMIT));
            Ok(Start::Lost)
        }
        Found::Alive(shim) => {
            tracing::info!(run = %command.id.run, step = command.step_name, "goes on with a step that was running");
            let group = shim.kept.cgroup.clone().map(StepGroup::at);
            Ok(Start::Started(Arc::new(Live { shim: *shim, group, _way: None })))
        }
    }
}

fn start(shared: &Arc<Shared>, command: &StepCommand, running: &Running, state: &Path) -> Result<Start, String> {
    let head = StepHead { task: command.id.task.clone(), step: command.step_name.clone(), attempt: command.id.attempt };
    let number = running.log.step(&head);
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
        Program::Script { shell, .. } => (shell, Some(folders.script.into_os_string())),
        Program::Argv(words) => (words, None),
        Program::Save(_) => return Err("it is no process".to_owned()),
    };
    let Some((name, arguments)) = words.split_first() else { return Err("the step has no program".to_owned()) };
    let program = environment::program(name, &variables, &dir)?;
    let group = config.cgroup.as_deref().and_then(|parent| {
        StepGroup::new(parent, &format!("{}-{}", command.id.run, folders.number))
            .inspect_err(|error| tracing::warn!(%error, "can't make a step's cgroup"))
            .ok()
    });
    let cgroup = group.as_ref().map(|group| group.path().to_owned());
    let order = Order {
        file: state.to_owned(),
        kept: Kept::new(command.id.clone(), number, folders.output, cgroup),
        program,
        name: name.clone(),
        arguments: arguments.iter().map(Into::into).chain(script).collect(),
        variables,
        dir,
        outlives: config.outlives,
        until: config.bounds.as_ref().filter(|_| command.exclusive).map(|dir| dir.join(command.id.run.to_string())),
    };
    if let State::Waiting(Some(signal)) = *running.lock() {
        return Ok(Start::Signalled(signal));
    }
    let way = shared.fork().map_err(|error| format!("can't start a process: {error}"))?;
    let way = order.send(way).map_err(|Refused(sentence)| sentence)?;
    match shim::find(state, &command.id).map_err(|error| format!("can't watch {name}: {error}"))? {
        Found::Alive(shim) => {
            if let Some(group) = &group
                && let Err(error) = group.add(shim.leader)
            {
                tracing::warn!(%error, "can't move a step into its cgroup");
            }
            let _way = (!config.outlives).then_some(way);
            Ok(Start::Started(Arc::new(Live { shim: *shim, group, _way })))
        }
        Found::Nothing | Found::Lost(_) => Err(format!("the process above {name} was killed")),
    }
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
    live: &'a Live,
    buffer: Vec<u8>,
    running: &'a Running,
}

impl<'a> Pump<'a> {
    fn new(live: &'a Live, running: &'a Running) -> Self {
        Self { live, buffer: vec![0; CHUNK], running }
    }

    /// Carries until the leader has ended and nothing else lives, or [`GRACE`] has passed since its end.
    fn until_ended(&mut self) {
        let shim = &self.live.shim;
        while self.once(&[shim.done.as_fd(), shim.gone.as_fd()], None) != Polled::Ended {}
        let ended_at = clock::now().boot;
        while self.live.has_others() {
            let left = GRACE.saturating_sub(clock::now().boot.since(ended_at));
            if left.is_zero() || !self.until_one_ends(left) {
                return;
            }
        }
    }

    /// After SIGTERM, carries on until all others have followed the leader, or SIGKILL has come.
    fn until_obeyed(&mut self) {
        while self.running.signalled() == Some(Signal::Terminate) && self.live.has_others() {
            // Their end, by themselves or by SIGKILL, ends the wait; the limit is for one that hangs in the kernel.
            if !self.until_one_ends(KILL_LIMIT) {
                return;
            }
        }
    }

    /// Carries until a process of the step has ended, or there is output, or the time is over; false if there is none.
    fn until_one_ends(&mut self, wait: Duration) -> bool {
        let members: Vec<_> = self.live.members().iter().filter_map(processes::Process::pin).collect();
        if members.is_empty() {
            return false;
        }
        self.once(&members.iter().map(OwnedFd::as_fd).collect::<Vec<_>>(), Some(wait));
        true
    }

    /// Carries what is there. For when nobody of the step is left to write.
    fn drain(&mut self) {
        while self.once(&[], Some(Duration::ZERO)) == Polled::Output {}
    }

    /// Waits for output or the end of one of `processes`, and carries the output.
    fn once(&mut self, processes: &[BorrowedFd<'_>], wait: Option<Duration>) -> Polled {
        let wait = wait.map(timespec);
        let shim = &self.live.shim;
        let pipes = [(&shim.out, RecordKind::Stdout), (&shim.err, RecordKind::Stderr)];
        let watched = pipes.iter().map(|(pipe, _)| pipe.as_fd()).chain(processes.iter().copied());
        let mut watched: Vec<_> = watched.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        match poll(&mut watched, wait.as_ref()) {
            Ok(0) => return Polled::Nothing,
            Ok(_) => {}
            // Only a signal to this thread, which changes nothing.
            Err(_) => return Polled::Output,
        }
        let ended = watched[pipes.len()..].iter().any(|fd| !fd.revents().is_empty());
        let mut carried = false;
        for (&(mut pipe, kind), _) in pipes.iter().zip(&watched).filter(|(_, fd)| fd.revents().contains(PollFlags::IN))
        {
            // Nothing to read, or the end of a pipe whose shim is gone, is no output.
            if let Ok(read @ 1..) = pipe.read(&mut self.buffer) {
                self.running.log.append(kind, shim.kept.number, &self.buffer[..read]);
                self.running.log.wait_ready(|| self.running.signalled().is_some());
                carried = true;
            }
        }
        match (ended, carried) {
            (true, _) => Polled::Ended,
            (false, true) => Polled::Output,
            (false, false) => Polled::Nothing,
        }
    }
}

/// What a wait of the pump gave.
#[derive(Debug, PartialEq, Eq)]
enum Polled {
    Nothing,
    Output,
    Ended,
}
