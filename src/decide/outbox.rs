//! Notifiers at the controller: those in effect, and the outbox of each. A message is a row in the commit of what it
//! tells; it goes once its destination has taken it, so it is told at least once, under one id.

use std::{collections::VecDeque, time::Duration};

use jiff::Timestamp;
use xene_agent::{
    decide::{
        mutant::Mutant,
        time::{Now, after},
    },
    glob::Globs,
};
use xene_schemas::{
    event::EventType,
    map::UniqueMap,
    meta::{Generation, Name, Revision},
    notifier::{Notice, NotifierObject, NotifierPhase, NotifierStatus, Select, Transition},
};

use super::{
    Controller, Timer,
    desired::{Desired, DesiredNotifier},
    event::{Delivery, Effect, Effects, Outcome},
    note,
    plan::PlanChange,
    rows::{Change, Fate, MessageRow, NotifierHealth, NotifierRow},
};

/// So many messages of one notifier wait at most; then the oldest goes.
const MOST: usize = 1_000;
/// A message that could not be delivered for so long is given up.
const GIVE_UP: Duration = Duration::from_secs(24 * 60 * 60);
/// The longest pause before the second try; it doubles with each further one…
const FIRST_PAUSE: Duration = Duration::from_secs(2);
/// …up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(10 * 60);
/// A destination that asks for more patience does not get it.
const MOST_PATIENCE: Duration = Duration::from_secs(60 * 60);

impl NotifierRow {
    /// What is desired, in effect from `revision` on; what only moved, or is put back, is as old as it was.
    pub fn new(wanted: &DesiredNotifier, revision: &Revision, before: Option<&Self>) -> Self {
        let claim = wanted.claim.clone();
        let same = before.filter(|row| row.metadata == claim.metadata && row.spec == claim.spec);
        Self {
            revision: same.map_or(revision, |row| &row.revision).clone(),
            generation: match (same, before) {
                (Some(row), _) => row.generation,
                (None, row) => Generation(row.map_or(0, |row| row.generation.0) + 1),
            },
            metadata: claim.metadata,
            spec: claim.spec,
            path: wanted.path.clone(),
            line: claim.line,
            hash: wanted.hash,
            valid: wanted.valid,
        }
    }
}

/// Whose runs a notifier tells of.
#[derive(Debug)]
struct Chosen {
    workflows: Option<Globs>,
    pipelines: Option<Globs>,
    labels: UniqueMap<String, String>,
}

impl Chosen {
    fn new(select: &Select) -> Self {
        // Those that can't be used are told by the rules, and take nothing.
        let globs = |patterns: &[String]| {
            let none = || Globs::new(&[]).ok();
            if patterns.is_empty() { None } else { Globs::new(patterns).ok().or_else(none) }
        };
        Self { workflows: globs(&select.workflows), pipelines: globs(&select.pipelines), labels: select.labels.clone() }
    }

    fn takes(&self, notice: &Notice, labels: &UniqueMap<String, String>) -> bool {
        let (Some(workflow), Some(pipeline)) = (&notice.workflow, &notice.pipeline) else { return true };
        self.workflows.as_ref().is_none_or(|globs| globs.matches(workflow.as_str()))
            && self.pipelines.as_ref().is_none_or(|globs| globs.matches(pipeline.as_str()))
            && self.labels.iter().all(|(key, value)| labels.get(key) == Some(value))
    }
}

/// What a notifier has to deliver, and how that goes.
#[derive(Debug)]
pub(super) struct Outbox {
    chosen: Chosen,
    waiting: VecDeque<MessageRow>,
    /// The number of the one that is on its way: the first that waits, or one that its notifier left behind when it was
    /// removed.
    sending: Option<u64>,
    /// How often the destination has failed since it last took anything.
    failures: u32,
    /// When the next one is tried, if that is not now.
    due: Option<Timestamp>,
    health: NotifierHealth,
    /// It was told that messages are dropped.
    overflows: bool,
}

impl Outbox {
    fn new(select: &Select, health: NotifierHealth) -> Self {
        Self {
            chosen: Chosen::new(select),
            waiting: VecDeque::new(),
            sending: None,
            failures: 0,
            due: None,
            health,
            overflows: false,
        }
    }
}

/// Whether one says of a commit all that the other did.
fn same_status(one: &Notice, other: &Notice) -> bool {
    (&one.revision, &one.workflow, &one.pipeline) == (&other.revision, &other.workflow, &other.pipeline)
}

/// True for the id of a commit, which a folder's revision is not.
fn is_commit(revision: &Revision) -> bool {
    matches!(revision.0.len(), 40 | 64) && revision.0.bytes().all(|byte| byte.is_ascii_hexdigit())
}

