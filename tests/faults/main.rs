//! Faults: real processes that are killed, stopped and cut off over and over, and a checker of what they left.
//!
//! `cargo test --test faults` takes some minutes. `XENE_FAULTS=60m` makes the random part that long, with a fault every
//! few seconds; `XENE_SEED=N` plans it as the run did that told this seed.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a test may fail, has a clock of its own, and tells what it did"
)]

mod check;
mod client;
mod clocks;
mod disks;
mod identities;
mod plan;
mod points;
mod rolling;
mod rows;
mod tools;
mod world;

use std::time::Duration;

use xene_test_support::process::binary;

/// How long the random part goes on, if nobody says so: with the rest this stays below five minutes.
const SHORT: Duration = Duration::from_secs(80);

#[test]
fn what_was_promised_holds_after_random_faults() {
    let asked = |name: &str| std::env::var(name).ok();
    let lasts = asked("XENE_FAULTS").map_or(SHORT, |text| {
        text.parse::<xene_schemas::duration::Duration>().expect("XENE_FAULTS is a duration").into()
    });
    let seed = asked("XENE_SEED").map_or_else(
        || u64::from(std::process::id()) ^ jiff::Timestamp::now().as_millisecond().unsigned_abs(),
        |text| text.parse().expect("XENE_SEED is a number"),
    );
    println!("XENE_SEED={seed} plans these faults again");
    plan::Chaos::begin(seed, lasts, binary()).go_on().heal().check();
}
