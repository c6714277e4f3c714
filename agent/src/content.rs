//! Files by content: a folder in which each file is named by the hash of its bytes, so that equal ones are kept once and
//! nothing is ever altered. The controller's `files/` and the agent's `cache/files/`.
//!
//! ```text
//! FOLDER/ab/cdef…   a file, of which all bytes are on the disk
//! FOLDER/.new/N     on its way in
//! ```

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, utimensat};
use xene_schemas::meta::FileHash;

use crate::clock;

const NEW: &str = ".new";

/// The folder. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ContentStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    folder: PathBuf,
    next: AtomicU64,
    /// Held from a look at a file's age to its removal, so that one that is wanted again in between stays.
    sweeping: Mutex<()>,
}

impl ContentStore {
    /// Opens the folder, or makes it. Only one process at a time.
    ///
    /// # Errors
    /// If it can't be made, or what an earlier process left half written can't be removed.
    pub fn open(folder: &Path) -> io::Result<Self> {
        let new = folder.join(NEW);
        crate::folder::private(folder)?;
        crate::folder::private(&new)?;
        for entry in fs::read_dir(&new)? {
            fs::remove_file(entry?.path())?;
        }
        let shared = Shared { folder: folder.to_owned(), next: AtomicU64::new(0), sweeping: Mutex::default() };
        Ok(Self { shared: Arc::new(shared) })
    }

    fn path(&self, hash: &FileHash) -> PathBuf {
        let name = hash.to_string();
        self.shared.folder.join(&name[..2]).join(&name[2..])
    }

