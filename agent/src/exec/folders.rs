//! Folders of runs: what a run's steps find on the disk, and how it goes away.
//!
//! ```text
//! WORK/RUN/workspace/CONTEXT   $XENE_WORKSPACE        WORK/RUN/steps/N.script, N.output
//! WORK/RUN/tmp                 $TMPDIR                WORK/RUN/payload   $XENE_PAYLOAD
//! WORK/RUN/kept                the workspace stays    WORK/.trash        on its way out
//! ```

use std::{
    fs::{self, DirBuilder, OpenOptions, Permissions},
    io::{self, ErrorKind, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use xene_schemas::meta::{Name, PipelineKey, RunName};

const TRASH: &str = ".trash";
/// Numbers the files of steps and the folders in the trash: unique within this process.
static NEXT: AtomicU64 = AtomicU64::new(0);

fn next() -> u64 {
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// The folders of one step.
#[derive(Debug)]
pub(super) struct StepFolders {
    pub(super) workspace: PathBuf,
    pub(super) tmp: PathBuf,
    pub(super) cache: PathBuf,
    pub(super) output: PathBuf,
    pub(super) script: PathBuf,
    pub(super) payload: Option<PathBuf>,
}

/// What a step needs on the disk.
#[derive(Debug)]
pub(super) struct Needs<'a> {
    pub(super) run: RunName,
    pub(super) context: &'a str,
    pub(super) pipeline: &'a PipelineKey,
    pub(super) script: Option<&'a str>,
    pub(super) payload: Option<&'a [u8]>,
}

impl StepFolders {
    /// Makes what is missing.
    pub(super) fn make(work: &Path, cache: &Path, needs: &Needs<'_>) -> io::Result<Self> {
        let run = work.join(needs.run.to_string());
        let steps = run.join("steps");
        let number = next();
        let folders = Self {
            workspace: run.join("workspace").join(context_folder(needs.context)),
            tmp: run.join("tmp"),
            cache: cache.join(needs.pipeline.workflow.as_str()).join(needs.pipeline.pipeline.as_str()),
            output: steps.join(format!("{number}.output")),
            script: steps.join(format!("{number}.script")),
            payload: needs.payload.map(|_| run.join("payload")),
        };
        for folder in [&folders.workspace, &folders.tmp, &folders.cache, &steps] {
            make_folder(folder)?;
        }
        let new_file = |path: &Path, bytes: &[u8]| {
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(bytes)
        };
        new_file(&folders.output, b"")?;
        if let Some(script) = needs.script {
            new_file(&folders.script, script.as_bytes())?;
        }
        if let (Some(path), Some(bytes)) = (&folders.payload, needs.payload) {
            match new_file(path, bytes) {
                // An earlier step's.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                written => written?,
            }
        }
        Ok(folders)
    }
}

/// Makes a folder, and those above it, for this account alone.
pub(super) fn make_folder(path: &Path) -> io::Result<()> {
    // From the second step on it is there.
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => DirBuilder::new().recursive(true).mode(0o700).create(path),
        made => made,
    }
}

/// A context is any text: one that is no name gets a folder that no name can have.
fn context_folder(context: &str) -> String {
    match context.parse::<Name>() {
        Ok(name) => name.to_string(),
        Err(_) => format!("%{}", &blake3::hash(context.as_bytes()).to_hex()[..32]),
    }
}

/// Leaves a run's folder where it is, also over a restart.
pub(super) fn keep_run(work: &Path, run: RunName) -> io::Result<()> {
    let folder = work.join(run.to_string());
    // A run without steps has no folder to keep.
    if folder.is_dir() { fs::write(folder.join("kept"), "") } else { Ok(()) }
}

/// Removes a run's folder.
pub(super) fn remove_run(work: &Path, run: RunName) -> io::Result<()> {
    let folder = work.join(run.to_string());
    let trashed = trash(work)?.join(next().to_string());
    match fs::rename(folder, &trashed) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(()) => empty_trash(work, vec![trashed]),
    }
}

