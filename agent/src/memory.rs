//! Memory that goes back to the system after work that needed much of it.

use std::{
    fs::{canonicalize, read_to_string},
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rustix::mm::{Advice, madvise};

/// After so many rows there is something to give back: a first look at a source, or a busy while of runs.
const ROWS: usize = 5_000;
/// The kernel maps code in large pieces, of which a process that waits needs few. Some hundred faults a minute, of a
/// microsecond each, bring those back.
const CODE_EVERY: Duration = Duration::from_secs(60);
/// What follows a burst is over by then.
const REST: Duration = Duration::from_secs(2);

/// Counts work, and gives freed memory back after much of it.
#[derive(Debug, Default)]
pub struct Trim {
    rows: usize,
    underway: Arc<AtomicBool>,
}

impl Trim {
    /// For a process that has just read what it works on: that is given back soon. Call it within a tokio runtime.
    pub fn after_start() -> Self {
        tokio::spawn(give_back());
        Self::default()
    }

    /// So many rows were written. Call it within a tokio runtime.
    pub fn worked(&mut self, rows: usize) {
        self.rows += rows;
        if self.rows < ROWS || self.underway.swap(true, Ordering::Relaxed) {
            return;
        }
        self.rows = 0;
        let underway = Arc::clone(&self.underway);
        tokio::spawn(async move {
            tokio::time::sleep(REST).await;
            drop(tokio::task::spawn_blocking(free).await);
            underway.store(false, Ordering::Relaxed);
        });
    }
}

/// Gives back what the start needed, and then from time to time the code of what was asked for in between.
async fn give_back() {
    tokio::time::sleep(REST).await;
    drop(tokio::task::spawn_blocking(free).await);
    loop {
        if let Ok(Err(error)) = tokio::task::spawn_blocking(release_program).await {
            tracing::debug!(%error, "can't give memory back");
        }
        tokio::time::sleep(CODE_EVERY).await;
    }
}

/// glibc keeps what was freed between blocks in use; other allocators look after this themselves.
fn free() {
    #[cfg(target_env = "gnu")]
    #[expect(unsafe_code, reason = "takes no pointer, and may be called at any time on any thread")]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// After a read of much: lets go of the pages of the map of `file`, which the kernel counts as the process's own until
/// they are needed elsewhere. Reading it again brings them back from the page cache.
///
/// The map must not be moved meanwhile: call this within a transaction.
///
/// # Errors
/// If the file is not there, or the kernel does not list this process's maps.
pub fn release_map(file: &Path) -> io::Result<()> {
    release(&canonicalize(file)?, |flags| flags.ends_with('s'))
}

/// Lets go of the program's code; what is needed again comes back from the page cache. Not of what the loader has written to, which is no code.
fn release_program() -> io::Result<()> {
    release(&std::env::current_exe()?, |flags| flags == "r-xp")
}

/// Lets go of maps of `file` that have these flags: shared ones, or such that nobody writes to.
fn release(file: &Path, flags: impl Fn(&str) -> bool) -> io::Result<()> {
    for line in read_to_string("/proc/self/maps")?.lines() {
        let Some((start, end)) = range_of(line, file, &flags) else { continue };
        #[expect(
            unsafe_code,
            reason = "such a map of a file loses nothing: its pages are read again when they are touched"
        )]
        unsafe {
            madvise(std::ptr::with_exposed_provenance_mut(start), end - start, Advice::LinuxDontNeed)?;
        }
    }
    Ok(())
}

/// The addresses of a line of `/proc/self/maps`, if it is a map of `file` with the flags that are wanted.
fn range_of(line: &str, file: &Path, wanted: impl Fn(&str) -> bool) -> Option<(usize, usize)> {
    let mut fields = line.splitn(6, ' ');
    let (range, flags) = (fields.next()?, fields.next()?);
    let path = fields.nth(3)?.trim_start();
    if Path::new(path) != file || !wanted(flags) {
        return None;
    }
    let (start, end) = range.split_once('-')?;
    Some((usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_maps_of_the_file_that_are_wanted_count() {
        let range_of = |line: &str, file: &Path| range_of(line, file, |flags| flags.ends_with('s'));
        let line = "7f10000000-7f20000000 rw-s 00000000 fd:01 42                 /data dir/store/data.mdb";
        assert_eq!(range_of(line, Path::new("/data dir/store/data.mdb")), Some((0x7f_1000_0000, 0x7f_2000_0000)));
        assert_eq!(range_of(line, Path::new("/data dir/store/lock.mdb")), None);
        assert_eq!(range_of(&line.replace("rw-s", "rw-p"), Path::new("/data dir/store/data.mdb")), None);
        assert_eq!(range_of("7f10000000-7f20000000 rw-p 00000000 00:00 0", Path::new("/x")), None);
    }
}
