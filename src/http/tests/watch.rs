//! Streams of changes that are cut off and begun again.

use super::*;

impl World {
    /// The first chunk of a stream of changes, of whoever has seen those up to `last`.
    async fn watch(&self, kinds: &str, last: Option<&str>) -> (String, Body) {
        let mut headers = vec![("authorization", "Bearer s3cret")];
        headers.extend(last.map(|last| ("last-event-id", last)));
        let mut body = self.ask("GET", &format!("/api/v1/watch?kinds={kinds}"), &headers, "").await.into_body();
        let first = chunk(&mut body).await.unwrap();
        (String::from_utf8(first.to_vec()).unwrap(), body)
    }
}

fn put(n: u128, phase: RunPhase) -> Change {
    Change::PutRun(Box::new(row(&"w/build".parse().unwrap(), run_name(n), None, phase)))
}

#[tokio::test]
async fn who_was_cut_off_hears_of_what_changed_meanwhile() {
    let world = World::new();
    // Also one who has not heard of anything yet knows from where to go on.
    let (hello, stream) = world.watch("run,event", None).await;
    assert_eq!(hello, ": changes from here on\nid: 1\n\n");
    drop(stream);
    commit(&world.store, vec![put(1, RunPhase::StartingUp)]);
    let event = |regarding: &str| {
        let (kind, reason, message) = (EventType::Normal, "Created".to_owned(), "it is there".to_owned());
        let at = Timestamp::from_second(7).unwrap();
        Change::AddEvent(NewEvent { at, kind, reason, message, regarding: regarding.to_owned() })
    };
    commit(&world.store, vec![put(1, RunPhase::Running), event("run/1")]);
    commit(&world.store, vec![put(2, RunPhase::Running), Change::DeleteWorkflow("w".parse().unwrap())]);
    commit(&world.store, vec![Change::DeleteRun(run_name(2)), event("run/2")]);
    let (missed, mut stream) = world.watch("run,event,workflow", Some("1")).await;
    let events: Vec<&str> = missed.trim_end().split("\n\n").collect();
    assert_eq!(events[0], ": changes from here on");
    assert!(events[1].contains(&run_name(1).to_string()) && events[1].contains("Running"), "{missed}");
    assert_eq!(events[2], format!("event: run\ndata: {{\"deleted\":\"{}\"}}", run_name(2)));
    assert!(events[3].contains("run/1") && events[4].contains("run/2"), "{missed}");
    assert_eq!(events[5..], ["event: workflow\ndata: {\"deleted\":\"w\"}\nid: 5"], "each of them once");
    commit(&world.store, vec![put(3, RunPhase::Running)]);
    let next = chunk(&mut stream).await.unwrap();
    assert!(next.ends_with(b"\nid: 6\n\n"), "{next:?}");
    // Nothing of it is of these kinds.
    assert_eq!(world.watch("agent", Some("1")).await.0, ": changes from here on\nid: 6\n\n");
    assert_eq!(world.watch("agent", Some("6")).await.0, ": changes from here on\nid: 6\n\n");
    assert_eq!(world.watch("agent", Some("")).await.0, ": changes from here on\nid: 6\n\n");
}

#[tokio::test]
async fn who_names_what_nobody_knows_reads_the_lists_again() {
    let world = World::new();
    for last in ["7", "x", "-1", "1.5", "18446744073709551615", "18446744073709551616"] {
        let (first, _) = world.watch("run", Some(last)).await;
        assert_eq!(first, ": changes from here on\n\nevent: resync\ndata: {\"revision\":1}\nid: 1\n\n", "{last}");
    }
}
