//! A folder as it lies, as a source: looked at whole, and only once what is being written has settled.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs::{self, File, Metadata},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use notify::RecursiveMode;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use xene_agent::clock;
use xene_schemas::{diagnostic::Diagnostic, meta::Revision};

use super::{
    files::{self, DEFAULT_FOLDER, IGNORE_FILE, Ignore, Problems},
    health::{Failure, Reason},
    snapshot::{FileEntry, Known, MAX_FILE_BYTES, Snapshot},
    travel::{Carrier, Travel, without_files},
    worker::{Look, Pace, Reader, Seen, Superseded},
};

mod travel;

pub use self::travel::taken_from_folder;

/// A folder of this machine.
pub(super) struct Directory {
    /// As given: a link is followed anew at each look.
    location: PathBuf,
    folder: Option<String>,
    /// What was read of each file, by path relative to the root.
    read: HashMap<String, ReadBefore>,
    /// The folders of the last look.
    watched: BTreeSet<PathBuf>,
    /// Device and inode of the root, when it last held something.
    root: Option<(u64, u64)>,
    carrier: Carrier,
}

/// What tells a file's states apart, without its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    file: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// True if the size has changed since `before` and the time has not: some file systems truncate before they say so.
    fn lags(&self, before: &Self) -> bool {
        self.file == before.file && self.modified == before.modified && self.size != before.size
    }
}

#[derive(Clone)]
struct ReadBefore {
    stamp: Stamp,
    content: String,
    /// False if the file was written so shortly before it was read that another write may leave the same stamp.
    is_final: bool,
}

/// One look at the folder.
struct Pass<'a> {
    root: PathBuf,
    known: &'a Known,
    hurry: bool,
    ignore: Ignore,
    problems: Problems,
    unsettled: bool,
    files: BTreeMap<String, FileEntry>,
    read: HashMap<String, ReadBefore>,
    watched: BTreeSet<PathBuf>,
    /// The folders that lead here: a link to one of them is a circle.
    above: Vec<(u64, u64)>,
    /// How many links lead here, and how many folders were listed that some link leads to.
    links: usize,
    listed_by_links: usize,
    /// True if links to folders are followed.
    follows_folders: bool,
}

/// How many folders are listed at most that links lead to: where links lead to links one folder can have more names than
/// anybody could read.
const MAX_LISTED_BY_LINKS: usize = 10_000;

/// What came of reading a file.
enum Content {
    Whole(Vec<u8>, Stamp),
    Unsettled,
    TooLarge(u64),
}

impl Directory {
    /// The folder at `location`, an absolute path; `folder` must be clean.
    pub(super) fn new(location: PathBuf, folder: Option<String>) -> Self {
        let (read, watched) = (HashMap::new(), BTreeSet::new());
        Self { location, folder, read, watched, root: None, carrier: Carrier::default() }
    }

    fn folder_of(&self, root: &Path) -> Result<String, Failure> {
        match &self.folder {
            None if root.join(DEFAULT_FOLDER).is_dir() => Ok(DEFAULT_FOLDER.to_owned()),
            None => Ok(String::new()),
            Some(folder) => match root.join(folder).canonicalize() {
                Ok(real) if !real.starts_with(root) => Err(Failure::new(
                    Reason::PathMissing,
                    format!("{folder} leads out of {}; name a folder within it", root.display()),
                )),
                Ok(real) if real.is_dir() => Ok(folder.clone()),
                _ => Err(Failure::new(
                    Reason::PathMissing,
                    format!("there is no folder {folder} in {}; what was in effect stays", root.display()),
                )),
            },
        }
    }

    /// A folder that is empty and not the one that was read before is a volume that is not mounted.
    fn check_mounted(&mut self, root: &Path, known: &Known) -> Result<(), Failure> {
        let missing = |error: io::Error| self.missing(&error);
        let id = identity(&fs::metadata(root).map_err(missing)?);
        let is_empty = fs::read_dir(root).map_err(missing)?.next().is_none();
        if is_empty && !known.is_empty() && self.root.is_some_and(|before| before != id) {
            return Err(Failure::new(
                Reason::Empty,
                format!(
                    "{} is empty and not the folder that it was, as if a volume were not mounted; what was in effect \
                     stays. To remove everything, put an empty {IGNORE_FILE} there",
                    root.display()
                ),
            ));
        }
        self.root = Some(id);
        Ok(())
    }

