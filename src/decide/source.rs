//! How the source goes: its conditions, from what was seen, tried and applied.

use std::time::Duration;

use jiff::Timestamp;
use xene_agent::decide::time::Now;
use xene_schemas::{
    diagnostic::Severity,
    event::EventType,
    meta::{Name, Revision},
    notifier::Transition,
    source::{Condition, ConditionStatus, SourceStatus},
};

use super::{
    Controller,
    desired::{Desired, SourceHealth, SourceOrigin, errors},
    event::Effects,
    note,
    rows::Change,
};

/// Failures that no retry mends: a person has to.
const STALLS: [&str; 8] = [
    "RefMissing",
    "PathMissing",
    "Empty",
    "AuthFailed",
    "UnsupportedFormat",
    "HistoryRewritten",
    "ForeignOwner",
    "GitMissing",
];

/// What takes longer than this to come into effect is told as seen before: anything quicker would only flicker.
const SLOW: Duration = Duration::from_secs(1);

/// Why the source is known, or not yet: nothing keeps it from being read.
const LOOKED: &str = "Looked";

/// Why it is degraded: workflows that no file declares any more stay, too many of them at once to go…
const PRUNE_BLOCKED: &str = super::plan::BLOCKED;
/// …or for another reason.
const PRUNE_HELD: &str = "PruneHeld";

/// Why nothing of a revision is in effect that has errors.
const WITHHELD: &str = "Withheld";

/// The source, and what its status does not hold.
#[derive(Debug, Clone)]
pub(super) struct SourceState {
    status: SourceStatus,
    failure: Option<Failed>,
    /// Since when the newest revision is not the one in effect.
    behind_since: Option<Timestamp>,
    limit: Option<String>,
    /// Workflows that vanished and stay.
    pub(super) held: Vec<Name>,
    /// Those of them that a commit would remove too many of at once.
    pub(super) blocked: Vec<Name>,
}

/// Why the source can't be read.
#[derive(Debug, Clone)]
struct Failed {
    reason: String,
    message: String,
    stale: bool,
}

/// What the last look at the source found, which its stored status need not say yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LastLook {
    /// When that was.
    pub observed_at: Option<Timestamp>,
    /// For how long the newest revision has not been in effect; zero while it is.
    pub lag: Duration,
    /// If it takes its time to come into effect: the newest revision, and the conditions with it.
    late: Option<(Option<Revision>, Vec<Condition>)>,
}

impl LastLook {
    /// Says in a stored status what was found since it was stored.
    pub fn add_to(self, status: &mut SourceStatus) {
        status.observed_at = status.observed_at.max(self.observed_at);
        if let Some((seen, conditions)) = self.late {
            (status.seen, status.conditions) = (seen, conditions);
        }
    }
}

impl SourceState {
    pub(super) fn new(origin: &SourceOrigin, loaded: Option<SourceStatus>) -> Self {
        let mut status = loaded.unwrap_or_else(|| SourceStatus {
            kind: origin.kind,
            url: String::new(),
            branch: None,
            path: String::new(),
            revision: None,
            seen: None,
            attempted: None,
            author: None,
            subject: None,
            observed_at: None,
            synced_at: None,
            workflows: 0,
            ignored: 0,
            dirty: 0,
            suspension: None,
            webhook: None,
            webhook_token: None,
            conditions: Vec::new(),
            problems: Vec::new(),
        });
        status.kind = origin.kind;
        status.url.clone_from(&origin.url);
        status.branch.clone_from(&origin.branch);
        if let Some(path) = &origin.path {
            status.path.clone_from(path);
        }
        // What was told before the restart is not told again.
        let fetched = status.conditions.iter().find(|condition| condition.kind == "Fetched");
        let failed = fetched.filter(|found| found.status == ConditionStatus::False && found.reason != LOOKED);
        let failure =
            failed.map(|found| Failed { reason: found.reason.clone(), message: found.message.clone(), stale: false });
        let mut state =
            Self { status, failure, behind_since: None, limit: None, held: Vec::new(), blocked: Vec::new() };
        if state.is_behind() {
            let ready = state.status.conditions.iter().find(|condition| condition.kind == "Ready");
            state.behind_since = ready.map(|ready| ready.since);
        }
        state
    }

