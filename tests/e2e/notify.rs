//! Notifications as their destinations get them: of real processes, over crashes, and with hostile words.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::{Arc, Mutex},
    thread,
};

use serde_json::Value;
use xene_test_support::{cluster::Cluster, eventually};

/// A request, or a mail.
#[derive(Debug, Clone, Default)]
struct Got {
    /// `POST /path`, or `MAIL`.
    what: String,
    /// Its headers with names in lower case; of a mail what its client said.
    headers: Vec<(String, String)>,
    body: String,
}

impl Got {
    fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(found, _)| found == name).map_or("", |(_, value)| value)
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// A destination in this process.
#[derive(Clone)]
struct StandIn {
    address: SocketAddr,
    got: Arc<Mutex<Vec<Got>>>,
}

impl StandIn {
    fn start(address: &str, serve: fn(&mut TcpStream) -> Option<Got>) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let stand_in = Self { address: listener.local_addr().unwrap(), got: Arc::default() };
        let got = stand_in.got.clone();
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                if let Some(one) = serve(&mut stream) {
                    got.lock().unwrap().push(one);
                }
            }
        });
        stand_in
    }

    fn got(&self) -> Vec<Got> {
        self.got.lock().unwrap().clone()
    }

    /// Waits until what came is as it should be.
    #[track_caller]
    fn until(&self, what: &str, holds: impl Fn(&[Got]) -> bool) -> Vec<Got> {
        eventually(what, || {
            let got = self.got();
            if holds(&got) { Ok(got) } else { Err(format!("{got:#?}")) }
        })
    }
}

fn http(stream: &mut TcpStream) -> Option<Got> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut got = Got { what: line.rsplit_once(' ')?.0.to_owned(), ..Got::default() };
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        got.headers.push((name.to_lowercase(), value.to_owned()));
    }
    let mut body = vec![0; got.header("content-length").parse().ok()?];
    reader.read_exact(&mut body).ok()?;
    got.body = String::from_utf8(body).ok()?;
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok").ok()?;
    Some(got)
}

/// As much of SMTP as a client needs that has one mail.
fn smtp(stream: &mut TcpStream) -> Option<Got> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut got = Got { what: "MAIL".into(), ..Got::default() };
    stream.write_all(b"220 here\r\n").ok()?;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return (!got.body.is_empty()).then_some(got);
        }
        let (verb, rest) = line.trim_end().split_once(' ').unwrap_or_else(|| (line.trim_end(), ""));
        got.headers.push((verb.to_lowercase(), rest.to_owned()));
        let answer: &[u8] = match verb {
            "EHLO" => b"250-here\r\n250 AUTH PLAIN LOGIN\r\n",
            "AUTH" => b"235 welcome\r\n",
            "DATA" => {
                stream.write_all(b"354 go on\r\n").ok()?;
                while !got.body.ends_with("\r\n.\r\n") {
                    reader.read_line(&mut got.body).ok()?;
                }
                b"250 taken\r\n"
            }
            "QUIT" => {
                stream.write_all(b"221 bye\r\n").ok()?;
                return Some(got);
            }
            _ => b"250 well\r\n",
        };
        stream.write_all(answer).ok()?;
    }
}

fn credential(folder: &Path, name: &str, text: &str) {
    let path = folder.join(format!("{name}.yaml"));
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
}

fn with_secrets(folder: &Path) -> Cluster {
    Cluster::start(&["--notify-secrets", folder.to_str().unwrap(), "--public-url", "https://xene.example/"])
}

const WORKFLOW: &str = r#"
apiVersion: xene/v1
kind: Workflow
metadata: {name: site, labels: {team: web}}
spec:
  params: {code: {type: integer, default: 0}}
  pipelines:
    build: {tasks: {make: {steps: ['exit "$XENE_PARAM_CODE"']}}}
    gated:
      tasks: {t: {steps: ['true']}, deploy: {steps: ['true']}}
      connectors:
        - {from: t, to: deploy, approval: {message: "<!channel> @here\r\nBcc: all@example.org", timeout: 1h}}
"#;

fn notifier(name: &str, spec: &str) -> String {
    format!("---\napiVersion: xene/v1\nkind: Notifier\nmetadata: {{name: {name}}}\nspec: {spec}\n")
}

