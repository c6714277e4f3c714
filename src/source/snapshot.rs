//! What a source found: one revision and its files.

use std::collections::BTreeMap;

use xene_schemas::{diagnostic::Diagnostic, meta::Revision};

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
    /// Equal id, equal content: a blob's object id, or blake3 in hex.
    pub content: String,
    /// Present if `content` is not what the receiver knows of this path; at most [`MAX_FILE_BYTES`].
    pub bytes: Option<Vec<u8>>,
}

/// Files above this are not read: 1 MiB.
pub const MAX_FILE_BYTES: u64 = 1 << 20;

impl Snapshot {
    /// Path → content id of every file: what the receiver knows once it has taken this snapshot.
    pub fn known(&self) -> Known {
        self.files.iter().map(|(path, file)| (path.clone(), file.content.clone())).collect()
    }
}
