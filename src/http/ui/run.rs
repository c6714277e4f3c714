//! One run: how it goes, why it ran, its tasks drawn and in time, what came of it, its log.

use std::time::Duration;

use jiff::Timestamp;
use maud::{Markup, html};
use serde::Deserialize;
use xene_agent::clock;
use xene_schemas::{
    meta::RunName,
    phase::{RunPhase, TaskPhase},
    run::{Run, StepStatus, TaskStatus},
    why::RunWhy,
};

use super::{
    Ui,
    client::{Client, Failure},
    dag::{self, Node},
    html::{
        agent_link, between, fact, phase, pipeline_link, plain, revision, run_link, run_phase, size, slug, time, took,
        trigger,
    },
    lines::{self, Section},
    log,
    page::{Page, Pairs, param, token},
    sign_in::{Session, query_value},
};
use crate::{http::identity::Role, percent::encode};

/// A page waits so long for a log to be looked at; the rest comes by itself.
const LOOK: Duration = Duration::from_millis(60);

/// What the API tells of an artifact.
#[derive(Debug, Deserialize)]
struct Saved {
    task: String,
    path: String,
    size: u64,
    #[serde(default)]
    pending: bool,
}

pub(super) async fn render(
    ui: &Ui,
    client: &Client,
    session: &Session,
    name: RunName,
    log_wanted: Option<&Pairs>,
) -> Result<Page, Failure> {
    let run: Run = client.get(&format!("/api/v1/runs/{name}")).await?;
    let why: RunWhy = client.get(&format!("/api/v1/runs/{name}/why")).await?;
    let has_artifacts = run.status.tasks.values().any(|task| !task.artifacts.is_empty());
    let artifacts: Vec<Saved> =
        if has_artifacts { client.list(&format!("/api/v1/runs/{name}/artifacts")).await? } else { Vec::new() };
    let (sections, log_part) = match log_part(ui, &run, log_wanted).await {
        Ok(parts) => parts,
        Err(failure) => (Vec::new(), html! { h2 { "Log" } p.problem { (failure.detail) } }),
    };
    let heading = html! {
        p.crumbs { a href={ "/workflows/" (run.spec.workflow) } { (run.spec.workflow) } " / " (pipeline_link(&run.spec.key())) }
        h1 { "Run " span.mono { (name) } }
    };
    let page = Page { heading: Some(heading), ..Page::new(format!("Run of {}", run.spec.key())) };
    Ok(page
        .live("head", head(&run, session, &sections))
        .live("graph", graph(&run))
        .live("tasks", tasks(&run, &sections, clock::now().wall))
        .still("log", log_part)
        .live("why", why_part(&run, &why))
        .live("results", results(&run, &artifacts)))
}

/// How it goes, what failed, and what can be done.
fn head(run: &Run, session: &Session, sections: &[Section]) -> Markup {
    let (name, status) = (run.metadata.name, &run.status);
    let failed = || {
        status.tasks.iter().flat_map(|(task, of)| {
            let bad = of.steps.iter().filter(|step| step.phase == TaskPhase::Error);
            bad.map(move |step| (task, step))
        })
    };
    let may_act = session.who.role >= Role::Operator;
    let waiting = status.tasks.iter().filter_map(|(task, of)| {
        of.approval
            .as_ref()
            .filter(|approval| approval.approved.is_none() && of.phase == TaskPhase::NotExecuted)
            .map(|approval| (task, approval))
    });
    html! {
        p.state {
            (run_phase(run)) " " (took(status.started_at, status.finished_at))
            @if status.warnings > 0 { " " span.reason { (status.warnings) " tolerated failures" } }
        }
        @if let Some(message) = &status.message { p.message { (plain(message)) } }
        @if failed().next().is_some() {
            ul.failures { @for (task, step) in failed() { li {
                "Step " strong { (plain(&step.name)) } " of task " strong { (plain(task)) } " failed" (ending(step)) ". "
                (log_link(sections, task, &step.name, "Show its log"))
            } } }
        }
        @for (task, approval) in waiting {
            form.approval method="post" action={ "/runs/" (name) "/approve" } {
                (token(session))
                input type="hidden" name="task" value=(task);
                p { strong { (plain(task)) } " waits for approval"
                    @if let Some(message) = &approval.message { ": " (plain(message)) }
                    @if let Some(until) = approval.until { " (until " (time(until)) ")" }
                }
                @if may_act {
                    button.primary type="submit" name="approved" value="true" { "Approve" } " "
                    button type="submit" name="approved" value="false" { "Reject" }
                }
            }
        }
        @if may_act { div.actions {
            @if status.phase.is_final() {
                (action(session, name, "rerun", "Run again", &[]))
                @if status.phase == RunPhase::Error { (action(session, name, "rerun", "Run again what failed", &[("failed", "true")])) }
            } @else { (action(session, name, "cancel", "Cancel", &[])) }
            a.button href={ "/workflows/" (run.spec.workflow) "/" (run.spec.pipeline) "/start?like=" (name) } { "Start with other params" }
        } }
    }
}

