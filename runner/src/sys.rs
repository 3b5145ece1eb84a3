//! The only place with unsafe code: system calls that neither rustix nor nix wraps safely.

pub(crate) mod fds;
pub(crate) mod memory;
pub(crate) mod mount;
pub(crate) mod process;
pub(crate) mod seccomp;
