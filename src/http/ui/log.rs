//! A log's sections as parts of a page: folded, opened at any line, searched, downloaded.

use std::sync::Arc;

use axum::{
    Extension,
    extract::{Path, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use maud::{Markup, PreEscaped, html};
use xene_schemas::{
    meta::RunName,
    phase::TaskPhase,
    run::{Run, StepStatus},
};

use super::{
    Ui,
    client::Failure,
    html::{phase, plain, took},
    lines::{self, HITS, Hit, Section, WINDOW, Window},
    page,
    sign_in::Session,
};
use crate::http::{artifacts, logs, query::Query};

/// The section that a reader most likely wants: of what failed first, else of what runs, else the last.
pub(super) fn of_interest(run: &Run, sections: &[Section]) -> Option<u16> {
    let with = |wanted: TaskPhase| {
        let found =
            sections.iter().filter(move |section| step_of(run, section).is_some_and(|step| step.phase == wanted));
        found.map(|section| section.number)
    };
    // A step that was tried again failed in its last attempt.
    let failed = with(TaskPhase::Error).next().map(|first| {
        let head = sections.iter().find(|section| section.number == first).and_then(|section| section.head.clone());
        let mut same = sections.iter().filter(|section| match (&section.head, &head) {
            (Some(a), Some(b)) => (&a.task, &a.step) == (&b.task, &b.step),
            _ => false,
        });
        same.next_back().map_or(first, |section| section.number)
    });
    failed.or_else(|| with(TaskPhase::Running).next_back()).or_else(|| sections.last().map(|section| section.number))
}

fn step_of<'r>(run: &'r Run, section: &Section) -> Option<&'r StepStatus> {
    let head = section.head.as_ref()?;
    run.status.tasks.get(&head.task)?.steps.iter().find(|step| step.name == head.step)
}

/// What stands above a section, open or not.
pub(super) fn summary(run: &Run, section: &Section) -> Markup {
    let attempts =
        section.head.as_ref().and_then(|head| run.status.tasks.get(&head.task)).map_or(0, |task| task.attempt);
    html! {
        @match &section.head {
            Some(head) => {
                span.what { (plain(&head.task)) " / " (plain(&head.step)) @if attempts > 1 { span.quiet { " attempt " (head.attempt) } } }
                @if head.attempt >= attempts { @if let Some(step) = step_of(run, section) {
                    " " (phase(step.phase.as_str())) " " span.quiet { (took(step.started_at, step.finished_at)) }
                } }
            },
            None => { span.what { "The run itself" } },
        }
        " " span.quiet { (section.lines) @if section.lines == 1 { " line" } @else { " lines" } }
    }
}

/// A section, open if lines of it are at hand.
pub(super) fn section(run: &Run, section: &Section, window: Option<&Window>) -> Markup {
    let number = section.number;
    html! {
        details.section id={ "log-" (number) } data-section=(number) open[window.is_some()] {
            summary { (summary(run, section)) }
            div.lines {
                @match window {
                    Some(window) => (window_part(window, run.status.phase.is_final())),
                    None => { p { a href={ "?log=" (number) "#log-" (number) } { "Show it" } } },
                }
            }
        }
    }
}

/// Lines, and the ways to those before and after; `is_over`: none will come any more.
pub(super) fn window_part(window: &Window, is_over: bool) -> Markup {
    let number = window.section;
    let earlier = window.first.saturating_sub(WINDOW).max(1);
    html! {
        @if window.first > 1 {
            p.pager { a href={ "?log=" (number) "&from=" (earlier) "#log-" (number) } data-earlier=(earlier) { "Earlier lines" } " "
                a href={ "?log=" (number) "&from=1#log-" (number) } data-from="1" { "From the first" } }
        }
        // The style sheet takes it away once a line follows.
        @if window.total == 0 { p.quiet.nothing { @if is_over { "It printed nothing." } @else { "It has printed nothing so far." } } }
        ol data-first=(window.first) data-next=(window.next) data-end[window.is_end] { (PreEscaped(&window.html)) }
        @if !window.is_end {
            p.pager { a href={ "?log=" (number) "&from=" (window.next) "#log-" (number) } data-later=(window.next) { "Later lines" } " "
                a href={ "?log=" (number) "#log-" (number) } data-from="" { "To the last" } }
        }
    }
}

