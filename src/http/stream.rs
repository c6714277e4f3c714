//! Answers without end: a task writes, the client reads, and each notices when the other is gone.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use axum::{
    body::{Body, Bytes},
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use hyper::body::Frame;
use tokio::sync::mpsc;

/// Chunks that wait for a slow client; then its task waits, and with it what it reads from, not the memory.
const WAITING: usize = 8;

/// Where a task writes. Fails once the client is gone.
pub(super) type Sink = mpsc::Sender<Bytes>;

struct Channel(mpsc::Receiver<Bytes>);

impl hyper::body::Body for Channel {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|chunk| chunk.map(|chunk| Ok(Frame::data(chunk))))
    }
}

/// An answer that `write` produces, until it returns.
pub(super) fn stream<F>(content_type: &'static str, write: impl FnOnce(Sink) -> F) -> Response
where
    F: Future<Output = ()> + Send + 'static,
{
    let (sink, chunks) = mpsc::channel(WAITING);
    // It ends when the client does: each write then fails, and what it waits for is waited for beside that.
    tokio::spawn(write(sink));
    let kind = (header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    ([kind], Body::new(Channel(chunks))).into_response()
}
