//! All agents at once: the controller was restarted, and everybody comes back.

use xene_agent::session::{frames::FrameReader, reconnect::Reconnect, transport::codes};
use xene_schemas::wire::MAX_FRAME;

use super::*;

/// How long an attempt may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A small site's agents, or as many as `XENE_HERD` says: 10,000 must be back within a minute, with less than 100 KiB of
/// memory for both ends of each. `XENE_HERD=10000 cargo test --release --lib herd -- --nocapture` takes minutes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_are_back_soon_after_a_restart() {
    let count = std::env::var_os("XENE_HERD").map_or(100, |count| count.to_str().unwrap().parse().unwrap());
    let span = Duration::from_secs(if count > 1_000 { 20 } else { 2 });
    let herd = herd(count, span).await;
    eprintln!("{herd:?}");
    assert!(herd.back < Duration::from_secs(60), "{herd:?}");
    assert!(count < 1_000 || herd.memory < 100 << 10, "{herd:?}");
}

#[derive(Debug)]
#[expect(dead_code, reason = "told as a whole")]
struct Herd {
    /// From the moment that the controller listens again until the last one is welcomed.
    back: Duration,
    /// Attempts beyond the first of each.
    again: u64,
    /// Of both ends of a connection that stands, in bytes.
    memory: usize,
}

async fn herd(count: usize, span: Duration) -> Herd {
    let folder = tempfile::tempdir().unwrap();
    let mut controller = Controller::start(folder.path());
    let mut endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    endpoint.set_default_client_config(rogue_config(&controller, Some((&controller.pki, "alpha"))));
    let before = resident();
    let (welcomed, mut welcomes) = mpsc::channel(count);
    let (moved, at) = watch::channel(controller.address);
    let agents: Vec<_> =
        (0..count).map(|_| tokio::spawn(agent(endpoint.clone(), at.clone(), span, welcomed.clone()))).collect();
    all_come(&mut controller, &mut welcomes, count).await;
    let memory = resident().saturating_sub(before) / count;
    // At another port: in one process the first is held until the last connection has drained.
    let first = controller.listener.take().unwrap();
    controller.address.set_port(0);
    controller.listen();
    moved.send_replace(controller.address);
    let restarted = clock::now().boot;
    let ending = tokio::spawn(first.shutdown());
    let attempts = all_come(&mut controller, &mut welcomes, count).await;
    let herd = Herd { back: clock::now().boot.since(restarted), again: attempts - count as u64, memory };
    agents.iter().for_each(JoinHandle::abort);
    drop(ending.await);
    herd
}

/// Welcomes whoever says Hello until so many have heard it; gives how often they tried.
async fn all_come(controller: &mut Controller, welcomes: &mut mpsc::Receiver<u64>, count: usize) -> u64 {
    let (mut come, mut attempts) = (0, 0);
    let all = async {
        while come < count {
            tokio::select! {
                Some(tried) = welcomes.recv() => (come, attempts) = (come + 1, attempts + tried),
                Some(event) = controller.events.recv() => {
                    if let Event::SessionOpened { session, agent, .. } = event {
                        controller.sessions.send(session, &ControllerMessage::Welcome(welcome(&agent)));
                    }
                }
            }
        }
    };
    timeout(Duration::from_secs(240), all).await.expect("all come");
    attempts
}

/// Dials when an agent would, says Hello, and stays until the controller ends it; again and again.
async fn agent(
    endpoint: Endpoint,
    controller: watch::Receiver<SocketAddr>,
    span: Duration,
    welcomed: mpsc::Sender<u64>,
) {
    let mut reconnect = Reconnect::default();
    reconnect.stood(span);
    let mut tried = 0;
    loop {
        tokio::time::sleep(reconnect.next(getrandom::u64().unwrap())).await;
        tried += 1;
        let session = async {
            let at = *controller.borrow();
            let connection = endpoint.connect(at, SERVER_NAME).unwrap().await.ok()?;
            let (mut send, recv) = connection.open_bi().await.ok()?;
            send.write_all(&frame(&hello(1))).await.ok()?;
            let mut reader = FrameReader::new(recv, MAX_FRAME);
            let first = reader.next::<ControllerMessage>().await.ok()??;
            matches!(first, ControllerMessage::Welcome(_)).then_some((connection, send, reader))
        };
        let Ok(Some((connection, _send, mut reader))) = timeout(PATIENCE, session).await else { continue };
        reconnect.stood(span);
        if welcomed.send(std::mem::take(&mut tried)).await.is_err() {
            return;
        }
        while let Ok(Some(_)) = reader.next::<ControllerMessage>().await {}
        connection.close(codes::DONE, b"");
    }
}

/// What this process has in memory, in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
}
