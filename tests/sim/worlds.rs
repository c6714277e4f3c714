//! Random worlds hold to the laws.

use xene_agent::decide::mutant::Mutant;
use xene_test_support::sim::{Random, Setup, explore, tell};

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

/// Worlds in which backups of the store are put in its place, over and over.
fn restored(random: &mut Random) -> Setup {
    Setup { mutant: None, ..Setup::without(Mutant::RestoreTrustsTable, random) }
}

#[test]
fn laws_hold_where_backups_are_restored() {
    if let Some(seed) = asked("XENE_SEED") {
        println!("{}", tell(restored, seed, usize::MAX));
        return;
    }
    if let Err(found) = explore(restored, 1, asked("XENE_WORLDS").unwrap_or(WORLDS)) {
        panic!("{}", found.tell(restored));
    }
}

/// Worlds in which agents that go on are revoked.
fn revoked(random: &mut Random) -> Setup {
    Setup { mutant: None, ..Setup::without(Mutant::RevokedIsAnswered, random) }
}

#[test]
fn laws_hold_where_agents_are_revoked() {
    if let Some(seed) = asked("XENE_SEED") {
        println!("{}", tell(revoked, seed, usize::MAX));
        return;
    }
    if let Err(found) = explore(revoked, 1, asked("XENE_WORLDS").unwrap_or(WORLDS / 4)) {
        panic!("{}", found.tell(revoked));
    }
}

#[test]
fn laws_hold_where_the_controllers_disk_is_full() {
    if let Some(seed) = asked("XENE_SEED") {
        println!("{}", tell(Setup::full, seed, usize::MAX));
        return;
    }
    if let Err(found) = explore(Setup::full, 1, asked("XENE_WORLDS").unwrap_or(WORLDS / 4)) {
        panic!("{}", found.tell(Setup::full));
    }
}

/// Worlds in which most agents are cut off at once, over and over.
fn parted(random: &mut Random) -> Setup {
    Setup { mutant: None, ..Setup::without(Mutant::BreakerOff, random) }
}

#[test]
fn laws_hold_where_most_agents_are_cut_off() {
    if let Some(seed) = asked("XENE_SEED") {
        println!("{}", tell(parted, seed, usize::MAX));
        return;
    }
    if let Err(found) = explore(parted, 1, asked("XENE_WORLDS").unwrap_or(WORLDS / 10)) {
        panic!("{}", found.tell(parted));
    }
}
