//! What the documents say is what happens: commands run, references are fresh, examples are valid.
//!
//! `XENE_BLESS=1` writes what is true into the documents instead of failing.

#![expect(clippy::unwrap_used, clippy::format_push_string, reason = "a test may fail, and need not be fast")]

mod console;
mod normal;
mod reference;

use std::{fs, path::PathBuf};

use self::console::Session;

/// A document's path, from the repository's root.
pub(crate) fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
}

pub(crate) fn read(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap_or_default()
}

pub(crate) fn blesses() -> bool {
    std::env::var_os("XENE_BLESS").is_some()
}

/// Fails if a document is not `fresh`, or writes it.
#[track_caller]
pub(crate) fn assert_fresh(name: &str, fresh: &str) {
    if blesses() {
        fs::write(path(name), fresh).unwrap();
    }
    let found = read(name);
    let differs = found.lines().zip(fresh.lines()).position(|(found, fresh)| found != fresh);
    let line = differs.unwrap_or_else(|| found.lines().count().min(fresh.lines().count()));
    assert!(
        found == fresh,
        "{name} is stale from line {} on; XENE_BLESS=1 cargo test --test docs\nfound: {:?}\nfresh: {:?}",
        line + 1,
        found.lines().nth(line),
        fresh.lines().nth(line),
    );
}

#[test]
fn the_first_screen_of_the_readme_is_what_one_sees() {
    let mut session = Session::new();
    session.copy("xene.d");
    session.play("README.md", "dev");
}

#[test]
fn the_tour_of_the_readme_does_what_it_says() {
    Session::new().play("README.md", "tour");
}

#[test]
fn the_examples_of_the_http_page_answer_as_shown() {
    let mut session = Session::new();
    session.copy("xene.d");
    session.play("docs/reference/http.md", "http");
}

#[test]
fn the_guide_to_testing_shows_what_one_sees() {
    let mut session = Session::new();
    let guide = read("docs/guide/testing-workflows.md");
    let example = |n| guide.split("```yaml\n").nth(n).and_then(|rest| rest.split("```").next()).unwrap();
    session.write("nightly.yaml", example(1));
    session.write("release.yaml", example(2));
    session.play("docs/guide/testing-workflows.md", "guide");
}
