//! When to dial again: full jitter, from one second up to a minute.

use std::time::Duration;

/// The first span.
const FIRST: Duration = Duration::from_secs(1);

/// The longest span.
const LONGEST: Duration = Duration::from_secs(60);

/// Spans between attempts to dial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reconnect {
    first: Duration,
    failures: u32,
}

impl Default for Reconnect {
    fn default() -> Self {
        Self { first: FIRST, failures: 0 }
    }
}

impl Reconnect {
    /// A session stood: the next attempt is soon. `span` is the controller's: it spreads its agents over it, so that
    /// not all of them are back in the same second.
    pub fn stood(&mut self, span: Duration) {
        *self = Self { first: span.clamp(FIRST, LONGEST), failures: 0 };
    }

    /// The controller said that trying again soon is of no use.
    pub fn refused(&mut self) {
        self.failures = u32::MAX;
    }

    /// How long to wait before the next attempt; `random` picks from the span.
    pub fn next(&mut self, random: u64) -> Duration {
        let doubled = FIRST.checked_mul(1u32.checked_shl(self.failures).unwrap_or(u32::MAX)).unwrap_or(LONGEST);
        let span = doubled.max(self.first).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        let part = random as f64 / u64::MAX as f64;
        span.mul_f64(part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spans(reconnect: &mut Reconnect, count: usize) -> Vec<u64> {
        (0..count).map(|_| reconnect.next(u64::MAX).as_secs()).collect()
    }

    #[test]
    fn spans_double_up_to_a_minute_and_start_over_after_a_session() {
        let mut reconnect = Reconnect::default();
        assert_eq!(spans(&mut reconnect, 9), [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        reconnect.stood(Duration::from_secs(20));
        assert_eq!(spans(&mut reconnect, 7), [20, 20, 20, 20, 20, 32, 60]);
        reconnect.stood(Duration::ZERO);
        assert_eq!(spans(&mut reconnect, 2), [1, 2]);
        reconnect.refused();
        assert_eq!(spans(&mut reconnect, 2), [60, 60]);
    }

    #[test]
    fn the_whole_span_is_used() {
        assert_eq!(Reconnect::default().next(0), Duration::ZERO);
        assert_eq!(Reconnect::default().next(u64::MAX / 2), Duration::from_millis(500));
    }
}
