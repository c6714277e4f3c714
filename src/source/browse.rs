//! Looks into commits beside a source's thread, for people who ask: reads only, and opens the repository for each
//! look, so that nothing waits for a fetch. Everything here may block.

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use git2::{DiffOptions, Oid, Repository, Tree};
use jiff::Timestamp;
use xene_schemas::meta::Revision;

use super::{
    files::{self, DEFAULT_FOLDER},
    git::{GitReader, revision, unreadable},
    health::{Failure, Reason},
    snapshot::{Known, MAX_FILE_BYTES, Snapshot},
    travel::Travel,
};

/// A repository, or the mirror of one.
#[derive(Debug, Clone)]
pub struct Browser {
    repository: PathBuf,
    /// What is followed: a branch's name, a full ref, or what HEAD names.
    branch: Option<String>,
    folder: Option<String>,
    /// True for our own mirror, which has no other branch.
    is_mirror: bool,
}

/// What a commit says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitInfo {
    /// Its id.
    pub revision: Revision,
    /// When it was made, by its committer's clock.
    pub at: Timestamp,
    /// As `Name <mail>`.
    pub author: Option<String>,
    /// The first line of its message.
    pub subject: Option<String>,
}

/// One commit of a walk, and what it changed against its first parent.
pub struct Visit<'r> {
    repo: &'r Repository,
    /// The commit.
    pub commit: CommitInfo,
    /// How many commits are newer.
    pub position: usize,
    /// Files that it changed, by path.
    pub changed: Vec<ChangedFile>,
}

/// A file that a commit changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangedFile {
    /// Relative to the source's root.
    pub path: String,
    /// True if workflows may be declared in it.
    pub counts: bool,
    /// The content before, if the file was there.
    pub old: Option<BlobId>,
}

/// Some content of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobId(Oid);

impl std::fmt::Debug for Visit<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Visit").field("commit", &self.commit).finish_non_exhaustive()
    }
}

impl Visit<'_> {
    /// Reads some content; `None` if it is too large, or can't be read.
    pub fn read(&self, blob: BlobId) -> Option<Vec<u8>> {
        let blob = self.repo.find_blob(blob.0).ok()?;
        (blob.size() as u64 <= MAX_FILE_BYTES).then(|| blob.content().to_vec())
    }
}

impl Browser {
    pub(super) fn new(repository: PathBuf, branch: Option<String>, folder: Option<String>, is_mirror: bool) -> Self {
        Self { repository, branch, folder, is_mirror }
    }

    /// A repository of this machine, by its root.
    pub fn local(root: PathBuf, folder: Option<String>) -> Self {
        Self::new(root, None, folder, false)
    }

    fn open(&self) -> Result<GitReader, Failure> {
        let mut git = GitReader::open(&self.repository, self.branch.clone(), self.folder.clone())?;
        git.carry(Travel { wanted: crate::compile::wanted_files, store: None });
        Ok(git)
    }

    /// The files of a commit by any of its names. What `known` has carries no bytes.
    ///
    /// # Errors
    /// If the name means no commit, or the commit can't be read.
    pub fn snapshot(&self, name: &str, known: &Known) -> Result<Snapshot, Failure> {
        let mut git = self.open()?;
        let commit = self.resolve(&mut git, name)?;
        git.read(commit, known)
    }

    fn resolve(&self, git: &mut GitReader, name: &str) -> Result<Oid, Failure> {
        if !self.is_mirror {
            return git.resolve(name);
        }
        let short = |reference: &str| reference.rsplit('/').next() == Some(name);
        if name == "HEAD" || self.branch.as_deref().is_some_and(short) {
            return Ok(git.tip()?.commit);
        }
        git.resolve(name).map_err(|_| {
            let message =
                format!("{name:?} names no commit of the branch that is followed; only its commits are fetched");
            Failure::new(Reason::RefMissing, message)
        })
    }

    /// One file of a commit, by its path from the root; `None` if it is not there, or too large.
    ///
    /// # Errors
    /// If the commit is not there.
    pub fn file(&self, revision: &Revision, path: &str) -> Result<Option<Vec<u8>>, Failure> {
        let git = self.open()?;
        let repo = git.repository();
        let commit = Oid::from_str(&revision.0).and_then(|id| repo.find_commit(id));
        let tree = commit.and_then(|commit| commit.tree()).map_err(|error| unreadable(&error))?;
        let blob = tree.get_path(Path::new(path)).ok().and_then(|entry| repo.find_blob(entry.id()).ok());
        Ok(blob.filter(|blob| blob.size() as u64 <= MAX_FILE_BYTES).map(|blob| blob.content().to_vec()))
    }

