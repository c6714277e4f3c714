//! Repositories behind real servers.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};

use xene_agent::clock;
use xene_schemas::meta::Revision;

use super::{
    kit::{DEADLINE, Live, Repo, Told, git, paths},
    servers::{git_daemon, keygen, redirecting, silent, smart_http, sshd},
};
use crate::{
    decide::desired::SourceHealth,
    source::{Credentials, Password, Reason, Rewrites, Source, SourceConfig, SourceError},
};

/// A work tree and the bare repository it is pushed to, which a server shows as `/flows.git`.
struct Published {
    work: Repo,
    root: PathBuf,
}

impl Published {
    fn new() -> Self {
        let work = Repo::new();
        let root = work.beside("served");
        fs::create_dir(&root).unwrap();
        git(&root, &["init", "-q", "--bare", "-b", "main", "flows.git"]);
        Self { work, root }
    }

    fn bare(&self) -> PathBuf {
        self.root.join("flows.git")
    }

    fn push(&self, path: &str, text: &str) -> String {
        let commit = self.work.commit(path, text);
        self.work.git(&["push", "-q", "--force", self.bare().to_str().unwrap(), "HEAD:main"]);
        commit
    }

    /// Asked for only when somebody says so.
    fn config(&self, url: &str) -> SourceConfig {
        SourceConfig {
            poll: Duration::from_secs(3600),
            timeout: Duration::from_secs(10),
            ..SourceConfig::new(url, self.work.beside("mirrors"))
        }
    }

    fn mirror(&self) -> PathBuf {
        fs::read_dir(self.work.beside("mirrors")).unwrap().next().unwrap().unwrap().path()
    }
}

#[test]
fn git_daemon_is_followed() {
    let published = Published::new();
    published.work.write("xene.d/b.yaml", "b: 1\n");
    let first = published.push("xene.d/a.yaml", "a: 1\n");
    let server = git_daemon(&published.root);
    let url = format!("git://{}/flows.git", server.address);
    let live = Live::start(SourceConfig { branch: Some("main".to_owned()), ..published.config(&url) });
    assert_eq!(paths(&live.snapshot(&first)), ["xene.d/a.yaml", "xene.d/b.yaml"]);
    let second = published.push("xene.d/a.yaml", "a: 2\n");
    assert_eq!(live.handle.sync_blocking().unwrap().0, second);
    let snapshot = live.snapshot(&second);
    assert_eq!(snapshot.files["xene.d/b.yaml"].bytes, None);
    assert_eq!(snapshot.files["xene.d/a.yaml"].bytes.as_deref(), Some(b"a: 2\n".as_slice()));
}

#[test]
fn commits_that_were_never_the_newest_are_told() {
    let published = Published::new();
    let first = published.push("a.yaml", "a: 1\n");
    let server = git_daemon(&published.root);
    let live = Live::start(published.config(&format!("git://{}/flows.git", server.address)));
    live.healthy(&first);
    let skipped: Vec<_> = (0..12).map(|n| Revision(published.work.commit("a.yaml", &format!("b: {n}\n")))).collect();
    let newest = published.push("a.yaml", "a: 2\n");
    assert_eq!(live.handle.sync_blocking().unwrap().0, newest);
    let told = live.until("superseded", |told| {
        told.health.iter().find(|health| matches!(health, SourceHealth::Superseded { .. })).cloned()
    });
    let expected = SourceHealth::Superseded { count: 12, commits: skipped[2..].to_vec(), by: Revision(newest) };
    assert_eq!(told, expected);
    assert_eq!(live.told(|told| told.snapshots.len()), 2);
    // The next alone supersedes nothing.
    published.push("a.yaml", "a: 3\n");
    live.handle.sync_blocking().unwrap();
    live.told(|told| {
        let all = told.health.iter().filter(|health| matches!(health, SourceHealth::Superseded { .. }));
        assert_eq!(all.count(), 1);
    });
}

#[test]
fn a_reread_brings_all_bytes_again() {
    let published = Published::new();
    let first = published.push("a.yaml", "a: 1\n");
    let server = git_daemon(&published.root);
    let live = Live::start(published.config(&format!("git://{}/flows.git", server.address)));
    live.healthy(&first);
    live.handle.reread();
    live.handle.sync_blocking().unwrap();
    live.told(|told| {
        assert_eq!(told.snapshots.len(), 2);
        assert_eq!(told.snapshots[0], told.snapshots[1]);
    });
    live.handle.sync_blocking().unwrap();
    assert_eq!(live.told(|told| told.snapshots.len()), 2, "once");
}

