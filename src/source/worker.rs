//! The thread of one source: waits until something may have changed, looks, hands over what is new.
//!
//! Every trigger (file event, timer, webhook, command) only makes the source dirty. It waits once however often it is
//! made so, is never looked at twice at the same time, and is looked at once more if it became dirty meanwhile.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use notify::RecursiveMode;
use tokio::sync::oneshot;
use tracing::{debug, warn};
use xene_agent::{clock, decide::time::BootTime};
use xene_schemas::{diagnostic::Diagnostic, meta::Revision};

use super::{
    backoff::{Backoff, jitter},
    health::{Failure, Reason},
    report::Report,
    snapshot::{Known, Snapshot},
    travel::Travel,
    watch::{Start, Watch},
};
use crate::decide::desired::SourceHealth;

/// Why a snapshot could not be brought into effect.
pub type ApplyError = Box<dyn std::error::Error + Send + Sync>;

/// Asked of a snapshot of a folder: does a file that changed not parse? Then it may be half written.
pub type IsDoubtful = Box<dyn FnMut(&Snapshot) -> bool + Send>;

/// What is in effect already, from the store.
#[derive(Debug, Clone, Default)]
pub struct Resume {
    /// The revision in effect.
    pub revision: Option<Revision>,
    /// The files whose content is known; empty: all are read again.
    pub known: Known,
    /// The folder that was read, relative to the source's root.
    pub folder: Option<String>,
}

/// Reads one kind of source. Everything in it may block.
pub(super) trait Reader: Send {
    /// Looks at the whole source.
    fn look(&mut self, look: Look<'_>) -> Result<Seen, Failure>;
    /// The files of a commit by any of its names.
    fn read_commit(&mut self, name: &str, _known: &Known) -> Result<Snapshot, Failure> {
        let message = format!("{name:?} can't be read: only a repository of this machine has commits to choose from");
        Err(Failure::new(Reason::RefMissing, message))
    }
    /// Has files travel from now on.
    fn carry(&mut self, travel: Travel);
    /// What to watch, as of the last look.
    fn watches(&self) -> Vec<(PathBuf, RecursiveMode)>;
    /// True for a path below the watches whose change may matter.
    fn filter(&self) -> Arc<dyn Fn(&Path) -> bool + Send + Sync>;
    /// How many files of a work tree differ from its commit.
    fn count_dirty(&mut self) -> u32 {
        0
    }
    /// Does what can wait, while there is nothing else to do.
    fn rest(&mut self, _stop: &AtomicBool) {}
    /// How it wants to be looked at.
    fn pace(&self) -> Pace;
}

/// What a reader needs for a look.
pub(super) struct Look<'a> {
    /// What is in effect.
    pub applied: &'a Applied,
    /// True if files that are still being written must be left out instead of waited for.
    pub hurry: bool,
    /// Set when the source is stopped.
    pub stop: &'a AtomicBool,
}

/// What was last handed over with success.
#[derive(Debug, Default)]
pub(super) struct Applied {
    /// False until this process has handed something over: what is in effect may stem from an earlier one, and its
    /// problems are unknown.
    pub handed_over: bool,
    pub revision: Option<Revision>,
    pub known: Known,
    pub problems: Vec<Diagnostic>,
    pub complete: bool,
    /// The folder that was read.
    pub folder: Option<String>,
}

/// What a look found.
pub(super) struct Seen {
    /// The newest revision.
    pub revision: Revision,
    /// The revision in effect, if the newest does not descend from it.
    pub rewritten: Option<Revision>,
    /// What is to be handed over, if anything; or why not.
    pub snapshot: Result<Option<Snapshot>, Failure>,
    /// True if files were being written: look again.
    pub unsettled: bool,
    /// Commits between what is in effect and the newest.
    pub superseded: Superseded,
}

/// Commits that nobody saw while they were the newest.
#[derive(Debug, Default)]
pub(super) struct Superseded {
    pub count: usize,
    /// The newest of them, oldest first.
    pub commits: Vec<Revision>,
}

