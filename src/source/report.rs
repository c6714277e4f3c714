//! Tells how a source goes, on transitions only.

use std::time::Duration;

use jiff::Timestamp;
use xene_agent::{clock, decide::time::BootTime};
use xene_schemas::meta::Revision;

use super::{health::Failure, worker::Superseded};
use crate::decide::desired::SourceHealth;

/// What was told, so that nothing is told twice.
pub(super) struct Report<H> {
    health: H,
    stale_after: Duration,
    seen: Option<Revision>,
    dirty: u32,
    failed: Option<Failed>,
    rewritten: Option<(Revision, Revision)>,
    degraded: Option<String>,
}

struct Failed {
    failure: Failure,
    since: Timestamp,
    began: BootTime,
    stale: bool,
}

impl<H: FnMut(SourceHealth)> Report<H> {
    pub(super) fn new(health: H, stale_after: Duration) -> Self {
        Self { health, stale_after, seen: None, dirty: 0, failed: None, rewritten: None, degraded: None }
    }

    /// The dirty files that were last told.
    pub(super) fn dirty(&self) -> u32 {
        self.dirty
    }

    /// True while not everything is watched.
    pub(super) fn is_degraded(&self) -> bool {
        self.degraded.is_some()
    }

    /// It was looked at, and this is the newest. Told each time.
    pub(super) fn looked(&mut self, seen: &Revision) {
        (self.health)(SourceHealth::Looked { seen: seen.clone(), at: clock::now().wall });
    }

    /// It was looked at with success, and what it brought is done.
    pub(super) fn observed(&mut self, seen: Revision, dirty: u32) {
        if self.failed.take().is_some() || self.seen.as_ref() != Some(&seen) || self.dirty != dirty {
            (self.health)(SourceHealth::Observed { seen: Some(seen.clone()), at: clock::now().wall, dirty });
            self.seen = Some(seen);
            self.dirty = dirty;
        }
    }

    /// It can't be read. One that lasts is stale.
    pub(super) fn failed(&mut self, failure: &Failure) {
        let now = clock::now();
        let (since, began) = self.failed.as_ref().map_or((now.wall, now.boot), |failed| (failed.since, failed.began));
        let lasted = now.boot.since(began);
        let stale = lasted >= self.stale_after;
        if self.failed.as_ref().is_some_and(|failed| failed.failure == *failure && failed.stale == stale) {
            return;
        }
        let (reason, message) = (failure.reason.to_string(), failure.message.clone());
        (self.health)(SourceHealth::Failed { reason, message, since, stale });
        self.failed = Some(Failed { failure: failure.clone(), since, began, stale });
    }

    /// When a failure that goes on is stale, from now; `None` if there is none, or it is by now.
    pub(super) fn until_stale(&self) -> Option<Duration> {
        let failed = self.failed.as_ref().filter(|failed| !failed.stale)?;
        Some(self.stale_after.saturating_sub(clock::now().boot.since(failed.began)))
    }

    /// The newest revision does not descend from the one in effect.
    pub(super) fn rewritten(&mut self, from: &Revision, to: &Revision) {
        let pair = (from.clone(), to.clone());
        if self.rewritten.as_ref() != Some(&pair) {
            (self.health)(SourceHealth::Rewritten { from: from.clone(), to: to.clone() });
            self.rewritten = Some(pair);
        }
    }

    /// What took effect leaves these behind.
    pub(super) fn superseded(&mut self, Superseded { count, commits }: Superseded, by: &Revision) {
        if count > 0 {
            (self.health)(SourceHealth::Superseded { count, commits, by: by.clone() });
        }
    }

    /// Why not everything is watched; told as an empty sentence when it ends.
    pub(super) fn degraded(&mut self, degraded: Option<String>) {
        if self.degraded != degraded {
            (self.health)(SourceHealth::Degraded(degraded.clone().unwrap_or_default()));
            self.degraded = degraded;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::health::Reason, *};

    #[test]
    fn only_transitions_are_told() {
        let mut told = Vec::new();
        let mut report = Report::new(|health| told.push(health), Duration::from_secs(3600));
        let revision = |text: &str| Revision(text.to_owned());
        let failure = Failure::new(Reason::Unreachable, "away");
        report.observed(revision("a"), 0);
        report.observed(revision("a"), 0);
        report.failed(&failure);
        report.failed(&failure);
        report.observed(revision("a"), 0);
        report.rewritten(&revision("a"), &revision("b"));
        report.rewritten(&revision("a"), &revision("b"));
        report.degraded(Some("limit".to_owned()));
        report.degraded(Some("limit".to_owned()));
        report.degraded(None);
        report.observed(revision("a"), 2);
        let kinds: Vec<_> = told
            .iter()
            .map(|health| match health {
                SourceHealth::Looked { seen, .. } => format!("looked {seen}"),
                SourceHealth::Observed { dirty, .. } => format!("observed {dirty}"),
                SourceHealth::Failed { reason, .. } => reason.clone(),
                SourceHealth::Rewritten { .. } => "rewritten".to_owned(),
                SourceHealth::Superseded { count, .. } => format!("superseded {count}"),
                SourceHealth::Degraded(why) => format!("degraded {why}"),
            })
            .collect();
        assert_eq!(
            kinds,
            ["observed 0", "Unreachable", "observed 0", "rewritten", "degraded limit", "degraded ", "observed 2"]
        );
    }
}
