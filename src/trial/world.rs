//! One run in a world of its own: a clock that jumps from event to event, and processes that are stubs.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use indexmap::IndexMap;
use jiff::Timestamp;
use xene_agent::decide::{
    admission::Slots,
    event::{ExitStatus, Program, Signal, StepCommand, StepExit, StepId},
    run::{Input, Output, RunMachine},
    time::{BootTime, Now},
};
use xene_schemas::{
    meta::{AgentName, Epoch, RunName},
    pipeline::CompiledPipeline,
    run::{Run, RunEvent, RunSpec},
    workflow_test::{Decision, Stub, TestCase},
};

const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;

/// A run and all that it sees.
#[derive(Debug)]
pub(super) struct World<'c> {
    case: &'c TestCase,
    machine: RunMachine,
    /// The record, as everybody would see it.
    pub(super) record: Run,
    start: Timestamp,
    nanos: u64,
    slots: Option<Slots>,
    /// What runs, and when and how it ends.
    processes: BTreeMap<StepId, (u64, StepExit)>,
    /// How often each step has run, by task and step.
    times: HashMap<(String, String), usize>,
    inputs: VecDeque<Input>,
    /// Tasks in the order in which they first started.
    pub(super) started: Vec<String>,
    /// Tasks that wait, or waited in vain, for an approval that the case does not give.
    pub(super) undecided: Vec<String>,
    /// What happened, a line each.
    pub(super) course: Vec<String>,
}

/// What comes next.
enum Next {
    Process(StepId),
    Timeout,
    Cancel,
}

impl<'c> World<'c> {
    pub(super) fn new(start: Timestamp, spec: RunSpec, pipeline: Arc<CompiledPipeline>, case: &'c TestCase) -> Self {
        let name = RunName::new(start, 0);
        // Any name is one; this one stands for the test.
        let agent: AgentName = spec.pipeline.clone();
        let machine = RunMachine::new(name, spec.clone(), pipeline, agent, Epoch::default(), None, IndexMap::new());
        Self {
            case,
            machine,
            record: Run::new(name, start, spec),
            start,
            nanos: 0,
            slots: case.slots.map(Slots::new),
            processes: BTreeMap::new(),
            times: HashMap::new(),
            inputs: VecDeque::from([Input::Start]),
            started: Vec::new(),
            undecided: Vec::new(),
            course: Vec::new(),
        }
    }

    /// Goes on until the run ends, or nothing more can happen.
    pub(super) fn run(mut self) -> Self {
        let mut cancel_at = self.case.cancel_after.map(|after| nanos(after.into()));
        loop {
            while let Some(input) = self.inputs.pop_front() {
                for output in self.machine.handle(self.now(), input) {
                    self.carry_out(output);
                }
            }
            if self.machine.is_ended() {
                return self;
            }
            let process = self.processes.iter().map(|(id, (at, _))| (*at, 0, Next::Process(id.clone())));
            let timeout = self.machine.next_timeout().map(|at| (at.as_nanos(), 1, Next::Timeout));
            let cancel = cancel_at.map(|at| (at, 2, Next::Cancel));
            let next = process.chain(timeout).chain(cancel).min_by_key(|(at, order, _)| (*at, *order));
            let Some((at, _, next)) = next else { return self };
            self.nanos = self.nanos.max(at);
            self.inputs.push_back(match next {
                Next::Process(id) => match self.processes.remove(&id) {
                    Some((_, exit)) => Input::StepExited(id, exit),
                    None => continue,
                },
                Next::Timeout => Input::Timeout,
                Next::Cancel => {
                    cancel_at = None;
                    Input::Cancel("the test cancels it".into())
                }
            });
        }
    }

    fn now(&self) -> Now {
        let wall = self.start.checked_add(Duration::from_nanos(self.nanos)).unwrap_or(Timestamp::MAX);
        Now { boot: BootTime::from_nanos(self.nanos), wall }
    }

