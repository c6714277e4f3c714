//! What the last commits changed, by name: who was away for a moment hears of those objects, as they are by then.

use std::collections::{BTreeSet, VecDeque};

use xene_schemas::meta::{AgentName, Name, PipelineKey, RunName};

use super::Committed;
use crate::decide::rows::{Change, Suspendable};

/// So many names are kept, each of them at most some hundred bytes: a few megabytes at most.
const KEPT: usize = 16_384;

/// Something that watchers are told of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Touched {
    /// A workflow.
    Workflow(Name),
    /// A pipeline, or who owns it.
    Pipeline(PipelineKey),
    /// A run.
    Run(RunName),
    /// An agent.
    Agent(AgentName),
    /// A notifier, or how it goes.
    Notifier(Name),
    /// The source.
    Source,
    /// A new event, by its number.
    Event(u64),
    /// Suspended or not any more, and with it what is below it.
    Suspended(Suspendable),
}

/// The last commits, oldest first, without gaps.
#[derive(Debug, Default)]
pub(super) struct Recent {
    groups: VecDeque<(u64, BTreeSet<Touched>)>,
    kept: usize,
}

impl Recent {
    pub(super) fn add(&mut self, group: &Committed) {
        let mut event = group.first_event;
        let mut touched = BTreeSet::new();
        for change in &group.changes {
            touched.extend(self::touched(change, &mut event));
        }
        // One that changed nothing to tell is kept all the same, so that there is no gap.
        self.kept += touched.len().max(1);
        self.groups.push_back((group.revision, touched));
        while self.kept > KEPT
            && let Some((_, dropped)) = self.groups.pop_front()
        {
            self.kept -= dropped.len().max(1);
        }
    }

    /// What was touched after `revision`, and the revision up to which that is all; `None` if it is not known any more.
    /// `None` also if that is more than `most`.
    pub(super) fn since(&self, revision: u64, most: usize) -> Option<(u64, BTreeSet<Touched>)> {
        let (first, last) = (self.groups.front()?.0, self.groups.back()?.0);
        if revision.checked_add(1)? < first || revision > last {
            return None;
        }
        let later = self.groups.iter().filter(|(group, _)| *group > revision).flat_map(|(_, touched)| touched);
        let touched: BTreeSet<&Touched> = later.collect();
        (touched.len() <= most).then(|| (last, touched.into_iter().cloned().collect()))
    }
}

fn touched(change: &Change, event: &mut u64) -> Option<Touched> {
    Some(match change {
        Change::PutWorkflow(row) => Touched::Workflow(row.metadata.name.clone()),
        Change::DeleteWorkflow(name) => Touched::Workflow(name.clone()),
        Change::PutPipeline(row) => Touched::Pipeline(row.key.clone()),
        Change::DeletePipeline(key) | Change::PutOwner(key, _) => Touched::Pipeline(key.clone()),
        Change::PutRun(row) => Touched::Run(row.run.metadata.name),
        Change::DeleteRun(name) => Touched::Run(*name),
        Change::PutAgent(row) => Touched::Agent(row.name.clone()),
        Change::DeleteAgent(name) => Touched::Agent(name.clone()),
        Change::PutNotifier(row) => Touched::Notifier(row.metadata.name.clone()),
        Change::PutMessage(row) => Touched::Notifier(row.notifier.clone()),
        Change::DeleteNotifier(name) | Change::DeleteMessage(name, ..) | Change::PutNotifierHealth(name, _) => {
            Touched::Notifier(name.clone())
        }
        Change::PutSource(_) => Touched::Source,
        Change::AddEvent(_) => {
            let number = *event;
            *event += 1;
            Touched::Event(number)
        }
        Change::PutSuspension(row) => Touched::Suspended(row.what.clone()),
        Change::DeleteSuspension(what) => Touched::Suspended(what.clone()),
        Change::PutSpec(..)
        | Change::PutFile(..)
        | Change::PutJoinToken(_)
        | Change::DeleteJoinToken(_)
        | Change::PutApiToken(_)
        | Change::DeleteApiToken(_)
        | Change::PutLedger(_)
        | Change::PutDelivery(..)
        | Change::PutController(_)
        | Change::PutForgotten(_)
        | Change::PutAfter(..)
        | Change::Redigest => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn group(revision: u64, changes: Vec<Change>) -> Committed {
        Committed { revision, first_event: 1, changes: changes.into_iter().map(Arc::new).collect() }
    }

    fn gone(name: &str) -> Change {
        Change::DeleteWorkflow(name.parse().unwrap())
    }

    #[test]
    fn what_was_touched_since_is_told_once() {
        let mut recent = Recent::default();
        assert_eq!(recent.since(0, KEPT), None, "of what was before the process began nothing is known");
        recent.add(&group(7, vec![gone("a"), gone("b")]));
        recent.add(&group(8, vec![Change::Redigest]));
        recent.add(&group(9, vec![gone("a")]));
        let since = |revision| {
            recent.since(revision, KEPT).map(|(last, touched)| {
                assert_eq!(last, 9);
                touched.len()
            })
        };
        assert_eq!([5, 6, 7, 8, 9, 10, u64::MAX].map(since), [None, Some(2), Some(1), Some(1), Some(0), None, None]);
    }

    #[test]
    fn the_oldest_fall_out() {
        let mut recent = Recent::default();
        for revision in 1..=10 {
            recent.add(&group(revision, (0..KEPT / 4).map(|n| gone(&format!("w{n}"))).collect()));
        }
        assert!(recent.kept <= KEPT && recent.groups.len() == 4);
        assert!(recent.since(5, KEPT).is_none() && recent.since(6, KEPT).is_some());
        recent.add(&group(11, (0..=KEPT).map(|n| gone(&format!("w{n}"))).collect()));
        assert_eq!((recent.kept, recent.groups.len()), (0, 0), "one that is too large alone is not kept");
        recent.add(&group(12, vec![]));
        assert!(recent.since(10, KEPT).is_none() && recent.since(11, KEPT).is_some());
    }
}
