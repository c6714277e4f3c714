//! Sign-in by OpenID Connect: authorization code with PKCE (OpenID Connect Core 1.0, RFC 6749, RFC 7636, RFC 9207), and
//! which role a person's groups give.

mod jwt;
mod provider;

use std::{fmt, path::PathBuf};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::digest;
use tokio::sync::Semaphore;
use xene_schemas::access::Role;

use self::provider::Provider;
use super::identity::{Identity, Scope};
use crate::outgoing::TrustError;

/// Where a browser comes back to.
pub(super) const CALLBACK: &str = "/sign-in/openid/callback";
/// So many sign-ins ask the provider at a time; more wait.
const AT_A_TIME: usize = 4;
/// A group of this name is everybody whom the provider knows.
pub const EVERYBODY: &str = "*";
/// Longer names are not kept.
const LONGEST_NAME: usize = 200;

/// What an operator sets.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The provider, as it calls itself: its URL.
    pub issuer: String,
    /// What it calls this controller.
    pub client: String,
    /// The file with what proves to it that this is the controller; `None` for a public client.
    pub secret: Option<PathBuf>,
    /// Where browsers find this controller, without a path: `https://xene.example`.
    pub public_url: String,
    /// Asked for beside `openid`.
    pub scopes: Vec<String>,
    /// The claim that a person is named by.
    pub name_claim: String,
    /// The claim that lists a person's groups.
    pub groups_claim: String,
    /// Which role a group gives; the highest counts.
    pub roles: Vec<(String, Role)>,
    /// Whose certificates the provider's is checked against.
    pub ca: Option<PathBuf>,
}

/// Why somebody is not signed in.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenIdError {
    /// The provider can't be asked, or answers something odd: nothing that the person could mend.
    #[error("{what}: {cause}")]
    Provider { what: String, cause: String },
    /// This browser did not begin the sign-in that ends here.
    #[error("this sign-in was begun elsewhere, or too long ago")]
    Elsewhere,
    /// The provider did not sign them in; its word for why.
    #[error("the provider refused: {0}")]
    Refused(String),
    /// The provider knows them, and they may do nothing here.
    #[error("{0} is in no group that may sign in")]
    NoRole(String),
    /// What proves to the provider that this is the controller can't be read.
    #[error("{0} can't be read: {1}")]
    Secret(String, std::io::Error),
}

/// What a browser keeps between leaving for the provider and coming back, and what is derived of it: only that browser
/// can finish what it began, and nothing needs to be kept here.
pub(super) struct Attempt(String);

impl Attempt {
    pub(super) fn new(secret: &str) -> Self {
        Self(secret.to_owned())
    }

    fn derive(&self, what: &str) -> String {
        blake3::Hash::from(blake3::derive_key(what, self.0.as_bytes())).to_hex().to_string()
    }

    /// Comes back with the browser.
    pub(super) fn state(&self) -> String {
        self.derive("xene 2026-11-27 openid state")
    }

    /// Comes back inside the token.
    fn nonce(&self) -> String {
        self.derive("xene 2026-11-27 openid nonce")
    }

    /// Shown to the provider with the code: 64 characters, of those that RFC 7636 allows.
    fn verifier(&self) -> String {
        self.derive("xene 2026-11-27 openid verifier")
    }

    /// What the provider gets of the verifier beforehand.
    fn challenge(&self) -> String {
        URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, self.verifier().as_bytes()))
    }
}

/// One provider, ready to be asked.
pub struct OpenId {
    provider: Provider,
    asking: Semaphore,
}

impl fmt::Debug for OpenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenId").field("issuer", &self.provider.settings().issuer).finish_non_exhaustive()
    }
}

impl OpenId {
    /// Asks nobody yet.
    ///
    /// # Errors
    /// If the certificates to trust can't be read.
    pub fn new(settings: Settings) -> Result<Self, TrustError> {
        Ok(Self { provider: Provider::new(settings)?, asking: Semaphore::new(AT_A_TIME) })
    }

