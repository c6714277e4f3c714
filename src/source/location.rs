//! Where a source is: parsed once, so that nothing but what was allowed reaches `git`, and nothing secret a message.

use std::path::{Path, PathBuf};

use super::{config::Password, health::SourceError};

/// Where a source is.
#[derive(Debug, Clone)]
pub(super) enum Location {
    /// On this machine.
    Local(PathBuf),
    /// Behind a server.
    Remote(RemoteUrl),
}

/// A URL that may be handed to `git`.
#[derive(Debug, Clone)]
pub(super) struct RemoteUrl {
    /// How to speak to it.
    pub scheme: Scheme,
    /// For `git`; of HTTP URLs the credentials were taken out. Safe to show.
    pub url: String,
    /// `scheme://host[:port]`: credentials are bound to it.
    pub origin: String,
    /// From an HTTP URL.
    pub username: Option<String>,
    /// From an HTTP URL.
    pub password: Option<Password>,
}

/// The schemes that are allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheme {
    Git,
    Http,
    Https,
    Ssh,
}

impl Scheme {
    /// As git names the protocol.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Git => "git",
            Self::Http => "http",
            Self::Https => "https",
            Self::Ssh => "ssh",
        }
    }
}

impl Location {
    /// Parses what a person wrote.
    pub(super) fn parse(text: &str) -> Result<Self, SourceError> {
        let refuse = |why| SourceError::Url { url: redact(text), why };
        if text.is_empty() {
            return Err(refuse("nothing was named"));
        }
        if text.starts_with('-') {
            return Err(refuse("it begins with `-`"));
        }
        if text.chars().any(char::is_control) {
            return Err(refuse("it has control characters"));
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return match scp_like(text) {
                Some((_, path)) if path.starts_with(':') => Err(refuse(SCHEMES)),
                Some((host, path)) => Self::ssh(text, host, path).map_err(refuse),
                None => Ok(Self::Local(PathBuf::from(text))),
            };
        };
        let scheme = match scheme {
            "file" => {
                let path = rest.strip_prefix("localhost").unwrap_or(rest);
                return if path.starts_with('/') {
                    Ok(Self::Local(percent_decode(path).ok_or_else(|| refuse("its escapes are not UTF-8"))?.into()))
                } else {
                    Err(refuse("a file URL has three slashes: file:///srv/flows.git"))
                };
            }
            "git" => Scheme::Git,
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            "ssh" | "git+ssh" | "ssh+git" => Scheme::Ssh,
            _ => return Err(refuse(SCHEMES)),
        };
        let (authority, path) = rest.split_once('/').ok_or_else(|| refuse("it names no repository on the server"))?;
        if path.is_empty() {
            return Err(refuse("it names no repository on the server"));
        }
        if scheme == Scheme::Ssh {
            return Self::ssh(&format!("ssh://{rest}"), authority, path).map_err(refuse);
        }
        let (userinfo, host) = authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
        check_host(host).map_err(refuse)?;
        let (mut username, mut password) = (None, None);
        if let Some(userinfo) = userinfo {
            let (user, secret) = userinfo.split_once(':').map_or((userinfo, None), |(u, p)| (u, Some(p)));
            let decode = |part| percent_decode(part).ok_or_else(|| refuse("its escapes are not UTF-8"));
            username = Some(decode(user)?).filter(|user| !user.is_empty());
            password = secret.map(decode).transpose()?.map(Password::Value);
        }
        let origin = format!("{}://{host}", scheme.as_str());
        Ok(Self::Remote(RemoteUrl { scheme, url: format!("{origin}/{path}"), origin, username, password }))
    }

    fn ssh(url: &str, authority: &str, path: &str) -> Result<Self, &'static str> {
        let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
        if user.is_some_and(|user| user.starts_with('-')) || path.starts_with('-') {
            return Err("a part of it begins with `-`");
        }
        if user.is_some_and(|user| user.contains(':')) {
            return Err("ssh takes no password from a URL; use a key");
        }
        check_host(host)?;
        let origin = format!("ssh://{host}");
        Ok(Self::Remote(RemoteUrl { scheme: Scheme::Ssh, url: url.to_owned(), origin, username: None, password: None }))
    }
}

