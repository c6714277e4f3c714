//! The laws of unplanned takeovers: when a pipeline may be taken from an owner that has not given it back.

use std::collections::BTreeSet;

use xene::decide::rows::OwnerRow;
use xene_schemas::{
    meta::{AgentName, PipelineKey},
    pipeline::Autonomy,
};

use super::{clock::SECOND, history::n, invariants::Violation, world::World};

impl World {
    /// Who has something that may be taken from it.
    pub(super) fn finite_owners(&self) -> BTreeSet<AgentName> {
        let finite = self.controller.store.owners.values().filter(|row| row.autonomy != Autonomy::Forever);
        finite.filter_map(|row| row.owner.clone()).collect()
    }

    /// A row is about to replace the one in the store, where `owners` had something before this commit. An epoch has one owner; a takeover needs a person's word, or that
    /// the controller has listened for all of W (rule 11), and not to most agents in vain (rule 10).
    pub(super) fn may_take(
        &mut self,
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
        if node.forgotten || node.fenced_at.0 + 30 * SECOND > self.at.0 {
            return Ok(());
        }
        // W of a clock that is fast.
        let wait = l.as_millis() * 1_000_000 + self.setup.pause_margin * SECOND * 95 / 100;
        let listened = self.at.0.saturating_sub(self.controller.awake_since.0);
        if listened < wait && self.controller.commits.taken() > self.controller.decided_before {
            let what =
                format!("{key} was taken from {} {} s after the controller went on", node.name, listened / SECOND);
            return Violation::of("rule 11: a controller that stood still waits anew", what);
        }
        let silence = |heard: u64| self.at.0.saturating_sub(heard.max(self.controller.awake_since.0));
        let expected: Vec<_> = self.agents.iter().filter(|node| !node.forgotten).collect();
        let lost = expected.iter().filter(|node| {
            let silence = silence(node.heard.0);
            owners.contains(&node.name) && silence > wait * 7 / 10 && silence < wait * 18 / 10
        });
        let lost = lost.count();
        if lost >= 3 && 2 * lost > expected.len() && silence(node.heard.0) > wait * 7 / 10 {
            let what = format!("{key} was taken from {} while {lost} of {} are silent", node.name, expected.len());
            return Violation::of("rule 10: nothing is taken from most agents at once", what);
        }
        Ok(())
    }
}
