//! What people do to runs and workflows: a form comes, the API is asked in their name, the browser is led to what came of it.

use std::sync::Arc;

use axum::{
    Extension,
    extract::{Form, Path, State},
    response::Response,
};
use serde_json::{Value, json};
use xene_schemas::meta::{Name, RunName};

use super::{
    Ui,
    client::Failure,
    page,
    sign_in::{Fields, Session, check_form, field, see_other},
};
use crate::http::audit::about;

pub(super) async fn cancel(
    State(ui): State<Arc<Ui>>,
    Extension(session): Extension<Session>,
    Path(run): Path<String>,
    Form(fields): Fields,
) -> Response {
    act(&ui, &session, &run, "cancel", &fields, &json!({})).await
}

pub(super) async fn rerun(
    State(ui): State<Arc<Ui>>,
    Extension(session): Extension<Session>,
    Path(run): Path<String>,
    Form(fields): Fields,
) -> Response {
    let body = json!({"failed": field(&fields, "failed") == Some("true")});
    act(&ui, &session, &run, "rerun", &fields, &body).await
}

pub(super) async fn approve(
    State(ui): State<Arc<Ui>>,
    Extension(session): Extension<Session>,
    Path(run): Path<String>,
    Form(fields): Fields,
) -> Response {
    let (Some(task), Some(approved @ ("true" | "false"))) = (field(&fields, "task"), field(&fields, "approved")) else {
        let missing = Failure::new(axum::http::StatusCode::BAD_REQUEST, "a task and true or false are needed");
        return page::failed(Some(&session), &missing);
    };
    let body = json!({"task": task, "approved": approved == "true"});
    act(&ui, &session, &run, "approve", &fields, &body).await
}

async fn act(
    ui: &Ui,
    session: &Session,
    run: &str,
    action: &str,
    fields: &[(String, String)],
    body: &Value,
) -> Response {
    let asked = async {
        check_form(session, fields)?;
        let run: RunName = run.parse().map_err(|_| Failure::not_found())?;
        ui.client(session.who.clone()).post(&format!("/api/v1/runs/{run}/{action}"), body).await
    };
    match asked.await {
        Ok(answer) => {
            let name = name_of(&answer).unwrap_or(run);
            about(format!("run/{name}"), see_other(&format!("/runs/{name}"), None))
        }
        Err(failure) => page::failed(Some(session), &failure),
    }
}

pub(super) async fn suspend(
    State(ui): State<Arc<Ui>>,
    Extension(session): Extension<Session>,
    Path(workflow): Path<String>,
    Form(fields): Fields,
) -> Response {
    let why = field(&fields, "why").map(str::trim).filter(|why| !why.is_empty());
    act_on_workflow(&ui, &session, &workflow, "suspend", &fields, &json!({"why": why})).await
}

pub(super) async fn resume(
    State(ui): State<Arc<Ui>>,
    Extension(session): Extension<Session>,
    Path(workflow): Path<String>,
    Form(fields): Fields,
) -> Response {
    act_on_workflow(&ui, &session, &workflow, "resume", &fields, &json!({})).await
}

async fn act_on_workflow(
    ui: &Ui,
    session: &Session,
    workflow: &str,
    action: &str,
    fields: &[(String, String)],
    body: &Value,
) -> Response {
    let asked = async {
        check_form(session, fields)?;
        let workflow: Name = workflow.parse().map_err(|_| Failure::not_found())?;
        ui.client(session.who.clone()).post(&format!("/api/v1/workflows/{workflow}/{action}"), body).await?;
        Ok(workflow)
    };
    match asked.await {
        Ok(name) => about(format!("workflow/{name}"), see_other(&format!("/workflows/{name}"), None)),
        Err(failure) => page::failed(Some(session), &failure),
    }
}

/// The name of the run that an answer shows.
pub(super) fn name_of(answer: &Value) -> Option<&str> {
    answer.pointer("/metadata/name")?.as_str()
}
