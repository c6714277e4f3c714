//! The agent's command line, for both binaries that have it: `xene agent` and `xene-agent`.

use std::{ffi::OsString, num::NonZeroU32, path::PathBuf, process::ExitCode};

use clap::{ArgAction, CommandFactory, Parser};
use tokio::{
    runtime::Builder,
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use tracing_subscriber::EnvFilter;
use xene_schemas::meta::Labels;

use crate::{
    driver::{self, AgentError, Ending, Options},
    exec::become_parent_if_asked,
    session::{Transports, dial::DialError, identity::IdentityError},
    usage,
};

/// Arguments of an agent.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
pub struct Args {
    /// The controller's --quic address as seen from here.
    #[arg(long, value_name = "HOST:PORT", value_parser = host_and_port)]
    pub controller: String,

    /// What the controller is reached by: auto is QUIC (UDP), and TCP on the same port where UDP gets no answer.
    #[arg(long, value_name = "TRANSPORT", default_value = "auto", hide_possible_values = true)]
    pub transport: Transports,

    /// Join token of `xene agents token create`; needed once, afterwards the stored identity serves.
    #[arg(long, value_name = "JOIN", hide_env_values = true)]
    pub token: Option<String>,

    /// The agent's name [default: the host's name].
    #[arg(long, value_name = "NAME")]
    pub name: Option<xene_schemas::meta::AgentName>,

    /// A label, beside os, arch and hostname; may be repeated.
    #[arg(long = "label", value_name = "KEY=VALUE", value_delimiter = ',', value_parser = key_value)]
    pub label: Vec<(String, String)>,

    /// How many tasks may run at once [default: one for each CPU].
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub slots: Option<NonZeroU32>,

    /// Where state is kept [default: ~/.local/share/xene/agent].
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
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

fn at_least_one(text: &str) -> Result<NonZeroU32, String> {
    text.parse().map_err(|_| "expected a number, at least 1".into())
}

/// `HOST:PORT`; names are looked up at each dial, not here.
fn host_and_port(text: &str) -> Result<String, String> {
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0) => Ok(text.to_owned()),
        _ => Err("expected HOST:PORT, such as controller.example:7421".into()),
    }
}

impl Args {
    /// What the arguments say, with defaults from this machine; `data_dir` is used if none is given.
    ///
    /// # Errors
    /// If no name is given, and the host's is none that an agent may have.
    pub fn options(&self, data_dir: PathBuf) -> Result<Options, String> {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let name = match &self.name {
            Some(name) => name.clone(),
            None => {
                host.parse().map_err(|error| format!("the host's name can't be the agent's: {error}; give --name"))?
            }
        };
        let cpus = || std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX));
        Ok(Options {
            controller: self.controller.clone(),
            transports: self.transport,
            token: self.token.clone(),
            name,
            // Of a repeated key the last counts.
            labels: self.label.iter().cloned().collect::<Labels>(),
            slots: self.slots.map_or_else(cpus, NonZeroU32::get),
            data_dir: self.data_dir.clone().unwrap_or(data_dir),
        })
    }
}

impl AgentError {
    /// The exit status, as for every command of xene: 2 for what the operator must mend here, 3 for a controller that
    /// can't be reached, 5 for one that refuses, 1 for what failed.
    pub const fn exit_status(&self) -> u8 {
        match self {
            Self::Identity(IdentityError::Dial(DialError::Refused(_)) | IdentityError::Refused(_))
            | Self::Identity(IdentityError::Certificate(_))
            | Self::Refused(_) => 5,
            Self::Identity(IdentityError::Dial(_) | IdentityError::Broken(_) | IdentityError::Busy(_)) => 3,
            Self::Lock(_) | Self::Identity(_) | Self::NotJoined | Self::Token(_) => 2,
            Self::Journal(_) | Self::Commit(_) | Self::System { .. } => 1,
        }
    }
}

/// An error and its causes in one sentence.
pub fn sentence(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        // Some libraries repeat the cause in their own words.
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    without_numbers(&text)
}

/// The system's words, without the number that the standard library puts behind them.
fn without_numbers(text: &str) -> String {
    let mut parts = text.split(" (os error ");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        plain.push_str(part.split_once(')').map_or("", |(_, rest)| rest));
    }
    plain
}

/// Runs an agent on a runtime of its own until it is told to end: the first SIGTERM or Ctrl-C drains it, the second
/// cancels what runs; SIGHUP ends it at once and leaves what runs to the next process.
///
/// # Errors
/// If it can't start, or can't go on.
pub fn run(options: Options) -> Result<(), AgentError> {
    let system = |source| AgentError::System { what: "the system gives no runtime", source };
    let runtime = Builder::new_current_thread().enable_all().build().map_err(system)?;
    let ended = runtime.block_on(async {
        let (told, ending) = watch::channel(Ending::No);
        let mut terminate = signal(SignalKind::terminate()).map_err(system)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(system)?;
        let mut hangup = signal(SignalKind::hangup()).map_err(system)?;
        tokio::spawn(async move {
            // The loop ends by itself; the sender must outlive it.
            loop {
                let next = tokio::select! {
                    _ = hangup.recv() => Ending::Leave,
                    _ = terminate.recv() => told.borrow().next(),
                    _ = interrupt.recv() => told.borrow().next(),
                };
                match next {
                    Ending::Drain => tracing::info!("draining: finishing what runs; a second signal cancels it"),
                    Ending::Leave => tracing::info!("ending: leaving what runs to the next process"),
                    Ending::No | Ending::Stop => tracing::info!("stopping: cancelling what runs"),
                }
                told.send_replace(next);
            }
        });
        driver::run(options, ending).await
    });
    // Threads that watch steps do not end before the steps do.
    runtime.shutdown_background();
    ended
}

