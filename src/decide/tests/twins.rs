//! Two processes with the identity of one agent.

use std::time::Duration;

use xene_schemas::{
    phase::Reason,
    wire::control::{Refused, Tokens},
};

use super::world::{MINUTE, World};
use crate::decide::event::Command;

const SHORT: &str = r#","autonomy":"1m""#;
const EVERY_MINUTE: &str = r#""schedule":"* * * * *""#;

/// Two agents; `a` has a pipeline that fires each minute.
fn two() -> World {
    let mut world = World::new(&["a"]);
    world.commit("w", SHORT, Some(EVERY_MINUTE));
    world.pass(MINUTE);
    world.add("b");
    world
}

fn shown(world: &World) -> Tokens {
    let journal = &world.nodes["a"].journal;
    Tokens { session: journal.token.unwrap(), renewal: journal.renewal.as_ref().and_then(|renewal| renewal.token) }
}

fn reason(world: &World) -> Option<Reason> {
    let controller = world.controller.as_ref().unwrap();
    controller.agent(world.now(), &"a".parse().unwrap()).unwrap().status.reason
}

fn noted(world: &World) -> usize {
    world.store.events.iter().filter(|event| event.reason == "DuplicateIdentity").count()
}

fn is_duplicate(refused: Option<&Refused>) -> bool {
    refused.is_some_and(|refused| refused.reason == "Duplicate" && refused.retry)
}

#[test]
fn an_agent_shows_its_tokens_whatever_ends_and_is_let_in() {
    let mut world = two();
    world.pass(10 * MINUTE);
    world.cut("a");
    world.heal("a");
    world.kill("a");
    world.start_agent("a");
    world.pass(MINUTE);
    world.stop_controller();
    world.start_controller();
    world.pass(MINUTE);
    world.crash("a");
    world.nodes.get_mut("a").unwrap().boot_id = "boot-2".into();
    world.start_agent("a");
    world.pass(MINUTE);
    assert_eq!((noted(&world), world.owner("w/p").as_deref()), (0, Some("a")));
    assert!(world.nodes["a"].session.is_some());
    let agents = &world.store.agents;
    assert_eq!(agents["a"].tokens, [shown(&world).session], "what was superseded is worth nothing");
}

#[test]
fn who_shows_a_token_that_was_superseded_is_refused_and_so_is_the_agent() {
    let mut world = two();
    let old = shown(&world);
    world.cut("a");
    world.heal("a");
    world.pass(MINUTE);
    assert!(is_duplicate(world.is_refused("a", "", Some(old)).as_ref()));
    assert_eq!((reason(&world), noted(&world)), (Some(Reason::DUPLICATE_IDENTITY), 1));
    assert!(world.alerts.iter().any(|alert| alert.contains("a is there twice")), "{:?}", world.alerts);
    assert!(world.nodes["a"].session.is_none(), "nobody can tell which of both it is");
    world.connect("a");
    world.settle();
    assert!(world.nodes["a"].session.is_none());
    assert_eq!(noted(&world), 1, "it is told once");
    // What it has it may start until its lease ends; then it goes to another.
    assert_eq!(world.owner("w/p").as_deref(), Some("a"));
    world.pass(4 * MINUTE);
    assert_eq!(world.owner("w/p").as_deref(), Some("b"));

    world.stop_controller();
    world.start_controller();
    assert!(is_duplicate(world.is_refused("a", "", None).as_ref()), "also by a controller that was restarted");
    world.ask(Command::Forget("a".parse().unwrap())).unwrap();
    world.crash("a");
    world.nodes.remove("a");
    world.add("a");
    assert!(world.nodes["a"].session.is_some(), "a person has decided");
    assert_eq!(reason(&world), None);
}

#[test]
fn a_copy_of_a_renewal_before_the_last_is_noticed_within_one_session() {
    let mut world = two();
    let old = shown(&world);
    world.pass(MINUTE);
    let new = shown(&world);
    assert_eq!((old.session, old.renewal == new.renewal), (new.session, false));
    world.cut("a");
    assert!(is_duplicate(world.is_refused("a", "", Some(old)).as_ref()));
}

