//! What a source hands to the compiler: one revision and its files.

use std::collections::BTreeMap;

use xene_schemas::{diagnostic::Diagnostic, meta::Revision};

/// One revision and its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The revision.
    pub revision: Revision,
    /// Its author, as `Name <mail>`.
    pub author: Option<String>,
    /// The first line of its message.
    pub subject: Option<String>,
    /// Every file of the scope, by its path relative to the source's root.
    pub files: BTreeMap<String, FileEntry>,
    /// False if something of the scope could not be read.
    pub complete: bool,
    /// What could not be read, and why.
    pub problems: Vec<Diagnostic>,
}

/// One file of a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// The blob's object id, or in directory mode the content's hash.
    pub content: String,
    /// Its bytes; absent if the compiler knows this content already.
    pub bytes: Option<Vec<u8>>,
}
