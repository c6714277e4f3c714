//! TLS of the HTTP server: a certificate that is read anew when its files change.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

/// Why a certificate can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("{} holds no {what} in PEM", path.display())]
    Pem {
        /// Which.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
    },
    /// Certificate and key do not belong together, or are of a kind that is not supported.
    #[error("certificate and key can't be used together: {0}")]
    Rustls(#[from] rustls::Error),
}

/// A server's TLS with this chain and key (PEM). When the files change, connections from then on get the new pair; a pair
/// that can't be used leaves the old one in place.
///
/// # Errors
/// If the files can't be used now.
pub fn config(chain: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let files = Files { chain: chain.into(), key: key.into() };
    let current = Current { changed: files.changed(), pair: files.load()? };
    let resolver = Resolver { files, current: Mutex::new(current) };
    let mut config = ServerConfig::builder_with_provider(xene_agent::session::tls::provider())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

#[derive(Debug)]
struct Resolver {
    files: Files,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    changed: [Option<SystemTime>; 2],
    pair: Arc<CertifiedKey>,
}

#[derive(Debug)]
struct Files {
    chain: PathBuf,
    key: PathBuf,
}

impl Files {
    /// When the files last changed: two looks at the file system for each handshake, which costs far more.
    fn changed(&self) -> [Option<SystemTime>; 2] {
        [&self.chain, &self.key].map(|path| fs::metadata(path).and_then(|m| m.modified()).ok())
    }

    fn load(&self) -> Result<Arc<CertifiedKey>, TlsError> {
        let read = |path: &Path| fs::read(path).map_err(|source| TlsError::File { path: path.into(), source });
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&read(&self.chain)?)
            .collect::<Result<_, _>>()
            .map_err(|_| TlsError::Pem { path: self.chain.clone(), what: "certificate" })?;
        if chain.is_empty() {
            return Err(TlsError::Pem { path: self.chain.clone(), what: "certificate" });
        }
        let key = PrivateKeyDer::from_pem_slice(&read(&self.key)?)
            .map_err(|_| TlsError::Pem { path: self.key.clone(), what: "private key" })?;
        Ok(Arc::new(CertifiedKey::from_der(chain, key, &xene_agent::session::tls::provider())?))
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let changed = self.files.changed();
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if changed != current.changed {
            current.changed = changed;
            match self.files.load() {
                Ok(pair) => current.pair = pair,
                Err(error) => tracing::warn!(%error, "the new certificate can't be used; the old one stays"),
            }
        }
        Some(current.pair.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write_pair(folder: &Path, name: &str) -> (PathBuf, PathBuf) {
        let pair = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let (chain, key) = (folder.join("chain.pem"), folder.join("key.pem"));
        fs::write(&chain, pair.cert.pem()).unwrap();
        fs::write(&key, pair.signing_key.serialize_pem()).unwrap();
        (chain, key)
    }

    #[test]
    fn a_changed_pair_is_taken_and_a_broken_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let (chain, key) = write_pair(folder.path(), "one.example");
        let files = Files { chain: chain.clone(), key };
        let first = files.load().unwrap();
        write_pair(folder.path(), "two.example");
        assert_ne!(files.load().unwrap().cert, first.cert);
        fs::write(&chain, "no certificate").unwrap();
        let error = files.load().unwrap_err().to_string();
        assert!(error.contains("chain.pem") && error.contains("certificate"), "{error}");
        assert!(config(&chain, &files.key).is_err());
    }
}
