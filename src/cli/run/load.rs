//! What `xene run` runs: a file, the files of a folder, standard input, or any of them as a commit has it.

use std::{
    fs, io,
    path::{Component, Path, PathBuf},
};

use git2::{ObjectType, Oid, Repository, Tree, TreeWalkMode, TreeWalkResult};
use ignore::gitignore::GitignoreBuilder;
use xene_agent::content::ContentStore;
use xene_schemas::{diagnostic::Diagnostic, meta::Revision};

use crate::{
    cli::{
        Error,
        travelling::{self, Taken},
        validate::{Collected, Files, collect, is_workflow_file, shown},
    },
    compile::wanted_files,
    source::{DEFAULT_FOLDER, taken_from_commit, travel::Wanted},
};

/// Files, what travels with them, and what they stand at.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) files: Files,
    pub(super) taken: Taken,
    pub(super) revision: Revision,
    /// What a source would refuse of the folder.
    pub(super) problems: Vec<Diagnostic>,
}

/// Reads what `path` names, `-` being standard input; with `at` as that revision of the repository around it has it.
/// Files that travel go to `store`.
pub(super) fn load(path: &Path, at: Option<&str>, store: &ContentStore) -> Result<Loaded, Error> {
    if let Some(revision) = at {
        return of_commit(path, revision, store);
    }
    let Collected { files, problems } = collect(&[path.to_owned()])?;
    let taken = travelling::take(&files, Some(store))?;
    let mut hasher = blake3::Hasher::new();
    for (name, bytes) in &files {
        hasher.update(name.as_bytes());
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    }
    for file in taken.iter().flatten().flatten() {
        hasher.update(format!("{file:?}").as_bytes());
    }
    let revision = Revision(format!("dir-{}", &hasher.finalize().to_hex()[..12]));
    Ok(Loaded { files, taken, revision, problems })
}

fn of_commit(path: &Path, revision: &str, store: &ContentStore) -> Result<Loaded, Error> {
    if path == Path::new("-") {
        return Err(Error::usage_with_hint("--at takes a file of a repository, not standard input", "name the file"));
    }
    let full = real(path).map_err(|error| Error::file(path, &error))?;
    let place = full.ancestors().find(|folder| folder.is_dir()).unwrap_or_else(|| Path::new("/"));
    let git = |what: &str| {
        let what = what.to_owned();
        move |error: git2::Error| Error::usage(format!("{what}: {}", error.message().trim_end_matches('.')))
    };
    let repository = Repository::discover(place).map_err(git(&format!("{} lies in no git repository", shown(path))))?;
    let root = repository.workdir().unwrap_or_else(|| repository.path());
    let root = root.canonicalize().map_err(|error| Error::file(root, &error))?;
    let commit = repository.revparse_single(revision).and_then(|object| object.peel_to_commit()).map_err(|error| {
        Error::usage_with_hint(
            format!("{revision:?} names no commit of {}: {}", root.display(), error.message()),
            "give a commit, a branch, a tag, or something like HEAD~1",
        )
    })?;
    let unreadable = git(&format!("{} can't be read", root.display()));
    let tree = commit.tree().map_err(&unreadable)?;
    let within = full.strip_prefix(&root).unwrap_or_else(|_| Path::new(""));
    // By their paths relative to `path`; one without is `path` itself.
    let blobs: Vec<(PathBuf, Oid)> = if within.as_os_str().is_empty() {
        walk(&repository, &tree).map_err(&unreadable)?
    } else {
        let entry = tree.get_path(within).map_err(|_| {
            Error::usage(format!("there is no {} in commit {:.12}", within.display(), commit.id().to_string()))
        })?;
        let object = entry.to_object(&repository).map_err(&unreadable)?;
        match (object.kind(), object.as_tree()) {
            (Some(ObjectType::Blob), _) if entry.filemode() != 0o120_000 => vec![(PathBuf::new(), entry.id())],
            (Some(ObjectType::Tree), Some(tree)) => walk(&repository, tree).map_err(&unreadable)?,
            _ => {
                let message = format!("{} is neither a file nor a folder in that commit", within.display());
                return Err(Error::usage(message));
            }
        }
    };
    let (mut files, mut taken) = (Vec::new(), Vec::new());
    for (relative, blob) in blobs {
        let beneath = |base: &Path| if relative.as_os_str().is_empty() { base.into() } else { base.join(&relative) };
        let (name, place) = (shown(&beneath(path)), shown(&beneath(within)));
        let bytes = repository.find_blob(blob).map_err(&unreadable)?.content().to_vec();
        let of = |wanted: Wanted| taken_from_commit((&root, commit.id()), &place, &wanted, store.clone());
        taken.push(wanted_files(&name, &bytes).map(of).transpose().map_err(travelling::failed)?);
        files.push((name, bytes));
    }
    Ok(Loaded { files, taken, revision: Revision(commit.id().to_string()), problems: Vec::new() })
}

/// The workflow files of a folder of a commit, as a source would read them.
fn walk(repository: &Repository, tree: &Tree<'_>) -> Result<Vec<(PathBuf, Oid)>, git2::Error> {
    match tree.get_name(DEFAULT_FOLDER).filter(|entry| entry.kind() == Some(ObjectType::Tree)) {
        Some(entry) => {
            let found = walk_all(repository, &repository.find_tree(entry.id())?)?;
            Ok(found.into_iter().map(|(path, blob)| (Path::new(DEFAULT_FOLDER).join(path), blob)).collect())
        }
        None => walk_all(repository, tree),
    }
}

/// The workflow files below a folder of a commit.
fn walk_all(repository: &Repository, tree: &Tree<'_>) -> Result<Vec<(PathBuf, Oid)>, git2::Error> {
    let mut ignored = GitignoreBuilder::new("");
    if let Some(entry) = tree.get_name(".xeneignore")
        && let Ok(blob) = repository.find_blob(entry.id())
    {
        for line in String::from_utf8_lossy(blob.content()).lines() {
            // A line that is no pattern names nothing.
            drop(ignored.add_line(None, line));
        }
    }
    let ignored = ignored.build().map_err(|error| git2::Error::from_str(&error.to_string()))?;
    let mut found = Vec::new();
    tree.walk(TreeWalkMode::PreOrder, |folder, entry| {
        let Some(name) = entry.name().ok().filter(|name| !name.starts_with('.')) else { return TreeWalkResult::Skip };
        let relative = PathBuf::from(format!("{folder}{name}"));
        let is_folder = entry.kind() == Some(ObjectType::Tree);
        if ignored.matched(&relative, is_folder).is_ignore() {
            return TreeWalkResult::Skip;
        }
        let is_file = entry.kind() == Some(ObjectType::Blob) && entry.filemode() != 0o120_000;
        if is_file && is_workflow_file(&relative) {
            found.push((relative, entry.id()));
        }
        TreeWalkResult::Ok
    })?;
    found.sort();
    Ok(found)
}

/// A path without links, as far as it exists: the file may be one that only the commit has.
fn real(path: &Path) -> io::Result<PathBuf> {
    let full = std::path::absolute(path)?;
    let mut plain = PathBuf::new();
    for part in full.components() {
        match part {
            Component::ParentDir => drop(plain.pop()),
            Component::CurDir => {}
            part => plain.push(part),
        }
        if let Ok(real) = fs::canonicalize(&plain) {
            plain = real;
        }
    }
    Ok(plain)
}
