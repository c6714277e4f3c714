//! `xene completion SHELL`.

use clap_complete::Shell;

use super::{Error, output::Ui, settings};

/// Arguments of `xene completion`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "For bash: `xene completion bash > /etc/bash_completion.d/xene`.")]
pub struct Args {
    /// The shell that shall complete.
    pub shell: Shell,
}

/// Prints the script.
///
/// # Errors
/// If it can't be written.
pub fn run(args: &Args, ui: &mut Ui) -> Result<(), Error> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut settings::command(), "xene", &mut script);
    ui.out.write(script)
}
