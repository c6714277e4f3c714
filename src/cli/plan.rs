//! `xene plan [REV]`: what a commit, or the work tree, would change.

mod local;
mod markdown;
mod text;

use serde_json::json;
use xene_schemas::plan::PlanReport;

pub(in crate::cli) use self::text::value;
use super::{
    Error, Global,
    client::Client,
    exit,
    output::{Format, Output, Ui},
    status::parse,
};

/// Arguments of `xene plan`.
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "In a checkout its files are planned: those of REV, or the work tree as it lies. Elsewhere REV is a \
                        commit that the controller has. Without --against they are compared with what the controller has \
                        in effect; in a checkout without a controller, with HEAD.\n\n\
                        The exit status is 0, with --exit-code 1 if something would change, and 2 or more for errors."
)]
pub struct Args {
    /// A commit by any of its names [default: the work tree].
    #[arg(value_name = "REV")]
    pub rev: Option<String>,

    /// Compare with this commit; needs no controller in a checkout.
    #[arg(long, value_name = "REV")]
    pub against: Option<String>,

    /// The folder within the checkout that holds the workflows [default: xene.d, or all].
    #[arg(long, value_name = "FOLDER")]
    pub path: Option<String>,

    /// End with 1 if something would change.
    #[arg(long)]
    pub exit_code: bool,
}

/// Makes the plan and prints it.
///
/// # Errors
/// If there is nothing to plan, or the controller refuses; with `--exit-code` also if something would change.
pub fn run(args: &Args, global: &Global, ui: &mut Ui) -> Result<(), Error> {
    let here = std::env::current_dir().map_err(|error| Error::file(std::path::Path::new("."), &error))?;
    let report = match local::Checkout::find(&here, args.path.as_deref())? {
        Some(checkout) => checkout.plan(args, || Client::new(global), global, ui)?,
        None => {
            let Some(rev) = &args.rev else {
                return Err(Error::usage_with_hint(
                    "there is nothing to plan here: this folder is in no git repository, and has no xene.d",
                    "go to a checkout, or name a commit that the controller has: `xene plan REV`",
                ));
            };
            let mut query = vec![("rev", rev.as_str())];
            query.extend(args.against.as_deref().map(|against| ("against", against)));
            parse(&Client::new(global)?.get("/api/v1/plan", &query)?)?
        }
    };
    print(&report, global.output, ui)?;
    if args.exit_code && !report.changes.is_empty() {
        ui.flush()?;
        return Err(Error::Status(exit::FAILED));
    }
    Ok(())
}

fn print(report: &PlanReport, output: Output, ui: &mut Ui) -> Result<(), Error> {
    if output == Output::Markdown {
        return ui.out.write(markdown::render(report));
    }
    match ui.format {
        Format::Json | Format::Yaml => {
            let mut value = json!({"apiVersion": xene_schemas::meta::API_VERSION, "kind": "Plan"});
            if let (Some(value), serde_json::Value::Object(report)) = (value.as_object_mut(), json!(report)) {
                value.extend(report);
            }
            ui.value(&value)
        }
        Format::Name => report.changes.iter().try_for_each(|change| {
            ui.out.line(format!("{}/{}", change.kind.to_ascii_lowercase(), super::escape::line(&change.name)))
        }),
        Format::Table | Format::Wide => {
            let text = text::render(report, ui.now(), ui.format == Format::Wide, ui.out.colored);
            ui.out.write(text)
        }
    }
}

#[cfg(test)]
mod tests;
