//! `xene cron "EXPR"`: what a schedule means, and when it fires.

use jiff::{SignedDuration, Timestamp, civil, tz::TimeZone};
use serde_json::{Value, json};
use xene_agent::decide::cron::{Schedule, ScheduleError, Shift, local_time, read_time, uneven_steps};
use xene_schemas::{meta::API_VERSION, trigger::Cron};

use super::{
    Error, escape, exit,
    output::{Format, Ui},
    table::Table,
    time::{exact, relative},
};

/// Arguments of `xene cron`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "EXPR is what `schedule` of a cron trigger takes: five fields, six with leading seconds, or a \
                        word such as @daily. Put it into quotes, so that the shell leaves its stars alone.")]
pub struct Args {
    /// The schedule.
    #[arg(value_name = "EXPR")]
    pub schedule: String,

    /// An IANA time zone.
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    pub time_zone: String,

    /// How many times are shown.
    #[arg(long, value_name = "N", default_value = "5", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub next: u16,

    /// From when on: RFC 3339, or a date or date and time of the zone [default: now].
    #[arg(long, value_name = "TIME")]
    pub from: Option<String>,
}

/// Shows what a schedule will do.
///
/// # Errors
/// If the schedule, its zone or `--from` makes no sense.
pub fn run(args: &Args, ui: &mut Ui) -> Result<(), Error> {
    let cron = Cron {
        schedule: args.schedule.clone(),
        time_zone: Some(args.time_zone.clone()),
        catch_up: Default::default(),
        starting_deadline: Default::default(),
        jitter: Default::default(),
        params: Default::default(),
        suspend: false,
    };
    let schedule = match Schedule::parse(&cron) {
        Ok(schedule) => schedule,
        Err(error) => return refuse(&args.schedule, &error, ui),
    };
    let from = match &args.from {
        Some(text) => read_time(text, schedule.zone()).ok_or_else(|| {
            Error::usage_with_hint(
                format!("{text:?} is no time"),
                "a time is written like 2026-03-29, 2026-03-29T02:00 or 2026-03-29T02:00:00Z",
            )
        })?,
        None => ui.now(),
    };
    let firings: Vec<Firing> = fire(&schedule, from).take(args.next.into()).collect();
    show(args, &schedule, &firings, ui)
}

/// A due time, and what became of the local clock there.
struct Firing {
    at: Timestamp,
    local: String,
    shift: Option<Shift>,
}

/// The due times from `from` on, itself included.
fn fire(schedule: &Schedule, from: Timestamp) -> impl Iterator<Item = Firing> {
    let mut after = from.checked_sub(SignedDuration::from_nanos(1)).unwrap_or(from);
    std::iter::from_fn(move || {
        after = schedule.next_after(after)?;
        Some(Firing { at: after, local: local_time(after, schedule.zone()), shift: schedule.shift(after) })
    })
}

impl Firing {
    /// What a person should know of it.
    fn note(&self, zone: &TimeZone) -> Option<String> {
        match &self.shift {
            None => None,
            Some(Shift::Missing { first, count: 1 }) => {
                Some(format!("{} does not exist: the first instant after the gap", clock(*first)))
            }
            Some(Shift::Missing { first, count }) => Some(format!(
                "{} does not exist: the first instant after the gap, {count} due times in one",
                clock(*first)
            )),
            Some(Shift::Twice { again }) => {
                Some(format!("comes twice: the first of them, not again at {}", local_time(*again, zone)))
            }
        }
    }

    fn value(&self, zone: &TimeZone) -> Value {
        let mut value = json!({"time": exact(self.at), "local": self.local});
        match &self.shift {
            None => {}
            Some(Shift::Missing { first, count }) => {
                value["shift"] = json!({"type": "missing", "localTime": first.to_string(), "dueTimes": count});
            }
            Some(Shift::Twice { again }) => {
                value["shift"] = json!({"type": "twice", "again": local_time(*again, zone)});
            }
        }
        if let Some(note) = self.note(zone) {
            value["note"] = note.into();
        }
        value
    }
}

fn clock(reading: civil::DateTime) -> String {
    let time = reading.time();
    if time.second() == 0 { time.strftime("%H:%M").to_string() } else { time.strftime("%H:%M:%S").to_string() }
}

