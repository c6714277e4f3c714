//! The first page: is all well, what is in effect, what runs, what fires next.

use maud::{Markup, html};
use xene_schemas::{
    agent::Agent,
    controller::Controller,
    notifier::NotifierObject,
    object::PipelineObject,
    phase::{AgentPhase, RunPhase},
    run::Run,
    source::Source,
};

use super::{
    client::{Client, Failure, Part},
    html::{agent_link, empty, failure, pipeline_link, plain, rest, run_link, run_phase, runs_table, took},
    notifiers,
    page::Page,
    source::{problems, summary},
};
use crate::http::identity::Role;

/// So many runs are looked at for those that failed lately.
const RECENT: usize = 100;
const SHOWN: usize = 10;
/// So many that have ended are shown.
const ENDED: usize = 5;
/// So many pipelines are looked at for what fires next.
const LOOKED_AT: usize = 1000;
/// So many runs that go on are shown.
const ACTIVE: usize = 50;
/// The longest list that the API gives.
const ALL: usize = 10_000;

pub(super) async fn render(client: &Client) -> Result<Page, Failure> {
    let source: Option<Source> = client.find("/api/v1/source").await?;
    let controller: Controller = client.get("/api/v1/controller").await?;
    let agents: Vec<Agent> = client.list(&format!("/api/v1/agents?limit={ALL}")).await?;
    let active: Part<Run> = client.part("/api/v1/runs?active=true", ACTIVE).await?;
    let recent: Part<Run> = client.part("/api/v1/runs", RECENT).await?;
    let pipelines: Part<PipelineObject> = client.part("/api/v1/pipelines", LOOKED_AT).await?;
    let homeless: Part<PipelineObject> = client.part("/api/v1/pipelines?phase=NotScheduled", RECENT).await?;
    // About all workflows at once: whoever sees only some may not ask.
    let notifiers: Vec<NotifierObject> = if client.who.scope.is_all() {
        client.list(&format!("/api/v1/notifiers?limit={ALL}")).await?
    } else {
        Vec::new()
    };
    let failed: Vec<&Run> = recent.items.iter().filter(|run| run.status.phase == RunPhase::Error).collect();
    let ended: Vec<Run> = recent.items.iter().filter(|run| run.status.phase.is_final()).take(ENDED).cloned().collect();
    let is_more = recent.is_more || ended.len() == ENDED;
    let may_start = client.who.role >= Role::Operator;
    Ok(Page::new("Overview")
        .live("health", health(source.as_ref(), &controller, &agents, &notifiers, (&pipelines, &homeless)))
        .live("source", source_part(source.as_ref()))
        .live("active", active_part(&active))
        .live("failed", failed_part(&failed))
        .live("next", next_part(&pipelines))
        .live("recent", recent_part(&ended, is_more, pipelines.items.first(), may_start)))
}

/// What a person should look at, worst first; or that there is nothing.
fn health(
    source: Option<&Source>,
    controller: &Controller,
    agents: &[Agent],
    notifiers: &[NotifierObject],
    (pipelines, homeless): (&Part<PipelineObject>, &Part<PipelineObject>),
) -> Markup {
    let mut concerns: Vec<Markup> = Vec::new();
    if let Some(breaker) = &controller.status.breaker {
        concerns.push(html! { (plain(&breaker.message)) });
    }
    if let Some(filling_up) = &controller.status.store_filling_up {
        concerns.push(html! { (plain(&filling_up.message)) });
    }
    if let Some(leap) = &controller.status.clock_leap {
        concerns.push(html! { (plain(&leap.message)) });
    }
    if let Some(pause) = &controller.status.pause {
        concerns.push(html! { "Agents go on alone: paused by " bdi { (plain(&pause.by)) } " until " (super::html::time(pause.until)) "." });
    }
    if let Some(source) = source {
        let bad = source.status.conditions.iter().filter(|condition| {
            matches!(condition.kind.as_str(), "Degraded" | "Stalled")
                && condition.status == xene_schemas::source::ConditionStatus::True
        });
        concerns.extend(bad.map(|condition| html! { a href="/source" { "Source" } ": " (plain(&condition.message)) }));
    }
    let connected = agents.iter().filter(|agent| agent.status.phase == AgentPhase::Connected).count();
    if connected == 0 {
        concerns.push(html! { a href="/agents" { "No agent" } " is connected: nothing can run." });
    }
    let away = agents.iter().filter(|agent| agent.status.phase == AgentPhase::Disconnected);
    let away = away.map(|agent| html! { "Agent " (agent_link(&agent.metadata.name)) " is disconnected." });
    add_some(&mut concerns, away, false, "/agents", "more agents are disconnected");
    let unplaced = homeless.items.iter().filter(|pipeline| pipeline.status.suspension.is_none());
    let unplaced = unplaced.map(|pipeline| {
        html! {
            (pipeline_link(&pipeline.metadata.name)) " is not scheduled"
            @if let Some(message) = &pipeline.status.message { ": " (plain(message)) }
        }
    });
    add_some(&mut concerns, unplaced, homeless.is_more, "/workflows", "more pipelines are not scheduled");
    let silent = notifiers.iter().filter_map(notifiers::concern);
    add_some(&mut concerns, silent, false, "/notifiers", "more notifiers have a problem");
    html! {
        section.health aria-labelledby="health-title" {
            h2 #health-title { "Health" }
            @if concerns.is_empty() {
                p.good { "All is well: " (connected) @if connected == 1 { " agent" } @else { " agents" } " connected, "
                    @if pipelines.is_more { "at least " } (pipelines.items.len()) @if pipelines.items.len() == 1 { " pipeline" } @else { " pipelines" } " scheduled." }
            } @else {
                ul.concerns { @for concern in &concerns { li { (concern) } } }
            }
        }
    }
}

