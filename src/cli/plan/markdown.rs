//! A plan for a pull request: short, the details folded away. Nothing that files say can act in it: all of it stands
//! in code spans.

use std::fmt::Write as _;

use xene_schemas::plan::{Action, Fires, PlanReport, PlannedChange};

use super::text::{due, side, summary, value};
use crate::cli::escape;

/// Values longer than this are cut.
const LONG: usize = 160;
/// So many rows of each table are shown: a comment has its limits.
const ROWS: usize = 200;

/// The plan as GitHub and GitLab show it.
pub(super) fn render(report: &PlanReport) -> String {
    let mut text = format!("### xene plan: {}\n\n", summary(report));
    let _ = writeln!(text, "From {} to {}.\n", code(&side(&report.from)), code(&side(&report.to)));
    if !report.changes.is_empty() {
        text += "| | object | |\n|---|---|---|\n";
        for change in report.changes.iter().take(ROWS) {
            let sign = match change.action {
                Action::Create => "➕",
                Action::Update => "✏️",
                Action::Move => "↪️",
                Action::Invalidate => "❌",
                Action::Validate => "✅",
                Action::Remove => "➖",
            };
            let kind = change.kind.to_lowercase();
            let _ = writeln!(text, "| {sign} | {kind} {} | {} |", code(&change.name), consequences(change));
        }
        more(report.changes.len(), &mut text);
    }
    for held in &report.held {
        let _ = writeln!(text, "> ⚠️ workflow {} stays: {}\n", code(held.name.as_str()), code(&held.message));
    }
    fields(report, &mut text);
    problems(report, &mut text);
    text
}

fn consequences(change: &PlannedChange) -> String {
    let mut words = Vec::new();
    if let (Some(path), Some(line)) = (&change.path, change.line) {
        words.push(code(&format!("{path}:{line}")));
    }
    for fires in change.fires.iter().flat_map(Fires::of_each_trigger) {
        let first = |times: &[_]| code(&due(times.get(..1).unwrap_or_default()));
        words.push(match change.action {
            Action::Create => format!("fires {}", first(&fires.after)),
            _ => format!("fires {} → {}", first(&fires.before), first(&fires.after)),
        });
    }
    if let Some(placement) = &change.placement {
        words.push(match (&placement.before, &placement.after) {
            (Some(before), Some(after)) if before == after => format!("stays on {}", code(after.as_str())),
            (Some(before), Some(after)) => format!("{} → {}", code(before.as_str()), code(after.as_str())),
            (None, Some(after)) => format!("on {}", code(after.as_str())),
            (_, None) => format!("on no agent: {}", code(&placement.message)),
        });
    }
    match change.runs.len() {
        0 => {}
        1 => words.push("1 run finishes on what it started with".into()),
        count => words.push(format!("{count} runs finish on what they started with")),
    }
    words.join(" · ")
}

fn fields(report: &PlanReport, text: &mut String) {
    let fields: Vec<_> =
        report.changes.iter().flat_map(|change| change.fields.iter().map(move |field| (change, field))).collect();
    if fields.is_empty() {
        return;
    }
    let _ = writeln!(text, "<details><summary>Fields ({})</summary>\n", fields.len());
    *text += "| workflow | field | old | new |\n|---|---|---|---|\n";
    for (change, field) in fields.iter().take(ROWS) {
        let (old, new) = (value(field.old.as_ref(), LONG), value(field.new.as_ref(), LONG));
        let _ = writeln!(text, "| {} | {} | {} | {} |", code(&change.name), code(&field.path), code(&old), code(&new));
    }
    more(fields.len(), text);
    *text += "</details>\n\n";
}

fn problems(report: &PlanReport, text: &mut String) {
    if report.problems.is_empty() {
        return;
    }
    let _ = writeln!(text, "<details open><summary>Problems in the files ({})</summary>\n", report.problems.len());
    *text += "| place | problem |\n|---|---|\n";
    for problem in report.problems.iter().take(ROWS) {
        let place = problem.place();
        let message = format!("{}[{}]: {}", problem.severity, problem.code, problem.message);
        let _ = writeln!(text, "| {} | {} |", code(&place), code(&message));
    }
    more(report.problems.len(), text);
    *text += "</details>\n\n";
}

/// Ends a table.
fn more(count: usize, text: &mut String) {
    if count > ROWS {
        let _ = writeln!(text, "\n… and {} more.", count - ROWS);
    }
    text.push('\n');
}

/// A code span that fits into a table: one line, its fence longer than any within, a bar kept from ending the cell.
fn code(text: &str) -> String {
    let text = escape::line(text).replace('|', "\\|");
    if text.trim().is_empty() {
        return String::new();
    }
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or_default();
    let fence = "`".repeat(longest + 1);
    let pad = if text.starts_with('`') || text.ends_with('`') { " " } else { "" };
    format!("{fence}{pad}{text}{pad}{fence}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_stays_in_its_code_span() {
        assert_eq!(code("a|b"), "`a\\|b`");
        assert_eq!(code("`x` ``y``"), "``` `x` ``y`` ```");
        assert_eq!(code("</details>\n@everyone <script>"), "`</details> @everyone <script>`");
        assert_eq!(code("a\u{202e}b\x1b[31m"), "`a\\u{202e}b\\x1b[31m`");
        assert_eq!(code(" "), "");
    }
}
