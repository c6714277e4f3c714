//! The reference pages against the code: what is generated is fresh, what is written by hand leaves nothing out.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use clap::CommandFactory;
use xene::cli::Cli;
use xene_test_support::process::{run, xene};

use crate::{assert_fresh, path, read};

const PREFACE: &str = "# The command line

`xene` is everything: controller, agent, client and local runner. `xene-agent` is the agent alone, with the flags of `xene agent`, for
machines where size counts. This page is generated from the program; `xene COMMAND --help` prints the same.

Results go to standard output, everything else to standard error. `-o json` and `-o yaml` print what the
[HTTP API](http.md) gives; `-o name` prints names that other commands take.

## Exit status

| status | means |
|---|---|
| 0 | done; with `--wait` or `--follow`, and of `xene run`: the run ended in Success |
| 1 | the run ended in Error, validation found errors, a workflow test failed, the source has problems, or the controller refused or failed |
| 2 | the command line, or what was given on it, makes no sense |
| 3 | the controller can't be reached |
| 4 | there is no such object |
| 5 | the token, or the agent's identity, does not allow it |
| 130 | ended by Ctrl-C |

## Environment

| variable | means |
|---|---|
| `XENE_SERVER`, `XENE_TOKEN`, `XENE_CA` | `--server`, `--token`, `--ca` of every client command |
| `XENE_<FLAG>` | each flag of `dev`, `controller` and `agent`: `XENE_DATA_DIR` is `--data-dir`. A list is separated by commas |
| `NO_COLOR` | set and not empty: no colours, unless `--color always` |
| `SSL_CERT_FILE` | the certificates that vouch for an https server, instead of the system's |
| `XDG_CACHE_HOME` | where `xene run` keeps `$XENE_CACHE`: below `$XDG_CACHE_HOME/xene`, by default `~/.cache/xene` |
| `XDG_DATA_HOME` | where data folders lie if `--data-dir` is not given: `$XDG_DATA_HOME/xene`, by default `~/.local/share/xene` |

Without `--token` a client looks for `admin.token` in `$XENE_DATA_DIR`, then in `.xene/controller` of this folder and those
above it, then in the default data folder: on the controller's own machine nothing needs to be set.

## Files on disk

| file | holds |
|---|---|
| *controller*`/store/` | all that is known (LMDB) |
| *controller*`/logs/` | logs of runs, compressed |
| *controller*`/pki/` | the certificate authority; mode 0700 |
| *controller*`/admin.token`, `hooks.key` | the API's token; what hook tokens are derived from; mode 0600 |
| *controller*`/mirror/` | a disposable copy of a remote repository |
| *agent*`/identity/` | its key and certificate; mode 0700 |
| *agent*`/journal/` | its claims, and what the controller has not acknowledged (LMDB) |
| *agent*`/told/`, `bounds/`, `renewal` | what tells its next process where runs are and until when exclusive ones may live, and that it is the same agent |
| *agent*`/logs/` | output that the controller has not acknowledged |
| *agent*`/work/`, `cache/` | workspaces of runs; `$XENE_CACHE` of pipelines |
| `$TMPDIR/xene-run-`*ID* | what `xene run` works in, until it ends; mode 0700 |
| `lock` in each | the pid of the process that has the folder; a second one is refused |

";

#[test]
fn the_command_line_is_generated() {
    let mut root = xene::cli::settings::command().term_width(100);
    root.build();
    let mut text = PREFACE.to_owned();
    let help = root.render_help().to_string();
    let (_, global) = help.split_once("Global options:\n").unwrap();
    let global = global.split("\n\n").next().unwrap();
    text += &format!("## Global options\n\nEvery client command takes them.\n\n```text\n{global}\n```\n");
    // In the order of the help: naming the variables of some has moved them to the end.
    let order: Vec<_> = Cli::command().get_subcommands().map(|command| command.get_name().to_owned()).collect();
    for name in order {
        let command = root.find_subcommand(&name).unwrap();
        commands(command, &format!("xene {name}"), &mut text);
    }
    assert_fresh("docs/reference/command-line.md", &text);
}

/// A section for the command, or for each of its own commands.
fn commands(command: &clap::Command, name: &str, text: &mut String) {
    if command.has_subcommands() {
        for command in command.get_subcommands().filter(|command| command.get_name() != "help") {
            commands(command, &format!("{name} {}", command.get_name()), text);
        }
        return;
    }
    let help = command.clone().term_width(100).render_help().to_string();
    let own: Vec<_> = help.trim().split("\n\n").filter(|part| !part.starts_with("Global options:")).collect();
    *text += &format!("\n## {name}\n\n```text\n{}\n```\n", own.join("\n\n"));
}

const INDEX: &str = "# Diagnostics

What `xene validate`, `xene sync` and `xene status` say of files: `FILE:LINE:COLUMN: error[CODE]: MESSAGE`, then a hint. Each
code has a page with what it means, how to mend it, and examples that a test runs; `xene explain CODE` prints it. A code never
changes its meaning and is never used again. This list is generated.

