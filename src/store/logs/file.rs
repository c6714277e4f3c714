//! One log on disk: zstd frames one after another, so `zstdcat` reads it, and an index beside it that says where each
//! frame ends.
//!
//! The index is 16 bytes for each frame: its end in the log, then its end in the file, both u64 LE. It is never synced
//! for its own sake: what it lacks after a crash is found again in the frames, which carry their length and checksum.

use std::{
    cell::RefCell,
    fs::{File, OpenOptions, create_dir_all, remove_dir, remove_file},
    io::{self, ErrorKind},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use xene_schemas::meta::RunName;
use zstd::{
    bulk::{Compressor, Decompressor},
    zstd_safe::{CParameter, compress_bound, find_frame_compressed_size},
};

/// The longest frame, in bytes before compression: what a reader decodes to reach any byte.
pub(super) const FRAME: usize = 256 << 10;
/// More bytes of the file than this are never unsynced, so only so many can be torn by a crash.
pub(super) const UNSYNCED: u64 = 8 << 20;
/// The fastest level: logs are large, written once and seldom read.
const LEVEL: i32 = 1;
const ENTRY: u64 = 16;

/// Where a log lies.
#[derive(Debug)]
pub(super) struct LogFile {
    log: PathBuf,
    index: PathBuf,
}

/// How far a log goes. The default is an empty one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Extent {
    /// In bytes of the log.
    pub(super) raw: u64,
    /// In bytes of the file.
    pub(super) stored: u64,
    /// In frames.
    pub(super) frames: u64,
}

impl LogFile {
    /// The log of `run` below `logs`. Runs of about nine hours share a folder.
    pub(super) fn new(logs: &Path, run: RunName) -> Self {
        let name = run.to_string();
        let folder = logs.join(&name[..5]);
        Self { log: folder.join(format!("{name}.log.zst")), index: folder.join(format!("{name}.log.idx")) }
    }

    /// How far the log goes by its index, which is repaired first if it does not fit the log.
    pub(super) fn extent(&self) -> io::Result<Extent> {
        let stored = length(&self.log)?;
        if stored == 0 {
            return Ok(Extent::default());
        }
        let frames = length(&self.index)? / ENTRY;
        if frames > 0 {
            let last = entry(&File::open(&self.index)?, frames - 1)?;
            if last.stored == stored {
                return Ok(last);
            }
        }
        self.recover()
    }

    /// Cuts what a crash has torn off the end of the log, and mends the index: whole frames stay.
    pub(super) fn recover(&self) -> io::Result<Extent> {
        let log = match OpenOptions::new().read(true).write(true).open(&self.log) {
            Ok(log) => log,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Extent::default()),
            Err(error) => return Err(error),
        };
        let length = log.metadata()?.len();
        let mut index = match std::fs::read(&self.index) {
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            read => read?,
        };
        let end = synced_part(&index, length.saturating_sub(UNSYNCED + compress_bound(FRAME) as u64));
        index.truncate(usize::try_from(end.frames * ENTRY).unwrap_or(usize::MAX));
        let kept = index.len() as u64;
        let end = walk(&log, end, &mut index)?;
        if end.stored < length {
            tracing::warn!(path = %self.log.display(), bytes = length - end.stored, "cut the torn end of a log");
            log.set_len(end.stored)?;
            log.sync_data()?;
        }
        let mended = self.open_for_writing(&self.index)?;
        mended.set_len(kept)?;
        mended.write_all_at(&index[usize::try_from(kept).unwrap_or(usize::MAX)..], kept)?;
        Ok(end)
    }

    /// Appends one frame at `end`: all of it, or nothing.
    pub(super) fn append(&self, end: Extent, data: &[u8]) -> io::Result<Extent> {
        let frame = compress(data)?;
        let next = Extent {
            raw: end.raw + data.len() as u64,
            stored: end.stored + frame.len() as u64,
            frames: end.frames + 1,
        };
        let (log, index) = (self.open_for_writing(&self.log)?, self.open_for_writing(&self.index)?);
        let mut entry = [0; ENTRY as usize];
        entry[..8].copy_from_slice(&next.raw.to_le_bytes());
        entry[8..].copy_from_slice(&next.stored.to_le_bytes());
        let written =
            log.write_all_at(&frame, end.stored).and_then(|()| index.write_all_at(&entry, end.frames * ENTRY));
        if let Err(error) = written {
            log.set_len(end.stored)?;
            index.set_len(end.frames * ENTRY)?;
            return Err(error);
        }
        Ok(next)
    }

    /// Bytes of the log from `from` on, at most `max`; empty only at or behind `end`.
    pub(super) fn read(&self, end: Extent, from: u64, max: usize) -> io::Result<Vec<u8>> {
        if from >= end.raw || max == 0 {
            return Ok(Vec::new());
        }
        let (log, index) = (File::open(&self.log)?, File::open(&self.index)?);
        let mut before = frame_of(&index, end.frames, from)?;
        let mut out = Vec::with_capacity(max.min(usize::try_from(end.raw - from).unwrap_or(usize::MAX)));
        let mut decompressor = Decompressor::new()?;
        let (mut stored, mut raw) = (Vec::new(), Vec::with_capacity(FRAME));
        while out.len() < max && before.frames < end.frames {
            let next = entry(&index, before.frames)?;
            let (stored_size, raw_size) = (next.stored.checked_sub(before.stored), next.raw.checked_sub(before.raw));
            let (Some(stored_size), Some(raw_size)) = (stored_size.and_then(fits), raw_size.and_then(fits)) else {
                return Err(damaged());
            };
            stored.resize(stored_size, 0);
            log.read_exact_at(&mut stored, before.stored)?;
            raw.clear();
            raw.reserve(raw_size);
            if decompressor.decompress_to_buffer(&stored, &mut raw)? != raw_size {
                return Err(damaged());
            }
            let skip = usize::try_from(from.saturating_sub(before.raw)).unwrap_or(raw_size).min(raw_size);
            let take = (raw_size - skip).min(max - out.len());
            out.extend_from_slice(&raw[skip..skip + take]);
            before = next;
        }
        Ok(out)
    }

    /// Makes all that is written durable; of a new log also its name. That of its folder was when it was made.
    pub(super) fn sync(&self, new: bool) -> io::Result<()> {
        match File::open(&self.log) {
            Ok(log) => log.sync_data()?,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        }
        if new {
            sync_folder(self.log.parent())?;
        }
        Ok(())
    }

    /// Removes the log, and its folder if it was the last one there.
    pub(super) fn delete(&self) -> io::Result<()> {
        for path in [&self.index, &self.log] {
            match remove_file(path) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        if let Some(folder) = self.log.parent() {
            // Refused while others are there.
            let _ = remove_dir(folder);
        }
        Ok(())
    }

    fn open_for_writing(&self, path: &Path) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true).mode(0o600);
        match options.open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                path.parent().map_or(Ok(()), create_dir_all)?;
                sync_folder(path.ancestors().nth(2))?;
                options.open(path)
            }
            opened => opened,
        }
    }
}

