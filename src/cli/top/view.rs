//! The picture. Whatever acts on a terminal in a name or a message is escaped before it is drawn.

use std::iter;

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Block, Borders, Cell, Clear, Paragraph, Row, Table, TableState},
};
use serde_json::Value;

use super::model::{Model, has_ended, name, text, time};
use crate::cli::{
    escape,
    time::{age, relative, took},
};

/// A terminal that is lower shows runs alone.
const HEIGHT_FOR_ALL: u16 = 16;
/// One that is narrower shows agents and firings not at all.
const WIDTH_FOR_ALL: u16 = 90;

const KEYS: &str = " ↑↓ run   enter output   pgup/pgdn scroll   c cancel   q quit";

pub(super) fn draw(model: &Model, frame: &mut Frame<'_>) {
    let [head, body, foot] =
        Layout::vertical([Constraint::Length(1), Constraint::Min(1), Constraint::Length(1)]).areas(frame.area());
    frame.render_widget(header(model), head);
    frame.render_widget(footer(model), foot);
    if model.zoomed {
        log(model, frame, body);
    } else if body.height < HEIGHT_FOR_ALL {
        runs(model, frame, body);
    } else {
        let [above, below] = Layout::vertical([Constraint::Percentage(50), Constraint::Percentage(50)]).areas(body);
        if body.width < WIDTH_FOR_ALL {
            runs(model, frame, above);
        } else {
            let [left, right] =
                Layout::horizontal([Constraint::Percentage(62), Constraint::Percentage(38)]).areas(above);
            let [upper, lower] =
                Layout::vertical([Constraint::Percentage(50), Constraint::Percentage(50)]).areas(right);
            runs(model, frame, left);
            agents(model, frame, upper);
            firings(model, frame, lower);
        }
        log(model, frame, below);
    }
    if let Some(run) = &model.asking {
        ask(run, frame);
    }
}

fn header(model: &Model) -> Line<'static> {
    let active = model.runs.values().filter(|run| !has_ended(run)).count();
    let connected = model.agents.values().filter(|agent| text(agent, "/status/phase") == Some("Connected")).count();
    let text = format!(
        " xene   {active} under way   {connected} of {} agents connected   {} pipelines",
        model.agents.len(),
        model.pipelines.len()
    );
    Line::from(text).style(Style::new().add_modifier(Modifier::BOLD))
}

fn footer(model: &Model) -> Line<'static> {
    match (&model.lost, &model.said) {
        (Some(why), _) => Line::from(format!(" {}: this picture is old", escape::line(why))).style(Color::Red),
        (None, Some(said)) => Line::from(format!(" {}", escape::line(said))).style(Color::Yellow),
        (None, None) => Line::from(KEYS).style(Modifier::DIM),
    }
}

fn runs(model: &Model, frame: &mut Frame<'_>, area: Rect) {
    // What does not fit is left out by this table: the layout would share a lack of room out as it likes.
    let all = [("PHASE", 12, 0), ("REASON", 15, 55), ("AGENT", 12, 68), ("AGE", 5, 31), ("TOOK", 7, 39)];
    let shown: Vec<_> = all.into_iter().filter(|(_, _, needs)| area.width >= *needs).collect();
    let rows = model.rows().into_iter().map(|run| {
        let phase = text(run, "/status/phase").unwrap_or_default();
        let pipeline = [text(run, "/spec/workflow"), text(run, "/spec/pipeline")].map(Option::unwrap_or_default);
        let cells = shown.iter().map(|(name, ..)| match *name {
            "PHASE" => Cell::from(escape::line(phase)).style(phase_color(phase)),
            "REASON" => plain(text(run, "/status/reason").unwrap_or_default()),
            "AGENT" => plain(text(run, "/status/agent").unwrap_or_default()),
            "AGE" => Cell::from(time(run, "/metadata/createdAt").map(|at| age(at, model.now)).unwrap_or_default()),
            _ => {
                let end = time(run, "/status/finishedAt").unwrap_or(model.now);
                Cell::from(time(run, "/status/startedAt").map(|start| took(start, end)).unwrap_or_default())
            }
        });
        Row::new(iter::once(plain(&pipeline.join("/"))).chain(cells))
    });
    let widths = iter::once(Constraint::Fill(1)).chain(shown.iter().map(|(_, width, _)| Constraint::Length(*width)));
    let names = iter::once("PIPELINE").chain(shown.iter().map(|(name, ..)| *name));
    let table =
        Table::new(rows, widths).header(heading(names)).row_highlight_style(Modifier::REVERSED).block(block("Runs"));
    let mut state = TableState::new().with_selected(model.position());
    frame.render_stateful_widget(table, area, &mut state);
}

