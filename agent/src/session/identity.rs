//! Who this agent is: a key that never leaves its folder, a certificate of the controller's CA, and enrolment.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use quinn::{ConnectionError, crypto::rustls::QuicClientConfig};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use rustls::{
    CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime},
};
use tokio::sync::watch;
use xene_schemas::{
    meta::{AgentName, Labels},
    wire::{
        ALPN, ALPN_JOIN, ALPN_TUNNEL, MAX_JOIN_FRAME, Message,
        join::{Join, JoinMessage},
    },
};

use super::{
    dial::{Configs, DialError, Transports, Why, dial},
    frames::{FrameError, FrameReader},
    tls::{self, Facts, provider},
    token::JoinToken,
    transport::{self, End, Liveness, codes},
};

const KEY: &str = "key.pem";
const CERTIFICATE: &str = "cert.pem";
const CA: &str = "ca.pem";
const CONTROLLER: &str = "controller";

/// How long the controller has to answer a Join: it commits to its disk meanwhile.
const JOIN_PATIENCE: Duration = Duration::from_secs(15);

/// How long each further try of an enrolment that broke off waits: a controller that died takes a moment to come back.
const TRIES: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)];

/// Why an identity can't be had.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file of the identity can't be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A file of the identity is not what it should be.
    #[error("{} is {trouble}; move the folder away and enrol anew", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        trouble: &'static str,
    },
    /// There is an identity already.
    #[error("{} holds the identity of agent {name}; to enrol anew, move it away first", folder.display())]
    Exists {
        /// The folder.
        folder: PathBuf,
        /// Whose.
        name: AgentName,
    },
    /// The controller can't be reached, or is not the token's.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The controller said no; a sentence says why.
    #[error("the controller refused to enrol this agent: {0}")]
    Refused(String),
    /// The controller takes no enrolment from here now; a sentence says why.
    #[error("enrolment broke off: {0}")]
    Busy(String),
    /// The connection broke off before there was an answer. Asked again with what is in the folder, it gives the same one.
    #[error("enrolment broke off: {0}; try again, also with the same token")]
    Broken(String),
    /// What the controller sent as a certificate is none for this agent.
    #[error("the certificate from the controller can't be used: {0}")]
    Certificate(&'static str),
    /// The cryptography provider fails.
    #[error("can't make a key: {0}")]
    Key(#[from] rcgen::Error),
    /// The TLS configuration can't be made.
    #[error("can't set up TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// This agent's certificate as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certified {
    /// Leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The name in it.
    pub name: AgentName,
    /// What it says of its holder.
    pub facts: Facts,
    /// The controller's authorities, newest first; at least one.
    pub roots: Vec<CertificateDer<'static>>,
}

impl Certified {
    /// False once the controller has a newer authority than the one that signed it.
    pub fn is_of_newest(&self) -> bool {
        self.roots.first().is_some_and(|newest| tls::is_issued_by(&self.chain[0], newest))
    }
}

/// Who this agent is.
#[derive(Debug)]
pub struct Identity {
    folder: PathBuf,
    key: KeyPair,
    controller: String,
    certified: watch::Sender<Arc<Certified>>,
}

impl Identity {
    /// Reads the identity in `folder`; `None` if there is none yet.
    ///
    /// # Errors
    /// If a file of it can't be read, or is damaged.
    pub fn load(folder: &Path) -> Result<Option<Self>, IdentityError> {
        // Written last, so an enrolment that broke off left no identity.
        let Some(chain) = read(folder, CERTIFICATE)? else { return Ok(None) };
        let damaged = |file, trouble| IdentityError::Damaged { path: folder.join(file), trouble };
        let text = |file| read(folder, file)?.ok_or_else(|| damaged(file, "missing"));
        let key = KeyPair::from_pem(&text(KEY)?).map_err(|_| damaged(KEY, "not a private key"))?;
        let roots = tls::certificates(&text(CA)?).ok_or_else(|| damaged(CA, "not a certificate"))?;
        let controller = text(CONTROLLER)?.trim().to_owned();
        let certified = certified(&chain, &key, roots).map_err(|trouble| damaged(CERTIFICATE, trouble))?;
        let certified = watch::Sender::new(Arc::new(certified));
        Ok(Some(Self { folder: folder.into(), key, controller, certified }))
    }

    /// Spends a join token on a certificate, and keeps the identity in `folder`. `controller` is `HOST:PORT`, and by what
    /// it is reached. If that breaks off anywhere, the next call goes on with the same key, and the controller answers it
    /// again though the token is spent.
    ///
    /// # Errors
    /// If there is an identity already that has not expired, the controller can't be reached or is not the token's, or it refuses.
    pub async fn enrol(
        (controller, transports): (&str, Transports),
        token: &JoinToken,
        name: AgentName,
        labels: Labels,
        folder: &Path,
    ) -> Result<Self, IdentityError> {
        if let Some(identity) = Self::load(folder)? {
            if identity.certified.borrow().facts.not_after > crate::clock::now().wall {
                return Err(IdentityError::Exists { folder: folder.into(), name: identity.name() });
            }
            // Of no use any more. The certificate goes first: beside another's key it would be a damaged identity.
            for file in [CERTIFICATE, KEY] {
                let path = folder.join(file);
                fs::remove_file(&path).map_err(|source| IdentityError::File { path, source })?;
            }
        }
        let write = |file: &str, contents: &str| {
            let path = folder.join(file);
            tls::write_private(folder, file, contents).map_err(|source| IdentityError::File { path, source })
        };
        tls::private_folder(folder).map_err(|source| IdentityError::File { path: folder.into(), source })?;
        // Before the token is spent: a folder that can't be written must not cost one, and whoever asks again is known by
        // the key.
        let key = match read(folder, KEY)?.and_then(|pem| KeyPair::from_pem(&pem).ok()) {
            Some(key) => key,
            None => {
                let key = KeyPair::generate()?;
                write(KEY, &key.serialize_pem())?;
                key
            }
        };
        write(CONTROLLER, controller)?;
        let join =
            Join { id: token.id.clone(), secret: token.secret.clone(), name, labels, csr: certificate_request(&key)? };
        let (chain, ca) = ask_until_answered((controller, transports), token, &join).await?;
        let roots = tls::certificates(&ca).ok_or(IdentityError::Certificate("its CA is not a certificate"))?;
        let known = roots.iter().any(|root| tls::fingerprint(root) == token.fingerprint);
        certified(&chain, &key, roots).map_err(IdentityError::Certificate)?;
        if !known {
            return Err(IdentityError::Certificate("its CA is not the token's"));
        }
        write(CA, &ca)?;
        write(CERTIFICATE, &chain)?;
        Self::load(folder)?.ok_or(IdentityError::Certificate("it is gone"))
    }

    /// The name in the certificate.
    pub fn name(&self) -> AgentName {
        self.certified.borrow().name.clone()
    }

    /// Where it enrolled, `HOST:PORT`.
    pub fn controller(&self) -> &str {
        &self.controller
    }

    /// The certificate as it stands now; changes are seen.
    pub fn certified(&self) -> watch::Receiver<Arc<Certified>> {
        self.certified.subscribe()
    }

    /// A request (PKCS #10, PEM) for a new certificate for the same key.
    ///
    /// # Errors
    /// If the cryptography provider fails.
    pub fn certificate_request(&self) -> Result<String, IdentityError> {
        Ok(certificate_request(&self.key)?)
    }

    /// Keeps a renewed chain (PEM, leaf first), durably; connections from now on use it.
    ///
    /// # Errors
    /// If it is not for this agent's key and name, or can't be written; the old one then stays.
    pub fn install(&self, chain: &str) -> Result<(), IdentityError> {
        let roots = self.certified.borrow().roots.clone();
        let fresh = certified(chain, &self.key, roots).map_err(IdentityError::Certificate)?;
        if fresh.name != self.name() {
            return Err(IdentityError::Certificate("it names another agent"));
        }
        let path = self.folder.join(CERTIFICATE);
        tls::write_private(&self.folder, CERTIFICATE, chain).map_err(|source| IdentityError::File { path, source })?;
        self.certified.send_replace(Arc::new(fresh));
        Ok(())
    }

    /// Trusts these authorities (PEM, newest first) and no others from now on, durably.
    ///
    /// # Errors
    /// If they are none, or can't be written; what was trusted then stays so.
    pub fn install_roots(&self, pem: &str) -> Result<(), IdentityError> {
        let trouble = IdentityError::Certificate("the authorities are not certificates");
        let Some(roots) = tls::certificates(pem) else { return Err(trouble) };
        trusting(&roots).map_err(|_| trouble)?;
        if self.certified.borrow().roots == roots {
            return Ok(());
        }
        let path = self.folder.join(CA);
        tls::write_private(&self.folder, CA, pem).map_err(|source| IdentityError::File { path, source })?;
        tracing::info!(authorities = roots.len(), "the controller's certificate authorities changed");
        self.certified
            .send_modify(|certified| *certified = Arc::new(Certified { roots, ..Certified::clone(certified) }));
        Ok(())
    }

    /// How to dial with this identity.
    pub(super) fn configs(&self, liveness: Liveness) -> Result<Configs, IdentityError> {
        let certified = self.certified.borrow().clone();
        let (roots, chain) = (trusting(&certified.roots)?, certified.chain.clone());
        let key = PrivateKeyDer::Pkcs8(self.key.serialize_der().into());
        let config = rustls::ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)?;
        configs(config, ALPN, liveness)
    }
}

