//! Artifacts of runs on their way to the controller: durable with the fact that names them, sent once the controller has
//! that fact, forgotten once it has them.

use std::collections::BTreeSet;

use xene_schemas::{
    meta::{FileHash, RunName},
    run::{Artifact, RunEvent},
};

use super::{
    Agent,
    event::{Effect, Effects, JournalChange},
};

/// Artifacts of one run.
#[derive(Debug, Default)]
pub(super) struct RunArtifacts {
    /// All that its tasks saved: later tasks may want them.
    pub(super) saved: BTreeSet<FileHash>,
    /// Those that the controller does not know of yet, and the number of the fact that tells it.
    untold: Vec<(u64, Vec<Artifact>)>,
}

impl Agent {
    /// A fact that is about to be kept: what it names is kept with it. To be called before the fact is.
    pub(super) fn keep_artifacts(&mut self, run: RunName, event: &RunEvent, fx: &mut Effects) {
        let RunEvent::TaskEnded { artifacts, .. } = event else { return };
        let Some(entry) = self.runs.get_mut(&run).filter(|_| !artifacts.is_empty()) else { return };
        entry.artifacts.saved.extend(artifacts.iter().map(|artifact| artifact.hash));
        entry.artifacts.untold.push((entry.outbox.next(), artifacts.clone()));
        entry.row.artifacts.extend(artifacts.iter().cloned());
        fx.commit.push(JournalChange::PutRun(run, entry.row.clone()));
    }

    /// What the journal held of a run: what the controller knows of is sent, the rest when it does.
    pub(super) fn recover_artifacts(&mut self, run: RunName, fx: &mut Effects) {
        let Some(entry) = self.runs.get_mut(&run).filter(|entry| !entry.row.artifacts.is_empty()) else { return };
        entry.artifacts.untold = entry.outbox.naming_artifacts();
        let untold = |artifact: &&Artifact| entry.artifacts.untold.iter().any(|(_, list)| list.contains(artifact));
        let artifacts: Vec<Artifact> = entry.row.artifacts.iter().filter(|a| !untold(a)).cloned().collect();
        if !artifacts.is_empty() {
            fx.then.push(Effect::UploadArtifacts { run, artifacts });
        }
    }

    /// The controller has more facts of a run.
    pub(super) fn upload_artifacts(&mut self, run: RunName, fx: &mut Effects) {
        let Some(entry) = self.runs.get_mut(&run) else { return };
        let acknowledged = entry.outbox.acknowledged();
        let mut artifacts = Vec::new();
        entry.artifacts.untold.retain_mut(|(index, list)| {
            let told = *index < acknowledged;
            if told {
                artifacts.append(list);
            }
            !told
        });
        if !artifacts.is_empty() {
            fx.then.push(Effect::UploadArtifacts { run, artifacts });
        }
    }

    /// The controller has an artifact.
    pub(super) fn artifact_stored(&mut self, run: RunName, hash: FileHash, fx: &mut Effects) {
        fx.now.push(Effect::ArtifactStored { run, hash });
        let Some(entry) = self.runs.get_mut(&run) else { return };
        let before = entry.row.artifacts.len();
        entry.row.artifacts.retain(|artifact| artifact.hash != hash);
        if entry.row.artifacts.len() < before {
            fx.commit.push(JournalChange::PutRun(run, entry.row.clone()));
            self.forget_if_done(run, fx);
        }
    }
}
