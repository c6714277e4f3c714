//! Logs as sessions write them and people follow them.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::timeout;

use super::*;

fn run(n: u128) -> RunName {
    RunName::new(Timestamp::from_second(1_700_000_000).unwrap(), n)
}

fn noise(length: usize) -> Bytes {
    let mut state = 1u32;
    let bytes = (0..length).map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 28) as u8
    });
    bytes.collect()
}

async fn whole(logs: &LogStore, run: RunName) -> Vec<u8> {
    let reader = logs.reader(run).await.unwrap();
    let mut all = Vec::new();
    loop {
        let part = reader.read(all.len() as u64, 100_000).await.unwrap();
        if part.is_empty() {
            return all;
        }
        all.extend(part);
    }
}

#[tokio::test]
async fn bytes_sent_again_are_taken_once_and_gaps_are_refused() {
    let temp = tempfile::tempdir().unwrap();
    let logs = LogStore::open(temp.path()).unwrap();
    assert_eq!(logs.append(run(1), 0, Bytes::from_static(b"hello")).await.unwrap(), 5);
    assert_eq!(logs.append(run(1), 3, Bytes::from_static(b"lo world")).await.unwrap(), 11);
    assert_eq!(logs.append(run(1), 0, Bytes::from_static(b"hell")).await.unwrap(), 11);
    let gap = logs.append(run(1), 12, Bytes::from_static(b"!")).await.unwrap_err();
    assert!(matches!(gap, LogError::Gap { length: 11, offset: 12, .. }), "{gap}");
    assert_eq!(whole(&logs, run(1)).await, b"hello world");
}

#[tokio::test]
async fn what_is_synced_is_there_after_reopening_and_goes_on() {
    let temp = tempfile::tempdir().unwrap();
    let data = noise(3 * FRAME + 1_000);
    let logs = LogStore::open(temp.path()).unwrap();
    logs.append(run(1), 0, data.slice(..FRAME * 2)).await.unwrap();
    assert_eq!(logs.sync(run(1)).await.unwrap(), FRAME as u64 * 2);
    logs.append(run(1), FRAME as u64 * 2, data.slice(FRAME * 2..FRAME * 2 + 10)).await.unwrap();
    drop(logs);

    let logs = LogStore::open(temp.path()).unwrap();
    assert_eq!(logs.length(run(1)).unwrap(), FRAME as u64 * 2, "what nobody acknowledged will be sent again");
    logs.append(run(1), 0, data.clone()).await.unwrap();
    assert_eq!(logs.sync(run(1)).await.unwrap(), data.len() as u64);
    drop(logs);
    let logs = LogStore::open(temp.path()).unwrap();
    assert_eq!(logs.length(run(1)).unwrap(), data.len() as u64);
    assert_eq!(whole(&logs, run(1)).await, data);
}

#[tokio::test]
async fn a_follower_is_woken_by_each_append() {
    let temp = tempfile::tempdir().unwrap();
    let logs = LogStore::open(temp.path()).unwrap();
    let mut reader = logs.reader(run(1)).await.unwrap();
    assert_eq!(reader.length(), 0);
    for line in 0..3u64 {
        let follow = async {
            reader.grown(line * 2).await;
            reader.read(line * 2, 100).await.unwrap()
        };
        let (seen, length) = tokio::join!(timeout(Duration::from_secs(10), follow), async {
            logs.append(run(1), line * 2, Bytes::from_static(b"x\n")).await.unwrap()
        });
        assert_eq!((seen.unwrap(), length), (b"x\n".to_vec(), line * 2 + 2));
    }
}

#[tokio::test]
async fn a_deleted_log_is_gone_for_those_who_hold_it_too() {
    let temp = tempfile::tempdir().unwrap();
    let logs = LogStore::open(temp.path()).unwrap();
    logs.append(run(1), 0, Bytes::from_static(b"x")).await.unwrap();
    logs.sync(run(1)).await.unwrap();
    let reader = logs.reader(run(1)).await.unwrap();
    logs.delete(run(1)).unwrap();
    assert!(matches!(reader.read(0, 9).await, Err(LogError::Deleted)));
    assert_eq!(logs.length(run(1)).unwrap(), 0);
    let gap = logs.append(run(1), 1, Bytes::from_static(b"y")).await;
    assert!(matches!(gap, Err(LogError::Gap { length: 0, .. })), "it begins anew");
}

#[tokio::test]
async fn logs_that_nobody_holds_are_forgotten() {
    let temp = tempfile::tempdir().unwrap();
    let logs = LogStore::open(temp.path()).unwrap();
    for n in 0..500 {
        logs.length(run(n)).unwrap();
    }
    logs.append(run(1), 0, Bytes::from_static(b"x")).await.unwrap();
    for n in 500..1_000 {
        logs.length(run(n)).unwrap();
    }
    assert_eq!(logs.length(run(1)).unwrap(), 1, "what is not written yet is not dropped");
    assert!(lock(&logs.inner.open).logs.len() <= 64);
}

#[tokio::test]
async fn logs_are_for_this_account_alone() {
    use std::{fs, os::unix::fs::PermissionsExt as _};
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("logs");
    fs::create_dir(&dir).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
    let logs = LogStore::open(&dir).unwrap();
    logs.append(run(1), 0, noise(4 * FRAME)).await.unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&dir), 0o700);
    let (mut folders, mut files) = (vec![dir], 0);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                assert_eq!(mode(&path), 0o600, "{}", path.display());
                files += 1;
            }
        }
    }
    assert!(files > 0);
}
