//! `xene approve-prune COMMIT`: let a commit remove what it was kept from removing.

use serde_json::json;

use super::{
    Error,
    client::Client,
    output::{Format, Ui},
    status,
};

/// Arguments of `xene approve-prune`.
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "A commit that would remove more than half of all workflows removes none of them until somebody \
                        approves that very commit; `xene status` names it. Reverting it needs no approval."
)]
pub struct Args {
    /// The commit in effect, or at least the first seven characters of its name.
    #[arg(value_name = "COMMIT")]
    pub commit: String,
}

/// Approves it; the workflows are gone then.
///
/// # Errors
/// If nothing waits for approval, or another commit does.
pub fn run(args: &Args, client: &Client, ui: &mut Ui) -> Result<(), Error> {
    let answer = client.post("/api/v1/source/approve-prune", &json!({"commit": args.commit}), &[])?;
    match ui.format {
        Format::Json | Format::Yaml => ui.value(&answer),
        Format::Name => ui.out.line("source"),
        Format::Table | Format::Wide => {
            let source: xene_schemas::source::Source = status::parse(&answer)?;
            let left = source.status.workflows;
            ui.note(&format!("approved: {left} workflow{} left", if left == 1 { " is" } else { "s are" }));
            Ok(())
        }
    }
}
