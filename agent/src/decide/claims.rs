//! Claims: which pipelines this agent owns under which epoch, from assignments to releases, and their specs.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

use jiff::Timestamp;
use xene_schemas::{
    meta::{Epoch, PipelineKey, Revision, RunName, SpecHash},
    phase::Reason,
    pipeline::Autonomy,
    wire::control::{AgentMessage, Assignment, Assignments, Released, SetWanted},
};

use super::{
    Agent, Session,
    event::{ClaimRow, Effect, Effects, JournalChange},
    lease::below,
    mutant::Mutant,
    runs::{RunEntry, Waiting},
    spec::Spec,
    time::{BootTime, Now},
    triggers::{Come, Hosted, Passed, Slot, host, same_triggers},
};

/// What is known of one pipeline, claimed or not.
#[derive(Debug)]
pub(super) struct Claim {
    /// As journaled.
    pub(super) row: ClaimRow,
    /// The version of the list of claims that had it first.
    pub(super) since: u64,
    /// When it was accepted; only mutants look.
    pub(super) granted_at: Option<BootTime>,
    /// What it runs; `None` until it has come.
    pub(super) spec: Option<Arc<Spec>>,
    /// What it is to run instead, once that has come.
    pub(super) pending: Option<(SpecHash, Revision)>,
    /// Until when due times start what it runs, though it is to run something else; `None`: it is not.
    pub(super) replaced: Option<BootTime>,
    /// Its cron triggers, while it is claimed.
    pub(super) hosted: Vec<Hosted>,
    /// Ticks and runs that wait for their turn, oldest first.
    pub(super) waiting: VecDeque<Waiting>,
    /// Its entry among the due pipelines.
    scheduled: Option<Timestamp>,
}

impl Claim {
    fn new(row: ClaimRow, since: u64) -> Self {
        Self {
            row,
            since,
            granted_at: None,
            spec: None,
            pending: None,
            replaced: None,
            hosted: Vec::new(),
            waiting: VecDeque::new(),
            scheduled: None,
        }
    }

    /// Specs that it could use and that are not at hand.
    pub(super) fn lacks(&self) -> impl Iterator<Item = SpecHash> {
        let pending = self.pending.as_ref().map(|(hash, _)| *hash);
        pending.into_iter().chain(self.waiting.iter().filter_map(Waiting::lacks))
    }

    /// True if due times may start what it runs: that is in effect, or was when the lease that counts was given.
    pub(super) fn is_in_effect(&self, now: Now) -> bool {
        self.replaced.is_none_or(|until| now.boot < until)
    }

    pub(super) fn hosted(&self, slot: &Slot) -> Option<&Hosted> {
        self.hosted.iter().find(|hosted| *hosted.name() == slot.trigger)
    }

    /// Raises the watermark, though never past a tick that still waits for its turn.
    fn looked_up_to(&mut self, newest: Timestamp) {
        let waiting = self.waiting.iter().filter_map(|waiting| waiting.slot().map(|slot| slot.due)).min();
        let upto = waiting.map_or(newest, |oldest| newest.min(below(oldest)));
        self.row.watermark = self.row.watermark.max(upto);
    }
}

impl Agent {
    pub(super) fn recover_claim(&mut self, key: PipelineKey, row: ClaimRow) {
        let mut claim = Claim::new(row, self.claims_version);
        if claim.row.claimed {
            claim.spec = self.specs.get(&claim.row.spec_hash).cloned();
            self.unconfirmed.insert(key.clone());
            if claim.row.replaced && claim.row.autonomy != Autonomy::Forever {
                // The lease that counts for what was replaced is not known any more.
                claim.replaced = Some(BootTime::from_nanos(0));
            }
        }
        self.claims.insert(key.clone(), claim);
        self.rehost(&key);
    }

