//! `xene describe KIND NAME`: one object from all sides.

use clap::{
    ValueEnum as _,
    builder::{PossibleValuesParser, TypedValueParser},
};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use xene_agent::decide::cron::Schedule;
use xene_schemas::{
    agent::AgentStatus,
    event::Event,
    notifier::NotifierStatus,
    object,
    run::Run,
    suspension::Suspension,
    trigger::{Cron, Trigger},
};

use super::{
    Error,
    client::Client,
    escape,
    kind::Kind,
    output::{Ui, painted, phase_style},
    rows::{self, Object},
    status::parse,
    time::{exact, relative},
    tree::{self, View},
    why,
};

/// Arguments of `xene describe`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The kind.
    #[arg(hide_possible_values = true, value_name = "workflow|pipeline|run|agent|notifier", value_parser = kind())]
    pub kind: Kind,

    /// The object; a pipeline is WORKFLOW/PIPELINE.
    pub name: String,
}

/// Reads a kind. Events are understood, to say where they are, but not offered: they can't be described.
fn kind() -> impl TypedValueParser<Value = Kind> {
    let offered = Kind::value_variants().iter().filter_map(|kind| {
        let value = kind.to_possible_value()?;
        Some(value.hide(*kind == Kind::Events))
    });
    PossibleValuesParser::new(offered).try_map(|name| Kind::from_str(&name, false))
}

/// How many runs, and how many events, are shown.
const RECENT: &str = "10";

/// How many due times are shown.
const FIRINGS: &str = "5";

/// An object and what belongs to it.
#[derive(Debug, Default)]
struct Story {
    object: Value,
    /// Of a pipeline: its workflow, which holds its triggers.
    workflow: Value,
    /// Of a workflow.
    pipelines: Vec<Value>,
    runs: Vec<Value>,
    /// Of a pipeline: what became of its last due times.
    firings: Vec<Value>,
    events: Vec<Value>,
}

/// Shows the object.
///
/// # Errors
/// If the controller refuses.
pub fn run(args: &Args, client: &Client, ui: &mut Ui) -> Result<(), Error> {
    if args.kind == Kind::Events {
        return Err(Error::usage_with_hint("an event says all it knows by itself", "see `xene get events -o wide`"));
    }
    let object = client.get(&args.kind.path_of(&args.name)?, &[])?;
    if !ui.is_human() {
        return match ui.format {
            super::output::Format::Name => ui.out.line(escape::line(&rows::name(args.kind, &object))),
            _ => ui.value(&object),
        };
    }
    let story = tell(args.kind, args.kind.bare(&args.name), object, client)?;
    let text = render(args.kind, &story, ui.now(), next_fire, ui.out.colored)?;
    ui.out.write(text)
}

fn tell(kind: Kind, name: &str, object: Value, client: &Client) -> Result<Story, Error> {
    let mut story = Story { object, ..Story::default() };
    let regarding = format!("{}/{name}", kind.singular());
    match kind {
        Kind::Workflows => {
            story.pipelines = rows::items(&client.list(Kind::Pipelines.path(), &[("workflow", name)])?);
            story.runs = client.page(Kind::Runs.path(), &[("workflow", name), ("limit", RECENT)])?;
        }
        Kind::Pipelines => {
            let (workflow, pipeline) = name.split_once('/').unwrap_or((name, ""));
            story.workflow = client.get(&Kind::Workflows.path_of(workflow)?, &[])?;
            let query = [("workflow", workflow), ("pipeline", pipeline), ("limit", RECENT)];
            story.runs = client.page(Kind::Runs.path(), &query)?;
            let firings = format!("{}/firings", Kind::Pipelines.path_of(name)?);
            story.firings = match client.page(&firings, &[("limit", FIRINGS)]) {
                // A controller of an earlier version tells nothing of them.
                Err(Error::NotFound { .. }) => Vec::new(),
                firings => firings?,
            };
        }
        Kind::Runs | Kind::Agents | Kind::Notifiers | Kind::Events => {}
    }
    let events = client.page(Kind::Events.path(), &[("regarding", &regarding), ("limit", RECENT)])?;
    // A controller that does not know the filter gives all of them.
    let ours = |event: &Value| event.get("regarding").and_then(Value::as_str) == Some(&regarding);
    story.events = events.into_iter().filter(ours).collect();
    Ok(story)
}

