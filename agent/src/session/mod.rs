//! The agent's end of the conversation with its controller, and what both ends share.
//!
//! - [`identity`]: key, certificate, enrolment. [`client`]: dials, keeps one session, dials again ([`reconnect`]).
//!   [`upload`]: one stream for the log of each run. [`download`]: files that travel, one stream each;
//!   [`artifacts`]: the same in the other direction.
//! - Shared with the controller: [`tls`] (certificates), [`transport`] (QUIC settings), [`tunnel`] (QUIC over TCP),
//!   [`frames`] (messages in and out of a stream), [`send`](mod@send) (a file on a stream), [`token`] (what a join token
//!   is).

pub mod artifacts;
pub mod client;
pub mod dial;
pub mod download;
pub mod frames;
pub mod identity;
pub mod reconnect;
pub mod send;
pub mod tls;
pub mod token;
pub mod transport;
pub mod tunnel;
pub mod upload;

pub use self::{
    artifacts::ArtifactUploads,
    client::{ClientConfig, ClientEvent, run},
    dial::{DialError, Transports},
    download::Downloads,
    frames::{Outgoing, SessionEnded},
    identity::{Identity, IdentityError},
    token::JoinToken,
    upload::{LogSource, Uploads},
};