    /// Takes the whole set, or what changed in it.
    pub(super) fn assign(&mut self, now: Now, assignments: Assignments, fx: &mut Effects) {
        if self.session != Session::Up {
            return;
        }
        match assignments.base {
            Some(base) if base != self.set_version => {
                let wanted = SetWanted { have: self.set_version };
                fx.now.push(Effect::Send(AgentMessage::SetWanted(wanted)));
                return;
            }
            Some(_) => {
                for key in &assignments.gone {
                    self.drop_claim(now, key, None, fx);
                }
            }
            None => {
                let stay: BTreeSet<&PipelineKey> = assignments.set.iter().map(|a| &a.pipeline).collect();
                let claimed = self.claims.iter().filter(|(_, claim)| claim.row.claimed);
                let gone: Vec<PipelineKey> =
                    claimed.filter(|(key, _)| !stay.contains(key)).map(|(key, _)| key.clone()).collect();
                for key in gone {
                    self.drop_claim(now, &key, None, fx);
                }
            }
        }
        self.set_version = assignments.version;
        let keeps = self.mutants.is(Mutant::DeltaKeepsSpec) && assignments.base.is_some();
        for mut assignment in assignments.set {
            if let Some(claim) = self.claims.get(&assignment.pipeline).filter(|claim| keeps && claim.row.claimed) {
                assignment.spec_hash = claim.row.spec_hash;
            }
            self.assign_one(now, assignment, fx);
        }
        self.forget_unwanted_files(fx);
    }

    fn assign_one(&mut self, now: Now, assignment: Assignment, fx: &mut Effects) {
        let key = assignment.pipeline.clone();
        let seen = self.claims.get(&key).map(|claim| claim.row.epoch).unwrap_or_default();
        let known = self.claims.contains_key(&key);
        let reopens = self.mutants.is(Mutant::NoHighestEpoch) && known && assignment.epoch != seen;
        if !known || assignment.epoch > seen || reopens {
            let takes = !assignment.revoked && !self.draining;
            self.accept(now, assignment, takes, fx);
            if !takes {
                self.release(&key, fx);
            }
            return;
        }
        if assignment.epoch < seen {
            return;
        }
        let Some(claim) = self.claims.get_mut(&key) else { return };
        if assignment.revoked || self.draining || !claim.row.claimed {
            // Given back already, or now: said again until the pipeline leaves the set.
            self.release(&key, fx);
            return;
        }
        if std::mem::take(&mut claim.row.releasing) {
            fx.commit.push(JournalChange::PutClaim(key.clone(), claim.row.clone()));
            self.parked.insert(key.clone());
            self.unpark(now, fx);
        }
        let Some(claim) = self.claims.get(&key) else { return };
        if claim.row.suspended != assignment.suspended {
            if assignment.suspended || self.lease.slot_now(now).is_some() {
                self.suspend(now, &key, assignment.suspended, fx);
            } else {
                // What was due meanwhile can't be told yet.
                self.resuming.insert(key.clone());
            }
        } else {
            self.resuming.remove(&key);
        }
        let Some(claim) = self.claims.get_mut(&key) else { return };
        let fewer = assignment.elsewhere < claim.row.elsewhere;
        if std::mem::replace(&mut claim.row.elsewhere, assignment.elsewhere) != assignment.elsewhere {
            fx.commit.push(JournalChange::PutClaim(key.clone(), claim.row.clone()));
        }
        let changed = claim.row.autonomy != assignment.autonomy;
        claim.row.autonomy = assignment.autonomy;
        if changed {
            self.claims_version += 1;
            self.renew_soon = true;
            fx.commit.push(JournalChange::PutClaim(key.clone(), claim.row.clone()));
            self.unconfirmed.insert(key.clone());
            self.bring_forward(now, &key, fx);
        }
        self.want_spec(now, &key, assignment.spec_hash, assignment.revision, fx);
        if fewer {
            self.start_waiting(now, &key, fx);
        }
    }

