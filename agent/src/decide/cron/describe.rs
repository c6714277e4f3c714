//! A schedule in plain English, for a person who wants to know what the fields come to.

use super::field::{Fields, join, values};

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// So many times of day are told one by one.
const MOST_TIMES: usize = 6;

/// How the numbers of a field lie.
enum Spread {
    /// All that there are.
    All,
    /// Every so many, all the way round.
    Every(u32),
    /// From one to another, at least three.
    Range(u32, u32),
    /// Otherwise.
    List,
}

/// How the numbers of `set` lie within `low` to `high`.
fn spread(set: u64, low: u32, high: u32) -> Spread {
    let (first, count) = (set.trailing_zeros(), set.count_ones());
    let (last, size) = (63 - set.leading_zeros(), high - low + 1);
    if count == size {
        return Spread::All;
    }
    if first == low && count > 1 && size % count == 0 {
        let step = size / count;
        if (0..count).all(|nth| set >> (low + nth * step) & 1 == 1) {
            return Spread::Every(step);
        }
    }
    if count > 2 && last - first + 1 == count { Spread::Range(first, last) } else { Spread::List }
}

impl Fields {
    pub(super) fn describe(&self) -> String {
        let days = self.days();
        let (time, of_day) = self.times();
        // "every 5 minutes" needs no "every day", "at 02:30" does.
        let days = if days.is_empty() && of_day && self.month.count_ones() == 12 { " every day".into() } else { days };
        time + &days + &self.months()
    }

    /// When within a day, and whether that is less than all of it.
    fn times(&self) -> (String, bool) {
        let (minutes, hours) = (values(self.minute), values(self.hour));
        let second = self.second.trailing_zeros();
        let one_second = self.second.count_ones() == 1;
        if one_second && !self.every_hour() && minutes.len() * hours.len() <= MOST_TIMES {
            let pad = |text: &String| format!("{text:0>2}");
            let seconds = if second == 0 { String::new() } else { format!(":{second:02}") };
            let times: Vec<String> = hours
                .iter()
                .flat_map(|hour| minutes.iter().map(|minute| format!("{}:{}{seconds}", pad(hour), pad(minute))))
                .collect();
            return (format!("at {}", join(&times, "and")), true);
        }
        let minute = spread(self.minute, 0, 59);
        let even = matches!(minute, Spread::All | Spread::Every(_));
        let of_hours = match spread(self.hour, 0, 23) {
            Spread::All if even => String::new(),
            Spread::All => " of every hour".into(),
            Spread::Every(step) => format!(" of every {} hour", ordinal(step)),
            Spread::Range(from, to) => format!(" from {from:02}:00 to {to:02}:59"),
            Spread::List if hours.len() == 1 => format!(" from {0:0>2}:00 to {0:0>2}:59", hours[0]),
            Spread::List => format!(" of the hours {}", join(&hours, "and")),
        };
        let of_minutes = match minute {
            Spread::All => "every minute".into(),
            Spread::Every(step) => format!("every {step} minutes"),
            Spread::Range(from, to) => format!("every minute from {from} to {to}"),
            Spread::List if minutes.len() == 1 => format!("at minute {}", minutes[0]),
            Spread::List => format!("at minutes {}", join(&minutes, "and")),
        };
        let of_day = !matches!(spread(self.hour, 0, 23), Spread::All | Spread::Every(_));
        if self.second == 1 {
            let on_the_hour = self.minute == 1 && self.every_hour();
            return (if on_the_hour { "every hour, on the hour".into() } else { of_minutes + &of_hours }, of_day);
        }
        let seconds = values(self.second);
        let of_seconds = match spread(self.second, 0, 59) {
            Spread::All => "every second".into(),
            Spread::Every(step) => format!("every {step} seconds"),
            Spread::Range(from, to) => format!("every second from {from} to {to}"),
            Spread::List if one_second => format!("at second {second}"),
            Spread::List => format!("at seconds {}", join(&seconds, "and")),
        };
        let all_minutes = self.minute.count_ones() == 60;
        let even_seconds = matches!(spread(self.second, 0, 59), Spread::All | Spread::Every(_));
        let time = match (all_minutes, even_seconds) {
            (true, true) => of_seconds + &of_hours,
            (true, false) => format!("{of_seconds} of every minute{of_hours}"),
            (false, _) => format!("{of_seconds}, {of_minutes}{of_hours}"),
        };
        (time, of_day)
    }

