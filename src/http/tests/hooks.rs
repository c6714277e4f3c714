//! Webhook triggers with `auth`: what git servers really send, and what is sent again or forged.

use ring::hmac;

use super::*;

/// As GitHub sends it, cut down.
const GITHUB: &str = r#"{"ref":"refs/heads/main","before":"6113728f27ae82c7b1a177c8d03f9e96e0adf246",
"after":"59b20b8d5c6ff8d09518454d4dd8b7b30f095ab5","created":false,"deleted":false,"forced":false,
"compare":"https://github.com/octo/hello/compare/6113728f27ae...59b20b8d5c6f",
"commits":[{"id":"59b20b8d5c6ff8d09518454d4dd8b7b30f095ab5","message":"Update; rm -rf / && $(id)","added":[],
"modified":["README.md"],"author":{"name":"Octo","email":"octo@example.com","username":"octo"}}],
"head_commit":{"id":"59b20b8d5c6ff8d09518454d4dd8b7b30f095ab5","message":"Update; rm -rf / && $(id)"},
"repository":{"id":17273051,"name":"hello","full_name":"octo/hello","private":true,"default_branch":"main"},
"pusher":{"name":"octo","email":"octo@example.com"},"sender":{"login":"octo","id":583231,"type":"User"}}"#;

/// As GitLab sends it, cut down.
const GITLAB: &str = r#"{"object_kind":"push","event_name":"push","before":"95790bf891e76fee5e1747ab589903a6a1f80f22",
"after":"da1560886d4f094c3e6c9ef40349f7d38b5d27d7","ref":"refs/heads/main","ref_protected":true,
"checkout_sha":"da1560886d4f094c3e6c9ef40349f7d38b5d27d7","user_id":4,"user_name":"John","user_username":"john",
"project_id":15,"project":{"id":15,"name":"Diaspora","path_with_namespace":"mike/diaspora","default_branch":"main"},
"commits":[{"id":"da1560886d4f094c3e6c9ef40349f7d38b5d27d7","message":"Fix the readme","title":"Fix the readme",
"timestamp":"2026-01-03T23:36:29+02:00","author":{"name":"John","email":"john@example.com"},"added":["CHANGELOG"],
"modified":[],"removed":[]}],"total_commits_count":1}"#;

/// As Gitea and Forgejo send it, cut down.
const GITEA: &str = r#"{"ref":"refs/heads/main","before":"28e1879d029cb852e4844d9c718537df08844e03",
"after":"bffeb74224043ba2feb48d137756c8a9331c449a","compare_url":"http://localhost:3000/gitea/webhooks/compare/a...b",
"commits":[{"id":"bffeb74224043ba2feb48d137756c8a9331c449a","message":"Webhooks Yay!","url":"http://localhost:3000/x",
"author":{"name":"Gitea","email":"someone@gitea.io","username":"gitea"},"timestamp":"2026-03-13T13:52:11-04:00"}],
"repository":{"id":140,"name":"webhooks","full_name":"gitea/webhooks","private":false,"default_branch":"main"},
"pusher":{"id":1,"login":"gitea","full_name":"Gitea"},"sender":{"id":1,"login":"gitea"}}"#;

/// As Bitbucket sends it, cut down.
const BITBUCKET: &str = r#"{"push":{"changes":[{"new":{"type":"branch","name":"main","target":{"hash":
"709d658dc5b6d6afcd46049c2f332ee3f515a67d","message":"new commit"}},"created":false,"forced":false}]},
"repository":{"full_name":"team/repo","name":"repo"},"actor":{"display_name":"Emma","nickname":"emma"}}"#;

/// A trigger, the headers and the body that it is sent, and the commit that is built then.
type Delivery<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str, &'a str);

fn seed_hooks(store: &Store) {
    let trigger = |kind: &str, when: &str, commit: &str| {
        json!({"type": "webhook", "auth": {"type": kind, "secret": "hooks/push"}, "when": when,
               "params": {"commit": commit}})
    };
    let main = r#"payload.ref == "refs/heads/main""#;
    let spec = json!({
        "triggers": {
            "github": trigger("github", main, "payload.after"),
            "gitlab": trigger("gitlab", r#"payload.object_kind == "push" && payload.ref.endsWith("/main")"#,
                              "payload.checkout_sha"),
            "gitea": trigger("gitea", main, "payload.after"),
            "bitbucket": trigger("bitbucket", r#"payload.push.changes[0].new.name == "main""#,
                                 "payload.push.changes[0].new.target.hash"),
            "own": trigger("hmac-sha256", "true", "payload.commit"),
            "token": trigger("token", "true", "payload.commit"),
            "resting": {"type": "webhook", "suspend": true, "auth": {"type": "token", "secret": "hooks/push"}},
        },
        "pipelines": {
            "build": {"triggers": ["github", "gitlab", "gitea", "bitbucket", "own", "token", "resting"],
                      "params": {"commit": {"default": "none"}}, "tasks": {"t": {"steps": ["true"]}}},
        },
    });
    seed_spec(store, "hooked", spec);
}

