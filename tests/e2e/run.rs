//! `xene run`: pipelines in one process, without a controller.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _, pipe},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
};

use rustix::process::Signal;
use tempfile::TempDir;
use xene_test_support::{
    eventually,
    process::{Ended, Process, run, xene},
    repository::Repository,
};

/// A folder with a file of one workflow, `w`, with these pipelines, and the folder's temporary one.
fn folder(pipelines: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("tmp")).unwrap();
    write(folder.path(), "w.yaml", pipelines);
    folder
}

fn write(folder: &Path, name: &str, pipelines: &str) {
    let lines: Vec<_> = pipelines.lines().map(|line| format!("    {line}\n")).collect();
    let head = "apiVersion: xene/v1\nkind: Workflow\nmetadata: {name: w}\nspec:\n  pipelines:\n";
    fs::write(folder.join(name), format!("{head}{}", lines.concat())).unwrap();
}

fn command(folder: &Path) -> Command {
    let mut command = xene(folder);
    command.arg("run").env("TMPDIR", folder.join("tmp"));
    command
}

#[track_caller]
fn xene_run(folder: &Path, arguments: &[&str]) -> Ended {
    run(command(folder), arguments)
}

/// Nothing of a run is left in the temporary folder.
#[track_caller]
fn assert_clean(folder: &Path) {
    let left: Vec<_> = fs::read_dir(folder.join("tmp")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn output_is_the_result_and_the_exit_status_that_of_the_run() {
    let folder = folder(
        "p:
  tasks:
    make: {steps: ['echo \"id=$XENE_TASK\" >> \"$XENE_OUTPUT\"; echo made; echo oops >&2']}
    show: {dependencies: make, env: {ID: {output: make.id}}, steps: ['echo \"got $ID by $XENE_TRIGGER\"; printf last']}
  finally:
    tidy: {steps: [echo tidied]}",
    );
    let ended = xene_run(folder.path(), &["w.yaml"]).expect(0);
    for line in ["make/step-1 | made", "make/step-1 | oops", "show/step-1 | got make by manual", "show/step-1 | last"] {
        assert!(ended.stdout.lines().any(|printed| printed == line), "{line:?} is missing: {ended:#?}");
    }
    assert!(ended.stdout.ends_with("tidy/step-1 | tidied\n"), "{ended:#?}");
    assert!(ended.stderr.contains("ended in Success"), "{ended:#?}");
    assert_clean(folder.path());

    let folder =
        self::folder("p: {tasks: {t: {steps: [echo before, exit 7]}, after: {dependencies: t, steps: [echo never]}}}");
    let ended = xene_run(folder.path(), &["w.yaml"]).expect(1);
    assert!(ended.stdout.contains("before") && !ended.stdout.contains("never"), "{ended:#?}");
    assert!(
        ended.stderr.contains("w/p ended in Error (TaskFailed): step step-2 of task t exited with code 7"),
        "{ended:#?}"
    );
    assert_clean(folder.path());
}

#[test]
fn the_record_is_what_the_api_would_show() {
    let folder = folder("p: {tasks: {t: {steps: ['echo a=1 >> \"$XENE_OUTPUT\"', 'exit 3']}}}");
    let ended = xene_run(folder.path(), &["w.yaml", "-o", "json"]).expect(1);
    let record = ended.json();
    assert_eq!(record["status"]["phase"], "Error", "{record:#}");
    assert_eq!(record["spec"]["trigger"]["type"], "manual");
    assert_eq!(record["status"]["tasks"]["t"]["steps"][1]["exitCode"], 3);
    assert_eq!(record["status"]["tasks"]["t"]["outputs"]["a"], "1");
    assert!(record["spec"]["revision"].as_str().unwrap().starts_with("dir-"), "{record:#}");
    let name = xene_run(folder.path(), &["w.yaml", "-o", "name"]).expect(1).stdout;
    assert!(name.starts_with("run/01"), "{name}");
}

#[test]
fn independent_tasks_run_side_by_side() {
    // Each waits for the other: they only end together.
    let step = |own: &str, other: &str| {
        format!("{{steps: ['touch {own}; while [ ! -e {other} ]; do sleep 0.02; done; echo met']}}")
    };
    let folder = folder(&format!("p: {{timeout: 20s, tasks: {{a: {}, b: {}}}}}", step("a", "b"), step("b", "a")));
    let ended = xene_run(folder.path(), &["w.yaml", "--slots", "2"]).expect(0);
    assert_eq!(ended.stdout.matches("met").count(), 2, "{ended:#?}");
    let slow = self::folder(&format!("p: {{timeout: 1s, tasks: {{a: {}, b: {}}}}}", step("a", "b"), step("b", "a")));
    let ended = xene_run(slow.path(), &["w.yaml", "--slots", "1"]).expect(1);
    assert!(ended.stderr.contains("TimedOut"), "{ended:#?}");
}

#[test]
fn pipelines_and_tasks_are_chosen() {
    let folder = folder(
        "one: {tasks: {a: {steps: [echo one-a]}, b: {dependencies: a, steps: [echo one-b]}, c: {dependencies: b, steps: [echo one-c]}}, finally: {f: {steps: [echo one-f]}}}
two: {tasks: {d: {steps: [echo two-d]}}}",
    );
    let stdout = |arguments: &[&str]| xene_run(folder.path(), arguments).expect(0).stdout;
    let all = xene_run(folder.path(), &["w.yaml"]).expect(0);
    assert!(all.stdout.contains("one-c") && all.stdout.contains("one-f") && all.stdout.contains("two-d"), "{all:#?}");
    assert!(all.stderr.contains("pipelines, one after another: one, two"), "{all:#?}");
    assert_eq!(stdout(&["w.yaml", "--pipeline", "two"]), "d/step-1 | two-d\n");
    assert_eq!(stdout(&["w.yaml", "--pipeline", "w/two"]), "d/step-1 | two-d\n");
    assert_eq!(stdout(&["w.yaml", "--task", "b"]), "a/step-1 | one-a\nb/step-1 | one-b\n");

    let absent = xene_run(folder.path(), &["w.yaml", "--pipeline", "three"]).expect(4);
    assert!(absent.stderr.contains("there is: one, two"), "{absent:#?}");
    xene_run(folder.path(), &["w.yaml", "--task", "x"]).expect(4);
    xene_run(folder.path(), &["absent.yaml"]).expect(2);
    xene_run(folder.path(), &[]).expect(2);

    // A folder with two workflows wants to be told which.
    let text = fs::read_to_string(folder.path().join("w.yaml")).unwrap().replace("name: w", "name: v");
    fs::create_dir(folder.path().join("both")).unwrap();
    fs::write(folder.path().join("both/v.yaml"), text).unwrap();
    fs::copy(folder.path().join("w.yaml"), folder.path().join("both/w.yaml")).unwrap();
    let both = xene_run(folder.path(), &["both"]).expect(2);
    assert!(both.stderr.contains("--workflow"), "{both:#?}");
    assert_eq!(stdout(&["both", "--pipeline", "v/two"]), "d/step-1 | two-d\n");
    assert_eq!(stdout(&["both", "--workflow", "w", "--pipeline", "two"]), "d/step-1 | two-d\n");
}

#[test]
fn pipelines_come_after_those_that_they_name() {
    let folder = folder(
        "last: {after: [good, bad], tasks: {t: {steps: [echo last]}}}
then: {after: good, tasks: {t: {steps: [echo then]}}}
good: {tasks: {t: {steps: [echo good]}}}
bad: {tasks: {t: {steps: [exit 1]}}}",
    );
    let ended = xene_run(folder.path(), &["w.yaml"]).expect(1);
    assert_eq!(ended.stdout, "t/step-1 | good\nt/step-1 | then\n", "{ended:#?}");
    assert!(ended.stderr.contains("one after another: good, then, bad, last"), "{ended:#?}");
    assert!(ended.stderr.contains("last does not start: bad did not end in Success"), "{ended:#?}");
    assert!(ended.stderr.contains("w/bad ended in Error"), "{ended:#?}");
    // One that is asked for does not wait for others.
    assert_eq!(xene_run(folder.path(), &["w.yaml", "--pipeline", "last"]).expect(0).stdout, "t/step-1 | last\n");
}

#[test]
fn params_are_checked_and_never_become_code() {
    let folder = folder(
        "p:
  params: {who: {required: true}, level: {type: integer, default: 3}}
  tasks:
    t: {env: {WHO: {param: who}}, steps: ['printf \"%s\\n\" \"$WHO\" \"$XENE_PARAM_LEVEL\"']}",
    );
    let hostile = "$(touch pwned); `touch pwned` \"'; touch pwned #";
    let who = format!("who={hostile}");
    let ended = xene_run(folder.path(), &["w.yaml", "-p", &who, "-p", "level=7"]).expect(0);
    assert_eq!(ended.stdout, format!("t/step-1 | {hostile}\nt/step-1 | 7\n"));
    assert!(!folder.path().join("pwned").exists());
    for (arguments, word) in [
        (&["w.yaml"][..], "param who is required"),
        (&["w.yaml", "-p", "who=x", "-p", "level=x"], "param level takes a whole number"),
        (&["w.yaml", "-p", "who=x", "-p", "wo=x"], "there is no param wo"),
    ] {
        let refused = xene_run(folder.path(), arguments).expect(2);
        assert!(refused.stderr.contains(word) && refused.stdout.is_empty(), "{refused:#?}");
    }
    assert_clean(folder.path());
}

#[test]
fn a_broken_file_is_told_as_validate_tells_it() {
    let folder = folder("p: {tasks: {t: {stepz: [a]}}}");
    let ended = xene_run(folder.path(), &["w.yaml"]).expect(1);
    assert!(
        ended.stderr.contains("w.yaml:6:") && ended.stderr.contains("error[XE0011]") && ended.stderr.contains("^^^"),
        "{ended:#?}"
    );
    assert!(ended.stdout.is_empty(), "{ended:#?}");
}

#[test]
fn standard_input_is_a_file_too() {
    let folder = folder("p: {tasks: {t: {steps: [echo by hand]}}}");
    let mut command = command(folder.path());
    command.arg("-").stdin(fs::File::open(folder.path().join("w.yaml")).unwrap());
    assert_eq!(run(command, &[] as &[&str]).expect(0).stdout, "t/step-1 | by hand\n");
}

#[test]
fn a_commit_is_run_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("tmp")).unwrap();
    let repository = Repository::new(&folder.path().join("r"));
    let file = |text: &str| {
        write(&repository.folder().join("flows"), "w.yaml", &format!("p: {{tasks: {{t: {{steps: ['echo {text}']}}}}}}"))
    };
    fs::create_dir(repository.folder().join("flows")).unwrap();
    file("first $XENE_REVISION");
    let first = repository.commit("first");
    file("second");
    repository.commit("second");
    file("uncommitted");
    let at = |revision: &str, path: &str| xene_run(folder.path(), &[path, "--at", revision]);
    let path = "r/flows/w.yaml";
    assert_eq!(at(&first, path).expect(0).stdout, format!("t/step-1 | first {first}\n"));
    assert_eq!(at("HEAD~1", "r/flows").expect(0).stdout, format!("t/step-1 | first {first}\n"));
    assert_eq!(at("main", path).expect(0).stdout, "t/step-1 | second\n");
    assert_eq!(xene_run(folder.path(), &[path]).expect(0).stdout, "t/step-1 | uncommitted\n");
    // One that only the commit has.
    fs::remove_file(repository.folder().join("flows/w.yaml")).unwrap();
    assert_eq!(at("main", path).expect(0).stdout, "t/step-1 | second\n");
    assert_eq!(repository.git(&["status", "--porcelain"]), "D flows/w.yaml", "the work tree is left alone");
    // Of a folder with xene.d a source reads nothing else, unless it is told to.
    let default = repository.folder().join("flows/xene.d");
    fs::create_dir(&default).unwrap();
    write(&default, "q.yaml", "q: {tasks: {t: {steps: ['echo default']}}}");
    file("beside");
    repository.commit("third");
    for arguments in [&["r/flows"] as &[&str], &["r/flows", "--at", "main"]] {
        assert_eq!(xene_run(folder.path(), arguments).expect(0).stdout, "t/step-1 | default\n", "{arguments:?}");
    }

    for (revision, path, word) in [
        ("nonsense", path, "names no commit"),
        ("main", "r/flows/absent.yaml", "there is no flows/absent.yaml in commit"),
        ("main", "tmp", "lies in no git repository"),
        ("main", "-", "standard input"),
    ] {
        let refused = at(revision, path).expect(2);
        assert!(refused.stderr.contains(word), "{word}: {refused:#?}");
    }
}

