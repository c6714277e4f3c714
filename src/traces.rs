//! Traces for OpenTelemetry: what became of a commit, and what a run did, as spans in OTLP's JSON.
//!
//! A run is a trace of its own, whose id is the run's name as bytes; its first span links to that of the commit that it
//! ran. Ids are derived, so nothing about traces is kept. Here is what is said; [`export`] says it.

pub mod export;

use jiff::Timestamp;
use serde_json::{Value, json};
use xene_agent::session::tls::hex;
use xene_schemas::{
    meta::{PipelineKey, Revision, RunName},
    phase::{RunPhase, StepPhase, TaskPhase},
    run::Run,
    source::SourceStatus,
};

use crate::decide::rows::OwnerRow;

type TraceId = [u8; 16];
type SpanId = [u8; 8];

/// Something that took its time.
#[derive(Debug, Clone)]
pub struct Span {
    trace: TraceId,
    id: SpanId,
    parent: Option<SpanId>,
    name: String,
    start: Timestamp,
    end: Timestamp,
    attributes: Vec<(&'static str, Value)>,
    links: Vec<(TraceId, SpanId)>,
    /// Why it failed, if it did.
    error: Option<String>,
}

fn hash(parts: &[&str]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new_derive_key("xene 2026-11-27 span");
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finalize()
}

fn first<const N: usize>(parts: &[&str]) -> [u8; N] {
    let mut id = [0; N];
    id.copy_from_slice(&hash(parts).as_bytes()[..N]);
    id
}

/// The trace of a commit, and its first span.
fn of_revision(revision: &Revision) -> (TraceId, SpanId) {
    (first(&["commit", &revision.0]), first(&["commit", &revision.0, "root"]))
}

/// The first span of a run.
fn root_of(run: RunName) -> SpanId {
    first(&["run", &run.to_string()])
}

/// What a revision that has just taken effect (`durable`) took: from the look at the source that found it.
pub fn of_commit(source: &SourceStatus, durable: Timestamp) -> Vec<Span> {
    let Some(revision) = &source.revision else { return Vec::new() };
    let (trace, root) = of_revision(revision);
    let applied = source.synced_at.unwrap_or(durable).min(durable);
    let mut attributes = vec![("xene.revision", json!(revision.0)), ("xene.source", json!(source.url))];
    attributes.extend(source.branch.iter().map(|branch| ("xene.branch", json!(branch))));
    attributes.extend(source.author.iter().map(|author| ("xene.author", json!(author))));
    attributes.push(("xene.problems", json!(source.problems.len())));
    let span = |id, parent, name: &str, start| Span {
        trace,
        id,
        parent,
        name: name.to_owned(),
        start,
        end: durable,
        attributes: Vec::new(),
        links: Vec::new(),
        error: None,
    };
    let seen = source.observed_at.unwrap_or(applied).min(applied);
    vec![
        Span { attributes, ..span(root, None, "commit", seen) },
        span(first(&["commit", &revision.0, "reconcile"]), Some(root), "reconcile", applied),
    ]
}

/// That a pipeline got an owner.
pub fn of_grant(key: &PipelineKey, owner: &OwnerRow, revision: &Revision, at: Timestamp) -> Option<Span> {
    let agent = owner.owner.as_ref()?;
    let (trace, root) = of_revision(revision);
    Some(Span {
        trace,
        id: first(&["grant", &key.to_string(), &owner.epoch.0.to_string()]),
        parent: Some(root),
        name: format!("grant {key}"),
        start: at,
        end: at,
        attributes: vec![
            ("xene.pipeline", json!(key.to_string())),
            ("xene.agent", json!(agent.to_string())),
            ("xene.epoch", json!(owner.epoch.0)),
        ],
        links: Vec::new(),
        error: None,
    })
}

/// What a run that has ended did: itself, its wait, its tasks, their steps.
pub fn of_run(run: &Run) -> Vec<Span> {
    let (name, spec, status) = (run.metadata.name, &run.spec, &run.status);
    let (trace, root, text) = (name.to_bytes(), root_of(name), name.to_string());
    let begun = run.metadata.created_at;
    let ended = status.finished_at.unwrap_or(begun).max(begun);
    let mut attributes = vec![
        ("xene.run", json!(text)),
        ("xene.workflow", json!(spec.workflow.as_str())),
        ("xene.pipeline", json!(spec.pipeline.as_str())),
        ("xene.revision", json!(spec.revision.0)),
        ("xene.trigger", json!(spec.trigger.kind.as_str())),
        ("xene.phase", json!(status.phase.as_str())),
    ];
    attributes.extend(status.reason.as_ref().map(|reason| ("xene.reason", json!(reason.as_str()))));
    attributes.extend(status.agent.as_ref().map(|agent| ("xene.agent", json!(agent.to_string()))));
    attributes.extend(status.epoch.map(|epoch| ("xene.epoch", json!(epoch.0))));
    let links =
        [Some(of_revision(&spec.revision)), spec.rerun_of.map(|earlier| (earlier.to_bytes(), root_of(earlier)))];
    let why = |message: &Option<String>, reason: Option<&str>| {
        message.clone().unwrap_or_else(|| reason.unwrap_or_default().to_owned())
    };
    let child = |parts: &[&str], parent, name: String, start, end: Option<Timestamp>| Span {
        trace,
        id: first(&[&[text.as_str()], parts].concat()),
        parent: Some(parent),
        name,
        start,
        end: end.unwrap_or(ended).max(start),
        attributes: Vec::new(),
        links: Vec::new(),
        error: None,
    };
    let mut spans = vec![Span {
        trace,
        id: root,
        parent: None,
        name: format!("run {}", spec.key()),
        start: begun,
        end: ended,
        attributes,
        links: links.into_iter().flatten().collect(),
        error: (status.phase == RunPhase::Error)
            .then(|| why(&status.message, status.reason.as_ref().map(|r| r.as_str()))),
    }];
    spans.extend(status.started_at.map(|at| child(&["wait"], root, "wait".to_owned(), begun, Some(at))));
    for (task, of) in &status.tasks {
        let Some(start) = of.started_at else { continue };
        let span = child(&["task", task], root, format!("task {task}"), start, of.finished_at);
        let parent = span.id;
        spans.push(Span {
            attributes: vec![("xene.phase", json!(of.phase.as_str())), ("xene.attempt", json!(of.attempt))],
            error: (of.phase == TaskPhase::Error).then(|| why(&of.message, of.reason.as_ref().map(|r| r.as_str()))),
            ..span
        });
        for step in &of.steps {
            let Some(start) = step.started_at else { continue };
            let span =
                child(&["step", task, &step.name], parent, format!("step {}", step.name), start, step.finished_at);
            let exit = step.exit_code.map(|code| ("process.exit.code", json!(code)));
            spans.push(Span {
                attributes: [Some(("xene.phase", json!(step.phase.as_str()))), exit].into_iter().flatten().collect(),
                error: (step.phase == StepPhase::Error)
                    .then(|| why(&step.message, step.reason.as_ref().map(|r| r.as_str()))),
                ..span
            });
        }
    }
    spans
}

/// Spans as the body of a request: `ExportTraceServiceRequest` of OTLP 1, in JSON.
pub fn request(spans: &[Span]) -> Value {
    let attribute = |(key, value): &(&str, Value)| {
        let value = match value {
            Value::Number(number) => json!({"intValue": number.to_string()}),
            value => json!({"stringValue": value}),
        };
        json!({"key": key, "value": value})
    };
    let span = |span: &Span| {
        let mut told = json!({
            "traceId": hex(&span.trace),
            "spanId": hex(&span.id),
            "name": span.name,
            // Internal: neither a client's nor a server's half of a call.
            "kind": 1,
            "startTimeUnixNano": span.start.as_nanosecond().to_string(),
            "endTimeUnixNano": span.end.as_nanosecond().to_string(),
            "attributes": span.attributes.iter().map(attribute).collect::<Vec<_>>(),
        });
        if let Some(parent) = &span.parent {
            told["parentSpanId"] = hex(parent).into();
        }
        if !span.links.is_empty() {
            let link = |(trace, id): &(TraceId, SpanId)| json!({"traceId": hex(trace), "spanId": hex(id)});
            told["links"] = span.links.iter().map(link).collect();
        }
        if let Some(error) = &span.error {
            told["status"] = json!({"code": 2, "message": error});
        }
        told
    };
    let service = [("service.name", json!("xene")), ("service.version", json!(env!("CARGO_PKG_VERSION")))];
    json!({"resourceSpans": [{
        "resource": {"attributes": service.iter().map(attribute).collect::<Vec<_>>()},
        "scopeSpans": [{"scope": {"name": "xene"}, "spans": spans.iter().map(span).collect::<Vec<_>>()}],
    }]})
}

#[cfg(test)]
mod tests;
