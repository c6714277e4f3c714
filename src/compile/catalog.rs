//! What every file last gave, known by content: a pass costs what changed.
//!
//! Who has a name depends on the files and on what is in effect, never on the order of files: the path whose workflow
//! is in effect keeps the name; without one, a single claim takes it, and of several none does.

mod notifiers;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use xene_schemas::{
    diagnostic::{Diagnostic, Severity},
    meta::{FileHash, Name, Revision, SpecHash},
};

use self::notifiers::Notifiers;
use super::{
    Limits,
    build::{CompiledFile, compile_file, is_broken},
    outline::Position,
    parse::diagnostic,
    rules::{
        file,
        group::{self, Grouped, Member},
    },
};
use crate::{
    decide::{
        desired::{Desired, DesiredWorkflow, WorkflowBody},
        rows::{FileRow, NotifierRow, WorkflowRow},
    },
    source::snapshot::{FileEntry, Snapshot, What},
};

/// The compiler's memory: files by path, claims by name.
///
/// The loop is: a snapshot that leaves out the bytes of [`Self::known`] content → [`Self::apply`] → the machine makes
/// the result durable → [`Self::applied`]. Whatever was not applied is in the next result again.
#[derive(Debug, Default)]
pub struct Catalog {
    files: BTreeMap<String, File>,
    /// Path → content that needs no bytes.
    known: BTreeMap<String, String>,
    /// Files that are there but could not be read in the last pass.
    unread: BTreeMap<String, Diagnostic>,
    claims: BTreeMap<Name, BTreeSet<String>>,
    in_effect: BTreeMap<Name, Stored>,
    /// What the files ask for, name by name.
    desired: BTreeMap<Name, DesiredWorkflow>,
    /// Names with more than one claim: their problems, and whether one of them has the name.
    contested: BTreeMap<Name, Contest>,
    /// Of the names above, those whose pipelines name groups.
    grouped: BTreeMap<Name, Vec<Member>>,
    /// Files with problems, so that a pass need not visit all.
    troubled: BTreeSet<String>,
    ignored: u32,
    notifiers: Notifiers,
    /// Rows and names that changed since what was last applied.
    unapplied: Unapplied,
    /// True if the store may not hold what is in effect: then bodies are given of that, too.
    distrusts: bool,
    limits: Limits,
}

#[derive(Debug)]
struct File {
    row: FileRow,
    /// Beside `row.workflows`; absent for what is in effect: that body is in the store.
    bodies: Vec<Option<Arc<WorkflowBody>>>,
}

/// A workflow that is in the store.
#[derive(Debug)]
struct Stored {
    path: String,
    hash: SpecHash,
    line: u32,
    members: Vec<Member>,
}

#[derive(Debug)]
struct Contest {
    problems: Vec<Diagnostic>,
    settled: bool,
}

#[derive(Debug, Default)]
struct Unapplied {
    revision: Option<Revision>,
    files: BTreeSet<String>,
    names: BTreeSet<Name>,
}

impl Catalog {
    /// A catalog that starts with what the store held: what files last gave, and the workflows in effect.
    pub fn recover(files: Vec<(String, FileRow)>, in_effect: &[WorkflowRow], limits: Limits) -> Self {
        let mut catalog = Self { limits, ..Self::default() };
        // What is only held has no file, so no path has its name.
        let stored = in_effect.iter().filter(|row| row.held.is_none());
        let stored: BTreeMap<&Name, &WorkflowRow> = stored.map(|row| (&row.metadata.name, row)).collect();
        for (path, mut row) in files {
            let in_store = |(name, hash, _): &(Name, SpecHash, u32)| {
                stored.get(name).is_some_and(|stored| stored.path == path && stored.hash == *hash)
            };
            if is_broken(&row.problems) {
                // What its last good form said cannot be had again, unless the store has it.
                row.workflows.retain(in_store);
            }
            // To an earlier version this was no kind.
            let is_notifier = |problem: &Diagnostic| problem.message.contains("`Notifier`");
            let unknown =
                row.problems.iter().any(|problem| problem.code == file::UNKNOWN_KIND.code && is_notifier(problem));
            if row.workflows.iter().all(in_store) && !unknown {
                catalog.known.insert(path.clone(), row.content.clone());
            }
            for claim in row.workflows.iter().filter(|claim| in_store(claim)) {
                let (name, hash, line) = claim.clone();
                let members = stored.get(&name).map(|row| group::members(&row.spec)).unwrap_or_default();
                catalog.in_effect.insert(name, Stored { path: path.clone(), hash, line, members });
            }
            let bodies = vec![None; row.workflows.len()];
            catalog.put(path, File { row, bodies });
        }
        let names: Vec<Name> = catalog.claims.keys().cloned().collect();
        names.iter().for_each(|name| catalog.settle(name));
        catalog
    }

