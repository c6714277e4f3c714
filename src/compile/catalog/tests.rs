use std::fmt::Write;

use expect_test::{Expect, expect};
use xene_schemas::meta::Generation;

use super::*;

/// A source, a catalog, and what is in effect: rows as the machine would keep them.
#[derive(Default)]
struct Bench {
    tree: BTreeMap<String, String>,
    catalog: Catalog,
    rows: BTreeMap<String, FileRow>,
    in_effect: BTreeMap<Name, WorkflowRow>,
    revision: u32,
    asked: Vec<String>,
}

/// One workflow of one pipeline that echoes `word`.
fn workflow(name: &str, word: &str) -> String {
    format!(
        "apiVersion: xene/v1\nkind: Workflow\nmetadata: {{name: {name}}}\n\
         spec: {{pipelines: {{p: {{tasks: {{t: {{steps: [echo {word}]}}}}}}}}}}\n"
    )
}

impl Bench {
    fn put(&mut self, path: &str, text: impl Into<String>) -> &mut Self {
        self.tree.insert(path.into(), text.into());
        self
    }

    fn remove(&mut self, path: &str) -> &mut Self {
        self.tree.remove(path);
        self
    }

    fn snapshot(&mut self) -> Snapshot {
        self.revision += 1;
        self.asked.clear();
        let known = self.catalog.known();
        let mut files = BTreeMap::new();
        for (path, text) in &self.tree {
            let content = SpecHash::of(text.as_bytes()).to_string();
            let bytes = if known.get(path) == Some(&content) { None } else { Some(text.clone().into_bytes()) };
            if bytes.is_some() {
                self.asked.push(path.clone());
            }
            files.insert(path.clone(), FileEntry { content, bytes, files: None });
        }
        let revision = Revision(format!("r{}", self.revision));
        Snapshot {
            revision,
            author: None,
            subject: None,
            folder: "xene.d".into(),
            files,
            complete: true,
            problems: Vec::new(),
        }
    }

    fn desire(&mut self) -> Desired {
        let snapshot = self.snapshot();
        self.catalog.apply(None, snapshot)
    }

    /// Makes it durable, as the machine does when nothing is held.
    fn commit(&mut self, desired: &Desired) {
        for (path, row) in &desired.files {
            match row {
                Some(row) => drop(self.rows.insert(path.clone(), row.clone())),
                None => drop(self.rows.remove(path)),
            }
        }
        self.in_effect.retain(|name, _| desired.workflows.contains_key(name) || !desired.complete);
        self.in_effect.values_mut().for_each(|row| row.held = Some("no file declares it".into()));
        for (name, wanted) in &desired.workflows {
            let stored = self.in_effect.get(name);
            let (metadata, spec) = match (&wanted.body, stored) {
                (Some(body), _) => (body.metadata.clone(), body.spec.clone()),
                (None, Some(stored)) => {
                    assert_eq!(stored.hash, wanted.hash, "{name}: no body, and another hash is in effect");
                    (stored.metadata.clone(), stored.spec.clone())
                }
                (None, None) => panic!("{name}: no body, and nothing is in effect"),
            };
            let row = WorkflowRow {
                metadata,
                spec,
                revision: desired.revision.clone(),
                path: wanted.path.clone(),
                line: wanted.line,
                generation: Generation(1),
                hash: wanted.hash,
                valid: wanted.valid,
                held: None,
                blocked_among: None,
            };
            self.in_effect.insert(name.clone(), row);
        }
        self.catalog.applied(&desired.revision);
    }

    fn pass(&mut self) -> Desired {
        let desired = self.desire();
        self.commit(&desired);
        desired
    }

    fn restart(&mut self) {
        let stored: Vec<WorkflowRow> = self.in_effect.values().cloned().collect();
        self.catalog = Catalog::recover(self.rows.clone().into_iter().collect(), &stored, Limits::default());
    }
}