#[test]
fn poll_notices_by_itself() {
    let published = Published::new();
    let first = published.push("a.yaml", "a: 1\n");
    let server = git_daemon(&published.root);
    let url = format!("git://{}/flows.git", server.address);
    let live = Live::start(SourceConfig { poll: Duration::from_millis(300), ..published.config(&url) });
    live.healthy(&first);
    live.healthy(&published.push("a.yaml", "a: 2\n"));
}

#[test]
fn force_push_moves_and_deleted_branch_is_missing() {
    let published = Published::new();
    let base = published.push("a.yaml", "a: 1\n");
    let old = published.push("a.yaml", "a: 2\n");
    let server = git_daemon(&published.root);
    let url = format!("git://{}/flows.git", server.address);
    let live = Live::start(SourceConfig { branch: Some("main".to_owned()), ..published.config(&url) });
    live.healthy(&old);
    published.work.git(&["reset", "-q", "--hard", &base]);
    let new = published.push("a.yaml", "a: 3\n");
    assert_eq!(live.handle.sync_blocking().unwrap().0, new);
    live.until("rewritten", |told| {
        told.health.iter().any(|health| matches!(health, SourceHealth::Rewritten { .. })).then_some(())
    });
    git(&published.bare(), &["branch", "-m", "main", "trunk"]);
    let failure = live.handle.sync_blocking().unwrap_err();
    assert_eq!(failure.reason, Reason::RefMissing);
    assert!(failure.message.contains("no branch main") && failure.message.contains("it has trunk"), "{failure}");
    git(&published.bare(), &["branch", "-m", "trunk", "main"]);
    assert_eq!(live.handle.sync_blocking().unwrap().0, new);
}

#[test]
fn denied_rewrite_of_a_remote_keeps_the_last_state() {
    let published = Published::new();
    let base = published.push("a.yaml", "a: 1\n");
    let old = published.push("a.yaml", "a: 2\n");
    let server = git_daemon(&published.root);
    let url = format!("git://{}/flows.git", server.address);
    let live = Live::start(SourceConfig { rewrites: Rewrites::Deny, ..published.config(&url) });
    live.healthy(&old);
    published.work.git(&["reset", "-q", "--hard", &base]);
    published.push("a.yaml", "a: 3\n");
    assert_eq!(live.handle.sync_blocking().unwrap_err().reason, Reason::HistoryRewritten);
    assert_eq!(live.told(|told| told.snapshots.len()), 1);
}

#[test]
fn empty_remote_heals_with_its_first_commit() {
    let published = Published::new();
    let server = git_daemon(&published.root);
    let url = format!("git://{}/flows.git", server.address);
    let live = Live::start(published.config(&url));
    live.failure("Empty");
    let first = published.push("a.yaml", "a: 1\n");
    assert_eq!(live.handle.sync_blocking().unwrap().0, first);
}

#[test]
fn unreachable_server_keeps_the_last_state_and_heals_by_itself() {
    let published = Published::new();
    let first = published.push("a.yaml", "a: 1\n");
    let server = git_daemon(&published.root);
    let url = format!("git://{}/flows.git", server.address);
    let live = Live::start(published.config(&url));
    live.healthy(&first);
    let moved = published.root.with_extension("away");
    fs::rename(&published.root, &moved).unwrap();
    assert_eq!(live.handle.sync_blocking().unwrap_err().reason, Reason::Unreachable);
    live.failure("Unreachable");
    fs::rename(&moved, &published.root).unwrap();
    // Poll is an hour away: this is the back-off.
    live.healthy(&first);
    assert_eq!(live.told(|told| told.snapshots.len()), 1);
}

#[test]
fn stale_source_says_so_once() {
    let published = Published::new();
    let url = "git://127.0.0.1:1/flows.git";
    let live = Live::start(SourceConfig { stale_after: Duration::from_millis(500), ..published.config(url) });
    live.until("it is stale", |told| stale(told));
    let message = live.failure("Unreachable");
    assert!(message.contains("errno=Connection refused"), "the cause is told: {message}");
    let count = live.told(|told| told.health.len());
    assert_eq!(live.handle.sync_blocking().unwrap_err().reason, Reason::Unreachable);
    assert_eq!((count, live.told(|told| told.health.len())), (2, 2));
}

