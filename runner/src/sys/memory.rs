//! What the allocator may keep.
#![expect(unsafe_code, reason = "mallopt has no safe wrapper")]

/// Heaps that all threads share.
const ARENAS: libc::c_int = 2;

/// Makes threads share two heaps instead of having up to eight for each processor: a daemon whose threads come and go
/// would keep free memory in each. Other allocators than glibc's need no such help.
///
/// To be called before there are threads.
pub fn share_heaps() {
    // SAFETY: `mallopt` takes two numbers and no pointers.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, ARENAS);
    }
}
