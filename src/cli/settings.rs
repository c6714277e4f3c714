//! Parsing, and the settings of long-running commands: command line before environment before `--config FILE`.
//!
//! Every flag of `dev`, `controller` and `agent` gets its `XENE_<FLAG>` here, so that none can be forgotten. Values of
//! the file become the flags' defaults, so they pass the same checks as those typed.

use std::{ffi::OsString, fs, path::PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Command, CommandFactory, FromArgMatches};
use serde_yaml::Value;

use super::{Cli, Error};

/// The commands that run until they are told to stop.
const LONG_RUNNING: [&str; 3] = ["dev", "controller", "agent"];

/// Global flags that only clients heed.
const CLIENT_FLAGS: [&str; 4] = ["server", "token", "ca", "output"];

/// Why the command line can't be used.
#[derive(Debug)]
pub enum ParseError {
    /// clap's own words; also its help and version. With the file that values came from, if there is one.
    Clap(clap::Error, Option<PathBuf>),
    /// The file that `--config` names can't be used.
    File(Error),
}

/// The whole command, with the environment's names for the flags of long-running commands.
pub fn command() -> Command {
    LONG_RUNNING.iter().fold(Cli::command(), |command, name| {
        command.mut_subcommand(name, |command| {
            let command = command.mut_args(|arg| match arg.get_long() {
                Some(long) => {
                    let name = format!("XENE_{}", long.to_uppercase().replace('-', "_"));
                    arg.env(OsString::from(name)).hide_env_values(true)
                }
                None => arg,
            });
            // Flags of clients say nothing here.
            CLIENT_FLAGS.iter().fold(command, |command, name| {
                let taken = command.get_arguments().any(|arg| arg.get_id() == name);
                if taken { command } else { command.arg(Arg::new(name).long(name).hide(true)) }
            })
        })
    })
}

/// Parses a command line, the program's name first.
///
/// # Errors
/// If it makes no sense, or asks for help or the version.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Cli, ParseError> {
    let args: Vec<OsString> = args.into_iter().collect();
    // A first look finds only the file: what is missing on the command line may be in it.
    let look = command().ignore_errors(true).try_get_matches_from(&args);
    let config = look.ok().and_then(|matches| config_of(&matches));
    let mut command = match &config {
        Some((name, path)) => with_file(command(), name, path).map_err(ParseError::File)?,
        None => command(),
    };
    let file = config.map(|(_, path)| path);
    let matches = command.try_get_matches_from_mut(&args).map_err(|error| ParseError::Clap(error, file.clone()))?;
    Cli::from_arg_matches(&matches).map_err(|error| ParseError::Clap(error.format(&mut command), file))
}

/// `KEY=VALUE`, as labels and params are written; the key is not empty, the value taken as it stands.
///
/// # Errors
/// If the text is not of that form.
pub fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE".into()),
    }
}

fn config_of(matches: &ArgMatches) -> Option<(String, PathBuf)> {
    let (name, matches) = matches.subcommand()?;
    let path = matches.try_get_one::<PathBuf>("config").ok()??;
    Some((name.to_owned(), path.clone()))
}

/// Makes the values in a YAML map of flag names the defaults of a command's flags.
fn with_file(command: Command, name: &str, path: &PathBuf) -> Result<Command, Error> {
    let text = fs::read_to_string(path).map_err(|error| Error::file(path, &error))?;
    let usage = |message: String| {
        Error::usage_with_hint(
            format!("{}: {message}", path.display()),
            format!(
                "the file is a YAML map from the flags of `xene {name}` to their values, such as `data-dir: /srv/xene`"
            ),
        )
    };
    let values: Value = serde_yaml::from_str(&text).map_err(|error| usage(error.to_string()))?;
    let entries = match values {
        Value::Mapping(entries) => entries,
        Value::Null => return Ok(command),
        _ => return Err(usage("expected a map".into())),
    };
    let mut flags = Vec::new();
    for (key, value) in &entries {
        let key = key.as_str().ok_or_else(|| usage("a flag's name must be text".into()))?;
        let found = command.find_subcommand(name).and_then(|command| {
            command.get_arguments().find(|arg| arg.get_long() == Some(key) && key != "config" && !arg.is_hide_set())
        });
        let Some(arg) = found else { return Err(usage(format!("there is no flag --{key}"))) };
        let texts =
            texts(value).ok_or_else(|| usage(format!("{key} must be text, a number, true or false, or a list")))?;
        if texts.len() > 1 && !matches!(arg.get_action(), ArgAction::Append) {
            return Err(usage(format!("{key} takes one value")));
        }
        flags.push((arg.get_id().clone(), texts));
    }
    Ok(command.mut_subcommand(name, |command| {
        flags.into_iter().fold(command, |command, (id, texts)| {
            command.mut_arg(id, |arg| arg.required(false).default_values(texts.into_iter().map(OsString::from)))
        })
    }))
}

