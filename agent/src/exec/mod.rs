//! The shell executor: starts steps, carries their output into the log, and leaves none of their processes behind.

mod cgroup;
mod environment;
mod folders;
mod lay;
mod outputs;
mod processes;
mod save;
mod shim;
mod step;

use std::{
    collections::{BTreeSet, HashMap},
    io,
    os::unix::{ffi::OsStrExt as _, net::UnixStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use tokio::{runtime::Handle, sync::mpsc::Sender, task::JoinHandle};
use xene_schemas::meta::RunName;

pub use self::{cgroup::find as find_cgroup, shim::become_parent_if_asked};
use self::{
    environment::Account,
    processes::Process,
    shim::Parent,
    step::{Live, Running},
};
use crate::{
    content::ContentStore,
    decide::event::{Signal, StepCommand, StepExit, StepId},
    logs::RunLog,
};

/// Where an executor works.
#[derive(Debug, Clone)]
pub struct ExecConfig {
    /// Folders of runs; goes with them.
    pub work_dir: PathBuf,
    /// Folders that last, one a pipeline.
    pub cache_dir: PathBuf,
    /// Where files that travel are taken from.
    pub files: ContentStore,
    /// Below which cgroup each step gets one of its own, from [`find_cgroup`]. Without, a step's processes are found
    /// as what lives below its shim.
    pub cgroup: Option<PathBuf>,
    /// Whether steps outlive this process, so that the next one goes on with them.
    pub outlives: bool,
    /// Where it is written until when runs may live that are bound to the lease; `None`: there is no lease.
    pub bounds: Option<PathBuf>,
}

/// A step has ended, and its whole process tree is gone.
#[derive(Debug)]
pub struct ExecEvent {
    /// Which step.
    pub id: StepId,
    /// How.
    pub exit: StepExit,
    /// What is kept of it.
    pub held: Option<Held>,
}

/// What is kept of a step that has ended, so that the next process of the agent could still learn how.
#[derive(Debug)]
pub struct Held {
    live: Arc<Live>,
}

impl Held {
    /// Lets go of it. For when its end is remembered, or this process has no next one.
    pub fn release(&self) {
        self.live.release();
    }
}

/// After so long without a step, twice at most, the process that steps descend from ends.
const IDLE: Duration = Duration::from_secs(60);

/// The executor. Cheap to clone. Each step that runs takes one thread of tokio's pool for blocking work.
#[derive(Debug, Clone)]
pub struct Exec {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: ExecConfig,
    account: Account,
    events: Sender<ExecEvent>,
    runtime: Handle,
    parent: Parent,
    running: Mutex<HashMap<StepId, Arc<Running>>>,
}

impl Exec {
    /// An executor that reports to `events`. Makes its folders; steps will descend from a process of the same program,
    /// whose `main` has to call [`become_parent_if_asked`] first. Call [`sweep_stale`] before, and this within a tokio
    /// runtime.
    ///
    /// # Errors
    /// If a folder can't be made.
    pub fn new(config: ExecConfig, events: Sender<ExecEvent>) -> io::Result<Self> {
        folders::make_folder(&config.work_dir)?;
        folders::make_folder(&config.cache_dir)?;
        // Steps see these paths, and run in other folders.
        let (work_dir, cache_dir) = (config.work_dir.canonicalize()?, config.cache_dir.canonicalize()?);
        // So do their shims, which look here.
        let bounds = config.bounds.as_deref().map(std::path::absolute).transpose()?;
        let config = ExecConfig { work_dir, cache_dir, bounds, ..config };
        let parent = Parent::new(&config.work_dir);
        let (account, runtime) = (Account::own(), Handle::current());
        let shared = Arc::new(Shared { config, account, events, runtime, parent, running: Mutex::default() });
        Ok(Self { shared })
    }

    /// Starts a step, or goes on with one that an earlier process has started. Never waits: that it could not be started
    /// is told like any other end.
    pub fn spawn(&self, command: StepCommand, log: Arc<RunLog>) {
        let running = Arc::new(Running::new(log));
        self.lock().insert(command.id.clone(), running.clone());
        let shared = self.shared.clone();
        self.shared.runtime.spawn_blocking(move || {
            let (exit, live) = step::run(&shared, &command, &running);
            shared.lock().remove(&command.id);
            let held = live.map(|live| Held { live });
            // Only the end of the whole agent drops the receiver.
            let _ = shared.events.blocking_send(ExecEvent { id: command.id, exit, held });
        });
    }

    /// Signals every process of a step, in the background. One that has ended, or is not known, is passed over; one
    /// that has not started will not start.
    pub fn signal(&self, id: &StepId, signal: Signal) {
        if let Some(running) = self.lock().get(id).cloned() {
            self.shared.runtime.spawn_blocking(move || running.signal(signal));
        }
    }

    /// Kills every process of every step, in the background; their ends are told as always.
    pub fn kill_all(&self) {
        for running in self.lock().values() {
            let running = running.clone();
            self.shared.runtime.spawn_blocking(move || running.signal(Signal::Kill));
        }
    }

    /// How many steps run.
    pub fn running(&self) -> usize {
        self.lock().len()
    }

    /// Removes a run's folder in the background, or keeps it for good. None of its steps may run any more. Who wants
    /// to can wait for it.
    pub fn finish_run(&self, run: RunName, keep_workspace: bool) -> JoinHandle<()> {
        let shared = self.shared.clone();
        self.shared.runtime.spawn_blocking(move || {
            let work = &shared.config.work_dir;
            let done = if keep_workspace { folders::keep_run(work, run) } else { folders::remove_run(work, run) };
            if let Err(error) = done {
                tracing::warn!(%run, %error, "can't finish a run's folder");
            }
        })
    }

    /// Where the workspaces of a run lie, for telling people what was kept.
    pub fn workspace(&self, run: RunName) -> PathBuf {
        self.shared.config.work_dir.join(run.to_string()).join("workspace")
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<StepId, Arc<Running>>> {
        self.shared.lock()
    }
}

impl Shared {
    /// Has a shim forked; the answer is the way to it.
    fn fork(self: &Arc<Self>) -> io::Result<UnixStream> {
        let (way, started) = self.parent.fork()?;
        if started {
            self.runtime.spawn(rest_when_idle(Arc::downgrade(self)));
        }
        Ok(way)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<StepId, Arc<Running>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the parent of shims once no step has run for a while: an agent that waits for its next schedule is one process.
async fn rest_when_idle(shared: Weak<Shared>) {
    loop {
        tokio::time::sleep(IDLE).await;
        let Some(shared) = shared.upgrade() else { return };
        if shared.lock().is_empty() && shared.parent.rest() {
            return;
        }
    }
}

/// Kills what a predecessor's steps left behind, and removes the folders of its runs, save kept ones and those of runs
/// that go on. For the start, with the data folder's lock held; blocks. Gives the names of what was killed.
///
/// # Errors
/// If the folders can't be read or removed.
pub fn sweep_stale(config: &ExecConfig, goes_on: impl Fn(RunName) -> bool) -> io::Result<Vec<String>> {
    folders::make_folder(&config.work_dir)?;
    let work_dir = config.work_dir.canonicalize()?;
    if let Some(parent) = &config.cgroup {
        cgroup::sweep(parent, &goes_on);
    }
    // The shims of runs that go on, and all below them. To be asked for last: whoever was found before, and is one of
    // these, is known by now. A step's process that has not become its program yet looks like its shim.
    let spared = || {
        let entries = std::fs::read_dir(&work_dir).into_iter().flatten().flatten();
        let of_kept =
            entries.filter(|entry| entry.file_name().to_str().and_then(|name| name.parse().ok()).is_some_and(&goes_on));
        let kept: Vec<_> = of_kept.flat_map(|entry| shim::holders(&entry.path())).collect();
        let below = kept.iter().flat_map(|shim| processes::below(*shim, &[])).map(|process| process.pid);
        kept.iter().copied().chain(below).collect::<BTreeSet<i32>>()
    };
    let below = slashed(&work_dir);
    let run_of = |workspace: &[u8]| -> Option<RunName> {
        let run = workspace.strip_prefix(&below[..])?.split(|byte| *byte == b'/').next()?;
        str::from_utf8(run).ok()?.parse().ok()
    };
    let shims = || processes::with_command_line(|line| shim::is_of(&work_dir, line));
    let steps = || {
        let shims = shims();
        let mut doomed: Vec<_> = shims.iter().flat_map(Process::below).collect();
        doomed.extend(processes::with_variable("XENE_WORKSPACE", |value| {
            value.starts_with(&below) && !run_of(value).is_some_and(&goes_on)
        }));
        let spared = spared();
        doomed.retain(|process| !shims.contains(process) && !spared.contains(&process.pid));
        doomed
    };
    let kill = |found: &[Process]| processes::kill_each(found, processes::KILL_LIMIT);
    let names = processes::end_all(steps, kill);
    // Last, so that what is below them is found as long as they live.
    let strangers = || {
        let mut found = shims();
        let spared = spared();
        found.retain(|process| !spared.contains(&process.pid));
        found
    };
    processes::end_all(strangers, kill);
    folders::remove_stale(&work_dir, goes_on)?;
    Ok(names)
}

fn slashed(path: &Path) -> Vec<u8> {
    [path.as_os_str().as_bytes(), b"/"].concat()
}

#[cfg(test)]
mod tests;
