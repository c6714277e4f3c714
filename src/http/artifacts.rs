//! What a run's tasks saved: a list, and the bytes of each. Paths are looked up in the run's record, and never lead to a
//! file by themselves.

use std::{
    io::{Read as _, Seek as _, SeekFrom},
    sync::Arc,
};

use axum::{
    body::Bytes,
    extract::{Path, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use serde::Serialize;
use xene_schemas::run::Artifact;

use super::{
    Api,
    lists::{absent, check_names, find_run, is_task},
    objects,
    pack::is_known,
    problem::Problem,
    query::Query,
    range::{Part, part},
    stream::stream,
};

/// Read at a time, in bytes.
const READ: usize = 256 << 10;

/// An artifact, and which task saved it.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub(super) struct Listed<'a> {
    task: &'a str,
    #[serde(flatten)]
    artifact: &'a Artifact,
    /// True while its bytes are on their way from the agent.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pending: bool,
}

pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    mut query: Query,
) -> Result<Response, Problem> {
    let row = find_run(&api, &name)?;
    let only = query.take("task");
    query.finish()?;
    check_names(&row.run, only.as_deref(), None)?;
    let tasks = row.run.status.tasks.iter().filter(|(task, _)| only.as_ref().is_none_or(|only| is_task(task, only)));
    let listed = tasks.flat_map(|(task, status)| {
        status.artifacts.iter().map(|artifact| Listed {
            task,
            artifact,
            pending: !api.config.files.has(&artifact.hash),
        })
    });
    Ok(objects::list("Artifact", listed.collect()))
}

pub(super) async fn download(
    State(api): State<Arc<Api>>,
    Path((name, task, path)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let row = find_run(&api, &name)?;
    check_names(&row.run, Some(&task), None)?;
    let found = row.run.status.tasks.get(&task).and_then(|task| task.artifacts.iter().find(|a| a.path == path));
    let artifact = found.ok_or_else(|| absent("artifact", &format!("{task}/{path}")))?;
    let Ok(mut file) = api.config.files.read(&artifact.hash) else {
        let message = format!("{task}/{path} is still on its way from the agent; try again in a moment");
        return Err(Problem::new(StatusCode::CONFLICT, message));
    };
    let tag = format!("\"{}\"", artifact.hash);
    if headers.get(header::IF_NONE_MATCH).is_some_and(|known| is_known(known, &tag)) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response());
    }
    let size = artifact.size;
    let (status, bytes) = match part(&headers, size, &tag) {
        Part::Whole => (StatusCode::OK, 0..size),
        Part::Bytes(bytes) => (StatusCode::PARTIAL_CONTENT, bytes),
        Part::Beyond => {
            let problem = Problem::new(StatusCode::RANGE_NOT_SATISFIABLE, format!("{task}/{path} has {size} bytes"));
            let mut response = problem.into_response();
            if let Ok(range) = HeaderValue::from_str(&format!("bytes */{size}")) {
                response.headers_mut().insert(header::CONTENT_RANGE, range);
            }
            return Ok(response);
        }
    };
    let length = bytes.end - bytes.start;
    let sought = api.blocking(move || file.seek(SeekFrom::Start(bytes.start)).map(|_| file.take(length))).await?;
    let mut file = sought.map_err(|error| {
        tracing::error!(%error, hash = %artifact.hash, "an artifact can't be read");
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the artifact can't be read")
    })?;
    let mut response = stream("application/octet-stream", move |sink| async move {
        loop {
            let read = tokio::task::spawn_blocking(move || {
                let mut chunk = vec![0; READ];
                let length = file.read(&mut chunk)?;
                chunk.truncate(length);
                Ok::<_, std::io::Error>((file, chunk))
            });
            // Cut short, it is not as long as was said, which the client notices.
            let Ok(Ok((next, chunk))) = read.await else { return };
            file = next;
            if chunk.is_empty() || sink.send(Bytes::from(chunk)).await.is_err() {
                return;
            }
        }
    });
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, length.into());
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if status == StatusCode::PARTIAL_CONTENT
        && let Ok(range) = HeaderValue::from_str(&format!("bytes {}-{}/{size}", bytes.start, bytes.end - 1))
    {
        headers.insert(header::CONTENT_RANGE, range);
    }
    headers.insert(header::CONTENT_DISPOSITION, disposition(&artifact.path));
    // Whatever it holds, a browser that shows it all the same gives it no rights.
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox; default-src 'none'"));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(header::ETAG, tag);
    }
    Ok(response)
}

/// Saves it by the last part of its path (RFC 6266; everything but letters, digits and `-_.` encoded).
fn disposition(path: &str) -> HeaderValue {
    let name = path.rsplit('/').next().unwrap_or(path);
    let mut encoded = String::from("attachment; filename*=UTF-8''");
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.') {
            encoded.push(char::from(byte));
        } else {
            use std::fmt::Write as _;
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    HeaderValue::from_str(&encoded).unwrap_or_else(|_| HeaderValue::from_static("attachment"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_harmless_in_headers() {
        for (path, name) in
            [("a/report.xml", "report.xml"), ("x\"\r\ny", "x%22%0D%0Ay"), ("ä b", "%C3%A4%20b"), ("a;b", "a%3Bb")]
        {
            assert_eq!(disposition(path), format!("attachment; filename*=UTF-8''{name}"));
        }
    }
}
