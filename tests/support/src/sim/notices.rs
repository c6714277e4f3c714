//! Destinations of notifiers, which take, refuse and fail as they like, and the laws of what they are told.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;
use xene::decide::{
    desired::DesiredNotifier,
    event::{Delivery, Event, Outcome},
    rows::{Change, Fate, NotifierClaim},
};
use xene_agent::decide::time::after;
use xene_schemas::{
    meta::{Name, PipelineKey, Revision, SpecHash},
    notifier::{NotifierSpec, Transition},
};

use super::{
    clock::{MILLISECOND, SECOND},
    invariants::Violation,
    random::Random,
    world::{What, World},
};

/// More messages of one notifier do not wait.
const MOST: usize = 1_000;

/// What a notifier's messages are about.
type Thread = (Name, PipelineKey);

/// All destinations, and what the world has seen of them.
#[derive(Debug)]
pub(super) struct Mail {
    /// Of its own, so that a world without notifiers is the same with and without this.
    random: Random,
    /// False in worlds without notifiers.
    pub(super) on: bool,
    /// Faults have stopped: everything is taken at once.
    pub(super) mended: bool,
    /// How often a backup took the place of the store: numbers may come again.
    era: u32,
    /// Ids that destinations have taken.
    taken: BTreeSet<(Name, String)>,
    /// Of refused messages.
    refused: BTreeSet<u64>,
    /// Each message that was kept, in the order of commits; a controller that starts counts from what waits.
    places: BTreeMap<(Name, u64), u64>,
    kept: u64,
    /// Of each commit's states the newest that was told.
    newest: BTreeMap<(Thread, Option<Revision>), u64>,
    /// Of what there was a message in the store.
    committed: BTreeSet<(Name, String, Transition)>,
    edges: BTreeMap<Thread, Transition>,
}

/// A message that has set out, and what comes of it.
#[derive(Debug)]
pub(super) struct Letter {
    delivery: Box<Delivery>,
    place: u64,
    era: u32,
    /// The destination takes it, whatever it says.
    takes: bool,
    outcome: Outcome,
}

/// Transitions to runs' ends, of which the rows of runs tell, too.
type Ends = Vec<(String, Transition)>;

impl Mail {
    /// Of a world with this randomness, in which so many of a thousand have notifiers.
    pub(super) fn new(random: &Random, notified: u64) -> Self {
        let mut random = Random::new(random.clone().draw() ^ 0x6d61_696c);
        Self {
            on: random.chance(notified),
            random,
            mended: false,
            era: 0,
            taken: BTreeSet::new(),
            refused: BTreeSet::new(),
            places: BTreeMap::new(),
            kept: 0,
            newest: BTreeMap::new(),
            committed: BTreeSet::new(),
            edges: BTreeMap::new(),
        }
    }

    /// The notifiers of a commit; each is of one kind for good.
    pub(super) fn draw(&mut self) -> BTreeMap<Name, DesiredNotifier> {
        let specs = [
            (
                "all",
                json!({"on": ["StartingUp", "Success", "Error", "Unknown", "AgentLost", "AgentReturned"], "slack": {"credential": "c"}}),
            ),
            ("commits", json!({"commitStatus": {"provider": "github", "credential": "c", "repository": "a/b"}})),
            ("edges", json!({"on": ["Broken", "Recovered"], "slack": {"credential": "c"}})),
        ];
        let drawn = specs.into_iter().filter(|_| self.on && self.random.chance(700));
        drawn.map(|(name, spec)| notifier(name, &spec)).collect()
    }

    /// True if a commit changes the notifiers.
    pub(super) fn changes(&mut self) -> bool {
        self.on && self.random.chance(300)
    }

    /// A backup takes the place of the store.
    pub(super) fn restored(&mut self) {
        self.era += 1;
        self.taken.clear();
        self.refused.clear();
        self.places.clear();
        self.newest.clear();
        self.committed.clear();
        self.edges.clear();
    }
}

#[expect(clippy::unwrap_used, reason = "the names and specs are written here")]
fn notifier(name: &str, spec: &serde_json::Value) -> (Name, DesiredNotifier) {
    let spec: NotifierSpec = serde_json::from_value(spec.clone()).unwrap();
    let metadata = serde_json::from_value(json!({"name": name})).unwrap();
    let claim = NotifierClaim { line: 1, metadata, spec };
    let hash = SpecHash::of(&serde_json::to_vec(&claim).unwrap());
    (name.parse().unwrap(), DesiredNotifier { hash, path: "notify.yaml".into(), valid: true, claim })
}

impl World {
    /// A message sets out.
    pub(super) fn send_out(&mut self, delivery: Box<Delivery>) -> Result<(), Violation> {
        let key = (delivery.notifier.clone(), delivery.number);
        if !self.controller.store.messages.contains_key(&key) {
            let what = format!("{} of {}", delivery.number, delivery.notifier);
            return Violation::of("nothing is told that is not kept until then", what);
        }
        let random = &mut self.mail.random;
        let failed = |retry_after| Outcome::Failed { why: "no".into(), retry_after };
        let (takes, outcome) = match random.index(10) {
            _ if self.mail.mended => (true, Outcome::Delivered),
            0..6 => (true, Outcome::Delivered),
            6 => (false, Outcome::Refused("no".into())),
            // Its answer is lost.
            7 => (true, failed(None)),
            8 => (false, failed(Some(std::time::Duration::from_secs(random.between(1, 20))))),
            _ => (false, failed(None)),
        };
        let wait = random.pick(&[10 * MILLISECOND, SECOND, 20 * SECOND]);
        let place = self.mail.places.get(&key).copied().unwrap_or_default();
        let letter = Box::new(Letter { delivery, place, era: self.mail.era, takes, outcome });
        let process = self.controller.process;
        self.later(wait, What::Delivered { process, letter });
        Ok(())
    }

