mod zones;

use std::collections::BTreeSet;

use jiff::{ToSpan, civil::DateTime};
use proptest::prelude::*;
use xene_schemas::trigger::CatchUp;

use super::*;

fn parse(schedule: &str, zone: Option<&str>) -> Result<Schedule, ScheduleError> {
    Schedule::parse(&Cron {
        schedule: schedule.into(),
        time_zone: zone.map(Into::into),
        catch_up: CatchUp::default(),
        starting_deadline: xene_schemas::duration::Duration::from_secs(3600),
        jitter: xene_schemas::duration::Duration::default(),
        params: Default::default(),
        suspend: false,
    })
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// The first due times after `after`, checked against a list of times.
#[track_caller]
fn check(schedule: &str, zone: &str, after: &str, expected: &[&str]) {
    let schedule = parse(schedule, Some(zone)).unwrap();
    let mut due = at(after);
    let found: Vec<String> = std::iter::from_fn(|| {
        due = schedule.next_after(due)?;
        Some(due.to_string())
    })
    .take(expected.len())
    .collect();
    assert_eq!(found, expected);
}

#[test]
fn fields_mean_what_vixie_says() {
    let after = "2026-01-01T00:00:00Z"; // A Thursday.
    check("*/20 * * * *", "UTC", after, &["2026-01-01T00:20:00Z", "2026-01-01T00:40:00Z", "2026-01-01T01:00:00Z"]);
    check("5/25 0 * * *", "UTC", after, &["2026-01-01T00:05:00Z", "2026-01-01T00:30:00Z", "2026-01-01T00:55:00Z"]);
    check("0 0 * * 0", "UTC", after, &["2026-01-04T00:00:00Z", "2026-01-11T00:00:00Z"]);
    check("0 0 * * 7", "UTC", after, &["2026-01-04T00:00:00Z"]);
    check("0 0 * * sun", "UTC", after, &["2026-01-04T00:00:00Z"]);
    check("0 0 * * FRI-SUN", "UTC", after, &["2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z", "2026-01-04T00:00:00Z"]);
    check("0 0 * * 6-7", "UTC", after, &["2026-01-03T00:00:00Z", "2026-01-04T00:00:00Z", "2026-01-10T00:00:00Z"]);
    check("0 0 1 Jan,jul *", "UTC", after, &["2026-07-01T00:00:00Z", "2027-01-01T00:00:00Z"]);
    check("30 0 0 1 1 *", "UTC", after, &["2026-01-01T00:00:30Z", "2027-01-01T00:00:30Z"]);
    check(
        "10-12/2,50 4 * * *",
        "UTC",
        after,
        &["2026-01-01T04:10:00Z", "2026-01-01T04:12:00Z", "2026-01-01T04:50:00Z"],
    );
    check("*/90 0 * * *", "UTC", after, &["2026-01-02T00:00:00Z"]);
}

#[test]
fn words_stand_for_schedules() {
    let after = "2026-01-01T00:00:00Z";
    for (word, next) in [
        ("@hourly", "2026-01-01T01:00:00Z"),
        ("@daily", "2026-01-02T00:00:00Z"),
        ("@midnight", "2026-01-02T00:00:00Z"),
        ("@weekly", "2026-01-04T00:00:00Z"),
        ("@monthly", "2026-02-01T00:00:00Z"),
        (" @Yearly ", "2027-01-01T00:00:00Z"),
        ("@annually", "2027-01-01T00:00:00Z"),
    ] {
        check(word, "UTC", after, &[next]);
    }
}

#[test]
fn either_day_matches_if_both_are_restricted() {
    let after = "2026-02-01T00:00:00Z";
    check("0 0 13 * FRI", "UTC", after, &["2026-02-06T00:00:00Z", "2026-02-13T00:00:00Z", "2026-02-20T00:00:00Z"]);
    // A field that begins with * is not restricted: both must match.
    check("0 0 */2 * FRI", "UTC", after, &["2026-02-13T00:00:00Z", "2026-02-27T00:00:00Z", "2026-03-13T00:00:00Z"]);
    // 30 February never comes, but its Mondays do.
    check("0 0 30 2 MON", "UTC", after, &["2026-02-02T00:00:00Z"]);
}

#[test]
fn a_missing_local_time_fires_after_the_gap() {
    let eve = "2026-03-07T12:00:00Z";
    check("30 2 * * *", "America/New_York", eve, &["2026-03-08T07:00:00Z", "2026-03-09T06:30:00Z"]);
    check("*/20 2 * * *", "America/New_York", eve, &["2026-03-08T07:00:00Z", "2026-03-09T06:00:00Z"]);
    check("0 2,3 * * *", "America/New_York", eve, &["2026-03-08T07:00:00Z", "2026-03-09T06:00:00Z"]);
    // A gap at midnight, and one of half an hour.
    check("0 0 * * *", "America/Sao_Paulo", "2018-11-03T12:00:00Z", &["2018-11-04T03:00:00Z", "2018-11-05T02:00:00Z"]);
    check("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00:00Z", &["2026-10-03T15:30:00Z"]);
    // A day that one island skipped.
    check("0 9 * * *", "Pacific/Apia", "2011-12-29T20:00:00Z", &["2011-12-30T10:00:00Z", "2011-12-30T19:00:00Z"]);
}

#[test]
fn fires_once_when_clock_goes_back() {
    let eve = "2026-10-31T12:00:00Z";
    check("30 1 * * *", "America/New_York", eve, &["2026-11-01T05:30:00Z", "2026-11-02T06:30:00Z"]);
    // Asked between the two occurrences, and in the second.
    check("30 1 * * *", "America/New_York", "2026-11-01T05:40:00Z", &["2026-11-02T06:30:00Z"]);
    check("30 1 * * *", "America/New_York", "2026-11-01T06:10:00Z", &["2026-11-02T06:30:00Z"]);
    check("30 1,2 * * *", "America/New_York", "2026-11-01T06:10:00Z", &["2026-11-01T07:30:00Z"]);
    check("0 2 * * *", "America/New_York", "2026-11-01T06:10:00Z", &["2026-11-01T07:00:00Z"]);
}

#[test]
fn schedules_of_every_hour_follow_elapsed_time() {
    let back = ["2026-11-01T05:00:00Z", "2026-11-01T05:30:00Z", "2026-11-01T06:00:00Z", "2026-11-01T06:30:00Z"];
    check("*/30 * * * *", "America/New_York", "2026-11-01T04:59:00Z", &back);
    check("0 * * * *", "America/New_York", "2026-11-01T04:59:00Z", &[back[0], back[2], "2026-11-01T07:00:00Z"]);
    let forward = ["2026-03-08T06:45:00Z", "2026-03-08T07:00:00Z", "2026-03-08T07:15:00Z"];
    check("*/15 * * * *", "America/New_York", "2026-03-08T06:30:00Z", &forward);
    check("7 * * * *", "America/New_York", "2026-03-08T06:00:00Z", &["2026-03-08T06:07:00Z", "2026-03-08T07:07:00Z"]);
    check("0 * * * *", "Australia/Lord_Howe", "2026-10-03T14:30:00Z", &["2026-10-03T16:00:00Z"]);
    check("0 * * * *", "Asia/Kathmandu", "2026-01-01T00:00:00Z", &["2026-01-01T00:15:00Z", "2026-01-01T01:15:00Z"]);
}

#[test]
fn the_next_due_time_is_strictly_later() {
    let schedule = parse("0 12 * * *", None).unwrap();
    let noon = at("2026-01-01T12:00:00Z");
    let next = |after| schedule.next_after(after).unwrap().to_string();
    assert_eq!(next(noon), "2026-01-02T12:00:00Z");
    assert_eq!(next(noon - 1.nanosecond()), "2026-01-01T12:00:00Z");
    assert_eq!(next(noon + 1.nanosecond()), "2026-01-02T12:00:00Z");
    assert_eq!(next(Timestamp::MIN), "1970-01-01T12:00:00Z");
    assert_eq!(schedule.next_after(Timestamp::MAX), None);
}

#[test]
fn refusals_name_field_value_and_range() {
    for (schedule, message) in [
        (
            "",
            "a schedule has 5 fields (minute, hour, day of month, month, day of week), or 6 with leading seconds, not 0",
        ),
        (
            "* * * * * * *",
            "a schedule has 5 fields (minute, hour, day of month, month, day of week), or 6 with leading seconds, not 7",
        ),
        ("60 * * * *", r#"minute "60" is out of range; allowed is 0 to 59"#),
        ("99999999999 * * * *", r#"minute "99999999999" is out of range; allowed is 0 to 59"#),
        ("* 20-24 * * *", r#"hour "24" is out of range; allowed is 0 to 23"#),
        ("* * 0 * *", r#"day of month "0" is out of range; allowed is 1 to 31"#),
        ("* * * 13 *", r#"month "13" is out of range; allowed is 1 to 12 or JAN to DEC"#),
        ("* * * * 8", r#"day of week "8" is out of range; allowed is 0 to 7 (0 and 7 are Sunday) or SUN to SAT"#),
        ("60 * * * * *", r#"second "60" is out of range; allowed is 0 to 59"#),
        (
            "* * L * *",
            r#"day of month "L" can't be read; allowed is 1 to 31, as a value, a range a-b, a step */n or a list a,b"#,
        ),
        (
            "1,,2 * * * *",
            r#"minute "1,,2" can't be read; allowed is 0 to 59, as a value, a range a-b, a step */n or a list a,b"#,
        ),
        ("* * * * FRI-MON", r#"day of week "FRI-MON" runs backwards; write FRI-SAT,SUN-MON"#),
        ("50-10 * * * *", r#"minute "50-10" runs backwards; write 50-59,0-10"#),
        ("*/0 * * * *", r#"minute "*/0" has no usable step; a step is a whole number from 1"#),
        ("*/ * * * *", r#"minute "*/" has no usable step; a step is a whole number from 1"#),
        (
            "@reboot",
            r#""@reboot" is not a schedule; the words are @hourly, @daily, @midnight, @weekly, @monthly, @yearly and @annually"#,
        ),
        (
            "0 0 30 2 *",
            r#"schedule "0 0 30 2 *" never fires: no date of the calendar matches its day, month and day of week"#,
        ),
        (
            "0 0 31 4,6,9,11 *",
            r#"schedule "0 0 31 4,6,9,11 *" never fires: no date of the calendar matches its day, month and day of week"#,
        ),
        ("TZ=UTC 0 0 * * *", r#""TZ=UTC" does not belong into a schedule; name the zone in timeZone"#),
    ] {
        assert_eq!(parse(schedule, None).unwrap_err().to_string(), message);
    }
    for bad in
        ["+1 * * * *", "-1 * * * *", "1-2-3 * * * *", "* * * * MONDAY", "? * * * *", "٣ * * * *", "* * * * FRI#2"]
    {
        assert!(parse(bad, None).is_err(), "{bad}");
    }
}

#[test]
fn refusals_point_at_their_part_of_the_schedule() {
    for (schedule, part) in [
        ("8 * * * 8", "8"),
        ("* 20-24 * * *", "24"),
        ("  * * L * *", "L"),
        ("0 60 * * * *", "60"),
        ("* * * * FRI-MON", "FRI-MON"),
        ("5 */0 * * *", "*/0"),
        ("@reboot", "@reboot"),
        ("TZ=UTC 0 0 * * *", "TZ=UTC"),
    ] {
        let place = parse(schedule, None).unwrap_err().place(schedule).unwrap();
        assert_eq!(&schedule[place], part, "{schedule}");
    }
    assert_eq!(parse("8 * * * 8", None).unwrap_err().place("8 * * * 8"), Some(8..9));
    assert_eq!(parse("* * *", None).unwrap_err().place("* * *"), None);
}

#[test]
fn steps_that_do_not_divide_evenly_are_told() {
    assert_eq!(uneven_steps("*/5 */6 * */3 *"), <Vec<String>>::new());
    assert_eq!(uneven_steps("*/45 * * * *"), [r#"minute "*/45" is uneven: it means 0 and 45, anew in each hour"#]);
    assert_eq!(uneven_steps("*/90 * * * * *"), [r#"second "*/90" is uneven: it means 0, anew in each minute"#]);
    assert_eq!(
        uneven_steps("0 0 */2 * */2"),
        [
            r#"day of month "*/2" is uneven: it means 1, 3, 5, 7, …, anew in each month"#,
            r#"day of week "*/2" is uneven: it means 0, 2, 4 and 6, anew in each week"#,
        ]
    );
    assert_eq!(uneven_steps("nonsense"), <Vec<String>>::new());
}

#[test]
fn what_the_clock_did_to_a_due_time_is_told() {
    let shift = |schedule: &str, zone: &str, due: &str| {
        let schedule = parse(schedule, Some(zone)).unwrap();
        assert_eq!(schedule.next_after(at(due) - 1.second()), Some(at(due)), "{due} is no due time");
        schedule.shift(at(due))
    };
    let missing = |first: &str, count| Some(Shift::Missing { first: first.parse().unwrap(), count });
    let york = "America/New_York";
    assert_eq!(shift("30 2 * * *", york, "2026-03-08T07:00:00Z"), missing("2026-03-08T02:30:00", 1));
    assert_eq!(shift("*/20 2,3 * * *", york, "2026-03-08T07:00:00Z"), missing("2026-03-08T02:00:00", 4));
    assert_eq!(shift("0 3 * * *", york, "2026-03-08T07:00:00Z"), None);
    assert_eq!(shift("30 2 * * *", york, "2026-03-09T06:30:00Z"), None);
    assert_eq!(shift("*/30 * * * *", york, "2026-03-08T07:00:00Z"), None);
    let again = Shift::Twice { again: at("2026-11-01T06:30:00Z") };
    assert_eq!(shift("30 1 * * *", york, "2026-11-01T05:30:00Z"), Some(again));
    assert_eq!(shift("30 2 * * *", york, "2026-11-01T07:30:00Z"), None);
    assert_eq!(shift("0 9 * * *", "Pacific/Apia", "2011-12-30T10:00:00Z"), missing("2011-12-30T09:00:00", 1));
}

/// Whether a schedule ever fires, against the calendar itself: every combination of one day, one month and weekdays.
#[test]
fn never_firing_schedules_are_known_exactly() {
    const LONGEST: [u32; 12] = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    for (month, longest) in (1u32..).zip(LONGEST) {
        for day in 1..=31 {
            let comes = day <= longest;
            assert_eq!(parse(&format!("0 0 {day} {month} *"), None).is_ok(), comes, "{day}.{month}.");
            // `*/7` is Sundays, and not restricted: both must match. 29 February is one every 28 years.
            assert_eq!(parse(&format!("0 0 {day} {month} */7"), None).is_ok(), comes, "{day}.{month}. on Sunday");
            assert!(parse(&format!("0 0 {day} {month} 3"), None).is_ok(), "Wednesdays come");
        }
    }
}

#[test]
fn an_unknown_zone_is_refused_with_a_hint() {
    for (zone, hint) in [
        ("Europe/Berln", "did you mean Europe/Berlin?"),
        ("berlin", "did you mean Europe/Berlin?"),
        ("America/New York", "did you mean America/New_York?"),
        ("Mars/Olympus", "write a name such as Europe/Berlin or UTC"),
        ("+02:00", "write a name such as Europe/Berlin or UTC"),
        ("", "write a name such as Europe/Berlin or UTC"),
    ] {
        let message = parse("@daily", Some(zone)).unwrap_err().to_string();
        assert_eq!(message, format!("{zone:?} is not a time zone of the IANA database; {hint}"));
    }
    assert!(parse("@daily", Some("europe/berlin")).is_ok());
}

/// A field as random data: what it says, and what it matches, apart from the parser.
#[derive(Debug, Clone)]
struct RandomField(Vec<(Option<(u32, u32)>, u32)>, u32);

impl RandomField {
    fn text(&self) -> String {
        let part = |(range, step): &(Option<(u32, u32)>, u32)| {
            let range = match range {
                None => "*".into(),
                Some((low, high)) if low == high && *step == 1 => low.to_string(),
                Some((low, high)) => format!("{low}-{high}"),
            };
            if *step == 1 { range } else { format!("{range}/{step}") }
        };
        self.0.iter().map(part).collect::<Vec<_>>().join(",")
    }

    fn matches(&self, value: i8) -> bool {
        let value = u32::try_from(value).unwrap();
        self.0.iter().any(|(range, step)| {
            let (low, high) = range.unwrap_or((self.1, 99));
            (low..=high).contains(&value) && (value - low).is_multiple_of(*step)
        })
    }

    fn plain(self) -> Self {
        if self.text().contains('*') { Self(vec![(None, 1)], self.1) } else { self }
    }

    fn starred(&self) -> bool {
        self.0[0].0.is_none()
    }
}

fn field(low: u32, high: u32) -> impl Strategy<Value = RandomField> {
    let range = (low..=high, low..=high).prop_map(|(a, b)| (a.min(b), a.max(b)));
    let part = (proptest::option::of(prop_oneof![range, (low..=high).prop_map(|v| (v, v))]), 1u32..9);
    let parts = prop_oneof![2 => Just(vec![(None, 1)]), 3 => proptest::collection::vec(part, 1..3)];
    parts.prop_map(move |parts| RandomField(parts, low))
}

type RandomSchedule = [RandomField; 5];

fn text(schedule: &RandomSchedule) -> String {
    schedule.each_ref().map(RandomField::text).join(" ")
}

fn matches([minute, hour, day, month, weekday]: &RandomSchedule, reading: DateTime) -> bool {
    let sunday_first = reading.weekday().to_sunday_zero_offset();
    let by_day = day.matches(reading.day());
    let by_weekday = weekday.matches(sunday_first) || (sunday_first == 0 && weekday.matches(7));
    let day = if day.starred() || weekday.starred() { by_day && by_weekday } else { by_day || by_weekday };
    day && minute.matches(reading.minute()) && hour.matches(reading.hour()) && month.matches(reading.month())
}

/// Every due time in a window, found by looking at every minute of it. Knows zones only as instant → reading.
fn oracle(schedule: &RandomSchedule, zone: &TimeZone, from: Timestamp, minutes: i64) -> BTreeSet<Timestamp> {
    let readings: Vec<(Timestamp, DateTime)> = (0..minutes)
        .map(|minute| from + minute.minutes())
        .map(|instant| (instant, zone.to_datetime(instant)))
        .collect();
    let mut due = BTreeSet::new();
    if (0..24).all(|hour| schedule[1].matches(hour)) {
        due.extend(readings.iter().filter(|(_, reading)| matches(schedule, *reading)).map(|(instant, _)| *instant));
        return due;
    }
    // The local clock as it would run without jumps: a reading is due when the real clock first reaches it.
    let mut reading = readings[0].1;
    for (instant, real) in readings {
        while reading <= real {
            if matches(schedule, reading) {
                due.insert(instant);
            }
            reading += 1.minute();
        }
    }
    due
}

/// A day in which the zone's clock changes, or just a day.
fn window() -> impl Strategy<Value = (TimeZone, Timestamp)> {
    let zones = [
        "America/New_York",
        "Europe/Berlin",
        "Australia/Lord_Howe",
        "Asia/Kathmandu",
        "Africa/Casablanca",
        "America/Sao_Paulo",
        "Pacific/Apia",
        "UTC",
    ];
    (0..zones.len(), 2005i64..2030, 0i64..366 * 24 * 60).prop_map(move |(zone, year, minute)| {
        let zone = TimeZoneDatabase::bundled().get(zones[zone]).unwrap();
        let somewhere = at("1970-01-01T00:00:00Z") + ((year - 1970) * 365 * 24).hours() + minute.minutes();
        let near = zone.following(somewhere).next().map(|change| change.timestamp());
        let from = near.filter(|_| minute % 8 != 0).map_or(somewhere, |change| change - (minute % 1_440).minutes());
        (zone, from)
    })
}

fn due_times(schedule: &Schedule, from: Timestamp, minutes: i64) -> BTreeSet<Timestamp> {
    let (mut due, mut after) = (BTreeSet::new(), from - 1.nanosecond());
    while let Some(next) = schedule.next_after(after).filter(|next| *next < from + minutes.minutes()) {
        assert!(next > after, "{next} is not after {after}");
        due.insert(next);
        after = next;
    }
    due
}

fn schedule() -> impl Strategy<Value = RandomSchedule> {
    let month = prop_oneof![3 => Just(RandomField(vec![(None, 1)], 1)), 1 => field(1, 12)];
    (field(0, 59), field(0, 23), field(1, 31), month, field(0, 7)).prop_map(|(a, b, c, d, e)| [a, b, c, d, e])
}

/// Asks all that can be asked of a text that may be no schedule.
fn look_at(text: &str, at: Timestamp) {
    let _ = uneven_steps(text);
    match parse(text, Some("Africa/Casablanca")) {
        Ok(schedule) => {
            assert!(!schedule.describe().is_empty());
            let _ = schedule.next_after(at).and_then(|due| schedule.shift(due));
        }
        Err(error) => {
            let part = error.place(text).map(|place| text[place].to_owned());
            assert_ne!(part.as_deref(), Some(""), "{text:?}: {error}");
        }
    }
}

/// Texts that have been, or could be, trouble: one a line.
#[test]
fn nothing_in_the_corpus_panics() {
    let corpus = include_str!("tests/corpus.txt");
    assert!(corpus.lines().count() > 40);
    for text in corpus.lines() {
        look_at(text, Timestamp::UNIX_EPOCH);
        look_at(text, Timestamp::MAX);
        look_at(text, Timestamp::MIN);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn agrees_with_a_look_at_every_minute(random in schedule(), (zone, from) in window()) {
        const MINUTES: i64 = 3 * 24 * 60;
        let from = Timestamp::from_second((from - 1.hour()).as_second().div_euclid(60) * 60).unwrap();
        // The oracle knows nothing of a change just before its window.
        prop_assume!(zone.to_offset(from) == zone.to_offset(from - 3.hours()));
        let parsed = match parse(&text(&random), zone.iana_name()) {
            Ok(parsed) => parsed,
            Err(ScheduleError::NeverFires(_)) => return Ok(()),
            Err(error) => return Err(TestCaseError::fail(error.to_string())),
        };
        let expected = oracle(&random, &zone, from, MINUTES);
        prop_assert_eq!(&due_times(&parsed, from, MINUTES), &expected, "{}", text(&random));
        // From anywhere, not only from due times.
        for minute in (0..MINUTES).step_by(17) {
            let after = from + minute.minutes();
            let next = parsed.next_after(after).filter(|next| *next < from + MINUTES.minutes());
            prop_assert_eq!(next, expected.range(after + 1.nanosecond()..).next().copied(), "{} {}", text(&random), after);
        }
    }

    #[test]
    fn agrees_with_croner(
        minute in 0u32..60,
        hour in proptest::option::of(0u32..24),
        (day, weekday) in (field(1, 31).prop_map(RandomField::plain), field(0, 7).prop_map(RandomField::plain)),
        (zone, from) in window(),
    ) {
        // Where the rules agree: one time of day, or one minute of every hour, and no star that is not alone.
        prop_assume!(zone.iana_name() != Some("Pacific/Apia")); // Its skipped day is beyond croner.
        let hour = hour.map_or_else(|| "*".into(), |hour| hour.to_string());
        let text = format!("{minute} {hour} {} * {}", day.text(), weekday.text());
        let ours = parse(&text, zone.iana_name()).unwrap();
        let theirs: croner::Cron = text.parse().unwrap();
        let mut after = from;
        for _ in 0..10 {
            let next = ours.next_after(after).unwrap();
            let expected = theirs.find_next_occurrence(&after.to_zoned(zone.clone()), false).unwrap();
            prop_assert_eq!(next, expected.timestamp(), "{} after {} in {:?}", text, after, zone.iana_name());
            after = next;
        }
    }

    #[test]
    fn never_panics(text in "[-*/,@0-9A-Za-z ?#ä]{0,40}", second in any::<i32>()) {
        look_at(&text, Timestamp::from_second(second.into()).unwrap());
    }

    #[test]
    fn never_panics_on_fields(fields in proptest::collection::vec("[*0-9]{1,2}(-[0-9]{1,2})?(/[0-9]{1,2})?", 5..=6)) {
        look_at(&fields.join(" "), Timestamp::UNIX_EPOCH);
    }
}

#[test]
fn what_the_fuzzer_found_once_has_rising_due_times_or_none() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/cron");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        let lines: Vec<&str> = text.splitn(3, '\n').collect();
        let mut after = Timestamp::from_second(lines[2].parse().unwrap()).unwrap();
        count += 1;
        let Ok(schedule) = parse(lines[0], Some(lines[1]).filter(|zone| !zone.is_empty())) else { continue };
        for _ in 0..8 {
            let Some(next) = schedule.next_after(after) else { break };
            assert!(next > after, "{text}");
            after = next;
        }
    }
    assert!(count > 5, "{count}");
}
