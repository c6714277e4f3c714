//! Backups of a store in use, their way back, and stores that are not whole.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::{Seek, SeekFrom, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
    time::Duration,
};

use xene_test_support::{
    cluster::Cluster,
    disk::SmallDisk,
    eventually,
    process::{Ended, run, xene},
    within,
};

/// Every start of a due time leaves one line: the due time. The lease outlives the restore, so claims are adopted.
fn ticking(file: &Path) -> String {
    format!(
        "apiVersion: xene/v1\nkind: Workflow\nmetadata: {{name: w}}\nspec:\n  triggers: {{s: {{type: cron, schedule: \"* * * * * *\"}}}}\n  pipelines:\n    tick:\n      triggers: s\n      autonomy: 2m\n      concurrency: {{max: 4}}\n      tasks: {{t: {{steps: ['echo \"$XENE_SCHEDULED_TIME\" >> {}']}}}}\n    hand:\n      autonomy: 2m\n      tasks: {{t: {{steps: ['echo hello']}}}}\n",
        file.display()
    )
}

fn restore(cluster: &Cluster, file: &Path) -> Ended {
    let (file, data) = (file.display().to_string(), cluster.data().display().to_string());
    run(xene(cluster.folder()), &["restore", &file, "--data-dir", &data])
}

#[test]
fn a_backup_of_a_store_in_use_goes_back_and_no_due_time_starts_twice() {
    let mut cluster = Cluster::start(&[]);
    cluster.start_agent("a", &[]);
    let starts = cluster.folder().join("starts");
    cluster.repository.write("xene.d/w.yaml", &ticking(&starts));
    cluster.commit("w");
    cluster.scheduled("w/tick");
    eventually("a due time starts", || fs::metadata(&starts).map(drop).map_err(|error| error.to_string()));
    let before = cluster.run(&["trigger", "w/hand", "--wait"]).expect(0).stdout.trim().to_owned();

    let file = cluster.folder().join("backup");
    cluster.run(&["backup", &file.display().to_string()]).expect(0);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let left: Vec<_> = fs::read_dir(cluster.data().join("store")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().contains("partial")), "{left:?}");
    let after = cluster.run(&["trigger", "w/hand", "--wait"]).expect(0).stdout.trim().to_owned();

    let refused = restore(&cluster, &file);
    let pid = cluster.controller.as_ref().unwrap().id().to_string();
    assert_eq!(refused.code, 2, "a controller runs on it: {refused:#?}");
    assert!(refused.stderr.contains(&pid), "{refused:#?}");

    cluster.controller.take().unwrap().terminate();
    let done = restore(&cluster, &file).expect(0);
    assert!(done.stderr.contains("store.replaced-"), "{done:#?}");
    cluster.start_controller();
    assert_eq!(cluster.json(&["get", "runs", &before])["status"]["phase"], "Success");
    cluster.run(&["get", "runs", &after]).expect(4);
    cluster.until("both are scheduled again", &["get", "pipelines"], |list| {
        list["items"].as_array().unwrap().iter().all(|pipeline| pipeline["status"]["phase"] == "Scheduled")
    });
    let lines = || fs::read_to_string(&starts).unwrap().lines().map(str::to_owned).collect::<Vec<_>>();
    let many = lines().len();
    eventually("due times start again", || {
        let now = lines().len();
        if now > many + 1 { Ok(()) } else { Err(now.to_string()) }
    });
    let mut times: BTreeMap<String, u32> = BTreeMap::new();
    lines().into_iter().for_each(|line| *times.entry(line).or_default() += 1);
    assert!(times.values().all(|starts| *starts == 1), "{times:?}");

    // Once: the next start is one like any other.
    let recovered = |cluster: &Cluster| {
        let events = cluster.json(&["get", "events"]);
        events["items"].as_array().unwrap().iter().filter(|event| event["reason"] == "Recovering").count()
    };
    assert_eq!(recovered(&cluster), 1);
    cluster.kill_controller();
    cluster.start_controller();
    assert_eq!(recovered(&cluster), 1);
}

#[test]
fn what_is_no_whole_backup_changes_nothing() {
    let mut cluster = Cluster::start(&[]);
    let file = cluster.folder().join("backup");
    cluster.run(&["backup", &file.display().to_string()]).expect(0);
    cluster.kill_controller();
    let whole = fs::read(&file).unwrap();
    let data = cluster.data().join("store/data.mdb");
    let store = fs::read(&data).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 0x55;
    let cases: [(&str, &[u8]); 4] =
        [("cut", &whole[..whole.len() - 5]), ("flipped", &flipped), ("text", b"no backup\n"), ("empty", b"")];
    for (what, bytes) in cases {
        fs::write(&file, bytes).unwrap();
        let refused = restore(&cluster, &file);
        assert_eq!(refused.code, 1, "{what}: {refused:#?}");
        assert!(refused.stderr.contains("damaged or incomplete"), "{what}: {refused:#?}");
        assert!(fs::read(&data).unwrap() == store, "{what}: the store is as it was");
        let left = fs::read_dir(cluster.data()).unwrap().map(|entry| entry.unwrap().file_name());
        assert!(!left.into_iter().any(|name| name.to_string_lossy().contains("restore.partial")), "{what}");
    }
    let absent = restore(&cluster, &cluster.folder().join("absent"));
    assert_eq!(absent.code, 2, "{absent:#?}");
    cluster.start_controller();
}

