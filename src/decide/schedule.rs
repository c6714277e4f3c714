//! Placement: which agent gets a pipeline, and why this one, or why none.

use std::collections::{BTreeMap, BTreeSet};

use indexmap::IndexMap;
use xene_agent::decide::time::Now;
use xene_schemas::{
    map::UniqueMap,
    meta::{AgentName, Labels, Name, PipelineKey},
    phase::Reason,
    plan::PlannedPlacement,
    why::{Considered, Verdict},
};

use super::{Controller, agents::AgentState, preview::ToPlace, rows::AgentRow};

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

/// The labels of those asked for that an agent lacks.
fn missing(asked: &UniqueMap<String, String>, labels: &Labels) -> Vec<(String, String)> {
    let lacks = asked.iter().filter(|(label, value)| labels.get(*label) != Some(value));
    lacks.map(|(label, value)| (label.clone(), value.clone())).collect()
}

/// How many pipelines an agent owns or is about to be given, on how many slots.
#[derive(Debug, Clone, Copy)]
struct Load {
    pipelines: u64,
    slots: u64,
}

impl Load {
    /// Fewer pipelines per slot.
    fn is_less_than(self, other: Self) -> bool {
        self.pipelines * other.slots < other.pipelines * self.slots
    }
}

/// Pipelines that agents are about to be given, beside those that they own.
type Planned = BTreeMap<AgentName, u64>;

impl Controller {
    /// Chooses: all labels, fewest pipelines per slot, then by name; with `only`, that agent or none. Costs one look at
    /// each agent.
    pub(super) fn choose(
        &self,
        asked: &[&UniqueMap<String, String>],
        except: Option<&AgentName>,
        only: Option<&AgentName>,
    ) -> Placement {
        self.choose_after(&Planned::new(), asked, except, only)
    }

