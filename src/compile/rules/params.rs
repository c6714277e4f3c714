//! Params: declared soundly, and given by triggers as declared.

use std::collections::HashMap;

use xene_schemas::{
    env::Scalar,
    map::UniqueMap,
    meta::Name,
    param::{Param, ParamType},
    pipeline::PipelineSpec,
    trigger::Trigger,
    workflow::WorkflowSpec,
};

use super::{Path, Report, Rule, each_pipeline, file::BAD_NAME, suggest};
use crate::compile::params::{Pattern, check_value, env_name, overlay};

pub(super) const BAD_PARAM: Rule =
    rule!(Error "XE0050", "param declared wrongly", "let the declaration fit itself: `type`, `choices`, `default`");
pub(super) const PARAM_COLLISION: Rule = rule!(Error "XE0051", "params share a variable", "rename one of them");
pub(super) const TRIGGER_PARAM: Rule =
    rule!(Error "XE0052", "trigger gives wrong params", "mend the value, or the declaration of the param");
pub(super) const BAD_PATTERN: Rule = rule!(
    Error "XE0079", "pattern that can't be used",
    "see https://docs.rs/regex/latest/regex/#syntax for what a pattern may hold"
);

pub(super) fn check(spec: &WorkflowSpec, report: &mut Report) {
    let root = Path::ROOT.key("spec");
    declarations(report, &root.key("params"), &spec.params);
    collisions(report, &root.key("params"), [].iter(), spec.params.keys());
    each_pipeline(spec, |at, name, pipeline| {
        let at_params = at.key("params");
        declarations(report, &at_params, &pipeline.params);
        let inherited = spec.params.keys().filter(|name| !pipeline.params.contains_key(*name));
        collisions(report, &at_params, inherited, pipeline.params.keys());
        for (index, trigger) in pipeline.triggers.0.iter().enumerate() {
            let at_name = at.key("triggers");
            given(report, spec, (name, pipeline), trigger, &at_name.index(index));
        }
    });
}

fn declarations(report: &mut Report, at: &Path<'_>, params: &UniqueMap<String, Param>) {
    for (name, param) in params {
        let at = at.key(name);
        if let Err(error) = name.parse::<Name>() {
            report.add(&BAD_NAME, &at, error.to_string()).at_key();
        }
        if let Some(pattern) = &param.pattern
            && let Err(why) = Pattern::new(pattern)
        {
            report.add(&BAD_PATTERN, &at.key("pattern"), why);
            continue;
        }
        let is_choice = param.kind == ParamType::Choice;
        if is_choice && param.choices.is_empty() {
            report.add(&BAD_PARAM, &at, format!("param `{name}` has no `choices` to choose from")).at_key();
        } else if !is_choice && !param.choices.is_empty() {
            report
                .add(&BAD_PARAM, &at.key("choices"), "`choices` belong to `type: choice`")
                .at_key()
                .hint("write `type: choice`".to_owned());
        } else if let Some(default) = &param.default
            && let Err(error) = check_value(name, param, &default.to_string())
        {
            report.add(&BAD_PARAM, &at.key("default"), format!("the default does not fit: {error}"));
        }
    }
}

/// Those of `names` that would share a variable with one of `inherited` or with each other.
fn collisions<'a>(
    report: &mut Report,
    at: &Path<'_>,
    inherited: impl Iterator<Item = &'a String>,
    names: impl Iterator<Item = &'a String>,
) {
    let mut seen: HashMap<String, &String> = inherited.map(|name| (env_name(name), name)).collect();
    for name in names {
        let variable = env_name(name);
        if let Some(other) = seen.get(&variable) {
            let message = format!("params `{other}` and `{name}` would share the variable {variable}");
            report.add(&PARAM_COLLISION, &at.key(name), message).at_key();
        }
        seen.entry(variable).or_insert(name);
    }
}

/// Whether a trigger gives a pipeline what it takes.
fn given(
    report: &mut Report,
    spec: &WorkflowSpec,
    (pipeline_name, pipeline): (&Name, &PipelineSpec),
    trigger_name: &Name,
    at_use: &Path<'_>,
) {
    let Some(trigger) = spec.triggers.get(trigger_name) else { return };
    let declared = overlay(&spec.params, &pipeline.params);
    let nothing = UniqueMap::default();
    let values: &UniqueMap<String, Scalar> = match trigger {
        Trigger::Cron(cron) => &cron.params,
        Trigger::Webhook(webhook) if webhook.params.is_empty() => &nothing,
        // Expressions are values only when a request comes.
        Trigger::Webhook(_) => return,
    };
    let root = Path::ROOT.key("spec");
    let triggers = root.key("triggers");
    let trigger_at = triggers.key(trigger_name.as_str());
    let at = trigger_at.key("params");
    for (name, value) in values {
        let at = at.key(name);
        match declared.get(name) {
            None => {
                let message = format!("pipeline `{pipeline_name}` has no param `{name}`");
                let hint = suggest(name, declared.keys().map(String::as_str));
                report.add(&TRIGGER_PARAM, &at, message).at_key().hint(hint);
            }
            Some(param) => {
                if let Err(error) = check_value(name, param, &value.to_string()) {
                    report.add(&TRIGGER_PARAM, &at, format!("{error}, as pipeline `{pipeline_name}` declares it"));
                }
            }
        }
    }
    for (name, param) in &declared {
        if param.required && param.default.is_none() && !values.contains_key(name) {
            let message = format!("param `{name}` is required, and trigger `{trigger_name}` does not give it");
            report
                .add(&TRIGGER_PARAM, at_use, message)
                .hint("give it a default, or let the trigger give it".to_owned());
        }
    }
}
