//! Reads commits of a repository: its tip, and a tip's files from the object database, never from a work tree.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use git2::{ErrorCode, ObjectType, Odb, Oid, Repository, RepositoryOpenFlags, StatusOptions};
use notify::RecursiveMode;
use xene_schemas::meta::Revision;

use self::travel::Taken;
pub use self::travel::taken_from_commit;
use super::{
    files::{self, DEFAULT_FOLDER, IGNORE_FILE, Ignore, Problems},
    health::{Failure, Reason, SourceError},
    snapshot::{FileEntry, Known, MAX_FILE_BYTES, Snapshot},
    travel::{Carrier, Travel, with_files},
    worker::Superseded,
};

mod travel;

/// A chain of links longer than this is a loop.
const MAX_LINKS: usize = 8;
/// So many commits that were overtaken are counted…
const COUNTED: usize = 10_000;
/// …and so many named.
const NAMED: usize = 10;

/// One repository, opened for reading.
pub(super) struct GitReader {
    path: PathBuf,
    repo: Repository,
    /// Device and inode of the git directory: a repository that was made anew is opened anew.
    identity: (u64, u64),
    branch: Option<String>,
    folder: Option<String>,
    /// The folders of the last listing, so that a folder whose tree did not change is not read again.
    trees: HashMap<String, (Oid, Arc<[Child]>)>,
    /// The `.xeneignore` that shaped them.
    ignore_file: Option<Oid>,
    carrier: Carrier,
    /// By workflow file, so that folders whose trees did not change are not looked through again.
    taken: HashMap<String, Taken>,
}

/// The tip of the branch that is followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tip {
    pub commit: Oid,
    /// The full name of its ref.
    pub reference: String,
}

/// What a folder holds that counts.
#[derive(Debug)]
enum Child {
    Folder { path: String, tree: Oid },
    File { path: String, content: String, blob: Oid },
    Link { path: String, blob: Oid },
    Submodule { path: String },
    BadName { path: String },
}

/// What a walk gathers, in the order of trees.
#[derive(Default)]
struct Listing {
    files: Vec<(String, String, Oid)>,
    problems: Problems,
    trees: HashMap<String, (Oid, Arc<[Child]>)>,
}

impl GitReader {
    /// Opens the repository at exactly `path`: a work tree's root, a linked work tree's root or a bare repository.
    ///
    /// `branch` and `folder` must be valid.
    pub(super) fn open(path: &Path, branch: Option<String>, folder: Option<String>) -> Result<Self, SourceError> {
        let repo = open(path)?;
        let identity = identity(repo.path()).ok_or_else(|| SourceError::PathMissing(path.to_owned()))?;
        Ok(Self {
            path: path.to_owned(),
            repo,
            identity,
            branch,
            folder,
            trees: HashMap::new(),
            ignore_file: None,
            carrier: Carrier::default(),
            taken: HashMap::new(),
        })
    }

    /// Has files travel from now on.
    pub(super) fn carry(&mut self, travel: Travel) {
        self.carrier = Carrier::new(travel);
    }

    /// The tip of the branch, now.
    pub(super) fn tip(&mut self) -> Result<Tip, Failure> {
        if identity(self.repo.path()) != Some(self.identity) {
            self.repo = open(&self.path)?;
            self.identity = identity(self.repo.path()).ok_or_else(|| SourceError::PathMissing(self.path.clone()))?;
        }
        let reference = match &self.branch {
            Some(branch) => full_name(branch),
            None => self.head()?,
        };
        let found = self.repo.find_reference(&reference).and_then(|found| found.peel_to_commit());
        match found {
            Ok(commit) => Ok(Tip { commit: commit.id(), reference }),
            Err(error) if error.code() == ErrorCode::NotFound => Err(self.missing(&reference)),
            Err(error) => Err(unreadable(&error)),
        }
    }

    /// The commit that `name` means: a branch, a tag, an abbreviated id, `HEAD~1`.
    pub(super) fn resolve(&self, name: &str) -> Result<Oid, Failure> {
        let found = self.repo.revparse_single(name).and_then(|object| object.peel_to_commit());
        found.map(|commit| commit.id()).map_err(|error| {
            let message = format!("{name:?} names no commit in {}: {}", self.path.display(), error.message());
            Failure::new(Reason::RefMissing, message)
        })
    }

    /// The repository itself, to look around in.
    pub(super) fn repository(&self) -> &Repository {
        &self.repo
    }

