//! Golden bytes: what agents and controllers say, as this version writes it and every later one has to read it.
//!
//! `XENE_BLESS=1 cargo test -p xene-schemas --test frames` writes new ones. A line that changes is a change that the
//! versions next to this one have to understand.

use std::{
    fmt::{Debug, Write as _},
    fs,
};

use indexmap::IndexMap;
use jiff::Timestamp;
use xene_schemas::{
    duration::Duration,
    meta::{Epoch, FileHash, PipelineKey, Revision, RunName, SpecHash},
    phase::{Reason, RunPhase},
    pipeline::Autonomy,
    run::{RunEvent, RunSpec, RunTrigger, TriggerType},
    wire::{
        MAX_FRAME, Message,
        control::{
            Acknowledged, AgentMessage, ArtifactStored, Assignment, Assignments, CancelRun, Certificate,
            CertificateWanted, Claim, ControllerMessage, Decision, FilesWanted, Hello, LogAcknowledged, Ping, Refused,
            Released, Renew, Renewed, Report, RunFact, SetWanted, Skipped, SkippedAcknowledged, SkippedSlot, Specs,
            SpecsWanted, StartRun, StoreSeen, Tokens, Welcome,
        },
        split_frame,
    },
};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/frames.txt");

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("as written")
}

fn key() -> PipelineKey {
    "workflow/pipeline".parse().expect("as written")
}

fn run() -> RunName {
    RunName::new(at(1_800_000_000), 7)
}

fn store() -> StoreSeen {
    StoreSeen { store_id: "store".into(), generation: 1_700_000_000, incarnation: 3, longest: None }
}

fn spec() -> RunSpec {
    RunSpec {
        workflow: key().workflow,
        pipeline: key().pipeline,
        trigger: RunTrigger {
            kind: TriggerType::Cron,
            name: Some("nightly".parse().expect("as written")),
            scheduled_time: Some(at(1_800_000_000)),
            by: None,
        },
        params: IndexMap::from([("region".to_owned(), "eu".to_owned())]),
        revision: Revision("0123abcd".into()),
        spec_hash: SpecHash([1; 32]),
        rerun_of: None,
    }
}

fn agent_says() -> Vec<(&'static str, AgentMessage)> {
    let claim = Claim {
        pipeline: key(),
        epoch: Epoch(1 << 51),
        watermark: at(1_800_000_000),
        live: true,
        autonomy: Some(Autonomy::For(Duration::from_secs(300))),
    };
    let hello = |tokens| Hello {
        version: 1,
        software: "0.1.0".into(),
        instance: 7,
        boot_id: "boot".into(),
        labels: [("os".to_owned(), "linux".to_owned())].into_iter().collect(),
        slots: 4,
        claims: vec![claim.clone()],
        wall: at(1_800_000_001),
        store: Some(store()),
        runs: vec![run()],
        tokens,
    };
    let renew = |token| Renew {
        seq: 9,
        nonce: 8,
        answered: 7,
        claims_version: 6,
        claims: Some(vec![Claim { autonomy: Some(Autonomy::Forever), ..claim.clone() }]),
        busy: 1,
        wall: at(1_800_000_001),
        assignments: 5,
        token,
        disk_full: false,
    };
    let fact = |index, event| RunFact { run: run(), pipeline: key(), epoch: Epoch(1 << 51), index, event };
    let ended = RunEvent::Ended {
        phase: RunPhase::Error,
        reason: Some(Reason::TIMED_OUT),
        message: Some("too long".into()),
        at: at(1_800_000_002),
    };
    let facts = vec![fact(0, RunEvent::Created { spec: spec(), at: at(1_800_000_000) }), fact(1, ended)];
    let skipped = SkippedSlot {
        pipeline: key(),
        epoch: Epoch(1 << 51),
        trigger: "nightly".parse().expect("as written"),
        slot: at(1_800_000_000),
        reason: Reason::COALESCED,
        until: Some(at(1_800_000_060)),
        count: Some(2),
    };
    vec![
        ("Hello before tokens", AgentMessage::Hello(hello(None))),
        ("Hello", AgentMessage::Hello(hello(Some(Tokens { session: 1, renewal: Some(u64::MAX) })))),
        ("Renew before tokens", AgentMessage::Renew(renew(None))),
        ("Renew", AgentMessage::Renew(renew(Some(u64::MAX)))),
        ("Renew with a full disk", AgentMessage::Renew(Renew { disk_full: true, ..renew(Some(u64::MAX)) })),
        (
            "Released",
            AgentMessage::Released(Released {
                pipeline: key(),
                epoch: Epoch(1 << 51),
                watermark: at(1_800_000_000),
                running: vec![run()],
                draining: true,
            }),
        ),
        ("Report", AgentMessage::Report(Report { facts, whole: true })),
        ("SpecsWanted", AgentMessage::SpecsWanted(SpecsWanted { hashes: vec![SpecHash([1; 32])] })),
        ("SetWanted", AgentMessage::SetWanted(SetWanted { have: 4 })),
        ("CertificateWanted", AgentMessage::CertificateWanted(CertificateWanted { csr: "PEM".into() })),
        ("Skipped", AgentMessage::Skipped(Skipped { first: Some(3), rows: vec![skipped] })),
        (
            "FilesWanted",
            AgentMessage::FilesWanted(FilesWanted { spec: SpecHash([1; 32]), hashes: vec![FileHash([2; 32])] }),
        ),
        ("Pong", AgentMessage::Pong(Ping { number: 5 })),
    ]
}

