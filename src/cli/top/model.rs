//! What is shown, and what keys do: no I/O.

use std::collections::{BTreeMap, VecDeque};

use jiff::Timestamp;
use serde_json::Value;

use crate::cli::escape;

/// So many runs are kept.
const RUNS: usize = 1_000;
/// So many lines of output are kept.
const LINES: usize = 1_000;
/// A page of runs.
const PAGE: usize = 10;

/// What happened.
#[derive(Debug, Clone)]
pub(super) enum Input {
    /// All there is now.
    Lists {
        runs: Vec<Value>,
        agents: Vec<Value>,
        pipelines: Vec<Value>,
    },
    /// One object, as it is now, or that it is gone.
    Object {
        kind: String,
        data: Value,
    },
    /// A line of a run's output.
    Log {
        run: String,
        line: String,
    },
    Key(Key),
    /// Time has passed.
    Tick(Timestamp),
    /// The terminal has another size.
    Redraw,
    /// The controller is away, and waited for.
    Lost(String),
    /// It does not come back.
    Failed(String),
    /// What came of something that was asked for.
    Said(String),
}

/// What was pressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Up,
    Down,
    PageUp,
    PageDown,
    Enter,
    Escape,
    Interrupt,
    Letter(char),
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Do {
    /// Follow this run's output, and no other any more.
    Follow(String),
    /// Cancel this run.
    Cancel(String),
    Quit,
    Interrupt,
    Fail(String),
}

/// All that is shown.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) now: Timestamp,
    pub(super) runs: BTreeMap<String, Value>,
    pub(super) agents: BTreeMap<String, Value>,
    pub(super) pipelines: BTreeMap<String, Value>,
    /// The run whose output is shown.
    pub(super) selected: Option<String>,
    pub(super) log: VecDeque<String>,
    /// So many lines above the last.
    pub(super) scrolled: usize,
    /// The run that is to be cancelled, if the answer is yes.
    pub(super) asking: Option<String>,
    /// True if the output has the whole screen.
    pub(super) zoomed: bool,
    /// Why the picture may be old.
    pub(super) lost: Option<String>,
    pub(super) said: Option<String>,
}

