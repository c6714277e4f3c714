//! Until when the processes of runs that are bound to the lease may live, on the disk for the shims above them and for
//! the next process of the agent: `bounds/RUN` is eight bytes, nanoseconds since the host's boot, little-endian.
//!
//! Nothing is synced, as with what else needs not outlive the host's boot.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use xene_schemas::meta::RunName;

use crate::{decide::time::BootTime, folder};

/// The files of all such runs.
#[derive(Debug)]
pub struct BoundFiles {
    dir: PathBuf,
}

impl BoundFiles {
    /// Makes the folder `dir`, or reads what it holds.
    ///
    /// # Errors
    /// If the folder can't be made or read.
    pub fn open(dir: &Path) -> io::Result<(Self, BTreeMap<RunName, BootTime>)> {
        folder::private(dir)?;
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let Some(run) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            // Without one, such a run ends at once.
            let until = File::open(entry.path()).and_then(|file| read(&file)).unwrap_or(BootTime::from_nanos(0));
            found.insert(run, until);
        }
        Ok((Self { dir: dir.to_owned() }, found))
    }

    /// Writes until when a run may live. If that fails, it lives no longer than was written before.
    pub fn bound(&self, run: RunName, until: BootTime) {
        let path = self.dir.join(run.to_string());
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path);
        if let Err(error) = file.and_then(|file| file.write_all_at(&until.as_nanos().to_le_bytes(), 0)) {
            tracing::warn!(%run, %error, "until when a run may live can't be written");
        }
    }

    /// A run has ended.
    pub fn forget(&self, run: RunName) {
        match fs::remove_file(self.dir.join(run.to_string())) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                tracing::warn!(%run, %error, "until when a run might live can't be removed");
            }
            _ => {}
        }
    }
}

/// What a file says.
///
/// # Errors
/// If it can't be read, or does not say anything.
pub fn read(file: &File) -> io::Result<BootTime> {
    let mut bytes = [0; 8];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(BootTime::from_nanos(u64::from_le_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    #[test]
    fn what_was_written_last_is_found_until_the_run_has_ended() {
        let folder = tempfile::tempdir().unwrap();
        let run = |n| RunName::new(Timestamp::UNIX_EPOCH, n);
        let (files, found) = BoundFiles::open(folder.path()).unwrap();
        assert_eq!(found, BTreeMap::new());
        files.bound(run(1), BootTime::from_nanos(7));
        files.bound(run(2), BootTime::from_nanos(8));
        files.bound(run(1), BootTime::from_nanos(u64::MAX));
        files.forget(run(2));
        files.forget(run(3));
        fs::write(folder.path().join(run(4).to_string()), "torn").unwrap();
        let found = BoundFiles::open(folder.path()).unwrap().1;
        assert_eq!(found, [(run(1), BootTime::from_nanos(u64::MAX)), (run(4), BootTime::from_nanos(0))].into());
    }
}
