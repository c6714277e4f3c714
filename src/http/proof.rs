//! How the sender of a webhook trigger with `auth` proves itself: over the body's bytes, before anything of it is read.

use std::time::Duration;

use axum::http::HeaderMap;
use jiff::{SignedDuration, Timestamp};
use ring::hmac;
use subtle::ConstantTimeEq as _;
use xene_schemas::trigger::WebhookAuthType;

use super::auth::{bearer, unhex};

/// How far a signed time may be off.
const WINDOW: Duration = Duration::from_secs(5 * 60);

const SIGNATURE: &str = "x-signature";
const TIMESTAMP: &str = "x-timestamp";
const DELIVERY: &str = "x-delivery-id";

/// Headers that prove something over the body.
const SIGNATURES: [&str; 5] =
    ["x-hub-signature-256", "x-hub-signature", "x-gitea-signature", "x-forgejo-signature", SIGNATURE];

/// True if a request can only be proven by its body: without one of these, a token proves it or nothing does.
pub(super) fn is_signed(headers: &HeaderMap) -> bool {
    SIGNATURES.iter().any(|name| headers.contains_key(*name))
}

/// True if a request is proven by `secret`.
pub(super) fn is_proven(
    scheme: WebhookAuthType,
    secret: &str,
    headers: &HeaderMap,
    body: &[u8],
    now: Timestamp,
) -> bool {
    let header = |name: &str| headers.get(name)?.to_str().ok();
    let is_secret = |shown: &str| shown.as_bytes().ct_eq(secret.as_bytes()).into();
    let signs = |hex: &str| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        unhex(hex).is_some_and(|signature| hmac::verify(&key, body, &signature).is_ok())
    };
    let prefixed = |name: &str| header(name)?.strip_prefix("sha256=");
    match scheme {
        WebhookAuthType::Token => bearer(headers).or_else(|| header("x-xene-token")).is_some_and(is_secret),
        WebhookAuthType::Gitlab => header("x-gitlab-token").is_some_and(is_secret),
        WebhookAuthType::Github => prefixed("x-hub-signature-256").is_some_and(signs),
        WebhookAuthType::Bitbucket => prefixed("x-hub-signature").is_some_and(signs),
        WebhookAuthType::Gitea => {
            header("x-gitea-signature").or_else(|| header("x-forgejo-signature")).is_some_and(signs)
        }
        WebhookAuthType::HmacSha256 => {
            let (Some(signature), Some(timestamp)) = (prefixed(SIGNATURE).and_then(unhex), header(TIMESTAMP)) else {
                return false;
            };
            let Some(delivery) = headers.get(DELIVERY).map_or(Some(""), |id| id.to_str().ok()) else { return false };
            let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
            let signed = [timestamp.as_bytes(), b".", delivery.as_bytes(), b".", body].concat();
            hmac::verify(&key, &signed, &signature).is_ok() && is_young(timestamp, now)
        }
    }
}

fn is_young(timestamp: &str, now: Timestamp) -> bool {
    let at = timestamp.parse().ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    at.is_some_and(|at| now.duration_since(at).abs() <= SignedDuration::try_from(WINDOW).unwrap_or_default())
}

/// Where a sender puts the id of a delivery, which stays when it tries again. Of our own scheme the signature itself is
/// one, where no other is given: it is over the time too.
pub(super) const fn delivery_headers(scheme: WebhookAuthType) -> &'static [&'static str] {
    match scheme {
        WebhookAuthType::Token => &[DELIVERY, "idempotency-key"],
        WebhookAuthType::HmacSha256 => &[DELIVERY, SIGNATURE],
        WebhookAuthType::Github => &["x-github-delivery"],
        WebhookAuthType::Gitlab => &["idempotency-key", "x-gitlab-event-uuid"],
        WebhookAuthType::Gitea => &["x-gitea-delivery", "x-forgejo-delivery"],
        WebhookAuthType::Bitbucket => &["x-request-uuid", "x-request-id"],
    }
}

/// The id of a delivery, as far as it is proven. A signature is one whatever the case of its digits.
pub(super) fn proven_id(scheme: Option<WebhookAuthType>, headers: &HeaderMap, id: String) -> String {
    let is_signature = scheme == Some(WebhookAuthType::HmacSha256) && !headers.contains_key(DELIVERY);
    if is_signature { id.to_ascii_lowercase() } else { id }
}

