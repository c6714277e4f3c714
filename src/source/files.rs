//! Which files count, and what is said of those that can't be read. The same rules for commits and for folders.

use ignore::gitignore::{Gitignore, GitignoreBuilder};
use xene_schemas::diagnostic::{Diagnostic, Severity};

use crate::compile::rules::{Rule, source as rules};

/// The folder that is read where none is named, if the source has it.
pub const DEFAULT_FOLDER: &str = "xene.d";

/// At the root of the folder that is read; as `.gitignore`.
pub(super) const IGNORE_FILE: &str = ".xeneignore";

/// True for a file that counts: `*.yaml`, `*.yml`, `*.json`, and not hidden.
pub(super) fn counts(name: &str) -> bool {
    !is_hidden(name) && matches!(name.rsplit_once('.'), Some((_, "yaml" | "yml" | "json")))
}

/// True for dotfiles and dot folders: `.git`, editors' files, the versions behind a `..data` link.
pub(super) fn is_hidden(name: &str) -> bool {
    name.starts_with('.')
}

/// `dir/name`, or `name` at the root.
pub(super) fn join(dir: &str, name: &str) -> String {
    if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") }
}

/// True if `bytes` are a pointer of Git LFS instead of a file.
pub(super) fn is_lfs_pointer(bytes: &[u8]) -> bool {
    bytes.starts_with(b"version https://git-lfs.github.com/spec/")
}

/// The lines of a `.xeneignore`, relative to the folder that holds it.
#[derive(Debug)]
pub(super) struct Ignore {
    folder: String,
    rules: Gitignore,
}

impl Ignore {
    /// Nothing is ignored.
    pub(super) fn none(folder: &str) -> Self {
        Self { folder: folder.to_owned(), rules: Gitignore::empty() }
    }

    /// The rules of `text`, found in `folder`; lines that are no pattern become problems.
    pub(super) fn parse(folder: &str, text: &str, problems: &mut Problems) -> Self {
        let mut builder = GitignoreBuilder::new("");
        for (index, line) in text.lines().enumerate() {
            if let Err(error) = builder.add_line(None, line) {
                problems.bad_ignore_line(&join(folder, IGNORE_FILE), index + 1, &error.to_string());
            }
        }
        let rules = builder.build().unwrap_or_else(|_| Gitignore::empty());
        Self { folder: folder.to_owned(), rules }
    }

    /// True if `path` (relative to the source's root) is ignored; its parents were asked before.
    pub(super) fn ignores(&self, path: &str, is_folder: bool) -> bool {
        if self.rules.is_empty() {
            return false;
        }
        let inner = path.strip_prefix(&self.folder).map_or(path, |rest| rest.trim_start_matches('/'));
        self.rules.matched(inner, is_folder).is_ignore()
    }
}

/// What is wrong with files, gathered on the way.
#[derive(Debug, Default)]
pub(super) struct Problems {
    list: Vec<Diagnostic>,
    /// True if a file that counts was not read.
    unread: bool,
}

impl Problems {
    /// Sorted; and whether all that counts was read.
    pub(super) fn finish(mut self) -> (Vec<Diagnostic>, bool) {
        self.list.sort();
        (self.list, !self.unread)
    }

    /// The file is above [`MAX_FILE_BYTES`](super::snapshot::MAX_FILE_BYTES).
    pub(super) fn too_large(&mut self, path: &str, size: u64) {
        self.unread(path, &rules::TOO_LARGE, format!("the file has {size} bytes; at most 1 MiB is read"), HINT_IGNORE);
    }

    /// The link does not lead to a file within the source.
    pub(super) fn bad_link(&mut self, path: &str, why: &str) {
        self.unread(path, &rules::LINK, format!("the link {why}"), "links must lead to a file within the source");
    }

    /// The blob is a pointer of Git LFS.
    pub(super) fn lfs_pointer(&mut self, path: &str) {
        self.unread(
            path,
            &rules::LFS,
            "the commit holds a Git LFS pointer instead of the file".to_owned(),
            "keep workflows out of LFS: `git lfs untrack`, then commit the file again",
        );
    }

