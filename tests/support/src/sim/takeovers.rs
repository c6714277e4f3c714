//! The laws of unplanned takeovers: when a pipeline may be taken from an owner that has not given it back.

use std::collections::BTreeSet;

use xene::decide::rows::OwnerRow;
use xene_schemas::{
    meta::{AgentName, PipelineKey},
    pipeline::Autonomy,
};

use super::{
    clock::{Instant, SECOND},
    history::n,
    invariants::Violation,
    node::AgentNode,
    world::World,
};

impl World {
    /// Who has something that may be taken from it.
    pub(super) fn finite_owners(&self) -> BTreeSet<AgentName> {
        let finite = self.controller.store.owners.values().filter(|row| row.autonomy != Autonomy::Forever);
        finite.filter_map(|row| row.owner.clone()).collect()
    }

    /// A row is about to replace the one in the store, where `owners` had something before this commit. An epoch has
    /// one owner; a takeover needs a person's word, or that the controller, when it decided it, had listened for all of
    /// W (rule 11), and not to most agents in vain (rule 10).
    pub(super) fn may_take(
        &mut self,
        decided: Instant,
        owners: &BTreeSet<AgentName>,
        key: &PipelineKey,
        new: &OwnerRow,
    ) -> Result<(), Violation> {
        if let Some(owner) = &new.owner {
            let first = self.witness.owners.entry((key.clone(), new.epoch)).or_insert_with(|| owner.clone());
            if first != owner {
                let what = format!("{first} and {owner} had {key} under epoch {}", n(new.epoch.0));
                return Violation::of("I3 an epoch has one owner", what);
            }
        }
        let old = self.controller.store.owners.get(key).filter(|old| new.owner.is_some() && new.epoch > old.epoch);
        let Some((old, Autonomy::For(l))) = old.map(|old| (old, old.autonomy)) else { return Ok(()) };
        let Some(at) = self.agents.iter().position(|node| Some(&node.name) == old.owner.as_ref()) else {
            return Ok(());
        };
        let node = &self.agents[at];
        if node.forgotten || node.fenced_at.0 + 30 * SECOND > decided.0 {
            return Ok(());
        }
        // W of a clock that is fast.
        let wait = l.as_millis() * 1_000_000 + self.setup.pause_margin * SECOND * 95 / 100;
        // What it decided before it stood still may have waited for the disk since.
        let listened = decided.0.checked_sub(self.controller.awake_since.0);
        if let Some(listened) = listened.filter(|listened| *listened < wait) {
            let what =
                format!("{key} was taken from {} {} s after the controller went on", node.name, listened / SECOND);
            return Violation::of("rule 11: a controller that stood still waits anew", what);
        }
        let silence = |heard: u64| decided.0.saturating_sub(heard.max(self.controller.awake_since.0));
        let expected: Vec<_> = self.agents.iter().filter(|node| !node.forgotten).collect();
        // One that fell silent long before the others, with a longer L, is not one of them.
        let is_lost = |node: &AgentNode| {
            let silence = silence(node.heard.0);
            owners.contains(&node.name) && silence > wait * 7 / 10 && silence < wait * 18 / 10
        };
        let lost = expected.iter().filter(|node| is_lost(node)).count();
        if lost >= 3 && 2 * lost > expected.len() && is_lost(node) {
            let what = format!("{key} was taken from {} while {lost} of {} are silent", node.name, expected.len());
            return Violation::of("rule 10: nothing is taken from most agents at once", what);
        }
        Ok(())
    }
}
