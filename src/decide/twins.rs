//! The same identity twice: a data folder or a machine was copied, and both speak under one certificate.
//!
//! Each Welcome and each answered renewal carries a token that the agent shows from then on. Who shows one that was
//! superseded goes on from an older state, so somebody else had the identity since. Who shows the right one while the
//! session before answers a ping is a second one, too. Nobody can tell which of both is the agent: none is let in, and
//! what it had is free once its lease has run out.

use std::{collections::VecDeque, time::Duration};

use xene_agent::decide::{mutant::Mutant, time::Now};
use xene_schemas::{
    event::EventType,
    meta::AgentName,
    phase::Transport,
    wire::control::{ControllerMessage, Hello, Ping, Refused},
};

use super::{
    Controller, Timer,
    event::{Effect, Effects, SessionId},
    note,
    rows::Change,
};

/// How long the agent of an older session may take to answer; after that it is gone, as a process that was killed is.
const PATIENCE: Duration = Duration::from_secs(2);
/// Tokens of Welcomes that may have come, while no renewal tells which.
const WELCOMES: usize = 16;
/// Tokens of answers that may be on their way.
const ANSWERS: usize = 64;

/// An agent that has said Hello.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) session: SessionId,
    pub(super) agent: AgentName,
    pub(super) fingerprint: String,
    pub(super) authority: String,
    pub(super) address: String,
    pub(super) transport: Transport,
    pub(super) hello: Hello,
}

/// The tokens of answered renewals that an agent may show: the one that it showed last, or one of those given since.
#[derive(Debug, Default)]
pub(super) struct Chain {
    shown: Option<u64>,
    given: VecDeque<u64>,
    /// True while a controller that was restarted has not heard which one its agent has.
    unknown: bool,
}

impl Chain {
    /// An agent that came shows this one: what was given since to whoever showed it before is worth nothing any more.
    /// One that shows none, as after a reboot, may find what it had when it comes the next time.
    pub(super) fn begin(shown: Option<u64>, before: Option<Self>) -> Self {
        let unknown = Self { unknown: shown.is_none(), ..Self::default() };
        let before = before.filter(|_| shown.is_none()).unwrap_or(unknown);
        let mut given = before.given;
        if let Some(token) = before.shown {
            given.push_front(token);
        }
        Self { shown, given, unknown: before.unknown }
    }

    fn takes(&self, token: Option<u64>) -> bool {
        self.unknown || token == self.shown || token.is_some_and(|token| self.given.contains(&token))
    }

    /// The agent shows this one; false if it can't have it.
    pub(super) fn show(&mut self, token: Option<u64>) -> bool {
        if let Some(at) = self.given.iter().position(|given| Some(*given) == token) {
            self.given.drain(..=at);
            (self.shown, self.unknown) = (token, false);
        }
        token == self.shown
    }

    /// The agent is given this one.
    pub(super) fn give(&mut self, token: u64) {
        if self.given.len() == ANSWERS {
            self.given.pop_front();
        }
        self.given.push_back(token);
    }
}

/// How many bits of a Welcome's token are random; those above rise.
const RANDOM: u32 = 20;

/// The token of the next Welcome.
pub(super) fn next_token(newest: u64, random: u64) -> u64 {
    ((newest >> RANDOM) + 1) << RANDOM | random & ((1 << RANDOM) - 1)
}

/// True if this one was given after all that the store knows of.
pub(super) fn is_newer(shown: u64, known: u64) -> bool {
    shown >> RANDOM > known >> RANDOM
}

/// Welcome gives one more: those that the agent may still have are kept, first of all the one that it surely had.
pub(super) fn welcome(tokens: &mut Vec<u64>, token: u64) {
    if tokens.len() == WELCOMES {
        tokens.remove(1);
    }
    tokens.push(token);
}

impl Controller {
    pub(super) fn draw_token(&mut self) -> u64 {
        self.drawn += 1;
        let hash = blake3::keyed_hash(&self.config.secret, &self.drawn.to_le_bytes());
        hash.as_bytes()[..8].iter().fold(0, |token, byte| token << 8 | u64::from(*byte))
    }

    /// Why whoever says this is another than the agent that was here last.
    fn is_other(&self, agent: &AgentName, hello: &Hello) -> Option<String> {
        let state = self.agents.get(agent)?;
        let row = state.row.as_ref()?;
        // Without its journal it begins anew, and has nothing that it could do twice.
        let shown = hello.tokens.filter(|_| !row.tokens.is_empty())?;
        let renewal = shown.renewal.filter(|_| state.chain.is_some());
        let superseded = !row.tokens.contains(&shown.session)
            || renewal.is_some_and(|token| !state.chain.as_ref().is_some_and(|chain| chain.takes(Some(token))));
        superseded.then(|| {
            "it came with a token that was superseded: another copy of its data folder, or of its machine, went on since"
                .to_owned()
        })
    }

