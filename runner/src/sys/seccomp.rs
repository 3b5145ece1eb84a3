//! Installing a seccomp filter.
#![expect(unsafe_code, reason = "seccomp has no safe wrapper")]

use std::io;

use crate::seccomp::Instruction;

/// Installs `program` for this process and all it starts. Needs CAP_SYS_ADMIN, as no_new_privs stays off.
pub(crate) fn install(program: &[Instruction]) -> io::Result<()> {
    let filters: Vec<libc::sock_filter> = program
        .iter()
        .map(|i| libc::sock_filter { code: i.code, jt: i.jump_true, jf: i.jump_false, k: i.operand })
        .collect();
    let length = u16::try_from(filters.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?;
    let fprog = libc::sock_fprog { len: length, filter: filters.as_ptr().cast_mut() };
    // SAFETY: `fprog` points at `filters`, of the stated length; the kernel copies it before returning.
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const fprog) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
