//! Changes as they are committed, as server-sent events.
//!
//! Each event's type is the kind of an object; its data the object as it is now, or `{"deleted": NAME}`. The id is the
//! store's revision. Nothing is replayed: who comes back with an older id, or falls behind, gets an event `resync` and
//! reads the lists anew.

use std::{collections::BTreeSet, fmt::Write as _, sync::Arc, time::Duration};

use axum::{body::Bytes, extract::State, http::HeaderMap, response::Response};
use serde::Serialize;
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;
use xene_schemas::{
    event::Event,
    meta::{AgentName, Name, PipelineKey},
    source::Source,
};

use super::{
    Api,
    identity::Identity,
    lists::{pipeline_object, visible_agent, visible_source, workflow_object},
    objects::Object,
    problem::Problem,
    query::Query,
    stopped,
    stream::stream,
};
use crate::{
    decide::rows::{Change, Suspendable, SuspensionRow},
    store::Committed,
};

/// A client hears at least a comment this often, so that it can tell a quiet controller from a dead connection.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(20);

const KINDS: &[&str] = &["workflow", "pipeline", "run", "agent", "notifier", "source", "event"];

pub(super) async fn watch(
    State(api): State<Arc<Api>>,
    identity: Identity,
    headers: HeaderMap,
    mut query: Query,
) -> Result<Response, Problem> {
    let kinds = parse_kinds(query.take("kinds").as_deref())?;
    query.finish()?;
    let mut committed = api.handle.watch();
    // Read after subscribing: what is committed in between is seen twice rather than not at all.
    let revision = api.handle.store().revision()?;
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse::<u64>().ok());
    let mut text = ": changes from here on\n\n".to_owned();
    if last.is_some_and(|last| last != revision) {
        write_event(&mut text, "resync", &json!({"revision": revision}));
    }
    Ok(stream("text/event-stream", move |sink| async move {
        loop {
            if !text.is_empty() && sink.send(Bytes::from(std::mem::take(&mut text))).await.is_err() {
                return;
            }
            let next = tokio::select! {
                next = committed.recv() => next,
                () = tokio::time::sleep(KEEP_ALIVE) => {
                    if !identity.holds(&api) {
                        return;
                    }
                    text.push_str(":\n\n");
                    continue;
                }
                () = sink.closed() => return,
                () = stopped(api.config.stopping.clone()) => return,
            };
            if !identity.holds(&api) {
                return;
            }
            match next {
                Ok(group) => write_group(&api, &identity, &kinds, &group, &mut text).await,
                Err(RecvError::Lagged(_)) => {
                    committed = committed.resubscribe();
                    let revision = api.handle.store().revision().unwrap_or_default();
                    write_event(&mut text, "resync", &json!({"revision": revision}));
                }
                Err(RecvError::Closed) => return,
            }
        }
    }))
}

/// Of all, or of those that are named, in singular or plural.
fn parse_kinds(kinds: Option<&str>) -> Result<BTreeSet<&'static str>, Problem> {
    let Some(kinds) = kinds else { return Ok(KINDS.iter().copied().collect()) };
    let parse = |word: &str| {
        let found = KINDS.iter().copied().find(|kind| word == *kind || word.strip_suffix('s') == Some(kind));
        found.ok_or_else(|| Problem::bad_request(format!("kinds takes {}, not {word:?}", KINDS.join(", "))))
    };
    kinds.split(',').map(parse).collect()
}

