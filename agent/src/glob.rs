//! Patterns of files, as `files` and `artifacts` have them: one meaning for commits, folders and workspaces.
//!
//! `*` and `?` stay within a name, `**` goes over folders, `[…]` and `{a,b}` choose. A pattern that names a folder means
//! all that is in it. A name that begins with a dot is taken only by a pattern that spells such a dot, as in a shell;
//! a pattern that begins with `!` takes nothing, and leaves out what it names.

use globset::{GlobBuilder, GlobMatcher};

/// The longest pattern, in bytes.
const MAX_PATTERN: usize = 1024;

/// A set of patterns.
#[derive(Debug, Clone)]
pub struct Globs {
    take: Vec<Pattern>,
    leave: Vec<Pattern>,
}

#[derive(Debug, Clone)]
struct Pattern {
    /// Its place among those that were given.
    index: usize,
    itself: GlobMatcher,
    below: GlobMatcher,
    /// The folders that it names in so many letters, before any that it leaves open.
    folder: String,
    /// True if it spells a name that begins with a dot.
    hidden: bool,
}

/// A pattern that can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the pattern `{pattern}` {why}")]
pub struct BadGlob {
    /// Its place in the list, from 0.
    pub index: usize,
    /// As it was written.
    pub pattern: String,
    /// What is wrong, without its subject.
    pub why: String,
}

impl Globs {
    /// Reads patterns.
    ///
    /// # Errors
    /// If one is absolute, leads upwards, or is no pattern.
    pub fn new(patterns: &[String]) -> Result<Self, BadGlob> {
        let mut globs = Self { take: Vec::new(), leave: Vec::new() };
        for (index, text) in patterns.iter().enumerate() {
            let (list, text) = match text.strip_prefix('!') {
                Some(rest) => (&mut globs.leave, rest),
                None => (&mut globs.take, text.as_str()),
            };
            let bad = |why: String| BadGlob { index, pattern: patterns[index].clone(), why };
            list.push(Pattern::new(index, text).map_err(bad)?);
        }
        Ok(globs)
    }

    /// True for a path that is taken. `path` is relative and `/` separated.
    pub fn matches(&self, path: &str) -> bool {
        self.find(path).is_some()
    }

    /// The first pattern that takes a path, by its place in the list.
    pub fn find(&self, path: &str) -> Option<usize> {
        let hidden = is_hidden(path);
        let taken = self.take.iter().find(|pattern| (pattern.hidden || !hidden) && pattern.matches(path))?;
        (!self.leave.iter().any(|pattern| pattern.matches(path))).then_some(taken.index)
    }

    /// The patterns of the list that take files, and none of these.
    pub fn unused<'p>(&self, paths: impl IntoIterator<Item = &'p str>) -> Vec<usize> {
        let mut unused: Vec<&Pattern> = self.take.iter().collect();
        for path in paths {
            let hidden = is_hidden(path);
            unused.retain(|pattern| (hidden && !pattern.hidden) || !pattern.matches(path));
        }
        unused.into_iter().map(|pattern| pattern.index).collect()
    }

    /// False for a folder in which no file is taken, so that nobody need look there.
    pub fn may_hold(&self, folder: &str) -> bool {
        let hidden = is_hidden(folder);
        self.take.iter().any(|pattern| {
            (pattern.hidden || !hidden) && (is_within(folder, &pattern.folder) || is_within(&pattern.folder, folder))
        })
    }

    /// The folders to look in: none lies in another. `""` is the one that patterns are relative to.
    pub fn folders(&self) -> Vec<&str> {
        let all = || self.take.iter().map(|pattern| pattern.folder.as_str());
        let mut folders: Vec<&str> =
            all().filter(|folder| !all().any(|other| other != *folder && is_within(folder, other))).collect();
        folders.sort_unstable();
        folders.dedup();
        folders
    }
}

impl Pattern {
    fn new(index: usize, text: &str) -> Result<Self, String> {
        let mut text = text;
        while let Some(rest) = text.strip_prefix("./") {
            text = rest;
        }
        let text = text.strip_suffix('/').unwrap_or(text);
        if text.is_empty() || text == "." {
            return Err("names nothing: for all files write **".into());
        }
        if text.len() > MAX_PATTERN {
            return Err(format!("is longer than {MAX_PATTERN} bytes"));
        }
        if text.starts_with('/') {
            return Err("is absolute: write it relative".into());
        }
        if text.split('/').any(|part| part == "..") {
            return Err("leads upwards with ..: files are taken only from below".into());
        }
        if text.contains('\0') {
            return Err("holds a zero byte".into());
        }
        let compile = |text: &str| {
            let glob = GlobBuilder::new(text).literal_separator(true).backslash_escape(true).build();
            glob.map(|glob| glob.compile_matcher()).map_err(|error| format!("is no pattern: {}", error.kind()))
        };
        let parts: Vec<&str> = text.split('/').collect();
        let literal = |part: &&&str| !part.contains(['*', '?', '[', ']', '{', '}', '\\']);
        let folder: Vec<&str> = parts[..parts.len() - 1].iter().take_while(literal).copied().collect();
        Ok(Self {
            index,
            itself: compile(text)?,
            below: compile(&format!("{text}/**"))?,
            folder: folder.join("/"),
            hidden: parts.iter().any(|part| part.starts_with('.') || part.contains("{.") || part.contains(",.")),
        })
    }

