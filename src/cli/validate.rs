//! `xene validate PATH…`: checks workflow files without a controller.

mod github;
mod sarif;

use std::{
    collections::HashMap,
    fs, io,
    io::Read,
    path::{Path, PathBuf},
};

use anstyle::AnsiColor;
use serde_json::json;
use xene_schemas::diagnostic::{Diagnostic, Severity};

use super::{
    Error, escape, exit,
    output::{Format, Output, Stream, Ui, painted, phase_style},
    travelling,
};
use crate::compile;

/// Arguments of `xene validate`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "The exit status is 1 if there are errors; warnings leave it 0, unless --strict.\n\
    Besides the usual forms, -o github annotates files in GitHub Actions, and -o sarif is for tools that read SARIF.\n\
    `xene explain CODE` tells more of a problem.")]
pub struct Args {
    /// Files, or folders with *.yaml, *.yml and *.json below them; - is standard input.
    #[arg(value_name = "PATH", required = true)]
    pub paths: Vec<PathBuf>,

    /// Warnings count as errors.
    #[arg(long)]
    pub strict: bool,

    /// Print the files with documents of the format v1alpha1 written as xene/v1.
    #[arg(long)]
    pub convert: bool,
}

/// Files by path, as the compiler takes them.
pub(super) type Files = Vec<(String, Vec<u8>)>;

/// What the compiler says: how many workflows are good, and what is wrong.
type Verdict = (usize, Vec<Diagnostic>);

/// Checks the files, or converts them.
///
/// # Errors
/// If a path can't be read, or a file has an error: then the exit status is [`exit::FAILED`].
pub fn run(args: &Args, output: Output, ui: &mut Ui) -> Result<(), Error> {
    let files = collect(&args.paths)?;
    let compiled = travelling::compile(&files, &travelling::take(&files, None)?);
    let verdict = (compiled.workflows.len(), compiled.problems);
    if args.convert { convert(&files, &verdict, ui) } else { report(&files, &verdict, (output, args.strict), ui) }
}

/// Reads the files: a named one whatever it is called, of folders what a source would read.
pub(super) fn collect(paths: &[PathBuf]) -> Result<Files, Error> {
    let mut found = Vec::new();
    for path in paths {
        if path == Path::new("-") {
            found.push(path.clone());
            continue;
        }
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
        .map(|path| {
            if path == Path::new("-") {
                let mut bytes = Vec::new();
                // One byte beyond what is read, so that more is noticed.
                let limit = compile::MAX_FILE_BYTES as u64 + 1;
                io::stdin().take(limit).read_to_end(&mut bytes).map_err(|error| Error::file("-", &error))?;
                return Ok(("<stdin>".to_owned(), bytes));
            }
            Ok((shown(&path), fs::read(&path).map_err(|error| Error::file(&path, &error))?))
        })
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
        if entry.file_type().is_some_and(|kind| kind.is_file()) && is_workflow_file(entry.path()) {
            found.push(entry.into_path());
        }
    }
    Ok(())
}

/// True for a file that a source would read.
pub(super) fn is_workflow_file(path: &Path) -> bool {
    path.extension().is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|ours| extension == *ours))
}

/// With `/`, and without the `./` that nobody typed.
pub(super) fn shown(path: &Path) -> String {
    let text = path.to_string_lossy().replace('\\', "/");
    text.strip_prefix("./").map_or_else(|| text.clone(), str::to_owned)
}

/// Files in today's format to stdout; what is wrong with them, but for what needs a container, to stderr.
fn convert(files: &Files, (_, problems): &Verdict, ui: &mut Ui) -> Result<(), Error> {
    let mut failed = false;
    for (index, (path, bytes)) in files.iter().enumerate() {
        match compile::convert(path, bytes) {
            Some(text) => {
                if index > 0 {
                    ui.out.line("---")?;
                }
                ui.out.write(text)?;
            }
            None => failed = true,
        }
    }
    ui.out.flush()?;
    for problem in problems {
        let text = files.iter().find(|(path, _)| *path == problem.path);
        ui.note(&compile::render::render(problem, text.and_then(|(_, bytes)| std::str::from_utf8(bytes).ok())));
    }
    if failed { Err(Error::Status(exit::FAILED)) } else { Ok(()) }
}

/// Problems to stdout, what it comes to on stderr.
fn report(
    files: &Files,
    (workflows, problems): &Verdict,
    (output, strict): (Output, bool),
    ui: &mut Ui,
) -> Result<(), Error> {
    let count = |severity| problems.iter().filter(|problem| problem.severity == severity).count();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    match (output, ui.format) {
        (Output::Github, _) => problems.iter().try_for_each(|problem| ui.out.line(github::annotation(problem)))?,
        // A value of JSON, whatever else is asked for.
        (Output::Sarif, _) => ui.value(&sarif::log(problems))?,
        (_, Format::Json | Format::Yaml) => {
            ui.value(&json!({
                "files": files.len(), "workflows": workflows, "errors": errors, "warnings": warnings, "problems": problems,
            }))?;
        }
        (_, Format::Name) => {
            let mut paths: Vec<_> = problems.iter().map(|problem| &problem.path).collect();
            paths.dedup();
            paths.iter().try_for_each(|path| ui.out.line(path))?;
        }
        (_, Format::Table | Format::Wide) => {
            let texts = by_path(files);
            problems.iter().try_for_each(|problem| print(problem, &texts, &mut ui.out))?;
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
    if errors > 0 || (strict && warnings > 0) { Err(Error::Status(exit::FAILED)) } else { Ok(()) }
}

/// Files by path.
pub(super) fn by_path(files: &Files) -> HashMap<&str, &[u8]> {
    files.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice())).collect()
}

/// One problem with the line that it stands on; `texts` are the files by path.
pub(super) fn print(problem: &Diagnostic, texts: &HashMap<&str, &[u8]>, to: &mut Stream) -> Result<(), Error> {
    let text = texts.get(problem.path.as_str()).and_then(|bytes| std::str::from_utf8(bytes).ok());
    let text = compile::render::render(problem, text);
    let colored = to.colored;
    let style = phase_style(if problem.severity == Severity::Error { "Error" } else { "Warning" }).bold();
    let mut lines = text.lines();
    let word = format!("{}[{}]", problem.severity, problem.code);
    let head = escape::line(lines.next().unwrap_or_default());
    to.line(head.replacen(&word, &painted(&word, style, colored), 1))?;
    lines.try_for_each(|line| {
        let line = escape::line(line);
        let plain = line.trim();
        to.line(if plain.starts_with("| ") && plain.ends_with('^') {
            let at = line.find('^').unwrap_or_default();
            format!("{}{}", &line[..at], painted(&line[at..], style, colored))
        } else if plain.starts_with("= hint: ") {
            line.replacen("hint:", &painted("hint:", AnsiColor::Cyan.on_default().bold(), colored), 1)
        } else {
            line
        })
    })
}

pub(super) fn plural(count: usize, word: &str) -> String {
    format!("{count} {word}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests;