    /// Which days, with a space before; empty for every day.
    fn days(&self) -> String {
        let all_days = self.day.count_ones() == 31;
        let all_weekdays = self.weekday.count_ones() == 7;
        let weekdays = match spread(self.weekday, 0, 6) {
            Spread::Range(from, to) => {
                format!("{} to {}", WEEKDAYS[from as usize], WEEKDAYS[to as usize])
            }
            _ => join(&named(self.weekday, 0, &WEEKDAYS), if self.either_day || all_days { "and" } else { "or" }),
        };
        let days = values(self.day);
        let days = match spread(self.day, 1, 31) {
            Spread::Range(from, to) => format!("days {from} to {to} of the month"),
            _ if days.len() == 1 => format!("day {} of the month", days[0]),
            _ => format!("days {} of the month", join(&days, "and")),
        };
        match (all_days, all_weekdays) {
            (true, true) => String::new(),
            _ if self.either_day && (all_days || all_weekdays) => String::new(),
            (false, true) => format!(" on {days}"),
            (true, false) => format!(" on {weekdays}"),
            (false, false) if self.either_day => format!(" on {days} or on {weekdays}"),
            (false, false) => format!(" on {days} if that is {weekdays}"),
        }
    }

    /// Which months, with a space before; empty for all.
    fn months(&self) -> String {
        match spread(self.month, 1, 12) {
            Spread::All => String::new(),
            Spread::Range(from, to) => {
                format!(" from {} to {}", MONTHS[from as usize - 1], MONTHS[to as usize - 1])
            }
            Spread::Every(_) | Spread::List => format!(" in {}", join(&named(self.month, 1, &MONTHS), "and")),
        }
    }
}

/// The names of a set's numbers; the first stands for `low`.
fn named(set: u64, low: usize, names: &[&str]) -> Vec<String> {
    let set = set >> low;
    names.iter().enumerate().filter(|(at, _)| set >> at & 1 == 1).map(|(_, name)| (*name).to_owned()).collect()
}

fn ordinal(number: u32) -> String {
    match number {
        2 => "2nd".into(),
        3 => "3rd".into(),
        _ => format!("{number}th"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_read_like_sentences() {
        for (schedule, text) in [
            ("* * * * *", "every minute"),
            ("*/5 * * * *", "every 5 minutes"),
            ("0 * * * *", "every hour, on the hour"),
            ("@hourly", "every hour, on the hour"),
            ("7 * * * *", "at minute 7 of every hour"),
            ("5/25 * * * *", "at minutes 5, 30 and 55 of every hour"),
            ("*/45 * * * *", "at minutes 0 and 45 of every hour"),
            ("30 2 * * *", "at 02:30 every day"),
            ("30 2,14 * * *", "at 02:30 and 14:30 every day"),
            ("30 2 1 * MON", "at 02:30 on day 1 of the month or on Monday"),
            (
                "30 2 */2 * MON,FRI",
                "at 02:30 on days 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29 and 31 of the month if that is Monday or Friday",
            ),
            ("0 0 1-31 * MON", "at 00:00 every day"),
            ("30 7 * * mon-fri", "at 07:30 on Monday to Friday"),
            ("0 12 * * 0,6", "at 12:00 on Sunday and Saturday"),
            ("*/15 9-17 * * 1-5", "every 15 minutes from 09:00 to 17:59 on Monday to Friday"),
            ("0 */2 * * *", "at minute 0 of every 2nd hour"),
            ("*/10 3 * * *", "at 03:00, 03:10, 03:20, 03:30, 03:40 and 03:50 every day"),
            ("*/5 3 * * *", "every 5 minutes from 03:00 to 03:59 every day"),
            ("0 0 29 2 *", "at 00:00 on day 29 of the month in February"),
            ("0 0 * 6-8 *", "at 00:00 from June to August"),
            ("@yearly", "at 00:00 on day 1 of the month in January"),
            ("*/10 * * * * *", "every 10 seconds"),
            ("30 * * * * *", "at second 30 of every minute"),
            ("15 30 2 * * *", "at 02:30:15 every day"),
            ("* 5 * * * *", "every second, at minute 5 of every hour"),
        ] {
            assert_eq!(Fields::parse(schedule).unwrap().describe(), text, "{schedule}");
        }
    }
}
