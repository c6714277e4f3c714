//! A controller, put together: store, logs, certificates, source, sessions, HTTP, and the loop between them.

use std::{
    fs, io,
    net::{SocketAddr, TcpListener},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use tokio::{sync::watch, task::JoinHandle};
use xene_agent::{
    clock,
    decide::time::Now,
    lmdb::{DataLock, LockError},
    session::token::JoinToken,
};
use xene_schemas::{
    meta::{AgentName, RunName},
    wire::logs::LogHeader,
};

use crate::{
    compile::catalog::Catalog,
    decide::{
        Config,
        desired::SourceOrigin,
        event::{Command, Event},
        rows::Loaded,
    },
    driver::{Closed, Driver, DriverError, Handle, Shells},
    http,
    session::{
        Listener, ListenerConfig, ListenerError, LogSink, Sessions,
        pki::{AGENT_LIFE, Pki, PkiError},
    },
    source::{Resume, Source, SourceConfig, SourceError, SourceHandle},
    store::{Store, StoreError, logs::{LogError, LogStore}},
};

/// What an operator sets.
#[derive(Debug)]
pub struct Options {
    /// Where desired state comes from.
    pub source: SourceConfig,
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
}

/// Why a controller can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data folder can't be had.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The source can't be opened.
    #[error(transparent)]
    Source(#[from] SourceError),
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
    Tls(#[from] http::TlsError),
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
    /// What the source is.
    pub source: SourceOrigin,
    pki: Arc<Pki>,
    listener: Listener,
    server: http::Server,
    worker: SourceHandle,
    driver: JoinHandle<Result<(), DriverError>>,
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
        let lock = DataLock::acquire(&options.data_dir)?;
        let socket = TcpListener::bind(options.http)
            .map_err(|source| StartError::Http { address: options.http, source })?;
        let tls = options.tls.as_ref().map(|(chain, key)| http::Tls::load(chain, key)).transpose()?;
        let admin_token = admin_token(&options.data_dir)?;
        let store = Store::open(&options.data_dir)?;
        let logs = LogStore::open(&options.data_dir.join("logs"))?;
        let pki = Arc::new(Pki::open(&options.data_dir.join("pki"), clock::now().wall, AGENT_LIFE)?);

        let origin = SourceOrigin {
            kind: source.kind(),
            url: source.url().to_owned(),
            branch: source.branch().map(ToOwned::to_owned),
            path: options.source.path.clone().unwrap_or_default(),
        };
        let loaded = store.load()?;
        let (catalog, resume) = resume(&loaded, &origin);
        let sessions = Sessions::default();
        let shells =
            Shells { store: store.clone(), logs: logs.clone(), sessions: sessions.clone(), pki: Arc::clone(&pki) };
        let config = Config {
            pause_margin: options.pause_margin,
            min_autonomy: options.min_autonomy,
            nonce: random()?,
            software: env!("CARGO_PKG_VERSION").into(),
            store_id: format!("{:016x}", random()?),
            source: origin.clone(),
            #[cfg(feature = "mutants")]
            mutant: None,
        };
        let (driver, handle) = Driver::new(shells, config, loaded)?;
        let (stop, stopped) = watch::channel(false);
        let driver = tokio::spawn(driver.run(stopped));

        let sink = Sink { store, logs };
        let listener =
            Listener::bind(&ListenerConfig::new(options.quic), Arc::clone(&pki), handle.clone(), sink, sessions)?;
        let quic = listener.local_addr().map_err(|source| StartError::System {
            what: "the address that agents dial can't be told".into(),
            source,
        })?;
        let worker = watch_source(source, resume, catalog, options.min_autonomy, handle.clone())?;
        let http = socket.local_addr().map_err(|source| StartError::Http { address: options.http, source })?;
        let server = http::Server::start(http::ServerOptions {
            socket,
            tls,
            handle: handle.clone(),
            source: worker.clone(),
            admin_token: admin_token.clone(),
            ca_fingerprint: pki.ca_fingerprint(),
        })
        .map_err(|source| StartError::Http { address: http, source })?;
        Ok(Self {
            handle,
            http,
            quic,
            admin_token,
            source: origin,
            pki,
            listener,
            server,
            worker,
            driver,
            stop,
            _lock: lock,
        })
    }

    /// A join token for an agent of the same process.
    ///
    /// # Errors
    /// If the controller is shutting down, or the system gives no random bytes.
    pub async fn local_join_token(&self, now: Now) -> Result<String, StartError> {
        let system = |what: &str, source| StartError::System { what: what.into(), source };
        let token = JoinToken::generate(&self.pki.ca_fingerprint())
            .map_err(|error| system("no random bytes", io::Error::from(error)))?;
        let command = Command::CreateJoinToken {
            id: token.id.clone(),
            secret_hash: token.secret_hash(),
            expires_at: now.wall + Duration::from_secs(60),
            uses: 1,
            labels: None,
            name: None,
        };
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
        self.server.shutdown().await;
        let worker = self.worker.clone();
        // The source's thread may be waiting for the loop, which therefore ends after it.
        drop(tokio::task::spawn_blocking(move || worker.stop()).await);
        self.listener.shutdown().await;
        drop(self.stop.send(true));
        let ended = match failed {
            Some(ended) => ended,
            None => self.driver.await,
        };
        match ended {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }
}

/// What the source need not read again, and the compiler's memory of it. Another source than before is read whole.
fn resume(loaded: &Loaded, origin: &SourceOrigin) -> (Catalog, Resume) {
    let catalog = Catalog::recover(loaded.files.clone(), &loaded.workflows);
    let same = loaded.source.as_ref().filter(|s| s.url == origin.url && s.kind == origin.kind && s.path == origin.path);
    let resume = Resume { revision: same.and_then(|s| s.revision.clone()), known: catalog.known().clone() };
    (catalog, resume)
}

fn watch_source(
    source: Source,
    resume: Resume,
    mut catalog: Catalog,
    min_autonomy: Duration,
    handle: Handle,
) -> Result<SourceHandle, StartError> {
    catalog.set_min_autonomy(min_autonomy);
    let health = handle.clone();
    source
        .doubting(|snapshot| crate::compile::is_doubtful(snapshot))
        .spawn(
            resume,
            move |snapshot| {
                let desired = catalog.apply(snapshot);
                let revision = desired.revision.clone();
                handle.settle(Event::Compiled(Box::new(desired)))?;
                catalog.applied(&revision);
                Ok(())
            },
            // The loop ends after the source's thread.
            move |event| drop(health.settle(Event::Source(event))),
        )
        .map_err(|source| StartError::System { what: "the source can't be watched".into(), source })
}

/// Where log bytes of agents go.
#[derive(Debug, Clone)]
struct Sink {
    store: Store,
    logs: LogStore,
}

impl LogSink for Sink {
    async fn may_append(&self, agent: &AgentName, header: &LogHeader) -> bool {
        self.store.run(header.run).ok().flatten().is_some_and(|row| {
            row.run.status.agent.as_ref() == Some(agent)
                && row.run.status.epoch == Some(header.epoch)
                && row.run.spec.key() == header.pipeline
        })
    }

    async fn append(&self, run: RunName, offset: u64, bytes: Bytes) -> io::Result<()> {
        self.logs.append(run, offset, bytes).await.map(drop).map_err(io::Error::other)
    }

    async fn sync(&self, run: RunName) -> io::Result<u64> {
        self.logs.sync(run).await.map_err(io::Error::other)
    }
}

/// Reads the admin's token, or makes one: 256 random bits in a file for its owner alone.
fn admin_token(data: &Path) -> Result<String, StartError> {
    let path = data.join("admin.token");
    let system = |source| StartError::System { what: path.display().to_string(), source };
    match fs::read_to_string(&path) {
        Ok(token) if !token.trim().is_empty() => return Ok(token.trim().to_owned()),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(system(error)),
    }
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(|error| system(error.into()))?;
    let token = format!("xene-admin.{}", xene_agent::session::tls::hex(&secret));
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path).map_err(system)?;
    io::Write::write_all(&mut file, format!("{token}\n").as_bytes()).map_err(system)?;
    Ok(token)
}

fn random() -> Result<u64, StartError> {
    getrandom::u64().map_err(|error| StartError::System { what: "no random bytes".into(), source: error.into() })
}
