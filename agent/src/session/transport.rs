//! QUIC settings of both ends, and the sockets.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use quinn::{Connection, TransportConfig, VarInt};
use socket2::{Domain, Protocol, Socket, Type};

/// How many logs one agent sends at a time.
pub const LOG_STREAMS: u32 = 64;

/// How many files one agent takes at a time, and how many artifacts the controller.
const FILE_STREAMS: u32 = 2;

/// How much one stream may be ahead of its reader, in bytes. At a round trip of 20 ms that is 12 MB/s for one log.
const STREAM_WINDOW: u32 = 256 << 10;

/// An assignment set is one large frame: towards the agent the one stream gets more.
const CONTROL_WINDOW: u32 = 1 << 20;

/// Sent and not acknowledged yet, in bytes; it bounds the memory of a connection whose peer is slow.
const SEND_WINDOW: u64 = 2 << 20;

/// What is asked of the kernel for bursts: its default of about 208 KiB loses datagrams when many agents speak at once.
const SOCKET_BUFFER: usize = 8 << 20;

/// Connections over TCP that wait to be taken.
const BACKLOG: i32 = 1024;

/// Application error codes of closed connections and stopped streams.
pub mod codes {
    use quinn::VarInt;

    /// All is said.
    pub const DONE: VarInt = VarInt::from_u32(0);
    /// The peer did not say what it should.
    pub const PROTOCOL: VarInt = VarInt::from_u32(1);
    /// A session needs a certificate that names an agent.
    pub const CERTIFICATE: VarInt = VarInt::from_u32(2);
    /// Too much at once; try again later.
    pub const BUSY: VarInt = VarInt::from_u32(3);
    /// The log can't be taken now: its run is not known (yet), or not the agent's.
    pub const LOG_REFUSED: VarInt = VarInt::from_u32(4);
    /// The file was not asked for, or is not what it says.
    pub const FILE_REFUSED: VarInt = VarInt::from_u32(5);
}

/// How soon a dead peer is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Liveness {
    /// Something is sent at least this often.
    pub keep_alive: Duration,
    /// A peer that is silent for this long is gone; the smaller of both ends counts.
    pub idle_timeout: Duration,
}

impl Default for Liveness {
    fn default() -> Self {
        // Address translators forget a silent connection after 20 to 30 s.
        Self { keep_alive: Duration::from_secs(5), idle_timeout: Duration::from_secs(20) }
    }
}

/// The end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It takes the control stream and logs.
    Controller,
    /// It dials; it takes the control stream and files.
    Agent,
}

/// Transport settings of one end.
pub fn transport(end: End, liveness: Liveness) -> Arc<TransportConfig> {
    let mut config = TransportConfig::default();
    config
        .keep_alive_interval(Some(liveness.keep_alive))
        .max_idle_timeout(liveness.idle_timeout.try_into().ok())
        .send_window(SEND_WINDOW)
        .datagram_receive_buffer_size(None);
    match end {
        // Until `widen`, for a peer that has proved nothing.
        End::Controller => config
            .max_concurrent_bidi_streams(VarInt::from_u32(1))
            .max_concurrent_uni_streams(VarInt::from_u32(0))
            .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
            .receive_window(VarInt::from_u32(STREAM_WINDOW)),
        End::Agent => config
            .max_concurrent_bidi_streams(VarInt::from_u32(0))
            .max_concurrent_uni_streams(VarInt::from_u32(FILE_STREAMS))
            .stream_receive_window(VarInt::from_u32(CONTROL_WINDOW))
            // The sum of its streams': files that are not taken can't hold up what is said.
            .receive_window(VarInt::from_u32((FILE_STREAMS + 1) * CONTROL_WINDOW)),
    };
    Arc::new(config)
}

/// Lets a peer that has shown its certificate send logs.
///
/// The connection's window becomes the sum of its streams': logs that nobody reads can't hold up what is said.
pub fn widen(connection: &Connection) {
    connection.set_receive_window(VarInt::from_u32((LOG_STREAMS + FILE_STREAMS + 1) * STREAM_WINDOW));
    connection.set_max_concurrent_uni_streams(VarInt::from_u32(LOG_STREAMS + FILE_STREAMS));
}

/// A TCP socket that listens, for both families as far as the address is of both.
///
/// # Errors
/// If the address can't be bound.
pub fn tcp_listener(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        let _ = socket.set_only_v6(false);
    }
    // Connections of an earlier process that the system has not forgotten yet do not hold the port.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A UDP socket with large buffers, as far as the kernel grants them.
///
/// # Errors
/// If the address can't be bound.
pub fn udp_socket(address: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        // One socket for both families; a system without IPv4-mapped addresses still serves IPv6.
        let _ = socket.set_only_v6(false);
    }
    if socket.set_recv_buffer_size(SOCKET_BUFFER).and_then(|()| socket.set_send_buffer_size(SOCKET_BUFFER)).is_err() {
        tracing::debug!("the kernel grants no larger UDP buffers");
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}
