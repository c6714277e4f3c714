//! Runs that go on under a new process of the agent: a machine that is made and told again what the old one was is where
//! that one was. What it said and the journal does not have yet is journaled now; steps that were running are asked for
//! again, and the executor finds them.

use std::sync::Arc;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use xene_schemas::{
    meta::{AgentName, RunName},
    phase::RunPhase,
    pipeline::CompiledPipeline,
    run::RunEvent,
};

use super::{
    Agent, Timer,
    event::{Effect, Effects, JournalChange, RunRow, RunState, Signal, StepCommand},
    run::{Input, Output, RunMachine},
    runs::RunEntry,
    time::Now,
};

/// What the machine of a run was made from, and what it was told, in order: the first is [`Told::Made`].
///
/// It is written down before anything follows from it, and needs to outlive the process, but not the host's boot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Told {
    /// It was made.
    Made {
        /// The webhook's body.
        payload: Option<Arc<[u8]>>,
        /// Tasks that count as succeeded, with what they published.
        reused: IndexMap<String, IndexMap<String, String>>,
    },
    /// Something happened.
    Happened {
        /// When.
        now: Now,
        /// What.
        input: Input,
    },
}

/// Where a machine is.
#[derive(Debug)]
struct Resumed {
    machine: RunMachine,
    /// All facts of the run so far.
    facts: Vec<RunEvent>,
    /// Tasks that have a slot.
    granted: Vec<String>,
    /// Tasks that want one.
    wanted: Vec<String>,
    /// Steps that were asked for and whose end is not known, and which signal they were sent last.
    steps: Vec<(Box<StepCommand>, Option<Signal>)>,
    cancelled_by: Option<String>,
}

impl Resumed {
    /// Makes the machine, and tells it all; `None` if it was not told from the beginning on.
    fn new(
        run: RunName,
        row: &RunRow,
        pipeline: Arc<CompiledPipeline>,
        agent: AgentName,
        told: Vec<Told>,
    ) -> Option<Self> {
        let mut told = told.into_iter();
        let Some(Told::Made { payload, reused }) = told.next() else { return None };
        let machine = RunMachine::new(run, row.spec.clone(), pipeline, agent, row.epoch, payload, reused);
        let created = RunEvent::Created { spec: row.spec.clone(), at: row.created_at };
        let facts = if row.from_controller { Vec::new() } else { vec![created] };
        let (granted, wanted, steps) = (Vec::new(), Vec::new(), Vec::new());
        let mut resumed = Self { machine, facts, granted, wanted, steps, cancelled_by: None };
        for told in told {
            let Told::Happened { now, input } = told else { return None };
            resumed.take(now, input);
        }
        Some(resumed)
    }

    fn take(&mut self, now: Now, input: Input) {
        match &input {
            Input::SlotGranted(task) => {
                self.wanted.retain(|wanted| wanted != task);
                self.granted.push(task.clone());
            }
            Input::StepExited(id, _) => self.steps.retain(|(command, _)| command.id != *id),
            Input::Cancel(by) => {
                self.cancelled_by.get_or_insert_with(|| by.clone());
            }
            Input::Start | Input::Decided { .. } | Input::Timeout | Input::LeaseEnds | Input::LeaseEnded => {}
        }
        for output in self.machine.handle(now, input) {
            match output {
                Output::Fact(fact) => self.facts.push(fact),
                Output::TaskReady(task) => self.wanted.push(task),
                Output::SlotReturned(task) => {
                    self.wanted.retain(|wanted| *wanted != task);
                    self.granted.retain(|granted| *granted != task);
                }
                Output::Spawn(command) => self.steps.push((command, None)),
                Output::Signal(id, signal) => {
                    if let Some((_, sent)) = self.steps.iter_mut().find(|(command, _)| command.id == id) {
                        *sent = Some(signal);
                    }
                }
                // It is in the log.
                Output::Note(_) => {}
            }
        }
    }
}

impl Agent {
    /// Goes on with a run that an earlier process of the agent had, and gives its tasks that want a slot; `None`, and
    /// nothing has happened, if that can't be done.
    pub(super) fn resume_run(
        &mut self,
        now: Now,
        run: RunName,
        told: Vec<Told>,
        fx: &mut Effects,
    ) -> Option<Vec<String>> {
        let entry = self.runs.get_mut(&run)?;
        let (spec, agent) = (entry.spec.clone()?, self.config.name.clone());
        let resumed = Resumed::new(run, &entry.row, spec.pipeline(), agent, told)?;
        // Another version may decide otherwise. What was said can't be taken back.
        if !entry.outbox.begins(&resumed.facts) {
            return None;
        }
        let known = usize::try_from(entry.outbox.next()).ok()?;
        entry.row.state = RunState::Started;
        fx.commit.push(JournalChange::PutRun(run, entry.row.clone()));
        entry.cancelled_by = resumed.cancelled_by;
        let ended = resumed.machine.is_ended();
        let timeout = resumed.machine.next_timeout().filter(|_| !ended);
        entry.machine = Some(resumed.machine);
        for fact in &resumed.facts[..known] {
            if let RunEvent::TaskEnded { artifacts, .. } = fact {
                entry.artifacts.saved.extend(artifacts.iter().map(|artifact| artifact.hash));
            }
        }
        let success = matches!(resumed.facts.last(), Some(RunEvent::Ended { phase: RunPhase::Success, .. }));
        for fact in resumed.facts.into_iter().skip(known) {
            self.keep_artifacts(run, &fact, fx);
            self.push_fact(run, fact, fx);
        }
        self.holders.hold(&spec, run);
        if let Some(at) = timeout {
            self.timers.arm(Timer::Run(run), at);
        }
        if ended {
            self.finish(now, run, success, fx);
            return Some(Vec::new());
        }
        for task in resumed.granted {
            self.slots.keep(run, task);
        }
        for (command, signal) in resumed.steps {
            let id = command.id.clone();
            fx.now.push(Effect::SpawnStep(command));
            fx.now.extend(signal.map(|signal| Effect::SignalStep { id, signal }));
        }
        Some(resumed.wanted)
    }

    /// True for a run that has begun and not ended.
    pub fn goes_on(&self, run: RunName) -> bool {
        self.runs.get(&run).is_some_and(RunEntry::is_running)
    }
}
