//! The audit log: a line of JSON for whatever changes something, and for whoever was refused; and a limit for those who
//! guess.

use std::{
    collections::HashMap,
    fs::OpenOptions,
    io::{self, Write as _},
    net::{IpAddr, Ipv6Addr, SocketAddr},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, Method, StatusCode},
    middleware::Next,
    response::{IntoResponse, Response},
};
use jiff::Timestamp;
use serde::Serialize;
use xene_agent::{clock, decide::time::BootTime};
use xene_schemas::{access::Role, run::millis};

use super::{Api, auth::shown_host, body::Connection, identity::Identity, openid, problem::Problem, webhook::PROOFS};

/// An address may show so many wrong proofs in a [`WINDOW`]; of more of them only the first is written down.
const GUESSES: u32 = 20;
const WINDOW: Duration = Duration::from_secs(60);
/// Paths beyond so many characters are cut; none that names something is so long.
const LONGEST_PATH: usize = 512;
/// So many addresses are counted at a time.
const COUNTED: usize = 10_000;

/// From where a request comes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) SocketAddr);

/// Who made a request, beside its answer.
#[derive(Clone)]
struct Actor {
    name: String,
    role: Option<Role>,
    token: Option<String>,
}

/// What came of a request, beside its answer.
#[derive(Clone)]
struct About(String);

/// That a request wanted to prove something in its body, beside its answer.
#[derive(Clone)]
struct Tried;

/// Keeps beside an answer that somebody tried to sign in. Whoever says so limits them.
pub(super) fn tried(mut response: Response) -> Response {
    response.extensions_mut().insert(Tried);
    response
}

/// Keeps beside an answer who asked.
pub(super) fn by(identity: Identity, mut response: Response) -> Response {
    let Identity { name, role, token, .. } = identity;
    response.extensions_mut().insert(Actor { name, role: Some(role), token });
    response
}

/// Keeps beside an answer that a webhook's sender asked.
pub(super) fn by_webhook(response: Response) -> Response {
    named("webhook".to_owned(), response)
}

/// Keeps beside an answer who asked, where they have no role.
pub(super) fn named(name: String, mut response: Response) -> Response {
    response.extensions_mut().insert(Actor { name, role: None, token: None });
    response
}

/// Keeps beside an answer what it is about, as an event's `regarding` names it, where the path does not tell.
pub(super) fn about(regarding: String, mut response: Response) -> Response {
    response.extensions_mut().insert(About(regarding));
    response
}

/// Where lines go.
#[derive(Debug, Clone)]
pub struct AuditLog(Arc<Path>);

/// One line.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    #[serde(with = "millis")]
    time: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    actor: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<Role>,
    /// The public part of the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    method: &'a str,
    path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    about: Option<&'a str>,
    status: u16,
    /// What the request called the server, if it is not called that.
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<&'a str>,
}

impl AuditLog {
    /// A log in this file, which is made if it is not there.
    ///
    /// # Errors
    /// If nothing can be added to the file.
    pub fn open(path: PathBuf) -> io::Result<Self> {
        let log = Self(path.into());
        log.append(b"")?;
        Ok(log)
    }

    /// The file is opened for each line, so that it can be moved away at any time.
    fn append(&self, line: &[u8]) -> io::Result<()> {
        OpenOptions::new().append(true).create(true).mode(0o600).open(&self.0)?.write_all(line)
    }
}

/// Wrong proofs by address.
#[derive(Debug, Default)]
pub(super) struct Guesses(Mutex<HashMap<IpAddr, (BootTime, u32)>>);

impl Guesses {
    /// Counts one more; false if there were too many.
    pub(super) fn count(&self, from: IpAddr, now: BootTime) -> bool {
        self.number(from, now) <= GUESSES
    }

    /// Counts one more, and says how many there were in this window.
    fn number(&self, from: IpAddr, now: BootTime) -> u32 {
        let from = network(from);
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counted.len() >= COUNTED && !counted.contains_key(&from) {
            counted.retain(|_, (since, _)| now.since(*since) < WINDOW);
            if counted.len() >= COUNTED {
                counted.clear();
            }
        }
        let (since, wrong) = counted.entry(from).or_insert((now, 0));
        if now.since(*since) >= WINDOW {
            (*since, *wrong) = (now, 0);
        }
        *wrong = wrong.saturating_add(1);
        *wrong
    }