    fn missing(&self, error: &io::Error) -> Failure {
        let shown = self.location.display();
        if error.kind() == io::ErrorKind::NotFound {
            Failure::new(Reason::PathMissing, format!("{shown} does not exist; what was in effect stays"))
        } else {
            Failure::new(Reason::Unreadable, format!("{shown} can't be read: {error}"))
        }
    }
}

impl Reader for Directory {
    fn look(&mut self, look: Look<'_>) -> Result<Seen, Failure> {
        self.watched.clear();
        let root = self.location.canonicalize().map_err(|error| self.missing(&error))?;
        self.watched.insert(root.clone());
        self.check_mounted(&root, &look.applied.known)?;
        let folder = self.folder_of(&root)?;
        let real = root.join(&folder).canonicalize().map_err(|error| self.missing(&error))?;
        let mut pass = Pass {
            hurry: look.hurry,
            watched: std::mem::take(&mut self.watched),
            ..Pass::new(root, &look.applied.known, &folder)
        };
        pass.read_ignore_file(&folder, &real);
        pass.walk(&folder, &real, &self.read);
        pass.carry(&mut self.carrier, &self.read)?;
        self.watched = pass.watched;
        self.read = pass.read;
        let (problems, complete) = pass.problems.finish();
        let revision = revision(&pass.files);
        let applied = look.applied;
        let same = applied.handed_over
            && applied.revision.as_ref() == Some(&revision)
            && applied.problems == problems
            && applied.complete == complete;
        let snapshot = Snapshot {
            revision: revision.clone(),
            author: None,
            subject: None,
            folder,
            files: pass.files,
            complete,
            problems,
        };
        Ok(Seen {
            revision,
            rewritten: None,
            snapshot: Ok((!same).then_some(snapshot)),
            unsettled: pass.unsettled && !look.hurry,
            superseded: Superseded::default(),
        })
    }

    fn carry(&mut self, travel: Travel) {
        self.carrier = Carrier::new(travel);
    }

    fn watches(&self) -> Vec<(PathBuf, RecursiveMode)> {
        // A folder that is renamed away and made anew sends nothing; its parent does.
        let mut watches: BTreeSet<&Path> = self.watched.iter().map(PathBuf::as_path).collect();
        watches.insert(&self.location);
        watches.extend(self.location.parent());
        watches.into_iter().map(|path| (path.to_owned(), RecursiveMode::NonRecursive)).collect()
    }

    fn filter(&self) -> Arc<dyn Fn(&Path) -> bool + Send + Sync> {
        let location = self.location.clone();
        Arc::new(move |path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let hidden = files::is_hidden(name) && !name.starts_with("..") && name != IGNORE_FILE;
            path == location || (path.parent() != location.parent() && !hidden)
        })
    }

    fn pace(&self) -> Pace {
        Pace {
            quiet: QUIET,
            cap: Duration::from_secs(2),
            interval: Duration::from_secs(30),
            unwatched: Duration::from_secs(2),
            remote: false,
            looks_cheaply: false,
        }
    }
}

/// What a source would read of a folder as it lies now, and what it would refuse. `folder` is relative to `root`, which
/// has no links in it; links may lead anywhere within `root`.
pub fn read_folder(root: &Path, folder: &str) -> (BTreeMap<String, Vec<u8>>, Vec<Diagnostic>) {
    let known = Known::default();
    let mut pass = Pass {
        // Git knows no other way to what a link leads to.
        follows_folders: !root.join(".git").exists(),
        ..Pass::new(root.to_owned(), &known, folder)
    };
    let real = root.join(folder);
    pass.read_ignore_file(folder, &real);
    pass.walk(folder, &real, &HashMap::new());
    let (mut files, mut problems) = (BTreeMap::new(), pass.problems);
    for (path, file) in pass.files {
        match file.bytes {
            // As it would be in a commit.
            Some(bytes) if files::is_lfs_pointer(&bytes) => problems.lfs_pointer(&path),
            Some(bytes) => drop(files.insert(path, bytes)),
            None => {}
        }
    }
    (files, problems.finish().0)
}

impl<'a> Pass<'a> {
    /// A look that leaves nothing to another one.
    fn new(root: PathBuf, known: &'a Known, folder: &str) -> Self {
        Self {
            root,
            known,
            hurry: true,
            ignore: Ignore::none(folder),
            problems: Problems::default(),
            unsettled: false,
            files: BTreeMap::new(),
            read: HashMap::new(),
            watched: BTreeSet::new(),
            above: Vec::new(),
            links: 0,
            listed_by_links: 0,
            follows_folders: true,
        }
    }

