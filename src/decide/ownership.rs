//! Ownership: grants, leases as the controller counts them, planned moves, takeovers. The rules of the design, by number.

use std::time::Duration;

use jiff::Timestamp;
use xene_agent::decide::{
    mutant::Mutant,
    time::{BootTime, Now, after},
};
use xene_schemas::{
    event::EventType,
    meta::{AgentName, Epoch, PipelineKey, Revision, RunName, SpecHash},
    phase::Reason,
    pipeline::Autonomy,
    wire::control::{Assignment, Released},
};

use super::{
    Controller, Timer,
    agents::AgentState,
    event::{Effect, Effects},
    group::Bond,
    note,
    reconcile::Pipeline,
    recovery::finite,
    rows::{Change, OwnerRow},
    schedule::{Placement, together},
};

/// What an owner whose clock is ahead by more than this has started counts for nothing: the next one would stand still
/// until then.
pub(super) const CLOCK_AHEAD: Duration = Duration::from_secs(24 * 60 * 60);
/// The smallest step of a watermark.
pub(super) const TICK: Duration = Duration::from_nanos(1);
/// An old, longer L is waited for from when the new one is on its way to the agent: a commit later at the latest.
const COMMIT: Duration = Duration::from_secs(10);

/// Who owns a pipeline, and how long that must be believed.
#[derive(Debug)]
pub(super) struct Owned {
    /// As stored.
    pub(super) row: OwnerRow,
    /// When it was granted, or last renewed before its agent's list of claims changed.
    pub(super) base: BootTime,
    /// True if the list of claims that its agent renews has it.
    pub(super) claimed: bool,
    /// The L that its agent goes by, as that list says.
    pub(super) told: Option<Autonomy>,
    /// True until it is granted by this process; only mutants look.
    loaded: bool,
    /// Until when `row.longer` is waited for.
    pub(super) longer_until: Option<BootTime>,
    /// Its owner has told what became of all due times up to here; above the watermark only what was heard since.
    pub(super) told_upto: Timestamp,
}

impl Controller {
    pub(super) fn load_owner(&mut self, now: Now, key: PipelineKey, mut row: OwnerRow) {
        // Wall time says nothing about a time when this process was not there: the whole wait again.
        let longer_until = row.longer.map(|l| now.boot + Duration::from(l) * 21 / 20 + self.config.pause_margin);
        let base = self.floor;
        if let Some(owner) = row.owner.clone() {
            // A row of a version that remembered nobody.
            row.note_holder(&owner);
            let agent = self.agents.entry(owner.clone()).or_insert_with(|| AgentState::new(None));
            agent.owned.insert(key.clone());
            agent.silent |= row.reason == Some(Reason::OWNER_SILENT);
            agent.shortened.extend(row.longer.map(|_| key.clone()));
            self.timers.arm(Timer::Lease(owner), base);
            self.tick_soon();
        } else if self.pipelines.contains_key(&key) {
            self.waiting.insert(key.clone());
        }
        let told_upto = row.watermark;
        self.owners.insert(key, Owned { row, base, claimed: false, told: None, loaded: true, longer_until, told_upto });
    }

    /// When the pipeline may be taken from its owner; `None` while that takes a person's word.
    pub(super) fn expires(&self, owned: &Owned) -> Option<BootTime> {
        self.lease_end(owned).filter(|_| !self.is_held(owned))
    }

    /// W, as far as it does not hang on when the owner was heard.
    pub(super) fn wait_of(&self, owned: &Owned) -> Option<Duration> {
        let told = owned.told.filter(|_| owned.claimed && !self.mutants.is(Mutant::ShorterAtOnce));
        match owned.row.autonomy.max(told.unwrap_or(owned.row.autonomy)) {
            Autonomy::For(l) if self.mutants.is(Mutant::TakeoverAtL) => Some(l.into()),
            Autonomy::For(l) => Some(Duration::from(l) * 21 / 20 + self.config.pause_margin),
            Autonomy::Forever => None,
        }
    }

