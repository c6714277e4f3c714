//! Starting a run: a form made of the pipeline's params.

use std::sync::Arc;

use axum::{
    Extension,
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use maud::{Markup, html};
use serde_json::{Map, Value, json};
use xene_schemas::{
    meta::PipelineKey,
    object::{PipelineObject, WorkflowObject},
    param::{Param, ParamType},
    run::Run,
};

use super::{
    Ui,
    act::name_of,
    client::{Client, Failure},
    html::plain,
    page::{self, Page, token},
    sign_in::{Fields, Session, check_form, field, see_other},
};
use crate::{
    http::{identity::Role, query::Query},
    percent::encode,
};

/// Params are fields of this prefix, so that no name of one means something else.
const PREFIX: &str = "param.";

pub(super) async fn form(
    State(ui): State<Arc<Ui>>,
    Extension(session): Extension<Session>,
    Path((workflow, pipeline)): Path<(String, String)>,
    mut query: Query,
) -> Response {
    let client = ui.client(session.who.clone());
    let like = query.take("like");
    let filled = async {
        if session.who.role < Role::Operator {
            let detail = format!("{} may look, and not start anything", session.who.name);
            return Err(Failure::new(StatusCode::FORBIDDEN, detail));
        }
        let (key, params) = params(&client, &workflow, &pipeline).await?;
        let given = match like {
            Some(run) => client.get::<Run>(&format!("/api/v1/runs/{}", encode(&run))).await?.spec.params,
            None => indexmap::IndexMap::new(),
        };
        let value_of = |name: &str| given.get(name).cloned();
        Ok(start_page(&session, &key, &params, &value_of, None))
    };
    match filled.await {
        Ok(page) => page::fixed(StatusCode::OK, &session, "/workflows", &page),
        Err(failure) => page::failed(Some(&session), &failure),
    }
}

pub(super) async fn start(
    State(ui): State<Arc<Ui>>,
    Extension(session): Extension<Session>,
    Path((workflow, pipeline)): Path<(String, String)>,
    Fields(fields): Fields,
) -> Response {
    let client = ui.client(session.who.clone());
    let prepared = async {
        check_form(&session, &fields)?;
        params(&client, &workflow, &pipeline).await
    };
    let (key, params) = match prepared.await {
        Ok(prepared) => prepared,
        Err(failure) => return page::failed(Some(&session), &failure),
    };
    let given: Map<String, Value> = fields
        .iter()
        .filter_map(|(name, value)| Some((name.strip_prefix(PREFIX)?, value)))
        // What is left empty is left to its default.
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| (name.to_owned(), value.as_str().into()))
        .collect();
    let force = field(&fields, "force").is_some();
    let body = json!({"workflow": key.workflow, "pipeline": key.pipeline, "params": given, "force": force});
    match client.post("/api/v1/runs", &body).await {
        Ok(answer) => see_other(&format!("/runs/{}", name_of(&answer).unwrap_or_default()), None),
        Err(failure) => {
            let status = failure.status;
            let value_of = |name: &str| given.get(name).and_then(Value::as_str).map(str::to_owned);
            let page = start_page(&session, &key, &params, &value_of, Some(&failure));
            page::fixed(status, &session, "/workflows", &page)
        }
    }
}

/// The params that a run takes: the workflow's, overlaid by the pipeline's.
async fn params(
    client: &Client,
    workflow: &str,
    pipeline: &str,
) -> Result<(PipelineKey, Vec<(String, Param)>), Failure> {
    let (workflow, pipeline) = (encode(workflow), encode(pipeline));
    let of_pipeline: PipelineObject = client.get(&format!("/api/v1/pipelines/{workflow}/{pipeline}")).await?;
    let of_workflow: WorkflowObject = client.get(&format!("/api/v1/workflows/{workflow}")).await?;
    let mut params = of_workflow.spec.params.into_inner();
    params.extend(of_pipeline.spec.params.into_inner());
    Ok((of_pipeline.metadata.name, params.into_iter().collect()))
}

fn start_page(
    session: &Session,
    key: &PipelineKey,
    params: &[(String, Param)],
    value_of: &dyn Fn(&str) -> Option<String>,
    failure: Option<&Failure>,
) -> Page {
    let is_suspended = failure.is_some_and(|failure| failure.reason.as_deref() == Some("Suspended"));
    let body = html! {
        form.start method="post" action={ "/workflows/" (key.workflow) "/" (key.pipeline) "/start" } {
            (token(session))
            @if let Some(failure) = failure { p.problem role="alert" { (plain(&failure.detail)) } }
            @if params.is_empty() { p.quiet { "It takes no params." } }
            @for (name, param) in params { (param_field(name, param, value_of(name))) }
            @if is_suspended { p.check { input #force type="checkbox" name="force" value="true"; label for="force" { "Start it even though it is suspended" } } }
            p { button.primary type="submit" { "Start" } " " a href={ "/workflows/" (key.workflow) } { "Back" } }
        }
    };
    let heading =
        html! { p.crumbs { a href={ "/workflows/" (key.workflow) } { (key.workflow) } } h1 { "Start " (key) } };
    Page { heading: Some(heading), ..Page::new(format!("Start {key}")) }.still("form", body)
}

fn param_field(name: &str, param: &Param, given: Option<String>) -> Markup {
    let id = format!("{PREFIX}{name}");
    let hint = format!("{id}.hint");
    let value = given.or_else(|| param.default.as_ref().map(ToString::to_string));
    let choices: Vec<&str> = match param.kind {
        ParamType::Boolean => vec!["true", "false"],
        _ => param.choices.iter().map(String::as_str).collect(),
    };
    html! {
        p.field {
            label for=(id) { (plain(name)) @if param.required { " (required)" } }
            @match param.kind {
                ParamType::Boolean | ParamType::Choice => {
                    select id=(id) name=(id) required[param.required] aria-describedby=(hint) {
                        @if value.is_none() { option value="" selected { "–" } }
                        @for choice in choices { option selected[value.as_deref() == Some(choice)] { (choice) } }
                    }
                },
                ParamType::Integer | ParamType::Number => {
                    input id=(id) name=(id) type="number" step=(if param.kind == ParamType::Integer { "1" } else { "any" }) value=[value] required[param.required] aria-describedby=(hint);
                },
                ParamType::String => { input id=(id) name=(id) value=[value] required[param.required] aria-describedby=(hint); },
            }
            span.quiet id=(hint) {
                @if let Some(description) = &param.description { (plain(description)) " " }
                @if let Some(pattern) = &param.pattern { "It matches " code { (plain(pattern)) } "." }
            }
        }
    }
}
