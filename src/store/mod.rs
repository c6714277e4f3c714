//! What the controller knows, durably: LMDB tables, and one writer that groups commits.
//!
//! Reads take a snapshot, copy out what they need and let go of it: they never wait for the writer, and none of them
//! may be kept over an await.

pub mod backup;
pub mod check;
mod keys;
pub mod logs;
mod query;
mod recent;
mod sweep;
mod tables;
#[cfg(test)]
mod tests;
mod upgrade;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use heed::RwTxn;
use tokio::sync::broadcast;
use xene_agent::{
    crash::Places,
    folder,
    lmdb::{CommitError, Env, MapFull, OpenError, Size, Writer, has_room},
};
use xene_schemas::meta::{PipelineKey, RunName, SpecHash};

pub use self::{
    query::{InEffect, RunFilter},
    recent::Touched,
    sweep::Swept,
};
use self::{recent::Recent, sweep::Sweep, tables::Tables};
use crate::decide::{
    desired::Found,
    rows::{Batch, Change, EndedRun, Loaded, RunRow},
};

/// A watcher may be this many batches behind before it has to read anew: some seconds of a busy controller.
const WATCH_BEHIND: usize = 1024;

/// The store. Cheap to clone; reads never block.
#[derive(Debug, Clone)]
pub struct Store {
    /// The map's file.
    data: Arc<Path>,
    env: Env,
    tables: Tables,
    writer: Arc<Writer<Job>>,
    committed: broadcast::Sender<Arc<Committed>>,
    recent: Arc<Mutex<Recent>>,
}

