//! `xene approve RUN TASK`: decide about a task that waits for approval.

use serde_json::json;

use super::{
    Error,
    client::Client,
    kind::Kind,
    output::{Format, Ui},
};

/// Arguments of `xene approve`.
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "`xene describe run RUN` shows which tasks wait, and what is asked. Of a task with a matrix its name \
                        means all instances that wait."
)]
pub struct Args {
    /// The run.
    #[arg(value_name = "RUN")]
    pub run: String,

    /// The task.
    #[arg(value_name = "TASK")]
    pub task: String,

    /// Say no: the task is not executed.
    #[arg(long)]
    pub reject: bool,
}

/// Decides.
///
/// # Errors
/// If nothing of that name waits for approval.
pub fn run(args: &Args, client: &Client, ui: &mut Ui) -> Result<(), Error> {
    let body = json!({"task": args.task, "approved": !args.reject});
    let answer = client.post(&format!("{}/approve", Kind::Runs.path_of(&args.run)?), &body, &[])?;
    let name = Kind::Runs.bare(&args.run);
    match ui.format {
        Format::Json | Format::Yaml => ui.value(&answer),
        Format::Name => ui.out.line(format!("run/{name}")),
        Format::Table | Format::Wide | Format::Markdown => {
            let word = if args.reject { "rejected" } else { "approved" };
            ui.note(&format!("task {} of run {name} is {word}", args.task));
            Ok(())
        }
    }
}
