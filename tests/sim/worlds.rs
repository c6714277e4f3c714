//! Random worlds hold to the laws.

use xene_test_support::sim::{Setup, explore, tell};

/// Worlds that a plain run looks at.
const WORLDS: u64 = 2_000;

#[expect(clippy::disallowed_methods, reason = "how a person asks for more worlds, or for one")]
fn asked(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn laws_hold_in_random_worlds() {
    if let Some(seed) = asked("XENE_SEED") {
        println!("{}", tell(Setup::ordinary, seed, usize::MAX));
        return;
    }
    let explored = match explore(Setup::ordinary, 1, asked("XENE_WORLDS").unwrap_or(WORLDS)) {
        Ok(explored) => explored,
        Err(found) => panic!("{}", found.tell(Setup::ordinary)),
    };
    println!("{explored:?}");
}
