use std::sync::mpsc::channel;

use indexmap::IndexMap;
use jiff::Timestamp;
use xene_schemas::{
    meta::{Epoch, Revision, RunName, SpecHash},
    phase::{Reason, RunPhase},
    pipeline::Autonomy,
    run::{RunEvent, RunSpec, RunTrigger, TriggerType},
    wire::control::{SkippedSlot, StoreSeen},
};

use super::*;
use crate::decide::event::{ClaimRow, RunRow, RunState};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

fn run(n: u128) -> RunName {
    RunName::new(at(0), n)
}

fn claim(epoch: u64) -> ClaimRow {
    ClaimRow {
        replaced: false,
        releasing: false,
        epoch: Epoch(epoch),
        claimed: true,
        autonomy: Autonomy::Forever,
        watermark: at(9),
        slots_after: at(8),
        spec_hash: SpecHash::of(b"spec"),
        revision: Revision("abc".into()),
        confirmed: true,
        suspended: false,
        elsewhere: 0,
    }
}

fn row(acknowledged: u64) -> RunRow {
    let spec = RunSpec {
        workflow: "w".parse().unwrap(),
        pipeline: "p".parse().unwrap(),
        trigger: RunTrigger { kind: TriggerType::Cron, name: None, scheduled_time: Some(at(1)), by: None },
        params: IndexMap::from([("a".into(), "b".into())]),
        revision: Revision("abc".into()),
        spec_hash: SpecHash::of(b"spec"),
        rerun_of: None,
    };
    let (epoch, state) = (Epoch(1), RunState::Intent);
    RunRow { spec, epoch, state, acknowledged, from_controller: true, created_at: at(2), artifacts: vec![] }
}

fn ended() -> RunEvent {
    RunEvent::Ended { phase: RunPhase::Success, reason: None, message: None, at: at(5) }
}

fn skipped(second: i64) -> SkippedSlot {
    SkippedSlot {
        pipeline: "w/p".parse().unwrap(),
        epoch: Epoch(1),
        trigger: "t".parse().unwrap(),
        slot: at(second),
        reason: Reason::MISSED,
        until: Some(at(second + 9)),
        count: Some(3),
    }
}

fn commit(journal: &Journal, changes: Vec<JournalChange>) {
    let (done, wait) = channel();
    journal.commit(changes, move |result| done.send(result).unwrap());
    wait.recv().unwrap().unwrap();
}

fn reopen(data: &Path) -> Recovered {
    Journal::open(data).unwrap().1
}

#[test]
fn reads_back_what_it_was_told() {
    let data = tempfile::tempdir().unwrap();
    let (journal, recovered) = Journal::open(data.path()).unwrap();
    assert_eq!(recovered, Recovered::default());
    let store = StoreSeen { store_id: "s".into(), generation: 2, incarnation: 3, longest: None };
    commit(
        &journal,
        vec![
            JournalChange::PutClaim("w/p".parse().unwrap(), claim(7)),
            JournalChange::PutClaim("w/p.q".parse().unwrap(), claim(8)),
            JournalChange::PutRun(run(1), row(0)),
            JournalChange::PutFact(run(1), 0, ended()),
            JournalChange::PutFact(run(1), 300, ended()),
            JournalChange::PutSpec(SpecHash::of(b"spec"), b"spec".to_vec()),
            JournalChange::PutSkipped(6, skipped(6)),
            JournalChange::PutSkipped(256, skipped(256)),
            JournalChange::PutSkipped(257, skipped(257)),
            JournalChange::DeleteSkipped(256),
            JournalChange::PutStore(store.clone()),
            JournalChange::PutBoot("boot".into()),
            JournalChange::PutName("agent".parse().unwrap()),
            JournalChange::PutToken(u64::MAX - 1),
        ],
    );
    drop(journal);
    let expected = Recovered {
        claims: [("w/p".parse().unwrap(), claim(7)), ("w/p.q".parse().unwrap(), claim(8))].into(),
        runs: [(run(1), row(0))].into(),
        facts: [(run(1), [(0, ended()), (300, ended())].into())].into(),
        specs: [(SpecHash::of(b"spec"), b"spec".to_vec())].into(),
        skipped: [(256, skipped(256)), (257, skipped(257))].into(),
        told: Default::default(),
        bounds: Default::default(),
        store: Some(store),
        boot_id: Some("boot".into()),
        name: Some("agent".parse().unwrap()),
        token: Some(u64::MAX - 1),
        renewal: None,
    };
    assert_eq!(reopen(data.path()), expected);
}

#[test]
fn acknowledged_facts_go_and_a_deleted_run_leaves_its_neighbours() {
    let data = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(data.path()).unwrap();
    for n in 1..=3 {
        commit(&journal, vec![JournalChange::PutRun(run(n), row(0))]);
        commit(&journal, (0..4).map(|index| JournalChange::PutFact(run(n), index, ended())).collect());
    }
    commit(&journal, vec![JournalChange::PutRun(run(1), row(3)), JournalChange::DeleteRun(run(2))]);
    drop(journal);
    let recovered = reopen(data.path());
    assert_eq!(recovered.runs.keys().copied().collect::<Vec<_>>(), [run(1), run(3)]);
    let facts: Vec<_> = recovered.facts.iter().map(|(run, facts)| (*run, facts.keys().copied().collect())).collect();
    assert_eq!(facts, [(run(1), vec![3]), (run(3), vec![0, 1, 2, 3])]);
}

#[test]
fn a_copied_folder_voids_claims_but_keeps_epoch_and_watermark() {
    let (data, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (journal, _) = Journal::open(data.path()).unwrap();
    commit(&journal, vec![JournalChange::PutClaim("w/p".parse().unwrap(), claim(7))]);
    drop(journal);
    std::fs::create_dir(copy.path().join("journal")).unwrap();
    std::fs::copy(data.path().join("journal/data.mdb"), copy.path().join("journal/data.mdb")).unwrap();
    let void = ClaimRow { claimed: false, confirmed: false, ..claim(7) };
    for _ in 0..2 {
        assert_eq!(reopen(copy.path()).claims.values().collect::<Vec<_>>(), [&void]);
    }
    assert_eq!(reopen(data.path()).claims.values().collect::<Vec<_>>(), [&claim(7)]);
}

#[test]
fn a_newer_layout_is_refused_and_left_alone() {
    let data = tempfile::tempdir().unwrap();
    drop(Journal::open(data.path()).unwrap());
    let set = |schema: u32| {
        let env = Env::open(&data.path().join("journal"), Tables::COUNT).unwrap();
        env.write(|env, txn| {
            let meta = env.create_database::<heed::types::Bytes, heed::types::Bytes>(txn, Some("meta"))?;
            meta.put(txn, b"schema", &schema.to_le_bytes())
        })
        .unwrap();
    };
    set(SCHEMA + 1);
    assert!(matches!(Journal::open(data.path()), Err(JournalError::Newer { found }) if found == SCHEMA + 1));
    set(SCHEMA);
    drop(Journal::open(data.path()).unwrap());
}
