//! What is expected against what is.

use std::collections::BTreeSet;

use indexmap::{IndexMap, IndexSet};
use jiff::{Timestamp, tz::TimeZone};
use xene_agent::decide::cron::local_time;
use xene_schemas::{
    duration::Duration,
    phase::{Reason, TaskPhase},
    run::TaskStatus,
    workflow_test::{Expect, TaskExpect},
};

use super::{Mismatch, world::World};

/// How many due times are told in one line.
const MOST_TOLD: usize = 8;

/// What of a run is not as expected.
pub(super) fn run(expect: &Expect, world: &World<'_>) -> Vec<Mismatch> {
    let mut wrong = Vec::new();
    let status = &world.record.status;
    let mut equal = |field: &str, expected: Option<String>, got: String| {
        if let Some(expected) = expected.filter(|expected| *expected != got) {
            wrong.push(Mismatch::new(&["expect", field], field, expected, got));
        }
    };
    let message = status.message.as_deref().map(|message| format!(": {message}")).unwrap_or_default();
    let undecided = match &world.undecided[..] {
        [] => String::new(),
        tasks => format!("; nobody decided on {}: say so under `approvals`", list(tasks.iter().cloned())),
    };
    if !status.phase.is_final() {
        let got = format!("{}, and nothing more happens{undecided}", status.phase);
        equal("phase", Some("an end of the run".into()), got);
    } else if expect.phase.is_some_and(|phase| phase != status.phase) {
        let reason = status.reason.as_ref().map(|reason| format!(" ({reason}{message})")).unwrap_or_default();
        equal("phase", expect.phase.map(|phase| phase.to_string()), format!("{}{reason}{undecided}", status.phase));
    }
    equal("reason", expect.reason.clone(), word(status.reason.as_ref()));
    equal("warnings", expect.warnings.map(|n| n.to_string()), status.warnings.to_string());
    if let (Some(expected), Some(from), Some(to)) = (expect.duration, status.started_at, status.finished_at) {
        let millis = u64::try_from(to.duration_since(from).as_millis()).unwrap_or(0);
        equal("duration", Some(expected.to_string()), Duration::from_millis(millis).to_string());
    }
    for (name, expected) in &expect.tasks {
        match status.tasks.get(name).cloned().or_else(|| joined(name, &status.tasks)) {
            Some(got) => task(name, expected, &got, &mut wrong),
            None => {
                let known: Vec<_> = status.tasks.keys().map(String::as_str).collect();
                let what = format!("task {name}");
                wrong.push(Mismatch::new(&["expect", "tasks", name], what, "a task", known.join(", ")));
            }
        }
    }
    if let Some(expected) = &expect.not_executed {
        let got = status.tasks.iter().filter(|(_, task)| task.phase == TaskPhase::NotExecuted);
        let got: BTreeSet<&String> = got.map(|(name, _)| name).collect();
        let tasks: Vec<&String> = status.tasks.keys().collect();
        let mut meant: BTreeSet<&String> = BTreeSet::new();
        for name in expected {
            let of_name: Vec<&String> = tasks.iter().copied().filter(|task| is_meant(name, task)).collect();
            // What is not there is missed.
            let missed = of_name.is_empty().then_some(name);
            meant.extend(of_name.into_iter().chain(missed));
        }
        let expected = meant;
        if got != expected {
            let list = |names: BTreeSet<&String>| list(names.into_iter().cloned());
            wrong.push(Mismatch::new(&["expect", "notExecuted"], "tasks not executed", list(expected), list(got)));
        }
    }
    let mut rest = world.started.iter();
    if !expect.order.iter().all(|task| rest.any(|started| is_meant(task, started))) {
        let (expected, got) = (expect.order.join(", "), list(world.started.iter().cloned()));
        wrong.push(Mismatch::new(&["expect", "order"], "order of starts", expected, got));
    }
    wrong
}

/// True if `name` means that task: by its own name, or by that of the task whose instance it is.
fn is_meant(name: &str, task: &str) -> bool {
    task.strip_prefix(name).is_some_and(|rest| rest.is_empty() || (rest.starts_with('[') && !name.contains('[')))
}

