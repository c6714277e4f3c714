//! LMDB as both data folders use it: one environment, a map that grows by itself, one writer that groups commits.

use std::{
    fmt,
    fs::{DirBuilder, File, OpenOptions, TryLockError},
    io::{self, ErrorKind, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use heed::{CompactionOption, EnvOpenOptions, MdbError, RwTxn, WithoutTls};
use tokio::sync::watch;

use crate::clock;

/// A read transaction, as [`Env::read`] lends it. May be passed to every `get`, `iter` and `range` of a table.
pub type ReadTxn<'t> = heed::RoTxn<'t, WithoutTls>;

/// Address space for the map, not memory: pages count once they are touched.
const MAP_SIZE: usize = 16 << 30;
/// Readers at one time, over all threads.
const MAX_READERS: u32 = 1024;

/// Holds a data folder for this process until it is dropped.
#[derive(Debug)]
pub struct DataLock {
    /// The lock belongs to the open file: the kernel drops it with the process, however that ends.
    _file: File,
}

/// Why a data folder can't be held.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error("the data folder {} is in use by process {}", dir.display(), pid.map_or_else(|| "unknown".to_owned(), |pid| pid.to_string()))]
    Held {
        /// The folder.
        dir: PathBuf,
        /// Who has it, if the lock file says so.
        pid: Option<u32>,
    },
    /// The path leads to something else.
    #[error("{} is not a folder", .0.display())]
    NotAFolder(PathBuf),
    /// This account may not write there.
    #[error("no permission to write to the data folder {}", .0.display())]
    NotPermitted(PathBuf),
    /// Nobody may write there.
    #[error("the data folder {} is on a read-only file system", .0.display())]
    ReadOnly(PathBuf),
    /// Anything else.
    #[error("can't use the data folder {}: {source}", dir.display())]
    Io {
        /// The folder.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl DataLock {
    /// Makes the folder if it is missing (for its owner alone), and takes it.
    ///
    /// # Errors
    /// If another process has it, or it can't be written.
    pub fn acquire(dir: &Path) -> Result<Self, LockError> {
        Self::try_acquire(dir).map_err(|source| match source.kind() {
            ErrorKind::WouldBlock => LockError::Held { dir: dir.to_owned(), pid: holder(dir) },
            ErrorKind::NotADirectory | ErrorKind::AlreadyExists => LockError::NotAFolder(dir.to_owned()),
            ErrorKind::PermissionDenied => LockError::NotPermitted(dir.to_owned()),
            ErrorKind::ReadOnlyFilesystem => LockError::ReadOnly(dir.to_owned()),
            _ => LockError::Io { dir: dir.to_owned(), source },
        })
    }

    fn try_acquire(dir: &Path) -> io::Result<Self> {
        if let Some(parent) = dir.parent() {
            std::fs::create_dir_all(parent)?;
        }
        match DirBuilder::new().mode(0o700).create(dir) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists || !dir.is_dir() => return Err(error),
            _ => {}
        }
        let mut file =
            OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(dir.join("lock"))?;
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => ErrorKind::WouldBlock.into(),
            TryLockError::Error(error) => error,
        })?;
        file.set_len(0)?;
        writeln!(file, "{}", std::process::id())?;
        Ok(Self { _file: file })
    }
}

