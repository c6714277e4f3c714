//! The certificate authority is replaced: while two are trusted, who has not shown a certificate of the new one.

use std::time::Duration;

use xene_agent::decide::time::{Now, after};
use xene_schemas::{controller::CaRotation, event::EventType, meta::AgentName};

use super::{
    Controller, Timer,
    event::{Authority, Effect, Effects},
    note,
};

/// How long both are trusted at most. A certificate lives for half of that, so whoever is away for longer has none to show.
const OVERLAP: Duration = Duration::from_secs(48 * 60 * 60);
/// How soon an end that could not be written down is tried again.
const AGAIN: Duration = Duration::from_secs(60);

impl Controller {
    /// The certificate authority.
    pub fn authority(&self) -> &Authority {
        &self.config.authority
    }

    /// The rotation that is under way, as the API shows it.
    pub(super) fn rotation(&self) -> Option<CaRotation> {
        let (previous, since) = self.config.authority.before.clone()?;
        let fingerprint = self.config.authority.fingerprint.clone();
        Some(CaRotation { fingerprint, previous, since, until: after(since, OVERLAP), waiting: self.not_come() })
    }

    /// The agents that may still come back by a certificate of the old authority alone.
    fn not_come(&self) -> Vec<AgentName> {
        let newest = &self.config.authority.fingerprint;
        let expected = self
            .agents
            .iter()
            .filter(|(_, agent)| agent.row.as_ref().is_some_and(|row| !row.revoked && row.authority != *newest));
        expected.map(|(name, _)| name.clone()).collect()
    }

    pub(super) fn load_rotation(&mut self, now: Now, fx: &mut Effects) {
        let Some((_, since)) = &self.config.authority.before else { return };
        let left = Duration::try_from(after(*since, OVERLAP).duration_since(now.wall)).unwrap_or_default();
        self.timers.arm(Timer::RotationEnds, now.boot + left);
        self.end_rotation_if_all_came(fx);
    }

    pub(super) fn authority_changed(&mut self, now: Now, authority: Authority, by: &str, fx: &mut Effects) {
        if self.config.authority == authority {
            return;
        }
        let begins = authority.before.is_some();
        self.config.authority = authority;
        let waiting = self.not_come();
        let (kind, reason, message) = match (begins, waiting.len()) {
            (true, _) => (
                EventType::Normal,
                "CaRotated",
                format!("{by} said so: a new authority signs, and the old one is trusted, too"),
            ),
            (false, 0) => (EventType::Normal, "CaRotationEnded", format!("{by}: the old authority is trusted no more")),
            (false, left) => {
                let agents = if left == 1 { "1 agent".to_owned() } else { format!("{left} agents") };
                let message = format!("{by}: the old authority is trusted no more, and {agents} must join anew");
                (EventType::Warning, "CaRotationEnded", message)
            }
        };
        note(fx, now, kind, reason, "controller".into(), message);
        fx.then.extend(self.sessions.keys().map(|session| Effect::SendRoots(*session)));
        if begins {
            self.load_rotation(now, fx);
        } else {
            self.timers.disarm(&Timer::RotationEnds);
            // What they showed would not be taken any more.
            for agent in waiting {
                self.close(&agent, "its certificate is of an authority that was replaced", fx);
            }
        }
    }

    pub(super) fn end_rotation_if_all_came(&self, fx: &mut Effects) {
        if self.not_come().is_empty() {
            self.finish_rotation("all agents have come by the new one", fx);
        }
    }

    pub(super) fn end_rotation(&mut self, now: Now, fx: &mut Effects) {
        // It is tried until it is done: the disk may be full.
        self.timers.arm(Timer::RotationEnds, now.boot + AGAIN);
        self.finish_rotation("its time is over", fx);
    }

    fn finish_rotation(&self, why: &'static str, fx: &mut Effects) {
        if self.config.authority.before.is_some() {
            let newest = self.config.authority.fingerprint.clone();
            fx.then.push(Effect::FinishRotation { newest, why });
        }
    }
}
