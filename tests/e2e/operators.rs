//! What operators say beside desired state, and what follows from it: suspend, rerun, approve; `after` and groups.

use std::fs;

use serde_json::Value;
use xene_test_support::{cluster::Cluster, eventually};

const CHAIN: &str = r#"
apiVersion: xene/v1
kind: Workflow
metadata: {name: chain}
spec:
  params: {word: {default: one}}
  triggers: {second: {type: cron, schedule: "* * * * * *", catchUp: Skip}}
  pipelines:
    build: {tasks: {say: {steps: ['echo "build $XENE_PARAM_WORD"']}}}
    publish:
      after: build
      tasks: {say: {steps: ['echo "$XENE_TRIGGER publish $XENE_PARAM_WORD"']}}
    tick:
      triggers: second
      tasks: {say: {steps: [echo tick]}}
"#;

fn runs(cluster: &Cluster, pipeline: &str) -> Vec<Value> {
    let list = cluster.json(&["get", "runs", "--pipeline", pipeline, "--limit", "500"]);
    list["items"].as_array().cloned().unwrap_or_default()
}

#[test]
fn one_pipeline_follows_another_also_over_a_restart_of_the_controller() {
    let mut cluster = Cluster::start(&[]);
    cluster.start_agent("one", &[]);
    cluster.repository.write("xene.d/chain.yaml", CHAIN);
    cluster.commit("a chain");
    cluster.scheduled("chain/publish");
    let built = cluster.run(&["trigger", "chain/build", "--wait", "-p", "word=two"]).expect(0).stdout.trim().to_owned();
    let followed = cluster.until("publish ran", &["get", "runs", "--pipeline", "chain/publish"], |list| {
        list["items"][0]["status"]["phase"] == "Success"
    });
    let run = &followed["items"][0];
    assert_eq!(run["spec"]["trigger"]["type"], "after", "{run:#}");
    assert!(run["spec"]["trigger"]["by"].as_str().unwrap_or_default().contains(&built), "{run:#}");
    let log = cluster.run(&["logs", run["metadata"]["name"].as_str().unwrap()]).expect(0).stdout;
    assert_eq!(log, "after publish two\n");

    cluster.kill_controller();
    cluster.start_controller();
    cluster.until("the agent is back", &["get", "agents", "one"], |agent| agent["status"]["phase"] == "Connected");
    assert_eq!(runs(&cluster, "chain/publish").len(), 1, "nothing starts twice");
    let again = cluster.run(&["rerun", &built, "--wait"]).expect(0).stdout.trim().to_owned();
    assert_eq!(cluster.run(&["logs", &again]).expect(0).stdout, "build two\n");
    assert_eq!(cluster.json(&["get", "runs", &again])["spec"]["rerunOf"], built.as_str());
    cluster.until("it is followed too", &["get", "runs", "--pipeline", "chain/publish"], |list| {
        list["items"].as_array().map_or(0, Vec::len) == 2
    });
}

#[test]
fn a_suspended_pipeline_rests_until_it_is_resumed() {
    let mut cluster = Cluster::start(&[]);
    cluster.start_agent("one", &[]);
    cluster.repository.write("xene.d/chain.yaml", CHAIN);
    cluster.repository.write("xene.d/clock.yaml", &CHAIN.replace("name: chain", "name: clock"));
    cluster.commit("a chain, and a clock");
    cluster.until("it ticks", &["get", "runs", "--pipeline", "chain/tick"], |list| list["items"][0].is_object());
    let said = cluster.run(&["suspend", "chain", "--why", "we move"]).expect(0);
    assert_eq!(said.stderr, "workflow/chain is suspended\n");
    let workflow = cluster.json(&["get", "workflows", "chain"]);
    assert_eq!(workflow["status"]["phase"], "Suspended", "{workflow:#}");
    assert_eq!(workflow["status"]["suspension"]["why"], "we move", "{workflow:#}");
    cluster.kill_controller();
    cluster.start_controller();
    cluster.until("the agent is back", &["get", "agents", "one"], |agent| agent["status"]["phase"] == "Connected");
    let described = cluster.run(&["describe", "pipeline", "chain/tick"]).expect(0).stdout;
    assert!(described.contains("we move"), "{described}");
    let refused = cluster.run(&["trigger", "chain/build"]).expect(1);
    assert!(refused.stderr.contains("--force"), "{refused:?}");
    cluster.run(&["trigger", "chain/build", "--force", "--wait"]).expect(0);
    let (before, clock) = (runs(&cluster, "chain/tick").len(), runs(&cluster, "clock/tick").len());
    cluster.until("due times pass", &["get", "runs", "--pipeline", "clock/tick"], |list| {
        list["items"].as_array().map_or(0, Vec::len) > clock + 2
    });
    assert_eq!(runs(&cluster, "chain/tick").len(), before);
    cluster.run(&["resume", "chain"]).expect(0);
    cluster.until("it ticks again", &["get", "runs", "--pipeline", "chain/tick"], |list| {
        list["items"].as_array().map_or(0, Vec::len) > before
    });
    let not = cluster.run(&["resume", "chain"]).expect(1);
    assert!(not.stderr.contains("not suspended by command"), "{not:?}");
}

