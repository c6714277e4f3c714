//! The life of a task within its run: slot, attempts, steps, and how each of them ends.

use std::time::Duration;

use indexmap::IndexMap;
use xene_schemas::run::StepEnd;

use super::{
    GRACE_PERIOD, Now, Outcome, Output, Reason, RunEvent, RunMachine, Signal, StepExit, StepId, Stop, TaskPhase, Timer,
    outputs::{Outputs, Refusal},
    retry,
};
use crate::decide::event::{ExitStatus, OutputsError};

/// What is told of a step that nobody knows the end of.
const LOST: &str = "was lost when its agent ended";

/// By which the kernel, too, ends processes.
const SIGKILL: i32 = 9;
/// What is told besides of a step that it ended without a reason of xene's.
const KILLED: &str = ", as when memory runs out";

/// How far a task is.
#[derive(Debug)]
pub(super) enum State {
    /// For its connectors.
    Waiting,
    /// For someone to approve it.
    Approving {
        /// What silence means.
        silence: bool,
    },
    /// For other instances of its matrix to end, as `maxParallel` says.
    Held,
    /// For a slot, to make this attempt.
    Asking(u32),
    /// It has a slot.
    Running(Box<Attempt>),
    /// For the time of its next attempt; an earlier one failed.
    Backoff(u32),
    /// It ended, or never will run.
    Ended(End),
}

/// How a task ended.
#[derive(Debug)]
pub(super) struct End {
    pub(super) phase: TaskPhase,
    pub(super) reason: Option<Reason>,
    /// Of the step that failed, else of the last one; none if that did not exit.
    pub(super) exit_code: Option<i32>,
    /// What it published.
    pub(super) outputs: IndexMap<String, String>,
}

/// One attempt of a task.
#[derive(Debug)]
pub(super) struct Attempt {
    /// From 1.
    number: u32,
    /// From 0.
    step: usize,
    /// From 1.
    step_attempt: u32,
    process: Process,
    /// Set as soon as the step is asked to end; the widest asked for.
    stop: Option<StopScope>,
    outputs: Outputs,
    /// True once a step of it was started.
    begun: bool,
}

impl Attempt {
    pub(super) fn has_begun(&self) -> bool {
        self.begun
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Process {
    /// It runs.
    Running,
    /// It was sent SIGTERM.
    Stopping,
    /// There is none until the step is tried again.
    Backoff,
}

/// What ends with the step that is being stopped. The order is that of width.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum StopScope {
    /// This attempt of the step.
    Step,
    /// This attempt of the task.
    Attempt,
    /// The task for good.
    Task,
}

/// Why a step or an attempt of a task failed.
#[derive(Debug, Clone)]
struct Failure {
    reason: Reason,
    /// A sentence without its subject: "exited with code 2".
    message: String,
    exit_code: Option<i32>,
    signal: Option<i32>,
}

impl Attempt {
    /// What it has published so far.
    pub(super) fn outputs(&self) -> &IndexMap<String, String> {
        self.outputs.values()
    }
}

impl Failure {
    /// To try again would change nothing.
    fn is_of_the_spec(&self) -> bool {
        self.reason == Reason::SPEC_INVALID || self.reason == Reason::EXPR_FAILED
    }
}

impl RunMachine {
    pub(super) fn ask_for_slot(&mut self, task: usize, attempt: u32) {
        self.states[task] = State::Asking(attempt);
        self.ready.insert(task);
    }

    pub(super) fn slot_granted(&mut self, now: Now, task: usize) {
        let State::Asking(number) = self.states[task] else { return };
        let attempt = Attempt {
            number,
            step: 0,
            step_attempt: 1,
            process: Process::Backoff,
            stop: None,
            outputs: Outputs::default(),
            begun: false,
        };
        self.states[task] = State::Running(Box::new(attempt));
        self.fact(RunEvent::TaskStarted { task: self.tasks.name(task).to_string(), attempt: number, at: now.wall });
        if let Some(timeout) = self.spec_of(task).timeout {
            self.timers.set(Timer::Task(task), now.boot + timeout.into());
        }
        self.run_steps(now, task);
    }