fn holder(dir: &Path) -> Option<u32> {
    let mut text = String::new();
    File::open(dir.join("lock")).ok()?.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// Why an environment can't be opened.
#[derive(Debug, thiserror::Error)]
#[error("can't open the database in {}: {source}", dir.display())]
pub struct OpenError {
    dir: PathBuf,
    source: heed::Error,
}

/// An LMDB environment whose map grows by itself. Cheap to clone.
///
/// Open each folder once per process, and only while its [`DataLock`] is held.
#[derive(Clone)]
pub struct Env {
    env: heed::Env<WithoutTls>,
    /// Read while a transaction lives; written to move the map, which no transaction may see.
    map: Arc<RwLock<()>>,
    commits: Arc<CommitTimes>,
}

/// How long syncing commits took, since the environment was opened.
#[derive(Debug, Default)]
struct CommitTimes {
    count: AtomicU64,
    nanos: AtomicU64,
}

/// A commit that takes longer is told: everything that is acknowledged waits for it.
const SLOW_COMMIT: Duration = Duration::from_secs(1);

impl Env {
    /// Opens or makes the environment in `dir`, which must exist, with at most `max_dbs` named tables.
    ///
    /// # Errors
    /// If LMDB can't open it: no such folder, no permission, not a database, or already open in this process.
    pub fn open(dir: &Path, max_dbs: u32) -> Result<Self, OpenError> {
        Self::open_sized(dir, max_dbs, MAP_SIZE)
    }

    fn open_sized(dir: &Path, max_dbs: u32, map_size: usize) -> Result<Self, OpenError> {
        let mut options = EnvOpenOptions::new().read_txn_without_tls();
        options.map_size(map_size).max_readers(MAX_READERS).max_dbs(max_dbs);
        #[expect(
            unsafe_code,
            reason = "the data folder's lock keeps others from the map; its files are never truncated"
        )]
        let opened = unsafe { options.open(dir) };
        let cleared = opened.and_then(|env| env.clear_stale_readers().map(|_| env));
        match cleared {
            Ok(env) => {
                allocate_readers(dir);
                Ok(Self { env, map: Arc::default(), commits: Arc::default() })
            }
            Err(source) => Err(OpenError { dir: dir.to_owned(), source }),
        }
    }

    /// Reads from one snapshot. Never waits for the writer, save while the map grows, which waits for all readers:
    /// so keep `f` short, and never call [`Self::read`] or [`Self::write`] inside of it.
    ///
    /// # Errors
    /// What `f` says, or that no snapshot could be taken.
    pub fn read<T, E: From<heed::Error>>(&self, f: impl FnOnce(&ReadTxn<'_>) -> Result<T, E>) -> Result<T, E> {
        let _map = self.map.read().unwrap_or_else(PoisonError::into_inner);
        let txn = self.env.read_txn()?;
        f(&txn)
    }

    /// The same for who looks for tables first, whatever there is: nothing is written.
    ///
    /// # Errors
    /// What `f` says, or that no snapshot could be taken.
    pub fn look<T, E: From<heed::Error>>(
        &self,
        f: impl FnOnce(&heed::Env<WithoutTls>, &ReadTxn<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        self.read(|txn| f(&self.env, txn))
    }

    /// Runs `f` in a write transaction and commits it, synced, unless `f` fails: for setting up. Once a [`Writer`]
    /// has been spawned, write through it alone. `f` runs again, on a new transaction, if the map has to grow.
    ///
    /// # Errors
    /// What `f` says, or that the commit failed.
    pub fn write<T, E: From<heed::Error> + MapFull>(
        &self,
        mut f: impl FnMut(&heed::Env<WithoutTls>, &mut RwTxn<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        loop {
            match self.try_write(&mut f) {
                Err(error) if error.is_map_full() => self.grow()?,
                result => return result,
            }
        }
    }

    /// Writes what is committed to `file`, without pages that hold nothing. The map can't grow meanwhile.
    ///
    /// # Errors
    /// If the file takes no more.
    pub fn copy(&self, file: &mut File) -> Result<(), heed::Error> {
        let _map = self.map.read().unwrap_or_else(PoisonError::into_inner);
        self.env.copy_to_file(file, CompactionOption::Enabled).map(drop)
    }

    /// How big it is, and may become.
    ///
    /// # Errors
    /// If LMDB or the file system can't say.
    pub fn size(&self) -> Result<Size, heed::Error> {
        let _map = self.map.read().unwrap_or_else(PoisonError::into_inner);
        let used = self.env.non_free_pages_size()?;
        let file = std::fs::metadata(self.env.path().join("data.mdb"))?;
        let limit = match room_left(self.env.path()) {
            Some(Some(left)) => (file.blocks() * 512).saturating_add(left).max(used),
            Some(None) => used,
            None => u64::MAX,
        };
        Ok(Size { used, limit })
    }

    /// How many transactions were committed since it was opened, and how long their commits took together.
    pub fn commits(&self) -> (u64, Duration) {
        let CommitTimes { count, nanos } = &*self.commits;
        (count.load(Ordering::Relaxed), Duration::from_nanos(nanos.load(Ordering::Relaxed)))
    }

    fn try_write<T, E: From<heed::Error>>(
        &self,
        f: &mut impl FnMut(&heed::Env<WithoutTls>, &mut RwTxn<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let _map = self.map.read().unwrap_or_else(PoisonError::into_inner);
        let mut txn = self.env.write_txn()?;
        let value = f(&self.env, &mut txn)?;
        let begun = clock::now().boot;
        txn.commit()?;
        let took = clock::now().boot.since(begun);
        self.commits.count.fetch_add(1, Ordering::Relaxed);
        self.commits.nanos.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        if took > SLOW_COMMIT {
            tracing::warn!(dir = %self.env.path().display(), ?took, "a commit took long: the disk is slow, or busy");
        }
        Ok(value)
    }

    fn grow(&self) -> Result<(), heed::Error> {
        let _map = self.map.write().unwrap_or_else(PoisonError::into_inner);
        let size = self.env.info().map_size.saturating_mul(2);
        tracing::info!(size, "growing the database's map");
        #[expect(unsafe_code, reason = "every transaction holds the lock for reading, so none lives now")]
        unsafe {
            self.env.resize(size)
        }
    }
}

/// LMDB maps its table of readers from a file with holes: to fill one when the file system is full ends in SIGBUS.
fn allocate_readers(dir: &Path) {
    let allocated = OpenOptions::new().write(true).open(dir.join("lock.mdb")).and_then(|file| {
        let length = file.metadata()?.len();
        Ok(rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::KEEP_SIZE, 0, length)?)
    });
    if let Err(error) = allocated {
        tracing::debug!(%error, "the database's table of readers has holes");
    }
}

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Env").field(&self.env.path()).finish()
    }
}

