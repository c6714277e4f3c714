//! The store against a model in memory, over random batches and reopening.

use std::{
    collections::{BTreeMap, HashMap},
    sync::mpsc::channel,
};

use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::json;
use xene_schemas::{
    access::Role,
    event::{Event, EventType},
    map::UniqueMap,
    meta::{Epoch, FileHash, Generation, Labels, Name, ObjectMeta, PipelineKey, Revision, RunName, SpecHash},
    notifier::{Notice, Transition},
    phase::{Reason, RunPhase},
    pipeline::Autonomy,
    run::{Run, RunSpec, RunTrigger, TriggerType},
    suspension::Suspension,
    workflow::WorkflowSpec,
};

use super::*;
use crate::decide::rows::{
    AfterRow, AgentRow, ApiTokenRow, Arrived, ControllerRow, Fate, FileRow, JoinTokenRow, LedgerRow, MessageRow,
    NewEvent, NotifierHealth, NotifierRow, OwnerRow, PipelineRow, RunRow, Suspendable, SuspensionRow, WorkflowRow,
};

mod golden;

pub(super) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn key(n: u8) -> PipelineKey {
    // Two workflows of which one's name begins with the other's.
    PipelineKey {
        workflow: name(["a", "a-b"][usize::from(n / 2 % 2)]),
        pipeline: name(["p", "pq"][usize::from(n % 2)]),
    }
}

fn workflow(n: u8, version: u64) -> WorkflowRow {
    let spec = r#"{"triggers": {"t": {"type": "cron", "schedule": "0 3 * * *"}},
                   "pipelines": {"p": {"tasks": {"x": {"steps": ["true"]}}}}}"#;
    WorkflowRow {
        metadata: ObjectMeta {
            name: key(n).workflow,
            description: (version.is_multiple_of(2)).then(|| "even".to_owned()),
            labels: UniqueMap::default(),
            annotations: UniqueMap::default(),
        },
        spec: serde_json::from_str::<WorkflowSpec>(spec).unwrap(),
        revision: Revision(format!("r{version}")),
        path: "a.yaml".to_owned(),
        line: 1,
        generation: Generation(version),
        hash: SpecHash::of(&version.to_le_bytes()),
        valid: true,
        held: None,
        blocked_among: None,
    }
}

fn pipeline(n: u8, version: u64) -> PipelineRow {
    PipelineRow {
        key: key(n),
        spec: workflow(n, version).spec.pipelines[0].clone(),
        spec_hash: SpecHash::of(&version.to_le_bytes()),
        revision: Revision(format!("r{version}")),
        suspend: false,
    }
}

fn owner(version: u64) -> OwnerRow {
    OwnerRow {
        owner: (!version.is_multiple_of(3)).then(|| name("agent")),
        epoch: Epoch(version),
        autonomy: if version.is_multiple_of(2) { Autonomy::Forever } else { Autonomy::DEFAULT },
        longer: None,
        unsure: false,
        holders: vec![],
        edited: None,
        not_before: at(1),
        watermark: Timestamp::MIN,
        void: false,
        clean: true,
        revoking: false,
        spec_hash: SpecHash::of(&version.to_le_bytes()),
        revision: Revision("r".to_owned()),
        message: "least loaded".to_owned(),
        reason: Some(Reason::MOVING),
    }
}

fn agent(n: u8, version: u64) -> AgentRow {
    AgentRow {
        name: name(["one", "two"][usize::from(n % 2)]),
        labels: Labels::from_iter([("os".to_owned(), "linux".to_owned())]),
        labels_fixed: false,
        slots: 4,
        version: version.to_string(),
        draining: false,
        revoked: false,
        authority: "cd".to_owned(),
        last_seen: Some(at(7)),
        certificates: vec!["ab".to_owned()],
        enrolled_at: at(5),
        newest_token: 0,
        tokens: vec![1, u64::MAX],
        lost: false,
        twin: None,
        joined_by: None,
    }
}

pub(super) fn run_name(n: u8) -> RunName {
    RunName::new(at(1_000 + i64::from(n)), u128::from(n))
}

