//! `xene logs RUN`: a run's output, byte for byte.

use std::io::{Read, Write};

use xene_schemas::meta::RunName;

use super::{Error, client::Client, escape::Escaper, follow::LOST, kind::Kind, output::Ui};

/// Arguments of `xene logs`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Bytes pass as they are. On a terminal only colours act; other control characters are shown.")]
pub struct Args {
    /// The run; WORKFLOW/PIPELINE is the newest of that pipeline.
    pub run: String,

    /// Only of this task.
    #[arg(long, value_name = "TASK")]
    pub task: Option<String>,

    /// Only of this step.
    #[arg(long, value_name = "STEP", requires = "task")]
    pub step: Option<String>,

    /// Go on until the run ends.
    #[arg(short, long)]
    pub follow: bool,

    /// Begin each line with its time.
    #[arg(long)]
    pub timestamps: bool,

    /// Begin with the last N lines.
    #[arg(long, value_name = "N")]
    pub tail: Option<usize>,
}

/// Prints the log.
///
/// # Errors
/// If the controller refuses, or the output can't be written.
pub fn run(args: &Args, client: &Client, ui: &mut Ui) -> Result<(), Error> {
    let tail = args.tail.map(|tail| tail.to_string());
    let flag = |on: bool| on.then_some("true");
    let query = [
        ("format", Some("text")),
        ("task", args.task.as_deref()),
        ("step", args.step.as_deref()),
        ("follow", flag(args.follow)),
        ("timestamps", flag(args.timestamps)),
        ("tail", tail.as_deref()),
    ];
    let query: Vec<_> = query.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
    let path = format!("{}/logs", Kind::Runs.path_of(&run_name(&args.run, client)?)?);
    // The last lines are others at each look: such a stream can't be taken up again.
    if args.follow && args.tail.is_none() {
        copy(&mut client.resuming(&path, &query, if ui.quiet { || {} } else { tell_lost })?, client, ui)
    } else {
        copy(&mut client.stream(&path, &query, &[], None)?, client, ui)
    }
}

/// A run's name as it is, or the name of a pipeline's newest run.
pub(super) fn run_name(given: &str, client: &Client) -> Result<String, Error> {
    let name = Kind::Runs.bare(given);
    let Some((workflow, pipeline)) = given.split_once('/').filter(|_| name.parse::<RunName>().is_err()) else {
        return Ok(name.to_owned());
    };
    let newest = client.page(Kind::Runs.path(), &[("workflow", workflow), ("pipeline", pipeline), ("limit", "1")])?;
    match newest.first().and_then(|run| run.pointer("/metadata/name")?.as_str()) {
        Some(name) => Ok(name.to_owned()),
        None => Err(Error::NotFound {
            message: format!("{given} has no run"),
            hint: Some(format!("`xene trigger {given}` starts one")),
        }),
    }
}

/// From the controller to stdout, each piece as it comes.
fn copy(log: &mut dyn Read, client: &Client, ui: &mut Ui) -> Result<(), Error> {
    let mut escaper = ui.out.is_terminal.then(Escaper::default);
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = match log.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) => {
                ui.out.flush()?;
                return Err(broke(client, &error));
            }
        };
        match &mut escaper {
            Some(escaper) => ui.out.write(escaper.push(&buffer[..read]))?,
            None => ui.out.write(&buffer[..read])?,
        }
        ui.out.flush()?;
    }
    match &mut escaper {
        Some(escaper) => ui.out.write(escaper.finish()),
        None => Ok(()),
    }
}

/// The log itself may be in the middle of a line, so this goes past it, to stderr.
fn tell_lost() {
    let _ = writeln!(std::io::stderr(), "{LOST}");
}

fn broke(client: &Client, error: &std::io::Error) -> Error {
    let cause = format!("the log broke off: {}", super::error::plain_cause(error));
    Error::Unreachable { server: client.server().to_owned(), cause }
}

#[cfg(test)]
mod tests;
