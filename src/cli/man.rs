//! `xene man DIR`.

use std::{fs, path::PathBuf};

use super::{Error, output::Ui, settings};

/// Arguments of `xene man`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The folder, made if it is missing: `man -M` and packages take it from there.
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
}

/// Writes a page for each command.
///
/// # Errors
/// If they can't be written.
pub fn run(args: &Args, ui: &mut Ui) -> Result<(), Error> {
    let failed = |error| Error::file(&args.folder, &error);
    fs::create_dir_all(&args.folder).map_err(failed)?;
    clap_mangen::generate_to(settings::command().disable_help_subcommand(true), &args.folder).map_err(failed)?;
    ui.note(&format!("man pages written to {}", args.folder.display()));
    Ok(())
}
