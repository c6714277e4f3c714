//! Everything that a person types: arguments, dispatch, and how results and errors are told.
//!
//! Each command has a file of its own with its arguments and its `run`. Results go to stdout, everything else to
//! stderr. [`client`] speaks to the controller, [`output`] to the person, [`error`] turns what goes wrong into one
//! sentence, a hint and an exit status ([`exit`]).

pub mod agent;
pub mod agents;
pub mod approve;
pub mod artifacts;
pub mod backup;
pub mod cancel;
mod check_store;
pub mod client;
pub mod clock;
pub mod completion;
pub mod controller;
pub mod cron;
pub mod describe;
pub mod dev;
pub mod dirs;
pub mod error;
pub mod escape;
pub mod exit;
pub mod explain;
pub mod follow;
pub mod get;
pub mod history;
pub mod interrupt;
pub mod kind;
pub mod logs;
pub mod man;
pub mod notifiers;
pub mod openid;
pub mod output;
pub mod pause;
pub mod plan;
pub mod prune;
pub mod rerun;
pub mod rows;
pub mod run;
pub mod settings;
pub mod status;
pub mod suspend;
pub mod sync;
pub mod table;
pub mod test;
pub mod time;
pub mod token;
pub mod top;
mod travelling;
pub mod tree;
pub mod trigger;
pub mod ui;
pub mod usage;
pub mod validate;
pub mod watch;
pub mod why;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod fixtures;

use std::{path::PathBuf, process::ExitCode};

use clap::{ArgAction, Args, Parser, Subcommand};

pub use self::error::Error;
use self::{
    client::Client,
    output::{ColorChoice, Format, Output, Ui},
};

/// Where a controller listens if nobody says otherwise.
pub const DEFAULT_SERVER: &str = "http://127.0.0.1:7420";

/// A distributed workflow runner whose desired state is a git commit.
#[derive(Debug, Parser)]
#[command(name = "xene", version, propagate_version = false, max_term_width = 100)]
#[command(disable_help_flag = true)]
#[command(after_help = "Try `xene dev` in a folder with a workflow file.")]
pub struct Cli {
    /// Flags of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// The controller's address.
    #[arg(long, global = true, value_name = "URL", env = "XENE_SERVER", hide_env_values = true)]
    #[arg(default_value = DEFAULT_SERVER)]
    pub server: String,

    /// API token; for a controller on this machine its admin.token is found by itself.
    #[arg(long, global = true, value_name = "TOKEN", env = "XENE_TOKEN", hide_env_values = true)]
    pub token: Option<String>,

    /// Certificates (PEM) that vouch for an https server, instead of the system's.
    #[arg(long, global = true, value_name = "FILE", env = "XENE_CA", hide_env_values = true)]
    pub ca: Option<PathBuf>,

    /// How results are printed.
    #[arg(short, long, global = true, value_name = "FORMAT", default_value = "table")]
    pub output: Output,

    /// When to use colours; NO_COLOR holds for auto.
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub color: ColorChoice,

    /// Print results and errors only.
    #[arg(short, long, global = true)]
    pub quiet: bool,

    /// Tell more; twice for even more.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,

    /// Print help.
    #[arg(short, long, global = true, action = ArgAction::HelpShort)]
    help: Option<bool>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run controller and agent in one process and watch a folder.
    Dev(dev::Args),
    /// Run the controller.
    Controller(Box<controller::Args>),
    /// Run an agent.
    Agent(agent::Args),
    /// Check workflow files, without a controller.
    Validate(validate::Args),
    /// Tell what a diagnostic means, and how to mend it.
    Explain(explain::Args),
    /// Run pipelines of a file here and now, without a controller.
    Run(run::Args),
    /// Try workflow tests on a virtual clock.
    Test(test::Args),
    /// Show what a schedule means and when it fires.
    Cron(cron::Args),
    /// Show the source, its problems, and the agents.
    Status,
    /// Look at the source now, and wait until it is in effect.
    Sync,
    /// List objects, or show one.
    Get(get::Args),
    /// Show one object with its conditions, events and recent runs.
    Describe(describe::Args),
    /// Show what a commit, or the work tree, would change.
    Plan(plan::Args),
    /// Show the commits that changed a workflow, and the runs of each.
    History(history::Args),
    /// Say why a run ran or waits, why a pipeline has its agent or none, what became of a due time.
    Why(why::Args),
    /// Start a run of a pipeline; prints the run's name.
    Trigger(trigger::Args),
    /// Print the log of a run.
    Logs(logs::Args),
    /// Fetch what a run's tasks saved.
    Artifacts(artifacts::Args),
    /// Show live what goes on: runs, agents, what fires next, output.
    Top,
    /// Cancel runs.
    Cancel(cancel::Args),
    /// Approve a task that waits for it, or reject it.
    Approve(approve::Args),
    /// Start a run again, as it was; prints the new run's name.
    Rerun(rerun::Args),
    /// Print a link that opens the web UI, signed in.
    Ui(ui::Args),
    /// Let a workflow's, a pipeline's triggers rest, or the source.
    Suspend(suspend::Suspend),
    /// End a suspension by command.
    Resume(suspend::Resume),
    /// Let agents go on alone for longer, before the controller is away.
    PauseController(pause::Args),
    /// Say that the controller's clock, which leapt, is right.
    ConfirmClock(clock::Args),
    /// Let a commit remove more than half of all workflows.
    ApprovePrune(prune::Args),
    /// Manage agents and the tokens by which they join.
    Agents(agents::Args),
    /// Try whether what is to be told gets there.
    Notifiers(notifiers::Args),
    /// Manage API tokens.
    Token(token::Args),
    /// Save the controller's store in a file, while it runs.
    Backup(backup::Backup),
    /// Put a saved store back into a data folder.
    Restore(backup::Restore),
    /// Read all of a store; the controller does so at its start.
    #[command(hide = true)]
    CheckStore(check_store::Args),
    /// Print a completion script for a shell.
    Completion(completion::Args),
    /// Write man pages into a folder.
    Man(man::Args),
}

