//! Git repositories as users have them, made by git itself, deaf to the settings of whoever runs the tests.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::process::search_path;

/// A repository with a work tree.
#[derive(Debug)]
pub struct Repository {
    folder: PathBuf,
}

impl Repository {
    /// A new one, on branch `main`, without a commit.
    pub fn new(folder: &Path) -> Self {
        fs::create_dir_all(folder).expect("a folder for the repository");
        let repository = Self { folder: folder.into() };
        repository.git(&["init", "--quiet", "--initial-branch=main"]);
        repository
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Runs git in it and gives its output.
    ///
    /// # Panics
    /// If git fails.
    #[track_caller]
    pub fn git(&self, arguments: &[&str]) -> String {
        let output = git(&self.folder).args(arguments).output().expect("git is there");
        assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Writes a file of the work tree, folders included.
    ///
    /// # Panics
    /// If it can't be written.
    pub fn write(&self, path: &str, text: &str) {
        let path = self.folder.join(path);
        fs::create_dir_all(path.parent().expect("a file has a folder")).expect("folders");
        fs::write(path, text).expect("a file");
    }

    /// Commits the whole work tree and gives the commit's id.
    #[track_caller]
    pub fn commit(&self, subject: &str) -> String {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "-m", subject]);
        self.git(&["rev-parse", "HEAD"])
    }
}

/// A git command in `folder` that knows nothing of this machine's settings.
pub fn git(folder: &Path) -> Command {
    let mut command = Command::new("git");
    command.env_clear().env("PATH", search_path()).env("HOME", folder).current_dir(folder);
    command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
    for role in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{role}_NAME"), "Ada").env(format!("GIT_{role}_EMAIL"), "ada@example.org");
    }
    command
}
