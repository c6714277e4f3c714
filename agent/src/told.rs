//! What the machines of runs were told, on the disk as long as they run, for the next process of the agent: `told/RUN`
//! holds records, each `length: u32 LE` and a [`Told`] in MessagePack.
//!
//! Nothing is synced: what the system has taken outlives the process, and no run outlives the host's boot.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use xene_schemas::meta::RunName;

use crate::{decide::resume::Told, folder};

/// The files of all runs that go on.
#[derive(Debug)]
pub struct ToldFiles {
    dir: PathBuf,
    /// `None`: it could not be written, so that run can't go on under another process.
    open: HashMap<RunName, Option<File>>,
}

impl ToldFiles {
    /// Makes the folder `dir`, or reads what it holds. A record that a crash has torn is cut off.
    ///
    /// # Errors
    /// If the folder can't be made or read.
    pub fn open(dir: &Path) -> io::Result<(Self, BTreeMap<RunName, Vec<Told>>)> {
        folder::private(dir)?;
        let (mut files, mut found) = (Self { dir: dir.to_owned(), open: HashMap::new() }, BTreeMap::new());
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let Some(run) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            match read(&entry.path()) {
                Ok(told) => drop(found.insert(run, told)),
                Err(error) => tracing::error!(%run, %error, "what a run was told can't be read"),
            }
            files.open.insert(run, None);
        }
        for run in found.keys() {
            files.open.remove(run);
        }
        Ok((files, found))
    }

    /// The runs that there are files of.
    pub fn runs(&self, found: &BTreeMap<RunName, Vec<Told>>) -> Vec<RunName> {
        found.keys().chain(self.open.keys()).copied().collect()
    }

    /// Writes down what the machine of a run was told. If that fails, the run can't go on under another process.
    pub fn remember(&mut self, run: RunName, told: &Told) {
        let path = self.path(run);
        let make = || OpenOptions::new().append(true).create(true).mode(0o600).open(&path);
        let file = self.open.entry(run).or_insert_with(|| make().ok());
        if let Some(open) = file
            && let Err(error) = write(open, told)
        {
            tracing::warn!(%run, %error, "what a run was told can't be written: it will not outlive this process");
            // Half of it would be wrong.
            let _ = fs::remove_file(path);
            *file = None;
        }
    }

    /// Removes what a run was told, which has ended.
    pub fn forget(&mut self, run: RunName) {
        self.open.remove(&run);
        match fs::remove_file(self.path(run)) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                tracing::warn!(%run, %error, "what a run was told can't be removed");
            }
            _ => {}
        }
    }

    fn path(&self, run: RunName) -> PathBuf {
        self.dir.join(run.to_string())
    }
}

/// Writes one record with one system call, which a crash of the process does not tear.
fn write(file: &mut File, told: &Told) -> io::Result<()> {
    let mut bytes = vec![0; 4];
    rmp_serde::encode::write_named(&mut bytes, told).map_err(io::Error::other)?;
    let length = u32::try_from(bytes.len() - 4).map_err(io::Error::other)?;
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    file.write_all(&bytes)
}

fn read(path: &Path) -> io::Result<Vec<Told>> {
    let bytes = fs::read(path)?;
    let (mut rest, mut told) = (&bytes[..], Vec::new());
    while let Some((length, after)) = rest.split_first_chunk() {
        let Some((record, after)) = after.split_at_checked(u32::from_le_bytes(*length) as usize) else { break };
        told.push(rmp_serde::from_slice(record).map_err(io::Error::other)?);
        rest = after;
    }
    if !rest.is_empty() {
        OpenOptions::new().write(true).open(path)?.set_len((bytes.len() - rest.len()) as u64)?;
    }
    Ok(told)
}

#[cfg(test)]
mod tests {
    use indexmap::IndexMap;
    use jiff::Timestamp;

    use super::*;
    use crate::{clock, decide::run::Input};

    fn run(n: u128) -> RunName {
        RunName::new(Timestamp::UNIX_EPOCH, n)
    }

    fn told() -> [Told; 3] {
        let payload = Some(b"{}\xff".as_slice().into());
        let reused = IndexMap::from([("t".to_owned(), IndexMap::from([("a".to_owned(), "b".to_owned())]))]);
        let happened = |input| Told::Happened { now: clock::now(), input };
        [Told::Made { payload, reused }, happened(Input::Start), happened(Input::SlotGranted("t".into()))]
    }

    #[test]
    fn what_was_remembered_is_found_and_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let [made, start, granted] = told();
        let (mut files, found) = ToldFiles::open(dir.path()).unwrap();
        assert_eq!(found, BTreeMap::new());
        files.remember(run(1), &made);
        files.remember(run(2), &made);
        files.remember(run(1), &start);
        files.forget(run(2));
        let (mut files, found) = ToldFiles::open(dir.path()).unwrap();
        assert_eq!(found, [(run(1), vec![made.clone(), start.clone()])].into());
        files.remember(run(1), &granted);
        assert_eq!(ToldFiles::open(dir.path()).unwrap().1, [(run(1), vec![made, start, granted])].into());
    }

    #[test]
    fn a_torn_record_is_cut_at_every_length() {
        let dir = tempfile::tempdir().unwrap();
        let [made, start, granted] = told();
        let (mut files, _) = ToldFiles::open(dir.path()).unwrap();
        let path = dir.path().join(run(1).to_string());
        files.remember(run(1), &made);
        let first = fs::metadata(&path).unwrap().len();
        files.remember(run(1), &start);
        let whole = fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let (mut files, found) = ToldFiles::open(dir.path()).unwrap();
            let mut left = if (cut as u64) < first { vec![] } else { vec![made.clone()] };
            assert_eq!(found[&run(1)], left, "cut at {cut}");
            files.remember(run(1), &granted);
            left.push(granted.clone());
            assert_eq!(ToldFiles::open(dir.path()).unwrap().1[&run(1)], left, "cut at {cut}");
        }
    }

    #[test]
    fn a_run_of_which_something_is_missing_does_not_go_on() {
        let dir = tempfile::tempdir().unwrap();
        let [made, start, _] = told();
        let (mut files, _) = ToldFiles::open(dir.path()).unwrap();
        files.remember(run(1), &made);
        // As a full disk would.
        let read_only = File::open(dir.path().join(run(1).to_string())).unwrap();
        files.open.insert(run(1), Some(read_only));
        files.remember(run(1), &start);
        files.remember(run(1), &start);
        assert_eq!(ToldFiles::open(dir.path()).unwrap().1, BTreeMap::new());
    }
}
