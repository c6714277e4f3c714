//! `xene test PATH…`: tries workflow tests on a virtual clock.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use xene_schemas::{diagnostic::Severity, meta::API_VERSION};

use super::{
    Error, escape, exit,
    output::{Format, Ui, painted, phase_style},
    validate::{self, plural},
};
use crate::{
    compile::{self, Segment, cases::TestDocument},
    trial::{Mismatch, Verdict, try_case},
};

/// Arguments of `xene test`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Tests are documents of kind WorkflowTest, in a workflow's file or beside it. A file that is \
                        named alone is tried against the workflows of its folder. The exit status is 1 if a case \
                        fails or a file has errors.")]
pub struct Args {
    /// Files, or folders with *.yaml, *.yml and *.json below them.
    #[arg(value_name = "PATH", required = true)]
    pub paths: Vec<PathBuf>,

    /// Write the results to a file too, as JUnit's XML.
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
}

/// A case and what it came to.
struct Tried<'t> {
    document: &'t TestDocument,
    case: usize,
    verdict: Verdict,
}

/// Tries the tests.
///
/// # Errors
/// If a file can't be read or has errors, there is no test, or a case fails.
pub fn run(args: &Args, ui: &mut Ui) -> Result<(), Error> {
    let validate::Collected { files: named, problems: refused } = validate::collect(&args.paths)?;
    let mut files = named.clone();
    for file in args.paths.iter().filter(|path| path.is_file()) {
        files.extend(beside(file)?.into_iter().filter(|(path, _)| !named.iter().any(|(known, _)| known == path)));
    }
    files.sort();
    files.dedup();
    let compiled = compile::compile(&files);
    let is_named = |path: &str| named.iter().any(|(known, _)| known == path);
    let mut broken = refused.iter().any(|problem| problem.severity == Severity::Error);
    refused.iter().try_for_each(|problem| validate::print(problem, &Default::default(), &mut ui.err))?;
    let texts = validate::by_path(&files, &compiled.problems);
    // What else lies in the folder is not what was asked about.
    for problem in compiled.problems.iter().filter(|problem| is_named(&problem.path)) {
        validate::print(problem, &texts, &mut ui.err)?;
        broken |= problem.severity == Severity::Error;
    }
    if broken {
        return Err(Error::Status(exit::FAILED));
    }
    let mut tried = Vec::new();
    for document in compiled.tests.iter().filter(|document| is_named(&document.path)) {
        let spec = &document.test.spec;
        let workflow = compiled.workflows.iter().find(|workflow| workflow.body.metadata.name == spec.workflow);
        let Some(workflow) = workflow else {
            let (line, column) = document.locate(&keys(&["spec", "workflow"]), false);
            return Err(Error::Failed {
                message: format!("{}:{line}:{column}: there is no good workflow {}", document.path, spec.workflow),
                hint: Some("`xene validate` on its folder tells what is wrong with it".into()),
            });
        };
        for (case, what) in spec.cases.iter().enumerate() {
            tried.push(Tried { document, case, verdict: try_case(&workflow.body, what) });
        }
    }
    if tried.is_empty() {
        return Err(Error::usage_with_hint(
            "there is no workflow test in these files",
            "a test begins with `apiVersion: xene/v1` and `kind: WorkflowTest`",
        ));
    }
    if let Some(path) = &args.junit {
        fs::write(path, junit(&tried)).map_err(|error| Error::file(path, &error))?;
    }
    report(&tried, ui)
}

/// The workflow files of the folder that a file is in, not those of folders below it.
fn beside(file: &Path) -> Result<validate::Files, Error> {
    let folder = match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(|error| Error::file(folder, &error))?.flatten() {
        let path = entry.path();
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        if !hidden && path.is_file() && validate::is_workflow_file(&path) {
            paths.push(path);
        }
    }
    Ok(validate::collect(&paths)?.files)
}

fn keys(keys: &[&str]) -> Vec<Segment> {
    keys.iter().map(|key| Segment::Key((*key).to_owned())).collect()
}