/// One commit: an event for each object that it changed.
async fn write_group(
    api: &Api,
    identity: &Identity,
    kinds: &BTreeSet<&'static str>,
    group: &Committed,
    text: &mut String,
) {
    let sees = |workflow: &Name| identity.scope.has(workflow);
    let start = text.len();
    let (mut pipelines, mut agents) = (BTreeSet::<&PipelineKey>::new(), BTreeSet::<&AgentName>::new());
    let (mut workflows, mut suspended) = (BTreeSet::<&Name>::new(), BTreeSet::<PipelineKey>::new());
    let mut notifiers = BTreeSet::<&Name>::new();
    let sees_notifiers = kinds.contains("notifier") && identity.scope.is_all();
    let mut event_id = group.first_event;
    for change in &group.changes {
        let takes = |kind| kinds.contains(kind);
        match &**change {
            Change::PutWorkflow(row) => drop(workflows.insert(&row.metadata.name)),
            Change::DeleteWorkflow(name) if takes("workflow") && sees(name) => write_deleted(text, "workflow", name),
            Change::PutPipeline(row) if takes("pipeline") => drop(pipelines.insert(&row.key)),
            Change::PutOwner(key, _) if takes("pipeline") => drop(pipelines.insert(key)),
            Change::DeletePipeline(key) if takes("pipeline") && sees(&key.workflow) => {
                write_deleted(text, "pipeline", key)
            }
            Change::PutRun(row) if takes("run") && sees(&row.run.spec.workflow) => {
                write_event(text, "run", &Object::new("Run", &row.run));
            }
            // Of which workflow it was nobody knows any more.
            Change::DeleteRun(name) if takes("run") && identity.scope.is_all() => write_deleted(text, "run", name),
            Change::PutAgent(row) if takes("agent") => drop(agents.insert(&row.name)),
            Change::DeleteAgent(name) if takes("agent") => write_deleted(text, "agent", name),
            Change::DeleteNotifier(name) if sees_notifiers => write_deleted(text, "notifier", name),
            Change::PutNotifier(row) if sees_notifiers => drop(notifiers.insert(&row.metadata.name)),
            Change::PutMessage(row) if sees_notifiers => drop(notifiers.insert(&row.notifier)),
            Change::DeleteMessage(name, ..) | Change::PutNotifierHealth(name, _) if sees_notifiers => {
                notifiers.insert(name);
            }
            Change::PutSource(status) if takes("source") => {
                if let Ok(status) = visible_source(api, &identity.scope, (**status).clone()) {
                    write_event(text, "source", &Object::new("Source", Source { status }));
                }
            }
            Change::PutSuspension(SuspensionRow { what, .. }) | Change::DeleteSuspension(what) => match what {
                Suspendable::Source => {}
                Suspendable::Workflow(name) => {
                    workflows.insert(name);
                    let of_it = api.handle.store().pipelines(Some(name), None, usize::MAX, |_| true);
                    suspended.extend(of_it.unwrap_or_default().into_iter().map(|row| row.key));
                }
                Suspendable::Pipeline(key) => drop(suspended.insert(key.clone())),
            },
            Change::AddEvent(event) => {
                if takes("event") && identity.scope.has_event(api, &event.regarding) {
                    let crate::decide::rows::NewEvent { at, kind, reason, message, regarding } = event.clone();
                    let event = Event { id: event_id, at, kind, reason, message, regarding };
                    write_event(text, "event", &Object::new("Event", event));
                }
                event_id += 1;
            }
            _ => {}
        }
    }
    if kinds.contains("workflow") {
        for name in workflows.into_iter().filter(|name| sees(name)) {
            if let Ok(Some(object)) = workflow_object(api, name) {
                write_event(text, "workflow", &object);
            }
        }
    }
    pipelines.extend(suspended.iter().filter(|_| kinds.contains("pipeline")));
    for key in pipelines.into_iter().filter(|key| sees(&key.workflow)) {
        // One that a later commit removed has its own event coming.
        if let Ok(Some(object)) = pipeline_object(api, identity, key) {
            write_event(text, "pipeline", &object);
        }
    }
    for name in agents {
        let name = name.clone();
        if let Ok(Some(agent)) = api.handle.view(move |controller, now| controller.agent(now, &name)).await {
            write_event(text, "agent", &Object::new("Agent", visible_agent(&identity.scope, agent)));
        }
    }
    for name in notifiers {
        let name = name.clone();
        if let Ok(Some(notifier)) = api.handle.view(move |controller, _| controller.notifier(&name)).await {
            write_event(text, "notifier", &Object::new("Notifier", notifier));
        }
    }
    if text.len() > start {
        // Only the last one has it: a client that was cut off within the commit has not seen all of it.
        text.truncate(text.len() - 1);
        // Writing to a String can't fail.
        let _ = write!(text, "id: {}\n\n", group.revision);
    }
}

fn write_deleted(text: &mut String, kind: &str, name: &impl std::fmt::Display) {
    write_event(text, kind, &json!({"deleted": name.to_string()}));
}

fn write_event(text: &mut String, kind: &str, data: &impl Serialize) {
    match serde_json::to_string(data) {
        // JSON on one line has no line feed.
        Ok(data) => text.extend(["event: ", kind, "\ndata: ", &data, "\n\n"]),
        Err(error) => tracing::error!(%error, kind, "a change can't be told"),
    }
}
