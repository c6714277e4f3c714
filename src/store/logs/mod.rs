//! Logs of runs at the controller: compressed files, appended, acknowledged by offset, followed as they grow.
//!
//! What was just received waits in memory until a frame is full or somebody asks for durability, and is seen by
//! readers at once. No file stays open between two calls, so there is no limit on the number of logs. Files are
//! written, synced and read on threads that may block.

mod file;

use std::{
    collections::HashMap,
    fs::create_dir_all,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak},
};

use bytes::Bytes;
use tokio::{
    sync::{Semaphore, watch},
    task::spawn_blocking,
};
use xene_schemas::meta::RunName;

use self::file::{Extent, FRAME, LogFile, UNSYNCED};

/// So many logs are synced at a time; others wait, and so gather more for their own sync.
const SYNCS: usize = 4;

/// The logs of all runs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LogStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    open: Mutex<Open>,
    syncs: Semaphore,
}

/// The logs that somebody writes or reads now.
#[derive(Debug, Default)]
struct Open {
    logs: HashMap<RunName, Weak<Log>>,
    /// Dead entries are dropped when there are so many.
    prune_at: usize,
}

#[derive(Debug)]
struct Log {
    file: LogFile,
    state: Mutex<State>,
    /// The length that readers may read.
    length: watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    /// What is in the file.
    written: Extent,
    /// What is not yet.
    pending: Vec<u8>,
    /// What outlives a power cut.
    durable: Extent,
    /// True once the torn end that a crash may have left is cut off.
    recovered: bool,
    /// Why nothing more may be done with this log until it is opened anew.
    failed: Option<Failure>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failure {
    /// After a failed sync nobody knows what is on disk.
    Sync,
    Deleted,
}

/// Why a log can't be written or read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Bytes are missing in between.
    #[error("the log of run {run} has {length} bytes, so nothing can be added at {offset}")]
    Gap {
        /// Whose log.
        run: RunName,
        /// How far it goes.
        length: u64,
        /// Where the bytes should go.
        offset: u64,
    },
    /// An earlier sync failed; open it anew.
    #[error("an earlier write to the disk failed")]
    Failed,
    /// The run is past its retention.
    #[error("the log was removed")]
    Deleted,
    /// The system says no.
    #[error("can't keep or read a log: {0}")]
    Io(#[from] io::Error),
}

impl LogStore {
    /// The logs below `dir`, which is made if it is missing.
    ///
    /// # Errors
    /// If it can't be made.
    pub fn open(dir: &Path) -> Result<Self, LogError> {
        create_dir_all(dir)?;
        let inner = Inner { dir: dir.to_owned(), open: Mutex::default(), syncs: Semaphore::new(SYNCS) };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Opens the log of `run` for appending. Several writers of one log are let be: each byte is taken once.
    ///
    /// # Errors
    /// If it can't be opened.
    pub async fn writer(&self, run: RunName) -> Result<LogWriter, LogError> {
        let log = self.clone().blocking(move |logs| {
            let log = logs.log(run)?;
            log.recover()?;
            Ok(log)
        });
        Ok(LogWriter { logs: self.clone(), run, log: log.await? })
    }

    /// Opens the log of `run` for reading; one that is not there is empty, and may begin.
    ///
    /// # Errors
    /// If it can't be opened.
    pub async fn reader(&self, run: RunName) -> Result<LogReader, LogError> {
        let log = self.clone().blocking(move |logs| logs.log(run)).await?;
        Ok(LogReader { length: log.length.subscribe(), log })
    }

    /// How many bytes there are of the log of `run`. May block.
    ///
    /// # Errors
    /// If it can't be read.
    pub fn length(&self, run: RunName) -> Result<u64, LogError> {
        Ok(*self.log(run)?.length.borrow())
    }

    /// Removes the log of `run`. May block.
    ///
    /// # Errors
    /// If it can't be removed.
    pub fn delete(&self, run: RunName) -> Result<(), LogError> {
        let log = self.log(run)?;
        let mut state = log.state();
        state.failed = Some(Failure::Deleted);
        log.file.delete()?;
        lock(&self.inner.open).logs.remove(&run);
        Ok(())
    }

    fn log(&self, run: RunName) -> Result<Arc<Log>, LogError> {
        let mut open = lock(&self.inner.open);
        if let Some(log) = open.logs.get(&run).and_then(Weak::upgrade)
            && log.state().failed.is_none()
        {
            return Ok(log);
        }
        let log = Arc::new(Log::open(LogFile::new(&self.inner.dir, run))?);
        if open.logs.len() >= open.prune_at {
            open.logs.retain(|_, log| log.strong_count() > 0);
            open.prune_at = (2 * open.logs.len()).max(64);
        }
        open.logs.insert(run, Arc::downgrade(&log));
        Ok(log)
    }

    async fn blocking<T: Send + 'static>(
        self,
        work: impl FnOnce(&Self) -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, LogError> {
        blocking(move || work(&self)).await
    }
}

/// Appends to one log.
#[derive(Debug)]
pub struct LogWriter {
    logs: LogStore,
    run: RunName,
    log: Arc<Log>,
}

impl LogWriter {
    /// Appends `data`, whose first byte is byte `offset` of the log; what is there already is passed over. Readers
    /// see it at once. Returns the new length, which is not durable yet.
    ///
    /// # Errors
    /// If bytes before `offset` are missing, or the disk refuses.
    pub async fn append(&mut self, offset: u64, data: Bytes) -> Result<u64, LogError> {
        // Almost always it only has to be put beside what waits, which no thread needs to be woken for.
        match self.log.state.try_lock() {
            Ok(mut state) if state.pending.len() + data.len() < FRAME => {
                return self.log.append(&mut state, self.run, offset, &data);
            }
            Ok(_) | Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Poisoned(_)) => return Err(LogError::Failed),
        }
        let (log, run) = (self.log.clone(), self.run);
        blocking(move || log.append(&mut log.state(), run, offset, &data)).await
    }

