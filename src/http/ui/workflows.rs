//! The list of workflows.

use maud::html;
use xene_schemas::object::{PipelineObject, WorkflowObject};

use super::{
    client::{Client, Failure},
    html::{empty, phase, plain, revision, run_link, time},
    page::{Page, Pairs, param, query},
};

const PAGE: usize = 50;

pub(super) async fn render(client: &Client, pairs: &Pairs) -> Result<Page, Failure> {
    let limit = (PAGE + 1).to_string();
    let asked = query(&[("limit", Some(&limit)), ("after", param(pairs, "after")), ("labels", param(pairs, "labels"))]);
    let mut workflows: Vec<WorkflowObject> = client.list(&format!("/api/v1/workflows?{asked}")).await?;
    let is_more = workflows.len() > PAGE;
    workflows.truncate(PAGE);
    let mut pipelines = Vec::with_capacity(workflows.len());
    for workflow in &workflows {
        let path = format!("/api/v1/pipelines?workflow={}&limit=100", workflow.metadata.name);
        pipelines.push(client.list::<PipelineObject>(&path).await?);
    }
    let body = html! {
        @if workflows.is_empty() {
            (empty("There is no workflow here.", html! { "Workflows are files: commit one to the " a href="/source" { "source" } "." }))
        } @else {
            div.scroll { table {
                thead { tr { th scope="col" { "Workflow" } th scope="col" { "Phase" } th scope="col" { "Pipelines and last runs" } th scope="col" { "Fires next" } th scope="col" { "File" } } }
                tbody { @for (workflow, pipelines) in workflows.iter().zip(&pipelines) { tr {
                    th scope="row" {
                        a href={ "/workflows/" (workflow.metadata.name) } { (workflow.metadata.name) }
                        @if let Some(description) = &workflow.metadata.description { p.quiet { (plain(description)) } }
                    }
                    td { (phase(workflow.status.phase.as_str())) }
                    td { ul.plain { @for pipeline in pipelines { li {
                        (pipeline.metadata.name.pipeline) " "
                        @if let Some(last) = &pipeline.status.last_run { (phase(last.phase.as_str())) " " (run_link(last.name)) }
                        @else { span.quiet { "never ran" } }
                    } } } }
                    td { @if let Some(at) = pipelines.iter().filter_map(|pipeline| pipeline.status.next_fire).min() { (time(at)) } @else { "–" } }
                    td { code { (plain(&workflow.status.path)) ":" (workflow.status.line) } " " (revision(&workflow.status.revision)) }
                } } }
            } }
        }
        @if is_more { @if let Some(last) = workflows.last() {
            p.pager { a rel="next" href={ "?" (query(&[("after", Some(last.metadata.name.as_str())), ("labels", param(pairs, "labels"))])) } { "More workflows" } }
        } }
    };
    Ok(Page::new("Workflows").live("list", body))
}
