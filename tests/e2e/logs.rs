//! Logs: byte for byte, at once, capped, and there after crashes.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
    time::{Duration, Instant},
};

use xene_test_support::{cluster::Cluster, eventually};

fn pipeline(script: &str) -> String {
    let script = script.replace('\'', "''");
    format!(
        "apiVersion: xene/v1\nkind: Workflow\nmetadata: {{name: w}}\nspec:\n  pipelines:\n    p:\n      tasks:\n        t:\n          steps:\n            - '{script}'\n"
    )
}

fn prepared(script: &str) -> Cluster {
    let mut cluster = Cluster::start(&[]);
    cluster.start_agent("a", &[]);
    cluster.repository.write("xene.d/w.yaml", &pipeline(script));
    cluster.commit("w");
    cluster.scheduled("w/p");
    cluster
}

#[test]
fn a_followed_log_shows_lines_as_they_are_printed() {
    // The step prints the time of each line, so that the delay is measured on one clock.
    let cluster = prepared("for i in 1 2 3 4 5 6 7 8; do date +%s%N; sleep 0.2; done");
    let run = cluster.run(&["trigger", "w/p"]).expect(0).stdout.trim().to_owned();
    let mut follow = cluster.command();
    let mut child = follow.args(["logs", &run, "-f"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut delays = Vec::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let printed: i128 = line.unwrap().parse().unwrap();
        let seen = jiff::Timestamp::now().as_nanosecond();
        delays.push((seen - printed) / 1_000_000);
    }
    assert!(child.wait().unwrap().success(), "it ends with the run");
    assert_eq!(delays.len(), 8, "{delays:?}");
    delays.sort_unstable();
    assert!(delays[4] < 100, "half of the lines within 100 ms of their printing: {delays:?}");
}

#[test]
fn binary_output_and_half_lines_come_back_byte_for_byte() {
    let script = r#"printf "\000\377\033[31mhalf"; printf " line"; head -c 3000000 /dev/urandom | tee blob; printf tail; sha256sum < blob >&2"#;
    let cluster = prepared(script);
    let run = cluster.run(&["trigger", "w/p", "--wait"]).expect(0).stdout.trim().to_owned();
    let output = eventually("the whole log is there", || {
        let output = cluster.command().args(["logs", &run]).output().unwrap();
        if output.stdout.windows(4).any(|w| w == b"tail") && output.stdout.len() > 3_000_000 + 60 {
            Ok(output.stdout)
        } else {
            Err(format!("{} bytes", output.stdout.len()))
        }
    });
    assert!(output.starts_with(b"\x00\xff\x1b[31mhalf line"));
    // Standard error has the hash of what standard output holds; the two are one stream to the reader.
    let ndjson = cluster.server() + &format!("/api/v1/runs/{run}/logs?format=ndjson");
    let mut body = String::new();
    let mut response =
        ureq::get(&ndjson).header("authorization", format!("Bearer {}", cluster.token())).call().unwrap();
    body.push_str(&response.body_mut().with_config().limit(100 << 20).read_to_string().unwrap());
    let streams: Vec<String> = body
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["stream"].as_str().unwrap().to_owned())
        .collect();
    assert!(streams.iter().any(|s| s == "stdout") && streams.iter().any(|s| s == "stderr"), "{streams:?}");
}

#[test]
fn a_log_survives_the_controllers_death() {
    let mut cluster = prepared("i=0; while [ $i -lt 400 ]; do echo line $i; i=$((i+1)); sleep 0.01; done");
    let run = cluster.run(&["trigger", "w/p"]).expect(0).stdout.trim().to_owned();
    eventually("it prints", || {
        let log = cluster.run(&["logs", &run]);
        if log.stdout.contains("line 40\n") { Ok(()) } else { Err(log.stdout) }
    });
    cluster.kill_controller();
    cluster.start_controller();
    cluster.until("it ends", &["get", "runs", &run], |r| r["status"]["phase"] == "Success");
    let expected: String = (0..400).map(|i| format!("line {i}\n")).collect();
    eventually("every line is there once", || {
        let log = cluster.run(&["logs", &run]).expect(0).stdout;
        if log == expected { Ok(()) } else { Err(format!("{} of {} bytes", log.len(), expected.len())) }
    });
}

#[test]
fn tail_and_filters_take_what_they_say() {
    let cluster = prepared("seq 1 100");
    let run = cluster.run(&["trigger", "w/p", "--wait"]).expect(0).stdout.trim().to_owned();
    eventually("the log is there", || {
        let log = cluster.run(&["logs", &run]).stdout;
        if log.ends_with("100\n") { Ok(()) } else { Err(log) }
    });
    assert_eq!(cluster.run(&["logs", &run, "--tail", "2"]).expect(0).stdout, "99\n100\n");
    assert_eq!(cluster.run(&["logs", &run, "--task", "t", "--step", "step-1", "--tail", "1"]).stdout, "100\n");
    assert_eq!(cluster.run(&["logs", &run, "--task", "other"]).stdout, "");
    let start = Instant::now();
    let stamped = cluster.run(&["logs", &run, "--timestamps", "--tail", "1"]).expect(0).stdout;
    assert!(stamped.contains('T') && stamped.ends_with("100\n"), "{stamped}");
    assert!(start.elapsed() < Duration::from_secs(5));
    cluster.run(&["logs", "0123456789abcdefghjkmnpqrs"]).expect(4);
}