    /// When the owner's lease has surely run out, or a person says so; `None` with `Forever`, until then.
    pub(super) fn lease_end(&self, owned: &Owned) -> Option<BootTime> {
        let agent = owned.row.owner.as_ref().and_then(|owner| self.agents.get(owner));
        let renewed = agent.and_then(|agent| agent.renewed_at).filter(|_| owned.claimed);
        if self.mutants.is(Mutant::RestartWithoutWaiting) && owned.loaded && !owned.claimed {
            return Some(BootTime::default());
        }
        if agent.is_some_and(|agent| agent.fenced) {
            return Some(BootTime::default());
        }
        let base = owned.base.max(renewed.unwrap_or_default()).max(self.floor);
        match self.wait_of(owned) {
            Some(wait) => Some((base + wait).max(owned.longer_until.unwrap_or_default())),
            None if agent.is_none_or(|agent| agent.row.is_none()) => Some(BootTime::default()),
            None => None,
        }
    }

    /// An agent's timer has come: claims that have run out go to others, if there are others. So does what waits for the
    /// ends of runs that it had when it gave their pipelines back, and that nobody can tell of any more.
    pub(super) fn judge(&mut self, now: Now, agent: &AgentName, fx: &mut Effects) {
        let Some(state) = self.agents.get(agent) else { return };
        let mut next: Option<BootTime> = None;
        let mut over = Vec::new();
        for key in &state.owned {
            let Some(owned) = self.owners.get(key) else { continue };
            let Some(expires) = self.lease_end(owned) else { continue };
            if expires <= now.boot {
                over.push(key.clone());
            } else {
                next = Some(next.map_or(expires, |next| next.min(expires)));
            }
        }
        let mut lost = Vec::new();
        for run in &state.runs {
            let Some(left) = self.left_alone_at(agent, *run) else { continue };
            if left <= now.boot {
                lost.push(*run);
            } else {
                next = Some(next.map_or(left, |next| next.min(left)));
            }
        }
        if let Some(next) = next {
            self.timers.arm(Timer::Lease(agent.clone()), next);
        }
        for run in lost {
            self.lose_run(now, run, fx);
            let Some(key) = self.runs.get(&run).map(|row| row.run.spec.key()) else { continue };
            let keeps = self.owners.get(&key).is_some_and(|owned| owned.row.owner.as_ref() == Some(agent));
            if let Some(state) = self.agents.get_mut(agent).filter(|_| keeps) {
                state.silent = true;
            }
            self.place_group(now, &key, fx);
        }
        for key in over {
            self.place(now, &key, fx);
        }
    }

    /// Rule 10: its owner keeps it, silent as it is.
    fn spare(&mut self, now: Now, key: &PipelineKey, owner: &AgentName, fx: &mut Effects) {
        if let Some(state) = self.agents.get_mut(owner) {
            state.silent = true;
        }
        self.miss_runs(now, key, owner, fx);
        self.waiting.insert(key.clone());
        let message = format!("{owner} fell silent with most of the agents: nobody takes over (`xene status`)");
        self.explain(key, Reason::OWNER_SILENT, message, fx);
    }

    /// Its session is over: what it has is judged in time.
    pub(super) fn arm_agent(&mut self, agent: &AgentName) {
        self.timers.arm_by(Timer::Lease(agent.clone()), self.floor);
    }

    /// Gives a pipeline to an agent if nobody owns it, or its owner's claim has run out. Otherwise says why not. Who
    /// waits for its group may go on then.
    pub(super) fn place(&mut self, now: Now, key: &PipelineKey, fx: &mut Effects) {
        self.place_one(now, key, fx);
        if !self.waiting.contains(key) {
            self.place_group(now, key, fx);
        }
    }

