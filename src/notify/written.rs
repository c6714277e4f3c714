//! Messages as their destinations want them. Pure, but that a signature says when it was made.

use std::fmt::Write as _;

use ring::hmac;
use serde_json::{Map, Value, json};
use xene_agent::clock;
use xene_schemas::{
    notifier::{CloudEventsMode, CommitStatus, Notice, Provider},
    phase::RunPhase,
};

use super::{Failure, credentials, text};
use crate::decide::event::Delivery;

/// The longest description that all git servers take, in characters.
const DESCRIPTION: usize = 140;

/// A request that is sent once.
#[derive(PartialEq, Eq)]
pub(super) struct Post {
    pub(super) url: String,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Vec<u8>,
}

impl Post {
    fn json(url: String, kind: &str, value: &Value) -> Self {
        Self { url, headers: vec![("content-type", kind.to_owned())], body: value.to_string().into_bytes() }
    }
}

/// An event by CloudEvents 1.0: its data is the notice.
pub(super) fn cloud_event(
    delivery: &Delivery,
    mode: CloudEventsMode,
    credential: &credentials::CloudEvents,
    public_url: Option<&str>,
) -> Result<Post, Failure> {
    let notice = &delivery.notice;
    let mut data = serde_json::to_value(notice).map_err(|error| Failure::lasting(error.to_string()))?;
    data["notifier"] = delivery.notifier.as_str().into();
    if let Some(link) = text::link(notice, public_url) {
        data["url"] = link.into();
    }
    let kind = if delivery.trial { "xene.notifier.test" } else { notice.transition.event_type() };
    let attributes = [
        ("specversion", "1.0".to_owned()),
        ("id", notice.id.clone()),
        ("source", delivery.source.clone()),
        ("type", kind.to_owned()),
        ("subject", notice.regarding.clone()),
        ("time", format!("{:.3}", notice.at)),
    ];
    let mut post = match mode {
        CloudEventsMode::Structured => {
            let mut event: Map<String, Value> =
                attributes.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
            event.insert("datacontenttype".into(), "application/json".into());
            event.insert("data".into(), data);
            Post::json(credential.url.clone(), "application/cloudevents+json; charset=utf-8", &event.into())
        }
        CloudEventsMode::Binary => {
            let mut post = Post::json(credential.url.clone(), "application/json", &data);
            let names = ["ce-specversion", "ce-id", "ce-source", "ce-type", "ce-subject", "ce-time"];
            post.headers.extend(names.into_iter().zip(attributes.into_iter().map(|(_, value)| header_value(&value))));
            post
        }
    };
    if let Some(token) = &credential.token {
        post.headers.push(("authorization", format!("Bearer {token}")));
    }
    if let Some(secret) = &credential.hmac {
        sign(&mut post, secret, &header_value(&notice.id), clock::now().wall.as_second());
    }
    Ok(post)
}

/// Signs as a webhook trigger with `auth: {type: hmac-sha256}` checks it.
fn sign(post: &mut Post, secret: &str, id: &str, at: i64) {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let signed = [at.to_string().as_bytes(), b".", id.as_bytes(), b".", &post.body].concat();
    let mut signature = "sha256=".to_owned();
    for byte in hmac::sign(&key, &signed).as_ref() {
        // Writing to a String can't fail.
        let _ = write!(signature, "{byte:02x}");
    }
    post.headers.push(("x-timestamp", at.to_string()));
    post.headers.push(("x-delivery-id", id.to_owned()));
    post.headers.push(("x-signature", signature));
}

/// An attribute as a header's value, by the HTTP binding of CloudEvents: what is not printable ASCII, and `"` and `%`,
/// is percent-encoded.
fn header_value(value: &str) -> String {
    value.bytes().fold(String::with_capacity(value.len()), |mut out, byte| {
        match byte {
            b'"' | b'%' => drop(write!(out, "%{byte:02X}")),
            b'!'..=b'~' => out.push(char::from(byte)),
            _ => drop(write!(out, "%{byte:02X}")),
        }
        out
    })
}

