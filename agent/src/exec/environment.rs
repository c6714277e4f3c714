//! The environment of a step, and the program that it means: nothing of the agent's own leaks in.

use std::{
    ffi::OsString,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use super::folders::StepFolders;
use crate::decide::event::StepCommand;

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The account that steps run as: the agent's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Account {
    name: String,
    home: String,
}

impl Account {
    /// This process's account, from the host's list. One that is not in there has its number for a name.
    pub(super) fn own() -> Self {
        let uid = rustix::process::getuid().as_raw();
        let list = fs::read_to_string("/etc/passwd").unwrap_or_default();
        Self::find(&list, uid).unwrap_or_else(|| Self { name: uid.to_string(), home: "/".to_owned() })
    }

    fn find(list: &str, uid: u32) -> Option<Self> {
        list.lines().find_map(|line| {
            let fields: Vec<_> = line.split(':').collect();
            let [name, _, id, _, _, home, ..] = fields[..] else { return None };
            (id.parse() == Ok(uid)).then(|| Self { name: name.to_owned(), home: home.to_owned() })
        })
    }
}

/// All variables of a step, in order: a later one wins over an earlier one of the same name.
pub(super) fn variables(command: &StepCommand, account: &Account, folders: &StepFolders) -> Vec<(OsString, OsString)> {
    let host = [
        ("PATH", PATH.into()),
        ("HOME", account.home.clone().into()),
        ("USER", account.name.clone().into()),
        ("LANG", "C.UTF-8".into()),
        ("TMPDIR", folders.tmp.clone().into()),
    ];
    let own = [
        ("XENE_WORKSPACE", Some(&folders.workspace)),
        ("XENE_OUTPUT", Some(&folders.output)),
        ("XENE_CACHE", Some(&folders.cache)),
        ("XENE_PAYLOAD", folders.payload.as_ref()),
    ];
    let mut variables: Vec<(OsString, OsString)> = host.map(|(name, value): (_, OsString)| (name.into(), value)).into();
    variables.extend(command.env.iter().map(|(name, value)| (name.into(), value.into())));
    variables.extend(own.into_iter().filter_map(|(name, path)| Some((name.into(), path?.into()))));
    variables
}

/// Finds the program that `name` means in `dir` with these variables; as a sentence why there is none.
///
/// Found here and not by the system call, so that starting takes the short way (`posix_spawn` with a full path).
pub(super) fn program(name: &str, variables: &[(OsString, OsString)], dir: &Path) -> Result<PathBuf, String> {
    if name.is_empty() {
        return Err("the program has no name".to_owned());
    }
    if name.contains('/') {
        let path = dir.join(name);
        return match fs::metadata(&path) {
            Err(error) => Err(format!("can't run {name}: {error}")),
            Ok(metadata) if !is_program(&metadata) => Err(format!("can't run {name}: it is not an executable file")),
            Ok(_) => Ok(path),
        };
    }
    let list = variables.iter().rev().find(|(variable, _)| variable == "PATH").map(|(_, value)| value.clone());
    let list = list.unwrap_or_default();
    let mut found_other = false;
    for folder in std::env::split_paths(&list) {
        let path = dir.join(folder).join(name);
        match fs::metadata(&path) {
            Ok(metadata) if is_program(&metadata) => return Ok(path),
            Ok(_) => found_other = true,
            Err(_) => {}
        }
    }
    let list = list.to_string_lossy();
    Err(if found_other {
        format!("can't run {name}: what is on PATH ({list}) is not an executable file")
    } else {
        format!("can't run {name}: not found on PATH ({list})")
    })
}

fn is_program(metadata: &fs::Metadata) -> bool {
    metadata.is_file() && metadata.permissions().mode() & 0o111 != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_account() {
        let list = "root:x:0:0:root:/root:/bin/sh\nbroken\nci:x:1000:1000::/home/ci:/bin/sh\n";
        assert_eq!(Account::find(list, 1000), Some(Account { name: "ci".into(), home: "/home/ci".into() }));
        assert_eq!(Account::find(list, 7), None);
    }

    #[test]
    fn finds_programs_as_a_shell_would() {
        let dir = tempfile::tempdir().unwrap();
        let make = |name: &str, mode: u32| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path
        };
        let (plain, tool) = (make("one/tool", 0o600), make("two/tool", 0o700));
        make("one/data", 0o600);
        let path = std::env::join_paths([dir.path().join("one"), dir.path().join("two")]).unwrap();
        let variables = [("PATH".into(), "/nowhere".into()), ("PATH".into(), path)];
        let program = |name: &str| program(name, &variables, dir.path());
        assert_eq!(program("tool"), Ok(tool.clone()));
        assert_eq!(program("./two/tool").map(|path| path.canonicalize().unwrap()), Ok(tool.canonicalize().unwrap()));
        assert!(program(plain.to_str().unwrap()).unwrap_err().ends_with("it is not an executable file"));
        assert!(program("data").unwrap_err().ends_with("is not an executable file"));
        assert!(program("gone").unwrap_err().starts_with("can't run gone: not found on PATH ("));
        assert!(program("./gone").unwrap_err().starts_with("can't run ./gone: No such file"));
        assert!(program("").is_err());
    }
}
