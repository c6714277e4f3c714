//! Reaches a controller, and says in a sentence why not.

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use quinn::{ConnectError, Connection, ConnectionError, Endpoint, EndpointConfig, TokioRuntime};
use rustls::{AlertDescription, pki_types::ServerName};
use tokio::{net::TcpStream, task::JoinSet};
use tokio_rustls::{TlsConnector, TlsStream};
use xene_schemas::phase::Transport;

use super::{
    tls::SERVER_NAME,
    transport,
    tunnel::{self, Broken},
};

/// How much later the next address is tried, if the one before has not answered.
const HEAD_START: Duration = Duration::from_millis(250);

/// How long UDP may go unanswered until TCP is tried, too.
const UDP_ALONE: Duration = Duration::from_secs(3);

/// What a session may be carried by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Transports {
    /// QUIC over UDP, and TCP where that gets no answer.
    #[default]
    Auto,
    /// QUIC over UDP alone.
    Quic,
    /// TLS over TCP alone.
    Tcp,
}

/// TLS of both ways to a controller.
#[derive(Debug, Clone)]
pub(super) struct Configs {
    /// Of the session, by whatever it is carried.
    pub(super) quic: quinn::ClientConfig,
    /// Around it, over TCP.
    pub(super) tunnel: Arc<rustls::ClientConfig>,
}

/// Why a controller can't be reached.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The name has no address.
    #[error("{controller} has no address: {source}")]
    Resolve {
        /// As given.
        controller: String,
        /// What the resolver says.
        #[source]
        source: io::Error,
    },
    /// No socket.
    #[error("no UDP socket: {0}")]
    Socket(#[from] io::Error),
    /// The address or the configuration can't be used.
    #[error("can't dial: {0}")]
    Connect(#[from] ConnectError),
    /// Nobody answers.
    #[error("{controller} does not answer: is the controller running there, and does {protocols} pass?")]
    Silent {
        /// As given.
        controller: String,
        /// What was tried.
        protocols: &'static str,
    },
    /// The handshake failed; a sentence says why.
    #[error("{0}")]
    Refused(String),
}

/// A connection, with the endpoint that carries it.
#[derive(Debug)]
pub(super) struct Dialed {
    /// Keeps the socket open.
    pub(super) endpoint: Endpoint,
    /// Stands, as far as this end can tell: a controller that refuses this end's certificate closes it now.
    pub(super) connection: Connection,
    /// Of a connection over TCP: how that ended.
    pub(super) broken: Option<Broken>,
}

impl Dialed {
    /// What it is carried by.
    pub(super) fn transport(&self) -> Transport {
        if self.broken.is_some() { Transport::Tcp } else { Transport::Quic }
    }
}

/// What came of one attempt.
enum Failed {
    /// Nothing came.
    Silent,
    /// There is no socket, or the like.
    Here(DialError),
    /// Somebody answers, and no connection stands; a sentence says why.
    Refused(String),
}

impl<E: Into<DialError>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self::Here(error.into())
    }
}

/// Resolves `controller` (`HOST:PORT`) and dials each of its addresses, the later ones with a delay; the first that
/// answers is taken. The name is resolved anew at each call. TCP comes later than UDP, if both may be, and not at all to
/// an address that has answered there.
pub(super) async fn dial(
    controller: &str,
    transports: Transports,
    configs: &Configs,
    patience: Duration,
    why: &Why,
) -> Result<Dialed, DialError> {
    let addresses = tokio::net::lookup_host(controller)
        .await
        .map_err(|source| DialError::Resolve { controller: controller.into(), source })?;
    dial_any(controller, addresses, transports, configs, patience, why).await
}