/// Fields, one a line, and sections below a title.
struct Page {
    text: String,
    now: Timestamp,
    next: NextFire,
    colored: bool,
}

impl Page {
    fn line(&mut self, text: &str) {
        self.text.push_str(text);
        self.text.push('\n');
    }

    /// A line of a section.
    fn row(&mut self, text: &str) {
        self.line(&format!("  {}", escape::line(text)));
    }

    fn field(&mut self, name: &str, value: impl AsRef<str>) {
        if !value.as_ref().is_empty() {
            self.line(&format!("{:<13} {}", format!("{name}:"), escape::line(value.as_ref())));
        }
    }

    /// A field whose value is a phase, with why.
    fn phase(&mut self, phase: &str, reason: Option<&str>, message: Option<&str>) {
        let reason = reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
        let word = painted(phase, phase_style(phase), self.colored);
        self.line(&format!("{:<13} {word}{}", "Phase:", escape::line(&reason)));
        self.field("Message", message.unwrap_or_default());
    }

    /// Who suspended it by command.
    fn suspension(&mut self, suspension: Option<&Suspension>) {
        if let Some(suspension) = suspension {
            self.field("Suspended", format!("{} by {}", relative(suspension.since, self.now), suspension.by));
            let until = suspension.until.map(|at| format!("{} ({})", exact(at), relative(at, self.now)));
            self.field("Until", until.unwrap_or_default());
            self.field("Why", suspension.why.as_deref().unwrap_or_default());
        }
    }

    fn section(&mut self, title: &str) {
        self.line("");
        self.line(&painted(title, anstyle::Style::new().bold(), self.colored));
    }

    fn table(&mut self, title: &str, kind: Kind, items: &[Value], now: Timestamp) -> Result<(), Error> {
        if !items.is_empty() {
            self.section(title);
            self.text += &rows::table(kind, items, false, now)?.render("  ", self.colored);
        }
        Ok(())
    }
}

/// When a schedule is due next after a time.
type NextFire = fn(&Cron, Timestamp) -> Option<Timestamp>;

fn next_fire(cron: &Cron, after: Timestamp) -> Option<Timestamp> {
    Schedule::parse(cron).ok()?.next_after(after)
}

fn render(kind: Kind, story: &Story, now: Timestamp, next: NextFire, colored: bool) -> Result<String, Error> {
    let mut page = Page { text: String::new(), now, next, colored };
    match kind {
        Kind::Workflows => workflow(&story.object, &mut page)?,
        Kind::Pipelines => pipeline(story, now, &mut page)?,
        Kind::Runs => run_page(&story.object, now, &mut page)?,
        Kind::Agents => agent(&story.object, now, &mut page)?,
        Kind::Notifiers => notifier(&story.object, now, &mut page)?,
        Kind::Events => {}
    }
    page.table("Pipelines", Kind::Pipelines, &story.pipelines, now)?;
    page.table("Recent runs", Kind::Runs, &story.runs, now)?;
    if !story.firings.is_empty() {
        page.section("Last due times");
    }
    for firing in &story.firings {
        let line = why::line_of(&parse(firing)?);
        page.row(&line);
    }
    if !story.events.is_empty() {
        page.section("Events");
        for event in &story.events {
            let event: Event = parse(event)?;
            let kind = rows::event_type(&event);
            let word = painted(&format!("{kind:<7}"), phase_style(kind), colored);
            let text = escape::line(&format!("{}: {}", event.reason, event.message));
            page.line(&format!("  {:>8}  {word}  {text}", relative(event.at, now)));
        }
    }
    Ok(page.text)
}

fn workflow(object: &Value, page: &mut Page) -> Result<(), Error> {
    let Object::<object::WorkflowStatus> { metadata, status } = parse(object)?;
    page.field("Name", &metadata.name);
    page.field("Description", metadata.description.unwrap_or_default());
    page.field("Labels", rows::labels(&metadata.labels));
    page.phase(status.phase.as_str(), None, status.message.as_deref());
    page.suspension(status.suspension.as_ref());
    page.field("File", format!("{}:{}", status.path, status.line));
    page.field("Revision", &status.revision.0);
    page.field("Generation", status.generation.0.to_string());
    page.field("Spec", status.spec_hash.to_string());
    page.field("History", format!("xene history {}", metadata.name));
    if let Some(triggers) = object.pointer("/spec/triggers").and_then(Value::as_object).filter(|all| !all.is_empty()) {
        page.section("Triggers");
        for (name, trigger) in triggers {
            let line = trigger_line(name, trigger, page);
            page.row(&line);
        }
    }
    Ok(())
}

