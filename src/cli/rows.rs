//! Objects as rows of a table.

use anstyle::Style;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use xene_schemas::{agent::AgentStatus, event::Event, meta::Labels, notifier::NotifierStatus, object, run::Run};

use super::{
    Error,
    kind::Kind,
    output::phase_style,
    status::{parse, short},
    table::{Cell, Table},
    time::{age, exact, relative, took},
};

/// An object of which `spec` does not matter here: a newer controller's spec is no reason not to list it.
#[derive(Debug, Deserialize)]
pub(super) struct Object<S> {
    pub(super) metadata: Metadata,
    pub(super) status: S,
}

#[derive(Debug, Deserialize)]
pub(super) struct Metadata {
    pub(super) name: String,
    #[serde(default)]
    pub(super) description: Option<String>,
    #[serde(default)]
    pub(super) labels: Labels,
}

/// The objects of a list, or the one object.
pub fn items(value: &Value) -> Vec<Value> {
    match value.get("items") {
        Some(Value::Array(items)) => items.clone(),
        _ => vec![value.clone()],
    }
}

/// A table of objects of one kind.
///
/// # Errors
/// If an object is not of that kind.
pub fn table(kind: Kind, items: &[Value], wide: bool, now: Timestamp) -> Result<Table, Error> {
    let mut table = Table::new(match (kind, wide) {
        (Kind::Workflows, false) => &["NAME", "PHASE", "PIPELINES", "REVISION", "FILE", "MESSAGE?"],
        (Kind::Workflows, true) => {
            &["NAME", "PHASE", "PIPELINES", "REVISION", "FILE", "GENERATION", "SPEC", "LABELS?", "MESSAGE?"]
        }
        (Kind::Pipelines, false) => &["NAME", "PHASE", "REASON?", "AGENT", "NEXT", "LAST RUN", "WHEN"],
        (Kind::Pipelines, true) => {
            &["NAME", "PHASE", "REASON?", "AGENT", "NEXT", "LAST RUN", "WHEN", "RUN", "REVISION", "EPOCH", "MESSAGE?"]
        }
        (Kind::Runs, false) => &["NAME", "PIPELINE", "PHASE", "REASON?", "TRIGGER", "AGENT", "AGE", "TOOK"],
        (Kind::Runs, true) => &[
            "NAME",
            "PIPELINE",
            "PHASE",
            "REASON?",
            "TRIGGER",
            "AGENT",
            "AGE",
            "TOOK",
            "REVISION",
            "TASKS",
            "DUE?",
            "BY?",
            "WARNINGS?",
            "MESSAGE?",
        ],
        (Kind::Agents, false) => &["NAME", "PHASE", "BUSY", "PIPELINES", "SEEN", "VERSION", "MESSAGE?"],
        (Kind::Agents, true) => &[
            "NAME",
            "PHASE",
            "BUSY",
            "PIPELINES",
            "SEEN",
            "VERSION",
            "ADDRESS",
            "TRANSPORT",
            "LEASE",
            "LABELS",
            "MESSAGE?",
        ],
        (Kind::Notifiers, false) => &["NAME", "PHASE", "TO", "WAITING", "DELIVERED", "LAST", "ERROR?"],
        (Kind::Notifiers, true) => {
            &["NAME", "PHASE", "TO", "WAITING", "DELIVERED", "LAST", "LOST", "ON", "FILE", "LABELS?", "ERROR?"]
        }
        (Kind::Events, false) => &["AGE", "TYPE", "REASON", "REGARDING", "MESSAGE"],
        (Kind::Events, true) => &["AGE", "TYPE", "REASON", "REGARDING", "MESSAGE", "AT", "ID"],
    });
    for item in items {
        let mut row = match kind {
            Kind::Workflows => workflow(item)?,
            Kind::Pipelines => pipeline(item, now)?,
            Kind::Runs => run(item, now)?,
            Kind::Agents => agent(item, now)?,
            Kind::Notifiers => notifier(item, now)?,
            Kind::Events => event(item, now)?,
        };
        if !wide {
            row.narrow.extend(row.narrow_only);
            table.push(row.narrow);
        } else {
            row.narrow.extend(row.wide);
            table.push(row.narrow);
        }
    }
    Ok(table)
}

/// `kind/name` of an object.
pub fn name(kind: Kind, item: &Value) -> String {
    let name = match (item.pointer("/metadata/name"), item.get("id")) {
        (Some(Value::String(name)), _) => name.clone(),
        (_, Some(id)) => id.to_string(),
        _ => String::new(),
    };
    format!("{}/{name}", kind.singular())
}

/// The cells of both tables, those of the narrow table alone, and those that the wide one adds.
struct Row {
    narrow: Vec<Cell>,
    narrow_only: Vec<Cell>,
    wide: Vec<Cell>,
}

fn phase(phase: &str) -> Cell {
    Cell::styled(phase, phase_style(phase))
}

fn or_dash<T: ToString>(value: Option<T>) -> Cell {
    value.map_or_else(|| Cell::styled("-", Style::new().dimmed()), |value| value.to_string().into())
}

fn optional<T: ToString>(value: Option<T>) -> Cell {
    value.map(|value| value.to_string()).unwrap_or_default().into()
}

/// `a=1,b=2`.
pub(super) fn labels(labels: &Labels) -> String {
    let labels: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    labels.join(",")
}

fn workflow(item: &Value) -> Result<Row, Error> {
    let object: Object<object::WorkflowStatus> = parse(item)?;
    let pipelines = item.pointer("/spec/pipelines").and_then(Value::as_object).map_or(0, serde_json::Map::len);
    let status = object.status;
    Ok(Row {
        narrow: vec![
            object.metadata.name.into(),
            phase(status.phase.as_str()),
            pipelines.into(),
            short(Some(&status.revision)).into(),
            format!("{}:{}", status.path, status.line).into(),
        ],
        narrow_only: vec![optional(status.message.clone())],
        wide: vec![
            status.generation.0.into(),
            status.spec_hash.to_string()[..12].into(),
            labels(&object.metadata.labels).into(),
            optional(status.message),
        ],
    })
}

