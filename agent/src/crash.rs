//! Named places at which a test has a process die, before and after commits of what matters. Not there in release builds.
//!
//! `XENE_CRASH_AT=intent.before_commit` ends the process, as SIGKILL would, just before a commit that holds an intent is
//! handed to the disk; `intent.after_commit` once it is durable and nothing that follows it was done;
//! `intent.after_commit:3` at the third such commit.

#[cfg(debug_assertions)]
use std::{
    process::abort,
    sync::{
        LazyLock,
        atomic::{AtomicU32, Ordering},
    },
};

/// What a commit holds that a crash beside it is of interest to, in a controller.
pub const OF_CONTROLLERS: [&str; 5] = ["applied", "grant", "requested", "delivery", "recorded"];
/// The same where an agent enrols, and where it gets another certificate.
pub const OF_IDENTITIES: [&str; 3] = ["enrolled", "certified", "renewed"];
/// The same in an agent.
pub const OF_AGENTS: [&str; 5] = ["claim", "released", "intent", "started", "ended"];

/// The places that one commit passes.
#[derive(Debug, Default)]
pub struct Places(#[cfg(debug_assertions)] Vec<&'static str>);

impl Places {
    /// Of a commit of these changes, each of which `of` may name.
    pub fn of<T>(changes: &[T], of: impl Fn(&T) -> Option<&'static str>) -> Self {
        #[cfg(debug_assertions)]
        if WANTED.is_some() {
            return Self(changes.iter().filter_map(of).collect());
        }
        let _ = (changes, of);
        Self::default()
    }

    /// The commit is about to be handed to the disk.
    pub fn before(&self) {
        self.pass("before_commit");
    }

    /// The commit is durable.
    pub fn after(&self) {
        self.pass("after_commit");
    }

    #[cfg(debug_assertions)]
    fn pass(&self, moment: &str) {
        let Some(wanted) = &*WANTED else { return };
        let hit = wanted.place.split_once('.').is_some_and(|(what, when)| self.0.contains(&what) && when == moment);
        if hit && wanted.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            abort();
        }
    }

    #[cfg(not(debug_assertions))]
    fn pass(&self, _: &str) {}
}

/// Where to die.
#[cfg(debug_assertions)]
struct Wanted {
    place: String,
    left: AtomicU32,
}

#[cfg(debug_assertions)]
#[expect(clippy::disallowed_methods, reason = "a switch of tests, which no person may set on the command line")]
static WANTED: LazyLock<Option<Wanted>> = LazyLock::new(|| {
    let text = std::env::var("XENE_CRASH_AT").ok()?;
    let (place, count) = text.split_once(':').unwrap_or((&text, "1"));
    Some(Wanted { place: place.into(), left: AtomicU32::new(count.parse().ok()?) })
});