pub(super) fn hits_part(hits: &[Hit], sections: &[Section], searched: &str) -> Markup {
    let name = |number: u16| {
        let head = sections.iter().find(|section| section.number == number).and_then(|section| section.head.as_ref());
        head.map_or_else(|| "run".to_owned(), |head| format!("{} / {}", plain(&head.task), plain(&head.step)))
    };
    html! {
        div.hits role="status" {
            @if hits.is_empty() { p { "No line holds " q { (plain(searched)) } "." } }
            @else {
                p { (hits.len()) @if hits.len() == 1 { " line holds " } @else { " lines hold " } q { (plain(searched)) }
                    @if hits.len() >= HITS { ", and perhaps more" } ":" }
                ol { @for hit in hits { li {
                    a href={ "?log=" (hit.section) "&from=" (hit.line.saturating_sub(20).max(1)) "#L" (hit.section) "-" (hit.line) } { (name(hit.section)) ", line " (hit.line) }
                    " " code { (plain(hit.text.trim_end()).chars().take(300).collect::<String>()) }
                } } }
            }
        }
    }
}

/// `GET /runs/RUN/log/SECTION?from=`: lines alone, for the script.
pub(super) async fn lines(
    State(ui): State<Arc<Ui>>,
    Extension(session): Extension<Session>,
    Path((run, section)): Path<(String, String)>,
    mut query: Query,
) -> Response {
    let from = query.parse::<u64>("from", "a line's number");
    let (Ok(run), Ok(section), Ok(from)) = (run.parse::<RunName>(), section.parse::<u16>(), from) else {
        return page::failed(Some(&session), &Failure::not_found());
    };
    let client = ui.client(session.who.clone());
    let shown = async {
        let is_over = client.get::<Run>(&format!("/api/v1/runs/{run}")).await?.status.phase.is_final();
        let log = lines::open(ui.api.handle.logs(), &ui.indexes, run).await?;
        log.look(None).await?;
        Ok::<_, Failure>(window_part(&log.window(section, from).await?, is_over))
    };
    match shown.await {
        Ok(markup) => page::respond(StatusCode::OK, &markup),
        Err(failure) => page::failed(Some(&session), &failure),
    }
}

/// `GET /runs/RUN/log.txt`: all of it, to be saved.
pub(super) async fn download(
    State(ui): State<Arc<Ui>>,
    Extension(session): Extension<Session>,
    Path(run): Path<String>,
    headers: HeaderMap,
    query: Query,
) -> Response {
    if let Err(failure) = may_read(&ui, &session, &run).await {
        return page::failed(Some(&session), &failure);
    }
    saved(logs::logs(State(ui.api.clone()), session.who.clone(), Path(run), headers, query).await.into_response())
}

/// `GET /runs/RUN/artifacts/TASK/PATH`: never shown, always saved.
pub(super) async fn artifact(
    State(ui): State<Arc<Ui>>,
    Extension(session): Extension<Session>,
    Path((run, task, path)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Response {
    if let Err(failure) = may_read(&ui, &session, &run).await {
        return page::failed(Some(&session), &failure);
    }
    saved(artifacts::download(State(ui.api.clone()), Path((run, task, path)), headers).await.into_response())
}

async fn may_read(ui: &Ui, session: &Session, run: &str) -> Result<(), Failure> {
    let run: RunName = run.parse().map_err(|_| Failure::not_found())?;
    ui.client(session.who.clone()).get::<Run>(&format!("/api/v1/runs/{run}")).await.map(drop)
}

/// Whatever it holds, a browser that shows it all the same gives it no rights.
fn saved(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.entry(header::CONTENT_DISPOSITION).or_insert(HeaderValue::from_static("attachment"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox; default-src 'none'"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_ended_printed_nothing() {
        let shown = |total: u64, is_over: bool| {
            let window = Window { section: 1, first: 1, next: 1, total, is_end: true, html: String::new() };
            window_part(&window, is_over).into_string()
        };
        assert!(shown(0, true).contains("It printed nothing."));
        assert!(shown(0, false).contains("nothing so far") && !shown(0, false).contains("It printed nothing"));
        for is_over in [true, false] {
            assert!(!shown(1, is_over).contains("nothing"), "{is_over}");
        }
    }
}
