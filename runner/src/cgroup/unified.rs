//! Where in the unified hierarchy (version 2) our cgroups can be.
//!
//! A group whose controllers limit groups below it must hold no processes itself, but for the hierarchy's root
//! (kernel, cgroup-v2.rst, "No Internal Process Constraint"). And a process moves only where its user may write to
//! `cgroup.procs` of the nearest group above both ends ("Delegation Containment").

use std::path::{Path, PathBuf};

use rustix::fs::Access;
use rustix::process::Pid;

use super::host::{find, own_unified, permits};
use crate::error::{Doing, RunnerError};

/// The daemon's own group, where it has to leave the one that its sandboxes' are made in. No launcher's id has a dot.
const DAEMON: &str = "rbuild.daemon";

/// The highest group from `top` down to `own`, below it, that groups with the controller `name` can be made in.
///
/// Switches the controller on where that is what is missing.
pub(super) fn base(top: &Path, own: &Path, name: &str) -> Option<PathBuf> {
    let mut candidates: Vec<&Path> = own.ancestors().take_while(|dir| dir.starts_with(top)).collect();
    candidates.reverse();
    candidates
        .into_iter()
        .find(|dir| is_ours(dir) && may_hold_groups(dir) && offers(dir, name))
        .map(Path::to_owned)
}

fn is_ours(dir: &Path) -> bool {
    ["", "cgroup.procs", "cgroup.subtree_control"]
        .iter()
        .all(|file| permits(&dir.join(file), Access::WRITE_OK))
}

/// The root, or an ordinary group without processes. One with processes would take `pids` and `cpu`, but become the root
/// of a threaded subtree, whose groups no process can be moved to.
fn may_hold_groups(dir: &Path) -> bool {
    let read = |file: &str| fs_err::read_to_string(dir.join(file));
    match read("cgroup.type") {
        // Only the root has none.
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
        Ok(kind) => kind.trim() == "domain" && read("cgroup.procs").is_ok_and(|pids| pids.trim().is_empty()),
    }
}

/// Whether groups below have the controller; switches it on where it can.
pub(super) fn offers(dir: &Path, name: &str) -> bool {
    let lists = |file: &str| {
        fs_err::read_to_string(dir.join(file))
            .is_ok_and(|text| text.split_whitespace().any(|word| word == name))
    };
    let control = dir.join("cgroup.subtree_control");
    lists("cgroup.subtree_control")
        || (lists("cgroup.controllers") && fs_err::write(control, format!("+{name}")).is_ok())
}

/// Moves this process into a group below its own where sandboxes could not be limited otherwise: in a container, and in
/// a service whose group was delegated to it, the daemon itself sits in the only group that it may use.
///
/// Nothing happens where that would not help: while others are in that group too, which are not ours to move, or where it
/// may not be written. To be called before there are other processes or threads.
///
/// # Errors
/// When the group cannot be looked at, made or entered.
pub fn make_room() -> Result<(), RunnerError> {
    match own_unified()? {
        Some(own) if needed()? => leave(&own, rustix::process::getpid()),
        _ => Ok(()),
    }
}

/// Whether a controller is missing that the unified hierarchy may give.
fn needed() -> Result<bool, RunnerError> {
    for name in ["memory", "pids"] {
        if find(name)?.is_none() {
            return Ok(true);
        }
    }
    Ok(false)
}

fn leave(own: &Path, daemon: Pid) -> Result<(), RunnerError> {
    let procs = own.join("cgroup.procs");
    let pid = daemon.as_raw_pid().to_string();
    let inside = fs_err::read_to_string(&procs).doing(|| format!("read `{}`", procs.display()))?;
    if !is_ours(own) || inside.trim() != pid {
        return Ok(());
    }
    let group = own.join(DAEMON);
    super::make_dir(&group)?;
    super::write(&group.join("cgroup.procs"), &pid)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What looks like a hierarchy: `TOP/service/inner`.
    struct Fake(tempfile::TempDir);

    impl Fake {
        fn new() -> Self {
            let fake = Self(tempfile::tempdir().unwrap());
            for dir in ["", "service", "service/inner"] {
                fs_err::create_dir_all(fake.path(dir)).unwrap();
                fake.set(dir, "cgroup.controllers", "cpu memory pids");
                fake.set(dir, "cgroup.subtree_control", "");
                fake.set(dir, "cgroup.procs", "");
            }
            fake.set("service", "cgroup.type", "domain\n");
            fake.set("service/inner", "cgroup.type", "domain\n");
            fake
        }

        fn path(&self, dir: &str) -> PathBuf {
            self.0.path().join(dir)
        }

        fn set(&self, dir: &str, file: &str, text: &str) {
            fs_err::write(self.path(dir).join(file), text).unwrap();
        }

        fn get(&self, dir: &str, file: &str) -> String {
            fs_err::read_to_string(self.path(dir).join(file)).unwrap()
        }

        #[track_caller]
        fn finds(&self, name: &str, base_dir: Option<&str>) {
            let found = base(self.0.path(), &self.path("service/inner"), name);
            assert_eq!(found, base_dir.map(|dir| self.0.path().join(dir)));
        }
    }

    #[test]
    fn the_root_may_hold_processes_and_groups() {
        let fake = Fake::new();
        fake.set("", "cgroup.procs", "1\n2\n");
        fake.finds("memory", Some(""));
        assert_eq!(fake.get("", "cgroup.subtree_control"), "+memory");
        fake.set("", "cgroup.subtree_control", "pids");
        fake.finds("pids", Some(""));
        assert_eq!(fake.get("", "cgroup.subtree_control"), "pids", "it was on");
        fake.finds("rdma", None);
    }

    /// In a container the top is an ordinary group.
    #[test]
    fn other_groups_hold_groups_only_without_processes() {
        let fake = Fake::new();
        fake.set("", "cgroup.type", "domain\n");
        fake.set("", "cgroup.procs", "1\n");
        fake.finds("pids", Some("service"));
        fake.set("service", "cgroup.procs", "0\n");
        fake.set("service/inner", "cgroup.procs", "7\n");
        fake.finds("pids", None);
        assert_eq!(fake.get("service/inner", "cgroup.subtree_control"), "", "nothing is switched on in vain");
        fake.set("service", "cgroup.procs", "");
        fake.set("service", "cgroup.type", "domain threaded\n");
        fake.finds("pids", None);
    }

    #[test]
    fn a_process_alone_leaves_its_group() {
        let fake = Fake::new();
        let (own, pid) = (fake.path("service"), Pid::from_raw(7).unwrap());
        for others in ["7\n8\n", "8\n", ""] {
            fake.set("service", "cgroup.procs", others);
            leave(&own, pid).unwrap();
            assert!(!own.join(DAEMON).exists(), "{others:?}");
        }
        fake.set("service", "cgroup.procs", "7\n");
        leave(&own, pid).unwrap();
        assert_eq!(fake.get("service/rbuild.daemon", "cgroup.procs"), "7");
    }
}
