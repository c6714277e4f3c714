//! Signing in and out, and the session that every page needs.

use std::sync::Arc;

use axum::{
    Extension,
    extract::{Form, FromRequest, Request, State, rejection::FormRejection},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use maud::html;
use subtle::ConstantTimeEq as _;
use xene_agent::clock;

use super::{
    Ui,
    client::Failure,
    page::{self, Outside},
    session::form_token,
};
use crate::{
    http::{
        audit::{self, Peer},
        identity::{self, Identity},
        problem::Problem,
        query::Query,
        runs::unread,
    },
    percent::encode,
};

/// The name of the field that a form proves itself by.
pub(super) const TOKEN_FIELD: &str = "form-token";

/// Somebody's session, as a request's handlers find it.
#[derive(Debug, Clone)]
pub(super) struct Session {
    pub(super) who: Identity,
    /// What a form of this session sends along.
    pub(super) form_token: String,
    cookie: String,
}

impl Session {
    /// True until it ends.
    pub(super) fn is_on(&self, ui: &Ui) -> bool {
        ui.api.config.sessions.holds(&self.cookie, clock::now().boot) && self.who.holds(&ui.api)
    }
}

/// A form's fields, in order. What keeps them from being read is told as a page.
#[derive(Debug)]
pub(super) struct Fields(pub(super) Vec<(String, String)>);

impl<S: Send + Sync> FromRequest<S> for Fields {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        let session = request.extensions().get::<Session>().cloned();
        let problem = match Form::from_request(request, state).await {
            Ok(Form(fields)) => return Ok(Self(fields)),
            Err(FormRejection::BytesRejection(rejection)) => unread(rejection),
            Err(FormRejection::InvalidFormContentType(_)) => {
                Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body must be declared as a form")
                    .hint("Send the header Content-Type: application/x-www-form-urlencoded.")
            }
            Err(_) => Problem::bad_request("the form can't be read"),
        };
        Err(page::failed(session.as_ref(), &problem.into()))
    }
}

/// The value of the first field of that name.
pub(super) fn field<'a>(fields: &'a [(String, String)], name: &str) -> Option<&'a str> {
    fields.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
}

/// Lets only those pass who are signed in; others are asked to, and then led back.
pub(super) async fn require_session(State(ui): State<Arc<Ui>>, mut request: Request, next: Next) -> Response {
    let session = session_of(&ui, request.headers()).await;
    if request.method() != Method::GET && request.method() != Method::HEAD && !is_same_origin(request.headers()) {
        return page::failed(session.as_ref(), &foreign());
    }
    match session {
        Some(session) => {
            let who = session.who.clone();
            request.extensions_mut().insert(session);
            audit::by(who, next.run(request).await)
        }
        None if request.method() != Method::GET => see_other("/sign-in", None),
        None if request.uri().path() == "/live" => StatusCode::UNAUTHORIZED.into_response(),
        // A link on another site comes without the cookie. The browser asks again by itself, then with it.
        None if sent(request.headers(), "sec-fetch-site") == Some("cross-site") => page::again(),
        None => {
            let next = request.uri().path_and_query().map_or("/", |next| next.as_str());
            let query = query_value(next);
            see_other(&format!("/sign-in?next={query}"), None)
        }
    }
}

async fn session_of(ui: &Ui, headers: &HeaderMap) -> Option<Session> {
    let name = cookie_name(ui, headers);
    let cookie = cookies(headers).find(|(found, _)| *found == name)?.1.to_owned();
    let who = ui.api.config.sessions.find(&cookie, clock::now().boot)?;
    // A token that is refused by now takes the sessions along that began with it.
    let who = Some(who).filter(|who| who.holds(&ui.api))?;
    Some(Session { who, form_token: form_token(&cookie), cookie })
}

