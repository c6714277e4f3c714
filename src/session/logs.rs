//! Streams of one session: bytes of logs into the log store, acknowledged once they are durable; and artifacts.

use std::{sync::Arc, time::Duration};

use quinn::{Connection, RecvStream, VarInt};
use tokio::time::{Instant, timeout};
use xene_agent::session::{Outgoing, frames::FrameReader, transport::codes};
use xene_schemas::{
    meta::{AgentName, RunName},
    wire::{
        MAX_JOIN_FRAME,
        control::{ControllerMessage, LogAcknowledged},
        logs::{LogHeader, LogMessage},
    },
};

use super::{Append, Driver, LogSink, artifacts, listener::Shared};

/// Taken at a time, in bytes.
const CHUNK: usize = 256 << 10;

/// Bytes are made durable and acknowledged this long after the first that is not. The agent has them on its disk until
/// then, so there is no hurry; a shorter span would only cost more syncs.
const SYNC_AFTER: Duration = Duration::from_millis(100);

/// A stream on which nothing comes for this long is stopped; agents end quiet streams themselves before that.
const IDLE: Duration = Duration::from_secs(60);

/// Takes the streams of a session until its connection ends.
pub(super) async fn accept<D: Driver, L: LogSink>(
    shared: &Arc<Shared<D, L>>,
    connection: &Connection,
    agent: &AgentName,
    outgoing: &Outgoing<ControllerMessage>,
) {
    while let Ok(stream) = connection.accept_uni().await {
        let (shared, agent, outgoing) = (shared.clone(), agent.clone(), outgoing.clone());
        // It ends with the connection.
        tokio::spawn(async move {
            let mut reader = FrameReader::new(stream, MAX_JOIN_FRAME);
            let Ok(Ok(Some(message))) = timeout(IDLE, reader.next::<LogMessage>()).await else {
                return stop(reader.into_parts().0, codes::PROTOCOL);
            };
            let (mut stream, first) = reader.into_parts();
            let (first, sink) = (first.freeze(), &shared.logs);
            match message {
                LogMessage::Header(header) => {
                    let run = header.run;
                    if let Err(error) = take(sink, &agent, header, &mut stream, first, &outgoing).await {
                        tracing::debug!(%agent, %run, error, "log not taken");
                        stop(stream, codes::LOG_REFUSED);
                    }
                }
                LogMessage::Artifact(header) => {
                    let (run, to) = (header.run, (sink, &shared.files));
                    match artifacts::take(to, &agent, &header, &mut stream, first, &outgoing).await {
                        // Also what is still to come of one that is here already.
                        Ok(()) => stop(stream, codes::DONE),
                        Err(error) => {
                            tracing::debug!(%agent, %run, error, "artifact not taken");
                            stop(stream, codes::FILE_REFUSED);
                        }
                    }
                }
            }
        });
    }
}

fn stop(mut stream: RecvStream, code: VarInt) {
    // A stream that has ended needs no stop.
    let _ = stream.stop(code);
}

/// Takes one stream to its end.
async fn take<L: LogSink>(
    logs: &L,
    agent: &AgentName,
    header: LogHeader,
    stream: &mut RecvStream,
    mut bytes: bytes::Bytes,
    outgoing: &Outgoing<ControllerMessage>,
) -> Result<(), String> {
    match logs.may_append(agent, &header).await {
        Append::Yes => {}
        Append::NotYet => return Err("the run is not known, or not this agent's".into()),
        Append::Never => {
            let unwanted = LogAcknowledged { run: header.run, offset: header.offset, unwanted: true };
            // If the session is over, the agent offers it again in the next one.
            let _ = outgoing.send(&ControllerMessage::LogAcknowledged(unwanted));
            return Err("there is no record of the run any more".into());
        }
    }
    let LogHeader { run, mut offset, .. } = header;
    // When the first byte that is not durable must be.
    let mut sync_at = None;
    loop {
        if !bytes.is_empty() {
            let length = bytes.len() as u64;
            logs.append(run, offset, bytes).await.map_err(|error| error.to_string())?;
            offset += length;
            sync_at.get_or_insert_with(|| Instant::now() + SYNC_AFTER);
        }
        let due = async {
            match sync_at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let next = tokio::select! {
            // A log that never pauses is acknowledged all the same.
            biased;
            () = due => {
                acknowledge(logs, run, outgoing).await?;
                sync_at = None;
                bytes = bytes::Bytes::new();
                continue;
            }
            next = timeout(IDLE, stream.read_chunk(CHUNK, true)) => next,
        };
        match next {
            Ok(Ok(Some(chunk))) => bytes = chunk.bytes,
            // Also when nothing came: the agent may have missed an earlier acknowledgement.
            Ok(Ok(None)) => return acknowledge(logs, run, outgoing).await,
            Ok(Err(error)) => return Err(error.to_string()),
            Err(_) => return Err("nothing came for too long".into()),
        }
    }
}

async fn acknowledge<L: LogSink>(logs: &L, run: RunName, outgoing: &Outgoing<ControllerMessage>) -> Result<(), String> {
    let offset = logs.sync(run).await.map_err(|error| error.to_string())?;
    // If the session is over, the agent asks again in the next one.
    let _ = outgoing.send(&ControllerMessage::LogAcknowledged(LogAcknowledged { run, offset, unwanted: false }));
    Ok(())
}
