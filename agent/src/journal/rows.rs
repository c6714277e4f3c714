//! The journal's tables: keys that sort as they are read, values in MessagePack with field names.
//!
//! | table    | key                              | value                                        |
//! |----------|----------------------------------|----------------------------------------------|
//! | `meta`   | `schema`, `folder`               | `u32 LE`; [`identity`]                       |
//! |          | `store`, `boot`, `name`, `token` | `StoreSeen`; text; text; `u64 LE`            |
//! | `claims` | `WORKFLOW/PIPELINE`              | `ClaimRow`                                   |
//! | `runs`   | run (16 bytes BE)                | `RunRow`                                     |
//! | `facts`  | run (16 bytes BE), index (u64 BE)| `RunEvent`                                   |
//! | `specs`  | hash (32 bytes)                  | the spec's own bytes                         |
//! | `skipped`| number (u64 BE)                  | `SkippedSlot`                                |

use std::{
    io,
    ops::Bound,
    os::unix::fs::MetadataExt as _,
    path::Path,
    time::{Duration, UNIX_EPOCH},
};

use heed::{Database, RwTxn, WithoutTls, types::Bytes};
use serde::{Serialize, de::DeserializeOwned};
use xene_schemas::meta::{PipelineKey, RunName, SpecHash};

use super::{JournalError, SCHEMA};
use crate::decide::event::{ClaimRow, JournalChange, Recovered};

type Table = Database<Bytes, Bytes>;

const SCHEMA_KEY: &[u8] = b"schema";
const FOLDER_KEY: &[u8] = b"folder";
const STORE_KEY: &[u8] = b"store";
const BOOT_KEY: &[u8] = b"boot";
const NAME_KEY: &[u8] = b"name";
const TOKEN_KEY: &[u8] = b"token";

/// Handles of all tables.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tables {
    meta: Table,
    claims: Table,
    runs: Table,
    facts: Table,
    specs: Table,
    skipped: Table,
}

impl Tables {
    pub(super) const COUNT: u32 = 6;

    /// Opens or makes the tables.
    pub(super) fn open(env: &heed::Env<WithoutTls>, txn: &mut RwTxn<'_>) -> Result<Self, JournalError> {
        let meta: Table = env.create_database(txn, Some("meta"))?;
        match meta.get(txn, SCHEMA_KEY)? {
            None => meta.put(txn, SCHEMA_KEY, &SCHEMA.to_le_bytes())?,
            Some(bytes) => {
                let found = bytes.try_into().map(u32::from_le_bytes).map_err(|_| bad("meta", "the layout's number"))?;
                if found > SCHEMA {
                    return Err(JournalError::Newer { found });
                }
            }
        }
        Ok(Self {
            meta,
            claims: env.create_database(txn, Some("claims"))?,
            runs: env.create_database(txn, Some("runs"))?,
            facts: env.create_database(txn, Some("facts"))?,
            specs: env.create_database(txn, Some("specs"))?,
            skipped: env.create_database(txn, Some("skipped"))?,
        })
    }

    /// Voids the claims if the journal was written in another folder than this.
    pub(super) fn claim_folder(self, txn: &mut RwTxn<'_>, identity: &[u8]) -> Result<(), JournalError> {
        let known = self.meta.get(txn, FOLDER_KEY)?;
        if known == Some(identity) {
            return Ok(());
        }
        if known.is_some() {
            let mut voided = Vec::new();
            for row in self.claims.iter(txn)? {
                let (key, value) = row?;
                let claim: ClaimRow = decode("claims", value)?;
                voided.push((key.to_vec(), encode(&ClaimRow { claimed: false, confirmed: false, ..claim })?));
            }
            tracing::warn!(claims = voided.len(), "the journal was written in another folder: its claims are void");
            for (key, value) in &voided {
                self.claims.put(txn, key, value)?;
            }
            // To the controller it has no journal: what it knows of watermarks may be old.
            self.meta.delete(txn, STORE_KEY)?;
        }
        Ok(self.meta.put(txn, FOLDER_KEY, identity)?)
    }

    /// Reads everything.
    pub(super) fn load(self, txn: &RwTxn<'_>) -> Result<Recovered, JournalError> {
        let mut recovered = Recovered {
            store: self.meta.get(txn, STORE_KEY)?.map(|value| decode("meta", value)).transpose()?,
            boot_id: self.meta.get(txn, BOOT_KEY)?.map(|value| decode("meta", value)).transpose()?,
            name: self.meta.get(txn, NAME_KEY)?.map(|value| decode("meta", value)).transpose()?,
            token: self.meta.get(txn, TOKEN_KEY)?.map(token).transpose()?,
            ..Recovered::default()
        };
        for row in self.claims.iter(txn)? {
            let (key, value) = row?;
            recovered.claims.insert(pipeline_of(key)?, decode("claims", value)?);
        }
        for row in self.runs.iter(txn)? {
            let (key, value) = row?;
            recovered.runs.insert(run_of("runs", key)?, decode("runs", value)?);
        }
        for row in self.facts.iter(txn)? {
            let (key, value) = row?;
            let (run, index) = key.split_at_checked(16).ok_or_else(|| bad("facts", "the key's length"))?;
            let index = index.try_into().map(u64::from_be_bytes).map_err(|_| bad("facts", "the key's length"))?;
            let facts = recovered.facts.entry(run_of("facts", run)?).or_default();
            facts.insert(index, decode("facts", value)?);
        }
        for row in self.specs.iter(txn)? {
            let (key, value) = row?;
            let hash = key.try_into().map(SpecHash).map_err(|_| bad("specs", "the key's length"))?;
            recovered.specs.insert(hash, value.to_vec());
        }
        for row in self.skipped.iter(txn)? {
            let (key, value) = row?;
            let number = key.try_into().map(u64::from_be_bytes).map_err(|_| bad("skipped", "the key's length"))?;
            recovered.skipped.insert(number, decode("skipped", value)?);
        }
        Ok(recovered)
    }

