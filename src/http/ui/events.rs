//! What happened, newest first.

use maud::{Markup, html};
use xene_schemas::event::{Event, EventType};

use super::{
    client::{Client, Failure, Part},
    html::{empty, plain, rest, time},
    page::{Page, Pairs, param, query},
};

const PAGE: usize = 20;

pub(super) async fn render(client: &Client, pairs: &Pairs) -> Result<Page, Failure> {
    let (after, regarding) = (param(pairs, "after"), param(pairs, "regarding"));
    let asked = query(&[("after", after), ("regarding", regarding)]);
    let events: Part<Event> = client.part(&format!("/api/v1/events?{asked}"), PAGE).await?;
    let body = html! {
        @if let Some(regarding) = regarding { p { "About " (about(regarding)) ". " a href="/events" { "All events" } } }
        @if events.items.is_empty() { (empty("Nothing has happened yet.", html! { "Events are written when something changes its phase." })) }
        @else { div.scroll { table {
            thead { tr { th scope="col" { "When" } th scope="col" { "Type" } th scope="col" { "About" } th scope="col" { "What" } } }
            tbody { @for event in &events.items { tr class=[(event.kind == EventType::Warning).then_some("warning")] {
                td { (time(event.at)) }
                td { (match event.kind { EventType::Normal => "Normal", EventType::Warning => "Warning" }) }
                td { (about(&event.regarding)) " " a.quiet href={ "/events?" (query(&[("regarding", Some(&event.regarding))])) } aria-label={ "only these: events about " (plain(&event.regarding)) } { "only these" } }
                td { strong { (plain(&event.reason)) } " " (plain(&event.message)) }
            } } }
        } } }
        @if let Some(last) = events.last() {
            @let id = last.id.to_string();
            (rest(&format!("?{}", query(&[("after", Some(&*id)), ("regarding", regarding)])), "Older events"))
        }
    };
    Ok(Page::new("Events").live("list", body))
}

/// What an event is about, as a link where it has a page.
fn about(regarding: &str) -> Markup {
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '/');
    let path = match regarding.split_once('/') {
        Some(("workflow", name)) => Some(format!("/workflows/{name}")),
        Some(("pipeline", name)) => {
            name.split_once('/').map(|(workflow, pipeline)| format!("/workflows/{workflow}#pipeline-{pipeline}"))
        }
        Some(("run", name)) => Some(format!("/runs/{name}")),
        Some(("agent", name)) => Some(format!("/agents/{name}")),
        Some(("notifier", name)) => Some(format!("/notifiers#notifier-{name}")),
        _ => (regarding == "source").then(|| "/source".to_owned()),
    };
    html! {
        @match path.filter(|_| regarding.chars().all(is_name)) { Some(path) => { a href=(path) { (plain(regarding)) } }, None => { (plain(regarding)) } }
    }
}
