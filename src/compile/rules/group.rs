//! Groups of `concurrency`: what their pipelines ask of each other can be had, within a workflow and across files.

use std::collections::{BTreeMap, HashMap};

use xene_schemas::{
    diagnostic::Diagnostic, map::UniqueMap, meta::Name, pipeline::PipelineSpec, workflow::WorkflowSpec,
};

use super::{Path, Report, Rule, each_pipeline};
use crate::compile::{outline::Position, parse::diagnostic};

pub(super) const GROUP_MAX: Rule =
    rule!(Warning "XE0090", "pipelines of a group disagree", "write the same `max` in all of them");
pub(super) const GROUP_LABELS: Rule = rule!(Error "XE0091", "no agent could have a group", "let their labels agree");

pub(super) fn check(spec: &WorkflowSpec, report: &mut Report) {
    let mut first: HashMap<&Name, (&Name, u32)> = HashMap::new();
    let mut labels: HashMap<(&Name, &str), (&Name, &str)> = HashMap::new();
    each_pipeline(spec, |at: &Path<'_>, name, pipeline| {
        let concurrency = &pipeline.concurrency;
        let Some(group) = &concurrency.group else { return };
        let (other, max) = *first.entry(group).or_insert((name, concurrency.max));
        if max != concurrency.max {
            let message = format!(
                "`max` of group `{group}` is {} here and {max} in pipeline `{other}`: the smallest counts",
                concurrency.max
            );
            let concurrency = at.key("concurrency");
            report.add(&GROUP_MAX, &concurrency, message).hint("write the same `max` in each of them".to_owned());
        }
        for (label, value) in &pipeline.agents.labels {
            let (other, theirs) = *labels.entry((group, label)).or_insert((name, value));
            if theirs != value {
                let message = format!(
                    "group `{group}` goes to one agent, and pipeline `{other}` wants it to have {label}={theirs}"
                );
                let agents = at.key("agents");
                let at = agents.key("labels");
                report
                    .add(&GROUP_LABELS, &at.key(label), message)
                    .hint("ask for the same labels, or take one of them out of the group".to_owned());
            }
        }
    });
}

/// A pipeline that names a group.
#[derive(Debug, Clone)]
pub(in crate::compile) struct Member {
    group: Name,
    pipeline: Name,
    max: u32,
    labels: UniqueMap<String, String>,
}

/// The pipelines of a workflow that name groups.
pub(in crate::compile) fn members(spec: &WorkflowSpec) -> Vec<Member> {
    let member = |(name, pipeline): (&Name, &PipelineSpec)| {
        let group = pipeline.concurrency.group.clone()?;
        let labels = pipeline.agents.labels.clone();
        Some(Member { group, pipeline: name.clone(), max: pipeline.concurrency.max, labels })
    };
    spec.pipelines.iter().filter_map(member).collect()
}

/// A workflow with pipelines that name groups.
#[derive(Debug, Clone, Copy)]
pub(in crate::compile) struct Grouped<'a> {
    pub(in crate::compile) workflow: &'a Name,
    pub(in crate::compile) path: &'a str,
    pub(in crate::compile) line: u32,
    pub(in crate::compile) members: &'a [Member],
}

/// What pipelines of one workflow ask of those of another by a group. Problems stand where a workflow's document
/// begins, since only that is known of one that was read long ago; each is held against the first that names the group.
pub(in crate::compile) fn across<'a>(workflows: impl Iterator<Item = Grouped<'a>>) -> Vec<Diagnostic> {
    let mut first: BTreeMap<&Name, (&Name, &Member)> = BTreeMap::new();
    let mut labels: BTreeMap<(&Name, &str), (&Name, &Name, &str)> = BTreeMap::new();
    let mut problems = Vec::new();
    for Grouped { workflow, path, line, members } in workflows {
        let mut report = |rule, message, hint: &str| {
            problems.push(diagnostic(path, rule, Position { line, column: 1 }, message, Some(hint.to_owned())));
        };
        for member in members {
            let Member { group, pipeline, max, labels: ours } = member;
            let (of, other) = *first.entry(group).or_insert((workflow, member));
            if of != workflow && other.max != *max {
                let message = format!(
                    "`max` of group `{group}` is {max} in pipeline `{pipeline}` and {} in `{of}/{}`: the smallest counts",
                    other.max, other.pipeline
                );
                report(&GROUP_MAX, message, "write the same `max` in each of them");
            }
            for (label, value) in ours {
                let (of, other, theirs) = *labels.entry((group, label)).or_insert((workflow, pipeline, value));
                if of != workflow && theirs != value {
                    let message = format!(
                        "group `{group}` goes to one agent: pipeline `{pipeline}` wants it to have {label}={value}, \
                         and `{of}/{other}` {label}={theirs}"
                    );
                    report(&GROUP_LABELS, message, "ask for the same labels, or take one of them out of the group");
                }
            }
        }
    }
    problems
}