/// Adds the first few of concerns that are alike, and how many there are beside them.
fn add_some(concerns: &mut Vec<Markup>, alike: impl Iterator<Item = Markup>, is_more: bool, to: &str, others: &str) {
    let mut alike = alike.fuse();
    concerns.extend(alike.by_ref().take(SHOWN));
    let left = alike.count();
    if left > 0 {
        concerns.push(html! { a href=(to) { @if is_more { "At least " } (left) " " (others) } "." });
    }
}

fn source_part(source: Option<&Source>) -> Markup {
    html! {
        section aria-labelledby="source-title" {
            h2 #source-title { a href="/source" { "Source" } }
            @match source {
                Some(source) => { (summary(&source.status)) (problems(&source.status)) },
                None => { (empty("The source has not been looked at yet.", html! { "This page changes by itself once it was." })) },
            }
        }
    }
}

fn active_part(active: &Part<Run>) -> Markup {
    html! {
        section aria-labelledby="active-title" {
            h2 #active-title { a href="/runs?active=true" { "Running now" } }
            @if active.items.is_empty() { p.quiet { "Nothing runs." } }
            @else {
                ul.cards { @for run in &active.items { li {
                    p { (pipeline_link(&run.spec.key())) " " (run_phase(run)) }
                    p { (run_link(run.metadata.name)) " " (took(run.status.started_at, run.status.finished_at)) }
                    @if let Some(message) = &run.status.message { p.quiet { (plain(message)) } }
                } } }
            }
            @if active.is_more { (rest("/runs?active=true", "All that run")) }
        }
    }
}

fn failed_part(failed: &[&Run]) -> Markup {
    html! {
        section aria-labelledby="failed-title" {
            h2 #failed-title { a href="/runs?phase=Error" { "Failed lately" } }
            @if failed.is_empty() { p.quiet { "None of the last runs failed." } }
            @else {
                ul.cards { @for run in failed.iter().take(SHOWN) { li {
                    p { (pipeline_link(&run.spec.key())) " " (run_phase(run)) }
                    p { (run_link(run.metadata.name)) " " (super::html::time(run.metadata.created_at)) }
                    @if let Some(why) = failure(run) { p.quiet { (why) } }
                } } }
            }
            @if failed.len() > SHOWN { (rest("/runs?phase=Error", "All that failed")) }
        }
    }
}

fn next_part(pipelines: &Part<PipelineObject>) -> Markup {
    let mut due: Vec<_> = pipelines
        .items
        .iter()
        .filter_map(|pipeline| Some((pipeline.status.next_fire?, &pipeline.metadata.name)))
        .collect();
    due.sort();
    html! {
        section aria-labelledby="next-title" {
            h2 #next-title { "Fires next" }
            @if due.is_empty() { p.quiet { "No schedule is due: pipelines start by hand, by webhook or after others." } }
            @else {
                ol.due { @for (at, name) in due.iter().take(SHOWN) { li { (super::html::time(*at)) " " (pipeline_link(name)) } } }
            }
            @if due.len() > SHOWN || pipelines.is_more {
                p.pager { "The first " (due.len().min(SHOWN)) " of " (due.len()) " are shown"
                    @if pipelines.is_more { ", among the first " (pipelines.items.len()) " pipelines" }
                    "; " a href="/workflows" { "each workflow" } " tells its own." }
            }
        }
    }
}

fn recent_part(ended: &[Run], is_more: bool, pipeline: Option<&PipelineObject>, may_start: bool) -> Markup {
    html! {
        section aria-labelledby="recent-title" {
            h2 #recent-title { a href="/runs" { "Ended lately" } }
            @if !ended.is_empty() {
                (runs_table(ended, true))
                @if is_more { (rest("/runs", "All runs")) }
            }
            @else if let Some(pipeline) = pipeline {
                @let name = &pipeline.metadata.name;
                (empty("No run has ended yet.", html! { @if may_start { "Start one: " a href={ "/workflows/" (name.workflow) "/" (name.pipeline) "/start" } { (name) } "." } }))
            } @else {
                (empty("There is no workflow yet.", html! { "Commit a workflow file to the source, or save one in the folder that " code { "xene dev" } " watches." }))
            }
        }
    }
}
