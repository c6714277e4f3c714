//! The one port, UDP and TCP: takes connections, bounds what they may cost before they have proved anything.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use quinn::{Connection, Endpoint, Incoming, ServerConfig, TokioRuntime, crypto::rustls::HandshakeData};
use rustls::{
    pki_types::{CertificateDer, UnixTime},
    time_provider::TimeProvider,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    task::JoinHandle,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, TlsStream};
use xene_agent::{
    clock,
    content::ContentStore,
    decide::time::BootTime,
    session::{
        tls,
        transport::{self, End, Liveness, codes},
        tunnel::{self, Broken},
    },
};
use xene_schemas::{
    meta::AgentName,
    phase::Transport,
    wire::{ALPN, ALPN_JOIN},
};

use super::{Driver, LogSink, Pki, PkiError, Sessions, connection, enrol};
use crate::decide::event::SessionId;

/// Handshakes at a time. Each costs about a millisecond of processor on both ends; more at once and datagrams are lost
/// faster than they are answered, fewer and round trips are waited for.
const HANDSHAKES: usize = 200;

/// Of those over TCP, how many one address may have: who opens connections and says nothing holds up nobody elsewhere.
const HANDSHAKES_OF_ONE: usize = HANDSHAKES / 4;

/// When this many are under way, a peer must first show that it receives at the address it sends from.
const UNVALIDATED: usize = HANDSHAKES / 4;

/// Connections that wait for their handshake; beyond it they are refused, and come again later.
const WAITING: usize = 4096;

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How long a connection over TCP may take until the handshake within it begins: they are opened cheaply, and each that
/// says nothing keeps an agent out.
const SILENCE: Duration = Duration::from_secs(4);

/// How long the end of all sessions may take.
const SHUTDOWN: Duration = Duration::from_secs(5);

/// How long the last bytes over TCP may take.
const LAST_BYTES: Duration = Duration::from_secs(3);

/// How long after a connection over TCP could not be taken the next one is.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// How many ports are tried for one that is free for both protocols.
const PORTS: u32 = 16;

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
    #[error("can't listen on {protocol} {address}: {source}")]
    Bind {
        /// UDP or TCP.
        protocol: &'static str,
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
    /// Takes connections, and hears of changes of the authorities.
    tasks: [JoinHandle<()>; 3],
    /// Ends once the last connection over TCP has.
    tunnels: mpsc::Receiver<()>,
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
        let changed = pki.changed();
        let time: Arc<dyn TimeProvider> = Arc::new(MachineTime(driver.clone()));
        let (server, over) = configs(&pki, &time, config.liveness)?;
        let (udp, tcp) = sockets(config.address)?;
        let bound = Endpoint::new(pki.endpoint_config()?, Some(server), udp, Arc::new(TokioRuntime));
        let endpoint = bound.map_err(bind_error("UDP", config.address))?;
        let tcp = TcpListener::from_std(tcp).map_err(bind_error("TCP", config.address))?;
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
        let (open, tunnels) = mpsc::channel(1);
        let over = watch::Sender::new(over);
        let tasks = [
            tokio::spawn(accept(endpoint.clone(), Arc::clone(&shared))),
            tokio::spawn(accept_tcp(tcp, (over.subscribe(), open), Arc::clone(&shared))),
            tokio::spawn(set_up_anew(endpoint.clone(), over, (config.liveness, time), shared.pki.clone(), changed)),
        ];
        Ok(Self { endpoint, sessions, tasks, tunnels })
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
    pub async fn shutdown(mut self) {
        for task in self.tasks {
            task.abort();
            // Its socket goes with it.
            let _ = task.await;
        }
        self.endpoint.set_server_config(None);
        self.sessions.close_all("the controller is shutting down");
        let ended = async { tokio::join!(self.endpoint.wait_idle(), self.tunnels.recv()) };
        if timeout(SHUTDOWN, ended).await.is_err() {
            self.endpoint.close(codes::DONE, b"the controller is shutting down");
            let _ = timeout(Duration::from_secs(1), self.endpoint.wait_idle()).await;
        }
    }
}

fn bind_error(protocol: &'static str, address: SocketAddr) -> impl Fn(io::Error) -> ListenerError {
    move |source| ListenerError::Bind { protocol, address, source }
}

