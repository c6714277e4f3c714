//! Laws that are not of ownership alone: due times that are skipped (I8), what runs are made from (I9), who is answered
//! (I11), and what a store that is begun anew says (I15).

use std::time::Duration;

use xene::decide::{
    Controller,
    event::Event,
    rows::{Change, NotifierRow, PipelineRow, WorkflowRow},
};
use xene_agent::decide::{
    event::{Effects, JournalChange},
    time::after,
};
use xene_schemas::{
    meta::{Generation, Revision, RunName},
    phase::Reason,
    pipeline::Autonomy,
    wire::control::{ControllerMessage, SkippedSlot},
};

use super::{
    clock::SECOND,
    history::{tail, time_of_day},
    invariants::Violation,
    store::Store,
    world::World,
};

/// A slot clock that is off by more was moved.
const MOVED: Duration = Duration::from_secs(1);
/// How long an agent that was revoked may still be answered.
const ANSWERED: u64 = 5 * SECOND;

impl World {
    /// I8: a due time is not skipped for want of a lease, or as too late, on an agent that could have started it since
    /// before it was due. Whoever stands still, can't write its journal, has no spec yet, finds its slot clock moved
    /// or the pipeline suspended could not.
    pub(super) fn keeps_due_times(&mut self, agent: usize, fx: &Effects) -> Result<(), Violation> {
        self.note_able(agent);
        let node = &self.agents[agent];
        let wrong = |row: &&SkippedSlot| {
            let for_no_reason = [Reason::TOO_LATE, Reason::LEASE_EXPIRED, Reason::MISSED].contains(&row.reason);
            for_no_reason && node.able.get(&row.pipeline).is_some_and(|since| *since < row.slot)
        };
        let skipped = fx.commit.iter().filter_map(|change| match change {
            JournalChange::PutSkipped(_, row) => Some(row),
            _ => None,
        });
        match skipped.into_iter().find(wrong) {
            Some(row) if node.slow_disk == 0 => {
                let (name, due) = (&node.name, time_of_day(row.slot));
                let what = format!("{name} skips {} at {due}: {}", row.pipeline, row.reason);
                Violation::of("I8 no skip while the lease is live", what)
            }
            _ => Ok(()),
        }
    }

    /// Since when, by the slot clock, an agent can start what without a break.
    pub(super) fn note_able(&mut self, agent: usize) {
        let node = &mut self.agents[agent];
        let now = node.clock.now(self.at);
        let slot_now = node.machine.as_ref().and_then(|machine| machine.slot_now(now));
        let (Some(machine), Some(slot_now)) = (&node.machine, slot_now) else {
            node.able.clear();
            node.slot_clock = None;
            return;
        };
        let expected = node.slot_clock.map(|(boot, then)| after(then, now.boot.since(boot)));
        if expected.is_none_or(|expected| slot_now.duration_since(expected).unsigned_abs() > MOVED) {
            node.able.clear();
        }
        node.slot_clock = Some((now.boot, slot_now));
        for (key, row) in machine.claims() {
            let has_spec = node.journal.specs.contains_key(&row.spec_hash);
            if row.claimed && has_spec && !row.suspended && machine.may_fire(now, key) {
                node.able.entry(key.clone()).or_insert(slot_now);
            } else {
                node.able.remove(key);
            }
        }
    }

    /// I9: what a due time starts was in effect when it started, or no longer before than an agent may go on alone, and
    /// what it is told may be on its way.
    pub(super) fn was_in_effect(&self, agent: usize, run: &RunName) -> Result<(), Violation> {
        let node = &self.agents[agent];
        let Some(row) = node.journal.runs.get(run).filter(|row| !row.from_controller && !self.lossy) else {
            return Ok(());
        };
        let (key, hash) = (row.spec.key(), row.spec.spec_hash);
        let claim = node.machine.as_ref().and_then(|machine| machine.claims().find(|(of, _)| **of == key));
        let Some(Autonomy::For(l)) = claim.map(|(_, row)| row.autonomy) else { return Ok(()) };
        if self.controller.store.pipelines.get(&key).is_some_and(|row| row.spec_hash == hash) {
            return Ok(());
        }
        let until = self.witness.replaced.get(&(key.clone(), hash)).copied().unwrap_or_default();
        let late = if self.setup.slow > 0 { self.setup.long_delay } else { 0 };
        let on_its_way = 4 * (self.setup.delay + late) + (self.setup.pause_margin + 10) * SECOND;
        // By a clock that is slow.
        let alone = l.as_millis() * 1_000_000 * 100 / 95;
        let began = self.witness.began.get(run).copied().unwrap_or(self.at);
        if began <= until + alone + on_its_way {
            return Ok(());
        }
        let what = format!("{} of {key} starts from what was replaced at {until}", tail(run));
        Violation::of("I9 what starts is in effect", what)
    }

