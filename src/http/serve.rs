//! The listener: connections in, requests to the router, an end in order.

use std::{io, sync::Arc, time::Duration};

use axum::Router;
use hyper::{Request, body::Incoming};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::{Semaphore, watch},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

use super::{audit::Peer, stopped};

/// So many connections at a time: a thousand who watch leave room for those who ask. More are not refused, they wait in the
/// kernel's queue until one ends, so that neither memory nor open files grow with those who come.
const CONNECTIONS: u32 = 2048;
/// A client must have sent its handshake, and then each request's head, within this.
const HEAD_WITHIN: Duration = Duration::from_secs(if cfg!(test) { 5 } else { 10 });
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
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let tls = tls.map(TlsAcceptor::from);
    let connections = Arc::new(Semaphore::new(CONNECTIONS as usize));
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
        let (router, tls, stopping) = ((router.clone(), Peer(peer)), tls.clone(), stopping.clone());
        tokio::spawn(async move {
            match tls {
                None => converse(stream, router, stopping).await,
                Some(tls) => match timeout(HEAD_WITHIN, tls.accept(stream)).await {
                    Ok(Ok(stream)) => converse(stream, router, stopping).await,
                    Ok(Err(error)) => tracing::debug!(%error, "no TLS with a client"),
                    Err(_) => {}
                },
            }
            drop(permit);
        });
    }
    drop(listener);
    // All permits are back when all connections have ended.
    let _ = timeout(STOP_WITHIN, connections.acquire_many(CONNECTIONS)).await;
    Ok(())
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    (router, peer): (Router, Peer),
    stopping: watch::Receiver<bool>,
) {
    let (heard, mut first) = watch::channel(false);
    let router = router.map_request(move |mut request: Request<Incoming>| {
        heard.send_replace(true);
        request.extensions_mut().insert(peer);
        request
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(64);
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
