//! What nobody needs any more: specs that nothing refers to, old deliveries, old due times without a run.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use heed::{
    RwTxn,
    types::{Bytes, DecodeIgnore},
};
use jiff::Timestamp;
use xene_schemas::{
    meta::{FileHash, SpecHash},
    pipeline::{CompiledPipeline, History},
};

use super::{Job, Store, StoreError, keys::ByRun, tables::Tables};

/// What a sweep dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// Compiled specs.
    pub specs: usize,
    /// Webhook deliveries.
    pub deliveries: usize,
    /// Due times.
    pub ledger: usize,
}

/// What is to be dropped, found by reading; looked at again in the transaction that drops it.
#[derive(Debug)]
pub(super) struct Sweep {
    specs: Vec<SpecHash>,
    deliveries: Vec<Vec<u8>>,
    ledger: Vec<Vec<u8>>,
    dropped_specs: Arc<AtomicUsize>,
}

impl Store {
    /// Drops specs that no pipeline, owner or run refers to, deliveries from before `before`, and due times beyond the
    /// `history` of their pipelines: those older than `maxAge`, and more than ten for each run that is kept.
    /// Reads every run: for once a day, on a thread that may block.
    ///
    /// # Errors
    /// If the store can't be read.
    pub fn sweep(
        &self,
        before: Timestamp,
        now: Timestamp,
        done: impl FnOnce(Result<Swept, StoreError>) + Send + 'static,
    ) -> Result<(), StoreError> {
        let sweep = self.env.read(|txn| {
            let tables = &self.tables;
            let mut used = in_use(tables, txn)?;
            for entry in tables.runs.iter(txn)? {
                used.insert(entry?.1.run.spec.spec_hash);
            }
            let specs = tables.specs.remap_data_type::<DecodeIgnore>().iter(txn)?;
            let specs = specs.map(|entry| entry.map(|(hash, ())| hash));
            let deliveries = tables.deliveries.remap_types::<Bytes, ByRun>().iter(txn)?;
            let deliveries = deliveries.filter_map(|entry| match entry {
                Ok((key, run)) => (run.at() < before).then(|| Ok(key.to_vec())),
                Err(error) => Some(Err(error)),
            });
            let sweep = Sweep {
                specs: specs
                    .filter(|hash| !matches!(hash, Ok(hash) if used.contains(hash)))
                    .collect::<Result<_, _>>()?,
                deliveries: deliveries.collect::<Result<_, heed::Error>>()?,
                ledger: old_due_times(tables, txn, now)?,
                dropped_specs: Arc::default(),
            };
            self.release_map();
            Ok::<_, StoreError>(sweep)
        })?;
        let (deliveries, ledger, specs) = (sweep.deliveries.len(), sweep.ledger.len(), sweep.dropped_specs.clone());
        let done = move |result: Result<(), _>| {
            let swept = Swept { specs: specs.load(Ordering::Relaxed), deliveries, ledger };
            done(result.map(|()| swept).map_err(StoreError::Commit));
        };
        self.writer.submit(Job::Sweep(sweep), Box::new(done));
        Ok(())
    }
}

impl Store {
    /// The files that specs, runs and workflow files refer to. Reads all of them: for once a day, on a thread that may
    /// block.
    ///
    /// # Errors
    /// If the store can't be read.
    pub fn files_in_use(&self) -> Result<HashSet<FileHash>, StoreError> {
        self.env.read(|txn| {
            let mut used = HashSet::new();
            for entry in self.tables.specs.iter(txn)? {
                // What can't be read is no spec, and nobody runs it.
                used.extend(
                    CompiledPipeline::decode(entry?.1).iter().flat_map(|spec| &spec.files).map(|file| file.hash),
                );
            }
            for entry in self.tables.runs.iter(txn)? {
                let tasks = entry?.1.run.status.tasks;
                used.extend(tasks.values().flat_map(|task| &task.artifacts).map(|artifact| artifact.hash));
            }
            for entry in self.tables.files.remap_key_type::<Bytes>().iter(txn)? {
                used.extend(entry?.1.row.travelling);
            }
            self.release_map();
            Ok::<_, StoreError>(used)
        })
    }
}

impl Sweep {
    pub(super) fn apply(&self, tables: &Tables, txn: &mut RwTxn<'_>) -> Result<(), heed::Error> {
        let mut dropped = 0;
        if !self.specs.is_empty() {
            // A commit since the reading may have brought one back, as a revert does: then a pipeline or an active
            // run refers to it.
            let used = in_use(tables, txn)?;
            for hash in self.specs.iter().filter(|hash| !used.contains(*hash)) {
                dropped += usize::from(tables.delete_spec(txn, hash)?);
            }
        }
        for key in &self.deliveries {
            tables.deliveries.remap_key_type::<Bytes>().delete(txn, key)?;
        }
        for key in &self.ledger {
            tables.ledger.remap_key_type::<Bytes>().delete(txn, key)?;
        }
        self.dropped_specs.store(dropped, Ordering::Relaxed);
        Ok(())
    }
}

/// How many due times are kept for each run that `history` keeps.
const DUE_TIMES_PER_RUN: usize = 10;

/// The keys of due times that are past their retention.
fn old_due_times(tables: &Tables, txn: &heed::RoTxn<'_>, now: Timestamp) -> Result<Vec<Vec<u8>>, heed::Error> {
    let (mut old, mut of, mut kept) = (Vec::new(), None, 0);
    let mut history = History::default();
    // Newest first within each pipeline.
    for entry in tables.ledger.remap_key_type::<Bytes>().rev_iter(txn)? {
        let (key, row) = entry?;
        if of.as_ref() != Some(&row.pipeline) {
            let pipeline = tables.pipelines.get(txn, &row.pipeline)?;
            history = pipeline.and_then(|pipeline| pipeline.spec.history).unwrap_or_default();
            (of, kept) = (Some(row.pipeline.clone()), 0);
        }
        kept += 1;
        let oldest = now.checked_sub(std::time::Duration::from(history.max_age)).unwrap_or(Timestamp::MIN);
        let most = (history.runs as usize).max(1).saturating_mul(DUE_TIMES_PER_RUN);
        if kept > most || row.until.unwrap_or(row.slot) < oldest {
            old.push(key.to_vec());
        }
    }
    Ok(old)
}

/// The specs that pipelines, owners and active runs refer to.
fn in_use(tables: &Tables, txn: &heed::RoTxn<'_>) -> Result<HashSet<SpecHash>, heed::Error> {
    let mut used = HashSet::new();
    for entry in tables.pipelines.iter(txn)? {
        used.insert(entry?.1.spec_hash);
    }
    for entry in tables.owners.iter(txn)? {
        used.insert(entry?.1.spec_hash);
    }
    for entry in tables.active_runs.iter(txn)? {
        used.extend(tables.runs.get(txn, &entry?.0)?.map(|row| row.run.spec.spec_hash));
    }
    Ok(used)
}
