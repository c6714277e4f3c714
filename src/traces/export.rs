//! Sends spans to a collector: gathered from what is committed, in batches, without ever holding up anything else.

use std::{
    collections::{HashMap, VecDeque},
    fs, io,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use tokio::{
    sync::{
        broadcast::{Receiver, error::RecvError},
        watch,
    },
    task::JoinHandle,
    time::{Instant, sleep_until, timeout},
};
use ureq::Agent;
use xene_agent::clock;
use xene_schemas::meta::{Epoch, PipelineKey, Revision, RunName};

use super::{Span, of_commit, of_grant, of_run, request};
use crate::{
    decide::rows::Change,
    outgoing::{self, TrustError},
    store::Committed,
};

/// Spans wait so long for others to go along.
const GATHER: Duration = Duration::from_secs(1);
/// After a failure it rests so long, and twice as long after each further one, up to [`LONGEST_REST`].
const REST: Duration = Duration::from_secs(1);
const LONGEST_REST: Duration = Duration::from_secs(60);
/// A collector that takes longer has failed.
const WITHIN: Duration = Duration::from_secs(10);
/// How long the last ones may take when the process stops.
const STOP_WITHIN: Duration = Duration::from_secs(2);
/// So many spans go in one request.
const BATCH: usize = 512;
/// More do not wait: the oldest are dropped. Traces are worth no more memory than this.
const WAITING: usize = 8192;
/// So many runs are remembered as told.
const REMEMBERED: usize = 4096;

/// Where spans go.
#[derive(Debug, Clone)]
pub struct Settings {
    /// A collector's address for OTLP by HTTP, such as `http://127.0.0.1:4318`; `/v1/traces` is added unless it ends so.
    pub endpoint: String,
    /// A file with headers to send along, `Name: value` line by line; read anew each time.
    pub headers: Option<PathBuf>,
    /// Whose certificates the collector's is checked against.
    pub ca: Option<PathBuf>,
}

/// Knows what was told, and what still has to be.
#[derive(Debug)]
pub struct Exporter {
    settings: Settings,
    agent: Agent,
    /// The revision in effect.
    revision: Option<Revision>,
    epochs: HashMap<PipelineKey, Epoch>,
    /// Runs that were told, the oldest first.
    told: VecDeque<RunName>,
    waiting: VecDeque<Span>,
    dropped: u64,
}

/// Why a batch was not taken.
#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error("{0} can't be read: {1}")]
    Headers(String, io::Error),
    #[error(transparent)]
    Http(#[from] ureq::Error),
    #[error("it answered {0}")]
    Refused(u16),
}

impl SendError {
    /// True if the same request will never be taken: OTLP 1 names the answers after which it may be sent again.
    fn is_final(&self) -> bool {
        matches!(self, Self::Refused(status) if !matches!(status, 429 | 502..=504))
    }
}

impl Exporter {
    /// Begins with what is in effect already, which is not told again.
    ///
    /// # Errors
    /// If the certificates to trust can't be read.
    pub fn new(
        settings: Settings,
        revision: Option<Revision>,
        epochs: impl IntoIterator<Item = (PipelineKey, Epoch)>,
    ) -> Result<Self, TrustError> {
        let trust = settings.ca.as_deref().map(outgoing::trust).transpose()?;
        let agent = outgoing::agent(trust, WITHIN);
        let epochs = epochs.into_iter().collect();
        Ok(Self { settings, agent, revision, epochs, told: VecDeque::new(), waiting: VecDeque::new(), dropped: 0 })
    }

    /// Tells what is committed until `stopping`, then what waits. What is committed is heard also while a collector takes
    /// its time.
    pub async fn run(mut self, mut committed: Receiver<Arc<Committed>>, mut stopping: watch::Receiver<bool>) {
        let (mut next, mut failures) = (Instant::now(), 0_u32);
        let mut under_way: Option<Sending> = None;
        loop {
            tokio::select! {
                group = committed.recv() => match group {
                    Ok(group) => {
                        let now = clock::now().wall;
                        if self.waiting.is_empty() {
                            next = next.max(Instant::now() + GATHER);
                        }
                        group.changes.iter().for_each(|change| self.look(change, now));
                    }
                    Err(RecvError::Lagged(missed)) => {
                        tracing::warn!(missed, "traces leave out what was committed too quickly to be heard");
                    }
                    Err(RecvError::Closed) => break,
                },
                outcome = answered(&mut under_way) => {
                    let outcome = self.settle(&mut under_way, outcome);
                    failures = if outcome.is_ok() { 0 } else { failures.saturating_add(1) };
                    if let Err(error) = &outcome && failures == 1 {
                        let then = if error.is_final() { "they are dropped" } else { "it is tried again" };
                        tracing::warn!(%error, endpoint = self.settings.endpoint, "traces can't be sent; {then}");
                    }
                    next = Instant::now() + rest_after(failures);
                }
                () = sleep_until(next), if under_way.is_none() && !self.waiting.is_empty() => {
                    under_way = Some(self.send());
                }
                () = stopped(&mut stopping) => break,
            }
        }
        let all = async {
            while under_way.is_some() || !self.waiting.is_empty() {
                if under_way.is_none() {
                    under_way = Some(self.send());
                }
                let outcome = answered(&mut under_way).await;
                if self.settle(&mut under_way, outcome).is_err() {
                    return;
                }
            }
        };
        // What a collector does not take by then is lost.
        let _ = timeout(STOP_WITHIN, all).await;
    }

    fn look(&mut self, change: &Change, now: Timestamp) {
        match change {
            Change::PutSource(source) if source.revision.is_some() && source.revision != self.revision => {
                self.revision.clone_from(&source.revision);
                self.wait(of_commit(source, now));
            }
            Change::PutOwner(key, owner) if self.epochs.get(key) != Some(&owner.epoch) => {
                let span = self.revision.as_ref().and_then(|revision| of_grant(key, owner, revision, now));
                // Between two owners nobody has the epoch.
                if span.is_some() {
                    self.epochs.insert(key.clone(), owner.epoch);
                }
                self.wait(span);
            }
            Change::PutRun(row) if row.run.status.phase.is_final() && !self.told.contains(&row.run.metadata.name) => {
                self.told.push_back(row.run.metadata.name);
                if self.told.len() > REMEMBERED {
                    self.told.pop_front();
                }
                self.wait(of_run(&row.run));
            }
            _ => {}
        }
    }

    fn wait(&mut self, spans: impl IntoIterator<Item = Span>) {
        self.waiting.extend(spans);
        let excess = self.waiting.len().saturating_sub(WAITING);
        self.waiting.drain(..excess);
        if excess > 0 && self.dropped == 0 {
            tracing::warn!("traces are dropped: the collector takes them too slowly, or not at all");
        }
        self.dropped += excess as u64;
    }

    /// Sends one batch.
    fn send(&mut self) -> Sending {
        let batch: Vec<Span> = self.waiting.drain(..self.waiting.len().min(BATCH)).collect();
        let (settings, agent, body) = (self.settings.clone(), self.agent.clone(), request(&batch).to_string());
        Sending { batch, answer: tokio::task::spawn_blocking(move || post(&settings, &agent, body)) }
    }

    /// A batch was taken, or not; one that may be taken another time waits on.
    fn settle(&mut self, under_way: &mut Option<Sending>, outcome: Result<(), SendError>) -> Result<(), SendError> {
        let batch = under_way.take().map(|sending| sending.batch).unwrap_or_default();
        match &outcome {
            Ok(()) => self.dropped = 0,
            Err(error) if error.is_final() => {}
            Err(_) => {
                batch.into_iter().rev().for_each(|span| self.waiting.push_front(span));
                self.wait([]);
            }
        }
        outcome
    }
}

/// A batch, and what is answered to it.
struct Sending {
    batch: Vec<Span>,
    answer: JoinHandle<Result<(), SendError>>,
}

/// What is answered to the batch that is under way; nothing ever if there is none.
async fn answered(under_way: &mut Option<Sending>) -> Result<(), SendError> {
    match under_way {
        Some(sending) => {
            let ended = (&mut sending.answer).await;
            ended.unwrap_or_else(|ended| Err(SendError::Http(io::Error::other(ended).into())))
        }
        None => std::future::pending().await,
    }
}

/// How long it rests after so many failures in a row.
fn rest_after(failures: u32) -> Duration {
    if failures == 0 { Duration::ZERO } else { (REST * 2_u32.pow(failures.min(7) - 1)).min(LONGEST_REST) }
}

/// Waits until the process stops.
async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // Without a sender nobody is left to tell.
    drop(stopping.wait_for(|stopping| *stopping).await);
}

fn post(settings: &Settings, agent: &Agent, body: String) -> Result<(), SendError> {
    let endpoint = settings.endpoint.trim_end_matches('/');
    let address = if endpoint.ends_with("/v1/traces") { endpoint.to_owned() } else { format!("{endpoint}/v1/traces") };
    let mut call = agent.post(address).content_type("application/json");
    if let Some(path) = &settings.headers {
        let text = fs::read_to_string(path).map_err(|error| SendError::Headers(path.display().to_string(), error))?;
        for (name, value) in text.lines().filter_map(|line| line.split_once(':')) {
            call = call.header(name.trim(), value.trim());
        }
    }
    let status = call.send(body)?.status();
    if status.is_success() { Ok(()) } else { Err(SendError::Refused(status.as_u16())) }
}
