//! The list of workflows.

use maud::html;
use xene_schemas::object::{PipelineObject, WorkflowObject};

use super::{
    client::{Client, Failure, Part},
    html::{empty, phase, plain, rest, revision, run_link, time},
    page::{Page, Pairs, param, query},
};

const PAGE: usize = 50;
/// So many pipelines of each are shown.
const PIPELINES: usize = 20;

pub(super) async fn render(client: &Client, pairs: &Pairs) -> Result<Page, Failure> {
    let asked = query(&[("after", param(pairs, "after")), ("labels", param(pairs, "labels"))]);
    let workflows: Part<WorkflowObject> = client.part(&format!("/api/v1/workflows?{asked}"), PAGE).await?;
    let mut pipelines: Vec<Part<PipelineObject>> = Vec::with_capacity(workflows.items.len());
    for workflow in &workflows.items {
        let path = format!("/api/v1/pipelines?workflow={}", workflow.metadata.name);
        pipelines.push(client.part(&path, PIPELINES).await?);
    }
    let body = html! {
        @if workflows.items.is_empty() {
            (empty("There is no workflow here.", html! { "Workflows are files: commit one to the " a href="/source" { "source" } "." }))
        } @else {
            div.scroll { table {
                thead { tr { th scope="col" { "Workflow" } th scope="col" { "Phase" } th scope="col" { "Pipelines and last runs" } th scope="col" { "Fires next" } th scope="col" { "File" } } }
                tbody { @for (workflow, pipelines) in workflows.items.iter().zip(&pipelines) { tr {
                    th scope="row" {
                        a href={ "/workflows/" (workflow.metadata.name) } { (workflow.metadata.name) }
                        @if let Some(description) = &workflow.metadata.description { p.quiet { (plain(description)) } }
                    }
                    td { (phase(workflow.status.phase.as_str())) }
                    td { ul.plain {
                        @for pipeline in &pipelines.items { li {
                            (pipeline.metadata.name.pipeline) " "
                            @if let Some(last) = &pipeline.status.last_run { (phase(last.phase.as_str())) " " (run_link(last.name)) }
                            @else { span.quiet { "never ran" } }
                        } }
                        @if pipelines.is_more { li { a href={ "/workflows/" (workflow.metadata.name) } { "More pipelines" span.hidden { " of " (workflow.metadata.name) } } } }
                    } }
                    td { @if let Some(at) = pipelines.items.iter().filter_map(|pipeline| pipeline.status.next_fire).min() { (time(at)) @if pipelines.is_more { " (of those shown)" } } @else { "–" } }
                    td { code { (plain(&workflow.status.path)) ":" (workflow.status.line) } " " (revision(&workflow.status.revision)) }
                } } }
            } }
        }
        @if let Some(last) = workflows.last() {
            @let next = query(&[("after", Some(last.metadata.name.as_str())), ("labels", param(pairs, "labels"))]);
            (rest(&format!("?{next}"), "More workflows"))
        }
    };
    Ok(Page::new("Workflows").live("list", body))
}
