//! `xene validate PATH…`: checks workflow files without a controller.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde_json::json;
use xene_schemas::diagnostic::{Diagnostic, Severity};

use super::{
    Error, escape, exit,
    output::{Format, Ui, painted, phase_style},
};
use crate::compile;

/// Arguments of `xene validate`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "The exit status is 1 if there are errors; warnings leave it 0.")]
pub struct Args {
    /// Files, or folders with *.yaml, *.yml and *.json below them.
    #[arg(value_name = "PATH", required = true)]
    pub paths: Vec<PathBuf>,
}

/// Files by path, as the compiler takes them.
type Files = Vec<(String, Vec<u8>)>;

/// What the compiler says: how many workflows are good, and what is wrong.
type Verdict = (usize, Vec<Diagnostic>);

/// Checks the files.
///
/// # Errors
/// If a path can't be read, or a file has an error: then the exit status is [`exit::FAILED`].
pub fn run(args: &Args, ui: &mut Ui) -> Result<(), Error> {
    let files = collect(&args.paths)?;
    let verdict = compile::validate(&files);
    report(&files, &verdict, ui)
}

/// Reads the files: a named one whatever it is called, of folders what a source would read.
fn collect(paths: &[PathBuf]) -> Result<Files, Error> {
    let mut found = Vec::new();
    for path in paths {
        let about = fs::metadata(path).map_err(|error| Error::file(path, &error))?;
        if about.is_dir() {
            walk(path, &mut found)?;
        } else {
            found.push(path.clone());
        }
    }
    found.dedup();
    found
        .into_iter()
        .map(|path| Ok((shown(&path), fs::read(&path).map_err(|error| Error::file(&path, &error))?)))
        .collect()
}

/// The workflow files below a folder, in order of their paths. Hidden entries and what `.xeneignore` names are left out.
fn walk(folder: &Path, found: &mut Vec<PathBuf>) -> Result<(), Error> {
    let entries = ignore::WalkBuilder::new(folder)
        .standard_filters(false)
        .hidden(true)
        .add_custom_ignore_filename(".xeneignore")
        .sort_by_file_path(Path::cmp)
        .build();
    for entry in entries {
        let entry = entry.map_err(|error| match error.io_error() {
            Some(cause) => Error::file(folder, cause),
            None => Error::file(folder, &io::Error::other(error.to_string())),
        })?;
        let is_workflow = |path: &Path| {
            path.extension().is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|ours| extension == *ours))
        };
        if entry.file_type().is_some_and(|kind| kind.is_file()) && is_workflow(entry.path()) {
            found.push(entry.into_path());
        }
    }
    Ok(())
}

/// With `/`, and without the `./` that nobody typed.
fn shown(path: &Path) -> String {
    let text = path.to_string_lossy().replace('\\', "/");
    text.strip_prefix("./").map_or_else(|| text.clone(), str::to_owned)
}

/// Problems to stdout, what it comes to on stderr.
fn report(files: &Files, (workflows, problems): &Verdict, ui: &mut Ui) -> Result<(), Error> {
    let count = |severity| problems.iter().filter(|problem| problem.severity == severity).count();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    match ui.format {
        Format::Json | Format::Yaml => {
            ui.value(&json!({
                "files": files.len(), "workflows": workflows, "errors": errors, "warnings": warnings, "problems": problems,
            }))?;
        }
        Format::Name => {
            let mut paths: Vec<_> = problems.iter().map(|problem| &problem.path).collect();
            paths.dedup();
            paths.iter().try_for_each(|path| ui.out.line(path))?;
        }
        Format::Table | Format::Wide | Format::Markdown => {
            problems.iter().try_for_each(|problem| print(problem, files, ui))?
        }
    }
    ui.out.flush()?;
    let mut summary = format!("{}, {}", plural(files.len(), "file"), plural(*workflows, "workflow"));
    summary += match (errors, warnings) {
        (0, 0) => ": no problems".to_owned(),
        (0, warnings) => format!(": {}", plural(warnings, "warning")),
        (errors, 0) => format!(": {}", plural(errors, "error")),
        (errors, warnings) => format!(": {}, {}", plural(errors, "error"), plural(warnings, "warning")),
    }
    .as_str();
    ui.note(&summary);
    if errors > 0 { Err(Error::Status(exit::FAILED)) } else { Ok(()) }
}