    /// True if `new` has `old` in its history; false if `old` is unknown here.
    pub(super) fn descends(&self, new: Oid, old: Oid) -> bool {
        new == old || self.repo.graph_descendant_of(new, old).unwrap_or(false)
    }

    /// The commits that a branch went through from `old` to `new`, without both.
    pub(super) fn between(&self, old: Oid, new: Oid) -> Superseded {
        let walk = || {
            let mut walk = self.repo.revwalk()?;
            walk.simplify_first_parent()?;
            walk.push(new)?;
            walk.hide(old)?;
            walk.skip(1).take(COUNTED).collect::<Result<Vec<_>, _>>()
        };
        // A shallow history tells less; what takes effect does not depend on it.
        let found = walk().unwrap_or_default();
        let commits = found.iter().take(NAMED).rev().map(|commit| revision(*commit)).collect();
        Superseded { count: found.len(), commits }
    }

    /// The files of a commit. What `known` has is not read again.
    pub(super) fn read(&mut self, commit: Oid, known: &Known) -> Result<Snapshot, Failure> {
        let (root, author, subject) = self.describe(commit)?;
        let (folder, tree) = self.folder_tree(commit, root)?;
        let mut listing = Listing::default();
        let (ignore_file, ignore) = self.ignore_rules(&folder, tree, &mut listing.problems)?;
        if self.ignore_file != ignore_file {
            self.trees = HashMap::new();
        }
        self.walk(&folder, tree, root, &ignore, &mut listing)?;
        let Listing { files, mut problems, trees } = listing;
        self.trees = trees;
        self.ignore_file = ignore_file;
        let files = self.read_changed(files, known, root, &mut problems)?;
        let (problems, complete) = problems.finish();
        Ok(Snapshot { revision: revision(commit), author, subject, folder, files, complete, problems })
    }

    /// A commit's tree, author and subject.
    fn describe(&self, commit: Oid) -> Result<(Oid, Option<String>, Option<String>), Failure> {
        let commit = self.repo.find_commit(commit).map_err(|error| unreadable(&error))?;
        let author = commit.author();
        let author = match (author.name(), author.email()) {
            (Ok(name), Ok(email)) => Some(format!("{name} <{email}>")),
            _ => None,
        };
        let subject = commit.summary_bytes().map(|subject| String::from_utf8_lossy(subject).into_owned());
        Ok((commit.tree_id(), author, subject))
    }

    /// How many files that count differ between the work tree and its commit; 0 without a work tree, or if the branch
    /// that is followed is not the one that is checked out.
    pub(super) fn count_dirty(&self) -> u32 {
        let checked_out = self.repo.head().ok().and_then(|head| head.name().map(str::to_owned).ok());
        let followed = self.branch.as_deref().map(full_name).or_else(|| checked_out.clone());
        if self.repo.workdir().is_none() || checked_out.is_none() || checked_out != followed {
            return 0;
        }
        let mut options = StatusOptions::new();
        options.include_untracked(true).recurse_untracked_dirs(true).exclude_submodules(true).update_index(false);
        let folder = self.folder.clone().or_else(|| {
            self.repo.workdir().filter(|root| root.join(DEFAULT_FOLDER).is_dir()).map(|_| DEFAULT_FOLDER.to_owned())
        });
        if let Some(folder) = folder.filter(|folder| !folder.is_empty()) {
            options.pathspec(folder).disable_pathspec_match(true);
        }
        let Ok(statuses) = self.repo.statuses(Some(&mut options)) else {
            return 0;
        };
        let counts = |path: &str| files::counts(path.rsplit('/').next().unwrap_or(path));
        let dirty = statuses.iter().filter(|entry| entry.path().is_ok_and(counts)).count();
        u32::try_from(dirty).unwrap_or(u32::MAX)
    }

    /// The folders in which refs move.
    pub(super) fn watches(&self) -> Vec<(PathBuf, RecursiveMode)> {
        let common = self.repo.commondir();
        let mut watches = vec![
            (common.to_owned(), RecursiveMode::NonRecursive),
            (common.join("refs"), RecursiveMode::NonRecursive),
            (common.join("refs/heads"), RecursiveMode::Recursive),
        ];
        if self.repo.path() != common {
            watches.push((self.repo.path().to_owned(), RecursiveMode::NonRecursive));
        }
        watches
    }

