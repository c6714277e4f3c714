//! Is the store whole? LMDB's pages have no checksums, and a damaged one may kill who reads it: so a process of its own
//! reads everything once, before the controller does.

use std::{
    io::{self, Read as _},
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

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
    /// What can't be read. A store of another version than this code's is not looked into, and a table that is missing is
    /// made by who opens the store.
    pub fn read_all(data: &Path) -> Result<(), StoreError> {
        let dir = data.join("store");
        let env = Env::open(&dir, tables::COUNT)?;
        // Not a byte is written: a full disk would look like damage.
        Ok(env.look(|env, txn| Tables::read_all(env, txn, upgrade::KNOWN))?)
    }
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

    #[test]
    fn whoever_only_looks_writes_nothing_also_where_a_table_is_missing() {
        let data = tempfile::tempdir().unwrap();
        let dir = data.path().join("store");
        std::fs::create_dir(&dir).unwrap();
        let env = Env::open(&dir, tables::COUNT).unwrap();
        env.write(|env, txn| {
            let meta: heed::Database<heed::types::Str, heed::types::U64<heed::byteorder::BE>> =
                env.create_database(txn, Some("meta"))?;
            meta.put(txn, "schema", &upgrade::KNOWN)
        })
        .unwrap();
        drop(env);
        let before = std::fs::read(dir.join("data.mdb")).unwrap();
        Store::read_all(data.path()).unwrap();
        assert!(std::fs::read(dir.join("data.mdb")).unwrap() == before, "a full disk would look like damage");
        Store::open(data.path()).unwrap();
    }
}
