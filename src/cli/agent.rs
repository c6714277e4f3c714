//! `xene agent`: dials a controller, hosts the triggers of its pipelines, runs them.

use std::path::PathBuf;

use xene_agent::command;

use super::{
    Error, Global,
    dirs::{self, DataDir},
};

/// Arguments of `xene agent`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Each flag can also be set as XENE_<FLAG>, or in the file that --config names, a YAML map \
                        from flags to values. The command line comes first, then the environment, then the file.")]
pub struct Args {
    /// What `xene-agent` takes too.
    #[command(flatten)]
    pub agent: command::Args,

    /// A file with values for flags that are not given.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Runs the agent until it is told to stop.
///
/// # Errors
/// If it can't start, or fails.
pub fn run(args: Args, global: &Global) -> Result<(), Error> {
    command::init_logging(global.quiet, global.verbose);
    let options = args.agent.options(dirs::default_data_dir(DataDir::Agent)).map_err(Error::usage)?;
    command::run(options).map_err(|error| Error::agent(&error))
}
