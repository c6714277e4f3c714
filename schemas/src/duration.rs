//! Durations as people write them: `500ms`, `30s`, `5m`, `1h30m`, `7d`.

use std::{
    fmt::{self, Write},
    str::FromStr,
    time,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A span of time, whole milliseconds from 0 to 100 years, written as `1h30m`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Duration(u64);

const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
const MAX: u64 = 100 * 366 * 86_400_000;

impl Duration {
    /// From whole milliseconds; more than 100 years is cut to that.
    pub const fn from_millis(millis: u64) -> Self {
        Self(if millis > MAX { MAX } else { millis })
    }

    /// From whole seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self::from_millis(seconds.saturating_mul(1_000))
    }

    /// In whole milliseconds.
    pub const fn as_millis(self) -> u64 {
        self.0
    }
}

impl From<Duration> for time::Duration {
    fn from(duration: Duration) -> Self {
        Self::from_millis(duration.0)
    }
}

/// Why a text is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a duration is written like 500ms, 30s, 5m, 1h30m or 7d, unlike {0:?}")]
pub struct DurationError(String);

impl FromStr for Duration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, DurationError> {
        let refuse = || DurationError(text.chars().take(64).collect());
        let (mut rest, mut total, mut next_unit) = (text, 0u64, 0);
        if text.is_empty() {
            return Err(refuse());
        }
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(refuse)?;
            let number: u64 = rest[..digits].parse().map_err(|_| refuse())?;
            rest = &rest[digits..];
            let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
            // Units fall from day to millisecond, each at most once, as in `1h30m`.
            let at = UNITS.iter().position(|(unit, _)| *unit == &rest[..end]).filter(|at| *at >= next_unit);
            let at = at.ok_or_else(refuse)?;
            next_unit = at + 1;
            rest = &rest[end..];
            total = number.checked_mul(UNITS[at].1).and_then(|n| n.checked_add(total)).ok_or_else(refuse)?;
        }
        if total > MAX { Err(refuse()) } else { Ok(Self(total)) }
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.pad("0s");
        }
        let (mut rest, mut text) = (self.0, String::new());
        for (unit, millis) in UNITS {
            if rest >= millis {
                let _ = write!(text, "{}{unit}", rest / millis);
                rest %= millis;
            }
        }
        f.pad(&text)
    }
}

impl fmt::Debug for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Duration {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "minLength": 2,
            "pattern": "^([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$",
            "description": "A span of time such as 500ms, 30s, 5m, 1h30m or 7d."
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_people_write() {
        for (text, millis) in [("500ms", 500), ("30s", 30_000), ("1h30m", 5_400_000), ("7d", 604_800_000), ("0s", 0)] {
            assert_eq!(text.parse::<Duration>().map(Duration::as_millis), Ok(millis), "{text}");
        }
        for bad in ["", "5", "m", "5 m", "5m1h", "1m1m", "-1s", "1.5h", "5M", "99999999999999999999d", "٣s"] {
            assert!(bad.parse::<Duration>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn reads_back_what_it_writes(millis in 0..MAX) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(duration.to_string().parse(), Ok(duration));
        }

        #[test]
        fn never_panics(text in ".{0,20}") {
            let _ = text.parse::<Duration>();
        }
    }
}
