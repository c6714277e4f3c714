//! How pages read and act: as a client of the API, in the same process, with what the signed-in person may do. What the
//! API refuses, filters or records holds for the UI too.

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{Method, Request, StatusCode, header},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use tower::ServiceExt as _;

use crate::http::{identity::Identity, problem::Problem};

/// An answer above this is not one of ours.
const LARGEST: usize = 64 << 20;

/// Why the API gave nothing.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) status: StatusCode,
    pub(super) detail: String,
    pub(super) hint: Option<String>,
    /// One word, where something can be done about it.
    pub(super) reason: Option<String>,
}

impl Failure {
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), hint: None, reason: None }
    }

    pub(super) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "there is nothing at this address")
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self { hint: problem.hint.map(str::to_owned), ..Self::new(problem.status, problem.detail) }
    }
}

impl From<super::lines::Error> for Failure {
    fn from(error: super::lines::Error) -> Self {
        match error {
            super::lines::Error::Log(crate::store::logs::LogError::Deleted) => {
                Self::new(StatusCode::NOT_FOUND, "the log was removed")
            }
            error => {
                tracing::error!(%error, "a log can't be shown");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "the log can't be read")
            }
        }
    }
}

#[derive(Deserialize)]
struct ProblemBody {
    detail: String,
    hint: Option<String>,
    reason: Option<String>,
}

#[derive(Deserialize)]
struct List<T> {
    items: Vec<T>,
}

/// The beginning of a list: what a page shows of it.
#[derive(Debug)]
pub(super) struct Part<T> {
    pub(super) items: Vec<T>,
    /// True if there are others.
    pub(super) is_more: bool,
}

impl<T> Part<T> {
    /// What the next part begins after, if there is one.
    pub(super) fn last(&self) -> Option<&T> {
        self.items.last().filter(|_| self.is_more)
    }
}

/// The API, in somebody's name.
#[derive(Debug, Clone)]
pub(super) struct Client {
    /// The API's routes without what reads tokens.
    pub(super) api: Router,
    pub(super) who: Identity,
}

impl Client {
    /// One object.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.call(Method::GET, path, None).await
    }

    /// One object, if it is there.
    pub(super) async fn find<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, Failure> {
        match self.get(path).await {
            Ok(found) => Ok(Some(found)),
            Err(failure) if matches!(failure.status, StatusCode::NOT_FOUND | StatusCode::SERVICE_UNAVAILABLE) => {
                Ok(None)
            }
            Err(failure) => Err(failure),
        }
    }

    /// The first so many of a list, and whether there are others.
    pub(super) async fn part<T: DeserializeOwned>(&self, path: &str, count: usize) -> Result<Part<T>, Failure> {
        let joint = if path.contains('?') { '&' } else { '?' };
        let mut items: Vec<T> = self.list(&format!("{path}{joint}limit={}", count + 1)).await?;
        let is_more = items.len() > count;
        items.truncate(count);
        Ok(Part { items, is_more })
    }

    /// A list that is short, or whose path says how much of it is wanted.
    pub(super) async fn list<T: DeserializeOwned>(&self, path: &str) -> Result<Vec<T>, Failure> {
        self.get::<List<T>>(path).await.map(|list| list.items)
    }

    /// Asks for something to be done.
    pub(super) async fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.call(Method::POST, path, Some(body)).await
    }

    async fn call<T: DeserializeOwned>(&self, method: Method, path: &str, body: Option<&Value>) -> Result<T, Failure> {
        let odd = |what: &dyn std::fmt::Display| {
            tracing::error!(path, %what, "the API gives the UI what it can't read");
            Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "the controller gives an answer that can't be shown")
        };
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::CONTENT_TYPE, "application/json")
            .body(body)
            .map_err(|error| odd(&error))?;
        request.extensions_mut().insert(self.who.clone());
        let Ok(response) = self.api.clone().oneshot(request).await;
        let status = response.status();
        let bytes = to_bytes(response.into_body(), LARGEST).await.map_err(|error| odd(&error))?;
        if status.is_success() {
            return serde_json::from_slice(&bytes).map_err(|error| odd(&error));
        }
        let told = serde_json::from_slice::<ProblemBody>(&bytes).ok();
        Err(match told {
            Some(ProblemBody { detail, hint, reason }) => Failure { status, detail, hint, reason },
            None => Failure::new(status, status.canonical_reason().unwrap_or("the request failed")),
        })
    }
}
