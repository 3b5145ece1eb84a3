//! The seccomp filter: Docker's default profile as a BPF program of our own, for every system call ABI the kernel
//! offers on this architecture (32-bit programs run in builds, too).
//!
//! `seccomp/allowed.txt` lists the names that are always allowed, `seccomp/<abi>.txt` the numbers of each ABI; rules
//! with conditions are in [`profile`]. What no rule names gets EPERM; numbers newer than the tables get ENOSYS, so that
//! C libraries take their fallback.

mod assembler;
mod profile;

use std::sync::OnceLock;

pub(crate) use assembler::Instruction;

use crate::child::DEFAULT_CAPABILITIES;

/// The program for the default capabilities, made once.
pub(crate) fn default_program() -> &'static [Instruction] {
    static PROGRAM: OnceLock<Vec<Instruction>> = OnceLock::new();
    PROGRAM.get_or_init(|| assembler::assemble(&profile::abis(), DEFAULT_CAPABILITIES))
}

#[cfg(test)]
mod tests;
