//! A run as a tree of tasks and steps, for a terminal. Pure: what is shown follows from the arguments alone.

use std::collections::VecDeque;

use anstyle::Style;
use jiff::Timestamp;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};
use xene_schemas::{
    phase::{Reason, RunPhase, TaskPhase},
    run::{Run, StepStatus, TaskStatus},
};

use super::{
    escape,
    output::{painted, phase_style},
    time::took,
};

/// What is drawn, and on what.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// The run as last heard.
    pub run: &'a Run,
    /// The newest lines of its output, safe for a terminal.
    pub tail: &'a VecDeque<String>,
    /// For durations of what goes on.
    pub now: Timestamp,
    /// Counts up; turns the spinners.
    pub frame: usize,
    /// In columns.
    pub width: usize,
    /// In rows; a tree that needs more is shortened. `None`: all of it.
    pub height: Option<usize>,
    /// True if colours are wanted.
    pub colored: bool,
}

const SPINNER: [&str; 10] = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];

/// How many lines of output are shown at most below the tree.
pub const TAIL: usize = 8;

/// Below this many rows output is not shown: the tree needs them.
const LEAST_TREE: usize = 6;

/// Names wider than this push their line's times to the right.
const WIDEST_NAME: usize = 40;

/// Which tasks are meant.
type Which = fn(&TaskStatus) -> bool;

/// Pieces of one line, each in its style.
type Line = Vec<(String, Style)>;

/// The lines of the view, none wider than `width`, at most `height` of them.
pub fn render(view: View<'_>) -> Vec<String> {
    let mut lines = vec![head(&view)];
    let rows = view.height.unwrap_or(usize::MAX).max(1);
    let tail = view.tail.len().min(TAIL).min(rows.saturating_sub(LEAST_TREE));
    let separator = usize::from(tail > 0);
    lines.extend(tasks(&view, rows.saturating_sub(1 + tail + separator)));
    if tail > 0 {
        lines.push(vec![("─".repeat(view.width.min(40)), Style::new().dimmed())]);
        let newest = view.tail.iter().skip(view.tail.len() - tail);
        lines.extend(newest.map(|line| vec![(line.clone(), Style::new())]));
    }
    lines.truncate(rows);
    lines.into_iter().map(|line| fit(line, view.width, view.colored)).collect()
}

fn head(view: &View<'_>) -> Line {
    let run = view.run;
    let status = &run.status;
    let phase = status.phase.as_str();
    let mut line = vec![
        (mark_of_run(status.phase, view.frame).to_owned(), phase_style(phase)),
        (format!(" {}", run.spec.key()), Style::new().bold()),
        (format!(" {} ", run.metadata.name), Style::new().dimmed()),
        (phase.to_owned(), phase_style(phase)),
    ];
    let took = super::rows::run_took(run, view.now).map(|took| format!("  {took}"));
    let agent = status.agent.as_ref().map(|agent| format!("  on {agent}"));
    line.push((took.unwrap_or_default() + &agent.unwrap_or_default(), Style::new().dimmed()));
    line.push((why(status.reason.as_ref(), status.message.as_deref()), phase_style(phase)));
    line
}

/// `  Reason: message`.
fn why(reason: Option<&Reason>, message: Option<&str>) -> String {
    let text = match (reason, message) {
        (None, None) => return String::new(),
        (Some(reason), None) => reason.to_string(),
        (None, Some(message)) => message.to_owned(),
        (Some(reason), Some(message)) => format!("{reason}: {message}"),
    };
    format!("  {}", escape::line(&text))
}