/// Why the store can't do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The folder can't be made.
    #[error("can't make the store's folder {}: {source}", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// LMDB can't open it.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A newer version wrote it.
    #[error(
        "a newer xene wrote this store (version {found}, this one knows {known}): use that xene, or another data folder"
    )]
    Newer {
        /// What it is.
        found: u64,
        /// The newest that this code knows.
        known: u64,
    },
    /// There is no room to bring it up to date.
    #[error("the store {} can't be opened, as its disk is full: make room and start again; it is as it was ({source})", dir.display())]
    Full {
        /// Its folder.
        dir: PathBuf,
        /// What was in the way.
        source: Box<StoreError>,
    },
    /// A backup can't be written; the store is as it was.
    #[error("can't write the backup {}: {source}", path.display())]
    Backup {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The writer's thread can't be started.
    #[error("can't start the store's writer: {0}")]
    Writer(#[source] io::Error),
    /// A row can't be read, or LMDB refuses.
    #[error("can't read the store: {0}")]
    Read(#[from] heed::Error),
    /// A commit failed: nothing more is written, the process should end and open the store anew.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl MapFull for StoreError {
    fn is_map_full(&self) -> bool {
        matches!(self, Self::Read(error) if error.is_map_full())
    }
}

impl StoreError {
    /// True if it came of a full disk, that of `dir`.
    fn lacks_room(&self, dir: &Path) -> bool {
        let (Self::Backup { source: error, .. } | Self::Read(heed::Error::Io(error))) = self else { return false };
        match error.kind() {
            // What was begun may be gone by now, and there be room again.
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => true,
            // Of a write that is cut short LMDB makes EIO, which is also what a broken disk says.
            _ => error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) && !has_room(dir),
        }
    }
}

/// What was committed together, as watchers get it.
#[derive(Debug)]
pub struct Committed {
    /// Counts up with every batch, for the life of the store.
    pub revision: u64,
    /// The number of the first [`Change::AddEvent`] among `changes`; the others follow it.
    pub first_event: u64,
    /// In order.
    pub changes: Vec<Arc<Change>>,
}

/// What the writer's thread is asked for.
#[derive(Debug)]
enum Job {
    Commit(Arc<Commit>),
    Sweep(Sweep),
}

/// A batch, and the numbers that it got when it was last applied.
#[derive(Debug, Default)]
struct Commit {
    changes: Vec<Arc<Change>>,
    revision: AtomicU64,
    first_event: AtomicU64,
}

impl Store {
    /// True if there is a store in this data folder.
    pub fn exists(data: &Path) -> bool {
        data.join("store/data.mdb").exists()
    }

    /// Opens or makes the store in the folder `store/` of `data`, whose lock the caller holds.
    ///
    /// # Errors
    /// If it can't be opened, or a newer version wrote it.
    pub fn open(data: &Path) -> Result<Self, StoreError> {
        let dir = data.join("store");
        folder::private(&dir).map_err(|source| StoreError::Folder { path: dir.clone(), source })?;
        let env = Env::open(&dir, tables::COUNT)?;
        let tables = upgrade::upgrade(&env, &dir, upgrade::STEPS).map_err(|error| match error {
            error if error.lacks_room(&dir) => StoreError::Full { dir: dir.clone(), source: Box::new(error) },
            error => error,
        })?;
        let writing = tables.clone();
        let writer = Writer::spawn(env.clone(), move |txn, job: &Job| job.apply(&writing, txn));
        Ok(Self {
            data: dir.join("data.mdb").into(),
            env,
            tables,
            writer: Arc::new(writer.map_err(StoreError::Writer)?),
            committed: broadcast::Sender::new(WATCH_BEHIND),
            recent: Arc::default(),
        })
    }

    /// Reads the working set.
    ///
    /// # Errors
    /// If a row can't be read.
    pub fn load(&self) -> Result<Loaded, StoreError> {
        let Self { tables, .. } = self;
        self.env.read(|txn| {
            let active = tables.active_runs.iter(txn)?;
            let active = active.filter_map(|entry| match entry {
                Ok((name, ())) => tables.runs.get(txn, &name).transpose(),
                Err(error) => Some(Err(error)),
            });
            let loaded = Loaded {
                controller: tables.controller(txn)?,
                workflows: values(tables.workflows.iter(txn)?)?,
                pipelines: values(tables.pipelines.iter(txn)?)?,
                owners: tables.owners.iter(txn)?.collect::<Result<_, _>>()?,
                agents: values(tables.agents.iter(txn)?)?,
                forgotten: tables.forgotten(txn)?,
                active_runs: active.collect::<Result<_, _>>()?,
                ended_runs: ended_runs(tables.runs.iter(txn)?)?,
                join_tokens: values(tables.join_tokens.remap_key_type::<heed::types::DecodeIgnore>().iter(txn)?)?,
                api_tokens: values(tables.api_tokens.remap_key_type::<heed::types::DecodeIgnore>().iter(txn)?)?,
                after: tables.after.iter(txn)?.collect::<Result<_, _>>()?,
                suspensions: values(tables.suspensions.remap_key_type::<heed::types::DecodeIgnore>().iter(txn)?)?,
                notifiers: values(tables.notifiers.iter(txn)?)?,
                messages: values(tables.outbox.remap_key_type::<heed::types::DecodeIgnore>().iter(txn)?)?,
                notifier_health: tables.notifier_health.iter(txn)?.collect::<Result<_, _>>()?,
                source: tables.source(txn)?,
                files: values(tables.files.remap_key_type::<heed::types::DecodeIgnore>().iter(txn)?)?
                    .into_iter()
                    .map(|file| (file.path, file.row))
                    .collect(),
            };
            self.release_map();
            Ok(loaded)
        })
    }

    /// True if what is desired is not what was written here: somebody else changed the rows. Reads all of them.
    ///
    /// # Errors
    /// If a row can't be read.
    pub fn has_drifted(&self) -> Result<bool, StoreError> {
        self.env.read(|txn| {
            let drifted = self.tables.digest_of_rows(txn)? != self.tables.digest(txn)?;
            self.release_map();
            Ok(drifted)
        })
    }

    /// What the rows say is desired, whoever wrote them. What can't be read is left out, and so are pipelines whose
    /// compiled spec is not here as its hash says.
    ///
    /// # Errors
    /// If the store can't be read.
    pub fn found(&self) -> Result<Found, StoreError> {
        self.env.read(|txn| {
            let mut found = Found::default();
            for row in self.tables.workflows.lazily_decode_data().iter(txn)? {
                if let Ok((_, row)) = row
                    && let Ok(row) = row.decode()
                {
                    found.workflows.insert(row.metadata.name.clone(), row);
                }
            }
            for row in self.tables.pipelines.lazily_decode_data().iter(txn)? {
                let (key, row) = row?;
                let row = row.decode().ok().filter(|row| {
                    let spec = self.tables.specs.get(txn, &row.spec_hash).ok().flatten();
                    row.key == key && spec.is_some_and(|bytes| SpecHash::of(bytes) == row.spec_hash)
                });
                found.pipelines.insert(key, row);
            }
            for row in self.tables.notifiers.lazily_decode_data().iter(txn)? {
                if let Ok((_, row)) = row
                    && let Ok(row) = row.decode()
                {
                    found.notifiers.insert(row.metadata.name.clone(), row);
                }
            }
            self.release_map();
            Ok(found)
        })
    }

    /// After a read of much, within it.
    fn release_map(&self) {
        if let Err(error) = xene_agent::memory::release_map(&self.data) {
            tracing::debug!(%error, "can't give memory back");
        }
    }

    /// Queues a batch; `done` is called from the writer once it and all before it are synced, or with the error that
    /// ends the store. Batches are applied in the order of the calls, whole or not at all.
    pub fn commit(&self, batch: Batch, done: impl FnOnce(Result<(), StoreError>) + Send + 'static) {
        self.submit(batch, false, done);
    }

    /// [`Self::commit`] that does not wait for room while the file system is full: it takes of what is kept free.
    pub fn commit_urgent(&self, batch: Batch, done: impl FnOnce(Result<(), StoreError>) + Send + 'static) {
        self.submit(batch, true, done);
    }

    fn submit(&self, batch: Batch, urgent: bool, done: impl FnOnce(Result<(), StoreError>) + Send + 'static) {
        let places = Places::of(&batch, place);
        let commit = Arc::new(Commit { changes: batch.into_iter().map(Arc::new).collect(), ..Commit::default() });
        let (mine, committed, recent) = (commit.clone(), self.committed.clone(), self.recent.clone());
        places.before();
        let done = Box::new(move |result: Result<(), CommitError>| {
            if result.is_ok() {
                places.after();
                commit.announce(&committed, &recent);
            }
            done(result.map_err(StoreError::from));
        });
        match urgent {
            true => self.writer.submit_urgent(Job::Commit(mine), done),
            false => self.writer.submit(Job::Commit(mine), done),
        }
    }

    /// The process is about to end: a full file system is not waited for any more, what can't be committed fails.
    pub fn wait_no_more(&self) {
        self.writer.wait_no_more();
    }

    /// What is committed from now on, batch by batch: subscribe to it. A watcher that falls behind gets `Lagged`, and
    /// must read the store anew.
    pub fn committed(&self) -> &broadcast::Sender<Arc<Committed>> {
        &self.committed
    }

    /// What the commits after `revision` touched, and the revision up to which that is all; `None` if it is not known
    /// any more, or there was no such revision yet.
    /// `None` also if that is more than `most`.
    pub fn touched_since(&self, revision: u64, most: usize) -> Option<(u64, BTreeSet<Touched>)> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner).since(revision, most)
    }

    /// True while commits wait because the file system is full.
    pub fn is_full(&self) -> bool {
        !has_room(&self.data)
    }

    /// How big it is, and may become.
    ///
    /// # Errors
    /// If LMDB or the file system can't say.
    pub fn size(&self) -> Result<Size, StoreError> {
        Ok(self.env.size()?)
    }

    /// How many transactions were committed since it was opened, and how long their commits took together.
    pub fn commits(&self) -> (u64, Duration) {
        self.env.commits()
    }

    /// The size of its file, in bytes.
    pub fn bytes(&self) -> u64 {
        // A file with holes, so what counts is what it takes of the disk.
        std::fs::metadata(&*self.data).map_or(0, |data| std::os::unix::fs::MetadataExt::blocks(&data) * 512)
    }

    /// How many batches have been committed.
    ///
    /// # Errors
    /// If the store can't be read.
    pub fn revision(&self) -> Result<u64, StoreError> {
        self.env.read(|txn| Ok(self.tables.revision(txn)?))
    }
}