#[test]
fn after_a_reboot_the_token_of_the_session_is_enough_and_an_older_one_is_not() {
    let mut world = two();
    let old = shown(&world).session;
    world.cut("a");
    world.heal("a");
    world.pass(MINUTE);
    world.cut("a");
    let now = shown(&world).session;
    assert_eq!(world.is_refused("a", "", Some(Tokens { session: now, renewal: None })), None);
    assert!(is_duplicate(world.is_refused("a", "", Some(Tokens { session: old, renewal: None })).as_ref()));
}

#[test]
fn a_second_process_is_refused_while_the_first_answers_and_let_in_once_it_does_not() {
    let mut world = two();
    let tokens = shown(&world);
    // Its words are held back until the first has answered, which is at once.
    let session = world.says_hello("a", "", Some(tokens));
    assert!(!world.answers.contains_key(&session), "it was neither welcomed nor refused");
    world.settle();
    assert!(is_duplicate(world.answers[&session].as_ref().err()));
    assert!(world.nodes["a"].session.is_none());
    assert_eq!(noted(&world), 1);

    let mut world = two();
    let tokens = shown(&world);
    world.nodes.get_mut("a").unwrap().deaf = true;
    let session = world.says_hello("a", "", Some(tokens));
    world.settle();
    assert!(!world.answers.contains_key(&session));
    world.pass(Duration::from_secs(3));
    assert!(world.answers[&session].is_ok(), "who has been killed does not answer");
    assert_eq!(noted(&world), 0);
}

#[test]
fn an_agent_that_lost_its_journal_is_let_in_and_the_one_that_has_it_is_not_any_more() {
    let mut world = two();
    let tokens = shown(&world);
    world.cut("a");
    assert_eq!(world.is_refused("a", "", None), None);
    assert!(is_duplicate(world.is_refused("a", "", Some(tokens)).as_ref()));
}

#[test]
fn a_store_that_was_rolled_back_is_recovered_and_refuses_nobody() {
    let mut world = two();
    world.add("c");
    world.pass(MINUTE);
    let image = world.store.clone();
    for agent in ["a", "b", "c"] {
        world.cut(agent);
        world.heal(agent);
    }
    world.pass(MINUTE);
    world.cut("c");
    world.stop_controller();
    world.store = image;
    world.start_controller();
    world.pass(10 * MINUTE);
    // One that comes long after tells nothing new.
    world.heal("c");
    world.pass(10 * MINUTE);
    assert_eq!(noted(&world), 0);
    assert!(world.nodes.values().all(|node| node.session.is_some()));
    let begun = world.store.events.iter().filter(|event| event.reason == "Recovering").count();
    assert_eq!(begun, 1, "one recovery for all");
    assert!(world.alerts.iter().any(|alert| alert.contains("rolled back")), "{:?}", world.alerts);
}

#[test]
fn an_agent_of_the_version_before_keeps_no_token_and_is_no_copy_once_it_is_upgraded_again() {
    let mut world = two();
    world.pass(MINUTE);
    let (tokens, store) = (shown(&world), world.nodes["a"].journal.store.clone());
    world.kill("a");
    for _ in 0..2 {
        let session = world.says_hello_of("a", "", None, store.clone());
        assert!(world.answers.get(&session).is_none_or(Result::is_ok));
        world.tell(crate::decide::event::Event::SessionClosed(session));
        world.settle();
    }
    let session = world.says_hello_of("a", "", Some(tokens), store);
    world.settle();
    assert!(world.answers.get(&session).is_none_or(Result::is_ok), "{:?}", world.answers.get(&session));
    assert_eq!(noted(&world), 0);
}

#[test]
fn a_recovered_store_knows_no_tokens_and_refuses_nobody_for_them() {
    let mut world = two();
    let backup = world.store.clone();
    world.cut("a");
    world.heal("a");
    world.pass(MINUTE);
    world.stop_controller();
    world.store = backup;
    world.recover = true;
    world.start_controller();
    world.pass(10 * MINUTE);
    assert_eq!(noted(&world), 0);
    assert!(world.nodes["a"].session.is_some());
}
