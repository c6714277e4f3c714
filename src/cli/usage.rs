//! What the parser of the command line says, as one sentence and a hint, like every other error.

use std::{ffi::OsString, path::Path};

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::{Error, settings};

/// True for what is shown as clap has it: help, also for a command that lacks its subcommand, and the version.
pub fn is_shown_whole(error: &clap::Error) -> bool {
    !error.use_stderr() || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
}

/// One sentence and a hint; `args` is the command line, `file` where values may have come from besides.
pub fn explain(error: &clap::Error, args: &[OsString], file: Option<&Path>) -> Error {
    let text = error.to_string();
    let command = command_of(args);
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
    let mut hint = match suggested.into_iter().find(|text| !text.is_empty()) {
        Some(text) => format!("did you mean {text}?"),
        None if !valid.is_empty() => format!("it takes {valid}"),
        None => format!("`{command} --help` shows what it takes"),
    };
    if let Some(file) = file {
        hint = format!("{hint}; what is not on the command line may come from {}", file.display());
    }
    Error::usage_with_hint(message, hint)
}

/// `xene`, `xene trigger`, …: the command that a command line means, as far as it is one.
fn command_of(args: &[OsString]) -> String {
    let (mut command, mut path) = (&settings::command(), "xene".to_owned());
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

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::cli::settings::ParseError;

    fn told(line: &str) -> String {
        let args: Vec<_> = line.split(' ').map(OsString::from).collect();
        let error = match settings::parse(args.iter().cloned()) {
            Err(ParseError::Clap(error, file)) => explain(&error, &args, file.as_deref()),
            other => panic!("{other:?}"),
        };
        assert_eq!(error.status(), 2);
        format!("$ {line}\n{error}\n  {}\n", error.hint().unwrap_or_default())
    }

    #[test]
    fn each_mistake_is_one_sentence_with_a_hint() {
        let lines = [
            "xene nonsense",
            "xene triger w/p",
            "xene trigger",
            "xene trigger a/b c",
            "xene trigger a/b -p x",
            "xene trigger a/b --flow",
            "xene get pipelin",
            "xene status -o xml",
            "xene status -o",
            "xene status -o json -o yaml",
            "xene logs r --step s",
            "xene controller",
            "xene controller --source . --poll 5",
            "xene controller --source . --tls-cert c.pem",
            "xene agent --controller nowhere",
            "xene agents token create --uses 0",
        ];
        expect![[r#"
            $ xene nonsense
            `xene` has no command "nonsense"
              `xene --help` shows what it takes
            $ xene triger w/p
            `xene` has no command "triger"
              did you mean trigger?
            $ xene trigger
            `xene trigger` needs <PIPELINE>
              `xene trigger --help` shows what it takes
            $ xene trigger a/b c
            `xene trigger` takes no argument "c" there
              `xene trigger --help` shows what it takes
            $ xene trigger a/b -p x
            "x" is no value of --param <NAME=VALUE>: expected KEY=VALUE
              `xene trigger --help` shows what it takes
            $ xene trigger a/b --flow
            `xene trigger` has no flag --flow
              did you mean --follow?
            $ xene get pipelin
            "pipelin" is no value of <workflows|pipelines|runs|agents|events>
              did you mean pipelines?
            $ xene status -o xml
            "xml" is no value of --output <FORMAT>
              did you mean yaml?
            $ xene status -o
            --output <FORMAT> needs a value
              it takes table, wide, json, yaml, name
            $ xene status -o json -o yaml
            the argument '--output <FORMAT>' cannot be used multiple times
              `xene status --help` shows what it takes
            $ xene logs r --step s
            `xene logs` needs --task <TASK>
              `xene logs --help` shows what it takes
            $ xene controller
            `xene controller` needs --source <PATH-or-URL>
              `xene controller --help` shows what it takes
            $ xene controller --source . --poll 5
            "5" is no value of --poll <DURATION>: a duration is written like 500ms, 30s, 5m, 1h30m or 7d, unlike "5"
              `xene controller --help` shows what it takes
            $ xene controller --source . --tls-cert c.pem
            `xene controller` needs --tls-key <FILE>
              `xene controller --help` shows what it takes
            $ xene agent --controller nowhere
            "nowhere" is no value of --controller <HOST:PORT>: expected HOST:PORT, such as controller.example:7421
              `xene agent --help` shows what it takes
            $ xene agents token create --uses 0
            "0" is no value of --uses <N>: number would be zero for non-zero type
              `xene agents token create --help` shows what it takes
        "#]]
        .assert_eq(&lines.map(told).concat());
    }

    #[test]
    fn help_is_no_mistake() {
        for line in ["xene", "xene agents", "xene --help", "xene help logs", "xene --version"] {
            match settings::parse(line.split(' ').map(OsString::from)) {
                Err(ParseError::Clap(error, _)) => assert!(is_shown_whole(&error), "{line}"),
                other => panic!("{line}: {other:?}"),
            }
        }
    }
}
