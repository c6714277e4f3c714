//! `xene dev`: controller and agent in one process, watching a folder: the shortest way from a file to a run.

use std::{net::SocketAddr, path::PathBuf};

use clap::{ValueEnum, builder::BoolishValueParser};

use super::{Error, Global, controller::check_http, dirs};

/// Arguments of `xene dev`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Each flag can also be set as XENE_<FLAG>, or in the file that --config names, a YAML map \
                        from flags to values. The command line comes first, then the environment, then the file.")]
pub struct Args {
    /// The folder to watch.
    #[arg(value_name = "PATH", default_value = ".")]
    pub source: PathBuf,

    /// What takes effect: each saved file, or only commits.
    #[arg(long, value_name = "MODE", default_value = "directory")]
    pub mode: Mode,

    /// Where state is kept [default: .xene in PATH].
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// Where people and programs connect.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7420")]
    pub http: SocketAddr,

    /// Where more agents may connect (UDP).
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7421")]
    pub quic: SocketAddr,

    /// Allow --http beyond loopback: tokens then travel in the clear.
    #[arg(long, value_parser = BoolishValueParser::new())]
    pub insecure_http: bool,

    /// A file with values for flags that are not given.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// What takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Only commits count.
    Git,
    /// Each saved file is live at once.
    Directory,
}

impl Args {
    /// Where state is kept; the controller's is `controller/` in it, the agent's `agent/`.
    pub fn data_dir(&self) -> PathBuf {
        self.data_dir.clone().unwrap_or_else(|| self.source.join(dirs::DEV_DIR))
    }
}

/// Runs controller and agent until they are told to stop.
///
/// # Errors
/// If they can't start, or fail.
pub fn run(args: Args, _global: &Global) -> Result<(), Error> {
    check_http(args.http, false, args.insecure_http)?;
    Err(Error::Failed { message: "dev is not wired yet".into(), hint: None })
}
