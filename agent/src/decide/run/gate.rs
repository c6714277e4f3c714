//! What lets a task begin: its connectors, its `when`, someone's consent, a place among the instances of its matrix.

use std::time::Duration;

use xene_schemas::connector::{Approval, Connector, OnTimeout};

use super::{Now, Outcome, Reason, RunEvent, RunMachine, State, Timer, dag::Edge};

impl RunMachine {
    /// Settles one connector: the upstream task has ended.
    pub(super) fn pass(&mut self, now: Now, (from, outcome): (usize, Outcome), edge: Edge, to: usize) {
        let instances = self.tasks.siblings(from);
        if let Some(index) = edge.of_failures().filter(|_| instances.len() > 1) {
            return self.gather(now, (from, outcome), index, to);
        }
        let upstream = self.tasks.name(from);
        if let Err(how) = edge.takes(outcome) {
            let message = format!("upstream task {upstream} {how}");
            return self.not_executed(now, to, Reason::UPSTREAM_FAILED, message);
        }
        let connector = edge.connector.and_then(|index| self.pipeline.spec.connectors.get(index));
        if let Some(when) = connector.and_then(|connector| connector.when.as_ref()) {
            match self.holds(when, to, Some(from)) {
                Ok(true) => {}
                Ok(false) => {
                    let message = format!("the `when` of its connector from task {upstream} is false");
                    return self.not_executed(now, to, Reason::UPSTREAM_FAILED, message);
                }
                Err(why) => {
                    let what = format!("the `when` of the connector from task {upstream}");
                    return self.expr_failed(now, to, &what, &why);
                }
            }
        }
        if self.dag.release(to) {
            self.connected(now, to);
        }
    }

    /// One instance of a matrix has ended, before a connector that takes failures: once all have, one that failed is enough.
    fn gather(&mut self, now: Now, (from, outcome): (usize, Outcome), index: usize, to: usize) {
        let instances = self.tasks.siblings(from);
        let when = self.pipeline.spec.connectors.get(index).and_then(|connector| connector.when.as_ref());
        let passes = match when {
            _ if outcome != Outcome::Failed => false,
            None => true,
            Some(when) => match self.holds(when, to, Some(from)) {
                Ok(holds) => holds,
                Err(why) => {
                    let what = format!("the `when` of the connector from task {}", self.tasks.name(from));
                    return self.expr_failed(now, to, &what, &why);
                }
            },
        };
        let gathering = self.gathering.entry((to, index, instances.start)).or_default();
        gathering.ended += 1;
        gathering.passes |= passes;
        if gathering.ended < instances.len() {
            return;
        }
        if !gathering.passes {
            let message = format!(
                "no instance of upstream task {} failed so that its connector passes",
                self.tasks.name_of_file(from)
            );
            return self.not_executed(now, to, Reason::UPSTREAM_FAILED, message);
        }
        for _ in instances {
            if self.dag.release(to) {
                self.connected(now, to);
            }
        }
    }

    fn expr_failed(&mut self, now: Now, task: usize, what: &str, why: &str) {
        let message = format!("task {} can't be run: {what} has no value: {why}", self.tasks.name(task));
        self.end_task(now, task, Some((Reason::EXPR_FAILED, message)), None);
    }

    /// All connectors of a task have passed. Nobody is asked to approve what its own `when` leaves out.
    pub(super) fn connected(&mut self, now: Now, task: usize) {
        if let Some(when) = &self.spec_of(task).when {
            match self.holds(when, task, None) {
                Ok(true) => {}
                Ok(false) => {
                    return self.not_executed(now, task, Reason::SKIPPED, "its `when` is false".into());
                }
                Err(why) => return self.expr_failed(now, task, "its `when`", &why),
            }
        }
        let Some(asked) = Asked::of(&self.dag.connectors(task, &self.pipeline.spec)) else {
            return self.want_slot(task);
        };
        self.states[task] = State::Approving { silence: asked.silence };
        if let Some(timeout) = asked.timeout {
            self.timers.set(Timer::Approval(task), now.boot + timeout);
        }
        self.fact(RunEvent::ApprovalWanted {
            task: self.tasks.name(task).to_owned(),
            message: asked.message,
            until: asked.timeout.and_then(|timeout| now.wall.checked_add(timeout).ok()),
            at: now.wall,
        });
    }

    /// Someone has decided on this task, or on all instances of it.
    pub(super) fn decided_by(&mut self, now: Now, name: &str, approved: bool, by: &str) {
        let tasks = match self.tasks.find(name) {
            Some(task) => task..task + 1,
            None => self.tasks.of_name(name).map_or(0..0, |of| self.tasks.members(of).0),
        };
        for task in tasks {
            if matches!(self.states[task], State::Approving { .. }) {
                self.decided(now, task, approved, by, format!("rejected by {by}"));
            }
        }
    }

    pub(super) fn approval_timed_out(&mut self, now: Now, task: usize) {
        if let State::Approving { silence } = self.states[task] {
            self.decided(now, task, silence, "timeout", "nobody approved it in time".into());
        }
    }

    fn decided(&mut self, now: Now, task: usize, approved: bool, by: &str, rejection: String) {
        self.timers.clear(Timer::Approval(task));
        let name = self.tasks.name(task).to_owned();
        self.fact(RunEvent::ApprovalDecided { task: name, approved, by: by.to_owned(), at: now.wall });
        if approved {
            self.want_slot(task);
        } else {
            if !self.spec_of(task).allow_failure {
                let sentence = || format!("task {}: {rejection}", self.tasks.name(task));
                self.rejection.get_or_insert_with(sentence);
            }
            self.not_executed(now, task, Reason::REJECTED, rejection);
        }
    }

    /// Nothing holds the task any more, but for a slot and `maxParallel`.
    fn want_slot(&mut self, task: usize) {
        let busy = self.tasks.siblings(task).filter(|sibling| self.admitted[*sibling]).count();
        if self.tasks.max_parallel(task).is_some_and(|max| busy >= max) {
            self.states[task] = State::Held;
        } else {
            self.admitted[task] = true;
            self.ask_for_slot(task, 1);
        }
    }

    /// A task has ended: the next instance of its matrix that is held takes its place.
    pub(super) fn let_next_in(&mut self, task: usize) {
        // Of tasks that are stopped together, one must not call the next.
        if std::mem::take(&mut self.admitted[task])
            && self.stop.is_none()
            && let Some(next) = self.tasks.siblings(task).find(|sibling| matches!(self.states[*sibling], State::Held))
        {
            self.want_slot(next);
        }
    }
}

/// What people are asked before a task: one question, however many connectors ask.
struct Asked {
    message: Option<String>,
    /// The shortest.
    timeout: Option<Duration>,
    /// What silence means: yes if all say so.
    silence: bool,
}

impl Asked {
    fn of(connectors: &[(usize, &Connector)]) -> Option<Self> {
        let approvals: Vec<&Approval> =
            connectors.iter().filter_map(|(_, connector)| connector.approval.as_ref()).collect();
        if approvals.is_empty() {
            return None;
        }
        let mut messages: Vec<&str> = approvals.iter().filter_map(|approval| approval.message.as_deref()).collect();
        messages.dedup();
        Some(Self {
            message: (!messages.is_empty()).then(|| messages.join("; ")),
            timeout: approvals.iter().filter_map(|approval| approval.timeout).min().map(Duration::from),
            silence: approvals.iter().all(|approval| approval.on_timeout == Some(OnTimeout::Approve)),
        })
    }
}
