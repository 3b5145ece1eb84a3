//! Docker's default profile as data.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use rustix::thread::CapabilitySet;

/// What the filter does with one system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Allow,
    Errno(u16),
    /// Allowed unless it makes namespaces.
    Clone,
    /// Allowed but for AF_ALG and AF_VSOCK.
    Socket,
    /// Allowed for the personalities that change nothing dangerous.
    Personality,
}

/// One system call ABI.
pub(super) struct Abi {
    /// `AUDIT_ARCH_*`.
    pub audit: u32,
    /// Set in the numbers of this ABI (x32 shares its audit value with x86_64).
    pub bit: u32,
    /// `name=number` words.
    pub numbers: &'static str,
    /// Allowed only here.
    pub extra: &'static [&'static str],
}

const ALLOWED: &str = include_str!("allowed.txt");

#[cfg(target_arch = "x86_64")]
pub(super) const X32_BIT: u32 = 0x4000_0000;

/// All ABIs that this kernel may offer, the native one first.
#[cfg(target_arch = "x86_64")]
pub(super) fn abis() -> Vec<Abi> {
    const X86_64: u32 = 0xc000_003e;
    const I386: u32 = 0x4000_0003;
    let both = &["arch_prctl", "modify_ldt"];
    vec![
        Abi { audit: X86_64, bit: 0, numbers: include_str!("x86_64.txt"), extra: both },
        Abi { audit: X86_64, bit: X32_BIT, numbers: include_str!("x32.txt"), extra: both },
        Abi { audit: I386, bit: 0, numbers: include_str!("i386.txt"), extra: &["modify_ldt"] },
    ]
}

/// All ABIs that this kernel may offer. Calls of 32-bit ARM programs are refused.
#[cfg(target_arch = "aarch64")]
pub(super) fn abis() -> Vec<Abi> {
    vec![Abi { audit: 0xc000_00b7, bit: 0, numbers: include_str!("aarch64.txt"), extra: &[] }]
}

/// System calls that a capability opens.
const BY_CAPABILITY: [(CapabilitySet, &[&str]); 14] = [
    (CapabilitySet::DAC_READ_SEARCH, &["open_by_handle_at"]),
    (
        CapabilitySet::SYS_ADMIN,
        &[
            "bpf",
            "clone",
            "clone3",
            "fanotify_init",
            "fsconfig",
            "fsmount",
            "fsopen",
            "fspick",
            "lookup_dcookie",
            "lsm_get_self_attr",
            "lsm_list_modules",
            "lsm_set_self_attr",
            "mount",
            "mount_setattr",
            "move_mount",
            "open_tree",
            "perf_event_open",
            "quotactl",
            "quotactl_fd",
            "setdomainname",
            "sethostname",
            "setns",
            "syslog",
            "umount",
            "umount2",
            "unshare",
        ],
    ),
    (CapabilitySet::SYS_BOOT, &["reboot"]),
    (CapabilitySet::SYS_CHROOT, &["chroot"]),
    (CapabilitySet::SYS_MODULE, &["delete_module", "init_module", "finit_module"]),
    (CapabilitySet::SYS_PACCT, &["acct"]),
    (CapabilitySet::SYS_PTRACE, &["kcmp", "pidfd_getfd", "process_madvise"]),
    (CapabilitySet::SYS_RAWIO, &["iopl", "ioperm"]),
    (CapabilitySet::SYS_TIME, &["settimeofday", "stime", "clock_settime", "clock_settime64"]),
    (CapabilitySet::SYS_TTY_CONFIG, &["vhangup"]),
    (CapabilitySet::SYS_NICE, &["get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node"]),
    (CapabilitySet::SYSLOG, &["syslog"]),
    (CapabilitySet::BPF, &["bpf"]),
    (CapabilitySet::PERFMON, &["perf_event_open"]),
];

/// What the profile says about a name in an ABI, for a sandbox with these capabilities.
pub(super) fn verdict(abi: &Abi, name: &str, capabilities: CapabilitySet) -> Verdict {
    let opened = |set: CapabilitySet, names: &[&str]| capabilities.contains(set) && names.contains(&name);
    if BY_CAPABILITY.iter().any(|(set, names)| opened(*set, names)) || abi.extra.contains(&name) {
        return Verdict::Allow;
    }
    match name {
        "clone" => Verdict::Clone,
        // Its flags lie in memory, where no filter can look: libc falls back to clone.
        "clone3" => Verdict::Errno(libc::ENOSYS as u16),
        "socket" => Verdict::Socket,
        "personality" => Verdict::Personality,
        "ptrace" | "process_vm_readv" | "process_vm_writev" => Verdict::Allow,
        _ if is_allowed(name) => Verdict::Allow,
        _ => Verdict::Errno(libc::EPERM as u16),
    }
}

fn is_allowed(name: &str) -> bool {
    static NAMES: OnceLock<BTreeSet<&str>> = OnceLock::new();
    NAMES.get_or_init(|| ALLOWED.split_ascii_whitespace().collect()).contains(name)
}

/// Names and numbers of an ABI, by number.
pub(super) fn numbers(abi: &Abi) -> Vec<(u32, &'static str)> {
    let mut numbers: Vec<_> = abi
        .numbers
        .split_ascii_whitespace()
        .filter_map(|word| word.split_once('='))
        .filter_map(|(name, number)| Some((number.parse().ok()?, name)))
        .collect();
    numbers.sort_unstable();
    numbers
}
