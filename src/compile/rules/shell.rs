//! Pitfalls of scripts: what is written hardly does what was meant.

use xene_schemas::{
    env::{EnvValue, Scalar},
    map::UniqueMap,
    step::{Run, Shell, Step},
    task::Task,
    workflow::WorkflowSpec,
};

use super::{Path, Report, Rule, each_pipeline, each_task, script};

pub(super) const TEMPLATE: Rule =
    rule!(Warning "XE0119", "template in a text", "give the value to a variable by `env`");
pub(super) const NOT_EXPANDED: Rule = rule!(Warning "XE0120", "variable not expanded", "let a script put it together");
pub(super) const CARRIAGE_RETURN: Rule =
    rule!(Warning "XE0121", "carriage return in a script", "end its lines with \\n alone");
pub(super) const HIDDEN_FAILURE: Rule =
    rule!(Warning "XE0122", "failure hidden in a pipe", "write `shell: bash`, which has pipefail set");
pub(super) const GOES_ON: Rule =
    rule!(Warning "XE0123", "shell that goes on after failures", "let the shell stop at a failure: `-e`");
pub(super) const LEFT_BEHIND: Rule =
    rule!(Warning "XE0124", "process that outlives its step", "`wait` for it within the step");
pub(super) const NOTHING_LASTS: Rule =
    rule!(Warning "XE0125", "step without a lasting effect", "write it in the step that needs it");

pub(super) const NOT_OF_SH: Rule =
    rule!(Warning "XE0136", "not of this shell", "write `shell: bash`, or what `sh` has: `[`, `.`, `f() {`");
pub(super) const NO_ASSIGNMENT: Rule =
    rule!(Warning "XE0137", "assignment with spaces", "write it without the spaces: `NAME=value`");
pub(super) const OF_ACTIONS: Rule =
    rule!(Warning "XE0138", "of GitHub Actions", "append `name=value` to \"$XENE_OUTPUT\" to publish an output");

/// Programs whose failure matters more than that of what reads them.
const PRODUCERS: &[&str] = &[
    "pg_dump",
    "pg_dumpall",
    "pg_basebackup",
    "mysqldump",
    "mariadb-dump",
    "mongodump",
    "tar",
    "zfs",
    "btrfs",
    "ssh",
    "curl",
    "wget",
    "make",
    "cargo",
    "go",
    "npm",
    "mvn",
    "gradle",
    "pytest",
    "ctest",
];

/// Shells that stop at a failure only if they are told to.
const SHELLS: &[&str] = &["sh", "bash", "dash", "ash", "ksh", "zsh"];

pub(super) fn check(spec: &WorkflowSpec, report: &mut Report) {
    let root = Path::ROOT.key("spec");
    check_env(report, &root, &spec.env);
    each_pipeline(spec, |at, _, pipeline| {
        check_env(report, at, &pipeline.env);
        each_task(at, pipeline, |at, _, task| {
            let is_set = |name: &str| [&spec.env, &pipeline.env, &task.env].iter().any(|env| env.contains_key(name));
            check_task(report, at, task, &is_set);
        });
    });
}

/// `is_set` tells whether a variable is given to all steps of the task.
fn check_task(report: &mut Report, at: &Path<'_>, task: &Task, is_set: &dyn Fn(&str) -> bool) {
    check_env(report, at, &task.env);
    check_folder(report, at, task.working_dir.as_deref());
    let steps = at.key("steps");
    for (index, step) in task.steps.iter().enumerate() {
        let at = steps.index(index);
        check_env(report, &at, &step.env);
        check_folder(report, &at, step.working_dir.as_deref());
        match &step.run {
            Run::Script(text) => {
                check_script(report, &at, step, text);
                check_actions(report, &at.key("run"), text, &|name| step.env.contains_key(name) || is_set(name));
            }
            Run::Argv(argv) => check_argv(report, &at, argv),
        }
    }
}

/// A template of either kind, in a text that no program reads.
fn check_template(report: &mut Report, at: &Path<'_>, text: &str) -> bool {
    told(report, at, text, script::template(text).or_else(|| script::dotted(text)))
}

