//! What is asked of the store: single objects, and pages of lists by key cursor.

use std::{
    cmp::Reverse,
    collections::BTreeSet,
    ops::{Bound, RangeBounds as _},
    sync::Arc,
};

use heed::{
    BytesDecode as _,
    types::{Bytes, DecodeIgnore},
};
use jiff::Timestamp;
use xene_agent::lmdb::ReadTxn;
use xene_schemas::{
    event::Event,
    meta::{AgentName, Name, PipelineKey, RunName, SpecHash},
    phase::RunPhase,
    source::SourceStatus,
};

use super::{
    Store, StoreError,
    keys::{Row, pipeline_prefix, slot_bytes, workflow_prefix},
    values,
};
use crate::decide::rows::{
    AgentRow, ApiTokenRow, BriefRun, FileRow, JoinTokenRow, LedgerRow, NotifierRow, OwnerRow, PipelineRow, RunBrief,
    RunMark, RunRow, SuspensionRow, WorkflowRow,
};

/// What is in effect, as of one look.
#[derive(Debug, Default)]
pub struct InEffect {
    /// The workflows.
    pub workflows: Vec<WorkflowRow>,
    /// The pipelines.
    pub pipelines: Vec<PipelineRow>,
    /// The notifiers.
    pub notifiers: Vec<NotifierRow>,
    /// What each file last gave.
    pub files: Vec<(String, FileRow)>,
}

/// Which runs are asked for; all conditions must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunFilter {
    /// Of this workflow.
    pub workflow: Option<Name>,
    /// Of a pipeline with this name.
    pub pipeline: Option<Name>,
    /// That this agent has, or had.
    pub agent: Option<AgentName>,
    /// In this phase.
    pub phase: Option<RunPhase>,
    /// Not ended.
    pub active: bool,
    /// Whose name's time is not before this: due, or made by hand, since then.
    pub since: Option<Timestamp>,
    /// Of one of these workflows.
    pub within: Option<Arc<BTreeSet<Name>>>,
    /// Of one of these pipelines.
    pub among: Option<BTreeSet<PipelineKey>>,
}

impl RunFilter {
    fn matches(&self, brief: &RunBrief) -> bool {
        let BriefRun { spec, status, .. } = &brief.run;
        self.workflow.as_ref().is_none_or(|workflow| *workflow == spec.workflow)
            && self.pipeline.as_ref().is_none_or(|pipeline| *pipeline == spec.pipeline)
            && self.agent.as_ref().is_none_or(|agent| status.agent.as_ref() == Some(agent))
            && self.phase.is_none_or(|phase| phase == status.phase)
            && !(self.active && status.phase.is_final())
            && self.within.as_ref().is_none_or(|within| within.contains(&spec.workflow))
            && self.among.as_ref().is_none_or(|among| {
                among.contains(&PipelineKey { workflow: spec.workflow.clone(), pipeline: spec.pipeline.clone() })
            })
    }

    /// What the keys begin with, in the index by pipeline, of those that can match.
    fn prefix(&self) -> Vec<u8> {
        match (&self.workflow, &self.pipeline) {
            (Some(workflow), Some(pipeline)) => {
                pipeline_prefix(&PipelineKey { workflow: workflow.clone(), pipeline: pipeline.clone() }, 0)
            }
            (Some(workflow), None) => workflow_prefix(workflow),
            (None, _) => Vec::new(),
        }
    }

    /// True if only active runs can match.
    fn is_active(&self) -> bool {
        self.active || self.phase.is_some_and(|phase| !phase.is_final())
    }
}

impl Store {
    /// One workflow.
    ///
    /// # Errors
    /// If the store can't be read.
    pub fn workflow(&self, name: &Name) -> Result<Option<WorkflowRow>, StoreError> {
        self.env.read(|txn| Ok(self.tables.workflows.get(txn, name)?))
    }

