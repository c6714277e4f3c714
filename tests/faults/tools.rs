//! What does harm from outside: another wall clock for a process, and a tracer that spoils its calls.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use xene_test_support::{
    eventually,
    process::{Process, search_path},
};

/// Where libfaketime is, on machines that have it.
const FAKE_TIME: [&str; 2] =
    ["/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1", "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1"];

/// The wall clock of processes that start with its environment. Elapsed time stays theirs.
#[derive(Debug)]
pub(crate) struct FakeClock {
    library: &'static str,
    file: PathBuf,
}

impl FakeClock {
    /// One that is right, as `file` says from now on. `None` where there is no libfaketime.
    pub(crate) fn new(file: &Path) -> Option<Self> {
        let Some(library) = FAKE_TIME.into_iter().find(|library| Path::new(library).is_file()) else {
            println!("libfaketime is not here: no clock jumps");
            return None;
        };
        let clock = Self { library, file: file.to_owned() };
        clock.set("+0");
        Some(clock)
    }

    /// Sets it off by so much, such as `+1h`, at once in all processes.
    pub(crate) fn set(&self, offset: &str) {
        // In one piece: a process that reads half of it would have a third clock.
        let next = self.file.with_extension("next");
        fs::write(&next, offset).unwrap();
        fs::rename(&next, &self.file).unwrap();
    }

    /// What a process has to be started with.
    pub(crate) fn environment(&self) -> [(&str, &str); 4] {
        [
            ("LD_PRELOAD", self.library),
            ("FAKETIME_TIMESTAMP_FILE", self.file.to_str().unwrap()),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ]
    }
}

/// Has strace tamper with `calls` of a process, in the way that its `inject=` names, until it is ended. `None` where
/// there is no strace, or it may not look at processes.
pub(crate) fn tamper(process: &Process, calls: &str, way: &str) -> Option<Process> {
    let mut strace = Command::new("strace");
    strace.env("PATH", search_path()).args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={calls}")]);
    strace.args(["-e", &format!("inject={calls}:{way}"), "-p", &process.id().to_string()]);
    if !Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_ok_and(|status| status.success()) {
        println!("strace is not here: {calls} are not {way}");
        return None;
    }
    let mut tracer = Process::spawn("strace", strace);
    let traced = || {
        let status = fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap_or_default();
        status.lines().any(|line| line.starts_with("TracerPid:") && !line.ends_with("\t0"))
    };
    let refused = eventually("it is traced", || match tracer.ended() {
        Some(_) => Ok(true),
        None if traced() => Ok(false),
        None => Err(tracer.output()),
    });
    if refused {
        println!("strace may not look at processes here: {calls} are not {way}: {}", tracer.output());
    }
    (!refused).then_some(tracer)
}
