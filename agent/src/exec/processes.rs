//! Processes as /proc shows them: what lives below a shim, and what steps left that have none any more.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, Read as _},
    path::Path,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fd::OwnedFd,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};

/// How long killed processes may take to go. One that hangs in the kernel is left.
pub(super) const KILL_LIMIT: Duration = Duration::from_secs(5);

/// Reads a file of /proc: their sizes say 0, so the standard library would creep up on their end.
fn read_whole(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(1024);
    File::open(path)?.read_to_end(&mut bytes).map(|_| bytes)
}

/// A process at the time of a look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: i32,
    /// The first 15 bytes of the program's name.
    pub(super) name: String,
    parent: i32,
    /// True for a zombie.
    ended: bool,
    /// In clock ticks since boot: with the number, it names a process for good.
    started: u64,
}

impl Process {
    fn read(pid: i32) -> Option<Self> {
        // A name may be any bytes.
        let stat = read_whole(format!("/proc/{pid}/stat")).ok()?;
        Self::parse(pid, &String::from_utf8_lossy(&stat))
    }

    fn parse(pid: i32, stat: &str) -> Option<Self> {
        // `PID (NAME) STATE PARENT …`, where NAME may hold parentheses and blanks.
        let (begin, end) = (stat.find('(')?, stat.rfind(')')?);
        let mut fields = stat.get(end + 1..)?.split_ascii_whitespace();
        let ended = matches!(fields.next()?, "Z" | "X" | "x");
        let parent = fields.next()?.parse().ok()?;
        let started = fields.nth(17)?.parse().ok()?;
        Some(Self { pid, name: stat.get(begin + 1..end)?.to_owned(), parent, ended, started })
    }

    /// What lives below it.
    pub(super) fn below(&self) -> Vec<Self> {
        below(self.pid, &[])
    }

    /// A handle that means this process and no later one of the same number.
    pub(super) fn pin(&self) -> Option<OwnedFd> {
        let fd = pidfd_open(Pid::from_raw(self.pid)?, PidfdFlags::empty()).ok()?;
        Self::read(self.pid).filter(|now| now.started == self.started).map(|_| fd)
    }
}

/// All processes that can be seen.
fn all() -> Vec<Process> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter_map(Process::read).collect()
}

/// The value of a variable in the environment that a process was started with, if that can be read.
fn variable(pid: i32, name: &str) -> Option<Vec<u8>> {
    let environ = read_whole(format!("/proc/{pid}/environ")).ok()?;
    let value = |entry: &[u8]| entry.strip_prefix(name.as_bytes())?.strip_prefix(b"=").map(<[u8]>::to_vec);
    environ.split(|byte| *byte == 0).find_map(value)
}

/// The children of a process with one thread, zombies included.
pub(super) fn children_of(pid: i32) -> Vec<i32> {
    match read_whole(format!("/proc/{pid}/task/{pid}/children")) {
        Ok(text) => {
            String::from_utf8_lossy(&text).split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect()
        }
        // A kernel may be built without these lists.
        Err(_) => all().into_iter().filter(|process| process.parent == pid).map(|process| process.pid).collect(),
    }
}

/// True if anything but `leader` lives below a process that adopts its descendants: all that does is below its children.
pub(super) fn lives_below(pid: i32, leader: i32) -> bool {
    let others = children_of(pid).into_iter().filter(|child| *child != leader);
    others.filter_map(Process::read).any(|process| !process.ended)
}

/// What lives below `root`, without it, and `grouped` with what lives below those.
pub(super) fn below(root: i32, grouped: &[i32]) -> Vec<Process> {
    let processes = all();
    let mut children: BTreeMap<i32, Vec<usize>> = BTreeMap::new();
    for (at, process) in processes.iter().enumerate() {
        children.entry(process.parent).or_default().push(at);
    }
    let is_root = |process: &Process| process.parent == root || grouped.contains(&process.pid);
    let mut next: Vec<usize> = (0..processes.len()).filter(|at| is_root(&processes[*at])).collect();
    let mut found = BTreeSet::new();
    while let Some(at) = next.pop() {
        if found.insert(at) {
            next.extend(children.get(&processes[at].pid).into_iter().flatten());
        }
    }
    found.into_iter().map(|at| processes[at].clone()).filter(|process| !process.ended && process.pid != root).collect()
}