    /// True if the one that was counted last was the first too many.
    fn is_first_too_many(&self, from: IpAddr) -> bool {
        let counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counted.get(&network(from)).is_some_and(|(_, wrong)| *wrong == GUESSES + 1)
    }
}

/// Whoever has one IPv6 address has the whole network.
fn network(from: IpAddr) -> IpAddr {
    match from {
        IpAddr::V6(address) if address.to_ipv4_mapped().is_none() => {
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)))
        }
        address => address,
    }
}

/// True if whoever sent these wanted to prove something. Browsers send cookies by themselves, also those of others.
fn shows_proof(headers: &HeaderMap) -> bool {
    PROOFS.iter().any(|name| *name != "cookie" && headers.contains_key(*name))
}

/// True if a request that was let pass would change something, or give all away.
fn matters(method: &Method, path: &str) -> bool {
    match *method {
        Method::GET => matches!(path, "/api/v1/backup" | openid::CALLBACK),
        Method::HEAD | Method::OPTIONS => false,
        _ => path != "/api/v1/plan",
    }
}

/// Whether a request goes into the log. Of those who have not shown who they are, only those that tried to, who are
/// limited: else anybody could fill the disk.
fn is_written(status: StatusCode, is_known: bool, shows_proof: bool, matters: bool) -> bool {
    let is_refusal = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
    if is_known { is_refusal || matters } else { status == StatusCode::UNAUTHORIZED && shows_proof }
}

