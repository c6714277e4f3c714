//! Stores as earlier versions wrote them: each is read, brought up to date, and found to hold what it held.
//!
//! `golden/vN.mdb.zst` is a store of version N with something in every table, `golden/vN.txt` what is found in it. Both are
//! kept as they are for as long as that version is read. A new version gets its own by `XENE_BLESS=1 cargo test --lib
//! golden`, which makes what is missing; a field that was added shows as its default in the texts, which the same
//! writes anew.

use std::{fmt::Write as _, fs, path::PathBuf};

use heed::{Database, types::Bytes};
use serde::{Serialize, de::DeserializeOwned};
use xene_schemas::{
    source::{Condition, ConditionStatus, SourceKind, SourceStatus},
    wire::control::Decision,
};

use super::*;
use crate::store::{keys::Row, tables::COUNT};

const NOW: u64 = upgrade::KNOWN;
/// Those before it were never released.
const FIRST: u64 = 3;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/store/tests/golden")
}

fn is_blessed() -> bool {
    std::env::var_os("XENE_BLESS").is_some()
}

/// Something in every table, and in most fields.
fn everything() -> Vec<Change> {
    let spec = b"a compiled spec".to_vec();
    let source = SourceStatus {
        kind: SourceKind::Git,
        url: "/srv/flows".into(),
        branch: Some("main".into()),
        conditions: vec![Condition {
            kind: "Ready".into(),
            status: ConditionStatus::True,
            reason: "Applied".into(),
            message: "in effect".into(),
            since: at(8),
        }],
        ..source()
    };
    let mut ended = run_row(1, RunPhase::Success);
    (ended.run.status.finished_at, ended.cancel_by, ended.give_up_at) =
        (Some(at(1_100)), Some("me".into()), Some(at(9)));
    ended.decisions = vec![Decision { run: run_name(1), task: "x".into(), approved: true, by: "me".into() }];
    ended.reused = [("x".to_owned(), [("out".to_owned(), "1".to_owned())].into_iter().collect())].into_iter().collect();
    let arrived = Arrived {
        pipeline: name("p"),
        run: run_name(1),
        finished_at: at(1_100),
        params: [("x".to_owned(), "1".to_owned())].into_iter().collect(),
    };
    vec![
        Change::PutController(ControllerRow {
            store_id: "a-store".into(),
            generation: 3,
            incarnation: 7,
            wall_high: at(2_000),
            recovering: false,
            restored: false,
            recovered_at: Some(at(9)),
            readmits: false,
            longest: None,
            pause: None,
            clock: None,
        }),
        Change::PutSource(Box::new(source)),
        Change::PutWorkflow(Box::new(workflow(0, 2))),
        Change::PutWorkflow(Box::new(WorkflowRow {
            held: Some("blocked".into()),
            blocked_among: Some(2),
            ..workflow(2, 1)
        })),
        Change::PutPipeline(Box::new(pipeline(0, 2))),
        Change::PutPipeline(Box::new(pipeline(3, 1))),
        Change::PutSpec(SpecHash::of(&spec), spec.into()),
        Change::PutOwner(
            key(0),
            OwnerRow { longer: Some(xene_schemas::duration::Duration::from_secs(60)), ..owner(2) },
        ),
        Change::PutOwner(key(3), owner(3)),
        Change::PutAgent(Box::new(AgentRow { newest_token: 9, twin: Some("two of them".into()), ..agent(0, 1) })),
        Change::PutAgent(Box::new(AgentRow { revoked: true, ..agent(1, 2) })),
        Change::PutRun(Box::new(ended)),
        Change::PutRun(Box::new(run_row(2, RunPhase::Running))),
        Change::AddEvent(NewEvent {
            at: at(9),
            kind: EventType::Warning,
            reason: "Because".into(),
            message: "it is so".into(),
            regarding: "source".into(),
        }),
        Change::PutFile(
            "xene.d/a.yaml".into(),
            Some(Box::new(FileRow {
                content: "c0ffee".into(),
                workflows: vec![(name("a"), SpecHash::of(b"w"), 1)],
                refused: vec![name("b")],
                notifiers: vec![],
                ignored: 1,
                problems: vec![],
                travelling: vec![FileHash::of(b"f")],
            })),
        ),
        Change::PutJoinToken(JoinTokenRow {
            id: "join".into(),
            secret_hash: "00".into(),
            created_at: None,
            created_by: None,
            expires_at: at(4_000),
            uses_left: 2,
            labels: Some(Labels::from_iter([("role".to_owned(), "build".to_owned())])),
            name: Some(name("three")),
        }),
        Change::PutApiToken(ApiTokenRow {
            id: "api".into(),
            name: name("team"),
            secret_hash: "00".into(),
            role: Role::Operator,
            scope: Some([name("a")].into()),
            created_at: at(1),
            created_by: "admin".into(),
            expires_at: Some(at(4_000)),
        }),
        Change::PutLedger(LedgerRow {
            pipeline: key(0),
            trigger: name("t"),
            slot: at(1_000),
            reason: Some(Reason::TOO_LATE),
            run: None,
            until: Some(at(1_060)),
            count: Some(2),
            agent: Some(name("one")),
        }),
        Change::PutDelivery(key(0), "delivery-1".into(), run_name(1)),
        Change::PutAfter(key(3), Some(AfterRow { arrived: vec![arrived] })),
        Change::PutSuspension(SuspensionRow {
            what: Suspendable::Pipeline(key(0)),
            suspension: Suspension { by: "me".into(), since: at(1), why: Some("rest".into()), until: Some(at(2)) },
        }),
        Change::PutNotifier(Box::new(notifier(0, 2))),
        Change::PutMessage(Box::new(MessageRow {
            notifier: notifier(0, 2).metadata.name,
            number: 4,
            notice: Notice::new(Transition::Error, "source".into(), "4".into(), at(6)),
        })),
        Change::PutNotifierHealth(
            notifier(0, 2).metadata.name,
            NotifierHealth { delivered: 3, ..NotifierHealth::default() },
        ),
    ]
}

