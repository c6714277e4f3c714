//! Sessions: Hello and Welcome, renewals, sets and deltas, and what agents say besides.

use std::time::Duration;

use xene_agent::decide::{mutant::Mutant, time::Now};
use xene_schemas::{
    meta::{AgentName, PipelineKey, RunName, SpecHash},
    phase::{Reason, RunPhase},
    wire::{
        VERSION,
        control::{
            AgentMessage, Assignments, CancelRun, ControllerMessage, FilesWanted, Hello, Renew, Renewed, StoreSeen,
            Welcome,
        },
    },
};

use super::{
    Controller,
    agents::{AgentState, SKEW_LIMIT, SessionState},
    event::{Effect, Effects, SessionId},
    ownership::Owned,
    rows::{AgentRow, Change},
    twins::{self, Chain, Opening},
};

/// Answers that an agent does not show to have got for this long are lost on the way: its renewals stop counting.
const ANSWERS_LOST: Duration = Duration::from_secs(30);
/// What every agent carries, whatever its join token says.
const MACHINE_LABELS: [&str; 3] = ["os", "arch", "hostname"];
/// How far an agent's clock may be off before the operator hears of it.
const SKEW: Duration = Duration::from_secs(5);
/// A renewal may have been on its way for as long as a session outlives a cut, and then it tells of a clock that is
/// late where none is. For so long every one has to say so.
const LATE_FOR: Duration = Duration::from_secs(30);
/// The shortest span over which reconnects are spread.
const RECONNECT: Duration = Duration::from_secs(5);
/// Reconnects that a controller takes in a second without haste.
const RECONNECTS_PER_SECOND: usize = 500;

impl Controller {
    pub(super) fn session_opened(&mut self, now: Now, opening: Opening, fx: &mut Effects) {
        if let Some(refused) = self.refusal(now, &opening, fx) {
            let (session, reason) = (opening.session, refused.message.clone());
            fx.now.push(Effect::Send { session, message: ControllerMessage::Refused(refused) });
            fx.now.push(Effect::Close { session, reason });
            return;
        }
        if let Some(opening) = self.holds_off(now, opening, fx) {
            self.welcome(now, opening, fx);
        }
    }

    /// True if an agent need not wait for the disk, which has no room, to be welcomed: this process has welcomed it
    /// before, what it says it has seen of the store is all that it would be told, and what it owns is as it knows. Only its
    /// token stays the same, since a new one would have to be durable first.
    fn is_known(&self, agent: &AgentName, hello: &Hello) -> bool {
        let row = &self.row;
        let is_ours = |seen: &StoreSeen| {
            (&seen.store_id, seen.generation, seen.incarnation) == (&row.store_id, row.generation, row.incarnation)
        };
        let has_token = |row: &AgentRow| hello.tokens.is_some_and(|shown| row.tokens.contains(&shown.session));
        let is_greeted =
            |state: &&AgentState| state.greeted && state.current && state.row.as_ref().is_some_and(has_token);
        let is_calm = self.recovering.is_none() && hello.store.as_ref().is_some_and(is_ours);
        self.full && is_calm && self.agents.get(agent).filter(is_greeted).is_some()
    }

