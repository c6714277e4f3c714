//! Repositories of this machine.

use std::os::unix::{ffi::OsStringExt, fs::symlink};

use super::kit::{Live, Repo, config, git, paths, problems, try_git};
use crate::{
    decide::desired::SourceHealth,
    source::{Known, Mode, Resume, Rewrites, Source, SourceConfig, SourceError},
};

#[test]
fn commit_is_noticed_and_only_changed_files_carry_bytes() {
    let repo = Repo::new();
    repo.write("xene.d/b.yml", "b: 1\n");
    repo.write("elsewhere.yaml", "not: read\n");
    let first = repo.commit("xene.d/a.yaml", "a: 1\n");
    let live = Live::start(repo.config());
    let snapshot = live.snapshot(&first);
    assert_eq!(paths(&snapshot), ["xene.d/a.yaml", "xene.d/b.yml"]);
    assert_eq!(snapshot.files["xene.d/a.yaml"].bytes.as_deref(), Some(b"a: 1\n".as_slice()));
    assert_eq!(snapshot.author.as_deref(), Some("Ada <ada@example.invalid>"));
    assert_eq!(snapshot.subject.as_deref(), Some("Change xene.d/a.yaml"));
    assert!(snapshot.complete);

    let second = repo.commit("xene.d/a.yaml", "a: 2\n");
    let snapshot = live.snapshot(&second);
    assert_eq!(snapshot.files["xene.d/a.yaml"].bytes.as_deref(), Some(b"a: 2\n".as_slice()));
    assert_eq!(snapshot.files["xene.d/b.yml"].bytes, None);
    assert_eq!(live.healthy(&second), 0);

    let third = {
        repo.git(&["rm", "-q", "xene.d/b.yml"]);
        repo.git(&["commit", "-q", "-m", "Remove b"]);
        repo.head()
    };
    assert_eq!(paths(&live.snapshot(&third)), ["xene.d/a.yaml"]);
}

#[test]
fn packed_refs_and_gc_and_slashed_branches_are_followed() {
    let repo = Repo::new();
    repo.commit("a.yaml", "a: 1\n");
    repo.git(&["switch", "-q", "-c", "team/flows"]);
    let first = repo.commit("a.yaml", "a: 2\n");
    repo.git(&["pack-refs", "--all", "--prune"]);
    let live = Live::start(SourceConfig { branch: Some("team/flows".to_owned()), ..repo.config() });
    live.snapshot(&first);
    let second = repo.commit("a.yaml", "a: 3\n");
    live.snapshot(&second);
    repo.git(&["gc", "-q", "--prune=now"]);
    let third = repo.commit("a.yaml", "a: 4\n");
    live.snapshot(&third);
    repo.git(&["update-ref", "refs/heads/team/flows", &second, &third]);
    repo.git(&["pack-refs", "--all"]);
    live.until("going back", |told| (told.snapshots.last().unwrap().revision.0 == second).then_some(()));
}

#[test]
fn uncommitted_edits_do_not_exist_but_are_counted() {
    let repo = Repo::new();
    let first = repo.commit("xene.d/a.yaml", "a: 1\n");
    repo.write("xene.d/a.yaml", "a: dirty\n");
    repo.write("xene.d/new.yaml", "new: 1\n");
    repo.write("xene.d/staged.yaml", "staged: 1\n");
    repo.git(&["add", "xene.d/staged.yaml"]);
    repo.write("xene.d/notes.txt", "no\n");
    let live = Live::start(repo.config());
    let snapshot = live.snapshot(&first);
    assert_eq!(paths(&snapshot), ["xene.d/a.yaml"]);
    assert_eq!(snapshot.files["xene.d/a.yaml"].bytes.as_deref(), Some(b"a: 1\n".as_slice()));
    assert_eq!(live.healthy(&first), 3);
    repo.git(&["checkout", "-q", "xene.d/a.yaml"]);
    live.handle.sync_blocking().unwrap();
    live.until("two dirty files", |told| {
        matches!(told.health.last(), Some(SourceHealth::Observed { dirty: 2, .. })).then_some(())
    });
    assert_eq!(live.told(|told| told.snapshots.len()), 1);
}