    /// The ref that HEAD names. While a rebase or bisect holds HEAD elsewhere, the one that it began with.
    fn head(&self) -> Result<String, Failure> {
        let head = self.repo.find_reference("HEAD").map_err(|error| unreadable(&error))?;
        if let Ok(Some(target)) = head.symbolic_target() {
            return Ok(target.to_owned());
        }
        for held in ["rebase-merge/head-name", "rebase-apply/head-name", "BISECT_START"] {
            if let Ok(name) = fs::read_to_string(self.repo.path().join(held)) {
                let name = full_name(name.trim());
                if git2::Reference::is_valid_name(&name) && self.repo.find_reference(&name).is_ok() {
                    return Ok(name);
                }
            }
        }
        Err(Failure::new(
            Reason::RefMissing,
            format!("HEAD of {} is on no branch; name the branch to follow with --branch", self.path.display()),
        ))
    }

    fn missing(&self, reference: &str) -> Failure {
        let mut branches: Vec<String> = self
            .repo
            .references_glob("refs/heads/*")
            .map(|found| found.flatten().filter_map(|found| found.shorthand().map(str::to_owned).ok()).collect())
            .unwrap_or_default();
        let shown = self.path.display();
        if branches.is_empty() {
            return Failure::new(Reason::Empty, format!("{shown} has no commit yet; the first one takes effect"));
        }
        branches.sort();
        let name = reference.strip_prefix("refs/heads/").unwrap_or(reference);
        missing_branch(name, &shown.to_string(), &branches)
    }

    /// The folder that is read, and its tree.
    fn folder_tree(&self, commit: Oid, root: Oid) -> Result<(String, Oid), Failure> {
        let folder = self.folder.as_deref().unwrap_or(DEFAULT_FOLDER);
        if folder.is_empty() {
            return Ok((String::new(), root));
        }
        let tree = self.repo.find_tree(root).map_err(|error| unreadable(&error))?;
        match tree.get_path(Path::new(folder)) {
            Ok(entry) if entry.kind() == Some(ObjectType::Tree) => Ok((folder.to_owned(), entry.id())),
            Ok(_) | Err(_) if self.folder.is_none() => Ok((String::new(), root)),
            Ok(_) => Err(Failure::new(
                Reason::PathMissing,
                format!("{folder} is no folder in commit {}; correct --path", short(commit)),
            )),
            Err(error) if error.code() == ErrorCode::NotFound => Err(Failure::new(
                Reason::PathMissing,
                format!(
                    "there is no folder {folder} in commit {}; what was in effect stays. To remove everything, keep \
                     the folder with an empty {IGNORE_FILE}",
                    short(commit)
                ),
            )),
            Err(error) => Err(unreadable(&error)),
        }
    }

    fn ignore_rules(&self, folder: &str, tree: Oid, problems: &mut Problems) -> Result<(Option<Oid>, Ignore), Failure> {
        let tree = self.repo.find_tree(tree).map_err(|error| unreadable(&error))?;
        let Some(entry) = tree.get_name(IGNORE_FILE).filter(|entry| entry.kind() == Some(ObjectType::Blob)) else {
            return Ok((None, Ignore::none(folder)));
        };
        let blob = self.repo.find_blob(entry.id()).map_err(|error| unreadable(&error))?;
        let ignore = Ignore::parse(folder, &String::from_utf8_lossy(blob.content()), problems);
        Ok((Some(blob.id()), ignore))
    }

    fn walk(&self, folder: &str, tree: Oid, root: Oid, ignore: &Ignore, listing: &mut Listing) -> Result<(), Failure> {
        let children = match self.trees.get(folder) {
            Some((same, children)) if *same == tree => children.clone(),
            _ => self.children(folder, tree, ignore)?,
        };
        listing.trees.insert(folder.to_owned(), (tree, children.clone()));
        for child in &*children {
            match child {
                Child::Folder { path, tree } => self.walk(path, *tree, root, ignore, listing)?,
                Child::File { path, content, blob } => listing.files.push((path.clone(), content.clone(), *blob)),
                Child::Link { path, blob } => match self.follow(path, *blob, root) {
                    Ok((blob, _)) => listing.files.push((path.clone(), blob.to_string(), blob)),
                    Err(why) => listing.problems.bad_link(path, why),
                },
                Child::Submodule { path } => listing.problems.submodule(path),
                Child::BadName { path } => listing.problems.bad_name(path),
            }
        }
        Ok(())
    }

