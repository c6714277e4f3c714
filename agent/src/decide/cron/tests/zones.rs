//! All changes of all zones' clocks from 1990 to 2040, against a slow look at the clock and against `croner`.
//!
//! A plain test run takes a sample of the changes; `XENE_ZONES=all` takes all of them, which wants a release build.

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};

use super::*;

/// A change of a zone's clock.
struct Change {
    zone: TimeZone,
    at: Timestamp,
    /// The local clock just before, and just after.
    before: DateTime,
    after: DateTime,
}

#[expect(clippy::disallowed_methods, reason = "a switch for people who run tests, not configuration")]
fn wants_all() -> bool {
    std::env::var("XENE_ZONES").is_ok_and(|value| value == "all")
}

/// Changes of all zones, each once however many zones make it, or one of each `one_of` of them; a prime, so that all
/// offsets and years are met.
fn changes(one_of: usize) -> Vec<Change> {
    let (from, to) = (at("1990-01-01T00:00:00Z"), at("2040-01-01T00:00:00Z"));
    let database = TimeZoneDatabase::bundled();
    let zones: Vec<TimeZone> = database
        .available()
        .filter_map(|name| database.get(name.as_str()).ok())
        .filter(|zone| !zone.is_unknown())
        .collect();
    assert!(zones.len() > 400, "the whole database is built in");
    let (mut found, mut seen) = (Vec::new(), BTreeSet::new());
    for zone in zones {
        let mut last = zone.to_offset(from);
        for change in zone.following(from).take_while(|change| change.timestamp() < to) {
            let (at, offset) = (change.timestamp(), change.offset());
            let (before, after) = (last.to_datetime(at - 1.second()), offset.to_datetime(at));
            // Around it, zones that share the instant and both offsets have the same clock.
            if last != offset && seen.insert((at, last, offset)) {
                found.push(Change { zone: zone.clone(), at, before, after });
            }
            last = offset;
        }
    }
    let all = wants_all();
    found.into_iter().enumerate().filter(|(n, _)| all || n % one_of == 0).map(|(_, change)| change).collect()
}

impl Change {
    fn name(&self) -> &str {
        self.zone.iana_name().unwrap_or_default()
    }

    /// Minutes of the local clock that the change makes interesting: it shows them never, twice, or only just.
    fn readings(&self) -> Vec<DateTime> {
        let (low, high) = (self.before.min(self.after), self.before.max(self.after));
        let middle = low + high.duration_since(low) / 2;
        [low - 1.minute(), low, middle, high, high + 1.minute()].into()
    }
}

/// What a zone's clock shows, looked at again and again.
struct Looks {
    from: Timestamp,
    to: Timestamp,
    /// Between two looks, in seconds.
    step: i64,
    shown: Vec<(Timestamp, DateTime)>,
}

impl Looks {
    /// Looks at the clock from `around` before a change until as long after it. None if it changes at an edge: what
    /// came before is not seen from here.
    fn new(change: &Change, around: jiff::Span, step: i64) -> Option<Self> {
        let (from, to) = (change.at - around, change.at + around);
        let instants = std::iter::successors(Some(from), |at| Some(*at + step.seconds())).take_while(|at| *at < to);
        let shown = instants.map(|at| (at, change.zone.to_datetime(at))).collect();
        let calm = change.zone.to_offset(from) == change.zone.to_offset(from - 1.hour());
        calm.then_some(Self { from, to, step, shown })
    }

    /// All due times by one of the two rules. Knows the zone only as instant → reading.
    fn due(&self, every_hour: bool, matches: impl Fn(DateTime) -> bool) -> BTreeSet<Timestamp> {
        if every_hour {
            return self.shown.iter().filter(|(_, shown)| matches(*shown)).map(|(at, _)| *at).collect();
        }
        let mut due = BTreeSet::new();
        // Local clocks that never jump would show this next.
        let mut expected = self.shown[0].1;
        for (at, shown) in &self.shown {
            while expected <= *shown {
                if matches(expected) {
                    due.insert(*at);
                }
                expected += self.step.seconds();
            }
        }
        due
    }
}

fn fires(schedule: &Schedule, from: Timestamp, to: Timestamp) -> BTreeSet<Timestamp> {
    let mut after = from - 1.nanosecond();
    let next = || {
        after = schedule.next_after(after).filter(|next| *next < to)?;
        Some(after)
    };
    std::iter::from_fn(next).collect()
}

