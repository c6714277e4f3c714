//! The HTTP client: requests to the controller's API, answers or [`Error`]s.

mod certificate;

use std::{
    io::{self, Read},
    thread,
    time::Duration,
};

use serde_json::{Value, json};
use ureq::{
    Agent, Body,
    http::{Method, Request, Response, StatusCode, Uri},
    tls::TlsConfig,
};
use xene_schemas::meta::API_VERSION;

use super::{Error, Global, dirs, error::plain_cause};
use crate::{
    outgoing::{TrustError, USER_AGENT, is_local, trust},
    percent::encode,
};

/// Until a connection stands. A controller is near, or not there.
const CONNECT: Duration = Duration::from_secs(5);
/// Until a normal call is answered.
const CALL: Duration = Duration::from_secs(30);
/// `sync` waits for a fetch and all that follows.
const SYNC: Duration = Duration::from_secs(600);
/// An answer above this is not one of ours.
const LARGEST_ANSWER: u64 = 256 << 20;
/// How often a connection that was lost is tried again: for about ten minutes, long enough for an upgrade of the
/// controller, short enough for a script that nobody looks at.
pub const MAX_TRIES: u32 = 120;
/// How many objects one request asks for.
pub const PAGE: usize = 500;

/// Speaks to one controller. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    agent: Agent,
    server: String,
    token: Option<String>,
}

/// A query: names and values, encoded on the way.
pub type Query<'a> = &'a [(&'a str, &'a str)];

