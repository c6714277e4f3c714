//! What is drawn, and what keys do.

use std::{
    cell::{Cell, RefCell},
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpListener,
    sync::mpsc::channel,
    thread,
    time::Duration,
};

use expect_test::{Expect, expect};
use jiff::Timestamp;
use ratatui::{Terminal, backend::TestBackend};
use serde_json::{Value, json};

use super::{
    follow_log,
    model::{Do, Input, Key, Model},
    view,
};
use crate::cli::{client::Client, fake, fixtures, output::testing};

fn model() -> (Model, Vec<Do>) {
    let mut model = Model::new(testing::fixed_now());
    let lists = Input::Lists { runs: fixtures::runs(), agents: fixtures::agents(), pipelines: fixtures::pipelines() };
    let todo = model.update(lists);
    (model, todo)
}

fn screen(model: &Model, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| view::draw(model, frame)).unwrap();
    let buffer = terminal.backend().buffer().clone();
    let lines = buffer.content().chunks(usize::from(width)).map(|cells| {
        let line: String = cells.iter().map(|cell| cell.symbol()).collect();
        line.trim_end().to_owned() + "\n"
    });
    lines.collect()
}

fn check(model: &Model, width: u16, height: u16, expected: &Expect) {
    expected.assert_eq(&screen(model, width, height));
}

fn press(model: &mut Model, keys: &[Key]) -> Vec<Do> {
    keys.iter().flat_map(|key| model.update(Input::Key(*key))).collect()
}

const QUEUED: &str = "01m89973qg000000000000000b";
const FAILED: &str = "01m8991xq0000000000000000a";

