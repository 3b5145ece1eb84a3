//! Hashing on the way.

use std::io::{self, Read, Write};

use sha2::{Digest as _, Sha256};
use solver::Digest;

/// Hashes and counts what is written or read through it.
#[derive(Debug)]
pub struct Hashing<W> {
    out: W,
    hasher: Sha256,
    size: u64,
}

impl<W> Hashing<W> {
    /// Passes on to `out`, or from it.
    pub fn new(out: W) -> Self {
        Self { out, hasher: Sha256::new(), size: 0 }
    }

    /// How many bytes went through.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The writer or reader below, and digest and length in bytes of what went through.
    pub fn finish(self) -> (W, Digest, u64) {
        (self.out, Digest::from_bytes(self.hasher.finalize().into()), self.size)
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.out.read(buf)?;
        self.hasher.update(&buf[..n]);
        self.size += n as u64;
        Ok(n)
    }
}
