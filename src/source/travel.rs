//! Files that travel, as far as a source knows them: which files the patterns of a workflow file take, and their bytes
//! on the way into the store. What the patterns mean for a workflow, the compiler says.
//!
//! What a workflow file takes is part of its content id, so a change of any of those files is a change of it.

use std::{collections::HashMap, io, sync::Arc};

use xene_agent::{content::ContentStore, glob::Globs};
use xene_schemas::meta::FileHash;

use super::{
    health::{Failure, Reason},
    snapshot::{Travelling, What},
};

/// Files beyond these are not looked at: the compiler refuses so many.
pub(super) const MAX_FILES: usize = crate::compile::MAX_TRAVELLING_FILES + 1;

/// Between the content id of a workflow file and what stands for the files that it takes.
const MARK: char = '+';

/// What a workflow file asks for.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The patterns of all of its workflows, relative to its folder.
    pub globs: Globs,
    /// Bytes beyond this are not read: the compiler refuses so many.
    pub budget: u64,
}

/// How files that travel are found and kept.
#[derive(Debug, Clone)]
pub struct Travel {
    /// What the workflow file at this path asks for; `None`: nothing.
    pub wanted: fn(&str, &[u8]) -> Option<Wanted>,
    /// Where bytes go; without, only their hashes are told.
    pub store: Option<ContentStore>,
}

impl Default for Travel {
    /// Nothing travels.
    fn default() -> Self {
        Self { wanted: |_, _| None, store: None }
    }
}

/// [`Travel`], and what is remembered from look to look.
#[derive(Debug, Default)]
pub(super) struct Carrier {
    travel: Travel,
    /// Path → content id of the workflow file, and what it asks for; those that ask for nothing are not here.
    wanted: HashMap<String, (String, Arc<Wanted>)>,
    /// Content id of a file → its hash and size, of what was kept.
    kept: HashMap<String, (FileHash, u64)>,
}

/// A file that patterns take, before its bytes are looked at.
#[derive(Debug, Clone)]
pub(super) struct Found<F> {
    /// Relative to the folder of the workflow file.
    pub(super) path: String,
    pub(super) executable: bool,
    /// Its content id, and how to get at it; or why it can't travel.
    pub(super) file: Result<(String, F), String>,
}

/// The bytes of a file.
pub(super) enum Bytes {
    Whole(Vec<u8>),
    /// More than was asked for; this many.
    TooMany(u64),
    /// Not to be had; a sentence without its subject.
    Refused(String),
}

impl Carrier {
    pub(super) fn new(travel: Travel) -> Self {
        Self { travel, ..Self::default() }
    }

    /// What the workflow file at `path` asks for. `known` is the content id that is in effect, `read` gives the file's
    /// bytes, and is not asked if it is known that the file asks for nothing.
    pub(super) fn wanted<E>(
        &mut self,
        path: &str,
        content: &str,
        known: Option<&String>,
        read: impl FnOnce() -> Result<Option<Vec<u8>>, E>,
    ) -> Result<Option<Arc<Wanted>>, E> {
        if let Some((of, wanted)) = self.wanted.get(path)
            && of == content
        {
            return Ok(Some(wanted.clone()));
        }
        self.wanted.remove(path);
        if known.is_some_and(|known| known == content) {
            return Ok(None);
        }
        let Some(wanted) = read()?.and_then(|bytes| (self.travel.wanted)(path, &bytes)) else { return Ok(None) };
        let wanted = Arc::new(wanted);
        self.wanted.insert(path.to_owned(), (content.to_owned(), wanted.clone()));
        Ok(Some(wanted))
    }

    /// Sees to it that the bytes of all that was found are kept. `read` gives those of a file, if they are at most so
    /// many.
    pub(super) fn keep<F>(
        &mut self,
        wanted: &Wanted,
        found: Vec<Found<F>>,
        mut read: impl FnMut(&F, u64) -> Result<Bytes, Failure>,
    ) -> Result<Vec<Travelling>, Failure> {
        let mut left = wanted.budget;
        let mut travelling = Vec::with_capacity(found.len());
        for Found { path, executable, file } in found {
            let what = match file {
                Err(why) => What::Refused(why),
                Ok((content, file)) => match self.kept(&content) {
                    Some((hash, size)) => What::File { hash, size },
                    None => match read(&file, left)? {
                        Bytes::Whole(bytes) => {
                            let hash = self.keep_one(&bytes)?;
                            let size = bytes.len() as u64;
                            self.kept.insert(content, (hash, size));
                            What::File { hash, size }
                        }
                        Bytes::TooMany(size) => What::TooMany { size },
                        Bytes::Refused(why) => What::Refused(why),
                    },
                },
            };
            if let What::File { size, .. } | What::TooMany { size } = what {
                left = left.saturating_sub(size);
            }
            travelling.push(Travelling { path, executable, what });
        }
        Ok(travelling)
    }

    /// What is still kept of a file whose bytes were read before.
    fn kept(&mut self, content: &str) -> Option<(FileHash, u64)> {
        let (hash, size) = *self.kept.get(content)?;
        // A sweep may have taken it since, if nothing referred to it.
        let here = self.travel.store.as_ref().is_none_or(|store| store.has(&hash));
        here.then_some((hash, size))
    }

    fn keep_one(&self, bytes: &[u8]) -> Result<FileHash, Failure> {
        let Some(store) = &self.travel.store else { return Ok(FileHash::of(bytes)) };
        store.keep(bytes).map_err(|error: io::Error| {
            let message = format!("a file that travels with a workflow can't be stored: {error}");
            Failure::new(Reason::ApplyFailed, message)
        })
    }
}

/// The content id of a workflow file that takes these files.
pub(super) fn with_files<F>(content: &str, found: &[Found<F>]) -> String {
    let mut hasher = blake3::Hasher::new();
    for Found { path, executable, file } in found {
        let (kind, text) = match file {
            Ok((content, _)) => (u8::from(*executable), content),
            Err(why) => (2, why),
        };
        for part in [path.as_bytes(), &[kind], text.as_bytes()] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
    }
    format!("{content}{MARK}{}", &hasher.finalize().to_hex()[..32])
}

/// The content id of a workflow file without the files that it takes.
pub(super) fn without_files(content: &str) -> &str {
    content.split_once(MARK).map_or(content, |(content, _)| content)
}

/// The folder of a file: what its patterns are relative to.
pub(super) fn folder_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

pub(super) const NOT_UTF8: &str = "has a name that is not UTF-8; rename it";
pub(super) const SUBMODULE: &str = "is a submodule, whose files the repository does not hold; copy them into it";
pub(super) const LFS: &str =
    "is a Git LFS pointer instead of the file; keep it out of LFS with `git lfs untrack`, then commit it again";
