//! Bodies that come in time: whoever sends slowly holds a connection, not longer than this. Those of who has not shown
//! who they are come faster, and share what memory there is for them.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    extract::{Request, State},
    http::StatusCode,
    middleware::Next,
    response::Response,
};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use super::{
    Api,
    unproven::{Leave, Place},
};

/// How long a small body may take.
const GRACE: Duration = Duration::from_secs(30);
/// The same, of who has not shown who they are.
const UNPROVEN_GRACE: Duration = Duration::from_secs(10);
/// So much of such bodies is in memory at a time, in bytes.
pub(super) const UNPROVEN: u64 = 32 << 20;
/// What a long one must bring in each further second, in bytes.
const A_SECOND: u64 = 64 << 10;

/// It came too slowly.
#[derive(Debug, thiserror::Error)]
#[error("the body comes too slowly")]
struct TooSlow;

/// There was no room for it.
#[derive(Debug, thiserror::Error)]
#[error("too much is sent at once")]
struct GaveWay;

/// Whether it is known who sends a request; beside the request.
#[derive(Debug, Clone, Default)]
pub(super) struct Proven {
    is_known: Arc<AtomicBool>,
    /// The connection's place among those of whom nobody knows.
    connection: Option<Connection>,
}

/// Of the connection by which a request comes; beside the request.
#[derive(Debug, Clone)]
pub(super) struct Connection(pub(super) Leave);

impl Proven {
    /// The request has shown who sends it.
    pub(super) fn now(&self) {
        self.is_known.store(true, Ordering::Relaxed);
        if let Some(Connection(place)) = &self.connection {
            place.now();
        }
    }
}

/// A body that ends with [`TooSlow`] if it falls behind, and with [`GaveWay`] if others need its memory.
struct InTime {
    body: Body,
    proven: Proven,
    /// Until it is known who sends.
    place: Option<Place>,
    deadline: Instant,
    received: u64,
    sleep: Pin<Box<Sleep>>,
}

impl InTime {
    fn new(body: Body, grace: Duration, proven: Proven, place: Option<Place>) -> Self {
        let deadline = Instant::now() + grace;
        Self { body, proven, place, deadline, received: 0, sleep: Box::pin(sleep_until(deadline)) }
    }

    fn count(&mut self, bytes: u64) {
        self.received += bytes;
        let deadline = self.deadline + Duration::from_millis(self.received * 1_000 / A_SECOND);
        self.sleep.as_mut().reset(deadline);
        if let Some(place) = &self.place {
            place.take(bytes);
        }
    }
}

/// The status that says why a body could not be read, if it is for one of these reasons.
pub(super) fn status_of(error: &(dyn std::error::Error + 'static)) -> Option<StatusCode> {
    std::iter::successors(Some(error), |error| error.source()).find_map(|error| {
        let gave_way = error.is::<GaveWay>().then_some(StatusCode::SERVICE_UNAVAILABLE);
        gave_way.or_else(|| error.is::<TooSlow>().then_some(StatusCode::REQUEST_TIMEOUT))
    })
}

impl HttpBody for InTime {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.place.is_some() && self.proven.is_known.load(Ordering::Relaxed) {
            self.place = None;
            self.deadline += GRACE - UNPROVEN_GRACE;
            self.count(0);
        }
        if self.place.as_mut().is_some_and(|place| place.poll_gives_way(context).is_ready()) {
            return Poll::Ready(Some(Err(axum::Error::new(GaveWay))));
        }
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

/// Gives each request's body its time and its room.
pub(super) async fn in_time(State(api): State<Arc<Api>>, mut request: Request, next: Next) -> Response {
    let proven = Proven { connection: request.extensions().get().cloned(), ..Proven::default() };
    request.extensions_mut().insert(proven.clone());
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    let place = Some(api.bodies.enter(0));
    next.run(request.map(|body| Body::new(InTime::new(body, UNPROVEN_GRACE, proven, place)))).await
}

/// A body whose time is over.
#[cfg(test)]
pub(super) fn late(body: Body) -> Body {
    Body::new(InTime::new(body, Duration::ZERO, Proven::default(), None))
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
        (send, Body::new(InTime::new(Body::new(Chunks(chunks)), grace, Proven::default(), None)))
    }

    #[tokio::test]
    async fn a_body_that_does_not_come_is_given_up() {
        let (send, body) = timed(Duration::from_millis(20));
        send.send(Bytes::from_static(b"x")).await.unwrap();
        let error = axum::body::to_bytes(body, 1 << 20).await.unwrap_err();
        assert_eq!(status_of(&error), Some(StatusCode::REQUEST_TIMEOUT), "{error:?}");
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
        let mut timed = InTime::new(Body::empty(), Duration::ZERO, Proven::default(), None);
        let before = timed.sleep.deadline();
        timed.count(10 * A_SECOND);
        assert_eq!(timed.sleep.deadline() - before, Duration::from_secs(10));
    }
}
