//! HTTP to other servers: whom it trusts, and what it never does.

use std::{fs, io, net::IpAddr, path::Path, time::Duration};

use ureq::{
    Agent,
    tls::{PemItem, RootCerts, TlsConfig, parse_pem},
};

/// Until a connection stands.
const CONNECT: Duration = Duration::from_secs(5);
/// What it calls itself.
pub const USER_AGENT: &str = concat!("xene/", env!("CARGO_PKG_VERSION"));

/// Nobody can be trusted.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The file can't be read.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: String,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// There is nothing in the file.
    #[error("{0} holds no certificate in PEM form")]
    Empty(String),
}

/// Trusts the certificates of a PEM file, and no others.
///
/// # Errors
/// If it has none, or can't be read.
pub fn trust(ca: &Path) -> Result<TlsConfig, TrustError> {
    // Another part of the process may have installed it already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let path = ca.display().to_string();
    let pem = fs::read(ca).map_err(|source| TrustError::File { path: path.clone(), source })?;
    let certificates = parse_pem(&pem).filter_map(|item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        Ok(_) | Err(_) => None,
    });
    let certificates: Vec<_> = certificates.collect();
    if certificates.is_empty() {
        return Err(TrustError::Empty(path));
    }
    Ok(TlsConfig::builder().root_certs(RootCerts::from(certificates)).build())
}

/// True for a host that is this machine for sure, as a URL has it.
pub fn is_local(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// Calls that end within `within`, follow no redirect and go through no proxy of the environment; every status is an
/// answer.
pub fn agent(trust: Option<TlsConfig>, within: Duration) -> Agent {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(None)
        .user_agent(USER_AGENT)
        .max_idle_connections(0)
        .timeout_connect(Some(CONNECT))
        .timeout_resolve(Some(CONNECT))
        .timeout_global(Some(within));
    match trust {
        Some(trust) => config.tls_config(trust).build().into(),
        None => config.build().into(),
    }
}
