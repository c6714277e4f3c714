//! How long to wait after a failure, and how to spread what is regular.

use std::time::Duration;

/// Waits that double with each failure, ±10 %.
#[derive(Debug, Clone, Default)]
pub(super) struct Backoff {
    failures: u32,
}

/// After the first failure.
const FIRST: Duration = Duration::from_secs(1);
/// After many; and at once where a person must act, such as refused credentials.
const LAST: Duration = Duration::from_secs(300);

impl Backoff {
    /// Forgets the failures.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    /// The wait after one more failure. `random` is any number.
    pub(super) fn next(&mut self, random: u32) -> Duration {
        let wait = FIRST.saturating_mul(1 << self.failures.min(10)).min(LAST);
        self.failures = self.failures.saturating_add(1);
        jitter(wait, random)
    }

    /// The wait after a failure that does not go away by itself.
    pub(super) fn slow(&mut self, random: u32) -> Duration {
        self.failures = self.failures.saturating_add(1);
        jitter(LAST, random)
    }
}

/// `wait` ±10 %, as `random` says.
pub(super) fn jitter(wait: Duration, random: u32) -> Duration {
    wait.mul_f64(0.9 + 0.2 * f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn doubles_from_a_second_to_five_minutes() {
        let mut backoff = Backoff::default();
        let middle = u32::MAX / 2;
        let waits: Vec<f64> = (0..12).map(|_| backoff.next(middle).as_secs_f64().round()).collect();
        assert_eq!(waits, [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 300.0, 300.0, 300.0]);
        backoff.reset();
        assert!(backoff.next(middle) < Duration::from_secs(2));
        assert!(backoff.slow(middle) > Duration::from_secs(270));
    }

    proptest! {
        #[test]
        fn stays_within_ten_percent(failures in 0_usize..40, random: u32) {
            let mut backoff = Backoff::default();
            let plain = |n: usize| Duration::from_secs(1 << n.min(10)).min(LAST);
            for _ in 0..failures {
                backoff.next(random);
            }
            let wait = backoff.next(random);
            prop_assert!(wait >= plain(failures).mul_f64(0.899) && wait <= plain(failures).mul_f64(1.101));
        }
    }
}
