//! Parts of what is saved and printed: ranges, what a client has already, names that are not there.

use super::*;

/// A run that has ended, with a task that saved ten bytes, and printed two lines.
async fn seed_run(world: &World) -> RunName {
    let (name, hash) = (run_name(1), world.files.keep(b"0123456789").unwrap());
    let mut run = row(&"w/build".parse().unwrap(), name, None, RunPhase::Success);
    let task = json!({"phase": "Success", "steps": [{"name": "one", "phase": "Success"}],
                      "artifacts": [{"path": "ten", "size": 10, "hash": hash.to_string()}]});
    run.run.status.tasks.insert("a".into(), serde_json::from_value(task).unwrap());
    commit(&world.store, vec![Change::PutRun(Box::new(run))]);
    world.logs.append(name, 0, a_log().into()).await.unwrap();
    name
}

#[tokio::test]
async fn an_artifact_is_continued_where_it_was_cut_off() {
    let world = World::new();
    let path = format!("/api/v1/runs/{}/artifacts/a/ten", seed_run(&world).await);
    let ask = async |headers: &[(&str, &str)]| {
        let headers = [&[("authorization", "Bearer s3cret")], headers].concat();
        let answer = world.ask("GET", &path, &headers, "").await;
        let header = |name: &str| answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        let (range, length, tag) = (header("content-range"), header("content-length"), header("etag"));
        let status = answer.status().as_u16();
        let body = axum::body::to_bytes(answer.into_body(), usize::MAX).await.unwrap();
        if status == 200 || status == 206 {
            assert_eq!(length, Some(body.len().to_string()));
        }
        (status, range, String::from_utf8(body.to_vec()).unwrap(), tag)
    };
    let (status, range, whole, tag) = ask(&[]).await;
    assert_eq!((status, range, &*whole), (200, None, "0123456789"));
    let tag = tag.unwrap();
    for (headers, expected, body) in [
        (&[("range", "bytes=7-")][..], "bytes 7-9/10", "789"),
        (&[("range", "bytes=-2")], "bytes 8-9/10", "89"),
        (&[("range", "bytes=2-3"), ("if-range", &tag)], "bytes 2-3/10", "23"),
    ] {
        let (status, range, part, _) = ask(headers).await;
        assert_eq!((status, range.as_deref(), &*part), (206, Some(expected), body), "{headers:?}");
    }
    let (status, _, whole, _) = ask(&[("range", "bytes=2-3"), ("if-range", "\"older\"")]).await;
    assert_eq!((status, &*whole), (200, "0123456789"));
    let (status, range, problem, _) = ask(&[("range", "bytes=10-")]).await;
    assert_eq!((status, range.as_deref()), (416, Some("bytes */10")));
    assert!(problem.contains("a/ten has 10 bytes"), "{problem}");
    let (status, _, body, again) = ask(&[("if-none-match", &tag)]).await;
    assert_eq!((status, &*body, again), (304, "", Some(tag)));
    let head = world.ask("HEAD", &path, &[("authorization", "Bearer s3cret"), ("range", "bytes=7-")], "").await;
    assert_eq!((head.status().as_u16(), &head.headers()["content-length"]), (200, &"10".parse().unwrap()));
    assert_eq!(head.headers()["accept-ranges"], "bytes");
}

#[tokio::test]
async fn a_log_goes_on_behind_what_a_client_has_and_comes_packed() {
    let world = World::new();
    let path = |query: &str| format!("/api/v1/runs/{}/logs?{query}", run_name(1));
    seed_run(&world).await;
    assert_eq!(text(world.get(&path("task=a&offset=6")).await).await, "world\n");
    assert_eq!(text(world.get(&path("task=a&offset=600")).await).await, "");
    assert_eq!(world.get(&path("offset=1&tail=1")).await.status(), 400);
    for (coding, follow) in [("zstd", false), ("gzip", false), ("zstd", true)] {
        let headers = [("authorization", "Bearer s3cret"), ("accept-encoding", coding)];
        let end = record(RecordKind::End, 0, 0, b"");
        if follow {
            world.logs.append(run_name(1), a_log().len() as u64, end.into()).await.unwrap();
        }
        let answer = world.ask("GET", &path(&format!("task=a&follow={follow}")), &headers, "").await;
        let packed = answer.headers().get("content-encoding").map(|it| it.to_str().unwrap().to_owned());
        assert_eq!(packed.as_deref(), Some(coding).filter(|_| !follow));
        assert_eq!(answer.headers()["vary"], "accept-encoding");
        let body = axum::body::to_bytes(answer.into_body(), usize::MAX).await.unwrap();
        let mut unpacked = Vec::new();
        match packed.as_deref() {
            Some("zstd") => unpacked = zstd::decode_all(&body[..]).unwrap(),
            Some(_) => {
                std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&body[..]), &mut unpacked).unwrap();
            }
            None => unpacked.extend_from_slice(&body),
        }
        assert_eq!(unpacked, b"hello\nworld\n", "{coding} {follow}");
    }
}

