//! What changes on a page while somebody looks at it, as server-sent events: never asked for again and again.
//!
//! `region` brings a part of the page anew, `section` the head of a part of the log, `log` lines, `reload` says
//! that parts came or went, `parts` which there are, `gone` that what the page shows is no more.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use axum::{
    Extension,
    body::Bytes,
    extract::State,
    http::{StatusCode, Uri},
    response::Response,
};
use serde::Serialize;
use serde_json::json;
use tokio::{
    sync::broadcast::error::{RecvError, TryRecvError},
    time::{Instant, sleep, sleep_until},
};
use xene_schemas::{meta::RunName, run::Run};

use super::{
    Ui,
    client::{Client, Failure},
    lines::{self, Log, WINDOW, Window},
    log,
    page::{self, View, digest},
    sign_in::Session,
};
use crate::{
    decide::rows::Change,
    http::{query::Query, stopped, stream::stream},
};

/// Looks at what was committed are at least so far apart: changes that come within it are shown as one.
const GATHER: Duration = Duration::from_millis(100);
/// Looks at a log that grows are so far apart: lines that come one by one are shown one by one, a flood in lumps. Within
/// this the pause is [`LOG_SHARE`] times what the last look took, so that it never takes more than a part of a processor.
const GATHER_LINES: (Duration, Duration) = (Duration::from_millis(10), GATHER);
const LOG_SHARE: u32 = 4;
/// Lists of a busy controller need not flicker.
const GATHER_LIST: Duration = Duration::from_millis(500);
/// More sections are not followed at a time.
const FOLLOWED: usize = 32;
/// A browser hears at least this often, so that it can tell a quiet controller from a dead connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// `GET /live?page=ADDRESS&log=SECTION.NEXT,…`.
pub(super) async fn live(
    State(ui): State<Arc<Ui>>,
    Extension(session): Extension<Session>,
    mut query: Query,
) -> Response {
    let address = query.take("page").and_then(|page| page.parse::<Uri>().ok());
    let Some(view) = address.as_ref().and_then(View::parse) else {
        return page::failed(Some(&session), &Failure::not_found());
    };
    let followed = query.take("log").map(|text| parse_followed(&text)).unwrap_or_default();
    if !query.into_pairs().is_empty() {
        return page::failed(
            Some(&session),
            &Failure::new(StatusCode::BAD_REQUEST, "page and log are all that it takes"),
        );
    }
    let client = ui.client(session.who.clone());
    stream("text/event-stream", move |sink| async move {
        let mut committed = ui.api.handle.watch();
        let mut watch = Watch {
            view,
            client,
            session,
            sent: HashMap::new(),
            parts: None,
            log: None,
            followed,
            sections: 0,
            more: false,
            is_over: false,
        };
        let mut is_new = true;
        loop {
            let mut text = String::new();
            if !watch.session.is_on(&ui) {
                return;
            }
            let began = Instant::now();
            let goes_on = watch.look(&ui, is_new, &mut text).await;
            if text.is_empty() {
                text.push_str(":\n\n");
            }
            if sink.send(Bytes::from(text)).await.is_err() || !goes_on {
                return;
            }
            let looked = Instant::now();
            let took = looked - began;
            is_new = !watch.more
                && loop {
                    tokio::select! {
                        next = committed.recv() => match next {
                            Ok(group) if group.changes.iter().any(|change| watch.is_touched(change)) => break true,
                            Ok(_) => {}
                            Err(RecvError::Lagged(_)) => break true,
                            Err(RecvError::Closed) => return,
                        },
                        () = watch.log_grew() => break false,
                        () = sleep(KEEP_ALIVE) => break false,
                        () = sink.closed() => return,
                        () = stopped(ui.api.config.stopping.clone()) => return,
                    }
                };
            let gather = match watch.view {
                View::Run(..) if !is_new => (took * LOG_SHARE).clamp(GATHER_LINES.0, GATHER_LINES.1),
                View::Run(..) => GATHER,
                _ => GATHER_LIST,
            };
            // The first change after a rest is shown at once.
            sleep_until(looked + gather).await;
            loop {
                match committed.try_recv() {
                    Ok(group) => is_new |= group.changes.iter().any(|change| watch.is_touched(change)),
                    Err(TryRecvError::Lagged(_)) => is_new = true,
                    Err(TryRecvError::Empty | TryRecvError::Closed) => break,
                }
            }
        }
    })
}

/// Which sections are open, and the line that each wants next.
fn parse_followed(text: &str) -> BTreeMap<u16, u64> {
    let parse =
        |part: &str| part.split_once('.').and_then(|(section, next)| Some((section.parse().ok()?, next.parse().ok()?)));
    text.split(',').filter_map(parse).take(FOLLOWED).collect()
}

struct Watch {
    view: View,
    client: Client,
    session: Session,
    /// By region or section: the digest of what the browser has.
    sent: HashMap<String, String>,
    /// The page's parts that change, in order.
    parts: Option<Vec<String>>,
    log: Option<(Log, u64)>,
    followed: BTreeMap<u16, u64>,
    /// How many sections the page that was shown last could name.
    sections: usize,
    /// True while there are lines that are not told yet.
    more: bool,
    /// True if the run that is shown has ended.
    is_over: bool,
}

