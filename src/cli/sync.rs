//! `xene sync`: look at the source now.

use serde_json::Value;
use xene_schemas::{diagnostic::Severity, source::Source};

use super::{
    Error,
    client::Client,
    exit,
    output::{Format, Ui},
    status,
};

/// Has the controller look at the source, waits until what it finds is in effect, prints it.
///
/// # Errors
/// If the controller refuses, or the source has problems: then the exit status is [`exit::FAILED`].
pub fn run(client: &Client, ui: &mut Ui) -> Result<(), Error> {
    let value = match client.sync()? {
        Value::Null => client.get("/api/v1/source", &[])?,
        value => value,
    };
    let source: Source = status::parse(&value)?;
    match ui.format {
        Format::Json | Format::Yaml => ui.value(&value)?,
        Format::Name => ui.out.line("source")?,
        Format::Table | Format::Wide | Format::Markdown => {
            let head = status::revision_line(&source.status);
            ui.out.line(head)?;
            status::print_trouble(&source.status, ui)?;
        }
    }
    let errors = source.status.problems.iter().any(|problem| problem.severity == Severity::Error);
    if errors || !status::is_ready(&source.status) { Err(Error::Status(exit::FAILED)) } else { Ok(()) }
}
