//! What is wrong with a server's certificate, in words.

use jiff::Timestamp;
use rustls::{CertificateError, pki_types::UnixTime};

use crate::cli::time::exact;

/// What is wrong, to follow "the certificate of …", and what to do about it.
pub(super) fn fault(error: &ureq::Error) -> Option<(String, &'static str)> {
    let error = match error {
        ureq::Error::Rustls(error) => error,
        // Of the handshake, which is done with the first bytes.
        ureq::Error::Io(error) => error.get_ref()?.downcast_ref()?,
        _ => return None,
    };
    match error {
        rustls::Error::InvalidCertificate(error) => Some(told(error)),
        _ => None,
    }
}

fn told(error: &CertificateError) -> (String, &'static str) {
    const RENEW: &str = "give the controller a new one with --tls-cert and --tls-key; it reads them anew by itself";
    const CLOCK: &str = "is this machine's clock right?";
    const NAMES: &str = "use a name in --server that it is for, or make one that is for this name";
    const AUTHORITY: &str = "name who signed it, or itself if nobody else did, with --ca FILE";
    const SIGNED: &str = "is --ca of this controller, and of now?";
    const NOT_CA: &str = "make it with `-addext basicConstraints=critical,CA:FALSE`, as `openssl req -x509` does not";
    const VERSION: &str = "make it with an extension, such as `-addext subjectAltName=DNS:NAME`";
    const LOOK: &str = "`openssl x509 -noout -text -in FILE` shows what it holds";
    match error {
        CertificateError::Expired => ("has expired".into(), RENEW),
        CertificateError::ExpiredContext { not_after, .. } => (format!("has expired{}", at(*not_after)), RENEW),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            ("is not valid yet".into(), CLOCK)
        }
        CertificateError::NotValidForName => ("is for another name".into(), NAMES),
        CertificateError::NotValidForNameContext { presented, .. } if presented.is_empty() => {
            ("is for no name at all".into(), NAMES)
        }
        CertificateError::NotValidForNameContext { presented, .. } => {
            // As rustls has them: `DnsName("xene.example")`.
            let names: Vec<_> = presented.iter().map(|name| name.split('"').nth(1).unwrap_or(name)).collect();
            (format!("is for another name: {}", names.join(", ")), NAMES)
        }
        CertificateError::UnknownIssuer => ("is of nobody who is trusted here".into(), AUTHORITY),
        CertificateError::BadSignature => ("is not signed by who is trusted under that name".into(), SIGNED),
        CertificateError::Revoked => ("was revoked".into(), RENEW),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            ("is not one for servers".into(), LOOK)
        }
        // What else there is has a name only.
        other => {
            let name = match other {
                CertificateError::Other(other) => other.to_string(),
                other => format!("{other:?}"),
            };
            match name.as_str() {
                "CaUsedAsEndEntity" => ("is that of an authority, which no server may show".into(), NOT_CA),
                "UnsupportedCertVersion" => ("is of version 1, and 3 is needed".into(), VERSION),
                name => (format!("can't be used: {}", words(name)), LOOK),
            }
        }
    }
}

fn at(time: UnixTime) -> String {
    let time = i64::try_from(time.as_secs()).ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    time.map(|time| format!(" at {}", exact(time))).unwrap_or_default()
}

/// `BadEncoding` as `bad encoding`, without what may follow.
fn words(name: &str) -> String {
    let mut words = String::new();
    for letter in name.chars().take_while(char::is_ascii_alphanumeric) {
        if letter.is_ascii_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.push(letter.to_ascii_lowercase());
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_is_a_sentence() {
        let year_2020 = UnixTime::since_unix_epoch(std::time::Duration::from_secs(1_577_836_800));
        for (error, expected) in [
            (
                CertificateError::ExpiredContext { time: UnixTime::now(), not_after: year_2020 },
                "has expired at 2020-01-01",
            ),
            (CertificateError::NotValidYet, "is not valid yet"),
            (
                CertificateError::NotValidForNameContext {
                    expected: "a".try_into().unwrap(),
                    presented: vec!["DnsName(\"xene.example\")".into(), "IpAddress(10.0.0.1)".into()],
                },
                "is for another name: xene.example, IpAddress(10.0.0.1)",
            ),
            (CertificateError::UnknownIssuer, "is of nobody"),
            (CertificateError::BadEncoding, "can't be used: bad encoding"),
            (
                CertificateError::UnsupportedSignatureAlgorithmContext {
                    signature_algorithm_id: vec![],
                    supported_algorithms: vec![],
                },
                "can't be used: unsupported signature algorithm context",
            ),
        ] {
            let (told, hint) = told(&error);
            assert!(told.starts_with(expected), "{error:?}: {told}");
            assert!(!hint.is_empty());
        }
    }
}
