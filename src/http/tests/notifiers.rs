//! The page of notifiers: who sees it, what it tells, and the message on trial.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpListener,
};

use xene_schemas::{
    meta::{Name, SpecHash},
    notifier::Notice,
};

use super::*;
use crate::{
    decide::rows::{MessageRow, NotifierHealth, NotifierRow},
    notify,
};

fn notifier(name: &str, spec: Value) -> NotifierRow {
    NotifierRow {
        metadata: serde_json::from_value(json!({"name": name, "description": "For <b>all</b>"})).unwrap(),
        spec: serde_json::from_value(spec).unwrap(),
        revision: Revision("r1".to_owned()),
        path: "notify/all.yaml".to_owned(),
        line: 7,
        generation: Generation(1),
        hash: SpecHash([2; 32]),
        valid: true,
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// Three notifiers: one that goes well, one whose destination fails, one whose file is broken.
fn three() -> Loaded {
    let waits = |notifier: &str, number| MessageRow {
        notifier: notifier.parse().unwrap(),
        number,
        notice: Notice::new(
            xene_schemas::notifier::Transition::Broken,
            format!("run/{}", run_name(1)),
            format!("{number}"),
            at(90),
        ),
    };
    let health = |delivered, lost, error: Option<&str>| NotifierHealth {
        delivered,
        lost,
        delivered_at: Some(at(100)),
        failed_at: error.map(|_| at(200)),
        error: error.map(str::to_owned),
    };
    let slack = json!({"on": ["Broken", "Recovered"], "slack": {"credential": "chat"}});
    let events = json!({"on": ["AgentLost"], "select": {"workflows": ["w"]}, "cloudEvents": {"credential": "bus"}});
    let mail = json!({"on": ["Error"], "email": {"credential": "mail", "to": ["ada@example.org"]}});
    let name = |name: &str| name.parse::<Name>().unwrap();
    Loaded {
        notifiers: vec![
            notifier("bus", events),
            notifier("chat", slack),
            NotifierRow { valid: false, ..notifier("mail", mail) },
        ],
        messages: vec![waits("bus", 1), waits("bus", 2)],
        notifier_health: vec![
            (name("bus"), health(4, 17, Some("the destination says <503> Service Unavailable"))),
            (name("chat"), health(23, 0, None)),
        ],
        ..Loaded::default()
    }
}

/// The row of a table that is about this notifier.
fn row_of<'p>(page: &'p str, name: &str) -> &'p str {
    let (_, rest) = page.split_once(&format!("<tr id=\"notifier-{name}\">")).expect(name);
    rest.split_once("</tr>").unwrap().0
}

#[tokio::test]
async fn each_notifier_tells_how_it_goes() {
    let world = World::holding(three(), |_| {});
    let cookie = world.signed_in().await;
    let (status, page) = world.page("/notifiers", &cookie).await;
    assert_eq!(status, 200, "{page}");
    assert!(page.contains("<a href=\"/notifiers\" aria-current=\"page\">Notifiers</a>"), "{page}");
    for (name, told) in [
        (
            "bus",
            &["Failing", "AgentLost", "of some runs only", "cloudEvents", "<td>2</td>", "<td>4</td>", "<td>17</td>"][..],
        ),
        ("bus", &["&lt;503&gt; Service Unavailable", "1970-01-01 00:03:20 UTC", "notify/all.yaml:7"]),
        (
            "chat",
            &["Ready", "Broken, Recovered", "slack", "<td>0</td>", "<td>23</td>", "1970-01-01 00:01:40 UTC", "never"],
        ),
        ("chat", &["For &lt;b&gt;all&lt;/b&gt;", "action=\"/notifiers/chat/test\""]),
        ("mail", &["Invalid", "Error", "email", "never"]),
    ] {
        let row = row_of(&page, name);
        for told in told {
            assert!(row.contains(told), "{name} {told}: {row}");
        }
    }
    let (_, overview) = world.page("/", &cookie).await;
    for told in [
        "<a href=\"/notifiers#notifier-bus\">bus</a> does not deliver: the destination says &lt;503&gt;",
        "<a href=\"/notifiers#notifier-mail\">mail</a> has a problem in its file",
    ] {
        assert!(overview.contains(told), "{told}: {overview}");
    }
    assert!(!overview.contains("#notifier-chat"), "{overview}");
}