    /// True if the newest revision is not the one in effect.
    fn is_behind(&self) -> bool {
        self.status.seen != self.status.revision
    }

    /// Remembers since when it is behind.
    fn follow(&mut self, at: Timestamp) {
        self.behind_since = if self.is_behind() { self.behind_since.or(Some(at)) } else { None };
    }

    /// What the last look found, as of `now`.
    pub(super) fn last_look(&self, now: Timestamp) -> LastLook {
        let lag = self.behind_since.and_then(|since| now.duration_since(since).try_into().ok()).unwrap_or_default();
        let late = (lag >= SLOW).then(|| {
            let mut state = self.clone();
            // Since when it is late, what it says is true.
            state.judge(self.behind_since.unwrap_or(now));
            (state.status.seen, state.status.conditions)
        });
        LastLook { observed_at: self.status.observed_at, lag, late }
    }

    /// What is in effect.
    pub(super) fn revision(&self) -> Option<&Revision> {
        self.status.revision.as_ref()
    }

    /// The conditions as they are; `since` moves with the status of a condition only.
    fn judge(&mut self, at: Timestamp) {
        use ConditionStatus::{False, True, Unknown};
        let status = &self.status;
        let behind = self.is_behind();
        let withheld = behind && status.attempted == status.seen && status.attempted.is_some();
        let problems = errors(&status.problems);
        let is = |truth| if truth { True } else { False };
        let failed = self.failure.is_some();
        let (reason, message) = self.failure.clone().map(|failed| (failed.reason, failed.message)).unwrap_or_default();
        let seen = status.seen.as_ref().map_or("nothing", |revision| &revision.0);
        let applied = status.revision.as_ref().map_or("nothing", |revision| &revision.0);
        let ready = match (behind, failed) {
            (_, true) if status.revision.is_none() => (False, reason.clone(), message.clone()),
            (true, _) if status.suspension.is_some() => {
                let by = status.suspension.as_ref().map(ToString::to_string).unwrap_or_default();
                (False, "Suspended".into(), format!("{seen} was found and waits, {applied} stays in effect: {by}"))
            }
            (true, _) if withheld => {
                let message = format!("{seen} has {}, and with --strict {applied} stays in effect", count(problems));
                (False, WITHHELD.into(), message)
            }
            // What keeps it from coming into effect.
            (true, true) => (False, reason.clone(), message.clone()),
            (true, false) => (False, "Progressing".into(), format!("{seen} was found, {applied} is in effect")),
            (false, true) => (Unknown, reason.clone(), message.clone()),
            (false, false) if status.revision.is_none() => (Unknown, "NotYet".into(), "nothing was found yet".into()),
            (false, false) => (True, "Applied".into(), format!("{applied} is in effect")),
        };
        let degraded = if problems > 0 {
            (True, "Problems".into(), format!("{} in its files; what they last gave stays in effect", count(problems)))
        } else if !self.blocked.is_empty() {
            let names = join(&self.blocked);
            let message = format!(
                "more than half of all workflows would go at once, and stay: {names}; if that is meant, `xene \
                 approve-prune {applied}`, else revert it"
            );
            (True, PRUNE_BLOCKED.into(), message)
        } else if !self.held.is_empty() {
            (True, PRUNE_HELD.into(), format!("no file declares these any more, and they stay: {}", join(&self.held)))
        } else if let Some(limit) = &self.limit {
            (True, "Limited".into(), limit.clone())
        } else if failed {
            (True, reason.clone(), message.clone())
        } else {
            (False, "AsExpected".into(), "no problem is known".into())
        };
        let stalls = failed && STALLS.contains(&reason.as_str());
        let stalled =
            if stalls { (True, reason.clone(), message.clone()) } else { (False, "AsExpected".into(), String::new()) };
        let fetched = if failed {
            (False, reason.clone(), message)
        } else {
            (is(status.seen.is_some()), LOOKED.into(), format!("{seen} is the newest"))
        };
        let reconciling = match (behind, status.suspension.is_some()) {
            (true, true) => (False, "Suspended".into(), format!("{applied} is in effect")),
            (true, false) if withheld => (False, WITHHELD.into(), format!("{applied} is in effect")),
            (true, false) if stalls => (False, reason, format!("{applied} is in effect")),
            (true, false) => (True, "Progressing".into(), format!("{applied} is in effect")),
            (false, _) => (False, "Done".into(), format!("{applied} is in effect")),
        };
        let conditions = [
            ("Ready", ready),
            ("Reconciling", reconciling),
            ("Degraded", degraded),
            ("Stalled", stalled),
            ("Fetched", fetched),
        ];
        let old = std::mem::take(&mut self.status.conditions);
        for (kind, (status, reason, message)) in conditions {
            let before = old.iter().find(|condition| condition.kind == kind && condition.status == status);
            let since = before.map_or(at, |condition| condition.since);
            self.status.conditions.push(Condition { kind: kind.into(), status, reason, message, since });
        }
    }

