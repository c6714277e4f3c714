//! Notifiers: whom they tell, whether it gets there, and a message on trial.

use std::sync::Arc;

use axum::{
    Extension,
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use maud::{Markup, html};
use serde_json::json;
use xene_schemas::{
    meta::Name,
    notifier::{NotifierObject, NotifierPhase, NotifierSpec, NotifierTest, Transition},
};

use super::{
    Ui,
    client::{Client, Failure, Part},
    html::{empty, phase, plain, rest, revision, time},
    page::{self, Page, Pairs, param, query, token},
    sign_in::{Fields, Session, check_form},
};
use crate::http::{audit::about, identity::Role};

const PAGE: usize = 50;

pub(super) async fn render(client: &Client, session: &Session, pairs: &Pairs) -> Result<Page, Failure> {
    let asked = query(&[("after", param(pairs, "after"))]);
    let notifiers: Part<NotifierObject> = client.part(&format!("/api/v1/notifiers?{asked}"), PAGE).await?;
    let may_test = session.who.role >= Role::Operator;
    let body = html! {
        @if notifiers.items.is_empty() {
            (empty("There is no notifier here.", html! {
                "Commit a document of " code { "kind: Notifier" } " to the " a href="/source" { "source" }
                ": the transitions that it tells, and one destination, such as " code { "slack" } " or " code { "email" } "."
            }))
        } @else {
            div.scroll { table {
                thead { tr {
                    th scope="col" { "Notifier" } th scope="col" { "Phase" } th scope="col" { "Tells" } th scope="col" { "By" }
                    th scope="col" { "Pending" } th scope="col" { "Delivered" } th scope="col" { "Lost" }
                    th scope="col" { "Last delivered" } th scope="col" { "Last failure" } th scope="col" { "Next attempt" }
                    @if may_test { th scope="col" { "Test" } }
                } }
                tbody { @for notifier in &notifiers.items { (row(notifier, may_test.then_some(session))) } }
            } }
        }
        @if let Some(last) = notifiers.last() {
            (rest(&format!("?{}", query(&[("after", Some(last.metadata.name.as_str()))])), "More notifiers"))
        }
    };
    Ok(Page::new("Notifiers").live("list", body))
}

fn row(NotifierObject { metadata, spec, status }: &NotifierObject, tester: Option<&Session>) -> Markup {
    let name = &metadata.name;
    html! {
        tr id={ "notifier-" (name) } {
            th scope="row" {
                (name)
                @if let Some(description) = &metadata.description { p.quiet { (plain(description)) } }
                p.quiet { code { (plain(&status.path)) ":" (status.line) } " " (revision(&status.revision)) }
            }
            td { (phase(status.phase.as_str())) }
            td { (told(spec)) @if !spec.select.is_all() { p.quiet { "of some runs only" } } }
            td { (spec.destinations().join(", ")) }
            td { (status.pending) }
            td { (status.delivered) }
            td { (status.lost) }
            td { @if let Some(at) = status.delivered_at { (time(at)) } @else { "never" } }
            td {
                @if let Some(at) = status.failed_at { (time(at)) } @else { "never" }
                @if let Some(error) = &status.error { p.problem { (plain(error)) } }
            }
            td { @match status.next_attempt { Some(at) => { (time(at)) }, None => { "–" } } }
            @if let Some(session) = tester { td {
                form method="post" action={ "/notifiers/" (name) "/test" } {
                    (token(session))
                    button type="submit" { "Send a test" span.hidden { " by " (name) } }
                }
            } }
        }
    }
}

/// The transitions that it tells, those of its destination's default included.
fn told(spec: &NotifierSpec) -> String {
    let told = Transition::ALL.iter().filter(|transition| spec.tells(**transition));
    told.map(|transition| transition.as_str()).collect::<Vec<_>>().join(", ")
}

/// What a person should know of a notifier that does not do what its file says.
pub(super) fn concern(NotifierObject { metadata, status, .. }: &NotifierObject) -> Option<Markup> {
    let what = match status.phase {
        NotifierPhase::Ready => return None,
        NotifierPhase::Failing => "does not deliver",
        NotifierPhase::Invalid => "has a problem in its file; what it was before is in effect",
    };
    Some(html! {
        "Notifier " a href={ "/notifiers#notifier-" (metadata.name) } { (metadata.name) } " " (what)
        @if let Some(error) = &status.error { ": " (plain(error)) }
    })
}

/// `POST /notifiers/NAME/test`: sends a message now, and shows what came back.
pub(super) async fn test(
    State(ui): State<Arc<Ui>>,
    Extension(session): Extension<Session>,
    Path(name): Path<String>,
    Fields(fields): Fields,
) -> Response {
    let tried = async {
        check_form(&session, &fields)?;
        let name: Name = name.parse().map_err(|_| Failure::not_found())?;
        let path = format!("/api/v1/notifiers/{name}/test");
        let answer = ui.client(session.who.clone()).post(&path, &json!({})).await?;
        let test: NotifierTest = serde_json::from_value(answer)
            .map_err(|_| Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "what came of the test can't be shown"))?;
        Ok((name, test))
    };
    match tried.await {
        Ok((name, test)) => {
            let shown = page::fixed(StatusCode::OK, &session, "/notifiers", &outcome(&session, &name, &test));
            about(format!("notifier/{name}"), shown)
        }
        Err(failure) => page::failed(Some(&session), &failure),
    }
}

fn outcome(session: &Session, name: &Name, test: &NotifierTest) -> Page {
    let body = html! {
        @if test.delivered { p.good role="status" { "It delivers: " (plain(&test.message)) } }
        @else {
            p.problem role="alert" { "It does not deliver: " (plain(&test.message)) }
            p { "A test is not sent again by itself." }
        }
        form.actions method="post" action={ "/notifiers/" (name) "/test" } {
            (token(session))
            button type="submit" { "Send another test" }
            a.button href={ "/notifiers#notifier-" (name) } { "Back to the notifiers" }
        }
    };
    let heading = html! { p.crumbs { a href="/notifiers" { "Notifiers" } } h1 { "Test of " (name) } };
    Page { heading: Some(heading), ..Page::new(format!("Test of {name}")) }.still("outcome", body)
}
