//! The UI through the router: who may see it, what pages hold, that nothing in them acts, what forms do, what is live.

use xene_agent::clock;
use xene_schemas::{
    phase::TaskPhase,
    run::{ApprovalStatus, StepStatus, TaskStatus},
    wire::logs::StepHead,
};

use super::*;

/// Everything that a browser would obey if it were not text.
const HOSTILE: &str =
    "<img src=x onerror=alert(1)>\"'&</td><script>alert(2)</script>\u{202e}gnp.exe\u{1b}[31m\u{1b}]0;t\u{7}";

impl World {
    /// The cookie of somebody who signed in.
    pub(super) async fn signed_in(&self) -> String {
        let response = self.form("/sign-in", "", &[("secret", ADMIN)]).await;
        assert_eq!(response.status(), 303);
        let cookie = response.headers()["set-cookie"].to_str().unwrap();
        cookie.split(';').next().unwrap().to_owned()
    }

    pub(super) async fn form(&self, path: &str, cookie: &str, fields: &[(&str, &str)]) -> Response {
        self.form_from(path, cookie, fields, &[("sec-fetch-site", "same-origin")]).await
    }

    async fn form_from(&self, path: &str, cookie: &str, fields: &[(&str, &str)], more: &[(&str, &str)]) -> Response {
        let encode = |text: &str| text.bytes().map(|byte| format!("%{byte:02x}")).collect::<String>();
        let body: Vec<_> = fields.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect();
        let kind = ("content-type", "application/x-www-form-urlencoded");
        let headers = [&[kind, ("cookie", cookie)], more].concat();
        self.ask("POST", path, &headers, body.join("&")).await
    }

    pub(super) async fn page(&self, path: &str, cookie: &str) -> (u16, String) {
        let response = self.ask("GET", path, &[("cookie", cookie)], "").await;
        let status = response.status().as_u16();
        let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, String::from_utf8(bytes.into()).unwrap())
    }

    /// A form's token, as a page of this session has it.
    pub(super) async fn form_token(&self, cookie: &str) -> String {
        let (_, page) = self.page("/source", cookie).await;
        let (_, rest) = page.split_once("name=\"form-token\" value=\"").unwrap();
        rest.split_once('"').unwrap().0.to_owned()
    }

    /// What the audit log holds.
    pub(super) fn audited(&self) -> String {
        std::fs::read_to_string(&self.audit).unwrap()
    }

    fn put(&self, mut run: Run) {
        run.spec.spec_hash = self.store.pipeline(&run.spec.key()).unwrap().unwrap().spec_hash;
        commit(&self.store, vec![Change::PutRun(Box::new(RunRow::new(run, true)))]);
    }

    async fn print(&self, run: RunName, from: u64, kind: RecordKind, step: u16, data: &[u8]) -> u64 {
        let record = [&record_head(kind, step, 1_700_000_000_000_000, data.len()), data].concat();
        self.logs.append(run, from, Bytes::from(record)).await.unwrap()
    }
}

fn task(phase: TaskPhase, after: &[&str]) -> TaskStatus {
    let at = |second| Timestamp::from_second(second).ok();
    TaskStatus {
        phase,
        reason: None,
        message: None,
        started_at: at(10),
        finished_at: at(12),
        attempt: 1,
        outputs: [("version".to_owned(), HOSTILE.to_owned())].into(),
        artifacts: vec![],
        dependencies: after.iter().map(ToString::to_string).collect(),
        finally: false,
        approval: None,
        steps: vec![StepStatus {
            name: "step-1".to_owned(),
            phase,
            reason: None,
            message: None,
            exit_code: Some(3),
            signal: None,
            started_at: at(10),
            finished_at: at(12),
        }],
    }
}