    pub(super) fn place_one(&mut self, now: Now, key: &PipelineKey, fx: &mut Effects) {
        let owned = self.owners.get(key);
        let owner = owned.and_then(|owned| owned.row.owner.clone());
        if let (Some(owned), Some(_)) = (owned, &owner)
            && self.lease_end(owned).is_none_or(|end| end > now.boot)
        {
            self.arm_lease(key);
            return;
        }
        let gives_back = owned.is_some_and(|owned| owned.row.revoking || owned.row.void);
        let gone = |agent: &AgentState| agent.row.as_ref().is_none_or(|row| row.revoked) || agent.fenced;
        let gone = owner.as_ref().and_then(|owner| self.agents.get(owner)).is_some_and(gone);
        if let Some(owner) = &owner {
            // Also of a pipeline that was removed: silence is silence.
            self.count_lost(now, owner, fx);
            self.agent_lost(now, owner, fx);
        }
        if !self.pipelines.contains_key(key) {
            self.waiting.remove(key);
            if owner.is_some() {
                self.disown(now, key, Reason::MOVING, "the pipeline was removed".into(), fx);
            }
            return;
        }
        if let Some(owner) = &owner
            && self.owners.get(key).is_some_and(|owned| self.is_held(owned))
        {
            self.spare(now, key, owner, fx);
            return;
        }
        if owner.is_none()
            && let Some(doubt) = self.in_doubt(key)
        {
            self.waiting.insert(key.clone());
            self.explain(key, Reason::OWNER_SILENT, doubt.into(), fx);
            return;
        }
        self.count_lost_of_group(now, key, fx);
        // One that was to give it back and said nothing may have it anew, if by now nothing speaks against it.
        let except = owner.as_ref().filter(|_| !gives_back);
        let placement = match self.bond(now, key) {
            Bond::Waits(message) => Placement::Nowhere(Reason::MOVING, message),
            bond => {
                let (only, why) = match &bond {
                    Bond::To(agent, why) => (Some(agent), format!("{why}, and ")),
                    _ => (None, String::new()),
                };
                match self.choose(&self.asked_labels(key), except, only) {
                    Placement::Nowhere(reason, message) => {
                        let moving = only.is_some() && reason == Reason::NO_AGENT_AVAILABLE;
                        let reason = if moving { Reason::MOVING } else { reason };
                        Placement::Nowhere(reason, together(why + &message, self.group(key)))
                    }
                    placement @ Placement::Agent(..) => placement,
                }
            }
        };
        match placement {
            Placement::Agent(agent, message) => self.grant(now, key, agent, message, fx),
            Placement::Nowhere(reason, message) => {
                self.waiting.insert(key.clone());
                match owner {
                    // Nobody else could have it: it stays, and goes on if its owner comes back.
                    Some(owner) if !gives_back && !gone => {
                        if let Some(state) = self.agents.get_mut(&owner) {
                            state.silent = true;
                        }
                        self.miss_runs(now, key, &owner, fx);
                        let message = format!("{owner} is silent; {message}");
                        self.explain(key, Reason::OWNER_SILENT, message, fx);
                    }
                    Some(_) => self.disown(now, key, reason, message, fx),
                    None => self.explain(key, reason, message, fx),
                }
            }
        }
    }

    /// The latest due time up to `limit` of which a start was told. It lies ahead if the owner's clock did.
    pub(super) fn newest_start(&self, key: &PipelineKey, limit: Timestamp) -> Option<Timestamp> {
        let ended = self.ended.get(key).into_iter().flatten().filter(|run| run.scheduled).map(|run| run.name);
        let active = self.active.get(key).into_iter().flatten().copied();
        let active = active.filter(|run| self.runs.get(run).is_some_and(|row| row.run.spec.trigger.is_slot()));
        ended.chain(active).map(RunName::at).filter(|at| *at <= limit).max()
    }