    /// What a commit says of itself.
    ///
    /// # Errors
    /// If it is not there.
    pub fn commit(&self, revision: &Revision) -> Result<CommitInfo, Failure> {
        let git = self.open()?;
        let repo = git.repository();
        let commit = Oid::from_str(&revision.0).and_then(|id| repo.find_commit(id));
        commit.map(|commit| info(&commit)).map_err(|error| unreadable(&error))
    }

    /// Walks back from a commit by first parents, newest first, at most `most` of them. True if it ended before the
    /// first commit, and not because `visit` broke it off.
    ///
    /// # Errors
    /// If a commit can't be read.
    pub fn walk(
        &self,
        from: &Revision,
        most: usize,
        mut visit: impl FnMut(Visit<'_>) -> ControlFlow<()>,
    ) -> Result<bool, Failure> {
        let git = self.open()?;
        let repo = git.repository();
        let broken = |error: git2::Error| unreadable(&error);
        let mut next = Some(Oid::from_str(&from.0).and_then(|id| repo.find_commit(id)).map_err(broken)?);
        for position in 0..most {
            let Some(commit) = next else { return Ok(false) };
            // A shallow clone ends where its parents are not at hand.
            let parent = commit.parent(0).ok();
            let tree = commit.tree().map_err(broken)?;
            let before = parent.as_ref().map(git2::Commit::tree).transpose().map_err(broken)?;
            let changed = self.changed(repo, before.as_ref(), &tree).map_err(broken)?;
            if visit(Visit { repo, commit: info(&commit), position, changed }).is_break() {
                return Ok(false);
            }
            next = parent;
        }
        Ok(next.is_some())
    }

    fn changed(
        &self,
        repo: &Repository,
        old: Option<&Tree<'_>>,
        new: &Tree<'_>,
    ) -> Result<Vec<ChangedFile>, git2::Error> {
        if old.is_some_and(|old| old.id() == new.id()) {
            return Ok(Vec::new());
        }
        let mut options = DiffOptions::new();
        options.disable_pathspec_match(true);
        match &self.folder {
            Some(folder) if !folder.is_empty() => drop(options.pathspec(folder)),
            Some(_) => {}
            None => {
                let has = |tree: &Tree<'_>| tree.get_name(DEFAULT_FOLDER).is_some();
                if has(new) && old.is_none_or(has) {
                    options.pathspec(DEFAULT_FOLDER);
                }
            }
        }
        let diff = repo.diff_tree_to_tree(old, Some(new), Some(&mut options))?;
        let changed = diff.deltas().filter_map(|delta| {
            let path = delta.new_file().path().or_else(|| delta.old_file().path())?.to_str()?;
            let counts = files::counts(path.rsplit('/').next()?) && !path.split('/').any(files::is_hidden);
            let old = Some(delta.old_file().id()).filter(|id| !id.is_zero()).map(BlobId);
            Some(ChangedFile { path: path.to_owned(), counts, old })
        });
        Ok(changed.collect())
    }
}

fn info(commit: &git2::Commit<'_>) -> CommitInfo {
    let author = commit.author();
    let author = match (author.name(), author.email()) {
        (Ok(name), Ok(email)) => Some(format!("{name} <{email}>")),
        _ => None,
    };
    CommitInfo {
        revision: revision(commit.id()),
        at: Timestamp::from_second(commit.time().seconds()).unwrap_or_default(),
        author,
        subject: commit.summary_bytes().map(|subject| String::from_utf8_lossy(subject).into_owned()),
    }
}

/// The root of the work tree that a path lies in.
pub fn root_of(path: &Path) -> Option<PathBuf> {
    let repo = Repository::discover(path).ok()?;
    repo.workdir().and_then(|root| root.canonicalize().ok())
}

/// The id that git gives a file's content.
pub fn blob_id(bytes: &[u8]) -> Option<String> {
    Oid::hash_object(git2::ObjectType::Blob, bytes).ok().map(|id| id.to_string())
}
