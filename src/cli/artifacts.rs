//! `xene artifacts RUN`: what a run's tasks saved, listed or fetched.

use std::{
    fs::{self, File},
    io::{Read, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;
use xene_agent::glob::is_inner_path;

use super::{
    Error,
    client::Client,
    kind::Kind,
    logs::run_name,
    output::{Format, Ui},
    table::Table,
};
use crate::percent::encode;

/// Nothing comes for so long: the controller is gone.
const SILENCE: Duration = Duration::from_secs(60);

/// Arguments of `xene artifacts`.
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "Files come to DIR/TASK/PATH; each is checked against its hash. A file that is there is replaced."
)]
pub struct Args {
    /// The run; WORKFLOW/PIPELINE is the newest of that pipeline.
    pub run: String,

    /// Only of this task.
    #[arg(long, value_name = "TASK")]
    pub task: Option<String>,

    /// Where files go.
    #[arg(short = 'D', long, value_name = "DIR", default_value = ".")]
    pub dir: PathBuf,

    /// Only show what there is.
    #[arg(long, conflicts_with = "dir")]
    pub list: bool,
}

/// Lists or fetches.
///
/// # Errors
/// If the controller refuses, a file can't be written, or what came is not what was saved.
pub fn run(args: &Args, client: &Client, ui: &mut Ui) -> Result<(), Error> {
    let path = format!("{}/artifacts", Kind::Runs.path_of(&run_name(&args.run, client)?)?);
    let query: Vec<_> = args.task.as_deref().map(|task| ("task", task)).into_iter().collect();
    let list = client.get(&path, &query)?;
    let items = list["items"].as_array().cloned().unwrap_or_default();
    if args.list {
        return show(&list, &items, ui);
    }
    let is_data = matches!(ui.format, Format::Json | Format::Yaml);
    if items.is_empty() {
        ui.note("this run saved no artifacts");
    }
    for item in &items {
        let to = fetch(client, &path, &Saved::of(item, client)?, &args.dir)?;
        if !is_data {
            ui.out.line(to.to_string_lossy())?;
        }
    }
    if is_data { ui.value(&list) } else { Ok(()) }
}

fn show(list: &Value, items: &[Value], ui: &mut Ui) -> Result<(), Error> {
    let text = |item: &Value, field: &str| item[field].as_str().unwrap_or_default().to_owned();
    match ui.format {
        Format::Json | Format::Yaml => ui.value(list),
        Format::Name => items.iter().try_for_each(|i| ui.out.line(format!("{}/{}", text(i, "task"), text(i, "path")))),
        Format::Table | Format::Wide => {
            let mut table = Table::new(&["TASK", "PATH", "SIZE", "HASH", "PENDING?"]);
            for item in items {
                let hash = text(item, "hash");
                let hash = if ui.format == Format::Wide { &hash } else { hash.get(..12).unwrap_or(&hash) };
                let pending = if item["pending"] == true { "yes" } else { "" };
                let size = item["size"].as_u64().unwrap_or_default();
                let (task, path) = (text(item, "task"), text(item, "path"));
                table.push(vec![task.into(), path.into(), size.into(), hash.into(), pending.into()]);
            }
            ui.table(&table)
        }
    }
}

/// One artifact, as the list has it.
struct Saved {
    task: String,
    path: String,
    hash: String,
    executable: bool,
}

impl Saved {
    /// Checks what the controller says: names become paths here.
    fn of(item: &Value, client: &Client) -> Result<Self, Error> {
        let text = |field: &str| item[field].as_str().unwrap_or_default().to_owned();
        let saved =
            Self { task: text("task"), path: text("path"), hash: text("hash"), executable: item["executable"] == true };
        if is_inner_path(&saved.path) && is_inner_path(&saved.task) && !saved.task.contains('/') {
            return Ok(saved);
        }
        let cause = format!("it names an artifact {:?} of task {:?}, which leads elsewhere", saved.path, saved.task);
        Err(Error::Unreachable { server: client.server().to_owned(), cause })
    }
}

fn fetch(client: &Client, base: &str, saved: &Saved, dir: &Path) -> Result<PathBuf, Error> {
    let encoded: Vec<String> = saved.path.split('/').map(encode).collect();
    let address = format!("{base}/{}/{}", encode(&saved.task), encoded.join("/"));
    let to = dir.join(&saved.task).join(&saved.path);
    let folder = to.parent().unwrap_or(dir);
    fs::create_dir_all(folder).map_err(|error| Error::file(folder, &error))?;
    let part = folder.join(format!(".{}.part", to.file_name().unwrap_or_default().to_string_lossy()));
    let mut from = client.stream(&address, &[], &[], Some(SILENCE))?;
    let written = write(&mut from, &part, saved, client).and_then(|()| {
        // In place at once, and never through a link that lies there.
        fs::rename(&part, &to).map_err(|error| Error::file(&to, &error))
    });
    if written.is_err() {
        let _ = fs::remove_file(&part);
    }
    written.map(|()| to)
}

