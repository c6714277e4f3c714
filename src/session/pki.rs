//! The controller's own certificate authority, in the folder `pki/` of its data folder.
//!
//! It signs the controller's certificate, and short-lived ones of agents. Nobody else is trusted, and nobody is asked
//! to trust it but this controller's agents.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use quinn::{ConnectionId, ConnectionIdGenerator, EndpointConfig, crypto::rustls::QuicServerConfig};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKey, PublicKeyData, SanType, SerialNumber,
};
use ring::hmac;
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{NoServerSessionStorage, WebPkiClientVerifier},
};
use xene_agent::session::tls::{self, SERVER_NAME, provider};
use xene_schemas::{
    meta::AgentName,
    wire::{ALPN, ALPN_JOIN},
};

const CA: &str = "ca.pem";
const CA_KEY: &str = "ca-key.pem";
/// Key and chain in one file: they change together.
const SERVER: &str = "server.pem";

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const CA_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
const SERVER_LIFE: Duration = Duration::from_secs(4 * 365 * 24 * 60 * 60);

/// How long an agent's certificate is good for, unless a test says otherwise.
pub const AGENT_LIFE: Duration = DAY;

/// Certificates begin this much before they are made, for agents whose clocks are behind.
const BACKDATED: Duration = DAY;

/// Of agents' certificates, which only the clock that signs them checks: a controller whose clock is set back a
/// little still lets in what it signed.
const AGENT_BACKDATED: Duration = Duration::from_secs(60 * 60);

/// The least time between two answers to sessions that are none any more: ten thousand agents are told within seconds.
const RESETS: Duration = Duration::from_millis(1);
/// How many bytes a connection's id has.
const CONNECTION_ID: usize = 8;

/// Why the authority can't do it.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file can't be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error(
        "{} is {trouble}; restore the folder from a backup: without its CA no agent can be recognised",
        path.display()
    )]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        trouble: &'static str,
    },
    /// What an agent sent is not a request that can be signed.
    #[error("the certificate request can't be signed: {0}")]
    Request(String),
    /// The cryptography provider fails.
    #[error("can't make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// The system gives no random bytes.
    #[error("no random bytes: {0}")]
    Random(#[from] getrandom::Error),
    /// The TLS configuration can't be made.
    #[error("can't set up TLS: {0}")]
    Tls(String),
}

/// The authority.
#[derive(Debug)]
pub struct Pki {
    issuer: Issuer<'static, KeyPair>,
    ca: CertificateDer<'static>,
    ca_pem: String,
    server: (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>),
    agent_life: Duration,
}

/// A certificate for an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// PEM, leaf first.
    pub chain: String,
    /// SHA-256 of the leaf, in hex.
    pub fingerprint: String,
}

impl Pki {
    /// True if there is an authority in `folder`.
    pub fn exists(folder: &Path) -> bool {
        folder.join(CA).exists()
    }

    /// Opens the authority in `folder`, or makes it. The controller's own certificate is made anew once half its life
    /// is over. Agents' certificates will be good for `agent_life`.
    ///
    /// # Errors
    /// If a file can't be read or written, or is damaged.
    pub fn open(folder: &Path, now: Timestamp, agent_life: Duration) -> Result<Self, PkiError> {
        tls::private_folder(folder).map_err(|source| PkiError::File { path: folder.into(), source })?;
        let damaged = |file, trouble| PkiError::Damaged { path: folder.join(file), trouble };
        let (key, ca_pem) = match read(folder, CA)? {
            Some(pem) => {
                let key = read(folder, CA_KEY)?.ok_or_else(|| damaged(CA_KEY, "missing"))?;
                (KeyPair::from_pem(&key).map_err(|_| damaged(CA_KEY, "not a private key"))?, pem)
            }
            None => make_ca(folder, now)?,
        };
        let ca = tls::certificates(&ca_pem).ok_or_else(|| damaged(CA, "not a certificate"))?.swap_remove(0);
        if !tls::is_for_key(&ca, key.public_key_raw()) {
            return Err(damaged(CA_KEY, "not the key of ca.pem"));
        }
        let issuer = Issuer::from_ca_cert_der(&ca, key)?;
        let server = match read(folder, SERVER)?.and_then(|pem| usable_server(&pem, now)) {
            Some(server) => server,
            None => {
                let pem = make_server(&issuer, &ca_pem, now)?;
                write(folder, SERVER, &pem)?;
                usable_server(&pem, now).ok_or_else(|| damaged(SERVER, "not usable"))?
            }
        };
        Ok(Self { issuer, ca, ca_pem, server, agent_life })
    }

