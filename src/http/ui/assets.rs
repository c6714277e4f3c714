//! Style sheet, script and icon, all in the binary. The first stands in every page, known to browsers by its hash: a
//! page is not painted before it has come. The others have names that change with what they hold, to be kept for good.

use std::sync::LazyLock;

use axum::{
    extract::Path,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use ring::digest;

const KEEP: &str = "public, max-age=31536000, immutable";

pub(super) struct Asset {
    pub(super) path: String,
    file: String,
    kind: &'static str,
    bytes: &'static [u8],
}

fn asset(stem: &str, extension: &str, kind: &'static str, bytes: &'static [u8]) -> Asset {
    let hash = blake3::hash(bytes).to_hex();
    let file = format!("{stem}-{}.{extension}", &hash[..16]);
    Asset { path: format!("/ui/{file}"), file, kind, bytes }
}

pub(super) const STYLE: &str = include_str!("assets/style.css");
/// [`STYLE`] as a source of a Content-Security-Policy.
pub(super) static STYLE_SOURCE: LazyLock<String> =
    LazyLock::new(|| format!("'sha256-{}'", STANDARD.encode(digest::digest(&digest::SHA256, STYLE.as_bytes()))));
pub(super) static SCRIPT: LazyLock<Asset> =
    LazyLock::new(|| asset("script", "js", "text/javascript; charset=utf-8", include_bytes!("assets/script.js")));
pub(super) static ICON: LazyLock<Asset> =
    LazyLock::new(|| asset("icon", "svg", "image/svg+xml", include_bytes!("assets/icon.svg")));

pub(super) async fn serve(Path(file): Path<String>) -> Response {
    let all = [&*SCRIPT, &*ICON];
    match all.into_iter().find(|asset| asset.file == file) {
        Some(asset) => {
            ([(header::CONTENT_TYPE, asset.kind), (header::CACHE_CONTROL, KEEP)], asset.bytes).into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
