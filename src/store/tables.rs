//! The tables: what is kept under which key, and how one change alters them.

use std::collections::BTreeMap;

use heed::{
    BytesDecode, BytesEncode, Database, RoTxn, RwTxn, WithoutTls,
    byteorder::BE,
    types::{Bytes, DecodeIgnore, Str, U64, Unit},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use xene_schemas::{
    event::Event,
    meta::{AgentName, Name, RunName, SpecHash},
    source::SourceStatus,
};

use super::keys::{ByDelivery, ByHash, ByPipeline, ByPipelineRun, ByRun, BySlot, ByText, NameKey, Row};
use crate::decide::rows::{
    AfterRow, AgentRow, ApiTokenRow, Change, ControllerRow, FileRow, JoinTokenRow, LedgerRow, MessageRow, NewEvent,
    NotifierHealth, NotifierRow, OwnerRow, PipelineRow, RunMark, RunRow, SuspensionRow, WorkflowRow,
};

/// How many tables there are.
pub(super) const COUNT: u32 = 20;

/// Events beyond the newest so many are dropped, so many at a time.
const EVENTS_KEPT: u64 = 100_000;
const EVENTS_DROPPED_AT_ONCE: u64 = 1_000;

mod table_name {
    pub(super) const META: &str = "meta";
    pub(super) const WORKFLOWS: &str = "workflows";
    pub(super) const PIPELINES: &str = "pipelines";
    pub(super) const SPECS: &str = "specs";
    pub(super) const OWNERS: &str = "owners";
    pub(super) const AGENTS: &str = "agents";
    pub(super) const RUNS: &str = "runs";
    pub(super) const RUNS_BY_PIPELINE: &str = "runs-by-pipeline";
    pub(super) const ACTIVE_RUNS: &str = "active-runs";
    pub(super) const EVENTS: &str = "events";
    pub(super) const FILES: &str = "files";
    pub(super) const JOIN_TOKENS: &str = "join-tokens";
    pub(super) const API_TOKENS: &str = "api-tokens";
    pub(super) const LEDGER: &str = "ledger";
    pub(super) const DELIVERIES: &str = "deliveries";
    pub(super) const AFTER: &str = "after";
    pub(super) const SUSPENSIONS: &str = "suspensions";
    pub(super) const NOTIFIERS: &str = "notifiers";
    pub(super) const OUTBOX: &str = "outbox";
    pub(super) const NOTIFIER_HEALTH: &str = "notifier-health";
}

mod meta_key {
    pub(super) const SCHEMA: &str = "schema";
    pub(super) const REVISION: &str = "revision";
    pub(super) const CONTROLLER: &str = "controller";
    pub(super) const SOURCE: &str = "source";
    pub(super) const DIGEST: &str = "digest";
    pub(super) const FORGOTTEN: &str = "forgotten";
}

/// Of all rows that say what is desired, whatever their order: rows that were changed by anybody else do not fit it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Digest([u8; 32]);

impl Digest {
    /// Adds a row, or takes it out again.
    fn toggle(&mut self, table: &str, key: &[u8], row: &[u8]) {
        let mut hash = blake3::Hasher::new();
        for part in [table.as_bytes(), key] {
            hash.update(&(part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        hash.update(row);
        self.0.iter_mut().zip(hash.finalize().as_bytes()).for_each(|(ours, theirs)| *ours ^= theirs);
    }
}

/// All tables of the environment. Each method takes the transaction that it works in.
#[derive(Debug, Clone)]
pub(super) struct Tables {
    /// Single rows by name; the typed views below are the way in.
    meta: Database<Str, Bytes>,
    pub(super) workflows: Database<NameKey, Row<WorkflowRow>>,
    pub(super) pipelines: Database<ByPipeline, Row<PipelineRow>>,
    pub(super) specs: Database<ByHash, Bytes>,
    pub(super) owners: Database<ByPipeline, Row<OwnerRow>>,
    pub(super) agents: Database<NameKey, Row<AgentRow>>,
    pub(super) runs: Database<ByRun, Row<RunRow>>,
    /// An index: every run, under its pipeline.
    pub(super) runs_by_pipeline: Database<ByPipelineRun, Row<RunMark>>,
    /// An index: the runs whose phase is not final.
    pub(super) active_runs: Database<ByRun, Unit>,
    pub(super) events: Database<U64<BE>, Row<Event>>,
    pub(super) files: Database<ByText, Row<FileRecord>>,
    pub(super) join_tokens: Database<ByText, Row<JoinTokenRow>>,
    pub(super) api_tokens: Database<ByText, Row<ApiTokenRow>>,
    pub(super) ledger: Database<BySlot, Row<LedgerRow>>,
    /// The value is the run's name, in the bytes of its key.
    pub(super) deliveries: Database<ByDelivery, ByRun>,
    pub(super) after: Database<ByPipeline, Row<AfterRow>>,
    /// Under what is suspended, as an event's `regarding` names it.
    pub(super) suspensions: Database<ByText, Row<SuspensionRow>>,
    pub(super) notifiers: Database<NameKey, Row<NotifierRow>>,
    /// Under the notifier and the message's number, so that each notifier's are in their order.
    pub(super) outbox: Database<ByText, Row<MessageRow>>,
    pub(super) notifier_health: Database<NameKey, Row<NotifierHealth>>,
}

/// A file's row beside its path, which a key can't always hold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct FileRecord {
    pub(super) path: String,
    pub(super) row: FileRow,
}

/// Where a message lies.
fn message_key(notifier: &Name, number: u64) -> String {
    format!("{notifier}/{number:020}")
}

impl Tables {
    /// Opens all tables, making those that are missing.
    pub(super) fn create(env: &heed::Env<WithoutTls>, txn: &mut RwTxn<'_>) -> Result<Self, heed::Error> {
        Ok(Self {
            meta: env.create_database(txn, Some(table_name::META))?,
            workflows: env.create_database(txn, Some(table_name::WORKFLOWS))?,
            pipelines: env.create_database(txn, Some(table_name::PIPELINES))?,
            specs: env.create_database(txn, Some(table_name::SPECS))?,
            owners: env.create_database(txn, Some(table_name::OWNERS))?,
            agents: env.create_database(txn, Some(table_name::AGENTS))?,
            runs: env.create_database(txn, Some(table_name::RUNS))?,
            runs_by_pipeline: env.create_database(txn, Some(table_name::RUNS_BY_PIPELINE))?,
            active_runs: env.create_database(txn, Some(table_name::ACTIVE_RUNS))?,
            events: env.create_database(txn, Some(table_name::EVENTS))?,
            files: env.create_database(txn, Some(table_name::FILES))?,
            join_tokens: env.create_database(txn, Some(table_name::JOIN_TOKENS))?,
            api_tokens: env.create_database(txn, Some(table_name::API_TOKENS))?,
            ledger: env.create_database(txn, Some(table_name::LEDGER))?,
            deliveries: env.create_database(txn, Some(table_name::DELIVERIES))?,
            after: env.create_database(txn, Some(table_name::AFTER))?,
            suspensions: env.create_database(txn, Some(table_name::SUSPENSIONS))?,
            notifiers: env.create_database(txn, Some(table_name::NOTIFIERS))?,
            outbox: env.create_database(txn, Some(table_name::OUTBOX))?,
            notifier_health: env.create_database(txn, Some(table_name::NOTIFIER_HEALTH))?,
        })
    }

    /// Reads every row of the tables that are there, if they are of this version.
    pub(super) fn read_all(
        env: &heed::Env<WithoutTls>,
        txn: &RoTxn<'_, WithoutTls>,
        version: u64,
    ) -> Result<(), heed::Error> {
        let Some(meta) = env.open_database::<Str, Bytes>(txn, Some(table_name::META))? else { return Ok(()) };
        if meta.remap_data_type::<U64<BE>>().get(txn, meta_key::SCHEMA)? != Some(version) {
            return Ok(());
        }
        meta.remap_data_type::<Row<ControllerRow>>().get(txn, meta_key::CONTROLLER)?;
        meta.remap_data_type::<Row<SourceStatus>>().get(txn, meta_key::SOURCE)?;
        read::<NameKey, Row<WorkflowRow>>(env, txn, table_name::WORKFLOWS)?;
        read::<ByPipeline, Row<PipelineRow>>(env, txn, table_name::PIPELINES)?;
        read::<ByHash, Bytes>(env, txn, table_name::SPECS)?;
        read::<ByPipeline, Row<OwnerRow>>(env, txn, table_name::OWNERS)?;
        read::<NameKey, Row<AgentRow>>(env, txn, table_name::AGENTS)?;
        read::<ByRun, Row<RunRow>>(env, txn, table_name::RUNS)?;
        read::<ByPipelineRun, Row<RunMark>>(env, txn, table_name::RUNS_BY_PIPELINE)?;
        read::<ByRun, Unit>(env, txn, table_name::ACTIVE_RUNS)?;
        read::<U64<BE>, Row<Event>>(env, txn, table_name::EVENTS)?;
        read::<DecodeIgnore, Row<FileRecord>>(env, txn, table_name::FILES)?;
        read::<DecodeIgnore, Row<JoinTokenRow>>(env, txn, table_name::JOIN_TOKENS)?;
        read::<DecodeIgnore, Row<ApiTokenRow>>(env, txn, table_name::API_TOKENS)?;
        read::<DecodeIgnore, Row<LedgerRow>>(env, txn, table_name::LEDGER)?;
        read::<DecodeIgnore, ByRun>(env, txn, table_name::DELIVERIES)?;
        read::<ByPipeline, Row<AfterRow>>(env, txn, table_name::AFTER)?;
        read::<DecodeIgnore, Row<SuspensionRow>>(env, txn, table_name::SUSPENSIONS)?;
        read::<NameKey, Row<NotifierRow>>(env, txn, table_name::NOTIFIERS)?;
        read::<DecodeIgnore, Row<MessageRow>>(env, txn, table_name::OUTBOX)?;
        read::<NameKey, Row<NotifierHealth>>(env, txn, table_name::NOTIFIER_HEALTH)
    }

    /// The version that the tables are written in; absent in a new environment.
    pub(super) fn schema(&self) -> Database<Str, U64<BE>> {
        self.meta.remap_data_type()
    }

    fn revisions(&self) -> Database<Str, U64<BE>> {
        self.meta.remap_data_type()
    }

    fn controllers(&self) -> Database<Str, Row<ControllerRow>> {
        self.meta.remap_data_type()
    }

    fn sources(&self) -> Database<Str, Row<SourceStatus>> {
        self.meta.remap_data_type()
    }

    fn forgotten_rows(&self) -> Database<Str, Row<BTreeMap<AgentName, Timestamp>>> {
        self.meta.remap_data_type()
    }

    /// The version that the tables are written in.
    pub(super) fn schema_version(&self, txn: &RoTxn<'_>) -> Result<Option<u64>, heed::Error> {
        self.schema().get(txn, meta_key::SCHEMA)
    }

    /// Sets the version that the tables are written in.
    pub(super) fn set_schema_version(&self, txn: &mut RwTxn<'_>, version: u64) -> Result<(), heed::Error> {
        self.schema().put(txn, meta_key::SCHEMA, &version)
    }

    /// How many batches have been committed.
    pub(super) fn revision(&self, txn: &RoTxn<'_>) -> Result<u64, heed::Error> {
        Ok(self.revisions().get(txn, meta_key::REVISION)?.unwrap_or(0))
    }

    /// Counts one more batch.
    pub(super) fn next_revision(&self, txn: &mut RwTxn<'_>) -> Result<u64, heed::Error> {
        let revision = self.revision(txn)? + 1;
        self.revisions().put(txn, meta_key::REVISION, &revision)?;
        Ok(revision)
    }

    /// The controller's counters.
    pub(super) fn controller(&self, txn: &RoTxn<'_>) -> Result<Option<ControllerRow>, heed::Error> {
        self.controllers().get(txn, meta_key::CONTROLLER)
    }

    /// The next controller takes this store for a backup.
    pub(super) fn mark_restored(&self, txn: &mut RwTxn<'_>, row: ControllerRow) -> Result<(), heed::Error> {
        self.controllers().put(txn, meta_key::CONTROLLER, &ControllerRow { restored: true, ..row })
    }

    /// How the source goes.
    pub(super) fn source(&self, txn: &RoTxn<'_>) -> Result<Option<SourceStatus>, heed::Error> {
        self.sources().get(txn, meta_key::SOURCE)
    }

    /// The agents that were forgotten.
    pub(super) fn forgotten(&self, txn: &RoTxn<'_>) -> Result<BTreeMap<AgentName, Timestamp>, heed::Error> {
        Ok(self.forgotten_rows().get(txn, meta_key::FORGOTTEN)?.unwrap_or_default())
    }

    /// The number of the next event.
    pub(super) fn next_event(&self, txn: &RoTxn<'_>) -> Result<u64, heed::Error> {
        Ok(self.events.remap_data_type::<DecodeIgnore>().last(txn)?.map_or(1, |(id, ())| id + 1))
    }

    /// Carries out one change.
    pub(super) fn apply(&self, txn: &mut RwTxn<'_>, change: &Change) -> Result<(), heed::Error> {
        match change {
            Change::PutWorkflow(row) => {
                self.put_desired(txn, table_name::WORKFLOWS, self.workflows, &row.metadata.name, Some(row))
            }
            Change::DeleteWorkflow(name) => self.put_desired(txn, table_name::WORKFLOWS, self.workflows, name, None),
            Change::PutPipeline(row) => {
                self.put_desired(txn, table_name::PIPELINES, self.pipelines, &row.key, Some(row))
            }
            Change::DeletePipeline(key) => self.put_desired(txn, table_name::PIPELINES, self.pipelines, key, None),
            Change::PutSpec(hash, bytes) => self.put_desired(txn, table_name::SPECS, self.specs, hash, Some(bytes)),
            Change::PutOwner(key, row) => self.owners.put(txn, key, row),
            Change::PutAgent(row) => self.agents.put(txn, &row.name, row),
            Change::DeleteAgent(name) => self.agents.delete(txn, name).map(drop),
            Change::PutForgotten(agents) => self.forgotten_rows().put(txn, meta_key::FORGOTTEN, agents),
            Change::PutRun(row) => self.put_run(txn, row),
            Change::DeleteRun(name) => self.delete_run(txn, *name),
            Change::AddEvent(event) => self.add_event(txn, event),
            Change::PutSource(status) => self.sources().put(txn, meta_key::SOURCE, status),
            Change::PutFile(path, Some(row)) => {
                let record = FileRecord { path: path.clone(), row: FileRow::clone(row) };
                self.put_desired(txn, table_name::FILES, self.files, path, Some(&record))
            }
            Change::PutFile(path, None) => self.put_desired(txn, table_name::FILES, self.files, path, None),
            Change::PutJoinToken(row) => self.join_tokens.put(txn, &row.id, row),
            Change::DeleteJoinToken(id) => self.join_tokens.delete(txn, id).map(drop),
            Change::PutApiToken(row) => self.api_tokens.put(txn, &row.id, row),
            Change::DeleteApiToken(id) => self.api_tokens.delete(txn, id).map(drop),
            Change::PutLedger(row) => self.put_ledger(txn, row),
            Change::PutDelivery(key, delivery, run) => self.deliveries.put(txn, &(key, delivery), run),
            Change::PutAfter(key, Some(row)) => self.after.put(txn, key, row),
            Change::PutAfter(key, None) => self.after.delete(txn, key).map(drop),
            Change::PutSuspension(row) => self.suspensions.put(txn, &row.what.to_string(), row),
            Change::DeleteSuspension(what) => self.suspensions.delete(txn, &what.to_string()).map(drop),
            Change::PutNotifier(row) => {
                self.put_desired(txn, table_name::NOTIFIERS, self.notifiers, &row.metadata.name, Some(row))
            }
            Change::DeleteNotifier(name) => {
                self.notifier_health.delete(txn, name)?;
                self.put_desired(txn, table_name::NOTIFIERS, self.notifiers, name, None)
            }
            Change::PutMessage(row) => self.outbox.put(txn, &message_key(&row.notifier, row.number), row),
            Change::DeleteMessage(name, number, _) => self.outbox.delete(txn, &message_key(name, *number)).map(drop),
            Change::PutNotifierHealth(name, row) => self.notifier_health.put(txn, name, row),
            Change::Redigest => self.add_digest(txn),
            Change::PutController(row) => self.controllers().put(txn, meta_key::CONTROLLER, row),
        }
    }

    /// Puts a row that says what is desired, or takes it away, and carries the digest on.
    fn put_desired<'a, K: BytesEncode<'a>, V: BytesEncode<'a>>(
        &self,
        txn: &mut RwTxn<'_>,
        name: &str,
        table: Database<K, V>,
        key: &'a K::EItem,
        row: Option<&'a V::EItem>,
    ) -> Result<(), heed::Error> {
        let table = table.remap_types::<Bytes, Bytes>();
        let key = K::bytes_encode(key).map_err(heed::Error::Encoding)?;
        let row = row.map(V::bytes_encode).transpose().map_err(heed::Error::Encoding)?;
        let mut digest = self.digest(txn)?;
        if let Some(old) = table.get(txn, &key)? {
            digest.toggle(name, &key, old);
        }
        match &row {
            Some(row) => {
                digest.toggle(name, &key, row);
                table.put(txn, &key, row)?;
            }
            None => drop(table.delete(txn, &key)?),
        }
        self.meta.put(txn, meta_key::DIGEST, &digest.0)
    }

    /// Drops a compiled spec; true if it was there.
    pub(super) fn delete_spec(&self, txn: &mut RwTxn<'_>, hash: &SpecHash) -> Result<bool, heed::Error> {
        let found = self.specs.get(txn, hash)?.is_some();
        self.put_desired(txn, table_name::SPECS, self.specs, hash, None)?;
        Ok(found)
    }

    /// The digest as it was carried on.
    pub(super) fn digest(&self, txn: &RoTxn<'_>) -> Result<Digest, heed::Error> {
        let kept = self.meta.get(txn, meta_key::DIGEST)?.and_then(|bytes| bytes.try_into().ok());
        Ok(Digest(kept.unwrap_or_default()))
    }

    /// The digest as the rows are. Reads all of them.
    pub(super) fn digest_of_rows(&self, txn: &RoTxn<'_>) -> Result<Digest, heed::Error> {
        let tables = [
            (table_name::WORKFLOWS, self.workflows.remap_types::<Bytes, Bytes>()),
            (table_name::PIPELINES, self.pipelines.remap_types()),
            (table_name::SPECS, self.specs.remap_types()),
            (table_name::FILES, self.files.remap_types()),
            (table_name::NOTIFIERS, self.notifiers.remap_types()),
        ];
        let mut digest = Digest::default();
        for (name, table) in tables {
            for entry in table.iter(txn)? {
                let (key, row) = entry?;
                digest.toggle(name, key, row);
            }
        }
        Ok(digest)
    }

    /// Takes the digest from the rows as they are. Also what leads from version 1, which had none, to version 2.
    pub(super) fn add_digest(&self, txn: &mut RwTxn<'_>) -> Result<(), heed::Error> {
        let digest = self.digest_of_rows(txn)?;
        self.meta.put(txn, meta_key::DIGEST, &digest.0)
    }

    /// Leads from version 2, which had no notifiers, to version 3: its tables are there, and empty.
    pub(super) fn add_notifiers(&self, _: &mut RwTxn<'_>) -> Result<(), heed::Error> {
        Ok(())
    }

    /// Leads from version 3, whose index of runs told nothing of them, to version 4.
    pub(super) fn mark_runs(&self, txn: &mut RwTxn<'_>) -> Result<(), heed::Error> {
        let marks = self.runs.iter(txn)?.map(|entry| entry.map(|(name, row)| (row.run.spec.key(), name, row.mark())));
        let marks = marks.collect::<Result<Vec<_>, _>>()?;
        marks.iter().try_for_each(|(key, name, mark)| self.runs_by_pipeline.put(txn, &(key, *name), mark))
    }

    fn put_ledger(&self, txn: &mut RwTxn<'_>, row: &LedgerRow) -> Result<(), heed::Error> {
        let key = (&row.pipeline, row.slot, &row.trigger);
        match self.ledger.get(txn, &key)? {
            Some(known) if row.yields_to(&known) => Ok(()),
            _ => self.ledger.put(txn, &key, row),
        }
    }

    fn put_run(&self, txn: &mut RwTxn<'_>, row: &RunRow) -> Result<(), heed::Error> {
        let name = row.run.metadata.name;
        self.runs.put(txn, &name, row)?;
        self.runs_by_pipeline.put(txn, &(&row.run.spec.key(), name), &row.mark())?;
        if row.run.status.phase.is_final() {
            self.active_runs.delete(txn, &name).map(drop)
        } else {
            self.active_runs.put(txn, &name, &())
        }
    }

    fn delete_run(&self, txn: &mut RwTxn<'_>, name: RunName) -> Result<(), heed::Error> {
        let Some(row) = self.runs.get(txn, &name)? else { return Ok(()) };
        self.runs.delete(txn, &name)?;
        self.runs_by_pipeline.delete(txn, &(&row.run.spec.key(), name))?;
        self.active_runs.delete(txn, &name).map(drop)
    }

    fn add_event(&self, txn: &mut RwTxn<'_>, event: &NewEvent) -> Result<(), heed::Error> {
        let NewEvent { at, kind, reason, message, regarding } = event.clone();
        let id = self.next_event(txn)?;
        self.events.put(txn, &id, &Event { id, at, kind, reason, message, regarding })?;
        if id % EVENTS_DROPPED_AT_ONCE == 0 && id > EVENTS_KEPT {
            self.events.delete_range(txn, &(..id - EVENTS_KEPT))?;
        }
        Ok(())
    }
}

/// Reads every row of a table, if it is there.
fn read<K, V>(env: &heed::Env<WithoutTls>, txn: &RoTxn<'_, WithoutTls>, name: &str) -> Result<(), heed::Error>
where
    K: for<'t> BytesDecode<'t> + 'static,
    V: for<'t> BytesDecode<'t> + 'static,
{
    let Some(table) = env.open_database::<K, V>(txn, Some(name))? else { return Ok(()) };
    table.iter(txn)?.try_for_each(|entry| entry.map(drop))
}
