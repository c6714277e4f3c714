//! Planned downtime: before a controller is paused, agents are told a longer L, so that they go on alone for that long.
//!
//! The price is that for as long nothing is taken from an agent that falls silent. It ends by itself, or on a person's
//! word; then L is what the pipelines say again, once each agent has shown that it goes by that.

use std::time::Duration;

use xene_agent::decide::time::{Now, after};
use xene_schemas::{
    controller::Pause,
    event::EventType,
    meta::{AgentName, PipelineKey},
    pipeline::Autonomy,
};

use super::{
    Controller, Timer,
    event::{Answer, Effects, Refusal},
    note,
    reconcile::Pipeline,
    rows::Change,
};

/// The longest guard before the end of a lease.
const GUARD: Duration = Duration::from_secs(10);

/// The L whose lease lets an agent start runs until `pause` is over, however early in it the last renewal was.
fn autonomy(pause: &Pause) -> xene_schemas::duration::Duration {
    let lasts = Duration::try_from(pause.until.duration_since(pause.since)).unwrap_or_default();
    xene_schemas::duration::Duration::from_secs(((lasts + GUARD) * 20 / 19).as_secs() + 1)
}

impl Controller {
    /// L of a pipeline now.
    pub(super) fn autonomy(&self, pipeline: &Pipeline) -> Autonomy {
        match (pipeline.autonomy, self.paused_autonomy()) {
            (Autonomy::For(own), Some(Autonomy::For(paused))) => Autonomy::For(own.max(paused)),
            (own, _) => own,
        }
    }

    /// The L that everything has at least, while there is a pause.
    pub(super) fn paused_autonomy(&self) -> Option<Autonomy> {
        self.row.pause.as_ref().map(|pause| Autonomy::For(autonomy(pause)))
    }

    pub(super) fn load_pause(&mut self, now: Now) {
        if let Some(pause) = &self.row.pause {
            let left = Duration::try_from(pause.until.duration_since(now.wall)).unwrap_or_default();
            self.timers.arm(Timer::PauseEnds, now.boot + left);
        }
    }

    pub(super) fn pause(&mut self, now: Now, lasts: Duration, by: String, fx: &mut Effects) -> Answer {
        let pause = Pause { by, since: now.wall, until: after(now.wall, lasts) };
        let message = format!("{} said so: until {:.0} agents go on alone", pause.by, pause.until);
        note(fx, now, EventType::Normal, "Paused", "controller".into(), message);
        self.row.pause = Some(pause);
        self.load_pause(now);
        self.tell_autonomy(now, fx);
        Answer::Done
    }

    pub(super) fn unpause(&mut self, now: Now, by: &str, fx: &mut Effects) -> Result<Answer, Refusal> {
        if self.row.pause.is_none() {
            return Err(Refusal::NotPaused);
        }
        self.end_pause(now, by, fx);
        Ok(Answer::Done)
    }

    /// Its time is over, or somebody said so.
    pub(super) fn end_pause(&mut self, now: Now, by: &str, fx: &mut Effects) {
        if self.row.pause.take().is_some() {
            self.timers.disarm(&Timer::PauseEnds);
            let message = format!("{by}: the autonomy of each pipeline counts again");
            note(fx, now, EventType::Normal, "PauseEnded", "controller".into(), message);
            self.tell_autonomy(now, fx);
        }
    }

    fn tell_autonomy(&mut self, now: Now, fx: &mut Effects) {
        fx.commit.push(Change::PutController(self.row.clone()));
        let differs = |(key, pipeline): (&PipelineKey, &Pipeline)| {
            let owned = self.owners.get(key)?;
            (owned.row.owner.is_some() && owned.row.autonomy != self.autonomy(pipeline)).then(|| key.clone())
        };
        let keys: Vec<PipelineKey> = self.pipelines.iter().filter_map(differs).collect();
        for key in keys {
            self.respec(now, &key, fx);
        }
    }

    /// The agents that have not shown to go by the L of all that they own.
    pub(super) fn unheard(&self) -> Vec<AgentName> {
        let goes_by = |key: &PipelineKey| {
            self.owners.get(key).is_none_or(|owned| owned.claimed && owned.told == Some(owned.row.autonomy))
        };
        let unheard = self.agents.iter().filter(|(_, agent)| !agent.owned.iter().all(goes_by));
        unheard.map(|(name, _)| name.clone()).collect()
    }

    /// The agent goes by all that it was told: a longer L from before is over, for what it lists.
    pub(super) fn heard_shorter(&mut self, agent: &AgentName, fx: &mut Effects) {
        let Some(state) = self.agents.get_mut(agent) else { return };
        for key in std::mem::take(&mut state.shortened) {
            let Some(owned) = self.owners.get_mut(&key).filter(|owned| owned.row.owner.as_ref() == Some(agent)) else {
                continue;
            };
            if owned.claimed && owned.told == Some(owned.row.autonomy) {
                owned.longer_until = None;
                if owned.row.longer.take().is_some() {
                    fx.commit.push(Change::PutOwner(key.clone(), owned.row.clone()));
                }
            } else {
                state.shortened.insert(key);
            }
        }
    }
}