impl Watch {
    fn is_touched(&self, change: &Change) -> bool {
        self.view.is_touched(change, self.is_over)
    }

    /// Tells what changed; false if there is nothing left to tell ever.
    async fn look(&mut self, ui: &Ui, is_new: bool, text: &mut String) -> bool {
        if is_new && !self.look_at_parts(ui, text).await {
            return false;
        }
        let View::Run(name, _) = self.view else { return true };
        let before = self.sections;
        if let Err(failure) = self.look_at_log(ui, name, text).await {
            tracing::debug!(failure.detail, "a log can't be followed");
        }
        // Parts lead to sections.
        self.sections == before || self.look_at_parts(ui, text).await
    }

    /// Tells which parts of the page changed; false if there is nothing left to tell ever.
    async fn look_at_parts(&mut self, ui: &Ui, text: &mut String) -> bool {
        let page = match self.view.render(ui, &self.client, &self.session, false).await {
            Ok(page) => page,
            Err(failure) => {
                write_event(text, "gone", &json!({"message": failure.detail}));
                return false;
            }
        };
        let live: Vec<_> = page.regions.into_iter().filter(|region| region.is_live).collect();
        let parts: Vec<String> = live.iter().map(|region| format!("r-{}", region.id)).collect();
        if self.parts.as_ref().is_some_and(|known| *known != parts) {
            write_event(text, "reload", &json!({}));
            return false;
        }
        if self.parts.is_none() {
            // The browser may have shown the page long ago.
            write_event(text, "parts", &json!({"ids": parts}));
        }
        self.parts = Some(parts);
        for region in live {
            let (id, digest) = (format!("r-{}", region.id), digest(&region.markup));
            if self.sent.get(&id) != Some(&digest) {
                let html = region.markup.into_string();
                write_event(text, "region", &json!({"id": id, "digest": digest, "html": html}));
                self.sent.insert(id, digest);
            }
        }
        true
    }

    async fn look_at_log(&mut self, ui: &Ui, name: RunName, text: &mut String) -> Result<(), Failure> {
        let run: Run = self.client.get(&format!("/api/v1/runs/{name}")).await?;
        self.is_over = run.status.phase.is_final();
        if self.log.is_none() {
            self.log = Some((lines::open(ui.api.handle.logs(), &ui.indexes, name).await?, 0));
        }
        let Some((log, length)) = &mut self.log else { return Ok(()) };
        *length = log.reader.length();
        log.look(None).await?;
        let sections = log.sections().await;
        self.sections = sections.len();
        let wanted = log::of_interest(&run, &sections);
        for section in sections {
            let (id, markup) = (format!("log-{}", section.number), log::section(&run, &section, None));
            let digest = digest(&markup);
            if self.sent.get(&id) != Some(&digest) {
                let summary = log::summary(&run, &section).into_string();
                write_event(
                    text,
                    "section",
                    &json!({"id": id, "summary": summary, "wanted": wanted == Some(section.number), "html": markup.into_string()}),
                );
                self.sent.insert(id, digest);
            }
        }
        self.more = false;
        for (section, next) in &mut self.followed {
            let mut window = log.window(*section, Some(*next)).await?;
            // Too much came at once: the end of it is what a follower wants.
            let skips = window.total > next.saturating_add(4 * WINDOW);
            if skips {
                window = log.window(*section, None).await?;
            }
            if window.html.is_empty() || (window.first < *next && !skips) {
                continue;
            }
            *next = window.next;
            self.more |= !window.is_end;
            // The last line comes again while it goes on.
            let (id, digest) = (format!("lines-{section}"), blake3::hash(window.html.as_bytes()).to_hex().to_string());
            if self.sent.insert(id, digest.clone()) != Some(digest) {
                let Window { first, next, is_end, html, .. } = window;
                let told = json!({"section": section, "first": first, "next": next, "isEnd": is_end, "skips": skips, "html": html});
                write_event(text, "log", &told);
            }
        }
        Ok(())
    }

    /// Waits until the log has more than was looked at.
    async fn log_grew(&mut self) {
        match &mut self.log {
            Some((log, length)) => log.reader.grown(*length).await,
            None => std::future::pending().await,
        }
    }
}

fn write_event(text: &mut String, kind: &str, data: &impl Serialize) {
    // Values of JSON can always be written, on one line.
    if let Ok(data) = serde_json::to_string(data) {
        text.extend(["event: ", kind, "\ndata: ", &data, "\n\n"]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_followed_is_read_leniently() {
        assert_eq!(parse_followed("3.120,0.1"), BTreeMap::from([(0, 1), (3, 120)]));
        assert_eq!(parse_followed("x,4.,70000.1,,5.6"), BTreeMap::from([(5, 6)]));
        let many: String = (0..2_000).map(|section| format!("{section}.1,")).collect();
        assert_eq!(parse_followed(&many).len(), FOLLOWED);
        assert_eq!(parse_followed(&"1.1,".repeat(2_000)).len(), 1);
    }
}