fn told(report: &mut Report, at: &Path<'_>, text: &str, template: Option<&str>) -> bool {
    let Some(found) = template else { return false };
    let template: String = found.chars().take(60).collect();
    let message = format!("`{template}` stands as it is: nothing is ever put into a text");
    let hint =
        "give the value to a variable, as in env: {WHO: {param: who}}, and write \"$WHO\" in the script".to_owned();
    report.add(&TEMPLATE, at, message).hint(hint).within(text, found);
    true
}

fn check_env(report: &mut Report, at: &Path<'_>, env: &UniqueMap<String, EnvValue>) {
    let at = at.key("env");
    for (name, value) in env {
        let EnvValue::Literal(Scalar::String(text)) = value else { continue };
        let at = at.key(name);
        if !check_template(report, &at, text)
            && let Some(variable) = script::variable(text)
        {
            let message = format!("`{variable}` stands as it is: values of variables are not expanded");
            report.add(&NOT_EXPANDED, &at, message).hint("put the value together in the script".to_owned());
        }
    }
}

fn check_folder(report: &mut Report, at: &Path<'_>, folder: Option<&str>) {
    let Some(folder) = folder else { return };
    let at = at.key("workingDir");
    if check_template(report, &at, folder) {
        return;
    }
    let tilde = folder.starts_with("~/").then_some("~");
    if let Some(variable) = tilde.or_else(|| script::variable(folder)) {
        let message = format!("`{variable}` stands as it is: the name of a folder is not expanded");
        let hint = "a relative name begins at the workspace; or let the script `cd`".to_owned();
        report.add(&NOT_EXPANDED, &at, message).hint(hint);
    }
}

fn check_argv(report: &mut Report, at: &Path<'_>, argv: &[String]) {
    let program = argv.first().map_or("", |program| program.rsplit('/').next().unwrap_or_default());
    if SHELLS.contains(&program) {
        return;
    }
    let at = at.key("run");
    for (index, word) in argv.iter().enumerate() {
        let at = at.index(index);
        if check_template(report, &at, word) {
            continue;
        }
        let is_operator = matches!(word.as_str(), "|" | "||" | "&&" | ";" | ">" | ">>" | "<" | "&" | "2>&1");
        if let Some(sign) = is_operator.then_some(word.as_str()).or_else(|| script::variable(word)) {
            let message = format!("`{sign}` reaches the program as it is: a list is run without a shell");
            report.add(&NOT_EXPANDED, &at, message).hint("write `run` as text".to_owned());
        }
    }
}

fn check_script(report: &mut Report, at: &Path<'_>, step: &Step, text: &str) {
    let at_run = at.key("run");
    let has_template = told(report, &at_run, text, script::template(text));
    if text.contains('\r') {
        let message = "this script has carriage returns, which a shell takes for a part of the last word of a line";
        report.add(&CARRIAGE_RETURN, &at_run, message).hint("end its lines with \\n alone".to_owned());
    }
    let argv = match &step.shell {
        None | Some(Shell::Named(_)) => None,
        Some(Shell::Argv(argv)) => Some(argv.as_slice()),
    };
    let program = argv.and_then(|argv| argv.first()).map(|program| program.rsplit('/').next().unwrap_or_default());
    if program.is_some_and(|program| !SHELLS.contains(&program)) {
        return;
    }
    // What a here-document holds may be of another language, where it means something.
    if !has_template && !text.contains("<<") {
        told(report, &at_run, text, script::dotted(text));
    }
    if let (Some(argv), Some(program)) = (argv, program) {
        check_errexit(report, &at.key("shell"), (program, argv), text);
    }
    check_words(report, &at_run, step, text);
    let has_pipefail = match &step.shell {
        Some(Shell::Named(name)) => name == "bash",
        Some(Shell::Argv(argv)) => argv.iter().any(|word| word.contains("pipefail")),
        None => false,
    };
    if !has_pipefail && !text.contains("pipefail") && !text.contains("<<") {
        check_pipes(report, &at_run, text);
    }
    check_end(report, &at_run, text);
}

