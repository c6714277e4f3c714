//! A plan for a terminal.

use anstyle::{AnsiColor, Style};
use jiff::Timestamp;
use serde_json::Value;
use xene_schemas::plan::{Action, DueTime, FieldChange, Fires, PlanReport, PlanSide, PlannedChange};

use crate::cli::{
    escape,
    output::painted,
    status::short,
    time::{exact, relative},
};

/// Values longer than this are cut, unless all is wanted.
const LONG: usize = 72;

/// The plan as lines; `wide`: values whole.
pub(super) fn render(report: &PlanReport, now: Timestamp, wide: bool, colored: bool) -> String {
    let mut page = Page { text: String::new(), now, wide, colored };
    page.line(&format!("{} → {}", side(&report.from), side(&report.to)));
    if !report.changes.is_empty() {
        page.line("");
    }
    for change in &report.changes {
        page.change(change);
    }
    for held in &report.held {
        let style = AnsiColor::Yellow.on_default();
        page.head("!", style, &format!("workflow {} stays", held.name), &held.message);
    }
    if !report.problems.is_empty() {
        page.line("");
    }
    for problem in &report.problems {
        page.line(&problem.to_string());
    }
    page.line("");
    page.line(&summary(report));
    page.text
}

/// `1 to create, 2 to update`, or that nothing would change.
pub(super) fn summary(report: &PlanReport) -> String {
    let count = |action| report.changes.iter().filter(|change| change.action == action).count();
    let counts = [
        (count(Action::Create), "to create"),
        (count(Action::Update), "to update"),
        (count(Action::Move), "to move"),
        (count(Action::Invalidate), "to become invalid"),
        (count(Action::Validate), "to become valid"),
        (count(Action::Remove), "to remove"),
        (report.held.len(), "held"),
    ];
    let mut words: Vec<String> =
        counts.into_iter().filter(|(count, _)| *count > 0).map(|(count, word)| format!("{count} {word}")).collect();
    if report.withheld {
        words.insert(0, "nothing would take effect, since the controller runs with --strict".into());
    } else if report.changes.is_empty() {
        words.insert(0, "nothing would change".into());
    }
    match report.problems.len() {
        0 => {}
        1 => words.push("1 problem in the files".into()),
        count => words.push(format!("{count} problems in the files")),
    }
    words.join(", ")
}

/// `commit main (1a2b3c4d5e6f)`.
pub(super) fn side(side: &PlanSide) -> String {
    match side.revision.as_ref().filter(|revision| !side.what.ends_with(revision.0.as_str())) {
        Some(revision) => format!("{} ({})", side.what, short(Some(revision))),
        None => side.what.clone(),
    }
}

/// `"0 3 * * *"`, or a dash for what is not there.
pub(in crate::cli) fn value(value: Option<&Value>, most: usize) -> String {
    let text = value.map_or_else(|| "–".into(), Value::to_string);
    match text.char_indices().nth(most) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

/// `nightly 2026-11-26T03:00:00.000Z, …`.
pub(super) fn due(times: &[DueTime]) -> String {
    let times: Vec<String> = times.iter().map(|due| format!("{} {}", due.trigger, exact(due.at))).collect();
    if times.is_empty() { "never".into() } else { times.join(", ") }
}

struct Page {
    text: String,
    now: Timestamp,
    wide: bool,
    colored: bool,
}

impl Page {
    fn line(&mut self, text: &str) {
        self.text += &escape::line(text);
        self.text.push('\n');
    }

    fn head(&mut self, sign: &str, style: Style, name: &str, rest: &str) {
        let name = painted(&format!("{sign} {}", escape::line(name)), style, self.colored);
        self.text += format!("{name}  {}", escape::line(rest)).trim_end();
        self.text.push('\n');
    }

    fn change(&mut self, change: &PlannedChange) {
        let (sign, color) = match change.action {
            Action::Create => ("+", AnsiColor::Green),
            Action::Update => ("~", AnsiColor::Yellow),
            Action::Move => (">", AnsiColor::Cyan),
            Action::Invalidate => ("!", AnsiColor::Red),
            Action::Validate => ("=", AnsiColor::Green),
            Action::Remove => ("-", AnsiColor::Red),
        };
        let place = match (&change.path, change.line) {
            (Some(path), Some(line)) => format!("{path}:{line}"),
            _ => String::new(),
        };
        let name = format!("{} {}", change.kind.to_ascii_lowercase(), change.name);
        self.head(sign, color.on_default(), &name, &place);
        for field in &change.fields {
            self.field(field);
        }
        if change.action == Action::Update && change.kind != "Pipeline" && change.fields.is_empty() {
            self.line("    only the order of its entries");
        }
        for fires in change.fires.iter().flat_map(Fires::of_each_trigger) {
            let next = |times: &[DueTime]| match times.first() {
                Some(first) => format!("{} ({}, {})", relative(first.at, self.now), first.trigger, exact(first.at)),
                None => "never".into(),
            };
            let text = match (self.wide, change.action) {
                (true, _) => format!("    fires  {} → {}", due(&fires.before), due(&fires.after)),
                (false, Action::Create) => format!("    fires  {}", next(&fires.after)),
                (false, _) => format!("    fires  {} → {}", next(&fires.before), next(&fires.after)),
            };
            self.line(&text);
        }
        if let Some(placement) = &change.placement {
            let agent = match (&placement.before, &placement.after) {
                (Some(before), Some(after)) if before == after => format!("stays on {after}"),
                (Some(before), Some(after)) => format!("{before} → {after}"),
                (None, Some(after)) => after.to_string(),
                (before, None) => {
                    let before = before.as_ref().map(|before| format!("{before} → ")).unwrap_or_default();
                    let reason = placement.reason.as_ref().map_or("none", |reason| reason.as_str());
                    format!("{before}none: {reason}")
                }
            };
            let is_known = placement.before.is_some() && placement.before == placement.after;
            let message = if is_known || placement.message.is_empty() {
                String::new()
            } else {
                format!(" ({})", placement.message)
            };
            self.line(&format!("    agent  {agent}{message}"));
        }
        for run in &change.runs {
            self.line(&format!("    run    {run} finishes on what it started with"));
        }
    }

    fn field(&mut self, field: &FieldChange) {
        let most = if self.wide { usize::MAX } else { LONG };
        let (old, new) = (value(field.old.as_ref(), most), value(field.new.as_ref(), most));
        self.line(&format!("    {}: {old} → {new}", field.path));
    }
}
