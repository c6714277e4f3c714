//! Before, why, and since when: `xene plan`, `why`, `history`, on a real repository.

use std::process::Command;

use serde_json::Value;
use xene_test_support::{
    cluster::Cluster,
    eventually,
    process::{run, xene},
};

/// A workflow with one pipeline `p` that prints `word`; `rest` are more fields of its `spec`, `of_p` of the pipeline.
fn workflow(name: &str, word: &str, rest: &str, of_p: &str) -> String {
    format!(
        "apiVersion: xene/v1\nkind: Workflow\nmetadata: {{name: {name}}}\nspec:\n{rest}  pipelines:\n    p:\n{of_p}      tasks:\n        t:\n          steps:\n            - {word}\n"
    )
}

fn nightly(hour: u32) -> String {
    let triggers = format!("  triggers:\n    nightly: {{type: cron, schedule: \"0 {hour} * * *\"}}\n");
    workflow("site", "echo hi", &triggers, "      triggers: nightly\n")
}

/// `xene` in the checkout, with the cluster's controller.
fn here(cluster: &Cluster) -> Command {
    let mut command = cluster.command();
    command.current_dir(cluster.repository.folder());
    command
}

/// The actions of a plan, as the events that tell of them.
fn actions(plan: &Value) -> Vec<(String, String)> {
    let changes = plan["changes"].as_array().unwrap_or_else(|| panic!("{plan:#}"));
    let word = |value: &Value| value.as_str().unwrap().to_owned();
    changes
        .iter()
        .map(|c| (word(&c["reason"]), format!("{}/{}", word(&c["kind"]).to_lowercase(), word(&c["name"]))))
        .collect()
}

/// The events about workflows and pipelines that are newer than `last`, oldest first.
fn events(cluster: &Cluster, last: u64) -> Vec<(String, String)> {
    let list = cluster.json(&["get", "events"]);
    let mut found: Vec<(u64, String, String)> = (list["items"].as_array().unwrap().iter())
        .map(|e| {
            (
                e["id"].as_u64().unwrap(),
                e["reason"].as_str().unwrap().to_owned(),
                e["regarding"].as_str().unwrap().to_owned(),
            )
        })
        .filter(|(id, reason, _)| *id > last && (reason.starts_with("Workflow") || reason.starts_with("Pipeline")))
        .collect();
    found.sort();
    found.into_iter().map(|(_, reason, regarding)| (reason, regarding)).collect()
}