/// Refuses a form that did not come from a page of this session.
pub(super) fn check_form(session: &Session, fields: &[(String, String)]) -> Result<(), Failure> {
    let shown = field(fields, TOKEN_FIELD).unwrap_or_default();
    if shown.as_bytes().ct_eq(session.form_token.as_bytes()).into() { Ok(()) } else { Err(foreign()) }
}

fn foreign() -> Failure {
    Failure {
        hint: Some("Open the page anew and try again.".to_owned()),
        ..Failure::new(StatusCode::FORBIDDEN, "this request did not come from a page of this session")
    }
}

/// True unless a browser says that another site made it ask. Every current browser says where a form comes from.
fn is_same_origin(headers: &HeaderMap) -> bool {
    match sent(headers, "sec-fetch-site") {
        // Browsers say this only where they trust the way: over TLS, and to their own machine.
        Some(site) => site == "same-origin",
        None => headers.get(header::ORIGIN).is_none_or(|origin| {
            let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
            origin.is_some_and(|(_, host)| sent(headers, "host") == Some(host))
        }),
    }
}

fn sent<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

pub(super) fn cookies(headers: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    let pairs = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    pairs.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='))
}

/// Cookies do not tell ports of a host apart, so the name does: two controllers on one machine are two sign-ins.
fn cookie_name(ui: &Ui, headers: &HeaderMap) -> String {
    if ui.api.config.sessions.is_secure(headers) {
        return "__Host-xene-session".to_owned();
    }
    format!("xene-session-{}", host_port(headers))
}

/// The port that the browser named.
pub(super) fn host_port(headers: &HeaderMap) -> &str {
    let port = sent(headers, "host").and_then(|host| host.rsplit_once(':')).map_or("80", |(_, port)| port);
    port.trim_matches(|c: char| !c.is_ascii_digit())
}

/// The page that asks who it is.
pub(super) async fn page(State(ui): State<Arc<Ui>>, headers: HeaderMap, mut query: Query) -> Response {
    let next = local(query.take("next").as_deref());
    // Above all no secret: addresses are kept in logs.
    if let Err(problem) = query.finish() {
        return problem.into_response();
    }
    if session_of(&ui, &headers).await.is_some() {
        // With a fragment of its own, else the browser takes the code of a link along.
        return see_other(&format!("{next}#"), None);
    }
    ask(&ui, &next, None)
}

fn ask(ui: &Ui, next: &str, refused: Option<&str>) -> Response {
    let body = html! {
        form #sign-in method="post" action="/sign-in" {
            @if let Some(refused) = refused { p.problem role="alert" { (refused) } }
            p { label for="secret" { "API token or sign-in code" } }
            p { input #secret name="secret" type="password" autocomplete="current-password" required autofocus; }
            input type="hidden" name="next" value=(next);
            p { button.primary type="submit" { "Sign in" } }
        }
        @if let Some(openid) = &ui.api.config.openid {
            p { a.button href=(openid.begins_at(&query_value(next))) { "Sign in with " (openid.name()) } }
        }
        p { "A link that signs you in comes from the command line, where the controller's token is at hand:" }
        pre { "xene ui --open" }
    };
    let status = if refused.is_some() { StatusCode::UNAUTHORIZED } else { StatusCode::OK };
    page::outside(&Outside { status, title: "Sign in", body })
}

