//! One run, from its first task to its last: which tasks are ready, retries, timeouts, cancel, `finally`, the verdict.
//!
//! Here stands the run as a whole; what lets a task begin is in `gate`, its life in `task`.

mod artifacts;
mod command;
mod dag;
mod environment;
mod expressions;
mod gate;
mod outputs;
mod retry;
mod task;
mod tasks;
#[cfg(test)]
mod tests;
mod timers;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::Range,
    sync::Arc,
    time::Duration,
};

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use xene_schemas::{
    meta::{AgentName, Epoch, RunName},
    phase::{Reason, RunPhase, TaskPhase},
    pipeline::{CompiledPipeline, PipelineFile},
    run::{Artifact, RunEvent, RunSpec, TaskPlan},
};

use self::{
    dag::{Dag, Outcome},
    environment::Environment,
    expressions::Expressions,
    task::State,
    tasks::Tasks,
    timers::{Timer, Timers},
};
use super::{
    event::{Signal, StepCommand, StepExit, StepId},
    time::{BootTime, Now},
};

/// What happened to a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Input {
    /// Begin. Only once, first.
    Start,
    /// A task that was asked for by [`Output::TaskReady`] may take a slot. Without effect for a task that does not
    /// want one.
    SlotGranted(String),
    /// A step's process ended.
    StepExited(StepId, StepExit),
    /// Someone decided on a task that waits for approval. Without effect for one that does not.
    Decided {
        /// The task; the name of one with a matrix means all of its instances that wait.
        task: String,
        /// Whether it may run.
        approved: bool,
        /// Who decided.
        by: String,
    },
    /// End it in order; a sentence says who or why. `finally` still runs; a cancel of a run that is being
    /// stopped already and has come to its `finally` ends that too. Each one counts: a message that was sent
    /// twice must not come here twice. A run that has not begun ends at once, with [`RunEvent::Ended`] alone.
    Cancel(String),
    /// [`RunMachine::next_timeout`] has come.
    Timeout,
    /// Another agent may have the pipeline soon: end it in order.
    LeaseEnds,
    /// Another agent may have the pipeline from here on: end it at once, `finally` too.
    LeaseEnded,
}

/// What a run wants.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "an output is moved once, to where it is carried out")]
pub enum Output {
    /// The next fact, to be journaled and reported. The last one is [`RunEvent::Ended`].
    Fact(RunEvent),
    /// This task could run: answer with [`Input::SlotGranted`] when a slot is free. Asked for in the order in
    /// which slots should be given.
    TaskReady(String),
    /// This task gives its slot back, or was cancelled before [`Input::SlotGranted`] came and does not want one any
    /// more. Exactly one follows each [`Output::TaskReady`]. A task that waits to be tried again holds no slot;
    /// one of whose steps waits to be tried again keeps it, because its attempt goes on.
    SlotReturned(String),
    /// Start a process.
    Spawn(Box<StepCommand>),
    /// Signal every process of a step.
    Signal(StepId, Signal),
    /// A sentence for the run's log.
    Note(String),
}

/// How long a run may take.
const RUN_TIMEOUT: Duration = Duration::from_secs(6 * 3600);
/// How long `finally` may take.
const FINALLY_TIMEOUT: Duration = Duration::from_secs(300);
/// How long after SIGTERM comes SIGKILL.
const GRACE_PERIOD: Duration = Duration::from_secs(10);

/// One run.
///
/// Invariants: the last fact is `Ended`, and it comes once; after it there is no other output and no timer. Each
/// slot asked for is returned. A step that was spawned is never forgotten: its task ends only when it has exited.
#[derive(Debug)]
pub struct RunMachine {
    name: RunName,
    pipeline: Arc<CompiledPipeline>,
    payload: Option<Arc<[u8]>>,
    files: Arc<[PipelineFile]>,
    /// What tasks saved, by their place in the DAG.
    artifacts: BTreeMap<usize, Vec<Artifact>>,
    environment: Environment,
    expressions: Expressions,
    tasks: Tasks,
    dag: Dag,
    /// By their place in `tasks`.
    states: Vec<State>,
    /// Which of them may hold a slot now: `maxParallel` bounds how many instances of a matrix do.
    admitted: Vec<bool>,
    /// Tasks that count as succeeded, with what they published.
    reused: IndexMap<String, IndexMap<String, String>>,
    stage: Stage,
    /// Tasks of the current stage that have not ended.
    open: usize,
    timers: Timers,
    /// Why the tasks of the current stage are being stopped.
    stop: Option<Stop>,
    /// The verdict of a run that was cancelled or took too long.
    ended_by: Option<Stop>,
    /// Nothing more may begin, not even in `finally`.
    expired: bool,
    failures: Failures,
    finally_failures: Failures,
    /// The first task that somebody did not approve.
    rejection: Option<String>,
    /// Connectors that wait for all instances of a matrix, by the task they lead to, their place in the file and the
    /// first instance.
    gathering: BTreeMap<(usize, usize, usize), Gathering>,
    /// Tasks to ask slots for when the event has been handled, so that they are asked for in the order of the file.
    ready: BTreeSet<usize>,
    /// Tasks that have ended and whose connectors are to be settled when the event has been handled: one of many
    /// tasks that are stopped together must not call the next one blocked.
    ended: VecDeque<(usize, Outcome)>,
    out: Vec<Output>,
}

