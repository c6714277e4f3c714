//! Labels: such as an agent can have.

use xene_schemas::workflow::WorkflowSpec;

use super::{Path, Report, Rule, each_pipeline, suggest};

pub(super) const NO_AGENT: Rule =
    rule!(Warning "XE0118", "label that no agent has", "`xene get agents -o wide` shows the labels that there are");

const SYSTEMS: &[&str] = &["linux", "macos", "freebsd", "netbsd", "openbsd", "dragonfly", "illumos", "solaris"];
const MACHINES: &[&str] = &[
    "x86_64",
    "aarch64",
    "x86",
    "arm",
    "riscv64",
    "powerpc64",
    "powerpc",
    "s390x",
    "loongarch64",
    "mips",
    "mips64",
    "sparc64",
];

/// Other systems' words for machines.
const OTHER_NAMES: &[(&str, &str)] = &[
    ("amd64", "x86_64"),
    ("x64", "x86_64"),
    ("x86-64", "x86_64"),
    ("arm64", "aarch64"),
    ("i386", "x86"),
    ("i686", "x86"),
    ("386", "x86"),
    ("armv7", "arm"),
    ("armv7l", "arm"),
    ("armhf", "arm"),
    ("ppc64le", "powerpc64"),
    ("darwin", "macos"),
    ("osx", "macos"),
];

pub(super) fn check(spec: &WorkflowSpec, report: &mut Report) {
    each_pipeline(spec, |at, _, pipeline| {
        let (agents, at_agents) = (&pipeline.agents, at.key("agents"));
        let at = at_agents.key("labels");
        for (key, value) in &agents.labels {
            let at = at.key(key);
            let known = match key.as_str() {
                "os" => SYSTEMS,
                "arch" => MACHINES,
                _ => {
                    check_form(report, &at, key, value);
                    continue;
                }
            };
            if known.contains(&value.as_str()) {
                continue;
            }
            let lower = value.to_ascii_lowercase();
            let other = OTHER_NAMES.iter().find(|(other, _)| *other == lower).map(|(_, name)| *name);
            let other = other.filter(|name| known.contains(name));
            let hint = match other {
                Some(name) => Some(format!("here it is called `{name}`")),
                None => suggest(value, known.iter().copied()),
            };
            report.add(&NO_AGENT, &at, format!("agents do not have the label {key}={value} by themselves")).hint(hint);
        }
    });
}

/// Labels are given as `--label KEY=VALUE,KEY=VALUE`.
fn check_form(report: &mut Report, at: &Path<'_>, key: &str, value: &str) {
    let is_bad = |text: &str| text.contains([',', '=']) || text.trim() != text || text.chars().any(char::is_control);
    if key.is_empty() || is_bad(key) {
        let message = format!("no agent can have a label {key:?}");
        let hint = "a label is given as --label KEY=VALUE, so that its key holds neither `=` nor `,`".to_owned();
        report.add(&NO_AGENT, at, message).at_key().hint(hint);
    } else if value.contains(',') || value.trim() != value || value.chars().any(char::is_control) {
        let message = format!("no agent can have the label {key}={value:?}");
        let hint = "all labels that are listed must be there; a value holds no `,` and no space at its ends".to_owned();
        report.add(&NO_AGENT, at, message).hint(hint);
    }
}
