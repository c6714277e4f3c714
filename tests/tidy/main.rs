//! The repository's own rules, as a test: what may import what, how long a file may be, what prose must not hold.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A pure file names none of these: no I/O, no runtime, no clock, no random source.
const IMPURE: &[&str] = &[
    "tokio",
    "heed",
    "quinn",
    "git2",
    "notify",
    "axum",
    "hyper",
    "ureq",
    "rustix",
    "getrandom",
    "std::fs",
    "std::io::",
    "std::net",
    "std::process",
    "std::env",
    "std::thread",
    "Instant",
    "SystemTime",
    "Timestamp::now",
    "Zoned::now",
];

/// Above this a file is more than one idea. Tests and tables of data are exempt.
const MAX_LINES: usize = 800;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All files below `folder` with this extension, but for build output.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(folder) else { return found };
    for entry in entries.flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        if name == "target" || name == ".git" || name == ".xene" {
            continue;
        }
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn is_test(path: &Path) -> bool {
    path.components().any(|c| c.as_os_str() == "tests") || path.file_name().is_some_and(|n| n == "tests.rs")
}

/// The code of a file without comments and without its unit tests.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap();
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// True if `word` stands in `code` as a path segment of its own.
fn names(code: &str, word: &str) -> bool {
    code.match_indices(word).any(|(at, _)| {
        let is_part = |c: char| c.is_alphanumeric() || c == '_';
        let longer = word.ends_with(is_part) && code[at + word.len()..].starts_with(is_part);
        !code[..at].ends_with(is_part) && !longer
    })
}

#[test]
fn pure_halves_do_no_io() {
    let pure: Vec<_> = ["src/decide", "src/compile", "src/trial", "agent/src/decide", "schemas/src"]
        .iter()
        .flat_map(|folder| files(&root().join(folder), "rs"))
        .filter(|path| !is_test(path))
        .collect();
    assert!(pure.len() > 30, "the folders are where they should be");
    let mut wrong = Vec::new();
    for path in pure {
        let code = code(&path);
        wrong.extend(IMPURE.iter().filter(|word| names(&code, word)).map(|word| format!("{}: {word}", path.display())));
    }
    assert!(wrong.is_empty(), "impure words in pure files:\n{}", wrong.join("\n"));
}

#[test]
fn the_rule_for_purity_can_fail() {
    assert!(names("use tokio::sync;", "tokio") && names("std::fs::read(x)", "std::fs"));
    assert!(!names("let my_tokio = 1;", "tokio") && !names("let tokios = 1;", "tokio"));
}

#[test]
fn imports_point_down() {
    for path in files(&root().join("schemas/src"), "rs") {
        let code = code(&path);
        assert!(!names(&code, "xene_agent") && !names(&code, "xene::"), "{}", path.display());
    }
    for path in files(&root().join("agent/src"), "rs") {
        assert!(!names(&code(&path), "xene::"), "{}", path.display());
    }
}

#[test]
fn every_module_says_what_it_is_for_and_is_one_idea() {
    let mut wrong = Vec::new();
    for folder in ["src", "agent", "schemas", "tests", "benches"] {
        for path in files(&root().join(folder), "rs") {
            let text = fs::read_to_string(&path).unwrap();
            if !text.starts_with("//!") && path.file_name().is_some_and(|n| n != "tests.rs") {
                wrong.push(format!("{}: begins without a //! line", path.display()));
            }
            let lines = text.lines().count();
            if lines > MAX_LINES && !is_test(&path) {
                wrong.push(format!("{}: {lines} lines, at most {MAX_LINES}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_test_is_switched_off() {
    let attribute = concat!("#[", "ignore");
    for path in files(&root(), "rs") {
        assert!(!fs::read_to_string(&path).unwrap().contains(attribute), "{}", path.display());
    }
}