pub(super) fn run_row(n: u8, phase: RunPhase) -> RunRow {
    let PipelineKey { workflow, pipeline } = key(n);
    let spec = RunSpec {
        workflow,
        pipeline,
        trigger: RunTrigger { kind: TriggerType::Manual, name: None, scheduled_time: None, by: Some("me".to_owned()) },
        params: [("x".to_owned(), "1".to_owned())].into_iter().collect(),
        revision: Revision("r".to_owned()),
        spec_hash: SpecHash::of(&u64::from(n % 8).to_le_bytes()),
        rerun_of: None,
    };
    let mut run = Run::new(run_name(n), at(1_000), spec);
    run.status.phase = phase;
    RunRow { facts: 3, payload: Some(vec![0, 255]), ..RunRow::new(run, true) }
}

fn suspendable(n: u8) -> Suspendable {
    match n % 3 {
        0 => Suspendable::Source,
        1 => Suspendable::Workflow(key(n).workflow),
        _ => Suspendable::Pipeline(key(n)),
    }
}

fn notifier(n: u8, version: u64) -> NotifierRow {
    let spec = json!({"on": ["Error"], "slack": {"credential": "c"}});
    let name = ["one", "one-more"][usize::from(n % 2)];
    NotifierRow {
        metadata: serde_json::from_value(json!({"name": name})).unwrap(),
        spec: serde_json::from_value(spec).unwrap(),
        revision: Revision("r".to_owned()),
        path: "notify.yaml".to_owned(),
        line: 1,
        generation: Generation(version),
        hash: SpecHash::of(&[n]),
        valid: true,
    }
}

fn changes() -> impl Strategy<Value = Change> {
    let phases = prop::sample::select(RunPhase::ALL);
    (0..29u8, 0..12u8, 1..9u64, phases).prop_map(|(kind, n, version, phase)| match kind {
        0 => Change::PutWorkflow(Box::new(workflow(n, version))),
        1 => Change::DeleteWorkflow(key(n).workflow),
        2 => Change::PutPipeline(Box::new(pipeline(n, version))),
        3 => Change::DeletePipeline(key(n)),
        4 => Change::PutSpec(SpecHash::of(&version.to_le_bytes()), vec![n; 100].into()),
        5 => Change::PutOwner(key(n), owner(version)),
        6 => Change::PutAgent(Box::new(agent(n, version))),
        7 => Change::DeleteAgent(agent(n, 0).name),
        8..=10 => Change::PutRun(Box::new(run_row(n, phase))),
        11 => Change::DeleteRun(run_name(n)),
        12 => Change::AddEvent(NewEvent {
            at: at(9),
            kind: EventType::Warning,
            reason: "Because".to_owned(),
            message: version.to_string(),
            regarding: "source".to_owned(),
        }),
        13 => Change::PutFile("x".repeat(usize::from(n) * 50), None),
        14 => Change::PutFile(
            "x".repeat(usize::from(n) * 50),
            Some(Box::new(FileRow {
                content: version.to_string(),
                workflows: vec![],
                notifiers: vec![],
                refused: vec![],
                ignored: 1,
                problems: vec![],
                travelling: vec![],
            })),
        ),
        15 => Change::PutJoinToken(JoinTokenRow {
            id: n.to_string(),
            secret_hash: "00".to_owned(),
            created_at: None,
            created_by: None,
            expires_at: at(4),
            uses_left: 1,
            labels: None,
            name: None,
        }),
        16 => Change::DeleteJoinToken(n.to_string()),
        17 => Change::PutLedger(LedgerRow {
            pipeline: key(n),
            trigger: name("t"),
            slot: at(i64::try_from(version % 3).unwrap()),
            reason: [Some(Reason::TOO_LATE), Some(Reason::MOVING), None][usize::from(n % 3)].clone(),
            run: (n % 3 == 2).then(|| run_name(n)),
            until: None,
            count: None,
            agent: None,
        }),
        18 => Change::PutAfter(
            key(n),
            version.is_multiple_of(2).then(|| AfterRow {
                arrived: vec![Arrived {
                    pipeline: name("p"),
                    run: run_name(n),
                    finished_at: at(4),
                    params: [("x".to_owned(), version.to_string())].into_iter().collect(),
                }],
            }),
        ),
        19 => Change::PutSuspension(SuspensionRow {
            what: suspendable(n),
            suspension: Suspension { by: "me".to_owned(), since: at(1), why: None, until: Some(at(2)) },
        }),
        20 => Change::DeleteSuspension(suspendable(n)),
        21 => Change::PutApiToken(ApiTokenRow {
            id: n.to_string(),
            name: name("t"),
            secret_hash: "00".to_owned(),
            role: Role::Operator,
            scope: Some([name("w")].into()),
            created_at: at(1),
            created_by: "me".to_owned(),
            expires_at: version.is_multiple_of(2).then(|| at(4)),
        }),
        22 => Change::DeleteApiToken(n.to_string()),
        23 => Change::PutNotifier(Box::new(notifier(n, version))),
        24 => Change::DeleteNotifier(notifier(n, 0).metadata.name),
        25 => Change::PutMessage(Box::new(MessageRow {
            notifier: notifier(n, 0).metadata.name,
            number: version,
            notice: Notice::new(Transition::Error, "source".into(), version.to_string(), at(6)),
        })),
        26 if n < 6 => Change::DeleteMessage(notifier(n, 0).metadata.name, version, Fate::Delivered),
        26 => Change::PutNotifierHealth(
            notifier(n, 0).metadata.name,
            NotifierHealth { delivered: version, ..NotifierHealth::default() },
        ),
        27 => Change::PutForgotten([(agent(n, 0).name, at(4))].into()),
        _ if n.is_multiple_of(2) => Change::PutDelivery(key(n), version.to_string(), run_name(n)),
        _ => Change::PutController(ControllerRow {
            restored: false,
            store_id: "id".to_owned(),
            generation: 1,
            incarnation: version,
            wall_high: at(3),
            recovering: false,
            recovered_at: Some(at(9)),
            readmits: false,
            longest: None,
            pause: None,
            clock: None,
        }),
    })
}

