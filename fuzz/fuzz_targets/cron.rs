//! Any text as a schedule, in any zone, at any time: due times that rise, no panic, in bounds. Its lines are the schedule,
//! the zone and the seconds since 1970.

#![no_main]

use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use xene_agent::decide::cron::Schedule;
use xene_schemas::trigger::Cron;

fuzz_target!(|text: &str| {
    let mut lines = text.splitn(3, '\n');
    let (schedule, zone) = (lines.next().unwrap_or_default(), lines.next().filter(|zone| !zone.is_empty()));
    let after = lines.next().and_then(|seconds| seconds.parse().ok()).unwrap_or(1_800_000_000);
    let Ok(mut after) = Timestamp::from_second(after) else { return };
    let cron = serde_json::json!({"schedule": schedule, "timeZone": zone});
    let Ok(cron) = serde_json::from_value::<Cron>(cron) else { return };
    match Schedule::parse(&cron) {
        Ok(schedule) => {
            schedule.describe();
            for _ in 0..8 {
                let Some(next) = schedule.next_after(after) else { return };
                assert!(next > after, "{next} after {after}");
                schedule.shift(next);
                after = next;
            }
        }
        Err(error) => {
            let place = error.place(&cron.schedule);
            assert!(place.is_none_or(|place| cron.schedule.get(place).is_some()), "{error}");
        }
    }
});
