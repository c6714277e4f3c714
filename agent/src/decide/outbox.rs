//! The outbox: facts of a run, kept until the controller has them.

use std::collections::{BTreeMap, VecDeque};

use xene_schemas::{
    meta::{PipelineKey, RunName},
    run::{Artifact, RunEvent},
    wire::control::RunFact,
};

use super::event::{JournalChange, RunRow};

/// Facts of one run that are not acknowledged, oldest first.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    first: u64,
    facts: VecDeque<RunEvent>,
}

impl Outbox {
    /// From what the journal held.
    pub(super) fn recovered(acknowledged: u64, facts: BTreeMap<u64, RunEvent>) -> Self {
        let first = facts.keys().next().copied().unwrap_or(acknowledged);
        Self { first, facts: facts.into_values().collect() }
    }

    /// Keeps the next fact: how to journal it, and how to report it once that is done.
    pub(super) fn push(
        &mut self,
        run: RunName,
        key: &PipelineKey,
        row: &RunRow,
        event: RunEvent,
    ) -> (JournalChange, RunFact) {
        let index = self.next();
        self.facts.push_back(event.clone());
        let fact = RunFact { run, pipeline: key.clone(), epoch: row.epoch, index, event: event.clone() };
        (JournalChange::PutFact(run, index, event), fact)
    }

    /// The controller has `count` facts.
    pub(super) fn acknowledge(&mut self, count: u64) {
        while self.first < count && self.facts.pop_front().is_some() {
            self.first += 1;
        }
    }

    /// The number that the next fact will have.
    pub(super) fn next(&self) -> u64 {
        self.first + self.facts.len() as u64
    }

    /// Facts that name artifacts, by number.
    pub(super) fn naming_artifacts(&self) -> Vec<(u64, Vec<Artifact>)> {
        let naming = self.facts.iter().zip(self.first..).filter_map(|(fact, index)| match fact {
            RunEvent::TaskEnded { artifacts, .. } if !artifacts.is_empty() => Some((index, artifacts.clone())),
            _ => None,
        });
        naming.collect()
    }

    /// How many facts are acknowledged.
    pub(super) fn acknowledged(&self) -> u64 {
        self.first
    }

    /// True if these are the run's facts from its first on, as far as they are kept here; there may be more.
    pub(super) fn begins(&self, all: &[RunEvent]) -> bool {
        let first = usize::try_from(self.first).unwrap_or(usize::MAX);
        all.get(first..)
            .is_some_and(|rest| self.facts.len() <= rest.len() && self.facts.iter().eq(&rest[..self.facts.len()]))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.facts.is_empty()
    }

    /// True if the run has no fact at all, acknowledged ones included.
    pub(super) fn is_new(&self) -> bool {
        self.first == 0 && self.facts.is_empty()
    }

    /// All facts, to be said again.
    pub(super) fn facts(&self, run: RunName, key: &PipelineKey, row: &RunRow) -> impl Iterator<Item = RunFact> {
        self.facts.iter().zip(self.first..).map(move |(event, index)| RunFact {
            run,
            pipeline: key.clone(),
            epoch: row.epoch,
            index,
            event: event.clone(),
        })
    }
}
