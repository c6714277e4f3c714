//! `xene pause-controller`: let agents go on alone for longer, before planned downtime.

use std::{thread, time::Duration as Time};

use serde_json::json;
use xene_schemas::{
    controller::{Controller, ControllerStatus},
    duration::Duration,
};

use super::{
    Error,
    client::Client,
    output::{Format, Ui},
    status,
};

/// How often, and how far apart, it is asked whether all agents have heard.
const LOOKS: u32 = 50;
const APART: Time = Time::from_millis(200);

/// Arguments of `xene pause-controller`.
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "Stops nothing: it makes agents start cron runs by themselves for that long, whatever the autonomy \
                        of their pipelines, so that the controller may be away. Meanwhile no other agent takes over \
                        from one that falls silent. It ends by itself; `--end` ends it at once."
)]
pub struct Args {
    /// How long the controller may be away, at most 7d.
    #[arg(long = "for", value_name = "DURATION", required_unless_present = "end")]
    pub lasts: Option<Duration>,

    /// The controller is back for good.
    #[arg(long, conflicts_with = "lasts")]
    pub end: bool,
}

/// Tells all agents, and waits a few seconds until those that are connected have heard.
///
/// # Errors
/// If the controller refuses, or a connected agent does not hear.
pub fn run(args: &Args, client: &Client, ui: &mut Ui) -> Result<(), Error> {
    let (verb, body) = match args.lasts {
        Some(lasts) => ("pause", json!({"for": lasts.to_string()})),
        None => ("resume", json!({})),
    };
    let mut answer = client.post(&format!("/api/v1/controller/{verb}"), &body, &[])?;
    let mut now = status::parse::<Controller>(&answer)?.status;
    for _ in 0..LOOKS {
        if now.unheard.is_empty() {
            break;
        }
        thread::sleep(APART);
        answer = client.get("/api/v1/controller", &[])?;
        now = status::parse::<Controller>(&answer)?.status;
    }
    match ui.format {
        Format::Json | Format::Yaml => ui.value(&answer)?,
        Format::Name => ui.out.line("controller")?,
        Format::Table | Format::Wide => ui.note(&told(&now)),
    }
    if now.unheard.is_empty() || now.pause.is_none() {
        return Ok(());
    }
    let names = now.unheard.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    Err(Error::Refused {
        message: format!("these agents have not heard it, and will not go on for longer: {names}"),
        hint: Some("`xene status` shows them; it reaches them when they connect".into()),
    })
}

fn told(status: &ControllerStatus) -> String {
    match &status.pause {
        Some(pause) => format!("until {:.0} agents go on alone", pause.until),
        None => "the autonomy of each pipeline counts again".into(),
    }
}
