//! `xene suspend`, `xene resume`: let triggers rest, or the source, and set them going again.

use serde_json::{Map, Value, json};
use xene_schemas::duration::Duration;

use super::{
    Error,
    client::Client,
    kind::Kind,
    output::{Format, Ui},
};

/// Arguments of `xene suspend`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Triggers of what is suspended do not fire, on any agent that can be reached; runs go on, and \
                        `xene trigger --force` still starts one. With `source`, commits are looked at and wait. \
                        `xene describe` and `xene status` show who suspended what, and why.")]
pub struct Suspend {
    /// What: WORKFLOW, WORKFLOW/PIPELINE, or source.
    #[arg(value_name = "WORKFLOW[/PIPELINE]|source")]
    pub what: String,

    /// Why, for whoever wonders.
    #[arg(long, value_name = "TEXT")]
    pub why: Option<String>,

    /// After this it ends by itself.
    #[arg(long = "for", value_name = "DURATION")]
    pub lasts: Option<Duration>,
}

/// Arguments of `xene resume`.
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "Due times that passed meanwhile are not caught up; `xene trigger` starts what is wanted all the \
                        same. With `source`, the newest commit takes effect, in one pass. What is committed as \
                        `suspend: true` only a commit resumes."
)]
pub struct Resume {
    /// What: WORKFLOW, WORKFLOW/PIPELINE, or source.
    #[arg(value_name = "WORKFLOW[/PIPELINE]|source")]
    pub what: String,
}

/// Suspends it.
///
/// # Errors
/// If the controller refuses.
pub fn suspend(args: &Suspend, client: &Client, ui: &mut Ui) -> Result<(), Error> {
    let mut body = Map::new();
    body.extend(args.why.as_ref().map(|why| ("why".to_owned(), json!(why))));
    body.extend(args.lasts.map(|lasts| ("for".to_owned(), json!(lasts.to_string()))));
    let lasts = args.lasts.map(|lasts| format!(" for {lasts}")).unwrap_or_default();
    act(&args.what, "suspend", Value::Object(body), &format!("is suspended{lasts}"), client, ui)
}

/// Resumes it.
///
/// # Errors
/// If the controller refuses, such as where nobody suspended it by command.
pub fn resume(args: &Resume, client: &Client, ui: &mut Ui) -> Result<(), Error> {
    act(&args.what, "resume", json!({}), "is resumed", client, ui)
}

fn act(what: &str, verb: &str, body: Value, done: &str, client: &Client, ui: &mut Ui) -> Result<(), Error> {
    let (path, name) = target(what)?;
    let answer = client.post(&format!("{path}/{verb}"), &body, &[])?;
    match ui.format {
        Format::Json | Format::Yaml => ui.value(&answer),
        Format::Name => ui.out.line(name),
        Format::Table | Format::Wide => {
            ui.note(&format!("{name} {done}"));
            Ok(())
        }
    }
}

/// The path of what is meant, and its name as `-o name` prints it. A workflow named `source` is written
/// `workflow/source`.
fn target(what: &str) -> Result<(String, String), Error> {
    if what == "source" {
        return Ok(("/api/v1/source".into(), "source".into()));
    }
    let workflow = what.strip_prefix("workflow/").filter(|rest| !rest.contains('/'));
    let (kind, name) = match workflow {
        Some(name) => (Kind::Workflows, name),
        None if what.contains('/') => (Kind::Pipelines, Kind::Pipelines.bare(what)),
        None => (Kind::Workflows, what),
    };
    Ok((kind.path_of(name)?, format!("{}/{name}", kind.singular())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_to_what_is_meant() {
        let path = |what| target(what).unwrap().0;
        assert_eq!(path("source"), "/api/v1/source");
        assert_eq!(path("workflow/source"), "/api/v1/workflows/source");
        assert_eq!(path("w"), "/api/v1/workflows/w");
        assert_eq!(path("w/p"), "/api/v1/pipelines/w/p");
        assert_eq!(path("pipeline/workflow/p"), "/api/v1/pipelines/workflow/p");
    }
}
