//! Signing in with a provider: out to it, and back from it.

use std::sync::Arc;

use axum::{
    Extension,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use maud::html;
use subtle::ConstantTimeEq as _;
use xene_agent::clock;

use super::{
    Ui,
    client::Failure,
    page,
    session::{self, SIGNED_IN_BY_PROVIDER},
    sign_in::{cookies, host_port, local, query_value, see_other, set_cookie},
};
use crate::http::{
    audit::{self, Peer},
    openid::{Attempt, OpenId, OpenIdError},
    query::Query,
};

/// How long somebody may take at the provider, in seconds.
const ATTEMPT_LIFE: u32 = 600;
/// The longest error code of a provider that is shown.
const LONGEST_CODE: usize = 40;

/// The cookie of an attempt. It comes along when the provider leads back, which that of a session does not.
fn cookie_name(ui: &Ui, headers: &HeaderMap) -> String {
    if ui.api.config.sessions.is_secure(headers) {
        return "__Host-xene-sign-in".to_owned();
    }
    format!("xene-sign-in-{}", host_port(headers))
}

fn attempt_cookie(ui: &Ui, headers: &HeaderMap, value: &str, life: u32) -> String {
    let secure = if ui.api.config.sessions.is_secure(headers) { "; Secure" } else { "" };
    let name = cookie_name(ui, headers);
    format!("{name}={value}; Path=/; HttpOnly; SameSite=Lax; Max-Age={life}{secure}")
}

/// `GET /sign-in/openid`: off to the provider.
pub(super) async fn begin(State(ui): State<Arc<Ui>>, headers: HeaderMap, mut query: Query) -> Response {
    let Some(openid) = &ui.api.config.openid else { return page::failed(None, &Failure::not_found()) };
    let next = local(query.take("next").as_deref());
    let secret = match session::random() {
        Ok(secret) => secret,
        Err(error) => {
            return page::failed(None, &Failure::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()));
        }
    };
    match openid.address(&Attempt::new(&secret)).await {
        Ok(address) => {
            let cookie = attempt_cookie(&ui, &headers, &format!("{secret}.{}", query_value(&next)), ATTEMPT_LIFE);
            see_other(&address, Some(&cookie))
        }
        Err(error) => failed(openid, error),
    }
}

/// `GET /sign-in/openid/callback`: back from the provider.
pub(super) async fn callback(
    State(ui): State<Arc<Ui>>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
    mut query: Query,
) -> Response {
    let Some(openid) = &ui.api.config.openid else { return page::failed(None, &Failure::not_found()) };
    let name = cookie_name(&ui, &headers);
    let cookie = cookies(&headers).find(|(found, _)| *found == name);
    let (secret, next) = cookie.and_then(|(_, value)| value.split_once('.')).unwrap_or_default();
    let attempt = Attempt::new(secret);
    let state = query.take("state").unwrap_or_default();
    let is_ours = !secret.is_empty() && bool::from(state.as_bytes().ct_eq(attempt.state().as_bytes()));
    let is_from = query.take("iss").is_none_or(|issuer| openid.is_issuer(&issuer));
    let found = match (query.take("code"), query.take("error")) {
        _ if !(is_ours && is_from) => Err(OpenIdError::Elsewhere),
        (Some(code), None) => openid.identify(code, &attempt).await,
        (None, None) => Err(OpenIdError::Refused("no code".to_owned())),
        (_, Some(error)) => Err(OpenIdError::Refused(error)),
    };
    let now = clock::now().boot;
    let who = match found {
        Ok(who) => who,
        Err(error) => {
            if peer.is_some_and(|Extension(Peer(address))| !ui.api.guesses.count(address.ip(), now)) {
                let many = "too many sign-ins that failed came from your address";
                return page::failed(None, &Failure::new(StatusCode::TOO_MANY_REQUESTS, many));
            }
            return audit::tried(failed(openid, error));
        }
    };
    match ui.api.config.sessions.begin_for(who.clone(), now, SIGNED_IN_BY_PROVIDER) {
        Ok(cookie) => {
            let mut response = onward(&local(decoded(next).as_deref()));
            let set = [set_cookie(&ui, &headers, &cookie), attempt_cookie(&ui, &headers, "", 0)];
            for cookie in set.iter().filter_map(|cookie| HeaderValue::from_str(cookie).ok()) {
                response.headers_mut().append(header::SET_COOKIE, cookie);
            }
            audit::by(who, response)
        }
        Err(error) => page::failed(None, &Failure::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
    }
}

/// Leads on from a page of ours: the cookie of a session does not go along while another site leads.
fn onward(next: &str) -> Response {
    let body = html! {
        meta http-equiv="refresh" content=(format!("0;url={next}"));
        p { a href=(next) { "Go on" } }
    };
    page::outside(&page::Outside { status: StatusCode::OK, title: "Signed in", body })
}

fn decoded(text: &str) -> Option<String> {
    let uri: axum::http::Uri = format!("/?next={text}").parse().ok()?;
    let pairs = axum::extract::Query::<page::Pairs>::try_from_uri(&uri).ok()?.0;
    pairs.into_iter().next().map(|(_, next)| next)
}

/// What a person is told; what they can't mend is for the log.
fn failed(openid: &OpenId, error: OpenIdError) -> Response {
    let detail = error.to_string();
    match error {
        OpenIdError::Elsewhere => {
            let hint = Some("Sign in anew.".to_owned());
            page::failed(None, &Failure { hint, ..Failure::new(StatusCode::UNAUTHORIZED, detail) })
        }
        OpenIdError::Refused(code) => {
            // Anybody can write an address with a text of theirs in it.
            let is_code = code.len() <= LONGEST_CODE
                && code.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_ ".contains(&byte));
            let said = if is_code { format!(": {code}") } else { String::new() };
            let detail = format!("{} did not sign you in{said}", openid.name());
            page::failed(None, &Failure::new(StatusCode::UNAUTHORIZED, detail))
        }
        OpenIdError::NoRole(name) => {
            let hint = Some("Groups get roles by the controller's --oidc-role.".to_owned());
            let failure = Failure { hint, ..Failure::new(StatusCode::FORBIDDEN, detail) };
            audit::named(name, page::failed(None, &failure))
        }
        OpenIdError::Provider { .. } | OpenIdError::Secret(..) => {
            tracing::warn!(error = detail, provider = openid.name(), "somebody could not be signed in");
            let hint = "The controller's log says why. A token, or a link of xene ui, signs in all the same.";
            let detail = format!("{} could not be asked who you are", openid.name());
            let failure = Failure::new(StatusCode::BAD_GATEWAY, detail);
            page::failed(None, &Failure { hint: Some(hint.to_owned()), ..failure })
        }
    }
}
