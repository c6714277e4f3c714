//! Enrolment: a join token buys a certificate, once.
//!
//! A token is `xene-join.FINGERPRINT.ID.SECRET` : the SHA-256 fingerprint of the CA certificate in hex, so the
//! first contact is already authenticated; a public id by which the controller finds it; the secret.

use serde::{Deserialize, Serialize};

use super::messages;
use crate::meta::{AgentName, Labels};

messages! {
    /// What is said on ALPN `xene-join/1`. Tags 201 to 299.
    JoinMessage {
        /// The agent asks.
        201 = Join(Join),
        /// The controller answers.
        202 = Joined(Joined),
        /// The controller refuses.
        203 = JoinRefused(JoinRefused),
    }
}

/// The agent asks.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Join {
    /// The token's public id.
    pub id: String,
    /// The token's secret.
    pub secret: String,
    /// The name it would like; the token may fix another.
    pub name: AgentName,
    /// Its own labels; the token may fix others.
    pub labels: Labels,
    /// A PKCS #10 request, PEM, of a key that never leaves the agent; its names are ignored.
    pub csr: String,
}

impl std::fmt::Debug for Join {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Join").field("id", &self.id).field("name", &self.name).finish_non_exhaustive()
    }
}

/// The controller answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Joined {
    /// The name in the certificate.
    pub name: AgentName,
    /// The chain, PEM, leaf first.
    pub chain: String,
    /// The CA's certificate, PEM.
    pub ca: String,
}

/// The controller refuses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JoinRefused {
    /// In a sentence. Absent, spent, expired and wrong tokens are answered alike.
    pub message: String,
}
