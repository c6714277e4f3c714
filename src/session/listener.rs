//! The one UDP socket: takes connections, bounds what they may cost before they have proved anything.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use quinn::{Connection, Endpoint, Incoming, ServerConfig, TokioRuntime, crypto::rustls::HandshakeData};
use rustls::pki_types::CertificateDer;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinHandle,
    time::timeout,
};
use xene_agent::{
    clock,
    content::ContentStore,
    decide::time::BootTime,
    session::{
        tls,
        transport::{self, End, Liveness, codes},
    },
};
use xene_schemas::wire::{ALPN, ALPN_JOIN};

use super::{Driver, LogSink, Pki, PkiError, Sessions, connection, enrol};
use crate::decide::event::SessionId;

/// Handshakes at a time. Each costs about a millisecond of processor on both ends; more at once and datagrams are lost
/// faster than they are answered, fewer and round trips are waited for.
const HANDSHAKES: usize = 200;

/// When this many are under way, a peer must first show that it receives at the address it sends from.
const UNVALIDATED: usize = HANDSHAKES / 4;

/// Connections that wait for their handshake; beyond it they are refused, and come again later.
const WAITING: usize = 4096;

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How long the end of all sessions may take.
const SHUTDOWN: Duration = Duration::from_secs(5);

/// Enrolments at a time: each may wait for a commit.
const ENROLMENTS: usize = 64;

/// Refused enrolments that one address may have within [`REFUSALS_SPAN`].
const REFUSALS: u32 = 10;
const REFUSALS_SPAN: Duration = Duration::from_secs(60);

/// Addresses remembered for that; when there are more, all are forgotten.
const REFUSALS_KEPT: usize = 4096;