/// Both sockets, on one port; if any will do, on one that is free for both.
fn sockets(address: SocketAddr) -> Result<(UdpSocket, std::net::TcpListener), ListenerError> {
    let mut tries = if address.port() == 0 { PORTS } else { 1 };
    loop {
        tries -= 1;
        let udp = transport::udp_socket(address).map_err(bind_error("UDP", address))?;
        let both = udp.local_addr().map_err(bind_error("UDP", address))?;
        match transport::tcp_listener(both) {
            Ok(tcp) => return Ok((udp, tcp)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries > 0 => {}
            Err(error) => return Err(bind_error("TCP", both)(error)),
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
        tokio::spawn(serve(incoming, Permit(permit, None), shared.clone(), None));
    }
}

/// The machine's time, as TLS asks for it.
#[derive(Debug)]
struct MachineTime<D>(D);

impl<D: Driver> TimeProvider for MachineTime<D> {
    fn current_time(&self) -> Option<UnixTime> {
        let second = u64::try_from(self.0.wall().as_second()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(second)))
    }
}

/// What connections over TCP share.
#[derive(Clone)]
struct Over {
    tls: TlsAcceptor,
    /// Of the connection within.
    within: ServerConfig,
}

/// What new connections are taken with, as the authorities are now: over UDP, and over TCP.
fn configs(pki: &Pki, time: &Arc<dyn TimeProvider>, liveness: Liveness) -> Result<(ServerConfig, Over), PkiError> {
    let tls = pki.server_config(time)?;
    let mut server = ServerConfig::with_crypto(tls.quic);
    server.transport_config(transport::transport(End::Controller, liveness)).max_incoming(WAITING);
    // One connection over TCP carries one of QUIC, and its ends stay where they are.
    let mut within = server.clone();
    within.max_incoming(1).migration(false);
    Ok((server, Over { tls: TlsAcceptor::from(tls.tunnel), within }))
}

/// Takes new connections by the authorities as they are, whenever they have changed.
async fn set_up_anew(
    endpoint: Endpoint,
    over: watch::Sender<Over>,
    (liveness, time): (Liveness, Arc<dyn TimeProvider>),
    pki: Arc<Pki>,
    mut changed: watch::Receiver<u64>,
) {
    while changed.changed().await.is_ok() {
        match configs(&pki, &time, liveness) {
            Ok((server, by_tcp)) => {
                endpoint.set_server_config(Some(server));
                over.send_replace(by_tcp);
            }
            Err(error) => tracing::error!(%error, "connections are taken as before"),
        }
    }
}

/// `open` is held by each connection from when something was said there until it has ended.
async fn accept_tcp<D: Driver, L: LogSink>(
    listener: TcpListener,
    (over, open): (watch::Receiver<Over>, mpsc::Sender<()>),
    shared: Arc<Shared<D, L>>,
) {
    // Apart from those of UDP: who opens connections and says nothing holds up nobody there.
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
    let by_address = ByAddress::default();
    loop {
        // The semaphore is never closed.
        let Ok(permit) = handshakes.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, address)) => {
                let Some(one) = by_address.one_more(address.ip()) else {
                    tracing::debug!(%address, "too many connections over TCP that have proved nothing");
                    continue;
                };
                let (over, open, shared) = (over.borrow().clone(), open.downgrade(), shared.clone());
                tokio::spawn(async move {
                    match serve_tcp(stream, Permit(permit, Some(one)), (&over, open), shared).await {
                        Ok((endpoint, open)) => {
                            drop(timeout(LAST_BYTES, endpoint.wait_idle()).await);
                            drop(open);
                        }
                        Err(error) => tracing::debug!(%address, error, "no connection over TCP"),
                    }
                });
            }
            // A peer that has gone already, or no more open files: not to be asked for at once.
            Err(error) => {
                tracing::debug!(%error, "no connection over TCP");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

/// One handshake of those that may be under way.
struct Permit(
    #[expect(dead_code, reason = "held")] OwnedSemaphorePermit,
    #[expect(dead_code, reason = "held")] Option<One>,
);

/// How many handshakes over TCP are under way, by address.
#[derive(Clone, Default)]
struct ByAddress(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One of them, until it is dropped.
struct One(ByAddress, IpAddr);

impl ByAddress {
    /// One more of this address, or none if it has enough.
    fn one_more(&self, address: IpAddr) -> Option<One> {
        let address = network(address);
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(address).or_default();
        (*count < HANDSHAKES_OF_ONE).then(|| {
            *count += 1;
            One(self.clone(), address)
        })
    }
}

impl Drop for One {
    fn drop(&mut self) {
        let mut counts = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.1);
            }
        }
    }
}

