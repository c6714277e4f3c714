//! The controller's own certificate authority, in the folder `pki/` of its data folder.
//!
//! It signs the controller's certificate, and short-lived ones of agents. Nobody else is trusted, and nobody is asked
//! to trust it but this controller's agents.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
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
    server::{NoClientAuth, NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
    time_provider::TimeProvider,
};
use tokio::sync::watch;
use xene_agent::session::tls::{self, SERVER_NAME, provider};
use xene_schemas::{
    meta::AgentName,
    wire::{ALPN, ALPN_JOIN, ALPN_TUNNEL},
};

use crate::decide::{CERTIFICATE_LIFE, event::Authority};

const CA: &str = "ca.pem";
const CA_KEY: &str = "ca-key.pem";
/// The authority before this one, while it is trusted, too. Its key is gone.
const OLD_CA: &str = "old-ca.pem";
/// The authority's certificate as the one before signed it: who trusts that one alone finds the way to this one by it.
const CROSS_CA: &str = "cross-ca.pem";
/// A new authority, whole: key, certificate, the one that the old authority signed, the old one. From the moment that it is
/// there it is the authority; the other files follow.
const NEXT: &str = "next.pem";
/// What sessions that are none any more are answered by: the same for as long as this folder, whatever certificates come.
const RESET_KEY: &str = "reset.key";
/// Key and chain in one file: they change together.
const SERVER: &str = "server.pem";

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const CA_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
const SERVER_LIFE: Duration = Duration::from_secs(4 * 365 * 24 * 60 * 60);

/// How long an agent's certificate is good for, unless a test says otherwise.
pub const AGENT_LIFE: Duration = CERTIFICATE_LIFE;

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
    /// There are two authorities already.
    #[error("the certificate authority is being replaced already: `xene status` shows who is waited for")]
    Rotating,
    /// There is one authority.
    #[error("no certificate authority is being replaced")]
    NotRotating,
    /// The TLS configuration can't be made.
    #[error("can't set up TLS: {0}")]
    Tls(String),
}

/// The authority.
#[derive(Debug)]
pub struct Pki {
    folder: PathBuf,
    agent_life: Duration,
    state: RwLock<State>,
    /// See [`RESET_KEY`].
    resets: [u8; 32],
    /// Counts up when TLS must be set up anew.
    changed: watch::Sender<u64>,
}

/// What is in the folder.
#[derive(Debug)]
struct State {
    issuer: Issuer<'static, KeyPair>,
    ca: CertificateDer<'static>,
    ca_pem: String,
    /// The one before, while it is trusted, too.
    old: Option<(CertificateDer<'static>, String)>,
    server: (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>),
}

/// TLS of the controller's end.
#[derive(Clone)]
#[expect(missing_debug_implementations, reason = "quinn's has none")]
pub struct ServerTls {
    /// Of sessions and enrolments, by whatever they are carried.
    pub quic: Arc<QuicServerConfig>,
    /// Around them, over TCP.
    pub tunnel: Arc<rustls::ServerConfig>,
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
        let state = RwLock::new(State::open(folder, now)?);
        let resets = reset_key(folder)?;
        Ok(Self { folder: folder.into(), agent_life, state, resets, changed: watch::Sender::new(0) })
    }

    /// SHA-256 of the CA's certificate, in hex: what join tokens carry.
    pub fn ca_fingerprint(&self) -> String {
        tls::fingerprint(&self.state().ca)
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
        let certificate = params.signed_by(&key, &self.state().issuer)?;
        Ok(Signed { chain: certificate.pem(), fingerprint: tls::fingerprint(certificate.der()) })
    }

    /// The certificates of the authorities that are trusted, PEM, newest first.
    pub fn roots(&self) -> String {
        let state = self.state();
        let old = state.old.as_ref().map_or("", |(_, pem)| pem);
        format!("{}{old}", state.ca_pem)
    }

    /// The authority, as the machine knows it.
    pub fn authority(&self) -> Authority {
        let state = self.state();
        // When it was made.
        let since = tls::facts(&state.ca).map_or(Timestamp::MAX, |facts| facts.not_before + BACKDATED);
        Authority {
            fingerprint: tls::fingerprint(&state.ca),
            before: state.old.as_ref().map(|(old, _)| (tls::fingerprint(old), since)),
        }
    }

