//! The parent of shims: a child of the agent with one thread and little memory, which is what makes a fork cheap and
//! safe. It is started for the first step, and ends when nothing was started for a while, or the agent ends; its shims do
//! not.

use std::{
    fs::File,
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{ffi::OsStrExt as _, net::UnixStream},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

use super::child;

/// How the program is told to be this. A test's program is the one that runs its tests: there it is a test's name.
pub(in crate::exec) const MARK: &str =
    if cfg!(test) { "exec::shim::tests::parent_of_shims" } else { "--parent-of-shims" };

/// The agent's side.
#[derive(Debug)]
pub(in crate::exec) struct Parent {
    work_dir: PathBuf,
    process: Mutex<Option<Process>>,
}

#[derive(Debug)]
struct Process {
    socket: OwnedFd,
    child: Child,
    /// False if nothing was forked since somebody asked.
    used: bool,
}

impl Parent {
    /// For an executor that works in `work_dir`, which its command line names.
    pub(in crate::exec) fn new(work_dir: &Path) -> Self {
        Self { work_dir: work_dir.to_owned(), process: Mutex::default() }
    }

    /// Has a shim forked; the answer is the way to it, and whether there was no process before. One that somebody has
    /// ended is started again.
    pub(in crate::exec) fn fork(&self) -> io::Result<(UnixStream, bool)> {
        let (ours, theirs) = UnixStream::pair()?;
        let mut process = self.lock();
        let was_there = process.is_some();
        if let Some(running) = &mut *process
            && running.fork(theirs.as_fd()).is_ok()
        {
            return Ok((ours, false));
        }
        // One that does not answer any more is waited for, so that it does not stay as a zombie.
        drop(process.take());
        process.insert(Process::start(&self.work_dir)?).fork(theirs.as_fd())?;
        Ok((ours, !was_there))
    }

    /// Ends the process if nothing was forked since this was last asked; true if there is none now. To be asked while no
    /// step runs.
    pub(in crate::exec) fn rest(&self) -> bool {
        let mut process = self.lock();
        if process.as_mut().is_some_and(|process| std::mem::take(&mut process.used)) {
            return false;
        }
        drop(process.take());
        true
    }

    fn lock(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Process {
    fn start(work_dir: &Path) -> io::Result<Self> {
        let (socket, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let mut command = Command::new("/proc/self/exe");
        if cfg!(test) {
            command.args(["--exact", "--nocapture", "--test-threads=1"]);
        } else if let Some(name) = std::env::args_os().next() {
            std::os::unix::process::CommandExt::arg0(&mut command, name);
        }
        command.arg(MARK).arg(work_dir).env_clear();
        command.stdin(theirs).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self { socket, child: command.spawn()?, used: true })
    }

    fn fork(&mut self, theirs: BorrowedFd<'_>) -> io::Result<()> {
        let descriptors = [theirs];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
        sendmsg(&self.socket, &[IoSlice::new(b"f")], &mut ancillary, SendFlags::NOSIGNAL)?;
        self.used = true;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// True for the command line, as /proc has it, of the parent of shims that work in `work_dir`, and of each of its shims.
pub(in crate::exec) fn is_of(work_dir: &Path, command_line: &[u8]) -> bool {
    let words = [MARK.as_bytes(), b"\0", work_dir.as_os_str().as_bytes(), b"\0"].concat();
    command_line.ends_with(&words)
}

/// Makes this process the parent of shims if its command line says so, and then does not return. To be called first in
/// `main`, before there is any other thread.
pub fn become_parent_if_asked() {
    if std::env::args_os().nth(1).is_some_and(|word| word == MARK) {
        let status = i32::from(serve().is_err());
        std::process::exit(status);
    }
}

/// Forks a shim for each message on standard input, until whoever sends them has gone.
pub(super) fn serve() -> io::Result<()> {
    // Whatever else it was given would stay open for as long as any shim lives.
    close_all_but_standard();
    let requests = io::stdin().as_fd().try_clone_to_owned()?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    // No terminal, and no folder that could not be unmounted.
    let _ = rustix::process::setsid();
    std::env::set_current_dir("/")?;
    let _ = rustix::thread::set_name(c"xene-shims");
    // What a shim that is killed leaves behind comes here. Nobody waits for it, or for shims.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    child::ignore_children(true);
    while let Some(way) = next(&requests)? {
        #[expect(unsafe_code, reason = "this process has one thread, so its copy may do whatever it could")]
        let forked = unsafe { libc::fork() };
        if forked == 0 {
            drop(requests);
            child::run(UnixStream::from(way));
        }
    }
    Ok(())
}

fn next(requests: &OwnedFd) -> io::Result<Option<OwnedFd>> {
    loop {
        let (mut word, mut space) = ([0], [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))]);
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        match recvmsg(requests, &mut [IoSliceMut::new(&mut word)], &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Ok(message) if message.bytes == 0 => return Ok(None),
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        let descriptors = ancillary.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        });
        if let Some(way) = descriptors.flatten().next() {
            return Ok(Some(way));
        }
    }
}

fn close_all_but_standard() {
    #[expect(unsafe_code, reason = "none of these descriptors belongs to anything in this process")]
    unsafe {
        libc::close_range(3, u32::MAX, 0);
    }
}
