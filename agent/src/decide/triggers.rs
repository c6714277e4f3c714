//! Cron triggers of one pipeline: which due times have come, which of them start a run, and why the others do not.
//!
//! A due time is the *slot*, which names the run. It comes `jitter` later; order and watermark go by when it comes.

use std::{collections::VecDeque, time::Duration};

use jiff::Timestamp;
use xene_schemas::{
    meta::{Name, PipelineKey},
    phase::Reason,
    pipeline::CompiledPipeline,
    trigger::{CatchUp, Cron, Trigger},
};

use super::{
    cron::{Schedule, ScheduleError},
    time::{after, before},
};

/// A start this late is still the start that was due, and not one caught up.
const ON_TIME: Duration = Duration::from_secs(10);
/// The most due times that one look starts; `catchUp: All` names this number.
const MOST: usize = 100;

/// A due time of a trigger.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Slot {
    /// When it comes: `at` and the jitter.
    pub(super) due: Timestamp,
    /// The trigger.
    pub(super) trigger: Name,
    /// The due time, as the schedule says.
    pub(super) at: Timestamp,
}

/// What became of the due times that have come.
#[derive(Debug, Default)]
pub(super) struct Come {
    /// These want a run, oldest first.
    pub(super) start: Vec<Slot>,
    /// These get none.
    pub(super) skipped: Vec<Passed>,
    /// The newest of all of them came then.
    pub(super) newest: Option<Timestamp>,
}

/// A due time that gets no run, or several in a row.
#[derive(Debug)]
pub(super) struct Passed {
    /// The first.
    pub(super) slot: Slot,
    /// Why.
    pub(super) reason: Reason,
    /// All up to this one are meant.
    pub(super) until: Option<Timestamp>,
    /// How many they are, if they were counted.
    pub(super) count: Option<u32>,
}

impl Passed {
    /// One.
    pub(super) fn one(slot: Slot, reason: Reason) -> Self {
        Self { slot, reason, until: None, count: None }
    }
}

/// A cron trigger that is hosted.
#[derive(Debug)]
pub(super) struct Hosted {
    name: Name,
    cron: Cron,
    suspended: bool,
    schedule: Schedule,
    jitter: Duration,
    /// The next slot that was not looked at.
    next: Option<Timestamp>,
}

/// Hosts the cron triggers of `spec`: slots after `slots_after` that come after `watermark`. Triggers with an
/// unusable schedule are left out, with the reason: the compiler refuses them, so one is a newer version's.
pub(super) fn host(
    spec: &CompiledPipeline,
    slots_after: Timestamp,
    watermark: Timestamp,
) -> (Vec<Hosted>, Vec<ScheduleError>) {
    let (mut hosted, mut refused) = (Vec::new(), Vec::new());
    for (name, trigger) in &spec.triggers {
        let Trigger::Cron(cron) = trigger else { continue };
        match Schedule::parse(cron) {
            Ok(schedule) => {
                let jitter = spread(&spec.key, name, cron.jitter.into());
                let next = schedule.next_after(slots_after.max(before(watermark, jitter)));
                let suspended = spec.suspend || cron.suspend;
                hosted.push(Hosted { name: name.clone(), cron: cron.clone(), suspended, schedule, jitter, next });
            }
            Err(error) => refused.push(error),
        }
    }
    (hosted, refused)
}

/// True if both have the same cron triggers: then due times that passed under `old` mean the same under `new`.
pub(super) fn same_triggers(old: &CompiledPipeline, new: &CompiledPipeline) -> bool {
    old.suspend == new.suspend && old.triggers == new.triggers
}

/// The jitter of a trigger: the same at each of its due times, on every agent.
fn spread(pipeline: &PipelineKey, trigger: &Name, most: Duration) -> Duration {
    let most = u64::try_from(most.as_millis()).unwrap_or(u64::MAX);
    if most == 0 {
        return Duration::ZERO;
    }
    let hash = blake3::hash(format!("{pipeline}#{trigger}").as_bytes());
    let mut low = [0; 8];
    low.copy_from_slice(&hash.as_bytes()[..8]);
    Duration::from_millis(u64::from_le_bytes(low) % most)
}

impl Hosted {
    /// It does not fire, though its spec says nothing of that.
    pub(super) fn suspend(&mut self) {
        self.suspended = true;
    }

