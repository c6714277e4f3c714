//! Triggers: known, used, and with a schedule that fires.

use std::collections::HashSet;

use xene_agent::decide::cron::Schedule;
use xene_schemas::{
    meta::Name,
    trigger::{Cron, Trigger},
    workflow::WorkflowSpec,
};

use super::{Path, Report, Rule, each_pipeline, schedule, suggest};

pub(super) const UNKNOWN_TRIGGER: Rule =
    rule!(Error "XE0030", "unknown trigger", "declare it under `triggers` of the workflow");
pub(super) const UNUSED_TRIGGER: Rule =
    rule!(Warning "XE0031", "unused trigger", "name it in `triggers` of a pipeline, or take it out");
pub(super) const BAD_SCHEDULE: Rule = rule!(Error "XE0032", "bad schedule", "`xene cron` shows what a schedule does");

pub(super) fn check(spec: &WorkflowSpec, report: &mut Report) {
    let mut used: HashSet<&Name> = HashSet::new();
    each_pipeline(spec, |at, _, pipeline| {
        let at = at.key("triggers");
        for (index, name) in pipeline.triggers.0.iter().enumerate() {
            if let Some((known, _)) = spec.triggers.get_key_value(name) {
                used.insert(known);
                continue;
            }
            let hint = suggest(name.as_str(), spec.triggers.keys().map(Name::as_str))
                .unwrap_or_else(|| "declare it in `spec.triggers`".into());
            report.add(&UNKNOWN_TRIGGER, &at.index(index), format!("this workflow has no trigger `{name}`")).hint(hint);
        }
    });
    let root = Path::ROOT.key("spec");
    let triggers = root.key("triggers");
    for (name, trigger) in &spec.triggers {
        let at = triggers.key(name.as_str());
        if !used.contains(name) {
            let message = format!("no pipeline names trigger `{name}`: it starts nothing");
            report.add(&UNUSED_TRIGGER, &at, message).at_key().hint(format!("add `triggers: {name}` to a pipeline"));
        }
        match trigger {
            Trigger::Webhook(_) => {}
            Trigger::Cron(cron) => {
                if let Err(reason) = check_schedule(cron) {
                    let of_zone = cron.time_zone.as_ref().is_some_and(|zone| reason.contains(&format!("{zone:?}")));
                    report.add(&BAD_SCHEDULE, &at.key(if of_zone { "timeZone" } else { "schedule" }), reason);
                } else {
                    schedule::check(report, &at, cron);
                }
            }
        }
    }
}

/// Asks the one reader of schedules, the agent's.
fn check_schedule(cron: &Cron) -> Result<(), String> {
    Schedule::parse(cron).map(drop).map_err(|error| error.to_string())
}
