//! The whole store as one file, while it is in use.

use std::{
    io::{self, Write},
    sync::Arc,
};

use axum::{body::Bytes, extract::State, response::Response};

use super::{
    Api,
    stream::{Sink, stream},
};

pub(super) async fn backup(State(api): State<Arc<Api>>) -> Response {
    stream("application/zstd", move |sink| async move {
        let store = api.handle.store().clone();
        let written = tokio::task::spawn_blocking(move || store.back_up(&mut Chunks(sink))).await;
        // Cut short, its frame has no end, which whoever reads it notices.
        match written {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "a backup was not finished"),
            Err(error) => tracing::error!(%error, "a backup was not finished"),
        }
    })
}

/// Writes into an answer.
struct Chunks(Sink);

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Bytes::copy_from_slice(bytes));
        sent.map(|()| bytes.len()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
