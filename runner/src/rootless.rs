//! Running without root: the whole daemon moves into a user namespace in which it is root, so all other code sees ids
//! as they are meant.

use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sched::CloneFlags;
use rustix::mount::MountPropagationFlags;
use rustix::process::{WaitId, WaitIdOptions, WaitIdStatus};
use rustix::thread::{Gid, Uid};

use crate::error::{Doing, RunnerError};
use crate::sys::process::{Fork, clone3, exit_now};

/// Ids that images use: 0 to 65535. Fewer are an error waiting to happen in some `chown`.
const WANTED_IDS: u64 = 65_536;

/// A range of subordinate ids that the system has given to a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    first: u64,
    count: u64,
}

/// Makes this process root in a user namespace and a mount namespace of its own. Nothing happens to a process that is root
/// already, of whichever namespace.
///
/// Id 0 inside is the caller; 1 and up are its subordinate ids, mapped by `newuidmap` and `newgidmap`. To be called
/// first thing in `main`, before any thread exists and before anything else of this crate is used.
pub fn enter() -> Result<(), RunnerError> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let name = user_name(uid)?;
    let uids = Mapping { tool: "newuidmap", own: uid, range: subordinate("/etc/subuid", &name, uid)? };
    let gids = Mapping { tool: "newgidmap", own: gid, range: subordinate("/etc/subgid", &name, uid)? };
    let (ready, told) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).doing(|| "create a pipe")?;
    let target = rustix::process::getpid().as_raw_pid();
    let helper = match clone3(0).doing(|| "fork the mapping helper")? {
        Fork::Child => {
            drop(told);
            exit_now(map_when_ready(&ready, target, [&uids, &gids]))
        }
        Fork::Parent { pidfd, .. } => pidfd,
    };
    nix::sched::unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS).map_err(|errno| {
        RunnerError::Rootless {
            reason: format!("this kernel lets no ordinary user make a user namespace ({errno})"),
        }
    })?;
    rustix::io::write(&told, b"1").doing(|| "tell the mapping helper")?;
    let status = rustix::process::waitid(WaitId::PidFd(helper.as_fd()), WaitIdOptions::EXITED)
        .doing(|| "wait for the mapping helper")?;
    check_helper(status.as_ref(), &name)?;
    become_root()
}

fn become_root() -> Result<(), RunnerError> {
    let (uid, gid) = (Uid::from_raw(0), Gid::from_raw(0));
    rustix::thread::set_thread_res_gid(gid, gid, gid).doing(|| "become group 0 of the user namespace")?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).doing(|| "become root of the user namespace")?;
    rustix::thread::set_thread_groups(&[]).doing(|| "drop the supplementary groups")?;
    rustix::mount::mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
        .doing(|| "detach the mount namespace")
}

/// One of the two maps.
struct Mapping {
    tool: &'static str,
    own: u32,
    range: Range,
}

impl Mapping {
    fn run(&self, pid: i32) -> Result<bool, std::io::Error> {
        let (own, range) = (self.own.to_string(), self.range);
        let words = [
            pid.to_string(),
            "0".into(),
            own,
            "1".into(),
            "1".into(),
            range.first.to_string(),
            range.count.to_string(),
        ];
        Ok(Command::new(self.tool).args(words).stdin(Stdio::null()).stdout(Stdio::null()).status()?.success())
    }
}

/// Runs outside of the namespace, where the set-id tools have their power. The exit code names what failed.
fn map_when_ready(ready: &impl AsFd, pid: i32, mappings: [&Mapping; 2]) -> i32 {
    let mut byte = [0];
    if !matches!(rustix::io::read(ready, &mut byte), Ok(1)) {
        return 1;
    }
    for (index, mapping) in (0_i32..).zip(mappings) {
        match mapping.run(pid) {
            Ok(true) => {}
            Ok(false) => return 10 + index,
            Err(_) => return 20 + index,
        }
    }
    0
}

fn check_helper(status: Option<&WaitIdStatus>, user: &str) -> Result<(), RunnerError> {
    let tool = |index: i32| if index == 0 { "newuidmap" } else { "newgidmap" };
    let reason = match status.and_then(WaitIdStatus::exit_status) {
        Some(0) => return Ok(()),
        Some(code @ (10 | 11)) => format!("`{}` refused the ids of `{user}`", tool(code - 10)),
        Some(code @ (20 | 21)) => format!("`{}` cannot be run (package uidmap)", tool(code - 20)),
        _ => "the mapping helper died".to_owned(),
    };
    Err(RunnerError::Rootless { reason })
}

fn user_name(uid: u32) -> Result<String, RunnerError> {
    let user = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid))
        .doing(|| format!("look up user `{uid}`"))?;
    Ok(user.map_or_else(|| uid.to_string(), |user| user.name))
}

fn subordinate(file: &str, name: &str, uid: u32) -> Result<Range, RunnerError> {
    let text = fs_err::read_to_string(Path::new(file)).unwrap_or_default();
    let reason = || format!("`{file}` gives `{name}` no range of {WANTED_IDS} ids (add one with `usermod`)");
    find_range(&text, name, uid).ok_or_else(|| RunnerError::Rootless { reason: reason() })
}

/// The largest range of a user, named or numbered.
fn find_range(text: &str, name: &str, uid: u32) -> Option<Range> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split(':');
            let owner = fields.next()?;
            let range =
                Range { first: fields.next()?.parse().ok()?, count: fields.next()?.trim().parse().ok()? };
            (owner == name || owner == uid.to_string()).then_some(range)
        })
        .max_by_key(|range| range.count)
        .filter(|range| range.count >= WANTED_IDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_largest_range() {
        let text = "a:100000:65536\nb:200000:10\n1001:300000:65536\nb:400000:65536\nbroken\n";
        let found = |name, uid| find_range(text, name, uid).map(|range| range.first);
        assert_eq!(found("a", 1000), Some(100_000));
        assert_eq!(found("b", 1002), Some(400_000));
        assert_eq!(found("c", 1001), Some(300_000));
        assert_eq!(found("d", 1003), None);
    }
}