/// A message to an incoming webhook, as Slack takes it, and Mattermost and others.
pub(super) fn slack(
    delivery: &Delivery,
    credential: &credentials::Slack,
    public_url: Option<&str>,
) -> Result<Post, Failure> {
    let notice = &delivery.notice;
    let mut body = format!("*{}*", harmless(&text::title(delivery)));
    if let Some(message) = &notice.message {
        body += "\n";
        body += &harmless(&text::plain(message, 500));
    }
    let details = text::details(notice);
    if !details.is_empty() {
        let details: Vec<String> = details.iter().map(|(name, value)| format!("{name} {}", harmless(value))).collect();
        body += "\n";
        body += &details.join(" · ");
    }
    if let Some(link) = text::link(notice, public_url) {
        body.extend(["\n<", &link, "|open>"]);
    }
    Ok(Post::json(credential.url.clone(), "application/json", &json!({"text": body})))
}

/// A text in which nothing is a link, a mention or a mark: `&`, `<` and `>` as Slack wants them, and a space without
/// width where `@name` would call somebody, or `](` make a link of Markdown.
fn harmless(text: &str) -> String {
    let mut harmless = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => harmless.push_str("&amp;"),
            '<' => harmless.push_str("&lt;"),
            '>' => harmless.push_str("&gt;"),
            '@' | ']' => harmless.extend([c, '\u{200b}']),
            // An address as such is made a link, too.
            ':' => harmless.extend([c, '\u{200b}']),
            '*' | '_' | '~' | '`' => harmless.extend(['\u{200b}', c]),
            c => harmless.push(c),
        }
    }
    harmless
}

/// The state of a commit at a git server; `None` if the revision is no commit.
pub(super) fn commit_status(
    delivery: &Delivery,
    to: &CommitStatus,
    credential: &credentials::CommitStatus,
    public_url: Option<&str>,
) -> Result<Option<Post>, Failure> {
    let notice = &delivery.notice;
    let is_commit = |text: &&str| matches!(text.len(), 40 | 64) && text.bytes().all(|b| b.is_ascii_hexdigit());
    let Some(sha) = notice.revision.as_ref().map(|revision| revision.0.as_str()).filter(is_commit) else {
        return Ok(None);
    };
    let context = match (&notice.workflow, &notice.pipeline) {
        (Some(workflow), Some(pipeline)) => format!("xene/{workflow}/{pipeline}"),
        _ => format!("xene/{}", delivery.notifier),
    };
    let mut status = Map::new();
    status.insert("state".into(), state(to.provider, notice).into());
    status.insert("context".into(), context.into());
    status.insert("description".into(), text::plain(&description(notice), DESCRIPTION - 1).into());
    if let Some(link) = text::link(notice, public_url) {
        status.insert("target_url".into(), link.into());
    }
    let (api, repository) = (credential.api.trim_end_matches('/'), &to.repository);
    let (url, header) = match to.provider {
        Provider::Github => (
            format!("{api}/repos/{repository}/statuses/{sha}"),
            vec![
                ("authorization", format!("Bearer {}", credential.token)),
                ("accept", "application/vnd.github+json".to_owned()),
                ("x-github-api-version", "2022-11-28".to_owned()),
            ],
        ),
        Provider::Gitea => (
            format!("{api}/repos/{repository}/statuses/{sha}"),
            vec![("authorization", format!("token {}", credential.token))],
        ),
        Provider::Gitlab => (
            format!("{api}/projects/{}/statuses/{sha}", repository.replace('/', "%2F")),
            vec![("private-token", credential.token.clone())],
        ),
    };
    let mut post = Post::json(url, "application/json", &status.into());
    post.headers.extend(header);
    Ok(Some(post))
}

/// The state of a run, in a server's words.
const fn state(provider: Provider, notice: &Notice) -> &'static str {
    let phase = match notice.phase {
        Some(phase) => phase,
        None => RunPhase::Success,
    };
    match (provider, phase) {
        (Provider::Gitlab, RunPhase::Running | RunPhase::ShuttingDown) => "running",
        (Provider::Gitlab, RunPhase::Error) => "failed",
        (_, RunPhase::Success) => "success",
        (_, RunPhase::Error) => "failure",
        (_, RunPhase::StartingUp | RunPhase::Running | RunPhase::ShuttingDown | RunPhase::Unknown) => "pending",
    }
}

fn description(notice: &Notice) -> String {
    let phase = notice.phase.map(|phase| phase.to_string());
    let why = notice.message.clone().or_else(|| notice.reason.as_ref().map(ToString::to_string));
    match (phase, why) {
        (Some(phase), Some(why)) => format!("{phase}: {why}"),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => String::new(),
    }
}
