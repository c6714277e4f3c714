//! When a cron trigger fires: Vixie's fields, IANA zones, the DST rules of the language.
//!
//! The `cron` crate does calendar arithmetic, and only that: it sees *civil seconds*, the reading of a local clock
//! counted as if it were UTC. Zones are ours, because a local time can be missing or come twice:
//!
//! - Schedules that name hours (`30 2 * * *`, `*/5 9-17 * * *`) follow the local clock. A local time that does not
//!   exist fires at the first instant after the gap, one that occurs twice fires at its first occurrence.
//! - Schedules of every hour (`*/5 * * * *`, `0 * * * *`) follow elapsed time: they fire whenever the local clock
//!   shows a matching reading, so nothing bunches up after a gap and no hour is silent when the clock goes back.

mod describe;
mod field;
#[cfg(test)]
mod tests;

use std::ops::Range;

use jiff::{
    Timestamp, civil,
    tz::{AmbiguousOffset, Offset, TimeZone, TimeZoneDatabase},
};
use xene_schemas::trigger::Cron;

use self::field::Fields;

/// A schedule, ready to be asked.
#[derive(Debug, Clone)]
pub struct Schedule {
    /// Two if both day fields are restricted: then either may match.
    civil: Vec<cron::Schedule>,
    zone: TimeZone,
    fields: Fields,
}

/// What a change of the local clock did to a due time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shift {
    /// The clock went forward: readings that it never showed fire here, at the first instant after the gap.
    Missing {
        /// The first of them.
        first: civil::DateTime,
        /// How many due times have become this one, at least 1.
        count: usize,
    },
    /// The clock goes back: it shows this reading a second time then, and does not fire again.
    Twice {
        /// When it shows it again.
        again: Timestamp,
    },
}

/// Why a schedule can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// Neither five fields nor six.
    #[error(
        "a schedule has 5 fields (minute, hour, day of month, month, day of week), or 6 with leading seconds, not {0}"
    )]
    FieldCount(usize),
    /// An `@` word that is none.
    #[error(
        "{0:?} is not a schedule; the words are @hourly, @daily, @midnight, @weekly, @monthly, @yearly and @annually"
    )]
    Word(String),
    /// A zone before the fields, as some schedulers take it.
    #[error("{0:?} does not belong into a schedule; name the zone in timeZone")]
    ZoneInSchedule(String),
    /// A number that the field does not have.
    #[error("{field} {value:?} is out of range; allowed is {allowed}")]
    OutOfRange {
        /// Which field.
        field: &'static str,
        /// What it says.
        value: String,
        /// What it may say.
        allowed: &'static str,
    },
    /// Not a value, range, step or list.
    #[error("{field} {value:?} can't be read; allowed is {allowed}, as a value, a range a-b, a step */n or a list a,b")]
    Unreadable {
        /// Which field.
        field: &'static str,
        /// What it says.
        value: String,
        /// What it may say.
        allowed: &'static str,
    },
    /// A range whose end comes before its start.
    #[error("{field} {value:?} runs backwards; write {instead}")]
    Backwards {
        /// Which field.
        field: &'static str,
        /// What it says.
        value: String,
        /// What was meant, as two ranges.
        instead: String,
    },
    /// A step that is not a whole number from 1.
    #[error("{field} {value:?} has no usable step; a step is a whole number from 1")]
    Step {
        /// Which field.
        field: &'static str,
        /// What it says.
        value: String,
    },
    /// No date matches, as with 30 February.
    #[error("schedule {0:?} never fires: no date of the calendar matches its day, month and day of week")]
    NeverFires(String),
    /// A zone that the IANA database does not have.
    #[error("{name:?} is not a time zone of the IANA database; {hint}")]
    UnknownZone {
        /// What was written.
        name: String,
        /// What to write.
        hint: String,
    },
}

