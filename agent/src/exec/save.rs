//! Saves artifacts: copies what patterns take of a workspace into the store of files. The workspace belongs to steps, so
//! nothing in it is trusted: no link is followed, only regular files are read, and each from the one handle that was
//! looked at.

use std::{
    fs::File,
    io::{self, Read as _},
    os::{fd::OwnedFd, unix::fs::MetadataExt as _},
};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, openat, statat};
use xene_schemas::run::{Artifact, MAX_ARTIFACT_BYTES, MAX_ARTIFACTS};

use super::{ExecConfig, folders::workspace_of, step::Running};
use crate::{
    content::ContentStore,
    decide::event::{ExitStatus, StepCommand},
    glob::{Globs, is_inner_path},
};

/// How deep folders are looked into.
const MAX_DEPTH: usize = 64;
/// Read at a time, in bytes.
const CHUNK: usize = 256 << 10;

/// Why artifacts can't be saved.
#[derive(Debug, thiserror::Error)]
enum SaveError {
    #[error("more than {MAX_ARTIFACTS} files match; at most {MAX_ARTIFACTS} are kept")]
    TooMany,
    #[error("with {path} they are more than {} MiB; at most so many are kept", MAX_ARTIFACT_BYTES >> 20)]
    TooLarge { path: String },
    #[error("{path} lies more than {MAX_DEPTH} folders deep")]
    TooDeep { path: String },
    #[error("{path} can't be read: {source}")]
    Read { path: String, source: io::Error },
    #[error("{path} can't be kept: {source}")]
    Keep { path: String, source: io::Error },
    #[error("a name in {folder:?} is not UTF-8")]
    Name { folder: String },
    #[error("{0}")]
    Glob(#[from] crate::glob::BadGlob),
    /// Somebody wants the run to end.
    #[error("it was interrupted")]
    Stopped,
}

/// One look through a workspace.
struct Search<'a> {
    globs: Globs,
    store: &'a ContentStore,
    running: &'a Running,
    left: u64,
    saved: Vec<Artifact>,
    /// Links and special files that match, which are passed over.
    passed: Vec<String>,
    buffer: Vec<u8>,
}

/// Saves what `patterns` take.
pub(super) fn run(config: &ExecConfig, command: &StepCommand, patterns: &[String], running: &Running) -> ExitStatus {
    match save(config, command, patterns, running) {
        Ok(saved) => ExitStatus::Saved(saved),
        Err(error) => ExitStatus::NotSaved(error.to_string()),
    }
}

fn save(
    config: &ExecConfig,
    command: &StepCommand,
    patterns: &[String],
    running: &Running,
) -> Result<Vec<Artifact>, SaveError> {
    let workspace = workspace_of(&config.work_dir, command.id.run, &command.context);
    let globs = Globs::new(patterns)?;
    let (store, buffer) = (&config.files, vec![0; CHUNK]);
    let mut search =
        Search { globs, store, running, left: MAX_ARTIFACT_BYTES, saved: Vec::new(), passed: Vec::new(), buffer };
    let root = openat(CWD, &workspace, FOLDER, Mode::empty())
        .map_err(|error| SaveError::Read { path: "the workspace".into(), source: error.into() })?;
    search.look_in(&root, "", 0)?;
    let task = &command.id.task;
    if !search.passed.is_empty() {
        let passed = search.passed.join(", ");
        running.note(&format!("artifacts of task {task}: links and special files are not saved: {passed}"));
    }
    for pattern in search.globs.unused(search.saved.iter().map(|saved| saved.path.as_str())) {
        running.note(&format!("artifacts of task {task}: the pattern {} takes no file", patterns[pattern]));
    }
    search.saved.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(search.saved)
}

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// A fifo or a device must not hold anything up; it is refused once it is open.
const FILE: OFlags =
    OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

impl Search<'_> {
    fn look_in(&mut self, folder: &OwnedFd, inner: &str, depth: usize) -> Result<(), SaveError> {
        let read = |error: rustix::io::Errno| SaveError::Read { path: shown(inner), source: error.into() };
        if depth > MAX_DEPTH {
            return Err(SaveError::TooDeep { path: shown(inner) });
        }
        for entry in Dir::read_from(folder).map_err(read)? {
            let entry = entry.map_err(read)?;
            let raw = entry.file_name();
            if matches!(raw.to_bytes(), b"." | b"..") {
                continue;
            }
            let name = String::from_utf8_lossy(raw.to_bytes());
            let path = if inner.is_empty() { name.clone().into_owned() } else { format!("{inner}/{name}") };
            let kind = match entry.file_type() {
                // Some file systems do not tell at once.
                FileType::Unknown => match statat(folder, raw, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) => FileType::from_raw_mode(stat.st_mode),
                    Err(_) => continue,
                },
                kind => kind,
            };
            if kind == FileType::Directory {
                if self.globs.may_hold(&path) {
                    match openat(folder, raw, FOLDER, Mode::empty()) {
                        Ok(folder) => self.look_in(&folder, &path, depth + 1)?,
                        // Gone, or something else by now.
                        Err(rustix::io::Errno::NOENT | rustix::io::Errno::LOOP | rustix::io::Errno::NOTDIR) => {}
                        Err(error) => return Err(SaveError::Read { path, source: error.into() }),
                    }
                }
            } else if self.globs.matches(&path) {
                if raw.to_str().is_err() || !is_inner_path(&path) {
                    return Err(SaveError::Name { folder: shown(inner) });
                }
                match (kind == FileType::RegularFile).then(|| openat(folder, raw, FILE, Mode::empty())) {
                    Some(Ok(file)) => self.take(path, file.into())?,
                    Some(Err(rustix::io::Errno::NOENT)) => {}
                    None | Some(Err(rustix::io::Errno::LOOP | rustix::io::Errno::NXIO)) => self.passed.push(path),
                    Some(Err(error)) => return Err(SaveError::Read { path, source: error.into() }),
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, path: String, mut file: File) -> Result<(), SaveError> {
        if self.saved.len() >= MAX_ARTIFACTS {
            return Err(SaveError::TooMany);
        }
        let metadata = match file.metadata() {
            Ok(metadata) => metadata,
            Err(source) => return Err(SaveError::Read { path, source }),
        };
        if !metadata.is_file() {
            self.passed.push(path);
            return Ok(());
        }
        if metadata.size() > self.left {
            return Err(SaveError::TooLarge { path });
        }
        let mut incoming = match self.store.incoming() {
            Ok(incoming) => incoming,
            Err(source) => return Err(SaveError::Keep { path, source }),
        };
        loop {
            if self.running.is_signalled() {
                return Err(SaveError::Stopped);
            }
            let read = match file.read(&mut self.buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(SaveError::Read { path, source }),
            };
            if incoming.size() + read as u64 > self.left {
                return Err(SaveError::TooLarge { path });
            }
            if let Err(source) = incoming.write(&self.buffer[..read]) {
                return Err(SaveError::Keep { path, source });
            }
        }
        let size = incoming.size();
        self.left -= size;
        let hash = incoming.hash();
        // Equal files are written once.
        let kept = if self.store.has(&hash) { Ok(hash) } else { incoming.finish() };
        let hash = kept.map_err(|source| SaveError::Keep { path: path.clone(), source })?;
        self.saved.push(Artifact { path, size, hash, executable: metadata.mode() & 0o100 != 0 });
        Ok(())
    }
}

fn shown(folder: &str) -> String {
    if folder.is_empty() { "the workspace".to_owned() } else { folder.to_owned() }
}
