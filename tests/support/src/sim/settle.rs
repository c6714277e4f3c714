//! The end of a world: everything is mended, time passes, and then all must be as desired (I5, I6, I7, I13, I15).

use std::collections::BTreeSet;

use xene::decide::{event::Command, rows::Suspendable};
use xene_schemas::{
    meta::{AgentName, PipelineKey},
    phase::RunPhase,
    pipeline::{Autonomy, CompiledPipeline},
};

use super::{clock::SECOND, history::tail, invariants::Violation, world::World};

/// The largest L of any setup that has an end.
const LONGEST: u64 = 120;
/// L while the longest downtime that is announced.
const ANNOUNCED: u64 = 230;
/// After a restore nothing is granted for W of the default L.
const RECOVERY: u64 = 300;
/// So many approvals are behind each other at most: runs that queue, each with one.
const MOST_QUEUED: u32 = 300;

impl World {
    /// The whole life of a world.
    ///
    /// # Errors
    /// With the first law that is broken.
    pub fn live(&mut self) -> Result<super::Outcome, Violation> {
        self.begin()?;
        self.start_agents();
        self.acting = true;
        self.later(10 * SECOND, super::world::What::Act);
        self.run_until(self.at + self.setup.horizon * SECOND)?;
        self.acting = false;
        // What came in while a process stood still waits in its queue, and commits while the disk was full: both go on by
        // themselves.
        let controller = [self.controller.paused, self.controller.full_until];
        let still = self.agents.iter().map(|node| node.paused).chain(controller).max();
        self.run_until(self.at.max(still.unwrap_or_default()))?;
        self.mend()?;
        // W, by a clock that is slow; a longer L that was shortened; a link that breaks once more.
        let longest = match (self.restored, self.announced) {
            (true, _) => RECOVERY,
            (false, true) => ANNOUNCED,
            (false, false) => LONGEST,
        };
        let wait = (longest * 105 / 100 + self.setup.pause_margin + 10) * 100 / 95 + 60;
        self.run_until(self.at + wait * SECOND)?;
        self.check_settled()?;
        // A commit on a quiet system is everywhere within a second or two; then runs end.
        self.source.suspend();
        self.compile()?;
        let quick = 12 * self.setup.delay + 2 * SECOND;
        self.run_until(self.at + quick)?;
        self.check_settled()?;
        for _ in 0..MOST_QUEUED {
            // What queued behind an approval would wait for its timeout each.
            self.approve_all()?;
            self.run_until(self.at + 2 * SECOND)?;
            if self.check_runs().is_ok() {
                break;
            }
        }
        self.check_runs()?;
        self.check_notifiers()?;
        self.check_rebuilt()?;
        self.outcome.starts = self.witness.starts.len() as u64;
        Ok(self.outcome)
    }

    /// Faults stop: all links whole, all clocks right, all processes up, no agent drained.
    pub(super) fn mend(&mut self) -> Result<(), Violation> {
        self.history.note(self.at, "world", || "is mended".into());
        (self.setup.crashes, self.setup.pauses, self.setup.slow, self.setup.outage) = (0, 0, 0, 2);
        let was_hostile = std::mem::take(&mut self.setup.hostile);
        self.mail.mended = true;
        self.controller.full_until = self.at;
        self.controller.clock.set_offset(0);
        self.start_controller()?;
        let store = &self.controller.store;
        let workflows = store.workflows.keys().cloned().map(Suspendable::Workflow);
        let pipelines = store.pipelines.keys().cloned().map(Suspendable::Pipeline);
        for what in [Suspendable::Source].into_iter().chain(workflows).chain(pipelines).collect::<Vec<_>>() {
            self.ask(Command::Resume { what, by: "me".into() })?;
        }
        self.ask(Command::Unpause { by: "me".into() })?;
        self.approve_prune()?;
        for agent in 0..self.agents.len() {
            if self.agents[agent].copy_of.is_some() {
                self.crash_agent(agent)?;
                continue;
            }
            self.agents[agent].clock.set_offset(0);
            self.heal(agent);
            self.agents[agent].off_until = self.at;
            self.start_agent(agent)?;
            // One that was answered may be lost with the controller, as the disk was full.
            self.agents[agent].drained = false;
            // So may what was said of one that will not be back: who had no answer says it again.
            let name = self.agents[agent].name.clone();
            let again = if self.agents[agent].forgotten { Command::Forget(name) } else { Command::Undrain(name) };
            self.ask(again)?;
            if was_hostile {
                self.break_session(agent, SECOND);
            }
        }
        Ok(())
    }