    /// The same, with the notifiers in effect.
    #[must_use]
    pub fn with_notifiers(mut self, in_effect: &[NotifierRow]) -> Self {
        self.notifiers.recover(in_effect);
        self
    }

    /// What is in effect was changed by somebody else: until the next result is durable, bodies are given of everything.
    /// The next snapshot must bring the bytes of all files.
    pub fn distrust(&mut self) {
        self.distrusts = true;
        self.known.clear();
    }

    /// Path → content id of files whose bytes are not needed again.
    ///
    /// After a restart this leaves out files that claim a name which another file has: what they say is in no store,
    /// and must be at hand on the day that the other goes.
    pub fn known(&self) -> &BTreeMap<String, String> {
        &self.known
    }

    /// Takes a snapshot: compiles the files that came with bytes, and gives all that is desired now. Bodies are given
    /// only for workflows whose hash is not in effect; `base` is the revision that is.
    pub fn apply(&mut self, base: Option<Revision>, snapshot: Snapshot) -> Desired {
        let Snapshot { revision, author, subject, folder, files, complete, mut problems } = snapshot;
        let mut touched = BTreeSet::new();
        let mut unread = BTreeMap::new();
        let mut compiled = Vec::new();
        for (path, entry) in self.differences(files) {
            match entry {
                Some(FileEntry { content, bytes: Some(bytes), files }) => {
                    let file = compile_file(&path, &bytes, files.as_deref(), self.limits);
                    let files = files.unwrap_or_default().into_iter().filter_map(|file| match file.what {
                        What::File { hash, .. } => Some(hash),
                        What::TooMany { .. } | What::Refused(_) => None,
                    });
                    compiled.push((path, (content, files.collect()), file));
                }
                Some(FileEntry { bytes: None, .. }) => {
                    let message = "this file could not be read; what it last gave stays in effect".into();
                    let problem = diagnostic(&path, &file::UNREADABLE, Position { line: 0, column: 0 }, message, None);
                    unread.insert(path, problem);
                }
                None => {
                    let of_path = |problem: &&Diagnostic| problem.path == path && problem.severity == Severity::Error;
                    if let Some(problem) = problems.iter().find(of_path).filter(|_| !complete) {
                        // It could not be read, which does not mean that it is gone.
                        unread.insert(path, problem.clone());
                    } else {
                        self.known.remove(&path);
                        self.remove(&path, &mut touched);
                        self.unapplied.files.insert(path);
                    }
                }
            }
        }
        // All are compiled before anything is kept: bodies go soon, and must not lie between what stays.
        for (path, content, file) in compiled {
            self.take(path, content, file, &mut touched);
        }
        // Whether a file can be read decides whether its workflows are valid.
        let before = std::mem::replace(&mut self.unread, unread);
        for path in before.keys().chain(self.unread.keys()) {
            if let Some(file) = self.files.get(path) {
                touched.extend(file.row.workflows.iter().map(|(name, ..)| name.clone()));
            }
        }
        touched.iter().for_each(|name| self.settle(name));
        self.unapplied.names.append(&mut touched);
        self.unapplied.revision = Some(revision.clone());

        let files = &self.files;
        let unread = |path: &str| self.unread.contains_key(path);
        let (notifiers, contested, settled) = self
            .notifiers
            .desired(|path| unread(path) || files.get(path).is_some_and(|file| is_broken(&file.row.problems)));
        let mut whole =
            complete && settled && self.unread.is_empty() && self.contested.values().all(|contest| contest.settled);
        problems.extend(contested);
        for file in self.troubled.iter().filter_map(|path| self.files.get(path)) {
            whole &= !is_broken(&file.row.problems);
            problems.extend(file.row.problems.iter().cloned());
        }
        problems.extend(self.unread.values().cloned());
        problems.extend(self.contested.values().flat_map(|contest| contest.problems.iter().cloned()));
        problems.extend(group::across(self.grouped.iter().filter_map(|(workflow, members)| {
            let DesiredWorkflow { path, line, .. } = self.desired.get(workflow)?;
            Some(Grouped { workflow, path, line: *line, members })
        })));
        problems.sort();
        // The source has told some of them already.
        problems.dedup();
        let row = |path: &String| (path.clone(), self.files.get(path).map(|file| file.row.clone()));
        Desired {
            revision,
            base,
            author,
            subject,
            folder,
            workflows: self.desired.clone(),
            notifiers,
            complete: whole,
            files: self.unapplied.files.iter().map(row).collect(),
            problems,
            ignored: self.ignored,
        }
    }

