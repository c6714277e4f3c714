//! The pieces that pages are made of. Everything that is filled in is escaped; what could turn the order of text is
//! spelled out.

use std::{
    borrow::Cow,
    fmt::{Display, Write as _},
    time::Duration,
};

use jiff::Timestamp;
use maud::{Markup, html};
use xene_schemas::{
    meta::{PipelineKey, Revision, RunName},
    phase::RunPhase,
    run::{Run, RunTrigger, TriggerType},
};

use super::ansi::is_treacherous;

/// Text from elsewhere, on one line, with nothing in it that changes how its surroundings read.
pub(super) fn plain(text: &str) -> Cow<'_, str> {
    if !text.contains(|c| is_treacherous(c) || c == '\t') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\r' | '\t' => out.push(' '),
            // Writing to a String can't fail.
            c if is_treacherous(c) => drop(write!(out, "⟨U+{:04X}⟩", u32::from(c))),
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// A name as part of an element's id: letters, digits and hyphens stay.
pub(super) fn slug(name: &str) -> String {
    let kept =
        |c: char| if c.is_ascii_alphanumeric() || c == '-' { c.to_string() } else { format!("_{:x}", u32::from(c)) };
    name.chars().map(kept).collect()
}

/// An instant; the script shows it in the reader's own zone.
pub(super) fn time(at: Timestamp) -> Markup {
    html! { time datetime={ (format!("{at:.3}")) } { (at.strftime("%Y-%m-%d %H:%M:%S UTC")) } }
}

/// How long something took, or takes since.
pub(super) fn took(from: Option<Timestamp>, to: Option<Timestamp>) -> Markup {
    html! {
        @match (from, to) {
            (Some(from), Some(to)) => { (duration(between(from, to))) }
            (Some(from), None) => { span data-since={ (format!("{from:.3}")) } { "running" } }
            _ => { "–" }
        }
    }
}

pub(super) fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