    /// True if the file is here; then it is safe from [`Self::sweep`] for as long as a new one.
    pub fn has(&self, hash: &FileHash) -> bool {
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        let times = Timestamps { last_access: now, last_modification: now };
        let _sweeping = self.shared.sweeping.lock().unwrap_or_else(PoisonError::into_inner);
        utimensat(CWD, self.path(hash), &times, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// Keeps these bytes; they are on the disk when it returns.
    ///
    /// # Errors
    /// If they can't be written.
    pub fn keep(&self, bytes: &[u8]) -> io::Result<FileHash> {
        let hash = FileHash::of(bytes);
        if !self.has(&hash) {
            let mut incoming = self.incoming()?;
            incoming.write(bytes)?;
            incoming.finish()?;
        }
        Ok(hash)
    }

    /// Begins to take a file whose bytes come one after another.
    ///
    /// # Errors
    /// If there is no place for it.
    pub fn incoming(&self) -> io::Result<Incoming> {
        let number = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let path = self.shared.folder.join(NEW).join(number.to_string());
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        Ok(Incoming { store: self.clone(), path, file, hasher: blake3::Hasher::new(), size: 0 })
    }

    /// The file, for reading.
    ///
    /// # Errors
    /// If it is not here, or can't be read.
    pub fn read(&self, hash: &FileHash) -> io::Result<File> {
        File::open(self.path(hash))
    }

    /// Copies the file to `to`, where nothing may be yet; a file system that can shares the blocks. What is done to the
    /// copy never reaches what is kept.
    ///
    /// # Errors
    /// If the file is not here, or can't be written there.
    pub fn copy(&self, hash: &FileHash, to: &Path, executable: bool) -> io::Result<()> {
        let mode = if executable { 0o755 } else { 0o644 };
        let mut from = self.read(hash)?;
        let mut to = OpenOptions::new().write(true).create_new(true).mode(mode).open(to)?;
        io::copy(&mut from, &mut to).map(drop)
    }

    /// Removes what `is_used` does not want and nobody has asked for within `grace`; gives how many that were. Blocks.
    ///
    /// # Errors
    /// If the folder can't be read. What can't be removed is left.
    pub fn sweep(&self, grace: Duration, is_used: impl Fn(&FileHash) -> bool) -> io::Result<usize> {
        let oldest = clock::now().wall.as_second().saturating_sub_unsigned(grace.as_secs());
        let mut removed = 0;
        for group in fs::read_dir(&self.shared.folder)? {
            let group = group?;
            let prefix = group.file_name().to_string_lossy().into_owned();
            if prefix == NEW || !group.file_type()?.is_dir() {
                continue;
            }
            for entry in fs::read_dir(group.path())? {
                let entry = entry?;
                let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
                if name.parse().is_ok_and(|hash| is_used(&hash)) {
                    continue;
                }
                let _sweeping = self.shared.sweeping.lock().unwrap_or_else(PoisonError::into_inner);
                if entry.metadata().is_ok_and(|metadata| metadata.mtime() < oldest) {
                    removed += usize::from(fs::remove_file(entry.path()).is_ok());
                }
            }
        }
        Ok(removed)
    }
}

/// A file on its way in. Dropped before its end it leaves nothing.
#[derive(Debug)]
pub struct Incoming {
    store: ContentStore,
    path: PathBuf,
    file: File,
    hasher: blake3::Hasher,
    size: u64,
}

impl Incoming {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// If they can't be written.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// How many bytes came.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// What the bytes that came are known by.
    pub fn hash(&self) -> FileHash {
        FileHash(*self.hasher.finalize().as_bytes())
    }

    /// All bytes came: they are on the disk when it returns, under the name of what they are. Blocks.
    ///
    /// # Errors
    /// If they can't be written.
    pub fn finish(self) -> io::Result<FileHash> {
        let hash = self.hash();
        let path = self.store.path(&hash);
        let Some(group) = path.parent() else { return Err(ErrorKind::InvalidInput.into()) };
        self.file.sync_all()?;
        if fs::DirBuilder::new().mode(0o700).create(group).is_ok() {
            File::open(&self.store.shared.folder)?.sync_all()?;
        }
        fs::rename(&self.path, &path)?;
        File::open(group)?.sync_all()?;
        Ok(hash)
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        // After `finish` there is nothing by this name.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Read as _, os::unix::fs::PermissionsExt as _};

    use super::*;

    fn text(store: &ContentStore, hash: &FileHash) -> String {
        let mut text = String::new();
        store.read(hash).unwrap().read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn keeps_by_content_once_and_over_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let store = ContentStore::open(folder.path()).unwrap();
        let hash = store.keep(b"hello").unwrap();
        assert_eq!(store.keep(b"hello").unwrap(), hash);
        assert_eq!(hash, FileHash::of(b"hello"));
        let half = store.incoming().unwrap();
        drop(half);
        fs::write(folder.path().join(NEW).join("9"), "of a crash").unwrap();
        let store = ContentStore::open(folder.path()).unwrap();
        assert!(store.has(&hash) && !store.has(&FileHash::of(b"other")));
        assert_eq!(text(&store, &hash), "hello");
        assert_eq!(fs::read_dir(folder.path().join(NEW)).unwrap().count(), 0);
    }

    #[test]
    fn a_copy_is_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let store = ContentStore::open(&folder.path().join("store")).unwrap();
        let hash = store.keep(b"hello").unwrap();
        let copy = folder.path().join("copy");
        store.copy(&hash, &copy, true).unwrap();
        assert_ne!(fs::metadata(&copy).unwrap().permissions().mode() & 0o100, 0);
        fs::write(&copy, "altered").unwrap();
        assert_eq!(text(&store, &hash), "hello");
        assert_eq!(store.copy(&hash, &copy, false).unwrap_err().kind(), ErrorKind::AlreadyExists);
    }

    #[test]
    fn a_sweep_takes_only_what_is_old_and_unused() {
        let folder = tempfile::tempdir().unwrap();
        let store = ContentStore::open(folder.path()).unwrap();
        let [used, unused, young] = [b"used", b"unus", b"youn"].map(|bytes| store.keep(bytes).unwrap());
        let old = Timespec { tv_sec: 1_000, tv_nsec: 0 };
        let times = Timestamps { last_access: old, last_modification: old };
        for hash in [used, unused] {
            utimensat(CWD, store.path(&hash), &times, AtFlags::empty()).unwrap();
        }
        assert_eq!(store.sweep(Duration::from_secs(60), |hash| *hash == used).unwrap(), 1);
        assert!(store.has(&used) && !store.has(&unused) && store.has(&young));
        assert!(store.has(&used), "asked for, it is as good as new");
        assert_eq!(store.sweep(Duration::from_secs(60), |_| false).unwrap(), 0);
    }
}