#[track_caller]
fn check_change(change: &Change, text: &str, looks: &Looks, matches: impl Fn(DateTime) -> bool) {
    let schedule = parse(text, Some(change.name())).unwrap();
    let expected = looks.due(schedule.fields.every_hour(), matches);
    assert_eq!(fires(&schedule, looks.from, looks.to), expected, "{text} in {} at {}", change.name(), change.at);
}

#[test]
fn every_change_of_every_zone_agrees_with_a_look_at_every_minute() {
    for change in changes(13) {
        // Wide enough for a day that was left out.
        let Some(looks) = Looks::new(&change, 30.hours(), 60) else { continue };
        for reading in change.readings() {
            let (minute, hour, day) = (reading.minute(), reading.hour(), reading.day());
            let weekday = reading.weekday().to_sunday_zero_offset();
            check_change(&change, &format!("{minute} {hour} * * *"), &looks, |at| {
                (at.minute(), at.hour()) == (minute, hour)
            });
            check_change(&change, &format!("{minute} * * * *"), &looks, |at| at.minute() == minute);
            check_change(&change, &format!("{minute} {hour} {day} * {weekday}"), &looks, |at| {
                let of_day = at.day() == day || at.weekday().to_sunday_zero_offset() == weekday;
                (at.minute(), at.hour()) == (minute, hour) && of_day
            });
        }
        let hour = change.after.hour();
        check_change(&change, "*/15 * * * *", &looks, |at| at.minute() % 15 == 0);
        check_change(&change, &format!("*/20 {hour} * * *"), &looks, |at| at.minute() % 20 == 0 && at.hour() == hour);
        check_change(&change, "0 */3 * * *", &looks, |at| at.minute() == 0 && at.hour() % 3 == 0);
    }
}

#[test]
fn changes_agree_with_a_look_at_every_second() {
    for change in changes(101) {
        let Some(looks) = Looks::new(&change, 2.hours(), 1) else { continue };
        for reading in change.readings() {
            let (minute, hour) = (reading.minute(), reading.hour());
            check_change(&change, &format!("59 {minute} {hour} * * *"), &looks, |at| {
                (at.second(), at.minute(), at.hour()) == (59, minute, hour)
            });
            check_change(&change, &format!("*/25 {minute} * * * *"), &looks, |at| {
                at.second() % 25 == 0 && at.minute() == minute
            });
        }
        check_change(&change, "*/7 * * * * *", &looks, |at| at.second() % 7 == 0);
    }
}

/// Where the rules are the same: one time of day, or one minute of every hour.
#[test]
fn every_change_of_every_zone_agrees_with_croner() {
    let mut compared = 0;
    for change in changes(23) {
        // It does not find its way over more than a few hours that are left out at once.
        if change.after.duration_since(change.before).abs() > jiff::SignedDuration::from_hours(3) {
            continue;
        }
        let (from, to) = (change.at - 30.hours(), change.at + 30.hours());
        // A time that is left out before midnight is moved to the next day, for which croner asks the weekday again.
        let crosses_midnight = change.before.date() != change.after.date();
        for reading in change.readings() {
            let (minute, hour, weekday) = (reading.minute(), reading.hour(), reading.weekday().to_sunday_zero_offset());
            for text in [
                format!("{minute} {hour} * * *"),
                format!("{minute} {hour} * * {weekday}"),
                format!("{minute} * * * *"),
            ] {
                if crosses_midnight && text.ends_with(&format!("* * {weekday}")) {
                    continue;
                }
                let schedule = parse(&text, Some(change.name())).unwrap();
                let theirs: croner::Cron = text.parse().unwrap();
                let (mut expected, mut after) = (BTreeSet::new(), from - 1.second());
                while let Ok(next) = theirs.find_next_occurrence(&after.to_zoned(change.zone.clone()), false) {
                    after = next.timestamp();
                    if after >= to {
                        break;
                    }
                    expected.insert(after);
                }
                assert_eq!(fires(&schedule, from, to), expected, "{text} in {} at {}", change.name(), change.at);
                compared += 1;
            }
        }
    }
    assert!(compared > 1_000, "only {compared} schedules were compared");
}
