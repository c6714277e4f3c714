//! Who had a pipeline under which epoch, as far back as it is remembered: only they can tell what became of its due times.

use jiff::Timestamp;
use xene_agent::decide::time::{Now, after};
use xene_schemas::meta::{AgentName, Epoch, PipelineKey};

use super::{
    Controller,
    agents::SKEW_LIMIT,
    ownership::{CLOCK_AHEAD, TICK},
    rows::{Holder, OwnerRow},
};

/// So many are remembered of each pipeline.
const HOLDERS: usize = 8;

impl OwnerRow {
    /// An agent has it from now on, under the epoch of this row.
    pub(super) fn note_holder(&mut self, agent: &AgentName) {
        if self.is_held_by(agent, self.epoch) {
            return;
        }
        self.holders.push(Holder { agent: agent.clone(), epoch: self.epoch, since: self.not_before });
        let surplus = self.holders.len().saturating_sub(HOLDERS);
        self.holders.drain(..surplus);
    }

    fn is_held_by(&self, agent: &AgentName, epoch: Epoch) -> bool {
        self.holders.iter().any(|holder| holder.epoch == epoch && holder.agent == *agent)
    }

    /// The first due time that is not one of this holder: the first of the next; until there is one, the first after
    /// those that it told of when it gave the pipeline back.
    fn held_until(&self, agent: &AgentName, epoch: Epoch) -> Timestamp {
        let mut from_then = self.holders.iter().skip_while(|holder| holder.epoch != epoch || holder.agent != *agent);
        match (from_then.next(), from_then.next()) {
            (None, _) => Timestamp::MIN,
            (Some(_), Some(next)) => next.since,
            (Some(_), None) if self.owner.is_none() && self.clean => after(self.watermark, TICK),
            (Some(_), None) => Timestamp::MAX,
        }
    }

    /// True of the owner, and until there is another of the one before.
    pub(super) fn is_last_held_by(&self, agent: &AgentName, epoch: Epoch) -> bool {
        self.epoch == epoch && self.holders.last().is_some_and(|last| last.epoch == epoch && last.agent == *agent)
    }
}

impl Controller {
    /// Why an agent can't tell what became of a due time under an epoch, if it can't.
    pub(super) fn cannot_tell(
        &self,
        now: Now,
        agent: &AgentName,
        (key, epoch): (&PipelineKey, Epoch),
        slot: Timestamp,
    ) -> Option<&'static str> {
        let row = self.owners.get(key).map(|owned| &owned.row);
        let owner = row.filter(|row| row.epoch == epoch).and_then(|row| row.owner.as_ref());
        if owner.is_some_and(|owner| owner != agent) {
            return Some("of an epoch that is another's");
        }
        if self.is_before_this_store(epoch, slot) {
            return None;
        }
        // An owner whose clock is ahead has started what was not due, and that is its own until the next one begins.
        let is_its_own = row.is_some_and(|row| slot < row.held_until(agent, epoch));
        let ahead = if is_its_own { CLOCK_AHEAD } else { SKEW_LIMIT };
        if slot > after(now.wall, ahead) {
            return Some("of a due time that has not come");
        }
        if owner.is_some() {
            return None;
        }
        let Some(row) = row else { return Some("of a pipeline that nobody ever owned") };
        if epoch > row.epoch {
            return Some("of an epoch that was never granted");
        }
        let oldest = row.holders.first()?;
        let is_forgotten = epoch < oldest.epoch && slot < oldest.since;
        (!is_forgotten && !row.is_held_by(agent, epoch)).then_some("of an epoch that it never had")
    }

    /// From before the store was made, or recovered: who had which epoch then, it may not know. The clock that a recovered
    /// one went by may have been ahead, so its due times have no bound.
    fn is_before_this_store(&self, epoch: Epoch, slot: Timestamp) -> bool {
        let made = Timestamp::from_second(self.row.generation.cast_signed()).unwrap_or(Timestamp::MIN);
        epoch < Epoch::before_first(self.row.generation) && (self.row.recovered_at.is_some() || slot <= made)
    }
}