fn pipeline(item: &Value, now: Timestamp) -> Result<Row, Error> {
    let object: Object<object::PipelineStatus> = parse(item)?;
    let status = object.status;
    let last = status.last_run;
    Ok(Row {
        narrow: vec![
            object.metadata.name.into(),
            phase(status.phase.as_str()),
            optional(status.reason),
            or_dash(status.agent),
            or_dash(status.next_fire.map(|at| relative(at, now))),
            last.as_ref().map_or_else(|| or_dash(None::<String>), |run| phase(run.phase.as_str())),
            or_dash(last.as_ref().map(|run| relative(run.name.at(), now))),
        ],
        narrow_only: vec![],
        wide: vec![
            or_dash(last.as_ref().map(|run| run.name)),
            short(Some(&status.revision)).into(),
            or_dash(status.epoch),
            optional(status.message),
        ],
    })
}

/// How long a run has taken, or takes so far.
pub(super) fn run_took(run: &Run, now: Timestamp) -> Option<String> {
    run.status.started_at.map(|from| took(from, run.status.finished_at.unwrap_or(now)))
}

/// `manual`, or `cron nightly`.
pub(super) fn trigger(run: &Run) -> String {
    match &run.spec.trigger.name {
        Some(name) => format!("{} {name}", run.spec.trigger.kind.as_str()),
        None => run.spec.trigger.kind.as_str().into(),
    }
}

fn run(item: &Value, now: Timestamp) -> Result<Row, Error> {
    let run: Run = parse(item)?;
    let done = run.status.tasks.values().filter(|task| task.phase == xene_schemas::phase::TaskPhase::Success).count();
    let status = &run.status;
    Ok(Row {
        narrow: vec![
            run.metadata.name.into(),
            run.spec.key().into(),
            phase(status.phase.as_str()),
            optional(status.reason.as_ref()),
            trigger(&run).into(),
            or_dash(status.agent.as_ref()),
            age(run.metadata.created_at, now).into(),
            or_dash(run_took(&run, now)),
        ],
        narrow_only: vec![],
        wide: vec![
            short(Some(&run.spec.revision)).into(),
            format!("{done}/{}", status.tasks.len()).into(),
            optional(run.spec.trigger.scheduled_time.map(exact)),
            optional(run.spec.trigger.by.as_ref()),
            optional((status.warnings > 0).then_some(status.warnings)),
            optional(status.message.as_ref()),
        ],
    })
}

fn agent(item: &Value, now: Timestamp) -> Result<Row, Error> {
    let object: Object<AgentStatus> = parse(item)?;
    let status = object.status;
    Ok(Row {
        narrow: vec![
            object.metadata.name.into(),
            phase(status.phase.as_str()),
            format!("{}/{}", status.busy, status.slots).into(),
            status.pipelines.len().into(),
            or_dash(status.last_seen.map(|at| relative(at, now))),
            status.version.into(),
        ],
        narrow_only: vec![optional(status.message.clone())],
        wide: vec![
            or_dash(status.address),
            or_dash(status.transport),
            or_dash(status.lease_until.map(|at| relative(at, now))),
            labels(&object.metadata.labels).into(),
            optional(status.message),
        ],
    })
}

/// `slack team-chat`.
pub(super) fn destination(item: &Value) -> String {
    let fields = ["cloudEvents", "slack", "email", "commitStatus"];
    let given = fields.iter().find_map(|field| Some((*field, item.pointer("/spec")?.get(field)?)));
    given.map_or_else(String::new, |(field, to)| {
        let credential = to.get("credential").and_then(Value::as_str).unwrap_or_default();
        let repository = to.get("repository").and_then(Value::as_str).map(|of| format!(" {of}")).unwrap_or_default();
        format!("{field} {credential}{repository}")
    })
}

fn notifier(item: &Value, now: Timestamp) -> Result<Row, Error> {
    let object: Object<NotifierStatus> = parse(item)?;
    let status = object.status;
    let on = item.pointer("/spec/on").and_then(Value::as_array);
    let on: Vec<&str> = on.into_iter().flatten().filter_map(Value::as_str).collect();
    Ok(Row {
        narrow: vec![
            object.metadata.name.into(),
            phase(status.phase.as_str()),
            destination(item).into(),
            u64::from(status.pending).into(),
            status.delivered.into(),
            or_dash(status.delivered_at.map(|at| relative(at, now))),
        ],
        narrow_only: vec![optional(status.error.clone())],
        wide: vec![
            status.lost.into(),
            on.join(",").into(),
            format!("{}:{}", status.path, status.line).into(),
            labels(&object.metadata.labels).into(),
            optional(status.error),
        ],
    })
}

fn event(item: &Value, now: Timestamp) -> Result<Row, Error> {
    let event: Event = parse(item)?;
    let kind = event_type(&event);
    Ok(Row {
        narrow: vec![
            age(event.at, now).into(),
            Cell::styled(kind, phase_style(kind)),
            event.reason.into(),
            event.regarding.into(),
            event.message.into(),
        ],
        narrow_only: vec![],
        wide: vec![exact(event.at).into(), event.id.into()],
    })
}

/// The word of an event's type.
pub(super) const fn event_type(event: &Event) -> &'static str {
    match event.kind {
        xene_schemas::event::EventType::Normal => "Normal",
        xene_schemas::event::EventType::Warning => "Warning",
    }
}
