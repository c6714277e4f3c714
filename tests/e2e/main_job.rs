//! The main job as a new user meets it: commit → scheduled → run → logs → revert.

use std::fs;

use serde_json::Value;
use xene_test_support::{
    cluster::Cluster,
    eventually,
    process::{Process, run, xene},
};

/// A workflow whose pipeline prints `word`.
fn greeting(name: &str, word: &str) -> String {
    format!(
        "apiVersion: xene/v1\nkind: Workflow\nmetadata: {{name: {name}}}\nspec:\n  pipelines:\n    greet:\n      tasks:\n        say:\n          steps:\n            - echo {word}\n"
    )
}

/// Starts a pipeline, waits for Success, gives its log.
#[track_caller]
fn run_to_success(cluster: &Cluster, pipeline: &str) -> String {
    let started = cluster.run(&["trigger", pipeline, "--wait"]).expect(0);
    let run = started.stdout.trim().to_owned();
    assert_eq!(run.len(), 26, "stdout holds the run's name alone: {started:?}");
    let record = cluster.json(&["get", "runs", &run]);
    assert_eq!(record["status"]["phase"], "Success", "{record:#}");
    cluster.run(&["logs", &run]).expect(0).stdout
}

#[test]
fn commit_schedule_run_log_revert() {
    let mut cluster = Cluster::start(&[]);
    let source = cluster.json(&["status"]);
    let conditions = source["status"]["conditions"].to_string();
    assert!(conditions.contains("Empty"), "an empty repository says so: {conditions}");
    cluster.start_agent("one", &[]);

    cluster.repository.write("xene.d/hello.yaml", &greeting("hello", "first"));
    let first = cluster.commit("greet");
    let pipeline = cluster.scheduled("hello/greet");
    assert_eq!(pipeline["status"]["agent"], "one");
    assert_eq!(run_to_success(&cluster, "hello/greet"), "first\n");

    // A second commit is live.
    cluster.repository.write("xene.d/hello.yaml", &greeting("hello", "second"));
    cluster.commit("greet anew");
    assert_eq!(run_to_success(&cluster, "hello/greet"), "second\n");

    // An uncommitted edit does not exist.
    cluster.repository.write("xene.d/hello.yaml", &greeting("hello", "uncommitted"));
    cluster.run(&["sync"]).expect(0);
    assert_eq!(run_to_success(&cluster, "hello/greet"), "second\n");
    cluster.repository.git(&["checkout", "--quiet", "."]);

    // A broken commit leaves the last good, and says where the problem is.
    cluster.repository.write(
        "xene.d/hello.yaml",
        "apiVersion: xene/v1\nkind: Workflow\nmetadata: {name: hello}\nspec: {pipelines: {greet: {taskz: {}}}}\n",
    );
    cluster.repository.write("xene.d/other.yaml", &greeting("other", "fine"));
    let broken = cluster.commit("break it");
    let source = cluster.json(&["status"]);
    let problem = &source["status"]["problems"][0];
    assert_eq!(
        (&problem["path"], &problem["line"]),
        (&Value::from("xene.d/hello.yaml"), &Value::from(4)),
        "{source:#}"
    );
    assert_eq!(cluster.json(&["get", "workflows", "hello"])["status"]["phase"], "Invalid");
    assert_eq!(run_to_success(&cluster, "hello/greet"), "second\n");
    cluster.scheduled("other/greet");
    assert_eq!(run_to_success(&cluster, "other/greet"), "fine\n", "one broken file holds up no other");

    // git revert brings the old behaviour back, twice.
    cluster.repository.git(&["revert", "--no-edit", &broken]);
    let second = cluster.repository.git(&["rev-parse", "HEAD~2"]);
    cluster.repository.git(&["revert", "--no-edit", &second]);
    let head = cluster.repository.git(&["rev-parse", "HEAD"]);
    cluster.until("the reverts are in effect", &["status"], |s| s["status"]["revision"] == head.as_str());
    assert_eq!(run_to_success(&cluster, "hello/greet"), "first\n");
    let workflow = cluster.json(&["get", "workflows", "hello"]);
    assert_eq!(workflow["status"]["phase"], "Ready", "{workflow:#}");
    assert_eq!(cluster.json(&["status"])["status"]["path"], "xene.d", "the folder that is read is named");

    // Removal prunes; history stays.
    let runs = cluster.json(&["get", "runs"])["items"].as_array().map_or(0, Vec::len);
    cluster.repository.git(&["rm", "--quiet", "xene.d/hello.yaml"]);
    cluster.repository.write("xene.d/last.yaml", &greeting("last", "word"));
    cluster.commit("remove hello");
    cluster.run(&["get", "workflows", "hello"]).expect(4);
    cluster.run(&["trigger", "hello/greet"]).expect(4);
    assert_eq!(cluster.json(&["get", "runs"])["items"].as_array().map_or(0, Vec::len), runs);
    assert_ne!(first, broken);
}