#[test]
fn a_plan_is_what_the_commit_then_does() {
    let mut cluster = Cluster::start(&[]);
    cluster.start_agent("one", &[]);
    cluster.repository.write("xene.d/site.yaml", &nightly(3));
    cluster.repository.write("xene.d/old.yaml", &workflow("old", "echo", "", ""));
    cluster.commit("begin");
    cluster.scheduled("site/p");
    cluster.scheduled("old/p");
    let before = cluster.json(&["get", "events"])["items"][0]["id"].as_u64().unwrap();

    // Uncommitted edits are planned.
    cluster.repository.write("xene.d/site.yaml", &nightly(4));
    cluster.repository.write("xene.d/new.yaml", &workflow("new", "echo", "", "      agents: {labels: {zone: moon}}\n"));
    std::fs::remove_file(cluster.repository.folder().join("xene.d/old.yaml")).unwrap();
    let plan = run(here(&cluster), &["plan", "-o", "json"]).expect(0).json();
    let planned = actions(&plan);
    assert_eq!(
        planned.iter().map(|(reason, of)| format!("{reason} {of}")).collect::<Vec<_>>(),
        [
            "WorkflowCreated workflow/new",
            "WorkflowUpdated workflow/site",
            "PipelineCreated pipeline/new/p",
            "PipelineUpdated pipeline/site/p",
            "PipelineRemoved pipeline/old/p",
            "WorkflowRemoved workflow/old",
        ],
        "{plan:#}"
    );
    let field = &plan["changes"][1]["fields"][0];
    assert_eq!(
        (field["path"].as_str(), field["old"].as_str(), field["new"].as_str()),
        (Some("spec.triggers.nightly.schedule"), Some("0 3 * * *"), Some("0 4 * * *"))
    );
    assert_eq!(plan["changes"][2]["placement"]["reason"], "NoMatchingAgent", "{plan:#}");
    assert_eq!(plan["changes"][3]["placement"]["after"], "one", "{plan:#}");
    let due = |side: &str| plan["changes"][3]["fires"][side][0]["at"].as_str().unwrap()[10..].to_owned();
    assert_eq!((due("before"), due("after")), ("T03:00:00.000Z".into(), "T04:00:00.000Z".into()));
    assert!(plan["from"]["what"].as_str().unwrap().contains(&cluster.server()), "{plan:#}");

    let text = run(here(&cluster), &["plan", "--exit-code"]).expect(1);
    for words in [
        "~ workflow site  xene.d/site.yaml:1",
        "\"0 3 * * *\" → \"0 4 * * *\"",
        "2 to create, 2 to update, 2 to remove",
        "none: NoMatchingAgent",
    ] {
        assert!(text.stdout.contains(words), "{words:?}: {text:#?}");
    }
    let markdown = run(here(&cluster), &["plan", "-o", "markdown"]).expect(0).stdout;
    assert!(
        markdown.starts_with("### xene plan: 2 to create, 2 to update, 2 to remove") && markdown.contains("<details>"),
        "{markdown}"
    );

    // Without any controller, two commits are compared; and both sides are named.
    let head = cluster.commit("change");
    let mut alone = xene(cluster.folder());
    alone.env("XENE_SERVER", "http://127.0.0.1:1").current_dir(cluster.repository.folder());
    let local = run(alone, &["plan", "HEAD", "--against", "HEAD~1", "-o", "json"]).expect(0).json();
    assert_eq!(actions(&local), planned);

    // What was planned has happened, event by event, and nothing is left to do.
    assert_eq!(events(&cluster, before), planned);
    let nothing = run(here(&cluster), &["plan", "--exit-code"]).expect(0);
    assert!(nothing.stdout.contains("nothing would change"), "{nothing:?}");

    // Outside of a checkout a commit is planned by the controller, and it is the same plan.
    let there = cluster.json(&["plan", "HEAD~1"]);
    assert_eq!(actions(&there), actions(&run(here(&cluster), &["plan", "HEAD~1", "-o", "json"]).expect(0).json()));
    assert_eq!(actions(&there).len(), 6);
    assert_eq!(cluster.json(&["status"])["status"]["revision"], head.as_str(), "nothing took effect by asking");
    let absent = cluster.run(&["plan", "no-such-branch"]).expect(2);
    assert!(absent.stderr.contains("no-such-branch"), "{absent:?}");
    cluster.run(&["plan"]).expect(2);
}

#[test]
fn too_many_removals_are_told_before_they_are_held() {
    let cluster = Cluster::start(&[]);
    for name in ["a", "b", "c", "d"] {
        cluster.repository.write(&format!("xene.d/{name}.yaml"), &workflow(name, "echo", "", ""));
    }
    cluster.commit("four");
    for name in ["a", "b", "c"] {
        std::fs::remove_file(cluster.repository.folder().join(format!("xene.d/{name}.yaml"))).unwrap();
    }
    let plan = run(here(&cluster), &["plan", "-o", "json"]).expect(0).json();
    assert_eq!(plan["changes"].as_array().map(Vec::len), Some(0), "{plan:#}");
    assert_eq!(plan["held"].as_array().map(Vec::len), Some(3), "{plan:#}");
    assert_eq!(plan["held"][0]["reason"], "PruneBlocked");
}