    /// Writes one change; `buffer` is scratch space.
    pub(super) fn apply(
        self,
        txn: &mut RwTxn<'_>,
        change: &JournalChange,
        buffer: &mut Vec<u8>,
    ) -> Result<(), heed::Error> {
        buffer.clear();
        match change {
            JournalChange::PutClaim(pipeline, row) => {
                encode_into(row, buffer)?;
                self.claims.put(txn, pipeline.to_string().as_bytes(), buffer)
            }
            JournalChange::PutRun(run, row) => {
                encode_into(row, buffer)?;
                self.runs.put(txn, &run.to_bytes(), buffer)?;
                self.delete_facts(txn, *run, row.acknowledged)
            }
            JournalChange::PutFact(run, index, event) => {
                encode_into(event, buffer)?;
                self.facts.put(txn, &fact_key(*run, *index), buffer)
            }
            JournalChange::DeleteRun(run) => {
                self.runs.delete(txn, &run.to_bytes())?;
                self.delete_facts(txn, *run, u64::MAX)
            }
            JournalChange::PutSpec(hash, bytes) => self.specs.put(txn, &hash.0, bytes),
            JournalChange::DeleteSpec(hash) => self.specs.delete(txn, &hash.0).map(drop),
            JournalChange::PutSkipped(number, row) => {
                encode_into(row, buffer)?;
                self.skipped.put(txn, &number.to_be_bytes(), buffer)
            }
            JournalChange::DeleteSkipped(next) => {
                let next = next.to_be_bytes();
                self.skipped.delete_range(txn, &(Bound::Unbounded, Bound::Excluded(&next[..]))).map(drop)
            }
            JournalChange::PutStore(store) => {
                encode_into(store, buffer)?;
                self.meta.put(txn, STORE_KEY, buffer)
            }
            JournalChange::PutBoot(boot) => {
                encode_into(boot, buffer)?;
                self.meta.put(txn, BOOT_KEY, buffer)
            }
            JournalChange::PutName(name) => {
                encode_into(name, buffer)?;
                self.meta.put(txn, NAME_KEY, buffer)
            }
            JournalChange::PutToken(token) => self.meta.put(txn, TOKEN_KEY, &token.to_le_bytes()),
        }
    }

    /// Deletes the run's facts below `end`.
    fn delete_facts(self, txn: &mut RwTxn<'_>, run: RunName, end: u64) -> Result<(), heed::Error> {
        if end == 0 {
            return Ok(());
        }
        let (first, end) = (fact_key(run, 0), fact_key(run, end));
        self.facts.delete_range(txn, &(Bound::Included(&first[..]), Bound::Excluded(&end[..]))).map(drop)
    }
}

/// What tells a folder from its copy: its inode, and when that was made, or its device where the file system can't say
/// (a device's number may change over a reboot, so the time is the better one).
pub(super) fn identity(dir: &Path) -> io::Result<Vec<u8>> {
    let metadata = dir.metadata()?;
    let born = metadata.created().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    let other = born.as_ref().map_or_else(|| u128::from(metadata.dev()), Duration::as_nanos);
    Ok([&metadata.ino().to_le_bytes()[..], &other.to_le_bytes()].concat())
}

fn fact_key(run: RunName, index: u64) -> [u8; 24] {
    let mut key = [0; 24];
    key[..16].copy_from_slice(&run.to_bytes());
    key[16..].copy_from_slice(&index.to_be_bytes());
    key
}

fn token(bytes: &[u8]) -> Result<u64, JournalError> {
    bytes.try_into().map(u64::from_le_bytes).map_err(|_| bad("meta", "the token's length"))
}

fn run_of(table: &'static str, key: &[u8]) -> Result<RunName, JournalError> {
    key.try_into().map(RunName::from_bytes).map_err(|_| bad(table, "the key's length"))
}

fn pipeline_of(key: &[u8]) -> Result<PipelineKey, JournalError> {
    let text = str::from_utf8(key).map_err(|error| bad("claims", error))?;
    text.parse().map_err(|error| bad("claims", error))
}

fn bad(table: &'static str, problem: impl ToString) -> JournalError {
    JournalError::Row { table, problem: problem.to_string() }
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, heed::Error> {
    let mut bytes = Vec::new();
    encode_into(value, &mut bytes)?;
    Ok(bytes)
}

fn encode_into<T: Serialize>(value: &T, out: &mut Vec<u8>) -> Result<(), heed::Error> {
    rmp_serde::encode::write_named(out, value).map_err(|error| heed::Error::Encoding(Box::new(error)))
}

fn decode<T: DeserializeOwned>(table: &'static str, bytes: &[u8]) -> Result<T, JournalError> {
    rmp_serde::from_slice(bytes).map_err(|error| bad(table, error))
}
