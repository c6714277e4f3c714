//! Answers in JSON, tagged by their content and packed where the client takes that; logs, packed as they come.

use std::io::{self, Write as _};

use axum::{
    body::{Body, Bytes, to_bytes},
    extract::Request,
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use flate2::{Compression, write::GzEncoder};
use hyper::body::Body as _;

use super::problem::Problem;

/// Below this packing saves nothing, in bytes.
const WORTH_PACKING: usize = 1 << 10;
/// Fast, and a list is still a tenth of itself.
const LEVEL: i32 = 1;

/// How an answer may be packed, by RFC 9110's names; the better one first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Zstd,
    Gzip,
}

impl Coding {
    const ALL: [Self; 2] = [Self::Zstd, Self::Gzip];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
        }
    }

    fn pack(self, whole: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Self::Zstd => zstd::encode_all(whole, LEVEL),
            Self::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
                encoder.write_all(whole)?;
                encoder.finish()
            }
        }
    }
}

/// Packs what comes piece by piece.
pub(super) enum Packer {
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
    Gzip(GzEncoder<Vec<u8>>),
}

impl Packer {
    pub(super) fn new(coding: Coding) -> io::Result<Self> {
        Ok(match coding {
            Coding::Zstd => Self::Zstd(zstd::stream::write::Encoder::new(Vec::new(), LEVEL)?),
            Coding::Gzip => Self::Gzip(GzEncoder::new(Vec::new(), Compression::fast())),
        })
    }

    /// Takes one more piece, and gives what has come of those so far.
    pub(super) fn pack(&mut self, piece: &[u8]) -> io::Result<Vec<u8>> {
        Ok(std::mem::take(match self {
            Self::Zstd(encoder) => {
                encoder.write_all(piece)?;
                encoder.get_mut()
            }
            Self::Gzip(encoder) => {
                encoder.write_all(piece)?;
                encoder.get_mut()
            }
        }))
    }

    /// The rest.
    pub(super) fn finish(self) -> io::Result<Vec<u8>> {
        match self {
            Self::Zstd(encoder) => encoder.finish(),
            Self::Gzip(encoder) => encoder.finish(),
        }
    }
}

/// Tags what is given in JSON, and leaves it out if the client has it; packs it as the client takes it. Pages are not
/// packed: what others wrote stands there beside a form's token, and lengths would tell of it.
pub(super) async fn pack(mut request: Request, next: Next) -> Response {
    if request.method() == Method::HEAD {
        // Its headers are those of GET, which its body decides.
        *request.method_mut() = Method::GET;
        // RFC 9110, 14.2: only GET has parts.
        request.headers_mut().remove(header::RANGE);
        let (mut parts, body) = packed(request, next).await.into_parts();
        if let Some(length) = body.size_hint().exact().filter(|_| parts.status != StatusCode::NOT_MODIFIED) {
            parts.headers.insert(header::CONTENT_LENGTH, length.into());
        }
        return Response::from_parts(parts, Body::empty());
    }
    if request.method() == Method::GET { packed(request, next).await } else { next.run(request).await }
}

async fn packed(request: Request, next: Next) -> Response {
    let known = request.headers().get(header::IF_NONE_MATCH).cloned();
    let coding = taken(request.headers());
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
    if let Some(coding) = coding.filter(|_| bytes.len() >= WORTH_PACKING) {
        let whole = bytes.clone();
        let packed = tokio::task::spawn_blocking(move || coding.pack(&whole)).await;
        if let Ok(Ok(packed)) = packed {
            parts.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
            return Response::from_parts(parts, Body::from(Bytes::from(packed)));
        }
    }
    Response::from_parts(parts, Body::from(bytes))
}

/// The best coding that the client names among what it takes, and not as what it does not.
pub(super) fn taken(headers: &HeaderMap) -> Option<Coding> {
    let takes = |coding: Coding| {
        let all = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
        all.flat_map(|value| value.split(',')).any(|one| {
            let (name, weight) = one.split_once(';').unwrap_or((one, ""));
            let refused = weight.trim().strip_prefix("q=").is_some_and(|q| q.parse() == Ok(0.0));
            name.trim().eq_ignore_ascii_case(coding.name()) && !refused
        })
    };
    Coding::ALL.into_iter().find(|coding| takes(*coding))
}

/// True if a list of tags has this one, however strong.
pub(super) fn is_known(known: &HeaderValue, tag: &str) -> bool {
    let bare = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    known.to_str().is_ok_and(|known| known.trim() == "*" || known.split(',').any(|one| bare(one) == bare(tag)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_packed_as_the_client_takes_them() {
        let taken = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, value.parse().unwrap());
            taken(&headers)
        };
        for value in ["zstd", "gzip, zstd", "gzip;q=1.0, ZSTD;q=0.5"] {
            assert_eq!(taken(value), Some(Coding::Zstd), "{value}");
        }
        for value in ["gzip", "deflate, gzip;q=1.0", "zstd;q=0, gzip", "GZIP, br"] {
            assert_eq!(taken(value), Some(Coding::Gzip), "{value}");
        }
        for value in ["", "zstd;q=0", "zstd;q=0.0, gzip;q=0", "xzstd", "x-gzip-like", "*"] {
            assert_eq!(taken(value), None, "{value}");
        }
    }

    #[test]
    fn tags_are_compared_by_what_they_name() {
        let known = |value: &str| is_known(&value.parse().unwrap(), "W/\"a\"");
        assert!(known("W/\"a\"") && known("\"a\"") && known("\"b\", W/\"a\"") && known("*"));
        assert!(!known("\"b\"") && !known("a") && !known(""));
    }
}
