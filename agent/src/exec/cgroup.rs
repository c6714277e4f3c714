//! One cgroup (version 2) a step, where this account may make them: the surest list of a step's processes, and one
//! write that kills them all.

use std::{
    fs::{DirBuilder, create_dir, read_dir, read_to_string, remove_dir, write},
    io::{self, ErrorKind},
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use xene_schemas::meta::RunName;

/// The cgroup below which those of steps are made, for an agent that works in `work_dir`: made if that is possible.
///
/// `None` if there is no cgroup v2, it may not be written, or the kernel is too old to kill a cgroup (before 5.14).
pub fn find(work_dir: &Path) -> Option<PathBuf> {
    let mounts = read_to_string("/proc/self/mounts").ok()?;
    let own = read_to_string("/proc/self/cgroup").ok()?;
    // The name is the same after a restart, so that what a crashed agent left can be found.
    let work_dir = std::path::absolute(work_dir).ok()?;
    let name = format!("xene-{}", &blake3::hash(work_dir.as_os_str().as_bytes()).to_hex()[..16]);
    let parent = own_group(&mounts, &own)?.join(name);
    match DirBuilder::new().create(&parent) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return None,
        _ => {}
    }
    parent.join("cgroup.kill").exists().then_some(parent)
}

fn own_group(mounts: &str, own: &str) -> Option<PathBuf> {
    let mount = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (_, mount, kind) = (fields.next()?, fields.next()?, fields.next()?);
        (kind == "cgroup2").then_some(mount)
    })?;
    let path = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(Path::new(mount).join(path))
}

/// Kills whatever is in the steps' cgroups below `parent`, but for those of runs that go on, and removes those that are
/// empty.
pub(super) fn sweep(parent: &Path, goes_on: impl Fn(RunName) -> bool) {
    let Ok(entries) = read_dir(parent) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        let name = entry.file_name();
        let run = name.to_str().and_then(|name| name.split_once('-')).and_then(|(run, _)| run.parse().ok());
        if run.is_some_and(&goes_on) {
            continue;
        }
        let _ = write(entry.path().join("cgroup.kill"), "1");
        let _ = remove_dir(entry.path());
    }
}

/// The cgroup of one step. Removed when dropped, which needs it to be empty.
#[derive(Debug)]
pub(super) struct StepGroup {
    path: PathBuf,
}

impl StepGroup {
    /// Makes the cgroup.
    pub(super) fn new(parent: &Path, name: &str) -> io::Result<Self> {
        let path = parent.join(name);
        create_dir(&path).map(|()| Self { path })
    }

    /// One that was made before.
    pub(super) fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Moves a process in. What it has started before stays where it was.
    pub(super) fn add(&self, pid: i32) -> io::Result<()> {
        write(self.path.join("cgroup.procs"), pid.to_string())
    }

    /// Its processes, those of cgroups that they made below it included.
    pub(super) fn pids(&self) -> Vec<i32> {
        let (mut pids, mut next) = (Vec::new(), vec![self.path.clone()]);
        while let Some(path) = next.pop() {
            let procs = read_to_string(path.join("cgroup.procs")).unwrap_or_default();
            pids.extend(procs.lines().filter_map(|pid| pid.parse::<i32>().ok()));
            next.extend(folders(&path));
        }
        pids
    }

    /// Kills all of them at once.
    pub(super) fn kill(&self) {
        let _ = write(self.path.join("cgroup.kill"), "1");
    }
}

impl Drop for StepGroup {
    fn drop(&mut self) {
        if remove_dir(&self.path).is_ok() {
            return;
        }
        let mut nested = vec![self.path.clone()];
        let mut at = 0;
        while let Some(path) = nested.get(at) {
            let below: Vec<_> = folders(path).collect();
            nested.extend(below);
            at += 1;
        }
        for path in nested.iter().rev() {
            if let Err(error) = remove_dir(path) {
                tracing::debug!(path = %path.display(), %error, "can't remove a step's cgroup");
            }
        }
    }
}

fn folders(path: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = read_dir(path).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_unified_mount_beside_the_old_ones() {
        let mounts = "cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        let own = "4:cpu:/x\n0::/system.slice/agent.service\n";
        let expected = Path::new("/sys/fs/cgroup/unified/system.slice/agent.service");
        assert_eq!(own_group(mounts, own).as_deref(), Some(expected));
        assert_eq!(own_group("proc /proc proc rw 0 0\n", own), None);
        assert_eq!(own_group(mounts, "4:cpu:/x\n"), None);
    }
}
