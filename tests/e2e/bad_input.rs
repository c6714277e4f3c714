//! What is wrong gets one clear sentence with place and hint, the documented exit code, and the rest keeps running.

use std::{
    fs,
    net::{TcpListener, UdpSocket},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
};

use xene_test_support::{
    cluster::Cluster,
    process::{Ended, run, xene},
    repository::Repository,
    within,
};

/// One sentence and perhaps a hint: never a stack trace, a panic, or the debug form of an error.
#[track_caller]
fn assert_clear(ended: &Ended, code: i32, words: &[&str]) {
    assert_eq!(ended.code, code, "{ended:#?}");
    let said = format!("{}{}", ended.stdout, ended.stderr);
    for word in words {
        assert!(said.to_lowercase().contains(&word.to_lowercase()), "{word:?} is missing in: {said}");
    }
    for never in ["panicked", "RUST_BACKTRACE", "Os {", "os error", "Err(", "Error {"] {
        assert!(!said.contains(never), "{never:?} in: {said}");
    }
}

fn workflow(name: &str, rest: &str) -> String {
    format!("apiVersion: xene/v1\nkind: Workflow\nmetadata: {{name: {name}}}\n{rest}")
}

/// Every bad file beside a good one: one place, one sentence; the good one is in effect.
#[test]
fn a_bad_file_costs_only_its_own_objects() {
    let good = workflow("good", "spec: {pipelines: {p: {tasks: {t: {steps: [echo fine]}}}}}\n");
    let bomb = {
        let mut text = String::from("a: &a [x,x,x,x,x,x,x,x,x]\n");
        for (now, before) in "bcdefghi".chars().zip("abcdefgh".chars()) {
            let nine = vec![format!("*{before}"); 9].join(",");
            text.push_str(&[&now.to_string(), ": &", &now.to_string(), " [", &nine, "]\n"].concat());
        }
        text
    };
    let task = |inner: &str| workflow("bad", &format!("spec: {{pipelines: {{p: {{tasks: {{t: {inner}}}}}}}}}\n"));
    let cases: Vec<(&str, Vec<u8>, u64, &str)> = vec![
        ("broken.yaml", b"apiVersion: xene/v1\nkind: [\n".to_vec(), 3, ""),
        ("field.yaml", task("{stepz: [a]}").into(), 4, "stepz"),
        ("type.yaml", task("{steps: 7}").into(), 4, "list"),
        (
            "trigger.yaml",
            workflow("bad", "spec:\n  pipelines:\n    p:\n      triggers: [nightli]\n      tasks: {t: {steps: [a]}}\n").into(),
            7,
            "nightli",
        ),
        ("dependency.yaml", task("{dependencies: [nobody], steps: [a]}").into(), 4, "nobody"),
        (
            "cycle.yaml",
            workflow(
                "bad",
                "spec:\n  pipelines:\n    p:\n      tasks:\n        a: {dependencies: [b], steps: [x]}\n        b: {dependencies: [a], steps: [x]}\n",
            )
            .into(),
            0,
            "a → b → a",
        ),
        (
            "cron.yaml",
            workflow(
                "bad",
                "spec:\n  triggers:\n    t: {type: cron, schedule: \"61 * * * *\"}\n  pipelines: {p: {triggers: t, tasks: {t: {steps: [a]}}}}\n",
            )
            .into(),
            6,
            "minute",
        ),
        ("name.yaml", workflow("\"no/slash\"", "spec: {pipelines: {p: {tasks: {t: {steps: [a]}}}}}\n").into(), 3, "no/slash"),
        ("bomb.yaml", bomb.into(), 0, ""),
        ("large.yaml", vec![b'#'; 10 << 20], 0, "1 MiB"),
        ("latin.yaml", b"apiVersion: xene/v1\nkind: \xe4\n".to_vec(), 2, "UTF-8"),
    ];
    let mut cluster = Cluster::start(&[]);
    cluster.start_agent("a", &[]);
    for (name, bytes, line, word) in &cases {
        cluster.repository.git(&["rm", "-rq", "--cached", "--ignore-unmatch", "."]);
        let _ = fs::remove_dir_all(cluster.repository.folder().join("xene.d"));
        cluster.repository.write("xene.d/good.yaml", &good);
        fs::write(cluster.repository.folder().join("xene.d").join(name), bytes).unwrap();
        cluster.commit(name);
        let source = cluster.json(&["status"]);
        let problems = source["status"]["problems"].as_array().cloned().unwrap_or_default();
        let problem = problems.iter().find(|p| p["path"] == format!("xene.d/{name}").as_str());
        let problem = problem.unwrap_or_else(|| panic!("{name} has no problem: {source:#}"));
        let message = problem["message"].as_str().unwrap();
        let hint = problem["hint"].as_str().unwrap_or_default();
        assert!(format!("{message} {hint}").contains(word), "{name}: {word:?} is missing: {problem:#}");
        if *line > 0 {
            assert_eq!(problem["line"], *line, "{name}: {problem:#}");
        }
        assert!(problem["code"].as_str().unwrap().starts_with("XE"), "{problem:#}");
        assert!(source["status"]["conditions"].to_string().contains("Degraded"), "{source:#}");
        let started = cluster.run(&["trigger", "good/p", "--wait"]);
        assert_eq!(started.code, 0, "{name}: the rest keeps running: {started:?}");

        // The same by `validate`, without a controller.
        let path = cluster.repository.folder().join("xene.d").join(name);
        let checked = run(xene(cluster.folder()), &["validate", path.to_str().unwrap()]);
        assert_clear(&checked, 1, &[name, "XE", word]);
    }
}