async fn dial_any(
    controller: &str,
    addresses: impl IntoIterator<Item = SocketAddr>,
    transports: Transports,
    configs: &Configs,
    patience: Duration,
    why: &Why,
) -> Result<Dialed, DialError> {
    let mut tcp_to = HashMap::new();
    let (mut by_udp, mut by_tcp) = (JoinSet::new(), JoinSet::new());
    let mut delay = Duration::ZERO;
    for address in addresses {
        if transports != Transports::Tcp {
            let (config, why) = (configs.quic.clone(), why.clone());
            by_udp.spawn(async move {
                tokio::time::sleep(delay).await;
                (address, dial_udp(address, config, &why).await)
            });
        }
        if transports != Transports::Quic {
            let (configs, why) = (configs.clone(), why.clone());
            let alone = if transports == Transports::Auto { UDP_ALONE } else { Duration::ZERO };
            let attempt = by_tcp.spawn(async move {
                tokio::time::sleep(alone + delay).await;
                (address, dial_tcp(address, configs, &why).await)
            });
            tcp_to.insert(address, attempt);
        }
        delay += HEAD_START;
    }
    let protocols = match transports {
        Transports::Auto => "UDP or TCP",
        Transports::Quic => "UDP",
        Transports::Tcp => "TCP",
    };
    let mut failure = DialError::Silent { controller: controller.into(), protocols };
    let dialing = async {
        loop {
            let (attempt, udp) = tokio::select! {
                Some(attempt) = by_udp.join_next() => (attempt, true),
                Some(attempt) = by_tcp.join_next() => (attempt, false),
                else => return None,
            };
            // Else it was called off.
            let Ok((address, attempt)) = attempt else { continue };
            match attempt {
                Ok(dialed) => return Some(dialed),
                Err(Failed::Silent) => {}
                Err(Failed::Here(error)) => failure = error,
                Err(Failed::Refused(sentence)) => {
                    failure = DialError::Refused(sentence);
                    if let Some(attempt) = tcp_to.get(&address).filter(|_| udp) {
                        attempt.abort();
                    }
                }
            }
        }
    };
    let dialed = tokio::time::timeout(patience, dialing).await.ok().flatten();
    dialed.ok_or(failure)
}

async fn dial_udp(address: SocketAddr, config: quinn::ClientConfig, why: &Why) -> Result<Dialed, Failed> {
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = transport::udp_socket(any)?;
    let endpoint = Endpoint::new(EndpointConfig::default(), None, socket, Arc::new(TokioRuntime))?;
    match endpoint.connect_with(config, address, SERVER_NAME)?.await {
        Ok(connection) => Ok(Dialed { endpoint, connection, broken: None }),
        Err(ConnectionError::TimedOut) => Err(Failed::Silent),
        Err(error) => Err(Failed::Refused(why.sentence(&error))),
    }
}

async fn dial_tcp(address: SocketAddr, configs: Configs, why: &Why) -> Result<Dialed, Failed> {
    let tcp = match TcpStream::connect(address).await {
        Ok(tcp) => tcp,
        Err(error) => {
            tracing::debug!(%address, %error, "no TCP connection");
            return Err(Failed::Silent);
        }
    };
    let name = ServerName::try_from(SERVER_NAME).map_err(|error| Failed::Refused(error.to_string()))?;
    let stream = match TlsConnector::from(configs.tunnel).connect(name, tcp).await {
        Ok(stream) => TlsStream::from(stream),
        Err(error) => return Err(Failed::Refused(why.tls_sentence(&error))),
    };
    let (endpoint, mut broken) = tunnel::endpoint(stream, None)?;
    let connecting = endpoint.connect_with(configs.quic, address, SERVER_NAME)?;
    let connection = tokio::select! {
        connected = connecting => connected.map_err(|error| Failed::Refused(why.sentence(&error)))?,
        reason = broken.wait() => return Err(Failed::Refused(format!("the connection failed: {reason}"))),
    };
    broken.clone().close(&connection);
    Ok(Dialed { endpoint, connection, broken: Some(broken) })
}

/// Who asks why a connection ended.
#[derive(Debug, Clone)]
pub(super) enum Why {
    /// An agent with a certificate that is valid until then.
    Session(Timestamp),
    /// Enrolment.
    Join,
}

impl Why {
    /// Says why a connection ended, and what to do about it.
    pub(super) fn sentence(&self, error: &ConnectionError) -> String {
        match error {
            ConnectionError::ConnectionClosed(close) => match alert(close.error_code) {
                Some(alert) => self.refused_by_controller(alert),
                None => format!("the controller ended the connection: {close}"),
            },
            ConnectionError::TransportError(error) => match alert(error.code) {
                Some(alert) => self.refused_here(alert, &error.reason),
                None => format!("the connection failed: {error}"),
            },
            ConnectionError::ApplicationClosed(close) if close.reason.is_empty() => {
                "the controller ended the session".into()
            }
            ConnectionError::ApplicationClosed(close) => {
                format!("the controller ended the session: {}", String::from_utf8_lossy(&close.reason))
            }
            ConnectionError::TimedOut => "the controller does not answer any more".into(),
            ConnectionError::Reset => "the controller was restarted".into(),
            ConnectionError::LocallyClosed => "this agent ended the session".into(),
            other => format!("the connection failed: {other}"),
        }
    }