/// How far a run is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stage {
    /// Not begun. The spec may be one that can't be run; a sentence says why.
    New(Option<String>),
    /// Its tasks run.
    Tasks,
    /// All others have ended; those of `finally` run.
    Finally,
    /// It has ended.
    Ended,
}

/// Why tasks are stopped.
#[derive(Debug, Clone)]
struct Stop {
    reason: Reason,
    message: String,
}

/// Tasks that ended in Error, apart from those that were cancelled and those whose Error is tolerated.
#[derive(Debug, Default)]
struct Failures {
    /// What the first one's failure was, in a sentence.
    first: Option<String>,
    others: usize,
}

/// What the instances of a matrix that have ended say to a connector.
#[derive(Debug, Default)]
struct Gathering {
    ended: usize,
    passes: bool,
}

impl RunMachine {
    /// A run that has not begun. The tasks of `reused` count as succeeded, with these outputs: the run repeats one
    /// in which they did.
    pub fn new(
        name: RunName,
        spec: RunSpec,
        pipeline: Arc<CompiledPipeline>,
        agent: AgentName,
        epoch: Epoch,
        payload: Option<Arc<[u8]>>,
        reused: IndexMap<String, IndexMap<String, String>>,
    ) -> Self {
        let environment = Environment::new(name, &spec, &pipeline, &agent, epoch);
        let expressions = Expressions::new(&pipeline, &spec, payload.as_deref());
        let unsupported = dag::unsupported(&pipeline.spec);
        let built = Tasks::of(&pipeline.spec).and_then(|tasks| Ok((Dag::build(&pipeline.spec, &tasks)?, tasks)));
        let ((dag, tasks), refusal) = match built {
            Ok(built) => (built, unsupported),
            Err(message) => (Default::default(), unsupported.or(Some(message))),
        };
        Self {
            name,
            payload,
            files: pipeline.files.as_slice().into(),
            artifacts: BTreeMap::new(),
            environment,
            expressions,
            states: (0..tasks.len()).map(|_| State::Waiting).collect(),
            admitted: vec![false; tasks.len()],
            dag,
            reused,
            stage: Stage::New(refusal),
            open: tasks.ordinary().len(),
            tasks,
            pipeline,
            timers: Timers::default(),
            stop: None,
            ended_by: None,
            expired: false,
            failures: Failures::default(),
            finally_failures: Failures::default(),
            rejection: None,
            gathering: BTreeMap::new(),
            ready: BTreeSet::new(),
            ended: VecDeque::new(),
            out: Vec::new(),
        }
    }

    /// Takes what happened, gives what is to be done, in order.
    pub fn handle(&mut self, now: Now, input: Input) -> Vec<Output> {
        match (&self.stage, input) {
            (Stage::Ended, _) => return Vec::new(),
            (Stage::New(refusal), Input::Start) => {
                let refusal = refusal.clone();
                self.start(now, refusal);
            }
            (Stage::New(_), Input::Cancel(message)) => self.end(now, Some((Reason::CANCELLED, message))),
            (Stage::New(_), Input::LeaseEnds | Input::LeaseEnded) => {
                let Stop { reason, message } = lease_over();
                self.end(now, Some((reason, message)));
            }
            (Stage::New(_), _) | (_, Input::Start) => {}
            (_, Input::SlotGranted(task)) => {
                if let Some(task) = self.tasks.find(&task) {
                    self.slot_granted(now, task);
                }
            }
            (_, Input::StepExited(id, exit)) => self.step_exited(now, &id, exit),
            (_, Input::Decided { task, approved, by }) => self.decided_by(now, &task, approved, &by),
            (_, Input::Cancel(message)) => self.cancel(now, message),
            (_, Input::LeaseEnds) => self.stop_run(now, lease_over()),
            (_, Input::LeaseEnded) => self.expire(now),
            (_, Input::Timeout) => {
                while let Some(timer) = self.timers.pop(now.boot) {
                    self.timer_due(now, timer);
                }
            }
        }
        self.settle(now);
        self.progress(now);
        for task in std::mem::take(&mut self.ready) {
            self.out.push(Output::TaskReady(self.tasks.name(task).to_string()));
        }
        std::mem::take(&mut self.out)
    }

