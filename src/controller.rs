//! A controller, put together: store, logs, certificates, source, sessions, HTTP, and the loop between them.

use std::{
    fs, io,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{sync::watch, task::JoinHandle};
use xene_agent::{
    clock,
    content::ContentStore,
    lmdb::{DataLock, LockError, Size},
    session::{
        tls::{hex, write_private},
        token::JoinToken,
    },
};
use xene_schemas::{
    meta::{AgentName, RunName},
    run::{Artifact, MAX_ARTIFACT_BYTES, MAX_ARTIFACTS},
    source::SourceKind,
    wire::logs::{ArtifactHeader, LogHeader},
};

use crate::{
    compile::{self, Limits, catalog::Catalog},
    decide::{
        Config,
        desired::{SourceOrigin, errors},
        event::{Command, Event},
        rows::{JoinTokenRow, Loaded, RunRow},
        wall_at_start,
    },
    driver::{Closed, Driver, DriverError, Handle, Shells},
    http::{
        self,
        audit::AuditLog,
        auth::{AdminToken, HookSecret},
    },
    metrics::Counters,
    notify,
    outgoing::TrustError,
    session::{
        Append, Listener, ListenerConfig, ListenerError, LogSink, MayStore, Sessions,
        pki::{AGENT_LIFE, Pki, PkiError},
    },
    source::{Resume, Source, SourceConfig, SourceError, SourceHandle, travel::Travel},
    store::{
        Store, StoreError,
        check::{self, CheckError},
        logs::{LogError, LogStore},
    },
    traces::{self, export::Exporter},
};

/// How often what the store says is compared with what was written there.
const CHECK_EVERY: Duration = Duration::from_secs(10 * 60);
/// How often the store is swept.
const SWEEP_EVERY: Duration = Duration::from_secs(24 * 60 * 60);
/// How often the store is measured.
const MEASURE_EVERY: Duration = Duration::from_secs(10);
/// How long a file stays that nothing refers to: what is to refer to it may be on its way into the store.
const FILES_GRACE: Duration = Duration::from_secs(60 * 60);
/// How long an equal delivery finds its run.
const KEEP_DELIVERIES: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// What a controller takes its store for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Init {
    /// For what it is; a new one is made on a data folder that has none and never had.
    Auto,
    /// For absent: no agent holds claims, and a new one is made.
    New,
    /// For a backup, or for lost: a new one is made if there is none, and agents say what they hold.
    Recover,
}

/// What an operator sets.
#[derive(Debug)]
pub struct Options {
    /// What the store is taken for.
    pub init: Init,
    /// The program and its arguments that read all of a store before it is used, as [`check::check`] calls
    /// them.
    pub checker: (PathBuf, &'static [&'static str]),
    /// Where desired state comes from.
    pub source: SourceConfig,
    /// True if a revision with errors in its files takes no effect at all.
    pub strict: bool,
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// Where people and programs connect.
    pub http: SocketAddr,
    /// Where agents connect.
    pub quic: SocketAddr,
    /// Certificate chain and key of the HTTP server, PEM files.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// ε.
    pub pause_margin: Duration,
    /// The smallest L that a pipeline may ask for.
    pub min_autonomy: Duration,
    /// True if `/metrics` asks nobody who they are.
    pub metrics_public: bool,
    /// Where it is written who changed what.
    pub audit_log: Option<PathBuf>,
    /// Names that HTTP answers to, beside `localhost` and literal addresses.
    pub hosts: Vec<String>,
    /// Who else says who somebody is.
    pub openid: Option<http::openid::Settings>,
    /// Where traces go.
    pub traces: Option<traces::export::Settings>,
    /// How messages of notifiers are delivered.
    pub notify: notify::Config,
}

