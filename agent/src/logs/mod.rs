//! A run's log on the agent's disk, from the pipe to the session.
//!
//! One file a run, `RUN.log`, of the records in [`xene_schemas::wire::logs`]: the same bytes that go over the wire.

mod recover;
mod spool;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use xene_schemas::meta::RunName;

pub use self::spool::RunLog;
use crate::folder;

/// What bounds logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Of one run's log, in bytes; output beyond it is cut, and counted.
    pub max_bytes: u64,
    /// Unacknowledged bytes of one run from which on its pipes are held, while connected.
    pub hold_bytes: u64,
    /// For how long they are held without any progress, before the log spools on.
    pub hold_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_bytes: 1 << 30, hold_bytes: 64 << 20, hold_time: Duration::from_secs(30) }
    }
}

/// All logs of an agent. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Logs {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    limits: Limits,
    /// Pipes are held only while there is somebody to take what is in the spool.
    connected: AtomicBool,
    runs: Mutex<HashMap<RunName, Arc<RunLog>>>,
}

/// A log found at the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoundLog {
    /// Whose.
    pub run: RunName,
    /// In bytes.
    pub len: u64,
    /// False if the agent ended before the run did.
    pub sealed: bool,
}

impl Logs {
    /// Opens or makes the spool in `dir`, and finds the logs that it holds ([`Self::found`]). A record that a crash
    /// has torn is cut off.
    ///
    /// # Errors
    /// If the folder can't be made or read.
    pub fn open(dir: &Path, limits: Limits) -> io::Result<Self> {
        folder::private(dir)?;
        let shared = Shared { dir: dir.to_owned(), limits, connected: AtomicBool::new(false), runs: Mutex::default() };
        let logs = Self { shared: Arc::new(shared) };
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            let name = entry.file_name();
            let run = name.to_str().and_then(|name| name.strip_suffix(".log")).and_then(|run| run.parse().ok());
            let Some(run) = run else { continue };
            match recover::recover(&entry.path()) {
                Ok(found) => {
                    let log = RunLog::found(run, entry.path(), Arc::downgrade(&logs.shared), limits, found);
                    logs.shared.lock().insert(run, Arc::new(log));
                }
                Err(error) => tracing::error!(%run, %error, "a run's log can't be read, and is left where it is"),
            }
        }
        Ok(logs)
    }

    /// The logs there are, in the order of their runs.
    pub fn found(&self) -> Vec<FoundLog> {
        let runs = self.shared.lock();
        let mut found: Vec<_> =
            runs.values().map(|log| FoundLog { run: log.run(), len: log.len(), sealed: log.is_sealed() }).collect();
        found.sort_by_key(|log| log.run);
        found
    }

    /// The run's log, which is made if there is none. Its file appears with the first record.
    pub fn create(&self, run: RunName) -> Arc<RunLog> {
        let make = || {
            let path = self.shared.dir.join(format!("{run}.log"));
            Arc::new(RunLog::new(run, path, Arc::downgrade(&self.shared), self.shared.limits))
        };
        self.shared.lock().entry(run).or_insert_with(make).clone()
    }

    /// The run's log, if there is one.
    pub fn get(&self, run: RunName) -> Option<Arc<RunLog>> {
        self.shared.lock().get(&run).cloned()
    }

    /// Removes the run's log from the disk. Who still reads it gets its end.
    ///
    /// # Errors
    /// If its file can't be removed.
    pub fn remove(&self, run: RunName) -> io::Result<()> {
        let Some(log) = self.shared.lock().remove(&run) else { return Ok(()) };
        log.close();
        match std::fs::remove_file(log.path()) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// To be told when a session stands, and when it has ended: only while one stands are pipes ever held.
    pub fn set_connected(&self, connected: bool) {
        self.shared.connected.store(connected, Ordering::Relaxed);
        for log in self.shared.lock().values() {
            log.wake();
        }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<RunName, Arc<RunLog>>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