fn show(args: &Args, schedule: &Schedule, firings: &[Firing], ui: &mut Ui) -> Result<(), Error> {
    let zone = schedule.zone().iana_name().unwrap_or(&args.time_zone);
    let sentence = format!("{}, {zone}", schedule.describe());
    let warnings = uneven_steps(&args.schedule);
    match ui.format {
        Format::Json | Format::Yaml => {
            let items: Vec<Value> = firings.iter().map(|firing| firing.value(schedule.zone())).collect();
            let mut value = json!({
                "apiVersion": API_VERSION, "kind": "List",
                "schedule": args.schedule, "timeZone": zone, "description": sentence, "items": items,
            });
            if !warnings.is_empty() {
                value["warnings"] = json!(warnings);
            }
            ui.value(&value)?;
        }
        Format::Name => firings.iter().try_for_each(|firing| ui.out.line(exact(firing.at)))?,
        Format::Table | Format::Wide => {
            let mut letters = sentence.chars();
            let first = letters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
            ui.out.line(format!("{first}{}.", letters.as_str()))?;
            let mut table = Table::new(&["LOCAL", "", "UTC", "WHEN", "NOTE?"]);
            for firing in firings {
                let weekday = firing.at.to_zoned(schedule.zone().clone()).strftime("%a").to_string();
                let note = firing.note(schedule.zone()).unwrap_or_default();
                let when = relative(firing.at, ui.now());
                table.push(vec![
                    (&firing.local).into(),
                    weekday.into(),
                    firing.at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into(),
                    when.into(),
                    note.into(),
                ]);
            }
            ui.table(&table)?;
        }
    }
    ui.out.flush()?;
    warnings.iter().for_each(|warning| ui.note(&format!("warning: {warning}")));
    if firings.len() < args.next.into() {
        ui.note("there is no later time before 2101");
    }
    Ok(())
}

/// Tells why a schedule can't be read, with carets below the part that is meant.
fn refuse(schedule: &str, error: &ScheduleError, ui: &mut Ui) -> Result<(), Error> {
    ui.error(&error.to_string(), None);
    match error.place(schedule) {
        Some(place) if !schedule.contains(char::is_control) => {
            let pad = " ".repeat(schedule[..place.start].chars().count());
            let carets = "^".repeat(schedule[place].chars().count());
            ui.err.line(format!("  {}\n  {pad}{carets}", escape::line(schedule)))?;
        }
        _ => {}
    }
    if let Some(hint) = hint(error) {
        ui.hint(hint);
    }
    Err(Error::Status(exit::USAGE))
}

