//! Bytes → documents: splitting, limits before anything is built, typed reading, and what each error means.

use std::{collections::HashMap, fmt::Write as _};

use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Value, json};
use xene_schemas::{
    diagnostic::Diagnostic,
    executor::Executor,
    meta::{API_VERSION, Name},
    notifier::Notifier,
    v1alpha1,
    workflow::Workflow,
    workflow_test::WorkflowTest,
};

use super::{
    Limits,
    cases::TestDocument,
    explain::{Explained, explain},
    outline::{Outline, Position, Refusal, needs_reading, too_many, too_many_values},
    path::Segment,
    rules::{self, Problem, Rule, Within, file},
};
use crate::source::snapshot::Travelling;

/// The largest file that is read.
pub const MAX_FILE_BYTES: usize = 1 << 20;

/// How many problems of one file are told.
const MAX_TOLD: usize = 200;

/// What one file says.
#[derive(Debug, Default)]
pub(super) struct Parsed {
    /// Its workflows, and where each document begins.
    pub(super) workflows: Vec<(Workflow, u32)>,
    /// Workflows of documents that are refused by themselves, while the file counts.
    pub(super) refused: Vec<Name>,
    /// Its notifiers, likewise.
    pub(super) notifiers: Vec<(Notifier, u32)>,
    /// Its workflow tests.
    pub(super) tests: Vec<TestDocument>,
    /// How many of its documents are not ours.
    pub(super) ignored: u32,
    /// What is wrong with it.
    pub(super) problems: Vec<Diagnostic>,
}

/// Reads a file. `path` tells YAML from JSON and names the file in problems.
///
/// `found` is what its workflows' patterns of files took, if anybody looked.
pub(super) fn parse(path: &str, bytes: &[u8], found: Option<&[Travelling]>, limits: Limits) -> Parsed {
    let mut parsed = Parsed::default();
    let whole = |rule: &Rule, line: u32, message: String, hint: Option<&str>| {
        diagnostic(path, rule, Position { line, column: u32::from(line > 0) }, message, hint.map(Into::into))
    };
    if bytes.len() > MAX_FILE_BYTES {
        // Whoever reads a file reads no more than shows that it is too large: how large it is nobody knows.
        let message = "this file has more than 1 MiB, and so is not read".to_owned();
        parsed.problems.push(whole(&file::TOO_LARGE, 0, message, Some("make several files of it")));
        return parsed;
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text.strip_prefix('\u{feff}').unwrap_or(text),
        Err(error) => {
            let line = bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
            let line = u32::try_from(line).unwrap_or(u32::MAX);
            let hint = Some("save the file as UTF-8");
            parsed.problems.push(whole(&file::NOT_UTF8, line, "this line is not UTF-8 text".into(), hint));
            return parsed;
        }
    };
    let format = if path.ends_with(".json") { Format::Json } else { Format::Yaml };
    let chunks = if format == Format::Json { vec![Chunk { text, lines_before: 0 }] } else { split(text) };
    for chunk in chunks {
        if let Some(line) = chunk.first_line() {
            document(path, format, &chunk, line, (found, limits), &mut parsed);
        }
    }
    let workflows = parsed.workflows.iter().map(|(workflow, line)| ("workflow", &workflow.metadata.name, *line));
    let notifiers = parsed.notifiers.iter().map(|(notifier, line)| ("notifier", &notifier.metadata.name, *line));
    let mut names: HashMap<(&str, &Name), u32> = HashMap::new();
    for (kind, name, line) in workflows.chain(notifiers) {
        if let Some(first) = names.get(&(kind, name)) {
            let message = format!("{kind} `{name}` stands twice in this file, first in line {first}");
            let hint = "give one of them another name";
            parsed.problems.push(whole(&file::DUPLICATE_NAME, line, message, Some(hint)));
        } else {
            names.insert((kind, name), line);
        }
    }
    cap(&mut parsed.problems);
    parsed
}

/// Leaves so many problems as a person may want to read, errors before warnings; the last one says how many there are
/// besides.
fn cap(problems: &mut Vec<Diagnostic>) {
    let Some(more) = problems.len().checked_sub(MAX_TOLD).filter(|more| *more > 0) else { return };
    problems.sort_by_key(|problem| (problem.severity, problem.line, problem.column));
    problems.truncate(MAX_TOLD);
    problems.sort();
    if let Some(last) = problems.last_mut() {
        let _ = write!(last.message, "; and {more} more problems in this file");
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Yaml,
    Json,
}

/// The text of one document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chunk<'t> {
    pub(super) text: &'t str,
    /// How many lines of the file stand before it.
    pub(super) lines_before: u32,
}

