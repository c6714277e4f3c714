//! What the deserializer's errors mean, in the language's own words, with a place and a hint.

use std::collections::HashSet;

use serde::de::DeserializeOwned;
use xene_schemas::diagnostic::Diagnostic;

use super::{
    outline::{Content, Outline, Position},
    parse::{Chunk, ReadError, diagnostic, without_place},
    reread::{Entry, Failure, read},
    rules::{Rule, file, suggest},
};

/// How many problems of one document are told.
const MAX_PROBLEMS: usize = 20;
/// How many values are read again at most, until all problems of a document are found.
const MAX_EFFORT: usize = 400_000;

/// Why a document is no `T`, and what it is but for that.
pub(super) struct Explained<T> {
    pub(super) problems: Vec<Diagnostic>,
    /// The document without the entries that are wrong; `None` if they are not all known.
    pub(super) rest: Option<(T, HashSet<Entry>)>,
}

/// Says why a document is no `T`. It is read again, each time without what was found to be wrong, until nothing is.
pub(super) fn explain<T: DeserializeOwned>(
    path: &str,
    chunk: &Chunk<'_>,
    (line, outline): (u32, Option<&Outline>),
    error: &ReadError,
) -> Explained<T> {
    let (mut found, mut rest) = (Vec::new(), None);
    if let Some(outline) = outline {
        let mut without = HashSet::new();
        for _ in 0..(MAX_EFFORT / outline.nodes.len().max(1)).max(1) {
            let failure = match read::<T>(outline, &without) {
                Ok(value) => {
                    rest = Some((value, without));
                    break;
                }
                Err(failure) => failure,
            };
            let (problem, wrong) = problem(outline, &without, failure);
            if let Some((Meaning { rule, message, hint, .. }, at)) = problem {
                found.push(diagnostic(path, rule, chunk.in_file(at), message, hint));
            }
            let goes_on = wrong.is_some_and(|entry| without.insert(entry)) && found.len() < MAX_PROBLEMS;
            if !goes_on {
                break;
            }
        }
    }
    if found.is_empty() {
        // The two readers disagree on this text: the words of the first one will do.
        let Meaning { rule, message, hint, .. } = meaning(&essence(&error.message));
        let at = error.at.map(|at| chunk.in_file(at)).unwrap_or(Position { line, column: 1 });
        found.push(diagnostic(path, rule, at, message, hint));
        rest = None;
    }
    Explained { problems: found, rest }
}

/// What a failure says and where, and the entry that is wrong, if it is not the whole document. What follows only from
/// what was taken out before is no problem of its own.
fn problem(
    outline: &Outline,
    without: &HashSet<Entry>,
    Failure { message, way, at_key }: Failure,
) -> (Option<(Meaning, Position)>, Option<Entry>) {
    let innermost = way.first().copied();
    let node = innermost.map_or(outline.nodes.len() - 1, |entry| outline.value(entry));
    if !at_key && without.iter().any(|(of, _)| *of == outline.resolved(node)) {
        return (None, innermost);
    }
    let mut meaning = meaning(&essence(&message));
    if *meaning.rule == file::DUPLICATE_KEY
        && let Some(message) = innermost.and_then(|entry| said_otherwise(outline, entry))
    {
        (meaning.message, meaning.hint) = (message, None);
    }
    let key_of = |entry: Entry| outline.key(entry).map(|key| key.at);
    let (at, wrong) = match &meaning.target {
        _ if at_key => (innermost.and_then(key_of), innermost),
        Target::Here => (None, innermost),
        Target::Key => (innermost.and_then(key_of), innermost),
        Target::Child(key) => {
            let entry = outline.entry_named(node, key);
            (entry.and_then(key_of), entry.or(innermost))
        }
    };
    let at = at.unwrap_or(outline.nodes[node].at);
    (Some((meaning, at)), wrong)
}