fn read(folder: &Path, file: &str) -> Result<Option<String>, IdentityError> {
    let path = folder.join(file);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(IdentityError::File { path, source }),
    }
}

fn certificate_request(key: &KeyPair) -> Result<String, rcgen::Error> {
    let mut params = CertificateParams::default();
    // The controller decides on names; a request has none.
    params.distinguished_name = DistinguishedName::new();
    params.serialize_request(key)?.pem()
}

fn trusting(authorities: &[CertificateDer<'static>]) -> Result<RootCertStore, rustls::Error> {
    let mut roots = RootCertStore::empty();
    authorities.iter().try_for_each(|authority| roots.add(authority.clone()))?;
    Ok(roots)
}

fn certified(chain: &str, key: &KeyPair, roots: Vec<CertificateDer<'static>>) -> Result<Certified, &'static str> {
    let chain = tls::certificates(chain).ok_or("not a chain of certificates")?;
    let facts = tls::facts(&chain[0]).ok_or("not a certificate")?;
    let name = facts.agent.clone().ok_or("a certificate that names no agent")?;
    if !tls::is_for_key(&chain[0], key.public_key_raw()) {
        return Err("a certificate for another key");
    }
    Ok(Certified { chain, name, facts, roots })
}

fn configs(mut config: rustls::ClientConfig, alpn: &[u8], liveness: Liveness) -> Result<Configs, IdentityError> {
    // A resumed session would skip the check of certificates.
    config.resumption = Resumption::disabled();
    let mut tunnel = config.clone();
    tunnel.alpn_protocols = vec![ALPN_TUNNEL.to_vec()];
    config.alpn_protocols = vec![alpn.to_vec()];
    let crypto = QuicClientConfig::try_from(config).map_err(|_| rustls::Error::General("no initial suite".into()))?;
    let mut quic = quinn::ClientConfig::new(Arc::new(crypto));
    quic.transport_config(transport::transport(End::Agent, liveness));
    Ok(Configs { quic, tunnel: Arc::new(tunnel) })
}

/// Asks again where the answer was lost: the token may be spent by then.
async fn ask_until_answered(
    controller: (&str, Transports),
    token: &JoinToken,
    join: &Join,
) -> Result<(String, String), IdentityError> {
    let (mut tries, mut broke_off) = (TRIES.into_iter(), false);
    loop {
        let asked = ask_to_join(controller, token, join.clone()).await;
        broke_off |= matches!(asked, Err(IdentityError::Broken(_)));
        match (asked, tries.next()) {
            (Err(error @ (IdentityError::Broken(_) | IdentityError::Dial(_))), Some(wait)) if broke_off => {
                tracing::warn!(%error, "the controller is asked again");
                tokio::time::sleep(wait).await;
            }
            (asked, _) => return asked,
        }
    }
}

async fn ask_to_join(
    (controller, transports): (&str, Transports),
    token: &JoinToken,
    join: Join,
) -> Result<(String, String), IdentityError> {
    let config = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(TokenVerifier { fingerprint: token.fingerprint.clone() }))
        .with_no_client_auth();
    let configs = configs(config, ALPN_JOIN, Liveness::default())?;
    let dialed = dial(controller, transports, &configs, JOIN_PATIENCE, &Why::Join).await?;
    let connection = &dialed.connection;
    let ended = |error: &ConnectionError| match error {
        ConnectionError::ApplicationClosed(close) if close.error_code == codes::BUSY => {
            IdentityError::Busy(Why::Join.sentence(error))
        }
        error => IdentityError::Broken(Why::Join.sentence(error)),
    };
    let exchange = async {
        let (mut send, recv) = connection.open_bi().await.map_err(|error| ended(&error))?;
        let mut frame = Vec::new();
        JoinMessage::Join(join).encode(&mut frame);
        let broken = |error: FrameError| match connection.close_reason() {
            Some(reason) => ended(&reason),
            None => IdentityError::Broken(error.to_string()),
        };
        // If the controller closed before it read all, its reason is what counts.
        if send.write_all(&frame).await.is_ok() {
            let _ = send.finish();
        }
        FrameReader::new(recv, MAX_JOIN_FRAME).next::<JoinMessage>().await.map_err(broken)
    };
    let answer = match tokio::time::timeout(JOIN_PATIENCE, exchange).await {
        Ok(answer) => answer?,
        Err(_) => return Err(IdentityError::Broken("the controller does not answer".into())),
    };
    connection.close(codes::DONE, b"");
    let _ = tokio::time::timeout(Duration::from_secs(1), dialed.endpoint.wait_idle()).await;
    match answer {
        Some(JoinMessage::Joined(joined)) => Ok((joined.chain, joined.ca)),
        Some(JoinMessage::JoinRefused(refused)) => Err(IdentityError::Refused(refused.message)),
        Some(JoinMessage::Join(_)) | None => Err(IdentityError::Broken("the controller gave no answer".into())),
    }
}

/// Trusts the CA whose fingerprint the token carries, and nothing else.
#[derive(Debug)]
struct TokenVerifier {
    fingerprint: String,
}

impl ServerCertVerifier for TokenVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let ca = intermediates
            .iter()
            .find(|certificate| tls::fingerprint(certificate) == self.fingerprint)
            .ok_or(CertificateError::UnknownIssuer)?;
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &provider().signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
