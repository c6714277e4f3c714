//! Gives the memory back that a long read of the store has touched: the kernel counts pages of the map as the
//! process's own until they are needed elsewhere.

use std::{
    fs::{canonicalize, read_to_string},
    io,
    path::Path,
};

use rustix::mm::{Advice, madvise};

/// Lets go of the pages of the map of `file`; reading it again brings them back from the page cache.
///
/// The map must not be moved meanwhile: call this within a read.
pub(super) fn release_map(file: &Path) -> io::Result<()> {
    let file = canonicalize(file)?;
    for line in read_to_string("/proc/self/maps")?.lines() {
        let Some((start, end)) = range_of(line, &file) else { continue };
        #[expect(
            unsafe_code,
            reason = "a shared map of a file loses nothing: its pages are read again when they are touched"
        )]
        unsafe {
            madvise(std::ptr::with_exposed_provenance_mut(start), end - start, Advice::LinuxDontNeed)?;
        }
    }
    Ok(())
}

/// The addresses of a line of `/proc/self/maps`, if it is a shared map of `file`.
fn range_of(line: &str, file: &Path) -> Option<(usize, usize)> {
    let mut fields = line.splitn(6, ' ');
    let (range, flags) = (fields.next()?, fields.next()?);
    let path = fields.nth(3)?.trim_start();
    if Path::new(path) != file || !flags.ends_with('s') {
        return None;
    }
    let (start, end) = range.split_once('-')?;
    Some((usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_shared_maps_of_the_file_count() {
        let line = "7f10000000-7f20000000 rw-s 00000000 fd:01 42                 /data dir/store/data.mdb";
        assert_eq!(range_of(line, Path::new("/data dir/store/data.mdb")), Some((0x7f_1000_0000, 0x7f_2000_0000)));
        assert_eq!(range_of(line, Path::new("/data dir/store/lock.mdb")), None);
        assert_eq!(range_of(&line.replace("rw-s", "rw-p"), Path::new("/data dir/store/data.mdb")), None);
        assert_eq!(range_of("7f10000000-7f20000000 rw-p 00000000 00:00 0", Path::new("/x")), None);
    }
}
