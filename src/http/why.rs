//! Why: what started a run and what it waits for, why a pipeline has its agent or none, what became of an instant.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use jiff::Timestamp;
use xene_agent::decide::{
    cron::Schedule,
    time::{after, before},
};
use xene_schemas::{
    event::Event,
    firing::Firing,
    meta::{Name, PipelineKey, Revision},
    object::PipelineMeta,
    phase::{PipelinePhase, TaskPhase},
    plan::DueTime,
    trigger::{Cron, Trigger},
    why::{CommitWhy, InstantVerdict, InstantWhy, PipelineWhy, RunWhy, RunWhyMeta, TaskWhy, TriggerWhy},
    workflow::WorkflowSpec,
};

use super::{
    Api,
    firings::firing,
    identity::Identity,
    lists::{absent, find_run},
    objects::{self, Object, Suspensions},
    problem::Problem,
    query::Query,
};
use crate::{
    decide::{Controller, rows::WorkflowRow},
    store::RunFilter,
};

/// So many firings and runs are told of a pipeline.
const RECENT: usize = 10;
/// So many rows of the ledger are searched for one that covers an instant.
const SEARCHED: usize = 1_000;
/// A due time may be so young that its row is on its way.
const ON_ITS_WAY: Duration = Duration::from_secs(60);

pub(super) async fn run(State(api): State<Arc<Api>>, Path(name): Path<String>) -> Result<Response, Problem> {
    let run = find_run(&api, &name)?.run;
    let (key, name) = (run.spec.key(), run.metadata.name);
    let waits = api.handle.view(move |controller, now| controller.waits(now, name)).await?;
    let owner = api.handle.store().owner(&key)?;
    let placement = owner.filter(|owner| owner.owner == run.status.agent && Some(owner.epoch) == run.status.epoch);
    let workflow = api.handle.store().workflow(&key.workflow)?;
    let tasks = run
        .status
        .tasks
        .iter()
        .filter(|(_, task)| task.attempt > 1 || (task.reason.is_some() && task.phase != TaskPhase::Success));
    let tasks = tasks.map(|(name, task)| TaskWhy {
        name: name.clone(),
        phase: task.phase,
        reason: task.reason.clone(),
        message: task.message.clone(),
        attempt: task.attempt,
    });
    let why = RunWhy {
        metadata: RunWhyMeta { name },
        pipeline: key,
        phase: run.status.phase,
        reason: run.status.reason.clone(),
        message: run.status.message.clone(),
        trigger: run.spec.trigger.clone(),
        commit: commit(&api, run.spec.revision.clone(), workflow.as_ref()).await?,
        agent: run.status.agent.clone(),
        epoch: run.status.epoch,
        placement: placement.map(|owner| owner.message).filter(|message| !message.is_empty()),
        waits,
        tasks: tasks.collect(),
    };
    Ok(Object::new("RunWhy", why).into_response())
}

/// Of a pipeline, or with `at` of an instant of it.
pub(super) async fn pipeline(
    State(api): State<Arc<Api>>,
    identity: Identity,
    Path((workflow, pipeline)): Path<(String, String)>,
    mut query: Query,
) -> Result<Response, Problem> {
    let at: Option<Timestamp> = query.parse("at", "an RFC 3339 time, such as 2026-11-26T03:00:00Z")?;
    query.finish()?;
    let name = format!("{workflow}/{pipeline}");
    let key = name.parse::<PipelineKey>().map_err(|_| absent("pipeline", &name))?;
    match at {
        Some(at) => instant(&api, key, at).map(|why| Object::new("InstantWhy", why).into_response()),
        None => whole(&api, &identity, key).await.map(|why| Object::new("PipelineWhy", why).into_response()),
    }
}

