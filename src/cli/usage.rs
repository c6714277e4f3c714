//! What the parser of the command line says, as one sentence and a hint, like every other error.

use std::{ffi::OsString, path::Path};

pub use xene_agent::usage::is_shown_whole;

use super::{Error, settings};

/// One sentence and a hint; `args` is the command line, `file` where values may have come from besides.
pub fn explain(error: &clap::Error, args: &[OsString], file: Option<&Path>) -> Error {
    let (message, mut hint) = xene_agent::usage::explain(error, &settings::command(), args);
    if let Some(file) = file {
        hint = format!("{hint}; what is not on the command line may come from {}", file.display());
    }
    Error::usage_with_hint(message, hint)
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
            "xene get source",
            "xene describe source x",
            "xene describe pipelin x",
            "xene status -o xml",
            "xene status -o",
            "xene status -o json -o yaml",
            "xene logs r --step s",
            "xene controller",
            "xene controller --source . --poll 5",
            "xene controller --source . --tls-cert c.pem",
            "xene agent --controller nowhere",
            "xene agents token create --uses 0",
            "xene history w --limit x",
            "xene history w --limit 0",
            "xene run a.yaml --slots 0",
            "xene dev --http bad",
        ];
        expect![[r#"
            $ xene nonsense
            `xene` has no command "nonsense"
              `xene --help` shows what it takes
            $ xene triger w/p
            `xene` has no command "triger"
              did you mean trigger, notifiers?
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
            "pipelin" is no value of <workflows|pipelines|runs|agents|notifiers|events>
              did you mean pipelines?
            $ xene get source
            "source" is no value of <workflows|pipelines|runs|agents|notifiers|events>
              it takes workflows, pipelines, runs, agents, notifiers, events
            $ xene describe source x
            "source" is no value of <workflow|pipeline|run|agent|notifier>
              it takes workflows, pipelines, runs, agents, notifiers
            $ xene describe pipelin x
            "pipelin" is no value of <workflow|pipeline|run|agent|notifier>
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
            "0" is no value of --uses <N>: expected a number, at least 1
              `xene agents token create --help` shows what it takes
            $ xene history w --limit x
            "x" is no value of --limit <N>: expected a whole number
              `xene history --help` shows what it takes
            $ xene history w --limit 0
            "0" is no value of --limit <N>: expected a number from 1 to 10000
              `xene history --help` shows what it takes
            $ xene run a.yaml --slots 0
            "0" is no value of --slots <N>: expected a number, at least 1
              `xene run --help` shows what it takes
            $ xene dev --http bad
            "bad" is no value of --http <ADDRESS>: expected ADDRESS:PORT, such as 127.0.0.1:7420
              `xene dev --help` shows what it takes
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