#[tokio::test]
async fn a_name_that_an_ended_run_does_not_have_is_told_with_those_that_it_has() {
    let world = World::new();
    let base = format!("/api/v1/runs/{}", seed_run(&world).await);
    for (path, detail) in [
        ("/logs?task=nope", "no task named nope; there are: a"),
        ("/logs?task=a&step=two", "no step named two; there are: one"),
        ("/artifacts?task=nope", "no task named nope; there are: a"),
        ("/artifacts/nope/ten", "no task named nope; there are: a"),
    ] {
        let (status, problem) = read(world.get(&format!("{base}{path}")).await).await;
        assert_eq!(status, 404, "{path}: {problem}");
        assert!(problem["detail"].as_str().unwrap().ends_with(detail), "{problem}");
    }
    // Of one that has not said which tasks it has, it may come; once it has, that is all.
    let mut running = row(&"w/build".parse().unwrap(), run_name(2), None, RunPhase::Running);
    commit(&world.store, vec![Change::PutRun(Box::new(running.clone()))]);
    let ask = async |query: &str| {
        let path = format!("/api/v1/runs/{}/artifacts?task={query}", run_name(2));
        world.get(&path).await.status().as_u16()
    };
    assert_eq!(ask("nope").await, 200);
    let task: xene_schemas::run::TaskStatus = serde_json::from_value(json!({"phase": "Running", "steps": []})).unwrap();
    running.run.status.tasks = ["test[os=a]", "tests"].map(|name| (name.to_owned(), task.clone())).into();
    commit(&world.store, vec![Change::PutRun(Box::new(running))]);
    assert_eq!([ask("nope").await, ask("tes").await, ask("tests").await], [404, 404, 200]);
    assert_eq!([ask("test").await, ask("test%5Bos=a%5D").await], [200, 200], "a matrix is all of its instances");
}

#[tokio::test]
async fn a_matrix_is_asked_for_by_the_name_of_its_task() {
    let world = World::new();
    let (name, hash) = (run_name(1), world.files.keep(b"x").unwrap());
    let mut run = row(&"w/build".parse().unwrap(), name, None, RunPhase::Success);
    let mut log = Vec::new();
    for (step, task) in [(1, "test[os=a]"), (2, "test[os=b]"), (3, "tests")] {
        let status = json!({"phase": "Success", "steps": [{"name": "one", "phase": "Success"}],
                            "artifacts": [{"path": task, "size": 1, "hash": hash.to_string()}]});
        run.run.status.tasks.insert(task.into(), serde_json::from_value(status).unwrap());
        let head = json!({"task": task, "step": "one", "attempt": 1}).to_string();
        log.extend(record(RecordKind::Step, step, 0, head.as_bytes()));
        log.extend(record(RecordKind::Stdout, step, 0, format!("of {task}\n").as_bytes()));
    }
    log.extend(record(RecordKind::End, 0, 0, b""));
    commit(&world.store, vec![Change::PutRun(Box::new(run))]);
    world.logs.append(name, 0, log.into()).await.unwrap();
    for (asked, expected) in
        [("test", &["test[os=a]", "test[os=b]"][..]), ("test%5Bos=b%5D", &["test[os=b]"]), ("tests", &["tests"])]
    {
        let log = text(world.get(&format!("/api/v1/runs/{name}/logs?task={asked}")).await).await;
        assert_eq!(log, expected.iter().map(|task| format!("of {task}\n")).collect::<String>(), "{asked}");
        let (_, list) = read(world.get(&format!("/api/v1/runs/{name}/artifacts?task={asked}")).await).await;
        let found: Vec<_> =
            list["items"].as_array().unwrap().iter().map(|item| item["task"].as_str().unwrap()).collect();
        assert_eq!(found, expected, "{asked}");
    }
}

#[tokio::test]
async fn a_key_stands_for_one_request() {
    let world = World::new();
    let start = async |key: &str, body: Value| world.start(&[("idempotency-key", key)], &body).await;
    let (status, run) = start("1", json!({"workflow": "w", "pipeline": "slow", "params": {"level": 1}})).await;
    assert_eq!(status, 201);
    let (status, same) = start("1", json!({"params": {"level": "1"}, "pipeline": "slow", "workflow": "w"})).await;
    assert_eq!((status, &same["metadata"]["name"]), (201, &run["metadata"]["name"]));
    for other in [
        json!({"workflow": "w", "pipeline": "slow", "params": {"level": 2}}),
        json!({"workflow": "w", "pipeline": "slow"}),
        json!({"workflow": "w", "pipeline": "slow", "params": {"level": 1}, "force": true}),
    ] {
        let (status, problem) = start("1", other).await;
        assert_eq!(status, 422, "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains(run["metadata"]["name"].as_str().unwrap()), "{problem}");
    }
    assert_eq!(start("2", json!({"workflow": "w", "pipeline": "slow", "params": {"level": 2}})).await.0, 201);
    let (status, problem) =
        world.start(&[], &json!({"workflow": "w", "pipeline": "slow", "params": {"level": "a\u{0}"}})).await;
    assert_eq!(status, 422, "{problem}");
    let answer = world
        .ask("POST", "/api/v1/runs", &[("authorization", "Bearer s3cret")], r#"{"workflow": "w", "pipeline": "slow"}"#)
        .await;
    let at = answer.headers()["location"].to_str().unwrap().to_owned();
    assert_eq!(world.get(&at).await.status(), 200, "{at}");
}

#[tokio::test]
async fn a_workflow_and_a_pipeline_of_it_go_together() {
    let world = World::new();
    seed(&world.store, "v");
    assert_eq!(world.items("/api/v1/pipelines?workflow=w&pipeline=w/slow").await, ["w/slow"]);
    let (status, problem) = read(world.get("/api/v1/pipelines?workflow=v&pipeline=w/slow").await).await;
    let detail = "pipeline w/slow is none of workflow v: leave one of the two parameters out";
    assert_eq!((status, problem["detail"].as_str()), (400, Some(detail)));
    let (_, problem) = read(world.get("/api/v1/runs?limit=1&limit=2").await).await;
    assert_eq!(problem["detail"], "the parameter \"limit\" is given more than once");
}
