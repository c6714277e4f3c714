//! What is worth telling: transitions, each seen where its rows are written, and told of in the same commit.
//!
//! What was told is what the rows said before, so neither a restart nor a fact that comes twice tells it again.

use std::collections::BTreeSet;

use xene_agent::decide::time::Now;
use xene_schemas::{
    meta::AgentName,
    notifier::{Notice, Transition},
    phase::RunPhase,
    run::Run,
};

use super::{
    Controller,
    event::Effects,
    rows::{Change, EndedRun, RunRow},
};

/// Longer texts are cut, in bytes.
const LONGEST: usize = 1_000;

/// What the rows of a run that has not ended say, as far as it was told.
#[derive(Debug)]
pub(super) struct Told {
    phase: RunPhase,
    /// The tasks that wait for approval.
    waiting: BTreeSet<String>,
}

impl Told {
    fn of(run: &Run) -> Self {
        Self { phase: run.status.phase, waiting: waiting(run).map(|(name, _)| name.clone()).collect() }
    }
}

/// The tasks of a run that wait for approval, and what a person is asked.
fn waiting(run: &Run) -> impl Iterator<Item = (&String, &xene_schemas::run::ApprovalStatus)> {
    let waits = run.status.tasks.iter().filter_map(|(name, task)| Some((name, task.approval.as_ref()?)));
    waits.filter(|(_, approval)| approval.approved.is_none() && !run.status.phase.is_final())
}

/// A text that is not too long.
fn short(text: &str) -> String {
    let end = text.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= LONGEST).last();
    let short = &text[..end.unwrap_or(0)];
    if short.len() < text.len() { format!("{short}…") } else { short.to_owned() }
}

/// What is told of a run whatever happens to it.
fn of_run(now: Now, transition: Transition, row: &RunRow) -> Notice {
    let (run, status) = (&row.run, &row.run.status);
    let regarding = format!("run/{}", run.metadata.name);
    // A run is in a phase once, but that it may be lost and found more than once, with facts in between.
    let id = format!("{regarding}/{transition}/{}", row.facts);
    let trigger = &run.spec.trigger;
    let named = trigger.name.as_ref().map(|name| format!(" {name}"));
    Notice {
        run: Some(run.metadata.name),
        workflow: Some(run.spec.workflow.clone()),
        pipeline: Some(run.spec.pipeline.clone()),
        revision: Some(run.spec.revision.clone()),
        trigger: Some(format!("{}{}", trigger.kind.as_str(), named.unwrap_or_default())),
        phase: Some(status.phase),
        reason: status.reason.clone(),
        message: status.message.as_deref().map(short),
        agent: status.agent.clone(),
        started_at: status.started_at,
        finished_at: status.finished_at,
        ..Notice::new(transition, regarding, id, now.wall)
    }
}

/// Whether a run ended otherwise than the one that ended before it. Those that were cancelled say nothing.
pub(super) fn edge(before: &[EndedRun], ended: &EndedRun) -> Option<Transition> {
    // Of several in one second, the one that was made last: so it is after a restart, too.
    let place = |run: &EndedRun| (run.finished_at, run.name);
    let judged = before.iter().filter(|other| !other.cancelled && other.name != ended.name);
    let before = judged.max_by_key(|run| place(run))?;
    if ended.cancelled || place(before) > place(ended) || before.success == ended.success {
        return None;
    }
    Some(if ended.success { Transition::Recovered } else { Transition::Broken })
}

impl Controller {
    /// What the store says of a run was told before.
    pub(super) fn load_told(&mut self, run: &Run) {
        self.told.insert(run.metadata.name, Told::of(run));
    }

    /// Tells of the runs that are about to be written.
    pub(super) fn tell_runs(&mut self, now: Now, fx: &mut Effects) {
        let mut notices = Vec::new();
        for change in &fx.commit {
            if let Change::PutRun(row) = change {
                self.notice_run(now, row, &mut notices);
            }
        }
        // Of runs whose rows are not written.
        self.edges.clear();
        for notice in notices {
            self.announce(now, &notice, fx);
        }
    }

    fn notice_run(&mut self, now: Now, row: &RunRow, notices: &mut Vec<Notice>) {
        let (run, name) = (&row.run, row.run.metadata.name);
        let told =
            if run.status.phase.is_final() { self.told.remove(&name) } else { self.told.insert(name, Told::of(run)) };
        if told.as_ref().is_none_or(|told| told.phase != run.status.phase) {
            notices.push(of_run(now, run.status.phase.into(), row));
        }
        for (task, approval) in waiting(run) {
            if told.as_ref().is_some_and(|told| told.waiting.contains(task)) {
                continue;
            }
            let mut notice = of_run(now, Transition::WaitingForApproval, row);
            let at = approval.wanted_at.as_millisecond();
            notice.id = format!("{}/{}/{task}/{at}", notice.regarding, notice.transition);
            notice.task = Some(short(task));
            notice.message = approval.message.as_deref().map(short);
            notices.push(notice);
        }
        if run.status.phase.is_final()
            && let Some(edge) = self.edges.remove(&name)
        {
            notices.push(of_run(now, edge, row));
        }
    }

    /// The source changed in a way that is told.
    pub(super) fn tell_source(&mut self, now: Now, transition: Transition, message: &str, fx: &mut Effects) {
        let id = format!("source/{transition}/{}", now.wall.as_millisecond());
        let mut notice = Notice::new(transition, "source".into(), id, now.wall);
        notice.revision = self.source.revision().cloned();
        notice.message = Some(short(message));
        self.announce(now, &notice, fx);
    }

    /// A lease of an agent ran out in silence; told once, until it is heard again.
    pub(super) fn agent_lost(&mut self, now: Now, agent: &AgentName, fx: &mut Effects) {
        let message = "it was silent until a lease of it ran out";
        self.mark_lost(now, agent, true, message, fx);
    }

    /// An agent is heard.
    pub(super) fn agent_heard(&mut self, now: Now, agent: &AgentName, fx: &mut Effects) {
        self.mark_lost(now, agent, false, "it is heard again", fx);
    }

    fn mark_lost(&mut self, now: Now, agent: &AgentName, lost: bool, message: &str, fx: &mut Effects) {
        let row = self.agents.get_mut(agent).and_then(|state| state.row.as_mut());
        let Some(row) = row.filter(|row| row.lost != lost && !(lost && row.revoked)) else { return };
        row.lost = lost;
        fx.commit.push(Change::PutAgent(Box::new(row.clone())));
        let transition = if lost { Transition::AgentLost } else { Transition::AgentReturned };
        let regarding = format!("agent/{agent}");
        let id = format!("{regarding}/{transition}/{}", now.wall.as_millisecond());
        let mut notice = Notice::new(transition, regarding, id, now.wall);
        (notice.agent, notice.message) = (Some(agent.clone()), Some(message.to_owned()));
        self.announce(now, &notice, fx);
    }
}