    /// Workflows by name, from after `after` on, that `keep` lets pass, at most `limit`.
    ///
    /// # Errors
    /// If the store can't be read.
    pub fn workflows(
        &self,
        after: Option<&Name>,
        limit: usize,
        mut keep: impl FnMut(&WorkflowRow) -> bool,
    ) -> Result<Vec<WorkflowRow>, StoreError> {
        self.env.read(|txn| {
            let rows = self.tables.workflows.range(txn, &(from(after), Bound::Unbounded))?;
            page(rows, limit, |row| keep(row))
        })
    }

    /// An API token, by its id.
    ///
    /// # Errors
    /// If the store can't be read.
    pub fn api_token(&self, id: &str) -> Result<Option<ApiTokenRow>, StoreError> {
        self.env.read(|txn| Ok(self.tables.api_tokens.get(txn, id)?))
    }

    /// All join tokens that are neither spent nor revoked, by id.
    ///
    /// # Errors
    /// If the store can't be read.
    pub fn join_tokens(&self) -> Result<Vec<JoinTokenRow>, StoreError> {
        self.env.read(|txn| Ok(values(self.tables.join_tokens.remap_key_type::<DecodeIgnore>().iter(txn)?)?))
    }

    /// All API tokens, by name.
    ///
    /// # Errors
    /// If the store can't be read.
    pub fn api_tokens(&self) -> Result<Vec<ApiTokenRow>, StoreError> {
        self.env.read(|txn| {
            let mut rows = values(self.tables.api_tokens.remap_key_type::<DecodeIgnore>().iter(txn)?)?;
            rows.sort_unstable_by(|a, b| a.name.cmp(&b.name));
            Ok(rows)
        })
    }

    /// One pipeline.
    ///
    /// # Errors
    /// If the store can't be read.
    pub fn pipeline(&self, key: &PipelineKey) -> Result<Option<PipelineRow>, StoreError> {
        self.env.read(|txn| Ok(self.tables.pipelines.get(txn, key)?))
    }

    /// Pipelines by key, of one workflow or of all, from after `after` on, that `keep` lets pass, at most `limit`.
    ///
    /// # Errors
    /// If the store can't be read.
    pub fn pipelines(
        &self,
        workflow: Option<&Name>,
        after: Option<&PipelineKey>,
        limit: usize,
        mut keep: impl FnMut(&PipelineRow) -> bool,
    ) -> Result<Vec<PipelineRow>, StoreError> {
        self.env.read(|txn| {
            let table = self.tables.pipelines;
            let Some(workflow) = workflow else {
                return page(table.range(txn, &(from(after), Bound::Unbounded))?, limit, |row| keep(row));
            };
            let prefix = workflow_prefix(workflow);
            let start = after.map(|key| pipeline_prefix(key, 0)).filter(|start| *start >= prefix);
            let start = start.as_ref().map_or(Bound::Included(&prefix[..]), |start| Bound::Excluded(&start[..]));
            let rows = table.remap_key_type::<Bytes>().range(txn, &(start, Bound::Unbounded))?;
            let rows = rows.take_while(|entry| !matches!(entry, Ok((key, _)) if !key.starts_with(&prefix)));
            page(rows, limit, |row| keep(row))
        })
    }

    /// Who owns a pipeline.
    ///
    /// # Errors
    /// If the store can't be read.
    pub fn owner(&self, key: &PipelineKey) -> Result<Option<OwnerRow>, StoreError> {
        self.env.read(|txn| Ok(self.tables.owners.get(txn, key)?))
    }

    /// A compiled spec.
    ///
    /// # Errors
    /// If the store can't be read.
    pub fn spec(&self, hash: &SpecHash) -> Result<Option<Vec<u8>>, StoreError> {
        self.env.read(|txn| Ok(self.tables.specs.get(txn, hash)?.map(<[u8]>::to_vec)))
    }

    /// All agents by name.
    ///
    /// # Errors
    /// If the store can't be read.
    pub fn agents(&self) -> Result<Vec<AgentRow>, StoreError> {
        self.env.read(|txn| Ok(values(self.tables.agents.iter(txn)?)?))
    }

    /// One agent.
    ///
    /// # Errors
    /// If the store can't be read.
    pub fn agent(&self, name: &AgentName) -> Result<Option<AgentRow>, StoreError> {
        self.env.read(|txn| Ok(self.tables.agents.get(txn, name)?))
    }

