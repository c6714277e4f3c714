//! Suspension by command: a row of its own beside desired state, with who, when, why and until when.
//!
//! It reaches agents within the assignments, so that it holds while the controller is away, and ends by itself.

use std::time::Duration;

use jiff::Timestamp;
use xene_agent::decide::time::Now;
use xene_schemas::{event::EventType, meta::PipelineKey, suspension::Suspension};

use super::{
    Controller, Timer,
    event::{Answer, Effects, Refusal},
    note,
    rows::{Change, Suspendable, SuspensionRow},
};

impl Controller {
    pub(super) fn load_suspension(&mut self, now: Now, row: SuspensionRow) {
        self.arm_suspension(now, &row.what, row.suspension.until);
        self.suspensions.insert(row.what, row.suspension);
    }

    fn arm_suspension(&mut self, now: Now, what: &Suspendable, until: Option<Timestamp>) {
        match until {
            Some(until) => {
                let left = Duration::try_from(until.duration_since(now.wall)).unwrap_or_default();
                self.timers.arm(Timer::Suspension(what.clone()), now.boot + left);
            }
            None => self.timers.disarm(&Timer::Suspension(what.clone())),
        }
    }

    /// Who suspended this pipeline by command, itself or with its workflow.
    pub(super) fn suspension(&self, key: &PipelineKey) -> Option<&Suspension> {
        if self.suspensions.is_empty() {
            return None;
        }
        let own = self.suspensions.get(&Suspendable::Pipeline(key.clone()));
        own.or_else(|| self.suspensions.get(&Suspendable::Workflow(key.workflow.clone())))
    }

    /// Who suspended the source.
    pub(super) fn source_suspension(&self) -> Option<&Suspension> {
        self.suspensions.get(&Suspendable::Source)
    }

    pub(super) fn suspend(
        &mut self,
        now: Now,
        what: Suspendable,
        suspension: Suspension,
        fx: &mut Effects,
    ) -> Result<Answer, Refusal> {
        self.check_suspendable(&what)?;
        note(fx, now, EventType::Normal, "Suspended", what.to_string(), suspension.to_string());
        self.arm_suspension(now, &what, suspension.until);
        let row = SuspensionRow { what: what.clone(), suspension: suspension.clone() };
        fx.commit.push(Change::PutSuspension(row));
        self.suspensions.insert(what.clone(), suspension);
        self.tell_suspended(now, &what, fx);
        Ok(Answer::Done)
    }

    pub(super) fn resume(
        &mut self,
        now: Now,
        what: Suspendable,
        by: &str,
        fx: &mut Effects,
    ) -> Result<Answer, Refusal> {
        self.check_suspendable(&what)?;
        if !self.suspensions.contains_key(&what) {
            return Err(Refusal::NotSuspended(what.to_string()));
        }
        let until = self.slot_now(fx);
        self.unsuspend(now, &what, until, format!("by {by}"), fx);
        Ok(Answer::Done)
    }

    /// Its time is over.
    pub(super) fn suspension_ended(&mut self, now: Now, what: &Suspendable, fx: &mut Effects) {
        let Some(suspension) = self.suspensions.get(what) else { return };
        let (message, until) = (format!("by itself; it was {suspension}"), suspension.until);
        // What has come since is as any other.
        let until = self.slot_now(fx).min(until.unwrap_or(Timestamp::MAX));
        self.unsuspend(now, what, until, message, fx);
    }

    fn unsuspend(&mut self, now: Now, what: &Suspendable, until: Timestamp, message: String, fx: &mut Effects) {
        note(fx, now, EventType::Normal, "Resumed", what.to_string(), message);
        for key in self.pipelines_of(what) {
            self.pass_over(until, &key, fx);
        }
        self.drop_suspension(what, fx);
        self.tell_suspended(now, what, fx);
        // Whatever was found meanwhile: one pass, to the newest.
        if *what == Suspendable::Source
            && let Some(desired) = self.pending.take()
        {
            self.compiled(now, *desired, fx);
        }
    }

    /// It is not suspended any more, or is gone itself.
    pub(super) fn drop_suspension(&mut self, what: &Suspendable, fx: &mut Effects) {
        if self.suspensions.remove(what).is_some() {
            self.timers.disarm(&Timer::Suspension(what.clone()));
            fx.commit.push(Change::DeleteSuspension(what.clone()));
        }
    }

    fn check_suspendable(&self, what: &Suspendable) -> Result<(), Refusal> {
        let (known, kind, name) = match what {
            Suspendable::Source => return Ok(()),
            Suspendable::Workflow(name) => (self.workflows.contains_key(name), "workflow", name.to_string()),
            Suspendable::Pipeline(key) => (self.pipelines.contains_key(key), "pipeline", key.to_string()),
        };
        if known { Ok(()) } else { Err(Refusal::NotFound { kind, name }) }
    }

    /// Tells whoever fires the triggers, and the source's conditions.
    fn tell_suspended(&mut self, now: Now, what: &Suspendable, fx: &mut Effects) {
        if *what == Suspendable::Source {
            self.put_source(now, fx);
        }
        for key in self.pipelines_of(what) {
            if let Some(owner) = self.owners.get(&key).and_then(|owned| owned.row.owner.clone()) {
                self.changed.insert((owner, key));
            }
        }
    }

    /// Whose triggers are suspended with it.
    fn pipelines_of(&self, what: &Suspendable) -> Vec<PipelineKey> {
        match what {
            Suspendable::Source => Vec::new(),
            Suspendable::Pipeline(key) => vec![key.clone()],
            Suspendable::Workflow(name) => {
                let observed = self.observed.workflows.get(name);
                let names = observed.into_iter().flat_map(|observed| observed.pipelines.keys());
                names.map(|pipeline| PipelineKey { workflow: name.clone(), pipeline: pipeline.clone() }).collect()
            }
        }
    }
}