/// Where a test may have the controller die beside the commit of this change.
fn place(change: &Change) -> Option<&'static str> {
    match change {
        Change::PutWorkflow(_) => Some("applied"),
        Change::PutOwner(_, row) if row.owner.is_some() => Some("grant"),
        Change::PutDelivery(..) => Some("delivery"),
        Change::PutRun(row) if row.run.status.started_at.is_some() => Some("recorded"),
        Change::PutRun(row) if !row.run.spec.trigger.is_slot() => Some("requested"),
        // Only what comes with each is told apart: whoever has been heard is written for other reasons, too.
        Change::PutAgent(row) => match row.certificates.len() {
            0 => Some("enrolled"),
            1 if row.last_seen.is_none() => Some("certified"),
            1 => None,
            _ => Some("renewed"),
        },
        _ => None,
    }
}

/// The runs that have ended, by pipeline, oldest first.
fn ended_runs(
    runs: impl Iterator<Item = Result<(RunName, RunRow), heed::Error>>,
) -> Result<BTreeMap<PipelineKey, Vec<EndedRun>>, heed::Error> {
    let mut ended: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for entry in runs {
        let (_, RunRow { run, .. }) = entry?;
        if let Some(finished_at) = run.status.finished_at.filter(|_| run.status.phase.is_final()) {
            ended.entry(run.spec.key()).or_default().push(EndedRun::new(&run, finished_at));
        }
    }
    Ok(ended)
}

impl Job {
    fn apply(&self, tables: &Tables, txn: &mut RwTxn<'_>) -> Result<(), heed::Error> {
        match self {
            Self::Commit(commit) => {
                commit.first_event.store(tables.next_event(txn)?, Ordering::Relaxed);
                commit.changes.iter().try_for_each(|change| tables.apply(txn, change))?;
                commit.revision.store(tables.next_revision(txn)?, Ordering::Relaxed);
                Ok(())
            }
            Self::Sweep(sweep) => sweep.apply(tables, txn),
        }
    }
}

impl Commit {
    fn announce(&self, committed: &broadcast::Sender<Arc<Committed>>, recent: &Mutex<Recent>) {
        let group = Committed {
            revision: self.revision.load(Ordering::Relaxed),
            first_event: self.first_event.load(Ordering::Relaxed),
            changes: self.changes.clone(),
        };
        // In this order: who subscribes and then reads what was before hears of all.
        recent.lock().unwrap_or_else(PoisonError::into_inner).add(&group);
        // Nobody may be there to hear it.
        let _ = committed.send(Arc::new(group));
    }
}

fn values<K, V>(entries: impl Iterator<Item = Result<(K, V), heed::Error>>) -> Result<Vec<V>, heed::Error> {
    entries.map(|entry| entry.map(|(_, value)| value)).collect()
}
