//! Files that travel, from commits and from folders.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
};

use xene_agent::{content::ContentStore, glob::Globs};
use xene_schemas::meta::FileHash;

use super::kit::{Live, Repo, config};
use crate::source::{
    Mode, Resume, Snapshot, Source, SourceConfig,
    snapshot::{Travelling, What},
    travel::{Travel, Wanted},
};

/// A workflow file of these tests asks for what its first line says.
fn wanted(_: &str, bytes: &[u8]) -> Option<Wanted> {
    let line = std::str::from_utf8(bytes).ok()?.lines().next()?.strip_prefix("# takes ")?;
    let patterns: Vec<String> = line.split(' ').map(str::to_owned).collect();
    Some(Wanted { globs: Globs::new(&patterns).ok()?, budget: 100 })
}

fn open(config: SourceConfig, store: &Path) -> (Source, ContentStore) {
    let store = ContentStore::open(store).unwrap();
    let travel = Travel { wanted, store: Some(store.clone()) };
    (Source::open(config).unwrap().carrying(travel), store)
}

fn live(config: SourceConfig, store: &Path) -> (Live, ContentStore) {
    let (source, store) = open(config, store);
    (Live::spawn(source, Resume::default()), store)
}

fn taken<'s>(snapshot: &'s Snapshot, path: &str) -> Option<&'s [Travelling]> {
    snapshot.files.get(path)?.files.as_deref()
}

fn hash(travelling: &[Travelling], path: &str) -> Option<FileHash> {
    match travelling.iter().find(|file| file.path == path)?.what {
        What::File { hash, .. } => Some(hash),
        What::TooMany { .. } | What::Refused(_) => None,
    }
}

fn refusal(travelling: &[Travelling], path: &str) -> String {
    match &travelling.iter().find(|file| file.path == path).unwrap().what {
        What::Refused(why) => why.clone(),
        other => panic!("{path}: {other:?}"),
    }
}

