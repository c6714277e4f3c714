use std::{collections::BTreeMap, sync::Arc};

use expect_test::{Expect, expect};
use proptest::prelude::*;
use xene_schemas::{
    meta::{ObjectMeta, Revision, SpecHash},
    pipeline::CompiledPipeline,
    workflow::WorkflowSpec,
};

use super::*;
use crate::decide::{desired::DesiredWorkflow, rows::NotifierRow};

/// A workflow with pipelines that echo a word each.
fn body(name: &str, pipelines: &[(&str, &str)], keep: bool) -> WorkflowBody {
    let annotations = if keep { "{xene/prune: disabled}" } else { "{}" };
    let metadata: ObjectMeta = serde_yaml::from_str(&format!("{{name: {name}, annotations: {annotations}}}")).unwrap();
    let text = pipelines.iter().map(|(name, word)| format!("{name}: {{tasks: {{t: {{steps: [echo {word}]}}}}}}"));
    let text = format!("{{pipelines: {{{}}}}}", text.collect::<Vec<_>>().join(", "));
    let spec: WorkflowSpec = serde_yaml::from_str(&text).unwrap();
    let compile = |(pipeline, spec): (&Name, &_)| {
        let compiled = CompiledPipeline {
            key: key(&metadata.name, pipeline),
            suspend: false,
            env: Default::default(),
            params: Default::default(),
            triggers: Default::default(),
            spec: Clone::clone(spec),
            files: vec![],
        };
        (pipeline.clone(), compiled)
    };
    let pipelines = spec.pipelines.iter().map(compile).collect();
    WorkflowBody { metadata, spec, pipelines }
}

fn want(body: WorkflowBody) -> (Name, DesiredWorkflow) {
    let hash = SpecHash::of(&serde_json::to_vec(&(&body.metadata, &body.spec)).unwrap());
    let name = body.metadata.name.clone();
    let path = format!("{name}.yaml");
    (name, DesiredWorkflow { hash, path, line: 1, valid: true, body: Some(Arc::new(body)) })
}

fn desire(workflows: impl IntoIterator<Item = (Name, DesiredWorkflow)>) -> Desired {
    Desired {
        revision: Revision("r1".into()),
        base: None,
        author: None,
        subject: None,
        folder: String::new(),
        workflows: workflows.into_iter().collect(),
        notifiers: BTreeMap::new(),
        complete: true,
        files: BTreeMap::new(),
        problems: Vec::new(),
        ignored: 0,
    }
}

/// What is in effect once a plan is carried out, by its changes alone.
fn carry_out(plan: &Plan, desired: &Desired, observed: &Observed) -> Observed {
    let mut after = observed.clone();
    for change in &plan.changes {
        match change {
            PlanChange::CreateWorkflow(name) => {
                let wanted = &desired.workflows[name];
                let keep = wanted.body.as_ref().unwrap().metadata.annotations.contains_key("xene/prune");
                let DesiredWorkflow { hash, path, line, valid, .. } = wanted.clone();
                let pipelines = BTreeMap::new();
                let blocked_among = None;
                let created = ObservedWorkflow { hash, path, line, valid, pipelines, keep, blocked_among };
                let previous = after.workflows.insert(name.clone(), created);
                assert_eq!(previous, None);
            }
            PlanChange::UpdateWorkflow(name) | PlanChange::MoveWorkflow(name) => {
                let wanted = &desired.workflows[name];
                let found = after.workflows.get_mut(name).unwrap();
                (found.hash, found.path, found.line, found.valid) =
                    (wanted.hash, wanted.path.clone(), wanted.line, wanted.valid);
                if let (PlanChange::UpdateWorkflow(_), Some(body)) = (change, &wanted.body) {
                    found.keep = body.metadata.annotations.contains_key("xene/prune");
                }
            }
            PlanChange::CreatePipeline(key) | PlanChange::UpdatePipeline(key) => {
                let body = desired.workflows[&key.workflow].body.as_ref().unwrap();
                let hash = body.pipelines[&key.pipeline].encode().0;
                let pipelines = &mut after.workflows.get_mut(&key.workflow).unwrap().pipelines;
                let previous = pipelines.insert(key.pipeline.clone(), hash);
                assert_eq!(previous.is_none(), matches!(change, PlanChange::CreatePipeline(_)));
                assert_ne!(previous, Some(hash));
            }
            PlanChange::RemovePipeline(key) => {
                let pipelines = &mut after.workflows.get_mut(&key.workflow).unwrap().pipelines;
                assert!(pipelines.remove(&key.pipeline).is_some());
            }
            PlanChange::RemoveWorkflow(name) => {
                assert!(after.workflows.remove(name).unwrap().pipelines.is_empty(), "pipelines go first");
            }
            PlanChange::CreateNotifier(name) | PlanChange::UpdateNotifier(name) | PlanChange::MoveNotifier(name) => {
                let row = NotifierRow::new(&desired.notifiers[name], &desired.revision, after.notifiers.get(name));
                after.notifiers.insert(name.clone(), row);
            }
            PlanChange::RemoveNotifier(name) => assert!(after.notifiers.remove(name).is_some()),
        }
    }
    for (name, workflow) in &mut after.workflows {
        let held = plan.held.iter().any(|(of, _)| of == name);
        let stays = held && !workflow.keep && !desired.workflows.contains_key(name);
        workflow.blocked_among = plan.prune_blocked.or(workflow.blocked_among).filter(|_| stays);
    }
    after
}