/// All instances of a task with a matrix as one, joined as expressions join them: Error if one is, Success once one is
/// and all others are, or were left out; each output is the list of what they published, as JSON.
fn joined(name: &str, tasks: &IndexMap<String, TaskStatus>) -> Option<TaskStatus> {
    let instances: Vec<&TaskStatus> =
        tasks.iter().filter(|(task, _)| is_meant(name, task)).map(|(_, status)| status).collect();
    let any = |phase: TaskPhase| instances.iter().any(|instance| instance.phase == phase);
    let mut all: TaskStatus = (*instances.first()?).clone();
    all.phase = [TaskPhase::Error, TaskPhase::Running, TaskPhase::Success]
        .into_iter()
        .find(|phase| any(*phase))
        .unwrap_or(TaskPhase::NotExecuted);
    let of_phase = instances.iter().find(|instance| instance.phase == all.phase);
    (all.reason, all.message) = of_phase.map(|one| (one.reason.clone(), one.message.clone())).unwrap_or_default();
    all.attempt = instances.iter().map(|instance| instance.attempt).max().unwrap_or_default();
    let names: IndexSet<&String> = instances.iter().flat_map(|instance| instance.outputs.keys()).collect();
    let list = |name: &String| -> Vec<&String> {
        instances.iter().filter_map(|instance| instance.outputs.get(name)).collect()
    };
    all.outputs = names.into_iter().map(|name| (name.clone(), serde_json::json!(list(name)).to_string())).collect();
    Some(all)
}

fn task(name: &str, expected: &TaskExpect, got: &TaskStatus, wrong: &mut Vec<Mismatch>) {
    let TaskExpect { phase, reason, attempt, outputs } = expected;
    let at = ["expect", "tasks", name];
    if let Some(phase) = phase.filter(|phase| *phase != got.phase) {
        let message = got.message.as_deref().map(|message| format!(": {message}")).unwrap_or_default();
        let why = got.reason.as_ref().map(|reason| format!(" ({reason}{message})")).unwrap_or_default();
        wrong.push(Mismatch::new(&at, format!("task {name}"), phase, format!("{}{why}", got.phase)));
    }
    let mut equal = |field: &str, expected: Option<String>, got: String| {
        if let Some(expected) = expected.filter(|expected| *expected != got) {
            let at = [at[0], at[1], at[2], field];
            wrong.push(Mismatch::new(&at, format!("task {name}: {field}"), expected, got));
        }
    };
    equal("reason", reason.clone(), word(got.reason.as_ref()));
    equal("attempt", attempt.map(|n| n.to_string()), got.attempt.to_string());
    for (output, value) in outputs {
        let found = got.outputs.get(output);
        if found.map(String::as_str) != Some(&value.to_string()) {
            let at = [at[0], at[1], at[2], "outputs", output.as_str()];
            let found = found.map_or_else(|| "none".into(), |found| format!("{found:?}"));
            let what = format!("task {name}: output {output}");
            wrong.push(Mismatch::new(&at, what, format!("{:?}", value.to_string()), found));
        }
    }
}

/// What of due times is not as expected.
pub(super) fn firings(expected: &[Timestamp], got: &[Timestamp], zone: &TimeZone) -> Option<Mismatch> {
    let (expected, got): (BTreeSet<_>, BTreeSet<_>) = (expected.iter().collect(), got.iter().collect());
    let told = |times: Vec<&&Timestamp>| {
        let count = times.len();
        let mut told: Vec<String> = times.into_iter().take(MOST_TOLD).map(|at| local_time(**at, zone)).collect();
        if count > MOST_TOLD {
            told.push(format!("and {} more", count - MOST_TOLD));
        }
        list(told.into_iter())
    };
    (expected != got).then(|| {
        let missing = told(expected.difference(&got).collect());
        let surplus = told(got.difference(&expected).collect());
        let what = format!("due times ({} expected, {} come)", expected.len(), got.len());
        Mismatch::new(
            &["expect", "firings"],
            what,
            format!("beside the others {missing}"),
            format!("instead {surplus}"),
        )
    })
}

fn word(reason: Option<&Reason>) -> String {
    reason.map_or_else(|| "none".into(), ToString::to_string)
}

fn list(names: impl Iterator<Item = String>) -> String {
    let names: Vec<String> = names.collect();
    if names.is_empty() { "none".into() } else { names.join(", ") }
}
