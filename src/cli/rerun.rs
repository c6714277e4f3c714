//! `xene rerun RUN`: start a run again, as it was.

use serde_json::json;

use super::{
    Error,
    client::Client,
    kind::Kind,
    output::Ui,
    trigger::{self, Wait},
};

/// Arguments of `xene rerun`.
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "The new run is of the same commit, with the same params, due time and payload, whatever is in \
                        effect by now. With --wait or --follow the exit status is the run's: 0 for Success, 1 for \
                        Error."
)]
pub struct Args {
    /// The run, which has ended.
    pub run: String,

    /// Run only what did not succeed; what succeeded counts with what it published, but its workspace is gone.
    #[arg(long)]
    pub failed: bool,

    /// Start even if its pipeline is suspended.
    #[arg(long)]
    pub force: bool,

    /// How it is waited for.
    #[command(flatten)]
    pub wait: Wait,
}

/// Starts it again; prints the new run's name.
///
/// # Errors
/// If the controller refuses; with `--wait` or `--follow` also if the run ends in Error.
pub fn run(args: &Args, client: &Client, ui: &mut Ui) -> Result<(), Error> {
    let mut body = json!({});
    if args.failed {
        body["failed"] = json!(true);
    }
    if args.force {
        body["force"] = json!(true);
    }
    let created = client.post(&format!("{}/rerun", Kind::Runs.path_of(&args.run)?), &body, &[])?;
    trigger::started(&created, &args.wait, client, ui)
}
