//! Answers in JSON, tagged by their content and packed where the client takes that.

use axum::{
    body::{Body, Bytes, to_bytes},
    extract::Request,
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::problem::Problem;

/// Below this packing saves nothing, in bytes.
const WORTH_PACKING: usize = 1 << 10;
/// Fast, and a list is still a tenth of itself.
const LEVEL: i32 = 1;

/// Tags what is given in JSON, and leaves it out if the client has it; packs it by zstd if the client takes that.
pub(super) async fn pack(request: Request, next: Next) -> Response {
    if request.method() != Method::GET {
        return next.run(request).await;
    }
    let known = request.headers().get(header::IF_NONE_MATCH).cloned();
    let takes_zstd = takes_zstd(request.headers());
    let response = next.run(request).await;
    let is_json = response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/json");
    if response.status() != StatusCode::OK || !is_json {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    // It is in memory as it is.
    let Ok(bytes) = to_bytes(body, usize::MAX).await else {
        return Problem::of_status(StatusCode::INTERNAL_SERVER_ERROR).into_response();
    };
    // Weak: packed or not, it says the same.
    let tag = format!("W/\"{}\"", &blake3::hash(&bytes).to_hex()[..32]);
    parts.headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    let has_it = known.is_some_and(|known| is_known(&known, &tag));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        parts.headers.insert(header::ETAG, tag);
    }
    parts.headers.remove(header::CONTENT_LENGTH);
    if has_it {
        parts.status = StatusCode::NOT_MODIFIED;
        parts.headers.remove(header::CONTENT_TYPE);
        return Response::from_parts(parts, Body::empty());
    }
    if takes_zstd && bytes.len() >= WORTH_PACKING {
        let whole = bytes.clone();
        let packed = tokio::task::spawn_blocking(move || zstd::encode_all(&whole[..], LEVEL)).await;
        if let Ok(Ok(packed)) = packed {
            parts.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("zstd"));
            return Response::from_parts(parts, Body::from(Bytes::from(packed)));
        }
    }
    Response::from_parts(parts, Body::from(bytes))
}

/// True if the client names zstd among what it takes, and not as what it does not.
fn takes_zstd(headers: &HeaderMap) -> bool {
    let all = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    all.flat_map(|value| value.split(',')).any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        let refused = weight.trim().strip_prefix("q=").is_some_and(|q| q.parse() == Ok(0.0));
        name.trim().eq_ignore_ascii_case("zstd") && !refused
    })
}

/// True if a list of tags has this one, however strong.
fn is_known(known: &HeaderValue, tag: &str) -> bool {
    let bare = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    known.to_str().is_ok_and(|known| known.trim() == "*" || known.split(',').any(|one| bare(one) == bare(tag)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_takes_zstd_gets_it() {
        let takes = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, value.parse().unwrap());
            takes_zstd(&headers)
        };
        for value in ["zstd", "gzip, zstd", "gzip;q=1.0, ZSTD;q=0.5"] {
            assert!(takes(value), "{value}");
        }
        for value in ["", "gzip", "zstd;q=0", "zstd;q=0.0", "xzstd", "*"] {
            assert!(!takes(value), "{value}");
        }
    }

    #[test]
    fn tags_are_compared_by_what_they_name() {
        let known = |value: &str| is_known(&value.parse().unwrap(), "W/\"a\"");
        assert!(known("W/\"a\"") && known("\"a\"") && known("\"b\", W/\"a\"") && known("*"));
        assert!(!known("\"b\"") && !known("a") && !known(""));
    }
}