#[test]
fn everything_has_its_place_on_a_wide_terminal() {
    let (mut model, todo) = model();
    assert_eq!(todo, [Do::Follow(QUEUED.into())], "what is under way comes first");
    for n in 0..20 {
        model.update(Input::Log { run: QUEUED.into(), line: format!("line {n}") });
    }
    model.update(Input::Log { run: "another".into(), line: "not shown".into() });
    check(
        &model,
        110,
        24,
        &expect![[r#"
             xene   1 under way   1 of 2 agents connected   2 pipelines
             Runs ────────────────────────────────────────────────────────────── Agents ──────────────────────────────────
            PIPELINE     PHASE        REASON          AGENT        AGE   TOOK   AGENT         PHASE        BUSY  PIPELINES
            site/build   StartingUp   Queued                       10s          agent-1       Connected    1/4   1
            site/build   Error        TaskFailed      agent-1      3m    1m05s  agent-2       Disconnected 0/2   0


                                                                                 Fires next ──────────────────────────────
                                                                                in 42s    site/build



             Output of 01m89973qg000000000000000b ────────────────────────────────────────────────────────────────────────
            line 11
            line 12
            line 13
            line 14
            line 15
            line 16
            line 17
            line 18
            line 19

             ↑↓ run   enter output   pgup/pgdn scroll   c cancel   q quit
        "#]],
    );
}

#[test]
fn a_small_terminal_shows_what_matters_most() {
    let (model, _) = model();
    check(
        &model,
        60,
        8,
        &expect![[r#"
             xene   1 under way   1 of 2 agents connected   2 pipelines
             Runs ──────────────────────────────────────────────────────
            PIPELINE          PHASE        REASON          AGE   TOOK
            site/build        StartingUp   Queued          10s
            site/build        Error        TaskFailed      3m    1m05s


             ↑↓ run   enter output   pgup/pgdn scroll   c cancel   q qui
        "#]],
    );
    for (width, height) in [(1, 1), (2, 2), (10, 3), (200, 5), (20, 100), (300, 100)] {
        screen(&model, width, height);
    }
}

#[test]
fn cancelling_is_asked_for_twice() {
    let (mut model, _) = model();
    assert_eq!(press(&mut model, &[Key::Letter('c')]), []);
    check(
        &model,
        60,
        8,
        &expect![[r#"
             xene   1 under way   1 of 2 agents connected   2 pipelines
             Runs ──────────────────────────────────────────────────────
            PIPEL┌───────────────────────────────────────────────┐OOK
            site/│ Cancel run 01m89973qg000000000000000b?  y / n │
            site/└───────────────────────────────────────────────┘m05s


             ↑↓ run   enter output   pgup/pgdn scroll   c cancel   q qui
        "#]],
    );
    assert_eq!(press(&mut model, &[Key::Letter('n')]), []);
    assert_eq!(press(&mut model, &[Key::Letter('c'), Key::Escape, Key::Letter('y')]), []);
    assert_eq!(press(&mut model, &[Key::Letter('c'), Key::Letter('y')]), [Do::Cancel(QUEUED.into())]);
    model.update(Input::Said("run x is being cancelled".into()));
    assert!(screen(&model, 60, 8).contains("run x is being cancelled"));
    assert_eq!(press(&mut model, &[Key::Down]), [Do::Follow(FAILED.into())]);
    assert_eq!(press(&mut model, &[Key::Letter('c')]), []);
    assert_eq!((model.asking.as_deref(), model.said.unwrap()), (None, format!("run {FAILED} has ended")));
}

#[test]
fn keys_select_scroll_and_leave() {
    let (mut model, _) = model();
    assert_eq!(press(&mut model, &[Key::Up]), [], "there is nothing above");
    assert_eq!(press(&mut model, &[Key::Letter('j')]), [Do::Follow(FAILED.into())]);
    assert_eq!(press(&mut model, &[Key::Down]), []);
    for n in 0..50 {
        model.update(Input::Log { run: FAILED.into(), line: format!("line {n}") });
    }
    press(&mut model, &[Key::Enter, Key::PageUp]);
    let shown = screen(&model, 70, 10);
    assert!(shown.contains("10 lines back") && shown.contains("line 39") && !shown.contains("line 40"), "{shown}");
    model.update(Input::Log { run: FAILED.into(), line: "one more".into() });
    assert!(screen(&model, 70, 10).contains("line 39"), "who looks back stays there");
    press(&mut model, &[Key::PageDown, Key::PageDown]);
    assert!(screen(&model, 70, 10).contains("one more"));
    press(&mut model, &[Key::Escape]);
    assert!(!model.zoomed);
    assert_eq!(press(&mut model, &[Key::Letter('q')]), [Do::Quit]);
    assert_eq!(press(&mut model, &[Key::Letter('c'), Key::Interrupt]), [Do::Interrupt]);
}

#[test]
fn changes_move_runs_and_memory_is_bounded() {
    let (mut model, _) = model();
    let run = |n: u32, phase: &str| -> Value {
        json!({"metadata": {"name": format!("02{n:024}")}, "spec": {"workflow": "w", "pipeline": "p"},
               "status": {"phase": phase}})
    };
    let put = |data: Value| Input::Object { kind: "run".into(), data };
    assert_eq!(model.update(put(run(0, "Running"))), [], "the selected one stays selected");
    assert_eq!(model.position(), Some(1));
    for n in 1..3_000 {
        model.update(put(run(n, "Success")));
    }
    assert_eq!(model.runs.len(), 1_000);
    assert!(model.runs.contains_key(QUEUED), "what is under way is not dropped");
    let gone = Input::Object { kind: "run".into(), data: json!({"deleted": QUEUED}) };
    assert_eq!(model.update(gone), [Do::Follow(format!("02{:024}", 0))]);
    for n in 0..5_000 {
        model.update(Input::Log { run: format!("02{:024}", 0), line: format!("{n}") });
    }
    assert_eq!(model.log.len(), 1_000);
    model.update(Input::Lost("no answer in time".into()));
    assert!(screen(&model, 100, 30).contains("no answer in time: this picture is old"));
    assert_eq!(model.update(Input::Failed("gone".into())), [Do::Fail("gone".into())]);
}

#[test]
fn nothing_that_is_shown_acts_on_the_terminal() {
    let mut model = Model::new(Timestamp::UNIX_EPOCH);
    let evil = "\u{1b}]0;x\u{7}\u{202e}\u{9b}2J";
    let run = json!({"metadata": {"name": "r"}, "spec": {"workflow": evil, "pipeline": "p"},
                     "status": {"phase": "Running", "reason": evil, "agent": evil}});
    let agent = json!({"metadata": {"name": evil}, "status": {"phase": evil}});
    model.update(Input::Lists { runs: vec![run], agents: vec![agent], pipelines: vec![] });
    model.update(Input::Log { run: "r".into(), line: format!("a{evil}b") });
    model.update(Input::Said(evil.into()));
    let shown = screen(&model, 120, 30);
    assert!(!shown.chars().any(|c| (c.is_control() && c != '\n') || c == '\u{202e}'), "{shown:?}");
}

#[test]
fn a_quiet_log_that_nobody_looks_at_any_more_gives_its_connection_back() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    let controller = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        while lines.next().is_some_and(|line| !line.unwrap().is_empty()) {}
        stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\none\n\r\n2\r\ntw\r\n").unwrap();
        let (sender, goes_on) = channel();
        let rest = thread::spawn(move || {
            goes_on.recv().unwrap();
            stream.write_all(b"2\r\no\n\r\n").unwrap();
            // Nothing comes any more, and the log does not end.
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).unwrap();
        });
        (sender, rest)
    });
    let client = Client::new(&fake::global(&server)).unwrap();
    let (told, asked) = (RefCell::new(Vec::new()), Cell::new(0));
    let connection = Cell::new(Some(controller));
    let rest = Cell::new(None);
    let is_wanted = || {
        asked.set(asked.get() + 1);
        // It was quiet once within a line, and that line goes on.
        if asked.get() == 3 {
            let (goes_on, ended) = connection.take().unwrap().join().unwrap();
            goes_on.send(()).unwrap();
            rest.set(Some(ended));
        }
        asked.get() < 5 || told.borrow().len() < 2
    };
    let tell = |line| {
        told.borrow_mut().push(line);
        true
    };
    follow_log(&client, "/api/v1/runs/r", Duration::from_millis(500), is_wanted, tell).unwrap();
    assert_eq!(*told.borrow(), ["one", "two"]);
    rest.take().unwrap().join().expect("the connection is closed");
}