#[derive(Default)]
struct Model {
    controller: Option<ControllerRow>,
    workflows: BTreeMap<Name, WorkflowRow>,
    pipelines: BTreeMap<PipelineKey, PipelineRow>,
    specs: BTreeMap<SpecHash, Vec<u8>>,
    owners: BTreeMap<PipelineKey, OwnerRow>,
    agents: BTreeMap<Name, AgentRow>,
    forgotten: BTreeMap<Name, Timestamp>,
    runs: BTreeMap<RunName, RunRow>,
    events: Vec<Event>,
    files: BTreeMap<String, FileRow>,
    tokens: BTreeMap<String, JoinTokenRow>,
    api_tokens: BTreeMap<String, ApiTokenRow>,
    ledger: BTreeMap<(PipelineKey, Timestamp), LedgerRow>,
    deliveries: HashMap<(PipelineKey, String), RunName>,
    after: BTreeMap<PipelineKey, AfterRow>,
    suspensions: BTreeMap<String, SuspensionRow>,
    notifiers: BTreeMap<Name, NotifierRow>,
    messages: BTreeMap<(String, u64), MessageRow>,
    health: BTreeMap<Name, NotifierHealth>,
}

impl Model {
    fn apply(&mut self, change: Change) {
        match change {
            Change::PutWorkflow(row) => drop(self.workflows.insert(row.metadata.name.clone(), *row)),
            Change::DeleteWorkflow(name) => drop(self.workflows.remove(&name)),
            Change::PutPipeline(row) => drop(self.pipelines.insert(row.key.clone(), *row)),
            Change::DeletePipeline(key) => drop(self.pipelines.remove(&key)),
            Change::PutSpec(hash, bytes) => drop(self.specs.insert(hash, bytes.to_vec())),
            Change::PutOwner(key, row) => drop(self.owners.insert(key, row)),
            Change::PutAgent(row) => drop(self.agents.insert(row.name.clone(), *row)),
            Change::DeleteAgent(name) => drop(self.agents.remove(&name)),
            Change::PutForgotten(agents) => self.forgotten = agents,
            Change::PutRun(row) => drop(self.runs.insert(row.run.metadata.name, *row)),
            Change::DeleteRun(name) => drop(self.runs.remove(&name)),
            Change::AddEvent(NewEvent { at, kind, reason, message, regarding }) => {
                let id = self.events.len() as u64 + 1;
                self.events.push(Event { id, at, kind, reason, message, regarding });
            }
            Change::PutSource(_) => {}
            Change::PutFile(path, Some(row)) => drop(self.files.insert(path, *row)),
            Change::PutFile(path, None) => drop(self.files.remove(&path)),
            Change::PutJoinToken(row) => drop(self.tokens.insert(row.id.clone(), row)),
            Change::DeleteJoinToken(id) => drop(self.tokens.remove(&id)),
            Change::PutApiToken(row) => drop(self.api_tokens.insert(row.id.clone(), row)),
            Change::DeleteApiToken(id) => drop(self.api_tokens.remove(&id)),
            Change::PutLedger(row) => {
                let key = (row.pipeline.clone(), row.slot);
                if self.ledger.get(&key).is_none_or(|known| !row.yields_to(known)) {
                    self.ledger.insert(key, row);
                }
            }
            Change::PutDelivery(key, id, run) => drop(self.deliveries.insert((key, id), run)),
            Change::PutAfter(key, Some(row)) => drop(self.after.insert(key, row)),
            Change::PutAfter(key, None) => drop(self.after.remove(&key)),
            Change::PutSuspension(row) => drop(self.suspensions.insert(row.what.to_string(), row)),
            Change::Redigest => {}
            Change::DeleteSuspension(what) => drop(self.suspensions.remove(&what.to_string())),
            Change::PutController(row) => self.controller = Some(row),
            Change::PutNotifier(row) => drop(self.notifiers.insert(row.metadata.name.clone(), *row)),
            Change::DeleteNotifier(name) => {
                self.notifiers.remove(&name);
                self.health.remove(&name);
            }
            Change::PutMessage(row) => drop(self.messages.insert((format!("{}/", row.notifier), row.number), *row)),
            Change::DeleteMessage(name, number, _) => drop(self.messages.remove(&(format!("{name}/"), number))),
            Change::PutNotifierHealth(name, row) => drop(self.health.insert(name, row)),
        }
    }