    pub(super) fn step_exited(&mut self, now: Now, id: &StepId, exit: StepExit) {
        let Some(task) = self.tasks.find(&id.task) else { return };
        if self.current_step(task).as_ref() != Some(id) {
            return;
        }
        if exit.status == ExitStatus::Lost {
            let message = format!("{} {LOST}", self.step_name(task));
            if let State::Running(attempt) = &mut self.states[task] {
                // There is nothing left to signal.
                attempt.process = Process::Stopping;
            }
            self.stop_run(now, Stop { reason: Reason::AGENT_RESTARTED, message });
        }
        self.timers.clear(Timer::Step(task));
        self.timers.clear(Timer::Grace(task));
        if !exit.leftovers.is_empty() {
            let (step, leftovers) = (self.step_name(task), exit.leftovers.join(", "));
            self.note(format!("{step} left processes behind, which were ended: {leftovers}"));
        }
        if id.step == self.spec_of(task).steps.len() {
            return self.artifacts_saved(now, task, exit.status);
        }
        let failure = self.take_exit(task, exit.status, exit.outputs);
        if self.conclude_step(now, task, failure) {
            self.run_steps(now, task);
        }
    }

    /// Runs the step that the attempt is at, or ends the attempt after the last one.
    fn run_steps(&mut self, now: Now, task: usize) {
        loop {
            let State::Running(attempt) = &self.states[task] else { return };
            let (index, id) = (attempt.step, self.step_id(task, attempt));
            let Some(step) = self.spec_of(task).steps.get(index) else {
                return match self.saves(task) {
                    Some(patterns) => self.save_artifacts(task, patterns),
                    None => self.end_attempt(now, task, None),
                };
            };
            let timeout = step.timeout;
            if id.step_attempt == 1
                && let Some(when) = &step.when
            {
                match self.holds(when, task, None) {
                    Ok(true) => {}
                    Ok(false) => {
                        self.skip_step(now, task, index);
                        continue;
                    }
                    Err(why) => {
                        let message = format!("can't be run: its `when` has no value: {why}");
                        let failure = Failure { reason: Reason::EXPR_FAILED, message, exit_code: None, signal: None };
                        if self.conclude_step(now, task, Some(failure)) {
                            continue;
                        }
                        return;
                    }
                }
            }
            if id.step_attempt == 1 {
                let name = self.tasks.name(task).to_string();
                self.fact(RunEvent::StepStarted { task: name, step: index, at: now.wall });
            }
            match self.command(task, id) {
                Ok(command) => {
                    self.out.push(Output::Spawn(Box::new(command)));
                    self.process_runs(task);
                    if let Some(timeout) = timeout {
                        self.timers.set(Timer::Step(task), now.boot + timeout.into());
                    }
                    return;
                }
                Err((reason, message)) => {
                    let message = format!("can't be run: {message}");
                    let failure = Failure { reason, message, exit_code: None, signal: None };
                    if !self.conclude_step(now, task, Some(failure)) {
                        return;
                    }
                }
            }
        }
    }

    /// A process of the attempt was started.
    pub(super) fn process_runs(&mut self, task: usize) {
        if let State::Running(attempt) = &mut self.states[task] {
            (attempt.process, attempt.begun) = (Process::Running, true);
        }
    }

    /// Ends an attempt whose steps have all succeeded, once its artifacts are saved, or not.
    pub(super) fn end_attempt_saved(&mut self, now: Now, task: usize, failure: Option<(Reason, String)>) {
        let failure = failure.map(|(reason, why)| {
            let message = format!("could not save its artifacts: {why}");
            Failure { reason, message, exit_code: None, signal: None }
        });
        let stopped = self.stopped(task);
        self.end_attempt(now, task, stopped.or(failure));
    }

