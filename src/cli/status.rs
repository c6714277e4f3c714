//! `xene status`: the source, what is wrong with it, and the agents, on one screen.

use serde_json::Value;
use xene_schemas::{
    controller::{Controller, ControllerStatus},
    diagnostic::Diagnostic,
    meta::{AgentName, Revision},
    source::{Condition, ConditionStatus, Source, SourceKind, SourceStatus},
};

use super::{
    Error,
    client::Client,
    escape,
    kind::Kind,
    output::{Format, Ui, painted, phase_style},
    rows,
    time::{age, relative},
};

/// Below this many, pipelines that have no agent are named one by one.
const NAMED_PIPELINES: usize = 10;

/// Prints the status.
///
/// # Errors
/// If the controller refuses.
pub fn run(client: &Client, ui: &mut Ui) -> Result<(), Error> {
    let value = client.get("/api/v1/source", &[])?;
    match ui.format {
        Format::Json | Format::Yaml => return ui.value(&value),
        Format::Name => return ui.out.line("source"),
        Format::Table | Format::Wide => {}
    }
    let status = parse::<Source>(&value)?.status;
    let controller = parse::<Controller>(&client.get("/api/v1/controller", &[])?)?.status;
    let waiting = rows::items(&client.list(Kind::Pipelines.path(), &[("phase", "NotScheduled")])?);
    let agents = rows::items(&client.list(Kind::Agents.path(), &[])?);
    let count_runs = |phase| Ok::<_, Error>(rows::items(&client.list(Kind::Runs.path(), &[("phase", phase)])?).len());
    let (running, starting) = (count_runs("Running")?, count_runs("StartingUp")?);

    print_source(&status, ui)?;
    // What is scheduled is what agents own: no need to list every pipeline.
    let owned = |agent: &Value| agent.pointer("/status/pipelines").and_then(Value::as_array).map_or(0, Vec::len);
    let scheduled: usize = agents.iter().map(owned).sum();
    print_field("pipelines", &format!("{scheduled} scheduled, {} not", waiting.len()), ui)?;
    print_field("runs", &format!("{running} running, {starting} waiting to start"), ui)?;
    print_controller(&controller, ui)?;
    print_trouble(&status, ui)?;
    print_waiting(&waiting, ui)?;
    ui.out.line("")?;
    if agents.is_empty() {
        ui.out.line("no agents: make a join token with `xene agents token create`")?;
        return Ok(());
    }
    let table = rows::table(Kind::Agents, &agents, ui.format == Format::Wide, ui.now())?;
    ui.table(&table)
}

/// Reads an answer.
pub(super) fn parse<T: serde::de::DeserializeOwned>(value: &Value) -> Result<T, Error> {
    T::deserialize(value).map_err(|error| Error::Answer { request: "the request".into(), cause: error.to_string() })
}

fn print_source(status: &SourceStatus, ui: &mut Ui) -> Result<(), Error> {
    let place = match (status.kind, &status.branch) {
        (SourceKind::Git, Some(branch)) => format!("{} · branch {branch}", status.url),
        (SourceKind::Git | SourceKind::Directory, _) => status.url.clone(),
    };
    let path = if matches!(status.path.as_str(), "" | ".") { String::new() } else { format!(" · {}", status.path) };
    let now = ui.now();
    let mut lines = vec![("source", format!("{place}{path}")), ("revision", revision_line(status))];
    if let Some(at) = status.synced_at {
        let looked = status.observed_at.map(|at| format!(", looked at {}", relative(at, now))).unwrap_or_default();
        lines.push(("in effect", format!("for {}{looked}", age(at, now))));
    }
    if let Some(suspension) = &status.suspension {
        let text = suspension.to_string();
        let text = text.strip_prefix("suspended ").unwrap_or(&text);
        lines.push(("suspended", format!("{text} ({})", relative(suspension.since, now))));
    }
    if status.seen.is_some() && status.seen != status.revision {
        lines.push(("seen", format!("{}, not in effect", short(status.seen.as_ref()))));
    }
    let plural =
        |count: u32, word: &str, what: &str| format!(", {count} {word}{} {what}", if count == 1 { "" } else { "s" });
    let mut counts = format!("{} in effect", status.workflows);
    if status.ignored > 0 {
        counts.push_str(&plural(status.ignored, "document", "passed over as not ours"));
    }
    if status.dirty > 0 {
        counts.push_str(&plural(status.dirty, "file", "with uncommitted changes, which do not count"));
    }
    lines.push(("workflows", counts));
    lines.into_iter().try_for_each(|(name, text)| print_field(name, &text, ui))
}

