//! Waiting for a run, and watching it: a live tree on a terminal, lines of output elsewhere.

use std::{
    collections::{HashMap, VecDeque},
    io::{BufRead, BufReader, Write},
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use serde_json::Value;
use xene_schemas::{
    meta::RunName,
    phase::{Reason, RunPhase, TaskPhase},
    run::Run,
};

use super::{
    Error,
    client::Client,
    dirs, escape,
    kind::Kind,
    output::Ui,
    rows,
    status::parse,
    tree::{self, TAIL, View},
    watch::{Change, Watch},
};

/// What is said while the controller is away.
pub const LOST: &str = "the connection to the controller is lost; trying again";

/// Between two drawings of the live tree.
const FRAME: Duration = Duration::from_millis(100);

/// How long the rest of the output is waited for once the run has ended.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// A run that prints faster than the terminal takes it waits here, and so at the controller or in its spool.
pub(super) const NEWS: usize = 1024;

/// True while the live view hides the cursor.
static CURSOR_HIDDEN: AtomicBool = AtomicBool::new(false);

/// Shows the cursor again, if it is hidden.
pub fn show_cursor() {
    if CURSOR_HIDDEN.swap(false, Ordering::Relaxed) {
        let _ = std::io::stderr().write_all(b"\x1b[?25h");
    }
}

/// What is heard while a run is waited for.
#[derive(Debug)]
pub enum Heard<'a> {
    /// The run as it is now.
    Run(&'a Run),
    /// The controller went away.
    Lost,
}

/// Waits until a run ends; `hear` gets each of its states on the way, the last included.
///
/// # Errors
/// If the controller refuses, or `hear` fails. A controller that goes away is waited for.
pub fn wait(
    name: RunName,
    client: &Client,
    hear: &mut dyn FnMut(Heard<'_>) -> Result<(), Error>,
) -> Result<Run, Error> {
    let name = name.to_string();
    let path = Kind::Runs.path_of(&name)?;
    let mut watch = Watch::new(client, "run");
    let mut known = false;
    loop {
        let value = match watch.next_change()? {
            Change::Connected => match client.get(&path, &[]) {
                Ok(value) => value,
                // It went away again; the watch waits for it.
                Err(Error::Unreachable { .. }) if known => continue,
                Err(error) => return Err(error),
            },
            Change::Lost => {
                hear(Heard::Lost)?;
                continue;
            }
            Change::Object { kind, data } if kind == "run" => data,
            Change::Object { .. } => continue,
        };
        if value.pointer("/metadata/name").and_then(Value::as_str) != Some(&name) {
            continue;
        }
        let run: Run = parse(&value)?;
        known = true;
        hear(Heard::Run(&run))?;
        if run.status.phase.is_final() {
            return Ok(run);
        }
    }
}

/// What those who listen have heard.
#[derive(Debug)]
pub(super) enum News {
    /// The run as it is now.
    Run(Box<Run>),
    /// The controller went away.
    Lost,
    /// A line of its output, after `task/step | `.
    Line(String),
    /// A remark for the person who looks on.
    Said(String),
    /// Someone typed a line, which moved the cursor down.
    Typed,
    /// Its output has ended.
    OutputEnded,
    /// The run has ended, or can't be watched any more.
    Ended(Box<Result<Run, Error>>),
}

/// [`wait`], with the run shown on stderr as it goes: tree and output on a terminal, output alone elsewhere.
///
/// # Errors
/// As [`wait`].
pub fn follow(run: Run, client: &Client, ui: &mut Ui) -> Result<Run, Error> {
    let (sender, news) = sync_channel(NEWS);
    let name = run.metadata.name;
    let (watcher, reader) = (sender.clone(), sender);
    let (watch_client, log_client) = (client.clone(), client.clone());
    let watch_run = move || {
        let mut tell = |heard: Heard<'_>| {
            let news = match heard {
                Heard::Run(run) => News::Run(Box::new(run.clone())),
                Heard::Lost => News::Lost,
            };
            watcher.send(news).map_err(|_| Error::BrokenPipe)
        };
        let ended = wait(name, &watch_client, &mut tell);
        // Nobody listens any more: then nobody misses it.
        let _ = watcher.send(News::Ended(Box::new(ended)));
    };
    let read_output = move || {
        // A log that can't be read is no reason not to show the run.
        let _ = tell_output(name, &log_client, &reader);
        let _ = reader.send(News::OutputEnded);
    };
    let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| thread::Builder::new().name(name.into()).spawn(work);
    spawn("watch", Box::new(watch_run))?;
    spawn("log", Box::new(read_output))?;
    show(run, &news, Printed::Elsewhere, ui)
}

/// Where the run's output can be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Printed {
    /// In its log: beside the tree its newest lines are enough, without one it is a remark.
    Elsewhere,
    /// Nowhere but here: all of it stays above the tree, and without one it is the result.
    Here,
}