    /// When [`Input::Timeout`] is due next.
    pub fn next_timeout(&self) -> Option<BootTime> {
        self.timers.next()
    }

    /// True once all but the tasks of `finally` have ended.
    pub fn is_in_finally(&self) -> bool {
        self.stage == Stage::Finally
    }

    /// True once [`RunEvent::Ended`] was given out.
    pub fn is_ended(&self) -> bool {
        self.stage == Stage::Ended
    }

    fn start(&mut self, now: Now, refusal: Option<String>) {
        let tasks = (0..self.states.len()).map(|task| self.plan(task)).collect();
        self.fact(RunEvent::Started { at: now.wall, tasks });
        if let Some(message) = refusal {
            return self.end(now, Some((Reason::SPEC_INVALID, message)));
        }
        self.stage = Stage::Tasks;
        let timeout = self.pipeline.spec.timeout.map_or(RUN_TIMEOUT, Duration::from);
        self.timers.set(Timer::Run, now.boot + timeout);
        for (name, outputs) in std::mem::take(&mut self.reused) {
            if let Some(task) = self.tasks.find(&name).filter(|task| self.stage_tasks().contains(task)) {
                self.reuse(now, task, outputs);
            }
        }
        for task in self.stage_tasks() {
            if self.dag.is_free(task) && matches!(self.states[task], State::Waiting) {
                self.connected(now, task);
            }
        }
    }

    fn plan(&self, task: usize) -> TaskPlan {
        let steps = self.spec_of(task).steps.iter().enumerate().map(|(index, step)| step.name_at(index)).collect();
        TaskPlan {
            name: self.tasks.name(task).to_string(),
            steps,
            dependencies: self.dag.upstream(task).into_iter().map(|from| self.tasks.name(from).to_owned()).collect(),
            finally: self.is_finally(task),
        }
    }

    fn timer_due(&mut self, now: Now, timer: Timer) {
        match timer {
            Timer::Run => {
                let timeout = self.pipeline.spec.timeout.unwrap_or(whole(RUN_TIMEOUT));
                let message = format!("the run took longer than {timeout}");
                self.stop_run(now, Stop { reason: Reason::TIMED_OUT, message });
            }
            Timer::Finally => {
                let timeout = self.pipeline.spec.finally_timeout.unwrap_or(whole(FINALLY_TIMEOUT));
                let message = format!("finally took longer than {timeout}");
                self.finally_failures.add(message.clone());
                self.stop_tasks(now, Stop { reason: Reason::TIMED_OUT, message });
            }
            Timer::Task(task) => self.attempt_timed_out(now, task),
            Timer::Step(task) => self.step_timed_out(now, task),
            Timer::Grace(task) => self.kill_step(task),
            Timer::Retry(task) => self.retry_due(now, task),
            Timer::Approval(task) => self.approval_timed_out(now, task),
        }
    }

    fn cancel(&mut self, now: Now, message: String) {
        if self.ended_by.is_none() {
            self.stop_run(now, Stop { reason: Reason::CANCELLED, message });
        } else if self.stage == Stage::Finally {
            self.out.push(Output::Note("cancelled again: finally is stopped too".into()));
            self.stop_tasks(now, Stop { reason: Reason::CANCELLED, message });
        }
    }

    /// None of its processes may live any more.
    fn expire(&mut self, now: Now) {
        self.stop_run(now, lease_over());
        self.expired = true;
        self.out.push(Output::Note("its agent's lease has ended: what still runs of it is killed".into()));
        if self.stage == Stage::Finally {
            self.stop_tasks(now, lease_over());
        }
        for task in self.stage_tasks() {
            self.kill_step(task);
        }
    }

    /// Ends all tasks for good, and then `finally` runs; if it runs already, it runs on.
    fn stop_run(&mut self, now: Now, stop: Stop) {
        if self.ended_by.is_some() {
            return;
        }
        self.ended_by = Some(stop.clone());
        let (reason, message) = (Some(stop.reason.clone()), Some(stop.message.clone()));
        self.fact(RunEvent::ShuttingDown { reason, message, at: now.wall });
        if self.stage == Stage::Tasks {
            self.stop_tasks(now, stop);
        }
    }

