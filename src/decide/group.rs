//! Groups of `concurrency`: pipelines that share one `max` are placed together, on one agent, which counts their runs
//! by itself, also while the controller is away.
//!
//! A group therefore moves as a whole. While an agent still has one of its pipelines, or still carries out a run of
//! one as far as is known here, no other agent is given any of them. What an agent that is lost may still be doing
//! nobody can tell: its runs are Unknown, and hold up nobody.

use std::collections::BTreeSet;

use xene_agent::decide::time::Now;
use xene_schemas::{
    map::UniqueMap,
    meta::{AgentName, Labels, Name, PipelineKey},
    phase::RunPhase,
};

use super::{Controller, event::Effects, ownership::Owned, schedule::matches};

/// Where the rest of its group lets a pipeline go.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Bond {
    /// Anywhere.
    Free,
    /// To this agent only; a sentence says why.
    To(AgentName, String),
    /// Nowhere yet; a sentence says what is waited for.
    Waits(String),
}

impl Controller {
    /// The group of a pipeline, if it has one.
    pub(super) fn group(&self, key: &PipelineKey) -> Option<&Name> {
        self.pipelines.get(key)?.group.as_ref()
    }

    /// All pipelines that share `max` with this one, itself included.
    pub(super) fn group_members(&self, key: &PipelineKey) -> Vec<PipelineKey> {
        match self.group(key).and_then(|group| self.groups.get(group)) {
            Some(members) => members.iter().cloned().collect(),
            None => vec![key.clone()],
        }
    }

    /// What an agent must have to be given this pipeline: what all of its group ask for.
    pub(super) fn asked_labels(&self, key: &PipelineKey) -> Vec<&UniqueMap<String, String>> {
        match self.group(key).and_then(|group| self.groups.get(group)) {
            Some(members) => {
                let labels = members.iter().filter_map(|member| self.pipelines.get(member));
                labels.map(|pipeline| &pipeline.labels).filter(|labels| !labels.is_empty()).collect()
            }
            None => self.pipelines.get(key).map(|pipeline| &pipeline.labels).into_iter().collect(),
        }
    }

    /// True if an agent with these labels may have it.
    pub(super) fn fits(&self, key: &PipelineKey, labels: &Labels) -> bool {
        self.asked_labels(key).into_iter().all(|asked| matches(asked, labels))
    }

    /// An agent other than `owner` that has a pipeline of the same group, and keeps it.
    pub(super) fn rival(&self, now: Now, key: &PipelineKey, owner: &AgentName) -> Option<&AgentName> {
        let members = self.group(key).and_then(|group| self.groups.get(group))?;
        members.iter().filter(|member| *member != key).find_map(|member| {
            let owned = self.owners.get(member).filter(|owned| !owned.row.revoking && !owned.row.void)?;
            let other = owned.row.owner.as_ref().filter(|other| *other != owner)?;
            self.expires(owned).is_none_or(|expires| expires > now.boot).then_some(other)
        })
    }

    /// Owners of the rest of its group that may have fallen silent: one that keeps what it has keeps the group.
    pub(super) fn count_lost_of_group(&mut self, now: Now, key: &PipelineKey, fx: &mut Effects) {
        let Some(members) = self.group(key).and_then(|group| self.groups.get(group)) else { return };
        let over = |owned: &&Owned| self.lease_end(owned).is_some_and(|end| end <= now.boot);
        let owned = members.iter().filter_map(|member| self.owners.get(member)).filter(over);
        let owners: BTreeSet<AgentName> = owned.filter_map(|owned| owned.row.owner.clone()).collect();
        for owner in &owners {
            self.count_lost(now, owner, fx);
        }
    }

    /// Where the rest of its group lets this pipeline go.
    pub(super) fn bond(&self, now: Now, key: &PipelineKey) -> Bond {
        let Some(group) = self.group(key) else { return Bond::Free };
        let Some(members) = self.groups.get(group) else { return Bond::Free };
        let mut bound: Option<(&AgentName, String)> = None;
        for member in members {
            let owned = self.owners.get(member);
            let owner = owned.and_then(|owned| owned.row.owner.as_ref());
            let over = owned.and_then(|owned| self.expires(owned)).is_some_and(|expires| expires <= now.boot);
            if let (Some(owned), Some(owner)) = (owned, owner)
                && member != key
                && !over
            {
                if owned.row.revoking || owned.row.void {
                    return Bond::Waits(format!("its group {group} is moving: {owner} still has {member}"));
                }
                if bound.get_or_insert_with(|| (owner, format!("{owner} has {member}"))).0 != owner {
                    return Bond::Waits(format!("its group {group} is moving: {owner} still has {member}"));
                }
            }
            for run in self.active.get(member).into_iter().flatten() {
                let Some(status) = self.runs.get(run).map(|row| &row.run.status) else { continue };
                let Some(agent) = status.agent.as_ref().filter(|_| status.phase != RunPhase::Unknown) else { continue };
                // What a lost owner had is about to become Unknown.
                let lost = over && owner == Some(agent);
                let goes_on = || format!("run {run} of {member} goes on on {agent}");
                if !lost && bound.get_or_insert_with(|| (agent, goes_on())).0 != agent {
                    return Bond::Waits(format!("its group {group} is moving: {}", goes_on()));
                }
            }
        }
        bound.map_or(Bond::Free, |(agent, why)| Bond::To(agent.clone(), why))
    }

    /// Something of its group was settled: members that wait are looked at again, and those whose owner was lost go with
    /// them.
    pub(super) fn place_group(&mut self, now: Now, key: &PipelineKey, fx: &mut Effects) {
        let Some(members) = self.group(key).and_then(|group| self.groups.get(group)) else { return };
        let over = |member: &PipelineKey| {
            let owned = self.owners.get(member).filter(|owned| owned.row.owner.is_some());
            owned.and_then(|owned| self.expires(owned)).is_some_and(|end| end <= now.boot)
        };
        let loose = |member: &&PipelineKey| self.waiting.contains(*member) || over(member);
        let loose: Vec<PipelineKey> = members.iter().filter(loose).cloned().collect();
        for member in loose {
            self.place_one(now, &member, fx);
        }
    }

    /// How many runs of its group, or of itself, have not ended, and how many may go on at once.
    pub(super) fn is_busy(&self, key: &PipelineKey) -> bool {
        let members = self.group_members(key);
        let runs: usize = members.iter().filter_map(|member| self.active.get(member)).map(BTreeSet::len).sum();
        let max =
            members.iter().filter_map(|member| self.pipelines.get(member)).map(|pipeline| pipeline.max_runs).min();
        runs >= max.unwrap_or(1).max(1) as usize
    }
}
