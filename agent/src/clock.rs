//! The one place where clocks are read.

use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};

use crate::decide::time::{BootTime, Now};

/// Both clocks, read now: `CLOCK_BOOTTIME`, which goes on in suspend (`std::time::Instant` does not), and the wall.
#[expect(clippy::disallowed_methods, reason = "this is the place")]
pub fn now() -> Now {
    let boot = clock_gettime(ClockId::Boottime);
    let nanos = boot.tv_sec.unsigned_abs() * 1_000_000_000 + boot.tv_nsec.unsigned_abs();
    Now { boot: BootTime::from_nanos(nanos), wall: Timestamp::now() }
}
