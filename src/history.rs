//! The commits that changed one workflow: followed by its name through the history of the branch, whatever file it was
//! in. Reads only what commits changed, and of that only files that hold the name. Files that travel with it are known by
//! their paths; what links among them lead to is not followed.

use std::{collections::HashMap, ops::ControlFlow, sync::Arc};

use xene_agent::glob::Globs;
use xene_schemas::{
    meta::{Name, Revision, SpecHash},
    plan::FieldChange,
};

use crate::{
    compile,
    decide::{desired::WorkflowBody, preview::fields},
    source::{
        Failure,
        browse::{BlobId, Browser, CommitInfo, Visit},
    },
};

/// The most commits that one look goes back.
const MOST_COMMITS: usize = 20_000;

/// What is known of a workflow's past.
#[derive(Debug, Default)]
pub struct Past {
    /// The commits that changed it, newest first.
    pub changes: Vec<PastChange>,
    /// How many commits are newer than this one, for all that were looked at.
    pub positions: HashMap<Revision, usize>,
    /// True if older commits were not looked at.
    pub more: bool,
}

/// One commit that changed a workflow.
#[derive(Debug)]
pub struct PastChange {
    /// The commit.
    pub commit: CommitInfo,
    /// How many commits are newer.
    pub position: usize,
    /// `Created`, `Updated`, `Moved`, `Removed`, `Invalid`.
    pub change: &'static str,
    /// Its file after it; of a removal, before.
    pub path: Option<String>,
    /// What a person should know.
    pub message: Option<String>,
    /// Field by field.
    pub fields: Vec<FieldChange>,
}

/// What a commit has of a workflow.
#[derive(Debug, Clone)]
enum State {
    Absent,
    Broken { path: String, problem: String },
    Good { path: String, hash: SpecHash, body: Arc<WorkflowBody>, travelling: Option<Globs> },
}

/// A commit that changed it.
struct Found {
    commit: CommitInfo,
    position: usize,
    /// What it has.
    state: State,
    /// The files that travel with it and that it changed, relative to the workflow's folder.
    travelling: Vec<String>,
}

/// So many files that travel are named.
const NAMED: usize = 5;

impl State {
    fn path(&self) -> Option<&str> {
        match self {
            Self::Absent => None,
            Self::Broken { path, .. } | Self::Good { path, .. } => Some(path),
        }
    }

    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Absent, Self::Absent) => true,
            (Self::Good { path: a, hash: x, .. }, Self::Good { path: b, hash: y, .. }) => a == b && x == y,
            _ => false,
        }
    }

    /// The files that travel with it and that a commit changed.
    fn travelling(&self, visit: &Visit<'_>) -> Vec<String> {
        let Self::Good { path, travelling: Some(globs), .. } = self else { return Vec::new() };
        let folder = path.rsplit_once('/').map(|(folder, _)| folder);
        let inner = |path: &str| match folder {
            Some(folder) => path.strip_prefix(folder)?.strip_prefix('/').map(str::to_owned),
            None => Some(path.to_owned()),
        };
        let paths = visit.changed.iter().filter_map(|file| inner(&file.path));
        paths.filter(|path| globs.matches(path)).collect()
    }
}

/// Follows `name` back from `from`, for at most `limit` changes. `path` is the file that declares it there, if one does.
///
/// # Errors
/// If a commit can't be read.
pub fn follow(
    browser: &Browser,
    name: &Name,
    path: Option<&str>,
    from: &Revision,
    limit: usize,
) -> Result<Past, Failure> {
    let mut past = Past::default();
    let mut state = match path {
        Some(path) => browser.file(from, path)?.map_or(State::Absent, |bytes| read(name, path, &bytes)),
        None => State::Absent,
    };
    // Each with what the next older one has.
    let mut found: Vec<Found> = Vec::new();
    past.more = browser.walk(from, MOST_COMMITS, |visit| {
        past.positions.insert(visit.commit.revision.clone(), visit.position);
        let travelling = state.travelling(&visit);
        let before = match state.path() {
            Some(path) if !visit.changed.iter().any(|file| file.path == path) => state.clone(),
            path => search(name, path, &visit),
        };
        if !state.is_same(&before) || !travelling.is_empty() {
            if found.len() == limit {
                past.more = true;
                return ControlFlow::Break(());
            }
            let state = std::mem::replace(&mut state, before);
            found.push(Found { commit: visit.commit, position: visit.position, state, travelling });
        } else {
            state = before;
        }
        ControlFlow::Continue(())
    })? || past.more;
    // From the oldest on, so that a broken version in between is passed over as reconciliation does.
    let mut last_good = state;
    for found in found.into_iter().rev() {
        past.changes.push(tell(&found, &last_good));
        if !matches!(found.state, State::Broken { .. }) {
            last_good = found.state;
        }
    }
    past.changes.reverse();
    Ok(past)
}

