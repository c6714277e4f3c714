//! A run on a virtual clock with virtual processes. Every input checks the machine's promises.

mod artifacts;
mod behaviour;
mod expressions;
mod gates;
mod masks;
mod matrix;
mod properties;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use indexmap::IndexMap;
use jiff::Timestamp;
use serde_json::{Value, json};
use xene_schemas::{
    meta::{Revision, SpecHash},
    pipeline::PipelineSpec,
    run::{Run, RunTrigger, TriggerType},
};

use super::*;
use crate::decide::event::ExitStatus;

/// A run and the world around it.
struct Sim {
    machine: RunMachine,
    nanos: u64,
    record: Run,
    /// What happened, one short line each.
    trace: Vec<String>,
    notes: Vec<String>,
    /// Tasks that want a slot.
    asking: VecDeque<String>,
    /// Tasks that have one.
    holding: BTreeSet<String>,
    /// Processes that run.
    processes: BTreeMap<StepId, StepCommand>,
    spawned: BTreeSet<StepId>,
    signalled: BTreeSet<(StepId, bool)>,
    /// Grant every slot at once.
    free: bool,
}

fn run_spec() -> RunSpec {
    RunSpec {
        workflow: "shop".parse().unwrap(),
        pipeline: "deploy".parse().unwrap(),
        trigger: RunTrigger { kind: TriggerType::Manual, name: None, scheduled_time: None, by: None },
        params: IndexMap::new(),
        revision: Revision("0123abc".into()),
        spec_hash: SpecHash([0; 32]),
        rerun_of: None,
    }
}

fn compiled(spec: PipelineSpec) -> CompiledPipeline {
    CompiledPipeline {
        key: run_spec().key(),
        suspend: false,
        env: Default::default(),
        params: Default::default(),
        triggers: Default::default(),
        spec,
        files: vec![],
    }
}

fn pipeline(spec: Value) -> CompiledPipeline {
    compiled(serde_json::from_value(spec).unwrap())
}

/// A pipeline with these tasks.
fn tasks(tasks: Value) -> CompiledPipeline {
    pipeline(json!({ "tasks": tasks }))
}

impl Sim {
    fn new(pipeline: CompiledPipeline) -> Self {
        Self::of(run_spec(), pipeline)
    }

    fn of(spec: RunSpec, pipeline: CompiledPipeline) -> Self {
        Self::given(spec, pipeline, None, IndexMap::new())
    }

    fn given(
        spec: RunSpec,
        pipeline: CompiledPipeline,
        payload: Option<&str>,
        reused: IndexMap<String, IndexMap<String, String>>,
    ) -> Self {
        let at = Timestamp::from_second(1_800_000_000).unwrap();
        let name = RunName::new(at, 7);
        let agent = "agent-1".parse().unwrap();
        let payload = payload.map(|payload| payload.as_bytes().into());
        Self {
            machine: RunMachine::new(name, spec.clone(), Arc::new(pipeline), agent, Epoch(5), payload, reused),
            nanos: 0,
            record: Run::new(name, at, spec),
            trace: Vec::new(),
            notes: Vec::new(),
            asking: VecDeque::new(),
            holding: BTreeSet::new(),
            processes: BTreeMap::new(),
            spawned: BTreeSet::new(),
            signalled: BTreeSet::new(),
            free: true,
        }
    }

    /// Begun, with every slot granted.
    fn started(pipeline: CompiledPipeline) -> Self {
        let mut sim = Self::new(pipeline);
        sim.input(Input::Start);
        sim
    }

    fn now(&self) -> Now {
        let wall = self.record.metadata.created_at + Duration::from_nanos(self.nanos);
        Now { boot: BootTime::from_nanos(self.nanos), wall }
    }

    fn input(&mut self, input: Input) {
        for output in self.machine.handle(self.now(), input) {
            assert!(!self.record.status.phase.is_final(), "{output:?} after the end");
            self.trace.extend(line(&output));
            match output {
                Output::Fact(fact) => self.record.apply(&fact),
                Output::TaskReady(task) => {
                    assert!(!self.asking.contains(&task) && !self.holding.contains(&task), "{task} asks twice");
                    self.asking.push_back(task);
                }
                Output::SlotReturned(task) => {
                    let asked = self.asking.iter().position(|asking| *asking == task);
                    let returned = asked.map(|at| self.asking.remove(at)).is_some() || self.holding.remove(&task);
                    assert!(returned, "{task} returns what it does not have");
                }
                Output::Spawn(command) => {
                    assert!(self.holding.contains(&command.id.task), "{:?} without a slot", command.id);
                    assert!(self.spawned.insert(command.id.clone()), "{:?} twice", command.id);
                    self.processes.insert(command.id.clone(), *command);
                }
                Output::Signal(id, signal) => {
                    assert!(self.processes.contains_key(&id), "{id:?} does not run");
                    let kill = signal == Signal::Kill;
                    assert!(!kill || self.signalled.contains(&(id.clone(), false)), "{id:?} was not asked first");
                    assert!(self.signalled.insert((id, kill)), "the same signal twice");
                }
                Output::Note(note) => self.notes.push(note),
            }
        }
        if self.machine.is_ended() {
            assert!(self.record.status.phase.is_final());
            assert!(self.asking.is_empty() && self.holding.is_empty(), "slots left: {:?}", self.holding);
            assert!(self.processes.is_empty(), "processes left: {:?}", self.processes.keys());
            assert_eq!(self.machine.next_timeout(), None);
        } else {
            assert!(self.machine.next_timeout().is_none_or(|at| at.as_nanos() >= self.nanos));
        }
        while self.free && self.grant() {}
    }