/// Why a controller can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data folder can't be had.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The store is gone, and agents may still hold claims of it.
    #[error("{} has a certificate authority and no store: if agents go on from an earlier store, start once with --init recover, else with --init new", .0.display())]
    StoreLost(PathBuf),
    /// A new store was asked for where there is one.
    #[error("{} has a store, and --init new makes none beside it", .0.display())]
    StoreExists(PathBuf),
    /// The source can't be opened.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The store is not whole.
    #[error(transparent)]
    Check(#[from] CheckError),
    /// The store can't be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The logs can't be opened.
    #[error(transparent)]
    Logs(#[from] LogError),
    /// The certificate authority can't be opened.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The loop can't start.
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// Agents can't connect.
    #[error(transparent)]
    Listener(#[from] ListenerError),
    /// People and programs can't connect.
    #[error("can't listen on {address}: {source}")]
    Http {
        /// As asked for.
        address: SocketAddr,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The HTTP server's certificate can't be used.
    #[error(transparent)]
    Tls(#[from] http::tls::TlsError),
    /// Another server can't be trusted.
    #[error("{what}: {source}")]
    Trust {
        /// What it is for.
        what: &'static str,
        /// Why not.
        #[source]
        source: TrustError,
    },
    /// A file or a thread can't be made.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

/// A controller that runs.
#[derive(Debug)]
pub struct Controller {
    /// To ask it for things.
    pub handle: Handle,
    /// Where HTTP is served.
    pub http: SocketAddr,
    /// Where agents dial.
    pub quic: SocketAddr,
    /// The admin's token, as in the file.
    pub admin_token: String,
    /// Who is signed in to the UI.
    pub signed_in: http::ui::session::Sessions,
    /// What the source is.
    pub source: SourceOrigin,
    pki: Arc<Pki>,
    listener: Listener,
    server: JoinHandle<io::Result<()>>,
    /// Ends the streams and connections of HTTP.
    stop_http: watch::Sender<bool>,
    worker: SourceHandle,
    driver: JoinHandle<Result<(), DriverError>>,
    sweeper: JoinHandle<()>,
    measurer: JoinHandle<()>,
    checker: JoinHandle<()>,
    traces: Option<JoinHandle<()>>,
    stop: watch::Sender<bool>,
    _lock: DataLock,
}

impl Controller {
    /// Starts a controller: what can't be had is told before anything is changed.
    ///
    /// # Errors
    /// If the source, the data folder or an address can't be had.
    pub async fn start(options: Options) -> Result<Self, StartError> {
        let source = Source::open(options.source.clone())?;
        let browser = source.browser();
        let lock = DataLock::acquire(&options.data_dir)?;
        let socket =
            TcpListener::bind(options.http).map_err(|source| StartError::Http { address: options.http, source })?;
        let tls = options.tls.as_ref().map(|(chain, key)| http::tls::config(chain, key)).transpose()?;
        let trust = |what| move |source| StartError::Trust { what, source };
        let openid = options.openid.map(http::openid::OpenId::new).transpose();
        let openid = openid.map_err(trust("sign-in by OpenID Connect"))?.map(Arc::new);
        let admin_token = admin_token(&options.data_dir)?;
        let audit = options.audit_log.map(|path| {
            let what = format!("the audit log {}", path.display());
            AuditLog::open(path).map_err(|source| StartError::System { what, source })
        });
        let audit = audit.transpose()?;
        match (options.init, Store::exists(&options.data_dir)) {
            (Init::Auto, false) if Pki::exists(&options.data_dir.join("pki")) => {
                return Err(StartError::StoreLost(options.data_dir));
            }
            (Init::New, true) => return Err(StartError::StoreExists(options.data_dir)),
            _ => {}
        }
        if Store::exists(&options.data_dir) {
            check::check(&options.checker.0, options.checker.1, &options.data_dir)?;
        }
        let store = Store::open(&options.data_dir)?;
        let logs = LogStore::open(&options.data_dir.join("logs"))?;
        let folder = options.data_dir.join("files");
        let files = ContentStore::open(&folder)
            .map_err(|source| StartError::System { what: folder.display().to_string(), source })?;
        let source = source.carrying(Travel { wanted: compile::wanted_files, store: Some(files.clone()) });
        let origin = SourceOrigin {
            kind: source.kind(),
            url: source.url().to_owned(),
            branch: options.source.branch.clone().filter(|_| source.kind() == SourceKind::Git),
            path: source.folder().map(str::to_owned),
        };
        let loaded = store.load()?;
        let boot_id = clock::boot_id().map_err(|source| {
            let what = "the host's boot can't be told".into();
            StartError::System { what, source }
        })?;
        let wall = wall_at_start(clock::now(), loaded.controller.as_ref(), &boot_id, options.pause_margin);
        let pki = Arc::new(Pki::open(&options.data_dir.join("pki"), wall, AGENT_LIFE)?);
        let limits = Limits { min_autonomy: whole_millis(options.min_autonomy) };
        let (catalog, resume) = resume(&loaded, &origin, limits, &files);
        let sessions = Sessions::default();
        let sessions_of_ui = http::ui::session::Sessions::new(tls.is_some());
        let sessions_of_ui = sessions_of_ui.found_at(options.notify.public_url.as_deref());
        let outgoing = notify::Outgoing::new(options.notify);
        let shells = Shells {
            store: store.clone(),
            logs: logs.clone(),
            sessions: sessions.clone(),
            pki: Arc::clone(&pki),
            outgoing: outgoing.clone(),
        };
        let config = Config {
            pause_margin: options.pause_margin,
            min_autonomy: options.min_autonomy,
            nonce: random()?,
            secret: random_bytes()?,
            software: env!("CARGO_PKG_VERSION").into(),
            store_id: format!("{:016x}", random()?),
            boot_id,
            source: origin.clone(),
            authority: pki.authority(),
            recover: options.init == Init::Recover,
            #[cfg(feature = "mutants")]
            mutant: None,
        };
        let exporter = options.traces.map(|settings| {
            let epochs = loaded.owners.iter().map(|(key, owner)| (key.clone(), owner.epoch));
            Exporter::new(settings, loaded.source.as_ref().and_then(|source| source.revision.clone()), epochs)
        });
        let exporter = exporter.transpose().map_err(trust("traces"))?;
        let (driver, handle) = Driver::new(shells, config, loaded)?;
        let (stop, stopped) = watch::channel(false);
        let traces = exporter.map(|exporter| tokio::spawn(exporter.run(handle.watch(), stopped.clone())));
        let driver = tokio::spawn(driver.run(stopped));
        let sweeper = tokio::spawn(sweep_daily(store.clone(), files.clone(), handle.clone()));
        let measurer = tokio::spawn(measure(store.clone(), handle.clone()));

        let sink = Sink { store, logs, counters: handle.counters().clone() };
        let listener = Listener::bind(
            &ListenerConfig::new(options.quic),
            Arc::clone(&pki),
            handle.clone(),
            sink,
            files.clone(),
            sessions,
        )?;
        let quic = listener.local_addr().map_err(|source| StartError::System {
            what: "the address that agents dial can't be told".into(),
            source,
        })?;
        let (worker, checker) = watch_source(source, resume, catalog, (limits, options.strict), handle.clone())?;
        let http = socket.local_addr().map_err(|source| StartError::Http { address: options.http, source })?;
        let (syncing, announcing) = (worker.clone(), worker.clone());
        let (stop_http, stopping) = watch::channel(false);
        let router = http::router(
            handle.clone(),
            http::Config {
                admin: AdminToken::new(&admin_token),
                hooks: HookSecret(hook_secret(&options.data_dir)?),
                hosts: options.hosts,
                rotate: rotate_hook(&pki, &handle),
                files,
                sync: Arc::new(move || {
                    let syncing = syncing.clone();
                    Box::pin(async move { syncing.sync().await.map(drop).map_err(|failure| failure.to_string()) })
                }),
                announce: Arc::new(move |commit| announcing.announce(commit)),
                browser,
                limits,
                strict: options.strict,
                sessions: sessions_of_ui.clone(),
                audit,
                openid,
                metrics_public: options.metrics_public,
                outgoing,
                stopping: stopping.clone(),
            },
        );
        let server = tokio::spawn(http::serve(socket, tls, router, stopping));
        Ok(Self {
            handle,
            http,
            quic,
            admin_token,
            signed_in: sessions_of_ui,
            source: origin,
            pki,
            listener,
            server,
            stop_http,
            worker,
            driver,
            sweeper,
            measurer,
            checker,
            traces,
            stop,
            _lock: lock,
        })
    }

    /// A join token for an agent of the same process.
    ///
    /// # Errors
    /// If the controller is shutting down, or the system gives no random bytes.
    pub async fn local_join_token(&self) -> Result<String, StartError> {
        let system = |what: &str, source| StartError::System { what: what.into(), source };
        let token = JoinToken::generate(&self.pki.ca_fingerprint())
            .map_err(|error| system("no random bytes", io::Error::from(error)))?;
        let now = self.handle.wall();
        let command = Command::CreateJoinToken(JoinTokenRow {
            id: token.id.clone(),
            secret_hash: token.secret_hash(),
            created_at: Some(now),
            created_by: None,
            expires_at: now + Duration::from_secs(60),
            uses_left: 1,
            labels: None,
            name: None,
        });
        match self.handle.ask(command).await {
            Ok(Ok(_)) => Ok(token.to_string()),
            Ok(Err(refusal)) => Err(system("no join token", io::Error::other(refusal))),
            Err(Closed) => Err(system("no join token", io::Error::other(Closed))),
        }
    }

    /// Goes on until `stop` resolves, or the store can't be written; then shuts down in order: no new requests, no new
    /// snapshots, sessions closed once all is said, everything decided durable.
    ///
    /// # Errors
    /// If the store can't be written.
    pub async fn run(mut self, stop: impl Future<Output = ()>) -> Result<(), DriverError> {
        let failed = tokio::select! {
            () = stop => None,
            ended = &mut self.driver => Some(ended),
        };
        // On a full disk the end would wait for room: what was not acknowledged by now will not be.
        self.handle.store().wait_no_more();
        self.sweeper.abort();
        self.measurer.abort();
        self.checker.abort();
        self.stop_http.send_replace(true);
        if let Ok(Err(error)) = self.server.await {
            tracing::error!(%error, "HTTP was not served");
        }
        let worker = self.worker.clone();
        // The source's thread may be waiting for the loop, which therefore ends after it.
        drop(tokio::task::spawn_blocking(move || worker.stop()).await);
        self.listener.shutdown().await;
        self.stop.send_replace(true);
        let ended = match failed {
            Some(ended) => ended,
            None => self.driver.await,
        };
        if let Some(traces) = self.traces {
            // It gives up by itself.
            drop(traces.await);
        }
        match ended {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }
}

/// Changes the files, then tells the machine of it.
fn rotate_hook(pki: &Arc<Pki>, handle: &Handle) -> http::RotateHook {
    let (pki, handle) = (Arc::clone(pki), handle.clone());
    Arc::new(move |rotate, by| {
        let (pki, handle) = (Arc::clone(&pki), handle.clone());
        Box::pin(async move {
            let now = handle.wall();
            let changing = tokio::task::spawn_blocking(move || {
                match rotate {
                    http::Rotate::Begin => pki.rotate(now)?,
                    http::Rotate::Finish if pki.authority().before.is_none() => return Err(PkiError::NotRotating),
                    http::Rotate::Finish => pki.finish_rotation(now)?,
                }
                Ok(pki.authority())
            });
            let authority = changing.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
            let told = handle.tell(Event::Authority { authority, by }).await;
            told.map_err(|closed| closed.to_string())
        })
    })
}

fn whole_millis(duration: Duration) -> xene_schemas::duration::Duration {
    xene_schemas::duration::Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

/// What the source need not read again, and the compiler's memory of it. What was applied of another source or branch
/// is no history that this one could rewrite.
fn resume(loaded: &Loaded, origin: &SourceOrigin, limits: Limits, files: &ContentStore) -> (Catalog, Resume) {
    let catalog = Catalog::recover(loaded.files.clone(), &loaded.workflows, limits).with_notifiers(&loaded.notifiers);
    // Which folder is read does not matter to the history of a branch.
    let same =
        loaded.source.as_ref().filter(|s| s.url == origin.url && s.kind == origin.kind && s.branch == origin.branch);
    let mut known = catalog.known().clone();
    // What takes files that are lost is read again, which brings them back.
    for (path, row) in &loaded.files {
        if !row.travelling.iter().all(|hash| files.has(hash)) {
            known.remove(path);
        }
    }
    let applied = same.filter(|source| source.revision.is_some());
    let folder = applied.map(|source| source.path.clone());
    let resume = Resume { revision: applied.and_then(|source| source.revision.clone()), known, folder };
    (catalog, resume)
}

fn watch_source(
    source: Source,
    resume: Resume,
    mut catalog: Catalog,
    (limits, strict): (Limits, bool),
    handle: Handle,
) -> Result<(SourceHandle, JoinHandle<()>), StartError> {
    let health = handle.clone();
    let doubts = Arc::new(AtomicBool::new(false));
    let (doubted, store) = (Arc::clone(&doubts), handle.store().clone());
    let worker = source
        .doubting(compile::is_doubtful)
        .spawn(
            resume,
            move |snapshot| {
                let in_effect = || Ok::<_, StoreError>(handle.store().source()?.and_then(|source| source.revision));
                // What waited while the source was suspended may be in effect by now.
                let base = in_effect()?;
                if let Some(revision) = &base {
                    catalog.applied(revision);
                }
                let whole = snapshot.files.values().all(|file| file.bytes.is_some());
                let found = (whole && doubted.load(Ordering::Acquire)).then(|| handle.store().found()).transpose()?;
                if found.is_some() {
                    catalog.distrust();
                }
                let desired = catalog.apply(base.clone(), snapshot);
                let revision = desired.revision.clone();
                let withheld = strict && errors(&desired.problems) > 0;
                let desired = Box::new(desired);
                handle.settle(match found {
                    _ if withheld => Event::Withheld(desired),
                    Some(found) => Event::Drifted(desired, Box::new(found)),
                    None => Event::Compiled(desired),
                })?;
                if whole {
                    doubted.store(false, Ordering::Release);
                }
                let now = in_effect()?;
                if now.as_ref() == Some(&revision) {
                    catalog.applied(&revision);
                } else if now != base {
                    let found = handle.store().in_effect()?;
                    catalog = Catalog::recover(found.files, &found.workflows, limits).with_notifiers(&found.notifiers);
                    return Err("meanwhile another was resumed".into());
                }
                // Else it is withheld, or waits while the source is suspended: the next snapshot must bring all of it again.
                Ok(())
            },
            // The loop ends after the source's thread.
            move |event| {
                let _ = health.settle(Event::Source(event));
            },
        )
        .map_err(|source| StartError::System { what: "the source can't be watched".into(), source })?;
    let reader = worker.clone();
    let checker = tokio::spawn(check_digest(store, move || {
        doubts.store(true, Ordering::Release);
        reader.reread();
    }));
    Ok((worker, checker))
}

/// Has everything read again whenever rows that say what is desired are not what was written.
async fn check_digest(store: Store, drifted: impl Fn()) {
    loop {
        let checked = store.clone();
        match tokio::task::spawn_blocking(move || checked.has_drifted()).await {
            Ok(Ok(false)) => {}
            Ok(Ok(true)) => drifted(),
            Ok(Err(error)) => tracing::warn!(%error, "what the store says was not compared with what was written"),
            Err(error) => tracing::warn!(%error, "what the store says was not compared with what was written"),
        }
        tokio::time::sleep(CHECK_EVERY).await;
    }
}

/// Tells the machine how big the store is, and if the host's clock is known to be right.
async fn measure(store: Store, handle: Handle) {
    loop {
        let measured = store.clone();
        // A backup that is made, or a disk that hangs, holds it up.
        let size = tokio::task::spawn_blocking(move || measured.size()).await;
        let Ok(size) = size else { return };
        match size {
            Ok(Size { used, limit }) => {
                if handle.tell(Event::StoreSize { used, limit }).await.is_err() {
                    return;
                }
            }
            Err(error) => tracing::warn!(%error, "the store was not measured"),
        }
        if clock::is_synchronized() && handle.tell(Event::ClockSynchronized).await.is_err() {
            return;
        }
        tokio::time::sleep(MEASURE_EVERY).await;
    }
}

/// Drops what is kept and nobody refers to any more: specs, deliveries, old due times; then files.
async fn sweep_daily(store: Store, files: ContentStore, handle: Handle) {
    loop {
        tokio::time::sleep(SWEEP_EVERY).await;
        let (kept, now) = (store.clone(), handle.wall());
        let swept = tokio::task::spawn_blocking(move || {
            kept.sweep(now - KEEP_DELIVERIES, now, |result| match result {
                Ok(swept) => tracing::debug!(?swept, "the store was swept"),
                Err(error) => tracing::warn!(%error, "the store was not swept"),
            })
        });
        if let Ok(Err(error)) = swept.await {
            tracing::warn!(%error, "the store was not swept");
        }
        sweep_files(&store, &files, FILES_GRACE).await;
    }
}

/// Removes files that no spec, no run and no workflow file refers to.
async fn sweep_files(store: &Store, files: &ContentStore, grace: Duration) {
    let (store, files) = (store.clone(), files.clone());
    let swept = tokio::task::spawn_blocking(move || {
        let used = store.files_in_use().map_err(|error| error.to_string())?;
        files.sweep(grace, |hash| used.contains(hash)).map_err(|error| error.to_string())
    });
    match swept.await {
        Ok(Ok(removed)) => tracing::debug!(removed, "files that nobody refers to were removed"),
        Ok(Err(error)) => tracing::warn!(error, "files were not swept"),
        Err(error) => tracing::warn!(%error, "files were not swept"),
    }
}

/// Where log bytes of agents go.
#[derive(Debug, Clone)]
struct Sink {
    store: Store,
    logs: LogStore,
    counters: Arc<Counters>,
}

impl LogSink for Sink {
    async fn may_append(&self, agent: &AgentName, header: &LogHeader) -> Append {
        // The agent keeps it meanwhile; the room that is left is for what must be written.
        if self.store.is_full() {
            return Append::NotYet;
        }
        match self.store.run(header.run) {
            Ok(Some(RunRow { run, .. }))
                if run.status.agent.as_ref() == Some(agent)
                    && run.status.epoch == Some(header.epoch)
                    && run.spec.key() == header.pipeline =>
            {
                Append::Yes
            }
            // All facts about it were taken, so its record is past its retention, or was lost with an older store.
            Ok(None) if header.settled => Append::Never,
            Ok(_) | Err(_) => Append::NotYet,
        }
    }

    async fn may_store(&self, agent: &AgentName, header: &ArtifactHeader) -> MayStore {
        let row = match self.store.run(header.run) {
            Ok(Some(row)) => row,
            Ok(None) => return MayStore::Unwanted,
            // It is asked again.
            Err(_) => return MayStore::No,
        };
        if row.run.status.agent.as_ref() != Some(agent) {
            return MayStore::No;
        }
        let names = |artifact: &Artifact| artifact.hash == header.hash && artifact.size == header.size;
        match row.run.status.tasks.values().find(|task| task.artifacts.iter().any(names)) {
            None => MayStore::Unwanted,
            Some(task) => {
                let bytes = task.artifacts.iter().map(|artifact| artifact.size).fold(0, u64::saturating_add);
                let fits = task.artifacts.len() <= MAX_ARTIFACTS && bytes <= MAX_ARTIFACT_BYTES;
                if fits { MayStore::Yes } else { MayStore::No }
            }
        }
    }

    async fn append(&self, run: RunName, offset: u64, bytes: Bytes) -> io::Result<()> {
        self.counters.count_log(bytes.len());
        self.logs.append(run, offset, bytes).await.map(drop).map_err(io::Error::other)
    }

    async fn sync(&self, run: RunName) -> io::Result<u64> {
        self.logs.sync(run).await.map_err(io::Error::other)
    }
}

/// Reads the admin's token from its file, or makes one.
fn admin_token(data: &Path) -> Result<String, StartError> {
    let path = data.join("admin.token");
    let file = |source| StartError::System { what: path.display().to_string(), source };
    match fs::read_to_string(&path) {
        Ok(token) if !token.trim().is_empty() => Ok(token.trim().to_owned()),
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(file(error)),
        Ok(_) | Err(_) => {
            let token = format!("xene-admin.{}", hex(&random_bytes()?));
            write_private(data, "admin.token", &format!("{token}\n")).map_err(file)?;
            Ok(token)
        }
    }
}

/// Reads what hook tokens are derived from, or makes it.
fn hook_secret(data: &Path) -> Result<[u8; 32], StartError> {
    let path = data.join("hooks.key");
    let file = |source| StartError::System { what: path.display().to_string(), source };
    match fs::read_to_string(&path) {
        Ok(text) => Ok(*blake3::hash(text.trim().as_bytes()).as_bytes()),
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(file(error)),
        Err(_) => {
            let text = hex(&random_bytes()?);
            write_private(data, "hooks.key", &format!("{text}\n")).map_err(file)?;
            Ok(*blake3::hash(text.as_bytes()).as_bytes())
        }
    }
}

fn random_bytes() -> Result<[u8; 32], StartError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)
        .map_err(|error| StartError::System { what: "no random bytes".into(), source: error.into() })?;
    Ok(bytes)
}

fn random() -> Result<u64, StartError> {
    getrandom::u64().map_err(|error| StartError::System { what: "no random bytes".into(), source: error.into() })
}