impl Controller {
    pub(super) fn load_notifiers(
        &mut self,
        now: Now,
        rows: Vec<NotifierRow>,
        messages: Vec<MessageRow>,
        health: Vec<(Name, NotifierHealth)>,
    ) {
        for row in rows {
            let name = row.metadata.name.clone();
            let known = health.iter().find(|(of, _)| *of == name).map(|(_, health)| health.clone());
            self.outboxes.insert(name.clone(), Outbox::new(&row.spec.select, known.unwrap_or_default()));
            self.observed.notifiers.insert(name, row);
        }
        for message in messages {
            self.messages = self.messages.max(message.number);
            if let Some(outbox) = self.outboxes.get_mut(&message.notifier) {
                self.timers.arm(Timer::Deliver(message.notifier.clone()), now.boot);
                outbox.waiting.push_back(message);
            }
        }
    }

    /// Carries out a change of the plan that is one of a notifier.
    pub(super) fn change_notifier(&mut self, now: Now, desired: &Desired, change: &PlanChange, fx: &mut Effects) {
        let (PlanChange::CreateNotifier(name)
        | PlanChange::UpdateNotifier(name)
        | PlanChange::MoveNotifier(name)
        | PlanChange::InvalidateNotifier(name)
        | PlanChange::ValidateNotifier(name)
        | PlanChange::RemoveNotifier(name)) = change
        else {
            return;
        };
        let Some(wanted) = desired.notifiers.get(name) else {
            let message = format!("{} asks for it no more", desired.revision);
            note(fx, now, EventType::Normal, change.reason(), change.regarding(), message);
            self.observed.notifiers.remove(name);
            self.timers.disarm(&Timer::Deliver(name.clone()));
            if let Some(outbox) = self.outboxes.remove(name) {
                for message in &outbox.waiting {
                    fx.commit.push(Change::DeleteMessage(name.clone(), message.number, Fate::Superseded));
                }
                if outbox.sending.is_some() {
                    // If the notifier comes back, nothing sets out beside what is still on its way.
                    let left =
                        Outbox { sending: outbox.sending, ..Outbox::new(&Select::default(), Default::default()) };
                    self.outboxes.insert(name.clone(), left);
                }
            }
            fx.commit.push(Change::DeleteNotifier(name.clone()));
            return;
        };
        let row = NotifierRow::new(wanted, &desired.revision, self.observed.notifiers.get(name));
        let message = format!("by {} at {}:{}", desired.revision, row.path, row.line);
        note(fx, now, change.event_type(), change.reason(), change.regarding(), message);
        let outbox =
            self.outboxes.entry(name.clone()).or_insert_with(|| Outbox::new(&row.spec.select, Default::default()));
        outbox.chosen = Chosen::new(&row.spec.select);
        let says_the_same = matches!(change, PlanChange::MoveNotifier(_) | PlanChange::InvalidateNotifier(_));
        if !says_the_same {
            // What kept it from its destination may be mended by this.
            (outbox.failures, outbox.due) = (0, None);
        }
        if !says_the_same && !outbox.waiting.is_empty() && outbox.sending.is_none() {
            self.timers.arm(Timer::Deliver(name.clone()), now.boot);
        }
        fx.commit.push(Change::PutNotifier(Box::new(row.clone())));
        self.observed.notifiers.insert(name.clone(), row);
    }

    /// Something happened: a message for each notifier that tells of it.
    pub(super) fn announce(&mut self, now: Now, notice: &Notice, fx: &mut Effects) {
        let told = |(name, _): &(&Name, &Outbox)| {
            self.observed.notifiers.get(*name).is_some_and(|row| row.spec.tells(notice.transition))
        };
        let mut wanted: Vec<_> = self.outboxes.iter().filter(told).collect();
        if wanted.is_empty() {
            return;
        }
        let by_label = wanted.iter().any(|(_, outbox)| !outbox.chosen.labels.is_empty());
        let workflow = notice.workflow.as_ref().filter(|_| by_label).and_then(|name| self.workflow_row(name));
        let labels = workflow.map(|row| row.metadata.labels).unwrap_or_default();
        wanted.retain(|(_, outbox)| outbox.chosen.takes(notice, &labels));
        let names: Vec<Name> = wanted.into_iter().map(|(name, _)| name.clone()).collect();
        for name in names {
            self.enqueue(now, &name, notice.clone(), fx);
        }
    }

