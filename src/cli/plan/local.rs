//! A checkout: its work tree and its commits, compared with each other or with what a controller has in effect.

use std::path::{Path, PathBuf};

use serde_json::json;
use xene_schemas::plan::PlanReport;

use super::Args;
use crate::{
    cli::{DEFAULT_SERVER, Error, Global, client::Client, output::Ui, status::parse},
    compile::{self, Limits},
    planning::{Upload, between},
    source::{Browser, DEFAULT_FOLDER, Failure, Known, Mode, Snapshot, Source, SourceConfig, browse, travel::Travel},
};

/// A repository's work tree, or a folder with workflows that is in none.
#[derive(Debug)]
pub(super) struct Checkout {
    root: PathBuf,
    folder: Option<String>,
    is_repository: bool,
}

impl Checkout {
    /// The checkout that `here` lies in, if it lies in one.
    pub(super) fn find(here: &Path, folder: Option<&str>) -> Result<Option<Self>, Error> {
        if folder.is_some_and(|folder| folder.starts_with('/') || folder.split('/').any(|part| part == "..")) {
            return Err(Error::usage("--path takes a folder within the checkout, such as `xene.d`"));
        }
        // Such as `.` and `./xene.d/`.
        let plain =
            |folder: &str| folder.split('/').filter(|part| !matches!(*part, "" | ".")).collect::<Vec<_>>().join("/");
        let folder = folder.map(plain);
        Ok(match browse::root_of(here) {
            Some(root) => Some(Self { root, folder, is_repository: true }),
            None => {
                let wanted = folder.as_deref().unwrap_or(DEFAULT_FOLDER);
                here.join(wanted).is_dir().then(|| Self { root: here.to_owned(), folder, is_repository: false })
            }
        })
    }

    pub(super) fn plan(
        &self,
        args: &Args,
        client: impl FnOnce() -> Result<Client, Error>,
        global: &Global,
        ui: &mut Ui,
    ) -> Result<PlanReport, Error> {
        let after = match &args.rev {
            Some(rev) => (format!("commit {rev}"), self.commit(rev)?),
            None => ("the work tree".to_owned(), self.work_tree()?),
        };
        let against = match &args.against {
            Some(against) => against.clone(),
            None => {
                let client = client()?;
                let nobody = match client.get("/api/v1/source", &[]) {
                    Ok(_) => {
                        let body = json!(Upload::of(after.0, after.1));
                        let mut report: PlanReport = parse(&client.post("/api/v1/plan", &body, &[])?)?;
                        report.from.what = format!("what {} has in effect", client.server());
                        return Ok(report);
                    }
                    Err(error) => error,
                };
                // Whoever names a server means it.
                let by_default = global.server.trim_end_matches('/') == DEFAULT_SERVER && self.is_repository;
                if !matches!(nobody, Error::Unreachable { .. }) || !by_default {
                    return Err(nobody);
                }
                ui.note(&format!("{nobody}: compared with HEAD"));
                "HEAD".to_owned()
            }
        };
        let before = (format!("commit {against}"), self.commit(&against)?);
        Ok(between(before, after, Limits::default(), ui.now()).0)
    }

    fn commit(&self, rev: &str) -> Result<Snapshot, Error> {
        if !self.is_repository {
            let message = format!("{rev:?} can't be read: {} is in no git repository", self.root.display());
            return Err(Error::usage(message));
        }
        let browser = Browser::local(self.root.clone(), self.folder.clone());
        browser.snapshot(rev, &Known::new()).map_err(failed)
    }

    /// Files as they lie, uncommitted ones too.
    fn work_tree(&self) -> Result<Snapshot, Error> {
        let mut config = SourceConfig::new(self.root.to_string_lossy(), PathBuf::new());
        config.mode = Mode::Directory;
        config.path.clone_from(&self.folder);
        let source = Source::open(config).map_err(|error| Error::usage(error.to_string()))?;
        let travel = Travel { wanted: compile::wanted_files, store: None };
        source.carrying(travel).read(Known::new()).map_err(failed)
    }
}

fn failed(failure: Failure) -> Error {
    Error::usage(failure.to_string())
}