    /// True if it does not fire.
    pub(super) fn is_suspended(&self) -> bool {
        self.suspended
    }

    /// When the next slot comes.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.next.map(|slot| after(slot, self.jitter))
    }

    /// True if more than one of its ticks may wait: each due time is wanted.
    pub(super) fn wants_all(&self) -> bool {
        self.cron.catch_up == CatchUp::All
    }

    /// Its name.
    pub(super) fn name(&self) -> &Name {
        &self.name
    }

    /// What a run that it starts is given.
    pub(super) fn cron(&self) -> &Cron {
        &self.cron
    }

    /// True if a start at `slot_now` is later than `startingDeadline` allows.
    pub(super) fn too_late(&self, slot: &Slot, slot_now: Timestamp) -> bool {
        slot_now > after(slot.due, self.cron.starting_deadline.into())
    }

    /// The trigger is edited: what has come by `slot_now` and was not looked at never fires.
    pub(super) fn pass_over(&mut self, slot_now: Timestamp) -> Option<Passed> {
        // Also what comes later by its jitter: the edited trigger begins with due times after this.
        let first = self.next.filter(|first| *first <= slot_now)?;
        self.next = self.schedule.next_after(slot_now);
        let until = (self.schedule.next_after(first) != self.next).then_some(slot_now);
        let reason = if self.suspended { Reason::SUSPENDED } else { Reason::TRIGGER_EDITED };
        let slot = Slot { due: after(first, self.jitter), trigger: self.name.clone(), at: first };
        Some(Passed { slot, reason, until, count: None })
    }

    /// Looks at every slot that has come by `slot_now`, once.
    pub(super) fn come(&mut self, slot_now: Timestamp, come: &mut Come) {
        let Some(first) = self.next else { return };
        if after(first, self.jitter) > slot_now {
            return;
        }
        let slot = |at| Slot { due: after(at, self.jitter), trigger: self.name.clone(), at };
        let deadline = match self.cron.catch_up {
            CatchUp::Skip => ON_TIME.min(self.cron.starting_deadline.into()),
            CatchUp::Latest | CatchUp::All => self.cron.starting_deadline.into(),
        };
        let mut next = Some(first);
        // What is too late is one row, however long the agent was away.
        let horizon = before(slot_now, deadline + self.jitter);
        if first < horizon {
            let reason = if self.suspended { Reason::SUSPENDED } else { Reason::TOO_LATE };
            let last = before(horizon, Duration::from_nanos(1));
            next = self.schedule.next_after(last);
            let several = self.schedule.next_after(first) != next;
            let until = several.then_some(last);
            come.skipped.push(Passed { slot: slot(first), reason, until, count: None });
            come.newest = come.newest.max(Some(after(first, self.jitter)));
        }
        let mut newest = VecDeque::with_capacity(4);
        let mut cut: Option<(Timestamp, Timestamp, u32)> = None;
        while let Some(at) = next.filter(|at| after(*at, self.jitter) <= slot_now) {
            if newest.len() == MOST
                && let Some(oldest) = newest.pop_front()
            {
                cut = Some(cut.map_or((oldest, oldest, 1), |(first, _, count)| (first, oldest, count + 1)));
            }
            newest.push_back(at);
            next = self.schedule.next_after(at);
        }
        if let Some(last) = newest.back() {
            come.newest = come.newest.max(Some(after(*last, self.jitter)));
        }
        let (passed_over, beyond) = if self.suspended {
            (Reason::SUSPENDED, Reason::SUSPENDED)
        } else if self.wants_all() {
            (Reason::COALESCED, Reason::MISSED)
        } else {
            (Reason::COALESCED, Reason::COALESCED)
        };
        if let Some((first, last, count)) = cut {
            let (until, count) = (Some(last), Some(count));
            come.skipped.push(Passed { slot: slot(first), reason: beyond, until, count });
        }
        let starts = match (self.suspended, self.wants_all()) {
            (true, _) => 0,
            (false, true) => newest.len(),
            (false, false) => 1,
        };
        let passed = newest.len().saturating_sub(starts);
        come.skipped.extend(newest.drain(..passed).map(|at| Passed::one(slot(at), passed_over.clone())));
        come.start.extend(newest.into_iter().map(slot));
        self.next = next;
    }
}

#[cfg(test)]
mod tests;
