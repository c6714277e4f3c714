//! `xene trigger WORKFLOW/PIPELINE`: start a run, perhaps wait for it or watch it.

use serde_json::{Map, Value, json};
use xene_schemas::{meta::PipelineKey, phase::RunPhase, run::Run};

use super::{
    Error,
    client::Client,
    follow::{self, Heard, LOST},
    kind::Kind,
    output::{Format, Ui},
    settings,
    status::parse,
};

/// Arguments of `xene trigger`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "With --wait or --follow the exit status is the run's: 0 for Success, 1 for Error.")]
pub struct Args {
    /// The pipeline, WORKFLOW/PIPELINE.
    pub pipeline: String,

    /// A param of the run; may be repeated.
    #[arg(short, long = "param", value_name = "NAME=VALUE", value_parser = settings::key_value)]
    pub params: Vec<(String, String)>,

    /// Start even if it is suspended.
    #[arg(long)]
    pub force: bool,

    /// How it is waited for.
    #[command(flatten)]
    pub wait: Wait,

    /// Start at most one run for this key, however often it is asked for.
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,
}

/// How a run that was started is waited for.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Wait {
    /// Wait until the run ends.
    #[arg(long)]
    pub wait: bool,

    /// Wait, and show tasks, steps and output as they go.
    #[arg(short, long)]
    pub follow: bool,
}

/// Starts a run.
///
/// # Errors
/// If the controller refuses; with `--wait` or `--follow` also if the run ends in Error.
pub fn run(args: &Args, client: &Client, ui: &mut Ui) -> Result<(), Error> {
    let key: PipelineKey = Kind::Pipelines.bare(&args.pipeline).parse().map_err(|error| {
        Error::usage_with_hint(
            format!("{:?} is not a pipeline: {error}", args.pipeline),
            "a pipeline is written WORKFLOW/PIPELINE; see `xene get pipelines`",
        )
    })?;
    let params: Map<String, Value> = args.params.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    let mut body = json!({"workflow": key.workflow, "pipeline": key.pipeline, "params": params});
    if args.force {
        body["force"] = json!(true);
    }
    let headers: Vec<_> = args.idempotency_key.as_deref().map(|key| ("idempotency-key", key)).into_iter().collect();
    let created = client.post(Kind::Runs.path(), &body, &headers)?;
    started(&created, &args.wait, client, ui)
}

/// Prints the name of a run that was started, and waits for it if that is asked for.
pub(super) fn started(created: &Value, wait: &Wait, client: &Client, ui: &mut Ui) -> Result<(), Error> {
    let run: Run = parse(created)?;
    let waits = wait.wait || wait.follow;
    match ui.format {
        Format::Table | Format::Wide => ui.out.line(run.metadata.name.to_string())?,
        Format::Name => ui.out.line(format!("run/{}", run.metadata.name))?,
        // With --wait the run as it ended is the result.
        Format::Json | Format::Yaml if !waits => ui.value(created)?,
        Format::Json | Format::Yaml => {}
    }
    ui.out.flush()?;
    if !waits {
        return Ok(());
    }
    let name = run.metadata.name;
    let ended = if wait.follow {
        follow::follow(run, client, ui)?
    } else {
        follow::wait(name, client, &mut |heard| {
            if let Heard::Lost = heard {
                ui.note(LOST);
            }
            Ok(())
        })?
    };
    if !ui.is_human() && ui.format != Format::Name {
        let value = client.get(&Kind::Runs.path_of(&name.to_string())?, &[])?;
        ui.value(&value)?;
    }
    verdict(&ended)
}

/// The run's end as this command's.
fn verdict(run: &Run) -> Result<(), Error> {
    if run.status.phase == RunPhase::Success {
        return Ok(());
    }
    let reason = run.status.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
    let message = run.status.message.as_deref().map(|message| format!(": {message}")).unwrap_or_default();
    let name = run.metadata.name;
    Err(Error::Failed {
        message: format!("run {name} ended in {}{reason}{message}", run.status.phase),
        hint: Some(format!("`xene logs {name}` shows its output, `xene describe run {name}` its tasks")),
    })
}

#[cfg(test)]
mod tests;