impl Chunk<'_> {
    /// The file's line on which its content begins; `None` if it has none.
    fn first_line(&self) -> Option<u32> {
        let content = |line: &str| {
            let line = line.strip_prefix("---").unwrap_or(line).trim();
            !line.is_empty() && !line.starts_with('#') && !line.starts_with('%')
        };
        let line = self.text.lines().position(content)?;
        Some(self.lines_before + u32::try_from(line).unwrap_or(u32::MAX - self.lines_before) + 1)
    }

    pub(super) fn in_file(&self, at: Position) -> Position {
        Position { line: at.line + self.lines_before, column: at.column }
    }
}

/// Splits at `---` and `...`: at the beginning of a line these mean the same wherever they stand, so documents can be
/// read apart, and an error in one leaves the others whole.
fn split(text: &str) -> Vec<Chunk<'_>> {
    let (mut chunks, mut start, mut lines_before) = (Vec::new(), 0, 0);
    let mut offset = 0;
    for (line, number) in text.split_inclusive('\n').zip(0u32..) {
        let marks = |marker: &str| {
            line.strip_prefix(marker).is_some_and(|rest| rest.trim_start().len() < rest.len() || rest.is_empty())
        };
        let end = offset + line.len();
        if marks("---") {
            chunks.push(Chunk { text: &text[start..offset], lines_before });
            (start, lines_before) = (offset, number);
        } else if marks("...") {
            chunks.push(Chunk { text: &text[start..offset], lines_before });
            (start, lines_before) = (end, number + 1);
        }
        offset = end;
    }
    chunks.push(Chunk { text: &text[start..], lines_before });
    chunks
}

/// The file with each document of the first format written as `xene/v1`, and all others as they stand; `None` if it
/// can't be read.
pub(super) fn convert(path: &str, bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let format = if path.ends_with(".json") { Format::Json } else { Format::Yaml };
    let chunks = if format == Format::Json { vec![Chunk { text, lines_before: 0 }] } else { split(text) };
    let mut documents = Vec::new();
    for chunk in chunks.iter().filter(|chunk| chunk.first_line().is_some()) {
        let outline = Outline::read(chunk.text).ok()?;
        let is_legacy =
            outline.header("apiVersion") == Some(FIRST_VERSION) && outline.header("kind") == Some("Workflow");
        documents.push(if is_legacy {
            write(&read::<v1alpha1::Workflow>(format, chunk.text).ok()?.into())?
        } else {
            chunk.text.strip_prefix("---").unwrap_or(chunk.text).trim_start_matches(['\r', '\n']).to_owned()
        });
    }
    Some(documents.join("---\n"))
}

/// A workflow as people write it: without what says the default.
fn write(workflow: &Workflow) -> Option<String> {
    let mut value = serde_json::to_value(workflow).ok()?;
    let spec = &mut value["spec"];
    let each = |value: &mut Value, visit: &mut dyn FnMut(&mut Value)| {
        value.as_object_mut().into_iter().flat_map(|map| map.values_mut()).for_each(visit);
    };
    let forget = |value: &mut Value, field: &str, default: Value| {
        if value.get(field) == Some(&default)
            && let Some(map) = value.as_object_mut()
        {
            map.shift_remove(field);
        }
    };
    each(&mut spec["triggers"], &mut |trigger| {
        forget(trigger, "catchUp", "Latest".into());
        forget(trigger, "startingDeadline", "1h".into());
        forget(trigger, "jitter", "0s".into());
    });
    forget(spec, "triggers", Value::Null);
    each(&mut spec["pipelines"], &mut |pipeline| {
        forget(pipeline, "concurrency", json!({"max": 1, "policy": "Queue"}));
    });
    serde_yaml::to_string(&value).ok()
}

