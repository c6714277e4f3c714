//! Reaches a controller, and says in a sentence why not.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use quinn::{ConnectError, Connection, ConnectionError, Endpoint, EndpointConfig, TokioRuntime};
use rustls::AlertDescription;
use tokio::task::JoinSet;

use super::{tls::SERVER_NAME, transport};

/// How much later the next address is tried, if the one before has not answered.
const HEAD_START: Duration = Duration::from_millis(250);

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
    #[error("{0} does not answer: is the controller running there, and does UDP pass?")]
    Silent(String),
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
}

/// Resolves `controller` (`HOST:PORT`) and dials each of its addresses, the later ones with a delay; the first that
/// answers is taken. The name is resolved anew at each call.
pub(super) async fn dial(
    controller: &str,
    config: quinn::ClientConfig,
    patience: Duration,
    why: &Why,
) -> Result<Dialed, DialError> {
    let addresses = tokio::net::lookup_host(controller)
        .await
        .map_err(|source| DialError::Resolve { controller: controller.into(), source })?;
    let mut attempts = JoinSet::new();
    let mut delay = Duration::ZERO;
    for address in addresses {
        let config = config.clone();
        attempts.spawn(async move {
            tokio::time::sleep(delay).await;
            dial_address(address, config).await
        });
        delay += HEAD_START;
    }
    let mut failure = DialError::Silent(controller.into());
    let dialing = async {
        while let Some(attempt) = attempts.join_next().await {
            match attempt {
                Ok(Ok(Ok(dialed))) => return Some(dialed),
                Ok(Ok(Err(ConnectionError::TimedOut))) | Err(_) => {}
                Ok(Ok(Err(error))) => failure = DialError::Refused(why.sentence(&error)),
                Ok(Err(error)) => failure = error,
            }
        }
        None
    };
    let dialed = tokio::time::timeout(patience, dialing).await.ok().flatten();
    dialed.ok_or(failure)
}

async fn dial_address(
    address: SocketAddr,
    config: quinn::ClientConfig,
) -> Result<Result<Dialed, ConnectionError>, DialError> {
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = transport::udp_socket(any)?;
    let endpoint = Endpoint::new(EndpointConfig::default(), None, socket, Arc::new(TokioRuntime))?;
    let connecting = endpoint.connect_with(config, address, SERVER_NAME)?;
    Ok(connecting.await.map(|connection| Dialed { endpoint, connection }))
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

    fn refused_by_controller(&self, alert: AlertDescription) -> String {
        let reason = match (alert, self) {
            (AlertDescription::CertificateExpired, Self::Session(until)) if *until < crate::clock::now().wall => {
                format!("it expired at {until}")
            }
            (AlertDescription::CertificateExpired, _) => {
                "it is expired or not valid yet by the controller's clock; compare the clocks of both machines".into()
            }
            (AlertDescription::UnknownCA | AlertDescription::DecryptError, _) => {
                "it comes from another controller".into()
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
                 another CA"
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

    async fn failure(controller: &str) -> String {
        let config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).unwrap()));
        dial(controller, config, Duration::from_millis(100), &Why::Join).await.unwrap_err().to_string()
    }

    #[tokio::test]
    async fn silence_is_told_from_a_wrong_name() {
        let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = silent.local_addr().unwrap().to_string();
        assert_eq!(
            failure(&address).await,
            format!("{address} does not answer: is the controller running there, and does UDP pass?")
        );
        let unknown = failure("host.invalid:1").await;
        assert!(unknown.starts_with("host.invalid:1 has no address"), "{unknown}");
    }
}
