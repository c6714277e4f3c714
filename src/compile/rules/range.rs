//! Numbers and durations that the machinery can keep.

use xene_schemas::{
    duration::Duration,
    pipeline::{Autonomy, PipelineSpec},
    task::{Retry, Task},
    workflow::WorkflowSpec,
};

use super::{Path, Report, Rule, each_pipeline, each_task};
use crate::compile::Limits;

pub(super) const OUT_OF_RANGE: Rule = rule!(Error "XE0060", "out of range", "choose a value within the range");

/// The largest L short of `Forever`: a day is the longest that a takeover is waited for.
const MAX_AUTONOMY: Duration = Duration::from_secs(24 * 3600);
/// More tasks than that in one pipeline are made by a program that should make several pipelines.
const MAX_TASKS: usize = 5_000;

pub(super) fn check(spec: &WorkflowSpec, limits: Limits, report: &mut Report) {
    each_pipeline(spec, |at, name, pipeline| {
        check_pipeline(report, limits, at, pipeline);
        if pipeline.tasks.len() + pipeline.finally.len() > MAX_TASKS {
            let message = format!("pipeline `{name}` has more than {MAX_TASKS} tasks");
            report.add(&OUT_OF_RANGE, at, message).at_key();
        }
        each_task(at, pipeline, |at, _, task| check_task(report, at, task));
    });
}

fn check_pipeline(report: &mut Report, limits: Limits, at: &Path<'_>, pipeline: &PipelineSpec) {
    if let Some(Autonomy::For(duration)) = pipeline.autonomy
        && !(limits.min_autonomy..=MAX_AUTONOMY).contains(&duration)
    {
        let message = format!("autonomy is from {} to 24h, or Forever, not {duration}", limits.min_autonomy);
        report.add(&OUT_OF_RANGE, &at.key("autonomy"), message);
    }
    if pipeline.concurrency.max == 0 {
        let hint = "to keep a pipeline from running, write `suspend: true`".to_owned();
        let at = at.key("concurrency");
        report.add(&OUT_OF_RANGE, &at.key("max"), "`max` is at least 1").hint(hint);
    }
    if let Some(history) = &pipeline.history {
        let at = at.key("history");
        for (field, value) in [("runs", history.runs), ("keepSuccesses", history.keep_successes)] {
            if value == 0 {
                let hint = "the last good run is always kept".to_owned();
                report.add(&OUT_OF_RANGE, &at.key(field), format!("`{field}` is at least 1")).hint(hint);
            }
        }
    }
    not_zero(report, &at.key("timeout"), pipeline.timeout);
    not_zero(report, &at.key("queueTimeout"), pipeline.queue_timeout);
    not_zero(report, &at.key("finallyTimeout"), pipeline.finally_timeout);
}

fn check_task(report: &mut Report, at: &Path<'_>, task: &Task) {
    not_zero(report, &at.key("timeout"), task.timeout);
    check_retry(report, at, task.retry.as_ref());
    let steps = at.key("steps");
    for (index, step) in task.steps.iter().enumerate() {
        let at = steps.index(index);
        not_zero(report, &at.key("timeout"), step.timeout);
        check_retry(report, &at, step.retry.as_ref());
    }
}

fn not_zero(report: &mut Report, at: &Path<'_>, timeout: Option<Duration>) {
    if timeout.is_some_and(|timeout| timeout.as_millis() == 0) {
        report.add(&OUT_OF_RANGE, at, "a timeout of 0 leaves no time at all");
    }
}

fn check_retry(report: &mut Report, at: &Path<'_>, retry: Option<&Retry>) {
    let Some(retry) = retry else { return };
    let at = at.key("retry");
    if !(1..=100).contains(&retry.attempts) {
        let message = format!("`attempts` is from 1 to 100, not {}", retry.attempts);
        report.add(&OUT_OF_RANGE, &at.key("attempts"), message);
    }
    if retry.backoff.is_some_and(|backoff| !(1.0..=100.0).contains(&backoff)) {
        report.add(&OUT_OF_RANGE, &at.key("backoff"), "`backoff` is from 1 to 100");
    }
}