fn agents(model: &Model, frame: &mut Frame<'_>, area: Rect) {
    let rows = model.agents.values().map(|agent| {
        let phase = text(agent, "/status/phase").unwrap_or_default();
        let number = |pointer: &str| agent.pointer(pointer).and_then(Value::as_u64).unwrap_or_default();
        let pipelines = agent.pointer("/status/pipelines").and_then(Value::as_array).map_or(0, Vec::len);
        Row::new([
            plain(name(agent).unwrap_or_default()),
            Cell::from(escape::line(phase)).style(phase_color(phase)),
            Cell::from(format!("{}/{}", number("/status/busy"), number("/status/slots"))),
            Cell::from(pipelines.to_string()),
        ])
    });
    let widths = [Constraint::Fill(1), Constraint::Length(12), Constraint::Length(5), Constraint::Length(9)];
    let table =
        Table::new(rows, widths).header(heading(["AGENT", "PHASE", "BUSY", "PIPELINES"])).block(block("Agents"));
    frame.render_widget(table, area);
}

fn firings(model: &Model, frame: &mut Frame<'_>, area: Rect) {
    let mut due: Vec<_> = model
        .pipelines
        .iter()
        .filter_map(|(name, pipeline)| Some((time(pipeline, "/status/nextFire")?, name)))
        .collect();
    due.sort_unstable();
    let room = usize::from(area.height.saturating_sub(2));
    let rows = due.into_iter().take(room).map(|(at, name)| {
        // A due time that has just passed is replaced with the pipeline's next change.
        let when = if at <= model.now { "now".to_owned() } else { relative(at, model.now) };
        Row::new([Cell::from(when), plain(name)])
    });
    let table = Table::new(rows, [Constraint::Length(9), Constraint::Fill(1)]).block(block("Fires next"));
    frame.render_widget(table, area);
}

fn log(model: &Model, frame: &mut Frame<'_>, area: Rect) {
    let title =
        model.selected.as_ref().map_or_else(|| "Output".to_owned(), |run| format!("Output of {}", escape::line(run)));
    let room = usize::from(area.height.saturating_sub(2));
    let end = model.log.len().saturating_sub(model.scrolled).max(room.min(model.log.len()));
    let lines = model.log.iter().take(end).skip(end.saturating_sub(room));
    let lines: Vec<Line<'_>> = lines.map(|line| Line::from(line.as_str())).collect();
    let block = match model.scrolled {
        0 => block(&title),
        scrolled => block(&format!("{title}, {scrolled} lines back")),
    };
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

fn ask(run: &str, frame: &mut Frame<'_>) {
    let question = format!(" Cancel run {}?  y / n ", escape::line(run));
    let area = frame.area();
    let width = u16::try_from(question.chars().count() + 2).unwrap_or(u16::MAX).min(area.width);
    let height = 3.min(area.height);
    let place = Rect::new((area.width - width) / 2, (area.height - height) / 2, width, height);
    frame.render_widget(Clear, place);
    let block = Block::bordered().border_style(Color::Yellow);
    frame.render_widget(Paragraph::new(Span::from(question)).block(block), place);
}

fn block(title: &str) -> Block<'static> {
    Block::new().borders(Borders::TOP).title(format!(" {title} ")).border_style(Modifier::DIM)
}

fn heading(names: impl IntoIterator<Item = &'static str>) -> Row<'static> {
    Row::new(names).style(Modifier::DIM)
}

fn plain(text: &str) -> Cell<'static> {
    Cell::from(escape::line(text))
}

fn phase_color(phase: &str) -> Style {
    let color = match phase {
        "Success" | "Connected" => Color::Green,
        "Error" | "Revoked" => Color::Red,
        "Running" | "ShuttingDown" => Color::Cyan,
        "StartingUp" | "Disconnected" | "Draining" => Color::Yellow,
        "Unknown" => Color::Magenta,
        _ => return Style::new(),
    };
    Style::new().fg(color)
}