/// How a source wants to be looked at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// A change is looked at once it was quiet for this long…
    pub quiet: Duration,
    /// …or after this, if it is never quiet.
    pub cap: Duration,
    /// Without any change; ±10 %.
    pub interval: Duration,
    /// The same while changes can't be watched.
    pub unwatched: Duration,
    /// True if asking costs somebody else: then failures back off, and changes don't come by themselves.
    pub remote: bool,
    /// True if it may be looked at after each hand-over: what came meanwhile need not wait to be noticed.
    pub looks_cheaply: bool,
}

/// Speaks to the thread of a source. Clones speak to the same; the last one that goes stops it.
#[derive(Clone)]
pub struct SourceHandle {
    inner: Arc<Inner>,
}

struct Inner {
    signals: Arc<Signals>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl SourceHandle {
    /// Looks now; returns when that look and what it brought are done: the newest revision.
    pub async fn sync(&self) -> Result<Revision, Failure> {
        self.request().await.unwrap_or_else(|_| Err(stopped()))
    }

    /// [`sync`](Self::sync), for threads that may block.
    pub fn sync_blocking(&self) -> Result<Revision, Failure> {
        self.request().blocking_recv().unwrap_or_else(|_| Err(stopped()))
    }

    /// Looks soon, such as after a webhook. If that announced a commit, looks again until it is visible, for 30 s.
    pub fn announce(&self, commit: Option<String>) {
        self.inner.signals.change(|state| {
            state.hint = true;
            if let Some(commit) = commit {
                state.announced = Some((commit, clock::now().boot + ANNOUNCED));
            }
        });
    }

    /// Looks soon, and hands over all files with their bytes, also if nothing changed.
    pub fn reread(&self) {
        self.inner.signals.change(|state| (state.reread, state.hint) = (true, true));
    }

    /// Ends the thread; returns when it has ended.
    pub fn stop(&self) {
        self.inner.signals.stop();
        let thread = self.inner.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            warn!("the source's thread had panicked");
        }
    }

    fn request(&self) -> oneshot::Receiver<Result<Revision, Failure>> {
        let (answer, waiting) = oneshot::channel();
        self.inner.signals.change(|state| {
            // After the end nobody answers: dropping the sender says so.
            if !state.ended {
                state.waiters.push(answer);
            }
        });
        waiting
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.signals.stop();
    }
}

impl std::fmt::Debug for SourceHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SourceHandle").finish_non_exhaustive()
    }
}

/// How the thread of a source works.
pub(super) struct Manner {
    /// What lasts for this long is stale.
    pub stale_after: Duration,
    /// True unless a person named the folder.
    pub has_default_folder: bool,
    /// Starts what watches for changes.
    pub start_watcher: Start,
}

/// Starts the thread of a source.
pub(super) fn spawn<A, H>(
    reader: Box<dyn Reader>,
    Manner { stale_after, has_default_folder, start_watcher }: Manner,
    is_doubtful: Option<IsDoubtful>,
    resume: Resume,
    apply: A,
    health: H,
) -> io::Result<SourceHandle>
where
    A: FnMut(Snapshot) -> Result<(), ApplyError> + Send + 'static,
    H: FnMut(SourceHealth) + Send + 'static,
{
    let signals = Arc::new(Signals::default());
    let changed = signals.clone();
    let watch = Watch::new(start_watcher, Arc::new(move || changed.mark_changed()), reader.filter());
    let worker = Worker {
        reader,
        watch,
        signals: signals.clone(),
        is_doubtful,
        apply,
        report: Report::new(health, stale_after),
        has_default_folder,
        applied: Applied {
            revision: resume.revision,
            known: resume.known,
            folder: resume.folder,
            ..Applied::default()
        },
        backoff: Backoff::default(),
    };
    let thread = thread::Builder::new().name("source".to_owned()).spawn(move || worker.run())?;
    Ok(SourceHandle { inner: Arc::new(Inner { signals, thread: Mutex::new(Some(thread)) }) })
}

/// What others ask of the thread.
#[derive(Default)]
struct Signals {
    state: Mutex<State>,
    wake: Condvar,
    stop: AtomicBool,
}

#[derive(Default)]
struct State {
    ended: bool,
    hint: bool,
    reread: bool,
    /// When the first and the last change since the last look were noticed.
    changed: Option<(BootTime, BootTime)>,
    announced: Option<(String, BootTime)>,
    waiters: Vec<oneshot::Sender<Result<Revision, Failure>>>,
}

