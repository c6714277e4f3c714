//! What is said in sessions, how they end, and how agents come back.

use xene_schemas::phase::Transport;

use super::*;

over_both!(
    enrols_connects_and_talks,
    a_session_that_is_closed_ends_within_five_seconds_even_if_its_agent_does_not_read,
    an_agent_without_a_common_version_is_refused,
    comes_back_after_the_controller_was_restarted,
    a_burst_before_the_end_arrives_whole_in_both_directions,
);

async fn enrols_connects_and_talks(by: Transports) {
    let folder = tempfile::tempdir().unwrap();
    let mut controller = Controller::start(folder.path()).over(by);
    let identity = controller.enrol(&controller.token(), "alpha").await.unwrap();
    let (agent, issued) = controller.certified().await;
    assert_eq!((agent, identity.name()), ("alpha".parse().unwrap(), "alpha".parse().unwrap()));
    drop(identity);
    // As a new process finds it.
    let identity = Arc::new(Identity::load(&folder.path().join("alpha")).unwrap().unwrap());
    assert_eq!(identity.controller(), controller.address.to_string());
    let mut agent = Agent::start(&controller, identity);
    let outgoing = agent.connected().await;
    let Event::SessionOpened { session, agent: name, fingerprint, address, transport, hello, .. } =
        controller.next().await
    else {
        panic!()
    };
    assert_eq!((name.as_str(), &fingerprint, &*address, hello.slots), ("alpha", &issued, "127.0.0.1", 1));
    assert_eq!(transport, if by == Transports::Tcp { Transport::Tcp } else { Transport::Quic });
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

async fn a_session_that_is_closed_ends_within_five_seconds_even_if_its_agent_does_not_read(by: Transports) {
    let folder = tempfile::tempdir().unwrap();
    let mut controller = Controller::start(folder.path()).over(by);
    let identity = controller.enrolled("alpha").await;
    // An agent that is stuck: its session's events are never taken.
    let (events_in, mut events) = mpsc::channel(1);
    let config = ClientConfig { transports: by, ..ClientConfig::new(controller.address.to_string()) };
    let files = ContentStore::open(&folder.path().join("files")).unwrap();
    let downloads = Downloads::new(files.clone(), mpsc::unbounded_channel().0);
    let all = (Uploads::<FakeSource>::default(), downloads, ArtifactUploads::new(files));
    let agent = tokio::spawn(run(config, identity, all, events_in));
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
pub(super) fn forward(
    socket: tokio::net::UdpSocket,
    controller: SocketAddr,
    lossy: watch::Receiver<bool>,
) -> JoinHandle<()> {
    tokio::spawn(async move {
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
    })
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
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let relay = forward(socket, controller.address, lossy.subscribe());
    let mut agent = Agent::start_at((address, Transports::Quic), identity);
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

async fn an_agent_without_a_common_version_is_refused(by: Transports) {
    let folder = tempfile::tempdir().unwrap();
    let mut controller = Controller::start(folder.path()).over(by);
    let identity = controller.enrolled("alpha").await;
    let mut agent = Agent::start(&controller, identity);
    let ClientEvent::Connected(outgoing) = agent.next().await else { panic!() };
    outgoing.send(&hello(0)).unwrap();
    let ControllerMessage::Refused(Refused { reason, retry, .. }) = agent.message().await else { panic!() };
    assert_eq!((&*reason, retry), ("Version", false));
    let reason = agent.disconnected().await;
    assert!(reason.starts_with("the controller refused this agent: agent test speaks version 0"), "{reason}");
    assert!(controller.events.try_recv().is_err(), "the machine heard of it");
    agent.stop().await;
}

async fn comes_back_after_the_controller_was_restarted(by: Transports) {
    let folder = tempfile::tempdir().unwrap();
    let mut controller = Controller::start(folder.path()).over(by);
    let identity = controller.enrolled("alpha").await;
    let mut agent = Agent::start(&controller, identity);
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

async fn a_burst_before_the_end_arrives_whole_in_both_directions(by: Transports) {
    const BURST: u64 = 20_000;
    let folder = tempfile::tempdir().unwrap();
    let mut controller = Controller::start(folder.path()).over(by);
    let identity = controller.enrolled("alpha").await;
    let mut agent = Agent::start(&controller, identity);
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
        ControllerMessage::LogAcknowledged(xene_schemas::wire::control::LogAcknowledged {
            run,
            offset,
            unwanted: false,
        })
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

/// A client's memory of tickets that counts what it is given.
#[derive(Debug, Default)]
pub(super) struct Tickets(pub(super) std::sync::atomic::AtomicU32);

impl rustls::client::ClientSessionStore for Tickets {
    fn set_kx_hint(&self, _: rustls::pki_types::ServerName<'static>, _: rustls::NamedGroup) {}

    fn kx_hint(&self, _: &rustls::pki_types::ServerName<'_>) -> Option<rustls::NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: rustls::pki_types::ServerName<'static>, _: rustls::client::Tls12ClientSessionValue) {
    }

    fn tls12_session(&self, _: &rustls::pki_types::ServerName<'_>) -> Option<rustls::client::Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &rustls::pki_types::ServerName<'static>) {}

    fn insert_tls13_ticket(
        &self,
        _: rustls::pki_types::ServerName<'static>,
        _: rustls::client::Tls13ClientSessionValue,
    ) {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }

    fn take_tls13_ticket(
        &self,
        _: &rustls::pki_types::ServerName<'static>,
    ) -> Option<rustls::client::Tls13ClientSessionValue> {
        None
    }
}

#[tokio::test]
async fn nobody_is_given_a_ticket_so_each_session_shows_its_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let mut controller = Controller::start(folder.path());
    let tickets = Arc::new(Tickets::default());
    let pki = controller.pki.clone();
    let resuming = |store| rogue_config_with(&controller, Some((&pki, "alpha")), Some(store));
    let counting = resuming(rustls::client::Resumption::store(tickets.clone()));
    let eager = resuming(rustls::client::Resumption::in_memory_sessions(8));
    let mut endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let mut fingerprints = Vec::new();
    for config in [counting, eager.clone(), eager] {
        endpoint.set_default_client_config(config);
        let connecting = endpoint.connect(controller.address, SERVER_NAME).unwrap();
        // Nothing is said before the handshake, in which the certificate is checked.
        let Err(connecting) = connecting.into_0rtt() else { panic!("a session was resumed") };
        let connection = soon(connecting).await.unwrap();
        let (mut send, mut recv) = connection.open_bi().await.unwrap();
        send.write_all(&frame(&hello(1))).await.unwrap();
        let Event::SessionOpened { session, fingerprint, .. } = controller.next().await else { panic!() };
        fingerprints.push(fingerprint);
        // What a machine says to who was revoked; then nothing more, whatever is asked.
        let refused = Refused { reason: "Revoked".into(), message: "revoked".into(), retry: false };
        controller.sessions.send(session, &ControllerMessage::Refused(refused.clone()));
        controller.sessions.close(session, "revoked");
        let _ = send.write_all(&frame(&renew(1))).await;
        let said = soon(recv.read_to_end(1 << 20)).await.unwrap_or_default();
        assert_eq!(said, frame(&ControllerMessage::Refused(refused)));
        let closed = timeout(Duration::from_secs(5), connection.closed()).await;
        assert!(closed.is_ok(), "within five seconds");
        while !matches!(controller.next().await, Event::SessionClosed(of) if of == session) {}
    }
    assert_eq!(tickets.0.load(std::sync::atomic::Ordering::Relaxed), 0);
    assert!(fingerprints[0] != fingerprints[1] && fingerprints[1] == fingerprints[2], "{fingerprints:?}");
}

#[tokio::test]
async fn who_has_shown_no_certificate_gets_one_stream_and_little_room() {
    let folder = tempfile::tempdir().unwrap();
    let controller = Controller::start(folder.path());
    let mut config = rogue_config(&controller, None);
    let mut endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    config.transport_config(Arc::new(quinn::TransportConfig::default()));
    endpoint.set_default_client_config(config);
    let connection = soon(endpoint.connect(controller.address, SERVER_NAME).unwrap()).await.unwrap();
    // Its end may have come already; until then it has no stream of its own, and one that is answered.
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let logs = std::pin::pin!(connection.open_uni());
    assert!(!matches!(logs.poll(&mut context), std::task::Poll::Ready(Ok(_))));
    let error = soon(connection.closed()).await.to_string();
    assert!(error.contains("certificate"), "{error}");
}
