//! What is counted while it happens, so that a scrape only reads.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use xene_schemas::{
    event::EventType,
    meta::RunName,
    phase::{Reason, RunPhase},
    run::Run,
};

use crate::decide::rows::{Change, Fate, LedgerRow, RunRow};

/// Upper bounds of the durations of runs, in seconds.
pub const DURATIONS: [u32; 9] = [1, 5, 15, 60, 300, 900, 3_600, 21_600, 86_400];
/// So many runs that ended last are remembered: their rows may be written again, and count once.
const ENDED: usize = 4_096;

/// Counts from the start of the process on.
#[derive(Debug, Default)]
pub struct Counters {
    counts: Mutex<Counts>,
    log_bytes: AtomicU64,
}

/// As of one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Counts {
    /// Runs that have not ended.
    pub active: BTreeMap<RunPhase, u64>,
    /// Those of them that have not begun, by what they wait for.
    pub waiting: BTreeMap<String, u64>,
    /// Runs that were made, by what started them.
    pub created: BTreeMap<&'static str, u64>,
    /// Runs that ended.
    pub ended: BTreeMap<RunPhase, u64>,
    /// How long they took: as many as there are [`DURATIONS`], each the number of those within it.
    pub within: [u64; DURATIONS.len()],
    /// How long they took together, in seconds.
    pub seconds: f64,
    /// Due times without a run.
    pub missed: BTreeMap<String, u64>,
    /// Messages of notifiers that wait no more.
    pub messages: BTreeMap<Fate, u64>,
    /// Events.
    pub events: BTreeMap<&'static str, u64>,
    /// Requests that were answered, by method and status.
    pub requests: BTreeMap<(&'static str, u16), u64>,
    runs: Runs,
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Runs {
    active: HashMap<RunName, (RunPhase, Option<Reason>)>,
    ended: HashSet<RunName>,
    order: VecDeque<RunName>,
}

impl Counters {
    /// Counters of a process that found these runs under way.
    pub fn new<'r>(active: impl IntoIterator<Item = &'r RunRow>) -> Self {
        let counters = Self::default();
        let mut counts = counters.lock();
        for row in active {
            counts.put_active(&row.run);
        }
        drop(counts);
        counters
    }

    /// Counts what is about to be committed. `is_known` is true of due times that the store has a row of: agents tell them
    /// again when they do not hear that they were taken.
    pub fn count(&self, batch: &[Change], is_known: impl Fn(&LedgerRow) -> bool) {
        let mut counts = self.lock();
        for change in batch {
            match change {
                Change::PutRun(row) => counts.put_run(&row.run),
                Change::DeleteRun(run) => drop(counts.take_active(*run)),
                Change::PutLedger(row) if row.run.is_none() && !is_known(row) => {
                    // Agents send these words: only known ones are labels.
                    let known = row.reason.as_ref().filter(|reason| reason.is_known());
                    let reason = known.map_or("Unknown", Reason::as_str).to_owned();
                    *counts.missed.entry(reason).or_default() += u64::from(row.count.unwrap_or(1));
                }
                Change::AddEvent(event) => {
                    let kind = match event.kind {
                        EventType::Normal => "Normal",
                        EventType::Warning => "Warning",
                    };
                    *counts.events.entry(kind).or_default() += 1;
                }
                Change::DeleteMessage(_, _, fate) => *counts.messages.entry(*fate).or_default() += 1,
                _ => {}
            }
        }
    }

    /// Counts an answer.
    pub fn count_request(&self, method: &'static str, status: u16) {
        *self.lock().requests.entry((method, status)).or_default() += 1;
    }

    /// Counts bytes of logs that came from agents.
    pub fn count_log(&self, bytes: usize) {
        self.log_bytes.fetch_add(u64::try_from(bytes).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Bytes of logs that came from agents.
    pub fn log_bytes(&self) -> u64 {
        self.log_bytes.load(Ordering::Relaxed)
    }

    /// What has been counted.
    pub fn look<T>(&self, look: impl FnOnce(&Counts) -> T) -> T {
        look(&self.lock())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    /// How many runs ended.
    pub fn ended_in_all(&self) -> u64 {
        self.ended.values().sum()
    }

    fn put_run(&mut self, run: &Run) {
        let name = run.metadata.name;
        let known = self.take_active(name);
        if self.runs.ended.contains(&name) {
            return;
        }
        if !known {
            *self.created.entry(run.spec.trigger.kind.as_str()).or_default() += 1;
        }
        if !run.status.phase.is_final() {
            self.put_active(run);
            return;
        }
        *self.ended.entry(run.status.phase).or_default() += 1;
        if let (Some(start), Some(end)) = (run.status.started_at, run.status.finished_at) {
            let seconds = end.duration_since(start).as_secs_f64().max(0.0);
            self.seconds += seconds;
            for (within, bound) in self.within.iter_mut().zip(DURATIONS) {
                *within += u64::from(seconds <= f64::from(bound));
            }
        } else {
            // It never began, which is quick.
            self.within.iter_mut().for_each(|within| *within += 1);
        }
        self.runs.ended.insert(name);
        self.runs.order.push_back(name);
        if self.runs.order.len() > ENDED
            && let Some(oldest) = self.runs.order.pop_front()
        {
            self.runs.ended.remove(&oldest);
        }
    }

    fn put_active(&mut self, run: &Run) {
        let status = &run.status;
        let waits = status.reason.clone().filter(|_| status.phase == RunPhase::StartingUp);
        *self.active.entry(status.phase).or_default() += 1;
        if let Some(reason) = &waits {
            *self.waiting.entry(reason.as_str().to_owned()).or_default() += 1;
        }
        self.runs.active.insert(run.metadata.name, (status.phase, waits));
    }

    /// True if it was there.
    fn take_active(&mut self, run: RunName) -> bool {
        let Some((phase, waits)) = self.runs.active.remove(&run) else { return false };
        if let Some(count) = self.active.get_mut(&phase) {
            *count -= 1;
        }
        if let Some(count) = waits.and_then(|reason| self.waiting.get_mut(reason.as_str())) {
            *count -= 1;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::json;

    use super::*;
    use crate::decide::rows::NewEvent;

    fn row(n: u128, phase: RunPhase, reason: Option<Reason>, seconds: Option<i64>) -> Change {
        let spec = json!({
            "workflow": "w", "pipeline": "p", "trigger": {"type": "cron"}, "params": {}, "revision": "r",
            "specHash": "00".repeat(32),
        });
        let name = RunName::new(Timestamp::from_second(1_700_000_000).unwrap(), n);
        let mut run = Run::new(name, Timestamp::UNIX_EPOCH, serde_json::from_value(spec).unwrap());
        (run.status.phase, run.status.reason) = (phase, reason);
        if let Some(seconds) = seconds {
            run.status.started_at = Some(Timestamp::from_second(100).unwrap());
            run.status.finished_at = Some(Timestamp::from_second(100 + seconds).unwrap());
        }
        Change::PutRun(Box::new(RunRow::new(run, true)))
    }

    #[test]
    fn each_run_counts_once_however_often_it_is_written() {
        let counters = Counters::default();
        counters.count(&[row(1, RunPhase::StartingUp, Some(Reason::QUEUED), None)], |_| false);
        counters.count(&[row(2, RunPhase::Running, None, None)], |_| false);
        counters.look(|counts| {
            assert_eq!(counts.waiting["Queued"], 1);
            assert_eq!((counts.active[&RunPhase::StartingUp], counts.active[&RunPhase::Running]), (1, 1));
        });
        for _ in 0..2 {
            counters.count(&[row(1, RunPhase::Running, None, None)], |_| false);
        }
        for _ in 0..3 {
            counters.count(
                &[
                    row(1, RunPhase::Success, None, Some(4)),
                    row(3, RunPhase::Error, Some(Reason::STEP_FAILED), Some(100)),
                ],
                |_| false,
            );
        }
        counters.look(|counts| {
            assert_eq!((counts.waiting["Queued"], counts.active[&RunPhase::StartingUp]), (0, 0));
            assert_eq!(counts.active[&RunPhase::Running], 1);
            assert_eq!((counts.created["cron"], counts.ended_in_all()), (3, 2));
            assert_eq!((counts.ended[&RunPhase::Success], counts.ended[&RunPhase::Error]), (1, 1));
            assert_eq!(counts.within, [0, 1, 1, 1, 2, 2, 2, 2, 2]);
            assert!((counts.seconds - 104.0).abs() < 1e-9);
        });
    }

    #[test]
    fn runs_that_were_under_way_at_the_start_are_not_made_anew() {
        let Change::PutRun(running) = row(1, RunPhase::Running, None, None) else { panic!() };
        let counters = Counters::new([&*running]);
        counters.count(&[row(1, RunPhase::Success, None, Some(1))], |_| false);
        counters.look(|counts| assert_eq!((counts.created.len(), counts.ended_in_all()), (0, 1)));
    }

    #[test]
    fn due_times_without_a_run_count_by_their_reason_and_number() {
        let counters = Counters::default();
        let missed = |reason: Reason, count| {
            Change::PutLedger(LedgerRow {
                pipeline: "w/p".parse().unwrap(),
                trigger: "t".parse().unwrap(),
                slot: Timestamp::UNIX_EPOCH,
                reason: Some(reason),
                run: None,
                until: None,
                count,
                agent: None,
            })
        };
        counters.count(&[missed(Reason::TOO_LATE, None), missed(Reason::TOO_LATE, Some(7))], |_| false);
        counters.count(&[missed(Reason::TOO_LATE, Some(7))], |row| row.slot == Timestamp::UNIX_EPOCH);
        counters.count(
            &[Change::AddEvent(NewEvent {
                at: Timestamp::UNIX_EPOCH,
                kind: EventType::Warning,
                reason: "x".into(),
                message: "x".into(),
                regarding: "x".into(),
            })],
            |_| false,
        );
        counters.look(|counts| assert_eq!((counts.missed["TooLate"], counts.events["Warning"]), (8, 1)));
    }
}
