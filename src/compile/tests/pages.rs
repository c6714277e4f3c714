//! The pages of `docs/reference/diagnostics/` do what they say: what is called wrong gives the problems that its
//! comments name, on their lines, and what is called right gives none.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use xene_schemas::diagnostic::{Diagnostic, Severity};

use super::example::{Example, Language, examples};
use crate::{
    compile::{
        compile_travelling,
        render::render,
        rules::{self, Rule},
        validate, wanted_files,
    },
    source::{Source, SourceConfig, travel::Travel},
};

/// What comes of circumstances rather than of what a file says has no example, but a test of its own.
const BY_CIRCUMSTANCE: [(&str, &str); 2] =
    [("XE0001", include_str!("../catalog/tests.rs")), ("XE0907", include_str!("../../source/tests/directory.rs"))];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference/diagnostics")
}

#[test]
fn the_table_is_in_order_and_each_page_has_its_title() {
    let mut last = "";
    for rule in rules::ALL {
        assert!(last < rule.code, "the table is not in order at {}", rule.code);
        last = rule.code;
        let warning = if rule.severity == Severity::Warning { " (warning)" } else { "" };
        let title = format!("# {}: {}{warning}", rule.code, rule.title);
        assert_eq!(rule.page.lines().next(), Some(title.as_str()));
    }
    let pages = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let codes = rules::ALL.iter().map(|rule| format!("{}.md", rule.code));
    assert_eq!(pages.collect::<BTreeSet<_>>(), codes.collect::<BTreeSet<_>>(), "pages without a rule, or moved");
}

#[test]
fn every_page_does_what_it_says() {
    let (mut shown, mut complaints) = (0, Vec::new());
    for rule in rules::ALL {
        // From the file, so that a page can be tried without building anew; it is the same text.
        let page = fs::read_to_string(folder().join(format!("{}.md", rule.code))).unwrap();
        let examples = examples(&page);
        if let Some((_, tests)) = BY_CIRCUMSTANCE.iter().find(|(code, _)| *code == rule.code) {
            assert!(tests.contains(rule.code) && examples.is_empty(), "{}", rule.code);
            continue;
        }
        let mut own = 0;
        for example in &examples {
            let found = check(rule, example, &mut complaints);
            shown += found.len();
            own += found.iter().filter(|code| *code == rule.code).count();
        }
        if own == 0 || examples.iter().all(|example| example.is_wrong) {
            complaints.push(format!("{}: its page shows no example that is wrong, or none that is right", rule.code));
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    assert!(shown >= 200, "only {shown} mistakes are shown");
}

/// The codes that an example gave; what is not as it says goes into `complaints`.
fn check(rule: &Rule, example: &Example, complaints: &mut Vec<String>) -> Vec<String> {
    let problems = match example.language {
        Language::Shell => of_script(rule, &example.text),
        Language::Yaml | Language::Json => {
            let path = if example.language == Language::Json { "example.json" } else { "example.yaml" };
            validate(&[(path.to_owned(), example.text.clone().into_bytes())]).1
        }
    };
    for problem in problems.iter().filter(|problem| problem.hint.as_ref().is_none_or(String::is_empty)) {
        complaints.push(format!("{}: {problem}: it has no hint", rule.code));
    }
    let mut found: Vec<_> = problems.iter().map(|problem| (problem.line, problem.code.clone())).collect();
    let as_expected = if example.language == Language::Shell && example.is_wrong {
        // A script makes whole files: each of them is wrong in the way that the page is about.
        !found.is_empty() && found.iter().all(|(_, code)| code == rule.code)
    } else {
        found.sort();
        found == example.marks.iter().map(|mark| (mark.line, mark.code.clone())).collect::<Vec<_>>()
    };
    let severe = problems.iter().all(|problem| {
        let mark = example.marks.iter().find(|mark| (mark.line, &mark.code) == (problem.line, &problem.code));
        mark.is_none_or(|mark| mark.severity == problem.severity)
    });
    if !as_expected || !severe || example.is_wrong == problems.is_empty() {
        let shown: String = problems.iter().map(|problem| render(problem, Some(&example.text))).collect();
        let marks = &example.marks;
        complaints
            .push(format!("{}: an example is not as it says:\n{}marked: {marks:?}\n{shown}", rule.code, example.text));
    }
    problems.into_iter().map(|problem| problem.code).collect()
}

/// What a source, or `xene validate`, says of the folder that a script makes.
fn of_script(rule: &Rule, script: &str) -> Vec<Diagnostic> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().canonicalize().unwrap().join("flows");
    fs::create_dir(&path).unwrap();
    let ended = Command::new("sh")
        .args(["-euc", script])
        .current_dir(&path)
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .envs(["GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME"].map(|name| (name, "Ada")))
        .envs(["GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"].map(|name| (name, "ada@example.org")))
        .output()
        .unwrap();
    assert!(ended.status.success(), "{script}\n{}", String::from_utf8_lossy(&ended.stderr));
    let config = SourceConfig::new(path.to_str().unwrap(), folder.path().join("mirror"));
    let travel = Travel { wanted: wanted_files, store: None };
    let snapshot = Source::open(config).unwrap().carrying(travel).read(Default::default()).unwrap();
    let files = snapshot.files.iter();
    let files = files.filter_map(|(path, file)| Some((path.as_str(), file.bytes.as_deref()?, file.files.as_deref())));
    let mut problems = compile_travelling(files).problems;
    // A source tells of a large file before it is read; who names one to `xene validate` hears it from the reader.
    for problem in snapshot.problems {
        if problem.code == "XE0901" && rule.code == "XE0002" {
            let bytes = fs::read(path.join(&problem.path)).unwrap();
            problems.extend(validate(&[(problem.path, bytes)]).1);
        } else {
            problems.push(problem);
        }
    }
    problems
}