/// Shows a run as the news come: tree and output on a terminal, output alone elsewhere.
///
/// # Errors
/// If the news end in one, or nobody takes what is shown.
pub(super) fn show(run: Run, news: &Receiver<News>, printed: Printed, ui: &mut Ui) -> Result<Run, Error> {
    // A tree within what a program reads, or beside it, would only be in the way.
    let piped = printed == Printed::Here && ui.is_human() && !ui.out.is_terminal;
    let tree = ui.err.is_terminal && !dirs::dumb_terminal() && !piped;
    if tree { live(run, news, printed, ui) } else { plain(news, printed, ui) }
}

/// Sends each line of the run's output.
fn tell_output(name: RunName, client: &Client, news: &SyncSender<News>) -> Result<(), Error> {
    let path = format!("{}/logs", Kind::Runs.path_of(&name.to_string())?);
    let log = client.resuming(&path, &[("format", "ndjson"), ("follow", "true")], || {})?;
    for line in BufReader::new(log).lines() {
        let Some(line) = line.ok().and_then(|line| prefixed(&line)) else { continue };
        if news.send(News::Line(line)).is_err() {
            break;
        }
    }
    Ok(())
}

/// `task/step | text` of one line of the log as NDJSON.
fn prefixed(line: &str) -> Option<String> {
    let record: Value = serde_json::from_str(line).ok()?;
    let field = |name| record.get(name).and_then(Value::as_str);
    let text = field("text")?.trim_end_matches('\n');
    Some(match (field("task"), field("step")) {
        (Some(task), Some(step)) => format!("{task}/{step} | {text}"),
        (Some(task), None) => format!("{task} | {text}"),
        (None, _) => text.to_owned(),
    })
}

/// Output as it comes, a line each.
fn plain(news: &Receiver<News>, printed: Printed, ui: &mut Ui) -> Result<Run, Error> {
    let (mut ended, mut output_ended) = (None::<Run>, false);
    let mut phases = Phases::default();
    let is_result = printed == Printed::Here && ui.is_human();
    loop {
        let patience = if ended.is_some() { LAST_WORDS } else { Duration::MAX };
        let one = match news.try_recv() {
            Ok(one) => Some(one),
            // Nothing more at this moment: let it be seen.
            Err(_) => {
                ui.out.flush()?;
                next(news, patience)
            }
        };
        match one {
            Some(News::Line(line)) => {
                let stream = if is_result { &mut ui.out } else { &mut ui.err };
                stream.line(if stream.is_terminal { escape::output_line(&line) } else { line })?;
            }
            Some(News::Run(run)) => phases.tell(&run, ui),
            Some(News::Typed) => {}
            Some(News::Said(text)) => {
                ui.err.line(escape::line(&text))?;
                ui.err.flush()?;
            }
            Some(News::Lost) => ui.note(LOST),
            Some(News::OutputEnded) => output_ended = true,
            Some(News::Ended(result)) => {
                let run = (*result)?;
                phases.tell(&run, ui);
                ended = Some(run);
            }
            None => output_ended = true,
        }
        if output_ended && let Some(run) = ended {
            let warnings = match run.status.warnings {
                0 => String::new(),
                1 => ", with 1 warning".to_owned(),
                count => format!(", with {count} warnings"),
            };
            if run.status.phase == RunPhase::Success {
                let took = rows::run_took(&run, ui.now()).map(|took| format!(" after {took}")).unwrap_or_default();
                ui.note(&format!("run {} ended in Success{took}{warnings}", run.metadata.name));
            } else if !warnings.is_empty() {
                ui.note(&format!("run {} ended in {}{warnings}", run.metadata.name, run.status.phase));
            }
            return Ok(run);
        }
    }
}

