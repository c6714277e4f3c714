//! Sends the bytes of a file, found by its content, on a stream of its own. Shared with the controller.

use std::io::{self, Read as _};

use quinn::{Connection, SendStream, WriteError};
use xene_schemas::{meta::FileHash, wire::Message};

use crate::content::ContentStore;

/// Read and sent at a time, in bytes.
const CHUNK: usize = 64 << 10;

/// Why a file did not go out.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The connection is over.
    #[error(transparent)]
    Connection(#[from] quinn::ConnectionError),
    /// The peer takes it not, or not now.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The store does not give it.
    #[error("can't read the file: {0}")]
    Read(#[from] io::Error),
}

impl SendError {
    /// True if nothing more can be sent over this connection.
    pub fn is_end(&self) -> bool {
        matches!(self, Self::Connection(_) | Self::Write(WriteError::ConnectionLost(_)))
    }
}

/// Sends `header` and then the file; what is said goes before, by `priority`. The stream is finished, and not yet taken.
///
/// # Errors
/// If the file can't be read, or the peer does not take it.
pub async fn send(
    store: &ContentStore,
    connection: &Connection,
    header: &impl Message,
    hash: &FileHash,
    priority: i32,
) -> Result<SendStream, SendError> {
    let mut from = store.read(hash)?;
    let mut stream = connection.open_uni().await?;
    stream.set_priority(priority).map_err(WriteError::from)?;
    let mut buffer = Vec::with_capacity(CHUNK);
    header.encode(&mut buffer);
    loop {
        stream.write_all(&buffer).await?;
        buffer.resize(CHUNK, 0);
        let read = from.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        buffer.truncate(read);
    }
    stream.finish().map_err(WriteError::from)?;
    Ok(stream)
}