/// What to say of a key that stands in its map once, beside another spelling of it.
fn said_otherwise(outline: &Outline, (node, entry): Entry) -> Option<String> {
    let Content::Map(entries) = &outline.nodes[node].content else { return None };
    let this = &entries.get(entry)?.0.text;
    let spellings = SPELLINGS.iter().find(|(one, other)| one == this || other == this)?;
    let other = if spellings.0 == this { spellings.1 } else { spellings.0 };
    let count = |text: &str| entries.iter().filter(|(key, _)| key.text == text).count();
    (count(this) == 1 && count(other) > 0).then(|| format!("`{this}` and `{other}` say the same; write one of them"))
}

/// Fields that have two spellings.
const SPELLINGS: &[(&str, &str)] = &[("trigger", "triggers"), ("schedule", "expression"), ("timeZone", "timezone")];

/// The message without the path before it and the place after it.
fn essence(message: &str) -> String {
    let message = without_place(message);
    match message.split_once(": ") {
        Some((path, rest)) if !path.contains(' ') => rest.into(),
        _ => message,
    }
}

/// Which place is meant.
enum Target {
    /// The value that the trace leads to.
    Here,
    /// Its key.
    Key,
    /// A key within it.
    Child(String),
}

struct Meaning {
    rule: &'static Rule,
    message: String,
    hint: Option<String>,
    target: Target,
}

fn meaning(message: &str) -> Meaning {
    let quoted = |rest: &str, quote: char| rest.split(quote).next().unwrap_or_default().to_owned();
    if let Some(rest) = message.strip_prefix("unknown field `") {
        let field = quoted(rest, '`');
        let hint = other_systems_word(&field, rest).or_else(|| suggest(&field, choices(rest)));
        let message = format!("unknown field `{field}`");
        return Meaning { rule: &file::UNKNOWN_FIELD, message, hint, target: Target::Child(field) };
    }
    if let Some(rest) = message.strip_prefix("missing field `") {
        let message = format!("`{}` is missing", quoted(rest, '`'));
        return Meaning { rule: &file::MISSING_FIELD, message, hint: None, target: Target::Key };
    }
    if let Some(rest) = message.strip_prefix("duplicate field `") {
        return duplicate(quoted(rest, '`'));
    }
    if let Some(rest) = message.strip_prefix("duplicate key \"") {
        return duplicate(quoted(rest, '"'));
    }
    if let Some(rest) = message.strip_prefix("unknown variant `") {
        let given = quoted(rest, '`');
        let hint = suggest(&given, choices(rest));
        let message = format!("`{given}` is not one of the values that this takes");
        return Meaning { rule: &file::WRONG_VALUE, message, hint, target: Target::Here };
    }
    if let Some(rest) = message.strip_prefix("invalid type: ")
        && let Some((found, expected)) = rest.rsplit_once(", expected ")
    {
        let message = format!("expected {}, found {}", plain(expected), plain(found));
        return Meaning { rule: &file::WRONG_VALUE, message, hint: None, target: Target::Here };
    }
    if let Some(rest) = message.strip_prefix("invalid value: ")
        && let Some((found, expected)) = rest.rsplit_once(", expected ")
    {
        let message = format!("expected {}, found {}", range(expected), plain(found));
        return Meaning { rule: &file::WRONG_VALUE, message, hint: None, target: Target::Here };
    }
    let rule = if message.starts_with("a name h") { &file::BAD_NAME } else { &file::WRONG_VALUE };
    Meaning { rule, message: message.into(), hint: None, target: Target::Here }
}