async fn whole(api: &Api, identity: &Identity, key: PipelineKey) -> Result<PipelineWhy, Problem> {
    let store = api.handle.store();
    let row = store.pipeline(&key)?.ok_or_else(|| absent("pipeline", &key.to_string()))?;
    let workflow = store.workflow(&key.workflow)?;
    let of = key.clone();
    let look = move |controller: &Controller, now| (controller.consider(now, &of), controller.arrivals(&of));
    let (agents, after) = api.handle.view(look).await?;
    let filter = RunFilter {
        workflow: Some(key.workflow.clone()),
        pipeline: Some(key.pipeline.clone()),
        active: true,
        ..RunFilter::default()
    };
    let runs = store.runs(&filter, None, RECENT)?.into_iter().map(|row| row.run.metadata.name).collect();
    let firings = store.ledger(&key, None, RECENT)?.into_iter().map(firing).collect();
    let suspensions = Suspensions::read(api)?;
    let (suspended, commit_row) = (row.suspend || suspensions.of_pipeline(&key).is_some(), row.revision.clone());
    let labels = row.spec.agents.labels.iter().map(|(label, value)| (label.clone(), value.clone())).collect();
    let now = api.handle.wall();
    let triggers = workflow.as_ref().map(|workflow| {
        let named = row.spec.triggers.0.iter().filter_map(|name| Some((name, workflow.spec.triggers.get(name)?)));
        named.map(|(name, trigger)| trigger_why(name, trigger, suspended, now)).collect()
    });
    let commit = commit(api, commit_row, workflow.as_ref()).await?;
    let shown = objects::pipeline(api, identity, row, workflow.as_ref(), &suspensions, now)?.status;
    Ok(PipelineWhy {
        metadata: PipelineMeta { name: key },
        phase: shown.phase,
        reason: shown.reason,
        message: shown.message,
        agent: shown.agent,
        epoch: shown.epoch,
        commit,
        suspended,
        labels,
        agents,
        triggers: triggers.unwrap_or_default(),
        after,
        runs,
        firings,
    })
}

fn trigger_why(name: &Name, trigger: &Trigger, suspended: bool, now: Timestamp) -> TriggerWhy {
    let (kind, schedule, suspended, next) = match trigger {
        Trigger::Cron(cron) => {
            let zone = cron.time_zone.as_deref().unwrap_or("UTC");
            let suspended = suspended || cron.suspend;
            let next = Schedule::parse(cron).ok().filter(|_| !suspended).and_then(|schedule| schedule.next_after(now));
            ("cron", Some(format!("{} ({zone})", cron.schedule)), suspended, next)
        }
        Trigger::Webhook(webhook) => ("webhook", None, suspended || webhook.suspend, None),
    };
    TriggerWhy { name: name.clone(), kind: kind.into(), schedule, suspended, next_fire: next }
}

/// What is known of a revision: of a commit that is not at hand any more, its name alone.
async fn commit(api: &Api, revision: Revision, workflow: Option<&WorkflowRow>) -> Result<CommitWhy, Problem> {
    let info = match api.config.browser.clone() {
        Some(browser) => {
            let revision = revision.clone();
            api.blocking(move || browser.commit(&revision).ok()).await?
        }
        None => None,
    };
    Ok(CommitWhy {
        revision,
        at: info.as_ref().map(|info| info.at),
        author: info.as_ref().and_then(|info| info.author.clone()),
        subject: info.and_then(|info| info.subject),
        path: workflow.map(|row| row.path.clone()),
        line: workflow.map(|row| row.line),
    })
}

fn instant(api: &Api, key: PipelineKey, at: Timestamp) -> Result<InstantWhy, Problem> {
    let store = api.handle.store();
    let now = api.handle.wall();
    let at = Timestamp::from_second(at.as_second()).unwrap_or(at);
    let row = store.pipeline(&key)?;
    let workflow = store.workflow(&key.workflow)?;
    let rows = store.ledger(&key, Some((after(at, Duration::from_secs(1)), None)), SEARCHED)?;
    if row.is_none() && rows.is_empty() && store.owner(&key)?.is_none() {
        return Err(absent("pipeline", &key.to_string()));
    }
    let crons = workflow.as_ref().map(|workflow| crons(&workflow.spec, &key.pipeline)).unwrap_or_default();
    let due: Vec<&Name> =
        crons.iter().filter(|(_, _, schedule)| is_due(schedule, at)).map(|(name, ..)| *name).collect();
    let (exact, older): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| row.slot == at);
    let mut firings: Vec<Firing> = exact.into_iter().map(firing).collect();
    for name in &due {
        let told = firings.iter().any(|firing| firing.trigger == **name);
        // A row that covers several due times; without a schedule nobody can say whether this is one of them.
        let covers = older.iter().find(|row| row.trigger == **name && row.until.is_some_and(|until| until >= at));
        firings.extend(covers.filter(|_| !told).cloned().map(firing));
    }
    let by_command = Suspensions::read(api)?.of_pipeline(&key).is_some();
    let suspended = by_command || row.as_ref().is_some_and(|row| row.suspend);
    let previous = crons.iter().filter_map(|(name, _, schedule)| due_before(schedule, at, name)).max();
    let next = crons
        .iter()
        .filter_map(|(name, _, schedule)| Some(DueTime { at: schedule.next_after(at)?, trigger: (*name).clone() }));
    let created = created(api, &key)?;
    let (verdict, message) = if let Some(firing) = firings.first() {
        (InstantVerdict::Recorded, format!("{}: {}", firing.outcome.as_str(), firing.message))
    } else if let Some(created) = created.filter(|created| *created > at) {
        (InstantVerdict::NotThere, format!("the pipeline took effect later, at {created:.3}"))
    } else if row.is_none() {
        (InstantVerdict::NotThere, "the pipeline was removed, and the ledger has no row for this instant".into())
    } else if crons.is_empty() {
        (InstantVerdict::NoSchedule, "no cron trigger starts this pipeline".into())
    } else if due.is_empty() {
        (InstantVerdict::NotDue, "no trigger is due at this instant".into())
    } else if at > now {
        let message = if suspended { "it is due then, and suspended now" } else { "it is still to come" };
        (InstantVerdict::NotYet, message.into())
    } else {
        unrecorded(api, &key, at, now)?
    };
    Ok(InstantWhy { metadata: PipelineMeta { name: key }, at, verdict, message, firings, previous, next: next.min() })
}