/// The tasks in at most `rows` lines. Where they need more, what tells least is left out first: the steps of tasks
/// that are not going on, then those tasks themselves, which become a count.
fn tasks(view: &View<'_>, rows: usize) -> Vec<Line> {
    let tasks = &view.run.status.tasks;
    let steps_width = |task: &TaskStatus| task.steps.iter().map(|step| step.name.width() + 2).max().unwrap_or(0);
    let widths = tasks.iter().map(|(name, task)| name.width().max(steps_width(task)));
    let name_width = widths.max().unwrap_or(0).min(WIDEST_NAME);
    let draw = |shown: Which, steps: Which| {
        let mut lines = Vec::new();
        for (name, task) in tasks.iter().filter(|(_, task)| shown(task)) {
            lines.push(task_line(name, task, name_width, view));
            if steps(task) {
                lines.extend(task.steps.iter().map(|step| step_line(step, name_width, view)));
            }
        }
        lines
    };
    let count = |phase, word: &str| {
        let count = tasks.values().filter(|task| task.phase == phase).count();
        (count > 0).then(|| vec![(format!("  {} {count} {word}", mark(phase, None, 0)), Style::new().dimmed())])
    };
    let counts =
        || [count(TaskPhase::Success, "done"), count(TaskPhase::NotExecuted, "not executed")].into_iter().flatten();

    let any = |_: &TaskStatus| true;
    let none = |_: &TaskStatus| false;
    let begun = |task: &TaskStatus| task.phase != TaskPhase::NotExecuted;
    let live = |task: &TaskStatus| matches!(task.phase, TaskPhase::Running | TaskPhase::Error);
    let choices: [(Which, Which); 5] = [(any, begun), (any, live), (live, live), (any, none), (live, none)];
    let mut lines = Vec::new();
    for (i, (shown, steps)) in choices.into_iter().enumerate() {
        lines = draw(shown, steps);
        if matches!(i, 2 | 4) {
            lines.extend(counts());
        }
        if lines.len() <= rows {
            return lines;
        }
    }
    let hidden = lines.len() - rows.saturating_sub(1);
    lines.truncate(rows.saturating_sub(1));
    lines.push(vec![(format!("  … {hidden} more"), Style::new().dimmed())]);
    lines
}

fn task_line(name: &str, task: &TaskStatus, name_width: usize, view: &View<'_>) -> Line {
    let style = phase_style(task.phase.as_str());
    let name = escape::line(name);
    let padding = " ".repeat(name_width.saturating_sub(name.width()));
    let mut line = vec![
        (format!("  {}", mark(task.phase, task.reason.as_ref(), view.frame)), style),
        (format!(" {name}{padding}"), if task.phase == TaskPhase::NotExecuted { style } else { Style::new() }),
    ];
    let mut notes = time_of(task.started_at, task.finished_at, view.now);
    if task.attempt > 1 {
        notes.push_str("  attempt ");
        notes += &task.attempt.to_string();
    }
    if task.phase == TaskPhase::NotExecuted && task.reason.is_none() && !view.run.status.phase.is_final() {
        let open =
            |name: &&String| view.run.status.tasks.get(*name).is_none_or(|task| task.phase != TaskPhase::Success);
        let waits_for: Vec<_> = task.dependencies.iter().filter(open).map(String::as_str).collect();
        if !waits_for.is_empty() {
            notes.push_str("  waits for ");
            notes += &escape::line(&waits_for.join(", "));
        }
    }
    line.push((notes, Style::new().dimmed()));
    line.push((why(task.reason.as_ref(), task.message.as_deref()), style));
    line
}

fn step_line(step: &StepStatus, name_width: usize, view: &View<'_>) -> Line {
    let style = phase_style(step.phase.as_str());
    let name = escape::line(&step.name);
    let padding = " ".repeat(name_width.saturating_sub(name.width() + 2));
    let mut line = vec![
        (format!("    {}", mark(step.phase, step.reason.as_ref(), view.frame)), style),
        (format!(" {name}{padding}"), Style::new().dimmed()),
        (time_of(step.started_at, step.finished_at, view.now), Style::new().dimmed()),
    ];
    let ended_by = match (step.phase, step.exit_code, step.signal) {
        (TaskPhase::Error, Some(code), _) => format!("  exit code {code}"),
        (TaskPhase::Error, None, Some(signal)) => format!("  signal {signal}"),
        _ => String::new(),
    };
    line.push((ended_by, style));
    // An exit code says it all.
    let reason = step.reason.as_ref().filter(|reason| **reason != Reason::EXIT_CODE && **reason != Reason::SIGNAL);
    line.push((why(reason, step.message.as_deref()), style));
    line
}

/// How long something took, or has taken so far, in a column of its own.
fn time_of(from: Option<Timestamp>, to: Option<Timestamp>, now: Timestamp) -> String {
    format!("  {:>6}", from.map(|from| took(from, to.unwrap_or(now))).unwrap_or_default())
}

fn mark(phase: TaskPhase, reason: Option<&Reason>, frame: usize) -> &'static str {
    match phase {
        TaskPhase::Success => "✓",
        TaskPhase::Error => "✗",
        TaskPhase::Running => SPINNER[frame % SPINNER.len()],
        TaskPhase::NotExecuted if reason.is_some() => "-",
        TaskPhase::NotExecuted => "·",
    }
}

fn mark_of_run(phase: RunPhase, frame: usize) -> &'static str {
    match phase {
        RunPhase::Success => "✓",
        RunPhase::Error => "✗",
        RunPhase::Unknown => "?",
        RunPhase::StartingUp | RunPhase::Running | RunPhase::ShuttingDown => SPINNER[frame % SPINNER.len()],
    }
}