#[test]
fn a_damaged_store_is_told_and_never_begun_afresh() {
    let mut cluster = Cluster::start(&[]);
    for i in 0..40 {
        let text = format!(
            "apiVersion: xene/v1\nkind: Workflow\nmetadata: {{name: w{i}}}\nspec: {{pipelines: {{p: {{tasks: {{t: {{steps: [a]}}}}}}}}}}\n"
        );
        cluster.repository.write(&format!("xene.d/w{i}.yaml"), &text);
    }
    cluster.commit("many");
    cluster.kill_controller();
    let data = cluster.data().join("store/data.mdb");
    let store = fs::read(&data).unwrap();
    let page = 4096;
    let overwritten = |from: usize, to: usize| {
        let mut bytes = store.clone();
        bytes[from..to].fill(0xA5);
        bytes
    };
    let cases = [
        ("pages of rows", overwritten(2 * page, store.len())),
        ("both meta pages", overwritten(0, 2 * page)),
        ("truncated", store[..3 * page].to_vec()),
    ];
    for (what, bytes) in cases {
        let mut file = OpenOptions::new().write(true).truncate(true).open(&data).unwrap();
        file.seek(SeekFrom::Start(0)).unwrap();
        file.write_all(&bytes).unwrap();
        drop(file);
        let mut command = xene(cluster.folder());
        command.args(["controller", "--source"]).arg(cluster.repository.folder());
        command.arg("--data-dir").arg(cluster.data()).args(["--http", "127.0.0.1:0", "--quic", "127.0.0.1:0"]);
        let refused = Ended::from_output(command.output().unwrap());
        assert_eq!(refused.code, 1, "{what}: {refused:#?}");
        for word in ["is damaged", "store", "xene restore", "--init recover"] {
            assert!(refused.stderr.contains(word), "{what}: {refused:#?}");
        }
        assert!(fs::read(&data).unwrap() == bytes, "{what}: it was not touched");
    }
    fs::write(&data, &store).unwrap();
    cluster.start_controller();
    assert_eq!(cluster.json(&["get", "workflows"])["items"].as_array().unwrap().len(), 40);
}

#[test]
fn a_full_disk_refuses_what_is_new_keeps_leases_and_heals() {
    let mut cluster = Cluster::start(&[]);
    cluster.controller.take().unwrap().terminate();
    let data = cluster.data();
    fs::remove_dir_all(&data).unwrap();
    let Some(disk) = SmallDisk::mount(&data, "24m") else {
        eprintln!("skipped: no file system can be mounted here");
        return;
    };
    cluster.start_controller();
    cluster.start_agent("a", &[]);
    let starts = cluster.folder().join("starts");
    cluster.repository.write("xene.d/w.yaml", &ticking(&starts));
    cluster.commit("w");
    cluster.scheduled("w/tick");
    let lines = || fs::read_to_string(&starts).unwrap_or_default().lines().count();

    disk.fill();
    let refused = eventually("new work is refused", || {
        let ended = cluster.run(&["trigger", "w/hand"]);
        if ended.code == 0 { Err(format!("{ended:#?}")) } else { Ok(ended) }
    });
    assert_eq!(refused.code, 1, "{refused:#?}");
    assert!(refused.stderr.contains("disk is full"), "{refused:#?}");
    let ready = ureq::get(format!("{}/readyz", cluster.server())).call();
    assert!(matches!(ready, Err(ureq::Error::StatusCode(503))), "{ready:?}");
    cluster.run(&["get", "runs"]).expect(0);
    // It is told, though the event about it waits for room.
    eventually("the store is said to fill up", || {
        let status = cluster.run(&["status"]).expect(0).stdout;
        if status.contains("store filling up") { Ok(()) } else { Err(status) }
    });
    let before = lines();
    // So long that its reports, which can't be written, would fill the controller's queue.
    within(Duration::from_secs(60), "the agent goes on", || {
        let now = lines();
        if now > before + 12 { Ok(()) } else { Err(now.to_string()) }
    });
    cluster.run(&["get", "runs"]).expect(0);
    assert_eq!(cluster.json(&["get", "agents", "a"])["status"]["phase"], "Connected");

    disk.free();
    eventually("it heals by itself", || {
        let ended = cluster.run(&["trigger", "w/hand", "--wait"]);
        if ended.code == 0 { Ok(()) } else { Err(format!("{ended:#?}")) }
    });
    cluster.until("both are events", &["get", "events"], |events| {
        let said = |reason| events["items"].as_array().unwrap().iter().any(|event| event["reason"] == reason);
        said("StoreFillingUp") && said("StoreHasRoom")
    });
    // What the agent did meanwhile arrives, each once.
    eventually("every start is a run at the controller", || {
        let started = lines();
        let runs = cluster.json(&["get", "runs", "--limit", "1000"]);
        let known = runs["items"].as_array().unwrap().iter().filter(|run| run["spec"]["pipeline"] == "tick").count();
        if known >= started { Ok(()) } else { Err(format!("{known} of {started}")) }
    });
    cluster.agents.clear();
    cluster.controller.take().unwrap().terminate();
    drop(disk);
}