    fn welcome(&mut self, now: Now, opening: Opening, fx: &mut Effects) {
        let Opening { session, agent, fingerprint, authority, address, transport, hello } = opening;
        let random = self.draw_token();
        let at_once = self.is_known(&agent, &hello);
        self.learn_longest(&hello, fx);
        let Some(row) = self.agents.get_mut(&agent).and_then(|state| state.row.as_mut()) else { return };
        let before = row.clone();
        if row.labels_fixed {
            // What the machine is, it says itself the first time; a token may fix that too.
            for (label, value) in hello.labels.iter().filter(|(label, _)| MACHINE_LABELS.contains(&label.as_str())) {
                row.labels.entry(label.clone()).or_insert_with(|| value.clone());
            }
        } else {
            row.labels = hello.labels;
        }
        (row.slots, row.version, row.last_seen) = (hello.slots.max(1), hello.software, Some(now.wall));
        row.authority = authority;
        // It has its certificate, and needs no other for its token.
        row.joined_by = None;
        let shown = hello.tokens.map_or(0, |shown| shown.session);
        let token = (!at_once).then(|| twins::next_token(row.newest_token.max(shown), random));
        row.newest_token = token.unwrap_or(row.newest_token);
        let new_journal = hello.store.as_ref().is_none_or(|seen| seen.store_id != self.row.store_id);
        // One with a journal and no token is of a version that keeps none: until it shows that it does, whoever comes is
        // let in.
        let pending = token.filter(|_| hello.tokens.is_none() && !new_journal);
        if hello.tokens.is_none() {
            row.tokens.clear();
        }
        match token {
            Some(token) if pending.is_none() => twins::welcome(&mut row.tokens, token),
            Some(_) => {}
            // Those given since were never heard.
            None => row.tokens.retain(|token| *token == shown),
        }
        // Also what Welcome follows: the incarnation was committed before. Where commits wait, one for the time alone would
        // be one more that does.
        if !at_once || *row != (AgentRow { last_seen: row.last_seen, ..before }) {
            fx.commit.push(Change::PutAgent(Box::new(row.clone())));
        }
        let labels = row.labels.clone();
        let store = StoreSeen {
            store_id: self.row.store_id.clone(),
            generation: self.row.generation,
            incarnation: self.row.incarnation,
            longest: self.longest_known(),
        };
        let state = self.agents.entry(agent.clone()).or_insert_with(|| AgentState::new(None));
        let opened = SessionState {
            id: session,
            fingerprint,
            address,
            transport,
            set_version: 0,
            claims_version: 0,
            stale: std::collections::BTreeSet::new(),
            answered: (0, now.boot),
            instance: hello.instance,
            seq: 0,
            longest: store.longest,
            pending,
        };
        // The newest session is the agent; an older one is a connection whose end was not noticed yet.
        if let Some(old) = state.session.replace(opened) {
            self.sessions.remove(&old.id);
            fx.now.push(Effect::Close { session: old.id, reason: "the agent opened a newer session".into() });
        }
        (state.leaving, state.greeted) = (false, true);
        let before = state.chain.take().filter(|_| pending.is_none());
        state.chain = Some(Chain::begin(hello.tokens.and_then(|tokens| tokens.renewal), before));
        state.late_since = None;
        state.note_skew(hello.wall, now, &agent, fx);
        let runs = state.runs.clone();
        self.sessions.insert(session, agent.clone());
        self.fresh.insert(agent.clone());
        if new_journal {
            self.void_claims(&agent, fx);
            for run in &runs {
                self.lose_run(now, *run, fx);
            }
        }
        if hello.store.is_some_and(|seen| seen.generation < self.row.generation) {
            self.learn_past(now, &hello.claims, fx);
        }
        self.agent_heard(now, &agent, fx);
        self.adopt(now, &agent, hello.claims, fx);
        let owned = self.agents.get(&agent).map(|state| state.owned.clone()).unwrap_or_default();
        self.slot_now(fx);
        let span = RECONNECT.max(Duration::from_millis((self.agents.len() * 1000 / RECONNECTS_PER_SECOND) as u64));
        let welcome = Welcome {
            version: VERSION.min(hello.version),
            software: self.config.software.clone(),
            store,
            nonce: self.config.nonce,
            pause_margin_ms: u64::try_from(self.config.pause_margin.as_millis()).unwrap_or(u64::MAX),
            reconnect_span_ms: u64::try_from(span.as_millis()).unwrap_or(u64::MAX),
            name: agent.clone(),
            token,
        };
        let says = if at_once { &mut fx.now } else { &mut fx.then };
        says.push(Effect::Send { session, message: ControllerMessage::Welcome(welcome) });
        says.push(Effect::SendRoots(session));
        self.end_rotation_if_all_came(fx);
        for key in owned {
            if !self.fits(&key, &labels) {
                self.revoke(&key, format!("{agent} has not the labels any more, and gives it back"), fx);
            }
            self.address_runs(&key, fx);
        }
        self.to_start.extend(runs.into_iter().map(|run| (agent.clone(), run)));
        self.close_breaker_if_few(now, fx);
        self.place_waiting(now, fx);
    }

    pub(super) fn session_closed(&mut self, now: Now, session: SessionId, fx: &mut Effects) {
        let Some(agent) = self.sessions.remove(&session) else {
            self.knock_ended(session);
            return;
        };
        let Some(state) = self.agents.get_mut(&agent) else { return };
        if state.session.as_ref().is_some_and(|open| open.id == session) {
            state.session = None;
            if let Some(row) = &mut state.row {
                row.last_seen = Some(now.wall);
                fx.commit.push(Change::PutAgent(Box::new(row.clone())));
            }
            self.arm_agent(&agent);
            self.let_in(now, &agent, fx);
        }
    }

