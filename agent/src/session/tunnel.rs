//! QUIC where UDP does not pass: its datagrams, one after another, in a TLS stream over TCP. Shared with the controller.
//!
//! Each end of such a stream is an endpoint of its own with this as its socket, so a session is the same whatever
//! carries it. Who the peers are is proved within, as over UDP; the TLS around it shows middleboxes what they expect.

use std::{
    io::{self, IoSliceMut},
    mem,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use quinn::{
    AsyncUdpSocket, Connection, Endpoint, EndpointConfig, ServerConfig, TokioRuntime, UdpPoller,
    udp::{RecvMeta, Transmit},
};
use tokio::{
    io::{AsyncRead, AsyncWriteExt, ReadBuf, ReadHalf, WriteHalf},
    net::TcpStream,
    sync::{Notify, watch},
};
use tokio_rustls::TlsStream;

use super::transport::codes;

/// The length before each datagram, in bytes; little-endian.
const LENGTH: usize = 2;

/// Not yet taken by TCP, in bytes: beyond it QUIC waits, which then knows how fast the way is.
const AHEAD: usize = 64 << 10;

/// Datagrams that are handed over at a time.
const SEGMENTS: usize = 16;

/// Read at a time, in bytes: a TLS record.
const CHUNK: usize = 16 << 10;

/// Buffers above this are given back when they are empty: most sessions are idle most of the time.
const KEPT: usize = 16 << 10;

/// How long the last bytes may take to be written once nobody uses the tunnel any more.
const LINGER: Duration = Duration::from_secs(3);

/// Makes the endpoint at one end of a TLS stream; with a `server` configuration it takes connections.
///
/// # Errors
/// If the stream has no addresses any more: it is closed.
pub fn endpoint(stream: TlsStream<TcpStream>, server: Option<ServerConfig>) -> io::Result<(Endpoint, Broken)> {
    let (tcp, _) = stream.get_ref();
    let (local, remote) = (tcp.local_addr()?, tcp.peer_addr()?);
    // What is to be sent together is handed over together already.
    tcp.set_nodelay(true)?;
    let (from, to) = tokio::io::split(stream);
    let shared = Arc::new(Shared {
        outgoing: Mutex::default(),
        ready: Notify::new(),
        unused: watch::Sender::new(false),
        broken: watch::Sender::new(None),
    });
    let broken = Broken(shared.broken.subscribe());
    tokio::spawn(write(to, Arc::clone(&shared)));
    let incoming = Mutex::new(Incoming { stream: from, buffer: BytesMut::new() });
    let socket = Arc::new(Tunnel { local, remote, incoming, shared });
    let endpoint =
        Endpoint::new_with_abstract_socket(EndpointConfig::default(), server, socket, Arc::new(TokioRuntime))?;
    Ok((endpoint, broken))
}

/// Tells when the stream below has ended.
#[derive(Debug, Clone)]
pub struct Broken(watch::Receiver<Option<String>>);

impl Broken {
    /// Resolves when it has; says how.
    pub async fn wait(&mut self) -> String {
        if let Ok(reason) = self.0.wait_for(Option::is_some).await {
            return reason.clone().unwrap_or_default();
        }
        // It is not used any more, and did not break.
        std::future::pending().await
    }

    /// How it has ended, if it has.
    pub fn reason(&self) -> Option<String> {
        self.0.borrow().clone()
    }

    /// Closes the connection when the stream below it ends: nothing can come any more.
    pub fn close(mut self, connection: &Connection) {
        let connection = connection.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = connection.closed() => {}
                _ = self.wait() => connection.close(codes::PROTOCOL, b"the TCP connection ended"),
            }
        });
    }
}

/// One end, as quinn wants it.
#[derive(Debug)]
struct Tunnel {
    local: SocketAddr,
    remote: SocketAddr,
    incoming: Mutex<Incoming>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Incoming {
    stream: ReadHalf<TlsStream<TcpStream>>,
    buffer: BytesMut,
}

#[derive(Debug)]
struct Shared {
    outgoing: Mutex<Outgoing>,
    ready: Notify,
    unused: watch::Sender<bool>,
    broken: watch::Sender<Option<String>>,
}

#[derive(Debug, Default)]
struct Outgoing {
    bytes: Vec<u8>,
    waiting: Vec<Waker>,
}

impl Shared {
    fn outgoing(&self) -> MutexGuard<'_, Outgoing> {
        self.outgoing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_broken(&self) -> bool {
        self.broken.borrow().is_some()
    }