    /// Reason and message of a condition that is true.
    fn if_true(&self, kind: &str) -> Option<(String, String)> {
        let is_true = |condition: &&Condition| condition.kind == kind && condition.status == ConditionStatus::True;
        let condition = self.status.conditions.iter().find(is_true)?;
        Some((condition.reason.clone(), condition.message.clone()))
    }
}

impl Controller {
    pub(super) fn source_health(&mut self, now: Now, health: SourceHealth, fx: &mut Effects) {
        let regarding = || "source".to_owned();
        match health {
            SourceHealth::Looked { seen, at } => {
                // Nothing is written: what is found is durable once it is in effect, or can't be.
                (self.source.status.seen, self.source.status.observed_at) = (Some(seen), Some(at));
                return self.source.follow(now.wall);
            }
            SourceHealth::Observed { seen, at, dirty } => {
                if self.source.failure.take().is_some() {
                    note(fx, now, EventType::Normal, "SourceFound", regarding(), "the source can be read again".into());
                    self.tell_source(now, Transition::SourceRecovered, "it can be read again", fx);
                }
                self.source.status.seen = seen;
                (self.source.status.observed_at, self.source.status.dirty) = (Some(at), dirty);
            }
            SourceHealth::Failed { reason, message, since, stale } => {
                let known = self.source.failure.take();
                // Each rewrite that is denied is one of its own.
                let is_rewrite = reason == "HistoryRewritten";
                let same =
                    |known: &Failed| known.reason == reason && (!is_rewrite || known.message.starts_with(&message));
                if !known.as_ref().is_some_and(same) {
                    note(fx, now, EventType::Warning, &reason, regarding(), message.clone());
                }
                if stale && !known.as_ref().is_some_and(|known| known.stale) {
                    let lasted = now.wall.duration_since(since).as_secs();
                    let message = format!("nothing could be read for {lasted} s: {message}");
                    note(fx, now, EventType::Warning, "Stale", regarding(), message);
                }
                if known.is_none() {
                    self.tell_source(now, Transition::SourceFailing, &message, fx);
                }
                let message = if stale { format!("{message}; this has lasted since {since:.0}") } else { message };
                self.source.failure = Some(Failed { reason, message, stale });
            }
            SourceHealth::Rewritten { from, to } => {
                let message = format!("history was rewritten: {to} does not descend from {from}");
                return note(fx, now, EventType::Warning, "HistoryRewritten", regarding(), message);
            }
            SourceHealth::Superseded { count, commits, by } => {
                let named: Vec<&str> = commits.iter().map(|commit| commit.0.as_str()).collect();
                let more =
                    if count > named.len() { format!(" and {} before", count - named.len()) } else { String::new() };
                let message = format!(
                    "{by} took effect, and these before it never did by themselves: {}{more}",
                    named.join(", ")
                );
                return note(fx, now, EventType::Normal, "Superseded", regarding(), message);
            }
            SourceHealth::Degraded(limit) => self.source.limit = Some(limit).filter(|limit| !limit.is_empty()),
        }
        self.put_source(now, fx);
    }

