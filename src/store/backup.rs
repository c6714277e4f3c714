//! Backups: the whole store as it was at one moment, taken while it is in use, and put back into a data folder.
//!
//! A backup is LMDB's compact copy of the map, packed by zstd with a checksum: `zstd -d` gives the map's file again.

use std::{
    fs::{DirBuilder, File, OpenOptions, remove_dir_all, remove_file, rename},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use xene_agent::lmdb::Env;

use super::{Store, StoreError, tables, upgrade};

/// Of zstd: quick, and pages of rows pack well all the same.
const LEVEL: i32 = 3;

/// Why a backup can't be put back. The data folder is as it was.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The file can't be read, or the folder not written.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It ends too early, or was altered.
    #[error("the backup {} is damaged or incomplete: {cause}", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What is odd about it.
        cause: String,
    },
    /// It is no store, or of a newer version.
    #[error("the backup {} can't be used: {source}", path.display())]
    Unusable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: StoreError,
    },
}

impl Store {
    /// Writes the store as it is now, while it goes on. First a copy is made beside the store, so a slow `out` holds up
    /// nobody; it is gone with the call, however that ends. Blocks.
    ///
    /// # Errors
    /// If the copy can't be made, or `out` takes no more.
    pub fn back_up(&self, out: &mut dyn Write) -> Result<(), StoreError> {
        let path = self.data.with_file_name("backup.partial");
        let failed = |source| StoreError::Backup { path: path.clone(), source };
        let copy = OpenOptions::new().create(true).truncate(true).read(true).write(true).mode(0o600).open(&path);
        let mut copy = copy.map_err(failed)?;
        // The open file is all that is needed, and the system forgets it with this process.
        remove_file(&path).map_err(failed)?;
        self.env.copy(&mut copy).map_err(|error| failed(io::Error::other(error)))?;
        io::Seek::rewind(&mut copy).map_err(failed)?;
        pack(copy, out).map_err(failed)
    }
}

fn pack(mut from: impl Read, out: &mut dyn Write) -> io::Result<()> {
    let mut packed = zstd::Encoder::new(out, LEVEL)?;
    packed.include_checksum(true)?;
    io::copy(&mut from, &mut packed)?;
    packed.finish()?.flush()
}

/// Puts a backup in the place of the store in the data folder `data`, whose lock the caller holds. What was there is
/// kept beside it, under the name that is returned. `verify` gets a data folder with the unpacked store, and says what is
/// wrong with that. The next controller on it recovers: agents say what they hold.
///
/// # Errors
/// If the backup is not whole, is no store, or is of a newer version; then nothing has changed.
pub fn restore(
    backup: &Path,
    data: &Path,
    now: Timestamp,
    verify: impl FnOnce(&Path) -> Result<(), String>,
) -> Result<Option<PathBuf>, RestoreError> {
    let (store, partial) = (data.join("store"), data.join("restore.partial"));
    let io_error = |path: &Path| {
        let path = path.to_owned();
        move |source| RestoreError::Io { path, source }
    };
    let _ = remove_dir_all(&partial);
    let unpacked = DirBuilder::new().mode(0o700).create(&partial).map_err(io_error(&partial)).and_then(|()| {
        unpack(backup, &partial.join("store"))?;
        verify(&partial).map_err(|cause| RestoreError::Damaged { path: backup.to_owned(), cause })?;
        mark(backup, &partial.join("store"))?;
        File::open(partial.join("store")).and_then(|folder| folder.sync_all()).map_err(io_error(&partial))
    });
    if let Err(error) = unpacked {
        let _ = remove_dir_all(&partial);
        return Err(error);
    }
    let mut kept = None;
    if store.exists() {
        let aside = data.join(format!("store.replaced-{}", now.as_second()));
        rename(&store, &aside).map_err(io_error(&store))?;
        kept = Some(aside);
    }
    if let Err(error) = rename(partial.join("store"), &store).map_err(io_error(&store)) {
        if let Some(aside) = kept {
            rename(&aside, &store).map_err(io_error(&aside))?;
        }
        return Err(error);
    }
    let _ = remove_dir_all(&partial);
    File::open(data).and_then(|folder| folder.sync_all()).map_err(io_error(data))?;
    Ok(kept)
}

/// A store's file in the new folder `dir`, synced.
fn unpack(backup: &Path, dir: &Path) -> Result<(), RestoreError> {
    let io_error = |path: &Path, source| RestoreError::Io { path: path.to_owned(), source };
    let damaged = |cause: io::Error| RestoreError::Damaged { path: backup.to_owned(), cause: cause.to_string() };
    let packed = File::open(backup).map_err(|source| io_error(backup, source))?;
    DirBuilder::new().mode(0o700).create(dir).map_err(|source| io_error(dir, source))?;
    let path = dir.join("data.mdb");
    let file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&path);
    let mut file = file.map_err(|source| io_error(&path, source))?;
    let mut from = zstd::Decoder::new(packed).map_err(damaged)?;
    let mut chunk = vec![0; 1 << 20];
    loop {
        // An end before the frame's own is an error of the decoder.
        let length = from.read(&mut chunk).map_err(damaged)?;
        if length == 0 {
            break;
        }
        file.write_all(&chunk[..length]).map_err(|source| io_error(&path, source))?;
    }
    file.sync_all().map_err(|source| io_error(&path, source))
}

/// Has the next controller on the store in `dir` take it for a backup.
fn mark(backup: &Path, dir: &Path) -> Result<(), RestoreError> {
    let unusable = |source| RestoreError::Unusable { path: backup.to_owned(), source };
    let env = Env::open(dir, tables::COUNT).map_err(|error| unusable(error.into()))?;
    let tables = upgrade::upgrade(&env, dir, upgrade::STEPS).map_err(unusable)?;
    let marked = env.write(|_, txn| match tables.controller(txn)? {
        Some(row) => tables.mark_restored(txn, row).map(|()| true),
        None => Ok::<_, heed::Error>(false),
    });
    match marked {
        Ok(true) => Ok(()),
        Ok(false) => Err(RestoreError::Damaged { path: backup.to_owned(), cause: "no controller wrote it".into() }),
        Err(error) => Err(unusable(error.into())),
    }
}
