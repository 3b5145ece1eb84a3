//! Hashing of file contents.

use std::io::{self, Read};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::cores;
use crate::tree::FileDigest;

/// Read at once. Smaller costs system calls, larger falls out of the second-level cache between read and hash.
pub(super) const CHUNK: usize = 256 << 10;

/// Fewer jobs than this are not worth a thread.
const JOBS_PER_THREAD: usize = 32;

/// More threads than this would only wait for the disk.
const MAX_THREADS: usize = 4;

/// Reads to the end; gives length and digest.
pub(super) fn hash_reader(mut input: impl Read, size_hint: u64) -> io::Result<(u64, FileDigest)> {
    let mut buf = vec![0; buffer_size(size_hint)];
    let mut hasher = blake3::Hasher::new();
    let mut size = 0;
    loop {
        let n = read_some(&mut input, &mut buf)?;
        if n == 0 {
            return Ok((size, FileDigest::from_bytes(hasher.finalize().into())));
        }
        hasher.update(&buf[..n]);
        size += n as u64;
    }
}

/// A buffer that a file of this size fits into with one read, and one more that sees the end.
pub(super) fn buffer_size(size_hint: u64) -> usize {
    usize::try_from(size_hint).unwrap_or(CHUNK).saturating_add(1).clamp(64, CHUNK)
}

/// One read, again when a signal came.
pub(super) fn read_some(input: &mut impl Read, buf: &mut [u8]) -> io::Result<usize> {
    loop {
        match input.read(buf) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// Runs `job` for `0..count` on a few threads; results in order, or one of the errors.
pub(super) fn in_parallel<T: Send, E: Send>(
    count: usize,
    job: impl Fn(usize) -> Result<T, E> + Sync,
) -> Result<Vec<T>, E> {
    let threads = (count / JOBS_PER_THREAD).clamp(1, cores().min(MAX_THREADS));
    if threads == 1 {
        return (0..count).map(job).collect();
    }
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            if i >= count {
                return Ok(done);
            }
            match job(i) {
                Ok(result) => done.push((i, result)),
                Err(e) => {
                    next.store(count, Ordering::Relaxed);
                    return Err(e);
                }
            }
        }
    };
    let parts: Vec<Result<Vec<(usize, T)>, E>> = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let own = work();
        let join = |t: std::thread::ScopedJoinHandle<'_, _>| match t.join() {
            Ok(part) => part,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        std::iter::once(own).chain(others.into_iter().map(join)).collect()
    });
    let mut all = Vec::with_capacity(count);
    for part in parts {
        all.extend(part?);
    }
    all.sort_unstable_by_key(|(i, _)| *i);
    Ok(all.into_iter().map(|(_, result)| result).collect())
}
