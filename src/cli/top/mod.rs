//! `xene top`: what goes on, live: runs, agents, what fires next, the selected run's output.
//!
//! [`model`] is a machine without I/O: what happened goes in, what to do comes out. [`view`] draws it. Here are the
//! threads around it: one for keys, one for the controller's changes, one for the output that is followed.

mod model;
#[cfg(test)]
mod tests;
mod view;

use std::{
    io::{self, BufRead, BufReader},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers},
};
use serde_json::{Value, json};
use xene_agent::clock;

use self::model::{Do, Input, Key, Model};
use super::{
    Error,
    client::Client,
    exit,
    kind::Kind,
    output::{Format, Ui},
    watch::{Change, Watch},
};

/// So much waits to be drawn; then whoever brings it waits, and with it the controller's log, not the memory.
const WAITING: usize = 1024;
/// At least so often the times that are shown are brought up to date.
const TICK: Duration = Duration::from_secs(1);
/// Who moves on within this is not shown what lies between.
const REST: Duration = Duration::from_millis(200);
/// After so long without a line it is asked whether the run is still looked at: a run that is quiet must not keep its
/// connection once nobody is.
const QUIET: Duration = Duration::from_secs(10);
/// So many runs are read at first, beside those under way.
const LIMIT: &str = "500";
/// The longest list that the API gives.
const ALL: &str = "10000";

/// Shows it until somebody leaves.
///
/// # Errors
/// If there is no terminal, or the controller can't be reached.
pub fn run(client: &Client, ui: &mut Ui) -> Result<(), Error> {
    if !ui.out.is_terminal || ui.format != Format::Table {
        let message = "`xene top` draws on a terminal, and this is none";
        return Err(Error::usage_with_hint(message, "`xene get runs --watch` prints line by line"));
    }
    // Told before the screen is taken: who can't connect sees a sentence.
    let lists = read_lists(client)?;
    let mut terminal = ratatui::try_init()?;
    let ended = show(client, &mut terminal, lists);
    ratatui::restore();
    ended
}

fn show(client: &Client, terminal: &mut DefaultTerminal, lists: Input) -> Result<(), Error> {
    let (sender, inputs) = sync_channel(WAITING);
    let (keys, changes, by) = (sender.clone(), sender.clone(), client.clone());
    thread::spawn(move || read_keys(&keys));
    thread::spawn(move || read_changes(&by, &changes));
    let outside = Outside { client: client.clone(), sender, following: Arc::default() };
    let mut model = Model::new(clock::now().wall);
    let mut todo = model.update(lists);
    loop {
        for what in todo {
            match what {
                Do::Quit => return Ok(()),
                Do::Interrupt => return Err(Error::Status(exit::INTERRUPTED)),
                Do::Fail(message) => return Err(Error::Failed { message, hint: None }),
                Do::Follow(run) => outside.follow(run),
                Do::Cancel(run) => outside.cancel(run),
            }
        }
        terminal.draw(|frame| view::draw(&model, frame))?;
        todo = next(&inputs, &mut model);
    }
}

/// Takes what is there, at least one thing, and as much as one picture can show.
fn next(inputs: &Receiver<Input>, model: &mut Model) -> Vec<Do> {
    let first = match inputs.recv_timeout(TICK) {
        Ok(input) => Some(input),
        Err(RecvTimeoutError::Timeout) => None,
        Err(RecvTimeoutError::Disconnected) => return vec![Do::Quit],
    };
    let mut todo = model.update(Input::Tick(clock::now().wall));
    for input in first.into_iter().chain(inputs.try_iter().take(WAITING)) {
        todo.extend(model.update(input));
    }
    todo
}

fn read_keys(sender: &SyncSender<Input>) {
    while let Ok(event) = event::read() {
        let input = match event {
            Event::Key(key) if key.kind != KeyEventKind::Release => match key.code {
                KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Input::Key(Key::Interrupt),
                KeyCode::Up => Input::Key(Key::Up),
                KeyCode::Down => Input::Key(Key::Down),
                KeyCode::PageUp => Input::Key(Key::PageUp),
                KeyCode::PageDown => Input::Key(Key::PageDown),
                KeyCode::Enter => Input::Key(Key::Enter),
                KeyCode::Esc => Input::Key(Key::Escape),
                KeyCode::Char(letter) => Input::Key(Key::Letter(letter)),
                _ => continue,
            },
            Event::Resize(..) => Input::Redraw,
            _ => continue,
        };
        if sender.send(input).is_err() {
            return;
        }
    }
}

