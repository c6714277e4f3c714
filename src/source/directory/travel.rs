//! Files that travel, from a folder as it lies.

use std::{
    collections::HashMap,
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use xene_agent::content::ContentStore;

use super::{COARSEST_CLOCK, Content, OUTSIDE, Pass, ReadBefore, age, stamp};
use crate::source::{
    Known, files,
    health::Failure,
    snapshot::{FileEntry, MAX_FILE_BYTES, Travelling},
    travel::{self, Bytes, Carrier, Found, MAX_FILES, Travel, Wanted, with_files, without_files},
};

/// What the workflow file at `path` takes of the folder `root` as it lies now; bytes go to `store`, if there is one.
/// `path` is relative to `root`, which has no links in it; no file may lie outside.
///
/// # Errors
/// If the bytes can't be stored.
pub fn taken_from_folder(
    root: &Path,
    path: &str,
    wanted: &Wanted,
    store: Option<ContentStore>,
) -> Result<Vec<Travelling>, Failure> {
    let known = Known::default();
    let mut pass = Pass::new(root.to_owned(), &known, "");
    let found = pass.take(path, wanted, &HashMap::new());
    let mut carrier = Carrier::new(Travel { store, ..Travel::default() });
    carrier.keep(wanted, found, |real: &PathBuf, limit| Ok(pass.bytes(real, limit)))
}

/// One search: where the patterns begin, what they are, and what they took.
struct Search<'a> {
    folder: &'a str,
    wanted: &'a Wanted,
    before: &'a HashMap<String, ReadBefore>,
    found: Vec<Found<PathBuf>>,
    /// Bytes that may still be read.
    left: u64,
}

