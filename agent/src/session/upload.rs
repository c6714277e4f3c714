//! Sends logs of runs: one stream for each run that has bytes which the controller has not acknowledged.
//!
//! A stream begins at the acknowledged offset, follows the log while it grows, and ends when the log is complete, or
//! when nothing came for a while, so that another log can have its place. What the controller can't take it does not
//! read: the stream stalls, and nothing is buffered here.

use std::{
    collections::HashMap,
    fmt, io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use quinn::{Connection, WriteError};
use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::JoinSet,
};
use xene_schemas::{
    meta::RunName,
    wire::{
        Message,
        logs::{LogHeader, LogMessage},
    },
};

use super::transport::LOG_STREAMS;

/// Read and sent at a time, in bytes.
const CHUNK: usize = 64 << 10;

/// A stream with nothing to send ends after this, well before the controller would end it.
const QUIET: Duration = Duration::from_secs(20);

/// How long the acknowledgement of what was sent may take, before it is sent again.
const PATIENCE: Duration = Duration::from_secs(30);

/// The first and the longest wait after the controller refused a log: it may not know the run yet.
const REFUSED: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// A run's log on this machine's disk.
pub trait LogSource: fmt::Debug + Send + Sync + 'static {
    /// Reads bytes of the log from `offset` on; 0 if there are none yet. Quick: it is called on an async thread.
    ///
    /// # Errors
    /// Those of the file system.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Resolves when the log holds bytes beyond `offset`, or is sealed.
    fn wait_for(&self, offset: u64) -> impl Future<Output = ()> + Send;

    /// True if the log is complete: its length will not change any more.
    fn is_sealed(&self) -> bool;
}

/// The logs to send, over all sessions. Cheap to clone.
#[derive(Debug)]
pub struct Uploads<L>(Arc<Mutex<State<L>>>);

#[derive(Debug)]
struct State<L> {
    logs: HashMap<RunName, Arc<Log<L>>>,
    /// Of the session that stands: takes logs that are added. As many as there are runs.
    session: Option<mpsc::UnboundedSender<Arc<Log<L>>>>,
}

#[derive(Debug)]
struct Log<L> {
    header: LogHeader,
    source: L,
    acknowledged: watch::Sender<u64>,
    settled: AtomicBool,
}

impl<L> Clone for Uploads<L> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<L> Default for Uploads<L> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(State { logs: HashMap::new(), session: None })))
    }
}

impl<L: LogSource> Uploads<L> {
    fn state(&self) -> MutexGuard<'_, State<L>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends this log from now on. The header's `offset` is what the controller has acknowledged of it already.
    pub fn add(&self, header: LogHeader, source: L) {
        let acknowledged = watch::Sender::new(header.offset);
        let log = Arc::new(Log { header, source, acknowledged, settled: AtomicBool::new(false) });
        let mut state = self.state();
        state.logs.insert(log.header.run, log.clone());
        if let Some(session) = &state.session {
            // A session that has ended takes it from the map when the next one begins.
            let _ = session.send(log);
        }
    }

    /// Everything of this run is at the controller, or nothing of it is wanted.
    pub fn remove(&self, run: RunName) {
        let log = self.state().logs.remove(&run);
        if let Some(log) = log {
            // Whoever still sends it has nothing to do any more.
            log.acknowledged.send_replace(u64::MAX);
        }
    }

    /// The run has ended, and the controller has every fact about it: its log says so from now on.
    pub fn settle(&self, run: RunName) {
        if let Some(log) = self.state().logs.get(&run) {
            log.settled.store(true, Ordering::Relaxed);
        }
    }

    /// The controller has the run's log durably up to `offset`.
    pub fn acknowledged(&self, run: RunName, offset: u64) {
        if let Some(log) = self.state().logs.get(&run) {
            log.acknowledged.send_if_modified(|known| {
                let rises = offset > *known;
                *known = offset.max(*known);
                rises
            });
        }
    }

    /// Sends logs over this connection until it ends.
    pub(super) async fn run(&self, connection: &Connection) {
        let (session, mut added) = mpsc::unbounded_channel();
        {
            let mut state = self.state();
            for log in state.logs.values() {
                let _ = session.send(log.clone());
            }
            state.session = Some(session);
        }
        let streams = Arc::new(Semaphore::new(LOG_STREAMS as usize));
        let mut uploads = JoinSet::new();
        loop {
            tokio::select! {
                Some(log) = added.recv() => {
                    let (connection, streams) = (connection.clone(), streams.clone());
                    uploads.spawn(async move { upload(&connection, &streams, &log).await });
                }
                Some(_) = uploads.join_next() => {}
                _ = connection.closed() => return,
            }
        }
    }
}

/// Why a stream ended early.
#[derive(Debug, thiserror::Error)]
enum UploadError {
    #[error(transparent)]
    Connection(#[from] quinn::ConnectionError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("can't read the log: {0}")]
    Read(#[from] io::Error),
}

/// Sends one log until it is complete at the controller, or the connection ends.
async fn upload<L: LogSource>(connection: &Connection, streams: &Semaphore, log: &Log<L>) {
    let mut refused = REFUSED.0;
    loop {
        let from = *log.acknowledged.borrow();
        if from == u64::MAX {
            return;
        }
        log.source.wait_for(from).await;
        let sealed = log.source.is_sealed();
        if sealed && matches!(log.source.read_at(from, &mut [0]), Ok(0)) {
            return;
        }
        let Ok(stream) = streams.acquire().await else { return };
        let result = send(connection, log, from).await;
        drop(stream);
        match result {
            Ok(to) => {
                let mut acknowledged = log.acknowledged.subscribe();
                let _ = tokio::time::timeout(PATIENCE, acknowledged.wait_for(|offset| *offset >= to)).await;
                refused = REFUSED.0;
            }
            Err(UploadError::Connection(_) | UploadError::Write(WriteError::ConnectionLost(_))) => return,
            Err(error) => {
                tracing::debug!(run = %log.header.run, %error, "log not taken");
                tokio::time::sleep(refused).await;
                refused = (refused * 2).min(REFUSED.1);
            }
        }
    }
}

/// Sends the log from `offset` on, while there is something to send; returns where it ended.
async fn send<L: LogSource>(connection: &Connection, log: &Log<L>, mut offset: u64) -> Result<u64, UploadError> {
    let mut stream = connection.open_uni().await?;
    // Behind what is said on the control stream.
    stream.set_priority(-1).map_err(WriteError::from)?;
    let mut frame = Vec::new();
    let settled = log.settled.load(Ordering::Relaxed);
    LogMessage::Header(LogHeader { offset, settled, ..log.header.clone() }).encode(&mut frame);
    stream.write_all(&frame).await?;
    let mut buffer = Vec::new();
    loop {
        // In this order: what is there when the log is sealed is all that there is.
        let sealed = log.source.is_sealed();
        buffer.resize(CHUNK, 0);
        let read = log.source.read_at(offset, &mut buffer)?;
        if read > 0 {
            stream.write_all(&buffer[..read]).await?;
            offset += read as u64;
            continue;
        }
        if sealed {
            break;
        }
        // Most logs are quiet most of the time.
        buffer = Vec::new();
        tokio::select! {
            waited = tokio::time::timeout(QUIET, log.source.wait_for(offset)) => {
                if waited.is_err() {
                    break;
                }
            }
            stopped = stream.stopped() => {
                if let Ok(Some(code)) = stopped {
                    return Err(WriteError::Stopped(code).into());
                }
            }
        }
    }
    stream.finish().map_err(WriteError::from)?;
    Ok(offset)
}
