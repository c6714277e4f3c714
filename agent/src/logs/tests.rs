use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use jiff::Timestamp;
use xene_schemas::wire::logs::{RECORD_HEAD, RecordKind, StepHead, split_record};

use super::*;

fn run(n: u128) -> RunName {
    RunName::new(Timestamp::UNIX_EPOCH, n)
}

fn small(max_bytes: u64) -> Limits {
    Limits { max_bytes, hold_bytes: 100, hold_time: Duration::from_millis(50) }
}

fn head() -> StepHead {
    StepHead { task: "t".into(), step: "s".into(), attempt: 1 }
}

fn bytes(log: &RunLog) -> Vec<u8> {
    let (mut all, mut buffer) = (Vec::new(), [0; 7]);
    loop {
        match log.read_at(all.len() as u64, &mut buffer).unwrap() {
            0 => return all,
            n => all.extend_from_slice(&buffer[..n]),
        }
    }
}

fn records(log: &RunLog) -> Vec<(RecordKind, u16, Vec<u8>)> {
    let bytes = bytes(log);
    let (mut rest, mut records) = (&bytes[..], Vec::new());
    while let Some((record, used)) = split_record(rest).unwrap() {
        records.push((record.kind.unwrap(), record.step, record.data.to_vec()));
        rest = &rest[used..];
    }
    assert!(rest.is_empty());
    records
}

#[test]
fn reads_back_what_was_appended_open_or_sealed() {
    let dir = tempfile::tempdir().unwrap();
    let logs = Logs::open(dir.path(), Limits::default()).unwrap();
    let log = logs.create(run(1));
    let number = log.step(&head());
    log.append(RecordKind::Stdout, number, b"half a li");
    log.append(RecordKind::Stderr, number, &[0, 255, 10]);
    log.note("ready");
    let open = bytes(&log);
    log.seal();
    log.note("too late");
    assert_eq!(bytes(&log)[..open.len()], open);
    let expected = [
        (RecordKind::Step, 1, serde_json::to_vec(&head()).unwrap()),
        (RecordKind::Stdout, 1, b"half a li".to_vec()),
        (RecordKind::Stderr, 1, vec![0, 255, 10]),
        (RecordKind::Note, 0, b"ready".to_vec()),
        (RecordKind::End, 0, vec![]),
    ];
    assert_eq!(records(&log), expected);
    logs.remove(run(1)).unwrap();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn output_beyond_the_limit_is_cut_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let logs = Logs::open(dir.path(), small(100)).unwrap();
    let log = logs.create(run(1));
    log.append(RecordKind::Stdout, 1, &[b'a'; 60]);
    log.append(RecordKind::Stdout, 1, &[b'b'; 60]);
    log.append(RecordKind::Stdout, 1, &[b'c'; 60]);
    log.seal();
    let kept = 100 - 60 - 2 * RECORD_HEAD;
    let expected = [
        (RecordKind::Stdout, 1, vec![b'a'; 60]),
        (RecordKind::Stdout, 1, vec![b'b'; kept]),
        (RecordKind::Note, 0, b"the log has reached 100 bytes; further output is cut".to_vec()),
        (RecordKind::Note, 0, format!("{} bytes of output were cut", 120 - kept).into_bytes()),
        (RecordKind::End, 0, vec![]),
    ];
    assert_eq!(records(&log), expected);
}

#[test]
fn a_torn_record_is_cut_at_every_length() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(format!("{}.log", run(1)));
    let logs = Logs::open(dir.path(), Limits::default()).unwrap();
    let log = logs.create(run(1));
    log.step(&head());
    let first = log.len();
    log.append(RecordKind::Stdout, 1, b"hello");
    let second = log.len();
    log.seal();
    let whole = std::fs::read(&path).unwrap();
    drop((log, logs));
    for cut in 0..=whole.len() as u64 {
        std::fs::write(&path, &whole[..usize::try_from(cut).unwrap()]).unwrap();
        let logs = Logs::open(dir.path(), Limits::default()).unwrap();
        let len = [whole.len() as u64, second, first, 0].into_iter().find(|len| *len <= cut).unwrap();
        let sealed = len == whole.len() as u64;
        assert_eq!(logs.found(), [FoundLog { run: run(1), len, sealed }], "cut at {cut}");
        assert_eq!(std::fs::metadata(&path).unwrap().len(), len);
        let log = logs.get(run(1)).unwrap();
        if !sealed {
            assert_eq!(log.step(&head()), if len == 0 { 1 } else { 2 }, "numbers go on");
            log.seal();
            assert_eq!(records(&log).last().unwrap().0, RecordKind::End);
        }
    }
}

