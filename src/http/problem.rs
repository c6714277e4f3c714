//! Errors as RFC 9457 problem documents: a title, a sentence, where it helps a hint.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::json;

use crate::{
    decide::event::Refusal,
    driver::Closed,
    store::{StoreError, logs::LogError},
};

/// Of a problem document.
pub(super) const CONTENT_TYPE: &str = "application/problem+json";

/// Soon there is room again, in seconds.
const A_MOMENT: u64 = 5;

/// An error, as a client gets it.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    pub(super) detail: String,
    pub(super) hint: Option<&'static str>,
    /// One word, where a program can do something about it.
    reason: Option<&'static str>,
    /// When to try again, in seconds.
    retry_after: Option<u64>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), hint: None, reason: None, retry_after: None }
    }

    /// One for which only the status is known.
    pub(super) fn of_status(status: StatusCode) -> Self {
        if status == StatusCode::SERVICE_UNAVAILABLE {
            return Self::new(status, "too much is sent at once; try again in a moment").retry_after(A_MOMENT);
        }
        Self::new(
            status,
            match status {
                StatusCode::BAD_REQUEST => "the request can't be read: is what its address or body encodes text?",
                StatusCode::METHOD_NOT_ALLOWED => "this address does not take that method",
                StatusCode::REQUEST_TIMEOUT => "the body comes too slowly",
                StatusCode::PAYLOAD_TOO_LARGE => "the body is longer than this address takes",
                _ => status.canonical_reason().unwrap_or("the request failed"),
            },
        )
    }

    pub(super) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// What a client reads: the status and the sentence.
    #[cfg(test)]
    pub(super) fn told(self) -> (u16, String) {
        (self.status.as_u16(), self.detail)
    }

    pub(super) fn hint(self, hint: &'static str) -> Self {
        Self { hint: Some(hint), ..self }
    }

    pub(super) fn retry_after(self, seconds: u64) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }

    /// Something is wrong here that the client can't mend: told in full only to the log.
    fn internal(what: &'static str, error: &dyn std::fmt::Display) -> Self {
        tracing::error!(%error, "{what}");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, what)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut body = json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or("Error"),
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        if let Some(hint) = self.hint {
            body["hint"] = hint.into();
        }
        if let Some(reason) = self.reason {
            body["reason"] = reason.into();
        }
        let kind = (header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
        let mut response = (self.status, [kind], format!("{body}\n")).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

impl From<Closed> for Problem {
    fn from(closed: Closed) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, closed.to_string())
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        Self::internal("the store can't be read", &error)
    }
}

impl From<LogError> for Problem {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Deleted => Self::not_found("the log was removed"),
            error => Self::internal("the log can't be read", &error),
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let status = match refusal {
            Refusal::NotFound { .. } => StatusCode::NOT_FOUND,
            Refusal::Token => StatusCode::FORBIDDEN,
            Refusal::DiskFull => StatusCode::INSUFFICIENT_STORAGE,
            Refusal::SpecChanged
            | Refusal::Suspended(_)
            | Refusal::NameTaken(_)
            | Refusal::TokenNameTaken(_)
            | Refusal::Connected(_)
            | Refusal::Ended(_)
            | Refusal::NotEnded(_)
            | Refusal::NothingFailed(_)
            | Refusal::NotWaiting { .. }
            | Refusal::Decided { .. }
            | Refusal::NotSuspended(_)
            | Refusal::NotPaused
            | Refusal::NoClockLeap
            | Refusal::NothingBlocked
            | Refusal::OtherCommit(_) => StatusCode::CONFLICT,
        };
        let reason = matches!(refusal, Refusal::Suspended(_)).then_some("Suspended");
        Self { reason, ..Self::new(status, refusal.to_string()) }
    }
}