    fn assert_equals(&self, store: &Store) {
        let mut loaded = store.load().unwrap();
        loaded.files.sort_by(|a, b| a.0.cmp(&b.0));
        let mut tokens: Vec<_> = self.tokens.values().cloned().collect();
        tokens.sort_by(|a, b| format!("{}\0", a.id).cmp(&format!("{}\0", b.id)));
        assert_eq!(loaded.controller, self.controller);
        assert_eq!(loaded.workflows, self.workflows.values().cloned().collect::<Vec<_>>());
        assert_eq!(loaded.pipelines, self.pipelines.values().cloned().collect::<Vec<_>>());
        assert_eq!(loaded.owners, self.owners.clone().into_iter().collect::<Vec<_>>());
        assert_eq!(loaded.forgotten, self.forgotten);
        assert_eq!(loaded.agents, self.agents.values().cloned().collect::<Vec<_>>());
        assert_eq!(loaded.files, self.files.clone().into_iter().collect::<Vec<_>>());
        assert_eq!(loaded.join_tokens, tokens);
        assert_eq!(store.join_tokens().unwrap(), tokens);
        let mut kept = loaded.api_tokens;
        kept.sort_by(|a, b| a.id.cmp(&b.id));
        assert_eq!(kept, self.api_tokens.values().cloned().collect::<Vec<_>>());
        for (id, row) in &self.api_tokens {
            assert_eq!(store.api_token(id).unwrap().as_ref(), Some(row));
        }
        assert_eq!(loaded.notifiers, self.notifiers.values().cloned().collect::<Vec<_>>());
        assert_eq!(loaded.messages, self.messages.values().cloned().collect::<Vec<_>>());
        assert_eq!(loaded.notifier_health, self.health.clone().into_iter().collect::<Vec<_>>());
        assert_eq!(loaded.after, self.after.clone().into_iter().collect::<Vec<_>>());
        assert_eq!(loaded.suspensions, self.suspensions.values().cloned().collect::<Vec<_>>());
        assert_eq!(store.suspensions().unwrap(), loaded.suspensions);
        let active: Vec<_> = self.runs.values().filter(|row| !row.run.status.phase.is_final()).cloned().collect();
        assert_eq!(loaded.active_runs, active);
        for n in 0..4 {
            let key = key(n);
            let newest = self.runs.values().rev().find(|row| row.run.spec.key() == key).cloned();
            assert_eq!(store.last_run(&key).unwrap(), newest);
            let slots: Vec<_> =
                self.ledger.iter().rev().filter(|((k, _), _)| *k == key).map(|(_, row)| row.clone()).collect();
            assert_eq!(store.ledger(&key, None, 100).unwrap(), slots);
            let of_workflow: Vec<_> =
                self.pipelines.values().filter(|row| row.key.workflow == key.workflow).cloned().collect();
            assert_eq!(store.pipelines(Some(&key.workflow), None, 100, |_| true).unwrap(), of_workflow);
        }
        for (hash, bytes) in &self.specs {
            assert_eq!(store.spec(hash).unwrap().as_ref(), Some(bytes));
        }
        for workflow in ["a", "a-b", "c"].map(name) {
            let runs = self.runs.iter().rev().filter(|(_, row)| row.run.spec.workflow == workflow);
            let marks: Vec<_> = runs.map(|(name, row)| (*name, row.mark())).collect();
            assert_eq!(store.marks(&workflow).unwrap(), marks);
        }
        for ((key, id), run) in &self.deliveries {
            assert_eq!(store.delivery(key, id).unwrap(), Some(*run));
        }
        let events: Vec<_> = self.events.iter().rev().cloned().collect();
        assert_eq!(store.events(None, 1_000, |_| true).unwrap(), events);
    }

