//! What `xene validate` prints, in each of its forms.

use expect_test::expect;
use serde_json::Value;

use super::*;
use crate::cli::output::testing;

#[test]
fn folders_give_what_a_source_would_read() {
    let root = tempfile::tempdir().unwrap();
    let write = |name: &str| {
        let path = root.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, name).unwrap();
    };
    ["b.yml", "a/x.yaml", "c.json", "no.txt", ".hidden/h.yaml", "skip.yaml", ".xeneignore"].into_iter().for_each(write);
    fs::write(root.path().join(".xeneignore"), "skip.yaml\n").unwrap();
    let names = |paths: &[PathBuf]| {
        let files = collect(paths).unwrap().files;
        let root = shown(root.path());
        files.iter().map(|(path, _)| path.trim_start_matches(&root).to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&[root.path().into()]), ["/a/x.yaml", "/b.yml", "/c.json"]);
    assert_eq!(names(&[root.path().join("no.txt")]), ["/no.txt"], "a named file is taken as it is");
    assert_eq!(collect(&["/no/such".into()]).unwrap_err().status(), 2);
    ["xene.d/x.yaml", "xene.d/not.yaml", "xene.d/.xeneignore"].into_iter().for_each(write);
    fs::write(root.path().join("xene.d/.xeneignore"), "not.yaml\n").unwrap();
    assert_eq!(names(&[root.path().into()]), ["/xene.d/x.yaml"], "by default a source reads no other folder");
    assert_eq!(names(&[root.path().join("a")]), ["/a/x.yaml"]);
}

#[test]
fn a_folder_is_refused_what_a_source_would_refuse() {
    let outer = tempfile::tempdir().unwrap();
    let root = outer.path().join("flows");
    fs::create_dir_all(root.join("sub")).unwrap();
    fs::write(outer.path().join("out.yaml"), "x: 1\n").unwrap();
    fs::write(root.join("sub/real.yaml"), "x: 1\n").unwrap();
    fs::write(root.join("lfs.yaml"), "version https://git-lfs.github.com/spec/v1\noid sha256:0\n").unwrap();
    fs::write(root.join(".xeneignore"), "[z-a].yaml\n").unwrap();
    let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, root.join(name)).unwrap();
    link("../out.yaml", "out.yaml");
    link("nowhere.yaml", "dangling.yaml");
    link("sub/real.yaml", "within.yaml");
    let Collected { files, problems } = collect(std::slice::from_ref(&root)).unwrap();
    let name = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    let read: Vec<_> = files.iter().map(|(path, _)| name(path)).collect();
    assert_eq!(read, ["real.yaml", "within.yaml"], "a link within counts as a file of its own");
    let told: Vec<_> = problems.iter().map(|problem| (name(&problem.path), problem.code.as_str())).collect();
    let expected =
        [(".xeneignore", "XE0908"), ("dangling.yaml", "XE0902"), ("lfs.yaml", "XE0903"), ("out.yaml", "XE0902")];
    assert_eq!(told, expected.map(|(name, code)| (name.to_owned(), code)));
}

#[test]
fn a_file_is_read_once_however_it_is_named_and_no_further_than_counts() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("a.yaml");
    fs::write(&path, "x: 1\n").unwrap();
    let files = collect(&[root.path().into(), path, root.path().join("./a.yaml")]).unwrap().files;
    assert_eq!(files.len(), 1, "{files:?}");
    // Git leads nobody into a folder by a link.
    let tree = tempfile::tempdir().unwrap();
    for folder in [".git", "v2"] {
        fs::create_dir(tree.path().join(folder)).unwrap();
    }
    fs::write(tree.path().join("v2/a.yaml"), "x: 1\n").unwrap();
    std::os::unix::fs::symlink("v2", tree.path().join("latest")).unwrap();
    assert_eq!(
        source::read_folder(&tree.path().canonicalize().unwrap(), "").0.into_keys().collect::<Vec<_>>(),
        ["v2/a.yaml"]
    );
    let endless = collect(&["/dev/zero".into()]).unwrap().files;
    assert_eq!(endless[0].1.len(), compile::MAX_FILE_BYTES + 1);
    assert_eq!(compile::validate(&endless).1[0].code, "XE0002");
}

