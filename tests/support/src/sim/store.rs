//! What survives a crash: the controller's store and an agent's journal, as maps, and their laws.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::Timestamp;
use xene::decide::rows::{
    AfterRow, AgentRow, Change, ControllerRow, EndedRun, JoinTokenRow, LedgerRow, Loaded, MessageRow, NotifierHealth,
    NotifierRow, OwnerRow, PipelineRow, RunRow, Suspendable, SuspensionRow, WorkflowRow,
};
use xene_agent::decide::event::{JournalChange, Recovered};
use xene_schemas::{
    meta::{AgentName, Name, PipelineKey, RunName, SpecHash},
    source::SourceStatus,
};

use super::invariants::Violation;

/// A due time of a trigger of a pipeline.
pub(super) type LedgerKey = (PipelineKey, Name, Timestamp);

/// The controller's store.
#[derive(Debug, Default, Clone)]
pub(super) struct Store {
    controller: Option<ControllerRow>,
    /// Workflows in effect.
    pub(super) workflows: BTreeMap<Name, WorkflowRow>,
    /// Pipelines in effect.
    pub(super) pipelines: BTreeMap<PipelineKey, PipelineRow>,
    /// Compiled specs.
    pub(super) specs: BTreeMap<SpecHash, Arc<[u8]>>,
    /// Who owns what.
    pub(super) owners: BTreeMap<PipelineKey, OwnerRow>,
    /// Who is enrolled.
    pub(super) agents: BTreeMap<AgentName, AgentRow>,
    forgotten: BTreeMap<AgentName, Timestamp>,
    /// All runs that are kept.
    pub(super) runs: BTreeMap<RunName, RunRow>,
    /// Runs that retention took.
    pub(super) retired: BTreeSet<RunName>,
    /// What pipelines have still to follow.
    after: BTreeMap<PipelineKey, AfterRow>,
    /// What is suspended by command.
    suspensions: BTreeMap<Suspendable, SuspensionRow>,
    /// What became of due times.
    pub(super) ledger: BTreeMap<LedgerKey, LedgerRow>,
    /// Notifiers in effect.
    pub(super) notifiers: BTreeMap<Name, NotifierRow>,
    /// What they have to deliver.
    pub(super) messages: BTreeMap<(Name, u64), MessageRow>,
    notifier_health: BTreeMap<Name, NotifierHealth>,
    tokens: BTreeMap<String, JoinTokenRow>,
    source: Option<SourceStatus>,
}

impl Store {
    /// Applies one change; epochs and watermarks may not fall (I3, I10).
    pub(super) fn apply(&mut self, change: Change) -> Result<(), Violation> {
        match change {
            Change::PutController(row) => self.controller = Some(row),
            Change::PutWorkflow(row) => _ = self.workflows.insert(row.metadata.name.clone(), *row),
            Change::DeleteWorkflow(name) => _ = self.workflows.remove(&name),
            Change::PutPipeline(row) => _ = self.pipelines.insert(row.key.clone(), *row),
            Change::DeletePipeline(key) => _ = self.pipelines.remove(&key),
            Change::PutSpec(hash, bytes) => _ = self.specs.insert(hash, bytes),
            Change::PutOwner(key, row) => {
                if let Some(old) = self.owners.get(&key) {
                    Violation::if_falls("store", &key, (old.epoch, row.epoch), (old.watermark, row.watermark))?;
                }
                self.owners.insert(key, row);
            }
            Change::PutAgent(row) => _ = self.agents.insert(row.name.clone(), *row),
            Change::DeleteAgent(name) => _ = self.agents.remove(&name),
            Change::PutForgotten(agents) => self.forgotten = agents,
            Change::PutRun(row) => _ = self.runs.insert(row.run.metadata.name, *row),
            Change::DeleteRun(run) => {
                self.runs.remove(&run);
                self.retired.insert(run);
            }
            Change::PutSource(status) => self.source = Some(*status),
            Change::PutJoinToken(row) => _ = self.tokens.insert(row.id.clone(), row),
            Change::DeleteJoinToken(id) => _ = self.tokens.remove(&id),
            Change::PutAfter(key, Some(row)) => _ = self.after.insert(key, row),
            Change::PutAfter(key, None) => _ = self.after.remove(&key),
            Change::PutSuspension(row) => _ = self.suspensions.insert(row.what.clone(), row),
            Change::Redigest => {}
            Change::DeleteSuspension(what) => _ = self.suspensions.remove(&what),
            Change::PutApiToken(_) | Change::DeleteApiToken(_) => {}
            Change::PutNotifier(row) => _ = self.notifiers.insert(row.metadata.name.clone(), *row),
            Change::DeleteNotifier(name) => {
                self.notifiers.remove(&name);
                self.notifier_health.remove(&name);
            }
            Change::PutMessage(row) => _ = self.messages.insert((row.notifier.clone(), row.number), *row),
            Change::DeleteMessage(notifier, number, _) => _ = self.messages.remove(&(notifier, number)),
            Change::PutNotifierHealth(name, health) => _ = self.notifier_health.insert(name, health),
            Change::PutLedger(row) => {
                let key = (row.pipeline.clone(), row.trigger.clone(), row.slot);
                if self.ledger.get(&key).is_none_or(|known| !row.yields_to(known)) {
                    self.ledger.insert(key, row);
                }
            }
            Change::AddEvent(_) | Change::PutFile(..) | Change::PutDelivery(..) => {}
        }
        Ok(())
    }

