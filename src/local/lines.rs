//! A run's log as whole lines, each after the step that printed it.

use std::collections::{BTreeMap, HashMap};

use xene_schemas::wire::logs::{Record, RecordKind, StepHead};

/// A line that is longer is shown in pieces.
const LONGEST: usize = 64 << 10;

/// Turns records into lines.
#[derive(Debug, Default)]
pub(super) struct Lines {
    steps: HashMap<u16, StepHead>,
    /// What was printed of a line that is not whole yet, by step and stream.
    open: BTreeMap<(u16, u8), Vec<u8>>,
}

impl Lines {
    /// Adds the lines that a record makes whole to `out`.
    pub(super) fn take(&mut self, record: Record<'_>, out: &mut Vec<String>) {
        match record.kind {
            Some(RecordKind::Step) => {
                // A head that can't be read leaves its step without a name.
                let Ok(head) = serde_json::from_slice::<StepHead>(record.data) else { return };
                // An earlier step of the task prints no more.
                let of_task = |step: &u16| self.steps.get(step).is_some_and(|known| known.task == head.task);
                let ended: Vec<_> = self.open.keys().filter(|(step, _)| of_task(step)).copied().collect();
                ended.into_iter().for_each(|key| self.end_line(key, out));
                self.steps.insert(record.step, head);
            }
            Some(kind @ (RecordKind::Stdout | RecordKind::Stderr)) => {
                let key = (record.step, kind as u8);
                for piece in record.data.split_inclusive(|byte| *byte == b'\n') {
                    let open = self.open.entry(key).or_default();
                    open.extend_from_slice(piece);
                    if piece.ends_with(b"\n") || open.len() > LONGEST {
                        self.end_line(key, out);
                    }
                }
            }
            Some(RecordKind::Note) => out.push(format!("xene: {}", String::from_utf8_lossy(record.data))),
            Some(RecordKind::End) => {
                let open: Vec<_> = self.open.keys().copied().collect();
                open.into_iter().for_each(|key| self.end_line(key, out));
            }
            None => {}
        }
    }

    /// Ends the lines of steps that print no more.
    pub(super) fn end(&mut self, has_ended: impl Fn(&StepHead) -> bool, out: &mut Vec<String>) {
        let ended = |(step, _): &&(u16, u8)| self.steps.get(step).is_some_and(&has_ended);
        let ended: Vec<_> = self.open.keys().filter(ended).copied().collect();
        ended.into_iter().for_each(|key| self.end_line(key, out));
    }

    fn end_line(&mut self, key: (u16, u8), out: &mut Vec<String>) {
        let Some(bytes) = self.open.remove(&key) else { return };
        let text = String::from_utf8_lossy(&bytes);
        let text = text.strip_suffix('\n').unwrap_or(&text);
        out.push(match self.steps.get(&key.0) {
            Some(head) => format!("{}/{} | {text}", head.task, head.step),
            None => text.to_owned(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_whatever_the_chunks_are() {
        let (mut lines, mut out) = (Lines::default(), Vec::new());
        let mut take = |kind, step, data: &[u8]| {
            lines.take(Record { kind: Some(kind), step, micros: 0, data }, &mut out);
        };
        let head = |task: &str, step: &str| {
            serde_json::to_vec(&StepHead { task: task.into(), step: step.into(), attempt: 1 }).unwrap()
        };
        take(RecordKind::Step, 1, &head("a", "one"));
        take(RecordKind::Step, 2, &head("b", "one"));
        take(RecordKind::Stdout, 1, b"he");
        take(RecordKind::Stdout, 2, b"other\n");
        take(RecordKind::Stderr, 1, b"oops\n");
        take(RecordKind::Stdout, 1, b"llo\n\nlast");
        take(RecordKind::Step, 3, &head("a", "two"));
        take(RecordKind::Stdout, 3, b"\xff\n");
        take(RecordKind::Note, 0, b"a note");
        take(RecordKind::Stdout, 2, b"no line feed");
        take(RecordKind::End, 0, b"");
        let expected = [
            "b/one | other",
            "a/one | oops",
            "a/one | hello",
            "a/one | ",
            "a/one | last",
            "a/two | \u{fffd}",
            "xene: a note",
            "b/one | no line feed",
        ];
        assert_eq!(out, expected);
    }
}