#[test]
fn nothing_is_written_to_the_repository() {
    let repo = Repo::new();
    let first = repo.commit("xene.d/a.yaml", "a: 1\n");
    // A touched file makes `git status` refresh the index; ours must not.
    repo.write("xene.d/a.yaml", "a: 1\n");
    let listing = || {
        let mut found: Vec<_> = ignore::WalkBuilder::new(&repo.path)
            .standard_filters(false)
            .build()
            .map(|entry| {
                let entry = entry.unwrap();
                let metadata = entry.metadata().unwrap();
                (entry.path().to_owned(), metadata.modified().unwrap(), metadata.len())
            })
            .collect();
        found.sort();
        found
    };
    let before = listing();
    let live = Live::start(repo.config());
    live.healthy(&first);
    live.handle.sync_blocking().unwrap();
    drop(live);
    assert_eq!(before, listing());
}

#[test]
fn empty_repository_heals_with_its_first_commit() {
    let repo = Repo::new();
    let live = Live::start(repo.config());
    assert!(live.failure("Empty").contains("has no commit yet"));
    let first = repo.commit("a.yaml", "a: 1\n");
    live.snapshot(&first);
    live.healthy(&first);
}

#[test]
fn missing_branch_and_path_keep_the_last_state_and_heal() {
    let repo = Repo::new();
    repo.commit("ops/a.yaml", "a: 1\n");
    repo.git(&["branch", "live"]);
    let first = repo.head();
    let live =
        Live::start(SourceConfig { branch: Some("live".to_owned()), path: Some("./ops/".to_owned()), ..repo.config() });
    live.snapshot(&first);
    repo.git(&["branch", "-D", "live"]);
    let message = live.failure("RefMissing");
    assert!(message.contains("no branch live") && message.contains("it has main"), "{message}");
    repo.git(&["branch", "live", &first]);
    live.healthy(&first);
    repo.git(&["switch", "-q", "live"]);
    repo.git(&["mv", "ops", "moved"]);
    repo.git(&["commit", "-q", "-m", "Move"]);
    assert!(live.failure("PathMissing").contains("no folder ops"));
    assert_eq!(live.told(|told| told.snapshots.len()), 1);
    repo.git(&["revert", "--no-edit", "HEAD"]);
    let healed = repo.head();
    live.healthy(&healed);
}

#[test]
fn repository_that_vanishes_and_comes_back_is_opened_anew() {
    let repo = Repo::new();
    let first = repo.commit("a.yaml", "a: 1\n");
    let live = Live::start(repo.config());
    live.healthy(&first);
    let aside = repo.beside("aside");
    std::fs::rename(&repo.path, &aside).unwrap();
    let failure = live.handle.sync_blocking().unwrap_err();
    assert_eq!(failure.reason.to_string(), "PathMissing");
    git(&aside, &["clone", "-q", ".", repo.path.to_str().unwrap()]);
    live.handle.sync_blocking().unwrap();
    let second = repo.commit("a.yaml", "a: 2\n");
    live.snapshot(&second);
}

#[test]
fn force_push_is_told_and_applies() {
    let repo = Repo::new();
    let base = repo.commit("a.yaml", "a: 1\n");
    let old = repo.commit("a.yaml", "a: 2\n");
    let live = Live::start(repo.config());
    live.healthy(&old);
    repo.git(&["reset", "-q", "--hard", &base]);
    let new = repo.commit("a.yaml", "a: 3\n");
    live.snapshot(&new);
    live.until("rewritten", |told| {
        told.health.iter().find_map(|health| match health {
            SourceHealth::Rewritten { from, to } if from.0 == old => Some(to.0.clone()),
            _ => None,
        })
    });
}

#[test]
fn denied_rewrite_keeps_the_last_state_until_a_descendant() {
    let repo = Repo::new();
    let base = repo.commit("a.yaml", "a: 1\n");
    let old = repo.commit("a.yaml", "a: 2\n");
    let live = Live::start(SourceConfig { rewrites: Rewrites::Deny, ..repo.config() });
    live.healthy(&old);
    repo.git(&["reset", "-q", "--hard", &base]);
    let new = repo.commit("a.yaml", "a: 3\n");
    assert!(live.failure("HistoryRewritten").contains("--rewrites allow"));
    repo.git(&["reset", "-q", "--hard", &old]);
    let good = repo.commit("a.yaml", "a: 4\n");
    live.healthy(&good);
    assert!(!live.told(|told| told.snapshots.iter().any(|snapshot| snapshot.revision.0 == new)));
}

