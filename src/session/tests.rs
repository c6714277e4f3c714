//! Both ends against each other, over loopback.

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::{Timestamp, ToSpan};
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
    session::{
        ClientConfig, ClientEvent, Identity, IdentityError, JoinToken, LogSource, Uploads, run,
        tls::{self, SERVER_NAME, provider},
        transport::Liveness,
    },
};
use xene_schemas::{
    meta::{Epoch, Labels, Name},
    wire::{
        ALPN, Message,
        control::{AgentMessage, Certificate, Hello, Refused, Renew, SetWanted, StoreSeen, Welcome},
    },
};

use super::*;

const DEADLINE: Duration = Duration::from_secs(20);

async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(DEADLINE, what).await.expect("in time")
}

fn now() -> Timestamp {
    clock::now().wall
}

/// A machine that lets in whoever shows a token that it knows, once.
#[derive(Clone)]
struct FakeDriver {
    events: mpsc::Sender<Event>,
    tokens: Arc<Mutex<HashMap<String, String>>>,
}

impl Driver for FakeDriver {
    async fn tell(&self, event: Event) -> Result<(), Closed> {
        self.events.send(event).await.map_err(|_| Closed)
    }

    async fn ask(&self, command: Command) -> Result<Result<Answer, Refusal>, Closed> {
        let Command::Enrol { id, secret_hash, name, .. } = command else { panic!("{command:?}") };
        let mut tokens = self.tokens.lock().unwrap();
        Ok(if tokens.get(&id) == Some(&secret_hash) {
            tokens.remove(&id);
            Ok(Answer::Enrolled(name))
        } else {
            Err(Refusal::Token)
        })
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
    async fn may_append(&self, agent: &AgentName, header: &LogHeader) -> bool {
        let mut refusals = self.refusals.lock().unwrap();
        let known = *refusals == 0;
        *refusals = refusals.saturating_sub(1);
        known && agent.as_str() == "alpha" && header.epoch == Epoch(7)
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
    sessions: Sessions,
    events: mpsc::Receiver<Event>,
    listener: Option<Listener>,
    liveness: Liveness,
    address: SocketAddr,
}

impl Controller {
    fn start(folder: &Path) -> Self {
        Self::start_at(folder, now(), pki::AGENT_LIFE)
    }

    fn start_at(folder: &Path, at: Timestamp, life: Duration) -> Self {
        let pki = Arc::new(Pki::open(&folder.join("pki"), at, life).unwrap());
        let (events_in, events) = mpsc::channel(64);
        let driver = FakeDriver { events: events_in, tokens: Arc::default() };
        let mut controller = Self {
            folder: folder.into(),
            pki,
            driver,
            logs: FakeLogs::default(),
            sessions: Sessions::default(),
            events,
            listener: None,
            liveness: Liveness::default(),
            address: "127.0.0.1:0".parse().unwrap(),
        };
        controller.listen();
        controller
    }

    fn listen(&mut self) {
        let listener = self.bind().unwrap();
        self.address = listener.local_addr().unwrap();
        self.listener = Some(listener);
    }

    fn bind(&self) -> Result<Listener, ListenerError> {
        let config = ListenerConfig { liveness: self.liveness, ..ListenerConfig::new(self.address) };
        let (pki, driver, logs) = (self.pki.clone(), self.driver.clone(), self.logs.clone());
        Listener::bind(&config, pki, driver, logs, self.sessions.clone())
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
        soon(Identity::enrol(&self.address.to_string(), token, name.parse().unwrap(), Labels::new(), &folder)).await
    }

    async fn next(&mut self) -> Event {
        soon(self.events.recv()).await.expect("an event")
    }

    /// Enrols an agent, and passes over the machine's event of it.
    async fn enrolled(&mut self, name: &str) -> Arc<Identity> {
        let identity = self.enrol(&self.token(), name).await.unwrap();
        assert!(matches!(self.next().await, Event::CertificateIssued { .. }));
        Arc::new(identity)
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
        store: StoreSeen { store_id: "s".into(), generation: 1, incarnation: 1 },
        nonce: 1,
        pause_margin_ms: 1,
        reconnect_span_ms: 1,
        name: name.clone(),
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
    })
}

/// An agent's session end, and what it hears.
struct Agent {
    events: mpsc::Receiver<ClientEvent>,
    uploads: Uploads<FakeSource>,
    task: JoinHandle<()>,
}

impl Agent {
    fn start(controller: SocketAddr, identity: Arc<Identity>) -> Self {
        let (events_in, events) = mpsc::channel(64);
        let uploads = Uploads::default();
        let config = ClientConfig::new(controller.to_string());
        let task = tokio::spawn(run(config, identity, uploads.clone(), events_in));
        Self { events, uploads, task }
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

#[tokio::test]
async fn enrols_connects_and_talks() {
    let folder = tempfile::tempdir().unwrap();
    let mut controller = Controller::start(folder.path());
    let identity = controller.enrol(&controller.token(), "alpha").await.unwrap();
    let Event::CertificateIssued { agent, fingerprint: issued } = controller.next().await else { panic!() };
    assert_eq!((agent, identity.name()), ("alpha".parse().unwrap(), "alpha".parse().unwrap()));
    drop(identity);
    // As a new process finds it.
    let identity = Arc::new(Identity::load(&folder.path().join("alpha")).unwrap().unwrap());
    assert_eq!(identity.controller(), controller.address.to_string());
    let mut agent = Agent::start(controller.address, identity);
    let outgoing = agent.connected().await;
    let Event::SessionOpened { session, agent: name, fingerprint, address, hello } = controller.next().await else {
        panic!()
    };
    assert_eq!((name.as_str(), &fingerprint, &*address, hello.slots), ("alpha", &issued, "127.0.0.1", 1));
    let welcome = ControllerMessage::Welcome(welcome(&name));
    controller.sessions.send(session, &welcome);
    assert_eq!(agent.message().await, welcome);
    let message = AgentMessage::SetWanted(SetWanted { have: 3 });
    outgoing.send(&message).unwrap();
    assert_eq!(controller.next().await, Event::Message { session, message });
    outgoing.close("done");
    assert_eq!(controller.next().await, Event::SessionClosed(session));
    assert_eq!(agent.disconnected().await, "done");
    agent.stop().await;
}

#[tokio::test]
async fn a_token_buys_one_identity_and_only_the_right_secret_does() {
    let folder = tempfile::tempdir().unwrap();
    let controller = Controller::start(folder.path());
    let token = controller.token();
    let wrong = JoinToken { secret: "0".repeat(64), ..token.clone() };
    let error = controller.enrol(&wrong, "alpha").await.unwrap_err().to_string();
    assert!(error.contains("not valid"), "{error}");
    controller.enrol(&token, "alpha").await.unwrap();
    let spent = controller.enrol(&token, "beta").await.unwrap_err().to_string();
    assert_eq!(spent, error, "spent and wrong are answered alike");
    let again = controller.enrol(&controller.token(), "alpha").await.unwrap_err();
    assert!(matches!(again, IdentityError::Exists { .. }), "{again}");
    assert!(Identity::load(&folder.path().join("beta")).unwrap().is_none());
}

#[tokio::test]
async fn an_agent_enrols_with_no_other_controller_than_its_tokens() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (controller, other) = (Controller::start(folder.path()), Controller::start(other.path()));
    let token = other.token();
    let error = controller.enrol(&token, "alpha").await.unwrap_err().to_string();
    assert!(error.contains("made by another controller"), "{error}");
    assert_eq!(other.driver.tokens.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn refused_enrolments_from_one_address_are_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let controller = Controller::start(folder.path());
    let wrong = JoinToken { secret: "0".repeat(64), ..controller.token() };
    let mut errors = Vec::new();
    for _ in 0..12 {
        errors.push(controller.enrol(&wrong, "alpha").await.unwrap_err().to_string());
    }
    assert!(errors[9].contains("not valid"), "{errors:?}");
    assert!(errors[10].contains("too many refused enrolments"), "{errors:?}");
    assert!(controller.enrol(&controller.token(), "alpha").await.is_err(), "the right token must wait, too");
}

#[tokio::test]
async fn an_expired_certificate_is_refused_in_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let mut controller = Controller::start(folder.path());
    let identity = controller.enrolled("alpha").await;
    let csr = identity.certificate_request().unwrap();
    let old = controller.pki.sign(&csr, &identity.name(), now() - 25.hours()).unwrap();
    identity.install(&old.chain).unwrap();
    let mut agent = Agent::start(controller.address, identity.clone());
    let reason = agent.disconnected().await;
    let until = identity.certified().borrow().facts.not_after;
    assert!(reason.contains(&format!("refused this agent's certificate: it expired at {until}")), "{reason}");
    assert!(reason.contains("xene agents token create"), "{reason}");
    assert!(controller.events.try_recv().is_err(), "the machine heard of it");
    agent.stop().await;
}

#[tokio::test]
async fn a_certificate_of_another_controller_is_refused_by_both_ends() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut controller = Controller::start(folder.path());
    let mut other = Controller::start(other.path());
    let foreign = other.enrolled("alpha").await;
    let mut agent = Agent::start(controller.address, foreign.clone());
    let reason = agent.disconnected().await;
    assert!(reason.contains("not the one that this agent enrolled with"), "{reason}");
    agent.stop().await;