#[test]
fn why_it_waits_is_not_scheduled_fired_or_was_passed_over() {
    let mut cluster = Cluster::start(&[]);
    cluster.start_agent("one", &[]);
    let gate = cluster.folder().join("gate");
    let wait = format!("while [ ! -e {} ]; do sleep 0.05; done", gate.display());
    let each_second = "  triggers:\n    tick: {type: cron, schedule: \"* * * * * *\"}\n";
    cluster.repository.write(
        "xene.d/tick.yaml",
        &workflow("tick", &wait, each_second, "      triggers: tick\n      concurrency: {policy: Skip}\n"),
    );
    cluster.repository.write("xene.d/hold.yaml", &workflow("hold", &wait, "", ""));
    cluster
        .repository
        .write("xene.d/moon.yaml", &workflow("moon", "echo", "", "      agents: {labels: {zone: moon}}\n"));
    cluster.repository.write("xene.d/site.yaml", &nightly(3));
    let commit = cluster.commit("Hold the door");
    cluster.scheduled("hold/p");
    cluster.scheduled("site/p");

    // Fired, and passed over.
    let why = cluster.until("due times are told", &["why", "tick/p"], |why| {
        let outcomes = why["firings"].to_string();
        outcomes.contains("\"Skipped\"") && why["firings"].as_array().is_some_and(|all| all.len() > 2)
    });
    let run_of_it = why["runs"][0].as_str().expect("a run is in flight").to_owned();
    let skipped = &why["firings"][0];
    assert_eq!(
        (skipped["outcome"].as_str(), skipped["reason"].as_str()),
        (Some("Skipped"), Some("Overlap")),
        "{why:#}"
    );
    let at = skipped["scheduledTime"].as_str().unwrap();
    let instant = cluster.json(&["why", &format!("tick/p@{at}")]);
    assert_eq!(
        (&instant["verdict"], &instant["firings"][0]["reason"]),
        (&"Recorded".into(), &"Overlap".into()),
        "{instant:#}"
    );
    let ran = cluster.json(&["why", &run_of_it]);
    assert_eq!(ran["trigger"]["name"], "tick", "{ran:#}");
    assert_eq!(ran["commit"]["revision"], commit.as_str());
    assert_eq!(ran["commit"]["author"], "Ada <ada@example.org>");
    assert_eq!(ran["commit"]["subject"], "Hold the door");
    assert_eq!(ran["agent"], "one");
    let due = ran["trigger"]["scheduledTime"].as_str().unwrap();
    let fired = cluster.json(&["why", &format!("tick/p@{due}")]);
    assert_eq!(
        (&fired["firings"][0]["outcome"], &fired["firings"][0]["run"]),
        (&"Fired".into(), &run_of_it.as_str().into()),
        "{fired:#}"
    );
    let described = cluster.run(&["describe", "pipeline", "tick/p"]).expect(0).stdout;
    assert!(described.contains("Last due times") && described.contains("Skipped (Overlap)"), "{described}");

    // It waits for an earlier run.
    let first = cluster.run(&["trigger", "hold/p"]).expect(0).stdout.trim().to_owned();
    cluster.until("it runs", &["get", "runs", &first], |r| r["status"]["phase"] == "Running");
    let second = cluster.run(&["trigger", "hold/p"]).expect(0).stdout.trim().to_owned();
    let waits = cluster.json(&["why", &second]);
    assert_eq!(
        (&waits["waits"][0]["for"], &waits["waits"][0]["run"]),
        (&"Run".into(), &first.as_str().into()),
        "{waits:#}"
    );
    let text = cluster.run(&["why", &second]).expect(0).stdout;
    assert!(text.contains("Waits for") && text.contains(&first), "{text}");

    // It is not scheduled, and each agent says why.
    let moon = cluster.json(&["why", "moon/p"]);
    assert_eq!(moon["reason"], "NoMatchingAgent", "{moon:#}");
    assert_eq!(
        (&moon["agents"][0]["verdict"], &moon["agents"][0]["missing"]["zone"]),
        (&"MissingLabels".into(), &"moon".into())
    );

    // Instants without a row.
    let verdict = |at: &str| cluster.json(&["why", &format!("site/p@{at}")]);
    assert_eq!(verdict("2020-01-01T03:00:00Z")["verdict"], "NotThere");
    assert_eq!(verdict("2100-01-01T03:00:00Z")["verdict"], "NotYet");
    let not_due = verdict("2100-01-01T03:30:00Z");
    assert_eq!(not_due["verdict"], "NotDue", "{not_due:#}");
    assert_eq!(not_due["previous"]["at"], "2100-01-01T03:00:00.000Z");
    assert_eq!(not_due["next"]["at"], "2100-01-02T03:00:00.000Z");
    cluster.run(&["why", "nobody/p"]).expect(4);
    cluster.run(&["why", "nonsense"]).expect(4);

    // Without its agent.
    cluster.kill_agent("one");
    let away =
        cluster.until("its agent is away", &["why", &second], |why| why["waits"].to_string().contains("\"Agent\""));
    assert!(away["waits"].to_string().contains("is not connected"), "{away:#}");
}

