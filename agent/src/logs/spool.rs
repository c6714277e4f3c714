//! One run's log: appended by the pumps of its steps, read by the session.

use std::{
    fs::{File, OpenOptions},
    io::{self, ErrorKind, IoSlice, Write as _},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{Condvar, Mutex, MutexGuard, PoisonError, Weak, atomic::Ordering},
    time::Duration,
};

use tokio::sync::Notify;
use xene_schemas::{
    meta::RunName,
    wire::logs::{MAX_RECORD, RECORD_HEAD, RecordKind, StepHead, record_head},
};

use super::{Limits, Shared, recover::Contents};
use crate::clock;

/// One run's log. Appending never fails: what can't be written is cut, and counted.
#[derive(Debug)]
pub struct RunLog {
    run: RunName,
    path: PathBuf,
    logs: Weak<Shared>,
    limits: Limits,
    state: Mutex<State>,
    /// Whoever is held in [`RunLog::wait_ready`].
    held: Condvar,
    /// Whoever is in [`RunLog::wait_for`].
    grown: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Open while records are appended. Sealed logs may be many and wait for long: they hold no descriptor.
    file: Option<File>,
    /// Bytes of whole records.
    len: u64,
    acknowledged: u64,
    steps: u16,
    sealed: bool,
    /// Bytes of output that found no room.
    cut: u64,
    /// True once the log says that it is cut.
    said_cut: bool,
    /// True while nothing is held, because the controller made no progress for too long.
    spooling_on: bool,
    /// Counts calls of [`RunLog::wake`].
    wakes: u64,
}

impl RunLog {
    pub(super) fn new(run: RunName, path: PathBuf, logs: Weak<Shared>, limits: Limits) -> Self {
        let (state, held, grown) = (Mutex::default(), Condvar::new(), Notify::new());
        Self { run, path, logs, limits, state, held, grown }
    }

    pub(super) fn found(run: RunName, path: PathBuf, logs: Weak<Shared>, limits: Limits, found: Contents) -> Self {
        let mut log = Self::new(run, path, logs, limits);
        let Contents { len, steps, sealed } = found;
        log.state = Mutex::new(State { len, steps, sealed, ..State::default() });
        log
    }

    /// Whose it is.
    pub fn run(&self) -> RunName {
        self.run
    }

    /// Bytes of whole records.
    pub fn len(&self) -> u64 {
        self.lock().len
    }

    /// True before the first record.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// True once it is complete.
    pub fn is_sealed(&self) -> bool {
        self.lock().sealed
    }

    /// Numbers a step, from 1, and writes its head. Beyond 65,535 steps all have the last number.
    pub fn step(&self, head: &StepHead) -> u16 {
        let json = serde_json::to_vec(head).unwrap_or_default();
        let mut state = self.lock();
        state.steps = state.steps.saturating_add(1);
        let number = state.steps;
        self.write(&mut state, RecordKind::Step, number, &json);
        number
    }

    /// Appends a chunk of output as it was read. What goes beyond the log's limit is cut, and counted.
    pub fn append(&self, kind: RecordKind, step: u16, data: &[u8]) {
        let mut state = self.lock();
        for chunk in data.chunks(MAX_RECORD) {
            let room = self.limits.max_bytes.saturating_sub(state.len + RECORD_HEAD as u64);
            let fits = usize::try_from(room).unwrap_or(usize::MAX).min(chunk.len());
            if fits > 0 && !self.write(&mut state, kind, step, &chunk[..fits]) {
                state.cut += fits as u64;
            }
            if fits < chunk.len() {
                state.cut += (chunk.len() - fits) as u64;
                if !state.said_cut {
                    let text = format!("the log has reached {} bytes; further output is cut", self.limits.max_bytes);
                    state.said_cut = self.write(&mut state, RecordKind::Note, 0, text.as_bytes());
                }
            }
        }
    }

    /// Appends a sentence of xene's own.
    pub fn note(&self, text: &str) {
        let end = text.floor_char_boundary(MAX_RECORD);
        self.write(&mut self.lock(), RecordKind::Note, 0, &text.as_bytes()[..end]);
    }

    /// Completes the log; nothing can be appended after that. It is made durable on this
    /// disk soon after, unless it has gone by then.
    pub fn seal(&self) {
        let mut state = self.lock();
        if state.sealed {
            return;
        }
        if state.cut > 0 {
            let text = format!("{} bytes of output were cut", state.cut);
            self.write(&mut state, RecordKind::Note, 0, text.as_bytes());
        }
        // On a full disk there is no End record: `sealed` tells the session all the same.
        self.write(&mut state, RecordKind::End, 0, &[]);
        state.sealed = true;
        let written = state.file.take().is_some();
        drop(state);
        self.grown.notify_waiters();
        self.held.notify_all();
        if written {
            sync_later(self.run, self.path.clone());
        }
    }

