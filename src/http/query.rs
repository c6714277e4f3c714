//! Queries of lists: paging, filters, labels. An unknown parameter is an error, not silence.

use std::str::FromStr;

use axum::{
    extract::{FromRequestParts, Query as Pairs},
    http::request::Parts,
};
use jiff::Timestamp;
use xene_agent::clock;
use xene_schemas::duration::Duration;

use super::problem::Problem;

/// How many items a list has where nobody says.
const DEFAULT_LIMIT: usize = 100;
/// The most that one answer has.
const MAX_LIMIT: usize = 10_000;

/// The parameters of a request that have not been taken yet, and the names of those that were.
#[derive(Debug)]
pub(super) struct Query(Vec<(String, String)>, Vec<String>);

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Pairs(pairs) = Pairs::<Vec<(String, String)>>::from_request_parts(parts, state)
            .await
            .map_err(|error| Problem::bad_request(format!("the query can't be read: {error}")))?;
        Ok(Self(pairs, Vec::new()))
    }
}

impl Query {
    /// All of them, as they came.
    pub(super) fn into_pairs(self) -> Vec<(String, String)> {
        self.0
    }

    /// Takes a parameter; an empty one counts as absent.
    pub(super) fn take(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(found, _)| found == name)?;
        let (name, value) = self.0.swap_remove(at);
        self.1.push(name);
        Some(value).filter(|value| !value.is_empty())
    }

    /// Takes a parameter and reads it; `expected` says what it should be.
    pub(super) fn parse<T: FromStr>(&mut self, name: &str, expected: &str) -> Result<Option<T>, Problem> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let refuse = |_| Problem::bad_request(format!("{name} takes {expected}, not {value:?}"));
        value.parse().map(Some).map_err(refuse)
    }

    /// Takes a parameter that is true or false.
    pub(super) fn flag(&mut self, name: &str) -> Result<bool, Problem> {
        Ok(self.parse(name, "true or false")?.unwrap_or(false))
    }

    /// Takes `limit`.
    pub(super) fn limit(&mut self) -> Result<usize, Problem> {
        let limit = self.parse("limit", "a number from 1 to 10000")?.unwrap_or(DEFAULT_LIMIT);
        if !(1..=MAX_LIMIT).contains(&limit) {
            return Err(Problem::bad_request(format!("limit takes a number from 1 to {MAX_LIMIT}, not {limit}")));
        }
        Ok(limit)
    }

    /// Takes `since`: a time, or how long ago.
    pub(super) fn since(&mut self) -> Result<Option<Timestamp>, Problem> {
        self.moment("since")
    }

    /// Takes `until`: a time, or how long ago.
    pub(super) fn until(&mut self) -> Result<Option<Timestamp>, Problem> {
        self.moment("until")
    }

    fn moment(&mut self, name: &str) -> Result<Option<Timestamp>, Problem> {
        let Some(value) = self.take(name) else { return Ok(None) };
        if let Ok(at) = value.parse::<Timestamp>() {
            return Ok(Some(at));
        }
        let refuse = || Problem::bad_request(format!("{name} takes an RFC 3339 time or a duration, not {value:?}"));
        let ago = value.parse::<Duration>().map_err(|_| refuse())?;
        let ago = std::time::Duration::from_millis(ago.as_millis());
        clock::now().wall.checked_sub(ago).map(Some).map_err(|_| refuse())
    }

    /// Takes `labels`.
    pub(super) fn labels(&mut self) -> Result<Selector, Problem> {
        let mut pairs = Vec::new();
        while let Some(text) = self.take("labels") {
            for part in text.split(',') {
                let Some((key, value)) = part.split_once('=') else {
                    return Err(Problem::bad_request(format!("labels takes key=value,…, not {part:?}")));
                };
                pairs.push((key.trim().to_owned(), value.trim().to_owned()));
            }
        }
        Ok(Selector(pairs))
    }

    /// # Errors
    /// If a parameter was given that nobody took.
    pub(super) fn finish(self) -> Result<(), Problem> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) if self.1.contains(name) => {
                Err(Problem::bad_request(format!("the parameter {name:?} is given more than once")))
            }
            Some((name, _)) => Err(Problem::bad_request(format!("there is no parameter {name:?} here"))),
        }
    }
}

/// Labels that an object must have, all of them.
#[derive(Debug)]
pub(super) struct Selector(Vec<(String, String)>);

impl Selector {
    /// True if every object matches.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// True if the labels that `value_of` knows hold all that are asked for.
    pub(super) fn matches<'a>(&self, value_of: impl Fn(&str) -> Option<&'a String>) -> bool {
        self.0.iter().all(|(key, value)| value_of(key) == Some(value))
    }
}