#[test]
fn zeros_after_a_host_crash_are_cut() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(format!("{}.log", run(1))), [0; 4096]).unwrap();
    let logs = Logs::open(dir.path(), Limits::default()).unwrap();
    assert_eq!(logs.found(), [FoundLog { run: run(1), len: 0, sealed: false }]);
}

#[tokio::test]
async fn a_reader_is_woken_by_growth_and_by_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let logs = Logs::open(dir.path(), Limits::default()).unwrap();
    let log = logs.create(run(1));
    let reader = tokio::spawn({
        let log = log.clone();
        async move {
            let mut at = 0;
            loop {
                let (len, sealed) = log.wait_for(at).await;
                at = len;
                if sealed {
                    return at;
                }
            }
        }
    });
    for _ in 0..10 {
        log.note("x");
        tokio::task::yield_now().await;
    }
    log.seal();
    assert_eq!(reader.await.unwrap(), log.len());
}

/// Starts a thread that is held, and waits until it is.
fn hold(log: &Arc<RunLog>, stop: &Arc<AtomicBool>) -> std::thread::JoinHandle<Duration> {
    let (log, stop) = (log.clone(), stop.clone());
    std::thread::spawn(move || {
        let begun = crate::clock::now().boot;
        log.wait_ready(|| stop.load(Ordering::SeqCst));
        crate::clock::now().boot.since(begun)
    })
}

#[test]
fn pipes_are_held_only_while_connected_and_behind() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { hold_time: Duration::from_secs(3600), ..small(1 << 20) };
    let logs = Logs::open(dir.path(), limits).unwrap();
    let (log, stop) = (logs.create(run(1)), Arc::new(AtomicBool::new(false)));
    log.append(RecordKind::Stdout, 1, &[0; 500]);
    // Each join would hang if the hold were not over.
    hold(&log, &stop).join().unwrap();
    logs.set_connected(true);
    let held = hold(&log, &stop);
    log.acknowledged(log.len() - 101);
    log.acknowledged(log.len() - 100);
    held.join().unwrap();
    log.append(RecordKind::Stdout, 1, &[0; 500]);
    let held = hold(&log, &stop);
    logs.set_connected(false);
    held.join().unwrap();
    logs.set_connected(true);
    let held = hold(&log, &stop);
    stop.store(true, Ordering::SeqCst);
    log.wake();
    held.join().unwrap();
}

#[test]
fn a_controller_without_progress_holds_only_once() {
    let dir = tempfile::tempdir().unwrap();
    let logs = Logs::open(dir.path(), small(1 << 20)).unwrap();
    logs.set_connected(true);
    let (log, stop) = (logs.create(run(1)), Arc::new(AtomicBool::new(false)));
    log.append(RecordKind::Stdout, 1, &[0; 500]);
    assert!(hold(&log, &stop).join().unwrap() >= Duration::from_millis(50));
    let begun = crate::clock::now().boot;
    for _ in 0..1000 {
        log.wait_ready(|| false);
    }
    assert!(crate::clock::now().boot.since(begun) < Duration::from_secs(1), "it spools on");
    log.acknowledged(1);
    assert!(hold(&log, &stop).join().unwrap() >= Duration::from_millis(50), "progress holds again");
}

#[test]
fn what_a_full_disk_takes_away_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let logs = Logs::open(&dir.path().join("logs"), Limits::default()).unwrap();
    std::fs::remove_dir(dir.path().join("logs")).unwrap();
    let log = logs.create(run(1));
    log.append(RecordKind::Stdout, 1, b"lost");
    std::fs::create_dir(dir.path().join("logs")).unwrap();
    log.append(RecordKind::Stdout, 1, b"kept");
    log.seal();
    let texts: Vec<_> = records(&log).into_iter().map(|(_, _, data)| String::from_utf8(data).unwrap()).collect();
    assert_eq!(texts, ["kept", "4 bytes of output were cut", ""]);
}