/// A controller that keeps its data in `folder` and takes any free port, unless the arguments say otherwise.
fn controller(folder: &Path, source: &str, arguments: &[&str]) -> Command {
    let mut command = xene(folder);
    command.args(["controller", "--source", source]).args(arguments);
    let data = folder.join("data").to_string_lossy().into_owned();
    for (flag, value) in [("--http", "127.0.0.1:0"), ("--quic", "127.0.0.1:0"), ("--data-dir", &data)] {
        if !arguments.contains(&flag) {
            command.args([flag, value]);
        }
    }
    command
}

const NONE: &[&str] = &[];

#[test]
fn a_controller_that_cannot_start_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path();
    let repository = Repository::new(&place.join("repository"));
    repository.commit("first");
    let source = repository.folder().to_str().unwrap();

    let plain = place.join("plain");
    fs::create_dir(&plain).unwrap();
    let not_git = run(controller(place, plain.to_str().unwrap(), &["--mode", "git"]), NONE);
    assert_clear(&not_git, 2, &["plain", "repository"]);
    let absent = run(controller(place, place.join("absent").to_str().unwrap(), &[]), NONE);
    assert_clear(&absent, 2, &["absent"]);

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let port = run(controller(place, source, &["--http", &address]), NONE);
    assert_clear(&port, 2, &[&address, "in use", "--http"]);
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let port = run(controller(place, source, &["--quic", &address]), NONE);
    assert_clear(&port, 2, &[&address, "in use", "--quic"]);

    let file = place.join("file");
    fs::write(&file, "").unwrap();
    let not_a_folder = run(controller(place, source, &["--data-dir", file.to_str().unwrap()]), NONE);
    assert_clear(&not_a_folder, 2, &["file"]);
    assert_clear(&run(controller(place, source, &["--poll", "often"]), NONE), 2, &["often", "30s"]);
    assert_clear(&run(controller(place, source, &["--http", "0.0.0.0:0"]), NONE), 2, &["--insecure-http"]);
    assert_clear(&run(xene(place), &["controller"]), 2, &["--source"]);
}

#[test]
fn a_data_folder_in_use_names_its_holder() {
    let cluster = Cluster::start(&[]);
    let mut second = xene(cluster.folder());
    second.args(["controller", "--http", "127.0.0.1:0", "--quic", "127.0.0.1:0", "--source"]);
    second.arg(cluster.repository.folder()).arg("--data-dir").arg(cluster.data());
    let holder = cluster.controller.as_ref().unwrap().id().to_string();
    assert_clear(&run(second, NONE), 2, &["in use", &holder]);
}