    /// What is suspended by command.
    ///
    /// # Errors
    /// If the store can't be read.
    pub fn suspensions(&self) -> Result<Vec<SuspensionRow>, StoreError> {
        let table = self.tables.suspensions.remap_key_type::<DecodeIgnore>();
        self.env.read(|txn| Ok(values(table.iter(txn)?)?))
    }

    /// How the source goes.
    ///
    /// # Errors
    /// If the store can't be read.
    pub fn source(&self) -> Result<Option<SourceStatus>, StoreError> {
        self.env.read(|txn| Ok(self.tables.source(txn)?))
    }

    /// Events newest first, from older than number `after` on, that `keep` lets pass, at most `limit`.
    ///
    /// # Errors
    /// If the store can't be read.
    pub fn events(
        &self,
        after: Option<u64>,
        limit: usize,
        mut keep: impl FnMut(&Event) -> bool,
    ) -> Result<Vec<Event>, StoreError> {
        self.env.read(|txn| {
            let below = after.map_or(Bound::Unbounded, Bound::Excluded);
            let rows = self.tables.events.rev_range(txn, &(Bound::Unbounded, below))?;
            page(rows, limit, |row| keep(row))
        })
    }

    /// All that planning compares with, as of one moment: workflows, pipelines, and what each file last gave.
    ///
    /// # Errors
    /// If the store can't be read.
    pub fn in_effect(&self) -> Result<InEffect, StoreError> {
        self.env.read(|txn| {
            let files = values(self.tables.files.remap_key_type::<DecodeIgnore>().iter(txn)?)?
                .into_iter()
                .map(|record| (record.path, record.row));
            Ok(InEffect {
                workflows: values(self.tables.workflows.iter(txn)?)?,
                pipelines: values(self.tables.pipelines.iter(txn)?)?,
                notifiers: values(self.tables.notifiers.iter(txn)?)?,
                files: files.collect(),
            })
        })
    }

    /// What became of the due times of a pipeline, newest first, older than `below` (a due time and a trigger), at most
    /// `limit`.
    ///
    /// # Errors
    /// If the store can't be read.
    pub fn ledger(
        &self,
        key: &PipelineKey,
        below: Option<(Timestamp, Option<&Name>)>,
        limit: usize,
    ) -> Result<Vec<LedgerRow>, StoreError> {
        let start = pipeline_prefix(key, 0);
        let end = match below {
            Some((slot, trigger)) => slot_bytes(key, slot, trigger),
            // Longer than a time can be, so above all of them.
            None => [&start[..], &[0xff; 17]].concat(),
        };
        if end <= start {
            return Ok(Vec::new());
        }
        self.env.read(|txn| {
            let rows = self.tables.ledger.remap_key_type::<Bytes>();
            let range = (Bound::Included(&start[..]), Bound::Excluded(&end[..]));
            page(rows.rev_range(txn, &range)?, limit, |_| true)
        })
    }

    /// True if there is a row of this due time, whatever it says.
    ///
    /// # Errors
    /// If the store can't be read.
    pub fn has_due_time(&self, row: &LedgerRow) -> Result<bool, StoreError> {
        let key = (&row.pipeline, row.slot, &row.trigger);
        self.env.read(|txn| Ok(self.tables.ledger.remap_data_type::<DecodeIgnore>().get(txn, &key)?.is_some()))
    }

    /// The run that a webhook delivery made.
    ///
    /// # Errors
    /// If the store can't be read.
    pub fn delivery(&self, key: &PipelineKey, id: &str) -> Result<Option<RunName>, StoreError> {
        self.env.read(|txn| Ok(self.tables.deliveries.get(txn, &(key, id))?))
    }

    /// One run.
    ///
    /// # Errors
    /// If the store can't be read.
    pub fn run(&self, name: RunName) -> Result<Option<RunRow>, StoreError> {
        self.env.read(|txn| Ok(self.tables.runs.get(txn, &name)?))
    }

    /// The newest run of a pipeline.
    ///
    /// # Errors
    /// If the store can't be read.
    pub fn last_run(&self, key: &PipelineKey) -> Result<Option<RunRow>, StoreError> {
        self.env.read(|txn| match self.newest_below(txn, key, None)? {
            Some(name) => Ok(self.tables.runs.get(txn, &name)?),
            None => Ok(None),
        })
    }

