//! `xene controller`: reads the source, keeps the store, serves HTTP and agents.

use std::{
    io::{self, Write},
    net::SocketAddr,
    path::PathBuf,
};

use clap::{ValueEnum, builder::BoolishValueParser};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use xene_agent::command;
use xene_schemas::{duration::Duration, source::SourceKind};

use super::{
    Error, Global,
    dirs::{self, DataDir},
    exit,
    openid::{self, OpenIdArgs},
};
use crate::{
    controller::{self, Controller, Options},
    notify,
    source::{self, SourceConfig},
    traces::export as traces,
};

/// How long what blocks may take once all else has ended: a call to another server that is not answered keeps nobody here.
pub(super) const LINGER: std::time::Duration = std::time::Duration::from_secs(1);

/// Arguments of `xene controller`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Each flag can also be set as XENE_<FLAG>, or in the file that --config names, a YAML map \
                        from flags to values. The command line comes first, then the environment, then the file.")]
pub struct Args {
    /// Where workflow files come from: a folder, a repository, or a repository's URL.
    #[arg(long, value_name = "PATH-or-URL")]
    pub source: String,

    /// Whether only commits count.
    #[arg(long, value_name = "MODE", default_value = "auto")]
    pub mode: Mode,

    /// The branch to follow [default: main].
    #[arg(long, value_name = "NAME")]
    pub branch: Option<String>,

    /// The folder of workflow files within the source [default: xene.d if there is one, else the source's root].
    #[arg(long, value_name = "FOLDER")]
    pub path: Option<String>,

    /// How often to look at a remote source.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = at_least_one_second)]
    pub poll: Duration,

    /// When a source that can't be reached is told as stale.
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = at_least_one_second)]
    pub stale_after: Duration,

    /// Whether a rewritten history (force-push) takes effect.
    #[arg(long, value_name = "RULE", default_value = "allow")]
    pub rewrites: Rewrites,

    /// All or nothing: a commit with errors in its files takes no effect at all.
    #[arg(long, value_parser = BoolishValueParser::new())]
    pub strict: bool,

    /// Where state is kept [default: ~/.local/share/xene/controller].
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// What the store is taken for: `recover` once, after a backup was restored or the store was lost; then agents say
    /// what they hold, and it takes minutes until the rest is granted anew.
    #[arg(long, value_name = "HOW", default_value = "auto")]
    pub init: Init,

    /// Where people and programs connect.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7420")]
    pub http: SocketAddr,

    /// A name that HTTP answers to, beside localhost and literal addresses; may be repeated.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub host: Vec<String>,

    /// Where browsers find this controller: for links in messages and sign-in by a provider; its name is a --host, too.
    #[arg(long, value_name = "URL", value_parser = openid::public_url)]
    pub public_url: Option<String>,

    /// Where agents connect: QUIC (UDP), and TCP on the same port for those that no UDP reaches.
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:7421")]
    pub quic: SocketAddr,

    /// Certificate chain of the HTTP server, PEM; read anew when it changes.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,

    /// Key of that certificate, PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,

    /// Allow --http beyond loopback without TLS: tokens then travel in the clear.
    #[arg(long, value_parser = BoolishValueParser::new())]
    pub insecure_http: bool,

    /// A file to which a line of JSON is added for each change that somebody makes, and for each refusal.
    #[arg(long, value_name = "FILE")]
    pub audit_log: Option<PathBuf>,

    /// Let anybody who can connect read /metrics, without a token.
    #[arg(long, value_parser = BoolishValueParser::new())]
    pub metrics_public: bool,

    /// A collector that takes OTLP by HTTP, such as http://127.0.0.1:4318: traces of commits and runs go there.
    #[arg(long, value_name = "URL", value_parser = openid::http_url)]
    pub otlp_endpoint: Option<String>,

    /// A file with headers for the collector, `Name: value` line by line.
    #[arg(long, value_name = "FILE", requires = "otlp_endpoint")]
    pub otlp_headers_file: Option<PathBuf>,

    /// Folder of credentials that notifiers name: NAME.yaml, mode 0600, read anew for each message.
    #[arg(long, value_name = "DIR")]
    pub notify_secrets: Option<PathBuf>,

    /// A file with values for flags that are not given.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// How long a machine may pause between checking its lease and starting a run.
    #[arg(long, value_name = "DURATION", default_value = "60s", help_heading = "Ownership")]
    pub pause_margin: Duration,

    /// The smallest `autonomy` that a pipeline may ask for.
    #[arg(long, value_name = "DURATION", default_value = "30s", help_heading = "Ownership")]
    pub min_autonomy: Duration,

    /// How to sign in at the source.
    #[command(flatten)]
    pub credentials: Credentials,

    /// How people sign in.
    #[command(flatten)]
    pub openid: OpenIdArgs,
}

