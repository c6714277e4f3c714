//! Processes as /proc shows them: children that this process adopted, and everything that belongs to one step.
//!
//! This process is a *subreaper*: whatever a step leaves behind, `setsid` or not, becomes its child. So a step has left
//! nothing behind if, besides the leaders of other steps, there is no such child.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, Read as _},
    path::Path,
    process::{Child, Command, ExitStatus},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fd::OwnedFd,
    process::{Pid, PidfdFlags, Signal, WaitOptions, getpgrp, pidfd_open, pidfd_send_signal, waitpid},
};

/// The first processes of all steps of this process, from spawn to reaping. While it is locked none comes or goes.
static LEADERS: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

fn leaders() -> MutexGuard<'static, BTreeSet<i32>> {
    LEADERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes orphans of steps children of this process. Idempotent.
pub(super) fn become_subreaper() -> io::Result<()> {
    Ok(rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?)
}

/// Starts the first process of a step.
pub(super) fn spawn_leader(command: &mut Command) -> io::Result<Child> {
    let mut leaders = leaders();
    let child = command.spawn()?;
    leaders.insert(pid_of(&child));
    Ok(child)
}

/// Waits for a leader that has ended, which gives its number back to the system.
pub(super) fn reap_leader(child: &mut Child) -> io::Result<ExitStatus> {
    let mut leaders = leaders();
    let status = child.wait();
    leaders.remove(&pid_of(child));
    status
}

/// The number of a child.
pub(super) fn pid_of(child: &Child) -> i32 {
    Pid::from_child(child).as_raw_pid()
}

/// Orphans of steps that this process has adopted and that live. Those that have ended are reaped.
pub(super) fn adopted() -> Vec<i32> {
    // Children of other code, such as a git that this process runs, stay in its process group; steps never do.
    let own_group = getpgrp().as_raw_pid();
    let leaders = leaders();
    let mut alive = Vec::new();
    for pid in own_children().into_iter().filter(|pid| !leaders.contains(pid)) {
        let Some(process) = Process::read(pid).filter(|p| p.group != own_group) else { continue };
        if process.ended {
            let _ = waitpid(Pid::from_raw(pid), WaitOptions::NOHANG);
        } else {
            alive.push(pid);
        }
    }
    alive
}

fn own_children() -> Vec<i32> {
    let by_thread = || -> io::Result<Vec<i32>> {
        let mut children = Vec::new();
        for thread in std::fs::read_dir("/proc/self/task")? {
            match read_whole(thread?.path().join("children")) {
                Ok(text) => {
                    let pids = String::from_utf8_lossy(&text);
                    children.extend(pids.split_ascii_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
                }
                // A thread that has just ended has handed its children on; they are looked at again in a moment.
                Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(children)
    };
    // A kernel may be built without these lists.
    by_thread().unwrap_or_else(|_| {
        let own = rustix::process::getpid().as_raw_pid();
        all().into_iter().filter(|process| process.parent == own).map(|process| process.pid).collect()
    })
}

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
    group: i32,
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
        // `PID (NAME) STATE PARENT GROUP …`, where NAME may hold parentheses and blanks.
        let (begin, end) = (stat.find('(')?, stat.rfind(')')?);
        let mut fields = stat.get(end + 1..)?.split_ascii_whitespace();
        let ended = matches!(fields.next()?, "Z" | "X" | "x");
        let parent = fields.next()?.parse().ok()?;
        let group = fields.next()?.parse().ok()?;
        let started = fields.nth(16)?.parse().ok()?;
        Some(Self { pid, name: stat.get(begin + 1..end)?.to_owned(), parent, group, ended, started })
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

/// What tells a step's processes from others.
#[derive(Debug)]
pub(super) struct Tree {
    /// Its first process, which leads a process group of the same number.
    pub(super) leader: i32,
    /// Its `XENE_OUTPUT`, which no other step has.
    pub(super) output: Vec<u8>,
}

impl Tree {
    /// The step's processes that live: the leader's descendants and group, `grouped`, and adopted orphans that carry
    /// the step's `XENE_OUTPUT`. An orphan that carries no step's is this one's if no other step runs.
    pub(super) fn members(&self, grouped: &[i32]) -> Vec<Process> {
        let orphans: BTreeSet<i32> = adopted().into_iter().collect();
        let alone = leaders().iter().all(|leader| *leader == self.leader);
        let processes = all();
        let mut children: BTreeMap<i32, Vec<usize>> = BTreeMap::new();
        for (at, process) in processes.iter().enumerate() {
            children.entry(process.parent).or_default().push(at);
        }
        let below = |roots: Vec<usize>| {
            let (mut found, mut next) = (BTreeSet::new(), roots);
            while let Some(at) = next.pop() {
                if found.insert(at) {
                    next.extend(children.get(&processes[at].pid).into_iter().flatten());
                }
            }
            found
        };
        let those = |wanted: &dyn Fn(&Process) -> bool| {
            processes.iter().enumerate().filter(|(_, p)| wanted(p)).map(|(at, _)| at).collect::<Vec<_>>()
        };
        let mut roots = those(&|p| p.pid == self.leader || p.group == self.leader || grouped.contains(&p.pid));
        let adopted = below(those(&|p| orphans.contains(&p.pid)));
        roots.extend(adopted.into_iter().filter(|at| match variable(processes[*at].pid, "XENE_OUTPUT") {
            Some(output) => output == self.output,
            None => alone,
        }));
        let own = rustix::process::getpid().as_raw_pid();
        below(roots).into_iter().map(|at| processes[at].clone()).filter(|p| !p.ended && p.pid != own).collect()
    }
}

/// The processes whose `XENE_WORKSPACE` is below `folder` (which ends with a slash).
pub(super) fn working_below(folder: &[u8]) -> Vec<Process> {
    let own = rustix::process::getpid().as_raw_pid();
    let below = |p: &Process| variable(p.pid, "XENE_WORKSPACE").is_some_and(|value| value.starts_with(folder));
    all().into_iter().filter(|p| p.pid != own && !p.ended && below(p)).collect()
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

/// A span as system calls take it.
pub(super) fn timespec(span: Duration) -> Timespec {
    Timespec { tv_sec: i64::try_from(span.as_secs()).unwrap_or(i64::MAX), tv_nsec: span.subsec_nanos().into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_name_that_looks_like_fields() {
        let stat = "7 (a) R 1 2) S 3 4 5 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 777 1 2";
        let process = Process::parse(7, stat).unwrap();
        let expected = Process { pid: 7, name: "a) R 1 2".into(), parent: 3, group: 4, ended: false, started: 777 };
        assert_eq!(process, expected);
        assert_eq!(Process::parse(7, "7 (a"), None);
        assert!(Process::read(rustix::process::getpid().as_raw_pid()).is_some());
    }
}
