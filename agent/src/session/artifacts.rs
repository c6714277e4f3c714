//! Sends artifacts to the controller: one after another, each on a stream of its own, until it says that it has them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use quinn::Connection;
use tokio::{sync::Notify, time::timeout};
use xene_schemas::{
    meta::{FileHash, RunName},
    run::Artifact,
    wire::logs::{ArtifactHeader, LogMessage},
};

use super::send::send;
use crate::content::ContentStore;

/// Behind what is said, and behind logs.
const PRIORITY: i32 = -2;

/// How long the acknowledgement of what was sent may take, before it is sent again.
const PATIENCE: Duration = Duration::from_secs(30);

/// The first and the longest wait after the controller could not take an artifact.
const REFUSED: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// Artifacts to send, over all sessions. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ArtifactUploads {
    store: ContentStore,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// What the controller does not have, with its size.
    waiting: Mutex<BTreeMap<(RunName, FileHash), u64>>,
    changed: Notify,
}

impl ArtifactUploads {
    /// Takes the bytes from `store`.
    pub fn new(store: ContentStore) -> Self {
        Self { store, shared: Arc::default() }
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeMap<(RunName, FileHash), u64>> {
        self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends these from now on.
    pub fn add(&self, run: RunName, artifacts: &[Artifact]) {
        self.waiting().extend(artifacts.iter().map(|artifact| ((run, artifact.hash), artifact.size)));
        self.shared.changed.notify_one();
    }

    /// The controller has this one.
    pub fn stored(&self, run: RunName, hash: FileHash) {
        self.waiting().remove(&(run, hash));
        self.shared.changed.notify_one();
    }

    /// Sends over this connection until it ends.
    pub(super) async fn run(&self, connection: &Connection) {
        let mut refused = REFUSED.0;
        let mut last = None;
        loop {
            // In turn, so that one that can't be taken does not hold up the others.
            let next = {
                let waiting = self.waiting();
                let after = last.and_then(|last| waiting.range(last..).find(|(key, _)| **key != last));
                after.or_else(|| waiting.iter().next()).map(|(key, size)| (*key, *size))
            };
            let Some(((run, hash), size)) = next else {
                tokio::select! {
                    () = self.shared.changed.notified() => continue,
                    _ = connection.closed() => return,
                }
            };
            last = Some((run, hash));
            let header = ArtifactHeader { run, hash, size };
            match send(&self.store, connection, &LogMessage::Artifact(header), &hash, PRIORITY).await {
                Ok(_) => {
                    let stored = async {
                        while self.waiting().contains_key(&(run, hash)) {
                            self.shared.changed.notified().await;
                        }
                    };
                    tokio::select! {
                        _ = timeout(PATIENCE, stored) => {}
                        _ = connection.closed() => return,
                    }
                    refused = REFUSED.0;
                }
                Err(error) if error.is_end() => return,
                // It has it already, and says so, or it can't take it now.
                Err(error) => {
                    tracing::debug!(%run, ?hash, %error, "artifact not taken");
                    tokio::time::sleep(refused).await;
                    refused = (refused * 2).min(REFUSED.1);
                }
            }
        }
    }
}