    fn assert_lists(&self, store: &Store, filter: &RunFilter, size: usize) {
        let expected: Vec<_> = self
            .runs
            .values()
            .rev()
            .filter(|row| {
                let (spec, phase) = (&row.run.spec, row.run.status.phase);
                filter.workflow.as_ref().is_none_or(|workflow| *workflow == spec.workflow)
                    && filter.pipeline.as_ref().is_none_or(|pipeline| *pipeline == spec.pipeline)
                    && filter.phase.is_none_or(|wanted| wanted == phase)
                    && !(filter.active && phase.is_final())
                    && filter.since.is_none_or(|since| row.run.metadata.name.at() >= since)
            })
            .cloned()
            .collect();
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = store.runs(filter, after, size).unwrap();
            assert!(page.len() <= size);
            let Some(last) = page.last() else { break };
            after = Some(last.run.metadata.name);
            found.extend(page);
        }
        assert_eq!(found, expected, "{filter:?}, {size} at once");
    }
}

fn filters() -> impl Strategy<Value = RunFilter> {
    let workflows = prop::option::of(prop::sample::select(vec!["a", "a-b", "c"]));
    let pipelines = prop::option::of(prop::sample::select(vec!["p", "pq"]));
    let phases = prop::option::weighted(0.3, prop::sample::select(RunPhase::ALL));
    (workflows, pipelines, phases, any::<bool>(), prop::option::of(998..1_012i64)).prop_map(
        |(workflow, pipeline, phase, active, since)| RunFilter {
            workflow: workflow.map(name),
            pipeline: pipeline.map(name),
            agent: None,
            phase,
            active,
            since: since.map(at),
            within: None,
            among: None,
        },
    )
}

pub(super) fn commit(store: &Store, batch: Batch) {
    let (done, wait) = channel();
    store.commit(batch, move |result| done.send(result).unwrap());
    wait.recv().unwrap().unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn store_is_its_model_over_batches_and_reopening(
        batches in prop::collection::vec((prop::collection::vec(changes(), 0..30), prop::bool::weighted(0.2)), 1..6),
        filters in prop::collection::vec((filters(), 1..5usize), 8),
    ) {
        let temp = tempfile::tempdir().unwrap();
        let (mut store, mut model) = (Store::open(temp.path()).unwrap(), Model::default());
        for (i, (batch, reopen)) in batches.into_iter().enumerate() {
            commit(&store, batch.clone());
            batch.into_iter().for_each(|change| model.apply(change));
            if reopen {
                drop(store);
                store = Store::open(temp.path()).unwrap();
            }
            prop_assert_eq!(store.revision().unwrap(), i as u64 + 1);
            prop_assert!(!store.has_drifted().unwrap());
            model.assert_equals(&store);
        }
        for (filter, size) in filters {
            model.assert_lists(&store, &filter, size);
        }
    }
}