    fn read_ignore_file(&mut self, folder: &str, real: &Path) {
        let path = real.join(IGNORE_FILE);
        let shown = files::join(folder, IGNORE_FILE);
        let real = match path.canonicalize() {
            Ok(real) if real.starts_with(&self.root) => real,
            Ok(_) => return self.problems.bad_link(&shown, OUTSIDE),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => return self.problems.unreadable(&shown, &error.to_string()),
        };
        match self.content(&real, MAX_FILE_BYTES) {
            Ok(Content::Whole(bytes, _)) => {
                self.ignore = Ignore::parse(folder, &String::from_utf8_lossy(&bytes), &mut self.problems);
            }
            Ok(Content::Unsettled) if self.hurry => self.problems.unsettled(&shown),
            Ok(Content::Unsettled) => self.unsettled = true,
            Ok(Content::TooLarge(size)) => self.problems.too_large(&shown, size),
            Err(error) => self.problems.unreadable(&shown, &error.to_string()),
        }
    }

    /// Lists `folder`, which is `real` on disk.
    fn walk(&mut self, folder: &str, real: &Path, before: &HashMap<String, ReadBefore>) {
        let entries = fs::metadata(real)
            .and_then(|metadata| Ok((identity(&metadata), fs::read_dir(real)?.collect::<io::Result<Vec<_>>>()?)));
        let (id, mut entries) = match entries {
            Ok(found) => found,
            Err(error) => return self.unreadable(folder, &error),
        };
        if self.above.contains(&id) {
            return self.problems.folder_link(folder, "leads to a folder that it lies in");
        }
        if self.links > 0 {
            if self.listed_by_links == MAX_LISTED_BY_LINKS {
                return self.problems.folder_link(folder, "is beyond the 10,000 folders that links may lead to");
            }
            self.listed_by_links += 1;
        }
        self.above.push(id);
        self.watched.insert(real.to_owned());
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            self.entry(folder, &entry, before);
        }
        self.above.pop();
    }

    fn entry(&mut self, folder: &str, entry: &fs::DirEntry, before: &HashMap<String, ReadBefore>) {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let path = files::join(folder, &name);
        if files::is_hidden(&name) {
            return;
        }
        let kind = match entry.file_type() {
            Ok(kind) => kind,
            Err(error) => return self.unreadable(&path, &error),
        };
        let counts = files::counts(&name);
        if !(counts || kind.is_dir() || kind.is_symlink()) || self.ignore.ignores(&path, kind.is_dir()) {
            return;
        }
        if entry.file_name().to_str().is_none() {
            return self.problems.bad_name(&path);
        }
        let mut real = entry.path();
        let mut is_folder = kind.is_dir();
        if kind.is_symlink() {
            let target = real.canonicalize();
            is_folder = target.as_ref().is_ok_and(|target| target.is_dir());
            if is_folder && !self.follows_folders {
                return;
            }
            real = match target {
                Ok(target) if target.starts_with(&self.root) => target,
                Ok(_) if is_folder => return self.problems.folder_link(&path, OUTSIDE),
                _ if !counts => return,
                Ok(_) => return self.problems.bad_link(&path, OUTSIDE),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return self.problems.bad_link(&path, "leads to nothing");
                }
                Err(error) => return self.problems.bad_link(&path, &format!("can't be followed: {error}")),
            };
            // The target is watched where it lies.
            self.watched.extend(real.parent().map(Path::to_owned));
        }
        if is_folder {
            self.links += usize::from(kind.is_symlink());
            self.walk(&path, &real, before);
            self.links -= usize::from(kind.is_symlink());
        } else if counts {
            self.file(path, &real, before);
        }
    }

    fn file(&mut self, path: String, real: &Path, before: &HashMap<String, ReadBefore>) {
        let stamp = match fs::symlink_metadata(real) {
            Ok(metadata) if metadata.is_file() => stamp(&metadata),
            Ok(_) => return self.problems.unreadable(&path, "it is no regular file"),
            Err(error) => return self.unreadable(&path, &error),
        };
        let known = self.known.get(&path);
        let known_itself = known.map(|known| without_files(known));
        let same = before.get(&path).filter(|before| before.is_final && before.stamp == stamp);
        if let Some(same) = same.filter(|same| known_itself == Some(&same.content)) {
            let content = same.content.clone();
            self.read.insert(path.clone(), ReadBefore { stamp, content: content.clone(), is_final: true });
            self.files.insert(path, FileEntry { content, bytes: None, files: None });
            return;
        }
        let before = before.get(&path);
        match self.content(real, MAX_FILE_BYTES) {
            Ok(Content::Whole(_, stamp)) if !self.hurry && before.is_some_and(|before| stamp.lags(&before.stamp)) => {
                self.wait_for(path, before);
            }
            Ok(Content::Whole(bytes, stamp)) => {
                let content = blake3::hash(&bytes).to_hex().to_string();
                let is_final = age(stamp.modified.max(stamp.changed)) > COARSEST_CLOCK;
                self.read.insert(path.clone(), ReadBefore { stamp, content: content.clone(), is_final });
                let bytes = (known_itself != Some(&content)).then_some(bytes);
                self.files.insert(path, FileEntry { content, bytes, files: None });
            }
            Ok(Content::Unsettled) if !self.hurry => self.wait_for(path, before),
            Ok(Content::Unsettled) => {
                // What it last said stays.
                if let Some(content) = known {
                    self.files.insert(path.clone(), FileEntry { content: content.clone(), bytes: None, files: None });
                }
                self.problems.unsettled(&path);
            }
            Ok(Content::TooLarge(size)) => self.problems.too_large(&path, size),
            Err(error) => self.unreadable(&path, &error),
        }
    }

    /// The content of the file at `real`, which lies below the root and is no link, if it has at most `limit` bytes.
    fn content(&self, real: &Path, limit: u64) -> io::Result<Content> {
        let mut file = open(&self.root, real)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other("it is no regular file"));
        }
        let before = stamp(&metadata);
        if !self.hurry && age(before.modified) < QUIET {
            return Ok(Content::Unsettled);
        }
        if before.size > limit {
            return Ok(Content::TooLarge(before.size));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(before.size).unwrap_or(0));
        Read::by_ref(&mut file).take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
        let after = [file.metadata()?, fs::symlink_metadata(real)?].map(|metadata| stamp(&metadata));
        if after != [before; 2] || bytes.len() as u64 != before.size {
            return Ok(Content::Unsettled);
        }
        Ok(Content::Whole(bytes, before))
    }

    /// The file is being written: look again, with what is known of it.
    fn wait_for(&mut self, path: String, before: Option<&ReadBefore>) {
        self.unsettled = true;
        self.read.extend(before.map(|before| (path, before.clone())));
    }

    /// What is gone between two steps of a look is looked at again.
    fn unreadable(&mut self, path: &str, error: &io::Error) {
        if error.kind() == io::ErrorKind::NotFound && !self.hurry {
            self.unsettled = true;
        } else {
            self.problems.unreadable(path, &error.to_string());
        }
    }
}