    /// A message has come to its destination, and the controller hears of that, if it is still there.
    pub(super) fn comes_in(&mut self, letter: Letter, heard: bool) -> Result<(), Violation> {
        let Letter { delivery, place, era, takes, outcome } = letter;
        let Delivery { notifier, number, spec, notice, .. } = *delivery;
        if era == self.mail.era {
            if matches!(outcome, Outcome::Refused(_)) {
                self.mail.refused.insert(place);
            }
            // Of commits the newest is told first. What a process that is gone had on its way comes when it comes.
            let first = takes && self.mail.taken.insert((notifier.clone(), notice.id));
            if let (true, true, None, Some(workflow), Some(pipeline)) =
                (first, heard, &spec.commit_status, notice.workflow, notice.pipeline)
            {
                let thread = (notifier.clone(), PipelineKey { workflow, pipeline });
                let newest = self.mail.newest.entry((thread, notice.revision)).or_default();
                if place < *newest {
                    return Violation::of(
                        "what is told keeps its order",
                        format!("{number} of {notifier} after {newest}"),
                    );
                }
                *newest = place;
            }
        }
        if heard { self.controller_takes(Event::Delivered { notifier, number, outcome }) } else { Ok(()) }
    }

    /// Before a change gets to the store: what it says of messages is right.
    pub(super) fn may_tell(&mut self, change: &Change, ends: &mut Ends) -> Result<(), Violation> {
        let (store, mail) = (&self.controller.store, &mut self.mail);
        match change {
            Change::PutRun(row) => {
                let before = store.runs.get(&row.run.metadata.name);
                let ended = before.is_some_and(|before| before.run.status.phase.is_final());
                if row.run.status.phase.is_final() && !ended {
                    ends.push((format!("run/{}", row.run.metadata.name), row.run.status.phase.into()));
                }
            }
            Change::PutMessage(row) => {
                let notice = &row.notice;
                mail.kept += 1;
                mail.places.insert((row.notifier.clone(), row.number), mail.kept);
                mail.committed.insert((row.notifier.clone(), notice.regarding.clone(), notice.transition));
                if let (Transition::Broken | Transition::Recovered, Some(workflow), Some(pipeline)) =
                    (notice.transition, &notice.workflow, &notice.pipeline)
                {
                    let key = PipelineKey { workflow: workflow.clone(), pipeline: pipeline.clone() };
                    let before = mail.edges.insert((row.notifier.clone(), key.clone()), notice.transition);
                    if before == Some(notice.transition) {
                        return Violation::of(
                            "Broken and Recovered alternate",
                            format!("{} of {key} twice", notice.transition),
                        );
                    }
                }
            }
            Change::DeleteMessage(notifier, number, fate) => {
                let Some(row) = store.messages.get(&(notifier.clone(), *number)) else { return Ok(()) };
                let waiting = store.messages.keys().filter(|(of, _)| of == notifier).count();
                let old = after(row.notice.at, std::time::Duration::from_secs(24 * 3600)) <= self.at.wall();
                let right = match fate {
                    Fate::Delivered => mail.taken.contains(&(notifier.clone(), row.notice.id.clone())),
                    Fate::GivenUp => {
                        let place = mail.places.get(&(notifier.clone(), *number));
                        old || place.is_some_and(|place| mail.refused.contains(place))
                    }
                    Fate::Dropped => waiting >= MOST,
                    Fate::Superseded => true,
                };
                // What was on its way when a backup was restored may have come in before.
                if !right && mail.era == 0 {
                    return Violation::of("a message goes by its fate", format!("{number} of {notifier}: {fate:?}"));
                }
            }
            Change::DeleteNotifier(name) => mail.edges.retain(|(of, _), _| of != name),
            _ => {}
        }
        Ok(())
    }

    /// Who is told of this transition, as the store says.
    pub(super) fn notified(&self) -> BTreeSet<Name> {
        self.controller.store.notifiers.keys().cloned().collect()
    }

    /// Runs have ended by what got to the store: so did the messages to those who were to be told before and after.
    pub(super) fn are_told(&self, before: &BTreeSet<Name>, ends: &[(String, Transition)]) -> Result<(), Violation> {
        let store = &self.controller.store;
        for (name, row) in store.notifiers.iter().filter(|(name, _)| before.contains(*name)) {
            for (run, transition) in ends.iter().filter(|(_, transition)| row.spec.tells(*transition)) {
                if !self.mail.committed.contains(&(name.clone(), run.clone(), *transition)) {
                    return Violation::of("each transition is told", format!("{transition} of {run} to {name}"));
                }
            }
        }
        Ok(())
    }

    /// At the end: what waits in the store is what the machine has still to deliver.
    pub(super) fn check_notifiers(&self) -> Result<(), Violation> {
        let Some(machine) = &self.controller.machine else { return Ok(()) };
        for notifier in machine.notifiers() {
            let name = &notifier.metadata.name;
            let kept = self.controller.store.messages.keys().filter(|(of, _)| of == name).count();
            if kept != notifier.status.pending as usize && self.controller.commits.is_empty() {
                let what = format!("{name}: {kept} in the store, {} are known", notifier.status.pending);
                return Violation::of("what is kept is delivered", what);
            }
        }
        Ok(())
    }
}