/// An error that can say whether a bigger map would help.
pub trait MapFull {
    /// True if the transaction failed only because the map is full.
    fn is_map_full(&self) -> bool;
}

impl MapFull for heed::Error {
    fn is_map_full(&self) -> bool {
        matches!(self, Self::Mdb(MdbError::MapFull))
    }
}

/// Why a commit failed. The first failure ends the writer: all later items get the same answer.
#[derive(Debug, Clone, thiserror::Error)]
#[error("can't write the database: {0}")]
pub struct CommitError(Arc<str>);

/// Called on the writer's thread once an item is durable, or can't be: must be quick.
pub type Done = Box<dyn FnOnce(Result<(), CommitError>) + Send>;

/// So much of the file system stays free for what must still be written, or a twentieth of a small one: LMDB that finds
/// no room in the middle of a commit gives an I/O error, after which nothing can be trusted.
const RESERVE: u64 = 32 << 20;
/// How often a full file system is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// What waits for its commit: an item, whether it may take of the reserve, and whom to tell.
type Queued<T> = (T, bool, Done);

/// Waits until there is room below `dir` for the group, to which what comes meanwhile is added, or `ending`, which is an
/// error. What is urgent takes what came before it along, as the order must stay.
fn wait_for_room<T>(
    dir: &Path,
    (ending, full): (&AtomicBool, &watch::Sender<bool>),
    (items, group): (&Receiver<Queued<T>>, &mut Vec<Queued<T>>),
) -> Result<(), CommitError> {
    let mut told = false;
    while !has_room(dir) {
        group.extend(items.try_iter());
        if group.iter().any(|(_, urgent, _)| *urgent) && has_reserve(dir) {
            return Ok(());
        }
        if !told {
            tracing::error!(dir = %dir.display(), "the file system is full: nothing is committed until there is room");
            told = true;
            full.send_replace(true);
        }
        if ending.load(Ordering::Relaxed) {
            return Err(CommitError(format!("the file system of {} is full", dir.display()).into()));
        }
        std::thread::park_timeout(LOOK_AGAIN);
    }
    if told {
        full.send_replace(false);
        tracing::info!(dir = %dir.display(), "there is room on the file system again");
    }
    Ok(())
}