#[test]
fn a_destination_that_is_away_is_told_all_of_it_once_it_is_back_also_over_a_crash() {
    let secrets = tempfile::tempdir().unwrap();
    let mut cluster = with_secrets(secrets.path());
    cluster.start_agent("one", &[]);
    // Nobody listens there yet.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    credential(secrets.path(), "bus", &format!("cloudEvents: {{url: 'http://{address}/events'}}"));
    let on = "{on: [Success, Error, Broken, Recovered], cloudEvents: {credential: bus}}";
    cluster.repository.write("xene.d/site.yaml", &format!("{WORKFLOW}{}", notifier("bus", on)));
    cluster.commit("a workflow and a notifier");
    cluster.scheduled("site/build");
    let runs = [("0", 0), ("1", 1), ("0", 0)].map(|(code, status)| {
        let started = cluster.run(&["trigger", "site/build", "-p", &format!("code={code}"), "--wait"]);
        started.expect(status).stdout.trim().to_owned()
    });
    // Success; Error, Broken; Success, Recovered.
    let waits = cluster.until("five wait", &["get", "notifiers", "bus"], |notifier| {
        notifier["status"]["pending"] == 5 && notifier["status"]["phase"] == "Failing"
    });
    assert_eq!(waits["status"]["error"], "it can't be reached: connection refused");
    cluster.kill_controller();

    let bus = StandIn::start(&address.to_string(), http);
    cluster.start_controller();
    let events = bus.until("all have come", |got| got.len() >= 5);
    let events: Vec<Value> = events.iter().map(Got::json).collect();
    let said: Vec<_> = events
        .iter()
        .map(|event| (event["type"].as_str().unwrap(), event["data"]["run"].as_str().unwrap().to_owned()))
        .collect();
    let expected = [
        ("xene.run.success", runs[0].clone()),
        ("xene.run.error", runs[1].clone()),
        ("xene.pipeline.broken", runs[1].clone()),
        ("xene.run.success", runs[2].clone()),
        ("xene.pipeline.recovered", runs[2].clone()),
    ];
    assert_eq!(said, expected);
    let ids: BTreeSet<_> = events.iter().map(|event| event["id"].as_str().unwrap()).collect();
    let sources: BTreeSet<_> = events.iter().map(|event| event["source"].as_str().unwrap()).collect();
    assert_eq!((ids.len(), sources.len()), (5, 1));
    cluster.until("nothing waits", &["get", "notifiers", "bus"], |notifier| {
        notifier["status"]["pending"] == 0 && notifier["status"]["delivered"] == 5
    });

    // Restarts of either side tell nothing again: the next that comes is news.
    cluster.kill_controller();
    cluster.start_controller();
    cluster.kill_agent("one");
    cluster.restart_agent("one", &[]);
    cluster.scheduled("site/build");
    let last = cluster.run(&["trigger", "site/build", "-p", "code=0", "--wait"]).expect(0).stdout;
    let got = bus.until("the next has come", |got| got.len() >= 6);
    assert_eq!((got.len(), got[5].json()["data"]["run"].as_str().unwrap()), (6, last.trim()));
    // The answer has to reach the controller before it counts.
    cluster
        .until("it counts as delivered", &["get", "notifiers", "bus"], |notifier| notifier["status"]["delivered"] == 6);
    let metrics = ureq::get(format!("{}/metrics", cluster.server()))
        .header("authorization", format!("Bearer {}", cluster.token()))
        .call()
        .unwrap();
    let metrics = metrics.into_body().read_to_string().unwrap();
    assert!(metrics.contains("xene_notifications_total{fate=\"Delivered\"} 1\n"), "{metrics}");
}

