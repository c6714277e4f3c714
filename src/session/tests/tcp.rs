//! What is different where UDP does not pass.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsConnector;
use xene_schemas::{phase::Transport, wire::ALPN_TUNNEL};

use super::{conversation::Tickets, *};

/// Forwards TCP alone to the controller; what is open ends when it is told.
async fn relay(controller: SocketAddr, cut: watch::Receiver<u32>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut agent, _)) = listener.accept().await {
            let mut cut = cut.clone();
            cut.mark_unchanged();
            tokio::spawn(async move {
                let mut to = TcpStream::connect(controller).await.unwrap();
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut agent, &mut to) => {}
                    _ = cut.changed() => {}
                }
            });
        }
    });
    address
}

/// The next session, welcomed, and what carries it.
async fn opened(controller: &mut Controller) -> (SessionId, Transport) {
    loop {
        if let Event::SessionOpened { session, agent, transport, .. } = controller.next().await {
            controller.sessions.send(session, &ControllerMessage::Welcome(welcome(&agent)));
            return (session, transport);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_udp_gets_no_answer_tcp_is_taken_until_it_gets_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut controller = Controller::start(folder.path());
    let identity = controller.enrolled("alpha").await;
    let cut = watch::Sender::new(0);
    let address = relay(controller.address, cut.subscribe()).await;
    let mut agent = Agent::start_at((address, Transports::Auto), identity);
    agent.connected().await;
    let (session, transport) = opened(&mut controller).await;
    assert_eq!(transport, Transport::Tcp);
    agent.message().await;
    // A cut is heard of at once: nobody waits until the other end has been silent for long.
    cut.send_modify(|cuts| *cuts += 1);
    assert_eq!(controller.next().await, Event::SessionClosed(session));
    let reason = agent.disconnected().await;
    assert!(reason.starts_with("the connection to the controller broke: "), "{reason}");
    // Now UDP passes there, too.
    let udp = tokio::net::UdpSocket::bind(address).await.unwrap();
    let lossy = watch::Sender::new(false);
    let udp = conversation::forward(udp, controller.address, lossy.subscribe());
    agent.connected().await;
    loop {
        let (session, transport) = opened(&mut controller).await;
        agent.message().await;
        if transport == Transport::Quic {
            break;
        }
        // The attempt had begun before.
        controller.sessions.close(session, "test");
        agent.connected().await;
    }
    agent.stop().await;
    udp.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn enrols_and_talks_by_itself_where_only_tcp_passes() {
    let folder = tempfile::tempdir().unwrap();
    let mut controller = Controller::start(folder.path()).over(Transports::Auto);
    let cut = watch::Sender::new(0);
    let real = controller.address;
    controller.address = relay(real, cut.subscribe()).await;
    let identity = controller.enrolled("alpha").await;
    let mut agent = Agent::start(&controller, identity);
    agent.connected().await;
    assert_eq!(opened(&mut controller).await.1, Transport::Tcp);
    agent.stop().await;
}

fn tunnel_config(controller: &Controller) -> rustls::ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(tls::certificates(&controller.pki.roots()).unwrap().swap_remove(0)).unwrap();
    let mut config = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN_TUNNEL.to_vec()];
    config
}

#[tokio::test]
async fn nobody_is_given_a_ticket_over_tcp_either_and_noise_is_answered_by_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut controller = Controller::start(folder.path());
    let tickets = Arc::new(Tickets::default());
    let mut config = tunnel_config(&controller);
    config.resumption = rustls::client::Resumption::store(tickets.clone());
    for config in [config.clone(), config] {
        let tcp = TcpStream::connect(controller.address).await.unwrap();
        let name = SERVER_NAME.try_into().unwrap();
        let mut stream = soon(TlsConnector::from(Arc::new(config)).connect(name, tcp)).await.unwrap();
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(rustls::HandshakeKind::Full));
        // An empty datagram, one that is none of QUIC, and half of one.
        stream.write_all(&[0, 0, 3, 0, 1, 2, 3, 200, 0, 1]).await.unwrap();
        stream.shutdown().await.unwrap();
        let said = soon(stream.read_to_end(&mut Vec::new())).await;
        assert!(said.is_err() || said.is_ok_and(|length| length == 0));
    }
    assert_eq!(tickets.0.load(std::sync::atomic::Ordering::Relaxed), 0);
    assert!(controller.events.try_recv().is_err(), "the machine heard of it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_says_nothing_over_tcp_holds_up_nobody_who_comes_by_udp() {
    let folder = tempfile::tempdir().unwrap();
    let mut controller = Controller::start(folder.path());
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(TcpStream::connect(controller.address).await.unwrap());
    }
    let identity = controller.enrolled("alpha").await;
    let mut agent = Agent::start(&controller, identity);
    agent.connected().await;
    controller.opened().await;
    agent.stop().await;
}

#[tokio::test]
async fn what_answers_by_tcp_and_is_no_controller_is_told_as_that() {
    let folder = tempfile::tempdir().unwrap();
    let mut controller = Controller::start(folder.path());
    let identity = controller.enrolled("alpha").await;
    let web = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = web.local_addr().unwrap();
    let web = tokio::spawn(async move {
        let (mut stream, _) = web.accept().await.unwrap();
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        stream
    });
    let mut agent = Agent::start_at((address, Transports::Tcp), identity);
    assert_eq!(agent.disconnected().await, "what answers by TCP is not a xene controller");
    drop(web.await);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_says_nothing_over_tcp_is_not_waited_for_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let mut controller = Controller::start(folder.path());
    // As many as one address may have; the next one is not served, which tells that these are.
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(TcpStream::connect(controller.address).await.unwrap());
    }
    let mut refused = TcpStream::connect(controller.address).await.unwrap();
    let said = soon(refused.read(&mut [0])).await;
    assert!(said.is_err() || said.is_ok_and(|length| length == 0));
    let ending = clock::now().boot;
    soon(controller.listener.take().unwrap().shutdown()).await;
    // Each may be silent for four seconds.
    assert!(clock::now().boot.since(ending) < Duration::from_secs(2));
}
