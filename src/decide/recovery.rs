//! Recovery: the store is older than what agents know (a backup, a rolled back image), or empty where they hold claims.
//!
//! What the store says of owners counts for nothing then. A new generation begins, above all that anybody has seen,
//! every pipeline is without an owner, and every agent must open a session anew. Until the longest W has passed only
//! claims that are live then are adopted, under their own epoch: at most one agent can have one. After that, nobody
//! can start what is still without an owner, and it is granted as after any unplanned takeover.
//!
//! The longest W is that of the longest L that was given: as the rows and the files say, which a lost store does not
//! have any more and the source may have changed, and as agents say that come. Each is told the longest that any has.
//!
//! No wait is long enough for a claim without end (`autonomy: Forever`). Such a pipeline is adopted whenever its agent
//! shows it, and is otherwise granted only on a person's word: a commit that gives it an end.
//!
//! Runs that were under way become Unknown: their agents may have reported more than the store remembers, so they
//! come back with the next fact that fits, or are given up in time. None of them is sent to an agent again.

use std::time::Duration;

use jiff::Timestamp;
use xene_agent::decide::{
    mutant::Mutant,
    time::{Now, after},
};
use xene_schemas::{
    duration::Duration as Span,
    event::EventType,
    meta::{AgentName, Epoch, PipelineKey, RunName},
    pipeline::Autonomy,
    wire::control::{Claim, Hello},
};

use super::{
    Controller, Timer,
    agents::AgentState,
    event::{Effect, Effects},
    note,
    ownership::{CLOCK_AHEAD, Owned},
    rows::Change,
    twins::is_newer,
};

/// No clock of a controller is thought to be further ahead, in seconds: what an agent says of a generation beyond counts
/// for nothing. A generation is unix seconds, and whoever raised it without bound would leave no room above.
const CENTURY: u64 = 100 * 366 * 86_400;
/// No L is longer: planned downtime lasts for a week at most.
const LONGEST: Duration = Duration::from_secs(8 * 86_400);

impl Controller {
    /// A person says that the store is a backup, or new where agents hold claims: it may lack agents, too.
    pub(super) fn recover(&mut self, now: Now, why: &str, fx: &mut Effects) {
        self.row.readmits = true;
        self.begin_recovery(now, 0, why, fx);
    }

    /// From now on nobody is known to own anything. `seen` is the highest generation that an agent reports.
    fn begin_recovery(&mut self, now: Now, seen: u64, why: &str, fx: &mut Effects) {
        if self.mutants.is(Mutant::RestoreTrustsTable) {
            return;
        }
        self.row.generation = (self.row.generation.max(seen) + 1).max(now.wall.as_second().unsigned_abs());
        (self.row.recovering, self.row.restored) = (true, false);
        self.row.recovered_at = Some(self.row.wall_high.max(now.wall));
        fx.commit.push(Change::PutController(self.row.clone()));
        fx.now.push(Effect::Alert(format!("recovery: {why}; only claims of agents that are live are adopted")));
        note(fx, now, EventType::Warning, "Recovering", "controller".into(), why.to_owned());
        let agents: Vec<AgentName> = self.agents.keys().cloned().collect();
        for agent in &agents {
            self.close(agent, "the controller recovers: say again what you hold", fx);
        }
        for state in self.agents.values_mut() {
            state.owned.clear();
            (state.renewed_at, state.silent) = (None, false);
            // Agents may have been given newer ones since.
            state.chain = None;
            if let Some(row) = state.row.as_mut().filter(|row| !row.tokens.is_empty()) {
                row.tokens.clear();
                fx.commit.push(Change::PutAgent(Box::new(row.clone())));
            }
        }
        for (key, owned) in &mut self.owners {
            owned.claimed = false;
            let row = &mut owned.row;
            (row.owner, row.clean, row.revoking, row.void, row.unsure) = (None, false, false, false, true);
            fx.commit.push(Change::PutOwner(key.clone(), row.clone()));
        }
        self.waiting.extend(self.pipelines.keys().cloned());
        let runs: Vec<RunName> = self.runs.keys().copied().collect();
        for run in runs {
            self.doubt_run(now, run, fx);
        }
        self.resume_recovery(now);
        self.place_waiting(now, fx);
    }

    /// The wait begins, or begins again after a restart.
    pub(super) fn resume_recovery(&mut self, now: Now) {
        self.recovering = Some(now.boot);
        self.timers.arm(Timer::Recovered, now.boot + self.longest_wait());
    }