#[test]
fn watchers_get_what_was_committed_and_the_numbers_of_its_events() {
    let temp = tempfile::tempdir().unwrap();
    let store = Store::open(temp.path()).unwrap();
    let event = || {
        let (kind, text) = (EventType::Normal, String::new);
        Change::AddEvent(NewEvent { at: at(1), kind, reason: text(), message: text(), regarding: text() })
    };
    commit(&store, vec![event(), event()]);
    let mut watch = store.committed().subscribe();
    commit(&store, vec![Change::DeleteRun(run_name(1)), event()]);
    let seen = watch.try_recv().unwrap();
    assert_eq!((seen.revision, seen.first_event, seen.changes.len()), (2, 3, 2));
}

#[test]
fn rows_that_somebody_else_changed_are_noticed() {
    let temp = tempfile::tempdir().unwrap();
    let store = Store::open(temp.path()).unwrap();
    assert!(!store.has_drifted().unwrap(), "of an empty store");
    let row = workflow(0, 1);
    let spec: Arc<[u8]> = vec![1].into();
    let of_spec = PipelineRow { spec_hash: SpecHash::of(&spec), ..pipeline(0, 1) };
    let changes = vec![
        Change::PutWorkflow(Box::new(row.clone())),
        Change::PutSpec(of_spec.spec_hash, spec),
        Change::PutPipeline(Box::new(of_spec.clone())),
        Change::PutPipeline(Box::new(pipeline(1, 1))),
    ];
    commit(&store, changes);
    assert!(!store.has_drifted().unwrap());
    let expected = Found {
        workflows: BTreeMap::from([(row.metadata.name.clone(), row.clone())]),
        pipelines: BTreeMap::from([(key(0), Some(of_spec.clone())), (key(1), None)]),
        notifiers: BTreeMap::new(),
    };
    assert_eq!(store.found().unwrap(), expected, "the second has no spec");

    let other = WorkflowRow { path: "b.yaml".into(), ..row.clone() };
    let behind = |change: &dyn Fn(&Tables, &mut RwTxn<'_>)| {
        store.env.write(|_, txn| {
            change(&store.tables, txn);
            Ok::<_, StoreError>(())
        })
    };
    behind(&|tables, txn| tables.workflows.put(txn, &row.metadata.name, &other).unwrap()).unwrap();
    assert!(store.has_drifted().unwrap());
    behind(&|tables, txn| tables.workflows.put(txn, &row.metadata.name, &row).unwrap()).unwrap();
    assert!(!store.has_drifted().unwrap());
    behind(&|tables, txn| tables.workflows.put(txn, &row.metadata.name, &other).unwrap()).unwrap();
    commit(&store, vec![Change::PutWorkflow(Box::new(row))]);
    assert!(store.has_drifted().unwrap(), "a row alone does not tell what it was");
    commit(&store, vec![Change::Redigest]);
    assert!(!store.has_drifted().unwrap());
    behind(&|tables, txn| assert!(tables.specs.delete(txn, &of_spec.spec_hash).unwrap())).unwrap();
    assert!(store.has_drifted().unwrap());
    assert_eq!(store.found().unwrap().pipelines[&key(0)], None);
    behind(&|tables, txn| tables.pipelines.remap_data_type::<heed::types::Bytes>().put(txn, &key(1), b"?").unwrap())
        .unwrap();
    assert_eq!(store.found().unwrap().pipelines[&key(1)], None, "what can't be read is not there");
}