    /// Rule 3: only an epoch above the highest seen, and no slot before its first.
    fn accept(&mut self, now: Now, assignment: Assignment, takes: bool, fx: &mut Effects) {
        let key = assignment.pipeline;
        self.drop_waiting(&key, fx);
        self.holders.leave(&key);
        let before = self.claims.remove(&key);
        if let Some(scheduled) = before.as_ref().and_then(|claim| claim.scheduled) {
            self.due.remove(&(scheduled, key.clone()));
        }
        let given = below(assignment.not_before);
        let watermark = match before.as_ref().map(|before| before.row.watermark) {
            Some(own) if self.mutants.is(Mutant::WatermarksNotMerged) => own,
            own => given.max(own.unwrap_or(given)),
        };
        self.claims_version += 1;
        let row = ClaimRow {
            epoch: assignment.epoch,
            claimed: takes,
            autonomy: assignment.autonomy,
            watermark,
            slots_after: watermark.max(given),
            spec_hash: assignment.spec_hash,
            revision: assignment.revision.clone(),
            confirmed: false,
            suspended: assignment.suspended,
            elsewhere: assignment.elsewhere,
            replaced: false,
            releasing: false,
        };
        fx.commit.push(JournalChange::PutClaim(key.clone(), row.clone()));
        let mut claim = Claim::new(row, self.claims_version);
        claim.granted_at = Some(now.boot);
        self.claims.insert(key.clone(), claim);
        if takes {
            self.unconfirmed.insert(key.clone());
            self.renew_soon = true;
            self.want_spec(now, &key, assignment.spec_hash, assignment.revision, fx);
        }
    }

    /// A person suspended it, or took that back. What was due meanwhile stays without a run.
    pub(super) fn suspend(&mut self, now: Now, key: &PipelineKey, suspended: bool, fx: &mut Effects) {
        let slot_now = self.lease.slot_now(now);
        let Some(claim) = self.claims.get_mut(key) else { return };
        let mut come = Come::default();
        if let Some(slot_now) = slot_now.filter(|_| claim.row.suspended) {
            claim.hosted.iter_mut().for_each(|hosted| hosted.come(slot_now, &mut come));
        }
        if let Some(newest) = come.newest {
            claim.looked_up_to(newest);
        }
        claim.row.suspended = suspended;
        fx.commit.push(JournalChange::PutClaim(key.clone(), claim.row.clone()));
        for passed in come.skipped {
            self.skip(key, passed, fx);
        }
        self.rehost(key);
    }

    /// Runs what is at hand until the new spec has come, though for no longer than if nothing had been heard of it: no
    /// later renewal counts for what was replaced.
    fn want_spec(&mut self, now: Now, key: &PipelineKey, hash: SpecHash, revision: Revision, fx: &mut Effects) {
        let limit = self.claims.get(key).and_then(|claim| self.limit_of(now, claim)).unwrap_or(now.boot);
        let goes_on = self.mutants.is(Mutant::ReplacedSpecGoesOn);
        let Some(claim) = self.claims.get_mut(key) else { return };
        if claim.spec.is_some() && claim.row.spec_hash == hash {
            (claim.pending, claim.replaced) = (None, None);
            if std::mem::take(&mut claim.row.replaced) {
                fx.commit.push(JournalChange::PutClaim(key.clone(), claim.row.clone()));
                self.schedule(key);
                self.start_waiting(now, key, fx);
            }
            return;
        }
        claim.pending = Some((hash, revision));
        if self.specs.contains_key(&hash) {
            self.adopt(now, key, fx);
            return;
        }
        self.wanted.insert(hash);
        if claim.spec.is_some() && !goes_on {
            claim.replaced = Some(claim.replaced.map_or(limit, |until| until.min(limit)));
            if !std::mem::replace(&mut claim.row.replaced, true) {
                fx.commit.push(JournalChange::PutClaim(key.clone(), claim.row.clone()));
            }
        }
    }

    /// Specs have come: whoever waits for one goes on with it, once its files are here, too.
    pub(super) fn specs_came(&mut self, now: Now, specs: Vec<Vec<u8>>, fx: &mut Effects) {
        for bytes in specs {
            let hash = SpecHash::of(&bytes);
            match Spec::new(&bytes) {
                Ok((spec, pipeline)) if pipeline.files.is_empty() => {
                    self.spec_complete(now, &pipeline.key, (hash, spec, bytes), fx);
                }
                Ok((_, pipeline)) => {
                    if self.claims.get(&pipeline.key).is_some_and(|claim| claim.lacks().any(|lacked| lacked == hash)) {
                        self.arriving.insert(hash, bytes);
                        // Files stay for as long as a spec in the journal names them, so they come first.
                        fx.then.push(Effect::FetchFiles { spec: hash, files: pipeline.files });
                    }
                }
                Err(error) => {
                    fx.now.push(Effect::Alert(format!("a spec can't be read by this version: {error}")));
                }
            }
        }
    }

