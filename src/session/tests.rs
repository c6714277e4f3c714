//! Both ends against each other, over loopback.

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp, ToSpan};
use quinn::{Connection, Endpoint, crypto::rustls::QuicClientConfig};
use rcgen::{CertificateParams, KeyPair};
use rustls::{RootCertStore, pki_types::PrivateKeyDer};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::timeout,
};
use xene_agent::{
    clock,
    content::ContentStore,
    session::{
        ArtifactUploads, ClientConfig, ClientEvent, Downloads, Identity, IdentityError, JoinToken, LogSource,
        Transports, Uploads, run,
        tls::{self, SERVER_NAME, provider},
        transport::Liveness,
    },
};
use xene_schemas::{
    meta::{Epoch, Labels, Name, SpecHash},
    wire::{
        ALPN, Message,
        control::{AgentMessage, Certificate, Hello, Refused, Renew, SetWanted, StoreSeen, Welcome},
    },
};

use super::*;

/// The same over each transport.
macro_rules! over_both {
    ($($name:ident),+ $(,)?) => {
        mod over_udp {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(super::Transports::Quic).await;
            })+
        }

        mod over_tcp {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(super::Transports::Tcp).await;
            })+
        }
    };
}

mod authority;
mod conversation;
mod enrolment;
mod files;
mod herd;
mod logs;
mod tcp;

const DEADLINE: Duration = Duration::from_secs(20);

async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(DEADLINE, what).await.expect("in time")
}

fn now() -> Timestamp {
    clock::now().wall
}

/// A machine that lets in whoever shows a token that it knows, once.
#[derive(Debug, Clone)]
struct FakeDriver {
    events: mpsc::Sender<Event>,
    tokens: Arc<Mutex<HashMap<String, String>>>,
    /// The keys of those that have asked to be let in.
    keys: Arc<Mutex<Vec<String>>>,
    /// How many of the next ones find it gone.
    gone_for: Arc<Mutex<usize>>,
    /// By how much its time is ahead of the host's clock.
    ahead: Arc<Mutex<SignedDuration>>,
}

impl Driver for FakeDriver {
    async fn tell(&self, event: Event) -> Result<(), Closed> {
        self.events.send(event).await.map_err(|_| Closed)
    }

    async fn ask(&self, command: Command) -> Result<Result<Answer, Refusal>, Closed> {
        let (id, secret_hash, name) = match command {
            Command::Enrol { id, secret_hash, key, name, .. } => {
                self.keys.lock().unwrap().push(key);
                (id, secret_hash, name)
            }
            command @ Command::Certify { .. } => {
                self.tell(Event::Asked { request: crate::decide::event::RequestId(0), command }).await?;
                return Ok(Ok(Answer::Done));
            }
            other => panic!("{other:?}"),
        };
        let mut gone_for = self.gone_for.lock().unwrap();
        if *gone_for > 0 {
            *gone_for -= 1;
            return Err(Closed);
        }
        let mut tokens = self.tokens.lock().unwrap();
        Ok(if tokens.get(&id) == Some(&secret_hash) {
            tokens.remove(&id);
            Ok(Answer::Enrolled(name))
        } else {
            Err(Refusal::Token)
        })
    }

    fn wall(&self) -> Timestamp {
        now() + *self.ahead.lock().unwrap()
    }
}

#[derive(Clone, Default)]
struct FakeLogs {
    logs: Arc<Mutex<HashMap<RunName, Vec<u8>>>>,
    /// How often a run is still unknown.
    refusals: Arc<Mutex<u32>>,
    syncs: Arc<Mutex<u32>>,
}

impl LogSink for FakeLogs {
    async fn may_append(&self, agent: &AgentName, header: &LogHeader) -> Append {
        let mut refusals = self.refusals.lock().unwrap();
        let known = *refusals == 0;
        *refusals = refusals.saturating_sub(1);
        match known && agent.as_str() == "alpha" && header.epoch == Epoch(7) {
            true => Append::Yes,
            false if header.settled => Append::Never,
            false => Append::NotYet,
        }
    }

    async fn may_store(&self, agent: &AgentName, header: &ArtifactHeader) -> MayStore {
        if agent.as_str() == "alpha" && header.size < 1 << 30 { MayStore::Yes } else { MayStore::No }
    }

    async fn append(&self, run: RunName, offset: u64, bytes: Bytes) -> io::Result<()> {
        let mut logs = self.logs.lock().unwrap();
        let log = logs.entry(run).or_default();
        let known = usize::try_from(log.len() as u64 - offset).expect("no gap");
        log.extend_from_slice(bytes.get(known..).unwrap_or_default());
        Ok(())
    }

    async fn sync(&self, run: RunName) -> io::Result<u64> {
        *self.syncs.lock().unwrap() += 1;
        Ok(self.logs.lock().unwrap().get(&run).map_or(0, Vec::len) as u64)
    }
}

/// A log in memory that grows as a test says.
#[derive(Debug, Clone)]
struct FakeSource(watch::Sender<(Vec<u8>, bool)>);