fn source() -> SourceStatus {
    let empty = serde_json::json!({
        "kind": "git", "url": "", "path": "xene.d", "conditions": [], "problems": [], "workflows": 2, "ignored": 0, "dirty": 1,
    });
    serde_json::from_value(empty).unwrap()
}

fn rows<V: Serialize + DeserializeOwned + 'static, K>(
    text: &mut String,
    title: &str,
    table: Database<K, Row<V>>,
    txn: &xene_agent::lmdb::ReadTxn<'_>,
) {
    for entry in table.remap_key_type::<Bytes>().iter(txn).unwrap() {
        let (key, row) = entry.unwrap();
        writeln!(text, "{title} {} {}", key.escape_ascii(), serde_json::to_string(&row).unwrap()).unwrap();
    }
}

fn raw<K, V>(text: &mut String, title: &str, table: Database<K, V>, txn: &xene_agent::lmdb::ReadTxn<'_>) {
    for entry in table.remap_types::<Bytes, Bytes>().iter(txn).unwrap() {
        let (key, value) = entry.unwrap();
        writeln!(text, "{title} {} {}", key.escape_ascii(), value.escape_ascii()).unwrap();
    }
}

/// All of a store as text.
fn told(store: &Store) -> String {
    assert_eq!(COUNT, 20, "a new table belongs in here, and in `everything`");
    let Tables {
        workflows,
        pipelines,
        specs,
        owners,
        agents,
        runs,
        runs_by_pipeline,
        active_runs,
        events,
        files,
        join_tokens,
        api_tokens,
        ledger,
        deliveries,
        after,
        suspensions,
        notifiers,
        outbox,
        notifier_health,
        ..
    } = store.tables.clone();
    store
        .env
        .read(|txn| {
            let mut text = String::new();
            let (controller, source) = (store.tables.controller(txn)?, store.tables.source(txn)?);
            writeln!(text, "controller {}", serde_json::to_string(&controller).unwrap()).unwrap();
            writeln!(text, "source {}", serde_json::to_string(&source).unwrap()).unwrap();
            writeln!(text, "revision {}", store.tables.revision(txn)?).unwrap();
            rows(&mut text, "workflow", workflows, txn);
            rows(&mut text, "pipeline", pipelines, txn);
            raw(&mut text, "spec", specs, txn);
            rows(&mut text, "owner", owners, txn);
            rows(&mut text, "agent", agents, txn);
            rows(&mut text, "run", runs, txn);
            rows(&mut text, "run-of", runs_by_pipeline, txn);
            raw(&mut text, "active", active_runs, txn);
            rows(&mut text, "event", events, txn);
            rows(&mut text, "file", files, txn);
            rows(&mut text, "join-token", join_tokens, txn);
            rows(&mut text, "api-token", api_tokens, txn);
            rows(&mut text, "ledger", ledger, txn);
            raw(&mut text, "delivery", deliveries, txn);
            rows(&mut text, "after", after, txn);
            rows(&mut text, "suspension", suspensions, txn);
            rows(&mut text, "notifier", notifiers, txn);
            rows(&mut text, "message", outbox, txn);
            rows(&mut text, "notifier-health", notifier_health, txn);
            Ok::<_, StoreError>(text)
        })
        .unwrap()
}

