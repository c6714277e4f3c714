//! Logs on their way from agent to controller.

use super::*;

over_both!(
    a_log_arrives_whole_and_is_acknowledged,
    a_log_goes_on_in_the_next_session_where_it_was_acknowledged,
    more_logs_than_streams_all_arrive_and_a_foreign_one_holds_up_none,
    a_log_of_a_run_without_a_record_is_not_wanted_once_its_facts_are_settled,
);

fn log_header(run: RunName, offset: u64) -> LogHeader {
    LogHeader { run, pipeline: "w/p".parse().unwrap(), epoch: Epoch(7), offset, settled: false }
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

async fn a_log_arrives_whole_and_is_acknowledged(by: Transports) {
    let folder = tempfile::tempdir().unwrap();
    let mut controller = Controller::start(folder.path()).over(by);
    let identity = controller.enrolled("alpha").await;
    *controller.logs.refusals.lock().unwrap() = 2;
    let mut agent = Agent::start(&controller, identity);
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

async fn a_log_goes_on_in_the_next_session_where_it_was_acknowledged(by: Transports) {
    let folder = tempfile::tempdir().unwrap();
    let mut controller = Controller::start(folder.path()).over(by);
    let identity = controller.enrolled("alpha").await;
    let mut agent = Agent::start(&controller, identity);
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

async fn more_logs_than_streams_all_arrive_and_a_foreign_one_holds_up_none(by: Transports) {
    let folder = tempfile::tempdir().unwrap();
    let mut controller = Controller::start(folder.path()).over(by);
    let identity = controller.enrolled("alpha").await;
    let mut agent = Agent::start(&controller, identity);
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

async fn a_log_of_a_run_without_a_record_is_not_wanted_once_its_facts_are_settled(by: Transports) {
    let folder = tempfile::tempdir().unwrap();
    let mut controller = Controller::start(folder.path()).over(by);
    let identity = controller.enrolled("alpha").await;
    let mut agent = Agent::start(&controller, identity);
    agent.connected().await;
    controller.opened().await;
    agent.message().await;
    let run = RunName::new(Timestamp::UNIX_EPOCH, 999);
    let source = FakeSource::new();
    source.write(b"nobody reads this");
    source.seal();
    agent.uploads.add(LogHeader { epoch: Epoch(6), ..log_header(run, 0) }, source);
    // Refused for now: its first fact may be on its way.
    agent.uploads.settle(run);
    let unwanted = agent.message().await;
    assert_eq!(
        unwanted,
        ControllerMessage::LogAcknowledged(xene_schemas::wire::control::LogAcknowledged {
            run,
            offset: 0,
            unwanted: true
        })
    );
    agent.uploads.remove(run);
    agent.stop().await;
}
