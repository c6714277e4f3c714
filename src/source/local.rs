//! A repository of this machine as a source: its refs are watched, its commits read.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use git2::Oid;
use notify::RecursiveMode;
use xene_schemas::meta::Revision;

use super::{
    config::Rewrites,
    git::{self, GitReader, Tip},
    health::{Failure, Reason},
    snapshot::{Known, Snapshot},
    travel::Travel,
    worker::{Applied, Look, Pace, Reader, Seen, Superseded},
};

/// A work tree or bare repository of this machine.
pub(super) struct LocalGit {
    git: GitReader,
    rewrites: Rewrites,
    followed: Followed,
}

/// What makes a look at a tip: shared by local repositories and mirrors.
#[derive(Debug, Default)]
pub(super) struct Followed {
    /// The ref that was last read: where HEAD moves to another branch, history is not rewritten.
    reference: Option<String>,
}

impl LocalGit {
    pub(super) fn new(git: GitReader, rewrites: Rewrites) -> Self {
        Self { git, rewrites, followed: Followed::default() }
    }
}

impl Reader for LocalGit {
    fn look(&mut self, look: Look<'_>) -> Result<Seen, Failure> {
        let tip = self.git.tip()?;
        self.followed.look(&mut self.git, tip, self.rewrites, look.applied)
    }

    fn read_commit(&mut self, name: &str, known: &Known) -> Result<Snapshot, Failure> {
        let commit = self.git.resolve(name)?;
        self.git.read(commit, known)
    }

    fn carry(&mut self, travel: Travel) {
        self.git.carry(travel);
    }

    fn watches(&self) -> Vec<(PathBuf, RecursiveMode)> {
        self.git.watches()
    }

    fn filter(&self) -> Arc<dyn Fn(&Path) -> bool + Send + Sync> {
        Arc::new(moves_a_ref)
    }

    fn count_dirty(&mut self) -> u32 {
        self.git.count_dirty()
    }

    fn pace(&self) -> Pace {
        Pace {
            // A ref moves by one rename; this only gathers HEAD's and the branch's.
            quiet: Duration::from_millis(5),
            cap: Duration::from_millis(50),
            interval: Duration::from_secs(30),
            unwatched: Duration::from_secs(1),
            remote: false,
            looks_cheaply: true,
        }
    }
}

impl Followed {
    /// Reads `tip` if it is not what is in effect.
    pub(super) fn look(
        &mut self,
        git: &mut GitReader,
        tip: Tip,
        rewrites: Rewrites,
        applied: &Applied,
    ) -> Result<Seen, Failure> {
        let revision = git::revision(tip.commit);
        let same_branch = self.reference.as_ref().is_none_or(|reference| *reference == tip.reference);
        if applied.handed_over && applied.revision.as_ref() == Some(&revision) {
            self.reference = Some(tip.reference);
            let superseded = Superseded::default();
            return Ok(Seen { revision, rewritten: None, snapshot: Ok(None), unsettled: false, superseded });
        }
        let old = applied.revision.as_ref().and_then(|old| Some((old, Oid::from_str(&old.0).ok()?)));
        let rewritten =
            old.filter(|(_, old)| same_branch && !git.descends(tip.commit, *old)).map(|(old, _)| old.clone());
        let superseded = match old {
            Some((_, old)) if same_branch && rewritten.is_none() => git.between(old, tip.commit),
            _ => Superseded::default(),
        };
        let snapshot = match &rewritten {
            Some(old) if rewrites == Rewrites::Deny => Err(denied(old, &revision)),
            // Whether it takes effect is not known yet: until then what is followed is the branch of what is in effect.
            _ => Ok(Some(git.read(tip.commit, &applied.known)?)),
        };
        Ok(Seen { revision, rewritten, snapshot, unsettled: false, superseded })
    }
}

fn denied(old: &Revision, new: &Revision) -> Failure {
    Failure::new(
        Reason::HistoryRewritten,
        format!(
            "the branch was rewritten: {new} does not descend from {old}, which stays in effect. Push a descendant of it, \
             or start once with --rewrites allow"
        ),
    )
}

/// True for files whose change may move a ref that is followed; `index.lock`, `FETCH_HEAD` and others are not.
fn moves_a_ref(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    !name.ends_with(".lock")
        && (matches!(name, "HEAD" | "packed-refs" | "refs" | "config")
            || path.parent().is_some_and(|parent| parent.components().any(|part| part.as_os_str() == "refs")))
}
