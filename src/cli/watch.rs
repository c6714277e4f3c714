//! Following the controller's changes: server-sent events, with reconnection.

use std::{
    io::{BufRead, BufReader, Read},
    thread,
    time::Duration,
};

use serde_json::Value;

use super::{
    Error,
    client::{Client, MAX_TRIES, pause},
};

/// A controller says at least a comment this often; a silent connection is a dead one.
const SILENCE: Duration = Duration::from_secs(60);

/// What a watcher learns.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// The connection stands, for the first time or again: read the state now, nothing is missed from here on.
    Connected,
    /// The connection is lost; the next change is waited for all the same.
    Lost,
    /// An object as it is now, or `{"deleted": NAME}`.
    Object {
        /// `run`, `workflow`, `pipeline`, `agent`, `source` or `event`.
        kind: String,
        /// The object's JSON.
        data: Value,
    },
}

/// Follows changes of some kinds, for ever.
pub struct Watch<'a> {
    client: &'a Client,
    kinds: &'static str,
    lines: Option<BufReader<Box<dyn Read + Send>>>,
    last_id: Option<String>,
    /// Tries to connect since it last stood. `None` until the first connection stood: a controller that was never
    /// there is not waited for.
    failures: Option<u32>,
}

impl std::fmt::Debug for Watch<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("kinds", &self.kinds).field("last_id", &self.last_id).finish_non_exhaustive()
    }
}

impl<'a> Watch<'a> {
    /// Of `kinds`, separated by commas.
    pub fn new(client: &'a Client, kinds: &'static str) -> Self {
        Self { client, kinds, lines: None, last_id: None, failures: None }
    }

    /// Waits for the next change. A lost connection is made again.
    ///
    /// # Errors
    /// If the controller refuses, or can't be reached: at once in the first place, later after [`MAX_TRIES`].
    pub fn next_change(&mut self) -> Result<Change, Error> {
        loop {
            let Some(lines) = &mut self.lines else {
                if let Some(failures) = self.failures {
                    thread::sleep(pause(failures));
                }
                match (self.connect(), &mut self.failures) {
                    (Ok(()), failures) => {
                        *failures = Some(0);
                        return Ok(Change::Connected);
                    }
                    (Err(Error::Unreachable { .. }), Some(failures)) if *failures < MAX_TRIES => {
                        *failures += 1;
                        if *failures == 1 {
                            return Ok(Change::Lost);
                        }
                        continue;
                    }
                    (Err(error), _) => return Err(error),
                }
            };
            match read_event(lines, &mut self.last_id) {
                // So much was missed that only the lists tell.
                Some(Change::Object { kind, .. }) if kind == "resync" => return Ok(Change::Connected),
                Some(change) => return Ok(change),
                None => self.lines = None,
            }
        }
    }

    fn connect(&mut self) -> Result<(), Error> {
        let last_id = self.last_id.clone();
        let headers: Vec<_> = last_id.as_deref().map(|id| ("last-event-id", id)).into_iter().collect();
        let stream = self.client.stream("/api/v1/watch", &[("kinds", self.kinds)], &headers, Some(SILENCE))?;
        self.lines = Some(BufReader::new(stream));
        Ok(())
    }
}

/// Reads one event; `None` when the stream ends or breaks. What is not an object's event is passed over.
fn read_event(lines: &mut impl BufRead, last_id: &mut Option<String>) -> Option<Change> {
    let (mut kind, mut data, mut id, mut line) = (String::new(), String::new(), None, String::new());
    loop {
        line.clear();
        if lines.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end_matches(['\n', '\r']);
        if line.is_empty() {
            // Only now: an event that was cut off must come again.
            *last_id = id.take().or_else(|| last_id.take());
            match serde_json::from_str(&data) {
                Ok(data) if !kind.is_empty() => return Some(Change::Object { kind, data }),
                _ => {
                    kind.clear();
                    data.clear();
                    continue;
                }
            }
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => kind = value.to_owned(),
            "id" => id = Some(value.to_owned()),
            "data" => {
                if !data.is_empty() {
                    data.push('\n');
                }
                data.push_str(value);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::fake::{Fake, Reply};

    #[test]
    fn a_controller_that_goes_and_comes_back_is_waited_for() {
        let stream = |text: &str| Reply::Stream(vec![text.as_bytes().to_vec()], true);
        let fake = Fake::start(move |_, _| stream("id: 3\nevent: run\ndata: 1\n\n"));
        let (client, address) = (fake.client(), fake.address());
        let mut watch = Watch::new(&client, "run");
        let object = |n: u8| Change::Object { kind: "run".into(), data: json!(n) };
        assert_eq!(watch.next_change().unwrap(), Change::Connected);
        assert_eq!(watch.next_change().unwrap(), object(1));
        drop(fake);
        assert_eq!(watch.next_change().unwrap(), Change::Lost);
        let fake = Fake::start_at(address, move |_, _| stream("event: run\ndata: 2\n\n"));
        assert_eq!(watch.next_change().unwrap(), Change::Connected);
        assert_eq!(watch.next_change().unwrap(), object(2));
        assert_eq!(fake.requests()[0].header("last-event-id"), Some("3"));
    }

    fn read(text: &str) -> (Vec<Change>, Option<String>) {
        let (mut lines, mut last_id, mut changes) = (text.as_bytes(), None, Vec::new());
        while let Some(change) = read_event(&mut lines, &mut last_id) {
            changes.push(change);
        }
        (changes, last_id)
    }

    #[test]
    fn events_comments_and_cuts_are_told_apart() {
        let text = ": hello\n\nid: 7\nevent: run\ndata: {\"a\":\ndata: 1}\n\nretry: 5\n\nevent: odd\ndata: not json\n\n\
                    id: 8\r\nevent:agent\r\ndata:{\"deleted\": \"x\"}\r\n\r\nid: 9\nevent: run\ndata: {}\n";
        let (changes, last_id) = read(text);
        assert_eq!(
            changes,
            [
                Change::Object { kind: "run".into(), data: json!({"a": 1}) },
                Change::Object { kind: "agent".into(), data: json!({"deleted": "x"}) },
            ]
        );
        assert_eq!(last_id.as_deref(), Some("8"), "what was cut off is asked for again");
    }
}
