//! Time in a world: true time, and what the clocks of one host make of it.

use std::{fmt, ops::Add};

use jiff::Timestamp;
use xene_agent::decide::time::{BootTime, Now};

/// True time: nanoseconds since the world began. No machine ever sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Instant(pub u64);

/// A span of true time in nanoseconds.
pub const MILLISECOND: u64 = 1_000_000;
/// A span of true time in nanoseconds.
pub const SECOND: u64 = 1_000 * MILLISECOND;
/// What the calendar shows when a world begins: 2027-01-15T08:00:00Z.
const BEGIN: i64 = 1_800_000_000;

impl Add<u64> for Instant {
    type Output = Self;

    fn add(self, nanos: u64) -> Self {
        Self(self.0.saturating_add(nanos))
    }
}

impl fmt::Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}", self.0 / SECOND, self.0 % SECOND / MILLISECOND)
    }
}

impl Instant {
    /// What a clock that is right shows.
    pub fn wall(self) -> Timestamp {
        let nanos = i128::from(BEGIN) * i128::from(SECOND) + i128::from(self.0);
        Timestamp::from_nanosecond(nanos).unwrap_or(Timestamp::MAX)
    }
}

/// The clocks of a host: elapsed time runs at its own rate since boot, wall time is off by what it was stepped.
#[derive(Debug, Clone)]
pub struct Clock {
    booted: Instant,
    /// Thousandths of real time: 950 to 1050 (assumption A1).
    rate: u64,
    /// Nanoseconds ahead of true time.
    offset: i64,
}

impl Clock {
    /// A host that boots.
    pub fn boot(at: Instant, rate: u64) -> Self {
        Self { booted: at, rate, offset: 0 }
    }

    /// The host boots again: elapsed time begins anew.
    pub fn reboot(&mut self, at: Instant) {
        self.booted = at;
    }

    /// Its wall clock from now on is this far ahead of true time, in nanoseconds.
    pub fn set_offset(&mut self, offset: i64) {
        self.offset = offset;
    }

    /// Both clocks.
    pub fn now(&self, at: Instant) -> Now {
        let boot = (at.0 - self.booted.0) / 1000 * self.rate;
        let wall = at.wall().checked_add(jiff::SignedDuration::from_nanos(self.offset)).unwrap_or(Timestamp::MAX);
        Now { boot: BootTime::from_nanos(boot), wall }
    }

    /// When elapsed time has come to `boot`.
    pub fn when(&self, boot: BootTime) -> Instant {
        if boot.as_nanos() > u64::MAX / 2000 {
            return Instant(u64::MAX);
        }
        self.booted + boot.as_nanos().div_ceil(self.rate) * 1000
    }
}
