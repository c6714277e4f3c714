//! Shims: a small process above each step, which outlives the agent and keeps the step's pipes and exit status until an
//! agent has taken them.
//!
//! The agent has one child, the *parent of shims* ([`parent`]), which forks a shim ([`child`]) for each step. A shim starts
//! the step's first process, is the subreaper of all its descendants, and holds both ends of three pipes: so neither the
//! step nor the agent ever meets a closed one. Its *file* ([`file`]) names the step and is locked as long as the shim
//! lives: who holds the lock is the shim. Whether it was started a moment ago or by an agent that is gone, an agent gets
//! at a shim in one way, [`find`]: through its file, and the pipes in `/proc`.

mod child;
mod file;
mod parent;

use std::{
    fs::{File, OpenOptions},
    io::{self, ErrorKind},
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::OFlags,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};

use self::file::{Head, Read};
#[cfg(test)]
pub(super) use self::parent::MARK;
pub use self::parent::become_parent_if_asked;
pub(super) use self::{
    child::{Order, Refused},
    file::{Ended, Kept},
    parent::{Parent, is_of},
};
use crate::decide::event::StepId;

/// A shim that lives.
#[derive(Debug)]
pub(super) struct Shim {
    /// Its number.
    pub(super) pid: i32,
    /// The number of the step's first process, which means that one as long as the shim lives.
    pub(super) leader: i32,
    /// Readable once the shim itself has ended.
    pub(super) gone: OwnedFd,
    /// Readable once the step's first process has ended.
    pub(super) done: File,
    /// The step's standard output; never at its end, and never blocks.
    pub(super) out: File,
    /// Its standard error, likewise.
    pub(super) err: File,
    /// What it keeps for an agent that did not start it.
    pub(super) kept: Kept,
    file: File,
}

/// What became of a step that may have been started.
#[derive(Debug)]
pub(super) enum Found {
    /// It was not, and will not be by anybody else.
    Nothing,
    /// Its shim lives.
    Alive(Box<Shim>),
    /// It was started, and its shim is gone, or one that this version can't speak to. In which cgroup it was, if known.
    Lost(Option<PathBuf>),
}

/// Looks for the shim of a step by the file that is, or will be, the shim's.
///
/// # Errors
/// If the system does not let it look.
pub(super) fn find(path: &Path, id: &StepId) -> io::Result<Found> {
    let flags = OFlags::NOFOLLOW.bits().cast_signed();
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Found::Nothing),
        opened => opened?,
    };
    let kept = match file::read(&file)? {
        Read::Empty => return Ok(Found::Nothing),
        Read::Kept(kept) if kept.id < *id => {
            // The end of the step before is remembered, or there would be none after it; the crash came before the shim
            // was let go.
            end_holder(&file)?;
            return Ok(Found::Nothing);
        }
        Read::Kept(kept) if kept.id == *id => kept,
        Read::Kept(_) | Read::Unknown => {
            end_holder(&file)?;
            return Ok(Found::Lost(None));
        }
    };
    let Some((pid, gone)) = pin_holder(&file)? else { return Ok(Found::Lost(kept.cgroup)) };
    let pid = pid.as_raw_pid();
    let pipe = |number: i32| {
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        OpenOptions::new().read(true).custom_flags(flags).open(format!("/proc/{pid}/fd/{number}"))
    };
    let [out, err, done] = kept.pipes;
    let (out, err, done) = (pipe(out)?, pipe(err)?, pipe(done)?);
    let leader = Head::read(&file)?.leader;
    Ok(Found::Alive(Box::new(Shim { pid, leader, gone, done, out, err, kept, file })))
}

/// The shim that holds a file.
fn pin_holder(file: &File) -> io::Result<Option<(Pid, OwnedFd)>> {
    let Some(pid) = file::holder(file)? else { return Ok(None) };
    let gone = match pidfd_open(pid, PidfdFlags::empty()) {
        Err(rustix::io::Errno::SRCH) => return Ok(None),
        opened => opened?,
    };
    // The number was the shim's before it was pinned, and is after: then it is the shim that was pinned.
    Ok((file::holder(file)? == Some(pid)).then_some((pid, gone)))
}

fn end_holder(file: &File) -> io::Result<()> {
    if let Some((_, shim)) = pin_holder(file)? {
        let _ = pidfd_send_signal(&shim, Signal::KILL);
    }
    Ok(())
}

impl Shim {
    /// How the step's first process ended, if the shim has said so.
    pub(super) fn ended(&self) -> Option<Ended> {
        Head::read(&self.file).ok()?.ended
    }

    /// Ends it. For when what it keeps has been taken for good.
    pub(super) fn release(&self) {
        let _ = pidfd_send_signal(&self.gone, Signal::KILL);
    }

    /// True once somebody has ended the shim.
    pub(super) fn is_gone(&self) -> bool {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut [PollFd::new(&self.gone, PollFlags::IN)], Some(&now)).is_ok_and(|ready| ready > 0)
    }
}

/// The shims that hold the files of this kind in a folder, whatever their version.
pub(super) fn holders(folder: &Path) -> Vec<i32> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let files = entries.filter(|path: &PathBuf| path.extension().is_some_and(|kind| kind == file::EXTENSION));
    let holder = |path: PathBuf| file::holder(&File::open(path).ok()?).ok().flatten();
    files.filter_map(holder).map(Pid::as_raw_pid).collect()
}

#[cfg(test)]
mod tests;