    // An agent that does not care whom it speaks to.
    let connection = rogue(&controller, Some((&other.pki, "alpha")), &frame(&hello(1))).await;
    let error = soon(connection.closed()).await.to_string();
    assert!(error.contains("error 48"), "{error}");
    assert!(controller.events.try_recv().is_err(), "the machine heard of it");
}

#[tokio::test]
async fn a_session_without_a_certificate_is_closed_before_it_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let mut controller = Controller::start(folder.path());
    let connection = rogue(&controller, None, &frame(&hello(1))).await;
    let error = soon(connection.closed()).await.to_string();
    assert!(error.contains("needs a certificate"), "{error}");
    assert!(controller.events.try_recv().is_err(), "the machine heard of it");
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
    let mut roots = RootCertStore::empty();
    roots.add(tls::certificates(controller.pki.ca_pem()).unwrap().swap_remove(0)).unwrap();
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
    quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).unwrap()))
}

fn frame(message: &AgentMessage) -> Vec<u8> {
    let mut frame = Vec::new();
    message.encode(&mut frame);
    frame
}

#[tokio::test]
async fn what_is_no_conversation_ends_the_session() {
    let folder = tempfile::tempdir().unwrap();
    let mut controller = Controller::start(folder.path());
    let pki = controller.pki.clone();
    for (bytes, reason) in [
        (vec![0xff; 64], "is outside 2 to"),
        (frame(&renew(1)), "the first message was not Hello"),
        (vec![], "the first message was not Hello"),
        (frame(&hello(1))[..9].to_vec(), "the stream ended within a frame"),
        ([&[3, 0, 0, 0, 1, 0, 0xc1][..], &frame(&hello(1))].concat(), "can't be read"),
    ] {
        let connection = rogue(&controller, Some((&pki, "alpha")), &bytes).await;
        let error = soon(connection.closed()).await.to_string();
        assert!(error.contains(reason), "{error}");
    }
    assert!(controller.events.try_recv().is_err(), "the machine heard of it");
    let bytes = [frame(&hello(1)), vec![9, 0, 0, 0, 2, 0, 0, 0]].concat();
    let connection = rogue(&controller, Some((&pki, "alpha")), &bytes).await;
    let session = controller.opened().await;
    assert_eq!(controller.next().await, Event::SessionClosed(session));
    soon(connection.closed()).await;
}

