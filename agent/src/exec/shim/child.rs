//! A shim itself: starts a step's first process, reaps what becomes its child, and keeps what an agent has not taken.

use std::{
    ffi::OsString,
    fs::{File, OpenOptions},
    io::{self, Read as _, Write as _},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::{fs::OpenOptionsExt as _, net::UnixStream, process::CommandExt as _},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::OFlags,
    pipe::{PipeFlags, pipe_with},
    process::{Pid, WaitId, WaitIdOptions, WaitOptions, waitid, waitpid},
    time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime},
};
use serde::{Deserialize, Serialize};

use super::file::{self, Ended, Head, Kept, Read};
use crate::{bounds, clock, decide::time::BootTime, exec::processes};

/// How often the shim of a step that has ended looks whether an agent could still come.
const LOOK: Timespec =
    if cfg!(test) { Timespec { tv_sec: 0, tv_nsec: 50_000_000 } } else { Timespec { tv_sec: 60, tv_nsec: 0 } };

/// How soon an end that could not be written down is tried again.
const AGAIN: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// How often the shim of a step that is bound looks whether its time has come nearer: often enough for the shortest L.
const BOUND_LOOK: Duration = Duration::from_secs(1);

/// How readily the kernel ends a step's processes when memory runs out, from -1000 to 1000 (proc(5), `oom_score_adj`): as if
/// they had half of all memory beside what they take, so before most of what a host runs for itself.
const OOM_SCORE: i32 = 500;

/// What a shim is asked to do.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::exec) struct Order {
    /// Its file.
    pub(in crate::exec) file: PathBuf,
    /// Which step, and what a later agent needs to know of it.
    pub(in crate::exec) kept: Kept,
    /// The program,
    pub(in crate::exec) program: PathBuf,
    /// what it is called,
    pub(in crate::exec) name: String,
    /// and its arguments.
    pub(in crate::exec) arguments: Vec<OsString>,
    /// All its variables.
    pub(in crate::exec) variables: Vec<(OsString, OsString)>,
    /// Where it runs.
    pub(in crate::exec) dir: PathBuf,
    /// False: the step ends with whoever asked for it.
    pub(in crate::exec) outlives: bool,
    /// Where it is written until when the step may live, if that is bounded.
    pub(in crate::exec) until: Option<PathBuf>,
}

/// Why a shim did not start a step: a sentence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::exec) struct Refused(pub(in crate::exec) String);

impl Order {
    /// Has the shim at the other end of `way` start the step; gives that end, which lets the shim go if it was not told
    /// to outlive it.
    ///
    /// # Errors
    /// If it could not be started.
    pub(in crate::exec) fn send(&self, mut way: UnixStream) -> Result<UnixStream, Refused> {
        let gone = |error: io::Error| Refused(format!("the process that would start it has ended: {error}"));
        let order = rmp_serde::to_vec(self).map_err(|error| Refused(error.to_string()))?;
        way.write_all(&(order.len() as u64).to_le_bytes()).and_then(|()| way.write_all(&order)).map_err(gone)?;
        let answer: Result<(), Refused> = receive(&mut way).map_err(gone)?;
        answer.map(|()| way)
    }
}

fn receive<T: for<'a> Deserialize<'a>>(way: &mut UnixStream) -> io::Result<T> {
    let mut length = [0; 8];
    way.read_exact(&mut length)?;
    let mut bytes = vec![0; usize::try_from(u64::from_le_bytes(length)).map_err(io::Error::other)?];
    way.read_exact(&mut bytes)?;
    rmp_serde::from_slice(&bytes).map_err(io::Error::other)
}

/// Is a shim, to its end.
pub(super) fn run(mut way: UnixStream) -> ! {
    let begun = receive(&mut way).map_err(|error| Refused(error.to_string())).and_then(|order: Order| {
        let shim = Running::start(&order)?;
        Ok((shim, order.outlives))
    });
    let answer = begun.as_ref().map(|_| ()).map_err(Clone::clone);
    let answer = rmp_serde::to_vec(&answer).unwrap_or_default();
    let told = way.write_all(&(answer.len() as u64).to_le_bytes()).and_then(|()| way.write_all(&answer));
    if let Ok((shim, outlives)) = begun {
        // An agent that is gone by now does not matter to a step that outlives it.
        let way = (!outlives).then_some(way);
        if told.is_ok() || way.is_none() {
            shim.keep(way.as_ref());
        }
    }
    processes::end_all_below_this();
    #[expect(unsafe_code, reason = "what the parent has to do at its end is not this process's to do")]
    unsafe {
        libc::_exit(0)
    }
}