#[test]
fn conversion_fails_where_there_are_errors() {
    let files = vec![("w.yaml".to_owned(), b"x: 1\ny: 2\nname: bild\n".to_vec())];
    let converted = |severity, strict| {
        let (mut ui, _, err) = testing::ui(Format::Table);
        let result = convert(&files, &(1, vec![problem(severity)]), strict, &mut ui);
        (result.map_or_else(|error| error.status(), |()| 0), err.text())
    };
    let (status, told) = converted(Severity::Error, false);
    assert_eq!(status, 1);
    assert!(told.contains("\n3 | name: bild\n"), "{told}");
    assert_eq!((converted(Severity::Warning, false).0, converted(Severity::Warning, true).0), (0, 1));
}

fn problem(severity: Severity) -> Diagnostic {
    Diagnostic {
        path: "w.yaml".into(),
        line: 3,
        column: 7,
        code: "XE0012".into(),
        severity,
        message: "there is no task named bild".into(),
        hint: Some("did you mean build?".into()),
    }
}

fn files(count: usize) -> Files {
    vec![("w.yaml".into(), b"1\n2\nname: bild\n".to_vec()); count]
}

/// Reports, and gives the exit status, standard output and standard error.
fn reported(verdict: &Verdict, output: Output, strict: bool) -> (u8, String, String) {
    let (mut ui, out, err) = testing::ui(output.format().unwrap_or(Format::Table));
    let result = report(&files(2), verdict, (output, strict), &mut ui);
    (result.map_or_else(|error| error.status(), |()| 0), out.text(), err.text())
}

