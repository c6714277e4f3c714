//! The folder that a run on this machine works in, and that goes with it.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

/// A folder of this account alone, below the system's temporary one. Removed when dropped, unless it is kept.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    kept: bool,
}

impl Scratch {
    /// Makes the folder; `name` is unique.
    ///
    /// # Errors
    /// If it can't be made, or is there already.
    pub fn new(name: &str) -> io::Result<Self> {
        let path = std::env::temp_dir().join(name);
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self { path, kept: false })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Lets the workspaces in it stay.
    pub fn keep(&mut self) {
        self.kept = true;
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let gone = if self.kept {
            ["logs", "files"].map(|name| self.path.join(name)).to_vec()
        } else {
            vec![self.path.clone()]
        };
        for path in gone {
            if let Err(error) = fs::remove_dir_all(&path) {
                tracing::warn!(path = %path.display(), %error, "a temporary folder can't be removed");
            }
        }
    }
}
