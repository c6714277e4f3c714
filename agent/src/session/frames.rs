//! Messages in and out of a QUIC stream.

use std::{
    fmt,
    marker::PhantomData,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use quinn::{ReadError, RecvStream, SendStream, WriteError};
use tokio::sync::{Notify, watch};
use xene_schemas::wire::{MAX_FRAME, Message, WireError, split_frame};

/// What may wait to be sent, in bytes. One frame always fits; a peer that leaves this much unread will not catch up,
/// and a new session, which repeats all that matters, is cheaper than its memory.
const QUEUE: usize = 8 << 20;

/// Written at a time: the unit by which progress is watched.
const CHUNK: usize = 256 << 10;

/// How long a peer may take nothing at all.
const STALL: Duration = Duration::from_secs(20);

/// Buffers above this are given back when they are empty: most sessions are idle most of the time.
const KEPT: usize = 16 << 10;

/// Why no further message came.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The bytes are not a message.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The stream broke off.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The stream ended within a frame.
    #[error("the stream ended within a frame")]
    Cut,
}

/// Reads messages from a stream.
#[derive(Debug)]
pub struct FrameReader {
    stream: RecvStream,
    buffer: BytesMut,
    max: usize,
}

impl FrameReader {
    /// Reads frames of at most `max` bytes.
    pub fn new(stream: RecvStream, max: usize) -> Self {
        Self { stream, buffer: BytesMut::new(), max }
    }

    /// The next message; `None` when the stream has ended. Messages of unknown tags are passed over. Dropping the
    /// future loses nothing.
    ///
    /// # Errors
    /// If the bytes are not a frame of a message, or the stream breaks off.
    pub async fn next<M: Message>(&mut self) -> Result<Option<M>, FrameError> {
        loop {
            if let Some((frame, used)) = split_frame(&self.buffer, self.max)? {
                let message = M::decode(frame)?;
                self.buffer.advance(used);
                if self.buffer.is_empty() && self.buffer.capacity() > KEPT {
                    self.buffer = BytesMut::new();
                }
                if let Some(message) = message {
                    return Ok(Some(message));
                }
                continue;
            }
            match self.stream.read_chunk(CHUNK, true).await? {
                Some(chunk) => self.buffer.extend_from_slice(&chunk.bytes),
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(FrameError::Cut),
            }
        }
    }

    /// The stream, and what was read beyond the last message.
    pub fn into_parts(self) -> (RecvStream, BytesMut) {
        (self.stream, self.buffer)
    }
}

/// The session has ended, or is ending: nothing more can be said in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the session has ended")]
pub struct SessionEnded;

/// What waits to be sent in one session, as bytes: each message is encoded once, and all that is ready is written
/// together. Cheap to clone; never blocks.
pub struct Outgoing<M> {
    shared: Arc<Shared>,
    message: PhantomData<fn(M)>,
}

struct Shared {
    queue: Mutex<Queue>,
    ready: Notify,
    closing: watch::Sender<bool>,
}

#[derive(Default)]
struct Queue {
    bytes: Vec<u8>,
    /// Why nothing more is taken.
    ending: Option<String>,
    /// True: what waits is not worth sending.
    overflow: bool,
}

/// How writing ended.
#[derive(Debug, thiserror::Error)]
pub enum WriteEnd {
    /// [`Outgoing::close`] was called, all is written, and the stream is finished.
    #[error("{0}")]
    Closed(String),
    /// The peer does not read.
    #[error("the peer does not take what is sent to it")]
    Stalled,
    /// The stream broke off.
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl<M> Clone for Outgoing<M> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), message: PhantomData }
    }
}

impl<M> Default for Outgoing<M> {
    fn default() -> Self {
        let shared = Shared { queue: Mutex::default(), ready: Notify::new(), closing: watch::Sender::new(false) };
        Self { shared: Arc::new(shared), message: PhantomData }
    }
}

impl<M> fmt::Debug for Outgoing<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let queue = self.queue();
        f.debug_struct("Outgoing").field("waiting", &queue.bytes.len()).field("ending", &queue.ending).finish()
    }
}

