//! Due times that gave no run: kept, durably, until the controller has them.
//!
//! Each is journaled with the watermark that passes it over, so it costs no sync of its own; and it goes with whatever
//! is written after its acknowledgement. After a crash in between it is said again, which changes nothing.

use std::collections::{BTreeMap, VecDeque};

use xene_schemas::{
    meta::PipelineKey,
    wire::control::{Skipped, SkippedSlot},
};

use super::{
    Agent,
    event::{Effects, JournalChange},
    triggers::Passed,
};

/// Rows that are kept while the controller is away; beyond that the oldest become ranges. None is dropped: so many more
/// there can only be as there are triggers, each with its reasons.
const MOST: usize = 10_000;

/// Rows that are not acknowledged, by number.
#[derive(Debug, Default)]
pub(super) struct SkippedRows {
    /// The number of the first.
    first: u64,
    rows: VecDeque<SkippedSlot>,
    /// How many of them this session was told.
    said: usize,
    /// Rows below this are still in the journal, and need not be.
    stale: bool,
}

impl SkippedRows {
    /// From what the journal held.
    pub(super) fn recovered(rows: BTreeMap<u64, SkippedSlot>) -> Self {
        let first = rows.keys().next().copied().unwrap_or_default();
        Self { first, rows: rows.into_values().collect(), said: 0, stale: false }
    }

    fn push(&mut self, row: SkippedSlot) -> Vec<JournalChange> {
        let mut changes = vec![self.put(row)];
        if self.rows.len() > MOST {
            changes.extend(self.merge());
        }
        changes
    }

    fn put(&mut self, row: SkippedSlot) -> JournalChange {
        let number = self.first + self.rows.len() as u64;
        self.rows.push_back(row.clone());
        JournalChange::PutSkipped(number, row)
    }

    /// One row less: the oldest becomes one with the next of its kind. Those that are the only ones of theirs move to the
    /// end, as numbers have no gaps.
    fn merge(&mut self) -> Vec<JournalChange> {
        let mut changes = Vec::new();
        for _ in 0..self.rows.len() {
            let Some(oldest) = self.rows.front().cloned() else { break };
            let next = self.rows.iter_mut().zip(self.first..).skip(1).find(|(row, _)| is_of_one_kind(row, &oldest));
            let merged = next.map(|(row, number)| {
                *row = range(oldest.clone(), row);
                JournalChange::PutSkipped(number, row.clone())
            });
            let ends = merged.is_some();
            changes.push(merged.unwrap_or_else(|| self.put(oldest)));
            self.drop_first(1);
            if ends {
                break;
            }
        }
        changes
    }

    fn drop_first(&mut self, count: usize) {
        self.rows.drain(..count);
        self.first += count as u64;
        self.said = self.said.saturating_sub(count);
        self.stale = true;
    }

    /// The controller has all rows below this number.
    pub(super) fn acknowledge(&mut self, next: u64) {
        let count = usize::try_from(next.saturating_sub(self.first)).unwrap_or(usize::MAX).min(self.said);
        if count > 0 {
            self.drop_first(count);
        }
    }

    /// A new session knows nothing of what an earlier one was told.
    pub(super) fn say_again(&mut self) {
        self.said = 0;
    }

    /// What this session was not told yet.
    pub(super) fn unsaid(&mut self) -> Option<Skipped> {
        let said = std::mem::replace(&mut self.said, self.rows.len());
        let rows: Vec<SkippedSlot> = self.rows.range(said..).cloned().collect();
        (!rows.is_empty()).then(|| Skipped { first: Some(self.first + said as u64), rows })
    }

    /// What the journal need not hold any more.
    pub(super) fn forgotten(&mut self) -> Option<JournalChange> {
        std::mem::take(&mut self.stale).then_some(JournalChange::DeleteSkipped(self.first))
    }
}

fn is_of_one_kind(one: &SkippedSlot, other: &SkippedSlot) -> bool {
    let kind = |row: &SkippedSlot| (row.epoch, row.reason.clone());
    one.trigger == other.trigger && one.pipeline == other.pipeline && kind(one) == kind(other)
}

/// Both in one row.
fn range(one: SkippedSlot, other: &SkippedSlot) -> SkippedSlot {
    let last = |row: &SkippedSlot| row.until.unwrap_or(row.slot);
    // Of a stretch that nobody counted none is known.
    let count = |row: &SkippedSlot| row.count.or_else(|| row.until.is_none().then_some(1));
    let until = Some(last(&one).max(last(other)));
    let count = count(&one).zip(count(other)).map(|(one, other)| one.saturating_add(other));
    SkippedSlot { slot: one.slot.min(other.slot), until, count, ..one }
}

