//! One HTTP request, and what its answer means.

use std::{path::Path, time::Duration};

use jiff::{Timestamp, fmt::rfc2822};
use ureq::{
    http::{HeaderMap, Request, Response, StatusCode},
    tls::TlsConfig,
};
use xene_agent::clock;

use super::{Config, Failure, TIME_LIMIT, text, written::Post};
use crate::outgoing::{agent, trust};

/// So much of an answer is read, in bytes.
const ANSWER: u64 = 16 << 10;

/// Sends it, and says what was answered.
pub(super) fn send(config: &Config, post: Post) -> Result<String, Failure> {
    let is_tls = post.url.starts_with("https:");
    let trusted = is_tls.then(|| tls(config.certificates.as_deref())).transpose().map_err(Failure::passing)?;
    let agent = agent(trusted, TIME_LIMIT);
    let mut request = Request::post(&post.url);
    for (name, value) in post.headers {
        request = request.header(name, value);
    }
    let request = request.body(post.body).map_err(|_| Failure::passing("its credential makes no request"))?;
    let response = agent.run(request).map_err(|error| Failure::passing(plain(&error)))?;
    let (status, headers) = (response.status(), response.headers().clone());
    let said = answer(response);
    judge(status, &headers, &said, clock::now().wall)
}

/// What an answer means: taken, refused for good, or perhaps taken another time.
fn judge(status: StatusCode, headers: &HeaderMap, said: &str, now: Timestamp) -> Result<String, Failure> {
    let number = status.as_u16();
    let words = if said.is_empty() { String::new() } else { format!(": {said}") };
    let answered = format!("{number} was answered{words}");
    // GitLab has no change from a state to itself; it is in that state, which is what was asked for.
    if status.is_success() || (number == 400 && said.contains("Cannot transition status")) {
        return Ok(answered);
    }
    if status.is_redirection() {
        return Err(Failure::lasting(format!("{number} was answered: it leads elsewhere, and that is not followed")));
    }
    // Whoever is asked for too much, or does not take the credential yet, may take the message later.
    let passes = status.is_server_error() || matches!(number, 401 | 403 | 404 | 408 | 425 | 429);
    if !passes {
        return Err(Failure::lasting(answered));
    }
    Err(Failure { why: answered, retry: true, retry_after: retry_after(headers, now) })
}

/// How long to wait, as seconds or as a date.
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get("retry-after")?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = rfc2822::parse(text).ok()?.timestamp();
    Duration::try_from(at.duration_since(now)).ok()
}

/// What was answered, on one line, if it is text. Not shortened: half a secret would not be known as one.
fn answer(response: Response<ureq::Body>) -> String {
    let bytes = response.into_body().into_with_config().limit(ANSWER).read_to_vec().unwrap_or_default();
    let whole = String::from_utf8_lossy(&bytes);
    text::plain(whole.trim(), whole.len())
}

/// What went wrong, without the address that it went wrong with.
fn plain(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Timeout(_) => format!("it was not answered within {} seconds", TIME_LIMIT.as_secs()),
        ureq::Error::HostNotFound => "its host is not found".into(),
        ureq::Error::Io(error) => format!("it can't be reached: {}", error.kind()),
        ureq::Error::ConnectionFailed => "it can't be reached".into(),
        ureq::Error::Rustls(error) => format!("TLS with it fails: {error}"),
        ureq::Error::Tls(error) => format!("TLS with it fails: {error}"),
        _ => "its answer is none of HTTP".into(),
    }
}

fn tls(certificates: Option<&Path>) -> Result<TlsConfig, String> {
    let path = certificates
        .ok_or("this system keeps no certificates where others do: name them in SSL_CERT_FILE of the controller")?;
    trust(path).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(number: u16, headers: &[(&'static str, &str)], said: &str) -> Result<String, Failure> {
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        let now = "2026-11-27T10:00:00Z".parse().unwrap();
        judge(StatusCode::from_u16(number).unwrap(), &headers, said, now)
    }

    #[test]
    fn answers_mean_taken_refused_or_later() {
        for number in [200, 201, 202, 204] {
            assert!(judged(number, &[], "").is_ok(), "{number}");
        }
        for number in [400, 405, 410, 413, 415, 422, 301, 302, 307, 308] {
            assert!(!judged(number, &[], "").unwrap_err().retry, "{number}");
        }
        for number in [401, 403, 404, 408, 425, 429, 500, 502, 503, 504] {
            assert!(judged(number, &[], "").unwrap_err().retry, "{number}");
        }
        assert!(judged(400, &[], r#"{"message":"Cannot transition status via :run from :running"}"#).is_ok());
    }

    #[test]
    fn the_time_to_come_back_is_heard_as_seconds_and_as_a_date() {
        let wait = |value: &str| judged(503, &[("retry-after", value)], "").unwrap_err().retry_after;
        assert_eq!(wait("120"), Some(Duration::from_secs(120)));
        assert_eq!(wait("Fri, 27 Nov 2026 10:01:00 GMT"), Some(Duration::from_secs(60)));
        assert_eq!(wait("Fri, 27 Nov 2026 09:59:00 GMT"), None, "it is over");
        assert_eq!(wait("soon"), None);
    }
}