#[test]
fn a_branch_that_takes_no_effect_yet_is_another_branch_all_the_same() {
    let repo = Repo::new();
    let workflow = "apiVersion: xene/v1\nkind: Workflow\nmetadata: {name: a}\n\
                    spec: {pipelines: {p: {tasks: {t: {steps: [\"true\"]}}}}}\n";
    let first = repo.commit("xene.d/a.yaml", workflow);
    let live = Live::start(SourceConfig { rewrites: Rewrites::Deny, ..repo.config() });
    live.healthy(&first);
    repo.git(&["checkout", "-q", "--orphan", "other"]);
    repo.git(&["rm", "-rqf", "."]);
    repo.commit("README", "nothing yet\n");
    live.failure("PathMissing");
    live.handle.sync_blocking().unwrap_err();
    let good = repo.commit("xene.d/a.yaml", workflow);
    live.healthy(&good);
}

#[test]
fn denied_amendment_is_seen_and_told_once() {
    let repo = Repo::new();
    repo.commit("a.yaml", "a: 1\n");
    let live = Live::start(SourceConfig { rewrites: Rewrites::Deny, ..repo.config() });
    let second = repo.commit("a.yaml", "a: 2\n");
    live.healthy(&second);
    repo.git(&["commit", "-q", "--amend", "-m", "Another"]);
    let amended = repo.head();
    live.failure("HistoryRewritten");
    live.handle.sync_blocking().unwrap_err();
    live.told(|told| {
        let seen = told.looked.last().map(|revision| revision.0.as_str());
        assert_eq!(seen, Some(amended.as_str()));
        let rewritten = |health: &&SourceHealth| matches!(health, SourceHealth::Rewritten { .. });
        assert_eq!(told.health.iter().filter(rewritten).count(), 0, "the failure tells it");
        let failed = |health: &&SourceHealth| matches!(health, SourceHealth::Failed { .. });
        assert_eq!(told.health.iter().filter(failed).count(), 1);
    });
}

#[test]
fn every_look_is_told_and_a_commit_before_it_is_handed_over() {
    let repo = Repo::new();
    let first = repo.commit("a.yaml", "a: 1\n");
    let live = Live::start(repo.config());
    live.healthy(&first);
    let (looked, health) = live.told(|told| (told.looked.len(), told.health.len()));
    live.handle.sync_blocking().unwrap();
    live.told(|told| assert_eq!((told.looked.len() > looked, told.health.len()), (true, health)));
    live.told(|told| told.refuse = 1);
    let second = repo.commit("a.yaml", "a: 2\n");
    live.until("the commit is seen though it can't be applied", |told| {
        let seen = told.looked.iter().any(|seen| seen.0 == second);
        let failed = |health: &SourceHealth| matches!(health, SourceHealth::Failed { .. });
        (seen && told.health.iter().any(failed)).then_some(())
    });
    live.healthy(&second);
}

