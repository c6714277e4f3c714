//! Placement: which agent gets a pipeline, and why this one, or why none.

use xene_schemas::{
    map::UniqueMap,
    meta::{AgentName, Labels},
    phase::Reason,
};

use super::{Controller, agents::AgentState, rows::AgentRow};

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
    /// Chooses: all labels, fewest pipelines per slot, then by name; with `only`, that agent or none. Costs one look at
    /// each agent.
    pub(super) fn choose(
        &self,
        asked: &[&UniqueMap<String, String>],
        except: Option<&AgentName>,
        only: Option<&AgentName>,
    ) -> Placement {
        let mut best: Option<(&AgentName, &AgentState)> = None;
        let mut unavailable = Vec::new();
        for (name, agent) in &self.agents {
            let fits = |row: &&AgentRow| asked.iter().all(|asked| matches(asked, &row.labels));
            let Some(row) = agent.row.as_ref().filter(fits) else { continue };
            if Some(name) == except || only.is_some_and(|only| only != name) {
                continue;
            }
            if let Some(why) = agent.unavailable(row) {
                unavailable.push(format!("{name} ({why})"));
            } else if best.is_none_or(|(_, best)| agent.is_less_loaded(best)) {
                best = Some((name, agent));
            }
        }
        let labels = describe(asked);
        match (best, only) {
            (Some((name, _)), Some(_)) => {
                Placement::Agent(name.clone(), format!("{name} has {labels}and the rest of its group"))
            }
            (Some((name, agent)), None) => {
                let (owned, slots) = (agent.owned.len(), agent.slots());
                let message = format!("{name} has {labels}and the fewest pipelines per slot: {owned} on {slots}");
                Placement::Agent(name.clone(), message)
            }
            (None, Some(only)) if unavailable.is_empty() => {
                let message = format!("{only}, which has the rest of its group, has not {labels}");
                Placement::Nowhere(Reason::NO_MATCHING_AGENT, message.trim_end().to_owned())
            }
            (None, None) if unavailable.is_empty() => {
                Placement::Nowhere(Reason::NO_MATCHING_AGENT, format!("no agent has {labels}").trim_end().to_owned())
            }
            (None, _) => {
                let agents = unavailable.join(", ");
                Placement::Nowhere(Reason::NO_AGENT_AVAILABLE, format!("not available: {agents}"))
            }
        }
    }
}

/// `the labels gpu=yes, os=linux `, or nothing that needs saying.
fn describe(asked: &[&UniqueMap<String, String>]) -> String {
    let mut pairs: Vec<String> = Vec::new();
    for (label, value) in asked.iter().copied().flatten() {
        let pair = format!("{label}={value}");
        if !pairs.contains(&pair) {
            pairs.push(pair);
        }
    }
    if pairs.is_empty() { "what it takes ".into() } else { format!("the labels {} ", pairs.join(", ")) }
}
