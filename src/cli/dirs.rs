//! Where things lie on this machine: data folders, the local admin token, the system's certificates.
//!
//! This module and the parser are the only readers of the environment.

use std::{
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

use xene_schemas::source::SourceKind;

/// Whose data folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataDir {
    /// A controller's.
    Controller,
    /// An agent's.
    Agent,
}

/// The folder within a developer's tree where `xene dev` keeps its state.
pub const DEV_DIR: &str = ".xene";

/// The file in a controller's data folder that holds its admin token.
pub const ADMIN_TOKEN: &str = "admin.token";

/// The data folder where none is given: `controller` or `agent` below `$XDG_DATA_HOME/xene`, by default
/// `~/.local/share/xene`; below `/var/lib/xene` for a user without a home.
///
/// `XENE_DATA_DIR` is `--data-dir` itself and comes before this.
pub fn default_data_dir(whose: DataDir) -> PathBuf {
    let base = match (absolute("XDG_DATA_HOME"), absolute("HOME")) {
        (Some(data), _) => data.join("xene"),
        (None, Some(home)) => home.join(".local/share/xene"),
        (None, None) => PathBuf::from("/var/lib/xene"),
    };
    base.join(match whose {
        DataDir::Controller => "controller",
        DataDir::Agent => "agent",
    })
}

/// Where `xene run` keeps what lasts from one run to the next: `$XDG_CACHE_HOME/xene`, by default `~/.cache/xene`. None
/// for a user without a home.
pub fn cache_dir() -> Option<PathBuf> {
    let base = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    Some(base.join("xene"))
}

/// The admin token of a controller on this machine: from `$XENE_DATA_DIR`, else from `.xene/controller` in this
/// folder or the nearest one above, else from the default data folder.
pub fn local_admin_token() -> Option<String> {
    let here = env::current_dir().unwrap_or_default();
    find_admin_token(absolute("XENE_DATA_DIR").as_deref(), &here, &default_data_dir(DataDir::Controller))
}

fn find_admin_token(data_dir: Option<&Path>, here: &Path, default: &Path) -> Option<String> {
    let dev = here.ancestors().map(|folder| folder.join(DEV_DIR).join("controller"));
    data_dir.map(Path::to_owned).into_iter().chain(dev).chain([default.to_owned()]).find_map(|folder| {
        let text = fs::read_to_string(folder.join(ADMIN_TOKEN)).ok()?;
        Some(text.trim().to_owned()).filter(|token| !token.is_empty())
    })
}

/// The certificates that this machine trusts, as most systems lay them down.
pub fn system_certificates() -> Option<PathBuf> {
    const BUNDLES: [&str; 5] = [
        "/etc/ssl/certs/ca-certificates.crt",
        "/etc/pki/tls/certs/ca-bundle.crt",
        "/etc/ssl/ca-bundle.pem",
        "/etc/ssl/cert.pem",
        "/opt/homebrew/etc/ca-certificates/cert.pem",
    ];
    let named = absolute("SSL_CERT_FILE").into_iter();
    named.chain(BUNDLES.map(PathBuf::from)).find(|path| path.is_file())
}

/// True if `NO_COLOR` asks for none: set, and not empty.
pub fn no_color() -> bool {
    env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

/// True on a terminal that knows no escape sequences.
pub fn dumb_terminal() -> bool {
    env::var_os("TERM").is_some_and(|term| term == *"dumb")
}

fn absolute(name: impl AsRef<OsStr>) -> Option<PathBuf> {
    env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute())
}

/// What `--mode auto` means for `source`: a URL, a work tree or a bare repository is `git`, anything else `directory`.
///
/// A folder within a work tree counts as a plain directory: only its root is a repository.
pub fn detect_mode(source: &str) -> SourceKind {
    let path = Path::new(source);
    let bare = || path.join("HEAD").is_file() && path.join("objects").is_dir() && path.join("refs").is_dir();
    if path.join(".git").exists() || bare() || (!path.exists() && is_url(source)) {
        SourceKind::Git
    } else {
        SourceKind::Directory
    }
}

/// A URL (`https://…`), or what ssh and scp write (`user@host:path`).
fn is_url(source: &str) -> bool {
    source.contains("://") || source.split_once(':').is_some_and(|(host, _)| !host.is_empty() && !host.contains('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_admin_token_is_found() {
        let root = tempfile::tempdir().unwrap();
        let (default, deep) = (root.path().join("default"), root.path().join("project/a/b"));
        for folder in [&default, &deep, &root.path().join("project/.xene/controller")] {
            fs::create_dir_all(folder).unwrap();
        }
        assert_eq!(find_admin_token(None, &deep, &default), None);
        fs::write(default.join(ADMIN_TOKEN), "from-default\n").unwrap();
        assert_eq!(find_admin_token(None, &deep, &default).as_deref(), Some("from-default"));
        fs::write(root.path().join("project/.xene/controller").join(ADMIN_TOKEN), "from-dev").unwrap();
        assert_eq!(find_admin_token(None, &deep, &default).as_deref(), Some("from-dev"));
        assert_eq!(find_admin_token(Some(&default), &deep, &default).as_deref(), Some("from-default"));
    }

    #[test]
    fn auto_mode_looks_at_the_source() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().to_str().unwrap();
        assert_eq!(detect_mode(path), SourceKind::Directory);
        fs::create_dir(root.path().join(".git")).unwrap();
        assert_eq!(detect_mode(path), SourceKind::Git);
        for url in ["https://host/repo.git", "ssh://git@host/r", "git@host:repo.git", "file:///srv/repo"] {
            assert_eq!(detect_mode(url), SourceKind::Git, "{url}");
        }
        for plain in ["no/such/folder", "./a:b", "/a:b"] {
            assert_eq!(detect_mode(plain), SourceKind::Directory, "{plain}");
        }
    }
}
