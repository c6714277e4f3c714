//! Fields that are sound by themselves, but change nothing where they stand.

use xene_schemas::{
    duration::Duration,
    pipeline::{ConcurrencyPolicy, PipelineSpec},
    task::{Retry, Task},
    workflow::WorkflowSpec,
};

use super::{Path, Report, Rule, each_pipeline, each_task};

pub(super) const EXIT_CODE: Rule = rule!(
    Warning "XE0126", "exit code that is never tried again",
    "take the exit code out: what ends with 0 has succeeded"
);
pub(super) const TIMEOUT: Rule =
    rule!(Warning "XE0127", "timeout beyond what is around it", "let the inner one be the shorter one");
pub(super) const NO_EFFECT: Rule = rule!(Warning "XE0128", "without effect", "take it out, or add what it is about");

/// What a run has that does not say.
const RUN_TIMEOUT: Duration = Duration::from_secs(6 * 3600);
/// What `finally` has that does not say.
const FINALLY_TIMEOUT: Duration = Duration::from_secs(300);

pub(super) fn check(spec: &WorkflowSpec, report: &mut Report) {
    let root = Path::ROOT.key("spec");
    check_params(report, &root, &spec.params);
    each_pipeline(spec, |at, _, pipeline| {
        check_pipeline(report, at, pipeline);
        check_params(report, at, &pipeline.params);
        each_task(at, pipeline, |at, name, task| {
            let in_finally = !pipeline.tasks.get(name).is_some_and(|other| std::ptr::eq(other, task));
            let around = if in_finally {
                ("all of `finally`", pipeline.finally_timeout.unwrap_or(FINALLY_TIMEOUT))
            } else {
                ("the whole run", pipeline.timeout.unwrap_or(RUN_TIMEOUT))
            };
            check_task(report, at, task, around);
        });
    });
}

fn check_params(
    report: &mut Report,
    at: &Path<'_>,
    params: &xene_schemas::map::UniqueMap<String, xene_schemas::param::Param>,
) {
    let at = at.key("params");
    for (name, param) in params {
        if param.required && param.default.is_some() {
            let message = format!("param `{name}` has a default, so that nobody is required to give it");
            let hint = "remove `required`, or the default".to_owned();
            report.add(&NO_EFFECT, &at.key(name).key("required"), message).at_key().hint(hint);
        }
    }
}

fn check_pipeline(report: &mut Report, at: &Path<'_>, pipeline: &PipelineSpec) {
    if pipeline.queue_timeout.is_some() && pipeline.concurrency.policy == ConcurrencyPolicy::Skip {
        let message = "with `policy: Skip` no run waits for another, so that only the wait for an agent has this limit";
        report.add(&NO_EFFECT, &at.key("queueTimeout"), message).at_key();
    }
    if pipeline.finally_timeout.is_some() && pipeline.finally.is_empty() {
        let message = "this pipeline has no `finally` that could take so long";
        report.add(&NO_EFFECT, &at.key("finallyTimeout"), message).at_key();
    }
    let connectors = at.key("connectors");
    for (index, connector) in pipeline.connectors.iter().enumerate() {
        if connector.approval.as_ref().is_some_and(|ask| ask.on_timeout.is_some() && ask.timeout.is_none()) {
            let at = connectors.index(index);
            let at = at.key("approval");
            let message = "without a `timeout` an approval waits as long as the run";
            report.add(&NO_EFFECT, &at.key("onTimeout"), message).at_key();
        }
    }
}

fn check_task(report: &mut Report, at: &Path<'_>, task: &Task, around: (&str, Duration)) {
    within(report, &at.key("timeout"), task.timeout, around);
    check_retry(report, at, task.retry.as_ref());
    let around = match task.timeout {
        Some(timeout) if timeout < around.1 => ("its task", timeout),
        _ => around,
    };
    let steps = at.key("steps");
    for (index, step) in task.steps.iter().enumerate() {
        let at = steps.index(index);
        within(report, &at.key("timeout"), step.timeout, around);
        check_retry(report, &at, step.retry.as_ref());
    }
}

fn within(report: &mut Report, at: &Path<'_>, timeout: Option<Duration>, (what, limit): (&str, Duration)) {
    if let Some(timeout) = timeout.filter(|timeout| *timeout > limit) {
        let message = format!("{timeout} is never reached: {what} may take {limit}");
        let field = if what == "all of `finally`" { "finallyTimeout" } else { "timeout" };
        report.add(&TIMEOUT, at, message).hint(format!("raise the `{field}` of what is around it, or lower this one"));
    }
}

fn check_retry(report: &mut Report, at: &Path<'_>, retry: Option<&Retry>) {
    let Some(retry) = retry else { return };
    let at = at.key("retry");
    let at_codes = at.key("onExitCodes");
    for (index, code) in retry.on_exit_codes.iter().enumerate() {
        let message = match code {
            0 => "exit code 0 is Success, which is never tried again".to_owned(),
            1..=255 => continue,
            _ => format!("no process ends with exit code {code}: they are from 0 to 255"),
        };
        report.add(&EXIT_CODE, &at_codes.index(index), message);
    }
    if let (Some(delay), Some(longest)) = (retry.delay, retry.max_delay)
        && longest < delay
    {
        let message = format!("no delay is above {longest}, so that the first is not {delay}");
        report.add(&NO_EFFECT, &at.key("maxDelay"), message).hint("let `maxDelay` be the longer one".to_owned());
    }
}