/// `text` without what stands between `://` and the last `@`, except for a user name of ssh. Rather too much than too
/// little: a password may hold a slash that nobody escaped.
pub(super) fn redact(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return text.to_owned();
    };
    match rest.rsplit_once('@') {
        Some((user, _)) if scheme == "ssh" && !user.contains([':', '/']) => text.to_owned(),
        Some((_, rest)) => format!("{scheme}://{rest}"),
        None => text.to_owned(),
    }
}

const SCHEMES: &str = "only https, ssh, http, git and file URLs are followed";

/// `host:path` as ssh writes it: a colon before any slash, and no such file here.
fn scp_like(text: &str) -> Option<(&str, &str)> {
    let (host, path) = text.split_once(':')?;
    (!host.is_empty() && !host.contains('/') && !path.is_empty() && !Path::new(text).exists()).then_some((host, path))
}

fn check_host(host: &str) -> Result<(), &'static str> {
    if host.is_empty() {
        Err("it names no server")
    } else if host.starts_with('-') {
        Err("a part of it begins with `-`")
    } else if !host.chars().all(|c| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']' | '%')) {
        Err("its server's name has characters that names do not have")
    } else {
        match host.rsplit_once(':') {
            Some((_, port)) if !host.ends_with(']') && port.parse::<u16>().is_err() => Err("its port is no number"),
            _ => Ok(()),
        }
    }
}

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let escaped = (first == b'%')
            .then(|| std::str::from_utf8(tail.get(..2)?).ok().and_then(|hex| u8::from_str_radix(hex, 16).ok()))
            .flatten();
        bytes.push(escaped.unwrap_or(first));
        rest = if escaped.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn remote(text: &str) -> RemoteUrl {
        match Location::parse(text) {
            Ok(Location::Remote(url)) => url,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn options_never_reach_git_or_ssh() {
        for text in [
            "--upload-pack=touch /tmp/x",
            "ssh://-oProxyCommand=touch/x",
            "ssh://user@-oProxyCommand=x/y",
            "ssh://-oProxyCommand=x@host/y",
            "-oProxyCommand=x:y",
            "git@-oProxyCommand=x:repo",
            "git@host:-oProxyCommand=x",
            "ext::sh -c touch% x",
            "ext://x/y",
            "ftp://host/x",
            "https://-host/x",
            "https://ho st/x",
            "https://host/a\nb",
            "https://user:pass/word@host/a",
        ] {
            let parsed = Location::parse(text);
            assert!(
                matches!(parsed, Err(SourceError::Url { .. }) | Ok(Location::Local(_))) && !is_remote(&parsed),
                "{text}: {parsed:?}"
            );
        }
    }

    fn is_remote(parsed: &Result<Location, SourceError>) -> bool {
        matches!(parsed, Ok(Location::Remote(_)))
    }

    #[test]
    fn credentials_leave_the_url() {
        let url = remote("https://bot:p%40ss@git.example:8443/a/b.git");
        assert_eq!(url.url, "https://git.example:8443/a/b.git");
        assert_eq!(url.origin, "https://git.example:8443");
        assert_eq!(url.username.as_deref(), Some("bot"));
        assert!(matches!(&url.password, Some(Password::Value(value)) if value == "p@ss"));
        assert!(!format!("{url:?}").contains("p@ss"));
        assert_eq!(redact("https://bot:secret@host/x"), "https://host/x");
        assert_eq!(redact("ftp://bot:secret@host/x"), "ftp://host/x");
        assert_eq!(redact("ssh://git@host/x"), "ssh://git@host/x");
    }

    #[test]
    fn forms_of_ssh_and_file_are_understood() {
        assert_eq!(remote("git@host:team/flows.git").scheme, Scheme::Ssh);
        assert_eq!(remote("ssh://git@host:2222/flows.git").url, "ssh://git@host:2222/flows.git");
        assert!(
            matches!(Location::parse("file:///srv/a%20b"), Ok(Location::Local(path)) if path == Path::new("/srv/a b"))
        );
        assert!(matches!(Location::parse("./a:b"), Ok(Location::Local(_))));
        assert!(matches!(Location::parse("file://host/x"), Err(SourceError::Url { .. })));
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_errors_never_show_a_password(user in "[a-z]{1,8}", host in "\\PC{0,20}") {
            let text = format!("https://{user}:hunter2-secret@{host}");
            let shown = format!("{:?}", Location::parse(&text).map_err(|error| error.to_string()));
            prop_assert!(!shown.contains("hunter2-secret"), "{shown}");
        }
    }
}
