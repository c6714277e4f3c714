//! A run's log, section by section and line by line: a section is what one attempt of a step printed. An index of where
//! lines begin lets any stretch of a long log be shown without reading what comes before it.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use maud::{Markup, PreEscaped, html};
use tokio::{sync::Mutex as AsyncMutex, time::timeout};
use xene_schemas::{
    meta::RunName,
    wire::{
        WireError,
        logs::{Record, RecordKind, StepHead, split_record},
    },
};

use super::ansi::{self, Style};
use crate::store::logs::{LogError, LogReader, LogStore};

/// Read at a time, in bytes.
const READ: usize = 1 << 20;
/// So many bytes of the log lie at least between two places of a section that are remembered.
const STRIDE: u64 = 64 << 10;
/// A longer line is shown as several.
const MAX_LINE: usize = 16 << 10;
/// So many lines are shown at a time, unless they are long.
pub(super) const WINDOW: u64 = 500;
/// So many bytes of HTML are shown at a time.
const WINDOW_BYTES: usize = 1 << 20;
/// So many lines that hold what is searched are told.
pub(super) const HITS: usize = 200;
/// So many logs are remembered that somebody looked at.
const REMEMBERED: usize = 32;

#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Record(#[from] WireError),
}

/// The indexes of the logs that were looked at last.
#[derive(Debug, Default)]
pub(super) struct Indexes(Mutex<Vec<(RunName, Shared)>>);

type Shared = Arc<AsyncMutex<Index>>;

impl Indexes {
    /// The index of a run's log, as far as it got.
    pub(super) fn of(&self, run: RunName) -> Shared {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = known.iter().position(|(name, _)| *name == run);
        let entry = found.map_or_else(|| (run, Shared::default()), |at| known.remove(at));
        let index = entry.1.clone();
        known.push(entry);
        if known.len() > REMEMBERED {
            known.remove(0);
        }
        index
    }
}

/// Opens a run's log with its index.
pub(super) async fn open(logs: &LogStore, indexes: &Indexes, run: RunName) -> Result<Log, Error> {
    Ok(Log { reader: logs.reader(run).await?, index: indexes.of(run) })
}

/// A log that can be shown.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) reader: LogReader,
    index: Shared,
}

/// What one attempt of a step printed.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Section {
    /// Its number within the log; 0 is the run's own.
    pub(super) number: u16,
    pub(super) head: Option<StepHead>,
    pub(super) lines: u64,
}

/// Some lines of a section.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Window {
    pub(super) section: u16,
    /// The number of the first line, from 1.
    pub(super) first: u64,
    /// The number of the line after the last; that of the last if it may go on.
    pub(super) next: u64,
    /// How many lines the section has by now.
    pub(super) total: u64,
    /// True if none comes after the last.
    pub(super) is_end: bool,
    pub(super) html: String,
}

/// A line that holds what is searched.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Hit {
    pub(super) section: u16,
    /// From 1.
    pub(super) line: u64,
    pub(super) text: String,
}

impl Log {
    /// Looks at all that there is by now; with a limit of time at as much as that allows. True if nothing is left.
    /// Others may look in between.
    pub(super) async fn look(&self, within: Option<Duration>) -> Result<bool, Error> {
        let length = self.reader.length();
        let look = async {
            while self.index.lock().await.extend(&self.reader, length).await? {}
            Ok(())
        };
        match within {
            None => look.await.map(|()| true),
            // What was looked at until then counts.
            Some(within) => timeout(within, look).await.map_or(Ok(false), |looked| looked.map(|()| true)),
        }
    }

    /// How many bytes of the log were looked at.
    pub(super) async fn looked(&self) -> u64 {
        self.index.lock().await.offset
    }

    /// The sections, as far as the log was looked at.
    pub(super) async fn sections(&self) -> Vec<Section> {
        let index = self.index.lock().await;
        let shown = index.sections.iter().filter(|(_, place)| place.cutter.lines > 0 || place.head.is_some());
        shown
            .map(|(number, place)| Section { number: *number, head: place.head.clone(), lines: place.cutter.lines })
            .collect()
    }

