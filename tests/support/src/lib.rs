//! What xene's tests share: real processes, real repositories, and conditions that are awaited with a deadline.

pub mod browser;
pub mod cluster;
pub mod disk;
pub mod process;
pub mod relay;
pub mod repository;
pub mod sim;

use std::{
    thread,
    time::{Duration, Instant},
};

/// How long a condition may take before a test fails: generous, since the machine may be busy.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Asks again and again until there is an answer.
///
/// # Panics
/// With `what` and the last word of `ask`, if there is none within [`DEADLINE`].
#[track_caller]
pub fn eventually<T>(what: &str, ask: impl FnMut() -> Result<T, String>) -> T {
    within(DEADLINE, what, ask)
}

/// [`eventually`] with a deadline of its own.
///
/// # Panics
/// With `what` and the last word of `ask`, if there is none in time.
#[track_caller]
#[expect(clippy::disallowed_methods, reason = "a test's deadline, which no suspend matters to")]
pub fn within<T>(deadline: Duration, what: &str, mut ask: impl FnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(word) if start.elapsed() > deadline => panic!("not within {deadline:?}: {what}\nlast: {word}"),
            Err(_) => thread::sleep(Duration::from_millis(10)),
        }
    }
}
