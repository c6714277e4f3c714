//! Files by content, each on a unidirectional stream of its own: a frame, then the bytes, then the stream's end.

use serde::{Deserialize, Serialize};

use super::messages;
use crate::meta::FileHash;

messages! {
    /// What begins a stream from the controller. Tags 401 to 499.
    FileMessage {
        /// Which file follows.
        401 = Header(FileHeader),
    }
}

/// Which file follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileHeader {
    /// Of its bytes; the receiver checks it.
    pub hash: FileHash,
    /// In bytes.
    pub size: u64,
}