/// Why the controller can't listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenerError {
    /// The address can't be had.
    #[error("can't listen on UDP {address}: {source}")]
    Bind {
        /// As asked for.
        address: SocketAddr,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// TLS can't be set up.
    #[error(transparent)]
    Pki(#[from] PkiError),
}

/// What an operator or a test sets.
#[derive(Debug, Clone)]
pub struct ListenerConfig {
    /// Where to listen.
    pub address: SocketAddr,
    /// How soon a dead agent's session ends.
    pub liveness: Liveness,
}

impl ListenerConfig {
    /// The defaults, at this address.
    pub fn new(address: SocketAddr) -> Self {
        Self { address, liveness: Liveness::default() }
    }
}

/// What all connections share.
pub(super) struct Shared<D, L> {
    pub(super) driver: D,
    pub(super) logs: L,
    pub(super) files: ContentStore,
    pub(super) pki: Arc<Pki>,
    pub(super) sessions: Sessions,
    ids: AtomicU64,
    enrolments: Semaphore,
    refusals: Mutex<HashMap<IpAddr, (BootTime, u32)>>,
}

impl<D, L> Shared<D, L> {
    pub(super) fn next_session(&self) -> SessionId {
        SessionId(self.ids.fetch_add(1, Ordering::Relaxed))
    }

    /// True if too many enrolments from this address were refused lately.
    pub(super) fn is_refused_often(&self, address: IpAddr) -> bool {
        let refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = |since: BootTime| clock::now().boot.since(since) < REFUSALS_SPAN;
        refusals.get(&address).is_some_and(|(since, count)| *count >= REFUSALS && recent(*since))
    }

    /// Remembers that an enrolment from this address was refused.
    pub(super) fn note_refusal(&self, address: IpAddr) {
        let now = clock::now().boot;
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        if refusals.len() >= REFUSALS_KEPT {
            refusals.clear();
        }
        let (since, count) = refusals.entry(address).or_insert((now, 0));
        if now.since(*since) >= REFUSALS_SPAN {
            (*since, *count) = (now, 0);
        }
        *count += 1;
    }
}

/// Takes agents' connections until it is shut down.
#[derive(Debug)]
pub struct Listener {
    endpoint: Endpoint,
    sessions: Sessions,
    accepting: JoinHandle<()>,
}

impl Listener {
    /// Listens, and serves whoever comes.
    ///
    /// `files` is what agents are sent, `sessions` is where the machine's side finds those that stand.
    ///
    /// # Errors
    /// If the address is taken, or TLS can't be set up.
    pub fn bind<D: Driver, L: LogSink>(
        config: &ListenerConfig,
        pki: Arc<Pki>,
        driver: D,
        logs: L,
        files: ContentStore,
        sessions: Sessions,
    ) -> Result<Self, ListenerError> {
        let mut server = ServerConfig::with_crypto(Arc::new(pki.server_config()?));
        server.transport_config(transport::transport(End::Controller, config.liveness)).max_incoming(WAITING);
        let own = pki.endpoint_config()?;
        let bound = transport::udp_socket(config.address)
            .and_then(|socket| Endpoint::new(own, Some(server), socket, Arc::new(TokioRuntime)));
        let endpoint = bound.map_err(|source| ListenerError::Bind { address: config.address, source })?;
        let shared = Arc::new(Shared {
            driver,
            logs,
            files,
            pki,
            sessions: sessions.clone(),
            ids: AtomicU64::new(1),
            enrolments: Semaphore::new(ENROLMENTS),
            refusals: Mutex::default(),
        });
        let accepting = tokio::spawn(accept(endpoint.clone(), shared));
        Ok(Self { endpoint, sessions, accepting })
    }

    /// Where it listens: the port that the system chose, if 0 was asked for.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// Ends all sessions, each once what was said is out, and stops listening; takes at most a few seconds. The port
    /// is free once the last task that used it has ended, a moment later.
    pub async fn shutdown(self) {
        self.endpoint.set_server_config(None);
        self.accepting.abort();
        self.sessions.close_all("the controller is shutting down");
        if timeout(SHUTDOWN, self.endpoint.wait_idle()).await.is_err() {
            self.endpoint.close(codes::DONE, b"the controller is shutting down");
            let _ = timeout(Duration::from_secs(1), self.endpoint.wait_idle()).await;
        }
    }
}

async fn accept<D: Driver, L: LogSink>(endpoint: Endpoint, shared: Arc<Shared<D, L>>) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
    loop {
        // The semaphore is never closed.
        let Ok(permit) = handshakes.clone().acquire_owned().await else { return };
        let Some(incoming) = endpoint.accept().await else { return };
        let under_way = HANDSHAKES - handshakes.available_permits();
        if under_way > UNVALIDATED && !incoming.remote_address_validated() {
            let _ = incoming.retry();
            continue;
        }
        tokio::spawn(serve(incoming, permit, shared.clone()));
    }
}

async fn serve<D: Driver, L: LogSink>(incoming: Incoming, permit: OwnedSemaphorePermit, shared: Arc<Shared<D, L>>) {
    let address = incoming.remote_address();
    let connection = match timeout(HANDSHAKE, incoming).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return tracing::debug!(%address, %error, "handshake failed"),
        Err(_) => return tracing::debug!(%address, "handshake took too long"),
    };
    drop(permit);
    let alpn = connection.handshake_data().and_then(|data| data.downcast::<HandshakeData>().ok()?.protocol);
    match alpn.as_deref() {
        Some(ALPN) => match identity(&connection) {
            Some((agent, fingerprint)) => Box::pin(connection::serve(&shared, connection, agent, fingerprint)).await,
            None => connection.close(codes::CERTIFICATE, b"a session needs a certificate that names an agent"),
        },
        Some(ALPN_JOIN) => match shared.enrolments.try_acquire() {
            Ok(_permit) => Box::pin(enrol::serve(&shared, connection)).await,
            Err(_) => connection.close(codes::BUSY, b"too many enrolments at once; try again in a moment"),
        },
        // The handshake lets no other pass.
        _ => connection.close(codes::PROTOCOL, b""),
    }
}

/// Whom the certificate names, and its fingerprint. The handshake has checked its signature, its times, and that the
/// peer holds its key.
fn identity(connection: &Connection) -> Option<(xene_schemas::meta::AgentName, String)> {
    let chain = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    let leaf = chain.first()?;
    Some((tls::facts(leaf)?.agent?, tls::fingerprint(leaf)))
}
