//! The listener: connections in, requests to the router, an end in order.
//!
//! A connection counts as nobody's until a request on it has shown who sends it. Of those there are so many
//! at a time, and the first of them is closed where one more comes: so neither many slow clients nor those that have shown
//! who they are keep anybody out. There is no limit by address, since behind a proxy all have the same.

use std::{io, sync::Arc, time::Duration};

use axum::Router;
use hyper::{Request, body::Incoming};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use rustix::process::{Resource, getrlimit};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::{Semaphore, watch},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

use super::{audit::Peer, body::Connection, stopped, unproven::Unproven};

/// So many connections at a time, if the process may have so many files open; more wait in the kernel's queue.
const CONNECTIONS: usize = 2048;
/// So many files are for everything else: the store, logs, agents' connections.
const OTHER_FILES: usize = 256;
/// One in so many connections may be one that has not shown yet whose it is.
const UNPROVEN: usize = 2;
/// A client must have sent its handshake, and then each request's head, within this.
pub(super) const HEAD_WITHIN: Duration = Duration::from_secs(if cfg!(test) { 5 } else { 10 });
/// The longest head of a request, in bytes: its first line and all headers.
pub(super) const HEAD: u32 = 64 << 10;
/// A client that speaks HTTP/2 and says nothing is asked this often whether it is there.
const ASK_EVERY: Duration = Duration::from_secs(20);
/// How long the answers that are under way may take when the process stops.
const STOP_WITHIN: Duration = Duration::from_secs(3);

/// Serves `router` on `listener` until `stopping` is true, with TLS if there is a configuration; then ends idle
/// connections and gives others [`STOP_WITHIN`].
///
/// # Errors
/// If the listener can't be used.
pub async fn serve(
    listener: std::net::TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    router: Router,
    stopping: watch::Receiver<bool>,
) -> io::Result<()> {
    let files = getrlimit(Resource::Nofile).current.map_or(usize::MAX, |files| files.try_into().unwrap_or(usize::MAX));
    let connections = files.saturating_sub(OTHER_FILES).clamp(OTHER_FILES / 4, CONNECTIONS);
    serve_some(listener, tls, router, stopping, connections).await
}

/// The same, so many connections at a time.
pub(super) async fn serve_some(
    listener: std::net::TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    router: Router,
    stopping: watch::Receiver<bool>,
    most: usize,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let tls = tls.map(TlsAcceptor::from);
    let connections = Arc::new(Semaphore::new(most));
    let unproven = Unproven::new((most / UNPROVEN) as u64);
    loop {
        let permit = connections.clone().acquire_owned().await.map_err(io::Error::other)?;
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stopped(stopping.clone()) => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Often too many open files: some will be closed.
                tracing::warn!(%error, "can't take a connection");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        // Followed logs come in small pieces that shall not wait for each other.
        let _ = stream.set_nodelay(true);
        let mut place = unproven.enter(1);
        let router = (router.clone(), Peer(peer), Connection(place.leave()));
        let (tls, stopping) = (tls.clone(), stopping.clone());
        tokio::spawn(async move {
            let conversation = async {
                match tls {
                    None => converse(stream, router, stopping).await,
                    Some(tls) => match timeout(HEAD_WITHIN, tls.accept(stream)).await {
                        Ok(Ok(stream)) => converse(stream, router, stopping).await,
                        Ok(Err(error)) => tracing::debug!(%error, "no TLS with a client"),
                        Err(_) => {}
                    },
                }
            };
            tokio::select! {
                () = conversation => {}
                () = place.gives_way() => {}
            }
            drop(permit);
        });
    }
    drop(listener);
    // All permits are back when all connections have ended.
    let _ = timeout(STOP_WITHIN, connections.acquire_many(most.try_into().unwrap_or(u32::MAX))).await;
    Ok(())
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    (router, peer, connection): (Router, Peer, Connection),
    stopping: watch::Receiver<bool>,
) {
    let (heard, mut first) = watch::channel(false);
    let router = router.map_request(move |mut request: Request<Incoming>| {
        heard.send_replace(true);
        request.extensions_mut().insert(peer);
        request.extensions_mut().insert(connection.clone());
        request
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN).max_buf_size(HEAD as usize);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(64).max_header_list_size(HEAD);
    builder.http2().keep_alive_interval(ASK_EVERY).keep_alive_timeout(HEAD_WITHIN);
    let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    // Which version a client speaks is waited for without a limit of its own.
    let silent = async {
        if timeout(HEAD_WITHIN, first.wait_for(|heard| *heard)).await.is_ok() {
            std::future::pending::<()>().await;
        }
    };
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = silent => return,
        () = stopped(stopping) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(error, "a client's connection broke");
    }
}
