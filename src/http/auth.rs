//! Who may ask: the admin token, pipelines' hook tokens, and the server's own names.

use std::{fmt, net::IpAddr, sync::Arc};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, Method, StatusCode, Uri, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use hyper::body::Body as _;
use ring::hmac;
use subtle::ConstantTimeEq as _;
use xene_schemas::meta::{Name, PipelineKey};

use super::{
    Api, audit,
    identity::{self, Identity, Role},
    problem::Problem,
};

/// The token that may do everything; kept as its hash.
#[derive(Clone)]
pub struct AdminToken([u8; 32]);

impl AdminToken {
    /// From its text.
    pub fn new(token: &str) -> Self {
        Self(*blake3::hash(token.as_bytes()).as_bytes())
    }

    /// True if it is this token.
    pub(super) fn is(&self, shown: &str) -> bool {
        // Of hashes, so that not even the length can be timed.
        blake3::hash(shown.as_bytes()).as_bytes().ct_eq(&self.0).into()
    }
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminToken")
    }
}

/// What hook tokens are derived from: random, for the life of the store.
#[derive(Clone)]
pub struct HookSecret(pub [u8; 32]);

impl HookSecret {
    /// The token that starts one pipeline by its webhook, and nothing else.
    pub fn token(&self, key: &PipelineKey) -> String {
        blake3::keyed_hash(&self.0, key.to_string().as_bytes()).to_hex().to_string()
    }

    /// The token by which pushes to the source are announced. No pipeline's: those have a slash.
    pub fn source_token(&self) -> String {
        blake3::keyed_hash(&self.0, b"source").to_hex().to_string()
    }

    /// The secret that a webhook trigger and its sender know; `name` is what its `auth` calls it. No pipeline's token:
    /// there is no zero byte in those names.
    pub(super) fn trigger_secret(&self, workflow: &Name, trigger: &Name, name: &str) -> String {
        blake3::keyed_hash(&self.0, format!("trigger\0{workflow}\0{trigger}\0{name}").as_bytes()).to_hex().to_string()
    }

    fn is(&self, key: &PipelineKey, shown: &str) -> bool {
        self.token(key).as_bytes().ct_eq(shown.as_bytes()).into()
    }
}

impl fmt::Debug for HookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HookSecret")
    }
}

/// What a request shows to prove that it may start pipelines by webhook.
pub(super) enum HookProof<'a> {
    Identity(Identity),
    /// Perhaps that of a pipeline.
    Token(&'a str),
    /// That of the trigger, which is good for whatever it starts.
    Trigger,
}

impl HookProof<'_> {
    /// True if it is good for this pipeline.
    pub(super) fn is_for(&self, api: &Api, key: &PipelineKey) -> bool {
        match self {
            Self::Identity(identity) => identity.role >= Role::Operator && identity.scope.has(&key.workflow),
            Self::Token(token) => api.config.hooks.is(key, token),
            Self::Trigger => true,
        }
    }

    /// Keeps beside the answer who asked.
    pub(super) fn sign(self, response: Response) -> Response {
        match self {
            Self::Identity(identity) => audit::by(identity, response),
            Self::Token(_) | Self::Trigger => audit::by_webhook(response),
        }
    }

    /// Whose name the run is kept under.
    pub(super) fn by(&self) -> String {
        match self {
            Self::Identity(identity) => identity.name.clone(),
            Self::Token(_) | Self::Trigger => "webhook".to_owned(),
        }
    }
}

/// The token that a webhook's sender shows: as bearer, or as `X-Xene-Token` where a sender can't set the former.
pub(super) fn hook_proof<'a>(api: &Api, headers: &'a HeaderMap) -> Result<HookProof<'a>, Problem> {
    let token = bearer(headers).or_else(|| headers.get("x-xene-token")?.to_str().ok()).ok_or_else(hook_refused)?;
    Ok(identity::of_token(api, token)?.map_or(HookProof::Token(token), HookProof::Identity))
}

/// What proves a push's announcement: a token, or a signature over its bytes with that token as the secret.
pub(super) fn may_announce<'a>(
    api: &Api,
    headers: &'a HeaderMap,
    body: &[u8],
) -> Result<Option<HookProof<'a>>, Problem> {
    let token = api.config.hooks.source_token();
    let header = |name: &str| headers.get(name)?.to_str().ok();
    let shown = bearer(headers).or_else(|| header("x-xene-token")).or_else(|| header("x-gitlab-token"));
    if let Some(shown) = shown {
        if bool::from(token.as_bytes().ct_eq(shown.as_bytes())) {
            return Ok(Some(HookProof::Token(shown)));
        }
        let operator = identity::of_token(api, shown)?.filter(|identity| identity.role >= Role::Operator);
        return Ok(operator.map(HookProof::Identity));
    }
    let github = header("x-hub-signature-256").and_then(|signature| signature.strip_prefix("sha256="));
    let signature = github.or_else(|| header("x-gitea-signature")).and_then(unhex);
    let key = hmac::Key::new(hmac::HMAC_SHA256, token.as_bytes());
    let is_signed = signature.is_some_and(|signature| hmac::verify(&key, body, &signature).is_ok());
    Ok(is_signed.then_some(HookProof::Trigger))
}

