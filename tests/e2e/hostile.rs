//! Hostile values: what a param, a payload or an output says is never code, whatever it says.

use xene_test_support::{cluster::Cluster, eventually};

/// Each would leave the file `pwned` if any shell ever read it as code.
const VALUES: &[&str] = &[
    "$(touch pwned)",
    "`touch pwned`",
    "; touch pwned #",
    "\"; touch pwned; \"",
    "'; touch pwned; '",
    "a\ntouch pwned\n",
    "main && touch pwned",
    "| touch pwned",
    "${IFS}$(touch${IFS}pwned)",
    "%s%n \\x24(touch pwned) \\",
    "{{ touch pwned }} ${{ pwned }}",
];

/// Takes the value as a param, as part of the payload and as an output, by variable, expression and connector, through
/// a `when`, an instance of a matrix and a shell of each kind; it prints what it got in hex, and whether it was code.
const WORKFLOW: &str = r#"apiVersion: xene/v1
kind: Workflow
metadata: {name: hostile}
spec:
  params: {value: {default: none}}
  triggers: {request: {type: webhook}}
  pipelines:
    take:
      triggers: request
      env:
        PARAM: {param: value}
        PAYLOAD: {expr: "trigger.payload == null ? params.value : trigger.payload.branch"}
      tasks:
        one:
          when: params.value != 'left out'
          steps:
            - run: 'printf "%s" "$PARAM$PAYLOAD" | od -An -v -tx1 | tr -d " \n"; echo; test ! -e pwned || echo CODE'
              shell: bash
            - |
              { echo 'out<<END-OF-VALUE'; printf '%s\n' "$PAYLOAD"; echo END-OF-VALUE; } >> "$XENE_OUTPUT"
        two:
          dependencies: one
          matrix: {kind: [a]}
          env:
            OUT: {output: one.out, default: ""}
            JOINED: {expr: "'<' + tasks.one.outputs.out + '>'"}
          steps:
            - run: [printf, "%s", "$(touch pwned) `touch pwned`"]
            - {run: eval-nothing-here, when: "tasks.one.outputs.out == 'no such value'"}
            - 'printf "%s" "$OUT$JOINED$HANDED" | od -An -v -tx1 | tr -d " \n"; echo; test ! -e pwned || echo CODE'
      connectors:
        - {from: one, to: two, outputs: {HANDED: out}}
"#;

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn no_value_becomes_code() {
    let mut cluster = Cluster::start(&[]);
    cluster.start_agent("one", &[]);
    cluster.repository.write("xene.d/hostile.yaml", WORKFLOW);
    cluster.commit("take anything");
    cluster.scheduled("hostile/take");
    for value in VALUES {
        let given = format!("value={value}");
        let started = cluster.run(&["trigger", "hostile/take", "-p", &given, "--wait"]).expect(0);
        let log = cluster.run(&["logs", started.stdout.trim()]).expect(0).stdout;
        assert!(log.contains(&hex(&format!("{value}{value}"))), "{value:?}: {log}");
        assert!(log.contains(&hex(&format!("{value}<{value}>{value}"))), "{value:?}: {log}");
        assert!(!log.contains("CODE"), "{value:?}: {log}");
    }
    let body = serde_json::json!({"branch": "$(touch pwned)`touch pwned`"}).to_string();
    let mut response = ureq::post(format!("{}/hooks/hostile/triggers/request", cluster.server()))
        .header("authorization", format!("Bearer {}", cluster.token()))
        .send(&body)
        .unwrap();
    let answer: serde_json::Value = response.body_mut().read_json().unwrap();
    let run = answer["run"].as_str().unwrap().to_owned();
    cluster.until("the hook's run ends", &["get", "runs", &run], |run| run["status"]["phase"] == "Success");
    let expected = hex("none$(touch pwned)`touch pwned`");
    eventually("what it got is in the log", || {
        let log = cluster.run(&["logs", &run]).stdout;
        assert!(!log.contains("CODE"), "{log}");
        if log.contains(&expected) { Ok(()) } else { Err(log) }
    });
}
