//! Objects as the API shows them, built from rows.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use jiff::Timestamp;
use serde::Serialize;
use xene_agent::decide::cron::Schedule;
use xene_schemas::{
    meta::{API_VERSION, Name, PipelineKey},
    object::{LastRun, PipelineMeta, PipelineObject, PipelineStatus, TriggerWebhook, WorkflowObject, WorkflowStatus},
    phase::{PipelinePhase, Reason, WorkflowPhase},
    suspension::Suspension,
    trigger::Trigger,
    workflow::WorkflowSpec,
};

use super::{
    Api,
    identity::{Identity, Role},
};
use crate::{
    decide::rows::{PipelineRow, Suspendable, SuspensionRow, WorkflowRow},
    store::StoreError,
};

/// One object: what it is, then itself.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Object<T> {
    api_version: &'static str,
    kind: &'static str,
    #[serde(flatten)]
    object: T,
}

impl<T: Serialize> Object<T> {
    pub(super) fn new(kind: &'static str, object: T) -> Self {
        Self { api_version: API_VERSION, kind, object }
    }
}

impl<T: Serialize> IntoResponse for Object<T> {
    fn into_response(self) -> Response {
        json(StatusCode::OK, &self)
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct List<T> {
    api_version: &'static str,
    kind: &'static str,
    items: Vec<Object<T>>,
}

/// A list of objects of one kind.
pub(super) fn list<T: Serialize>(kind: &'static str, items: Vec<T>) -> Response {
    let items = items.into_iter().map(|item| Object::new(kind, item)).collect();
    json(StatusCode::OK, &List { api_version: API_VERSION, kind: "List", items })
}

/// An answer in JSON.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(bytes) => {
            let kind = (header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            (status, [kind], bytes).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "an answer can't be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// What is suspended by command, as of one look at the store.
pub(super) struct Suspensions(Vec<SuspensionRow>);

impl Suspensions {
    pub(super) fn read(api: &Api) -> Result<Self, StoreError> {
        api.handle.store().suspensions().map(Self)
    }

    fn of(&self, what: &Suspendable) -> Option<Suspension> {
        self.0.iter().find(|row| row.what == *what).map(|row| row.suspension.clone())
    }

    fn of_workflow(&self, name: &Name) -> Option<Suspension> {
        self.of(&Suspendable::Workflow(name.clone()))
    }

    /// Its own, or its workflow's.
    pub(super) fn of_pipeline(&self, key: &PipelineKey) -> Option<Suspension> {
        self.of(&Suspendable::Pipeline(key.clone())).or_else(|| self.of_workflow(&key.workflow))
    }
}

/// How a workflow goes, in a word.
pub(super) fn workflow_phase(row: &WorkflowRow, suspensions: &Suspensions) -> WorkflowPhase {
    match (row.valid, row.spec.suspend || suspensions.of_workflow(&row.metadata.name).is_some()) {
        (false, _) => WorkflowPhase::Invalid,
        (true, true) => WorkflowPhase::Suspended,
        (true, false) => WorkflowPhase::Ready,
    }
}

/// A workflow.
pub(super) fn workflow(row: WorkflowRow, suspensions: &Suspensions) -> WorkflowObject {
    let phase = workflow_phase(&row, suspensions);
    let suspension = suspensions.of_workflow(&row.metadata.name);
    let invalid = || format!("{} has a problem; what it last gave is in effect", row.path);
    let message = row.held.clone().or_else(|| (!row.valid).then(invalid));
    let WorkflowRow { metadata, spec, revision, path, line, generation, hash, .. } = row;
    let status = WorkflowStatus { phase, revision, path, line, generation, spec_hash: hash, message, suspension };
    WorkflowObject { metadata, spec, status }
}

/// A pipeline, with what other rows say of it; `workflow` is its workflow's.
pub(super) fn pipeline(
    api: &Api,
    identity: &Identity,
    row: PipelineRow,
    workflow: Option<&WorkflowRow>,
    suspensions: &Suspensions,
    now: Timestamp,
) -> Result<PipelineObject, StoreError> {
    let store = api.handle.store();
    let owner = store.owner(&row.key)?;
    let last_run =
        store.last_run(&row.key)?.map(|row| LastRun { name: row.run.metadata.name, phase: row.run.status.phase });
    let agent = owner.as_ref().and_then(|owner| owner.owner.clone());
    let suspension = suspensions.of_pipeline(&row.key);
    let suspended = row.suspend || suspension.is_some();
    let next_fire = workflow.filter(|_| !suspended).and_then(|workflow| next_fire(&row, &workflow.spec, now));
    let webhooks = workflow.map(|workflow| webhooks(api, identity, &row, workflow)).unwrap_or_default();
    let status = PipelineStatus {
        phase: if agent.is_some() { PipelinePhase::Scheduled } else { PipelinePhase::NotScheduled },
        reason: match &owner {
            Some(owner) => owner.reason.clone().or_else(|| suspended.then_some(Reason::SUSPENDED)),
            None => Some(Reason::NO_AGENT_AVAILABLE),
        },
        message: Some(owner.as_ref().map_or_else(|| "no agent has been chosen yet".to_owned(), |o| o.message.clone()))
            .filter(|message| !message.is_empty()),
        epoch: owner.as_ref().filter(|_| agent.is_some()).map(|owner| owner.epoch),
        agent,
        revision: row.revision,
        spec_hash: row.spec_hash,
        suspension,
        next_fire,
        last_run,
        webhooks,
        webhook: Some(hook_path(&row.key)),
        // Whoever has it may start the pipeline.
        webhook_token: (identity.role >= Role::Operator).then(|| api.config.hooks.token(&row.key)),
    };
    Ok(PipelineObject { metadata: PipelineMeta { name: row.key }, spec: row.spec, status })
}

/// The webhook triggers of a pipeline whose senders have a proof of their own.
fn webhooks(api: &Api, identity: &Identity, row: &PipelineRow, workflow: &WorkflowRow) -> Vec<TriggerWebhook> {
    let of = &row.key.workflow;
    let named = row.spec.triggers.0.iter().filter_map(|name| match workflow.spec.triggers.get(name)? {
        Trigger::Webhook(webhook) => Some((name, webhook.auth.as_ref()?)),
        Trigger::Cron(_) => None,
    });
    let shown = named.map(|(name, auth)| TriggerWebhook {
        trigger: name.clone(),
        path: format!("/hooks/{of}/triggers/{name}"),
        auth: auth.kind.as_str().to_owned(),
        secret: (identity.role >= Role::Operator).then(|| api.config.hooks.trigger_secret(of, name, &auth.secret)),
    });
    shown.collect()
}

/// Where a pipeline's own webhook is.
fn hook_path(key: &PipelineKey) -> String {
    format!("/hooks/{}/pipelines/{}", key.workflow, key.pipeline)
}

/// The first due time of all cron triggers of a pipeline.
fn next_fire(row: &PipelineRow, workflow: &WorkflowSpec, now: Timestamp) -> Option<Timestamp> {
    let triggers = row.spec.triggers.0.iter().filter_map(|name| workflow.triggers.get(name));
    let due = triggers.filter_map(|trigger| match trigger {
        Trigger::Cron(cron) if !cron.suspend => Schedule::parse(cron).ok()?.next_after(now),
        Trigger::Cron(_) | Trigger::Webhook(_) => None,
    });
    due.min()
}
