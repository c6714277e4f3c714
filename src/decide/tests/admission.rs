//! Who is let in, by which certificate, and what an agent's word is worth.

use std::time::Duration;

use xene_schemas::{
    meta::AgentName,
    wire::control::{ControllerMessage, Refused, StoreSeen},
};

use super::world::{MINUTE, World};
use crate::decide::{
    event::{Answer, Command, Effect, Event, Refusal, SessionId},
    rows::JoinTokenRow,
};

const EVERY_MINUTE: &str = r#""schedule":"* * * * *""#;

fn name(agent: &str) -> AgentName {
    agent.parse().unwrap()
}

fn row(world: &World) -> crate::decide::rows::ControllerRow {
    world.store.loaded.controller.clone().unwrap()
}

/// What an agent says that knows so many generations more of this store.
fn newer(world: &World, generations: u64) -> StoreSeen {
    let row = row(world);
    let generation = row.generation + generations;
    StoreSeen { store_id: row.store_id, generation, incarnation: row.incarnation + 1, longest: None }
}

/// Says Hello with what it claims to know of the store, and hangs up.
fn says(world: &mut World, agent: &str, fingerprint: &str, store: Option<StoreSeen>) -> Option<Refused> {
    let session = world.says_hello_of(agent, fingerprint, None, store);
    let answer = world.answers.remove(&session);
    world.tell(Event::SessionClosed(session));
    answer.and_then(Result::err)
}

fn restart_as_backup(world: &mut World) {
    world.stop_controller();
    world.recover = true;
    world.start_controller();
    world.recover = false;
}

/// A join token of so many uses.
fn token(uses_left: u32) -> JoinTokenRow {
    JoinTokenRow {
        id: "t".into(),
        secret_hash: "hash".into(),
        created_at: None,
        created_by: None,
        expires_at: jiff::Timestamp::MAX,
        uses_left,
        labels: None,
        name: None,
    }
}

/// Asks to be let in by it.
fn enrol(secret_hash: &str, key: &str, agent: &str) -> Command {
    let (secret_hash, key) = (secret_hash.into(), key.into());
    Command::Enrol { id: "t".into(), secret_hash, key, name: name(agent), labels: Default::default() }
}

fn is(refused: Option<&Refused>, reason: &str, retry: bool) -> bool {
    refused.is_some_and(|refused| refused.reason == reason && refused.retry == retry)
}

#[test]
fn who_was_revoked_and_forgotten_neither_recovers_the_store_nor_comes_back_while_it_recovers() {
    let mut world = World::new(&["a", "b"]);
    world.commit("w", "", Some(EVERY_MINUTE));
    world.ask(Command::Revoke(name("b"))).unwrap();
    world.ask(Command::Forget(name("b"))).unwrap();
    let claim = newer(&world, 1);
    assert!(is(says(&mut world, "b", "", Some(claim)).as_ref(), "Forgotten", false));
    assert!(!row(&world).recovering && !world.store.agents.contains_key("b"));
    assert!(world.nodes["a"].session.is_some(), "nobody was cut off");
    restart_as_backup(&mut world);
    assert!(row(&world).recovering);
    assert!(is(says(&mut world, "b", "", None).as_ref(), "Forgotten", false));
    // Another that has its name now does not open the door to it.
    world.nodes.remove("b");
    world.add("b");
    assert!(is(says(&mut world, "b", "of before", None).as_ref(), "Revoked", false));
    assert!(world.nodes["b"].session.is_some());
    // A certificate of it can't be valid any more, and its name is like any other.
    world.cut("b");
    world.pass(Duration::from_secs(25 * 3600));
    restart_as_backup(&mut world);
    assert!(says(&mut world, "b", "renewed since the backup", None).is_none());
}

#[test]
fn an_agents_word_recovers_the_store_once() {
    let mut world = World::new(&["a", "b"]);
    world.commit("w", "", Some(EVERY_MINUTE));
    world.pass(MINUTE);
    world.cut("a");
    let (claim, before) = (newer(&world, 1), row(&world).generation);
    assert_eq!(says(&mut world, "a", "", Some(claim)), None, "an image may have been rolled back");
    let after = row(&world).generation;
    assert!(row(&world).recovering && after > before + 1);
    world.pass(20 * MINUTE);
    assert!(!row(&world).recovering);
    world.heal("b");
    let claim = newer(&world, 1);
    assert!(is(says(&mut world, "a", "", Some(claim)).as_ref(), "Store", true));
    assert_eq!((row(&world).generation, row(&world).recovering), (after, false));
    assert!(world.nodes["b"].session.is_some());
}

#[test]
fn an_agents_word_lets_in_nobody_whom_the_store_does_not_know() {
    let mut world = World::new(&["a"]);
    let claim = newer(&world, 1);
    assert!(is(says(&mut world, "c", "any", Some(claim.clone())).as_ref(), "Forgotten", false));
    assert!(!row(&world).recovering);
    assert_eq!(says(&mut world, "a", "", Some(claim)), None);
    assert!(row(&world).recovering);
    assert!(is(says(&mut world, "c", "any", None).as_ref(), "Forgotten", false));
    assert_eq!(says(&mut world, "a", "renewed since the image", None), None);
}

#[test]
fn a_generation_that_no_clock_shows_counts_for_nothing() {
    let mut world = World::new(&["a"]);
    let (claim, before) = (newer(&world, 1 << 39), row(&world));
    world.cut("a");
    assert_eq!(says(&mut world, "a", "", Some(claim.clone())), None);
    let other = StoreSeen { store_id: "another".into(), ..claim };
    assert_eq!(says(&mut world, "a", "", Some(other)), None);
    assert_eq!((row(&world).generation, row(&world).recovering), (before.generation, false));
}

