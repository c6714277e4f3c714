//! A repository behind a server as a source: fetched into a mirror of our own, which is disposable, and read there.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use git2::{Repository, RepositoryInitOptions};
use notify::RecursiveMode;
use tracing::{debug, warn};

use super::{
    browse::Browser,
    config::Rewrites,
    fetch::{Fetch, FetchError},
    git::{GitReader, missing_branch},
    health::{Failure, Reason},
    local::Followed,
    travel::Travel,
    worker::{Look, Pace, Reader, Seen},
};

/// A repository behind a server.
pub(super) struct Remote {
    fetch: Fetch,
    branch: Option<String>,
    folder: Option<String>,
    rewrites: Rewrites,
    poll: Duration,
    /// Where our mirror lies.
    mirror: PathBuf,
    git: Option<GitReader>,
    travel: Travel,
    followed: Followed,
    /// Fetches since the mirror was last packed.
    fetched: u32,
}

impl Remote {
    pub(super) fn new(
        fetch: Fetch,
        branch: Option<String>,
        folder: Option<String>,
        rewrites: Rewrites,
        poll: Duration,
        mirror_dir: &Path,
    ) -> Self {
        let name = &blake3::hash(fetch.url.url.as_bytes()).to_hex()[..16];
        let mirror = mirror_dir.join(format!("{name}.git"));
        Self {
            fetch,
            branch,
            folder,
            rewrites,
            poll,
            mirror,
            git: None,
            travel: Travel::default(),
            followed: Followed::default(),
            fetched: 0,
        }
    }

    /// To look into the mirror's commits.
    pub(super) fn browser(&self) -> Browser {
        Browser::new(self.mirror.clone(), Some(self.refs().1), self.folder.clone(), true)
    }

    /// Fetches into the mirror; one that is damaged is made anew.
    fn update(&mut self, stop: &AtomicBool) -> Result<(), Failure> {
        if !self.mirror.exists() {
            return self.clone_anew(stop);
        }
        let (from, to) = self.refs();
        match self.fetch.fetch(&self.mirror, &from, &to, stop) {
            Ok(()) => Ok(()),
            Err(FetchError::NoSuchRef) => Err(self.no_such_ref(stop)),
            Err(FetchError::Failed(failure)) => Err(failure),
            Err(FetchError::Mirror(why)) => {
                warn!(mirror = %self.mirror.display(), why, "the mirror is damaged; it is made anew");
                self.clone_anew(stop)
            }
        }
    }

    /// Makes a mirror beside, and puts it in place once it is whole.
    fn clone_anew(&mut self, stop: &AtomicBool) -> Result<(), Failure> {
        let beside = self.mirror.with_extension("new");
        let broken = |error: &dyn std::fmt::Display| {
            let message = format!("the mirror {} can't be made: {error}", beside.display());
            Failure::new(Reason::Unreadable, message)
        };
        remove(&beside).map_err(|error| broken(&error))?;
        let mut options = RepositoryInitOptions::new();
        options.bare(true).external_template(false).mkpath(true).initial_head("xene");
        Repository::init_opts(&beside, &options).map_err(|error| broken(&error.message()))?;
        let (from, to) = self.refs();
        match self.fetch.fetch(&beside, &from, &to, stop) {
            Ok(()) => {}
            Err(FetchError::NoSuchRef) => return Err(self.no_such_ref(stop)),
            Err(FetchError::Failed(failure)) => return Err(failure),
            Err(FetchError::Mirror(why)) => return Err(broken(&why)),
        }
        self.git = None;
        remove(&self.mirror).and_then(|()| fs::rename(&beside, &self.mirror)).map_err(|error| broken(&error))
    }

    /// What is fetched, and where to.
    fn refs(&self) -> (String, String) {
        match &self.branch {
            Some(branch) => (format!("refs/heads/{branch}"), format!("refs/xene/heads/{branch}")),
            None => ("HEAD".to_owned(), "refs/xene/HEAD".to_owned()),
        }
    }

    fn no_such_ref(&self, stop: &AtomicBool) -> Failure {
        let url = &self.fetch.url.url;
        match self.fetch.branches(stop) {
            Err(failure) => failure,
            Ok(branches) if branches.is_empty() => {
                Failure::new(Reason::Empty, format!("{url} has no commit yet; the first one takes effect"))
            }
            Ok(branches) => match &self.branch {
                Some(branch) => missing_branch(branch, url, &branches),
                None => Failure::new(
                    Reason::RefMissing,
                    format!("HEAD of {url} leads to no branch; name the branch to follow with --branch"),
                ),
            },
        }
    }

    fn read(&mut self, look: &Look<'_>) -> Result<Seen, Failure> {
        let git = match &mut self.git {
            Some(git) => git,
            None => {
                let reference = Some(self.refs().1);
                let mut git = GitReader::open(&self.mirror, reference, self.folder.clone())?;
                git.carry(self.travel.clone());
                self.git.insert(git)
            }
        };
        let tip = git.tip()?;
        self.followed.look(git, tip, self.rewrites, look.applied)
    }
}

impl Reader for Remote {
    fn look(&mut self, look: Look<'_>) -> Result<Seen, Failure> {
        self.update(look.stop)?;
        let seen = match self.read(&look) {
            Err(failure) if !matches!(failure.reason, Reason::PathMissing | Reason::ApplyFailed) => {
                warn!(mirror = %self.mirror.display(), why = %failure, "the mirror can't be read; it is made anew");
                self.clone_anew(look.stop)?;
                self.read(&look)?
            }
            seen => seen?,
        };
        if matches!(seen.snapshot, Ok(Some(_))) {
            self.fetched += 1;
        }
        Ok(seen)
    }

    fn carry(&mut self, travel: Travel) {
        self.travel = travel;
        self.git = None;
    }

    fn watches(&self) -> Vec<(PathBuf, RecursiveMode)> {
        Vec::new()
    }

    fn filter(&self) -> Arc<dyn Fn(&Path) -> bool + Send + Sync> {
        Arc::new(|_| false)
    }

    fn rest(&mut self, stop: &AtomicBool) {
        if self.fetched >= FETCHES_PER_TIDY {
            self.fetched = 0;
            if let Err(failure) = self.fetch.tidy(&self.mirror, stop) {
                debug!(%failure, "the mirror was not packed");
            }
        }
    }

    fn pace(&self) -> Pace {
        Pace {
            quiet: Duration::ZERO,
            cap: Duration::ZERO,
            interval: self.poll,
            unwatched: self.poll,
            remote: true,
            looks_cheaply: false,
        }
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Each fetch leaves a few loose objects or a pack.
const FETCHES_PER_TIDY: u32 = 50;
