//! Runs pipelines in this process: the agent's machine, executor and log, without controller, session and journal.

mod lines;
mod scratch;

use std::{
    collections::VecDeque,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use indexmap::IndexMap;
use tokio::sync::{mpsc, watch};
use xene_agent::{
    clock::{self, Alarm},
    content::ContentStore,
    decide::{
        admission::Slots,
        event::keeps_workspace,
        run::{Input, Output, RunMachine},
    },
    exec::{Exec, ExecConfig, ExecEvent, Held, find_cgroup},
    logs::{Limits, Logs, RunLog},
};
use xene_schemas::{
    meta::{AgentName, Epoch, RunName},
    phase::{Reason, RunPhase},
    pipeline::CompiledPipeline,
    run::{Run, RunEvent, RunSpec},
    wire::logs::{StepHead, split_record},
};

use self::lines::Lines;
pub use self::scratch::Scratch;

/// Ends of processes wait here while the loop is busy.
const EVENTS: usize = 256;
/// How long processes may take to end after SIGKILL; longer ones are stuck in the kernel.
const KILLED_WITHIN: Duration = Duration::from_secs(10);
/// Read of a log at a time, in bytes.
const READ: usize = 64 << 10;

/// How a run is told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stop {
    /// Go on.
    No,
    /// In order: SIGTERM, the grace period, `finally`.
    Cancel,
    /// At once: SIGKILL, and nothing more.
    Kill,
}

/// What is to run.
#[derive(Debug, Clone)]
pub struct Start {
    /// The run's name.
    pub name: RunName,
    /// What it is a run of.
    pub spec: RunSpec,
    /// The pipeline.
    pub pipeline: Arc<CompiledPipeline>,
    /// Whether its workspace stays, whatever the pipeline says.
    pub keep_workspace: bool,
}

/// How people are asked about tasks that wait for approval.
#[derive(Debug)]
pub struct Approvals {
    /// Gets [`RunEvent::ApprovalWanted`], and whatever makes that question idle: [`RunEvent::ApprovalDecided`] and
    /// [`RunEvent::TaskEnded`].
    pub facts: mpsc::UnboundedSender<RunEvent>,
    /// Gives what was decided.
    pub decisions: mpsc::UnboundedReceiver<Decision>,
}

/// What someone decided about a task that waits for approval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The task.
    pub task: String,
    /// Whether it may run.
    pub approved: bool,
    /// Who decided.
    pub by: String,
}

/// What a run came to.
#[derive(Debug)]
pub struct Ended {
    /// Its record.
    pub run: Run,
    /// Where its workspaces are, if they were kept.
    pub workspace: Option<PathBuf>,
}

/// The system refuses something that every run needs.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {source}")]
pub struct LocalError {
    what: &'static str,
    source: io::Error,
}

fn failed(what: &'static str) -> impl Fn(io::Error) -> LocalError {
    move |source| LocalError { what, source }
}

/// Runs pipelines, one run after the other.
#[derive(Debug)]
pub struct Local {
    agent: AgentName,
    slots: u32,
    exec: Exec,
    logs: Logs,
    processes: mpsc::Receiver<ExecEvent>,
    cgroup: Option<PathBuf>,
}

impl Local {
    /// A runner that works in `folder`, keeps what lasts in `cache`, has `files` travel with workflows and between tasks,
    /// and runs `slots` tasks at once. Call it within a tokio runtime.
    ///
    /// # Errors
    /// If a folder can't be made, or the system refuses.
    pub fn new(
        agent: AgentName,
        slots: u32,
        (folder, cache): (&Path, &Path),
        files: ContentStore,
    ) -> Result<Self, LocalError> {
        let work_dir = folder.join("work");
        let cgroup = find_cgroup(&work_dir);
        let config = ExecConfig {
            work_dir,
            cache_dir: cache.to_owned(),
            files,
            cgroup: cgroup.clone(),
            outlives: false,
            bounds: None,
        };
        let (sender, processes) = mpsc::channel(EVENTS);
        let exec = Exec::new(config, sender).map_err(failed("steps can't be run"))?;
        let logs = Logs::open(&folder.join("logs"), Limits::default()).map_err(failed("logs can't be kept"))?;
        Ok(Self { agent, slots, exec, logs, processes, cgroup })
    }

    /// The log of a run that is about to start.
    pub fn log(&self, run: RunName) -> Arc<RunLog> {
        self.logs.create(run)
    }

