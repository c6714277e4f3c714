//! Files that travel with the workflow files that a person names, as they lie on this machine.

use std::{
    io,
    path::{Path, PathBuf},
};

use git2::Repository;
use xene_agent::content::ContentStore;

use super::{Error, validate::Files};
use crate::{
    compile::{Compiled, compile_travelling, wanted_files},
    source::{Failure, snapshot::Travelling, taken_from_folder},
};

/// What each of some files takes, in their order; `None` for one that asks for nothing.
pub(super) type Taken = Vec<Option<Vec<Travelling>>>;

/// Looks for what the files ask for; bytes go to `store`, if there is one. Standard input counts as a file of the current
/// folder.
///
/// # Errors
/// If bytes can't be stored, or a folder is gone.
pub(super) fn take(files: &Files, store: Option<&ContentStore>) -> Result<Taken, Error> {
    let one = |(name, bytes): &(String, Vec<u8>)| {
        let Some(wanted) = wanted_files(name, bytes) else { return Ok(None) };
        let (root, path) = place(Path::new(name)).map_err(|error| Error::file(name, &error))?;
        taken_from_folder(&root, &path, &wanted, store.cloned()).map(Some).map_err(failed)
    };
    files.iter().map(one).collect()
}

/// Compiles files with what they take.
pub(super) fn compile(files: &Files, taken: &Taken) -> Compiled {
    let all = files.iter().zip(taken);
    compile_travelling(all.map(|((path, bytes), taken)| (path.as_str(), bytes.as_slice(), taken.as_deref())))
}

pub(super) fn failed(failure: Failure) -> Error {
    Error::Failed { message: failure.message, hint: None }
}

/// The folder that no file may lie outside of, which is the work tree around `file` or else its own folder; and `file`
/// relative to that.
fn place(file: &Path) -> io::Result<(PathBuf, String)> {
    let folder = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let folder = folder.canonicalize()?;
    let (root, within) = around(&folder);
    let within = Path::new(&within).join(file.file_name().unwrap_or_default());
    Ok((root, within.to_string_lossy().into_owned()))
}

/// The root of the work tree around a folder, or else the folder itself; and the folder relative to that.
pub(super) fn around(folder: &Path) -> (PathBuf, String) {
    let around = Repository::discover(folder).ok().and_then(|found| found.workdir()?.canonicalize().ok());
    let root = around.filter(|root| folder.starts_with(root)).unwrap_or_else(|| folder.to_owned());
    let within = folder.strip_prefix(&root).unwrap_or_else(|_| Path::new("")).to_string_lossy().into_owned();
    (root, within)
}