/// A run that failed, full of what others wrote.
fn failed_run(n: u128) -> Run {
    let key = "w/build".parse().unwrap();
    let mut run = row(&key, run_name(n), None, RunPhase::Error).run;
    run.spec.trigger.by = Some(HOSTILE.to_owned());
    run.spec.params.insert(HOSTILE.to_owned(), HOSTILE.to_owned());
    run.status.message = Some(HOSTILE.to_owned());
    run.status.started_at = Timestamp::from_second(10).ok();
    run.status.finished_at = Timestamp::from_second(20).ok();
    run.status.tasks = [
        ("fetch".to_owned(), task(TaskPhase::Success, &[])),
        (format!("build[{HOSTILE}]"), task(TaskPhase::Error, &["fetch"])),
    ]
    .into();
    run
}

const PAGES: &[&str] = &[
    "/",
    "/workflows",
    "/workflows/w",
    "/workflows/w/build/start",
    "/workflows/w/slow/start",
    "/runs",
    "/agents",
    "/notifiers",
    "/events",
    "/source",
];

#[tokio::test]
async fn every_page_opens_and_nothing_in_it_acts() {
    let world = World::new();
    let run = failed_run(1);
    let name = run.metadata.name;
    world.put(run);
    let event = NewEvent {
        at: Timestamp::from_second(9).unwrap(),
        kind: EventType::Warning,
        reason: HOSTILE.to_owned(),
        message: HOSTILE.to_owned(),
        regarding: format!("run/{HOSTILE}"),
    };
    commit(&world.store, vec![Change::AddEvent(event)]);
    let head = StepHead { task: format!("build[{HOSTILE}]"), step: "step-1".to_owned(), attempt: 1 };
    let mut length = world.print(name, 0, RecordKind::Step, 1, &serde_json::to_vec(&head).unwrap()).await;
    length = world.print(name, length, RecordKind::Stdout, 1, HOSTILE.as_bytes()).await;
    world.print(name, length, RecordKind::End, 0, b"").await;
    let cookie = world.signed_in().await;
    let run_pages = [
        format!("/runs/{name}"),
        format!("/runs/{name}?log=1&from=1"),
        format!("/runs/{name}?q=%3Cimg"),
        format!("/runs/{name}/log/1"),
        "/events?regarding=%3Cscript%3E".to_owned(),
        format!("/runs?labels={}", "%3Cscript%3E%3D1"),
    ];
    for path in PAGES.iter().map(ToString::to_string).chain(run_pages) {
        let response = world.ask("GET", &path, &[("cookie", &cookie)], "").await;
        let headers = response.headers().clone();
        let (status, page) = world.page(&path, &cookie).await;
        assert_eq!(status, 200, "{path}: {page}");
        assert_eq!(headers["content-type"], "text/html; charset=utf-8", "{path}");
        let policy = headers["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'self';") && policy.contains("frame-ancestors 'none'"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "same-origin"),
            ("cache-control", "no-store"),
            ("x-frame-options", "DENY"),
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-resource-policy", "same-origin"),
        ] {
            assert_eq!(headers[name], value, "{path}");
        }
        // Our own, unless it is a part of a page.
        let styles = usize::from(page.starts_with("<!DOCTYPE html>"));
        assert_eq!(page.matches("<style").count(), styles, "{path}: {page}");
        for forbidden in [
            "<img",
            "<script>",
            " style=",
            " onerror=alert(1)>",
            "\u{202e}",
            "\u{1b}",
            "\"http://",
            "\"https://",
            "javascript:",
        ] {
            assert!(!page.contains(forbidden), "{path} has {forbidden:?}: {page}");
        }
    }
    let (_, page) = world.page(&format!("/runs/{name}"), &cookie).await;
    for told in [
        "&lt;img src=x onerror=alert(1)&gt;",
        "⟨U+202E⟩gnp.exe",
        "<span class=\"ctl\">U+202E</span>gnp.exe",
        "failed with exit code 3",
        "Run again what failed",
        "<svg class=\"dag\"",
        "id=\"L1-1\"",
    ] {
        assert!(page.contains(told), "{told}: {page}");
    }
}

