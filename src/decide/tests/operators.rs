//! What operators say beside desired state: suspend, resume, approve a removal, start again.

use std::time::Duration;

use xene_agent::decide::{event::Event as AgentEvent, time::after};
use xene_schemas::{
    access::Role,
    meta::{Labels, RunName},
    phase::{Reason, RunPhase},
    run::{RunTrigger, TriggerType},
    source::ConditionStatus,
    why::WaitOn,
    wire::control::{ControllerMessage, LogAcknowledged},
};

use super::world::{MINUTE, World, key};
use crate::decide::{
    desired::SourceHealth,
    event::{Answer, Command, Effect, Event, Refusal, RequestId, RunOrder},
    rows::{ApiTokenRow, Change, JoinTokenRow, Suspendable},
};

const EVERY_MINUTE: &str = r#""schedule":"* * * * *""#;

fn pipeline() -> Suspendable {
    Suspendable::Pipeline(key("w/p"))
}

fn resume(world: &mut World, what: Suspendable) -> Result<(), Refusal> {
    world.ask(Command::Resume { what, by: "me".into() }).map(drop)
}

fn skipped(world: &World) -> usize {
    world.store.ledger.iter().filter(|row| row.reason == Some(Reason::SUSPENDED)).count()
}

#[test]
fn a_suspended_pipeline_does_not_fire_and_resuming_replays_nothing() {
    let mut world = World::new(&["a"]);
    world.commit("w", "", Some(EVERY_MINUTE));
    world.pass(MINUTE);
    world.suspend(pipeline(), None);
    world.pass(3 * MINUTE);
    assert_eq!((world.starts.len(), skipped(&world)), (1, 3), "each due time is on record");
    assert_eq!(world.start("w/p", 1), Err(Refusal::Suspended(key("w/p"))));
    resume(&mut world, pipeline()).unwrap();
    assert_eq!(world.starts.len(), 1);
    world.pass(2 * MINUTE);
    assert_eq!(world.started("a"), [1020, 1260, 1320]);
    assert!(matches!(resume(&mut world, pipeline()), Err(Refusal::NotSuspended(_))));
    assert!(matches!(
        resume(&mut world, Suspendable::Workflow("nobody".parse().unwrap())),
        Err(Refusal::NotFound { kind: "workflow", .. })
    ));
}

#[test]
fn whose_word_a_command_is_becomes_an_event_once_it_is_carried_out() {
    let mut world = World::new(&["a"]);
    world.commit("w", "", None);
    let by = |command| Command::By { by: "ada".into(), command: Box::new(command) };
    let drain = by(Command::Drain("a".parse().unwrap()));
    world.ask(drain).unwrap();
    world.ask(by(Command::Drain("nobody".parse().unwrap()))).unwrap_err();
    let told: Vec<_> = world.store.events.iter().filter(|event| event.message.ends_with("by ada")).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!((told[0].reason.as_str(), told[0].regarding.as_str()), ("DrainRequested", "agent/a"));
}

#[test]
fn no_two_api_tokens_have_one_name_unless_the_older_is_expired() {
    let mut world = World::new(&[]);
    let now = world.now().wall;
    let token = |id: &str, expires_at| {
        Command::CreateApiToken(ApiTokenRow {
            id: id.into(),
            name: "ci".parse().unwrap(),
            secret_hash: "00".into(),
            role: Role::Viewer,
            scope: None,
            created_at: now,
            created_by: "admin".into(),
            expires_at,
        })
    };
    world.ask(token("1", Some(after(now, MINUTE)))).unwrap();
    let taken = Refusal::TokenNameTaken("ci".parse().unwrap());
    assert_eq!(world.ask(token("2", None)), Err(taken));
    world.pass(2 * MINUTE);
    world.ask(token("2", None)).unwrap();
    world.ask(Command::RevokeApiToken("ci".parse().unwrap())).unwrap();
    let again = world.ask(Command::RevokeApiToken("ci".parse().unwrap()));
    assert!(matches!(again, Err(Refusal::NotFound { kind: "token", .. })), "{again:?}");
}

/// For a minute, and two agents.
fn join_token(world: &World, id: &str) -> JoinTokenRow {
    JoinTokenRow {
        id: id.into(),
        secret_hash: "00".into(),
        created_at: None,
        created_by: None,
        expires_at: after(world.now().wall, MINUTE),
        uses_left: 2,
        labels: None,
        name: None,
    }
}

