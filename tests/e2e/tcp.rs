//! Agents that no UDP reaches: the same over TCP.

use std::{
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use xene_test_support::{
    cluster::Cluster,
    eventually,
    process::{Process, xene},
};

const SHIP: &str = r#"
apiVersion: xene/v1
kind: Workflow
metadata: {name: ship}
spec:
  files: [words]
  pipelines:
    go:
      tasks:
        make: {steps: ["cat words", "seq 200000 > numbers"], artifacts: {save: [numbers]}}
        take: {dependencies: [make], context: other, artifacts: {from: [make]}, steps: ["tail -n 1 numbers"]}
"#;

#[test]
fn a_pipeline_with_files_logs_and_artifacts_runs_over_tcp_and_revoking_ends_the_session() {
    let mut cluster = Cluster::start(&[]);
    cluster.start_agent("a", &["--transport", "tcp"]);
    assert_eq!(cluster.json(&["get", "agents", "a"])["status"]["transport"], "Tcp");
    let wide = cluster.run(&["get", "agents", "-o", "wide"]).expect(0).stdout;
    assert!(wide.contains("TRANSPORT") && wide.contains("Tcp"), "{wide}");
    let described = cluster.run(&["describe", "agent", "a"]).expect(0).stdout;
    assert!(described.contains("Tcp"), "{described}");
    cluster.repository.write("xene.d/ship.yaml", SHIP);
    cluster.repository.write("xene.d/words", "it travelled\n");
    cluster.commit("ship");
    cluster.scheduled("ship/go");
    let run = cluster.run(&["trigger", "ship/go", "--wait"]).expect(0).stdout.trim().to_owned();
    eventually("the log is whole", || {
        let log = cluster.run(&["logs", &run]).stdout;
        if log.contains("it travelled") && log.contains("200000") { Ok(()) } else { Err(log) }
    });
    cluster.until("the artifact is at the controller", &["artifacts", &run, "--list"], |list| {
        list["items"].as_array().is_some_and(|items| items.len() == 1 && items[0]["pending"].is_null())
    });

    // It comes back by itself, and goes on.
    cluster.kill_controller();
    cluster.start_controller();
    cluster.until("a is back", &["get", "agents", "a"], |a| a["status"]["transport"] == "Tcp");
    cluster.run(&["trigger", "ship/go", "--wait"]).expect(0);

    let revoked = Instant::now();
    cluster.run(&["agents", "revoke", "a"]).expect(0);
    // The session has ended. The agent hears why when it comes again, up to five seconds later.
    cluster.agents.get_mut("a").unwrap().line_after("the controller ended the session");
    assert!(revoked.elapsed() < Duration::from_secs(5), "{:?}", revoked.elapsed());
    let status = cluster.agents.get_mut("a").unwrap().wait();
    assert_eq!(status.code(), Some(5));
    let agent = cluster.json(&["get", "agents", "a"]);
    assert_eq!(
        (&agent["status"]["phase"], &agent["status"]["transport"]),
        (&"Revoked".into(), &serde_json::Value::Null)
    );
}

/// Passes TCP alone to `to`; gives where.
fn relay(to: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for from in listener.incoming().flatten() {
            let Ok(to) = TcpStream::connect(to) else { continue };
            for (mut read, mut write) in
                [(from.try_clone().unwrap(), to.try_clone().unwrap()), (to.try_clone().unwrap(), from)]
            {
                thread::spawn(move || {
                    let _ = std::io::copy(&mut read, &mut write);
                    let _ = write.shutdown(Shutdown::Both);
                });
            }
        }
    });
    address
}

#[test]
fn an_agent_that_no_udp_reaches_joins_and_works_by_tcp_without_being_told() {
    let mut cluster = Cluster::start(&[]);
    cluster.start_agent("near", &[]);
    assert_eq!(cluster.json(&["get", "agents", "near"])["status"]["transport"], "Quic");
    let address = relay(cluster.quic().parse().unwrap()).to_string();
    let mut command = xene(cluster.folder());
    command.args(["agent", "--controller", &address, "--name", "far", "--label", "place=far"]);
    command.args(["--token", &cluster.join_token(&[])]).arg("--data-dir").arg(cluster.folder().join("far"));
    cluster.agents.insert("far".into(), Process::spawn("far", command));
    cluster.until("far is connected", &["get", "agents", "far"], |far| far["status"]["transport"] == "Tcp");
    cluster.repository.write(
        "xene.d/far.yaml",
        "apiVersion: xene/v1\nkind: Workflow\nmetadata: {name: far}\nspec:\n  pipelines:\n    go:\n      agents: {labels: {place: \
         far}}\n      tasks: {say: {steps: [echo over there]}}\n",
    );
    cluster.commit("far");
    cluster.scheduled("far/go");
    let run = cluster.run(&["trigger", "far/go", "--wait"]).expect(0).stdout.trim().to_owned();
    assert_eq!(cluster.run(&["logs", &run]).expect(0).stdout, "over there\n");
}