/// Removes the folders of runs that nobody wanted kept, and what is in the trash. For the start.
pub(super) fn remove_stale(work: &Path) -> io::Result<()> {
    let trash = trash(work)?;
    let mut doomed = Vec::new();
    for entry in fs::read_dir(&trash)?.collect::<Result<Vec<_>, _>>()? {
        if entry.file_type()?.is_dir() {
            // The numbers begin anew with each process.
            let to = trash.join(format!("stale-{}-{}", std::process::id(), next()));
            fs::rename(entry.path(), &to)?;
            doomed.push(to);
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    for entry in fs::read_dir(work)? {
        let path = entry?.path();
        let is_run =
            path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.parse::<RunName>().is_ok());
        if is_run && !path.join("kept").exists() {
            let to = trash.join(next().to_string());
            fs::rename(path, &to)?;
            doomed.push(to);
        }
    }
    empty_trash(work, doomed)
}

fn trash(work: &Path) -> io::Result<PathBuf> {
    let trash = work.join(TRASH);
    make_folder(&trash).map(|()| trash)
}

/// Removes folders, which lie in the trash, with all that is in them: any depth, whatever their permissions, and
/// no link is followed. Goes on after an error, and gives the first.
fn empty_trash(work: &Path, mut folders: Vec<PathBuf>) -> io::Result<()> {
    let trash = work.join(TRASH);
    let mut first = Ok(());
    let mut note = |result: io::Result<()>| {
        if first.is_ok() {
            first = result;
        }
    };
    while let Some(folder) = folders.pop() {
        note(fs::set_permissions(&folder, Permissions::from_mode(0o700)));
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) => {
                note(Err(error));
                continue;
            }
        };
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                // Moved up instead of walked down: no path and no stack grows with the depth. Moving a folder needs
                // permission to write to it.
                let to = trash.join(next().to_string());
                note(fs::set_permissions(entry.path(), Permissions::from_mode(0o700)));
                match fs::rename(entry.path(), &to) {
                    Ok(()) => folders.push(to),
                    Err(error) => note(Err(error)),
                }
            } else {
                note(fs::remove_file(entry.path()));
            }
        }
        note(fs::remove_dir(&folder));
    }
    first
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use jiff::Timestamp;

    use super::*;

    fn run(n: u128) -> RunName {
        RunName::new(Timestamp::UNIX_EPOCH, n)
    }

    fn make(work: &Path, n: u128, context: &str, payload: Option<&[u8]>) -> StepFolders {
        let pipeline = "w/p".parse().unwrap();
        let needs = Needs { run: run(n), context, pipeline: &pipeline, script: Some("true"), payload };
        StepFolders::make(work, &work.join("cache"), &needs).unwrap()
    }

    #[test]
    fn contexts_share_a_run_but_not_a_workspace() {
        let work = tempfile::tempdir().unwrap();
        let names = ["default", "..", "a/b", "", "%x", "A.b"];
        let mut seen: Vec<_> = names.map(|context| make(work.path(), 1, context, None).workspace).into();
        assert!(seen.iter().all(|path| path.parent() == seen[0].parent() && path.is_dir()));
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), names.len());
    }

    #[test]
    fn removal_follows_no_link_and_stops_at_no_depth_or_permission() {
        let work = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("precious"), "").unwrap();
        let folders = make(work.path(), 1, "default", Some(b"{}"));
        symlink(outside.path(), folders.workspace.join("link")).unwrap();
        symlink("/nonexistent", folders.workspace.join("dangling")).unwrap();
        let locked = folders.workspace.join("locked");
        fs::create_dir(&locked).unwrap();
        fs::write(locked.join("file"), "").unwrap();
        fs::set_permissions(&locked, Permissions::from_mode(0o0)).unwrap();
        // Deeper than a path may be long.
        let mut top = folders.workspace.join("deep");
        fs::create_dir(&top).unwrap();
        for _ in 0..3000 {
            let above = folders.workspace.join("above");
            fs::create_dir(&above).unwrap();
            fs::rename(&top, above.join("deep")).unwrap();
            top = folders.workspace.join("top");
            fs::rename(&above, &top).unwrap();
        }
        remove_run(work.path(), run(1)).unwrap();
        remove_run(work.path(), run(1)).unwrap();
        assert!(!work.path().join(run(1).to_string()).exists());
        assert_eq!(fs::read_dir(work.path().join(TRASH)).unwrap().count(), 0);
        assert!(outside.path().join("precious").exists());
    }

    #[test]
    fn only_what_was_kept_outlives_a_restart() {
        let work = tempfile::tempdir().unwrap();
        let kept = make(work.path(), 1, "default", None);
        let lost = make(work.path(), 2, "default", None);
        fs::create_dir_all(work.path().join(TRASH).join("0/x")).unwrap();
        fs::create_dir_all(work.path().join(TRASH).join("7/x")).unwrap();
        fs::create_dir(work.path().join("not-a-run")).unwrap();
        keep_run(work.path(), run(1)).unwrap();
        remove_stale(work.path()).unwrap();
        assert!(kept.workspace.exists() && work.path().join("not-a-run").exists());
        assert!(!lost.workspace.exists());
        assert_eq!(fs::read_dir(work.path().join(TRASH)).unwrap().count(), 0);
    }
}
