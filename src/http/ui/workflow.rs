//! One workflow: its pipelines drawn, what starts them, what they did, how it came to be as it is.

use std::collections::BTreeSet;

use jiff::Timestamp;
use maud::{Markup, html};
use xene_agent::{clock, decide::cron::Schedule};
use xene_schemas::{
    meta::Name,
    object::{PipelineObject, WorkflowObject},
    pipeline::PipelineSpec,
    plan::WorkflowChange,
    run::Run,
    trigger::{Cron, Trigger},
    workflow::WorkflowSpec,
};

use super::{
    client::{Client, Failure, Part},
    dag::{self, Node},
    html::{agent_link, empty, fact, phase, plain, rest, revision, run_link, runs_table, slug, time},
    page::{Page, Pairs, param, query, token},
    sign_in::Session,
};
use crate::http::identity::Role;

/// So many due times of each schedule are told.
const DUE: usize = 3;
/// So many pipelines are shown at a time, each with its graph.
const PIPELINES: usize = 50;
const RUNS: usize = 10;
/// So many commits are shown at first; each further look shows so many times as many.
const CHANGES: usize = 30;
const FURTHER: usize = 4;
/// The longest list that the API gives, but for the one that says whether there are more.
const MOST: usize = 9_999;

pub(super) async fn render(client: &Client, session: &Session, name: &Name, pairs: &Pairs) -> Result<Page, Failure> {
    let workflow: WorkflowObject = client.get(&format!("/api/v1/workflows/{name}")).await?;
    let asked = query(&[("workflow", Some(name.as_str())), ("after", param(pairs, "after"))]);
    let pipelines: Part<PipelineObject> = client.part(&format!("/api/v1/pipelines?{asked}"), PIPELINES).await?;
    let runs: Part<Run> = client.part(&format!("/api/v1/runs?workflow={name}"), RUNS).await?;
    let mut page = Page::new(name.to_string())
        .live("summary", summary(session, &workflow))
        .live("triggers", triggers(&workflow.spec, clock::now().wall));
    for pipeline in &pipelines.items {
        let id = format!("pipeline-{}", pipeline.metadata.name.pipeline);
        page = page.live(&id, pipeline_part(pipeline, client.who.role >= Role::Operator));
    }
    if let Some(last) = pipelines.last() {
        let after = last.metadata.name.to_string();
        page = page.live("more-pipelines", rest(&format!("?{}", query(&[("after", Some(&after))])), "More pipelines"));
    }
    let recent = html! {
        section aria-labelledby="runs-title" {
            h2 #runs-title { a href={ "/runs?workflow=" (name) } { "Runs" } }
            @if runs.items.is_empty() { (empty("It has not run yet.", html! { "Start a pipeline of it above." })) }
            @else { (runs_table(&runs.items, false)) }
            @if let Some(last) = runs.last() {
                @let after = last.metadata.name.to_string();
                (rest(&format!("/runs?{}", query(&[("workflow", Some(name.as_str())), ("after", Some(&after))])), "Older runs"))
            }
        }
    };
    let past = html! {
        section aria-labelledby="history-title" {
            h2 #history-title { a href={ "/workflows/" (name) "/history" } { "History" } }
            // Looking through a repository takes longer than showing the rest.
            div data-load={ "/workflows/" (name) "/history" } data-part="r-history" { p { a href={ "/workflows/" (name) "/history" } { "The commits that changed it" } } }
        }
    };
    Ok(page.live("runs", recent).still("past", past))
}