    /// Rule 1: the new epoch is durable before anybody hears of it. Rule 6: after an unplanned takeover only slots
    /// from now on are the new owner's.
    fn grant(&mut self, now: Now, key: &PipelineKey, agent: AgentName, message: String, fx: &mut Effects) {
        let slot_now = self.slot_now(fx);
        let generation = self.row.generation;
        let Some(pipeline) = self.pipelines.get(key) else { return };
        let (autonomy, spec_hash, revision) = (self.autonomy(pipeline), pipeline.spec_hash, pipeline.revision.clone());
        self.longest = self.longest.max(finite(autonomy).unwrap_or_default());
        let before = self.owners.get(key);
        let clean = before.is_none_or(|owned| owned.row.owner.is_none() && owned.row.clean);
        let old_epoch = before.map_or_else(Epoch::default, |owned| owned.row.epoch);
        let watermark = before.map_or(slot_now, |owned| owned.row.watermark);
        let first = before.is_none();
        let unsure = before.is_some_and(|owned| owned.row.unsure);
        let holders = before.map(|owned| owned.row.holders.clone()).unwrap_or_default();
        let taken_from = before.and_then(|owned| owned.row.owner.clone());
        let fenced = taken_from.as_ref().and_then(|old| self.agents.get(old)).filter(|old| old.fenced);
        let ahead = fenced.map_or(Duration::ZERO, |old| old.slot_clock_ahead(now));
        let keeps_epoch = fenced.is_some() && self.mutants.is(Mutant::FenceKeepsEpoch);
        let not_before = if clean || self.mutants.is(Mutant::CatchUpAfterTakeover) {
            after(watermark, TICK)
        } else {
            let known = self.newest_start(key, after(slot_now, CLOCK_AHEAD));
            after(watermark.max(after(slot_now, ahead)).max(known.unwrap_or(slot_now)), TICK)
        };
        let why = if fenced.is_some() { "is off" } else { "was silent for too long" };
        if let Some(old) = &taken_from {
            self.lose_runs(now, key, old, fx);
            self.detach(key, old);
            note(
                fx,
                now,
                EventType::Warning,
                "OwnerReplaced",
                format!("pipeline/{key}"),
                format!("{old} {why}; {agent} takes over"),
            );
        } else if first {
            let message = message.clone();
            note(fx, now, EventType::Normal, "Scheduled", format!("pipeline/{key}"), message);
        }
        let mut row = OwnerRow {
            owner: Some(agent.clone()),
            epoch: if keeps_epoch { old_epoch } else { old_epoch.next(generation) },
            autonomy,
            longer: None,
            not_before,
            watermark: watermark.max(below(not_before)),
            clean: false,
            revoking: false,
            void: false,
            unsure: false,
            holders,
            edited: None,
            spec_hash,
            revision,
            message,
            reason: None,
        };
        row.note_holder(&agent);
        let told_upto = row.watermark;
        let mut ambiguous = if clean { Vec::new() } else { self.lose_sight(key, told_upto, fx) };
        if unsure {
            // Of due times before a recovery it may be forgotten that they were started again.
            ambiguous.clear();
        }
        fx.commit.push(Change::PutOwner(key.clone(), row.clone()));
        self.owners.insert(
            key.clone(),
            Owned { row, base: now.boot, claimed: false, told: None, loaded: false, longer_until: None, told_upto },
        );
        self.waiting.remove(key);
        if let Some(state) = self.agents.get_mut(&agent) {
            state.owned.insert(key.clone());
        }
        self.arm_lease(key);
        self.changed.insert((agent, key.clone()));
        self.address_runs(key, fx);
        self.run_ambiguous(now, key, ambiguous, fx);
    }

    /// The old owner has it no more; if it still thinks so, its next renewal says no.
    fn detach(&mut self, key: &PipelineKey, old: &AgentName) {
        let Some(owned) = self.owners.get(key) else { return };
        if let Some(state) = self.agents.get_mut(old) {
            state.owned.remove(key);
            if let Some(session) = state.session.as_mut().filter(|_| owned.claimed) {
                session.stale.insert((key.clone(), owned.row.epoch));
            }
        }
        self.changed.insert((old.clone(), key.clone()));
    }

    /// Its owner is lost, and nobody else is there.
    fn disown(&mut self, now: Now, key: &PipelineKey, reason: Reason, message: String, fx: &mut Effects) {
        let Some(old) = self.owners.get(key).and_then(|owned| owned.row.owner.clone()) else { return };
        self.lose_runs(now, key, &old, fx);
        self.detach(key, &old);
        let Some(owned) = self.owners.get_mut(key) else { return };
        owned.claimed = false;
        let row = &mut owned.row;
        (row.owner, row.clean, row.revoking, row.void) = (None, false, false, false);
        (row.reason, row.message) = (Some(reason), message);
        fx.commit.push(Change::PutOwner(key.clone(), row.clone()));
    }