    /// The first reason stands.
    fn breaks(&self, reason: &str) {
        self.broken.send_if_modified(|known| {
            let first = known.is_none();
            known.get_or_insert_with(|| reason.to_owned());
            first
        });
        let waiting = mem::take(&mut self.outgoing().waiting);
        waiting.into_iter().for_each(Waker::wake);
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.shared.unused.send_replace(true);
        self.shared.ready.notify_one();
    }
}

impl Incoming {
    /// The next datagram that is here whole, copied to `to`: its length. One that does not fit is lost, as over UDP.
    fn take(&mut self, to: &mut [u8]) -> Option<usize> {
        loop {
            let length = usize::from(u16::from_le_bytes(*self.buffer.first_chunk::<LENGTH>()?));
            let datagram = self.buffer.get(LENGTH..LENGTH + length)?;
            let fits = to.get_mut(..length).filter(|to| !to.is_empty());
            let taken = fits.map(|to| to.copy_from_slice(datagram));
            self.buffer.advance(LENGTH + length);
            if self.buffer.is_empty() && self.buffer.capacity() > KEPT {
                self.buffer = BytesMut::new();
            }
            if taken.is_some() {
                return Some(length);
            }
        }
    }

    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), String>> {
        let mut chunk = [0; CHUNK];
        let mut chunk = ReadBuf::new(&mut chunk);
        match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut chunk)) {
            Ok(()) if chunk.filled().is_empty() => Poll::Ready(Err("the TCP connection was closed".into())),
            // Peers that end do not always say so.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Poll::Ready(Err("the TCP connection was closed".into()))
            }
            Err(error) => Poll::Ready(Err(error.to_string())),
            Ok(()) => {
                self.buffer.extend_from_slice(chunk.filled());
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl AsyncUdpSocket for Tunnel {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Poller(Arc::clone(&self.shared)))
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        if self.shared.is_broken() {
            return Ok(());
        }
        let mut outgoing = self.shared.outgoing();
        if outgoing.bytes.len() > AHEAD {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let segment = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        for datagram in transmit.contents.chunks(segment) {
            let length = u16::try_from(datagram.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
            outgoing.bytes.extend_from_slice(&length.to_le_bytes());
            outgoing.bytes.extend_from_slice(datagram);
        }
        drop(outgoing);
        self.shared.ready.notify_one();
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut incoming = self.incoming.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let mut count = 0;
            for (buffer, meta) in bufs.iter_mut().zip(meta.iter_mut()) {
                let Some(len) = incoming.take(buffer) else { break };
                *meta = RecvMeta { addr: self.remote, len, stride: len, ecn: None, dst_ip: None };
                count += 1;
            }
            if count > 0 {
                return Poll::Ready(Ok(count));
            }
            // Whoever uses the endpoint hears of the end from `Broken`; here an error would only be logged.
            if self.shared.is_broken() {
                return Poll::Pending;
            }
            if let Err(reason) = ready!(incoming.poll_more(cx)) {
                self.shared.breaks(&reason);
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }

    fn max_transmit_segments(&self) -> usize {
        SEGMENTS
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

#[derive(Debug)]
struct Poller(Arc<Shared>);

impl UdpPoller for Poller {
    fn poll_writable(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut outgoing = self.0.outgoing();
        if outgoing.bytes.len() <= AHEAD || self.0.is_broken() {
            return Poll::Ready(Ok(()));
        }
        if !outgoing.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            outgoing.waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }
}

/// Writes what there is to send until nobody uses the tunnel any more, or it breaks.
async fn write(mut stream: WriteHalf<TlsStream<TcpStream>>, shared: Arc<Shared>) {
    let mut unused = shared.unused.subscribe();
    let writing = async {
        let mut batch = Vec::new();
        loop {
            let waiting = {
                let mut outgoing = shared.outgoing();
                mem::swap(&mut outgoing.bytes, &mut batch);
                mem::take(&mut outgoing.waiting)
            };
            waiting.into_iter().for_each(Waker::wake);
            if batch.is_empty() {
                if *shared.unused.borrow() {
                    return stream.shutdown().await;
                }
                shared.ready.notified().await;
                continue;
            }
            stream.write_all(&batch).await?;
            stream.flush().await?;
            batch.clear();
            if batch.capacity() > KEPT {
                batch = Vec::new();
            }
        }
    };
    let given_up = async {
        // The sender is `shared`'s.
        let _ = unused.wait_for(|unused| *unused).await;
        tokio::time::sleep(LINGER).await;
    };
    let written = tokio::select! {
        written = writing => written,
        () = given_up => Ok(()),
    };
    if let Err(error) = written {
        shared.breaks(&error.to_string());
    }
}