/// What was told of a run's tasks where no tree shows them.
#[derive(Debug, Default)]
struct Phases {
    told: HashMap<String, TaskPhase>,
}

impl Phases {
    /// Tells which tasks have ended otherwise than in Success; with `--verbose` each change of a phase. What its own
    /// `when` left out was meant to be.
    fn tell(&mut self, run: &Run, ui: &mut Ui) {
        for (name, task) in &run.status.tasks {
            let has_ended =
                task.phase == TaskPhase::Error || (task.phase == TaskPhase::NotExecuted && run.status.phase.is_final());
            let is_skipped = task.reason.as_ref().is_some_and(|reason| *reason == Reason::SKIPPED);
            let is_news = if ui.verbose {
                has_ended || matches!(task.phase, TaskPhase::Running | TaskPhase::Success)
            } else {
                has_ended && !is_skipped
            };
            if !is_news || self.told.insert(name.clone(), task.phase) == Some(task.phase) {
                continue;
            }
            let reason = task.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
            let message = task.message.as_deref().map(|message| format!(": {message}")).unwrap_or_default();
            ui.note(&format!("xene: task {name}: {}{reason}{message}", task.phase));
        }
    }
}

/// The tree, drawn again in place at each change and while time goes by.
fn live(mut run: Run, news: &Receiver<News>, printed: Printed, ui: &mut Ui) -> Result<Run, Error> {
    let mut above = Vec::new();
    let (mut tail, mut ended, mut output_ended) = (VecDeque::with_capacity(TAIL), None::<Run>, false);
    let mut screen = Screen::default();
    let mut frame = 0;
    let mut waited = Duration::ZERO;
    let result = loop {
        let mut news_now = next(news, FRAME);
        if news_now.is_none() {
            frame += 1;
            waited += if ended.is_some() { FRAME } else { Duration::ZERO };
        }
        // All that has come is drawn at once.
        while let Some(one) = news_now {
            match one {
                News::Run(now) => run = *now,
                News::Said(text) => above.push(escape::line(&text)),
                News::Typed => screen.drawn.push(String::new()),
                News::Lost => push(&mut tail, LOST.into()),
                News::Line(line) if printed == Printed::Here => above.push(escape::output_line(&line)),
                News::Line(line) => push(&mut tail, escape::output_line(&line)),
                News::OutputEnded => output_ended = true,
                News::Ended(result) => match *result {
                    Ok(last) => ended = Some(last),
                    Err(error) => {
                        screen.leave(ui)?;
                        return Err(error);
                    }
                },
            }
            news_now = if above.len() < NEWS { news.try_recv().ok() } else { None };
        }
        if let Some(last) = ended.take_if(|_| output_ended || waited >= LAST_WORDS) {
            break last;
        }
        let (width, height) = terminal_size();
        let view =
            View { run: &run, tail: &tail, now: ui.now(), frame, width, height: Some(height), colored: ui.err.colored };
        screen.draw(&std::mem::take(&mut above), &tree::render(view), ui)?;
    };
    // What stays on the screen is the whole tree, and the last words of a run that failed.
    if result.status.phase == RunPhase::Success {
        tail.clear();
    }
    let (width, _) = terminal_size();
    let view = View { run: &result, tail: &tail, now: ui.now(), frame, width, height: None, colored: ui.err.colored };
    screen.draw(&above, &tree::render(view), ui)?;
    screen.leave(ui)?;
    Ok(result)
}