    /// The longest wait was over, as far as was known then.
    pub(super) fn end_recovery(&mut self, now: Now, fx: &mut Effects) {
        let Some(began) = self.recovering else { return };
        let over = began.max(self.floor) + self.longest_wait();
        if over > now.boot {
            self.timers.arm(Timer::Recovered, over);
            return;
        }
        self.recovering = None;
        (self.row.recovering, self.row.readmits, self.row.longest) = (false, false, None);
        fx.commit.push(Change::PutController(self.row.clone()));
        let message = "claims that nobody showed have run out, and are granted anew";
        note(fx, now, EventType::Normal, "Recovered", "controller".into(), message.into());
        self.place_waiting(now, fx);
    }

    /// W of the largest L that an agent may go by, as far as the store, the source and agents tell.
    fn longest_wait(&self) -> Duration {
        let pipelines = self.pipelines.values().map(|pipeline| pipeline.autonomy);
        let finite = pipelines.chain([Autonomy::DEFAULT]).filter_map(finite);
        let told = self.row.longest.map(Duration::from);
        finite.chain(told).max().max(Some(self.longest_given())).unwrap_or_default() * 21 / 20
            + self.config.pause_margin
    }

    /// The largest L that the rows say was given.
    pub(super) fn longest_given(&self) -> Duration {
        let rows =
            self.owners.values().flat_map(|owned| [Some(owned.row.autonomy), owned.row.longer.map(Autonomy::For)]);
        rows.chain([self.paused_autonomy()]).flatten().filter_map(finite).max().unwrap_or_default()
    }

    /// What agents are told of the longest L of all, so that the next store knows it from them.
    pub(super) fn longest_known(&self) -> Option<Span> {
        let told = self.row.longest.map(Duration::from).unwrap_or_default();
        Some(self.longest.max(told))
            .filter(|longest| !longest.is_zero())
            .map(|longest| Span::from_secs(seconds(longest)))
    }

    /// An agent comes to a store that recovers: what it was told, and what it has, may be all that is left to know.
    pub(super) fn learn_longest(&mut self, hello: &Hello, fx: &mut Effects) {
        let claims = hello.claims.iter().filter_map(|claim| finite(claim.autonomy?));
        let told = hello.store.as_ref().and_then(|seen| seen.longest).map(Duration::from);
        let longest = claims.chain(told).max().map(|longest| Span::from_secs(seconds(longest.min(LONGEST))));
        if self.recovering.is_some() && longest > self.row.longest {
            self.row.longest = longest;
            fx.commit.push(Change::PutController(self.row.clone()));
        }
    }

