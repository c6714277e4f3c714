//! How much there is of everything, for those who watch from afar.

use std::collections::BTreeMap;

use xene_agent::decide::time::Now;
use xene_schemas::phase::{AgentPhase, PipelinePhase, Transport};

use super::{Controller, source::LastLook};

/// Counts of what the machine holds now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Agents that have joined.
    pub agents: BTreeMap<AgentPhase, u64>,
    /// Sessions that stand.
    pub sessions: BTreeMap<Transport, u64>,
    /// Tasks that agents run at once, at most.
    pub slots: u64,
    /// Tasks that they run.
    pub busy: u64,
    /// Workflows in effect.
    pub workflows: u64,
    /// Pipelines in effect.
    pub pipelines: BTreeMap<PipelinePhase, u64>,
    /// Claims that agents hold and renew.
    pub leases: u64,
    /// What is suspended by command.
    pub suspended: u64,
    /// Messages of notifiers that wait.
    pub messages: u64,
    /// The last look at the source.
    pub source: LastLook,
}

impl Controller {
    /// What the last look at the source found, which its stored status need not say yet.
    pub fn last_look(&self, now: Now) -> LastLook {
        self.source.last_look(now.wall)
    }

    /// Counts; the work is that of one look at each agent and pipeline.
    pub fn gauges(&self, now: Now) -> Gauges {
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let mut gauges = Gauges {
            workflows: count(self.workflows.len()),
            suspended: count(self.suspensions.len()),
            messages: self.messages_waiting(),
            source: self.last_look(now),
            leases: count(self.owners.values().filter(|owned| owned.claimed && owned.row.owner.is_some()).count()),
            ..Gauges::default()
        };
        for agent in self.agents.values() {
            let Some(row) = &agent.row else { continue };
            *gauges.agents.entry(agent.phase(row)).or_default() += 1;
            if let Some(session) = &agent.session {
                *gauges.sessions.entry(session.transport).or_default() += 1;
                gauges.slots += u64::from(row.slots);
                gauges.busy += u64::from(agent.busy);
            }
        }
        for key in self.pipelines.keys() {
            let owned = self.owners.get(key).is_some_and(|owned| owned.row.owner.is_some());
            let phase = if owned { PipelinePhase::Scheduled } else { PipelinePhase::NotScheduled };
            *gauges.pipelines.entry(phase).or_default() += 1;
        }
        gauges
    }
}
