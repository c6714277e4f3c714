//! What the parser of a command line says, as one sentence and a hint, for both binaries.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// True for what is shown as clap has it: help, also for a command that lacks its subcommand, and the version.
pub fn is_shown_whole(error: &clap::Error) -> bool {
    !error.use_stderr() || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
}

/// One sentence that says what is wrong, and a hint; `args` is the command line, of which `command` is the definition.
pub fn explain(error: &clap::Error, command: &clap::Command, args: &[OsString]) -> (String, String) {
    let text = error.to_string();
    let command = command_of(command, args);
    let arg = list(error, ContextKind::InvalidArg);
    let value = list(error, ContextKind::InvalidValue);
    let cause = std::error::Error::source(error).map(ToString::to_string);
    let valid = list(error, ContextKind::ValidValue);
    let message = match error.kind() {
        ErrorKind::MissingRequiredArgument => format!("`{command}` needs {arg}"),
        ErrorKind::UnknownArgument if arg.starts_with('-') => format!("`{command}` has no flag {arg}"),
        ErrorKind::UnknownArgument => format!("`{command}` takes no argument {arg:?} there"),
        ErrorKind::InvalidSubcommand => {
            format!("`{command}` has no command {:?}", list(error, ContextKind::InvalidSubcommand))
        }
        ErrorKind::InvalidValue if value.is_empty() => format!("{arg} needs a value"),
        ErrorKind::InvalidValue => format!("{value:?} is no value of {arg}"),
        ErrorKind::ValueValidation => match cause {
            Some(cause) => format!("{value:?} is no value of {arg}: {}", plain(&cause)),
            None => format!("{value:?} is no value of {arg}"),
        },
        _ => first_sentence(&text),
    };
    let suggested =
        [ContextKind::SuggestedArg, ContextKind::SuggestedSubcommand, ContextKind::SuggestedValue].map(|kind| {
            match error.get(kind) {
                // The likeliest comes last.
                Some(ContextValue::Strings(texts)) => texts.iter().rev().cloned().collect::<Vec<_>>().join(", "),
                _ => list(error, kind),
            }
        });
    let hint = match suggested.into_iter().find(|text| !text.is_empty()) {
        Some(text) => format!("did you mean {text}?"),
        None if !valid.is_empty() => format!("it takes {valid}"),
        None => format!("`{command} --help` shows what it takes"),
    };
    (message, hint)
}

/// The words of the library for numbers and addresses, in those of people; any others are our own.
fn plain(cause: &str) -> String {
    let at_least = |least: &str| format!("expected a number, at least {least}");
    match cause {
        "number would be zero for non-zero type" => return at_least("1"),
        "invalid digit found in string" | "cannot parse integer from empty string" => {
            return "expected a whole number".to_owned();
        }
        "number too large to fit in target type" => return "the number is too large".to_owned(),
        "number too small to fit in target type" => return "the number is too small".to_owned(),
        "invalid socket address syntax" => return "expected ADDRESS:PORT, such as 127.0.0.1:7420".to_owned(),
        _ => {}
    }
    match cause.split_once(" is not in ").and_then(|(_, range)| range.split_once("..")) {
        Some((least, most)) => {
            let most = most.trim_start_matches('=');
            let is_any = most.is_empty() || [u32::MAX.to_string(), u64::MAX.to_string()].iter().any(|any| any == most);
            if is_any { at_least(least) } else { format!("expected a number from {least} to {most}") }
        }
        None => cause.to_owned(),
    }
}

/// `xene`, `xene trigger`, …: the command that a command line means, as far as it is one.
fn command_of(mut command: &clap::Command, args: &[OsString]) -> String {
    let mut path = command.get_name().to_owned();
    for word in args.iter().skip(1).filter_map(|arg| arg.to_str()) {
        // Flags and their values may stand between.
        if let Some(found) = command.find_subcommand(word) {
            path.push(' ');
            path += found.get_name();
            command = found;
        }
    }
    path
}

/// What clap's error holds of one kind.
fn list(error: &clap::Error, kind: ContextKind) -> String {
    match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        Some(ContextValue::Strings(texts)) => texts.join(", "),
        Some(other) => other.to_string(),
        None => String::new(),
    }
}

/// clap's own words, for errors that have no better ones.
fn first_sentence(text: &str) -> String {
    let lines = text.lines().map(str::trim).take_while(|line| !line.is_empty());
    let sentence = lines.collect::<Vec<_>>().join(" ");
    sentence.strip_prefix("error: ").unwrap_or(&sentence).to_owned()
}