#[test]
fn staleness_is_told_in_time_however_long_the_wait_is() {
    let published = Published::new();
    let password = Some(Password::File(published.work.beside("absent")));
    let credentials = Credentials { password, ..Credentials::default() };
    let stale_after = Duration::from_millis(500);
    // Refused credentials are tried again after five minutes.
    let live =
        Live::start(SourceConfig { stale_after, credentials, ..published.config("http://127.0.0.1:1/flows.git") });
    live.failure("AuthFailed");
    live.until("it is stale", |told| stale(told));
}

/// The source has told that it is stale.
fn stale(told: &Told) -> Option<()> {
    told.health.iter().any(|health| matches!(health, SourceHealth::Failed { stale: true, .. })).then_some(())
}

#[test]
fn silent_server_times_out_and_stop_does_not_wait_for_it() {
    let published = Published::new();
    let server = silent();
    for scheme in ["git", "http"] {
        let url = format!("{scheme}://{}/flows.git", server.address);
        let live = Live::start(SourceConfig { timeout: Duration::from_secs(1), ..published.config(&url) });
        let message = live.failure("Unreachable");
        assert!(message.contains("sent nothing for 1 s"), "{message}");
    }
    let url = format!("git://{}/flows.git", server.address);
    let began = clock::now().boot;
    let before = server.requests.load(Ordering::Acquire);
    let live = Live::start(SourceConfig { timeout: DEADLINE * 2, ..published.config(&url) });
    while server.requests.load(Ordering::Acquire) == before {
        std::thread::yield_now();
    }
    live.handle.stop();
    assert!(clock::now().boot.since(began) < DEADLINE);
}

#[test]
fn damaged_mirror_and_stale_lock_are_made_anew() {
    let published = Published::new();
    let first = published.push("a.yaml", "a: 1\n");
    let server = git_daemon(&published.root);
    let url = format!("git://{}/flows.git", server.address);
    let live = Live::start(SourceConfig { branch: Some("main".to_owned()), ..published.config(&url) });
    live.healthy(&first);
    let mirror = published.mirror();
    fs::write(mirror.join("refs/xene/heads/main.lock"), "").unwrap();
    let second = published.push("a.yaml", "a: 2\n");
    assert_eq!(live.handle.sync_blocking().unwrap().0, second);
    fs::remove_dir_all(mirror.join("objects")).unwrap();
    fs::create_dir(mirror.join("objects")).unwrap();
    let third = published.push("a.yaml", "a: 3\n");
    assert_eq!(live.handle.sync_blocking().unwrap().0, third);
    fs::write(mirror.join("HEAD"), "nonsense").unwrap();
    let fourth = published.push("a.yaml", "a: 4\n");
    assert_eq!(live.handle.sync_blocking().unwrap().0, fourth);
    fs::remove_dir_all(&mirror).unwrap();
    let fifth = published.push("a.yaml", "a: 5\n");
    assert_eq!(live.handle.sync_blocking().unwrap().0, fifth);
    assert_eq!(live.told(|told| told.snapshots.len()), 5);
    assert_eq!(fs::read_dir(mirror.parent().unwrap()).unwrap().count(), 1);
}

#[test]
fn truncated_objects_of_the_mirror_heal() {
    let published = Published::new();
    let first = published.push("a.yaml", "a: 1\n");
    let server = git_daemon(&published.root);
    let url = format!("git://{}/flows.git", server.address);
    drop({
        let live = Live::start(published.config(&url));
        live.healthy(&first);
        live
    });
    let mut truncated = 0;
    for entry in ignore::WalkBuilder::new(published.mirror().join("objects")).standard_filters(false).build() {
        let path = entry.unwrap().into_path();
        if path.is_file() {
            fs::remove_file(&path).unwrap();
            fs::write(&path, "").unwrap();
            truncated += 1;
        }
    }
    assert!(truncated > 0);
    let live = Live::start(published.config(&url));
    live.healthy(&first);
}

#[test]
fn announced_commit_is_awaited() {
    let published = Published::new();
    let first = published.push("a.yaml", "a: 1\n");
    let server = git_daemon(&published.root);
    let live = Live::start(published.config(&format!("git://{}/flows.git", server.address)));
    live.healthy(&first);
    let second = published.work.commit("a.yaml", "a: 2\n");
    live.handle.announce(Some(second.clone()));
    live.handle.sync_blocking().unwrap();
    published.work.git(&["push", "-q", published.bare().to_str().unwrap(), "HEAD:main"]);
    live.healthy(&second);
}

