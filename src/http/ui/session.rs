//! Who is signed in to the UI: sessions by cookie, and the one-time codes that begin them. In memory only: after a
//! restart people sign in again.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    extract::State as AxumState,
    http::{HeaderMap, StatusCode, header},
    response::Response,
};
use serde::Serialize;
use xene_agent::{clock, decide::time::BootTime};

use crate::http::{
    Api,
    identity::Identity,
    objects::{Object, json},
    problem::Problem,
};

/// A code from the command line is good for so long, once.
pub const CODE_LIFE: Duration = Duration::from_secs(10 * 60);
/// A session ends when it was not used for so long.
const IDLE: Duration = Duration::from_secs(12 * 60 * 60);
/// A session ends after so long whatever happens.
const LIFE: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// A session that a provider vouched for ends after this: who leaves there should not stay here.
pub(super) const SIGNED_IN_BY_PROVIDER: Duration = Duration::from_secs(12 * 60 * 60);
/// More are not remembered: the one that was used longest ago makes room.
const SESSIONS: usize = 10_000;
/// More codes are not remembered; the oldest makes room.
const CODES: usize = 1_000;

/// A cookie or code is kept as its hash: who reads the memory can't sign in with it, and look-ups tell no time.
type Hash = [u8; 32];

/// All sessions and codes. Cheap to clone.
#[derive(Clone)]
pub struct Sessions {
    state: Arc<Mutex<State>>,
    /// True if the server speaks TLS: cookies then never travel without.
    secure: bool,
    /// The host, with its port, at which something before the server speaks TLS.
    secure_host: Option<Arc<str>>,
}

#[derive(Default)]
struct State {
    codes: HashMap<Hash, (Identity, BootTime)>,
    sessions: HashMap<Hash, Session>,
}

#[derive(Debug)]
struct Session {
    who: Identity,
    /// The latest that it ends.
    until: BootTime,
    used: BootTime,
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions").field("secure", &self.secure).finish_non_exhaustive()
    }
}

/// The system gives no random bytes.
#[derive(Debug, thiserror::Error)]
#[error("the system gives no random bytes")]
pub struct NoRandom;

impl Sessions {
    /// None yet.
    pub fn new(secure: bool) -> Self {
        Self { state: Arc::default(), secure, secure_host: None }
    }

    /// With the address at which browsers find the server; if that is https, something before it speaks TLS.
    pub fn found_at(self, public_url: Option<&str>) -> Self {
        Self { secure_host: public_url.and_then(|url| url.strip_prefix("https://")).map(Into::into), ..self }
    }

    /// True if the browser that sent these speaks TLS.
    pub(in crate::http) fn is_secure(&self, headers: &HeaderMap) -> bool {
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        self.secure || self.secure_host.is_some() && host == self.secure_host.as_deref()
    }

    /// A code that signs in whoever may read the admin's token, as that.
    ///
    /// # Errors
    /// If the system gives no random bytes.
    pub fn admin_code(&self, now: BootTime) -> Result<String, NoRandom> {
        self.code(Identity::admin(), now)
    }

    /// A code that signs `who` in, once, within [`CODE_LIFE`].
    pub(super) fn code(&self, who: Identity, now: BootTime) -> Result<String, NoRandom> {
        let code = random()?;
        let mut state = self.lock();
        state.codes.retain(|_, (_, made)| now.since(*made) < CODE_LIFE);
        make_room(&mut state.codes, CODES, |(_, made)| *made);
        state.codes.insert(hash(&code), (who, now));
        Ok(code)
    }

    /// Whom a code signs in; it is good no more.
    pub(super) fn redeem(&self, code: &str, now: BootTime) -> Option<Identity> {
        let (who, made) = self.lock().codes.remove(&hash(code))?;
        (now.since(made) < CODE_LIFE).then_some(who)
    }

    /// Begins a session; gives what its cookie holds.
    pub(super) fn begin(&self, who: Identity, now: BootTime) -> Result<String, NoRandom> {
        self.begin_for(who, now, LIFE)
    }

    /// Begins a session that ends after `life` whatever happens.
    pub(super) fn begin_for(&self, who: Identity, now: BootTime, life: Duration) -> Result<String, NoRandom> {
        let cookie = random()?;
        let mut state = self.lock();
        state.sessions.retain(|_, session| session.is_good(now));
        make_room(&mut state.sessions, SESSIONS, |session| session.used);
        state.sessions.insert(hash(&cookie), Session { who, until: now + life, used: now });
        Ok(cookie)
    }

    /// Whose session a cookie is; counts as a use of it.
    pub(super) fn find(&self, cookie: &str, now: BootTime) -> Option<Identity> {
        let mut state = self.lock();
        let session = state.sessions.get_mut(&hash(cookie)).filter(|session| session.is_good(now))?;
        session.used = now;
        Some(session.who.clone())
    }

