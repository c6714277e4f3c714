//! Join tokens: `xene-join.FINGERPRINT.ID.SECRET`.

use std::{fmt, str::FromStr};

use super::tls::hex;

/// What an operator gives to a new agent. Whoever has it may enrol, so it is shown once and never logged.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// SHA-256 of the CA's certificate, in hex: by this the agent knows the controller at first contact.
    pub fingerprint: String,
    /// Public: the controller finds the token by it.
    pub id: String,
    /// The secret, as text.
    pub secret: String,
}

/// A text that is not a join token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is not a join token: one looks like xene-join.FINGERPRINT.ID.SECRET, copied whole")]
pub struct TokenError;

impl JoinToken {
    /// A new token, with 256 random bits of secret.
    ///
    /// # Errors
    /// If the system gives no random bytes.
    pub fn generate(fingerprint: &str) -> Result<Self, getrandom::Error> {
        let (mut id, mut secret) = ([0; 8], [0; 32]);
        getrandom::fill(&mut id)?;
        getrandom::fill(&mut secret)?;
        Ok(Self { fingerprint: fingerprint.into(), id: hex(&id), secret: hex(&secret) })
    }

    /// What the controller keeps of it.
    pub fn secret_hash(&self) -> String {
        secret_hash(&self.secret)
    }
}

/// blake3 of a secret, in hex.
pub fn secret_hash(secret: &str) -> String {
    blake3::hash(secret.as_bytes()).to_hex().to_string()
}

impl FromStr for JoinToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let mut parts = text.trim().split('.');
        let (Some("xene-join"), Some(fingerprint), Some(id), Some(secret), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(TokenError);
        };
        let is_hex = |part: &str, length: usize| part.len() == length && part.bytes().all(|b| b.is_ascii_hexdigit());
        let is_word = |part: &str| (1..=128).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_alphanumeric());
        if !is_hex(fingerprint, 64) || !is_word(id) || !is_word(secret) {
            return Err(TokenError);
        }
        Ok(Self { fingerprint: fingerprint.to_ascii_lowercase(), id: id.into(), secret: secret.into() })
    }
}

/// The whole token, secret included.
impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "xene-join.{}.{}.{}", self.fingerprint, self.id, self.secret)
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken").field("id", &self.id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_back_and_hides_its_secret() {
        let token = JoinToken::generate(&"ab".repeat(32)).unwrap();
        assert_eq!(format!(" {token}\n").parse(), Ok(token.clone()));
        assert!(!format!("{token:?}").contains(&token.secret));
        assert_ne!(JoinToken::generate("").unwrap().secret, token.secret);
    }

    proptest! {
        #[test]
        fn refuses_what_is_cut_or_longer(cut in 0usize..140) {
            let whole = format!("xene-join.{}.{}.{}", "0".repeat(64), "1".repeat(16), "2".repeat(64));
            // A cut within the secret still looks like a token; its hash will not match.
            if cut < 92 {
                prop_assert_eq!(whole[..cut].parse::<JoinToken>(), Err(TokenError));
            }
            prop_assert_eq!(format!("{whole}.x").parse::<JoinToken>(), Err(TokenError));
        }
    }
}
