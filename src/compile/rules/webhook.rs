//! Webhook triggers: expressions that can be read, over what a request has.

use xene_agent::expr::Expr;
use xene_schemas::{
    trigger::{Trigger, Webhook},
    workflow::WorkflowSpec,
};

use super::{Path, Report, Rule, each_pipeline, params::TRIGGER_PARAM, suggest};
use crate::compile::params::overlay;

pub(super) const BAD_HOOK_SECRET: Rule = rule!(Error "XE0096", "a secret that has no name", "write `secret: NAME/KEY`");
pub(super) const BAD_WEBHOOK: Rule =
    rule!(Error "XE0095", "bad expression of a webhook", "a webhook reads `payload`, `headers` and `query`");

/// What a webhook's expressions read.
const VARIABLES: [&str; 3] = ["payload", "headers", "query"];

pub(super) fn check(spec: &WorkflowSpec, report: &mut Report) {
    let root = Path::ROOT.key("spec");
    let triggers = root.key("triggers");
    for (name, trigger) in &spec.triggers {
        let Trigger::Webhook(webhook) = trigger else { continue };
        let at = triggers.key(name.as_str());
        if let Some(auth) = webhook.auth.as_ref().filter(|auth| !auth.names_a_secret()) {
            let message = format!("a secret is named NAME/KEY, and `{}` is not", auth.secret);
            report.add(&BAD_HOOK_SECRET, &at.key("auth").key("secret"), message);
        }
        if let Some(when) = &webhook.when {
            expression(report, &at.key("when"), when);
        }
        let params = at.key("params");
        for (param, text) in &webhook.params {
            expression(report, &params.key(param), text);
        }
        declared(report, spec, name.as_str(), webhook, &params);
    }
}

fn expression(report: &mut Report, at: &Path<'_>, text: &str) {
    let expr = match Expr::parse(text) {
        Ok(expr) => expr,
        Err(error) => {
            let place = error.line_column(text).map(|(line, column)| format!(" (line {line}, column {column} of it)"));
            report.add(&BAD_WEBHOOK, at, format!("{error}{}", place.unwrap_or_default()));
            return;
        }
    };
    for path in expr.paths() {
        let Some(variable) = path.segments.first().filter(|name| !VARIABLES.contains(&name.as_str())) else { continue };
        let hint = suggest(variable, VARIABLES);
        report.add(&BAD_WEBHOOK, at, format!("a webhook has no `{variable}`")).hint(hint);
        return;
    }
}

/// Each pipeline that the trigger starts declares what it gives.
fn declared(report: &mut Report, spec: &WorkflowSpec, trigger: &str, webhook: &Webhook, params: &Path<'_>) {
    each_pipeline(spec, |_, name, pipeline| {
        if !pipeline.triggers.0.iter().any(|named| named.as_str() == trigger) {
            return;
        }
        let declared = overlay(&spec.params, &pipeline.params);
        for param in webhook.params.keys().filter(|param| !declared.contains_key(*param)) {
            let message = format!("pipeline `{name}` has no param `{param}`");
            let hint = suggest(param, declared.keys().map(String::as_str));
            report.add(&TRIGGER_PARAM, &params.key(param), message).at_key().hint(hint);
        }
    });
}