#[tokio::test]
async fn the_page_of_notifiers_is_live() {
    let world = World::holding(three(), |_| {});
    let cookie = world.signed_in().await;
    let mut body = world.ask("GET", "/live?page=/notifiers", &[("cookie", &cookie)], "").await.into_body();
    let first = String::from_utf8(chunk(&mut body).await.unwrap().to_vec()).unwrap();
    assert!(first.contains("event: region") && first.contains("notifier-chat"), "{first}");
    // What a commit says of a notifier makes the page look again, at once: it would else be heard of after 15 s.
    commit(&world.store, vec![Change::PutNotifierHealth("chat".parse().unwrap(), NotifierHealth::default())]);
    assert!(chunk(&mut body).await.is_some());
}

#[tokio::test]
async fn a_test_is_sent_by_those_who_may_and_its_outcome_shown() {
    let secrets = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let chat = format!("slack:\n  url: http://{}/hook\n", listener.local_addr().unwrap());
    let file = secrets.path().join("chat.yaml");
    std::fs::write(&file, chat).unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let folder = secrets.path().to_owned();
    let world = World::holding(three(), |config| {
        config.outgoing = Outgoing::new(notify::Config { secrets: Some(folder), ..notify::Config::default() });
    });
    let cookie = world.signed_in().await;
    let token = world.form_token(&cookie).await;
    let refused = world.form("/notifiers/chat/test", &cookie, &[("form-token", "wrong")]).await;
    assert_eq!(refused.status(), 403, "a form of another session");
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "nothing was sent by it");
    listener.set_nonblocking(false).unwrap();

    let destination = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut length = 0;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line.trim().is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok").unwrap();
        String::from_utf8(body).unwrap()
    });
    let fields = [("form-token", token.as_str())];
    let sent = text(world.form("/notifiers/chat/test", &cookie, &fields).await).await;
    assert!(sent.contains("Test of chat") && sent.contains("It delivers"), "{sent}");
    assert!(destination.join().unwrap().contains("Test of notifier chat"), "it says what it is");
    assert!(world.audited().contains("notifier/chat"), "{}", world.audited());
    // Its credential is not there.
    let failed = text(world.form("/notifiers/bus/test", &cookie, &fields).await).await;
    assert!(failed.contains("role=\"alert\">It does not deliver: "), "{failed}");
    for absent in ["/notifiers/absent/test", "/notifiers/A..b/test"] {
        assert_eq!(world.form(absent, &cookie, &fields).await.status(), 404, "{absent}");
    }
    assert_eq!(world.ask("GET", "/notifiers/chat/test", &[("cookie", &cookie)], "").await.status(), 405);
}

#[tokio::test]
async fn who_may_only_look_sends_no_test_and_who_sees_some_workflows_no_notifier() {
    let world = World::holding(three(), |_| {});
    for (asked, seen) in [
        (json!({"role": "viewer", "name": "eye"}), 200),
        (json!({"role": "operator", "name": "ada", "scope": ["w"]}), 403),
    ] {
        let token = world.token(&asked).await;
        let response = world.form("/sign-in", "", &[("secret", &token)]).await;
        let cookie = response.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
        let (status, page) = world.page("/notifiers", &cookie).await;
        assert_eq!(status, seen, "{asked}: {page}");
        assert!(!page.contains("/test\""), "no test is offered: {page}");
        let (_, overview) = world.page("/", &cookie).await;
        assert_eq!(overview.contains("href=\"/notifiers"), seen == 200, "{asked}: {overview}");
        let form = world.form_token(&cookie).await;
        let refused = world.form("/notifiers/chat/test", &cookie, &[("form-token", &form)]).await;
        assert_eq!(refused.status(), 403, "{asked}");
    }
}