impl Client {
    /// A client for the server that `global` names.
    ///
    /// # Errors
    /// If its address is no URL, or its certificates can't be read.
    pub fn new(global: &Global) -> Result<Self, Error> {
        let server = global.server.trim_end_matches('/').to_owned();
        let expected = || {
            Error::usage_with_hint(
                format!("--server {server:?} is not a URL"),
                "expected something like http://127.0.0.1:7420 or https://xene.example",
            )
        };
        let uri: Uri = server.parse().map_err(|_| expected())?;
        let host = uri.host().ok_or_else(expected)?.to_owned();
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .user_agent(USER_AGENT)
            .timeout_connect(Some(CONNECT))
            .timeout_resolve(Some(CONNECT));
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => config = config.tls_config(tls(global)?),
            _ => return Err(expected()),
        }
        // A token found by itself goes to this machine only: it must not leak to whatever --server names.
        let given = global.token.clone().filter(|token| !token.is_empty());
        let token = given.or_else(|| is_local(&host).then(dirs::local_admin_token).flatten());
        Ok(Self { agent: config.build().into(), server, token })
    }

    /// The server's URL.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// GET of one object or one page.
    ///
    /// # Errors
    /// If the controller can't be reached, refuses, or answers something odd.
    pub fn get(&self, path: &str, query: Query<'_>) -> Result<Value, Error> {
        self.call(Method::GET, path, query, None, &[], CALL)
    }

    /// GET of all pages of a list, as one.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn list(&self, path: &str, query: Query<'_>) -> Result<Value, Error> {
        let (mut items, mut after) = (Vec::new(), None::<String>);
        let limit = PAGE.to_string();
        loop {
            let mut page_query = query.to_vec();
            page_query.push(("limit", &limit));
            page_query.extend(after.as_deref().map(|name| ("after", name)));
            let page = self.page(path, &page_query)?;
            let (full, last) = (page.len() >= PAGE, page.last().and_then(name_of));
            items.extend(page);
            match last {
                Some(last) if full && after.as_ref() != Some(&last) => after = Some(last),
                _ => return Ok(json!({"apiVersion": API_VERSION, "kind": "List", "items": items})),
            }
        }
    }

    /// The items of one page.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn page(&self, path: &str, query: Query<'_>) -> Result<Vec<Value>, Error> {
        match self.get(path, query)? {
            Value::Object(mut list) => match list.swap_remove("items") {
                Some(Value::Array(items)) => Ok(items),
                _ => Err(odd(&Method::GET, path, "it is not a list")),
            },
            _ => Err(odd(&Method::GET, path, "it is not a list")),
        }
    }

    /// POST with a JSON body; an empty answer is `null`.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn post(&self, path: &str, body: &Value, headers: Query<'_>) -> Result<Value, Error> {
        self.call(Method::POST, path, &[], Some(body), headers, CALL)
    }

    /// POST that waits until the source is in effect.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn sync(&self) -> Result<Value, Error> {
        self.call(Method::POST, "/api/v1/sync", &[], Some(&json!({})), &[], SYNC)
    }

    /// GET of an answer without end, read as it comes. If `silence` passes without a byte the reader fails.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn stream(
        &self,
        path: &str,
        query: Query<'_>,
        headers: Query<'_>,
        silence: Option<Duration>,
    ) -> Result<Box<dyn Read + Send>, Error> {
        let request = self.request(&Method::GET, path, query, headers)?;
        let request = request.body(()).map_err(|error| odd(&Method::GET, path, &error.to_string()))?;
        let request = self.agent.configure_request(request).timeout_per_read(silence).build();
        let response = self.agent.run(request).map_err(|error| self.failed(&Method::GET, path, error))?;
        let response = self.checked(&Method::GET, path, response)?;
        Ok(Box::new(response.into_body().into_with_config().limit(u64::MAX).reader()))
    }

    /// [`Self::stream`] that survives a controller's restart: after a break it reads anew and passes over what it
    /// had. Only for answers that begin with the same bytes each time, as a log does. `lost` is called when a lost
    /// connection can't be made again at once.
    ///
    /// # Errors
    /// As [`Self::get`], for the first connection.
    pub fn resuming(&self, path: &str, query: Query<'_>, lost: fn()) -> Result<Resuming, Error> {
        let query: Vec<_> = query.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let mut reader =
            Resuming { client: self.clone(), path: path.into(), query, inner: Box::new(io::empty()), read: 0, lost };
        reader.connect()?;
        Ok(reader)
    }

    fn request(
        &self,
        method: &Method,
        path: &str,
        query: Query<'_>,
        headers: Query<'_>,
    ) -> Result<ureq::http::request::Builder, Error> {
        let mut uri = format!("{}{path}", self.server);
        for (i, (name, value)) in query.iter().enumerate() {
            uri += if i == 0 { "?" } else { "&" };
            uri += name;
            uri += "=";
            uri += &encode(value);
        }
        let mut request = Request::builder().method(method).uri(uri).header("accept", "application/json, */*");
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Ok(request)
    }

    fn call(
        &self,
        method: Method,
        path: &str,
        query: Query<'_>,
        body: Option<&Value>,
        headers: Query<'_>,
        timeout: Duration,
    ) -> Result<Value, Error> {
        let request = self.request(&method, path, query, headers)?;
        let request = match body {
            Some(_) => request.header("content-type", "application/json"),
            None => request,
        };
        let text = body.map(Value::to_string).unwrap_or_default();
        let unusable = |error: ureq::http::Error| Error::usage(format!("the request can't be written: {error}"));
        let response = match body {
            Some(_) => {
                let request = request.body(text).map_err(unusable)?;
                self.agent.run(self.agent.configure_request(request).timeout_global(Some(timeout)).build())
            }
            None => {
                let request = request.body(()).map_err(unusable)?;
                self.agent.run(self.agent.configure_request(request).timeout_global(Some(timeout)).build())
            }
        };
        let response = response.map_err(|error| self.failed(&method, path, error))?;
        let response = self.checked(&method, path, response)?;
        let text = response.into_body().into_with_config().limit(LARGEST_ANSWER).read_to_vec();
        let text = text.map_err(|error| self.failed(&method, path, error))?;
        if text.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&text).map_err(|error| odd(&method, path, &error.to_string()))
    }

    /// The response, if it is one of success.
    fn checked(&self, method: &Method, path: &str, response: Response<Body>) -> Result<Response<Body>, Error> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let text = response.into_body().into_with_config().limit(1 << 20).read_to_vec().unwrap_or_default();
        let problem: Value = serde_json::from_slice(&text).unwrap_or_default();
        let field = |name: &str| problem.get(name).and_then(Value::as_str).map(str::to_owned);
        let (said, hint) = (field("detail").or_else(|| field("title")), field("hint"));
        Err(match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Error::NotAllowed {
                message: said.unwrap_or_else(|| "the controller does not allow this".into()),
                token_sent: self.token.is_some(),
            },
            StatusCode::NOT_FOUND => {
                Error::NotFound { message: said.unwrap_or_else(|| format!("there is nothing at {path}")), hint }
            }
            StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => Error::Usage {
                message: said.unwrap_or_else(|| "the controller does not understand the request".into()),
                hint,
            },
            // The controller is there, and what it needs is not: it says so in a sentence.
            StatusCode::BAD_GATEWAY if let Some(message) = said => Error::Refused { message, hint },
            // A controller that starts or ends, or whatever stands before it: as good as not there.
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
                let cause = said.unwrap_or_else(|| format!("it answers {status}"));
                Error::Unreachable { server: self.server.clone(), cause }
            }
            status if status.is_client_error() || status.is_server_error() => {
                Error::Refused { message: said.unwrap_or_else(|| format!("the controller answers {status}")), hint }
            }
            status => odd(method, path, &format!("its status is {status}")),
        })
    }

    fn failed(&self, method: &Method, path: &str, error: ureq::Error) -> Error {
        if let Some((cause, hint)) = certificate::fault(&error) {
            return Error::Certificate { server: self.server.clone(), cause, hint };
        }
        let cause = match error {
            ureq::Error::Io(error) => plain_cause(&error),
            ureq::Error::HostNotFound => "no such host".into(),
            ureq::Error::Timeout(_) => "no answer in time".into(),
            ureq::Error::ConnectionFailed => "the connection failed".into(),
            ureq::Error::Rustls(error) => error.to_string(),
            ureq::Error::Tls(error) => error.into(),
            other => return odd(method, path, &other.to_string()),
        };
        Error::Unreachable { server: self.server.clone(), cause }
    }
}