impl Model {
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            now,
            runs: BTreeMap::new(),
            agents: BTreeMap::new(),
            pipelines: BTreeMap::new(),
            selected: None,
            log: VecDeque::new(),
            scrolled: 0,
            asking: None,
            zoomed: false,
            lost: None,
            said: None,
        }
    }

    /// Takes what happened, gives what is to be done.
    pub(super) fn update(&mut self, input: Input) -> Vec<Do> {
        match input {
            Input::Lists { runs, agents, pipelines } => {
                self.lost = None;
                (self.runs, self.agents, self.pipelines) = (by_name(runs), by_name(agents), by_name(pipelines));
                self.select_first()
            }
            Input::Object { kind, data } => {
                self.object(&kind, data);
                self.select_first()
            }
            Input::Log { run, line } => {
                if self.selected.as_ref() == Some(&run) {
                    self.log.push_back(escape::output_line(&line));
                    if self.log.len() > LINES {
                        self.log.pop_front();
                    }
                    // Who looks back stays where he looks.
                    if self.scrolled > 0 {
                        self.scrolled = (self.scrolled + 1).min(self.log.len());
                    }
                }
                Vec::new()
            }
            Input::Key(key) => self.key(key),
            Input::Tick(now) => {
                self.now = now;
                Vec::new()
            }
            Input::Redraw => Vec::new(),
            Input::Lost(why) => {
                self.lost = Some(why);
                Vec::new()
            }
            Input::Failed(message) => vec![Do::Fail(message)],
            Input::Said(said) => {
                self.said = Some(said);
                Vec::new()
            }
        }
    }

    /// Runs in the order in which they are shown: those under way, then the newest that ended.
    pub(super) fn rows(&self) -> Vec<&Value> {
        let (active, ended): (Vec<_>, Vec<_>) = self.runs.values().rev().partition(|run| !has_ended(run));
        active.into_iter().chain(ended).collect()
    }

    /// Where the selected run is among these.
    pub(super) fn position(&self) -> Option<usize> {
        let selected = self.selected.as_ref()?;
        self.rows().iter().position(|run| name(run) == Some(selected))
    }

    fn object(&mut self, kind: &str, data: Value) {
        let objects = match kind {
            "run" => &mut self.runs,
            "agent" => &mut self.agents,
            "pipeline" => &mut self.pipelines,
            _ => return,
        };
        if let Some(gone) = data.get("deleted").and_then(Value::as_str) {
            objects.remove(gone);
        } else if let Some(name) = name(&data).map(str::to_owned) {
            objects.insert(name, data);
        }
        while self.runs.len() > RUNS {
            // Names sort by time.
            let oldest = self.runs.iter().find(|(_, run)| has_ended(run)).map(|(name, _)| name.clone());
            let Some(oldest) = oldest else { break };
            self.runs.remove(&oldest);
        }
    }

    fn select_first(&mut self) -> Vec<Do> {
        if self.selected.as_ref().is_some_and(|selected| self.runs.contains_key(selected)) {
            return Vec::new();
        }
        let first = self.rows().first().and_then(|run| name(run)).map(str::to_owned);
        self.select(first)
    }

    fn select(&mut self, run: Option<String>) -> Vec<Do> {
        if self.selected == run {
            return Vec::new();
        }
        self.selected.clone_from(&run);
        self.log.clear();
        self.scrolled = 0;
        run.map(Do::Follow).into_iter().collect()
    }

    fn key(&mut self, key: Key) -> Vec<Do> {
        if key == Key::Interrupt {
            return vec![Do::Interrupt];
        }
        if let Some(run) = self.asking.take() {
            return if matches!(key, Key::Letter('y' | 'Y')) { vec![Do::Cancel(run)] } else { Vec::new() };
        }
        self.said = None;
        match key {
            Key::Letter('q') => return vec![Do::Quit],
            Key::Escape if self.zoomed => self.zoomed = false,
            Key::Enter | Key::Letter('l') => self.zoomed = !self.zoomed,
            Key::Letter('c') => match &self.selected {
                Some(run) if self.runs.get(run).is_some_and(|run| !has_ended(run)) => self.asking = Some(run.clone()),
                Some(run) => self.said = Some(format!("run {run} has ended")),
                None => {}
            },
            Key::PageUp => self.scrolled = (self.scrolled + PAGE).min(self.log.len()),
            Key::PageDown => self.scrolled = self.scrolled.saturating_sub(PAGE),
            Key::Up | Key::Letter('k') => return self.go(-1),
            Key::Down | Key::Letter('j') => return self.go(1),
            Key::Escape | Key::Interrupt | Key::Letter(_) => {}
        }
        Vec::new()
    }

    fn go(&mut self, by: isize) -> Vec<Do> {
        let rows = self.rows();
        let at = self.position().unwrap_or(0).saturating_add_signed(by).min(rows.len().saturating_sub(1));
        let run = rows.get(at).and_then(|run| name(run)).map(str::to_owned);
        self.select(run)
    }
}

fn by_name(items: Vec<Value>) -> BTreeMap<String, Value> {
    items.into_iter().filter_map(|item| Some((name(&item)?.to_owned(), item))).collect()
}

pub(super) fn name(item: &Value) -> Option<&str> {
    text(item, "/metadata/name")
}

pub(super) fn text<'v>(item: &'v Value, pointer: &str) -> Option<&'v str> {
    item.pointer(pointer)?.as_str()
}

pub(super) fn time(item: &Value, pointer: &str) -> Option<Timestamp> {
    text(item, pointer)?.parse().ok()
}

pub(super) fn has_ended(run: &Value) -> bool {
    matches!(text(run, "/status/phase"), Some("Success" | "Error"))
}
