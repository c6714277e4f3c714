//! Logs of runs at the controller: compressed files, appended, acknowledged by offset, followed as they grow.
//!
//! What was just received waits in memory until a frame is full or somebody asks for durability, and is seen by
//! readers at once. No file stays open between two calls, so there is no limit on the number of logs. Files are
//! written, synced and read on threads that may block.

mod file;

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use tokio::{
    sync::{Semaphore, watch},
    task::spawn_blocking,
};
use xene_agent::folder;
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

/// The logs that somebody writes or reads now, and some that were.
#[derive(Debug, Default)]
struct Open {
    logs: HashMap<RunName, Arc<Log>>,
    /// Those that nobody uses are dropped when there are so many.
    prune_at: usize,
}

#[derive(Debug)]
struct Log {
    run: RunName,
    file: LogFile,
    state: Mutex<State>,
    /// How many bytes readers may read.
    length: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    opened: Opened,
    /// What is in the file.
    written: Extent,
    /// What is not yet.
    pending: Vec<u8>,
    /// What outlives a power cut.
    durable: Extent,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Opened {
    /// The file has not been looked at.
    #[default]
    No,
    ForReading,
    /// The torn end that a crash may have left is cut off.
    ForWriting,
    /// After a failed sync nobody knows what is on disk: whoever goes on opens it anew.
    Failed,
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
    /// A sync failed meanwhile: what is on disk has to be looked at anew.
    #[error("an earlier write to the disk failed")]
    Failed,
    /// The run is past its retention.
    #[error("the log was removed")]
    Deleted,
    /// The system says no.
    #[error("can't keep or read a log: {0}")]
    Io(#[from] io::Error),
}

impl From<LogError> for io::Error {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Io(error) => error,
            other => Self::other(other),
        }
    }
}

