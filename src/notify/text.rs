//! What people are told, in plain words. Names, branches and errors are whatever somebody wrote: nothing of them is
//! markup, a header, or a call to everybody, wherever the text goes.

use xene_schemas::notifier::Notice;

use crate::decide::event::Delivery;

/// A text on one line, of at most so many characters, without anything that is not shown.
pub(super) fn plain(text: &str, most: usize) -> String {
    // Marks that turn the direction of what follows, or take no room, hide what stands there.
    let hidden =
        |c: char| matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    let mut plain = String::with_capacity(text.len().min(most * 4));
    let mut count = 0;
    for c in text.chars().filter(|c| !hidden(*c)) {
        if count == most {
            plain.push('…');
            break;
        }
        let c = if c.is_control() || c.is_whitespace() { ' ' } else { c };
        if c == ' ' && plain.ends_with(' ') {
            continue;
        }
        plain.push(c);
        count += 1;
    }
    plain.trim_end().to_owned()
}

/// What happened and to what, in a few words.
pub(super) fn title(delivery: &Delivery) -> String {
    let notice = &delivery.notice;
    if delivery.trial {
        return format!("Test of notifier {}", delivery.notifier);
    }
    let what = match (&notice.workflow, &notice.pipeline, &notice.task) {
        (Some(workflow), Some(pipeline), Some(task)) => format!(": {workflow}/{pipeline}, task {}", plain(task, 100)),
        (Some(workflow), Some(pipeline), None) => format!(": {workflow}/{pipeline}"),
        _ => notice.agent.as_ref().map(|agent| format!(": {agent}")).unwrap_or_default(),
    };
    format!("{}{what}", notice.transition)
}

/// What else is known: names and values.
pub(super) fn details(notice: &Notice) -> Vec<(&'static str, String)> {
    let mut details = Vec::new();
    let mut add = |name, value: Option<String>| details.extend(value.map(|value| (name, plain(&value, 300))));
    add("run", notice.run.map(|run| run.to_string()));
    add("reason", notice.reason.as_ref().map(ToString::to_string));
    add("trigger", notice.trigger.clone());
    add("commit", notice.revision.as_ref().map(|revision| revision.0.clone()));
    add("agent", notice.agent.as_ref().map(ToString::to_string));
    details
}

/// Where more is to be seen.
pub(super) fn link(notice: &Notice, public_url: Option<&str>) -> Option<String> {
    let url = public_url?;
    Some(match (notice.run, &notice.agent) {
        (Some(run), _) => format!("{url}/runs/{run}"),
        (None, Some(agent)) => format!("{url}/agents/{agent}"),
        (None, None) => format!("{url}/source"),
    })
}
