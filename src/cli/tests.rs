//! Of the command line as a whole: help, exit statuses, and the short commands.

use std::ffi::OsString;

use clap::CommandFactory;
use expect_test::{expect, expect_file};
use serde_json::{Value, json};

use super::{
    fake::{Fake, Reply},
    output::testing,
    *,
};

fn cli(line: &str) -> Cli {
    settings::parse(line.split(' ').map(OsString::from)).unwrap()
}

/// Runs a client command against a controller.
fn run(line: &str, fake: &Fake) -> (Result<(), Error>, String, String) {
    let cli = cli(line);
    let (mut ui, out, err) = testing::ui(cli.global.output.format().unwrap());
    let (client, ui_ref) = (fake.client(), &mut ui);
    let result = match cli.command {
        Command::Status => status::run(&client, ui_ref),
        Command::Sync => sync::run(&client, ui_ref),
        Command::Cancel(args) => cancel::run(&args, &client, ui_ref),
        Command::Agents(args) => agents::run(&args, &client, ui_ref),
        Command::Approve(args) => approve::run(&args, &client, ui_ref),
        Command::Rerun(args) => rerun::run(&args, &client, ui_ref),
        Command::Suspend(args) => suspend::suspend(&args, &client, ui_ref),
        Command::Resume(args) => suspend::resume(&args, &client, ui_ref),
        Command::Notifiers(args) => notifiers::run(&args, &client, ui_ref),
        Command::Token(args) => token::run(&args, &client, ui_ref),
        Command::ApprovePrune(args) => prune::run(&args, &client, ui_ref),
        other => panic!("{other:?}"),
    };
    (result, out.text(), err.text())
}

#[test]
fn the_definition_is_consistent() {
    Cli::command().debug_assert();
    settings::command().debug_assert();
}

#[test]
fn each_command_has_its_help() {
    let commands = [
        "",
        "dev",
        "controller",
        "agent",
        "validate",
        "explain",
        "run",
        "test",
        "cron",
        "status",
        "sync",
        "get",
        "describe",
        "plan",
        "history",
        "why",
        "trigger",
        "logs",
        "artifacts",
        "cancel",
        "approve",
        "rerun",
        "suspend",
        "resume",
        "approve-prune",
        "agents",
        "agents token",
        "agents token create",
        "agents drain",
        "notifiers test",
        "top",
        "token",
        "token create",
        "completion",
        "man",
    ];
    for command in commands {
        let line = format!("xene {command} --help").replace("  ", " ");
        let error = settings::command().term_width(100).try_get_matches_from(line.split(' ')).unwrap_err();
        assert_eq!(error.exit_code(), 0);
        let name = if command.is_empty() { "xene".to_owned() } else { command.replace(' ', "-") };
        expect_file![format!("{}/src/cli/help/{name}.txt", env!("CARGO_MANIFEST_DIR"))].assert_eq(&error.to_string());
    }
}

#[test]
fn what_makes_no_sense_ends_with_2_and_help_with_0() {
    let exit = |line: &str| match settings::parse(line.split(' ').map(OsString::from)) {
        Err(settings::ParseError::Clap(error, _)) => error.exit_code(),
        Err(settings::ParseError::File(error)) => i32::from(error.status()),
        Ok(cli) => panic!("{cli:?}"),
    };
    for line in [
        "xene nonsense",
        "xene get",
        "xene get secrets-of-others",
        "xene trigger",
        "xene trigger w/p -p novalue",
        "xene logs r --step s",
        "xene controller",
        "xene controller --source . --poll 5",
        "xene controller --source . --poll 10ms",
        "xene controller --source . --tls-cert c.pem",
        "xene agent --controller nowhere",
        "xene agent --controller c:1 --slots 0",
        "xene agent --controller c:1 --name ../x",
        "xene agents token create --uses 0",
        "xene token create",
        "xene token create --role root",
        "xene token create --role viewer --scope ../x",
        "xene status -o xml",
        "xene dev --config /no/such",
    ] {
        assert_eq!(exit(line), 2, "{line}");
    }
    for line in ["xene --help", "xene get -h", "xene --version", "xene help logs"] {
        assert_eq!(exit(line), 0, "{line}");
    }
}

#[test]
fn global_flags_may_stand_before_and_after_the_command() {
    let cli = cli("xene --server http://a:1 get runs -o json --token t");
    assert_eq!((cli.global.server.as_str(), cli.global.token.as_deref()), ("http://a:1", Some("t")));
    assert_eq!(cli.global.output, Output::Json);
}

