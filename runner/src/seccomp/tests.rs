//! The filter, run by a small interpreter of the BPF instructions that it uses.

use super::assembler::*;
use super::*;

/// What the kernel shows a filter.
struct Call {
    arch: u32,
    number: u32,
    first: u64,
}

fn run(program: &[Instruction], call: &Call) -> u32 {
    let (mut at, mut accumulator) = (0, 0);
    loop {
        let i = program[at];
        at += 1;
        let branch = |taken: bool| usize::from(if taken { i.jump_true } else { i.jump_false });
        match i.code {
            LOAD => {
                accumulator = match i.operand {
                    NUMBER => call.number,
                    ARCH => call.arch,
                    FIRST_ARGUMENT => call.first as u32,
                    other => panic!("load of offset {other}"),
                }
            }
            AND => accumulator &= i.operand,
            RETURN => return i.operand,
            JUMP => at += i.operand as usize,
            JUMP_EQUAL => at += branch(accumulator == i.operand),
            JUMP_GREATER_OR_EQUAL => at += branch(accumulator >= i.operand),
            other => panic!("instruction {other:#x}"),
        }
    }
}

const EPERM: u32 = RET_ERRNO | 1;
const ENOSYS: u32 = RET_ERRNO | 38;

#[cfg(target_arch = "x86_64")]
const X86_64: u32 = 0xc000_003e;
#[cfg(target_arch = "x86_64")]
const I386: u32 = 0x4000_0003;

#[cfg(target_arch = "x86_64")]
#[test]
fn decides_as_dockers_profile() {
    let x32 = |n: u32| n | 0x4000_0000;
    let cases: &[(&str, u32, u32, u64, u32)] = &[
        ("read", X86_64, 0, 0, RET_ALLOW),
        ("execve", X86_64, 59, 0, RET_ALLOW),
        ("ptrace", X86_64, 101, 0, RET_ALLOW),
        ("chroot, by its capability", X86_64, 161, 0, RET_ALLOW),
        ("arch_prctl", X86_64, 158, 0, RET_ALLOW),
        ("setgroups", X86_64, 116, 0, RET_ALLOW),
        ("mount", X86_64, 165, 0, EPERM),
        ("unshare", X86_64, 272, 0, EPERM),
        ("setns", X86_64, 308, 0, EPERM),
        ("bpf", X86_64, 321, 0, EPERM),
        ("userfaultfd", X86_64, 323, 0, EPERM),
        ("keyctl", X86_64, 250, 0, EPERM),
        ("add_key", X86_64, 248, 0, EPERM),
        ("perf_event_open", X86_64, 298, 0, EPERM),
        ("io_uring_setup", X86_64, 425, 0, EPERM),
        ("open_by_handle_at", X86_64, 304, 0, EPERM),
        ("init_module", X86_64, 175, 0, EPERM),
        ("kexec_load", X86_64, 246, 0, EPERM),
        ("clone3 falls back", X86_64, 435, 0, ENOSYS),
        ("beyond the tables", X86_64, 900, 0, ENOSYS),
        ("fork by clone", X86_64, 56, 0x11, RET_ALLOW),
        ("clone of a user namespace", X86_64, 56, 0x1000_0011, EPERM),
        ("clone of a mount namespace", X86_64, 56, 0x0002_0000, EPERM),
        ("clone of a cgroup namespace", X86_64, 56, 0x0200_0000, EPERM),
        ("inet socket", X86_64, 41, 2, RET_ALLOW),
        ("unknown family below", X86_64, 41, 39, RET_ALLOW),
        ("AF_ALG", X86_64, 41, 38, EPERM),
        ("AF_VSOCK", X86_64, 41, 40, EPERM),
        ("AF_ALG with a dirty high half", X86_64, 41, 0xdead_0000_0026, EPERM),
        ("family above", X86_64, 41, 44, RET_ALLOW),
        ("personality query", X86_64, 135, 0xffff_ffff, RET_ALLOW),
        ("personality 32-bit", X86_64, 135, 8, RET_ALLOW),
        ("personality without randomisation", X86_64, 135, 0x0004_0000, EPERM),
        ("x32 read", X86_64, x32(0), 0, RET_ALLOW),
        ("x32 rt_sigaction", X86_64, x32(512), 0, RET_ALLOW),
        ("x32 mount", X86_64, x32(165), 0, EPERM),
        ("native number of an x32 call", X86_64, 512, 0, ENOSYS),
        ("i386 read", I386, 3, 0, RET_ALLOW),
        ("i386 mount", I386, 21, 0, EPERM),
        ("i386 socketcall", I386, 102, 0, EPERM),
        ("i386 socket", I386, 359, 2, RET_ALLOW),
        ("i386 socket AF_ALG", I386, 359, 38, EPERM),
        ("i386 clone3", I386, 435, 0, ENOSYS),
        ("i386 fork by clone", I386, 120, 0x11, RET_ALLOW),
        ("i386 unshare", I386, 310, 0, EPERM),
        ("another architecture", 0x1234, 0, 0, EPERM),
    ];
    for &(what, arch, number, first, expected) in cases {
        assert_eq!(run(default_program(), &Call { arch, number, first }), expected, "{what}");
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn every_number_gets_the_verdict_of_its_name() {
    for abi in profile::abis() {
        for (number, name) in profile::numbers(&abi) {
            let wanted = match profile::verdict(&abi, name, DEFAULT_CAPABILITIES) {
                profile::Verdict::Errno(errno) => RET_ERRNO | u32::from(errno),
                _ => RET_ALLOW,
            };
            let call = Call { arch: abi.audit, number: number | abi.bit, first: 0 };
            assert_eq!(run(default_program(), &call), wanted, "{name} of {:#x}", abi.audit);
        }
    }
}

#[test]
fn fits_the_kernels_limit() {
    assert!(default_program().len() < 4096, "{}", default_program().len());
}