/// A line cut to `width` columns.
fn fit(line: Line, width: usize, colored: bool) -> String {
    let total: usize = line.iter().map(|(text, _)| text.width()).sum();
    let mut room = if total <= width { width } else { width.saturating_sub(1) };
    let mut out = String::new();
    for (text, style) in line {
        let mut piece = String::new();
        for c in text.chars() {
            let columns = c.width().unwrap_or(0);
            if columns > room {
                room = 0;
                break;
            }
            room -= columns;
            piece.push(c);
        }
        if !piece.is_empty() {
            out += &painted(&piece, style, colored);
        }
    }
    if total > width && width > 0 {
        out.push('…');
    }
    out.truncate(out.trim_end().len());
    out
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use serde_json::json;

    use super::*;
    use crate::cli::output::testing::fixed_now;

    fn run(phase: &str, tasks: serde_json::Value) -> Run {
        serde_json::from_value(json!({
            "metadata": {"name": "01ka0000000000000000000001", "createdAt": "2026-11-25T11:59:00.000Z"},
            "spec": {"workflow": "site", "pipeline": "build", "trigger": {"type": "manual"},
                     "revision": "1a2b3c4d5e", "specHash": "00".repeat(32)},
            "status": {"phase": phase, "agent": "a1", "startedAt": "2026-11-25T11:59:50.000Z", "tasks": tasks}
        }))
        .unwrap()
    }

    fn check(run: &Run, tail: &[&str], width: usize, height: Option<usize>, expected: &Expect) {
        let tail = tail.iter().map(|line| (*line).to_owned()).collect();
        let view = View { run, tail: &tail, now: fixed_now(), frame: 2, width, height, colored: false };
        let lines = render(view);
        assert!(lines.iter().all(|line| line.width() <= width), "{lines:#?}");
        assert!(height.is_none_or(|height| lines.len() <= height), "{lines:#?}");
        expected.assert_eq(&(lines.join("\n") + "\n"));
    }

    fn step(name: &str, phase: &str) -> serde_json::Value {
        match phase {
            "Running" => json!({"name": name, "phase": phase, "startedAt": "2026-11-25T11:59:58.000Z"}),
            "NotExecuted" => json!({"name": name, "phase": phase}),
            _ => json!({"name": name, "phase": phase, "startedAt": "2026-11-25T11:59:50.000Z",
                        "finishedAt": "2026-11-25T11:59:51.200Z"}),
        }
    }

    fn example() -> Run {
        run(
            "Running",
            json!({
                "checkout": {"phase": "Success", "attempt": 1, "startedAt": "2026-11-25T11:59:50.000Z",
                             "finishedAt": "2026-11-25T11:59:51.200Z", "steps": [step("step-1", "Success")]},
                "compile": {"phase": "Running", "attempt": 2, "startedAt": "2026-11-25T11:59:51.200Z",
                            "dependencies": ["checkout"], "steps": [step("configure", "Success"), step("make", "Running"),
                                                                    step("install", "NotExecuted")]},
                "docs": {"phase": "NotExecuted", "reason": "Skipped", "attempt": 0, "steps": [step("step-1", "NotExecuted")]},
                "deploy": {"phase": "NotExecuted", "attempt": 0, "dependencies": ["checkout", "compile"],
                           "steps": [step("step-1", "NotExecuted")]},
            }),
        )
    }

    #[test]
    fn a_run_under_way_shows_what_goes_on_and_what_waits() {
        check(
            &example(),
            &["compile/make | cc -c main.c"],
            80,
            None,
            &expect![[r#"
            ⠹ site/build 01ka0000000000000000000001 Running  10.0s  on a1
              ✓ checkout       1.2s
                ✓ step-1       1.2s
              ⠹ compile        8.8s  attempt 2
                ✓ configure    1.2s
                ⠹ make         2.0s
                · install
              - docs                 Skipped
              · deploy               waits for compile
            ────────────────────────────────────────
            compile/make | cc -c main.c
        "#]],
        );
    }

    #[test]
    fn a_low_terminal_shows_what_matters_most() {
        check(
            &example(),
            &["a | 1", "a | 2"],
            80,
            Some(8),
            &expect![[r#"
            ⠹ site/build 01ka0000000000000000000001 Running  10.0s  on a1
              ✓ checkout       1.2s
              ⠹ compile        8.8s  attempt 2
              - docs                 Skipped
              · deploy               waits for compile
            ────────────────────────────────────────
            a | 1
            a | 2
        "#]],
        );
        check(
            &example(),
            &[],
            80,
            Some(4),
            &expect![[r#"
            ⠹ site/build 01ka0000000000000000000001 Running  10.0s  on a1
              ⠹ compile        8.8s  attempt 2
              ✓ 1 done
              · 2 not executed
        "#]],
        );
    }

    #[test]
    fn a_narrow_terminal_cuts_lines() {
        check(
            &example(),
            &["compile/make | a long line of output"],
            30,
            None,
            &expect![[r#"
            ⠹ site/build 01ka000000000000…
              ✓ checkout       1.2s
                ✓ step-1       1.2s
              ⠹ compile        8.8s  atte…
                ✓ configure    1.2s
                ⠹ make         2.0s
                · install
              - docs                 Skip…
              · deploy               wait…
            ──────────────────────────────
            compile/make | a long line of…
        "#]],
        );
    }

    #[test]
    fn a_failed_run_names_the_step_and_its_exit_code() {
        let mut failed = step("make", "Error");
        failed["exitCode"] = json!(2);
        failed["reason"] = json!("ExitCode");
        let mut run = run(
            "Error",
            json!({
                "compile": {"phase": "Error", "reason": "StepFailed", "message": "step make ended with exit code 2",
                            "attempt": 1, "startedAt": "2026-11-25T11:59:50.000Z",
                            "finishedAt": "2026-11-25T11:59:51.200Z", "steps": [failed, step("install", "NotExecuted")]},
                "deploy": {"phase": "NotExecuted", "reason": "UpstreamFailed", "attempt": 0, "dependencies": ["compile"],
                           "steps": []},
            }),
        );
        run.status.reason = Some(Reason::TASK_FAILED);
        run.status.finished_at = Some(fixed_now());
        check(
            &run,
            &[],
            90,
            None,
            &expect![[r#"
            ✗ site/build 01ka0000000000000000000001 Error  10.0s  on a1  TaskFailed
              ✗ compile      1.2s  StepFailed: step make ended with exit code 2
                ✗ make       1.2s  exit code 2
                · install
              - deploy             UpstreamFailed
        "#]],
        );
    }

    #[test]
    fn folding_facts_redraws_the_tree() {
        use xene_schemas::run::{RunEvent, TaskPlan};
        let mut run = run("StartingUp", json!({}));
        let plan = TaskPlan { name: "say".into(), steps: vec!["step-1".into()], dependencies: vec![], finally: false };
        let (start, end) = ("2026-11-25T11:59:50Z".parse().unwrap(), "2026-11-25T11:59:52Z".parse().unwrap());
        let facts = [
            RunEvent::Started { at: start, tasks: vec![plan] },
            RunEvent::TaskStarted { task: "say".into(), attempt: 1, at: start },
            RunEvent::StepStarted { task: "say".into(), step: 0, at: start },
            RunEvent::Ended { phase: RunPhase::Error, reason: Some(Reason::CANCELLED), message: None, at: end },
        ];
        let mut drawn = String::new();
        for (frame, fact) in facts.iter().enumerate() {
            run.apply(fact);
            let tail = VecDeque::new();
            let view = View { run: &run, tail: &tail, now: end, frame, width: 80, height: None, colored: false };
            drawn += &(render(view).join("\n") + "\n\n");
        }
        expect![[r#"
            ⠋ site/build 01ka0000000000000000000001 Running  2.0s  on a1
              · say

            ⠙ site/build 01ka0000000000000000000001 Running  2.0s  on a1
              ⠙ say         2.0s
                · step-1

            ⠹ site/build 01ka0000000000000000000001 Running  2.0s  on a1
              ⠹ say         2.0s
                ⠹ step-1    2.0s

            ✗ site/build 01ka0000000000000000000001 Error  2.0s  on a1  Cancelled
              ✗ say         2.0s  Cancelled
                ✗ step-1    2.0s  Cancelled

        "#]]
        .assert_eq(&drawn);
    }

    #[test]
    fn whatever_the_size_nothing_overflows() {
        for width in 0..50 {
            for height in 1..16 {
                let tail = ["日本語 output".to_owned(), "more".to_owned()].into();
                let run = example();
                let view = View {
                    run: &run,
                    tail: &tail,
                    now: fixed_now(),
                    frame: 0,
                    width,
                    height: Some(height),
                    colored: false,
                };
                let lines = render(view);
                assert!(
                    lines.len() <= height && lines.iter().all(|line| line.width() <= width),
                    "{width}x{height}: {lines:#?}"
                );
            }
        }
    }
}