    /// Why it has no owner, or none that answers; written when it changes.
    pub(super) fn explain(&mut self, key: &PipelineKey, reason: Reason, message: String, fx: &mut Effects) {
        let watermark = self.slot_now(fx);
        let pipeline = self.pipelines.get(key);
        let unsure = self.recovering.is_some();
        let owned = self.owners.entry(key.clone()).or_insert_with(|| Owned::nobody(pipeline, watermark, unsure));
        if owned.row.reason.as_ref() == Some(&reason) && owned.row.message == message {
            return;
        }
        (owned.row.reason, owned.row.message) = (Some(reason), message);
        fx.commit.push(Change::PutOwner(key.clone(), owned.row.clone()));
    }

    /// A new pipeline begins now: nothing that was due before is ever started.
    pub(super) fn begin_watermark(&mut self, key: &PipelineKey, fx: &mut Effects) {
        let slot_now = self.slot_now(fx);
        if let Some(owned) = self.owners.get_mut(key).filter(|owned| owned.row.owner.is_none() || owned.row.revoking) {
            owned.row.watermark = owned.row.watermark.max(slot_now);
            fx.commit.push(Change::PutOwner(key.clone(), owned.row.clone()));
        }
    }

    /// The spec of an owned pipeline changed: same epoch, new entry. A shorter L counts for the controller only once
    /// the limit that was given under the longer one has passed.
    pub(super) fn respec(&mut self, now: Now, key: &PipelineKey, fx: &mut Effects) {
        let margin = self.config.pause_margin + COMMIT;
        let Some(pipeline) = self.pipelines.get(key) else { return };
        let autonomy = self.autonomy(pipeline);
        self.longest = self.longest.max(finite(autonomy).unwrap_or_default());
        let Some(owned) = self.owners.get_mut(key) else { return };
        let row = &mut owned.row;
        let heard = owned.told.is_none_or(|told| told <= row.autonomy);
        if heard && owned.longer_until.is_some_and(|until| until <= now.boot) {
            (owned.longer_until, row.longer) = (None, None);
        }
        let mut owner = row.owner.as_ref().and_then(|owner| self.agents.get_mut(owner));
        // Who was forgotten is told nothing any more, and goes by what it knows.
        let forgotten = row.owner.is_some() && owner.as_ref().is_none_or(|agent| agent.row.is_none());
        let mut given_back = false;
        match (row.autonomy, autonomy) {
            _ if self.mutants.is(Mutant::ShorterAtOnce) => {}
            // No wait is long enough for a claim without end: only its owner's word ends it.
            (Autonomy::Forever, Autonomy::For(_)) if row.owner.is_some() => given_back = true,
            (Autonomy::For(old), Autonomy::For(new)) if old > new => {
                let wait = Duration::from(old) * 21 / 20 + margin;
                row.longer = row.longer.max(Some(old));
                owned.longer_until = owned.longer_until.max(Some(now.boot + wait));
                if let Some(agent) = &mut owner {
                    agent.shortened.insert(key.clone());
                }
            }
            _ => {}
        }
        if !given_back && !forgotten {
            row.autonomy = autonomy;
        }
        (row.spec_hash, row.revision) = (pipeline.spec_hash, pipeline.revision.clone());
        fx.commit.push(Change::PutOwner(key.clone(), row.clone()));
        let owner = row.owner.clone();
        if let Some(owner) = owner {
            self.arm_lease(key);
            self.changed.insert((owner.clone(), key.clone()));
            if given_back {
                self.revoke(key, format!("{owner} gives it back: its claim was without end, and is no more"), fx);
            }
        }
    }

