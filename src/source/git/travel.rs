//! Files that travel, from the trees of a commit.

use std::path::Path;

use git2::{ObjectType, Oid};
use xene_agent::content::ContentStore;

use super::{GITLINK, GitReader, LINK, TREE, unreadable};
use crate::source::{
    files,
    health::{Failure, Reason},
    snapshot::Travelling,
    travel::{self, Bytes, Found, MAX_FILES, Travel, Wanted},
};

/// What patterns took of a commit, and of which trees that was read.
#[derive(Debug)]
pub(super) struct Taken {
    trees: Vec<Option<Oid>>,
    found: Vec<Found<Oid>>,
}

/// What the workflow file at `path` takes of a commit of the repository in this folder; bytes go to `store`. `path` is
/// relative to the repository's root.
///
/// # Errors
/// If the repository can't be read, or the bytes can't be stored.
pub fn taken_from_commit(
    (repository, commit): (&Path, Oid),
    path: &str,
    wanted: &Wanted,
    store: ContentStore,
) -> Result<Vec<Travelling>, Failure> {
    let open = GitReader::open(repository, None, None);
    let mut git = open.map_err(|error| Failure::new(Reason::Unreadable, error.to_string()))?;
    git.carry(Travel { store: Some(store), ..Travel::default() });
    let root = git.repo.find_commit(commit).map_err(|error| unreadable(&error))?.tree_id();
    let found = git.take(path, wanted, root)?;
    git.keep(wanted, found)
}

const EXECUTABLE: i32 = 0o100_755;

impl GitReader {
    /// What the patterns of the workflow file at `path` take. Trees that are the same as at the last look are not read.
    pub(super) fn take(&mut self, path: &str, wanted: &Wanted, root: Oid) -> Result<Vec<Found<Oid>>, Failure> {
        let folder = travel::folder_of(path);
        let starts: Vec<String> = wanted.globs.folders().into_iter().map(str::to_owned).collect();
        let mut trees = Vec::with_capacity(starts.len() + 1);
        for start in &starts {
            trees.push(self.tree_at(root, &files::join(folder, start))?);
        }
        if let Some(taken) = self.taken.get(path)
            && (taken.trees == trees || taken.trees.last() == Some(&Some(root)))
        {
            return Ok(taken.found.clone());
        }
        let (mut found, mut links) = (Vec::new(), false);
        for (start, tree) in starts.iter().zip(&trees) {
            if let Some(tree) = tree {
                self.look_in(folder, start, *tree, (root, wanted), &mut found, &mut links)?;
            }
        }
        found.sort_by(|a, b| a.path.cmp(&b.path));
        if links {
            // What links lead to may be in any tree of the commit.
            trees.push(Some(root));
        }
        self.taken.insert(path.to_owned(), Taken { trees, found: found.clone() });
        Ok(found)
    }

    /// Keeps the bytes of what was found.
    pub(super) fn keep(&mut self, wanted: &Wanted, found: Vec<Found<Oid>>) -> Result<Vec<Travelling>, Failure> {
        let odb = self.repo.odb().map_err(|error| unreadable(&error))?;
        self.carrier.keep(wanted, found, |blob, limit| {
            let (size, _) = odb.read_header(*blob).map_err(|error| unreadable(&error))?;
            if size as u64 > limit {
                return Ok(Bytes::TooMany(size as u64));
            }
            let object = odb.read(*blob).map_err(|error| unreadable(&error))?;
            if files::is_lfs_pointer(object.data()) {
                return Ok(Bytes::Refused(travel::LFS.into()));
            }
            Ok(Bytes::Whole(object.data().to_vec()))
        })
    }

    fn tree_at(&self, root: Oid, folder: &str) -> Result<Option<Oid>, Failure> {
        if folder.is_empty() {
            return Ok(Some(root));
        }
        let tree = self.repo.find_tree(root).map_err(|error| unreadable(&error))?;
        let entry = tree.get_path(Path::new(folder)).ok();
        Ok(entry.filter(|entry| entry.kind() == Some(ObjectType::Tree)).map(|entry| entry.id()))
    }

    /// Looks through `inner`, a folder below `folder`.
    fn look_in(
        &self,
        folder: &str,
        inner: &str,
        tree: Oid,
        (root, wanted): (Oid, &Wanted),
        found: &mut Vec<Found<Oid>>,
        links: &mut bool,
    ) -> Result<(), Failure> {
        let tree = self.repo.find_tree(tree).map_err(|error| unreadable(&error))?;
        for entry in &tree {
            if found.len() >= MAX_FILES {
                return Ok(());
            }
            let name = String::from_utf8_lossy(entry.name_bytes());
            let path = files::join(inner, &name);
            let mode = entry.filemode();
            if mode == TREE {
                if wanted.globs.may_hold(&path) {
                    self.look_in(folder, &path, entry.id(), (root, wanted), found, links)?;
                }
                continue;
            }
            let taken = wanted.globs.matches(&path);
            if !taken && (mode != GITLINK || !wanted.globs.matches(&files::join(&path, "x"))) {
                continue;
            }
            let mut executable = mode == EXECUTABLE;
            let blob = if entry.name_bytes() != name.as_bytes() {
                Err(travel::NOT_UTF8.to_owned())
            } else if mode == GITLINK {
                Err(travel::SUBMODULE.to_owned())
            } else if mode == LINK {
                *links = true;
                match self.follow(&files::join(folder, &path), entry.id(), root) {
                    Ok((blob, mode)) => {
                        executable = mode == EXECUTABLE;
                        Ok(blob)
                    }
                    Err(why) => Err(format!("is a link that {why}")),
                }
            } else {
                Ok(entry.id())
            };
            found.push(Found { path, executable, file: blob.map(|blob| (blob.to_string(), blob)) });
        }
        Ok(())
    }
}
