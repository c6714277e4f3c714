//! The controller's wall clock, as all of its machine goes by it: never back nor standing still, and not following a leap
//! until the host's time is known to be synchronized, or a person says that it is right.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use xene_agent::decide::time::{Now, after, before};
use xene_schemas::{controller::ClockLeap, event::EventType};

use super::{
    Controller,
    event::{Answer, Effect, Effects, Refusal},
    note,
    rows::{Change, ClockRow, ControllerRow},
};

/// A step of the wall clock against elapsed time above this is not followed.
const LEAP: Duration = Duration::from_secs(60);

/// The guarded wall clock.
#[derive(Debug)]
pub(super) struct Wall {
    /// The last reading that was believed.
    base: Now,
    /// The last reading.
    read: Now,
    /// What was given for it.
    given: Timestamp,
    /// Nothing above this may be given before a higher mark is durable.
    high: Timestamp,
    /// By how much the mark is ahead when it is written.
    ahead: Duration,
    leap: Option<Leap>,
}

/// The host's clock says something else than elapsed time does.
#[derive(Debug, Clone, Copy)]
struct Leap {
    since: Timestamp,
    /// By how much it is ahead.
    by: SignedDuration,
}

/// What a reading changed.
#[derive(Debug, PartialEq, Eq)]
enum Turn {
    None,
    Leapt,
    /// The clock is again where elapsed time has it.
    CameBack,
}

impl Wall {
    /// From a reading and what was durable. Within one boot of the host it goes on from there by elapsed time; after
    /// another one the reading is believed, unless it lies below what was given: that is at most `ahead` below the mark.
    pub(super) fn new(now: Now, row: &ControllerRow, boot_id: &str, ahead: Duration) -> Self {
        let high = row.wall_high;
        let clock = row.clock.as_ref().filter(|clock| clock.boot_id == boot_id && clock.boot <= now.boot);
        let (base, given) = match clock {
            Some(clock) => (Now { boot: clock.boot, wall: clock.wall }, before(high, ahead)),
            None if now.wall >= before(high, ahead) => (now, now.wall),
            None => (Now { boot: now.boot, wall: high }, high),
        };
        let mut wall = Self { base, read: Now { boot: base.boot, ..now }, given, high, ahead, leap: None };
        wall.read(now);
        // It is told with the first event.
        wall.leap = None;
        wall
    }

    /// What was given for the last reading.
    pub(super) fn given(&self) -> Timestamp {
        self.given
    }

    fn read(&mut self, now: Now) -> Turn {
        let carried = after(self.base.wall, now.boot.since(self.base.boot));
        let by = now.wall.duration_since(carried);
        let leaps = by.unsigned_abs() > LEAP;
        if !leaps {
            self.base = now;
        }
        // An agent carries what it was given forward by itself. Who takes over from it must find the slots behind
        // that it may have fired: so a clock that was set back is waited for by going slower, never by standing.
        let slowly = after(self.given, now.boot.since(self.read.boot) * 19 / 20);
        self.given = slowly.max(if leaps { carried } else { now.wall });
        self.read = now;
        match (&mut self.leap, leaps) {
            (Some(leap), true) => leap.by = by,
            (Some(_), false) => {
                self.leap = None;
                return Turn::CameBack;
            }
            (None, true) => {
                self.leap = Some(Leap { since: self.given, by });
                return Turn::Leapt;
            }
            (None, false) => {}
        }
        Turn::None
    }

    /// Believes the last reading.
    fn follow(&mut self) {
        self.base = self.read;
        self.given = self.given.max(self.read.wall);
        self.leap = None;
    }

    /// The mark to write durably, when what is given comes near the last one.
    pub(super) fn mark(&mut self) -> Option<Timestamp> {
        if after(self.given, self.ahead / 2) <= self.high {
            return None;
        }
        self.high = after(self.given, self.ahead);
        Some(self.high)
    }

    /// What elapsed time says, to go on from in another process.
    pub(super) fn row(&self, boot_id: String) -> ClockRow {
        let carried = after(self.base.wall, self.read.boot.since(self.base.boot));
        ClockRow { boot_id, boot: self.read.boot, wall: carried }
    }
}

/// The time that a machine goes by which starts now with what is durable, for what must be there before it.
pub fn wall_at_start(now: Now, row: Option<&ControllerRow>, boot_id: &str, pause_margin: Duration) -> Timestamp {
    row.map_or(now.wall, |row| Wall::new(now, row, boot_id, pause_margin).given())
}

impl Controller {
    /// The time that the machine goes by, a moment after it was last asked.
    pub fn guarded(&self, now: Now) -> Now {
        Now { wall: after(self.wall.given, now.boot.since(self.wall.read.boot)), ..now }
    }

    /// The wall clock that the machine goes by as of the host's boot, in milliseconds of Unix time: for whoever has only
    /// a reading of elapsed time.
    pub fn boot_wall(&self) -> i64 {
        self.wall.given.as_millisecond().saturating_sub_unsigned(self.wall.read.boot.as_nanos() / 1_000_000)
    }

    /// Takes a reading; gives the time that the machine goes by.
    pub(super) fn read_clock(&mut self, now: Now, fx: &mut Effects) -> Now {
        let turn = self.wall.read(now);
        let guarded = Now { wall: self.wall.given(), ..now };
        match (turn, self.clock_leap()) {
            (Turn::Leapt, Some(leap)) => {
                fx.now.push(Effect::Alert(leap.message.clone()));
                note(fx, guarded, EventType::Warning, "ClockLeapt", "controller".into(), leap.message);
            }
            (Turn::CameBack, _) => {
                let message = "this host's clock is again where elapsed time has it".to_owned();
                note(fx, guarded, EventType::Normal, "ClockCameBack", "controller".into(), message);
            }
            (Turn::Leapt | Turn::None, _) => {}
        }
        guarded
    }