impl Pass<'_> {
    /// Gives every workflow file what its patterns take.
    pub(super) fn carry(&mut self, carrier: &mut Carrier, before: &HashMap<String, ReadBefore>) -> Result<(), Failure> {
        let paths: Vec<String> = self.files.keys().cloned().collect();
        for path in paths {
            self.carry_one(&path, carrier, before)?;
        }
        Ok(())
    }

    fn carry_one(
        &mut self,
        path: &str,
        carrier: &mut Carrier,
        before: &HashMap<String, ReadBefore>,
    ) -> Result<(), Failure> {
        let Some(FileEntry { content, bytes, .. }) = self.files.get(path).cloned() else { return Ok(()) };
        if without_files(&content) != content {
            // It could not be read, and what it last said stays.
            return Ok(());
        }
        let known = self.known.get(path).cloned();
        let mut bytes = bytes;
        let wanted = carrier.wanted(path, &content, known.as_ref(), || {
            if bytes.is_none() {
                bytes = self.again(path, &content);
            }
            Ok::<_, Failure>(bytes.clone())
        })?;
        let Some(wanted) = wanted else {
            if known.as_ref() != Some(&content) {
                self.files.insert(path.to_owned(), FileEntry { content, bytes, files: None });
            }
            return Ok(());
        };
        let found = self.take(path, &wanted, before);
        let with = with_files(&content, &found);
        if known.as_ref() == Some(&with) {
            self.files.insert(path.to_owned(), FileEntry { content: with, bytes: None, files: None });
            return Ok(());
        }
        if self.unsettled && !self.hurry {
            // There will be another look; nothing is kept before.
            return Ok(());
        }
        if bytes.is_none() {
            bytes = self.again(path, &content);
        }
        let files = carrier.keep(&wanted, found, |real: &PathBuf, limit| Ok(self.bytes(real, limit)))?;
        self.files.insert(path.to_owned(), FileEntry { content: with, bytes, files: Some(files) });
        Ok(())
    }

    /// The bytes of a workflow file that was read before, if they are still the same.
    fn again(&mut self, path: &str, content: &str) -> Option<Vec<u8>> {
        let read = self.root.join(path).canonicalize().and_then(|real| self.content(&real, MAX_FILE_BYTES));
        match read {
            Ok(Content::Whole(bytes, _)) if blake3::hash(&bytes).to_hex().as_str() == content => Some(bytes),
            _ => {
                self.unsettled = true;
                None
            }
        }
    }

    fn bytes(&mut self, real: &Path, limit: u64) -> Bytes {
        match self.content(real, limit) {
            Ok(Content::Whole(bytes, _)) if files::is_lfs_pointer(&bytes) => Bytes::Refused(travel::LFS.into()),
            Ok(Content::Whole(bytes, _)) => Bytes::Whole(bytes),
            Ok(Content::TooLarge(size)) => Bytes::TooMany(size),
            Ok(Content::Unsettled) => {
                self.unsettled = true;
                Bytes::Refused(WRITTEN.into())
            }
            Err(error) => Bytes::Refused(format!("can't be read: {error}")),
        }
    }

    /// What the patterns of the workflow file at `path` take.
    fn take(&mut self, path: &str, wanted: &Wanted, before: &HashMap<String, ReadBefore>) -> Vec<Found<PathBuf>> {
        let folder = travel::folder_of(path);
        let mut search = Search { folder, wanted, before, found: Vec::new(), left: wanted.budget };
        for start in wanted.globs.folders() {
            let real = self.root.join(folder).join(start).canonicalize();
            if let Ok(real) = real
                && real.starts_with(&self.root)
                && real.is_dir()
            {
                self.look_in(start, &real, &mut search);
            }
        }
        search.found.sort_by(|a, b| a.path.cmp(&b.path));
        search.found
    }

    fn look_in(&mut self, inner: &str, real: &Path, search: &mut Search<'_>) {
        let entries = fs::read_dir(real).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let mut entries = match entries {
            Ok(entries) => entries,
            Err(error) => return self.unreadable(&files::join(search.folder, inner), &error),
        };
        self.watched.insert(real.to_owned());
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            if search.found.len() >= MAX_FILES {
                return;
            }
            let (raw, Ok(kind)) = (entry.file_name(), entry.file_type()) else { continue };
            let name = raw.to_string_lossy();
            let path = files::join(inner, &name);
            if name == ".git" {
                continue;
            }
            if kind.is_dir() {
                if search.wanted.globs.may_hold(&path) {
                    self.look_in(&path, &entry.path(), search);
                }
                continue;
            }
            if !search.wanted.globs.matches(&path) {
                continue;
            }
            let real = if raw.to_str().is_none() {
                Err(travel::NOT_UTF8.to_owned())
            } else if kind.is_symlink() {
                self.target(&entry.path())
            } else if kind.is_file() {
                Ok(entry.path())
            } else {
                Err("is no regular file".to_owned())
            };
            self.found(path, real, search);
        }
    }

    /// Where a link leads to, which must be a file below the root.
    fn target(&mut self, link: &Path) -> Result<PathBuf, String> {
        let target = link.canonicalize().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => "is a link that leads to nothing".to_owned(),
            _ => format!("is a link that can't be followed: {error}"),
        })?;
        if !target.starts_with(&self.root) {
            return Err(format!("is a link that {OUTSIDE}"));
        }
        if target.is_dir() {
            return Err("is a link that leads to a folder".to_owned());
        }
        self.watched.extend(target.parent().map(Path::to_owned));
        Ok(target)
    }

    fn found(&mut self, path: String, real: Result<PathBuf, String>, search: &mut Search<'_>) {
        let full = files::join(search.folder, &path);
        let mut executable = false;
        let file = real.and_then(|real| {
            let metadata = fs::symlink_metadata(&real).map_err(|error| format!("can't be read: {error}"))?;
            if !metadata.is_file() {
                return Err("is no regular file".to_owned());
            }
            executable = metadata.permissions().mode() & 0o100 != 0;
            let (stamp, before) = (stamp(&metadata), search.before.get(&full));
            let same = before.filter(|before| before.is_final && before.stamp == stamp);
            let (size, limit) = (stamp.size, search.left);
            search.left = limit.saturating_sub(size);
            if let Some(same) = same {
                self.read.insert(full.clone(), same.clone());
                return Ok((same.content.clone(), real));
            }
            if size > limit {
                return Ok((format!("{size} bytes"), real));
            }
            match self.content(&real, limit) {
                Ok(Content::Whole(bytes, stamp)) => {
                    let content = blake3::hash(&bytes).to_hex().to_string();
                    let is_final = age(stamp.modified.max(stamp.changed)) > COARSEST_CLOCK;
                    self.read.insert(full.clone(), ReadBefore { stamp, content: content.clone(), is_final });
                    Ok((content, real))
                }
                Ok(Content::TooLarge(size)) => Ok((format!("{size} bytes"), real)),
                Ok(Content::Unsettled) => {
                    self.unsettled = true;
                    Err(WRITTEN.to_owned())
                }
                Err(error) => Err(format!("can't be read: {error}")),
            }
        });
        search.found.push(Found { path, executable, file });
    }
}

const WRITTEN: &str = "is being written all the time";
