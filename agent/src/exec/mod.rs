//! The shell executor: starts steps, carries their output into the log, and leaves none of their processes behind.

mod cgroup;
mod environment;
mod folders;
mod lay;
mod outputs;
mod processes;
mod save;
mod step;

use std::{
    collections::HashMap,
    io,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    runtime::Handle,
    signal::unix::{SignalKind, signal},
    sync::mpsc::Sender,
    task::JoinHandle,
};
use xene_schemas::meta::RunName;

pub use self::cgroup::find as find_cgroup;
use self::{environment::Account, step::Running};
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
    /// by descent, process group and environment; the last can fail only for one that has cleared its environment,
    /// which then goes once no other step runs.
    pub cgroup: Option<PathBuf>,
}

/// A step has ended, and its whole process tree is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecEvent {
    /// Which step.
    pub id: StepId,
    /// How.
    pub exit: StepExit,
}

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
    running: Mutex<HashMap<StepId, Arc<Running>>>,
}

impl Exec {
    /// An executor that reports to `events`. Makes its folders, and this process the one that adopts orphans of steps.
    /// Call [`sweep_stale`] before, and this within a tokio runtime.
    ///
    /// # Errors
    /// If a folder can't be made, or the system refuses the adoption.
    pub fn new(config: ExecConfig, events: Sender<ExecEvent>) -> io::Result<Self> {
        folders::make_folder(&config.work_dir)?;
        folders::make_folder(&config.cache_dir)?;
        // Steps see these paths, and run in other folders.
        let (work_dir, cache_dir) = (config.work_dir.canonicalize()?, config.cache_dir.canonicalize()?);
        let config = ExecConfig { work_dir, cache_dir, ..config };
        processes::become_subreaper()?;
        let mut child_ended = signal(SignalKind::child())?;
        let shared = Arc::new(Shared {
            config,
            account: Account::own(),
            events,
            runtime: Handle::current(),
            running: Mutex::default(),
        });
        let alive = Arc::downgrade(&shared);
        tokio::spawn(async move {
            // Orphans that end while their step goes on would stay as zombies. There is no hurry: steps end faster.
            while child_ended.recv().await.is_some() && alive.strong_count() > 0 {
                tokio::time::sleep(REAP_DELAY).await;
                processes::adopted();
            }
        });
        Ok(Self { shared })
    }

    /// Starts a step. Never waits: that it could not be started is told like any other end.
    pub fn spawn(&self, command: StepCommand, log: Arc<RunLog>) {
        let running = Arc::new(Running::new(log));
        self.lock().insert(command.id.clone(), running.clone());
        let shared = self.shared.clone();
        self.shared.runtime.spawn_blocking(move || {
            let exit = step::run(&shared, &command, &running);
            shared.lock().remove(&command.id);
            // Only the end of the whole agent drops the receiver.
            let _ = shared.events.blocking_send(ExecEvent { id: command.id, exit });
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
    fn lock(&self) -> MutexGuard<'_, HashMap<StepId, Arc<Running>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Kills what a crashed predecessor's steps left behind, and removes the folders of its runs, save kept ones. For the
/// start, with the data folder's lock held; blocks. Gives the names of what was killed.
///
/// # Errors
/// If the folders can't be read or removed.
pub fn sweep_stale(config: &ExecConfig) -> io::Result<Vec<String>> {
    folders::make_folder(&config.work_dir)?;
    let work_dir = config.work_dir.canonicalize()?;
    if let Some(parent) = &config.cgroup {
        cgroup::sweep(parent);
    }
    let mut names = Vec::new();
    // What they start between the look and the kill is found by the next look.
    for _ in 0..STALE_ROUNDS {
        let stale = processes::working_below(&slashed(&work_dir));
        if stale.is_empty() {
            break;
        }
        names.extend(stale.iter().map(|process| process.name.clone()));
        processes::kill_each(&stale, STALE_LIMIT);
    }
    folders::remove_stale(&work_dir).map(|()| names)
}

const REAP_DELAY: Duration = Duration::from_millis(500);
const STALE_ROUNDS: usize = 20;
const STALE_LIMIT: Duration = Duration::from_secs(5);

fn slashed(path: &Path) -> Vec<u8> {
    [path.as_os_str().as_bytes(), b"/"].concat()
}

#[cfg(test)]
mod tests;