impl FakeSource {
    fn new() -> Self {
        Self(watch::Sender::new((Vec::new(), false)))
    }

    fn write(&self, bytes: &[u8]) {
        self.0.send_modify(|(log, _)| log.extend_from_slice(bytes));
    }

    fn seal(&self) {
        self.0.send_modify(|(_, sealed)| *sealed = true);
    }
}

impl LogSource for FakeSource {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let log = self.0.borrow();
        let rest = log.0.get(usize::try_from(offset).unwrap()..).unwrap_or_default();
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    }

    async fn wait_for(&self, offset: u64) {
        let _ = self.0.subscribe().wait_for(|(log, sealed)| *sealed || log.len() as u64 > offset).await;
    }

    fn is_sealed(&self) -> bool {
        self.0.borrow().1
    }
}

struct Controller {
    folder: PathBuf,
    pki: Arc<Pki>,
    driver: FakeDriver,
    logs: FakeLogs,
    files: ContentStore,
    sessions: Sessions,
    events: mpsc::Receiver<Event>,
    listener: Option<Listener>,
    liveness: Liveness,
    address: SocketAddr,
    /// By what its agents come.
    by: Transports,
}

impl Controller {
    fn start(folder: &Path) -> Self {
        Self::start_at(folder, now(), pki::AGENT_LIFE)
    }

    fn start_at(folder: &Path, at: Timestamp, life: Duration) -> Self {
        let pki = Arc::new(Pki::open(&folder.join("pki"), at, life).unwrap());
        let (events_in, events) = mpsc::channel(64);
        let driver = FakeDriver {
            events: events_in,
            tokens: Arc::default(),
            keys: Arc::default(),
            gone_for: Arc::default(),
            ahead: Arc::default(),
        };
        let mut controller = Self {
            folder: folder.into(),
            pki,
            driver,
            logs: FakeLogs::default(),
            files: ContentStore::open(&folder.join("store")).unwrap(),
            sessions: Sessions::default(),
            events,
            listener: None,
            liveness: Liveness::default(),
            address: "127.0.0.1:0".parse().unwrap(),
            by: Transports::Quic,
        };
        controller.listen();
        controller
    }

    fn over(mut self, by: Transports) -> Self {
        self.by = by;
        self
    }

    fn listen(&mut self) {
        let listener = self.bind().unwrap();
        self.address = listener.local_addr().unwrap();
        self.listener = Some(listener);
    }

    fn bind(&self) -> Result<Listener, ListenerError> {
        let config = ListenerConfig { liveness: self.liveness, ..ListenerConfig::new(self.address) };
        let (pki, driver, logs) = (self.pki.clone(), self.driver.clone(), self.logs.clone());
        Listener::bind(&config, pki, driver, logs, self.files.clone(), self.sessions.clone())
    }

    async fn restart(&mut self) {
        soon(self.listener.take().unwrap().shutdown()).await;
        // The port is free once the old listener's last task has ended.
        let again = async {
            loop {
                match self.bind() {
                    Ok(listener) => break listener,
                    Err(_) => tokio::task::yield_now().await,
                }
            }
        };
        self.listener = Some(soon(again).await);
    }

    fn token(&self) -> JoinToken {
        let token = JoinToken::generate(&self.pki.ca_fingerprint()).unwrap();
        self.driver.tokens.lock().unwrap().insert(token.id.clone(), token.secret_hash());
        token
    }

    async fn enrol(&self, token: &JoinToken, name: &str) -> Result<Identity, IdentityError> {
        let folder = self.folder.join(name);
        let to = self.address.to_string();
        soon(Identity::enrol((&to, self.by), token, name.parse().unwrap(), Labels::new(), &folder)).await
    }

    async fn next(&mut self) -> Event {
        soon(self.events.recv()).await.expect("an event")
    }

    /// Enrols an agent, and passes over the machine's event of it.
    async fn enrolled(&mut self, name: &str) -> Arc<Identity> {
        let identity = self.enrol(&self.token(), name).await.unwrap();
        self.certified().await;
        Arc::new(identity)
    }

    /// Whose certificate is kept next, and which it is.
    async fn certified(&mut self) -> (AgentName, String) {
        let Event::Asked { command: Command::Certify { agent, fingerprint }, .. } = self.next().await else { panic!() };
        (agent, fingerprint)
    }

    /// The next session, welcomed.
    async fn opened(&mut self) -> SessionId {
        loop {
            if let Event::SessionOpened { session, agent, .. } = self.next().await {
                self.sessions.send(session, &ControllerMessage::Welcome(welcome(&agent)));
                return session;
            }
        }
    }
}

fn welcome(name: &AgentName) -> Welcome {
    Welcome {
        version: 1,
        software: "test".into(),
        store: StoreSeen { store_id: "s".into(), generation: 1, incarnation: 1, longest: None },
        nonce: 1,
        pause_margin_ms: 1,
        reconnect_span_ms: 1,
        name: name.clone(),
        token: None,
    }
}