/// True if commits below `dir` need not wait for room. A file system that can't be asked has it: the commit will tell.
pub fn has_room(dir: &Path) -> bool {
    room_left(dir).is_none_or(|left| left.is_some())
}

/// How many bytes the file system of `dir` takes before commits wait; `Some(None)` while they do. `None` if it can't be
/// asked.
fn room_left(dir: &Path) -> Option<Option<u64>> {
    let (available, reserve) = room(dir)?;
    Some(available.checked_sub(reserve))
}

/// True while what is urgent can be written: some of the reserve must be left, so that LMDB finds room for all of it.
fn has_reserve(dir: &Path) -> bool {
    room(dir).is_none_or(|(available, reserve)| available >= reserve / 4)
}

/// How many bytes the file system of `dir` has left, and how many of them are the reserve.
fn room(dir: &Path) -> Option<(u64, u64)> {
    let fs = rustix::fs::statvfs(dir).ok()?;
    let reserve = RESERVE.min(fs.f_blocks.saturating_mul(fs.f_frsize) / 20);
    Some((fs.f_bavail.saturating_mul(fs.f_frsize), reserve))
}

/// How big a database is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Bytes of the pages that hold something.
    pub used: u64,
    /// Bytes that they may come to: what the file has and what its file system still takes. As much as `used` while
    /// commits wait for room. The map itself sets no bound, as it grows.
    pub limit: u64,
}

/// One thread that owns write transactions, and groups what arrives.
///
/// While its file system is full, as [`has_room`] tells, it waits, and commits once there is room.
///
/// A lone item is committed at once; what arrives during a commit forms the next group, which costs one sync.
/// The queue has no bound of its own: its submitters wait for `done` before they act, so it holds what they have in
/// flight. Dropping the writer commits what is queued, then ends the thread.
#[derive(Debug)]
pub struct Writer<T> {
    /// `None` only while it is dropped.
    queue: Option<Sender<Queued<T>>>,
    ending: Arc<AtomicBool>,
    full: watch::Receiver<bool>,
    thread: Option<JoinHandle<()>>,
}

impl<T: Send + 'static> Writer<T> {
    /// Starts the thread. `apply` writes one item; it gets the items in the order of [`Self::submit`], and the same
    /// ones again, on a new transaction, if the map has to grow.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn spawn(
        env: Env,
        apply: impl FnMut(&mut RwTxn<'_>, &T) -> Result<(), heed::Error> + Send + 'static,
    ) -> io::Result<Self> {
        let (queue, items) = channel();
        let ending = Arc::<AtomicBool>::default();
        let ends = ending.clone();
        let (is_full, full) = watch::channel(false);
        let thread = std::thread::Builder::new()
            .name("commit".to_owned())
            // Nothing here recurses; the default of 2 MiB would only be reserved for nothing.
            .stack_size(512 << 10)
            .spawn(move || commit_groups(&env, &items, (&ends, &is_full), apply))?;
        Ok(Self { queue: Some(queue), ending, full, thread: Some(thread) })
    }

    /// Queues an item, never waits. `done` is called once this item and all before it are synced, or have failed.
    pub fn submit(&self, item: T, done: Done) {
        self.queue(item, false, done);
    }

    /// [`Self::submit`] of what can't wait for room: while the file system is full it takes of what is kept free, and so
    /// does what was queued before it.
    pub fn submit_urgent(&self, item: T, done: Done) {
        self.queue(item, true, done);
    }

    fn queue(&self, item: T, urgent: bool, done: Done) {
        let Some(queue) = &self.queue else { return };
        if let Err(refused) = queue.send((item, urgent, done)) {
            let (.., done) = refused.0;
            done(Err(CommitError("the writer has ended".into())));
        }
    }
}

