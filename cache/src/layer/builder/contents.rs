//! Putting bytes into files, hashed on the way.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::sync::mpsc;

use rustix::fs;
use rustix::io::Errno;

use crate::layer::hash::{CHUNK, buffer_size, hash_reader, read_some};
use crate::tree::FileDigest;
use crate::view::{Stat, disk};

/// Smaller files are copied faster than cloned.
const CLONE_FROM: u64 = 64 << 10;

/// From here on a second thread that hashes pays.
const PIPE_FROM: u64 = 16 << 20;

/// Copied at once in the kernel: small enough to be in the cache still when it is hashed.
const PIECE: usize = 2 << 20;

/// Length and digest of what was written.
pub(super) type Written = (u64, FileDigest);

/// Writes bytes from memory.
pub(super) fn store(file: &mut File, data: &[u8]) -> io::Result<Written> {
    file.write_all(data)?;
    Ok((data.len() as u64, FileDigest::of(data)))
}

/// Writes a stream.
pub(super) fn pour(file: &mut File, mut data: impl Read, size_hint: u64) -> io::Result<Written> {
    let mut buf = vec![0; buffer_size(size_hint)];
    let mut hasher = blake3::Hasher::new();
    let mut size = 0;
    loop {
        let n = read_some(&mut data, &mut buf)?;
        if n == 0 {
            return Ok((size, FileDigest::from_bytes(hasher.finalize().into())));
        }
        hasher.update(&buf[..n]);
        file.write_all(&buf[..n])?;
        size += n as u64;
        if size > size_hint && buf.len() < CHUNK {
            buf.resize(CHUNK, 0);
        }
    }
}

/// Copies a file: its blocks are shared where the file system can, else its bytes are.
pub(super) fn copy(file: &mut File, source: &File) -> io::Result<Written> {
    let Stat { size, .. } = disk::fstat(source)?;
    if size >= CLONE_FROM && fs::ioctl_ficlone(&*file, source).is_ok() {
        // What is hashed is the clone: the source may change, the clone cannot.
        return hash_reader(&*file, size);
    }
    if size >= PIPE_FROM
        && let Some(written) = copy_in_kernel(file, source)?
    {
        return Ok(written);
    }
    pour(file, source, size)
}

/// Copies in the kernel while another thread hashes what has arrived; `None` where the kernel cannot.
fn copy_in_kernel(file: &File, source: &File) -> io::Result<Option<Written>> {
    let (mut from, mut to) = (0, 0);
    let mut piece = || loop {
        match fs::copy_file_range(source, Some(&mut from), file, Some(&mut to), PIECE) {
            Err(Errno::INTR) => {}
            Err(e) => return Err(e),
            Ok(0) => return Ok(None),
            Ok(_) => return Ok(Some(to)),
        }
    };
    let first = match piece() {
        Ok(Some(end)) => end,
        Ok(None) | Err(Errno::XDEV | Errno::NOSYS | Errno::INVAL | Errno::OPNOTSUPP) => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    std::thread::scope(|scope| {
        let (arrived, ends) = mpsc::channel();
        let hashing = scope.spawn(|| hash_as_it_arrives(file, ends));
        let mut end = first;
        let copied = loop {
            // A hasher that failed says why when it is joined.
            if arrived.send(end).is_err() {
                break Ok(());
            }
            match piece() {
                Ok(Some(next)) => end = next,
                Ok(None) => break Ok(()),
                Err(e) => break Err(e),
            }
        };
        drop(arrived);
        let hashed = match hashing.join() {
            Ok(hashed) => hashed,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        copied?;
        Ok(Some((end, hashed?)))
    })
}

/// Hashes a file up to each of `ends`, in order.
fn hash_as_it_arrives(file: &File, ends: mpsc::Receiver<u64>) -> io::Result<FileDigest> {
    let mut hasher = blake3::Hasher::new();
    let mut buf = vec![0; CHUNK];
    let mut at = 0;
    for end in ends {
        while at < end {
            let room = usize::try_from(end - at).unwrap_or(CHUNK).min(CHUNK);
            file.read_exact_at(&mut buf[..room], at)?;
            hasher.update(&buf[..room]);
            at += room as u64;
        }
    }
    Ok(FileDigest::from_bytes(hasher.finalize().into()))
}
