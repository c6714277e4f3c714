//! TLS pieces of both ends: the provider, fingerprints, and the name that an agent's certificate carries.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::Path,
    sync::{Arc, LazyLock},
};

use jiff::Timestamp;
use rustls::{
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, pem::PemObject},
};
use x509_parser::extensions::GeneralName;
use xene_schemas::meta::AgentName;

/// The name in the controller's certificate. Agents expect it at whatever host they dial: what they trust is the
/// controller's CA, not the name system.
pub const SERVER_NAME: &str = "xene-controller";

/// What precedes the agent's name in the certificate's URI. Names hold capitals and `_`, so they are no DNS names.
const AGENT_URI: &str = "xene://agent/";

/// The one cryptography provider; given to every TLS configuration explicitly.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(ring::default_provider()));
    PROVIDER.clone()
}

/// SHA-256 in lower-case hex: how certificates are named.
pub fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    // TLS 1.3's first suite brings the hash; no other crate is needed for it.
    let hash = match ring::cipher_suite::TLS13_AES_128_GCM_SHA256.tls13() {
        Some(suite) => suite.common.hash_provider.hash(certificate),
        None => return String::new(),
    };
    hex(hash.as_ref())
}

/// Bytes in lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|b| [DIGITS[usize::from(b >> 4)], DIGITS[usize::from(b & 15)]]).map(char::from).collect()
}

/// The URI by which a certificate names an agent.
pub fn agent_uri(name: &AgentName) -> String {
    format!("{AGENT_URI}{name}")
}

/// What a certificate says of its holder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The agent that it names; `None` if it names none, or more than one.
    pub agent: Option<AgentName>,
    /// It is not valid before.
    pub not_before: Timestamp,
    /// It is not valid after.
    pub not_after: Timestamp,
}

/// Reads a certificate; `None` if these bytes are none.
pub fn facts(certificate: &CertificateDer<'_>) -> Option<Facts> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let mut names = Vec::new();
    if let Ok(Some(extension)) = parsed.subject_alternative_name() {
        names.extend(extension.value.general_names.iter());
    }
    let agent = match names[..] {
        [GeneralName::URI(uri)] => uri.strip_prefix(AGENT_URI).and_then(|name| name.parse().ok()),
        _ => None,
    };
    let validity = parsed.validity();
    Some(Facts {
        agent,
        not_before: Timestamp::from_second(validity.not_before.timestamp()).ok()?,
        not_after: Timestamp::from_second(validity.not_after.timestamp()).ok()?,
    })
}

/// True if the certificate is for this public key, as bytes of its bit string.
pub fn is_for_key(certificate: &CertificateDer<'_>, public_key: &[u8]) -> bool {
    let parsed = x509_parser::parse_x509_certificate(certificate);
    parsed.is_ok_and(|(_, parsed)| *parsed.public_key().subject_public_key.data == *public_key)
}

/// True if `issuer` may have signed the certificate, by its name: whoever trusts it has checked the signature.
pub fn is_issued_by(certificate: &CertificateDer<'_>, issuer: &CertificateDer<'_>) -> bool {
    let parsed = (x509_parser::parse_x509_certificate(certificate), x509_parser::parse_x509_certificate(issuer));
    matches!(parsed, (Ok((_, certificate)), Ok((_, issuer))) if certificate.issuer() == issuer.subject())
}

/// The certificates of a PEM text, in order; `None` if there are none, or one can't be read.
pub fn certificates(pem: &str) -> Option<Vec<CertificateDer<'static>>> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().ok()?;
    (!chain.is_empty()).then_some(chain)
}

/// Makes a folder that only its owner can enter, or makes an existing one so.
///
/// # Errors
/// Those of the file system.
pub fn private_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))
}

/// Writes a file whole or not at all, durably: a new file takes the place of the old one. Only its owner can read it.
///
/// # Errors
/// Those of the file system; the old file then stands.
pub fn write_private(folder: &Path, name: &str, contents: &str) -> io::Result<()> {
    let fresh = folder.join(format!("{name}.new"));
    // Left by a crash: its mode is not to be trusted.
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
    file.write_all(contents.as_bytes())?;
    file.sync_all()?;
    fs::rename(&fresh, folder.join(name))?;
    File::open(folder)?.sync_all()
}