/// Of a due time that has passed and has no row.
fn unrecorded(
    api: &Api,
    key: &PipelineKey,
    at: Timestamp,
    now: Timestamp,
) -> Result<(InstantVerdict, String), Problem> {
    let store = api.handle.store();
    let owner = store.owner(key)?;
    let agent = owner.as_ref().and_then(|owner| owner.owner.clone());
    let pending = match (&owner, agent) {
        (Some(owner), None) if at > owner.watermark => {
            let why = if owner.message.is_empty() { "no agent has been chosen yet" } else { &owner.message };
            Some(format!("no agent has looked at it yet, since the pipeline is {}: {why}", PipelinePhase::NotScheduled))
        }
        (_, Some(agent)) => {
            let last_seen = store.agent(&agent)?.and_then(|row| row.last_seen);
            let away = last_seen.filter(|seen| *seen < at);
            away.map(|seen| format!("{agent}, which has the pipeline, was last heard at {seen:.3} and may still tell"))
        }
        _ => None,
    };
    let young = || (before(now, ON_ITS_WAY) < at).then(|| "it has just come, and its row is on its way".to_owned());
    Ok(match pending.or_else(young) {
        Some(message) => (InstantVerdict::Pending, message),
        None => {
            let message = "the ledger has no row for it: it is past its retention, or the trigger was another one then";
            (InstantVerdict::NotRecorded, message.into())
        }
    })
}

/// When the pipeline last came into effect, as far as events go back.
fn created(api: &Api, key: &PipelineKey) -> Result<Option<Timestamp>, Problem> {
    let regarding = format!("pipeline/{key}");
    let is_created = |event: &Event| event.reason == "PipelineCreated" && event.regarding == regarding;
    Ok(api.handle.store().events(None, 1, is_created)?.pop().map(|event| event.at))
}

/// The cron triggers of a pipeline that have a schedule.
fn crons<'w>(workflow: &'w WorkflowSpec, pipeline: &Name) -> Vec<(&'w Name, &'w Cron, Schedule)> {
    let Some(spec) = workflow.pipelines.get(pipeline) else { return Vec::new() };
    let named = spec.triggers.0.iter().filter_map(|name| workflow.triggers.get_key_value(name));
    named
        .filter_map(|(name, trigger)| match trigger {
            Trigger::Cron(cron) => Some((name, cron, Schedule::parse(cron).ok()?)),
            Trigger::Webhook(_) => None,
        })
        .collect()
}

fn is_due(schedule: &Schedule, at: Timestamp) -> bool {
    schedule.next_after(before(at, Duration::from_secs(1))) == Some(at)
}

/// The last due time before `at`: looked for in ever longer stretches, of which the last holds few more than one.
fn due_before(schedule: &Schedule, at: Timestamp, trigger: &Name) -> Option<DueTime> {
    const DAY: u64 = 86_400;
    for stretch in [60, 3_600, DAY, 7 * DAY, 31 * DAY, 366 * DAY, 9 * 366 * DAY] {
        let start = before(at, Duration::from_secs(stretch));
        let due = std::iter::successors(schedule.next_after(start), |due| schedule.next_after(*due));
        if let Some(last) = due.take_while(|due| *due < at).last() {
            return Some(DueTime { at: last, trigger: trigger.clone() });
        }
    }
    None
}