    pub(super) fn message(&mut self, now: Now, session: SessionId, message: AgentMessage, fx: &mut Effects) {
        // Rule 9: the session says who speaks, nothing else does.
        let Some(agent) = self.sessions.get(&session).cloned() else { return };
        match message {
            AgentMessage::Hello(_) => {
                fx.now.push(Effect::Close { session, reason: "a session says Hello once".into() });
            }
            AgentMessage::Renew(renew) => self.renew(now, session, &agent, renew, fx),
            AgentMessage::Released(released) => self.released(now, &agent, released, fx),
            AgentMessage::Report(report) => self.report(now, session, &agent, report, fx),
            AgentMessage::SpecsWanted(wanted) => self.send_specs(session, &agent, wanted.hashes, fx),
            AgentMessage::FilesWanted(wanted) => self.send_files(session, &agent, wanted, fx),
            AgentMessage::SetWanted(_) => {
                self.fresh.insert(agent);
            }
            AgentMessage::CertificateWanted(wanted) => {
                fx.now.push(Effect::SignCertificate { session, agent, csr: wanted.csr });
            }
            AgentMessage::Skipped(skipped) => self.skipped(now, session, &agent, skipped, fx),
            AgentMessage::Pong(ping) => self.pong(now, &agent, ping, fx),
        }
    }

    /// Rule 4. A renewal that is not counted is not answered as renewed: `claims_version` tells the agent so.
    fn renew(&mut self, now: Now, id: SessionId, agent: &AgentName, renew: Renew, fx: &mut Effects) {
        if renew.nonce != self.config.nonce {
            return;
        }
        let Some(state) = self.agents.get_mut(agent) else { return };
        let renewed_before = state.renewed_at;
        (state.busy, state.disk_full) = (renew.busy, renew.disk_full);
        let was_wrong = state.skew > SKEW_LIMIT;
        if !state.may_be_delayed(renew.wall, now) {
            state.note_skew(renew.wall, now, agent, fx);
        }
        let mended = was_wrong && state.skew <= SKEW_LIMIT;
        let Some(session) = state.session.as_mut().filter(|session| session.id == id) else { return };
        let first = session.seq == 0;
        if renew.seq > session.seq {
            session.seq = renew.seq;
            let chain = state.chain.get_or_insert_default();
            if !chain.show(renew.token) && !self.mutants.is(Mutant::AnyToken) {
                let why = "it renews with a token that was not its last".to_owned();
                self.part(now, agent, why, fx);
                return;
            }
        }
        // It renews only once the token of its Welcome is durable: those before are worth nothing from here on.
        if let Some(row) = state.row.as_mut()
            && let Some(token) = session.pending.take_if(|_| renew.token.is_some())
        {
            row.tokens = vec![token];
            fx.commit.push(Change::PutAgent(Box::new(row.clone())));
        }
        if let Some(row) = state.row.as_mut().filter(|row| first && row.tokens.len() > 1) {
            row.tokens.drain(..row.tokens.len() - 1);
            fx.commit.push(Change::PutAgent(Box::new(row.clone())));
        }
        let goes_by_all = session.set_version > 0 && renew.assignments == session.set_version;
        if let Some(claims) = renew.claims.filter(|_| renew.claims_version >= session.claims_version) {
            session.claims_version = renew.claims_version;
            session.stale.clear();
            for key in &state.owned {
                if let Some(owned) = self.owners.get_mut(key).filter(|owned| owned.claimed) {
                    owned.base = owned.base.max(renewed_before.unwrap_or_default());
                    owned.claimed = false;
                }
            }
            for claim in claims {
                let ours =
                    |owned: &&mut Owned| owned.row.owner.as_ref() == Some(agent) && owned.row.epoch == claim.epoch;
                match self.owners.get_mut(&claim.pipeline).filter(ours) {
                    Some(owned) => (owned.claimed, owned.told) = (true, claim.autonomy),
                    None => _ = session.stale.insert((claim.pipeline, claim.epoch)),
                }
            }
        }
        if renew.answered != session.answered.0 {
            session.answered = (renew.answered, now.boot);
        }
        let lost = now.boot.since(session.answered.1) > ANSWERS_LOST;
        let counts = !lost && session.claims_version == renew.claims_version;
        let claims_version = if lost { 0 } else { session.claims_version };
        let nacks = session.stale.iter().cloned().collect();
        state.current |= goes_by_all;
        if counts {
            state.renewed_at = Some(now.boot);
            self.heard_again(agent, fx);
            self.count_found(now, agent, fx);
            self.agent_heard(now, agent, fx);
            if goes_by_all {
                self.heard_shorter(agent, fx);
            }
        }
        let wall = self.slot_now(fx);
        let token = self.draw_token();
        let mut longest = self.longest_known();
        if let Some(state) = self.agents.get_mut(agent) {
            state.chain.get_or_insert_default().give(token);
            // Said once in a session: an answer that is lost takes the session with it.
            longest = longest.filter(|_| state.session.as_ref().is_some_and(|session| longest > session.longest));
            if let (Some(session), Some(_)) = (&mut state.session, longest) {
                session.longest = longest;
            }
        }
        let renewed = Renewed { seq: renew.seq, wall, claims_version, nacks, token: Some(token), longest };
        fx.now.push(Effect::Send { session: id, message: ControllerMessage::Renewed(renewed) });
        if mended {
            self.place_waiting(now, fx);
        }
    }