    fn carry_out(&mut self, output: Output) {
        let run = self.record.metadata.name;
        match output {
            Output::Fact(fact) => {
                if let RunEvent::TaskStarted { task, attempt: 1, .. } = &fact {
                    self.started.push(task.clone());
                }
                if let RunEvent::ApprovalWanted { task, .. } = &fact {
                    self.asked(task.clone());
                }
                let line = line(&fact);
                self.record.apply(&fact);
                let after = xene_schemas::duration::Duration::from_millis(self.nanos / 1_000_000);
                self.course.extend(line.map(|line| format!("{:>8}  {line}", after.to_string())));
            }
            Output::TaskReady(task) => {
                if self.slots.as_mut().is_none_or(|slots| slots.want(run, task.clone(), false)) {
                    self.inputs.push_back(Input::SlotGranted(task));
                }
            }
            Output::SlotReturned(task) => {
                let next = self.slots.as_mut().and_then(|slots| slots.give_back(run, &task));
                self.inputs.extend(next.map(|(_, task)| Input::SlotGranted(task)));
            }
            Output::Spawn(command) => self.spawn(&command),
            Output::Signal(id, signal) => {
                // Whatever a stub would have done, it heeds the first signal.
                let number = if signal == Signal::Kill { SIGKILL } else { SIGTERM };
                if let Some((at, exit)) = self.processes.get_mut(&id) {
                    (*at, exit.status) = (self.nanos, ExitStatus::Signal(number));
                    exit.outputs = Ok(Vec::new());
                }
            }
            Output::Note(_) => {}
        }
    }

    /// Someone is asked to approve a task: one of a matrix goes by its own name first, then by that of all.
    fn asked(&mut self, task: String) {
        let base = task.split('[').next().unwrap_or(&task);
        let decided = self.case.approvals.get(&task).or_else(|| self.case.approvals.get(base));
        match decided {
            Some(decision) => {
                let approved = *decision == Decision::Approve;
                self.inputs.push_back(Input::Decided { task, approved, by: "the test".into() });
            }
            None => self.undecided.push(task),
        }
    }

    fn spawn(&mut self, command: &StepCommand) {
        if matches!(command.program, Program::Save(_)) {
            // Stubs leave no files.
            let exit =
                StepExit { status: ExitStatus::Saved(Vec::new()), outputs: Ok(Vec::new()), leftovers: Vec::new() };
            self.processes.insert(command.id.clone(), (self.nanos, exit));
            return;
        }
        let (task, step) = (&command.id.task, &command.step_name);
        let times = self.times.entry((task.clone(), step.clone())).or_default();
        let nth = *times;
        *times += 1;
        let stub = stub(self.case, task, step, nth).cloned().unwrap_or_default();
        let Stub { exit_code, signal, outputs, duration } = stub;
        let status = match signal {
            Some(signal) => ExitStatus::Signal(signal),
            None => ExitStatus::Code(exit_code.unwrap_or(0)),
        };
        let outputs = outputs.iter().map(|(name, value)| (name.clone(), value.to_string())).collect();
        let exit = StepExit { status, outputs: Ok(outputs), leftovers: Vec::new() };
        let ends_at = self.nanos.saturating_add(nanos(duration.unwrap_or_default().into()));
        self.processes.insert(command.id.clone(), (ends_at, exit));
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The stub of a step for the `nth` time that it runs: its own, else its task's; of one task of a matrix first, then
/// of all of them.
fn stub<'c>(case: &'c TestCase, task: &str, step: &str, nth: usize) -> Option<&'c Stub> {
    let base = task.split('[').next().unwrap_or(task);
    let keys = [format!("{task}/{step}"), task.to_owned(), format!("{base}/{step}"), base.to_owned()];
    let stubs = &keys.iter().find_map(|key| case.stubs.get(key))?.0;
    stubs.get(nth).or_else(|| stubs.last())
}

/// What a person wants to know of a fact, if anything.
fn line(fact: &RunEvent) -> Option<String> {
    let why = |reason: &Option<xene_schemas::phase::Reason>, message: &Option<String>| match (reason, message) {
        (Some(reason), Some(message)) => format!(" ({reason}: {message})"),
        (Some(reason), None) => format!(" ({reason})"),
        _ => String::new(),
    };
    match fact {
        RunEvent::TaskStarted { task, attempt: 1, .. } => Some(format!("task {task} starts")),
        RunEvent::TaskStarted { task, attempt, .. } => Some(format!("task {task} starts, attempt {attempt}")),
        RunEvent::TaskEnded { task, phase, reason, message, .. } => {
            Some(format!("task {task}: {phase}{}", why(reason, message)))
        }
        RunEvent::ApprovalWanted { task, .. } => Some(format!("task {task} waits for approval")),
        RunEvent::ApprovalDecided { task, approved: true, by, .. } => Some(format!("task {task}: approved by {by}")),
        RunEvent::ApprovalDecided { task, by, .. } => Some(format!("task {task}: rejected by {by}")),
        RunEvent::ShuttingDown { reason, message, .. } => Some(format!("shutting down{}", why(reason, message))),
        RunEvent::Ended { phase, reason, message, .. } => Some(format!("run: {phase}{}", why(reason, message))),
        _ => None,
    }
}
