//! The conversation between controller and agent.
//!
//! The agent dials. On ALPN [`ALPN`] both sides show certificates of the controller's CA; on [`ALPN_JOIN`] the
//! agent has none yet and enrols ([`join`]). The agent opens one bidirectional stream for [`control`]; one
//! unidirectional stream carries the log of each run ([`logs`]), and one each file, in either direction ([`files`]).
//! Where UDP does not pass, TLS over TCP carries the datagrams of the same connection ([`ALPN_TUNNEL`]).
//!
//! A frame is `length: u32 LE` (of tag and body), `tag: u16 LE`, then the body in MessagePack with field names,
//! so that neighbouring versions read each other: a field may be added with a default, a tag is never reused, an
//! unknown tag is a value ([`Frame::tag`]) that the receiver passes over.

pub mod control;
pub mod files;
pub mod join;
pub mod logs;

use serde::{Serialize, de::DeserializeOwned};

/// ALPN of sessions.
pub const ALPN: &[u8] = b"xene/1";
/// ALPN of enrolment.
pub const ALPN_JOIN: &[u8] = b"xene-join/1";
/// ALPN of the TLS that carries either over TCP: `length: u16 LE` and a datagram of QUIC, again and again.
pub const ALPN_TUNNEL: &[u8] = b"xene-tunnel/1";
/// The newest version of this conversation that this code speaks.
pub const VERSION: u16 = 1;
/// The longest frame, in bytes: a whole assignment set of 100,000 pipelines fits.
pub const MAX_FRAME: usize = 64 << 20;
/// The longest frame before the peer has shown a certificate.
pub const MAX_JOIN_FRAME: usize = 64 << 10;

/// Why bytes are not a frame, or a body not a message.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The length is out of bounds.
    #[error("a frame of {0} bytes is outside 2 to {1}")]
    Length(usize, usize),
    /// The body does not fit its tag.
    #[error("the body of a message with tag {tag} can't be read")]
    Body {
        /// The tag.
        tag: u16,
        /// What the codec says.
        #[source]
        source: rmp_serde::decode::Error,
    },
}

/// A frame as it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Which message.
    pub tag: u16,
    /// Its MessagePack.
    pub body: &'a [u8],
}

/// A message with a tag.
pub trait Message: Sized {
    /// Appends the frame, length included.
    fn encode(&self, out: &mut Vec<u8>);

    /// Reads a frame; `Ok(None)` for a tag that this version does not know.
    ///
    /// # Errors
    /// If the body does not fit the tag.
    fn decode(frame: Frame<'_>) -> Result<Option<Self>, WireError>;
}

/// Splits the first frame off `bytes`: the frame and how many bytes it took, or `None` if it is not whole yet.
///
/// # Errors
/// If the announced length is outside 2 to `max`.
pub fn split_frame(bytes: &[u8], max: usize) -> Result<Option<(Frame<'_>, usize)>, WireError> {
    let Some(head) = bytes.first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_le_bytes(*head) as usize;
    if length < 2 || length > max {
        return Err(WireError::Length(length, max));
    }
    let Some(rest) = bytes.get(4..4 + length) else { return Ok(None) };
    Ok(Some((Frame { tag: u16::from_le_bytes([rest[0], rest[1]]), body: &rest[2..] }, 4 + length)))
}

fn encode_frame<T: Serialize>(tag: u16, body: &T, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&tag.to_le_bytes());
    // Writing to memory can't fail, and every message is a plain struct of serialisable fields.
    let _ = rmp_serde::encode::write_named(out, body);
    let length = u32::try_from(out.len() - start - 4).unwrap_or(u32::MAX);
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
}

fn decode_body<T: DeserializeOwned>(frame: Frame<'_>) -> Result<T, WireError> {
    rmp_serde::from_slice(frame.body).map_err(|source| WireError::Body { tag: frame.tag, source })
}

macro_rules! messages {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $tag:literal = $variant:ident($body:ty)),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq)]
        #[allow(clippy::large_enum_variant, reason = "a message is moved a few times and never kept")]
        pub enum $name { $($(#[$variant_doc])* $variant($body)),+ }

        impl $crate::wire::Message for $name {
            fn encode(&self, out: &mut Vec<u8>) {
                match self { $(Self::$variant(body) => $crate::wire::encode_frame($tag, body, out)),+ }
            }

            fn decode(frame: $crate::wire::Frame<'_>) -> Result<Option<Self>, $crate::wire::WireError> {
                Ok(match frame.tag {
                    $($tag => Some(Self::$variant($crate::wire::decode_body(frame)?)),)+
                    _ => None,
                })
            }
        }
    };
}
pub(crate) use messages;
