//! Retention: which ended runs are kept. The store's records go with their logs.

use xene_agent::decide::time::Now;
use xene_schemas::{
    meta::{PipelineKey, RunName},
    pipeline::History,
};

use super::{
    Controller, Timer,
    event::{Effect, Effects},
    notices,
    rows::{Change, EndedRun},
};

/// Splits runs, oldest end first, into those that stay and those that go.
fn split(runs: &[EndedRun], history: &History, now: i64) -> (Vec<EndedRun>, Vec<RunName>) {
    let oldest = now - i64::try_from(history.max_age.as_millis() / 1000).unwrap_or(i64::MAX);
    let (mut kept, mut successes) = (Vec::with_capacity(runs.len()), 0);
    let mut gone = Vec::new();
    for run in runs.iter().rev() {
        successes += u32::from(run.success);
        let good = run.success && successes <= history.keep_successes;
        if good || (kept.len() < history.runs as usize && run.finished_at >= oldest) {
            kept.push(*run);
        } else {
            gone.push(run.name);
        }
    }
    kept.reverse();
    (kept, gone)
}

impl Controller {
    /// How a run of this pipeline ended, if it is still kept.
    pub(super) fn ended_run(&self, key: &PipelineKey, run: RunName) -> Option<EndedRun> {
        self.ended.get(key)?.iter().rev().find(|ended| ended.name == run).copied()
    }

    /// A run is final and written: it leaves the working set, and old ones leave the store.
    pub(super) fn retire(&mut self, now: Now, run: RunName, fx: &mut Effects) {
        let Some(row) = self.runs.remove(&run) else { return };
        let key = row.run.spec.key();
        if let Some(active) = self.active.get_mut(&key) {
            active.remove(&run);
            if active.is_empty() {
                self.active.remove(&key);
            }
        }
        match &row.run.status.agent {
            Some(agent) => self.forget_agent_run(agent, run),
            None => _ = self.unaddressed.remove(&(key.clone(), run)),
        }
        self.timers.disarm(&Timer::GiveUp(run));
        let ended = EndedRun::new(&row.run, now.wall);
        let before = self.ended.entry(key.clone()).or_default();
        // Before it is forgotten how the one before ended, and before more ends come in the same report.
        if let Some(edge) = notices::edge(before, &ended) {
            self.edges.insert(run, edge);
        }
        before.push(ended);
        self.retain(now, &key, fx);
        if ended.success {
            self.succeeded(now, &row, fx);
        }
        self.place_group(now, &key, fx);
    }

    /// Looks for runs that are too old, of every pipeline.
    pub(super) fn sweep(&mut self, now: Now, fx: &mut Effects) {
        let keys: Vec<PipelineKey> = self.ended.keys().cloned().collect();
        for key in keys {
            self.retain(now, &key, fx);
        }
    }

    fn retain(&mut self, now: Now, key: &PipelineKey, fx: &mut Effects) {
        let Some(runs) = self.ended.get_mut(key) else { return };
        let default = History::default();
        let history = self.pipelines.get(key).and_then(|pipeline| pipeline.history.as_ref()).unwrap_or(&default);
        let (kept, gone) = split(runs, history, now.wall.as_second());
        if gone.is_empty() {
            return;
        }
        *runs = kept;
        if runs.is_empty() {
            self.ended.remove(key);
        }
        fx.commit.extend(gone.iter().map(|run| Change::DeleteRun(*run)));
        fx.then.push(Effect::DeleteLogs(gone));
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use xene_schemas::duration::Duration;

    use super::*;

    #[test]
    fn keeps_the_newest_and_the_last_good_one() {
        let run = |at: i64, success| EndedRun {
            name: RunName::new(Timestamp::from_second(at).unwrap(), 0),
            finished_at: at,
            success,
            scheduled: false,
            cancelled: false,
        };
        let runs = [run(1, true), run(2, true), run(3, false), run(4, false), run(5, false)];
        let at = |runs: &[EndedRun]| runs.iter().map(|run| run.finished_at).collect::<Vec<_>>();
        let history = |runs, secs| History { runs, max_age: Duration::from_secs(secs), keep_successes: 1 };
        assert_eq!(at(&split(&runs, &history(2, 100), 6).0), [2, 4, 5], "two, and the last good one");
        assert_eq!(at(&split(&runs, &history(9, 2), 6).0), [2, 4, 5], "young ones, and the last good one");
        let (kept, gone) = split(&runs, &history(9, 100), 6);
        assert!(gone.is_empty() && kept == runs);
    }
}