fn action(session: &Session, run: RunName, path: &str, label: &str, fields: &[(&str, &str)]) -> Markup {
    html! {
        form method="post" action={ "/runs/" (run) "/" (path) } {
            (token(session))
            @for (name, value) in fields { input type="hidden" name=(name) value=(value); }
            button type="submit" { (label) }
        }
    }
}

/// How a step's process ended, if it did not end well.
fn ending(step: &StepStatus) -> Markup {
    html! {
        @match (step.exit_code, step.signal, &step.reason) {
            (Some(code), _, _) => { " with exit code " (code) },
            (None, Some(signal), _) => { " by signal " (signal) },
            (None, None, Some(reason)) => { ": " (plain(reason.as_str())) },
            (None, None, None) => {},
        }
    }
}

/// Leads to the log of a step's last attempt, if there is one yet.
fn log_link(sections: &[Section], task: &str, step: &str, label: &str) -> Markup {
    let found = sections
        .iter()
        .rev()
        .find(|section| section.head.as_ref().is_some_and(|head| head.task == task && head.step == step));
    html! {
        @if let Some(section) = found {
            a href={ "?log=" (section.number) "#log-" (section.number) } data-open=(section.number) { (label) span.hidden { " of step " (plain(step)) " of " (plain(task)) } }
        }
    }
}