    /// True while a session lasts; no use of it.
    pub(super) fn holds(&self, cookie: &str, now: BootTime) -> bool {
        self.lock().sessions.get(&hash(cookie)).is_some_and(|session| session.is_good(now))
    }

    /// Ends a session.
    pub(super) fn end(&self, cookie: &str) {
        self.lock().sessions.remove(&hash(cookie));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change of it is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A code, as the API gives it.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct NewCode {
    code: String,
    /// The path and fragment of a link that signs in.
    link: String,
    expires_in: xene_schemas::duration::Duration,
}

/// `POST /api/v1/sign-in-codes`: a code for whoever asks.
pub(in crate::http) async fn create_code(
    AxumState(api): AxumState<Arc<Api>>,
    who: Identity,
) -> Result<Response, Problem> {
    let code = api.config.sessions.code(who, clock::now().boot);
    let code = code.map_err(|error| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    let link = link(&code);
    let expires_in = xene_schemas::duration::Duration::from_secs(CODE_LIFE.as_secs());
    Ok(json(StatusCode::CREATED, &Object::new("SignInCode", NewCode { code, link, expires_in })))
}

/// The path of the page that takes a code, with it as the fragment: that part of an address is never sent, so neither
/// logs nor other sites get to see it.
pub fn link(code: &str) -> String {
    format!("/sign-in#{code}")
}

impl Session {
    fn is_good(&self, now: BootTime) -> bool {
        now.since(self.used) < IDLE && now < self.until
    }
}

/// What a form must send along to act in the session of this cookie. Other sites can't know it, and it opens nothing by
/// itself.
pub(super) fn form_token(cookie: &str) -> String {
    blake3::Hash::from(blake3::derive_key("xene 2026-11-26 form token", cookie.as_bytes())).to_hex().to_string()
}

fn make_room<V>(map: &mut HashMap<Hash, V>, limit: usize, age: impl Fn(&V) -> BootTime) {
    if map.len() >= limit
        && let Some(oldest) = map.iter().min_by_key(|(_, value)| age(value)).map(|(key, _)| *key)
    {
        map.remove(&oldest);
    }
}

fn hash(text: &str) -> Hash {
    *blake3::hash(text.as_bytes()).as_bytes()
}

pub(super) fn random() -> Result<String, NoRandom> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|_| NoRandom)?;
    Ok(blake3::Hash::from(bytes).to_hex().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> BootTime {
        BootTime::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn a_code_is_good_once_and_not_for_long() {
        let sessions = Sessions::new(false);
        let code = sessions.code(Identity::admin(), at(0)).unwrap();
        assert!(sessions.redeem("other", at(1)).is_none());
        assert!(sessions.redeem(&code, at(599)).is_some());
        assert!(sessions.redeem(&code, at(599)).is_none(), "once");
        let late = sessions.code(Identity::admin(), at(1_000)).unwrap();
        assert!(sessions.redeem(&late, at(1_600)).is_none(), "too late");
    }

    #[test]
    fn a_session_ends_by_rest_by_age_and_by_word() {
        let hour = 3_600;
        let sessions = Sessions::new(false);
        let rests = sessions.begin(Identity::admin(), at(0)).unwrap();
        assert!(sessions.find(&rests, at(12 * hour - 1)).is_some());
        assert!(sessions.find(&rests, at(24 * hour - 2)).is_some(), "each use counts");
        assert!(sessions.find(&rests, at(36 * hour)).is_none());
        let busy = sessions.begin(Identity::admin(), at(0)).unwrap();
        let seen = (0..200).take_while(|n| sessions.find(&busy, at(n * hour)).is_some()).count();
        assert_eq!(seen, 7 * 24, "whatever happens");
        let left = sessions.begin(Identity::admin(), at(0)).unwrap();
        sessions.end(&left);
        assert!(sessions.find(&left, at(1)).is_none());
    }

    #[test]
    fn neither_sessions_nor_codes_fill_the_memory() {
        let sessions = Sessions::new(false);
        let first = sessions.code(Identity::admin(), at(0)).unwrap();
        (0..CODES as u64).for_each(|n| drop(sessions.code(Identity::admin(), at(1 + n / 10)).unwrap()));
        assert_eq!(sessions.lock().codes.len(), CODES);
        assert!(sessions.redeem(&first, at(200)).is_none(), "the oldest made room");
    }

    #[test]
    fn a_form_token_tells_nothing_of_its_cookie() {
        assert_ne!(form_token("a"), form_token("b"));
        assert_ne!(form_token("a"), blake3::hash(b"a").to_hex().to_string());
    }
}