#[test]
fn smart_http_with_basic_auth_reads_credentials_anew() {
    let published = Published::new();
    let first = published.push("a.yaml", "a: 1\n");
    let secret = Arc::new(Mutex::new("bot:s3cret with spaces'\"$x".to_owned()));
    let server = smart_http(&published.root, secret.clone());
    let url = format!("http://{}/flows.git", server.address);
    let file = published.work.beside("token");
    fs::write(&file, "s3cret with spaces'\"$x\n").unwrap();
    let credentials = Credentials {
        username: Some("bot".to_owned()),
        password: Some(Password::File(file.clone())),
        ..Credentials::default()
    };
    let live = Live::start(SourceConfig { credentials, ..published.config(&url) });
    live.healthy(&first);
    *secret.lock().unwrap() = "bot:rotated".to_owned();
    let failure = live.handle.sync_blocking().unwrap_err();
    assert_eq!(failure.reason, Reason::AuthFailed, "{failure}");
    fs::write(&file, "rotated\n").unwrap();
    let second = published.push("a.yaml", "a: 2\n");
    assert_eq!(live.handle.sync_blocking().unwrap().0, second);
    fs::remove_file(&file).unwrap();
    let failure = live.handle.sync_blocking().unwrap_err();
    assert!(failure.message.contains("the password file"), "{failure}");
}

#[test]
fn password_of_a_url_works_and_is_never_shown() {
    let published = Published::new();
    let first = published.push("a.yaml", "a: 1\n");
    let secret = Arc::new(Mutex::new("bot:hunter2".to_owned()));
    let server = smart_http(&published.root, secret.clone());
    let url = format!("http://bot:hunter2@{}/flows.git", server.address);
    let source = Source::open(published.config(&url)).unwrap();
    assert_eq!(source.url(), format!("http://{}/flows.git", server.address));
    let live = Live::spawn(source, crate::source::Resume::default());
    live.healthy(&first);
    *secret.lock().unwrap() = "bot:other".to_owned();
    live.handle.sync_blocking().unwrap_err();
    let all = live.told(|told| format!("{told:?}"));
    assert!(all.contains("AuthFailed") && !all.contains("hunter2"), "{all}");
    for entry in ignore::WalkBuilder::new(published.mirror()).standard_filters(false).build() {
        let path = entry.unwrap().into_path();
        assert!(!fs::read(&path).is_ok_and(|bytes| bytes.windows(7).any(|window| window == b"hunter2")), "{path:?}");
    }
}

#[test]
fn redirects_are_not_followed_and_get_no_credentials() {
    let published = Published::new();
    published.push("a.yaml", "a: 1\n");
    let target = smart_http(&published.root, Arc::new(Mutex::new("bot:hunter2".to_owned())));
    let server = redirecting(format!("http://{}", target.address));
    let url = format!("http://bot:hunter2@{}/flows.git", server.address);
    let live = Live::start(published.config(&url));
    assert_eq!(live.handle.sync_blocking().unwrap_err().reason, Reason::Unreachable);
    assert_eq!(target.requests.load(Ordering::Acquire), 0);
}

#[test]
fn ssh_checks_host_and_key() {
    let published = Published::new();
    let first = published.push("a.yaml", "a: 1\n");
    let keys = published.work.beside("keys of ours");
    fs::create_dir(&keys).unwrap();
    let Some(server) = sshd(&keys) else {
        eprintln!("there is no /usr/sbin/sshd on this machine: ssh was NOT tested");
        return;
    };
    let user = std::process::Command::new("id").arg("-un").output().unwrap().stdout;
    let user = String::from_utf8(user).unwrap();
    let url = format!("ssh://{}@127.0.0.1:{}{}", user.trim(), server.address.port(), published.bare().display());
    let look = |key: &Path, known_hosts: &Path| {
        let credentials = Credentials {
            ssh_key: Some(key.to_owned()),
            known_hosts: Some(known_hosts.to_owned()),
            ..Credentials::default()
        };
        let live = Live::start(SourceConfig { credentials, ..published.config(&url) });
        live.handle.sync_blocking()
    };
    let (key, known) = (keys.join("user"), keys.join("known_hosts"));
    assert_eq!(look(&key, &known).unwrap().0, first);
    let wrong_host = keys.join("wrong_known_hosts");
    keygen(&keys.join("other"));
    let other = fs::read_to_string(keys.join("other.pub")).unwrap();
    fs::write(&wrong_host, format!("[127.0.0.1]:{} {other}", server.address.port())).unwrap();
    let failure = look(&key, &wrong_host).unwrap_err();
    assert_eq!(failure.reason, Reason::AuthFailed);
    assert!(failure.message.contains("is not the server that is known"), "{failure}");
    fs::write(&wrong_host, "").unwrap();
    assert!(look(&key, &wrong_host).unwrap_err().message.contains("host key"));
    let failure = look(&keys.join("other"), &known).unwrap_err();
    assert!(failure.message.contains("refuses the SSH key"), "{failure}");
    let failure = look(&keys.join("absent"), &known).unwrap_err();
    assert!(failure.message.contains("the SSH key"), "{failure}");
}

