//! `xene validate PATH…`: checks workflow files without a controller.

mod github;
mod sarif;

use std::{
    collections::{HashMap, HashSet},
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
use crate::{
    compile::{
        self,
        render::{Lines, render},
    },
    source,
};

/// Arguments of `xene validate`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "The exit status is 1 if there are errors; warnings leave it 0, unless --strict.\n\
    Besides the usual forms, -o github annotates files in GitHub Actions, and -o sarif is for tools that read SARIF.\n\
    `xene explain CODE` tells more of a problem.")]
pub struct Args {
    /// Files, or folders with *.yaml, *.yml and *.json below them, of which only xene.d/ counts if there is one, as for a
    /// source; - is standard input.
    #[arg(value_name = "PATH", required = true)]
    pub paths: Vec<PathBuf>,

    /// Warnings count as errors.
    #[arg(long)]
    pub strict: bool,

    /// Print the files with documents of the format v1alpha1 written as xene/v1.
    #[arg(long)]
    pub convert: bool,
}

/// Codes below this one are of files that can't be read as what they are: see [`compile::rules::ALL`].
const FIRST_OF_RULES: &str = "XE0017";

/// Files by path, as the compiler takes them.
pub(super) type Files = Vec<(String, Vec<u8>)>;

/// What the compiler says: how many workflows are good, and what is wrong.
type Verdict = (usize, Vec<Diagnostic>);

/// Checks the files, or converts them.
///
/// # Errors
/// If a path can't be read, or a file has an error: then the exit status is [`exit::FAILED`].
pub fn run(args: &Args, output: Output, ui: &mut Ui) -> Result<(), Error> {
    let Collected { files, mut problems } = collect(&args.paths)?;
    let compiled = travelling::compile(&files, &travelling::take(&files, None)?);
    problems.extend(compiled.problems);
    problems.sort();
    let verdict = (compiled.workflows.len(), problems);
    if args.convert {
        convert(&files, &verdict, args.strict, ui)
    } else {
        report(&files, &verdict, (output, args.strict), ui)
    }
}

/// Files, and what a source would refuse of their folders.
#[derive(Debug, Default)]
pub(super) struct Collected {
    pub(super) files: Files,
    pub(super) problems: Vec<Diagnostic>,
}

/// Reads the files: a named one whatever it is called, of folders what a source would read.
pub(super) fn collect(paths: &[PathBuf]) -> Result<Collected, Error> {
    let mut collected = Collected::default();
    // A file that is named twice, however, is one file; a link to one is another, as for a source.
    let mut seen = HashSet::new();
    let mut is_new = |path: &Path| {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
        let parent = parent.canonicalize().unwrap_or_else(|_| parent.to_owned());
        seen.insert(parent.join(path.file_name().unwrap_or_default()))
    };
    for path in paths {
        if path == Path::new("-") {
            if is_new(path) {
                let bytes = bounded(io::stdin()).map_err(|error| Error::file("-", &error))?;
                collected.files.push(("<stdin>".to_owned(), bytes));
            }
            continue;
        }
        let unreadable = |error: io::Error| Error::file(path, &error);
        if fs::metadata(path).map_err(unreadable)?.is_dir() {
            let Collected { files, problems } = of_folder(path).map_err(unreadable)?;
            collected.files.extend(files.into_iter().filter(|(path, _)| is_new(Path::new(path))));
            collected.problems.extend(problems);
        } else if is_new(path) {
            let bytes = fs::File::open(path).and_then(bounded).map_err(unreadable)?;
            collected.files.push((shown(path), bytes));
        }
    }
    collected.problems.sort();
    collected.problems.dedup();
    Ok(collected)
}

/// What a source would read of a folder. Links may lead to anything in the repository around it.
fn of_folder(folder: &Path) -> io::Result<Collected> {
    let within = folder.join(source::DEFAULT_FOLDER);
    let folder = if within.is_dir() { &within } else { folder };
    let real = folder.canonicalize()?;
    fs::read_dir(&real)?;
    let (root, within) = travelling::around(&real);
    let (files, mut problems) = source::read_folder(&root, &within);
    let named = |path: &str| {
        let beneath = path.strip_prefix(&within).unwrap_or(path).trim_start_matches('/');
        shown(&folder.join(beneath))
    };
    problems.iter_mut().for_each(|problem| problem.path = named(&problem.path));
    Ok(Collected { files: files.into_iter().map(|(path, bytes)| (named(&path), bytes)).collect(), problems })
}

/// All that there is, but one byte beyond what a file may have at most, so that more is noticed.
pub(super) fn bounded(from: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(compile::MAX_FILE_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
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

/// Files in today's format to stdout, whatever form is asked for; what is wrong with them to stderr.
fn convert(files: &Files, (_, problems): &Verdict, strict: bool, ui: &mut Ui) -> Result<(), Error> {
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
    let texts = by_path(files, problems);
    problems.iter().try_for_each(|problem| print(problem, &texts, &mut ui.err))?;
    failed |= problems.iter().any(|problem| strict || problem.severity == Severity::Error);
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
            let texts = by_path(files, problems);
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
    // What can't be read as a workflow is not checked any further.
    if problems.iter().any(|problem| problem.severity == Severity::Error && problem.code.as_str() < FIRST_OF_RULES) {
        summary += "; once these are mended there may be more";
    }
    ui.note(&summary);
    if errors > 0 || (strict && warnings > 0) { Err(Error::Status(exit::FAILED)) } else { Ok(()) }
}

/// The lines of files, by path.
pub(super) type Texts<'f> = HashMap<&'f str, Lines<'f>>;

/// The lines of the files that have problems.
pub(super) fn by_path<'f>(files: &'f Files, problems: &[Diagnostic]) -> Texts<'f> {
    let broken: HashSet<&str> = problems.iter().map(|problem| problem.path.as_str()).collect();
    let broken = files.iter().filter(|(path, _)| broken.contains(path.as_str()));
    broken.filter_map(|(path, bytes)| Some((path.as_str(), Lines::of(std::str::from_utf8(bytes).ok()?)))).collect()
}

/// One problem with the line that it stands on.
pub(super) fn print(problem: &Diagnostic, texts: &Texts<'_>, to: &mut Stream) -> Result<(), Error> {
    let text = match texts.get(problem.path.as_str()) {
        Some(lines) => lines.render(problem),
        None => render(problem, None),
    };
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