    /// The fingerprint of the authority that signed this certificate, which the handshake has checked.
    pub fn authority_of(&self, certificate: &CertificateDer<'_>) -> String {
        let state = self.state();
        let old = state.old.iter().map(|(old, _)| old);
        let found = [&state.ca].into_iter().chain(old).find(|authority| tls::is_issued_by(certificate, authority));
        found.map(tls::fingerprint).unwrap_or_default()
    }

    /// Makes a new authority, which signs from now on; the old one stays trusted until [`Self::finish_rotation`]. What
    /// the controller shows leads to both. The old one's key is overwritten: it has signed its last.
    ///
    /// # Errors
    /// If a rotation is under way, or files can't be written.
    pub fn rotate(&self, now: Timestamp) -> Result<(), PkiError> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if state.old.is_some() {
            return Err(PkiError::Rotating);
        }
        let (key, params) = (KeyPair::generate()?, ca_params(now)?);
        let fresh = params.self_signed(&key)?.pem();
        let cross = params.signed_by(&key, &state.issuer)?.pem();
        let next = [key.serialize_pem(), fresh, cross, state.ca_pem.clone()].concat();
        let before = Before::read(&self.folder)?;
        let opened = write(&self.folder, NEXT, &next).and_then(|()| State::open(&self.folder, now));
        *state = opened.inspect_err(|_| {
            // Else whoever opens the folder next would finish what was told to have failed.
            if let Err(error) = before.put_back(&self.folder, &next) {
                tracing::error!(%error, "the new authority can't be given up: the next start of the controller goes on with it");
            }
        })?;
        drop(state);
        self.changed.send_modify(|changes| *changes += 1);
        Ok(())
    }

    /// Trusts the new authority alone from now on; nothing to do if no rotation is under way.
    ///
    /// # Errors
    /// If files can't be written.
    pub fn finish_rotation(&self, now: Timestamp) -> Result<(), PkiError> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if state.old.is_none() {
            return Ok(());
        }
        remove(&self.folder, OLD_CA)?;
        *state = State::open(&self.folder, now)?;
        drop(state);
        self.changed.send_modify(|changes| *changes += 1);
        Ok(())
    }

    /// Is heard of when TLS must be set up anew.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// TLS of the one port: 1.3 alone, this CA alone, no resumption (a resumed session would skip the check of
    /// certificates), no early data. An agent that enrols has no certificate yet, so the handshake does not insist on
    /// one: who takes the connection must look at its protocol (ALPN) and certificate. By `time` it is judged which
    /// certificates are valid.
    ///
    /// # Errors
    /// If the provider does not take the certificates.
    pub fn server_config(&self, time: &Arc<dyn TimeProvider>) -> Result<ServerTls, PkiError> {
        let tls_error = |error: &dyn std::error::Error| PkiError::Tls(error.to_string());
        let state = self.state();
        let mut roots = RootCertStore::empty();
        for authority in [&state.ca].into_iter().chain(state.old.iter().map(|(old, _)| old)) {
            roots.add(authority.clone()).map_err(|error| tls_error(&error))?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
            .allow_unauthenticated()
            .build()
            .map_err(|error| tls_error(&error))?;
        let (chain, key) = &state.server;
        let config = |verifier: Arc<dyn ClientCertVerifier>, alpn| {
            let mut config = rustls::ServerConfig::builder_with_details(provider(), Arc::clone(time))
                .with_protocol_versions(&[&rustls::version::TLS13])?
                .with_client_cert_verifier(verifier)
                .with_single_cert(chain.clone(), key.clone_key())?;
            config.alpn_protocols = alpn;
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
            config.max_early_data_size = 0;
            Ok::<_, rustls::Error>(config)
        };
        let session = config(verifier, vec![ALPN.to_vec(), ALPN_JOIN.to_vec()]).map_err(|error| tls_error(&error))?;
        // Who the agent is, the session within proves.
        let tunnel = config(Arc::new(NoClientAuth), vec![ALPN_TUNNEL.to_vec()]).map_err(|error| tls_error(&error))?;
        let quic = QuicServerConfig::try_from(session).map_err(|error| tls_error(&error))?;
        Ok(ServerTls { quic: Arc::new(quic), tunnel: Arc::new(tunnel) })
    }

    /// What the endpoint goes by beside TLS: a key for stateless resets that is the same after a restart. An agent whose
    /// session went with a controller that was killed is told so as soon as it sends anything, and need not wait in
    /// vain for answers.
    ///
    /// # Errors
    /// If the system gives no random bytes.
    pub fn endpoint_config(&self) -> Result<EndpointConfig, PkiError> {
        let mut config = EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &self.resets)));
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

