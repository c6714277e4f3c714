//! Admission: what may start now. Runs of one pipeline (or group) by `concurrency`, tasks of all runs by slots.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use xene_schemas::{
    meta::{Name, PipelineKey, RunName},
    pipeline::{CompiledPipeline, ConcurrencyPolicy},
};

/// Who shares one `concurrency.max`: a group on this agent, or one pipeline.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Shared {
    /// All pipelines that name this group.
    Group(Name),
    /// One pipeline.
    Pipeline(PipelineKey),
}

impl Shared {
    /// Whose `max` a run of `spec` counts against.
    pub(super) fn of(spec: &CompiledPipeline) -> Self {
        match &spec.spec.concurrency.group {
            Some(group) => Self::Group(group.clone()),
            None => Self::Pipeline(spec.key.clone()),
        }
    }
}

/// Whether one more run may start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Admission {
    /// Now.
    Start,
    /// When another ends.
    Wait,
    /// Never.
    Skip,
    /// When this one, which is to be cancelled for it, has ended.
    Replace(RunName),
}

/// The runs that count, from the intent to start until the end; and which pipelines share a group.
#[derive(Debug, Default)]
pub(super) struct Holders {
    runs: BTreeMap<Shared, BTreeSet<RunName>>,
    /// The pipelines of each group that this agent hosts, with the `max` that each asks for.
    groups: BTreeMap<Name, BTreeMap<PipelineKey, u32>>,
    /// The group of each.
    of: BTreeMap<PipelineKey, Name>,
}

impl Holders {
    /// The one place where `concurrency` is applied; so many runs go on `elsewhere`, which can't be replaced from here.
    pub(super) fn admit(&self, spec: &CompiledPipeline, elsewhere: u32) -> Admission {
        let concurrency = &spec.spec.concurrency;
        let holders = self.runs.get(&Shared::of(spec));
        // Of a group, whose pipelines may not agree, the smallest counts.
        let group = concurrency.group.as_ref().and_then(|group| self.groups.get(group));
        let smallest = group.and_then(|members| members.values().min().copied());
        let max = smallest.map_or(concurrency.max, |smallest| smallest.min(concurrency.max));
        if holders.map_or(0, BTreeSet::len) + (elsewhere as usize) < max.max(1) as usize {
            return Admission::Start;
        }
        match (concurrency.policy, holders.and_then(BTreeSet::first)) {
            (ConcurrencyPolicy::Skip, _) => Admission::Skip,
            (ConcurrencyPolicy::Replace, Some(oldest)) => Admission::Replace(*oldest),
            (ConcurrencyPolicy::Replace | ConcurrencyPolicy::Queue, _) => Admission::Wait,
        }
    }

    /// This agent hosts a pipeline.
    pub(super) fn enter(&mut self, spec: &CompiledPipeline) {
        if let Some(group) = &spec.spec.concurrency.group {
            self.groups.entry(group.clone()).or_default().insert(spec.key.clone(), spec.spec.concurrency.max);
            self.of.insert(spec.key.clone(), group.clone());
        }
    }

    /// The opposite.
    pub(super) fn leave(&mut self, key: &PipelineKey) {
        let Some(group) = self.of.remove(key) else { return };
        if let Some(members) = self.groups.get_mut(&group) {
            members.remove(key);
            if members.is_empty() {
                self.groups.remove(&group);
            }
        }
    }

    /// The pipelines on this agent that wait for each other's runs: those of its group, or itself.
    pub(super) fn sharing(&self, shared: &Shared) -> Vec<PipelineKey> {
        match shared {
            Shared::Pipeline(key) => vec![key.clone()],
            Shared::Group(group) => self.groups.get(group).into_iter().flat_map(BTreeMap::keys).cloned().collect(),
        }
    }

    pub(super) fn hold(&mut self, spec: &CompiledPipeline, run: RunName) {
        self.runs.entry(Shared::of(spec)).or_default().insert(run);
    }

    /// The run holds nothing any more; the answer is who may go on.
    pub(super) fn let_go(&mut self, spec: &CompiledPipeline, run: RunName) -> Shared {
        let shared = Shared::of(spec);
        if let Some(holders) = self.runs.get_mut(&shared) {
            holders.remove(&run);
            if holders.is_empty() {
                self.runs.remove(&shared);
            }
        }
        shared
    }
}

/// The agent's slots: one per running task, given first come, first served, but to tasks of `finally` first: they end what
/// has begun, and have not long.
#[derive(Debug)]
pub struct Slots {
    all: u32,
    taken: BTreeSet<(RunName, String)>,
    ending: VecDeque<(RunName, String)>,
    waiting: VecDeque<(RunName, String)>,
}

impl Slots {
    /// So many, at least one.
    pub fn new(all: u32) -> Self {
        Self { all: all.max(1), taken: BTreeSet::new(), ending: VecDeque::new(), waiting: VecDeque::new() }
    }

    /// How many are taken.
    pub fn busy(&self) -> u32 {
        u32::try_from(self.taken.len()).unwrap_or(u32::MAX)
    }

    /// A task is ready, of `finally` if it is `ending` its run; true if it has a slot at once.
    pub fn want(&mut self, run: RunName, task: String, ending: bool) -> bool {
        if self.busy() < self.all {
            return self.taken.insert((run, task));
        }
        let queue = if ending { &mut self.ending } else { &mut self.waiting };
        queue.push_back((run, task));
        false
    }

    /// A task has had a slot since before this process: it keeps it, even if there are fewer by now.
    pub(super) fn keep(&mut self, run: RunName, task: String) {
        self.taken.insert((run, task));
    }

    /// A task gives its slot back, or wants none any more; the answer is who has it now.
    pub fn give_back(&mut self, run: RunName, task: &str) -> Option<(RunName, String)> {
        let entry = (run, task.to_owned());
        if !self.taken.remove(&entry) {
            self.ending.retain(|waiting| *waiting != entry);
            self.waiting.retain(|waiting| *waiting != entry);
            return None;
        }
        self.next()
    }

    /// A run has ended: whatever it still has is free.
    pub fn give_all_back(&mut self, run: RunName) -> Vec<(RunName, String)> {
        self.ending.retain(|(waiting, _)| *waiting != run);
        self.waiting.retain(|(waiting, _)| *waiting != run);
        self.taken.retain(|(taken, _)| *taken != run);
        std::iter::from_fn(|| self.next()).collect()
    }

    fn next(&mut self) -> Option<(RunName, String)> {
        if self.busy() >= self.all {
            return None;
        }
        let next = self.ending.pop_front().or_else(|| self.waiting.pop_front())?;
        self.taken.insert(next.clone());
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_a_run_has_the_next_slot() {
        let run = |n| RunName::new(jiff::Timestamp::UNIX_EPOCH, n);
        let mut slots = Slots::new(1);
        assert!(slots.want(run(1), "work".into(), false));
        assert!(!slots.want(run(2), "work".into(), false));
        assert!(!slots.want(run(1), "tidy".into(), true));
        assert!(!slots.want(run(3), "tidy".into(), true));
        assert_eq!(slots.give_back(run(1), "work"), Some((run(1), "tidy".into())));
        assert_eq!(slots.give_all_back(run(3)), []);
        assert_eq!(slots.give_back(run(1), "tidy"), Some((run(2), "work".into())));
    }
}