/// Short, for people.
pub(super) fn duration(duration: Duration) -> String {
    let (seconds, millis) = (duration.as_secs(), duration.subsec_millis());
    match seconds {
        0 => format!("{millis} ms"),
        1..=9 => format!("{seconds}.{} s", millis / 100),
        10..=59 => format!("{seconds} s"),
        60..=3_599 => format!("{} min {} s", seconds / 60, seconds % 60),
        3_600..=86_399 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

/// Bytes, for people.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let exponent = (bytes.ilog2() / 10).min(4);
    let value = bytes as f64 / f64::from(1_u32 << 10).powi(i32::try_from(exponent).unwrap_or_default());
    format!("{value:.1} {}", UNITS[exponent as usize - 1])
}

/// A phase: a word and its colour, so that neither is needed to tell.
pub(super) fn phase(word: &str) -> Markup {
    html! { span class={ "phase p-" (word) } { (word) } }
}

pub(super) fn run_phase(run: &Run) -> Markup {
    html! {
        (phase(run.status.phase.as_str()))
        @if let Some(reason) = &run.status.reason { " " span.reason { (plain(reason.as_str())) } }
    }
}

pub(super) fn run_link(name: RunName) -> Markup {
    html! { a.mono href={ "/runs/" (name) } { (name) } }
}

pub(super) fn pipeline_link(key: &PipelineKey) -> Markup {
    html! { a href={ "/workflows/" (key.workflow) "#pipeline-" (key.pipeline) } { (key) } }
}

pub(super) fn agent_link(name: &impl Display) -> Markup {
    html! { a href={ "/agents/" (name) } { (name) } }
}

/// A revision, short if it is a commit.
pub(super) fn revision(revision: &Revision) -> Markup {
    let text = plain(&revision.0);
    let is_commit = text.len() >= 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let short = if is_commit { &text[..10] } else { &text };
    html! { code title=(text) { (short) } }
}

/// What a page says where there is nothing yet: and what to do.
pub(super) fn empty(what: &str, next: Markup) -> Markup {
    html! { div.empty { p { (what) } p { (next) } } }
}

/// Leads to the rest of a list.
pub(super) fn rest(to: &str, label: &str) -> Markup {
    html! { p.pager { a rel="next" href=(to) { (label) } } }
}

/// What started a run, in a few words.
pub(super) fn trigger(trigger: &RunTrigger) -> Markup {
    html! {
        (trigger.kind.as_str())
        @if let Some(name) = &trigger.name { " " (name) }
        @match (&trigger.by, trigger.kind) {
            (Some(by), TriggerType::After) => { " run " (plain(by)) }
            (Some(by), _) => { " by " bdi { (plain(by)) } }
            (None, _) => {}
        }
        @if let Some(due) = trigger.scheduled_time { ", due " (time(due)) }
    }
}

/// Runs as a table.
pub(super) fn runs_table(runs: &[Run], with_pipeline: bool) -> Markup {
    html! {
        div.scroll { table {
            thead { tr {
                th scope="col" { "Run" }
                th scope="col" { "Pipeline" }
                th scope="col" { "Phase" }
                th scope="col" { "Started by" }
                th scope="col" { "Created" }
                th scope="col" { "Took" }
            } }
            tbody { @for run in runs { tr {
                td { (run_link(run.metadata.name)) }
                @if with_pipeline { td { (pipeline_link(&run.spec.key())) } }
                @else { td.narrow { (run.spec.pipeline) } }
                td { (run_phase(run)) }
                td { (trigger(&run.spec.trigger)) }
                td { (time(run.metadata.created_at)) }
                td { (took(run.status.started_at, run.status.finished_at)) }
            } } }
        } }
    }
}

/// What failed in a run, in a sentence; nothing unless it did.
pub(super) fn failure(run: &Run) -> Option<Markup> {
    if run.status.phase != RunPhase::Error {
        return None;
    }
    run.status.message.as_ref().map(|message| html! { bdi { (plain(message)) } })
}

/// A fact and its name, for a list of them.
pub(super) fn fact(name: &str, value: Markup) -> Markup {
    html! { div { dt { (name) } dd { (value) } } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_elsewhere_stays_in_its_place() {
        assert_eq!(plain("fine – ünïcödé"), "fine – ünïcödé");
        assert_eq!(plain("a\u{202e}b\nc\u{200b}\x1b[31m"), "a⟨U+202E⟩b c⟨U+200B⟩⟨U+001B⟩[31m");
        assert_eq!(slug("build[a/b \"x\"]"), "build_5ba_2fb_20_22x_22_5d");
    }

    #[test]
    fn a_row_of_runs_has_as_many_cells_as_the_table_has_heads() {
        let run = serde_json::json!({
            "metadata": {"name": "01m888x6cwr6469gm6cb067dy8", "createdAt": "2026-01-01T00:00:00Z"},
            "spec": {
                "workflow": "w", "pipeline": "p", "trigger": {"type": "manual"}, "revision": "r1",
                "specHash": "00".repeat(32),
            },
            "status": {"phase": "StartingUp"},
        });
        let run: Run = serde_json::from_value(run).unwrap();
        for with_pipeline in [true, false] {
            let table = runs_table(std::slice::from_ref(&run), with_pipeline).into_string();
            assert_eq!(table.matches("<th ").count(), table.matches("<td").count(), "{table}");
        }
    }

    #[test]
    fn durations_and_sizes_are_short() {
        for (millis, expected) in [
            (0, "0 ms"),
            (1_250, "1.2 s"),
            (59_000, "59 s"),
            (61_000, "1 min 1 s"),
            (7_260_000, "2 h 1 min"),
            (90_000_000, "1 d 1 h"),
        ] {
            assert_eq!(duration(Duration::from_millis(millis)), expected);
        }
        for (bytes, expected) in
            [(0, "0 B"), (1_023, "1023 B"), (1_536, "1.5 KiB"), (3 << 30, "3.0 GiB"), (u64::MAX, "16777216.0 TiB")]
        {
            assert_eq!(size(bytes), expected);
        }
    }
}
