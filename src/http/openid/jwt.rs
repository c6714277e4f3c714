//! ID tokens: signatures (RFC 7515) by a provider's keys (RFC 7517, RFC 7518, RFC 8037), and what must be so of their
//! claims (OpenID Connect Core 1.0, 3.1.3.7).

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512,
    RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value};

/// So much may two clocks differ, in seconds.
const LEEWAY: f64 = 60.0;

/// Why a token proves nothing.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Invalid {
    #[error("it is no signed token")]
    Malformed,
    #[error("it is signed by {0:?}, which is not accepted")]
    Algorithm(String),
    #[error("none of the provider's keys fits it")]
    NoKey,
    #[error("its signature is wrong")]
    Signature,
    #[error("it is by {0:?}")]
    Issuer(String),
    #[error("it is for somebody else")]
    Audience,
    #[error("it has expired, or the clocks differ")]
    Expired,
    #[error("it is not valid yet, or the clocks differ")]
    Early,
    #[error("it belongs to another sign-in")]
    Nonce,
}

/// A provider's keys; those of a kind that is not known fit nothing.
#[derive(Debug, Deserialize)]
pub(super) struct KeySet {
    keys: Vec<Value>,
}

#[derive(Debug, Deserialize)]
struct Key {
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    alg: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    /// Extensions that whoever takes the token must understand; none are.
    crit: Option<Value>,
}

/// What a token says.
#[derive(Debug, Deserialize)]
pub(super) struct Claims {
    iss: String,
    /// Who it is, for good, with this provider.
    pub(super) sub: String,
    aud: OneOrMany,
    exp: f64,
    nbf: Option<f64>,
    azp: Option<String>,
    nonce: Option<String>,
    #[serde(flatten)]
    pub(super) rest: Map<String, Value>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

/// What must be so of a token.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected<'a> {
    pub(super) issuer: &'a str,
    pub(super) client: &'a str,
    pub(super) nonce: &'a str,
    pub(super) now: Timestamp,
}

enum Algorithm {
    Rsa(&'static RsaParameters),
    Curve { kty: &'static str, crv: &'static str, by: &'static dyn VerificationAlgorithm },
}

/// Neither `none` nor a shared secret: only what nobody but the provider can make.
fn algorithm(name: &str) -> Option<Algorithm> {
    Some(match name {
        "RS256" => Algorithm::Rsa(&RSA_PKCS1_2048_8192_SHA256),
        "RS384" => Algorithm::Rsa(&RSA_PKCS1_2048_8192_SHA384),
        "RS512" => Algorithm::Rsa(&RSA_PKCS1_2048_8192_SHA512),
        "PS256" => Algorithm::Rsa(&RSA_PSS_2048_8192_SHA256),
        "PS384" => Algorithm::Rsa(&RSA_PSS_2048_8192_SHA384),
        "PS512" => Algorithm::Rsa(&RSA_PSS_2048_8192_SHA512),
        "ES256" => Algorithm::Curve { kty: "EC", crv: "P-256", by: &ECDSA_P256_SHA256_FIXED },
        "ES384" => Algorithm::Curve { kty: "EC", crv: "P-384", by: &ECDSA_P384_SHA384_FIXED },
        "EdDSA" => Algorithm::Curve { kty: "OKP", crv: "Ed25519", by: &ED25519 },
        _ => return None,
    })
}

impl Key {
    fn fits(&self, header: &Header, algorithm: &Algorithm) -> bool {
        let is_kind = match algorithm {
            Algorithm::Rsa(_) => self.kty == "RSA",
            Algorithm::Curve { kty, crv, .. } => self.kty == *kty && self.crv.as_deref() == Some(crv),
        };
        is_kind
            && self.purpose.as_deref().is_none_or(|purpose| purpose == "sig")
            && self.alg.as_ref().is_none_or(|alg| *alg == header.alg)
            && header.kid.as_ref().is_none_or(|kid| self.kid.as_ref() == Some(kid))
    }

    fn verifies(&self, algorithm: &Algorithm, signed: &[u8], signature: &[u8]) -> Option<()> {
        let part = |text: &Option<String>| decode(text.as_deref()?);
        match algorithm {
            Algorithm::Rsa(parameters) => {
                let key = RsaPublicKeyComponents { n: part(&self.n)?, e: part(&self.e)? };
                key.verify(parameters, signed, signature).ok()
            }
            Algorithm::Curve { kty, by, .. } => {
                // A point, uncompressed; of Ed25519 the encoded one.
                let key =
                    if *kty == "EC" { [vec![4], part(&self.x)?, part(&self.y)?].concat() } else { part(&self.x)? };
                UnparsedPublicKey::new(*by, key).verify(signed, signature).ok()
            }
        }
    }
}

fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

fn object<T: DeserializeOwned>(text: &str) -> Result<T, Invalid> {
    decode(text).and_then(|bytes| serde_json::from_slice(&bytes).ok()).ok_or(Invalid::Malformed)
}

/// The claims of a token that one of these keys signed.
///
/// # Errors
/// If none did.
pub(super) fn verified(token: &str, keys: &KeySet) -> Result<Claims, Invalid> {
    let (signed, signature) = token.rsplit_once('.').ok_or(Invalid::Malformed)?;
    let (header, claims) = signed.split_once('.').ok_or(Invalid::Malformed)?;
    let header: Header = object(header)?;
    if header.crit.is_some() {
        return Err(Invalid::Malformed);
    }
    let algorithm = algorithm(&header.alg).ok_or_else(|| Invalid::Algorithm(header.alg.clone()))?;
    let signature = decode(signature).ok_or(Invalid::Malformed)?;
    let keys = keys.keys.iter().filter_map(|key| Key::deserialize(key).ok());
    let fitting: Vec<_> = keys.filter(|key| key.fits(&header, &algorithm)).collect();
    if fitting.is_empty() {
        return Err(Invalid::NoKey);
    }
    let is_signed = fitting.iter().any(|key| key.verifies(&algorithm, signed.as_bytes(), &signature).is_some());
    if is_signed { object(claims) } else { Err(Invalid::Signature) }
}

impl Claims {
    /// Checks what must be so.
    ///
    /// # Errors
    /// If it is not.
    pub(super) fn check(&self, expected: Expected<'_>) -> Result<(), Invalid> {
        if self.iss != expected.issuer {
            return Err(Invalid::Issuer(self.iss.clone()));
        }
        let is_for_us = match &self.aud {
            OneOrMany::One(one) => one == expected.client,
            OneOrMany::Many(many) => {
                many.iter().any(|one| one == expected.client) && (many.len() == 1 || self.azp.is_some())
            }
        };
        if !is_for_us || self.azp.as_ref().is_some_and(|azp| azp != expected.client) {
            return Err(Invalid::Audience);
        }
        let now = expected.now.as_duration().as_secs_f64();
        if now - LEEWAY >= self.exp {
            return Err(Invalid::Expired);
        }
        if self.nbf.is_some_and(|nbf| now + LEEWAY < nbf) {
            return Err(Invalid::Early);
        }
        // No secret of the token's: whoever has the token has its nonce.
        if self.nonce.as_deref() == Some(expected.nonce) { Ok(()) } else { Err(Invalid::Nonce) }
    }
}

#[cfg(test)]
mod tests;