    fn choose_after(
        &self,
        planned: &Planned,
        asked: &[&UniqueMap<String, String>],
        except: Option<&AgentName>,
        only: Option<&AgentName>,
    ) -> Placement {
        let mut best: Option<(&AgentName, Load)> = None;
        let mut unavailable = Vec::new();
        for (name, agent) in &self.agents {
            let fits = |row: &&AgentRow| asked.iter().all(|asked| matches(asked, &row.labels));
            let Some(row) = agent.row.as_ref().filter(fits) else { continue };
            if Some(name) == except || only.is_some_and(|only| only != name) {
                continue;
            }
            let load = load(agent, planned.get(name).copied().unwrap_or_default());
            if let Some(verdict) = agent.unavailable(row) {
                unavailable.push(format!("{name} ({})", word(verdict)));
            } else if best.is_none_or(|(_, best)| load.is_less_than(best)) {
                best = Some((name, load));
            }
        }
        let labels = describe(asked);
        match (best, only) {
            (Some((name, _)), Some(_)) => {
                Placement::Agent(name.clone(), format!("{name} has {labels}and the rest of its group"))
            }
            (Some((name, load)), None) => {
                let Load { pipelines, slots } = load;
                let message = format!("{name} has {labels}and the fewest pipelines per slot: {pipelines} on {slots}");
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

    /// Where pipelines would go if they took effect now, one after the other in this order, and `removed` ones went.
    pub fn preview(
        &self,
        pipelines: &[ToPlace],
        removed: &BTreeSet<PipelineKey>,
    ) -> BTreeMap<PipelineKey, PlannedPlacement> {
        let mut planned = Planned::new();
        let mut groups: BTreeMap<&Name, Option<AgentName>> = BTreeMap::new();
        let mut placements = BTreeMap::new();
        for ToPlace { key, labels, group } in pipelines {
            let owner = self.owners.get(key).map(|owned| &owned.row);
            let before = owner.and_then(|row| row.owner.clone());
            let members = group.as_ref().map(|group| self.members_after(group, pipelines, removed));
            let asked: Vec<_> = match &members {
                Some(members) => members.values().copied().filter(|labels| !labels.is_empty()).collect(),
                None => vec![labels],
            };
            let only = group.as_ref().zip(members.as_ref()).and_then(|(group, members)| {
                groups.entry(group).or_insert_with(|| self.keeper(members, &asked)).clone()
            });
            let agent = before.as_ref().and_then(|agent| self.agents.get(agent)?.row.as_ref());
            let fits = agent.is_some_and(|row| asked.iter().all(|asked| matches(asked, &row.labels)));
            if fits && (only.is_none() || only == before) {
                let message = owner.map(|row| row.message.clone()).unwrap_or_default();
                let reason = owner.and_then(|row| row.reason.clone());
                placements
                    .insert(key.clone(), PlannedPlacement { before: before.clone(), after: before, reason, message });
                continue;
            }
            let except = before.as_ref().filter(|_| only.is_none());
            let (after, reason, message) = match self.choose_after(&planned, &asked, except, only.as_ref()) {
                Placement::Agent(agent, message) => {
                    *planned.entry(agent.clone()).or_default() += 1;
                    (Some(agent), None, message)
                }
                Placement::Nowhere(reason, message) => (None, Some(reason), together(message, group.as_ref())),
            };
            if let (Some(group), Some(agent)) = (group, &after) {
                groups.insert(group, Some(agent.clone()));
            }
            placements.insert(key.clone(), PlannedPlacement { before, after, reason, message });
        }
        placements
    }

    /// The pipelines that a group would have, and the labels that they ask for.
    fn members_after<'a>(
        &'a self,
        group: &Name,
        pipelines: &'a [ToPlace],
        removed: &BTreeSet<PipelineKey>,
    ) -> BTreeMap<&'a PipelineKey, &'a UniqueMap<String, String>> {
        let of_group = |pipeline: &&ToPlace| pipeline.group.as_ref() == Some(group);
        let stays =
            |key: &&PipelineKey| !removed.contains(*key) && !pipelines.iter().any(|pipeline| pipeline.key == **key);
        let staying = self.groups.get(group).into_iter().flatten().filter(stays);
        let staying = staying.filter_map(|key| Some((key, &self.pipelines.get(key)?.labels)));
        let placed = pipelines.iter().filter(of_group).map(|pipeline| (&pipeline.key, &pipeline.labels));
        staying.chain(placed).collect()
    }

    /// The agent that would keep what it has of a group, and be given the rest: the last one that nobody outlasts.
    fn keeper(
        &self,
        members: &BTreeMap<&PipelineKey, &UniqueMap<String, String>>,
        asked: &[&UniqueMap<String, String>],
    ) -> Option<AgentName> {
        members.keys().rev().find_map(|key| {
            let row = self.owners.get(*key).map(|owned| &owned.row).filter(|row| !row.revoking && !row.void)?;
            let owner = row.owner.as_ref()?;
            let labels = &self.agents.get(owner)?.row.as_ref()?.labels;
            asked.iter().all(|asked| matches(asked, labels)).then(|| owner.clone())
        })
    }

    /// Every agent, and what speaks for or against its having a pipeline.
    pub fn consider(&self, now: Now, key: &PipelineKey) -> Vec<Considered> {
        if !self.pipelines.contains_key(key) {
            return Vec::new();
        }
        let owner = self.owners.get(key).and_then(|owned| owned.row.owner.as_ref());
        let asked = self.asked_labels(key);
        let next = match self.choose(&asked, owner, None) {
            Placement::Agent(agent, _) => Some(agent),
            Placement::Nowhere(..) => None,
        };
        let known = self.agents.iter().filter_map(|(name, agent)| Some((name, agent, agent.row.as_ref()?)));
        known
            .map(|(name, agent, row)| {
                let missing: IndexMap<_, _> = asked.iter().flat_map(|asked| missing(asked, &row.labels)).collect();
                let unavailable = agent.unavailable(row);
                let verdict = if owner == Some(name) {
                    Verdict::Owner
                } else if !missing.is_empty() {
                    Verdict::MissingLabels
                } else if let Some(verdict) = unavailable {
                    verdict
                } else if next.as_ref() == Some(name) {
                    Verdict::Next
                } else {
                    Verdict::MoreLoaded
                };
                let Load { pipelines, slots } = load(agent, 0);
                let on = format!("{pipelines} pipelines on {slots} slots");
                let message = match verdict {
                    Verdict::Owner => match unavailable {
                        Some(verdict) => format!("it has the pipeline; {}", state(verdict)),
                        None => "it has the pipeline".into(),
                    },
                    Verdict::Next if owner.is_some() => format!("it would be next: {on}"),
                    Verdict::Next => format!("it has what it takes, and the fewest pipelines per slot: {on}"),
                    Verdict::MoreLoaded => format!("it has more pipelines per slot: {on}"),
                    Verdict::MissingLabels => {
                        let lacks = missing.iter().map(|(label, value)| match row.labels.get(label) {
                            Some(has) => format!("{label}={value} (it has {has})"),
                            None => format!("{label}={value}"),
                        });
                        format!("it lacks {}", lacks.collect::<Vec<_>>().join(", "))
                    }
                    Verdict::Disconnected | Verdict::Draining | Verdict::Revoked | Verdict::ClockSkew => state(verdict),
                };
                Considered {
                    agent: name.clone(),
                    verdict,
                    missing,
                    since: agent.last_seen(now).filter(|_| agent.session.is_none()),
                    pipelines: u32::try_from(pipelines).unwrap_or(u32::MAX),
                    slots: u32::try_from(slots).unwrap_or(u32::MAX),
                    message,
                }
            })
            .collect()
    }
}

/// Why there is no agent, with what holds for all of a group.
pub(super) fn together(message: String, group: Option<&Name>) -> String {
    match group {
        Some(group) => format!("{message}; all pipelines of group {group} go to one agent"),
        None => message,
    }
}

fn load(agent: &AgentState, planned: u64) -> Load {
    Load { pipelines: agent.owned.len() as u64 + planned, slots: u64::from(agent.slots()) }
}

/// Why an agent gets nothing new, in a sentence.
fn state(verdict: Verdict) -> String {
    if verdict == Verdict::ClockSkew { word(verdict).into() } else { format!("it is {}", word(verdict)) }
}

/// The same in a word or two.
fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Revoked => "revoked",
        Verdict::Draining => "draining",
        Verdict::Disconnected => "disconnected",
        Verdict::ClockSkew => "its clock is wrong",
        Verdict::Owner | Verdict::Next | Verdict::MoreLoaded | Verdict::MissingLabels => "available",
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