/// How to sign in at a remote source. Files are read anew at each fetch.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Credentials of the source")]
pub struct Credentials {
    /// User name for https [default: that in the URL].
    #[arg(long, value_name = "NAME")]
    pub git_username: Option<String>,

    /// File with the password or token for https.
    #[arg(long, value_name = "FILE")]
    pub git_password_file: Option<PathBuf>,

    /// Private key for ssh [default: the ssh agent's keys].
    #[arg(long, value_name = "FILE")]
    pub ssh_key: Option<PathBuf>,

    /// Known hosts for ssh [default: ~/.ssh/known_hosts].
    #[arg(long, value_name = "FILE")]
    pub ssh_known_hosts: Option<PathBuf>,
}

/// Whether only commits count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Repositories and URLs as git, other folders as directory.
    Auto,
    /// Only commits count.
    Git,
    /// Files as they lie.
    Directory,
}

/// What the store is taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Init {
    /// As it is, or new.
    Auto,
    /// New: no agent holds claims of an earlier one.
    New,
    /// A backup, or lost.
    Recover,
}

/// Whether a rewritten history takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Rewrites {
    /// It does, with an event.
    Allow,
    /// What was in effect before stays.
    Deny,
}

fn at_least_one_second(text: &str) -> Result<Duration, String> {
    let duration: Duration = text.parse().map_err(|error: xene_schemas::duration::DurationError| error.to_string())?;
    if duration < Duration::from_secs(1) { Err("at least 1s".into()) } else { Ok(duration) }
}

impl Args {
    /// Where state is kept.
    pub fn data_dir(&self) -> PathBuf {
        self.data_dir.clone().unwrap_or_else(|| dirs::default_data_dir(DataDir::Controller))
    }

    /// Checks what no single flag can tell.
    ///
    /// # Errors
    /// If HTTP would leave this machine in the clear and nobody said that it may.
    pub fn check(&self) -> Result<(), Error> {
        self.openid.check()?;
        check_http(self.http, self.tls_cert.is_some(), self.insecure_http)
    }
}

/// Refuses plain HTTP beyond loopback, unless it is asked for.
pub(super) fn check_http(http: SocketAddr, tls: bool, insecure: bool) -> Result<(), Error> {
    if http.ip().is_loopback() || tls || insecure {
        return Ok(());
    }
    Err(Error::usage_with_hint(
        format!("--http {http} is open to the network without TLS, and tokens would travel in the clear"),
        "give --tls-cert and --tls-key, or --insecure-http if something before it does TLS",
    ))
}

impl Args {
    fn options(&self) -> Options {
        let data_dir = self.data_dir();
        let mut source = SourceConfig::new(&self.source, data_dir.join("mirror"));
        source.mode = match self.mode {
            Mode::Auto => source::Mode::Auto,
            Mode::Git => source::Mode::Git,
            Mode::Directory => source::Mode::Directory,
        };
        source.branch = Some(self.branch.clone().unwrap_or_else(|| "main".into()));
        source.branch_named = self.branch.is_some();
        source.path.clone_from(&self.path);
        source.poll = self.poll.into();
        source.stale_after = self.stale_after.into();
        source.rewrites = match self.rewrites {
            Rewrites::Allow => source::Rewrites::Allow,
            Rewrites::Deny => source::Rewrites::Deny,
        };
        source.credentials = source::Credentials {
            ssh_key: self.credentials.ssh_key.clone(),
            known_hosts: self.credentials.ssh_known_hosts.clone(),
            username: self.credentials.git_username.clone(),
            password: self.credentials.git_password_file.clone().map(source::Password::File),
        };
        Options {
            checker: super::check_store::checker(),
            init: match self.init {
                Init::Auto => controller::Init::Auto,
                Init::New => controller::Init::New,
                Init::Recover => controller::Init::Recover,
            },
            source,
            strict: self.strict,
            data_dir,
            http: self.http,
            quic: self.quic,
            tls: self.tls_cert.clone().zip(self.tls_key.clone()),
            pause_margin: self.pause_margin.into(),
            min_autonomy: self.min_autonomy.into(),
            metrics_public: self.metrics_public,
            audit_log: self.audit_log.clone(),
            hosts: self.host.iter().cloned().chain(self.public_url.as_deref().and_then(openid::host_of)).collect(),
            openid: self.openid.settings(self.public_url.as_deref()),
            traces: self.otlp_endpoint.clone().map(|endpoint| traces::Settings {
                endpoint,
                headers: self.otlp_headers_file.clone(),
                ca: dirs::system_certificates(),
            }),
            notify: notify::Config {
                secrets: self.notify_secrets.clone(),
                public_url: self.public_url.clone(),
                certificates: dirs::system_certificates(),
            },
        }
    }
}

