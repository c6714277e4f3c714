//! Files that travel with a workflow, and artifacts of runs: between processes, over crashes, without a controller.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use serde_json::Value;
use xene_test_support::{cluster::Cluster, eventually, process::Process};

const SHIP: &str = r#"
apiVersion: xene/v1
kind: Workflow
metadata: {name: ship}
spec:
  files: ["scripts/**"]
  pipelines:
    go:
      tasks:
        say: {steps: [scripts/say.sh]}
        alter: {dependencies: [say], steps: ["echo rm -rf > scripts/say.sh"]}
        elsewhere: {context: other, dependencies: [alter], steps: [scripts/say.sh]}
"#;

fn script(cluster: &Cluster, path: &str, text: &str) {
    cluster.repository.write(path, text);
    let path = cluster.repository.folder().join(path);
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Starts a pipeline, waits for its end, gives the run's name and what it printed.
#[track_caller]
fn run(cluster: &Cluster, pipeline: &str) -> (String, String) {
    let name = cluster.run(&["trigger", pipeline, "--wait"]).expect(0).stdout.trim().to_owned();
    let log = eventually("the log is whole", || {
        let log = cluster.run(&["logs", &name]);
        if log.code == 0 && !log.stdout.is_empty() { Ok(log.stdout) } else { Err(format!("{log:#?}")) }
    });
    (name, log)
}

fn status(cluster: &Cluster, workflow: &str) -> Value {
    cluster.json(&["get", "workflows", workflow])["status"].clone()
}

#[test]
fn a_script_travels_changes_and_goes_back_with_its_commit() {
    let mut cluster = Cluster::start(&[]);
    cluster.start_agent("a", &[]);
    cluster.repository.write("xene.d/ship.yaml", SHIP);
    script(&cluster, "xene.d/scripts/say.sh", "#!/bin/sh\necho one\n");
    let first = cluster.commit("one");
    cluster.scheduled("ship/go");
    assert_eq!(run(&cluster, "ship/go").1, "one\none\n", "also after a step has altered its copy");
    let before = status(&cluster, "ship");
    assert_eq!(before["generation"], 1, "{before:#}");

    script(&cluster, "xene.d/scripts/say.sh", "#!/bin/sh\necho two\n");
    cluster.commit("two");
    let changed = status(&cluster, "ship");
    assert_eq!(changed["generation"], 2, "{changed:#}");
    assert_ne!(changed["specHash"], before["specHash"]);
    assert_eq!(run(&cluster, "ship/go").1, "two\ntwo\n");

    cluster.repository.git(&["revert", "--no-edit", "HEAD"]);
    cluster.commit("back to one");
    let back = status(&cluster, "ship");
    assert_eq!((&back["generation"], &back["specHash"]), (&3.into(), &before["specHash"]), "{back:#}");
    assert_eq!(run(&cluster, "ship/go").1, "one\none\n");

    cluster.repository.git(&["rm", "-q", "xene.d/scripts/say.sh"]);
    cluster.commit("without it");
    let source = cluster.json(&["status"]);
    let problem = &source["status"]["problems"][0];
    assert_eq!(problem["code"], "XE0103", "{source:#}");
    assert_eq!(first.len(), 40);
}

#[test]
fn scripts_are_there_without_a_controller_and_after_a_restart_of_the_agent() {
    let mut cluster = Cluster::start(&["--min-autonomy", "2s", "--pause-margin", "1s"]);
    cluster.start_agent("a", &[]);
    let file = cluster.folder().join("ticks");
    let text = format!(
        r#"
apiVersion: xene/v1
kind: Workflow
metadata: {{name: clock}}
spec:
  files: [tick.sh]
  triggers: {{second: {{type: cron, schedule: "* * * * * *", catchUp: Skip}}}}
  pipelines:
    tick:
      triggers: second
      autonomy: Forever
      tasks: {{note: {{steps: ["./tick.sh >> {}"]}}}}
"#,
        file.display()
    );
    cluster.repository.write("xene.d/clock.yaml", &text);
    script(&cluster, "xene.d/tick.sh", "#!/bin/sh\necho tick\n");
    cluster.commit("tick");
    let ticks = || fs::read_to_string(&file).unwrap_or_default().lines().filter(|line| *line == "tick").count();
    let more = |what: &str| {
        let before = ticks();
        eventually(what, || if ticks() >= before + 2 { Ok(()) } else { Err(format!("{} ticks", ticks())) });
    };
    more("it ticks");
    cluster.kill_controller();
    more("it ticks without a controller");
    cluster.kill_agent("a");
    let command = cluster.agent_command("a", &[]);
    cluster.agents.insert("a".into(), Process::spawn("a", command));
    more("it ticks after a restart without a controller");
}

#[test]
fn a_big_file_comes_whole_while_a_log_goes_on() {
    let mut cluster = Cluster::start(&[]);
    cluster.start_agent("a", &["--slots", "4"]);
    cluster.repository.write(
        "xene.d/talk.yaml",
        "apiVersion: xene/v1\nkind: Workflow\nmetadata: {name: talk}\nspec:\n  pipelines:\n    on:\n      tasks:\n        \
         say: {steps: ['while :; do echo talk; sleep 0.05; done']}\n",
    );
    cluster.commit("talk");
    cluster.scheduled("talk/on");
    let talking = cluster.run(&["trigger", "talk/on"]).expect(0).stdout.trim().to_owned();
    let said = || cluster.run(&["logs", &talking]).stdout.len();
    eventually("it talks", || if said() > 20 { Ok(()) } else { Err(said().to_string()) });
    let mut noise = vec![0; 10 << 20];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    fs::create_dir_all(cluster.repository.folder().join("xene.d/data")).unwrap();
    fs::write(cluster.repository.folder().join("xene.d/data/noise"), &noise).unwrap();
    cluster.repository.write(
        "xene.d/big.yaml",
        "apiVersion: xene/v1\nkind: Workflow\nmetadata: {name: big}\nspec:\n  files: [data]\n  pipelines:\n    keep:\n      \
         tasks:\n        copy: {steps: ['wc -c < data/noise'], artifacts: {save: [data/noise]}}\n",
    );
    let before = said();
    cluster.commit("big");
    cluster.scheduled("big/keep");
    let (name, log) = run(&cluster, "big/keep");
    assert_eq!(log.trim(), noise.len().to_string());
    assert!(said() > before, "the log went on");
    let saved = fetch(&cluster, &name, "big");
    assert!(fs::read(saved.join("copy/data/noise")).unwrap() == noise, "it came back as it went");
    cluster.run(&["cancel", &talking]).expect(0);
}

/// Fetches a run's artifacts once all are at the controller, and gives the folder.
#[track_caller]
fn fetch(cluster: &Cluster, run: &str, folder: &str) -> std::path::PathBuf {
    cluster.until("all artifacts are there", &["artifacts", run, "--list"], |list| {
        let items = list["items"].as_array().unwrap();
        !items.is_empty() && items.iter().all(|item| item["pending"].is_null())
    });
    let to = cluster.folder().join(folder);
    cluster.run(&["artifacts", run, "-D", &to.display().to_string()]).expect(0);
    to
}

const FAN: &str = r#"
apiVersion: xene/v1
kind: Workflow
metadata: {name: fan}
spec:
  pipelines:
    out:
      tasks:
        make:
          steps:
            - mkdir out && echo made > out/text && printf '#!/bin/sh\necho ran' > out/run.sh && chmod +x out/run.sh
            - ln -s /etc/passwd out/link && mkfifo out/fifo && mkdir out/.hidden && echo no > out/.hidden/x
          artifacts: {save: ["out/**"]}
        left:
          context: left
          dependencies: [make]
          steps: ["out/run.sh > left", "test ! -e out/link"]
          artifacts: {from: [make], save: [left]}
        right:
          context: right
          dependencies: [make]
          steps: ["cat out/text > right"]
          artifacts: {from: [make], save: [right]}
        join:
          context: join
          dependencies: [left, right]
          steps: ["cat left right"]
          artifacts: {from: [left, right]}
"#;

#[test]
fn artifacts_go_to_later_tasks_and_to_people() {
    let mut cluster = Cluster::start(&[]);
    cluster.start_agent("a", &[]);
    cluster.repository.write("xene.d/fan.yaml", FAN);
    cluster.commit("fan");
    cluster.scheduled("fan/out");
    let (name, log) = run(&cluster, "fan/out");
    let (notes, said): (Vec<_>, Vec<_>) = log.lines().partition(|line| line.starts_with("xene: "));
    assert_eq!(said, ["ran", "made"]);
    assert!(notes.len() == 1 && notes[0].contains("out/link"), "{notes:?}");
    let record = cluster.json(&["get", "runs", &name]);
    let made = record["status"]["tasks"]["make"]["artifacts"].as_array().unwrap();
    let paths: Vec<_> = made.iter().map(|artifact| artifact["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["out/run.sh", "out/text"], "no link, no fifo, nothing hidden");
    assert_eq!(made[1]["hash"], blake3::hash(b"made\n").to_hex().as_str());
    assert!(record["status"]["tasks"]["join"].get("artifacts").is_none(), "absent means absent");

    let to = fetch(&cluster, &name, "fetched");
    let text = |path: &str| fs::read_to_string(to.join(path)).unwrap();
    assert_eq!(
        (text("make/out/text"), text("left/left"), text("right/right")),
        ("made\n".into(), "ran\n".into(), "made\n".into())
    );
    assert_ne!(fs::metadata(to.join("make/out/run.sh")).unwrap().permissions().mode() & 0o100, 0);
    let only = cluster.folder().join("only");
    cluster.run(&["artifacts", &name, "--task", "left", "-D", &only.display().to_string()]).expect(0);
    assert!(only.join("left/left").exists() && !only.join("make").exists());
}

#[test]
fn a_crash_of_both_ends_in_the_middle_of_an_upload_loses_nothing() {
    let mut cluster = Cluster::start(&[]);
    cluster.start_agent("a", &[]);
    cluster.repository.write(
        "xene.d/w.yaml",
        "apiVersion: xene/v1\nkind: Workflow\nmetadata: {name: w}\nspec:\n  pipelines:\n    p:\n      tasks:\n        \
         t: {steps: ['head -c 30000000 /dev/urandom > big; cp big again; echo small > small'], artifacts: {save: ['*']}}\n",
    );
    cluster.commit("w");
    cluster.scheduled("w/p");
    let name = cluster.run(&["trigger", "w/p", "--wait"]).expect(0).stdout.trim().to_owned();
    cluster.kill_controller();
    cluster.kill_agent("a");
    cluster.start_controller();
    cluster.restart_agent("a", &[]);
    cluster.kill_agent("a");
    cluster.restart_agent("a", &[]);
    let record = cluster.json(&["get", "runs", &name]);
    assert_eq!(record["status"]["phase"], "Success", "{record:#}");
    let to = fetch(&cluster, &name, "fetched");
    let hash = |path: &Path| blake3::hash(&fs::read(path).unwrap()).to_hex().to_string();
    let artifacts = record["status"]["tasks"]["t"]["artifacts"].as_array().unwrap();
    assert_eq!(artifacts.len(), 3);
    for artifact in artifacts {
        let path = artifact["path"].as_str().unwrap();
        assert_eq!(hash(&to.join("t").join(path)), artifact["hash"].as_str().unwrap(), "{path}");
    }
}
