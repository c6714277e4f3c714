//! Every example runs to Success, as its README says.

use std::{fs, path::Path};

use xene_test_support::{cluster::Cluster, eventually, repository::Repository};

fn with_example(name: &str, agent: &[&str]) -> Cluster {
    let mut cluster = Cluster::start(&[]);
    cluster.start_agent("a", agent);
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name).join("workflow.yaml");
    cluster.repository.write("xene.d/workflow.yaml", &fs::read_to_string(file).unwrap());
    cluster.commit("the example");
    cluster
}

/// Starts, waits for Success, gives the run and its log.
#[track_caller]
fn success(cluster: &Cluster, arguments: &[&str]) -> (serde_json::Value, String) {
    cluster.scheduled(arguments[0]);
    let mut all = vec!["trigger", "--wait"];
    all.extend(arguments);
    let ended = cluster.run(&all);
    let run = ended.stdout.trim().to_owned();
    let log = cluster.run(&["logs", &run]).stdout;
    assert_eq!(ended.code, 0, "{ended:?}\n{log}");
    (cluster.json(&["get", "runs", &run]), log)
}

#[test]
fn every_example_has_a_test() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["c-build", "data-pipeline", "fleet-housekeeping", "nightly-backup", "three-starts"]);
}

#[test]
fn c_build() {
    let cluster = with_example("c-build", &[]);
    let project = Repository::new(&cluster.folder().join("project"));
    project.write("hello.c", "#include <stdio.h>\nint main(void) { puts(\"hello\"); return 0; }\n");
    project.write(
        "Makefile",
        "hello: hello.c\n\tcc -o hello hello.c\ntest: hello\n\t./hello | grep -q hello && echo tested\n",
    );
    let commit = project.commit("a project");
    let repository = format!("repository=file://{}", project.folder().display());
    let (run, log) = success(&cluster, &["c-build/build", "-p", &repository]);
    assert_eq!(run["status"]["tasks"]["checkout"]["outputs"]["commit"], commit.as_str());
    assert!(log.contains("tested") && log.contains(&format!("packed {commit}")), "{log}");
    assert_eq!(run["status"]["tasks"]["package"]["artifacts"][0]["path"], "build.tar.gz");
}

#[test]
fn nightly_backup() {
    let cluster = with_example("nightly-backup", &[]);
    let (source, target) = (cluster.folder().join("data"), cluster.folder().join("dumps"));
    fs::create_dir(&source).unwrap();
    fs::write(source.join("table"), "rows").unwrap();
    let (from, to) = (format!("source={}", source.display()), format!("target={}", target.display()));
    for _ in 0..4 {
        success(&cluster, &["nightly-backup/backup", "-p", &from, "-p", &to, "-p", "keep=2"]);
    }
    let dumps: Vec<_> = fs::read_dir(&target).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(dumps.len(), 2, "the newest two stay: {dumps:?}");
    let pipeline = cluster.json(&["get", "pipelines", "nightly-backup/backup"]);
    assert!(pipeline["status"]["nextFire"].is_string(), "{pipeline:#}");
}

#[test]
fn data_pipeline() {
    let cluster = with_example("data-pipeline", &["--slots", "3"]);
    let (run, _) = success(&cluster, &["data-pipeline/count", "-p", "rows=1000"]);
    assert_eq!(run["status"]["tasks"]["join"]["outputs"]["total"], "500500", "{run:#}");
}

#[test]
fn fleet_housekeeping() {
    let cluster = with_example("fleet-housekeeping", &["--label", "role=build"]);
    let (_, log) = success(&cluster, &["fleet-housekeeping/clean"]);
    assert!(log.contains("a uses "), "{log}");
}

#[test]
fn three_starts() {
    let cluster = with_example("three-starts", &[]);
    let (_, log) = success(&cluster, &["three-starts/greet", "-p", "who=you"]);
    assert!(log.contains("hello, you; started by manual"), "{log}");

    let hook = |delivery: &str| {
        let mut response = ureq::post(format!("{}/hooks/three-starts/triggers/request", cluster.server()))
            .header("authorization", format!("Bearer {}", cluster.token()))
            .header("x-delivery-id", delivery)
            .send(r#"{"hello": "there"}"#)
            .unwrap();
        assert_eq!(response.status(), 202);
        let body: serde_json::Value = response.body_mut().read_json().unwrap();
        body["run"].as_str().unwrap().to_owned()
    };
    let run = hook("first");
    assert_eq!(hook("first"), run, "a delivery that comes again gives the same run");
    assert_ne!(hook("second"), run);
    cluster.until("the hook's run ends", &["get", "runs", &run], |r| r["status"]["phase"] == "Success");
    eventually("the payload is in the log", || {
        let log = cluster.run(&["logs", &run]).stdout;
        if log.contains(r#"{"hello": "there"}"#) { Ok(()) } else { Err(log) }
    });

    let seconds = std::time::Duration::from_secs(90);
    xene_test_support::within(seconds, "the clock starts it too", || {
        let runs = cluster.json(&["get", "runs", "--pipeline", "greet"]).to_string();
        if runs.contains("\"cron\"") { Ok(()) } else { Err(runs) }
    });
}