    /// SHA-256 of the CA's certificate, in hex: what join tokens carry.
    pub fn ca_fingerprint(&self) -> String {
        tls::fingerprint(&self.ca)
    }

    /// The CA's certificate, PEM.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// Signs a certificate for this agent. Of the request (PKCS #10, PEM) only the public key counts, once its
    /// signature has proved that the agent holds the private one; the names in it are ignored.
    ///
    /// # Errors
    /// If the request is malformed, not signed by its key, or of a kind of key that is not in use here.
    pub fn sign(&self, csr: &str, agent: &AgentName, now: Timestamp) -> Result<Signed, PkiError> {
        let key = public_key(csr)?;
        let mut params = params(agent.as_str(), now, AGENT_BACKDATED, self.agent_life)?;
        let uri = tls::agent_uri(agent).try_into()?;
        params.subject_alt_names = vec![SanType::URI(uri)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Signed { chain: certificate.pem(), fingerprint: tls::fingerprint(certificate.der()) })
    }

    /// TLS of the one endpoint: 1.3 alone, this CA alone, no resumption (a resumed session would skip the check of
    /// certificates), no early data. An agent that enrols has no certificate yet, so the handshake does not insist on
    /// one: who takes the connection must look at its protocol (ALPN) and certificate.
    ///
    /// # Errors
    /// If the provider does not take the certificates.
    pub fn server_config(&self) -> Result<QuicServerConfig, PkiError> {
        let tls_error = |error: &dyn std::error::Error| PkiError::Tls(error.to_string());
        let mut roots = RootCertStore::empty();
        roots.add(self.ca.clone()).map_err(|error| tls_error(&error))?;
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
            .allow_unauthenticated()
            .build()
            .map_err(|error| tls_error(&error))?;
        let (chain, key) = &self.server;
        let mut config = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| tls_error(&error))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(|error| tls_error(&error))?;
        config.alpn_protocols = vec![ALPN.to_vec(), ALPN_JOIN.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        QuicServerConfig::try_from(config).map_err(|error| tls_error(&error))
    }

    /// What the endpoint goes by beside TLS: a key for stateless resets that is the same after a restart. An agent whose
    /// session went with a controller that was killed is told so as soon as it sends anything, and need not wait in
    /// vain for answers.
    ///
    /// # Errors
    /// If the system gives no random bytes.
    pub fn endpoint_config(&self) -> Result<EndpointConfig, PkiError> {
        let resets = blake3::derive_key("xene 2026-11-27 stateless resets of QUIC", self.server.1.secret_der());
        let mut config = EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &resets)));
        let mut key = [0; 32];
        getrandom::fill(&mut key)?;
        config.cid_generator(move || Box::new(ConnectionIds { key, given: 0 }));
        config.min_reset_interval(RESETS);
        Ok(config)
    }
}

/// Ids without a mark of the process that gave them: quinn's own are answered by nobody after a restart.
#[derive(Debug)]
struct ConnectionIds {
    key: [u8; 32],
    given: u64,
}

impl ConnectionIdGenerator for ConnectionIds {
    fn generate_cid(&mut self) -> ConnectionId {
        self.given += 1;
        let hash = blake3::keyed_hash(&self.key, &self.given.to_le_bytes());
        ConnectionId::new(&hash.as_bytes()[..CONNECTION_ID])
    }

