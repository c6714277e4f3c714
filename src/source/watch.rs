//! Watches folders for changes and says "something changed", never what: events can be lost, merged or late.

use std::{
    collections::{HashMap, HashSet},
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use notify::{
    ErrorKind, Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode},
};

/// Called at each change that may matter.
pub(super) type OnChange = Arc<dyn Fn() + Send + Sync>;
/// True for a path whose change may matter.
pub(super) type Filter = Arc<dyn Fn(&Path) -> bool + Send + Sync>;

/// Starts a watcher; an argument, so that a test can refuse.
pub(super) type Start = fn(OnChange, Filter) -> notify::Result<RecommendedWatcher>;

/// The watches of one source.
pub(super) struct Watch {
    start: Start,
    watcher: Option<RecommendedWatcher>,
    on_change: OnChange,
    filter: Filter,
    /// What is watched, with device and inode: a folder that was made anew is watched anew.
    watched: HashMap<PathBuf, (u64, u64)>,
}

/// What came of setting watches.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Watched {
    /// True if a watch was added: what happened in it before is unknown.
    pub added: bool,
    /// Why not everything is watched; a sentence.
    pub degraded: Option<String>,
}

impl Watch {
    pub(super) fn new(start: Start, on_change: OnChange, filter: Filter) -> Self {
        Self { start, watcher: None, on_change, filter, watched: HashMap::new() }
    }

    /// Watches exactly `wanted`. Folders that are missing are left out.
    pub(super) fn set(&mut self, wanted: &[(PathBuf, RecursiveMode)]) -> Watched {
        if self.watcher.is_none() && !wanted.is_empty() {
            match (self.start)(self.on_change.clone(), self.filter.clone()) {
                Ok(watcher) => self.watcher = Some(watcher),
                Err(error) => return Watched { added: false, degraded: Some(sentence(&error)) },
            }
        }
        let Some(watcher) = &mut self.watcher else {
            return Watched { added: false, degraded: None };
        };
        let keep: HashSet<&Path> = wanted.iter().map(|(path, _)| path.as_path()).collect();
        let stale: Vec<PathBuf> = self
            .watched
            .iter()
            .filter(|(path, id)| !keep.contains(path.as_path()) || identity(path) != Some(**id))
            .map(|(path, _)| path.clone())
            .collect();
        for path in stale {
            self.watched.remove(&path);
            // Fails where the folder is gone, and the kernel's watch with it.
            let _ = watcher.unwatch(&path);
        }
        let mut result = Watched { added: false, degraded: None };
        for (path, mode) in wanted {
            let Some(id) = identity(path) else { continue };
            if self.watched.contains_key(path) {
                continue;
            }
            match watcher.watch(path, *mode) {
                Ok(()) => {
                    self.watched.insert(path.clone(), id);
                    result.added = true;
                }
                Err(error) if matches!(error.kind, ErrorKind::PathNotFound) => {}
                Err(error) => {
                    result.degraded = Some(sentence(&error));
                    break;
                }
            }
        }
        result
    }
}

/// Starts a watcher of the system.
pub(super) fn start(on_change: OnChange, filter: Filter) -> notify::Result<RecommendedWatcher> {
    notify::recommended_watcher(move |event: notify::Result<Event>| {
        if event.map_or(true, |event| matters(&event, &filter)) {
            on_change();
        }
    })
}

/// True unless nothing was written, or only where nobody looks. Our own reading emits `Access(Open)`.
fn matters(event: &Event, filter: &Filter) -> bool {
    let is_write = match event.kind {
        EventKind::Access(access) => access == AccessKind::Close(AccessMode::Write),
        _ => true,
    };
    event.need_rescan() || (is_write && (event.paths.is_empty() || event.paths.iter().any(|path| filter(path))))
}

fn sentence(error: &notify::Error) -> String {
    let why = match &error.kind {
        ErrorKind::MaxFilesWatch => {
            "the limit of watched folders is reached; raise it with `sysctl fs.inotify.max_user_watches`".to_owned()
        }
        ErrorKind::Io(error) if error.raw_os_error() == Some(rustix::io::Errno::MFILE.raw_os_error()) => {
            "the limit of watchers is reached; raise it with `sysctl fs.inotify.max_user_instances`".to_owned()
        }
        kind => format!("watching fails: {}", describe(kind)),
    };
    format!("{why}; until then the source is looked at every few seconds")
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

fn describe(kind: &ErrorKind) -> String {
    match kind {
        ErrorKind::Io(error) => error.to_string(),
        ErrorKind::Generic(message) => message.clone(),
        other => format!("{other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use notify::event::{DataChange, Flag, ModifyKind};

    use super::*;

    #[test]
    fn reading_does_not_wake_but_writing_and_lost_events_do() {
        let filter: Filter = Arc::new(|path| path.ends_with("a.yaml"));
        let event = |kind, path: &str| Event::new(kind).add_path(PathBuf::from(path));
        let written = EventKind::Access(AccessKind::Close(AccessMode::Write));
        let opened = EventKind::Access(AccessKind::Open(AccessMode::Any));
        let modified = EventKind::Modify(ModifyKind::Data(DataChange::Any));
        assert!(matters(&event(written, "/x/a.yaml"), &filter));
        assert!(matters(&event(modified, "/x/a.yaml"), &filter));
        assert!(!matters(&event(opened, "/x/a.yaml"), &filter));
        assert!(!matters(&event(modified, "/x/other"), &filter));
        assert!(matters(&Event::new(EventKind::Other).set_flag(Flag::Rescan), &filter));
    }

    #[test]
    fn limits_are_told_with_their_remedy_and_end_when_they_are_raised() {
        static RAISED: AtomicBool = AtomicBool::new(false);
        let folder = tempfile::tempdir().unwrap();
        let limited: Start = |on_change, filter| {
            if RAISED.load(Ordering::Acquire) {
                return start(on_change, filter);
            }
            Err(notify::Error::io(rustix::io::Errno::MFILE.into()))
        };
        let mut watch = Watch::new(limited, Arc::new(|| ()), Arc::new(|_| true));
        let wanted = [(folder.path().to_owned(), RecursiveMode::NonRecursive)];
        let degraded = watch.set(&wanted).degraded.unwrap();
        assert!(degraded.contains("max_user_instances"), "{degraded}");
        RAISED.store(true, Ordering::Release);
        assert_eq!(watch.set(&wanted), Watched { added: true, degraded: None });
        assert_eq!(watch.set(&wanted), Watched { added: false, degraded: None });
        let limit = sentence(&notify::Error::new(ErrorKind::MaxFilesWatch));
        assert!(limit.contains("max_user_watches"), "{limit}");
    }
}