#[test]
fn sweep_drops_what_nobody_refers_to() {
    let temp = tempfile::tempdir().unwrap();
    let store = Store::open(temp.path()).unwrap();
    let spec = |version: u64| Change::PutSpec(SpecHash::of(&version.to_le_bytes()), vec![1].into());
    let run = run_row(3, RunPhase::Success);
    let pinned = [1, 2, 3].map(|version: u64| SpecHash::of(&version.to_le_bytes()));
    commit(
        &store,
        vec![
            spec(1),
            spec(2),
            spec(3),
            spec(4),
            Change::PutPipeline(Box::new(pipeline(0, 1))),
            Change::PutOwner(key(0), owner(2)),
            Change::PutRun(Box::new(run)),
            Change::PutDelivery(key(0), "old".to_owned(), run_name(0)),
            Change::PutDelivery(key(0), "new".to_owned(), run_name(9)),
        ],
    );
    let (done, wait) = channel();
    store.sweep(at(1_005), at(1_005), move |result| done.send(result.unwrap()).unwrap()).unwrap();
    assert_eq!(wait.recv().unwrap(), Swept { specs: 1, deliveries: 1, ledger: 0 });
    assert!(pinned.iter().all(|hash| store.spec(hash).unwrap().is_some()));
    assert_eq!(store.spec(&SpecHash::of(&4u64.to_le_bytes())).unwrap(), None);
    assert_eq!(store.delivery(&key(0), "old").unwrap(), None);
    assert_eq!(store.delivery(&key(0), "new").unwrap(), Some(run_name(9)));
}

#[test]
fn files_of_specs_runs_and_workflow_files_are_in_use() {
    let temp = tempfile::tempdir().unwrap();
    let store = Store::open(temp.path()).unwrap();
    let file = |n: u8| FileHash::of(&[n]);
    let spec = json!({"key": "a/p", "suspend": false, "env": {}, "params": {}, "triggers": {},
        "spec": {"tasks": {"x": {"steps": ["true"]}}},
        "files": [{"path": "x", "hash": file(1).to_string(), "size": 1}]});
    let bytes = serde_json::to_vec(&spec).unwrap();
    let mut run = run_row(0, RunPhase::Success);
    let task =
        json!({"phase": "Success", "steps": [], "artifacts": [{"path": "y", "size": 1, "hash": file(2).to_string()}]});
    run.run.status.tasks.insert("t".into(), serde_json::from_value(task).unwrap());
    let row = FileRow {
        content: "x".into(),
        workflows: vec![],
        notifiers: vec![],
        refused: vec![],
        ignored: 0,
        problems: vec![],
        travelling: vec![file(3)],
    };
    commit(
        &store,
        vec![
            Change::PutSpec(SpecHash::of(&bytes), bytes.into()),
            Change::PutRun(Box::new(run)),
            Change::PutFile("a.yaml".into(), Some(Box::new(row))),
        ],
    );
    assert_eq!(store.files_in_use().unwrap(), [1, 2, 3].map(file).into());
    commit(&store, vec![Change::DeleteRun(run_name(0)), Change::PutFile("a.yaml".into(), None)]);
    assert_eq!(store.files_in_use().unwrap(), [file(1)].into());
}

#[test]
fn due_times_are_kept_as_long_as_the_history_of_their_pipeline() {
    let temp = tempfile::tempdir().unwrap();
    let store = Store::open(temp.path()).unwrap();
    let due = |slot: i64| LedgerRow {
        pipeline: key(0),
        trigger: name("t"),
        slot: at(slot),
        reason: Some(Reason::COALESCED),
        run: None,
        until: None,
        count: None,
        agent: None,
    };
    let mut row = pipeline(0, 1);
    let history = xene_schemas::duration::Duration::from_secs(1_000);
    row.spec.history = Some(xene_schemas::pipeline::History { runs: 2, max_age: history, keep_successes: 1 });
    let mut batch: Vec<_> = (0..30).map(|n| Change::PutLedger(due(10_000 + n))).collect();
    batch.extend([Change::PutPipeline(Box::new(row)), Change::PutLedger(due(8_000))]);
    batch.push(Change::PutLedger(LedgerRow { until: Some(at(9_500)), ..due(8_500) }));
    // Whoever knows less is passed over.
    let run = Some(run_name(1));
    batch.push(Change::PutLedger(LedgerRow { run, reason: None, ..due(10_029) }));
    batch.push(Change::PutLedger(LedgerRow { reason: Some(Reason::UNKNOWN), ..due(10_029) }));
    commit(&store, batch);
    let trigger = name("t");
    let slots = |below: Option<(Timestamp, Option<&Name>)>| {
        let rows = store.ledger(&key(0), below, 100).unwrap();
        rows.iter().map(|row| row.slot.as_second()).collect::<Vec<_>>()
    };
    assert_eq!(store.ledger(&key(0), None, 1).unwrap()[0].run, run);
    assert_eq!(slots(Some((at(10_002), None))), [10_001, 10_000, 8_500, 8_000]);
    assert_eq!(slots(Some((at(10_001), Some(&trigger)))), [10_000, 8_500, 8_000]);
    let (done, wait) = channel();
    store.sweep(at(0), at(10_100), move |result| done.send(result.unwrap()).unwrap()).unwrap();
    assert_eq!(wait.recv().unwrap().ledger, 12, "all beyond ten for each of two runs");
    assert_eq!(slots(None), (10_010..10_030).rev().collect::<Vec<_>>());
    assert!(store.ledger(&key(1), None, 100).unwrap().is_empty());
}