/// Takes a script along, which makes an artifact for a task in another workspace.
const TRAVELS: &str = r#"apiVersion: xene/v1
kind: Workflow
metadata: {name: w}
spec:
  files: ["scripts/*.sh"]
  pipelines:
    go:
      tasks:
        make: {steps: [scripts/make.sh], artifacts: {save: [out]}}
        use: {context: other, dependencies: make, artifacts: {from: [make]}, steps: ["cat out/made; scripts/make.sh"]}
"#;

#[test]
fn files_travel_and_artifacts_go_from_task_to_task() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("tmp")).unwrap();
    let repository = Repository::new(&folder.path().join("r"));
    let flows = repository.folder().join("flows");
    let script = |text: &str| {
        let path = flows.join("scripts/make.sh");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, format!("#!/bin/sh\nmkdir -p out\necho {text} | tee out/made\n")).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    script("old");
    fs::write(flows.join("w.yaml"), TRAVELS).unwrap();
    repository.commit("old");
    script("new");
    let printed = |text: &str| format!("make/step-1 | {text}\nuse/step-1 | {text}\nuse/step-1 | {text}\n");
    for (arguments, text) in [
        (&["r/flows/w.yaml"] as &[&str], "new"),
        (&["r/flows"], "new"),
        (&["r/flows/w.yaml", "--at", "HEAD"], "old"),
        (&["r/flows", "--at", "main"], "old"),
    ] {
        let ended = xene_run(folder.path(), arguments).expect(0);
        assert_eq!(ended.stdout, printed(text), "{arguments:?}: {ended:#?}");
    }
    // Standard input lies in the current folder.
    let mut here = command(&flows);
    here.env("TMPDIR", folder.path().join("tmp")).current_dir(&flows);
    here.arg("-").stdin(fs::File::open(flows.join("w.yaml")).unwrap());
    assert_eq!(run(here, &[] as &[&str]).expect(0).stdout, printed("new"));
    // Another script is another state of the files.
    let revision = || xene_run(folder.path(), &["r/flows", "-o", "json"]).expect(0).json()["spec"]["revision"].clone();
    let before = revision();
    script("newer");
    assert_ne!(revision(), before);
    assert_clean(folder.path());

    let validate = || {
        let mut command = xene(folder.path());
        command.arg("validate");
        run(command, &["r/flows"])
    };
    assert!(!validate().expect(0).stdout.contains("XE010"));
    std::os::unix::fs::symlink("/etc/hostname", flows.join("scripts/link.sh")).unwrap();
    for ended in [validate(), xene_run(folder.path(), &["r/flows/w.yaml"])] {
        let ended = ended.expect(1);
        let told = format!("{}{}", ended.stdout, ended.stderr);
        assert!(told.contains("r/flows/w.yaml:5:") && told.contains("error[XE0102]"), "{ended:#?}");
    }
    fs::remove_dir_all(flows.join("scripts")).unwrap();
    assert!(validate().expect(0).stdout.contains("warning[XE0103]"));
    assert_clean(folder.path());
}

