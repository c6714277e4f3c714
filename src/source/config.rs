//! What a person says of a source.

use std::{fmt, path::PathBuf, time::Duration};

/// What a source is and how it is read.
#[derive(Debug, Clone)]
pub struct SourceConfig {
    /// A path of this machine, a URL, or `user@host:path`.
    pub location: String,
    /// How it is read.
    pub mode: Mode,
    /// The branch to follow; `None`: the one that HEAD names.
    pub branch: Option<String>,
    /// True if a person named the branch, which is a mistake for a folder; a default is of no account there.
    pub branch_named: bool,
    /// The folder that is read, within the source; `None`: `xene.d` if there is one, else all.
    pub path: Option<String>,
    /// How often a remote is asked, ±10 %; local sources are watched instead.
    pub poll: Duration,
    /// A server that sends nothing for this long is given up.
    pub timeout: Duration,
    /// What opens a remote's door.
    pub credentials: Credentials,
    /// A source that could not be read for this long is stale.
    pub stale_after: Duration,
    /// Whether the branch may be rewritten.
    pub rewrites: Rewrites,
    /// Mirrors of remotes lie here, in the controller's data directory; made if need be.
    pub mirror_dir: PathBuf,
}

impl SourceConfig {
    /// The defaults, for this location.
    pub fn new(location: impl Into<String>, mirror_dir: impl Into<PathBuf>) -> Self {
        Self {
            location: location.into(),
            mode: Mode::Auto,
            branch: None,
            branch_named: true,
            path: None,
            poll: Duration::from_secs(30),
            timeout: Duration::from_secs(60),
            credentials: Credentials::default(),
            stale_after: Duration::from_secs(3600),
            rewrites: Rewrites::Allow,
            mirror_dir: mirror_dir.into(),
        }
    }
}

/// How a source is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// A repository or URL by its commits, any other folder by its files.
    #[default]
    Auto,
    /// Only commits count.
    Git,
    /// Files as they lie.
    Directory,
}

/// Whether a new tip must descend from the one in effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rewrites {
    /// Any tip applies.
    #[default]
    Allow,
    /// The last state goes on until a descendant appears.
    Deny,
}

/// What opens a remote's door. Files are read anew at each fetch.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    /// A private SSH key; `None`: ssh's own configuration and agent decide.
    pub ssh_key: Option<PathBuf>,
    /// The only host keys that are trusted; `None`: ssh's own.
    pub known_hosts: Option<PathBuf>,
    /// For HTTP; `None`: the URL's, or `git`.
    pub username: Option<String>,
    /// A password or token for HTTP; `None`: the URL's, if it has one.
    pub password: Option<Password>,
}

/// A password or token.
#[derive(Clone)]
pub enum Password {
    /// As given by flag or environment.
    Value(String),
    /// The first line of this file.
    File(PathBuf),
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(_) => f.write_str("Value(…)"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}