    /// What [`Self::apply`] last gave is durable, if it was of this revision: bodies are dropped, and what is in
    /// effect keeps its names from now on.
    pub fn applied(&mut self, revision: &Revision) {
        if self.unapplied.revision.as_ref() != Some(revision) {
            return;
        }
        self.distrusts = false;
        self.notifiers.applied();
        let Unapplied { names, .. } = std::mem::take(&mut self.unapplied);
        for name in names {
            let Some(desired) = self.desired.get_mut(&name) else {
                self.in_effect.remove(&name);
                continue;
            };
            desired.body = None;
            if let Some(File { row, bodies }) = self.files.get_mut(&desired.path) {
                for (_, body) in row.workflows.iter().zip(bodies).filter(|((claim, ..), _)| *claim == name) {
                    *body = None;
                }
            }
            let DesiredWorkflow { hash, path, line, .. } = desired;
            let members = self.grouped.get(&name).cloned().unwrap_or_default();
            self.in_effect.insert(name, Stored { path: path.clone(), hash: *hash, line: *line, members });
        }
    }

    /// Files whose content is not known, and with `None` those that are no more. Both sides are sorted: one walk.
    fn differences(&self, files: BTreeMap<String, FileEntry>) -> Vec<(String, Option<FileEntry>)> {
        let mut differences = Vec::new();
        let mut ours = self.files.keys().peekable();
        let mut known = self.known.iter().peekable();
        for (path, entry) in files {
            while let Some(gone) = ours.next_if(|ours| **ours < path) {
                differences.push((gone.clone(), None));
            }
            ours.next_if(|ours| **ours == path);
            while known.next_if(|(known, _)| **known < path).is_some() {}
            if known.next_if(|(known, content)| **known == path && **content == entry.content).is_none() {
                differences.push((path, Some(entry)));
            }
        }
        differences.extend(ours.map(|gone| (gone.clone(), None)));
        differences
    }

    /// Takes a file that is new or has changed.
    fn take(
        &mut self,
        path: String,
        (content, travelling): (String, Vec<FileHash>),
        compiled: CompiledFile,
        touched: &mut BTreeSet<Name>,
    ) {
        // What tests expect is nothing that could take effect.
        let CompiledFile { workflows, notifiers, tests: _, refused, ignored, problems } = compiled;
        self.remove(&path, touched);
        let notifiers = if is_broken(&problems) { self.notifiers.in_effect(&path) } else { notifiers };
        let file = if is_broken(&problems) {
            // It goes on with what is in effect; a claim that never was is no last good form.
            let of_path = self.in_effect.iter().filter(|(_, stored)| stored.path == path);
            let workflows: Vec<_> = of_path.map(|(name, stored)| (name.clone(), stored.hash, stored.line)).collect();
            let bodies = vec![None; workflows.len()];
            let refused = Vec::new();
            File { row: FileRow { content, workflows, notifiers, refused, ignored, problems, travelling }, bodies }
        } else {
            let (mut claims, mut bodies): (Vec<_>, Vec<_>) =
                workflows.into_iter().map(|w| ((w.name.clone(), w.hash, w.line), Some(w.body))).unzip();
            for name in &refused {
                if let Some(stored) = self.in_effect.get(name).filter(|stored| stored.path == path) {
                    claims.push((name.clone(), stored.hash, stored.line));
                    bodies.push(None);
                }
            }
            let workflows = claims;
            File { row: FileRow { content, workflows, notifiers, refused, ignored, problems, travelling }, bodies }
        };
        touched.extend(file.row.workflows.iter().map(|(name, ..)| name.clone()));
        self.known.insert(path.clone(), file.row.content.clone());
        self.unapplied.files.insert(path.clone());
        self.put(path, file);
    }