/// What a shim holds.
struct Running {
    file: File,
    leader: Pid,
    children: OwnedFd,
    done: OwnedFd,
    bound: Option<Bound>,
    /// Both ends of the pipes; they are only held.
    _pipes: [OwnedFd; 5],
}

impl Running {
    fn start(order: &Order) -> Result<Self, Refused> {
        let system = |what: &'static str| move |error: io::Error| Refused(format!("{what}: {error}"));
        let _ = rustix::thread::set_name(c"xene-shim");
        let own = rustix::process::getpid();
        rustix::process::set_child_subreaper(Some(own)).map_err(io::Error::from).map_err(system("can't adopt"))?;
        ignore_children(false);
        let children = watch_children().map_err(system("can't watch processes"))?;
        let flags = OFlags::NOFOLLOW.bits().cast_signed();
        let open = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(flags)
            .open(&order.file);
        let file = open.map_err(system("can't keep the step's state"))?;
        let bound = order.until.as_deref().map(Bound::new).transpose();
        let bound = bound.map_err(system("can't tell until when it may live"))?;
        if bound.as_ref().is_some_and(Bound::is_over) {
            return Err(Refused("the lease that it may run under has ended".into()));
        }
        let is_new = || match file::read(&file).map_err(system("can't read the step's state"))? {
            Read::Empty => Ok(()),
            Read::Kept(kept) if kept.id < order.kept.id => Ok(()),
            Read::Kept(_) | Read::Unknown => Err(Refused("it was started before".into())),
        };
        // Whoever holds the lock keeps an earlier step, which was let go, or is as fast as this one.
        is_new()?;
        file::lock(&file).map_err(system("can't lock the step's state"))?;
        // From here on no other shim starts this step: neither while this one lives, nor afterwards.
        is_new()?;
        let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(io::Error::from).map_err(system("can't make a pipe"));
        let (out, err, done) = (pipe()?, pipe()?, pipe()?);
        let pipes = [out.0.as_raw_fd(), err.0.as_raw_fd(), done.0.as_raw_fd()];
        file::begin(&file, &Kept { pipes, ..order.kept.clone() }).map_err(system("can't write the step's state"))?;

        let given = |end: &OwnedFd| end.try_clone().map(Stdio::from).map_err(system("can't hand over a pipe"));
        let mut command = Command::new(&order.program);
        command.arg0(&order.name).args(&order.arguments).env_clear();
        command.envs(order.variables.iter().map(|(name, value)| (name, value)));
        command.current_dir(&order.dir).process_group(0);
        command.stdin(Stdio::null()).stdout(given(&out.1)?).stderr(given(&err.1)?);
        // Whatever is blocked here would be blocked in the step, too: a shell would `wait` for ever.
        let child = expendable(|| command.spawn());
        let child = child.map_err(|error| Refused(format!("can't run {}: {error}", order.name)))?;
        block_ends().map_err(system("can't watch processes"))?;
        let leader = Pid::from_child(&child);
        let head = Head { ended: None, leader: leader.as_raw_pid() };
        head.write(&file).map_err(system("can't write the step's state"))?;
        let _pipes = [out.0, out.1, err.0, err.1, done.0];
        Ok(Self { file, leader, children, done: done.1, bound, _pipes })
    }

    /// Keeps all there is until an agent ends this process; returns only once the other end of `way` is gone, or what it
    /// keeps of a step that has ended can't be found any more.
    fn keep(&self, way: Option<&UnixStream>) {
        let (mut told, mut bound) = (false, self.bound.as_ref());
        loop {
            let ended = if told { None } else { self.leader_end() };
            told = told || ended.is_some_and(|ended| self.tell(ended));
            if bound.is_some_and(Bound::is_over) {
                // How it ended is kept, as always.
                processes::end_all_below_this();
                bound = None;
                continue;
            }
            let mut watched = vec![PollFd::new(&self.children, PollFlags::IN)];
            watched.extend(bound.map(|bound| PollFd::new(&bound.timer, PollFlags::IN)));
            watched.extend(way.map(|way| PollFd::from_borrowed_fd(way.as_fd(), PollFlags::IN)));
            // Until it can be told it is tried again: room on the disk comes back.
            let wait = if told { Some(&LOOK) } else { ended.map(|_| &AGAIN) };
            let quiet = poll(&mut watched, wait) == Ok(0);
            if quiet && self.is_deserted() {
                return;
            }
            if way.is_some() && watched.last().is_some_and(|fd| !fd.revents().is_empty()) {
                return;
            }
            // Many ends may have come as one.
            let _ = rustix::io::read(&self.children, &mut [0; 512]);
            self.reap_others();
        }
    }