    fn matches(&self, path: &str) -> bool {
        self.itself.is_match(path) || self.below.is_match(path)
    }
}

/// True if a part of the path begins with a dot.
fn is_hidden(path: &str) -> bool {
    path.split('/').any(|part| part.starts_with('.'))
}

/// True for `folder` itself and for what lies in it.
fn is_within(path: &str, folder: &str) -> bool {
    folder.is_empty() || path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// True for a path that stays below the folder that it is relative to: no `..`, no `.`, not absolute, no zero byte.
pub fn is_inner_path(path: &str) -> bool {
    path.len() <= 4096
        && !path.contains('\0')
        && path.split('/').all(|part| !part.is_empty() && part != "." && part != ".." && part.len() <= 255)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn globs(patterns: &[&str]) -> Globs {
        Globs::new(&patterns.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn patterns_take_what_a_shell_would() {
        for (pattern, takes, leaves) in [
            ("scripts/**", &["scripts/a", "scripts/b/c.sh"][..], &["scripts", "a", "other/scripts/a"][..]),
            ("scripts", &["scripts", "scripts/a", "scripts/b/c"], &["scripts2/a", "x/scripts"]),
            ("./scripts/", &["scripts/a"], &["a"]),
            ("*.sh", &["a.sh"], &["b/a.sh", ".a.sh"]),
            ("**/*.sh", &["a.sh", "b/c/a.sh"], &["a.py", ".git/a.sh", "b/.c/a.sh"]),
            ("**", &["a", "b/c"], &[".git/config", ".env", "a/.b"]),
            (".github/**", &[".github/a", ".github/.b"], &["a"]),
            ("{a,b}/[0-9].txt", &["a/1.txt", "b/9.txt"], &["c/1.txt", "a/x.txt", "a/b/1.txt"]),
            ("a?c", &["abc"], &["a/c", "ac"]),
            (r"a\*", &["a*"], &["ab"]),
        ] {
            let globs = globs(&[pattern]);
            for path in takes {
                assert!(globs.matches(path), "{pattern} takes {path}");
                let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
                assert!(globs.may_hold(folder), "{pattern} looks in {folder:?}");
                assert!(globs.folders().iter().any(|start| is_within(folder, start) || is_within(start, folder)));
            }
            for path in leaves {
                assert!(!globs.matches(path), "{pattern} leaves {path}");
            }
        }
    }

    #[test]
    fn an_exclamation_mark_leaves_out() {
        let globs = globs(&["target/**", "!**/*.tmp", "!target/deep"]);
        assert!(globs.matches("target/a"));
        assert!(!globs.matches("target/a.tmp") && !globs.matches("target/deep/x"));
        assert_eq!(globs.unused(["target/a.tmp"]), Vec::<usize>::new(), "it found something");
        assert_eq!(globs.unused(["x"]), [0]);
    }

    #[test]
    fn looks_only_where_something_may_be() {
        let globs = globs(&["scripts/ci/*.sh", "data/**", "data/x/*", "!other/**"]);
        assert_eq!(globs.folders(), ["data", "scripts/ci"]);
        for (folder, may) in
            [("", true), ("scripts", true), ("scripts/ci", true), ("scripts/x", false), ("other", false)]
        {
            assert_eq!(globs.may_hold(folder), may, "{folder}");
        }
    }

    #[test]
    fn what_leads_out_is_refused() {
        for bad in ["", ".", "/etc/passwd", "../x", "a/../../x", "[z-a]", "{a", "a\0b", "!", "!/x", &"x".repeat(2000)] {
            let error = Globs::new(&["ok".into(), bad.to_string()]).unwrap_err();
            assert_eq!((error.index, error.pattern.as_str()), (1, bad));
        }
    }

    #[test]
    fn inner_paths() {
        for good in ["a", "a/b.c", ".a/..b"] {
            assert!(is_inner_path(good), "{good}");
        }
        for bad in ["", "/a", "a/", "a//b", "..", "a/../b", "./a", "a\0", &"x/".repeat(3000), &"x".repeat(300)] {
            assert!(!is_inner_path(bad), "{bad}");
        }
    }
}