    /// What a controller that starts finds.
    pub(super) fn load(&self) -> Loaded {
        let (mut active_runs, mut ended_runs) = (Vec::new(), BTreeMap::<PipelineKey, Vec<EndedRun>>::new());
        for row in self.runs.values() {
            let status = &row.run.status;
            if status.phase.is_final() {
                ended_runs
                    .entry(row.run.spec.key())
                    .or_default()
                    .push(EndedRun::new(&row.run, status.finished_at.unwrap_or(Timestamp::UNIX_EPOCH)));
            } else {
                active_runs.push(row.clone());
            }
        }
        ended_runs.values_mut().for_each(|runs| runs.sort_by_key(|run| run.finished_at));
        Loaded {
            controller: self.controller.clone(),
            workflows: self.workflows.values().cloned().collect(),
            pipelines: self.pipelines.values().cloned().collect(),
            owners: self.owners.iter().map(|(key, row)| (key.clone(), row.clone())).collect(),
            agents: self.agents.values().cloned().collect(),
            forgotten: self.forgotten.clone(),
            active_runs,
            ended_runs,
            join_tokens: self.tokens.values().cloned().collect(),
            api_tokens: Vec::new(),
            after: self.after.iter().map(|(key, row)| (key.clone(), row.clone())).collect(),
            suspensions: self.suspensions.values().cloned().collect(),
            notifiers: self.notifiers.values().cloned().collect(),
            messages: self.messages.values().cloned().collect(),
            notifier_health: self.notifier_health.iter().map(|(name, row)| (name.clone(), row.clone())).collect(),
            source: self.source.clone(),
            files: Vec::new(),
        }
    }
}

/// Applies one change to an agent's journal; epochs and watermarks may not fall (I3, I10).
pub(super) fn apply_to_journal(journal: &mut Recovered, agent: &Name, change: JournalChange) -> Result<(), Violation> {
    match change {
        JournalChange::PutClaim(key, row) => {
            if let Some(old) = journal.claims.get(&key) {
                Violation::if_falls(agent.as_str(), &key, (old.epoch, row.epoch), (old.watermark, row.watermark))?;
            }
            journal.claims.insert(key, row);
        }
        JournalChange::PutRun(run, row) => {
            if let Some(facts) = journal.facts.get_mut(&run) {
                facts.retain(|index, _| *index >= row.acknowledged);
            }
            journal.runs.insert(run, row);
        }
        JournalChange::PutFact(run, index, event) => {
            journal.facts.entry(run).or_default().insert(index, event);
        }
        JournalChange::DeleteRun(run) => {
            journal.runs.remove(&run);
            journal.facts.remove(&run);
        }
        JournalChange::PutSpec(hash, bytes) => _ = journal.specs.insert(hash, bytes),
        JournalChange::DeleteSpec(hash) => _ = journal.specs.remove(&hash),
        JournalChange::PutSkipped(number, row) => _ = journal.skipped.insert(number, row),
        JournalChange::DeleteSkipped(next) => journal.skipped.retain(|number, _| *number >= next),
        JournalChange::PutStore(seen) => journal.store = Some(seen),
        JournalChange::PutBoot(boot) => journal.boot_id = Some(boot),
        JournalChange::PutName(name) => journal.name = Some(name),
        JournalChange::PutToken(token) => journal.token = Some(token),
    }
    Ok(())
}
