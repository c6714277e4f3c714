//! Approvals: what a person decides about a task is durable here, and said to the run's agent until the fact of it comes.

use xene_schemas::{meta::RunName, run::Run, wire::control::Decision};

use super::{
    Controller,
    event::{Answer, Effects, Refusal},
    rows::Change,
};

/// The tasks of a run that wait for approval and are meant by `task`: itself, or all of its instances.
fn waiting<'r>(run: &'r Run, task: &str) -> impl Iterator<Item = &'r String> {
    let waits = run.status.tasks.iter().filter(|(_, status)| {
        status.approval.as_ref().is_some_and(|approval| approval.approved.is_none()) && !run.status.phase.is_final()
    });
    waits.map(|(name, _)| name).filter(move |name| is_of(name, task))
}

/// True if `name` is `task`, or one of its instances, `task[axis=value]`. An empty one means all.
fn is_of(name: &str, task: &str) -> bool {
    task.is_empty() || name.strip_prefix(task).is_some_and(|rest| rest.is_empty() || rest.starts_with('['))
}

/// What of `decisions` is still to be said.
pub(super) fn retain(decisions: &mut Vec<Decision>, run: &Run) {
    decisions.retain(|decision| waiting(run, &decision.task).next().is_some());
}

impl Controller {
    pub(super) fn approve(&mut self, decision: Decision, fx: &mut Effects) -> Result<Answer, Refusal> {
        let Some(row) = self.runs.get_mut(&decision.run) else { return Err(self.no_such_run(decision.run)) };
        if !row.run.status.tasks.is_empty() && !row.run.status.tasks.keys().any(|name| is_of(name, &decision.task)) {
            return Err(Refusal::NotFound { kind: "task", name: decision.task });
        }
        if waiting(&row.run, &decision.task).next().is_none() {
            let others: Vec<String> = waiting(&row.run, "").cloned().collect();
            return Err(Refusal::NotWaiting { run: decision.run, task: decision.task, others });
        }
        match row.decisions.iter().find(|known| known.task == decision.task) {
            // Said already; its agent has not told yet.
            Some(known) if known.approved == decision.approved => return Ok(Answer::Done),
            Some(known) => {
                let (by, approved) = (known.by.clone(), known.approved);
                return Err(Refusal::Decided { run: decision.run, task: decision.task, by, approved });
            }
            None => {}
        }
        let run = decision.run;
        row.decisions.push(decision);
        fx.commit.push(Change::PutRun(Box::new(row.clone())));
        let agent = row.run.status.agent.clone();
        self.to_start.extend(agent.map(|agent| (agent, run)));
        Ok(Answer::Done)
    }

    /// Why nothing can be asked of a run that is not under way.
    pub(super) fn no_such_run(&self, run: RunName) -> Refusal {
        let ended = self.ended.values().any(|runs| runs.iter().any(|ended| ended.name == run));
        if ended { Refusal::Ended(run) } else { Refusal::NotFound { kind: "run", name: run.to_string() } }
    }
}
