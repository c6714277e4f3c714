//! What a plan foretells, against what applying it does.

use std::sync::Arc;

use expect_test::expect;
use proptest::prelude::*;
use xene_agent::decide::time::{BootTime, Now};
use xene_schemas::{meta::Revision, source::SourceKind};

use super::*;
use crate::decide::{
    Config, Controller,
    desired::{DesiredWorkflow, SourceOrigin, WorkflowBody},
    event::{Authority, Effects, Event},
    plan::tests::any_desired,
    rows::{Change, Loaded},
};

fn side(what: &str) -> PlanSide {
    PlanSide { what: what.into(), revision: None, author: None, subject: None }
}

fn now() -> Timestamp {
    "2026-11-26T00:00:30Z".parse().unwrap()
}

fn report(before: &InEffect, desired: &Desired) -> PlanReport {
    preview(before, desired, side("a"), side("b"), now())
}

fn controller() -> Controller {
    let config = Config {
        pause_margin: std::time::Duration::from_secs(60),
        min_autonomy: std::time::Duration::from_secs(30),
        nonce: 1,
        secret: [0; 32],
        software: String::new(),
        store_id: "store".into(),
        boot_id: "boot".into(),
        source: SourceOrigin { kind: SourceKind::Git, url: String::new(), branch: None, path: None },
        authority: Authority::default(),
        recover: false,
        #[cfg(feature = "mutants")]
        mutant: None,
    };
    let now = Now { boot: BootTime::from_nanos(1), wall: now() };
    Controller::new(now, config, Loaded::default()).0
}

/// Rows as a store keeps them.
#[derive(Default)]
struct Rows {
    workflows: BTreeMap<Name, WorkflowRow>,
    pipelines: BTreeMap<PipelineKey, PipelineRow>,
}

impl Rows {
    /// Keeps what was committed; the events of the plan.
    fn keep(&mut self, fx: Effects) -> Vec<(String, String)> {
        let mut events = Vec::new();
        for change in fx.commit {
            match change {
                Change::PutWorkflow(row) => drop(self.workflows.insert(row.metadata.name.clone(), *row)),
                Change::DeleteWorkflow(name) => drop(self.workflows.remove(&name)),
                Change::PutPipeline(row) => drop(self.pipelines.insert(row.key.clone(), *row)),
                Change::DeletePipeline(key) => drop(self.pipelines.remove(&key)),
                Change::AddEvent(event) if event.regarding.contains('/') => {
                    events.push((event.reason, event.regarding))
                }
                _ => {}
            }
        }
        events
    }

    fn in_effect(&self) -> InEffect {
        let pipelines: Vec<PipelineRow> = self.pipelines.values().cloned().collect();
        InEffect::of_rows(self.workflows.values().cloned().collect(), &pipelines, Vec::new())
    }
}

proptest! {
    #[test]
    fn a_plan_is_the_events_of_its_commit_and_then_there_is_none(
        histories in prop::collection::vec(any_desired(), 1..5)
    ) {
        let (mut controller, mut rows) = (controller(), Rows::default());
        for (at, mut desired) in histories.into_iter().enumerate() {
            desired.revision = Revision(format!("r{at}"));
            let planned = report(&rows.in_effect(), &desired);
            prop_assert_eq!(&planned, &report(&rows.in_effect(), &desired));
            let now = Now { boot: BootTime::from_nanos(2 + at as u64), wall: now() };
            let events = rows.keep(controller.handle(now, Event::Compiled(Box::new(desired.clone()))));
            let actions: Vec<(String, String)> = (planned.changes.iter())
                .map(|change| (change.reason.clone(), format!("{}/{}", change.kind.to_ascii_lowercase(), change.name)))
                .collect();
            prop_assert_eq!(actions, events);
            let again = report(&rows.in_effect(), &desired);
            prop_assert!(again.changes.is_empty(), "{:?}", again.changes);
            prop_assert_eq!(again.held.len(), planned.held.len());
        }
    }

    #[test]
    fn what_took_effect_where_nothing_was_is_what_is_desired(desired in any_desired()) {
        let in_effect = InEffect::of_desired(&desired);
        prop_assert!(report(&in_effect, &desired).changes.is_empty());
    }
}

/// One workflow, as its file says it.
fn desired(spec: &str) -> Desired {
    let spec: WorkflowSpec = serde_yaml::from_str(spec).unwrap();
    let metadata: ObjectMeta = serde_yaml::from_str("{name: site}").unwrap();
    let name = metadata.name.clone();
    let compile = |(pipeline, committed): (&Name, &xene_schemas::pipeline::PipelineSpec)| {
        let compiled = xene_schemas::pipeline::CompiledPipeline {
            key: PipelineKey { workflow: name.clone(), pipeline: pipeline.clone() },
            suspend: spec.suspend,
            env: spec.env.clone(),
            params: Default::default(),
            triggers: spec.triggers.clone(),
            files: Vec::new(),
            spec: committed.clone(),
        };
        (pipeline.clone(), compiled)
    };
    let pipelines = spec.pipelines.iter().map(compile).collect();
    let hash = xene_schemas::meta::SpecHash::of(&serde_json::to_vec(&spec).unwrap());
    let body = Some(Arc::new(WorkflowBody { metadata, spec, pipelines }));
    let wanted = DesiredWorkflow { hash, path: "site.yaml".into(), line: 1, valid: true, body };
    Desired {
        revision: Revision("r1".into()),
        base: None,
        author: None,
        subject: None,
        folder: String::new(),
        workflows: [("site".parse().unwrap(), wanted)].into(),
        notifiers: BTreeMap::new(),
        complete: true,
        files: BTreeMap::new(),
        problems: Vec::new(),
        ignored: 0,
    }
}