fn hello(version: u16) -> AgentMessage {
    AgentMessage::Hello(Hello {
        version,
        software: "test".into(),
        instance: 1,
        boot_id: "b".into(),
        labels: Labels::new(),
        slots: 1,
        claims: vec![],
        wall: now(),
        store: None,
        runs: vec![],
        tokens: None,
    })
}

/// An agent's session end, and what it hears.
struct Agent {
    events: mpsc::Receiver<ClientEvent>,
    uploads: Uploads<FakeSource>,
    files: ContentStore,
    downloads: Downloads,
    complete: mpsc::UnboundedReceiver<SpecHash>,
    artifacts: ArtifactUploads,
    _folder: tempfile::TempDir,
    task: JoinHandle<()>,
}

impl Agent {
    fn start(controller: &Controller, identity: Arc<Identity>) -> Self {
        Self::start_at((controller.address, controller.by), identity)
    }

    fn start_at((controller, transports): (SocketAddr, Transports), identity: Arc<Identity>) -> Self {
        let (events_in, events) = mpsc::channel(64);
        let uploads = Uploads::default();
        let config = ClientConfig { transports, ..ClientConfig::new(controller.to_string()) };
        let folder = tempfile::tempdir().unwrap();
        let files = ContentStore::open(folder.path()).unwrap();
        let (completed, complete) = mpsc::unbounded_channel();
        let downloads = Downloads::new(files.clone(), completed);
        let artifacts = ArtifactUploads::new(files.clone());
        let all = (uploads.clone(), downloads.clone(), artifacts.clone());
        let task = tokio::spawn(run(config, identity, all, events_in));
        Self { events, uploads, files, downloads, complete, artifacts, _folder: folder, task }
    }

    async fn next(&mut self) -> ClientEvent {
        soon(self.events.recv()).await.expect("an event")
    }

    /// The next session, with Hello said.
    async fn connected(&mut self) -> Outgoing<AgentMessage> {
        loop {
            if let ClientEvent::Connected(outgoing) = self.next().await {
                outgoing.send(&hello(1)).unwrap();
                return outgoing;
            }
        }
    }

    async fn message(&mut self) -> ControllerMessage {
        match self.next().await {
            ClientEvent::Message(message) => message,
            other => panic!("{other:?}"),
        }
    }

    async fn disconnected(&mut self) -> String {
        loop {
            if let ClientEvent::Disconnected(reason) = self.next().await {
                return reason;
            }
        }
    }

    /// Ends as a process does: nobody listens any more.
    async fn stop(self) {
        drop(self.events);
        soon(self.task).await.unwrap();
    }
}

/// Dials with the ALPN of sessions, and a certificate of that authority or none, then says `bytes`; returns the
/// connection as it then is.
async fn rogue(controller: &Controller, certificate: Option<(&Pki, &str)>, bytes: &[u8]) -> Connection {
    let mut endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    endpoint.set_default_client_config(rogue_config(controller, certificate));
    let connection = soon(endpoint.connect(controller.address, SERVER_NAME).unwrap()).await.unwrap();
    if let Ok((mut send, _unread)) = connection.open_bi().await {
        // The controller may have closed already.
        let _ = send.write_all(bytes).await;
        let _ = send.finish();
    }
    connection
}

fn rogue_config(controller: &Controller, certificate: Option<(&Pki, &str)>) -> quinn::ClientConfig {
    rogue_config_with(controller, certificate, None)
}

/// The same; one that can resume sessions does so, and says what it has to before the handshake, if it is let.
fn rogue_config_with(
    controller: &Controller,
    certificate: Option<(&Pki, &str)>,
    resumption: Option<rustls::client::Resumption>,
) -> quinn::ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(tls::certificates(&controller.pki.roots()).unwrap().swap_remove(0)).unwrap();
    let config = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match certificate {
        None => config.with_no_client_auth(),
        Some((pki, name)) => {
            let key = KeyPair::generate().unwrap();
            let csr = CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
            let signed = pki.sign(&csr, &name.parse().unwrap(), now()).unwrap();
            let chain = tls::certificates(&signed.chain).unwrap();
            config.with_client_auth_cert(chain, PrivateKeyDer::Pkcs8(key.serialize_der().into())).unwrap()
        }
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    if let Some(resumption) = resumption {
        (config.resumption, config.enable_early_data) = (resumption, true);
    }
    quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).unwrap()))
}

fn frame(message: &impl Message) -> Vec<u8> {
    let mut frame = Vec::new();
    message.encode(&mut frame);
    frame
}

fn renew(seq: u64) -> AgentMessage {
    AgentMessage::Renew(Renew {
        seq,
        nonce: 1,
        answered: 0,
        claims_version: 0,
        claims: None,
        busy: 0,
        wall: Timestamp::UNIX_EPOCH,
        assignments: 0,
        token: None,
        disk_full: false,
    })
}