    /// Passes over a step whose `when` is false.
    fn skip_step(&mut self, now: Now, task: usize, index: usize) {
        let end = StepEnd {
            phase: TaskPhase::NotExecuted,
            reason: Some(Reason::SKIPPED),
            message: Some("its `when` is false".into()),
            exit_code: None,
            signal: None,
        };
        self.fact(RunEvent::StepEnded { task: self.tasks.name(task).to_string(), step: index, end, at: now.wall });
        if let State::Running(attempt) = &mut self.states[task] {
            (attempt.step, attempt.step_attempt) = (index + 1, 1);
        }
    }

    /// What a step's process comes to: none for a Success. Takes its outputs.
    fn take_exit(
        &mut self,
        task: usize,
        status: ExitStatus,
        outputs: Result<Vec<(String, String)>, OutputsError>,
    ) -> Option<Failure> {
        let declared = self.spec_of(task).outputs.clone();
        let taken = match (outputs, &mut self.states[task]) {
            (Ok(published), State::Running(attempt)) => attempt.outputs.add(published, declared.as_deref()),
            (Ok(_), _) => Ok(Vec::new()),
            (Err(error), _) => Err(Refusal::Unusable(error)),
        };
        if let Ok(undeclared) = &taken
            && !undeclared.is_empty()
        {
            let (step, undeclared) = (self.step_name(task), undeclared.join(", "));
            self.note(format!(
                "{step} published outputs that the task does not declare, which were dropped: {undeclared}"
            ));
        }
        let (reason, message, exit_code, signal) = match status {
            ExitStatus::Code(0) => match taken {
                Ok(_) => return self.stopped(task).map(|stop| Failure { exit_code: Some(0), ..stop }),
                Err(Refusal::Unusable(error @ OutputsError::TooLarge { .. })) => {
                    (Reason::OUTPUT_TOO_LARGE, format!("published too much: {error}"), Some(0), None)
                }
                Err(error) => (Reason::OUTPUT_INVALID, format!("published what can't be read: {error}"), Some(0), None),
            },
            ExitStatus::Lost => (Reason::AGENT_RESTARTED, LOST.to_owned(), None, None),
            ExitStatus::Code(code) => (Reason::EXIT_CODE, format!("exited with code {code}"), Some(code), None),
            ExitStatus::Signal(signal) => {
                let memory = if signal == SIGKILL { KILLED } else { "" };
                (Reason::SIGNAL, format!("was ended by signal {signal}{memory}"), None, Some(signal))
            }
            ExitStatus::StartFailed(why) | ExitStatus::NotSaved(why) => {
                (Reason::START_FAILED, format!("could not be started: {why}"), None, None)
            }
            // Only what saves artifacts ends so, and that is no step.
            ExitStatus::Saved(_) => return None,
        };
        // Whatever became of a step that was told to end, that is why.
        let failure = Failure { reason, message, exit_code, signal };
        Some(self.stopped(task).map_or_else(|| failure.clone(), |stop| Failure { exit_code, signal, ..stop }))
    }

    /// Why the step of a task is being stopped, if it is.
    fn stopped(&self, task: usize) -> Option<Failure> {
        let State::Running(attempt) = &self.states[task] else { return None };
        let spec = self.spec_of(task);
        let timed_out = |message| (Reason::TIMED_OUT, message);
        let (reason, message) = match attempt.stop? {
            StopScope::Step => {
                let timeout = spec.steps.get(attempt.step).and_then(|step| step.timeout).unwrap_or_default();
                timed_out(format!("took longer than {timeout}"))
            }
            StopScope::Attempt => {
                timed_out(format!("was stopped: the task took longer than {}", spec.timeout.unwrap_or_default()))
            }
            StopScope::Task => {
                let stop = self.stop.as_ref()?;
                (stop.reason.clone(), format!("was stopped: {}", stop.message))
            }
        };
        Some(Failure { reason, message, exit_code: None, signal: None })
    }

