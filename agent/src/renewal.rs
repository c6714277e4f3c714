//! What the last answered renewal gave, on the disk for the next process of the agent.
//!
//! Nothing is synced, as a renewal must cost nothing: what the system has taken outlives the process. After a reboot it is
//! worth nothing, so it says which boot it is of.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use crate::decide::event::Renewal;

/// Each is written over the one before, in one piece.
const SIZE: usize = 512;

/// The file.
#[derive(Debug)]
pub struct RenewalFile {
    path: PathBuf,
    /// `None`: it can't be written, and is not there.
    file: Option<File>,
}

impl RenewalFile {
    /// Opens or makes it; gives what it holds. What can't be read counts as absent.
    pub fn open(path: &Path) -> (Self, Option<Renewal>) {
        let renewal = match fs::read(path) {
            Ok(bytes) if bytes.len() == SIZE => rmp_serde::from_slice(&bytes).ok(),
            _ => None,
        };
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path);
        let mut opened = Self { path: path.to_owned(), file: None };
        match file {
            Ok(file) => opened.file = Some(file),
            Err(error) => opened.give_up(&error),
        }
        (opened, renewal)
    }

    /// Writes it over the one before. If that fails, there is no file: an older token would be another agent's, and a
    /// lease that was voided would be one.
    pub fn keep(&mut self, renewal: &Renewal) {
        let write = |file: &File| {
            let mut bytes = rmp_serde::to_vec(renewal).map_err(io::Error::other)?;
            if bytes.len() > SIZE {
                return Err(io::Error::other("it is too large"));
            }
            bytes.resize(SIZE, 0);
            file.write_all_at(&bytes, 0)
        };
        if let Some(Err(error)) = self.file.as_ref().map(write) {
            self.give_up(&error);
        }
    }

    fn give_up(&mut self, error: &io::Error) {
        tracing::warn!(%error, "what a renewal gave can't be written: the next process begins without a lease");
        self.file = None;
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                tracing::warn!(%error, "what an old renewal gave can't be removed");
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::decide::{
        event::KeptLease,
        time::{BootTime, Now},
    };

    fn renewal(token: u64) -> Renewal {
        let (boot, wall) = (BootTime::from_nanos(u64::MAX), Timestamp::MAX);
        Renewal {
            boot_id: "f4b5d8a0-3c1e-4a57-9d0a-6c1f2e3d4b5a".into(),
            at: Now { boot, wall },
            token: Some(token),
            lease: Some(KeptLease { from: boot, claims: [255; 32] }),
            clock: Some((boot, wall)),
        }
    }

    #[test]
    fn the_last_is_found_again_and_what_is_torn_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("renewal");
        let (mut file, found) = RenewalFile::open(&path);
        assert_eq!(found, None);
        file.keep(&renewal(u64::MAX));
        let shorter = Renewal { lease: None, clock: None, ..renewal(8) };
        file.keep(&shorter);
        drop(file);
        assert_eq!(RenewalFile::open(&path).1, Some(shorter));
        // Also what an earlier version wrote: a token alone.
        for torn in [&[1, 2, 3][..], &[7; 8], &[0; SIZE]] {
            fs::write(&path, torn).unwrap();
            let (mut file, found) = RenewalFile::open(&path);
            assert_eq!(found, None);
            file.keep(&renewal(9));
            assert_eq!(RenewalFile::open(&path).1, Some(renewal(9)));
        }
    }

    #[test]
    fn one_that_can_not_be_written_leaves_no_older_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("renewal");
        RenewalFile::open(&path).0.keep(&renewal(7));
        // Opened for reading alone: each write fails.
        let mut file = RenewalFile { path: path.clone(), file: Some(File::open(&path).unwrap()) };
        file.keep(&renewal(8));
        assert!(!path.exists());
        assert_eq!(RenewalFile::open(&path).1, None);
    }
}
