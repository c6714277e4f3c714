//! Is the store whole? LMDB's pages have no checksums, and a damaged one may kill who reads it: so a process of its own
//! reads everything once, before the controller does.

use std::{
    io::{self, Read as _},
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use heed::{BytesDecode, Database, RoTxn, WithoutTls, types::DecodeIgnore};
use rustix::process::Signal;
use xene_agent::lmdb::Env;

use super::{Store, StoreError, tables, tables::Tables, upgrade};

/// Why a store is not used.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// Something in it can't be read.
    #[error(
        "the store {} is damaged ({cause}); it was not touched: put a backup in its place with `xene restore`, or move \
         it away and start once with --init recover, which makes it anew from the source and what the agents know",
        dir.display()
    )]
    Damaged {
        /// The store's folder.
        dir: PathBuf,
        /// What was found.
        cause: String,
    },
    /// The check itself can't be run.
    #[error("the store can't be checked: {0}")]
    Run(#[source] io::Error),
    /// Somebody ended the check, such as by Ctrl-C or for want of memory.
    #[error("the check of the store was ended by signal {0}; nothing is known about the store, start again")]
    Interrupted(i32),
}

/// What a process ends in that reads a damaged map: no such page, no such address, or LMDB's own assertion.
const DAMAGE: [Signal; 4] = [Signal::BUS, Signal::SEGV, Signal::ABORT, Signal::ILL];

/// Reads all of the store in the data folder `data`, by `program` with the arguments `arguments` and the folder, which is
/// to call [`Store::read_all`] and to end with 0 if that succeeds. Blocks until it has ended.
///
/// # Errors
/// If the store is damaged, or the program can't be run.
pub fn check(program: &Path, arguments: &[&str], data: &Path) -> Result<(), CheckError> {
    let mut child = Command::new(program);
    child.args(arguments).arg(data).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = child.spawn().map_err(CheckError::Run)?;
    let mut said = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        // What it says is for people; its end tells enough.
        let _ = stderr.read_to_string(&mut said);
    }
    let status = child.wait().map_err(CheckError::Run)?;
    let cause = match status.signal() {
        None if status.success() => return Ok(()),
        None => said.trim().trim_start_matches("error: ").to_owned(),
        Some(signal) if !DAMAGE.iter().any(|damage| damage.as_raw() == signal) => {
            return Err(CheckError::Interrupted(signal));
        }
        Some(signal) => format!("to read it ends in signal {signal}"),
    };
    Err(CheckError::Damaged { dir: data.join("store"), cause })
}

impl Store {
    /// Reads every row of the store in this data folder. A damaged page may end the process.
    ///
    /// # Errors
    /// What can't be read. A store of another version than this code's is not looked into.
    pub fn read_all(data: &Path) -> Result<(), StoreError> {
        let dir = data.join("store");
        let env = Env::open(&dir, tables::COUNT)?;
        let tables = env.write(Tables::create)?;
        env.read(|txn| {
            if tables.schema_version(txn)? != Some(1 + upgrade::STEPS.len() as u64) {
                return Ok(());
            }
            tables.controller(txn)?;
            tables.source(txn)?;
            read(tables.workflows, txn)?;
            read(tables.pipelines, txn)?;
            read(tables.specs, txn)?;
            read(tables.owners, txn)?;
            read(tables.agents, txn)?;
            read(tables.runs, txn)?;
            read(tables.runs_by_pipeline, txn)?;
            read(tables.active_runs, txn)?;
            read(tables.events, txn)?;
            read(tables.files.remap_key_type::<DecodeIgnore>(), txn)?;
            read(tables.join_tokens.remap_key_type::<DecodeIgnore>(), txn)?;
            read(tables.api_tokens.remap_key_type::<DecodeIgnore>(), txn)?;
            read(tables.ledger.remap_key_type::<DecodeIgnore>(), txn)?;
            read(tables.deliveries.remap_key_type::<DecodeIgnore>(), txn)?;
            read(tables.after, txn)?;
            read(tables.suspensions.remap_key_type::<DecodeIgnore>(), txn)?;
            read(tables.notifiers, txn)?;
            read(tables.outbox.remap_key_type::<DecodeIgnore>(), txn)?;
            read(tables.notifier_health, txn)?;
            Ok(())
        })
    }
}

fn read<'t, K: BytesDecode<'t>, V: BytesDecode<'t>>(
    table: Database<K, V>,
    txn: &'t RoTxn<'_, WithoutTls>,
) -> Result<(), heed::Error> {
    table.iter(txn)?.try_for_each(|entry| entry.map(drop))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_by(script: &str) -> Result<(), CheckError> {
        check(Path::new("/bin/sh"), &["-c", script], Path::new("/data"))
    }

    #[test]
    fn only_what_reading_led_to_is_damage() {
        check_by("exit 0").unwrap();
        let damaged = |script| check_by(script).unwrap_err().to_string();
        assert!(damaged("echo 'error: no such row' >&2; exit 1").contains("/data/store is damaged (no such row)"));
        assert!(damaged("kill -BUS $$").contains("is damaged (to read it ends in signal 7)"));
        for signal in ["INT", "TERM", "KILL"] {
            let error = check_by(&format!("kill -{signal} $$")).unwrap_err();
            assert!(matches!(error, CheckError::Interrupted(_)), "{signal}: {error}");
        }
        let absent = check(Path::new("/no/such/program"), &[], Path::new("/data")).unwrap_err();
        assert!(matches!(absent, CheckError::Run(_)), "{absent}");
    }
}
