//! What a webhook trigger makes of a request: whether it starts anything, and with which params. Expressions are
//! evaluated over `payload`, `headers` and `query`, within bounds that hold whoever sends.

use axum::http::{HeaderMap, StatusCode};
use indexmap::IndexMap;
use xene_agent::expr::{Expr, ExprError, Scope, Value};
use xene_schemas::{meta::Name, trigger::Webhook};

use super::problem::Problem;

/// Headers that prove who sends: no expression sees them, so none of them becomes a param, or a line of a log.
pub(super) const PROOFS: [&str; 12] = [
    "authorization",
    "cookie",
    "proxy-authorization",
    "x-forgejo-signature",
    "x-gitea-signature",
    "x-gitlab-token",
    "x-gogs-signature",
    "x-hub-signature",
    "x-hub-signature-256",
    "x-signature",
    "x-xene-signature",
    "x-xene-token",
];

/// What a trigger gives to the runs that it starts; `None`: its `when` is false.
///
/// # Errors
/// If an expression has no value, or one that does not fit.
pub(super) fn evaluate(
    trigger: &Name,
    webhook: &Webhook,
    headers: &HeaderMap,
    query: &[(String, String)],
    body: &[u8],
) -> Result<Option<IndexMap<String, String>>, Problem> {
    let mut given = IndexMap::new();
    if webhook.when.is_none() && webhook.params.is_empty() {
        return Ok(Some(given));
    }
    let scope = scope(headers, query, body);
    if let Some(when) = &webhook.when {
        let passes = Expr::parse(when).and_then(|when| when.eval_bool(&scope));
        if !passes.map_err(|error| refuse(trigger, "when", &error))? {
            return Ok(None);
        }
    }
    for (name, text) in &webhook.params {
        let value = Expr::parse(text).and_then(|param| param.eval(&scope));
        match value.map_err(|error| refuse(trigger, &format!("param {name}"), &error))? {
            // Nothing is given: the default counts.
            Value::Null => {}
            value => {
                let value = value.to_text().map_err(|error| refuse(trigger, &format!("param {name}"), &error))?;
                given.insert(name.clone(), value);
            }
        }
    }
    Ok(Some(given))
}

fn refuse(trigger: &Name, what: &str, error: &ExprError) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, format!("trigger {trigger}, {what}: {error}"))
}

fn scope(headers: &HeaderMap, query: &[(String, String)], body: &[u8]) -> Scope {
    // What is no JSON, or too much of it, is there for the steps only.
    let payload = serde_json::from_slice(body).ok().and_then(|json| Value::from_json(&json).ok());
    let mut named: IndexMap<String, String> = IndexMap::new();
    for (name, value) in headers {
        let (name, Ok(value)) = (name.as_str(), value.to_str()) else { continue };
        if PROOFS.contains(&name) {
            continue;
        }
        let known = named.entry(name.to_owned()).or_default();
        if !known.is_empty() {
            known.push_str(", ");
        }
        known.push_str(value);
    }
    let map = |pairs: &mut dyn Iterator<Item = (String, String)>| {
        Value::map(pairs.map(|(name, value)| (name, Value::String(value.into()))))
    };
    Scope::new()
        .with("payload", payload.unwrap_or(Value::Null))
        .with("headers", map(&mut named.into_iter()))
        .with("query", map(&mut query.iter().cloned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(when: Option<&str>, params: &[(&str, &str)], body: &str) -> Result<Option<Vec<String>>, (u16, String)> {
        let webhook = Webhook {
            when: when.map(str::to_owned),
            params: params.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect(),
            ..Webhook::default()
        };
        let mut headers = HeaderMap::new();
        headers.insert("x-event", "push".parse().unwrap());
        headers.insert("authorization", "Bearer secret".parse().unwrap());
        let query = [("env".to_owned(), "test".to_owned())];
        let given = evaluate(&"t".parse().unwrap(), &webhook, &headers, &query, body.as_bytes());
        given
            .map(|given| given.map(|given| given.iter().map(|(name, value)| format!("{name}={value}")).collect()))
            .map_err(|problem| problem.told())
    }

    #[test]
    fn params_come_from_payload_headers_and_query() {
        let params = [
            ("ref", "payload.ref"),
            ("count", "size(payload.commits)"),
            ("event", r#"headers["x-event"]"#),
            ("where", "query.env"),
            ("tag", "has(payload.tag) ? payload.tag : null"),
        ];
        let body = r#"{"ref": "main; rm -rf /", "commits": [1, 2]}"#;
        let given = told(Some(r#"payload.ref.startsWith("main")"#), &params, body).unwrap().unwrap();
        assert_eq!(given, ["ref=main; rm -rf /", "count=2", "event=push", "where=test"]);
        assert_eq!(told(Some(r#"payload.ref == "other""#), &params, body), Ok(None));
    }

    #[test]
    fn what_has_no_value_is_refused_in_a_sentence() {
        for (when, params, body) in [
            (Some("payload.ref"), &[][..], r#"{"ref": "x"}"#),
            (Some("payload.nothing == 1"), &[][..], "{}"),
            (None, &[("a", "payload.a.b")][..], "no json"),
            (None, &[("a", "headers.authorization")][..], "{}"),
        ] {
            let (status, message) = told(when, params, body).unwrap_err();
            assert!(status == 422 && message.starts_with("trigger t, "), "{message}");
        }
    }

    #[test]
    fn a_body_that_is_no_json_or_too_deep_is_null() {
        let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
        for body in ["", "a=b", "{", &deep] {
            assert_eq!(told(Some("payload == null"), &[], body), Ok(Some(vec![])), "{body}");
        }
    }
}