    fn put(&mut self, path: String, file: File) {
        for (name, ..) in &file.row.workflows {
            self.claims.entry(name.clone()).or_default().insert(path.clone());
        }
        self.notifiers.put(&path, &file.row.notifiers);
        if !file.row.problems.is_empty() {
            self.troubled.insert(path.clone());
        }
        self.ignored += file.row.ignored;
        self.files.insert(path, file);
    }

    fn remove(&mut self, path: &str, touched: &mut BTreeSet<Name>) {
        let Some(file) = self.files.remove(path) else { return };
        for (name, ..) in &file.row.workflows {
            touched.insert(name.clone());
            if let Some(paths) = self.claims.get_mut(name) {
                paths.remove(path);
                if paths.is_empty() {
                    self.claims.remove(name);
                }
            }
        }
        self.notifiers.remove(path);
        self.troubled.remove(path);
        self.ignored -= file.row.ignored;
    }

    /// Settles who has a name.
    fn settle(&mut self, name: &Name) {
        self.desired.remove(name);
        self.contested.remove(name);
        self.grouped.remove(name);
        let Some(paths) = self.claims.get(name) else { return };
        let in_effect = self.in_effect.get(name);
        let incumbent = in_effect.and_then(|stored| paths.get(&stored.path));
        let winner = incumbent.or_else(|| if paths.len() == 1 { paths.first() } else { None });
        if paths.len() > 1 {
            let places: Vec<(&str, u32)> =
                paths.iter().filter_map(|path| Some((path.as_str(), claim(&self.files, path, name)?.1))).collect();
            let problems = duplicates("workflow", name, &places, winner.map(String::as_str));
            self.contested.insert(name.clone(), Contest { problems, settled: winner.is_some() });
        }
        let found = winner.and_then(|path| Some((path, claim(&self.files, path, name)?)));
        let Some((path, (hash, line, body))) = found else {
            return;
        };
        let stored = in_effect.filter(|stored| stored.hash == hash);
        let members = match (body, stored) {
            (Some(body), _) => group::members(&body.spec),
            (None, Some(stored)) => stored.members.clone(),
            (None, None) => Vec::new(),
        };
        let is_stored = !self.distrusts && stored.is_some();
        let body = if is_stored { None } else { body.cloned() };
        let is_refused = |row: &FileRow| is_broken(&row.problems) || row.refused.contains(name);
        let broken = self.files.get(path).is_some_and(|file| is_refused(&file.row));
        let valid = !broken && !self.unread.contains_key(path);
        self.desired.insert(name.clone(), DesiredWorkflow { hash, path: path.clone(), line, valid, body });
        if !members.is_empty() {
            self.grouped.insert(name.clone(), members);
        }
    }
}

/// What a file says of a name: hash, line, and the body if it is at hand.
fn claim<'f>(
    files: &'f BTreeMap<String, File>,
    path: &str,
    name: &Name,
) -> Option<(SpecHash, u32, Option<&'f Arc<WorkflowBody>>)> {
    let file = files.get(path)?;
    let index = file.row.workflows.iter().position(|(claim, ..)| claim == name)?;
    let (_, hash, line) = file.row.workflows[index];
    Some((hash, line, file.bodies[index].as_ref()))
}

/// The problems of a name that several places claim: one for each place that does not get it.
pub(super) fn duplicates(kind: &str, name: &Name, places: &[(&str, u32)], winner: Option<&str>) -> Vec<Diagnostic> {
    if places.len() < 2 {
        return Vec::new();
    }
    let all = places.iter().map(|(path, line)| format!("{path}:{line}")).collect::<Vec<_>>().join(", ");
    let outcome =
        winner.map_or_else(|| "none of them is taken".into(), |path| format!("{path} had it first and keeps it"));
    let message = format!("{kind} `{name}` is declared more than once: {all}; {outcome}");
    let losers = places.iter().filter(|(path, _)| Some(*path) != winner);
    losers
        .map(|(path, line)| {
            let hint = Some("give one of them another name, or remove it".into());
            diagnostic(path, &file::DUPLICATE_NAME, Position { line: *line, column: 1 }, message.clone(), hint)
        })
        .collect()
}

#[cfg(test)]
mod tests;
