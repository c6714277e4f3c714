//! What the deserializer's errors mean, in the language's own words, with a place and a hint.

use serde::de::DeserializeOwned;
use serde_path_to_error::{Deserializer, Segment as Traced, Track};
use xene_schemas::diagnostic::Diagnostic;

use super::{
    outline::{Outline, Position},
    parse::{Chunk, Format, ReadError, diagnostic, without_place},
    path::Segment,
    rules::{Rule, file, suggest},
};

/// Says why a document is no `T`. Its text is read once more, tracing where the error comes from.
pub(super) fn explain<T: DeserializeOwned>(
    path: &str,
    format: Format,
    chunk: &Chunk<'_>,
    (line, outline): (u32, Option<&Outline>),
    error: &ReadError,
) -> Diagnostic {
    let trace = trace::<T>(format, chunk.text);
    let Meaning { rule, message, hint, target } = meaning(&essence(&error.message));
    let place = outline.and_then(|outline| match &target {
        Target::Here => {
            // A value that is wrong in itself stands at the path; a bad key is quoted by its own error.
            let at_key = matches!(trace.last(), Some(Segment::Key(key)) if message.contains(&format!("{key:?}")));
            outline.locate(&trace, at_key)
        }
        Target::Key => outline.locate(&trace, true),
        Target::Child(key) => outline.find_key(parent_of(&trace, key), key),
        Target::Second(key) => outline.repeated(parent_of(&trace, key), key),
    });
    let place = place.or(error.at).map(|at| chunk.in_file(at)).unwrap_or(Position { line, column: 1 });
    diagnostic(path, rule, place, message, hint)
}

/// Where in the document reading stopped.
fn trace<T: DeserializeOwned>(format: Format, text: &str) -> Vec<Segment> {
    let mut track = Track::new();
    // The error itself is known; only the way to it is wanted.
    match format {
        Format::Yaml => {
            drop(T::deserialize(Deserializer::new(serde_yaml::Deserializer::from_str(text), &mut track)));
        }
        Format::Json => {
            let mut json = serde_json::Deserializer::from_str(text);
            drop(T::deserialize(Deserializer::new(&mut json, &mut track)));
        }
    }
    track
        .path()
        .iter()
        .map_while(|segment| match segment {
            Traced::Map { key } => Some(Segment::Key(key.clone())),
            Traced::Seq { index } => Some(Segment::Index(*index)),
            Traced::Enum { .. } | Traced::Unknown => None,
        })
        .collect()
}

/// The map that holds `key`: the trace may or may not name the key itself.
fn parent_of<'t>(trace: &'t [Segment], key: &str) -> &'t [Segment] {
    match trace.split_last() {
        Some((Segment::Key(last), parent)) if last == key => parent,
        _ => trace,
    }
}

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
    /// A key within it, where it stands the second time.
    Second(String),
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
        let hint = suggest(&field, choices(rest));
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
    let rule = if message.starts_with("a name h") { &file::BAD_NAME } else { &file::WRONG_VALUE };
    Meaning { rule, message: message.into(), hint: None, target: Target::Here }
}

fn duplicate(key: String) -> Meaning {
    let message = format!("the key `{key}` stands twice in this map");
    Meaning { rule: &file::DUPLICATE_KEY, message, hint: None, target: Target::Second(key) }
}

/// What would have been right, in the words of serde: each between backticks, after the one that was wrong.
fn choices(rest: &str) -> impl Iterator<Item = &str> {
    rest.split('`').skip(2).step_by(2)
}

/// serde's words for kinds of values, in those of YAML's users.
fn plain(kind: &str) -> String {
    match kind {
        "unit value" | "null" | "Option value" => "nothing".into(),
        "map" | "a map" => "a map".into(),
        "sequence" | "a sequence" => "a list".into(),
        "a string" | "string" => "text".into(),
        "a boolean" => "true or false".into(),
        "i32" | "i64" | "u32" | "u64" => "a whole number".into(),
        "f64" => "a number".into(),
        _ if kind.starts_with("struct ") => "a map".into(),
        _ if kind.contains("tagged enum") => "a map with `type`".into(),
        _ => match kind.split_once(' ') {
            Some(("string", text)) => format!("the text {text}"),
            Some(("integer" | "floating", number)) => number.trim_start_matches("point ").replace('`', ""),
            Some(("boolean", truth)) => truth.replace('`', ""),
            _ => kind.into(),
        },
    }
}