impl State {
    /// Reads the folder, finishes what was begun there, and makes what is missing.
    fn open(folder: &Path, now: Timestamp) -> Result<Self, PkiError> {
        let damaged = |file, trouble| PkiError::Damaged { path: folder.join(file), trouble };
        if let Some(next) = read(folder, NEXT)? {
            follow(folder, &next).ok_or_else(|| damaged(NEXT, "not an authority"))??;
        }
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
        let old = match read(folder, OLD_CA)? {
            Some(pem) => {
                let old = tls::certificates(&pem).ok_or_else(|| damaged(OLD_CA, "not a certificate"))?.swap_remove(0);
                Some((old, pem))
            }
            None => None,
        };
        let issuer = Issuer::from_ca_cert_der(&ca, key)?;
        // The authorities are part of the chain, for agents that enrol: of theirs they know only the fingerprint.
        let cross = read(folder, CROSS_CA)?.unwrap_or_default();
        let authorities = [&*cross, &ca_pem, old.as_ref().map_or("", |(_, pem)| pem)].concat();
        let server = match read(folder, SERVER)?.and_then(|pem| usable_server(&pem, &authorities, now)) {
            Some(server) => server,
            None => {
                let pem = make_server(&issuer, &authorities, now)?;
                write(folder, SERVER, &pem)?;
                usable_server(&pem, &authorities, now).ok_or_else(|| damaged(SERVER, "not usable"))?
            }
        };
        Ok(Self { issuer, ca, ca_pem, old, server })
    }
}

/// The key of resets, from its file, or made anew. It opens nothing: whoever has it can end sessions.
fn reset_key(folder: &Path) -> Result<[u8; 32], PkiError> {
    let text = match read(folder, RESET_KEY)?.filter(|text| text.len() >= 64) {
        Some(text) => text,
        None => {
            let mut key = [0; 32];
            getrandom::fill(&mut key)?;
            let text = blake3::Hash::from(key).to_hex().to_string();
            write(folder, RESET_KEY, &text)?;
            text
        }
    };
    Ok(blake3::derive_key("xene 2026-11-27 stateless resets of QUIC", text.trim().as_bytes()))
}

/// Puts a new authority in the place of the old one, file by file; done again from the start if it breaks off. `None` if
/// that is none.
fn follow(folder: &Path, next: &str) -> Option<Result<(), PkiError>> {
    let blocks: Vec<&str> = next.split_inclusive("-----END CERTIFICATE-----\n").collect();
    let (first, [cross, old]) =
        blocks.split_first().and_then(|(first, rest)| Some((first, rest.first_chunk::<2>()?)))?;
    let (key, fresh) = first.split_at(first.find("-----BEGIN CERTIFICATE-----")?);
    KeyPair::from_pem(key).ok()?;
    let files = [(OLD_CA, *old), (CROSS_CA, *cross), (CA_KEY, key), (CA, fresh)];
    Some(files.iter().try_for_each(|(file, text)| write(folder, file, text)).and_then(|()| remove(folder, NEXT)))
}