#[test]
fn a_run_in_flight_finishes_on_the_spec_it_started_with() {
    let mut cluster = Cluster::start(&[]);
    cluster.start_agent("one", &[]);
    let gate = cluster.folder().join("gate");
    let text = greeting("hold", &format!("begun; while [ ! -e {} ]; do sleep 0.05; done; echo old", gate.display()));
    cluster.repository.write("xene.d/hold.yaml", &text);
    cluster.commit("wait for a gate");
    cluster.scheduled("hold/greet");
    let run = cluster.run(&["trigger", "hold/greet"]).expect(0).stdout.trim().to_owned();
    cluster.until("it runs", &["get", "runs", &run], |r| r["status"]["phase"] == "Running");
    cluster.repository.git(&["rm", "--quiet", "xene.d/hold.yaml"]);
    cluster.repository.write("xene.d/new.yaml", &greeting("new", "new"));
    cluster.commit("remove it under the run");
    cluster.run(&["get", "pipelines", "hold/greet"]).expect(4);
    fs::write(&gate, "").unwrap();
    let ended = cluster.until("it ends", &["get", "runs", &run], |r| r["status"]["finishedAt"].is_string());
    assert_eq!(ended["status"]["phase"], "Success", "{ended:#}");
    eventually("the whole log is there", || {
        let log = cluster.run(&["logs", &run]).expect(0).stdout;
        if log == "begun\nold\n" { Ok(()) } else { Err(log) }
    });
}

#[test]
fn params_are_checked_and_never_become_code() {
    let mut cluster = Cluster::start(&[]);
    cluster.start_agent("one", &[]);
    let text = r#"
apiVersion: xene/v1
kind: Workflow
metadata: {name: say}
spec:
  params:
    word: {required: true}
    times: {type: integer, default: 1}
  pipelines:
    it:
      env: {WORD: {param: word}}
      tasks:
        say:
          steps: ['printf "%s %s\n" "$WORD" "$XENE_PARAM_TIMES"']
"#;
    cluster.repository.write("xene.d/say.yaml", text);
    cluster.commit("say");
    cluster.scheduled("say/it");
    let missing = cluster.run(&["trigger", "say/it"]).expect(2);
    assert!(missing.stderr.contains("word"), "{missing:?}");
    let wrong = cluster.run(&["trigger", "say/it", "-p", "word=a", "-p", "times=x"]).expect(2);
    assert!(wrong.stderr.contains("times"), "{wrong:?}");
    let hostile = "$(touch pwned); `id`; \"' && rm -rf . #";
    let run = cluster.run(&["trigger", "say/it", "--wait", "-p", &format!("word={hostile}")]).expect(0);
    let log = cluster.run(&["logs", run.stdout.trim()]).expect(0).stdout;
    assert_eq!(log, format!("{hostile} 1\n"));
}

#[test]
fn a_failing_step_is_found_at_once() {
    let mut cluster = Cluster::start(&[]);
    cluster.start_agent("one", &[]);
    let text = greeting("fail", "begun; exit 7");
    cluster.repository.write("xene.d/fail.yaml", &text);
    cluster.commit("fail");
    cluster.scheduled("fail/greet");
    let ended = cluster.run(&["trigger", "fail/greet", "--wait"]).expect(1);
    let run = cluster.json(&["get", "runs", ended.stdout.trim()]);
    assert_eq!(run["status"]["phase"], "Error");
    let step = &run["status"]["tasks"]["say"]["steps"][0];
    assert_eq!((&step["phase"], &step["exitCode"]), (&Value::from("Error"), &Value::from(7)), "{run:#}");
    let message = run["status"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("say") && message.contains('7'), "{message}");
}

#[test]
fn cancel_ends_every_process_of_a_run() {
    let mut cluster = Cluster::start(&[]);
    cluster.start_agent("one", &[]);
    let text = greeting("long", "begun; setsid sleep 1000 & sleep 1000").replace("- echo", "- exec 2>&1; echo");
    cluster.repository.write("xene.d/long.yaml", &text);
    cluster.commit("long");
    cluster.scheduled("long/greet");
    let run = cluster.run(&["trigger", "long/greet"]).expect(0).stdout.trim().to_owned();
    let marker = format!("XENE_RUN_ID={run}");
    eventually("its processes run", || {
        let found = xene_test_support::process::processes_with(&marker);
        if found.len() >= 2 { Ok(()) } else { Err(format!("{found:?}")) }
    });
    cluster.run(&["cancel", &run]).expect(0);
    let ended = cluster.until("it ends", &["get", "runs", &run], |r| r["status"]["finishedAt"].is_string());
    assert_eq!(ended["status"]["reason"], "Cancelled", "{ended:#}");
    let left = xene_test_support::process::processes_with(&marker);
    assert!(left.is_empty(), "left behind: {left:?}");
}

#[test]
fn a_folder_that_is_no_repository_is_a_source_too() {
    let folder = tempfile::tempdir().unwrap();
    let (source, data) = (folder.path().join("drop"), folder.path().join("data"));
    fs::create_dir(&source).unwrap();
    let mut command = xene(folder.path());
    command.args(["controller", "--http", "127.0.0.1:0", "--quic", "127.0.0.1:0", "--source"]).arg(&source);
    command.arg("--data-dir").arg(&data);
    let mut controller = Process::spawn("controller", command);
    let http = controller.line_after("http://").split_whitespace().next().unwrap_or_default().to_owned();
    fs::write(source.join("hello.yaml"), greeting("hello", "saved")).unwrap();
    let token = fs::read_to_string(data.join("admin.token")).unwrap();
    let get = |what: &[&str]| {
        let mut command = xene(folder.path());
        command.env("XENE_SERVER", format!("http://{http}")).env("XENE_TOKEN", token.trim());
        run(command, what)
    };
    eventually("the saved file is in effect", || {
        let ended = get(&["get", "workflows", "hello"]);
        if ended.code == 0 { Ok(()) } else { Err(format!("{ended:?}")) }
    });
    assert_eq!(get(&["status", "-o", "json"]).expect(0).json()["status"]["kind"], "directory");
    assert!(controller.terminate().success());
}
