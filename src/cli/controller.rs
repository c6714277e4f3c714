//! `xene controller`: reads the source, keeps the store, serves HTTP and agents.

use std::{net::SocketAddr, path::PathBuf};

use clap::{ValueEnum, builder::BoolishValueParser};
use xene_schemas::{duration::Duration, source::SourceKind};

use super::{
    Error, Global,
    dirs::{self, DataDir},
};

/// Arguments of `xene controller`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Each flag can also be set as XENE_<FLAG>, or in the file that --config names, a YAML map \
                        from flags to values. The command line comes first, then the environment, then the file.")]
pub struct Args {
    /// Where workflow files come from: a folder, a repository, or a repository's URL.
    #[arg(long, value_name = "PATH-or-URL")]
    pub source: String,

    /// Whether only commits count.
    #[arg(long, value_name = "MODE", default_value = "auto")]
    pub mode: Mode,

    /// The branch to follow.
    #[arg(long, value_name = "NAME", default_value = "main")]
    pub branch: String,

    /// The folder of workflow files within the source [default: xene.d if there is one, else the source's root].
    #[arg(long, value_name = "FOLDER")]
    pub path: Option<String>,

    /// How often to look at a remote source.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = at_least_one_second)]
    pub poll: Duration,

    /// When a source that can't be reached is told as stale.
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = at_least_one_second)]
    pub stale_after: Duration,

    /// Whether a rewritten history (force-push) takes effect.
    #[arg(long, value_name = "RULE", default_value = "allow")]
    pub rewrites: Rewrites,

    /// Where state is kept [default: ~/.local/share/xene/controller].
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// Where people and programs connect.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7420")]
    pub http: SocketAddr,

    /// Where agents connect (UDP).
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:7421")]
    pub quic: SocketAddr,

    /// Certificate chain of the HTTP server, PEM; read anew when it changes.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,

    /// Key of that certificate, PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,

    /// Allow --http beyond loopback without TLS: tokens then travel in the clear.
    #[arg(long, value_parser = BoolishValueParser::new())]
    pub insecure_http: bool,

    /// A file with values for flags that are not given.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// How long a machine may pause between checking its lease and starting a run.
    #[arg(long, value_name = "DURATION", default_value = "60s", help_heading = "Ownership")]
    pub pause_margin: Duration,

    /// The smallest `autonomy` that a pipeline may ask for.
    #[arg(long, value_name = "DURATION", default_value = "30s", help_heading = "Ownership")]
    pub min_autonomy: Duration,

    /// How to sign in at the source.
    #[command(flatten)]
    pub credentials: Credentials,
}

/// How to sign in at a remote source. Files are read anew at each fetch.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Credentials of the source")]
pub struct Credentials {
    /// User name for https [default: that in the URL].
    #[arg(long, value_name = "NAME")]
    pub git_username: Option<String>,

    /// File with the password or token for https.
    #[arg(long, value_name = "FILE")]
    pub git_password_file: Option<PathBuf>,

    /// Private key for ssh [default: the ssh agent's keys].
    #[arg(long, value_name = "FILE")]
    pub ssh_key: Option<PathBuf>,

    /// Known hosts for ssh [default: ~/.ssh/known_hosts].
    #[arg(long, value_name = "FILE")]
    pub ssh_known_hosts: Option<PathBuf>,
}

/// Whether only commits count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Repositories and URLs as git, other folders as directory.
    Auto,
    /// Only commits count.
    Git,
    /// Files as they lie.
    Directory,
}

/// Whether a rewritten history takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Rewrites {
    /// It does, with an event.
    Allow,
    /// What was in effect before stays.
    Deny,
}

fn at_least_one_second(text: &str) -> Result<Duration, String> {
    let duration: Duration = text.parse().map_err(|error: xene_schemas::duration::DurationError| error.to_string())?;
    if duration < Duration::from_secs(1) { Err("at least 1s".into()) } else { Ok(duration) }
}

impl Args {
    /// Where state is kept.
    pub fn data_dir(&self) -> PathBuf {
        self.data_dir.clone().unwrap_or_else(|| dirs::default_data_dir(DataDir::Controller))
    }

    /// What the source is.
    pub fn source_kind(&self) -> SourceKind {
        match self.mode {
            Mode::Auto => dirs::detect_mode(&self.source),
            Mode::Git => SourceKind::Git,
            Mode::Directory => SourceKind::Directory,
        }
    }

    /// Checks what no single flag can tell.
    ///
    /// # Errors
    /// If HTTP would leave this machine in the clear and nobody said that it may.
    pub fn check(&self) -> Result<(), Error> {
        check_http(self.http, self.tls_cert.is_some(), self.insecure_http)
    }
}

/// Refuses plain HTTP beyond loopback, unless it is asked for.
pub(super) fn check_http(http: SocketAddr, tls: bool, insecure: bool) -> Result<(), Error> {
    if http.ip().is_loopback() || tls || insecure {
        return Ok(());
    }
    Err(Error::usage_with_hint(
        format!("--http {http} is open to the network without TLS, and tokens would travel in the clear"),
        "give --tls-cert and --tls-key, or --insecure-http if something before it does TLS",
    ))
}

/// Runs the controller until it is told to stop.
///
/// # Errors
/// If it can't start, or fails.
pub fn run(args: Args, _global: &Global) -> Result<(), Error> {
    args.check()?;
    Err(Error::Failed { message: "the controller is not wired yet".into(), hint: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_beyond_loopback_must_be_asked_for() {
        let (inside, outside) = ("127.0.0.1:1".parse().unwrap(), "0.0.0.0:1".parse().unwrap());
        assert!(check_http(inside, false, false).is_ok());
        assert_eq!(check_http(outside, false, false).unwrap_err().status(), 2);
        assert!(check_http(outside, true, false).is_ok());
        assert!(check_http(outside, false, true).is_ok());
    }
}