    /// Reads from `offset` on, as much as there is of `buffer`; 0 at the end of what has been written so far.
    ///
    /// # Errors
    /// If the file can't be read.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let (len, open) = {
            let state = self.lock();
            (state.len, state.file.as_ref().map(File::try_clone).transpose()?)
        };
        let wanted = usize::try_from(len.saturating_sub(offset)).unwrap_or(usize::MAX).min(buffer.len());
        if wanted == 0 {
            return Ok(0);
        }
        let file = match open {
            Some(file) => file,
            None => File::open(&self.path)?,
        };
        file.read_at(&mut buffer[..wanted], offset)
    }

    /// Waits until the log is longer than `offset`, or complete. Gives its length, and whether it is complete.
    pub async fn wait_for(&self, offset: u64) -> (u64, bool) {
        loop {
            let mut grown = std::pin::pin!(self.grown.notified());
            grown.as_mut().enable();
            {
                let state = self.lock();
                if state.len > offset || state.sealed {
                    return (state.len, state.sealed);
                }
            }
            grown.await;
        }
    }

    /// The controller has this many bytes. Never falls.
    pub fn acknowledged(&self, offset: u64) {
        let mut state = self.lock();
        if offset > state.acknowledged {
            state.acknowledged = offset;
            state.spooling_on = false;
            self.held.notify_all();
        }
    }

    /// True once it is complete, and the controller has all of it.
    pub fn is_delivered(&self) -> bool {
        let state = self.lock();
        state.sealed && state.acknowledged >= state.len
    }

    /// Blocks while the controller should first take what is here: while connected, with too much unacknowledged,
    /// and not for longer than the limit without progress. Returns early after [`Self::wake`] once `give_up` says so.
    pub(crate) fn wait_ready(&self, give_up: impl Fn() -> bool) {
        let mut state = self.lock();
        while self.must_hold(&state) && !give_up() {
            let (acknowledged, wakes) = (state.acknowledged, state.wakes);
            let unchanged = |state: &mut State| state.acknowledged == acknowledged && state.wakes == wakes;
            let waited =
                self.held.wait_timeout_while(state, self.limits.hold_time, |state| unchanged(state) && !state.sealed);
            let (after, waited) = waited.unwrap_or_else(PoisonError::into_inner);
            state = after;
            if waited.timed_out() {
                state.spooling_on = true;
            }
        }
    }

    /// Lets everybody in [`Self::wait_ready`] look again.
    pub(crate) fn wake(&self) {
        self.lock().wakes += 1;
        self.held.notify_all();
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Ends the log without an End record, for one that is removed.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        (state.sealed, state.file) = (true, None);
        drop(state);
        self.grown.notify_waiters();
        self.held.notify_all();
    }

    fn must_hold(&self, state: &State) -> bool {
        let connected = self.logs.upgrade().is_some_and(|logs| logs.connected.load(Ordering::Relaxed));
        connected
            && !state.sealed
            && !state.spooling_on
            && state.len.saturating_sub(state.acknowledged) > self.limits.hold_bytes
    }

    /// Appends one record; false if that failed, and then nothing of it stays.
    fn write(&self, state: &mut State, kind: RecordKind, step: u16, data: &[u8]) -> bool {
        if state.sealed {
            return false;
        }
        let micros = u64::try_from(clock::now().wall.as_microsecond()).unwrap_or(0);
        let head = record_head(kind, step, micros, data.len());
        match self.try_write(state, &head, data) {
            Ok(()) => {
                state.len += (head.len() + data.len()) as u64;
                self.grown.notify_waiters();
                true
            }
            Err(error) => {
                tracing::error!(run = %self.run, %error, "can't write a run's log");
                // A record written in part would hide all that follow.
                if let Some(file) = &state.file {
                    let _ = file.set_len(state.len);
                }
                false
            }
        }
    }

    fn try_write(&self, state: &mut State, head: &[u8], data: &[u8]) -> io::Result<()> {
        let file = match &mut state.file {
            Some(file) => file,
            none => none.insert(OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&self.path)?),
        };
        let (mut slices, mut left) = ([IoSlice::new(head), IoSlice::new(data)], head.len() + data.len());
        let mut slices = &mut slices[..];
        while left > 0 {
            match file.write_vectored(slices) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(n) => {
                    left -= n;
                    IoSlice::advance_slices(&mut slices, n);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Most logs are at the controller, durably, within milliseconds, and then removed: those need no sync here.
const SYNC_AFTER: Duration = Duration::from_secs(1);

fn sync_later(run: RunName, path: PathBuf) {
    let sync = move || match File::open(path).and_then(|file| file.sync_data()) {
        Err(error) if error.kind() != ErrorKind::NotFound => tracing::error!(%run, %error, "can't sync a run's log"),
        _ => {}
    };
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => drop(runtime.spawn(async move {
            tokio::time::sleep(SYNC_AFTER).await;
            drop(tokio::task::spawn_blocking(sync));
        })),
        Err(_) => sync(),
    }
}
