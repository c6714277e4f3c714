//! Time as the machines see it: an argument, never a call.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::{Add, Sub},
    time::Duration,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A reading of an elapsed-time clock: nanoseconds since the host's boot. Compares only within one host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct BootTime(u64);

impl BootTime {
    /// From nanoseconds since boot.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// In nanoseconds since boot.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// How long since `earlier`; zero if that is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for BootTime {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for BootTime {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// Both clocks at one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Now {
    /// Elapsed time: decides leases and timers.
    pub boot: BootTime,
    /// Wall time: for records, and on the controller for slots.
    pub wall: Timestamp,
}

/// `at` plus `by`, at most the end of the calendar.
pub fn after(at: Timestamp, by: Duration) -> Timestamp {
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}

/// `at` minus `by`, at least the beginning of the calendar.
pub fn before(at: Timestamp, by: Duration) -> Timestamp {
    at.checked_sub(by).unwrap_or(Timestamp::MIN)
}

/// Timers of a machine: each named `T` is armed for at most one time.
#[derive(Debug, Clone)]
pub struct Timers<T> {
    queue: BTreeSet<(BootTime, T)>,
    armed: BTreeMap<T, BootTime>,
}

impl<T> Default for Timers<T> {
    fn default() -> Self {
        Self { queue: BTreeSet::new(), armed: BTreeMap::new() }
    }
}

impl<T: Ord + Clone> Timers<T> {
    /// Arms a timer, in place of what it was armed for.
    pub fn arm(&mut self, timer: T, at: BootTime) {
        self.disarm(&timer);
        self.queue.insert((at, timer.clone()));
        self.armed.insert(timer, at);
    }

    /// Arms a timer unless it is armed for an earlier time.
    pub fn arm_by(&mut self, timer: T, at: BootTime) {
        if self.armed.get(&timer).is_none_or(|armed| *armed > at) {
            self.arm(timer, at);
        }
    }

    /// True if it fires at some time.
    pub fn is_armed(&self, timer: &T) -> bool {
        self.armed.contains_key(timer)
    }

    /// It does not fire.
    pub fn disarm(&mut self, timer: &T) {
        if let Some(at) = self.armed.remove(timer) {
            self.queue.remove(&(at, timer.clone()));
        }
    }

    /// When the first fires.
    pub fn next(&self) -> Option<BootTime> {
        self.queue.first().map(|(at, _)| *at)
    }

    /// Takes the first that has fired by `now`.
    pub fn pop(&mut self, now: BootTime) -> Option<T> {
        let (_, timer) = self.queue.first().filter(|(at, _)| *at <= now).cloned()?;
        self.disarm(&timer);
        Some(timer)
    }
}
