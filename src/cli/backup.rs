//! `xene backup` and `xene restore`: the controller's store into a file, and back.

use std::{
    fs::{self, OpenOptions},
    io::{Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    panic::resume_unwind,
    path::{Path, PathBuf},
    sync::{
        atomic::{AtomicU64, Ordering},
        mpsc::{RecvTimeoutError, channel},
    },
    thread,
    time::Duration,
};

use xene_agent::{clock, lmdb::DataLock};

use super::{
    Error, check_store,
    client::Client,
    dirs::{self, DataDir},
    error::plain_cause,
    output::Ui,
};
use crate::store::{
    backup::{RestoreError, restore},
    check,
};

/// Nothing comes for so long: the controller is gone. It makes a copy of the whole store before the first byte.
const SILENCE: Duration = Duration::from_secs(600);
/// Of what takes no longer no progress is shown.
const UNNOTICED: Duration = Duration::from_secs(1);
/// Between two words of how far it is.
const FRAME: Duration = Duration::from_millis(200);

/// Arguments of `xene backup`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "The file holds the store: workflows as applied, runs, owners, events. Logs and artifacts are \
                        files of the data folder, and pki/ there is worth a copy of its own, once.")]
pub struct Backup {
    /// Where it goes; a file that is there is replaced once the new one is whole.
    pub file: PathBuf,
}

/// Arguments of `xene restore`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "The controller must not run. What was there is kept beside it. At its next start the \
                        controller recovers: agents say what they hold, and after some minutes the rest is granted \
                        anew.")]
pub struct Restore {
    /// A file of `xene backup`.
    pub file: PathBuf,

    /// The controller's data folder [default: ~/.local/share/xene/controller].
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

/// Fetches the store, checks that all of it came, and puts it in place.
///
/// # Errors
/// If the controller refuses, the file can't be written, or what came is not whole.
pub fn backup(args: &Backup, client: &Client, ui: &mut Ui) -> Result<(), Error> {
    let mut name = args.file.clone().into_os_string();
    name.push(".partial");
    let partial = PathBuf::from(name);
    let came = AtomicU64::new(0);
    let length = told(ui, &came, UNNOTICED, || fetch(client, &partial, &came)).and_then(|length| {
        fs::rename(&partial, &args.file).map_err(|error| Error::file(&args.file, &error))?;
        Ok(length)
    });
    if length.is_err() {
        let _ = fs::remove_file(&partial);
    }
    ui.note(&format!("{} bytes in {}", length?, args.file.display()));
    Ok(())
}

/// Does it, and shows once `patience` is over how many bytes came so far.
fn told<T: Send>(ui: &mut Ui, came: &AtomicU64, mut patience: Duration, work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let (working, ended) = channel::<()>();
        let worker = scope.spawn(move || {
            let _working = working;
            work()
        });
        while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(patience) {
            patience = FRAME;
            ui.progress(&match came.load(Ordering::Relaxed) {
                0 => "the controller copies its store".into(),
                bytes => format!("{}.{} MB came", bytes / 1_000_000, bytes / 100_000 % 10),
            });
        }
        ui.clear_progress();
        worker.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

fn fetch(client: &Client, to: &Path, came: &AtomicU64) -> Result<u64, Error> {
    let broke = |cause: String| Error::Unreachable { server: client.server().to_owned(), cause };
    let _ = fs::remove_file(to);
    let file = OpenOptions::new().create_new(true).read(true).write(true).mode(0o600).open(to);
    let mut file = file.map_err(|error| Error::file(to, &error))?;
    // Last: the controller makes a copy of its store for this.
    let mut from = client.stream("/api/v1/backup", &[], &[], Some(SILENCE))?;
    let (mut length, mut chunk) = (0, vec![0; 256 << 10]);
    loop {
        let read = from.read(&mut chunk).map_err(|error| broke(plain_cause(&error)))?;
        if read == 0 {
            break;
        }
        length += read as u64;
        came.store(length, Ordering::Relaxed);
        file.write_all(&chunk[..read]).map_err(|error| Error::file(to, &error))?;
    }
    // The frame ends with a checksum; without it the controller went away in the middle.
    let whole = fs::File::open(to)
        .and_then(zstd::Decoder::new)
        .and_then(|mut frame| std::io::copy(&mut frame, &mut std::io::sink()));
    if length == 0 || whole.is_err() {
        return Err(broke("the backup came incomplete; see what the controller's log says, and try again".into()));
    }
    file.sync_all().map_err(|error| Error::file(to, &error))?;
    Ok(length)
}

/// Puts a backup in the place of the store.
///
/// # Errors
/// If a controller runs on the data folder, or the backup can't be used; then nothing has changed.
pub fn run_restore(args: &Restore, ui: &mut Ui) -> Result<(), Error> {
    let data = args.data_dir.clone().unwrap_or_else(|| dirs::default_data_dir(DataDir::Controller));
    let usage = |error: &dyn std::error::Error| Error::Usage { message: error.to_string(), hint: None };
    let _lock = DataLock::acquire(&data).map_err(|error| usage(&error))?;
    let (program, arguments) = check_store::checker();
    let verify = |dir: &Path| check::check(&program, arguments, dir).map_err(|error| error.to_string());
    let kept = restore(&args.file, &data, clock::now().wall, verify).map_err(|error| match error {
        RestoreError::Io { path, source } => Error::file(&path, &source),
        error => Error::Failed { message: error.to_string(), hint: Some("nothing was changed".into()) },
    })?;
    if let Some(kept) = kept {
        ui.note(&format!("the store that was there is kept as {}", kept.display()));
    }
    ui.note("restored; the next controller on this folder recovers by itself");
    ui.note("agents and API tokens that were revoked since the backup are good again: look at `xene get agents` and `xene token list`");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::{
        Format,
        testing::{self, Buffer},
    };

    /// Waits until that was shown.
    fn shown(err: &Buffer, text: &str) {
        let begin = clock::now().boot;
        while !err.text().contains(text) {
            assert!(clock::now().boot.since(begin) < Duration::from_secs(30), "{:?}", err.text());
            thread::yield_now();
        }
    }

    #[test]
    fn how_far_a_backup_is_shows_on_a_terminal_and_goes_again() {
        let ((mut ui, _, err), came) = (testing::ui(Format::Table), AtomicU64::new(0));
        ui.rewrites = true;
        let done = told(&mut ui, &came, Duration::ZERO, || {
            shown(&err, "the controller copies its store");
            came.store(12_345_678, Ordering::Relaxed);
            shown(&err, "12.3 MB came");
            7
        });
        assert_eq!(done, 7);
        assert!(err.text().ends_with("\r\x1b[K12.3 MB came\r\x1b[K"), "{:?}", err.text());
    }

    #[test]
    fn nothing_shows_in_a_pipe_and_nothing_with_quiet() {
        for (rewrites, quiet) in [(false, false), (true, true)] {
            let (mut ui, _, err) = testing::ui(Format::Table);
            (ui.rewrites, ui.quiet) = (rewrites, quiet);
            told(&mut ui, &AtomicU64::new(0), Duration::ZERO, || ());
            ui.progress("1.0 MB came");
            assert_eq!(err.text(), "");
        }
    }
}