#[test]
fn each_destination_gets_what_it_wants_and_no_words_do_harm() {
    let secrets = tempfile::tempdir().unwrap();
    let (web, mail) = (StandIn::start("127.0.0.1:0", http), StandIn::start("127.0.0.1:0", smtp));
    let url = format!("http://{}", web.address);
    credential(secrets.path(), "bus", &format!("cloudEvents: {{url: '{url}/events', token: t0ken, hmac: k3y}}"));
    credential(secrets.path(), "chat", &format!("slack: {{url: '{url}/services/T0/s3cret'}}"));
    let status = |api: &str| format!("commitStatus: {{api: '{url}/{api}', token: t0ken, repositories: ['acme/*']}}");
    credential(secrets.path(), "github", &status("github"));
    credential(secrets.path(), "gitlab", &status("gitlab/api/v4"));
    credential(secrets.path(), "gitea", &status("gitea/api/v1"));
    let port = mail.address.port();
    let text = format!(
        "email: {{host: 127.0.0.1, port: {port}, tls: none, user: u, password: p4ss, from: x@example.org, to: ['*@example.org']}}"
    );
    credential(secrets.path(), "mail", &text);

    let mut cluster = with_secrets(secrets.path());
    cluster.start_agent("one", &[]);
    let of_commit = |provider: &str| {
        let to = format!("{{provider: {provider}, credential: {provider}, repository: acme/site}}");
        notifier(provider, &format!("{{select: {{pipelines: [build]}}, commitStatus: {to}}}"))
    };
    let notifiers = [
        notifier("bus", "{on: [WaitingForApproval], cloudEvents: {credential: bus, mode: Binary}}"),
        notifier("chat", "{on: [WaitingForApproval], select: {labels: {team: web}}, slack: {credential: chat}}"),
        notifier("mail", "{on: [WaitingForApproval], email: {credential: mail, to: [ops@example.org]}}"),
        notifier("others", "{on: [Success, Error], select: {labels: {team: none}}, slack: {credential: chat}}"),
        of_commit("github"),
        of_commit("gitlab"),
        of_commit("gitea"),
    ];
    cluster.repository.write("xene.d/site.yaml", &format!("{WORKFLOW}{}", notifiers.concat()));
    let revision = cluster.commit("notifiers");
    cluster.scheduled("site/gated");
    cluster.scheduled("site/build");
    let gated = cluster.run(&["trigger", "site/gated"]).expect(0).stdout.trim().to_owned();
    let got = web.until("two are told of the approval", |got| got.len() >= 2);
    let event = got.iter().find(|got| got.what == "POST /events").unwrap();
    assert_eq!(
        event.header("ce-id").split('/').take(4).collect::<Vec<_>>()[1..],
        [&*gated, "WaitingForApproval", "deploy"]
    );
    assert_eq!(event.header("ce-type"), "xene.task.waiting-for-approval");
    assert_eq!(event.header("authorization"), "Bearer t0ken");
    assert!(event.header("x-signature").starts_with("sha256="));
    assert_eq!(event.json()["url"], format!("https://xene.example/runs/{gated}"));
    let chat = got.iter().find(|got| got.what == "POST /services/T0/s3cret").unwrap().json();
    let said = chat["text"].as_str().unwrap();
    assert!(said.contains("&lt;!channel&gt; @\u{200b}here Bcc:\u{200b} all"), "{said}");
    assert_eq!(said.matches('<').count(), 1, "our own link: {said}");
    let mails = mail.until("a mail has come", |got| !got.is_empty());
    let recipients: Vec<_> = mails[0].headers.iter().filter(|(verb, _)| verb == "rcpt").map(|(_, to)| &**to).collect();
    assert_eq!(recipients, ["TO:<ops@example.org>"]);
    assert_eq!(mails[0].header("auth"), "PLAIN AHUAcDRzcw==");
    let (head, body) = mails[0].body.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("Subject: [xene] WaitingForApproval: site/gated, task deploy\r\n"), "{head}");
    assert!(!head.to_lowercase().lines().any(|line| line.starts_with("bcc")), "{head}");
    assert!(body.contains("<!channel> @here Bcc: all@example.org"), "{body}");

    cluster.run(&["trigger", "site/build", "-p", "code=1", "--wait"]).expect(1);
    let paths = [
        (format!("POST /github/repos/acme/site/statuses/{revision}"), "failure", "authorization", "Bearer t0ken"),
        (format!("POST /gitlab/api/v4/projects/acme%2Fsite/statuses/{revision}"), "failed", "private-token", "t0ken"),
        (format!("POST /gitea/api/v1/repos/acme/site/statuses/{revision}"), "failure", "authorization", "token t0ken"),
    ];
    for (path, state, header, value) in &paths {
        let got = web.until(path, |got| got.iter().any(|got| got.what == *path && got.json()["state"] == *state));
        let last = got.iter().rfind(|got| got.what == *path).unwrap();
        let status = last.json();
        assert_eq!((last.header(header), &status["state"]), (*value, &Value::from(*state)), "the newest comes last");
        assert_eq!(status["context"], "xene/site/build");
        assert!(status["target_url"].as_str().unwrap().starts_with("https://xene.example/runs/"), "{status}");
        assert!(status["description"].as_str().unwrap().starts_with("Error: "), "{status}");
    }

    let tried = cluster.run(&["notifiers", "test", "chat"]).expect(0);
    assert!(tried.stderr.contains("notifier chat delivers: 200 was answered: ok"), "{tried:?}");
    let path = secrets.path().join("chat.yaml");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let tried = cluster.run(&["notifiers", "test", "chat"]).expect(1);
    assert!(tried.stderr.contains("chat.yaml of --notify-secrets is open to others (mode 644)"), "{tried:?}");
    cluster.run(&["notifiers", "test", "nobody"]).expect(4);
    let told: Vec<_> = web.got().into_iter().filter(|got| got.body.contains("Test of notifier chat")).collect();
    assert_eq!(told.len(), 1);

    // What a broken file last gave stays; what a commit takes away goes.
    cluster.repository.write("xene.d/site.yaml", &format!("{WORKFLOW}{}", notifier("chat", "{on: [Nonsense]}")));
    cluster.commit("a mistake");
    let list = cluster.run(&["get", "notifiers"]).expect(0).stdout;
    assert!(list.lines().count() == 8 && list.lines().skip(1).all(|line| line.contains("Invalid")), "{list}");
    cluster.kill_controller();
    cluster.start_controller();
    let list = cluster.run(&["get", "notifiers"]).expect(0).stdout;
    assert!(list.lines().count() == 8 && list.lines().skip(1).all(|line| line.contains("Invalid")), "{list}");
    cluster.repository.write("xene.d/site.yaml", WORKFLOW);
    cluster.commit("nobody is told");
    assert_eq!(cluster.run(&["get", "notifiers", "-o", "name"]).expect(0).stdout, "");
}