    /// I7 and I13: what is in effect is what the newest commit asks for; each pipeline has an owner if any agent may
    /// have it; each agent hosts just what it should, with the spec in effect, and its lease runs.
    fn check_settled(&self) -> Result<(), Violation> {
        let (law, store) = ("I13 what is desired is in effect", &self.controller.store);
        let Some(controller) = &self.controller.machine else {
            return Violation::of(law, "the controller is down");
        };
        let desired = self.source.desired();
        let bodies = desired.workflows.values().filter_map(|workflow| workflow.body.as_ref());
        let wanted: Vec<_> = bodies.flat_map(|body| body.pipelines.values()).collect();
        if store.pipelines.len() != wanted.len() || store.workflows.len() != desired.workflows.len() {
            return Violation::of(law, format!("{} pipelines instead of {}", store.pipelines.len(), wanted.len()));
        }
        for pipeline in &wanted {
            let key = &pipeline.key;
            let hash = pipeline.encode().0;
            if store.pipelines.get(key).is_none_or(|row| row.spec_hash != hash) {
                return Violation::of(law, format!("the store has another spec of {key}"));
            }
            let group = pipeline.spec.concurrency.group.as_ref();
            let shares = |other: &&&CompiledPipeline| {
                other.key == *key || (group.is_some() && other.spec.concurrency.group.as_ref() == group)
            };
            let members: Vec<_> = wanted.iter().filter(shares).collect();
            if members.iter().any(|member| self.waits_for_a_person(&member.key)) {
                continue;
            }
            let anywhere = members.iter().all(|member| member.spec.agents.labels.is_empty());
            let fits = |at: usize| anywhere || at.is_multiple_of(2);
            let owners: BTreeSet<_> =
                members.iter().filter_map(|member| store.owners.get(&member.key)?.owner.as_ref()).collect();
            if owners.len() > 1 {
                return Violation::of("a group is on one agent", format!("{key} and its group are on {owners:?}"));
            }
            let nobody = !(self.agents.iter().enumerate()).any(|(at, node)| !node.forgotten && fits(at));
            let owner = store.owners.get(key).and_then(|row| row.owner.as_ref());
            match owner.and_then(|owner| self.agents.iter().find(|node| node.name == *owner)) {
                None if nobody => {}
                // Nobody else could have it, and it goes on if its owner comes back: that one never will.
                Some(node) if nobody && node.revoked_at.is_some() => {}
                None => {
                    let why = store.owners.get(key).map(|row| row.message.clone());
                    return Violation::of("I7 a pipeline has an owner", format!("{key} has none: {why:?}"));
                }
                Some(node) => {
                    let row = node.machine.as_ref().and_then(|agent| agent.claims().find(|(of, _)| *of == key));
                    let Some((_, row)) = row.filter(|(_, row)| row.claimed) else {
                        let row = store.owners.get(key);
                        return Violation::of(law, format!("{} does not host {key}: {row:?}", node.name));
                    };
                    if row.spec_hash != hash || controller.owner(key).is_none_or(|owned| owned.epoch != row.epoch) {
                        return Violation::of(law, format!("{} hosts another {key}", node.name));
                    }
                    if !node.may_start(self.at, key) {
                        return Violation::of("I7 an owner is alive", format!("{} may not start {key}", node.name));
                    }
                }
            }
        }
        self.check_nothing_else_is_hosted()
    }

    /// A claim without end whose journal is lost, or that may have been granted after the backup that was restored:
    /// only a person's word frees it.
    fn waits_for_a_person(&self, key: &PipelineKey) -> bool {
        let store = &self.controller.store;
        let asked = store.pipelines.get(key).and_then(|row| row.spec.autonomy);
        let endless = |granted| asked == Some(Autonomy::Forever) || granted == Autonomy::Forever;
        store.owners.get(key).is_some_and(|row| (row.void || row.unsure) && endless(row.autonomy))
    }

    fn check_nothing_else_is_hosted(&self) -> Result<(), Violation> {
        let law = "I13 what is desired is in effect";
        for node in self.agents.iter().filter(|node| !node.forgotten) {
            let Some(machine) = &node.machine else {
                return Violation::of(law, format!("{} is down", node.name));
            };
            let owned = |key: &PipelineKey| {
                let row = self.controller.store.owners.get(key);
                row.is_some_and(|row| row.owner.as_ref() == Some(&node.name))
            };
            if let Some((key, _)) = machine.claims().find(|(key, row)| row.claimed && !owned(key)) {
                return Violation::of(law, format!("{} still hosts {key}", node.name));
            }
        }
        Ok(())
    }

    /// An owner that is revoked, and that nobody could take over from, is none.
    fn may_come(&self, owner: Option<&AgentName>) -> bool {
        let revoked =
            |owner: &AgentName| self.agents.iter().any(|node| node.name == *owner && node.revoked_at.is_some());
        owner.is_some_and(|owner| !revoked(owner))
    }

    /// I6: every run has ended, or its agent is lost and a time is set; I5: every start is on record.
    fn check_runs(&self) -> Result<(), Violation> {
        let store = &self.controller.store;
        for (run, row) in &store.runs {
            let status = &row.run.status;
            let ended = status.phase.is_final() || (status.phase == RunPhase::Unknown && row.give_up_at.is_some());
            let key = row.run.spec.key();
            let waits =
                status.agent.is_none() && store.owners.get(&key).is_some_and(|row| !self.may_come(row.owner.as_ref()));
            let owner = store.owners.get(&key).and_then(|row| row.owner.as_ref());
            let revoked = owner.is_some() && !self.may_come(owner);
            if !ended && !waits && !revoked && !self.waits_for_a_person(&key) {
                let what = format!("{} of {} is {} on {:?}", tail(run), key, status.phase, status.agent);
                return Violation::of("I6 every run ends", what);
            }
        }
        for (run, start) in &self.witness.starts {
            let gone = !start.reportable || self.witness.forgotten.contains(run) || self.agents[start.agent].forgotten;
            if !gone && !store.runs.contains_key(run) && !store.retired.contains(run) {
                let what = format!("{} of {} on {}", tail(run), start.pipeline, self.agents[start.agent].name);
                return Violation::of("I5 every start is on record", what);
            }
        }
        Ok(())
    }
}
