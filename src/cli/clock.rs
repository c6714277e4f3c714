//! `xene confirm-clock`: the controller's clock, which leapt, is right.

use serde_json::json;

use super::{
    Error,
    client::Client,
    output::{Format, Ui},
};

/// Arguments of `xene confirm-clock`.
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "Where the clock of the controller's host leaps by more than a minute, schedules go on by elapsed time: \
                        due times are neither passed over nor started again because somebody set a clock. They follow it \
                        once the system's time service says that it is synchronized, or by this command. Ahead, they jump \
                        there, and what was due in between is started, or not, as `catchUp` and `startingDeadline` say; \
                        back, they go slower until it has caught up."
)]
pub struct Args {}

/// Says so.
///
/// # Errors
/// If the clock did not leap.
pub fn run(_: &Args, client: &Client, ui: &mut Ui) -> Result<(), Error> {
    let answer = client.post("/api/v1/controller/confirm-clock", &json!({}), &[])?;
    match ui.format {
        Format::Json | Format::Yaml => ui.value(&answer),
        Format::Name => ui.out.line("controller"),
        Format::Table | Format::Wide => {
            ui.note("schedules follow the controller's clock");
            Ok(())
        }
    }
}
