//! Agents: the list, and one of them.

use maud::{Markup, html};
use xene_schemas::{agent::Agent, meta::Name, run::Run};

use super::{
    client::{Client, Failure, Part},
    html::{agent_link, empty, fact, phase, pipeline_link, plain, rest, runs_table, time},
    page::{Page, Pairs, param, query},
};

const PAGE: usize = 100;
/// So many runs of one agent are shown.
const RUNS: usize = 20;

pub(super) async fn list(client: &Client, pairs: &Pairs) -> Result<Page, Failure> {
    let asked = query(&[("after", param(pairs, "after"))]);
    let agents: Part<Agent> = client.part(&format!("/api/v1/agents?{asked}"), PAGE).await?;
    let body = html! {
        @if agents.items.is_empty() {
            (empty("No agent has joined yet.", html! { "Make a token with " code { "xene agents token create" } ", then start one: " code { "xene agent --controller HOST:7421 --token TOKEN" } "." }))
        } @else {
            div.scroll { table {
                thead { tr { th scope="col" { "Agent" } th scope="col" { "Phase" } th scope="col" { "Slots" } th scope="col" { "Pipelines" } th scope="col" { "Last seen" } th scope="col" { "Version" } th scope="col" { "Labels" } } }
                tbody { @for agent in &agents.items { tr {
                    th scope="row" { (agent_link(&agent.metadata.name)) }
                    td { (phase(agent.status.phase.as_str())) }
                    td { (slots(agent)) }
                    td { (agent.status.pipelines.len()) }
                    td { @if let Some(at) = agent.status.last_seen { (time(at)) } @else { "never" } }
                    td { (plain(&agent.status.version)) }
                    td { (labels(agent)) }
                } } }
            } }
        }
        @if let Some(last) = agents.last() {
            (rest(&format!("?{}", query(&[("after", Some(last.metadata.name.as_str()))])), "More agents"))
        }
    };
    Ok(Page::new("Agents").live("list", body))
}

pub(super) async fn one(client: &Client, name: &Name) -> Result<Page, Failure> {
    let agent: Agent = client.get(&format!("/api/v1/agents/{name}")).await?;
    let of_it = format!("active=true&agent={name}");
    let here: Part<Run> = client.part(&format!("/api/v1/runs?{of_it}"), RUNS).await?;
    let status = &agent.status;
    let summary = html! {
        dl.facts {
            (fact("Phase", phase(status.phase.as_str())))
            (fact("Slots", slots(&agent)))
            (fact("Version", html! { (plain(&status.version)) }))
            @if let Some(address) = &status.address { (fact("Address", html! { code { (plain(address)) } })) }
            @if let Some(transport) = status.transport { (fact("Transport", html! { (transport.as_str()) })) }
            @if let Some(at) = status.last_seen { (fact("Last seen", time(at))) }
            @if let Some(at) = status.lease_until { (fact("May start runs alone until", time(at))) }
            (fact("Labels", labels(&agent)))
            @if let Some(message) = &status.message { (fact("Message", html! { (plain(message)) })) }
        }
    };
    let pipelines = html! {
        h2 { "Pipelines" }
        @if status.pipelines.is_empty() { p.quiet { "It has none." } }
        @else { ul { @for key in &status.pipelines { li { (pipeline_link(key)) } } } }
    };
    let runs = html! {
        h2 { "Running here" }
        @if here.items.is_empty() { p.quiet { "Nothing." } } @else { (runs_table(&here.items, true)) }
        @if here.is_more { (rest(&format!("/runs?{of_it}"), "All that run here")) }
    };
    Ok(Page::new(name.to_string()).live("summary", summary).live("runs", runs).live("pipelines", pipelines))
}

fn slots(agent: &Agent) -> Markup {
    html! {
        meter min="0" max=(agent.status.slots) value=(agent.status.busy.min(agent.status.slots)) aria-label="Busy slots" {}
        " " (agent.status.busy) " of " (agent.status.slots)
    }
}

fn labels(agent: &Agent) -> Markup {
    html! { @for (key, value) in &agent.metadata.labels { code.label { (plain(key)) "=" (plain(value)) } " " } }
}