    /// Makes all that was appended durable: the length that may be acknowledged. Call it also when the stream has
    /// broken off, lest what it brought is lost.
    ///
    /// # Errors
    /// If the disk refuses: then nothing more can be appended here; open another writer.
    pub async fn sync(&self) -> Result<u64, LogError> {
        if let Ok(state) = self.log.state.try_lock()
            && state.failed.is_none()
            && state.is_synced()
        {
            return Ok(state.durable.raw);
        }
        let _permit = self.logs.inner.syncs.acquire().await;
        let log = self.log.clone();
        blocking(move || log.sync()).await
    }

    /// [`Self::sync`], at the end of a log.
    ///
    /// # Errors
    /// If the disk refuses.
    pub async fn finish(self) -> Result<u64, LogError> {
        self.sync().await
    }

    /// How many bytes the log has.
    pub fn length(&self) -> u64 {
        *self.log.length.borrow()
    }

    /// How many bytes of it are durable.
    pub fn durable(&self) -> u64 {
        self.log.state().durable.raw
    }
}

/// Reads one log, also while it grows.
#[derive(Debug)]
pub struct LogReader {
    log: Arc<Log>,
    length: watch::Receiver<u64>,
}

impl LogReader {
    /// How many bytes there are now.
    pub fn length(&self) -> u64 {
        *self.length.borrow()
    }

    /// Bytes from `from` on, at most `max`; none only if there are none yet.
    ///
    /// # Errors
    /// If the log can't be read.
    pub async fn read(&self, from: u64, max: usize) -> Result<Vec<u8>, LogError> {
        let log = self.log.clone();
        blocking(move || log.read(from, max)).await
    }