fn document(
    path: &str,
    format: Format,
    chunk: &Chunk<'_>,
    line: u32,
    (found, limits): (Option<&[Travelling]>, Limits),
    parsed: &mut Parsed,
) {
    if format == Format::Json
        && let Some(at) = too_many_values(chunk.text)
    {
        parsed.problems.push(refused(path, chunk, too_many(at)));
        return;
    }
    if needs_reading(chunk.text)
        && let Err(refusal) = Outline::read(chunk.text)
    {
        parsed.problems.push(refused(path, chunk, refusal));
        return;
    }
    let problems = match read(format, chunk.text) {
        Ok(workflow) => {
            let mut problems = rules::check(&workflow, found, limits);
            if format == Format::Yaml
                && rules::numbers::may_read_otherwise(chunk.text)
                && let Ok(outline) = Outline::read(chunk.text)
            {
                problems.extend(rules::numbers::check(&workflow, |at| outline.plain_at(at)));
            }
            parsed.workflows.push((workflow, line));
            problems
        }
        Err(error) => {
            if let Some(problem) = broken(path, format, chunk) {
                parsed.problems.push(problem);
                return;
            }
            let outline = match Outline::read(chunk.text) {
                Ok(outline) => Some(outline),
                Err(refusal) if refusal.rule.code != file::SYNTAX.code => {
                    parsed.problems.push(refused(path, chunk, refusal));
                    return;
                }
                // The readers disagree on what YAML is: the first one's words will do.
                Err(_) => None,
            };
            match classify(outline.as_ref()) {
                Kind::Workflow => {
                    parsed.problems.extend(misshapen(path, chunk, (line, outline), &error, limits));
                    return;
                }
                Kind::Legacy => match read::<v1alpha1::Workflow>(format, chunk.text) {
                    Ok(workflow) => legacy(workflow.into(), line, limits, parsed),
                    Err(error) => {
                        let place = (line, outline.as_ref());
                        parsed.problems.extend(explain::<v1alpha1::Workflow>(path, chunk, place, &error).problems);
                        return;
                    }
                },
                Kind::Test => match read::<WorkflowTest>(format, chunk.text) {
                    Ok(test) => {
                        let document = TestDocument::new(path, line, test, outline, *chunk);
                        parsed.problems.extend(document.check(None));
                        parsed.tests.push(document);
                        return;
                    }
                    Err(error) => {
                        let place = (line, outline.as_ref());
                        parsed.problems.extend(explain::<WorkflowTest>(path, chunk, place, &error).problems);
                        return;
                    }
                },
                Kind::Notifier => match read::<Notifier>(format, chunk.text) {
                    Ok(notifier) => {
                        let problems = rules::notifier::check(&notifier);
                        parsed.notifiers.push((notifier, line));
                        problems
                    }
                    Err(error) => {
                        let place = (line, outline.as_ref());
                        parsed.problems.extend(explain::<Notifier>(path, chunk, place, &error).problems);
                        return;
                    }
                },
                Kind::NotOurs(None) => {
                    parsed.ignored += 1;
                    return;
                }
                Kind::NotOurs(Some(remark)) => {
                    parsed.ignored += 1;
                    vec![remark]
                }
                Kind::Refused(problem) => vec![problem],
            }
        }
    };
    if !problems.is_empty() {
        let outline = Outline::read(chunk.text).ok();
        let place = |problem| placed(path, chunk, line, outline.as_ref(), problem);
        parsed.problems.extend(problems.into_iter().map(place));
    }
}

/// What is wrong with a document that is meant for a workflow: its form, and what the rules say of all that is in form.
fn misshapen(
    path: &str,
    chunk: &Chunk<'_>,
    (line, outline): (u32, Option<Outline>),
    error: &ReadError,
    limits: Limits,
) -> Vec<Diagnostic> {
    let Explained { mut problems, rest } = explain::<Workflow>(path, chunk, (line, outline.as_ref()), error);
    if let (Some((rest, without)), Some(mut outline)) = (rest, outline) {
        let unknown = outline.remove(&without);
        let broken = rules::check_rest(&rest, &unknown, limits);
        problems.extend(broken.into_iter().map(|problem| placed(path, chunk, line, Some(&outline), problem)));
    }
    problems
}

/// Takes a workflow of the first format without the pipelines that need a container. If none is left its document is
/// refused, and no other.
fn legacy(mut workflow: Workflow, line: u32, limits: Limits, parsed: &mut Parsed) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (name, pipeline) in &workflow.spec.pipelines {
        if let Some(Executor::Container { .. }) = &pipeline.executor {
            let at = ["spec", "pipelines", name.as_str(), "executor"].map(|key| Segment::Key(key.into())).into();
            let message =
                format!("pipeline `{name}` needs a container, which this version can't run yet: it is left out");
            let hint =
                Some("`xene validate --convert FILE` prints it in today's format, to be written for a shell".into());
            problems.push(Problem { rule: &file::NEEDS_CONTAINER, at, at_key: true, message, hint, within: None });
        }
    }
    let mut pipelines = workflow.spec.pipelines.into_inner();
    let mut left = pipelines.clone();
    left.retain(|_, pipeline| !matches!(pipeline.executor, Some(Executor::Container { .. })));
    pipelines.values_mut().for_each(|pipeline| pipeline.executor = None);
    workflow.spec.pipelines = pipelines.into();
    // What is left out is checked, too. Its format has no files that travel.
    problems.extend(rules::check(&workflow, None, limits));
    if left.is_empty() && !workflow.spec.pipelines.is_empty() {
        parsed.refused.push(workflow.metadata.name);
    } else {
        workflow.spec.pipelines = left.into();
        parsed.workflows.push((workflow, line));
    }
    problems
}