/// Runs the controller until it is told to stop.
///
/// # Errors
/// If it can't start, or fails.
pub fn run(args: Args, global: &Global) -> Result<(), Error> {
    args.check()?;
    command::init_logging(global.quiet, global.verbose);
    allow_open_files();
    let runtime = runtime()?;
    let ended = runtime.block_on(async {
        let stop = Stop::listen()?;
        let options = args.options();
        let token_file = options.data_dir.join(dirs::ADMIN_TOKEN);
        let scheme = if options.tls.is_some() { "https" } else { "http" };
        let controller = Controller::start(options).await.map_err(|error| Error::start(&error))?;
        if !global.quiet {
            let mut err = io::stderr();
            writeln!(err, "xene {}", env!("CARGO_PKG_VERSION"))?;
            writeln!(err, "  source       {}", described(&controller))?;
            writeln!(err, "  HTTP         {scheme}://{}", controller.http)?;
            writeln!(err, "  agents dial  {}", controller.quic)?;
            writeln!(err, "  admin token  {}", token_file.display())?;
        }
        let ended = controller.run(stop.wait()).await;
        ended.map_err(|error| Error::Failed { message: command::sentence(&error), hint: None })?;
        stop.status()
    });
    runtime.shutdown_timeout(LINGER);
    ended
}

/// Takes as many open files as are needed for all connections at once, as far as the system lets: by default it gives
/// 1,024, for the sake of programs that count on that. The controller's only children are git's.
fn allow_open_files() {
    const NEEDED: u64 = 16_384;
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(NEEDED, |most| most.min(NEEDED));
    if limit.current.is_some_and(|current| current < wanted) {
        let raised = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), ..limit });
        raised.unwrap_or_else(|error| tracing::warn!(%error, "no more files can be open than by default"));
    }
}

/// The source in a few words.
pub(super) fn described(controller: &Controller) -> String {
    let origin = &controller.source;
    let path =
        origin.path.as_ref().filter(|path| !path.is_empty()).map(|path| format!(", folder {path}")).unwrap_or_default();
    match (&origin.kind, &origin.branch) {
        (SourceKind::Git, Some(branch)) => format!("{} (git, branch {branch}{path}): commits count", origin.url),
        (SourceKind::Git, None) => format!("{} (git{path}): commits count", origin.url),
        (SourceKind::Directory, _) => format!("{} (directory{path}): saved files count", origin.url),
    }
}

/// The runtime of a controller: two threads, so that a long answer holds up no session.
pub(super) fn runtime() -> Result<Runtime, Error> {
    Builder::new_multi_thread()
        .worker_threads(2)
        .thread_keep_alive(std::time::Duration::from_secs(2))
        .enable_all()
        .build()
        .map_err(|error| Error::Failed { message: format!("the system gives no runtime: {error}"), hint: None })
}

/// Waits for SIGTERM or Ctrl-C.
#[derive(Debug, Clone)]
pub(super) struct Stop(watch::Receiver<Option<SignalKind>>);

impl Stop {
    /// Listens from now on.
    pub(super) fn listen() -> Result<Self, Error> {
        let failed = |error| Error::Failed { message: format!("signals can't be watched: {error}"), hint: None };
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let (sender, receiver) = watch::channel(None);
        tokio::spawn(async move {
            loop {
                let kind = tokio::select! {
                    _ = terminate.recv() => SignalKind::terminate(),
                    _ = interrupt.recv() => SignalKind::interrupt(),
                };
                if sender.send_replace(Some(kind)).is_some() {
                    // The operator insists.
                    std::process::exit(i32::from(exit::INTERRUPTED));
                }
            }
        });
        Ok(Self(receiver))
    }

    /// Resolves at the first signal.
    pub(super) async fn wait(&self) {
        let mut receiver = self.0.clone();
        // The sender lives as long as the process.
        drop(receiver.wait_for(Option::is_some).await);
    }

    /// The exit status for the signal that came, if one did.
    pub(super) fn status(&self) -> Result<(), Error> {
        let interrupted = *self.0.borrow() == Some(SignalKind::interrupt());
        if interrupted { Err(Error::Status(exit::INTERRUPTED)) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_beyond_loopback_must_be_asked_for() {
        let (inside, outside) = ("127.0.0.1:1".parse().unwrap(), "0.0.0.0:1".parse().unwrap());
        assert!(check_http(inside, false, false).is_ok());
        assert_eq!(check_http(outside, false, false).unwrap_err().status(), 2);
        assert!(check_http(outside, true, false).is_ok());
        assert!(check_http(outside, false, true).is_ok());
    }
}
