//! What a provider is asked: where it is asked (OpenID Connect Discovery 1.0), for a token, its keys, and who somebody is.

use std::{
    fs,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use ureq::{
    Agent, Body,
    http::{Response, header},
};
use xene_agent::{clock, decide::time::BootTime};

use super::{
    CALLBACK, OpenIdError, Settings,
    jwt::{Claims, Expected, KeySet, verified},
};
use crate::{
    outgoing::{self, TrustError},
    percent,
};

/// A call that takes longer has failed.
const WITHIN: Duration = Duration::from_secs(10);
/// A provider that says more than this, in bytes, is none.
const LARGEST: u64 = 1 << 20;
/// Where the provider is asked is asked again after this.
const KNOWN_FOR: Duration = Duration::from_secs(10 * 60);

/// A provider, and how it is reached. Cheap to clone.
#[derive(Clone)]
pub(super) struct Provider(Arc<Inner>);

struct Inner {
    settings: Settings,
    agent: Agent,
    known: Mutex<Option<(BootTime, Arc<Discovery>)>>,
}

/// Whom the provider knows.
pub(super) struct Person {
    pub(super) name: String,
    pub(super) groups: Vec<String>,
}

/// What it says of itself.
#[derive(Debug, Deserialize)]
struct Discovery {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    jwks_uri: String,
    userinfo_endpoint: Option<String>,
    /// Absent: `client_secret_basic`.
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
struct Tokens {
    id_token: String,
    access_token: Option<String>,
}

#[derive(Deserialize)]
struct UserInfo {
    sub: String,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

impl Provider {
    pub(super) fn new(settings: Settings) -> Result<Self, TrustError> {
        let trust = settings.ca.as_deref().map(outgoing::trust).transpose()?;
        let agent = outgoing::agent(trust, WITHIN);
        Ok(Self(Arc::new(Inner { settings, agent, known: Mutex::default() })))
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// Where a browser asks for a code.
    pub(super) fn address(&self, state: &str, nonce: &str, challenge: &str) -> Result<String, OpenIdError> {
        let discovery = self.discovery()?;
        let settings = self.settings();
        let scopes = ["openid"].into_iter().chain(settings.scopes.iter().map(String::as_str));
        let query = percent::pairs(&[
            ("response_type", "code"),
            ("client_id", &settings.client),
            ("redirect_uri", &self.callback()),
            ("scope", &scopes.collect::<Vec<_>>().join(" ")),
            ("state", state),
            ("nonce", nonce),
            ("code_challenge", challenge),
            ("code_challenge_method", "S256"),
        ]);
        let separator = if discovery.authorization_endpoint.contains('?') { '&' } else { '?' };
        Ok(format!("{}{separator}{query}", discovery.authorization_endpoint))
    }

    /// Who has this code.
    pub(super) fn person(&self, code: &str, verifier: &str, nonce: &str) -> Result<Person, OpenIdError> {
        let discovery = self.discovery()?;
        let tokens = self.tokens(&discovery, code, verifier)?;
        let keys: KeySet = self.get("its keys", &discovery.jwks_uri, None)?;
        let settings = self.settings();
        let expected = Expected { issuer: &discovery.issuer, client: &settings.client, nonce, now: clock::now().wall };
        let refuse = |cause: &dyn ToString| odd("the provider's token proves nothing", cause);
        let claims = verified(&tokens.id_token, &keys).map_err(|invalid| refuse(&invalid))?;
        claims.check(expected).map_err(|invalid| refuse(&invalid))?;
        let has = |claims: &Claims, name: &str| name == "sub" || claims.rest.contains_key(name);
        let is_whole = has(&claims, &settings.groups_claim) && has(&claims, &settings.name_claim);
        let mut rest = claims.rest.clone();
        // Some providers keep tokens small and tell the rest only who asks.
        if let (false, Some(endpoint), Some(token)) = (is_whole, &discovery.userinfo_endpoint, &tokens.access_token) {
            let more: UserInfo = self.get("who somebody is", endpoint, Some(token))?;
            if more.sub != claims.sub {
                return Err(refuse(&"it is for another person than the provider tells of"));
            }
            for (name, value) in more.rest {
                rest.entry(name).or_insert(value);
            }
        }
        Ok(person(settings, &claims.sub, &rest))
    }

    fn callback(&self) -> String {
        format!("{}{CALLBACK}", self.settings().public_url)
    }

    fn discovery(&self) -> Result<Arc<Discovery>, OpenIdError> {
        let now = clock::now().boot;
        let known = || self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, discovery)) = &*known()
            && now.since(*at) < KNOWN_FOR
        {
            return Ok(Arc::clone(discovery));
        }
        let issuer = &self.settings().issuer;
        let address = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let discovery: Discovery = self.get("what it says of itself", &address, None)?;
        if discovery.issuer != *issuer {
            let cause =
                format!("it calls itself {:?}, not {issuer:?}; --oidc-issuer must be the same", discovery.issuer);
            return Err(odd("the provider is another one", &cause));
        }
        let endpoints = [&discovery.authorization_endpoint, &discovery.token_endpoint, &discovery.jwks_uri];
        let endpoints = endpoints.into_iter().chain(&discovery.userinfo_endpoint);
        if let Some(plain) = endpoints.into_iter().find(|endpoint| !is_as_safe(endpoint, issuer)) {
            return Err(odd("the provider can't be trusted", &format!("{plain:?} is not reached by https")));
        }
        let discovery = Arc::new(discovery);
        *known() = Some((now, Arc::clone(&discovery)));
        Ok(discovery)
    }

    fn tokens(&self, discovery: &Discovery, code: &str, verifier: &str) -> Result<Tokens, OpenIdError> {
        let settings = self.settings();
        let secret = settings.secret.as_ref().map(|path| {
            let secret = fs::read_to_string(path).map(|secret| secret.trim().to_owned());
            secret.map_err(|error| OpenIdError::Secret(path.display().to_string(), error))
        });
        let secret = secret.transpose()?;
        let callback = self.callback();
        let mut form = vec![
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", &callback),
            ("code_verifier", verifier),
        ];
        let methods = discovery.token_endpoint_auth_methods_supported.as_deref();
        let takes_basic = methods.is_none_or(|methods| methods.iter().any(|method| method == "client_secret_basic"));
        let mut request = self.0.agent.post(&discovery.token_endpoint).header(header::ACCEPT, "application/json");
        match &secret {
            Some(secret) if takes_basic => {
                // Encoded first, RFC 6749, 2.3.1.
                let pair = format!("{}:{}", percent::encode(&settings.client), percent::encode(secret));
                request = request.header(header::AUTHORIZATION, format!("Basic {}", STANDARD.encode(pair)));
            }
            Some(secret) => form.extend([("client_id", settings.client.as_str()), ("client_secret", secret)]),
            None => form.push(("client_id", &settings.client)),
        }
        let request = request.content_type("application/x-www-form-urlencoded");
        read("a token", request.send(percent::pairs(&form)))
    }

    fn get<T: DeserializeOwned>(&self, what: &str, address: &str, token: Option<&str>) -> Result<T, OpenIdError> {
        let request = self.0.agent.get(address).header(header::ACCEPT, "application/json");
        let request = match token {
            Some(token) => request.header(header::AUTHORIZATION, format!("Bearer {token}")),
            None => request,
        };
        read(what, request.call())
    }
}

fn odd(what: &str, cause: &dyn ToString) -> OpenIdError {
    OpenIdError::Provider { what: what.to_owned(), cause: cause.to_string() }
}

/// An answer as what it should be; `what` was asked for.
fn read<T: DeserializeOwned>(what: &str, response: Result<Response<Body>, ureq::Error>) -> Result<T, OpenIdError> {
    let what = format!("the provider was asked for {what}");
    let mut response = response.map_err(|error| odd(&what, &error))?;
    let status = response.status();
    let body = response.body_mut().with_config().limit(LARGEST).read_to_vec().map_err(|error| odd(&what, &error))?;
    if !status.is_success() {
        // RFC 6749, 5.2: an error says what it is.
        let named = serde_json::from_slice::<Value>(&body).ok();
        let named = named.as_ref().and_then(|body| body["error"].as_str()).unwrap_or_default();
        return Err(odd(&what, &format!("it answered {status} {named}").trim_end()));
    }
    serde_json::from_slice(&body).map_err(|error| odd(&what, &format!("its answer is odd: {error}")))
}

/// True if an endpoint is reached at least as safely as the issuer, which may be on this machine.
fn is_as_safe(endpoint: &str, issuer: &str) -> bool {
    endpoint.starts_with("https://") || issuer.starts_with("http://")
}

fn person(settings: &Settings, sub: &str, claims: &Map<String, Value>) -> Person {
    // An address that nobody has verified may be somebody else's.
    let is_verified = match claims.get("email_verified") {
        // Some providers have no unverified ones, and don't say so; some write it as text.
        None | Some(Value::Bool(true)) => true,
        Some(Value::String(text)) => text == "true",
        Some(_) => false,
    };
    let is_sure = settings.name_claim != "email" || is_verified;
    let name = claims.get(&settings.name_claim).and_then(Value::as_str).filter(|_| is_sure);
    let groups = match claims.get(&settings.groups_claim) {
        Some(Value::String(one)) => vec![one.clone()],
        Some(Value::Array(many)) => many.iter().filter_map(|group| Some(group.as_str()?.to_owned())).collect(),
        _ => Vec::new(),
    };
    Person { name: name.unwrap_or(sub).to_owned(), groups }
}
