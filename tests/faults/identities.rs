//! Deaths of the controller beside commits of who an agent is: the token is spent once, and buys what it was spent for,
//! for whoever has the key that it was spent on.

use std::{fs, os::unix::process::ExitStatusExt, path::PathBuf};

use rustix::process::Signal;
use xene_agent::crash;
use xene_test_support::{cluster::Cluster, eventually, process::run};

use crate::tools::FakeClock;

const SAY: &str = r#"
apiVersion: xene/v1
kind: Workflow
metadata: {name: say}
spec: {pipelines: {it: {autonomy: 2s, tasks: {say: {steps: [echo said]}}}}}
"#;

/// Before and after the commits of these.
fn places(of: &[&str]) -> Vec<String> {
    assert!(of.iter().all(|place| crash::OF_IDENTITIES.contains(place)), "{of:?}");
    of.iter().flat_map(|place| [format!("{place}.before_commit"), format!("{place}.after_commit")]).collect()
}

/// A cluster whose controller can be told to die at a place; `None` where the build has no such places.
fn mortal() -> Option<Cluster> {
    if !cfg!(debug_assertions) {
        println!("a release build has no such places");
        return None;
    }
    let mut cluster = Cluster::start(&["--min-autonomy", "2s", "--pause-margin", "1s"]);
    cluster.program = env!("CARGO_BIN_EXE_xene").into();
    Some(cluster)
}

fn is_to_die_at(cluster: &mut Cluster, place: &str) {
    cluster.kill_controller();
    cluster.launch_controller(&[("XENE_CRASH_AT", place)]);
    cluster.controller.as_mut().unwrap().line_after("agents dial ");
}

/// Waits until it has died there.
fn has_died(cluster: &mut Cluster, place: &str) {
    let mut controller = cluster.controller.take().unwrap();
    let status = controller.wait();
    assert_eq!(status.signal(), Some(Signal::ABORT.as_raw()), "{place}: {}", controller.output());
}

/// Waits until it has died there, and starts the next.
fn dies(cluster: &mut Cluster, place: &str) {
    has_died(cluster, place);
    cluster.start_controller();
}

fn is_connected(cluster: &Cluster, name: &str) {
    cluster.until(&format!("{name} is connected"), &["get", "agents", name], |a| a["status"]["phase"] == "Connected");
}

/// With what it has on its disk, in a process that knows nothing else.
fn comes_again(cluster: &mut Cluster, name: &str) {
    cluster.kill_agent(name);
    cluster.restart_agent(name, &[]);
    cluster.run(&["trigger", "say/it", "--wait"]).expect(0);
}

/// Comes and works, and gives back what it has.
fn comes_back(cluster: &mut Cluster, name: &str, flags: &[&str]) {
    cluster.restart_agent(name, flags);
    cluster.run(&["trigger", "say/it", "--wait"]).expect(0);
    cluster.agents.remove(name).unwrap().terminate();
}

fn identity(cluster: &Cluster, name: &str) -> PathBuf {
    cluster.folder().join(format!("agent-{name}/identity"))
}

/// Whoever asks so for a certificate gets a sentence.
#[track_caller]
fn is_refused(cluster: &Cluster, name: &str, token: &str, why: &str) {
    let refused = run(cluster.agent_command(name, &["--token", token]), &[] as &[&str]);
    assert_eq!(refused.code, 5, "{refused:#?}");
    assert!(refused.stderr.contains(why), "{refused:#?}");
}

#[test]
fn a_token_is_spent_by_one_enrolment_though_the_controller_dies_in_it() {
    let Some(mut cluster) = mortal() else { return };
    cluster.repository.write("xene.d/say.yaml", SAY);
    cluster.commit("say");
    for place in &places(&["enrolled", "certified"]) {
        let name = format!("waits-{place}");
        let token = cluster.join_token(&["--uses", "2"]);
        is_to_die_at(&mut cluster, place);
        cluster.launch_agent(&name, &["--token", &token], &[]);
        dies(&mut cluster, place);
        // It asks again by itself.
        is_connected(&cluster, &name);
        let id = token.split('.').nth(2).unwrap();
        let tokens = cluster.json(&["agents", "token", "list"]);
        let row = tokens["items"].as_array().unwrap().iter().find(|row| row["id"] == id);
        assert!(row.is_some_and(|row| row["usesLeft"] == 1), "{place}: {tokens:#}");
        cluster.run(&["trigger", "say/it", "--wait"]).expect(0);
        comes_again(&mut cluster, &name);

        // Once it has come it is not answered again, though it has the token and the key.
        cluster.kill_agent(&name);
        let certificate = identity(&cluster, &name).join("cert.pem");
        let kept = fs::read(&certificate).unwrap();
        fs::remove_file(&certificate).unwrap();
        is_refused(&cluster, &name, &token, &format!("xene agents forget {name}"));
        fs::write(&certificate, kept).unwrap();
        comes_back(&mut cluster, &name, &[]);
    }
}