/// A value as the texts that one would type: a list is a flag given several times, a map is `key=value` each.
fn texts(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::Sequence(values) => values.iter().map(text).collect(),
        Value::Mapping(entries) => {
            entries.iter().map(|(key, value)| Some(format!("{}={}", text(key)?, text(value)?))).collect()
        }
        value => Some(vec![text(value)?]),
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Null | Value::Sequence(_) | Value::Mapping(_) | Value::Tagged(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::controller;

    fn parse_text(line: &str) -> Result<Cli, String> {
        parse(line.split(' ').map(OsString::from)).map_err(|error| match error {
            ParseError::Clap(error, _) => error.to_string(),
            ParseError::File(error) => error.to_string(),
        })
    }

    fn controller(line: &str) -> controller::Args {
        match parse_text(line).unwrap().command {
            super::super::Command::Controller(args) => *args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_flag_of_a_long_running_command_has_its_variable() {
        let command = command();
        for name in LONG_RUNNING {
            for arg in command.find_subcommand(name).unwrap().get_arguments().filter(|arg| !arg.is_hide_set()) {
                assert_eq!(arg.get_long().is_some(), arg.get_env().is_some(), "{name} {}", arg.get_id());
            }
        }
        let controller = command.find_subcommand("controller").unwrap();
        let data_dir = controller.get_arguments().find(|arg| arg.get_long() == Some("data-dir")).unwrap();
        assert_eq!(data_dir.get_env().unwrap(), "XENE_DATA_DIR");
    }

    #[test]
    fn the_file_fills_in_what_the_command_line_leaves_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("xene.yaml");
        fs::write(&path, "source: /srv/repo\npoll: 5m\ninsecure-http: true\nhttp: 0.0.0.0:1\n").unwrap();
        let args = controller(&format!("xene controller --config {} --poll 7s", path.display()));
        assert_eq!(args.source, "/srv/repo");
        assert_eq!(args.poll.to_string(), "7s", "the command line comes first");
        assert!(args.insecure_http);
        assert_eq!(args.http.port(), 1);

        fs::write(&path, "controller: [a]\n").unwrap();
        let refused = |text: &str| {
            fs::write(&path, text).unwrap();
            parse_text(&format!("xene agent --config {}", path.display())).unwrap_err()
        };
        assert!(refused("colour: blue\n").contains("there is no flag --colour"));
        assert!(refused("name: [a, b]\n").contains("name takes one value"));
        assert!(refused("- a\n").contains("expected a map"));
        assert!(refused("slots: none\ncontroller: c:1\n").contains("--slots"));
        let labels = "controller: c:7421\nlabel: {team: data, disk: ssd}\n";
        fs::write(&path, labels).unwrap();
        match parse_text(&format!("xene agent --config {}", path.display())).unwrap().command {
            super::super::Command::Agent(args) => assert_eq!(args.agent.label.len(), 2),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_first_equals_sign_parts_key_and_value() {
        assert_eq!(key_value("a= b=c"), Ok(("a".into(), " b=c".into())));
        assert!(key_value("a").is_err() && key_value("=b").is_err());
    }

    #[test]
    fn a_missing_file_is_told_by_its_name() {
        let error = parse_text("xene controller --config /no/such.yaml").unwrap_err();
        assert_eq!(error, "/no/such.yaml: no such file or directory");
    }
}
