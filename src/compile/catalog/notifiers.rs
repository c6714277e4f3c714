//! Notifiers of all files: few and small, so each pass gives all of them whole.

use std::collections::BTreeMap;

use xene_schemas::{
    diagnostic::Diagnostic,
    meta::{Name, SpecHash},
};

use super::duplicates;
use crate::decide::{
    desired::DesiredNotifier,
    rows::{NotifierClaim, NotifierRow},
};

/// Who claims which name, and who has it.
#[derive(Debug, Default)]
pub(super) struct Notifiers {
    /// By name, then by path.
    claims: BTreeMap<Name, BTreeMap<String, NotifierClaim>>,
    /// By name: the path that has it, and what it says.
    in_effect: BTreeMap<Name, (String, NotifierClaim)>,
    /// What [`Self::desired`] last gave.
    given: BTreeMap<Name, String>,
}

impl Notifiers {
    pub(super) fn recover(&mut self, rows: &[NotifierRow]) {
        let claim = |row: &NotifierRow| {
            let NotifierRow { metadata, spec, path, line, .. } = row.clone();
            (metadata.name.clone(), (path, NotifierClaim { line, metadata, spec }))
        };
        self.in_effect = rows.iter().map(claim).collect();
    }

    /// What a path has in effect.
    pub(super) fn in_effect(&self, path: &str) -> Vec<NotifierClaim> {
        self.in_effect.values().filter(|(of, _)| of == path).map(|(_, claim)| claim.clone()).collect()
    }

    pub(super) fn put(&mut self, path: &str, claims: &[NotifierClaim]) {
        for claim in claims {
            let of_name = self.claims.entry(claim.metadata.name.clone()).or_default();
            of_name.insert(path.to_owned(), claim.clone());
        }
    }

    pub(super) fn remove(&mut self, path: &str) {
        self.claims.retain(|_, paths| {
            paths.remove(path);
            !paths.is_empty()
        });
    }

    /// All that are to be in effect, and what is wrong with names that several paths claim: the path that has a name
    /// keeps it; without one, a single claim takes it, and of several none does. True if each name is somebody's.
    pub(super) fn desired(
        &mut self,
        is_broken: impl Fn(&str) -> bool,
    ) -> (BTreeMap<Name, DesiredNotifier>, Vec<Diagnostic>, bool) {
        let (mut desired, mut problems, mut settled) = (BTreeMap::new(), Vec::new(), true);
        for (name, paths) in &self.claims {
            let incumbent = self.in_effect.get(name).and_then(|(path, _)| paths.get_key_value(path));
            let winner = incumbent.or_else(|| if paths.len() == 1 { paths.first_key_value() } else { None });
            let places: Vec<_> = paths.iter().map(|(path, claim)| (path.as_str(), claim.line)).collect();
            problems.extend(duplicates("notifier", name, &places, winner.map(|(path, _)| path.as_str())));
            let Some((path, claim)) = winner else {
                settled = false;
                continue;
            };
            // Texts and lists: they can be written.
            let hash = SpecHash::of(&serde_json::to_vec(&(&claim.metadata, &claim.spec)).unwrap_or_default());
            let wanted = DesiredNotifier { hash, path: path.clone(), valid: !is_broken(path), claim: claim.clone() };
            desired.insert(name.clone(), wanted);
        }
        self.given = desired.iter().map(|(name, wanted)| (name.clone(), wanted.path.clone())).collect();
        (desired, problems, settled)
    }

    /// What was last given is durable.
    pub(super) fn applied(&mut self) {
        let claim = |(name, path): (Name, String)| {
            let claim = self.claims.get(&name)?.get(&path)?.clone();
            Some((name, (path, claim)))
        };
        self.in_effect = std::mem::take(&mut self.given).into_iter().filter_map(claim).collect();
    }
}
