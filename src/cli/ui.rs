//! `xene ui`: a link that opens the web UI, signed in.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::{
    Error,
    client::Client,
    output::{Format, Ui},
};

/// Arguments of `xene ui`.
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "The link works once, within ten minutes, and signs in as whom the token stands for. In another \
                        browser, open the UI's address and paste the link there."
)]
pub struct Args {
    /// Open it in this machine's browser.
    #[arg(long)]
    pub open: bool,
}

/// Asks for a link and prints it, or opens it.
///
/// # Errors
/// If the controller gives none, or there is no browser.
pub fn run(args: &Args, client: &Client, ui: &mut Ui) -> Result<(), Error> {
    let answer = client.post("/api/v1/sign-in-codes", &json!({}), &[])?;
    let path = answer.get("link").and_then(Value::as_str).ok_or_else(|| Error::Failed {
        message: "the controller gives no link".to_owned(),
        hint: Some("it may be of an earlier version".to_owned()),
    })?;
    let link = format!("{}{path}", client.server());
    if args.open {
        return open(&link, ui);
    }
    match ui.format {
        Format::Json | Format::Yaml => ui.value(&json!({"link": link, "expiresIn": answer.get("expiresIn")})),
        Format::Name | Format::Table | Format::Wide => ui.out.line(&link),
    }
}

fn open(link: &str, ui: &mut Ui) -> Result<(), Error> {
    let opener = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let ended =
        Command::new(opener).arg(link).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    match ended {
        Ok(status) if status.success() => {
            ui.note("the UI is open in your browser");
            Ok(())
        }
        _ => {
            ui.out.line(link)?;
            Err(Error::Failed {
                message: format!("{opener} can't open a browser here"),
                hint: Some("open the link that is printed by hand: it works once, within ten minutes".to_owned()),
            })
        }
    }
}