fn check(desired: &Desired, expected: Expect) {
    let mut text = String::new();
    for (name, workflow) in &desired.workflows {
        let DesiredWorkflow { hash, path, line, valid, body } = workflow;
        let state = if *valid { "" } else { ", last good" };
        let body = if body.is_some() { ", with body" } else { "" };
        writeln!(text, "{name} {hash:?} of {path}:{line}{state}{body}").unwrap();
    }
    desired.problems.iter().for_each(|problem| writeln!(text, "{problem}").unwrap());
    if !desired.complete {
        text += "incomplete\n";
    }
    expected.assert_eq(&text);
}

#[test]
fn only_what_changed_is_read_and_given() {
    let mut bench = Bench::default();
    bench.put("a.yaml", workflow("a", "1")).put("b.yaml", workflow("b", "1")).put("notes.yaml", "x: 1\n---\ny: 2\n");
    check(
        &bench.pass(),
        expect![[r#"
        a 98d7099a4a51 of a.yaml:1, with body
        b 0588d5ddec27 of b.yaml:1, with body
    "#]],
    );
    bench.put("b.yaml", workflow("b", "2"));
    let desired = bench.pass();
    assert_eq!(bench.asked, ["b.yaml"]);
    assert_eq!(desired.files.keys().collect::<Vec<_>>(), ["b.yaml"]);
    assert_eq!(desired.ignored, 2);
    check(
        &desired,
        expect![[r#"
        a 98d7099a4a51 of a.yaml:1
        b 4cee65f2599f of b.yaml:1, with body
    "#]],
    );
}

#[test]
fn a_broken_file_keeps_what_it_last_gave_and_holds_up_nobody() {
    let mut bench = Bench::default();
    bench.put("a.yaml", workflow("a", "1")).put("b.yaml", workflow("b", "1"));
    bench.pass();
    bench.put("a.yaml", "kind: [").put("b.yaml", workflow("b", "2")).put("new.yaml", "apiVersion: v0\n");
    check(
        &bench.pass(),
        expect![[r#"
        a 98d7099a4a51 of a.yaml:1, last good
        b 4cee65f2599f of b.yaml:1, with body
        a.yaml:2:1: error[XE0004]: this is not YAML: did not find expected node content, while parsing a flow node
        new.yaml:1:13: error[XE0015]: `apiVersion: v0` is not one of xene's
        incomplete
    "#]],
    );
    bench.pass();
    assert!(bench.asked.is_empty(), "a broken content is not read twice");
    bench.restart();
    check(
        &bench.pass(),
        expect![[r#"
        a 98d7099a4a51 of a.yaml:1, last good
        b 4cee65f2599f of b.yaml:1
        a.yaml:2:1: error[XE0004]: this is not YAML: did not find expected node content, while parsing a flow node
        new.yaml:1:13: error[XE0015]: `apiVersion: v0` is not one of xene's
        incomplete
    "#]],
    );
    assert!(bench.asked.is_empty(), "nor after a restart");
    bench.put("a.yaml", workflow("a", "1")).remove("new.yaml");
    check(
        &bench.pass(),
        expect![[r#"
        a 98d7099a4a51 of a.yaml:1
        b 4cee65f2599f of b.yaml:1
    "#]],
    );
}

#[test]
fn one_bad_document_keeps_the_whole_file_back() {
    let mut bench = Bench::default();
    bench.put("a.yaml", workflow("a", "1") + "---\n" + &workflow("b", "1"));
    bench.pass();
    bench.put("a.yaml", workflow("a", "2") + "---\n" + &workflow("b", "2") + "  x: 1\n");
    check(
        &bench.pass(),
        expect![[r#"
        a 98d7099a4a51 of a.yaml:1, last good
        b 0588d5ddec27 of a.yaml:6, last good
        a.yaml:10:3: error[XE0004]: this is not YAML: did not find expected key, while parsing a block mapping
        incomplete
    "#]],
    );
}

#[test]
fn the_path_that_has_a_name_keeps_it() {
    let mut bench = Bench::default();
    bench.put("b.yaml", workflow("w", "old"));
    bench.pass();
    bench.put("a.yaml", workflow("w", "new")).put("c.yaml", workflow("w", "newer"));
    check(
        &bench.pass(),
        expect![[r#"
        w 97001aeab5dc of b.yaml:1
        a.yaml:1:1: error[XE0017]: workflow `w` is declared more than once: a.yaml:1, b.yaml:1, c.yaml:1; b.yaml had it first and keeps it
        c.yaml:1:1: error[XE0017]: workflow `w` is declared more than once: a.yaml:1, b.yaml:1, c.yaml:1; b.yaml had it first and keeps it
    "#]],
    );
    // The incumbent goes, and one other is left: it takes over in the same pass, read long ago.
    bench.remove("b.yaml").remove("c.yaml");
    let desired = bench.pass();
    assert!(bench.asked.is_empty());
    check(
        &desired,
        expect![[r#"
        w 9c568fa17166 of a.yaml:1, with body
    "#]],
    );
}

#[test]
fn a_second_claim_takes_over_after_a_restart_too() {
    let mut bench = Bench::default();
    bench.put("b.yaml", workflow("w", "old"));
    bench.pass();
    bench.put("a.yaml", workflow("w", "new"));
    bench.pass();
    bench.restart();
    bench.remove("b.yaml");
    check(
        &bench.pass(),
        expect![[r#"
        w 9c568fa17166 of a.yaml:1, with body
    "#]],
    );
}

#[test]
fn of_two_new_claims_neither_is_taken() {
    let mut bench = Bench::default();
    bench.put("a.yaml", workflow("w", "1")).put("b.yaml", "# first\n".to_owned() + &workflow("w", "2"));
    check(
        &bench.pass(),
        expect![[r#"
        a.yaml:1:1: error[XE0017]: workflow `w` is declared more than once: a.yaml:1, b.yaml:2; none of them is taken
        b.yaml:2:1: error[XE0017]: workflow `w` is declared more than once: a.yaml:1, b.yaml:2; none of them is taken
        incomplete
    "#]],
    );
    bench.remove("a.yaml");
    check(
        &bench.pass(),
        expect![[r#"
        w 4e58ed795b52 of b.yaml:2, with body
    "#]],
    );
}

#[test]
fn a_renamed_file_changes_the_path_only() {
    let mut bench = Bench::default();
    bench.put("a.yaml", workflow("w", "1"));
    bench.pass();
    bench.remove("a.yaml").put("z/b.yml", "\n".to_owned() + &workflow("w", "1"));
    let desired = bench.pass();
    check(
        &desired,
        expect![[r#"
        w 7e2cf6bd4f7c of z/b.yml:2
    "#]],
    );
    assert_eq!(desired.files.keys().collect::<Vec<_>>(), ["a.yaml", "z/b.yml"]);
}

#[test]
fn groups_are_held_against_each_other_across_files_and_over_a_restart() {
    let grouped = |name: &str, disk: &str, max: u32| {
        format!(
            "apiVersion: xene/v1\nkind: Workflow\nmetadata: {{name: {name}}}\n\
             spec: {{pipelines: {{p: {{agents: {{labels: {{disk: {disk}}}}}, concurrency: {{group: g, max: {max}}}, \
             tasks: {{t: {{steps: [echo]}}}}}}}}}}\n"
        )
    };
    let mut bench = Bench::default();
    bench
        .put("a.yaml", grouped("a", "fast", 2))
        .put("b.yaml", grouped("b", "slow", 1))
        .put("c.yaml", workflow("c", "x"));
    let told = expect![[r#"
        b.yaml:1:1: warning[XE0090]: `max` of group `g` is 1 in pipeline `p` and 2 in `a/p`: the smallest counts
        b.yaml:1:1: error[XE0091]: group `g` goes to one agent: pipeline `p` wants it to have disk=slow, and `a/p` disk=fast
    "#]];
    let problems = |desired: &Desired| {
        assert_eq!(desired.workflows.len(), 3);
        desired.problems.iter().map(|problem| format!("{problem}\n")).collect::<String>()
    };
    told.assert_eq(&problems(&bench.pass()));
    told.assert_eq(&problems(&bench.pass()));
    bench.restart();
    told.assert_eq(&problems(&bench.pass()));
    bench.put("a.yaml", grouped("a", "slow", 1));
    assert_eq!(problems(&bench.pass()), "");
    bench.put("a.yaml", grouped("a", "slow", 3)).put("b.yaml", grouped("b", "slow", 3));
    assert_eq!(problems(&bench.pass()), "");
}

#[test]
fn what_was_not_applied_comes_again() {
    let mut bench = Bench::default();
    bench.put("a.yaml", workflow("a", "1"));
    let lost = bench.desire();
    let desired = bench.desire();
    assert!(bench.asked.is_empty());
    assert_eq!((&lost.workflows, &lost.files), (&desired.workflows, &desired.files));
    // What becomes durable late is not taken for the newer one.
    bench.catalog.applied(&lost.revision);
    assert!(bench.desire().workflows.values().all(|workflow| workflow.body.is_some()));
}

#[test]
fn a_workflow_that_comes_back_brings_its_body() {
    let mut bench = Bench::default();
    bench.put("a.yaml", workflow("a", "1"));
    bench.pass();
    bench.remove("a.yaml");
    bench.pass();
    bench.put("a.yaml", workflow("a", "1"));
    check(
        &bench.pass(),
        expect![[r#"
        a 98d7099a4a51 of a.yaml:1, with body
    "#]],
    );
}

#[test]
fn a_revert_gives_the_very_same_hash() {
    let mut bench = Bench::default();
    let hash = |desired: &Desired| desired.workflows.values().map(|workflow| workflow.hash).collect::<Vec<_>>();
    bench.put("a.yaml", workflow("a", "1"));
    let first = hash(&bench.pass());
    bench.put("a.yaml", workflow("a", "2"));
    assert_ne!(hash(&bench.pass()), first);
    bench.put("a.yaml", workflow("a", "1"));
    assert_eq!(hash(&bench.pass()), first);
}

#[test]
fn a_file_that_can_not_be_read_keeps_what_it_gave() {
    let mut bench = Bench::default();
    bench.put("a.yaml", workflow("a", "1")).put("b.yaml", workflow("b", "1"));
    bench.pass();
    let mut snapshot = bench.snapshot();
    snapshot.files.remove("a.yaml");
    snapshot.complete = false;
    let place = Position { line: 0, column: 0 };
    snapshot.problems.push(diagnostic("a.yaml", &file::UNREADABLE, place, "permission denied".into(), None));
    snapshot.files.get_mut("b.yaml").unwrap().content = "another".into();
    let desired = bench.catalog.apply(None, snapshot);
    check(
        &desired,
        expect![[r#"
            a 98d7099a4a51 of a.yaml:1, last good
            b 0588d5ddec27 of b.yaml:1, last good
            a.yaml: error[XE0001]: permission denied
            b.yaml: error[XE0001]: this file could not be read; what it last gave stays in effect
            incomplete
        "#]],
    );
    assert!(desired.files.is_empty());
    check(
        &bench.pass(),
        expect![[r#"
        a 98d7099a4a51 of a.yaml:1
        b 0588d5ddec27 of b.yaml:1
    "#]],
    );
}

mod any_history {
    use proptest::prelude::*;

    use super::*;

    /// Files a to d, each absent, broken, or declaring one or two of three names in one of two forms.
    fn file() -> impl Strategy<Value = Option<String>> {
        let one = || (0..3u8, 0..2u8).prop_map(|(name, word)| workflow(&format!("w{name}"), &word.to_string()));
        prop_oneof![
            2 => Just(None),
            1 => Just(Some("kind: [".to_owned())),
            4 => one().prop_map(Some),
            2 => (one(), one()).prop_map(|(a, b)| Some(a + "---\n" + &b)),
        ]
    }

    proptest! {
        /// Whatever happens, a body is there when it is needed (the bench insists), each name has one path at most,
        /// and a restart changes nothing.
        #[test]
        fn ends_as_a_restarted_catalog_does(
            steps in prop::collection::vec((0..4usize, file(), any::<bool>(), any::<bool>()), 1..14),
        ) {
            let mut bench = Bench::default();
            for (index, text, applied, restarted) in steps {
                let path = ["a.yaml", "b.yaml", "c.yaml", "d.yaml"][index];
                match text {
                    Some(text) => bench.put(path, text),
                    None => bench.remove(path),
                };
                let desired = bench.desire();
                if !applied {
                    continue;
                }
                bench.commit(&desired);
                let plain = |desired: Desired| {
                    let entry = |(name, w): (Name, DesiredWorkflow)| (name, w.hash, w.path, w.line, w.valid);
                    (desired.workflows.into_iter().map(entry).collect::<Vec<_>>(), desired.problems, desired.complete)
                };
                let again = bench.desire();
                prop_assert!(bench.asked.is_empty(), "read again: {:?}", bench.asked);
                prop_assert!(again.files.is_empty() && again.workflows.values().all(|w| w.body.is_none()));
                bench.commit(&again);
                let again = plain(again);
                if restarted {
                    bench.restart();
                    let recovered = bench.desire();
                    bench.commit(&recovered);
                    prop_assert_eq!(again, plain(recovered));
                }
            }
        }
    }
}

#[test]
fn a_document_that_needs_a_container_keeps_what_it_gave_and_its_neighbours_go_on() {
    let old = |executor: &str| {
        format!(
            "apiVersion: v1alpha1\nkind: Workflow\nmetadata: {{name: old}}\n\
             spec: {{pipelines: {{p: {{{executor}tasks: {{t: {{steps: [{{cmd: echo}}]}}}}}}}}}}\n---\n"
        )
    };
    let mut bench = Bench::default();
    let first = bench.put("a.yaml", old("") + &workflow("new", "one")).pass();
    let hash = |desired: &Desired, name: &str| desired.workflows.get(&name.parse::<Name>().unwrap()).map(|w| w.hash);
    assert!(hash(&first, "old").is_some() && first.problems.is_empty());
    let container = "executor: {type: container, containerConfig: {image: alpine}}, ";
    let second = bench.put("a.yaml", old(container) + &workflow("new", "two")).pass();
    assert_eq!(second.problems.iter().map(|p| p.code.as_str()).collect::<Vec<_>>(), ["XE0133"]);
    assert_eq!(hash(&second, "old"), hash(&first, "old"), "as it was");
    assert_ne!(hash(&second, "new"), hash(&first, "new"), "as the file says");
    let valid = |desired: &Desired| desired.workflows.values().map(|w| w.valid).collect::<Vec<_>>();
    assert_eq!((valid(&first), valid(&second)), (vec![true, true], vec![true, false]), "new and old");
    bench.restart();
    assert_eq!(valid(&bench.pass()), [true, false], "also after a restart");
    let third = bench.put("a.yaml", old("") + &workflow("new", "two")).pass();
    assert_eq!(valid(&third), [true, true], "mended");
    // One that never was anything else is not there.
    let mut bench = Bench::default();
    let only = bench.put("a.yaml", old(container) + &workflow("new", "one")).pass();
    assert_eq!((hash(&only, "old"), only.workflows.len()), (None, 1));
}