/// Anybody can make up methods, so the rest of them count together.
fn known(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

/// Writes what matters, and answers whoever guesses too often with 429. A right proof is always taken: an address may be
/// a proxy's, shared by all. What changes something goes on when its client hangs up: it has its line, and its delivery
/// is held until the run is durable.
pub(super) async fn record(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    if !matters(request.method(), request.uri().path()) {
        return recorded(api, request, next).await;
    }
    let recorded = tokio::spawn(recorded(api, request, next)).await;
    recorded.unwrap_or_else(|_| Problem::of_status(StatusCode::INTERNAL_SERVER_ERROR).into_response())
}

async fn recorded(api: Arc<Api>, request: Request, next: Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let peer = request.extensions().get().map(|Peer(address)| *address);
    let shows_proof = shows_proof(request.headers());
    let host = shown_host(request.uri(), request.headers()).map(|host| host.chars().take(LONGEST_PATH).collect());
    let connection = request.extensions().get::<Connection>().cloned();
    let mut response = next.run(request).await;
    let now = clock::now();
    // Of an address' wrong proofs, and of its wrong names for the server, only the first ones are written: else anybody
    // could fill the disk.
    if response.status() == StatusCode::UNAUTHORIZED
        && shows_proof
        && peer.is_some_and(|peer| !api.guesses.count(peer.ip(), now.boot))
    {
        let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "too many wrong tokens came from your address");
        let problem = problem.hint("try again in a minute, with the right one").retry_after(WINDOW.as_secs());
        response = problem.into_response();
    }
    let mut misnamed: Option<String> = None;
    let is_first = match response.status() {
        StatusCode::TOO_MANY_REQUESTS => peer.is_some_and(|peer| api.guesses.is_first_too_many(peer.ip())),
        StatusCode::MISDIRECTED_REQUEST => {
            misnamed = host;
            peer.is_none_or(|peer| api.misnamed.number(peer.ip(), now.boot) == 1)
        }
        _ => false,
    };
    let status = response.status();
    api.handle.counters().count_request(known(&method), status.as_u16());
    let extensions = response.extensions();
    let (actor, about) = (extensions.get::<Actor>(), extensions.get::<About>());
    if let (Some(_), Some(Connection(place))) = (actor, connection) {
        place.now();
    }
    let tried = shows_proof || extensions.get::<Tried>().is_some();
    let is_written = is_first || is_written(status, actor.is_some(), tried, matters(&method, &path));
    let Some(log) = api.config.audit.clone().filter(|_| is_written) else { return response };
    let path: String = path.chars().take(LONGEST_PATH).collect();
    let line = Line {
        time: now.wall,
        actor: actor.map(|actor| &*actor.name),
        role: actor.and_then(|actor| actor.role),
        token: actor.and_then(|actor| actor.token.as_deref()),
        address: peer.map(|peer| peer.to_string()),
        method: method.as_str(),
        path: &path,
        about: about.map(|About(about)| &**about),
        status: status.as_u16(),
        host: misnamed.as_deref(),
    };
    let line = serde_json::to_string(&line).map(|line| line + "\n");
    let written = tokio::task::spawn_blocking(move || log.append(line?.as_bytes())).await;
    if let Ok(Err(error)) = written {
        tracing::error!(%error, method = method.as_str(), path, "the audit log can't be written");
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_guesses_too_often_waits_for_a_minute() {
        let (guesses, start) = (Guesses::default(), BootTime::from_nanos(1_000_000_000_000));
        let one: IpAddr = "192.0.2.1".parse().unwrap();
        assert!((0..GUESSES).all(|_| guesses.count(one, start)));
        assert!(!guesses.is_first_too_many(one));
        assert!(!guesses.count(one, start + Duration::from_secs(58)) && guesses.is_first_too_many(one));
        assert!(!guesses.count(one, start + Duration::from_secs(59)) && !guesses.is_first_too_many(one));
        assert!(guesses.count("192.0.2.2".parse().unwrap(), start));
        assert!(guesses.count(one, start + WINDOW));
        let six = |text: &str| guesses.count(text.parse().unwrap(), start);
        assert!((0..GUESSES).all(|n| six(&format!("2001:db8::{n:x}"))));
        assert!(!six("2001:db8::ffff") && six("2001:db8:0:1::1") && six("::ffff:192.0.2.9"));
    }

    #[test]
    fn the_number_of_addresses_is_bounded() {
        let (guesses, start) = (Guesses::default(), BootTime::from_nanos(1_000_000_000_000));
        for n in 0..3 * COUNTED {
            let address = std::net::Ipv4Addr::from_bits(u32::try_from(n).unwrap());
            assert!(guesses.count(address.into(), start));
        }
        assert!(guesses.0.lock().unwrap().len() <= COUNTED);
    }

    #[test]
    fn what_changes_something_matters() {
        for (method, path, expected) in [
            (Method::GET, "/api/v1/runs", false),
            (Method::GET, "/api/v1/backup", true),
            (Method::GET, openid::CALLBACK, true),
            (Method::POST, "/api/v1/plan", false),
            (Method::POST, "/api/v1/runs", true),
            (Method::POST, "/hooks/source", true),
        ] {
            assert_eq!(matters(&method, path), expected, "{method} {path}");
        }
    }

    #[test]
    fn who_has_shown_nothing_does_not_fill_the_log() {
        use StatusCode as S;
        for (status, is_known, shows_proof, matters, expected) in [
            (S::OK, true, true, true, true),
            (S::OK, true, true, false, false),
            (S::FORBIDDEN, true, true, false, true),
            (S::NOT_FOUND, false, false, true, false),
            (S::UNAUTHORIZED, false, false, true, false),
            (S::UNAUTHORIZED, false, true, false, true),
            (S::MISDIRECTED_REQUEST, false, true, true, false),
        ] {
            assert_eq!(
                is_written(status, is_known, shows_proof, matters),
                expected,
                "{status} {is_known} {shows_proof}"
            );
        }
    }

    #[test]
    fn the_log_goes_on_in_a_new_file_when_the_old_one_is_moved() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        let log = AuditLog::open(path.clone()).unwrap();
        log.append(b"one\n").unwrap();
        std::fs::rename(&path, folder.path().join("old")).unwrap();
        log.append(b"two\n").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two\n");
        assert!(AuditLog::open(folder.path().join("no/such")).is_err());
    }
}