    /// Runs one to its end; `seen` gets each state of its record.
    ///
    /// # Errors
    /// If the system gives no timer.
    pub async fn run(
        &mut self,
        start: Start,
        approvals: Approvals,
        stop: &mut watch::Receiver<Stop>,
        seen: &watch::Sender<Run>,
    ) -> Result<Ended, LocalError> {
        let Start { name, spec, pipeline, keep_workspace } = start;
        let mut alarm = Alarm::new().map_err(failed("the system gives no timer"))?;
        let (agent, epoch, nothing) = (self.agent.clone(), Epoch::default(), IndexMap::new());
        let machine = RunMachine::new(name, spec.clone(), Arc::clone(&pipeline), agent, epoch, None, nothing);
        let mut record = Run::new(name, clock::now().wall, spec);
        record.status.agent = Some(self.agent.clone());
        let log = self.logs.create(name);
        let Approvals { facts, mut decisions } = approvals;
        let mut course = Course { machine, record, slots: Slots::new(self.slots), log, exec: self.exec.clone(), facts };
        course.take(Input::Start);
        let mut told = Stop::No;
        while !course.machine.is_ended() {
            seen.send_replace(course.record.clone());
            alarm.set(course.machine.next_timeout()).map_err(failed("the system gives no timer"))?;
            tokio::select! {
                biased;
                changed = stop.changed() => {
                    // Whoever could say so has gone.
                    let wanted = if changed.is_ok() { *stop.borrow_and_update() } else { Stop::Kill };
                    if wanted == Stop::Kill {
                        self.end_steps().await;
                        course.killed();
                        break;
                    }
                    if wanted > told {
                        told = wanted;
                        course.take(Input::Cancel("it was interrupted".into()));
                    }
                }
                Some(Decision { task, approved, by }) = decisions.recv() => {
                    course.take(Input::Decided { task, approved, by });
                }
                Some(ExecEvent { id, exit, held }) = self.processes.recv() => {
                    held.inspect(Held::release);
                    course.take(Input::StepExited(id, exit));
                }
                () = alarm.due() => course.take(Input::Timeout),
            }
        }
        let Course { record, log, .. } = course;
        log.seal();
        let success = record.status.phase == RunPhase::Success;
        let keep = keep_workspace || keeps_workspace(pipeline.spec.keep_workspace, success);
        // It only fails if it panicked, which the process shows by itself.
        drop(self.exec.finish_run(name, keep).await);
        seen.send_replace(record.clone());
        let workspace = Some(self.exec.workspace(name)).filter(|folder| keep && folder.is_dir());
        Ok(Ended { run: record, workspace })
    }

    /// Kills every step, and waits until their trees are gone.
    async fn end_steps(&mut self) {
        self.exec.kill_all();
        let ended = async { while self.exec.running() > 0 && self.processes.recv().await.is_some() {} };
        if tokio::time::timeout(KILLED_WITHIN, ended).await.is_err() {
            tracing::error!("processes of steps do not end");
        }
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        // Those of steps are gone; the one above them is this runner's alone.
        if let Some(cgroup) = &self.cgroup {
            let _ = std::fs::remove_dir(cgroup);
        }
    }
}

/// One run on its way.
struct Course {
    machine: RunMachine,
    record: Run,
    slots: Slots,
    log: Arc<RunLog>,
    exec: Exec,
    facts: mpsc::UnboundedSender<RunEvent>,
}

impl Course {
    /// Takes what happened, and all that follows from it.
    fn take(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            for output in self.machine.handle(clock::now(), input) {
                inputs.extend(self.carry_out(output));
            }
        }
    }

    fn carry_out(&mut self, output: Output) -> Option<Input> {
        let run = self.record.metadata.name;
        match output {
            Output::Fact(fact) => {
                self.record.apply(&fact);
                use RunEvent::{ApprovalDecided, ApprovalWanted, TaskEnded};
                if matches!(fact, ApprovalWanted { .. } | ApprovalDecided { .. } | TaskEnded { .. }) {
                    // Whoever would ask has gone: then nobody is asked.
                    let _ = self.facts.send(fact);
                }
            }
            Output::TaskReady(task) => {
                return self.slots.want(run, task.clone(), false).then_some(Input::SlotGranted(task));
            }
            Output::SlotReturned(task) => {
                return self.slots.give_back(run, &task).map(|(_, task)| Input::SlotGranted(task));
            }
            Output::Spawn(command) => self.exec.spawn(*command, Arc::clone(&self.log)),
            Output::Signal(id, signal) => self.exec.signal(&id, signal),
            Output::Note(text) => self.log.note(&text),
        }
        None
    }

    /// It was ended without being asked.
    fn killed(&mut self) {
        self.record.apply(&RunEvent::Ended {
            phase: RunPhase::Error,
            reason: Some(Reason::CANCELLED),
            message: Some("it was killed".into()),
            at: clock::now().wall,
        });
    }
}

/// Gives each line of a log to `tell` until the log is complete, or `tell` says that nobody listens any more. The
/// run's record tells which steps print no more: then also a line without an end is one.
pub async fn read_lines(log: Arc<RunLog>, mut states: watch::Receiver<Run>, mut tell: impl FnMut(String) -> bool) {
    let (mut offset, mut rest) = (0, Vec::new());
    let (mut lines, mut out, mut buffer) = (Lines::default(), Vec::new(), vec![0; READ]);
    loop {
        // Looked at before the log: a step that has ended by then has written all that it will.
        let state = states.borrow_and_update().clone();
        let sealed = log.is_sealed();
        let length = log.len();
        while offset < length {
            match log.read_at(offset, &mut buffer) {
                Ok(0) => break,
                Ok(read) => {
                    offset += read as u64;
                    rest.extend_from_slice(&buffer[..read]);
                }
                Err(error) => {
                    tracing::warn!(%error, "a run's log can't be read");
                    return;
                }
            }
            let mut used = 0;
            while let Ok(Some((record, size))) = split_record(&rest[used..]) {
                lines.take(record, &mut out);
                used += size;
            }
            rest.drain(..used);
            if !out.drain(..).all(&mut tell) {
                return;
            }
        }
        lines.end(|head| has_ended(&state, head), &mut out);
        if !out.drain(..).all(&mut tell) || sealed {
            return;
        }
        tokio::select! {
            _ = log.wait_for(offset) => {}
            Ok(()) = states.changed() => {}
        }
    }
}

fn has_ended(run: &Run, head: &StepHead) -> bool {
    let task = run.status.tasks.get(&head.task);
    let step = task.and_then(|task| task.steps.iter().find(|step| step.name == head.step));
    step.is_some_and(|step| step.finished_at.is_some())
}
