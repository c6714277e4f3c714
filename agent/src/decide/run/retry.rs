//! Whether and when a failed attempt is tried again.

use std::time::Duration;

use xene_schemas::task::Retry;

const DELAY: Duration = Duration::from_secs(1);
const BACKOFF: f64 = 2.0;
const MAX_DELAY: Duration = Duration::from_secs(300);

/// How long to wait before the next attempt after `attempt` (from 1) has failed; none: it is not tried again.
///
/// `exit_code` is that of the process, if it exited. With `onExitCodes` nothing else is tried again: neither
/// what a signal ended, nor a timeout.
pub(super) fn delay(retry: Option<&Retry>, attempt: u32, exit_code: Option<i32>) -> Option<Duration> {
    let retry = retry.filter(|retry| attempt <= retry.attempts)?;
    if !retry.on_exit_codes.is_empty() && !exit_code.is_some_and(|code| retry.on_exit_codes.contains(&code)) {
        return None;
    }
    let first = retry.delay.map_or(DELAY, Duration::from);
    let longest = retry.max_delay.map_or_else(|| MAX_DELAY.max(first), Duration::from);
    let growth = retry.backoff.unwrap_or(BACKOFF).powi(i32::try_from(attempt - 1).unwrap_or(i32::MAX));
    // A finite growth, or nothing times infinity would be no number.
    Duration::try_from_secs_f64((first.as_secs_f64() * growth.min(f64::MAX)).min(longest.as_secs_f64())).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retry(yaml: &str) -> Retry {
        serde_json::from_str(yaml).unwrap()
    }

    #[test]
    fn delays_grow_up_to_a_limit() {
        let delays = |text: &str| -> Vec<u128> {
            (1..).map_while(|attempt| delay(Some(&retry(text)), attempt, Some(1))).map(|d| d.as_millis()).collect()
        };
        assert_eq!(delays(r#"{"attempts": 4}"#), [1_000, 2_000, 4_000, 8_000]);
        assert_eq!(delays(r#"{"attempts": 3, "delay": "2m"}"#), [120_000, 240_000, 300_000]);
        assert_eq!(delays(r#"{"attempts": 2, "delay": "10m"}"#), [600_000; 2], "what is written is no less");
        assert_eq!(delays(r#"{"attempts": 3, "delay": "10s", "backoff": 1}"#), [10_000; 3]);
        assert_eq!(delays(r#"{"attempts": 2, "backoff": 1.5, "maxDelay": "1200ms"}"#), [1_000, 1_200]);
        assert_eq!(delays(r#"{"attempts": 2, "delay": "0s", "backoff": 1e300}"#), [0, 0]);
        assert_eq!(delays(r#"{"attempts": 100, "backoff": 1e300}"#)[99], 300_000);
    }

    #[test]
    fn only_the_exit_codes_named_are_tried_again() {
        let some = retry(r#"{"attempts": 1, "onExitCodes": [75]}"#);
        for (code, again) in [(Some(75), true), (Some(1), false), (None, false)] {
            assert_eq!(delay(Some(&some), 1, code).is_some(), again, "{code:?}");
        }
        assert!(delay(Some(&retry(r#"{"attempts": 1}"#)), 1, None).is_some(), "default all");
        assert_eq!(delay(None, 1, Some(75)), None);
    }
}
