//! `xene notifiers`: whether what is to be told gets there.

use clap::Subcommand;
use serde_json::json;
use xene_schemas::notifier::NotifierTest;

use super::{
    Error,
    client::Client,
    output::{Format, Ui},
    status::parse,
};
use crate::percent::encode;

/// Arguments of `xene notifiers`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What can be done with notifiers.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Send a test message now, and say what came back.
    Test(Test),
}

/// Arguments of `xene notifiers test`.
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "The message says that it is a test, and is not tried again. A commit's status gets the context \
                        xene/NAME, on the commit in effect."
)]
pub struct Test {
    /// The notifier.
    #[arg(value_name = "NAME")]
    pub name: String,
}

/// Does it.
///
/// # Errors
/// If the controller refuses, or the destination does.
pub fn run(args: &Args, client: &Client, ui: &mut Ui) -> Result<(), Error> {
    let Command::Test(Test { name }) = &args.command;
    let name = name.strip_prefix("notifier/").unwrap_or(name);
    let answer = client.post(&format!("/api/v1/notifiers/{}/test", encode(name)), &json!({}), &[])?;
    let test: NotifierTest = parse(&answer)?;
    if matches!(ui.format, Format::Json | Format::Yaml) {
        ui.value(&answer)?;
    } else if test.delivered {
        ui.note(&format!("notifier {name} delivers: {}", test.message));
    }
    if test.delivered {
        return Ok(());
    }
    Err(Error::Refused { message: format!("notifier {name} does not deliver: {}", test.message), hint: None })
}