    fn enqueue(&mut self, now: Now, name: &Name, notice: Notice, fx: &mut Effects) {
        let of_commits = self.observed.notifiers.get(name).is_some_and(|row| row.spec.commit_status.is_some());
        let Some(outbox) = self.outboxes.get_mut(name) else { return };
        if of_commits {
            if !notice.revision.as_ref().is_some_and(is_commit) {
                return;
            }
            let sending = outbox.sending;
            outbox.waiting.retain(|message| {
                let stays = sending == Some(message.number) || !same_status(&message.notice, &notice);
                if !stays {
                    fx.commit.push(Change::DeleteMessage(name.clone(), message.number, Fate::Superseded));
                }
                stays
            });
        }
        self.messages += 1;
        let message = MessageRow { notifier: name.clone(), number: self.messages, notice };
        fx.commit.push(Change::PutMessage(Box::new(message.clone())));
        outbox.waiting.push_back(message);
        if outbox.waiting.len() > MOST {
            let oldest = usize::from(outbox.sending.is_some());
            if let Some(dropped) = outbox.waiting.remove(oldest) {
                fx.commit.push(Change::DeleteMessage(name.clone(), dropped.number, Fate::Dropped));
                outbox.health.lost += 1;
                fx.commit.push(Change::PutNotifierHealth(name.clone(), outbox.health.clone()));
            }
            if !std::mem::replace(&mut outbox.overflows, true) {
                let message = format!("{MOST} messages wait to be delivered: from here on the oldest are dropped");
                note(fx, now, EventType::Warning, "NotificationsDropped", format!("notifier/{name}"), message);
            }
        }
        let timer = Timer::Deliver(name.clone());
        if outbox.sending.is_none() && !self.timers.is_armed(&timer) {
            self.timers.arm(timer, now.boot);
        }
    }

    /// The first message that waits sets out.
    pub(super) fn deliver(&mut self, name: &Name, fx: &mut Effects) {
        let source = self.event_source();
        let Some(row) = self.observed.notifiers.get(name) else { return };
        let Some(outbox) = self.outboxes.get_mut(name).filter(|outbox| outbox.sending.is_none()) else { return };
        let Some(message) = outbox.waiting.front() else { return };
        (outbox.sending, outbox.due) = (Some(message.number), None);
        if self.mutants.is(Mutant::MessageGoneTooEarly) {
            fx.commit.push(Change::DeleteMessage(name.clone(), message.number, Fate::Delivered));
        }
        fx.then.push(Effect::Deliver(Box::new(Delivery {
            notifier: name.clone(),
            number: message.number,
            spec: row.spec.clone(),
            notice: message.notice.clone(),
            source,
            trial: false,
        })));
    }

    /// What came of it.
    pub(super) fn delivered(&mut self, now: Now, name: &Name, number: u64, outcome: Outcome, fx: &mut Effects) {
        let of_commits = self.observed.notifiers.get(name).is_some_and(|row| row.spec.commit_status.is_some());
        let secret = self.config.secret;
        let Some(outbox) = self.outboxes.get_mut(name) else { return };
        if outbox.sending != Some(number) {
            return;
        }
        outbox.sending = None;
        if outbox.waiting.front().is_none_or(|message| message.number != number) {
            // Its notifier was removed meanwhile.
            if !outbox.waiting.is_empty() {
                self.timers.arm(Timer::Deliver(name.clone()), now.boot);
            } else if !self.observed.notifiers.contains_key(name) {
                self.outboxes.remove(name);
            }
            return;
        }
        let regarding = || format!("notifier/{name}");
        let mut pause = Duration::ZERO;
        match outcome {
            Outcome::Delivered => {
                outbox.waiting.pop_front();
                fx.commit.push(Change::DeleteMessage(name.clone(), number, Fate::Delivered));
                outbox.health.delivered += 1;
                outbox.health.delivered_at = Some(now.wall);
                if outbox.health.error.take().is_some() {
                    let message = "its destination takes messages again".to_owned();
                    note(fx, now, EventType::Normal, "NotifierDelivers", regarding(), message);
                }
                (outbox.failures, outbox.overflows) = (0, false);
            }
            Outcome::Refused(why) => {
                if let Some(message) = outbox.waiting.pop_front() {
                    let what = &message.notice;
                    let message = format!("{} of {} was refused: {why}", what.transition, what.regarding);
                    note(fx, now, EventType::Warning, "NotificationGivenUp", regarding(), message);
                }
                fx.commit.push(Change::DeleteMessage(name.clone(), number, Fate::GivenUp));
                outbox.health.lost += 1;
                // It was reached.
                outbox.failures = 0;
                (outbox.health.failed_at, outbox.health.error) = (Some(now.wall), Some(why));
            }
            Outcome::Failed { why, retry_after } => {
                if outbox.failures == 0 {
                    note(fx, now, EventType::Warning, "NotifierFailing", regarding(), why.clone());
                }
                outbox.failures = outbox.failures.saturating_add(1);
                (outbox.health.failed_at, outbox.health.error) = (Some(now.wall), Some(why));
                let newer = |message: &MessageRow| {
                    outbox.waiting.iter().skip(1).any(|other| same_status(&other.notice, &message.notice))
                };
                if of_commits && outbox.waiting.front().is_some_and(newer) {
                    outbox.waiting.pop_front();
                    fx.commit.push(Change::DeleteMessage(name.clone(), number, Fate::Superseded));
                } else if of_commits && !outbox.waiting.is_empty() {
                    // The server may not know this commit, and says nothing of the others by that.
                    outbox.waiting.rotate_left(1);
                }
                outbox.give_up(now, name, fx);
                pause = pause_after(outbox.failures, &secret, (name, number));
                pause = pause.max(retry_after.unwrap_or_default().min(MOST_PATIENCE));
            }
        }
        fx.commit.push(Change::PutNotifierHealth(name.clone(), outbox.health.clone()));
        if !outbox.waiting.is_empty() {
            outbox.due = (!pause.is_zero()).then(|| after(now.wall, pause));
            self.timers.arm(Timer::Deliver(name.clone()), now.boot + pause);
        }
    }