fn sync_folder(folder: Option<&Path>) -> io::Result<()> {
    folder.map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

thread_local! {
    /// A compressor costs more to set up than to use; threads that write logs come and go with the load.
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
}

fn compress(data: &[u8]) -> io::Result<Vec<u8>> {
    COMPRESSOR.with_borrow_mut(|kept| {
        let compressor = match kept {
            Some(compressor) => compressor,
            none => {
                let mut compressor = Compressor::new(LEVEL)?;
                compressor.set_parameter(CParameter::ChecksumFlag(true))?;
                none.insert(compressor)
            }
        };
        compressor.compress(data)
    })
}

fn length(path: &Path) -> io::Result<u64> {
    match path.metadata() {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(0),
        metadata => Ok(metadata?.len()),
    }
}

/// The end of frame `n`, from 0.
fn entry(index: &File, n: u64) -> io::Result<Extent> {
    let mut bytes = [0; ENTRY as usize];
    index.read_exact_at(&mut bytes, n * ENTRY)?;
    Ok(parse_entry(&bytes, n + 1))
}

fn parse_entry(bytes: &[u8], frames: u64) -> Extent {
    let number = |bytes: &[u8]| bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte));
    Extent { raw: number(&bytes[..8]), stored: number(&bytes[8..]), frames }
}

/// The end of the frame before the one that holds byte `from`.
fn frame_of(index: &File, frames: u64, from: u64) -> io::Result<Extent> {
    let (mut low, mut high, mut before) = (0, frames, Extent::default());
    while low < high {
        let middle = low + (high - low) / 2;
        let end = entry(index, middle)?;
        if end.raw <= from {
            (low, before) = (middle + 1, end);
        } else {
            high = middle;
        }
    }
    Ok(before)
}

/// A size of a frame, in memory or in the file, if it is one.
fn fits(size: u64) -> Option<usize> {
    usize::try_from(size).ok().filter(|size| (1..=compress_bound(FRAME)).contains(size))
}

fn damaged() -> io::Error {
    io::Error::new(ErrorKind::InvalidData, "the log's index does not fit the log")
}

/// As much of an index as leads upwards and ends at byte `limit` of the file at the latest.
fn synced_part(index: &[u8], limit: u64) -> Extent {
    let mut end = Extent::default();
    for bytes in index.chunks_exact(ENTRY as usize) {
        let next = parse_entry(bytes, end.frames + 1);
        if next.raw <= end.raw || next.stored <= end.stored || next.stored > limit {
            break;
        }
        end = next;
    }
    end
}