    /// What was compiled is in effect.
    pub(super) fn source_applied(&mut self, now: Now, desired: &Desired, fx: &mut Effects) {
        let status = &mut self.source.status;
        let moved = status.revision.as_ref() != Some(&desired.revision);
        // A newer one than this may have been seen meanwhile; what was in effect until now is none.
        if status.seen.is_none() || status.seen == status.revision || status.seen == status.attempted {
            status.seen = Some(desired.revision.clone());
        }
        status.attempted = Some(desired.revision.clone());
        status.revision = Some(desired.revision.clone());
        status.author.clone_from(&desired.author);
        status.subject.clone_from(&desired.subject);
        status.path.clone_from(&desired.folder);
        if moved {
            status.synced_at = Some(now.wall);
        }
        status.ignored = desired.ignored;
        let errors_before = errors(&status.problems);
        status.problems.clone_from(&desired.problems);
        self.tell_files(now, &desired.revision, errors_before, fx);
        let before = self.source.if_true("Degraded");
        self.put_source(now, fx);
        if let Some((reason, message)) = self.source.if_true("Degraded")
            && before.is_none_or(|(before, _)| before != reason)
        {
            match reason.as_str() {
                "Problems" => {
                    let message = format!("{} has {}", desired.revision, count(errors(&desired.problems)));
                    note(fx, now, EventType::Warning, "Degraded", "source".into(), message);
                }
                PRUNE_BLOCKED | PRUNE_HELD => note(fx, now, EventType::Warning, &reason, "source".into(), message),
                // Told when it began.
                _ => {}
            }
        }
    }

    /// What was compiled has errors, and the operator wants all or nothing: it is told, and nothing changes.
    pub(super) fn source_withheld(&mut self, now: Now, desired: Desired, fx: &mut Effects) {
        if self.source.status.attempted.as_ref() != Some(&desired.revision) {
            let count = count(errors(&desired.problems));
            let message = format!("{} has {count}, and --strict lets it take no effect", desired.revision);
            note(fx, now, EventType::Warning, WITHHELD, "source".into(), message);
        }
        let status = &mut self.source.status;
        (status.seen, status.attempted) = (Some(desired.revision.clone()), Some(desired.revision));
        let errors_before = errors(&status.problems);
        status.problems = desired.problems;
        let revision = status.seen.clone().unwrap_or_else(|| Revision(String::new()));
        self.tell_files(now, &revision, errors_before, fx);
        self.put_source(now, fx);
    }

    /// Files have errors, or have none any more.
    fn tell_files(&mut self, now: Now, revision: &Revision, before: usize, fx: &mut Effects) {
        let problems = &self.source.status.problems;
        let (found, first) = (errors(problems), problems.iter().find(|problem| problem.severity == Severity::Error));
        match (before, found) {
            (0, 1..) => {
                let first = first.map(|problem| format!(": {}: {}", problem.place(), problem.message));
                let message = format!("{revision} has {}{}", count(found), first.unwrap_or_default());
                self.tell_source(now, Transition::FilesBroken, &message, fx);
            }
            (1.., 0) => {
                self.tell_source(now, Transition::FilesMended, &format!("{revision} has no error"), fx);
            }
            _ => {}
        }
    }

    pub(super) fn put_source(&mut self, now: Now, fx: &mut Effects) {
        self.source.status.suspension = self.source_suspension().cloned();
        self.source.status.workflows = u32::try_from(self.workflows.len()).unwrap_or(u32::MAX);
        self.source.follow(now.wall);
        self.source.judge(now.wall);
        fx.commit.push(Change::PutSource(Box::new(self.source.status.clone())));
    }
}

/// `1 problem`, `2 problems`.
fn count(problems: usize) -> String {
    format!("{problems} problem{}", if problems == 1 { "" } else { "s" })
}

fn join(names: &[Name]) -> String {
    names.iter().map(Name::as_str).collect::<Vec<_>>().join(", ")
}