#[test]
fn loading_does_not_keep_the_map_in_memory() {
    let temp = tempfile::tempdir().unwrap();
    let store = Store::open(temp.path()).unwrap();
    let file = |n: u32| {
        let row = FileRow {
            content: "x".repeat(2_000),
            workflows: vec![],
            notifiers: vec![],
            refused: vec![],
            ignored: 0,
            problems: vec![],
            travelling: vec![],
        };
        Change::PutFile(n.to_string(), Some(Box::new(row)))
    };
    commit(&store, (0..1_000).map(file).collect());
    let resident = || {
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let path = temp.path().canonicalize().unwrap().join("store/data.mdb");
        let mut lines = maps.lines().skip_while(|line| !line.ends_with(path.to_str().unwrap()));
        let line = lines.find_map(|line| line.strip_prefix("Rss:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().trim().parse::<u64>().unwrap()
    };
    store
        .env
        .read(|txn| {
            Ok::<_, StoreError>(values(store.tables.files.remap_key_type::<heed::types::DecodeIgnore>().iter(txn)?)?)
        })
        .unwrap();
    assert!(resident() > 2_000, "{} kB", resident());
    assert_eq!(store.load().unwrap().files.len(), 1_000);
    assert!(resident() < 200, "{} kB", resident());
}

#[test]
fn the_store_is_for_this_account_alone() {
    use std::{fs, os::unix::fs::PermissionsExt as _};
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("store");
    fs::create_dir(&dir).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
    let _store = Store::open(temp.path()).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode(&dir), mode(&dir.join("data.mdb"))), (0o700, 0o600));
}

#[test]
fn a_full_disk_is_told_from_a_broken_one() {
    use std::io;

    use rustix::io::Errno;

    let temp = tempfile::tempdir().unwrap();
    let of = |errno: Errno| io::Error::from_raw_os_error(errno.raw_os_error());
    let read = |errno| StoreError::from(heed::Error::Io(of(errno)));
    let backup = |errno| StoreError::Backup { path: temp.path().to_owned(), source: of(errno) };
    // What was begun was removed: there is room again by the time that somebody looks.
    assert!(read(Errno::NOSPC).lacks_room(temp.path()) && backup(Errno::NOSPC).lacks_room(temp.path()));
    assert!(backup(Errno::DQUOT).lacks_room(temp.path()));
    assert!(!read(Errno::IO).lacks_room(temp.path()), "the disk has room, and is broken");
    assert!(!backup(Errno::ACCESS).lacks_room(temp.path()));
    let Some(disk) = xene_test_support::disk::SmallDisk::mount(&temp.path().join("disk"), "4m") else { return };
    disk.fill();
    let full = temp.path().join("disk");
    assert!(read(Errno::IO).lacks_room(&full), "LMDB makes EIO of a write that is cut short");
    let damaged = StoreError::from(heed::Error::Mdb(heed::MdbError::Corrupted));
    assert!(!damaged.lacks_room(&full) && !backup(Errno::ACCESS).lacks_room(&full), "whatever the disk");
}