/// An error of either reader: what it says, and where, if it knows.
#[derive(Debug)]
pub(super) struct ReadError {
    pub(super) message: String,
    pub(super) at: Option<Position>,
}

impl From<serde_yaml::Error> for ReadError {
    fn from(error: serde_yaml::Error) -> Self {
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let at = error.location().map(|at| Position { line: number(at.line()), column: number(at.column()) });
        Self { message: error.to_string(), at }
    }
}

impl From<serde_json::Error> for ReadError {
    fn from(error: serde_json::Error) -> Self {
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let at = Position { line: number(error.line().max(1)), column: number(error.column().max(1)) };
        Self { message: error.to_string(), at: Some(at) }
    }
}

/// Reads one document as `T`.
fn read<'t, T: Deserialize<'t>>(format: Format, text: &'t str) -> Result<T, ReadError> {
    match format {
        Format::Yaml => Ok(T::deserialize(serde_yaml::Deserializer::from_str(text))?),
        Format::Json => Ok(serde_json::from_str(text)?),
    }
}

/// What is wrong with a text that is no YAML or JSON at all; `None` if it is.
fn broken(path: &str, format: Format, chunk: &Chunk<'_>) -> Option<Diagnostic> {
    let error =
        read::<IgnoredAny>(format, chunk.text).err().filter(|error| !error.message.contains("recursion limit"))?;
    let at = error.at.unwrap_or(Position { line: 1, column: 1 });
    let conflict = |line: &str| line.starts_with("<<<<<<< ") || line.starts_with(">>>>>>> ");
    if let Some((_, number)) = chunk.text.lines().zip(1u32..).find(|(line, _)| conflict(line)) {
        let message = "a merge conflict stands here".into();
        let hint = Some("resolve it, and commit the file again".into());
        let at = chunk.in_file(Position { line: number, column: 1 });
        return Some(diagnostic(path, &file::CONFLICT, at, message, hint));
    }
    let line = chunk.text.lines().nth(at.line.saturating_sub(1) as usize).unwrap_or_default();
    let indentation = &line[..line.len() - line.trim_start_matches([' ', '\t']).len()];
    if let (Format::Yaml, Some(tab)) = (format, indentation.find('\t')) {
        let at = chunk.in_file(Position { line: at.line, column: u32::try_from(tab + 1).unwrap_or(1) });
        let message = "a tab stands in the indentation, where YAML takes only spaces".into();
        return Some(diagnostic(path, &file::TAB, at, message, None));
    }
    let name = if format == Format::Json { "JSON" } else { "YAML" };
    let message = format!("this is not {name}: {}", without_place(&error.message));
    Some(diagnostic(path, &file::SYNTAX, chunk.in_file(at), message, None))
}

/// The text without the ` at line 3 column 4` in it, which says it in lines of the document, not of the file.
pub(super) fn without_place(message: &str) -> String {
    let mut text = message.to_owned();
    while let Some(start) = text.find(" at line ") {
        let rest = &text[start + " at line ".len()..];
        let digits = |rest: &str| rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let mut length = digits(rest);
        if let Some(column) = rest[length..].strip_prefix(" column ") {
            length += " column ".len() + digits(column);
        }
        text.replace_range(start..start + " at line ".len() + length, "");
    }
    text
}

/// The `apiVersion` of the first xene.
const FIRST_VERSION: &str = "v1alpha1";

/// What a document that is YAML, but no workflow, may be.
enum Kind {
    Workflow,
    /// Tests of a workflow.
    Test,
    /// Who is told of what.
    Notifier,
    /// Of the first format.
    Legacy,
    /// Passed over, perhaps with a remark.
    NotOurs(Option<Problem>),
    Refused(Problem),
}

