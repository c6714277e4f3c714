//! Gets files that travel: asks for those that are not here, takes the streams on which they come, and tells when a spec
//! has all of its files.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use quinn::{Connection, ReadError, RecvStream};
use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, sleep_until, timeout},
};
use xene_schemas::{
    meta::{FileHash, SpecHash},
    pipeline::PipelineFile,
    wire::{
        MAX_JOIN_FRAME,
        control::{AgentMessage, FilesWanted},
        files::{FileHeader, FileMessage},
    },
};

use super::{
    frames::{FrameReader, Outgoing},
    transport::codes,
};
use crate::content::ContentStore;

/// Taken at a time, in bytes.
const CHUNK: usize = 256 << 10;

/// A stream on which nothing comes for this long is stopped.
const IDLE: Duration = Duration::from_secs(60);

/// What is missing after a time without any progress is asked for again.
const AGAIN: Duration = Duration::from_secs(20);

/// Files to get, over all sessions. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Downloads {
    store: ContentStore,
    shared: Arc<Shared>,
    complete: mpsc::UnboundedSender<SpecHash>,
}

#[derive(Debug, Default)]
struct Shared {
    /// What is missing, by spec: the size of each.
    missing: Mutex<BTreeMap<SpecHash, BTreeMap<FileHash, u64>>>,
    more: Notify,
}

/// Why a file was not taken.
#[derive(Debug, thiserror::Error)]
enum TakeError {
    #[error("it was not asked for")]
    Unwanted,
    #[error("its bytes are not what it is named by")]
    Wrong,
    #[error("nothing came for too long")]
    Idle,
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("can't keep it: {0}")]
    Keep(#[from] io::Error),
}

impl Downloads {
    /// Keeps files in `store`, and tells `complete` of each spec once, when all of its files are there.
    pub fn new(store: ContentStore, complete: mpsc::UnboundedSender<SpecHash>) -> Self {
        Self { store, shared: Arc::default(), complete }
    }

    fn missing(&self) -> MutexGuard<'_, BTreeMap<SpecHash, BTreeMap<FileHash, u64>>> {
        self.shared.missing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gets the files of a spec that are not here yet.
    pub fn want(&self, spec: SpecHash, files: &[PipelineFile]) {
        let lacks = files.iter().filter(|file| !self.store.has(&file.hash)).map(|file| (file.hash, file.size));
        let lacks: BTreeMap<FileHash, u64> = lacks.collect();
        if lacks.is_empty() {
            // The driver ends after this, or all ends.
            let _ = self.complete.send(spec);
            return;
        }
        self.missing().insert(spec, lacks);
        self.shared.more.notify_one();
    }

    /// Nobody wants the files of this spec any more.
    pub fn forget(&self, spec: &SpecHash) {
        self.missing().remove(spec);
    }

    /// Gets what is missing over this connection until it ends.
    pub(super) async fn run(&self, connection: &Connection, outgoing: &Outgoing<AgentMessage>) {
        let mut asked = BTreeSet::new();
        let mut takes = tokio::task::JoinSet::new();
        let mut again = Instant::now() + AGAIN;
        loop {
            let waits = !self.missing().is_empty();
            asked.retain(|spec| self.missing().contains_key(spec));
            for (spec, lacks) in &*self.missing() {
                if asked.insert(*spec) {
                    again = Instant::now() + AGAIN;
                    let wanted = FilesWanted { spec: *spec, hashes: lacks.keys().copied().collect() };
                    // An ended session ends this, too.
                    let _ = outgoing.send(&AgentMessage::FilesWanted(wanted));
                }
            }
            tokio::select! {
                () = self.shared.more.notified() => {}
                stream = connection.accept_uni() => {
                    let Ok(stream) = stream else { return };
                    let downloads = self.clone();
                    takes.spawn(async move { downloads.take(stream).await });
                }
                Some(_) = takes.join_next() => again = Instant::now() + AGAIN,
                () = sleep_until(again), if waits => {
                    again = Instant::now() + AGAIN;
                    // A long file is progress.
                    if takes.is_empty() {
                        asked.clear();
                    }
                }
            }
        }
    }

    async fn take(&self, stream: RecvStream) {
        let mut reader = FrameReader::new(stream, MAX_JOIN_FRAME);
        let header = match timeout(IDLE, reader.next::<FileMessage>()).await {
            Ok(Ok(Some(FileMessage::Header(header)))) => header,
            _ => return stop(reader.into_parts().0, codes::PROTOCOL),
        };
        let (mut stream, first) = reader.into_parts();
        match self.take_bytes(&header, &mut stream, first.freeze()).await {
            Ok(()) => self.arrived(&header.hash),
            Err(error) => {
                tracing::debug!(hash = ?header.hash, %error, "a file was not taken");
                stop(stream, codes::FILE_REFUSED);
            }
        }
    }

    async fn take_bytes(
        &self,
        header: &FileHeader,
        stream: &mut RecvStream,
        first: bytes::Bytes,
    ) -> Result<(), TakeError> {
        if self.missing().values().all(|lacks| lacks.get(&header.hash) != Some(&header.size)) {
            return Err(TakeError::Unwanted);
        }
        let mut incoming = self.store.incoming()?;
        let mut bytes = first;
        loop {
            incoming.write(&bytes)?;
            if incoming.size() > header.size {
                return Err(TakeError::Wrong);
            }
            match timeout(IDLE, stream.read_chunk(CHUNK, true)).await.map_err(|_| TakeError::Idle)?? {
                Some(chunk) => bytes = chunk.bytes,
                None => break,
            }
        }
        if incoming.size() != header.size || incoming.hash() != header.hash {
            return Err(TakeError::Wrong);
        }
        let kept = tokio::task::spawn_blocking(move || incoming.finish()).await;
        kept.map_err(io::Error::other)?.map(drop).map_err(TakeError::Keep)
    }

    fn arrived(&self, hash: &FileHash) {
        self.missing().retain(|spec, lacks| {
            let complete = lacks.remove(hash).is_some() && lacks.is_empty();
            if complete {
                let _ = self.complete.send(*spec);
            }
            !complete
        });
    }
}

fn stop(mut stream: RecvStream, code: quinn::VarInt) {
    // A stream that has ended needs no stop.
    let _ = stream.stop(code);
}