fn summary(session: &Session, workflow: &WorkflowObject) -> Markup {
    let (metadata, status) = (&workflow.metadata, &workflow.status);
    html! {
        @if let Some(description) = &metadata.description { p.lead { (plain(description)) } }
        dl.facts {
            (fact("Phase", phase(status.phase.as_str())))
            (fact("File", html! { code { (plain(&status.path)) ":" (status.line) } }))
            (fact("Revision", html! { (revision(&status.revision)) ", generation " (status.generation.0) }))
            @if !metadata.labels.is_empty() {
                (fact("Labels", html! { @for (key, value) in &metadata.labels { code.label { (plain(key)) "=" (plain(value)) } " " } }))
            }
            @if let Some(message) = &status.message { (fact("Message", html! { (plain(message)) })) }
            @if let Some(suspension) = &status.suspension {
                (fact("Suspended", html! { (plain(&suspension.to_string())) ", since " (time(suspension.since)) }))
            }
            @if workflow.spec.suspend { (fact("Suspended", html! { "by its file" })) }
        }
        @if session.who.role >= Role::Operator {
            @let path = format!("/workflows/{}", metadata.name);
            @if status.suspension.is_some() {
                form.actions method="post" action={ (path) "/resume" } { (token(session)) button type="submit" { "Resume" } }
            } @else {
                form.actions method="post" action={ (path) "/suspend" } {
                    (token(session))
                    label for="why" { "Why " } input #why name="why" placeholder="for those who wonder" autocomplete="off";
                    button type="submit" { "Suspend" }
                }
            }
        }
    }
}

fn triggers(spec: &WorkflowSpec, now: Timestamp) -> Markup {
    html! {
        section aria-labelledby="triggers-title" {
            h2 #triggers-title { "Triggers" }
            @if spec.triggers.is_empty() { p.quiet { "None: its pipelines start by hand, by their webhooks, or after each other." } }
            @else { div.scroll tabindex="0" { table {
                thead { tr { th scope="col" { "Trigger" } th scope="col" { "Type" } th scope="col" { "When" } th scope="col" { "Next" } } }
                tbody { @for (name, trigger) in spec.triggers.iter() { tr {
                    th scope="row" { (name) }
                    @match trigger {
                        Trigger::Cron(cron) => {
                            td { "cron" }
                            td { code { (plain(&cron.schedule)) } " " (plain(cron.time_zone.as_deref().unwrap_or("UTC"))) @if cron.suspend { " (suspended)" } }
                            td { ul.plain { @for at in due(cron, now) { li { (time(at)) } } } }
                        },
                        Trigger::Webhook(webhook) => {
                            td { "webhook" }
                            td { @if let Some(when) = &webhook.when { code { (plain(when)) } } @if webhook.suspend { " (suspended)" } }
                            td { "when it is called" }
                        },
                    }
                } } }
            } } }
        }
    }
}

fn due(cron: &Cron, now: Timestamp) -> Vec<Timestamp> {
    let Ok(schedule) = Schedule::parse(cron) else { return Vec::new() };
    std::iter::successors(schedule.next_after(now), |at| schedule.next_after(*at)).take(DUE).collect()
}

fn pipeline_part(pipeline: &PipelineObject, may_start: bool) -> Markup {
    let (key, spec, status) = (&pipeline.metadata.name, &pipeline.spec, &pipeline.status);
    let nodes = nodes(spec);
    let title = format!("pipeline-{}", key.pipeline);
    html! {
        section aria-labelledby=(title) {
            h2 id=(title) { "Pipeline " (key.pipeline) }
            @if let Some(description) = &spec.description { p { (plain(description)) } }
            @if may_start { p.actions { a.button href={ "/workflows/" (key.workflow) "/" (key.pipeline) "/start" } { "Start a run" } } }
            dl.facts {
                (fact("Phase", html! {
                    (phase(status.phase.as_str()))
                    @if let Some(reason) = &status.reason { " " (plain(reason.as_str())) }
                }))
                @if let Some(agent) = &status.agent { (fact("Agent", agent_link(agent))) }
                @if let Some(message) = &status.message { (fact("Why", html! { (plain(message)) })) }
                @if let Some(at) = status.next_fire { (fact("Fires next", time(at))) }
                @if !spec.triggers.0.is_empty() { (fact("Triggers", html! { (names(spec.triggers.0.iter())) })) }
                @if !spec.after.0.is_empty() { (fact("After", html! { (names(spec.after.0.iter())) })) }
                @if let Some(last) = &status.last_run { (fact("Last run", html! { (phase(last.phase.as_str())) " " (run_link(last.name)) })) }
                @if let Some(suspension) = &status.suspension { (fact("Suspended", html! { (plain(&suspension.to_string())) })) }
                @if spec.suspend { (fact("Suspended", html! { "by its file" })) }
            }
            div.scroll { (dag::draw(&nodes, &format!("Tasks of {key}"), &format!("task-{}", key.pipeline))) }
            details id={ "tasks-" (key.pipeline) } {
                summary { @if nodes.len() == 1 { "Its task" } @else { "Its " (nodes.len()) " tasks" } " as a list" }
                ul { @for node in &nodes { li id={ "task-" (key.pipeline) "-" (slug(&node.name)) } {
                    (plain(&node.name))
                    @if !node.after.is_empty() { ", after " (node.after.iter().map(|name| plain(name)).collect::<Vec<_>>().join(", ")) }
                    @if node.finally { ", finally" }
                } } }
            }
        }
    }
}

