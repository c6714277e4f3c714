//! The file of a shim: which step it keeps, and how that ended. Locked by the shim while it lives.
//!
//! ```text
//! version: u8 · how it ended: u8 · code or signal: i32 LE · first process: i32 LE · Kept, in MessagePack
//! ```
//!
//! It need not outlive the host's boot, as no step does: nothing of it is synced.

use std::{fs::File, io, os::unix::fs::FileExt as _, path::PathBuf};

use rustix::{
    fs::{FlockOperation, fcntl_lock},
    process::{Flock, FlockType, Pid, fcntl_getlk},
};
use serde::{Deserialize, Serialize};

use crate::decide::event::StepId;

/// Of its name.
pub(super) const EXTENSION: &str = "step";
/// Of the file, the pipes, and what else a later agent takes for granted.
const VERSION: u8 = 1;
const HEAD: usize = 10;

/// What a shim keeps for an agent that did not start it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::exec) struct Kept {
    /// Which step.
    pub(in crate::exec) id: StepId,
    /// The number that the run's log gave it.
    pub(in crate::exec) number: u16,
    /// Where it publishes its outputs.
    pub(in crate::exec) output: PathBuf,
    /// Its cgroup, if it has one.
    pub(in crate::exec) cgroup: Option<PathBuf>,
    /// The shim's descriptors: standard output, standard error, and what is readable once the first process has ended.
    pub(super) pipes: [i32; 3],
}

/// How a step's first process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::exec) enum Ended {
    /// With this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

/// The part that changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) ended: Option<Ended>,
    pub(super) leader: i32,
}

/// What a file holds.
#[derive(Debug)]
pub(super) enum Read {
    /// Nothing yet.
    Empty,
    /// A step of a version that this one knows.
    Kept(Kept),
    /// Something else.
    Unknown,
}

impl Kept {
    /// Of a step that no shim keeps yet.
    pub(in crate::exec) fn new(id: StepId, number: u16, output: PathBuf, cgroup: Option<PathBuf>) -> Self {
        Self { id, number, output, cgroup, pipes: [-1; 3] }
    }
}

impl Head {
    pub(super) fn read(file: &File) -> io::Result<Self> {
        let mut bytes = [0; HEAD];
        file.read_exact_at(&mut bytes, 0)?;
        let [_, kind, a, b, c, d, leader @ ..] = bytes;
        let value = i32::from_le_bytes([a, b, c, d]);
        let ended = match kind {
            1 => Some(Ended::Code(value)),
            2 => Some(Ended::Signal(value)),
            _ => None,
        };
        Ok(Self { ended, leader: i32::from_le_bytes(leader) })
    }

    fn bytes(self) -> [u8; HEAD] {
        let (kind, value) = match self.ended {
            None => (0, 0),
            Some(Ended::Code(code)) => (1, code),
            Some(Ended::Signal(signal)) => (2, signal),
        };
        let ([a, b, c, d], [e, f, g, h]) = (value.to_le_bytes(), self.leader.to_le_bytes());
        [VERSION, kind, a, b, c, d, e, f, g, h]
    }

    /// In one system call, so that whoever reads it reads all of it or none.
    pub(super) fn write(self, file: &File) -> io::Result<()> {
        file.write_all_at(&self.bytes(), 0)
    }
}

/// Reads which step a file is of.
pub(super) fn read(file: &File) -> io::Result<Read> {
    let length = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX).min(64 << 10);
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(match bytes.split_at_checked(HEAD) {
        None => Read::Empty,
        Some((head, kept)) if head[0] == VERSION => rmp_serde::from_slice(kept).map_or(Read::Unknown, Read::Kept),
        Some(_) => Read::Unknown,
    })
}

/// Writes which step a file is of from now on, none of whose processes was started yet.
pub(super) fn begin(file: &File, kept: &Kept) -> io::Result<()> {
    let kept = rmp_serde::to_vec_named(kept).map_err(io::Error::other)?;
    let bytes = [&Head { ended: None, leader: 0 }.bytes()[..], &kept].concat();
    file.write_all_at(&bytes, 0)?;
    if file.metadata()?.len() > bytes.len() as u64 {
        file.set_len(bytes.len() as u64)?;
    }
    Ok(())
}

/// Locks a file for the rest of this process, as soon as no other process holds it.
pub(super) fn lock(file: &File) -> io::Result<()> {
    Ok(fcntl_lock(file, FlockOperation::LockExclusive)?)
}

/// Who has locked a file.
pub(super) fn holder(file: &File) -> io::Result<Option<Pid>> {
    Ok(fcntl_getlk(file, &Flock::from(FlockType::WriteLock))?.and_then(|lock| lock.pid))
}