/// Opens a file below `root` without following any link, however the folders change meanwhile.
fn open(root: &Path, real: &Path) -> io::Result<File> {
    // A FIFO must not hold us up; it is refused once it is open.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let inner = real.strip_prefix(root).map_err(io::Error::other)?;
    let folder = rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    match rustix::fs::openat2(&folder, inner, flags, Mode::empty(), resolve) {
        Ok(file) => Ok(file.into()),
        // Kernels before 5.6, and sandboxes that do not know the call.
        Err(rustix::io::Errno::NOSYS | rustix::io::Errno::PERM) => {
            Ok(rustix::fs::openat(&folder, inner, flags, Mode::empty())?.into())
        }
        Err(error) => Err(error.into()),
    }
}

fn revision(files: &BTreeMap<String, FileEntry>) -> Revision {
    let mut hasher = blake3::Hasher::new();
    for (path, file) in files {
        for part in [path, &file.content] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
    }
    Revision(format!("dir-{}", &hasher.finalize().to_hex()[..12]))
}

fn stamp(metadata: &Metadata) -> Stamp {
    Stamp {
        file: identity(metadata),
        size: metadata.size(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    }
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// How long ago a file's time was; very long for the future, which another machine's clock may have written.
fn age((seconds, nanos): (i64, i64)) -> Duration {
    let now = clock::now().wall;
    let nanos =
        i128::from(now.as_second() - seconds) * 1_000_000_000 + i128::from(now.subsec_nanosecond()) - i128::from(nanos);
    u64::try_from(nanos).map_or(Duration::MAX, Duration::from_nanos)
}

const OUTSIDE: &str = "leads out of the folder";
/// A file that was written more recently may be half written.
const QUIET: Duration = Duration::from_millis(250);
/// Of the file systems that are in use.
const COARSEST_CLOCK: Duration = Duration::from_secs(2);
