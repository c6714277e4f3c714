//! The list of runs, filtered, page by page.

use maud::html;
use xene_schemas::{phase::RunPhase, run::Run};

use super::{
    client::{Client, Failure, Part},
    html::{empty, rest, runs_table},
    page::{Page, Pairs, param, query},
};

const PAGE: usize = 20;

pub(super) async fn render(client: &Client, pairs: &Pairs) -> Result<Page, Failure> {
    let get = |name| param(pairs, name);
    let filter = [
        ("workflow", get("workflow")),
        ("pipeline", get("pipeline")),
        ("agent", get("agent")),
        ("phase", get("phase")),
        ("active", get("active")),
        ("labels", get("labels")),
        ("since", get("since")),
    ];
    let mut asked = filter.to_vec();
    asked.push(("after", get("after")));
    let runs: Part<Run> = client.part(&format!("/api/v1/runs?{}", query(&asked)), PAGE).await?;
    let is_filtered = filter.iter().any(|(_, value)| value.is_some());
    let form = html! {
        form.filter method="get" action="/runs" role="search" aria-label="Filter runs" {
            p { label for="workflow" { "Workflow" } input #workflow name="workflow" value=[get("workflow")]; }
            p { label for="pipeline" { "Pipeline" } input #pipeline name="pipeline" value=[get("pipeline")]; }
            p { label for="agent" { "Agent" } input #agent name="agent" value=[get("agent")]; }
            p { label for="phase" { "Phase" } select #phase name="phase" {
                option value="" { "any" }
                @for phase in RunPhase::ALL { option selected[get("phase") == Some(phase.as_str())] { (phase) } }
            } }
            p { label for="labels" { "Labels" } input #labels name="labels" placeholder="team=a,tier=fast" value=[get("labels")]; }
            p { label for="since" { "Since" } input #since name="since" placeholder="24h" value=[get("since")]; }
            p.check { input #active type="checkbox" name="active" value="true" checked[get("active") == Some("true")]; label for="active" { "Active only" } }
            p { button type="submit" { "Filter" } @if is_filtered { " " a href="/runs" { "All runs" } } }
        }
    };
    let list = html! {
        @if runs.items.is_empty() && is_filtered { (empty("No run is like that.", html! { a href="/runs" { "Show all runs" } })) }
        @else if runs.items.is_empty() { (empty("Nothing has run yet.", html! { "Start a pipeline from the page of its " a href="/workflows" { "workflow" } ", or by " code { "xene trigger WORKFLOW/PIPELINE" } "." })) }
        @else { (runs_table(&runs.items, true)) }
        @if let Some(last) = runs.last() {
            @let name = last.metadata.name.to_string();
            (rest(&format!("?{}", query(&[&filter[..], &[("after", Some(&*name))]].concat())), "Older runs"))
        }
    };
    Ok(Page::new("Runs").still("filter", form).live("list", list))
}
