//! Files on their way to an agent, and artifacts on their way back.

use xene_schemas::{
    meta::FileHash,
    run::Artifact,
    wire::{control::FilesWanted, logs::LogMessage},
};

use super::*;

over_both!(
    missing_files_are_asked_for_once_come_whole_and_complete_their_spec,
    a_file_that_is_not_what_it_says_or_was_not_asked_for_is_not_kept,
    artifacts_arrive_are_acknowledged_once_durable_and_survive_a_restart_of_the_controller,
);

fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

fn file(path: &str, bytes: &[u8]) -> PipelineFile {
    PipelineFile { path: path.into(), hash: FileHash::of(bytes), size: bytes.len() as u64, executable: false }
}

/// What the agent asks for next.
async fn wanted(controller: &mut Controller) -> FilesWanted {
    loop {
        if let Some(Event::Message { message: AgentMessage::FilesWanted(wanted), .. }) =
            soon(controller.events.recv()).await
        {
            return wanted;
        }
    }
}

async fn missing_files_are_asked_for_once_come_whole_and_complete_their_spec(by: Transports) {
    let folder = tempfile::tempdir().unwrap();
    let mut controller = Controller::start(folder.path()).over(by);
    let identity = controller.enrolled("alpha").await;
    let mut agent = Agent::start(&controller, identity);
    let (big, small) = (noise(10 << 20), b"small".to_vec());
    let files = [file("big", &big), file("small", &small), file("again", &small)];
    agent.files.keep(&small).unwrap();
    let spec = SpecHash::of(b"spec");
    agent.downloads.want(spec, &files);
    agent.downloads.want(SpecHash::of(b"here"), &files[1..]);
    assert_eq!(soon(agent.complete.recv()).await, Some(SpecHash::of(b"here")), "what is here is not fetched");
    agent.connected().await;
    let session = controller.opened().await;
    agent.message().await;
    let asked = wanted(&mut controller).await;
    assert_eq!((asked.spec, asked.hashes), (spec, vec![files[0].hash]));
    controller.files.keep(&big).unwrap();
    controller.sessions.send_files(session, vec![files[0].clone()]);
    // Beside it the session goes on.
    controller.sessions.send(session, &ControllerMessage::Certificate(Certificate { chain: "x".into() }));
    assert!(matches!(agent.message().await, ControllerMessage::Certificate(_)));
    assert_eq!(soon(agent.complete.recv()).await, Some(spec));
    assert!(agent.files.has(&files[0].hash));
    agent.stop().await;
}

async fn a_file_that_is_not_what_it_says_or_was_not_asked_for_is_not_kept(by: Transports) {
    let folder = tempfile::tempdir().unwrap();
    let mut controller = Controller::start(folder.path()).over(by);
    let identity = controller.enrolled("alpha").await;
    let mut agent = Agent::start(&controller, identity);
    let good = file("good", b"good");
    agent.downloads.want(SpecHash::of(b"spec"), std::slice::from_ref(&good));
    agent.connected().await;
    let session = controller.opened().await;
    agent.message().await;
    wanted(&mut controller).await;
    let other = controller.files.keep(b"other").unwrap();
    let unasked = PipelineFile { hash: other, size: 5, ..good.clone() };
    // Longer, shorter, and other bytes under the name that was asked for.
    let path = |hash: &FileHash| {
        let name = hash.to_string();
        folder.path().join("store").join(&name[..2]).join(&name[2..])
    };
    std::fs::create_dir_all(path(&good.hash).parent().unwrap()).unwrap();
    for lie in ["too long", "no", "evil"] {
        std::fs::write(path(&good.hash), lie).unwrap();
        controller.sessions.send_files(session, vec![good.clone(), unasked.clone()]);
    }
    // They come one after another: once this one is here, the others were refused.
    let last = file("last", b"last");
    agent.downloads.want(SpecHash::of(b"last"), std::slice::from_ref(&last));
    wanted(&mut controller).await;
    controller.files.keep(b"last").unwrap();
    controller.sessions.send_files(session, vec![last]);
    assert_eq!(soon(agent.complete.recv()).await, Some(SpecHash::of(b"last")));
    assert!(!agent.files.has(&good.hash) && !agent.files.has(&other));
    agent.stop().await;
}

async fn artifacts_arrive_are_acknowledged_once_durable_and_survive_a_restart_of_the_controller(by: Transports) {
    let folder = tempfile::tempdir().unwrap();
    let mut controller = Controller::start(folder.path()).over(by);
    let identity = controller.enrolled("alpha").await;
    let mut agent = Agent::start(&controller, identity);
    let run = RunName::new(Timestamp::UNIX_EPOCH, 5);
    let artifact = |bytes: &[u8]| Artifact {
        path: "x".into(),
        size: bytes.len() as u64,
        hash: agent.files.keep(bytes).unwrap(),
        executable: false,
    };
    let (big, small) = (noise(5 << 20), b"small".to_vec());
    let (first, second, known) = (artifact(&big), artifact(&small), artifact(b"known"));
    controller.files.keep(b"known").unwrap();
    agent.artifacts.add(run, &[first.clone(), known.clone()]);
    for round in [vec![first.hash, known.hash], vec![second.hash]] {
        agent.connected().await;
        controller.opened().await;
        agent.message().await;
        let mut left: std::collections::BTreeSet<_> = round.into_iter().collect();
        while !left.is_empty() {
            if let ControllerMessage::ArtifactStored(stored) = agent.message().await {
                assert!(controller.files.has(&stored.hash), "durable before it is acknowledged");
                agent.artifacts.stored(stored.run, stored.hash);
                left.remove(&stored.hash);
            }
        }
        controller.restart().await;
        agent.disconnected().await;
        agent.artifacts.add(run, std::slice::from_ref(&second));
    }
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_artifact_that_lies_about_itself_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut controller = Controller::start(folder.path());
    let config = rogue_config(&controller, Some((&controller.pki, "alpha")));
    let mut endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    endpoint.set_default_client_config(config);
    let connection = soon(endpoint.connect(controller.address, SERVER_NAME).unwrap()).await.unwrap();
    let (mut control, _answers) = soon(connection.open_bi()).await.unwrap();
    control.write_all(&frame(&hello(1))).await.unwrap();
    controller.opened().await;
    let run = RunName::new(Timestamp::UNIX_EPOCH, 5);
    for (size, text) in [(4, "evil"), (2, "good"), (9, "good"), (2 << 30, "good")] {
        let mut stream = soon(connection.open_uni()).await.unwrap();
        let header = ArtifactHeader { run, hash: FileHash::of(b"good"), size };
        let mut bytes = Vec::new();
        LogMessage::Artifact(header).encode(&mut bytes);
        bytes.extend_from_slice(text.as_bytes());
        let _ = stream.write_all(&bytes).await;
        let _ = stream.finish();
        let stopped = soon(stream.stopped()).await;
        assert!(!controller.files.has(&FileHash::of(b"good")), "{size} {text}: {stopped:?}");
    }
    connection.close(quinn::VarInt::from_u32(0), b"");
}