    /// Ends the step that the attempt is at, or has it tried again. True: the attempt goes on with the next one.
    fn conclude_step(&mut self, now: Now, task: usize, failure: Option<Failure>) -> bool {
        let State::Running(attempt) = &mut self.states[task] else { return false };
        let scope = attempt.stop;
        attempt.stop = scope.filter(|scope| *scope > StopScope::Step);
        let (index, step_attempt, ends) = (attempt.step, attempt.step_attempt, attempt.stop.is_some());
        let Some(step) = self.spec_of(task).steps.get(index) else { return false };
        let tolerated = step.allow_failure && !ends;
        if let Some(failure) = &failure
            && !ends
            && !failure.is_of_the_spec()
            && let Some(delay) = retry::delay(step.retry.as_ref(), step_attempt, failure.exit_code)
        {
            self.note(format!("{} {}; it is tried again in {}", self.step_name(task), failure.message, text(delay)));
            if let State::Running(attempt) = &mut self.states[task] {
                (attempt.process, attempt.step_attempt) = (Process::Backoff, step_attempt + 1);
            }
            self.timers.set(Timer::Retry(task), now.boot + delay);
            return false;
        }
        let end = match &failure {
            None => {
                StepEnd { phase: TaskPhase::Success, reason: None, message: None, exit_code: Some(0), signal: None }
            }
            Some(failure) => StepEnd {
                phase: TaskPhase::Error,
                reason: Some(failure.reason.clone()),
                message: Some(failure.message.clone()),
                exit_code: failure.exit_code,
                signal: failure.signal,
            },
        };
        self.fact(RunEvent::StepEnded { task: self.tasks.name(task).to_string(), step: index, end, at: now.wall });
        match failure {
            Some(failure) if !tolerated => {
                self.end_attempt(now, task, Some(failure));
                false
            }
            _ => {
                if let State::Running(attempt) = &mut self.states[task] {
                    (attempt.step, attempt.step_attempt) = (index + 1, 1);
                }
                true
            }
        }
    }

    /// Ends an attempt of a task, or has the task tried again; `failure` is that of the step it is at.
    fn end_attempt(&mut self, now: Now, task: usize, failure: Option<Failure>) {
        let step = self.step_name(task);
        let (number, scope) = match &self.states[task] {
            State::Running(attempt) => (attempt.number, attempt.stop),
            _ => return,
        };
        self.timers.clear(Timer::Task(task));
        self.out.push(Output::SlotReturned(self.tasks.name(task).to_string()));
        let Some(failure) = failure else {
            return self.end_task(now, task, None, Some(0));
        };
        let (exit_code, of_the_spec) = (failure.exit_code, failure.is_of_the_spec());
        let (spec, name) = (self.spec_of(task), self.tasks.name(task));
        let (reason, message) = match scope {
            None | Some(StopScope::Step) => {
                let own = of_the_spec || failure.reason == Reason::ARTIFACTS_NOT_SAVED;
                let reason = if own { failure.reason.clone() } else { Reason::STEP_FAILED };
                (reason, format!("{step} {}", failure.message))
            }
            Some(StopScope::Attempt) => {
                (failure.reason, format!("task {name} took longer than {}", spec.timeout.unwrap_or_default()))
            }
            Some(StopScope::Task) => (failure.reason, format!("{step} {}", failure.message)),
        };
        if scope != Some(StopScope::Task)
            && !of_the_spec
            && let Some(delay) = retry::delay(spec.retry.as_ref(), number, failure.exit_code)
        {
            self.note(format!("{message}; task {name} is tried again in {}", text(delay)));
            self.states[task] = State::Backoff(number + 1);
            self.timers.set(Timer::Retry(task), now.boot + delay);
            return;
        }
        self.end_task(now, task, Some((reason, message)), exit_code);
    }