/// Writes the store of a version that has none yet.
fn make(version: u64) -> Vec<u8> {
    assert_eq!(version, NOW, "a store of an earlier version is made by a program of that version");
    let data = tempfile::tempdir().unwrap();
    let store = Store::open(data.path()).unwrap();
    commit(&store, everything());
    drop(store);
    let dir = data.path().join("store");
    let env = Env::open(&dir, COUNT).unwrap();
    let path = data.path().join("copy");
    env.copy(&mut fs::File::create(&path).unwrap()).unwrap();
    zstd::encode_all(&*fs::read(path).unwrap(), 19).unwrap()
}

/// A data folder with the store of this version.
fn golden(version: u64) -> tempfile::TempDir {
    let path = folder().join(format!("v{version}.mdb.zst"));
    if is_blessed() && !path.exists() {
        fs::create_dir_all(folder()).unwrap();
        fs::write(&path, make(version)).unwrap();
    }
    let packed = fs::read(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; XENE_BLESS=1 makes the store of a new version", path.display()));
    let data = tempfile::tempdir().unwrap();
    fs::create_dir(data.path().join("store")).unwrap();
    fs::write(data.path().join("store/data.mdb"), zstd::decode_all(&*packed).unwrap()).unwrap();
    data
}

fn set_version(data: &tempfile::TempDir, version: u64) {
    let env = Env::open(&data.path().join("store"), COUNT).unwrap();
    env.write(|env, txn| Tables::create(env, txn)?.set_schema_version(txn, version)).unwrap();
}

#[test]
fn stores_of_every_version_are_read_and_hold_what_they_held() {
    for version in FIRST..=NOW {
        let data = golden(version);
        let file = data.path().join("store/data.mdb");
        let before = fs::read(&file).unwrap();
        Store::read_all(data.path()).unwrap();
        assert!(fs::read(&file).unwrap() == before, "version {version} was written by who only looks");
        let expected = folder().join(format!("v{version}.txt"));
        for round in ["brought up to date", "opened again"] {
            let store = Store::open(data.path()).unwrap();
            let told = told(&store);
            if is_blessed() {
                fs::write(&expected, &told).unwrap();
            }
            let known = fs::read_to_string(&expected).unwrap();
            assert!(told == known, "version {version}, {round}: see {}\n{told}", expected.display());
            assert!(!store.has_drifted().unwrap(), "version {version}, {round}");
            let version_now = store.env.read(|txn| store.tables.schema_version(txn)).unwrap();
            assert_eq!(version_now, Some(NOW), "version {version}, {round}");
            drop(store);
            Store::read_all(data.path()).unwrap();
        }
        for title in ["workflow", "spec", "delivery", "suspension", "active", "after"] {
            let known = fs::read_to_string(&expected).unwrap();
            assert!(known.lines().any(|line| line.starts_with(title)), "version {version} has no {title}");
        }
        let kept = data.path().join(format!("store/backup-v{version}.mdb"));
        assert_eq!(kept.exists(), version < NOW, "version {version}: as it was, beside it");
    }
}

#[test]
fn a_store_of_a_newer_version_is_refused_in_a_sentence_and_left_alone() {
    let data = golden(NOW);
    set_version(&data, NOW + 1);
    let file = data.path().join("store/data.mdb");
    let before = fs::read(&file).unwrap();
    // Whether it is whole, the newer program knows.
    Store::read_all(data.path()).unwrap();
    let error = Store::open(data.path()).unwrap_err().to_string();
    let known = format!("a newer xene wrote this store (version {}, this one knows {NOW})", NOW + 1);
    assert!(error.starts_with(&known), "{error}");
    assert!(fs::read(&file).unwrap() == before, "it was written");
}