const GATED: &str = "p:
  tasks:
    build: {steps: [echo built]}
    ship: {steps: [echo shipped]}
    tell: {dependencies: ship, steps: [echo told]}
  connectors: [{from: build, to: ship, approval: {message: Ship it?}}]";

#[test]
fn without_a_terminal_approvals_are_given_beforehand_or_refused() {
    let folder = folder(GATED);
    for name in ["ship", "all"] {
        let ended = xene_run(folder.path(), &["w.yaml", "--approve", name]).expect(0);
        let printed = "build/step-1 | built\nship/step-1 | shipped\ntell/step-1 | told\n";
        assert_eq!(ended.stdout, printed, "{name}: {ended:#?}");
    }
    let ended = xene_run(folder.path(), &["w.yaml"]).expect(1);
    let sentence = "task ship needs approval and there is no terminal to ask on, so it is rejected; approve it with --approve ship\n";
    assert!(ended.stderr.contains(sentence), "{ended:#?}");
    assert_eq!(ended.stdout, "build/step-1 | built\n", "{ended:#?}");
    let record = xene_run(folder.path(), &["w.yaml", "-o", "json"]).expect(1).json();
    assert_eq!((&record["status"]["phase"], &record["status"]["reason"]), (&"Error".into(), &"Rejected".into()));
    let tasks = &record["status"]["tasks"];
    assert_eq!((&tasks["ship"]["reason"], &tasks["ship"]["approval"]["approved"]), (&"Rejected".into(), &false.into()));
    let absent = xene_run(folder.path(), &["w.yaml", "--approve", "shop"]).expect(4);
    assert!(absent.stderr.contains("there is no task shop"), "{absent:#?}");
    assert_clean(folder.path());
}