/// The addresses that one host can have as it likes count as one: of IPv6 the first 64 bits.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

/// Serves the one connection within this one; gives its endpoint back once it is closed, to be waited for.
async fn serve_tcp<D: Driver, L: LogSink>(
    stream: TcpStream,
    permit: Permit,
    (over, open): (&Over, mpsc::WeakSender<()>),
    shared: Arc<Shared<D, L>>,
) -> Result<(Endpoint, mpsc::Sender<()>), String> {
    let opening = async {
        let stream = over.tls.accept(stream).await.map_err(|error| error.to_string())?;
        let opened = tunnel::endpoint(TlsStream::from(stream), Some(over.within.clone()));
        let (endpoint, mut broken) = opened.map_err(|error| error.to_string())?;
        let incoming = tokio::select! {
            incoming = endpoint.accept() => incoming.ok_or("the endpoint was closed")?,
            reason = broken.wait() => return Err(reason),
        };
        endpoint.set_server_config(None);
        Ok((endpoint, incoming, broken))
    };
    let (endpoint, incoming, broken) =
        timeout(SILENCE, opening).await.unwrap_or_else(|_| Err("it said too little for too long".into()))?;
    let open = open.upgrade().ok_or("the controller is shutting down")?;
    serve(incoming, permit, shared, Some(broken)).await;
    Ok((endpoint, open))
}

async fn serve<D: Driver, L: LogSink>(
    incoming: Incoming,
    permit: Permit,
    shared: Arc<Shared<D, L>>,
    mut broken: Option<Broken>,
) {
    let address = incoming.remote_address();
    let gone = async {
        match &mut broken {
            Some(broken) => broken.wait().await,
            None => std::future::pending().await,
        }
    };
    let shaken = tokio::select! {
        shaken = timeout(HANDSHAKE, incoming) => shaken,
        reason = gone => return tracing::debug!(%address, reason, "the TCP connection ended in the handshake"),
    };
    let connection = match shaken {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return tracing::debug!(%address, %error, "handshake failed"),
        Err(_) => return tracing::debug!(%address, "handshake took too long"),
    };
    drop(permit);
    let transport = if broken.is_some() { Transport::Tcp } else { Transport::Quic };
    if let Some(broken) = broken {
        broken.close(&connection);
    }
    let alpn = connection.handshake_data().and_then(|data| data.downcast::<HandshakeData>().ok()?.protocol);
    match alpn.as_deref() {
        Some(ALPN) => match identity(&shared.pki, &connection) {
            Some(shown) => Box::pin(connection::serve(&shared, connection, transport, shown)).await,
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

/// What a certificate says of its holder.
pub(super) struct ShownCertificate {
    pub(super) agent: AgentName,
    pub(super) fingerprint: String,
    /// Of the authority that signed it.
    pub(super) authority: String,
}

/// Whom the certificate names. The handshake has checked its signature, its times, and that the
/// peer holds its key.
fn identity(pki: &Pki, connection: &Connection) -> Option<ShownCertificate> {
    let chain = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    let leaf = chain.first()?;
    let agent = tls::facts(leaf)?.agent?;
    Some(ShownCertificate { agent, fingerprint: tls::fingerprint(leaf), authority: pki.authority_of(leaf) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_has_a_part_of_the_handshakes_over_tcp() {
        let by_address = ByAddress::default();
        let one_more = |address: &str| by_address.one_more(address.parse().unwrap());
        let mut all: Vec<_> = (0..HANDSHAKES_OF_ONE).map(|_| one_more("192.0.2.1").unwrap()).collect();
        assert!(one_more("192.0.2.1").is_none() && one_more("::ffff:192.0.2.1").is_none());
        assert!(one_more("192.0.2.2").is_some());
        all.pop();
        all.push(one_more("192.0.2.1").unwrap());
        all.extend((0..HANDSHAKES_OF_ONE).map(|n| one_more(&format!("2001:db8::{n:x}")).unwrap()));
        assert!(one_more("2001:db8::1:0:0:1").is_none() && one_more("2001:db8:0:1::1").is_some());
        drop(all);
        assert!(by_address.0.lock().unwrap().is_empty());
    }
}