/// What other systems call a field of ours.
const OTHER_WORDS: &[(&str, &[&str])] = &[
    ("dependencies", &["needs", "depends", "dependsOn", "depends_on", "requires"]),
    ("when", &["if", "condition", "only"]),
    ("steps", &["script", "commands", "run", "command", "cmd"]),
    ("run", &["script", "command", "cmd", "exec", "args"]),
    ("env", &["environment", "variables", "vars"]),
    ("params", &["inputs", "parameters", "arguments"]),
    ("pipelines", &["jobs", "stages", "tasks"]),
    ("tasks", &["jobs", "stages", "templates", "steps"]),
    ("triggers", &["on", "schedule", "schedules", "cron"]),
    ("schedule", &["cron", "cronConfig", "expression"]),
    ("timeZone", &["tz", "timezone", "time_zone"]),
    ("agents", &["runs-on", "runsOn", "nodeSelector", "tags", "runner"]),
    ("executor", &["image", "container"]),
    ("allowFailure", &["continue-on-error", "continueOnError", "ignoreFailure", "allow_failure"]),
    ("workingDir", &["working-directory", "workingDirectory", "workdir", "cwd", "dir"]),
    ("timeout", &["timeout-minutes", "timeoutSeconds", "activeDeadlineSeconds"]),
    ("concurrency", &["concurrencyPolicy", "concurrency_policy"]),
    ("startingDeadline", &["startingDeadlineSeconds", "deadline"]),
    ("finally", &["after_script", "onExit", "always"]),
    ("delay", &["interval", "wait"]),
    ("attempts", &["limit", "max", "retries", "times"]),
    ("retry", &["retries", "retryStrategy", "backoffLimit"]),
    ("matrix", &["strategy", "withItems"]),
    ("history", &["successfulJobsHistoryLimit", "failedJobsHistoryLimit"]),
];

/// A hint, if `field` is another system's word for one of those that there are.
fn other_systems_word(field: &str, rest: &str) -> Option<String> {
    let is_theirs = |words: &[&str]| words.iter().any(|word| word.eq_ignore_ascii_case(field));
    let ours = choices(rest).find(|ours| OTHER_WORDS.iter().any(|(own, words)| own == ours && is_theirs(words)))?;
    Some(format!("here it is called `{ours}`"))
}

fn duplicate(key: String) -> Meaning {
    let message = format!("the key `{key}` stands twice in this map");
    Meaning { rule: &file::DUPLICATE_KEY, message, hint: None, target: Target::Here }
}

/// What would have been right, in the words of serde: each between backticks, after the one that was wrong.
fn choices(rest: &str) -> impl Iterator<Item = &str> {
    rest.split('`').skip(2).step_by(2)
}

/// serde's words for kinds of numbers, where one is of the kind, but out of its range.
fn range(kind: &str) -> String {
    let range = |least: i64, most: u64| format!("a whole number from {least} to {most}");
    match kind {
        "u8" => range(0, u8::MAX.into()),
        "u16" => range(0, u16::MAX.into()),
        "u32" => range(0, u32::MAX.into()),
        "u64" | "usize" => range(0, u64::MAX),
        "i32" => range(i32::MIN.into(), i32::MAX.unsigned_abs().into()),
        "i64" => range(i64::MIN, i64::MAX.unsigned_abs()),
        _ => plain(kind),
    }
}

/// serde's words for kinds of values, in those of YAML's users.
fn plain(kind: &str) -> String {
    match kind {
        "unit value" | "null" | "Option value" => "nothing".into(),
        "map" | "a map" => "a map".into(),
        "sequence" | "a sequence" => "a list".into(),
        "a string" | "string" => "text".into(),
        "a boolean" => "true or false".into(),
        "i8" | "i16" | "i32" | "i64" | "isize" | "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number".into(),
        "f32" | "f64" => "a number".into(),
        _ if kind.starts_with("struct ") => "a map".into(),
        _ if kind.contains("tagged enum") => "a map with `type`".into(),
        _ => match kind.split_once(' ') {
            Some(("string", text)) => format!("the text {text}"),
            Some(("integer" | "floating", number)) => {
                let number = number.trim_start_matches("point ").replace('`', "");
                number.trim_end_matches(" as u128").trim_end_matches(" as i128").to_owned()
            }
            Some(("boolean", truth)) => truth.replace('`', ""),
            _ => kind.into(),
        },
    }
}
