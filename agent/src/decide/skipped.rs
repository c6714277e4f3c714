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

/// Rows that are kept while the controller is away; beyond that the oldest are dropped. An agent that is cut off looks
/// at due times only while its lease lasts, and tells long stretches in one row.
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

    fn push(&mut self, row: SkippedSlot) -> JournalChange {
        let number = self.first + self.rows.len() as u64;
        self.rows.push_back(row.clone());
        if self.rows.len() > MOST {
            self.drop_first(1);
        }
        JournalChange::PutSkipped(number, row)
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

impl Agent {
    /// Due times gave no run.
    pub(super) fn skip(&mut self, key: &PipelineKey, passed: Passed, fx: &mut Effects) {
        let Some(claim) = self.claims.get(key) else { return };
        let Passed { slot, reason, until, count } = passed;
        let epoch = claim.row.epoch;
        let row =
            SkippedSlot { pipeline: key.clone(), epoch, trigger: slot.trigger, slot: slot.at, reason, until, count };
        fx.commit.push(self.skipped.push(row));
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
            assert_eq!(rows.push(row(second)), JournalChange::PutSkipped(second.unsigned_abs(), row(second)));
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
        assert_eq!(rows.push(row(4)), JournalChange::PutSkipped(4, row(4)));
        rows.acknowledge(4);
        rows.say_again();
        assert_eq!(said(&mut rows), Some((4, 1)), "only what was said can be acknowledged");
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many() {
        let mut rows = SkippedRows::default();
        for second in 0..MOST as i64 + 5 {
            rows.push(row(second));
        }
        assert_eq!(said(&mut rows), Some((5, MOST)));
        assert_eq!(rows.forgotten(), Some(JournalChange::DeleteSkipped(5)));
    }
}