#[test]
fn who_died_with_the_controller_enrols_by_the_token_that_it_had_and_nobody_else_does() {
    let Some(mut cluster) = mortal() else { return };
    cluster.repository.write("xene.d/say.yaml", SAY);
    cluster.commit("say");
    for place in &places(&["enrolled", "certified"]) {
        let name = format!("dies-{place}");
        let token = cluster.join_token(&[]);
        is_to_die_at(&mut cluster, place);
        cluster.launch_agent(&name, &["--token", &token], &[]);
        has_died(&mut cluster, place);
        cluster.kill_agent(&name);
        cluster.start_controller();
        if place != "enrolled.before_commit" {
            assert_eq!(cluster.json(&["get", "agents", &name])["status"]["phase"], "Disconnected", "{place}");
            is_refused(&cluster, "late", &token, "this join token is not valid");
            // Nor by the name, with another key.
            let (ours, away) = (identity(&cluster, &name), cluster.folder().join("away"));
            fs::rename(&ours, &away).unwrap();
            is_refused(&cluster, &name, &token, "this join token is not valid");
            fs::remove_dir_all(&ours).unwrap();
            fs::rename(&away, &ours).unwrap();
        }
        comes_back(&mut cluster, &name, &["--token", &token]);
        is_refused(&cluster, "late", &token, "this join token is not valid");
    }
}

#[test]
fn whoever_follows_to_a_new_authority_gets_its_certificate_though_the_controller_dies() {
    let Some(mut cluster) = mortal() else { return };
    cluster.repository.write("xene.d/say.yaml", SAY);
    cluster.commit("say");
    for (number, place) in places(&["renewed"]).iter().enumerate() {
        let name = format!("agent-{number}");
        cluster.start_agent(&name, &[]);
        is_to_die_at(&mut cluster, place);
        is_connected(&cluster, &name);
        // Its answer may be lost with the controller.
        drop(cluster.run(&["agents", "rotate-ca"]));
        dies(&mut cluster, place);
        // The status tells what was decided, a moment before it is durable, and events are.
        eventually("it has come by the new authority", || {
            let events = cluster.json(&["get", "events", "--limit", "500"]);
            let all = events["items"].as_array().unwrap();
            let said = |reason: &str| all.iter().filter(|event| event["reason"] == reason).count();
            let both = (said("CaRotated"), said("CaRotationEnded"));
            if both == (number + 1, number + 1) { Ok(()) } else { Err(format!("{place}: {both:?} {events:#}")) }
        });
        let status = cluster.run(&["status"]).expect(0).stdout;
        assert!(!status.lines().any(|line| line.starts_with("authority")), "{place}: {status}");
        is_connected(&cluster, &name);
        comes_again(&mut cluster, &name);
        cluster.agents.remove(&name).unwrap().terminate();
        cluster.run(&["agents", "forget", &name]).expect(0);
    }
}

#[test]
fn whoever_renews_its_certificate_gets_it_though_the_controller_dies() {
    let Some(mut cluster) = mortal() else { return };
    let Some(clock) = FakeClock::new(&cluster.folder().join("clock")) else { return };
    cluster.repository.write("xene.d/say.yaml", SAY);
    cluster.commit("say");
    // By this clock two thirds of a certificate's life are over.
    clock.set("+17h");
    for (number, place) in places(&["renewed"]).iter().enumerate() {
        let name = format!("agent-{number}");
        cluster.start_agent(&name, &[]);
        let file = cluster.folder().join(format!("agent-{name}/identity/cert.pem"));
        let first = fs::read_to_string(&file).unwrap();
        cluster.kill_agent(&name);
        is_to_die_at(&mut cluster, place);
        cluster.launch_agent(&name, &[], &clock.environment());
        dies(&mut cluster, place);
        eventually("it has another certificate", || {
            let now = fs::read_to_string(&file).unwrap();
            if now == first { Err("it has not".into()) } else { Ok(()) }
        });
        is_connected(&cluster, &name);
        // With its clock right again, and the new one.
        comes_again(&mut cluster, &name);
        cluster.agents.remove(&name).unwrap().terminate();
        cluster.run(&["agents", "forget", &name]).expect(0);
    }
}