/// Follows whole frames from `end` on, adding them to `index`: the new end.
fn walk(log: &File, mut end: Extent, index: &mut Vec<u8>) -> io::Result<Extent> {
    let window = compress_bound(FRAME);
    let mut decompressor = Decompressor::new()?;
    let (mut buffer, mut used, mut raw) = (Vec::new(), 0, Vec::with_capacity(FRAME));
    loop {
        if buffer.len() - used < window {
            buffer.drain(..used);
            used = 0;
            let (start, at) = (buffer.len(), end.stored + buffer.len() as u64);
            buffer.resize(4 * window, 0);
            let mut filled = start;
            while filled < buffer.len() {
                match log.read_at(&mut buffer[filled..], at + (filled - start) as u64)? {
                    0 => break,
                    n => filled += n,
                }
            }
            buffer.truncate(filled);
        }
        let Ok(size) = find_frame_compressed_size(&buffer[used..]) else { return Ok(end) };
        raw.clear();
        let decoded = decompressor.decompress_to_buffer(&buffer[used..used + size], &mut raw);
        let Ok(length) = decoded.map(|length| length as u64) else { return Ok(end) };
        if length == 0 {
            return Ok(end);
        }
        end = Extent { raw: end.raw + length, stored: end.stored + size as u64, frames: end.frames + 1 };
        index.extend_from_slice(&end.raw.to_le_bytes());
        index.extend_from_slice(&end.stored.to_le_bytes());
        used += size;
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::*;

    fn chunks() -> impl Strategy<Value = Vec<Vec<u8>>> {
        prop::collection::vec(prop::collection::vec(prop::sample::select(vec![b'a', b'b', 0, 255]), 1..200), 1..12)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn whole_frames_outlive_any_cut(
            chunks in chunks(),
            log_cut in 0.0..=1.0f64,
            index_cut in 0.0..=1.0f64,
            zeros in 0..64usize,
        ) {
            let temp = tempfile::tempdir().unwrap();
            let file = LogFile::new(temp.path(), RunName::new(Timestamp::from_second(1).unwrap(), 7));
            let mut ends = vec![Extent::default()];
            for chunk in &chunks {
                ends.push(file.append(*ends.last().unwrap(), chunk).unwrap());
            }
            let whole: Vec<u8> = chunks.concat();
            prop_assert_eq!(zstd::stream::decode_all(File::open(&file.log).unwrap()).unwrap(), &whole[..], "zstdcat");
            prop_assert_eq!(file.recover().unwrap(), *ends.last().unwrap());

            // A crash leaves any part of both files, perhaps followed by blocks that were never written.
            let cut = |path: &Path, part: f64| {
                let bytes = std::fs::read(path).unwrap();
                let length = (bytes.len() as f64 * part) as usize;
                let kept = [&bytes[..length], &vec![0; zeros]].concat();
                std::fs::write(path, kept).unwrap();
                length as u64
            };
            let length = cut(&file.log, log_cut);
            cut(&file.index, index_cut);
            let end = file.recover().unwrap();
            prop_assert_eq!(end, *ends.iter().rfind(|end| end.stored <= length).unwrap());
            prop_assert_eq!(file.extent().unwrap(), end);
            prop_assert_eq!(file.read(end, 0, usize::MAX >> 1).unwrap(), &whole[..usize::try_from(end.raw).unwrap()]);
            let end = file.append(end, b"more").unwrap();
            prop_assert_eq!(file.read(end, end.raw - 4, 100).unwrap(), b"more");
        }

        #[test]
        fn any_range_reads_as_the_log(chunks in chunks(), from in 0..3_000u64, max in 0..700usize) {
            let temp = tempfile::tempdir().unwrap();
            let file = LogFile::new(temp.path(), RunName::new(Timestamp::from_second(1).unwrap(), 7));
            let end = chunks.iter().try_fold(Extent::default(), |end, chunk| file.append(end, chunk)).unwrap();
            let whole = chunks.concat();
            let start = usize::try_from(from).unwrap().min(whole.len());
            let expected = &whole[start..whole.len().min(start + max)];
            prop_assert_eq!(file.read(end, from, max).unwrap(), expected);
        }
    }

    #[test]
    fn a_deleted_log_leaves_nothing() {
        let temp = tempfile::tempdir().unwrap();
        let file = LogFile::new(temp.path(), RunName::new(Timestamp::from_second(1).unwrap(), 7));
        file.append(Extent::default(), b"x").unwrap();
        file.delete().unwrap();
        file.delete().unwrap();
        assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 0);
        assert_eq!(file.extent().unwrap(), Extent::default());
    }
}