#[test]
fn a_terminal_is_asked() {
    let folder = folder(GATED);
    for (answer, shipped, code) in [("y\n", true, 0), ("\n", false, 1), ("\u{3}", false, 130)] {
        let (stdin, mut typed) = pipe().unwrap();
        let mut command = Command::new("script");
        let line = format!("'{}' run w.yaml", xene_test_support::process::binary().display());
        command.args(["-qec", &line, "/dev/null"]).current_dir(folder.path()).env_clear().stdin(stdin);
        command.env("PATH", xene_test_support::process::search_path()).env("TERM", "xterm");
        command.env("HOME", folder.path()).env("TMPDIR", folder.path().join("tmp"));
        let mut process = Process::spawn("terminal", command);
        process.line_after("Ship it? — run ship? [y/N]");
        typed.write_all(answer.as_bytes()).unwrap();
        let status = process.wait();
        let output = process.output();
        assert_eq!(status.code(), Some(code), "{answer:?}: {output}");
        assert_eq!(output.contains("ship/step-1 | shipped"), shipped, "{answer:?}: {output}");
        assert_clean(folder.path());
    }
}

/// A pipeline whose step says that it runs, and a child of it that left its group.
const LONG: &str = "p:
  gracePeriod: 20s
  tasks:
    t: {steps: ['setsid sleep 300 & trap \"echo asked; exit 0\" TERM; echo begun; sleep 300 & wait']}
  finally:
    tidy: {steps: [echo tidied]}";

