//! Tokens, roles, signed webhooks and the audit log, as people and git servers meet them.

use ring::hmac;
use serde_json::Value;
use xene_test_support::{
    cluster::Cluster,
    process::{Ended, run, xene},
};

const HOOKED: &str = r#"
apiVersion: xene/v1
kind: Workflow
metadata: {name: hooked}
spec:
  params: {commit: {default: none}}
  triggers:
    push:
      type: webhook
      auth: {type: github, secret: hooks/push}
      when: payload.ref == "refs/heads/main"
      params: {commit: payload.after}
  pipelines:
    build:
      triggers: push
      tasks: {say: {steps: ['echo "built $XENE_PARAM_COMMIT"', 'test -z "$XENE_PAYLOAD" || wc -c < "$XENE_PAYLOAD"']}}
"#;

/// Runs a command with a token of its own.
fn with(cluster: &Cluster, token: &str, arguments: &[&str]) -> Ended {
    let mut command = xene(cluster.folder());
    command.env("XENE_SERVER", cluster.server()).env("XENE_TOKEN", token);
    run(command, arguments)
}

fn post(cluster: &Cluster, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, Value) {
    let agent = ureq::Agent::new_with_config(ureq::config::Config::builder().http_status_as_error(false).build());
    let mut request = agent.post(format!("{}{path}", cluster.server()));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut response = request.send(body).unwrap();
    (response.status().as_u16(), response.body_mut().read_json().unwrap_or_default())
}

#[test]
fn a_token_may_what_its_role_and_scope_allow_and_all_is_on_record() {
    let folder = tempfile::tempdir().unwrap();
    let audit = folder.path().join("audit.jsonl");
    let mut cluster = Cluster::start(&["--audit-log", audit.to_str().unwrap(), "--metrics-public"]);
    cluster.start_agent("one", &[]);
    cluster.repository.write("xene.d/hooked.yaml", HOOKED);
    cluster.repository.write("xene.d/other.yaml", &HOOKED.replace("name: hooked", "name: other"));
    cluster.commit("two workflows");
    cluster.scheduled("hooked/build");
    cluster.scheduled("other/build");
    let token = |arguments: &[&str]| {
        let all = [&["token", "create"], arguments].concat();
        cluster.run(&all).expect(0).stdout.trim().to_owned()
    };
    let viewer = token(&["eye", "--role", "viewer", "--ttl", "1h"]);
    let operator = token(&["team", "--role", "operator", "--scope", "hooked"]);

    with(&cluster, &viewer, &["get", "runs"]).expect(0);
    let refused = with(&cluster, &viewer, &["trigger", "hooked/build"]).expect(5);
    assert!(refused.stderr.contains("needs the role operator"), "{refused:?}");
    with(&cluster, &viewer, &["token", "list"]).expect(5);
    with(&cluster, "xene-api.0.0", &["get", "runs"]).expect(5);

    let started = with(&cluster, &operator, &["trigger", "hooked/build", "--wait"]).expect(0).stdout;
    with(&cluster, &operator, &["trigger", "other/build"]).expect(4);
    with(&cluster, &operator, &["get", "workflows", "other"]).expect(4);
    assert_eq!(with(&cluster, &operator, &["get", "workflows", "-o", "name"]).expect(0).stdout, "workflow/hooked\n");
    with(&cluster, &operator, &["suspend", "source"]).expect(5);
    let run = cluster.json(&["get", "runs", started.trim()]);
    assert_eq!(run["spec"]["trigger"]["by"], "team");
    let events = cluster.json(&["get", "events"]);
    let requested = events["items"].as_array().unwrap().iter().find(|event| event["reason"] == "RunRequested").unwrap();
    assert_eq!(requested["message"], "of hooked/build, by team");

    // Also after a restart: what was said is durable.
    cluster.kill_controller();
    cluster.start_controller();
    with(&cluster, &operator, &["get", "runs"]).expect(0);
    cluster.run(&["token", "revoke", "team"]).expect(0);
    with(&cluster, &operator, &["get", "runs"]).expect(5);
    let list = cluster.run(&["token", "list"]).expect(0).stdout;
    assert!(list.contains("eye") && !list.contains("team"), "{list}");

    let lines = std::fs::read_to_string(&audit).unwrap();
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let has = |actor: Option<&str>, path: &str, status: u64| {
        lines.iter().any(|line| line["actor"].as_str() == actor && line["path"] == path && line["status"] == status)
    };
    assert!(has(Some("admin"), "/api/v1/tokens", 201) && has(Some("team"), "/api/v1/runs", 201), "{lines:#?}");
    assert!(has(Some("eye"), "/api/v1/runs", 403) && has(None, "/api/v1/runs", 401), "{lines:#?}");
    assert!(lines.iter().all(|line| line["address"].as_str().unwrap().starts_with("127.")), "{lines:#?}");

    let metrics = ureq::get(format!("{}/metrics", cluster.server())).call().unwrap().into_body().read_to_string();
    let metrics = metrics.unwrap();
    assert!(metrics.contains("xene_pipelines{phase=\"Scheduled\"} 2\n"), "{metrics}");
    assert!(metrics.contains("xene_agents{phase=") && metrics.ends_with("# EOF\n"), "{metrics}");
}