#[tokio::test]
async fn empty_pages_say_what_to_do_next() {
    let world = World::new();
    let cookie = world.signed_in().await;
    for (path, told) in [
        ("/", "has not been looked at yet"),
        ("/", "<a href=\"/workflows/w/build/start\">w/build</a>"),
        ("/runs", "xene trigger"),
        ("/runs?phase=Error", "Show all runs"),
        ("/agents", "xene agents token create"),
        ("/notifiers", "kind: Notifier"),
        ("/workflows/w", "It has not run yet"),
    ] {
        let (status, page) = world.page(path, &cookie).await;
        assert_eq!(status, 200);
        assert!(page.contains(told), "{path} {told}: {page}");
    }
    for path in
        ["/workflows/absent", "/runs/01h00000000000000000000000", "/runs/x", "/agents/absent", "/workflows/w/x/start"]
    {
        let (status, page) = world.page(path, &cookie).await;
        assert_eq!(status, 404, "{path}");
        assert!(page.contains("role=\"alert\"") && page.contains("<nav"), "{page}");
    }
}

#[tokio::test]
async fn who_is_not_signed_in_is_asked_to_and_led_back() {
    let world = World::new();
    for path in PAGES {
        let response = world.ask("GET", path, &[], "").await;
        assert_eq!(response.status(), 303, "{path}");
        assert_eq!(response.headers()["location"], format!("/sign-in?next={path}"));
    }
    let linked = world.ask("GET", "/runs?phase=Error", &[("sec-fetch-site", "cross-site")], "").await;
    assert!(text(linked).await.contains("http-equiv=\"refresh\""), "the browser asks again, then with its cookie");
    let live = world.ask("GET", "/live?page=/", &[], "").await;
    assert_eq!(live.status(), 401);
    let page = text(world.ask("GET", "/sign-in?next=/runs?phase%3DError", &[], "").await).await;
    assert!(page.contains("value=\"/runs?phase=Error\""), "{page}");
    let response = world.form("/sign-in", "", &[("secret", ADMIN), ("next", "/runs?phase=Error")]).await;
    assert_eq!(response.headers()["location"], "/runs?phase=Error");
    let elsewhere = world.form("/sign-in", "", &[("secret", ADMIN), ("next", "//evil.example")]).await;
    assert_eq!(elsewhere.headers()["location"], "/");
    for wrong in ["", "wrong", "xene-session"] {
        let response = world.form("/sign-in", "", &[("secret", wrong)]).await;
        assert_eq!(response.status(), 401);
        assert!(!response.headers().contains_key("set-cookie"));
    }
}

#[tokio::test]
async fn a_session_is_a_cookie_that_only_pages_take() {
    let world = World::new();
    let response = world.form("/sign-in", "", &[("secret", ADMIN)]).await;
    let set = response.headers()["set-cookie"].to_str().unwrap().to_owned();
    assert!(set.starts_with("xene-session-7420=") && set.ends_with("; Path=/; HttpOnly; SameSite=Strict"), "{set}");
    let cookie = set.split(';').next().unwrap();
    assert_eq!(world.page("/runs", cookie).await.0, 200);
    let api = world.ask("GET", "/api/v1/runs", &[("cookie", cookie)], "").await;
    assert_eq!(api.status(), 401, "the API takes tokens alone");
    let token = world.form_token(cookie).await;
    let out = world.form("/sign-out", cookie, &[("form-token", &token)]).await;
    assert!(out.headers()["set-cookie"].to_str().unwrap().contains("Max-Age=0"));
    assert_eq!(world.page("/runs", cookie).await.0, 303, "it is over for the server too");
    for made_up in ["xene-session-7420=", "xene-session-7420=00", "other=1; xene-session-7421=x"] {
        assert_eq!(world.page("/runs", made_up).await.0, 303, "{made_up}");
    }
}