/// In effect after `desired` alone.
fn observe(desired: &Desired) -> Observed {
    let nothing = Observed::default();
    carry_out(&Plan::build(desired, &nothing), desired, &nothing)
}

fn check(desired: &Desired, observed: &Observed, expected: Expect) {
    let plan = Plan::build(desired, observed);
    expected.assert_eq(&plan.to_string());
    carry_out(&plan, desired, observed);
}

fn plain(names: &[&str]) -> Desired {
    desire(names.iter().map(|name| want(body(name, &[("p", "1")], false))))
}

#[test]
fn changes_only_what_differs() {
    let before = observe(&desire([
        want(body("same", &[("p", "1")], false)),
        want(body("changed", &[("kept", "1"), ("changed", "1"), ("gone", "1")], false)),
        want(body("gone", &[("p", "1")], false)),
    ]));
    let after = desire([
        want(body("same", &[("p", "1")], false)),
        want(body("changed", &[("kept", "1"), ("changed", "2"), ("new", "1")], false)),
        want(body("new", &[("p", "1")], false)),
    ]);
    check(
        &after,
        &before,
        expect![[r#"
        create workflow new
        update workflow changed
        create pipeline changed/new
        create pipeline new/p
        update pipeline changed/changed
        remove pipeline changed/gone
        remove pipeline gone/p
        remove workflow gone
    "#]],
    );
}

#[test]
fn a_moved_file_is_a_move() {
    let mut desired = plain(&["w"]);
    let before = observe(&desired);
    let workflow = desired.workflows.values_mut().next().unwrap();
    (workflow.path, workflow.body) = ("elsewhere.yaml".into(), None);
    check(
        &desired,
        &before,
        expect![[r#"
        move workflow w
    "#]],
    );
}

#[test]
fn nothing_is_pruned_while_a_file_is_broken() {
    let before = observe(&plain(&["a", "b"]));
    let mut desired = plain(&["b", "c"]);
    desired.complete = false;
    check(
        &desired,
        &before,
        expect![[r#"
        create workflow c
        create pipeline c/p
        hold workflow a: no file declares it any more; it stays until every file can be read, since it may have moved
    "#]],
    );
}

#[test]
fn an_annotation_keeps_an_orphan() {
    let before = observe(&desire([want(body("a", &[("p", "1")], true)), want(body("b", &[("p", "1")], false))]));
    check(
        &desire([]),
        &before,
        expect![[r#"
        remove pipeline b/p
        remove workflow b
        hold workflow a: no file declares it any more; its annotation `xene/prune: disabled` keeps it
    "#]],
    );
}

#[test]
fn more_than_half_of_four_is_held_until_some_come_back() {
    let before = observe(&plain(&["a", "b", "c", "d"]));
    check(
        &plain(&["d", "new"]),
        &before,
        expect![[r#"
            create workflow new
            create pipeline new/p
            hold workflow a: PruneBlocked: r1 would remove 3 of 4 workflows at once; if that is meant, `xene approve-prune r1`, else revert it
            hold workflow b: PruneBlocked: r1 would remove 3 of 4 workflows at once; if that is meant, `xene approve-prune r1`, else revert it
            hold workflow c: PruneBlocked: r1 would remove 3 of 4 workflows at once; if that is meant, `xene approve-prune r1`, else revert it
        "#]],
    );
    assert_eq!(Plan::build(&plain(&["d"]), &before).prune_blocked, Some(4));
    check(
        &plain(&["c", "d"]),
        &before,
        expect![[r#"
        remove pipeline a/p
        remove pipeline b/p
        remove workflow a
        remove workflow b
    "#]],
    );
    assert!(Plan::build(&plain(&["a", "b", "c", "d"]), &before).is_empty(), "a revert clears it");
    check(
        &plain(&[]),
        &observe(&plain(&["a", "b", "c"])),
        expect![[r#"
        remove pipeline a/p
        remove pipeline b/p
        remove pipeline c/p
        remove workflow a
        remove workflow b
        remove workflow c
    "#]],
    );
}

#[test]
fn renaming_all_at_once_is_held_however_often_it_is_planned() {
    let renamed = plain(&["e", "f", "g", "h"]);
    let mut observed = observe(&plain(&["a", "b", "c", "d"]));
    for _ in 0..3 {
        let plan = Plan::build(&renamed, &observed);
        assert_eq!((plan.held.len(), plan.prune_blocked), (4, Some(4)), "{plan}");
        observed = carry_out(&plan, &renamed, &observed);
    }
    let mut broken = plain(&["e", "f", "g", "h"]);
    broken.complete = false;
    observed = carry_out(&Plan::build(&broken, &observed), &broken, &observed);
    assert_eq!(Plan::build(&renamed, &observed).prune_blocked, Some(4), "a broken file in between forgets nothing");
    // Half by half it goes.
    for back in [&["a", "b", "e", "f", "g", "h"][..], &["e", "f", "g", "h"]] {
        let plan = Plan::build(&plain(back), &observed);
        assert!(plan.held.is_empty(), "{plan}");
        observed = carry_out(&plan, &plain(back), &observed);
    }
    assert_eq!(observed.workflows.len(), 4);
}

pub(in crate::decide) fn any_desired() -> impl Strategy<Value = Desired> {
    let workflow = (prop::collection::btree_map(0..3u8, 0..2u8, 1..3), any::<bool>(), 1..3u32, any::<bool>());
    (prop::collection::btree_map(0..6u8, workflow, 0..6), any::<bool>()).prop_map(|(workflows, complete)| {
        let workflows = workflows.into_iter().map(|(name, (pipelines, keep, line, valid))| {
            let pipelines: Vec<(String, String)> =
                pipelines.iter().map(|(name, word)| (format!("p{name}"), word.to_string())).collect();
            let pipelines: Vec<(&str, &str)> = pipelines.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
            let (name, mut wanted) = want(body(&format!("w{name}"), &pipelines, keep));
            (wanted.line, wanted.valid) = (line, valid);
            (name, wanted)
        });
        Desired { complete, ..desire(workflows) }
    })
}

proptest! {
    #[test]
    fn a_plan_carried_out_leaves_nothing_to_do(histories in prop::collection::vec(any_desired(), 1..5)) {
        let mut observed = Observed::default();
        for desired in histories {
            let plan = Plan::build(&desired, &observed);
            prop_assert_eq!(&plan, &Plan::build(&desired, &observed));
            prop_assert!(plan.changes.is_sorted());
            let after = carry_out(&plan, &desired, &observed);
            let again = Plan::build(&desired, &after);
            prop_assert!(again.is_empty(), "{}", again);
            for (name, wanted) in &desired.workflows {
                prop_assert_eq!(after.workflows.get(name).map(|found| found.hash), Some(wanted.hash));
            }
            let held: Vec<&Name> = again.held.iter().map(|(name, _)| name).collect();
            prop_assert!(after.workflows.keys().all(|name| desired.workflows.contains_key(name) || held.contains(&name)));
            observed = after;
        }
    }
}
