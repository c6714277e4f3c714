//! `xene cancel RUN…`.

use serde_json::json;

use super::{
    Error,
    client::Client,
    kind::Kind,
    output::{Format, Ui},
};

/// Arguments of `xene cancel`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Steps get SIGTERM, later SIGKILL; `finally` still runs.")]
pub struct Args {
    /// The runs.
    #[arg(value_name = "RUN", required = true)]
    pub runs: Vec<String>,
}

/// Asks the controller to end the runs.
///
/// # Errors
/// If it refuses one; the others are asked for all the same, and the first error is told.
pub fn run(args: &Args, client: &Client, ui: &mut Ui) -> Result<(), Error> {
    let mut first = None;
    for name in &args.runs {
        let path = format!("{}/cancel", Kind::Runs.path_of(name)?);
        match client.post(&path, &json!({}), &[]) {
            Ok(answer) => match ui.format {
                Format::Json | Format::Yaml => ui.value(&answer)?,
                Format::Name => ui.out.line(format!("run/{}", Kind::Runs.bare(name)))?,
                Format::Table | Format::Wide | Format::Markdown => {
                    ui.note(&format!("run {} is being cancelled", Kind::Runs.bare(name)))
                }
            },
            Err(error) if first.is_none() => first = Some(error),
            Err(error) => ui.error(&error.to_string(), None),
        }
    }
    first.map_or(Ok(()), Err)
}