#[tokio::test]
async fn a_link_signs_in_once() {
    let world = World::new();
    let (status, made) =
        read(world.ask("POST", "/api/v1/sign-in-codes", &[("authorization", "Bearer s3cret")], "").await).await;
    assert_eq!((status, &made["kind"], &made["expiresIn"]), (201, &json!("SignInCode"), &json!("10m")));
    let code = made["code"].as_str().unwrap();
    assert_eq!(made["link"], format!("/sign-in#{code}"), "what follows the # is never sent");
    assert_eq!(world.ask("POST", "/api/v1/sign-in-codes", &[], "").await.status(), 401);
    assert_eq!(world.ask("GET", &format!("/sign-in?secret={code}"), &[], "").await.status(), 400, "not by an address");
    let pasted = format!("http://localhost:7420/sign-in#{code}");
    assert_eq!(world.form("/sign-in", "", &[("secret", &pasted)]).await.status(), 303);
    assert_eq!(world.form("/sign-in", "", &[("secret", code)]).await.status(), 401);
}

#[tokio::test]
async fn forms_act_only_from_pages_of_their_session() {
    let world = World::new();
    let run = failed_run(1);
    let name = run.metadata.name;
    world.put(run);
    let (cookie, other) = (world.signed_in().await, world.signed_in().await);
    let (token, others) = (world.form_token(&cookie).await, world.form_token(&other).await);
    assert_ne!(token, others);
    let path = format!("/runs/{name}/rerun");
    let own = ("sec-fetch-site", "same-origin");
    let refused: [(&str, &[(&str, &str)]); 7] = [
        ("", &[own]),
        ("wrong", &[own]),
        (&others, &[own]),
        (&token, &[("sec-fetch-site", "cross-site")]),
        (&token, &[("sec-fetch-site", "same-site")]),
        (&token, &[("origin", "http://evil.example")]),
        (&token, &[("origin", "null")]),
    ];
    for (token, more) in refused {
        let response = world.form_from(&path, &cookie, &[("form-token", token)], more).await;
        assert_eq!(response.status(), 403, "{token} {more:?}");
    }
    let stranger = world.form(&path, "", &[("form-token", &token)]).await;
    assert_eq!((stranger.status().as_u16(), &stranger.headers()["location"]), (303, &"/sign-in".parse().unwrap()));
    assert_eq!(world.ask("GET", &path, &[("cookie", &cookie)], "").await.status(), 405, "no address acts");
    let foreign = world.form_from("/sign-in", "", &[("secret", ADMIN)], &[("sec-fetch-site", "cross-site")]).await;
    assert_eq!(foreign.status(), 403, "nobody is signed in by another site");
    let asked = || world.asked.lock().unwrap().len();
    assert_eq!(asked(), 0, "nothing of this was done");
    let done =
        world.form_from(&path, &cookie, &[("form-token", &token)], &[own, ("origin", "http://localhost:7420")]).await;
    assert_eq!(done.status(), 303);
    assert_eq!(asked(), 1);
}

#[tokio::test]
async fn a_workflow_is_suspended_and_resumed_by_forms() {
    let world = World::new();
    let cookie = world.signed_in().await;
    let token = world.form_token(&cookie).await;
    let page = world.page("/workflows/w", &cookie).await.1;
    assert!(page.contains("action=\"/workflows/w/suspend\""), "{page}");
    let response = world.form("/workflows/w/suspend", &cookie, &[("form-token", "wrong")]).await;
    assert_eq!(response.status(), 403);
    let fields = [("form-token", token.as_str()), ("why", " disk is full ")];
    let response = world.form("/workflows/w/suspend", &cookie, &fields).await;
    assert_eq!((response.status().as_u16(), &response.headers()["location"]), (303, &"/workflows/w".parse().unwrap()));
    let asked = world.asked.lock().unwrap().pop();
    let Some(Command::Suspend { what, suspension }) = asked else { panic!("{asked:?}") };
    assert_eq!(suspension.why.as_deref(), Some("disk is full"));
    commit(&world.store, vec![Change::PutSuspension(SuspensionRow { what, suspension })]);
    let page = world.page("/workflows/w", &cookie).await.1;
    assert!(page.contains("action=\"/workflows/w/resume\"") && !page.contains("/suspend\""), "{page}");
    assert_eq!(world.form("/workflows/w/resume", &cookie, &fields[..1]).await.status(), 303);
    assert!(matches!(world.asked.lock().unwrap().pop(), Some(Command::Resume { .. })));
    assert_eq!(world.form("/workflows/absent/resume", &cookie, &fields[..1]).await.status(), 404);

    // Who may only look is offered neither, and no form to start something.
    let viewer = world.token(&json!({"role": "viewer", "name": "eye"})).await;
    let response = world.form("/sign-in", "", &[("secret", &viewer)]).await;
    let cookie = response.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    let page = world.page("/workflows/w", &cookie).await.1;
    assert!(!page.contains("/resume\"") && !page.contains("/start\""), "{page}");
    assert_eq!(world.page("/workflows/w/build/start", &cookie).await.0, 403);
}

