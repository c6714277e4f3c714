//! The agent's end of the conversation with its controller, and what both ends share.
//!
//! - [`identity`]: key, certificate, enrolment. [`client`]: dials, keeps one session, dials again ([`reconnect`]).
//!   [`upload`]: one stream for the log of each run.
//! - Shared with the controller: [`tls`] (certificates), [`transport`] (QUIC settings), [`frames`] (messages in and
//!   out of a stream), [`token`] (what a join token is).

pub mod client;
pub mod dial;
pub mod frames;
pub mod identity;
pub mod reconnect;
pub mod tls;
pub mod token;
pub mod transport;
pub mod upload;

pub use self::{
    client::{ClientConfig, ClientEvent, run},
    dial::DialError,
    frames::{Outgoing, SessionEnded},
    identity::{Identity, IdentityError},
    token::JoinToken,
    upload::{LogSource, Uploads},
};
