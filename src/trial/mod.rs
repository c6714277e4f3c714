//! Tries a case of a workflow test on a virtual clock: the agent's own machine and schedules, with stubs for processes.
//! Pure: hours of retries and time zones pass in the time that it takes to count them.

mod check;
#[cfg(test)]
mod tests;
mod world;

use std::sync::Arc;

use indexmap::IndexMap;
use jiff::{Timestamp, tz::TimeZone};
use xene_agent::decide::cron::{Schedule, local_time, read_time};
use xene_schemas::{
    meta::Revision,
    run::{RunSpec, RunTrigger, TriggerType},
    trigger::{Cron, Trigger},
    workflow_test::TestCase,
};

use self::world::World;
use crate::{
    compile::{Segment, params::resolve},
    decide::desired::WorkflowBody,
};

/// When a run starts whose case does not say.
const START: Timestamp = Timestamp::constant(1_767_225_600, 0);
/// More due times than that are not told apart one by one.
const MOST_FIRINGS: usize = 10_000;

/// What a case came to.
#[derive(Debug, Default, PartialEq)]
pub struct Verdict {
    /// What is not as expected; empty: the case has passed.
    pub mismatches: Vec<Mismatch>,
    /// What happened, a line each.
    pub course: Vec<String>,
}

/// One thing that is not as expected.
#[derive(Debug, PartialEq)]
pub struct Mismatch {
    /// The expectation's place within its case.
    pub at: Vec<Segment>,
    /// What is meant, such as `task build: phase`.
    pub what: String,
    /// What should be.
    pub expected: String,
    /// What is.
    pub got: String,
}

impl Mismatch {
    fn new(at: &[&str], what: impl Into<String>, expected: impl ToString, got: impl ToString) -> Self {
        let at = at.iter().map(|key| Segment::Key((*key).to_owned())).collect();
        Self { at, what: what.into(), expected: expected.to_string(), got: got.to_string() }
    }
}

/// Tries one case. The compiler has checked it against `workflow`; what it would refuse is a mismatch here.
pub fn try_case(workflow: &WorkflowBody, case: &TestCase) -> Verdict {
    let tried = match &case.pipeline {
        Some(_) => try_run(workflow, case),
        None => try_firings(workflow, case),
    };
    tried.unwrap_or_else(|message| Verdict {
        mismatches: vec![Mismatch::new(&[], "the case", "one that can be tried", message)],
        course: Vec::new(),
    })
}

fn try_run(workflow: &WorkflowBody, case: &TestCase) -> Result<Verdict, String> {
    let pipeline = case.pipeline.as_ref().and_then(|name| workflow.pipelines.get(name.as_str()));
    let pipeline = Arc::new(pipeline.ok_or("there is no such pipeline")?.clone());
    let trigger = case.trigger.as_ref().and_then(|name| Some((name, workflow.spec.triggers.get(name)?)));
    let start = match (&case.at, trigger) {
        (None, _) => START,
        (Some(text), Some((_, Trigger::Cron(cron)))) => time(text, &zone(cron)?)?,
        (Some(text), _) => time(text, &TimeZone::UTC)?,
    };
    let mut given: IndexMap<String, String> = IndexMap::new();
    let trigger = match trigger {
        None => RunTrigger { kind: TriggerType::Manual, name: None, scheduled_time: None, by: None },
        Some((name, Trigger::Webhook(_))) => {
            RunTrigger { kind: TriggerType::Webhook, name: Some(name.clone()), scheduled_time: None, by: None }
        }
        Some((name, Trigger::Cron(cron))) => {
            given.extend(cron.params.iter().map(|(name, value)| (name.clone(), value.to_string())));
            RunTrigger { kind: TriggerType::Cron, name: Some(name.clone()), scheduled_time: Some(start), by: None }
        }
    };
    given.extend(case.params.iter().map(|(name, value)| (name.clone(), value.to_string())));
    let params = resolve(&pipeline.params, &given).map_err(|errors| {
        let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
        errors.join("; ")
    })?;
    let (spec_hash, _) = pipeline.encode();
    let spec = RunSpec {
        workflow: pipeline.key.workflow.clone(),
        pipeline: pipeline.key.pipeline.clone(),
        trigger,
        params,
        revision: Revision("test".into()),
        spec_hash,
        rerun_of: None,
    };
    let world = World::new(start, spec, pipeline, case).run();
    Ok(Verdict { mismatches: check::run(&case.expect, &world), course: world.course })
}

fn try_firings(workflow: &WorkflowBody, case: &TestCase) -> Result<Verdict, String> {
    let trigger = case.trigger.as_ref().and_then(|name| workflow.spec.triggers.get(name));
    let Some(Trigger::Cron(cron)) = trigger else { return Err("there is no such cron trigger".into()) };
    let schedule = Schedule::parse(cron).map_err(|error| error.to_string())?;
    let zone = schedule.zone();
    let instant = |text: &Option<String>| time(text.as_deref().unwrap_or_default(), zone);
    let (from, until) = (instant(&case.from)?, instant(&case.until)?);
    let mut after = from.checked_sub(jiff::SignedDuration::from_nanos(1)).unwrap_or(from);
    let due = std::iter::from_fn(|| {
        after = schedule.next_after(after).filter(|due| *due < until)?;
        Some(after)
    });
    let due: Vec<Timestamp> = due.take(MOST_FIRINGS).collect();
    let course = due.iter().map(|due| local_time(*due, zone)).collect();
    let mut mismatches = Vec::new();
    if let Some(expected) = &case.expect.firings {
        let expected = expected.iter().map(|text| time(text, zone)).collect::<Result<Vec<_>, _>>()?;
        mismatches.extend(check::firings(&expected, &due, zone));
    }
    Ok(Verdict { mismatches, course })
}

fn zone(cron: &Cron) -> Result<TimeZone, String> {
    Schedule::parse(cron).map(|schedule| schedule.zone().clone()).map_err(|error| error.to_string())
}

fn time(text: &str, zone: &TimeZone) -> Result<Timestamp, String> {
    read_time(text, zone).ok_or_else(|| format!("{text:?} is no time"))
}
