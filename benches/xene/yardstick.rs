//! What the machine itself needs for work of the same kind, measured in the same run.

use std::{
    env, fs,
    io::{BufRead, BufReader, Lines, Write},
    process::{Child, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::measure::Usage;

/// Medians.
#[derive(Debug)]
pub(crate) struct Yardsticks {
    /// fork, exec and wait of `sh -c true`.
    pub(crate) spawn: Duration,
    /// A shell that starts `sh -c true` a hundred times.
    pub(crate) loop_of_100: Duration,
    /// xargs that starts a hundred, two at a time.
    pub(crate) xargs_of_100: Duration,
    /// Append 256 bytes and fdatasync.
    pub(crate) sync: Duration,
    /// 100 MB through a pipe into a file, and read back.
    pub(crate) pipe_100_mb: Duration,
}

fn median(rounds: usize, mut work: impl FnMut()) -> Duration {
    let mut times: Vec<_> = (0..rounds)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[rounds / 2]
}

fn shell(script: &str) {
    let status = Command::new("sh").args(["-c", script]).stdin(Stdio::null()).stdout(Stdio::null()).status().unwrap();
    assert!(status.success(), "{script}");
}

pub(crate) fn measure() -> Yardsticks {
    let folder = tempfile::tempdir().unwrap();
    let mut file = fs::File::create(folder.path().join("sync")).unwrap();
    let big = folder.path().join("big");
    let yardsticks = Yardsticks {
        spawn: median(100, || shell("true")),
        loop_of_100: median(5, || shell("i=0; while [ $i -lt 100 ]; do sh -c true; i=$((i+1)); done")),
        xargs_of_100: median(5, || shell("seq 100 | xargs -P2 -n1 sh -c true")),
        sync: median(50, || {
            file.write_all(&[0; 256]).unwrap();
            file.sync_data().unwrap();
        }),
        pipe_100_mb: median(3, || {
            shell(&format!("head -c 100000000 /dev/zero | cat > {0}; cat {0}", big.display()));
        }),
    };
    for (name, time) in [
        ("sh -c true", yardsticks.spawn),
        ("shell loop of 100", yardsticks.loop_of_100),
        ("xargs -P2 of 100", yardsticks.xargs_of_100),
        ("append + fdatasync", yardsticks.sync),
        ("100 MB: pipe, file and back", yardsticks.pipe_100_mb),
    ] {
        println!("yardstick: {name:<33} {:>19.2} ms", time.as_secs_f64() * 1e3);
    }
    yardsticks
}

/// The argument that makes this program a [`Waker`]'s process.
pub(crate) const WAKE: &str = "wake-each-second";

/// What a [`Waker`]'s process does: sleeps to each full second of the wall clock, starts `sh -c true` and tells by how
/// many microseconds the second was over when that had ended.
pub(crate) fn wake_each_second() {
    loop {
        let now = jiff::Timestamp::now();
        let next = jiff::Timestamp::from_second(now.as_second() + 1).unwrap();
        thread::sleep(next.duration_since(now).unsigned_abs());
        shell("true");
        println!("{}", jiff::Timestamp::now().duration_since(next).as_micros());
    }
}

/// A small process that rests, and starts a shell each second: what waking after a rest costs on this machine, whoever does it.
#[derive(Debug)]
pub(crate) struct Waker {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Waker {
    pub(crate) fn start() -> Self {
        let program = env::current_exe().unwrap();
        let mut process = Command::new(program).arg(WAKE).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        lines.next().unwrap().unwrap();
        Self { process, lines }
    }

    /// How late each of so many seconds was, and the CPU time of the process for each, without that of its shells.
    pub(crate) fn watch(mut self, seconds: usize) -> (Vec<Duration>, Duration) {
        let before = Usage::of(&[self.process.id()]);
        let late =
            (0..seconds).map(|_| Duration::from_micros(self.lines.next().unwrap().unwrap().parse().unwrap())).collect();
        let cpu = Usage::of(&[self.process.id()]).since(before) / u32::try_from(seconds).unwrap();
        (late, cpu)
    }
}

impl Drop for Waker {
    fn drop(&mut self) {
        // It may have ended by itself, which is as well.
        self.process.kill().ok();
        self.process.wait().ok();
    }
}
