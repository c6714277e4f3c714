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
            Some(cause) => format!("{value:?} is no value of {arg}: {cause}"),
            None => format!("{value:?} is no value of {arg}"),
        },
        _ => first_sentence(&text),
    };
    let suggested = [ContextKind::SuggestedArg, ContextKind::SuggestedSubcommand, ContextKind::SuggestedValue]
        .map(|kind| list(error, kind));
    let hint = match suggested.into_iter().find(|text| !text.is_empty()) {
        Some(text) => format!("did you mean {text}?"),
        None if !valid.is_empty() => format!("it takes {valid}"),
        None => format!("`{command} --help` shows what it takes"),
    };
    (message, hint)
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