#[test]
fn problems_go_to_stdout_and_the_sum_to_stderr() {
    let verdict = (1, vec![problem(Severity::Error), problem(Severity::Warning)]);
    let (status, out, err) = reported(&verdict, Output::Table, false);
    assert_eq!(status, 1);
    expect![[r#"
        w.yaml:3:7: error[XE0012]: there is no task named bild
          |
        3 | name: bild
          |       ^^^^
          = hint: did you mean build?
        w.yaml:3:7: warning[XE0012]: there is no task named bild
          |
        3 | name: bild
          |       ^^^^
          = hint: did you mean build?
    "#]]
    .assert_eq(&out);
    assert_eq!(err, "2 files, 1 workflow: 1 error, 1 warning; once these are mended there may be more\n");
}

#[test]
fn colours_mark_the_word_the_carets_and_the_hint() {
    let (mut ui, out, _) = testing::ui(Format::Table);
    ui.out.colored = true;
    report(&files(1), &(1, vec![problem(Severity::Warning)]), (Output::Table, false), &mut ui).unwrap();
    let plain =
        out.text().replace("\u{1b}[0m", "").replace("\u{1b}[1m\u{1b}[33m", "<y>").replace("\u{1b}[1m\u{1b}[36m", "<c>");
    expect![[r#"
        w.yaml:3:7: <y>warning[XE0012]: there is no task named bild
          |
        3 | name: bild
          |       <y>^^^^
          = <c>hint: did you mean build?
    "#]]
    .assert_eq(&plain);
}

#[test]
fn warnings_alone_are_no_failure_unless_strict() {
    let verdict = (1, vec![problem(Severity::Warning)]);
    let (status, out, err) = reported(&verdict, Output::Json, false);
    assert_eq!((status, err.as_str()), (0, "2 files, 1 workflow: 1 warning\n"));
    let value: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(value["problems"][0]["code"], "XE0012");
    assert_eq!(reported(&verdict, Output::Table, true).0, 1);
    assert_eq!(
        reported(&(1, vec![]), Output::Table, true),
        (0, String::new(), "2 files, 1 workflow: no problems\n".into())
    );
}

#[test]
fn annotations_escape_what_would_end_them() {
    let odd = Diagnostic {
        path: "a,b:c%.yaml".into(),
        line: 0,
        message: "50%, two\nlines: done".into(),
        hint: None,
        ..problem(Severity::Warning)
    };
    let (status, out, _) = reported(&(1, vec![odd, problem(Severity::Error)]), Output::Github, false);
    assert_eq!(status, 1);
    expect![[r#"
        ::warning file=a%2Cb%3Ac%25.yaml,title=XE0012%3A missing field::50%25, two%0Alines: done
        ::error file=w.yaml,line=3,col=7,title=XE0012%3A missing field::there is no task named bild%0Ahint: did you mean build?
    "#]]
    .assert_eq(&out);
}

#[test]
fn sarif_keeps_the_constraints_of_its_schema() {
    let whole = Diagnostic {
        path: "/abs/ä b.yaml".into(),
        line: 0,
        column: 0,
        code: "XE0002".into(),
        ..problem(Severity::Error)
    };
    let later = Diagnostic { code: "XE9999".into(), ..problem(Severity::Warning) };
    let (_, out, _) = reported(&(1, vec![problem(Severity::Error), whole, later]), Output::Sarif, false);
    let log: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((log["version"].as_str(), log["runs"].as_array().unwrap().len()), (Some("2.1.0"), 1));
    let run = &log["runs"][0];
    assert_eq!(run["tool"]["driver"]["name"], "xene");
    let rules = run["tool"]["driver"]["rules"].as_array().unwrap();
    let ids: Vec<_> = rules.iter().map(|rule| rule["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["XE0002", "XE0012", "XE9999"], "each once");
    assert!(rules[1]["help"]["markdown"].as_str().unwrap().starts_with("# XE0012"));
    let results = run["results"].as_array().unwrap();
    assert_eq!(results.len(), 3);
    for result in results {
        let index = usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap();
        assert_eq!(result["ruleId"], rules[index]["id"]);
        assert!(["none", "note", "warning", "error"].contains(&result["level"].as_str().unwrap()));
        assert!(!result["message"]["text"].as_str().unwrap().is_empty());
        let place = &result["locations"][0]["physicalLocation"];
        let uri = place["artifactLocation"]["uri"].as_str().unwrap();
        assert!(uri.is_ascii() && !uri.contains(' '));
        if let Some(region) = place.get("region") {
            assert!(region["startLine"].as_u64().unwrap() >= 1 && region["startColumn"].as_u64().unwrap() >= 1);
        }
    }
    let place = |index: usize| &results[index]["locations"][0]["physicalLocation"];
    assert_eq!(place(0)["artifactLocation"]["uriBaseId"], "%SRCROOT%");
    assert_eq!(place(1)["artifactLocation"]["uri"], "file:///abs/%C3%A4%20b.yaml");
    assert!(place(1).get("region").is_none(), "of the whole file");
    assert!(!out.contains("null"));
}

#[test]
fn old_manifests_are_printed_as_they_would_be_written_today() {
    let old = r#"{"apiVersion": "v1alpha1", "kind": "Workflow", "metadata": {"name": "old", "description": "Once."},
        "spec": {"triggers": {"often": {"type": "cron", "cronConfig": "*/5 * * * *"}},
        "pipelines": {"main": {"trigger": "often", "tasks": {
            "get": {"workingDir": "src", "steps": [{"name": "fetch", "type": "shell", "cmd": "git fetch\ngit status"}]},
            "use": {"dependencies": ["get"], "steps": [{"name": "make", "type": "shell", "cmd": "make"}]}}}}}}"#;
    let files = vec![("old.json".to_owned(), old.as_bytes().to_vec())];
    let verdict = compile::validate(&files);
    assert_eq!(verdict, (1, vec![]));
    let (mut ui, out, err) = testing::ui(Format::Table);
    convert(&files, &verdict, false, &mut ui).unwrap();
    assert_eq!(err.text(), "");
    expect![[r#"
        apiVersion: xene/v1
        kind: Workflow
        metadata:
          name: old
          description: Once.
        spec:
          triggers:
            often:
              type: cron
              schedule: '*/5 * * * *'
          pipelines:
            main:
              triggers:
              - often
              tasks:
                get:
                  workingDir: src
                  steps:
                  - name: fetch
                    run: |-
                      git fetch
                      git status
                use:
                  dependencies:
                  - get
                  steps:
                  - name: make
                    run: make
    "#]]
    .assert_eq(&out.text());
    assert_eq!(compile::validate(&[("new.yaml".into(), out.bytes())]), (1, vec![]));
}