An *error* keeps the whole file from taking effect: what the file last gave stays in effect, and all other files go on. A
*warning* changes nothing.

In the pages, an example that has `steps` shows the inside of a task, one that has `tasks` the inside of a pipeline, one that
has `pipelines` or `triggers` the inside of `spec`. Codes from XE0901 on are told of files before they are read as workflows.

| code | | |
|---|---|---|
";

#[test]
fn the_list_of_diagnostics_is_generated() {
    let mut text = INDEX.to_owned();
    for rule in xene::compile::rules::ALL {
        text += &format!("| [{0}](diagnostics/{0}.md) | {1} | {2} |\n", rule.code, rule.title, rule.severity);
    }
    assert_fresh("docs/reference/diagnostics.md", &text);
}

#[test]
fn the_language_page_names_every_field() {
    let page = read("docs/reference/language.md");
    let schema: serde_json::Value = serde_json::from_str(&read("schemas/xene-v1.schema.json")).unwrap();
    let mut fields = BTreeSet::new();
    properties(&schema, &mut fields);
    assert!(fields.len() > 60, "{fields:?}");
    fields.retain(|field| !page.contains(&format!("`{field}`")));
    assert!(fields.is_empty(), "docs/reference/language.md does not name {fields:?}");
}

fn properties(value: &serde_json::Value, fields: &mut BTreeSet<String>) {
    match value {
        serde_json::Value::Object(map) => {
            if let Some(serde_json::Value::Object(found)) = map.get("properties") {
                fields.extend(found.keys().cloned());
            }
            map.values().for_each(|value| properties(value, fields));
        }
        serde_json::Value::Array(values) => values.iter().for_each(|value| properties(value, fields)),
        _ => {}
    }
}

#[test]
fn every_example_in_the_documents_is_valid() {
    let folder = tempfile::tempdir().unwrap();
    // What examples take along.
    fs::create_dir(folder.path().join("scripts")).unwrap();
    for name in ["scripts/load.sh", "load.sql"] {
        fs::write(folder.path().join(name), "").unwrap();
    }
    let mut count = 0;
    // Those of diagnostics are wrong on purpose, and run with their rules.
    let pages = path("docs/reference/diagnostics");
    for document in documents().iter().filter(|document| !document.starts_with(&pages)) {
        let text = fs::read_to_string(document).unwrap();
        for block in text.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()) {
            if !block.starts_with("apiVersion") {
                continue;
            }
            count += 1;
            let file = folder.path().join("example.yaml");
            fs::write(&file, block).unwrap();
            let ended = run(xene(folder.path()), &["validate", file.to_str().unwrap()]);
            assert!(ended.code == 0 && ended.stderr.contains("no problems"), "{}: {ended:#?}", document.display());
        }
    }
    assert!(count >= 6, "only {count} examples were found");
}

#[test]
fn every_route_is_documented_and_no_other() {
    let described: serde_json::Value = serde_json::from_str(&read("schemas/openapi.json")).unwrap();
    let mut routes = BTreeSet::new();
    for (path, methods) in described["paths"].as_object().unwrap() {
        // The rest of a path is several segments.
        let path = path.replace("/artifacts/{task}/{path}", "/artifacts/{task}/{*path}");
        routes.extend(methods.as_object().unwrap().keys().map(|method| format!("{} {path}", method.to_uppercase())));
    }
    let page = read("docs/reference/http.md");
    let calls = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`')).map(|(call, _)| call);
    let is_call = |call: &&str| call.starts_with("GET ") || call.starts_with("POST ");
    let documented: BTreeSet<_> = calls.filter(is_call).map(str::to_owned).collect();
    assert_eq!(documented, routes, "docs/reference/http.md against schemas/openapi.json");
}

#[test]
fn links_lead_somewhere() {
    let mut wrong = Vec::new();
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            if file.contains("://") || target.contains(char::is_whitespace) {
                continue;
            }
            let to = if file.is_empty() { document.clone() } else { document.parent().unwrap().join(file) };
            if !to.exists() || !(anchor.is_empty() || anchors(&to).contains(anchor)) {
                wrong.push(format!("{}: {target}", document.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The anchors of a document's headings, as they are usually made.
fn anchors(document: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(document).unwrap_or_default();
    let headings = text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches(['#', ' ']));
    let anchor = |heading: &str| {
        let kept = heading.to_lowercase();
        let kept = kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(anchor).collect()
}

/// Every document of the repository.
fn documents() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![path(""), path("docs"), path("examples")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().flatten().map(|entry| entry.path()) {
            if entry.is_dir() && folder != path("") {
                folders.push(entry);
            } else if entry.extension().is_some_and(|extension| extension == "md") {
                found.push(entry);
            }
        }
    }
    assert!(found.len() > 10, "{found:?}");
    found
}