    fn cid_len(&self) -> usize {
        CONNECTION_ID
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// The public key of a request, which its holder has signed with the private one.
///
/// # Errors
/// If the request is malformed, not signed by its key, or of a kind of key that is not in use here.
pub fn public_key(csr: &str) -> Result<PublicKey, PkiError> {
    let request =
        CertificateSigningRequestParams::from_pem(csr).map_err(|error| PkiError::Request(error.to_string()))?;
    let key = request.public_key;
    // An uncompressed point of P-256.
    if key.algorithm() != &PKCS_ECDSA_P256_SHA256 || key.der_bytes().len() != 65 {
        return Err(PkiError::Request("its key is not ECDSA P-256".into()));
    }
    Ok(key)
}

fn read(folder: &Path, file: &str) -> Result<Option<String>, PkiError> {
    let path = folder.join(file);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(PkiError::File { path, source }),
    }
}

fn write(folder: &Path, file: &str, contents: &str) -> Result<(), PkiError> {
    let path = folder.join(file);
    tls::write_private(folder, file, contents).map_err(|source| PkiError::File { path, source })
}

/// Parameters common to all certificates here.
fn params(name: &str, now: Timestamp, backdated: Duration, life: Duration) -> Result<CertificateParams, PkiError> {
    let mut serial = [0; 16];
    getrandom::fill(&mut serial)?;
    // A serial number is positive.
    serial[0] &= 0x7f;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.use_authority_key_identifier_extension = true;
    let time = |at: Result<Timestamp, jiff::Error>| {
        // rcgen speaks the `time` crate's language; only its civil dates are in reach without another dependency.
        let second = at.map_or(i64::MAX, Timestamp::as_second);
        rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(second.clamp(0, LAST_SECOND).unsigned_abs())
    };
    params.not_before = time(now.checked_sub(backdated));
    params.not_after = time(now.checked_add(life));
    Ok(params)
}

/// The end of the year 4095: enough for any certificate, and within what X.509 can say.
const LAST_SECOND: i64 = 67_090_000_000;

/// Makes the CA. The key is written first: a key without a certificate has signed nothing, and is made anew.
fn make_ca(folder: &Path, now: Timestamp) -> Result<(KeyPair, String), PkiError> {
    let key = KeyPair::generate()?;
    // Told apart by name, so that a foreign certificate is refused as one.
    let mut id = [0; 4];
    getrandom::fill(&mut id)?;
    let mut params = params(&format!("xene CA {}", tls::hex(&id)), now, BACKDATED, CA_LIFE)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let pem = params.self_signed(&key)?.pem();
    write(folder, CA_KEY, &key.serialize_pem())?;
    write(folder, CA, &pem)?;
    Ok((key, pem))
}

/// Makes the controller's key and chain. The CA's certificate is part of the chain, for agents that enrol: of it they
/// know only the fingerprint.
fn make_server(issuer: &Issuer<'_, KeyPair>, ca_pem: &str, now: Timestamp) -> Result<String, PkiError> {
    let key = KeyPair::generate()?;
    let mut params = params(SERVER_NAME, now, BACKDATED, SERVER_LIFE)?;
    params.subject_alt_names = vec![SanType::DnsName(SERVER_NAME.try_into()?)];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = params.signed_by(&key, issuer)?;
    Ok([key.serialize_pem(), certificate.pem(), ca_pem.into()].concat())
}

/// Key and chain, if they can be read and half their life is not over.
fn usable_server(pem: &str, now: Timestamp) -> Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let chain = tls::certificates(pem)?;
    let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).ok()?;
    let facts = tls::facts(&chain[0])?;
    let half = facts.not_before + facts.not_after.duration_since(facts.not_before) / 2;
    (facts.not_before <= now && now < half).then_some((chain, key))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use jiff::ToSpan;

    use super::*;

    fn now() -> Timestamp {
        xene_agent::clock::now().wall
    }

    fn request(params: &CertificateParams, key: &KeyPair) -> String {
        params.serialize_request(key).unwrap().pem().unwrap()
    }

    #[test]
    fn reopens_as_the_same_authority_and_keeps_its_keys_to_itself() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("pki");
        let first = Pki::open(&folder, now(), AGENT_LIFE).unwrap();
        let again = Pki::open(&folder, now(), AGENT_LIFE).unwrap();
        assert_eq!(first.ca_fingerprint(), again.ca_fingerprint());
        assert_eq!(first.server.0, again.server.0);
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
        for file in [CA_KEY, SERVER] {
            assert_eq!(fs::metadata(folder.join(file)).unwrap().permissions().mode() & 0o777, 0o600, "{file}");
        }
    }

    #[test]
    fn renews_its_own_certificate_at_half_its_life_and_repairs_it() {
        let folder = tempfile::tempdir().unwrap();
        let first = Pki::open(folder.path(), now(), AGENT_LIFE).unwrap();
        let later = Pki::open(folder.path(), now() + 30_000.hours(), AGENT_LIFE).unwrap();
        assert_ne!(first.server.0, later.server.0);
        assert_eq!(first.ca, later.ca);
        fs::write(folder.path().join(SERVER), "half a fi").unwrap();
        let repaired = Pki::open(folder.path(), now(), AGENT_LIFE).unwrap();
        assert_eq!(repaired.server.0.len(), 2);
    }

    #[test]
    fn never_replaces_a_damaged_authority() {
        let folder = tempfile::tempdir().unwrap();
        Pki::open(folder.path(), now(), AGENT_LIFE).unwrap();
        let key = fs::read_to_string(folder.path().join(CA_KEY)).unwrap();
        let other = KeyPair::generate().unwrap().serialize_pem();
        for (damage, trouble) in [(None, "missing"), (Some("x"), "not a private key"), (Some(&*other), "not the key")] {
            match damage {
                None => fs::remove_file(folder.path().join(CA_KEY)).unwrap(),
                Some(text) => fs::write(folder.path().join(CA_KEY), text).unwrap(),
            }
            let error = Pki::open(folder.path(), now(), AGENT_LIFE).unwrap_err().to_string();
            assert!(error.contains(trouble), "{error}");
        }
        fs::write(folder.path().join(CA_KEY), key).unwrap();
        Pki::open(folder.path(), now(), AGENT_LIFE).unwrap();
    }

    #[test]
    fn ignores_all_names_and_powers_of_a_request() {
        let folder = tempfile::tempdir().unwrap();
        let pki = Pki::open(folder.path(), now(), AGENT_LIFE).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut rogue = CertificateParams::new([SERVER_NAME.to_owned()]).unwrap();
        rogue.distinguished_name.push(DnType::CommonName, "other");
        rogue.subject_alt_names.push(SanType::URI("xene://agent/other".try_into().unwrap()));
        rogue.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        rogue.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let signed = pki.sign(&request(&rogue, &key), &"mine_1".parse().unwrap(), now()).unwrap();
        let leaf = tls::certificates(&signed.chain).unwrap().swap_remove(0);
        assert_eq!(tls::facts(&leaf).unwrap().agent, Some("mine_1".parse().unwrap()));
        assert_eq!(signed.fingerprint, tls::fingerprint(&leaf));
        let (_, parsed) = x509_parser::parse_x509_certificate(&leaf).unwrap();
        assert!(!parsed.is_ca());
        let usage = parsed.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.client_auth && !usage.server_auth);
        let text = format!("{} {:?}", parsed.subject(), parsed.subject_alternative_name());
        assert!(!text.contains("other") && !text.contains(SERVER_NAME), "{text}");
    }

    #[test]
    fn certificates_live_as_long_as_asked_and_no_two_are_alike() {
        let folder = tempfile::tempdir().unwrap();
        let pki = Pki::open(folder.path(), now(), Duration::from_secs(90)).unwrap();
        let csr = request(&CertificateParams::default(), &KeyPair::generate().unwrap());
        let (name, at) = ("a".parse().unwrap(), Timestamp::from_second(1_800_000_000).unwrap());
        let signed = pki.sign(&csr, &name, at).unwrap();
        let facts = tls::facts(&tls::certificates(&signed.chain).unwrap()[0]).unwrap();
        assert_eq!((facts.not_before, facts.not_after), (at - 1.hour(), at + 90.seconds()));
        assert_ne!(pki.sign(&csr, &name, at).unwrap().fingerprint, signed.fingerprint);
    }

    #[test]
    fn refuses_what_does_not_prove_possession_of_its_key() {
        let folder = tempfile::tempdir().unwrap();
        let pki = Pki::open(folder.path(), now(), AGENT_LIFE).unwrap();
        let name = "a".parse().unwrap();
        let good = CertificateParams::default().serialize_request(&KeyPair::generate().unwrap()).unwrap();
        let mut forged = good.der().to_vec();
        *forged.last_mut().unwrap() ^= 1;
        assert!(CertificateSigningRequestParams::from_der(&forged.into()).is_err());
        let wrong_kind = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        for csr in ["", "-----BEGIN CERTIFICATE REQUEST-----", &request(&CertificateParams::default(), &wrong_kind)] {
            assert!(matches!(pki.sign(csr, &name, now()), Err(PkiError::Request(_))), "{csr}");
        }
        pki.sign(&good.pem().unwrap(), &name, now()).unwrap();
    }
}