fn make_executable(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_commit_that_changes_only_a_script_brings_its_workflow_again() {
    let repo = Repo::new();
    let (live, store) = live(repo.config(), &repo.beside("store"));
    repo.write("xene.d/sub/scripts/a.sh", "one");
    make_executable(&repo.path.join("xene.d/sub/scripts/a.sh"));
    repo.write("xene.d/sub/scripts/b.txt", "bee");
    repo.write("xene.d/scripts/outside", "not below");
    repo.write("xene.d/other.yaml", "x: 1\n");
    let first = live.snapshot(&repo.commit("xene.d/sub/w.yaml", "# takes scripts/**\n"));
    let files = taken(&first, "xene.d/sub/w.yaml").unwrap();
    let shown: Vec<_> = files.iter().map(|file| (file.path.as_str(), file.executable)).collect();
    assert_eq!(shown, [("scripts/a.sh", true), ("scripts/b.txt", false)]);
    assert!(store.has(&FileHash::of(b"one")) && store.has(&FileHash::of(b"bee")));
    assert!(!store.has(&FileHash::of(b"not below")));

    let second = live.snapshot(&repo.commit("xene.d/sub/scripts/a.sh", "two"));
    assert_eq!(hash(taken(&second, "xene.d/sub/w.yaml").unwrap(), "scripts/a.sh"), Some(FileHash::of(b"two")));
    assert!(second.files["xene.d/other.yaml"].bytes.is_none());

    let third = live.snapshot(&repo.commit("xene.d/unrelated.txt", "x"));
    assert_eq!(third.files["xene.d/sub/w.yaml"].bytes, None, "nothing of it changed");
    assert_eq!(third.files["xene.d/sub/w.yaml"].content, second.files["xene.d/sub/w.yaml"].content);

    // What a sweep took meanwhile is read again.
    fs::remove_dir_all(repo.beside("store")).unwrap();
    fs::create_dir_all(repo.beside("store/.new")).unwrap();
    repo.git(&["revert", "--no-edit", "HEAD~1"]);
    let back = live.snapshot(&repo.head());
    assert_eq!(back.files["xene.d/sub/w.yaml"].content, first.files["xene.d/sub/w.yaml"].content);
    assert!(store.has(&FileHash::of(b"one")) && store.has(&FileHash::of(b"bee")));
}

#[test]
fn what_is_known_over_a_restart_is_not_read_again() {
    let repo = Repo::new();
    repo.write("s/a", "one");
    repo.commit("w.yaml", "# takes s\n");
    let (mut source, _) = open(repo.config(), &repo.beside("store"));
    let known = source.read(Default::default()).unwrap().known();
    let (mut source, _) = open(repo.config(), &repo.beside("store"));
    assert_eq!(source.read(known.clone()).unwrap().files["w.yaml"].bytes, None);
    repo.commit("s/a", "two");
    let snapshot = source.read(known).unwrap();
    assert_eq!(hash(taken(&snapshot, "w.yaml").unwrap(), "s/a"), Some(FileHash::of(b"two")));
}

#[test]
fn links_submodules_pointers_and_bulk_are_told() {
    let repo = Repo::new();
    repo.write("s/real.sh", "real");
    make_executable(&repo.path.join("s/real.sh"));
    symlink("real.sh", repo.path.join("s/link")).unwrap();
    symlink("/etc/passwd", repo.path.join("s/out")).unwrap();
    symlink("../../..", repo.path.join("s/up")).unwrap();
    fs::create_dir(repo.path.join("t")).unwrap();
    symlink("../t", repo.path.join("s/folder")).unwrap();
    repo.write("s/pointer", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n");
    repo.write("s/zbig", &"x".repeat(101));
    repo.write("s/.hidden/x", "hidden");
    repo.commit("w.yaml", "# takes s\n");
    let head = repo.head();
    repo.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{head},s/sub")]);
    repo.git(&["commit", "-q", "-m", "Add a submodule"]);
    let (mut source, _) = open(repo.config(), &repo.beside("store"));
    let snapshot = source.read(Default::default()).unwrap();
    let files = taken(&snapshot, "w.yaml").unwrap();
    assert_eq!(hash(files, "s/link"), Some(FileHash::of(b"real")));
    assert!(files.iter().find(|file| file.path == "s/link").unwrap().executable, "as what it leads to");
    assert!(refusal(files, "s/out").contains("out of the repository"));
    assert!(refusal(files, "s/up").contains("out of the repository"));
    assert!(refusal(files, "s/folder").contains("nothing in this commit"));
    assert!(refusal(files, "s/pointer").contains("LFS"));
    assert!(refusal(files, "s/sub").contains("submodule"));
    assert!(matches!(files.iter().find(|file| file.path == "s/zbig").unwrap().what, What::TooMany { size: 101 }));
    assert!(!files.iter().any(|file| file.path.contains("hidden")));
}

#[test]
fn a_folder_tells_a_saved_script_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().canonicalize().unwrap().join("flows");
    let write = |name: &str, text: &str| {
        let path = path.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("w.yaml", "# takes **\n");
    write("s/a", "one");
    write(".git/config", "secret");
    symlink("/etc/passwd", path.join("s/out")).unwrap();
    let config = SourceConfig { mode: Mode::Directory, ..config(&path) };
    let (live, store) = live(config, &dir.path().join("store"));
    let has = |text: &str| {
        live.until(text, |told| {
            let snapshot = told.snapshots.last()?;
            let files = taken(snapshot, "w.yaml")?;
            (hash(files, "s/a") == Some(FileHash::of(text.as_bytes()))).then(|| snapshot.clone())
        })
    };
    let first = has("one");
    let files = taken(&first, "w.yaml").unwrap();
    let shown: Vec<_> = files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(shown, ["s/a", "s/out", "w.yaml"]);
    assert!(refusal(files, "s/out").contains("out of the folder"));
    assert!(store.has(&FileHash::of(b"one")));
    write("s/a", "two");
    let second = has("two");
    assert_ne!(first.revision, second.revision);
    write("s/a", "one");
    let third = has("one");
    assert_eq!(third.revision, first.revision, "what it was brings back what there was");
    make_executable(&path.join("s/a"));
    live.until("the bit", |told| {
        let files = taken(told.snapshots.last()?, "w.yaml")?;
        files.iter().find(|file| file.path == "s/a")?.executable.then_some(())
    });
}
