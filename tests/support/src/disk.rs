//! A small disk that a test can fill, where the machine lets it mount one.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// A file system of its own for a data folder; gone with the value.
#[derive(Debug)]
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// One of `size` (such as `24m`) in the place of this folder. `None` where this machine lets nobody mount one.
    ///
    /// # Panics
    /// If there can't be such a folder.
    pub fn mount(at: &Path, size: &str) -> Option<Self> {
        fs::create_dir_all(at).expect("a folder to mount at");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(at).stderr(Stdio::null());
        mount.status().is_ok_and(|status| status.success()).then(|| Self(at.to_owned()))
    }

    /// Leaves no room on it.
    pub fn fill(&self) {
        let written = fs::File::create(self.ballast()).and_then(|mut file| io::copy(&mut io::repeat(1), &mut file));
        assert!(written.is_err(), "it has an end");
    }

    /// Gives the room back.
    pub fn free(&self) {
        drop(fs::remove_file(self.ballast()));
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Whoever still has a file of it open ends with the test.
        drop(Command::new("umount").arg("--lazy").arg(&self.0).status());
    }
}