    /// True if this Hello is not to be welcomed, at least not now: it is another's, or may be.
    pub(super) fn holds_off(&mut self, now: Now, opening: Opening, fx: &mut Effects) -> Option<Opening> {
        if self.mutants.is(Mutant::AnyToken) {
            return Some(opening);
        }
        let agent = opening.agent.clone();
        if let Some(why) = self.is_other(&agent, &opening.hello) {
            let why = format!("{why} (from {})", opening.address);
            self.refuse(opening.session, &agent, &why, fx);
            self.part(now, &agent, why, fx);
            return None;
        }
        let open = self.agents.get(&agent).and_then(|state| state.session.as_ref());
        // The same process dials anew: the session before is one whose end was not noticed yet.
        let Some(open) = open.filter(|open| open.instance != opening.hello.instance) else { return Some(opening) };
        let (session, message) = (open.id, ControllerMessage::Ping(Ping { number: opening.session.0 }));
        fx.now.push(Effect::Send { session, message });
        self.timers.arm(Timer::Knock(agent.clone()), now.boot + PATIENCE);
        if let Some(older) = self.knocking.insert(agent, opening) {
            let reason = "the agent opened a newer session".to_owned();
            fx.now.push(Effect::Close { session: older.session, reason });
        }
        None
    }

    /// The agent of the session before has not answered, or its session ended: the newer one is the agent.
    pub(super) fn let_in(&mut self, now: Now, agent: &AgentName, fx: &mut Effects) {
        self.timers.disarm(&Timer::Knock(agent.clone()));
        let Some(opening) = self.knocking.remove(agent) else { return };
        if let Some(old) = self.agents.get_mut(agent).and_then(|state| state.session.take()) {
            self.sessions.remove(&old.id);
            fx.now.push(Effect::Close { session: old.id, reason: "the agent opened a newer session".into() });
        }
        self.session_opened(now, opening, fx);
    }

    /// It is there, and so is another that says it is the same.
    pub(super) fn pong(&mut self, now: Now, agent: &AgentName, ping: Ping, fx: &mut Effects) {
        let Some(other) = self.knocking.get(agent).filter(|other| other.session.0 == ping.number) else { return };
        let address = self.agents.get(agent).and_then(|state| Some(state.session.as_ref()?.address.as_str()));
        let (first, second) = (address.unwrap_or_default(), other.address.as_str());
        let why = format!("two processes have its identity, one at {first} and one at {second}");
        self.part(now, agent, why, fx);
    }

    /// Refuses all who have this identity, from now on.
    pub(super) fn part(&mut self, now: Now, agent: &AgentName, why: String, fx: &mut Effects) {
        let Some(row) = self.agents.get_mut(agent).and_then(|state| state.row.as_mut()) else { return };
        row.twin = Some(why.clone());
        fx.commit.push(Change::PutAgent(Box::new(row.clone())));
        note(fx, now, EventType::Warning, "DuplicateIdentity", format!("agent/{agent}"), why.clone());
        fx.now.push(Effect::Alert(format!("{agent} is there twice and gets nothing any more: {why}")));
        self.timers.disarm(&Timer::Knock(agent.clone()));
        if let Some(other) = self.knocking.remove(agent) {
            self.refuse(other.session, agent, &why, fx);
        }
        if let Some(open) = self.agents.get_mut(agent).and_then(|state| state.session.take()) {
            self.sessions.remove(&open.id);
            self.refuse(open.id, agent, &why, fx);
            self.arm_agent(agent);
        }
    }

    fn refuse(&self, session: SessionId, agent: &AgentName, why: &str, fx: &mut Effects) {
        let message = twin_message(agent, why);
        // Its runs go on, and it may still start some until its lease ends: it is not to end by this.
        let refused = Refused { reason: "Duplicate".into(), message: message.clone(), retry: true };
        fx.now.push(Effect::Send { session, message: ControllerMessage::Refused(refused) });
        fx.now.push(Effect::Close { session, reason: message });
    }

    /// A session ended that was not welcomed yet.
    pub(super) fn knock_ended(&mut self, session: SessionId) {
        self.knocking.retain(|_, other| other.session != session);
    }
}

/// What is told of an agent that is there twice, and what to do.
pub(super) fn twin_message(agent: &AgentName, why: &str) -> String {
    format!(
        "{why}: neither is let in; stop both, `xene agents forget {agent}`, remove their data folders and enrol again"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_was_lost_is_no_loss_and_one_that_was_superseded_is() {
        let mut chain = Chain::begin(None, None);
        chain.give(1);
        assert!(chain.show(None), "the answer has not come");
        assert!(chain.show(Some(1)));
        chain.give(2);
        chain.give(3);
        assert!(chain.show(Some(3)), "the newer of two");
        assert!(!chain.show(Some(2)), "which it had before");
        assert!(!chain.show(Some(1)) && !chain.show(None) && !chain.show(Some(9)));
        assert!(chain.takes(Some(3)));
        chain.give(4);
        // It ended before it could write down 4.
        let mut chain = Chain::begin(Some(3), Some(chain));
        assert!(!chain.takes(Some(4)), "another that had 4 is another");
        chain.give(5);
        assert!(chain.show(Some(5)));
        chain.give(6);
        // After a reboot it shows none, and what it had once it is started again.
        let chain = Chain::begin(None, Some(chain));
        assert!(chain.takes(None) && chain.takes(Some(5)) && chain.takes(Some(6)) && !chain.takes(Some(4)));
    }

    #[test]
    fn welcomes_that_nobody_hears_leave_the_first_token_valid() {
        let mut tokens = vec![100];
        (0..40).for_each(|token| welcome(&mut tokens, token));
        assert_eq!((tokens.len(), tokens[0], tokens[WELCOMES - 1]), (WELCOMES, 100, 39));
    }
}