    /// All files of a spec are here.
    pub(super) fn files_ready(&mut self, now: Now, hash: SpecHash, fx: &mut Effects) {
        let Some(bytes) = self.arriving.remove(&hash) else { return };
        // It could be read when it came.
        if let Ok((spec, pipeline)) = Spec::new(&bytes) {
            self.spec_complete(now, &pipeline.key, (hash, spec, bytes), fx);
        }
    }

    fn spec_complete(
        &mut self,
        now: Now,
        key: &PipelineKey,
        (hash, spec, bytes): (SpecHash, Arc<Spec>, Vec<u8>),
        fx: &mut Effects,
    ) {
        let lacks = |claim: &&mut Claim| claim.lacks().any(|lacked| lacked == hash);
        let Some(claim) = self.claims.get_mut(key).filter(lacks) else { return };
        claim.waiting.iter_mut().for_each(|waiting| waiting.provide(hash, &spec));
        if self.specs.insert(hash, spec).is_none() {
            fx.commit.push(JournalChange::PutSpec(hash, bytes));
        }
        self.adopt(now, key, fx);
        self.start_waiting(now, key, fx);
    }

    /// Specs that were on their way and that nobody wants any more.
    fn forget_unwanted_files(&mut self, fx: &mut Effects) {
        if self.arriving.is_empty() {
            return;
        }
        let wanted: BTreeSet<SpecHash> = self.claims.values().flat_map(Claim::lacks).collect();
        self.arriving.retain(|hash, _| {
            let stays = wanted.contains(hash);
            if !stays {
                fx.then.push(Effect::ForgetFiles(*hash));
            }
            stays
        });
    }

    /// The pending spec of a claim is here: host its triggers. The watermark stays, and a trigger that was edited
    /// does not fire the past.
    fn adopt(&mut self, now: Now, key: &PipelineKey, fx: &mut Effects) {
        let slot_now = self.lease.slot_now(now);
        let Some(claim) = self.claims.get_mut(key) else { return };
        let Some((hash, revision)) = claim.pending.take_if(|(hash, _)| self.specs.contains_key(hash)) else { return };
        let Some(spec) = self.specs.get(&hash).cloned() else { return };
        let old_hash = claim.row.spec_hash;
        let old = claim.spec.replace(spec.clone());
        let mut passed = Vec::new();
        if let (Some(old), Some(slot_now)) = (&old, slot_now)
            && let (Some(old), Some(new)) = (old.read(), spec.read())
            && !same_triggers(&old, &new)
        {
            claim.row.slots_after = claim.row.slots_after.max(slot_now);
            passed = claim.hosted.iter_mut().filter_map(|hosted| hosted.pass_over(slot_now)).collect();
        }
        (claim.row.spec_hash, claim.row.revision, claim.row.replaced) = (hash, revision, false);
        claim.replaced = None;
        fx.commit.push(JournalChange::PutClaim(key.clone(), claim.row.clone()));
        drop(old);
        for passed in passed {
            self.skip(key, passed, fx);
        }
        self.rehost(key);
        self.remove_if_unused(old_hash, fx);
        self.parked.remove(key);
        self.start_waiting(now, key, fx);
    }

    /// Hosts the triggers that the spec in effect has.
    fn rehost(&mut self, key: &PipelineKey) {
        self.holders.leave(key);
        let Some(claim) = self.claims.get_mut(key) else { return };
        claim.hosted = Vec::new();
        if claim.row.claimed
            && let Some(spec) = claim.spec.as_ref().and_then(Spec::read)
        {
            let (mut hosted, refused) = host(&spec, claim.row.slots_after, claim.row.watermark);
            hosted.iter_mut().filter(|_| claim.row.suspended).for_each(Hosted::suspend);
            for error in refused {
                tracing::warn!(pipeline = %key, %error, "a cron trigger can't be used");
            }
            claim.hosted = hosted;
            self.holders.enter(&spec);
            // Ticks that wait for their turn have been looked at.
            let waiting = claim.waiting.iter().filter_map(|waiting| waiting.slot().map(|slot| slot.due)).max();
            if let Some(waiting) = waiting {
                claim.hosted.iter_mut().for_each(|hosted| hosted.come(waiting, &mut Come::default()));
            }
        }
        self.schedule(key);
    }

