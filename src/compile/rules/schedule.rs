//! Schedules that can be read, but hardly mean what their author meant.

use xene_schemas::trigger::Cron;

use super::{Path, Report, Rule};

pub(super) const UNEVEN: Rule = rule!(Warning "XE0110", "uneven step", "write out the times that are meant");
pub(super) const NTH_WEEKDAY: Rule =
    rule!(Warning "XE0111", "weekday or day, not both", "let a `when` decide on one of the two");
pub(super) const DEADLINE: Rule = rule!(Warning "XE0112", "no start is in time", "raise `startingDeadline`");

/// A field of a schedule: its numbers begin anew with each `round`.
struct Field {
    name: &'static str,
    low: u32,
    size: u32,
    unit: &'static str,
    round: &'static str,
}

const FIELDS: [Field; 6] = [
    Field { name: "second", low: 0, size: 60, unit: "seconds", round: "minute" },
    Field { name: "minute", low: 0, size: 60, unit: "minutes", round: "hour" },
    Field { name: "hour", low: 0, size: 24, unit: "hours", round: "day" },
    Field { name: "day of month", low: 1, size: 31, unit: "days", round: "month" },
    Field { name: "month", low: 1, size: 12, unit: "months", round: "year" },
    Field { name: "day of week", low: 0, size: 7, unit: "days", round: "week" },
];

/// `cron` can be read; `at` is the trigger.
pub(super) fn check(report: &mut Report, at: &Path<'_>, cron: &Cron) {
    let texts: Vec<&str> = cron.schedule.split_ascii_whitespace().collect();
    let at_schedule = at.key("schedule");
    if let 5 | 6 = texts.len() {
        let fields = &FIELDS[FIELDS.len() - texts.len()..];
        for (field, text) in fields.iter().zip(&texts) {
            check_step(report, &at_schedule, field, text);
        }
        check_nth(report, &at_schedule, texts[texts.len() - 3], texts[texts.len() - 1]);
    }
    if cron.starting_deadline.as_millis() < 1_000 {
        let message = format!("a start comes later than {}, if only by a moment", cron.starting_deadline);
        let hint = "leave `startingDeadline` out for 1h, or write what a late start may still be good for".to_owned();
        report.add(&DEADLINE, &at.key("startingDeadline"), message).hint(hint);
    }
}

fn check_step(report: &mut Report, at: &Path<'_>, field: &Field, text: &str) {
    let Some(step) = text.strip_prefix("*/").and_then(|step| step.parse::<u32>().ok()) else { return };
    let Field { name, low, size, unit, round } = *field;
    // Months have 28 to 31 days: no step fits them all.
    let is_even = size % step == 0 && name != "day of month";
    if step == 1 || is_even {
        return;
    }
    let last = (size - 1) / step * step + low;
    let message = if step >= size {
        format!("`{text}` names only {name} {low}: the numbers of a {round} end at {}", size - 1 + low)
    } else if name == "day of month" {
        format!("`{text}` starts anew with each month: after day {last} comes day 1")
    } else {
        let gap = size - (last - low);
        let gap = if gap == 1 { format!("1 {}", unit.trim_end_matches('s')) } else { format!("{gap} {unit}") };
        format!("`{text}` starts anew with each {round}: after {name} {last} comes {low}, {gap} later")
    };
    let even: Vec<String> = (2..size).filter(|step| size % step == 0).map(|step| step.to_string()).collect();
    let hint = if even.is_empty() || name == "day of month" {
        format!("list the {unit}, or let the script look at the date")
    } else {
        format!("steps that fit are {}; or list the {unit} that are meant", even.join(", "))
    };
    report.add(&UNEVEN, at, message).hint(hint);
}

/// `1-7 * mon` is most often meant as the first Monday.
fn check_nth(report: &mut Report, at: &Path<'_>, day: &str, weekday: &str) {
    let week = day.split_once('-').and_then(|(from, to)| Some((from.parse::<u32>().ok()?, to.parse::<u32>().ok()?)));
    let is_week = week.is_some_and(|(from, to)| to >= from && to - from <= 6 && from > 0);
    if is_week && !weekday.starts_with('*') {
        let message = format!("this fires on each day of {day}, and on each {weekday} besides: either field may match");
        let hint = "for one weekday of a month, fire on that weekday and let the script look at the date".to_owned();
        report.add(&NTH_WEEKDAY, at, message).hint(hint);
    }
}