    /// Lines of a section from `from` on, counted from 1; without it the last ones.
    pub(super) async fn window(&self, section: u16, from: Option<u64>) -> Result<Window, Error> {
        let index = self.index.lock().await;
        let Some(place) = index.sections.get(&section) else {
            return Ok(Window { section, first: 1, next: 1, is_end: true, ..Window::default() });
        };
        let total = place.cutter.lines;
        let first = from.unwrap_or_else(|| (total + 1).saturating_sub(WINDOW)).clamp(1, total.max(1));
        let (before, start) = place.before(first);
        let end = place.end;
        let open = place.cutter.open.is_some();
        drop(index);
        let mut window = Window { section, first, next: first, total, is_end: true, html: String::new() };
        let (mut number, mut style) = (before, Style::default());
        let (mut items, mut bytes) = (VecDeque::new(), 0);
        self.walk(section, start, end, |line| {
            number += 1;
            if number < first {
                let mut unseen = String::new();
                ansi::write_line(line.bytes, &mut style, &mut unseen);
                return true;
            }
            let is_full = number >= first + WINDOW || (from.is_some() && bytes > WINDOW_BYTES);
            if is_full || number > total {
                window.is_end = number > total;
                return false;
            }
            let mut item = String::new();
            write_item(section, number, line, &mut style, &mut item);
            bytes += item.len();
            items.push_back(item);
            // Whoever wants the last lines does not want to miss the very last.
            while bytes > WINDOW_BYTES && from.is_none() {
                bytes -= items.pop_front().map_or(0, |item| item.len());
                window.first += 1;
            }
            window.next = number + 1;
            true
        })
        .await?;
        window.html = items.into_iter().collect();
        if open && window.next == total + 1 {
            window.next = total;
        }
        Ok(window)
    }

    /// The first lines that hold `text`, in whatever case, over all sections.
    pub(super) async fn search(&self, text: &str) -> Result<Vec<Hit>, Error> {
        let Ok(wanted) = regex::RegexBuilder::new(&regex::escape(text)).case_insensitive(true).build() else {
            return Ok(Vec::new());
        };
        let (mut hits, mut cutters) = (Vec::new(), HashMap::<u16, Cutter>::new());
        let end = self.reader.length();
        each_record(&self.reader, 0, end, |_, record| {
            let Some(stream) = Stream::of(record.kind) else { return true };
            let cutter = cutters.entry(record.step).or_default();
            cutter.feed(stream, &record, |line, number| {
                let plain = ansi::plain(line.bytes);
                if hits.len() < HITS && wanted.is_match(&plain) {
                    hits.push(Hit { section: record.step, line: number, text: plain.into_owned() });
                }
            });
            hits.len() < HITS
        })
        .await?;
        for (section, cutter) in &mut cutters {
            cutter.finish(|line, number| {
                let plain = ansi::plain(line.bytes);
                if hits.len() < HITS && wanted.is_match(&plain) {
                    hits.push(Hit { section: *section, line: number, text: plain.into_owned() });
                }
            });
        }
        hits.sort_by_key(|hit| (hit.section, hit.line));
        Ok(hits)
    }

    /// Gives lines of a section, from a place where one begins, until `each` has enough.
    async fn walk(
        &self,
        section: u16,
        start: u64,
        end: u64,
        mut each: impl FnMut(Line<'_>) -> bool,
    ) -> Result<(), Error> {
        let (mut cutter, mut goes_on) = (Cutter::default(), true);
        each_record(&self.reader, start, end, |_, record| {
            if record.step == section
                && let Some(stream) = Stream::of(record.kind)
            {
                cutter.feed(stream, &record, |line, _| goes_on = goes_on && each(line));
            }
            goes_on
        })
        .await?;
        if goes_on {
            cutter.finish(|line, _| {
                each(line);
            });
        }
        Ok(())
    }
}

/// What is known of a log so far.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// All records before this were looked at.
    offset: u64,
    sections: BTreeMap<u16, Place>,
}

#[derive(Debug, Default)]
struct Place {
    head: Option<StepHead>,
    /// Where its last record ends.
    end: u64,
    /// Lines before, and where a record with a new line begins.
    marks: Vec<(u64, u64)>,
    cutter: Cutter,
}

impl Index {
    /// Reads once; true if there may be more before `length`.
    async fn extend(&mut self, reader: &LogReader, length: u64) -> Result<bool, Error> {
        if self.offset >= length {
            return Ok(false);
        }
        // Nothing after the read waits, so that this may be given up at any time.
        let before = self.offset;
        let bytes = read_records(reader, self.offset, length).await?;
        let mut used = 0;
        while let Some((record, taken)) = split_record(&bytes[used..])? {
            self.add(&record, before + used as u64, taken as u64);
            used += taken;
        }
        self.offset = before + used as u64;
        Ok(used > 0)
    }