#[test]
fn ctrl_c_cancels_in_order() {
    let folder = folder(LONG);
    let mut command = command(folder.path());
    command.arg("w.yaml");
    let mut process = Process::spawn("run", command);
    process.line_after("t/step-1 | begun");
    process.signal(Signal::INT);
    let status = process.wait();
    assert_eq!(status.code(), Some(130), "{}", process.output());
    let output = process.output();
    assert!(output.contains("asked") && output.contains("tidied"), "{output}");
    assert_no_process_below(&folder.path().join("tmp").to_string_lossy());
    assert_clean(folder.path());
}

#[test]
fn a_reader_that_goes_away_ends_the_run_in_order() {
    let folder = folder(LONG);
    let tidied = folder.path().join("tidied");
    write(
        folder.path(),
        "w.yaml",
        &LONG
            .replace("echo tidied", &format!("touch {}", tidied.display()))
            .replace("sleep 300 & wait", "while :; do echo more; sleep 0.1; done"),
    );
    let (read, written) = pipe().unwrap();
    let mut command = command(folder.path());
    command.arg("w.yaml").stdout(written);
    let mut child = command.spawn().unwrap();
    drop(command);
    let mut lines = BufReader::new(read).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "t/step-1 | begun");
    drop(lines);
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(1), "the run was cancelled");
    assert!(tidied.exists());
    assert_no_process_below(&folder.path().join("tmp").to_string_lossy());
    assert_clean(folder.path());
}