#[test]
fn a_read_only_data_folder_is_named() {
    if rustix::process::getuid().is_root() {
        // Root may write anywhere but below a read-only mount; /proc is one that every machine has.
        let folder = tempfile::tempdir().unwrap();
        let source = Repository::new(&folder.path().join("r"));
        let command = controller(folder.path(), source.folder().to_str().unwrap(), &["--data-dir", "/proc/xene"]);
        assert_clear(&run(command, NONE), 2, &["/proc/xene"]);
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let source = Repository::new(&folder.path().join("r"));
    let data = folder.path().join("locked");
    fs::create_dir(&data).unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o500)).unwrap();
    let command = controller(folder.path(), source.folder().to_str().unwrap(), &["--data-dir", data.to_str().unwrap()]);
    assert_clear(&run(command, NONE), 2, &["locked"]);
}

#[test]
fn a_branch_of_a_plain_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("plain");
    fs::create_dir(&source).unwrap();
    let command = controller(folder.path(), source.to_str().unwrap(), &["--branch", "release"]);
    assert_clear(&run(command, NONE), 2, &["--branch", "not a repository"]);
}

#[test]
fn a_missing_branch_is_waited_for() {
    let cluster = Cluster::start(&["--branch", "release"]);
    cluster.repository.write("xene.d/w.yaml", &workflow("w", "spec: {pipelines: {p: {tasks: {t: {steps: [a]}}}}}\n"));
    cluster.repository.commit("on main");
    cluster.until("the status names it", &["status"], |s| {
        s["status"]["conditions"].to_string().contains("RefMissing") && s.to_string().contains("release")
    });
    cluster.repository.git(&["branch", "release"]);
    cluster.until("it heals by itself", &["get", "workflows"], |w| w["items"][0]["metadata"]["name"] == "w");
}

#[test]
fn tokens_and_absent_controllers_are_told_apart() {
    let cluster = Cluster::start(&[]);
    let mut wrong = xene(cluster.folder());
    wrong.env("XENE_SERVER", cluster.server()).env("XENE_TOKEN", "wrong");
    assert_clear(&run(wrong, &["get", "runs"]), 5, &["token"]);

    let mut nobody = xene(cluster.folder());
    nobody.env("XENE_SERVER", "http://127.0.0.1:1").env("XENE_TOKEN", "x");
    assert_clear(&run(nobody, &["get", "runs"]), 3, &["127.0.0.1:1"]);

    let bad = run(cluster.agent_command("a", &["--token", "nonsense"]), NONE);
    assert_clear(&bad, 2, &["token"]);
    let token = cluster.join_token(&[]);
    let (head, _) = token.rsplit_once('.').unwrap();
    let forged = run(cluster.agent_command("a", &["--token", &format!("{head}.0000000000000000")]), NONE);
    assert_clear(&forged, 5, &["token"]);
    let other = Cluster::start(&[]);
    let mut foreign = xene(cluster.folder());
    foreign.args(["agent", "--controller", other.quic(), "--token", &token, "--name", "a", "--data-dir"]);
    foreign.arg(cluster.folder().join("foreign"));
    assert_clear(&run(foreign, NONE), 5, &["another controller"]);
    let without = run(cluster.agent_command("a", &[]), NONE);
    assert_clear(&without, 2, &["--token"]);
}

#[test]
fn usage_errors_have_a_hint() {
    let folder = tempfile::tempdir().unwrap();
    assert_clear(&run(xene(folder.path()), &["triger"]), 2, &["trigger"]);
    assert_clear(&run(xene(folder.path()), &["get", "nonsense"]), 2, &["workflows"]);
    assert_clear(&run(xene(folder.path()), &["trigger", "no-slash"]), 2, &["WORKFLOW/PIPELINE"]);
    assert_clear(&run(xene(folder.path()), &["validate", "absent.yaml"]), 2, &["absent.yaml"]);
}

