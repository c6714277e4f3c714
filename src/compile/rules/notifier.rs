//! Notifiers: one destination, something to tell, names that can be meant.

use std::collections::HashSet;

use xene_agent::glob::Globs;
use xene_schemas::notifier::Notifier;

use super::{Path, Problem, Report, Rule};

pub(super) const DESTINATION: Rule =
    rule!(Error "XE0160", "notifier without one destination", "write one of the destinations");
pub(super) const NOTHING_TOLD: Rule =
    rule!(Error "XE0161", "notifier that tells nothing", "name transitions under `on`");
pub(super) const NOT_OF_COMMITS: Rule = rule!(
    Error "XE0162", "transition that is no commit's status",
    "a status of a commit is made of how runs begin and end"
);
pub(super) const BAD_SELECT: Rule = rule!(Error "XE0163", "bad pattern of a notifier", "`*` stands for anything");
pub(super) const BAD_RECIPIENT: Rule =
    rule!(Error "XE0164", "bad recipient of a notifier", "write addresses as name@example.org");
pub(super) const TOLD_TWICE: Rule = rule!(Warning "XE0165", "transition named twice", "take one of them out");

/// The most addresses that one message goes to.
const MAX_RECIPIENTS: usize = 50;
/// The longest address or repository, in bytes.
const MAX_TEXT: usize = 254;

/// What is wrong with a notifier that could be read.
pub(in crate::compile) fn check(notifier: &Notifier) -> Vec<Problem> {
    let (spec, mut report) = (&notifier.spec, Report::default());
    let root = Path::ROOT.key("spec");
    destination(notifier, &root, &mut report);

    let on = root.key("on");
    if spec.on.is_empty() && spec.commit_status.is_none() {
        report
            .add(&NOTHING_TOLD, &root, "this notifier names no transition that it tells of")
            .at_key()
            .hint("such as `on: [Broken, Recovered]`".to_owned());
    }
    let mut named = HashSet::new();
    for (index, transition) in spec.on.iter().enumerate() {
        if spec.commit_status.is_some() && transition.phase().is_none() {
            let message = format!("a commit's status follows the phases of runs, and `{transition}` is none");
            report.add(&NOT_OF_COMMITS, &on.index(index), message);
        } else if !named.insert(transition) {
            report.add(&TOLD_TWICE, &on.index(index), format!("`{transition}` is named twice"));
        }
    }
    let select = root.key("select");
    for (field, patterns) in [("workflows", &spec.select.workflows), ("pipelines", &spec.select.pipelines)] {
        let at = select.key(field);
        for (index, pattern) in patterns.iter().enumerate() {
            if let Err(bad) = Globs::new(std::slice::from_ref(pattern)) {
                report.add(&BAD_SELECT, &at.index(index), bad.to_string());
            }
        }
        if !patterns.is_empty() && patterns.iter().all(|pattern| pattern.starts_with('!')) {
            let message = "patterns that only leave out take nothing";
            report.add(&BAD_SELECT, &at, message).at_key().hint("add `\"*\"` before them".to_owned());
        }
    }
    report.0
}

fn destination(notifier: &Notifier, root: &Path<'_>, report: &mut Report) {
    let spec = &notifier.spec;
    match &spec.destinations()[..] {
        [_] => {}
        [] => {
            let hint = "one of: cloudEvents, slack, email, commitStatus".to_owned();
            report.add(&DESTINATION, root, "this notifier has no destination").at_key().hint(hint);
        }
        [_, others @ ..] => {
            for other in others {
                let message = format!("a notifier has one destination, and `{other}` is another");
                report
                    .add(&DESTINATION, &root.key(other), message)
                    .at_key()
                    .hint("write a notifier for each".to_owned());
            }
        }
    }
    if let Some(email) = &spec.email {
        let (of_email, to) = (root.key("email"), "to");
        let to = of_email.key(to);
        if email.to.is_empty() {
            report.add(&BAD_RECIPIENT, &to, "mail goes to somebody: at least one address");
        } else if email.to.len() > MAX_RECIPIENTS {
            report.add(&BAD_RECIPIENT, &to, format!("mail goes to at most {MAX_RECIPIENTS} addresses"));
        }
        for (index, address) in email.to.iter().enumerate().filter(|(_, address)| !is_address(address)) {
            let message = format!("`{}` is no address", address.escape_default());
            report
                .add(&BAD_RECIPIENT, &to.index(index), message)
                .hint("an address alone, such as ops@example.org".to_owned());
        }
    }
    if let Some(status) = &spec.commit_status
        && !is_repository(&status.repository)
    {
        let (of_status, field) = (root.key("commitStatus"), "repository");
        let message = format!("`{}` is no repository", status.repository.escape_default());
        report.add(&BAD_RECIPIENT, &of_status.key(field), message).hint("it is written OWNER/NAME".to_owned());
    }
}

/// `local@domain`, as most are: without quotes, comments and names.
fn is_address(text: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.".contains(c);
    let is_host = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    text.len() <= MAX_TEXT
        && text.split_once('@').is_some_and(|(local, domain)| {
            !local.is_empty() && !domain.is_empty() && local.chars().all(is_plain) && domain.chars().all(is_host)
        })
}

/// Two or more names, as git servers allow them.
fn is_repository(text: &str) -> bool {
    let is_name = |part: &str| {
        let plain = part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        plain && !part.is_empty() && part != "." && part != ".."
    };
    text.len() <= MAX_TEXT && text.contains('/') && text.split('/').all(is_name)
}
