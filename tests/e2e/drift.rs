//! A store that somebody edits behind the controller's back.

use heed::types::Bytes;
use xene_agent::lmdb::Env;
use xene_test_support::cluster::Cluster;

const WORKFLOW: &str = "apiVersion: xene/v1\nkind: Workflow\nmetadata: {name: NAME}\nspec:\n  pipelines:\n    \
                        p:\n      tasks: {t: {steps: ['echo as-committed']}}\n";

/// Replaces `from` by `to`, of equal length, in every row of a table; how many rows had it.
fn edit(env: &Env, table: &str, from: &[u8], to: &[u8]) -> usize {
    env.write(|env, txn| {
        let rows = env.open_database::<Bytes, Bytes>(txn, Some(table))?.unwrap();
        let mut edited = Vec::new();
        for entry in rows.iter(txn)? {
            let (key, row) = entry?;
            if let Some(at) = row.windows(from.len()).position(|part| part == from) {
                let mut row = row.to_vec();
                row[at..at + to.len()].copy_from_slice(to);
                edited.push((key.to_vec(), row));
            }
        }
        edited.iter().try_for_each(|(key, row)| rows.put(txn, key, row))?;
        Ok::<_, xene::store::StoreError>(edited.len())
    })
    .unwrap()
}

#[test]
fn an_edited_store_says_again_what_the_commit_says() {
    let mut cluster = Cluster::start(&[]);
    cluster.start_agent("a", &[]);
    for name in ["w", "v"] {
        cluster.repository.write(&format!("xene.d/{name}.yaml"), &WORKFLOW.replace("NAME", name));
    }
    cluster.commit("two workflows");
    cluster.scheduled("w/p");
    let before = cluster.json(&["get", "workflows", "w"]);
    cluster.kill_controller();
    {
        let env = Env::open(&cluster.data().join("store"), 64).unwrap();
        for table in ["workflows", "pipelines", "specs"] {
            assert_eq!(edit(&env, table, b"as-committed", b"as-smuggled!"), 2, "{table}");
        }
    }
    cluster.start_controller();
    cluster.until("the drift is repaired", &["get", "events"], |events| {
        events["items"].as_array().unwrap().iter().any(|event| {
            event["reason"] == "DriftRepaired" && event["message"].as_str().unwrap().contains("workflow/w")
        })
    });
    assert_eq!(cluster.json(&["get", "workflows", "w"]), before);
    cluster.scheduled("w/p");
    let run = cluster.run(&["trigger", "w/p", "--wait"]).expect(0).stdout.trim().to_owned();
    assert!(cluster.run(&["logs", &run]).expect(0).stdout.contains("as-committed"));
    let repairs = |cluster: &Cluster| {
        let events = cluster.json(&["get", "events"]);
        events["items"].as_array().unwrap().iter().filter(|event| event["reason"] == "DriftRepaired").count()
    };
    assert_eq!(repairs(&cluster), 1);
    // What is repaired stays so.
    cluster.kill_controller();
    cluster.start_controller();
    cluster.run(&["sync"]).expect(0);
    cluster.repository.write("xene.d/v.yaml", &WORKFLOW.replace("NAME", "v").replace("as-committed", "again"));
    cluster.commit("another");
    assert_eq!(repairs(&cluster), 1);
    let status = cluster.json(&["status"]);
    let ready = status["status"]["conditions"].as_array().unwrap().iter().find(|one| one["type"] == "Ready").unwrap();
    assert_eq!(ready["status"], "True", "{status:#}");
}