#[test]
fn an_agents_token_is_its_join_token() {
    match cli("xene agent --controller c:7421 --token join --label a=b,c=d").command {
        Command::Agent(args) => {
            assert_eq!(args.agent.token.as_deref(), Some("join"));
            assert_eq!(args.agent.label.len(), 2);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_version_has_the_name() {
    let error = settings::command().try_get_matches_from(["xene", "--version"]).unwrap_err();
    assert_eq!(error.to_string(), format!("xene {}\n", env!("CARGO_PKG_VERSION")));
}

fn controller(source: Value) -> Fake {
    Fake::start(move |request, _| match request.path() {
        "/api/v1/source" | "/api/v1/sync" => Reply::Json(200, source.clone()),
        "/api/v1/controller" => Reply::Json(
            200,
            json!({"status": {"version": "0.1.0", "breaker": {
                "since": "2026-11-25T11:58:00Z", "agents": ["a", "b"], "message": "2 agents fell silent at once"
            }, "pause": {
                "by": "admin", "since": "2026-11-25T11:58:00Z", "until": "2026-11-25T16:00:00Z"
            }, "storeFillingUp": {
                "since": "2026-11-25T11:55:00Z", "used": 850, "limit": 1000, "message": "the store fills up: 850 of 1000"
            }, "clockLeap": {
                "since": "2026-11-25T11:59:00Z", "aheadSeconds": 3600, "message": "this host's clock leapt ahead by 1h"
            }, "unheard": ["a"]}}),
        ),
        "/api/v1/pipelines" => Reply::Json(200, fixtures::list(&fixtures::pipelines()[1..])),
        "/api/v1/agents" => Reply::Json(200, fixtures::list(&fixtures::agents())),
        "/api/v1/runs" => Reply::Json(200, fixtures::list(&fixtures::runs()[1..])),
        "/api/v1/agents/tokens" => Reply::Json(201, json!({"token": "join-me"})),
        "/api/v1/runs/gone/cancel" => Reply::Json(404, json!({"detail": "there is no run named gone"})),
        _ => Reply::Json(202, Value::Null),
    })
}

#[test]
fn status_is_one_screen() {
    let (result, out, _) = run("xene status", &controller(fixtures::source()));
    result.unwrap();
    expect![[r#"
        source     https://git.example/site.git · branch main · xene.d
        revision   1a2b3c4 Build nightly (Ada)
        in effect  for 1h, looked at 5s ago
        seen       fffffff, not in effect
        workflows  1 in effect, 2 documents passed over as not ours, 1 file with uncommitted changes, which do not count
        pipelines  1 scheduled, 1 not
        runs       1 running, 1 waiting to start
        paused     by admin until 2026-11-25T16:00:00Z (in 4h): agents go on alone; not heard by: a
        store filling up (for 5m): the store fills up: 850 of 1000
        clock leapt (for 1m): this host's clock leapt ahead by 1h
        takeovers held (for 2m): 2 agents fell silent at once: a, b
        not Ready (Invalid): 1 file has a problem (for 30m)
        Degraded (LastGood): site is kept as of 1a2b3c4 (for 30m)
        xene.d/site.yaml:9:3: error[XE0003]: unknown field `step`
          hint: did you mean `steps`?
        not scheduled: 1
          site/deploy: no agent has the label zone=dmz

        NAME      PHASE          BUSY   PIPELINES   SEEN     VERSION   MESSAGE
        agent-1   Connected      1/4    1           2s ago   0.1.0
        agent-2   Disconnected   0/2    0           3h ago   0.1.0     its clock is 61 s late
    "#]]
    .assert_eq(&out);
    let (_, out, _) = run("xene status -o json", &controller(fixtures::source()));
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap(), fixtures::source());
}

#[test]
fn sync_fails_while_the_source_has_problems() {
    let (result, out, _) = run("xene sync", &controller(fixtures::source()));
    assert_eq!(result.unwrap_err().status(), 1);
    expect![[r#"
        1a2b3c4 Build nightly (Ada)
        not Ready (Invalid): 1 file has a problem (for 30m)
        Degraded (LastGood): site is kept as of 1a2b3c4 (for 30m)
        xene.d/site.yaml:9:3: error[XE0003]: unknown field `step`
          hint: did you mean `steps`?
    "#]]
    .assert_eq(&out);
    let mut good = fixtures::source();
    good["status"]["problems"] = json!([]);
    good["status"]["conditions"] = json!([]);
    let (result, out, _) = run("xene sync", &controller(good));
    result.unwrap();
    assert_eq!(out, "1a2b3c4 Build nightly (Ada)\n");
}

#[test]
fn a_join_token_is_the_only_thing_on_stdout() {
    let fake = controller(Value::Null);
    let (result, out, err) = run("xene agents token create --ttl 10m --uses 2 --label zone=dmz --name a9", &fake);
    result.unwrap();
    assert_eq!(out, "join-me\n");
    assert_eq!(err, "valid for 10m, 2 times: xene agent --controller HOST:7421 --token TOKEN\n");
    let body = json!({"ttl": "10m", "uses": 2, "labels": {"zone": "dmz"}, "name": "a9"});
    assert_eq!(fake.requests()[0].body, body);
}

#[test]
fn join_tokens_are_listed_and_revoked() {
    let row = json!({"id": "0a1b", "phase": "Active", "createdAt": "2026-11-26T10:00:00.000Z", "usesLeft": 2,
        "expiresAt": "2026-11-26T11:00:00.000Z", "labels": {"zone": "dmz"}, "createdBy": "admin"});
    let fake = Fake::start(move |request, _| match (request.method.as_str(), request.path()) {
        ("GET", "/api/v1/agents/tokens") => Reply::Json(200, json!({"kind": "List", "items": [row.clone()]})),
        ("POST", "/api/v1/agents/tokens/0a1b/revoke") => Reply::Json(204, Value::Null),
        _ => Reply::Json(404, json!({"detail": "there is no join token named x"})),
    });
    let (result, out, _) = run("xene agents token list", &fake);
    result.unwrap();
    expect![[r"
        ID     PHASE    CREATED                    EXPIRES                    USES LEFT   LABELS     BY
        0a1b   Active   2026-11-26T10:00:00.000Z   2026-11-26T11:00:00.000Z   2           zone=dmz   admin
    "]]
    .assert_eq(&out);
    let (result, out, _) = run("xene agents token list -o name", &fake);
    result.unwrap();
    assert_eq!(out, "join-token/0a1b\n");
    let (result, out, err) = run("xene agents token revoke join-token/0a1b", &fake);
    result.unwrap();
    assert_eq!((&*out, &*err), ("", "join token 0a1b is revoked\n"));
    let (result, _, _) = run("xene agents token revoke x", &fake);
    assert_eq!(result.unwrap_err().status(), 4);
}

#[test]
fn an_api_token_is_the_only_thing_on_stdout() {
    let made = json!({"metadata": {"name": "ci"}, "token": "xene-api.1.2"});
    let row = json!({"metadata": {"name": "ci", "createdAt": "2026-11-26T10:00:00.000Z"},
        "spec": {"role": "operator", "scope": ["a", "b"]},
        "status": {"id": "1", "phase": "Active", "createdBy": "admin"}});
    let fake = Fake::start(move |request, _| match (request.method.as_str(), request.path()) {
        ("POST", "/api/v1/tokens") => Reply::Json(201, made.clone()),
        ("GET", _) => Reply::Json(200, json!({"kind": "List", "items": [row.clone()]})),
        _ => Reply::Json(204, Value::Null),
    });
    let (result, out, err) = run("xene token create ci --role operator --ttl 30d --scope a --scope b", &fake);
    result.unwrap();
    assert_eq!(out, "xene-api.1.2\n");
    assert_eq!(err, "ci is operator within its scope for 30d; the token is not shown again\n");
    let body = json!({"role": "operator", "name": "ci", "ttl": "30d", "scope": ["a", "b"]});
    assert_eq!(fake.requests()[0].body, body);
    let (result, out, _) = run("xene token list", &fake);
    result.unwrap();
    expect![[r"
        NAME   ROLE       SCOPE   PHASE    BY      ID
        ci     operator   a,b     Active   admin   1
    "]]
    .assert_eq(&out);
    let (result, _, err) = run("xene token revoke token/ci", &fake);
    result.unwrap();
    assert_eq!(err, "token ci is revoked\n");
    assert_eq!(fake.requests()[2].target, "/api/v1/tokens/ci/revoke");
}

#[test]
fn what_a_role_does_not_allow_ends_with_5() {
    let detail = "this needs the role operator, and eye is viewer";
    let fake = Fake::start(move |_, _| Reply::Json(403, json!({"detail": detail})));
    let error = run("xene cancel r", &fake).0.unwrap_err();
    assert_eq!((error.status(), error.to_string().as_str()), (5, detail));
}

#[test]
fn an_agent_is_fenced_by_whoever_knows_that_its_machine_is_off() {
    let fake = controller(Value::Null);
    let error = run("xene agents fence a1", &fake).0.unwrap_err();
    assert_eq!((error.status(), error.to_string().contains("is off")), (2, true), "{error}");
    assert!(error.hint().unwrap().contains("--machine-is-off"));
    assert!(fake.requests().is_empty(), "nobody was asked");
    let (result, _, err) = run("xene agents fence a1 --machine-is-off", &fake);
    result.unwrap();
    assert_eq!(err, "agent a1 is fenced: its pipelines go to others\n");
    let call = &fake.requests()[0];
    assert_eq!((call.target.as_str(), &call.body), ("/api/v1/agents/a1/fence", &json!({"machineIsOff": true})));
}

#[test]
fn the_life_of_an_agent_is_four_calls() {
    let fake = controller(Value::Null);
    for verb in ["drain", "undrain", "revoke", "forget"] {
        run(&format!("xene agents {verb} agent/a1"), &fake).0.unwrap();
    }
    let targets: Vec<_> = fake.requests().into_iter().map(|request| request.target).collect();
    assert_eq!(targets, ["drain", "undrain", "revoke", "forget"].map(|verb| format!("/api/v1/agents/a1/{verb}")));
}

#[test]
fn what_operators_say_becomes_calls() {
    let fake = Fake::start(|request, _| match request.path() {
        "/api/v1/source/approve-prune" => Reply::Json(200, fixtures::source()),
        "/api/v1/runs/r/rerun" => Reply::Json(201, fixtures::runs()[0].clone()),
        _ => Reply::Json(200, json!({})),
    });
    let told = |line: &str| {
        let (result, out, err) = run(line, &fake);
        result.unwrap();
        format!("{out}{err}")
    };
    assert_eq!(told("xene suspend w --why moving --for 2h"), "workflow/w is suspended for 2h\n");
    assert_eq!(told("xene suspend source -o name"), "source\n");
    assert_eq!(told("xene resume w/p"), "pipeline/w/p is resumed\n");
    assert_eq!(told("xene approve-prune 1a2b3c4"), "approved: 1 workflow is left\n");
    let name = fixtures::runs()[0]["metadata"]["name"].as_str().unwrap().to_owned();
    assert_eq!(told("xene rerun r --failed --force"), format!("{name}\n"));
    assert_eq!(told("xene approve run/r deploy"), "task deploy of run r is approved\n");
    assert_eq!(told("xene approve r deploy --reject"), "task deploy of run r is rejected\n");
    let calls: Vec<_> = fake.requests().into_iter().map(|r| format!("{} {} {}", r.method, r.target, r.body)).collect();
    assert_eq!(
        calls,
        [
            r#"POST /api/v1/workflows/w/suspend {"why":"moving","for":"2h"}"#,
            "POST /api/v1/source/suspend {}",
            "POST /api/v1/pipelines/w/p/resume {}",
            r#"POST /api/v1/source/approve-prune {"commit":"1a2b3c4"}"#,
            r#"POST /api/v1/runs/r/rerun {"failed":true,"force":true}"#,
            r#"POST /api/v1/runs/r/approve {"task":"deploy","approved":true}"#,
            r#"POST /api/v1/runs/r/approve {"task":"deploy","approved":false}"#,
        ]
    );
}

#[test]
fn cancel_goes_on_after_a_refusal_and_tells_it() {
    let fake = controller(Value::Null);
    let (result, out, err) = run("xene cancel gone other", &fake);
    assert_eq!(result.unwrap_err().status(), 4);
    assert_eq!((out.as_str(), err.as_str()), ("", "run other is being cancelled\n"));
}

#[test]
fn completion_and_man_pages_name_every_command() {
    let (mut ui, out, _) = testing::ui(Format::Table);
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let Command::Completion(args) = cli(&format!("xene completion {shell}")).command else { panic!() };
        completion::run(&args, &mut ui).unwrap();
    }
    assert!(out.text().contains("idempotency-key"));
    let folder = tempfile::tempdir().unwrap();
    let line = format!("xene man {}", folder.path().join("man1").display());
    let Command::Man(args) = cli(&line).command else { panic!() };
    man::run(&args, &mut ui).unwrap();
    for page in ["xene.1", "xene-trigger.1", "xene-agents-token-create.1"] {
        assert!(folder.path().join("man1").join(page).is_file(), "{page}");
    }
}

#[test]
fn a_notifier_that_does_not_deliver_is_an_error() {
    let fake = Fake::start(|request, _| {
        let delivered = request.path() == "/api/v1/notifiers/good/test";
        Reply::Json(200, json!({"delivered": delivered, "message": "204 was answered"}))
    });
    let (result, out, err) = run("xene notifiers test notifier/good", &fake);
    result.unwrap();
    assert_eq!((out.as_str(), err.as_str()), ("", "notifier good delivers: 204 was answered\n"));
    let (result, ..) = run("xene notifiers test bad", &fake);
    let error = result.unwrap_err();
    assert_eq!((error.to_string().as_str(), error.status()), ("notifier bad does not deliver: 204 was answered", 1));
}
