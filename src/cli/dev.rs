//! `xene dev`: controller and agent in one process, watching a folder: the shortest way from a file to a run.

use std::{
    fs,
    io::{self, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{ValueEnum, builder::BoolishValueParser};
use tokio::sync::{broadcast::error::RecvError, watch};
use xene_agent::{
    clock, command,
    driver::{self, Ending},
};
use xene_schemas::meta::{AgentName, Labels};

use super::{
    Error, Global,
    controller::{Stop, check_http, described, runtime},
    dirs,
};
use crate::{
    controller::{Controller, Options},
    decide::rows::Change,
    driver::Handle,
    source::{self, SourceConfig},
};

/// Arguments of `xene dev`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Each flag can also be set as XENE_<FLAG>, or in the file that --config names, a YAML map \
                        from flags to values. The command line comes first, then the environment, then the file.")]
pub struct Args {
    /// The folder to watch.
    #[arg(value_name = "PATH", default_value = ".")]
    pub source: PathBuf,

    /// What takes effect: each saved file, or only commits.
    #[arg(long, value_name = "MODE", default_value = "directory")]
    pub mode: Mode,

    /// Where state is kept [default: .xene in PATH].
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// Where people and programs connect.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7420")]
    pub http: SocketAddr,

    /// Where more agents may connect (UDP).
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7421")]
    pub quic: SocketAddr,

    /// Allow --http beyond loopback: tokens then travel in the clear.
    #[arg(long, value_parser = BoolishValueParser::new())]
    pub insecure_http: bool,

    /// A file with values for flags that are not given.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// What takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Only commits count.
    Git,
    /// Each saved file is live at once.
    Directory,
}

impl Args {
    /// Where state is kept; the controller's is `controller/` in it, the agent's `agent/`.
    pub fn data_dir(&self) -> PathBuf {
        self.data_dir.clone().unwrap_or_else(|| self.source.join(dirs::DEV_DIR))
    }
}

/// Runs controller and agent until they are told to stop.
///
/// # Errors
/// If they can't start, or fail.
pub fn run(args: Args, global: &Global) -> Result<(), Error> {
    check_http(args.http, false, args.insecure_http)?;
    command::init_logging(true, global.verbose);
    runtime()?.block_on(serve(args, global))
}

async fn serve(args: Args, global: &Global) -> Result<(), Error> {
    let stop = Stop::listen()?;
    let data = args.data_dir();
    keep_out_of_git(&data)?;
    let mut source = SourceConfig::new(args.source.to_string_lossy(), data.join("controller/mirror"));
    source.mode = match args.mode {
        Mode::Git => source::Mode::Git,
        Mode::Directory => source::Mode::Directory,
    };
    let options = Options {
        source,
        data_dir: data.join("controller"),
        http: args.http,
        quic: args.quic,
        tls: None,
        pause_margin: Duration::from_secs(60),
        min_autonomy: Duration::from_secs(30),
        hosts: Vec::new(),
    };
    let controller = Controller::start(options).await.map_err(|error| Error::start(&error))?;
    let token = controller.local_join_token(clock::now()).await.map_err(|error| Error::start(&error))?;
    let cpus = std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX));
    let name: AgentName = "dev".parse().map_err(|error| Error::usage(format!("{error}")))?;
    let agent = driver::Options {
        controller: controller.quic.to_string(),
        token: Some(token),
        name,
        labels: Labels::new(),
        slots: cpus,
        data_dir: data.join("agent"),
    };
    if !global.quiet {
        greet(&controller, &args)?;
    }
    let (end, ending) = watch::channel(Ending::No);
    let agent = tokio::spawn(driver::run(agent, ending));
    let watching = tokio::spawn(tell(controller.handle.clone(), global.quiet));
    let waiting = stop.clone();
    let ended = controller
        .run(async {
            let mut agent = agent;
            tokio::select! {
                () = waiting.wait() => {
                    // A developer who stops does not want to wait for what runs.
                    end.send_replace(Ending::Stop);
                    report_agent(agent.await);
                }
                ended = &mut agent => report_agent(ended),
            }
        })
        .await;
    watching.abort();
    ended.map_err(|error| Error::Failed { message: command::sentence(&error), hint: None })?;
    stop.status()
}

fn report_agent(ended: Result<Result<(), driver::AgentError>, tokio::task::JoinError>) {
    match ended {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!("the agent ended: {}", command::sentence(&error)),
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

fn greet(controller: &Controller, args: &Args) -> Result<(), Error> {
    let mut err = io::stderr();
    writeln!(err, "xene {}", env!("CARGO_PKG_VERSION"))?;
    writeln!(err, "  watches  {}", described(controller))?;
    writeln!(err, "  HTTP     http://{}", controller.http)?;
    writeln!(err, "  state    {}", args.data_dir().display())?;
    writeln!(
        err,
        "In another terminal, in this folder: `xene status`, `xene get pipelines`, `xene trigger W/P --follow`."
    )?;
    writeln!(err, "Ctrl-C ends it.")?;
    Ok(())
}

/// The state must not be committed with the files that it is the state of.
fn keep_out_of_git(data: &Path) -> Result<(), Error> {
    fs::create_dir_all(data).map_err(|error| Error::file(data, &error))?;
    let path = data.join(".gitignore");
    if path.exists() {
        return Ok(());
    }
    fs::write(&path, "*\n").map_err(|error| Error::file(path, &error))
}

/// Tells what takes effect and what runs, line by line.
async fn tell(handle: Handle, quiet: bool) {
    let mut watch = handle.watch();
    let mut told = Vec::new();
    loop {
        let committed = match watch.recv().await {
            Ok(committed) => committed,
            Err(RecvError::Lagged(_)) => continue,
            Err(RecvError::Closed) => return,
        };
        for change in &committed.changes {
            let line = match &**change {
                _ if quiet => None,
                Change::PutWorkflow(row) if row.valid => {
                    Some(format!("{} is in effect, generation {}", row.metadata.name, row.generation.0))
                }
                Change::PutSource(status) if status.problems != told => {
                    told.clone_from(&status.problems);
                    let lines: Vec<_> = told.iter().map(ToString::to_string).collect();
                    Some(if lines.is_empty() { "all files are fine again".into() } else { lines.join("\n") })
                }
                Change::DeleteWorkflow(name) => Some(format!("{name} is gone")),
                Change::PutRun(row) if row.run.status.phase.is_final() => {
                    let status = &row.run.status;
                    let message = status.message.as_deref().map_or(String::new(), |message| format!(": {message}"));
                    Some(format!(
                        "run {} of {} ended: {}{message}",
                        row.run.metadata.name,
                        row.run.spec.key(),
                        status.phase
                    ))
                }
                _ => None,
            };
            if let Some(line) = line {
                // Nobody may be reading.
                let _ = writeln!(io::stderr(), "{line}");
            }
        }
    }
}