    /// A submodule: its files do not count, so nothing can have moved there.
    pub(super) fn submodule(&mut self, path: &str) {
        let message = "submodules are not followed; workflows within it do not take effect".to_owned();
        let hint = "name its repository as a --source of its own, or list it in .xeneignore";
        self.add(path, 0, &rules::SUBMODULE, message, hint);
    }

    /// A link to a folder that is not followed: like a submodule.
    pub(super) fn folder_link(&mut self, path: &str, why: &str) {
        let message = format!("the link {why}; it is not followed");
        self.add(path, 0, &rules::LINK, message, "list it in .xeneignore").severity = Severity::Warning;
    }

    /// The path is not UTF-8.
    pub(super) fn bad_name(&mut self, path: &str) {
        self.unread(path, &rules::PATH, "the name is not UTF-8".to_owned(), "rename the file");
    }

    /// The file can't be read.
    pub(super) fn unreadable(&mut self, path: &str, why: &str) {
        self.unread(
            path,
            &rules::UNREADABLE,
            format!("the file can't be read: {why}"),
            "make it readable for the controller",
        );
    }

    /// The file changes as it is read.
    pub(super) fn unsettled(&mut self, path: &str) {
        self.unread(path, &rules::UNSETTLED, "the file is being written all the time".to_owned(), HINT_IGNORE);
    }

    fn bad_ignore_line(&mut self, path: &str, line: usize, why: &str) {
        let line = u32::try_from(line).unwrap_or(0);
        self.add(
            path,
            line,
            &rules::IGNORE_LINE,
            format!("the line is no pattern: {why}"),
            "write it as in .gitignore",
        );
    }

    fn unread(&mut self, path: &str, rule: &Rule, message: String, hint: &str) {
        self.unread = true;
        self.add(path, 0, rule, message, hint);
    }

    fn add(&mut self, path: &str, line: u32, rule: &Rule, message: String, hint: &str) -> &mut Diagnostic {
        let index = self.list.len();
        self.list.push(Diagnostic {
            path: path.to_owned(),
            line,
            column: 0,
            code: rule.code.to_owned(),
            severity: rule.severity,
            message,
            hint: Some(hint.to_owned()),
        });
        &mut self.list[index]
    }
}

const HINT_IGNORE: &str = "if it holds no workflow, list it in .xeneignore";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_visible_yaml_and_json_count() {
        for name in ["a.yaml", "b.yml", "c.json", "d.e.yaml"] {
            assert!(counts(name), "{name}");
        }
        for name in ["a.yaml~", ".a.yaml", "yaml", "a.yaml.swp", "a.tmp", "4913", "README.md", "#a.yaml#", "a.YAML"] {
            assert!(!counts(name), "{name}");
        }
    }

    #[test]
    fn ignore_rules_work_as_in_gitignore() {
        let mut problems = Problems::default();
        let ignore = Ignore::parse("ops", "# data\n/data/\n*.json\n!keep.json\n", &mut problems);
        assert!(ignore.ignores("ops/data", true));
        assert!(!ignore.ignores("ops/sub/data", true));
        assert!(ignore.ignores("ops/sub/x.json", false));
        assert!(!ignore.ignores("ops/keep.json", false));
        assert!(!ignore.ignores("ops/a.yaml", false));
        assert_eq!(problems.finish(), (Vec::new(), true));
    }

    #[test]
    fn bad_ignore_line_is_named_and_costs_only_itself() {
        let mut problems = Problems::default();
        let ignore = Ignore::parse("", "a.yaml\n[z-a].yaml\n", &mut problems);
        assert!(ignore.ignores("a.yaml", false));
        let (list, complete) = problems.finish();
        assert_eq!((list.len(), list[0].line, list[0].severity, complete), (1, 2, Severity::Warning, true));
    }
}