#[test]
fn a_certificate_is_handed_over_once_its_fingerprint_is_durable() {
    let mut world = World::new(&["a"]);
    let session = world.nodes["a"].session.unwrap();
    let (now, agent) = (world.now(), name("a"));
    let issued = |agent| Event::CertificateIssued { session, agent, fingerprint: "next".into(), chain: "chain".into() };
    let controller = world.controller.as_mut().unwrap();
    let fx = controller.handle(now, issued(agent));
    let hands_over = |effect: &Effect| {
        matches!(effect, Effect::Send { session: to, message: ControllerMessage::Certificate(of) }
            if *to == session && of.chain == "chain")
    };
    assert!(!fx.commit.is_empty() && fx.then.iter().any(hands_over) && !fx.now.iter().any(hands_over));
    let fx = controller.handle(now, issued(name("nobody")));
    assert!(fx.commit.is_empty() && !fx.then.iter().chain(&fx.now).any(hands_over));
}

#[test]
fn a_certificate_that_is_on_no_list_opens_nothing_and_ends_nothing() {
    let mut world = World::new(&["a"]);
    assert!(is(says(&mut world, "a", "foreign", None).as_ref(), "Certificate", true));
    world.ask(Command::CreateJoinToken(token(1))).unwrap();
    world.ask(enrol("hash", "key", "b")).unwrap();
    assert!(is(says(&mut world, "b", "any", None).as_ref(), "Certificate", true), "an empty list is not any");
}

#[test]
fn who_can_not_store_new_certificates_comes_again_by_the_one_that_it_showed() {
    let mut world = World::new(&["a"]);
    let session = world.nodes["a"].session.unwrap();
    for number in 0..9 {
        let (agent, fingerprint) = (name("a"), number.to_string());
        world.tell(Event::CertificateIssued { session, agent, fingerprint, chain: String::new() });
    }
    assert_eq!(world.store.agents["a"].certificates, ["", "6", "7", "8"]);
    world.cut("a");
    assert_eq!(says(&mut world, "a", "", None), None);
    assert_eq!(says(&mut world, "a", "8", None), None);
    let session = SessionId(0);
    for number in 10..20 {
        let (agent, fingerprint) = (name("a"), number.to_string());
        world.tell(Event::CertificateIssued { session, agent, fingerprint, chain: String::new() });
    }
    assert_eq!(world.store.agents["a"].certificates, ["16", "17", "18", "19"]);
}

#[test]
fn who_asks_again_by_the_same_token_and_key_is_answered_again_until_it_is_welcomed() {
    let mut world = World::new(&[]);
    world.ask(Command::CreateJoinToken(token(2))).unwrap();
    let uses = |world: &World| world.controller.as_ref().unwrap().tokens.get("t").map_or(0, |token| token.uses_left);
    let (ours, enrolled) = (enrol("hash", "key", "a"), Ok(Answer::Enrolled(name("a"))));
    for _ in 0..3 {
        assert_eq!(world.ask(ours.clone()), enrolled);
        assert_eq!(uses(&world), 1);
    }
    assert_eq!(world.ask(enrol("wrong", "key", "a")), Err(Refusal::Token));
    assert_eq!(world.ask(enrol("hash", "of another", "a")), Err(Refusal::NameTaken(name("a"))));
    assert_eq!(uses(&world), 1, "a refusal costs nothing");
    assert_eq!(world.ask(enrol("hash", "key", "b")), Ok(Answer::Enrolled(name("b"))), "another name is another agent");
    assert_eq!(uses(&world), 0);
    world.stop_controller();
    world.start_controller();
    assert_eq!(world.ask(ours.clone()), enrolled, "also of a token that is spent, and by the next process");
    assert_eq!(world.ask(enrol("hash", "of another", "a")), Err(Refusal::Token));
    let told = world.store.events.iter().filter(|event| event.reason == "Enrolled" && event.regarding == "agent/a");
    assert_eq!(told.count(), 1);

    world.ask(Command::Certify { agent: name("a"), fingerprint: "first".into() }).unwrap();
    assert_eq!(world.ask(ours.clone()), enrolled, "it may not have come");
    world.ask(Command::Certify { agent: name("a"), fingerprint: "second".into() }).unwrap();
    assert_eq!(says(&mut world, "a", "second", None), None);
    assert_eq!(world.ask(ours), Err(Refusal::Token), "it has come");
    assert_eq!(world.store.agents["a"].joined_by, None);
}

#[test]
fn a_token_that_fixes_the_name_answers_again_by_that_name_also_when_it_is_gone() {
    let mut world = World::new(&[]);
    world.ask(Command::CreateJoinToken(JoinTokenRow { name: Some(name("fixed")), ..token(1) })).unwrap();
    for _ in 0..2 {
        assert_eq!(world.ask(enrol("hash", "key", "wished")), Ok(Answer::Enrolled(name("fixed"))));
    }
    assert_eq!(world.ask(enrol("hash", "key", "fixed")), Err(Refusal::Token), "it never asked by that name");
}

#[test]
fn who_is_revoked_or_forgotten_is_not_let_in_by_asking_again() {
    let mut world = World::new(&[]);
    for (agent, shut_out) in [("a", Command::Revoke(name("a"))), ("b", Command::Forget(name("b")))] {
        world.ask(Command::CreateJoinToken(token(1))).unwrap();
        world.ask(enrol("hash", "key", agent)).unwrap();
        world.ask(shut_out).unwrap();
        assert_eq!(world.ask(enrol("hash", "key", agent)), Err(Refusal::Token));
    }
}
