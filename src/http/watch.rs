//! Changes as they are committed, as server-sent events.
//!
//! Each event's type is the kind of an object; its data the object as it is now, or `{"deleted": NAME}`. The id is the
//! store's revision. Who comes back with an older one hears of what changed meanwhile, each object once, as it is by then;
//! if that is not known any more, or they fall behind, they get an event `resync` and read the lists anew.

use std::{collections::BTreeSet, fmt::Write as _, sync::Arc, time::Duration};

use axum::{body::Bytes, extract::State, http::HeaderMap, response::Response};
use serde::Serialize;
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;
use xene_schemas::{
    event::Event,
    meta::{AgentName, Name, PipelineKey},
    source::{Source, SourceStatus},
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
    store::{Committed, Touched},
};

/// A client hears at least a comment this often, so that it can tell a quiet controller from a dead connection.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// Whoever missed more objects than that reads all anew: what is told again is put together in memory.
const RESUMED: usize = 512;
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
    let mut text = ": changes from here on\n".to_owned();
    // What can't be read is none of ours: nobody knows what its sender has seen. An empty one is what browsers send
    // before the first.
    let last = headers.get("last-event-id").filter(|id| !id.is_empty());
    let last = last.map(|id| id.to_str().ok().and_then(|id| id.parse::<u64>().ok()));
    let known = match last {
        None => Some((revision, BTreeSet::new())),
        Some(Some(last)) if last == revision => Some((revision, BTreeSet::new())),
        Some(last) => last.and_then(|last| api.handle.store().touched_since(last, RESUMED)),
    };
    let mut told = known.as_ref().map_or(revision, |(revision, _)| *revision);
    match known {
        Some((_, touched)) if touched.is_empty() => write_id(&mut text, told),
        Some((_, touched)) => {
            text.push('\n');
            write_touched(&api, &identity, &kinds, touched, told, &mut text).await?;
        }
        None => {
            text.push('\n');
            write_resync(&mut text, revision);
        }
    }
    Ok(stream("text/event-stream", move |sink| async move {
        let mut shown = told;
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
                    // What is none of its kinds has no event: who comes back after that need not hear of it either.
                    text.push_str(":\n");
                    if shown == told { text.push('\n') } else { write_id(&mut text, told) }
                    shown = told;
                    continue;
                }
                () = sink.closed() => return,
                () = stopped(api.config.stopping.clone()) => return,
            };
            if !identity.holds(&api) {
                return;
            }
            match next {
                Ok(group) => {
                    write_group(&api, &identity, &kinds, &group, &mut text).await;
                    // Who came back may have heard of it already.
                    told = told.max(group.revision);
                    if !text.is_empty() {
                        shown = told;
                    }
                }
                Err(RecvError::Lagged(_)) => {
                    committed = committed.resubscribe();
                    told = api.handle.store().revision().unwrap_or(told);
                    shown = told;
                    write_resync(&mut text, told);
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
    let mut named = Named::default();
    let sees_notifiers = kinds.contains("notifier") && identity.scope.is_all();
    let mut event_id = group.first_event;
    for change in &group.changes {
        let takes = |kind| kinds.contains(kind);
        match &**change {
            Change::PutWorkflow(row) => named.workflow(&row.metadata.name),
            Change::DeleteWorkflow(name) if takes("workflow") && sees(name) => write_deleted(text, "workflow", name),
            Change::PutPipeline(row) if takes("pipeline") => named.pipeline(&row.key),
            Change::PutOwner(key, _) if takes("pipeline") => named.pipeline(key),
            Change::DeletePipeline(key) if takes("pipeline") && sees(&key.workflow) => {
                write_deleted(text, "pipeline", key)
            }
            Change::PutRun(row) if takes("run") && sees(&row.run.spec.workflow) => {
                write_event(text, "run", &Object::new("Run", &row.run));
            }
            // Of which workflow it was nobody knows any more.
            Change::DeleteRun(name) if takes("run") && identity.scope.is_all() => write_deleted(text, "run", name),
            Change::PutAgent(row) if takes("agent") => drop(named.agents.insert(row.name.clone())),
            Change::DeleteAgent(name) if takes("agent") => write_deleted(text, "agent", name),
            Change::DeleteNotifier(name) if sees_notifiers => write_deleted(text, "notifier", name),
            Change::PutNotifier(row) if sees_notifiers => named.notifier(&row.metadata.name),
            Change::PutMessage(row) if sees_notifiers => named.notifier(&row.notifier),
            Change::DeleteMessage(name, ..) | Change::PutNotifierHealth(name, _) if sees_notifiers => {
                named.notifier(name);
            }
            Change::PutSource(status) if takes("source") => write_source(api, identity, (**status).clone(), text),
            Change::PutSuspension(SuspensionRow { what, .. }) | Change::DeleteSuspension(what) => {
                named.suspended(api, what);
            }
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
    // One that a later commit removed has its own event coming.
    named.write(api, identity, kinds, false, text).await;
    end_group(text, start, group.revision);
}

/// What changed while somebody was away: an event for each object, as it is now.
async fn write_touched(
    api: &Api,
    identity: &Identity,
    kinds: &BTreeSet<&'static str>,
    touched: BTreeSet<Touched>,
    revision: u64,
    text: &mut String,
) -> Result<(), Problem> {
    let (store, takes, start) = (api.handle.store(), |kind| kinds.contains(kind), text.len());
    let mut named = Named::default();
    for touched in touched {
        match touched {
            Touched::Workflow(name) => named.workflow(&name),
            Touched::Pipeline(key) => named.pipeline(&key),
            Touched::Agent(name) => drop(named.agents.insert(name)),
            Touched::Notifier(name) => named.notifier(&name),
            Touched::Suspended(what) => named.suspended(api, &what),
            Touched::Run(name) if takes("run") => match store.run(name)? {
                Some(row) if identity.scope.has(&row.run.spec.workflow) => {
                    write_event(text, "run", &Object::new("Run", &row.run));
                }
                None if identity.scope.is_all() => write_deleted(text, "run", &name),
                Some(_) | None => {}
            },
            Touched::Source if takes("source") => {
                if let Some(status) = store.source()? {
                    write_source(api, identity, status, text);
                }
            }
            Touched::Event(id) if takes("event") => {
                let event = store.events(id.checked_add(1), 1, |_| true)?.pop().filter(|event| event.id == id);
                if let Some(event) = event.filter(|event| identity.scope.has_event(api, &event.regarding)) {
                    write_event(text, "event", &Object::new("Event", event));
                }
            }
            Touched::Run(_) | Touched::Source | Touched::Event(_) => {}
        }
    }
    named.write(api, identity, kinds, true, text).await;
    if text.len() == start {
        // Nothing of it is for them.
        text.truncate(start - 1);
        write_id(text, revision);
    } else {
        end_group(text, start, revision);
    }
    Ok(())
}

/// Objects that have an event each, however often they changed.
#[derive(Default)]
struct Named {
    workflows: BTreeSet<Name>,
    pipelines: BTreeSet<PipelineKey>,
    agents: BTreeSet<AgentName>,
    notifiers: BTreeSet<Name>,
}

impl Named {
    fn workflow(&mut self, name: &Name) {
        self.workflows.insert(name.clone());
    }

    fn pipeline(&mut self, key: &PipelineKey) {
        self.pipelines.insert(key.clone());
    }

    fn notifier(&mut self, name: &Name) {
        self.notifiers.insert(name.clone());
    }

    fn suspended(&mut self, api: &Api, what: &Suspendable) {
        match what {
            Suspendable::Source => {}
            Suspendable::Workflow(name) => {
                self.workflow(name);
                let of_it = api.handle.store().pipelines(Some(name), None, usize::MAX, |_| true);
                self.pipelines.extend(of_it.unwrap_or_default().into_iter().map(|row| row.key));
            }
            Suspendable::Pipeline(key) => self.pipeline(key),
        }
    }

    /// Writes those that are of these kinds and in sight; `with_deleted` also those that are not there.
    async fn write(
        self,
        api: &Api,
        identity: &Identity,
        kinds: &BTreeSet<&'static str>,
        with_deleted: bool,
        text: &mut String,
    ) {
        let (takes, sees) = (|kind| kinds.contains(kind), |workflow: &Name| identity.scope.has(workflow));
        for name in self.workflows.into_iter().filter(|name| takes("workflow") && sees(name)) {
            match workflow_object(api, &name) {
                Ok(Some(object)) => write_event(text, "workflow", &object),
                Ok(None) if with_deleted => write_deleted(text, "workflow", &name),
                Ok(None) | Err(_) => {}
            }
        }
        for key in self.pipelines.into_iter().filter(|key| takes("pipeline") && sees(&key.workflow)) {
            match pipeline_object(api, identity, &key) {
                Ok(Some(object)) => write_event(text, "pipeline", &object),
                Ok(None) if with_deleted => write_deleted(text, "pipeline", &key),
                Ok(None) | Err(_) => {}
            }
        }
        for name in self.agents.into_iter().filter(|_| takes("agent")) {
            let wanted = name.clone();
            match api.handle.view(move |controller, now| controller.agent(now, &wanted)).await {
                Ok(Some(agent)) => {
                    write_event(text, "agent", &Object::new("Agent", visible_agent(&identity.scope, agent)));
                }
                Ok(None) if with_deleted => write_deleted(text, "agent", &name),
                Ok(None) | Err(_) => {}
            }
        }
        for name in self.notifiers.into_iter().filter(|_| takes("notifier") && identity.scope.is_all()) {
            let wanted = name.clone();
            match api.handle.view(move |controller, _| controller.notifier(&wanted)).await {
                Ok(Some(notifier)) => write_event(text, "notifier", &Object::new("Notifier", notifier)),
                Ok(None) if with_deleted => write_deleted(text, "notifier", &name),
                Ok(None) | Err(_) => {}
            }
        }
    }
}

fn write_source(api: &Api, identity: &Identity, status: SourceStatus, text: &mut String) {
    if let Ok(status) = visible_source(api, &identity.scope, status) {
        write_event(text, "source", &Object::new("Source", Source { status }));
    }
}

/// Gives the last of the events since `start` the id: a client that was cut off before has not seen all of it.
fn end_group(text: &mut String, start: usize, revision: u64) {
    if text.len() > start {
        text.truncate(text.len() - 1);
        write_id(text, revision);
    }
}

/// Ends a block with what its reader names when it comes back; one of this alone is no event.
fn write_id(text: &mut String, revision: u64) {
    // Writing to a String can't fail.
    let _ = write!(text, "id: {revision}\n\n");
}

fn write_resync(text: &mut String, revision: u64) {
    let start = text.len();
    write_event(text, "resync", &json!({"revision": revision}));
    end_group(text, start, revision);
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