fn controller_says() -> Vec<(&'static str, ControllerMessage)> {
    let welcome = |token| Welcome {
        version: 1,
        software: "0.1.0".into(),
        store: store(),
        nonce: 8,
        pause_margin_ms: 60_000,
        reconnect_span_ms: 5_000,
        name: "alpha".parse().expect("as written"),
        token,
    };
    let renewed = |token| Renewed {
        seq: 9,
        wall: at(1_800_000_001),
        claims_version: 6,
        nacks: vec![(key(), Epoch(1 << 51))],
        token,
        longest: None,
    };
    let assignment = Assignment {
        pipeline: key(),
        epoch: Epoch(1 << 51),
        autonomy: Autonomy::Forever,
        not_before: at(1_800_000_000),
        spec_hash: SpecHash([1; 32]),
        revision: Revision("0123abcd".into()),
        revoked: false,
        suspended: true,
        elsewhere: 0,
    };
    let start = StartRun {
        run: run(),
        epoch: Epoch(1 << 51),
        spec: spec(),
        created_at: at(1_800_000_000),
        payload: Some(b"{}".to_vec()),
        extra: IndexMap::new(),
        reused: IndexMap::from([("build".to_owned(), IndexMap::from([("version".to_owned(), "1".to_owned())]))]),
    };
    vec![
        ("Welcome before tokens", ControllerMessage::Welcome(welcome(None))),
        ("Welcome", ControllerMessage::Welcome(welcome(Some(u64::MAX)))),
        (
            "Refused",
            ControllerMessage::Refused(Refused { reason: "Duplicate".into(), message: "two".into(), retry: true }),
        ),
        (
            "Assignments",
            ControllerMessage::Assignments(Assignments {
                version: 2,
                base: Some(1),
                set: vec![assignment],
                gone: vec!["other/pipeline".parse().expect("as written")],
            }),
        ),
        ("Renewed before tokens", ControllerMessage::Renewed(renewed(None))),
        ("Renewed", ControllerMessage::Renewed(renewed(Some(1)))),
        ("StartRun", ControllerMessage::StartRun(start)),
        ("CancelRun", ControllerMessage::CancelRun(CancelRun { run: run(), by: "me".into() })),
        ("Acknowledged", ControllerMessage::Acknowledged(Acknowledged { runs: vec![(run(), 2)] })),
        (
            "LogAcknowledged",
            ControllerMessage::LogAcknowledged(LogAcknowledged { run: run(), offset: 4096, unwanted: false }),
        ),
        ("Specs", ControllerMessage::Specs(Specs { specs: vec![b"spec".to_vec()] })),
        ("Certificate", ControllerMessage::Certificate(Certificate { chain: "PEM".into() })),
        (
            "Decide",
            ControllerMessage::Decide(Decision { run: run(), task: "deploy".into(), approved: true, by: "me".into() }),
        ),
        ("ArtifactStored", ControllerMessage::ArtifactStored(ArtifactStored { run: run(), hash: FileHash([2; 32]) })),
        ("SkippedAcknowledged", ControllerMessage::SkippedAcknowledged(SkippedAcknowledged { next: 4 })),
        ("Ping", ControllerMessage::Ping(Ping { number: 5 })),
    ]
}

fn lines<M: Message>(who: &str, messages: &[(&str, M)], out: &mut String) {
    for (name, message) in messages {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        write!(out, "{who} {name}:").expect("as written");
        for byte in bytes {
            write!(out, " {byte:02x}").expect("as written");
        }
        out.push('\n');
    }
}

fn reads_back<M: Message + Debug + PartialEq>(who: &str, messages: Vec<(&str, M)>, golden: &str) {
    for (name, message) in messages {
        let begin = format!("{who} {name}: ");
        let line = golden.lines().find_map(|line| line.strip_prefix(&begin)).unwrap_or_else(|| panic!("no {begin}"));
        let bytes: Vec<u8> = line.split(' ').map(|byte| u8::from_str_radix(byte, 16).expect("as written")).collect();
        let (frame, used) = split_frame(&bytes, MAX_FRAME).expect("as written").expect("whole");
        assert_eq!((used, M::decode(frame).expect("as written")), (bytes.len(), Some(message)), "{begin}");
    }
}

#[test]
fn frames_are_written_as_ever_and_read() {
    let mut written = String::new();
    lines("agent", &agent_says(), &mut written);
    lines("controller", &controller_says(), &mut written);
    if std::env::var_os("XENE_BLESS").is_some() {
        fs::write(GOLDEN, &written).expect("as written");
    }
    let golden = fs::read_to_string(GOLDEN).expect("as written");
    reads_back("agent", agent_says(), &golden);
    reads_back("controller", controller_says(), &golden);
    assert!(golden == written, "frames changed: XENE_BLESS=1 cargo test -p xene-schemas --test frames");
}
