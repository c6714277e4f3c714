//! What goes wrong on the command line: the one place that turns kinds into words, hints and exit statuses.

use std::{io, path::PathBuf};

use xene_agent::{command, driver::AgentError};

use super::exit;
use crate::{controller::StartError, session::ListenerError};

/// Why a command did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What was typed makes no sense.
    #[error("{message}")]
    Usage {
        /// What is wrong, and what was expected.
        message: String,
        /// How to mend it.
        hint: Option<String>,
    },
    /// Nobody answers at the server's address.
    #[error("the controller at {server} can't be reached: {cause}")]
    Unreachable {
        /// Its URL.
        server: String,
        /// In the system's words.
        cause: String,
    },
    /// Somebody answers there whose certificate is not good.
    #[error("the certificate of {server} {cause}")]
    Certificate {
        /// Its URL.
        server: String,
        /// What is wrong with it.
        cause: String,
        /// How to mend it.
        hint: &'static str,
    },
    /// The token is absent, wrong, or of too low a role.
    #[error("{message}")]
    NotAllowed {
        /// What the controller says.
        message: String,
        /// True if a token was sent.
        token_sent: bool,
    },
    /// There is no such object.
    #[error("{message}")]
    NotFound {
        /// What the controller says.
        message: String,
        /// Where to look.
        hint: Option<String>,
    },
    /// The controller will not, or can't.
    #[error("{message}")]
    Refused {
        /// What the controller says.
        message: String,
        /// What it suggests.
        hint: Option<String>,
    },
    /// An answer that this version does not understand.
    #[error("the controller's answer to {request} is not understood: {cause}")]
    Answer {
        /// Method and path.
        request: String,
        /// What is odd about it.
        cause: String,
    },
    /// A file can't be read or written.
    #[error("{path}: {cause}", path = .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// In the system's words.
        cause: String,
    },
    /// Writing to stdout or stderr failed, other than by a closed pipe.
    #[error("the output can't be written: {0}")]
    Output(io::Error),
    /// Whoever read our output has gone. Nobody is left to tell.
    #[error("the output's reader has gone")]
    BrokenPipe,
    /// Everything is said already; only the exit status is left.
    #[error("exit status {0}")]
    Status(u8),
    /// A long-running command ended with this status.
    #[error("{message}")]
    Ended {
        /// Why.
        message: String,
        /// The exit status.
        status: u8,
    },
    /// A long-running command stopped.
    #[error("{message}")]
    Failed {
        /// Why.
        message: String,
        /// How to mend it.
        hint: Option<String>,
    },
}

impl Error {
    /// A usage error without a hint.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::Usage { message: message.into(), hint: None }
    }

    /// A usage error with a hint.
    pub fn usage_with_hint(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Usage { message: message.into(), hint: Some(hint.into()) }
    }

    /// A file that can't be read or written.
    pub fn file(path: impl Into<PathBuf>, cause: &io::Error) -> Self {
        Self::File { path: path.into(), cause: plain_cause(cause) }
    }

    /// What ended an agent, or kept it from starting.
    pub fn agent(error: &AgentError) -> Self {
        let message = command::sentence(error);
        match error.exit_status() {
            exit::USAGE => Self::Usage { message, hint: None },
            status => Self::Ended { message, status },
        }
    }

    /// What kept a controller from starting: the operator must mend it, but for what failed on this machine.
    pub fn start(error: &StartError) -> Self {
        let message = command::sentence(error);
        match error {
            StartError::Driver(_) | StartError::Check(_) | StartError::System { .. } => {
                Self::Failed { message, hint: None }
            }
            StartError::Http { source, .. } if source.kind() == io::ErrorKind::AddrInUse => Self::Usage {
                message,
                hint: Some("is a controller running already? `--http` names another address".into()),
            },
            StartError::Listener(ListenerError::Bind { source, .. }) if source.kind() == io::ErrorKind::AddrInUse => {
                let hint = "is a controller running already? `--quic` names another address";
                Self::Usage { message, hint: Some(hint.into()) }
            }
            _ => Self::Usage { message, hint: None },
        }
    }

    /// What may help, in one line.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Usage { hint, .. } | Self::Refused { hint, .. } | Self::Failed { hint, .. } => hint.clone(),
            Self::NotFound { message, hint } => hint.clone().or_else(|| Some(where_to_look(message))),
            Self::Unreachable { server, .. } if is_default(server) => {
                Some("start one with `xene dev`, or name yours with --server or XENE_SERVER".into())
            }
            Self::Unreachable { .. } => {
                Some("check --server (XENE_SERVER), and that the controller's --http address is reachable".into())
            }
            Self::Certificate { hint, .. } => Some((*hint).into()),
            Self::NotAllowed { token_sent: false, .. } => Some(
                "give a token with --token or XENE_TOKEN; a controller keeps its own in admin.token in its data folder"
                    .into(),
            ),
            Self::NotAllowed { token_sent: true, .. } => {
                Some("check that the token is this controller's, and that its role may do this".into())
            }
            Self::Answer { .. } => Some("is --server a xene controller of about this version?".into()),
            Self::File { .. } | Self::Output(_) | Self::BrokenPipe | Self::Status(_) | Self::Ended { .. } => None,
        }
    }

    /// The exit status.
    pub const fn status(&self) -> u8 {
        match self {
            Self::Usage { .. } | Self::File { .. } => exit::USAGE,
            Self::Unreachable { .. } | Self::Certificate { .. } => exit::UNREACHABLE,
            Self::NotAllowed { .. } => exit::NOT_ALLOWED,
            Self::NotFound { .. } => exit::NOT_FOUND,
            Self::Refused { .. } | Self::Answer { .. } | Self::Output(_) | Self::Failed { .. } => exit::FAILED,
            // As for a program that SIGPIPE ends, the reader got what it wanted.
            Self::BrokenPipe => exit::DONE,
            Self::Status(status) | Self::Ended { status, .. } => *status,
        }
    }

    /// True if there is nothing to tell.
    pub const fn is_silent(&self) -> bool {
        matches!(self, Self::BrokenPipe | Self::Status(_))
    }
}