impl LogStore {
    /// The logs below `dir`, which is made if it is missing.
    ///
    /// # Errors
    /// If it can't be made.
    pub fn open(dir: &Path) -> Result<Self, LogError> {
        folder::private(dir)?;
        let inner = Inner { dir: dir.to_owned(), open: Mutex::default(), syncs: Semaphore::new(SYNCS) };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Appends `data`, whose first byte is byte `offset` of the log of `run`; what is there already is passed over.
    /// Readers see it at once. Returns the new length, which is not durable yet. Calls may overlap.
    ///
    /// # Errors
    /// If bytes before `offset` are missing, or the disk refuses.
    pub async fn append(&self, run: RunName, offset: u64, data: Bytes) -> Result<u64, LogError> {
        let log = self.log(run);
        // Almost always it only has to be put beside what waits, which no other thread needs to be woken for.
        if let Ok(mut state) = log.state.try_lock()
            && state.opened == Opened::ForWriting
            && state.pending.len() + data.len() < FRAME
        {
            return log.append(&mut state, offset, &data);
        }
        blocking(move || {
            let mut state = log.opened(Opened::ForWriting)?;
            log.append(&mut state, offset, &data)
        })
        .await
    }

    /// Makes all that was appended durable: the length that may be acknowledged.
    ///
    /// # Errors
    /// If the disk refuses: then the next call looks at what is there anew.
    pub async fn sync(&self, run: RunName) -> Result<u64, LogError> {
        let log = self.log(run);
        if let Ok(state) = log.state.try_lock()
            && state.opened == Opened::ForWriting
            && state.is_synced()
        {
            return Ok(state.durable.raw);
        }
        let _permit = self.inner.syncs.acquire().await;
        let syncing = log.clone();
        let result = blocking(move || syncing.sync()).await;
        if result.is_err() {
            self.forget(&log);
        }
        result
    }

    /// Opens the log of `run` for reading; one that is not there is empty, and may begin.
    ///
    /// # Errors
    /// If it can't be opened.
    pub async fn reader(&self, run: RunName) -> Result<LogReader, LogError> {
        let log = self.log(run);
        let opening = log.clone();
        blocking(move || opening.opened(Opened::ForReading).map(drop)).await?;
        Ok(LogReader { length: log.length.subscribe(), log })
    }

    /// How many bytes there are of the log of `run`. May block.
    ///
    /// # Errors
    /// If it can't be read.
    pub fn length(&self, run: RunName) -> Result<u64, LogError> {
        Ok(self.log(run).opened(Opened::ForReading)?.length())
    }

    /// Removes the log of `run`. May block.
    ///
    /// # Errors
    /// If it can't be removed.
    pub fn delete(&self, run: RunName) -> Result<(), LogError> {
        let log = self.log(run);
        let mut state = lock(&log.state);
        log.file.delete()?;
        *state = State { opened: Opened::Deleted, ..State::default() };
        drop(state);
        self.forget(&log);
        Ok(())
    }

    fn log(&self, run: RunName) -> Arc<Log> {
        let mut open = lock(&self.inner.open);
        if open.logs.len() >= open.prune_at && !open.logs.contains_key(&run) {
            open.logs.retain(|_, log| !log.is_idle());
            open.prune_at = (2 * open.logs.len()).max(64);
        }
        open.logs.entry(run).or_insert_with(|| Arc::new(Log::new(&self.inner.dir, run))).clone()
    }

    /// Lets the next call open it anew.
    fn forget(&self, log: &Arc<Log>) {
        let mut open = lock(&self.inner.open);
        if open.logs.get(&log.run).is_some_and(|known| Arc::ptr_eq(known, log)) {
            open.logs.remove(&log.run);
        }
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
    fn new(dir: &Path, run: RunName) -> Self {
        Self { run, file: LogFile::new(dir, run), state: Mutex::default(), length: watch::Sender::new(0) }
    }

    /// True if nobody holds it, and nothing would be lost with it.
    fn is_idle(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) == 1 && self.state.try_lock().is_ok_and(|state| state.pending.is_empty())
    }

    /// The state, once the file has been looked at as `purpose` asks for.
    fn opened(&self, purpose: Opened) -> Result<MutexGuard<'_, State>, LogError> {
        let mut state = lock(&self.state);
        let written = match state.opened {
            Opened::Failed => return Err(LogError::Failed),
            Opened::Deleted => return Err(LogError::Deleted),
            Opened::ForWriting => return Ok(state),
            _ if purpose == Opened::ForWriting => self.file.recover()?,
            Opened::No => self.file.extent()?,
            Opened::ForReading => return Ok(state),
        };
        *state = State { opened: purpose, written, ..State::default() };
        self.length.send_replace(written.raw);
        Ok(state)
    }

    /// `state` is of [`Opened::ForWriting`].
    fn append(&self, state: &mut State, offset: u64, data: &[u8]) -> Result<u64, LogError> {
        let length = state.length();
        if offset > length {
            return Err(LogError::Gap { run: self.run, length, offset });
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
            self.file.sync(state.durable == Extent::default()).inspect_err(|_| state.opened = Opened::Failed)?;
            state.durable = state.written;
        }
        Ok(())
    }

    fn sync(&self) -> Result<u64, LogError> {
        let (written, first) = {
            let mut state = self.opened(Opened::ForWriting)?;
            self.write(&mut state)?;
            // An idle log should not keep a frame's worth of memory.
            state.pending = Vec::new();
            if state.is_synced() {
                return Ok(state.durable.raw);
            }
            (state.written, state.durable == Extent::default())
        };
        // The lock is free meanwhile, so the disk does not keep those who append.
        let result = self.file.sync(first);
        let mut state = lock(&self.state);
        match result {
            Ok(()) if state.opened == Opened::ForWriting => state.durable = state.durable.max(written),
            Ok(()) => return Err(LogError::Deleted),
            Err(_) => state.opened = Opened::Failed,
        }
        result?;
        Ok(state.durable.raw)
    }

    fn read(&self, from: u64, max: usize) -> Result<Vec<u8>, LogError> {
        let written = {
            let state = lock(&self.state);
            if state.opened == Opened::Deleted {
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