fn odd(method: &Method, path: &str, cause: &str) -> Error {
    Error::Answer { request: format!("{method} {path}"), cause: cause.into() }
}

/// An object's place in its list: a name, or an event's number.
fn name_of(item: &Value) -> Option<String> {
    match (item.pointer("/metadata/name"), item.get("id")) {
        (Some(Value::String(name)), _) => Some(name.clone()),
        (_, Some(id)) => Some(id.to_string()),
        _ => None,
    }
}

fn tls(global: &Global) -> Result<TlsConfig, Error> {
    let path = global.ca.clone().or_else(dirs::system_certificates).ok_or_else(|| {
        Error::usage_with_hint("this system keeps no certificates where others do", "name them with --ca FILE")
    })?;
    trust(&path).map_err(|error| match error {
        TrustError::File { source, .. } => Error::file(&path, &source),
        TrustError::Empty(_) => Error::usage(error.to_string()),
    })
}

/// How long to wait before the `n`th try to connect again: 250 ms, doubled each time, at most 5 s.
pub fn pause(n: u32) -> Duration {
    Duration::from_millis(250 << n.min(5)).min(Duration::from_secs(5))
}

/// See [`Client::resuming`].
pub struct Resuming {
    client: Client,
    path: String,
    query: Vec<(String, String)>,
    inner: Box<dyn Read + Send>,
    read: u64,
    lost: fn(),
}

impl std::fmt::Debug for Resuming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resuming").field("path", &self.path).field("read", &self.read).finish_non_exhaustive()
    }
}

impl Resuming {
    fn connect(&mut self) -> Result<(), Error> {
        let query: Vec<_> = self.query.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        self.inner = self.client.stream(&self.path, &query, &[], None)?;
        Ok(())
    }

    /// Connects until it stands, and passes over what was read before.
    fn reconnect(&mut self) -> io::Result<()> {
        for attempt in 0..MAX_TRIES {
            thread::sleep(pause(attempt));
            if attempt == 1 {
                (self.lost)();
            }
            match self.connect() {
                Ok(()) => match io::copy(&mut self.inner.by_ref().take(self.read), &mut io::sink()) {
                    Ok(skipped) if skipped == self.read => return Ok(()),
                    Ok(_) => return Err(io::Error::other("the log is shorter than it was")),
                    Err(_) => {}
                },
                Err(Error::Unreachable { .. }) => {}
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        Err(io::Error::other("the controller does not come back"))
    }
}

impl Read for Resuming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.inner.read(buffer) {
                Ok(read) => {
                    self.read += read as u64;
                    return Ok(read);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => self.reconnect()?,
            }
        }
    }
}

#[cfg(test)]
mod tests;