    /// What the index tells of every run of a workflow, newest first.
    ///
    /// # Errors
    /// If the store can't be read.
    pub fn marks(&self, workflow: &Name) -> Result<Vec<(RunName, RunMark)>, StoreError> {
        self.env.read(|txn| self.marks_below(txn, &workflow_prefix(workflow), |_, _| true))
    }

    /// Runs newest first, from older than `after` on, at most `limit`. Reads only what the index leaves: a list of
    /// one workflow, of one pipeline or of active runs does not look at the others; one of a phase that is final looks
    /// at all in the index, and reads only those that it gives.
    ///
    /// # Errors
    /// If the store can't be read.
    pub fn runs(&self, filter: &RunFilter, after: Option<RunName>, limit: usize) -> Result<Vec<RunRow>, StoreError> {
        let below = after.map_or(Bound::Unbounded, Bound::Excluded);
        let since = filter.since.map(|since| RunName::new(since, 0));
        let since = since.map_or(Bound::Unbounded, Bound::Included);
        if limit == 0 || matches!((since, below), (Bound::Included(s), Bound::Excluded(b)) if s >= b) {
            return Ok(Vec::new());
        }
        self.env.read(|txn| {
            if filter.is_active() {
                let names = self.tables.active_runs.rev_range(txn, &(since, below))?;
                return self.named(txn, names.map(|entry| entry.map(|(name, ())| name)), filter, limit);
            }
            if let Some(phase) = filter.phase {
                let range = (since, below);
                let keep = |name: RunName, mark: &RunMark| mark.phase == phase && range.contains(&name);
                let found = self.marks_below(txn, &filter.prefix(), keep)?;
                return self.named(txn, found.into_iter().map(|(name, _)| Ok(name)), filter, limit);
            }
            let Some(workflow) = &filter.workflow else {
                let rows = self.tables.runs.remap_data_type::<Bytes>().rev_range(txn, &(since, below))?;
                return matching(rows.map(|entry| entry.map(|(_, row)| row)), filter, limit);
            };
            let mut newest = Vec::new();
            for key in self.pipelines_with_runs(txn, workflow, filter.pipeline.as_ref())? {
                newest.extend(self.newest_below(txn, &key, after)?.map(|name| (name, key)));
            }
            let names = std::iter::from_fn(|| {
                // A workflow has few pipelines: looking at all of them for the newest run costs less than a heap.
                let (at, (name, key)) = newest.iter().enumerate().max_by_key(|(_, (name, _))| *name)?;
                let name = *name;
                if matches!(since, Bound::Included(since) if name < since) {
                    return None;
                }
                match self.newest_below(txn, key, Some(name)) {
                    Ok(Some(next)) => newest[at].0 = next,
                    Ok(None) => drop(newest.swap_remove(at)),
                    Err(error) => return Some(Err(error)),
                }
                Some(Ok(name))
            });
            self.named(txn, names, filter, limit)
        })
    }

    fn named(
        &self,
        txn: &ReadTxn<'_>,
        names: impl Iterator<Item = Result<RunName, heed::Error>>,
        filter: &RunFilter,
        limit: usize,
    ) -> Result<Vec<RunRow>, StoreError> {
        let rows = self.tables.runs.remap_data_type::<Bytes>();
        let rows = names.filter_map(|name| match name {
            Ok(name) => rows.get(txn, &name).transpose(),
            Err(error) => Some(Err(error)),
        });
        matching(rows, filter, limit)
    }

