//! A run's log as people and programs read it: text as it was printed, or a JSON object for each line.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use axum::{
    body::Bytes,
    extract::{Path, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use serde::Serialize;
use tokio::{
    sync::broadcast::error::RecvError,
    time::{Instant, sleep, sleep_until},
};
use xene_schemas::{
    meta::RunName,
    run::millis,
    wire::{
        WireError,
        logs::{Record, RecordKind, StepHead, split_record},
    },
};

use super::{
    Api,
    identity::Identity,
    lists::{check_names, find_run, is_task},
    pack::{Packer, taken},
    problem::Problem,
    query::Query,
    stopped,
    stream::{Sink, stream},
    watch::KEEP_ALIVE,
};
use crate::{decide::rows::Change, store::logs::LogReader};

/// Read at a time, in bytes.
const READ: usize = 256 << 10;
/// Sent at a time at least, unless there is no more, in bytes.
const SEND: usize = 64 << 10;
/// The most that `tail` keeps, in bytes.
const TAIL_MAX: usize = 64 << 20;
/// A run has ended, but its agent may still have the end of its log: it is waited for so long.
const END_WITHIN: Duration = Duration::from_secs(10);

pub(super) async fn logs(
    State(api): State<Arc<Api>>,
    identity: Identity,
    Path(name): Path<String>,
    headers: HeaderMap,
    mut query: Query,
) -> Result<Response, Problem> {
    let row = find_run(&api, &name)?;
    let follow = query.flag("follow")?;
    let tail = query.parse("tail", "a number of lines")?;
    let format: Format = query.parse("format", "text or ndjson")?.unwrap_or(Format::Text);
    let printer = Printer {
        format,
        timestamps: query.flag("timestamps")?,
        task: query.take("task"),
        step: query.take("step"),
        steps: HashMap::new(),
        mid_line: false,
    };
    let skip: u64 = query.parse("offset", "a number of bytes")?.unwrap_or(0);
    query.finish()?;
    if skip > 0 && tail.is_some() {
        return Err(Problem::bad_request("offset counts from the beginning and tail from the end: give one of them"));
    }
    check_names(&row.run, printer.task.as_deref(), printer.step.as_deref())?;
    // A followed one comes line by line, and is not held back until a packer has enough.
    let coding = if follow { None } else { taken(&headers) };
    let packer = coding.map(Packer::new).transpose();
    let packer = packer.map_err(|_| Problem::of_status(StatusCode::INTERNAL_SERVER_ERROR))?;
    let run = row.run.metadata.name;
    let reader = api.handle.logs().reader(run).await?;
    let kind = match format {
        Format::Text => "text/plain; charset=utf-8",
        Format::Ndjson => "application/x-ndjson",
    };
    let pump = Pump { reader, printer, offset: 0, rest: Vec::new(), out: Vec::new(), complete: false, skip, packer };
    let ended = row.run.status.phase.is_final();
    let mut response = stream(kind, move |sink| async move {
        if let Err(error) = pump.run(&api, run, ended, follow.then_some(&identity), tail, &sink).await {
            tracing::warn!(%run, %error, "a log can't be shown to its end");
        }
    });
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    if let Some(coding) = coding {
        response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
    }
    Ok(response)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Text,
    Ndjson,
}

impl std::str::FromStr for Format {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "text" => Ok(Self::Text),
            "ndjson" => Ok(Self::Ndjson),
            _ => Err(()),
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum PumpError {
    #[error(transparent)]
    Log(#[from] crate::store::logs::LogError),
    #[error(transparent)]
    Record(#[from] WireError),
    #[error("it can't be packed: {0}")]
    Pack(#[from] std::io::Error),
    #[error("the client is gone")]
    Gone,
}

/// Moves a log to a client.
struct Pump {
    reader: LogReader,
    printer: Printer,
    offset: u64,
    /// Of a record that is not whole yet.
    rest: Vec<u8>,
    out: Vec<u8>,
    /// True once the record [`RecordKind::End`] came.
    complete: bool,
    /// Bytes of what is printed that the client has already.
    skip: u64,
    packer: Option<Packer>,
}

impl Pump {
    async fn run(
        mut self,
        api: &Api,
        run: RunName,
        ended: bool,
        follow: Option<&Identity>,
        tail: Option<usize>,
        sink: &Sink,
    ) -> Result<(), PumpError> {
        self.pump(api, run, ended, follow, tail, sink).await?;
        match self.packer.take() {
            Some(packer) => sink.send(packer.finish()?.into()).await.map_err(|_| PumpError::Gone),
            None => Ok(()),
        }
    }

    async fn pump(
        &mut self,
        api: &Api,
        run: RunName,
        ended: bool,
        follow: Option<&Identity>,
        tail: Option<usize>,
        sink: &Sink,
    ) -> Result<(), PumpError> {
        let mut committed = api.handle.watch();
        let mut lines = tail.map(Tail::new);
        let mut end_at = ended.then(|| Instant::now() + END_WITHIN);
        loop {
            while self.read().await? {
                match &mut lines {
                    Some(lines) => lines.add(&mut self.out),
                    None if self.out.len() >= SEND => {
                        self.send(sink).await?;
                        if follow.is_some_and(|identity| !identity.holds(api)) {
                            return Ok(());
                        }
                    }
                    None => {}
                }
            }
            if let Some(lines) = lines.take() {
                self.out = lines.into_bytes();
            }
            self.send(sink).await?;
            if self.complete || follow.is_none_or(|identity| !identity.holds(api)) {
                return Ok(());
            }
            tokio::select! {
                () = self.reader.grown(self.offset) => {}
                () = async { match end_at {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                } } => return Ok(()),
                changes = committed.recv(), if end_at.is_none() => {
                    let ended = match changes {
                        Ok(group) => group.changes.iter().any(|change| ends(change, run)),
                        Err(RecvError::Lagged(_)) => api.handle.store().run(run).ok().flatten()
                            .is_none_or(|row| row.run.status.phase.is_final()),
                        Err(RecvError::Closed) => true,
                    };
                    end_at = ended.then(|| Instant::now() + END_WITHIN);
                }
                // Whoever it is for may have lost the right to it.
                () = sleep(KEEP_ALIVE), if follow.is_some() => {}
                () = sink.closed() => return Ok(()),
                () = stopped(api.config.stopping.clone()) => return Ok(()),
            }
        }
    }

    /// Reads and prints what is there, as much as one read gives; false if there is nothing now.
    async fn read(&mut self) -> Result<bool, PumpError> {
        let bytes = self.reader.read(self.offset, READ).await?;
        if bytes.is_empty() || self.complete {
            return Ok(false);
        }
        self.offset += bytes.len() as u64;
        self.rest.extend_from_slice(&bytes);
        let mut used = 0;
        while let Some((record, length)) = split_record(&self.rest[used..])? {
            used += length;
            if record.kind == Some(RecordKind::End) {
                self.complete = true;
                break;
            }
            self.printer.print(record, &mut self.out);
        }
        self.rest.drain(..used);
        Ok(true)
    }

    async fn send(&mut self, sink: &Sink) -> Result<(), PumpError> {
        if self.skip > 0 {
            let skipped = self.out.len().min(usize::try_from(self.skip).unwrap_or(usize::MAX));
            self.out.drain(..skipped);
            self.skip -= skipped as u64;
        }
        if let Some(packer) = &mut self.packer {
            self.out = packer.pack(&self.out)?;
        }
        if self.out.is_empty() {
            return Ok(());
        }
        sink.send(Bytes::from(std::mem::take(&mut self.out))).await.map_err(|_| PumpError::Gone)
    }
}

fn ends(change: &Change, run: RunName) -> bool {
    match change {
        Change::PutRun(row) => row.run.metadata.name == run && row.run.status.phase.is_final(),
        Change::DeleteRun(name) => *name == run,
        _ => false,
    }
}

/// Turns records into what is asked for.
struct Printer {
    format: Format,
    timestamps: bool,
    task: Option<String>,
    step: Option<String>,
    steps: HashMap<u16, StepHead>,
    /// True if what was printed last did not end a line.
    mid_line: bool,
}

/// One line of ndjson.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(with = "millis")]
    time: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    task: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempt: Option<u32>,
    /// `stdout`, `stderr`, or `note` for a sentence of xene's own.
    stream: &'static str,
    /// As it was printed, line feed included.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    /// Instead of `text`, if it is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
}

impl Printer {
    fn print(&mut self, record: Record<'_>, out: &mut Vec<u8>) {
        let stream = match record.kind {
            Some(RecordKind::Step) => {
                // A head that can't be read leaves its step without a name.
                if let Ok(head) = serde_json::from_slice(record.data) {
                    self.steps.insert(record.step, head);
                }
                return;
            }
            Some(RecordKind::Stdout) => "stdout",
            Some(RecordKind::Stderr) => "stderr",
            Some(RecordKind::Note) => "note",
            Some(RecordKind::End) | None => return,
        };
        let head = self.steps.get(&record.step);
        let of_task = |task: &String| head.is_some_and(|head| is_task(&head.task, task));
        let of_step = |step: &String| head.is_some_and(|head| head.step == *step);
        if !self.task.as_ref().is_none_or(of_task) || !self.step.as_ref().is_none_or(of_step) {
            return;
        }
        match self.format {
            Format::Text => self.print_text(stream == "note", &record, out),
            Format::Ndjson => {
                for line in record.data.split_inclusive(|byte| *byte == b'\n') {
                    print_line(stream, head, &record, line, out);
                }
            }
        }
    }

    fn print_text(&mut self, is_note: bool, record: &Record<'_>, out: &mut Vec<u8>) {
        if is_note {
            if self.mid_line {
                out.push(b'\n');
                self.mid_line = false;
            }
            self.print_lines(&[b"xene: ", record.data, b"\n"].concat(), record, out);
        } else {
            self.print_lines(record.data, record, out);
        }
    }

    fn print_lines(&mut self, data: &[u8], record: &Record<'_>, out: &mut Vec<u8>) {
        if self.timestamps {
            for line in data.split_inclusive(|byte| *byte == b'\n') {
                if !self.mid_line {
                    out.extend_from_slice(format!("{:.3} ", record.at()).as_bytes());
                }
                out.extend_from_slice(line);
                self.mid_line = !line.ends_with(b"\n");
            }
        } else {
            out.extend_from_slice(data);
            self.mid_line = data.last().map_or(self.mid_line, |last| *last != b'\n');
        }
    }
}

fn print_line(stream: &'static str, head: Option<&StepHead>, record: &Record<'_>, line: &[u8], out: &mut Vec<u8>) {
    let text = std::str::from_utf8(line).ok();
    let line = Line {
        time: record.at(),
        task: head.map(|head| &*head.task),
        step: head.map(|head| &*head.step),
        attempt: head.map(|head| head.attempt),
        stream,
        text,
        base64: text.is_none().then(|| STANDARD.encode(line)),
    };
    // Writing to memory can't fail, and its fields are texts and numbers.
    if serde_json::to_writer(&mut *out, &line).is_ok() {
        out.push(b'\n');
    }
}

/// The last lines of what was printed so far.
struct Tail {
    limit: usize,
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl Tail {
    fn new(limit: usize) -> Self {
        Self { limit, lines: VecDeque::new(), bytes: 0 }
    }

    fn add(&mut self, printed: &mut Vec<u8>) {
        for line in printed.split_inclusive(|byte| *byte == b'\n') {
            self.bytes += line.len();
            match self.lines.back_mut().filter(|last| !last.ends_with(b"\n")) {
                Some(last) => last.extend_from_slice(line),
                None => self.lines.push_back(line.to_vec()),
            }
            while self.lines.len() > self.limit || self.bytes > TAIL_MAX {
                let Some(dropped) = self.lines.pop_front() else { break };
                self.bytes -= dropped.len();
            }
        }
        printed.clear();
    }

    fn into_bytes(self) -> Vec<u8> {
        self.lines.into_iter().flatten().collect()
    }
}