#[test]
fn default_folder_that_goes_is_missing_unless_the_root_has_a_workflow() {
    let workflow = |name: &str| {
        format!(
            "apiVersion: xene/v1\nkind: Workflow\nmetadata: {{name: {name}}}\n\
             spec: {{pipelines: {{p: {{tasks: {{t: {{steps: [\"true\"]}}}}}}}}}}\n"
        )
    };
    let repo = Repo::new();
    repo.write("package.json", "{}");
    let first = repo.commit("xene.d/a.yaml", &workflow("a"));
    let live = Live::start(repo.config());
    let known = live.snapshot(&first).known();
    live.healthy(&first);
    repo.git(&["rm", "-rq", "xene.d"]);
    repo.git(&["commit", "-q", "-m", "Remove it"]);
    let message = live.failure("PathMissing");
    assert!(message.contains("no folder xene.d any more") && message.contains(".xeneignore"), "{message}");
    drop(live);
    let resume = Resume {
        revision: Some(xene_schemas::meta::Revision(first.clone())),
        known: known.clone(),
        folder: Some("xene.d".to_owned()),
    };
    let live = Live::spawn(Source::open(repo.config()).unwrap(), resume);
    live.failure("PathMissing");
    assert_eq!(live.told(|told| told.snapshots.len()), 0, "also after a restart");
    let moved = repo.commit("a.yaml", &workflow("a"));
    live.healthy(&moved);
    assert_eq!(live.snapshot(&moved).folder, "");
    // Whoever names the root means it.
    repo.git(&["rm", "-q", "a.yaml"]);
    repo.git(&["commit", "-q", "-m", "Remove it, too"]);
    let resume =
        Resume { revision: Some(xene_schemas::meta::Revision(first)), known, folder: Some("xene.d".to_owned()) };
    let named =
        Live::spawn(Source::open(SourceConfig { path: Some(".".to_owned()), ..repo.config() }).unwrap(), resume);
    named.healthy(&repo.head());
}

#[test]
fn commit_is_found_although_nothing_can_be_watched() {
    let repo = Repo::new();
    let first = repo.commit("a.yaml", "a: 1\n");
    let mut source = Source::open(repo.config()).unwrap();
    source.start_watcher = |_, _| Err(notify::Error::new(notify::ErrorKind::MaxFilesWatch));
    let live = Live::spawn(source, Resume::default());
    live.snapshot(&first);
    live.until("the limit is told", |told| {
        let limit = |health: &SourceHealth| matches!(health, SourceHealth::Degraded(limit) if !limit.is_empty());
        told.health.iter().any(limit).then_some(())
    });
    let second = repo.commit("a.yaml", "a: 2\n");
    live.snapshot(&second);
}

#[test]
fn rewrite_during_an_absence_is_noticed() {
    let repo = Repo::new();
    let base = repo.commit("a.yaml", "a: 1\n");
    let old = repo.commit("a.yaml", "a: 2\n");
    repo.git(&["reset", "-q", "--hard", &base]);
    let new = repo.commit("a.yaml", "a: 3\n");
    let resume = Resume { revision: Some(xene_schemas::meta::Revision(old)), ..Resume::default() };
    let live = Live::spawn(Source::open(repo.config()).unwrap(), resume);
    live.snapshot(&new);
    live.until("rewritten", |told| {
        told.health.iter().any(|health| matches!(health, SourceHealth::Rewritten { .. })).then_some(())
    });
}

#[test]
fn stopped_rebase_and_locks_do_not_disturb() {
    let repo = Repo::new();
    repo.commit("a.yaml", "a: 1\n");
    repo.git(&["switch", "-q", "-c", "topic"]);
    let topic = repo.commit("a.yaml", "a: topic\n");
    repo.git(&["switch", "-q", "main"]);
    repo.commit("a.yaml", "a: main\n");
    repo.git(&["switch", "-q", "topic"]);
    let live = Live::start(repo.config());
    live.healthy(&topic);
    let (done, ..) = try_git(&repo.path, &["rebase", "main"]);
    assert!(!done, "the rebase must stop");
    std::fs::write(repo.path.join(".git/index.lock"), "").unwrap();
    assert_eq!(live.handle.sync_blocking().unwrap().0, topic);
    std::fs::remove_file(repo.path.join(".git/index.lock")).unwrap();
    repo.git(&["rebase", "--abort"]);
    assert_eq!(live.handle.sync_blocking().unwrap().0, topic);
    live.told(|told| {
        assert_eq!(told.snapshots.len(), 1);
        assert!(told.health.iter().all(|health| matches!(health, SourceHealth::Observed { .. })), "{:?}", told.health);
    });
}

#[test]
fn switch_of_the_work_tree_is_followed_without_a_rewrite() {
    let repo = Repo::new();
    let main = repo.commit("a.yaml", "a: 1\n");
    repo.git(&["switch", "-q", "--orphan", "other"]);
    let other = repo.commit("a.yaml", "a: 2\n");
    repo.git(&["switch", "-q", "main"]);
    let live = Live::start(repo.config());
    live.healthy(&main);
    repo.git(&["switch", "-q", "other"]);
    live.healthy(&other);
    assert!(!live.told(|told| told.health.iter().any(|health| matches!(health, SourceHealth::Rewritten { .. }))));
    repo.git(&["switch", "-q", "--detach"]);
    assert!(live.failure("RefMissing").contains("--branch"));
}

