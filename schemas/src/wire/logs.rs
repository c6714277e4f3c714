//! A run's log: one stream of records, the same bytes on the agent's disk, on the wire and at the controller.
//!
//! A record is `kind: u8`, `step: u16 LE`, `micros: u64 LE` (unix time), `length: u32 LE`, then `length` bytes. Output
//! is kept in chunks as it was read from the pipe, byte for byte. `offset`s count bytes of this stream. On the wire
//! a stream begins with a [`LogHeader`] (a frame, tag 301), then the records from `offset` on.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::messages;
use crate::meta::{Epoch, FileHash, PipelineKey, RunName};

messages! {
    /// What begins a stream from an agent. Tags 301 to 399.
    LogMessage {
        /// Whose log, from where on.
        301 = Header(LogHeader),
        /// Which artifact follows.
        302 = Artifact(ArtifactHeader),
    }
}

/// Whose log, from where on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogHeader {
    /// The run.
    pub run: RunName,
    /// Whose it is.
    pub pipeline: PipelineKey,
    /// Under which ownership it started.
    pub epoch: Epoch,
    /// Where in the log the first byte after this header belongs.
    pub offset: u64,
    /// True: the run has ended, and the controller has acknowledged every fact about it. If the controller has no
    /// record of it by now, it never will.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub settled: bool,
}

/// Which artifact follows: its bytes, then the stream's end. Sent once the controller has the fact that names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactHeader {
    /// The run.
    pub run: RunName,
    /// Of its bytes; the controller checks it.
    pub hash: FileHash,
    /// In bytes.
    pub size: u64,
}

/// Bytes of a record before its data.
pub const RECORD_HEAD: usize = 15;
/// The longest data of one record, in bytes.
pub const MAX_RECORD: usize = 1 << 20;

/// What a record holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordKind {
    /// Written to standard output.
    Stdout = 1,
    /// Written to standard error.
    Stderr = 2,
    /// [`StepHead`] as JSON: from here on the number means this step.
    Step = 3,
    /// A sentence of xene's own, such as how many bytes were cut.
    Note = 4,
    /// The log is complete.
    End = 5,
}

/// Which step a number means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepHead {
    /// The task.
    pub task: String,
    /// The step.
    pub step: String,
    /// The task's attempt, from 1.
    pub attempt: u32,
}

/// One record, borrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// What it holds; `None` for a kind that this version does not know.
    pub kind: Option<RecordKind>,
    /// The step's number within the log; 0 for the run itself.
    pub step: u16,
    /// When, in microseconds of unix time.
    pub micros: u64,
    /// As it was read.
    pub data: &'a [u8],
}

impl Record<'_> {
    /// When, as a time.
    pub fn at(&self) -> Timestamp {
        Timestamp::from_microsecond(i64::try_from(self.micros).unwrap_or(i64::MAX)).unwrap_or(Timestamp::MAX)
    }
}

/// The head of a record.
///
/// `length` must be at most [`MAX_RECORD`].
pub fn record_head(kind: RecordKind, step: u16, micros: u64, length: usize) -> [u8; RECORD_HEAD] {
    let mut head = [0; RECORD_HEAD];
    head[0] = kind as u8;
    head[1..3].copy_from_slice(&step.to_le_bytes());
    head[3..11].copy_from_slice(&micros.to_le_bytes());
    head[11..15].copy_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
    head
}

/// Splits the first record off `bytes`: the record and how many bytes it took, or `None` if it is not whole yet.
///
/// # Errors
/// If the announced length is above [`MAX_RECORD`]: these bytes are not a log.
pub fn split_record(bytes: &[u8]) -> Result<Option<(Record<'_>, usize)>, super::WireError> {
    let Some(head) = bytes.first_chunk::<RECORD_HEAD>() else { return Ok(None) };
    let length = u32::from_le_bytes([head[11], head[12], head[13], head[14]]) as usize;
    if length > MAX_RECORD {
        return Err(super::WireError::Length(length, MAX_RECORD));
    }
    let Some(data) = bytes.get(RECORD_HEAD..RECORD_HEAD + length) else { return Ok(None) };
    let kind = match head[0] {
        1 => Some(RecordKind::Stdout),
        2 => Some(RecordKind::Stderr),
        3 => Some(RecordKind::Step),
        4 => Some(RecordKind::Note),
        5 => Some(RecordKind::End),
        _ => None,
    };
    let micros = u64::from_le_bytes([head[3], head[4], head[5], head[6], head[7], head[8], head[9], head[10]]);
    let record = Record { kind, step: u16::from_le_bytes([head[1], head[2]]), micros, data };
    Ok(Some((record, RECORD_HEAD + length)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn records_read_back_at_any_cut(data in prop::collection::vec(any::<u8>(), 0..200), step: u16, micros: u64) {
            let mut bytes = record_head(RecordKind::Stderr, step, micros, data.len()).to_vec();
            bytes.extend_from_slice(&data);
            for cut in 0..bytes.len() {
                prop_assert_eq!(split_record(&bytes[..cut]).unwrap(), None);
            }
            let (record, used) = split_record(&bytes).unwrap().unwrap();
            prop_assert_eq!(record, Record { kind: Some(RecordKind::Stderr), step, micros, data: &data });
            prop_assert_eq!(used, bytes.len());
        }

        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = split_record(&bytes);
        }
    }
}