/// What is unusual about the controller.
fn print_controller(status: &ControllerStatus, ui: &mut Ui) -> Result<(), Error> {
    if let Some(pause) = &status.pause {
        let (until, left) = (pause.until, relative(pause.until, ui.now()));
        let unheard = status.unheard.iter().map(AgentName::as_str).collect::<Vec<_>>().join(", ");
        let unheard = if unheard.is_empty() { unheard } else { format!("; not heard by: {unheard}") };
        print_field("paused", &format!("by {} until {until:.0} ({left}): agents go on alone{unheard}", pause.by), ui)?;
    }
    if let Some(rotation) = &status.ca_rotation {
        print_field("authority", &super::agents::rotation_told(rotation), ui)?;
    }
    if let Some(filling_up) = &status.store_filling_up {
        let word = painted("store filling up", phase_style("Warning"), ui.out.colored);
        let age = age(filling_up.since, ui.now());
        ui.out.line(format!("{word} {}", escape::line(&format!("(for {age}): {}", filling_up.message))))?;
    }
    if let Some(leap) = &status.clock_leap {
        let word = painted("clock leapt", phase_style("Warning"), ui.out.colored);
        let age = age(leap.since, ui.now());
        ui.out.line(format!("{word} {}", escape::line(&format!("(for {age}): {}", leap.message))))?;
    }
    if let Some(breaker) = &status.breaker {
        let word = painted("takeovers held", phase_style("Warning"), ui.out.colored);
        let agents = breaker.agents.iter().map(AgentName::as_str).collect::<Vec<_>>().join(", ");
        let age = age(breaker.since, ui.now());
        ui.out.line(format!("{word} {}", escape::line(&format!("(for {age}): {}: {agents}", breaker.message))))?;
    }
    Ok(())
}

fn print_field(name: &str, text: &str, ui: &mut Ui) -> Result<(), Error> {
    ui.out.line(format!("{name:<10} {}", escape::line(text)))
}

/// `1a2b3c4 Subject (Author)`.
pub(super) fn revision_line(status: &SourceStatus) -> String {
    let subject = status.subject.as_deref().map(|subject| format!(" {subject}")).unwrap_or_default();
    // The address is for programs.
    let name = |author: &str| author.split_once(" <").map_or_else(|| author.to_owned(), |(name, _)| name.to_owned());
    let author = status.author.as_deref().map(|author| format!(" ({})", name(author))).unwrap_or_default();
    escape::line(&format!("{}{subject}{author}", short(status.revision.as_ref())))
}

/// A revision's first characters, as git shows it; a directory's keeps the mark that tells it from a commit.
pub(super) fn short(revision: Option<&Revision>) -> String {
    let Some(Revision(text)) = revision else { return "none yet".into() };
    let mark = if text.starts_with("dir-") { "dir-".len() } else { 0 };
    text.chars().take(mark + 7).collect()
}

/// True unless the source says that it is not.
pub(super) fn is_ready(status: &SourceStatus) -> bool {
    !status.conditions.iter().any(|condition| condition.kind == "Ready" && condition.status == ConditionStatus::False)
}

/// Ready and Fetched are good when they hold, all others when they don't.
pub(super) fn is_fine(condition: &Condition) -> bool {
    match condition.kind.as_str() {
        "Ready" | "Fetched" | "Verified" => condition.status == ConditionStatus::True,
        _ => condition.status == ConditionStatus::False,
    }
}

/// Prints the conditions that are not fine, and the problems.
pub(super) fn print_trouble(status: &SourceStatus, ui: &mut Ui) -> Result<(), Error> {
    let now = ui.now();
    let mut troubles = status.conditions.iter().filter(|condition| !is_fine(condition)).peekable();
    while let Some(condition) = troubles.next() {
        let named = |condition: &Condition| {
            let negation = if condition.status == ConditionStatus::True { "" } else { "not " };
            painted(&format!("{negation}{}", condition.kind), phase_style("Warning"), ui.out.colored)
        };
        let mut kinds = named(condition);
        // One cause makes several conditions, and is told once.
        let same = |other: &&Condition| (&other.reason, &other.message) == (&condition.reason, &condition.message);
        while let Some(other) = troubles.next_if(same) {
            kinds += ", ";
            kinds += &named(other);
        }
        let age = age(condition.since, now);
        let text = escape::line(&format!("({}): {} (for {age})", condition.reason, condition.message));
        ui.out.line(format!("{kinds} {text}"))?;
    }
    for problem in &status.problems {
        print_diagnostic(problem, ui)?;
    }
    Ok(())
}

/// One problem: where, what, and how to mend it.
fn print_diagnostic(problem: &Diagnostic, ui: &mut Ui) -> Result<(), Error> {
    let style = phase_style(match problem.severity {
        xene_schemas::diagnostic::Severity::Error => "Error",
        xene_schemas::diagnostic::Severity::Warning => "Warning",
    });
    let Diagnostic { code, severity, message, .. } = problem;
    let word = painted(&format!("{severity}[{}]", escape::line(code)), style.bold(), ui.out.colored);
    ui.out.line(format!("{}: {word}: {}", escape::line(&problem.place()), escape::line(message)))?;
    match &problem.hint {
        Some(hint) => ui.out.line(format!("  hint: {}", escape::line(hint))),
        None => Ok(()),
    }
}

fn print_waiting(waiting: &[Value], ui: &mut Ui) -> Result<(), Error> {
    if waiting.is_empty() {
        return Ok(());
    }
    let word = painted("not scheduled", phase_style("NotScheduled"), ui.out.colored);
    ui.out.line(format!("{word}: {}", waiting.len()))?;
    for pipeline in waiting.iter().take(NAMED_PIPELINES) {
        let text = |path| pipeline.pointer(path).and_then(Value::as_str).unwrap_or_default();
        let why = match text("/status/message") {
            "" => text("/status/reason"),
            message => message,
        };
        ui.out.line(escape::line(&format!("  {}: {why}", text("/metadata/name"))))?;
    }
    if waiting.len() > NAMED_PIPELINES {
        ui.out
            .line(format!("  … {} more: `xene get pipelines --phase NotScheduled`", waiting.len() - NAMED_PIPELINES))?;
    }
    Ok(())
}