    fn event_source(&self) -> String {
        format!("urn:xene:{}", self.row.store_id)
    }

    /// A message that only tries a notifier: of the commit in effect, kept nowhere.
    pub fn trial(&self, now: Now, name: &Name) -> Option<Delivery> {
        let row = self.observed.notifiers.get(name)?;
        let id = format!("notifier/{name}/test/{}", now.wall.as_millisecond());
        let mut notice = Notice::new(Transition::Success, format!("notifier/{name}"), id, now.wall);
        notice.revision = self.source.revision().cloned();
        notice.message = Some("somebody tries this notifier; nothing has happened".into());
        Some(Delivery {
            notifier: name.clone(),
            number: 0,
            spec: row.spec.clone(),
            notice,
            source: self.event_source(),
            trial: true,
        })
    }

    /// All notifiers, as the API shows them, by name.
    pub fn notifiers(&self) -> Vec<NotifierObject> {
        self.observed.notifiers.keys().filter_map(|name| self.notifier(name)).collect()
    }

    /// One notifier, as the API shows it.
    pub fn notifier(&self, name: &Name) -> Option<NotifierObject> {
        let (row, outbox) = (self.observed.notifiers.get(name)?, self.outboxes.get(name)?);
        let health = outbox.health.clone();
        Some(NotifierObject {
            metadata: row.metadata.clone(),
            spec: row.spec.clone(),
            status: NotifierStatus {
                phase: match (row.valid, &health.error) {
                    (false, _) => NotifierPhase::Invalid,
                    (true, Some(_)) => NotifierPhase::Failing,
                    (true, None) => NotifierPhase::Ready,
                },
                revision: row.revision.clone(),
                path: row.path.clone(),
                line: row.line,
                generation: row.generation,
                spec_hash: row.hash,
                pending: u32::try_from(outbox.waiting.len()).unwrap_or(u32::MAX),
                delivered: health.delivered,
                lost: health.lost,
                delivered_at: health.delivered_at,
                failed_at: health.failed_at,
                error: health.error,
                next_attempt: outbox.due,
            },
        })
    }

    /// How many messages wait.
    pub(super) fn messages_waiting(&self) -> u64 {
        self.outboxes.values().map(|outbox| outbox.waiting.len() as u64).sum()
    }
}

impl Outbox {
    /// Messages that are too old by now go.
    fn give_up(&mut self, now: Now, name: &Name, fx: &mut Effects) {
        let is_old = |message: &MessageRow| after(message.notice.at, GIVE_UP) <= now.wall;
        let mut count = 0;
        while let Some(message) = self.waiting.front().filter(|message| is_old(message)) {
            fx.commit.push(Change::DeleteMessage(name.clone(), message.number, Fate::GivenUp));
            self.waiting.pop_front();
            count += 1;
        }
        if count > 0 {
            self.health.lost += count;
            let why = self.health.error.as_deref().unwrap_or_default();
            let hours = GIVE_UP.as_secs() / 3600;
            let message = format!("{count} could not be delivered for {hours} hours: {why}");
            note(fx, now, EventType::Warning, "NotificationGivenUp", format!("notifier/{name}"), message);
        }
    }
}

/// How long to wait after so many failures: anything up to a bound that doubles, so that many do not come back at once.
fn pause_after(failures: u32, secret: &[u8; 32], (name, number): (&Name, u64)) -> Duration {
    let bound = FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(LONGEST_PAUSE);
    let seed = format!("{name}/{number}/{failures}");
    let hash = blake3::keyed_hash(secret, seed.as_bytes());
    let drawn = hash.as_bytes()[..4].iter().fold(0, |drawn: u32, byte| drawn << 8 | u32::from(*byte));
    bound.mul_f64(f64::from(drawn) / f64::from(u32::MAX))
}