#[test]
fn a_suspended_source_waits_and_a_blocked_removal_is_approved() {
    let mut cluster = Cluster::start(&[]);
    cluster.start_agent("one", &[]);
    let text = |name: &str| CHAIN.replace("name: chain", &format!("name: {name}"));
    for name in ["a", "b", "c", "d"] {
        cluster.repository.write(&format!("xene.d/{name}.yaml"), &text(name));
    }
    let first = cluster.commit("four");
    cluster.run(&["suspend", "source", "--for", "1h"]).expect(0);
    cluster.repository.git(&["rm", "--quiet", "xene.d/a.yaml", "xene.d/b.yaml", "xene.d/c.yaml"]);
    let second = cluster.repository.commit("remove three");
    let waits = cluster.until("it is seen", &["status"], |source| source["status"]["seen"] == second.as_str());
    assert_eq!(waits["status"]["revision"], first.as_str(), "{waits:#}");
    let told = cluster.run(&["status"]).expect(0).stdout;
    assert!(told.contains("suspended  by admin until "), "{told}");
    cluster.run(&["resume", "source"]).expect(0);
    let blocked =
        cluster.until("it is in effect", &["status"], |source| source["status"]["revision"] == second.as_str());
    assert_eq!(blocked["status"]["workflows"], 4, "{blocked:#}");
    let told = cluster.run(&["status"]).expect(0).stdout;
    assert!(told.contains(&format!("xene approve-prune {second}")), "{told}");
    let wrong = cluster.run(&["approve-prune", &first]).expect(1);
    assert!(wrong.stderr.contains(&second), "{wrong:?}");
    cluster.run(&["approve-prune", &second]).expect(0);
    assert_eq!(cluster.json(&["status"])["status"]["workflows"], 1);
    cluster.repository.git(&["revert", "--no-edit", &second]);
    cluster.until("a revert brings them back", &["status"], |source| source["status"]["workflows"] == 4);
}

#[test]
fn a_default_folder_that_goes_removes_nothing_also_over_a_restart() {
    let mut cluster = Cluster::start(&[]);
    cluster.repository.write("package.json", "{}");
    cluster.repository.write("xene.d/only.yaml", &CHAIN.replace("name: chain", "name: only"));
    let first = cluster.commit("one");
    let looked = cluster.json(&["status"])["status"]["observedAt"].clone();
    cluster.run(&["sync"]).expect(0);
    assert_ne!(cluster.json(&["status"])["status"]["observedAt"], looked, "each look is told");
    cluster.repository.git(&["rm", "-r", "--quiet", "xene.d"]);
    let gone = cluster.repository.commit("remove the folder");
    let is_missing = |source: &Value| {
        let conditions = source["status"]["conditions"].as_array().unwrap();
        let ready = conditions.iter().find(|condition| condition["type"] == "Ready").unwrap();
        ready["reason"] == "PathMissing" && source["status"]["seen"] == gone.as_str()
    };
    cluster.until("it is missing", &["status"], is_missing);
    cluster.kill_controller();
    cluster.start_controller();
    let failed = cluster.run(&["sync"]).expect(1);
    assert!(failed.stderr.contains("no folder xene.d any more"), "{failed:?}");
    let after = cluster.until("it still is", &["status"], is_missing);
    assert_eq!(after["status"]["revision"], first.as_str(), "{after:#}");
    assert_eq!(after["status"]["workflows"], 1, "{after:#}");

    // With the folder, and nothing in it, that is meant.
    cluster.repository.write("xene.d/.xeneignore", "");
    cluster.commit("remove what is in it");
    assert_eq!(cluster.json(&["status"])["status"]["workflows"], 0);
}

#[test]
fn pipelines_of_a_group_run_one_after_another() {
    let mut cluster = Cluster::start(&[]);
    cluster.start_agent("one", &[]);
    cluster.start_agent("two", &[]);
    let file = cluster.folder().join("order");
    for name in ["a", "b"] {
        let text = format!(
            r#"
apiVersion: xene/v1
kind: Workflow
metadata: {{name: {name}}}
spec:
  pipelines:
    p:
      concurrency: {{group: shared}}
      tasks: {{t: {{steps: ['echo begin >> {0}; sleep 0.2; echo end >> {0}']}}}}
"#,
            file.display()
        );
        cluster.repository.write(&format!("xene.d/{name}.yaml"), &text);
    }
    cluster.commit("a group");
    let agent = cluster.scheduled("a/p")["status"]["agent"].clone();
    assert_eq!(cluster.scheduled("b/p")["status"]["agent"], agent, "together");
    for pipeline in ["a/p", "b/p", "a/p"] {
        cluster.run(&["trigger", pipeline]).expect(0);
    }
    let order = eventually("all have run", || {
        let text = fs::read_to_string(&file).unwrap_or_default();
        if text.lines().count() == 6 { Ok(text) } else { Err(text) }
    });
    assert_eq!(order, "begin\nend\n".repeat(3), "never two at once");
}

