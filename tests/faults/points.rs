//! Deaths at named places, just before and just after commits of what matters: what can't be hit by chance.

use std::time::Duration;

use xene_agent::crash;

use crate::plan::Chaos;

#[test]
fn what_was_promised_holds_after_a_death_before_and_after_each_commit() {
    if !cfg!(debug_assertions) {
        println!("a release build has no such places");
        return;
    }
    let mut chaos = Chaos::begin(1, Duration::ZERO, env!("CARGO_BIN_EXE_xene").into());
    for (places, agent) in [(crash::OF_CONTROLLERS, false), (crash::OF_AGENTS, true)] {
        for place in places {
            chaos.crash_at(&format!("{place}.before_commit"), agent);
            chaos.crash_at(&format!("{place}.after_commit"), agent);
        }
    }
    chaos.heal().check();
}