    fn children(&self, folder: &str, tree: Oid, ignore: &Ignore) -> Result<Arc<[Child]>, Failure> {
        let tree = self.repo.find_tree(tree).map_err(|error| unreadable(&error))?;
        let mut children = Vec::with_capacity(tree.len());
        for entry in &tree {
            let mode = entry.filemode();
            let is_folder = mode == TREE || mode == GITLINK;
            let Ok(name) = std::str::from_utf8(entry.name_bytes()) else {
                let lossy = String::from_utf8_lossy(entry.name_bytes());
                if is_folder || files::counts(&lossy) {
                    children.push(Child::BadName { path: files::join(folder, &lossy) });
                }
                continue;
            };
            if files::is_hidden(name) || !(is_folder || files::counts(name)) {
                continue;
            }
            let path = files::join(folder, name);
            if ignore.ignores(&path, is_folder) {
                continue;
            }
            children.push(match mode {
                TREE => Child::Folder { path, tree: entry.id() },
                GITLINK => Child::Submodule { path },
                LINK => Child::Link { path, blob: entry.id() },
                _ => Child::File { path, content: entry.id().to_string(), blob: entry.id() },
            });
        }
        Ok(children.into())
    }

    /// The blob behind a link, which must lie in the same commit, and its mode.
    fn follow(&self, path: &str, link: Oid, root: Oid) -> Result<(Oid, i32), &'static str> {
        let root = self.repo.find_tree(root).map_err(|_| "can't be read")?;
        let (mut path, mut link) = (path.to_owned(), link);
        for _ in 0..MAX_LINKS {
            let target = self.repo.find_blob(link).map_err(|_| "can't be read")?;
            let target = std::str::from_utf8(target.content()).map_err(|_| "leads to a name that is not UTF-8")?;
            path = resolve(&path, target).ok_or("leads out of the repository")?;
            let entry = root.get_path(Path::new(&path)).map_err(|_| "leads to nothing in this commit")?;
            match entry.filemode() {
                LINK => link = entry.id(),
                TREE => return Err("leads to a folder"),
                GITLINK => return Err("leads into a submodule"),
                mode => return Ok((entry.id(), mode)),
            }
        }
        Err("leads in a circle")
    }

    fn read_changed(
        &mut self,
        listed: Vec<(String, String, Oid)>,
        known: &Known,
        root: Oid,
        problems: &mut Problems,
    ) -> Result<BTreeMap<String, FileEntry>, Failure> {
        let mut files = Vec::with_capacity(listed.len());
        for (path, content, blob) in listed {
            let known = known.get(&path);
            // Read at most once, and only if need be.
            let mut bytes = None;
            let wanted = self.repo.odb().map_err(|error| unreadable(&error)).and_then(|odb| {
                self.carrier.wanted(&path, &content, known, || {
                    bytes = read_blob(&odb, blob, &path, problems)?;
                    Ok(bytes.clone())
                })
            })?;
            let Some(wanted) = wanted else {
                if known == Some(&content) {
                    files.push((path, FileEntry { content, bytes: None, files: None }));
                } else if bytes.is_some() {
                    files.push((path, FileEntry { content, bytes, files: None }));
                }
                continue;
            };
            let found = self.take(&path, &wanted, root)?;
            let content = with_files(&content, &found);
            if known == Some(&content) {
                files.push((path, FileEntry { content, bytes: None, files: None }));
                continue;
            }
            if bytes.is_none() {
                let odb = self.repo.odb().map_err(|error| unreadable(&error))?;
                bytes = read_blob(&odb, blob, &path, problems)?;
            }
            let travelling = self.keep(&wanted, found)?;
            files.push((path, FileEntry { content, bytes, files: Some(travelling) }));
        }
        let files: BTreeMap<_, _> = files.into_iter().collect();
        self.taken.retain(|path, _| files.contains_key(path));
        Ok(files)
    }
}

/// The bytes of a workflow file; `None` if it is one that can't be taken, which then is a problem.
fn read_blob(odb: &Odb<'_>, blob: Oid, path: &str, problems: &mut Problems) -> Result<Option<Vec<u8>>, Failure> {
    let (size, _) = odb.read_header(blob).map_err(|error| unreadable(&error))?;
    if size as u64 > MAX_FILE_BYTES {
        problems.too_large(path, size as u64);
        return Ok(None);
    }
    let object = odb.read(blob).map_err(|error| unreadable(&error))?;
    if files::is_lfs_pointer(object.data()) {
        problems.lfs_pointer(path);
        return Ok(None);
    }
    Ok(Some(object.data().to_vec()))
}