/// Parses the process's arguments, runs the command, tells errors; returns the exit status.
pub fn main() -> ExitCode {
    xene_agent::exec::become_parent_if_asked();
    let args: Vec<_> = std::env::args_os().collect();
    let cli = match settings::parse(args.iter().cloned()) {
        Ok(cli) => cli,
        Err(settings::ParseError::Clap(error, _)) if usage::is_shown_whole(&error) => {
            // Help and version are results; a failed print has nobody left to be told of.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(exit::USAGE));
        }
        Err(settings::ParseError::Clap(error, file)) => {
            let error = usage::explain(&error, &args, file.as_deref());
            return tell(&error, &mut Ui::of_process(Format::Table, ColorChoice::Auto, false));
        }
        Err(settings::ParseError::File(error)) => {
            return tell(&error, &mut Ui::of_process(Format::Table, ColorChoice::Auto, false));
        }
    };
    let format = cli.global.output.format();
    let mut ui = Ui::of_process(format.unwrap_or(Format::Table), cli.global.color, cli.global.quiet);
    let is_of_command = match cli.global.output {
        Output::Github | Output::Sarif => matches!(cli.command, Command::Validate(_)),
        Output::Markdown => matches!(cli.command, Command::Plan(_)),
        Output::Table | Output::Wide | Output::Json | Output::Yaml | Output::Name => true,
    };
    if !is_of_command {
        let message = "annotations for GitHub and SARIF are forms of `xene validate` alone, Markdown of `xene plan`";
        return tell(&Error::usage_with_hint(message, "elsewhere -o takes table, wide, json, yaml and name"), &mut ui);
    }
    match dispatch(cli, &mut ui).and_then(|()| ui.flush()) {
        Ok(()) => ExitCode::from(exit::DONE),
        Err(error) => tell(&error, &mut ui),
    }
}

fn dispatch(cli: Cli, ui: &mut Ui) -> Result<(), Error> {
    let global = &cli.global;
    let client = || {
        interrupt::exit_on_ctrl_c();
        Client::new(global)
    };
    match cli.command {
        Command::Dev(args) => dev::run(args, global),
        Command::Controller(args) => controller::run(*args, global),
        Command::Agent(args) => agent::run(args, global),
        Command::Validate(args) => validate::run(&args, global.output, ui),
        Command::Explain(args) => explain::run(&args, ui),
        Command::Run(args) => run::run(&args, global, ui),
        Command::Test(args) => test::run(&args, ui),
        Command::Cron(args) => cron::run(&args, ui),
        Command::Status => status::run(&client()?, ui),
        Command::Sync => sync::run(&client()?, ui),
        Command::Get(args) => get::run(&args, &client()?, ui),
        Command::Describe(args) => describe::run(&args, &client()?, ui),
        Command::Plan(args) => plan::run(&args, global, ui),
        Command::History(args) => history::run(&args, &client()?, ui),
        Command::Why(args) => why::run(&args, &client()?, ui),
        Command::Trigger(args) => trigger::run(&args, &client()?, ui),
        Command::Logs(args) => logs::run(&args, &client()?, ui),
        Command::Artifacts(args) => artifacts::run(&args, &client()?, ui),
        Command::Top => top::run(&Client::new(global)?, ui),
        Command::Cancel(args) => cancel::run(&args, &client()?, ui),
        Command::Approve(args) => approve::run(&args, &client()?, ui),
        Command::Rerun(args) => rerun::run(&args, &client()?, ui),
        Command::Ui(args) => ui::run(&args, &client()?, ui),
        Command::Suspend(args) => suspend::suspend(&args, &client()?, ui),
        Command::Resume(args) => suspend::resume(&args, &client()?, ui),
        Command::PauseController(args) => pause::run(&args, &client()?, ui),
        Command::ConfirmClock(args) => clock::run(&args, &client()?, ui),
        Command::ApprovePrune(args) => prune::run(&args, &client()?, ui),
        Command::Agents(args) => agents::run(&args, &client()?, ui),
        Command::Notifiers(args) => notifiers::run(&args, &client()?, ui),
        Command::Token(args) => token::run(&args, &client()?, ui),
        Command::Backup(args) => backup::backup(&args, &client()?, ui),
        Command::Restore(args) => backup::run_restore(&args, ui),
        Command::CheckStore(args) => check_store::run(&args),
        Command::Completion(args) => completion::run(&args, ui),
        Command::Man(args) => man::run(&args, ui),
    }
}

/// Tells an error in one sentence, with a hint where there is one.
fn tell(error: &Error, ui: &mut Ui) -> ExitCode {
    if !error.is_silent() {
        ui.error(&error.to_string(), error.hint().as_deref());
    }
    ExitCode::from(error.status())
}

#[cfg(test)]
mod tests;