#[test]
fn fields_and_due_times_are_told_before_and_after() {
    let text = "{triggers: {nightly: {type: cron, schedule: '0 3 * * *'}}, pipelines: {build: {triggers: nightly, \
                tasks: {t: {steps: [make]}}}}}";
    let before = InEffect::of_desired(&desired(text));
    let after = desired(&text.replace("0 3", "0 4").replace("[make]", "[./configure, make]"));
    let report = report(&before, &after);
    let mut told = Vec::new();
    for change in &report.changes {
        told.push(format!("{:?} {} {}\n", change.action, change.kind, change.name));
        for field in &change.fields {
            told.push(format!(
                "  {} {:?} {:?}\n",
                field.path,
                field.old.as_ref().map(ToString::to_string),
                field.new.as_ref().map(ToString::to_string)
            ));
        }
        if let Some(fires) = &change.fires {
            let times = |due: &[DueTime]| due.iter().map(|due| format!("{:.0}", due.at)).collect::<Vec<_>>().join(" ");
            told.push(format!("  {} → {}\n", times(&fires.before), times(&fires.after)));
        }
    }
    expect![[r#"
        Update Workflow site
          spec.triggers.nightly.schedule Some("\"0 3 * * *\"") Some("\"0 4 * * *\"")
          spec.pipelines.build.tasks.t.steps[0] None Some("{\"run\":\"./configure\"}")
        Update Pipeline site/build
          2026-11-26T03:00:00Z 2026-11-27T03:00:00Z 2026-11-28T03:00:00Z → 2026-11-26T04:00:00Z 2026-11-27T04:00:00Z 2026-11-28T04:00:00Z
    "#]]
    .assert_eq(&told.concat());
    assert_eq!(to_place(&report, &after).0.len(), 1);
}

#[test]
fn each_trigger_of_a_pipeline_has_its_own_due_times() {
    let text = "{triggers: {often: {type: cron, schedule: '* * * * *'}, nightly: {type: cron, schedule: '0 3 * * *'}}, \
                pipelines: {build: {triggers: [often, nightly], tasks: {t: {steps: [make]}}}}}";
    let report = report(&InEffect::of_desired(&desired(text)), &desired(&text.replace("0 3", "0 4")));
    let fires = report.changes.iter().find_map(|change| change.fires.as_ref()).unwrap();
    assert_eq!((fires.before.len(), fires.after.len()), (6, 6));
    let changed = fires.of_each_trigger();
    let names: Vec<_> = changed.iter().map(|fires| fires.after[0].trigger.as_str()).collect();
    assert_eq!(names, ["nightly"], "though the other fires first");
    assert_eq!(changed[0].before.len(), 3);
}

#[test]
fn files_that_travel_are_told_by_their_paths() {
    let with = |files: &[(&str, &str, bool)]| {
        let mut desired = desired("{files: ['scripts/**'], pipelines: {build: {tasks: {t: {steps: [make]}}}}}");
        let wanted = desired.workflows.values_mut().next().unwrap();
        wanted.hash = xene_schemas::meta::SpecHash::of(format!("{files:?}").as_bytes());
        let body = Arc::make_mut(wanted.body.as_mut().unwrap());
        for pipeline in body.pipelines.values_mut() {
            let file = |(path, text, executable): &(&str, &str, bool)| PipelineFile {
                path: (*path).into(),
                hash: xene_schemas::meta::FileHash::of(text.as_bytes()),
                size: text.len() as u64,
                executable: *executable,
            };
            pipeline.files = files.iter().map(file).collect();
        }
        desired
    };
    let before = InEffect::of_desired(&with(&[("a.sh", "1", true), ("b.sh", "1", true), ("gone", "1", false)]));
    let after = with(&[("a.sh", "2", true), ("b.sh", "1", false), ("new", "1", false)]);
    let report = report(&before, &after);
    let fields = report.changes.iter().flat_map(|change| &change.fields);
    let told: Vec<String> = fields
        .map(|field| {
            let value = |value: &Option<serde_json::Value>| match value.as_ref().and_then(|value| value.as_str()) {
                Some(text) => text.split_once(' ').map_or("id", |(_, rest)| rest).to_owned(),
                None => "-".to_owned(),
            };
            format!("{}: {} → {}", field.path, value(&field.old), value(&field.new))
        })
        .collect();
    assert_eq!(
        told,
        [
            "files[\"a.sh\"]: id → id",
            "files[\"b.sh\"]: (executable) → (not executable)",
            "files[\"gone\"]: id → -",
            "files[\"new\"]: - → id"
        ]
    );
}
