//! What a source found: one revision and its files.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use xene_schemas::{
    diagnostic::Diagnostic,
    meta::{FileHash, Revision},
};

use super::{
    files::{DEFAULT_FOLDER, IGNORE_FILE},
    health::{Failure, Reason},
};
use crate::compile::declares_workflows;

/// Path → content id of files whose content the receiver has already.
pub type Known = BTreeMap<String, String>;

/// One revision of a source, whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// The commit, or `dir-` and a hash of paths and contents.
    pub revision: Revision,
    /// Its author, as `Name <mail>`.
    pub author: Option<String>,
    /// The first line of its message.
    pub subject: Option<String>,
    /// The folder that was read, relative to the source's root; empty for the root itself.
    pub folder: String,
    /// The whole listing by path relative to the source's root (`/` separated); unchanged ones carry no bytes.
    pub files: BTreeMap<String, FileEntry>,
    /// False if part of the scope could not be read: then what vanished may have moved there.
    pub complete: bool,
    /// Links that lead outside, submodules, LFS pointers, unreadable or oversized files; sorted.
    pub problems: Vec<Diagnostic>,
}

/// One file of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// Equal id, equal content: a blob's object id, or blake3 in hex; and what stands for the files that it takes.
    pub content: String,
    /// Present if `content` is not what the receiver knows of this path; at most [`MAX_FILE_BYTES`].
    pub bytes: Option<Vec<u8>>,
    /// With `bytes`, if its workflows have files that travel: all that any of them takes, by path.
    pub files: Option<Vec<Travelling>>,
}

/// A file that travels with the workflows of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Travelling {
    /// Relative to the folder of the workflow file.
    pub path: String,
    /// True if it may be executed.
    pub executable: bool,
    /// Its bytes, or why there are none.
    pub what: What,
}

/// The bytes of a file that travels, or why there are none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum What {
    /// They are in the store.
    File {
        /// What they are known by.
        hash: FileHash,
        /// In bytes.
        size: u64,
    },
    /// With them there would be too many.
    TooMany {
        /// In bytes.
        size: u64,
    },
    /// They can't travel; a sentence without its subject.
    Refused(String),
}

/// Files above this are not read: 1 MiB.
pub const MAX_FILE_BYTES: u64 = 1 << 20;

impl Snapshot {
    /// Fails if the default folder was in effect, as `before` says, and there is none any more: then all of the root was
    /// read, which is no place for workflows unless one is there.
    ///
    /// # Errors
    /// [`Reason::PathMissing`].
    pub fn check_folder(&self, before: Option<&str>) -> Result<(), Failure> {
        if before != Some(DEFAULT_FOLDER) || self.folder == DEFAULT_FOLDER || declares_workflows(self) {
            return Ok(());
        }
        Err(Failure::new(
            Reason::PathMissing,
            format!(
                "there is no folder {DEFAULT_FOLDER} any more in {}, and no workflow beside where it was; what was in \
                 effect stays. To remove everything, keep the folder with an empty {IGNORE_FILE}",
                self.revision
            ),
        ))
    }

    /// Path → content id of every file: what the receiver knows once it has taken this snapshot.
    pub fn known(&self) -> Known {
        self.files.iter().map(|(path, file)| (path.clone(), file.content.clone())).collect()
    }
}
