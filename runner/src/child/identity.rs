//! User, groups, capabilities and resource limits of the command.

use std::os::fd::BorrowedFd;

use rustix::fs::{FileType, Gid, Uid};
use rustix::process::{Resource, Rlimit as RawRlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::error::{Doing, RunnerError};
use crate::spec::{Rlimit, User};

/// Docker's default capabilities.
pub(crate) const DEFAULT_CAPABILITIES: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::AUDIT_WRITE);

/// Becomes `user`; unless `insecure`, with no more than the default capabilities. A user other than root has none of
/// them in effect, but set-id programs can still regain what is in the bounding set.
pub(super) fn assume(user: &User, insecure: bool) -> Result<(), RunnerError> {
    if !insecure {
        drop_bounding()?;
    }
    rustix::thread::clear_ambient_capability_set().doing(|| "clear the ambient capabilities")?;
    let groups: Vec<Gid> = user.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    rustix::thread::set_thread_groups(&groups).doing(|| "set the supplementary groups")?;
    let gid = Gid::from_raw(user.gid);
    rustix::thread::set_thread_res_gid(gid, gid, gid).doing(|| format!("become group `{}`", user.gid))?;
    let uid = Uid::from_raw(user.uid);
    rustix::thread::set_thread_res_uid(uid, uid, uid).doing(|| format!("become user `{}`", user.uid))?;
    set_effective(user, insecure)
}

fn set_effective(user: &User, insecure: bool) -> Result<(), RunnerError> {
    let now = rustix::thread::capabilities(None).doing(|| "read the capabilities")?;
    let mut keep = now.permitted;
    if user.uid != 0 {
        keep = CapabilitySet::empty();
    } else if !insecure {
        keep &= DEFAULT_CAPABILITIES;
    }
    let sets = CapabilitySets { effective: keep, permitted: keep, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets).doing(|| "set the capabilities")
}

fn drop_bounding() -> Result<(), RunnerError> {
    for bit in 0..64 {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        if DEFAULT_CAPABILITIES.contains(capability) {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // One past the last that this kernel knows.
            Err(rustix::io::Errno::INVAL) => break,
            Err(errno) => return Err(RunnerError::os("drop a capability from the bounding set", errno)),
        }
    }
    Ok(())
}

/// Hands a standard descriptor to the user, so that opening `/dev/stdout` again works. Pipes and files that
/// cannot be handed over stay as they are, as does what the host shares (`/dev/null`).
pub(super) fn give_to(fd: BorrowedFd<'_>, user: &User) {
    let Ok(stat) = rustix::fs::fstat(fd) else { return };
    if stat.st_uid != user.uid && FileType::from_raw_mode(stat.st_mode) == FileType::Fifo {
        // Best effort, as above.
        let _unchanged = rustix::fs::fchown(fd, Some(Uid::from_raw(user.uid)), None);
    }
}

/// Sets the limits asked for.
pub(super) fn set_rlimits(limits: &[Rlimit]) -> Result<(), RunnerError> {
    for limit in limits {
        let resource = resource(&limit.name)
            .ok_or_else(|| RunnerError::invalid(format!("unknown resource limit `{}`", limit.name)))?;
        let raw = RawRlimit { current: limit.soft, maximum: limit.hard };
        rustix::process::setrlimit(resource, raw).doing(|| format!("set resource limit `{}`", limit.name))?;
    }
    Ok(())
}

/// Sets how readily the kernel kills the command when memory runs out. Called while the host's `/proc` is in view.
pub(super) fn set_badness(score: i32) -> Result<(), RunnerError> {
    fs_err::write("/proc/self/oom_score_adj", score.to_string())
        .doing(|| format!("set the out-of-memory score `{score}`"))
}

/// Docker's names, with or without the kernel's prefix.
fn resource(name: &str) -> Option<Resource> {
    let name = name.to_ascii_lowercase();
    Some(match name.strip_prefix("rlimit_").unwrap_or(&name) {
        "as" => Resource::As,
        "core" => Resource::Core,
        "cpu" => Resource::Cpu,
        "data" => Resource::Data,
        "fsize" => Resource::Fsize,
        "locks" => Resource::Locks,
        "memlock" => Resource::Memlock,
        "msgqueue" => Resource::Msgqueue,
        "nice" => Resource::Nice,
        "nofile" => Resource::Nofile,
        "nproc" => Resource::Nproc,
        "rss" => Resource::Rss,
        "rtprio" => Resource::Rtprio,
        "rttime" => Resource::Rttime,
        "sigpending" => Resource::Sigpending,
        "stack" => Resource::Stack,
        _ => return None,
    })
}