fn read_lists(client: &Client) -> Result<Input, Error> {
    let list = |path: &str, query: &[(&str, &str)]| {
        let answer = client.get(path, query)?;
        Ok::<_, Error>(answer.get("items").and_then(Value::as_array).cloned().unwrap_or_default())
    };
    let mut runs = list("/api/v1/runs", &[("limit", LIMIT)])?;
    runs.extend(list("/api/v1/runs", &[("active", "true"), ("limit", ALL)])?);
    Ok(Input::Lists {
        runs,
        agents: list("/api/v1/agents", &[("limit", ALL)])?,
        pipelines: list("/api/v1/pipelines", &[("limit", ALL)])?,
    })
}

fn read_changes(client: &Client, sender: &SyncSender<Input>) {
    let mut watch = Watch::new(client, "run,agent,pipeline");
    loop {
        let input = match watch.next_change() {
            Ok(Change::Connected) => read_lists(client).unwrap_or_else(|error| Input::Lost(error.to_string())),
            Ok(Change::Lost) => Input::Lost("the connection is lost".into()),
            Ok(Change::Object { kind, data }) => Input::Object { kind, data },
            Err(error) => Input::Failed(error.to_string()),
        };
        let is_last = matches!(input, Input::Failed(_));
        if sender.send(input).is_err() || is_last {
            return;
        }
    }
}

/// What the model asks for.
struct Outside {
    client: Client,
    sender: SyncSender<Input>,
    /// Counts what was asked to be followed: only the last counts.
    following: Arc<AtomicU64>,
}

impl Outside {
    fn follow(&self, run: String) {
        let mine = self.following.fetch_add(1, Ordering::SeqCst) + 1;
        let (client, sender, following) = (self.client.clone(), self.sender.clone(), self.following.clone());
        thread::spawn(move || {
            thread::sleep(REST);
            let is_last = || following.load(Ordering::SeqCst) == mine;
            if !is_last() {
                return;
            }
            let Ok(path) = Kind::Runs.path_of(&run) else { return };
            let tell = |line| sender.send(Input::Log { run: run.clone(), line }).is_ok();
            if let Err(error) = follow_log(&client, &path, QUIET, is_last, tell) {
                tell(format!("xene: {error}"));
            }
        });
    }

    fn cancel(&self, run: String) {
        let (client, sender) = (self.client.clone(), self.sender.clone());
        thread::spawn(move || {
            let path = Kind::Runs.path_of(&run);
            let said = match path.and_then(|path| client.post(&format!("{path}/cancel"), &json!({}), &[])) {
                Ok(_) => format!("run {run} is being cancelled"),
                Err(error) => error.to_string(),
            };
            drop(sender.send(Input::Said(said)));
        });
    }
}

/// Tells the last lines of a run's log and those that come, while `is_wanted`, which is asked after each of them and
/// after `quiet` without one; ends once `tell` takes no more.
fn follow_log(
    client: &Client,
    path: &str,
    quiet: Duration,
    is_wanted: impl Fn() -> bool,
    tell: impl Fn(String) -> bool,
) -> Result<(), Error> {
    let query = [("follow", "true"), ("tail", "1000")];
    let mut log = BufReader::new(client.stream(&format!("{path}/logs"), &query, &[], Some(quiet))?);
    let mut bytes = Vec::new();
    while is_wanted() {
        match log.read_until(b'\n', &mut bytes) {
            // What came of a line stays: it goes on with the next read.
            Err(error) if is_quiet(&error) => continue,
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
        let line = String::from_utf8_lossy(&bytes).trim_end_matches(['\n', '\r']).to_owned();
        bytes.clear();
        if !tell(line) {
            break;
        }
    }
    Ok(())
}

/// True if nothing came for as long as a read may take; the next one goes on where this one was.
fn is_quiet(error: &io::Error) -> bool {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<ureq::Error>());
    matches!(cause, Some(ureq::Error::Timeout(_)))
}
