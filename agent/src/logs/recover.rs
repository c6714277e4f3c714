//! What a log file holds after its writer is gone: whole records, after which a torn one is cut off.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufReader, Read as _},
    path::Path,
};

use xene_schemas::wire::logs::{MAX_RECORD, RECORD_HEAD, RecordKind};

/// What a log file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Contents {
    /// Bytes of whole records.
    pub(super) len: u64,
    /// How many steps it has numbered.
    pub(super) steps: u16,
    /// True if it ends with an End record.
    pub(super) sealed: bool,
}

/// Walks over the file's records and cuts off what follows the last whole one.
pub(super) fn recover(path: &Path) -> io::Result<Contents> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let size = file.metadata()?.len();
    let contents = walk(&file, size)?;
    if contents.len < size {
        tracing::warn!(path = %path.display(), cut = size - contents.len, "cut a torn record off a run's log");
        file.set_len(contents.len)?;
    }
    Ok(contents)
}

fn walk(file: &File, size: u64) -> io::Result<Contents> {
    let mut reader = BufReader::with_capacity(128 << 10, file);
    let mut contents = Contents { len: 0, steps: 0, sealed: false };
    let mut head = [0; RECORD_HEAD];
    while !contents.sealed && contents.len + RECORD_HEAD as u64 <= size {
        reader.read_exact(&mut head)?;
        let length = u32::from_le_bytes([head[11], head[12], head[13], head[14]]);
        let end = contents.len + (RECORD_HEAD as u64) + u64::from(length);
        // A file system may hand back zeros for what it had not written yet: no record begins with one.
        if head[0] == 0 || length as usize > MAX_RECORD || end > size {
            break;
        }
        contents.len = end;
        contents.steps = contents.steps.saturating_add(u16::from(head[0] == RecordKind::Step as u8));
        contents.sealed = head[0] == RecordKind::End as u8;
        reader.seek_relative(i64::from(length))?;
    }
    Ok(contents)
}