fn classify(outline: Option<&Outline>) -> Kind {
    // The two readers disagree on this text: the words of the first one will do.
    let Some(outline) = outline else { return Kind::Workflow };
    if !outline.is_map() {
        return Kind::NotOurs(None);
    }
    let refuse = |rule, key: &str, message: String, hint: String| {
        let at = vec![Segment::Key(key.into())];
        Kind::Refused(Problem { rule, at, at_key: false, message, hint: Some(hint), within: None })
    };
    let smallest = format!("a workflow begins with `apiVersion: {API_VERSION}` and `kind: Workflow`");
    match (outline.header("apiVersion"), outline.header("kind")) {
        (None, None) => {
            let has = |key| outline.header(key).is_some();
            let remark = Problem {
                rule: &file::NEARLY_OURS,
                at: Vec::new(),
                at_key: false,
                message: "this document is passed over: it has neither `apiVersion` nor `kind`".into(),
                hint: Some(smallest),
                within: None,
            };
            Kind::NotOurs(((has("metadata") && has("spec")) || has("pipelines")).then_some(remark))
        }
        (Some(FIRST_VERSION), Some("Workflow")) => Kind::Legacy,
        (Some(FIRST_VERSION), _) => {
            let message = format!("of `{FIRST_VERSION}` only `kind: Workflow` belongs into a file");
            refuse(&file::UNKNOWN_KIND, "apiVersion", message, "list the file in .xeneignore".into())
        }
        (Some(API_VERSION), Some("Secret")) => {
            let message = "secrets can't be read by this version yet".into();
            refuse(
                &file::LATER_KIND,
                "kind",
                message,
                "keep it out of the folder for now, or list it in .xeneignore".into(),
            )
        }
        (Some(API_VERSION), Some("Workflow") | None) | (None, Some("Workflow")) => Kind::Workflow,
        (Some(API_VERSION), Some("WorkflowTest")) => Kind::Test,
        (Some(API_VERSION), Some("Notifier")) => Kind::Notifier,
        (Some(API_VERSION), Some(kind)) => {
            let message = format!("there is no kind `{kind}`");
            refuse(&file::UNKNOWN_KIND, "kind", message, smallest)
        }
        (Some(version), _) => {
            let message = format!("`apiVersion: {version}` is not one of xene's");
            refuse(&file::UNKNOWN_KIND, "apiVersion", message, format!("{smallest}; list other files in .xeneignore"))
        }
        (None, Some(_)) => {
            let message = "`apiVersion` is missing".into();
            refuse(&file::UNKNOWN_KIND, "kind", message, format!("{smallest}; list other files in .xeneignore"))
        }
    }
}

fn refused(path: &str, chunk: &Chunk<'_>, refusal: Refusal) -> Diagnostic {
    let Refusal { rule, at, message } = refusal;
    let message = if *rule == file::SYNTAX { format!("this is not YAML: {message}") } else { message };
    diagnostic(path, rule, chunk.in_file(at), message, None)
}

/// Gives a problem its place in the file.
pub(super) fn placed(
    path: &str,
    chunk: &Chunk<'_>,
    line: u32,
    outline: Option<&Outline>,
    problem: Problem,
) -> Diagnostic {
    let Problem { rule, at, at_key, message, hint, within } = problem;
    let place = outline.and_then(|outline| outline.locate(&at, at_key));
    let place = place.map(|at| within.and_then(|within| inside(chunk.text, at, &within)).unwrap_or(at));
    let place = place.map(|at| chunk.in_file(at));
    diagnostic(path, rule, place.unwrap_or(Position { line, column: 1 }), message, hint)
}

/// Where a place in the text of the scalar at `at` is, if the source shows that text as it is: in a literal block, or on
/// one line without quotes.
fn inside(source: &str, at: Position, within: &Within) -> Option<Position> {
    let Within { line, text, start } = within;
    let down = u32::try_from(*line).ok()?;
    let shown = source.lines().nth(usize::try_from(at.line + down).ok()?.checked_sub(1)?)?;
    let margin = usize::try_from(at.column).ok()?.checked_sub(1)?;
    let begin = shown.char_indices().nth(margin).map(|(begin, _)| begin)?;
    let is_shown = shown[begin..].starts_with(text) && (*line == 0 || shown[..begin].trim_start().is_empty());
    let column = margin + text[..*start].chars().count() + 1;
    is_shown.then_some(Position { line: at.line + down, column: u32::try_from(column).ok()? })
}

pub(super) fn diagnostic(path: &str, rule: &Rule, at: Position, message: String, hint: Option<String>) -> Diagnostic {
    let (code, severity) = (rule.code.to_owned(), rule.severity);
    let hint = Some(hint.unwrap_or_else(|| rule.hint.to_owned()));
    Diagnostic { path: path.into(), line: at.line, column: at.column, code, severity, message, hint }
}