impl<T> Writer<T> {
    /// True while it waits for room on its file system.
    pub fn full(&self) -> watch::Receiver<bool> {
        self.full.clone()
    }

    /// From now on a full file system is not waited for: what can't be committed fails at once, and ends the writer.
    pub fn wait_no_more(&self) {
        self.ending.store(true, Ordering::Relaxed);
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }
}

impl<T> Drop for Writer<T> {
    fn drop(&mut self) {
        self.queue = None;
        self.wait_no_more();
        // A `done` that drops the last handle runs on the thread itself, which can't wait for itself.
        if let Some(thread) = self.thread.take().filter(|thread| thread.thread().id() != std::thread::current().id()) {
            let _ = thread.join();
        }
    }
}

fn commit_groups<T>(
    env: &Env,
    items: &Receiver<Queued<T>>,
    (ending, full): (&AtomicBool, &watch::Sender<bool>),
    mut apply: impl FnMut(&mut RwTxn<'_>, &T) -> Result<(), heed::Error>,
) {
    let mut failed: Option<CommitError> = None;
    let mut group = Vec::new();
    while let Ok(first) = items.recv() {
        group.push(first);
        group.extend(items.try_iter());
        if failed.is_none() {
            failed = wait_for_room(env.env.path(), (ending, full), (items, &mut group)).err();
        }
        if failed.is_none() {
            let result = env.write(|_, txn| group.iter().try_for_each(|(item, ..)| apply(txn, item)));
            if let Err(error) = result {
                tracing::error!(%error, "the database can't be written; nothing more will be");
                failed = Some(CommitError(error.to_string().into()));
            }
        }
        for (.., done) in group.drain(..) {
            done(failed.clone().map_or(Ok(()), Err));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use heed::{
        Database,
        byteorder::BE,
        types::{Bytes, U64},
    };

    use super::*;

    type Table = Database<U64<BE>, Bytes>;

    fn open(dir: &Path, map_size: usize) -> (Env, Table) {
        let env = Env::open_sized(dir, 4, map_size).unwrap();
        let table = env.write(|env, txn| env.create_database(txn, Some("t"))).unwrap();
        (env, table)
    }

    fn writer(env: &Env, table: Table) -> Writer<(u64, Vec<u8>)> {
        Writer::spawn(env.clone(), move |txn, (key, value): &(u64, Vec<u8>)| table.put(txn, key, value)).unwrap()
    }

    #[test]
    fn second_holder_is_told_who_has_the_folder() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("a/b");
        let lock = DataLock::acquire(&dir).unwrap();
        let error = DataLock::acquire(&dir).unwrap_err().to_string();
        assert_eq!(error, format!("the data folder {} is in use by process {}", dir.display(), std::process::id()));
        drop(lock);
        DataLock::acquire(&dir).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::mode(&dir.metadata().unwrap().permissions());
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn a_file_is_not_a_data_folder() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(matches!(DataLock::acquire(&file), Err(LockError::NotAFolder(_))));
        assert!(matches!(DataLock::acquire(&file.join("below")), Err(LockError::NotAFolder(_))));
    }

    #[test]
    fn map_grows_and_the_group_is_written_again() {
        let temp = tempfile::tempdir().unwrap();
        let (env, table) = open(temp.path(), 1 << 20);
        let writer = writer(&env, table);
        for key in 0..64 {
            writer.submit((key, vec![7; 100_000]), Box::new(|result| result.unwrap()));
        }
        drop(writer);
        let count = env.read(|txn| table.len(txn)).unwrap();
        assert_eq!(count, 64);
    }

    #[test]
    fn what_was_deleted_does_not_count_as_used() {
        let temp = tempfile::tempdir().unwrap();
        let (env, table) = open(temp.path(), 1 << 24);
        let before = env.size().unwrap();
        env.write(|_, txn| (0..50).try_for_each(|key| table.put(txn, &key, &[7; 100_000]))).unwrap();
        let full = env.size().unwrap();
        assert!(full.used >= before.used + 5_000_000 && full.limit >= full.used, "{before:?}, {full:?}");
        env.write(|_, txn| table.clear(txn)).unwrap();
        let after = env.size().unwrap();
        assert!(after.used < 100_000, "{after:?}");
    }

    #[test]
    fn what_is_urgent_takes_of_the_reserve_and_what_came_before_it_along() {
        use std::process::Command;

        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("disk");
        std::fs::create_dir(&dir).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=16m", "tmpfs"]).arg(&dir).status();
        if !mounted.is_ok_and(|status| status.success()) {
            // Only root has disks of its own.
            return;
        }
        let (env, table) = open(&dir, 1 << 20);
        let (available, reserve) = room(&dir).unwrap();
        let ballast = usize::try_from(available - reserve / 2).unwrap();
        std::fs::write(dir.join("ballast"), vec![1; ballast]).unwrap();
        assert!(!has_room(&dir) && has_reserve(&dir));
        let writer = writer(&env, table);
        let (said, hear) = channel();
        let done = |key: u64| -> Done {
            let said = said.clone();
            Box::new(move |result| said.send((key, result.is_ok())).unwrap())
        };
        writer.submit((1, vec![7]), done(1));
        writer.submit_urgent((2, vec![7]), done(2));
        let heard = || hear.recv_timeout(Duration::from_secs(20)).unwrap();
        assert_eq!([heard(), heard()], [(1, true), (2, true)]);
        drop(writer);
        drop(Command::new("umount").arg("--lazy").arg(&dir).status());
    }

    #[test]
    fn answers_come_in_order_after_their_commit() {
        let temp = tempfile::tempdir().unwrap();
        let (env, table) = open(temp.path(), 1 << 24);
        let writer = writer(&env, table);
        let seen = Arc::new(AtomicUsize::new(0));
        for key in 0..500 {
            let (seen, env) = (seen.clone(), env.clone());
            writer.submit(
                (key, key.to_be_bytes().to_vec()),
                Box::new(move |result| {
                    result.unwrap();
                    assert_eq!(seen.fetch_add(1, Ordering::SeqCst) as u64, key);
                    assert!(env.read(|txn| Ok::<_, heed::Error>(table.get(txn, &key)?.is_some())).unwrap());
                }),
            );
        }
        drop(writer);
        assert_eq!(seen.load(Ordering::SeqCst), 500);
    }

    #[test]
    fn first_failure_ends_the_writer() {
        let temp = tempfile::tempdir().unwrap();
        let (env, table) = open(temp.path(), 1 << 24);
        let writer = Writer::spawn(env.clone(), move |txn, key: &u64| {
            table.put(txn, key, b"")?;
            if *key == 1 { Err(io::Error::other("disk on fire").into()) } else { Ok(()) }
        })
        .unwrap();
        let (results, all) = channel();
        for key in [0, 1, 2] {
            let (results, (synced, wait)) = (results.clone(), channel());
            let done = move |result: Result<(), CommitError>| {
                results.send(result.map_err(|error| error.to_string())).unwrap();
                synced.send(()).unwrap();
            };
            writer.submit(key, Box::new(done));
            wait.recv().unwrap();
        }
        let all: Vec<_> = all.try_iter().collect();
        let error = Err("can't write the database: disk on fire".to_owned());
        assert_eq!(all, [Ok(()), error.clone(), error]);
        assert_eq!(env.read(|txn| table.len(txn)).unwrap(), 1, "a failed group leaves nothing");
    }
}