/// Begins a session for who shows a token, or a code that was not used yet.
pub(super) async fn sign_in(
    State(ui): State<Arc<Ui>>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
    Fields(fields): Fields,
) -> Response {
    if !is_same_origin(&headers) {
        return page::failed(None, &foreign());
    }
    let now = clock::now().boot;
    let next = local(field(&fields, "next"));
    let secret = field(&fields, "secret").unwrap_or_default().trim();
    // A code may be pasted with the link that it came in.
    let secret = secret.rsplit_once('#').map_or(secret, |(_, code)| code);
    let sessions = &ui.api.config.sessions;
    let who = match sessions.redeem(secret, now) {
        Some(who) => Some(who),
        // That the store can't be read is in the log; here nobody can be let in either way.
        None => identity::of_token(&ui.api, secret).ok().flatten(),
    };
    let Some(who) = who else {
        if peer.is_some_and(|Extension(Peer(address))| !ui.api.guesses.count(address.ip(), now)) {
            let many = Failure::new(StatusCode::TOO_MANY_REQUESTS, "too many wrong tokens came from your address");
            return page::failed(None, &Failure { hint: Some("Try again in a minute.".to_owned()), ..many });
        }
        let refused = "This token or code is not valid. A code works once, and for ten minutes.";
        return audit::tried(ask(&ui, &next, Some(refused)));
    };
    match sessions.begin(who.clone(), now) {
        Ok(cookie) => audit::by(who, see_other(&next, Some(&set_cookie(&ui, &headers, &cookie)))),
        Err(error) => page::failed(None, &Failure::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
    }
}

pub(super) async fn sign_out(
    State(ui): State<Arc<Ui>>,
    Extension(session): Extension<Session>,
    headers: HeaderMap,
    Fields(fields): Fields,
) -> Response {
    if let Err(failure) = check_form(&session, &fields) {
        return page::failed(Some(&session), &failure);
    }
    ui.api.config.sessions.end(&session.cookie);
    let forget = format!("{}; Max-Age=0", set_cookie(&ui, &headers, ""));
    see_other("/sign-in", Some(&forget))
}

pub(super) fn set_cookie(ui: &Ui, headers: &HeaderMap, value: &str) -> String {
    let secure = if ui.api.config.sessions.is_secure(headers) { "; Secure" } else { "" };
    format!("{}={value}; Path=/; HttpOnly; SameSite=Strict{secure}", cookie_name(ui, headers))
}

/// Where to go after signing in: a page of this server, or the first one.
pub(super) fn local(next: Option<&str>) -> String {
    let is_local = |next: &&str| {
        next.starts_with('/')
            && !next.starts_with("//")
            && !next.starts_with("/sign-")
            && next.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\')
    };
    next.filter(is_local).unwrap_or("/").to_owned()
}

/// Sends the browser on, with what it shall remember.
pub(super) fn see_other(to: &str, cookie: Option<&str>) -> Response {
    let mut response = StatusCode::SEE_OTHER.into_response();
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, HeaderValue::from_str(to).unwrap_or(HeaderValue::from_static("/")));
    headers.extend(
        cookie.and_then(|cookie| HeaderValue::from_str(cookie).ok()).map(|cookie| (header::SET_COOKIE, cookie)),
    );
    response
}

/// As one value of a query, or as several segments of a path.
pub(super) fn query_value(text: &str) -> String {
    encode(text).replace("%2F", "/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_led_elsewhere() {
        for own in ["/", "/runs/x?log=1", "/events?after=3"] {
            assert_eq!(local(Some(own)), own);
        }
        for foreign in ["", "//evil.example", "/\\evil.example", "https://evil.example", "runs", "/a b", "/sign-out"] {
            assert_eq!(local(Some(foreign)), "/", "{foreign}");
        }
        assert_eq!(local(None), "/");
    }

    #[test]
    fn a_browser_tells_where_a_form_comes_from() {
        let from = |pairs: &[(&'static str, &'static str)]| {
            let headers = pairs.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)));
            is_same_origin(&headers.collect::<HeaderMap<_>>())
        };
        let (host, site, origin) = (("host", "a:1"), "sec-fetch-site", "origin");
        assert!(from(&[host, (site, "same-origin"), (origin, "http://a:1")]));
        assert!(from(&[host]), "no browser");
        assert!(!from(&[host, (site, "cross-site")]));
        assert!(!from(&[host, (site, "same-site")]));
        assert!(!from(&[host, (origin, "http://a:2")]));
        assert!(!from(&[host, (origin, "null")]));
        assert!(from(&[host, (origin, "http://a:1")]), "over plain HTTP to another machine");
        assert!(!from(&[(origin, "https://a")]));
    }
}