    /// Only specs that the agent has a use for.
    fn send_specs(&self, session: SessionId, agent: &AgentName, mut hashes: Vec<SpecHash>, fx: &mut Effects) {
        let useful: std::collections::BTreeSet<SpecHash> = self.useful_specs(agent).collect();
        hashes.retain(|hash| useful.contains(hash));
        if !hashes.is_empty() {
            fx.now.push(Effect::SendSpecs { session, hashes });
        }
    }

    /// Only files of a spec that the agent has a use for.
    fn send_files(&mut self, session: SessionId, agent: &AgentName, wanted: FilesWanted, fx: &mut Effects) {
        let FilesWanted { spec, hashes } = wanted;
        if self.useful_specs(agent).any(|useful| useful == spec) {
            self.note_waiting(agent, spec, hashes.len(), fx);
            fx.now.push(Effect::SendFiles { session, spec, hashes });
        } else {
            let sentence = format!("{agent} asked for files of spec {spec:?}, which is not one of its: not sent");
            fx.now.push(Effect::Alert(sentence));
        }
    }

    /// Runs of a spec whose agent has not got its files yet say so until they start.
    fn note_waiting(&mut self, agent: &AgentName, spec: SpecHash, files: usize, fx: &mut Effects) {
        let runs = self.agents.get(agent).map(|state| state.runs.clone()).unwrap_or_default();
        for run in runs {
            let Some(row) = self.runs.get_mut(&run).filter(|row| row.run.spec.spec_hash == spec) else { continue };
            let status = &mut row.run.status;
            let reason = Some(Reason::WAITING_FOR_FILES);
            if status.phase == RunPhase::StartingUp && status.reason != reason {
                let message = format!("{agent} waits for {files} of the files that travel with the workflow");
                (status.reason, status.message) = (reason, Some(message));
                fx.commit.push(Change::PutRun(Box::new(row.clone())));
            }
        }
    }

    /// The specs of what an agent owns, and of what it runs.
    fn useful_specs(&self, agent: &AgentName) -> impl Iterator<Item = SpecHash> {
        let state = self.agents.get(agent);
        let owned = state.into_iter().flat_map(|state| &state.owned).filter_map(|key| self.owners.get(key));
        let runs = state.into_iter().flat_map(|state| &state.runs).filter_map(|run| self.runs.get(run));
        owned.map(|owned| owned.row.spec_hash).chain(runs.map(|row| row.run.spec.spec_hash))
    }

    /// Tells every agent what changed in its set, and then which runs are its.
    pub(super) fn flush(&mut self, fx: &mut Effects) {
        let mut changed: Vec<(AgentName, Vec<PipelineKey>)> = Vec::new();
        for (agent, key) in std::mem::take(&mut self.changed) {
            match changed.last_mut() {
                Some((last, keys)) if *last == agent => keys.push(key),
                _ => changed.push((agent, vec![key])),
            }
        }
        let runs = std::mem::take(&mut self.to_start);
        for (agent, keys) in changed {
            if let Some(state) = self.agents.get_mut(&agent) {
                state.current = false;
            }
            if self.fresh.contains(&agent) {
                continue;
            }
            let (mut set, mut gone) = (Vec::new(), Vec::new());
            for key in keys {
                match self.assignment(&agent, &key) {
                    Some(assignment) => set.push(assignment),
                    None => gone.push(key),
                }
            }
            let Some(session) = self.agents.get_mut(&agent).and_then(|state| state.session.as_mut()) else { continue };
            let base = Some(session.set_version);
            session.set_version += 1;
            let message = Assignments { version: session.set_version, base, set, gone };
            fx.then.push(Effect::Send { session: session.id, message: ControllerMessage::Assignments(message) });
        }
        for agent in std::mem::take(&mut self.fresh) {
            self.send_set(&agent, fx);
        }
        for (agent, run) in runs {
            self.send_run(&agent, run, fx);
        }
    }

