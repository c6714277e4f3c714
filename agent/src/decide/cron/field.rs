//! The fields of a schedule: Vixie's text to sets of numbers, and those to the dialect of the `cron` crate.

use super::{ScheduleError, clip};

/// One field's rules.
struct Field {
    name: &'static str,
    low: u32,
    high: u32,
    /// Three letters each; the first stands for `low`.
    names: &'static [&'static str],
    allowed: &'static str,
}

const SECOND: Field = Field { name: "second", low: 0, high: 59, names: &[], allowed: "0 to 59" };
const MINUTE: Field = Field { name: "minute", low: 0, high: 59, names: &[], allowed: "0 to 59" };
const HOUR: Field = Field { name: "hour", low: 0, high: 23, names: &[], allowed: "0 to 23" };
const DAY: Field = Field { name: "day of month", low: 1, high: 31, names: &[], allowed: "1 to 31" };
const MONTH: Field = Field {
    name: "month",
    low: 1,
    high: 12,
    names: &["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"],
    allowed: "1 to 12 or JAN to DEC",
};
const WEEKDAY: Field = Field {
    name: "day of week",
    low: 0,
    high: 7,
    names: &["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"],
    allowed: "0 to 7 (0 and 7 are Sunday) or SUN to SAT",
};

/// All of them, in the order of a schedule with seconds, each with what it is a part of.
const FIELDS: [(&Field, &str); 6] =
    [(&SECOND, "minute"), (&MINUTE, "hour"), (&HOUR, "day"), (&DAY, "month"), (&MONTH, "year"), (&WEEKDAY, "week")];

/// The place of a field in a schedule with seconds.
pub(super) fn index(name: &str) -> Option<usize> {
    FIELDS.iter().position(|(field, _)| field.name == name)
}

/// See [`super::uneven_steps`].
pub(super) fn uneven(schedule: &str) -> Vec<String> {
    let texts: Vec<&str> = schedule.split_ascii_whitespace().collect();
    let Some(skipped) = FIELDS.len().checked_sub(texts.len()).filter(|skipped| *skipped <= 1) else {
        return Vec::new();
    };
    let mut sentences = Vec::new();
    for (text, (field, whole)) in texts.iter().zip(&FIELDS[skipped..]) {
        for part in text.split(',') {
            let Some(step) = part.strip_prefix("*/").and_then(|step| step.parse::<u32>().ok()) else { continue };
            // Months have no even length.
            let size = if field.name == WEEKDAY.name { 7 } else { field.high - field.low + 1 };
            let even = step <= 1 || (size % step == 0 && field.name != DAY.name);
            let Ok(set) = field.parse(part) else { continue };
            if !even {
                let name = field.name;
                let set = if field.name == WEEKDAY.name { (set | set >> 7) & 0x7f } else { set };
                let mut values = values(set);
                let list = match values.len() {
                    1..=6 => join(&values, "and"),
                    _ => {
                        values.truncate(4);
                        format!("{}, …", values.join(", "))
                    }
                };
                sentences.push(format!("{name} {part:?} is uneven: it means {list}, anew in each {whole}"));
            }
        }
    }
    sentences
}

/// The numbers of a set, as text.
pub(super) fn values(set: u64) -> Vec<String> {
    (0..64).filter(|value| set >> value & 1 == 1).map(|value: u32| value.to_string()).collect()
}

/// `a, b and c`.
pub(super) fn join(texts: &[String], word: &str) -> String {
    match texts {
        [] => String::new(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} {word} {last}", most.join(", ")),
    }
}

/// The numbers that each field names, one bit each.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields {
    pub(super) second: u64,
    pub(super) minute: u64,
    pub(super) hour: u64,
    pub(super) day: u64,
    pub(super) month: u64,
    /// Sunday is 0 alone.
    pub(super) weekday: u64,
    /// Vixie's rule: neither day field begins with `*`, so either may match.
    pub(super) either_day: bool,
}

impl Fields {
    pub(super) fn parse(schedule: &str) -> Result<Self, ScheduleError> {
        let schedule = schedule.trim();
        let schedule = if schedule.starts_with('@') { word(schedule)? } else { schedule };
        let mut texts: Vec<&str> = schedule.split_ascii_whitespace().collect();
        if let Some(first) = texts.first()
            && (first.starts_with("TZ=") || first.starts_with("CRON_TZ="))
        {
            return Err(ScheduleError::ZoneInSchedule(clip(first)));
        }
        if texts.len() == 5 {
            texts.insert(0, "0");
        }
        let [second, minute, hour, day, month, weekday] = texts[..] else {
            return Err(ScheduleError::FieldCount(texts.len()));
        };
        let weekdays = WEEKDAY.parse(weekday)?;
        Ok(Self {
            second: SECOND.parse(second)?,
            minute: MINUTE.parse(minute)?,
            hour: HOUR.parse(hour)?,
            day: DAY.parse(day)?,
            month: MONTH.parse(month)?,
            weekday: (weekdays | weekdays >> 7) & 0x7f,
            either_day: !day.starts_with('*') && !weekday.starts_with('*'),
        })
    }

