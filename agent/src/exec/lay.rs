//! Lays files into workspaces: those that travel with the workflow when a run's workspace is made, and artifacts of
//! other tasks before the first step of one that wants them.

use std::{
    fs::{self, File},
    io::{self, ErrorKind},
    os::fd::OwnedFd,
    path::Path,
};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags, mkdirat, openat, renameat_with, unlinkat};
use xene_schemas::{pipeline::PipelineFile, run::Artifact};

use super::{
    ExecConfig,
    folders::{make_folder, new_workspace, workspace_of},
};
use crate::{content::ContentStore, decide::event::StepCommand, glob::is_inner_path};

/// Makes the workspace of a step's context with the files that travel, unless it is there; or says in a sentence why that
/// can't be done. It is made elsewhere and moved into place, so that no step meets half of it.
pub(super) fn workspace(config: &ExecConfig, command: &StepCommand) -> Result<(), String> {
    let workspace = workspace_of(&config.work_dir, command.id.run, &command.context);
    if command.files.is_empty() || workspace.exists() {
        return Ok(());
    }
    let new = new_workspace(&config.work_dir, command.id.run);
    let failed = |error: io::Error| format!("can't make the workspace: {error}");
    make_folder(&new).map_err(failed)?;
    for file in &*command.files {
        lay(&config.files, &new, file)
            .map_err(|error| format!("can't lay the workflow's file {} into the workspace: {error}", file.path))?;
    }
    match renameat_with(CWD, &new, CWD, &workspace, RenameFlags::NOREPLACE) {
        // Another task of this context was faster.
        Err(rustix::io::Errno::EXIST | rustix::io::Errno::NOTEMPTY) => fs::remove_dir_all(&new).map_err(failed),
        moved => moved.map_err(|error| failed(error.into())),
    }
}

/// Lays a file into a folder that no step has touched yet.
fn lay(files: &ContentStore, folder: &Path, file: &PipelineFile) -> io::Result<()> {
    // The controller says where it goes; that it stays in the workspace is for the agent to see to.
    if !is_inner_path(&file.path) {
        return Err(io::Error::new(ErrorKind::InvalidInput, "its path leads out of the workspace"));
    }
    let to = folder.join(&file.path);
    if let Some(parent) = to.parent() {
        make_folder(parent)?;
    }
    files.copy(&file.hash, &to, file.executable)
}

/// Lays artifacts into a step's workspace, in the place of whatever is there by their names; or says in a sentence why
/// that can't be done.
pub(super) fn artifacts(config: &ExecConfig, command: &StepCommand) -> Result<(), String> {
    if command.artifacts.is_empty() {
        return Ok(());
    }
    let workspace = workspace_of(&config.work_dir, command.id.run, &command.context);
    make_folder(&workspace).map_err(|error| format!("can't make the workspace: {error}"))?;
    command.artifacts.iter().try_for_each(|artifact| {
        lay_over(&config.files, &workspace, artifact)
            .map_err(|error| format!("can't lay the artifact {} into the workspace: {error}", artifact.path))
    })
}

/// Lays a file into a folder in which steps have worked: links in it lead nowhere.
fn lay_over(files: &ContentStore, folder: &Path, artifact: &Artifact) -> io::Result<()> {
    if !is_inner_path(&artifact.path) {
        return Err(io::Error::new(ErrorKind::InvalidInput, "its path leads out of the workspace"));
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut at: OwnedFd = openat(CWD, folder, flags, Mode::empty())?;
    let (parents, name) = artifact.path.rsplit_once('/').unwrap_or(("", &artifact.path));
    for parent in parents.split('/').filter(|parent| !parent.is_empty()) {
        match mkdirat(&at, parent, Mode::RWXU) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => at = openat(&at, parent, flags, Mode::empty())?,
            Err(error) => return Err(error.into()),
        }
    }
    match unlinkat(&at, name, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let mode = Mode::from_raw_mode(if artifact.executable { 0o755 } else { 0o644 });
    let create = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut to = File::from(openat(&at, name, create, mode)?);
    io::copy(&mut files.read(&artifact.hash)?, &mut to).map(drop)
}