/// One commit of all that is ordered at once.
pub(super) fn start_all(store: &Store, orders: &[RunOrder]) -> Result<Answer, Refusal> {
    let (mut runs, mut batch) = (Vec::new(), Vec::new());
    for order in orders {
        let command = Command::StartRun(order.clone());
        let row = row(&order.pipeline, order.run, Some(&command), RunPhase::StartingUp);
        runs.push(row.run.clone());
        batch.push(Change::PutRun(Box::new(row)));
        let delivery = order.delivery.clone();
        batch.extend(delivery.map(|it| Change::PutDelivery(order.pipeline.clone(), it.id, order.run)));
    }
    commit(store, batch);
    Ok(Answer::Runs(runs))
}

fn signature(secret: &str, bytes: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    hmac::sign(&key, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

impl World {
    /// The secret of a trigger, as an operator reads it.
    async fn secret(&self, trigger: &str) -> String {
        let (_, pipeline) = read(self.get("/api/v1/pipelines/hooked/build").await).await;
        let hooks = pipeline["status"]["webhooks"].as_array().unwrap().clone();
        let hook = hooks.iter().find(|hook| hook["trigger"] == trigger).unwrap();
        assert_eq!(hook["path"], format!("/hooks/hooked/triggers/{trigger}"));
        hook["secret"].as_str().unwrap().to_owned()
    }

    async fn hook(&self, trigger: &str, headers: &[(&str, &str)], body: &str) -> (u16, Value) {
        read(self.ask("POST", &format!("/hooks/hooked/triggers/{trigger}"), headers, body.to_owned()).await).await
    }

    fn commits(&self) -> Vec<String> {
        let asked = self.asked.lock().unwrap();
        let params = asked.iter().filter_map(|command| match command {
            Command::StartRuns(orders) => Some(orders[0].params["commit"].clone()),
            _ => None,
        });
        params.collect()
    }
}

#[tokio::test]
async fn what_git_servers_send_starts_a_run_once() {
    let world = World::new();
    seed_hooks(&world.store);
    let sign = async |trigger: &str, body: &str| signature(&world.secret(trigger).await, body.as_bytes());
    let (github, gitea) = (sign("github", GITHUB).await, sign("gitea", GITEA).await);
    let bitbucket = sign("bitbucket", BITBUCKET).await;
    let (github, bitbucket) = (format!("sha256={github}"), format!("sha256={bitbucket}"));
    let gitlab = world.secret("gitlab").await;
    let deliveries: [Delivery<'_>; 4] = [
        (
            "github",
            &[
                ("x-github-event", "push"),
                ("x-github-delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0958"),
                ("x-hub-signature-256", &github),
            ],
            GITHUB,
            "59b20b8d5c6ff8d09518454d4dd8b7b30f095ab5",
        ),
        (
            "gitlab",
            &[
                ("x-gitlab-event", "Push Hook"),
                ("x-gitlab-event-uuid", "13792a34-cac6-4fda-95a8-c58e00a3954e"),
                ("idempotency-key", "f5e5f430-f57b-4e6e-9fac-d9128cd7232f"),
                ("x-gitlab-token", &gitlab),
            ],
            GITLAB,
            "da1560886d4f094c3e6c9ef40349f7d38b5d27d7",
        ),
        (
            "gitea",
            &[
                ("x-gitea-event", "push"),
                ("x-gitea-delivery", "f6266f16-1bf3-46a5-9ea4-602e06ead473"),
                ("x-gitea-signature", &gitea),
            ],
            GITEA,
            "bffeb74224043ba2feb48d137756c8a9331c449a",
        ),
        (
            "bitbucket",
            &[
                ("x-event-key", "repo:push"),
                ("x-request-uuid", "86c86ac7-3b0e-4b1a-9b8b-1d2a4a0a4b11"),
                ("x-hub-signature", &bitbucket),
            ],
            BITBUCKET,
            "709d658dc5b6d6afcd46049c2f332ee3f515a67d",
        ),
    ];
    for (n, (trigger, headers, body, commit)) in deliveries.into_iter().enumerate() {
        let (status, first) = world.hook(trigger, headers, body).await;
        assert_eq!(status, 202, "{trigger}: {first}");
        let run = world.store.run(first["run"].as_str().unwrap().parse().unwrap()).unwrap();
        assert!(run.is_some(), "{trigger}: it is durable");
        assert_eq!(world.hook(trigger, headers, body).await, (202, first), "{trigger}: sent again");
        assert_eq!(world.commits().len(), n + 1, "{trigger}");
        assert_eq!(world.commits()[n], commit);
    }
    let sent: Vec<_> = world.asked.lock().unwrap().clone();
    let Command::StartRuns(orders) = &sent[0] else { panic!() };
    let RunOrder { payload, trigger, .. } = &orders[0];
    assert_eq!(payload.as_deref(), Some(GITHUB.as_bytes()), "as it came");
    assert_eq!((trigger.name.as_ref().unwrap().as_str(), trigger.by.as_deref()), ("github", Some("webhook")));

    // Filtered, a ping, suspended.
    let other = GITHUB.replace("heads/main", "heads/other");
    let hub = format!("sha256={}", sign("github", &other).await);
    let filtered = world.hook("github", &[("x-hub-signature-256", &hub)], &other).await;
    assert_eq!(filtered, (202, json!({"reason": "Filtered"})));
    let zen = r#"{"zen": "Keep it logically awesome.", "hook_id": 1}"#;
    let hub = format!("sha256={}", sign("github", zen).await);
    let ping = world.hook("github", &[("x-hub-signature-256", &hub), ("x-github-event", "ping")], zen).await;
    assert_eq!(ping, (202, json!({"reason": "Ping"})));
    let resting = world.secret("resting").await;
    assert_eq!(world.hook("resting", &[("x-xene-token", &resting)], "{}").await.0, 409);
    assert_eq!(world.commits().len(), 4);
}

#[tokio::test]
async fn forged_and_unknown_are_refused_alike_and_change_nothing() {
    let world = World::new();
    seed_hooks(&world.store);
    let secret = world.secret("github").await;
    let other = world.secret("gitea").await;
    let good = format!("sha256={}", signature(&secret, GITHUB.as_bytes()));
    let foreign = format!("sha256={}", signature(&other, GITHUB.as_bytes()));
    let pipeline_token = HookSecret([7; 32]).token(&"hooked/build".parse().unwrap());
    let revision = world.store.revision().unwrap();
    let unknown = world.hook("nonesuch", &[("x-hub-signature-256", &good)], GITHUB).await;
    assert_eq!(unknown.0, 401);
    let tampered = GITHUB.replace("octo", "evil");
    for (headers, body) in [
        (vec![], GITHUB),
        (vec![("x-hub-signature-256", &*foreign)], GITHUB),
        (vec![("x-hub-signature-256", "sha256=")], GITHUB),
        (vec![("x-hub-signature-256", "sha1=00")], GITHUB),
        (vec![("x-hub-signature-256", &*good)], &*tampered),
        (vec![("x-hub-signature", &*good)], GITHUB),
        (vec![("authorization", "Bearer wrong")], GITHUB),
        (vec![("x-xene-token", &*pipeline_token)], GITHUB),
        (vec![("x-hub-signature-256", &*good)], "not even JSON"),
    ] {
        assert_eq!(world.hook("github", &headers, body).await, unknown, "{headers:?}");
    }
    let big = "x".repeat(MAX_BODY + 1);
    for trigger in ["github", "nonesuch"] {
        assert_eq!(world.hook(trigger, &[("x-hub-signature-256", &good)], &big).await.0, 413, "{trigger}");
    }
    assert!(world.asked.lock().unwrap().is_empty());
    assert_eq!(world.store.revision().unwrap(), revision);
    assert_eq!(world.hook("github", &[("authorization", "Bearer s3cret")], GITHUB).await.0, 202, "who may start it");
}

#[tokio::test]
async fn a_delivery_of_our_own_scheme_counts_once_within_five_minutes() {
    let world = World::new();
    seed_hooks(&world.store);
    let secret = world.secret("own").await;
    let now = xene_agent::clock::now().wall.as_second();
    let body = r#"{"commit": "c1"}"#;
    let send = async |time: i64, id: Option<&str>| {
        let signed = [format!("{time}.{}.", id.unwrap_or_default()).as_bytes(), body.as_bytes()].concat();
        let (time, hex) = (time.to_string(), format!("sha256={}", signature(&secret, &signed)));
        let mut headers = vec![("x-timestamp", &*time), ("x-signature", &*hex)];
        headers.extend(id.map(|id| ("x-delivery-id", id)));
        world.hook("own", &headers, body).await
    };
    let (status, first) = send(now, None).await;
    assert_eq!(status, 202, "{first}");
    assert_eq!(send(now, None).await.1, first, "replayed");
    let hex = signature(&secret, &[format!("{now}..").as_bytes(), body.as_bytes()].concat()).to_uppercase();
    let headers = [("x-timestamp", &*now.to_string()), ("x-signature", &*format!("sha256={hex}"))];
    assert_eq!(world.hook("own", &headers, body).await.1, first, "replayed in other letters");
    assert_ne!(send(now - 1, None).await.1, first, "sent anew");
    let (_, named) = send(now, Some("7")).await;
    assert_eq!(send(now - 2, Some("7")).await.1, named, "tried again");
    assert_eq!(send(now - 301, Some("8")).await.0, 401);
    assert_eq!(send(now + 330, Some("8")).await.0, 401);
    assert_eq!(world.commits().len(), 3);

    let token = world.secret("token").await;
    let bearer = format!("Bearer {token}");
    assert_eq!(world.hook("token", &[("authorization", &bearer)], body).await.0, 202);
    let (_, other) = world.hook("token", &[("authorization", &bearer), ("x-delivery-id", "7")], body).await;
    assert_ne!(other, named, "another sender's seventh delivery");
    let header = ("authorization", &*bearer);
    let own = world.ask("POST", "/hooks/hooked/pipelines/build", &[header], body.to_owned()).await;
    assert_eq!(own.status(), 401, "a trigger's secret is no pipeline's token");
}

#[tokio::test]
async fn a_delivery_that_cannot_be_made_durable_is_refused_and_can_be_sent_again() {
    let world = World::new();
    seed_hooks(&world.store);
    let secret = world.secret("github").await;
    let hub = format!("sha256={}", signature(&secret, GITHUB.as_bytes()));
    let headers = [("x-github-delivery", "d"), ("x-hub-signature-256", &*hub)];
    *world.trouble.lock().unwrap() = Some(Trouble::DiskFull);
    assert_eq!(world.hook("github", &headers, GITHUB).await.0, 507);
    *world.trouble.lock().unwrap() = None;
    assert_eq!(world.hook("github", &headers, GITHUB).await.0, 202);
    assert_eq!(world.commits().len(), 1);
    *world.trouble.lock().unwrap() = Some(Trouble::Gone);
    let (status, answer) = world.hook("github", &[headers[1]], GITHUB).await;
    assert_eq!(status, 503, "{answer}");
}

#[tokio::test]
async fn a_trigger_of_several_pipelines_starts_all_at_once_or_none() {
    let world = World::new();
    let step = json!({"t": {"steps": ["true"]}});
    let pipeline = json!({"triggers": ["push"], "tasks": step});
    let spec = json!({
        "triggers": {"push": {"type": "webhook"}},
        "pipelines": {"one": pipeline, "two": pipeline, "three": {"tasks": step}},
    });
    seed_spec(&world.store, "many", spec);
    let sent = async |id: &str| {
        let headers = [("authorization", "Bearer s3cret"), ("x-delivery-id", id)];
        read(world.ask("POST", "/hooks/many/triggers/push", &headers, "{}").await).await
    };
    *world.trouble.lock().unwrap() = Some(Trouble::DiskFull);
    let before = world.store.revision().unwrap();
    assert_eq!(sent("d1").await.0, 507);
    assert_eq!(world.store.revision().unwrap(), before, "none of them");
    *world.trouble.lock().unwrap() = None;
    let (status, answer) = sent("d1").await;
    assert_eq!(status, 202, "{answer}");
    let runs: Vec<RunName> = serde_json::from_value(answer["runs"].clone()).unwrap();
    assert_eq!(runs.len(), 2);
    assert!(runs.iter().all(|run| world.store.run(*run).unwrap().is_some()));
    assert_eq!(sent("d1").await, (202, answer), "sent again");
    let asked = world.asked.lock().unwrap();
    let [Command::StartRuns(orders)] = &asked[..] else { panic!("one command, one commit: {asked:?}") };
    let started: Vec<_> = orders.iter().map(|order| order.pipeline.pipeline.as_str()).collect();
    assert_eq!(started, ["one", "two"]);
}
