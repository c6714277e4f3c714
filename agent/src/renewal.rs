//! The token of the last answered renewal, on the disk for the next process of the agent: eight bytes, little-endian.
//!
//! Nothing is synced, as a renewal must cost nothing: what the system has taken outlives the process. After a reboot the
//! file is removed before it is read.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

/// The file.
#[derive(Debug)]
pub struct RenewalFile {
    path: PathBuf,
    /// `None`: it can't be written, and is not there.
    file: Option<File>,
}

impl RenewalFile {
    /// Opens or makes it; gives the token that it holds. What can't be read counts as absent.
    pub fn open(path: &Path) -> (Self, Option<u64>) {
        let token = match fs::read(path) {
            Ok(bytes) => bytes.try_into().ok().map(u64::from_le_bytes),
            Err(_) => None,
        };
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path);
        let mut opened = Self { path: path.to_owned(), file: None };
        match file {
            Ok(file) => opened.file = Some(file),
            Err(error) => opened.give_up(&error),
        }
        (opened, token)
    }

    /// Writes a token over the one before. If that fails, there is no file: an older token would be another agent's.
    pub fn keep(&mut self, token: u64) {
        if let Some(Err(error)) = self.file.as_ref().map(|file| file.write_all_at(&token.to_le_bytes(), 0)) {
            self.give_up(&error);
        }
    }

    fn give_up(&mut self, error: &io::Error) {
        tracing::warn!(%error, "the token of renewals can't be written: another process can't show it");
        self.file = None;
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                tracing::warn!(%error, "an old token of renewals can't be removed");
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_token_is_found_again_and_what_is_torn_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("renewal");
        let (mut file, token) = RenewalFile::open(&path);
        assert_eq!(token, None);
        file.keep(7);
        file.keep(u64::MAX - 1);
        drop(file);
        assert_eq!(RenewalFile::open(&path).1, Some(u64::MAX - 1));
        fs::write(&path, [1, 2, 3]).unwrap();
        let (mut file, token) = RenewalFile::open(&path);
        assert_eq!(token, None);
        file.keep(9);
        assert_eq!(RenewalFile::open(&path).1, Some(9));
    }

    #[test]
    fn a_token_that_can_not_be_written_leaves_no_older_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("renewal");
        RenewalFile::open(&path).0.keep(7);
        // Opened for reading alone: each write fails.
        let mut file = RenewalFile { path: path.clone(), file: Some(File::open(&path).unwrap()) };
        file.keep(8);
        assert!(!path.exists());
        assert_eq!(RenewalFile::open(&path).1, None);
    }
}
