//! Who may what: roles, scopes, API tokens, the audit log.

use xene_schemas::access::Role;

use super::*;

impl World {
    /// Asks with a token; an empty body of POST.
    async fn with(&self, token: &str, method: &str, path: &str, body: &str) -> (u16, Value) {
        let header = format!("Bearer {token}");
        read(self.ask(method, path, &[("authorization", &header)], body.to_owned()).await).await
    }

    /// A new API token.
    pub(super) async fn token(&self, body: &Value) -> String {
        let (status, answer) = self.with(ADMIN, "POST", "/api/v1/tokens", &body.to_string()).await;
        assert_eq!(status, 201, "{answer}");
        answer["token"].as_str().unwrap().to_owned()
    }
}

#[tokio::test]
async fn an_api_token_is_shown_once_listed_without_its_secret_and_refused_once_revoked() {
    let world = World::new();
    let (status, made) =
        world.with(ADMIN, "POST", "/api/v1/tokens", r#"{"role": "operator", "name": "ci", "ttl": "30d"}"#).await;
    assert_eq!(status, 201, "{made}");
    let token = made["token"].as_str().unwrap();
    let parts: Vec<_> = token.split('.').collect();
    assert_eq!((parts.len(), parts[0], parts[1]), (3, "xene-api", made["status"]["id"].as_str().unwrap()));
    assert_eq!(made["spec"]["role"], "operator");
    let row = world.store.api_token(parts[1]).unwrap().unwrap();
    assert_eq!(row.secret_hash, *blake3::hash(parts[2].as_bytes()).to_hex());
    let (status, list) = world.with(ADMIN, "GET", "/api/v1/tokens", "").await;
    assert_eq!((status, list["items"].as_array().unwrap().len()), (200, 1));
    assert_eq!(list["items"][0]["status"]["phase"], "Active");
    assert_eq!(list["items"][0]["status"]["createdBy"], "admin");
    assert!(!list.to_string().contains(parts[2]) && !list.to_string().contains(&row.secret_hash));
    assert_no_nulls(&list);

    assert_eq!(world.with(token, "GET", "/api/v1/runs", "").await.0, 200);
    let (status, run) = world.with(token, "POST", "/api/v1/runs", r#"{"workflow": "w", "pipeline": "slow"}"#).await;
    assert_eq!((status, &run["spec"]["trigger"]["by"]), (201, &json!("ci")), "{run}");
    for wrong in [&format!("xene-api.{}.{}", parts[1], "0".repeat(64)), "xene-api.x.y", &format!("{token}.x"), ""] {
        assert_eq!(world.with(wrong, "GET", "/api/v1/runs", "").await.0, 401, "{wrong}");
    }
    assert_eq!(world.with(ADMIN, "POST", "/api/v1/tokens/ci/revoke", "").await.0, 204);
    assert_eq!(world.with(token, "GET", "/api/v1/runs", "").await.0, 401);

    for refused in [
        r#"{"role": "root"}"#,
        r#"{}"#,
        r#"{"role": "viewer", "ttl": "0s"}"#,
        r#"{"role": "viewer", "name": "admin"}"#,
        r#"{"role": "viewer", "name": "a b"}"#,
        r#"{"role": "admin", "scope": ["w"]}"#,
        r#"{"role": "viewer", "scopes": []}"#,
    ] {
        assert_eq!(world.with(ADMIN, "POST", "/api/v1/tokens", refused).await.0, 400, "{refused}");
    }
}

#[tokio::test]
async fn a_join_token_is_listed_without_its_secret_until_it_is_revoked() {
    let world = World::new();
    let body = r#"{"ttl": "2h", "uses": 3, "labels": {"zone": "dmz"}}"#;
    let (status, made) = world.with(ADMIN, "POST", "/api/v1/agents/tokens", body).await;
    assert_eq!(status, 201, "{made}");
    let (id, token) = (made["id"].as_str().unwrap(), made["token"].as_str().unwrap());
    let secret = token.rsplit('.').next().unwrap();
    let (status, list) = world.with(ADMIN, "GET", "/api/v1/agents/tokens", "").await;
    assert_eq!((status, list["items"].as_array().unwrap().len()), (200, 1));
    let item = &list["items"][0];
    assert_eq!((&item["kind"], &item["id"], &item["usesLeft"]), (&json!("JoinToken"), &json!(id), &json!(3)));
    assert_eq!((&item["phase"], &item["createdBy"]), (&json!("Active"), &json!("admin")));
    assert_eq!((&item["labels"], &item["expiresAt"]), (&json!({"zone": "dmz"}), &made["expiresAt"]));
    assert!(item["createdAt"].is_string(), "{item}");
    let row = world.store.join_tokens().unwrap().remove(0);
    assert!(!list.to_string().contains(secret) && !list.to_string().contains(&row.secret_hash));
    assert_no_nulls(&list);

    let old = JoinTokenRow {
        id: "0".into(),
        created_at: None,
        created_by: None,
        expires_at: Timestamp::from_second(2).unwrap(),
        ..row
    };
    commit(&world.store, vec![Change::PutJoinToken(old)]);
    let (_, list) = world.with(ADMIN, "GET", "/api/v1/agents/tokens?limit=1", "").await;
    assert_eq!((&list["items"][0]["id"], &list["items"][0]["phase"]), (&json!("0"), &json!("Expired")), "{list}");
    assert_no_nulls(&list);
    let (_, list) = world.with(ADMIN, "GET", "/api/v1/agents/tokens?after=0", "").await;
    assert_eq!((&list["items"][0]["id"], list["items"].as_array().unwrap().len()), (&json!(id), 1));

    let revoke = format!("/api/v1/agents/tokens/{id}/revoke");
    assert_eq!(world.with(ADMIN, "POST", &revoke, "").await.0, 204);
    let (status, problem) = world.with(ADMIN, "POST", &revoke, "").await;
    assert_eq!((status, &problem["detail"]), (404, &json!(format!("there is no join token named {id}"))));
    let audit = std::fs::read_to_string(&world.audit).unwrap();
    assert!(audit.contains(&format!("\"about\":\"join-token/{id}\"")) && audit.contains(&revoke), "{audit}");
    assert!(!audit.contains(secret), "{audit}");
}

#[tokio::test]
async fn what_a_client_has_is_not_sent_again_and_long_lists_come_packed() {
    let world = World::new();
    seed(&world.store, "v");
    let auth = ("authorization", "Bearer s3cret");
    let plain = world.ask("GET", "/api/v1/pipelines", &[auth], "").await;
    let tag = plain.headers()["etag"].to_str().unwrap().to_owned();
    let plain = axum::body::to_bytes(plain.into_body(), usize::MAX).await.unwrap();
    let packed = world.ask("GET", "/api/v1/pipelines", &[auth, ("accept-encoding", "gzip, zstd")], "").await;
    assert_eq!(packed.headers()["content-encoding"], "zstd");
    assert_eq!(packed.headers()["vary"], "accept-encoding");
    assert_eq!(packed.headers()["etag"], *tag);
    let packed = axum::body::to_bytes(packed.into_body(), usize::MAX).await.unwrap();
    assert!(packed.len() < plain.len() / 2);
    assert_eq!(zstd::decode_all(&packed[..]).unwrap(), plain);
    let packed = world.ask("GET", "/api/v1/pipelines", &[auth, ("accept-encoding", "gzip")], "").await;
    assert_eq!(packed.headers()["content-encoding"], "gzip");
    let packed = axum::body::to_bytes(packed.into_body(), usize::MAX).await.unwrap();
    assert!(packed.len() < plain.len() / 2);
    let mut unpacked = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&packed[..]), &mut unpacked).unwrap();
    assert_eq!(unpacked, plain);
    let again = world.ask("GET", "/api/v1/pipelines", &[auth, ("if-none-match", &tag)], "").await;
    assert_eq!(again.status(), 304);
    assert_eq!(again.headers()["etag"], *tag);
    assert!(axum::body::to_bytes(again.into_body(), 1).await.unwrap().is_empty());
    commit(&world.store, vec![Change::DeletePipeline("v/slow".parse().unwrap())]);
    assert_eq!(world.ask("GET", "/api/v1/pipelines", &[auth, ("if-none-match", &tag)], "").await.status(), 200);
}

