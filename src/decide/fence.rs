//! Rule 11, a person's word: an agent's machine is off, so what it has goes to others at once.
//!
//! Nobody can tell from afar. Whoever says so answers for it: an agent that runs on starts due times twice until its
//! lease ends or it hears of its successor. It is refused under its old epoch when it comes back.

use std::time::Duration;

use xene_agent::decide::time::Now;
use xene_schemas::{event::EventType, meta::AgentName};

use super::{
    Controller,
    agents::AgentState,
    event::{Answer, Effects, Refusal},
    note,
};

/// No slot clock is thought to be further ahead.
const AHEAD: Duration = Duration::from_secs(60);

impl AgentState {
    /// By how much the slot clock of an agent that is off may have been ahead of this one: both run 5 % wrong at most.
    pub(super) fn slot_clock_ahead(&self, now: Now) -> Duration {
        (now.boot.since(self.renewed_at.unwrap_or_default()) / 10).min(AHEAD)
    }
}

impl Controller {
    pub(super) fn fence(&mut self, now: Now, agent: &AgentName, by: &str, fx: &mut Effects) -> Result<Answer, Refusal> {
        // One that was forgotten may still be waited for.
        let known = self.agents.get_mut(agent).filter(|state| state.row.is_some() || !state.owned.is_empty());
        let state = known.ok_or_else(|| Refusal::NotFound { kind: "agent", name: agent.to_string() })?;
        if state.session.is_some() {
            return Err(Refusal::Connected(agent.clone()));
        }
        state.fenced = true;
        let (owned, runs) = (state.owned.clone(), state.runs.clone());
        let count = owned.len();
        let message = format!("{by} says that its machine is off: what it has ({count}) goes to others at once");
        note(fx, now, EventType::Warning, "Fenced", format!("agent/{agent}"), message);
        for run in runs {
            self.lose_for_good(now, run, format!("the machine of its agent is off, as {by} says"), fx);
        }
        self.count_found(now, agent, fx);
        for key in owned {
            self.place(now, &key, fx);
        }
        if let Some(state) = self.agents.get_mut(agent) {
            state.fenced = false;
        }
        Ok(Answer::Done)
    }
}
