//! Who decides on tasks that wait for approval: `--approve`, a person at the terminal, or nobody.

use std::{collections::VecDeque, future, io::stdin, sync::mpsc::SyncSender, thread};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use xene_schemas::run::RunEvent;

use crate::{cli::follow::News, local::Decision};

/// Means every task.
pub(super) const ALL: &str = "all";

/// Answers what runs ask, one run after another.
#[derive(Debug)]
pub(super) struct Asker {
    /// What was approved beforehand.
    approved: Vec<String>,
    /// Whether a person can be asked.
    terminal: bool,
    /// What that person types; nothing is read before there is a question.
    lines: Option<UnboundedReceiver<String>>,
}

impl Asker {
    pub(super) fn new(approved: Vec<String>, terminal: bool) -> Self {
        Self { approved, terminal, lines: None }
    }

    /// Answers until the run has ended and tells no more. One question is open at a time; one that is settled otherwise,
    /// as by a timeout or Ctrl-C, is left.
    pub(super) async fn answer(
        &mut self,
        mut facts: UnboundedReceiver<RunEvent>,
        decisions: UnboundedSender<Decision>,
        news: SyncSender<News>,
    ) {
        let mut open: VecDeque<(String, String)> = VecDeque::new();
        // The run, or whoever looks on, may be gone already; then nobody waits for this.
        let decide = |task, approved, by: &str| drop(decisions.send(Decision { task, approved, by: by.into() }));
        let say = |news_of: News| drop(news.send(news_of));
        loop {
            tokio::select! {
                biased;
                fact = facts.recv() => match fact {
                    None => return,
                    Some(RunEvent::ApprovalWanted { task, .. }) if self.approves(&task) => {
                        decide(task, true, "--approve");
                    }
                    Some(RunEvent::ApprovalWanted { task, .. }) if !self.terminal => {
                        say(News::Said(format!(
                            "task {task} needs approval and there is no terminal to ask on, so it is rejected; \
                             approve it with --approve {}",
                            base(&task),
                        )));
                        decide(task, false, "xene run, for want of --approve");
                    }
                    Some(RunEvent::ApprovalWanted { task, message, .. }) => {
                        let message = message.map(|message| format!("{message} — ")).unwrap_or_default();
                        let question = format!("{message}run {task}? [y/N]");
                        open.push_back((task, question));
                        if let [(_, question)] = open.make_contiguous() {
                            self.listen();
                            say(News::Said(question.clone()));
                        }
                    }
                    Some(RunEvent::ApprovalDecided { task, .. } | RunEvent::TaskEnded { task, .. }) => {
                        let settled = open.iter().position(|(waiting, _)| *waiting == task);
                        let was_asked = settled == Some(0);
                        settled.map(|index| open.remove(index));
                        if let Some((_, question)) = open.front().filter(|_| was_asked) {
                            self.listen();
                            say(News::Said(question.clone()));
                        }
                    }
                    Some(_) => {}
                },
                line = next_line(&mut self.lines), if !open.is_empty() => {
                    // The end of what is typed is no consent.
                    let line = line.unwrap_or_default();
                    say(News::Typed);
                    let approved = ["y", "yes"].contains(&line.trim().to_lowercase().as_str());
                    if let Some((task, _)) = open.pop_front() {
                        decide(task, approved, "someone at the terminal");
                    }
                    if let Some((_, question)) = open.front() {
                        self.listen();
                        say(News::Said(question.clone()));
                    }
                }
            }
        }
    }

    fn approves(&self, task: &str) -> bool {
        self.approved.iter().any(|name| name == ALL || name == task || name == base(task))
    }

    /// Takes what is typed from now on. What was typed before the question is no answer to it.
    fn listen(&mut self) {
        let _ = rustix::termios::tcflush(rustix::stdio::stdin(), rustix::termios::QueueSelector::IFlush);
        if let Some(lines) = &mut self.lines {
            while lines.try_recv().is_ok() {}
            return;
        }
        let (sender, lines) = unbounded_channel();
        self.lines = Some(lines);
        // It is never waited for: nothing but a line ends its read.
        let read = move || {
            let _ = stdin().lines().map_while(Result::ok).try_for_each(|line| sender.send(line));
        };
        // Without it nobody answers, which is no consent.
        drop(thread::Builder::new().name("terminal".into()).spawn(read));
    }
}

async fn next_line(lines: &mut Option<UnboundedReceiver<String>>) -> Option<String> {
    match lines {
        Some(lines) => lines.recv().await,
        None => future::pending().await,
    }
}

/// The name of a task without what tells it from others of its matrix.
pub(super) fn base(task: &str) -> &str {
    task.split('[').next().unwrap_or(task)
}
