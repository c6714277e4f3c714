//! The controller's wall clock as agents get it: never back nor standing still, and not following a leap that nobody
//! confirmed.

use std::time::Duration;

use jiff::Timestamp;
use xene_agent::decide::time::{BootTime, Now, after, before};

/// A step of the wall clock against elapsed time above this is not followed.
const LEAP: Duration = Duration::from_secs(60);

/// The guarded wall clock.
#[derive(Debug)]
pub(super) struct Wall {
    /// The last reading that was believed.
    base: Now,
    /// What was given last, and when.
    given: Timestamp,
    given_at: BootTime,
    /// Nothing above this may be given before a higher mark is durable.
    high: Timestamp,
    /// By how much the mark is ahead when it is written.
    ahead: Duration,
    leapt: bool,
}

impl Wall {
    /// From a reading and the durable mark, which lies at most `ahead` above what was given.
    pub(super) fn new(now: Now, high: Timestamp, ahead: Duration) -> Self {
        let wall = if now.wall >= before(high, ahead) { now.wall } else { high };
        Self {
            base: Now { boot: now.boot, wall },
            given: wall,
            given_at: now.boot,
            high,
            ahead,
            leapt: wall != now.wall,
        }
    }

    /// The time now, and whether the clock has just begun to leap.
    pub(super) fn read(&mut self, now: Now) -> (Timestamp, bool) {
        let carried = after(self.base.wall, now.boot.since(self.base.boot));
        let leaps = now.wall.duration_since(carried).unsigned_abs() > LEAP;
        let began = leaps && !self.leapt;
        self.leapt = leaps;
        if !leaps {
            self.base = now;
        }
        // An agent carries what it was given forward by itself. Who takes over from it must find the slots behind
        // that it may have fired: so a clock that was set back is waited for by going slower, never by standing.
        let slowly = after(self.given, now.boot.since(self.given_at) * 19 / 20);
        self.given = slowly.max(if leaps { carried } else { now.wall });
        self.given_at = now.boot;
        (self.given, began)
    }

    /// The mark to write durably, when what is given comes near the last one.
    pub(super) fn mark(&mut self) -> Option<Timestamp> {
        if after(self.given, self.ahead / 2) <= self.high {
            return None;
        }
        self.high = after(self.given, self.ahead);
        Some(self.high)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(boot: u64, wall: i64) -> Now {
        Now {
            boot: BootTime::from_nanos(boot * 1_000_000_000),
            wall: Timestamp::from_second(1_000_000 + wall).unwrap(),
        }
    }

    fn second(wall: Timestamp) -> i64 {
        wall.as_second() - 1_000_000
    }

    #[test]
    fn never_goes_back_and_does_not_follow_a_leap() {
        let mut wall = Wall::new(at(0, 0), Timestamp::UNIX_EPOCH, Duration::from_secs(60));
        assert_eq!(second(wall.read(at(10, 10)).0), 10);
        assert_eq!(second(wall.read(at(30, 25)).0), 29, "slowly, until the clock has caught up");
        assert_eq!(second(wall.read(at(130, 125)).0), 125);
        let (leapt, began) = wall.read(at(140, 3735));
        assert!(began);
        assert_eq!(second(leapt), 135, "an hour ahead: carried by elapsed time");
        assert_eq!((second(wall.read(at(150, 3745)).0), wall.read(at(150, 3745)).1), (145, false), "told once");
        assert_eq!(second(wall.read(at(160, 155)).0), 155, "the clock is right again");
    }

    #[test]
    fn a_restart_does_not_go_behind_the_mark() {
        let high = Timestamp::from_second(1_000_000).unwrap();
        let mut wall = Wall::new(at(5, -3600), high, Duration::from_secs(60));
        assert_eq!(second(wall.read(at(6, -3599)).0), 1);
        let mut wall = Wall::new(at(5, -30), high, Duration::from_secs(60));
        assert_eq!(second(wall.read(at(6, -29)).0), -29, "within what the mark is ahead");
    }
}