#[tokio::test]
async fn a_session_that_is_closed_ends_within_five_seconds_even_if_its_agent_does_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let mut controller = Controller::start(folder.path());
    let identity = controller.enrolled("alpha").await;
    // An agent that is stuck: its session's events are never taken.
    let (events_in, mut events) = mpsc::channel(1);
    let config = ClientConfig::new(controller.address.to_string());
    let agent = tokio::spawn(run(config, identity, Uploads::<FakeSource>::default(), events_in));
    let Some(ClientEvent::Connected(outgoing)) = soon(events.recv()).await else { panic!() };
    outgoing.send(&hello(1)).unwrap();
    let session = controller.opened().await;
    let message = Certificate { chain: "x".repeat(1 << 20) };
    for _ in 0..6 {
        controller.sessions.send(session, &ControllerMessage::Certificate(message.clone()));
    }
    controller.sessions.close(session, "revoked");
    let closed = timeout(Duration::from_secs(5), controller.events.recv()).await.expect("within five seconds");
    assert_eq!(closed, Some(Event::SessionClosed(session)));
    drop(events);
    soon(agent).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_herd_gets_in() {
    const HERD: usize = 80;
    let folder = tempfile::tempdir().unwrap();
    let mut controller = Controller::start(folder.path());
    let config = rogue_config(&controller, Some((&controller.pki, "alpha")));
    let mut endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    endpoint.set_default_client_config(config);
    // All at once: more than may be under way without showing that they receive where they send from.
    let dialing: Vec<_> = (0..HERD).map(|_| endpoint.connect(controller.address, SERVER_NAME).unwrap()).collect();
    let mut connections = Vec::new();
    for connecting in dialing {
        let connection = soon(connecting).await.unwrap();
        let (mut send, recv) = connection.open_bi().await.unwrap();
        send.write_all(&frame(&hello(1))).await.unwrap();
        connections.push((connection, send, recv));
    }
    for _ in 0..HERD {
        controller.opened().await;
    }
}

