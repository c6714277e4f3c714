//! Finds out what the files are: of a commit, or of a folder as it lies. Nothing here knows what they mean.
//!
//! - [`snapshot`]: what is handed over · [`config`]: what a person says · [`health`]: what can go wrong
//! - `git`: commits · `local`, `remote`, `directory`: the three kinds of source · `fetch`: the child process
//! - [`travel`]: files that workflows take with them
//! - [`browse`]: commits, for people who ask · `watch`: "something changed" · `backoff` · `report`: transitions only · `worker`: the thread that ties them together

use std::{
    io,
    path::{Component, Path, PathBuf},
    sync::atomic::AtomicBool,
    time::Duration,
};

use crate::decide::desired::SourceHealth;

mod backoff;
pub mod browse;
pub mod config;
mod directory;
mod fetch;
mod files;
mod git;
pub mod health;
mod local;
mod location;
mod remote;
mod report;
pub mod snapshot;
pub mod travel;
mod watch;
mod worker;

#[cfg(test)]
mod tests;

pub use browse::Browser;
pub use config::{Credentials, Mode, Password, Rewrites, SourceConfig};
pub use directory::{read_folder, taken_from_folder};
pub use files::DEFAULT_FOLDER;
pub use git::taken_from_commit;
pub use health::{Failure, Reason, SourceError};
pub use snapshot::{FileEntry, Known, Snapshot};
pub use worker::{ApplyError, IsDoubtful, Resume, SourceHandle};
use xene_schemas::source::SourceKind;

use self::{
    directory::Directory,
    fetch::Fetch,
    git::GitReader,
    local::LocalGit,
    location::Location,
    remote::Remote,
    travel::Travel,
    worker::{Manner, Reader},
};

/// A source, opened.
pub struct Source {
    reader: Box<dyn Reader>,
    kind: SourceKind,
    url: String,
    folder: Option<String>,
    stale_after: Duration,
    is_doubtful: Option<IsDoubtful>,
    browser: Option<Browser>,
    start_watcher: watch::Start,
}

impl Source {
    /// Opens a source. A local one must be there; a remote one is not asked yet.
    pub fn open(config: SourceConfig) -> Result<Self, SourceError> {
        if let Some(branch) = config.branch.as_ref().filter(|branch| !git::is_branch_name(branch)) {
            return Err(SourceError::Branch(branch.clone()));
        }
        let folder = config.path.as_deref().map(clean_folder).transpose()?;
        let stale_after = config.stale_after;
        let named = folder.clone();
        let (reader, kind, url, browser): (Box<dyn Reader>, _, _, _) = match Location::parse(&config.location)? {
            Location::Remote(url) if config.mode == Mode::Directory => {
                return Err(SourceError::DirectoryByUrl(url.url));
            }
            Location::Remote(url) => {
                let shown = url.url.clone();
                let fetch = Fetch { url, credentials: config.credentials, silence: config.timeout };
                let (branch, rewrites) = (config.branch, config.rewrites);
                let remote = Remote::new(fetch, branch, folder, rewrites, config.poll, &config.mirror_dir);
                let browser = remote.browser();
                (Box::new(remote), SourceKind::Git, shown, Some(browser))
            }
            Location::Local(path) => {
                let metadata = path.metadata().map_err(|_| SourceError::PathMissing(path.clone()))?;
                if !metadata.is_dir() {
                    return Err(SourceError::NotFolder(path));
                }
                let path = absolute(&path)?;
                let url = path.display().to_string();
                match open_git(&path, &config, folder.clone())? {
                    Some(git) => {
                        let browser = Browser::new(path, config.branch, folder, false);
                        (Box::new(LocalGit::new(git, config.rewrites)), SourceKind::Git, url, Some(browser))
                    }
                    None if config.branch.is_some() && config.branch_named => {
                        return Err(SourceError::BranchOfDirectory);
                    }
                    None => (Box::new(Directory::new(path, folder)), SourceKind::Directory, url, None),
                }
            }
        };
        let start_watcher: watch::Start = watch::start;
        Ok(Self { reader, kind, url, folder: named, stale_after, is_doubtful: None, browser, start_watcher })
    }

