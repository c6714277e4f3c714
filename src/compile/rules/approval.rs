//! Approvals: a question that someone can still answer.

use xene_schemas::workflow::WorkflowSpec;

use super::{Path, Report, Rule, each_pipeline};

pub(super) const BAD_APPROVAL: Rule =
    rule!(Error "XE0078", "approval that asks nobody", "leave time to answer, such as `timeout: 1d`");

pub(super) fn check(spec: &WorkflowSpec, report: &mut Report) {
    each_pipeline(spec, |at: &Path<'_>, _, pipeline| {
        let connectors = at.key("connectors");
        for (index, connector) in pipeline.connectors.iter().enumerate() {
            let Some(approval) = &connector.approval else { continue };
            let at = connectors.index(index);
            let at = at.key("approval");
            if approval.timeout.is_some_and(|timeout| timeout.as_millis() == 0) {
                let message = "with a `timeout` of 0 nobody can answer in time";
                report.add(&BAD_APPROVAL, &at.key("timeout"), message);
            }
            if approval.on_timeout.is_some() && approval.timeout.is_none() {
                let message = "`onTimeout` says what silence means, but without a `timeout` it never counts";
                report.add(&BAD_APPROVAL, &at.key("onTimeout"), message).at_key().hint("add a `timeout`".to_owned());
            }
        }
    });
}