#[test]
fn join_tokens_that_expired_long_ago_go() {
    let mut world = World::new(&[]);
    let create = |world: &mut World, id: &str| {
        let row = join_token(world, id);
        world.ask(Command::CreateJoinToken(row)).unwrap();
    };
    let revoke = |world: &mut World, id: &str| world.ask(Command::RevokeJoinToken(id.into())).is_ok();
    ["1", "2"].iter().for_each(|id| create(&mut world, id));
    world.pass(12 * 60 * MINUTE);
    create(&mut world, "3");
    assert!(revoke(&mut world, "1"), "one that is expired is there for a while, for people to see");
    world.pass(12 * 60 * MINUTE + 2 * MINUTE);
    create(&mut world, "4");
    assert_eq!(["2", "3", "4"].map(|id| revoke(&mut world, id)), [false, true, true]);
}

#[test]
fn a_revoked_join_token_lets_nobody_in() {
    let mut world = World::new(&[]);
    let row = join_token(&world, "1");
    let enrol = |name: &str| Command::Enrol {
        id: "1".into(),
        secret_hash: "00".into(),
        key: "01".into(),
        name: name.parse().unwrap(),
        labels: Labels::new(),
    };
    world.ask(Command::CreateJoinToken(row)).unwrap();
    world.ask(enrol("a")).unwrap();
    let revoke = Command::RevokeJoinToken("1".into());
    world.ask(Command::By { by: "ada".into(), command: Box::new(revoke.clone()) }).unwrap();
    assert_eq!(world.ask(enrol("b")), Err(Refusal::Token));
    world.stop_controller();
    world.start_controller();
    assert_eq!(world.ask(enrol("b")), Err(Refusal::Token), "also after a restart");
    assert!(matches!(world.ask(revoke), Err(Refusal::NotFound { kind: "join token", .. })));
    let told = world.store.events.iter().find(|event| event.reason == "JoinTokenRevoked").unwrap();
    assert_eq!(told.message, "join token 1 lets nobody in any more, by ada");
}