    /// Why a pipeline without an owner may not be granted yet, if some agent may have it.
    pub(super) fn in_doubt(&self, key: &PipelineKey) -> Option<&'static str> {
        let unsure = self.owners.get(key).map_or_else(|| self.recovering.is_some(), |owned| owned.row.unsure);
        let endless = |key| self.pipelines.get(key).is_some_and(|pipeline| pipeline.autonomy == Autonomy::Forever);
        if !unsure {
            None
        } else if endless(key) || self.owners.get(key).is_some_and(|owned| owned.row.autonomy == Autonomy::Forever) {
            Some(
                "the store was recovered, and an agent may have this without end: start that agent, or commit an \
                 autonomy with an end once you know that none has it",
            )
        } else {
            self.recovering.map(|_| "the store was recovered: an agent may have it until its lease has run out")
        }
    }

    /// An agent says Hello: what it has seen tells whether this store is the newest. False if its word is not taken.
    ///
    /// Once for each process: a store goes back before a process starts on it, and the recovery that follows puts it
    /// above all that was said. Who says so again has made it up, or goes between two controllers of one store.
    pub(super) fn compare_store(&mut self, now: Now, agent: &AgentName, hello: &Hello, fx: &mut Effects) -> bool {
        let Some(seen) = &hello.store else { return true };
        let highest = self.row.generation.max(now.wall.as_second().unsigned_abs() + CENTURY);
        let claims = || hello.claims.iter().filter(|claim| claim.epoch.0 >> 20 <= highest);
        let newest = claims().map(|claim| claim.epoch.0 >> 20).max().unwrap_or(0);
        let newest = newest.max(Some(seen.generation).filter(|seen| *seen <= highest).unwrap_or(0));
        let granted = |claim: &Claim| {
            let known = self.owners.get(&claim.pipeline).map(|owned| owned.row.epoch);
            claim.epoch < Epoch::before_first(self.row.generation) || known.is_some_and(|known| claim.epoch <= known)
        };
        let (theirs, ours) = ((newest, seen.incarnation), (self.row.generation, self.row.incarnation));
        // With our own numbers, but not from this process: another one went on from the same image.
        let met = self.agents.get(agent).is_some_and(|state| state.greeted);
        let row = self.agents.get(agent).and_then(|state| state.row.as_ref());
        let token =
            hello.tokens.map(|shown| shown.session).zip(row.map(|row| row.newest_token).filter(|known| *known > 0));
        // Since a recovery the agents of before it are known to have newer ones.
        let welcomed = newest == self.row.generation && token.is_some_and(|(shown, known)| is_newer(shown, known));
        let newer = theirs > ours || (theirs == ours && !met) || welcomed || !claims().all(granted);
        if seen.store_id == self.row.store_id && newer {
            let state = self.agents.entry(agent.clone()).or_insert_with(|| AgentState::new(None));
            if std::mem::replace(&mut state.believed, true) {
                let sentence = format!("{agent} says once more that it knows a newer state of the store: not let in");
                fx.now.push(Effect::Alert(sentence));
                return false;
            }
            let why = format!("{agent} knows a newer state of this store, which was rolled back");
            self.begin_recovery(now, newest, &why, fx);
        } else if newest > self.row.generation {
            // Of another store, or of this one before: what is granted from here on must be above it.
            self.row.generation = newest + 1;
            fx.commit.push(Change::PutController(self.row.clone()));
        }
        true
    }

    /// An agent had this once, and knows of due times that the recovered store has never heard of.
    fn learn_watermark(&mut self, key: &PipelineKey, watermark: Timestamp, fx: &mut Effects) {
        let unsure = |owned: &&mut Owned| owned.row.unsure && owned.row.watermark < watermark;
        if let Some(owned) = self.owners.get_mut(key).filter(unsure) {
            owned.row.watermark = watermark;
            fx.commit.push(Change::PutOwner(key.clone(), owned.row.clone()));
        }
    }

    /// An agent meets this generation for the first time: all that it has started lies before it, also what it started by
    /// a clock that was ahead of this one.
    pub(super) fn learn_past(&mut self, now: Now, claims: &[Claim], fx: &mut Effects) {
        let latest = after(now.wall, CLOCK_AHEAD);
        let newest = claims.iter().map(|claim| claim.watermark).max().map(|newest| newest.min(latest));
        if self.row.recovered_at.is_some() && newest > self.row.recovered_at {
            self.row.recovered_at = newest;
            fx.commit.push(Change::PutController(self.row.clone()));
        }
    }

    /// A session that was opened in doubt shows claims: what is live is the agent's, under its own epoch.
    pub(super) fn adopt(&mut self, now: Now, agent: &AgentName, claims: Vec<Claim>, fx: &mut Effects) {
        // One that is further ahead would keep everybody from starting what it names until then.
        let latest = after(now.wall, CLOCK_AHEAD);
        for claim in claims.into_iter().filter(|claim| claim.watermark <= latest) {
            let live = claim.live || self.mutants.is(Mutant::RecoveryAdoptsDeadClaim);
            let key = claim.pipeline;
            let free = match self.owners.get(&key) {
                Some(owned) => owned.row.unsure && owned.row.epoch <= claim.epoch,
                None => self.recovering.is_some(),
            };
            if !live || !free || claim.epoch >= Epoch::before_first(self.row.generation) {
                self.learn_watermark(&key, claim.watermark, fx);
                continue;
            }
            let pipeline = self.pipelines.get(&key);
            let mut owned = self.owners.remove(&key).unwrap_or_else(|| Owned::nobody(pipeline, claim.watermark, true));
            let row = &mut owned.row;
            (row.owner, row.epoch, row.unsure) = (Some(agent.clone()), claim.epoch, false);
            row.watermark = row.watermark.max(claim.watermark);
            row.note_holder(agent);
            row.autonomy = claim.autonomy.unwrap_or(row.autonomy);
            (row.reason, row.message) = (None, format!("{agent} had it when the store was recovered"));
            owned.base = now.boot;
            let known = pipeline.is_some();
            // What no file asks for, as far as is known by now, is given back.
            row.revoking = !known;
            self.longest = self.longest.max(finite(row.autonomy).unwrap_or_default());
            fx.commit.push(Change::PutOwner(key.clone(), row.clone()));
            self.owners.insert(key.clone(), owned);
            self.waiting.remove(&key);
            if let Some(state) = self.agents.get_mut(agent) {
                state.owned.insert(key.clone());
            }
            self.arm_lease(&key);
            if known {
                self.respec(now, &key, fx);
                self.keep_or_revoke(now, &key, fx);
            }
        }
    }
}

/// An L that has an end.
pub(super) fn finite(autonomy: Autonomy) -> Option<Duration> {
    match autonomy {
        Autonomy::For(l) => Some(l.into()),
        Autonomy::Forever => None,
    }
}

/// In whole seconds, and not less.
fn seconds(span: Duration) -> u64 {
    span.as_secs() + u64::from(span.subsec_nanos() > 0)
}
