//! What people do to runs and workflows: a form comes, the API is asked in their name, the browser is led to what came of it.

use std::{fmt::Display, str::FromStr, sync::Arc};

use axum::{
    Extension,
    extract::{Path, State},
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
    Fields(fields): Fields,
) -> Response {
    act::<RunName>(&ui, &session, ("run", &run), "cancel", &fields, &json!({})).await
}

pub(super) async fn rerun(
    State(ui): State<Arc<Ui>>,
    Extension(session): Extension<Session>,
    Path(run): Path<String>,
    Fields(fields): Fields,
) -> Response {
    let body = json!({"failed": field(&fields, "failed") == Some("true")});
    act::<RunName>(&ui, &session, ("run", &run), "rerun", &fields, &body).await
}

pub(super) async fn approve(
    State(ui): State<Arc<Ui>>,
    Extension(session): Extension<Session>,
    Path(run): Path<String>,
    Fields(fields): Fields,
) -> Response {
    let (Some(task), Some(approved @ ("true" | "false"))) = (field(&fields, "task"), field(&fields, "approved")) else {
        let missing = Failure::new(axum::http::StatusCode::BAD_REQUEST, "a task and true or false are needed");
        return page::failed(Some(&session), &missing);
    };
    let body = json!({"task": task, "approved": approved == "true"});
    act::<RunName>(&ui, &session, ("run", &run), "approve", &fields, &body).await
}

pub(super) async fn suspend(
    State(ui): State<Arc<Ui>>,
    Extension(session): Extension<Session>,
    Path(workflow): Path<String>,
    Fields(fields): Fields,
) -> Response {
    let why = field(&fields, "why").map(str::trim).filter(|why| !why.is_empty());
    act::<Name>(&ui, &session, ("workflow", &workflow), "suspend", &fields, &json!({"why": why})).await
}

pub(super) async fn resume(
    State(ui): State<Arc<Ui>>,
    Extension(session): Extension<Session>,
    Path(workflow): Path<String>,
    Fields(fields): Fields,
) -> Response {
    act::<Name>(&ui, &session, ("workflow", &workflow), "resume", &fields, &json!({})).await
}

/// Asks the API for an action on a run or a workflow, and leads to it, or to the run that came of it.
async fn act<N: FromStr + Display>(
    ui: &Ui,
    session: &Session,
    (kind, name): (&str, &str),
    action: &str,
    fields: &[(String, String)],
    body: &Value,
) -> Response {
    let asked = async {
        check_form(session, fields)?;
        let name: N = name.parse().map_err(|_| Failure::not_found())?;
        ui.client(session.who.clone()).post(&format!("/api/v1/{kind}s/{name}/{action}"), body).await
    };
    match asked.await {
        Ok(answer) => {
            let name = name_of(&answer).unwrap_or(name);
            about(format!("{kind}/{name}"), see_other(&format!("/{kind}s/{name}"), None))
        }
        Err(failure) => page::failed(Some(session), &failure),
    }
}

/// The name of what an answer shows.
pub(super) fn name_of(answer: &Value) -> Option<&str> {
    answer.pointer("/metadata/name")?.as_str()
}
