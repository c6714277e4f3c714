//! Credentials: files of the operator's, each of which says where something may go and what opens that.

use std::{fs, io, os::unix::fs::MetadataExt as _, path::Path};

use serde::Deserialize;
use ureq::http::Uri;
use xene_agent::glob::Globs;
use xene_schemas::meta::Name;

use crate::outgoing::is_local;

/// The largest file that is read, in bytes.
const LARGEST: u64 = 64 << 10;
/// A secret that is shorter is not looked for in answers: it would be found by chance.
const SHORTEST_SECRET: usize = 6;

/// What a file holds: of these, those that are given.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Credential {
    #[serde(skip)]
    name: String,
    cloud_events: Option<CloudEvents>,
    slack: Option<Slack>,
    email: Option<Email>,
    commit_status: Option<CommitStatus>,
}

/// Where CloudEvents go.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct CloudEvents {
    pub(super) url: String,
    /// Shown as bearer token.
    pub(super) token: Option<String>,
    /// What messages are signed with.
    pub(super) hmac: Option<String>,
    #[serde(default)]
    insecure: bool,
}

/// An incoming webhook: whoever knows its URL may write.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Slack {
    pub(super) url: String,
    #[serde(default)]
    insecure: bool,
}

/// How mail is sent.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Email {
    pub(super) host: String,
    pub(super) port: Option<u16>,
    #[serde(default)]
    pub(super) tls: Tls,
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
    pub(super) from: String,
    /// Who may be written to: addresses, and `*@DOMAIN`.
    to: Vec<String>,
    #[serde(default)]
    insecure: bool,
}

/// How a connection for mail is protected.
#[derive(Deserialize, Clone, Copy, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub(super) enum Tls {
    /// It begins in the clear and must change over.
    #[default]
    Starttls,
    /// From its first byte on.
    Implicit,
    /// It is not.
    None,
}

/// A git server's API.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct CommitStatus {
    pub(super) api: String,
    pub(super) token: String,
    /// The repositories that it is for, as patterns.
    repositories: Vec<String>,
    #[serde(default)]
    insecure: bool,
}

type Found<T> = Result<T, String>;

impl Credential {
    /// Reads a credential of this folder.
    pub(super) fn read(folder: Option<&Path>, name: &Name) -> Found<Self> {
        let folder = folder.ok_or("this controller has no credentials: it was started without --notify-secrets")?;
        // A name holds no slash, and begins with a letter or a digit.
        let file = format!("{name}.yaml");
        let path = folder.join(&file);
        let about = fs::metadata(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => format!("there is no credential named {name}: --notify-secrets has no {file}"),
            _ => format!("{file} of --notify-secrets can't be read: {error}"),
        })?;
        if about.mode() & 0o077 != 0 {
            let mode = about.mode() & 0o777;
            return Err(format!("{file} of --notify-secrets is open to others (mode {mode:03o}): chmod 600 it"));
        }
        if about.len() > LARGEST {
            return Err(format!("{file} of --notify-secrets is larger than a credential is"));
        }
        let text = fs::read_to_string(&path)
            .map_err(|error| format!("{file} of --notify-secrets can't be read: {}", error.kind()))?;
        // What the reader says may repeat what it read: only the place is told.
        let mut credential: Self = serde_yaml::from_str(&text).map_err(|error| {
            let place = error.location().map(|at| format!(" at line {}, column {}", at.line(), at.column()));
            format!("{file} of --notify-secrets is no credential{}", place.unwrap_or_default())
        })?;
        credential.name = name.to_string();
        Ok(credential)
    }

    fn is_not_for(&self, what: &str) -> String {
        format!("the credential {} is not one for {what}", self.name)
    }

    pub(super) fn cloud_events(&self) -> Found<&CloudEvents> {
        let found = self.cloud_events.as_ref().ok_or_else(|| self.is_not_for("cloudEvents"))?;
        self.check_url(&found.url, found.insecure)?;
        Ok(found)
    }

    pub(super) fn slack(&self) -> Found<&Slack> {
        let found = self.slack.as_ref().ok_or_else(|| self.is_not_for("slack"))?;
        self.check_url(&found.url, found.insecure)?;
        Ok(found)
    }

    pub(super) fn commit_status(&self, repository: &str) -> Found<&CommitStatus> {
        let found = self.commit_status.as_ref().ok_or_else(|| self.is_not_for("commitStatus"))?;
        self.check_url(&found.api, found.insecure)?;
        let globs =
            Globs::new(&found.repositories).map_err(|error| format!("of the credential {}, {error}", self.name))?;
        if globs.matches(repository) {
            return Ok(found);
        }
        Err(format!("the credential {} is not one for the repository {repository}", self.name))
    }

    pub(super) fn email(&self, to: &[String]) -> Found<&Email> {
        let found = self.email.as_ref().ok_or_else(|| self.is_not_for("email"))?;
        if found.tls == Tls::None && !found.insecure && !is_local(&found.host) {
            return Err(format!("the credential {} would send mail to {} in the clear", self.name, found.host));
        }
        let allows = |pattern: &str, address: &str| match pattern.strip_prefix("*@") {
            Some(domain) => address.rsplit_once('@').is_some_and(|(_, of)| of.eq_ignore_ascii_case(domain)),
            None => pattern.eq_ignore_ascii_case(address),
        };
        match to.iter().find(|address| !found.to.iter().any(|pattern| allows(pattern, address))) {
            None => Ok(found),
            Some(other) => Err(format!("the credential {} does not let {other} be written to", self.name)),
        }
    }

    /// An address of its own machine, or one that is reached by TLS, unless the operator says otherwise.
    fn check_url(&self, url: &str, insecure: bool) -> Found<()> {
        let uri: Option<Uri> = url.parse().ok();
        let host = uri.as_ref().and_then(|uri| uri.host());
        match (uri.as_ref().and_then(Uri::scheme_str), host) {
            (Some("https"), Some(_)) => Ok(()),
            (Some("http"), Some(host)) if insecure || is_local(host) => Ok(()),
            (Some("http"), Some(_)) => Err(format!("the URL of the credential {} is not one of https", self.name)),
            _ => Err(format!("the credential {} has no URL such as https://host/path", self.name)),
        }
    }

    /// A text in which no secret of this credential stands.
    pub(super) fn without_secrets(&self, text: &str) -> String {
        let of_events = self.cloud_events.iter().flat_map(|to| [Some(&to.url), to.token.as_ref(), to.hmac.as_ref()]);
        let of_slack = self.slack.iter().map(|to| Some(&to.url));
        let of_mail = self.email.iter().map(|to| to.password.as_ref());
        let of_status = self.commit_status.iter().map(|to| Some(&to.token));
        let secrets = of_events.chain(of_slack).chain(of_mail).chain(of_status).flatten();
        let mut clean = text.to_owned();
        for secret in secrets {
            // Of a URL the path is what must not be known.
            let path = secret.split_once("://").and_then(|(_, rest)| rest.split_once('/')).map(|(_, path)| path);
            for secret in [Some(secret.as_str()), path].into_iter().flatten() {
                if secret.len() >= SHORTEST_SECRET {
                    clean = clean.replace(secret, "***");
                }
            }
        }
        clean
    }
}