#[tokio::test]
async fn an_expired_token_is_refused() {
    let world = World::new();
    let row = crate::decide::rows::ApiTokenRow {
        id: "1".to_owned(),
        name: "old".parse().unwrap(),
        secret_hash: blake3::hash(b"x").to_hex().to_string(),
        role: Role::Admin,
        scope: None,
        created_at: Timestamp::from_second(1).unwrap(),
        created_by: "admin".to_owned(),
        expires_at: Some(Timestamp::from_second(2).unwrap()),
    };
    commit(&world.store, vec![Change::PutApiToken(row.clone())]);
    assert_eq!(world.with("xene-api.1.x", "GET", "/api/v1/runs", "").await.0, 401);
    let (_, list) = world.with(ADMIN, "GET", "/api/v1/tokens", "").await;
    assert_eq!(list["items"][0]["status"]["phase"], "Expired");
    commit(&world.store, vec![Change::PutApiToken(crate::decide::rows::ApiTokenRow { expires_at: None, ..row })]);
    assert_eq!(world.with("xene-api.1.x", "GET", "/api/v1/runs", "").await.0, 200);
}

#[tokio::test]
async fn each_role_may_what_it_may() {
    let world = World::new();
    let viewer = world.token(&json!({"role": "viewer", "name": "eye"})).await;
    let operator = world.token(&json!({"role": "operator", "name": "hand"})).await;
    let run = run_name(1);
    commit(
        &world.store,
        vec![Change::PutRun(Box::new(row(&"w/build".parse().unwrap(), run, None, RunPhase::Running)))],
    );
    let cancel = format!("/api/v1/runs/{run}/cancel");
    let mut refused = [0; 2];
    for route in routes::v1() {
        let said = &route.said;
        let path = said.path.replace("/runs/{name}", &format!("/runs/{run}")).replace("{name}", "w");
        let path = path.replace("{workflow}", "w").replace("{pipeline}", "build").replace(['{', '}'], "");
        let method = said.method.to_uppercase();
        for (n, (token, own)) in [(&viewer, Role::Viewer), (&operator, Role::Operator)].into_iter().enumerate() {
            let Some(needed) = said.role else { continue };
            // Any other answer than 403 comes from beyond the guard; what streams is not read.
            let header = format!("Bearer {token}");
            let status = world.ask(&method, &path, &[("authorization", &header)], "").await.status();
            assert_eq!(status == 403, own < needed, "{own}: {method} {path}: {status}");
            refused[n] += usize::from(own < needed);
        }
    }
    assert!(refused[0] > refused[1] && refused[1] > 5, "{refused:?}");
    // What the table itself should say of some that matter.
    let role = |method: &str, path: &str| {
        let found = routes::v1()
            .into_iter()
            .find(|route| route.said.method == method && route.said.path == format!("/api/v1{path}"));
        found.unwrap_or_else(|| panic!("{method} {path}")).said.role
    };
    for (method, path, needed) in [
        ("get", "/runs", Role::Viewer),
        ("post", "/runs", Role::Operator),
        ("post", "/sync", Role::Operator),
        ("post", "/source/suspend", Role::Admin),
        ("post", "/controller/ca/rotate", Role::Admin),
        ("post", "/agents/tokens", Role::Admin),
        ("get", "/agents/tokens", Role::Admin),
        ("post", "/agents/tokens/{id}/revoke", Role::Admin),
        ("get", "/tokens", Role::Admin),
        ("get", "/backup", Role::Admin),
    ] {
        assert_eq!(role(method, path), Some(needed), "{method} {path}");
    }
    let (_, problem) = world.with(&viewer, "POST", &cancel, "").await;
    assert_eq!(problem["detail"], "this needs the role operator, and eye is viewer");

    // What lets one start a pipeline is shown to those who may.
    let hook = async |token: &str| world.with(token, "GET", "/api/v1/pipelines/w/slow", "").await.1["status"].clone();
    assert!(hook(&viewer).await["webhookToken"].is_null());
    assert!(hook(&operator).await["webhookToken"].is_string());

    // A decision in another's name is an admin's.
    let approve = format!("/api/v1/runs/{run}/approve");
    assert_eq!(world.with(&operator, "POST", &approve, r#"{"task": "t", "by": "boss"}"#).await.0, 403);
    world.with(&operator, "POST", &approve, r#"{"task": "t"}"#).await;
    let Some(Command::Approve(decision)) = world.asked.lock().unwrap().last().cloned() else { panic!() };
    assert_eq!(decision.by, "hand");
}

#[tokio::test]
async fn a_scope_hides_all_other_workflows() {
    let world = World::new();
    seed(&world.store, "v");
    let (w, v): (PipelineKey, PipelineKey) = ("w/build".parse().unwrap(), "v/build".parse().unwrap());
    let event = |regarding: String| {
        Change::AddEvent(NewEvent {
            at: Timestamp::from_second(1).unwrap(),
            kind: EventType::Normal,
            reason: "Created".to_owned(),
            message: "it is new".to_owned(),
            regarding,
        })
    };
    commit(
        &world.store,
        vec![
            Change::PutRun(Box::new(row(&w, run_name(1), None, RunPhase::Running))),
            Change::PutRun(Box::new(row(&v, run_name(2), None, RunPhase::Running))),
            event("workflow/w".into()),
            event("workflow/v".into()),
            event(format!("run/{}", run_name(1))),
            event(format!("run/{}", run_name(2))),
            event("source".into()),
            event("pipeline/w/slow".into()),
            event(format!("run/{}", run_name(9))),
        ],
    );
    let token = world.token(&json!({"role": "operator", "name": "team", "scope": ["w"]})).await;
    let ask = async |method: &str, path: &str, body: &str| world.with(&token, method, path, body).await;
    let names = async |path: &str| {
        let (status, list) = ask("GET", path, "").await;
        assert_eq!(status, 200, "{path}: {list}");
        let items = list["items"].as_array().unwrap().clone();
        items.iter().map(|item| item["metadata"]["name"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names("/api/v1/workflows").await, ["w"]);
    assert_eq!(names("/api/v1/pipelines").await, ["w/build", "w/slow"]);
    assert_eq!(names("/api/v1/runs").await, [run_name(1).to_string()]);
    assert_eq!(names("/api/v1/runs?workflow=v").await, [""; 0]);
    assert_eq!(names("/api/v1/events").await.len(), 3);
    assert_eq!(names("/api/v1/events?limit=1").await.len(), 1);
    assert_eq!(names("/api/v1/events?workflow=w").await.len(), 3);
    assert_eq!(names("/api/v1/events?workflow=v").await.len(), 0, "out of sight");
    assert_eq!(names("/api/v1/events?pipeline=build").await.len(), 1, "those of v are out of sight");
    // Whoever sees all has the same filters.
    for (query, ids) in [
        ("workflow=w", &["6", "3", "1"][..]),
        ("workflow=w&limit=1", &["6"]),
        ("workflow=w&after=6", &["3", "1"]),
        ("workflow=v", &["4", "2"]),
        ("pipeline=build", &["4", "3"]),
        ("pipeline=w/build", &["3"]),
        ("pipeline=w/slow", &["6"]),
        ("workflow=w&pipeline=build", &["3"]),
        ("workflow=absent", &[]),
        ("workflow=w&regarding=workflow/w", &["1"]),
        ("workflow=w&regarding=source", &[]),
    ] {
        assert_eq!(world.items(&format!("/api/v1/events?{query}")).await, ids, "{query}");
    }
    for (query, sentence) in [
        ("workflow=A%20b", "workflow takes a name"),
        ("pipeline=w/slow/x", "pipeline takes a name or WORKFLOW/PIPELINE"),
        ("workflow=v&pipeline=w/slow", "is none of workflow v"),
        ("phase=Error", "there is no parameter"),
        ("labels=a%3Db", "there is no parameter"),
    ] {
        let (status, problem) = read(world.get(&format!("/api/v1/events?{query}")).await).await;
        assert_eq!(status, 400, "{query}");
        assert!(problem["detail"].as_str().unwrap().contains(sentence), "{query}: {problem}");
    }
    let hidden = run_name(2);
    for path in [
        "/api/v1/workflows/v".to_owned(),
        "/api/v1/workflows/v/history".to_owned(),
        "/api/v1/pipelines/v/build".to_owned(),
        "/api/v1/pipelines/v/build/why".to_owned(),
        "/api/v1/pipelines/v/build/firings".to_owned(),
        format!("/api/v1/runs/{hidden}"),
        format!("/api/v1/runs/{hidden}/logs"),
        format!("/api/v1/runs/{hidden}/artifacts"),
        "/api/v1/events/2".to_owned(),
    ] {
        let (status, problem) = ask("GET", &path, "").await;
        assert_eq!(status, 404, "{path}");
        // As of one that was never there.
        assert!(problem["detail"].as_str().unwrap().starts_with("there is no "), "{path}: {problem}");
    }
    for path in ["/api/v1/workflows/v/suspend".to_owned(), format!("/api/v1/runs/{hidden}/cancel")] {
        assert_eq!(ask("POST", &path, "").await.0, 404, "{path}");
    }
    assert_eq!(ask("POST", "/api/v1/runs", r#"{"workflow": "v", "pipeline": "build"}"#).await.0, 404);
    assert_eq!(ask("POST", "/api/v1/runs", r#"{"workflow": "w", "pipeline": "build"}"#).await.0, 201);
    assert_eq!(ask("GET", "/api/v1/plan?rev=x", "").await.0, 403, "it is about all workflows");
    let header = format!("Bearer {token}");
    let hook = async |path: &str| world.ask("POST", path, &[("authorization", &header)], "{}").await.status().as_u16();
    assert_eq!((hook("/hooks/w/pipelines/slow").await, hook("/hooks/v/pipelines/slow").await), (202, 401));

    let mut body = world.ask("GET", "/api/v1/watch", &[("authorization", &header)], "").await.into_body();
    chunk(&mut body).await.unwrap();
    commit(
        &world.store,
        vec![
            Change::PutRun(Box::new(row(&v, run_name(2), None, RunPhase::Success))),
            event("workflow/v".into()),
            Change::PutRun(Box::new(row(&w, run_name(1), None, RunPhase::Success))),
        ],
    );
    let seen = String::from_utf8(chunk(&mut body).await.unwrap().to_vec()).unwrap();
    assert_eq!(seen.matches("event: ").count(), 1, "{seen}");
    assert!(seen.contains(&run_name(1).to_string()));
    world.with(ADMIN, "POST", "/api/v1/tokens/team/revoke", "").await;
    assert_eq!(chunk(&mut body).await, None, "what goes on without end ends with the token");
}

#[tokio::test]
async fn the_audit_log_has_who_did_what_and_who_was_refused() {
    let world = World::new();
    let token = world.token(&json!({"role": "operator", "name": "ci"})).await;
    let (_, run) = world.with(&token, "POST", "/api/v1/runs", r#"{"workflow": "w", "pipeline": "slow"}"#).await;
    world.with(&token, "GET", "/api/v1/runs", "").await;
    world.with(&token, "POST", "/api/v1/source/suspend", "").await;
    world.with("wrong", "GET", "/api/v1/runs", "").await;
    let lines = std::fs::read_to_string(&world.audit).unwrap();
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let short: Vec<_> = lines
        .iter()
        .map(|line| (line["actor"].as_str(), line["path"].as_str().unwrap(), line["status"].as_u64().unwrap()))
        .collect();
    assert_eq!(
        short,
        [
            (Some("admin"), "/api/v1/tokens", 201),
            (Some("ci"), "/api/v1/runs", 201),
            (Some("ci"), "/api/v1/source/suspend", 403),
            (None, "/api/v1/runs", 401),
        ]
    );
    assert_eq!(lines[0]["about"], "token/ci");
    assert_eq!(lines[1]["about"], format!("run/{}", run["metadata"]["name"].as_str().unwrap()));
    assert_eq!((&lines[1]["role"], &lines[1]["method"]), (&json!("operator"), &json!("POST")));
    assert_eq!(lines[1]["token"], token.split('.').nth(1).unwrap());
    let all = std::fs::read_to_string(&world.audit).unwrap();
    assert!(!all.contains(token.split('.').nth(2).unwrap()) && !all.contains(ADMIN));
}

#[tokio::test]
async fn whoever_guesses_is_told_to_wait_and_a_right_token_is_taken_all_the_same() {
    let world = World::new();
    let peer = audit::Peer("192.0.2.1:5".parse().unwrap());
    let status = async |token: &str| {
        let request = Request::builder().uri("/api/v1/runs").header("host", "localhost");
        let request = request.header("authorization", format!("Bearer {token}")).extension(peer);
        world.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
    };
    for _ in 0..20 {
        assert_eq!(status("wrong").await.status(), 401);
    }
    let refused = status("wrong").await;
    assert_eq!((refused.status().as_u16(), &refused.headers()["retry-after"]), (429, &"60".parse().unwrap()));
    assert_eq!(status(ADMIN).await.status(), 200);
    assert_eq!(status("wrong").await.status(), 429);
    let lines = std::fs::read_to_string(&world.audit).unwrap();
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 21, "the first too many is in the log, and no more of them");
    assert_eq!((&lines[19]["status"], &lines[20]["status"]), (&json!(401), &json!(429)));
}

#[tokio::test]
async fn a_wrong_name_of_the_server_is_in_the_log_once_for_each_address() {
    let world = World::new();
    let ask = async |address: &str, host: &str| {
        let request = Request::builder().uri("/healthz").header("host", host);
        let request = request.extension(audit::Peer(address.parse().unwrap()));
        world.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap().status().as_u16()
    };
    for (address, host) in
        [("192.0.2.1:5", "evil.example"), ("192.0.2.1:6", "evil.example"), ("192.0.2.2:5", "other.example:80")]
    {
        assert_eq!(ask(address, host).await, 421);
    }
    let lines = std::fs::read_to_string(&world.audit).unwrap();
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let short: Vec<_> = lines.iter().map(|line| (line["status"].as_u64(), line["host"].as_str())).collect();
    assert_eq!(short, [(Some(421), Some("evil.example")), (Some(421), Some("other.example:80"))]);
}

#[tokio::test]
async fn head_has_the_headers_of_get() {
    let world = World::new();
    seed(&world.store, "v");
    let auth = ("authorization", "Bearer s3cret");
    for path in ["/api/v1/pipelines", "/api/v1/workflows/w", "/healthz", "/api/v1/runs/nobody"] {
        let get = world.ask("GET", path, &[auth, ("accept-encoding", "zstd")], "").await;
        let head = world.ask("HEAD", path, &[auth, ("accept-encoding", "zstd")], "").await;
        assert_eq!(head.status(), get.status(), "{path}");
        let (known, length) = (get.headers().clone(), get.into_body().size_hint().exact().unwrap());
        for (name, value) in &known {
            assert_eq!(head.headers().get(name), Some(value), "{path} {name}");
        }
        assert_eq!(head.headers()["content-length"].to_str().unwrap(), length.to_string(), "{path}");
        assert!(axum::body::to_bytes(head.into_body(), 1).await.unwrap().is_empty());
        if let Some(tag) = known.get("etag") {
            let again = world.ask("HEAD", path, &[auth, ("if-none-match", tag.to_str().unwrap())], "").await;
            assert_eq!(again.status(), 304, "{path}");
        }
    }
}
