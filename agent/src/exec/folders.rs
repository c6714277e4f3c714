//! Folders of runs: what a run's steps find on the disk, and how it goes away.
//!
//! ```text
//! WORK/RUN/workspace/CONTEXT   $XENE_WORKSPACE        WORK/RUN/TASK.script, TASK.output, TASK.step (of its shim)
//! WORK/RUN/workspace/%new-N    a workspace that is being made
//! WORK/RUN/tmp                 $TMPDIR                WORK/RUN/payload   $XENE_PAYLOAD
//! WORK/RUN/kept                the workspace stays    WORK/.trash        on its way out
//! ```

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, ErrorKind},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
};

use rustix::fs::OFlags;
use xene_schemas::meta::{Name, PipelineKey, RunName};

use crate::clock;

const TRASH: &str = ".trash";
/// How the name of a workspace that is being made begins.
const NEW: &str = "%new-";
/// Numbers the files of steps and the folders in the trash. No earlier process of this boot has used them: none makes one
/// each nanosecond.
static NEXT: LazyLock<AtomicU64> = LazyLock::new(|| AtomicU64::new(clock::now().boot.as_nanos()));

fn next() -> u64 {
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// The folders of one step.
#[derive(Debug)]
pub(super) struct StepFolders {
    /// Of this step alone.
    pub(super) number: u64,
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
    pub(super) task: &'a str,
    pub(super) context: &'a str,
    pub(super) pipeline: &'a PipelineKey,
    pub(super) script: Option<&'a str>,
    pub(super) payload: Option<&'a [u8]>,
}

impl StepFolders {
    /// Makes what is missing.
    pub(super) fn make(work: &Path, cache: &Path, needs: &Needs<'_>) -> io::Result<Self> {
        let run = work.join(needs.run.to_string());
        let number = next();
        let mut folders = Self {
            number,
            workspace: workspace_of(work, needs.run, needs.context),
            tmp: run.join("tmp"),
            cache: cache.join(needs.pipeline.workflow.as_str()).join(needs.pipeline.pipeline.as_str()),
            output: PathBuf::new(),
            script: PathBuf::new(),
            payload: needs.payload.map(|_| run.join("payload")),
        };
        for folder in [&folders.workspace, &folders.tmp, &folders.cache] {
            make_folder(folder)?;
        }
        let task = folder_of(needs.task);
        folders.output = step_file(&run, &task, number, "output", b"")?;
        if let Some(script) = needs.script {
            folders.script = step_file(&run, &task, number, "script", script.as_bytes())?;
        }
        if let (Some(path), Some(bytes)) = (&folders.payload, needs.payload) {
            match new_file(path).and_then(|file| file.write_all_at(bytes, 0)) {
                // An earlier step's.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                written => written?,
            }
        }
        Ok(folders)
    }
}

/// The file of the shim of a task's step. Steps of a task come one after another, so they share one.
pub(super) fn state_of(work: &Path, run: RunName, task: &str) -> PathBuf {
    work.join(run.to_string()).join(format!("{}.step", folder_of(task)))
}

/// Where the workspace of a context lies.
pub(super) fn workspace_of(work: &Path, run: RunName, context: &str) -> PathBuf {
    work.join(run.to_string()).join("workspace").join(folder_of(context))
}

/// Where a workspace is made before it is moved to its place; nothing lies there.
pub(super) fn new_workspace(work: &Path, run: RunName) -> PathBuf {
    work.join(run.to_string()).join("workspace").join(format!("{NEW}{}", next()))
}

/// The file of a step with these bytes. Steps of a task come one after another, so they share one: a file that is made
/// and removed costs more than all else here. One that a step has made something else of is left to it.
fn step_file(run: &Path, task: &str, number: u64, kind: &str, bytes: &[u8]) -> io::Result<PathBuf> {
    let path = run.join(format!("{task}.{kind}"));
    let (path, file, length) = match own_file(&path)? {
        Some((file, length)) => (path, file, length),
        None => {
            let path = run.join(format!("%{number}.{kind}"));
            let file = new_file(&path)?;
            (path, file, 0)
        }
    };
    file.write_all_at(bytes, 0)?;
    // Cut afterwards: a file system may write a file that was emptied first to the disk at once.
    if length > bytes.len() as u64 {
        file.set_len(bytes.len() as u64)?;
    }
    Ok(path)
}

/// The file at `path`, new or as an earlier step left it, and its length. `None` if it is not ours alone any more.
fn own_file(path: &Path) -> io::Result<Option<(File, u64)>> {
    match new_file(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        made => return made.map(|file| Some((file, 0))),
    }
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let Ok(file) = OpenOptions::new().write(true).custom_flags(flags).open(path) else { return Ok(None) };
    let metadata = file.metadata()?;
    let ours = metadata.is_file() && metadata.nlink() == 1 && metadata.mode() & 0o7777 == 0o600;
    Ok(ours.then_some((file, metadata.len())))
}

fn new_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
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

/// Any text as a file name: one that is no name gets what no name can be.
fn folder_of(text: &str) -> String {
    match text.parse::<Name>() {
        Ok(name) => name.to_string(),
        Err(_) => format!("%{}", &blake3::hash(text.as_bytes()).to_hex()[..32]),
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

/// Removes the folders of runs that nobody wanted kept and that do not go on, workspaces that were being made, and what
/// is in the trash. For the start.
pub(super) fn remove_stale(work: &Path, goes_on: impl Fn(RunName) -> bool) -> io::Result<()> {
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
        let name = path.file_name().and_then(|name| name.to_str());
        let Some(run) = name.and_then(|name| name.parse::<RunName>().ok()) else { continue };
        let unfinished = if goes_on(run) {
            let entries = fs::read_dir(path.join("workspace")).into_iter().flatten().flatten();
            entries
                .filter(|entry| entry.file_name().as_bytes().starts_with(NEW.as_bytes()))
                .map(|entry| entry.path())
                .collect()
        } else if path.join("kept").exists() {
            Vec::new()
        } else {
            vec![path]
        };
        for path in unfinished {
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
        let needs = Needs { run: run(n), task: "t", context, pipeline: &pipeline, script: Some("true"), payload };
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
    fn steps_of_a_task_share_files_unless_one_was_tampered_with() {
        let work = tempfile::tempdir().unwrap();
        let first = make(work.path(), 1, "default", None);
        fs::write(&first.output, "a=1").unwrap();
        let second = make(work.path(), 1, "default", None);
        assert_eq!((&second.output, &second.script), (&first.output, &first.script));
        assert_eq!((fs::read(&second.output).unwrap(), fs::read(&second.script).unwrap()), (vec![], b"true".to_vec()));
        let precious = work.path().join("precious");
        let tamper: [fn(&Path, &Path); 4] = [
            |path, precious| symlink(precious, path).unwrap(),
            |path, precious| fs::hard_link(precious, path).unwrap(),
            |path, _| fs::create_dir(path).unwrap(),
            |path, _| rustix::fs::mkfifoat(rustix::fs::CWD, path, rustix::fs::Mode::RUSR).unwrap(),
        ];
        for tamper in tamper {
            fs::write(&precious, "precious").unwrap();
            let before = make(work.path(), 2, "default", None);
            fs::remove_file(&before.output).unwrap();
            tamper(&before.output, &precious);
            let after = make(work.path(), 2, "default", None);
            assert_ne!(after.output, before.output);
            assert_eq!(
                (fs::read(&after.output).unwrap(), fs::read(&precious).unwrap()),
                (vec![], b"precious".to_vec())
            );
            remove_run(work.path(), run(2)).unwrap();
        }
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
        let (going_on, half) = (make(work.path(), 3, "default", None), new_workspace(work.path(), run(3)));
        fs::create_dir(&half).unwrap();
        remove_stale(work.path(), |name| name == run(3)).unwrap();
        assert!(going_on.workspace.exists() && going_on.script.exists() && !half.exists());
        assert!(kept.workspace.exists() && work.path().join("not-a-run").exists());
        assert!(!lost.workspace.exists());
        assert_eq!(fs::read_dir(work.path().join(TRASH)).unwrap().count(), 0);
    }
}