/// The failure of a branch that is not there; `branches` are those that are.
pub(super) fn missing_branch(name: &str, place: &str, branches: &[String]) -> Failure {
    const SHOWN: usize = 5;
    let more = if branches.len() > SHOWN { ", …" } else { "" };
    let has = branches.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    Failure::new(
        Reason::RefMissing,
        format!("there is no branch {name} in {place} (it has {has}{more}); what was in effect stays"),
    )
}

/// True for a name that a branch may have.
pub(super) fn is_branch_name(name: &str) -> bool {
    !name.starts_with('-') && git2::Reference::is_valid_name(&full_name(name))
}

/// Opens the repository at exactly `path`.
pub(super) fn open(path: &Path) -> Result<Repository, SourceError> {
    let no_ceiling: [&str; 0] = [];
    let error = match Repository::open_ext(path, RepositoryOpenFlags::NO_SEARCH, no_ceiling) {
        Ok(repo) => return check_format(path, repo),
        Err(error) => error,
    };
    if !path.exists() {
        return Err(SourceError::PathMissing(path.to_owned()));
    }
    let message = error.message().to_owned();
    Err(match error.code() {
        ErrorCode::Owner => SourceError::ForeignOwner(path.to_owned()),
        ErrorCode::NotFound => match Repository::discover_path(path, no_ceiling) {
            Ok(found) => within(path, &found),
            Err(_) => SourceError::NotRepository(path.to_owned()),
        },
        _ => match unsupported(&message) {
            Some(format) => SourceError::UnsupportedFormat { path: path.to_owned(), format },
            None => SourceError::Unreadable { path: path.to_owned(), message },
        },
    })
}

fn check_format(path: &Path, repo: Repository) -> Result<Repository, SourceError> {
    let unsupported =
        |format: &str| SourceError::UnsupportedFormat { path: path.to_owned(), format: format.to_owned() };
    if repo.commondir().join("reftable").is_dir() {
        return Err(unsupported("reftable"));
    }
    let config = repo.config().and_then(|mut config| config.snapshot());
    if config.is_ok_and(|config| config.get_str("extensions.objectformat").is_ok_and(|format| format != "sha1")) {
        return Err(unsupported("SHA-256"));
    }
    Ok(repo)
}

/// The format that git2 complains of.
fn unsupported(message: &str) -> Option<String> {
    let message = message.to_ascii_lowercase();
    if message.contains("refstorage") || message.contains("reftable") {
        Some("reftable".to_owned())
    } else if message.contains("object format") || message.contains("objectformat") || message.contains("sha256") {
        Some("SHA-256".to_owned())
    } else if message.contains("extension") || message.contains("repository version") {
        Some(format!("newer ({message})"))
    } else {
        None
    }
}

fn within(path: &Path, git_dir: &Path) -> SourceError {
    let root = git_dir.parent().unwrap_or(git_dir);
    let canonical = (path.canonicalize(), root.canonicalize());
    match &canonical {
        (Ok(path), Ok(root)) => match path.strip_prefix(root) {
            Ok(inner) if inner.as_os_str().is_empty() => SourceError::NotRepository(path.clone()),
            Ok(inner) => {
                SourceError::WithinRepository { path: path.clone(), root: root.clone(), inner: inner.to_owned() }
            }
            Err(_) => SourceError::NotRepository(path.clone()),
        },
        _ => SourceError::NotRepository(path.to_owned()),
    }
}

/// `target`, seen from the folder of `link`; `None` if it is absolute or leads above the root.
fn resolve(link: &str, target: &str) -> Option<String> {
    if target.starts_with('/') {
        return None;
    }
    let mut parts: Vec<&str> = link.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

fn full_name(branch: &str) -> String {
    if branch.starts_with("refs/") { branch.to_owned() } else { format!("refs/heads/{branch}") }
}

pub(super) fn revision(commit: Oid) -> Revision {
    Revision(commit.to_string())
}

fn short(commit: Oid) -> String {
    commit.to_string()[..12].to_owned()
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

pub(super) fn unreadable(error: &git2::Error) -> Failure {
    Failure::new(
        Reason::Unreadable,
        format!("the repository can't be read: {}; check it with `git fsck`", error.message()),
    )
}

const TREE: i32 = 0o040_000;
const LINK: i32 = 0o120_000;
const GITLINK: i32 = 0o160_000;