    /// I9, the other half: what a change of the store replaces.
    pub(super) fn note_replaced(&mut self, change: &Change) {
        let (key, new) = match change {
            Change::PutPipeline(row) => (&row.key, Some(row.spec_hash)),
            Change::DeletePipeline(key) => (key, None),
            _ => return,
        };
        let old = self.controller.store.pipelines.get(key).map(|row| row.spec_hash);
        if let Some(old) = old.filter(|old| Some(*old) != new) {
            self.witness.replaced.insert((key.clone(), old), self.at);
        }
    }

    /// I11: who was revoked hears nothing any more after five seconds, but that.
    pub(super) fn may_answer(&self, agent: usize, message: &ControllerMessage) -> Result<(), Violation> {
        let node = &self.agents[agent];
        let over = node.revoked_at.is_some_and(|at| at + ANSWERED < self.at);
        if !over || matches!(message, ControllerMessage::Refused(_)) {
            return Ok(());
        }
        let what = format!("{} is told {}", node.name, super::history::controller_says(message));
        Violation::of("I11 who is revoked gets no answer", what)
    }

    /// A person revokes an agent that is up and goes on. What it has without end would be nobody's for ever.
    pub(super) fn revoke(&mut self, agent: usize) -> Result<(), Violation> {
        let left = self.agents.iter().filter(|node| !node.forgotten).count();
        let node = &self.agents[agent];
        let listens = self.controller.machine.is_some() && self.controller.paused <= self.at;
        let endless = self.controller.store.owners.values().any(|row| row.autonomy == Autonomy::Forever);
        if left < 3 || node.forgotten || !listens || endless {
            return Ok(());
        }
        let name = node.name.clone();
        self.history.mark(self.at, &name, || "is revoked".into());
        self.agents[agent].forgotten = true;
        self.ask(xene::decide::event::Command::Revoke(name))
    }

    /// I15: a store that is begun anew from what the source says has the same desired state.
    pub(super) fn check_rebuilt(&mut self) -> Result<(), Violation> {
        let law = "I15 desired state comes from the source alone";
        let (config, now) = (self.config(), self.controller.clock.now(self.at));
        let mut anew = Store::default();
        let (mut machine, fx) = Controller::new(now, config, anew.load());
        fx.commit.into_iter().try_for_each(|change| anew.apply(change))?;
        let fx = machine.handle(now, Event::Compiled(Box::new(self.source.desired())));
        fx.commit.into_iter().try_for_each(|change| anew.apply(change))?;
        let kept = &self.controller.store;
        let (anew_rows, kept_rows) = (anew.desired_rows(), kept.desired_rows());
        if anew_rows == kept_rows {
            return Ok(());
        }
        let what = kept_rows.iter().zip(&anew_rows).find(|(kept, anew)| kept != anew);
        let what =
            what.map_or_else(|| "of another number of objects".to_owned(), |(kept, anew)| format!("{kept} and {anew}"));
        Violation::of(law, what)
    }
}

impl Store {
    /// All that a source asks for, but for what a store remembers of when it asked first.
    fn desired_rows(&self) -> Vec<String> {
        let never = || (Revision(String::new()), Generation(0));
        let workflows = self.workflows.values().map(|row| {
            let (revision, generation) = never();
            format!("{:?}", WorkflowRow { revision, generation, ..row.clone() })
        });
        let pipelines = self.pipelines.values().map(|row| {
            let spec = self.specs.get(&row.spec_hash);
            format!("{:?} {spec:?}", PipelineRow { revision: never().0, ..row.clone() })
        });
        let notifiers = self.notifiers.values().map(|row| {
            let (revision, generation) = never();
            format!("{:?}", NotifierRow { revision, generation, ..row.clone() })
        });
        workflows.chain(pipelines).chain(notifiers).collect()
    }
}
