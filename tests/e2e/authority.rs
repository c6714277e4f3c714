//! The certificate authority is replaced under agents that work.

use serde_json::Value;
use xene_test_support::{cluster::Cluster, process::Process};

const SAY: &str = r#"
apiVersion: xene/v1
kind: Workflow
metadata: {name: say}
spec:
  pipelines:
    it:
      tasks: {say: {steps: [echo said]}}
"#;

fn agent_has_session(cluster: &Cluster, name: &str) {
    cluster.until(&format!("{name} is connected"), &["get", "agents", name], |agent| {
        agent["status"]["phase"] == "Connected"
    });
}

#[test]
fn agents_follow_to_a_new_authority_over_restarts_and_who_was_away_joins_anew() {
    let mut cluster = Cluster::start(&[]);
    cluster.start_agent("a", &[]);
    cluster.start_agent("b", &["--transport", "tcp"]);
    cluster.start_agent("c", &[]);
    cluster.kill_agent("c");
    cluster.repository.write("xene.d/say.yaml", SAY);
    cluster.commit("say");
    cluster.scheduled("say/it");
    let refused = cluster.run(&["agents", "rotate-ca", "--finish"]);
    assert!(refused.code == 1 && refused.stderr.contains("no certificate authority is being replaced"), "{refused:#?}");

    let rotated = cluster.run(&["agents", "rotate-ca"]).expect(0);
    assert!(rotated.stderr.contains("both authorities are trusted until"), "{rotated:#?}");
    let again = cluster.run(&["agents", "rotate-ca"]);
    assert!(again.code == 1 && again.stderr.contains("being replaced already"), "{again:#?}");
    let waits = |cluster: &Cluster| {
        cluster.run(&["status"]).expect(0).stdout.lines().find(|line| line.starts_with("authority")).map(str::to_owned)
    };
    xene_test_support::eventually("a and b have come by the new one", || match waits(&cluster) {
        Some(line) if line.ends_with(": c") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    cluster.kill_controller();
    cluster.start_controller();
    assert!(waits(&cluster).is_some_and(|line| line.ends_with(": c")), "{:?}", waits(&cluster));
    agent_has_session(&cluster, "a");
    agent_has_session(&cluster, "b");
    cluster.start_agent("d", &[]);
    cluster.run(&["trigger", "say/it", "--wait"]).expect(0);

    let finished = cluster.run(&["agents", "rotate-ca", "--finish"]).expect(0);
    assert!(finished.stderr.contains("the new authority alone is trusted"), "{finished:#?}");
    assert_eq!(waits(&cluster), None);
    let events = cluster.json(&["get", "events", "--limit", "500"]);
    let said = |reason: &str| events["items"].as_array().unwrap().iter().any(|event: &Value| event["reason"] == reason);
    assert!(said("CaRotated") && said("CaRotationEnded"), "{events:#}");
    let mut away = Process::spawn("c", cluster.agent_command("c", &[]));
    away.line_after("an authority that this one has replaced since");
    drop(away);
    std::fs::remove_dir_all(cluster.folder().join("agent-c/identity")).unwrap();
    // Its journal is still there, and its name is free once a person says so.
    let token = cluster.join_token(&[]);
    let mut taken = Process::spawn("c", cluster.agent_command("c", &["--token", &token]));
    assert_ne!(taken.wait().code(), Some(0), "{}", taken.output());
    assert!(taken.output().contains("name"), "{}", taken.output());
    cluster.run(&["agents", "forget", "c"]).expect(0);
    cluster.start_agent("c", &[]);
    for agent in ["a", "b", "d"] {
        cluster.run(&["agents", "drain", agent]).expect(0);
    }
    cluster.until("c has the pipeline", &["get", "pipelines", "say/it"], |pipeline| pipeline["status"]["agent"] == "c");
    cluster.run(&["trigger", "say/it", "--wait"]).expect(0);
    for agent in ["a", "b", "d"] {
        cluster.run(&["agents", "undrain", agent]).expect(0);
    }
    cluster.start_agent("c2", &[]);

    cluster.kill_controller();
    cluster.start_controller();
    for agent in ["a", "b", "c", "d", "c2"] {
        agent_has_session(&cluster, agent);
    }
    cluster.run(&["trigger", "say/it", "--wait"]).expect(0);
}