#[test]
fn history_follows_a_name_through_files_and_reverts() {
    let mut cluster = Cluster::start(&[]);
    cluster.start_agent("one", &[]);
    cluster.repository.write("xene.d/a.yaml", &workflow("w", "echo one", "", ""));
    let first = cluster.commit("Begin");
    cluster.scheduled("w/p");
    cluster.run(&["trigger", "w/p", "--wait"]).expect(0);
    cluster.repository.write("README.md", "nothing of ours\n");
    cluster.commit("Say something else");
    cluster.repository.write("xene.d/a.yaml", &workflow("w", "exit 3", "", ""));
    let second = cluster.commit("Break it");
    cluster.run(&["trigger", "w/p", "--wait"]).expect(1);
    cluster.repository.git(&["mv", "xene.d/a.yaml", "xene.d/b.yaml"]);
    let moved = cluster.commit("Move it");
    cluster.repository.write("xene.d/b.yaml", &workflow("w", "exit 3", "", "      taskz: 1\n"));
    let broken = cluster.commit("Misspell it");
    cluster.repository.git(&["revert", "--no-edit", &broken]);
    cluster.repository.git(&["revert", "--no-edit", &second]);
    let head = cluster.repository.git(&["rev-parse", "HEAD"]);
    cluster.until("the reverts are in effect", &["status"], |s| s["status"]["revision"] == head.as_str());
    cluster.run(&["trigger", "w/p", "--wait"]).expect(0);

    let history = cluster.json(&["history", "w"]);
    let items = history["items"].as_array().unwrap();
    let told: Vec<(&str, &str)> =
        items.iter().map(|c| (c["change"].as_str().unwrap(), c["subject"].as_str().unwrap())).collect();
    assert_eq!(
        told,
        [
            ("Updated", "Revert \"Break it\""),
            ("Updated", "Revert \"Misspell it\""),
            ("Invalid", "Misspell it"),
            ("Moved", "Move it"),
            ("Updated", "Break it"),
            ("Created", "Begin"),
        ],
        "{history:#}"
    );
    let revisions: Vec<&str> = items.iter().map(|c| c["revision"].as_str().unwrap()).collect();
    assert_eq!(revisions[2..], [&*broken, &*moved, &*second, &*first]);
    let field = |at: usize| (items[at]["fields"][0]["old"].as_str(), items[at]["fields"][0]["new"].as_str());
    assert_eq!(
        (field(4), field(0)),
        ((Some("echo one"), Some("exit 3")), (Some("exit 3"), Some("echo one"))),
        "{history:#}"
    );
    let runs = |at: usize| (items[at]["runs"]["total"].as_u64(), items[at]["runs"]["last"]["phase"].as_str());
    assert_eq!(
        (runs(5), runs(4), runs(0)),
        ((Some(1), Some("Success")), (Some(1), Some("Error")), (Some(1), Some("Success"))),
        "{history:#}"
    );
    assert!(items[3]["fields"].is_null(), "a move changes no field: {history:#}");
    assert_eq!(cluster.json(&["history", "w", "--limit", "2"])["items"].as_array().map(Vec::len), Some(2));
    let text = cluster.run(&["history", "w"]).expect(0).stdout;
    assert!(text.contains("\"echo one\" → \"exit 3\"") && text.contains("(Ada)"), "{text}");

    // So does a commit that changes nothing but a file that travels with it.
    let travelling = workflow("w", "echo one", "", "").replacen("spec:", "spec:\n  files: [scripts/**]", 1);
    cluster.repository.write("xene.d/b.yaml", &travelling);
    cluster.repository.write("xene.d/scripts/say.sh", "echo one\n");
    cluster.commit("Take a script along");
    cluster.repository.write("xene.d/scripts/say.sh", "echo two\n");
    cluster.repository.write("xene.d/other.txt", "nothing of ours\n");
    let script = cluster.commit("Change the script");
    cluster.until("the script is in effect", &["status"], |s| s["status"]["revision"] == script.as_str());
    let history = cluster.json(&["history", "w", "--limit", "2"]);
    let told = |at: usize| ["change", "subject", "message"].map(|field| history["items"][at][field].as_str());
    let message = Some("files that travel with it: scripts/say.sh");
    assert_eq!(told(0), [Some("Updated"), Some("Change the script"), message], "{history:#}");
    assert_eq!(told(1), [Some("Updated"), Some("Take a script along"), message], "{history:#}");

    // A workflow that was removed has its history still.
    cluster.repository.git(&["rm", "--quiet", "xene.d/b.yaml"]);
    cluster.repository.write("xene.d/other.yaml", &workflow("other", "echo", "", ""));
    cluster.commit("Remove it");
    eventually("its removal is told", || {
        let history = cluster.json(&["history", "w", "--limit", "1"]);
        if history["items"][0]["change"] == "Removed" { Ok(()) } else { Err(format!("{history:#}")) }
    });
    cluster.run(&["history", "nobody"]).expect(4);
}