#[test]
fn bare_repositories_and_linked_work_trees_are_watched() {
    let repo = Repo::new();
    let first = repo.commit("a.yaml", "a: 1\n");
    let bare = repo.beside("bare.git");
    repo.git(&["clone", "-q", "--bare", ".", bare.to_str().unwrap()]);
    let linked = repo.beside("linked");
    repo.git(&["worktree", "add", "-q", "-b", "linked", linked.to_str().unwrap()]);
    let (by_bare, by_link) = (Live::start(config(&bare)), Live::start(config(&linked)));
    by_bare.healthy(&first);
    by_link.healthy(&first);
    let second = repo.commit("a.yaml", "a: 2\n");
    repo.git(&["push", "-q", bare.to_str().unwrap(), "main"]);
    by_bare.snapshot(&second);
    std::fs::write(linked.join("a.yaml"), "a: linked\n").unwrap();
    git(&linked, &["commit", "-q", "-am", "Change"]);
    by_link.snapshot(&git(&linked, &["rev-parse", "HEAD"]));
}

#[test]
fn newest_commit_wins_and_failed_applications_do_not_delay_their_fix() {
    let repo = Repo::new();
    repo.write("same.yaml", "same: 1\n");
    let first = repo.commit("a.yaml", "a: 1\n");
    let live = Live::start(repo.config());
    live.healthy(&first);
    live.told(|told| told.refuse = 1);
    repo.commit("a.yaml", "a: 2\n");
    // The retry may have mended it by the time that this thread looks.
    let message = live.until("ApplyFailed", |told| {
        told.health.iter().find_map(|health| match health {
            SourceHealth::Failed { reason, message, .. } if reason == "ApplyFailed" => Some(message.clone()),
            _ => None,
        })
    });
    assert!(message.contains("the disk is full"));
    let retried = live.until("another try", |told| told.snapshots.get(1).cloned());
    assert!(retried.files["same.yaml"].bytes.is_some(), "whoever failed is given all of it");
    let fix = repo.commit("a.yaml", "a: 3\n");
    live.healthy(&fix);
    for n in 4..20 {
        repo.commit("a.yaml", &format!("a: {n}\n"));
    }
    live.healthy(&repo.head());
    assert_eq!(live.told(|told| told.snapshots.last().unwrap().revision.0.clone()), repo.head());
}

#[test]
fn links_submodules_and_pointers_never_bring_outside_content() {
    let repo = Repo::new();
    repo.write("shared/real.yaml", "real: 1\n");
    repo.write("secret-beside.yaml", "x: 1\n");
    repo.write("xene.d/lfs.yaml", "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n");
    repo.write("xene.d/large.json", &format!("\"{}\"", "x".repeat(1 << 20)));
    repo.write("xene.d/ignored/x.yaml", "x: 1\n");
    repo.write("xene.d/.xeneignore", "ignored/\n");
    repo.write("xene.d/.hidden/x.yaml", "x: 1\n");
    for (link, target) in [
        ("inside.yaml", "../shared/real.yaml"),
        ("chain.yaml", "inside.yaml"),
        ("outside.yaml", "../../beside.yaml"),
        ("absolute.yaml", "/etc/passwd"),
        ("circle.yaml", "circle.yaml"),
        ("dangling.yaml", "nothing.yaml"),
    ] {
        symlink(target, repo.path.join("xene.d").join(link)).unwrap();
    }
    std::fs::write(repo.beside("beside.yaml"), "outside: 1\n").unwrap();
    repo.git(&["add", "-A"]);
    let name = std::ffi::OsString::from_vec(b"xene.d/\xff.yaml".to_vec());
    std::fs::write(repo.path.join(name), "x: 1\n").unwrap();
    repo.git(&["add", "xene.d"]);
    let commit = "0123456789012345678901234567890123456789";
    repo.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{commit},xene.d/module")]);
    repo.git(&["commit", "-q", "-m", "Everything"]);
    let live = Live::start(repo.config());
    let snapshot = live.snapshot(&repo.head());
    assert_eq!(paths(&snapshot), ["xene.d/chain.yaml", "xene.d/inside.yaml"]);
    assert_eq!(snapshot.files["xene.d/chain.yaml"].bytes.as_deref(), Some(b"real: 1\n".as_slice()));
    assert!(!snapshot.complete);
    assert_eq!(
        problems(&snapshot),
        [
            ("XE0902", "xene.d/absolute.yaml"),
            ("XE0902", "xene.d/circle.yaml"),
            ("XE0902", "xene.d/dangling.yaml"),
            ("XE0901", "xene.d/large.json"),
            ("XE0903", "xene.d/lfs.yaml"),
            ("XE0904", "xene.d/module"),
            ("XE0902", "xene.d/outside.yaml"),
            ("XE0905", "xene.d/\u{fffd}.yaml"),
        ]
    );
}