    /// An owner that lacks the labels by now, or the rest of the group, gives the pipeline back.
    pub(super) fn keep_or_revoke(&mut self, now: Now, key: &PipelineKey, fx: &mut Effects) {
        if !self.pipelines.contains_key(key) {
            return;
        }
        let owner = self.owners.get(key).and_then(|owned| owned.row.owner.as_ref());
        let Some(owner) = owner else {
            self.place(now, key, fx);
            return;
        };
        let row = self.agents.get(owner).and_then(|agent| agent.row.as_ref());
        if row.is_some_and(|row| !self.fits(key, &row.labels)) {
            let message = format!("{owner} has not the labels any more, and gives it back");
            self.revoke(key, message, fx);
        } else if let Some(rival) = self.rival(now, key, owner) {
            let message = format!("{owner} gives it back, to where the rest of its group is: {rival}");
            self.revoke(key, message, fx);
        }
    }

    /// Rule 5, first half.
    pub(super) fn revoke(&mut self, key: &PipelineKey, message: String, fx: &mut Effects) {
        let Some(owned) = self.owners.get_mut(key) else { return };
        let Some(owner) = owned.row.owner.clone().filter(|_| !owned.row.revoking) else { return };
        owned.row.revoking = true;
        // A claim whose journal is lost can't be given back: what is said of it stays true.
        if !owned.row.void {
            (owned.row.reason, owned.row.message) = (Some(Reason::MOVING), message);
        }
        fx.commit.push(Change::PutOwner(key.clone(), owned.row.clone()));
        self.changed.insert((owner, key.clone()));
    }

    /// Rule 5, second half: the owner gave it back and said how far it came, so the next one goes on from there.
    pub(super) fn released(&mut self, now: Now, agent: &AgentName, released: Released, fx: &mut Effects) {
        let key = &released.pipeline;
        let merged = !self.mutants.is(Mutant::WatermarksNotMerged);
        // What an owner says of next year would keep the next one from all that is due until then.
        let told = released.watermark.min(after(self.slot_now(fx), CLOCK_AHEAD));
        if released.draining
            && let Some(state) = self.agents.get_mut(agent)
        {
            state.leaving = true;
        }
        let Some(owned) = self.owners.get_mut(key) else { return };
        let row = &mut owned.row;
        // Of another epoch, or of a claim whose journal is lost, it changes nothing.
        if row.owner.as_ref() != Some(agent) || row.epoch != released.epoch || row.void {
            return;
        }
        row.watermark = if merged { row.watermark.max(told) } else { told };
        (row.owner, row.clean, row.revoking) = (None, true, false);
        (row.reason, row.message) = (Some(Reason::MOVING), format!("{agent} gave it back"));
        let (claimed, epoch) = (std::mem::take(&mut owned.claimed), row.epoch);
        owned.longer_until = None;
        row.longer = None;
        fx.commit.push(Change::PutOwner(key.clone(), row.clone()));
        if let Some(state) = self.agents.get_mut(agent) {
            state.owned.remove(key);
            if let Some(session) = state.session.as_mut().filter(|_| claimed) {
                session.stale.insert((key.clone(), epoch));
            }
        }
        self.changed.insert((agent.clone(), key.clone()));
        self.take_back_runs(now, key, agent, &released.running, fx);
        self.place(now, key, fx);
        // The last of a group to be given back: what is said of the others is not true any more.
        if !matches!(self.bond(now, key), Bond::Waits(_)) {
            self.place_group(now, key, fx);
        }
    }

    /// What an agent is told of a pipeline; `None`: that it is not its.
    pub(super) fn assignment(&self, agent: &AgentName, key: &PipelineKey) -> Option<Assignment> {
        let row = &self.owners.get(key)?.row;
        if row.owner.as_ref() != Some(agent) || row.void {
            return None;
        }
        Some(Assignment {
            pipeline: key.clone(),
            epoch: row.epoch,
            autonomy: row.autonomy,
            not_before: row.not_before,
            spec_hash: row.spec_hash,
            revision: row.revision.clone(),
            revoked: row.revoking,
            suspended: self.suspension(key).is_some(),
            elsewhere: self.elsewhere(agent, key),
        })
    }

