//! What is sent where, as it goes over the wire; and that nothing of it is more than text.

use std::{
    fs,
    io::{BufRead, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use expect_test::{Expect, expect};
use serde_json::{Value, json};
use xene_schemas::notifier::{Notice, NotifierSpec};

use super::*;

/// Whoever may name things names them so.
const HOSTILE: &str =
    "<!channel> @here [x](https://evil.example)\r\nBcc: all@example.org\u{202e} & <https://evil.example|ok> *b*";

fn delivery(spec: Value) -> Delivery {
    let notice: Notice = serde_json::from_value(json!({
        "id": "run/01m8991xq0000000000000000a/Broken/7",
        "at": "2026-11-27T10:00:00.000Z",
        "transition": "Broken",
        "regarding": "run/01m8991xq0000000000000000a",
        "run": "01m8991xq0000000000000000a",
        "workflow": "site",
        "pipeline": "build",
        "revision": "1a2b3c4d5e6f1a2b3c4d5e6f1a2b3c4d5e6f1a2b",
        "trigger": "cron nightly",
        "phase": "Error",
        "reason": "TaskFailed",
        "message": HOSTILE,
        "agent": "one",
    }))
    .unwrap();
    let spec: NotifierSpec = serde_json::from_value(spec).unwrap();
    let source = "urn:xene:0123456789abcdef".into();
    Delivery { notifier: "team".parse().unwrap(), number: 7, spec, notice, source, trial: false }
}

/// Where a stand-in listens, and the requests that it will have got; it answers each with one of `answers`.
fn stand_in(answers: &'static [&'static str]) -> (String, thread::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let serving = thread::spawn(move || {
        let serve = |answer: &&str| {
            let (mut stream, _) = listener.accept().unwrap();
            let request = request(&mut stream);
            stream.write_all(answer.as_bytes()).unwrap();
            request
        };
        answers.iter().map(serve).collect()
    });
    (url, serving)
}

/// A request without what differs from run to run.
fn request(stream: &mut TcpStream) -> String {
    let mut reader = BufReader::new(stream);
    let (mut text, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let lower = line.to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            break;
        }
        let differs = ["host:", "content-length:", "accept-encoding:", "user-agent:", "x-timestamp:", "x-signature:"];
        if !differs.iter().any(|name| lower.starts_with(name)) && lower.trim() != "accept: */*" {
            text += &line.replace("\r\n", "\n");
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let value: Value = serde_json::from_slice(&body).unwrap();
    // What hides is spelled out.
    text + &format!("\n{value:#}\n").replace('\u{202e}', "[U+202E]").replace('\u{200b}', "[U+200B]")
}

fn credential(folder: &Path, name: &str, text: &str) {
    let path = folder.join(format!("{name}.yaml"));
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
}

fn config(folder: &Path) -> Config {
    Config { secrets: Some(folder.into()), public_url: Some("https://xene.example".into()), certificates: None }
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";

/// What a destination gets, with a credential in which `URL` is the stand-in's address.
fn check(spec: Value, text: &str, expected: &Expect) {
    let folder = tempfile::tempdir().unwrap();
    let (url, serving) = stand_in(&[OK]);
    credential(folder.path(), "c", &text.replace("URL", &url));
    let said = send(&config(folder.path()), &delivery(spec)).unwrap();
    assert_eq!(said, "200 was answered: ok");
    expected.assert_eq(&serving.join().unwrap()[0]);
}

#[test]
fn a_cloud_event_is_structured_or_binary() {
    let text = "cloudEvents: {url: URL/events, token: s3cret-token, hmac: s3cret-key}";
    let structured = json!({"on": ["Broken"], "cloudEvents": {"credential": "c"}});
    check(
        structured,
        text,
        &expect![[r#"
        POST /events HTTP/1.1
        content-type: application/cloudevents+json; charset=utf-8
        authorization: Bearer s3cret-token
        x-delivery-id: run/01m8991xq0000000000000000a/Broken/7

        {
          "specversion": "1.0",
          "id": "run/01m8991xq0000000000000000a/Broken/7",
          "source": "urn:xene:0123456789abcdef",
          "type": "xene.pipeline.broken",
          "subject": "run/01m8991xq0000000000000000a",
          "time": "2026-11-27T10:00:00.000Z",
          "datacontenttype": "application/json",
          "data": {
            "id": "run/01m8991xq0000000000000000a/Broken/7",
            "at": "2026-11-27T10:00:00.000Z",
            "transition": "Broken",
            "regarding": "run/01m8991xq0000000000000000a",
            "run": "01m8991xq0000000000000000a",
            "workflow": "site",
            "pipeline": "build",
            "revision": "1a2b3c4d5e6f1a2b3c4d5e6f1a2b3c4d5e6f1a2b",
            "trigger": "cron nightly",
            "phase": "Error",
            "reason": "TaskFailed",
            "message": "<!channel> @here [x](https://evil.example)\r\nBcc: all@example.org[U+202E] & <https://evil.example|ok> *b*",
            "agent": "one",
            "notifier": "team",
            "url": "https://xene.example/runs/01m8991xq0000000000000000a"
          }
        }
    "#]],
    );
    let binary = json!({"on": ["Broken"], "cloudEvents": {"credential": "c", "mode": "Binary"}});
    check(
        binary,
        text,
        &expect![[r#"
        POST /events HTTP/1.1
        content-type: application/json
        ce-specversion: 1.0
        ce-id: run/01m8991xq0000000000000000a/Broken/7
        ce-source: urn:xene:0123456789abcdef
        ce-type: xene.pipeline.broken
        ce-subject: run/01m8991xq0000000000000000a
        ce-time: 2026-11-27T10:00:00.000Z
        authorization: Bearer s3cret-token
        x-delivery-id: run/01m8991xq0000000000000000a/Broken/7

        {
          "id": "run/01m8991xq0000000000000000a/Broken/7",
          "at": "2026-11-27T10:00:00.000Z",
          "transition": "Broken",
          "regarding": "run/01m8991xq0000000000000000a",
          "run": "01m8991xq0000000000000000a",
          "workflow": "site",
          "pipeline": "build",
          "revision": "1a2b3c4d5e6f1a2b3c4d5e6f1a2b3c4d5e6f1a2b",
          "trigger": "cron nightly",
          "phase": "Error",
          "reason": "TaskFailed",
          "message": "<!channel> @here [x](https://evil.example)\r\nBcc: all@example.org[U+202E] & <https://evil.example|ok> *b*",
          "agent": "one",
          "notifier": "team",
          "url": "https://xene.example/runs/01m8991xq0000000000000000a"
        }
    "#]],
    );
}

#[test]
fn a_message_of_slack_calls_nobody_and_links_nowhere() {
    let spec = json!({"on": ["Broken"], "slack": {"credential": "c"}});
    check(
        spec,
        "slack: {url: URL/services/T0/B0/s3cret}",
        &expect![[r#"
            POST /services/T0/B0/s3cret HTTP/1.1
            content-type: application/json

            {
              "text": "*Broken:[U+200B] site/build*\n&lt;!channel&gt; @[U+200B]here [x][U+200B](https:[U+200B]//evil.example) Bcc:[U+200B] all@[U+200B]example.org &amp; &lt;https:[U+200B]//evil.example|ok&gt; [U+200B]*b[U+200B]*\nrun 01m8991xq0000000000000000a · reason TaskFailed · trigger cron nightly · commit 1a2b3c4d5e6f1a2b3c4d5e6f1a2b3c4d5e6f1a2b · agent one\n<https://xene.example/runs/01m8991xq0000000000000000a|open>"
            }
        "#]],
    );
}

#[test]
fn each_git_server_hears_in_its_words() {
    for (provider, repository, expected) in [
        (
            "github",
            "acme/shop",
            expect![[r#"
            POST /api/v4/repos/acme/shop/statuses/1a2b3c4d5e6f1a2b3c4d5e6f1a2b3c4d5e6f1a2b HTTP/1.1
            content-type: application/json
            authorization: Bearer s3cret
            accept: application/vnd.github+json
            x-github-api-version: 2022-11-28

            {
              "state": "failure",
              "context": "xene/site/build",
              "description": "Error: <!channel> @here [x](https://evil.example) Bcc: all@example.org & <https://evil.example|ok> *b*",
              "target_url": "https://xene.example/runs/01m8991xq0000000000000000a"
            }
        "#]],
        ),
        (
            "gitlab",
            "acme/web/shop",
            expect![[r#"
            POST /api/v4/projects/acme%2Fweb%2Fshop/statuses/1a2b3c4d5e6f1a2b3c4d5e6f1a2b3c4d5e6f1a2b HTTP/1.1
            content-type: application/json
            private-token: s3cret

            {
              "state": "failed",
              "context": "xene/site/build",
              "description": "Error: <!channel> @here [x](https://evil.example) Bcc: all@example.org & <https://evil.example|ok> *b*",
              "target_url": "https://xene.example/runs/01m8991xq0000000000000000a"
            }
        "#]],
        ),
        (
            "gitea",
            "acme/shop",
            expect![[r#"
            POST /api/v4/repos/acme/shop/statuses/1a2b3c4d5e6f1a2b3c4d5e6f1a2b3c4d5e6f1a2b HTTP/1.1
            content-type: application/json
            authorization: token s3cret

            {
              "state": "failure",
              "context": "xene/site/build",
              "description": "Error: <!channel> @here [x](https://evil.example) Bcc: all@example.org & <https://evil.example|ok> *b*",
              "target_url": "https://xene.example/runs/01m8991xq0000000000000000a"
            }
        "#]],
        ),
    ] {
        let spec = json!({"commitStatus": {"provider": provider, "credential": "c", "repository": repository}});
        check(spec, "commitStatus: {api: URL/api/v4/, token: s3cret, repositories: [acme/**]}", &expected);
    }
}

#[test]
fn mail_has_the_headers_that_it_should_have_and_no_others() {
    let spec = json!({"on": ["Broken"], "email": {"credential": "c", "to": ["ops@example.org", "dev@example.org"]}});
    let mut delivery = delivery(spec);
    delivery.notice.transition = xene_schemas::notifier::Transition::WaitingForApproval;
    delivery.notice.task = Some(HOSTILE.into());
    let to = delivery.spec.email.clone().unwrap();
    let text = mail::formatted(&delivery, &to, "xene <xene@example.org>", Some("https://xene.example"));
    assert_eq!(text, mail::formatted(&delivery, &to, "xene <xene@example.org>", Some("https://xene.example")));
    let (head, _) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.lines().all(|line| !line.to_lowercase().starts_with("bcc")), "{head}");
    expect![[r#"
        From: xene <xene@example.org>
        Message-ID: <c73ec29eb9ef3ce97964cf4b8c7a1f6d@xene.invalid>
        Date: Fri, 27 Nov 2026 10:00:00 +0000
        Subject: [xene] WaitingForApproval: site/build, task <!channel> @here
         [x](https://evil.example) Bcc: all@example.org & <https://evil.example|ok>
         *b*
        To: ops@example.org, dev@example.org
        Auto-Submitted: auto-generated
        Content-Type: text/plain; charset=utf-8
        Content-Transfer-Encoding: quoted-printable

        WaitingForApproval: site/build, task <!channel> @here [x](https://evil.exam=
        ple) Bcc: all@example.org & <https://evil.example|ok> *b*

        <!channel> @here [x](https://evil.example) Bcc: all@example.org & <https://=
        evil.example|ok> *b*

        run: 01m8991xq0000000000000000a
        reason: TaskFailed
        trigger: cron nightly
        commit: 1a2b3c4d5e6f1a2b3c4d5e6f1a2b3c4d5e6f1a2b
        agent: one
        at: 2026-11-27T10:00:00Z

        https://xene.example/runs/01m8991xq0000000000000000a
    "#]]
    .assert_eq(&text.replace("\r\n", "\n"));
}

#[test]
fn a_credential_says_where_things_may_go_and_who_may_know() {
    let folder = tempfile::tempdir().unwrap();
    let chat = json!({"on": ["Broken"], "slack": {"credential": "c"}});
    let status =
        |repository: &str| json!({"commitStatus": {"provider": "github", "credential": "c", "repository": repository}});
    let mail = |to: &str| json!({"on": ["Broken"], "email": {"credential": "c", "to": [to]}});
    let why = |spec: &Value, text: &str| {
        credential(folder.path(), "c", text);
        let failure = send(&config(folder.path()), &delivery(spec.clone())).unwrap_err();
        assert!(failure.retry, "an operator may mend it: {failure:?}");
        failure.why
    };
    let table = [
        (&chat, "cloudEvents: {url: https://h/}", "the credential c is not one for slack"),
        (&chat, "slack: {url: http://chat.example/x}", "the URL of the credential c is not one of https"),
        (&chat, "slack: {url: ftp://chat.example/x}", "the credential c has no URL such as https://host/path"),
        (&chat, "slack: {url: s3cret", "c.yaml of --notify-secrets is no credential at line"),
        (&chat, "slack: {url: https://h/, path: s3cret}", "c.yaml of --notify-secrets is no credential at line"),
        (
            &status("acme/other"),
            "commitStatus: {api: https://h, token: t, repositories: [acme/shop]}",
            "the credential c is not one for the repository acme/other",
        ),
        (
            &mail("someone@else.example"),
            "email: {host: h, from: x@example.org, to: ['*@example.org']}",
            "the credential c does not let someone@else.example be written to",
        ),
        (
            &mail("ops@example.org"),
            "email: {host: mail.example, tls: none, from: x@example.org, to: ['*@EXAMPLE.org']}",
            "the credential c would send mail to mail.example in the clear",
        ),
    ];
    for (spec, text, expected) in table {
        let why = why(spec, text);
        assert!(why.starts_with(expected) && !why.contains("s3cret"), "{why}");
    }
    credential(folder.path(), "c", "slack: {url: https://h/}");
    let open = fs::Permissions::from_mode(0o640);
    fs::set_permissions(folder.path().join("c.yaml"), open).unwrap();
    let failure = send(&config(folder.path()), &delivery(chat.clone())).unwrap_err();
    assert_eq!(failure.why, "c.yaml of --notify-secrets is open to others (mode 640): chmod 600 it");
    fs::remove_file(folder.path().join("c.yaml")).unwrap();
    let failure = send(&config(folder.path()), &delivery(chat.clone())).unwrap_err();
    assert_eq!(failure.why, "there is no credential named c: --notify-secrets has no c.yaml");
    let failure = send(&Config::default(), &delivery(chat)).unwrap_err();
    assert!(failure.why.contains("without --notify-secrets"), "{failure:?}");
}

#[test]
fn no_secret_comes_back_with_an_answer_and_no_redirect_is_followed() {
    let folder = tempfile::tempdir().unwrap();
    let chat = json!({"on": ["Broken"], "slack": {"credential": "c"}});
    let (url, serving) = stand_in(&[
        "HTTP/1.1 500 No\r\ncontent-length: 62\r\nconnection: close\r\n\r\nno: services/T0/B0/s3cret\n\x1b[2J and more of it, line after line",
        "HTTP/1.1 307 Go\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
        "HTTP/1.1 429 Slow\r\nretry-after: 30\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
    ]);
    credential(folder.path(), "c", &format!("slack: {{url: {url}/services/T0/B0/s3cret}}"));
    let send = || send(&config(folder.path()), &delivery(chat.clone()));
    let failure = send().unwrap_err();
    assert_eq!(failure.why, "500 was answered: no: *** [2J and more of it, line after line");
    assert!(failure.retry);
    let failure = send().unwrap_err();
    assert_eq!((failure.retry, failure.why.contains("is not followed")), (false, true), "{failure:?}");
    assert_eq!(send().unwrap_err().retry_after, Some(Duration::from_secs(30)));
    serving.join().unwrap();
    let failure = send().unwrap_err();
    assert_eq!((failure.retry, &*failure.why), (true, "it can't be reached: connection refused"));
}

#[test]
fn texts_are_plain_whatever_they_hold() {
    assert_eq!(text::plain("a\r\nb\tc\u{0}\u{202e}d\u{200b}", 50), "a b c d");
    assert_eq!(text::plain("äöü", 2), "äö…");
    assert_eq!(text::plain("  ", 2), "");
}
