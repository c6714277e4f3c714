//! Folders for this account alone: what steps print and save is nobody else's.

use std::{
    fs::{self, DirBuilder, Permissions},
    io,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::Path,
};

/// What others may do, in a mode.
const OTHERS: u32 = 0o077;

/// Makes a folder, and those above it, for this account alone; one that is there already is closed to others.
///
/// # Errors
/// If it can't be made. One that can't be closed stays as it is, which the log tells.
pub fn private(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    let mode = fs::metadata(path)?.permissions().mode();
    if mode & OTHERS != 0
        && let Err(error) = fs::set_permissions(path, Permissions::from_mode(mode & 0o7777 & !OTHERS))
    {
        tracing::warn!(folder = %path.display(), %error, "others on this machine can look into this folder");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_closed_whether_or_not_it_was_there() {
        let temp = tempfile::tempdir().unwrap();
        let open = temp.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, Permissions::from_mode(0o755)).unwrap();
        for path in [open, temp.path().join("new/below")] {
            private(&path).unwrap();
            private(&path).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o700, "{}", path.display());
        }
        fs::write(temp.path().join("file"), "").unwrap();
        assert!(private(&temp.path().join("file")).is_err());
    }
}
