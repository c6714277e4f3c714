//! Where desired state comes from: what is in effect, how looking at it goes, what is wrong with its files.

use maud::{Markup, html};
use xene_schemas::source::{ConditionStatus, Source, SourceKind, SourceStatus};

use super::{
    client::{Client, Failure},
    html::{empty, fact, plain, revision, time},
    page::Page,
};

pub(super) async fn render(client: &Client) -> Result<Page, Failure> {
    let page = Page::new("Source");
    let Some(Source { status }) = client.find::<Source>("/api/v1/source").await? else {
        return Ok(page.live(
            "summary",
            empty("The source has not been looked at yet.", html! { "This page changes by itself once it was." }),
        ));
    };
    let conditions = html! {
        h2 { "Conditions" }
        div.scroll tabindex="0" { table {
            thead { tr { th scope="col" { "Condition" } th scope="col" { "Status" } th scope="col" { "Reason" } th scope="col" { "Message" } th scope="col" { "Since" } } }
            tbody { @for condition in &status.conditions { tr {
                th scope="row" { (plain(&condition.kind)) }
                td { (match condition.status { ConditionStatus::True => "True", ConditionStatus::False => "False", ConditionStatus::Unknown => "Unknown" }) }
                td { (plain(&condition.reason)) }
                td { (plain(&condition.message)) }
                td { (time(condition.since)) }
            } } }
        } }
    };
    Ok(page
        .live("summary", summary(&status))
        .live("problems", html! { h2 { "Problems" } (problems(&status)) })
        .live("conditions", conditions))
}

/// What is in effect, and since when.
pub(super) fn summary(status: &SourceStatus) -> Markup {
    html! {
        dl.facts {
            (fact(match status.kind { SourceKind::Git => "Repository", SourceKind::Directory => "Folder" }, html! {
                bdi { (plain(&status.url)) }
                @if let Some(branch) = &status.branch { ", branch " bdi { (plain(branch)) } }
                @if !status.path.is_empty() && status.path != "." { ", folder " bdi { (plain(&status.path)) } }
            }))
            @if let Some(applied) = &status.revision {
                (fact("In effect", html! {
                    (revision(applied))
                    @if let Some(subject) = &status.subject { " " bdi.subject { (plain(subject)) } }
                    @if let Some(author) = &status.author { " by " bdi { (plain(author)) } }
                }))
            } @else { (fact("In effect", html! { "nothing yet" })) }
            @if let Some(at) = status.synced_at { (fact("Since", time(at))) }
            @if let Some(seen) = &status.seen { @if status.revision.as_ref() != Some(seen) { (fact("Seen, not in effect", revision(seen))) } }
            @if let Some(at) = status.observed_at { (fact("Looked at", time(at))) }
            (fact("Workflows", html! { a href="/workflows" { (status.workflows) } }))
            @if status.dirty > 0 { (fact("Not committed", html! { (status.dirty) " files differ from the commit and do not count" })) }
            @if let Some(suspension) = &status.suspension { (fact("Suspended", html! { (plain(&suspension.to_string())) })) }
        }
    }
}

/// What is wrong with files, each with its place.
pub(super) fn problems(status: &SourceStatus) -> Markup {
    html! {
        @if status.problems.is_empty() { p.good { "No problem in any file." } }
        @else {
            ul.problems { @for problem in &status.problems { li {
                p { code { (plain(&problem.place())) } " " span class={ "severity " (problem.severity) } { (problem.severity) } " " code { (problem.code) } }
                p { (plain(&problem.message)) }
                @if let Some(hint) = &problem.hint { p.quiet { (plain(hint)) } }
            } } }
        }
    }
}
