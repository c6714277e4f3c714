//! Why a source can't be opened, and why it can't be read for now.

use std::{
    fmt,
    path::{Path, PathBuf},
};

/// Why a source can't be opened at all: a mistake in how it was named, with its remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// Nothing is there.
    #[error("{0} does not exist; name a folder, a repository or a URL")]
    PathMissing(PathBuf),
    /// A file was named.
    #[error("{0} is a file; name its folder and choose within it with --path")]
    NotFolder(PathBuf),
    /// `--mode git` on a plain folder.
    #[error("{0} is not a git repository; run `git init` there, or use --mode directory")]
    NotRepository(PathBuf),
    /// `--mode git` on a folder within a work tree.
    #[error("{path} lies within the repository {root}; use --source {root} --path {inner}")]
    WithinRepository {
        /// As given.
        path: PathBuf,
        /// The work tree's root.
        root: PathBuf,
        /// `path`, relative to `root`.
        inner: PathBuf,
    },
    /// The repository belongs to another user.
    #[error("{0} belongs to another user; if you trust it, run `git config --global --add safe.directory {0}`")]
    ForeignOwner(PathBuf),
    /// Its format is not supported.
    #[error(
        "{path} is a {format} repository, which is not supported; make a copy in the usual format, and name that: `{}`",
        copying(path, format)
    )]
    UnsupportedFormat {
        /// Which.
        path: PathBuf,
        /// `SHA-256` or `reftable`, or as git names the extension.
        format: String,
    },
    /// git2 can't open it.
    #[error("{path} can't be opened: {message}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// As git2 words it.
        message: String,
    },
    /// The URL is malformed or of a scheme that is not allowed.
    #[error("{url} is not a source: {why}")]
    Url {
        /// Without credentials.
        url: String,
        /// A fragment.
        why: &'static str,
    },
    /// `--mode directory` with a URL.
    #[error("{0} is a URL; --mode directory needs a folder of this machine")]
    DirectoryByUrl(String),
    /// `--branch` is no name of a branch.
    #[error("{0:?} is not the name of a branch")]
    Branch(String),
    /// `--branch` in directory mode.
    #[error("--branch means nothing for a folder that is not a repository")]
    BranchOfDirectory,
    /// `--path` leaves the source.
    #[error("--path {0:?} must be a folder within the source, such as `xene.d` or `ops/flows`")]
    Path(String),
}

/// The command that makes a copy in the usual format, `COPY`, which can't be a clone where object ids differ.
fn copying(path: &Path, format: &str) -> String {
    let path = path.display();
    match format {
        "SHA-256" => format!(
            "git init --bare --object-format=sha1 -b \"$(git -C {path} branch --show-current)\" COPY && git -C {path} \
             fast-export --all --signed-tags=strip | git -C COPY fast-import"
        ),
        "reftable" => format!("git clone --bare --ref-format=files {path} COPY"),
        _ => format!("git clone --bare {path} COPY"),
    }
}

/// Why a source can't be read for now; the last state goes on, and the source is looked at again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// In a word.
    pub reason: Reason,
    /// A sentence with the remedy; never contains credentials.
    pub message: String,
}

impl Failure {
    pub(super) fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// Why a source can't be read, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The branch is not there.
    RefMissing,
    /// The folder is not there.
    PathMissing,
    /// The repository has no commit.
    Empty,
    /// The server does not answer, or too slowly.
    Unreachable,
    /// The server does not let us in, or is not the one that is known.
    AuthFailed,
    /// The repository's format is not supported.
    UnsupportedFormat,
    /// The repository belongs to another user.
    ForeignOwner,
    /// Objects or files can't be read.
    Unreadable,
    /// The branch was rewritten, and that was forbidden.
    HistoryRewritten,
    /// There is no `git` on this machine.
    GitMissing,
    /// What was read could not be brought into effect.
    ApplyFailed,
    /// The source was stopped.
    Stopped,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl From<SourceError> for Failure {
    fn from(error: SourceError) -> Self {
        let reason = match error {
            SourceError::PathMissing(_) | SourceError::NotRepository(_) => Reason::PathMissing,
            SourceError::ForeignOwner(_) => Reason::ForeignOwner,
            SourceError::UnsupportedFormat { .. } => Reason::UnsupportedFormat,
            _ => Reason::Unreadable,
        };
        Self::new(reason, error.to_string())
    }
}
