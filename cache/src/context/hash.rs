//! Hashing files of a context.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{FileType, Mode, OFlags, openat};

use super::error::ContextError;
use super::listing::{file_state, stat_fd};
use super::stat_cache::FileState;
use crate::tree::{FileDigest, TreePath};

/// Bytes read at a time; BLAKE3 hashes large pieces with wide vectors.
const BUFFER: usize = 256 << 10;

/// A hasher of files with its buffer, one per thread.
#[derive(Debug)]
pub(super) struct FileHasher {
    buffer: Vec<u8>,
}

/// What hashing a file gave.
#[derive(Debug)]
pub(super) struct Hashed {
    pub(super) digest: FileDigest,
    /// The state of the file that was opened; the digest and the size are its own, whatever the listing said.
    pub(super) state: FileState,
    /// Whether the stat cache may keep it.
    pub(super) settled: bool,
}

impl FileHasher {
    pub(super) fn new() -> Self {
        Self { buffer: vec![0; BUFFER] }
    }

    /// Hashes the file `name` in an open directory; `None` when it has vanished or is no regular file any more.
    pub(super) fn hash(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &CStr,
        path: &dyn Fn() -> TreePath,
    ) -> Result<Option<Hashed>, ContextError> {
        let fail = |action, e: rustix::io::Errno| ContextError::io(action, &path(), e);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = match openat(dir, name, flags, Mode::empty()) {
            Ok(file) => file,
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::LOOP | rustix::io::Errno::NXIO) => {
                return Ok(None);
            }
            Err(e) => return Err(fail("open", e)),
        };
        let start = now_ns();
        let before = stat_fd(file.as_fd()).map_err(|e| fail("stat", e))?;
        if FileType::from_raw_mode(before.stx_mode.into()) != FileType::RegularFile {
            return Ok(None);
        }
        let mut hasher = blake3::Hasher::new();
        let mut size = 0;
        loop {
            let len = rustix::io::read(&file, &mut self.buffer[..]).map_err(|e| fail("read", e))?;
            if len == 0 {
                break;
            }
            hasher.update(&self.buffer[..len]);
            size += len as u64;
        }
        let mut state = file_state(&before);
        let settled = size == state.size && state.settled_before(start);
        state.size = size;
        Ok(Some(Hashed { digest: FileDigest::from_bytes(hasher.finalize().into()), state, settled }))
    }
}

/// Nanoseconds since 1970 now.
fn now_ns() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    now.tv_sec.saturating_mul(1_000_000_000).saturating_add(now.tv_nsec)
}