    /// The same of the TLS around a connection over TCP.
    fn tls_sentence(&self, error: &io::Error) -> String {
        match error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::InvalidCertificate(reason)) => {
                self.refused_here(AlertDescription::from(reason.clone()), &reason.to_string())
            }
            Some(rustls::Error::AlertReceived(alert)) => self.refused_by_controller(*alert),
            Some(_) => "what answers by TCP is not a xene controller".into(),
            None => format!("the connection failed: {error}"),
        }
    }

    fn refused_by_controller(&self, alert: AlertDescription) -> String {
        let reason = match (alert, self) {
            (AlertDescription::CertificateExpired, Self::Session(until)) if *until < crate::clock::now().wall => {
                format!("it expired at {until}")
            }
            (AlertDescription::CertificateExpired, _) => {
                "it is expired or not valid yet by the controller's clock; compare the clocks of both machines".into()
            }
            (AlertDescription::UnknownCA | AlertDescription::DecryptError, _) => {
                "it comes from another controller, or from an authority that this one has replaced since".into()
            }
            (AlertDescription::NoApplicationProtocol, _) => {
                return "the controller speaks no version of the conversation that this agent knows: update one of them"
                    .into();
            }
            (other, _) => format!("{other:?}"),
        };
        format!(
            "the controller refused this agent's certificate: {reason}; to enrol anew, make a new join token with \
             `xene agents token create`"
        )
    }

    fn refused_here(&self, alert: AlertDescription, detail: &str) -> String {
        match (alert, self) {
            (AlertDescription::CertificateExpired, _) => format!(
                "the controller's certificate is not valid at {}, the time of this machine: check the clocks of both",
                crate::clock::now().wall
            ),
            (AlertDescription::UnknownCA | AlertDescription::DecryptError, Self::Join) => {
                "the join token was made by another controller than the one that answers: its CA has another \
                 fingerprint"
                    .into()
            }
            (AlertDescription::UnknownCA | AlertDescription::DecryptError, Self::Session(_)) => {
                "the controller that answers is not the one that this agent enrolled with: its certificate comes from \
                 another CA. If its CA was replaced while this agent was away, move the identity away and join anew"
                    .into()
            }
            (AlertDescription::BadCertificate, _) => "what answers is not a xene controller".into(),
            _ => format!("the handshake with the controller failed: {detail}"),
        }
    }
}

/// The TLS alert within a QUIC error code.
fn alert(code: quinn::TransportErrorCode) -> Option<AlertDescription> {
    let code = u64::from(code);
    (0x100..0x200).contains(&code).then(|| AlertDescription::from((code & 0xff) as u8))
}

#[cfg(test)]
mod tests {
    use quinn::crypto::rustls::QuicClientConfig;
    use rustls::{ClientConfig, RootCertStore};

    use super::*;
    use crate::session::tls::provider;

    fn configs() -> Configs {
        let config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let quic = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(config.clone()).unwrap()));
        Configs { quic, tunnel: Arc::new(config) }
    }

    async fn failure(controller: &str, transports: Transports) -> String {
        let configs = configs();
        let failure = dial(controller, transports, &configs, Duration::from_millis(100), &Why::Join).await;
        failure.unwrap_err().to_string()
    }

    #[tokio::test]
    async fn silence_is_told_from_a_wrong_name() {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = silent.local_addr().unwrap().to_string();
        for (transports, protocols) in
            [(Transports::Quic, "UDP"), (Transports::Tcp, "TCP"), (Transports::Auto, "UDP or TCP")]
        {
            assert_eq!(
                failure(&address, transports).await,
                format!("{address} does not answer: is the controller running there, and does {protocols} pass?")
            );
        }
        let unknown = failure("host.invalid:1", Transports::Auto).await;
        assert!(unknown.starts_with("host.invalid:1 has no address"), "{unknown}");
    }

    #[tokio::test]
    async fn an_address_that_refuses_keeps_no_other_from_being_tried_by_tcp() {
        let signed = rcgen::generate_simple_self_signed([SERVER_NAME.to_owned()]).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(signed.signing_key.serialize_der()).unwrap();
        let server = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![signed.cert.der().clone()], key)
            .unwrap();
        let server = quinn::crypto::rustls::QuicServerConfig::try_from(server).unwrap();
        let server = quinn::ServerConfig::with_crypto(Arc::new(server));
        let stranger = Endpoint::server(server, "127.0.0.1:0".parse().unwrap()).unwrap();
        let answers = tokio::spawn({
            let stranger = stranger.clone();
            async move {
                while let Some(incoming) = stranger.accept().await {
                    drop(incoming.await);
                }
            }
        });
        let listening = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addresses = [stranger.local_addr().unwrap(), listening.local_addr().unwrap()];
        let (configs, why, patience) = (configs(), Why::Join, Duration::from_secs(20));
        let dialing = dial_any("xene:1", addresses, Transports::Auto, &configs, patience, &why);
        tokio::select! {
            dialed = dialing => panic!("{:?}", dialed.map(|_| ())),
            taken = listening.accept() => drop(taken.unwrap()),
        }
        answers.abort();
    }
}