impl<M> PartialEq for Outgoing<M> {
    /// True for the same session.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }
}

impl<M> Outgoing<M> {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the session once everything queued is sent; a sentence says why. The first reason stands.
    pub fn close(&self, reason: impl Into<String>) {
        self.queue().ending.get_or_insert_with(|| reason.into());
        self.shared.closing.send_replace(true);
        self.shared.ready.notify_one();
    }

    /// Why the session is ending, if it is.
    pub fn reason(&self) -> Option<String> {
        self.queue().ending.clone()
    }

    /// Resolves when [`Self::close`] has been called.
    pub async fn closing(&self) {
        // The sender lives as long as `self`.
        let _ = self.shared.closing.subscribe().wait_for(|closing| *closing).await;
    }

    /// Writes what is queued until the session is closed. Only one caller at a time.
    pub async fn write_to(&self, stream: &mut SendStream) -> WriteEnd {
        let end = self.write(stream).await.unwrap_or_else(WriteEnd::Write);
        self.close(end.to_string());
        end
    }

    async fn write(&self, stream: &mut SendStream) -> Result<WriteEnd, WriteError> {
        let mut batch = Vec::new();
        loop {
            {
                let mut queue = self.queue();
                if queue.overflow {
                    return Ok(WriteEnd::Stalled);
                }
                mem::swap(&mut queue.bytes, &mut batch);
                if batch.is_empty()
                    && let Some(reason) = &queue.ending
                {
                    let reason = reason.clone();
                    drop(queue);
                    stream.finish()?;
                    return Ok(WriteEnd::Closed(reason));
                }
            }
            if batch.is_empty() {
                self.shared.ready.notified().await;
                continue;
            }
            for chunk in batch.chunks(CHUNK) {
                match tokio::time::timeout(STALL, stream.write_all(chunk)).await {
                    Ok(written) => written?,
                    Err(_) => return Ok(WriteEnd::Stalled),
                }
            }
            batch.clear();
            if batch.capacity() > KEPT {
                batch = Vec::new();
            }
        }
    }
}

impl<M: Message> Outgoing<M> {
    /// Queues a message.
    ///
    /// # Errors
    /// If the session is ending. A peer that lets too much wait ends it.
    pub fn send(&self, message: &M) -> Result<(), SessionEnded> {
        let mut queue = self.queue();
        if queue.ending.is_some() {
            return Err(SessionEnded);
        }
        let before = queue.bytes.len();
        let trouble = if before > QUEUE {
            Some("the peer does not take what is sent to it")
        } else {
            message.encode(&mut queue.bytes);
            (queue.bytes.len() - before > MAX_FRAME).then_some("a message is too large to send")
        };
        if let Some(trouble) = trouble {
            queue.bytes = Vec::new();
            queue.overflow = true;
            drop(queue);
            self.close(trouble);
            return Err(SessionEnded);
        }
        drop(queue);
        self.shared.ready.notify_one();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use xene_schemas::wire::control::{AgentMessage, Skipped, SpecsWanted};

    use super::*;

    #[test]
    fn a_queue_that_nobody_drains_ends_the_session() {
        let outgoing = Outgoing::default();
        let message =
            AgentMessage::SpecsWanted(SpecsWanted { hashes: vec![xene_schemas::meta::SpecHash::of(b"x"); 10_000] });
        let mut size = Vec::new();
        message.encode(&mut size);
        let sent = (0..100_000).take_while(|_| outgoing.send(&message).is_ok()).count();
        assert_eq!(sent, QUEUE / size.len() + 1);
        assert!(outgoing.queue().bytes.is_empty(), "its memory is given back");
        assert_eq!(outgoing.send(&AgentMessage::Skipped(Skipped { first: None, rows: vec![] })), Err(SessionEnded));
    }

    #[test]
    fn the_first_reason_to_close_stands() {
        let outgoing = Outgoing::<AgentMessage>::default();
        outgoing.close("revoked");
        outgoing.close("later");
        assert_eq!(outgoing.reason().as_deref(), Some("revoked"));
    }
}
