//! Waiting for a run, and watching it.

use std::{
    io::Write,
    sync::atomic::{AtomicBool, Ordering},
};

use xene_schemas::{meta::RunName, run::Run};

use super::{
    Error,
    client::Client,
    kind::Kind,
    output::Ui,
    status::parse,
    watch::{Change, Watch},
};

/// True while the live view hides the cursor.
static CURSOR_HIDDEN: AtomicBool = AtomicBool::new(false);

/// Shows the cursor again, if it is hidden.
pub fn show_cursor() {
    if CURSOR_HIDDEN.swap(false, Ordering::Relaxed) {
        let _ = std::io::stderr().write_all(b"\x1b[?25h");
    }
}

/// Waits until a run ends; `seen` gets each of its states on the way, the last included.
///
/// # Errors
/// If the controller refuses, or `seen` fails. A controller that goes away is waited for.
pub fn wait(name: RunName, client: &Client, seen: &mut dyn FnMut(&Run) -> Result<(), Error>) -> Result<Run, Error> {
    let path = Kind::Runs.path_of(&name.to_string())?;
    let mut watch = Watch::new(client, "run");
    let mut known = false;
    loop {
        let value = match watch.next_change()? {
            Change::Connected => match client.get(&path, &[]) {
                Ok(value) => value,
                // It went away again; the watch waits for it.
                Err(Error::Unreachable { .. }) if known => continue,
                Err(error) => return Err(error),
            },
            Change::Object { kind, data } if kind == "run" => data,
            Change::Object { .. } => continue,
        };
        if value.pointer("/metadata/name").and_then(serde_json::Value::as_str) != Some(&name.to_string()) {
            continue;
        }
        let run: Run = parse(&value)?;
        known = true;
        seen(&run)?;
        if run.status.phase.is_final() {
            return Ok(run);
        }
    }
}

/// [`wait`], with the run shown as it goes.
///
/// # Errors
/// As [`wait`].
pub fn follow(run: Run, client: &Client, _ui: &mut Ui) -> Result<Run, Error> {
    wait(run.metadata.name, client, &mut |_| Ok(()))
}