/// Forwards datagrams between one agent and the controller, until it is told to lose them.
async fn relay(controller: SocketAddr, lossy: watch::Receiver<bool>) -> (SocketAddr, JoinHandle<()>) {
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let (mut agent, mut buffer) = (None, [0; 2048]);
        loop {
            let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
            if from != controller {
                agent = Some(from);
            }
            let to = if from == controller { agent } else { Some(controller) };
            let to = to.filter(|_| !*lossy.borrow());
            if let Some(to) = to {
                socket.send_to(&buffer[..length], to).await.unwrap();
            }
        }
    });
    (address, task)
}

#[tokio::test]
async fn a_cut_is_noticed_by_both_ends_and_healed() {
    let folder = tempfile::tempdir().unwrap();
    let mut controller = Controller::start(folder.path());
    let identity = controller.enrolled("alpha").await;
    // The smaller of both ends' spans counts.
    controller.liveness = Liveness { keep_alive: Duration::from_millis(300), idle_timeout: Duration::from_secs(2) };
    controller.restart().await;
    let lossy = watch::Sender::new(false);
    let (address, relay) = relay(controller.address, lossy.subscribe()).await;
    let mut agent = Agent::start(address, identity);
    agent.connected().await;
    let session = controller.opened().await;
    lossy.send_replace(true);
    assert_eq!(controller.next().await, Event::SessionClosed(session));
    assert_eq!(agent.disconnected().await, "the controller does not answer any more");
    lossy.send_replace(false);
    agent.connected().await;
    controller.opened().await;
    agent.stop().await;
    relay.abort();
}

#[tokio::test]
async fn an_expired_identity_is_enrolled_anew_in_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let mut controller = Controller::start(folder.path());
    let identity = controller.enrolled("alpha").await;
    let csr = identity.certificate_request().unwrap();
    let old = controller.pki.sign(&csr, &identity.name(), now() - 25.hours()).unwrap();
    identity.install(&old.chain).unwrap();
    let fresh = controller.enrol(&controller.token(), "alpha").await.unwrap();
    assert!(fresh.certified().borrow().facts.not_after > now());
    assert_ne!(fresh.certified().borrow().chain, identity.certified().borrow().chain);
}

#[tokio::test]
async fn a_clock_that_is_behind_gets_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    // The controller's clock is days ahead of this machine's.
    let controller = Controller::start_at(folder.path(), now() + 72.hours(), pki::AGENT_LIFE);
    let error = controller.enrol(&controller.token(), "alpha").await.unwrap_err().to_string();
    assert!(error.contains("check the clocks of both"), "{error}");
}

#[tokio::test]
async fn an_agent_without_a_common_version_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut controller = Controller::start(folder.path());
    let identity = controller.enrolled("alpha").await;
    let mut agent = Agent::start(controller.address, identity);
    let ClientEvent::Connected(outgoing) = agent.next().await else { panic!() };
    outgoing.send(&hello(0)).unwrap();
    let ControllerMessage::Refused(Refused { reason, retry, .. }) = agent.message().await else { panic!() };
    assert_eq!((&*reason, retry), ("Version", false));
    let reason = agent.disconnected().await;
    assert!(reason.starts_with("the controller refused this agent: agent test speaks version 0"), "{reason}");
    assert!(controller.events.try_recv().is_err(), "the machine heard of it");
    agent.stop().await;
}