#[test]
fn a_suspension_outlives_restarts_and_ends_by_itself() {
    let mut world = World::new(&["a"]);
    world.commit("w", r#","autonomy":"Forever""#, Some(EVERY_MINUTE));
    let until = after(world.now().wall, 5 * MINUTE);
    world.suspend(Suspendable::Workflow("w".parse().unwrap()), Some(until));
    world.stop_controller();
    world.crash("a");
    world.start_agent("a");
    world.pass(2 * MINUTE);
    assert!(world.starts.is_empty(), "the agent knows, without any controller");
    world.start_controller();
    world.pass(2 * MINUTE);
    assert!(world.starts.is_empty());
    world.pass(3 * MINUTE);
    assert!(world.store.loaded.suspensions.is_empty());
    assert_eq!(world.started("a"), [1320, 1380]);
    let told: Vec<&str> =
        world.store.events.iter().filter(|e| e.regarding == "workflow/w").map(|e| e.reason.as_str()).collect();
    assert_eq!(told, ["WorkflowCreated", "Suspended", "Resumed"]);
}

#[test]
fn nothing_is_replayed_on_an_agent_that_was_away_when_it_was_resumed() {
    let mut world = World::new(&["a"]);
    world.commit("w", "", Some(EVERY_MINUTE));
    world.suspend(pipeline(), None);
    world.pass(MINUTE);
    world.crash("a");
    resume(&mut world, pipeline()).unwrap();
    world.pass(2 * MINUTE);
    world.start_agent("a");
    assert!(world.starts.is_empty());
    world.pass(MINUTE);
    assert_eq!(world.started("a"), [1200], "1080 and 1140 passed while it was suspended, or away");
}

#[test]
fn a_suspension_goes_with_the_pipeline_to_its_next_agent_and_away_with_the_workflow() {
    let mut world = World::new(&["a", "b"]);
    world.commit("w", "", Some(EVERY_MINUTE));
    world.suspend(pipeline(), None);
    world.ask(Command::Drain("a".parse().unwrap())).unwrap();
    assert_eq!(world.owner("w/p").as_deref(), Some("b"));
    world.pass(2 * MINUTE);
    assert!(world.starts.is_empty());
    world.commit("v", "", None);
    world.remove("w");
    assert!(world.store.loaded.suspensions.is_empty());
}

#[test]
fn a_suspended_source_shows_what_waits_and_goes_to_the_newest_at_once() {
    let mut world = World::new(&["a"]);
    world.commit("w", "", None);
    world.suspend(Suspendable::Source, None);
    world.commit("v", "", None);
    world.commit("u", "", None);
    world.observe();
    let source = world.store.loaded.source.clone().unwrap();
    assert_eq!(source.revision.unwrap().0, "r1");
    assert_eq!(source.seen.unwrap().0, "r3");
    assert_eq!(source.suspension.unwrap().by, "me");
    let ready = &source.conditions[0];
    assert_eq!((ready.status, ready.reason.as_str()), (ConditionStatus::False, "Suspended"));
    assert_eq!(world.owner("v/p"), None);
    world.stop_controller();
    world.start_controller();
    world.sync();
    assert_eq!(world.owner("v/p"), None, "also after a restart");
    resume(&mut world, Suspendable::Source).unwrap();
    assert_eq!((world.owner("v/p").as_deref(), world.owner("u/p").as_deref()), (Some("a"), Some("a")));
    assert!(world.store.loaded.source.as_ref().unwrap().suspension.is_none());
}

#[test]
fn a_limit_of_watching_is_told_until_it_is_over() {
    let mut world = World::new(&["a"]);
    world.commit("w", "", None);
    let degraded = |world: &World| world.store.loaded.source.as_ref().unwrap().conditions[2].clone();
    world.tell(Event::Source(SourceHealth::Degraded("no more watches".into())));
    assert_eq!((degraded(&world).status, degraded(&world).reason.as_str()), (ConditionStatus::True, "Limited"));
    world.tell(Event::Source(SourceHealth::Degraded(String::new())));
    assert_eq!(degraded(&world).status, ConditionStatus::False);
}

#[test]
fn what_was_compiled_while_the_source_was_resumed_takes_no_effect() {
    let mut world = World::new(&["a"]);
    world.commit("w", "", None);
    let base = world.store.loaded.source.clone().unwrap().revision;
    world.suspend(Suspendable::Source, None);
    world.commit("v", "", None);
    // Goes back to what is in effect as far as its compiler knows, so it leaves that out.
    let mut newest = world.compile();
    newest.base = base.clone();
    newest.workflows.values_mut().for_each(|workflow| workflow.body = None);
    newest.workflows.remove("v");
    resume(&mut world, Suspendable::Source).unwrap();
    let resumed = world.store.loaded.source.clone().unwrap().revision;
    assert_ne!(resumed, base);
    world.tell(Event::Compiled(Box::new(newest.clone())));
    world.settle();
    assert_eq!(world.store.loaded.source.clone().unwrap().revision, resumed);
    assert_eq!(world.owner("v/p").as_deref(), Some("a"));
    newest.base = resumed;
    world.tell(Event::Compiled(Box::new(newest.clone())));
    world.settle();
    assert_eq!(world.store.loaded.source.clone().unwrap().revision, Some(newest.revision));
    assert_eq!(world.owner("v/p"), None);
}

#[test]
fn a_blocked_removal_waits_for_approval_of_that_very_commit() {
    let mut world = World::new(&["a"]);
    for workflow in ["a", "b", "c", "d"] {
        world.commit(workflow, "", None);
    }
    let approve = |world: &mut World, commit: &str| {
        world.ask(Command::ApprovePrune { commit: commit.into(), by: "me".into() }).map(drop)
    };
    assert_eq!(approve(&mut world, "r4"), Err(Refusal::NothingBlocked));
    world.remove_all(&["a", "b", "c"]);
    let degraded = world.store.loaded.source.as_ref().unwrap().conditions[2].clone();
    assert_eq!(degraded.reason, "PruneBlocked");
    assert!(degraded.message.contains("xene approve-prune r5"), "{}", degraded.message);
    assert_eq!(world.store.pipelines_known(), 4);
    assert!(matches!(approve(&mut world, "r4"), Err(Refusal::OtherCommit(blocked)) if blocked.0 == "r5"));
    approve(&mut world, "r5").unwrap();
    assert_eq!(world.store.pipelines_known(), 1);
    let source = world.store.loaded.source.clone().unwrap();
    assert_eq!((source.conditions[2].status, source.workflows), (ConditionStatus::False, 1));
    assert_eq!(approve(&mut world, "r5"), Err(Refusal::NothingBlocked));
    world.commit("a", "", None);
    assert_eq!(world.owner("a/p").as_deref(), Some("a"), "a revert brings it back");
}

#[test]
fn a_rerun_is_of_the_same_commit_whatever_is_in_effect() {
    let mut world = World::new(&["a"]);
    world.commit("w", "", Some(EVERY_MINUTE));
    world.pass(MINUTE);
    let original = world.starts[0].run;
    let first = world.run(original).clone();
    world.commit("w", r#","timeout":"5m""#, None);
    world.slow = true;
    let again = world.rerun(original, 1).unwrap();
    let run = world.run(again).clone();
    assert_eq!(run.status.phase, RunPhase::Running);
    assert_eq!(run.spec.rerun_of, Some(original));
    assert_eq!((&run.spec.revision, run.spec.spec_hash), (&first.spec.revision, first.spec.spec_hash));
    let trigger = &run.spec.trigger;
    assert_eq!((trigger.kind, trigger.scheduled_time), (TriggerType::Cron, first.spec.trigger.scheduled_time));
    assert_eq!(trigger.by.as_deref(), Some("me"));
    assert_eq!(world.rerun(again, 2), Err(Refusal::NotEnded(again)));
    world.end_steps("a");
    world.settle();
    assert_eq!(world.run(again).status.phase, RunPhase::Success);
    world.pass(Duration::from_secs(1));
    assert_eq!(world.nodes["a"].journal.specs.len(), 1, "the old spec is gone again");
}

#[test]
fn an_agent_drains_though_nobody_wants_the_log_of_its_run() {
    let mut world = World::new(&["a"]);
    world.withhold_logs = true;
    world.commit("w", "", None);
    let run = world.start("w/p", 1).unwrap();
    assert_eq!(world.settled, [run], "its facts are acknowledged");
    world.crash("a");
    world.start_agent("a");
    assert_eq!(world.settled, [run, run], "said again after a restart");
    world.tell_agent("a", AgentEvent::DrainRequested);
    world.settle();
    assert!(!world.nodes["a"].exited, "its log is to be delivered");
    let unwanted = LogAcknowledged { run, offset: 0, unwanted: true };
    world.tell_agent("a", AgentEvent::Message(ControllerMessage::LogAcknowledged(unwanted)));
    world.settle();
    assert!(world.nodes["a"].exited && world.nodes["a"].journal.runs.is_empty());
}

#[test]
fn several_pipelines_start_in_one_commit_or_none_does() {
    let mut world = World::new(&["a"]);
    for workflow in ["u", "v", "w"] {
        world.commit(workflow, "", None);
    }
    let orders = |world: &World, of: [&str; 2], n: u128| {
        let order = |(at, of): (usize, &&str)| RunOrder {
            pipeline: key(of),
            spec_hash: world.store.pipelines[&key(of)].spec_hash,
            run: RunName::new(world.now().wall, n + at as u128),
            trigger: RunTrigger { kind: TriggerType::Webhook, name: None, scheduled_time: None, by: None },
            params: Default::default(),
            payload: None,
            delivery: None,
            force: false,
        };
        of.iter().enumerate().map(order).collect::<Vec<_>>()
    };
    let stale = |orders: Vec<RunOrder>| {
        let spec_hash = xene_schemas::meta::SpecHash([7; 32]);
        orders.into_iter().map(|order| RunOrder { spec_hash, ..order }).collect::<Vec<_>>()
    };
    let both = [&orders(&world, ["u/p", "v/p"], 1)[..1], &stale(orders(&world, ["u/p", "v/p"], 1))[1..]].concat();
    assert_eq!(world.ask(Command::StartRuns(both)), Err(Refusal::SpecChanged));
    assert!(world.store.runs.is_empty(), "not even the first");
    // A suspended one is passed over, unless there is no other.
    world.suspend(Suspendable::Pipeline(key("w/p")), None);
    world.suspend(Suspendable::Pipeline(key("v/p")), None);
    let command = Command::StartRuns(orders(&world, ["w/p", "v/p"], 1));
    assert_eq!(world.ask(command), Err(Refusal::Suspended(key("w/p"))));
    let command = Command::StartRuns(orders(&world, ["w/p", "u/p"], 5));
    let Ok(Answer::Runs(runs)) = world.ask(Command::By { by: "hook".into(), command: Box::new(command) }) else {
        panic!()
    };
    assert_eq!(runs.iter().map(|run| run.spec.key()).collect::<Vec<_>>(), [key("u/p")]);
    let told = |world: &World, reason: &str| {
        let events = world.store.events.iter().filter(|event| event.reason == reason);
        events.map(|event| event.regarding.clone()).collect::<Vec<_>>()
    };
    assert_eq!(told(&world, "RunRequested"), [format!("run/{}", runs[0].metadata.name)]);
    assert!(told(&world, "Suspended").contains(&"pipeline/w/p".to_owned()));
    world.ask(Command::Resume { what: Suspendable::Pipeline(key("v/p")), by: "me".into() }).unwrap();
    let both = orders(&world, ["u/p", "v/p"], 1);
    let (now, request) = (world.now(), RequestId(0));
    let command = Command::By { by: "hook".into(), command: Box::new(Command::StartRuns(both.clone())) };
    let fx = world.controller.as_mut().unwrap().handle(now, Event::Asked { request, command });
    let made = |change: &&Change| matches!(change, Change::PutRun(row) if row.run.metadata.name == both[0].run);
    let asked = |change: &&Change| matches!(change, Change::AddEvent(event) if event.reason == "RunRequested");
    assert!(fx.commit.iter().any(|change| made(&change)));
    assert!(
        fx.commit
            .iter()
            .any(|change| matches!(change, Change::PutRun(row) if row.run.spec.workflow == "v".parse().unwrap()))
    );
    assert_eq!(fx.commit.iter().filter(asked).count(), 2);
    let Some(Effect::Reply { result, .. }) = fx.then.iter().find(|effect| matches!(effect, Effect::Reply { .. }))
    else {
        panic!()
    };
    let Ok(Answer::Runs(runs)) = &**result else { panic!("{result:?}") };
    assert_eq!(runs.iter().map(|run| run.metadata.name).collect::<Vec<_>>(), [both[0].run, both[1].run]);
}

#[test]
fn who_shuts_an_agent_out_waits_for_no_disk() {
    let mut world = World::new(&["a", "b"]);
    for (agent, command) in [("a", Command::Revoke("a".parse().unwrap())), ("b", Command::Forget("b".parse().unwrap()))]
    {
        let session = world.nodes[agent].session.unwrap();
        let (now, request) = (world.now(), RequestId(0));
        let command = Command::By { by: "me".into(), command: Box::new(command) };
        assert!(command.is_urgent());
        let fx = world.controller.as_mut().unwrap().handle(now, Event::Asked { request, command });
        let closes = |effect: &Effect| matches!(effect, Effect::Close { session: of, .. } if *of == session);
        assert!(fx.urgent && fx.now.iter().any(closes) && !fx.commit.is_empty());
        assert!(fx.then.iter().any(|effect| matches!(effect, Effect::Reply { .. })), "its answer waits");
    }
    let drain = Command::Drain("a".parse().unwrap());
    assert!(!drain.is_urgent() && Command::Fence { agent: "a".parse().unwrap(), by: "me".into() }.is_urgent());
}

#[test]
fn a_run_that_waits_for_a_slot_says_so_before_its_agent_is_heard_again() {
    let mut world = World::new(&["a"]);
    world.slow = true;
    let names = ["a", "b", "c", "d", "e"];
    world.commit_all("w", &names.map(|name| (name, "")), None, "{}");
    let runs = names.iter().zip(1..).map(|(name, n)| world.start(&format!("w/{name}"), n).unwrap());
    let run = runs.last().unwrap();
    world.settle();
    let waits = |world: &World| {
        let waits = world.controller.as_ref().unwrap().waits(world.now(), run);
        waits.into_iter().map(|wait| (wait.on, wait.message)).collect::<Vec<_>>()
    };
    let expected = "task t waits for one of the 4 slots of a: all are taken".to_owned();
    assert_eq!(waits(&world), [(WaitOn::Slots, expected)]);
    world.end_steps("a");
    world.settle();
    assert_eq!(waits(&world), []);
}

#[test]
fn who_is_shut_out_was_heard_when_it_renewed_last() {
    let mut world = World::new(&["a"]);
    world.slow = true;
    world.commit("w", "", None);
    let run = world.start("w/p", 1).unwrap();
    world.pass(10 * MINUTE);
    world.ask(Command::Revoke("a".parse().unwrap())).unwrap();
    let (controller, now) = (world.controller.as_ref().unwrap(), world.now());
    let heard = controller.agent(now, &"a".parse().unwrap()).unwrap().status.last_seen.unwrap();
    assert!(now.wall.duration_since(heard) < jiff::SignedDuration::from_mins(1), "{heard}");
    let waits = controller.waits(now, run);
    assert_eq!(waits.iter().map(|wait| wait.since).collect::<Vec<_>>(), [Some(heard)], "{waits:?}");
    let considered = controller.consider(now, &"w/p".parse().unwrap());
    assert_eq!(considered[0].since, Some(heard), "{considered:?}");
}