fn push(tail: &mut VecDeque<String>, line: String) {
    if tail.len() == TAIL {
        tail.pop_front();
    }
    tail.push_back(line);
}

fn next(news: &Receiver<News>, patience: Duration) -> Option<News> {
    match news.recv_timeout(patience) {
        Ok(news) => Some(news),
        Err(RecvTimeoutError::Timeout) => None,
        // Both threads end by a last word; without one they panicked, which the process shows by itself.
        Err(RecvTimeoutError::Disconnected) => {
            thread::sleep(patience.min(FRAME));
            None
        }
    }
}

/// Columns and rows of the terminal; one row is left for the cursor.
fn terminal_size() -> (usize, usize) {
    match rustix::termios::tcgetwinsize(rustix::stdio::stderr()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 1 => (size.ws_col.into(), usize::from(size.ws_row) - 1),
        Ok(_) | Err(_) => (80, 23),
    }
}

/// Lines drawn in place. One write each time, within a synchronized update, so that nothing flickers.
#[derive(Debug, Default)]
struct Screen {
    drawn: Vec<String>,
}

impl Screen {
    /// `above` stays for good, `lines` until the next drawing.
    fn draw(&mut self, above: &[String], lines: &[String], ui: &mut Ui) -> Result<(), Error> {
        if self.drawn == lines && above.is_empty() {
            return Ok(());
        }
        CURSOR_HIDDEN.store(true, Ordering::Relaxed);
        ui.err.write(frame(self.drawn.len(), above, lines))?;
        ui.err.flush()?;
        self.drawn = lines.to_vec();
        Ok(())
    }

    fn leave(&mut self, ui: &mut Ui) -> Result<(), Error> {
        CURSOR_HIDDEN.store(false, Ordering::Relaxed);
        ui.err.write("\x1b[?25h")?;
        ui.err.flush()
    }
}

/// What turns `before` drawn lines into these.
fn frame(before: usize, above: &[String], lines: &[String]) -> String {
    let mut out = String::from("\x1b[?2026h\x1b[?25l");
    if before > 0 {
        out += "\x1b[";
        out += &before.to_string();
        out += "A";
    }
    for line in above.iter().chain(lines) {
        out += "\r";
        out += line;
        out += "\x1b[K\n";
    }
    // Lines that the last drawing had and this one has not.
    out += "\x1b[J\x1b[?2026l";
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_log_names_task_and_step() {
        let line =
            r#"{"at":"2026-11-25T12:00:00.000Z","task":"t","step":"s","attempt":1,"stream":"stdout","text":"hi\n"}"#;
        assert_eq!(prefixed(line).as_deref(), Some("t/s | hi"));
        assert_eq!(prefixed(r#"{"stream":"note","text":"cut"}"#).as_deref(), Some("cut"));
        assert_eq!(prefixed("not json"), None);
    }

    #[test]
    fn a_drawing_covers_the_one_before() {
        let lines = ["a".to_owned(), "b".to_owned()];
        assert_eq!(frame(0, &[], &lines), "\x1b[?2026h\x1b[?25l\ra\x1b[K\n\rb\x1b[K\n\x1b[J\x1b[?2026l");
        assert!(frame(3, &[], &lines).starts_with("\x1b[?2026h\x1b[?25l\x1b[3A\ra"));
        let above = ["x".to_owned()];
        assert!(frame(3, &above, &lines).starts_with("\x1b[?2026h\x1b[?25l\x1b[3A\rx\x1b[K\n\ra"));
    }
}