    fn add(&mut self, record: &Record<'_>, at: u64, length: u64) {
        if record.kind == Some(RecordKind::Step) {
            self.sections.entry(record.step).or_default().head = serde_json::from_slice(record.data).ok();
        }
        let Some(stream) = Stream::of(record.kind) else { return };
        let place = self.sections.entry(record.step).or_default();
        let begins = place.cutter.begins_with(stream);
        if begins && place.marks.last().is_none_or(|(_, mark)| at - mark >= STRIDE) {
            place.marks.push((place.cutter.lines, at));
        }
        place.cutter.feed(stream, record, |_, _| {});
        place.end = at + length;
    }
}

impl Place {
    /// How many lines come before a place that is not after line `number`, and where it is.
    fn before(&self, number: u64) -> (u64, u64) {
        let after = self.marks.partition_point(|(lines, _)| *lines < number);
        after.checked_sub(1).and_then(|at| self.marks.get(at)).copied().unwrap_or_default()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stream {
    Out,
    Err,
    Note,
}

impl Stream {
    fn of(kind: Option<RecordKind>) -> Option<Self> {
        match kind? {
            RecordKind::Stdout => Some(Self::Out),
            RecordKind::Stderr => Some(Self::Err),
            RecordKind::Note => Some(Self::Note),
            RecordKind::Step | RecordKind::End => None,
        }
    }

    fn class(self) -> &'static str {
        match self {
            Self::Out => "t",
            Self::Err => "t err",
            Self::Note => "t note",
        }
    }
}

struct Line<'a> {
    stream: Stream,
    at: Timestamp,
    bytes: &'a [u8],
}

impl<'a> Line<'a> {
    fn new(stream: Stream, at: Timestamp, bytes: &'a [u8]) -> Self {
        Self { stream, at, bytes: bytes.strip_suffix(b"\n").unwrap_or(bytes) }
    }
}

/// Cuts what a section printed into lines. Another stream begins a line of its own.
#[derive(Debug, Default)]
struct Cutter {
    /// How many lines have begun.
    lines: u64,
    /// The line that may go on.
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    stream: Stream,
    at: Timestamp,
    bytes: Vec<u8>,
}

impl Cutter {
    /// True if a record of this stream begins a line.
    fn begins_with(&self, stream: Stream) -> bool {
        self.open.as_ref().is_none_or(|open| open.stream != stream)
    }

    /// Takes a record; gives each line that ended, with its number.
    fn feed(&mut self, stream: Stream, record: &Record<'_>, mut each: impl FnMut(Line<'_>, u64)) {
        if self.begins_with(stream) {
            self.finish(&mut each);
        }
        for piece in record.data.split_inclusive(|byte| *byte == b'\n') {
            for piece in piece.chunks(MAX_LINE) {
                let is_whole =
                    |bytes: &[u8]| bytes.ends_with(b"\n") || bytes.len() >= MAX_LINE || stream == Stream::Note;
                match &mut self.open {
                    // Most lines come whole, and need not be kept.
                    None if is_whole(piece) => {
                        self.lines += 1;
                        each(Line::new(stream, record.at(), piece), self.lines);
                    }
                    None => {
                        self.lines += 1;
                        self.open = Some(Open { stream, at: record.at(), bytes: piece.to_vec() });
                    }
                    Some(open) => {
                        open.bytes.extend_from_slice(piece);
                        if is_whole(&open.bytes) {
                            self.finish(&mut each);
                        }
                    }
                }
            }
        }
    }

    /// Gives the line that was open.
    fn finish(&mut self, mut each: impl FnMut(Line<'_>, u64)) {
        if let Some(open) = self.open.take() {
            each(open.line(), self.lines);
        }
    }
}

impl Open {
    fn line(&self) -> Line<'_> {
        Line::new(self.stream, self.at, &self.bytes)
    }
}

/// Bytes that hold at least one whole record, if there is one before `end`.
async fn read_records(reader: &LogReader, from: u64, end: u64) -> Result<Vec<u8>, Error> {
    let mut bytes = reader.read(from, READ).await?;
    while split_record(&bytes)?.is_none() && from + (bytes.len() as u64) < end {
        let more = reader.read(from + bytes.len() as u64, READ).await?;
        if more.is_empty() {
            break;
        }
        bytes.extend_from_slice(&more);
    }
    Ok(bytes)
}