#[tokio::test]
async fn certificates_are_renewed_over_the_session_and_used_in_the_next() {
    let folder = tempfile::tempdir().unwrap();
    // An hour before now and one second after: long past two thirds of its life.
    let mut controller = Controller::start_at(folder.path(), now(), Duration::from_secs(30));
    let identity = controller.enrolled("alpha").await;
    let mut agent = Agent::start(controller.address, identity.clone());
    agent.connected().await;
    let session = controller.opened().await;
    agent.message().await;
    let Event::Message { message: AgentMessage::CertificateWanted(wanted), .. } = controller.next().await else {
        panic!()
    };
    let signed = controller.pki.sign(&wanted.csr, &identity.name(), now()).unwrap();
    let chain = signed.chain.clone();
    controller.sessions.send(session, &ControllerMessage::Certificate(Certificate { chain }));
    let ControllerMessage::Certificate(certificate) = agent.message().await else { panic!() };
    let other = controller.pki.sign(&wanted.csr, &"beta".parse().unwrap(), now()).unwrap();
    assert!(identity.install(&other.chain).is_err(), "of another agent");
    identity.install(&certificate.chain).unwrap();
    let kept = Identity::load(&folder.path().join("alpha")).unwrap().unwrap();
    assert_eq!(*kept.certified().borrow(), *identity.certified().borrow());
    controller.sessions.close(session, "test");
    agent.connected().await;
    loop {
        if let Event::SessionOpened { fingerprint, .. } = controller.next().await {
            assert_eq!(fingerprint, signed.fingerprint);
            break;
        }
    }
    agent.stop().await;
}

#[tokio::test]
async fn comes_back_after_the_controller_was_restarted() {
    let folder = tempfile::tempdir().unwrap();
    let mut controller = Controller::start(folder.path());
    let identity = controller.enrolled("alpha").await;
    let mut agent = Agent::start(controller.address, identity);
    let stale = agent.connected().await;
    controller.opened().await;
    agent.message().await;
    controller.restart().await;
    assert_eq!(agent.disconnected().await, "the controller ended the session");
    assert!(stale.send(&hello(1)).is_err(), "an ended session takes nothing");
    agent.connected().await;
    controller.opened().await;
    assert!(matches!(agent.message().await, ControllerMessage::Welcome(_)));
    agent.stop().await;
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let controller = Controller::start(folder.path());
    let error = controller.bind().unwrap_err().to_string();
    assert!(error.contains(&format!("can't listen on UDP {}", controller.address)), "{error}");
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
    })
}

#[tokio::test]
async fn a_burst_before_the_end_arrives_whole_in_both_directions() {
    const BURST: u64 = 20_000;
    let folder = tempfile::tempdir().unwrap();
    let mut controller = Controller::start(folder.path());
    let identity = controller.enrolled("alpha").await;
    let mut agent = Agent::start(controller.address, identity);
    let outgoing = agent.connected().await;
    controller.opened().await;
    agent.message().await;
    for seq in 0..BURST {
        outgoing.send(&renew(seq)).unwrap();
    }
    outgoing.close("test");
    for expected in 0..BURST {
        let Event::Message { message: AgentMessage::Renew(renew), .. } = controller.next().await else { panic!() };
        assert_eq!(renew.seq, expected);
    }
    assert!(matches!(controller.next().await, Event::SessionClosed(_)));

    agent.connected().await;
    let session = controller.opened().await;
    agent.message().await;
    let acknowledged = |offset| {
        let run = RunName::new(Timestamp::UNIX_EPOCH, 1);
        ControllerMessage::LogAcknowledged(xene_schemas::wire::control::LogAcknowledged { run, offset })
    };
    for offset in 0..BURST {
        controller.sessions.send(session, &acknowledged(offset));
    }
    controller.sessions.close(session, "test");
    for offset in 0..BURST {
        assert_eq!(agent.message().await, acknowledged(offset));
    }
    agent.disconnected().await;
    agent.stop().await;
}

fn log_header(run: RunName, offset: u64) -> LogHeader {
    LogHeader { run, pipeline: "w/p".parse().unwrap(), epoch: Epoch(7), offset }
}

fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