#[test]
fn mistakes_are_one_clear_sentence() {
    let repo = Repo::new();
    repo.commit("ops/a.yaml", "a: 1\n");
    let open = |config| Source::open(config).unwrap_err();
    let absent = repo.beside("absent");
    assert_eq!(open(config(&absent)), SourceError::PathMissing(absent.clone()));
    assert!(matches!(open(config(&repo.path.join("ops/a.yaml"))), SourceError::NotFolder(_)));
    let git_mode = |path: &std::path::Path| SourceConfig { mode: Mode::Git, ..config(path) };
    let plain = repo.beside("plain");
    std::fs::create_dir(&plain).unwrap();
    assert!(matches!(open(git_mode(&plain)), SourceError::NotRepository(_)));
    let inner = open(git_mode(&repo.path.join("ops"))).to_string();
    assert!(inner.ends_with(&format!("use --source {} --path ops", repo.path.display())), "{inner}");
    let sha256 = repo.beside("sha256");
    git(&plain, &["init", "-q", "--object-format=sha256", sha256.to_str().unwrap()]);
    let text = open(config(&sha256)).to_string();
    assert!(text.contains("is a SHA-256 repository, which is not supported"), "{text}");
    let reftable = repo.beside("reftable");
    git(&plain, &["init", "-q", "--ref-format=reftable", reftable.to_str().unwrap()]);
    let text = open(config(&reftable)).to_string();
    assert!(text.contains("is a reftable repository, which is not supported"), "{text}");
    for (unsupported, name) in [(&sha256, "from sha256"), (&reftable, "from reftable")] {
        let add = [&["add", "."][..], &["commit", "-q", "-m", "Add it"], &["tag", "-a", "-m", "It", "v1"]];
        std::fs::write(unsupported.join("a.yaml"), "a: 1\n").unwrap();
        add.iter().for_each(|args| drop(git(unsupported, args)));
        let text = open(config(unsupported)).to_string();
        let copy = repo.beside(name);
        let remedy = text.split('`').nth(1).unwrap().replace("COPY", &format!("'{}'", copy.display()));
        let run = std::process::Command::new("sh").args(["-c", &remedy]).env("GIT_CONFIG_GLOBAL", "/dev/null").output();
        let run = run.unwrap();
        assert!(run.status.success(), "{remedy}: {}", String::from_utf8_lossy(&run.stderr));
        let snapshot = Source::open(config(&copy)).unwrap().read(Known::default()).unwrap();
        assert_eq!(paths(&snapshot), ["a.yaml"]);
    }
    for branch in ["-x", "a..b", "a b", ""] {
        let config = SourceConfig { branch: Some(branch.to_owned()), ..repo.config() };
        assert_eq!(open(config), SourceError::Branch(branch.to_owned()));
    }
    for path in ["../x", "/x", "a/../../x"] {
        let config = SourceConfig { path: Some(path.to_owned()), ..repo.config() };
        assert_eq!(open(config), SourceError::Path(path.to_owned()));
    }
}

