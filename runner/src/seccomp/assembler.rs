//! From the profile to classic BPF.

use rustix::thread::CapabilitySet;

use super::profile::{Abi, Verdict, numbers, verdict};

/// One instruction of the kernel's classic BPF machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Instruction {
    pub code: u16,
    pub jump_true: u8,
    pub jump_false: u8,
    pub operand: u32,
}

pub(super) const LOAD: u16 = 0x20;
pub(super) const AND: u16 = 0x54;
pub(super) const RETURN: u16 = 0x06;
pub(super) const JUMP: u16 = 0x05;
pub(super) const JUMP_EQUAL: u16 = 0x15;
pub(super) const JUMP_GREATER_OR_EQUAL: u16 = 0x35;

/// Offsets in `struct seccomp_data`, bytes. Arguments are 64 bits wide; all that we look at are 32-bit values to
/// the kernel, so the low half decides, whatever the high half holds.
pub(super) const NUMBER: u32 = 0;
pub(super) const ARCH: u32 = 4;
pub(super) const FIRST_ARGUMENT: u32 = 16;

pub(super) const RET_ALLOW: u32 = 0x7fff_0000;
pub(super) const RET_ERRNO: u32 = 0x0005_0000;

/// CLONE_NEW* but the time namespace, which clone cannot make.
const NAMESPACE_FLAGS: u32 = 0x7e02_0000;
/// What tells the ABIs apart that share an architecture (x32).
const ABI_BIT: u32 = 0x4000_0000;
const AF_ALG: u32 = 38;
const AF_VSOCK: u32 = 40;
/// PER_LINUX, PER_LINUX32, UNAME26 with each, and the query.
const PERSONALITIES: [u32; 5] = [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// The whole program: one decision tree per ABI, EPERM for all others.
pub(super) fn assemble(abis: &[Abi], capabilities: CapabilitySet) -> Vec<Instruction> {
    let mut program = Vec::new();
    for abi in abis {
        let tree = tree(&segments(abi, capabilities));
        program.push(load(ARCH));
        let check = abi_check(abi, tree.len());
        program.push(jump(JUMP_EQUAL, abi.audit, 1, 0));
        program.push(always(check.len() + tree.len()));
        program.extend(check);
        program.extend(tree);
    }
    program.push(result(Verdict::Errno(libc::EPERM as u16)));
    program
}

/// Loads the number and goes on into the tree if the ABI's bit is as it should be, past the tree otherwise.
fn abi_check(abi: &Abi, tree: usize) -> [Instruction; 3] {
    // Numbers with the bit belong to another ABI of the same architecture.
    let (with_bit, without) = if abi.bit == 0 { (0, 1) } else { (1, 0) };
    [load(NUMBER), jump(JUMP_GREATER_OR_EQUAL, ABI_BIT, with_bit, without), always(tree)]
}

/// Runs of numbers with the same verdict: first number and verdict, ascending, the first at 0.
fn segments(abi: &Abi, capabilities: CapabilitySet) -> Vec<(u32, Verdict)> {
    let mut segments: Vec<(u32, Verdict)> = Vec::new();
    let mut push = |start: u32, verdict: Verdict| {
        if segments.last().is_none_or(|(_, last)| *last != verdict) {
            segments.push((start, verdict));
        }
    };
    let mut next = 0;
    for (number, name) in numbers(abi) {
        if number > next {
            push(next | abi.bit, Verdict::Errno(libc::EPERM as u16));
        }
        push(number | abi.bit, verdict(abi, name, capabilities));
        next = number + 1;
    }
    push(next | abi.bit, Verdict::Errno(libc::ENOSYS as u16));
    segments
}

/// A binary search over the segments.
fn tree(segments: &[(u32, Verdict)]) -> Vec<Instruction> {
    if let [(_, verdict)] = segments {
        return leaf(*verdict);
    }
    let (low, high) = segments.split_at(segments.len() / 2);
    let (low, border, high) = (tree(low), high[0].0, tree(high));
    let mut program = match u8::try_from(low.len()) {
        Ok(distance) => vec![jump(JUMP_GREATER_OR_EQUAL, border, distance, 0)],
        // Too far for a conditional jump.
        Err(_) => vec![jump(JUMP_GREATER_OR_EQUAL, border, 0, 1), always(low.len())],
    };
    program.extend(low);
    program.extend(high);
    program
}

fn leaf(verdict: Verdict) -> Vec<Instruction> {
    let deny = result(Verdict::Errno(libc::EPERM as u16));
    let allow = result(Verdict::Allow);
    let first = load(FIRST_ARGUMENT);
    match verdict {
        Verdict::Allow | Verdict::Errno(_) => vec![result(verdict)],
        Verdict::Clone => {
            let mask = Instruction { code: AND, jump_true: 0, jump_false: 0, operand: NAMESPACE_FLAGS };
            vec![first, mask, jump(JUMP_EQUAL, 0, 0, 1), allow, deny]
        }
        Verdict::Socket => {
            vec![first, jump(JUMP_EQUAL, AF_ALG, 2, 0), jump(JUMP_EQUAL, AF_VSOCK, 1, 0), allow, deny]
        }
        Verdict::Personality => {
            let mut program = vec![first];
            for (index, personality) in PERSONALITIES.into_iter().enumerate() {
                let to_allow = (PERSONALITIES.len() - index) as u8;
                program.push(jump(JUMP_EQUAL, personality, to_allow, 0));
            }
            program.extend([deny, allow]);
            program
        }
    }
}

fn result(verdict: Verdict) -> Instruction {
    let operand = match verdict {
        Verdict::Errno(errno) => RET_ERRNO | u32::from(errno),
        _ => RET_ALLOW,
    };
    Instruction { code: RETURN, jump_true: 0, jump_false: 0, operand }
}

fn load(offset: u32) -> Instruction {
    Instruction { code: LOAD, jump_true: 0, jump_false: 0, operand: offset }
}

fn jump(code: u16, operand: u32, jump_true: u8, jump_false: u8) -> Instruction {
    Instruction { code, jump_true, jump_false, operand }
}

fn always(distance: usize) -> Instruction {
    Instruction { code: JUMP, jump_true: 0, jump_false: 0, operand: distance as u32 }
}
