//! Artifacts of one agent: bytes into the store of files, acknowledged once they are on the disk.

use std::{io, time::Duration};

use bytes::Bytes;
use quinn::RecvStream;
use tokio::time::timeout;
use xene_agent::{content::ContentStore, session::Outgoing};
use xene_schemas::{
    meta::AgentName,
    wire::{
        control::{ArtifactStored, ControllerMessage},
        logs::ArtifactHeader,
    },
};

use super::{LogSink, MayStore};

/// Taken at a time, in bytes.
const CHUNK: usize = 256 << 10;

/// A stream on which nothing comes for this long is stopped.
const IDLE: Duration = Duration::from_secs(60);

/// Takes one artifact. What is here already, or is wanted by nobody, is acknowledged without a look at its bytes.
pub(super) async fn take<L: LogSink>(
    (sink, store): (&L, &ContentStore),
    agent: &AgentName,
    header: &ArtifactHeader,
    stream: &mut RecvStream,
    first: Bytes,
    outgoing: &Outgoing<ControllerMessage>,
) -> Result<(), String> {
    match sink.may_store(agent, header).await {
        MayStore::Yes if store.has(&header.hash) => {}
        MayStore::Yes => take_bytes(store, header, stream, first).await?,
        MayStore::Unwanted => {}
        MayStore::No => return Err("the run is not this agent's, or it keeps too much".into()),
    }
    let stored = ArtifactStored { run: header.run, hash: header.hash };
    // If the session is over, the agent sends it again in the next one.
    let _ = outgoing.send(&ControllerMessage::ArtifactStored(stored));
    Ok(())
}

async fn take_bytes(
    store: &ContentStore,
    header: &ArtifactHeader,
    stream: &mut RecvStream,
    first: Bytes,
) -> Result<(), String> {
    let sentence = |error: io::Error| format!("it can't be kept: {error}");
    let mut incoming = store.incoming().map_err(sentence)?;
    let mut bytes = first;
    loop {
        incoming.write(&bytes).map_err(sentence)?;
        if incoming.size() > header.size {
            return Err("it is larger than it says".into());
        }
        match timeout(IDLE, stream.read_chunk(CHUNK, true)).await {
            Ok(Ok(Some(chunk))) => bytes = chunk.bytes,
            Ok(Ok(None)) => break,
            Ok(Err(error)) => return Err(error.to_string()),
            Err(_) => return Err("nothing came for too long".into()),
        }
    }
    if incoming.size() != header.size || incoming.hash() != header.hash {
        return Err("its bytes are not what it is named by".into());
    }
    let kept = tokio::task::spawn_blocking(move || incoming.finish()).await.map_err(|error| error.to_string())?;
    kept.map(drop).map_err(sentence)
}
