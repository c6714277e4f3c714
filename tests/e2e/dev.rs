//! `xene dev`: controller and agent in one process, a saved file live within a second.

use std::{fs, time::Duration};

use xene_test_support::{
    eventually,
    process::{Process, run, xene},
    within,
};

#[test]
fn a_saved_file_is_live_within_a_second() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path();
    fs::create_dir(place.join("xene.d")).unwrap();
    let mut command = xene(place);
    command.args(["dev", "--http", "127.0.0.1:0"]);
    let mut dev = Process::spawn("dev", command);
    let server =
        format!("http://{}", dev.line_after("http://").split_whitespace().next().unwrap().trim_end_matches('/'));
    let ask = |arguments: &[&str]| {
        let mut command = xene(place);
        command.env("XENE_SERVER", &server);
        run(command, arguments)
    };
    let text = |word: &str| {
        format!(
            "apiVersion: xene/v1\nkind: Workflow\nmetadata: {{name: w}}\nspec:\n  pipelines:\n    p:\n      tasks:\n        t:\n          steps: ['echo {word}']\n"
        )
    };
    fs::write(place.join("xene.d/w.yaml"), text("one")).unwrap();
    within(Duration::from_secs(10), "it is scheduled", || {
        let ended = ask(&["get", "pipelines", "w/p", "-o", "json"]);
        if ended.stdout.contains("\"Scheduled\"") { Ok(()) } else { Err(format!("{ended:?}")) }
    });
    let started = ask(&["trigger", "w/p", "--wait"]).expect(0);
    eventually("its log", || {
        let log = ask(&["logs", started.stdout.trim()]).stdout;
        if log == "one\n" { Ok(()) } else { Err(log) }
    });
    let before = ask(&["get", "workflows", "w", "-o", "json"]).json();
    // An editor's save: written aside, then renamed.
    fs::write(place.join("xene.d/.w.yaml.swp"), text("two")).unwrap();
    fs::rename(place.join("xene.d/.w.yaml.swp"), place.join("xene.d/w.yaml")).unwrap();
    let saved = jiff::Timestamp::now();
    let after = eventually("the save is live", || {
        let after = ask(&["get", "workflows", "w", "-o", "json"]).json();
        if after["status"]["specHash"] == before["status"]["specHash"] { Err(String::new()) } else { Ok(after) }
    });
    assert_eq!(after["status"]["generation"], 2);
    let took = jiff::Timestamp::now().duration_since(saved);
    assert!(took.as_millis() < 3000, "live after {took:?}");

    // The state stays out of git, and Ctrl-C ends everything.
    assert_eq!(fs::read_to_string(place.join(".xene/.gitignore")).unwrap().trim(), "*");
    dev.signal(rustix::process::Signal::INT);
    let status = dev.wait();
    assert!(status.success() || status.code() == Some(130), "{status}: {}", dev.output());
    assert!(!dev.output().contains("no session"), "what was asked for is no outage: {}", dev.output());
}

#[test]
fn a_folder_that_is_not_there_is_not_made() {
    let folder = tempfile::tempdir().unwrap();
    let ended =
        run(xene(folder.path()), &["dev", "nowhere", "--http", "127.0.0.1:0", "--quic", "127.0.0.1:0"]).expect(2);
    assert!(ended.stderr.contains("nowhere does not exist"), "{ended:?}");
    assert!(!folder.path().join("nowhere").exists());
}