/// Gives the records from `start` to `end`, until `each` has enough.
async fn each_record(
    reader: &LogReader,
    start: u64,
    end: u64,
    mut each: impl FnMut(u64, Record<'_>) -> bool,
) -> Result<(), Error> {
    let mut offset = start;
    while offset < end {
        let bytes = read_records(reader, offset, end).await?;
        let mut used = 0;
        while let Some((record, taken)) = split_record(&bytes[used..])? {
            let at = offset + used as u64;
            if at >= end || !each(at, record) {
                return Ok(());
            }
            used += taken;
        }
        if used == 0 {
            return Ok(());
        }
        offset += used as u64;
    }
    Ok(())
}

fn write_item(section: u16, number: u64, line: Line<'_>, style: &mut Style, html: &mut String) {
    let mut text = String::with_capacity(line.bytes.len() + 16);
    ansi::write_line(line.bytes, style, &mut text);
    let item: Markup = html! {
        li id={ "L" (section) "-" (number) } {
            a.n href={ "?log=" (section) "&from=" (number.saturating_sub(20).max(1)) "#L" (section) "-" (number) } { (number) }
            time datetime={ (format!("{:.3}", line.at)) } { (line.at.strftime("%H:%M:%S%.3f")) }
            span class=(line.stream.class()) { (PreEscaped(text)) }
        }
    };
    html.push_str(&item.into_string());
}

#[cfg(test)]
mod tests {
    use axum::body::Bytes;
    use tempfile::TempDir;
    use xene_schemas::wire::logs::record_head;

    use super::*;

    fn run() -> RunName {
        RunName::from_bytes([7; 16])
    }

    struct Pen {
        logs: LogStore,
        length: u64,
        _data: TempDir,
    }

    impl Pen {
        fn new() -> Self {
            let data = tempfile::tempdir().unwrap();
            Self { logs: LogStore::open(data.path()).unwrap(), length: 0, _data: data }
        }

        async fn write(&mut self, kind: RecordKind, step: u16, data: &[u8]) {
            let record = [&record_head(kind, step, 1_000_000, data.len()), data].concat();
            self.length = self.logs.append(run(), self.length, Bytes::from(record)).await.unwrap();
        }

        async fn step(&mut self, step: u16, name: &str) {
            let head = StepHead { task: "t".to_owned(), step: name.to_owned(), attempt: 1 };
            self.write(RecordKind::Step, step, &serde_json::to_vec(&head).unwrap()).await;
        }

        async fn log(&self, indexes: &Indexes) -> Log {
            let log = open(&self.logs, indexes, run()).await.unwrap();
            assert!(log.look(None).await.unwrap());
            log
        }
    }

    /// The numbers and texts of what is shown.
    fn shown(window: &Window) -> Vec<(u64, String)> {
        let items = window.html.split("<li id=\"").skip(1);
        items
            .map(|item| {
                let (id, rest) = item.split_once('"').unwrap();
                let text = rest.split_once("<span class=\"t").unwrap().1.split_once('>').unwrap().1;
                let text = text.strip_suffix("</span></li>").unwrap();
                (id.split_once('-').unwrap().1.parse().unwrap(), text.to_owned())
            })
            .collect()
    }

    #[tokio::test]
    async fn lines_are_cut_where_they_end_and_where_the_stream_changes() {
        let mut pen = Pen::new();
        pen.step(1, "one").await;
        pen.step(2, "two").await;
        pen.write(RecordKind::Stdout, 1, b"first\nsec").await;
        pen.write(RecordKind::Stdout, 2, b"elsewhere\n").await;
        pen.write(RecordKind::Stdout, 1, b"ond\nhalf").await;
        pen.write(RecordKind::Stderr, 1, b"oh <no>\n").await;
        pen.write(RecordKind::Note, 1, b"cut here").await;
        pen.write(RecordKind::Stdout, 1, b"last, and it goes").await;
        let indexes = Indexes::default();
        let log = pen.log(&indexes).await;
        let window = log.window(1, None).await.unwrap();
        let expected = ["first", "second", "half", "oh &lt;no&gt;", "cut here", "last, and it goes"];
        assert_eq!(shown(&window), (1..).zip(expected.map(str::to_owned)).collect::<Vec<_>>());
        assert_eq!((window.next, window.total), (6, 6), "the last line may go on");
        pen.write(RecordKind::Stdout, 1, b" on\n").await;
        let log = pen.log(&indexes).await;
        let rest = log.window(1, Some(window.next)).await.unwrap();
        assert_eq!(shown(&rest), [(6, "last, and it goes on".to_owned())]);
        assert_eq!(rest.next, 7);
        let names: Vec<_> = log.sections().await.into_iter().map(|s| (s.head.unwrap().step, s.lines)).collect();
        assert_eq!(names, [("one".to_owned(), 6), ("two".to_owned(), 1)]);
    }

    #[tokio::test]
    async fn any_stretch_of_a_long_log_is_found_by_its_numbers() {
        let mut pen = Pen::new();
        pen.step(1, "one").await;
        let (mut number, mut chunk) = (0, String::new());
        while pen.length < 3 << 20 {
            chunk.clear();
            for _ in 0..997 {
                number += 1;
                chunk += "line ";
                chunk += &number.to_string();
                chunk += "\n";
            }
            pen.write(RecordKind::Stdout, 1, chunk.as_bytes()).await;
            pen.write(RecordKind::Stderr, 2, b"noise\n").await;
        }
        let log = pen.log(&Indexes::default()).await;
        for from in [1, 2, 996, 997, 998, 5_000, number / 2, number - 3, number] {
            let window = log.window(1, Some(from)).await.unwrap();
            let last = (from + WINDOW - 1).min(number);
            let expected: Vec<_> = (from..=last).map(|n| (n, format!("line {n}"))).collect();
            assert_eq!(shown(&window), expected, "{from}");
            assert_eq!((window.first, window.next, window.total), (from, last + 1, number));
        }
        let tail = log.window(1, None).await.unwrap();
        assert_eq!((tail.first, tail.next), (number + 1 - WINDOW, number + 1));
        let beyond = log.window(1, Some(number + 1_000)).await.unwrap();
        assert_eq!(beyond.first, number);
        assert_eq!(shown(&log.window(9, None).await.unwrap()), []);
    }

    #[tokio::test]
    async fn a_line_without_end_costs_bounded_memory() {
        let mut pen = Pen::new();
        for _ in 0..4 {
            pen.write(RecordKind::Stdout, 1, &vec![b'<'; 1 << 20]).await;
        }
        let log = pen.log(&Indexes::default()).await;
        let window = log.window(1, Some(1)).await.unwrap();
        assert_eq!(window.total, 4 << 20 >> 14);
        assert!(window.html.len() < WINDOW_BYTES + 8 * MAX_LINE, "{}", window.html.len());
        assert!(window.next < window.total);
    }

    #[tokio::test]
    async fn the_last_lines_are_there_however_long_they_are() {
        let mut pen = Pen::new();
        for n in 1..=WINDOW {
            pen.write(RecordKind::Stdout, 1, format!("{n} {}\n", "x".repeat(4 << 10)).as_bytes()).await;
        }
        let log = pen.log(&Indexes::default()).await;
        let tail = log.window(1, None).await.unwrap();
        assert!(tail.is_end && tail.html.len() <= WINDOW_BYTES && tail.first > 1, "{}", tail.first);
        assert_eq!((tail.next, shown(&tail).last().unwrap().0), (WINDOW + 1, WINDOW));
        let head = log.window(1, Some(1)).await.unwrap();
        assert!(!head.is_end && head.next <= WINDOW);
    }

    #[tokio::test]
    async fn one_line_more_than_a_window_is_within_reach() {
        let mut pen = Pen::new();
        let lines: String = (0..WINDOW).map(|n| format!("{n}\n")).collect();
        pen.write(RecordKind::Stdout, 1, format!("{lines}and it goes on").as_bytes()).await;
        let log = pen.log(&Indexes::default()).await;
        let first = log.window(1, Some(1)).await.unwrap();
        assert_eq!((first.next, first.total, first.is_end), (WINDOW + 1, WINDOW + 1, false));
        let last = log.window(1, Some(first.next)).await.unwrap();
        assert_eq!((last.next, last.is_end), (WINDOW + 1, true), "it may go on");
    }

    #[tokio::test]
    async fn search_sees_text_and_not_colours() {
        let mut pen = Pen::new();
        pen.write(RecordKind::Stdout, 2, b"nothing\n\x1b[31mErr\x1b[0mor: a.*b\nand error").await;
        pen.write(RecordKind::Stdout, 1, b"ERROR\n").await;
        let log = pen.log(&Indexes::default()).await;
        let found: Vec<_> = log.search("error").await.unwrap().into_iter().map(|hit| (hit.section, hit.line)).collect();
        assert_eq!(found, [(1, 1), (2, 2), (2, 3)]);
        assert_eq!(log.search("a.*b").await.unwrap().len(), 1, "what is searched is text");
        assert_eq!(log.search("a.*c").await.unwrap(), []);
    }
}