/// `nightly: cron 0 3 * * * (Europe/Berlin), next in 3h (2026-…)`.
fn trigger_line(name: &str, trigger: &Value, page: &Page) -> String {
    // What a newer version says of a trigger is no reason not to name it.
    match Trigger::deserialize(trigger) {
        Ok(Trigger::Cron(cron)) => {
            let zone = cron.time_zone.as_deref().unwrap_or("UTC");
            let next = match (cron.suspend, (page.next)(&cron, page.now)) {
                (true, _) => ", suspended".into(),
                (false, Some(at)) => format!(", next {} ({})", relative(at, page.now), exact(at)),
                (false, None) => String::new(),
            };
            format!("{name}: cron {} ({zone}){next}", cron.schedule)
        }
        Ok(Trigger::Webhook(webhook)) => {
            format!("{name}: webhook{}", if webhook.suspend { ", suspended" } else { "" })
        }
        Err(_) => format!("{name}: {}", trigger.get("type").and_then(Value::as_str).unwrap_or("unknown")),
    }
}

fn pipeline(story: &Story, now: Timestamp, page: &mut Page) -> Result<(), Error> {
    let Object::<object::PipelineStatus> { metadata, status } = parse(&story.object)?;
    let spec = |field: &str| story.object.pointer(&format!("/spec/{field}"));
    page.field("Name", &metadata.name);
    page.field("Description", spec("description").and_then(Value::as_str).unwrap_or_default());
    page.phase(status.phase.as_str(), status.reason.as_ref().map(|reason| reason.as_str()), status.message.as_deref());
    page.suspension(status.suspension.as_ref());
    page.field("Agent", status.agent.map(|agent| agent.to_string()).unwrap_or_default());
    page.field("Epoch", status.epoch.map(|epoch| epoch.to_string()).unwrap_or_default());
    page.field("Revision", &status.revision.0);
    page.field("Spec", status.spec_hash.to_string());
    page.field("Next", status.next_fire.map(|at| format!("{} ({})", relative(at, now), exact(at))).unwrap_or_default());
    page.field("Webhook", status.webhook.unwrap_or_default());
    page.field("After", names(spec("after")).join(", "));
    let triggers = names(spec("triggers"));
    if !triggers.is_empty() {
        page.section("Triggers");
        for name in triggers {
            let trigger =
                story.workflow.pointer("/spec/triggers").and_then(|all| all.get(&name)).unwrap_or(&Value::Null);
            let line = trigger_line(&name, trigger, page);
            // Who may start it sees the secret too, but not here: a screen is looked at by others.
            let hook = status.webhooks.iter().find(|hook| hook.trigger.as_str() == name);
            page.row(&hook.map_or_else(|| line.clone(), |hook| format!("{line}, {} at {}", hook.auth, hook.path)));
        }
    }
    if let Some(tasks) = spec("tasks").and_then(Value::as_object) {
        page.section("Tasks");
        for (name, task) in tasks {
            let after = names(task.get("dependencies"));
            let after = if after.is_empty() { String::new() } else { format!(" after {}", after.join(", ")) };
            let steps = task.get("steps").and_then(Value::as_array).map_or(0, Vec::len);
            let plural = if steps == 1 { "" } else { "s" };
            page.row(&format!("{name}: {steps} step{plural}{after}"));
        }
    }
    Ok(())
}

/// A name, or a list of names.
fn names(value: Option<&Value>) -> Vec<String> {
    match value {
        Some(Value::String(name)) => vec![name.clone()],
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => vec![],
    }
}