impl ScheduleError {
    /// Which bytes of the schedule are meant, for a caret. None where its zone is meant, or all of it.
    pub fn place(&self, schedule: &str) -> Option<Range<usize>> {
        let (field, value) = match self {
            Self::OutOfRange { field, value, .. }
            | Self::Unreadable { field, value, .. }
            | Self::Backwards { field, value, .. }
            | Self::Step { field, value } => (*field, value.as_str()),
            Self::ZoneInSchedule(text) | Self::Word(text) => {
                let start = schedule.find(text.as_str())?;
                return Some(start..start + text.len());
            }
            Self::FieldCount(_) | Self::NeverFires(_) | Self::UnknownZone { .. } => return None,
        };
        let texts: Vec<&str> = schedule.split_ascii_whitespace().collect();
        let text = texts.get(field::index(field)?.checked_sub(6 - texts.len().min(6))?)?;
        let start = text.as_ptr() as usize - schedule.as_ptr() as usize;
        let within = text.find(value).map_or(0..text.len(), |at| at..at + value.len());
        Some(start + within.start..start + within.end)
    }
}

/// A time as people write it: RFC 3339, or what the clock of `zone` shows, a date alone being its midnight. A reading
/// that comes twice is the first, one that does not exist lies as far after the gap as it lies in it.
pub fn read_time(text: &str, zone: &TimeZone) -> Option<Timestamp> {
    if let Ok(at) = text.parse() {
        return Some(at);
    }
    let reading: civil::DateTime = text.parse().ok()?;
    zone.to_ambiguous_timestamp(reading).compatible().ok()
}

/// An instant as the clock of `zone` shows it, with its offset: `2026-03-29T03:00:00+02:00`.
pub fn local_time(at: Timestamp, zone: &TimeZone) -> String {
    at.display_with_offset(zone.to_offset(at)).to_string()
}

/// Steps of `schedule` that do not come at even distances, a sentence each: `*/45` minutes are 0, 45, 0, 45.
///
/// Empty for a text that is no schedule.
pub fn uneven_steps(schedule: &str) -> Vec<String> {
    field::uneven(schedule)
}

impl Schedule {
    /// Reads a trigger's `schedule` and `timeZone`.
    ///
    /// # Errors
    /// If the text is not a schedule, the zone is unknown, or the schedule never fires.
    pub fn parse(cron: &Cron) -> Result<Self, ScheduleError> {
        let fields = Fields::parse(&cron.schedule)?;
        let never = || ScheduleError::NeverFires(clip(&cron.schedule));
        // What `Fields` writes is always in the dialect of the crate; a refusal would be a schedule that it can't hold.
        let civil = fields.dialect().iter().map(|text| text.parse()).collect::<Result<_, _>>().map_err(|_| never())?;
        let zone = cron.time_zone.as_deref().map_or(Ok(TimeZone::UTC), zone)?;
        let schedule = Self { civil, zone, fields };
        // Any match at all: the calendar repeats long before the crate's years end.
        schedule.next_civil(0).ok_or_else(never)?;
        Ok(schedule)
    }