/// Why the thread goes on.
enum Wake {
    Stop,
    Look { waiters: Vec<oneshot::Sender<Result<Revision, Failure>>>, asked: bool, reread: bool },
}

impl Signals {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.wake.notify_all();
    }

    fn mark_changed(&self) {
        let now = clock::now().boot;
        self.change(|state| state.changed = Some((state.changed.map_or(now, |(first, _)| first), now)));
    }

    fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.change(|_| ());
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Waits until it is time to look: somebody asks, a change has settled, or `deadline`.
    fn wait(&self, pace: Pace, deadline: BootTime) -> Wake {
        let mut state = self.lock();
        loop {
            if self.is_stopped() {
                return Wake::Stop;
            }
            let now = clock::now().boot;
            let settled = state.changed.map(|(first, last)| (last + pace.quiet).min(first + pace.cap));
            let due = settled.map_or(deadline, |settled| settled.min(deadline));
            if !state.waiters.is_empty() || state.hint || now >= due {
                state.changed = None;
                let asked = std::mem::take(&mut state.hint) || !state.waiters.is_empty();
                let reread = std::mem::take(&mut state.reread);
                return Wake::Look { waiters: std::mem::take(&mut state.waiters), asked, reread };
            }
            state = self.wake.wait_timeout(state, due.since(now)).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Sleeps, unless the source is stopped; true if it was.
    fn pause(&self, time: Duration) -> bool {
        let deadline = clock::now().boot + time;
        let mut state = self.lock();
        loop {
            let now = clock::now().boot;
            if self.is_stopped() || now >= deadline {
                return self.is_stopped();
            }
            state = self.wake.wait_timeout(state, deadline.since(now)).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn is_idle(&self) -> bool {
        let state = self.lock();
        state.changed.is_none() && state.waiters.is_empty() && !state.hint && !self.is_stopped()
    }

    /// True while an announced commit is awaited.
    fn awaits_announced(&self, seen: Option<&Revision>) -> bool {
        let mut state = self.lock();
        let waits = state
            .announced
            .as_ref()
            .is_some_and(|(commit, until)| seen.is_none_or(|seen| seen.0 != *commit) && clock::now().boot < *until);
        if !waits {
            state.announced = None;
        }
        waits
    }
}

struct Worker<A, H> {
    reader: Box<dyn Reader>,
    watch: Watch,
    signals: Arc<Signals>,
    is_doubtful: Option<IsDoubtful>,
    apply: A,
    report: Report<H>,
    /// True unless a person named the folder.
    has_default_folder: bool,
    applied: Applied,
    backoff: Backoff,
}

impl<A, H> Worker<A, H>
where
    A: FnMut(Snapshot) -> Result<(), ApplyError>,
    H: FnMut(SourceHealth),
{
    fn run(mut self) {
        let mut deadline = clock::now().boot;
        while let Wake::Look { waiters, asked, reread } = self.signals.wait(self.reader.pace(), deadline) {
            if asked {
                self.backoff.reset();
            }
            if reread {
                let (revision, folder) = (self.applied.revision.take(), self.applied.folder.take());
                self.applied = Applied { revision, folder, ..Applied::default() };
            }
            self.set_watches();
            let outcome = self.pass();
            if self.set_watches() {
                // What happened in a new folder before its watch stood is unknown.
                self.signals.mark_changed();
            }
            if let Err(failure) = &outcome {
                debug!(reason = %failure.reason, message = %failure.message, "the source can't be read");
                self.report.failed(failure);
            }
            let wait = self.next_wait(&outcome);
            for waiter in waiters {
                // One that no longer waits needs no answer.
                let _ = waiter.send(outcome.clone());
            }
            if let Ok(revision) = outcome {
                let idle = self.signals.is_idle();
                let dirty = if idle { self.reader.count_dirty() } else { self.report.dirty() };
                self.report.observed(revision, dirty);
                if idle {
                    self.reader.rest(&self.signals.stop);
                }
            }
            deadline = clock::now().boot + wait;
        }
        let mut state = self.signals.lock();
        state.ended = true;
        state.waiters.clear();
    }

    /// Looks until there is nothing new; the newest revision.
    fn pass(&mut self) -> Result<Revision, Failure> {
        let pace = self.reader.pace();
        let started = clock::now().boot;
        let mut doubted = None;
        loop {
            let waited = clock::now().boot.since(started);
            let look = Look { applied: &self.applied, hurry: waited >= pace.cap, stop: &self.signals.stop };
            let seen = self.reader.look(look)?;
            let snapshot = match seen.snapshot {
                Ok(snapshot) => snapshot,
                Err(failure) => {
                    self.report.looked(&seen.revision);
                    return Err(failure);
                }
            };
            // One that is denied is told as the failure that it is.
            if let Some(old) = &seen.rewritten {
                self.report.rewritten(old, &seen.revision);
            }
            let doubtful = match (&snapshot, &mut self.is_doubtful) {
                (Some(snapshot), Some(is_doubtful)) => is_doubtful(snapshot),
                _ => false,
            };
            let now = clock::now().boot;
            let doubtful = doubtful && now.since(*doubted.get_or_insert(now)) < DOUBT;
            if doubtful || (seen.unsettled && waited < pace.cap) {
                if self.signals.pause(pace.quiet) {
                    return Err(stopped());
                }
                continue;
            }
            // Before it is handed over, which may take its time.
            self.report.looked(&seen.revision);
            let Some(snapshot) = snapshot else {
                return Ok(seen.revision);
            };
            if self.has_default_folder {
                snapshot.check_folder(self.applied.folder.as_deref())?;
            }
            self.hand_over(snapshot)?;
            self.report.superseded(seen.superseded, &seen.revision);
            if !pace.looks_cheaply {
                return Ok(seen.revision);
            }
        }
    }

    fn hand_over(&mut self, snapshot: Snapshot) -> Result<(), Failure> {
        let applied = Applied {
            handed_over: true,
            revision: Some(snapshot.revision.clone()),
            known: snapshot.known(),
            problems: snapshot.problems.clone(),
            complete: snapshot.complete,
            folder: Some(snapshot.folder.clone()),
        };
        let revision = snapshot.revision.clone();
        (self.apply)(snapshot).map_err(|error| {
            let message = format!("revision {revision} could not be brought into effect: {error}; it is tried again");
            // Whoever failed may have forgotten what it was given before.
            self.applied.known.clear();
            Failure::new(Reason::ApplyFailed, message)
        })?;
        self.applied = applied;
        Ok(())
    }

    /// True if a watch was added.
    fn set_watches(&mut self) -> bool {
        let watched = self.watch.set(&self.reader.watches());
        self.report.degraded(watched.degraded);
        watched.added
    }

    fn next_wait(&mut self, outcome: &Result<Revision, Failure>) -> Duration {
        let pace = self.reader.pace();
        // Without random numbers waits are not spread, which is no reason to stop.
        let random = getrandom::u32().unwrap_or(u32::MAX / 2);
        let interval = if self.report.is_degraded() { pace.unwatched } else { pace.interval };
        let wait = match outcome {
            Ok(_) => {
                self.backoff.reset();
                jitter(interval, random)
            }
            Err(failure) if failure.reason == Reason::AuthFailed => self.backoff.slow(random),
            Err(failure) if pace.remote || failure.reason == Reason::ApplyFailed => self.backoff.next(random),
            Err(_) => self.backoff.next(random).min(interval),
        };
        let wait = if self.signals.awaits_announced(outcome.as_ref().ok()) { wait.min(ANNOUNCED_RETRY) } else { wait };
        // Staleness is told when it begins, not at the next look that happens to come.
        if outcome.is_err() { self.report.until_stale().map_or(wait, |left| wait.min(left)) } else { wait }
    }
}

fn stopped() -> Failure {
    Failure::new(Reason::Stopped, "the source was stopped")
}

/// A file that does not parse may be half written for this long.
const DOUBT: Duration = Duration::from_secs(1);
/// An announced commit is awaited for this long…
const ANNOUNCED: Duration = Duration::from_secs(30);
/// …and asked for this often.
const ANNOUNCED_RETRY: Duration = Duration::from_secs(2);