    /// True if somebody has removed its file: then no agent will ever come for it.
    fn is_deserted(&self) -> bool {
        rustix::fs::fstat(&self.file).is_ok_and(|file| file.st_nlink == 0)
    }

    /// How the step's first process ended, once it has. It stays unreaped, so that its number means it, and its process
    /// group, for as long as this process lives.
    fn leader_end(&self) -> Option<Ended> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        let Ok(Some(status)) = waitid(WaitId::Pid(self.leader), options) else { return None };
        Some(match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Ended::Code(code),
            (None, signal) => Ended::Signal(signal.unwrap_or_default()),
        })
    }

    /// Writes it down, and wakes who waits for that; false if it can't be written now, as on a full disk that copies on
    /// write.
    fn tell(&self, ended: Ended) -> bool {
        let head = Head { ended: Some(ended), leader: self.leader.as_raw_pid() };
        if head.write(&self.file).is_err() {
            return false;
        }
        let _ = rustix::io::write(&self.done, b"e");
        true
    }

    fn reap_others(&self) {
        let own = rustix::process::getpid().as_raw_pid();
        for child in processes::children_of(own).into_iter().filter(|pid| *pid != self.leader.as_raw_pid()) {
            let _ = waitpid(Pid::from_raw(child), WaitOptions::NOHANG);
        }
    }
}

/// Runs `start`, whose processes are to be the first that the kernel ends when memory runs out: not this one, which knows
/// how they ended, and not the agent.
fn expendable<T>(start: impl FnOnce() -> T) -> T {
    let score = "/proc/self/oom_score_adj";
    let own = std::fs::read_to_string(score);
    // More is always permitted, and so is going back. What is more expendable already stays so.
    let less = own.as_ref().is_ok_and(|own| own.trim().parse::<i32>().is_ok_and(|own| own < OOM_SCORE));
    if less {
        let _ = std::fs::write(score, OOM_SCORE.to_string());
    }
    let started = start();
    if let Some(own) = own.ok().filter(|_| less) {
        let _ = std::fs::write(score, own);
    }
    started
}

/// Until when a step may live.
struct Bound {
    file: File,
    /// Readable when the file is to be looked at again.
    timer: OwnedFd,
}

impl Bound {
    fn new(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let timer = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        Ok(Self { file, timer })
    }

    /// True once it is over; else it is looked at again then, or before: it may have been put off since, or brought
    /// forward.
    fn is_over(&self) -> bool {
        let (Ok(until), now) = (bounds::read(&self.file), clock::now().boot) else { return true };
        if until <= now {
            return true;
        }
        let look = until.min(now + BOUND_LOOK);
        let once = Itimerspec { it_interval: processes::timespec(Duration::ZERO), it_value: timespec_of(look) };
        // A timer that can't be set would never come.
        timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &once).is_err()
    }
}

fn timespec_of(at: BootTime) -> Timespec {
    processes::timespec(at.since(BootTime::from_nanos(0)))
}

/// Whether children that end are forgotten at once, or wait to be reaped.
pub(super) fn ignore_children(ignore: bool) {
    let how = if ignore { libc::SIG_IGN } else { libc::SIG_DFL };
    #[expect(unsafe_code, reason = "neither of the two runs code of this process")]
    unsafe {
        libc::signal(libc::SIGCHLD, how);
    }
}

/// The signal that comes when a child has ended.
fn end_of_child() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    #[expect(unsafe_code, reason = "the set is made before it is used")]
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGCHLD);
        set.assume_init()
    }
}

/// A descriptor that is readable when a child has ended, once [`block_ends`] was called.
fn watch_children() -> io::Result<OwnedFd> {
    let ends = end_of_child();
    #[expect(unsafe_code, reason = "the descriptor is new and nobody else's")]
    unsafe {
        match libc::signalfd(-1, &raw const ends, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) {
            -1 => Err(io::Error::last_os_error()),
            fd => Ok(OwnedFd::from_raw_fd(fd)),
        }
    }
}

/// From now on the end of a child is read from its descriptor; who ended before is found by a look.
fn block_ends() -> io::Result<()> {
    let ends = end_of_child();
    #[expect(unsafe_code, reason = "the old set is not asked for")]
    let blocked = unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const ends, std::ptr::null_mut()) };
    match blocked {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