/// Words that mean something elsewhere only.
fn check_words(report: &mut Report, at: &Path<'_>, step: &Step, text: &str) {
    let is_sh = match &step.shell {
        None => true,
        Some(Shell::Named(name)) => name == "sh",
        Some(Shell::Argv(_)) => false,
    };
    if let Some((line, word)) = script::of_bash(text).filter(|_| is_sh) {
        let part = line.find(word).map_or(line, |start| &line[start..]);
        report.add(&NOT_OF_SH, at, format!("`{word}` is of bash, and this script goes to `sh`")).within(text, part);
    }
    if let Some((line, name)) = script::spaced_assignment(text) {
        let message = format!("`{name} = …` runs a program `{name}`: it is no assignment");
        report.add(&NO_ASSIGNMENT, at, message).within(text, line);
    }
}

/// What only GitHub Actions understands, unless the workflow gives it a meaning.
fn check_actions(report: &mut Report, at: &Path<'_>, text: &str, is_set: &dyn Fn(&str) -> bool) {
    let has_meaning =
        |word: &str| word.strip_prefix('$').is_some_and(|name| is_set(name) || text.contains(&format!("{name}=")));
    if let Some((line, word)) = script::of_actions(text).filter(|(_, word)| !has_meaning(word)) {
        let message = format!("`{word}` is of GitHub Actions, and means nothing here");
        report.add(&OF_ACTIONS, at, message).within(text, line);
    }
}

fn check_errexit(report: &mut Report, at: &Path<'_>, (program, argv): (&str, &[String]), text: &str) {
    let asks = |word: &str| {
        word.contains("errexit") || word.strip_prefix('-').is_some_and(|f| !f.starts_with('-') && f.contains('e'))
    };
    let in_script = script::lines(text).any(|line| line.strip_prefix("set ").is_some_and(|f| f.split(' ').any(asks)));
    if script::lines(text).count() > 1 && !in_script && !argv[1..].iter().any(|word| asks(word)) {
        let message = format!("`{program}` goes on after a command that fails, and only the last one counts");
        let hint = format!("write `shell: [{program}, -e]`, or `set -e` in the script");
        report.add(&GOES_ON, at, message).hint(hint);
    }
}

fn check_pipes(report: &mut Report, at: &Path<'_>, text: &str) {
    let hides = |command: &&script::Command<'_>| command.is_piped && PRODUCERS.contains(&command.program);
    if let Some(command) = script::commands(text).iter().find(hides) {
        let message =
            format!("if `{}` fails here nobody notices: of a pipe, `sh` heeds only the last command", command.program);
        let hint = "write `shell: bash`, which has pipefail set".to_owned();
        report.add(&HIDDEN_FAILURE, at, message).hint(hint).within(text, command.program);
    }
}

/// What of a script is still there when it has ended: nothing.
fn check_end(report: &mut Report, at: &Path<'_>, text: &str) {
    let detaches = |line: &str| line.split_whitespace().any(|word| matches!(word, "nohup" | "setsid" | "disown"));
    let last = script::lines(text).last().unwrap_or_default();
    let command = last.split(" #").next().unwrap_or_default().trim_end();
    let in_background = command.ends_with('&') && !command.ends_with("&&");
    let detached = script::lines(text).find(|line| detaches(line));
    if let Some(line) = detached.or_else(|| in_background.then_some(last)) {
        let message = "no process outlives its step: what it leaves in the background is ended";
        let hint = "use it within the step, `wait` for it, or let the system's service manager run it".to_owned();
        report.add(&LEFT_BEHIND, at, message).hint(hint).within(text, line);
        return;
    }
    let sets = |line: &str| {
        let word = line.split_whitespace().next().unwrap_or_default();
        let is_assignment = line.split_once('=').is_some_and(|(name, value)| {
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') && !value.contains(' ')
        });
        is_assignment || matches!(word, "cd" | "export" | "set" | "umask" | "source" | "." | "alias" | "unset")
    };
    let is_plain = |line: &str| !line.contains(['|', ';', '&', '>', '`']) && !line.contains("$(");
    if !last.is_empty() && last != "set" && script::lines(text).all(|line| sets(line) && is_plain(line)) {
        let message = "nothing of this lasts: each step is a process of its own, and the next one starts anew";
        let hint = "write it in the step that needs it; folders go into `workingDir`, variables into `env`".to_owned();
        report.add(&NOTHING_LASTS, at, message).hint(hint);
    }
}