    /// The first due time after `after`, if there is one within the calendar.
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        let after = after.max(Timestamp::UNIX_EPOCH).as_second();
        let due = if self.fields.every_hour() { self.next_elapsed(after) } else { self.next_local(after) };
        due.and_then(instant)
    }

    /// What it means, in English and without its zone: `at 02:30 on day 1 of the month or on Monday`.
    pub fn describe(&self) -> String {
        self.fields.describe()
    }

    /// Its zone.
    pub fn zone(&self) -> &TimeZone {
        &self.zone
    }

    /// What a change of the local clock did to `due`, one of its due times. None for a schedule of every hour: it
    /// follows elapsed time.
    pub fn shift(&self, due: Timestamp) -> Option<Shift> {
        if self.fields.every_hour() {
            return None;
        }
        let second = due.as_second();
        let after = self.zone.to_offset(due);
        let before = self.zone.to_offset(instant(second - 1)?);
        if before < after {
            let missing = |civil: i64| self.next_civil(civil).filter(|next| *next < local(second, after));
            let first = missing(local(second, before) - 1)?;
            let merged = std::iter::successors(Some(first), |civil| missing(*civil)).count();
            let own = self.next_civil(local(second, after) - 1) == Some(local(second, after));
            return Some(Shift::Missing { first: reading(first)?, count: merged + usize::from(own) });
        }
        match self.zone.to_ambiguous_timestamp(reading(local(second, after))?).offset() {
            AmbiguousOffset::Fold { before, after: second_offset } if before == after => {
                Some(Shift::Twice { again: instant(local(second, after) - i64::from(second_offset.seconds()))? })
            }
            _ => None,
        }
    }

    /// The next reading of a local clock that matches, after this one; both in civil seconds.
    fn next_civil(&self, after: i64) -> Option<i64> {
        let after = chrono::DateTime::from_timestamp(after, 0)?;
        self.civil.iter().filter_map(|schedule| schedule.after(&after).next()).min().map(|next| next.timestamp())
    }

    /// Between two changes of the zone's offset, local and elapsed time are the same: look in each such stretch.
    fn next_elapsed(&self, after: i64) -> Option<i64> {
        let start = instant(after)?;
        let (mut after, mut offset) = (after, self.zone.to_offset(start));
        let mut changes = self.zone.following(start);
        loop {
            let due = self.next_civil(local(after, offset))? - i64::from(offset.seconds());
            match changes.next() {
                Some(change) if change.timestamp().as_second() <= due => {
                    (after, offset) = (change.timestamp().as_second() - 1, change.offset());
                }
                _ => return Some(due),
            }
        }
    }

    /// Civil time to instant never falls, so the first reading that maps beyond `after` is the next due time.
    fn next_local(&self, after: i64) -> Option<i64> {
        let mut civil = self.reading_passed(after)?;
        loop {
            civil = self.next_civil(civil)?;
            let due = self.first_instant(civil)?;
            if due > after {
                return Some(due);
            }
        }
    }

    /// The last reading of the local clock whose first occurrence is not after this instant.
    fn reading_passed(&self, at: i64) -> Option<i64> {
        let offset = self.zone.to_offset(instant(at)?);
        let civil = local(at, offset);
        match self.zone.to_ambiguous_timestamp(reading(civil)?).offset() {
            // The clock shows this for the second time: all readings up to the change have occurred.
            AmbiguousOffset::Fold { before, .. } if before != offset => {
                let change = self.zone.following(instant(civil - i64::from(before.seconds()))?).next()?;
                Some(local(change.timestamp().as_second(), before) - 1)
            }
            _ => Some(civil),
        }
    }

    /// The first instant at which the local clock shows this reading, or the end of the gap that it lies in.
    fn first_instant(&self, civil: i64) -> Option<i64> {
        match self.zone.to_ambiguous_timestamp(reading(civil)?).offset() {
            AmbiguousOffset::Unambiguous { offset } => Some(civil - i64::from(offset.seconds())),
            AmbiguousOffset::Fold { before, .. } => Some(civil - i64::from(before.seconds())),
            AmbiguousOffset::Gap { after, .. } => {
                let change = self.zone.following(instant(civil - i64::from(after.seconds()))?).next()?;
                Some(change.timestamp().as_second())
            }
        }
    }
}

fn instant(second: i64) -> Option<Timestamp> {
    Timestamp::from_second(second).ok()
}

/// What the local clock shows, in civil seconds.
fn local(second: i64, offset: Offset) -> i64 {
    second + i64::from(offset.seconds())
}

fn reading(civil: i64) -> Option<civil::DateTime> {
    instant(civil).map(|at| Offset::UTC.to_datetime(at))
}

/// Looks only into the database that is built in: a schedule must not mean something else on another host.
fn zone(name: &str) -> Result<TimeZone, ScheduleError> {
    let database = TimeZoneDatabase::bundled();
    if let Ok(zone) = database.get(name)
        && !zone.is_unknown()
    {
        return Ok(zone);
    }
    let close = |known: &str| {
        let city = known.rsplit('/').next().unwrap_or(known);
        known != "Etc/Unknown" && (city.eq_ignore_ascii_case(name) || one_slip_apart(known, name))
    };
    let hint = match database.available().find(|known| close(known.as_str())) {
        Some(known) => format!("did you mean {known}?"),
        None => "write a name such as Europe/Berlin or UTC".into(),
    };
    Err(ScheduleError::UnknownZone { name: clip(name), hint })
}

/// True if one character was left out, added or mistaken, or a space written for an underscore.
fn one_slip_apart(a: &str, b: &str) -> bool {
    let (a, b) = (a.to_ascii_lowercase(), b.to_ascii_lowercase().replace(' ', "_"));
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let same_start = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let rest = a.len().min(b.len()) - same_start;
    let same_end = a.iter().rev().zip(b.iter().rev()).take(rest).take_while(|(a, b)| a == b).count();
    a.len().max(b.len()) - same_start - same_end <= 1
}

/// What a message quotes of a text that may be of any length.
fn clip(text: &str) -> String {
    text.chars().take(64).collect()
}