/// Hands acknowledgements on until this much is acknowledged.
async fn until_acknowledged(agent: &mut Agent, run: RunName, length: u64) -> u32 {
    for count in 1.. {
        if let ControllerMessage::LogAcknowledged(ack) = agent.message().await {
            assert_eq!(ack.run, run);
            agent.uploads.acknowledged(run, ack.offset);
            if ack.offset == length {
                return count;
            }
        }
    }
    unreachable!()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_arrives_whole_and_is_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let mut controller = Controller::start(folder.path());
    let identity = controller.enrolled("alpha").await;
    *controller.logs.refusals.lock().unwrap() = 2;
    let mut agent = Agent::start(controller.address, identity);
    let (run, source, bytes) = (RunName::new(Timestamp::UNIX_EPOCH, 5), FakeSource::new(), noise(10 << 20));
    agent.uploads.add(log_header(run, 0), source.clone());
    agent.connected().await;
    controller.opened().await;
    agent.message().await;
    source.write(&bytes[..5 << 20]);
    until_acknowledged(&mut agent, run, 5 << 20).await;
    source.write(&bytes[5 << 20..]);
    source.seal();
    until_acknowledged(&mut agent, run, 10 << 20).await;
    assert_eq!(blake3::hash(&controller.logs.logs.lock().unwrap()[&run]), blake3::hash(&bytes));
    let syncs = *controller.logs.syncs.lock().unwrap();
    assert!(syncs < 100, "{syncs} syncs for two bursts");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_goes_on_in_the_next_session_where_it_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let mut controller = Controller::start(folder.path());
    let identity = controller.enrolled("alpha").await;
    let mut agent = Agent::start(controller.address, identity);
    let (run, source) = (RunName::new(Timestamp::UNIX_EPOCH, 5), FakeSource::new());
    source.write(b"first ");
    agent.connected().await;
    let session = controller.opened().await;
    agent.message().await;
    agent.uploads.add(log_header(run, 0), source.clone());
    until_acknowledged(&mut agent, run, 6).await;
    controller.sessions.close(session, "test");
    agent.disconnected().await;
    source.write(b"second");
    source.seal();
    agent.connected().await;
    controller.opened().await;
    agent.message().await;
    until_acknowledged(&mut agent, run, 12).await;
    assert_eq!(controller.logs.logs.lock().unwrap()[&run], b"first second");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_logs_than_streams_all_arrive_and_a_foreign_one_holds_up_none() {
    let folder = tempfile::tempdir().unwrap();
    let mut controller = Controller::start(folder.path());
    let identity = controller.enrolled("alpha").await;
    let mut agent = Agent::start(controller.address, identity);
    agent.connected().await;
    controller.opened().await;
    agent.message().await;
    let foreign = LogHeader { epoch: Epoch(6), ..log_header(RunName::new(Timestamp::UNIX_EPOCH, 999), 0) };
    let source = FakeSource::new();
    source.write(b"not mine");
    agent.uploads.add(foreign.clone(), source);
    let mut waiting: Vec<_> = (0..200).map(|n| RunName::new(Timestamp::UNIX_EPOCH, n)).collect();
    for run in &waiting {
        let source = FakeSource::new();
        source.write(run.to_string().as_bytes());
        source.seal();
        agent.uploads.add(log_header(*run, 0), source);
    }
    while !waiting.is_empty() {
        if let ControllerMessage::LogAcknowledged(ack) = agent.message().await {
            agent.uploads.acknowledged(ack.run, ack.offset);
            waiting.retain(|run| *run != ack.run || ack.offset != 26);
        }
    }
    let logs = controller.logs.logs.lock().unwrap();
    assert!(!logs.contains_key(&foreign.run));
    assert!((0..200).all(|n| {
        let run = RunName::new(Timestamp::UNIX_EPOCH, n);
        logs[&run] == run.to_string().as_bytes()
    }));
}

#[test]
fn names_of_any_shape_survive_the_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let pki = Pki::open(folder.path(), now(), pki::AGENT_LIFE).unwrap();
    let csr = CertificateParams::default().serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
    for name in ["a", "Build_Host-1.example", &"Z".repeat(63)] {
        let name: Name = name.parse().unwrap();
        let signed = pki.sign(&csr, &name, now()).unwrap();
        assert_eq!(tls::facts(&tls::certificates(&signed.chain).unwrap()[0]).unwrap().agent, Some(name));
    }
}
