//! Times as people read them: how long ago, how soon, how long.

use jiff::Timestamp;

/// `at` as seen from `now`: `3m ago`, `in 12s`, `now`.
pub fn relative(at: Timestamp, now: Timestamp) -> String {
    let millis = now.as_millisecond().saturating_sub(at.as_millisecond());
    match (millis.unsigned_abs() / 1000, millis >= 0) {
        (0, _) => "now".into(),
        (seconds, true) => format!("{} ago", coarse(seconds)),
        (seconds, false) => format!("in {}", coarse(seconds)),
    }
}

/// How much time lies between `at` and `now`, in one or two units: `12s`, `3m`, `5h`, `2d`.
pub fn age(at: Timestamp, now: Timestamp) -> String {
    coarse(now.as_millisecond().abs_diff(at.as_millisecond()) / 1000)
}

fn coarse(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// How long something took: `40ms`, `1.2s`, `1m05s`, `2h03m`, `3d04h`. Empty if it runs backwards.
pub fn took(from: Timestamp, to: Timestamp) -> String {
    let Ok(millis) = u64::try_from(to.as_millisecond().saturating_sub(from.as_millisecond())) else {
        return String::new();
    };
    let seconds = millis / 1000;
    match seconds {
        0 => format!("{millis}ms"),
        1..60 => format!("{seconds}.{}s", millis % 1000 / 100),
        60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{:02}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

/// RFC 3339 in UTC with milliseconds, as the API writes it.
pub fn exact(at: Timestamp) -> String {
    format!("{at:.3}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(1_800_000_000_000 + millis).unwrap()
    }

    #[test]
    fn relative_times_read_like_speech() {
        let table = [
            (0, "now"),
            (-999, "now"),
            (-12_000, "12s ago"),
            (12_500, "in 12s"),
            (-59_999, "59s ago"),
            (-60_000, "1m ago"),
            (-3_599_000, "59m ago"),
            (-7_200_000, "2h ago"),
            (-47 * 3_600_000, "47h ago"),
            (-48 * 3_600_000, "2d ago"),
            (400 * 86_400_000, "in 400d"),
        ];
        for (millis, expected) in table {
            assert_eq!(relative(at(millis), at(0)), expected, "{millis}");
        }
    }

    #[test]
    fn durations_keep_two_units() {
        let table = [
            (0, "0ms"),
            (40, "40ms"),
            (1_250, "1.2s"),
            (59_999, "59.9s"),
            (65_000, "1m05s"),
            (7_380_000, "2h03m"),
            (100 * 3_600_000, "4d04h"),
            (-1, ""),
        ];
        for (millis, expected) in table {
            assert_eq!(took(at(0), at(millis)), expected, "{millis}");
        }
    }
}
