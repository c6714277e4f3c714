//! What a run waits for, as the machine sees it now.

use xene_agent::decide::time::Now;
use xene_schemas::{
    meta::{AgentName, RunName},
    phase::{Reason, RunPhase, TaskPhase},
    run::TaskStatus,
    why::{Wait, WaitOn},
};

use super::{Controller, agents::AgentState, rows::RunRow};

/// Of many earlier runs so many are named.
const NAMED: usize = 5;

impl Controller {
    /// What a run waits for; nothing if it has ended, or if nothing holds it up.
    pub fn waits(&self, now: Now, run: RunName) -> Vec<Wait> {
        let Some(row) = self.runs.get(&run) else { return Vec::new() };
        match row.run.status.phase {
            RunPhase::Unknown => vec![Wait {
                agent: row.run.status.agent.clone(),
                until: row.give_up_at,
                reason: Some(Reason::AGENT_LOST),
                ..wait(WaitOn::Report, "its agent is lost, and may still come back and tell".into())
            }],
            RunPhase::StartingUp => self.start_waits(now, row),
            RunPhase::Running | RunPhase::ShuttingDown => self.task_waits(now, row),
            RunPhase::Success | RunPhase::Error => Vec::new(),
        }
    }

    fn start_waits(&self, now: Now, row: &RunRow) -> Vec<Wait> {
        let key = row.run.spec.key();
        let mut waits = self.turn_waits(row);
        let owned = self.owners.get(&key).map(|owned| &owned.row);
        match owned.and_then(|owned| owned.owner.as_ref()) {
            None => waits.push(Wait {
                reason: Some(owned.and_then(|owned| owned.reason.clone()).unwrap_or(Reason::NO_AGENT_AVAILABLE)),
                ..wait(
                    WaitOn::Placement,
                    match owned.filter(|owned| !owned.message.is_empty()) {
                        Some(owned) => format!("no agent has its pipeline: {}", owned.message),
                        None => "no agent has its pipeline".into(),
                    },
                )
            }),
            Some(agent) => match self.away(now, agent) {
                Some(away) => waits.push(away),
                None if waits.is_empty() && row.facts == 0 => waits.push(Wait {
                    agent: Some(agent.clone()),
                    ..wait(WaitOn::Start, format!("{agent} was asked to start it, and has not said so yet"))
                }),
                None => {}
            },
        }
        waits
    }

    /// Earlier runs of the pipeline, if they are as many as may be at once.
    fn turn_waits(&self, row: &RunRow) -> Vec<Wait> {
        let (key, name) = (row.run.spec.key(), row.run.metadata.name);
        let at_once = self.pipelines.get(&key).map_or(1, |pipeline| pipeline.max_runs as usize);
        let order = |row: &RunRow| (row.run.metadata.created_at, row.run.metadata.name);
        // A group of `concurrency` counts as one.
        let members = self.group_members(&key);
        let others = members.iter().filter_map(|member| self.active.get(member)).flatten();
        let others = others.filter(|other| **other != name);
        let others = others.filter_map(|other| self.runs.get(other));
        let earlier: Vec<&RunRow> = others
            .filter(|other| other.run.status.phase != RunPhase::StartingUp || order(other) < order(row))
            .collect();
        if earlier.len() < at_once {
            return Vec::new();
        }
        let named = earlier.iter().take(NAMED).map(|other| {
            let (run, phase) = (other.run.metadata.name, other.run.status.phase);
            Wait {
                run: Some(run),
                since: other.run.status.started_at,
                reason: Some(Reason::QUEUED),
                ..wait(WaitOn::Run, format!("run {run} is {phase}; at most {at_once} of the pipeline run at once"))
            }
        });
        named.collect()
    }

    fn task_waits(&self, now: Now, row: &RunRow) -> Vec<Wait> {
        let status = &row.run.status;
        let mut waits = Vec::new();
        let Some(agent) = &status.agent else { return waits };
        waits.extend(self.away(now, agent));
        let state = self.agents.get(agent);
        // What it last said of itself may be older than what its runs have told.
        let busy = |state: &AgentState| state.busy.max(self.running_on(agent));
        let full = state.filter(|state| state.session.is_some() && busy(state) >= state.slots());
        for (name, task) in &status.tasks {
            let done = |upstream: &String| status.tasks.get(upstream).is_some_and(|up| up.phase == TaskPhase::Success);
            let ready = is_waiting(task) && task.dependencies.iter().all(done);
            if let Some(state) = full.filter(|_| ready && task.reason.is_none() && !task.finally) {
                let slots = state.slots();
                waits.push(Wait {
                    agent: Some(agent.clone()),
                    task: Some(name.clone()),
                    ..wait(
                        WaitOn::Slots,
                        format!("task {name} waits for one of the {slots} slots of {agent}: all are taken"),
                    )
                });
            } else if let (true, Some(reason)) = (is_waiting(task), &task.reason) {
                let message = task.message.clone().unwrap_or_else(|| format!("task {name}: {reason}"));
                waits.push(Wait {
                    task: Some(name.clone()),
                    reason: Some(reason.clone()),
                    ..wait(WaitOn::Task, message)
                });
            }
        }
        waits
    }

    /// The tasks that an agent runs, as far as it has told.
    fn running_on(&self, agent: &AgentName) -> u32 {
        let runs = self.active.values().flatten().filter_map(|run| self.runs.get(run));
        let here = runs.filter(|row| row.run.status.agent.as_ref() == Some(agent));
        let tasks = here.flat_map(|row| row.run.status.tasks.values());
        u32::try_from(tasks.filter(|task| task.phase == TaskPhase::Running).count()).unwrap_or(u32::MAX)
    }

    /// The agent, if it is not connected.
    fn away(&self, now: Now, agent: &AgentName) -> Option<Wait> {
        let state = self.agents.get(agent).filter(|state| state.session.is_none())?;
        Some(Wait {
            agent: Some(agent.clone()),
            since: state.last_seen(now),
            ..wait(WaitOn::Agent, format!("{agent} is not connected"))
        })
    }
}

/// Not begun, and not settled that it never will.
fn is_waiting(task: &TaskStatus) -> bool {
    task.phase == TaskPhase::NotExecuted && task.finished_at.is_none()
}

fn wait(on: WaitOn, message: String) -> Wait {
    Wait { on, run: None, agent: None, task: None, since: None, until: None, reason: None, message }
}