    /// Enters the pipeline where its next slot comes.
    pub(super) fn schedule(&mut self, key: &PipelineKey) {
        let Some(claim) = self.claims.get_mut(key) else { return };
        if let Some(scheduled) = claim.scheduled.take() {
            self.due.remove(&(scheduled, key.clone()));
        }
        claim.scheduled = claim.hosted.iter().filter_map(Hosted::next_due).min();
        if let Some(due) = claim.scheduled {
            self.due.insert((due, key.clone()));
        }
    }

    /// A slot of this pipeline has come.
    pub(super) fn tick(&mut self, now: Now, slot_now: Timestamp, key: &PipelineKey, fx: &mut Effects) {
        let live = self.may_fire(now, key);
        let Some(claim) = self.claims.get_mut(key) else { return };
        if let Some(scheduled) = claim.scheduled.take() {
            self.due.remove(&(scheduled, key.clone()));
        }
        if !live {
            self.parked.insert(key.clone());
            return;
        }
        let mut come = Come::default();
        for hosted in &mut claim.hosted {
            hosted.come(slot_now, &mut come);
        }
        // Rule 7: only slots above the watermark. What a suspended trigger passes over counts as looked at.
        come.start.retain(|slot| slot.due > claim.row.watermark);
        come.start.sort_unstable();
        for slot in come.start {
            let all = claim.hosted(&slot).is_some_and(Hosted::wants_all);
            let same = |waiting: &&mut Waiting| waiting.slot().is_some_and(|waiting| waiting.trigger == slot.trigger);
            match claim.waiting.iter_mut().find(same).filter(|_| !all) {
                // It takes the turn of the older one: at the end of the queue a trigger that comes often never had one.
                Some(older) => {
                    let older = older.come_again(now.boot, slot);
                    come.skipped.extend(older.map(|slot| Passed::one(slot, Reason::COALESCED)));
                }
                None => claim.waiting.push_back(Waiting::tick(now.boot, slot)),
            }
        }
        if let Some(newest) = come.newest {
            claim.looked_up_to(newest);
        }
        let passed_over = !come.skipped.is_empty();
        for passed in come.skipped {
            self.skip(key, passed, fx);
        }
        if passed_over && let Some(claim) = self.claims.get(key) {
            fx.commit.push(JournalChange::PutClaim(key.clone(), claim.row.clone()));
        }
        self.schedule(key);
        self.start_waiting(now, key, fx);
    }

    /// True if the pipeline is claimed under this epoch.
    pub(super) fn is_claimed(&self, key: &PipelineKey, epoch: Epoch) -> bool {
        self.claims.get(key).is_some_and(|claim| claim.row.claimed && claim.row.epoch == epoch)
    }

    /// The claim is not ours any more, under this epoch or whatever it is.
    pub(super) fn drop_claim(&mut self, now: Now, key: &PipelineKey, epoch: Option<Epoch>, fx: &mut Effects) {
        let Some(claim) = self.claims.get(key) else { return };
        if claim.row.claimed && epoch.is_none_or(|epoch| epoch == claim.row.epoch) {
            self.doubt_bounds(now, Some(key), fx);
            self.unclaim(key, fx);
        }
    }

    /// Stops starting, durably. Runs in flight go on.
    fn unclaim(&mut self, key: &PipelineKey, fx: &mut Effects) {
        self.drop_waiting(key, fx);
        let Some(claim) = self.claims.get_mut(key) else { return };
        let was = std::mem::replace(&mut claim.row.claimed, false);
        (claim.row.confirmed, claim.row.replaced, claim.row.releasing) = (false, false, false);
        claim.hosted.clear();
        (claim.pending, claim.replaced) = (None, None);
        let spec = claim.spec.take().map(|_| claim.row.spec_hash);
        fx.commit.push(JournalChange::PutClaim(key.clone(), claim.row.clone()));
        if was {
            self.claims_version += 1;
            self.renew_soon = true;
        }
        self.unconfirmed.remove(key);
        self.parked.remove(key);
        self.holders.leave(key);
        self.schedule(key);
        if let Some(spec) = spec {
            self.remove_if_unused(spec, fx);
        }
    }