/// The processes that live and whose variable `name` has such a value.
pub(super) fn with_variable(name: &str, wanted: impl Fn(&[u8]) -> bool) -> Vec<Process> {
    let own = rustix::process::getpid().as_raw_pid();
    let has = |process: &Process| variable(process.pid, name).is_some_and(|value| wanted(&value));
    all().into_iter().filter(|process| process.pid != own && !process.ended && has(process)).collect()
}

/// The processes that live and have such a command line: words, each with a zero byte behind it.
pub(super) fn with_command_line(wanted: impl Fn(&[u8]) -> bool) -> Vec<Process> {
    let own = rustix::process::getpid().as_raw_pid();
    let has = |process: &Process| read_whole(format!("/proc/{}/cmdline", process.pid)).is_ok_and(|line| wanted(&line));
    all().into_iter().filter(|process| process.pid != own && !process.ended && has(process)).collect()
}

/// Signals each process, if it is still the one that was seen.
pub(super) fn signal_each(processes: &[Process], signal: Signal) {
    for fd in processes.iter().filter_map(Process::pin) {
        let _ = pidfd_send_signal(fd, signal);
    }
}

/// Kills each process, and waits until it has ended, at most `limit` for all.
pub(super) fn kill_each(processes: &[Process], limit: Duration) {
    let pinned: Vec<_> = processes.iter().filter_map(Process::pin).collect();
    for fd in &pinned {
        let _ = pidfd_send_signal(fd, Signal::KILL);
    }
    let begun = crate::clock::now().boot;
    for fd in &pinned {
        let left = limit.saturating_sub(crate::clock::now().boot.since(begun));
        let _ = poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&timespec(left)));
    }
}

/// Kills all that `look` finds by `kill`, again and again, since they may start others between the look and the kill;
/// gives the names of what there was. A look takes its time, and misses one whose number is lower than that of the process
/// that starts it and ends meanwhile, as after the numbers began anew: by the next look it is where it is found.
pub(super) fn end_all(look: impl Fn() -> Vec<Process>, kill: impl Fn(&[Process])) -> Vec<String> {
    let (begun, mut names, mut seen) = (crate::clock::now().boot, Vec::new(), BTreeSet::new());
    let mut looked_in_vain = false;
    loop {
        let found = look();
        if found.is_empty() && looked_in_vain {
            return names;
        }
        looked_in_vain = found.is_empty();
        if looked_in_vain {
            continue;
        }
        names.extend(found.iter().filter(|p| seen.insert((p.pid, p.started))).map(|p| p.name.clone()));
        if crate::clock::now().boot.since(begun) > KILL_LIMIT {
            tracing::error!(?names, "processes of a step can't be killed");
            return names;
        }
        kill(&found);
    }
}

/// Kills all that lives below this process.
pub(super) fn end_all_below_this() {
    let own = rustix::process::getpid().as_raw_pid();
    if !children_of(own).is_empty() {
        end_all(|| below(own, &[]), |found| kill_each(found, KILL_LIMIT));
    }
}

/// A span as system calls take it.
pub(super) fn timespec(span: Duration) -> Timespec {
    Timespec { tv_sec: i64::try_from(span.as_secs()).unwrap_or(i64::MAX), tv_nsec: span.subsec_nanos().into() }
}

#[cfg(test)]
mod tests {
    use std::{
        cell::{Cell, RefCell},
        collections::VecDeque,
    };

    use super::*;

    #[test]
    fn what_one_look_misses_the_next_one_finds() {
        let process = Process { pid: 7, name: "x".into(), parent: 3, ended: false, started: 777 };
        let looks =
            RefCell::new(VecDeque::from([vec![], vec![process.clone()], vec![], vec![process], vec![], vec![]]));
        let killed = Cell::new(0);
        let names = end_all(|| looks.borrow_mut().pop_front().unwrap(), |found| killed.set(killed.get() + found.len()));
        assert_eq!((names, killed.get(), looks.into_inner().len()), (vec!["x".to_owned()], 2, 0));
    }

    #[test]
    fn reads_a_name_that_looks_like_fields() {
        let stat = "7 (a) R 1 2) S 3 4 5 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 777 1 2";
        let process = Process::parse(7, stat).unwrap();
        let expected = Process { pid: 7, name: "a) R 1 2".into(), parent: 3, ended: false, started: 777 };
        assert_eq!(process, expected);
        assert_eq!(Process::parse(7, "7 (a"), None);
        assert!(Process::read(rustix::process::getpid().as_raw_pid()).is_some());
    }
}