#[test]
fn a_second_ctrl_c_kills() {
    let stubborn = LONG
        .replace("echo asked; exit 0", "echo asked")
        .replace("sleep 300 & wait", "while :; do sleep 1 || true; done");
    let folder = folder(&stubborn);
    let mut command = command(folder.path());
    command.arg("w.yaml");
    let mut process = Process::spawn("run", command);
    process.line_after("t/step-1 | begun");
    process.signal(Signal::INT);
    process.line_after("t/step-1 | asked");
    process.signal(Signal::INT);
    let status = process.wait();
    let output = process.output();
    assert_eq!(status.code(), Some(130), "{output}");
    assert!(!output.contains("tidied"), "{output}");
    assert_no_process_below(&folder.path().join("tmp").to_string_lossy());
    assert_clean(folder.path());
}

/// Steps see paths below the temporary folder: none that does so lives on.
#[track_caller]
fn assert_no_process_below(folder: &str) {
    let mut left = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        let text = String::from_utf8_lossy(&environment);
        if text.split('\0').any(|variable| variable.starts_with(&format!("XENE_WORKSPACE={folder}"))) {
            left.push(entry.file_name());
        }
    }
    assert!(left.is_empty(), "processes were left: {left:?}");
}

#[test]
fn a_reader_that_goes_away_ends_the_run() {
    let folder = folder("p: {tasks: {t: {steps: ['while :; do echo line; done']}}}");
    let script = format!("'{}' run w.yaml | head -n 1", xene_test_support::process::binary().display());
    let mut command = Command::new("timeout");
    command.args(["60", "sh", "-c", &script]).current_dir(folder.path()).env_clear();
    command.env("PATH", xene_test_support::process::search_path());
    command.env("HOME", folder.path()).env("TMPDIR", folder.path().join("tmp"));
    assert_eq!(run(command, &[] as &[&str]).expect(0).stdout, "t/step-1 | line\n");
    assert_no_process_below(&folder.path().join("tmp").to_string_lossy());
    assert_clean(folder.path());
}

#[test]
fn workspaces_are_private_and_stay_if_wanted() {
    let folder = folder(
        "p: {tasks: {t: {steps: ['echo precious > file; stat -c %a \"$(dirname \"$(dirname \"$(dirname \"$(dirname \"$XENE_WORKSPACE\")\")\")\")\"; echo kept >> \"$XENE_CACHE/file\"; cat \"$XENE_CACHE/file\"']}}}",
    );
    let ended = xene_run(folder.path(), &["w.yaml", "--keep-workspace"]).expect(0);
    assert!(ended.stdout.contains("t/step-1 | 700\n"), "{ended:#?}");
    let (_, kept) = ended.stderr.split_once("is kept in ").unwrap();
    let workspace = Path::new(kept.lines().next().unwrap()).join("default");
    assert_eq!(fs::read_to_string(workspace.join("file")).unwrap(), "precious\n");
    assert_eq!(fs::metadata(folder.path().join("tmp")).unwrap().permissions().mode() & 0o777, 0o755);
    fs::remove_dir_all(folder.path().join("tmp")).unwrap();
    fs::create_dir(folder.path().join("tmp")).unwrap();
    // $XENE_CACHE lasts.
    let again = xene_run(folder.path(), &["w.yaml"]).expect(0);
    assert_eq!(again.stdout.matches("kept").count(), 2, "{again:#?}");
    assert_clean(folder.path());
}

#[test]
fn on_a_terminal_a_tree_is_drawn_below_the_output() {
    let folder = folder("p: {tasks: {t: {steps: [echo visible]}}}");
    let mut command = Command::new("script");
    let line = format!("'{}' run w.yaml", xene_test_support::process::binary().display());
    command.args(["-qec", &line, "/dev/null"]).current_dir(folder.path()).env_clear();
    command.env("PATH", xene_test_support::process::search_path()).env("TERM", "xterm");
    command.env("HOME", folder.path()).env("TMPDIR", folder.path().join("tmp"));
    let drawn = eventually("the terminal is there", || {
        let ended = Ended::from_output(command.output().map_err(|error| error.to_string())?);
        if ended.code == 0 { Ok(ended.stdout) } else { Err(format!("{ended:#?}")) }
    });
    assert!(drawn.contains("t/step-1 | visible") && drawn.contains("\u{1b}[?25h"), "{drawn:?}");
    let tree = drawn.rsplit("t/step-1 | visible").next().unwrap();
    assert!(tree.contains('✓') && tree.contains("w/p") && tree.contains("Success"), "{drawn:?}");
}
