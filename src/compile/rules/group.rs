//! Groups of `concurrency`, as far as one workflow tells: what its pipelines ask of each other can be had.

use std::collections::HashMap;

use xene_schemas::{meta::Name, workflow::WorkflowSpec};

use super::{Path, Report, Rule, each_pipeline};

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