impl Tried<'_> {
    fn passed(&self) -> bool {
        self.verdict.mismatches.is_empty()
    }

    /// `TEST: CASE`.
    fn name(&self) -> String {
        format!("{}: {}", self.document.test.metadata.name, self.document.test.spec.cases[self.case].name)
    }

    /// Where something within the case stands.
    fn locate(&self, within: &[Segment]) -> (u32, u32) {
        let mut path = keys(&["spec", "cases"]);
        path.push(Segment::Index(self.case));
        path.extend(within.iter().cloned());
        self.document.locate(&path, false)
    }

    fn sentence(&self, mismatch: &Mismatch) -> String {
        let (line, column) = self.locate(&mismatch.at);
        let Mismatch { what, expected, got, .. } = mismatch;
        format!("{}:{line}:{column}: {what}: expected {expected}, got {got}", self.document.path)
    }

    fn value(&self) -> Value {
        let (line, column) = self.locate(&[]);
        let mismatches = self.verdict.mismatches.iter().map(|mismatch| {
            let (line, column) = self.locate(&mismatch.at);
            let Mismatch { what, expected, got, .. } = mismatch;
            json!({"path": self.document.path, "line": line, "column": column, "what": what, "expected": expected, "got": got})
        });
        let mismatches: Vec<Value> = mismatches.collect();
        let spec = &self.document.test.spec;
        json!({
            "test": self.document.test.metadata.name, "workflow": spec.workflow, "case": spec.cases[self.case].name,
            "path": self.document.path, "line": line, "column": column, "passed": self.passed(),
            "failures": mismatches, "course": self.verdict.course,
        })
    }
}

fn report(tried: &[Tried<'_>], ui: &mut Ui) -> Result<(), Error> {
    let failed = tried.iter().filter(|tried| !tried.passed()).count();
    match ui.format {
        Format::Json | Format::Yaml => {
            let items: Vec<Value> = tried.iter().map(Tried::value).collect();
            ui.value(&json!({
                "apiVersion": API_VERSION, "kind": "List",
                "passed": tried.len() - failed, "failed": failed, "items": items,
            }))?;
        }
        Format::Name => {
            tried.iter().filter(|tried| !tried.passed()).try_for_each(|tried| ui.out.line(tried.name()))?;
        }
        Format::Table | Format::Wide => tried.iter().try_for_each(|tried| show(tried, ui))?,
    }
    ui.out.flush()?;
    let passed = tried.len() - failed;
    let cases = plural(tried.len(), "case");
    ui.note(&if failed == 0 {
        format!("{cases}: all passed")
    } else {
        format!("{cases}: {passed} passed, {failed} failed")
    });
    if failed > 0 { Err(Error::Status(exit::FAILED)) } else { Ok(()) }
}

fn show(tried: &Tried<'_>, ui: &mut Ui) -> Result<(), Error> {
    let colored = ui.out.colored;
    let (word, phase) = if tried.passed() { ("ok  ", "Success") } else { ("FAIL", "Error") };
    ui.out.line(format!("{} {}", painted(word, phase_style(phase), colored), escape::line(&tried.name())))?;
    if tried.passed() {
        return Ok(());
    }
    for mismatch in &tried.verdict.mismatches {
        ui.out.line(format!("  {}", escape::line(&tried.sentence(mismatch))))?;
    }
    ui.out.line("  what happened:")?;
    tried.verdict.course.iter().try_for_each(|line| ui.out.line(format!("    {}", escape::line(line))))
}

/// The results as CI systems read them: a suite for each document.
fn junit(tried: &[Tried<'_>]) -> String {
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n");
    for suite in tried.chunk_by(|a, b| std::ptr::eq(a.document, b.document)) {
        let failed = suite.iter().filter(|tried| !tried.passed()).count();
        let name = escaped(suite[0].document.test.metadata.name.as_str());
        // Writing to a string does not fail.
        let _ = writeln!(out, "  <testsuite name=\"{name}\" tests=\"{}\" failures=\"{failed}\">", suite.len());
        for tried in suite {
            let case = escaped(&tried.document.test.spec.cases[tried.case].name);
            let (path, (line, _)) = (escaped(&tried.document.path), tried.locate(&[]));
            let _ = write!(out, "    <testcase classname=\"{name}\" name=\"{case}\" file=\"{path}\" line=\"{line}\"");
            if tried.passed() {
                out += "/>\n";
                continue;
            }
            let sentences: Vec<_> = tried.verdict.mismatches.iter().map(|m| tried.sentence(m)).collect();
            let (message, course) = (escaped(&sentences.join("\n")), escaped(&tried.verdict.course.join("\n")));
            let _ = writeln!(out, ">\n      <failure message=\"{message}\">{course}</failure>\n    </testcase>");
        }
        out += "  </testsuite>\n";
    }
    out + "</testsuites>\n"
}

/// A text within XML; what XML can't hold becomes `?`.
fn escaped(text: &str) -> String {
    text.chars().fold(String::new(), |mut out, c| {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\n' => out += "&#10;",
            c if c.is_control() => out.push('?'),
            c => out.push(c),
        }
        out
    })
}