#[test]
fn an_agent_waits_for_a_controller_that_is_not_there_yet() {
    let mut cluster = Cluster::start(&[]);
    cluster.start_agent("a", &[]);
    cluster.agents.get_mut("a").unwrap().terminate();
    cluster.kill_controller();
    let mut agent = xene_test_support::process::Process::spawn("a", cluster.agent_command("a", &[]));
    let said = agent.line_after("no session");
    assert!(said.contains(cluster.quic()), "{said}");
    cluster.start_controller();
    within(std::time::Duration::from_secs(60), "it connects", || {
        let agent = cluster.run(&["get", "agents", "a", "-o", "json"]);
        if agent.stdout.contains("\"Connected\"") { Ok(()) } else { Err(format!("{agent:?}")) }
    });
}

#[test]
fn a_rewrite_during_an_absence_is_denied_and_another_branch_is_none() {
    let mut cluster = Cluster::start(&["--rewrites", "deny"]);
    let text =
        |word: &str| workflow("w", &format!("spec: {{pipelines: {{p: {{tasks: {{t: {{steps: [{word}]}}}}}}}}}}\n"));
    // At the root: where no folder is named and none is the default.
    cluster.repository.write("w.yaml", &text("a"));
    let old = cluster.commit("first");
    cluster.kill_controller();
    cluster.repository.write("w.yaml", &text("b"));
    cluster.repository.git(&["add", "w.yaml"]);
    cluster.repository.git(&["commit", "--quiet", "--amend", "-m", "rewritten"]);
    let new = cluster.repository.git(&["rev-parse", "HEAD"]);
    cluster.start_controller();
    let denied = cluster.until("the rewrite is denied", &["status"], |s| {
        s["status"]["conditions"].to_string().contains("HistoryRewritten")
    });
    assert_eq!(denied["status"]["revision"], old.as_str(), "{denied:#}");

    // Whoever follows another branch has not been rewritten by it.
    cluster.kill_controller();
    cluster.repository.git(&["branch", "other"]);
    cluster.flags.extend(["--branch".into(), "other".into()]);
    cluster.start_controller();
    cluster.until("the other branch is in effect", &["status"], |s| s["status"]["revision"] == new.as_str());
}

#[test]
fn with_strict_a_commit_takes_effect_whole_or_not_at_all() {
    let mut cluster = Cluster::start(&["--strict"]);
    let text = |name: &str| workflow(name, "spec: {pipelines: {p: {tasks: {t: {steps: [a]}}}}}\n");
    cluster.repository.write("xene.d/a.yaml", &text("a"));
    let good = cluster.commit("good");
    cluster.repository.write("xene.d/b.yaml", &text("b"));
    cluster.repository.write("xene.d/broken.yaml", "kind: [\n");
    let bad = cluster.repository.commit("bad");
    for round in ["at first", "after a restart"] {
        let source = cluster.until(round, &["status"], |s| s["status"]["seen"] == bad.as_str());
        let status = &source["status"];
        assert_eq!(
            (&status["revision"], &status["attempted"]),
            (&good.as_str().into(), &bad.as_str().into()),
            "{round}"
        );
        assert_eq!(status["problems"][0]["path"], "xene.d/broken.yaml", "{round}");
        let ready = &status["conditions"][0];
        assert_eq!((&ready["status"], &ready["reason"]), (&"False".into(), &"Withheld".into()), "{round}");
        assert_eq!(cluster.json(&["get", "workflows"])["items"].as_array().unwrap().len(), 1, "{round}");
        cluster.kill_controller();
        cluster.start_controller();
    }
    let plan = cluster.json(&["plan", &bad]);
    assert_eq!((&plan["withheld"], &plan["changes"]), (&true.into(), &serde_json::json!([])), "{plan:#}");
    fs::remove_file(cluster.repository.folder().join("xene.d/broken.yaml")).unwrap();
    let mended = cluster.commit("mended");
    cluster.until("all of it", &["get", "workflows"], |w| w["items"].as_array().is_some_and(|all| all.len() == 2));
    let status = cluster.json(&["status"])["status"].clone();
    assert_eq!((&status["revision"], &status["attempted"]), (&mended.as_str().into(), &mended.as_str().into()));
}
