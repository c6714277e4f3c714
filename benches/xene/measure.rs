//! Spreads, CPU time, memory, and a client of the HTTP API that keeps its connection.

use std::{
    fs,
    io::{Read, Write},
    ops::{Div, Sub},
    time::Duration,
};

use serde_json::Value;
use xene_test_support::within;

/// Median and 95th percentile of some times.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spread {
    pub(crate) median: Duration,
    pub(crate) p95: Duration,
}

impl Spread {
    pub(crate) fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self { median: times[times.len() / 2], p95: times[(times.len() * 95 / 100).min(times.len() - 1)] }
    }

    pub(crate) fn map(self, f: impl Fn(Duration) -> Duration) -> Self {
        Self { median: f(self.median), p95: f(self.p95) }
    }
}

/// Prints one figure.
pub(crate) fn row(title: &str, spread: &Spread, (yardstick, unit): (&str, Duration), cpu: Duration) {
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    println!(
        "{title:<44} {:>8.2} / {:>8.2} ms {yardstick:>20} ({:>4.1}) {:>11.2} ms",
        ms(spread.median),
        ms(spread.p95),
        spread.median.as_secs_f64() / unit.as_secs_f64(),
        ms(cpu)
    );
}

/// CPU time of processes, without that of their children.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage(Duration);

impl Usage {
    pub(crate) fn of(pids: &[u32]) -> Self {
        let mut nanos = 0;
        for pid in pids {
            // schedstat of each thread counts nanoseconds; stat counts ticks of 10 ms.
            for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
                let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
                nanos += text.split(' ').next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
            }
        }
        Self(Duration::from_nanos(nanos))
    }

    pub(crate) fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Sub for Usage {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.since(earlier)
    }
}

impl Div<u32> for Usage {
    type Output = Duration;

    fn div(self, n: u32) -> Duration {
        self.0 / n
    }
}

/// The memory that is a process's own, shared pages counted in parts.
pub(crate) fn pss_mb(pid: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("Pss:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kb| kb.parse::<f64>().ok()).unwrap_or(f64::NAN) / 1e3
}

/// The HTTP API.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    agent: ureq::Agent,
    server: String,
    token: String,
}

impl Api {
    pub(crate) fn new(server: String, token: String) -> Self {
        Self { agent: ureq::Agent::new_with_defaults(), server, token: format!("Bearer {token}") }
    }

    pub(crate) fn get(&self, path: &str) -> Value {
        let url = format!("{}{path}", self.server);
        let response = self.agent.get(url).header("authorization", &self.token).call();
        response.map_or(Value::Null, |mut r| r.body_mut().with_config().limit(1 << 30).read_json().unwrap())
    }

    /// Starts a run and gives its name.
    pub(crate) fn start(&self, workflow: &str, pipeline: &str) -> String {
        let url = format!("{}/api/v1/runs", self.server);
        let body = crate::start_body(workflow, pipeline);
        let mut response = self.agent.post(url).header("authorization", &self.token).send_json(body).unwrap();
        let run: Value = response.body_mut().read_json().unwrap();
        run["metadata"]["name"].as_str().unwrap().to_owned()
    }

    /// Waits for a run's end.
    pub(crate) fn ended(&self, run: &str) -> Value {
        within(crate::LONG, "the run ends", || {
            let record = self.get(&format!("/api/v1/runs/{run}"));
            match record["status"]["phase"].as_str() {
                Some("Success") => Ok(record),
                Some("Error") => panic!("{record:#}"),
                _ => Err(record.to_string()),
            }
        })
    }

    pub(crate) fn scheduled(&self, pipeline: &str) -> Result<(), String> {
        let pipeline = self.get(&format!("/api/v1/pipelines/{pipeline}"));
        if pipeline["status"]["phase"] == "Scheduled" { Ok(()) } else { Err(pipeline.to_string()) }
    }

    pub(crate) fn workflows_are(&self, many: usize) -> Result<(), String> {
        let source = self.get("/api/v1/source");
        let all = source["status"]["workflows"] == many;
        if !all {
            return Err(source.to_string());
        }
        if many == 0 { Ok(()) } else { self.scheduled(&format!("w{}/p", many - 1)) }
    }

    /// Copies a run's log and gives how many bytes it was.
    pub(crate) fn read_log(&self, run: &str, follow: bool, out: &mut impl Write) -> u64 {
        let url = format!("{}/api/v1/runs/{run}/logs?follow={follow}", self.server);
        let mut response = self.agent.get(url).header("authorization", &self.token).call().unwrap();
        let mut reader = response.body_mut().with_config().limit(u64::MAX).reader();
        let (mut buffer, mut total) = (vec![0; 1 << 20], 0);
        loop {
            let n = reader.read(&mut buffer).unwrap();
            if n == 0 {
                return total;
            }
            out.write_all(&buffer[..n]).unwrap();
            total += n as u64;
        }
    }
}