    /// Rule 5: gives a pipeline back and says how far it came. Runs that have not begun go back with it.
    pub(super) fn release(&mut self, key: &PipelineKey, fx: &mut Effects) {
        let waits = self.is_held(key);
        if let Some(claim) = self.claims.get_mut(key).filter(|claim| claim.row.claimed && waits) {
            // Its leases go on meanwhile, and so do its runs; no other process of this agent is to start any.
            if !std::mem::replace(&mut claim.row.releasing, true) {
                fx.commit.push(JournalChange::PutClaim(key.clone(), claim.row.clone()));
            }
            return;
        }
        self.unclaim(key, fx);
        let Some(claim) = self.claims.get(key) else { return };
        // Ended ones too: the controller may not have heard yet that they began.
        let begun = |run: &RunEntry| run.key == *key && !run.is_intent();
        let running: Vec<RunName> = self.runs.iter().filter(|(_, run)| begun(run)).map(|(run, _)| *run).collect();
        let (epoch, watermark) = (claim.row.epoch, claim.row.watermark);
        // The next owner counts those that go on: that they began is known when the pipeline is given away.
        self.say_facts(fx);
        fx.then.push(Effect::Send(AgentMessage::Released(Released {
            pipeline: key.clone(),
            epoch,
            watermark,
            running,
            draining: self.draining,
        })));
    }

    /// Ticks that wait above the watermark are the next owner's, and it tells what became of them if there is one; those
    /// at or below it nobody can start any more.
    fn drop_waiting(&mut self, key: &PipelineKey, fx: &mut Effects) {
        let Some(claim) = self.claims.get_mut(key) else { return };
        let waiting = std::mem::take(&mut claim.waiting);
        for slot in waiting.iter().filter_map(Waiting::slot) {
            self.skip(key, Passed::one(slot.clone(), Reason::MOVING), fx);
        }
        let specs: Vec<SpecHash> = waiting.iter().filter_map(Waiting::spec_hash).collect();
        drop(waiting);
        for spec in specs {
            self.remove_if_unused(spec, fx);
        }
        self.timers.disarm(&super::Timer::Queue(key.clone()));
    }

    /// The operator wants the agent to stop: everything is given back.
    pub(super) fn drain(&mut self, fx: &mut Effects) {
        self.draining = true;
        let claimed = self.claims.iter().filter(|(_, claim)| claim.row.claimed);
        let claimed: Vec<PipelineKey> = claimed.map(|(key, _)| key.clone()).collect();
        for key in claimed {
            self.release(&key, fx);
        }
    }

    /// Renewals of this version of the claims were answered: those without end need no lease from here on.
    pub(super) fn confirm(&mut self, version: u64, fx: &mut Effects) {
        let claims = &mut self.claims;
        self.unconfirmed.retain(|key| {
            let Some(claim) = claims.get_mut(key).filter(|claim| claim.row.claimed) else { return false };
            if claim.since > version {
                return true;
            }
            if !claim.row.confirmed && claim.row.autonomy == Autonomy::Forever {
                claim.row.confirmed = true;
                fx.commit.push(JournalChange::PutClaim(key.clone(), claim.row.clone()));
            }
            false
        });
    }

    /// Specs that neither a claim nor a run needs.
    pub(super) fn remove_unused_specs(&mut self, fx: &mut Effects) {
        let hashes: Vec<SpecHash> = self.specs.keys().copied().collect();
        for hash in hashes {
            self.remove_if_unused(hash, fx);
        }
    }

    pub(super) fn remove_if_unused(&mut self, hash: SpecHash, fx: &mut Effects) {
        // Claims, runs and their machines hold clones: one left means that only this table has it.
        if self.specs.get(&hash).is_some_and(|spec| Arc::strong_count(spec) == 1) {
            self.specs.remove(&hash);
            fx.commit.push(JournalChange::DeleteSpec(hash));
        }
    }

    /// All runs that have begun and not ended, of any pipeline.
    pub(super) fn running(&self) -> Vec<RunName> {
        self.runs.iter().filter(|(_, run)| run.is_running()).map(|(run, _)| *run).collect()
    }
}
