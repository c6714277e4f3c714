//! `xene dev`: controller and agent in one process, watching a folder: the shortest way from a file to a run.

use std::{
    collections::HashMap,
    fs,
    io::{self, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{ValueEnum, builder::BoolishValueParser};
use tokio::{
    sync::{broadcast::error::RecvError, watch},
    task::JoinHandle,
};
use xene_agent::{
    clock, command,
    driver::{self, Ending},
    session::Transports,
};
use xene_schemas::{
    meta::{AgentName, Labels},
    run::Run,
    source::SourceStatus,
};

use super::{
    Error, Global,
    controller::{LINGER, Stop, check_http, described, runtime},
    dirs, escape,
};
use crate::{
    controller::{Controller, Init, Options},
    decide::rows::{Change, WorkflowRow},
    driver::Handle,
    http::ui::session::link,
    notify,
    source::{self, SourceConfig, SourceError},
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

    /// Where more agents may connect (UDP and TCP).
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7421")]
    pub quic: SocketAddr,

    /// Allow --http beyond loopback: tokens then travel in the clear.
    #[arg(long, value_parser = BoolishValueParser::new())]
    pub insecure_http: bool,

    /// Folder of credentials that notifiers name: NAME.yaml, mode 0600, read anew for each message.
    #[arg(long, value_name = "DIR")]
    pub notify_secrets: Option<PathBuf>,

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
    let runtime = runtime()?;
    let ended = runtime.block_on(serve(args, global));
    runtime.shutdown_timeout(LINGER);
    ended
}

async fn serve(args: Args, global: &Global) -> Result<(), Error> {
    let stop = Stop::listen()?;
    let data = args.data_dir();
    // Before the state is made in it: a slip of the pen must not make a folder.
    if !args.source.exists() {
        return Err(Error::start(&SourceError::PathMissing(args.source).into()));
    }
    keep_out_of_git(&data)?;
    let mut source = SourceConfig::new(args.source.to_string_lossy(), data.join("controller/mirror"));
    source.mode = match args.mode {
        Mode::Git => source::Mode::Git,
        Mode::Directory => source::Mode::Directory,
    };
    let options = Options {
        checker: super::check_store::checker(),
        init: Init::Auto,
        source,
        strict: false,
        data_dir: data.join("controller"),
        http: args.http,
        quic: args.quic,
        tls: None,
        pause_margin: Duration::from_secs(60),
        min_autonomy: Duration::from_secs(30),
        metrics_public: false,
        audit_log: None,
        hosts: Vec::new(),
        openid: None,
        traces: None,
        notify: notify::Config {
            secrets: args.notify_secrets.clone(),
            public_url: None,
            certificates: dirs::system_certificates(),
        },
    };
    let controller = Controller::start(options).await.map_err(|error| Error::start(&error))?;
    let token = controller.local_join_token().await.map_err(|error| Error::start(&error))?;
    let cpus = std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX));
    let name: AgentName = "dev".parse().map_err(|error| Error::usage(format!("{error}")))?;
    let agent = driver::Options {
        controller: controller.quic.to_string(),
        transports: Transports::Auto,
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
    let watching = (!global.quiet).then(|| tokio::spawn(tell(controller.handle.clone())));
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
    watching.inspect(JoinHandle::abort);
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
    let code = controller.signed_in.admin_code(clock::now().boot);
    let code = code.map_err(|error| Error::Failed { message: error.to_string(), hint: None })?;
    writeln!(err, "  HTTP     http://{}", controller.http)?;
    writeln!(err, "  UI       http://{}{}", controller.http, link(&code))?;
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

/// Tells what is in effect, then what takes effect and what runs, line by line.
async fn tell(handle: Handle) {
    // Asked for before the store is read: what is committed in between is seen twice rather than not at all.
    let mut watch = handle.watch();
    let mut told = HashMap::new();
    let mut take_effect = |row: &WorkflowRow| {
        let (name, generation) = (&row.metadata.name, row.generation);
        let is_news = row.valid && told.insert(name.clone(), generation) != Some(generation);
        is_news.then(|| format!("{name} is in effect, generation {}", generation.0))
    };
    // Nobody may be reading.
    let say = |line: Option<String>| drop(line.map(|line| writeln!(io::stderr(), "{line}")));
    let store = handle.store();
    store.workflows(None, usize::MAX, |_| true).iter().flatten().for_each(|row| say(take_effect(row)));
    let mut known = Vec::new();
    let mut problems = |status: &SourceStatus| {
        let is_news = status.problems != known;
        known.clone_from(&status.problems);
        let lines: Vec<_> = known.iter().map(|problem| escape::line(&problem.to_string())).collect();
        is_news.then(|| if lines.is_empty() { "all files are fine again".into() } else { lines.join("\n") })
    };
    say(store.source().ok().flatten().and_then(|status| problems(&status)));
    loop {
        let committed = match watch.recv().await {
            Ok(committed) => committed,
            Err(RecvError::Lagged(_)) => continue,
            Err(RecvError::Closed) => return,
        };
        for change in &committed.changes {
            say(match &**change {
                Change::PutWorkflow(row) => take_effect(row),
                Change::PutSource(status) => problems(status),
                Change::DeleteWorkflow(name) => Some(format!("{name} is gone")),
                Change::PutRun(row) if row.run.status.phase.is_final() => Some(ended(&row.run)),
                _ => None,
            });
        }
    }
}

fn ended(run: &Run) -> String {
    let message = run.status.message.as_deref().map_or(String::new(), |message| format!(": {message}"));
    escape::line(&format!("run {} of {} ended: {}{message}", run.metadata.name, run.spec.key(), run.status.phase))
}
