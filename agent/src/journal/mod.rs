//! What an agent must not forget: claims, runs, facts and specs, durable before they are acted upon or spoken of.

mod rows;

use std::{io, path::Path};

use tokio::sync::watch;
use xene_schemas::run::RunEvent;

use self::rows::Tables;
use crate::{
    crash::Places,
    decide::event::{JournalChange, Recovered, RunState},
    folder,
    lmdb::{CommitError, Env, MapFull, OpenError, Writer},
    memory,
};

/// The newest layout of the tables that this code reads and writes.
const SCHEMA: u32 = 1;

/// The journal. Dropping it commits what is queued and closes it.
#[derive(Debug)]
pub struct Journal {
    writer: Writer<Vec<JournalChange>>,
}

/// Why a journal can't be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Its folder can't be made or looked at.
    #[error("can't use the journal's folder: {0}")]
    Folder(#[from] io::Error),
    /// LMDB can't open it.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// LMDB can't read or write it.
    #[error("can't read the journal: {0}")]
    Database(#[from] heed::Error),
    /// A newer version wrote it.
    #[error(
        "the journal has layout {found}, this version knows up to {SCHEMA}: run the version that wrote it, or a newer one"
    )]
    Newer {
        /// Of the journal.
        found: u32,
    },
    /// A row is not what this version writes.
    #[error("a row of the journal's table {table:?} can't be read: {problem}")]
    Row {
        /// Which table.
        table: &'static str,
        /// What is wrong.
        problem: String,
    },
}

impl MapFull for JournalError {
    fn is_map_full(&self) -> bool {
        matches!(self, Self::Database(error) if error.is_map_full())
    }
}

impl Journal {
    /// Opens or makes the journal in the folder `journal/` of `data`, whose lock the caller holds, and reads it all.
    ///
    /// If the folder is not the one that the journal was written in (it was copied), its claims are void: they come
    /// back as not claimed, with epoch and watermark kept, and the journal says so from here on. Which store it spoke to is
    /// forgotten, so that the controller waits until those claims have run out.
    ///
    /// # Errors
    /// If it can't be opened or read, or a newer version wrote it.
    pub fn open(data: &Path) -> Result<(Self, Recovered), JournalError> {
        let dir = data.join("journal");
        folder::private(&dir)?;
        let identity = rows::identity(&dir)?;
        let env = Env::open(&dir, Tables::COUNT)?;
        let (tables, recovered) = env.write(|env, txn| {
            let tables = Tables::open(env, txn)?;
            tables.claim_folder(txn, &identity)?;
            let recovered = tables.load(txn)?;
            if let Err(error) = memory::release_map(&dir.join("data.mdb")) {
                tracing::debug!(%error, "can't give memory back");
            }
            Ok::<_, JournalError>((tables, recovered))
        })?;
        let mut buffer = Vec::new();
        let writer = Writer::spawn(env, move |txn, changes: &Vec<JournalChange>| {
            changes.iter().try_for_each(|change| tables.apply(txn, change, &mut buffer))
        })?;
        Ok((Self { writer }, recovered))
    }

    /// True while nothing is committed for want of room on the disk.
    pub fn full(&self) -> watch::Receiver<bool> {
        self.writer.full()
    }

    /// Queues one atomic batch, never waits. `done` is called on the writer's thread once it and all before it are
    /// synced; after the first failure the journal takes nothing more.
    pub fn commit(&self, changes: Vec<JournalChange>, done: impl FnOnce(Result<(), CommitError>) + Send + 'static) {
        let places = Places::of(&changes, place);
        places.before();
        let done = move |result: Result<(), CommitError>| {
            if result.is_ok() {
                places.after();
            }
            done(result);
        };
        self.writer.submit(changes, Box::new(done));
    }
}

/// Where a test may have the agent die beside the commit of this change.
fn place(change: &JournalChange) -> Option<&'static str> {
    match change {
        JournalChange::PutClaim(_, row) => Some(if row.claimed { "claim" } else { "released" }),
        JournalChange::PutRun(_, row) if row.state == RunState::Intent => Some("intent"),
        JournalChange::PutFact(_, _, RunEvent::Started { .. }) => Some("started"),
        JournalChange::PutFact(_, _, RunEvent::Ended { .. }) => Some("ended"),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
