//! `exclusive`: runs that end before another agent may have their pipeline.
//!
//! Another may have it W after the last renewal that counts. Such a run is asked to end when the lease is over, and its
//! processes are killed half a guard later, by this machine or, if that is not there, by the shims above them: they know
//! the same time, and each answered renewal puts it off. A pipeline that is given back is given back when its runs have
//! ended.

use std::time::Duration;

use xene_schemas::{
    meta::{PipelineKey, RunName},
    pipeline::Autonomy,
};

use super::{
    Agent, Timer,
    event::{Effect, Effects},
    lease::{self, guard},
    mutant::Mutant,
    run::Input,
    runs::RunEntry,
    time::{BootTime, Now},
};

/// Until when a run may go on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bound {
    /// From here on it is asked to end.
    limit: BootTime,
    /// From here on none of its processes lives.
    end: BootTime,
    asked: bool,
}

impl Bound {
    fn new(limit: BootTime, autonomy: Autonomy) -> Self {
        Self { limit, end: limit + guard(autonomy) / 2, asked: false }
    }
}

impl Agent {
    /// A run is about to start: its processes are told how long they may live, before there is any.
    pub(super) fn bind(&mut self, now: Now, run: RunName, fx: &mut Effects) {
        if self.mutants.is(Mutant::RunsOutliveLease) {
            return;
        }
        let Some(bound) = self.bound_of(now, run) else { return };
        if let Some(entry) = self.runs.get_mut(&run).filter(|entry| entry.is_exclusive()) {
            entry.bound = Some(bound);
            self.tell_bound(run, fx);
        }
    }

    /// An earlier process of the agent had this run, whose processes were told to live until then.
    pub(super) fn rebind(&mut self, now: Now, run: RunName, end: Option<BootTime>) {
        let Some(entry) = self.runs.get_mut(&run).filter(|entry| entry.is_exclusive()) else { return };
        let autonomy = self.claims.get(&entry.key).map_or(Autonomy::DEFAULT, |claim| claim.row.autonomy);
        let end = end.unwrap_or(now.boot);
        let limit = end - guard(autonomy) / 2;
        entry.bound = Some(Bound { limit, end, asked: false });
        self.arm_bound(run, limit);
    }

    /// What has no end is not waited for.
    fn arm_bound(&mut self, run: RunName, limit: BootTime) {
        if limit < BootTime::from_nanos(u64::MAX / 2) {
            self.timers.arm(Timer::Bound(run), limit);
        }
    }

    /// What the lease gives a run now; `None` if its pipeline is not this agent's any more.
    fn bound_of(&self, now: Now, run: RunName) -> Option<Bound> {
        let entry = self.runs.get(&run)?;
        let claim = self.claims.get(&entry.key)?;
        let ours = claim.row.claimed && claim.row.epoch == entry.row.epoch;
        let limit = self.limit_of(now, claim).filter(|_| ours)?;
        Some(Bound::new(limit, claim.row.autonomy))
    }

    /// A renewal was answered: runs may go on for longer.
    pub(super) fn put_off(&mut self, now: Now, fx: &mut Effects) {
        let bound: Vec<RunName> =
            self.runs.iter().filter(|(_, run)| run.bound.is_some()).map(|(run, _)| *run).collect();
        for run in bound {
            let Some(new) = self.bound_of(now, run) else { continue };
            if let Some(old) = self.runs.get_mut(&run).and_then(|entry| entry.bound.as_mut())
                && new.limit > old.limit
            {
                *old = Bound { asked: old.asked, ..new };
                self.tell_bound(run, fx);
            }
        }
    }

    /// L of a pipeline became shorter. Its runs are bound by that before the renewal goes that says so: from when the
    /// controller hears it, it counts on it. As that goes after this, they have what it is going to give.
    pub(super) fn bring_forward(&mut self, now: Now, key: &PipelineKey, fx: &mut Effects) {
        let Some(autonomy) = self.claims.get(key).map(|claim| claim.row.autonomy) else { return };
        if self.mutants.is(Mutant::BoundsKeepLongerL) {
            return;
        }
        let new = Bound::new(lease::end(now.boot, autonomy), autonomy);
        let mut nearer = Vec::new();
        for (run, entry) in self.runs.iter_mut().filter(|(_, run)| run.key == *key) {
            if let Some(bound) = entry.bound.as_mut().filter(|bound| new.limit < bound.limit) {
                *bound = Bound { asked: bound.asked, ..new };
                nearer.push(*run);
            }
        }
        for run in nearer {
            self.tell_bound(run, fx);
        }
    }

    fn tell_bound(&mut self, run: RunName, fx: &mut Effects) {
        let Some(bound) = self.runs.get(&run).and_then(|entry| entry.bound) else { return };
        fx.now.push(Effect::BoundRun { run, until: bound.end });
        self.arm_bound(run, bound.limit);
    }

    /// What the lease was worth is not known any more: without an answer soon, such runs end; of one pipeline, or of all.
    pub(super) fn doubt_bounds(&mut self, now: Now, of: Option<&PipelineKey>, fx: &mut Effects) {
        let soon = if of.is_some() { Duration::ZERO } else { guard(Autonomy::Forever) / 2 };
        let ours = self.runs.iter_mut().filter(|(_, run)| of.is_none_or(|key| run.key == *key));
        for (run, bound) in ours.filter_map(|(run, entry)| Some((*run, entry.bound.as_mut()?))) {
            let limit = now.boot + soon;
            if limit < bound.limit {
                bound.end = bound.end.min(limit + guard(Autonomy::Forever) / 2);
                bound.limit = limit;
                // Also for the next process of the agent, and what it finds running.
                fx.now.push(Effect::BoundRun { run, until: bound.end });
                self.timers.arm(Timer::Bound(run), limit);
            }
        }
    }

    /// The time of a run is up, or nearly.
    pub(super) fn bound_due(&mut self, now: Now, run: RunName, fx: &mut Effects) {
        let Some(entry) = self.runs.get_mut(&run).filter(|entry| entry.is_running()) else { return };
        let Some(bound) = entry.bound.as_mut().filter(|bound| bound.limit <= now.boot) else { return };
        let (over, first) = (bound.end <= now.boot, !std::mem::replace(&mut bound.asked, true));
        if !over {
            let end = bound.end;
            self.timers.arm(Timer::Bound(run), end);
        }
        if first {
            self.drive(now, run, Input::LeaseEnds, fx);
        }
        if over {
            self.drive(now, run, Input::LeaseEnded, fx);
        }
    }

    /// True if a pipeline has to be kept until an exclusive run of it has ended, or the start of a due time that is in
    /// hand is finished: nobody else would start that one.
    pub(super) fn is_held(&self, key: &PipelineKey) -> bool {
        let holds = |run: &RunEntry| match run.is_intent() {
            true => run.slot.is_some() && self.is_claimed(key, run.row.epoch),
            false => run.is_running() && run.bound.is_some(),
        };
        self.runs.values().any(|run| run.key == *key && holds(run))
    }

    /// A run has ended, or started: perhaps its pipeline may be given back now.
    pub(super) fn release_if_due(&mut self, key: &PipelineKey, fx: &mut Effects) {
        if self.claims.get(key).is_some_and(|claim| claim.row.releasing) && !self.is_held(key) {
            self.release(key, fx);
        }
    }
}