    /// Grants the longest wish for a slot.
    fn grant(&mut self) -> bool {
        let Some(task) = self.asking.pop_front() else { return false };
        self.holding.insert(task.clone());
        self.input(Input::SlotGranted(task));
        true
    }

    /// The step of a task that runs.
    fn running(&self, task: &str) -> StepId {
        self.processes.keys().find(|id| id.task == task).unwrap_or_else(|| panic!("{task} does not run")).clone()
    }

    fn end(&mut self, id: StepId, status: ExitStatus, outputs: &[(&str, &str)]) {
        self.processes.remove(&id);
        let outputs = outputs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        self.input(Input::StepExited(id, StepExit { status, outputs: Ok(outputs), leftovers: vec![] }));
    }

    /// The process of a task exits.
    fn exit(&mut self, task: &str, code: i32) {
        self.end(self.running(task), ExitStatus::Code(code), &[]);
    }

    /// Every process that runs, and that then runs, exits with 0.
    fn finish(&mut self) {
        while let Some(id) = self.processes.keys().next().cloned() {
            self.end(id, ExitStatus::Code(0), &[]);
        }
    }

    fn decide(&mut self, task: &str, approved: bool) {
        self.input(Input::Decided { task: task.into(), approved, by: "ann".into() });
    }

    /// A variable of the process of a task.
    fn variable(&self, task: &str, name: &str) -> Option<String> {
        let env = &self.processes[&self.running(task)].env;
        env.iter().find(|(variable, _)| variable == name).map(|(_, value)| value.clone())
    }

    fn message(&self, task: &str) -> &str {
        self.record.status.tasks[task].message.as_deref().unwrap_or_default()
    }

    /// Time passes, with every timer at its time.
    fn pass(&mut self, duration: Duration) {
        let end = self.nanos + u64::try_from(duration.as_nanos()).unwrap();
        while let Some(at) = self.machine.next_timeout().map(BootTime::as_nanos).filter(|at| *at <= end) {
            self.nanos = at;
            self.input(Input::Timeout);
        }
        self.nanos = end;
    }

    /// Lines since the last call.
    fn lines(&mut self) -> Vec<String> {
        std::mem::take(&mut self.trace)
    }

    /// Phase, reason and message of the run.
    fn verdict(&self) -> String {
        let status = &self.record.status;
        [Some(status.phase.to_string()), status.reason.as_ref().map(ToString::to_string), status.message.clone()]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join(" | ")
    }

    /// Phase and reason of a task.
    fn task(&self, task: &str) -> String {
        let status = &self.record.status.tasks[task];
        status.reason.as_ref().map_or_else(|| status.phase.to_string(), |reason| format!("{} {reason}", status.phase))
    }
}

fn line(output: &Output) -> Option<String> {
    let why = |reason: &Option<Reason>| reason.as_ref().map_or_else(String::new, |reason| format!(" {reason}"));
    let id = |id: &StepId| format!("{}.{} ({}.{})", id.task, id.step, id.attempt, id.step_attempt);
    Some(match output {
        Output::Fact(RunEvent::Started { .. }) => "started".into(),
        Output::Fact(RunEvent::TaskStarted { task, attempt, .. }) => format!("{task} started, attempt {attempt}"),
        Output::Fact(RunEvent::StepStarted { task, step, .. }) => format!("{task}.{step} started"),
        Output::Fact(RunEvent::StepEnded { task, step, end, .. }) => {
            format!("{task}.{step} {}{}", end.phase, why(&end.reason))
        }
        Output::Fact(RunEvent::TaskEnded { task, phase, reason, .. }) => format!("{task} {phase}{}", why(reason)),
        Output::Fact(RunEvent::ApprovalWanted { task, .. }) => format!("{task} wants approval"),
        Output::Fact(RunEvent::ApprovalDecided { task, approved, by, .. }) => {
            format!("{task} {} by {by}", if *approved { "approved" } else { "rejected" })
        }
        Output::Fact(RunEvent::ShuttingDown { reason, .. }) => format!("shutting down{}", why(reason)),
        Output::Fact(RunEvent::Ended { phase, reason, .. }) => format!("ended {phase}{}", why(reason)),
        Output::Fact(fact) => panic!("{fact:?} is not for the machine to say"),
        Output::TaskReady(task) => format!("{task} asks"),
        Output::SlotReturned(task) => format!("{task} returns"),
        Output::Spawn(command) => format!("spawn {}", id(&command.id)),
        Output::Signal(step, signal) => format!("{signal:?} {}", id(step)),
        Output::Note(_) => return None,
    })
}