pub(super) fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let byte = |pair: &[u8]| u8::try_from(digit(pair[0])? * 16 + digit(*pair.get(1)?)?).ok();
    text.as_bytes().chunks(2).map(byte).collect()
}

/// A wrong token, and a pipeline that is not there, are answered alike.
pub(super) fn hook_refused() -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, "a valid hook token or signature is needed")
        .hint("`xene get pipeline WORKFLOW/PIPELINE -o json` shows what it takes: status.webhookToken, status.webhooks")
}

/// Refuses requests that a browser was led to make by a foreign name (DNS rebinding). A literal address can't be
/// rebound, so it passes.
pub(super) async fn require_own_host(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    if request.headers().get_all(header::HOST).iter().nth(1).is_some() {
        // What stands before this server may have looked at the other one.
        return Problem::bad_request("the request names more than one host").into_response();
    }
    match shown_host(request.uri(), request.headers()).map(host_of) {
        Some(host) if is_own(&api.config.hosts, host) => next.run(request).await,
        _ => Problem::new(StatusCode::MISDIRECTED_REQUEST, "this server does not answer to that name").into_response(),
    }
}

/// What a request calls the server, with its port.
pub(super) fn shown_host<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Option<&'a str> {
    let authority = uri.authority().map(|authority| authority.as_str());
    authority.or_else(|| headers.get(header::HOST)?.to_str().ok())
}

/// Refuses what a page of another site made a browser send, although no browser sends a bearer token by itself; and
/// bodies that are not declared as JSON, which such a page could send without asking.
///
/// # Errors
/// If it is one of these.
pub(super) fn check_origin_and_type(request: &Request) -> Result<(), Problem> {
    let headers = request.headers();
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) {
        return Ok(());
    }
    let is_foreign = match (header("sec-fetch-site"), headers.get(header::ORIGIN)) {
        (Some("cross-site"), _) => true,
        (Some("same-origin"), _) | (_, None) => false,
        (_, Some(origin)) => {
            let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
            origin.is_none_or(|(_, origin)| shown_host(request.uri(), headers) != Some(origin))
        }
    };
    if is_foreign {
        return Err(Problem::new(StatusCode::FORBIDDEN, "a page of another site asks for this, so it is not done"));
    }
    let kind = header("content-type").map(|kind| kind.split(';').next().unwrap_or_default().trim());
    let is_json = kind.is_some_and(|kind| kind.eq_ignore_ascii_case("application/json"));
    // Without a body there is nothing to declare; of one that is declared to be something else nothing is taken.
    if is_json || (kind.is_none() && request.body().is_end_stream()) {
        return Ok(());
    }
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body must be declared as JSON")
        .hint("send the header Content-Type: application/json"))
}

fn is_own(hosts: &[String], host: &str) -> bool {
    let literal = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    literal.parse::<IpAddr>().is_ok()
        || host.eq_ignore_ascii_case("localhost")
        || hosts.iter().any(|own| own.eq_ignore_ascii_case(host))
}

/// Without the port.
fn host_of(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_own_names_and_literal_addresses_are_hosts() {
        let hosts = ["xene.example".to_owned()];
        let passes = |authority: &str| is_own(&hosts, host_of(authority));
        for own in
            ["localhost", "LOCALHOST:7420", "127.0.0.1:7420", "[::1]:7420", "[::1]", "10.0.0.1", "xene.example:1"]
        {
            assert!(passes(own), "{own}");
        }
        for foreign in
            ["", "evil.example", "localhost.evil.example:7420", "127.0.0.1.evil.example", "xene.example.", "[x]"]
        {
            assert!(!passes(foreign), "{foreign}");
        }
    }

    #[test]
    fn hex_is_read_whole_or_not_at_all() {
        assert_eq!(unhex("00ffA0"), Some(vec![0, 255, 160]));
        for bad in ["0", "0g", "000", "é"] {
            assert_eq!(unhex(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_hook_token_is_good_for_its_pipeline_alone() {
        let secret = HookSecret([7; 32]);
        let (one, other): (PipelineKey, PipelineKey) = ("a/b".parse().unwrap(), "a/c".parse().unwrap());
        assert!(secret.is(&one, &secret.token(&one)));
        assert!(!secret.is(&other, &secret.token(&one)));
        assert!(!secret.is(&one, ""));
        assert!(!HookSecret([8; 32]).is(&one, &secret.token(&one)));
        let name = |text: &str| text.parse::<Name>().unwrap();
        let secrets = [("a", "b", "n/k"), ("a", "c", "n/k"), ("c", "b", "n/k"), ("a", "b", "n/l")];
        let secrets =
            secrets.map(|(workflow, trigger, key)| secret.trigger_secret(&name(workflow), &name(trigger), key));
        assert_eq!(secrets.iter().collect::<std::collections::BTreeSet<_>>().len(), 4, "each has its own");
        assert_eq!(secrets[0].len(), 64);
    }
}