impl Agent {
    /// Due times gave no run.
    pub(super) fn skip(&mut self, key: &PipelineKey, passed: Passed, fx: &mut Effects) {
        let Some(claim) = self.claims.get(key) else { return };
        let Passed { slot, reason, until, count } = passed;
        let epoch = claim.row.epoch;
        let row =
            SkippedSlot { pipeline: key.clone(), epoch, trigger: slot.trigger, slot: slot.at, reason, until, count };
        fx.commit.extend(self.skipped.push(row));
    }
}

#[cfg(test)]
mod tests {
    use xene_schemas::phase::Reason;

    use super::*;

    fn row(second: i64) -> SkippedSlot {
        SkippedSlot {
            pipeline: "w/p".parse().unwrap(),
            epoch: Default::default(),
            trigger: "t".parse().unwrap(),
            slot: jiff::Timestamp::from_second(second).unwrap(),
            reason: Reason::OVERLAP,
            until: None,
            count: None,
        }
    }

    fn said(rows: &mut SkippedRows) -> Option<(u64, usize)> {
        rows.unsaid().map(|said| (said.first.unwrap(), said.rows.len()))
    }

    #[test]
    fn rows_are_said_once_a_session_until_they_are_acknowledged() {
        let mut rows = SkippedRows::default();
        for second in 0..3 {
            assert_eq!(rows.push(row(second)), [JournalChange::PutSkipped(second.unsigned_abs(), row(second))]);
        }
        assert_eq!((said(&mut rows), said(&mut rows)), (Some((0, 3)), None));
        rows.push(row(3));
        assert_eq!(said(&mut rows), Some((3, 1)));
        rows.acknowledge(2);
        rows.acknowledge(1);
        rows.say_again();
        assert_eq!(said(&mut rows), Some((2, 2)));
        assert_eq!((rows.forgotten(), rows.forgotten()), (Some(JournalChange::DeleteSkipped(2)), None));

        // A process that starts with what the journal held goes on with its numbers.
        let mut rows = SkippedRows::recovered([(2, row(2)), (3, row(3))].into());
        assert_eq!(said(&mut rows), Some((2, 2)));
        assert_eq!(rows.push(row(4)), [JournalChange::PutSkipped(4, row(4))]);
        rows.acknowledge(4);
        rows.say_again();
        assert_eq!(said(&mut rows), Some((4, 1)), "only what was said can be acknowledged");
    }

    #[test]
    fn the_oldest_become_ranges_when_there_are_too_many() {
        let mut rows = SkippedRows::default();
        let mut journal = BTreeMap::new();
        let other = SkippedSlot { trigger: "other".parse().unwrap(), ..row(0) };
        let stretch = |reason, count| SkippedSlot { reason, until: row(9).slot.into(), count, ..row(0) };
        let first = [other.clone(), stretch(Reason::TOO_LATE, None), stretch(Reason::MISSED, Some(7))];
        let most = MOST as i64;
        let later = (10..most + 200).map(|second| {
            let reason = [Reason::TOO_LATE, Reason::MISSED, Reason::OVERLAP][second as usize % 3].clone();
            SkippedSlot { reason, ..row(second) }
        });
        for row in first.into_iter().chain(later) {
            let mut changes = rows.push(row);
            changes.extend(rows.forgotten());
            for change in changes {
                match change {
                    JournalChange::PutSkipped(number, row) => _ = journal.insert(number, row),
                    JournalChange::DeleteSkipped(next) => journal.retain(|number, _| *number >= next),
                    _ => unreachable!("{change:?}"),
                }
            }
        }
        assert_eq!(rows.rows.len(), MOST);
        assert_eq!(SkippedRows::recovered(journal).rows, rows.rows, "the next process has the same");
        assert!(rows.rows.contains(&other), "one that is the only one of its trigger stays as it is");
        let told = |reason| {
            let of = rows.rows.iter().filter(|row| row.reason == reason && row.trigger != other.trigger);
            let count = |row: &SkippedSlot| row.count.or_else(|| row.until.is_none().then_some(1));
            of.map(count).sum::<Option<u32>>()
        };
        let each = |rest| (10..most + 200).filter(|second| second % 3 == rest).count() as u32;
        assert_eq!((told(Reason::MISSED), told(Reason::OVERLAP)), (Some(each(1) + 7), Some(each(2))));
        assert_eq!(told(Reason::TOO_LATE), None, "a stretch that nobody counted");
    }
}