/// What the parent of a commit has: in the same file, or in another that the commit changed.
fn search(name: &Name, path: Option<&str>, visit: &Visit<'_>) -> State {
    let files = visit.changed.iter().filter(|file| file.counts);
    let (same, others): (Vec<_>, Vec<_>) = files.partition(|file| Some(file.path.as_str()) == path);
    let mut broken = State::Absent;
    for file in same.into_iter().chain(others) {
        let Some(state) = file.old.and_then(|blob| read_blob(name, &file.path, blob, visit)) else { continue };
        match state {
            State::Good { .. } => return state,
            State::Broken { .. } if matches!(broken, State::Absent) => broken = state,
            State::Broken { .. } | State::Absent => {}
        }
    }
    broken
}

fn read_blob(name: &Name, path: &str, blob: BlobId, visit: &Visit<'_>) -> Option<State> {
    Some(read(name, path, &visit.read(blob)?))
}

fn read(name: &Name, path: &str, bytes: &[u8]) -> State {
    let wanted = name.as_str().as_bytes();
    if !bytes.windows(wanted.len()).any(|window| window == wanted) {
        return State::Absent;
    }
    match compile::workflow_of(path, bytes, name) {
        Ok(Some((hash, body))) => {
            let files = &body.spec.files;
            let travelling = if files.is_empty() { None } else { Globs::new(files).ok() };
            State::Good { path: path.into(), hash, body, travelling }
        }
        Ok(None) => State::Absent,
        Err(problems) => {
            let problem = problems.first().map(|problem| format!("{}: {}", problem.place(), problem.message));
            State::Broken { path: path.into(), problem: problem.unwrap_or_default() }
        }
    }
}

fn tell(found: &Found, before: &State) -> PastChange {
    let Found { commit, position, state, travelling } = found;
    let mut told = PastChange {
        commit: commit.clone(),
        position: *position,
        change: "Updated",
        path: state.path().or_else(|| before.path()).map(str::to_owned),
        message: None,
        fields: Vec::new(),
    };
    match (state, before) {
        (State::Absent, _) => told.change = "Removed",
        (State::Broken { problem, .. }, _) => {
            told.change = "Invalid";
            told.message = Some(format!("{problem}; what it last gave stayed in effect"));
        }
        (State::Good { .. }, State::Absent) => told.change = "Created",
        (State::Good { .. }, State::Broken { .. }) => {}
        (State::Good { path, hash, body, .. }, State::Good { path: old_path, hash: old_hash, body: old_body, .. }) => {
            told.message = match () {
                () if path != old_path => Some(format!("was in {old_path}")),
                () if !travelling.is_empty() => Some(format!("files that travel with it: {}", some_of(travelling))),
                // As after a broken version.
                () if hash == old_hash => Some("as it was before".into()),
                () => None,
            };
            if hash == old_hash && path != old_path {
                told.change = "Moved";
            }
            let (old, new) = (&old_body, &body);
            told.fields = fields::between((&old.metadata, &old.spec), (&new.metadata, &new.spec));
        }
    }
    told
}

/// `a.sh, b.sh and 3 more`.
fn some_of(paths: &[String]) -> String {
    let named = paths.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    match paths.len().saturating_sub(NAMED) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}
