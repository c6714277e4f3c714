//! One run, from its first task to its last: which tasks are ready, retries, timeouts, cancel, `finally`, the verdict.

use std::sync::Arc;

use xene_schemas::{
    meta::{AgentName, Epoch, RunName},
    pipeline::CompiledPipeline,
    run::{RunEvent, RunSpec},
};

use super::{
    event::{Signal, StepCommand, StepExit, StepId},
    time::{BootTime, Now},
};

/// What happened to a run.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// Begin. Only once, first.
    Start,
    /// A task that was asked for by [`Output::TaskReady`] may take a slot.
    SlotGranted(String),
    /// A step's process ended.
    StepExited(StepId, StepExit),
    /// End it in order; a sentence says who or why.
    Cancel(String),
    /// [`RunMachine::next_timeout`] has come.
    Timeout,
}

/// What a run wants.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// The next fact, to be journaled and reported. The last one is [`RunEvent::Ended`].
    Fact(RunEvent),
    /// This task could run: answer with [`Input::SlotGranted`] when a slot is free. Asked for in the order in
    /// which slots should be given.
    TaskReady(String),
    /// This task gives its slot back, or does not want one any more.
    SlotReturned(String),
    /// Start a process.
    Spawn(Box<StepCommand>),
    /// Signal every process of a step.
    Signal(StepId, Signal),
    /// A sentence for the run's log.
    Note(String),
}

/// One run.
#[derive(Debug)]
pub struct RunMachine {}

impl RunMachine {
    /// A run that has not begun.
    pub fn new(
        _name: RunName,
        _spec: RunSpec,
        _pipeline: Arc<CompiledPipeline>,
        _agent: AgentName,
        _epoch: Epoch,
        _payload: Option<Arc<[u8]>>,
    ) -> Self {
        unimplemented!()
    }

    /// Takes what happened, gives what is to be done, in order.
    pub fn handle(&mut self, _now: Now, _input: Input) -> Vec<Output> {
        unimplemented!()
    }

    /// When [`Input::Timeout`] is due next.
    pub fn next_timeout(&self) -> Option<BootTime> {
        unimplemented!()
    }

    /// True once [`RunEvent::Ended`] was given out.
    pub fn is_ended(&self) -> bool {
        unimplemented!()
    }
}
