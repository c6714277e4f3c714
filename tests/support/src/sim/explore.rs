//! Many worlds, on all cores: the first that breaks a law is told again, with its history.

use std::{
    fmt::Write as _,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use super::{History, Outcome, Random, Setup, Violation, World};

/// How a world is set up from its randomness.
pub type SetUp = fn(&mut Random) -> Setup;

/// How many of the last lines of a history are told.
const LINES: usize = 60;

/// What came of many worlds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Explored {
    /// All of them together.
    pub total: Outcome,
    /// How many.
    pub worlds: u64,
}

/// A world that broke a law.
#[derive(Debug, Clone)]
pub struct Found {
    /// Its seed.
    pub seed: u64,
    /// What it broke.
    pub violation: Violation,
}

/// One world from its seed.
///
/// # Errors
/// With the law that it breaks.
pub fn replay(set_up: SetUp, seed: u64, keep: bool) -> (World, Result<Outcome, Violation>) {
    let mut random = Random::new(seed);
    let setup = set_up(&mut random);
    let mut world = World::new(setup, random, History::new(keep));
    let outcome = world.live();
    (world, outcome)
}

/// Lives through the worlds of seeds from `first` on.
///
/// # Errors
/// With one that breaks a law.
pub fn explore(set_up: SetUp, first: u64, worlds: u64) -> Result<Explored, Box<Found>> {
    let next = AtomicU64::new(0);
    let found: Mutex<Option<Box<Found>>> = Mutex::new(None);
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let work = || {
        let mut explored = Explored::default();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= worlds {
                return explored;
            }
            let seed = first + at;
            match replay(set_up, seed, false).1 {
                Ok(outcome) => {
                    explored.worlds += 1;
                    explored.total.events += outcome.events;
                    explored.total.starts += outcome.starts;
                    explored.total.grants += outcome.grants;
                }
                Err(violation) => {
                    next.store(worlds, Ordering::Relaxed);
                    if let Ok(mut found) = found.lock()
                        && found.as_ref().is_none_or(|found| found.seed > seed)
                    {
                        *found = Some(Box::new(Found { seed, violation }));
                    }
                }
            }
        }
    };
    let mut explored = Explored::default();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            match worker.join() {
                Ok(part) => {
                    explored.worlds += part.worlds;
                    explored.total.events += part.total.events;
                    explored.total.starts += part.total.starts;
                    explored.total.grants += part.total.grants;
                }
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    });
    match found.into_inner() {
        Ok(Some(found)) => Err(found),
        _ => Ok(explored),
    }
}

/// What a person needs to know of a world that broke a law.
pub fn tell(set_up: SetUp, seed: u64, lines: usize) -> String {
    let (world, outcome) = replay(set_up, seed, true);
    let all = world.history.lines();
    let mut text = String::new();
    for line in &all[all.len().saturating_sub(lines)..] {
        let _ = writeln!(text, "{line}");
    }
    match outcome {
        Ok(outcome) => _ = writeln!(text, "seed {seed} breaks no law: {outcome:?}"),
        Err(violation) => _ = writeln!(text, "seed {seed} breaks {violation}\nagain: XENE_SEED={seed}"),
    }
    text
}

impl Found {
    /// Its last lines, and how to see it again.
    pub fn tell(&self, set_up: SetUp) -> String {
        tell(set_up, self.seed, LINES)
    }
}
