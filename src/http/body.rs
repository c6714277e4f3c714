//! Bodies that come in time: whoever sends slowly holds a connection, not longer than this.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    extract::Request,
    middleware::Next,
    response::Response,
};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

/// How long a small body may take.
const GRACE: Duration = Duration::from_secs(30);
/// What a long one must bring in each further second, in bytes.
const A_SECOND: u64 = 64 << 10;

/// It came too slowly.
#[derive(Debug, thiserror::Error)]
#[error("the body comes too slowly")]
struct TooSlow;

/// A body that ends with [`TooSlow`] if it falls behind.
struct InTime {
    body: Body,
    deadline: Instant,
    received: u64,
    sleep: Pin<Box<Sleep>>,
}

impl InTime {
    fn new(body: Body, grace: Duration) -> Self {
        let deadline = Instant::now() + grace;
        Self { body, deadline, received: 0, sleep: Box::pin(sleep_until(deadline)) }
    }

    fn count(&mut self, bytes: u64) {
        self.received += bytes;
        let deadline = self.deadline + Duration::from_millis(self.received * 1_000 / A_SECOND);
        self.sleep.as_mut().reset(deadline);
    }
}

/// True if this is why a body could not be read.
pub(super) fn is_too_slow(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source()).any(|error| error.is::<TooSlow>())
}

impl HttpBody for InTime {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            if let Some(Ok(frame)) = &frame {
                let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
                self.count(bytes);
            }
            return Poll::Ready(frame);
        }
        self.sleep.as_mut().poll(context).map(|()| Some(Err(axum::Error::new(TooSlow))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Gives each request's body its time.
pub(super) async fn in_time(request: Request, next: Next) -> Response {
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    next.run(request.map(|body| Body::new(InTime::new(body, GRACE)))).await
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tokio::sync::mpsc;

    use super::*;

    struct Chunks(mpsc::Receiver<Bytes>);

    impl HttpBody for Chunks {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            self.0.poll_recv(context).map(|chunk| chunk.map(|chunk| Ok(Frame::data(chunk))))
        }
    }

    fn timed(grace: Duration) -> (mpsc::Sender<Bytes>, Body) {
        let (send, chunks) = mpsc::channel(1);
        (send, Body::new(InTime::new(Body::new(Chunks(chunks)), grace)))
    }

    #[tokio::test]
    async fn a_body_that_does_not_come_is_given_up() {
        let (send, body) = timed(Duration::from_millis(20));
        send.send(Bytes::from_static(b"x")).await.unwrap();
        let error = axum::body::to_bytes(body, 1 << 20).await.unwrap_err();
        assert!(is_too_slow(&error), "{error:?}");
    }

    #[tokio::test]
    async fn what_has_come_gives_the_rest_its_time() {
        let (send, body) = timed(Duration::from_secs(30));
        tokio::spawn(async move {
            for _ in 0..16 {
                send.send(Bytes::from(vec![0; 64 << 10])).await.unwrap();
            }
        });
        assert_eq!(axum::body::to_bytes(body, 8 << 20).await.unwrap().len(), 1 << 20);
        let mut timed = InTime::new(Body::empty(), Duration::ZERO);
        let before = timed.sleep.deadline();
        timed.count(10 * A_SECOND);
        assert_eq!(timed.sleep.deadline() - before, Duration::from_secs(10));
    }
}
