//! Files for one agent: each on a stream of its own, one after another, behind what is said.

use quinn::Connection;
use tokio::sync::mpsc;
use xene_agent::{
    content::ContentStore,
    session::send::{self, SendError},
};
use xene_schemas::{
    pipeline::PipelineFile,
    wire::files::{FileHeader, FileMessage},
};

/// Requests of one agent that wait. An agent asks once for each of its specs; beyond this it asks again later.
pub(super) const REQUESTS: usize = 256;

/// Behind what is said.
const PRIORITY: i32 = -1;

/// Sends what is wanted until the session ends.
pub(super) async fn send(store: &ContentStore, connection: &Connection, mut wanted: mpsc::Receiver<Vec<PipelineFile>>) {
    while let Some(files) = wanted.recv().await {
        for file in files {
            let header = FileMessage::Header(FileHeader { hash: file.hash, size: file.size });
            match send::send(store, connection, &header, &file.hash, PRIORITY).await {
                // One after another: what is not taken is not sent ahead.
                Ok(stream) => drop(stream.stopped().await),
                Err(error) if error.is_end() => return,
                Err(error @ SendError::Read(_)) => {
                    tracing::warn!(hash = %file.hash, path = file.path, %error, "a file that travels is not in the store");
                }
                // The agent has it by now, or asks again.
                Err(error) => tracing::debug!(hash = ?file.hash, %error, "a file was not sent"),
            }
        }
    }
}