#[test]
fn foreign_owner_is_told_with_the_exact_remedy() {
    let repo = Repo::new();
    repo.commit("a.yaml", "a: 1\n");
    if !rustix::process::geteuid().is_root() {
        eprintln!("not root: a repository of another owner can't be made here");
        return;
    }
    let (done, _, error) = try_git(&repo.path, &["--version"]);
    assert!(done, "{error}");
    let status = std::process::Command::new("chown").args(["-R", "12345"]).arg(&repo.path).status().unwrap();
    assert!(status.success());
    let text = Source::open(repo.config()).unwrap_err().to_string();
    assert!(
        text.ends_with(&format!("run `git config --global --add safe.directory {}`", repo.path.display())),
        "{text}"
    );
}

#[test]
fn stop_answers_those_who_wait() {
    let repo = Repo::new();
    repo.commit("a.yaml", "a: 1\n");
    let live = Live::start(repo.config());
    live.handle.sync_blocking().unwrap();
    live.handle.stop();
    assert_eq!(live.handle.sync_blocking().unwrap_err().reason.to_string(), "Stopped");
}

#[test]
fn one_change_among_ten_thousand_files_reads_one_blob() {
    let repo = Repo::new();
    for n in 0..10_000 {
        repo.write(&format!("xene.d/{:02}/{n}.yaml", n % 100), &format!("n: {n}\n"));
    }
    let first = repo.commit("xene.d/.xeneignore", "*.json\n");
    let mut git = crate::source::git::GitReader::open(&repo.path, None, None).unwrap();
    let snapshot = git.read(git2::Oid::from_str(&first).unwrap(), &Default::default()).unwrap();
    assert_eq!(snapshot.files.len(), 10_000);
    let known = snapshot.known();
    let second = repo.commit("xene.d/07/7.yaml", "n: changed\n");
    let began = xene_agent::clock::now().boot;
    let snapshot = git.read(git2::Oid::from_str(&second).unwrap(), &known).unwrap();
    let took = xene_agent::clock::now().boot.since(began);
    eprintln!("read 1 of 10,000 in {took:?}");
    assert_eq!(snapshot.files.values().filter(|file| file.bytes.is_some()).count(), 1);
    assert!(took < std::time::Duration::from_secs(1), "{took:?}");
}

#[test]
fn single_look_needs_no_thread() {
    let repo = Repo::new();
    let first = repo.commit("a.yaml", "a: 1\n");
    let mut source = Source::open(repo.config()).unwrap();
    let snapshot = source.read(Default::default()).unwrap();
    assert_eq!((snapshot.revision.0.clone(), paths(&snapshot)), (first, vec!["a.yaml"]));
    assert_eq!(source.read(snapshot.known()).unwrap().files["a.yaml"].bytes, None);
}

#[test]
fn any_commit_can_be_read_by_its_names() {
    let repo = Repo::new();
    let first = repo.commit("a.yaml", "a: 1\n");
    repo.git(&["tag", "-a", "v1", "-m", "One"]);
    repo.commit("b.yaml", "b: 1\n");
    let mut source = Source::open(repo.config()).unwrap();
    for name in ["v1", "HEAD~1", &first[..8], "main~1"] {
        let snapshot = source.read_commit(name, &Default::default()).unwrap();
        assert_eq!((snapshot.revision.0.as_str(), paths(&snapshot)), (first.as_str(), vec!["a.yaml"]));
    }
    assert!(source.read_commit("nope", &Default::default()).unwrap_err().message.contains("names no commit"));
}

#[test]
fn moved_ref_is_handed_over_well_within_a_second() {
    let repo = Repo::new();
    let commits: Vec<String> = (0..20).map(|n| repo.commit("a.yaml", &format!("a: {n}\n"))).collect();
    let live = Live::start(repo.config());
    live.healthy(&commits[19]);
    let mut took: Vec<_> = commits[..19]
        .iter()
        .rev()
        .map(|commit| {
            repo.git(&["update-ref", "refs/heads/main", commit]);
            let began = xene_agent::clock::now().boot;
            live.snapshot(commit);
            xene_agent::clock::now().boot.since(began)
        })
        .collect();
    took.sort();
    eprintln!("ref moved to snapshot handed over: median {:?}, p95 {:?}", took[9], took[17]);
    assert!(took[17] < std::time::Duration::from_secs(1), "{took:?}");
}