fn write(from: &mut dyn Read, part: &Path, saved: &Saved, client: &Client) -> Result<(), Error> {
    let broke = |cause: String| Error::Unreachable { server: client.server().to_owned(), cause };
    let _ = fs::remove_file(part);
    let mut file = File::create_new(part).map_err(|error| Error::file(part, &error))?;
    let (mut hasher, mut buffer) = (blake3::Hasher::new(), vec![0; 256 << 10]);
    loop {
        let read = from.read(&mut buffer).map_err(|error| broke(super::error::plain_cause(&error)))?;
        if read == 0 {
            break;
        }
        hasher.update(&buffer[..read]);
        file.write_all(&buffer[..read]).map_err(|error| Error::file(part, &error))?;
    }
    if hasher.finalize().to_hex().as_str() != saved.hash {
        return Err(broke(format!("{}/{} came incomplete or altered", saved.task, saved.path)));
    }
    if saved.executable {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = file.metadata().map_err(|error| Error::file(part, &error))?.permissions().mode();
        let permissions = fs::Permissions::from_mode(mode | (mode & 0o444) >> 2);
        file.set_permissions(permissions).map_err(|error| Error::file(part, &error))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::{
        fake::{Fake, Reply},
        output::testing,
    };

    const RUN: &str = "01kb0000000000000000000000";

    fn server(path: &'static str, bytes: &'static [u8]) -> Fake {
        Fake::start(move |request, _| {
            if request.path().ends_with("/artifacts") {
                let hash = blake3::hash(b"hello").to_hex().to_string();
                let item = json!({"task": "build", "path": path, "size": 5, "hash": hash, "executable": true});
                Reply::Json(200, json!({"apiVersion": "xene/v1", "kind": "List", "items": [item]}))
            } else {
                assert!(request.path().ends_with("/artifacts/build/a%20b/c.txt"), "{request:?}");
                Reply::Stream(vec![bytes.to_vec()], true)
            }
        })
    }

    fn args(dir: &Path, list: bool) -> Args {
        Args { run: RUN.into(), task: None, dir: dir.into(), list }
    }

    #[test]
    fn files_come_by_task_and_path_and_are_checked() {
        let dir = tempfile::tempdir().unwrap();
        let fake = server("a b/c.txt", b"hello");
        let (mut ui, out, _) = testing::ui(Format::Table);
        run(&args(dir.path(), false), &fake.client(), &mut ui).unwrap();
        ui.flush().unwrap();
        let to = dir.path().join("build/a b/c.txt");
        assert_eq!(fs::read_to_string(&to).unwrap(), "hello");
        assert_eq!(out.text().trim(), to.to_string_lossy());
        let fake = server("a b/c.txt", b"hell");
        let (mut ui, _, _) = testing::ui(Format::Table);
        let error = run(&args(dir.path(), false), &fake.client(), &mut ui).unwrap_err();
        assert!(error.to_string().contains("incomplete or altered"), "{error}");
        assert_eq!(fs::read_to_string(&to).unwrap(), "hello", "what was there stays");
        assert_eq!(fs::read_dir(to.parent().unwrap()).unwrap().count(), 1, "nothing half written stays");
    }

    #[test]
    fn data_is_printed_whole_also_of_nothing() {
        let dir = tempfile::tempdir().unwrap();
        for (fake, count) in [
            (server("a b/c.txt", b"hello"), 1),
            (Fake::start(|_, _| Reply::Json(200, json!({"apiVersion": "xene/v1", "kind": "List", "items": []}))), 0),
        ] {
            let (mut ui, out, _) = testing::ui(Format::Json);
            run(&args(dir.path(), false), &fake.client(), &mut ui).unwrap();
            ui.flush().unwrap();
            let list: Value = serde_json::from_str(&out.text()).unwrap();
            assert_eq!(list["items"].as_array().map(Vec::len), Some(count), "{list}");
            assert!(dir.path().join("build/a b/c.txt").exists(), "it is fetched as well");
        }
    }

    #[test]
    fn a_path_that_leads_out_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["../x", "/etc/x", "a/../../x"] {
            let fake = server(path, b"hello");
            let (mut ui, _, _) = testing::ui(Format::Table);
            let error = run(&args(dir.path(), false), &fake.client(), &mut ui).unwrap_err();
            assert!(error.to_string().contains("leads elsewhere"), "{error}");
        }
    }

    #[test]
    fn a_list_shows_and_fetches_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let fake = server("x", b"");
        let (mut ui, out, _) = testing::ui(Format::Name);
        run(&args(dir.path(), true), &fake.client(), &mut ui).unwrap();
        ui.flush().unwrap();
        assert_eq!(out.text(), "build/x\n");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
