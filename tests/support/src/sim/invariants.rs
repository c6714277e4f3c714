//! The laws of ownership, as functions; each names the invariant of the design that it checks.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
};

use jiff::Timestamp;
use xene_agent::decide::event::StepId;
use xene_schemas::{
    meta::{AgentName, Epoch, PipelineKey, RunName, SpecHash},
    run::Run,
};

use super::{
    clock::Instant,
    history::{n, tail},
    store::LedgerKey,
};

/// A law that was broken, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which one: `I1` …
    pub law: &'static str,
    /// What was seen.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.law, self.what)
    }
}

impl Violation {
    /// A violation of `law`, as an error.
    pub fn of<T>(law: &'static str, what: impl Into<String>) -> Result<T, Self> {
        Err(Self { law, what: what.into() })
    }

    /// I3 and I10: of one pipeline, epoch and watermark never fall in what is durable.
    pub fn if_falls(
        place: &str,
        key: &PipelineKey,
        epoch: (Epoch, Epoch),
        watermark: (Timestamp, Timestamp),
    ) -> Result<(), Self> {
        if epoch.1 < epoch.0 {
            return Self::of(
                "I3 epochs never fall",
                format!("{place}: {key} from {} to {}", n(epoch.0.0), n(epoch.1.0)),
            );
        }
        if watermark.1 < watermark.0 {
            let what = format!("{place}: {key} from {} to {}", watermark.0, watermark.1);
            return Self::of("I10 watermarks never fall", what);
        }
        Ok(())
    }
}

/// A process that was started, as nobody but the world knows it.
#[derive(Debug, Clone)]
pub struct Start {
    /// By which agent.
    pub agent: usize,
    /// Of which pipeline.
    pub pipeline: PipelineKey,
    /// False once nothing can report it any more: its agent lost its data folder.
    pub reportable: bool,
}

/// What the world has seen, outside of every machine.
#[derive(Debug, Default)]
pub struct Witness {
    /// Every step that was started.
    steps: BTreeMap<StepId, usize>,
    /// Every run that was started.
    pub starts: BTreeMap<RunName, Start>,
    /// Runs that a restored store may know nothing of, or less than before.
    pub forgotten: BTreeSet<RunName>,
    /// Who had a pipeline under an epoch.
    pub(super) owners: BTreeMap<(PipelineKey, Epoch), AgentName>,
    /// Until when specs of pipelines were in effect that are not any more.
    pub(super) replaced: BTreeMap<(PipelineKey, SpecHash), Instant>,
    /// When runs began; their first steps may have to wait for a free slot.
    pub(super) began: BTreeMap<RunName, Instant>,
    /// The runs that took the places of lost ones, and which.
    retries: BTreeMap<RunName, RunName>,
    /// Due times without a run of which agents have told in sessions, by the number that their answers give: rows of the
    /// ledger, in the order of the answers.
    pub(super) told: BTreeMap<(u64, u64), VecDeque<Vec<LedgerKey>>>,
    /// By which run a pipeline followed an upstream run, also in a store that is lost by now.
    followed: BTreeMap<(PipelineKey, RunName), RunName>,
}

impl Witness {
    /// I2: no run, so no slot, starts twice, on one agent or on two. Also no later step of it.
    pub fn started(&mut self, id: &StepId, agent: usize, pipeline: &PipelineKey) -> Result<(), Violation> {
        if let Some(before) = self.steps.insert(id.clone(), agent) {
            let what = format!("run {} of {pipeline} by agent {before} and again by agent {agent}", tail(&id.run));
            return Violation::of("I2 a slot starts at most once", what);
        }
        let start = Start { agent, pipeline: pipeline.clone(), reportable: true };
        let first = self.starts.entry(id.run).or_insert(start);
        if first.agent != agent {
            let what = format!("run {} of {pipeline} by agent {} and agent {agent}", tail(&id.run), first.agent);
            return Violation::of("I2 a slot starts at most once", what);
        }
        Ok(())
    }

    /// `after`: of one pipeline, an upstream run is followed at most once, and only if it ended in Success.
    pub fn follows(&mut self, run: &Run, succeeded: impl Fn(RunName) -> bool) -> Result<(), Violation> {
        let law = "an upstream run is followed once";
        let told = run.spec.trigger.by.iter().flat_map(|by| by.split([' ', ','])).filter_map(|word| word.parse().ok());
        for upstream in told {
            let by = *self.followed.entry((run.spec.key(), upstream)).or_insert(run.metadata.name);
            if by != run.metadata.name {
                let what = format!("{} of {} by {} and again", tail(&upstream), run.spec.key(), tail(&by));
                return Violation::of(law, what);
            }
            if !succeeded(upstream) {
                return Violation::of(law, format!("{} did not end in Success", tail(&upstream)));
            }
        }
        Ok(())
    }

    /// `onAgentLost: Retry`: a lost run is started again once, when nobody can report it any more, and no more than
    /// three in a row are.
    pub fn retried(&mut self, run: &Run, ended: bool) -> Result<(), Violation> {
        let law = "a lost run is started again once it is given up, and three times at most";
        let Some(lost) = run.spec.rerun_of else { return Ok(()) };
        let name = run.metadata.name;
        if !ended {
            return Violation::of(law, format!("{} is, while {} may be reported", tail(&name), tail(&lost)));
        }
        let before = self.retries.iter().find(|(retry, of)| **of == lost && **retry != name);
        if let Some((before, _)) = before.filter(|_| !self.forgotten.contains(&lost)) {
            return Violation::of(law, format!("{} by {} and by {}", tail(&lost), tail(before), tail(&name)));
        }
        self.retries.insert(name, lost);
        let row = std::iter::successors(Some(name), |run| self.retries.get(run).copied());
        match row.count() {
            ..=4 => Ok(()),
            count => Violation::of(law, format!("{} is the run number {count} of one", tail(&name))),
        }
    }

    /// I14: with one more run that starts, there are no more of those that share its `max` than its spec allows.
    pub fn has_room(max: u32, others: usize, run: &RunName) -> Result<(), Violation> {
        if others < max.max(1) as usize {
            return Ok(());
        }
        Violation::of("I14 concurrency.max holds", format!("{} starts beside {others}, of {max}", tail(run)))
    }

    /// A backup takes the place of a store that knew these runs: history is given up.
    pub fn restored(&mut self, known: impl Iterator<Item = RunName>) {
        self.forgotten.extend(known);
        self.forgotten.extend(self.starts.keys());
        self.starts.values_mut().for_each(|start| start.reportable = false);
    }

    /// An agent lost its data folder: nobody will report what it started.
    pub fn wiped(&mut self, agent: usize) {
        self.starts.values_mut().filter(|start| start.agent == agent).for_each(|start| start.reportable = false);
    }
}