    /// A leap of the clock that is not followed, as the API shows it.
    pub(super) fn clock_leap(&self) -> Option<ClockLeap> {
        let Leap { since, by } = self.wall.leap?;
        let span = xene_schemas::duration::Duration::from_secs(by.unsigned_abs().as_secs());
        let way = if by.is_negative() { "back" } else { "ahead" };
        let message = format!(
            "this host's clock leapt {way} by {span}: schedules go on by elapsed time; if the clock is right, `xene \
             confirm-clock` lets them follow it"
        );
        Some(ClockLeap { since, ahead_seconds: by.as_secs(), message })
    }

    /// The host's time is synchronized, or somebody says that it is right.
    pub(super) fn clock_confirmed(&mut self, now: Now, by: &str, fx: &mut Effects) -> Result<Answer, Refusal> {
        let Some(leap) = self.wall.leap else { return Err(Refusal::NoClockLeap) };
        self.wall.follow();
        let now = Now { wall: self.wall.given(), ..now };
        let way = if leap.by.is_negative() { "slower until it has caught up" } else { "to it" };
        let message = format!("{by}: this host's clock is right; schedules go {way}");
        note(fx, now, EventType::Normal, "ClockConfirmed", "controller".into(), message);
        self.mark_clock(fx);
        Ok(Answer::Done)
    }

    /// The guarded wall time; whoever gives it to an agent writes the mark.
    pub(super) fn slot_now(&mut self, fx: &mut Effects) -> Timestamp {
        if let Some(high) = self.wall.mark() {
            self.row.wall_high = high;
            self.mark_clock(fx);
        }
        self.wall.given()
    }

    fn mark_clock(&mut self, fx: &mut Effects) {
        self.row.clock = Some(self.wall.row(self.config.boot_id.clone()));
        fx.commit.push(Change::PutController(self.row.clone()));
    }
}

#[cfg(test)]
mod tests {
    use xene_agent::decide::time::BootTime;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn at(boot: u64, wall: i64) -> Now {
        Now {
            boot: BootTime::from_nanos(boot * 1_000_000_000),
            wall: Timestamp::from_second(1_000_000 + wall).unwrap(),
        }
    }

    fn row(high: i64, clock: Option<Now>) -> ControllerRow {
        ControllerRow {
            store_id: "s".into(),
            generation: 1,
            incarnation: 1,
            wall_high: Timestamp::from_second(1_000_000 + high).unwrap(),
            recovering: false,
            restored: false,
            recovered_at: None,
            readmits: false,
            longest: None,
            pause: None,
            clock: clock.map(|Now { boot, wall }| ClockRow { boot_id: "boot".into(), boot, wall }),
        }
    }

    impl Wall {
        fn given_at(&mut self, boot: u64, wall: i64) -> (i64, Turn) {
            let turn = self.read(at(boot, wall));
            (self.given.as_second() - 1_000_000, turn)
        }
    }

    #[test]
    fn never_goes_back_and_does_not_follow_a_leap() {
        let mut wall = Wall::new(at(0, 0), &row(-900_000, None), "boot", MINUTE);
        assert_eq!(wall.given_at(10, 10), (10, Turn::None));
        assert_eq!(wall.given_at(30, 25), (29, Turn::None), "slowly, until the clock has caught up");
        assert_eq!(wall.given_at(130, 125), (125, Turn::None));
        assert_eq!(wall.given_at(140, 3735), (135, Turn::Leapt), "an hour ahead: carried by elapsed time");
        assert_eq!(wall.given_at(150, 3745), (145, Turn::None), "told once");
        assert_eq!(wall.given_at(160, 155), (155, Turn::CameBack), "the clock is right again");
    }

    #[test]
    fn a_restart_does_not_go_behind_the_mark() {
        let mut wall = Wall::new(at(5, -3600), &row(0, None), "boot", MINUTE);
        assert_eq!(wall.given_at(6, -3599).0, 1);
        assert_eq!(wall.given_at(16, -3589).0, 11);
        let mut wall = Wall::new(at(5, -30), &row(0, None), "boot", MINUTE);
        assert_eq!(wall.given_at(6, -29).0, -29, "within what the mark is ahead");
    }

    #[test]
    fn within_one_boot_a_restart_goes_on_by_elapsed_time() {
        let row = row(60, Some(at(100, 0)));
        let mut wall = Wall::new(at(500, 400), &row, "boot", MINUTE);
        assert_eq!(wall.given_at(501, 401), (401, Turn::None));
        let mut wall = Wall::new(at(500, 7600), &row, "boot", MINUTE);
        assert_eq!(wall.given_at(501, 7601), (401, Turn::Leapt));
        let carried = wall.row("boot".into());
        assert_eq!((carried.boot, carried.wall), (at(501, 401).boot, at(501, 401).wall));
        wall.follow();
        assert_eq!(wall.given_at(502, 7602), (7602, Turn::None));
        let begins = |row| wall_at_start(at(500, 7600), row, "boot", MINUTE).as_second() - 1_000_000;
        assert_eq!((begins(Some(&row)), begins(None)), (400, 7600), "as the machine will");
        let mut wall = Wall::new(at(500, 7600), &row, "another", MINUTE);
        assert_eq!(wall.given_at(501, 7601), (7601, Turn::None), "nothing tells of time that passed without it");
        let mut wall = Wall::new(at(50, 7600), &row, "boot", MINUTE);
        assert_eq!(wall.given_at(51, 7601), (7601, Turn::None), "elapsed time does not go back");
    }
}