#[test]
fn a_signed_push_builds_its_commit_once_also_over_a_restart() {
    let mut cluster = Cluster::start(&[]);
    cluster.start_agent("one", &[]);
    cluster.repository.write("xene.d/hooked.yaml", HOOKED);
    cluster.commit("a workflow");
    cluster.scheduled("hooked/build");
    let hook = cluster.json(&["get", "pipelines", "hooked/build"])["status"]["webhooks"][0].clone();
    assert_eq!((&hook["trigger"], &hook["auth"]), (&"push".into(), &"github".into()), "{hook:#}");
    let (path, secret) = (hook["path"].as_str().unwrap(), hook["secret"].as_str().unwrap());
    let body = r#"{"ref": "refs/heads/main", "after": "59b20b8d; $(touch /tmp/pwned)"}"#;
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let sign = |body: &str| {
        let tag = hmac::sign(&key, body.as_bytes());
        "sha256=".to_owned() + &tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let signature = sign(body);
    let headers = [("x-github-event", "push"), ("x-github-delivery", "d-1"), ("x-hub-signature-256", &*signature)];
    let (status, answer) = post(&cluster, path, &headers, body);
    assert_eq!(status, 202, "{answer}");
    let run = answer["run"].as_str().unwrap().to_owned();
    cluster.until("it is built", &["get", "runs", &run], |run| run["status"]["phase"] == "Success");
    let log = cluster.run(&["logs", &run]).expect(0).stdout;
    assert_eq!(log.split_whitespace().last(), Some(&*body.len().to_string()), "{log}");
    assert!(log.starts_with("built 59b20b8d; $(touch /tmp/pwned)\n"), "{log}");

    cluster.kill_controller();
    cluster.start_controller();
    assert_eq!(post(&cluster, path, &headers, body), (202, answer), "the same delivery is the same run");
    let forged = [("x-github-event", "push"), ("x-github-delivery", "d-2"), ("x-hub-signature-256", &*signature)];
    let unknown = post(&cluster, "/hooks/hooked/triggers/nonesuch", &forged, body);
    assert_eq!(unknown.0, 401);
    assert_eq!(post(&cluster, path, &forged, &body.replace("main", "evil")), unknown, "told alike");
    let other = r#"{"ref": "refs/heads/other"}"#;
    let signature = sign(other);
    let filtered = post(&cluster, path, &[("x-hub-signature-256", &*signature)], other);
    assert_eq!((filtered.0, &filtered.1["reason"]), (202, &"Filtered".into()));
    assert_eq!(cluster.json(&["get", "runs"])["items"].as_array().unwrap().len(), 1);
}