    /// Waits until there are bytes beyond `length`.
    pub async fn grown(&mut self, length: u64) {
        if self.length.wait_for(|now| *now > length).await.is_err() {
            // The sender lives in the log that this reader holds.
            std::future::pending::<()>().await;
        }
    }
}

impl Log {
    fn open(file: LogFile) -> Result<Self, LogError> {
        let written = file.extent()?;
        let state = State { written, pending: Vec::new(), durable: Extent::default(), recovered: false, failed: None };
        Ok(Self { file, state: Mutex::new(state), length: watch::Sender::new(written.raw) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Before the first byte is appended: cuts off what a crash has torn.
    fn recover(&self) -> Result<(), LogError> {
        let mut state = self.state();
        state.check()?;
        if !state.recovered {
            state.written = self.file.recover()?;
            state.recovered = true;
            self.length.send_replace(state.written.raw);
        }
        Ok(())
    }

    fn append(&self, state: &mut State, run: RunName, offset: u64, data: &[u8]) -> Result<u64, LogError> {
        state.check()?;
        let length = state.length();
        if offset > length {
            return Err(LogError::Gap { run, length, offset });
        }
        let known = usize::try_from(length - offset).unwrap_or(usize::MAX).min(data.len());
        let mut new = &data[known..];
        if new.is_empty() {
            return Ok(length);
        }
        while state.pending.len() + new.len() >= FRAME {
            let (now, later) = new.split_at(FRAME - state.pending.len());
            state.pending.extend_from_slice(now);
            self.write(state)?;
            new = later;
        }
        state.pending.extend_from_slice(new);
        let length = state.length();
        self.length.send_replace(length);
        Ok(length)
    }

    /// Writes what waits, as one frame.
    fn write(&self, state: &mut State) -> Result<(), LogError> {
        if !state.pending.is_empty() {
            state.written = self.file.append(state.written, &state.pending)?;
            state.pending.clear();
        }
        if state.written.stored - state.durable.stored > UNSYNCED {
            self.sync_file(state.durable == Extent::default()).inspect_err(|_| state.failed = Some(Failure::Sync))?;
            state.durable = state.written;
        }
        Ok(())
    }

    fn sync(&self) -> Result<u64, LogError> {
        let (written, first) = {
            let mut state = self.state();
            state.check()?;
            self.write(&mut state)?;
            // An idle log should not keep a frame's worth of memory.
            state.pending = Vec::new();
            if state.is_synced() {
                return Ok(state.durable.raw);
            }
            (state.written, state.durable == Extent::default())
        };
        // The lock is free meanwhile, so the disk does not keep those who append.
        let result = self.sync_file(first);
        let mut state = self.state();
        match result {
            Ok(()) => state.durable = state.durable.max(written),
            Err(_) => state.failed = Some(Failure::Sync),
        }
        result?;
        Ok(state.durable.raw)
    }

    fn sync_file(&self, first: bool) -> Result<(), LogError> {
        Ok(self.file.sync(first)?)
    }

    fn read(&self, from: u64, max: usize) -> Result<Vec<u8>, LogError> {
        let written = {
            let state = self.state();
            if state.failed == Some(Failure::Deleted) {
                return Err(LogError::Deleted);
            }
            if from >= state.written.raw {
                let start = usize::try_from(from - state.written.raw).unwrap_or(usize::MAX);
                let rest = state.pending.get(start..).unwrap_or_default();
                return Ok(rest[..rest.len().min(max)].to_vec());
            }
            state.written
        };
        Ok(self.file.read(written, from, max)?)
    }
}

impl State {
    fn length(&self) -> u64 {
        self.written.raw + self.pending.len() as u64
    }

    fn is_synced(&self) -> bool {
        self.pending.is_empty() && self.durable == self.written
    }

    fn check(&self) -> Result<(), LogError> {
        match self.failed {
            None => Ok(()),
            Some(Failure::Sync) => Err(LogError::Failed),
            Some(Failure::Deleted) => Err(LogError::Deleted),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LogError> + Send + 'static,
) -> Result<T, LogError> {
    spawn_blocking(work).await.unwrap_or_else(|stopped| Err(io::Error::other(stopped).into()))
}

#[cfg(test)]
mod tests;