const SHIP: &str = r#"
apiVersion: xene/v1
kind: Workflow
metadata: {name: ship}
spec:
  pipelines:
    it:
      tasks:
        build: {steps: [echo built]}
        deploy: {steps: [echo deployed]}
      connectors:
        - {from: build, to: deploy, approval: {message: Ship it to everyone?}}
"#;

#[test]
fn a_task_waits_for_consent_over_a_restart_of_the_controller() {
    let mut cluster = Cluster::start(&[]);
    cluster.start_agent("one", &[]);
    cluster.repository.write("xene.d/ship.yaml", SHIP);
    cluster.commit("ship");
    cluster.scheduled("ship/it");
    let start = || cluster.run(&["trigger", "ship/it"]).expect(0).stdout.trim().to_owned();
    let (wanted, unwanted) = (start(), start());
    let waits = |cluster: &Cluster, run: &str| {
        cluster.until("deploy waits", &["get", "runs", run], |run| {
            run["status"]["tasks"]["deploy"]["reason"] == "WaitingForApproval"
        });
    };
    let ends = |cluster: &Cluster, run: &str| {
        cluster.until("it ends", &["get", "runs", run], |run| run["status"]["finishedAt"].is_string())
    };
    waits(&cluster, &wanted);
    let shown = cluster.run(&["describe", "run", &wanted]).expect(0).stdout;
    assert!(shown.contains("Ship it to everyone?"), "{shown}");
    let early = cluster.run(&["approve", &wanted, "build"]).expect(1);
    assert!(early.stderr.contains("build"), "{early:?}");
    cluster.run(&["approve", &wanted, "nothing"]).expect(4);
    cluster.run(&["approve", "00000000000000000000000000", "deploy"]).expect(4);

    cluster.kill_controller();
    cluster.start_controller();
    cluster.until("the agent is back", &["get", "agents", "one"], |agent| agent["status"]["phase"] == "Connected");
    cluster.run(&["approve", &wanted, "deploy"]).expect(0);
    let ended = ends(&cluster, &wanted);
    assert_eq!(ended["status"]["phase"], "Success", "{ended:#}");
    assert_eq!(cluster.run(&["logs", &wanted, "--task", "deploy"]).expect(0).stdout, "deployed\n");

    // The second held its turn in the queue; now it asks, and is refused.
    waits(&cluster, &unwanted);
    cluster.run(&["approve", &unwanted, "deploy", "--reject"]).expect(0);
    let ended = ends(&cluster, &unwanted);
    assert_eq!(ended["status"]["tasks"]["deploy"]["phase"], "NotExecuted", "{ended:#}");
    assert_eq!(ended["status"]["tasks"]["deploy"]["reason"], "Rejected", "{ended:#}");
    assert_eq!(
        (&ended["status"]["phase"], &ended["status"]["reason"]),
        (&"Error".into(), &"Rejected".into()),
        "{ended:#}"
    );
    let late = cluster.run(&["approve", &unwanted, "deploy"]).expect(1);
    assert!(late.stderr.contains("ended"), "{late:?}");
}

#[test]
fn only_what_failed_is_run_again() {
    let mut cluster = Cluster::start(&[]);
    cluster.start_agent("one", &[]);
    let mended = cluster.folder().join("mended");
    let text = format!(
        r#"
apiVersion: xene/v1
kind: Workflow
metadata: {{name: chain}}
spec:
  pipelines:
    it:
      tasks:
        build:
          outputs: [word]
          steps: ['echo building; echo word=$XENE_RUN_ID >> "$XENE_OUTPUT"']
        check:
          dependencies: build
          env: {{WORD: {{output: build.word}}}}
          steps: ['test -e {}; echo "checked $WORD"']
"#,
        mended.display()
    );
    cluster.repository.write("xene.d/chain.yaml", &text);
    cluster.commit("chain");
    cluster.scheduled("chain/it");
    let failed = cluster.run(&["trigger", "chain/it", "--wait"]).expect(1).stdout.trim().to_owned();
    fs::write(&mended, "").unwrap();
    let again = cluster.run(&["rerun", &failed, "--failed", "--wait"]).expect(0).stdout.trim().to_owned();
    let run = cluster.json(&["get", "runs", &again]);
    assert_eq!(run["status"]["tasks"]["build"]["reason"], "Reused", "{run:#}");
    assert_eq!(cluster.run(&["logs", &again]).expect(0).stdout, format!("checked {failed}\n"));
}