#[tokio::test]
async fn a_session_may_and_sees_what_its_token_does_and_ends_with_it() {
    let world = World::new();
    seed(&world.store, "secret");
    let run = failed_run(1);
    let name = run.metadata.name;
    world.put(run);
    let hidden = row(&"secret/build".parse().unwrap(), run_name(2), None, RunPhase::Success).run;
    let hidden_name = hidden.metadata.name;
    world.put(hidden);
    let token = world.token(&json!({"role": "viewer", "name": "ada", "scope": ["w"]})).await;
    let response = world.form("/sign-in", "", &[("secret", &token)]).await;
    assert_eq!(response.status(), 303);
    let cookie = response.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    for path in PAGES.iter().filter(|path| !path.ends_with("/start") && **path != "/notifiers") {
        let (status, page) = world.page(path, &cookie).await;
        assert_eq!(status, 200, "{path}: {page}");
        assert!(!page.contains("secret/") && !page.contains(&hidden_name.to_string()), "{path}: {page}");
        assert!(!page.contains("/start\""), "{path} offers nothing: {page}");
    }
    assert_eq!(world.page("/workflows/secret", &cookie).await.0, 404);
    for path in ["", "/log.txt", "/log/1", "/artifacts/t/x"] {
        assert_eq!(world.page(&format!("/runs/{hidden_name}{path}"), &cookie).await.0, 404, "{path}");
    }
    let (status, page) = world.page(&format!("/runs/{name}"), &cookie).await;
    assert!(status == 200 && page.contains(">ada<") && !page.contains("Run again"), "{page}");
    let form = world.form_token(&cookie).await;
    let refused = world.form(&format!("/runs/{name}/rerun"), &cookie, &[("form-token", &form)]).await;
    assert_eq!(refused.status(), 403);
    let told = world.audited();
    assert!(told.contains(r#""actor":"ada""#) && told.contains("/rerun"), "{told}");
    world.ask("POST", "/api/v1/tokens/ada/revoke", &[("authorization", "Bearer s3cret")], "").await;
    assert_eq!(world.page("/runs", &cookie).await.0, 303, "its token is refused by now");
}

#[tokio::test]
async fn runs_are_started_and_steered_by_forms() {
    let world = World::new();
    let mut run = failed_run(1);
    let approval = ApprovalStatus {
        message: Some("Sure?".to_owned()),
        wanted_at: Timestamp::from_second(11).unwrap(),
        until: None,
        approved: None,
        by: None,
        decided_at: None,
    };
    run.status.phase = RunPhase::Running;
    run.status
        .tasks
        .insert("ship".to_owned(), TaskStatus { approval: Some(approval), ..task(TaskPhase::NotExecuted, &[]) });
    let name = run.metadata.name;
    world.put(run);
    let cookie = world.signed_in().await;
    let token = world.form_token(&cookie).await;
    let token = ("form-token", token.as_str());
    let (_, form) = world.page("/workflows/w/slow/start", &cookie).await;
    assert!(form.contains("name=\"param.level\" type=\"number\" step=\"1\" value=\"3\""), "{form}");
    let wrong = world.form("/workflows/w/slow/start", &cookie, &[token, ("param.level", "high")]).await;
    assert_eq!(wrong.status(), 422);
    let page = axum::body::to_bytes(wrong.into_body(), usize::MAX).await.unwrap();
    let page = String::from_utf8(page.into()).unwrap();
    assert!(page.contains("takes a whole number") && page.contains("value=\"high\""), "{page}");
    let started = world.form("/workflows/w/slow/start", &cookie, &[token, ("param.level", "5")]).await;
    assert_eq!(started.status(), 303);
    let to = started.headers()["location"].to_str().unwrap().to_owned();
    assert_eq!(world.page(&to, &cookie).await.0, 200, "{to}");
    let (_, page) = world.page(&format!("/runs/{name}"), &cookie).await;
    assert!(page.contains("Sure?") && page.contains(">Approve<") && page.contains(">Cancel<"), "{page}");
    let approve = format!("/runs/{name}/approve");
    world.form(&approve, &cookie, &[token, ("task", "ship"), ("approved", "false")]).await;
    let rerun = world.form(&format!("/runs/{name}/rerun"), &cookie, &[token, ("failed", "true")]).await;
    assert_eq!(rerun.status(), 303);
    assert_ne!(rerun.headers()["location"], format!("/runs/{name}"), "a new run is shown");
    let cancel = world.form(&format!("/runs/{name}/cancel"), &cookie, &[token]).await;
    assert_eq!(cancel.status(), 409, "what the API refuses is told");
    let asked = world.asked.lock().unwrap();
    match &asked[..] {
        [
            Command::StartRun(RunOrder { params, trigger, .. }),
            Command::Approve(decision),
            Command::Rerun(again),
            Command::CancelRun { run, by },
        ] => {
            assert_eq!((params["level"].as_str(), trigger.by.as_deref()), ("5", Some("admin")));
            assert_eq!((decision.task.as_str(), decision.approved, decision.by.as_str()), ("ship", false, "admin"));
            assert!(again.failed);
            assert_eq!((*run, by.as_str()), (name, "admin"));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_run_is_followed_as_it_goes() {
    let world = World::new();
    let mut run = failed_run(1);
    run.status.phase = RunPhase::Running;
    let name = run.metadata.name;
    world.put(run.clone());
    let head = StepHead { task: "fetch".to_owned(), step: "step-1".to_owned(), attempt: 1 };
    let length = world.print(name, 0, RecordKind::Step, 4, &serde_json::to_vec(&head).unwrap()).await;
    let length = world.print(name, length, RecordKind::Stdout, 4, b"one\n").await;
    let cookie = world.signed_in().await;
    let response = world.ask("GET", &format!("/live?page=/runs/{name}&log=4.1"), &[("cookie", &cookie)], "").await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut body = response.into_body();
    let first = String::from_utf8(chunk(&mut body).await.unwrap().to_vec()).unwrap();
    for told in [
        "event: region\ndata: {\"id\":\"r-head\"",
        "\"id\":\"r-tasks\"",
        "event: section\ndata: {\"id\":\"log-4\"",
        "event: log\ndata: {\"section\":4,\"first\":1,\"next\":2",
    ] {
        assert!(first.contains(told), "{told}: {first}");
    }
    world.print(name, length, RecordKind::Stdout, 4, b"two <b>\nhalf").await;
    let next = String::from_utf8(chunk(&mut body).await.unwrap().to_vec()).unwrap();
    assert!(next.contains("two &lt;b&gt;") && next.contains("half") && next.contains("\"next\":3"), "{next}");
    assert!(!next.contains("event: region"), "only what changed: {next}");
    run.status.phase = RunPhase::Success;
    world.put(run);
    let last = String::from_utf8(chunk(&mut body).await.unwrap().to_vec()).unwrap();
    assert!(last.contains("\"id\":\"r-head\"") && last.contains("p-Success"), "{last}");
    commit(&world.store, vec![Change::DeleteRun(name)]);
    let gone = String::from_utf8(chunk(&mut body).await.unwrap().to_vec()).unwrap();
    assert!(gone.contains("event: gone"), "{gone}");
    assert!(chunk(&mut body).await.is_none());
}

#[tokio::test]
async fn a_live_page_ends_with_its_session() {
    let world = World::new();
    let cookie = world.signed_in().await;
    let token = world.form_token(&cookie).await;
    let mut body = world.ask("GET", "/live?page=/runs", &[("cookie", &cookie)], "").await.into_body();
    assert!(chunk(&mut body).await.is_some());
    world.form("/sign-out", &cookie, &[("form-token", &token)]).await;
    world.put(failed_run(2));
    assert!(chunk(&mut body).await.is_none());
}

#[tokio::test]
async fn assets_are_kept_for_good_under_names_of_their_content() {
    let world = World::new();
    let page = text(world.ask("GET", "/sign-in", &[], "").await).await;
    let paths: Vec<_> = page.split('"').filter(|part| part.starts_with("/ui/")).collect();
    assert_eq!(paths.len(), 2, "{page}");
    for path in paths {
        let response = world.ask("GET", path, &[], "").await;
        assert_eq!(response.headers()["cache-control"], "public, max-age=31536000, immutable");
        assert!(!text(response).await.is_empty());
    }
    assert_eq!(world.ask("GET", "/ui/style.css", &[], "").await.status(), 404);
}

#[tokio::test]
async fn what_is_downloaded_is_saved_and_not_shown() {
    let world = World::new();
    let run = failed_run(1);
    let name = run.metadata.name;
    world.put(run);
    let length = world.print(name, 0, RecordKind::Stdout, 1, b"<script>alert(1)</script>\n").await;
    world.print(name, length, RecordKind::End, 0, b"").await;
    let cookie = world.signed_in().await;
    let response = world.ask("GET", &format!("/runs/{name}/log.txt"), &[("cookie", &cookie)], "").await;
    assert_eq!(response.headers()["content-disposition"], "attachment");
    assert_eq!(response.headers()["content-security-policy"], "sandbox; default-src 'none'");
    assert_eq!(text(response).await, "<script>alert(1)</script>\n");
    assert_eq!(world.page(&format!("/runs/{name}/artifacts/t/../../x"), &cookie).await.0, 404);
    assert_eq!(world.page(&format!("/runs/{name}/log.txt"), "").await.0, 303);
}

#[tokio::test]
async fn pages_stay_quick_with_ten_thousand_runs() {
    let loaded = Loaded { agents: vec![long_lists::agent("oak")], ..Loaded::default() };
    let world = World::holding(loaded, |_| {});
    let key: PipelineKey = "w/build".parse().unwrap();
    for chunk in 0..10 {
        let rows = (0..1_000).map(|n| {
            let mut row = row(&key, run_name(chunk * 1_000 + n), None, RunPhase::Success);
            row.run.status.agent = "oak".parse().ok();
            Change::PutRun(Box::new(row))
        });
        commit(&world.store, rows.collect());
    }
    let changed = NewEvent {
        at: Timestamp::from_second(9).unwrap(),
        kind: EventType::Normal,
        reason: "WorkflowCreated".to_owned(),
        message: format!("by {} at w.yaml:1", "1".repeat(40)),
        regarding: "workflow/w".to_owned(),
    };
    commit(&world.store, vec![Change::AddEvent(changed)]);
    let cookie = world.signed_in().await;
    let run = format!("/runs/{}", run_name(5_000));
    let others = [
        run.as_str(),
        "/runs?workflow=w&pipeline=build",
        "/runs?agent=oak",
        "/runs?phase=Error",
        "/agents/oak",
        "/workflows/w/history",
        "/events?regarding=workflow%2Fw",
    ];
    for path in PAGES.iter().copied().chain(others) {
        let started = clock::now().boot;
        assert_eq!(world.page(path, &cookie).await.0, 200, "{path}");
        // With the optimizer off and other tests beside it; docs/design/web-ui.md has what the real binary takes.
        let took = clock::now().boot.since(started);
        println!("{path}: {took:.1?}");
        assert!(took < Duration::from_secs(2), "{path} took {took:?}");
    }
}
