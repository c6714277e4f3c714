//! Files for one agent: each on a stream of its own, one after another, behind what is said.

use std::io::{self, Read as _};

use quinn::{Connection, WriteError};
use tokio::sync::mpsc;
use xene_agent::content::ContentStore;
use xene_schemas::{
    pipeline::PipelineFile,
    wire::{
        Message,
        files::{FileHeader, FileMessage},
    },
};

/// Requests of one agent that wait. An agent asks once for each of its specs; beyond this it asks again later.
pub(super) const REQUESTS: usize = 256;

/// Read and sent at a time, in bytes.
const CHUNK: usize = 64 << 10;

/// Why a file did not go out.
#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error(transparent)]
    Connection(#[from] quinn::ConnectionError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("can't read the file: {0}")]
    Read(#[from] io::Error),
}

/// Sends what is wanted until the session ends.
pub(super) async fn send(store: &ContentStore, connection: &Connection, mut wanted: mpsc::Receiver<Vec<PipelineFile>>) {
    while let Some(files) = wanted.recv().await {
        for file in files {
            match send_one(store, connection, &file).await {
                Ok(()) => {}
                Err(SendError::Connection(_) | SendError::Write(WriteError::ConnectionLost(_))) => return,
                // The agent has it by now, or asks again.
                Err(error) => tracing::debug!(hash = ?file.hash, %error, "a file was not sent"),
            }
        }
    }
}

async fn send_one(store: &ContentStore, connection: &Connection, file: &PipelineFile) -> Result<(), SendError> {
    let mut from = store.read(&file.hash).inspect_err(|error| {
        tracing::warn!(hash = %file.hash, path = file.path, %error, "a file that travels is not in the store");
    })?;
    let mut stream = connection.open_uni().await?;
    stream.set_priority(-1).map_err(WriteError::from)?;
    let mut buffer = Vec::with_capacity(CHUNK);
    FileMessage::Header(FileHeader { hash: file.hash, size: file.size }).encode(&mut buffer);
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
    // One after another: what is not taken is not sent ahead.
    let _ = stream.stopped().await;
    Ok(())
}