    /// Ends the tasks of the current stage: running steps are asked to end, what has not begun never will.
    fn stop_tasks(&mut self, now: Now, stop: Stop) {
        self.stop = Some(stop.clone());
        for task in self.stage_tasks() {
            self.stop_task(now, task, &stop);
        }
    }

    /// Carries on from tasks that have ended, and from those that therefore never will run.
    fn settle(&mut self, now: Now) {
        while let Some((task, outcome)) = self.ended.pop_front() {
            for (next, edge) in self.dag.outgoing(task) {
                if matches!(self.states[next], State::Waiting) {
                    self.pass(now, (task, outcome), edge, next);
                }
            }
        }
    }

    /// Goes to the next stage if all tasks of this one have ended.
    fn progress(&mut self, now: Now) {
        if self.stage == Stage::Tasks && self.open == 0 {
            self.begin_finally(now);
            if self.expired {
                self.stop_tasks(now, lease_over());
            }
        }
        if self.stage == Stage::Finally && self.open == 0 {
            self.end(now, None);
        }
    }

    fn begin_finally(&mut self, now: Now) {
        // From here on `finallyTimeout` bounds the run.
        self.timers.clear(Timer::Run);
        self.stage = Stage::Finally;
        self.stop = None;
        let tasks = self.stage_tasks();
        self.open = tasks.clone().filter(|task| matches!(self.states[*task], State::Waiting)).count();
        if self.open == 0 {
            return;
        }
        if self.ended_by.is_none() {
            self.fact(RunEvent::ShuttingDown { reason: None, message: None, at: now.wall });
        }
        let timeout = self.pipeline.spec.finally_timeout.map_or(FINALLY_TIMEOUT, Duration::from);
        self.timers.set(Timer::Finally, now.boot + timeout);
        for task in tasks {
            if self.dag.release(task) && matches!(self.states[task], State::Waiting) {
                self.connected(now, task);
            }
        }
    }

    /// The end; the verdict is that of the tasks unless one is given.
    fn end(&mut self, now: Now, verdict: Option<(Reason, String)>) {
        let ended_by = self.ended_by.take().map(|stop| (stop.reason, stop.message));
        let verdict = verdict
            .or(ended_by)
            .or_else(|| self.failures.sentence().map(|message| (Reason::TASK_FAILED, message)))
            .or_else(|| self.rejection.take().map(|message| (Reason::REJECTED, message)))
            .or_else(|| self.finally_failures.sentence().map(|message| (Reason::FINALLY_FAILED, message)));
        let phase = if verdict.is_none() { RunPhase::Success } else { RunPhase::Error };
        let (reason, message) = verdict.unzip();
        self.stage = Stage::Ended;
        self.timers.clear_all();
        self.fact(RunEvent::Ended { phase, reason, message, at: now.wall });
    }

    /// The tasks of the current stage.
    fn stage_tasks(&self) -> Range<usize> {
        if self.stage == Stage::Finally { self.tasks.finally() } else { self.tasks.ordinary() }
    }

    fn is_finally(&self, task: usize) -> bool {
        self.tasks.finally().contains(&task)
    }

    fn spec_of(&self, task: usize) -> &xene_schemas::task::Task {
        let spec = &self.pipeline.spec;
        let task = self.tasks.of_file(task);
        match task.checked_sub(spec.tasks.len()) {
            None => &spec.tasks[task],
            Some(task) => &spec.finally[task],
        }
    }

    fn fact(&mut self, fact: RunEvent) {
        self.out.push(Output::Fact(fact));
    }

    fn note(&mut self, text: String) {
        self.out.push(Output::Note(text));
    }
}

impl Failures {
    fn add(&mut self, message: String) {
        if self.first.is_none() {
            self.first = Some(message);
        } else {
            self.others += 1;
        }
    }

    fn sentence(&self) -> Option<String> {
        let first = self.first.as_ref()?;
        Some(match self.others {
            0 => first.clone(),
            1 => format!("{first}; another task failed too"),
            others => format!("{first}; {others} other tasks failed too"),
        })
    }
}

fn lease_over() -> Stop {
    let message = "its pipeline is exclusive, and its agent's lease ended: another may have it".to_owned();
    Stop { reason: Reason::LEASE_EXPIRED, message }
}

/// A default, as people write durations.
const fn whole(duration: Duration) -> xene_schemas::duration::Duration {
    xene_schemas::duration::Duration::from_secs(duration.as_secs())
}