/// True if the server only tries whether it reaches us.
pub(super) fn is_ping(scheme: WebhookAuthType, headers: &HeaderMap) -> bool {
    let event = match scheme {
        WebhookAuthType::Github => "x-github-event",
        WebhookAuthType::Gitea => "x-gitea-event",
        WebhookAuthType::Bitbucket => "x-event-key",
        WebhookAuthType::Token | WebhookAuthType::HmacSha256 | WebhookAuthType::Gitlab => return false,
    };
    headers.get(event).is_some_and(|event| event == "ping" || event == "diagnostics:ping")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "5ca1ab1e";
    const BODY: &[u8] = br#"{"ref": "refs/heads/main"}"#;

    fn signed(bytes: &[u8]) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
        hmac::sign(&key, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn proven(scheme: WebhookAuthType, headers: &[(&'static str, String)], body: &[u8]) -> bool {
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        is_proven(scheme, SECRET, &headers, body, Timestamp::from_second(1_000_000).unwrap())
    }

    #[test]
    fn each_scheme_takes_its_own_proof_over_these_bytes_alone() {
        let hex = signed(BODY);
        let own = |time: i64, id: &str| signed(&[format!("{time}.{id}.").as_bytes(), BODY].concat());
        let table: Vec<(WebhookAuthType, Vec<(&str, String)>)> = vec![
            (WebhookAuthType::Token, vec![("authorization", format!("Bearer {SECRET}"))]),
            (WebhookAuthType::Token, vec![("x-xene-token", SECRET.into())]),
            (WebhookAuthType::Gitlab, vec![("x-gitlab-token", SECRET.into())]),
            (WebhookAuthType::Github, vec![("x-hub-signature-256", format!("sha256={hex}"))]),
            (WebhookAuthType::Bitbucket, vec![("x-hub-signature", format!("sha256={hex}"))]),
            (WebhookAuthType::Gitea, vec![("x-gitea-signature", hex.clone())]),
            (WebhookAuthType::Gitea, vec![("x-forgejo-signature", hex.to_uppercase())]),
            (
                WebhookAuthType::HmacSha256,
                vec![("x-timestamp", "1000000".into()), ("x-signature", format!("sha256={}", own(1_000_000, "")))],
            ),
            (
                WebhookAuthType::HmacSha256,
                vec![
                    ("x-timestamp", "999700".into()),
                    ("x-delivery-id", "7".into()),
                    ("x-signature", format!("sha256={}", own(999_700, "7"))),
                ],
            ),
        ];
        for (scheme, headers) in &table {
            assert!(proven(*scheme, headers, BODY), "{scheme:?} {headers:?}");
            let signs_body = !matches!(scheme, WebhookAuthType::Token | WebhookAuthType::Gitlab);
            assert_eq!(proven(*scheme, headers, b"{}"), !signs_body, "{scheme:?} over another body");
            for (other, _) in table.iter().filter(|(other, _)| other != scheme) {
                assert!(!proven(*other, headers, BODY), "the proof of {scheme:?} as {other:?}");
            }
            assert!(!proven(*scheme, &[], BODY));
            let worse: Vec<_> = headers.iter().map(|(name, value)| (*name, format!("{value}0"))).collect();
            assert!(!proven(*scheme, &worse, BODY), "{scheme:?}");
        }
        assert!(!proven(WebhookAuthType::Github, &[("x-hub-signature-256", hex)], BODY), "without its prefix");
    }

    #[test]
    fn an_own_signature_is_good_for_five_minutes_and_for_its_delivery() {
        let is_good = |time: i64, shown_time: i64, id: Option<&str>| {
            let hex = signed(&[format!("{time}.7.").as_bytes(), BODY].concat());
            let mut headers = vec![("x-timestamp", shown_time.to_string()), ("x-signature", format!("sha256={hex}"))];
            headers.extend(id.map(|id| ("x-delivery-id", id.to_owned())));
            proven(WebhookAuthType::HmacSha256, &headers, BODY)
        };
        assert!(is_good(1_000_000, 1_000_000, Some("7")) && is_good(1_000_300, 1_000_300, Some("7")));
        assert!(!is_good(1_000_301, 1_000_301, Some("7")) && !is_good(999_699, 999_699, Some("7")));
        assert!(!is_good(1_000_000, 1_000_001, Some("7")), "the time is signed");
        assert!(!is_good(1_000_000, 1_000_000, Some("8")) && !is_good(1_000_000, 1_000_000, None), "so is the id");
        assert!(!is_young("x", Timestamp::UNIX_EPOCH) && !is_young("99999999999999999999", Timestamp::UNIX_EPOCH));
    }
}