fn hint(error: &ScheduleError) -> Option<&'static str> {
    match error {
        ScheduleError::FieldCount(_) | ScheduleError::Word(_) => {
            Some("a schedule is written like \"30 2 * * MON-FRI\", \"*/5 * * * *\" or @daily, in quotes")
        }
        ScheduleError::Unreadable { .. } => Some("L, W, # and ? of other schedulers have no meaning here"),
        ScheduleError::NeverFires(_) => Some("days and months count from 1; only February has fewer than 30 days"),
        ScheduleError::ZoneInSchedule(_) => Some("give it with --time-zone"),
        // These say themselves what to write.
        ScheduleError::OutOfRange { .. }
        | ScheduleError::Backwards { .. }
        | ScheduleError::Step { .. }
        | ScheduleError::UnknownZone { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;
    use crate::cli::output::testing;

    fn args(schedule: &str, zone: &str, next: u16, from: &str) -> Args {
        Args { schedule: schedule.into(), time_zone: zone.into(), next, from: Some(from.into()) }
    }

    #[expect(clippy::needless_pass_by_value, reason = "as `expect!` is written at the place of use")]
    fn check(format: Format, args: &Args, expected: Expect) {
        let (mut ui, out, err) = testing::ui(format);
        if let Err(error) = run(args, &mut ui) {
            assert_eq!(error.status(), 2);
            if !error.is_silent() {
                ui.error(&error.to_string(), error.hint().as_deref());
            }
        }
        expected.assert_eq(&(out.text() + &err.text()));
    }

    #[test]
    fn times_are_local_exact_and_relative() {
        check(
            Format::Table,
            &args("30 2 1 * MON", "Europe/Berlin", 3, "2026-11-25T12:00:00Z"),
            expect![[r#"
            At 02:30 on day 1 of the month or on Monday, Europe/Berlin.
            LOCAL                             UTC                    WHEN
            2026-11-30T02:30:00+01:00   Mon   2026-11-30T01:30:00Z   in 4d
            2026-12-01T02:30:00+01:00   Tue   2026-12-01T01:30:00Z   in 5d
            2026-12-07T02:30:00+01:00   Mon   2026-12-07T01:30:00Z   in 11d
        "#]],
        );
    }

    #[test]
    fn what_daylight_saving_does_is_said() {
        check(
            Format::Table,
            &args("30 2 * * *", "Europe/Berlin", 3, "2026-03-28"),
            expect![[r#"
            At 02:30 every day, Europe/Berlin.
            LOCAL                             UTC                    WHEN       NOTE
            2026-03-28T02:30:00+01:00   Sat   2026-03-28T01:30:00Z   242d ago
            2026-03-29T03:00:00+02:00   Sun   2026-03-29T01:00:00Z   241d ago   02:30 does not exist: the first instant after the gap
            2026-03-30T02:30:00+02:00   Mon   2026-03-30T00:30:00Z   240d ago
        "#]],
        );
        check(
            Format::Table,
            &args("*/20 2 * * *", "Europe/Berlin", 4, "2026-10-25"),
            expect![[r#"
            At 02:00, 02:20 and 02:40 every day, Europe/Berlin.
            LOCAL                             UTC                    WHEN      NOTE
            2026-10-25T02:00:00+02:00   Sun   2026-10-25T00:00:00Z   31d ago   comes twice: the first of them, not again at 2026-10-25T02:00:00+01:00
            2026-10-25T02:20:00+02:00   Sun   2026-10-25T00:20:00Z   31d ago   comes twice: the first of them, not again at 2026-10-25T02:20:00+01:00
            2026-10-25T02:40:00+02:00   Sun   2026-10-25T00:40:00Z   31d ago   comes twice: the first of them, not again at 2026-10-25T02:40:00+01:00
            2026-10-26T02:00:00+01:00   Mon   2026-10-26T01:00:00Z   30d ago
        "#]],
        );
        check(
            Format::Json,
            &args("*/20 2,3 * * *", "Europe/Berlin", 1, "2026-03-29"),
            expect![[r#"
            {
              "apiVersion": "xene/v1",
              "kind": "List",
              "schedule": "*/20 2,3 * * *",
              "timeZone": "Europe/Berlin",
              "description": "at 02:00, 02:20, 02:40, 03:00, 03:20 and 03:40 every day, Europe/Berlin",
              "items": [
                {
                  "time": "2026-03-29T01:00:00.000Z",
                  "local": "2026-03-29T03:00:00+02:00",
                  "shift": {
                    "type": "missing",
                    "localTime": "2026-03-29T02:00:00",
                    "dueTimes": 4
                  },
                  "note": "02:00 does not exist: the first instant after the gap, 4 due times in one"
                }
              ]
            }
        "#]],
        );
    }

    #[test]
    fn uneven_steps_are_warned_of() {
        check(
            Format::Name,
            &args("*/45 * * * *", "UTC", 3, "2026-11-25T12:00:00Z"),
            expect![[r#"
            2026-11-25T12:00:00.000Z
            2026-11-25T12:45:00.000Z
            2026-11-25T13:00:00.000Z
            warning: minute "*/45" is uneven: it means 0 and 45, anew in each hour
        "#]],
        );
    }

    #[test]
    fn refusals_point_at_the_fault() {
        check(
            Format::Table,
            &args("8 * * * 8", "UTC", 3, "2026-11-25"),
            expect![[r#"
            error: day of week "8" is out of range; allowed is 0 to 7 (0 and 7 are Sunday) or SUN to SAT
              8 * * * 8
                      ^
        "#]],
        );
        check(
            Format::Table,
            &args("0 0 30 2 *", "UTC", 3, "2026-11-25"),
            expect![[r#"
            error: schedule "0 0 30 2 *" never fires: no date of the calendar matches its day, month and day of week
            hint: days and months count from 1; only February has fewer than 30 days
        "#]],
        );
        check(
            Format::Table,
            &args("0 0 * * *", "Berlin", 3, "2026-11-25"),
            expect![[r#"
            error: "Berlin" is not a time zone of the IANA database; did you mean Europe/Berlin?
        "#]],
        );
        check(
            Format::Table,
            &args("0 0 * * *", "UTC", 3, "yesterday"),
            expect![[r#"
            error: "yesterday" is no time
            hint: a time is written like 2026-03-29, 2026-03-29T02:00 or 2026-03-29T02:00:00Z
        "#]],
        );
    }
}
