//! Versions of the tables: a newer one is refused, an older one is brought up to date after a backup beside it.

use std::{
    fs::{File, remove_file, rename},
    path::Path,
};

use heed::{CompactionOption, RwTxn, WithoutTls};
use xene_agent::lmdb::Env;

use super::{StoreError, tables::Tables};

/// Brings the tables from one version to the next.
pub(super) type Step = fn(&Tables, &mut RwTxn<'_>) -> Result<(), heed::Error>;

/// From version 1 on: the first step leads from 1 to 2. Whoever changes the tables adds a step, and with it a version.
pub(super) const STEPS: &[Step] = &[Tables::add_digest, Tables::add_notifiers, Tables::mark_runs];

/// The version that this code writes.
pub(super) const KNOWN: u64 = 1 + STEPS.len() as u64;

/// Makes the tables be of the version that `steps` lead to, in one transaction.
pub(super) fn upgrade(env: &Env, dir: &Path, steps: &[Step]) -> Result<Tables, StoreError> {
    let known = 1 + steps.len() as u64;
    let (tables, found) = env.write(|env, txn| {
        let tables = Tables::create(env, txn)?;
        let found = match tables.schema_version(txn)? {
            Some(found) if found > known => return Err(StoreError::Newer { found, known }),
            Some(found) => found,
            None => {
                tables.set_schema_version(txn, known)?;
                known
            }
        };
        if found < known {
            back_up(env, dir, found)?;
        }
        Ok((tables, found))
    })?;
    if found < known {
        tracing::info!(from = found, to = known, "bringing the store up to date");
        env.write(|_, txn| {
            let first = usize::try_from(found.saturating_sub(1)).unwrap_or(usize::MAX);
            steps.iter().skip(first).try_for_each(|step| step(&tables, txn))?;
            tables.set_schema_version(txn, known)?;
            Ok::<_, StoreError>(())
        })?;
    }
    Ok(tables)
}

/// Writes what is committed to `backup-vN.mdb`, whole or not at all. A backup that is there already is newer
/// history's beginning and stays.
fn back_up(env: &heed::Env<WithoutTls>, dir: &Path, version: u64) -> Result<(), StoreError> {
    let (path, partial) = (dir.join(format!("backup-v{version}.mdb")), dir.join("backup.partial"));
    if path.exists() {
        return Ok(());
    }
    let failed = |source: std::io::Error| StoreError::Backup { path: path.clone(), source };
    let mut file = File::create(&partial).map_err(failed)?;
    let copied = env.copy_to_file(&mut file, CompactionOption::Enabled);
    if copied.is_err() {
        let _ = remove_file(&partial);
    }
    copied?;
    file.sync_all().map_err(failed)?;
    rename(&partial, &path).map_err(failed)?;
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(dir: &Path) -> Env {
        Env::open(dir, super::super::tables::COUNT).unwrap()
    }

    /// What a step of these tests leaves behind.
    fn mark(tables: &Tables, txn: &mut RwTxn<'_>) -> Result<(), heed::Error> {
        tables.next_revision(txn).map(drop)
    }

    fn fail(_: &Tables, _: &mut RwTxn<'_>) -> Result<(), heed::Error> {
        Err(std::io::Error::other("no").into())
    }

    #[test]
    fn older_tables_are_brought_up_to_date_after_a_backup() {
        let (temp, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let env = opened(temp.path());
        upgrade(&env, temp.path(), &[]).unwrap();
        let tables = upgrade(&env, temp.path(), &[mark, mark]).unwrap();
        let version = env.read(|txn| tables.schema_version(txn)).unwrap();
        assert_eq!((version, env.read(|txn| tables.revision(txn)).unwrap()), (Some(3), 2));
        upgrade(&env, temp.path(), &[mark, mark]).unwrap();
        assert_eq!(env.read(|txn| tables.revision(txn)).unwrap(), 2, "each step once");

        std::fs::copy(temp.path().join("backup-v1.mdb"), copy.path().join("data.mdb")).unwrap();
        let backup = opened(copy.path());
        let tables = upgrade(&backup, copy.path(), &[]).unwrap();
        assert_eq!(backup.read(|txn| tables.revision(txn)).unwrap(), 0, "as it was before");
    }

    #[test]
    fn a_step_that_fails_leaves_the_old_version() {
        let temp = tempfile::tempdir().unwrap();
        let env = opened(temp.path());
        upgrade(&env, temp.path(), &[]).unwrap();
        upgrade(&env, temp.path(), &[mark, fail]).unwrap_err();
        let tables = upgrade(&env, temp.path(), &[]).unwrap();
        let found = env.read(|txn| Ok::<_, heed::Error>((tables.schema_version(txn)?, tables.revision(txn)?))).unwrap();
        assert_eq!(found, (Some(1), 0));
    }

    #[test]
    fn newer_tables_are_refused_in_a_sentence() {
        let temp = tempfile::tempdir().unwrap();
        let env = opened(temp.path());
        upgrade(&env, temp.path(), &[mark]).unwrap();
        let error = upgrade(&env, temp.path(), &[]).unwrap_err().to_string();
        assert_eq!(
            error,
            "a newer xene wrote this store (version 2, this one knows 1): use that xene, or another data folder"
        );
    }
}