fn graph(run: &Run) -> Markup {
    let nodes: Vec<Node> = run
        .status
        .tasks
        .iter()
        .map(|(name, task)| Node {
            name: name.clone(),
            phase: Some(task.phase.as_str()),
            after: task.dependencies.clone(),
            finally: task.finally,
        })
        .collect();
    html! {
        @if nodes.len() > 1 { section aria-labelledby="graph-title" { h2 #graph-title { "Graph" } div.scroll { (dag::draw(&nodes, "Tasks of this run", "task")) } } }
    }
}

/// Tasks and steps as a table, each with its stretch of time.
fn tasks(run: &Run, sections: &[Section], now: Timestamp) -> Markup {
    let start = run.status.started_at.unwrap_or(run.metadata.created_at);
    let whole = between(start, run.status.finished_at.unwrap_or(now)).as_secs_f64().max(0.001);
    let bar = |from: Option<Timestamp>, to: Option<Timestamp>, phase: TaskPhase| {
        let from = from?;
        let left = (between(start, from).as_secs_f64() / whole * 100.0).min(99.0);
        let width = between(from, to.unwrap_or(now)).as_secs_f64() / whole * 100.0;
        Some(html! {
            svg.bar width="100%" height="12" aria-hidden="true" {
                rect class={ "p-" (phase) } x={ (format!("{left:.2}%")) } width={ (format!("{:.2}%", width.clamp(0.6, 100.0 - left))) } height="12" rx="2" {}
            }
        })
    };
    html! {
        section aria-labelledby="tasks-title" {
            h2 #tasks-title { "Tasks" }
            @if run.status.tasks.is_empty() { p.quiet { "It has not started yet." } }
            @else { div.scroll { table.gantt {
                thead { tr { th scope="col" { "Task and step" } th scope="col" { "Phase" } th scope="col" { "Took" } th.wide scope="col" { "Time" } th scope="col" { "Log" } } }
                @for (name, task) in &run.status.tasks {
                    tbody {
                        tr.task id={ "task-" (slug(name)) } {
                            th scope="row" { (plain(name)) @if task.attempt > 1 { span.quiet { " attempt " (task.attempt) } } @if task.finally { span.quiet { " finally" } } }
                            td { (task_phase(task)) }
                            td { (took(task.started_at, task.finished_at)) }
                            td { @if let Some(bar) = bar(task.started_at, task.finished_at, task.phase) { (bar) } }
                            td {}
                        }
                        @for step in &task.steps { tr.step {
                            th scope="row" { (plain(&step.name)) }
                            td { (phase(step.phase.as_str())) @if step.phase == TaskPhase::Error { span.reason { (ending(step)) } } @else if let Some(reason) = &step.reason { " " span.reason { (plain(reason.as_str())) } } }
                            td { (took(step.started_at, step.finished_at)) }
                            td { @if let Some(bar) = bar(step.started_at, step.finished_at, step.phase) { (bar) } }
                            td { (log_link(sections, name, &step.name, "Log")) }
                        } }
                    }
                }
            } } }
        }
    }
}

fn task_phase(task: &TaskStatus) -> Markup {
    html! {
        (phase(task.phase.as_str()))
        @if let Some(reason) = &task.reason { " " span.reason { (plain(reason.as_str())) } }
        @if let Some(message) = &task.message { p.quiet { (plain(message)) } }
    }
}

fn why_part(run: &Run, why: &RunWhy) -> Markup {
    html! {
        section aria-labelledby="why-title" {
            h2 #why-title { "Why it ran" }
            dl.facts {
                (fact("Started by", trigger(&run.spec.trigger)))
                @if let Some(original) = run.spec.rerun_of { (fact("Repeats", run_link(original))) }
                (fact("Created", time(run.metadata.created_at)))
                (fact("Commit", html! {
                    (revision(&why.commit.revision))
                    @if let Some(subject) = &why.commit.subject { " " bdi.subject { (plain(subject)) } }
                    @if let Some(author) = &why.commit.author { " by " bdi { (plain(author)) } }
                    @if let Some(path) = &why.commit.path { " in " code { (plain(path)) @if let Some(line) = why.commit.line { ":" (line) } } }
                }))
                @if let Some(agent) = &why.agent {
                    (fact("Agent", html! { (agent_link(agent)) @if let Some(placement) = &why.placement { ": " (plain(placement)) } }))
                }
                @for wait in &why.waits { (fact("Waits", html! { (plain(&wait.message)) })) }
            }
        }
    }
}

fn results(run: &Run, artifacts: &[Saved]) -> Markup {
    let has_outputs = run.status.tasks.values().any(|task| !task.outputs.is_empty());
    let name = run.metadata.name;
    html! {
        @if !run.spec.params.is_empty() {
            h2 { "Params" }
            dl.values { @for (name, value) in &run.spec.params { div { dt { (plain(name)) } dd { code { (plain(value)) } } } } }
        }
        @if has_outputs {
            h2 { "Outputs" }
            dl.values { @for (task, status) in &run.status.tasks { @for (output, value) in &status.outputs {
                div { dt { (plain(task)) "." (plain(output)) } dd { code { (plain(value)) } } }
            } } }
        }
        @if !artifacts.is_empty() {
            h2 { "Artifacts" }
            ul { @for saved in artifacts { li {
                @if saved.pending { (plain(&saved.path)) " (on its way from the agent)" }
                @else { a href={ "/runs/" (name) "/artifacts/" (encode(&saved.task)) "/" (query_value(&saved.path)) } download { (plain(&saved.path)) } }
                " " span.quiet { (size(saved.size)) " of " (plain(&saved.task)) }
            } } }
        }
    }
}

/// The log's sections, and if it is wanted its part of the page: one of them open.
async fn log_part(ui: &Ui, run: &Run, wanted: Option<&Pairs>) -> Result<(Vec<Section>, Markup), Failure> {
    let name = run.metadata.name;
    let log = lines::open(ui.api.handle.logs(), &ui.indexes, name).await?;
    let is_whole = log.look(Some(LOOK)).await?;
    let sections = log.sections().await;
    let Some(pairs) = wanted else { return Ok((sections, html! {})) };
    let asked = param(pairs, "log").and_then(|number| number.parse::<u16>().ok());
    let from = param(pairs, "from").and_then(|from| from.parse::<u64>().ok());
    let open = asked.or_else(|| log::of_interest(run, &sections));
    let window = match open {
        Some(section) if is_whole || asked.is_some() => Some(log.window(section, from).await?),
        _ => None,
    };
    let searched = param(pairs, "q");
    let hits = match searched {
        Some(text) => Some(log.search(text).await?),
        None => None,
    };
    let part = html! {
        section.log aria-labelledby="log-title" {
            h2 #log-title { "Log" }
            div.tools {
                form method="get" action={ "/runs/" (name) "#log-title" } role="search" aria-label="Search the log" {
                    label.hidden for="q" { "Search the log" }
                    input #q name="q" type="search" placeholder="Search the log" value=[searched];
                    " " button type="submit" { "Search" }
                }
                label { input #times type="checkbox"; " Timestamps" }
                label.scripted { input #wrap type="checkbox" checked; " Wrap" }
                @if !run.status.phase.is_final() { label.scripted { input #follow type="checkbox" checked; " Follow" } }
                a href={ "/runs/" (name) "/log.txt" } download={ "run-" (name) ".log" } { "Download" }
            }
            @if let Some(hits) = &hits { (log::hits_part(hits, &sections, searched.unwrap_or_default())) }
            @if sections.is_empty() {
                p.quiet #log-empty { @if run.status.phase.is_final() { "It printed nothing, or its log was removed." } @else { "Nothing was printed yet." } }
            }
            @if !is_whole { p.quiet #log-looking { "This log is long: " (size(log.looked().await)) " of " (size(log.reader.length())) " were looked at so far." } }
            div #log-sections {
                @for section in &sections {
                    (log::section(run, section, window.as_ref().filter(|window| window.section == section.number)))
                }
            }
        }
    };
    Ok((sections, part))
}