    fn send_set(&mut self, agent: &AgentName, fx: &mut Effects) {
        let set = self.assignment_set(agent);
        let Some(session) = self.agents.get_mut(agent).and_then(|state| state.session.as_mut()) else { return };
        session.set_version += 1;
        let message = Assignments { version: session.set_version, base: None, set, gone: Vec::new() };
        fx.then.push(Effect::Send { session: session.id, message: ControllerMessage::Assignments(message) });
    }

    /// A run of the controller: said at each session until its first fact, and that it is to end until its end.
    fn send_run(&self, agent: &AgentName, run: RunName, fx: &mut Effects) {
        let Some(session) = self.agents.get(agent).and_then(|state| state.session.as_ref()) else { return };
        let Some(row) = self.runs.get(&run).filter(|row| row.run.status.agent.as_ref() == Some(agent)) else { return };
        if let Some(start) = super::runs::start_message(row) {
            fx.then.push(Effect::Send { session: session.id, message: ControllerMessage::StartRun(start) });
        }
        for decision in &row.decisions {
            let message = ControllerMessage::Decide(decision.clone());
            fx.then.push(Effect::Send { session: session.id, message });
        }
        if let Some(by) = row.cancel_by.clone() {
            let cancel = ControllerMessage::CancelRun(CancelRun { run, by });
            fx.then.push(Effect::Send { session: session.id, message: cancel });
        }
    }
}

impl AgentState {
    /// True if the agent's clock may be right, although what it says is old.
    fn may_be_delayed(&mut self, wall: jiff::Timestamp, now: Now) -> bool {
        if now.wall.duration_since(wall) <= jiff::SignedDuration::from_secs(SKEW.as_secs().cast_signed()) {
            self.late_since = None;
            return false;
        }
        now.boot.since(*self.late_since.get_or_insert(now.boot)) < LATE_FOR
    }

    /// Notes how far the agent's clock is off; the operator hears once.
    fn note_skew(&mut self, wall: jiff::Timestamp, now: Now, agent: &AgentName, fx: &mut Effects) {
        let skew = wall.duration_since(now.wall).unsigned_abs();
        if skew > SKEW && self.skew <= SKEW {
            let seconds = skew.as_secs();
            fx.now.push(Effect::Alert(format!("the clock of {agent} is {seconds} s away from this host's")));
        }
        self.skew = skew;
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use xene_agent::decide::time::{BootTime, after, before};

    use super::*;

    #[test]
    fn a_renewal_that_was_held_up_says_nothing_of_the_clock_and_a_late_clock_is_told_of() {
        let mut state = AgentState::new(None);
        let agent = "a".parse().unwrap();
        let mut alerts = Vec::new();
        let mut renews = |second: u64, late: u64| {
            let boot = BootTime::from_nanos(second * 1_000_000_000);
            let wall = after(Timestamp::from_second(1_800_000_000).unwrap(), Duration::from_secs(second));
            let (now, said) = (Now { boot, wall }, before(wall, Duration::from_secs(late)));
            let mut fx = Effects::default();
            if !state.may_be_delayed(said, now) {
                state.note_skew(said, now, &agent, &mut fx);
            }
            alerts.extend(fx.now);
            (state.skew.as_secs(), alerts.len())
        };
        assert_eq!(renews(10, 0), (0, 0));
        // What was said during a cut comes all at once.
        for late in [18, 13, 8] {
            assert_eq!(renews(40, late), (0, 0));
        }
        assert_eq!(renews(45, 1), (1, 0));
        for second in [50, 60, 70, 79] {
            assert_eq!(renews(second, 9), (1, 0));
        }
        assert_eq!(renews(80, 9), (9, 1));
        assert_eq!(renews(90, 9), (9, 1));
        assert_eq!(renews(100, 0), (0, 1));
    }
}