    /// The agent's claims are to be judged when this one runs out, if that is first.
    pub(super) fn arm_lease(&mut self, key: &PipelineKey) {
        let Some(owned) = self.owners.get(key) else { return };
        if let (Some(owner), Some(at)) = (&owned.row.owner, self.expires(owned)) {
            self.timers.arm_by(Timer::Lease(owner.clone()), at);
            self.tick_soon();
        }
    }

    /// An agent can be given pipelines from now on: those that wait are looked at.
    pub(super) fn place_waiting(&mut self, now: Now, fx: &mut Effects) {
        let waiting: Vec<PipelineKey> = self.waiting.iter().cloned().collect();
        for key in waiting {
            self.place(now, &key, fx);
        }
    }

    /// The agent answers again: what nobody else could have is its own as before.
    pub(super) fn heard_again(&mut self, agent: &AgentName, fx: &mut Effects) {
        let Some(state) = self.agents.get_mut(agent).filter(|state| state.silent) else { return };
        state.silent = false;
        let (owned, mut still) = (state.owned.clone(), false);
        for key in &owned {
            let Some(owned) = self.owners.get_mut(key) else { continue };
            still |= !owned.claimed;
            let claimed = owned.claimed;
            if owned.claimed && owned.row.reason == Some(Reason::OWNER_SILENT) {
                owned.row.reason = None;
                owned.row.message = format!("{agent} is back");
                fx.commit.push(Change::PutOwner(key.clone(), owned.row.clone()));
            }
            if claimed && !owned.row.revoking {
                self.waiting.remove(key);
            }
            if claimed {
                self.find_runs(key, agent, fx);
            }
        }
        if let Some(state) = self.agents.get_mut(agent) {
            state.silent = still;
        }
        // It was judged, and so its timer is gone.
        for key in &owned {
            self.arm_lease(key);
        }
    }

    /// The owner came back without its journal: what it may have started, it does not know.
    pub(super) fn void_claims(&mut self, agent: &AgentName, fx: &mut Effects) {
        let Some(state) = self.agents.get(agent) else { return };
        let mut count = 0;
        for key in state.owned.clone() {
            let Some(owned) = self.owners.get_mut(&key).filter(|owned| !owned.row.void) else { continue };
            owned.row.void = true;
            owned.row.reason = Some(Reason::OWNER_SILENT);
            let ends = match owned.row.autonomy {
                Autonomy::For(_) => "is waited out".to_owned(),
                Autonomy::Forever => {
                    format!("has no end; stop {agent}, then `xene agents fence {agent} --machine-is-off`")
                }
            };
            owned.row.message = format!("{agent} came back without its journal: its old claim {ends}");
            fx.commit.push(Change::PutOwner(key.clone(), owned.row.clone()));
            self.arm_lease(&key);
            count += 1;
        }
        if count > 0 {
            fx.now.push(Effect::Alert(format!("{agent} lost its data folder; {count} pipelines wait for its lease")));
        }
    }
}

impl Owned {
    /// A pipeline that never had an owner, as far as is known.
    pub(super) fn nobody(pipeline: Option<&Pipeline>, watermark: Timestamp, unsure: bool) -> Self {
        let row = OwnerRow {
            owner: None,
            epoch: Epoch::default(),
            autonomy: pipeline.map_or(Autonomy::DEFAULT, |pipeline| pipeline.autonomy),
            longer: None,
            not_before: after(watermark, TICK),
            watermark,
            clean: !unsure,
            revoking: false,
            void: false,
            unsure,
            holders: Vec::new(),
            edited: None,
            spec_hash: pipeline.map_or(SpecHash([0; 32]), |pipeline| pipeline.spec_hash),
            revision: pipeline.map_or_else(|| Revision(String::new()), |pipeline| pipeline.revision.clone()),
            message: String::new(),
            reason: None,
        };
        Self {
            row,
            base: BootTime::default(),
            claimed: false,
            told: None,
            loaded: false,
            longer_until: None,
            told_upto: watermark,
        }
    }
}

fn below(not_before: Timestamp) -> Timestamp {
    xene_agent::decide::time::before(not_before, TICK)
}