fn names<'a>(names: impl Iterator<Item = &'a Name>) -> String {
    names.map(Name::as_str).collect::<Vec<_>>().join(", ")
}

/// The tasks, and what each waits for: its dependencies, and the connectors that lead to it.
fn nodes(spec: &PipelineSpec) -> Vec<Node> {
    let all = spec.tasks.iter().map(|entry| (entry, false)).chain(spec.finally.iter().map(|entry| (entry, true)));
    all.map(|((name, task), finally)| {
        let led = spec.connectors.iter().filter(|connector| connector.to.0.contains(name));
        let after = task.dependencies.0.iter().chain(led.flat_map(|connector| &connector.from.0));
        let after: BTreeSet<String> = after.map(ToString::to_string).collect();
        Node { name: name.to_string(), phase: None, after: after.into_iter().collect(), finally }
    })
    .collect()
}

/// The commits that changed a workflow.
pub(super) async fn history(client: &Client, name: &Name, pairs: &Pairs) -> Result<Page, Failure> {
    let shown = param(pairs, "shown").and_then(|shown| shown.parse().ok()).unwrap_or(CHANGES).clamp(1, MOST);
    let changes: Part<WorkflowChange> = client.part(&format!("/api/v1/workflows/{name}/history"), shown).await?;
    let further = (shown * FURTHER).min(MOST);
    let body = html! {
        ol.history { @for change in &changes.items { li {
            p { (revision(&change.revision)) " " @if let Some(subject) = &change.subject { bdi.subject { (plain(subject)) } } }
            p.quiet { (plain(&change.change)) @if let Some(author) = &change.author { " by " bdi { (plain(author)) } } ", " (time(change.at)) }
            @if let Some(message) = &change.message { p { (plain(message)) } }
            @if !change.fields.is_empty() {
                details id={ "change-" (slug(&change.revision.0)) } {
                    summary { (change.fields.len()) @if change.fields.len() == 1 { " field" } @else { " fields" } }
                    div.scroll tabindex="0" { table {
                        thead { tr { th scope="col" { "Field" } th scope="col" { "Before" } th scope="col" { "After" } } }
                        tbody { @for field in &change.fields { tr {
                            th scope="row" { code { (plain(&field.path)) } }
                            td { @if let Some(old) = &field.old { code.old { (plain(&old.to_string())) } } }
                            td { @if let Some(new) = &field.new { code.new { (plain(&new.to_string())) } } }
                        } } }
                    } }
                }
            }
            @if change.runs.total > 0 {
                p { (change.runs.total) @if change.runs.total == 1 { " run: " } @else { " runs: " }
                    @for (word, count) in &change.runs.phases { (phase(word)) " " (count) " " }
                    @if let Some(last) = &change.runs.last { "last " (run_link(last.name)) }
                }
            } @else { p.quiet { "no run of this version" } }
        } } }
        @if changes.is_more && further > shown {
            (rest(&format!("/workflows/{name}/history?shown={further}"), "Older commits"))
        } @else if changes.is_more {
            p.quiet { "These are the last " (shown) "; those before them are in the repository." }
        }
    };
    let heading = html! { p.crumbs { a href={ "/workflows/" (name) } { (name) } } h1 { "History of " (name) } };
    Ok(Page { heading: Some(heading), ..Page::new(format!("History of {name}")) }.live("history", body))
}