impl From<io::Error> for Error {
    /// For errors of writing to stdout and stderr.
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe { Self::BrokenPipe } else { Self::Output(error) }
    }
}

/// The system's words without Rust's ` (os error N)`, in lower case.
pub fn plain_cause(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_lowercase().chain(letters).collect(),
        None => error.kind().to_string(),
    }
}

/// The list that shows what there is of the kind that a sentence names.
fn where_to_look(message: &str) -> String {
    if message.starts_with("there is no join token ") {
        return "`xene agents token list` shows what there is".into();
    }
    let kinds = ["workflow", "pipeline", "run", "agent", "event"];
    match kinds.iter().find(|kind| message.starts_with(&format!("there is no {kind} "))) {
        Some(kind) => format!("`xene get {kind}s` shows what there is"),
        None => "`xene get workflows` shows what there is; so do `pipelines`, `runs`, `agents` and `events`".into(),
    }
}

fn is_default(server: &str) -> bool {
    server.trim_end_matches('/') == super::DEFAULT_SERVER
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_exit_status() {
        let text = || "x".to_owned();
        let table = [
            (Error::usage("x"), 2),
            (Error::File { path: "f".into(), cause: text() }, 2),
            (Error::Unreachable { server: text(), cause: text() }, 3),
            (Error::Certificate { server: text(), cause: text(), hint: "" }, 3),
            (Error::NotFound { message: text(), hint: None }, 4),
            (Error::NotAllowed { message: text(), token_sent: true }, 5),
            (Error::Refused { message: text(), hint: None }, 1),
            (Error::Answer { request: text(), cause: text() }, 1),
            (Error::Failed { message: text(), hint: None }, 1),
            (Error::Output(io::Error::other("x")), 1),
            (io::Error::from(io::ErrorKind::BrokenPipe).into(), 0),
            (Error::Status(exit::INTERRUPTED), 130),
        ];
        for (error, status) in table {
            assert_eq!(error.status(), status, "{error:?}");
        }
    }

    #[test]
    fn what_is_not_there_leads_to_the_list_of_its_kind() {
        let hint = |message: &str| Error::NotFound { message: message.into(), hint: None }.hint().unwrap();
        assert_eq!(hint("there is no pipeline named a/b"), "`xene get pipelines` shows what there is");
        assert_eq!(hint("there is no join token named a"), "`xene agents token list` shows what there is");
        assert!(hint("there is nothing at /x").contains("`xene get workflows`"));
    }

    #[test]
    fn the_systems_words_are_made_plain() {
        let error = Error::file("/no/such", &io::Error::from_raw_os_error(2));
        assert_eq!(error.to_string(), "/no/such: no such file or directory");
    }

    #[test]
    fn the_hint_of_an_unreachable_default_server_names_dev() {
        let hint = |server: &str| Error::Unreachable { server: server.into(), cause: String::new() }.hint().unwrap();
        assert!(hint("http://127.0.0.1:7420/").contains("xene dev"));
        assert!(!hint("https://xene.example").contains("xene dev"));
    }
}