    /// Ends a task that has been running, with its last attempt's failure; or that could not, for that reason.
    pub(super) fn end_task(
        &mut self,
        now: Now,
        task: usize,
        failure: Option<(Reason, String)>,
        exit_code: Option<i32>,
    ) {
        let outputs = match std::mem::replace(&mut self.states[task], State::Waiting) {
            State::Running(attempt) => attempt.outputs.into_values(),
            _ => IndexMap::new(),
        };
        self.open -= 1;
        let own = self.stop.is_none();
        let tolerated = own && failure.is_some() && self.spec_of(task).allow_failure;
        let phase = if failure.is_some() { TaskPhase::Error } else { TaskPhase::Success };
        let outcome = if failure.is_some() && !tolerated { Outcome::Failed } else { Outcome::Passed };
        // Those of a failed attempt are not the task's.
        let artifacts = if failure.is_none() { self.artifacts.get(&task).cloned().unwrap_or_default() } else { vec![] };
        let (reason, message) = failure.unzip();
        self.states[task] = State::Ended(End { phase, reason: reason.clone(), exit_code, outputs: outputs.clone() });
        self.fact(RunEvent::TaskEnded {
            task: self.tasks.name(task).to_string(),
            phase,
            reason,
            message: message.clone(),
            outputs,
            artifacts,
            tolerated,
            at: now.wall,
        });
        if let Some(message) = message
            && own
            && !tolerated
        {
            let failures = if self.is_finally(task) { &mut self.finally_failures } else { &mut self.failures };
            failures.add(message);
            if self.pipeline.spec.fail_fast && !self.is_finally(task) {
                let message = format!("task {} failed, and failFast is set", self.tasks.name(task));
                self.stop_tasks(now, Stop { reason: Reason::CANCELLED, message });
            }
        }
        self.ended.push_back((task, outcome));
        self.let_next_in(task);
    }

    /// Ends a task that never ran and never will. One that its own `when` leaves out passes what follows it.
    pub(super) fn not_executed(&mut self, now: Now, task: usize, reason: Reason, message: String) {
        let outcome = if reason == Reason::SKIPPED { Outcome::Passed } else { Outcome::NotExecuted };
        self.states[task] = State::Ended(End {
            phase: TaskPhase::NotExecuted,
            reason: Some(reason.clone()),
            exit_code: None,
            outputs: IndexMap::new(),
        });
        if self.stage_tasks().contains(&task) {
            self.open -= 1;
        }
        self.fact(RunEvent::TaskEnded {
            task: self.tasks.name(task).to_string(),
            phase: TaskPhase::NotExecuted,
            reason: Some(reason),
            message: Some(message),
            outputs: IndexMap::new(),
            artifacts: Vec::new(),
            tolerated: false,
            at: now.wall,
        });
        self.ended.push_back((task, outcome));
        self.let_next_in(task);
    }

    /// A task that need not run: it succeeded in the run that this one repeats.
    pub(super) fn reuse(&mut self, now: Now, task: usize, outputs: IndexMap<String, String>) {
        let (phase, reason) = (TaskPhase::Success, Some(Reason::REUSED));
        let end = End { phase, reason: reason.clone(), exit_code: Some(0), outputs: outputs.clone() };
        self.states[task] = State::Ended(end);
        self.open -= 1;
        self.fact(RunEvent::TaskEnded {
            task: self.tasks.name(task).to_string(),
            phase,
            reason,
            message: Some("it succeeded in the run that this one repeats".into()),
            outputs,
            artifacts: Vec::new(),
            tolerated: false,
            at: now.wall,
        });
        self.ended.push_back((task, Outcome::Passed));
    }