/// Where this is set, this process is the one that has the agent in its environment.
const BY_AGENT: &str = "TEST_SOURCE_BY_AGENT";

#[test]
#[expect(clippy::disallowed_methods, reason = "the test starts itself again, with another environment")]
fn ssh_agent_is_asked_where_no_key_is_named() {
    let published = Published::new();
    if let Ok(place) = std::env::var(BY_AGENT) {
        let (known_hosts, url) = place.split_once('\n').unwrap();
        let credentials = Credentials { known_hosts: Some(known_hosts.into()), ..Credentials::default() };
        let live = Live::start(SourceConfig { credentials, ..published.config(url) });
        println!("found {}", live.handle.sync_blocking().unwrap());
        return;
    }
    let first = published.push("a.yaml", "a: 1\n");
    let keys = published.work.beside("keys");
    fs::create_dir(&keys).unwrap();
    let (Some(server), true) = (sshd(&keys), Path::new("/usr/bin/ssh-agent").exists()) else {
        eprintln!("there is no sshd or no ssh-agent on this machine: ssh-agent was NOT tested");
        return;
    };
    let socket = keys.join("agent");
    let agent = std::process::Command::new("ssh-agent").arg("-D").arg("-a").arg(&socket).stdout(Stdio::null()).spawn();
    let mut agent = agent.unwrap();
    let added = || {
        let mut add = std::process::Command::new("ssh-add");
        add.arg("-q").arg(keys.join("user")).env("SSH_AUTH_SOCK", &socket).stderr(Stdio::null());
        add.status().unwrap().success()
    };
    let deadline = clock::now().boot + DEADLINE;
    while !added() {
        assert!(clock::now().boot < deadline, "the agent takes no key");
    }
    let user = std::process::Command::new("id").arg("-un").output().unwrap().stdout;
    let user = String::from_utf8(user).unwrap();
    let url = format!("ssh://{}@127.0.0.1:{}{}", user.trim(), server.address.port(), published.bare().display());
    let look = |agent: Option<&Path>| {
        // The environment of this process is shared by all tests.
        let mut look = std::process::Command::new(std::env::current_exe().unwrap());
        look.args(["--exact", "source::tests::remote::ssh_agent_is_asked_where_no_key_is_named", "--nocapture"]);
        look.env(BY_AGENT, format!("{}\n{url}", keys.join("known_hosts").display())).env_remove("SSH_AUTH_SOCK");
        look.envs(agent.map(|socket| ("SSH_AUTH_SOCK", socket))).env("HOME", &keys);
        look.output().unwrap()
    };
    let (with, without) = (look(Some(&socket)), look(None));
    agent.kill().unwrap();
    agent.wait().unwrap();
    let out = String::from_utf8_lossy(&with.stdout);
    assert!(out.contains(&format!("found {first}")), "{out}{}", String::from_utf8_lossy(&with.stderr));
    let errors = String::from_utf8_lossy(&without.stderr) + String::from_utf8_lossy(&without.stdout);
    assert!(!without.status.success() && errors.contains("refuses the SSH key"), "{errors}");
}

#[test]
fn file_urls_are_opened_directly_and_bad_urls_refused() {
    let published = Published::new();
    let first = published.push("a.yaml", "a: 1\n");
    let live = Live::start(published.config(&format!("file://{}", published.bare().display())));
    live.healthy(&first);
    live.healthy(&published.push("a.yaml", "a: 2\n"));
    assert!(!published.work.beside("mirrors").exists());
    for url in ["ssh://-oProxyCommand=x/y", "ext::sh -c x", "--upload-pack=x", "ftp://u:pw@host/x"] {
        let error = Source::open(published.config(url)).unwrap_err();
        assert!(matches!(error, SourceError::Url { .. }) && !error.to_string().contains("pw"), "{error}");
    }
}