    /// The provider's name for people: its host.
    pub(super) fn name(&self) -> &str {
        let rest = self.provider.settings().issuer.split_once("://").map_or("", |(_, rest)| rest);
        rest.split('/').next().unwrap_or_default()
    }

    /// Where a sign-in begins: at the address that the provider leads back to, for which its cookie must be.
    pub(super) fn begins_at(&self, next: &str) -> String {
        format!("{}/sign-in/openid?next={next}", self.provider.settings().public_url)
    }

    /// True if this is the provider that an answer says it is from.
    pub(super) fn is_issuer(&self, issuer: &str) -> bool {
        self.provider.settings().issuer == issuer
    }

    /// Where to send the browser.
    ///
    /// # Errors
    /// If the provider can't be asked where.
    pub(super) async fn address(&self, attempt: &Attempt) -> Result<String, OpenIdError> {
        let (state, nonce, challenge) = (attempt.state(), attempt.nonce(), attempt.challenge());
        self.blocking(move |provider| provider.address(&state, &nonce, &challenge)).await
    }

    /// Who came back with this code.
    ///
    /// # Errors
    /// If the provider does not say, or they may not sign in.
    pub(super) async fn identify(&self, code: String, attempt: &Attempt) -> Result<Identity, OpenIdError> {
        let (nonce, verifier) = (attempt.nonce(), attempt.verifier());
        let person = self.blocking(move |provider| provider.person(&code, &verifier, &nonce)).await?;
        // No token has a name with a colon, and nobody else's name begins so.
        let name: String = person.name.chars().filter(|c| !c.is_control()).take(LONGEST_NAME).collect();
        let name = format!("oidc:{name}");
        let settings = self.provider.settings();
        match role(&settings.roles, &person.groups) {
            Some(role) => Ok(Identity { name, role, scope: Scope::All, token: None }),
            None => Err(OpenIdError::NoRole(name)),
        }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Provider) -> Result<T, OpenIdError> + Send + 'static,
    ) -> Result<T, OpenIdError> {
        let failed = |cause: String| OpenIdError::Provider { what: "the provider was not asked".to_owned(), cause };
        let _permit = self.asking.acquire().await.map_err(|error| failed(error.to_string()))?;
        let provider = self.provider.clone();
        tokio::task::spawn_blocking(move || ask(&provider)).await.map_err(|error| failed(error.to_string()))?
    }
}

/// The highest role that these groups give.
fn role(roles: &[(String, Role)], groups: &[String]) -> Option<Role> {
    let gives = |(group, role): &(String, Role)| (group == EVERYBODY || groups.contains(group)).then_some(*role);
    roles.iter().filter_map(gives).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_role_of_all_groups_counts() {
        let roles = [("dev".to_owned(), Role::Operator), ("ops".to_owned(), Role::Admin)];
        let of = |groups: &[&str]| role(&roles, &groups.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(of(&["dev", "ops"]), Some(Role::Admin));
        assert_eq!(of(&["ops", "dev"]), Some(Role::Admin));
        assert_eq!(of(&["dev", "x"]), Some(Role::Operator));
        assert_eq!(of(&["developers", "*"]), None, "a group of that name is not everybody");
        assert_eq!(role(&[(EVERYBODY.to_owned(), Role::Viewer)], &[]), Some(Role::Viewer));
    }

    #[test]
    fn what_is_derived_tells_nothing_of_the_rest() {
        let attempt = Attempt::new("secret");
        let all = [attempt.state(), attempt.nonce(), attempt.verifier(), attempt.challenge()];
        assert!(all.iter().enumerate().all(|(n, one)| !all[..n].contains(one) && one != "secret"));
        assert_ne!(Attempt::new("other").state(), attempt.state());
        // The example of RFC 7636, appendix B.
        let challenge = digest::digest(&digest::SHA256, b"dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
        assert_eq!(URL_SAFE_NO_PAD.encode(challenge), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    }
}