    /// What the index tells of the runs below a prefix of it that are kept, newest first.
    fn marks_below(
        &self,
        txn: &ReadTxn<'_>,
        prefix: &[u8],
        mut keep: impl FnMut(RunName, &RunMark) -> bool,
    ) -> Result<Vec<(RunName, RunMark)>, StoreError> {
        // LMDB takes no empty key.
        let start = if prefix.is_empty() { Bound::Unbounded } else { Bound::Included(prefix) };
        let mut found = Vec::new();
        for entry in self.tables.runs_by_pipeline.remap_key_type::<Bytes>().range(txn, &(start, Bound::Unbounded))? {
            let (key, mark) = entry?;
            if !key.starts_with(prefix) {
                break;
            }
            let (_, name) = key.split_last_chunk().ok_or(heed::Error::Decoding("a key without a run".into()))?;
            let name = RunName::from_bytes(*name);
            if keep(name, &mark) {
                found.push((name, mark));
            }
        }
        found.sort_unstable_by_key(|(name, _)| Reverse(*name));
        Ok(found)
    }

    /// The newest run of a pipeline whose name is below `below`.
    fn newest_below(
        &self,
        txn: &ReadTxn<'_>,
        key: &PipelineKey,
        below: Option<RunName>,
    ) -> Result<Option<RunName>, heed::Error> {
        let mut end = pipeline_prefix(key, 17);
        let prefix = end.len();
        match below {
            Some(below) => end.extend_from_slice(&below.to_bytes()),
            // Longer than every name, so above all of them.
            None => end.extend_from_slice(&[0xff; 17]),
        }
        let index = self.tables.runs_by_pipeline.remap_types::<Bytes, DecodeIgnore>();
        let found = index.get_lower_than(txn, &end)?;
        Ok(found.and_then(|(found, ())| {
            let name = found.strip_prefix(&end[..prefix])?;
            Some(RunName::from_bytes(name.try_into().ok()?))
        }))
    }

    /// The pipelines of a workflow that have runs, removed ones included: one seek for each.
    fn pipelines_with_runs(
        &self,
        txn: &ReadTxn<'_>,
        workflow: &Name,
        pipeline: Option<&Name>,
    ) -> Result<Vec<PipelineKey>, heed::Error> {
        if let Some(pipeline) = pipeline {
            return Ok(vec![PipelineKey { workflow: workflow.clone(), pipeline: pipeline.clone() }]);
        }
        let (mut keys, mut seek) = (Vec::new(), workflow_prefix(workflow));
        let raw = self.tables.runs_by_pipeline.remap_types::<Bytes, DecodeIgnore>();
        while let Some((found, ())) = raw.get_greater_than_or_equal_to(txn, &seek)? {
            let (key, _) = self.decode_pipeline_run(found)?;
            if key.workflow != *workflow {
                break;
            }
            seek = pipeline_prefix(&key, 17);
            seek.extend_from_slice(&[0xff; 17]);
            keys.push(key);
        }
        Ok(keys)
    }

    fn decode_pipeline_run(&self, bytes: &[u8]) -> Result<(PipelineKey, RunName), heed::Error> {
        super::keys::ByPipelineRun::bytes_decode(bytes).map_err(heed::Error::Decoding)
    }
}

fn from<T>(after: Option<&T>) -> Bound<&T> {
    after.map_or(Bound::Unbounded, Bound::Excluded)
}

/// The rows of runs that match, at most `limit`. Of those that do not only so much is decoded as the filter looks at.
fn matching<'t>(
    rows: impl Iterator<Item = Result<&'t [u8], heed::Error>>,
    filter: &RunFilter,
    limit: usize,
) -> Result<Vec<RunRow>, StoreError> {
    let found = rows.filter_map(|row| {
        let decoded = row.and_then(|row| {
            let brief: RunBrief = Row::bytes_decode(row).map_err(heed::Error::Decoding)?;
            filter.matches(&brief).then(|| Row::bytes_decode(row).map_err(heed::Error::Decoding)).transpose()
        });
        decoded.transpose()
    });
    Ok(found.take(limit).collect::<Result<_, _>>()?)
}

fn page<K, V>(
    entries: impl Iterator<Item = Result<(K, V), heed::Error>>,
    limit: usize,
    mut keep: impl FnMut(&V) -> bool,
) -> Result<Vec<V>, StoreError> {
    let rows = entries.filter_map(|entry| match entry {
        Ok((_, row)) => keep(&row).then_some(Ok(row)),
        Err(error) => Some(Err(error)),
    });
    Ok(rows.take(limit).collect::<Result<_, _>>()?)
}
