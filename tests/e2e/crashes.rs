//! `kill -9` of controller and agent at any moment: no acknowledged record is lost, nothing starts twice.

use std::{fs, time::Duration};

use xene_test_support::{cluster::Cluster, eventually};

/// Every start leaves one line: the run's name.
fn noting(file: &std::path::Path) -> String {
    format!(
        r#"
apiVersion: xene/v1
kind: Workflow
metadata: {{name: note}}
spec:
  triggers: {{second: {{type: cron, schedule: "* * * * * *", catchUp: All}}}}
  pipelines:
    cron:
      triggers: second
      autonomy: Forever
      concurrency: {{max: 4}}
      tasks: {{t: {{steps: ['echo "$XENE_RUN_ID" >> {0}']}}}}
    hand:
      concurrency: {{max: 4}}
      tasks: {{t: {{steps: ['echo "$XENE_RUN_ID" >> {0}']}}}}
"#,
        file.display()
    )
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_starts_twice() {
    let mut cluster = Cluster::start(&["--min-autonomy", "2s", "--pause-margin", "1s"]);
    cluster.start_agent("a", &[]);
    let file = cluster.folder().join("starts");
    cluster.repository.write("xene.d/note.yaml", &noting(&file));
    let revision = cluster.commit("note");
    cluster.scheduled("note/hand");
    cluster.scheduled("note/cron");

    let mut acknowledged = Vec::new();
    // The moments differ from round to round, and from the second's edge.
    for round in 0..6u64 {
        for _ in 0..5 {
            let started = cluster.run(&["trigger", "note/hand"]);
            if started.code == 0 {
                acknowledged.push(started.stdout.trim().to_owned());
            }
        }
        let wait = Duration::from_millis(37 * round);
        std::thread::park_timeout(wait);
        if round % 2 == 0 {
            cluster.kill_controller();
            cluster.start_controller();
            assert_eq!(cluster.json(&["status"])["status"]["revision"], revision.as_str(), "the state outlives it");
        } else {
            cluster.kill_agent("a");
            cluster.restart_agent("a", &[]);
        }
        cluster.until("it is scheduled again", &["get", "pipelines", "note/hand"], |p| {
            p["status"]["phase"] == "Scheduled"
        });
    }
    assert!(acknowledged.len() >= 25, "most starts were acknowledged: {}", acknowledged.len());

    for run in &acknowledged {
        let record = cluster.until("it ends", &["get", "runs", run], |r| r["status"]["finishedAt"].is_string());
        let (phase, reason) = (&record["status"]["phase"], record["status"]["reason"].as_str().unwrap_or_default());
        assert!(phase == "Success" || reason == "StartUncertain", "{record:#}");
    }
    let starts = fs::read_to_string(&file).unwrap();
    let mut names: Vec<_> = starts.lines().collect();
    names.sort_unstable();
    let all = names.len();
    names.dedup();
    assert_eq!(names.len(), all, "a run started twice");
    eventually("every start is a run at the controller", || {
        let runs = cluster.json(&["get", "runs", "--limit", "1000"]).to_string();
        match names.iter().find(|name| !runs.contains(**name)) {
            Some(lost) => Err(format!("lost: {lost}")),
            None => Ok(()),
        }
    });
}

#[test]
fn ctrl_c_ends_the_controller_cleanly() {
    let mut cluster = Cluster::start(&[]);
    let controller = cluster.controller.as_mut().unwrap();
    controller.signal(rustix::process::Signal::INT);
    let status = controller.wait();
    assert!(status.success() || status.code() == Some(130), "{status}: {}", controller.output());
    cluster.start_controller();
}