    pub(super) fn every_hour(&self) -> bool {
        self.hour.count_ones() == 24
    }

    /// The same in the dialect of the crate: seconds first, weekdays by name, and as it demands that both day
    /// fields match, two schedules where either may.
    pub(super) fn dialect(&self) -> Vec<String> {
        let write = |day: &str, weekday: &str| {
            let [second, minute, hour, month] =
                [(&SECOND, self.second), (&MINUTE, self.minute), (&HOUR, self.hour), (&MONTH, self.month)]
                    .map(|(field, set)| field.list(set));
            format!("{second} {minute} {hour} {day} {month} {weekday}")
        };
        let day = DAY.list(self.day);
        let weekday = if self.weekday == 0x7f { "*".into() } else { WEEKDAY.list(self.weekday) };
        if self.either_day { vec![write(&day, "*"), write("*", &weekday)] } else { vec![write(&day, &weekday)] }
    }
}

fn word(word: &str) -> Result<&'static str, ScheduleError> {
    match word.to_ascii_lowercase().as_str() {
        "@hourly" => Ok("0 * * * *"),
        "@daily" | "@midnight" => Ok("0 0 * * *"),
        "@weekly" => Ok("0 0 * * 0"),
        "@monthly" => Ok("0 0 1 * *"),
        "@yearly" | "@annually" => Ok("0 0 1 1 *"),
        _ => Err(ScheduleError::Word(clip(word))),
    }
}

impl Field {
    fn parse(&self, text: &str) -> Result<u64, ScheduleError> {
        text.split(',').try_fold(0, |set, part| Ok(set | self.part(part, text)?))
    }

    /// One element of a list; `text` is the whole field, for messages.
    fn part(&self, part: &str, text: &str) -> Result<u64, ScheduleError> {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, Some(step)),
            None => (part, None),
        };
        let (low, high) = if range == "*" {
            (self.low, self.high)
        } else if let Some((low, high)) = range.split_once('-') {
            let low = self.value(low, text)?;
            // SUN is 0 at the start of a range and 7 at its end, as in FRI-SUN.
            let sunday = self.high == 7 && low > 0 && high.eq_ignore_ascii_case("SUN");
            (low, if sunday { 7 } else { self.value(high, text)? })
        } else {
            let low = self.value(range, text)?;
            (low, if step.is_some() { self.high } else { low })
        };
        if low > high {
            let (first, last) = (self.label(self.low), self.label(if self.high == 7 { 6 } else { self.high }));
            let (from, to) = (self.label(low), self.label(high));
            let instead = format!("{from}-{last},{first}-{to}");
            return Err(ScheduleError::Backwards { field: self.name, value: clip(part), instead });
        }
        let step = match step.map(str::parse::<u32>) {
            None => 1,
            Some(Ok(step)) if step > 0 => step,
            Some(_) => return Err(ScheduleError::Step { field: self.name, value: clip(part) }),
        };
        Ok((low..=high).step_by(step as usize).fold(0, |set, value| set | 1 << value))
    }

    fn value(&self, value: &str, text: &str) -> Result<u32, ScheduleError> {
        let named = self.names.iter().zip(self.low..).find(|(name, _)| name.eq_ignore_ascii_case(value));
        if let Some((_, number)) = named {
            return Ok(number);
        }
        let (field, allowed) = (self.name, self.allowed);
        // Digits only: parse alone would take a sign.
        if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(ScheduleError::Unreadable { field, value: clip(text), allowed });
        }
        match value.parse() {
            Ok(number) if (self.low..=self.high).contains(&number) => Ok(number),
            _ => Err(ScheduleError::OutOfRange { field, value: clip(value), allowed }),
        }
    }

    fn label(&self, value: u32) -> String {
        match self.names.get((value - self.low) as usize) {
            Some(name) => (*name).into(),
            None => value.to_string(),
        }
    }

    /// All numbers of a set, as the crate takes them.
    fn list(&self, set: u64) -> String {
        if set.count_ones() == self.high - self.low + 1 {
            return "*".into();
        }
        let values: Vec<String> =
            (self.low..=self.high).filter(|value| set >> value & 1 == 1).map(|value| self.label(value)).collect();
        values.join(",")
    }
}