/// Logging to stderr: warnings with `-q`, more with each `-v`.
pub fn init_logging(quiet: bool, verbose: u8) {
    let level = match (quiet, verbose) {
        (true, _) => "warn",
        (false, 0) => "xene=info,xene_agent=info,warn",
        (false, 1) => "xene=debug,xene_agent=debug,info",
        (false, _) => "trace",
    };
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(level))
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(false);
    // Only the first call in a process counts.
    drop(subscriber.try_init());
}

/// `xene-agent`'s whole command line.
#[derive(Debug, Parser)]
#[command(name = "xene-agent", version, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    args: Args,
    /// Tell warnings only.
    #[arg(short, long)]
    quiet: bool,
    /// Tell more; twice for even more.
    #[arg(short, long, action = ArgAction::Count)]
    verbose: u8,
}

/// What a command line is that is no run of an agent.
#[derive(Debug)]
enum Unparsed {
    /// It asks for help or the version.
    Whole(clap::Error),
    /// It makes no sense: a sentence, and a hint.
    Mistake(String, String),
}

fn parse(args: &[OsString]) -> Result<Cli, Unparsed> {
    Cli::try_parse_from(args).map_err(|error| {
        if usage::is_shown_whole(&error) {
            return Unparsed::Whole(error);
        }
        let (message, hint) = usage::explain(&error, &Cli::command(), args);
        Unparsed::Mistake(message, hint)
    })
}

/// `xene-agent`: parses the process's arguments, runs the agent, tells errors; returns the exit status.
#[expect(clippy::print_stderr, reason = "this is where a person is told")]
pub fn main() -> ExitCode {
    become_parent_if_asked();
    let args: Vec<OsString> = std::env::args_os().collect();
    let cli = match parse(&args) {
        Ok(cli) => cli,
        Err(Unparsed::Whole(error)) => {
            // Help and version are results; a failed print has nobody left to be told of.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
        Err(Unparsed::Mistake(message, hint)) => {
            eprintln!("error: {message}\nhint: {hint}");
            return ExitCode::from(2);
        }
    };
    init_logging(cli.quiet, cli.verbose);
    let home =
        std::env::home_dir().map_or_else(|| PathBuf::from("/var/lib/xene"), |home| home.join(".local/share/xene"));
    let options = match cli.args.options(home.join("agent")) {
        Ok(options) => options,
        Err(message) => {
            eprintln!("error: {message}");
            return ExitCode::from(2);
        }
    };
    match run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", sentence(&error));
            ExitCode::from(error.exit_status())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mistake_is_one_sentence_with_a_hint() {
        let told = |line: &str| match parse(&line.split(' ').map(OsString::from).collect::<Vec<_>>()) {
            Err(Unparsed::Mistake(message, hint)) => format!("{message} | {hint}"),
            other => panic!("{line}: {other:?}"),
        };
        assert_eq!(
            told("xene-agent"),
            "`xene-agent` needs --controller <HOST:PORT> | `xene-agent --help` shows what it takes"
        );
        assert_eq!(
            told("xene-agent --controler c:1"),
            "`xene-agent` has no flag --controler | did you mean --controller?"
        );
        assert_eq!(
            told("xene-agent --controller c:1 --slots 0"),
            "\"0\" is no value of --slots <N>: expected a number, at least 1 | `xene-agent --help` shows what it takes"
        );
        assert_eq!(
            told("xene-agent --controller c:1 x"),
            "`xene-agent` takes no argument \"x\" there | `xene-agent --help` shows what it takes"
        );
        for line in ["xene-agent --help", "xene-agent --version"] {
            let args: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            assert!(matches!(parse(&args), Err(Unparsed::Whole(_))), "{line}");
        }
    }

    #[test]
    fn addresses_and_labels_are_checked() {
        for good in ["c:7421", "[::1]:7421", "c.example:1"] {
            assert!(host_and_port(good).is_ok(), "{good}");
        }
        for bad in ["c", "c:", ":1", "c:0", "c:70000", "quic://c"] {
            assert!(host_and_port(bad).is_err(), "{bad}");
        }
        assert_eq!(without_numbers("a: in use (os error 98): gone (os error 2)"), "a: in use: gone");
        assert_eq!(key_value("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert!(key_value("=b").is_err() && key_value("b").is_err());
    }
}