/// The files that a new authority changes, as they were before.
struct Before([(&'static str, Option<String>); 4]);

impl Before {
    fn read(folder: &Path) -> Result<Self, PkiError> {
        let read = |file| Ok::<_, PkiError>((file, read(folder, file)?));
        Ok(Self([read(CA)?, read(CA_KEY)?, read(CROSS_CA)?, read(OLD_CA)?]))
    }

    /// Has them be so again. If it breaks off, the folder is that of an authority on its way, which is `next`.
    fn put_back(&self, folder: &Path, next: &str) -> Result<(), PkiError> {
        if self.0.iter().any(|(file, text)| read(folder, file).is_ok_and(|now| now != *text)) {
            write(folder, NEXT, next)?;
        }
        for (file, text) in &self.0 {
            match text {
                Some(text) if read(folder, file)?.as_ref() == Some(text) => {}
                Some(text) => write(folder, file, text)?,
                None => remove(folder, file)?,
            }
        }
        remove(folder, NEXT)
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

/// Removes a file durably, if it is there.
fn remove(folder: &Path, file: &str) -> Result<(), PkiError> {
    let path = folder.join(file);
    let gone = match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => fs::File::open(folder).and_then(|folder| folder.sync_all()),
    };
    gone.map_err(|source| PkiError::File { path, source })
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
    let pem = ca_params(now)?.self_signed(&key)?.pem();
    write(folder, CA_KEY, &key.serialize_pem())?;
    write(folder, CA, &pem)?;
    Ok((key, pem))
}

fn ca_params(now: Timestamp) -> Result<CertificateParams, PkiError> {
    // Told apart by name, so that a foreign certificate is refused as one.
    let mut id = [0; 4];
    getrandom::fill(&mut id)?;
    let mut params = params(&format!("xene CA {}", tls::hex(&id)), now, BACKDATED, CA_LIFE)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    Ok(params)
}

/// Makes the controller's key and chain.
fn make_server(issuer: &Issuer<'_, KeyPair>, authorities: &str, now: Timestamp) -> Result<String, PkiError> {
    let key = KeyPair::generate()?;
    let mut params = params(SERVER_NAME, now, BACKDATED, SERVER_LIFE)?;
    params.subject_alt_names = vec![SanType::DnsName(SERVER_NAME.try_into()?)];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = params.signed_by(&key, issuer)?;
    Ok([key.serialize_pem(), certificate.pem(), authorities.into()].concat())
}

/// Key and chain, if they can be read, lead to these authorities, and half their life is not over.
fn usable_server(
    pem: &str,
    authorities: &str,
    now: Timestamp,
) -> Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let chain = tls::certificates(pem)?;
    let ends_right = chain.get(1..) == tls::certificates(authorities).as_deref();
    if !ends_right || !tls::is_issued_by(&chain[0], &chain[1]) {
        return None;
    }
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
        assert_eq!(first.state().server.0, again.state().server.0);
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
        assert_ne!(first.state().server.0, later.state().server.0);
        assert_eq!(first.state().ca, later.state().ca);
        fs::write(folder.path().join(SERVER), "half a fi").unwrap();
        let repaired = Pki::open(folder.path(), now(), AGENT_LIFE).unwrap();
        assert_eq!(repaired.state().server.0.len(), 2);
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

    #[test]
    fn a_rotation_keeps_both_authorities_until_it_is_finished_over_restarts() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Pki::open(folder.path(), now(), AGENT_LIFE).unwrap();
        let pki = open();
        let key = KeyPair::generate().unwrap();
        let csr = request(&CertificateParams::default(), &key);
        let sign = |pki: &Pki| {
            let signed = pki.sign(&csr, &"a".parse().unwrap(), now()).unwrap();
            tls::certificates(&signed.chain).unwrap().swap_remove(0)
        };
        let (first, by_first) = (pki.authority(), sign(&pki));
        assert_eq!((&first.before, pki.authority_of(&by_first)), (&None, first.fingerprint.clone()));
        let old_key = fs::read_to_string(folder.path().join(CA_KEY)).unwrap();
        let resets = pki.resets;

        pki.rotate(now()).unwrap();
        assert!(matches!(pki.rotate(now()), Err(PkiError::Rotating)));
        let (second, by_second) = (pki.authority(), sign(&pki));
        let (before, since) = second.before.clone().unwrap();
        assert_eq!(before, first.fingerprint);
        assert!(now().duration_since(since).as_secs().abs() < 60, "{since}");
        assert_ne!(second.fingerprint, first.fingerprint);
        for pki in [&pki, &open()] {
            assert_eq!(pki.authority(), second);
            assert_eq!(pki.resets, resets);
            assert_eq!(pki.authority_of(&by_first), first.fingerprint);
            assert_eq!(pki.authority_of(&by_second), second.fingerprint);
            assert_eq!(tls::certificates(&pki.roots()).unwrap().len(), 2);
            // Its own, as the old one signed the new one, the new one, the old one.
            assert_eq!(pki.state().server.0.len(), 4);
        }
        let all: String = fs::read_dir(folder.path())
            .unwrap()
            .map(|file| fs::read_to_string(file.unwrap().path()).unwrap())
            .collect();
        assert!(!all.contains(old_key.trim()), "nobody can sign as the old one any more");

        pki.finish_rotation(now()).unwrap();
        pki.finish_rotation(now()).unwrap();
        for pki in [&pki, &open()] {
            assert_eq!(pki.authority(), Authority { before: None, ..second.clone() });
            assert_eq!(pki.authority_of(&by_first), "");
            assert_eq!(tls::certificates(&pki.roots()).unwrap().len(), 1);
            assert_eq!(pki.state().server.0.len(), 3);
        }
        pki.rotate(now()).unwrap();
        assert_eq!(pki.authority().before.unwrap().0, second.fingerprint);
    }

    #[test]
    fn a_rotation_that_broke_off_anywhere_goes_on() {
        let made = tempfile::tempdir().unwrap();
        let pki = Pki::open(made.path(), now(), AGENT_LIFE).unwrap();
        let text = |folder: &Path, file| fs::read_to_string(folder.join(file)).unwrap_or_default();
        let before = [CA, CA_KEY, SERVER].map(|file| (file, text(made.path(), file)));
        pki.rotate(now()).unwrap();
        let second = pki.authority();
        let after = [OLD_CA, CROSS_CA, CA_KEY, CA].map(|file| (file, text(made.path(), file)));
        let part = |n: usize| after[n].1.as_str();
        let next = [part(2), part(3), part(1), part(0)].concat();
        // So many files were written when it broke off.
        for done in 0..=after.len() {
            let folder = tempfile::tempdir().unwrap();
            for (file, text) in before.iter().chain(&after[..done]).chain([&(NEXT, next.clone())]) {
                fs::write(folder.path().join(file), text).unwrap();
            }
            let pki = Pki::open(folder.path(), now(), AGENT_LIFE).unwrap();
            assert_eq!(pki.authority(), second, "{done}");
            assert_eq!(pki.state().server.0.len(), 4, "{done}");
            assert!(!folder.path().join(NEXT).exists());
        }
        // Before: as if nothing had been.
        let folder = tempfile::tempdir().unwrap();
        before.iter().for_each(|(file, text)| fs::write(folder.path().join(file), text).unwrap());
        fs::write(folder.path().join("next.pem.new"), "half").unwrap();
        assert_eq!(Pki::open(folder.path(), now(), AGENT_LIFE).unwrap().authority().before, None);
    }

    #[test]
    fn a_rotation_that_fails_leaves_nothing_for_the_next_start_to_go_on_with() {
        for stuck in [NEXT, OLD_CA, CROSS_CA, CA_KEY, CA] {
            let folder = tempfile::tempdir().unwrap();
            let pki = Pki::open(folder.path(), now(), AGENT_LIFE).unwrap();
            let first = pki.authority();
            // Where the file would be written until it is whole.
            let in_the_way = folder.path().join(format!("{stuck}.new"));
            fs::create_dir_all(in_the_way.join("full")).unwrap();
            assert!(matches!(pki.rotate(now()), Err(PkiError::File { .. })), "{stuck}");
            assert_eq!(pki.authority(), first, "{stuck}");
            assert!(!folder.path().join(NEXT).exists(), "{stuck}");
            assert_eq!(Pki::open(folder.path(), now(), AGENT_LIFE).unwrap().authority(), first, "{stuck}");
            fs::remove_dir_all(in_the_way).unwrap();
            pki.rotate(now()).unwrap();
            assert_eq!(pki.authority().before.unwrap().0, first.fingerprint, "{stuck}");
        }
    }
}
