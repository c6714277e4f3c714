//! The disk of the store is full: commits wait, and what needs none goes on.

use xene_schemas::wire::control::{ControllerMessage, Hello, StoreSeen, Tokens, Welcome};

use super::world::{MINUTE, World};
use crate::decide::event::{Command, Effect, Event, RequestId, SessionId};

/// An agent dials anew with what it has: whether it is welcomed before anything is durable, and with which token.
fn dials(world: &mut World, session: u64, change: impl FnOnce(&mut Hello)) -> (bool, Welcome) {
    let journal = &world.nodes["a"].journal;
    let tokens = journal.token.map(|session| Tokens { session, renewal: None });
    let store: Option<StoreSeen> = journal.store.clone();
    let mut hello = Hello {
        version: 1,
        software: "test".into(),
        // That of the process which is there: it dials again before the end of its session was noticed.
        instance: 1_000,
        boot_id: String::new(),
        labels: [("os".to_owned(), "linux".to_owned())].into_iter().collect(),
        slots: 4,
        claims: Vec::new(),
        wall: world.now().wall,
        store,
        runs: Vec::new(),
        tokens,
    };
    change(&mut hello);
    let event = Event::SessionOpened {
        session: SessionId(session),
        agent: "a".parse().unwrap(),
        fingerprint: String::new(),
        authority: String::new(),
        address: "there".into(),
        transport: xene_schemas::phase::Transport::Quic,
        hello: Box::new(hello),
    };
    let now = world.now();
    let fx = world.controller.as_mut().unwrap().handle(now, event);
    let welcome = |effects: &[Effect]| {
        effects.iter().find_map(|effect| match effect {
            Effect::Send { message: ControllerMessage::Welcome(welcome), .. } => Some(welcome.clone()),
            _ => None,
        })
    };
    match welcome(&fx.now) {
        Some(welcome) => (true, welcome),
        None => (false, welcome(&fx.then).expect("a Welcome")),
    }
}

#[test]
fn who_was_welcomed_before_is_welcomed_though_nothing_can_be_written() {
    let mut world = World::new(&["a"]);
    world.pass(MINUTE);
    let (at_once, welcome) = dials(&mut world, 101, |_| {});
    assert!(!at_once && welcome.token.is_some(), "a new token is durable first");
    world.tell(Event::StoreFull(true));
    let (at_once, welcome) = dials(&mut world, 102, |_| {});
    assert_eq!((at_once, welcome.token), (true, None), "it keeps the one that it has");
    assert!(dials(&mut world, 103, |_| {}).0, "once more");
    world.tell(Event::StoreFull(false));
    assert!(!dials(&mut world, 104, |_| {}).0);
}

#[test]
fn who_would_be_told_something_new_waits_for_the_disk() {
    let mut world = World::new(&["a"]);
    world.pass(MINUTE);
    world.tell(Event::StoreFull(true));
    assert!(!dials(&mut world, 101, |hello| hello.tokens = None).0, "it has no token");
    assert!(!dials(&mut world, 102, |hello| hello.store = None).0, "it has not seen this store");
    let mut world = World::new(&["a"]);
    world.pass(MINUTE);
    world.tell(Event::StoreFull(true));
    let older = |hello: &mut Hello| hello.store.as_mut().unwrap().incarnation -= 1;
    assert!(!dials(&mut world, 101, older).0, "nor this process of the controller, as far as it has kept");
    let mut world = World::new(&["a"]);
    world.commit("w", "", None);
    world.pass(MINUTE);
    world.cut("a");
    world.commit("w", r#","timeout":"1m""#, None);
    world.tell(Event::StoreFull(true));
    assert!(!dials(&mut world, 101, |_| {}).0, "what it owns has changed since");
}

#[test]
fn a_refusal_waits_for_no_disk() {
    let mut world = World::new(&["a"]);
    world.pass(MINUTE);
    let now = world.now();
    for agent in ["nobody", "a"] {
        let command = Command::Fence { agent: agent.parse().unwrap(), by: "me".into() };
        let fx = world.controller.as_mut().unwrap().handle(now, Event::Asked { request: RequestId(1), command });
        assert!(matches!(&fx.now[..], [Effect::Reply { result, .. }] if result.is_err()), "{fx:?}");
    }
}