    /// What it is.
    pub fn kind(&self) -> SourceKind {
        self.kind
    }

    /// To look into its commits; `None` for a folder.
    pub fn browser(&self) -> Option<Browser> {
        self.browser.clone()
    }

    /// Where it is, without credentials.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The folder within it that a person named; without one, it is found anew at every look.
    pub fn folder(&self) -> Option<&str> {
        self.folder.as_deref()
    }

    /// Has snapshots of a folder looked at before they are handed over: while `is_doubtful` says that a changed file does
    /// not parse, the folder is read again for up to a second. Of no use for commits, which are whole.
    #[must_use]
    pub fn doubting(mut self, is_doubtful: impl FnMut(&Snapshot) -> bool + Send + 'static) -> Self {
        if self.kind == SourceKind::Directory {
            self.is_doubtful = Some(Box::new(is_doubtful));
        }
        self
    }

    /// Has files travel with workflows, as these patterns say and to this store.
    #[must_use]
    pub fn carrying(mut self, travel: Travel) -> Self {
        self.reader.carry(travel);
        self
    }

    /// Looks once, without a thread: for commands that check or plan. What `known` has carries no bytes.
    pub fn read(&mut self, known: Known) -> Result<Snapshot, Failure> {
        let applied = worker::Applied { known, ..worker::Applied::default() };
        let look = worker::Look { applied: &applied, hurry: true, stop: &AtomicBool::new(false) };
        self.reader.look(look)?.snapshot?.ok_or_else(|| Failure::new(Reason::Unreadable, "nothing was read"))
    }

    /// Reads one commit of a repository of this machine, by any of its names: `v1.2`, `HEAD~1`, `0a1b2c3`.
    pub fn read_commit(&mut self, name: &str, known: &Known) -> Result<Snapshot, Failure> {
        self.reader.read_commit(name, known)
    }

    /// Starts the source's thread. `apply` brings a snapshot into effect and returns once that is durable; on an error the
    /// newest snapshot is tried again later. `health` is told of transitions only. Both are called on that thread.
    pub fn spawn<A, H>(self, resume: Resume, apply: A, health: H) -> io::Result<SourceHandle>
    where
        A: FnMut(Snapshot) -> Result<(), ApplyError> + Send + 'static,
        H: FnMut(SourceHealth) + Send + 'static,
    {
        let manner = Manner {
            stale_after: self.stale_after,
            has_default_folder: self.folder.is_none(),
            start_watcher: self.start_watcher,
        };
        worker::spawn(self.reader, manner, self.is_doubtful, resume, apply, health)
    }
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").field("kind", &self.kind).field("url", &self.url).finish_non_exhaustive()
    }
}

/// The repository at `path`; `None` if it is to be read as a folder.
fn open_git(path: &Path, config: &SourceConfig, folder: Option<String>) -> Result<Option<GitReader>, SourceError> {
    if config.mode == Mode::Directory {
        return Ok(None);
    }
    match GitReader::open(path, config.branch.clone(), folder) {
        Ok(git) => Ok(Some(git)),
        Err(SourceError::NotRepository(_) | SourceError::WithinRepository { .. }) if config.mode == Mode::Auto => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// `path` from the root. Its links stay, so that one that is pointed elsewhere is followed.
fn absolute(path: &Path) -> Result<PathBuf, SourceError> {
    let is_plain = path.components().all(|part| part != Component::ParentDir);
    let absolute = if is_plain { std::path::absolute(path) } else { path.canonicalize() };
    absolute.map_err(|_| SourceError::PathMissing(path.to_owned()))
}

/// `folder` with single slashes and without `.`; it must stay within the source.
fn clean_folder(folder: &str) -> Result<String, SourceError> {
    let mut parts = Vec::new();
    for component in Path::new(folder).components() {
        match component {
            Component::Normal(part) => parts.push(part.to_string_lossy()),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                return Err(SourceError::Path(folder.to_owned()));
            }
        }
    }
    Ok(parts.join("/"))
}
