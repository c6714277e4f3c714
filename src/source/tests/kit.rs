//! Repositories made by the git command line, and a source that is watched by a test.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Condvar, Mutex},
    time::Duration,
};

use tempfile::TempDir;
use xene_agent::clock;
use xene_schemas::meta::Revision;

use crate::{
    decide::desired::SourceHealth,
    source::{Resume, Snapshot, Source, SourceConfig, SourceHandle},
};

/// Nothing here takes this long on a busy machine.
pub(super) const DEADLINE: Duration = Duration::from_secs(20);

/// A repository of its own, untouched by the machine's configuration.
pub(super) struct Repo {
    _dir: TempDir,
    pub path: PathBuf,
}

impl Repo {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap().join("flows");
        std::fs::create_dir(&path).unwrap();
        git(&path, &["init", "-q", "-b", "main"]);
        Self { _dir: dir, path }
    }

    pub(super) fn git(&self, args: &[&str]) -> String {
        git(&self.path, args)
    }

    pub(super) fn write(&self, path: &str, text: &str) {
        let path = self.path.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// Writes, commits; the commit.
    pub(super) fn commit(&self, path: &str, text: &str) -> String {
        self.write(path, text);
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "-m", &format!("Change {path}")]);
        self.head()
    }

    pub(super) fn head(&self) -> String {
        self.git(&["rev-parse", "HEAD"])
    }

    pub(super) fn config(&self) -> SourceConfig {
        config(&self.path)
    }

    /// A folder beside it.
    pub(super) fn beside(&self, name: &str) -> PathBuf {
        self.path.parent().unwrap().join(name)
    }
}

pub(super) fn config(path: &Path) -> SourceConfig {
    SourceConfig::new(path.to_str().unwrap(), path.parent().unwrap().join("mirrors"))
}

/// Runs git with nothing of the machine's configuration; its output.
pub(super) fn git(dir: &Path, args: &[&str]) -> String {
    let (status, out, err) = try_git(dir, args);
    assert!(status, "git {args:?}: {err}");
    out
}

/// The same, for what may fail: success, standard output and error.
pub(super) fn try_git(dir: &Path, args: &[&str]) -> (bool, String, String) {
    let output = Command::new("git")
        .current_dir(dir)
        .args(args)
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin")
        .env("HOME", dir)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .envs([("GIT_AUTHOR_NAME", "Ada"), ("GIT_AUTHOR_EMAIL", "ada@example.invalid")])
        .envs([("GIT_COMMITTER_NAME", "Ada"), ("GIT_COMMITTER_EMAIL", "ada@example.invalid")])
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    (output.status.success(), text(&output.stdout), text(&output.stderr))
}

/// What a source told, in order.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub snapshots: Vec<Snapshot>,
    /// All but the looks.
    pub health: Vec<SourceHealth>,
    /// What each look found.
    pub looked: Vec<Revision>,
    /// Fail this many applications.
    pub refuse: u32,
}

/// A running source and what it told.
pub(super) struct Live {
    pub handle: SourceHandle,
    told: Arc<(Mutex<Told>, Condvar)>,
}

impl Live {
    pub(super) fn start(config: SourceConfig) -> Self {
        Self::spawn(Source::open(config).unwrap(), Resume::default())
    }

    pub(super) fn spawn(source: Source, resume: Resume) -> Self {
        let told = Arc::new((Mutex::new(Told::default()), Condvar::new()));
        let (by_apply, by_health) = (told.clone(), told.clone());
        let handle = source
            .spawn(
                resume,
                move |snapshot| {
                    let mut told = by_apply.0.lock().unwrap();
                    if told.refuse > 0 {
                        told.refuse -= 1;
                        return Err("the disk is full".into());
                    }
                    told.snapshots.push(snapshot);
                    by_apply.1.notify_all();
                    Ok(())
                },
                move |health| {
                    let mut told = by_health.0.lock().unwrap();
                    match health {
                        SourceHealth::Looked { seen, .. } => told.looked.push(seen),
                        health => told.health.push(health),
                    }
                    drop(told);
                    by_health.1.notify_all();
                },
            )
            .unwrap();
        Self { handle, told }
    }

    /// Waits until `done` gives something.
    pub(super) fn until<T>(&self, what: &str, mut done: impl FnMut(&mut Told) -> Option<T>) -> T {
        let deadline = clock::now().boot + DEADLINE;
        let mut told = self.told.0.lock().unwrap();
        loop {
            if let Some(value) = done(&mut told) {
                return value;
            }
            let left = deadline.since(clock::now().boot);
            assert!(!left.is_zero(), "{what} did not happen; told: {told:#?}");
            told = self.told.1.wait_timeout(told, left).unwrap().0;
        }
    }

    /// Waits for the snapshot of a commit.
    pub(super) fn snapshot(&self, commit: &str) -> Snapshot {
        self.until(commit, |told| told.snapshots.iter().find(|snapshot| snapshot.revision.0 == commit).cloned())
    }

    /// Waits for a failure of this reason that nothing followed; its message.
    pub(super) fn failure(&self, reason: &str) -> String {
        self.until(reason, |told| {
            match told.health.iter().rev().find(|health| !matches!(health, SourceHealth::Degraded(_))) {
                Some(SourceHealth::Failed { reason: found, message, .. }) if found == reason => Some(message.clone()),
                _ => None,
            }
        })
    }

    /// Waits until the source is healthy with this commit; its dirty files.
    pub(super) fn healthy(&self, commit: &str) -> u32 {
        self.until("health", |told| match told.health.last() {
            Some(SourceHealth::Observed { seen: Some(seen), dirty, .. }) if seen.0 == commit => Some(*dirty),
            _ => None,
        })
    }

    pub(super) fn told<T>(&self, read: impl FnOnce(&mut Told) -> T) -> T {
        read(&mut self.told.0.lock().unwrap())
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.handle.stop();
    }
}

/// The paths of a snapshot.
pub(super) fn paths(snapshot: &Snapshot) -> Vec<&str> {
    snapshot.files.keys().map(String::as_str).collect()
}

/// The codes and paths of its problems.
pub(super) fn problems(snapshot: &Snapshot) -> Vec<(&str, &str)> {
    snapshot.problems.iter().map(|problem| (problem.code.as_str(), problem.path.as_str())).collect()
}
