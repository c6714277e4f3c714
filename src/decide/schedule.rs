//! Placement: which agent gets a pipeline, and why this one, or why none.

use std::fmt::Write as _;

use xene_schemas::{
    map::UniqueMap,
    meta::{AgentName, Labels},
    phase::Reason,
};

use super::{Controller, agents::AgentState};

/// Where a pipeline goes, with the reason in a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Placement {
    /// To this agent.
    Agent(AgentName, String),
    /// Nowhere.
    Nowhere(Reason, String),
}

/// True if an agent with these labels has all that are asked for.
pub(super) fn matches(asked: &UniqueMap<String, String>, labels: &Labels) -> bool {
    asked.iter().all(|(label, value)| labels.get(label) == Some(value))
}

impl Controller {
    /// Chooses: all labels, fewest pipelines per slot, then by name. Costs one look at each agent.
    pub(super) fn choose(&self, labels: &UniqueMap<String, String>, except: Option<&AgentName>) -> Placement {
        let mut best: Option<(&AgentName, &AgentState)> = None;
        let mut unavailable = Vec::new();
        for (name, agent) in &self.agents {
            let Some(row) = agent.row.as_ref().filter(|row| matches(labels, &row.labels)) else { continue };
            if Some(name) == except {
                continue;
            }
            if let Some(why) = agent.unavailable(row) {
                unavailable.push(format!("{name} ({why})"));
            } else if best.is_none_or(|(_, best)| agent.is_less_loaded(best)) {
                best = Some((name, agent));
            }
        }
        let asked = describe(labels);
        match best {
            Some((name, agent)) => {
                let (owned, slots) = (agent.owned.len(), agent.slots());
                let message = format!("{name} has {asked}and the fewest pipelines per slot: {owned} on {slots}");
                Placement::Agent(name.clone(), message)
            }
            None if unavailable.is_empty() => {
                Placement::Nowhere(Reason::NO_MATCHING_AGENT, format!("no agent has {asked}").trim_end().to_owned())
            }
            None => {
                let agents = unavailable.join(", ");
                Placement::Nowhere(Reason::NO_AGENT_AVAILABLE, format!("not available: {agents}"))
            }
        }
    }
}

/// `the labels gpu=yes, os=linux `, or nothing that needs saying.
fn describe(labels: &UniqueMap<String, String>) -> String {
    if labels.is_empty() {
        return "what it takes ".into();
    }
    let mut text = String::from("the labels");
    for (at, (label, value)) in labels.iter().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        let _ = write!(text, "{comma} {label}={value}");
    }
    text.push(' ');
    text
}
