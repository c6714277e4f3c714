//! `xene check-store DIR`: reads all of a store once, for the controller that is about to use it.

use std::path::PathBuf;

use super::Error;
use crate::store::Store;

/// Arguments of `xene check-store`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The controller's data folder.
    pub dir: PathBuf,
}

/// What a controller is told to check its store by: this very program.
pub(super) fn checker() -> (PathBuf, &'static [&'static str]) {
    // The path stays right when an upgrade has put another file in its place.
    ("/proc/self/exe".into(), &["check-store"])
}

/// Reads everything.
///
/// # Errors
/// What can't be read.
pub(super) fn run(args: &Args) -> Result<(), Error> {
    Store::read_all(&args.dir).map_err(|error| Error::Failed { message: error.to_string(), hint: None })
}
