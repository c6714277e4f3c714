//! Processes of xene as a test starts them: their output kept, their end certain.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::eventually;

/// The binary under test: `XENE_BIN`, or what cargo built beside the running test.
#[expect(clippy::disallowed_methods, reason = "the test command names the release build here")]
pub fn binary() -> PathBuf {
    if let Ok(path) = std::env::var("XENE_BIN") {
        return path.into();
    }
    let test = std::env::current_exe().expect("a test knows itself");
    test.ancestors().find(|d| d.join("xene").is_file()).expect("cargo builds xene beside its tests").join("xene")
}

/// A command of xene in a clean environment: no colour, no settings of whoever runs the tests.
pub fn xene(home: &Path) -> Command {
    let mut command = Command::new(binary());
    command.env_clear().env("HOME", home).env("NO_COLOR", "1").env("LANG", "C.UTF-8");
    command.env("PATH", search_path()).current_dir(home).stdin(Stdio::null());
    command
}

/// Where the tests' own tools are.
pub fn search_path() -> OsString {
    std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into())
}

/// A process that goes on until the test ends it. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    readers: Vec<JoinHandle<()>>,
}

impl Process {
    /// Starts `command` and keeps its output, line by line.
    ///
    /// # Panics
    /// If it can't be started.
    pub fn spawn(name: &str, mut command: Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let pipes: [Option<Box<dyn Read + Send>>; 2] = [out.map(|p| Box::new(p) as _), err.map(|p| Box::new(p) as _)];
        let read = |pipe: Box<dyn Read + Send>| {
            let lines = Arc::clone(&lines);
            thread::spawn(move || {
                for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                    lines.lock().expect("no reader panics").push(line);
                }
            })
        };
        let readers = pipes.into_iter().flatten().map(read).collect();
        Self { name: name.into(), child, lines, readers }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// All it has printed so far.
    ///
    /// # Panics
    /// Never: no reader panics.
    pub fn output(&self) -> String {
        self.lines.lock().expect("no reader panics").join("\n")
    }

    /// Waits for a line that holds `text`, and gives what follows it on that line.
    #[track_caller]
    pub fn line_after(&mut self, text: &str) -> String {
        let what = format!("{} prints {text:?}", self.name);
        eventually(&what, || {
            let output = self.output();
            if let Some((_, rest)) = output.lines().find_map(|line| line.split_once(text)) {
                return Ok(rest.trim().to_owned());
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                panic!("{} ended with {status}:\n{output}", self.name);
            }
            Err(output)
        })
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// If the process is gone.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).unwrap_or_else(|error| panic!("{}: {error}", self.name));
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// SIGTERM, and waits for its end.
    #[track_caller]
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait()
    }

    /// Waits for its end, and until all that it printed has been read.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let what = format!("{} ends", self.name);
        eventually(&what, || match self.child.try_wait() {
            Ok(Some(_)) if !self.readers.iter().all(JoinHandle::is_finished) => {
                Err("something holds its output".into())
            }
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err(self.output()),
            Err(error) => Err(error.to_string()),
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            eprintln_lines(&self.name, &self.output());
        }
    }
}

#[expect(clippy::print_stderr, reason = "a failed test shows what its processes said")]
fn eprintln_lines(name: &str, output: &str) {
    eprintln!("--- {name}\n{output}");
}

/// What a command that has ended left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Its exit status; 128 + n for a signal.
    pub code: i32,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Ended {
    /// Reads what the standard library gives.
    pub fn from_output(output: Output) -> Self {
        use std::os::unix::process::ExitStatusExt;
        let code = output.status.code().or_else(|| output.status.signal().map(|s| 128 + s)).unwrap_or(-1);
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self { code, stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// Its standard output as JSON.
    ///
    /// # Panics
    /// If it is not.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }

    /// Itself, if its exit status is `code`.
    ///
    /// # Panics
    /// With all it printed, otherwise.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:#?}");
        self
    }
}

/// Runs a command to its end.
///
/// # Panics
/// If it can't be started.
#[track_caller]
pub fn run<S: AsRef<OsStr>>(mut command: Command, arguments: &[S]) -> Ended {
    command.args(arguments);
    Ended::from_output(command.output().unwrap_or_else(|error| panic!("{command:?}: {error}")))
}

/// The processes whose environment holds `marker`, by pid, with their command lines: what a run left behind.
pub fn processes_with(marker: &str) -> BTreeMap<u32, String> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        if environment.split(|b| *b == 0).any(|variable| variable == marker.as_bytes()) {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            found.insert(pid, String::from_utf8_lossy(&line).replace('\0', " "));
        }
    }
    found
}

/// The processes above steps of agents whose data is below `folder`, their parents included.
pub fn shims_below(folder: &Path) -> BTreeSet<u32> {
    let folder = folder.to_string_lossy();
    let is_shim = |line: &str| line.contains("--parent-of-shims") && line.contains(&*folder);
    let line = |pid: u32| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| is_shim(&String::from_utf8_lossy(&line(*pid)))).collect()
}

/// The processes of steps whose workspace is below `folder`.
pub fn steps_below(folder: &Path) -> BTreeSet<u32> {
    let below = format!("XENE_WORKSPACE={}", folder.display());
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let works_below = |entry: &std::fs::DirEntry| {
        let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        environment.split(|b| *b == 0).any(|variable| variable.starts_with(below.as_bytes()))
    };
    entries.filter(works_below).filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Kills whatever steps of agents that are gone have left below `folder`.
pub fn end_steps_below(folder: &Path) {
    loop {
        let left: BTreeSet<u32> = steps_below(folder).into_iter().chain(shims_below(folder)).collect();
        if left.is_empty() {
            return;
        }
        for pid in left.into_iter().filter_map(|pid| Pid::from_raw(pid.cast_signed())) {
            let _ = kill_process(pid, Signal::KILL);
        }
        thread::yield_now();
    }
}