    /// Ends a task for good.
    pub(super) fn stop_task(&mut self, now: Now, task: usize, stop: &Stop) {
        match self.states[task] {
            State::Ended(_) => {}
            State::Running(_) => self.stop_step(now, task, StopScope::Task),
            State::Asking(attempt) => {
                // Not asked for yet if it became ready with this very event.
                if !self.ready.remove(&task) {
                    self.out.push(Output::SlotReturned(self.tasks.name(task).to_string()));
                }
                self.stop_idle(now, task, attempt, stop);
            }
            State::Backoff(attempt) => {
                self.timers.clear(Timer::Retry(task));
                self.stop_idle(now, task, attempt, stop);
            }
            State::Approving { .. } => {
                self.timers.clear(Timer::Approval(task));
                self.stop_idle(now, task, 1, stop);
            }
            State::Waiting | State::Held => self.stop_idle(now, task, 1, stop),
        }
    }

    fn stop_idle(&mut self, now: Now, task: usize, attempt: u32, stop: &Stop) {
        if attempt > 1 {
            let message = format!("task {} was not tried again: {}", self.tasks.name(task), stop.message);
            self.end_task(now, task, Some((stop.reason.clone(), message)), None);
        } else {
            self.not_executed(now, task, stop.reason.clone(), stop.message.clone());
        }
    }

    fn stop_step(&mut self, now: Now, task: usize, scope: StopScope) {
        let State::Running(attempt) = &mut self.states[task] else { return };
        attempt.stop = attempt.stop.max(Some(scope));
        match attempt.process {
            Process::Running => {
                attempt.process = Process::Stopping;
                self.timers.clear(Timer::Step(task));
                self.signal(task, Signal::Terminate);
                let spec = self.spec_of(task);
                let grace = spec.grace_period.or(self.pipeline.spec.grace_period).map_or(GRACE_PERIOD, Duration::from);
                self.timers.set(Timer::Grace(task), now.boot + grace);
            }
            Process::Stopping => {}
            Process::Backoff => {
                self.timers.clear(Timer::Retry(task));
                let failure = self.stopped(task);
                self.conclude_step(now, task, failure);
            }
        }
    }

    pub(super) fn step_timed_out(&mut self, now: Now, task: usize) {
        self.stop_step(now, task, StopScope::Step);
    }

    pub(super) fn attempt_timed_out(&mut self, now: Now, task: usize) {
        self.stop_step(now, task, StopScope::Attempt);
    }

    pub(super) fn kill_step(&mut self, task: usize) {
        self.signal(task, Signal::Kill);
    }

    pub(super) fn retry_due(&mut self, now: Now, task: usize) {
        match self.states[task] {
            State::Backoff(attempt) => self.ask_for_slot(task, attempt),
            State::Running(_) => self.run_steps(now, task),
            _ => {}
        }
    }

    fn signal(&mut self, task: usize, signal: Signal) {
        if let Some(id) = self.current_step(task) {
            self.out.push(Output::Signal(id, signal));
        }
    }

    /// The step whose process runs.
    fn current_step(&self, task: usize) -> Option<StepId> {
        let State::Running(attempt) = &self.states[task] else { return None };
        (attempt.process != Process::Backoff).then(|| self.step_id(task, attempt))
    }

    pub(super) fn step_id(&self, task: usize, attempt: &Attempt) -> StepId {
        StepId {
            run: self.name,
            task: self.tasks.name(task).to_string(),
            attempt: attempt.number,
            step: attempt.step,
            step_attempt: attempt.step_attempt,
        }
    }

    /// "step compile of task build".
    fn step_name(&self, task: usize) -> String {
        let name = self.tasks.name(task);
        let State::Running(attempt) = &self.states[task] else { return format!("task {name}") };
        match self.spec_of(task).steps.get(attempt.step) {
            Some(step) => format!("step {} of task {name}", step.name_at(attempt.step)),
            None => format!("task {name}"),
        }
    }
}

/// A duration as people write it.
fn text(duration: Duration) -> xene_schemas::duration::Duration {
    xene_schemas::duration::Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}
