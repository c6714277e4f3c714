//! The timers of a run: each is set at most once at a time, and the earliest is known without a search.

use std::collections::{BTreeSet, HashMap};

use super::BootTime;

/// What can come due; a task is named by its place in the DAG.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Timer {
    /// The run has taken as long as it may.
    Run,
    /// `finally` has.
    Finally,
    /// An attempt of this task has.
    Task(usize),
    /// The step that this task is at has.
    Step(usize),
    /// The step that this task is at was asked to end, and has not.
    Grace(usize),
    /// This task, or the step it is at, is tried again.
    Retry(usize),
    /// Nobody has decided whether this task may run.
    Approval(usize),
}

#[derive(Debug, Default)]
pub(super) struct Timers {
    due: BTreeSet<(BootTime, Timer)>,
    set: HashMap<Timer, BootTime>,
}

impl Timers {
    pub(super) fn set(&mut self, timer: Timer, at: BootTime) {
        self.clear(timer);
        self.set.insert(timer, at);
        self.due.insert((at, timer));
    }

    pub(super) fn clear(&mut self, timer: Timer) {
        if let Some(at) = self.set.remove(&timer) {
            self.due.remove(&(at, timer));
        }
    }

    pub(super) fn clear_all(&mut self) {
        *self = Self::default();
    }

    pub(super) fn next(&self) -> Option<BootTime> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Takes the earliest timer that is due.
    pub(super) fn pop(&mut self, now: BootTime) -> Option<Timer> {
        let (_, timer) = *self.due.first().filter(|(at, _)| *at <= now)?;
        self.clear(timer);
        Some(timer)
    }
}