fn print(problem: &Diagnostic, files: &Files, ui: &mut Ui) -> Result<(), Error> {
    let text = files.iter().find(|(path, _)| *path == problem.path);
    let text = compile::render::render(problem, text.and_then(|(_, bytes)| std::str::from_utf8(bytes).ok()));
    let mut lines = text.lines();
    // Only the word that says how bad it is has a colour.
    let word = format!("{}[{}]", problem.severity, problem.code);
    let head = escape::line(lines.next().unwrap_or_default());
    let style = phase_style(if problem.severity == Severity::Error { "Error" } else { "Warning" }).bold();
    ui.out.line(head.replacen(&word, &painted(&word, style, ui.out.colored), 1))?;
    lines.try_for_each(|line| ui.out.line(escape::line(line)))
}

fn plural(count: usize, word: &str) -> String {
    format!("{count} {word}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::cli::output::testing;

    #[test]
    fn folders_give_what_a_source_would_read() {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str| {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, name).unwrap();
        };
        ["b.yml", "a/x.yaml", "c.json", "no.txt", ".hidden/h.yaml", "skip.yaml", ".xeneignore"]
            .into_iter()
            .for_each(write);
        fs::write(root.path().join(".xeneignore"), "skip.yaml\n").unwrap();
        let names = |paths: &[PathBuf]| {
            let files = collect(paths).unwrap();
            let root = shown(root.path());
            files.iter().map(|(path, _)| path.trim_start_matches(&root).to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names(&[root.path().into()]), ["/a/x.yaml", "/b.yml", "/c.json"]);
        assert_eq!(names(&[root.path().join("no.txt")]), ["/no.txt"], "a named file is taken as it is");
        assert_eq!(collect(&["/no/such".into()]).unwrap_err().status(), 2);
    }

    fn problem(severity: Severity) -> Diagnostic {
        Diagnostic {
            path: "w.yaml".into(),
            line: 3,
            column: 7,
            code: "XE0012".into(),
            severity,
            message: "there is no task named bild".into(),
            hint: Some("did you mean build?".into()),
        }
    }

    fn files(count: usize) -> Files {
        vec![("w.yaml".into(), Vec::new()); count]
    }

    #[test]
    fn problems_go_to_stdout_and_the_sum_to_stderr() {
        let (mut ui, out, err) = testing::ui(Format::Table);
        let result = report(&files(2), &(1, vec![problem(Severity::Error), problem(Severity::Warning)]), &mut ui);
        assert_eq!(result.unwrap_err().status(), 1);
        expect![[r#"
            w.yaml:3:7: error[XE0012]: there is no task named bild
              = hint: did you mean build?
            w.yaml:3:7: warning[XE0012]: there is no task named bild
              = hint: did you mean build?
        "#]]
        .assert_eq(&out.text());
        assert_eq!(err.text(), "2 files, 1 workflow: 1 error, 1 warning\n");
    }

    #[test]
    fn warnings_alone_are_no_failure() {
        let (mut ui, out, err) = testing::ui(Format::Json);
        report(&files(1), &(1, vec![problem(Severity::Warning)]), &mut ui).unwrap();
        assert_eq!(err.text(), "1 file, 1 workflow: 1 warning\n");
        let value: serde_json::Value = serde_json::from_str(&out.text()).unwrap();
        assert_eq!(value["problems"][0]["code"], "XE0012");
        let (mut ui, _, err) = testing::ui(Format::Table);
        report(&files(1), &(1, vec![]), &mut ui).unwrap();
        assert_eq!(err.text(), "1 file, 1 workflow: no problems\n");
    }
}