fn run_page(object: &Value, now: Timestamp, page: &mut Page) -> Result<(), Error> {
    let run: Run = parse(object)?;
    let status = &run.status;
    page.field("Name", run.metadata.name.to_string());
    page.field("Pipeline", run.spec.key().to_string());
    page.phase(status.phase.as_str(), status.reason.as_ref().map(|reason| reason.as_str()), status.message.as_deref());
    let by = run.spec.trigger.by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default();
    page.field("Trigger", format!("{}{by}", rows::trigger(&run)));
    let time =
        |at: Option<Timestamp>| at.map(|at| format!("{} ({})", exact(at), relative(at, now))).unwrap_or_default();
    page.field("Repeats", run.spec.rerun_of.map(|run| run.to_string()).unwrap_or_default());
    page.field("Due", time(run.spec.trigger.scheduled_time));
    page.field("Agent", status.agent.as_ref().map(ToString::to_string).unwrap_or_default());
    page.field("Epoch", status.epoch.map(|epoch| epoch.to_string()).unwrap_or_default());
    page.field("Revision", &run.spec.revision.0);
    page.field("Created", time(Some(run.metadata.created_at)));
    page.field("Started", time(status.started_at));
    page.field("Finished", time(status.finished_at));
    page.field("Took", rows::run_took(&run, now).unwrap_or_default());
    page.field("Warnings", if status.warnings > 0 { status.warnings.to_string() } else { String::new() });
    if !run.spec.params.is_empty() {
        page.section("Params");
        for (name, value) in &run.spec.params {
            page.row(&format!("{name}={value}"));
        }
    }
    if !status.tasks.is_empty() {
        page.section("Tasks");
        let tail = Default::default();
        let view = View { run: &run, tail: &tail, now, frame: 0, width: 200, height: None, colored: page.colored };
        for line in tree::render(view).iter().skip(1) {
            page.line(line);
        }
    }
    let outputs =
        status.tasks.iter().flat_map(|(task, status)| status.outputs.iter().map(move |output| (task, output)));
    let outputs: Vec<_> = outputs.map(|(task, (name, value))| format!("{task}.{name}={value}")).collect();
    if !outputs.is_empty() {
        page.section("Outputs");
        outputs.iter().for_each(|output| page.row(output));
    }
    Ok(())
}

fn agent(object: &Value, now: Timestamp, page: &mut Page) -> Result<(), Error> {
    let Object::<AgentStatus> { metadata, status } = parse(object)?;
    page.field("Name", &metadata.name);
    page.field("Labels", rows::labels(&metadata.labels));
    page.phase(status.phase.as_str(), status.reason.as_ref().map(|reason| reason.as_str()), status.message.as_deref());
    page.field("Address", status.address.unwrap_or_default());
    page.field("Transport", status.transport.map(|transport| transport.to_string()).unwrap_or_default());
    page.field("Version", &status.version);
    page.field("Slots", format!("{} of {} taken", status.busy, status.slots));
    page.field("Seen", status.last_seen.map(|at| relative(at, now)).unwrap_or_default());
    page.field("Lease", status.lease_until.map(|at| format!("ends {}", relative(at, now))).unwrap_or_default());
    if !status.pipelines.is_empty() {
        page.section("Owns");
        status.pipelines.iter().for_each(|pipeline| page.row(&pipeline.to_string()));
    }
    Ok(())
}

fn notifier(object: &Value, now: Timestamp, page: &mut Page) -> Result<(), Error> {
    let Object::<NotifierStatus> { metadata, status } = parse(object)?;
    let time =
        |at: Option<Timestamp>| at.map(|at| format!("{} ({})", relative(at, now), exact(at))).unwrap_or_default();
    page.field("Name", &metadata.name);
    page.field("Description", metadata.description.unwrap_or_default());
    page.field("Labels", rows::labels(&metadata.labels));
    page.phase(status.phase.as_str(), None, None);
    page.field("File", format!("{}:{}", status.path, status.line));
    page.field("Revision", &status.revision.0);
    page.field("Generation", status.generation.0.to_string());
    page.field("To", rows::destination(object));
    let on = names(object.pointer("/spec/on"));
    page.field("On", on.join(", "));
    page.field("Select", object.pointer("/spec/select").map(ToString::to_string).unwrap_or_default());
    page.field("Waiting", status.pending.to_string());
    page.field("Next try", time(status.next_attempt));
    page.field("Delivered", status.delivered.to_string());
    page.field("Last", time(status.delivered_at));
    page.field("Lost", if status.lost > 0 { status.lost.to_string() } else { String::new() });
    page.field("Failed", time(status.failed_at));
    page.field("Error", status.error.unwrap_or_default());
    Ok(())
}

#[cfg(test)]
mod tests;
